/* writer.h - what the functions that write steps as C share
 *
 * All of them write into one nimbus_source: arrays, helper functions, and the statements of a step
 * into the buffer `b` that they are given. What cannot be allocated or does not fit marks the
 * buffer as failed, which source.c asks for at the end. */
#ifndef NIMBUS_EXPORT_WRITER_H
#define NIMBUS_EXPORT_WRITER_H

#include "export/export.h"

typedef struct nimbus_writer {
    const nimbus_stored_program *program;
    const nimbus_export_plan *plan;
    nimbus_source source;
    nimbus_export_report *report;
    nimbus_error *error;
    size_t n_values;
    size_t n_rows, n_sums, n_patch; /* of the buffers */
    const char *row_type;           /* "uint16_t", or "uint32_t" */
    int64_t *numbers;               /* of an array being written */
    size_t n_numbers;
} nimbus_writer;

typedef struct nimbus_export_trees {
    const nimbus_stored_step *step;
    size_t i;
    const char *x_type;    /* of what they read: "int8_t", ... */
    const char *columns;   /* type of the arrays of columns */
    const char *threshold; /* type */
    bool by_key, per_node, indexed;
} nimbus_export_trees;

typedef struct nimbus_export_tables {
    const nimbus_stored_step *step;
    size_t i;
    nimbus_packing packing;
    uint16_t *number; /* [C K] of each row among the different ones */
    uint32_t *first;  /* [n_rows] one that has it */
    size_t n_rows;
    bool indexed; /* sharing rows pays for their numbers */
} nimbus_export_tables;

/* The window of a step on images. */
typedef struct nimbus_window {
    const nimbus_stored_value *in;
    size_t channels, taps; /* that an output sees */
    bool pads;             /* it can reach outside */
    bool whole;            /* it sees its input from the first byte to the last, once */
} nimbus_window;

/* What becomes of n sums or values of a step: they go to `out`, `apart` apart. They are of all
 * outputs at one position, or `by_channel`, of positions of one output: then the code in front of
 * the loop over outputs, and what it does from one to the next, is set here. */
typedef struct nimbus_finish {
    const char *indent;
    size_t n, apart;
    bool by_channel;
    nimbus_buffer declare, advance;
} nimbus_finish;

/* ---- writer.c ------------------------------------------------------------------------------- */

/* Room for n numbers of the array that is written next, or NULL. */
int64_t *nimbus_writer_numbers(nimbus_writer *w, size_t n);
/* The first n of them as "static const TYPE step_STEP_WHAT[]". */
void nimbus_writer_array(nimbus_writer *w, const char *type, size_t step, const char *what,
                         size_t n);
/* Raises the size of a buffer. */
void nimbus_writer_need(size_t *most, size_t n);
/* A helper function, written where it is needed first. */
void nimbus_writer_helper(nimbus_writer *w, const char *name, const char *text);
/* The greatest integer that is, as a float, not above x: within an input's range, or one below. */
int64_t nimbus_writer_floor_of(float x, nimbus_export_input input);

/* ---- trees.c -------------------------------------------------------------------------------- */

/* The name of the function that walks trees of this kind, and the function. */
void nimbus_name_walk(const nimbus_export_trees *t, char name[48]);
void nimbus_write_walk(nimbus_writer *w, const nimbus_export_trees *t);
/* Thresholds in the numbers of what is compared with them; sets their type. */
void nimbus_write_thresholds(nimbus_writer *w, nimbus_export_trees *t);
/* Column numbers, each through `where` if that is given. */
void nimbus_write_columns(nimbus_writer *w, const nimbus_export_trees *t, const char *what,
                          const uint32_t *where);

/* ---- tables.c ------------------------------------------------------------------------------- */

/* How step i packs and shares its table rows; freed with nimbus_free_tables, also after a failure.
 * False: out of memory. */
bool nimbus_init_tables(nimbus_export_tables *t, const nimbus_stored_step *step, size_t i,
                        unsigned bits);
void nimbus_free_tables(nimbus_export_tables *t);
/* Tables and biases of the step, and the statements that make the sums of the rows found. */
void nimbus_write_tables(nimbus_writer *w, const nimbus_export_tables *t, const char *indent,
                         nimbus_buffer *b);

/* ---- finish.c ------------------------------------------------------------------------------- */

size_t nimbus_positions_of(const nimbus_step_info *info); /* of a step's output; on rows 1 */
/* Stairs as climb reads them. */
void nimbus_put_stairs(const nimbus_stairs *stairs, int64_t to[256]);
/* Map and clamp of values. */
void nimbus_write_map(nimbus_writer *w, size_t i, const nimbus_finish *f, nimbus_buffer *b);
/* From sums to scores, or to bytes. */
void nimbus_write_finish(nimbus_writer *w, size_t i, nimbus_finish *f, nimbus_buffer *b);

/* ---- step_row.c ----------------------------------------------------------------------------- */

/* Weights and biases of an exact step of D inputs a sum. */
void nimbus_write_weights(nimbus_writer *w, size_t i, size_t D);
/* The function of exact products of values of a type; raw u8 count as 128 less. */
void nimbus_write_dot(nimbus_writer *w, const char *type);
/* Error: UNSUPPORTED (an exact step on floats), MEMORY. */
nimbus_status nimbus_write_row_step(nimbus_writer *w, size_t i, nimbus_buffer *b);

/* ---- step_image.c --------------------------------------------------------------------------- */

/* Error: MEMORY. */
nimbus_status nimbus_write_image_step(nimbus_writer *w, size_t i, nimbus_buffer *b);
/* What a step reads outside of its input, for each channel. */
void nimbus_write_pads(nimbus_writer *w, size_t i, const nimbus_window *s);
/* The function that brings a raw image to the int8 values that the first steps read. */
void nimbus_write_image_input(nimbus_writer *w, nimbus_buffer *b);

/* ---- step_channel.c ------------------------------------------------------------------------- */

/* Whether every output of a step sees one channel; a lookup's does not. */
bool nimbus_reads_channels(const nimbus_stored_step *step, const nimbus_window *s);
void nimbus_write_channel_step(nimbus_writer *w, size_t i, const nimbus_window *s,
                               nimbus_buffer *b);

#endif
