/* check.c - run every form of a net on the same rows and measure how far they are apart
 *
 * Float layer against lookup layer (on the converted net's inputs), SOFT against LOOKUP bit by bit,
 * and the integer program's outputs and decisions against the converted net's. */
#include <math.h>
#include <string.h>

#include "base/base.h"
#include "net/lookup.h"
#include "net/net.h"

enum { MAX_BATCH = 256, BATCH_REALS = 1 << 22 };

/* Sums for a normalised squared error, by column. */
typedef struct distance {
    double squares, n;
    double *sum, *square; /* [width] of the reference */
    size_t width;
} distance;

typedef struct checking {
    nimbus_net *teacher, *soft, *lookup; /* copies; teacher may be NULL */
    nimbus_pass *soft_pass, *lookup_pass;
    const nimbus_program *program;
    const nimbus_data *data;
    distance *dense;      /* [n_layers] float layer as the reference */
    distance *soft_layer; /* [n_layers] lookup form as the reference */
    distance integer;
    size_t batch;
    real *y; /* [batch][widest] outputs of one float layer, and what it needs beside */
    void *layer_saved, *layer_scratch;
    int32_t *scores;
    void *scratch;
    size_t n_outputs;
} checking;

static bool distance_new(distance *d, size_t width)
{
    *d = (distance){.width = width};
    d->sum = nimbus_alloc(width, sizeof *d->sum);
    d->square = nimbus_alloc(width, sizeof *d->square);
    return d->sum && d->square;
}

static void distance_free(distance *d)
{
    nimbus_free(d->sum);
    nimbus_free(d->square);
}

static void distance_add(distance *d, const real *reference, const real *other, size_t n_rows)
{
    for (size_t i = 0; i < n_rows * d->width; i++) {
        double r = (double)reference[i], difference = (double)other[i] - r;
        d->squares += difference * difference;
        d->sum[i % d->width] += r;
        d->square[i % d->width] += r * r;
    }
    d->n += (double)n_rows;
}

/* Squared distance over the reference's spread around its column means; infinite if that has none
 * but the other differs. */
static double distance_normalised(const distance *d)
{
    double spread = 0;
    for (size_t j = 0; j < d->width; j++)
        spread += d->square[j] - d->sum[j] * d->sum[j] / d->n;
    if (d->n == 0)
        return NAN;
    return spread > 0 ? d->squares / spread : d->squares > 0 ? INFINITY : 0;
}

static nimbus_status set_all(nimbus_net *net, nimbus_layer_state to, nimbus_error *error)
{
    for (size_t i = 0; i < net->n_layers; i++) {
        const nimbus_layer *layer = &net->layers[i];
        if (!layer->lookup || layer->state == to ||
            (layer->state != NIMBUS_STATE_SOFT && layer->state != NIMBUS_STATE_LOOKUP))
            continue;
        nimbus_status status = nimbus_net_set_state(net, i, to, error);
        if (status)
            return status;
    }
    return NIMBUS_OK;
}

/* Rows that fit at a time: images have wide layers. */
static size_t batch_of(const nimbus_net *net)
{
    size_t width = 0;
    for (size_t i = 0; i < net->n_layers; i++)
        width += nimbus_shape_width(net->layers[i].shape);
    size_t n = BATCH_REALS / width;
    return n < 1 ? 1 : n < MAX_BATCH ? n : MAX_BATCH;
}

static size_t larger(size_t a, size_t b)
{
    return a > b ? a : b;
}

/* Memory for the float form of a layer alone. */
static bool prepare_layers(checking *c)
{
    size_t saved = 0, scratch = 0;
    for (size_t i = 0; c->teacher && i < c->teacher->n_layers; i++) {
        const nimbus_layer *layer = &c->teacher->layers[i];
        if (!c->lookup->layers[i].lookup)
            continue;
        if (layer->type->saved_size)
            saved = larger(saved, layer->type->saved_size(layer, c->batch));
        if (layer->type->scratch_size)
            scratch = larger(scratch, layer->type->scratch_size(layer, c->batch));
    }
    c->layer_saved = nimbus_alloc(saved, 1);
    c->layer_scratch = nimbus_alloc(scratch, 1);
    return c->layer_saved && c->layer_scratch;
}

static nimbus_status prepare(checking *c, const nimbus_net *teacher, const nimbus_net *converted,
                             nimbus_error *error)
{
    nimbus_status status;
    size_t widest = 1;

    c->batch = batch_of(converted);
    if ((teacher && (status = nimbus_net_copy(teacher, &c->teacher, error))) ||
        (status = nimbus_net_copy(converted, &c->soft, error)) ||
        (status = nimbus_net_copy(converted, &c->lookup, error)) ||
        (status = set_all(c->soft, NIMBUS_STATE_SOFT, error)) ||
        (status = set_all(c->lookup, NIMBUS_STATE_LOOKUP, error)) ||
        (status = nimbus_pass_new(c->soft, 0, c->batch, 0, &c->soft_pass, error)) ||
        (status = nimbus_pass_new(c->lookup, 0, c->batch, 0, &c->lookup_pass, error)))
        return status;
    c->dense = nimbus_alloc(c->lookup->n_layers, sizeof *c->dense);
    c->soft_layer = nimbus_alloc(c->lookup->n_layers, sizeof *c->soft_layer);
    bool ok = c->dense && c->soft_layer;
    for (size_t i = 0; ok && i < c->lookup->n_layers; i++) {
        size_t width = nimbus_shape_width(c->lookup->layers[i].shape);
        widest = width > widest ? width : widest;
        ok = !c->lookup->layers[i].lookup ||
             (distance_new(&c->dense[i], width) && distance_new(&c->soft_layer[i], width));
    }
    c->n_outputs = nimbus_shape_width(c->lookup->layers[c->lookup->n_layers - 1].shape);
    ok = ok && distance_new(&c->integer, c->n_outputs) && prepare_layers(c);
    c->y = nimbus_alloc(c->batch * widest, sizeof *c->y);
    c->scores = nimbus_alloc(c->batch * c->n_outputs, sizeof *c->scores);
    if (c->program)
        c->scratch = nimbus_alloc(nimbus_scratch_size(c->program, c->batch), 1);
    if (!ok || !c->y || !c->scores || (c->program && !c->scratch))
        return nimbus_fail(error, NIMBUS_ERR_MEMORY, "no memory to check");
    return NIMBUS_OK;
}

static void check_layers(checking *c, size_t n, nimbus_check_report *out)
{
    size_t listed = 0;
    for (size_t i = 0; i < c->lookup->n_layers; i++) {
        const nimbus_layer *layer = &c->lookup->layers[i];
        size_t width = nimbus_shape_width(layer->shape);
        if (!layer->lookup)
            continue;
        const real *lookup = c->lookup_pass->out[i], *soft = c->soft_pass->out[i];
        size_t differences = 0;
        for (size_t j = 0; j < n * width; j++)
            differences += memcmp(&lookup[j], &soft[j], sizeof *soft) != 0;
        if (listed < NIMBUS_REPORT_LAYERS) {
            out->layers[listed].soft_lookup_differences += differences;
            memcpy(out->layers[listed].name, layer->name, sizeof layer->name);
        }
        listed++;
        distance_add(&c->soft_layer[i], lookup, soft, n);
        if (c->teacher && c->teacher->layers[i].type == layer->type &&
            c->teacher->layers[i].state == NIMBUS_STATE_DENSE) {
            nimbus_io io = {.n_rows = n,
                            .n_inputs = 1,
                            .x = {c->lookup_pass->out[layer->input[0]]},
                            .y = c->y,
                            .saved = c->layer_saved,
                            .scratch = c->layer_scratch};
            layer->type->forward(&c->teacher->layers[i], &io);
            distance_add(&c->dense[i], c->y, lookup, n);
        }
    }
    out->n_layers = listed;
}

static nimbus_status check_program(checking *c, size_t first, size_t n, size_t *correct,
                                   nimbus_check_report *out)
{
    const nimbus_data_info *info = nimbus_data_get_info(c->data);
    size_t row = info->n_features * nimbus_dtype_size(info->dtype);
    const uint8_t *rows = (const uint8_t *)nimbus_data_features(c->data) + first * row;
    const int32_t *labels = nimbus_data_labels(c->data);
    const real *net = c->lookup_pass->out[c->lookup->n_layers - 1];
    float scale = nimbus_info(c->program)->output_scale;

    nimbus_status status = nimbus_run(c->program, rows, row, n, c->scores, c->scratch);
    for (size_t i = 0; i < n * c->n_outputs; i++)
        c->y[i] = (real)c->scores[i] * (real)scale;
    distance_add(&c->integer, net, c->y, n);
    for (size_t r = 0; r < n; r++) {
        size_t a = nimbus_argmax(net + r * c->n_outputs, c->n_outputs);
        size_t b = nimbus_argmax(c->y + r * c->n_outputs, c->n_outputs);
        out->decisions_changed += a != b;
        *correct += labels && (int32_t)b == labels[first + r];
    }
    return status;
}

static nimbus_status run_all(checking *c, nimbus_check_report *out, nimbus_error *error)
{
    const nimbus_data_info *info = nimbus_data_get_info(c->data);
    size_t correct = 0;
    for (size_t first = 0; first < info->n_rows; first += c->batch) {
        size_t n = info->n_rows - first < c->batch ? info->n_rows - first : c->batch;
        nimbus_rows_read(c->data, first, n, nimbus_pass_input(c->lookup_pass));
        nimbus_rows_read(c->data, first, n, nimbus_pass_input(c->soft_pass));
        nimbus_pass_forward(c->lookup_pass, n, c->lookup->n_layers - 1);
        nimbus_pass_forward(c->soft_pass, n, c->soft->n_layers - 1);
        check_layers(c, n, out);
        if (c->program && check_program(c, first, n, &correct, out))
            return nimbus_fail(error, NIMBUS_ERR_ARGUMENT, "the program did not run");
    }
    out->n_rows = info->n_rows;
    size_t listed = 0;
    for (size_t i = 0; i < c->lookup->n_layers && listed < NIMBUS_REPORT_LAYERS; i++)
        if (c->lookup->layers[i].lookup) {
            nimbus_check_layer *layer = &out->layers[listed++];
            layer->dense_to_lookup = c->teacher ? distance_normalised(&c->dense[i]) : NAN;
            layer->soft_to_lookup = distance_normalised(&c->soft_layer[i]);
        }
    out->integer_error = c->program ? distance_normalised(&c->integer) : NAN;
    out->integer_accuracy =
        c->program && info->n_classes ? (double)correct / (double)info->n_rows : NAN;
    return NIMBUS_OK;
}

static void checking_free(checking *c)
{
    nimbus_pass_free(c->soft_pass);
    nimbus_pass_free(c->lookup_pass);
    for (size_t i = 0; c->dense && c->soft_layer && i < c->lookup->n_layers; i++) {
        distance_free(&c->dense[i]);
        distance_free(&c->soft_layer[i]);
    }
    nimbus_free(c->dense);
    nimbus_free(c->soft_layer);
    distance_free(&c->integer);
    nimbus_free(c->y);
    nimbus_free(c->layer_saved);
    nimbus_free(c->layer_scratch);
    nimbus_free(c->scores);
    nimbus_free(c->scratch);
    nimbus_net_free(c->teacher);
    nimbus_net_free(c->soft);
    nimbus_net_free(c->lookup);
}

static nimbus_status check_fit(const nimbus_net *net, const nimbus_program *program,
                               const nimbus_net *teacher, const nimbus_data *data,
                               nimbus_error *error)
{
    const nimbus_data_info *info = nimbus_data_get_info(data);
    size_t d = nimbus_shape_width(net->layers[0].shape);
    size_t m = nimbus_shape_width(net->layers[net->n_layers - 1].shape);
    if (info->n_features != d || info->dtype != net->input_dtype)
        return nimbus_fail(error, NIMBUS_ERR_MISMATCH,
                           "the net reads rows of %zu %s values, the data has %zu %s features", d,
                           net->input_dtype == NIMBUS_U8 ? "u8" : "f32", info->n_features,
                           info->dtype == NIMBUS_U8 ? "u8" : "f32");
    if (program && (nimbus_info(program)->n_inputs != d || nimbus_info(program)->n_outputs != m ||
                    nimbus_info(program)->input_dtype != net->input_dtype))
        return nimbus_fail(error, NIMBUS_ERR_MISMATCH,
                           "the program computes %zu outputs of %zu inputs, the net %zu of %zu",
                           nimbus_info(program)->n_outputs, nimbus_info(program)->n_inputs, m, d);
    if (teacher && teacher->n_layers != net->n_layers)
        return nimbus_fail(error, NIMBUS_ERR_MISMATCH,
                           "the float net has %zu layers, the converted one %zu", teacher->n_layers,
                           net->n_layers);
    for (size_t i = 0; teacher && i < net->n_layers; i++)
        if (teacher->layers[i].type != net->layers[i].type ||
            nimbus_shape_width(teacher->layers[i].shape) !=
                nimbus_shape_width(net->layers[i].shape))
            return nimbus_fail(error, NIMBUS_ERR_MISMATCH,
                               "layer %zu is %s of width %zu in the float net, %s of width %zu "
                               "in the converted one",
                               i, teacher->layers[i].type->name,
                               nimbus_shape_width(teacher->layers[i].shape),
                               net->layers[i].type->name, nimbus_shape_width(net->layers[i].shape));
    return NIMBUS_OK;
}

nimbus_status nimbus_check(const nimbus_net *teacher, const nimbus_net *converted,
                           const nimbus_program *program, const nimbus_data *data,
                           nimbus_check_report *out, nimbus_error *error)
{
    checking c = {.program = program, .data = data};
    nimbus_evaluation evaluation = {0};
    nimbus_status status = check_fit(converted, program, teacher, data, error);

    *out = (nimbus_check_report){.float_accuracy = NAN};
    if (status)
        return status;
    if ((status = prepare(&c, teacher, converted, error)) || (status = run_all(&c, out, error)))
        goto done;
    if (teacher) {
        if ((status = nimbus_evaluate(teacher, data, 0, &evaluation, error)))
            goto done;
        out->float_accuracy = evaluation.accuracy;
    }
    if ((status = nimbus_evaluate(converted, data, 0, &evaluation, error)))
        goto done;
    out->lookup_accuracy = evaluation.accuracy;
done:
    checking_free(&c);
    return status;
}
