/* convert_maker.h - layers, nets and programs for the tests of conversion, compiling, checking */
#ifndef CONVERT_MAKER_H
#define CONVERT_MAKER_H

#include "convert/internal.h"
#include "train_problem.h"

/* ---- a layer alone ------------------------------------------------------------------------- */

static inline double uniform(uint64_t seed, uint64_t stream, size_t counter, double low,
                             double high)
{
    return low + (high - low) * nimbus_random_uniform(seed, stream, counter);
}

static inline real *normal_rows(size_t n, size_t d, uint64_t seed)
{
    real *x = nimbus_alloc(n * d, sizeof *x);
    assert_non_null(x);
    for (size_t i = 0; i < n * d; i++)
        x[i] = (real)nimbus_random_normal(seed, 50, i);
    return x;
}

/* A net of an input of this shape and one linear layer of m outputs. */
static inline nimbus_net *one_layer(nimbus_shape shape, size_t m)
{
    nimbus_net *net = nimbus_net_new();
    assert_non_null(net);
    add(net, (nimbus_layer){.type = &nimbus_layer_input, .in_shape = shape}, 0);
    add(net, (nimbus_layer){.type = &nimbus_layer_linear, .units = m}, 3);
    return net;
}

static inline real *values_of(const nimbus_layer *layer, const char *name)
{
    nimbus_param *p = nimbus_layer_param((nimbus_layer *)layer, name);
    assert_non_null(p);
    return p->value;
}

static inline size_t width_in(const nimbus_layer *layer)
{
    return nimbus_shape_width(layer->in_shape);
}

static inline size_t width_out(const nimbus_layer *layer)
{
    return nimbus_shape_width(layer->shape);
}

/* How many different columns n nodes compare. */
static inline size_t different_columns(const real *columns, size_t n)
{
    size_t different = 0;
    for (size_t i = 0; i < n; i++) {
        size_t j = 0;
        while (columns[j] != columns[i])
            j++;
        different += j == i;
    }
    return different;
}

/* Attaches so many trees for each of the groups to the layer, and learns them. */
static inline nimbus_status learn_job(nimbus_layer *layer, const nimbus_tree_job *job, size_t trees,
                                      size_t levels, nimbus_tree_kind kind)
{
    CHECK(nimbus_lookup_attach(layer, job->groups->n_codebooks * trees, levels, kind, &error));
    return nimbus_trees_learn(layer, job, &error);
}

static inline nimbus_status learn(nimbus_layer *layer, const real *x, size_t n,
                                  const nimbus_groups *groups, size_t levels, nimbus_tree_kind kind,
                                  nimbus_split_method method, unsigned n_threads)
{
    nimbus_tree_job job = {.x = x,
                           .n_rows = n,
                           .n_columns = width_in(layer),
                           .weight = values_of(layer, "weight"),
                           .n_outputs = width_out(layer),
                           .method = method,
                           .groups = groups,
                           .n_threads = n_threads};
    return learn_job(layer, &job, 1, levels, kind);
}

static inline nimbus_groups groups_of(nimbus_shape shape, size_t v, nimbus_columns columns)
{
    nimbus_groups groups;
    CHECK(nimbus_groups_new(shape, v, columns, &groups, &error));
    return groups;
}

/* ---- trained nets and their conversion ------------------------------------------------------- */

/* A net of this spec, trained on the data for some epochs. */
static inline nimbus_net *float_net(const char *spec, const nimbus_data *data, size_t epochs)
{
    nimbus_net_options options = NIMBUS_NET_OPTIONS_INIT;
    nimbus_train_options train = small_options();
    nimbus_net *net;
    options.spec = spec;
    options.seed = 3;
    CHECK(nimbus_net_build(&options, data, &net, &error));
    train.epochs = epochs;
    if (epochs > 0)
        CHECK(nimbus_train(net, data, &train, NULL, &error));
    return net;
}

/* Small and quick: V = 6, H = 3, two epochs of fine-tuning. */
static inline nimbus_convert_options convert_options(void)
{
    nimbus_convert_options o = NIMBUS_CONVERT_OPTIONS_INIT;
    o.v = 6;
    o.levels = 3;
    o.epochs = 2;
    o.seed = 11;
    o.n_threads = 1;
    o.train.batch = 32;
    return o;
}

static inline nimbus_net *converted(const nimbus_net *teacher, const nimbus_data *data,
                                    const nimbus_convert_options *o)
{
    nimbus_net *net;
    CHECK(nimbus_convert(teacher, data, o, &net, NULL, &error));
    return net;
}

static inline double accuracy_of(const nimbus_net *net, const nimbus_data *data)
{
    nimbus_evaluation e;
    CHECK(nimbus_evaluate(net, data, 1, &e, &error));
    return e.accuracy;
}

/* ---- programs -------------------------------------------------------------------------------- */

static inline nimbus_buffer compiled(const nimbus_net *net, const nimbus_data *calibration,
                                     unsigned n_threads)
{
    nimbus_compile_options o = NIMBUS_COMPILE_OPTIONS_INIT;
    void *bytes;
    size_t n;
    o.calibration = calibration;
    o.n_threads = n_threads;
    CHECK(nimbus_compile(net, &o, &bytes, &n, &error));
    return (nimbus_buffer){.bytes = bytes, .size = n, .capacity = n};
}

static inline nimbus_program *program_of(const nimbus_net *net, const nimbus_data *calibration)
{
    nimbus_buffer bytes = compiled(net, calibration, 1);
    nimbus_program *program;
    CHECK(nimbus_load(bytes.bytes, bytes.size, &program, &error));
    nimbus_buffer_free(&bytes);
    return program;
}

/* Outputs of the net, and scores of the program in the same units, [N][M] each. */
static inline void run_both(const nimbus_net *net, const nimbus_program *program,
                            const nimbus_data *data, float **net_outputs, float **program_outputs)
{
    const nimbus_data_info *info = nimbus_data_get_info(data);
    size_t m = nimbus_info(program)->n_outputs, n = info->n_rows * m;
    size_t stride = info->n_features * (info->dtype == NIMBUS_U8 ? 1 : sizeof(float));
    float *a = nimbus_alloc(n, sizeof *a), *b = nimbus_alloc(n, sizeof *b);
    int32_t *scores = nimbus_alloc(n, sizeof *scores);
    void *scratch = nimbus_alloc(nimbus_scratch_size(program, info->n_rows), 1);
    assert_true(a && b && scores && scratch);
    CHECK(nimbus_net_predict(net, data, 1, a, &error));
    assert_int_equal(
        nimbus_run(program, nimbus_data_features(data), stride, info->n_rows, scores, scratch),
        NIMBUS_OK);
    for (size_t i = 0; i < n; i++)
        b[i] = (float)scores[i] * nimbus_info(program)->output_scale;
    nimbus_free(scores);
    nimbus_free(scratch);
    *net_outputs = a;
    *program_outputs = b;
}

/* Rows of data that both decide alike, as a fraction. */
static inline double agreement(const nimbus_net *net, const nimbus_program *program,
                               const nimbus_data *data)
{
    float *a, *b;
    size_t m = nimbus_info(program)->n_outputs, n = nimbus_data_get_info(data)->n_rows, same = 0;
    run_both(net, program, data, &a, &b);
    for (size_t i = 0; i < n; i++)
        same += nimbus_argmax(a + i * m, m) == nimbus_argmax(b + i * m, m);
    nimbus_free(a);
    nimbus_free(b);
    return (double)same / (double)n;
}

#endif
