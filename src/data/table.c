/* table.c - features and labels from the cells of a table, by a schema
 *
 * The schema is given, or learned from the table (learn.c). Missing cells ("", "?", "NA", "nan")
 * get the column's mean, or a category of their own if training rows had some. A category never
 * seen in training makes all its features zero. With a schema, columns are found by their
 * headings, or by position: all of them, or all but the label, or the features alone. A first row
 * with some of the headings, or with text for every number, is refused, not taken for data. */
#include <float.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "data/table.h"

enum { SHOWN_TEXT = 40, SHOWN_NAMES = 5 };
#define FREE_FEATURE_BYTES     ((size_t)64 << 20)
#define FEATURE_BYTES_PER_BYTE 256 /* beyond that; one-hot columns multiply a table's size */

nimbus_status nimbus_table_error(const nimbus_table *t, size_t row, size_t column,
                                 nimbus_status status, const char *reason)
{
    nimbus_cell cell = cell_of(&t->csv, row, t->column[column]);
    bool cut = cell.size > SHOWN_TEXT;
    return nimbus_fail_at(t->error, status, cell.at,
                          "row %zu (line %u), column %zu (%.60s), '%.*s%s': %s",
                          row - t->first_row + 1, t->csv.lines[row], t->column[column] + 1,
                          t->schema->headings.name[column], cut ? SHOWN_TEXT : (int)cell.size,
                          cell_text(&t->csv, cell), cut ? "..." : "", reason);
}

int nimbus_text_compare(const void *a, const void *b)
{
    const nimbus_text *x = a, *y = b;
    size_t n = x->size < y->size ? x->size : y->size;
    int order = memcmp(x->at, y->at, n);
    return order != 0 ? order : (x->size > y->size) - (x->size < y->size);
}

nimbus_text *nimbus_text_sort(const nimbus_names *names)
{
    nimbus_text *texts = nimbus_alloc(names->n, sizeof *texts);
    for (size_t i = 0; texts && i < names->n; i++)
        texts[i] = (nimbus_text){names->name[i], strlen(names->name[i]), i};
    if (texts)
        qsort(texts, names->n, sizeof *texts, nimbus_text_compare);
    return texts;
}

/* Index of a cell's text among the names; NIMBUS_ABSENT if it is none of them. */
static size_t look_up(const nimbus_text *sorted, size_t n, const nimbus_csv *csv, nimbus_cell cell)
{
    nimbus_text key = {cell_text(csv, cell), cell.size, 0};
    const nimbus_text *found = bsearch(&key, sorted, n, sizeof key, nimbus_text_compare);
    return found ? found->index : NIMBUS_ABSENT;
}

/* ---- applying a given schema -------------------------------------------------------------- */

static bool is_label(nimbus_column_kind kind)
{
    return kind == NIMBUS_COLUMN_CLASS || kind == NIMBUS_COLUMN_TARGET;
}

static bool is_feature(nimbus_column_kind kind)
{
    return kind == NIMBUS_COLUMN_NUMBER || kind == NIMBUS_COLUMN_CATEGORY;
}

/* Finds the schema's columns by the headings in row 0, of which *n_found are there. False: a
 * feature's heading is not. */
static bool match_headings(nimbus_table *t, const nimbus_text *sorted, size_t *n_found)
{
    size_t n = t->schema->headings.n;
    *n_found = 0;
    for (size_t j = 0; j < n; j++)
        t->column[j] = NIMBUS_ABSENT;
    for (size_t j = 0; j < t->csv.n_columns; j++) {
        size_t k = look_up(sorted, n, &t->csv, cell_of(&t->csv, 0, j));
        if (k != NIMBUS_ABSENT) {
            t->column[k] = j;
            ++*n_found;
        }
    }
    for (size_t j = 0; j < n; j++)
        if (is_feature(t->schema->columns[j].kind) && t->column[j] == NIMBUS_ABSENT)
            return false;
    return true;
}

/* Without headings: all columns in order, or all but the label, or the features alone. */
static nimbus_status match_positions(nimbus_table *t)
{
    size_t n = t->schema->headings.n, n_labels = 0, n_dropped = 0;
    for (size_t j = 0; j < n; j++) {
        n_labels += is_label(t->schema->columns[j].kind);
        n_dropped += t->schema->columns[j].kind == NIMBUS_COLUMN_DROP;
    }
    size_t there = t->csv.n_columns;
    bool labels = there == n, dropped = there >= n - n_labels;
    if (there != n && there != n - n_labels && there != n - n_labels - n_dropped)
        return nimbus_fail(t->error, NIMBUS_ERR_MISMATCH,
                           "the table has %zu columns, the data the net was trained on %zu "
                           "(%zu without the label)",
                           there, n, n - n_labels);
    size_t next = 0;
    for (size_t j = 0; j < n; j++) {
        nimbus_column_kind kind = t->schema->columns[j].kind;
        bool here = is_feature(kind) || (is_label(kind) ? labels : dropped);
        t->column[j] = here ? next++ : NIMBUS_ABSENT;
    }
    return NIMBUS_OK;
}

/* Whether row 0, its columns matched by position, is read as data. With some headings of the schema
 * in it, all of it must be known values; else it must not be text wherever numbers belong. */
static nimbus_status row_is_data(const nimbus_table *t, size_t n_found, bool *is_data)
{
    size_t numbers = 0, texts = 0, unknown = 0;
    double value;
    for (size_t j = 0; j < t->schema->headings.n; j++) {
        const nimbus_column *c = &t->schema->columns[j];
        if (!is_feature(c->kind))
            continue;
        nimbus_cell cell = cell_of(&t->csv, 0, t->column[j]);
        if (cell_missing(&t->csv, cell))
            continue;
        if (c->kind == NIMBUS_COLUMN_NUMBER) {
            bool number = cell_number(&t->csv, cell, &value);
            numbers += number;
            texts += !number;
            continue;
        }
        nimbus_text *sorted = nimbus_text_sort(&c->values);
        if (!sorted)
            return nimbus_fail(t->error, NIMBUS_ERR_MEMORY, "no memory for the categories");
        unknown += look_up(sorted, c->values.n, &t->csv, cell) == NIMBUS_ABSENT;
        nimbus_free(sorted);
    }
    bool unnamed = strcmp(t->schema->headings.name[0], "column 1") == 0; /* none in training */
    *is_data = n_found > 0 ? texts == 0 && unknown == 0 : texts == 0 || numbers > 0 || unnamed;
    return NIMBUS_OK;
}

/* Appends a text to a list for a message; of more than SHOWN_NAMES the rest is "...". */
static void list_text(char *list, size_t size, size_t i, const char *quote, const char *text,
                      size_t length)
{
    size_t at = strlen(list);
    if (i < SHOWN_NAMES)
        (void)snprintf(list + at, size - at, "%s%s%.*s%s", i > 0 ? ", " : "", quote,
                       (int)(length < SHOWN_TEXT ? length : SHOWN_TEXT), text, quote);
    else if (i == SHOWN_NAMES)
        (void)snprintf(list + at, size - at, ", ...");
}

/* Names the features whose headings row 0 does not have; t->column is matched by headings. */
static nimbus_status fail_missing(const nimbus_table *t)
{
    char missing[SHOWN_NAMES * (SHOWN_TEXT + 4) + 8] = "", found[sizeof missing] = "";
    size_t n_missing = 0;
    for (size_t j = 0; j < t->schema->headings.n; j++) {
        const char *name = t->schema->headings.name[j];
        if (is_feature(t->schema->columns[j].kind) && t->column[j] == NIMBUS_ABSENT)
            list_text(missing, sizeof missing, n_missing++, "\"", name, strlen(name));
    }
    for (size_t j = 0; j < t->csv.n_columns; j++) {
        nimbus_cell cell = cell_of(&t->csv, 0, j);
        list_text(found, sizeof found, j, "", cell_text(&t->csv, cell), cell.size);
    }
    return nimbus_fail(t->error, NIMBUS_ERR_MISMATCH, "the table has no column%s %s; it has %s",
                       n_missing == 1 ? "" : "s", missing, found);
}

/* Sets t->column and t->first_row: by headings, or by position if row 0 has none of them. */
static nimbus_status match_columns(nimbus_table *t, const nimbus_text *sorted)
{
    size_t n_found;
    bool is_data = false;
    if (match_headings(t, sorted, &n_found)) {
        t->first_row = 1;
        return NIMBUS_OK;
    }
    nimbus_status status = match_positions(t);
    if (status == NIMBUS_OK)
        status = row_is_data(t, n_found, &is_data);
    if (status == NIMBUS_OK ? is_data : status == NIMBUS_ERR_MEMORY || n_found == 0)
        return status;
    (void)match_headings(t, sorted, &n_found);
    return fail_missing(t);
}

/* Copies the given schema by way of its text, and finds its columns in the table. */
static nimbus_status apply(nimbus_table *t, const nimbus_reading *reading)
{
    if (reading->given->kind != NIMBUS_SCHEMA_TABLE)
        return nimbus_fail(t->error, NIMBUS_ERR_MISMATCH,
                           "the data are a table, the net was trained on rows of %zu x %zu x %zu "
                           "%s values (channels, height, width)",
                           reading->given->channels, reading->given->height, reading->given->width,
                           reading->given->dtype == NIMBUS_U8 ? "u8" : "f32");
    char *json = NULL;
    nimbus_schema *copy = NULL;
    nimbus_status status = nimbus_schema_write(reading->given, &json, t->error);
    if (status == NIMBUS_OK)
        status = nimbus_schema_read(json, &copy, t->error);
    nimbus_free(json);
    if (status != NIMBUS_OK)
        return status;
    *t->schema = *copy;
    nimbus_free(copy);
    t->column = nimbus_alloc(t->schema->headings.n, sizeof *t->column);
    nimbus_text *sorted = nimbus_text_sort(&t->schema->headings);
    if (!t->column || !sorted)
        status = nimbus_fail(t->error, NIMBUS_ERR_MEMORY, "no memory for the columns");
    else
        status = match_columns(t, sorted);
    nimbus_free(sorted);
    if (status == NIMBUS_OK && reading->options.label &&
        strcmp(reading->options.label, "none") == 0)
        for (size_t j = 0; j < t->schema->headings.n; j++)
            if (is_label(t->schema->columns[j].kind))
                t->column[j] = NIMBUS_ABSENT;
    return status;
}

/* ---- filling in the rows ------------------------------------------------------------------ */

static nimbus_status read_number(const nimbus_table *t, size_t row, size_t column, double *value)
{
    nimbus_cell cell = cell_of(&t->csv, row, t->column[column]);
    if (!cell_number(&t->csv, cell, value))
        return nimbus_table_error(t, row, column, NIMBUS_ERR_VALUE,
                                  "not a number, as this column's are");
    if (!(fabs(*value) <= (double)FLT_MAX))
        return nimbus_table_error(t, row, column, NIMBUS_ERR_VALUE,
                                  "infinite, or beyond 32-bit floats");
    return NIMBUS_OK;
}

/* One column of features into [N][D], from feature `first` on. */
static nimbus_status fill_feature(const nimbus_table *t, size_t column, const nimbus_rows *rows,
                                  size_t first, nimbus_data *data)
{
    const nimbus_column *c = &t->schema->columns[column];
    bool category = c->kind == NIMBUS_COLUMN_CATEGORY;
    nimbus_text *sorted = category ? nimbus_text_sort(&c->values) : NULL;
    nimbus_status status = NIMBUS_OK;
    if (category && !sorted)
        return nimbus_fail(t->error, NIMBUS_ERR_MEMORY, "no memory for the categories");
    for (size_t i = 0; status == NIMBUS_OK && i < rows->n; i++) {
        float *out = (float *)data->features + i * data->info.n_features + first;
        size_t row = t->first_row + rows->row[i];
        nimbus_cell cell = cell_of(&t->csv, row, t->column[column]);
        bool missing = cell_missing(&t->csv, cell);
        if (category) {
            size_t k = missing ? (c->missing ? c->values.n : NIMBUS_ABSENT)
                               : look_up(sorted, c->values.n, &t->csv, cell);
            if (k != NIMBUS_ABSENT)
                out[k] = 1;
            data->n_unknown += k == NIMBUS_ABSENT;
            continue;
        }
        double v = c->mean;
        data->n_filled += missing;
        if (!missing)
            status = read_number(t, row, column, &v);
        *out = (float)(c->log1p ? copysign(log1p(fabs(v)), v) : v);
    }
    nimbus_free(sorted);
    return status;
}

static nimbus_status fill_label(const nimbus_table *t, size_t column, const nimbus_rows *rows,
                                nimbus_data *data)
{
    nimbus_text *sorted = nimbus_text_sort(&t->schema->classes);
    nimbus_status status = NIMBUS_OK;
    if (!sorted)
        return nimbus_fail(t->error, NIMBUS_ERR_MEMORY, "no memory for the classes");
    for (size_t i = 0; status == NIMBUS_OK && i < rows->n; i++) {
        size_t row = t->first_row + rows->row[i];
        nimbus_cell cell = cell_of(&t->csv, row, t->column[column]);
        if (cell_missing(&t->csv, cell)) {
            status = nimbus_table_error(t, row, column, NIMBUS_ERR_VALUE, "the label is missing");
        } else if (data->targets) {
            double v = 0;
            status = read_number(t, row, column, &v);
            data->targets[i] = (float)v;
        } else {
            size_t k = look_up(sorted, t->schema->classes.n, &t->csv, cell);
            if (k == NIMBUS_ABSENT)
                k = t->schema->others;
            if (k == NIMBUS_ABSENT)
                status = nimbus_table_error(t, row, column, NIMBUS_ERR_VALUE,
                                            "not one of the classes of the training data");
            else
                data->labels[i] = (int32_t)k;
        }
    }
    nimbus_free(sorted);
    return status;
}

/* One-hot columns multiply a table's size: refused when out of proportion. */
static nimbus_status check_size(const nimbus_table *t, const nimbus_data_info *info)
{
    size_t bytes;
    if (info->n_features == 0)
        return nimbus_fail(t->error, NIMBUS_ERR_VALUE,
                           "no column is left for features (%zu columns in the table)",
                           t->csv.n_columns);
    if (nimbus_mul_overflows(info->n_rows, info->n_features * sizeof(float), &bytes) ||
        bytes > FREE_FEATURE_BYTES + FEATURE_BYTES_PER_BYTE * t->csv.size)
        return nimbus_fail(t->error, NIMBUS_ERR_LIMIT,
                           "%zu rows make %zu features each, too much for a table of %zu bytes: "
                           "leave out columns with very many different texts",
                           info->n_rows, info->n_features, t->csv.size);
    return NIMBUS_OK;
}

static nimbus_status fill(const nimbus_table *t, const nimbus_reading *reading, nimbus_data **out)
{
    nimbus_data_info info = {.dtype = NIMBUS_F32, .height = 1, .width = 1};
    nimbus_rows rows;
    info.n_features = info.channels = nimbus_schema_width(t->schema);
    for (size_t j = 0; j < t->schema->headings.n; j++) {
        if (t->schema->columns[j].kind == NIMBUS_COLUMN_CLASS && t->column[j] != NIMBUS_ABSENT)
            info.n_classes = t->schema->classes.n;
        if (t->schema->columns[j].kind == NIMBUS_COLUMN_TARGET && t->column[j] != NIMBUS_ABSENT)
            info.n_targets = 1;
    }
    nimbus_status status =
        nimbus_rows_choose(reading, t->csv.n_rows - t->first_row, &rows, t->error);
    if (status != NIMBUS_OK)
        return status;
    info.n_rows = rows.n;
    status = check_size(t, &info);
    if (status == NIMBUS_OK)
        status = nimbus_data_new(&info, out, t->error);
    size_t first = 0;
    for (size_t j = 0; status == NIMBUS_OK && j < t->schema->headings.n; j++) {
        if (is_feature(t->schema->columns[j].kind))
            status = fill_feature(t, j, &rows, first, *out);
        else if (is_label(t->schema->columns[j].kind) && t->column[j] != NIMBUS_ABSENT)
            status = fill_label(t, j, &rows, *out);
        first += nimbus_column_width(&t->schema->columns[j]);
    }
    nimbus_free(rows.row);
    return status;
}

nimbus_status nimbus_table_data(char *bytes, size_t size, const nimbus_reading *reading,
                                const nimbus_table_plan *plan, nimbus_data **out,
                                nimbus_error *error)
{
    nimbus_schema schema = {.kind = NIMBUS_SCHEMA_TABLE, .others = SIZE_MAX};
    nimbus_table t = {.schema = &schema, .error = error};
    nimbus_data *data = NULL;
    *out = NULL;
    nimbus_status status = nimbus_csv_parse(bytes, size, &t.csv, error);
    if (status == NIMBUS_OK)
        status = reading->given ? apply(&t, reading) : nimbus_table_learn(&t, reading, plan);
    if (status == NIMBUS_OK)
        status = fill(&t, reading, &data);
    if (status == NIMBUS_OK) {
        data->schema = schema;
        schema = (nimbus_schema){.others = SIZE_MAX};
        status = nimbus_data_finish(data, reading, error);
    }
    nimbus_csv_free(&t.csv);
    nimbus_free(t.column);
    nimbus_schema_free(&schema);
    if (status != NIMBUS_OK) {
        nimbus_data_free(data);
        data = NULL;
    }
    *out = data;
    return status;
}
