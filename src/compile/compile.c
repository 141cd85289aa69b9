/* compile.c - a converted net becomes an integer program
 *
 * Forward through the chain of products: each one's comparisons are first said about the integer
 * sums of the product before it (fold.c); that tells which of its columns are read at all, and the
 * bias and shift that centre the thresholds of each column in int8. Layers left as matrix products
 * become exact int8 steps, whose input columns all live and share the arithmetic of ordinary
 * symmetric per-output quantisation. */
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "compile/compile.h"

enum { BATCH = 256, MAX_ROWS = 4096 };

typedef struct compilation {
    nimbus_net *net; /* a copy: float tables get rounded */
    const nimbus_compile_options *options;
    size_t n_steps;
    nimbus_step_build *steps;
    size_t *product; /* [n_steps + 1] layer index of each step's linear layer; last: n_layers */
    nimbus_ranges ranges; /* empty until an exact layer needs them */
} compilation;

/* ---- the chain ---------------------------------------------------------------------------------
 */

static nimbus_status find_steps(compilation *c, nimbus_error *error)
{
    const nimbus_net *net = c->net;
    size_t n = 0;

    c->product = nimbus_alloc(net->n_layers + 1, sizeof *c->product);
    c->steps = nimbus_alloc(net->n_layers, sizeof *c->steps);
    if (!c->product || !c->steps)
        return nimbus_fail(error, NIMBUS_ERR_MEMORY, "no memory to compile %zu layers",
                           net->n_layers);
    for (size_t i = 0; i < net->n_layers; i++) {
        const nimbus_layer *layer = &net->layers[i];
        if (layer->type == &nimbus_layer_linear)
            c->product[n++] = i;
        else if (n == 0 && i > 0 && !nimbus_layer_changes_nothing(layer))
            return nimbus_fail(error, NIMBUS_ERR_UNSUPPORTED,
                               "layer %s (%s) stands before the first linear layer", layer->name,
                               layer->type->name);
    }
    if (n == 0)
        return nimbus_fail(error, NIMBUS_ERR_UNSUPPORTED, "the net has no linear layer");
    c->product[n] = net->n_layers;
    c->n_steps = n;
    for (size_t i = c->product[n - 1] + 1; i < net->n_layers; i++)
        if (!nimbus_layer_changes_nothing(&net->layers[i]))
            return nimbus_fail(error, NIMBUS_ERR_UNSUPPORTED,
                               "layer %s (%s) stands after the last linear layer; its scores are "
                               "a program's outputs",
                               net->layers[i].name, net->layers[i].type->name);
    return NIMBUS_OK;
}

static bool uniform(const real *scales, size_t m)
{
    for (size_t i = 1; i < m; i++)
        if (scales[i] != scales[0])
            return false;
    return true;
}

/* Tables as integers: v = unit * sum + constant. */
static nimbus_status set_lookup_units(compilation *c, size_t s, nimbus_error *error)
{
    nimbus_step_build *step = &c->steps[s];
    nimbus_layer *layer = &c->net->layers[c->product[s]];
    const real *scales = nimbus_layer_param(layer, "scales")->value;
    bool last = s + 1 == c->n_steps;

    if (layer->lookup->bits == 0 || (last && !uniform(scales, step->m))) {
        unsigned bits = layer->lookup->bits ? layer->lookup->bits : 8;
        nimbus_status status =
            nimbus_layer_quantise(layer, bits, last, c->options->n_threads, error);
        if (status)
            return status;
    }
    const real *bias = nimbus_layer_param(layer, "bias")->value;
    for (size_t m = 0; m < step->m; m++) {
        step->unit[m] = (double)scales[m];
        step->constant[m] = (double)bias[m];
    }
    return NIMBUS_OK;
}

/* How an exact step's input columns are read: value = alpha * x + beta for the int8 x. */
static nimbus_status exact_input(compilation *c, size_t s, double *alpha, double *beta,
                                 nimbus_error *error)
{
    nimbus_step_build *step = &c->steps[s];
    if (s > 0) {
        const nimbus_step_build *before = step - 1;
        memcpy(alpha, before->alpha, step->d * sizeof *alpha);
        memcpy(beta, before->beta, step->d * sizeof *beta);
        return NIMBUS_OK;
    }
    const real *mean = nimbus_layer_param(&c->net->layers[0], "mean")->value;
    const real *inverse = nimbus_layer_param(&c->net->layers[0], "inverse_std")->value;
    if (step->input == NIMBUS_IN_U8) {
        for (size_t d = 0; d < step->d; d++) {
            alpha[d] = (double)inverse[d];
            beta[d] = (128 - (double)mean[d]) * (double)inverse[d];
        }
        return NIMBUS_OK;
    }
    step->in_scale = nimbus_alloc(step->d, sizeof *step->in_scale);
    step->in_offset = nimbus_alloc(step->d, sizeof *step->in_offset);
    if (!step->in_scale || !step->in_offset)
        return nimbus_fail(error, NIMBUS_ERR_MEMORY, "no memory for layer %s", step->layer->name);
    for (size_t d = 0; d < step->d; d++) {
        nimbus_range range = c->ranges.inputs[d];
        double width = range.high > range.low ? range.high - range.low : 1;
        step->in_scale[d] = 255 / width;
        step->in_offset[d] = -128 - range.low * step->in_scale[d];
        alpha[d] = width / 255 * (double)inverse[d];
        beta[d] = (range.low + 128 * width / 255 - (double)mean[d]) * (double)inverse[d];
    }
    return NIMBUS_OK;
}

/* Rounds a matrix product's weights, one unit per output (one for all in the last step). */
static nimbus_status set_exact_units(compilation *c, size_t s, nimbus_error *error)
{
    nimbus_step_build *step = &c->steps[s];
    nimbus_layer *layer = &c->net->layers[c->product[s]];
    const real *weight = nimbus_layer_param(layer, "weight")->value;
    const real *bias = nimbus_layer_param(layer, "bias")->value;
    double *alpha = nimbus_alloc(step->d, sizeof *alpha),
           *beta = nimbus_alloc(step->d, sizeof *beta);
    double widest = 0;
    nimbus_status status = NIMBUS_OK;

    step->weight = nimbus_alloc(step->m * step->d, 1);
    if (!alpha || !beta || !step->weight) {
        status = nimbus_fail(error, NIMBUS_ERR_MEMORY, "no memory for layer %s", layer->name);
        goto done;
    }
    if ((status = exact_input(c, s, alpha, beta, error)))
        goto done;
    for (size_t m = 0; m < step->m; m++) {
        double largest = 0;
        step->constant[m] = (double)bias[m];
        for (size_t d = 0; d < step->d; d++) {
            double w = (double)weight[m * step->d + d];
            largest = fabs(w * alpha[d]) > largest ? fabs(w * alpha[d]) : largest;
            step->constant[m] += w * beta[d];
        }
        step->unit[m] = largest > 0 ? largest / 127 : 1;
        widest = largest > 0 && step->unit[m] > widest ? step->unit[m] : widest;
    }
    for (size_t m = 0; m < step->m; m++) {
        if (s + 1 == c->n_steps && widest > 0)
            step->unit[m] = widest;
        for (size_t d = 0; d < step->d; d++)
            step->weight[m * step->d + d] =
                (int8_t)lrint((double)weight[m * step->d + d] * alpha[d] / step->unit[m]);
    }
done:
    nimbus_free(alpha);
    nimbus_free(beta);
    return status;
}

/* ---- comparisons -------------------------------------------------------------------------------
 */

/* Cut of one comparison of step s (> 0) in the integers of the step before. */
static nimbus_cut cut_of_sum(const nimbus_step_build *before, size_t column, double t)
{
    nimbus_cut cut;
    if (before->output == NIMBUS_OUT_SCALED) {
        const nimbus_post *post = &before->post;
        double a = post->a2[column] * before->alpha[column];
        double b = post->a2[column] * before->beta[column] + post->b2[column];
        return nimbus_cut_affine(a, b, t);
    }
    cut = nimbus_post_cut(&before->post, column, t);
    cut.at = (cut.at - before->constant[column]) / before->unit[column];
    return cut;
}

static nimbus_status set_cuts(compilation *c, size_t s, nimbus_error *error)
{
    nimbus_step_build *step = &c->steps[s];
    nimbus_layer *layer = &c->net->layers[c->product[s]];
    size_t n = layer->lookup->n_codebooks * (layer->lookup->n_leaves - 1);
    const real *columns = nimbus_layer_param(layer, "columns")->value;
    const real *thresholds = nimbus_layer_param(layer, "thresholds")->value;
    const real *mean = nimbus_layer_param(&c->net->layers[0], "mean")->value;
    const real *inverse = nimbus_layer_param(&c->net->layers[0], "inverse_std")->value;

    step->cuts = nimbus_alloc(n, sizeof *step->cuts);
    if (!step->cuts)
        return nimbus_fail(error, NIMBUS_ERR_MEMORY, "no memory for layer %s", layer->name);
    for (size_t i = 0; i < n; i++) {
        size_t column = (size_t)columns[i];
        if (s > 0) {
            step->cuts[i] = cut_of_sum(step - 1, column, (double)thresholds[i]);
        } else if (!(inverse[column] > 0)) {
            return nimbus_fail(error, NIMBUS_ERR_UNSUPPORTED,
                               "input column %zu is normalised by %g, expected a positive factor",
                               column, (double)inverse[column]);
        } else {
            step->cuts[i] = (step->input == NIMBUS_IN_U8 ? nimbus_cut_u8 : nimbus_cut_f32)(
                mean[column], inverse[column], thresholds[i]);
        }
    }
    return NIMBUS_OK;
}

/* ---- outputs -----------------------------------------------------------------------------------
 */

/* Scores: sum + bias in the one unit of the last step. */
static nimbus_status output_scores(nimbus_step_build *step, nimbus_error *error)
{
    step->output = NIMBUS_OUT_I32;
    for (size_t m = 0; m < step->m; m++) {
        double bias = rint(step->constant[m] / step->unit[m]);
        if (!(fabs(bias) <= INT32_MAX))
            return nimbus_fail(error, NIMBUS_ERR_LIMIT,
                               "layer %s: the bias of output %zu is %.4g steps of its tables or "
                               "weights, more than 32 bits hold",
                               step->layer->name, m, bias);
        step->live[m] = true;
        step->bias[m] = (int32_t)bias;
    }
    return NIMBUS_OK;
}

/* What the sums of every output can be. */
static void reach_of_sums(const nimbus_step_build *step, double *low, double *high)
{
    memset(low, 0, step->m * sizeof *low);
    memset(high, 0, step->m * sizeof *high);
    if (step->lookup)
        nimbus_tables_reach(step->layer, nimbus_lookup_tables(step->layer), step->unit, NULL, low,
                            high);
    for (size_t m = 0; m < step->m && !step->lookup; m++) {
        for (size_t d = 0; d < step->d; d++)
            high[m] += 128 * abs(step->weight[m * step->d + d]);
        low[m] = -high[m];
    }
}

/* A comparison that no sum can change becomes a constant, so that it widens no range. */
static void settle_cuts(const nimbus_step_build *step, const nimbus_step_build *next, double *low,
                        double *high)
{
    const nimbus_lookup *lookup = next->layer->lookup;
    const real *columns = nimbus_layer_param((nimbus_layer *)next->layer, "columns")->value;

    reach_of_sums(step, low, high);
    for (size_t i = 0; i < lookup->n_codebooks * (lookup->n_leaves - 1); i++) {
        nimbus_cut *cut = &next->cuts[i];
        size_t m = (size_t)columns[i];
        bool always = cut->flipped ? high[m] < cut->at : low[m] > cut->at;
        bool never = cut->flipped ? low[m] >= cut->at : high[m] <= cut->at;
        if (always || never)
            *cut = (nimbus_cut){.at = always ? -INFINITY : INFINITY};
    }
}

/* Sums for the trees of the next step: each live column's bias centres its thresholds, one shift
 * brings the widest spread into int8. */
static void output_shifted(nimbus_step_build *step, const nimbus_step_build *next, double *low,
                           double *high)
{
    const nimbus_lookup *lookup = next->layer->lookup;
    const real *columns = nimbus_layer_param((nimbus_layer *)next->layer, "columns")->value;
    double widest = 0;

    settle_cuts(step, next, low, high);
    step->output = NIMBUS_OUT_SHIFT;
    for (size_t m = 0; m < step->m; m++) {
        low[m] = INFINITY;
        high[m] = -INFINITY;
    }
    for (size_t i = 0; i < lookup->n_codebooks * (lookup->n_leaves - 1); i++) {
        size_t m = (size_t)columns[i];
        double at = next->cuts[i].at;
        if (isinf(at))
            continue;
        step->live[m] = true;
        low[m] = at < low[m] ? at : low[m];
        high[m] = at > high[m] ? at : high[m];
    }
    for (size_t m = 0; m < step->m; m++)
        if (step->live[m] && (high[m] - low[m]) / 2 > widest)
            widest = (high[m] - low[m]) / 2;
    while (step->shift < NIMBUS_MAX_SHIFT && widest > ldexp(126, (int)step->shift))
        step->shift++;
    for (size_t m = 0; m < step->m; m++)
        if (step->live[m])
            step->bias[m] = (int32_t)lrint(-(low[m] + high[m]) / 2);
}

/* Values for an exact step, or for trees behind a function that is not monotone: int8 y with
 * value = alpha * y + beta, y = map[...] if the function is neither the identity nor ReLU. */
static nimbus_status output_scaled(compilation *c, size_t s, nimbus_error *error)
{
    nimbus_step_build *step = &c->steps[s];
    nimbus_post *post = &step->post;
    bool mapped = post->function != NIMBUS_F_IDENTITY && post->function != NIMBUS_F_RELU;
    bool exact_next = !c->steps[s + 1].lookup;
    /* what the function reads, or yields, over the calibration rows */
    size_t at = c->product[s];
    nimbus_range range = {INFINITY, -INFINITY};
    for (; at < c->product[s + 1]; at++) {
        nimbus_range r = nimbus_ranges_of_layer(&c->ranges, at);
        bool is_function = nimbus_function_of(&c->net->layers[at]) != NIMBUS_F_IDENTITY;
        if (is_function && mapped)
            break; /* range of its input */
        range = r;
        if (is_function)
            break;
    }
    double width = range.high > range.low ? range.high - range.low : 1, unit = width / 255;

    step->output = NIMBUS_OUT_SCALED;
    step->mapped = mapped;
    step->scale = nimbus_alloc(step->m, sizeof *step->scale);
    step->offset = nimbus_alloc(step->m, sizeof *step->offset);
    step->alpha = nimbus_alloc(step->m, sizeof *step->alpha);
    step->beta = nimbus_alloc(step->m, sizeof *step->beta);
    if (!step->scale || !step->offset || !step->alpha || !step->beta)
        return nimbus_fail(error, NIMBUS_ERR_MEMORY, "no memory for layer %s", step->layer->name);
    double low = range.low, alpha = unit, beta = range.low + 128 * unit;
    if (mapped) {
        double y_low = INFINITY, y_high = -INFINITY;
        for (int q = 0; q < 256; q++) {
            double y = nimbus_function_value(post, low + q * unit);
            y_low = y < y_low ? y : y_low;
            y_high = y > y_high ? y : y_high;
        }
        alpha = y_high > y_low ? (y_high - y_low) / 255 : 1;
        beta = y_low + 128 * alpha;
        for (int q = 0; q < 256; q++) {
            double y = nimbus_function_value(post, low + q * unit);
            step->map[q] = (int8_t)lrint((y - beta) / alpha);
        }
    }
    for (size_t m = 0; m < step->m; m++) {
        step->live[m] = true;
        step->scale[m] = (float)(step->unit[m] * post->a1[m] / unit);
        step->offset[m] =
            (float)((step->constant[m] * post->a1[m] + post->b1[m] - low) / unit - 128);
        /* an exact step reads through the second affine map; trees fold it into thresholds */
        step->alpha[m] = exact_next ? alpha * post->a2[m] : alpha;
        step->beta[m] = exact_next ? beta * post->a2[m] + post->b2[m] : beta;
    }
    return NIMBUS_OK;
}

/* ---- the program -------------------------------------------------------------------------------
 */

static nimbus_status begin_step(compilation *c, size_t s, nimbus_error *error)
{
    nimbus_step_build *step = &c->steps[s];
    nimbus_layer *layer = &c->net->layers[c->product[s]];

    step->layer = layer;
    step->lookup =
        layer->lookup && (layer->state == NIMBUS_STATE_SOFT || layer->state == NIMBUS_STATE_LOOKUP);
    step->d = nimbus_shape_width(layer->in_shape);
    step->m = nimbus_shape_width(layer->shape);
    step->input = s > 0                              ? NIMBUS_IN_I8
                  : c->net->input_dtype == NIMBUS_U8 ? NIMBUS_IN_U8
                                                     : NIMBUS_IN_F32;
    step->unit = nimbus_alloc(step->m, sizeof *step->unit);
    step->constant = nimbus_alloc(step->m, sizeof *step->constant);
    step->bias = nimbus_alloc(step->m, sizeof *step->bias);
    step->live = nimbus_alloc(step->m, sizeof *step->live);
    if (!step->unit || !step->constant || !step->bias || !step->live)
        return nimbus_fail(error, NIMBUS_ERR_MEMORY, "no memory for layer %s", layer->name);
    return nimbus_post_fold(c->net, c->product[s] + 1, c->product[s + 1], step->m, &step->post,
                            error);
}

/* Whether step s hands on scaled values rather than shifted sums. */
static bool hands_on_values(const compilation *c, size_t s)
{
    return s + 1 < c->n_steps &&
           (!c->steps[s + 1].lookup || c->steps[s].post.function == NIMBUS_F_GELU);
}

static nimbus_status measure_if_needed(compilation *c, nimbus_error *error)
{
    bool needed = !c->steps[0].lookup && c->steps[0].input == NIMBUS_IN_F32;
    const char *who = c->steps[0].layer->name;
    for (size_t s = 0; s + 1 < c->n_steps; s++)
        if (hands_on_values(c, s)) {
            needed = true;
            who = c->steps[s + 1].lookup ? c->steps[s].layer->name : c->steps[s + 1].layer->name;
        }
    if (!needed)
        return NIMBUS_OK;
    if (!c->options->calibration)
        return nimbus_fail(error, NIMBUS_ERR_ARGUMENT,
                           "the int8 values at layer %s need measured ranges: convert a float net "
                           "to lookups first, or give data to measure them on (--data)",
                           who);
    return nimbus_ranges_measure(
        c->net, &(nimbus_measure){c->options->calibration, MAX_ROWS, BATCH, c->options->n_threads},
        &c->ranges, error);
}

static nimbus_status make_steps(compilation *c, nimbus_error *error)
{
    nimbus_status status = NIMBUS_OK;
    size_t widest = 0;
    for (size_t s = 0; s < c->n_steps && status == NIMBUS_OK; s++) {
        status = begin_step(c, s, error);
        widest = c->steps[s].m > widest ? c->steps[s].m : widest;
    }
    double *low = nimbus_alloc(2 * widest, sizeof *low);
    if (status == NIMBUS_OK && !low)
        status = nimbus_fail(error, NIMBUS_ERR_MEMORY, "no memory to compile");
    if (status == NIMBUS_OK)
        status = measure_if_needed(c, error);
    for (size_t s = 0; s < c->n_steps && status == NIMBUS_OK; s++) {
        nimbus_step_build *step = &c->steps[s];
        if ((status = step->lookup ? set_lookup_units(c, s, error) : set_exact_units(c, s, error)))
            break;
        if (step->lookup && (status = set_cuts(c, s, error)))
            break;
        if (s > 0 && step->lookup && !hands_on_values(c, s - 1)) {
            output_shifted(step - 1, step, low, low + widest);
            /* a step that nothing reads still has one column */
            bool any = false;
            for (size_t m = 0; m < step[-1].m; m++)
                any |= step[-1].live[m];
            step[-1].live[0] |= !any;
        }
        if (s + 1 == c->n_steps)
            status = output_scores(step, error);
        else if (hands_on_values(c, s))
            status = output_scaled(c, s, error);
        else
            step->output = NIMBUS_OUT_SHIFT;
    }
    nimbus_free(low);
    return status;
}

static nimbus_status write_program(compilation *c, nimbus_buffer *out, nimbus_error *error)
{
    nimbus_buffer header = {0}, *bodies = nimbus_alloc(c->n_steps, sizeof *bodies);
    nimbus_section *sections = nimbus_alloc(c->n_steps + 2, sizeof *sections);
    const nimbus_step_build *last = &c->steps[c->n_steps - 1];
    const char *metadata = c->net->metadata ? c->net->metadata : "";
    nimbus_status status = NIMBUS_OK;
    size_t n = 0;

    if (!bodies || !sections) {
        status = nimbus_fail(error, NIMBUS_ERR_MEMORY, "no memory to write the program");
        goto done;
    }
    nimbus_write_u32le(&header, (uint32_t)c->steps[0].d);
    nimbus_write_u32le(&header, c->steps[0].input);
    nimbus_write_u32le(&header, (uint32_t)last->m);
    nimbus_write_u32le(&header, (uint32_t)c->n_steps);
    nimbus_write_f32le(&header, (float)last->unit[0]);
    nimbus_write_u32le(&header, 0);
    for (size_t s = 0; s < c->n_steps; s++) {
        status = nimbus_step_build_write(&c->steps[s], s > 0 ? &c->steps[s - 1] : NULL, &bodies[s],
                                         error);
        if (status)
            goto done;
    }
    if (header.failed) {
        status = nimbus_fail(error, NIMBUS_ERR_MEMORY, "no memory to write the program");
        goto done;
    }
    sections[n++] = (nimbus_section){NIMBUS_TAG('P', 'R', 'O', 'G'), header.bytes, header.size};
    for (size_t s = 0; s < c->n_steps; s++)
        sections[n++] =
            (nimbus_section){NIMBUS_TAG('S', 'T', 'E', 'P'), bodies[s].bytes, bodies[s].size};
    if (metadata[0])
        sections[n++] = (nimbus_section){NIMBUS_TAG('M', 'E', 'T', 'A'), (const uint8_t *)metadata,
                                         strlen(metadata)};
    status = nimbus_container_write(out, NIMBUS_PROGRAM_MAGIC, NIMBUS_PROGRAM_MAJOR,
                                    NIMBUS_ROW_PROGRAM_MINOR, sections, n, error);
done:
    nimbus_buffer_free(&header);
    for (size_t s = 0; bodies && s < c->n_steps; s++)
        nimbus_buffer_free(&bodies[s]);
    nimbus_free(bodies);
    nimbus_free(sections);
    return status;
}

nimbus_status nimbus_compile_net(const nimbus_net *net, const nimbus_compile_options *options,
                                 bool fitted, void **bytes, size_t *n_bytes, nimbus_error *error)
{
    static const nimbus_compile_options defaults = NIMBUS_COMPILE_OPTIONS_INIT;
    compilation c = {.options = options ? options : &defaults};
    nimbus_buffer out = {0};
    nimbus_status status;

    *bytes = NULL;
    *n_bytes = 0;
    if (c.options->size != sizeof *options)
        return nimbus_fail(error, NIMBUS_ERR_ARGUMENT,
                           "compile options of %zu bytes, expected %zu: not set up with "
                           "NIMBUS_COMPILE_OPTIONS_INIT",
                           c.options->size, sizeof *options);
    for (size_t i = 0; i < net->n_layers; i++)
        if (nimbus_layer_uses_lookup(&net->layers[i]) &&
            net->layers[i].lookup->kind == NIMBUS_CENTROIDS)
            return nimbus_fail(error, NIMBUS_ERR_UNSUPPORTED,
                               "layer %s finds its tables by nearest centroids, which takes "
                               "multiplications; programs have trees: convert with another method "
                               "than lut-nn",
                               net->layers[i].name);
    bool on_rows = nimbus_net_is_on_rows(net);
    if ((status = nimbus_net_copy(net, &c.net, error)) ||
        (on_rows && (status = find_steps(&c, error))) ||
        (status = nimbus_stand_ins_make(c.net, c.options, fitted, error)))
        goto done;
    if (on_rows && (status = make_steps(&c, error)) == NIMBUS_OK)
        status = write_program(&c, &out, error);
    else if (!on_rows)
        status = nimbus_image_compile(c.net, c.options, &out, error);
    if (status)
        goto done;
    *bytes = out.bytes;
    *n_bytes = out.size;
    out = (nimbus_buffer){0};
done:
    nimbus_buffer_free(&out);
    for (size_t s = 0; c.steps && s < c.n_steps; s++)
        nimbus_step_build_free(&c.steps[s]);
    nimbus_free(c.steps);
    nimbus_free(c.product);
    nimbus_ranges_free(&c.ranges);
    nimbus_net_free(c.net);
    return status;
}

nimbus_status nimbus_compile(const nimbus_net *net, const nimbus_compile_options *options,
                             void **bytes, size_t *n_bytes, nimbus_error *error)
{
    return nimbus_compile_net(net, options, true, bytes, n_bytes, error);
}

void nimbus_compile_free(void *bytes)
{
    nimbus_free(bytes);
}

nimbus_status nimbus_compile_to_file(const nimbus_net *net, const nimbus_compile_options *options,
                                     const char *path, nimbus_error *error)
{
    void *bytes = NULL;
    size_t n_bytes = 0;
    nimbus_status status = nimbus_compile(net, options, &bytes, &n_bytes, error);
    if (status == NIMBUS_OK)
        status = nimbus_file_write(path, bytes, n_bytes, error);
    nimbus_compile_free(bytes);
    return status;
}
