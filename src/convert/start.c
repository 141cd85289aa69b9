/* start.c - what previous work starts its codebooks from: k-means, and random trees */
#include <math.h>
#include <string.h>

#include "convert/convert.h"

/* ---- centroids: Lloyd's k-means on some rows, or positions of images --------------------- */

enum { KMEANS_ROWS = 1024, KMEANS_ROUNDS = 25 };

/* The columns of one codebook. */
typedef struct cluster_job {
    const nimbus_start_job *job;
    real *centroids;       /* [C][K][v] of the layer */
    const uint32_t *order; /* rows, mixed */
    size_t k, v, n;        /* v: of the widest codebook */
    bool *failed;          /* [C] */
} cluster_job;

static size_t nearest(const real *centroids, size_t k, size_t v, size_t width, const real *row,
                      double *distance)
{
    size_t best = 0;
    *distance = INFINITY;
    for (size_t i = 0; i < k; i++) {
        double sum = 0;
        for (size_t j = 0; j < width; j++) {
            double d = (double)(row[j] - centroids[i * v + j]);
            sum += d * d;
        }
        if (sum < *distance) {
            *distance = sum;
            best = i;
        }
    }
    return best;
}

/* One round over rows [n][width]; a centroid without rows takes the row that is farthest from its
 * own, so that none is lost. sums: [K][width + 1]. */
static void move_centroids(const cluster_job *c, real *centroids, size_t width, const real *rows,
                           double *sums)
{
    size_t farthest = 0;
    double most = -1;
    memset(sums, 0, c->k * (width + 1) * sizeof *sums);
    for (size_t n = 0; n < c->n; n++) {
        double distance;
        size_t i = nearest(centroids, c->k, c->v, width, rows + n * width, &distance);
        for (size_t j = 0; j < width; j++)
            sums[i * (width + 1) + j] += (double)rows[n * width + j];
        sums[i * (width + 1) + width] += 1;
        if (distance > most) {
            most = distance;
            farthest = n;
        }
    }
    for (size_t i = 0; i < c->k; i++)
        for (size_t j = 0; j < width; j++) {
            const double *sum = sums + i * (width + 1);
            centroids[i * c->v + j] =
                sum[width] > 0 ? (real)(sum[j] / sum[width]) : rows[farthest * width + j];
        }
}

static void cluster(void *arg, size_t codebook)
{
    const cluster_job *c = arg;
    const nimbus_groups *groups = c->job->groups;
    const uint32_t *columns = groups->column + groups->first[codebook];
    const size_t width = groups->first[codebook + 1] - groups->first[codebook];
    real *centroids = c->centroids + codebook * c->k * c->v;
    real *rows = nimbus_alloc(c->n * width, sizeof *rows);
    double *sums = nimbus_alloc(c->k * (width + 1), sizeof *sums);
    c->failed[codebook] = !rows || !sums;
    if (!c->failed[codebook]) {
        for (size_t n = 0; n < c->n; n++)
            for (size_t j = 0; j < width; j++)
                rows[n * width + j] = c->job->x[c->order[n] * c->job->n_columns + columns[j]];
        for (size_t i = 0; i < c->k; i++)
            for (size_t j = 0; j < width; j++)
                centroids[i * c->v + j] = rows[i * c->n / c->k * width + j];
        for (size_t round = 0; round < KMEANS_ROUNDS; round++)
            move_centroids(c, centroids, width, rows, sums);
    }
    nimbus_free(rows);
    nimbus_free(sums);
}

static nimbus_status out_of_memory(const nimbus_layer *layer, nimbus_error *error)
{
    return nimbus_fail(error, NIMBUS_ERR_MEMORY, "layer %s: no memory to start its codebooks",
                       layer->name);
}

nimbus_status nimbus_centroids_start(nimbus_layer *layer, const nimbus_start_job *job,
                                     nimbus_error *error)
{
    /* softplus of it + 1 = 1 / 0.065, LUT-NN's first temperature */
    const real sharpness = (real)(1 / 0.065 - 1);
    const nimbus_lookup *lookup = layer->lookup;
    const nimbus_groups *groups = job->groups;
    real *columns = nimbus_layer_param(layer, "columns")->value;
    nimbus_status status = NIMBUS_OK;
    cluster_job c = {.job = job,
                     .centroids = nimbus_layer_param(layer, "centroids")->value,
                     .k = lookup->n_leaves,
                     .v = lookup->n_columns,
                     .n = job->n_rows < KMEANS_ROWS ? job->n_rows : KMEANS_ROWS};
    uint32_t *order = nimbus_alloc(job->n_rows, sizeof *order);
    c.failed = nimbus_alloc(lookup->n_codebooks, sizeof *c.failed);
    if (!order || !c.failed) {
        status = out_of_memory(layer, error);
        goto done;
    }
    for (size_t n = 0; n < job->n_rows; n++)
        order[n] = (uint32_t)n;
    nimbus_random_shuffle(job->seed, NIMBUS_TAG('k', 'm', 'e', 'a'), order, job->n_rows);
    c.order = order;
    for (size_t g = 0; g < lookup->n_codebooks; g++)
        for (size_t j = 0; j < c.v; j++) {
            bool there = groups->first[g] + j < groups->first[g + 1];
            columns[g * c.v + j] = there ? (real)groups->column[groups->first[g] + j] : -1;
        }
    nimbus_parallel(job->n_threads, lookup->n_codebooks, cluster, &c);
    for (size_t g = 0; g < lookup->n_codebooks; g++)
        if (c.failed[g])
            status = out_of_memory(layer, error);
    nimbus_layer_param(layer, "sharpness")->value[0] = sharpness;
done:
    nimbus_free(order);
    nimbus_free(c.failed);
    return status ? status : nimbus_lookup_round(layer, job->n_threads, error);
}

/* ---- random trees ------------------------------------------------------------------------ */

nimbus_status nimbus_trees_random(nimbus_layer *layer, const nimbus_start_job *job,
                                  nimbus_error *error)
{
    const nimbus_lookup *lookup = layer->lookup;
    const nimbus_groups *groups = job->groups;
    const size_t nodes = lookup->n_leaves - 1;
    const uint64_t stream = nimbus_crc32c(0, layer->name, strlen(layer->name));
    real *columns = nimbus_layer_param(layer, "columns")->value;
    real *thresholds = nimbus_layer_param(layer, "thresholds")->value;
    nimbus_param *tables = nimbus_layer_param(layer, "tables");
    nimbus_param *bias = nimbus_layer_param(layer, "bias");
    const size_t n_trees = lookup->n_codebooks / groups->n_codebooks;
    /* sums over the codebooks have the variance that He's start gives products */
    const double spread = sqrt(2 / (double)lookup->n_codebooks);

    for (size_t c = 0; c < lookup->n_codebooks; c++) {
        const size_t g = c / n_trees, first = groups->first[g];
        for (size_t i = 0, h = 0; i < nodes; i++) {
            h += i + 1 == (size_t)2 << h;
            size_t pick = nimbus_random_below(job->seed, stream, c * NIMBUS_MAX_LEVELS + h,
                                              groups->first[g + 1] - first);
            size_t row = nimbus_random_below(job->seed, ~stream, c * nodes + i, job->n_rows);
            columns[c * nodes + i] = (real)groups->column[first + pick];
            thresholds[c * nodes + i] = job->x[row * job->n_columns + groups->column[first + pick]];
        }
    }
    for (size_t i = 0; i < tables->n; i++)
        tables->value[i] =
            (real)(spread *
                   nimbus_random_normal(job->seed, stream ^ NIMBUS_TAG('t', 'a', 'b', 0), i));
    memset(bias->value, 0, bias->n * sizeof *bias->value);
    return nimbus_trees_margins(layer, job->x, job->n_rows, NULL, error);
}
