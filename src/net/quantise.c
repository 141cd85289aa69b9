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
    const real *tables;
    size_t rows, m; /* C * K, M */
    real *scales;
    real limit;
} step_job;

/* Squared error of output j's entries rounded with this step. */
static double rounding_error(const step_job *job, size_t j, real step)
{
    double error = 0;
    for (size_t r = 0; r < job->rows; r++) {
        real entry = job->tables[r * job->m + j], q = NIMBUS_RINT(entry / step);
        q = q > job->limit ? job->limit : q < -job->limit ? -job->limit : q;
        double difference = (double)(entry - q * step);
        error += difference * difference;
    }
    return error;
}

static real largest_entry(const step_job *job, size_t j)
{
    real largest = 0;
    for (size_t r = 0; r < job->rows; r++) {
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
    real full = largest_entry(job, j) / job->limit, best_step = full;
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

nimbus_status nimbus_layer_quantise(nimbus_layer *layer, unsigned bits, bool uniform,
                                    unsigned n_threads, nimbus_error *error)
{
    nimbus_lookup *lookup = layer->lookup;
    size_t m = nimbus_lookup_outputs(layer);
    step_job job = {.tables = nimbus_layer_param(layer, "tables")->value,
                    .rows = lookup->n_codebooks * lookup->n_leaves,
                    .m = m,
                    .scales = nimbus_layer_param(layer, "scales")->value,
                    .limit = (real)((1 << (bits - 1)) - 1)};

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
    lookup->bits = bits;
    return nimbus_lookup_round(layer, n_threads, error);
}
