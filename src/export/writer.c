/* writer.c - what all functions of steps write with: buffers, numbers, helpers, inputs */
#include "export/writer.h"

#include <stdio.h>
#include <string.h>

/* Room for n numbers, or NULL. */
int64_t *nimbus_writer_numbers(nimbus_writer *w, size_t n)
{
    if (n > w->n_numbers) {
        nimbus_free(w->numbers);
        w->numbers = nimbus_alloc(n, sizeof *w->numbers);
        w->n_numbers = w->numbers ? n : 0;
    }
    if (!w->numbers)
        w->source.arrays.failed = true;
    return w->numbers;
}

void nimbus_writer_array(nimbus_writer *w, const char *type, size_t step, const char *what,
                         size_t n)
{
    char name[64];
    (void)snprintf(name, sizeof name, "step_%zu_%s", step, what);
    nimbus_text_array(&w->source, type, name, w->numbers, n);
}

void nimbus_writer_need(size_t *most, size_t n)
{
    *most = n > *most ? n : *most;
}

void nimbus_writer_helper(nimbus_writer *w, const char *name, const char *text)
{
    if (nimbus_needs_helper(&w->source, name))
        nimbus_write_bytes(&w->source.helpers, text, strlen(text));
}

/* ---- inputs ------------------------------------------------------------------------------- */

static const struct {
    const char *type;
    int64_t low, high;
} input_types[] = {[NIMBUS_EXPORT_U8] = {"uint8_t", 0, UINT8_MAX},
                   [NIMBUS_EXPORT_I8] = {"int8_t", INT8_MIN, INT8_MAX},
                   [NIMBUS_EXPORT_U16] = {"uint16_t", 0, UINT16_MAX},
                   [NIMBUS_EXPORT_I16] = {"int16_t", INT16_MIN, INT16_MAX},
                   [NIMBUS_EXPORT_I32] = {"int32_t", -INT32_MAX + 1, INT32_MAX - 1},
                   [NIMBUS_EXPORT_F32] = {"float", -0x7f800001ll, 0x7f800000ll}};

const char *nimbus_input_type(nimbus_export_input input)
{
    return input_types[input].type;
}

void nimbus_input_range(nimbus_export_input input, int64_t *low, int64_t *high)
{
    *low = input_types[input].low;
    *high = input_types[input].high;
}

/* Found by trying, as the runtime does, whether the integer as a float is above x. */
int64_t nimbus_writer_floor_of(float x, nimbus_export_input input)
{
    int64_t low = input_types[input].low - 1, high = input_types[input].high;
    while (low < high) {
        const int64_t middle = high - (high - low) / 2;
        if ((float)middle > x)
            high = middle - 1;
        else
            low = middle;
    }
    return low;
}
