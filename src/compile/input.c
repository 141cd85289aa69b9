/* input.c - raw values in front of comparisons */
#include <math.h>
#include <string.h>

#include "compile/compile.h"

/* Greatest raw u8 value that is not above t after normalisation, -1 if all are: with the same
 * single-precision arithmetic as the net, so that no pixel is decided differently. */
nimbus_cut nimbus_cut_u8(real mean, real inverse_std, real t)
{
    int value = 255;
    while (value >= 0 && ((real)value - mean) * inverse_std > t)
        value--;
    if (value < 0)
        return (nimbus_cut){.at = -INFINITY};
    if (value == 255)
        return (nimbus_cut){.at = INFINITY};
    return (nimbus_cut){.at = value - 128};
}

/* Floats by rank: 0 is zero, then upwards and downwards without gaps to the infinities. */
static float float_of_rank(int64_t rank)
{
    uint32_t bits = (uint32_t)(rank < 0 ? -rank : rank);
    float value;
    memcpy(&value, &bits, sizeof value);
    return rank < 0 ? -value : value;
}

/* The same for raw floats: the greatest float that is not above. Found by halving, since far from
 * the mean many floats in a row are normalised to one value. */
nimbus_cut nimbus_cut_f32(real mean, real inverse_std, real t)
{
    const int64_t infinity = 0x7f800000;
    int64_t low = -infinity, high = infinity;
    while (high - low > 1) {
        int64_t middle = low + (high - low) / 2;
        if (((real)float_of_rank(middle) - mean) * inverse_std > t)
            high = middle;
        else
            low = middle;
    }
    return (nimbus_cut){.at = (double)float_of_rank(low)};
}
