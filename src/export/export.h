/* export.h - the parts of the export stage: from a program to stand-alone C
 *
 * A program is read (base/stored.h), its tables narrowed where that is asked for, its values are
 * given places in RAM, and every step becomes one C function with its arrays. What the C computes
 * is what the runtime computes of the same program, to the last bit:
 *
 *     narrow.c   fewer bits in table entries: a program again, of which the C is then written
 *     stairs.c   what a sum becomes, without a product: the sums at which the output changes
 *     text.c     arrays and text
 *     source.c   the C of a program, with the parts of writer.h
 *     pages.c    what is written beside it
 *     golden.c   rows, at thresholds and beside them, their scores, and the self-test
 *     export.c   options, limits, and the files */
#ifndef NIMBUS_EXPORT_H
#define NIMBUS_EXPORT_H

#include "base/stored.h"
#include "nimbus_build.h"

/* ---- narrow.c ------------------------------------------------------------------------------ */

/* What the entries of a step are stored as: they are multiples of 1 << drop, and divided by it
 * fit `bits` of 4..8 bits with sign. */
typedef struct nimbus_packing {
    unsigned bits, drop;
} nimbus_packing;

/* How the tables of a step are packed: in at most `bits` bits, and in 8 where less does not make
 * them smaller. Its entries fit. */
nimbus_packing nimbus_packing_of(const nimbus_stored_step *step, unsigned bits);

/* The program with tables of `bits[i]` bits in step i, rounded; the bytes of a file, as out. Error:
 * MEMORY. */
NIMBUS_MUST_CHECK nimbus_status nimbus_narrow(const nimbus_stored_program *program,
                                              const void *bytes, const unsigned *bits,
                                              nimbus_buffer *out, nimbus_error *error);

/* Sum over all entries of the squared error of rounding to so many bits. */
double nimbus_narrow_error(const nimbus_stored_step *step, unsigned bits);
double nimbus_table_energy(const nimbus_stored_step *step); /* sum of their squares */

/* ---- stairs.c ------------------------------------------------------------------------------ */

/* The steps of a staircase from -128 to 127: it is at least k - 128 from stairs[k] on, for k of
 * 1..255. If `falls`, of the negative sum. Sums lie in low..high; a step that none reaches is at
 * high + 1, one that all have passed at low. */
typedef struct nimbus_stairs {
    int64_t low, high;
    int64_t at[256];
    bool falls;
} nimbus_stairs;

/* Of sums or raw values x in low..high, which become sat8(round(x * scale + offset)). */
void nimbus_stairs_of_integer(float scale, float offset, int64_t low, int64_t high,
                              nimbus_stairs *out);
/* The same of floats, counted by nimbus_float_key. */
void nimbus_stairs_of_float(float scale, float offset, nimbus_stairs *out);

/* Floats in their order as integers: a < b if key(a) < key(b), -0 and 0 apart. */
int32_t nimbus_float_key(float x);

/* A line that meets the steps: floor(sum << shift) >= start + k * slope where sum >= at[k]. */
typedef struct nimbus_line {
    int32_t start, slope;
} nimbus_line;

/* Sums farther from 0 than that become what the one at that distance becomes. */
int64_t nimbus_stairs_reach(const nimbus_stairs *stairs);
/* The line that comes closest. False: it does not fit 32 bits. */
bool nimbus_line_fit(const nimbus_stairs *stairs, unsigned shift, nimbus_line *out);
/* How many sums a line gets wrong, none if it meets every step. Each of them, and what it becomes,
 * is told to `tell`, if that is given. Some huge number: too many to count. */
size_t nimbus_line_faults(const nimbus_stairs *stairs, unsigned shift, const nimbus_line *line,
                          void (*tell)(void *arg, int64_t sum, int value), void *arg);

/* The range of sums of output m of a convolution, linear layer or average pool, bias included. */
void nimbus_sum_range(const nimbus_stored_step *step, size_t m, int64_t *low, int64_t *high);

#define NIMBUS_MOST_PREFIX 32 /* characters of the prefix of all names */

/* ---- text.c -------------------------------------------------------------------------------- */

/* The parts of a C file while it is written. */
typedef struct nimbus_source {
    nimbus_buffer arrays, helpers, steps;
    nimbus_buffer names; /* of helpers that are there already, one behind the other */
    size_t flash;        /* bytes of all arrays */
} nimbus_source;

/* The prefix as macros have it. */
void nimbus_upper(const char *name, char out[NIMBUS_MOST_PREFIX + 1]);

/* The name of a layer for comments and pages: what is not plain in them becomes "_". */
void nimbus_plain_name(const char *name, char out[NIMBUS_STEP_NAME_BYTES]);

void nimbus_text(nimbus_buffer *b, const char *format, ...) __attribute__((format(printf, 2, 3)));

/* Adds what `from` holds, which is freed; a failure is handed on. */
void nimbus_text_move(nimbus_buffer *to, nimbus_buffer *from);

/* Whether a helper of this name is still to be written; then it counts as written. */
bool nimbus_needs_helper(nimbus_source *source, const char *name);

/* The narrowest of the unsigned, or signed, types that hold low..high: "uint8_t", ... */
const char *nimbus_type_for(int64_t low, int64_t high);
size_t nimbus_type_bytes(const char *type);

/* n elements and what fills their array up to a multiple of 4 bytes. */
size_t nimbus_type_padded(const char *type, size_t n);

/* "static const TYPE name[n] = {...};", filled with zeros up to a multiple of 4 bytes, so that its
 * size is the same with every compiler. */
void nimbus_text_array(nimbus_source *source, const char *type, const char *name,
                       const int64_t *values, size_t n);

void nimbus_source_free(nimbus_source *source);

/* ---- source.c ------------------------------------------------------------------------------ */

/* What is asked of a C file. */
typedef struct nimbus_export_plan {
    const char *prefix;
    nimbus_export_input input; /* resolved: never NIMBUS_EXPORT_AS_STORED */
    const unsigned *bits;      /* [n_steps], of tables */
} nimbus_export_plan;

/* Writes the C of a program. Only the sizes and counts of *report are set. Errors: UNSUPPORTED (a
 * step that no integers can do), LIMIT, MEMORY. */
NIMBUS_MUST_CHECK nimbus_status nimbus_source_write(const nimbus_stored_program *program,
                                                    const nimbus_export_plan *plan,
                                                    nimbus_buffer *out,
                                                    nimbus_export_report *report,
                                                    nimbus_error *error);

/* "uint8_t", the type of an element of a raw row. */
const char *nimbus_input_type(nimbus_export_input input);
/* The range of its values; of floats, that of keys. */
void nimbus_input_range(nimbus_export_input input, int64_t *low, int64_t *high);

/* ---- tables.c ------------------------------------------------------------------------------ */

/* The most bits, at least `bits`, that take no more words a row: those of 5 to 7 lie in several
 * planes, each padded, so that narrow layers are smaller, and better, with 8. */
unsigned nimbus_widest_as_small(const nimbus_step_info *info, unsigned bits);

/* ---- pages.c ------------------------------------------------------------------------------- */

void nimbus_write_header(const nimbus_stored_program *program, const nimbus_export_plan *plan,
                         const nimbus_export_report *report, const nimbus_export_options *options,
                         nimbus_buffer *b);
void nimbus_write_makefile(const nimbus_export_plan *plan, nimbus_buffer *b);
/* Bytes, operations and layers, in Markdown. */
void nimbus_write_page(const nimbus_stored_program *program, const nimbus_export_plan *plan,
                       const nimbus_export_report *report, const nimbus_export_options *options,
                       nimbus_buffer *b);

/* ---- golden.c ------------------------------------------------------------------------------ */

/* Rows for the self-test: of data, or made up, at the thresholds of the first step and beside them;
 * and the scores that the program gives them. Adds the files of the test. Errors: MISMATCH (data
 * and program), VALUE (a row is not of the input type), MEMORY. */
NIMBUS_MUST_CHECK nimbus_status nimbus_golden_write(const nimbus_stored_program *program,
                                                    const void *bytes, size_t n_bytes,
                                                    const nimbus_export_plan *plan,
                                                    const nimbus_data *rows, size_t n_rows,
                                                    nimbus_buffer *out, nimbus_error *error);

#endif
