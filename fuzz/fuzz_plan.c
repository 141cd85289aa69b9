/* fuzz_plan.c - any text as the layer options of a conversion */
#include <stdlib.h>
#include <string.h>

#include "convert/convert.h"

int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t size);

/* input, linear1, relu1, linear2. */
static nimbus_net *make_net(void)
{
    const nimbus_layer protos[] = {{.type = &nimbus_layer_input, .in_shape = {1, 4, 4}},
                                   {.type = &nimbus_layer_linear, .units = 6},
                                   {.type = &nimbus_layer_relu},
                                   {.type = &nimbus_layer_linear, .units = 3}};
    nimbus_net *net = nimbus_net_new();
    nimbus_error error;
    for (size_t i = 0; net && i < sizeof protos / sizeof protos[0]; i++) {
        size_t below = i - 1;
        if (nimbus_net_add(net, &protos[i], &below, i > 0, 1, &error) != NIMBUS_OK)
            abort();
    }
    return net;
}

/* The message must point into the text, or just behind it. */
static void check_message(const char *text, const char *message)
{
    const char *last = NULL, *at = message;
    while ((at = strstr(at, "\", character ")) != NULL)
        last = at++;
    if (!last || strtoul(last + 13, NULL, 10) > strlen(text) + 1)
        abort();
}

int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t size)
{
    nimbus_convert_options options = NIMBUS_CONVERT_OPTIONS_INIT;
    nimbus_layer_plan *plans = NULL;
    nimbus_error error = {0};
    nimbus_net *net = make_net();
    char *text = malloc(size + 1);
    if (net && text) {
        if (size > 0)
            memcpy(text, bytes, size);
        text[size] = 0;
        options.layers = text;
        if (nimbus_plan_layers(net, &options, &plans, &error) != NIMBUS_OK)
            check_message(text, error.message);
        for (size_t i = 0; plans && i < net->n_layers; i++)
            if (nimbus_layer_is_convertible(&net->layers[i]) &&
                (plans[i].v < 1 || plans[i].trees < 1 || plans[i].levels < 1 ||
                 plans[i].levels > NIMBUS_MAX_LEVELS || plans[i].bits == 1 || plans[i].bits > 8 ||
                 plans[i].tree == NIMBUS_CHOICE_AUTO || plans[i].tree > NIMBUS_CHOICE_FEW ||
                 plans[i].columns > NIMBUS_COLUMNS_RUNS))
                abort();
    }
    nimbus_free(plans);
    nimbus_net_free(net);
    free(text);
    return 0;
}
