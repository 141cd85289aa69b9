/* step.c - write one step of a program
 *
 * Trees are rewritten on the way: a flipped comparison swaps the node's subtrees, a constant one
 * copies the subtree that is always taken over the other, and columns are renumbered to those that
 * the producing step computes. */
#include <math.h>
#include <string.h>

#include "compile/compile.h"
#include "net/simd.h"

void nimbus_step_build_free(nimbus_step_build *step)
{
    nimbus_post_free(&step->post);
    nimbus_free(step->unit);
    nimbus_free(step->constant);
    nimbus_free(step->weight);
    nimbus_free(step->cuts);
    nimbus_free(step->in_scale);
    nimbus_free(step->in_offset);
    nimbus_free(step->bias);
    nimbus_free(step->scale);
    nimbus_free(step->offset);
    nimbus_free(step->alpha);
    nimbus_free(step->beta);
    nimbus_free(step->live);
    memset(step, 0, sizeof *step);
}

/* ---- comparisons in the input's integers ----------------------------------------------------- */

/* How a node of the written tree decides. */
typedef enum decision { DECIDE_SPLIT, DECIDE_RIGHT, DECIDE_LEFT } decision;

/* Threshold of `x > threshold` for integers x, from a cut on a real line where the integer i lies
 * at i: x > at is x > floor(at); x < at is not x > ceil(at) - 1. */
static double whole_threshold(nimbus_cut cut)
{
    return cut.flipped ? ceil(cut.at) - 1 : floor(cut.at);
}

/* Decision and stored threshold of one node. For an input of shifted sums, cut.at is in sums:
 * (sum + bias) >> shift > t  is  sum > ((t + 1) << shift) - bias - 1, solved for the nearest t. */
static decision decide(const nimbus_step_build *step, const nimbus_step_build *before,
                       nimbus_cut cut, size_t column, double *threshold)
{
    double t, low = -128, high = 127;
    if (isinf(cut.at))
        return cut.at < 0 ? DECIDE_RIGHT : DECIDE_LEFT;
    if (step->input == NIMBUS_IN_F32) {
        *threshold = cut.at; /* single precision already, see compile.c */
        return DECIDE_SPLIT;
    }
    t = whole_threshold(cut);
    if (before && before->output == NIMBUS_OUT_SHIFT) {
        double width = ldexp(1, (int)before->shift);
        t = floor((t + before->bias[column] + 1) / width + 0.5) - 1;
    }
    if (t < low || t >= high) { /* below -128 every value is above, at 127 none is */
        bool above = t < low;
        return above != cut.flipped ? DECIDE_RIGHT : DECIDE_LEFT;
    }
    *threshold = t;
    return DECIDE_SPLIT;
}

/* A tree while it is rewritten: for every new node and leaf the old one that stands there. */
typedef struct rewritten {
    size_t source[2 << NIMBUS_MAX_LEVELS]; /* heap: nodes, then leaves */
    double threshold[1 << NIMBUS_MAX_LEVELS];
    bool split[1 << NIMBUS_MAX_LEVELS];
} rewritten;

static void rewrite(const nimbus_step_build *step, const nimbus_step_build *before,
                    const real *columns, size_t c, rewritten *out)
{
    size_t nodes = step->layer->lookup->n_leaves - 1;
    out->source[0] = 0;
    for (size_t i = 0; i < nodes; i++) {
        size_t old = out->source[i];
        nimbus_cut cut = step->cuts[c * nodes + old];
        size_t left = 2 * old + 1, right = 2 * old + 2;
        out->threshold[i] = 0;
        decision d =
            decide(step, before, cut, (size_t)columns[c * nodes + old], &out->threshold[i]);
        out->split[i] = d == DECIDE_SPLIT;
        if (d == DECIDE_SPLIT && cut.flipped) {
            size_t swap = left;
            left = right;
            right = swap;
        }
        out->source[2 * i + 1] = d == DECIDE_RIGHT ? right : left;
        out->source[2 * i + 2] = d == DECIDE_LEFT ? left : right;
    }
}

/* ---- arrays ---------------------------------------------------------------------------------- */

/* Every array of a section starts at a multiple of 64 bytes. */
static void begin_array(nimbus_buffer *out)
{
    nimbus_write_pad(out, 64);
}

/* Input column -> its number among those the producer computes (itself without a producer). */
static uint32_t *renumber(const nimbus_step_build *step, const nimbus_step_build *before)
{
    uint32_t *number = nimbus_alloc(step->d, sizeof *number), next = 0;
    for (size_t i = 0; number && i < step->d; i++) {
        number[i] = next;
        next += !before || before->live[i];
    }
    return number;
}

/* Columns of a level are shared unless some tree is per node. Where no node of a level splits, the
 * column does not matter: any that exists serves. */
static void write_columns(const nimbus_step_build *step, const rewritten *trees,
                          const uint32_t *number, nimbus_buffer *out)
{
    const nimbus_lookup *lookup = step->layer->lookup;
    const real *columns = nimbus_layer_param((nimbus_layer *)step->layer, "columns")->value;
    size_t nodes = lookup->n_leaves - 1;
    bool per_node = lookup->kind == NIMBUS_TREE_PER_NODE;

    begin_array(out);
    for (size_t c = 0; c < lookup->n_codebooks; c++)
        for (size_t h = 0, i = 0; h < lookup->n_levels; h++) {
            uint32_t column = 0;
            for (size_t b = 0; b < (size_t)1 << h; b++, i++) {
                bool split = trees[c].split[i];
                uint32_t here = split ? number[(size_t)columns[c * nodes + trees[c].source[i]]] : 0;
                if (per_node)
                    nimbus_write_u32le(out, here);
                else if (split)
                    column = here;
            }
            if (!per_node)
                nimbus_write_u32le(out, column);
        }
}

static void write_thresholds(const nimbus_step_build *step, const rewritten *trees,
                             nimbus_buffer *out)
{
    const nimbus_lookup *lookup = step->layer->lookup;
    begin_array(out);
    for (size_t c = 0; c < lookup->n_codebooks; c++)
        for (size_t i = 0; i < lookup->n_leaves - 1; i++)
            if (step->input == NIMBUS_IN_F32)
                nimbus_write_f32le(out, (float)trees[c].threshold[i]);
            else
                nimbus_write_u8(out, (uint8_t)(int8_t)trees[c].threshold[i]);
}

/* Table entries of the live outputs, leaf after leaf; *reach: largest |sum| of any output. */
static void write_tables(const nimbus_step_build *step, const rewritten *trees, bool packed,
                         double *reach, nimbus_buffer *out)
{
    const nimbus_lookup *lookup = step->layer->lookup;
    const real *tables = nimbus_lookup_tables(step->layer);
    size_t nodes = lookup->n_leaves - 1;

    begin_array(out);
    *reach = 0;
    for (size_t c = 0; c < lookup->n_codebooks; c++) {
        int largest = 0;
        for (size_t k = 0; k < lookup->n_leaves; k++) {
            size_t old = trees[c].source[nodes + k] - nodes;
            const real *row = tables + (c * lookup->n_leaves + old) * step->m;
            unsigned pending = 0;
            bool half = false;
            for (size_t m = 0; m < step->m; m++) {
                if (!step->live[m])
                    continue;
                int q = (int)NIMBUS_RINT(row[m] / (real)step->unit[m]);
                largest = q > largest ? q : -q > largest ? -q : largest;
                if (!packed) {
                    nimbus_write_u8(out, (uint8_t)(int8_t)q);
                } else if (half) {
                    nimbus_write_u8(out, (uint8_t)(pending | ((unsigned)q & 15) << 4));
                    half = false;
                } else {
                    pending = (unsigned)q & 15;
                    half = true;
                }
            }
            if (half)
                nimbus_write_u8(out, (uint8_t)pending);
        }
        *reach += largest;
    }
}

static void write_weights(const nimbus_step_build *step, const nimbus_step_build *before,
                          double *reach, nimbus_buffer *out)
{
    begin_array(out);
    *reach = 0;
    for (size_t m = 0; m < step->m; m++) {
        double sum = 0;
        if (!step->live[m])
            continue;
        for (size_t d = 0; d < step->d; d++)
            if (!before || before->live[d]) {
                nimbus_write_u8(out, (uint8_t)step->weight[m * step->d + d]);
                sum += abs(step->weight[m * step->d + d]);
            }
        *reach = 128 * sum > *reach ? 128 * sum : *reach;
    }
}

static void write_floats(const double *values, size_t n, nimbus_buffer *out)
{
    begin_array(out);
    for (size_t i = 0; i < n; i++)
        nimbus_write_f32le(out, (float)values[i]);
}

static void write_live_floats(const nimbus_step_build *step, const float *values,
                              nimbus_buffer *out)
{
    begin_array(out);
    for (size_t m = 0; m < step->m; m++)
        if (step->live[m])
            nimbus_write_f32le(out, values[m]);
}

/* ---- the step ---------------------------------------------------------------------------------
 */

static void write_header(const nimbus_step_build *step, size_t d, size_t m, uint32_t flags,
                         nimbus_buffer *out)
{
    const nimbus_lookup *lookup = step->layer->lookup;
    const uint32_t words[] = {step->lookup ? 1 : 2,
                              (uint32_t)d,
                              (uint32_t)m,
                              step->lookup ? (uint32_t)lookup->n_codebooks : 0,
                              step->lookup ? (uint32_t)lookup->n_levels : 0,
                              flags,
                              step->input,
                              step->output,
                              step->shift};
    char name[NIMBUS_STEP_NAME_BYTES] = {0};

    for (size_t i = 0; i < 16; i++)
        nimbus_write_u32le(out, i < sizeof words / sizeof words[0] ? words[i] : 0);
    memcpy(name, step->layer->name, strnlen(step->layer->name, sizeof name - 1));
    nimbus_write_bytes(out, name, sizeof name);
}

static size_t count_live(const nimbus_step_build *step)
{
    size_t n = 0;
    for (size_t m = 0; m < step->m; m++)
        n += step->live[m];
    return n;
}

nimbus_status nimbus_step_build_write(const nimbus_step_build *step,
                                      const nimbus_step_build *before, nimbus_buffer *out,
                                      nimbus_error *error)
{
    const nimbus_lookup *lookup = step->lookup ? step->layer->lookup : NULL;
    size_t d = before ? count_live(before) : step->d, m = count_live(step);
    rewritten *trees = nimbus_alloc(lookup ? lookup->n_codebooks : 1, sizeof *trees);
    uint32_t *number = renumber(step, before);
    double reach = 0, largest_bias = 0;
    bool packed = lookup && lookup->bits > 0 && lookup->bits <= 4;
    uint32_t flags = (lookup && lookup->kind == NIMBUS_TREE_PER_NODE ? NIMBUS_FLAG_PER_NODE : 0u) |
                     (packed ? NIMBUS_FLAG_4BIT : 0u) | (step->mapped ? NIMBUS_FLAG_MAP : 0u);

    if (!trees || !number) {
        nimbus_free(trees);
        nimbus_free(number);
        return nimbus_fail(error, NIMBUS_ERR_MEMORY, "no memory to write layer %s",
                           step->layer->name);
    }
    write_header(step, d, m, flags, out);
    if (lookup) {
        const real *columns = nimbus_layer_param((nimbus_layer *)step->layer, "columns")->value;
        for (size_t c = 0; c < lookup->n_codebooks; c++)
            rewrite(step, before, columns, c, &trees[c]);
        write_columns(step, trees, number, out);
        write_thresholds(step, trees, out);
        write_tables(step, trees, packed, &reach, out);
    } else {
        write_weights(step, before, &reach, out);
    }
    begin_array(out);
    for (size_t i = 0; i < step->m; i++)
        if (step->live[i]) {
            nimbus_write_u32le(out, (uint32_t)step->bias[i]);
            double size = fabs((double)step->bias[i]);
            largest_bias = size > largest_bias ? size : largest_bias;
        }
    if (step->in_scale) {
        write_floats(step->in_scale, step->d, out);
        write_floats(step->in_offset, step->d, out);
    }
    if (step->output == NIMBUS_OUT_SCALED) {
        write_live_floats(step, step->scale, out);
        write_live_floats(step, step->offset, out);
    }
    if (step->mapped) {
        begin_array(out);
        nimbus_write_bytes(out, step->map, sizeof step->map);
    }
    nimbus_free(trees);
    nimbus_free(number);
    if (reach + largest_bias > 2147483647.0)
        return nimbus_fail(error, NIMBUS_ERR_LIMIT,
                           "layer %s: a sum can reach %.0f, more than 32 bits hold",
                           step->layer->name, reach + largest_bias);
    return out->failed ? nimbus_fail(error, NIMBUS_ERR_MEMORY, "no memory to write layer %s",
                                     step->layer->name)
                       : NIMBUS_OK;
}
