/* output.c - aligned tables for people, JSON for programs */
#include <math.h>
#include <stdarg.h>
#include <string.h>

#include "tool.h"

void table_init(table *t, const char *align)
{
    t->align = align;
    t->n_columns = strlen(align);
    t->n_cells = 0;
}

/* The next cell, or NULL when the table is full: further rows are left out. */
static char *table_next(table *t)
{
    if (t->n_cells >= t->n_columns * TABLE_ROWS)
        return NULL;
    return t->cells[t->n_cells++];
}

void table_cell(table *t, const char *format, ...)
{
    char *cell = table_next(t);
    va_list args;
    if (!cell)
        return;
    va_start(args, format);
    vsnprintf(cell, sizeof t->cells[0], format, args);
    va_end(args);
}

void table_heads_of(table *t, const char *const *heads)
{
    for (size_t i = 0; i < t->n_columns; i++)
        table_cell(t, "%s", heads[i]);
}

void table_percent(table *t, double fraction)
{
    table_number(t, "%.2f %%", 100 * fraction);
}

void table_number(table *t, const char *format, double value)
{
    char *cell = table_next(t);
    if (!cell)
        return;
    if (isnan(value))
        snprintf(cell, sizeof t->cells[0], "-");
    else
        snprintf(cell, sizeof t->cells[0], format, value);
}

void table_size(table *t, size_t value)
{
    char *cell = table_next(t), digits[32];
    if (!cell)
        return;
    int n = snprintf(digits, sizeof digits, "%zu", value);
    for (int i = 0; i < n; i++) {
        if (i > 0 && (n - i) % 3 == 0)
            *cell++ = ',';
        *cell++ = digits[i];
    }
    *cell = 0;
}

void table_print(const table *t, FILE *out)
{
    int width[TABLE_COLUMNS] = {0};
    for (size_t i = 0; i < t->n_cells; i++) {
        int n = (int)strlen(t->cells[i]);
        if (n > width[i % t->n_columns])
            width[i % t->n_columns] = n;
    }
    for (size_t i = 0; i < t->n_cells; i++) {
        size_t column = i % t->n_columns;
        int last = column + 1 == t->n_columns;
        if (t->align[column] == 'r')
            fprintf(out, "%*s", width[column], t->cells[i]);
        else
            fprintf(out, "%-*s", last ? 0 : width[column], t->cells[i]);
        fputs(last ? "\n" : "  ", out);
    }
}

json_t *json_number(double value)
{
    return isfinite(value) ? json_real(value) : json_null();
}

double number_of_json(const json_t *value)
{
    return json_is_number(value) ? json_number_value(value) : (double)NAN;
}

int result_finish(const common_arguments *common, const table *t, json_t *json)
{
    int failed = 0;
    if (!json)
        return fail_with("out of memory");
    if (common->json) {
        failed = json_dumpf(json, stdout, JSON_COMPACT | JSON_REAL_PRECISION(9)) != 0;
        putchar('\n');
    } else {
        table_print(t, stdout);
    }
    json_decref(json);
    return failed ? fail_with("cannot print the result") : EXIT_DONE;
}
