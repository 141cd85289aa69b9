/* quantise.c - quantisation steps for the tables of a layer */
#include <math.h>

#include "net/lookup.h"
#include "net/simd.h"

/* Moves the middle of every codebook's entries for an output into the bias: one leaf is always
 * taken, so the sums stay and the range of the entries becomes smallest. */
static void centre(nimbus_layer *layer)
{
    const nimbus_lookup *lookup = layer->lookup;
    size_t m = nimbus_lookup_outputs(layer), k = lookup->n_leaves;
    real *tables = nimbus_layer_param(layer, "tables")->value;
    real *bias = nimbus_layer_param(layer, "bias")->value;

    for (size_t c = 0; c < lookup->n_codebooks; c++)
        for (size_t j = 0; j < m; j++) {
            real *entry = tables + c * k * m + j, low = *entry, high = *entry;
            for (size_t i = 1; i < k; i++) {
                low = entry[i * m] < low ? entry[i * m] : low;
                high = entry[i * m] > high ? entry[i * m] : high;
            }
            real middle = (low + high) / 2;
            for (size_t i = 0; i < k; i++)
                entry[i * m] -= middle;
            bias[j] += middle;
        }
}

typedef struct step_job {
    real *tables;
    size_t c, k, m;
    real *scales;
    real low, high; /* of rounded entries */
} step_job;

/* `error` and the squared error of codebook c's entries for output j, moved down by `down` steps
 * and rounded. */
static double error_with(const step_job *job, size_t c, size_t j, real step, real down,
                         double error)
{
    for (size_t k = 0; k < job->k; k++) {
        real entry = job->tables[(c * job->k + k) * job->m + j] - down * step;
        real q = NIMBUS_RINT(entry / step);
        q = q > job->high ? job->high : q < job->low ? job->low : q;
        double difference = (double)(entry - q * step);
        error += difference * difference;
    }
    return error;
}

/* Where there is a value more below 0 than above, entries use it if they are moved down by half a
 * step, which is done where it helps. */
static bool is_moved(const step_job *job, size_t c, size_t j, real step, double *error)
{
    double as_it_is = error_with(job, c, j, step, 0, *error), moved = as_it_is;
    if (job->low + job->high < 0)
        moved = error_with(job, c, j, step, (real)0.5, *error);
    *error = moved < as_it_is ? moved : as_it_is;
    return moved < as_it_is;
}

/* Squared error of output j's entries rounded with this step. */
static double rounding_error(const step_job *job, size_t j, real step)
{
    double error = 0;
    for (size_t c = 0; c < job->c; c++)
        (void)is_moved(job, c, j, step, &error);
    return error;
}

static real largest_entry(const step_job *job, size_t j)
{
    real largest = 0;
    for (size_t r = 0; r < job->c * job->k; r++) {
        real entry = NIMBUS_FABS(job->tables[r * job->m + j]);
        largest = entry > largest ? entry : largest;
    }
    return largest;
}

/* With few bits it pays to clip the largest entries and step more finely: search the range. The
 * step of an output whose entries are all zero is zero. */
static void step_item(void *arg, size_t j)
{
    const step_job *job = arg;
    real full = largest_entry(job, j) / job->high, best_step = full;
    double best = full > 0 ? rounding_error(job, j, full) : 0;
    for (int i = 19; full > 0 && i >= 5; i--) {
        real step = full * (real)i / 20;
        double error = rounding_error(job, j, step);
        if (error < best) {
            best = error;
            best_step = step;
        }
    }
    job->scales[j] = best_step;
}

/* One step for all outputs, at most the widest of their own. With few bits the step of the output
 * with the largest entries leaves the others hardly any values: least error of all together. */
static real common_step(const step_job *job, unsigned bits, real widest)
{
    double best = INFINITY;
    real best_step = widest;
    for (int i = 20; bits < 8 && widest > 0 && i >= 5; i--) {
        real step = widest * (real)i / 20;
        double error = 0;
        for (size_t j = 0; j < job->m; j++)
            error += rounding_error(job, j, step);
        if (error < best) {
            best = error;
            best_step = step;
        }
    }
    return best_step;
}

/* Moves entries of few bits by what is_moved says, and biases against it. */
static void move_entries(const step_job *job, real *bias)
{
    for (size_t j = 0; j < job->m; j++)
        for (size_t c = 0; c < job->c; c++) {
            const real step = job->scales[j];
            double error = 0;
            if (!is_moved(job, c, j, step, &error))
                continue;
            for (size_t k = 0; k < job->k; k++)
                job->tables[(c * job->k + k) * job->m + j] -= step / 2;
            bias[j] += step / 2;
        }
}

nimbus_status nimbus_layer_quantise(nimbus_layer *layer, unsigned bits, bool uniform,
                                    unsigned n_threads, nimbus_error *error)
{
    nimbus_lookup *lookup = layer->lookup;
    size_t m = nimbus_lookup_outputs(layer);
    step_job job = {.tables = nimbus_layer_param(layer, "tables")->value,
                    .c = lookup->n_codebooks,
                    .k = lookup->n_leaves,
                    .m = m,
                    .scales = nimbus_layer_param(layer, "scales")->value,
                    .low = nimbus_table_low(bits),
                    .high = nimbus_table_high(bits)};

    if (lookup->kind == NIMBUS_CENTROIDS) { /* tables follow the centroids, and scales them */
        lookup->bits = bits;
        return nimbus_lookup_round(layer, n_threads, error);
    }
    centre(layer);
    nimbus_parallel(n_threads, m, step_item, &job);
    real widest = 0;
    for (size_t j = 0; j < m; j++)
        widest = job.scales[j] > widest ? job.scales[j] : widest;
    real common = uniform ? common_step(&job, bits, widest) : widest;
    for (size_t j = 0; j < m; j++)
        if (uniform || job.scales[j] == 0)
            job.scales[j] = common > 0 ? common : 1;
    move_entries(&job, nimbus_layer_param(layer, "bias")->value);
    lookup->bits = bits;
    return nimbus_lookup_round(layer, n_threads, error);
}
