/* in_place.c - run a program where it lies, one row at a time, without copying any of it
 *
 * For devices: arrays stay in flash, and of RAM only a few words a step and the values between the
 * steps are needed. Written like the description in program_format.h, and as slow as it reads: it
 * asks everything anew for every tap. Exported C does the same work many times as fast. */
#include "base/stored.h"

struct nimbus_in_place {
    nimbus_stored_program stored;
    size_t value_bytes, scratch_bytes;
};

/* Divides memory; NULL when it is used up. */
typedef struct arena {
    uint8_t *at;
    size_t left;
} arena;

static void *carve(arena *a, size_t n, size_t size)
{
    const size_t gap = (size_t)(-(uintptr_t)a->at & 7);
    size_t bytes;
    if (nimbus_mul_overflows(n, size, &bytes) || gap > a->left || bytes > a->left - gap)
        return NULL;
    void *p = a->at + gap;
    a->at += gap + bytes;
    a->left -= gap + bytes;
    return p;
}

/* Of what is carved from memory: with n steps and values at most. */
static size_t memory_size(size_t n)
{
    return sizeof(nimbus_in_place) +
           n * (sizeof(nimbus_stored_step) + sizeof(nimbus_stored_value)) + 3 * 7;
}

size_t nimbus_in_place_memory_size(const void *bytes, size_t n_bytes)
{
    size_t n;
    return bytes && !nimbus_stored_count(bytes, n_bytes, &n, NULL) ? memory_size(n) : 0;
}

nimbus_status nimbus_in_place_open(const void *bytes, size_t n_bytes, void *memory, size_t n_memory,
                                   nimbus_in_place **out, nimbus_error *error)
{
    arena a = {memory, n_memory};
    size_t n, most_codebooks = 0;
    if (!out || !bytes || !memory) {
        if (out)
            *out = NULL;
        return nimbus_fail(error, NIMBUS_ERR_ARGUMENT, "bytes, memory or out is NULL");
    }
    *out = NULL;
    nimbus_status status = nimbus_stored_count(bytes, n_bytes, &n, error);
    if (status)
        return status;
    nimbus_in_place *p = carve(&a, 1, sizeof *p);
    nimbus_stored_step *steps = carve(&a, n, sizeof *steps);
    nimbus_stored_value *values = carve(&a, n, sizeof *values);
    if (!p || !steps || !values)
        return nimbus_fail(error, NIMBUS_ERR_MEMORY, "%zu bytes of memory, expected %zu", n_memory,
                           memory_size(n));
    *p = (nimbus_in_place){.stored = {.steps = steps, .values = values}};
    if ((status = nimbus_stored_fill(bytes, n_bytes, n, &p->stored, error)))
        return status;
    for (size_t i = 0; i < p->stored.info.n_steps; i++)
        if (steps[i].info.n_codebooks > most_codebooks)
            most_codebooks = steps[i].info.n_codebooks;
    p->value_bytes = nimbus_place_values(&p->stored, p->stored.of_images);
    p->scratch_bytes = p->value_bytes + most_codebooks;
    *out = p;
    return NIMBUS_OK;
}

const nimbus_program_info *nimbus_in_place_info(const nimbus_in_place *program)
{
    return &program->stored.info;
}

size_t nimbus_in_place_scratch_size(const nimbus_in_place *program)
{
    return program ? program->scratch_bytes : 0;
}

/* ---- running ------------------------------------------------------------------------------- */

/* One row under way. */
typedef struct run {
    const nimbus_in_place *program;
    const uint8_t *row;
    int8_t *values;
    uint8_t *codes;
    int32_t *scores;
} run;

/* The position of an output, on rows always 0. */
typedef struct position {
    size_t y, x;
} position;

static int8_t *value_at(const run *r, size_t v)
{
    return r->values + r->program->stored.values[v].place;
}

/* The value of a tap of the window at a position, tap `ky`, `kx` of a channel of source 0. */
static int8_t tap_at(const run *r, const nimbus_stored_step *step, position at, size_t channel,
                     size_t ky, size_t kx)
{
    const nimbus_patch *p = &step->patch;
    const nimbus_stored_value *in = &r->program->stored.values[step->sources[0]];
    const size_t y = at.y * p->stride_y + ky * p->dilation_y - p->top;
    const size_t x = at.x * p->stride_x + kx * p->dilation_x - p->left;
    if (y >= in->height || x >= in->width) /* also below 0 */
        return step->arrays.pad ? (int8_t)step->arrays.pad[channel] : -128;
    return value_at(r, step->sources[0])[(channel * in->height + y) * in->width + x];
}

/* What column d of a lookup or exact step is; of images, of the group of channels from first on. */
static int8_t input_at(const run *r, const nimbus_stored_step *step, position at, size_t first,
                       size_t d)
{
    if (r->program->stored.of_images) {
        const size_t area = step->patch.height * step->patch.width, width = step->patch.width;
        return tap_at(r, step, at, first + d / area, d % area / width, d % width);
    }
    if (step->input == NIMBUS_IN_U8)
        return (int8_t)(r->row[d] - 128);
    if (step->input == NIMBUS_IN_F32) { /* of an exact step */
        float x;
        memcpy(&x, r->row + 4 * d, sizeof x);
        return nimbus_scale_to_i8(x, nimbus_f32_at(step->arrays.in_scale, d),
                                  nimbus_f32_at(step->arrays.in_offset, d));
    }
    return value_at(r, step->sources[0])[d];
}

/* Whether a row goes right at a node that reads column d. */
static bool goes_right(const run *r, const nimbus_stored_step *step, position at, size_t d,
                       size_t node)
{
    if (step->input != NIMBUS_IN_F32)
        return input_at(r, step, at, 0, d) > (int8_t)step->arrays.thresholds[node];
    float x;
    memcpy(&x, r->row + 4 * d, sizeof x);
    return x > nimbus_f32_at(step->arrays.thresholds, node);
}

static void encode(const run *r, const nimbus_stored_step *step, position at)
{
    const nimbus_step_info *info = &step->info;
    const size_t n_nodes = nimbus_step_leaves(info) - 1;
    for (size_t c = 0; c < info->n_codebooks; c++) {
        size_t i = 0;
        for (size_t h = 0; h < info->n_levels; h++) {
            const size_t column = info->shared_columns ? c * info->n_levels + h : c * n_nodes + i;
            const size_t d = nimbus_u32_at(step->arrays.columns, column);
            i = 2 * i + 1 + goes_right(r, step, at, d, c * n_nodes + i);
        }
        r->codes[c] = (uint8_t)(i - n_nodes);
    }
}

static int32_t sum_of(const run *r, const nimbus_stored_step *step, position at, size_t m)
{
    const nimbus_step_info *info = &step->info;
    int32_t sum = step->arrays.bias ? (int32_t)nimbus_u32_at(step->arrays.bias, m) : 0;
    if (info->kind == NIMBUS_STEP_LOOKUP) {
        for (size_t c = 0; c < info->n_codebooks; c++)
            sum += nimbus_table_entry(info, step->arrays.tables,
                                      (c << info->n_levels) + r->codes[c], m);
    } else if (info->kind == NIMBUS_STEP_EXACT) {
        const size_t D = info->n_inputs, groups = info->n_groups ? info->n_groups : 1;
        const size_t channels = r->program->stored.values[step->sources[0]].channels / groups;
        const size_t first = m / (info->n_outputs / groups) * channels;
        for (size_t d = 0; d < D; d++)
            sum += (int8_t)step->arrays.weights[m * D + d] * input_at(r, step, at, first, d);
    } else { /* an average pool */
        for (size_t ky = 0; ky < step->patch.height; ky++)
            for (size_t kx = 0; kx < step->patch.width; kx++)
                sum += tap_at(r, step, at, m, ky, kx);
    }
    return sum;
}

/* What output m of a step is at a position. */
static int8_t output_at(const run *r, const nimbus_stored_step *step, position at, size_t m)
{
    if (step->info.kind == NIMBUS_STEP_MAX_POOL) {
        int8_t most = -128;
        for (size_t ky = 0; ky < step->patch.height; ky++)
            for (size_t kx = 0; kx < step->patch.width; kx++) {
                const int8_t tap = tap_at(r, step, at, m, ky, kx);
                most = tap > most ? tap : most;
            }
        return nimbus_step_finish(step, most);
    }
    return nimbus_step_output(step, m, sum_of(r, step, at, m));
}

/* Sums of values, or values side by side. */
static void join(const run *r, const nimbus_stored_step *step, int8_t *out)
{
    const nimbus_stored_value *values = r->program->stored.values;
    const size_t n = nimbus_value_size(&values[step->sources[0]]);
    if (step->info.kind == NIMBUS_STEP_ADD) {
        for (size_t i = 0; i < n; i++) {
            int32_t sum = 0;
            for (size_t s = 0; s < step->info.n_sources; s++)
                sum += value_at(r, step->sources[s])[i];
            out[i] = nimbus_step_finish(step, sum);
        }
        return;
    }
    for (size_t s = 0; s < step->info.n_sources; s++) {
        const size_t size = nimbus_value_size(&values[step->sources[s]]);
        for (size_t i = 0; i < size; i++)
            *out++ = nimbus_step_finish(step, value_at(r, step->sources[s])[i]);
    }
}

static void run_step(const run *r, size_t i)
{
    const nimbus_stored_step *step = &r->program->stored.steps[i];
    const nimbus_stored_value *made = &r->program->stored.values[i + 1];
    const size_t area = made->height * made->width;
    if (step->info.kind == NIMBUS_STEP_ADD || step->info.kind == NIMBUS_STEP_CONCAT) {
        join(r, step, value_at(r, i + 1));
        return;
    }
    for (size_t p = 0; p < area; p++) {
        const position at = {p / made->width, p % made->width};
        if (step->info.kind == NIMBUS_STEP_LOOKUP)
            encode(r, step, at);
        for (size_t m = 0; m < made->channels; m++)
            if (step->output == NIMBUS_OUT_I32)
                r->scores[m] = sum_of(r, step, at, m);
            else
                value_at(r, i + 1)[m * area + p] = output_at(r, step, at, m);
    }
}

/* The image as i8. */
static void load_image(const run *r)
{
    const nimbus_stored_program *stored = &r->program->stored;
    const nimbus_stored_value *in = &stored->values[0];
    const size_t area = in->height * in->width, n = nimbus_value_size(in);
    int8_t *to = value_at(r, 0);
    for (size_t i = 0; i < n; i++) {
        if (!stored->in_scale) {
            to[i] = (int8_t)(r->row[i] - 128);
            continue;
        }
        float x;
        memcpy(&x, r->row + 4 * i, sizeof x);
        to[i] = nimbus_scale_to_i8(x, nimbus_f32_at(stored->in_scale, i / area),
                                   nimbus_f32_at(stored->in_offset, i / area));
    }
}

nimbus_status nimbus_in_place_run(const nimbus_in_place *program, const void *row, int32_t *scores,
                                  void *scratch)
{
    if (!program || !row || !scores || (!scratch && program->scratch_bytes))
        return NIMBUS_ERR_ARGUMENT;
    const run r = {program, row, scratch, (uint8_t *)scratch + program->value_bytes, scores};
    if (program->stored.of_images)
        load_image(&r);
    for (size_t i = 0; i < program->stored.info.n_steps; i++)
        run_step(&r, i);
    return NIMBUS_OK;
}
