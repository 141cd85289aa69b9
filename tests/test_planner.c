/* test_planner.c - src/compile: lookup layers made exact, by name and by measuring
 *
 * What a stand-in must be is computed here once more, plainly and in double precision. */
#include "compile_maker.h"

#include "compile/compile.h"

/* A float net and what it was converted to, on the same rows. */
typedef struct pair {
    nimbus_data *data;
    nimbus_net *teacher, *net;
} pair;

static pair make_pair(const char *spec, nimbus_dtype dtype, const char *layers)
{
    nimbus_convert_options o = convert_options();
    pair p = {.data = make_data(300, dtype, 4)};
    o.layers = layers;
    p.teacher = float_net(spec, p.data, 4);
    p.net = converted(p.teacher, p.data, &o);
    return p;
}

static void free_pair(pair *p)
{
    nimbus_net_free(p->teacher);
    nimbus_net_free(p->net);
    nimbus_data_free(p->data);
}

static nimbus_compile_options options_of(const pair *p, const char *exact, bool with_teacher)
{
    nimbus_compile_options o = NIMBUS_COMPILE_OPTIONS_INIT;
    o.calibration = p->data;
    o.n_threads = 1;
    o.exact = exact;
    o.float_net = with_teacher ? p->teacher : NULL;
    return o;
}

static nimbus_program *compiled_with(const nimbus_net *net, const nimbus_compile_options *o)
{
    nimbus_program *program;
    void *bytes;
    size_t n;
    CHECK(nimbus_compile(net, o, &bytes, &n, &error));
    CHECK(nimbus_load(bytes, n, &program, &error));
    nimbus_compile_free(bytes);
    return program;
}

static int32_t *scores_of(const nimbus_program *program, const nimbus_data *data)
{
    const nimbus_data_info *info = nimbus_data_get_info(data);
    size_t stride = info->n_features * nimbus_dtype_size(info->dtype);
    int32_t *scores = nimbus_alloc(info->n_rows * nimbus_info(program)->n_outputs, sizeof *scores);
    void *scratch = nimbus_alloc(nimbus_scratch_size(program, info->n_rows), 1);
    assert_true(scores && scratch);
    CHECK(nimbus_run(program, nimbus_data_features(data), stride, info->n_rows, scores, scratch));
    nimbus_free(scratch);
    return scores;
}

static void assert_same_scores(const nimbus_program *a, const nimbus_program *b,
                               const nimbus_data *data)
{
    size_t m = nimbus_info(a)->n_outputs, n = nimbus_data_get_info(data)->n_rows;
    int32_t *of_a = scores_of(a, data), *of_b = scores_of(b, data);
    assert_int_equal(m, nimbus_info(b)->n_outputs);
    assert_true(nimbus_info(a)->output_scale == nimbus_info(b)->output_scale);
    assert_memory_equal(of_a, of_b, n * m * sizeof *of_a);
    nimbus_free(of_a);
    nimbus_free(of_b);
}

/* Squared distance of the outputs of two programs over the spread of the first's. */
static double distance_between(const nimbus_program *a, const nimbus_program *b,
                               const nimbus_data *data)
{
    size_t m = nimbus_info(a)->n_outputs, n = nimbus_data_get_info(data)->n_rows * m;
    int32_t *of_a = scores_of(a, data), *of_b = scores_of(b, data);
    double mean = 0, spread = 0, squares = 0, unit_a = (double)nimbus_info(a)->output_scale,
           unit_b = (double)nimbus_info(b)->output_scale;
    for (size_t i = 0; i < n; i++)
        mean += of_a[i] * unit_a / (double)n;
    for (size_t i = 0; i < n; i++) {
        double of_first = of_a[i] * unit_a, difference = of_first - of_b[i] * unit_b;
        spread += (of_first - mean) * (of_first - mean);
        squares += difference * difference;
    }
    nimbus_free(of_a);
    nimbus_free(of_b);
    return squares / spread;
}

static const char *const specs[] = {"mlp:16,12", "mlp:16,12;bn", "mlp:16,12;bn;tanh",
                                    "mlp:16,12;gelu"};
enum { SPECS = sizeof specs / sizeof *specs };

/* ---- what stands in ---------------------------------------------------------------------------
 */

/* All layers exact with the float net's numbers: nothing but the float net itself. */
static void test_all_exact_is_the_float_net(void **state)
{
    (void)state;
    for (size_t i = 0; i < 2 * SPECS; i++) {
        pair p = make_pair(specs[i / 2], i % 2 ? NIMBUS_F32 : NIMBUS_U8, NULL);
        nimbus_compile_options o = options_of(&p, "*", true);
        nimbus_compile_options listed = options_of(&p, "linear3,linear1,linear2", true);
        nimbus_program *a = compiled_with(p.net, &o), *c = compiled_with(p.net, &listed),
                       *b = program_of(p.teacher, p.data);
        assert_int_equal(nimbus_info(a)->lookups, 0);
        assert_same_scores(a, b, p.data);
        assert_same_scores(a, c, p.data);
        nimbus_close(a);
        nimbus_close(b);
        nimbus_close(c);
        free_pair(&p);
    }
}

/* Solves a x = b in place by elimination with pivots, n x n and n x m; b is x afterwards. */
static void eliminate(double *a, double *b, size_t n, size_t m)
{
    for (size_t k = 0; k < n; k++) {
        size_t best = k;
        for (size_t i = k; i < n; i++)
            best = fabs(a[i * n + k]) > fabs(a[best * n + k]) ? i : best;
        for (size_t j = 0; j < n; j++) {
            double t = a[k * n + j];
            a[k * n + j] = a[best * n + j];
            a[best * n + j] = t;
        }
        for (size_t j = 0; j < m; j++) {
            double t = b[k * m + j];
            b[k * m + j] = b[best * m + j];
            b[best * m + j] = t;
        }
        for (size_t i = 0; i < n; i++) {
            double factor = i == k ? 0 : a[i * n + k] / a[k * n + k];
            for (size_t j = k; j < n && factor != 0; j++)
                a[i * n + j] -= factor * a[k * n + j];
            for (size_t j = 0; j < m && factor != 0; j++)
                b[i * m + j] -= factor * b[k * m + j];
        }
    }
    for (size_t i = 0; i < n * m; i++)
        b[i] /= a[i / m * n + i / m];
}

static real *outputs_of(nimbus_net *net, const nimbus_data *data, size_t layer)
{
    size_t n = nimbus_data_get_info(data)->n_rows;
    nimbus_pass *pass;
    CHECK(nimbus_pass_new(net, 0, n, 1, &pass, &error));
    nimbus_rows_read(data, 0, n, nimbus_pass_input(pass));
    nimbus_pass_forward(pass, n, layer);
    size_t size = n * nimbus_shape_width(net->layers[layer].shape) * sizeof(real);
    real *out = nimbus_alloc(size, 1);
    assert_non_null(out);
    memcpy(out, pass->out[layer], size);
    nimbus_pass_free(pass);
    return out;
}

static void subtract_means(double *x, size_t n, size_t width, double *mean)
{
    for (size_t j = 0; j < width; j++) {
        mean[j] = 0;
        for (size_t r = 0; r < n; r++)
            mean[j] += x[r * width + j] / (double)n;
        for (size_t r = 0; r < n; r++)
            x[r * width + j] -= mean[j];
    }
}

/* Makes layer l of `mixed` give what it gives in `goal`: ridge regression of the difference. */
static void fit_plainly(nimbus_net *mixed, nimbus_net *goal, size_t l, const nimbus_data *data)
{
    enum { WIDE = 40 };
    nimbus_layer *layer = &mixed->layers[l];
    size_t n = nimbus_data_get_info(data)->n_rows, d = width_in(layer), m = width_out(layer);
    real *in = outputs_of(mixed, data, l - 1), *now = outputs_of(mixed, data, l),
         *then = outputs_of(goal, data, l);
    double *x = nimbus_alloc(n * d, sizeof *x), *rest = nimbus_alloc(n * m, sizeof *rest);
    double gram[WIDE * WIDE] = {0}, moments[WIDE * WIDE] = {0}, mean_x[WIDE], mean_rest[WIDE];
    double diagonal = 0;
    assert_true(x && rest && d <= WIDE && m <= WIDE);
    for (size_t i = 0; i < n * d; i++)
        x[i] = (double)in[i];
    for (size_t i = 0; i < n * m; i++)
        rest[i] = (double)then[i] - (double)now[i];
    subtract_means(x, n, d, mean_x);
    subtract_means(rest, n, m, mean_rest);
    for (size_t r = 0; r < n; r++)
        for (size_t i = 0; i < d; i++) {
            for (size_t j = 0; j < d; j++)
                gram[i * d + j] += x[r * d + i] * x[r * d + j];
            for (size_t j = 0; j < m; j++)
                moments[i * m + j] += x[r * d + i] * rest[r * m + j];
        }
    for (size_t i = 0; i < d; i++)
        diagonal += gram[i * d + i];
    for (size_t i = 0; i < d; i++)
        gram[i * d + i] += 0.1 * diagonal / (double)d;
    eliminate(gram, moments, d, m);
    for (size_t j = 0; j < m; j++) {
        double bias = (double)values_of(layer, "bias")[j] + mean_rest[j];
        for (size_t i = 0; i < d; i++) {
            values_of(layer, "weight")[j * d + i] += (real)moments[i * m + j];
            bias -= moments[i * m + j] * mean_x[i];
        }
        values_of(layer, "bias")[j] = (real)bias;
    }
    nimbus_free(in);
    nimbus_free(now);
    nimbus_free(then);
    nimbus_free(x);
    nimbus_free(rest);
}

static void copy_values(nimbus_layer *to, const nimbus_layer *from)
{
    for (size_t p = 0; p < to->n_params; p++) {
        nimbus_param *a = &to->params[p], *b = nimbus_layer_param((nimbus_layer *)from, a->name);
        if (b)
            memcpy(a->value, b->value, a->n * sizeof *a->value);
    }
}

/* The net with three linear layers of which `kinds` has a bit for each that is exact. */
static nimbus_net *mixed_plainly(const pair *p, unsigned kinds, bool with_teacher)
{
    size_t linear[4], n = 0;
    nimbus_net *mixed;
    CHECK(nimbus_net_copy(p->net, &mixed, &error));
    for (size_t l = 0; l < mixed->n_layers; l++)
        if (mixed->layers[l].type == &nimbus_layer_linear)
            linear[n++] = l;
    linear[n] = mixed->n_layers;
    assert_int_equal(n, 3);
    for (size_t k = 0; k < n; k++)
        if (kinds >> k & 1) {
            bool as_teacher = with_teacher && (k + 1 == n || kinds >> (k + 1) & 1);
            CHECK(nimbus_net_set_state(mixed, linear[k], NIMBUS_STATE_DENSE, &error));
            for (size_t l = linear[k]; l < linear[k + as_teacher] && with_teacher; l++)
                copy_values(&mixed->layers[l], &p->teacher->layers[l]);
            if (with_teacher)
                copy_values(&mixed->layers[linear[k]], &p->teacher->layers[linear[k]]);
        }
    for (size_t k = 0; k < n; k++)
        if (kinds >> k & 1) {
            bool as_teacher = with_teacher && (k + 1 == n || kinds >> (k + 1) & 1);
            bool behind_exact = (kinds & ((1u << k) - 1)) == (1u << k) - 1;
            if (!as_teacher || !behind_exact)
                fit_plainly(mixed, as_teacher ? p->teacher : p->net, linear[k], p->data);
        }
    return mixed;
}

/* Every set of exact layers, with and without the float net: the program is that of the net made
 * plainly, but for single weights that round to the other side. */
static void test_mixed_plans(void **state)
{
    (void)state;
    double worst = 0;
    for (size_t i = 0; i < SPECS; i++) {
        pair p = make_pair(specs[i], i % 2 ? NIMBUS_F32 : NIMBUS_U8, NULL);
        for (unsigned kinds = 1; kinds < 16; kinds++) {
            if (kinds == 8)
                continue;
            nimbus_net *reference = mixed_plainly(&p, kinds & 7, kinds < 8);
            char names[40] = "";
            for (int k = 0; k < 3; k++)
                if (kinds >> k & 1)
                    (void)snprintf(names + strlen(names), 10, "%slinear%d", *names ? "," : "",
                                   k + 1);
            nimbus_compile_options o = options_of(&p, names, kinds < 8);
            nimbus_program *program = compiled_with(p.net, &o);
            for (size_t k = 0; k < 3; k++) {
                nimbus_step_info step = step_of(program, k);
                bool exact = kinds >> k & 1;
                assert_int_equal(step.kind, exact ? NIMBUS_STEP_EXACT : NIMBUS_STEP_LOOKUP);
                if (exact) /* reads every column of the step before */
                    assert_int_equal(step.n_inputs, ((size_t[]){D, 16, 12})[k]);
            }
            nimbus_program *expected = program_of(reference, p.data);
            double distance = distance_between(program, expected, p.data);
            if (!(distance < 1e-5))
                print_error("%s, %s exact: squared distance %g\n", specs[i], names, distance);
            assert_true(distance < 1e-5);
            worst = distance > worst ? distance : worst;
            nimbus_close(program);
            nimbus_close(expected);
            nimbus_net_free(reference);
        }
        free_pair(&p);
    }
    print_message("normalised squared distance at most %g\n", worst);
}

/* Fitting brings a mixed net back to what the net does that it was made of. */
static void test_fit_helps(void **state)
{
    (void)state;
    pair p = make_pair("mlp:16,12", NIMBUS_U8, NULL);
    double fitted[2] = {0, 0};
    for (int k = 0; k < 2; k++) {
        nimbus_compile_options o = options_of(&p, k ? "linear1" : "linear2", false);
        nimbus_program *program;
        for (int fit = 0; fit < 2; fit++) {
            void *bytes;
            size_t n;
            CHECK(nimbus_compile_net(p.net, &o, fit, &bytes, &n, &error));
            CHECK(nimbus_load(bytes, n, &program, &error));
            nimbus_compile_free(bytes);
            fitted[fit] += agreement(p.net, program, p.data) / 2;
            nimbus_close(program);
        }
    }
    print_message("decided as before: %g unfitted, %g fitted\n", fitted[0], fitted[1]);
    assert_true(fitted[1] > 0.95 && fitted[1] > fitted[0]);
    free_pair(&p);
}

/* Fits do not depend on the number of threads. */
static void test_same_bytes(void **state)
{
    (void)state;
    pair p = make_pair("mlp:16,12;bn", NIMBUS_F32, NULL);
    nimbus_compile_options o = options_of(&p, "linear1,linear3", true);
    void *bytes[3];
    size_t n[3];
    for (unsigned t = 0; t < 3; t++) {
        o.n_threads = t;
        CHECK(nimbus_compile(p.net, &o, &bytes[t], &n[t], &error));
        assert_int_equal(n[t], n[0]);
        assert_memory_equal(bytes[t], bytes[0], n[0]);
    }
    for (unsigned t = 0; t < 3; t++)
        nimbus_compile_free(bytes[t]);
    free_pair(&p);
}

/* Layers that conversion left exact stay as they are; none listed is none changed. */
static void test_layers_exact_before(void **state)
{
    (void)state;
    pair p = make_pair("mlp:16,12", NIMBUS_F32, "linear2:exact");
    static const char *const lists[] = {"", "linear2"};
    nimbus_program *before = program_of(p.net, p.data);
    for (size_t i = 0; i < 2; i++) {
        nimbus_compile_options o = options_of(&p, lists[i], true);
        nimbus_program *program = compiled_with(p.net, &o);
        assert_same_scores(before, program, p.data);
        nimbus_close(program);
    }
    nimbus_close(before);
    nimbus_compile_options o = options_of(&p, "*", true);
    nimbus_program *program = compiled_with(p.net, &o);
    assert_int_equal(nimbus_info(program)->lookups, 0);
    nimbus_close(program);
    free_pair(&p);
}

/* ---- refusals ---------------------------------------------------------------------------------
 */

static void assert_refused(const nimbus_net *net, nimbus_compile_options o, nimbus_status expected,
                           const char *text)
{
    void *bytes = &o;
    size_t n = 1;
    CHECK_FAILS(nimbus_compile(net, &o, &bytes, &n, &error), expected, text);
    assert_null(bytes);
    assert_int_equal(n, 0);
}

static void test_refusals(void **state)
{
    (void)state;
    pair p = make_pair("mlp:16,12", NIMBUS_U8, NULL);
    nimbus_compile_options o = options_of(&p, "linear2,linear9", true);
    assert_refused(p.net, o, NIMBUS_ERR_ARGUMENT, "\"linear9\" in the list of exact layers");
    o.exact = "relu1";
    assert_refused(p.net, o, NIMBUS_ERR_ARGUMENT, "\"relu1\" in the list");
    o.exact = "linear1,,linear2";
    assert_refused(p.net, o, NIMBUS_ERR_ARGUMENT, "\"\" in the list");
    o.exact = "linear2";
    o.calibration = NULL;
    assert_refused(p.net, o, NIMBUS_ERR_ARGUMENT,
                   "layer linear2 among lookup layers is made exact");
    o.exact = "*"; /* nothing is fitted, but ranges are needed */
    assert_refused(p.net, o, NIMBUS_ERR_ARGUMENT, "layer linear3 need measured ranges");

    recipe r = plain_recipe(5);
    nimbus_data *narrow = random_rows(&r);
    o.exact = "linear1";
    o.calibration = narrow;
    assert_refused(p.net, o, NIMBUS_ERR_MISMATCH, "rows of 7 features, expected rows of 36");
    nimbus_data_free(narrow);

    /* float nets that this one was not converted from */
    o.calibration = p.data;
    static const struct {
        const char *spec, *text;
    } others[] = {{"mlp:16,9", "layer 3 of the float net is linear2 (linear) of 9 outputs, "
                               "expected linear2 (linear) of 12"},
                  {"mlp:16,12;tanh", "layer 2 of the float net is tanh1 (tanh)"},
                  {"mlp:16", "the float net has 4 layers and u8 inputs, expected 6 and u8"}};
    for (size_t i = 0; i < sizeof others / sizeof *others; i++) {
        nimbus_net *other = float_net(others[i].spec, p.data, 0);
        o.float_net = other;
        assert_refused(p.net, o, NIMBUS_ERR_MISMATCH, others[i].text);
        nimbus_net_free(other);
    }
    o.float_net = p.net;
    assert_refused(p.net, o, NIMBUS_ERR_MISMATCH, "layer linear1 of the float net has trees");
    nimbus_net *shifted;
    CHECK(nimbus_net_copy(p.teacher, &shifted, &error));
    values_of(&shifted->layers[0], "mean")[3] += 1;
    o.float_net = shifted;
    assert_refused(p.net, o, NIMBUS_ERR_MISMATCH, "normalises its inputs differently");
    nimbus_net_free(shifted);
    free_pair(&p);

    nimbus_data *rows = random_rows(&r);
    nimbus_net *born = random_net(&r, rows);
    nimbus_compile_options plain = {.size = sizeof plain, .calibration = rows, .exact = "linear2"};
    assert_refused(born, plain, NIMBUS_ERR_STATE, "layer linear2 has been a lookup layer");
    nimbus_net_free(born);
    nimbus_data_free(rows);
}

/* ---- the choice ------------------------------------------------------------------------------ */

static nimbus_choose_options brief(void)
{
    nimbus_choose_options o = NIMBUS_CHOOSE_OPTIONS_INIT;
    o.seconds = 1e-4;
    return o;
}

static bool is_listed(const char *list, const char *name)
{
    const char *at = strstr(list, name);
    return at && strchr(",", at[strlen(name)]);
}

/* Whatever is chosen is a valid plan, says the same in all places, and compiles as by hand. */
static void test_choice(void **state)
{
    (void)state;
    for (size_t i = 0; i < 2 * SPECS; i++) {
        pair p = make_pair(specs[i / 2], i % 2 ? NIMBUS_F32 : NIMBUS_U8,
                           i % 3 == 2 ? "linear2:exact" : NULL);
        nimbus_compile_options o = options_of(&p, NULL, i % 2 == 0);
        nimbus_choose_options choose = brief();
        nimbus_choose_report report;
        choose.batch = i % 4 < 2 ? 0 : 1 + 400 * (i % 2);
        CHECK(nimbus_compile_choose(p.net, &o, &choose, &report, &error));
        assert_int_equal(report.batch, choose.batch ? choose.batch : 256);
        assert_int_equal(report.n_layers, 3);
        assert_true(report.chosen_ns > 0 && report.lookup_ns > 0 && report.exact_ns > 0);
        char by_hand[100] = "";
        o.exact = report.exact;
        nimbus_program *program = compiled_with(p.net, &o);
        for (size_t l = 0; l < 3; l++) {
            const nimbus_choose_layer *layer = &report.layers[l];
            bool exact_before = i % 3 == 2 && l == 1;
            assert_string_equal(layer->name, step_of(program, l).name);
            assert_int_equal(layer->kind, step_of(program, l).kind);
            assert_int_equal(is_listed(report.exact, layer->name),
                             layer->kind == NIMBUS_STEP_EXACT && !exact_before);
            assert_true(exact_before ? isnan(layer->lookup_ns) && isnan(layer->exact_ns)
                                     : layer->lookup_ns > 0 && layer->exact_ns > 0);
            if (layer->kind == NIMBUS_STEP_EXACT)
                (void)snprintf(by_hand + strlen(by_hand), 20, "%s%s", *by_hand ? "," : "",
                               layer->name);
        }
        o.exact = by_hand;
        nimbus_program *again = compiled_with(p.net, &o);
        assert_same_scores(program, again, p.data);
        nimbus_close(program);
        nimbus_close(again);
        free_pair(&p);
    }
}

/* Without weights there is nothing to choose, and nothing is asked for. */
static void test_no_choice(void **state)
{
    (void)state;
    recipe r = plain_recipe(5);
    nimbus_data *data = random_rows(&r);
    nimbus_net *net = random_net(&r, data);
    nimbus_choose_report report;
    CHECK(nimbus_compile_choose(net, NULL, NULL, &report, &error));
    assert_string_equal(report.exact, "");
    assert_int_equal(report.n_layers, 3);
    assert_int_equal(report.layers[2].kind, NIMBUS_STEP_LOOKUP);
    assert_true(isnan(report.chosen_ns) && isnan(report.layers[0].exact_ns));
    nimbus_net_free(net);
    nimbus_data_free(data);
}

static int stop_at(void *user, const nimbus_progress *progress)
{
    long *left = user;
    assert_true(progress->done < progress->total);
    return --*left == 0;
}

static void test_choice_refusals(void **state)
{
    (void)state;
    pair p = make_pair("mlp:16,12", NIMBUS_U8, NULL);
    nimbus_compile_options o = options_of(&p, NULL, true), bad = o;
    nimbus_choose_options choose = brief(), bad_choose = choose;
    nimbus_choose_report report;
    bad.calibration = NULL;
    CHECK_FAILS(nimbus_compile_choose(p.net, &bad, &choose, &report, &error), NIMBUS_ERR_ARGUMENT,
                "give data to measure");
    bad = o;
    bad.exact = "linear1";
    CHECK_FAILS(nimbus_compile_choose(p.net, &bad, &choose, &report, &error), NIMBUS_ERR_ARGUMENT,
                "(\"linear1\") is given");
    bad.size = 3;
    CHECK_FAILS(nimbus_compile_choose(p.net, &bad, &choose, &report, &error), NIMBUS_ERR_ARGUMENT,
                "INIT");
    bad_choose.batch = 65537;
    CHECK_FAILS(nimbus_compile_choose(p.net, &o, &bad_choose, &report, &error), NIMBUS_ERR_ARGUMENT,
                "batches of 65537 rows");
    bad_choose = choose;
    bad_choose.seconds = NAN;
    CHECK_FAILS(nimbus_compile_choose(p.net, &o, &bad_choose, &report, &error), NIMBUS_ERR_ARGUMENT,
                "seconds a comparison");
    nimbus_data *floats = make_data(40, NIMBUS_F32, 4);
    bad = o;
    bad.calibration = floats;
    CHECK_FAILS(nimbus_compile_choose(p.net, &bad, &choose, &report, &error), NIMBUS_ERR_MISMATCH,
                "calibration data of f32 values, expected u8");
    nimbus_data_free(floats);
    nimbus_net *other = float_net("mlp:16,9", p.data, 0);
    bad = o;
    bad.float_net = other;
    CHECK_FAILS(nimbus_compile_choose(p.net, &bad, &choose, &report, &error), NIMBUS_ERR_MISMATCH,
                "layer 3 of the float net");
    nimbus_net_free(other);
    for (long k = 1;; k++) {
        long left = k;
        choose.progress = stop_at;
        choose.progress_user = &left;
        nimbus_status status = nimbus_compile_choose(p.net, &o, &choose, &report, &error);
        if (left > 0) {
            assert_int_equal(status, NIMBUS_OK);
            assert_int_equal(k, 7); /* all, three layers, two at the end: six comparisons */
            break;
        }
        assert_int_equal(status, NIMBUS_ERR_CANCELLED);
    }
    free_pair(&p);
}

/* ---- memory ---------------------------------------------------------------------------------- */

/* Every k-th allocation fails: a status, nothing lost or leaked. */
static void test_failing_allocations(void **state)
{
    (void)state;
    pair p = make_pair("mlp:8;bn", NIMBUS_F32, NULL);
    nimbus_compile_options o = options_of(&p, "linear1", true), open = options_of(&p, NULL, true);
    nimbus_choose_options choose = brief();
    for (int choice = 0; choice < 2; choice++) {
        nimbus_status status = NIMBUS_ERR_MEMORY;
        long k = 0;
        while (status != NIMBUS_OK) {
            nimbus_choose_report report;
            void *bytes = NULL;
            size_t n;
            nimbus_fail_alloc_after = ++k;
            status = choice ? nimbus_compile_choose(p.net, &open, &choose, &report, &error)
                            : nimbus_compile(p.net, &o, &bytes, &n, &error);
            bool failed = nimbus_fail_alloc_after == 0;
            nimbus_fail_alloc_after = 0;
            assert_int_equal(status, failed ? NIMBUS_ERR_MEMORY : NIMBUS_OK);
            nimbus_compile_free(bytes);
        }
        assert_true(k > 50);
    }
    free_pair(&p);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_all_exact_is_the_float_net),
        cmocka_unit_test(test_mixed_plans),
        cmocka_unit_test(test_fit_helps),
        cmocka_unit_test(test_same_bytes),
        cmocka_unit_test(test_layers_exact_before),
        cmocka_unit_test(test_refusals),
        cmocka_unit_test(test_choice),
        cmocka_unit_test(test_no_choice),
        cmocka_unit_test(test_choice_refusals),
        cmocka_unit_test(test_failing_allocations),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
