/* loops.c - loops cut into chunks that do not depend on the number of threads */
#include "net/internal.h"

struct ranges {
    size_t n, grain;
    nimbus_range_fn body;
    void *arg;
};

static void run_range(void *arg, size_t i)
{
    const struct ranges *r = arg;
    size_t begin = i * r->grain;
    size_t end = r->n - begin < r->grain ? r->n : begin + r->grain;
    r->body(r->arg, begin, end);
}

void nimbus_parallel_ranges(unsigned n_threads, size_t n, size_t grain, nimbus_range_fn body,
                            void *arg)
{
    struct ranges r = {.n = n, .grain = grain, .body = body, .arg = arg};
    size_t n_chunks = n / grain + (n % grain != 0);
    nimbus_parallel(n_threads, n_chunks, run_range, &r);
}

void nimbus_parallel_rows(nimbus_layer *layer, nimbus_io *io, nimbus_range_fn body)
{
    nimbus_call call = {layer, io};
    size_t width = nimbus_shape_width(layer->in_shape) + nimbus_shape_width(layer->shape);
    nimbus_parallel_ranges(io->n_threads, io->n_rows, NIMBUS_GRAIN / width + 1, body, &call);
}
