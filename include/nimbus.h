/* nimbus.h - load a compiled lookup program and run it: the deployed part of Cumulonimbus.
 *
 *     nimbus_program *program;
 *     nimbus_error error;
 *     if (nimbus_open("mnist.nimbus", &program, &error) != NIMBUS_OK)
 *         { fprintf(stderr, "%s\n", error.message); return 1; }
 *     void *scratch = malloc(nimbus_scratch_size(program, n_rows));
 *     int32_t *scores = malloc(n_rows * nimbus_info(program)->n_outputs * sizeof *scores);
 *     nimbus_run(program, pixels, 784, n_rows, scores, scratch);
 *
 * A loaded program is immutable: any number of threads may run it, each with its own scratch.
 * nimbus_run allocates nothing, takes no lock and does no input or output.
 *
 * Letters used in all documentation: N rows, D inputs, M outputs, C codebooks, V columns per
 * codebook, H tree levels, K = 2^H leaves. */
#ifndef NIMBUS_H
#define NIMBUS_H

#include <stddef.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

#define NIMBUS_VERSION_MAJOR 0
#define NIMBUS_VERSION_MINOR 1
#define NIMBUS_VERSION_PATCH 0

#if defined(__GNUC__)
#define NIMBUS_API        __attribute__((visibility("default")))
#define NIMBUS_MUST_CHECK __attribute__((warn_unused_result))
#else
#define NIMBUS_API
#define NIMBUS_MUST_CHECK
#endif

/* What a function that can fail returns. Every failure also fills the nimbus_error, if given. */
typedef enum nimbus_status {
    NIMBUS_OK = 0,
    NIMBUS_ERR_ARGUMENT,    /* the caller passed something that can never be right */
    NIMBUS_ERR_MEMORY,      /* an allocation failed */
    NIMBUS_ERR_IO,          /* the operating system refused; error.os_errno says why */
    NIMBUS_ERR_FORMAT,      /* the bytes are not what this format allows */
    NIMBUS_ERR_TRUNCATED,   /* the bytes end before what they promise */
    NIMBUS_ERR_CHECKSUM,    /* the bytes were damaged after they were written */
    NIMBUS_ERR_VERSION,     /* written by a newer version of the format */
    NIMBUS_ERR_UNSUPPORTED, /* valid, but not something this build can do */
    NIMBUS_ERR_LIMIT,       /* larger than a documented limit */
    NIMBUS_ERR_VALUE,       /* a datum is wrong: NaN, label out of range, text for a number */
    NIMBUS_ERR_MISMATCH,    /* two things that must fit each other do not (net and data, say) */
    NIMBUS_ERR_STATE,       /* the operation is not allowed in the object's present state */
    NIMBUS_ERR_CANCELLED    /* the progress callback asked to stop */
} nimbus_status;

typedef struct nimbus_error {
    nimbus_status status;
    int os_errno;      /* errno of the failed call for NIMBUS_ERR_IO, else 0 */
    uint64_t offset;   /* byte offset in the input where it went wrong, 0 if meaningless */
    char message[500]; /* one line: what was found, what was expected, and where */
} nimbus_error;

/* Element type of a row of network inputs. */
typedef enum nimbus_dtype { NIMBUS_U8 = 1, NIMBUS_F32 = 2 } nimbus_dtype;

typedef struct nimbus_program nimbus_program;

/* A compiled program as a whole. Sizes in bytes; counts are per row. */
typedef struct nimbus_program_info {
    size_t n_inputs;                /* D of the first step: elements in a row */
    size_t channels, height, width; /* of an image, if rows are such, [channel][y][x]; else 0 */
    size_t n_outputs;               /* M of the last step: scores in a row of results */
    nimbus_dtype input_dtype;       /* what nimbus_run reads: raw, not normalised */
    size_t n_steps;
    float output_scale; /* real-valued output = score * output_scale */
    size_t table_bytes; /* tables and int8 weights as stored */
    size_t file_bytes;
    size_t lookups;       /* table entries added per row */
    size_t comparisons;   /* threshold comparisons per row */
    size_t multiply_adds; /* int8 multiply-adds per row, in exact steps only */
} nimbus_program_info;

/* The last four are of programs on images alone. */
typedef enum nimbus_step_kind {
    NIMBUS_STEP_LOOKUP = 1,
    NIMBUS_STEP_EXACT = 2,
    NIMBUS_STEP_ADD = 3,
    NIMBUS_STEP_MAX_POOL = 4,
    NIMBUS_STEP_AVERAGE_POOL = 5,
    NIMBUS_STEP_CONCAT = 6
} nimbus_step_kind;

/* One step of a program: a lookup layer, or a layer left as an exact int8 product, or what else a
 * program on images has. Of images, the sizes below n_levels; 0 in programs on rows. */
typedef struct nimbus_step_info {
    nimbus_step_kind kind;
    char name[48];      /* the layer's name in the net it was compiled from */
    size_t n_inputs;    /* columns of its input that exist after dead columns are dropped; of an
                           image, what one output can see: taps times channels of its group */
    size_t n_outputs;   /* columns it computes, or channels */
    size_t n_codebooks; /* C; 0 for an exact step, as are n_levels and table_bits */
    size_t n_levels;    /* H */
    size_t n_sources, height, width;    /* how many values it reads; of a channel it makes */
    size_t kernel_height, kernel_width; /* of a window, 0 where a step has none, as the rest */
    size_t stride_y, stride_x, n_groups;
    unsigned table_bits; /* stored bits per table entry: 8 or 4 */
    int shared_columns;  /* 1: a tree level reads one column; 0: every node its own */
    size_t bytes;        /* of the step in the file */
    size_t lookups, comparisons, multiply_adds; /* per row */
} nimbus_step_info;

/* The name of a kind, "lookup", "max pool", ...; "" for no kind. */
NIMBUS_API const char *nimbus_step_kind_name(nimbus_step_kind kind);

/* Opens a .nimbus file. On success *out is owned by the caller (nimbus_close); on failure it is
 * NULL. Times the program's steps on made-up rows, to choose how it runs: some milliseconds, about
 * 0.2 s for thousands of steps. Errors: ARGUMENT (NULL), IO, FORMAT, TRUNCATED, CHECKSUM, VERSION,
 * VALUE (a number that no program can have), LIMIT, MEMORY. */
NIMBUS_API NIMBUS_MUST_CHECK nimbus_status nimbus_open(const char *path, nimbus_program **out,
                                                       nimbus_error *error);

/* The same from n_bytes in memory, which are copied as needed and may be freed afterwards. */
NIMBUS_API NIMBUS_MUST_CHECK nimbus_status nimbus_load(const void *bytes, size_t n_bytes,
                                                       nimbus_program **out, nimbus_error *error);

NIMBUS_API void nimbus_close(nimbus_program *program); /* NULL is allowed */

/* Owned by the program; valid until nimbus_close. */
NIMBUS_API const nimbus_program_info *nimbus_info(const nimbus_program *program);

/* Describes step i < n_steps. Error: ARGUMENT. */
NIMBUS_API NIMBUS_MUST_CHECK nimbus_status nimbus_step(const nimbus_program *program, size_t i,
                                                       nimbus_step_info *out);

/* The JSON text stored with the program (input schema, class names), UTF-8, NUL-terminated;
 * "" if there is none. Owned by the program. The runtime itself never reads it. */
NIMBUS_API const char *nimbus_metadata(const nimbus_program *program);

/* Bytes of scratch that nimbus_run needs for calls of up to n_rows rows. Grows with n_rows only
 * up to one block of rows, then stays constant. */
NIMBUS_API size_t nimbus_scratch_size(const nimbus_program *program, size_t n_rows);

/* Runs n_rows rows. Row r starts at (const char *)rows + r * row_stride (bytes) and holds n_inputs
 * elements of input_dtype; F32 rows must be aligned to 4 bytes. scores is n_rows x n_outputs,
 * row-major. scratch: nimbus_scratch_size(program, n_rows) bytes, any alignment, contents lost.
 * A NaN input counts as "not greater" in every comparison. Error: ARGUMENT (a NULL pointer, or a
 * row_stride below the row's size with n_rows > 1).
 *
 * Rows do not influence each other: to use several threads, give each a stretch of the rows (256 or
 * more pay), its part of scores and scratch of its own; the scores do not depend on how rows are
 * split. examples/threads.c shows it. */
NIMBUS_API NIMBUS_MUST_CHECK nimbus_status nimbus_run(const nimbus_program *program,
                                                      const void *rows, size_t row_stride,
                                                      size_t n_rows, int32_t *scores,
                                                      void *scratch);

/* For measuring: the same, and seen(user, i) is called whenever step i is done for a block of rows,
 * however many that are. What a block's rows need beforehand is part of its step 0. */
typedef void (*nimbus_watch_fn)(void *user, size_t step);
NIMBUS_API NIMBUS_MUST_CHECK nimbus_status nimbus_run_watched(const nimbus_program *program,
                                                              const void *rows, size_t row_stride,
                                                              size_t n_rows, int32_t *scores,
                                                              void *scratch, nimbus_watch_fn seen,
                                                              void *user);

/* Name of the instruction set the kernels were chosen for: "c", "avx2", ... */
NIMBUS_API const char *nimbus_isa(const nimbus_program *program);

/* ---- a program where it lies --------------------------------------------------------------------
 *
 * For devices that have a program in flash and little RAM: nothing of it is copied, nothing is
 * allocated, and rows are run one at a time in plain C, slowly; the scores are those of nimbus_run.
 * docs/embedded.md says how to build just this, and what runs faster: C made by `nimbus export`. */
typedef struct nimbus_in_place nimbus_in_place;

/* Bytes of memory that a program of n_bytes needs to be opened in place, 300 to 500 a step; 0 if it
 * is damaged. */
NIMBUS_API size_t nimbus_in_place_memory_size(const void *bytes, size_t n_bytes);

/* Checks a program of n_bytes at any address, as nimbus_load does, and describes it in the caller's
 * memory of nimbus_in_place_memory_size bytes, at any address; bytes and memory must outlive *out,
 * which needs no closing. NULL on failure. Errors: those of nimbus_load; MEMORY says how much is
 * expected. */
NIMBUS_API NIMBUS_MUST_CHECK nimbus_status nimbus_in_place_open(const void *bytes, size_t n_bytes,
                                                                void *memory, size_t n_memory,
                                                                nimbus_in_place **out,
                                                                nimbus_error *error);

/* As nimbus_info does; valid as long as the program is. */
NIMBUS_API const nimbus_program_info *nimbus_in_place_info(const nimbus_in_place *program);

/* Bytes of scratch for a run: the values between the steps, and the codes of one of them. */
NIMBUS_API size_t nimbus_in_place_scratch_size(const nimbus_in_place *program);

/* Scores of one row; row at any address. Any number of threads, each with scratch of its own.
 * Error: ARGUMENT (NULL). */
NIMBUS_API NIMBUS_MUST_CHECK nimbus_status nimbus_in_place_run(const nimbus_in_place *program,
                                                               const void *row, int32_t *scores,
                                                               void *scratch);

/* ---- one product on its own ---------------------------------------------------------------------
 *
 * y = bias + x W^T of a single layer as trees and tables, for callers who bring the rest of the
 * network themselves. All arrays are plain and column-major: column d of x is the n_rows bytes at
 * x + d * x_stride, codes of codebook c are at codes + c * codes_stride, output m of all rows is at
 * y + m * y_stride. So n_rows = 1 with strides of 1 is simply one row. */
typedef struct nimbus_product nimbus_product;

typedef struct nimbus_product_arrays {
    size_t size;              /* sizeof(nimbus_product_arrays) */
    size_t n_inputs;          /* D, at most 2^24, as M and C are */
    size_t n_outputs;         /* M */
    size_t n_codebooks;       /* C */
    size_t n_levels;          /* H, 1..8 */
    const uint32_t *columns;  /* [C][H]: the column that a level of a tree reads, below D */
    const int8_t *thresholds; /* [C][K-1]: nodes in heap order; right if x > threshold */
    const int8_t *tables;     /* [C][K][M]: what a codebook adds to each output */
    const int32_t *bias;      /* [M], or NULL for zeros */
} nimbus_product_arrays;

/* Copies the arrays into the layouts of this CPU's kernels. Owned by the caller
 * (nimbus_product_free); NULL on failure. Immutable, as a program is. Errors: ARGUMENT, LIMIT (a
 * sum could leave 32 bits), MEMORY. */
NIMBUS_API NIMBUS_MUST_CHECK nimbus_status nimbus_product_new(const nimbus_product_arrays *arrays,
                                                              nimbus_product **out,
                                                              nimbus_error *error);
NIMBUS_API void nimbus_product_free(nimbus_product *product); /* NULL is allowed */

/* Bytes of scratch for any of the calls below, for any number of rows. */
NIMBUS_API size_t nimbus_product_scratch_size(const nimbus_product *product);

/* codes[c * codes_stride + r]: the leaf, 0..K-1, that row r reaches in tree c. Reads and writes
 * nothing but the n_rows bytes of each column. Strides are at least n_rows. Error: ARGUMENT. */
NIMBUS_API NIMBUS_MUST_CHECK nimbus_status nimbus_product_encode(const nimbus_product *product,
                                                                 const int8_t *x, size_t x_stride,
                                                                 size_t n_rows, uint8_t *codes,
                                                                 size_t codes_stride,
                                                                 void *scratch);

/* sums[m * sums_stride + r] = bias[m] + sum over c of tables[c][code][m]. Every code must be below
 * K: this is not checked. Error: ARGUMENT. */
NIMBUS_API NIMBUS_MUST_CHECK nimbus_status nimbus_product_lookup(const nimbus_product *product,
                                                                 const uint8_t *codes,
                                                                 size_t codes_stride, size_t n_rows,
                                                                 int32_t *sums, size_t sums_stride,
                                                                 void *scratch);

/* The same sums as i8 activations: y = sum >> shift (floor), clamped to -128..127; shift 0..24. */
NIMBUS_API NIMBUS_MUST_CHECK nimbus_status
nimbus_product_lookup_i8(const nimbus_product *product, const uint8_t *codes, size_t codes_stride,
                         size_t n_rows, unsigned shift, int8_t *y, size_t y_stride, void *scratch);

/* Name of the instruction set the kernels were chosen for: "c", "avx2", ... */
NIMBUS_API const char *nimbus_product_isa(const nimbus_product *product);

/* From now on programs and products of this process are loaded for at most this instruction set,
 * one of "c", "ssse3", "avx2", ... as nimbus_isa names them; NULL: the best there is. For
 * comparisons: results are the same bits with all of them. Error: ARGUMENT (a name that this
 * build does not know). */
NIMBUS_API NIMBUS_MUST_CHECK nimbus_status nimbus_set_max_isa(const char *name);

/* "ok", "format", ... : the lower-case name of a status, for messages and JSON. */
NIMBUS_API const char *nimbus_status_name(nimbus_status status);

NIMBUS_API const char *nimbus_version(void); /* "0.1.0" */

#ifdef __cplusplus
}
#endif
#endif
