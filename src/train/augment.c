/* augment.c - rows of a data set to batches of reals, moved, mirrored, mixed and made noisy
 *
 * Shifts and mirroring act on raw values (pixels that come in from outside are 0), mixing on raw
 * values and targets of neighbours in the batch, whose order is random already; noise comes last.
 * What happens to the row at position i of step s depends on (seed, s, i) alone. */
#include <math.h>
#include <string.h>

#include "net/simd.h"
#include "train/train.h"

#define ROWS_PER_ITEM 16

typedef struct fill_job {
    const nimbus_batches *b;
    nimbus_data_info info;
    const uint8_t *u8; /* features: one of the two */
    const float *f32;
    const int32_t *labels;
    const float *targets;
    const uint32_t *index;
    size_t first, n, step;
    real *x, *target, *teacher_y;
    int32_t *label;
} fill_job;

static size_t row_at(const fill_job *job, size_t i)
{
    return job->index ? job->index[i] : job->first + i;
}

/* n values from `at` on, times weight, are put into out, or added to what it keeps. */
NIMBUS_SIMD_CLONES
static void add_values(const fill_job *job, size_t at, size_t n, bool keep, real weight,
                       real *restrict out)
{
    if (job->u8) {
        const uint8_t *restrict in = job->u8 + at;
#pragma omp simd
        for (size_t i = 0; i < n; i++)
            out[i] = (keep ? out[i] : 0) + weight * (real)in[i];
    } else {
        const float *restrict in = job->f32 + at;
#pragma omp simd
        for (size_t i = 0; i < n; i++)
            out[i] = (keep ? out[i] : 0) + weight * (real)in[i];
    }
}

static void add_mirrored(const fill_job *job, size_t at, size_t n, real weight, real *out)
{
    for (size_t i = 0; i < n; i++)
        out[i] += weight * (real)(job->u8 ? (float)job->u8[at - i] : job->f32[at - i]);
}

typedef struct movement {
    ptrdiff_t down, right;
    bool mirrored;
} movement;

static movement draw_movement(const fill_job *job, size_t i)
{
    const nimbus_batches *b = job->b;
    movement m = {0, 0, false};
    if (b->shift) {
        uint64_t stream = nimbus_random_stream(NIMBUS_RANDOM_SHIFT, job->step);
        size_t span = 2 * (size_t)b->shift + 1;
        m.down = (ptrdiff_t)nimbus_random_below(b->seed, stream, 2 * i, span) - (int)b->shift;
        m.right = (ptrdiff_t)nimbus_random_below(b->seed, stream, 2 * i + 1, span) - (int)b->shift;
    }
    if (b->flip)
        m.mirrored =
            nimbus_random_u64(b->seed, nimbus_random_stream(NIMBUS_RANDOM_FLIP, job->step), i) & 1;
    return m;
}

/* Adds the moved image: out(y, x) += weight * in(y - down, x - right), mirrored first. */
static void add_moved(const fill_job *job, size_t at, movement m, real weight, real *out)
{
    ptrdiff_t height = (ptrdiff_t)job->info.height, width = (ptrdiff_t)job->info.width;
    ptrdiff_t from = m.right > 0 ? m.right : 0, to = width + (m.right < 0 ? m.right : 0);
    for (size_t channel = 0; channel < job->info.channels; channel++) {
        for (ptrdiff_t y = 0; y < height; y++) {
            ptrdiff_t in_y = y - m.down;
            if (in_y < 0 || in_y >= height || from >= to)
                continue;
            size_t in_row = at + (channel * job->info.height + (size_t)in_y) * job->info.width;
            real *out_row = out + (channel * job->info.height + (size_t)y) * job->info.width;
            size_t column = (size_t)(from - m.right), n = (size_t)(to - from);
            if (m.mirrored)
                add_mirrored(job, in_row + (size_t)width - 1 - column, n, weight, out_row + from);
            else
                add_values(job, in_row + column, n, true, weight, out_row + from);
        }
    }
}

/* The row at position i, augmented, times weight, is added to x (or put there). */
static void add_row(const fill_job *job, size_t i, bool keep, real weight, real *x)
{
    const nimbus_batches *b = job->b;
    size_t at = row_at(job, i) * b->width;
    if (!b->shift && !b->flip) {
        add_values(job, at, b->width, keep, weight, x);
        return;
    }
    if (!keep)
        memset(x, 0, b->width * sizeof *x);
    add_moved(job, at, draw_movement(job, i), weight, x);
}

static void add_target(const fill_job *job, size_t i, real weight, real *target)
{
    size_t row = row_at(job, i), m = job->b->n_outputs;
    if (job->labels)
        target[job->labels[row]] += weight;
    else if (job->targets)
        for (size_t j = 0; j < m; j++)
            target[j] += weight * (real)job->targets[row * m + j];
}

/* Nearly normal numbers, several times as fast as exact ones: the sum of four uniform ones of 16
 * bits each, which has the variance 1 after scaling and ends at 3.46 standard deviations. */
static void add_noise(const fill_job *job, size_t i, real *x)
{
    const nimbus_batches *b = job->b;
    uint64_t stream = nimbus_random_stream(NIMBUS_RANDOM_NOISE, job->step);
    const real unit = (real)(1.7320508075688772 / 65536); /* sqrt(12 / 4) */
    for (size_t d = 0; d < b->width; d++) {
        uint64_t bits = nimbus_random_u64(b->seed, stream, (uint64_t)i * b->width + d);
        int32_t sum = (int32_t)((bits & 0xffff) + (bits >> 16 & 0xffff) + (bits >> 32 & 0xffff) +
                                (bits >> 48)) -
                      2 * 0xffff;
        x[d] += b->noise[d] * unit * (real)sum;
    }
}

static void fill_one(const fill_job *job, size_t i)
{
    const nimbus_batches *b = job->b;
    size_t m = b->n_outputs, partner = (i + 1) % job->n;
    real *x = job->x + i * b->width, *target = job->target + i * m, own = 1;
    if (b->mixup > 0)
        own = (real)nimbus_random_beta(b->mixup, b->seed,
                                       nimbus_random_stream(NIMBUS_RANDOM_MIXUP, job->step), i);
    memset(target, 0, m * sizeof *target);
    add_row(job, i, false, own, x);
    add_target(job, i, own, target);
    if (b->mixup > 0) {
        add_row(job, partner, true, 1 - own, x);
        add_target(job, partner, 1 - own, target);
    }
    job->label[i] = job->labels ? job->labels[row_at(job, own >= (real)0.5 ? i : partner)] : -1;
    if (b->noise)
        add_noise(job, i, x);
    if (b->teacher)
        for (size_t j = 0; j < m; j++)
            job->teacher_y[i * m + j] = (real)b->teacher[row_at(job, i) * m + j];
}

static void fill_item(void *arg, size_t item)
{
    const fill_job *job = arg;
    size_t end = (item + 1) * ROWS_PER_ITEM;
    for (size_t i = item * ROWS_PER_ITEM; i < job->n && i < end; i++)
        fill_one(job, i);
}

void nimbus_batches_fill(const nimbus_batches *b, const uint32_t *index, size_t first, size_t n,
                         size_t step, real *x, real *target, int32_t *label, real *teacher_y)
{
    const nimbus_data_info *info = nimbus_data_get_info(b->data);
    const void *features = nimbus_data_features(b->data);
    fill_job job = {
        .b = b,
        .info = *info,
        .u8 = info->dtype == NIMBUS_U8 ? features : NULL,
        .f32 = info->dtype == NIMBUS_F32 ? features : NULL,
        .labels = nimbus_data_labels(b->data),
        .targets = nimbus_data_targets(b->data),
        .index = index,
        .first = first,
        .n = n,
        .step = step,
        .x = x,
        .target = target,
        .teacher_y = teacher_y,
        .label = label,
    };
    nimbus_parallel(b->n_threads, (n + ROWS_PER_ITEM - 1) / ROWS_PER_ITEM, fill_item, &job);
}

#define DRAWS_PER_NUMBER 256

/* Gamma(a), a >= 1 [Marsaglia & Tsang 2000]; more than 95 % of its tries are accepted. */
static double gamma_above_1(double a, uint64_t seed, uint64_t stream, uint64_t counter)
{
    double d = a - 1.0 / 3, c = 1 / sqrt(9 * d);
    for (uint64_t k = 0; k < 64; k++) {
        double z = nimbus_random_normal(seed, stream, counter + 2 * k);
        double u = nimbus_random_uniform(seed, stream, counter + 2 * k + 1);
        double v = 1 + c * z;
        if (v > 0 && log(1 - u) < 0.5 * z * z + d - d * v * v * v + 3 * d * log(v))
            return d * v * v * v;
    }
    return d;
}

double nimbus_random_beta(double a, uint64_t seed, uint64_t stream, uint64_t counter)
{
    /* Logarithms of two Gamma(a) numbers: for small a these numbers may underflow. */
    double log_gamma[2];
    for (uint64_t k = 0; k < 2; k++) {
        uint64_t at = (2 * counter + k) * DRAWS_PER_NUMBER;
        double boost = a;
        log_gamma[k] = 0;
        if (a < 1) { /* Gamma(a) = Gamma(a + 1) U^(1/a) */
            double u = 1 - nimbus_random_uniform(seed, stream, at + DRAWS_PER_NUMBER - 1);
            log_gamma[k] = log(u) / a;
            boost = a + 1;
        }
        log_gamma[k] += log(gamma_above_1(boost, seed, stream, at));
    }
    return 1 / (1 + exp(log_gamma[1] - log_gamma[0]));
}
