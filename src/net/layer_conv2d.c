/* layer_conv2d.c - convolution of images, y[m] = bias[m] + sum over c of weight[m][c] * x[c]
 *
 * The M output channels are cut into `groups`, each of which sees its share of the C input
 * channels; below, n and m are the channels of one group. conv.h says how a group is computed.
 *
 * A batch is cut into lanes of consecutive rows, as many for any number of threads. A lane has
 * buffers of its own, and sums of the weights' gradients, which are added up lane by lane.
 *
 * Measured on a Zen 5 core, one thread, all convolutions of ResNet-8 on 64 images, best of three:
 * 14 ms forward and 29 ms backward; im2col and OpenBLAS's products 28 and 60, oneDNN 17 and 30. */
#include <string.h>

#include "net/conv.h"
#include "net/lookup.h"

#define MAX_LANES        16
#define MAX_IMAGES       8   /* summed at a time, in backward */
#define ENOUGH_POSITIONS 256 /* for a product, to outweigh adding it to the weights' gradients */
#define LANE_REALS       ((size_t)1 << 24) /* of all lanes together; one lane may take more */

/* Sizes of one group; those of planes in reals. */
struct geometry {
    size_t n, m, n_taps, groups;
    size_t n_phases[2], rows, pitch; /* of a plane, which holds all phases of a channel */
    size_t phase, plane;             /* sizes */
    size_t n_positions;              /* of the output, in a plane */
    size_t margin, dy_plane;         /* zeros before dy, and its plane with them */
    size_t out_plane, m_padded, n_blocks, m_blocks;
    size_t n_images; /* whose products for the weights are summed at a time */
};

/* The scratch memory: tables of taps, packed weights, then lanes of buffers. */
struct buffers {
    const struct nimbus_conv_kernels *kernels;
    struct geometry g;
    size_t n_lanes;
    size_t tables, packed, lane; /* sizes, the first in bytes, the others in reals */
    size_t src, out, dy, dy_columns, weight, bias; /* where they begin in a lane */
};

struct job {
    nimbus_layer *layer;
    const nimbus_io *io;
    struct buffers b;
    size_t *offset;                      /* forward, by tap */
    size_t *back, *tap, *first_of_phase; /* backward, by phase: offset and which tap */
    real *packed, *lanes;
};

static size_t rounded(size_t n, size_t multiple)
{
    return (n + multiple - 1) / multiple * multiple;
}

static struct geometry geometry_of(const nimbus_layer *layer, size_t lanes)
{
    const nimbus_slide *s = &layer->slide;
    struct geometry g = {.groups = layer->groups,
                         .n = layer->in_shape.channels / layer->groups,
                         .m = layer->units / layer->groups,
                         .n_taps = s->kernel[0] * s->kernel[1]};
    size_t shift[2];
    for (size_t i = 0; i < 2; i++) {
        size_t reach = (s->kernel[i] - 1) * s->dilation[i];
        g.n_phases[i] = s->stride[i] < reach + 1 ? s->stride[i] : reach + 1;
        shift[i] = reach / s->stride[i];
    }
    g.rows = layer->shape.height + shift[0];
    g.pitch = layer->shape.width + shift[1];
    g.phase = g.rows * g.pitch;
    g.plane = g.n_phases[0] * g.n_phases[1] * g.phase;
    g.n_positions = (layer->shape.height - 1) * g.pitch + layer->shape.width;
    g.margin = shift[0] * g.pitch + shift[1];
    g.dy_plane = g.margin + g.phase;
    g.out_plane = rounded(g.phase, NIMBUS_CONV_SLACK);
    g.m_padded = rounded(g.m, lanes);
    g.n_blocks = rounded(g.n, NIMBUS_CONV_BLOCK) / NIMBUS_CONV_BLOCK;
    g.m_blocks = rounded(g.m, NIMBUS_CONV_BLOCK) / NIMBUS_CONV_BLOCK;
    g.n_images = ENOUGH_POSITIONS / (layer->shape.height * layer->shape.width) + 1;
    g.n_images = g.m == 1 ? 1 : g.n_images < MAX_IMAGES ? g.n_images : MAX_IMAGES;
    return g;
}

/* Sets up all sizes; returns those of the whole scratch memory in bytes. */
static size_t measure(const nimbus_layer *layer, size_t n_rows, struct buffers *b)
{
    b->kernels = nimbus_conv_kernels(0);
    b->g = geometry_of(layer, b->kernels->lanes);
    const struct geometry *g = &b->g;
    size_t n_phases = g->n_phases[0] * g->n_phases[1];
    size_t forward = g->m_blocks * g->n, backward = g->n_blocks * g->m;
    b->tables = rounded((3 * g->n_taps + n_phases + 1) * sizeof(size_t), 64);
    b->packed =
        g->groups * (forward > backward ? forward : backward) * g->n_taps * NIMBUS_CONV_BLOCK;
    b->src = 0;
    b->out = b->src + rounded(g->n_images * g->n * g->plane + NIMBUS_CONV_SLACK, 16);
    b->dy = b->out + NIMBUS_CONV_BLOCK * g->out_plane;
    b->dy_columns = b->dy + rounded(g->m * g->dy_plane + NIMBUS_CONV_SLACK, 16);
    size_t n_positions = layer->shape.height * layer->shape.width;
    b->weight = b->dy_columns + rounded(g->n_images * n_positions * g->m_padded, 16);
    b->bias = b->weight + rounded(g->groups * g->n * g->n_taps * g->m_padded, 16);
    b->lane = b->bias + rounded(layer->units, 16);
    size_t n_lanes = LANE_REALS / b->lane + 1;
    n_lanes = n_lanes < MAX_LANES ? n_lanes : MAX_LANES;
    size_t most = n_rows / g->n_images > 4 ? n_rows / g->n_images : n_rows < 4 ? n_rows : 4;
    b->n_lanes = n_lanes < most ? n_lanes : most;
    return b->tables + (b->packed + b->n_lanes * b->lane) * sizeof(real);
}

static size_t saved_size(const nimbus_layer *layer, size_t n_rows)
{
    return layer->lookup ? nimbus_lookup_conv_saved_size(layer, n_rows) : 0;
}

/* Of a layer with trees, whichever of its states needs more. */
static size_t scratch_size(const nimbus_layer *layer, size_t n_rows)
{
    struct buffers b;
    size_t product = measure(layer, n_rows, &b);
    size_t lookup = layer->lookup ? nimbus_lookup_conv_scratch_size(layer, n_rows) : 0;
    return lookup > product ? lookup : product;
}

/* Finds the buffers and fills the tables of taps. */
static struct job job_of(nimbus_layer *layer, const nimbus_io *io)
{
    struct job job = {.layer = layer, .io = io};
    (void)measure(layer, io->n_rows, &job.b);
    const struct geometry *g = &job.b.g;
    const nimbus_slide *s = &layer->slide;
    job.offset = io->scratch;
    job.back = job.offset + g->n_taps;
    job.tap = job.back + g->n_taps;
    job.first_of_phase = job.tap + g->n_taps;
    job.packed = (real *)((char *)io->scratch + job.b.tables);
    job.lanes = job.packed + job.b.packed;
    size_t at = 0;
    for (size_t f = 0; f < g->n_phases[0] * g->n_phases[1]; f++) {
        job.first_of_phase[f] = at;
        for (size_t t = 0; t < g->n_taps; t++) {
            size_t down = t / s->kernel[1] * s->dilation[0];
            size_t across = t % s->kernel[1] * s->dilation[1];
            size_t shift = down / s->stride[0] * g->pitch + across / s->stride[1];
            if (down % s->stride[0] * g->n_phases[1] + across % s->stride[1] != f)
                continue;
            job.offset[t] = f * g->phase + shift;
            job.back[at] = g->margin - shift;
            job.tap[at++] = t;
        }
    }
    job.first_of_phase[g->n_phases[0] * g->n_phases[1]] = at;
    return job;
}

/* ---- images to planes and back ----------------------------------------------------------- */

/* Where the columns and rows of phase f lie on the image. */
static void spans_of_phase(const struct job *job, size_t f, nimbus_span *rows, nimbus_span *columns)
{
    const nimbus_slide *s = &job->layer->slide;
    const struct geometry *g = &job->b.g;
    nimbus_shape in = job->layer->in_shape;
    *rows = nimbus_span_on(f / g->n_phases[1], s->stride[0], s->before[0], in.height, g->rows);
    *columns = nimbus_span_on(f % g->n_phases[1], s->stride[1], s->before[1], in.width, g->pitch);
}

/* Copies the channels of a group into planes, whose margins are zero already. */
NIMBUS_SIMD_CLONES static void fill_planes(const struct job *job, const real *x, real *planes)
{
    const struct geometry *g = &job->b.g;
    const size_t *stride = job->layer->slide.stride;
    nimbus_shape in = job->layer->in_shape;
    for (size_t f = 0; f < g->n_phases[0] * g->n_phases[1]; f++) {
        nimbus_span rows, columns;
        spans_of_phase(job, f, &rows, &columns);
        for (size_t c = 0; c < g->n; c++)
            for (size_t i = rows.begin; i < rows.end; i++) {
                size_t row = rows.start + (i - rows.begin) * stride[0];
                const real *from = x + (c * in.height + row) * in.width + columns.start;
                real *to = planes + c * g->plane + f * g->phase + i * g->pitch + columns.begin;
                size_t n = columns.end - columns.begin;
                if (stride[1] == 1)
                    memcpy(to, from, n * sizeof(real));
                else if (stride[1] == 2)
                    for (size_t j = 0; j < n; j++)
                        to[j] = from[j * 2];
                else
                    for (size_t j = 0; j < n; j++)
                        to[j] = from[j * stride[1]];
            }
    }
}

/* Adds what stands on the image of one channel's phase; `from` begins at its first position. */
NIMBUS_SIMD_CLONES static void add_phase(const struct job *job, nimbus_span rows,
                                         nimbus_span columns, const real *from, real *dx)
{
    const size_t *stride = job->layer->slide.stride;
    size_t n = columns.end - columns.begin, width = job->layer->in_shape.width;
    for (size_t i = 0; i < rows.end - rows.begin; i++) {
        const real *row = from + i * job->b.g.pitch;
        real *to = dx + (rows.start + i * stride[0]) * width + columns.start;
        if (stride[1] == 1)
            for (size_t j = 0; j < n; j++)
                to[j] += row[j];
        else
            for (size_t j = 0; j < n; j++)
                to[j * stride[1]] += row[j];
    }
}

/* Copies a group's channels of dy into planes with the input's pitch. */
static void fill_dy(const struct job *job, const real *dy, real *planes)
{
    const struct geometry *g = &job->b.g;
    size_t height = job->layer->shape.height, width = job->layer->shape.width;
    for (size_t m = 0; m < g->m; m++)
        for (size_t i = 0; i < height; i++)
            memcpy(planes + m * g->dy_plane + g->margin + i * g->pitch,
                   dy + (m * height + i) * width, width * sizeof(real));
}

/* The same position by position, [height * width][m_padded]. */
NIMBUS_SIMD_CLONES static void fill_dy_columns(const struct job *job, const real *dy, real *columns)
{
    enum { SIDE = 16 };
    const struct geometry *g = &job->b.g;
    size_t n = job->layer->shape.height * job->layer->shape.width;
    for (size_t p = 0; p < n; p += SIDE)
        for (size_t m = 0; m < g->m; m++)
            for (size_t i = p; i < n && i < p + SIDE; i++)
                columns[i * g->m_padded + m] = dy[m * n + i];
}

/* ---- forward ----------------------------------------------------------------------------- */

/* [group][block of m][c][tap][m in block] */
static void pack_forward(void *arg, size_t begin, size_t end)
{
    const struct job *job = arg;
    const struct geometry *g = &job->b.g;
    size_t n_weights = g->n * g->n_taps;
    for (size_t i = begin; i < end; i++) {
        real *to = job->packed + i * n_weights * NIMBUS_CONV_BLOCK;
        size_t first = i % g->m_blocks * NIMBUS_CONV_BLOCK;
        for (size_t k = 0; k < NIMBUS_CONV_BLOCK; k++) {
            const real *from =
                job->layer->params[0].value + (i / g->m_blocks * g->m + first + k) * n_weights;
            for (size_t j = 0; j < n_weights; j++)
                to[j * NIMBUS_CONV_BLOCK + k] = first + k < g->m ? from[j] : 0;
        }
    }
}

/* One channel of the output from a plane of sums. */
NIMBUS_SIMD_CLONES static void take_positions(const struct job *job, const real *plane, real bias,
                                              real *y)
{
    size_t height = job->layer->shape.height, width = job->layer->shape.width;
    for (size_t i = 0; i < height; i++)
        for (size_t j = 0; j < width; j++)
            y[i * width + j] = plane[i * job->b.g.pitch + j] + bias;
}

/* One group of one row; src holds the planes. */
static void convolve(const struct job *job, size_t group, const real *src, real *out, real *y)
{
    const struct geometry *g = &job->b.g;
    size_t n_positions = job->layer->shape.height * job->layer->shape.width;
    for (size_t block = 0; block < g->m_blocks; block++) {
        size_t first = block * NIMBUS_CONV_BLOCK, n_weights = g->n * g->n_taps;
        size_t n = g->m - first < NIMBUS_CONV_BLOCK ? g->m - first : NIMBUS_CONV_BLOCK;
        size_t packed = (group * g->m_blocks + block) * n_weights * NIMBUS_CONV_BLOCK;
        struct nimbus_conv_sum sum = {.src = src,
                                      .plane = g->plane,
                                      .n = g->n,
                                      .n_taps = g->n_taps,
                                      .offset = job->offset,
                                      .weight = job->packed + packed,
                                      .out = out,
                                      .out_plane = g->out_plane,
                                      .n_positions = g->n_positions,
                                      .n_sums = n};
        job->b.kernels->sum(&sum);
        for (size_t k = 0; k < n; k++)
            take_positions(job, out + k * g->out_plane,
                           job->layer->params[1].value[group * g->m + first + k],
                           y + (first + k) * n_positions);
    }
}

static void forward_lane(void *arg, size_t lane)
{
    const struct job *job = arg;
    const struct buffers *b = &job->b;
    size_t begin = job->io->n_rows * lane / b->n_lanes;
    size_t end = job->io->n_rows * (lane + 1) / b->n_lanes;
    nimbus_shape in = job->layer->in_shape, out = job->layer->shape;
    size_t x_group = b->g.n * in.height * in.width, y_group = b->g.m * out.height * out.width;
    real *own = job->lanes + lane * b->lane;
    memset(own + b->src, 0, (b->out - b->src) * sizeof(real));
    for (size_t i = begin * b->g.groups; i < end * b->g.groups; i++) {
        fill_planes(job, job->io->x[0] + i * x_group, own + b->src);
        convolve(job, i % b->g.groups, own + b->src, own + b->out, job->io->y + i * y_group);
    }
}

static void forward(nimbus_layer *layer, nimbus_io *io)
{
    if (nimbus_layer_uses_lookup(layer)) {
        nimbus_lookup_conv_forward(layer, io);
        return;
    }
    struct job job = job_of(layer, io);
    nimbus_parallel_ranges(io->n_threads, job.b.g.groups * job.b.g.m_blocks, 8, pack_forward, &job);
    nimbus_parallel(io->n_threads, job.b.n_lanes, forward_lane, &job);
}

/* ---- backward ---------------------------------------------------------------------------- */

/* [group][phase][block of c][m][tap of phase][c in block] */
static void pack_backward(void *arg, size_t begin, size_t end)
{
    const struct job *job = arg;
    const struct geometry *g = &job->b.g;
    size_t n_phases = g->n_phases[0] * g->n_phases[1];
    for (size_t i = begin; i < end; i++) {
        real *to = job->packed + i * g->n_blocks * g->m * g->n_taps * NIMBUS_CONV_BLOCK;
        const real *weight = job->layer->params[0].value + i * g->m * g->n * g->n_taps;
        for (size_t f = 0; f < n_phases; f++)
            for (size_t c = 0; c < g->n_blocks * NIMBUS_CONV_BLOCK; c += NIMBUS_CONV_BLOCK)
                for (size_t m = 0; m < g->m; m++)
                    for (size_t t = job->first_of_phase[f]; t < job->first_of_phase[f + 1]; t++)
                        for (size_t k = 0; k < NIMBUS_CONV_BLOCK; k++, to++)
                            *to = c + k < g->n
                                      ? weight[(m * g->n + c + k) * g->n_taps + job->tap[t]]
                                      : 0;
    }
}

/* The gradient of the input of one group of one row; dy holds the planes. */
static void convolve_back(const struct job *job, size_t group, const real *dy, real *out, real *dx)
{
    const struct geometry *g = &job->b.g;
    size_t size = job->layer->in_shape.height * job->layer->in_shape.width;
    const real *weight = job->packed + group * g->n_blocks * g->m * g->n_taps * NIMBUS_CONV_BLOCK;
    for (size_t f = 0; f < g->n_phases[0] * g->n_phases[1]; f++) {
        nimbus_span rows, columns;
        size_t first_tap = job->first_of_phase[f], n_taps = job->first_of_phase[f + 1] - first_tap;
        spans_of_phase(job, f, &rows, &columns);
        for (size_t first = 0; first < g->n; first += NIMBUS_CONV_BLOCK) {
            size_t n = g->n - first < NIMBUS_CONV_BLOCK ? g->n - first : NIMBUS_CONV_BLOCK;
            if (n_taps == 0 || rows.begin == rows.end || columns.begin == columns.end)
                break;
            size_t begin = rows.begin * g->pitch + columns.begin;
            size_t end = (rows.end - 1) * g->pitch + columns.end;
            struct nimbus_conv_sum sum = {.src = dy + begin,
                                          .plane = g->dy_plane,
                                          .n = g->m,
                                          .n_taps = n_taps,
                                          .offset = job->back + first_tap,
                                          .weight = weight + first * g->m * n_taps,
                                          .out = out,
                                          .out_plane = g->out_plane,
                                          .n_positions = end - begin,
                                          .n_sums = n};
            job->b.kernels->sum(&sum);
            for (size_t k = 0; k < n; k++)
                add_phase(job, rows, columns, out + k * g->out_plane, dx + (first + k) * size);
        }
        weight += g->n_blocks * g->m * n_taps * NIMBUS_CONV_BLOCK;
    }
}

static bool any_trained(const nimbus_layer *layer)
{
    return layer->params[0].trained || layer->params[1].trained;
}

/* Adds one group of n_images rows to the lane's sums; x and dy begin at the group. */
static void add_weights(const struct job *job, size_t group, size_t n_images, const real *x,
                        const real *dy, real *own)
{
    const struct buffers *b = &job->b;
    const struct geometry *g = &b->g;
    size_t height = job->layer->shape.height, width = job->layer->shape.width;
    size_t x_row = nimbus_shape_width(job->layer->in_shape), n_positions = height * width;
    size_t y_row = nimbus_shape_width(job->layer->shape);
    real *sums = own + b->weight + group * g->n * g->n_taps * g->m_padded;
    for (size_t i = 0; i < n_images; i++) {
        fill_planes(job, x + i * x_row, own + b->src + i * g->n * g->plane);
        for (size_t m = 0; m < g->m; m++)
            own[b->bias + group * g->m + m] +=
                (real)nimbus_sum(dy + i * y_row + m * n_positions, n_positions);
        if (g->m > 1)
            fill_dy_columns(job, dy + i * y_row,
                            own + b->dy_columns + i * n_positions * g->m_padded);
    }
    if (g->m == 1) {
        struct nimbus_conv_dot dot = {.src = own + b->src,
                                      .plane = g->plane,
                                      .n = g->n,
                                      .n_taps = g->n_taps,
                                      .offset = job->offset,
                                      .dy = own + b->dy + g->margin,
                                      .n_positions = g->n_positions,
                                      .out = sums};
        b->kernels->dot(&dot);
        return;
    }
    struct nimbus_conv_product product = {.src = own + b->src,
                                          .plane = g->plane,
                                          .n = g->n,
                                          .n_taps = g->n_taps,
                                          .offset = job->offset,
                                          .dy = own + b->dy_columns,
                                          .m_padded = g->m_padded,
                                          .height = height,
                                          .width = width,
                                          .pitch = g->pitch,
                                          .n_images = n_images,
                                          .size = g->n * g->plane,
                                          .out = sums};
    b->kernels->product(&product);
}

static void backward_lane(void *arg, size_t lane)
{
    const struct job *job = arg;
    const struct buffers *b = &job->b;
    const struct geometry *g = &b->g;
    size_t begin = job->io->n_rows * lane / b->n_lanes, n;
    size_t end = job->io->n_rows * (lane + 1) / b->n_lanes;
    nimbus_shape in = job->layer->in_shape, out = job->layer->shape;
    size_t x_group = g->n * in.height * in.width, y_group = g->m * out.height * out.width;
    real *own = job->lanes + lane * b->lane, *dx = job->io->dx[0];
    memset(own, 0, b->lane * sizeof(real));
    for (size_t r = begin; r < end; r += n) {
        n = end - r < g->n_images ? end - r : g->n_images;
        for (size_t group = 0; group < g->groups; group++) {
            const real *x = job->io->x[0] + (r * g->groups + group) * x_group;
            const real *dy = job->io->dy + (r * g->groups + group) * y_group;
            for (size_t i = 0; (dx || g->m == 1) && i < n; i++) {
                size_t row = i * g->groups;
                fill_dy(job, dy + row * y_group, own + b->dy);
                if (dx)
                    convolve_back(job, group, own + b->dy, own + b->out,
                                  dx + ((r * g->groups + group) + row) * x_group);
            }
            if (any_trained(job->layer))
                add_weights(job, group, n, x, dy, own);
        }
    }
}

/* Adds the lanes' sums for output channels begin..end. */
static void add_lanes(void *arg, size_t begin, size_t end)
{
    const struct job *job = arg;
    const struct buffers *b = &job->b;
    const nimbus_param *weight = &job->layer->params[0], *bias = &job->layer->params[1];
    size_t n_weights = b->g.n * b->g.n_taps, step = b->g.m == 1 ? 1 : b->g.m_padded;
    for (size_t lane = 0; lane < b->n_lanes; lane++) {
        const real *own = job->lanes + lane * b->lane;
        for (size_t i = begin; i < end; i++) {
            size_t group = i / b->g.m, m = i % b->g.m;
            const real *from = own + b->weight + group * n_weights * b->g.m_padded + m;
            real *to = weight->grad + i * n_weights;
            for (size_t j = 0; weight->trained && j < n_weights; j++)
                to[j] += from[j * step];
            if (bias->trained)
                bias->grad[i] += own[b->bias + i];
        }
    }
}

static void backward(nimbus_layer *layer, nimbus_io *io)
{
    if (nimbus_layer_uses_lookup(layer)) {
        nimbus_lookup_conv_backward(layer, io);
        return;
    }
    struct job job = job_of(layer, io);
    if (io->dx[0])
        nimbus_parallel_ranges(io->n_threads, job.b.g.groups, 1, pack_backward, &job);
    nimbus_parallel(io->n_threads, job.b.n_lanes, backward_lane, &job);
    if (any_trained(layer))
        nimbus_parallel_ranges(io->n_threads, layer->units, 16, add_lanes, &job);
}

/* ---- the layer --------------------------------------------------------------------------- */

static nimbus_status setup(nimbus_layer *layer, const nimbus_shape *inputs, size_t n_inputs,
                           uint64_t seed, nimbus_error *error)
{
    (void)n_inputs;
    size_t m = layer->units, channels = inputs[0].channels;
    layer->groups = layer->groups ? layer->groups : 1;
    size_t groups = layer->groups;
    if (m == 0 || m > NIMBUS_MAX_WIDTH || m % groups != 0 || channels % groups != 0)
        return nimbus_fail(error, NIMBUS_ERR_ARGUMENT,
                           "layer %s: %zu output channels in %zu groups, expected 1 to %u, and "
                           "groups that divide them and the %zu input channels",
                           layer->name, m, groups, NIMBUS_MAX_WIDTH, channels);
    if (layer->bare)
        return nimbus_fail(error, NIMBUS_ERR_ARGUMENT,
                           "layer %s: bare, expected a convolution with weights", layer->name);
    nimbus_status status = nimbus_slide_setup(layer, inputs[0], m, error);
    if (status != NIMBUS_OK)
        return status;
    size_t height = layer->slide.kernel[0], width = layer->slide.kernel[1];
    size_t shape[4] = {m, channels / groups, height, width};
    status = nimbus_layer_add_param(layer, "weight", 4, shape, false, true, error);
    if (status == NIMBUS_OK)
        status = nimbus_layer_add_param(layer, "bias", 1, &m, false, false, error);
    if (status == NIMBUS_OK)
        nimbus_layer_start_weight(layer, layer->params[0].n / m, seed);
    return status;
}

const nimbus_layer_type nimbus_layer_conv2d = {
    .name = "conv2d",
    .min_inputs = 1,
    .max_inputs = 1,
    .setup = setup,
    .saved_size = saved_size,
    .scratch_size = scratch_size,
    .forward = forward,
    .backward = backward,
};
