/* test_plan.c - src/convert: what the options say about each layer */
#include "convert_maker.h"

static nimbus_net *three_layers(void)
{
    nimbus_data *data = make_data(8, NIMBUS_U8, 1);
    nimbus_net *net = float_net("mlp:12,5", data, 0);
    nimbus_data_free(data);
    return net;
}

static nimbus_layer_plan *plans_of(const nimbus_net *net, const nimbus_convert_options *o)
{
    nimbus_layer_plan *plans;
    CHECK(nimbus_plan_layers(net, o, &plans, &error));
    return plans;
}

/* The linear layers of the net. */
enum { LINEAR1 = 1, LINEAR2 = 3, LINEAR3 = 5 };

static void test_defaults(void **state)
{
    (void)state;
    nimbus_net *net = three_layers();
    for (int preset = NIMBUS_BALANCED; preset <= NIMBUS_ACCURACY; preset++) {
        nimbus_convert_options o = NIMBUS_CONVERT_OPTIONS_INIT;
        o.preset = (nimbus_preset)preset;
        nimbus_layer_plan *plans = plans_of(net, &o);
        /* 36, 12 and 5 inputs: a sixteenth of them, so that enough trees are left */
        assert_int_equal(plans[LINEAR1].v, 2);
        assert_int_equal(plans[LINEAR2].v, 1);
        assert_int_equal(plans[LINEAR3].v, 1);
        for (size_t i = LINEAR1; i <= LINEAR3; i += 2) {
            assert_false(plans[i].exact);
            assert_int_equal(plans[i].levels, 4);
            assert_int_equal(plans[i].bits, preset == NIMBUS_SPEED ? 7 : 8);
            assert_int_equal(plans[i].columns, i > LINEAR1              ? NIMBUS_COLUMNS_AUTO
                                               : preset == NIMBUS_SPEED ? NIMBUS_COLUMNS_RUNS
                                                                        : NIMBUS_COLUMNS_BALANCED);
            assert_int_equal(plans[i].tree, preset == NIMBUS_SPEED ? NIMBUS_CHOICE_SHARED
                                            : i == LINEAR1         ? NIMBUS_CHOICE_PER_NODE
                                                                   : NIMBUS_CHOICE_FEW);
        }
        nimbus_free(plans);
        o.v = 30;
        o.levels = 7;
        o.bits = 32;
        o.tree = NIMBUS_CHOICE_FERN;
        plans = plans_of(net, &o);
        for (size_t i = LINEAR1; i <= LINEAR3; i += 2) {
            assert_int_equal(plans[i].v, 30); /* given, so refused where it is too large */
            assert_int_equal(plans[i].levels, 7);
            assert_int_equal(plans[i].bits, 0);
            assert_int_equal(plans[i].tree, NIMBUS_CHOICE_FERN);
        }
        nimbus_free(plans);
    }
    nimbus_net_free(net);
}

/* Layers of 256 inputs and more have the preset's V. */
static void test_wide_layers(void **state)
{
    (void)state;
    static const size_t v_of_preset[] = {8, 16, 4};
    nimbus_net *net = nimbus_net_new();
    const nimbus_layer input = {.type = &nimbus_layer_input, .in_shape = {1, 16, 16}};
    const nimbus_layer linear = {.type = &nimbus_layer_linear, .units = 3};
    CHECK(nimbus_net_add(net, &input, NULL, 0, 1, &error));
    CHECK(nimbus_net_add(net, &linear, (size_t[]){0}, 1, 1, &error));
    for (int preset = NIMBUS_BALANCED; preset <= NIMBUS_ACCURACY; preset++) {
        nimbus_convert_options o = NIMBUS_CONVERT_OPTIONS_INIT;
        o.preset = (nimbus_preset)preset;
        nimbus_layer_plan *plans = plans_of(net, &o);
        assert_int_equal(plans[1].v, v_of_preset[preset]);
        nimbus_free(plans);
    }
    nimbus_net_free(net);
}

static void assert_trees(const nimbus_net *net, const nimbus_convert_options *o,
                         nimbus_tree_choice first, nimbus_tree_choice second,
                         nimbus_tree_choice third)
{
    nimbus_layer_plan *plans = plans_of(net, o);
    assert_int_equal(plans[LINEAR1].tree, first);
    assert_int_equal(plans[LINEAR2].tree, second);
    assert_int_equal(plans[LINEAR3].tree, third);
    nimbus_free(plans);
}

static void test_layer_options(void **state)
{
    (void)state;
    nimbus_net *net = three_layers();
    nimbus_convert_options o = NIMBUS_CONVERT_OPTIONS_INIT;
    o.layers = "linear3:exact;linear1:v=9,levels=8,bits=2,tree=fern,columns=window;"
               "linear2:bits=32,tree=node,columns=block;";
    nimbus_layer_plan *plans = plans_of(net, &o);
    const nimbus_layer_plan *p = &plans[LINEAR1];
    assert_true(!p->exact && p->v == 9 && p->levels == 8 && p->bits == 2 &&
                p->tree == NIMBUS_CHOICE_FERN && p->columns == NIMBUS_COLUMNS_WINDOW);
    p = &plans[LINEAR2];
    assert_true(!p->exact && p->v == 1 && p->levels == 4 && p->bits == 0 &&
                p->tree == NIMBUS_CHOICE_PER_NODE && p->columns == NIMBUS_COLUMNS_BLOCK);
    assert_true(plans[LINEAR3].exact);
    nimbus_free(plans);
    o.layers = "linear1:levels=5;linear2:levels=5;linear3:tree=few,levels=5";
    /* more levels than few is for */
    assert_trees(net, &o, NIMBUS_CHOICE_PER_NODE, NIMBUS_CHOICE_SHARED, NIMBUS_CHOICE_FEW);
    o.tree = NIMBUS_CHOICE_SHARED;
    o.layers = "linear2:tree=auto";
    assert_trees(net, &o, NIMBUS_CHOICE_SHARED, NIMBUS_CHOICE_FEW, NIMBUS_CHOICE_SHARED);
    o.tree = NIMBUS_CHOICE_AUTO;
    o.layers = "linear1:columns=patch,tree=shared;linear2:columns=auto,v=12;linear2:v=3";
    plans = plans_of(net, &o);
    assert_int_equal(plans[LINEAR1].columns, NIMBUS_COLUMNS_PATCH);
    assert_int_equal(plans[LINEAR1].tree, NIMBUS_CHOICE_SHARED);
    assert_int_equal(plans[LINEAR2].v, 3); /* the last word counts */
    assert_false(plans[LINEAR3].exact);
    nimbus_free(plans);
    o.method = NIMBUS_METHOD_LUT_NN; /* deals columns as published */
    o.layers = NULL;
    plans = plans_of(net, &o);
    assert_int_equal(plans[LINEAR1].columns, NIMBUS_COLUMNS_AUTO);
    nimbus_free(plans);
    nimbus_net_free(net);
}

/* The message quotes the text, and says at which character what was expected. */
static void test_bad_layer_options(void **state)
{
    (void)state;
    static const struct {
        const char *text;
        size_t at;
        const char *expected;
    } cases[] = {
        {"bogus:v=4", 1, "the name of a linear layer"},
        {"relu1:exact", 1, "the name of a linear layer"},
        {"linear:v=4", 1, "the name of a linear layer"},
        {"linear11:v=4", 1, "the name of a linear layer"},
        {";linear1:v=4", 1, "the name of a linear layer"},
        {"linear1:v=4;;", 13, "the name of a linear layer"},
        {"linear1:v=4; linear2:v=4", 13, "the name of a linear layer"},
        {"linear1", 8, "\":\""},
        {"linear1;linear2:exact", 8, "\":\""},
        {"linear1=v", 8, "\":\""},
        {"linear1:", 9, "one of exact, v="},
        {"linear1:w=3", 9, "one of exact, v="},
        {"linear1:exact,", 15, "one of exact, v="},
        {"linear1:V=3", 9, "one of exact, v="},
        {"linear1:v", 10, "\"=\""},
        {"linear1:v,exact", 10, "\"=\""},
        {"linear1:v=", 11, "a number from 1 to 16777216"},
        {"linear1:v=0", 11, "a number from 1 to 16777216"},
        {"linear1:v=-1", 11, "a number from 1"},
        {"linear1:v=-18446744073709551612", 11, "a number from 1"},
        {"linear1:v=+4", 11, "a number from 1"},
        {"linear1:v= 4", 11, "a number from 1"},
        {"linear1:v=4x", 11, "a number from 1"},
        {"linear1:v=0x4", 11, "a number from 1"},
        {"linear1:v=16777217", 11, "a number from 1"},
        {"linear1:v=99999999999999999999999", 11, "a number from 1"},
        {"linear1:v=4:", 12, "\",\", \";\" or the end"},
        {"linear1:exact=1", 14, "\",\", \";\" or the end"},
        {"linear1:v=4,levels=0", 20, "a number from 1 to 8"},
        {"linear1:v=4,levels=9", 20, "a number from 1 to 8"},
        {"linear1:bits=1", 14, "a number from 2 to 32"},
        {"linear1:bits=9", 14, "2 to 8 bits, or 32"},
        {"linear1:bits=16", 14, "2 to 8 bits, or 32"},
        {"linear1:bits=33", 14, "a number from 2 to 32"},
        {"linear1:tree=oak", 14, "auto, shared, node, fern or few"},
        {"linear1:tree=", 14, "auto, shared, node, fern or few"},
        {"linear1:columns=rows", 17, "auto, block, patch, window, balanced or runs"},
        {"linear2:exact;linear1:columns=windows", 31,
         "auto, block, patch, window, balanced or runs"},
    };
    nimbus_net *net = three_layers();
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        nimbus_convert_options o = NIMBUS_CONVERT_OPTIONS_INIT;
        nimbus_layer_plan *plans = (nimbus_layer_plan *)&o;
        char text[200];
        o.layers = cases[i].text;
        (void)snprintf(text, sizeof text, "layer options \"%s\", character %zu: expected %s",
                       cases[i].text, cases[i].at, cases[i].expected);
        CHECK_FAILS(nimbus_plan_layers(net, &o, &plans, &error), NIMBUS_ERR_ARGUMENT, text);
        assert_null(plans);
    }
    nimbus_net_free(net);
}

/* However long the text, the message has room for the place. */
static void test_long_layer_options(void **state)
{
    (void)state;
    nimbus_net *net = three_layers();
    nimbus_convert_options o = NIMBUS_CONVERT_OPTIONS_INIT;
    nimbus_layer_plan *plans;
    char text[1500] = "";
    for (size_t i = 0; i < 100; i++)
        (void)strcat(text, "linear1:exact;");
    (void)strcat(text, ";");
    o.layers = text;
    CHECK_FAILS(nimbus_plan_layers(net, &o, &plans, &error), NIMBUS_ERR_ARGUMENT,
                "...\", character 1401: expected the name of a linear layer");
    nimbus_net_free(net);
}

static void test_bad_options(void **state)
{
    (void)state;
    nimbus_net *net = three_layers();
    nimbus_layer_plan *plans;
    static const unsigned bad_bits[] = {1, 9, 16, 31, 33, 1000};
    nimbus_convert_options o = NIMBUS_CONVERT_OPTIONS_INIT;
    for (size_t i = 0; i < sizeof bad_bits / sizeof *bad_bits; i++) {
        o.bits = bad_bits[i];
        CHECK_FAILS(nimbus_plan_layers(net, &o, &plans, &error), NIMBUS_ERR_ARGUMENT,
                    "bits, expected 2 to 8, or 32");
    }
    o.bits = 0;
    o.levels = 9;
    CHECK_FAILS(nimbus_plan_layers(net, &o, &plans, &error), NIMBUS_ERR_ARGUMENT,
                "9 tree levels, expected 1 to 8");
    o.levels = 0;
    o.preset = (nimbus_preset)3;
    CHECK_FAILS(nimbus_plan_layers(net, &o, &plans, &error), NIMBUS_ERR_ARGUMENT, "preset 3");
    o.preset = NIMBUS_SPEED;
    o.tree = (nimbus_tree_choice)-1;
    CHECK_FAILS(nimbus_plan_layers(net, &o, &plans, &error), NIMBUS_ERR_ARGUMENT,
                "choice of trees -1");
    o.tree = NIMBUS_CHOICE_AUTO;
    nimbus_fail_alloc_after = 1;
    CHECK_FAILS(nimbus_plan_layers(net, &o, &plans, &error), NIMBUS_ERR_MEMORY, "plan");
    nimbus_net_free(net);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_defaults),           cmocka_unit_test(test_wide_layers),
        cmocka_unit_test(test_layer_options),      cmocka_unit_test(test_bad_layer_options),
        cmocka_unit_test(test_long_layer_options), cmocka_unit_test(test_bad_options),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
