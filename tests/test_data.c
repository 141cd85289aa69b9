/* test_data.c - data sets: pairs of files, arrays, splits, known sets, the digits generator */
#include "data_helpers.h"

/* ---- features and labels in two files ------------------------------------------------------ */

static void pairs_of_files(void **state)
{
    (void)state;
    nimbus_buffer images = idx_images(40), labels = idx_labels(40), fewer = idx_labels(39);
    char spec[900];
    save_packed("images.gz", &images, false);
    save("labels", labels.bytes, labels.size);
    save("fewer", fewer.bytes, fewer.size);
    snprintf(spec, sizeof spec, "%s,%s", path_of("images.gz"), path_of("labels"));
    nimbus_data *data = open_split(spec, NIMBUS_SPLIT_ALL, NULL);
    assert_int_equal(nimbus_data_get_info(data)->n_classes, 10);
    assert_int_equal(nimbus_data_labels(data)[13], 3);
    assert_string_equal(nimbus_data_class_name(data, 9), "9");
    nimbus_data_options options = NIMBUS_DATA_OPTIONS_INIT;
    options.schema = nimbus_data_schema(data);
    nimbus_data *again = open_split(spec, NIMBUS_SPLIT_ALL, &options);
    assert_string_equal(nimbus_data_schema(again), nimbus_data_schema(data));
    nimbus_data_free(again);
    again = open_split(path_of("images.gz"), NIMBUS_SPLIT_ALL, &options);
    assert_null(nimbus_data_labels(again));
    assert_int_equal(nimbus_data_get_info(again)->n_classes, 0);
    assert_string_equal(nimbus_data_class_name(again, 9), "9");
    assert_string_equal(nimbus_data_schema(again), nimbus_data_schema(data));
    nimbus_data_free(again);
    options.schema = "{\"kind\":\"image\",\"dtype\":\"u8\",\"shape\":[1,2,3],\"classes\":[\"a\"]}";
    open_refused(spec, NIMBUS_SPLIT_ALL, &options, NIMBUS_ERR_VALUE, "label 1 in row 2");
    options.schema = "{\"kind\":\"image\",\"dtype\":\"u8\",\"shape\":[1,2,3]}";
    open_refused(spec, NIMBUS_SPLIT_ALL, &options, NIMBUS_ERR_MISMATCH, "no classes");
    options.schema = NULL;
    options.regression = 1;
    again = open_split(spec, NIMBUS_SPLIT_ALL, &options);
    assert_int_equal(nimbus_data_get_info(again)->n_targets, 1);
    assert_true(nimbus_data_targets(again)[17] == 7);
    assert_null(nimbus_data_labels(again));
    nimbus_data_free(again);
    nimbus_data_free(data);
    snprintf(spec, sizeof spec, "%s,%s", path_of("images.gz"), path_of("fewer"));
    open_refused(spec, NIMBUS_SPLIT_ALL, NULL, NIMBUS_ERR_MISMATCH, "40 rows of features, but 39");
    nimbus_buffer bad = npy(1, "{'descr': '<i2', 'fortran_order': False, 'shape': (40,), }\n");
    for (int i = 0; i < 40; i++)
        nimbus_write_u16le(&bad, i == 7 ? 0xffff : 1);
    save("bad.npy", bad.bytes, bad.size);
    snprintf(spec, sizeof spec, "%s,%s", path_of("images.gz"), path_of("bad.npy"));
    open_refused(spec, NIMBUS_SPLIT_ALL, NULL, NIMBUS_ERR_VALUE, "label -1 in row 8");
    static const char *const reals[] = {"<f2", "<f4", "<f8"};
    for (size_t i = 0; i < 3; i++) {
        char header[96];
        snprintf(header, sizeof header, "{'descr': '%s', 'fortran_order': False, 'shape': (40,)}\n",
                 reals[i]);
        nimbus_buffer real_labels = npy(1, header);
        for (size_t k = 0; k < (size_t)80 << i; k++)
            nimbus_write_u8(&real_labels, 0);
        save("bad.npy", real_labels.bytes, real_labels.size);
        open_refused(spec, NIMBUS_SPLIT_ALL, NULL, NIMBUS_ERR_VALUE,
                     "the labels are floating-point numbers");
        nimbus_buffer_free(&real_labels);
    }
    snprintf(spec, sizeof spec, "%s,%s", path_of("images.gz"), path_of("absent"));
    open_refused(spec, NIMBUS_SPLIT_ALL, NULL, NIMBUS_ERR_IO, "absent");
    nimbus_buffer_free(&images);
    nimbus_buffer_free(&labels);
    nimbus_buffer_free(&fewer);
    nimbus_buffer_free(&bad);
}

/* ---- caller's arrays ---------------------------------------------------------------------- */

static void arrays_are_copied_and_checked(void **state)
{
    (void)state;
    float x[6] = {1, 2, 3, 4, 5, 6}, targets[3] = {0.5f, 1, 2};
    int32_t labels[3] = {0, 2, 1};
    nimbus_data_info info = {.n_rows = 3, .n_features = 2, .dtype = NIMBUS_F32, .n_classes = 3};
    nimbus_data *data;
    nimbus_error error;
    assert_int_equal(nimbus_data_from_arrays(&info, x, labels, NULL, &data, &error), NIMBUS_OK);
    x[0] = 100;
    assert_true(((const float *)nimbus_data_features(data))[0] == 1);
    assert_int_equal(nimbus_data_get_info(data)->channels, 2);
    assert_int_equal(nimbus_data_labels(data)[1], 2);
    assert_string_equal(nimbus_data_class_name(data, 2), "2");
    float mean[2], inverse_std[2];
    nimbus_data_normalisation(data, mean, inverse_std);
    assert_true(mean[0] == 3 && mean[1] == 4);
    assert_true(fabsf(inverse_std[0] - sqrtf(3.0f / 8)) < 1e-6f);
    nimbus_data_free(data);
    nimbus_data_free(NULL);

    labels[1] = 3;
    assert_int_equal(nimbus_data_from_arrays(&info, x, labels, NULL, &data, &error),
                     NIMBUS_ERR_VALUE);
    assert_non_null(strstr(error.message, "label 3 in row 2"));
    x[3] = NAN;
    labels[1] = 2;
    assert_int_equal(nimbus_data_from_arrays(&info, x, labels, NULL, &data, &error),
                     NIMBUS_ERR_VALUE);
    assert_non_null(strstr(error.message, "row 2, column 2: NaN"));
    assert_int_equal(nimbus_data_from_arrays(&info, x, NULL, NULL, &data, &error),
                     NIMBUS_ERR_ARGUMENT);
    assert_int_equal(nimbus_data_from_arrays(&info, NULL, labels, NULL, &data, &error),
                     NIMBUS_ERR_ARGUMENT);
    info.channels = 3, info.height = info.width = 1;
    assert_int_equal(nimbus_data_from_arrays(&info, x, labels, NULL, &data, &error),
                     NIMBUS_ERR_ARGUMENT);
    nimbus_data_info with_targets = {
        .n_rows = 3, .n_features = 1, .dtype = NIMBUS_U8, .n_targets = 1};
    uint8_t bytes[3] = {7, 7, 7};
    assert_int_equal(nimbus_data_from_arrays(&with_targets, bytes, NULL, targets, &data, &error),
                     NIMBUS_OK);
    assert_true(nimbus_data_targets(data)[2] == 2);
    nimbus_data_normalisation(data, mean, inverse_std);
    assert_true(mean[0] == 7 && inverse_std[0] == 1);
    nimbus_data_free(data);
    targets[0] = INFINITY;
    assert_int_equal(nimbus_data_from_arrays(&with_targets, bytes, NULL, targets, &data, &error),
                     NIMBUS_ERR_VALUE);
}

/* An image's pixels share the mean and deviation of their channel. */
static void images_are_normalised_by_channel(void **state)
{
    (void)state;
    uint8_t pixels[2][4] = {{0, 10, 100, 200}, {20, 30, 100, 200}};
    nimbus_data_info info = {
        .n_rows = 2, .n_features = 4, .dtype = NIMBUS_U8, .channels = 2, .height = 1, .width = 2};
    nimbus_data *data;
    assert_int_equal(nimbus_data_from_arrays(&info, pixels, NULL, NULL, &data, NULL), NIMBUS_OK);
    float mean[4], inverse_std[4];
    nimbus_data_normalisation(data, mean, inverse_std);
    assert_true(mean[0] == 15 && mean[1] == 15 && mean[2] == 150 && mean[3] == 150);
    assert_true(inverse_std[2] == 1.0f / 50 && inverse_std[0] == inverse_std[1]);
    nimbus_data_free(data);
}

/* ---- splits ------------------------------------------------------------------------------- */

/* Rows of a split of an npy file whose only feature is the row number; marks them in seen. */
static size_t mark_rows(const char *spec, nimbus_split split, const nimbus_data_options *options,
                        unsigned *seen)
{
    nimbus_data *data = open_split(spec, split, options);
    size_t n = nimbus_data_get_info(data)->n_rows;
    const float *row = nimbus_data_features(data);
    for (size_t i = 0; i < n; i++) {
        assert_true(i == 0 || row[i] > row[i - 1]);
        seen[(size_t)row[i]] |= 1u << split;
    }
    nimbus_data_free(data);
    return n;
}

static void splits_are_disjoint_and_complete(void **state)
{
    (void)state;
    enum { N = 1000 };
    nimbus_buffer b = npy(1, "{'descr': '<i2', 'fortran_order': False, 'shape': (1000,), }\n");
    for (uint16_t i = 0; i < N; i++)
        nimbus_write_u16le(&b, i);
    save("rows.npy", b.bytes, b.size);
    nimbus_buffer_free(&b);
    const char *spec = path_of("rows.npy");
    nimbus_data_options options = NIMBUS_DATA_OPTIONS_INIT;
    options.valid_fraction = 0.1;
    unsigned seen[3][N] = {{0}};
    for (uint64_t seed = 0; seed < 3; seed++) {
        options.seed = seed / 2; /* the first two are the same */
        assert_int_equal(mark_rows(spec, NIMBUS_SPLIT_TRAIN, &options, seen[seed]), 720);
        assert_int_equal(mark_rows(spec, NIMBUS_SPLIT_VALID, &options, seen[seed]), 80);
        assert_int_equal(mark_rows(spec, NIMBUS_SPLIT_TEST, &options, seen[seed]), 200);
        for (size_t i = 0; i < N; i++)
            assert_true(seen[seed][i] == 2 || seen[seed][i] == 4 || seen[seed][i] == 8);
    }
    assert_memory_equal(seen[0], seen[1], sizeof seen[0]);
    assert_memory_not_equal(seen[0], seen[2], sizeof seen[0]);
    assert_int_equal(mark_rows(spec, NIMBUS_SPLIT_ALL, &options, seen[0]), N);
    options.n_rows = 30;
    assert_int_equal(mark_rows(spec, NIMBUS_SPLIT_TRAIN, &options, seen[0]), 30);
    options.valid_fraction = 0;
    open_refused(spec, NIMBUS_SPLIT_VALID, &options, NIMBUS_ERR_ARGUMENT, "valid_fraction is 0");
    options.valid_fraction = 1;
    open_refused(spec, NIMBUS_SPLIT_TRAIN, &options, NIMBUS_ERR_ARGUMENT, "valid_fraction is 1");
    options.valid_fraction = NAN;
    open_refused(spec, NIMBUS_SPLIT_TRAIN, &options, NIMBUS_ERR_ARGUMENT, "valid_fraction");
    options = (nimbus_data_options)NIMBUS_DATA_OPTIONS_INIT;
    options.test_fraction = -1;
    assert_int_equal(mark_rows(spec, NIMBUS_SPLIT_TRAIN, &options, seen[0]), N);
    open_refused(spec, NIMBUS_SPLIT_TEST, &options, NIMBUS_ERR_ARGUMENT, "no test rows");
    options.test_fraction = 1;
    open_refused(spec, NIMBUS_SPLIT_TEST, &options, NIMBUS_ERR_ARGUMENT, "test_fraction is 1");
    open_refused(spec, (nimbus_split)9, NULL, NIMBUS_ERR_ARGUMENT, "split is 9");
}

/* ---- known sets --------------------------------------------------------------------------- */

static void missing_sets_say_how_to_get_them(void **state)
{
    (void)state;
    nimbus_data_options options = NIMBUS_DATA_OPTIONS_INIT;
    options.data_dir = "no/such/folder";
    size_t n = nimbus_data_source_count();
    assert_true(n == 5);
    for (size_t i = 0; i < n; i++) {
        nimbus_data_source source;
        nimbus_error error;
        assert_int_equal(nimbus_data_get_source(i, options.data_dir, &source, &error), NIMBUS_OK);
        if (strcmp(source.name, "digits") == 0) {
            assert_true(source.present);
            assert_string_equal(source.download, "");
            continue;
        }
        assert_false(source.present);
        assert_non_null(strstr(source.folder, "no/such/folder/"));
        assert_non_null(strstr(source.download, "curl"));
        for (nimbus_split split = NIMBUS_SPLIT_ALL; split <= NIMBUS_SPLIT_TEST; split++) {
            open_refused(source.name, split, &options, NIMBUS_ERR_IO, source.folder);
            open_refused(source.name, split, &options, NIMBUS_ERR_IO, "curl -fL");
        }
    }
    nimbus_data_source source;
    assert_int_equal(nimbus_data_get_source(n, NULL, &source, NULL), NIMBUS_ERR_ARGUMENT);
    open_refused(folder, NIMBUS_SPLIT_ALL, NULL, NIMBUS_ERR_IO, "in this folder");
    open_refused("mnits", NIMBUS_SPLIT_ALL, NULL, NIMBUS_ERR_IO, "nor a known data set");
    open_refused("", NIMBUS_SPLIT_ALL, NULL, NIMBUS_ERR_ARGUMENT, "no data set");
}

static void known_folders(void **state)
{
    (void)state;
    nimbus_data_options options = NIMBUS_DATA_OPTIONS_INIT;
    options.data_dir = folder;
    options.valid_fraction = 0.2;
    assert_int_equal(mkdir(path_of("mnist"), 0700), 0);
    nimbus_buffer images = idx_images(20), labels = idx_labels(20);
    nimbus_buffer test_images = idx_images(5), test_labels = idx_labels(5);
    save_packed("mnist/train-images-idx3-ubyte.gz", &images, false);
    save("mnist/train-labels-idx1-ubyte", labels.bytes, labels.size);
    open_refused("mnist", NIMBUS_SPLIT_TEST, &options, NIMBUS_ERR_IO, "no t10k-images-idx3-ubyte");
    save("mnist/t10k-images-idx3-ubyte", test_images.bytes, test_images.size);
    save_packed("mnist/t10k-labels-idx1-ubyte.gz", &test_labels, false);
    static const size_t counts[] = {20, 16, 4, 5};
    for (nimbus_split split = NIMBUS_SPLIT_ALL; split <= NIMBUS_SPLIT_TEST; split++) {
        nimbus_data *data = open_split("mnist", split, &options);
        assert_int_equal(nimbus_data_get_info(data)->n_rows, counts[split]);
        assert_int_equal(nimbus_data_get_info(data)->n_classes, 10);
        nimbus_data_free(data);
    }
    nimbus_data *data = open_split(path_of("mnist"), NIMBUS_SPLIT_TEST, NULL);
    assert_int_equal(nimbus_data_get_info(data)->n_rows, 5);
    nimbus_data_free(data);

    /* The same files are Fashion-MNIST's if the path says so. */
    assert_int_equal(rename(path_of("mnist"), path_of("FashionMNIST")), 0);
    data = open_split(path_of("FashionMNIST"), NIMBUS_SPLIT_TEST, NULL);
    assert_string_equal(nimbus_data_class_name(data, 9), "Ankle boot");
    nimbus_data_free(data);

    assert_int_equal(mkdir(path_of("cifar-10"), 0700), 0);
    nimbus_buffer tar = cifar_tar(), batch = cifar_batch(4, 0);
    save_packed("cifar-10/cifar-10-binary.tar.gz", &tar, false);
    data = open_split("cifar-10", NIMBUS_SPLIT_ALL, &options);
    assert_int_equal(nimbus_data_get_info(data)->n_rows, 3);
    nimbus_data_free(data);
    save_packed("cifar-10/data_batch_2.bin.xz", &batch, true);
    save("cifar-10/data_batch_5.bin", batch.bytes, batch.size);
    data = open_split(path_of("cifar-10"), NIMBUS_SPLIT_ALL, &options);
    assert_int_equal(nimbus_data_get_info(data)->n_rows, 8);
    nimbus_data_free(data);
    batch.bytes[3 * 3073] = 10;
    save("cifar-10/data_batch_4.bin", batch.bytes, batch.size);
    open_refused("cifar-10", NIMBUS_SPLIT_ALL, &options, NIMBUS_ERR_VALUE,
                 "data_batch_4.bin: label 10 in row 4");
    save("cifar-10/data_batch_4.bin", batch.bytes, batch.size - 1);
    open_refused("cifar-10", NIMBUS_SPLIT_ALL, &options, NIMBUS_ERR_TRUNCATED, "data_batch_4.bin");
    nimbus_buffer *used[] = {&images, &labels, &test_images, &test_labels, &tar, &batch};
    for (size_t i = 0; i < sizeof used / sizeof *used; i++)
        nimbus_buffer_free(used[i]);
}

/* ---- the generator ------------------------------------------------------------------------ */

static void digits_depend_on_seed_and_row_alone(void **state)
{
    (void)state;
    nimbus_data_options options = NIMBUS_DATA_OPTIONS_INIT;
    options.n_rows = 50;
    nimbus_data *few = open_split("digits", NIMBUS_SPLIT_TRAIN, &options);
    nimbus_data *test = open_split("digits", NIMBUS_SPLIT_TEST, &options);
    options.n_rows = 200;
    nimbus_data *many = open_split("digits", NIMBUS_SPLIT_TRAIN, &options);
    options.seed = 1;
    nimbus_data *other = open_split("digits", NIMBUS_SPLIT_TRAIN, &options);
    size_t bytes = (size_t)50 * 784;
    assert_memory_equal(nimbus_data_features(few), nimbus_data_features(many), bytes);
    assert_memory_not_equal(nimbus_data_features(few), nimbus_data_features(test), bytes);
    assert_memory_not_equal(nimbus_data_features(few), nimbus_data_features(other), bytes);
    unsigned classes = 0;
    for (size_t i = 0; i < 200; i++)
        classes |= 1u << nimbus_data_labels(many)[i];
    assert_int_equal(classes, 0x3ff);
    options.valid_fraction = 0.25;
    nimbus_data *valid = open_split("digits", NIMBUS_SPLIT_VALID, &options);
    assert_int_equal(nimbus_data_get_info(valid)->n_rows, 50);
    nimbus_data_free(few);
    nimbus_data_free(test);
    nimbus_data_free(many);
    nimbus_data_free(other);
    nimbus_data_free(valid);
}

/* Scores of the ten classes of one row: weights [10][785], the last column a bias. */
static void linear_scores(const float *w, const uint8_t *x, float *scores)
{
    for (size_t k = 0; k < 10; k++) {
        float sum = w[k * 785 + 784];
        for (size_t j = 0; j < 784; j++)
            sum += w[k * 785 + j] * (float)x[j] / 255;
        scores[k] = sum;
    }
}

static double linear_accuracy(const float *w, const nimbus_data *data)
{
    size_t n = nimbus_data_get_info(data)->n_rows, right = 0;
    const uint8_t *x = nimbus_data_features(data);
    for (size_t i = 0; i < n; i++) {
        float scores[10];
        size_t best = 0;
        linear_scores(w, x + i * 784, scores);
        for (size_t k = 1; k < 10; k++)
            best = scores[k] > scores[best] ? k : best;
        right += (int32_t)best == nimbus_data_labels(data)[i];
    }
    return (double)right / (double)n;
}

/* One step of softmax regression by stochastic gradient descent. */
static void linear_step(float *w, const uint8_t *x, int32_t label, float rate)
{
    float p[10], sum = 0;
    linear_scores(w, x, p);
    for (size_t k = 0; k < 10; k++)
        sum += p[k] = expf(p[k]);
    for (size_t k = 0; k < 10; k++) {
        float step = rate * ((float)(k == (size_t)label) - p[k] / sum);
        for (size_t j = 0; j < 784; j++)
            w[k * 785 + j] += step * (float)x[j] / 255;
        w[k * 785 + 784] += step;
    }
}

/* Harder than a linear classifier can solve, but much of it is within its reach. */
static void digits_are_beyond_a_linear_classifier(void **state)
{
    (void)state;
    nimbus_data_options options = NIMBUS_DATA_OPTIONS_INIT;
    options.n_rows = 4000;
    nimbus_data *train = open_split("digits", NIMBUS_SPLIT_TRAIN, &options);
    nimbus_data *test = open_split("digits", NIMBUS_SPLIT_TEST, &options);
    float *w = nimbus_alloc((size_t)10 * 785, sizeof *w);
    const uint8_t *x = nimbus_data_features(train);
    const int epochs = 12;
    for (int e = 0; e < epochs; e++)
        for (size_t i = 0; i < 4000; i++)
            linear_step(w, x + i * 784, nimbus_data_labels(train)[i],
                        0.02f * (1 - (float)e / (float)epochs));
    double accuracy = linear_accuracy(w, test);
    print_message("linear classifier on digits: %.2f %%\n", 100 * accuracy);
    assert_true(accuracy < 0.93);
    assert_true(accuracy > 0.75);
    nimbus_free(w);
    nimbus_data_free(train);
    nimbus_data_free(test);
}

/* ---- real data, where present -------------------------------------------------------------- */

static void real_sets_have_their_official_counts(void **state)
{
    (void)state;
    static const struct {
        const char *name;
        size_t train, test, width;
        int32_t first_label, first_test_label;
    } sets[] = {{"mnist", 60000, 10000, 784, 5, 7},
                {"fashion-mnist", 60000, 10000, 784, 9, 9},
                {"cifar-10", 10000, 10000, 3072, 6, 3},
                {"nsl-kdd", 25192, 22544, 118, 0, 1}};
    const char *environment = getenv("NIMBUS_DATA");
    nimbus_data_options options = NIMBUS_DATA_OPTIONS_INIT;
    options.data_dir = environment ? environment : TEST_FIXTURES "/../../../shared/data";
    size_t found = 0;
    for (size_t i = 0; i < sizeof sets / sizeof *sets; i++) {
        nimbus_data_source source = {0};
        for (size_t k = 0; k < nimbus_data_source_count(); k++) {
            assert_int_equal(nimbus_data_get_source(k, options.data_dir, &source, NULL), NIMBUS_OK);
            if (strcmp(source.name, sets[i].name) == 0)
                break;
        }
        if (!source.present) {
            print_message("skipped: no %s\n", source.folder);
            continue;
        }
        found++;
        nimbus_data *train = open_split(sets[i].name, NIMBUS_SPLIT_TRAIN, &options);
        nimbus_data *test = open_split(sets[i].name, NIMBUS_SPLIT_TEST, &options);
        size_t n = nimbus_data_get_info(train)->n_rows;
        /* CIFAR-10 may lie there in part. */
        assert_true(n >= sets[i].train && n % 2 == 0);
        assert_int_equal(nimbus_data_get_info(test)->n_rows, sets[i].test);
        assert_int_equal(nimbus_data_get_info(train)->n_features, sets[i].width);
        assert_int_equal(nimbus_data_labels(train)[0], sets[i].first_label);
        assert_int_equal(nimbus_data_labels(test)[0], sets[i].first_test_label);
        assert_string_equal(nimbus_data_schema(train), nimbus_data_schema(test));
        nimbus_data_free(train);
        nimbus_data_free(test);
    }
    if (found == 0)
        skip();
}

/* ---- out of memory ------------------------------------------------------------------------ */

static void every_failed_allocation_is_reported(void **state)
{
    (void)state;
    nimbus_buffer b = cifar_batch(2, 0), images = idx_images(3);
    save_packed("memory.bin.xz", &b, true);
    save_packed("memory.gz", &images, false);
    const char *specs[] = {path_of("memory.bin.xz"), path_of("memory.gz")};
    for (size_t i = 0; i < 2; i++) {
        nimbus_status status = NIMBUS_ERR_MEMORY;
        long k = 1;
        for (; status != NIMBUS_OK && k < 1000; k++) {
            nimbus_data *data;
            nimbus_error error;
            nimbus_fail_alloc_after = k;
            status = nimbus_data_open(specs[i], NIMBUS_SPLIT_ALL, NULL, &data, &error);
            nimbus_fail_alloc_after = 0;
            assert_true(status == NIMBUS_OK || status == NIMBUS_ERR_MEMORY);
            assert_int_equal(data == NULL, status != NIMBUS_OK);
            nimbus_data_free(data);
        }
        assert_true(k > 5 && k < 1000);
    }
    nimbus_buffer_free(&b);
    nimbus_buffer_free(&images);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(pairs_of_files),
        cmocka_unit_test(arrays_are_copied_and_checked),
        cmocka_unit_test(images_are_normalised_by_channel),
        cmocka_unit_test(splits_are_disjoint_and_complete),
        cmocka_unit_test(missing_sets_say_how_to_get_them),
        cmocka_unit_test(known_folders),
        cmocka_unit_test(digits_depend_on_seed_and_row_alone),
        cmocka_unit_test(digits_are_beyond_a_linear_classifier),
        cmocka_unit_test(real_sets_have_their_official_counts),
        cmocka_unit_test(every_failed_allocation_is_reported),
    };
    return cmocka_run_group_tests(tests, make_folder, remove_folder);
}
