/* step.c - write one step of a program on rows */
#include <math.h>
#include <string.h>

#include "compile/compile.h"

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

/* Threshold of `x > threshold` for integers x, from a cut on a real line where the integer i lies
 * at i: x > at is x > floor(at); x < at is not x > ceil(at) - 1. */
static double whole_threshold(nimbus_cut cut)
{
    return cut.flipped ? ceil(cut.at) - 1 : floor(cut.at);
}

/* Decision and stored threshold of one node. For an input of shifted sums, cut.at is in sums:
 * (sum + bias) >> shift > t  is  sum > ((t + 1) << shift) - bias - 1, solved for the nearest t. */
static nimbus_branch decide(const nimbus_step_build *step, const nimbus_step_build *before,
                            nimbus_cut cut, size_t column)
{
    nimbus_branch split = {.flipped = cut.flipped};
    double t, low = -128, high = 127;
    if (isinf(cut.at)) {
        split.decision = cut.at < 0 ? NIMBUS_DECIDE_RIGHT : NIMBUS_DECIDE_LEFT;
        return split;
    }
    if (step->input == NIMBUS_IN_F32) {
        split.threshold = cut.at; /* single precision already, see compile.c */
        return split;
    }
    t = whole_threshold(cut);
    if (before && before->output == NIMBUS_OUT_SHIFT)
        t = nimbus_shifted_threshold(t, before->bias[column], before->shift);
    if (t < low || t >= high) { /* below -128 every value is above, at 127 none is */
        bool above = t < low;
        split.decision = above != cut.flipped ? NIMBUS_DECIDE_RIGHT : NIMBUS_DECIDE_LEFT;
    }
    split.threshold = t;
    return split;
}

static nimbus_branch *decide_all(const nimbus_step_build *step, const nimbus_step_build *before)
{
    const real *columns = nimbus_layer_param((nimbus_layer *)step->layer, "columns")->value;
    size_t n = step->layer->lookup->n_codebooks * (step->layer->lookup->n_leaves - 1);
    nimbus_branch *splits = nimbus_alloc(n, sizeof *splits);
    for (size_t i = 0; splits && i < n; i++)
        splits[i] = decide(step, before, step->cuts[i], (size_t)columns[i]);
    return splits;
}

/* ---- arrays ---------------------------------------------------------------------------------- */

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

static void write_weights(const nimbus_step_build *step, const nimbus_step_build *before,
                          double *reach, nimbus_buffer *out)
{
    nimbus_array_begin(out);
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
    nimbus_array_begin(out);
    for (size_t i = 0; i < n; i++)
        nimbus_write_f32le(out, (float)values[i]);
}

static void write_live_floats(const nimbus_step_build *step, const float *values,
                              nimbus_buffer *out)
{
    nimbus_array_begin(out);
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
    nimbus_branch *splits = lookup ? decide_all(step, before) : NULL;
    uint32_t *number = renumber(step, before);
    double reach = 0, largest_bias = 0;
    uint32_t flags =
        (lookup ? nimbus_lookup_flags(lookup) : 0u) | (step->mapped ? NIMBUS_FLAG_MAP : 0u);
    nimbus_status status = NIMBUS_OK;

    if ((lookup && !splits) || !number) {
        status =
            nimbus_fail(error, NIMBUS_ERR_MEMORY, "no memory to write layer %s", step->layer->name);
        goto done;
    }
    write_header(step, d, m, flags, out);
    if (lookup) {
        nimbus_trees_build trees = {.layer = step->layer,
                                    .splits = splits,
                                    .number = number,
                                    .f32 = step->input == NIMBUS_IN_F32,
                                    .unit = step->unit,
                                    .tables = nimbus_lookup_tables(step->layer),
                                    .live = step->live};
        if ((status = nimbus_trees_write(&trees, &reach, out, error)))
            goto done;
    } else {
        write_weights(step, before, &reach, out);
    }
    nimbus_array_begin(out);
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
        nimbus_array_begin(out);
        nimbus_write_bytes(out, step->map, sizeof step->map);
    }
    if (reach + largest_bias > 2147483647.0)
        status = nimbus_fail(error, NIMBUS_ERR_LIMIT,
                             "layer %s: a sum can reach %.0f, more than 32 bits hold",
                             step->layer->name, reach + largest_bias);
    else if (out->failed)
        status =
            nimbus_fail(error, NIMBUS_ERR_MEMORY, "no memory to write layer %s", step->layer->name);
done:
    nimbus_free(splits);
    nimbus_free(number);
    return status;
}
