/* text.c - arrays and text of the exported C */
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

#include "export/export.h"

void nimbus_text(nimbus_buffer *b, const char *format, ...)
{
    char line[4000];
    va_list args;
    va_start(args, format);
    int n = vsnprintf(line, sizeof line, format, args);
    va_end(args);
    if (n < 0 || (size_t)n >= sizeof line)
        b->failed = true;
    else
        nimbus_write_bytes(b, line, (size_t)n);
}

void nimbus_text_move(nimbus_buffer *to, nimbus_buffer *from)
{
    to->failed |= from->failed;
    if (!from->failed)
        nimbus_write_bytes(to, from->bytes, from->size);
    nimbus_buffer_free(from);
}

void nimbus_upper(const char *name, char out[NIMBUS_MOST_PREFIX + 1])
{
    size_t i = 0;
    for (; name[i]; i++)
        out[i] = (char)(name[i] >= 'a' && name[i] <= 'z' ? name[i] - 'a' + 'A' : name[i]);
    out[i] = '\0';
}

void nimbus_plain_name(const char *name, char out[NIMBUS_STEP_NAME_BYTES])
{
    size_t i = 0;
    for (; name[i]; i++) {
        const bool plain = name[i] >= ' ' && name[i] <= '~' && name[i] != '*' && name[i] != '|' &&
                           name[i] != '\\' && name[i] != '?';
        out[i] = plain ? name[i] : '_';
    }
    out[i] = '\0';
}

bool nimbus_needs_helper(nimbus_source *source, const char *name)
{
    const nimbus_buffer *names = &source->names;
    for (size_t i = 0; i < names->size; i += strlen((const char *)names->bytes + i) + 1)
        if (strcmp((const char *)names->bytes + i, name) == 0)
            return false;
    nimbus_write_bytes(&source->names, name, strlen(name) + 1);
    source->helpers.failed |= source->names.failed;
    return true;
}

const char *nimbus_type_for(int64_t low, int64_t high)
{
    if (low >= 0)
        return high <= UINT8_MAX ? "uint8_t" : high <= UINT16_MAX ? "uint16_t" : "uint32_t";
    return low >= INT8_MIN && high <= INT8_MAX     ? "int8_t"
           : low >= INT16_MIN && high <= INT16_MAX ? "int16_t"
                                                   : "int32_t";
}

size_t nimbus_type_bytes(const char *type)
{
    return strstr(type, "32") ? 4 : strstr(type, "16") ? 2 : 1;
}

size_t nimbus_type_padded(const char *type, size_t n)
{
    const size_t each = 4 / nimbus_type_bytes(type);
    return (n + each - 1) / each * each;
}

void nimbus_text_array(nimbus_source *source, const char *type, const char *name,
                       const int64_t *values, size_t n)
{
    const size_t n_padded = nimbus_type_padded(type, n);
    const bool hex = strcmp(type, "uint32_t") == 0;
    nimbus_buffer *b = &source->arrays;
    size_t width = 0;
    nimbus_text(b, "static const %s %s[%zu] = {", type, name, n_padded);
    for (size_t i = 0; i < n_padded; i++) {
        char text[24];
        int length;
        const long long value = i < n ? (long long)values[i] : 0;
        if (hex)
            length = snprintf(text, sizeof text, "0x%llx,", (unsigned long long)value);
        else if (value == INT32_MIN)
            length = snprintf(text, sizeof text, "-2147483647 - 1,");
        else
            length = snprintf(text, sizeof text, "%lld,", value);
        if (i == 0 || width + (size_t)length > 96) {
            nimbus_text(b, "\n    ");
            width = 4;
        }
        nimbus_write_bytes(b, text, (size_t)length);
        width += (size_t)length;
    }
    nimbus_text(b, "\n};\n");
    source->flash += n_padded * nimbus_type_bytes(type);
}

void nimbus_source_free(nimbus_source *source)
{
    nimbus_buffer_free(&source->arrays);
    nimbus_buffer_free(&source->helpers);
    nimbus_buffer_free(&source->steps);
    nimbus_buffer_free(&source->names);
}
