/* table.h - what learning a table's schema and reading a table by it share */
#ifndef NIMBUS_TABLE_H
#define NIMBUS_TABLE_H

#include "data/data.h"

#define NIMBUS_ABSENT SIZE_MAX

typedef struct nimbus_table {
    nimbus_csv csv;
    size_t first_row; /* 1 if row 0 holds the headings */
    nimbus_schema *schema;
    size_t *column; /* [headings.n] -> column of csv, NIMBUS_ABSENT if it is not there */
    nimbus_error *error;
} nimbus_table;

static inline nimbus_cell cell_of(const nimbus_csv *csv, size_t row, size_t column)
{
    return csv->cells[row * csv->n_columns + column];
}

static inline const char *cell_text(const nimbus_csv *csv, nimbus_cell cell)
{
    return csv->text + cell.at;
}

static inline bool cell_number(const nimbus_csv *csv, nimbus_cell cell, double *value)
{
    return nimbus_csv_number(cell_text(csv, cell), cell.size, value);
}

static inline bool cell_missing(const nimbus_csv *csv, nimbus_cell cell)
{
    return nimbus_csv_missing(cell_text(csv, cell), cell.size);
}

/* Fails with "row 3 (line 4), column 2 (age), 'abc': " and the reason. */
NIMBUS_MUST_CHECK nimbus_status nimbus_table_error(const nimbus_table *t, size_t row, size_t column,
                                                   nimbus_status status, const char *reason);

typedef struct nimbus_text {
    const char *at;
    size_t size;
    size_t index; /* where it stood before sorting */
} nimbus_text;

/* By bytes; for qsort and bsearch. */
int nimbus_text_compare(const void *a, const void *b);
/* The names in that order, freed with nimbus_free. NULL: out of memory. */
nimbus_text *nimbus_text_sort(const nimbus_names *names);

/* Learns the schema of t->csv: t->schema, t->column and t->first_row. */
NIMBUS_MUST_CHECK nimbus_status nimbus_table_learn(nimbus_table *t, const nimbus_reading *reading,
                                                   const nimbus_table_plan *plan);

#endif
