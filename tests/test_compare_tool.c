/* test_compare_tool.c - nimbus compare and report, black box */
#include "bench_helpers.h"

#include "convert/internal.h"

enum { N_METHODS = 7 };
static const char *const methods[N_METHODS] = {
    "nimbus", "maddness", "stella-nera", "lut-nn", "dense-start", "random-start", "seed"};

#define DATA "--data digits --rows 1000 --data-seed 3"

/* What the last command printed, as a file. */
static void keep(const char *name)
{
    char path[128];
    snprintf(path, sizeof path, "%s/%s", folder, name);
    FILE *file = fopen(path, "w");
    assert_non_null(file);
    fputs(out, file);
    assert_int_equal(fclose(file), 0);
}

static json_t *json_in(const char *name)
{
    size_t n;
    char *text = (char *)read_bytes(name, &n);
    json_t *json = json_loads(text, 0, NULL);
    assert_non_null(json);
    free(text);
    return json;
}

static int set_up(void **state)
{
    (void)state;
    if (make_folder())
        return -1;
    return tool("train " DATA " --net mlp:24,24 -e 8 -q -t 1 -o a.net") |
           tool("train " DATA " --net mlp:24 -e 8 -q -t 1 -o b.net");
}

static int tear_down(void **state)
{
    (void)state;
    return remove_folder();
}

/* Every method, twice; the file holds what was shown, and nothing is run again. */
static void test_all_methods(void **state)
{
    (void)state;
    static const char command[] =
        "compare a.net b.net " DATA " --budget 2 --seeds 2 -t 1 -o c.json --json";
    double seconds = 0;
    check_code(tool("%s", command), 0);
    json_t *shown = json_loads(out, 0, NULL), *file = json_in("c.json");
    const json_t *runs = member(file, "runs");
    assert_true(json_equal(shown, file));
    assert_int_equal(json_array_size(runs), 2 * 2 * N_METHODS);
    for (size_t i = 0; i < json_array_size(runs); i++) {
        const json_t *run = json_array_get(runs, i), *curve = member(run, "curve");
        assert_string_equal(json_string_value(member(run, "method")), methods[i % N_METHODS]);
        assert_int_equal(number(run, "seed"), i / N_METHODS % 2);
        assert_int_equal(number(run, "layers"), i < 2 * N_METHODS ? 3 : 2);
        if (strcmp(methods[i % N_METHODS], "random-start") != 0) /* which has hardly begun */
            assert_true(number(run, "test") > 0.3 && number(run, "valid") > 0.3);
        assert_true(number(run, "float_test") > 0.5);
        assert_true(json_array_size(curve) >= 1);
        seconds += number(run, "seconds");
        /* the curve ends with all the budget, at the accuracy of the result */
        const json_t *last = json_array_get(curve, json_array_size(curve) - 1);
        double seen = json_number_value(json_array_get(last, 0)); /* but for what rounding takes */
        if (strcmp(methods[i % N_METHODS], "maddness") == 0)
            assert_true(seen == 0);
        else
            assert_true(fabs(seen - 2) < 0.6);
        check_near(json_number_value(json_array_get(last, 2)), number(run, "valid"));
    }
    assert_true(seconds > 0);
    /* methods with a last training in which all layers take part have a point before it, and one an
     * epoch */
    const json_t *curve = member(json_array_get(runs, 0), "curve");
    assert_int_equal(json_array_size(curve), 3);
    for (size_t i = 0; i < 3; i++)
        check_near(json_number_value(json_array_get(json_array_get(curve, i), 0)), (double)i);
    check_code(tool("%s", command), 0);
    json_t *again = json_loads(out, 0, NULL);
    assert_true(json_equal(again, file));
    assert_null(strstr(err, "fit layer"));
    json_decref(again);
    json_decref(shown);
    json_decref(file);
}

/* What is there stays, what is new is added. */
static void test_goes_on(void **state)
{
    (void)state;
    check_code(tool("compare b.net " DATA " --budget 1 -m maddness -q -o d.json"), 0);
    json_t *before = json_in("d.json");
    check_code(tool("compare b.net " DATA " --budget 1 -m seed,maddness -q -o d.json"), 0);
    json_t *after = json_in("d.json");
    assert_int_equal(json_array_size(member(after, "runs")), 2);
    assert_true(json_equal(json_array_get(member(after, "runs"), 0),
                           json_array_get(member(before, "runs"), 0)));
    json_decref(before);
    json_decref(after);
}

/* Seconds to a target are of the curve: another target needs no other run. */
static void test_target(void **state)
{
    (void)state;
    static const char command[] = "compare b.net " DATA " --budget 2 -m nimbus -o g.json --json";
    static const double targets[] = {1.0, 0.1};
    double seconds[2];
    for (size_t i = 0; i < 2; i++) {
        check_code(tool("%s --target %g", command, targets[i]), 0);
        json_t *shown = json_loads(out, 0, NULL), *file = json_in("g.json");
        const json_t *run = json_array_get(member(shown, "runs"), 0);
        assert_true(json_equal(json_array_get(member(file, "runs"), 0), run));
        check_near(number(run, "target"), targets[i]);
        const json_t *to_target = member(run, "seconds_to_target");
        seconds[i] = json_is_number(to_target) ? json_number_value(to_target) : INFINITY;
        assert_true((strstr(err, "fit layer") != NULL) == (i == 0)); /* the second is known */
        json_decref(shown);
        json_decref(file);
    }
    assert_true(seconds[1] < seconds[0]);
}

static void write_rows(unsigned seed)
{
    char path[128];
    snprintf(path, sizeof path, "%s/rows.csv", folder);
    FILE *file = fopen(path, "w");
    assert_non_null(file);
    fputs("a,b,c,d,e,f,g,h,label\n", file);
    for (unsigned i = 0; i < 200; i++) {
        for (unsigned k = 0; k < 8; k++)
            fprintf(file, "%u,", (i * 37 + k * k * (i + seed)) % 23);
        fprintf(file, "%u\n", i % 2);
    }
    fclose(file);
}

/* Runs on rows that a file no longer has are not known. */
static void test_other_rows(void **state)
{
    (void)state;
    write_rows(1);
    check_code(tool("train --data rows.csv --net mlp:16 -e 1 -q -o r.net"), 0);
    for (unsigned i = 0; i < 3; i++) {
        write_rows(1 + i / 2);
        check_code(tool("compare r.net --data rows.csv -m maddness -o r.json"), 0);
        assert_true((strstr(err, "fit layer") != NULL) == (i != 1));
    }
}

/* A run that takes too long ends without a result on test rows. */
static void test_time_is_up(void **state)
{
    (void)state;
    check_code(tool("compare a.net " DATA " --budget 100000 --seconds 0.5 -m dense-start -q "
                    "-o t.json"),
               0);
    json_t *file = json_in("t.json");
    const json_t *run = json_array_get(member(file, "runs"), 0);
    assert_true(json_is_true(member(run, "timed_out")));
    assert_true(json_is_null(member(run, "test")));
    json_decref(file);
}

/* Whether a command writes the same net with the options of one and of the other. */
static bool same_nets(const char *command, const char *one, const char *other)
{
    size_t n[2];
    unsigned char *bytes[2];
    for (size_t i = 0; i < 2; i++) {
        check_code(tool("%s " DATA " -e 1 -t 1 -q -o h.net %s", command, i ? other : one), 0);
        bytes[i] = read_bytes("h.net", &n[i]);
    }
    const bool same = n[0] == n[1] && memcmp(bytes[0], bytes[1], n[0]) == 0;
    free(bytes[0]);
    free(bytes[1]);
    return same;
}

#define FIRST_ALONE "--layers 'linear2:exact;linear3:exact'"

/* Hints and noise reach the training; shallow nets have both by themselves, deep ones hints, those
 * between neither, and a single layer has nothing to be told. */
static void test_hints(void **state)
{
    (void)state;
    char middle[40] = "mlp:8", deep[120] = "mlp:8";
    for (size_t i = 0; i < 5; i++)
        strcat(middle, ",8");
    for (size_t i = 0; i < 22; i++)
        strcat(deep, ",8");
    assert_false(same_nets("convert a.net", "", "--hint 5"));
    assert_false(same_nets("convert a.net", "", "--hint 0"));
    assert_false(same_nets("convert a.net", "", "--margin-noise 0"));
    assert_true(same_nets("convert a.net", "", "--hint 0.1 --margin-noise 0.15 --code-noise 0"));
    check_code(tool("convert a.net " DATA " --method lut-nn --budget 1 --margin-noise 0 "
                    "--code-noise 0 -t 1 -q -o m.net"),
               0);
    assert_false(same_nets("convert a.net", "", "--distill 0"));
    assert_true(same_nets("convert a.net", "", "--distill 0.6"));
    assert_true(same_nets("convert a.net", "--shift 0", "--shift 0 --code-noise 0.02"));
    assert_false(same_nets("convert a.net", "--shift 0", "--shift 0 --code-noise 0"));
    assert_false(same_nets("train --net lut:32x8,8x10", "", "--code-noise 0.1"));
    assert_true(same_nets("convert a.net", FIRST_ALONE, FIRST_ALONE " --hint 0"));
    check_code(tool("train " DATA " --net '%s;bn' -e 1 -t 1 -q -o middle.net", middle), 0);
    assert_true(same_nets("convert middle.net", "", "--hint 0 --margin-noise 0"));
    check_code(tool("train " DATA " --net '%s;bn' -e 1 -t 1 -q -o deep.net", deep), 0);
    assert_false(same_nets("convert deep.net", "", "--hint 0"));
    assert_true(same_nets("convert deep.net", "", "--hint 0.3 --rate 0.003 --margin-noise 0"));
}

static void test_wrong_use(void **state)
{
    (void)state;
    static const struct {
        const char *command, *message;
        int code;
    } cases[] = {
        {"compare a.net -o x.json", "--data SPEC is missing", 2},
        {"compare a.net " DATA " -m nimbus,lutnn -o x.json",
         "'lutnn' is none of nimbus, maddness, ", 2},
        {"compare a.net " DATA " -o nowhere/x.json", "nowhere", 1},
        {"compare none.net " DATA " -o x.json", "none.net", 1},
        {"compare a.net " DATA " -o a.net", "a.net: ", 1},
        {"convert a.net " DATA " --method lut-nn --tree node",
         "--method lut-nn takes no --tree: ", 2},
        {"convert a.net " DATA " --method lut-nn --hint 1", "--method lut-nn takes no --hint: ", 2},
        {"convert a.net " DATA " --method lut-nn --code-noise 0.1",
         "--method lut-nn takes no --code-noise: ", 2},
        {"convert a.net " DATA " --method lut-nn --margin-noise 1",
         "--method lut-nn takes no --margin-noise: ", 2},
        {"convert a.net " DATA " --budget 5 --epochs 1", "exclude each other", 2},
        {"convert a.net " DATA " --method lut-nn --temperature 2", "takes no --temperature: ", 2},
        {"convert a.net " DATA " --method lut-nn --layer-epochs 2", "takes no --layer-epochs: ", 2},
        {"convert a.net " DATA " --method maddness --epochs 5", "maddness takes no --epochs: ", 2},
        {"convert a.net " DATA " --method seed --flip", "seed takes no --flip: ", 2},
        {"convert a.net " DATA " --no-fine-tune --hint 1", "--no-fine-tune takes no --hint: ", 2},
        {"convert a.net " DATA " --no-fine-tune --epochs 2", "takes no --epochs: ", 2},
        {"convert a.net " DATA " --no-fine-tune --mixup 1", "takes no --mixup: ", 2},
        {"convert a.net " DATA " --code-noise 0.95", "--code-noise", 2},
        {"train " DATA " --net mlp:8 --code-noise 0.1 -o x.net", "but --net mlp:8 has none", 2},
        {"report none.json", "none.json: cannot be opened", 1},
        {"report a.net", "a.net: no JSON", 1},
        {"report other.json", "other.json: JSON of something else", 1},
        {"report c.json -o nowhere/x.html", "nowhere", 1},
        {"report", "FILE", 2},
        {"report c.json -o c.json", "c.json: is one of the results", 1},
        {"report c.json --title \xff", "the title must be UTF-8", 1},
    };
    char path[128];
    snprintf(path, sizeof path, "%s/other.json", folder);
    FILE *other = fopen(path, "w");
    assert_non_null(other);
    fputs("{\"a\": 1}", other);
    fclose(other);
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        check_code(tool("%s", cases[i].command), cases[i].code);
        check_contains(err, cases[i].message);
    }
}

/* The page is whole, calls nobody, and holds the files as they are. */
static void test_report(void **state)
{
    (void)state;
    size_t n;
    check_code(tool("convert a.net " DATA " -e 2 -q -t 1 -o l.net --json"), 0);
    keep("conv.json");
    check_code(tool("convert a.net " DATA " --no-fine-tune -q -t 1 -o l.net --json"), 0);
    keep("untrained.json");
    check_code(tool("train " DATA " --net mlp:8 -e 3 -q -t 1 -o s.net --json"), 0);
    keep("train.json");
    json_t *train = json_in("train.json"), *convert = json_in("conv.json");
    json_t *untrained = json_in("untrained.json");
    assert_int_equal(json_array_size(member(train, "curve")), 3);
    assert_int_equal(json_array_size(member(convert, "curve")), 3);
    const json_t *start = json_array_get(member(convert, "curve"), 0);
    check_near(json_number_value(json_array_get(start, 0)), 0);
    assert_true(json_is_null(json_array_get(start, 2))); /* nothing is lost yet */
    check_near(json_number_value(json_array_get(start, 4)),
               number(member(member(untrained, "converted"), "valid"), "accuracy"));
    json_decref(untrained);
    for (size_t i = 0; i < 3; i++) {
        const json_t *point = json_array_get(member(train, "curve"), i);
        check_near(json_number_value(json_array_get(point, 0)), (double)i + 1);
        assert_true(json_number_value(json_array_get(point, 2)) > 0);
    }
    check_code(tool("report c.json conv.json train.json --title '</script><b>' -o page.html"), 0);
    char *page = (char *)read_bytes("page.html", &n);
    assert_int_equal(strlen(page), n);
    check_contains(page, "</html>");
    assert_null(strstr(page, "http"));
    assert_null(strstr(page, "{{"));
    assert_null(strstr(page, "</script><b>"));
    const char *data = strstr(page, "id=\"report\">");
    assert_non_null(data);
    json_t *embedded = json_loads(strchr(data, '{'), JSON_DISABLE_EOF_CHECK, NULL);
    const json_t *files = member(embedded, "files");
    static const char *const kinds[] = {"compare", "convert", "train"};
    for (size_t i = 0; i < 3; i++)
        assert_string_equal(json_string_value(member(json_array_get(files, i), "kind")), kinds[i]);
    assert_true(json_equal(member(json_array_get(files, 2), "json"), train));
    json_decref(embedded);
    json_decref(train);
    json_decref(convert);
    free(page);
}

static void draw(const char *files)
{
    size_t n;
    char line[512];
    check_code(tool("report %s -o drawn.html", files), 0);
    snprintf(line, sizeof line, "cd '%s' && node '%s/../run_page.js' drawn.html > drawn.txt 2>&1",
             folder, TEST_FIXTURES);
    int code = system(line);
    free(out);
    out = (char *)read_bytes("drawn.txt", &n);
    if (code != 0)
        print_error("%s\n", out);
    assert_int_equal(code, 0);
}

/* Runs are joined where the names of their nets differ by the seed alone. */
static void test_page_draws(void **state)
{
    (void)state;
    if (system("node --version > /dev/null 2>&1") != 0) {
        print_message("no node to run the page's script\n");
        skip();
    }
    char line[512];
    snprintf(line, sizeof line,
             "cd '%s' && cp a.net deep-0.net && cp a.net deep-1.net && "
             "cp a.net wide.net",
             folder);
    assert_int_equal(system(line), 0);
    for (int seed = 0; seed < 2; seed++)
        check_code(tool("compare deep-%d.net " DATA " -m nimbus,maddness --budget 2 --seed %d "
                        "-q -o p.json",
                        seed, seed),
                   0);
    check_code(tool("compare wide.net b.net " DATA " -m maddness --seeds 2 -q -o p.json"), 0);
    draw("p.json conv.json train.json");
    check_contains(out, "<h2>deep, digits, 1000 rows, 3 layers, V = 8, 8 bits</h2>");
    check_contains(out, "<h2>wide, digits, 1000 rows, 3 layers, V = 8, 8 bits</h2>");
    check_contains(out, "<h2>b, digits, 1000 rows, 2 layers, V = 8, 8 bits</h2>");
    check_contains(out, "mean of 2 seeds");
    check_contains(out, "<h2>conv.json: fine-tuning</h2>");
    assert_null(strstr(out, ": depth</h2>"));
    check_code(tool("compare a.net b.net " DATA " -m maddness -q -o depths.json"), 0);
    draw("depths.json");
    check_contains(out, "<h2>digits: depth</h2>");
}

/* In nets with convolutions a codebook reads a channel's window, unless V is given. */
static void test_convolutions(void **state)
{
    (void)state;
    static const char few[] = "--data digits --rows 300 -t 1 -q";
    check_code(tool("train %s --net 'resnet8;width=4' -e 1 -o conv.net", few), 0);
    check_code(tool("compare conv.net %s --budget 1 -m nimbus,lut-nn -o e.json", few), 0);
    check_code(tool("compare conv.net %s --budget 1 -m lut-nn -v 6 -o e.json", few), 0);
    json_t *file = json_in("e.json");
    const json_t *runs = member(file, "runs");
    static const double v[] = {0, 0, 6};
    assert_int_equal(json_array_size(runs), 3);
    for (size_t i = 0; i < 3; i++) {
        const json_t *run = json_array_get(runs, i);
        check_near(number(run, "v"), v[i]);
        check_near(number(run, "layers"), number(json_array_get(runs, 0), "layers"));
        assert_true(json_is_null(member(run, "failed")));
    }
    json_decref(file);
    check_code(tool("report e.json -o e.html --json"), 0);
    check_contains(out, "{\"output\":\"e.html\"}");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_all_methods), cmocka_unit_test(test_goes_on),
        cmocka_unit_test(test_target),      cmocka_unit_test(test_time_is_up),
        cmocka_unit_test(test_other_rows),  cmocka_unit_test(test_hints),
        cmocka_unit_test(test_wrong_use),   cmocka_unit_test(test_report),
        cmocka_unit_test(test_page_draws),  cmocka_unit_test(test_convolutions),
    };
    return cmocka_run_group_tests_name("compare and report", tests, set_up, tear_down);
}
