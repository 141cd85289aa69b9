/* program.h - a loaded program: what load.c makes and execute.c runs
 *
 * Two ways of running a lookup step stand side by side, because neither is good at both ends:
 *
 *     columns  many rows at once, K <= 16: a table fits a register, a shuffle looks up one entry
 *              for each of many rows. Data column-major: codes [C][rows], activations [M][rows].
 *     rows     one row at a time, any K: the table row of each code is added to the row of sums.
 *              Data row-major.
 *
 * Exact steps and steps with more than 16 leaves always run in rows; all others run in columns
 * from so many rows on that it pays (nimbus_kernels.columns_from). The executor transposes between
 * steps that differ. */
#ifndef NIMBUS_RUN_PROGRAM_H
#define NIMBUS_RUN_PROGRAM_H

#include "base/base.h"
#include "base/program_format.h"
#include "run/kernels.h"

/* Rows run together; activations of a block stay in the L2 cache. */
#define NIMBUS_BLOCK_ROWS 256
/* Fewer rows than this are run one by one. */
#define NIMBUS_COLUMNS_FROM  12
#define NIMBUS_COLUMN_LEAVES 16
/* Rows of an exact step whose sums are held together. */
#define NIMBUS_EXACT_ROWS 4

typedef struct nimbus_program_step {
    nimbus_step_info info;
    uint32_t input, output; /* NIMBUS_IN_*, NIMBUS_OUT_* */
    unsigned shift;
    bool has_map, narrow; /* narrow: sums that are only shifted, and all fit 16 bits */
    size_t n_inputs, n_outputs, n_codebooks, n_levels, n_leaves; /* D, M, C, H, K */

    /* Lookup steps, in rows. Codebooks padded to C' = a multiple of NIMBUS_WALK. */
    uint32_t *columns;       /* [C][K-1], column of each node */
    void *thresholds;        /* i8 or f32 [C][K-1], heap order */
    uint32_t *walk_columns;  /* [H][C'] and the i8 thresholds [K-1][C'] of walk_i8u8, for trees */
    int8_t *walk_thresholds; /* with a column per level on u8 or i8 input; else NULL */
    nimbus_table table;
    uint8_t *entries; /* of table */
    void *row_bias;   /* i16 or i32 [M'], minus the 128 C that entries carry */

    /* Lookup steps, in columns (K <= 16). */
    nimbus_trees trees;
    uint32_t *live; /* raw input: [n_live] distinct columns that are read; else NULL */
    size_t n_live;
    uint32_t *tree_columns;   /* of trees, counted in live columns if there is such a list */
    int8_t *level_thresholds; /* of trees, i8 with a column per level; else thresholds serve */
    nimbus_tile *tiles;       /* [ceil(M / NIMBUS_TILE)] */
    uint8_t *tile_tables;
    uint32_t *tile_orders;

    /* Exact steps. */
    int8_t *weights;             /* [M][D] and NIMBUS_PAD bytes */
    float *in_scale, *in_offset; /* [D], raw f32 input only */

    int32_t *bias;         /* [M] */
    float *scale, *offset; /* [M'], NIMBUS_OUT_SCALED only */
    int8_t map[256];
} nimbus_program_step;

struct nimbus_program {
    nimbus_program_info info;
    const nimbus_kernels *kernels;
    nimbus_program_step *steps;
    char *metadata;
};

/* Arrays of a step as they lie in the file, checked by load.c. Integers and floats are
 * little-endian and need not be aligned. */
typedef struct nimbus_step_arrays {
    const uint8_t *columns, *thresholds, *tables, *weights, *bias, *in_scale, *in_offset, *scale,
        *offset, *map;
} nimbus_step_arrays;

static inline size_t nimbus_rounded_up(size_t n, size_t multiple)
{
    return (n + multiple - 1) / multiple * multiple;
}

static inline size_t nimbus_padded(size_t n)
{
    return nimbus_rounded_up(n, NIMBUS_PAD);
}

/* Whether a step can run in columns at all. */
static inline bool nimbus_step_has_columns(const nimbus_program_step *step)
{
    return step->info.kind == NIMBUS_STEP_LOOKUP && step->n_leaves <= NIMBUS_COLUMN_LEAVES;
}

static inline uint32_t nimbus_u32_at(const uint8_t *bytes, size_t i)
{
    const uint8_t *p = bytes + 4 * i;
    return (uint32_t)p[0] | (uint32_t)p[1] << 8 | (uint32_t)p[2] << 16 | (uint32_t)p[3] << 24;
}

/* Entry m of table row c * K + k, whichever width it is stored in. */
int nimbus_table_entry(const nimbus_program_step *step, const uint8_t *tables, size_t row,
                       size_t m);

/* Copies a checked step's arrays into the layouts of the kernels. What was allocated before a
 * failure is left to nimbus_close. Error: MEMORY. */
NIMBUS_MUST_CHECK nimbus_status nimbus_step_prepare(nimbus_program_step *step,
                                                    const nimbus_step_arrays *arrays,
                                                    nimbus_error *error);
void nimbus_step_free(nimbus_program_step *step);

#endif
