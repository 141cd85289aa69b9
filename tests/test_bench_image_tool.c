/* test_bench_image_tool.c - nimbus bench on programs and nets on images
 *
 * Black box, with few rounds. Rows are random and their labels are the float net's own answers, so
 * that the accuracy of a peer is the share of rows on which it computes the net. */
#include <limits.h>

#include "bench_helpers.h"
#include "net_maker.h"

#define N_ROWS   640
#define CHANNELS 3
#define HEIGHT   10
#define WIDTH    9
#define PIXELS   (CHANNELS * HEIGHT * WIDTH)
#define CLASSES  4

static const nimbus_slide same = {.kernel = {3, 3}, .before = {1, 1}, .after = {1, 1}};

static void conv(nimbus_net *net, size_t units, size_t groups, nimbus_slide slide)
{
    append(net,
           (nimbus_layer){
               .type = &nimbus_layer_conv2d, .units = units, .groups = groups, .slide = slide});
    append(net, (nimbus_layer){.type = &nimbus_layer_batch_norm});
}

static void relu(nimbus_net *net)
{
    append(net, (nimbus_layer){.type = &nimbus_layer_relu});
}

/* The parameters that setup leaves at 0 or 1, as a trained net has them. */
static void shake(nimbus_net *net)
{
    for (size_t i = 0; i < net->n_layers; i++)
        for (size_t k = 0; k < net->layers[i].n_params; k++) {
            nimbus_param *p = &net->layers[i].params[k];
            const int positive = strcmp(p->name, "variance") == 0 || strcmp(p->name, "scale") == 0;
            for (size_t j = 0; j < p->n && p->rank == 1; j++)
                p->value[j] = (real)((positive ? 1 : 0) + 0.2 * nimbus_random_uniform(7, i + k, j));
        }
    for (size_t j = 0; j < PIXELS; j++) {
        const size_t channel = j / (HEIGHT * WIDTH);
        const real unit = net->input_dtype == NIMBUS_U8 ? 1 : (real)0.01;
        net->layers[0].params[0].value[j] = unit * (real)(100 + 20 * channel);
        net->layers[0].params[1].value[j] = 1 / (unit * (real)(60 + channel));
    }
}

static nimbus_net *images(nimbus_dtype dtype)
{
    nimbus_net *net = nimbus_net_new();
    assert_non_null(net);
    append(net, (nimbus_layer){.type = &nimbus_layer_input, .in_shape = {CHANNELS, HEIGHT, WIDTH}});
    net->input_dtype = dtype;
    return net;
}

/* Everything that the peers know, and sums that a product can and cannot do as well. */
static nimbus_net *net_of_all(nimbus_dtype dtype)
{
    nimbus_net *net = images(dtype);
    conv(net, 8, 1, same);
    append(net, (nimbus_layer){.type = &nimbus_layer_clip, .number2 = 6});
    conv(net, 8, 8, same);
    relu(net);
    size_t from = net->n_layers - 1;
    conv(net, 8, 1,
         (nimbus_slide){.kernel = {3, 2}, .dilation = {2, 1}, .before = {2, 0}, .after = {2, 1}});
    append_pair(net, (nimbus_layer){.type = &nimbus_layer_add}, from, net->n_layers - 1);
    append(net, (nimbus_layer){.type = &nimbus_layer_max_pool,
                               .slide = {.kernel = {2, 2}, .stride = {2, 2}}}); /* 8 x 5 x 4 */
    conv(net, 16, 2, (nimbus_slide){.kernel = {1, 1}}); /* reads both signs */
    relu(net);
    from = net->n_layers - 1;
    conv(net, 16, 1, same);
    relu(net);
    conv(net, 16, 1, same);
    append_pair(net, (nimbus_layer){.type = &nimbus_layer_add}, from, net->n_layers - 1);
    relu(net);
    append(net, (nimbus_layer){.type = &nimbus_layer_average_pool,
                               .count_padding = true,
                               .slide = {.kernel = {2, 2}, .before = {1, 0}, .after = {0, 1}}});
    append(net, (nimbus_layer){.type = &nimbus_layer_average_pool, .slide = same});
    append(net, (nimbus_layer){.type = &nimbus_layer_average_pool});
    append(net, (nimbus_layer){.type = &nimbus_layer_flatten});
    append(net, (nimbus_layer){.type = &nimbus_layer_dropout, .number = 0.5});
    append(net, (nimbus_layer){.type = &nimbus_layer_linear, .units = 12});
    relu(net);
    append(net, (nimbus_layer){.type = &nimbus_layer_linear, .units = CLASSES});
    shake(net);
    return net;
}

static void write_npy(const char *name, const char *type, const char *shape, const void *bytes,
                      size_t n_bytes)
{
    char path[128], header[160];
    snprintf(path, sizeof path, "%s/%s", folder, name);
    snprintf(header, sizeof header, "{'descr': '%s', 'fortran_order': False, 'shape': (%s), }\n",
             type, shape);
    FILE *file = fopen(path, "wb");
    assert_non_null(file);
    const unsigned char start[10] = {
        0x93, 'N', 'U', 'M', 'P', 'Y', 1, 0, (unsigned char)strlen(header)};
    fwrite(start, 1, sizeof start, file);
    fputs(header, file);
    assert_int_equal(fwrite(bytes, 1, n_bytes, file), n_bytes);
    fclose(file);
}

/* Rows around the mean, as pixels or as floats, and the class that the net sees in each. */
static void write_rows(const nimbus_net *net)
{
    static uint8_t pixels[N_ROWS * PIXELS], labels[N_ROWS];
    static float floats[N_ROWS * PIXELS], y[N_ROWS * CLASSES];
    const int u8 = net->input_dtype == NIMBUS_U8;
    const nimbus_data_info info = {.n_rows = N_ROWS,
                                   .n_features = PIXELS,
                                   .dtype = net->input_dtype,
                                   .channels = CHANNELS,
                                   .height = HEIGHT,
                                   .width = WIDTH};
    nimbus_data *data;
    nimbus_error error;
    for (size_t i = 0; i < N_ROWS * PIXELS; i++) {
        /* some rows are brighter, some more even than others */
        double row = nimbus_random_uniform(1, 0, i / PIXELS), v = nimbus_random_uniform(2, 0, i);
        pixels[i] = (uint8_t)(255 * (0.3 * row + 0.7 * v * row + 0.2 * v * (1 - row)));
        floats[i] = (float)pixels[i] / 100;
    }
    const void *features = u8 ? (const void *)pixels : floats;
    ok(nimbus_data_from_arrays(&info, features, NULL, NULL, &data, &error), &error);
    ok(nimbus_net_predict(net, data, 1, y, &error), &error);
    nimbus_data_free(data);
    for (size_t r = 0; r < N_ROWS; r++) {
        labels[r] = 0;
        for (uint8_t m = 1; m < CLASSES; m++)
            if (y[r * CLASSES + m] > y[r * CLASSES + labels[r]])
                labels[r] = m;
    }
    write_npy("images.npy", u8 ? "|u1" : "<f4", "640, 3, 10, 9", features,
              sizeof pixels * (u8 ? 1 : sizeof(float)));
    write_npy("labels.npy", "|u1", "640,", labels, sizeof labels);
}

static void save(const nimbus_net *net, const char *name)
{
    char path[128];
    nimbus_error error;
    snprintf(path, sizeof path, "%s/%s", folder, name);
    ok(nimbus_net_save(net, path, &error), &error);
}

static int make(void **state)
{
    (void)state;
    return make_folder();
}

static int clean(void **state)
{
    (void)state;
    return remove_folder();
}

#define ROWS "--data images.npy,labels.npy"

/* Some program on such rows: peers are compared with the net alone. */
static void make_program(nimbus_dtype dtype)
{
    nimbus_net *net = images(dtype);
    conv(net, 2, 1, same);
    append(net, (nimbus_layer){.type = &nimbus_layer_linear, .units = CLASSES});
    save(net, "small.net");
    nimbus_net_free(net);
    check_code(tool("compile small.net " ROWS " -o small.nimbus"), 0);
}

static const json_t *result(const json_t *report, const char *name)
{
    const json_t *results = member(report, "results");
    for (size_t k = 0; k < json_array_size(results); k++)
        if (strcmp(json_string_value(member(json_array_get(results, k), "name")), name) == 0)
            return json_array_get(results, k);
    fail_msg("no contender %s", name);
    return NULL;
}

static void check_accuracy(const json_t *report, const char *name, double least)
{
    const json_t *one = result(report, name), *skipped = json_object_get(one, "skipped");
    if (skipped)
        fail_msg("%s skipped: %s", name, json_string_value(skipped));
    if (!(number(one, "accuracy") >= least))
        fail_msg("%s: %g of the rows as the net has them, expected %g", name,
                 number(one, "accuracy"), least);
}

static void peers_compute_the_net(void **state)
{
    (void)state;
    char root[PATH_MAX], ort[PATH_MAX + 64] = "";
    assert_non_null(getcwd(root, sizeof root));
    if (access("bench/ort/node_modules/onnxruntime-node", R_OK) == 0)
        snprintf(ort, sizeof ort, "--ort --ort-dir '%s/bench/ort'", root);
    else
        puts("skipped: ONNX Runtime (npm ci --prefix bench/ort)");
    for (int f32 = 0; f32 < 2; f32++) {
        nimbus_net *net = net_of_all(f32 ? NIMBUS_F32 : NIMBUS_U8);
        save(net, "all.net");
        write_rows(net);
        nimbus_net_free(net);
        make_program(f32 ? NIMBUS_F32 : NIMBUS_U8);
        check_code(tool("bench small.nimbus --float all.net " ROWS
                        " --rounds 2 --batches 1,8 --no-latency --onnx . --json %s",
                        ort),
                   0);
        json_t *report = json_loads(out, 0, NULL);
        check_accuracy(report, "oneDNN f32", 0.99);
        check_accuracy(report, "oneDNN int8", 0.9);
        check_contains(json_string_value(member(result(report, "OpenBLAS f32"), "skipped")),
                       "no chain");
        assert_true(number(result(report, "oneDNN f32"), "agreement_with_f32") == 1);
        if (*ort) {
            check_accuracy(report, "ONNX Runtime f32", 0.99);
            check_accuracy(report, "ONNX Runtime int8", 0.9);
        }
        json_decref(report);
    }
}

/* A program that reads floats takes rows that lie there as bytes. */
static void bytes_are_read_as_floats(void **state)
{
    (void)state;
    static uint8_t bytes[N_ROWS * PIXELS], labels[N_ROWS];
    static float floats[N_ROWS * PIXELS];
    static const char *const names[] = {"whole.npy", "bytes.npy"};
    json_t *shown[2];
    nimbus_net *net = net_of_all(NIMBUS_F32);
    write_rows(net);
    nimbus_net_free(net);
    make_program(NIMBUS_F32);
    for (size_t i = 0; i < N_ROWS * PIXELS; i++)
        floats[i] = bytes[i] = (uint8_t)(i * 7 % 251);
    for (size_t r = 0; r < N_ROWS; r++)
        labels[r] = (uint8_t)(r % CLASSES);
    write_npy("labels.npy", "|u1", "640,", labels, sizeof labels);
    write_npy(names[0], "<f4", "640, 3, 10, 9", floats, sizeof floats);
    write_npy(names[1], "|u1", "640, 3, 10, 9", bytes, sizeof bytes);
    for (size_t i = 0; i < 2; i++) {
        check_code(tool("eval small.nimbus --data %s,labels.npy --json", names[i]), 0);
        shown[i] = json_loads(out, 0, NULL);
        check_code(
            tool("check --net small.net --program small.nimbus --data %s,labels.npy", names[i]), 0);
        check_code(tool("bench small.nimbus --data %s,labels.npy --rounds 2 --batches 8 "
                        "--no-latency",
                        names[i]),
                   0);
    }
    assert_true(number(shown[0], "accuracy") == number(shown[1], "accuracy"));
    assert_true(number(shown[0], "loss") == number(shown[1], "loss"));
    json_decref(shown[0]);
    json_decref(shown[1]);
}

/* ---- steps */

static void steps_stand_beside_layers(void **state)
{
    (void)state;
    const char *digits = "--data digits --rows 150";
    double sum = 0, of_peer = 0;
    check_code(tool("train %s --net 'resnet8;width=4' -e 1 -o float.net", digits), 0);
    check_code(tool("convert float.net %s --trees 1 --no-fine-tune -o lookup.net", digits), 0);
    check_code(tool("compile lookup.net %s -o lookup.nimbus", digits), 0);
    check_code(tool("bench lookup.nimbus --float float.net %s --rounds 1 --batches 1,16 --sweep "
                    "--html page.html --json",
                    digits),
               0);
    json_t *report = json_loads(out, 0, NULL);
    const json_t *list = member(member(report, "steps"), "list");
    assert_true(json_array_size(list) >= 10);
    for (size_t i = 0; i < json_array_size(list); i++) {
        const json_t *step = json_array_get(list, i), *with = json_object_get(step, "with");
        const char *name = json_string_value(member(step, "name"));
        const char *kind = json_string_value(member(step, "kind"));
        median(step, "ns_per_row_1");
        if (strncmp(name, "conv2d", 6) == 0 || strncmp(name, "linear", 6) == 0) {
            assert_true(number(step, "onednn_int8_multiply_adds_per_cycle_16") > 0);
            assert_null(with);
        } else if (strcmp(kind, "add") == 0) { /* oneDNN does them in a product */
            assert_null(json_object_get(step, "onednn_int8_ns_per_row_16"));
            check_contains(json_string_value(with), "conv2d");
        }
        for (size_t k = 0; k < json_array_size(list); k++) {
            const json_t *to = json_array_get(list, k);
            if (strcmp(json_string_value(member(to, "name")),
                       with ? json_string_value(with) : name) == 0 &&
                strcmp(json_string_value(member(to, "kind")), "lookup") == 0) {
                sum += median(step, "ns_per_row_16");
                of_peer += with ? 0 : median(step, "onednn_int8_ns_per_row_16");
            }
        }
    }
    const json_t *lookups = member(member(member(report, "steps"), "lookups"), "16");
    assert_true(sum > 0 && of_peer > 0);
    check_near(number(lookups, "ns"), sum);
    check_near(number(lookups, "onednn_int8_ns"), of_peer);
    check_near(number(lookups, "speed_up"), of_peer / sum);
    assert_int_equal(json_array_size(member(member(report, "latency"), "series")), 4);
    member(report, "sweep");
    json_decref(report);
    check_code(tool("bench lookup.nimbus --rounds 1 --batches 16 --no-latency"), 0);
    check_contains(out, "step, ns/row"); /* without peers too */
}

/* ---- what is refused */

static void check_skipped(const nimbus_net *net, const char *why)
{
    save(net, "odd.net");
    check_code(tool("bench small.nimbus --float odd.net --rounds 1 --batches 1 --no-latency"), 0);
    check_contains(out, "oneDNN int8 skipped: ");
    check_contains(out, why);
}

static void what_peers_do_not_know_is_named(void **state)
{
    (void)state;
    static const nimbus_layer_type *const types[] = {&nimbus_layer_gelu, &nimbus_layer_softmax,
                                                     &nimbus_layer_pad, &nimbus_layer_hard_swish};
    for (size_t k = 0; k < sizeof types / sizeof *types; k++) {
        char why[128];
        nimbus_net *net = images(NIMBUS_F32);
        append(net, (nimbus_layer){.type = types[k], .slide.before = {1, 1}});
        append(net, (nimbus_layer){.type = &nimbus_layer_linear, .units = CLASSES});
        snprintf(why, sizeof why, "layer %s is of type %s", net->layers[1].name, types[k]->name);
        check_skipped(net, why);
        nimbus_net_free(net);
    }
    nimbus_net *net = images(NIMBUS_F32);
    relu(net);
    append(net, (nimbus_layer){.type = &nimbus_layer_linear, .units = CLASSES});
    check_skipped(net, "layer relu1 is an activation that does not follow a product or a sum");
    nimbus_net_free(net);
    net = images(NIMBUS_F32);
    append(net, (nimbus_layer){.type = &nimbus_layer_linear, .units = 8});
    relu(net);
    check_skipped(net, "the float net has 270 inputs and 8 outputs");
    nimbus_net_free(net);
    net = images(NIMBUS_F32);
    append(net, (nimbus_layer){.type = &nimbus_layer_average_pool});
    append(net, (nimbus_layer){.type = &nimbus_layer_linear, .units = CLASSES});
    check_skipped(net, "layer average_pool1 reads the rows, which one product alone may do");
    check_contains(out, "oneDNN f32  "); /* floats may */
    nimbus_net_free(net);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(peers_compute_the_net),
        cmocka_unit_test(bytes_are_read_as_floats),
        cmocka_unit_test(what_peers_do_not_know_is_named),
        cmocka_unit_test(steps_stand_beside_layers),
    };
    return cmocka_run_group_tests(tests, make, clean);
}
