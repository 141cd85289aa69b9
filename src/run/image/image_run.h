/* image_run.h - a block of images and a step under way, for the files that run them */
#ifndef NIMBUS_RUN_IMAGE_RUN_H
#define NIMBUS_RUN_IMAGE_RUN_H

#include "run/image/image.h"

/* A block of images under way. */
typedef struct nimbus_image_block {
    const nimbus_program *program;
    const nimbus_image *image;
    const nimbus_image_plan *plan;
    const nimbus_kernels *k;
    uint8_t *scratch;
    size_t n_images;
    int32_t *scores;
} nimbus_image_block;

/* A step under way. */
typedef struct nimbus_step_run {
    const nimbus_image_block *run;
    size_t i;
    const nimbus_program_step *step;
    const nimbus_image_step *of_image;
    const nimbus_task *task;
    const uint8_t *x;           /* what taps are counted from */
    int8_t *out;                /* the first position of channel 0 */
    size_t out_plane;           /* from there to that of channel 1 */
    size_t first, n, n_rounded; /* lanes under way, rounded up as kernels want them */
    size_t end;                 /* where they end; the last ones, where the plane does */
} nimbus_step_run;

/* The first plane of a value. */
static inline uint8_t *nimbus_planes(const nimbus_image_block *run, size_t v)
{
    return run->scratch + run->plan->places[v];
}

static inline const nimbus_frame *nimbus_frame_of(const nimbus_image_block *run, size_t v)
{
    return &run->image->frames[run->image->values[v].frame];
}

static inline size_t nimbus_plane_of(const nimbus_image_block *run, size_t v)
{
    return run->plan->planes[run->image->values[v].frame];
}

/* image_rows.c: a convolution whose task is in rows, and an average with one position. */
void nimbus_run_positions(const nimbus_step_run *s);
void nimbus_average_one(const nimbus_step_run *s);

#endif
