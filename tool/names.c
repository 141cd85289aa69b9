/* names.c - what the numbers of a row and of the scores stand for, as far as the data has names */
#include <stdlib.h>
#include <string.h>

#include "tool.h"

enum { MOST_NAMES = 256 };

/* The columns of a table and the inputs that each of them becomes. */
static void write_columns(const json_t *columns, FILE *out)
{
    size_t i, k, at = 0;
    const json_t *column, *value;
    fprintf(out, "\ninputs, by columns of the table:\n");
    json_array_foreach(columns, i, column)
    {
        if (i == MOST_NAMES) {
            fprintf(out, "  and %zu columns more\n", json_array_size(columns) - i);
            break;
        }
        const char *kind = json_string_value(json_object_get(column, "kind"));
        const char *name = json_string_value(json_object_get(column, "name"));
        const json_t *values = json_object_get(column, "values");
        const int missing = json_is_true(json_object_get(column, "missing"));
        const size_t width = values ? json_array_size(values) + (size_t)missing : 1;
        if (!kind || !name || (!values && strcmp(kind, "number") != 0))
            continue;
        if (!values)
            fprintf(out, "  %zu  %s%s\n", at, name,
                    json_object_get(column, "map") ? ": sign(x) ln(1 + |x|)" : "");
        json_array_foreach(values, k, value)
        {
            fprintf(out, "  %zu  1 if %s is %s, else 0\n", at + k, name, json_string_value(value));
        }
        if (missing)
            fprintf(out, "  %zu  1 if %s is missing, else 0\n", at + width - 1, name);
        at += width;
    }
}

char *names_of_schema(const char *schema)
{
    char *text = NULL;
    size_t size = 0, i;
    json_t *root = schema ? json_loads(schema, 0, NULL) : NULL;
    const json_t *classes = json_object_get(root, "classes"), *name;
    const json_t *columns = json_object_get(root, "columns");
    FILE *out = json_array_size(classes) ? open_memstream(&text, &size) : NULL;
    if (out) {
        fprintf(out, "scores:\n");
        json_array_foreach(classes, i, name)
        {
            if (i < MOST_NAMES && json_is_string(name))
                fprintf(out, "  %zu  %s\n", i, json_string_value(name));
        }
        if (i > MOST_NAMES)
            fprintf(out, "  and %zu classes more\n", i - MOST_NAMES);
        if (json_array_size(columns))
            write_columns(columns, out);
        if (fclose(out) != 0) {
            free(text);
            text = NULL;
        }
    }
    json_decref(root);
    return text;
}
