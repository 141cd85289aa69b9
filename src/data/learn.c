/* learn.c - find out what the columns of a table mean
 *
 * A column is a number, or a category with one feature per value (sorted by bytes), or dropped. A
 * column of numbers may hold up to 5 % of other texts, which are then errors to be found, not
 * categories. Dropped are columns without any value and texts that hardly repeat (more than 64,
 * in more than half of the rows). All of this is learned from the training rows.
 *
 * Numbers whose training values are >= 0 with a maximum above 1,000 and above 100 times the mean
 * become sign(x) ln(1 + |x|) ("map":"log1p"): trees see the same order, a float net a usable
 * scale. Classes are sorted, by value if all of them are numbers. */
#include <float.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>

#include "data/table.h"

enum { SAMPLE_ROWS = 100 };

static int compare_numbers(const void *a, const void *b)
{
    const nimbus_text *x = a, *y = b;
    double u = 0, v = 0;
    (void)nimbus_csv_number(x->at, x->size, &u);
    (void)nimbus_csv_number(y->at, y->size, &v);
    return u != v ? (u > v) - (u < v) : nimbus_text_compare(a, b);
}

/* Distinct texts of a column over the given rows (of data, not of csv), sorted by bytes, missing
 * cells left out. */
static nimbus_status distinct_texts(const nimbus_table *t, size_t column, const nimbus_rows *rows,
                                    nimbus_text **out, size_t *n, nimbus_error *error)
{
    nimbus_text *texts = nimbus_alloc(rows->n, sizeof *texts);
    *out = texts;
    *n = 0;
    if (!texts)
        return nimbus_fail(error, NIMBUS_ERR_MEMORY, "no memory for %zu texts", rows->n);
    for (size_t i = 0; i < rows->n; i++) {
        size_t row = t->first_row + rows->row[i];
        nimbus_cell cell = cell_of(&t->csv, row, t->column[column]);
        if (!cell_missing(&t->csv, cell))
            texts[(*n)++] = (nimbus_text){cell_text(&t->csv, cell), cell.size, row};
    }
    qsort(texts, *n, sizeof *texts, nimbus_text_compare);
    size_t kept = 0;
    for (size_t i = 0; i < *n; i++)
        if (kept == 0 || nimbus_text_compare(&texts[kept - 1], &texts[i]) != 0)
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

static nimbus_status set_names(const nimbus_table *t, size_t column, nimbus_names *names,
                               const nimbus_text *texts, size_t n)
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
            status = nimbus_table_error(t, texts[i].index, column, NIMBUS_ERR_VALUE,
                                        "the text is not UTF-8");
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
static nimbus_status name_columns(nimbus_table *t)
{
    size_t n = t->csv.n_columns;
    nimbus_text *names = nimbus_alloc(n, sizeof *names);
    char *numbered = nimbus_alloc(n, 24);
    nimbus_status status = NIMBUS_OK;
    if (!names || !numbered)
        status = nimbus_fail(t->error, NIMBUS_ERR_MEMORY, "no memory for %zu names", n);
    for (size_t j = 0; status == NIMBUS_OK && j < n; j++) {
        nimbus_cell cell = cell_of(&t->csv, 0, j);
        char *own = numbered + j * 24;
        if (t->first_row == 0 || cell.size == 0)
            names[j] = (nimbus_text){own, (size_t)snprintf(own, 24, "column %zu", j + 1), 0};
        else
            names[j] = (nimbus_text){cell_text(&t->csv, cell), cell.size, 0};
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
    nimbus_text *sorted = nimbus_text_sort(&t->schema->headings);
    if (!sorted)
        return nimbus_fail(t->error, NIMBUS_ERR_MEMORY, "no memory for %zu names", n);
    for (size_t j = 1; status == NIMBUS_OK && j < n; j++)
        if (nimbus_text_compare(&sorted[j - 1], &sorted[j]) == 0)
            status = nimbus_fail(t->error, NIMBUS_ERR_VALUE,
                                 "columns %zu and %zu have the same name, '%.60s'",
                                 sorted[j - 1].index + 1, sorted[j].index + 1, sorted[j].at);
    nimbus_free(sorted);
    return status;
}

/* Index of the label column: by name, by number, or the usual one. NIMBUS_ABSENT: there is none. */
static nimbus_status find_label(const nimbus_table *t, const char *label, size_t *out)
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
    *out = NIMBUS_ABSENT;
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

static column_stats survey(const nimbus_table *t, size_t column, const nimbus_rows *rows)
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

static nimbus_status learn_category(nimbus_table *t, size_t column, const nimbus_rows *rows,
                                    bool may_drop, size_t n_missing)
{
    nimbus_column *c = &t->schema->columns[column];
    nimbus_text *texts = NULL;
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

static nimbus_status learn_column(nimbus_table *t, size_t column, const nimbus_rows *rows)
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
static nimbus_status learn_classes(nimbus_table *t, size_t column)
{
    size_t n_rows = t->csv.n_rows - t->first_row, n = 0, n_numbers = 0, n_fractions = 0;
    nimbus_text *texts = NULL;
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
static nimbus_status plan_columns(nimbus_table *t, const nimbus_reading *reading,
                                  const nimbus_table_plan *plan)
{
    nimbus_schema *s = t->schema;
    size_t n = t->csv.n_columns, label = NIMBUS_ABSENT;
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
    if (status == NIMBUS_OK && label != NIMBUS_ABSENT) {
        bool regression = reading->options.regression != 0;
        s->columns[label].kind = regression ? NIMBUS_COLUMN_TARGET : NIMBUS_COLUMN_CLASS;
        s->n_targets = regression;
    }
    return status;
}

/* Learns from the training rows, or from all of them if all are asked for. */
nimbus_status nimbus_table_learn(nimbus_table *t, const nimbus_reading *reading,
                                 const nimbus_table_plan *plan)
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
