/* stand_in.c - exact products in the place of lookup layers
 *
 * Where a product is no slower than trees and tables, or the accuracy is worth it, a layer of a
 * converted net becomes a matrix product again. What surrounds it was tuned together with its
 * tables, so the float net's numbers alone do not fit in. Each stand-in therefore gets the outputs
 * its reader was made for: those of the converted layer where the reader is a lookup layer, those
 * of the float layer (with the float net's batch norm) where it is a stand-in too or nothing
 * follows. Over calibration rows, with X the layer's centred inputs in the mixed net (N x D) and R
 * what is left of the target (N x M),
 *     W = W0 + ((X^T X + lambda I)^-1 X^T R)^T,        lambda = 0.1 mean diag X^T X,
 * and the bias takes the mean. Behind stand-ins only and with the float layer as target R is zero:
 * a net of nothing but stand-ins is the float net itself.
 *
 * Of nets with image layers stand-ins keep their weights, and their biases take the means that the
 * converted layer had. All of them together, with a float net, are that net with its batch norms.
 *
 * Held-out rows of MNIST (`nimbus eval --split valid`), 784-512-512-10 at V = 16, by which layers
 * are exact: none 97.0 %; third 97.0; first and third 97.1; second 97.5; all 99.3. With the float
 * net's numbers unfitted the third alone gives 95.1 and the first and third 92.8; with fitted
 * biases 95.9 and 95.1. */
#include <lapacke.h>
#include <math.h>
#include <string.h>

#include "compile/compile.h"

enum { BATCH = 256, MAX_ROWS = 4096, MAX_DENSE = 4096, IMAGE_ROWS = 256, IMAGE_BATCH = 16 };
#define RIDGE 0.1

typedef struct stand_ins {
    nimbus_net *net;                 /* being changed */
    nimbus_net *converted, *teacher; /* copies: as it was, the float net or NULL */
    const nimbus_compile_options *options;
    bool *exact;  /* [n_layers] */
    bool on_rows; /* a chain of linear layers */
} stand_ins;

static bool is_lookup(const nimbus_layer *layer)
{
    return layer->lookup &&
           (layer->state == NIMBUS_STATE_SOFT || layer->state == NIMBUS_STATE_LOOKUP);
}

/* ---- which layers ---------------------------------------------------------------------------- */

/* Marks the lookup layers that a list of names means; layers that are exact anyway may be named. */
static nimbus_status mark(stand_ins *s, const char *list, bool *any, nimbus_error *error)
{
    const nimbus_net *net = s->net;
    bool all = strcmp(list, "*") == 0;
    *any = false;
    for (size_t i = 0; i < net->n_layers; i++)
        *any |= s->exact[i] = all && is_lookup(&net->layers[i]);
    for (const char *name = list; !all && *name;) {
        size_t n = strcspn(name, ","), i = 0;
        while (i < net->n_layers &&
               (!nimbus_layer_is_product(&net->layers[i]) || strlen(net->layers[i].name) != n ||
                memcmp(net->layers[i].name, name, n) != 0))
            i++;
        if (i == net->n_layers)
            return nimbus_fail(error, NIMBUS_ERR_ARGUMENT,
                               "\"%.*s\" in the list of exact layers is no linear layer or "
                               "convolution of the net; expected their names with commas between, "
                               "or *",
                               (int)(n < 100 ? n : 100), name);
        *any |= s->exact[i] |= is_lookup(&net->layers[i]);
        name += n + (name[n] == ',');
    }
    return NIMBUS_OK;
}

static bool same_values(nimbus_layer *a, nimbus_layer *b, const char *name)
{
    const nimbus_param *p = nimbus_layer_param(a, name), *q = nimbus_layer_param(b, name);
    return p && q && p->n == q->n && memcmp(p->value, q->value, p->n * sizeof *p->value) == 0;
}

/* Batch norms that the conversion put behind convolutions stand in the float net too. */
static nimbus_status add_norms(const stand_ins *s, nimbus_error *error)
{
    nimbus_status status = NIMBUS_OK;
    for (size_t i = 1; i < s->net->n_layers && i <= s->teacher->n_layers && status == NIMBUS_OK;
         i++) {
        const nimbus_layer *norm = &s->net->layers[i], *before = norm - 1;
        const nimbus_layer *of_float = &s->teacher->layers[i - 1];
        bool has_it = i < s->teacher->n_layers && of_float[1].type == &nimbus_layer_batch_norm;
        if (norm->type == &nimbus_layer_batch_norm && norm->input[0] == i - 1 && !has_it &&
            before->type == &nimbus_layer_conv2d && before->lookup &&
            of_float->type == before->type && strcmp(of_float->name, before->name) == 0)
            status = nimbus_net_insert_norm(s->teacher, i - 1, norm->name, error);
    }
    return status;
}

/* The float net must be the same chain, layer by layer, reading the same rows. */
static nimbus_status check_teacher(const stand_ins *s, nimbus_error *error)
{
    const nimbus_net *net = s->net, *teacher = s->teacher;
    if (net->n_layers != teacher->n_layers || net->input_dtype != teacher->input_dtype)
        return nimbus_fail(error, NIMBUS_ERR_MISMATCH,
                           "the float net has %zu layers and %s inputs, expected %zu and %s as in "
                           "the net that was converted from it",
                           teacher->n_layers, teacher->input_dtype == NIMBUS_U8 ? "u8" : "f32",
                           net->n_layers, net->input_dtype == NIMBUS_U8 ? "u8" : "f32");
    for (size_t i = 0; i < net->n_layers; i++) {
        nimbus_layer *a = &net->layers[i], *b = &teacher->layers[i];
        size_t width = nimbus_shape_width(a->shape), found = nimbus_shape_width(b->shape);
        if (a->type != b->type || strcmp(a->name, b->name) != 0 || width != found ||
            a->shape.channels != b->shape.channels)
            return nimbus_fail(error, NIMBUS_ERR_MISMATCH,
                               "layer %zu of the float net is %s (%s) of %zu outputs, expected %s "
                               "(%s) of %zu",
                               i, b->name, b->type->name, found, a->name, a->type->name, width);
        if (s->exact[i] && (is_lookup(b) || !nimbus_layer_param(b, "weight")))
            return nimbus_fail(error, NIMBUS_ERR_MISMATCH,
                               "layer %s of the float net has trees and tables, expected weights",
                               b->name);
        const nimbus_param *kept = nimbus_layer_param(a, "weight");
        const nimbus_param *weight = nimbus_layer_param(b, "weight");
        if (s->exact[i] && kept && kept->n != weight->n)
            return nimbus_fail(error, NIMBUS_ERR_MISMATCH,
                               "layer %s of the float net has %zu weights, expected %zu", b->name,
                               weight->n, kept->n);
    }
    if (!same_values(&net->layers[0], &teacher->layers[0], "mean") ||
        !same_values(&net->layers[0], &teacher->layers[0], "inverse_std"))
        return nimbus_fail(error, NIMBUS_ERR_MISMATCH,
                           "the float net normalises its inputs differently: it was trained on "
                           "other rows");
    return NIMBUS_OK;
}

/* Index of the next linear layer, n_layers if there is none. */
static size_t reader_of(const nimbus_net *net, size_t i)
{
    while (++i < net->n_layers && net->layers[i].type != &nimbus_layer_linear)
        ;
    return i;
}

/* Whether stand-in i is to give the float layer's outputs rather than the converted layer's. */
static bool follows_teacher(const stand_ins *s, size_t i)
{
    size_t reader = reader_of(s->net, i);
    return s->teacher && (reader == s->net->n_layers || s->exact[reader]);
}

static bool needs_fit(const stand_ins *s, size_t i)
{
    for (size_t j = 0; j < i; j++)
        if (s->net->layers[j].type == &nimbus_layer_linear && !s->exact[j])
            return true;
    return !follows_teacher(s, i);
}

/* ---- numbers to begin with ------------------------------------------------------------------- */

static void take(nimbus_layer *to, nimbus_layer *from, const char *name)
{
    nimbus_param *a = nimbus_layer_param(to, name);
    const nimbus_param *b = nimbus_layer_param(from, name);
    if (a && b)
        memcpy(a->value, b->value, a->n * sizeof *a->value);
}

static void take_batch_norm(stand_ins *s, size_t i)
{
    static const char *const norm[] = {"mean", "variance", "scale", "shift"};
    for (size_t p = 0; p < sizeof norm / sizeof *norm; p++)
        take(&s->net->layers[i], &s->teacher->layers[i], norm[p]);
}

static nimbus_status begin_layer(stand_ins *s, size_t i, nimbus_error *error)
{
    nimbus_layer *layer = &s->net->layers[i];
    nimbus_status status = NIMBUS_OK;

    if (!nimbus_layer_param(layer, "weight")) {
        size_t shape[2] = {nimbus_shape_width(layer->shape), nimbus_shape_width(layer->in_shape)};
        if (!s->teacher)
            return nimbus_fail(error, NIMBUS_ERR_STATE,
                               "layer %s has been a lookup layer from the beginning: it has no "
                               "weights to be exact with, and no float net was given",
                               layer->name);
        status = nimbus_layer_add_param(layer, "weight", 2, shape, false, true, error);
    }
    if (status || (status = nimbus_net_set_state(s->net, i, NIMBUS_STATE_DENSE, error)) ||
        !s->teacher)
        return status;
    take(layer, &s->teacher->layers[i], "weight");
    take(layer, &s->teacher->layers[i], "bias");
    for (size_t j = i + 1; s->on_rows && follows_teacher(s, i) && j < reader_of(s->net, i); j++)
        take_batch_norm(s, j);
    return status;
}

/* Whether nothing of the converted net is left. */
static bool is_teacher(const stand_ins *s)
{
    for (size_t i = 0; i < s->net->n_layers; i++)
        if (is_lookup(&s->net->layers[i]))
            return false;
    return s->teacher;
}

static void take_batch_norms(stand_ins *s)
{
    for (size_t i = 0; i < s->net->n_layers; i++)
        if (s->net->layers[i].type == &nimbus_layer_batch_norm)
            take_batch_norm(s, i);
}

/* ---- the fit --------------------------------------------------------------------------------- */

typedef struct fit {
    size_t n, d, m;
    real *x, *rest;       /* [N][D] inputs, [N][M] target minus output; centred by solve */
    real *gram, *moments; /* [D][D] and [D][M], only if all of it is to be solved */
    double *mean;         /* [D], then [M] */
} fit;

static nimbus_status fit_new(fit *f, const nimbus_layer *layer, size_t n_rows, nimbus_error *error)
{
    *f = (fit){.n = n_rows < MAX_ROWS ? n_rows : MAX_ROWS,
               .d = nimbus_shape_width(layer->in_shape),
               .m = nimbus_shape_width(layer->shape)};
    bool dense = f->d <= MAX_DENSE, ok = true;
    const struct {
        real **array;
        size_t rows, columns;
    } arrays[] = {{&f->x, f->n, f->d},
                  {&f->rest, f->n, f->m},
                  {&f->gram, dense ? f->d : 0, f->d},
                  {&f->moments, dense ? f->d : 0, f->m}};
    for (size_t i = 0; i < sizeof arrays / sizeof *arrays; i++) {
        size_t n;
        ok = ok && !nimbus_mul_overflows(arrays[i].rows, arrays[i].columns, &n) &&
             (*arrays[i].array = nimbus_alloc(n, sizeof(real)));
    }
    f->mean = nimbus_alloc(f->d + f->m, sizeof *f->mean);
    if (!ok || !f->mean)
        return nimbus_fail(error, NIMBUS_ERR_MEMORY, "no memory to fit layer %s on %zu rows",
                           layer->name, f->n);
    return NIMBUS_OK;
}

static void fit_free(fit *f)
{
    nimbus_free(f->x);
    nimbus_free(f->rest);
    nimbus_free(f->gram);
    nimbus_free(f->moments);
    nimbus_free(f->mean);
}

/* Inputs of layer i in the mixed net, and how far its outputs are from the target net's. */
static nimbus_status fit_rows(const stand_ins *s, size_t i, nimbus_net *target, fit *f,
                              nimbus_error *error)
{
    const nimbus_data *data = s->options->calibration;
    nimbus_pass *mixed = NULL, *goal = NULL;
    unsigned n_threads = s->options->n_threads;
    nimbus_status status;

    if ((status = nimbus_pass_new(s->net, 0, BATCH, n_threads, &mixed, error)) ||
        (status = nimbus_pass_new(target, 0, BATCH, n_threads, &goal, error)))
        goto done;
    for (size_t first = 0; first < f->n; first += BATCH) {
        size_t n = f->n - first < BATCH ? f->n - first : BATCH;
        nimbus_rows_read(data, first, n, nimbus_pass_input(mixed));
        nimbus_rows_read(data, first, n, nimbus_pass_input(goal));
        nimbus_pass_forward(mixed, n, i);
        nimbus_pass_forward(goal, n, i);
        memcpy(f->x + first * f->d, mixed->out[i - 1], n * f->d * sizeof(real));
        for (size_t j = 0; j < n * f->m; j++)
            f->rest[first * f->m + j] = goal->out[i][j] - mixed->out[i][j];
    }
done:
    nimbus_pass_free(mixed);
    nimbus_pass_free(goal);
    return status;
}

static void centre(real *x, size_t n, size_t width, double *mean)
{
    for (size_t i = 0; i < n * width; i++)
        mean[i % width] += (double)x[i] / (double)n;
    for (size_t i = 0; i < n * width; i++)
        x[i] -= (real)mean[i % width];
}

/* Adds the solution to the layer. A layer too wide for dense equations gets its bias only. */
static nimbus_status fit_solve(fit *f, nimbus_layer *layer, unsigned n_threads, nimbus_error *error)
{
    size_t d = f->d, m = f->m;
    real *weight = nimbus_layer_param(layer, "weight")->value;
    real *bias = nimbus_layer_param(layer, "bias")->value;
    double diagonal = 0;

    centre(f->x, f->n, d, f->mean);
    centre(f->rest, f->n, m, f->mean + d);
    for (size_t j = 0; j < m; j++)
        bias[j] += (real)f->mean[d + j];
    if (d > MAX_DENSE)
        return NIMBUS_OK;
    nimbus_gemm(true, false, d, d, f->n, 1, f->x, d, f->x, d, 0, f->gram, d, n_threads);
    nimbus_gemm(true, false, d, m, f->n, 1, f->x, d, f->rest, m, 0, f->moments, m, n_threads);
    for (size_t j = 0; j < d; j++)
        diagonal += (double)f->gram[j * d + j] / (double)d;
    if (!(diagonal > 0))
        return NIMBUS_OK; /* the inputs never change */
    for (size_t j = 0; j < d; j++)
        f->gram[j * d + j] += (real)(RIDGE * diagonal);
    lapack_int info = LAPACKE_sposv(LAPACK_ROW_MAJOR, 'L', (lapack_int)d, (lapack_int)m, f->gram,
                                    (lapack_int)d, f->moments, (lapack_int)m);
    if (info != 0)
        return nimbus_fail(error, NIMBUS_ERR_VALUE,
                           "layer %s: its inputs over the calibration rows cannot be fitted to "
                           "(equation %d of %zu is not positive definite)",
                           layer->name, (int)info, d);
    for (size_t j = 0; j < m; j++) {
        double at_mean = 0;
        for (size_t i = 0; i < d; i++) {
            weight[j * d + i] += f->moments[i * m + j];
            at_mean += (double)f->moments[i * m + j] * f->mean[i];
        }
        bias[j] -= (real)at_mean;
    }
    return NIMBUS_OK;
}

static nimbus_status fit_layer(stand_ins *s, size_t i, nimbus_error *error)
{
    nimbus_layer *layer = &s->net->layers[i];
    nimbus_net *target = follows_teacher(s, i) ? s->teacher : s->converted;
    nimbus_status status;
    fit f = {0};

    if (!s->options->calibration)
        return nimbus_fail(error, NIMBUS_ERR_ARGUMENT,
                           "layer %s among lookup layers is made exact by fitting it to data: give "
                           "data to fit it on",
                           layer->name);
    if ((status = nimbus_calibration_check(s->net, s->options->calibration, error)) ||
        (status =
             fit_new(&f, layer, nimbus_data_get_info(s->options->calibration)->n_rows, error)) ||
        (status = fit_rows(s, i, target, &f, error)))
        goto done;
    status = fit_solve(&f, layer, s->options->n_threads, error);
done:
    fit_free(&f);
    return status;
}

/* The mean outputs of layer i in the mixed net become those of the converted layer. */
static nimbus_status fit_means(stand_ins *s, size_t i, const nimbus_measure *rows,
                               const nimbus_ranges *converted, nimbus_error *error)
{
    nimbus_layer *layer = &s->net->layers[i];
    real *bias = nimbus_layer_param(layer, "bias")->value;
    nimbus_ranges mixed;
    nimbus_status status = nimbus_ranges_measure(s->net, rows, &mixed, error);
    for (size_t m = 0; status == NIMBUS_OK && m < layer->shape.channels; m++)
        bias[m] +=
            (real)(converted->means[converted->first[i] + m] - mixed.means[mixed.first[i] + m]);
    if (status == NIMBUS_OK)
        nimbus_ranges_free(&mixed);
    return status;
}

static nimbus_status fit_images(stand_ins *s, nimbus_error *error)
{
    nimbus_measure rows = {s->options->calibration, IMAGE_ROWS, IMAGE_BATCH, s->options->n_threads};
    nimbus_ranges converted;
    if (!rows.data)
        return NIMBUS_OK; /* which compiling asks for later */
    nimbus_status status = nimbus_ranges_measure(s->converted, &rows, &converted, error);
    if (status)
        return status;
    for (size_t i = 0; i < s->net->n_layers && status == NIMBUS_OK; i++)
        if (s->exact[i])
            status = fit_means(s, i, &rows, &converted, error);
    nimbus_ranges_free(&converted);
    return status;
}

static nimbus_status fit_rows_net(stand_ins *s, nimbus_error *error)
{
    nimbus_status status = NIMBUS_OK;
    for (size_t i = 0; i < s->net->n_layers && status == NIMBUS_OK; i++)
        if (s->exact[i] && needs_fit(s, i))
            status = fit_layer(s, i, error);
    return status;
}

nimbus_status nimbus_stand_ins_make(nimbus_net *net, const nimbus_compile_options *options,
                                    bool fitted, nimbus_error *error)
{
    stand_ins s = {.net = net, .options = options, .on_rows = nimbus_net_is_on_rows(net)};
    nimbus_status status = NIMBUS_OK;
    bool any;

    if (!options->exact)
        return NIMBUS_OK;
    nimbus_blas_alone();
    s.exact = nimbus_alloc(net->n_layers, sizeof *s.exact);
    if (!s.exact)
        return nimbus_fail(error, NIMBUS_ERR_MEMORY, "no memory to list %zu layers", net->n_layers);
    if ((status = mark(&s, options->exact, &any, error)) || !any ||
        (options->float_net &&
         ((status = nimbus_net_copy(options->float_net, &s.teacher, error)) ||
          (status = add_norms(&s, error)) || (status = check_teacher(&s, error)))) ||
        (fitted && (status = nimbus_net_copy(net, &s.converted, error))))
        goto done;
    for (size_t i = 0; i < net->n_layers && status == NIMBUS_OK; i++)
        if (s.exact[i])
            status = begin_layer(&s, i, error);
    if (status || !fitted)
        goto done;
    if (s.on_rows)
        status = fit_rows_net(&s, error);
    else if (is_teacher(&s))
        take_batch_norms(&s);
    else
        status = fit_images(&s, error);
done:
    nimbus_net_free(s.converted);
    nimbus_net_free(s.teacher);
    nimbus_free(s.exact);
    return status;
}
