/* test_compile_image_rules.c - src/compile: rules of programs on images one by one, refusals */
#include "compile/compile.h"
#include "compile_image_maker.h"

/* ---- programs as bytes -------------------------------------------------------------------------
 */

/* Byte `at` of the step's section. */
static uint8_t step_byte(const nimbus_buffer *program, size_t step, size_t at)
{
    return (uint8_t)(step_word(program, step, at / 4) >> 8 * (at % 4));
}

/* Where the pads and what follows them stand, behind header and sources. */
enum { PAD = 256, AFTER_PAD = 320 };
/* Words of the header. */
enum { N_OUTPUTS = 2, N_CODEBOOKS = 3, FLAGS = 5, OUTPUT = 6, LOW = 19, HIGH = 20 };

static void assert_steps(const nimbus_net *net, const nimbus_data *data, const char *kinds)
{
    nimbus_program *program = program_of(net, data);
    assert_int_equal(nimbus_info(program)->n_steps, strlen(kinds));
    for (size_t i = 0; kinds[i]; i++)
        assert_int_equal(step_of(program, i).kind, kinds[i] - '0');
    nimbus_close(program);
}

/* ---- nets of a few layers ----------------------------------------------------------------------
 */

static const nimbus_shape image = {2, 6, 6};

static size_t add_trees_of(nimbus_net *net, size_t l, size_t units, size_t kernel, uint64_t seed)
{
    l = add_to(net, conv_proto(units, kernel, 1, kernel / 2), l, 0);
    plant_trees(net, l, 3, 3, NIMBUS_TREE_SHARED, 8, false, seed);
    return l;
}

static void add_last_trees(nimbus_net *net, size_t l, uint64_t seed)
{
    l = add_to(net, (nimbus_layer){.type = &nimbus_layer_linear, .units = OUTPUTS, .bare = true}, l,
               0);
    plant_trees(net, l, 3, 3, NIMBUS_TREE_SHARED, 8, true, seed);
}

static void set_norm(nimbus_net *net, size_t l, real scale, real shift)
{
    for (size_t c = 0; c < net->layers[l].shape.channels; c++) {
        values_of(&net->layers[l], "variance")[c] = (real)0.75;
        values_of(&net->layers[l], "scale")[c] = scale;
        values_of(&net->layers[l], "shift")[c] = shift;
        values_of(&net->layers[l], "mean")[c] = 0;
    }
}

static size_t add_plain_norm(nimbus_net *net, size_t l, real scale, real shift)
{
    l = add_to(net, (nimbus_layer){.type = &nimbus_layer_batch_norm, .number = 0.25}, l, 0);
    set_norm(net, l, scale, shift);
    return l;
}

/* ---- padding -----------------------------------------------------------------------------------
 */

/* Around the input stands its mean, which is what is 0 after normalisation. */
static void test_padding_of_input(void **state)
{
    (void)state;
    nimbus_data *data = random_images(1, NIMBUS_U8, image);
    nimbus_net *net = image_net(NIMBUS_U8, image);
    size_t l = add_to(net, conv_proto(3, 3, 1, 1), 0, 1);
    add_to(net, (nimbus_layer){.type = &nimbus_layer_linear, .units = OUTPUTS}, l, 2);
    nimbus_buffer bytes = compiled(net, data, 1);
    assert_int_equal((int8_t)step_byte(&bytes, 0, PAD), 100 - 128);
    assert_int_equal((int8_t)step_byte(&bytes, 0, PAD + 1), 120 - 128);
    nimbus_buffer_free(&bytes);
    nimbus_net_free(net);
    nimbus_data_free(data);
}

/* ReLU and a batch norm that lifts everything by one: 0 is below all values. Thresholds on both
 * sides of it; padding is the least number, which values are kept off. */
static void test_padding_below_all_values(void **state)
{
    (void)state;
    for (int sign = -1; sign <= 1; sign += 2) {
        nimbus_data *data = random_images(2, NIMBUS_U8, image);
        nimbus_net *net = image_net(NIMBUS_U8, image);
        size_t l = add_trees_of(net, 0, 4, 3, 3);
        l = add_to(net, function_proto(0), l, 0);
        l = add_plain_norm(net, l, (real)sign, (real)sign);
        l = add_trees_of(net, l, 4, 3, 4);
        for (size_t i = 0; i < nimbus_layer_param(&net->layers[l], "thresholds")->n; i++)
            values_of(&net->layers[l], "thresholds")[i] =
                (real)sign * ((real)0.0625 + (real)0.5 * (real)(i % 4));
        add_last_trees(net, l, 5);
        assert_same_outputs(net, data, "padding beyond all values");
        nimbus_buffer bytes = compiled(net, data, 1);
        int end = sign > 0 ? -128 : 127;
        assert_int_equal((int32_t)step_word(&bytes, 0, sign > 0 ? LOW : HIGH), end + sign);
        bool found = false;
        for (size_t c = 0; c < step_word(&bytes, 0, N_OUTPUTS); c++)
            found |= (int8_t)step_byte(&bytes, 1, PAD + c) == end;
        assert_true(found);
        nimbus_buffer_free(&bytes);
        nimbus_net_free(net);
        nimbus_data_free(data);
    }
}

/* A layer of zeros in front of a convolution is its own padding; other readers need their own. */
static void test_layer_of_zeros(void **state)
{
    (void)state;
    nimbus_data *data = random_images(3, NIMBUS_U8, image);
    nimbus_net *net = image_net(NIMBUS_U8, image);
    nimbus_layer pad = {.type = &nimbus_layer_pad, .slide = {.before = {1, 0}, .after = {0, 2}}};
    size_t l = add_to(net, conv_proto(4, 3, 1, 0), add_to(net, pad, 0, 0), 0);
    plant_trees(net, l, 3, 3, NIMBUS_TREE_PER_NODE, 8, false, 6);
    l = add_to(net, function_proto(0), l, 0);
    l = add_to(net, conv_proto(4, 3, 1, 0), add_to(net, pad, l, 0), 0);
    plant_trees(net, l, 3, 3, NIMBUS_TREE_PER_NODE, 8, false, 7);
    add_last_trees(net, l, 8);
    assert_steps(net, data, "111");
    assert_same_outputs(net, data, "a layer of zeros");
    nimbus_net_free(net);
    nimbus_data_free(data);
}

/* ---- signs, pools, channels --------------------------------------------------------------------
 */

/* Behind a falling batch norm the tables are negated, and the maximum stays one. */
static void test_pool_over_falling_channels(void **state)
{
    (void)state;
    nimbus_data *data = random_images(4, NIMBUS_U8, image);
    for (int sign = -1; sign <= 1; sign += 2) {
        nimbus_net *net = image_net(NIMBUS_U8, image);
        size_t l = add_trees_of(net, 0, 4, 1, 9);
        l = add_plain_norm(net, l, (real)sign, 0);
        l = add_to(net, pool_proto(&nimbus_layer_max_pool, 2, 2, 0), l, 0);
        add_last_trees(net, l, 10);
        assert_steps(net, data, "141");
        assert_same_outputs(net, data, "maxima of falling channels");
        nimbus_net_free(net);
    }
    nimbus_data_free(data);
}

/* But a batch norm behind the pool reads numbers: then one in front that turns channels around is a
 * step of its own. */
static void test_norms_around_a_pool(void **state)
{
    (void)state;
    nimbus_data *data = random_images(14, NIMBUS_U8, image);
    nimbus_net *net = image_net(NIMBUS_U8, image);
    size_t l = add_to(net, function_proto(0), add_trees_of(net, 0, 4, 1, 15), 0);
    l = add_to(net, pool_proto(&nimbus_layer_max_pool, 2, 2, 0), add_plain_norm(net, l, -1, 0), 0);
    l = add_trees_of(net, add_plain_norm(net, l, 2, 1), 4, 3, 16);
    add_last_trees(net, l, 17);
    assert_steps(net, data, "124211");
    nimbus_net_free(net);
    nimbus_data_free(data);
}

/* The trees behind read channels 1 and 3 alone, one codebook of theirs is constant. */
static void test_dropped_channels(void **state)
{
    (void)state;
    nimbus_data *data = random_images(5, NIMBUS_U8, image);
    nimbus_net *net = image_net(NIMBUS_U8, image);
    size_t first = add_trees_of(net, 0, 6, 3, 11);
    size_t l = add_to(net, function_proto(0), first, 0);
    l = add_to(net, pool_proto(&nimbus_layer_max_pool, 2, 2, 0), l, 0);
    l = add_to(net, conv_proto(4, 3, 1, 1), l, 0);
    plant_trees(net, l, 3, 3, NIMBUS_TREE_SHARED, 8, false, 12);
    nimbus_layer *second = &net->layers[l];
    for (size_t i = 0; i < nimbus_layer_param(second, "columns")->n; i++) {
        values_of(second, "columns")[i] = (real)(i / 7 == 2 ? 5 * 9 : 9 + 18 * (i / 7) + 4);
        values_of(second, "thresholds")[i] = (real)(UNIT / 4);
    }
    for (size_t i = 2 * 8 * 4; i < nimbus_layer_param(second, "tables")->n; i++)
        values_of(second, "tables")[i] = (real)(3 * UNIT);
    CHECK(nimbus_lookup_round(second, 1, &error));
    add_last_trees(net, l, 13);
    nimbus_buffer bytes = compiled(net, data, 1);
    assert_int_equal(step_word(&bytes, 0, N_OUTPUTS), 2);
    assert_int_equal(step_word(&bytes, 1, N_OUTPUTS), 2);
    assert_int_equal(step_word(&bytes, 2, N_CODEBOOKS), 2);
    nimbus_buffer_free(&bytes);
    assert_same_outputs(net, data, "dropped channels");
    nimbus_net_free(net);
    nimbus_data_free(data);
}

/* ---- sums and functions ------------------------------------------------------------------------
 */

/* ReLU behind a sum is its clamp, at the number that is 0. What one reader has on a sum's grid
 * another reads as it was. */
static void test_sum_clamps(void **state)
{
    (void)state;
    nimbus_data *data = random_images(6, NIMBUS_U8, image);
    nimbus_net *net = image_net(NIMBUS_U8, image);
    size_t a = add_to(net, function_proto(0), add_to(net, conv_proto(4, 3, 1, 1), 0, 1), 0);
    size_t b = add_to(net, conv_proto(4, 3, 1, 1), a, 2);
    size_t l = add_to(net, function_proto(0), join(net, &nimbus_layer_add, a, b), 0);
    l = add_to(net, conv_proto(4, 3, 1, 1), l, 3);
    add_to(net, (nimbus_layer){.type = &nimbus_layer_linear, .units = OUTPUTS}, l, 4);
    assert_steps(net, data, "222322"); /* the third takes `a` to the sum's grid */
    nimbus_buffer bytes = compiled(net, data, 1);
    assert_int_equal((int32_t)step_word(&bytes, 3, LOW), (int8_t)step_byte(&bytes, 4, PAD));
    nimbus_buffer_free(&bytes);
    nimbus_net_free(net);
    nimbus_data_free(data);
}

/* A function that folds into no product is a step of its own; one that saturation cannot make has a
 * map. */
static void test_functions(void **state)
{
    (void)state;
    nimbus_data *data = random_images(7, NIMBUS_F32, image);
    for (size_t f = 0; f < N_FUNCTIONS; f++) {
        nimbus_net *net = image_net(NIMBUS_F32, image);
        size_t l = add_to(net, function_proto(f), add_to(net, conv_proto(4, 3, 1, 0), 0, 1), 0);
        l = add_to(net, pool_proto(&nimbus_layer_max_pool, 2, 2, 0), l, 0);
        l = add_to(net, function_proto(f), l, 0);
        add_to(net, (nimbus_layer){.type = &nimbus_layer_linear, .units = OUTPUTS}, l, 4);
        assert_steps(net, data, "2422");
        nimbus_buffer bytes = compiled(net, data, 1);
        bool clips = f < 3 || f == 5;
        assert_int_equal(step_word(&bytes, 0, FLAGS) & NIMBUS_FLAG_MAP,
                         clips ? 0 : NIMBUS_FLAG_MAP);
        nimbus_buffer_free(&bytes);
        nimbus_net_free(net);
    }
    nimbus_data_free(data);
}

/* Scores of a net that ends otherwise than with a product: the numbers times one unit. */
static void test_scores_without_product(void **state)
{
    (void)state;
    nimbus_data *data = random_images(8, NIMBUS_U8, image);
    nimbus_net *net = image_net(NIMBUS_U8, image);
    size_t l = add_to(net, conv_proto(OUTPUTS, 3, 1, 1), 0, 1);
    add_to(net, (nimbus_layer){.type = &nimbus_layer_average_pool}, l, 0);
    assert_steps(net, data, "252");
    float *a, *b;
    nimbus_program *program = program_of(net, data);
    run_both(net, program, data, &a, &b);
    for (size_t i = 0; i < IMAGES * (size_t)OUTPUTS; i++)
        assert_true(fabs((double)a[i] - (double)b[i]) < 0.03);
    nimbus_free(a);
    nimbus_free(b);
    nimbus_close(program);
    nimbus_net_free(net);
    nimbus_data_free(data);
}

/* ---- stand-ins ---------------------------------------------------------------------------------
 */

/* A convolution with weights that trees took the place of, and the same net without. */
static nimbus_net *replaced_net(bool with_trees)
{
    nimbus_net *net = image_net(NIMBUS_U8, image);
    size_t l = add_to(net, conv_proto(4, 3, 1, 1), 0, 1);
    if (with_trees)
        plant_trees(net, l, 3, 3, NIMBUS_TREE_SHARED, 8, false, 14);
    for (size_t m = 0; m < 4; m++)
        values_of(&net->layers[l], "bias")[m] = with_trees ? (real)0.5 : 0;
    l = add_plain_norm(net, l, with_trees ? 2 : 1, 0);
    l = add_to(net, function_proto(0), l, 0);
    add_to(net, (nimbus_layer){.type = &nimbus_layer_linear, .units = OUTPUTS}, l, 4);
    return net;
}

static void test_stand_ins(void **state)
{
    (void)state;
    nimbus_data *data = random_images(9, NIMBUS_U8, image);
    nimbus_net *net = replaced_net(true), *teacher = replaced_net(false);
    nimbus_buffer expected = compiled(teacher, data, 1);
    static const char *const lists[] = {"*", "conv2d1", "conv2d1,linear1"};
    nimbus_compile_options o = NIMBUS_COMPILE_OPTIONS_INIT;
    o.calibration = data;
    void *bytes;
    size_t n;
    for (size_t i = 0; i < 3; i++) {
        o.exact = lists[i];
        o.float_net = teacher;
        CHECK(nimbus_compile(net, &o, &bytes, &n, &error));
        assert_int_equal(n, expected.size);
        assert_memory_equal(bytes, expected.bytes, n);
        nimbus_compile_free(bytes);
        o.float_net = NULL; /* the weights it kept */
        CHECK(nimbus_compile(net, &o, &bytes, &n, &error));
        nimbus_compile_free(bytes);
    }
    o.exact = "relu1";
    CHECK_FAILS(nimbus_compile(net, &o, &bytes, &n, &error), NIMBUS_ERR_ARGUMENT,
                "\"relu1\" in the list of exact layers is no linear layer or convolution");
    nimbus_net *other = image_net(NIMBUS_U8, image);
    size_t l = add_to(other, conv_proto(4, 1, 1, 0), 0, 1);
    l = add_to(other, function_proto(0), add_plain_norm(other, l, 1, 0), 0);
    add_to(other, (nimbus_layer){.type = &nimbus_layer_linear, .units = OUTPUTS}, l, 4);
    o.exact = "*";
    o.float_net = other;
    CHECK_FAILS(nimbus_compile(net, &o, &bytes, &n, &error), NIMBUS_ERR_MISMATCH,
                "layer conv2d1 of the float net has 8 weights, expected 72");
    nimbus_net_free(other);
    nimbus_buffer_free(&expected);
    nimbus_net_free(net);
    nimbus_net_free(teacher);
    nimbus_data_free(data);
}

/* Without a float net, or among trees, the means of the converted layer stay. */
static void test_means_of_stand_ins(void **state)
{
    (void)state;
    nimbus_data *data = random_images(15, NIMBUS_U8, image);
    nimbus_net *net = replaced_net(true), *made;
    nimbus_compile_options o = NIMBUS_COMPILE_OPTIONS_INIT;
    nimbus_measure rows = {data, IMAGES, 8, 1};
    nimbus_ranges before, after;
    o.calibration = data;
    o.exact = "conv2d1";
    CHECK(nimbus_net_copy(net, &made, &error));
    CHECK(nimbus_stand_ins_make(made, &o, true, &error));
    assert_int_equal(made->layers[1].state, NIMBUS_STATE_DENSE);
    CHECK(nimbus_ranges_measure(net, &rows, &before, &error));
    CHECK(nimbus_ranges_measure(made, &rows, &after, &error));
    for (size_t c = before.first[1]; c < before.first[2]; c++)
        assert_true(fabs(before.means[c] - after.means[c]) < 1e-4);
    nimbus_ranges_free(&before);
    nimbus_ranges_free(&after);
    nimbus_net_free(net);
    nimbus_net_free(made);
    nimbus_data_free(data);
}

/* ---- refusals ----------------------------------------------------------------------------------
 */

/* Frees the net. */
static void assert_refused(nimbus_net *net, const nimbus_data *data, nimbus_status expected,
                           const char *text)
{
    nimbus_compile_options o = NIMBUS_COMPILE_OPTIONS_INIT;
    void *bytes = &o;
    size_t n = 1;
    o.calibration = data;
    CHECK_FAILS(nimbus_compile(net, &o, &bytes, &n, &error), expected, text);
    assert_null(bytes);
    assert_int_equal(n, 0);
    nimbus_net_free(net);
}

/* input - `proto` - linear1, with something in front that makes it a net on images. */
static nimbus_net *net_with(nimbus_layer proto)
{
    nimbus_net *net = image_net(NIMBUS_U8, image);
    size_t l = add_to(net, conv_proto(4, 3, 1, 1), 0, 1);
    l = add_to(net, proto, l, 0);
    add_to(net, (nimbus_layer){.type = &nimbus_layer_linear, .units = OUTPUTS}, l, 2);
    return net;
}

static void test_refused_layers(void **state)
{
    (void)state;
    nimbus_data *data = random_images(10, NIMBUS_U8, image);
    nimbus_layer pool = pool_proto(&nimbus_layer_max_pool, 2, 2, 0);
    nimbus_layer pad = {.type = &nimbus_layer_pad, .slide = {.before = {1, 1}}};
    nimbus_net *net = net_with(pool);
    add_to(net, (nimbus_layer){.type = &nimbus_layer_softmax}, net->n_layers - 1, 0);
    assert_refused(net, data, NIMBUS_ERR_UNSUPPORTED, "layer softmax1 (softmax) ends the net");
    assert_refused(net_with((nimbus_layer){.type = &nimbus_layer_softmax}), data,
                   NIMBUS_ERR_UNSUPPORTED, "layer softmax1 (softmax) has no place");
    pool.slide.dilation[0] = 2;
    assert_refused(net_with(pool), data, NIMBUS_ERR_UNSUPPORTED, "a dilation of 2 and 1");
    pool = pool_proto(&nimbus_layer_average_pool, 2, 2, 1);
    pool.count_padding = false;
    assert_refused(net_with(pool), data, NIMBUS_ERR_UNSUPPORTED,
                   "layer average_pool1 (average_pool) leaves padding out");
    assert_refused(net_with(pad), data, NIMBUS_ERR_UNSUPPORTED,
                   "layer linear1 (linear) reads a padded image");
    pad.pad_mode = NIMBUS_PAD_REFLECT;
    assert_refused(net_with(pad), data, NIMBUS_ERR_UNSUPPORTED, "layer pad1 (pad)");
    pad = (nimbus_layer){.type = &nimbus_layer_pad, .number = 2, .slide = {.before = {1, 1}}};
    assert_refused(net_with(pad), data, NIMBUS_ERR_UNSUPPORTED, "pads with zeros only");

    net = image_net(NIMBUS_U8, image);
    size_t l = add_to(net, conv_proto(4, 3, 1, 1), 0, 1);
    pad.number = 0;
    pad.slide.before[0] = 3;
    l = add_to(net, conv_proto(4, 3, 1, 0), add_to(net, pad, l, 0), 1);
    assert_refused(net, data, NIMBUS_ERR_UNSUPPORTED,
                   "layer conv2d2 (conv2d): 3 and 0 rows or columns of padding");
    net = image_net(NIMBUS_U8, image);
    l = add_to(net, conv_proto(4, 3, 1, 1), 0, 1);
    l = add_to(net, (nimbus_layer){.type = &nimbus_layer_transpose, .order = {0, 2, 1}}, l, 0);
    add_to(net, conv_proto(4, 6, 1, 0), l, 1);
    assert_refused(net, data, NIMBUS_ERR_UNSUPPORTED,
                   "layer conv2d2 (conv2d) reads an image whose elements were put in another");
    net = image_net(NIMBUS_U8, image);
    add_to(net, conv_proto(4, 3, 1, 1), 0, 1);
    assert_refused(net, data, NIMBUS_ERR_UNSUPPORTED,
                   "layer conv2d1 (conv2d) ends the net with an image of 6 x 6");
    nimbus_data_free(data);
}

static void test_refused_data(void **state)
{
    (void)state;
    nimbus_data *data = random_images(11, NIMBUS_U8, image);
    nimbus_layer pool = pool_proto(&nimbus_layer_max_pool, 2, 2, 0);
    assert_refused(net_with(pool), NULL, NIMBUS_ERR_ARGUMENT, "need measured ranges: give data");
    nimbus_data *narrow = random_images(11, NIMBUS_U8, (nimbus_shape){1, 6, 6});
    assert_refused(net_with(pool), narrow, NIMBUS_ERR_MISMATCH, "rows of 36 features");
    nimbus_data_free(narrow);
    nimbus_net *net = net_with(pool);
    values_of(&net->layers[0], "mean")[37] = 7;
    assert_refused(net, data, NIMBUS_ERR_UNSUPPORTED,
                   "input columns 36 and 37, of one channel, are normalised differently");
    net = net_with(pool);
    values_of(&net->layers[0], "inverse_std")[36] = 0;
    assert_refused(net, data, NIMBUS_ERR_UNSUPPORTED, "input column 36 is normalised by 0");
    net = image_net(NIMBUS_U8, image);
    size_t l = add_trees_of(net, 0, 4, 6, 1);
    l = add_to(net, pool_proto(&nimbus_layer_max_pool, 2, 2, 0), l, 0);
    add_last_trees(net, l, 2);
    values_of(&net->layers[l + 1], "bias")[1] = (real)1e13;
    assert_refused(net, data, NIMBUS_ERR_LIMIT, "layer linear1");
    nimbus_data_free(data);
    nimbus_shape large = {1, 70, 70};
    data = random_images(11, NIMBUS_U8, large);
    net = image_net(NIMBUS_U8, large);
    add_to(net, conv_proto(OUTPUTS, 1, 1, 0), 0, 1);
    add_to(net, (nimbus_layer){.type = &nimbus_layer_max_pool}, 1, 0);
    assert_refused(net, data, NIMBUS_ERR_LIMIT, "layer max_pool1 (max_pool): windows of 70 x 70");
    nimbus_data_free(data);
}

/* ---- bytes and memory --------------------------------------------------------------------------
 */

/* A net with a node of every kind. */
static nimbus_net *every_kind(void)
{
    nimbus_net *net = image_net(NIMBUS_F32, image);
    size_t l = add_to(net, conv_proto(4, 3, 1, 1), 0, 1);
    size_t a = add_to(net, function_proto(8), l, 0);
    size_t b = add_trees_of(net, a, 4, 3, 2);
    l = add_to(net, function_proto(0), join(net, &nimbus_layer_add, a, b), 0);
    l = join(net, &nimbus_layer_concat, l, add_trees_of(net, l, 3, 1, 3));
    l = add_to(net, pool_proto(&nimbus_layer_max_pool, 2, 2, 0), l, 0);
    l = add_to(net, pool_proto(&nimbus_layer_average_pool, 2, 1, 0), l, 0);
    l = add_to(net, (nimbus_layer){.type = &nimbus_layer_transpose, .order = {1, 2, 0}}, l, 0);
    l = add_to(net, (nimbus_layer){.type = &nimbus_layer_flatten}, l, 0);
    add_last_trees(net, l, 4);
    return net;
}

static void test_same_bytes(void **state)
{
    (void)state;
    nimbus_data *data = random_images(12, NIMBUS_F32, image);
    nimbus_net *net = every_kind(), *copy;
    CHECK(nimbus_net_copy(net, &copy, &error));
    nimbus_free(net->metadata);
    net->metadata = nimbus_strdup("{\"a\":1}");
    nimbus_buffer a = compiled(net, data, 1), b = compiled(net, data, 2);
    assert_true(a.size == b.size);
    assert_memory_equal(a.bytes, b.bytes, a.size);
    nimbus_program *program;
    CHECK(nimbus_load(a.bytes, a.size, &program, &error));
    assert_string_equal(nimbus_metadata(program), net->metadata);
    nimbus_close(program);
    nimbus_buffer_free(&a);
    nimbus_buffer_free(&b);
    nimbus_net_free(net);
    nimbus_net_free(copy);
    nimbus_data_free(data);
}

static void test_failing_allocations(void **state)
{
    (void)state;
    nimbus_data *data = random_images(13, NIMBUS_F32, image);
    nimbus_net *net = every_kind();
    nimbus_compile_options o = NIMBUS_COMPILE_OPTIONS_INIT;
    o.calibration = data;
    o.n_threads = 1;
    assert_true(compile_failing_allocations(net, &o) > 200);
    nimbus_net_free(net);
    nimbus_data_free(data);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_padding_of_input),
        cmocka_unit_test(test_padding_below_all_values),
        cmocka_unit_test(test_layer_of_zeros),
        cmocka_unit_test(test_pool_over_falling_channels),
        cmocka_unit_test(test_norms_around_a_pool),
        cmocka_unit_test(test_dropped_channels),
        cmocka_unit_test(test_sum_clamps),
        cmocka_unit_test(test_functions),
        cmocka_unit_test(test_scores_without_product),
        cmocka_unit_test(test_stand_ins),
        cmocka_unit_test(test_means_of_stand_ins),
        cmocka_unit_test(test_refused_layers),
        cmocka_unit_test(test_refused_data),
        cmocka_unit_test(test_same_bytes),
        cmocka_unit_test(test_failing_allocations),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
