/* image_maker.h - random programs on images for tests, and the file made of them
 *
 * Written from base/program_format.h alone, as program_maker.h is. */
#ifndef NIMBUS_TESTS_IMAGE_MAKER_H
#define NIMBUS_TESTS_IMAGE_MAKER_H

#include "program_maker.h"

typedef struct made_shape {
    uint32_t channels, height, width;
} made_shape;

typedef struct made_image_step {
    made_step arrays; /* kind, M, C, H, flags, output, shift; D: taps that one output sees */
    uint32_t n_sources, sources[NIMBUS_MAX_SOURCES], groups;
    uint32_t kernel[2], stride[2], dilation[2], pads[4]; /* y, x; top, bottom, left, right */
    int32_t low, high;
    int8_t *pad; /* [channels] */
} made_image_step;

#define MADE_IMAGE_STEPS 24

typedef struct made_image {
    uint32_t input_dtype, n_steps;
    made_shape values[MADE_IMAGE_STEPS + 1]; /* the input, and what step i makes at i + 1 */
    made_image_step steps[MADE_IMAGE_STEPS];
    float *in_scale, *in_offset; /* [channels], f32 only */
} made_image;

/* ---- making ------------------------------------------------------------------------------ */

static inline bool made_has_window(const made_image_step *s)
{
    return s->arrays.kind != NIMBUS_STEP_ADD && s->arrays.kind != NIMBUS_STEP_CONCAT;
}

/* Rows or columns that fit: 0 if the window does not fit in once. */
static inline uint32_t made_output_size(const made_image_step *s, uint32_t size, unsigned axis)
{
    uint32_t padded = size + s->pads[2 * axis] + s->pads[2 * axis + 1];
    uint32_t extent = (s->kernel[axis] - 1) * s->dilation[axis] + 1;
    return padded < extent ? 0 : (padded - extent) / s->stride[axis] + 1;
}

/* Sets D and the shape that the step makes, from its sources and window, and fills its arrays. */
static inline void made_finish_image_step(made_random *random, made_image *p, uint32_t i)
{
    made_image_step *s = &p->steps[i];
    made_shape *out = &p->values[i + 1];
    const made_shape *source = &p->values[s->sources[0]];
    *out = *source;
    if (s->arrays.kind == NIMBUS_STEP_CONCAT)
        for (uint32_t k = 1; k < s->n_sources; k++)
            out->channels += p->values[s->sources[k]].channels;
    if (s->arrays.kind <= NIMBUS_STEP_EXACT)
        out->channels = s->arrays.M;
    s->arrays.M = out->channels;
    s->arrays.input = NIMBUS_IN_I8;
    if (made_has_window(s)) {
        out->height = made_output_size(s, source->height, 0);
        out->width = made_output_size(s, source->width, 1);
        s->arrays.D = s->kernel[0] * s->kernel[1];
        if (s->arrays.kind <= NIMBUS_STEP_EXACT)
            s->arrays.D *= source->channels / s->groups;
        s->pad = made_array(source->channels, 1);
        for (uint32_t c = 0; c < source->channels; c++)
            s->pad[c] = (int8_t)made_between(random, -128, 127);
    }
    if (s->arrays.kind <= NIMBUS_STEP_EXACT) {
        made_fill_step(random, &s->arrays);
        return;
    }
    if (s->arrays.kind == NIMBUS_STEP_AVERAGE_POOL) {
        s->arrays.scale = made_floats(random, out->channels, 0.3f);
        s->arrays.offset = made_floats(random, out->channels, 40.0f);
    }
    for (size_t k = 0; k < 256; k++)
        s->arrays.map[k] = (int8_t)made_between(random, -128, 127);
}

/* A window that fits into h x w; if `one`, once. */
static inline void made_random_window(made_random *random, made_image_step *s, uint32_t h,
                                      uint32_t w, bool one)
{
    const uint32_t sizes[2] = {h, w};
    const bool pool = s->arrays.kind >= NIMBUS_STEP_MAX_POOL;
    for (unsigned axis = 0; axis < 2; axis++) {
        uint32_t *pads = &s->pads[2 * axis];
        do {
            s->kernel[axis] =
                made_below(random, 6) ? 1 + made_below(random, 4) : 1 + made_below(random, 9);
            if (one && made_below(random, 2))
                s->kernel[axis] = sizes[axis];
            s->dilation[axis] = pool || made_below(random, 4) ? 1 : 1 + made_below(random, 4);
            uint32_t reach = (s->kernel[axis] - 1) * s->dilation[axis];
            pads[0] = made_below(random, reach + 1);
            pads[1] = made_below(random, 2) ? reach - pads[0] : made_below(random, reach + 1);
            if (made_below(random, 4) == 0)
                pads[0] = pads[1] = 0;
            s->stride[axis] = made_below(random, 2) ? 1 : 1 + made_below(random, 3);
            if (one)
                s->stride[axis] += sizes[axis] + pads[0] + pads[1];
        } while (made_output_size(s, sizes[axis], axis) == 0);
    }
}

static inline void made_random_convolution(made_random *random, const made_image *p,
                                           made_image_step *s, uint32_t max_channels)
{
    const uint32_t channels = p->values[s->sources[0]].channels;
    s->groups = 1;
    s->arrays.M = 1 + made_below(random, max_channels);
    s->arrays.output = NIMBUS_OUT_SHIFT + made_below(random, 2);
    if (s->arrays.kind == NIMBUS_STEP_LOOKUP) {
        s->arrays.C = 1 + made_below(random, 2 * max_channels);
        s->arrays.H = made_below(random, 3) ? 4 : 1 + made_below(random, 8);
        s->arrays.flags |= made_below(random, 4) ? 0 : NIMBUS_FLAG_PER_NODE;
        s->arrays.flags |= made_below(random, 3) ? 0 : NIMBUS_FLAG_4BIT;
    } else if (made_below(random, 2)) {
        s->groups = channels; /* depthwise, or groups of a few channels */
        if (channels % 2 == 0 && made_below(random, 3) == 0)
            s->groups = channels / 2;
        s->arrays.M = s->groups * (1 + made_below(random, 2));
    }
}

/* A step that reads values before it; the last one makes scores. */
static inline void made_random_image_step(made_random *random, made_image *p, uint32_t i,
                                          uint32_t max_channels)
{
    static const uint32_t kinds[] = {1, 1, 1, 1, 2, 2, 2, 3, 3, 4, 5, 6};
    made_image_step *s = &p->steps[i];
    const bool last = i + 1 == p->n_steps;
    s->arrays.kind = last ? 1 + made_below(random, 2) : kinds[made_below(random, 12)];
    s->sources[0] = made_below(random, 3) ? i : made_below(random, i + 1);
    s->n_sources = 1;
    s->low = -128;
    s->high = 127;
    const made_shape *source = &p->values[s->sources[0]];
    const bool add = s->arrays.kind == NIMBUS_STEP_ADD;
    if (!made_has_window(s)) {
        /* Others of the same shape; if there are none, the same value again. */
        uint32_t n = made_below(random, 3) ? 2 : 2 + made_below(random, 3);
        n = add || made_below(random, 3) ? n : 1;
        for (; s->n_sources < n; s->n_sources++) {
            uint32_t v = made_below(random, i + 1);
            const made_shape *other = &p->values[v];
            bool fits = other->height == source->height && other->width == source->width &&
                        (!add || other->channels == source->channels);
            s->sources[s->n_sources] = fits ? v : s->sources[0];
        }
    }
    if (s->arrays.kind <= NIMBUS_STEP_EXACT)
        made_random_convolution(random, p, s, max_channels);
    if (s->arrays.kind == NIMBUS_STEP_AVERAGE_POOL)
        s->arrays.output = NIMBUS_OUT_SCALED;
    if (last)
        s->arrays.output = NIMBUS_OUT_I32;
    if (s->arrays.output == NIMBUS_OUT_SHIFT)
        s->arrays.shift = made_below(random, made_below(random, 2) ? 25 : 8);
    if (made_has_window(s))
        made_random_window(random, s, source->height, source->width, last);
    if (s->arrays.kind == NIMBUS_STEP_AVERAGE_POOL && made_below(random, 2)) {
        s->kernel[0] = source->height;
        s->kernel[1] = source->width;
        memset(s->pads, 0, sizeof s->pads);
    }
    if (!last && made_below(random, 4) == 0)
        s->arrays.flags |= NIMBUS_FLAG_MAP;
    if (!last && made_below(random, 2)) {
        s->low = made_between(random, -128, 0);
        s->high = made_between(random, s->low, 127);
    }
    made_finish_image_step(random, p, i);
}

static inline made_image made_random_image(uint64_t seed, uint32_t max_size, uint32_t max_channels)
{
    made_random random = {seed, 0};
    made_image p = {.input_dtype = 1 + made_below(&random, 2),
                    .n_steps = 1 + made_below(&random, 9)};
    p.values[0] = (made_shape){1 + made_below(&random, 5), 1 + made_below(&random, max_size),
                               1 + made_below(&random, max_size)};
    if (p.input_dtype == NIMBUS_F32) {
        p.in_scale = made_floats(&random, p.values[0].channels, 100.0f);
        p.in_offset = made_floats(&random, p.values[0].channels, 10.0f);
    }
    for (uint32_t i = 0; i < p.n_steps; i++)
        made_random_image_step(&random, &p, i, max_channels);
    return p;
}

static inline void made_image_free(made_image *p)
{
    for (uint32_t i = 0; i < p->n_steps; i++) {
        made_free_step(&p->steps[i].arrays);
        free(p->steps[i].pad);
    }
    free(p->in_scale);
    free(p->in_offset);
}

/* ---- writing ----------------------------------------------------------------------------- */

static inline void made_write_image_step(nimbus_buffer *b, const made_image *p, uint32_t i)
{
    const made_image_step *s = &p->steps[i];
    const made_step *a = &s->arrays;
    const uint32_t fields[] = {a->kind,
                               s->n_sources,
                               a->M,
                               a->C,
                               a->H,
                               a->flags,
                               a->output,
                               a->shift,
                               s->groups,
                               s->kernel[0],
                               s->kernel[1],
                               s->stride[0],
                               s->stride[1],
                               s->dilation[0],
                               s->dilation[1],
                               s->pads[0],
                               s->pads[1],
                               s->pads[2],
                               s->pads[3],
                               (uint32_t)s->low,
                               (uint32_t)s->high,
                               0,
                               0,
                               0};
    char name[NIMBUS_STEP_NAME_BYTES] = "a step";
    made_write_u32s(b, fields, 24);
    nimbus_write_bytes(b, name, sizeof name);
    made_write_u32s(b, s->sources, s->n_sources);
    if (made_has_window(s) && a->kind != NIMBUS_STEP_MAX_POOL)
        made_write_bytes(b, s->pad, p->values[s->sources[0]].channels);
    if (a->kind <= NIMBUS_STEP_EXACT) {
        made_write_arrays(b, a);
        return;
    }
    if (a->kind == NIMBUS_STEP_AVERAGE_POOL) {
        made_write_u32s(b, a->scale, a->M);
        made_write_u32s(b, a->offset, a->M);
    }
    if (a->flags & NIMBUS_FLAG_MAP)
        made_write_bytes(b, a->map, 256);
}

static inline nimbus_buffer made_image_write(const made_image *p)
{
    nimbus_buffer parts[MADE_IMAGE_STEPS + 1] = {0}, out = {0};
    nimbus_section sections[MADE_IMAGE_STEPS + 2];
    const made_shape *in = &p->values[0];
    const uint32_t n = p->n_steps, header[] = {in->channels,
                                               in->height,
                                               in->width,
                                               p->input_dtype,
                                               p->steps[n - 1].arrays.M,
                                               n,
                                               0x3e000000 /* 0.125f */,
                                               0};
    made_write_u32s(&parts[0], header, 8);
    if (p->in_scale) {
        made_write_u32s(&parts[0], p->in_scale, in->channels);
        made_write_u32s(&parts[0], p->in_offset, in->channels);
    }
    for (uint32_t i = 0; i < n; i++)
        made_write_image_step(&parts[1 + i], p, i);
    for (uint32_t i = 0; i <= n; i++) {
        uint32_t tag = i ? NIMBUS_TAG('S', 'T', 'E', 'P') : NIMBUS_TAG('I', 'M', 'A', 'G');
        sections[i] = (nimbus_section){tag, parts[i].bytes, parts[i].size};
    }
    sections[n + 1] = (nimbus_section){NIMBUS_TAG('M', 'E', 'T', 'A'), (const uint8_t *)"{}", 2};
    if (nimbus_container_write(&out, NIMBUS_PROGRAM_MAGIC, NIMBUS_PROGRAM_MAJOR,
                               NIMBUS_PROGRAM_MINOR, sections, n + 2, NULL) != NIMBUS_OK)
        abort();
    for (uint32_t i = 0; i <= n; i++)
        nimbus_buffer_free(&parts[i]);
    return out;
}

#endif
