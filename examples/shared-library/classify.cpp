// classify.cpp - an exported program from C++: its self-test, a class, and how long a row takes
#include <algorithm>
#include <array>
#include <chrono>
#include <cstdint>
#include <cstdio>

#include "digits.h"

int main()
{
    std::array<std::uint8_t, DIGITS_INPUTS> image{}; // a one, drawn by hand
    std::array<std::int32_t, DIGITS_OUTPUTS> scores;
    for (int y = 4; y < 24; y++)
        std::fill_n(image.begin() + 28 * y + 13, 3, 255);

    const int wrong = digits_selftest();
    std::printf("self-test: %s\n", wrong ? "failed" : "all rows have the scores they must");

    constexpr int calls = 10000;
    const auto began = std::chrono::steady_clock::now();
    for (int i = 0; i < calls; i++)
        digits_run(image.data(), scores.data());
    const std::chrono::duration<double, std::nano> time = std::chrono::steady_clock::now() - began;

    const auto best = std::max_element(scores.begin(), scores.end()) - scores.begin();
    std::printf("the image: %d, score %d; %.0f ns a row\n", static_cast<int>(best),
                static_cast<int>(scores[static_cast<std::size_t>(best)]), time.count() / calls);
    return wrong != 0;
}
