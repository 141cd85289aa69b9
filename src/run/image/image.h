/* image.h - a loaded program on images: what image_prepare.c makes and image_run.c runs
 *
 * A value's channels are planes. In a plane the images of a block lie one after the other, rows of
 * `pitch` bytes, each image `rows` of them, and the bytes between two rows or two images are pads
 * for both of them: wherever a window stands, a tap is the same number of bytes away. So positions
 * are lanes of a vector, like the rows of a block in execute.c, and a plane is a column. Lanes
 * that stand on pads compute something nobody reads; the pads are written over afterwards.
 *
 * All values of one height and width lie alike, in one frame. Where a window moves by more than one
 * position, the planes are first divided into phases (a view), of which each window takes
 * neighbouring bytes. */
#ifndef NIMBUS_RUN_IMAGE_H
#define NIMBUS_RUN_IMAGE_H

#include "run/program.h"

/* Bytes of working memory that a block of images should not exceed, and the most images in one. */
#define NIMBUS_IMAGE_BLOCK_BYTES (384 << 10)
#define NIMBUS_IMAGE_BLOCK_MOST  64
/* Bytes of codes or packed inputs that are made at a time: they stay in the L1 cache. */
#define NIMBUS_IMAGE_CHUNK_BYTES (24 << 10)
#define NIMBUS_IMAGE_CHUNK_MOST  2048

/* How values of one height and width lie. Position (y, x) of image i is byte lead +
 * (i * rows + y) * pitch + x of a plane. */
typedef struct nimbus_frame {
    size_t height, width;
    size_t pitch, rows;
    size_t lead;   /* a multiple of NIMBUS_PAD: pads before the first image */
    uint8_t *keep; /* 0xff at positions, 0 at pads, of a whole plane, and zeros */
} nimbus_frame;

typedef struct nimbus_value {
    size_t channels, height, width, frame;
    const int8_t *pad; /* [channels] what its maker leaves on the pads; NULL: anything */
} nimbus_value;

/* A step beside its nimbus_program_step, which has trees, tables, weights, bias, scale and map. */
typedef struct nimbus_image_step {
    size_t n_sources;
    uint32_t sources[NIMBUS_MAX_SOURCES];
    nimbus_patch patch; /* height 0: none */
    size_t groups;
    int8_t low, high;
    int8_t *pad;        /* [channels] of its source; NULL: it reads no pads */
    bool fills_pad;     /* its source was left other pads */
    bool average_one;   /* an average pool with one position */
    uint8_t *in_window; /* then: 0xff at what it averages, from the first byte on, and zeros */
    /* Convolutions in groups, and average pools: weights of every output for dot_taps_i32,
     * `weight_bytes` apart, and their biases. */
    uint8_t *tap_weights;
    int32_t *tap_bias;
    int8_t *tap_maps; /* [M][256] for map_i8i8, of such convolutions of one tap; else NULL */
    size_t n_taps, weight_bytes;
} nimbus_image_step;

/* A step for a certain number of images. Places are bytes from the start of the scratch. */
typedef struct nimbus_task {
    bool in_rows;              /* a convolution, position by position by the row kernels */
    bool direct;               /* what it computes lies as its output is to lie */
    size_t pitch, rows;        /* of what it computes */
    size_t phases_y, phases_x; /* of the view; 0: it reads the source itself */
    size_t plane;              /* bytes from channel to channel of what it reads */
    size_t out_plane;          /* and of what it computes, if not direct */
    size_t chunk;              /* lanes that are computed together, a multiple of NIMBUS_PAD */
    size_t view, out, codes, packed, sums;
    uint32_t *taps;    /* of one channel group, filled up to a multiple of four */
    uint32_t *columns; /* what trees read: [C][H] or [C][K-1] */
    nimbus_trees trees;
} nimbus_task;

typedef struct nimbus_image_plan {
    size_t n_images;
    size_t *planes; /* [n_frames] bytes from channel to channel */
    size_t *places; /* [n_steps] of values; the last step makes none */
    nimbus_task *tasks;
    size_t scratch_bytes;
} nimbus_image_plan;

typedef struct nimbus_image {
    nimbus_value *values; /* [n_steps]: the input and the outputs of all steps but the last */
    nimbus_image_step *steps;
    nimbus_frame *frames; /* [n_frames] */
    size_t n_frames;
    float *in_scale, *in_offset;  /* [n_inputs], f32 input only */
    nimbus_image_plan one, block; /* for one image, and for as many as are run together */
} nimbus_image;

static inline bool nimbus_has_window(const nimbus_image_step *step)
{
    return step->patch.height > 0;
}

/* How the sums of outputs from m on become i8. */
static inline nimbus_rounding nimbus_rounding_of(const nimbus_program_step *step, size_t m)
{
    const bool scaled = step->output == NIMBUS_OUT_SCALED;
    return (nimbus_rounding){scaled ? step->scale + m : NULL, scaled ? step->offset + m : NULL,
                             step->shift};
}

/* Bytes of i8 weights of one output that dot_taps_i32 takes at a time. */
static inline size_t nimbus_tap_group_bytes(const nimbus_shape *shape)
{
    return shape->group * nimbus_group_bytes(shape);
}

/* Lanes from the first to the last position of n images. */
static inline size_t nimbus_task_lanes(const nimbus_task *task, const nimbus_step_info *info,
                                       size_t n_images)
{
    return ((n_images - 1) * task->rows + info->height - 1) * task->pitch + info->width;
}

/* ---- image_prepare.c ---------------------------------------------------------------------- */

/* Sets program->image and prepares all steps, which are filled as far as load.c does. Error:
 * MEMORY; what was allocated before is left to nimbus_image_free. */
NIMBUS_MUST_CHECK nimbus_status nimbus_image_prepare(nimbus_program *program,
                                                     const nimbus_stored_program *stored,
                                                     nimbus_error *error);
void nimbus_image_free(nimbus_image *image, size_t n_steps);

/* ---- image_plan.c ------------------------------------------------------------------------- */

/* Gives all values their frames and places, for one image and for a block of them. Errors: LIMIT,
 * MEMORY. */
NIMBUS_MUST_CHECK nimbus_status nimbus_image_plan_all(nimbus_program *program, nimbus_error *error);
void nimbus_image_plan_free(nimbus_image_plan *plan, size_t n_steps);

/* ---- image_run.c -------------------------------------------------------------------------- */

size_t nimbus_image_scratch_size(const nimbus_program *program, size_t n_rows);
void nimbus_image_run(const nimbus_program *program, const uint8_t *rows, size_t row_stride,
                      size_t n_rows, int32_t *scores, void *scratch, nimbus_watch watch);

#endif
