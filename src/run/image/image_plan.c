/* image_plan.c - where everything of a program on images lies while it runs
 *
 * Done twice when a program is loaded: for one image, and for as many as keep their values in the
 * L2 cache. Values get places in the scratch as long as they are needed and no longer. */
#include "run/image/image.h"

#include <string.h>

static size_t larger(size_t a, size_t b)
{
    return a > b ? a : b;
}

static size_t greatest_common_divisor(size_t a, size_t b)
{
    while (b) {
        size_t rest = a % b;
        a = b;
        b = rest;
    }
    return a;
}

/* ---- frames ------------------------------------------------------------------------------- */

/* The frame of every value, with room for the pads of every window that reads it. */
static nimbus_status make_frames(nimbus_program *program, nimbus_error *error)
{
    nimbus_image *image = program->image;
    const size_t n_values = program->info.n_steps;
    if (!(image->frames = nimbus_alloc(n_values, sizeof *image->frames)))
        return nimbus_fail(error, NIMBUS_ERR_MEMORY, "out of memory for the frames of values");
    for (size_t v = 0; v < n_values; v++) {
        nimbus_value *value = &image->values[v];
        size_t f = 0;
        while (f < image->n_frames &&
               (image->frames[f].height != value->height || image->frames[f].width != value->width))
            f++;
        if (f == image->n_frames)
            image->frames[image->n_frames++] = (nimbus_frame){.height = value->height,
                                                              .width = value->width,
                                                              .pitch = value->width,
                                                              .rows = value->height};
        value->frame = f;
    }
    for (size_t i = 0; i < n_values; i++) {
        const nimbus_patch *p = &image->steps[i].patch;
        nimbus_frame *frame = &image->frames[image->values[image->steps[i].sources[0]].frame];
        frame->pitch = larger(frame->pitch, frame->width + larger(p->left, p->right));
        frame->rows = larger(frame->rows, frame->height + larger(p->top, p->bottom));
    }
    for (size_t f = 0; f < image->n_frames; f++) {
        nimbus_frame *frame = &image->frames[f];
        if ((uint64_t)frame->pitch * (frame->rows + 1) > NIMBUS_MAX_IMAGE_SCRATCH)
            return nimbus_fail(error, NIMBUS_ERR_LIMIT,
                               "a plane of %zu x %zu with its pads has more than %u bytes",
                               frame->height, frame->width, NIMBUS_MAX_IMAGE_SCRATCH);
        frame->lead = nimbus_padded((frame->rows - frame->height) * frame->pitch + frame->pitch -
                                    frame->width);
    }
    return NIMBUS_OK;
}

/* Bytes from plane to plane; not of a multiple of 1 KiB, where they would meet in the caches. What
 * a 32-bit machine cannot count is too much for a plan, too. */
static size_t plane_bytes(uint64_t n)
{
    size_t bytes = n < SIZE_MAX / 2 ? nimbus_padded((size_t)n) : SIZE_MAX / 2;
    return bytes % 1024 ? bytes : bytes + NIMBUS_PAD;
}

/* Which bytes of planes are positions, in every frame, for n images; and which are in a window with
 * one position. */
static bool make_masks(nimbus_image *image, size_t n_steps, size_t n)
{
    for (size_t i = 0; i < n_steps; i++) {
        nimbus_image_step *step = &image->steps[i];
        const nimbus_frame *frame = &image->frames[image->values[step->sources[0]].frame];
        if (!step->average_one)
            continue;
        step->in_window = nimbus_alloc(step->patch.height * frame->pitch + 2 * NIMBUS_PAD, 1);
        if (!step->in_window)
            return false;
        for (size_t y = 0; y < step->patch.height; y++)
            memset(step->in_window + y * frame->pitch, 0xff, step->patch.width);
    }
    for (size_t f = 0; f < image->n_frames; f++) {
        nimbus_frame *frame = &image->frames[f];
        const size_t period = frame->rows * frame->pitch;
        frame->keep = nimbus_alloc(frame->lead + n * period + 2 * NIMBUS_PAD, 1);
        if (!frame->keep)
            return false;
        for (size_t i = 0; i < n; i++)
            for (size_t y = 0; y < frame->height; y++)
                memset(frame->keep + frame->lead + i * period + y * frame->pitch, 0xff,
                       frame->width);
    }
    return true;
}

/* What is left on the pads of values: by their makers what the first step that reads pads wants; a
 * later one that wants others fills them again. */
static nimbus_status choose_pads(nimbus_program *program, nimbus_error *error)
{
    nimbus_image *image = program->image;
    const int8_t **now = nimbus_alloc(program->info.n_steps, sizeof *now);
    if (!now)
        return nimbus_fail(error, NIMBUS_ERR_MEMORY, "out of memory for the pads of values");
    for (size_t i = 0; i < program->info.n_steps; i++) {
        nimbus_image_step *step = &image->steps[i];
        nimbus_value *source = &image->values[step->sources[0]];
        const int8_t **has = &now[step->sources[0]];
        if (!step->pad)
            continue;
        if (!*has)
            source->pad = step->pad;
        else
            step->fills_pad = memcmp(*has, step->pad, source->channels) != 0;
        *has = step->pad;
    }
    nimbus_free(now);
    return NIMBUS_OK;
}

/* ---- tasks -------------------------------------------------------------------------------- */

/* Takes so many bytes of the scratch from *at on. */
static size_t reserve(uint64_t *at, uint64_t bytes)
{
    size_t place = (size_t)*at;
    *at += (bytes + NIMBUS_PAD - 1) / NIMBUS_PAD * NIMBUS_PAD;
    return place;
}

/* Whether a convolution runs position by position: if no column kernel can, or if vectors would
 * hold nothing but a position or two. */
static bool runs_in_rows(const nimbus_program *program, size_t i, size_t n_images)
{
    const nimbus_program_step *step = &program->steps[i];
    const nimbus_image_step *of_image = &program->image->steps[i];
    const nimbus_value *source = &program->image->values[of_image->sources[0]];
    if (!nimbus_is_convolution(&step->info) || of_image->groups != 1)
        return false;
    if (!nimbus_step_has_columns(step, program->kernels))
        return true;
    if (step->info.height != 1 || step->info.width != 1)
        return false;
    return source->height != 1 || source->width != 1 ||
           2 * n_images < program->kernels->shape.granule;
}

/* The view of a step whose window moves by more than one position, and how what it computes lies:
 * as its output is to lie, if there is room for what windows need. */
static void lay_out_view(const nimbus_program *program, size_t i, size_t n, nimbus_task *task,
                         uint64_t *at)
{
    const nimbus_image *image = program->image;
    const nimbus_patch *p = &image->steps[i].patch;
    const nimbus_step_info *info = &program->steps[i].info;
    const size_t channels = image->values[image->steps[i].sources[0]].channels;
    const size_t period_y = p->stride_y / greatest_common_divisor(p->dilation_y, p->stride_y);
    const size_t period_x = p->stride_x / greatest_common_divisor(p->dilation_x, p->stride_x);
    task->phases_y = p->height < period_y ? p->height : period_y;
    task->phases_x = p->width < period_x ? p->width : period_x;
    task->rows = info->height + (p->height - 1) * p->dilation_y / p->stride_y;
    task->pitch = info->width + (p->width - 1) * p->dilation_x / p->stride_x;
    if (i + 1 < program->info.n_steps) {
        const nimbus_frame *frame = &image->frames[image->values[i + 1].frame];
        task->rows = larger(task->rows, frame->rows);
        task->pitch = larger(task->pitch, frame->pitch);
    }
    task->plane = plane_bytes((uint64_t)n * task->rows * task->pitch + NIMBUS_PAD);
    task->view = reserve(at, (uint64_t)task->phases_y * task->phases_x * channels * task->plane);
}

/* Working memory of a convolution in rows. */
static void lay_out_rows(const nimbus_program_step *step, const nimbus_shape *shape,
                         nimbus_task *task, uint64_t *at)
{
    const size_t M = nimbus_padded(step->n_outputs);
    const bool exact = step->info.kind == NIMBUS_STEP_EXACT;
    const size_t n = exact ? NIMBUS_EXACT_ROWS : 1;
    task->codes = reserve(at, step->n_codebooks);
    task->packed =
        reserve(at, exact ? n * nimbus_padded(step->n_inputs) * nimbus_group_bytes(shape) : 0);
    task->sums = reserve(at, n * M * sizeof(int32_t));
    task->out = reserve(at, M);
}

/* Working memory of the lanes that are computed together. */
static void lay_out_chunk(const nimbus_program *program, size_t i, size_t n_lanes,
                          nimbus_task *task, uint64_t *at)
{
    const nimbus_program_step *step = &program->steps[i];
    const nimbus_shape *shape = &program->kernels->shape;
    const bool whole = nimbus_is_convolution(&step->info) && program->image->steps[i].groups == 1;
    const bool lookup = step->info.kind == NIMBUS_STEP_LOOKUP;
    const size_t group = shape->group, n_groups = (step->n_inputs + group - 1) / group;
    const size_t bytes = lookup ? step->n_codebooks : whole ? 4 * n_groups : 1;
    size_t chunk = NIMBUS_IMAGE_CHUNK_BYTES / bytes / NIMBUS_PAD * NIMBUS_PAD;
    chunk = larger(chunk, NIMBUS_PAD);
    chunk = chunk < NIMBUS_IMAGE_CHUNK_MOST ? chunk : NIMBUS_IMAGE_CHUNK_MOST;
    const size_t n_chunks = (n_lanes + chunk - 1) / chunk;
    chunk = nimbus_padded((n_lanes + n_chunks - 1) / n_chunks); /* all of one size */
    task->chunk = chunk;
    task->codes = reserve(at, lookup ? (uint64_t)step->n_codebooks * chunk : 0);
    task->packed = reserve(at, lookup  ? (uint64_t)nimbus_rounded_up(step->n_codebooks, 4) * chunk
                               : whole ? (uint64_t)4 * n_groups * chunk
                                       : 0);
    task->sums = reserve(at, NIMBUS_MAX_TILE * sizeof(int32_t) * chunk);
}

/* How a step runs on n images; its working memory grows from *at on. */
static void lay_out_task(const nimbus_program *program, size_t i, size_t n,
                         const nimbus_image_plan *plan, nimbus_task *task, uint64_t *at)
{
    const nimbus_image *image = program->image;
    const nimbus_program_step *step = &program->steps[i];
    const nimbus_image_step *of_image = &image->steps[i];
    const size_t f = image->values[of_image->sources[0]].frame;
    const bool last = i + 1 == program->info.n_steps;
    *task = (nimbus_task){.in_rows = runs_in_rows(program, i, n),
                          .direct = true,
                          .pitch = image->frames[f].pitch,
                          .rows = image->frames[f].rows,
                          .plane = plan->planes[f]};
    if (task->in_rows) {
        lay_out_rows(step, &program->kernels->shape, task, at);
        return;
    }
    if (of_image->average_one) {
        task->sums = reserve(at, nimbus_padded(step->n_outputs) * sizeof(int32_t));
        task->out = reserve(at, step->n_outputs);
    }
    if (!nimbus_has_window(of_image) || of_image->average_one)
        return;
    if (of_image->patch.stride_y > 1 || of_image->patch.stride_x > 1)
        lay_out_view(program, i, n, task, at);
    const nimbus_frame *out = last ? NULL : &image->frames[image->values[i + 1].frame];
    task->direct = last || (out->pitch == task->pitch && out->rows == task->rows);
    task->out_plane = plane_bytes((uint64_t)n * task->rows * task->pitch);
    if (!task->direct)
        task->out = reserve(at, (uint64_t)nimbus_rounded_up(step->n_outputs, NIMBUS_MAX_TILE) *
                                    task->out_plane);
    lay_out_chunk(program, i, nimbus_task_lanes(task, &step->info, n), task, at);
}

/* ---- places ------------------------------------------------------------------------------- */

/* Working memory for placing. */
typedef struct placing {
    uint32_t *last;  /* [n_values] the last step that reads it */
    uint32_t *alive; /* those that have a place, by ascending place */
    size_t n_alive;
} placing;

/* Puts value v where the first gap is large enough from `from` on. */
static void place_value(placing *p, size_t v, const uint64_t *bytes, uint64_t from,
                        nimbus_image_plan *plan)
{
    size_t k = 0;
    for (; k < p->n_alive && plan->places[p->alive[k]] - from < bytes[v]; k++)
        from = plan->places[p->alive[k]] + bytes[p->alive[k]];
    memmove(p->alive + k + 1, p->alive + k, (p->n_alive - k) * sizeof *p->alive);
    p->alive[k] = (uint32_t)v;
    p->n_alive++;
    plan->places[v] = (size_t)from;
    if (from + bytes[v] > plan->scratch_bytes)
        plan->scratch_bytes = (size_t)(from + bytes[v]);
}

/* Values from `from` on. Value 0 is made before step 0, value i + 1 by step i. */
static nimbus_status place_values(const nimbus_program *program, uint64_t from,
                                  nimbus_image_plan *plan, nimbus_error *error)
{
    const nimbus_image *image = program->image;
    const size_t n = program->info.n_steps;
    nimbus_status status = NIMBUS_OK;
    placing p = {nimbus_alloc(n, sizeof *p.last), nimbus_alloc(n, sizeof *p.alive), 0};
    uint64_t *bytes = nimbus_alloc(n, sizeof *bytes);
    if (!p.last || !p.alive || !bytes) {
        status = nimbus_fail(error, NIMBUS_ERR_MEMORY, "out of memory placing values");
        goto done;
    }
    for (size_t i = 0; i < n; i++)
        for (size_t k = 0; k < image->steps[i].n_sources; k++)
            p.last[image->steps[i].sources[k]] = (uint32_t)i;
    for (size_t v = 0; v < n && plan->scratch_bytes <= NIMBUS_MAX_IMAGE_SCRATCH; v++) {
        size_t n_alive = 0;
        for (size_t k = 0; k < p.n_alive; k++) /* step v - 1 makes it */
            if (p.last[p.alive[k]] + 1 >= v)
                p.alive[n_alive++] = p.alive[k];
        p.n_alive = n_alive;
        bytes[v] = (uint64_t)nimbus_rounded_up(image->values[v].channels, NIMBUS_MAX_TILE) *
                   plan->planes[image->values[v].frame];
        place_value(&p, v, bytes, from, plan);
    }
done:
    nimbus_free(p.last);
    nimbus_free(p.alive);
    nimbus_free(bytes);
    return status;
}

/* Everything but the arrays of taps. LIMIT: it would need more scratch than is allowed. */
static nimbus_status lay_out(const nimbus_program *program, size_t n, nimbus_image_plan *plan,
                             nimbus_error *error)
{
    const nimbus_image *image = program->image;
    const size_t n_steps = program->info.n_steps;
    const nimbus_program_info *info = &program->info;
    uint64_t work = info->n_inputs + NIMBUS_PAD; /* an f32 image, quantised */
    *plan = (nimbus_image_plan){.n_images = n,
                                .planes = nimbus_alloc(image->n_frames, sizeof *plan->planes),
                                .places = nimbus_alloc(n_steps, sizeof *plan->places),
                                .tasks = nimbus_alloc(n_steps, sizeof *plan->tasks)};
    if (!plan->planes || !plan->places || !plan->tasks)
        return nimbus_fail(error, NIMBUS_ERR_MEMORY, "out of memory for a plan");
    for (size_t f = 0; f < image->n_frames; f++) {
        const nimbus_frame *frame = &image->frames[f];
        plan->planes[f] = plane_bytes(frame->lead + (uint64_t)n * frame->rows * frame->pitch);
    }
    for (size_t i = 0; i < n_steps; i++) {
        uint64_t at = 0;
        lay_out_task(program, i, n, plan, &plan->tasks[i], &at);
        work = at > work ? at : work;
    }
    work = (work + NIMBUS_PAD - 1) / NIMBUS_PAD * NIMBUS_PAD;
    plan->scratch_bytes =
        work > NIMBUS_MAX_IMAGE_SCRATCH ? NIMBUS_MAX_IMAGE_SCRATCH + (size_t)1 : (size_t)work;
    nimbus_status status = place_values(program, work, plan, error);
    if (status)
        return status;
    if (plan->scratch_bytes > NIMBUS_MAX_IMAGE_SCRATCH)
        return nimbus_fail(error, NIMBUS_ERR_LIMIT,
                           "the program needs more than %u bytes of working memory for an image",
                           NIMBUS_MAX_IMAGE_SCRATCH);
    plan->scratch_bytes += 4 * NIMBUS_PAD; /* loads run over the end */
    return NIMBUS_OK;
}

/* ---- taps --------------------------------------------------------------------------------- */

/* Bytes from the start of what a task reads to tap number `tap`, [channel][ky][kx], of the window
 * at its first position. */
static uint32_t tap_place(const nimbus_image *image, const nimbus_image_step *step,
                          const nimbus_task *task, size_t tap)
{
    const nimbus_patch *p = &step->patch;
    const nimbus_value *source = &image->values[step->sources[0]];
    const nimbus_frame *frame = &image->frames[source->frame];
    const size_t x = tap % p->width, y = tap / p->width % p->height;
    const size_t channel = tap / p->width / p->height;
    if (task->phases_y) {
        size_t phase = y % task->phases_y * task->phases_x + x % task->phases_x;
        return (uint32_t)((phase * source->channels + channel) * task->plane +
                          y * p->dilation_y / p->stride_y * task->pitch +
                          x * p->dilation_x / p->stride_x);
    }
    return (uint32_t)(channel * task->plane + frame->lead + y * p->dilation_y * frame->pitch +
                      x * p->dilation_x - p->top * frame->pitch - p->left);
}

static bool make_taps(const nimbus_program *program, size_t i, nimbus_task *task)
{
    const nimbus_program_step *step = &program->steps[i];
    const nimbus_image_step *of_image = &program->image->steps[i];
    if (!nimbus_has_window(of_image) || of_image->average_one)
        return true;
    if (step->info.kind == NIMBUS_STEP_LOOKUP) {
        const size_t n_nodes = step->n_leaves - 1, H = step->n_levels;
        const size_t per_tree = step->info.shared_columns ? H : n_nodes;
        task->columns = nimbus_alloc_product(step->n_codebooks, per_tree, sizeof *task->columns, 0);
        if (!task->columns)
            return false;
        for (size_t k = 0; k < step->n_codebooks * per_tree; k++) {
            size_t at = k % per_tree, c = k / per_tree;
            size_t node = step->info.shared_columns ? ((size_t)1 << at) - 1 : at;
            task->columns[k] =
                tap_place(program->image, of_image, task, step->columns[c * n_nodes + node]);
        }
        task->trees = (nimbus_trees){task->columns, step->tree_thresholds, step->n_codebooks, H};
        return true;
    }
    const size_t n = step->n_inputs;
    if (!(task->taps = nimbus_alloc(nimbus_rounded_up(n, 4), sizeof *task->taps)))
        return false;
    for (size_t t = 0; t < nimbus_rounded_up(n, 4); t++)
        task->taps[t] = tap_place(program->image, of_image, task, t < n ? t : n - 1);
    return true;
}

/* ---- plans -------------------------------------------------------------------------------- */

void nimbus_image_plan_free(nimbus_image_plan *plan, size_t n_steps)
{
    for (size_t i = 0; plan->tasks && i < n_steps; i++) {
        nimbus_free(plan->tasks[i].taps);
        nimbus_free(plan->tasks[i].columns);
    }
    nimbus_free(plan->planes);
    nimbus_free(plan->places);
    nimbus_free(plan->tasks);
    *plan = (nimbus_image_plan){0};
}

static nimbus_status plan_taps(const nimbus_program *program, nimbus_image_plan *plan,
                               nimbus_error *error)
{
    for (size_t i = 0; i < program->info.n_steps; i++)
        if (!make_taps(program, i, &plan->tasks[i]))
            return nimbus_fail(error, NIMBUS_ERR_MEMORY, "out of memory for the taps of windows");
    return NIMBUS_OK;
}

/* The largest block of 2, 4, 8, ... images that is small enough; else of one image. */
static nimbus_status plan_block(nimbus_program *program, nimbus_error *error)
{
    nimbus_image *image = program->image;
    const size_t n_steps = program->info.n_steps;
    size_t n = 1;
    for (size_t more = 2; more <= NIMBUS_IMAGE_BLOCK_MOST; more *= 2) {
        nimbus_image_plan trial;
        nimbus_status status = lay_out(program, more, &trial, NULL);
        const bool small = trial.scratch_bytes <= NIMBUS_IMAGE_BLOCK_BYTES;
        nimbus_image_plan_free(&trial, n_steps);
        if (status == NIMBUS_ERR_MEMORY)
            return nimbus_fail(error, status, "out of memory for a plan");
        if (status != NIMBUS_OK || !small) /* for fewer images it may still do */
            break;
        n = more;
    }
    nimbus_status status = lay_out(program, n, &image->block, error);
    return status ? status : plan_taps(program, &image->block, error);
}

nimbus_status nimbus_image_plan_all(nimbus_program *program, nimbus_error *error)
{
    nimbus_image *image = program->image;
    nimbus_status status;
    if ((status = make_frames(program, error)) || (status = choose_pads(program, error)) ||
        (status = lay_out(program, 1, &image->one, error)) ||
        (status = plan_taps(program, &image->one, error)) || (status = plan_block(program, error)))
        return status;
    if (!make_masks(image, program->info.n_steps, image->block.n_images))
        return nimbus_fail(error, NIMBUS_ERR_MEMORY, "out of memory for the masks of planes");
    return NIMBUS_OK;
}
