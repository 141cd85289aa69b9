/* test_bench_tool.c - nimbus bench: what its report says must hold whatever the times are
 *
 * Black box, with few rounds: a small float net and its program are made once, from drawn digits;
 * one run with every part of the report is looked at from all sides. */
#include <limits.h>

#include "bench_helpers.h"

#define DIGITS         "--data digits --rows 900"
#define PIXELS         784
#define HIDDEN         32
#define DIGITS_CLASSES 10

static json_t *report; /* of the run with everything */

static int make_report(void **state)
{
    (void)state;
    if (make_folder() != 0)
        return -1;
    check_code(tool("train " DIGITS " --net mlp:%d -e 8 -o float.net", HIDDEN), 0);
    check_code(tool("convert float.net " DIGITS " --speed --no-fine-tune -o lookup.net"), 0);
    check_code(tool("compile lookup.net -o digits.nimbus"), 0);
    check_code(tool("bench digits.nimbus --float float.net " DIGITS " --rounds 3 "
                    "--batches 64,1,16,16 --sweep --layer 8,70,33,16 --layer 1,64,48,8 --peak "
                    "--onnx . --html page.html --json"),
               0);
    report = json_loads(out, 0, NULL);
    return report ? 0 : -1;
}

static int remove_report(void **state)
{
    (void)state;
    json_decref(report);
    return remove_folder();
}

/* ---- the report */

static const char *const names[] = {"nimbus program", "oneDNN int8", "oneDNN f32", "OpenBLAS f32"};
#define N_NAMES (sizeof names / sizeof *names)
static const size_t batches[] = {1, 16, 64};

static void contenders_agree_and_ratios_follow(void **state)
{
    (void)state;
    static const double least_agreement[N_NAMES] = {0.5, 0.97, 0.999, 1};
    const json_t *results = member(report, "results");
    const json_t *ours = json_array_get(results, 0);
    assert_int_equal(json_array_size(results), N_NAMES);
    assert_int_equal(json_array_size(member(report, "batches")), 3);
    assert_true(number(report, "rows") > 0);
    assert_true(number(report, "rows_walked") >= number(report, "rows")); /* repeated, if few */
    for (size_t k = 0; k < N_NAMES; k++) {
        const json_t *one = json_array_get(results, k);
        assert_string_equal(json_string_value(member(one, "name")), names[k]);
        assert_true(number(one, "agreement_with_f32") >= least_agreement[k]);
        assert_true(number(one, "accuracy") > 0.5 && number(one, "accuracy") <= 1);
        for (size_t i = 0; i < 3; i++) {
            char key[32], batch[16];
            snprintf(key, sizeof key, "ns_per_row_%zu", batches[i]);
            snprintf(batch, sizeof batch, "%zu", batches[i]);
            double ns = median(one, key), of_ours = median(ours, key);
            if (k > 0)
                check_near(number(member(one, "speed_up_of_program"), batch), ns / of_ours);
        }
    }
    const json_t *best = member(member(report, "best_int8_peer"), "64");
    assert_string_equal(json_string_value(member(best, "name")), "oneDNN int8");
    check_near(number(best, "speed_up"),
               median(json_array_get(results, 1), "ns_per_row_64") / median(ours, "ns_per_row_64"));
    check_contains(json_string_value(member(json_array_get(results, 1), "how")), "batch 16: ");
}

static void latencies_are_ordered_and_counted(void **state)
{
    (void)state;
    const json_t *latency = member(report, "latency"), *series = member(latency, "series");
    assert_int_equal(json_array_size(series), 4);
    assert_true(number(latency, "cold_bytes") >= 1 << 20);
    for (size_t k = 0; k < 4; k++) {
        const json_t *s = json_array_get(series, k), *bins = member(s, "bins");
        double total = 0;
        assert_string_equal(json_string_value(member(s, "name")), names[k / 2]);
        assert_string_equal(json_string_value(member(s, "caches")), k % 2 ? "cold" : "warm");
        assert_true(number(s, "p50") <= number(s, "p99"));
        assert_true(number(s, "p99") <= number(s, "p999"));
        assert_true(number(s, "p999") <= number(s, "max"));
        for (size_t i = 0; i < json_array_size(bins); i++)
            total += json_number_value(json_array_get(json_array_get(bins, i), 1));
        check_near(total, number(s, "samples"));
    }
}

static void layers_are_consistent(void **state)
{
    (void)state;
    const json_t *layers = member(report, "layers"), *first = json_array_get(layers, 0);
    assert_int_equal(json_array_size(layers), 2);
    assert_int_equal(number(member(first, "shape"), "codebooks"), 5); /* of 70 columns by 16 */
    for (size_t i = 0; i < 2; i++) {
        const json_t *l = json_array_get(layers, i);
        const double ours = median(l, "ns_per_row");
        check_near(number(l, "speed_up_int8"), median(l, "onednn_int8") / ours);
        check_near(number(l, "speed_up_onednn_f32"), median(l, "onednn_f32") / ours);
        check_near(number(l, "speed_up_openblas_f32"), median(l, "openblas_f32") / ours);
        assert_true(number(l, "lookups_per_cycle") > 0 && number(l, "codes_per_cycle") > 0);
        assert_true(median(l, "encode") > 0 && median(l, "lookup") > 0);
    }
    assert_true(number(member(report, "peak"), "lookups_per_cycle_i32") > 0);
    assert_true(number(member(report, "peak"), "lookups_per_cycle_i8") > 0);
}

static void sweep_finds_its_largest_rise(void **state)
{
    (void)state;
    const json_t *sweep = member(report, "sweep"), *points = member(sweep, "points");
    double rise = 0, last = 0;
    for (size_t j = 0; j < json_array_size(points); j++) {
        const json_t *b = json_array_get(points, j);
        assert_true(number(b, "batch") > last);
        last = number(b, "batch");
        if (j < 32)
            assert_int_equal(last, j + 1);
        for (size_t i = 0; i < j; i++)
            rise = fmax(rise, median(b, "ns") / median(json_array_get(points, i), "ns") - 1);
    }
    assert_int_equal(last, 1024);
    assert_true(fabs(rise - number(sweep, "largest_rise")) < 1e-6);
    assert_true(number(sweep, "rise_from") <= number(sweep, "rise_to"));
}

static void page_holds_everything_and_calls_nobody(void **state)
{
    (void)state;
    size_t n;
    char *page = (char *)read_bytes("page.html", &n);
    assert_int_equal(strlen(page), n);
    for (size_t k = 0; k < N_NAMES; k++)
        check_contains(page, names[k]);
    check_contains(page, "digits.nimbus");
    check_contains(page, "</html>");
    assert_null(strstr(page, "http"));
    assert_null(strstr(page, "{{report}}"));
    assert_null(strstr(page, "@import"));
    /* the embedded report is the one that was printed */
    const char *start = strstr(page, "id=\"report\">");
    assert_non_null(start);
    json_t *embedded = json_loads(strchr(start, '{'), JSON_DISABLE_EOF_CHECK, NULL);
    assert_non_null(embedded);
    assert_true(json_equal(member(embedded, "results"), member(report, "results")));
    assert_true(json_equal(member(embedded, "layers"), member(report, "layers")));
    json_decref(embedded);
    free(page);
}

/* A name may not end the element that holds the report. */
static void names_cannot_leave_the_page(void **state)
{
    (void)state;
    char command[256];
    size_t n;
    snprintf(command, sizeof command, "cp '%s/digits.nimbus' '%s/<!--<script>.nimbus'", folder,
             folder);
    assert_int_equal(system(command), 0);
    check_code(tool("bench '<!--<script>.nimbus' --rounds 1 --batches 1 --no-latency "
                    "--html odd.html"),
               0);
    char *page = (char *)read_bytes("odd.html", &n);
    assert_null(strstr(page, "<!--<script>"));
    check_contains(page, "\\u003c!--\\u003cscript>.nimbus");
    free(page);
}

/* ---- the ONNX files, by a walk over their fields */

typedef struct onnx_count {
    size_t nodes, initialisers, inputs, outputs, weights; /* weights: bytes of raw data */
    char operators[256];
} onnx_count;

/* The next field of bytes..end: its number, and its value as a range (bytes) or in *value. */
static unsigned field(const unsigned char **at, const unsigned char *end,
                      const unsigned char **value, size_t *n)
{
    uint64_t v[2] = {0, 0};
    for (int i = 0; i < 2; i++) {
        unsigned shift = 0;
        do {
            assert_true(*at < end && shift < 64);
            v[i] |= (uint64_t)(**at & 0x7f) << shift;
            shift += 7;
        } while (*(*at)++ & 0x80);
    }
    assert_true((v[0] & 7) == 0 || (v[0] & 7) == 2);
    *value = *at;
    *n = (size_t)v[1];
    if ((v[0] & 7) == 2) {
        assert_true(v[1] <= (uint64_t)(end - *at));
        *at += v[1];
    }
    return (unsigned)(v[0] >> 3);
}

static void walk_graph(const unsigned char *at, size_t bytes, onnx_count *count)
{
    const unsigned char *end = at + bytes, *value, *part;
    size_t n, inner;
    while (at < end) {
        unsigned kind = field(&at, end, &value, &n);
        count->inputs += kind == 11;
        count->outputs += kind == 12;
        count->nodes += kind == 1;
        count->initialisers += kind == 5;
        if (kind != 1 && kind != 5)
            continue;
        for (const unsigned char *in = value; in < value + n;) {
            unsigned f = field(&in, value + n, &part, &inner);
            if (kind == 1 && f == 4)
                snprintf(count->operators + strlen(count->operators),
                         sizeof count->operators - strlen(count->operators), "%.*s ", (int)inner,
                         part);
            if (kind == 5 && f == 9)
                count->weights += inner;
        }
    }
}

static onnx_count walk_model(const char *name)
{
    onnx_count count = {0};
    size_t n, inner, opsets = 0;
    unsigned char *bytes = read_bytes(name, &n);
    const unsigned char *at = bytes, *value;
    while (at < bytes + n) {
        unsigned kind = field(&at, bytes + n, &value, &inner);
        opsets += kind == 8;
        if (kind == 7)
            walk_graph(value, inner, &count);
    }
    assert_int_equal(opsets, 2);
    free(bytes);
    return count;
}

static void onnx_files_hold_the_net(void **state)
{
    (void)state;
    const size_t weights = PIXELS * HIDDEN + HIDDEN * DIGITS_CLASSES,
                 outputs = HIDDEN + DIGITS_CLASSES;
    onnx_count f32 = walk_model("f32.onnx"), int8 = walk_model("int8.onnx");
    assert_string_equal(f32.operators, "Gemm Relu Gemm ");
    assert_int_equal(f32.initialisers, 4);
    assert_int_equal(f32.weights, 4 * (weights + outputs));
    assert_string_equal(int8.operators, "QGemm QGemm ");
    /* weights, scale, zero and bias of each output, scale and zero of the input and of the hidden
     * activations */
    assert_int_equal(int8.weights, weights + 9 * outputs + 2 * 5);
    assert_int_equal(int8.inputs, 1);
    assert_int_equal(int8.outputs, 1);
}

/* ---- what is refused or left out */

static void wrong_usage_is_named(void **state)
{
    (void)state;
    static const struct {
        const char *options, *message;
        int code;
    } cases[] = {
        {"--batches 0", "--batches: '0' is not a list", 2},
        {"--batches 1,,2", "--batches: '1,,2' is not a list", 2},
        {"--batches 1,2,3,4,5,6,7,8,9,10,11", "up to 10 sizes", 2},
        {"--layer 1,2,3", "is not N,D,M,V", 2},
        {"--layer 1,8,8,16", "V at most D", 2},
        {"--layer 65536,65536,8,16", "2^28", 2},
        {"--rounds 0", "--rounds: 0 is outside", 2},
        {"--isa-limit mmx --layer 1,8,8,4", "no limit 'mmx'", 1},
        {"--html nowhere/page.html", "nowhere", 1},
        {"--onnx . ", "no float net", 1},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        check_code(
            tool("bench digits.nimbus --no-latency --rounds 1 --batches 1 %s", cases[i].options),
            cases[i].code);
        check_contains(err, cases[i].message);
    }
}

static void peers_without_a_net_are_skipped(void **state)
{
    (void)state;
    check_code(tool("bench digits.nimbus --rounds 1 --batches 1 --no-latency"), 0);
    check_contains(out, "oneDNN int8 skipped: no float net was given");
    check_contains(out, "rows are made up");
}

/* A folder with the script but without the package; node itself may be missing too. */
static void missing_onnx_runtime_is_explained(void **state)
{
    (void)state;
    char command[256];
    snprintf(command, sizeof command, "mkdir '%s/ort' && cp bench/ort/run.js '%s/ort'", folder,
             folder);
    assert_int_equal(system(command), 0);
    check_code(tool("bench digits.nimbus --float float.net --rounds 1 --batches 1 --no-latency "
                    "--ort --ort-dir ort"),
               0);
    check_contains(out, "ONNX Runtime int8 skipped: ");
    check_contains(out, "npm ci --prefix ort");
    check_code(tool("bench digits.nimbus --float float.net --rounds 1 --batches 1 --no-latency "
                    "--ort --ort-dir nowhere"),
               0);
    check_contains(out, "nowhere/run.js: ");
}

static void onnx_runtime_computes_the_net(void **state)
{
    (void)state;
    char root[PATH_MAX];
    assert_non_null(getcwd(root, sizeof root));
    if (access("bench/ort/node_modules/onnxruntime-node", R_OK) != 0) {
        puts("skipped: no ONNX Runtime (npm ci --prefix bench/ort)");
        skip();
    }
    check_code(tool("bench digits.nimbus --float float.net " DIGITS
                    " --rounds 2 --batches 1,16 --no-latency --ort --ort-dir '%s/bench/ort' --json",
                    root),
               0);
    json_t *with_ort = json_loads(out, 0, NULL);
    const json_t *results = member(with_ort, "results");
    assert_int_equal(json_array_size(results), N_NAMES + 2);
    const json_t *int8 = json_array_get(results, N_NAMES),
                 *f32 = json_array_get(results, N_NAMES + 1);
    assert_string_equal(json_string_value(member(int8, "name")), "ONNX Runtime int8");
    assert_string_equal(json_string_value(member(f32, "name")), "ONNX Runtime f32");
    assert_true(number(int8, "agreement_with_f32") >= 0.97);
    assert_true(number(f32, "agreement_with_f32") >= 0.999);
    assert_true(number(member(member(with_ort, "onnx_runtime"), "call_overhead_ns"), "16") > 0);
    json_decref(with_ort);
}

static void isa_limit_is_kept(void **state)
{
    (void)state;
#if defined(__x86_64__)
    check_code(tool("bench digits.nimbus --float float.net " DIGITS
                    " --rounds 1 --batches 16 --no-latency --isa-limit avx2 --json"),
               0);
    json_t *limited = json_loads(out, 0, NULL);
    assert_string_equal(json_string_value(member(limited, "isa_limit")), "avx2");
    assert_null(strstr(json_string_value(member(limited, "isa")), "avx512"));
    const json_t *results = member(limited, "results");
    for (size_t k = 0; k < N_NAMES; k++) /* the same answers from other kernels */
        assert_true(fabs(number(json_array_get(results, k), "accuracy") -
                         number(json_array_get(member(report, "results"), k), "accuracy")) < 0.01);
    json_decref(limited);
#else
    skip();
#endif
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(contenders_agree_and_ratios_follow),
        cmocka_unit_test(latencies_are_ordered_and_counted),
        cmocka_unit_test(layers_are_consistent),
        cmocka_unit_test(sweep_finds_its_largest_rise),
        cmocka_unit_test(page_holds_everything_and_calls_nobody),
        cmocka_unit_test(names_cannot_leave_the_page),
        cmocka_unit_test(onnx_files_hold_the_net),
        cmocka_unit_test(wrong_usage_is_named),
        cmocka_unit_test(peers_without_a_net_are_skipped),
        cmocka_unit_test(missing_onnx_runtime_is_explained),
        cmocka_unit_test(onnx_runtime_computes_the_net),
        cmocka_unit_test(isa_limit_is_kept),
    };
    return cmocka_run_group_tests_name("bench", tests, make_report, remove_report);
}
