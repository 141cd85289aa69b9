/* image_grid.c - grids of int8 values, from measured ranges
 *
 * A value on a grid is step[c] * (q - zero[c]), with the real 0 at an integer, so that padding is
 * exact. Most nodes use all of -128..127 for the range of each of their channels, and a function
 * that clips at the ends of the range needs nothing but saturation.
 *
 * Nodes whose values are added lie on one grid, that of their sum: y = sat8(a + b), which is the
 * sum itself if step is the same for all of them and the zeros add up. Zeros of a node that clips
 * at 0 are the same in all channels, since there is one clamp; the others are free. Which ones
 * leave the finest steps is searched. */
#include <math.h>

#include "compile/image.h"

static const int floors[] = {-128, -96, -64, -32, 0};
enum { N_FLOORS = sizeof floors / sizeof *floors, GROWTHS = 600, MAP_POINTS = 1024 };
#define GROWTH 1.02

static bool on_grid(const nimbus_node *node)
{
    return !node->shifted && !node->scores && node->kind != NIMBUS_NODE_MAX_POOL &&
           node->kind != NIMBUS_NODE_CONCAT;
}

/* What channel c of a layer's outputs was in the data. A layer behind a change of shape has other
 * channels than its node: then of all of them. */
static nimbus_range measured(const nimbus_image_build *b, const nimbus_node *node, size_t layer,
                             size_t c)
{
    nimbus_shape shape = b->net->layers[layer].shape;
    if (shape.channels != node->shape.channels || shape.height != node->shape.height)
        return nimbus_ranges_of_layer(&b->ranges, layer);
    return b->ranges.channels[b->ranges.first[layer] + c];
}

static nimbus_range with_zero(nimbus_range range)
{
    range.low = range.low < 0 ? range.low : 0;
    range.high = range.high > 0 ? range.high : 0;
    return range;
}

static nimbus_range range_of(const nimbus_image_build *b, const nimbus_node *node, size_t c)
{
    return with_zero(measured(b, node, node->at, c));
}

static void lay_out(nimbus_range range, double step, double *zero)
{
    double z = rint(-128 - range.low / step);
    *zero = z < -128 ? -128 : z > 127 ? 127 : z;
}

/* 0 for a constant. */
static double step_of(nimbus_range range)
{
    return (range.high - range.low) / 255;
}

/* Steps of channels that were constant in the data: like those of the others, since what reads
 * them shares its own steps among all. */
static void fill_gaps(double *step, size_t n)
{
    double sum = 0;
    size_t n_known = 0;
    for (size_t c = 0; c < n; c++) {
        sum += step[c];
        n_known += step[c] > 0;
    }
    for (size_t c = 0; c < n; c++)
        if (!(step[c] > 0))
            step[c] = sum > 0 ? sum / (double)n_known : 1;
}

/* ---- a node on its own -------------------------------------------------------------------------
 */

/* Whether a table of 256 values has to stand for the function, which saturation cannot. */
static bool needs_map(const nimbus_post *post)
{
    return post->function > NIMBUS_F_CLIP ||
           (post->function == NIMBUS_F_CLIP && (post->low > 0 || post->high < 0));
}

/* Values of the function at both ends of a range and between, with 0. */
static nimbus_range values_over(const nimbus_post *post, nimbus_range in)
{
    nimbus_range out = {0, 0};
    for (int i = 0; i < MAP_POINTS; i++) {
        double y = nimbus_function_value(post, in.low + i * (in.high - in.low) / (MAP_POINTS - 1));
        out.low = fmin(out.low, y);
        out.high = fmax(out.high, y);
    }
    return out;
}

/* How much of the range lies at an end where the function is as good as constant. */
static double flat_part(const nimbus_post *post, double from, double to, double tolerance)
{
    double end = nimbus_function_value(post, from);
    for (int i = 1; i < MAP_POINTS; i++) {
        double at = from + i * (to - from) / (MAP_POINTS - 1);
        if (fabs(nimbus_function_value(post, at) - end) > tolerance)
            return (i - 1) * (to - from) / (MAP_POINTS - 1);
    }
    return 0; /* everywhere */
}

/* One grid in front of the function, one behind it. */
static void lay_out_mapped(const nimbus_image_build *b, nimbus_node *node)
{
    nimbus_range in = nimbus_ranges_of_layer(&b->ranges, node->before);
    nimbus_range out = values_over(&node->post, in);
    double step = step_of(out), zero;
    fill_gaps(&step, 1);
    lay_out(out, step, &zero);
    double low = flat_part(&node->post, in.low, in.high, step / 4);
    double high = flat_part(&node->post, in.high, in.low, step / 4);
    in.low += low;
    in.high += high;
    node->mapped = true;
    node->map_low = in.low;
    node->map_step = step_of(in);
    fill_gaps(&node->map_step, 1);
    for (int q = 0; q < 256; q++) {
        double at =
            rint(nimbus_function_value(&node->post, in.low + q * node->map_step) / step + zero);
        node->map[q] = (int8_t)fmin(fmax(at, -128), 127);
    }
    for (size_t c = 0; c < node->shape.channels; c++) {
        node->step[c] = step;
        node->zero[c] = zero;
    }
}

/* `common`: one step for all channels, which scores are read from. */
static void lay_out_alone(const nimbus_image_build *b, nimbus_node *node, bool common)
{
    double widest = 0;
    if (needs_map(&node->post)) {
        lay_out_mapped(b, node);
        return;
    }
    for (size_t c = 0; c < node->shape.channels; c++) {
        node->step[c] = step_of(range_of(b, node, c));
        widest = node->step[c] > widest ? node->step[c] : widest;
    }
    fill_gaps(node->step, node->shape.channels);
    for (size_t c = 0; c < node->shape.channels; c++) {
        node->step[c] = common && widest > 0 ? widest : node->step[c];
        lay_out(range_of(b, node, c), node->step[c], &node->zero[c]);
    }
}

/* ---- nodes that are added ----------------------------------------------------------------------
 */

/* Nodes that sums join, of one number of channels. */
typedef struct family {
    nimbus_image_build *b;
    const size_t *root;   /* [n_nodes] */
    size_t of;            /* the root of this one */
    int sum_floor, floor; /* zeros of sums and of other nodes that clip at 0 */
    bool *set;            /* [n_nodes] zero of the channel at hand is settled */
    size_t n_channels;
    double *least;    /* [n_channels] the finest steps that ranges alone allow */
    double *floor_of; /* [n_nodes][n_channels] what need not be told apart from below it */
} family;

static bool is_member(const family *f, size_t n)
{
    return f->root[n] == f->of;
}

static size_t origin_in(const family *f, const nimbus_node *sum, size_t k, size_t c)
{
    return nimbus_image_origin(f->b, sum->sources[k], &c);
}

static bool clips(const nimbus_node *node)
{
    return node->post.function == NIMBUS_F_RELU;
}

static nimbus_range range_in_family(const family *f, size_t n, size_t c)
{
    nimbus_range range = range_of(f->b, &f->b->nodes[n], c);
    range.low = fmax(range.low, f->floor_of[n * f->n_channels + c]);
    return range;
}

/* What falls below minus all that the other sources of a sum can add is 0 behind it anyway, if the
 * sum clips and nothing else reads the source. */
static void find_lows(const family *f)
{
    for (size_t i = 0; i < f->b->n_nodes * f->n_channels; i++)
        f->floor_of[i] = -INFINITY;
    for (size_t n = 0; n < f->b->n_nodes; n++) {
        const nimbus_node *node = &f->b->nodes[n];
        if (!is_member(f, n) || node->kind != NIMBUS_NODE_ADD || !clips(node))
            continue;
        for (size_t c = 0; c < f->n_channels; c++) {
            double sum = 0;
            for (size_t k = 0; k < node->n_sources; k++)
                sum += range_of(f->b, &f->b->nodes[origin_in(f, node, k, c)], c).high;
            for (size_t k = 0; k < node->n_sources; k++) {
                size_t o = origin_in(f, node, k, c);
                f->floor_of[o * f->n_channels + c] = range_of(f->b, &f->b->nodes[o], c).high - sum;
            }
        }
    }
}

/* Zeros with which the range of the channel fits, or nearly. */
static nimbus_range zeros_of(const family *f, size_t n, size_t c, double step)
{
    nimbus_range range = range_in_family(f, n, c);
    nimbus_range zeros = {ceil(-128.5 - range.low / step), floor(127.5 - range.high / step)};
    zeros.low = zeros.low < -128 ? -128 : zeros.low;
    zeros.high = zeros.high > 127 ? 127 : zeros.high;
    return zeros;
}

/* Settles the zero if it fits. */
static bool settle(const family *f, size_t n, size_t c, double step, double zero)
{
    nimbus_range zeros = zeros_of(f, n, c, step);
    f->b->nodes[n].step[c] = step;
    f->b->nodes[n].zero[c] = zero;
    f->set[n] = true;
    return zero >= zeros.low && zero <= zeros.high;
}

/* The zeros of a sum's sources, made to add up to its own. */
static bool settle_sum(const family *f, size_t n, size_t c, double step)
{
    const nimbus_node *node = &f->b->nodes[n];
    double sum = 0, slack;
    size_t origins[NIMBUS_MAX_SOURCES];
    bool free[NIMBUS_MAX_SOURCES];
    for (size_t k = 0; k < node->n_sources; k++) {
        size_t o = origins[k] = origin_in(f, node, k, c);
        nimbus_range zeros = zeros_of(f, o, c, step);
        free[k] = !f->set[o];
        if (free[k] && !settle(f, o, c, step, floor((zeros.low + zeros.high) / 2)))
            return false;
        sum += f->b->nodes[o].zero[c];
    }
    nimbus_range zeros = zeros_of(f, n, c, step);
    double goal = clips(node) ? f->sum_floor : fmin(fmax(sum, zeros.low), zeros.high);
    slack = goal - sum;
    for (size_t k = 0; k < node->n_sources && slack != 0; k++) {
        double *zero = &f->b->nodes[origins[k]].zero[c];
        bool twice = false;
        for (size_t j = 0; j < node->n_sources; j++)
            twice |= j != k && origins[j] == origins[k];
        if (!free[k] || twice)
            continue;
        nimbus_range room = zeros_of(f, origins[k], c, step);
        double to = fmin(fmax(*zero + slack, room.low), room.high);
        slack -= to - *zero;
        *zero = to;
    }
    return slack == 0 && settle(f, n, c, step, goal);
}

static bool settle_channel(const family *f, size_t c, double step)
{
    for (size_t n = 0; n < f->b->n_nodes; n++) {
        const nimbus_node *node = &f->b->nodes[n];
        f->set[n] = false;
        if (is_member(f, n) && clips(node) && node->kind != NIMBUS_NODE_ADD &&
            !settle(f, n, c, step, f->floor))
            return false;
    }
    for (size_t n = 0; n < f->b->n_nodes; n++)
        if (is_member(f, n) && f->b->nodes[n].kind == NIMBUS_NODE_ADD && !settle_sum(f, n, c, step))
            return false;
    return true;
}

/* The finest step with which channel c fits, from `step` on; 0 if there is none. */
static double finest_step(const family *f, size_t c, double step)
{
    for (int i = 0; i < GROWTHS; i++, step *= GROWTH)
        if (settle_channel(f, c, step))
            return step;
    return 0;
}

static double least_step(const family *f, size_t c)
{
    double least = 0;
    for (size_t n = 0; n < f->b->n_nodes; n++)
        if (is_member(f, n)) {
            nimbus_range range = range_in_family(f, n, c);
            least = fmax(least, step_of(range));
        }
    return least;
}

/* Lays out all channels for the floors at hand. Returns how coarse that is, infinite if it cannot
 * be. */
static double lay_out_family(const family *f, bool common)
{
    size_t n_channels = f->n_channels;
    double coarseness = 0, widest = 0;
    for (size_t c = 0; c < n_channels; c++) {
        double step = finest_step(f, c, f->least[c]);
        if (step == 0)
            return INFINITY;
        coarseness += log(step / f->least[c]);
        widest = step > widest ? step : widest;
    }
    for (size_t c = 0; c < n_channels && common; c++) {
        double step = finest_step(f, c, widest);
        if (step > widest) { /* all of them again */
            widest = step;
            c = (size_t)-1;
        }
    }
    return coarseness;
}

static nimbus_status lay_out_best(family *f, bool common, nimbus_error *error)
{
    double best = INFINITY;
    int best_floor = 0, best_sum_floor = 0;
    bool sums_clip = false, others_clip = false;
    f->n_channels = f->b->nodes[f->of].shape.channels;
    f->least = nimbus_alloc((f->b->n_nodes + 1) * f->n_channels, sizeof *f->least);
    if (!f->least)
        return nimbus_fail(error, NIMBUS_ERR_MEMORY, "no memory for layer %s",
                           f->b->nodes[f->of].layer->name);
    f->floor_of = f->least + f->n_channels;
    find_lows(f);
    for (size_t c = 0; c < f->n_channels; c++)
        f->least[c] = least_step(f, c);
    fill_gaps(f->least, f->n_channels);
    for (size_t n = 0; n < f->b->n_nodes; n++)
        if (is_member(f, n) && clips(&f->b->nodes[n]))
            *(f->b->nodes[n].kind == NIMBUS_NODE_ADD ? &sums_clip : &others_clip) = true;
    for (size_t i = 0; i < N_FLOORS; i++)
        for (size_t j = 0; j < N_FLOORS; j++) {
            f->sum_floor = floors[i];
            f->floor = floors[j];
            if ((!sums_clip && i > 0) || (!others_clip && j > 0))
                continue;
            double coarseness = lay_out_family(f, common);
            if (coarseness < best) {
                best = coarseness;
                best_sum_floor = f->sum_floor;
                best_floor = f->floor;
            }
        }
    f->sum_floor = best_sum_floor;
    f->floor = best_floor;
    (void)lay_out_family(f, common);
    for (size_t n = 0; n < f->b->n_nodes; n++) {
        nimbus_node *node = &f->b->nodes[n];
        if (is_member(f, n) && clips(node))
            node->low = node->kind == NIMBUS_NODE_ADD ? f->sum_floor : f->floor;
    }
    nimbus_free(f->least);
    return NIMBUS_OK;
}

static size_t find(size_t *root, size_t n)
{
    while (root[n] != n)
        n = root[n];
    return n;
}

/* Joins every sum with the origins of its sources; a node alone is its own root. */
static void find_families(const nimbus_image_build *b, size_t *root)
{
    for (size_t n = 0; n < b->n_nodes; n++)
        root[n] = n;
    for (size_t n = 0; n < b->n_nodes; n++)
        for (size_t k = 0; b->nodes[n].kind == NIMBUS_NODE_ADD && k < b->nodes[n].n_sources; k++) {
            size_t channel = 0;
            size_t o = find(root, nimbus_image_origin(b, b->nodes[n].sources[k], &channel));
            root[o > find(root, n) ? o : find(root, n)] = o < find(root, n) ? o : find(root, n);
        }
    for (size_t n = 0; n < b->n_nodes; n++)
        root[n] = find(root, n);
}

/* ---- the input ---------------------------------------------------------------------------------
 */

static nimbus_status lay_out_input(nimbus_image_build *b, nimbus_error *error)
{
    nimbus_node *node = &b->nodes[0];
    nimbus_layer *layer = &b->net->layers[0];
    const real *mean = nimbus_layer_param(layer, "mean")->value;
    const real *inverse = nimbus_layer_param(layer, "inverse_std")->value;
    size_t n = node->shape.height * node->shape.width;
    for (size_t c = 0; c < node->shape.channels; c++) {
        double m = (double)mean[c * n], factor = (double)inverse[c * n];
        nimbus_range range = {m, m};
        if (!(factor > 0))
            return nimbus_fail(error, NIMBUS_ERR_UNSUPPORTED,
                               "input column %zu is normalised by %g, expected a positive factor",
                               c * n, factor);
        for (size_t i = c * n; i < (c + 1) * n; i++) {
            nimbus_range r = b->ranges.inputs[i];
            if (mean[i] != mean[c * n] || inverse[i] != inverse[c * n])
                return nimbus_fail(error, NIMBUS_ERR_UNSUPPORTED,
                                   "input columns %zu and %zu, of one channel, are normalised "
                                   "differently, which a program on images cannot",
                                   c * n, i);
            range.low = r.low < range.low ? r.low : range.low;
            range.high = r.high > range.high ? r.high : range.high;
        }
        node->step[c] = b->net->input_dtype == NIMBUS_U8 ? factor : factor * step_of(range);
    }
    fill_gaps(node->step, node->shape.channels);
    for (size_t c = 0; c < node->shape.channels; c++) {
        double m = (double)mean[c * n], unit = node->step[c] / (double)inverse[c * n], low = m;
        node->zero[c] = m - 128;
        if (b->net->input_dtype == NIMBUS_U8)
            continue;
        for (size_t i = c * n; i < (c + 1) * n; i++)
            low = fmin(low, b->ranges.inputs[i].low);
        lay_out((nimbus_range){low - m, m}, unit, &node->zero[c]);
        node->scale[c] = 1 / unit;
        node->offset[c] = node->zero[c] - m / unit;
    }
    return NIMBUS_OK;
}

/* ---- all of them -------------------------------------------------------------------------------
 */

void nimbus_image_affine(const nimbus_image_build *b, size_t node, size_t c, double *alpha,
                         double *beta)
{
    const nimbus_node *origin = &b->nodes[nimbus_image_origin(b, node, &c)];
    *alpha = origin->post.a2[c] * origin->step[c];
    *beta = origin->post.b2[c] - *alpha * origin->zero[c];
}

int8_t nimbus_image_zero(const nimbus_image_build *b, size_t node, size_t c)
{
    double alpha, beta;
    nimbus_image_affine(b, node, c, &alpha, &beta);
    double q = alpha == 0 ? 0 : rint(-beta / alpha);
    return (int8_t)(q < -128 ? -128 : q > 127 ? 127 : q);
}

/* Marks the nodes that scores are read from without a product between. */
static void find_common(const nimbus_image_build *b, bool *common)
{
    const nimbus_node *last = &b->nodes[b->n_nodes - 1];
    for (size_t c = 0; last->plain && c < last->in.channels; c++) {
        size_t channel = c;
        common[nimbus_image_origin(b, last->sources[0], &channel)] = true;
    }
}

static nimbus_status lay_out_all(nimbus_image_build *b, size_t *root, bool *flags,
                                 nimbus_error *error)
{
    nimbus_status status = lay_out_input(b, error);
    find_families(b, root);
    find_common(b, flags);
    for (size_t n = 1; n < b->n_nodes && status == NIMBUS_OK; n++) {
        nimbus_node *node = &b->nodes[n];
        family f = {.b = b, .root = root, .of = n, .set = flags + b->n_nodes};
        bool alone = true, common = false;
        for (size_t i = 0; i < b->n_nodes; i++) {
            alone &= i == n || !is_member(&f, i);
            common |= is_member(&f, i) && flags[i];
        }
        if (!on_grid(node) || root[n] != n)
            continue;
        if (alone)
            lay_out_alone(b, node, common);
        else
            status = lay_out_best(&f, common, error);
    }
    return status;
}

nimbus_status nimbus_image_grids(nimbus_image_build *b, nimbus_error *error)
{
    size_t *root = nimbus_alloc(b->n_nodes, sizeof *root);
    bool *flags = nimbus_alloc(2 * b->n_nodes, sizeof *flags);
    nimbus_status status = NIMBUS_OK;
    for (size_t n = 0; n < b->n_nodes && status == NIMBUS_OK; n++) {
        nimbus_node *node = &b->nodes[n];
        size_t m = node->shape.channels;
        node->step = nimbus_alloc(m, sizeof *node->step);
        node->zero = nimbus_alloc(m, sizeof *node->zero);
        node->unit = nimbus_alloc(m, sizeof *node->unit);
        node->constant = nimbus_alloc(m, sizeof *node->constant);
        node->bias = nimbus_alloc(m, sizeof *node->bias);
        node->scale = nimbus_alloc(m, sizeof *node->scale);
        node->offset = nimbus_alloc(m, sizeof *node->offset);
        if (!root || !flags || !node->step || !node->zero || !node->unit || !node->constant ||
            !node->bias || !node->scale || !node->offset)
            status =
                nimbus_fail(error, NIMBUS_ERR_MEMORY, "no memory for layer %s", node->layer->name);
    }
    if (status == NIMBUS_OK)
        status = lay_out_all(b, root, flags, error);
    nimbus_free(root);
    nimbus_free(flags);
    return status;
}
