/* program_maker.h - random programs for tests: arrays in the open, and the file made of them
 *
 * Written from base/program_format.h alone and sharing nothing with src/run, so that a mistake
 * there is not repeated here. Kept in a header because each test is one source file. */
#ifndef NIMBUS_TESTS_PROGRAM_MAKER_H
#define NIMBUS_TESTS_PROGRAM_MAKER_H

#include <stdlib.h>
#include <string.h>

#include "base/base.h"
#include "base/program_format.h"

typedef struct made_step {
    uint32_t kind, D, M, C, H, flags, input, output, shift;
    uint32_t *columns;   /* [C][H] or [C][K-1] */
    int8_t *thresholds;  /* [C][K-1] */
    float *f_thresholds; /* the same, for raw f32 input */
    int8_t *tables;      /* [C][K][M], 4-bit entries too */
    int8_t *weights;     /* [M][D] */
    int32_t *bias;       /* [M] */
    float *in_scale, *in_offset, *scale, *offset;
    int8_t map[256];
} made_step;

#define MADE_STEPS 4

typedef struct made_program {
    uint32_t input_dtype, n_steps;
    made_step steps[MADE_STEPS];
    const char *metadata; /* NULL: no section */
} made_program;

/* ---- random numbers ---------------------------------------------------------------------- */

typedef struct made_random {
    uint64_t seed, counter;
} made_random;

static inline uint32_t made_below(made_random *random, uint32_t n)
{
    return (uint32_t)nimbus_random_below(random->seed, 77, random->counter++, n);
}

/* low..high */
static inline int made_between(made_random *random, int low, int high)
{
    return (int)(low + (int64_t)made_below(random, (uint32_t)((int64_t)high - low + 1)));
}

static inline float made_float(made_random *random, float scale)
{
    return scale * ((float)made_between(random, -4000, 4000) / 4000.0f);
}

/* ---- making ------------------------------------------------------------------------------ */

static inline void *made_array(size_t n, size_t size)
{
    void *p = calloc(n ? n : 1, size);
    if (!p)
        abort();
    return p;
}

static inline float *made_floats(made_random *random, size_t n, float scale)
{
    float *values = made_array(n, sizeof *values);
    for (size_t i = 0; i < n; i++)
        values[i] = made_float(random, scale);
    return values;
}

static inline uint32_t made_leaves(const made_step *step)
{
    return 1u << step->H;
}

/* Fills arrays for the sizes and flags already set in the step. Entries get a different reach per
 * codebook, so that kernels that depend on it see all of them. */
static inline void made_fill_step(made_random *random, made_step *step)
{
    size_t C = step->C, K = made_leaves(step), M = step->M, D = step->D;
    if (step->kind == NIMBUS_STEP_LOOKUP) {
        size_t per_tree = step->flags & NIMBUS_FLAG_PER_NODE ? K - 1 : step->H;
        step->columns = made_array(C * per_tree, sizeof *step->columns);
        for (size_t i = 0; i < C * per_tree; i++)
            step->columns[i] = made_below(random, step->D);
        if (step->input == NIMBUS_IN_F32)
            step->f_thresholds = made_floats(random, C * (K - 1), 2.0f);
        step->thresholds = made_array(C * (K - 1), 1);
        for (size_t i = 0; i < C * (K - 1); i++)
            step->thresholds[i] = (int8_t)made_between(random, -128, 127);
        step->tables = made_array(C * K * M, 1);
        for (size_t c = 0; c < C; c++) {
            static const int reaches[] = {127, 63, 31, 12, 127, 7};
            int reach = step->flags & NIMBUS_FLAG_4BIT ? 7 : reaches[made_below(random, 6)];
            for (size_t i = 0; i < K * M; i++)
                step->tables[c * K * M + i] = (int8_t)made_between(random, -reach - 1, reach);
        }
    } else {
        step->weights = made_array(M * D, 1);
        for (size_t i = 0; i < M * D; i++)
            step->weights[i] = (int8_t)made_between(random, -128, 127);
        if (step->input == NIMBUS_IN_F32) {
            step->in_scale = made_floats(random, D, 100.0f);
            step->in_offset = made_floats(random, D, 10.0f);
        }
    }
    int reach = made_below(random, 3) ? 200 : 1 << 30;
    step->bias = made_array(M, sizeof *step->bias);
    for (size_t m = 0; m < M; m++)
        step->bias[m] = made_between(random, -reach, reach);
    if (step->output == NIMBUS_OUT_SCALED) {
        step->scale = made_floats(random, M, reach == 200 ? 0.2f : 1e-7f);
        step->offset = made_floats(random, M, 40.0f);
    }
    for (size_t i = 0; i < 256; i++)
        step->map[i] = (int8_t)made_between(random, -128, 127);
}

/* A random program. Widths are drawn up to max_width. */
static inline made_program made_random_program(uint64_t seed, uint32_t max_width)
{
    made_random random = {seed, 0};
    made_program program = {.input_dtype = 1 + made_below(&random, 2),
                            .n_steps = 1 + made_below(&random, MADE_STEPS)};
    uint32_t width = 1 + made_below(&random, max_width);
    for (uint32_t i = 0; i < program.n_steps; i++) {
        made_step *step = &program.steps[i];
        bool last = i + 1 == program.n_steps;
        step->kind = made_below(&random, 4) ? NIMBUS_STEP_LOOKUP : NIMBUS_STEP_EXACT;
        step->D = width;
        step->M = width = 1 + made_below(&random, max_width);
        step->input = i ? NIMBUS_IN_I8 : program.input_dtype;
        step->output = last ? NIMBUS_OUT_I32 : NIMBUS_OUT_SHIFT + made_below(&random, 2);
        if (step->output == NIMBUS_OUT_SHIFT)
            step->shift = made_below(&random, made_below(&random, 2) ? 25 : 5);
        if (step->kind == NIMBUS_STEP_LOOKUP) {
            step->C = 1 + made_below(&random, max_width);
            step->H = made_below(&random, 3) ? 4 : 1 + made_below(&random, 8);
            step->flags |= made_below(&random, 4) ? 0 : NIMBUS_FLAG_PER_NODE;
            step->flags |= made_below(&random, 3) ? 0 : NIMBUS_FLAG_4BIT;
        }
        if (!last && made_below(&random, 3) == 0)
            step->flags |= NIMBUS_FLAG_MAP;
        made_fill_step(&random, step);
    }
    return program;
}

/* Two small steps, the first of `kind`. */
static inline made_program made_small_program(uint32_t kind, nimbus_dtype dtype, uint32_t flags)
{
    made_random random = {7, 0};
    made_program made = {.input_dtype = dtype, .n_steps = 2, .metadata = "{\"a\":1}"};
    bool lookup = kind == NIMBUS_STEP_LOOKUP;
    made.steps[0] = (made_step){.kind = kind,
                                .D = 3,
                                .M = 3,
                                .C = lookup ? 2 : 0,
                                .H = lookup ? 2 : 0,
                                .flags = flags,
                                .input = dtype,
                                .output = flags ? NIMBUS_OUT_SCALED : NIMBUS_OUT_SHIFT};
    made.steps[1] = (made_step){.kind = NIMBUS_STEP_LOOKUP,
                                .D = 3,
                                .M = 2,
                                .C = 1,
                                .H = 1,
                                .input = NIMBUS_IN_I8,
                                .output = NIMBUS_OUT_I32};
    made_fill_step(&random, &made.steps[0]);
    made_fill_step(&random, &made.steps[1]);
    return made;
}

static inline void made_free_step(made_step *s)
{
    void *owned[] = {s->columns, s->thresholds, s->f_thresholds, s->tables, s->weights,
                     s->bias,    s->in_scale,   s->in_offset,    s->scale,  s->offset};
    for (size_t k = 0; k < sizeof owned / sizeof *owned; k++)
        free(owned[k]);
}

static inline void made_free(made_program *program)
{
    for (uint32_t i = 0; i < program->n_steps; i++)
        made_free_step(&program->steps[i]);
}

/* ---- writing ----------------------------------------------------------------------------- */

static inline void made_write_u32s(nimbus_buffer *b, const void *values, size_t n)
{
    nimbus_write_pad(b, 64);
    for (size_t i = 0; i < n; i++) {
        uint32_t bits;
        memcpy(&bits, (const char *)values + 4 * i, 4);
        nimbus_write_u32le(b, bits);
    }
}

static inline void made_write_bytes(nimbus_buffer *b, const void *values, size_t n)
{
    nimbus_write_pad(b, 64);
    nimbus_write_bytes(b, values, n);
}

static inline void made_write_tables(nimbus_buffer *b, const made_step *s)
{
    size_t n_rows = (size_t)s->C * made_leaves(s);
    nimbus_write_pad(b, 64);
    for (size_t row = 0; row < n_rows; row++) {
        const int8_t *entries = s->tables + row * s->M;
        if (!(s->flags & NIMBUS_FLAG_4BIT)) {
            nimbus_write_bytes(b, entries, s->M);
            continue;
        }
        for (size_t m = 0; m < s->M; m += 2) {
            unsigned low = entries[m] & 15, high = m + 1 < s->M ? entries[m + 1] & 15 : 0;
            nimbus_write_u8(b, (uint8_t)(low | high << 4));
        }
    }
}

static inline void made_write_arrays(nimbus_buffer *b, const made_step *s)
{
    if (s->kind == NIMBUS_STEP_LOOKUP) {
        size_t n_nodes = (size_t)s->C * (made_leaves(s) - 1);
        made_write_u32s(b, s->columns,
                        s->flags & NIMBUS_FLAG_PER_NODE ? n_nodes : (size_t)s->C * s->H);
        if (s->input == NIMBUS_IN_F32)
            made_write_u32s(b, s->f_thresholds, n_nodes);
        else
            made_write_bytes(b, s->thresholds, n_nodes);
        made_write_tables(b, s);
    } else {
        made_write_bytes(b, s->weights, (size_t)s->M * s->D);
    }
    made_write_u32s(b, s->bias, s->M);
    if (s->in_scale) {
        made_write_u32s(b, s->in_scale, s->D);
        made_write_u32s(b, s->in_offset, s->D);
    }
    if (s->output == NIMBUS_OUT_SCALED) {
        made_write_u32s(b, s->scale, s->M);
        made_write_u32s(b, s->offset, s->M);
    }
    if (s->flags & NIMBUS_FLAG_MAP)
        made_write_bytes(b, s->map, 256);
}

static inline void made_write_step(nimbus_buffer *b, const made_step *s, const char *name)
{
    const uint32_t fields[] = {s->kind,  s->D,     s->M,      s->C,    s->H,
                               s->flags, s->input, s->output, s->shift};
    char padded_name[NIMBUS_STEP_NAME_BYTES] = {0};
    strncpy(padded_name, name, sizeof padded_name - 1);
    made_write_u32s(b, fields, 9);
    for (int i = 0; i < 7; i++)
        nimbus_write_u32le(b, 0);
    nimbus_write_bytes(b, padded_name, sizeof padded_name);
    made_write_arrays(b, s);
}

/* The program as a file; aborts when out of memory. */
static inline nimbus_buffer made_write(const made_program *program)
{
    nimbus_buffer parts[MADE_STEPS + 1] = {0}, out = {0};
    nimbus_section sections[MADE_STEPS + 2];
    uint32_t n = program->n_steps;
    const uint32_t header[] = {program->steps[0].D,     program->input_dtype,
                               program->steps[n - 1].M, n,
                               0x3e000000 /* 0.125f */, 0};
    made_write_u32s(&parts[0], header, 6);
    for (uint32_t i = 0; i < n; i++)
        made_write_step(&parts[1 + i], &program->steps[i], i ? "later" : "first");
    for (uint32_t i = 0; i <= n; i++) {
        uint32_t tag = i ? NIMBUS_TAG('S', 'T', 'E', 'P') : NIMBUS_TAG('P', 'R', 'O', 'G');
        sections[i] = (nimbus_section){tag, parts[i].bytes, parts[i].size};
    }
    if (program->metadata) {
        sections[++n] =
            (nimbus_section){NIMBUS_TAG('M', 'E', 'T', 'A'), (const uint8_t *)program->metadata,
                             strlen(program->metadata)};
    }
    if (nimbus_container_write(&out, NIMBUS_PROGRAM_MAGIC, NIMBUS_PROGRAM_MAJOR,
                               NIMBUS_ROW_PROGRAM_MINOR, sections, n + 1, NULL) != NIMBUS_OK)
        abort();
    for (uint32_t i = 0; i <= program->n_steps; i++)
        nimbus_buffer_free(&parts[i]);
    return out;
}

#endif
