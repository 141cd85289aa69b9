/* image_rows.c - steps of images position by position, with the kernels for single rows
 *
 * For what no column kernel can do, for plain C, and for layers with one position (image_plan.c
 * decides); averages with one position. */
#include <string.h>

#include "run/image/image_run.h"

/* Where the outputs of one position stand before they go to their channels. */
static int8_t *output_row(const nimbus_step_run *s)
{
    return (int8_t *)s->run->scratch + s->task->out;
}

static void store_output_row(const nimbus_step_run *s, int8_t *out)
{
    const int8_t *row = output_row(s);
    for (size_t m = 0; m < s->step->n_outputs; m++)
        out[m * s->out_plane] = row[m];
}

/* Outputs of one position, from its row of sums, to their channels. */
static void store_sums(const nimbus_step_run *s, const int32_t *sums, int8_t *out)
{
    const nimbus_kernels *k = s->run->k;
    const nimbus_program_step *step = s->step;
    if (step->output == NIMBUS_OUT_SCALED)
        k->scale_i32i8(sums, step->n_outputs, step->scale, step->offset, 1, output_row(s));
    else
        k->shift_i32i8(sums, step->n_outputs, step->shift, output_row(s));
    store_output_row(s, out);
}

/* Where the window of an image's position (y, x) begins, and its outputs. */
static const uint8_t *window_at(const nimbus_step_run *s, size_t r, size_t y, size_t x)
{
    const nimbus_patch *p = &s->of_image->patch;
    const nimbus_frame *frame = nimbus_frame_of(s->run, s->of_image->sources[0]);
    return s->x + (r * frame->rows + y * p->stride_y) * frame->pitch + x * p->stride_x;
}

static int8_t *output_at(const nimbus_step_run *s, size_t r, size_t y, size_t x)
{
    const nimbus_frame *frame = nimbus_frame_of(s->run, s->i + 1);
    return s->out + (r * frame->rows + y) * frame->pitch + x;
}

/* The codes of one position; taps of `x` are what trees read. */
static void walk(const nimbus_step_run *s, const int8_t *x, uint8_t *codes)
{
    const nimbus_program_step *step = s->step;
    const bool levels = step->info.shared_columns;
    const size_t n_nodes = step->n_leaves - 1, per_tree = levels ? step->n_levels : n_nodes;
    const int8_t *thresholds = step->thresholds;
    const uint32_t *columns = s->task->columns;
    for (size_t c = 0; c < step->n_codebooks; c++, columns += per_tree, thresholds += n_nodes) {
        size_t node = 0;
        for (size_t h = 0; h < step->n_levels; h++)
            node = 2 * node + 1 + (x[columns[levels ? h : node]] > thresholds[node]);
        codes[c] = (uint8_t)(node - n_nodes);
    }
}

static void lookup_position(const nimbus_step_run *s, size_t r, size_t y, size_t x)
{
    const nimbus_image_block *run = s->run;
    const nimbus_program_step *step = s->step;
    uint8_t *codes = run->scratch + s->task->codes;
    int32_t *sums = (int32_t *)(void *)(run->scratch + s->task->sums);
    walk(s, (const int8_t *)window_at(s, r, y, x), codes);
    if (step->narrow) {
        run->k->add_u8i8(&step->table, codes, step->even_bias, step->odd_bias, step->shift,
                         output_row(s));
        store_output_row(s, output_at(s, r, y, x));
        return;
    }
    run->k->add_u8i32(&step->table, codes, step->row_bias, sums);
    if (step->output == NIMBUS_OUT_I32)
        memcpy(run->scores + r * step->n_outputs, sums, step->n_outputs * sizeof(int32_t));
    else
        store_sums(s, sums, output_at(s, r, y, x));
}

/* The groups of a window's taps (nimbus_weights), with zeros to fill up the last one. */
static void pack_window(const nimbus_step_run *s, const uint8_t *x, uint8_t *packed)
{
    const nimbus_shape *shape = &s->run->k->shape;
    const uint32_t *taps = s->task->taps;
    const size_t D = s->step->n_inputs, n = nimbus_rounded_up(D, shape->group);
    if (shape->group == 2)
        for (size_t d = 0; d < n; d++)
            ((int16_t *)(void *)packed)[d] = (int8_t)x[taps[d]];
    else
        for (size_t d = 0; d < n; d++)
            packed[d] = x[taps[d]] ^ shape->flip;
}

/* n positions from number `first` on, counted through all images. */
static void exact_positions(const nimbus_step_run *s, size_t first, size_t n)
{
    const nimbus_image_block *run = s->run;
    const nimbus_program_step *step = s->step;
    const size_t M = step->n_outputs, stride = nimbus_padded(M);
    const size_t width = step->info.width, n_each = width * step->info.height;
    const size_t x_stride = nimbus_padded(step->n_inputs) * nimbus_group_bytes(&run->k->shape);
    uint8_t *packed = run->scratch + s->task->packed;
    int32_t *sums = (int32_t *)(void *)(run->scratch + s->task->sums);
    for (size_t i = 0; i < n; i++) {
        size_t r = (first + i) / n_each, at = (first + i) % n_each;
        pack_window(s, window_at(s, r, at / width, at % width), packed + i * x_stride);
    }
    run->k->dot_rows_i32(&step->weights, packed, x_stride, n, sums, stride);
    for (size_t i = 0; i < n; i++) {
        size_t r = (first + i) / n_each, at = (first + i) % n_each;
        if (step->output == NIMBUS_OUT_I32)
            memcpy(run->scores + r * M, sums + i * stride, M * sizeof *sums);
        else
            store_sums(s, sums + i * stride, output_at(s, r, at / width, at % width));
    }
}

void nimbus_run_positions(const nimbus_step_run *s)
{
    const nimbus_step_info *info = &s->step->info;
    const size_t n = s->run->n_images * info->height * info->width;
    if (info->kind == NIMBUS_STEP_EXACT) {
        for (size_t i = 0; i < n; i += NIMBUS_EXACT_ROWS)
            exact_positions(s, i, n - i < NIMBUS_EXACT_ROWS ? n - i : NIMBUS_EXACT_ROWS);
        return;
    }
    for (size_t r = 0; r < s->run->n_images; r++)
        for (size_t y = 0; y < info->height; y++)
            for (size_t x = 0; x < info->width; x++)
                lookup_position(s, r, y, x);
}

/* An average with one position, of whole planes as a rule. */
void nimbus_average_one(const nimbus_step_run *s)
{
    const nimbus_image_block *run = s->run;
    const size_t v = s->of_image->sources[0];
    const nimbus_frame *frame = nimbus_frame_of(run, v);
    const nimbus_patch *window = &s->of_image->patch;
    const size_t n = (window->height - 1) * frame->pitch + window->width;
    int32_t *sums = (int32_t *)(void *)(run->scratch + s->task->sums);
    for (size_t r = 0; r < run->n_images; r++) {
        const uint8_t *x = nimbus_planes(run, v) + frame->lead + r * frame->rows * frame->pitch;
        run->k->sum_i8i32((const int8_t *)x, nimbus_plane_of(run, v), s->step->n_outputs,
                          s->of_image->in_window, n, run->k->shape.flip, sums);
        store_sums(s, sums, output_at(s, r, 0, 0));
    }
}
