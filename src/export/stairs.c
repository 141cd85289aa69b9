/* stairs.c - what a sum becomes, without a product
 *
 * sat8(round(sum * scale + offset)) in single precision climbs from -128 to 127, or falls, and the
 * sums at which it changes can be found by trying it. They lie along a straight line in fixed
 * point: the k-th change is at the first sum with (sum << shift) >= start + k * slope, and k is
 * found bit by bit with additions and comparisons. A sum that lies halfway between two outputs, up
 * to the roundings of single precision, can be on the wrong side of every line: those few are
 * listed. Where they are many, or 32 bits too few, the changes themselves are stored. */
#include "export/export.h"

int32_t nimbus_float_key(float x)
{
    union {
        float f;
        uint32_t u;
    } bits = {x};
    return (int32_t)(bits.u & 0x80000000u ? bits.u ^ 0x7fffffffu : bits.u);
}

static float float_of_key(int64_t key)
{
    union {
        uint32_t u;
        float f;
    } bits = {(uint32_t)(int32_t)key};
    bits.u = key < 0 ? bits.u ^ 0x7fffffffu : bits.u;
    return bits.f;
}

/* The numbers low..high stand for themselves, or for floats by their keys. Falling stairs are found
 * as those of the negative number, which climb. */
static void find(float scale, float offset, int64_t low, int64_t high, bool by_key,
                 nimbus_stairs *out)
{
    out->falls = scale < 0;
    out->low = out->falls ? -high : low;
    out->high = out->falls ? -low : high;
    int64_t from = out->low;
    for (int k = 1; k < 256; k++) {
        int64_t first = from, last = out->high + 1; /* the step is in first..last */
        while (first < last) {
            const int64_t middle = first + (last - first) / 2, x = out->falls ? -middle : middle;
            if (nimbus_scale_to_i8(by_key ? float_of_key(x) : (float)x, scale, offset) >= k - 128)
                last = middle;
            else
                first = middle + 1;
        }
        out->at[k] = from = first;
    }
}

void nimbus_stairs_of_integer(float scale, float offset, int64_t low, int64_t high,
                              nimbus_stairs *out)
{
    find(scale, offset, low, high, false, out);
}

void nimbus_stairs_of_float(float scale, float offset, nimbus_stairs *out)
{
    /* the finite ones: infinity is beyond every step of theirs */
    find(scale, offset, -0x7f800000ll, 0x7f7fffffll, true, out);
}

int64_t nimbus_stairs_reach(const nimbus_stairs *stairs)
{
    const int64_t low = stairs->at[1] > stairs->low ? stairs->at[1] - 1 : stairs->low;
    const int64_t high = stairs->at[255] <= stairs->high ? stairs->at[255] : stairs->high;
    return -low > high ? -low : high;
}

/* What start may be for a slope. */
typedef struct range {
    int64_t low, high;
} range;

static range starts_for(const nimbus_stairs *stairs, unsigned shift, int64_t slope)
{
    range r = {INT64_MIN, INT64_MAX};
    for (int k = 1; k < 256; k++) {
        const int64_t at = stairs->at[k];
        const int64_t high = at * ((int64_t)1 << shift) - k * slope;
        const int64_t low = (at - 1) * ((int64_t)1 << shift) + 1 - k * slope;
        if (at <= stairs->high && high < r.high)
            r.high = high;
        if (at > stairs->low && low > r.low)
            r.low = low;
    }
    return r;
}

/* How much room a slope leaves: a concave function of it. */
static int64_t room_for(const nimbus_stairs *stairs, unsigned shift, int64_t slope)
{
    const range r = starts_for(stairs, shift, slope);
    if (r.low == INT64_MIN || r.high == INT64_MAX) /* steps on one side alone */
        return INT64_MAX;
    return r.high - r.low;
}

bool nimbus_line_fit(const nimbus_stairs *stairs, unsigned shift, nimbus_line *out)
{
    const int64_t limit = INT32_MAX;
    int64_t low = 1, high = limit / 128; /* the sign of 0 would not say that stairs fall */
    while (low < high) {                 /* the largest room is in low..high */
        const int64_t middle = low + (high - low) / 2;
        const int64_t room = room_for(stairs, shift, middle);
        if (room == INT64_MAX || room >= room_for(stairs, shift, middle + 1))
            high = middle;
        else
            low = middle + 1;
    }
    const range r = starts_for(stairs, shift, low);
    /* Steps on one side alone leave one bound open. */
    const int64_t start = r.low == INT64_MIN    ? r.high
                          : r.high == INT64_MAX ? r.low
                                                : (r.low + r.high) / 2;
    const int64_t last = start + 255 * low;
    if (start < -limit || start > limit || last > limit)
        return false;
    *out = (nimbus_line){(int32_t)start, (int32_t)low};
    return true;
}

/* The first sum with (sum << shift) >= bound. */
static int64_t first_above(int64_t bound, unsigned shift)
{
    const int64_t unit = (int64_t)1 << shift;
    return bound > 0 ? (bound + unit - 1) / unit : -(-bound / unit);
}

static int value_at(const nimbus_stairs *stairs, int64_t sum)
{
    int k = 0;
    for (int bit = 128; bit; bit >>= 1)
        if (sum >= stairs->at[k + bit])
            k += bit;
    return k - 128;
}

size_t nimbus_line_faults(const nimbus_stairs *stairs, unsigned shift, const nimbus_line *line,
                          void (*tell)(void *arg, int64_t sum, int value), void *arg)
{
    enum { MOST = 64 };
    size_t n = 0;
    for (int k = 1; k < 256; k++) {
        int64_t from = first_above(line->start + (int64_t)k * line->slope, shift),
                to = stairs->at[k];
        if (from > to) {
            const int64_t swap = from;
            from = to;
            to = swap;
        }
        from = from < stairs->low ? stairs->low : from;
        to = to > stairs->high + 1 ? stairs->high + 1 : to;
        for (int64_t sum = from; sum < to; sum++) { /* on different sides of the two */
            if (tell)
                tell(arg, sum, value_at(stairs, sum));
            if (++n > MOST)
                return SIZE_MAX / 1024;
        }
    }
    return n;
}

/* ---- ranges of sums ----------------------------------------------------------------------- */

static void add_range(int64_t a, int64_t b, int64_t *low, int64_t *high)
{
    *low += a < b ? a : b;
    *high += a < b ? b : a;
}

void nimbus_sum_range(const nimbus_stored_step *step, size_t m, int64_t *low, int64_t *high)
{
    const nimbus_step_info *info = &step->info;
    const size_t K = nimbus_step_leaves(info), D = info->n_inputs;
    *low = *high = step->arrays.bias ? (int32_t)nimbus_u32_at(step->arrays.bias, m) : 0;
    if (info->kind == NIMBUS_STEP_AVERAGE_POOL) {
        const int64_t taps = (int64_t)(step->patch.height * step->patch.width);
        add_range(-128 * taps, 127 * taps, low, high);
    } else if (info->kind == NIMBUS_STEP_EXACT) {
        for (size_t d = 0; d < D; d++) {
            const int64_t weight = (int8_t)step->arrays.weights[m * D + d];
            add_range(-128 * weight, 127 * weight, low, high);
        }
    } else {
        for (size_t c = 0; c < info->n_codebooks; c++) {
            int64_t least = INT64_MAX, most = INT64_MIN;
            for (size_t k = 0; k < K; k++) {
                const int entry = nimbus_table_entry(info, step->arrays.tables, c * K + k, m);
                least = entry < least ? entry : least;
                most = entry > most ? entry : most;
            }
            add_range(least, most, low, high);
        }
    }
}
