/* program.h - a loaded program: what load.c makes and execute.c runs
 *
 * Two ways of running a step stand side by side, because neither is good at both ends:
 *
 *     columns  many rows at once. Data column-major: activations [M][rows], codes [C][rows]. A
 *              table of up to 16 leaves (64 where the set can) fits a register, and one
 *              instruction looks up entries for many rows.
 *     rows     one row at a time, any K: the table row of each code is added to the row of sums.
 *              Data row-major.
 *
 * tune.c measures, when a program is loaded, from how many rows on columns pay for each step. The
 * executor transposes between steps that differ. */
#ifndef NIMBUS_RUN_PROGRAM_H
#define NIMBUS_RUN_PROGRAM_H

#include "base/stored.h"
#include "run/kernels.h"

/* Packed codes of four codebooks in 32 bits count on through the tables of all four. */
#define NIMBUS_CODES_OF_QUADS 0x30201000u
/* The most rows that are run together, and the bytes of theirs that should stay in the L2 cache. */
#define NIMBUS_BLOCK_ROWS  256
#define NIMBUS_BLOCK_BYTES (256 << 10)
/* Rows of an exact step in rows that are multiplied together. */
#define NIMBUS_EXACT_ROWS 4
/* Fewer codebooks are walked one by one. */
#define NIMBUS_WALK_FROM 8
/* Parts of a raw row that are transposed at a time: their columns stay in the L1 cache. */
#define NIMBUS_STAGE_PARTS 16

/* A part of the way from raw u8 rows to codes: a few parts of the rows are transposed, then the
 * codebooks encoded that wait for no later part. */
typedef struct nimbus_stage {
    uint32_t first_part, n_parts, first_codebook, n_codebooks;
} nimbus_stage;

typedef struct nimbus_program_step {
    nimbus_step_info info;
    uint32_t input, output; /* NIMBUS_IN_*, NIMBUS_OUT_* */
    unsigned shift;
    bool has_map, narrow; /* narrow: sums that are only shifted, and all fit 16 bits */
    bool in_bytes;        /* in columns, lookup_u8i8 and wide_u8i8 make the outputs */
    bool of_image;        /* n_inputs are the taps of a window, which are never a row */
    size_t n_inputs, n_outputs, n_codebooks, n_levels, n_leaves; /* D, M, C, H, K */

    /* Lookup steps, in rows. */
    uint32_t *columns; /* [C][K-1], column of each node */
    void *thresholds;  /* i8 or f32 [C][K-1], heap order */
    nimbus_table table;
    uint8_t *entries;   /* of table */
    int32_t *row_bias;  /* [M'], minus what entries carry: 128 C, or 64 C if paired */
    int16_t *even_bias; /* [M'] the same if narrow: those of even outputs, then of odd ones */
    const int16_t *odd_bias;
    int8_t *low, *high; /* [C][M] least and greatest entries; only while being prepared */
    /* Codebooks side by side, where that pays; else walk.thresholds is NULL. By walk_nodes_u8u8 if
     * the columns are not shared, else by walk_u8u8, or walk_f32u8 of f32 rows. */
    nimbus_walk walk;
    uint32_t *gather_columns, *first_windows;
    nimbus_window *windows;
    uint64_t *wanted;
    uint8_t *window_places;
    void *walk_thresholds; /* i8 or f32 */

    /* In columns: where a step can run so at all, from columns_from rows on. */
    size_t columns_from;
    nimbus_part *parts;   /* raw u8 input: what becomes columns */
    nimbus_stage *stages; /* of a lookup step on raw u8 input, else NULL */
    size_t n_parts, n_stages;
    uint32_t *float_parts; /* raw f32 input: [n_parts] where parts of 4 columns begin; else NULL */
    size_t n_columns;      /* of the input that are held at a time */
    nimbus_trees trees;
    uint32_t *tree_columns; /* of trees, as the parts place them */
    void *tree_thresholds;  /* of trees */
    nimbus_tile *tiles;     /* [ceil(M / tile)] */
    uint8_t *tile_tables;
    uint32_t *tile_orders;

    /* Exact steps. */
    nimbus_weights weights;
    void *packed_weights;        /* of weights */
    int32_t *packed_bias;        /* of weights */
    float *in_scale, *in_offset; /* [D], raw f32 input only */

    int32_t *bias;         /* [M] */
    float *scale, *offset; /* [M'], NIMBUS_OUT_SCALED only */
    int8_t map[256];
} nimbus_program_step;

/* Bytes of working memory: of each row in a block, and once. */
typedef struct nimbus_scratch {
    size_t activations; /* of a row, in each of two buffers */
    size_t codes;       /* of a row in columns */
    size_t packed;      /* of a row in columns */
    size_t sums;        /* of a row in columns */
    size_t floats;      /* of NIMBUS_PAD rows in columns */
    size_t row_codes, row_sums, row_packed;
} nimbus_scratch;

struct nimbus_program {
    nimbus_program_info info;
    const nimbus_kernels *kernels;
    nimbus_program_step *steps;
    char *metadata;
    struct nimbus_image *image; /* image/image.h; NULL: a program on rows, and then: */
    nimbus_scratch scratch;
    size_t block_rows; /* NIMBUS_BLOCK_ROWS, or half or a quarter of them */
    /* How many rows of a block of n run in columns, the others one by one. */
    uint16_t n_in_columns[NIMBUS_BLOCK_ROWS + 1];
    size_t least_in_columns; /* the fewest rows of which any do */
};

/* Whether a step can run in columns at all. */
static inline bool nimbus_step_has_columns(const nimbus_program_step *step,
                                           const nimbus_kernels *kernels)
{
    if (step->info.kind == NIMBUS_STEP_EXACT)
        return kernels->shape.granule != 0;
    bool by_level = step->info.shared_columns && step->input != NIMBUS_IN_F32;
    return step->n_leaves <= (by_level ? nimbus_column_leaves(kernels) : 16) &&
           kernels->shape.granule != 0;
}

/* Whether a lookup step reads packed codes in columns. */
static inline bool nimbus_step_is_packed(const nimbus_program_step *step,
                                         const nimbus_kernels *kernels)
{
    return kernels->shape.packed && step->n_leaves <= 16;
}

/* Bytes that an i8 takes in the groups of exact products. */
static inline size_t nimbus_group_bytes(const nimbus_shape *shape)
{
    return shape->group == 2 ? sizeof(int16_t) : sizeof(int8_t);
}

/* prepare.c: copies a checked step's arrays into the layouts of the kernels. What was allocated
 * before a failure is left to nimbus_step_free. Error: MEMORY. */
NIMBUS_MUST_CHECK nimbus_status nimbus_step_prepare(nimbus_program_step *step,
                                                    const nimbus_step_arrays *arrays,
                                                    const nimbus_kernels *kernels,
                                                    nimbus_error *error);
/* The part of it that does not depend on the kind: bias, scale, offset and map. */
NIMBUS_MUST_CHECK bool nimbus_step_prepare_output(nimbus_program_step *step,
                                                  const nimbus_step_arrays *arrays);
void nimbus_step_free(nimbus_program_step *step);

/* n floats of a file in an array of n_allocated, or NULL. */
float *nimbus_copy_floats(const uint8_t *bytes, size_t n, size_t n_allocated);

/* layout.c: the parts of preparing that depend on a set's kernels. False: out of memory. */
bool nimbus_step_lay_out_tiles(nimbus_program_step *step, const nimbus_kernels *kernels);
bool nimbus_step_lay_out_weights(nimbus_program_step *step, const int8_t *weights,
                                 const nimbus_kernels *kernels);
bool nimbus_step_lay_out_walk(nimbus_program_step *step, const nimbus_kernels *kernels);
bool nimbus_step_lay_out_parts(nimbus_program_step *step); /* all of a row */
bool nimbus_step_lay_out_stages(nimbus_program_step *step);

/* nimbus_alloc for n * m elements of `size` bytes and some more. */
void *nimbus_alloc_product(size_t n, size_t m, size_t size, size_t extra);

/* Who is told of steps that are done; without `seen` nobody. */
typedef struct nimbus_watch {
    nimbus_watch_fn seen;
    void *user;
} nimbus_watch;

static inline void nimbus_watch_step(nimbus_watch watch, size_t i)
{
    if (watch.seen)
        watch.seen(watch.user, i);
}

/* ---- execute.c ---------------------------------------------------------------------------- */

typedef enum nimbus_form { NIMBUS_RAW, NIMBUS_ROWS, NIMBUS_COLUMNS } nimbus_form;

/* A block of rows under way. */
typedef struct nimbus_block {
    const nimbus_program *program;
    const nimbus_kernels *kernels;
    size_t n_rows;
    nimbus_form form;
    const uint8_t *data; /* raw rows or i8 activations */
    size_t stride;       /* bytes from row to row, or elements from column to column */
    uint8_t *activations[2];
    unsigned spare;          /* which of them `data` is not */
    uint8_t *codes, *packed; /* in columns */
    void *sums;              /* in columns */
    float *floats;           /* in columns, NIMBUS_PAD rows */
    uint8_t *row_codes, *row_packed;
    void *row_sums;
    int32_t *scores;
} nimbus_block;

/* What the steps of a program need; to be set before anything is run. */
nimbus_scratch nimbus_scratch_measure(const nimbus_program *program);

size_t nimbus_block_rows(const nimbus_program *program);

/* Divides scratch of nimbus_scratch_size bytes for blocks of up to n_rows rows. */
void nimbus_block_init(nimbus_block *block, const nimbus_program *program, size_t n_rows,
                       void *scratch);

/* Runs one step on the block's data, in columns or in rows, and makes its outputs the data. */
void nimbus_block_run_step(nimbus_block *block, const nimbus_program_step *step, bool in_columns);

/* Codes of one row, raw or i8, readable up to a multiple of NIMBUS_PAD unless raw: C' bytes. */
void nimbus_encode_row(const nimbus_kernels *kernels, const nimbus_program_step *step,
                       const uint8_t *x, uint8_t *codes);

/* ---- tune.c ------------------------------------------------------------------------------- */

/* Measures the steps of a prepared program on this machine and decides what runs in columns.
 * Error: MEMORY. */
NIMBUS_MUST_CHECK nimbus_status nimbus_program_tune(nimbus_program *program, nimbus_error *error);

#endif
