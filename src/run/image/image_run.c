/* image_run.c - run a program on images
 *
 * A block of images goes through all steps before the next one starts. How values lie, and why
 * positions are lanes, stands in image.h; image_plan.c has decided everything that does not depend
 * on the pixels. */
#include "run/image/image_run.h"

#include <string.h>

/* ---- values ------------------------------------------------------------------------------- */

/* Sets the pads of all channels. */
static void set_pads(const nimbus_image_block *run, size_t v, const int8_t *pad)
{
    const nimbus_value *value = &run->image->values[v];
    const nimbus_frame *frame = nimbus_frame_of(run, v);
    const size_t n = frame->lead + run->n_images * frame->rows * frame->pitch;
    run->k->frame_i8i8((int8_t *)nimbus_planes(run, v), nimbus_plane_of(run, v), value->channels,
                       frame->keep, n, -128, 127, pad);
}

/* What is left to do when a step has computed lanes first .. end - 1 of n channels of value v from
 * channel m on, all of a plane or chunk by chunk: map, clamp, and pads. */
static void finish_lanes(const nimbus_step_run *s, size_t m, size_t n, size_t first, size_t end)
{
    const nimbus_kernels *k = s->run->k;
    const nimbus_value *value = &s->run->image->values[s->i + 1];
    const nimbus_frame *frame = nimbus_frame_of(s->run, s->i + 1);
    const int8_t low = s->of_image->low, high = s->of_image->high;
    const size_t begin = first ? frame->lead + first : 0,
                 stride = nimbus_plane_of(s->run, s->i + 1);
    int8_t *plane = (int8_t *)nimbus_planes(s->run, s->i + 1) + m * stride;
    for (size_t c = 0; c < n && s->step->has_map; c++) {
        int8_t *lanes = plane + c * stride + frame->lead + first;
        k->map_i8i8(lanes, end - first, s->step->map, lanes);
    }
    if (value->pad || low > -128 || high < 127)
        k->frame_i8i8(plane + begin, stride, n, frame->keep + begin, frame->lead + end - begin, low,
                      high, value->pad ? value->pad + m : NULL);
}

/* The same for the whole value. */
static void finish_value(const nimbus_step_run *s)
{
    const nimbus_frame *frame = nimbus_frame_of(s->run, s->i + 1);
    finish_lanes(s, 0, s->step->n_outputs, 0, s->run->n_images * frame->rows * frame->pitch);
}

/* n bytes plus 128, modulo 256; in blocks of a constant length, which compilers vectorise. */
static void flip_bytes(const uint8_t *restrict in, size_t n, uint8_t *restrict out)
{
    enum { BLOCK = 16 };
    size_t i = 0;
    for (; i + BLOCK <= n; i += BLOCK)
        for (size_t j = 0; j < BLOCK; j++)
            out[i + j] = in[i + j] ^ 0x80;
    for (; i < n; i++)
        out[i] = in[i] ^ 0x80;
}

/* Brings images into value 0. */
static void load_images(const nimbus_image_block *run, const uint8_t *rows, size_t row_stride)
{
    const nimbus_program_info *info = &run->program->info;
    const nimbus_frame *frame = nimbus_frame_of(run, 0);
    const bool u8 = info->input_dtype == NIMBUS_U8;
    for (size_t r = 0; r < run->n_images; r++, rows += row_stride) {
        const uint8_t *from = rows;
        if (!u8) {
            run->k->quantise_f32i8((const float *)(const void *)rows, info->n_inputs,
                                   run->image->in_scale, run->image->in_offset,
                                   (int8_t *)run->scratch);
            from = run->scratch;
        }
        for (size_t c = 0; c < info->channels; c++) {
            uint8_t *to = nimbus_planes(run, 0) + c * nimbus_plane_of(run, 0) + frame->lead +
                          r * frame->rows * frame->pitch;
            for (size_t y = 0; y < info->height; y++, from += info->width, to += frame->pitch) {
                if (u8)
                    flip_bytes(from, info->width, to);
                else
                    memcpy(to, from, info->width);
            }
        }
    }
    if (run->image->values[0].pad)
        set_pads(run, 0, run->image->values[0].pad);
}

/* ---- views -------------------------------------------------------------------------------- */

/* Rows of a phase: of n_rows rows `in_stride` apart every stride'th byte. */
static void copy_phase(const uint8_t *from, size_t in_stride, size_t n_rows, size_t stride,
                       size_t n, uint8_t *to, size_t pitch)
{
    for (size_t r = 0; r < n_rows; r++, from += in_stride, to += pitch)
        for (size_t i = 0; i < n; i++)
            to[i] = from[i * stride];
}

/* The phases of the source's planes; with a stride of two, two neighbouring ones at a time. Beyond
 * the pads there is nothing to copy. */
static void make_view(const nimbus_step_run *s)
{
    const nimbus_image_block *run = s->run;
    const nimbus_task *task = s->task;
    const nimbus_patch *p = &s->of_image->patch;
    const size_t v = s->of_image->sources[0], channels = run->image->values[v].channels;
    const nimbus_frame *frame = nimbus_frame_of(run, v);
    const size_t height = frame->height + p->top + p->bottom;
    const size_t width = frame->width + p->left + p->right;
    const size_t n_rows = s->step->info.height + (p->height - 1) * p->dilation_y / p->stride_y;
    const size_t n = s->step->info.width + (p->width - 1) * p->dilation_x / p->stride_x;
    const size_t in_stride = p->stride_y * frame->pitch, next = channels * task->plane;
    const bool split = p->stride_x == 2;
    for (size_t phase = 0; phase < task->phases_y * task->phases_x;
         phase += split ? task->phases_x : 1) {
        const size_t y = phase / task->phases_x * p->dilation_y % p->stride_y;
        const size_t x = phase % task->phases_x * p->dilation_x % p->stride_x;
        const size_t rows_there = (height - y + p->stride_y - 1) / p->stride_y;
        const size_t there = (width - x + p->stride_x - 1) / p->stride_x;
        const size_t n_copied = n_rows < rows_there ? n_rows : rows_there;
        const uint8_t *from = nimbus_planes(run, v) + frame->lead + y * frame->pitch -
                              p->top * frame->pitch - p->left;
        uint8_t *to = run->scratch + task->view + phase * next;
        for (size_t r = 0; r < run->n_images; r++) {
            const uint8_t *image = from + r * frame->rows * frame->pitch;
            uint8_t *out = to + r * task->rows * task->pitch;
            if (split)
                run->k->split_u8u8(image, nimbus_plane_of(run, v), channels, in_stride, n_copied, n,
                                   out, task->phases_x == 2 ? out + next : NULL, task->plane,
                                   task->pitch);
            for (size_t c = 0; c < channels && !split; c++)
                copy_phase(image + c * nimbus_plane_of(run, v) + x, in_stride, n_copied,
                           p->stride_x, n < there ? n : there, out + c * task->plane, task->pitch);
        }
    }
}

/* ---- sums to outputs ----------------------------------------------------------------------- */

/* Scores of n outputs from m on: the sums of the lanes under way that are positions. */
static void store_scores(const nimbus_step_run *s, const int32_t *sums, size_t m, size_t n)
{
    const nimbus_task *task = s->task;
    const size_t M = s->step->n_outputs, period = task->rows * task->pitch;
    for (size_t r = (s->first + period - 1) / period; r * period < s->first + s->n; r++)
        for (size_t t = 0; t < n; t++)
            s->run->scores[r * M + m + t] = sums[t * task->chunk + r * period - s->first];
}

/* ---- lanes -------------------------------------------------------------------------------- */

static int8_t *lanes_of(const nimbus_step_run *s, size_t m)
{
    return s->out + m * s->out_plane + s->first;
}

/* After the lanes of n outputs from m on: while they are in the L1 cache. */
static void end_lanes(const nimbus_step_run *s, size_t m, size_t n)
{
    if (s->task->direct && s->step->output != NIMBUS_OUT_I32)
        finish_lanes(s, m, n, s->first, s->end);
}

static void lookup_tile(const nimbus_step_run *s, const nimbus_tile *tile, size_t m,
                        size_t n_outputs, const uint8_t *codes, size_t n)
{
    const nimbus_kernels *k = s->run->k;
    const nimbus_program_step *step = s->step;
    const bool wide = step->n_leaves > 16;
    const size_t chunk = s->task->chunk;
    int8_t *out = step->output == NIMBUS_OUT_I32 ? NULL : lanes_of(s, m);
    if (!out) {
        int32_t *sums = (int32_t *)(void *)(s->run->scratch + s->task->sums);
        (wide ? k->wide_u8i32 : k->lookup_u8i32)(tile, codes, chunk, n, sums, chunk);
        store_scores(s, sums, m, n_outputs);
    } else if (step->in_bytes) {
        (wide ? k->wide_u8i8 : k->lookup_u8i8)(tile, codes, chunk, n, step->shift, out,
                                               s->out_plane);
    } else {
        const nimbus_rounding rounding = nimbus_rounding_of(step, 0);
        (wide ? k->wide_rounded_u8i8 : k->lookup_rounded_u8i8)(tile, codes, chunk, n, &rounding, m,
                                                               out, s->out_plane);
    }
}

static void lookup_lanes(const nimbus_step_run *s)
{
    const nimbus_kernels *k = s->run->k;
    const nimbus_program_step *step = s->step;
    const nimbus_task *task = s->task;
    const size_t size = k->shape.tile, M = step->n_outputs, chunk = task->chunk;
    const size_t n = step->n_leaves > 16 ? nimbus_padded(s->n) : s->n_rounded;
    uint8_t *codes = s->run->scratch + task->codes;
    const int8_t *x = (const int8_t *)s->x + s->first;
    if (step->info.shared_columns)
        k->encode_i8u8(&task->trees, x, 1, n, codes, chunk);
    else
        k->encode_nodes_i8u8(&task->trees, x, 1, n, codes, chunk);
    if (nimbus_step_is_packed(step, k)) {
        uint8_t *to = s->run->scratch + task->packed;
        k->pack_u8u8(codes, chunk, n, step->n_codebooks, NIMBUS_CODES_OF_QUADS, to, chunk);
        codes = to;
    }
    for (size_t m = 0; m < M; m += size) {
        const size_t n_outputs = M - m < size ? M - m : size;
        lookup_tile(s, &step->tiles[m / size], m, n_outputs, codes, n);
        end_lanes(s, m, n_outputs);
    }
}

static void exact_lanes(const nimbus_step_run *s)
{
    const nimbus_kernels *k = s->run->k;
    const nimbus_task *task = s->task;
    const size_t size = k->shape.tile, M = s->step->n_outputs;
    const nimbus_rounding rounding = nimbus_rounding_of(s->step, 0);
    uint8_t *packed = s->run->scratch + task->packed;
    int32_t *sums = (int32_t *)(void *)(s->run->scratch + task->sums);
    k->pack_taps_u8u8(s->x + s->first, task->taps, s->step->n_inputs, s->n_rounded,
                      k->shape.flip * 0x01010101u, packed, task->chunk);
    for (size_t m = 0; m < M; m += size) {
        const size_t n_outputs = M - m < size ? M - m : size;
        if (s->step->output == NIMBUS_OUT_I32) {
            k->dot_columns_i32(&s->step->weights, m, packed, task->chunk, s->n_rounded, sums);
            store_scores(s, sums, m, n_outputs);
            continue;
        }
        k->dot_columns_i8(&s->step->weights, m, packed, task->chunk, s->n_rounded, &rounding,
                          lanes_of(s, m), s->out_plane);
        end_lanes(s, m, n_outputs);
    }
}

/* Convolutions in groups, and average pools. */
static void grouped_lanes(const nimbus_step_run *s)
{
    const nimbus_kernels *k = s->run->k;
    const nimbus_image_step *of_image = s->of_image;
    const size_t M = s->step->n_outputs, group = k->shape.group;
    const size_t channels = s->run->image->values[of_image->sources[0]].channels;
    const size_t n_groups = of_image->groups ? of_image->groups : channels;
    const size_t n_tap_groups = (of_image->n_taps + group - 1) / group;
    int32_t *sums = (int32_t *)(void *)(s->run->scratch + s->task->sums);
    for (size_t m = 0; m < M; m++) {
        const size_t channel = m / (M / n_groups) * (channels / n_groups);
        const uint8_t *x = s->x + channel * s->task->plane + s->first;
        if (of_image->tap_maps) {
            k->map_i8i8((const int8_t *)x + s->task->taps[0], s->n, of_image->tap_maps + 256 * m,
                        lanes_of(s, m));
            end_lanes(s, m, 1);
            continue;
        }
        const uint8_t *weights = of_image->tap_weights + m * of_image->weight_bytes;
        const nimbus_rounding rounding = nimbus_rounding_of(s->step, m);
        if (s->step->output == NIMBUS_OUT_I32) {
            k->dot_taps_i32(x, s->task->taps, n_tap_groups, weights, of_image->tap_bias[m],
                            k->shape.flip, s->n, sums);
            store_scores(s, sums, m, 1);
            continue;
        }
        k->dot_taps_i8(x, s->task->taps, n_tap_groups, weights, of_image->tap_bias[m],
                       k->shape.flip, s->n, &rounding, lanes_of(s, m));
        end_lanes(s, m, 1);
    }
}

static void max_lanes(const nimbus_step_run *s)
{
    for (size_t m = 0; m < s->step->n_outputs; m++) {
        s->run->k->max_taps_i8i8((const int8_t *)s->x + m * s->task->plane + s->first,
                                 s->task->taps, s->step->n_inputs, s->n, lanes_of(s, m));
        end_lanes(s, m, 1);
    }
}

/* From lanes as they were computed to where they belong. */
static void copy_rows(const nimbus_step_run *s, size_t v)
{
    const nimbus_image_block *run = s->run;
    const nimbus_task *task = s->task;
    const nimbus_frame *frame = nimbus_frame_of(run, v);
    const nimbus_value *value = &run->image->values[v];
    for (size_t c = 0; c < value->channels; c++) {
        uint8_t *to = nimbus_planes(run, v) + c * nimbus_plane_of(run, v) + frame->lead;
        const uint8_t *from = run->scratch + task->out + c * task->out_plane;
        for (size_t r = 0; r < run->n_images; r++)
            for (size_t y = 0; y < value->height; y++)
                memcpy(to + (r * frame->rows + y) * frame->pitch,
                       from + (r * task->rows + y) * task->pitch, value->width);
    }
}

static void run_lanes(nimbus_step_run *s)
{
    const nimbus_image_block *run = s->run;
    const nimbus_task *task = s->task;
    const size_t n_lanes = nimbus_task_lanes(task, &s->step->info, run->n_images);
    const size_t granule = run->k->shape.granule ? run->k->shape.granule : 1;
    if (task->phases_y)
        make_view(s);
    if (!task->direct) {
        s->out = (int8_t *)run->scratch + task->out;
        s->out_plane = task->out_plane;
    }
    for (s->first = 0; s->first < n_lanes; s->first += task->chunk) {
        s->n = n_lanes - s->first < task->chunk ? n_lanes - s->first : task->chunk;
        s->n_rounded = nimbus_rounded_up(s->n, granule);
        s->end =
            s->first + s->n < n_lanes ? s->first + s->n : run->n_images * task->rows * task->pitch;
        if (s->step->info.kind == NIMBUS_STEP_LOOKUP)
            lookup_lanes(s);
        else if (s->step->info.kind == NIMBUS_STEP_MAX_POOL)
            max_lanes(s);
        else if (s->of_image->tap_weights)
            grouped_lanes(s);
        else
            exact_lanes(s);
    }
    if (!task->direct) {
        copy_rows(s, s->i + 1);
        finish_value(s);
    }
}

/* ---- steps without a window ----------------------------------------------------------------- */

static void add(const nimbus_step_run *s)
{
    const nimbus_image_block *run = s->run;
    const nimbus_frame *frame = nimbus_frame_of(run, s->i + 1);
    const size_t n = run->n_images * frame->rows * frame->pitch;
    const int8_t *sources[NIMBUS_MAX_SOURCES];
    for (size_t c = 0; c < s->step->n_outputs; c++) {
        for (size_t k = 0; k < s->of_image->n_sources; k++)
            sources[k] = (const int8_t *)nimbus_planes(run, s->of_image->sources[k]) +
                         c * s->out_plane + frame->lead;
        run->k->add_i8i8(sources, s->of_image->n_sources, n, s->out + c * s->out_plane);
        finish_lanes(s, c, 1, 0, n);
    }
}

static void concat(const nimbus_step_run *s)
{
    const nimbus_image_block *run = s->run;
    const nimbus_frame *frame = nimbus_frame_of(run, s->i + 1);
    int8_t *out = s->out;
    for (size_t k = 0; k < s->of_image->n_sources; k++) {
        const size_t v = s->of_image->sources[k];
        const uint8_t *from = nimbus_planes(run, v) + frame->lead;
        for (size_t c = 0; c < run->image->values[v].channels; c++) {
            memcpy(out, from, run->n_images * frame->rows * frame->pitch);
            out += s->out_plane;
            from += s->out_plane;
        }
    }
}

/* ---- blocks ------------------------------------------------------------------------------- */

static void run_step(const nimbus_image_block *run, size_t i)
{
    const bool last = i + 1 == run->program->info.n_steps;
    nimbus_step_run s = {.run = run,
                         .i = i,
                         .step = &run->program->steps[i],
                         .of_image = &run->image->steps[i],
                         .task = &run->plan->tasks[i]};
    const size_t source = s.of_image->sources[0];
    if (s.of_image->fills_pad)
        set_pads(run, source, s.of_image->pad);
    s.x = s.task->phases_y ? run->scratch + s.task->view : nimbus_planes(run, source);
    if (!last) {
        s.out = (int8_t *)nimbus_planes(run, i + 1) + nimbus_frame_of(run, i + 1)->lead;
        s.out_plane = nimbus_plane_of(run, i + 1);
    }
    if (s.step->info.kind == NIMBUS_STEP_ADD)
        add(&s);
    else if (s.step->info.kind == NIMBUS_STEP_CONCAT)
        concat(&s);
    else if (s.of_image->average_one)
        nimbus_average_one(&s);
    else if (s.task->in_rows)
        nimbus_run_positions(&s);
    else
        run_lanes(&s);
    const bool finished = s.step->info.kind == NIMBUS_STEP_ADD || s.task->chunk > 0;
    if (!last && !finished)
        finish_value(&s);
}

size_t nimbus_image_scratch_size(const nimbus_program *program, size_t n_rows)
{
    const size_t one = program->image->one.scratch_bytes;
    const size_t block = program->image->block.scratch_bytes;
    return (n_rows > 1 && block > one ? block : one) + NIMBUS_PAD;
}

void nimbus_image_run(const nimbus_program *program, const uint8_t *rows, size_t row_stride,
                      size_t n_rows, int32_t *scores, void *scratch, nimbus_watch watch)
{
    const nimbus_image *image = program->image;
    nimbus_image_block run = {.program = program,
                              .image = image,
                              .k = program->kernels,
                              .scratch =
                                  (uint8_t *)scratch + (-(uintptr_t)scratch & (NIMBUS_PAD - 1))};
    while (n_rows > 0) {
        run.plan = n_rows == 1 ? &image->one : &image->block;
        run.n_images = n_rows < run.plan->n_images ? n_rows : run.plan->n_images;
        run.scores = scores;
        load_images(&run, rows, row_stride);
        for (size_t i = 0; i < program->info.n_steps; i++) {
            run_step(&run, i);
            nimbus_watch_step(watch, i);
        }
        rows += run.n_images * row_stride;
        scores += run.n_images * program->info.n_outputs;
        n_rows -= run.n_images;
    }
}
