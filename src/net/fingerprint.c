/* fingerprint.c - the lines of a fingerprint, and where two differ */
#include <inttypes.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

#include "net/fingerprint.h"
#include "net/net.h"
#include "net/netfile.h"
#include "net/training.h"

void nimbus_fingerprint_line(nimbus_buffer *text, const char *format, ...)
{
    char buffer[256];
    va_list args;
    va_start(args, format);
    int n = vsnprintf(buffer, sizeof buffer, format, args);
    va_end(args);
    size_t length = n < 0 ? 0 : (size_t)n < sizeof buffer ? (size_t)n : sizeof buffer - 1;
    nimbus_write_bytes(text, buffer, length);
    nimbus_write_bytes(text, "\n", 1);
}

void nimbus_fingerprint_values(nimbus_buffer *text, const char *name, const void *values, size_t n,
                               size_t size)
{
    nimbus_fingerprint_line(text, "%s %08" PRIx32, name,
                            values ? nimbus_crc32c(0, values, n * size) : 0);
}

void nimbus_fingerprint_data(nimbus_buffer *text, const nimbus_data *data)
{
    const nimbus_data_info *info = nimbus_data_get_info(data);
    nimbus_fingerprint_line(text, "data-shape %zu x %zu x %zu x %zu of %s", info->n_rows,
                            info->channels, info->height, info->width,
                            nimbus_netfile_dtype_names[info->dtype]);
    nimbus_fingerprint_values(text, "data-features", nimbus_data_features(data),
                              info->n_rows * info->n_features, nimbus_dtype_size(info->dtype));
    nimbus_fingerprint_values(text, "data-labels", nimbus_data_labels(data), info->n_rows,
                              sizeof(int32_t));
    nimbus_fingerprint_values(text, "data-targets", nimbus_data_targets(data),
                              info->n_rows * info->n_targets, sizeof(float));
}

void nimbus_fingerprint_training(nimbus_buffer *text, const nimbus_train_options *o)
{
    nimbus_fingerprint_line(text, "epochs %zu", o->epochs);
    nimbus_fingerprint_line(text, "batch %zu", o->batch);
    nimbus_fingerprint_line(text, "seed %" PRIu64, o->seed);
    nimbus_fingerprint_line(text, "optimiser %d", (int)o->optimiser);
    nimbus_fingerprint_line(text, "schedule %d", (int)o->schedule);
    nimbus_fingerprint_line(text, "shift %u", o->shift);
    nimbus_fingerprint_line(text, "flip %d", o->flip);
    nimbus_fingerprint_line(text, "first_layer %zu", o->first_layer);
    for (size_t i = 0; i < NIMBUS_TRAIN_NUMBERS; i++)
        if (nimbus_train_numbers[i].shapes_result)
            nimbus_fingerprint_line(text, "%s %.17g", nimbus_train_numbers[i].name,
                                    nimbus_train_value(o, i));
}

nimbus_status nimbus_fingerprint_net(nimbus_buffer *text, const char *name, const nimbus_net *net,
                                     nimbus_error *error)
{
    nimbus_buffer bytes = {0};
    nimbus_status status = net ? nimbus_net_write(net, &bytes, error) : NIMBUS_OK;
    nimbus_fingerprint_values(text, name, bytes.bytes, bytes.size, 1);
    nimbus_buffer_free(&bytes);
    return status;
}

/* Length of the line at text[at..size), without its end, 150 at most. */
static int line_length(const char *text, size_t at, size_t size)
{
    size_t most = size - at < 150 ? size - at : 150;
    const char *end = most ? memchr(text + at, '\n', most) : NULL;
    return (int)(end ? (size_t)(end - text) - at : most);
}

nimbus_status nimbus_fingerprint_compare(const char *text, size_t size, const nimbus_buffer *now,
                                         nimbus_error *error)
{
    const char *a = text ? text : "", *b = now->bytes ? (const char *)now->bytes : "";
    size_t a_size = size, b_size = now->size, line = 0, i = 0;
    while (i < a_size && i < b_size && a[i] == b[i]) {
        if (a[i] == '\n')
            line = i + 1;
        i++;
    }
    if (i == a_size && i == b_size)
        return NIMBUS_OK;
    return nimbus_fail(error, NIMBUS_ERR_MISMATCH,
                       "it is of other options, another net or other data: it has \"%.*s\", now it "
                       "is \"%.*s\"",
                       line_length(a, line, a_size), a + line, line_length(b, line, b_size),
                       b + line);
}
