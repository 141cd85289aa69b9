/* fuzz_onnx.c - any bytes as an ONNX model: refused, or a net that runs and can be written */
#include <stdlib.h>

#include "net/net.h"

int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t size);

static void run_rows(nimbus_net *net)
{
    enum { N = 2 };
    nimbus_error error;
    nimbus_pass *pass;
    size_t d = nimbus_shape_width(net->layers[0].shape);
    if (nimbus_pass_new(net, 0, N, 1, &pass, &error) != NIMBUS_OK)
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
    nimbus_net *net, *again;
    nimbus_import_report report;
    nimbus_import_options options = NIMBUS_IMPORT_OPTIONS_INIT;
    nimbus_buffer written = {0};
    options.keep_softmax = size % 2 == 1;
    if (nimbus_import_onnx_bytes(bytes, size, &options, &net, &report, &error) != NIMBUS_OK)
        return 0;
    size_t width = 0;
    for (size_t i = 0; i < net->n_layers; i++)
        width += nimbus_shape_width(net->layers[i].shape);
    if (report.n_layers != net->n_layers)
        abort();
    if (width < 1u << 16 && report.multiply_adds < 1u << 20)
        run_rows(net);
    if (nimbus_net_write(net, &written, &error) != NIMBUS_OK ||
        nimbus_net_read(written.bytes, written.size, &again, &error) != NIMBUS_OK)
        abort(); /* what was imported must be writable and readable */
    nimbus_buffer_free(&written);
    nimbus_net_free(again);
    nimbus_net_free(net);
    nimbus_import_report_free(&report);
    return 0;
}
