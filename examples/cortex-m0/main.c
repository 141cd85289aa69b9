/* main.c - runs the exported program's self-test, then classifies an image */
#include "digits.h"
#include "semihosting.h"

/* A one, drawn by hand. */
static void draw(uint8_t image[DIGITS_INPUTS])
{
    for (int y = 4; y < 24; y++)
        for (int x = 13; x < 16; x++)
            image[28 * y + x] = 255;
}

static uint8_t image[DIGITS_INPUTS];
static int32_t scores[DIGITS_OUTPUTS];

int main(void)
{
    const int wrong = digits_selftest();
    print(wrong ? "the self-test failed\n" : "self-test: all rows have the scores they must\n");
    draw(image);
    digits_run(image, scores);
    int best = 0;
    for (int m = 1; m < DIGITS_OUTPUTS; m++)
        best = scores[m] > scores[best] ? m : best;
    const char text[] = {'t',  'h', 'e', ' ', 'i', 'm', 'a', 'g', 'e', ':', ' ', (char)('0' + best),
                         '\n', 0};
    print(text);
    device_exit(wrong != 0);
    return 0;
}
