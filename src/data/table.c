/* table.c - features and labels from the cells of a table
 *
 * Unless a schema is given, it is learned from the training rows: a column is a number, or a
 * category with one feature per value (sorted by bytes), or dropped. A column of numbers may hold
 * up to 5 % of other texts, which are then errors to be found, not categories. Dropped are columns
 * without any value and texts that hardly repeat (more than 64, in more than half of the rows).
 *
 * Missing cells ("", "?", "NA", "nan") get the column's mean, or a category of their own if
 * training rows had some. A category never seen in training makes all its features zero.
 * Numbers whose training values are >= 0 with a maximum above 1,000 and above 100 times the mean
 * become sign(x) ln(1 + |x|) ("map":"log1p"): trees see the same order, a float net a usable
 * scale. Classes are sorted, by value if all of them are numbers. */
#include <float.h>
#include <math.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>

#include "data/data.h"

enum { SAMPLE_ROWS = 100, SHOWN_TEXT = 40 };
#define FREE_FEATURE_BYTES     ((size_t)64 << 20)
#define FEATURE_BYTES_PER_BYTE 256 /* beyond that; one-hot columns multiply a table's size */
#define ABSENT                 SIZE_MAX

typedef struct table {
    nimbus_csv csv;
    size_t first_row; /* 1 if row 0 holds the headings */
    nimbus_schema *schema;
    size_t *column; /* [headings.n] -> column of csv, ABSENT if it is not there */
    nimbus_error *error;
} table;

static nimbus_cell cell_of(const nimbus_csv *csv, size_t row, size_t column)
{
    return csv->cells[row * csv->n_columns + column];
}

static const char *cell_text(const nimbus_csv *csv, nimbus_cell cell)
{
    return csv->text + cell.at;
}

static bool cell_number(const nimbus_csv *csv, nimbus_cell cell, double *value)
{
    return nimbus_csv_number(cell_text(csv, cell), cell.size, value);
}

static bool cell_missing(const nimbus_csv *csv, nimbus_cell cell)
{
    return nimbus_csv_missing(cell_text(csv, cell), cell.size);
}

/* "row 3 (line 4), column 2 (age), 'abc': " and the reason. */
static nimbus_status cell_error(const table *t, size_t row, size_t column, nimbus_status status,
                                const char *reason)
{
    nimbus_cell cell = cell_of(&t->csv, row, t->column[column]);
    bool cut = cell.size > SHOWN_TEXT;
    return nimbus_fail_at(t->error, status, cell.at,
                          "row %zu (line %u), column %zu (%.60s), '%.*s%s': %s",
                          row - t->first_row + 1, t->csv.lines[row], t->column[column] + 1,
                          t->schema->headings.name[column], cut ? SHOWN_TEXT : (int)cell.size,
                          cell_text(&t->csv, cell), cut ? "..." : "", reason);
}

/* ---- sorted texts ------------------------------------------------------------------------- */

typedef struct text {
    const char *at;
    size_t size;
    size_t index; /* where it stood before sorting */
} text;

static int compare_texts(const void *a, const void *b)
{
    const text *x = a, *y = b;
    size_t n = x->size < y->size ? x->size : y->size;
    int order = memcmp(x->at, y->at, n);
    return order != 0 ? order : (x->size > y->size) - (x->size < y->size);
}

static int compare_numbers(const void *a, const void *b)
{
    const text *x = a, *y = b;
    double u = 0, v = 0;
    (void)nimbus_csv_number(x->at, x->size, &u);
    (void)nimbus_csv_number(y->at, y->size, &v);
    return u != v ? (u > v) - (u < v) : compare_texts(a, b);
}

/* The names sorted by bytes, for look_up; freed with nimbus_free. NULL: out of memory. */
static text *sort_names(const nimbus_names *names)
{
    text *texts = nimbus_alloc(names->n, sizeof *texts);
    for (size_t i = 0; texts && i < names->n; i++)
        texts[i] = (text){names->name[i], strlen(names->name[i]), i};
    if (texts)
        qsort(texts, names->n, sizeof *texts, compare_texts);
    return texts;
}

/* Index of a cell's text among the names; ABSENT if it is none of them. */
static size_t look_up(const text *sorted, size_t n, const nimbus_csv *csv, nimbus_cell cell)
{
    text key = {cell_text(csv, cell), cell.size, 0};
    const text *found = bsearch(&key, sorted, n, sizeof key, compare_texts);
    return found ? found->index : ABSENT;
}

/* Distinct texts of a column over the given rows (of data, not of csv), sorted by bytes, missing
 * cells left out. */
static nimbus_status distinct_texts(const table *t, size_t column, const nimbus_rows *rows,
                                    text **out, size_t *n, nimbus_error *error)
{
    text *texts = nimbus_alloc(rows->n, sizeof *texts);
    *out = texts;
    *n = 0;
    if (!texts)
        return nimbus_fail(error, NIMBUS_ERR_MEMORY, "no memory for %zu texts", rows->n);
    for (size_t i = 0; i < rows->n; i++) {
        size_t row = t->first_row + rows->row[i];
        nimbus_cell cell = cell_of(&t->csv, row, t->column[column]);
        if (!cell_missing(&t->csv, cell))
            texts[(*n)++] = (text){cell_text(&t->csv, cell), cell.size, row};
    }
    qsort(texts, *n, sizeof *texts, compare_texts);
    size_t kept = 0;
    for (size_t i = 0; i < *n; i++)
        if (kept == 0 || compare_texts(&texts[kept - 1], &texts[i]) != 0)
            texts[kept++] = texts[i];
    *n = kept;
    return NIMBUS_OK;
}

/* JSON and the tool's output need valid UTF-8. */
static bool valid_utf8(const char *at, size_t size)
{
    const uint8_t *p = (const uint8_t *)at;
    for (size_t i = 0; i < size;) {
        uint8_t c = p[i++];
        size_t more = c < 0x80 ? 0 : c >= 0xf0 ? 3 : c >= 0xe0 ? 2 : 1;
        if (c >= 0x80 && (c < 0xc2 || c > 0xf4 || i + more > size))
            return false;
        if (more > 0) {
            uint8_t low = c == 0xe0 ? 0xa0 : c == 0xf0 ? 0x90 : 0x80;
            uint8_t high = c == 0xed ? 0x9f : c == 0xf4 ? 0x8f : 0xbf;
            if (p[i] < low || p[i] > high)
                return false;
        }
        for (size_t k = 1; k < more; k++)
            if ((p[i + k] & 0xc0) != 0x80)
                return false;
        i += more;
    }
    return true;
}

static nimbus_status set_names(const table *t, size_t column, nimbus_names *names,
                               const text *texts, size_t n)
{
    if (n > NIMBUS_DATA_MAX_NAMES)
        return nimbus_fail(t->error, NIMBUS_ERR_LIMIT,
                           "column %zu (%.60s) has %zu different texts, the limit is %d; numbers "
                           "to predict need the regression option",
                           t->column[column] + 1, t->schema->headings.name[column], n,
                           NIMBUS_DATA_MAX_NAMES);
    const char **at = nimbus_alloc(n, sizeof *at);
    size_t *sizes = nimbus_alloc(n, sizeof *sizes);
    nimbus_status status = NIMBUS_OK;
    if (!at || !sizes)
        status = nimbus_fail(t->error, NIMBUS_ERR_MEMORY, "no memory for %zu names", n);
    for (size_t i = 0; status == NIMBUS_OK && i < n; i++) {
        at[i] = texts[i].at;
        sizes[i] = texts[i].size;
        if (!valid_utf8(at[i], sizes[i]))
            status =
                cell_error(t, texts[i].index, column, NIMBUS_ERR_VALUE, "the text is not UTF-8");
    }
    if (status == NIMBUS_OK)
        status = nimbus_names_set(names, n, at, sizes, t->error);
    nimbus_free(at);
    nimbus_free(sizes);
    return status;
}

/* ---- headings ----------------------------------------------------------------------------- */

/* Row 0 is taken for headings if most of its cells are no numbers and a column has numbers below
 * a text, or if no cell of it is a number and none recurs below. */
static bool has_headings(const nimbus_csv *csv)
{
    size_t n_texts = 0, n_empty = 0, above_numbers = 0;
    bool recurs = false;
    size_t n_rows = csv->n_rows < SAMPLE_ROWS ? csv->n_rows : SAMPLE_ROWS;
    for (size_t j = 0; j < csv->n_columns; j++) {
        nimbus_cell top = cell_of(csv, 0, j);
        double value;
        n_empty += top.size == 0;
        if (cell_missing(csv, top) || cell_number(csv, top, &value))
            continue;
        n_texts++;
        size_t numbers = 0, texts = 0;
        for (size_t i = 1; i < n_rows; i++) {
            nimbus_cell cell = cell_of(csv, i, j);
            bool number = cell_number(csv, cell, &value);
            numbers += number;
            texts += !number && !cell_missing(csv, cell);
            recurs |= cell.size == top.size &&
                      memcmp(cell_text(csv, cell), cell_text(csv, top), top.size) == 0;
        }
        above_numbers += numbers > 0 && texts == 0;
    }
    if (above_numbers > 0 && 2 * n_texts > csv->n_columns)
        return true;
    return n_texts > 0 && n_texts + n_empty == csv->n_columns && !recurs && csv->n_rows > 1;
}

/* Names the columns after row 0, or "column 1", ... */
static nimbus_status name_columns(table *t)
{
    size_t n = t->csv.n_columns;
    text *names = nimbus_alloc(n, sizeof *names);
    char *numbered = nimbus_alloc(n, 24);
    nimbus_status status = NIMBUS_OK;
    if (!names || !numbered)
        status = nimbus_fail(t->error, NIMBUS_ERR_MEMORY, "no memory for %zu names", n);
    for (size_t j = 0; status == NIMBUS_OK && j < n; j++) {
        nimbus_cell cell = cell_of(&t->csv, 0, j);
        char *own = numbered + j * 24;
        if (t->first_row == 0 || cell.size == 0)
            names[j] = (text){own, (size_t)snprintf(own, 24, "column %zu", j + 1), 0};
        else
            names[j] = (text){cell_text(&t->csv, cell), cell.size, 0};
        t->column[j] = j;
        if (!valid_utf8(names[j].at, names[j].size))
            status = nimbus_fail(t->error, NIMBUS_ERR_VALUE, "the name of column %zu is not UTF-8",
                                 j + 1);
    }
    if (status == NIMBUS_OK)
        status = set_names(t, 0, &t->schema->headings, names, n);
    nimbus_free(names);
    nimbus_free(numbered);
    if (status != NIMBUS_OK)
        return status;
    text *sorted = sort_names(&t->schema->headings);
    if (!sorted)
        return nimbus_fail(t->error, NIMBUS_ERR_MEMORY, "no memory for %zu names", n);
    for (size_t j = 1; status == NIMBUS_OK && j < n; j++)
        if (compare_texts(&sorted[j - 1], &sorted[j]) == 0)
            status = nimbus_fail(t->error, NIMBUS_ERR_VALUE,
                                 "columns %zu and %zu have the same name, '%.60s'",
                                 sorted[j - 1].index + 1, sorted[j].index + 1, sorted[j].at);
    nimbus_free(sorted);
    return status;
}

/* Index of the label column: by name, by number, or the usual one. ABSENT: there is none. */
static nimbus_status find_label(const table *t, const char *label, size_t *out)
{
    static const char *const usual[] = {"label", "class", "target"};
    const nimbus_names *names = &t->schema->headings;
    *out = names->n - 1;
    if (!label) {
        for (size_t k = 0; k < sizeof usual / sizeof *usual; k++)
            for (size_t j = 0; j < names->n; j++)
                if (strcasecmp(names->name[j], usual[k]) == 0) {
                    *out = j;
                    return NIMBUS_OK;
                }
        return NIMBUS_OK;
    }
    for (size_t j = 0; j < names->n; j++)
        if (strcmp(names->name[j], label) == 0) {
            *out = j;
            return NIMBUS_OK;
        }
    *out = ABSENT;
    if (strcmp(label, "none") == 0)
        return NIMBUS_OK;
    char *end;
    long number = strtol(label, &end, 10);
    if (end == label || *end != '\0')
        return nimbus_fail(t->error, NIMBUS_ERR_ARGUMENT,
                           "no column is called '%.60s'; the first is '%.60s', the last '%.60s'",
                           label, names->name[0], names->name[names->n - 1]);
    size_t n = number < 0 ? (size_t) - (number + 1) + 1 : (size_t)number;
    if (n == 0 || n > names->n)
        return nimbus_fail(t->error, NIMBUS_ERR_ARGUMENT,
                           "there is no label column %ld, the table has %zu columns", number,
                           names->n);
    *out = number < 0 ? names->n - n : n - 1;
    return NIMBUS_OK;
}

/* ---- learning the schema ------------------------------------------------------------------ */

typedef struct column_stats {
    size_t numbers, texts, missing;
    double sum, min, max;
} column_stats;

static column_stats survey(const table *t, size_t column, const nimbus_rows *rows)
{
    column_stats s = {.min = INFINITY, .max = -INFINITY};
    for (size_t i = 0; i < rows->n; i++) {
        nimbus_cell cell = cell_of(&t->csv, t->first_row + rows->row[i], t->column[column]);
        double v;
        if (cell_missing(&t->csv, cell)) {
            s.missing++;
        } else if (cell_number(&t->csv, cell, &v)) {
            s.numbers++;
            s.sum += v;
            s.min = v < s.min ? v : s.min;
            s.max = v > s.max ? v : s.max;
        } else {
            s.texts++;
        }
    }
    return s;
}

static nimbus_status learn_category(table *t, size_t column, const nimbus_rows *rows, bool may_drop,
                                    size_t n_missing)
{
    nimbus_column *c = &t->schema->columns[column];
    text *texts = NULL;
    size_t n = 0;
    nimbus_status status = distinct_texts(t, column, rows, &texts, &n, t->error);
    if (status == NIMBUS_OK && may_drop && n > 64 && n > (rows->n - n_missing) / 2) {
        c->kind = NIMBUS_COLUMN_DROP;
    } else if (status == NIMBUS_OK) {
        c->kind = NIMBUS_COLUMN_CATEGORY;
        c->missing = n_missing > 0;
        status = set_names(t, column, &c->values, texts, n);
    }
    nimbus_free(texts);
    return status;
}

static nimbus_status learn_column(table *t, size_t column, const nimbus_rows *rows)
{
    nimbus_column *c = &t->schema->columns[column];
    column_stats s = survey(t, column, rows);
    size_t present = s.numbers + s.texts;
    if (c->kind == NIMBUS_COLUMN_CATEGORY)
        return learn_category(t, column, rows, false, s.missing);
    if (c->kind == NIMBUS_COLUMN_AUTO && present == 0) {
        c->kind = NIMBUS_COLUMN_DROP;
        return NIMBUS_OK;
    }
    if (c->kind == NIMBUS_COLUMN_AUTO && (double)s.texts > 0.05 * (double)present)
        return learn_category(t, column, rows, true, s.missing);
    c->kind = NIMBUS_COLUMN_NUMBER;
    double mean = s.numbers ? s.sum / (double)s.numbers : 0;
    /* An infinite mean comes from a cell that read_number refuses by row and column. */
    c->mean = fabs(mean) <= (double)FLT_MAX ? (double)(float)mean : 0;
    c->log1p = s.numbers && s.min >= 0 && s.max > 1000 && s.max > 100 * mean;
    return NIMBUS_OK;
}

/* The classes are those of all rows, so that every split of a table has the same. */
static nimbus_status learn_classes(table *t, size_t column)
{
    size_t n_rows = t->csv.n_rows - t->first_row, n = 0, n_numbers = 0, n_fractions = 0;
    text *texts = NULL;
    nimbus_rows rows = {n_rows, nimbus_alloc(n_rows, sizeof *rows.row)};
    nimbus_status status = NIMBUS_OK;
    if (!rows.row)
        status = nimbus_fail(t->error, NIMBUS_ERR_MEMORY, "no memory for %zu row numbers", n_rows);
    for (size_t i = 0; status == NIMBUS_OK && i < n_rows; i++)
        rows.row[i] = (uint32_t)i;
    if (status == NIMBUS_OK)
        status = distinct_texts(t, column, &rows, &texts, &n, t->error);
    for (size_t i = 0; status == NIMBUS_OK && i < n; i++) {
        double v;
        bool number = nimbus_csv_number(texts[i].at, texts[i].size, &v);
        n_numbers += number;
        n_fractions += number && !(fabs(v) < 1e15 && v == floor(v));
    }
    if (status == NIMBUS_OK && n == 0)
        status = nimbus_fail(t->error, NIMBUS_ERR_VALUE, "column %zu (%.60s) has no labels",
                             t->column[column] + 1, t->schema->headings.name[column]);
    if (status == NIMBUS_OK && n_numbers == n && n_fractions > 0)
        status = nimbus_fail(t->error, NIMBUS_ERR_VALUE,
                             "column %zu (%.60s) has fractions, not classes; numbers to predict "
                             "need the regression option",
                             t->column[column] + 1, t->schema->headings.name[column]);
    if (status == NIMBUS_OK && n_numbers == n)
        qsort(texts, n, sizeof *texts, compare_numbers);
    if (status == NIMBUS_OK)
        status = set_names(t, column, &t->schema->classes, texts, n);
    nimbus_free(texts);
    nimbus_free(rows.row);
    return status;
}

/* Headings and kinds before any cell is looked at, from the plan or the options. */
static nimbus_status plan_columns(table *t, const nimbus_reading *reading,
                                  const nimbus_table_plan *plan)
{
    nimbus_schema *s = t->schema;
    size_t n = t->csv.n_columns, label = ABSENT;
    nimbus_status status;
    s->columns = nimbus_alloc(n, sizeof *s->columns);
    t->column = nimbus_alloc(n, sizeof *t->column);
    if (!s->columns || !t->column)
        return nimbus_fail(t->error, NIMBUS_ERR_MEMORY, "no memory for %zu columns", n);
    if (plan) {
        if (plan->n_columns != n)
            return nimbus_fail(t->error, NIMBUS_ERR_FORMAT, "%zu columns, expected %zu", n,
                               plan->n_columns);
        s->others = plan->others;
        for (size_t j = 0; j < n; j++) {
            t->column[j] = j;
            s->columns[j].kind = plan->kinds[j];
        }
        status = nimbus_names_set(&s->headings, n, plan->headings, NULL, t->error);
        if (status != NIMBUS_OK)
            return status;
        return nimbus_names_set(&s->classes, reading->n_classes, reading->classes, NULL, t->error);
    }
    t->first_row = has_headings(&t->csv);
    status = name_columns(t);
    if (status == NIMBUS_OK)
        status = find_label(t, reading->options.label, &label);
    if (status == NIMBUS_OK && label != ABSENT) {
        bool regression = reading->options.regression != 0;
        s->columns[label].kind = regression ? NIMBUS_COLUMN_TARGET : NIMBUS_COLUMN_CLASS;
        s->n_targets = regression;
    }
    return status;
}

/* Learns from the training rows, or from all of them if all are asked for. */
static nimbus_status learn(table *t, const nimbus_reading *reading, const nimbus_table_plan *plan)
{
    nimbus_status status = plan_columns(t, reading, plan);
    if (status != NIMBUS_OK)
        return status;
    nimbus_reading training = *reading;
    training.options.valid_fraction = 0;
    training.options.n_rows = 0;
    if (training.split != NIMBUS_SPLIT_ALL)
        training.split = NIMBUS_SPLIT_TRAIN;
    nimbus_rows rows;
    status = nimbus_rows_choose(&training, t->csv.n_rows - t->first_row, &rows, t->error);
    for (size_t j = 0; status == NIMBUS_OK && j < t->csv.n_columns; j++) {
        nimbus_column_kind kind = t->schema->columns[j].kind;
        if (kind == NIMBUS_COLUMN_CLASS && t->schema->classes.n == 0)
            status = learn_classes(t, j);
        else if (kind < NIMBUS_COLUMN_CLASS)
            status = learn_column(t, j, &rows);
    }
    nimbus_free(rows.row);
    return status;
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

/* Finds the schema's columns by the headings in row 0. False: a feature's heading is not there. */
static bool match_headings(table *t, const text *sorted)
{
    size_t n = t->schema->headings.n;
    for (size_t j = 0; j < n; j++)
        t->column[j] = ABSENT;
    for (size_t j = 0; j < t->csv.n_columns; j++) {
        size_t k = look_up(sorted, n, &t->csv, cell_of(&t->csv, 0, j));
        if (k != ABSENT)
            t->column[k] = j;
    }
    for (size_t j = 0; j < n; j++)
        if (is_feature(t->schema->columns[j].kind) && t->column[j] == ABSENT)
            return false;
    return true;
}

/* Without headings: all columns in order, or all but the label, or the features alone. */
static nimbus_status match_positions(table *t)
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
                           "the table has %zu columns, the schema %zu (%zu without the label)",
                           there, n, n - n_labels);
    size_t next = 0;
    for (size_t j = 0; j < n; j++) {
        nimbus_column_kind kind = t->schema->columns[j].kind;
        bool here = is_feature(kind) || (is_label(kind) ? labels : dropped);
        t->column[j] = here ? next++ : ABSENT;
    }
    return NIMBUS_OK;
}

/* Copies the given schema by way of its text, and finds its columns in the table. */
static nimbus_status apply(table *t, const nimbus_reading *reading)
{
    if (reading->given->kind != NIMBUS_SCHEMA_TABLE)
        return nimbus_fail(t->error, NIMBUS_ERR_MISMATCH,
                           "the data are a table, the schema describes arrays");
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
    text *sorted = sort_names(&t->schema->headings);
    if (!t->column || !sorted)
        status = nimbus_fail(t->error, NIMBUS_ERR_MEMORY, "no memory for the columns");
    else if (match_headings(t, sorted))
        t->first_row = 1;
    else
        status = match_positions(t);
    nimbus_free(sorted);
    if (status == NIMBUS_OK && reading->options.label &&
        strcmp(reading->options.label, "none") == 0)
        for (size_t j = 0; j < t->schema->headings.n; j++)
            if (is_label(t->schema->columns[j].kind))
                t->column[j] = ABSENT;
    return status;
}

/* ---- filling in the rows ------------------------------------------------------------------ */

static nimbus_status read_number(const table *t, size_t row, size_t column, double *value)
{
    nimbus_cell cell = cell_of(&t->csv, row, t->column[column]);
    if (!cell_number(&t->csv, cell, value))
        return cell_error(t, row, column, NIMBUS_ERR_VALUE, "not a number, as this column's are");
    if (!(fabs(*value) <= (double)FLT_MAX))
        return cell_error(t, row, column, NIMBUS_ERR_VALUE, "infinite, or beyond 32-bit floats");
    return NIMBUS_OK;
}

/* One column of features into [N][D], from feature `first` on. */
static nimbus_status fill_feature(const table *t, size_t column, const nimbus_rows *rows,
                                  size_t first, nimbus_data *data)
{
    const nimbus_column *c = &t->schema->columns[column];
    bool category = c->kind == NIMBUS_COLUMN_CATEGORY;
    text *sorted = category ? sort_names(&c->values) : NULL;
    nimbus_status status = NIMBUS_OK;
    if (category && !sorted)
        return nimbus_fail(t->error, NIMBUS_ERR_MEMORY, "no memory for the categories");
    for (size_t i = 0; status == NIMBUS_OK && i < rows->n; i++) {
        float *out = (float *)data->features + i * data->info.n_features + first;
        size_t row = t->first_row + rows->row[i];
        nimbus_cell cell = cell_of(&t->csv, row, t->column[column]);
        bool missing = cell_missing(&t->csv, cell);
        if (category) {
            size_t k = missing ? (c->missing ? c->values.n : ABSENT)
                               : look_up(sorted, c->values.n, &t->csv, cell);
            if (k != ABSENT)
                out[k] = 1;
            continue;
        }
        double v = c->mean;
        if (!missing)
            status = read_number(t, row, column, &v);
        *out = (float)(c->log1p ? copysign(log1p(fabs(v)), v) : v);
    }
    nimbus_free(sorted);
    return status;
}

static nimbus_status fill_label(const table *t, size_t column, const nimbus_rows *rows,
                                nimbus_data *data)
{
    text *sorted = sort_names(&t->schema->classes);
    nimbus_status status = NIMBUS_OK;
    if (!sorted)
        return nimbus_fail(t->error, NIMBUS_ERR_MEMORY, "no memory for the classes");
    for (size_t i = 0; status == NIMBUS_OK && i < rows->n; i++) {
        size_t row = t->first_row + rows->row[i];
        nimbus_cell cell = cell_of(&t->csv, row, t->column[column]);
        if (cell_missing(&t->csv, cell)) {
            status = cell_error(t, row, column, NIMBUS_ERR_VALUE, "the label is missing");
        } else if (data->targets) {
            double v = 0;
            status = read_number(t, row, column, &v);
            data->targets[i] = (float)v;
        } else {
            size_t k = look_up(sorted, t->schema->classes.n, &t->csv, cell);
            if (k == ABSENT)
                k = t->schema->others;
            if (k == ABSENT)
                status = cell_error(t, row, column, NIMBUS_ERR_VALUE,
                                    "not one of the classes of the training data");
            else
                data->labels[i] = (int32_t)k;
        }
    }
    nimbus_free(sorted);
    return status;
}

/* One-hot columns multiply a table's size: refused when out of proportion. */
static nimbus_status check_size(const table *t, const nimbus_data_info *info)
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

static nimbus_status fill(const table *t, const nimbus_reading *reading, nimbus_data **out)
{
    nimbus_data_info info = {.dtype = NIMBUS_F32, .height = 1, .width = 1};
    nimbus_rows rows;
    info.n_features = info.channels = nimbus_schema_width(t->schema);
    for (size_t j = 0; j < t->schema->headings.n; j++) {
        if (t->schema->columns[j].kind == NIMBUS_COLUMN_CLASS && t->column[j] != ABSENT)
            info.n_classes = t->schema->classes.n;
        if (t->schema->columns[j].kind == NIMBUS_COLUMN_TARGET && t->column[j] != ABSENT)
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
        else if (is_label(t->schema->columns[j].kind) && t->column[j] != ABSENT)
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
    table t = {.schema = &schema, .error = error};
    nimbus_data *data = NULL;
    *out = NULL;
    nimbus_status status = nimbus_csv_parse(bytes, size, &t.csv, error);
    if (status == NIMBUS_OK)
        status = reading->given ? apply(&t, reading) : learn(&t, reading, plan);
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
