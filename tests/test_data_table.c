/* test_data_table.c - tables: cells, columns, labels, schemas, and every complaint about them */
#include "data_helpers.h"

/* ---- helpers ------------------------------------------------------------------------------ */

static nimbus_data *table(const char *text, const nimbus_data_options *options)
{
    nimbus_data *data;
    nimbus_error error;
    if (nimbus_data_parse(text, strlen(text), "csv", options, &data, &error) != NIMBUS_OK)
        fail_msg("%s", error.message);
    return data;
}

static void table_refused(const char *text, const nimbus_data_options *options,
                          nimbus_status expected, const char *part)
{
    nimbus_data *data;
    nimbus_error error = {0};
    assert_int_equal(nimbus_data_parse(text, strlen(text), "csv", options, &data, &error),
                     expected);
    assert_null(data);
    if (!strstr(error.message, part))
        fail_msg("'%s' does not say '%s'", error.message, part);
}

/* Checks N, D and the values of a table. */
static void holds(const nimbus_data *data, size_t n, size_t d, const float *values)
{
    assert_int_equal(nimbus_data_get_info(data)->n_rows, n);
    assert_int_equal(nimbus_data_get_info(data)->n_features, d);
    assert_int_equal(nimbus_data_get_info(data)->dtype, NIMBUS_F32);
    const float *x = nimbus_data_features(data);
    for (size_t i = 0; i < n * d; i++)
        if (x[i] != values[i])
            fail_msg("value %zu is %g, not %g", i, (double)x[i], (double)values[i]);
}

static nimbus_data_options labelled(const char *label)
{
    nimbus_data_options options = NIMBUS_DATA_OPTIONS_INIT;
    options.label = label;
    return options;
}

/* ---- cells -------------------------------------------------------------------------------- */

static void separators_are_detected(void **state)
{
    (void)state;
    static const char *const texts[] = {
        "a,b,label\n1,2,x\n3,4,y\n",
        "a\tb\tlabel\n1\t2\tx\n3\t4\ty",
        "a;b;label\r\n1; 2 ;x\r\n\r\n3;4;y\r\n",
        "\xef\xbb\xbf\"a\",\"b\",\"label\"\n \"1\" ,2,\"x\"\n3,4,\"y\"\n\n  \n",
        "a;b;label\n1;2;\"x\"\n3;4;y\n",
    };
    for (size_t i = 0; i < sizeof texts / sizeof *texts; i++) {
        nimbus_data *data = table(texts[i], NULL);
        holds(data, 2, 2, (float[]){1, 2, 3, 4});
        assert_int_equal(nimbus_data_labels(data)[1], 1);
        assert_string_equal(nimbus_data_class_name(data, 0), "x");
        assert_string_equal(nimbus_data_schema(data),
                            "{\"kind\":\"table\",\"classes\":[\"x\",\"y\"],\"columns\":["
                            "{\"name\":\"a\",\"kind\":\"number\",\"mean\":2.0},"
                            "{\"name\":\"b\",\"kind\":\"number\",\"mean\":3.0},"
                            "{\"name\":\"label\",\"kind\":\"class\"}]}");
        nimbus_data_free(data);
    }
}

static void quotes_keep_separators_and_lines(void **state)
{
    (void)state;
    nimbus_data *data = table("1,\"a,\"\"b\"\"\n c\",u\n2,d,u\n3,d,v\n4,d,v\n", NULL);
    holds(data, 4, 3, (float[]){1, 1, 0, 2, 0, 1, 3, 0, 1, 4, 0, 1});
    assert_non_null(strstr(nimbus_data_schema(data), "[\"a,\\\"b\\\"\\n c\",\"d\"]"));
    nimbus_data_free(data);
    table_refused("1,\"open,2\n3,4,5\n", NULL, NIMBUS_ERR_TRUNCATED, "line 1: the quote");
    table_refused("1,2,3\n1,\"a\"b,2\n", NULL, NIMBUS_ERR_FORMAT, "line 2: text follows");
}

static void numbers_are_read_exactly(void **state)
{
    (void)state;
    static const char *const texts[] = {"0",
                                        "-1",
                                        "+2.5",
                                        ".5",
                                        "5.",
                                        "1e3",
                                        "-1E-3",
                                        "0.1",
                                        "16777217",
                                        "3.4028235e38",
                                        "1e-45",
                                        "123456789012345678901234567890",
                                        "0.000000000000000000000000000001234",
                                        "1e-400",
                                        "0e999999999999",
                                        "9007199254740993"};
    for (size_t i = 0; i < sizeof texts / sizeof *texts; i++) {
        double v;
        assert_true(nimbus_csv_number(texts[i], strlen(texts[i]), &v));
        if ((float)v != (float)strtod(texts[i], NULL))
            fail_msg("%s is read as %.17g", texts[i], v);
    }
    static const char *const others[] = {"",    "-",    ".",   "1e",  "1e+",
                                         "1 2", "0x10", "1,5", "--1", "e5"};
    for (size_t i = 0; i < sizeof others / sizeof *others; i++) {
        double v;
        assert_false(nimbus_csv_number(others[i], strlen(others[i]), &v));
    }
    double v;
    assert_true(nimbus_csv_number("-inf", 4, &v) && isinf(v) && v < 0);
    assert_true(nimbus_csv_number("1e999", 5, &v) && isinf(v));
}

static void uneven_rows_are_refused(void **state)
{
    (void)state;
    table_refused("1,2,3\n4,5,6\n7,8\n", NULL, NIMBUS_ERR_VALUE,
                  "row 3 (line 3) has 2 columns, the first row has 3");
    table_refused("1,2,3\n\n4,5,6,7\n", NULL, NIMBUS_ERR_VALUE, "row 2 (line 3) has 4 columns");
    table_refused("", NULL, NIMBUS_ERR_TRUNCATED, "no bytes");
    table_refused("\n \r\n", NULL, NIMBUS_ERR_VALUE, "empty");
    table_refused("a,b,c\n1,2", NULL, NIMBUS_ERR_VALUE, "row 2");
    nimbus_data *data;
    assert_int_equal(nimbus_data_parse("1,2\n\0,4\n", 8, "csv", NULL, &data, NULL),
                     NIMBUS_ERR_FORMAT);
}

/* ---- headings and labels ------------------------------------------------------------------ */

static void headings_are_recognised(void **state)
{
    (void)state;
    static const struct {
        const char *text;
        size_t n_rows;
    } cases[] = {
        {"age,job\n3,x\n4,y\n", 2},          /* a text above numbers */
        {"3,x\n4,y\n", 2},                   /* a number on top */
        {",a,b\n0,1,x\n1,2,y\n", 2},         /* an empty heading */
        {"a,b,2020,c\n1,2,3,x\n4,5,6,y", 2}, /* most of them are texts above numbers */
        {"colour,taste\nred,sweet\nblue,sour\nred,sour\n", 3}, /* no text recurs below */
        {"red,sweet\nblue,sour\nred,sour\n", 3},               /* one does */
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        nimbus_data *data = table(cases[i].text, NULL);
        assert_int_equal(nimbus_data_get_info(data)->n_rows, cases[i].n_rows);
        nimbus_data_free(data);
    }
    table_refused("a,b,a\n1,2,3\n4,5,6\n", NULL, NIMBUS_ERR_VALUE, "same name, 'a'");
}

static void the_label_column_is_found(void **state)
{
    (void)state;
    static const struct {
        const char *text, *label, *first_class;
    } cases[] = {{"a,Class,b\n1,x,2\n3,y,4\n", NULL, "x"},
                 {"a,b,c\n1,2,x\n3,4,y\n", NULL, "x"},
                 {"a,b,c\n1,2,x\n3,4,y\n", "b", "2"},
                 {"a,b,c\n1,2,x\n3,4,y\n", "1", "1"},
                 {"1,2,x\n3,4,y\n", "-2", "2"},
                 {"1,2,x\n3,4,y\n", "column 3", "x"}};
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        nimbus_data_options options = labelled(cases[i].label);
        nimbus_data *data = table(cases[i].text, &options);
        assert_string_equal(nimbus_data_class_name(data, 0), cases[i].first_class);
        nimbus_data_free(data);
    }
    nimbus_data_options options = labelled("none");
    nimbus_data *data = table("1,2\n3,4\n", &options);
    holds(data, 2, 2, (float[]){1, 2, 3, 4});
    assert_null(nimbus_data_labels(data));
    assert_int_equal(nimbus_data_get_info(data)->n_classes, 0);
    nimbus_data_free(data);
    options = labelled("age");
    table_refused("1,2\n3,4\n", &options, NIMBUS_ERR_ARGUMENT, "no column is called 'age'");
    static const char *const beyond[] = {"0", "3", "-3", "-9223372036854775808"};
    for (size_t i = 0; i < sizeof beyond / sizeof *beyond; i++) {
        options = labelled(beyond[i]);
        table_refused("1,2\n3,4\n", &options, NIMBUS_ERR_ARGUMENT, "the table has 2 columns");
    }
    table_refused("1\n2\n", NULL, NIMBUS_ERR_VALUE, "no column is left");
}

static void classes_are_sorted(void **state)
{
    (void)state;
    nimbus_data *data = table("1,10\n2,9\n3,-1\n4,9\n", NULL);
    assert_int_equal(nimbus_data_get_info(data)->n_classes, 3);
    assert_string_equal(nimbus_data_class_name(data, 0), "-1");
    assert_string_equal(nimbus_data_class_name(data, 2), "10");
    assert_int_equal(nimbus_data_labels(data)[1], 1);
    nimbus_data_free(data);
    data = table("1,b\n2,a\n3,10\n4,a\n", NULL);
    assert_string_equal(nimbus_data_class_name(data, 0), "10");
    assert_string_equal(nimbus_data_class_name(data, 2), "b");
    nimbus_data_free(data);
    table_refused("1,a\n2,\n3,b\n", NULL, NIMBUS_ERR_VALUE,
                  "row 2 (line 2), column 2 (column 2), '': the label is missing");
    table_refused("1,0.5\n2,1.5\n", NULL, NIMBUS_ERR_VALUE, "need the regression option");
}

static void numbers_can_be_predicted(void **state)
{
    (void)state;
    nimbus_data_options options = labelled("price");
    options.regression = 1;
    nimbus_data *data = table("price,size\n1.5,10\n2.5,20\n", &options);
    holds(data, 2, 1, (float[]){10, 20});
    assert_int_equal(nimbus_data_get_info(data)->n_targets, 1);
    assert_int_equal(nimbus_data_get_info(data)->n_classes, 0);
    assert_true(nimbus_data_targets(data)[1] == 2.5f);
    nimbus_data_free(data);
    table_refused("price,size\n1.5,10\ncheap,20\n", &options, NIMBUS_ERR_VALUE,
                  "row 2 (line 3), column 1 (price), 'cheap': not a number");
}

/* ---- columns ------------------------------------------------------------------------------ */

static void missing_cells_are_filled(void **state)
{
    (void)state;
    nimbus_data *data = table("n,c,label\n1,red,x\n?,blue,y\n5,NA,x\nnan,red,y\n,blue,x\n", NULL);
    holds(data, 5, 4, (float[]){1, 0, 1, 0, 3, 1, 0, 0, 5, 0, 0, 1, 3, 0, 1, 0, 3, 1, 0, 0});
    assert_non_null(strstr(nimbus_data_schema(data), "\"values\":[\"blue\",\"red\"],"
                                                     "\"missing\":true"));
    nimbus_data_free(data);
}

static void bad_numbers_are_located(void **state)
{
    (void)state;
    char text[600] = "age,label\n";
    for (int i = 0; i < 40; i++)
        strcat(text, i == 25 ? "old,a\n" : "42,b\n");
    table_refused(text, NULL, NIMBUS_ERR_VALUE,
                  "row 26 (line 27), column 1 (age), 'old': not a number");
    table_refused("a,label\n1,x\n-inf,y\n", NULL, NIMBUS_ERR_VALUE,
                  "row 2 (line 3), column 1 (a), '-inf': infinite");
    table_refused("a,label\n1e39,x\n2,y\n", NULL, NIMBUS_ERR_VALUE, "beyond 32-bit floats");
    table_refused("a\xff,label\n1,x\n2,y\n", NULL, NIMBUS_ERR_VALUE, "column 1 is not UTF-8");
    table_refused("a,label\n1,x\xc3\n2,y\n", NULL, NIMBUS_ERR_VALUE, "not UTF-8");
}

static void useless_columns_are_dropped(void **state)
{
    (void)state;
    nimbus_buffer b = {0};
    for (int i = 0; i < 100; i++) {
        char line[64];
        int n = snprintf(line, sizeof line, "id%d,%d,,%s\n", i, i, i % 2 ? "odd" : "even");
        nimbus_write_bytes(&b, line, (size_t)n);
    }
    nimbus_data *data = parse(&b, "csv");
    assert_int_equal(nimbus_data_get_info(data)->n_features, 1);
    assert_non_null(strstr(nimbus_data_schema(data), "{\"name\":\"column 1\",\"kind\":\"drop\"}"));
    assert_non_null(strstr(nimbus_data_schema(data), "{\"name\":\"column 3\",\"kind\":\"drop\"}"));
    nimbus_data_free(data);
    nimbus_buffer_free(&b);
}

static void heavy_tails_become_logarithms(void **state)
{
    (void)state;
    nimbus_buffer b = {0};
    for (int i = 0; i < 300; i++) {
        const char *line = i == 0 ? "1000000,-1000000,1,x\n" : "1,1,1,x\n";
        nimbus_write_bytes(&b, line, strlen(line));
    }
    nimbus_data *data = parse(&b, "csv");
    const float *x = nimbus_data_features(data);
    assert_true(x[0] == (float)log1p(1e6) && x[1] == -1e6f && x[3] == (float)log1p(1));
    nimbus_data_options options = NIMBUS_DATA_OPTIONS_INIT;
    options.schema = nimbus_data_schema(data);
    assert_non_null(strstr(options.schema, "\"map\":\"log1p\""));
    nimbus_data *row = table("-1,2,3\n", &options);
    holds(row, 1, 3, (float[]){-(float)log1p(1), 2, 3});
    nimbus_data_free(row);
    nimbus_data_free(data);
    nimbus_buffer_free(&b);
}

static void absurd_expansion_is_refused(void **state)
{
    (void)state;
    nimbus_buffer b = {0};
    for (unsigned i = 0; i < 60000; i++) {
        char line[32];
        int n = snprintf(line, sizeof line, "t%u,%s\n", i % 20000, i % 2 ? "a" : "b");
        nimbus_write_bytes(&b, line, (size_t)n);
    }
    refused(b, "csv", NIMBUS_ERR_LIMIT, "many different texts");
}

/* ---- schemas ------------------------------------------------------------------------------ */

static const char training[] = "age,job,id,city,label\n"
                               "10,smith,1,A,yes\n"
                               "20,baker,2,B,no\n"
                               "30,smith,3,,yes\n";

static void a_schema_reads_further_rows_alike(void **state)
{
    (void)state;
    nimbus_data *train = table(training, NULL);
    /* age | baker smith | id | A B missing */
    holds(train, 3, 7, (float[]){10, 0, 1, 1, 1, 0, 0, 20, 1, 0, 2, 0, 1, 0, 30, 0, 1, 3, 0, 0, 1});
    nimbus_data_options options = NIMBUS_DATA_OPTIONS_INIT;
    options.schema = nimbus_data_schema(train);
    static const char *const texts[] = {
        "age,job,id,city,label\n?,smith,7,C,no\n",        /* with headings */
        "label;extra;city;id;job;age\nno;1;C;7;smith;\n", /* in another order */
        "age,job,id,city\nNA,smith,7,C\n",                /* without the label */
        "?,smith,7,C,no\n",                               /* by position */
        "?,smith,7,C\n",
    };
    for (size_t i = 0; i < sizeof texts / sizeof *texts; i++) {
        nimbus_data *data = table(texts[i], &options);
        holds(data, 1, 7, (float[]){20, 0, 1, 7, 0, 0, 0});
        size_t n_filled, n_unknown;
        nimbus_data_gaps(data, &n_filled, &n_unknown);
        assert_true(n_filled == 1 && n_unknown == 1);
        bool has_label = i != 2 && i != 4;
        assert_int_equal(nimbus_data_labels(data) != NULL, has_label);
        assert_int_equal(nimbus_data_get_info(data)->n_classes, has_label ? 2 : 0);
        if (has_label)
            assert_int_equal(nimbus_data_labels(data)[0], 0);
        assert_string_equal(nimbus_data_class_name(data, 1), "yes");
        assert_string_equal(nimbus_data_schema(data), options.schema);
        nimbus_data_free(data);
    }
    nimbus_data *again = table(training, &options);
    holds(again, 3, 7, nimbus_data_features(train));
    nimbus_data_free(again);
    table_refused("1,a,2,A,maybe\n", &options, NIMBUS_ERR_VALUE,
                  "'maybe': not one of the classes of the training data");
    table_refused("x,a,2,A,no\n", &options, NIMBUS_ERR_VALUE, "column 1 (age), 'x': not a number");
    table_refused("1,a,2\n", &options, NIMBUS_ERR_MISMATCH,
                  "3 columns, the data the net was trained on 5 (4 without");
    nimbus_data *data;
    assert_int_equal(nimbus_data_parse("\x93NUMPY", 6, "npy", &options, &data, NULL),
                     NIMBUS_ERR_TRUNCATED);
    options.label = "none";
    data = table("?,smith,7,C,?\n", &options);
    assert_null(nimbus_data_labels(data));
    nimbus_data_free(data);
    nimbus_data_free(train);
}

/* Headings that are there in part, or texts where all numbers belong, are no row of data. */
static void misspelled_headings_are_refused(void **state)
{
    (void)state;
    nimbus_data *train = table("a,b,label\nx,p,yes\ny,q,no\nx,q,yes\n", NULL), *data;
    nimbus_data_options options = NIMBUS_DATA_OPTIONS_INIT;
    options.schema = nimbus_data_schema(train);
    table_refused("a,bee\nx,p\n", &options, NIMBUS_ERR_MISMATCH,
                  "the table has no column \"b\"; it has a, bee");
    table_refused("a\nx\n", &options, NIMBUS_ERR_MISMATCH, "no column \"b\"; it has a");
    table_refused("c,d,label\nx,p,yes\n", &options, NIMBUS_ERR_MISMATCH,
                  "no columns \"a\", \"b\"; it has c, d, label");
    data = table("z,q\n", &options); /* an unknown category is data all the same */
    holds(data, 1, 4, (float[]){0, 0, 0, 1});
    nimbus_data_free(data);
    nimbus_data_free(train);
    options.schema = "{\"kind\":\"table\",\"columns\":["
                     "{\"name\":\"0\",\"kind\":\"number\",\"mean\":1},"
                     "{\"name\":\"1\",\"kind\":\"number\",\"mean\":1}]}";
    data = table("0,6\n1,1\n", &options); /* values that are headings too */
    holds(data, 2, 2, (float[]){0, 6, 1, 1});
    nimbus_data_free(data);
    table_refused("zero,one\n5,6\n", &options, NIMBUS_ERR_MISMATCH,
                  "no columns \"0\", \"1\"; it has zero, one");
    train = table("5,6,u\n0,9,v\n7,1,u\n", NULL); /* without headings: the cell is at fault */
    options.schema = nimbus_data_schema(train);
    table_refused("zero,one\n5,6\n", &options, NIMBUS_ERR_VALUE, "row 1 (line 1), column 1");
    nimbus_data_free(train);
}

/* The shape is compared before the labels are. */
static void another_shape_is_named_before_its_labels(void **state)
{
    (void)state;
    static const uint8_t label[] = {0, 0, 8, 1, 0, 0, 0, 1, 7};
    nimbus_buffer b = idx_images(1);
    save("shape-images", b.bytes, b.size);
    save("shape-labels", label, sizeof label);
    nimbus_buffer_free(&b);
    char spec[512];
    int n = snprintf(spec, sizeof spec, "%s,", path_of("shape-images"));
    (void)snprintf(spec + n, sizeof spec - (size_t)n, "%s", path_of("shape-labels"));
    nimbus_data_options options = NIMBUS_DATA_OPTIONS_INIT;
    options.schema = "{\"kind\":\"vector\",\"dtype\":\"f32\",\"shape\":[8],"
                     "\"classes\":[\"a\",\"b\"]}";
    open_refused(spec, NIMBUS_SPLIT_ALL, &options, NIMBUS_ERR_MISMATCH, "trained on 8 x 1 x 1 f32");
    open_refused("CIFAR10", NIMBUS_SPLIT_ALL, NULL, NIMBUS_ERR_IO, "did you mean cifar-10?");
}

static void schemas_of_arrays_do_not_fit_tables(void **state)
{
    (void)state;
    nimbus_data_options options = NIMBUS_DATA_OPTIONS_INIT;
    options.schema = "{\"kind\":\"vector\",\"dtype\":\"f32\",\"shape\":[2]}";
    table_refused("1,2,3\n", &options, NIMBUS_ERR_MISMATCH, "a table, the net was trained on");
    nimbus_data *data = table("1,2,x\n3,4,y\n", NULL);
    options.schema = nimbus_data_schema(data);
    nimbus_buffer b = idx_images(1);
    nimbus_data *image;
    assert_int_equal(nimbus_data_parse(b.bytes, b.size, "idx", &options, &image, NULL),
                     NIMBUS_ERR_MISMATCH);
    nimbus_buffer_free(&b);
    nimbus_data_free(data);
}

static void bad_schemas_are_refused(void **state)
{
    (void)state;
    static const char *const schemas[] = {
        "{",
        "[]",
        "{}",
        "{\"kind\":\"thing\"}",
        "{\"kind\":\"table\"}",
        "{\"kind\":\"table\",\"columns\":[]}",
        "{\"kind\":\"table\",\"columns\":[1]}",
        "{\"kind\":\"table\",\"columns\":[{\"name\":\"a\",\"kind\":\"auto\"}]}",
        "{\"kind\":\"table\",\"columns\":[{\"name\":\"a\",\"kind\":\"number\"}]}",
        "{\"kind\":\"table\",\"columns\":[{\"name\":\"a\",\"kind\":\"number\",\"mean\":1e300}]}",
        "{\"kind\":\"table\",\"columns\":[{\"name\":\"a\",\"kind\":\"number\",\"mean\":1,"
        "\"map\":\"exp\"}]}",
        "{\"kind\":\"table\",\"columns\":[{\"name\":\"a\",\"kind\":\"category\",\"values\":[1]}]}",
        "{\"kind\":\"table\",\"columns\":[{\"kind\":\"number\",\"mean\":1}]}",
        "{\"kind\":\"table\",\"columns\":[{\"name\":\"a\",\"kind\":\"drop\"}]}",
        "{\"kind\":\"table\",\"columns\":[{\"name\":\"a\",\"kind\":\"class\"},"
        "{\"name\":\"b\",\"kind\":\"number\",\"mean\":1}]}",
        "{\"kind\":\"table\",\"classes\":[\"x\"],\"others\":1,\"columns\":["
        "{\"name\":\"b\",\"kind\":\"number\",\"mean\":1}]}",
        "{\"kind\":\"image\",\"dtype\":\"u8\",\"shape\":[1,2]}",
        "{\"kind\":\"image\",\"dtype\":\"u9\",\"shape\":[1,2,3]}",
        "{\"kind\":\"vector\",\"dtype\":\"u8\",\"shape\":[0]}",
        "{\"kind\":\"image\",\"dtype\":\"u8\",\"shape\":[4294967296,4294967296,4294967296]}",
        "{\"kind\":\"vector\",\"dtype\":\"u8\",\"shape\":[1],\"classes\":{}}",
        "{\"kind\":\"vector\",\"kind\":\"vector\",\"dtype\":\"u8\",\"shape\":[1]}",
    };
    for (size_t i = 0; i < sizeof schemas / sizeof *schemas; i++) {
        nimbus_data_options options = NIMBUS_DATA_OPTIONS_INIT;
        options.schema = schemas[i];
        table_refused("1,2\n", &options, NIMBUS_ERR_FORMAT, "schema");
    }
    /* Depth without end is refused, not followed. */
    char *deep = calloc(200001, 1);
    memset(deep, '[', 200000);
    nimbus_data_options options = NIMBUS_DATA_OPTIONS_INIT;
    options.schema = deep;
    table_refused("1,2\n", &options, NIMBUS_ERR_FORMAT, "schema");
    free(deep);
}

/* All splits of one table have the same columns and classes, learned from its training rows. */
static void splits_share_the_schema(void **state)
{
    (void)state;
    nimbus_buffer b = {0};
    for (int i = 0; i < 200; i++) {
        char line[64];
        int n = snprintf(line, sizeof line, "%d,k%d,c%d\n", i, i % 37, i % 3);
        nimbus_write_bytes(&b, line, (size_t)n);
    }
    save_packed("table.csv.gz", &b, false);
    nimbus_buffer_free(&b);
    nimbus_data_options options = NIMBUS_DATA_OPTIONS_INIT;
    options.valid_fraction = 0.25;
    options.seed = 3;
    static const size_t counts[] = {200, 120, 40, 40};
    nimbus_data *splits[4];
    for (nimbus_split s = NIMBUS_SPLIT_ALL; s <= NIMBUS_SPLIT_TEST; s++) {
        splits[s] = open_split(path_of("table.csv.gz"), s, &options);
        assert_int_equal(nimbus_data_get_info(splits[s])->n_rows, counts[s]);
    }
    const char *schema = nimbus_data_schema(splits[NIMBUS_SPLIT_TRAIN]);
    assert_string_equal(schema, nimbus_data_schema(splits[NIMBUS_SPLIT_VALID]));
    assert_string_equal(schema, nimbus_data_schema(splits[NIMBUS_SPLIT_TEST]));
    assert_string_not_equal(schema, nimbus_data_schema(splits[NIMBUS_SPLIT_ALL]));
    for (size_t s = 0; s < 4; s++)
        nimbus_data_free(splits[s]);
}

/* ---- NSL-KDD in small --------------------------------------------------------------------- */

static void kdd_row(nimbus_buffer *b, const char *service, int bytes, const char *label)
{
    char line[256];
    int n = snprintf(line, sizeof line, "0,tcp,%s,SF,%d", service, bytes);
    nimbus_write_bytes(b, line, (size_t)n);
    for (int i = 5; i < 41; i++)
        nimbus_write_bytes(b, ",0.25", 5);
    n = snprintf(line, sizeof line, ",%s,21\n", label);
    nimbus_write_bytes(b, line, (size_t)n);
}

static void nsl_kdd_is_normal_or_attack(void **state)
{
    (void)state;
    nimbus_buffer train = {0}, test = {0};
    kdd_row(&train, "http", 100, "normal");
    kdd_row(&train, "smtp", 200, "neptune");
    kdd_row(&test, "gopher", 300, "mailbomb");
    kdd_row(&test, "http", 300, "normal");
    assert_int_equal(mkdir(path_of("nsl-kdd"), 0700), 0);
    save_packed("nsl-kdd/KDDTrain+.txt.gz", &train, false);
    save("nsl-kdd/KDDTest+.txt", test.bytes, test.size);
    nimbus_data_options options = NIMBUS_DATA_OPTIONS_INIT;
    options.data_dir = folder;
    nimbus_data *data = open_split("nsl-kdd", NIMBUS_SPLIT_TRAIN, &options);
    nimbus_data *tests = open_split("nsl-kdd", NIMBUS_SPLIT_TEST, &options);
    assert_int_equal(nimbus_data_get_info(data)->n_features, 38 + 1 + 2 + 1);
    assert_string_equal(nimbus_data_class_name(data, 1), "attack");
    assert_int_equal(nimbus_data_labels(data)[0], 0);
    assert_int_equal(nimbus_data_labels(data)[1], 1);
    assert_int_equal(nimbus_data_labels(tests)[0], 1);
    assert_int_equal(nimbus_data_labels(tests)[1], 0);
    assert_string_equal(nimbus_data_schema(data), nimbus_data_schema(tests));
    /* duration, tcp, http, smtp, SF, src_bytes: an unknown service is neither */
    const float *x = nimbus_data_features(tests);
    const float expected[] = {0, 1, 0, 0, 1, 300};
    assert_memory_equal(x, expected, sizeof expected);
    options.schema = nimbus_data_schema(data);
    nimbus_data *rows = open_split(path_of("nsl-kdd/KDDTest+.txt"), NIMBUS_SPLIT_ALL, &options);
    assert_memory_equal(nimbus_data_features(rows), x, 2 * 42 * sizeof *x);
    assert_int_equal(nimbus_data_labels(rows)[0], 1);
    nimbus_data_free(rows);
    nimbus_data_free(data);
    nimbus_data_free(tests);
    save("nsl-kdd/KDDTest+.txt", "1,2\n", 4);
    options.schema = NULL;
    open_refused("nsl-kdd", NIMBUS_SPLIT_TEST, &options, NIMBUS_ERR_MISMATCH, "KDDTest+.txt: ");
    nimbus_buffer_free(&train);
    nimbus_buffer_free(&test);
}

/* ---- damage ------------------------------------------------------------------------------- */

/* A prefix of a table is refused, or a table of fewer rows or with a shorter last cell. */
static void prefixes_give_a_sensible_result(void **state)
{
    (void)state;
    static const char text[] = "a,\"b \"\"c\"\"\",label\n1,\"x,y\",p\n2,z,q\n3,\"z\",p\n";
    size_t whole = sizeof text - 1, accepted = 0;
    for (size_t n = 0; n <= whole; n++) {
        char *exact = malloc(n ? n : 1);
        memcpy(exact, text, n);
        nimbus_data *data;
        nimbus_error error = {0};
        nimbus_status status = nimbus_data_parse(exact, n, "csv", NULL, &data, &error);
        if (status == NIMBUS_OK) {
            const nimbus_data_info *info = nimbus_data_get_info(data);
            assert_true(info->n_rows <= 3 && info->n_features <= 3);
            accepted++;
        } else {
            assert_null(data);
            assert_true(error.message[0] != '\0');
        }
        assert_true(n < whole || status == NIMBUS_OK);
        nimbus_data_free(data);
        free(exact);
    }
    assert_true(accepted >= 4 && accepted < whole / 2);
}

static void every_failed_allocation_is_reported(void **state)
{
    (void)state;
    nimbus_status status = NIMBUS_ERR_MEMORY;
    nimbus_data *train = table(training, NULL), *data;
    nimbus_data_options options = NIMBUS_DATA_OPTIONS_INIT;
    for (int given = 0; given < 2; given++, status = NIMBUS_ERR_MEMORY) {
        options.schema = given ? nimbus_data_schema(train) : NULL;
        long k = 1;
        for (; status != NIMBUS_OK && k < 1000; k++) {
            nimbus_fail_alloc_after = k;
            status = nimbus_data_parse(training, strlen(training), "csv", &options, &data, NULL);
            nimbus_fail_alloc_after = 0;
            assert_true(status == NIMBUS_OK || status == NIMBUS_ERR_MEMORY);
            assert_int_equal(data == NULL, status != NIMBUS_OK);
            nimbus_data_free(data);
        }
        assert_true(k > 20 && k < 1000);
    }
    nimbus_data_free(train);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(separators_are_detected),
        cmocka_unit_test(quotes_keep_separators_and_lines),
        cmocka_unit_test(numbers_are_read_exactly),
        cmocka_unit_test(uneven_rows_are_refused),
        cmocka_unit_test(headings_are_recognised),
        cmocka_unit_test(the_label_column_is_found),
        cmocka_unit_test(classes_are_sorted),
        cmocka_unit_test(numbers_can_be_predicted),
        cmocka_unit_test(missing_cells_are_filled),
        cmocka_unit_test(bad_numbers_are_located),
        cmocka_unit_test(useless_columns_are_dropped),
        cmocka_unit_test(heavy_tails_become_logarithms),
        cmocka_unit_test(absurd_expansion_is_refused),
        cmocka_unit_test(a_schema_reads_further_rows_alike),
        cmocka_unit_test(misspelled_headings_are_refused),
        cmocka_unit_test(another_shape_is_named_before_its_labels),
        cmocka_unit_test(schemas_of_arrays_do_not_fit_tables),
        cmocka_unit_test(bad_schemas_are_refused),
        cmocka_unit_test(splits_share_the_schema),
        cmocka_unit_test(nsl_kdd_is_normal_or_attack),
        cmocka_unit_test(prefixes_give_a_sensible_result),
        cmocka_unit_test(every_failed_allocation_is_reported),
    };
    return cmocka_run_group_tests(tests, make_folder, remove_folder);
}
