/* compile_maker.h - random nets that a program can match to the last bit
 *
 * All their numbers are small multiples of powers of two, so that float arithmetic in the net is
 * exact: rows lie exactly on thresholds, ReLU is full of ties, scales are negative and zero. */
#ifndef COMPILE_MAKER_H
#define COMPILE_MAKER_H

#include "base/program_format.h"
#include "convert_maker.h"

/* ---- random nets ----------------------------------------------------------------------------- */

enum { INPUTS = 7, WIDTH = 6, OUTPUTS = 4, ROWS = 150 };

typedef struct recipe {
    nimbus_dtype dtype;
    nimbus_tree_kind kind;
    unsigned bits;
    const nimbus_layer_type *activation; /* NULL: none */
    bool norm_before, norm_after;
    size_t levels, n_lookups;
    uint64_t seed;
} recipe;

#define UNIT 0.125

static inline size_t below(const recipe *r, uint64_t stream, size_t counter, size_t n)
{
    return nimbus_random_below(r->seed, stream, counter, n);
}

static inline nimbus_data *random_rows(const recipe *r)
{
    nimbus_data_info info = {.n_rows = ROWS,
                             .n_features = INPUTS,
                             .dtype = r->dtype,
                             .channels = INPUTS,
                             .height = 1,
                             .width = 1,
                             .n_classes = OUTPUTS};
    uint8_t bytes[ROWS * INPUTS];
    float floats[ROWS * INPUTS];
    int32_t labels[ROWS];
    nimbus_data *data;
    for (size_t i = 0; i < (size_t)ROWS * INPUTS; i++) {
        bytes[i] = (uint8_t)(below(r, 1, i, 3) ? below(r, 2, i, 256) : below(r, 3, i, 2) * 255);
        floats[i] = (float)uniform(r->seed, 4, i, -3, 3) * (below(r, 5, i, 9) ? 1 : 1e20f);
        labels[i / INPUTS] = (int32_t)below(r, 6, i, OUTPUTS);
    }
    CHECK(nimbus_data_from_arrays(&info, r->dtype == NIMBUS_U8 ? (void *)bytes : floats, labels,
                                  NULL, &data, &error));
    return data;
}

static inline nimbus_pass *run_so_far(nimbus_net *net, const nimbus_data *data)
{
    nimbus_pass *pass;
    CHECK(nimbus_pass_new(net, 0, ROWS, 1, &pass, &error));
    real *x = nimbus_pass_input(pass);
    const void *features = nimbus_data_features(data);
    for (size_t i = 0; i < ROWS * nimbus_shape_width(net->layers[0].shape); i++)
        x[i] = nimbus_data_get_info(data)->dtype == NIMBUS_U8 ? (real)((const uint8_t *)features)[i]
                                                              : (real)((const float *)features)[i];
    nimbus_pass_forward(pass, ROWS, net->n_layers - 1);
    return pass;
}

static inline int compare_reals(const void *a, const void *b)
{
    real x = *(const real *)a, y = *(const real *)b;
    return (x > y) - (x < y);
}

static inline real range_of(const real *values, size_t n)
{
    real low = values[0], high = values[0];
    for (size_t i = 0; i < n; i++) {
        low = values[i] < low ? values[i] : low;
        high = values[i] > high ? values[i] : high;
    }
    return high - low;
}

/* A threshold for a column of values: one of them, or between two, or beyond all. With a gap given
 * only between two values so far apart, or beyond all. */
static inline real pick_threshold(const recipe *r, const real *values, size_t width, size_t column,
                                  real gap, uint64_t stream, size_t counter)
{
    real sorted[ROWS];
    for (size_t n = 0; n < ROWS; n++)
        sorted[n] = values[n * width + column];
    qsort(sorted, ROWS, sizeof *sorted, compare_reals);
    size_t at = below(r, stream, 2 * counter, ROWS);
    real value = sorted[at], outside = counter % 2 ? sorted[0] - 2 : sorted[ROWS - 1] + 2;
    switch (gap > 0 ? 5 : below(r, stream, 2 * counter + 1, 6)) {
    case 0:
        return outside;
    case 1:
        return 0;
    case 2:
    case 5:
        while (at + 1 < ROWS && !(sorted[at + 1] - value > gap)) {
            at++;
            value = gap > 0 ? sorted[at] : value;
        }
        return at + 1 < ROWS ? (value + sorted[at + 1]) / 2 : outside;
    default:
        return value;
    }
}

static inline size_t nodes_of(size_t levels)
{
    return ((size_t)1 << levels) - 1;
}

/* Fills trees and tables of the last layer; values are what it reads. */
static inline void fill_trees(nimbus_net *net, const recipe *r, const real *values, real gap)
{
    nimbus_layer *layer = &net->layers[net->n_layers - 1];
    size_t d = width_in(layer), m = width_out(layer), nodes = nodes_of(r->levels);
    size_t n_codebooks = 1 + below(r, 20, net->n_layers, 4), limit = r->bits <= 4 ? 7 : 9;
    uint64_t stream = 1000 * net->n_layers;
    CHECK(nimbus_lookup_attach(layer, n_codebooks, r->levels, r->kind, &error));
    real *columns = values_of(layer, "columns"), *thresholds = values_of(layer, "thresholds");
    for (size_t c = 0; c < n_codebooks; c++)
        for (size_t h = 0; h < r->levels; h++)
            for (size_t b = 0; b < (size_t)1 << h; b++) {
                size_t first = c * nodes + nodes_of(h), i = first + b;
                bool own_column = b == 0 || r->kind == NIMBUS_TREE_PER_NODE;
                bool own_threshold = b == 0 || r->kind != NIMBUS_TREE_FERN;
                columns[i] = own_column ? (real)below(r, stream + 1, i, d) : columns[first];
                thresholds[i] = own_threshold ? pick_threshold(r, values, d, (size_t)columns[i],
                                                               gap, stream + 2, i)
                                              : thresholds[first];
                values_of(layer, "margin")[i] = 1;
            }
    for (size_t i = 0; i < n_codebooks * (nodes + 1) * m; i++)
        values_of(layer, "tables")[i] =
            (real)(UNIT * ((double)below(r, stream + 3, i, 2 * limit + 1) - (double)limit));
    for (size_t j = 0; j < m; j++) {
        bool last = m == OUTPUTS;
        values_of(layer, "scales")[j] = (real)UNIT;
        values_of(layer, "bias")[j] =
            (real)(UNIT / (last ? 1 : 2) * ((double)below(r, stream + 4, j, 9) - 4));
    }
    layer->lookup->bits = r->bits;
    CHECK(nimbus_lookup_round(layer, 1, &error));
    CHECK(nimbus_net_set_state(net, net->n_layers - 1, NIMBUS_STATE_LOOKUP, &error));
}

/* 1 / sqrt(variance + epsilon) is 1 or 1/2; scales are 1, -1, 2, -1/2 and 0. */
static inline void add_norm(nimbus_net *net, const recipe *r)
{
    static const double scales[] = {1, -1, 2, -0.5, 0};
    size_t l = add(net, (nimbus_layer){.type = &nimbus_layer_batch_norm, .number = 0.25}, 0);
    nimbus_layer *layer = &net->layers[l];
    for (size_t j = 0; j < width_out(layer); j++) {
        values_of(layer, "variance")[j] = (real)(below(r, 40 + l, j, 2) ? 0.75 : 3.75);
        values_of(layer, "scale")[j] = (real)scales[below(r, 60 + l, j, 5)];
        values_of(layer, "mean")[j] = (real)(UNIT * ((double)below(r, 80 + l, j, 9) - 4));
        values_of(layer, "shift")[j] = (real)(UNIT / 2 * ((double)below(r, 100 + l, j, 9) - 4));
    }
}

static inline real gap_of(const recipe *r, const nimbus_pass *pass)
{
    size_t last = pass->net->n_layers - 1;
    if (r->activation == &nimbus_layer_tanh || r->activation == &nimbus_layer_sigmoid)
        return (real)2e-4; /* float and double differ by less */
    if (r->activation != &nimbus_layer_gelu)
        return 0;
    /* several times what int8 steps before and after the function can do */
    size_t n = ROWS * nimbus_shape_width(pass->net->layers[last].shape);
    real before = range_of(pass->out[last - 1 - r->norm_after], n);
    real after = range_of(pass->out[last], n);
    return (real)0.03 * (after > before ? after : before);
}

static inline nimbus_net *random_net(const recipe *r, const nimbus_data *data)
{
    nimbus_net *net = nimbus_net_new();
    assert_non_null(net);
    net->input_dtype = r->dtype;
    add(net, (nimbus_layer){.type = &nimbus_layer_input, .in_shape = {INPUTS, 1, 1}}, 0);
    for (size_t d = 0; d < INPUTS; d++) {
        bool u8 = r->dtype == NIMBUS_U8;
        values_of(&net->layers[0], "mean")[d] = (real)uniform(r->seed, 7, d, -1, u8 ? 255 : 1);
        values_of(&net->layers[0], "inverse_std")[d] =
            (real)uniform(r->seed, 8, d, 0.001, u8 ? 0.05 : 3);
    }
    for (size_t i = 0; i < r->n_lookups; i++) {
        bool last = i + 1 == r->n_lookups;
        nimbus_pass *pass = run_so_far(net, data);
        real gap = i > 0 ? gap_of(r, pass) : 0, values[ROWS * INPUTS];
        size_t before = net->n_layers - 1, d = nimbus_shape_width(net->layers[before].shape);
        memcpy(values, pass->out[before], ROWS * d * sizeof *values);
        nimbus_pass_free(pass);
        add(net,
            (nimbus_layer){
                .type = &nimbus_layer_linear, .units = last ? OUTPUTS : WIDTH, .bare = true},
            0);
        fill_trees(net, r, values, gap);
        if (last)
            break;
        if (r->norm_before)
            add_norm(net, r);
        if (r->activation)
            add(net, (nimbus_layer){.type = r->activation}, 0);
        if (r->norm_after)
            add_norm(net, r);
        if (r->seed % 3 == 0)
            add(net, (nimbus_layer){.type = &nimbus_layer_dropout, .number = 0.5}, 0);
    }
    return net;
}

/* Three lookup layers, nothing between them. */
static inline recipe plain_recipe(uint64_t seed)
{
    return (recipe){.dtype = NIMBUS_U8,
                    .kind = NIMBUS_TREE_SHARED,
                    .bits = 8,
                    .levels = 2,
                    .n_lookups = 3,
                    .seed = seed};
}

/* ---- programs as bytes ------------------------------------------------------------------------
 */

/* Word `index` of the header of a step. */
static inline uint32_t step_word(const nimbus_buffer *program, size_t step, size_t index)
{
    nimbus_section *sections;
    size_t n;
    CHECK(nimbus_container_read(program->bytes, program->size, NIMBUS_PROGRAM_MAGIC,
                                NIMBUS_PROGRAM_MAJOR, NIMBUS_PROGRAM_MINOR, &sections, &n, &error));
    assert_true(step + 1 < n);
    nimbus_reader reader = nimbus_reader_of(sections[step + 1].bytes, sections[step + 1].size);
    (void)nimbus_read_bytes(&reader, 4 * index);
    uint32_t word = nimbus_read_u32le(&reader);
    nimbus_free(sections);
    return word;
}

static inline uint32_t shift_of(const nimbus_net *net, size_t step)
{
    nimbus_buffer bytes = compiled(net, NULL, 1);
    uint32_t shift = step_word(&bytes, step, 8);
    nimbus_buffer_free(&bytes);
    return shift;
}

static inline nimbus_step_info step_of(const nimbus_program *program, size_t i)
{
    nimbus_step_info info;
    assert_int_equal(nimbus_step(program, i, &info), NIMBUS_OK);
    return info;
}

/* Every output of every row, to the last bit. */
static inline void assert_same_outputs(const nimbus_net *net, const nimbus_data *data,
                                       const char *what)
{
    nimbus_program *program = program_of(net, data);
    float *a, *b;
    size_t m = nimbus_info(program)->n_outputs;
    run_both(net, program, data, &a, &b);
    for (size_t i = 0; i < nimbus_data_get_info(data)->n_rows * m; i++) {
        if (a[i] != b[i])
            print_error("%s: row %zu, output %zu: net %g, program %g\n", what, i / m, i % m,
                        (double)a[i], (double)b[i]);
        assert_true(a[i] == b[i]);
    }
    nimbus_free(a);
    nimbus_free(b);
    nimbus_close(program);
}

/* ---- failing allocations --------------------------------------------------------------------- */

/* Compiles with the first, second, ... allocation failing until all succeed; how many there are. */
static inline long compile_failing_allocations(const nimbus_net *net,
                                               const nimbus_compile_options *options)
{
    nimbus_status status = NIMBUS_ERR_MEMORY;
    nimbus_error why;
    long k = 0;
    while (status != NIMBUS_OK) {
        void *bytes;
        size_t n;
        nimbus_fail_alloc_after = ++k;
        status = nimbus_compile(net, options, &bytes, &n, &why);
        bool failed = nimbus_fail_alloc_after == 0;
        nimbus_fail_alloc_after = 0;
        assert_int_equal(status, failed ? NIMBUS_ERR_MEMORY : NIMBUS_OK);
        assert_int_equal(bytes != NULL, status == NIMBUS_OK);
        nimbus_compile_free(bytes);
    }
    return k;
}

#endif
