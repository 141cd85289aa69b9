/* rows.h - rows of network inputs from a file or standard input, a block at a time, and a program
 * run on them by several threads */
#ifndef NIMBUS_TOOL_ROWS_H
#define NIMBUS_TOOL_ROWS_H

#include "tool.h"

typedef enum rows_format {
    ROWS_AUTO = 0, /* by the name's suffix or the first bytes */
    ROWS_CSV,
    ROWS_NPY,
    ROWS_IDX,
    ROWS_U8, /* raw bytes, no header */
    ROWS_F32 /* raw little-endian floats, no header */
} rows_format;

extern const char *const rows_format_names[]; /* in the order of the enumeration, NULL at the end */

typedef struct rows_reader rows_reader;

/* path "-" is standard input; a name ending in .gz is decompressed. The model says how wide and of
 * which type a row is and how table columns are read. */
nimbus_status rows_open(const char *path, rows_format format, const model *m, rows_reader **out,
                        nimbus_error *error) NIMBUS_MUST_CHECK;
/* Rows of an open data set, which stays the caller's. */
nimbus_status rows_of_data(const nimbus_data *data, const model *m, rows_reader **out,
                           nimbus_error *error) NIMBUS_MUST_CHECK;
/* The next up to max_rows rows, valid until the next call; 0 rows: the end. Tables from a pipe are
 * handed on as they come. Not to have any row is an error: VALUE. */
nimbus_status rows_next(rows_reader *reader, size_t max_rows, const void **rows, size_t *n_rows,
                        nimbus_error *error) NIMBUS_MUST_CHECK;
/* Cells of a table that had no value of their own so far: see nimbus_data_gaps. */
void rows_gaps(const rows_reader *reader, size_t *n_filled, size_t *n_unknown);
void rows_close(rows_reader *reader);

/* ---- runner.c ----------------------------------------------------------------------------- */

typedef struct row_runner row_runner;

/* For up to max_rows rows at once; n_threads 0: all cores. The program stays the caller's. */
nimbus_status runner_new(const nimbus_program *program, size_t max_rows, size_t n_threads,
                         row_runner **out, nimbus_error *error) NIMBUS_MUST_CHECK;
/* As nimbus_run: the same scores for any number of threads. */
nimbus_status runner_run(row_runner *runner, const void *rows, size_t row_stride, size_t n_rows,
                         int32_t *scores) NIMBUS_MUST_CHECK;
void runner_free(row_runner *runner);

#endif
