/* test_tree.c - src/convert: which columns a codebook reads, and the splits that are learned */
#include "convert_maker.h"

/* ---- columns ------------------------------------------------------------------------------- */

static void test_blocks(void **state)
{
    (void)state;
    for (size_t d = 1; d <= 20; d++)
        for (size_t v = 1; v <= d; v++) {
            nimbus_groups g = groups_of((nimbus_shape){d, 1, 1}, v, NIMBUS_COLUMNS_AUTO);
            assert_int_equal(g.n_codebooks, (d + v - 1) / v);
            assert_int_equal(g.first[0], 0);
            assert_int_equal(g.first[g.n_codebooks], d);
            for (size_t c = 0; c < g.n_codebooks; c++) {
                size_t size = g.first[c + 1] - g.first[c];
                assert_int_equal(size, c + 1 < g.n_codebooks ? v : d - c * v);
            }
            for (size_t i = 0; i < d; i++)
                assert_int_equal(g.column[i], i);
            nimbus_groups_free(&g);
        }
}

/* How often each column occurs; asserts that every group is a rectangle in one channel. */
static void count_columns(nimbus_shape s, const nimbus_groups *g, unsigned *counts)
{
    memset(counts, 0, nimbus_shape_width(s) * sizeof *counts);
    for (size_t c = 0; c < g->n_codebooks; c++) {
        size_t top = SIZE_MAX, left = SIZE_MAX, bottom = 0, right = 0, channel = SIZE_MAX;
        size_t size = g->first[c + 1] - g->first[c];
        assert_true(size > 0);
        for (size_t i = g->first[c]; i < g->first[c + 1]; i++) {
            size_t column = g->column[i], y = column / s.width % s.height, x = column % s.width;
            assert_true(column < nimbus_shape_width(s));
            counts[column]++;
            assert_true(channel == SIZE_MAX || channel == column / s.width / s.height);
            channel = column / s.width / s.height;
            top = y < top ? y : top;
            left = x < left ? x : left;
            bottom = y > bottom ? y : bottom;
            right = x > right ? x : right;
        }
        assert_int_equal(size, (bottom - top + 1) * (right - left + 1));
    }
}

static void test_patches(void **state)
{
    (void)state;
    unsigned counts[3 * 9 * 9];
    for (size_t channels = 1; channels <= 3; channels++)
        for (size_t height = 2; height <= 9; height += 1)
            for (size_t width = 2; width <= 9; width += channels)
                for (size_t v = 1; v <= height * width; v++) {
                    nimbus_shape s = {channels, height, width};
                    nimbus_groups g = groups_of(s, v, NIMBUS_COLUMNS_PATCH);
                    nimbus_groups automatic = groups_of(s, v, NIMBUS_COLUMNS_AUTO);
                    count_columns(s, &g, counts);
                    for (size_t i = 0; i < nimbus_shape_width(s); i++)
                        assert_int_equal(counts[i], 1);
                    for (size_t c = 0; c < g.n_codebooks; c++)
                        assert_true(g.first[c + 1] - g.first[c] <= v);
                    assert_memory_equal(g.column, automatic.column,
                                        nimbus_shape_width(s) * sizeof *g.column);
                    nimbus_groups_free(&g);
                    nimbus_groups_free(&automatic);
                }
    nimbus_groups g = groups_of((nimbus_shape){1, 8, 8}, 8, NIMBUS_COLUMNS_PATCH);
    assert_int_equal(g.n_codebooks, 8); /* 2 rows of 4 */
    assert_int_equal(g.column[3], 3);
    assert_int_equal(g.column[4], 8);
    nimbus_groups_free(&g);
}

static void test_windows(void **state)
{
    (void)state;
    enum { COUNT = 2 * 8 * 8 };
    nimbus_shape s = {2, 8, 8};
    unsigned counts[COUNT], shared = 0;
    nimbus_groups patch = groups_of(s, 4, NIMBUS_COLUMNS_PATCH);
    nimbus_groups window = groups_of(s, 4, NIMBUS_COLUMNS_WINDOW);
    assert_int_equal(patch.n_codebooks, window.n_codebooks);
    count_columns(s, &window, counts);
    for (size_t i = 0; i < COUNT; i++) {
        assert_true(counts[i] >= 1);
        shared += counts[i] > 1;
    }
    assert_int_equal(shared, COUNT);
    for (size_t c = 0; c < patch.n_codebooks; c++) {
        size_t found = 0;
        assert_true(window.first[c + 1] - window.first[c] > patch.first[c + 1] - patch.first[c]);
        for (size_t i = patch.first[c]; i < patch.first[c + 1]; i++)
            for (size_t j = window.first[c]; j < window.first[c + 1]; j++)
                found += patch.column[i] == window.column[j];
        assert_int_equal(found, patch.first[c + 1] - patch.first[c]);
    }
    nimbus_groups_free(&patch);
    nimbus_groups_free(&window);
}

/* ---- balanced ------------------------------------------------------------------------------ */

static nimbus_groups balanced(nimbus_shape s, size_t v, const double *importance)
{
    nimbus_groups g = groups_of(s, v, NIMBUS_COLUMNS_BALANCED);
    CHECK(nimbus_groups_balance(s, 4, importance, &g, &error));
    return g;
}

/* As many rectangles as patches would be, each column in one of them, whatever matters how much. */
static void test_balanced_covers(void **state)
{
    (void)state;
    unsigned counts[3 * 9 * 9];
    double importance[3 * 9 * 9];
    for (size_t channels = 1; channels <= 3; channels++)
        for (size_t height = 2; height <= 9; height++)
            for (size_t v = 1; v <= height * 7; v += channels) {
                nimbus_shape s = {channels, height, 7}, vector = {channels * height * 7, 1, 1};
                for (size_t i = 0; i < vector.channels; i++) { /* many are 0 */
                    uint64_t r = nimbus_random_below(v, height, i, 12);
                    importance[i] = r < 6 ? 0 : exp2((double)r);
                }
                nimbus_groups g = balanced(s, v, importance);
                nimbus_groups patches = groups_of(s, v, NIMBUS_COLUMNS_PATCH);
                assert_int_equal(g.n_codebooks, patches.n_codebooks);
                count_columns(s, &g, counts);
                for (size_t i = 0; i < vector.channels; i++)
                    assert_int_equal(counts[i], 1);
                nimbus_groups_free(&patches);
                nimbus_groups_free(&g);
                g = balanced(vector, v, importance);
                assert_int_equal(g.n_codebooks, (vector.channels + v - 1) / v);
                assert_int_equal(g.first[g.n_codebooks], vector.channels);
                for (size_t i = 0; i < vector.channels; i++) /* runs, in order */
                    assert_int_equal(g.column[i], i);
                nimbus_groups_free(&g);
            }
}

/* Columns that all matter alike are dealt alike; those that do not matter hold no codebooks. */
static void test_balanced_sizes(void **state)
{
    (void)state;
    nimbus_shape s = {1, 8, 8};
    double importance[64], vector[] = {0, .1, 0, 5, 5, 0, .1, 0, .1, 5, .1, 5};
    for (size_t i = 0; i < 64; i++)
        importance[i] = 3;
    nimbus_groups g = balanced(s, 8, importance);
    for (size_t c = 0; c < 8; c++)
        assert_int_equal(g.first[c + 1] - g.first[c], 8);
    nimbus_groups_free(&g);
    for (size_t i = 0; i < 64; i++) /* 4 x 4 in the middle */
        importance[i] = i / 8 / 2 % 3 && i % 8 / 2 % 3 ? 1 : 0;
    g = balanced(s, 4, importance);
    size_t most = 0;
    for (size_t c = 0; c < 16; c++) {
        size_t live = 0;
        for (size_t i = g.first[c]; i < g.first[c + 1]; i++)
            live += importance[g.column[i]] > 0;
        most = live > most ? live : most;
    }
    assert_int_equal(most, 1); /* patches would have up to 4 of the 16 in one */
    nimbus_groups_free(&g);
    g = balanced((nimbus_shape){12, 1, 1}, 3, vector);
    for (size_t c = 0; c < 4; c++) { /* 3, 4, 9 and 11 each have a tree */
        double sum = 0;
        for (size_t i = g.first[c]; i < g.first[c + 1]; i++)
            sum += vector[g.column[i]];
        assert_true(sum > 4 && sum < 6);
    }
    nimbus_groups_free(&g);
}

static void test_bad_groups(void **state)
{
    (void)state;
    nimbus_groups g;
    nimbus_shape vector = {10, 1, 1}, image = {1, 3, 4};
    CHECK_FAILS(nimbus_groups_new(vector, 11, NIMBUS_COLUMNS_AUTO, &g, &error), NIMBUS_ERR_ARGUMENT,
                "11 columns per codebook, expected 1 to the layer's 10 inputs");
    assert_null(g.column);
    CHECK_FAILS(nimbus_groups_new(vector, 0, NIMBUS_COLUMNS_BLOCK, &g, &error), NIMBUS_ERR_ARGUMENT,
                "0 columns");
    CHECK_FAILS(nimbus_groups_new(image, 13, NIMBUS_COLUMNS_WINDOW, &g, &error),
                NIMBUS_ERR_ARGUMENT, "12 inputs");
    CHECK_FAILS(nimbus_groups_new(vector, 4, NIMBUS_COLUMNS_PATCH, &g, &error), NIMBUS_ERR_ARGUMENT,
                "need an image");
    CHECK_FAILS(nimbus_groups_new(vector, 4, NIMBUS_COLUMNS_WINDOW, &g, &error),
                NIMBUS_ERR_ARGUMENT, "vector of 10");
    double importance[12] = {1};
    g = groups_of(image, 4, NIMBUS_COLUMNS_BALANCED);
    nimbus_fail_alloc_after = 1;
    CHECK_FAILS(nimbus_groups_balance(image, 4, importance, &g, &error), NIMBUS_ERR_MEMORY,
                "4 codebooks");
    nimbus_groups_free(&g);
    for (long k = 1; k <= 2; k++)
        for (int columns = NIMBUS_COLUMNS_BLOCK; columns <= NIMBUS_COLUMNS_RUNS; columns++) {
            nimbus_fail_alloc_after = k;
            CHECK_FAILS(nimbus_groups_new(image, 4, (nimbus_columns)columns, &g, &error),
                        NIMBUS_ERR_MEMORY, "codebooks");
            assert_true(!g.first && !g.column && nimbus_fail_alloc_after == 0);
        }
}

/* ---- planted splits ------------------------------------------------------------------------ */

enum { COLUMNS = 8, ROWS = 400 };

/* Noise of +-0.1 around zero in columns 0, 1, 4 and 6; the others are the caller's. */
static real *noise_rows(size_t n, uint64_t seed)
{
    static const bool noisy[COLUMNS] = {true, true, false, false, true, false, true, false};
    real *x = nimbus_alloc(n * COLUMNS, sizeof *x);
    assert_non_null(x);
    for (size_t i = 0; i < n * COLUMNS; i++)
        x[i] = noisy[i % COLUMNS] ? (real)uniform(seed, 1, i, -0.1, 0.1) : 0;
    return x;
}

static bool coin(size_t row, uint64_t which)
{
    return nimbus_random_uniform(8, which, row) < 0.5;
}

typedef struct tree {
    nimbus_net *net;
    nimbus_layer *layer;
    nimbus_groups groups;
    const real *column, *threshold, *margin;
} tree;

static tree tree_new(size_t v, size_t m)
{
    tree t = {.net = one_layer((nimbus_shape){COLUMNS, 1, 1}, m)};
    t.layer = &t.net->layers[1];
    t.groups = groups_of((nimbus_shape){COLUMNS, 1, 1}, v, NIMBUS_COLUMNS_BLOCK);
    return t;
}

static void tree_learn(tree *t, const real *x, size_t n, size_t levels, nimbus_tree_kind kind,
                       nimbus_split_method method)
{
    CHECK(learn(t->layer, x, n, &t->groups, levels, kind, method, 1));
    t->column = values_of(t->layer, "columns");
    t->threshold = values_of(t->layer, "thresholds");
    t->margin = values_of(t->layer, "margin");
}

static void tree_free(tree *t)
{
    nimbus_net_free(t->net);
    nimbus_groups_free(&t->groups);
}

static void assert_node(const tree *t, size_t node, size_t column, double low, double high)
{
    assert_int_equal((size_t)t->column[node], column);
    if (!((double)t->threshold[node] > low && (double)t->threshold[node] < high))
        print_error("node %zu: threshold %g\n", node, (double)t->threshold[node]);
    assert_true((double)t->threshold[node] > low && (double)t->threshold[node] < high);
}

/* Three columns of two values each: found in the order of their spread, by every kind. */
static void test_planted_shared(void **state)
{
    (void)state;
    real *x = noise_rows(ROWS, 1);
    for (size_t n = 0; n < ROWS; n++) {
        x[n * COLUMNS + 5] += coin(n, 1) ? 10 : 0;
        x[n * COLUMNS + 2] += coin(n, 2) ? 4 : 0;
        x[n * COLUMNS + 7] += coin(n, 3) ? (real)1.5 : 0;
    }
    for (int kind = NIMBUS_TREE_SHARED; kind <= NIMBUS_TREE_FERN; kind++) {
        tree t = tree_new(COLUMNS, 4);
        uint8_t codes[ROWS];
        tree_learn(&t, x, ROWS, 3, (nimbus_tree_kind)kind, NIMBUS_PLAIN);
        assert_node(&t, 0, 5, 0, 10);
        for (size_t i = 1; i < 3; i++)
            assert_node(&t, i, 2, 0, 4);
        for (size_t i = 3; i < 7; i++)
            assert_node(&t, i, 7, 0, 1.5);
        nimbus_lookup_encode(t.layer, x, ROWS, codes, 1);
        for (size_t n = 0; n < ROWS; n++)
            assert_int_equal(codes[n], 4 * coin(n, 1) + 2 * coin(n, 2) + coin(n, 3));
        tree_free(&t);
    }
    nimbus_free(x);
}

/* Right of column 5 column 2 counts, left of it column 3: only a tree per node can use both. */
static void test_planted_per_node(void **state)
{
    (void)state;
    real *x = noise_rows(ROWS, 1);
    for (size_t n = 0; n < ROWS; n++) {
        x[n * COLUMNS + 5] += coin(n, 1) ? 20 : 0;
        if (coin(n, 1))
            x[n * COLUMNS + 2] += coin(n, 2) ? 5 : 0;
        else
            x[n * COLUMNS + 3] += coin(n, 2) ? 4 : 0;
    }
    tree t = tree_new(COLUMNS, 4);
    tree_learn(&t, x, ROWS, 2, NIMBUS_TREE_PER_NODE, NIMBUS_PLAIN);
    assert_node(&t, 0, 5, 0, 20);
    assert_node(&t, 1, 3, 0, 4);
    assert_node(&t, 2, 2, 0, 5);
    tree_learn(&t, x, ROWS, 2, NIMBUS_TREE_SHARED, NIMBUS_PLAIN);
    assert_node(&t, 1, 2, 0, 5);
    assert_node(&t, 2, 2, 0, 5);
    tree_free(&t);
    nimbus_free(x);
}

/* Two trees a group whose nodes choose among few columns: nodes differ, but a group's first tree
 * compares none that a tree with a column a level would not, and its second as few. */
static void test_few(void **state)
{
    (void)state;
    enum { TREES = 2, LEVELS = 3, NODES = 7 };
    real *x = noise_rows(ROWS, 3);
    for (size_t i = 0; i < ROWS * COLUMNS; i++)
        x[i] = (real)uniform(3, 2, i, -1, 1);
    tree shared = tree_new(COLUMNS / 2, 5), few = tree_new(COLUMNS / 2, 5);
    nimbus_tree_job job = {.x = x,
                           .n_rows = ROWS,
                           .n_columns = COLUMNS,
                           .method = NIMBUS_PLAIN,
                           .few = true,
                           .groups = &few.groups,
                           .n_threads = 2};
    bool differ[TREES] = {false};
    tree_learn(&shared, x, ROWS, LEVELS, NIMBUS_TREE_SHARED, NIMBUS_PLAIN);
    CHECK(learn_job(few.layer, &job, TREES, LEVELS, NIMBUS_TREE_PER_NODE));
    for (size_t c = 0; c < 2 * TREES; c++) {
        const real *columns = values_of(few.layer, "columns") + NODES * c;
        const real *level = shared.column + NODES * (c / TREES);
        for (size_t i = 0; i < NODES && c % TREES == 0; i++)
            assert_true(columns[i] == level[0] || columns[i] == level[1] || columns[i] == level[3]);
        assert_true(different_columns(columns, NODES) <= LEVELS);
        differ[c % TREES] |= columns[1] != columns[2] || columns[3] != columns[4];
    }
    assert_true(differ[0] && differ[1]);
    tree_free(&shared);
    tree_free(&few);
    nimbus_free(x);
}

/* Two values left and two right, not the same ones: shared trees have a threshold for each,
 * a fern one for both. */
static void test_planted_fern(void **state)
{
    (void)state;
    real *x = noise_rows(ROWS, 1);
    for (size_t n = 0; n < ROWS; n++) {
        x[n * COLUMNS + 5] += coin(n, 1) ? 50 : 0;
        x[n * COLUMNS + 2] += (real)(4 * coin(n, 1) + 4 * coin(n, 2));
    }
    tree t = tree_new(COLUMNS, 4);
    tree_learn(&t, x, ROWS, 2, NIMBUS_TREE_SHARED, NIMBUS_PLAIN);
    assert_node(&t, 0, 5, 0, 50);
    assert_node(&t, 1, 2, 0, 4);
    assert_node(&t, 2, 2, 4, 8);
    tree_learn(&t, x, ROWS, 2, NIMBUS_TREE_FERN, NIMBUS_PLAIN);
    assert_node(&t, 1, 2, 0, 8);
    assert_true(t.threshold[1] == t.threshold[2] && t.column[1] == t.column[2]);
    tree_free(&t);
    nimbus_free(x);
}

/* ---- joined splits ------------------------------------------------------------------------- */

/* Columns 0..3 vary most, but no output reads them. */
static void test_joined_reads_weights(void **state)
{
    (void)state;
    real *x = normal_rows(ROWS, COLUMNS, 4);
    tree t = tree_new(COLUMNS, 5);
    real *weight = values_of(t.layer, "weight");
    for (size_t n = 0; n < ROWS; n++)
        for (size_t j = 0; j < 4; j++)
            x[n * COLUMNS + j] *= 20;
    for (size_t m = 0; m < 5; m++)
        for (size_t j = 0; j < COLUMNS; j++)
            weight[m * COLUMNS + j] = j < 4 ? 0 : (real)nimbus_random_normal(5, 1, m * COLUMNS + j);
    for (int kind = NIMBUS_TREE_SHARED; kind <= NIMBUS_TREE_FERN; kind++) {
        tree_learn(&t, x, ROWS, 4, (nimbus_tree_kind)kind, NIMBUS_JOINED);
        for (size_t i = 0; i < 15; i++)
            assert_true(t.column[i] >= 4);
        tree_learn(&t, x, ROWS, 4, (nimbus_tree_kind)kind, NIMBUS_PLAIN);
        for (size_t i = 0; i < 15; i++)
            assert_true(t.column[i] < 4);
    }
    tree_free(&t);
    nimbus_free(x);
}

/* With W^T W the identity the outputs' distances are the inputs'. */
static void test_joined_equals_plain(void **state)
{
    (void)state;
    real *x = normal_rows(ROWS, COLUMNS, 6);
    for (size_t v = 1; v <= COLUMNS; v += 3) {
        tree a = tree_new(v, COLUMNS), b = tree_new(v, COLUMNS);
        real *weight = values_of(a.layer, "weight");
        memset(weight, 0, (size_t)COLUMNS * COLUMNS * sizeof *weight);
        for (size_t j = 0; j < COLUMNS; j++)
            weight[(j * 3 % COLUMNS) * COLUMNS + j] = j % 2 ? 1 : -1;
        for (int kind = NIMBUS_TREE_SHARED; kind <= NIMBUS_TREE_FERN; kind++) {
            size_t nodes = a.groups.n_codebooks * 15;
            tree_learn(&a, x, ROWS, 4, (nimbus_tree_kind)kind, NIMBUS_JOINED);
            tree_learn(&b, x, ROWS, 4, (nimbus_tree_kind)kind, NIMBUS_PLAIN);
            assert_memory_equal(a.column, b.column, nodes * sizeof *a.column);
            assert_memory_equal(a.threshold, b.threshold, nodes * sizeof *a.threshold);
        }
        tree_free(&a);
        tree_free(&b);
    }
    nimbus_free(x);
}

/* ---- what holds for any data --------------------------------------------------------------- */

/* Asserts the ties of the tree's kind, and that each threshold lies strictly between two values
 * of its column, so that it cuts no run of equal ones; for a constant column it is the value. */
static void check_tree(const tree *t, const real *x, size_t n, size_t levels, nimbus_tree_kind kind)
{
    size_t nodes = ((size_t)1 << levels) - 1;
    for (size_t c = 0; c < t->groups.n_codebooks; c++)
        for (size_t h = 0, i = c * nodes; h < levels; h++)
            for (size_t b = 0, first = i; b < (size_t)1 << h; b++, i++) {
                size_t column = (size_t)t->column[i], place = t->groups.first[c];
                real low = x[column], high = x[column];
                bool equal = false;
                while (place < t->groups.first[c + 1] && t->groups.column[place] != column)
                    place++;
                assert_true(place < t->groups.first[c + 1]);
                assert_true(kind == NIMBUS_TREE_PER_NODE || t->column[i] == t->column[first]);
                assert_true(kind != NIMBUS_TREE_FERN || t->threshold[i] == t->threshold[first]);
                for (size_t r = 0; r < n; r++) {
                    real value = x[r * COLUMNS + column];
                    low = value < low ? value : low;
                    high = value > high ? value : high;
                    equal |= value == t->threshold[i];
                }
                assert_true(low == high
                                ? t->threshold[i] == low
                                : !equal && t->threshold[i] > low && t->threshold[i] < high);
                assert_true(isfinite(t->margin[i]) && t->margin[i] > 0);
            }
}

static real tied_value(uint64_t seed, size_t i)
{
    double value = nimbus_random_normal(seed, 9, i);
    switch (seed % 4) {
    case 0: /* after ReLU: half are zeros */
        return (real)(value > 0 ? value : 0);
    case 1: /* few values */
        return (real)floor(value);
    case 2: /* two values, and some columns constant */
        return i % COLUMNS < 3 ? (real)-2.5 : (real)(value > 1);
    default:
        return (real)(rint(value * 64) / 64 + 1000);
    }
}

static void test_ties(void **state)
{
    (void)state;
    for (uint64_t seed = 0; seed < 48; seed++) {
        size_t levels = 1 + seed % 8, n = ((size_t)1 << levels) + seed * 3;
        nimbus_tree_kind kind = (nimbus_tree_kind)(seed / 2 % 3);
        real *x = nimbus_alloc(n * COLUMNS, sizeof *x);
        tree t = tree_new(1 + seed % COLUMNS, 3);
        assert_non_null(x);
        for (size_t i = 0; i < n * COLUMNS; i++)
            x[i] = tied_value(seed, i);
        tree_learn(&t, x, n, levels, kind, seed % 5 ? NIMBUS_JOINED : NIMBUS_PLAIN);
        check_tree(&t, x, n, levels, kind);
        tree_free(&t);
        nimbus_free(x);
    }
}

/* Neighbouring floats have nothing between them; they must still be told apart. */
static void test_neighbouring_values(void **state)
{
    (void)state;
    real *x = nimbus_alloc(16 * COLUMNS, sizeof *x);
    tree t = tree_new(COLUMNS, 3);
    uint8_t codes[16];
    assert_non_null(x);
    for (size_t n = 0; n < 16; n++)
        x[n * COLUMNS + 4] = n % 2 ? nextafterf(100, 200) : 100;
    tree_learn(&t, x, 16, 1, NIMBUS_TREE_SHARED, NIMBUS_PLAIN);
    nimbus_lookup_encode(t.layer, x, 16, codes, 1);
    for (size_t n = 0; n < 16; n++)
        assert_int_equal(codes[n], n % 2);
    tree_free(&t);
    nimbus_free(x);
}

static void test_constant_columns(void **state)
{
    (void)state;
    real *x = nimbus_alloc((size_t)ROWS * COLUMNS, sizeof *x);
    uint8_t codes[ROWS];
    assert_non_null(x);
    for (size_t i = 0; i < (size_t)ROWS * COLUMNS; i++)
        x[i] = (real)(i % COLUMNS);
    for (int kind = NIMBUS_TREE_SHARED; kind <= NIMBUS_TREE_FERN; kind++) {
        tree t = tree_new(COLUMNS, 3);
        tree_learn(&t, x, ROWS, 4, (nimbus_tree_kind)kind, NIMBUS_JOINED);
        check_tree(&t, x, ROWS, 4, (nimbus_tree_kind)kind);
        nimbus_lookup_encode(t.layer, x, ROWS, codes, 1);
        for (size_t n = 0; n < ROWS; n++)
            assert_int_equal(codes[n], 0);
        /* one column that varies is the one to split, wherever it stands */
        for (size_t j = 0; j < COLUMNS; j++) {
            for (size_t n = 0; n < ROWS; n++)
                x[n * COLUMNS + j] += (real)(n % 2);
            tree_learn(&t, x, ROWS, 2, (nimbus_tree_kind)kind, NIMBUS_PLAIN);
            assert_int_equal((size_t)t.column[0], j);
            for (size_t n = 0; n < ROWS; n++)
                x[n * COLUMNS + j] -= (real)(n % 2);
        }
        tree_free(&t);
    }
    nimbus_free(x);
}

/* 1 / standard deviation, where that is at least 5 % of the median deviation. */
static void test_margins(void **state)
{
    (void)state;
    static const real deviations[COLUMNS] = {1, 2, 3, 4, 5, (real)0.01, 0, 100};
    real *x = nimbus_alloc(64 * COLUMNS, sizeof *x);
    tree t = tree_new(1, 3);
    assert_non_null(x);
    for (size_t n = 0; n < 64; n++)
        for (size_t j = 0; j < COLUMNS; j++)
            x[n * COLUMNS + j] = (n % 2 ? 1 : -1) * deviations[j];
    tree_learn(&t, x, 64, 1, NIMBUS_TREE_SHARED, NIMBUS_PLAIN);
    for (size_t j = 0; j < COLUMNS; j++) {
        double floor = 0.05 * 3; /* of the seven that vary the middle one is 3 */
        double deviation = (double)deviations[j] > floor ? (double)deviations[j] : floor;
        assert_near((double)t.margin[j], 1 / deviation, 1e-5 / deviation);
    }
    tree_free(&t);
    nimbus_free(x);
}

static void test_too_few_rows(void **state)
{
    (void)state;
    real *x = normal_rows(256, COLUMNS, 1);
    tree t = tree_new(4, 3);
    for (size_t levels = 1; levels <= NIMBUS_MAX_LEVELS; levels++) {
        size_t leaves = (size_t)1 << levels;
        char text[80];
        (void)snprintf(text, sizeof text, "layer linear1: %zu leaves per tree but only %zu rows",
                       leaves, leaves - 1);
        CHECK_FAILS(
            learn(t.layer, x, leaves - 1, &t.groups, levels, NIMBUS_TREE_SHARED, NIMBUS_JOINED, 1),
            NIMBUS_ERR_ARGUMENT, text);
        tree_learn(&t, x, leaves, levels, NIMBUS_TREE_SHARED, NIMBUS_JOINED);
        check_tree(&t, x, leaves, levels, NIMBUS_TREE_SHARED);
    }
    tree_free(&t);
    nimbus_free(x);
}

static void test_threads(void **state)
{
    (void)state;
    real *x = normal_rows(ROWS, COLUMNS, 2);
    tree a = tree_new(2, 3), b = tree_new(2, 3);
    CHECK(learn(a.layer, x, ROWS, &a.groups, 5, NIMBUS_TREE_SHARED, NIMBUS_JOINED, 1));
    CHECK(learn(b.layer, x, ROWS, &b.groups, 5, NIMBUS_TREE_SHARED, NIMBUS_JOINED, 2));
    assert_same_net(a.net, b.net);
    tree_free(&a);
    tree_free(&b);
    nimbus_free(x);
}

static void test_failing_allocations(void **state)
{
    (void)state;
    real *x = normal_rows(64, COLUMNS, 2);
    tree t = tree_new(4, 3);
    nimbus_tree_job job = {.x = x,
                           .n_rows = 64,
                           .n_columns = COLUMNS,
                           .weight = values_of(t.layer, "weight"),
                           .n_outputs = 3,
                           .groups = &t.groups,
                           .n_threads = 1};
    nimbus_status status = NIMBUS_ERR_MEMORY;
    long k = 0;
    CHECK(nimbus_lookup_attach(t.layer, 2, 3, NIMBUS_TREE_SHARED, &error));
    while (status != NIMBUS_OK) {
        nimbus_fail_alloc_after = ++k;
        status = nimbus_trees_learn(t.layer, &job, &error);
        bool failed = nimbus_fail_alloc_after == 0;
        nimbus_fail_alloc_after = 0;
        assert_int_equal(status, failed ? NIMBUS_ERR_MEMORY : NIMBUS_OK);
        assert_true(status == NIMBUS_OK || strstr(error.message, "linear1"));
    }
    assert_true(k > 10);
    tree_free(&t);
    nimbus_free(x);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_blocks),
        cmocka_unit_test(test_patches),
        cmocka_unit_test(test_windows),
        cmocka_unit_test(test_balanced_covers),
        cmocka_unit_test(test_balanced_sizes),
        cmocka_unit_test(test_bad_groups),
        cmocka_unit_test(test_planted_shared),
        cmocka_unit_test(test_planted_per_node),
        cmocka_unit_test(test_few),
        cmocka_unit_test(test_planted_fern),
        cmocka_unit_test(test_joined_reads_weights),
        cmocka_unit_test(test_joined_equals_plain),
        cmocka_unit_test(test_ties),
        cmocka_unit_test(test_neighbouring_values),
        cmocka_unit_test(test_constant_columns),
        cmocka_unit_test(test_margins),
        cmocka_unit_test(test_too_few_rows),
        cmocka_unit_test(test_threads),
        cmocka_unit_test(test_failing_allocations),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
