/* fuzz_net.c - any bytes as a .net file: refused, or a net that runs and writes itself again */
#include <stdlib.h>

#include "net_seal.h"

int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t size);

static void run_rows(nimbus_net *net, nimbus_error *error)
{
    enum { N = 3 };
    nimbus_pass *pass;
    size_t d = nimbus_shape_width(net->layers[0].shape);
    if (nimbus_pass_new(net, 0, N, 1, &pass, error) != NIMBUS_OK)
        return;
    real *x = nimbus_pass_input(pass);
    for (size_t i = 0; i < N * d; i++)
        x[i] = (real)(i % 256);
    nimbus_pass_forward(pass, N, net->n_layers - 1);
    nimbus_pass_free(pass);
}

int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t size)
{
    nimbus_error error;
    nimbus_net *net, *again = NULL;
    nimbus_buffer written = {0};
    if (nimbus_net_read(bytes, size, &net, &error) == NIMBUS_OK)
        nimbus_net_free(net);
    uint8_t *sealed = malloc(size + 1);
    if (!sealed)
        return 0;
    if (size > 0)
        memcpy(sealed, bytes, size);
    net_seal(sealed, size);
    if (nimbus_net_read(sealed, size, &net, &error) == NIMBUS_OK) {
        size_t work = 0; /* of a row, roughly */
        for (size_t i = 0; i < net->n_layers; i++) {
            const nimbus_layer *layer = &net->layers[i];
            size_t width = nimbus_shape_width(layer->shape);
            size_t kernel = layer->slide.kernel[0] * layer->slide.kernel[1];
            work += width * (1 + kernel * (layer->units ? layer->in_shape.channels : 1));
        }
        if (work < 1u << 22)
            run_rows(net, &error);
        if (nimbus_net_write(net, &written, &error) != NIMBUS_OK ||
            nimbus_net_read(written.bytes, written.size, &again, &error) != NIMBUS_OK)
            abort(); /* what was read must be writable and readable */
        nimbus_net_free(again);
        nimbus_net_free(net);
    }
    nimbus_buffer_free(&written);
    free(sealed);
    return 0;
}
