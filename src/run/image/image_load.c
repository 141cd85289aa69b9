/* image_load.c - read and check the header and steps of a program on images (program_format.h)
 *
 * As in load.c: a file is distrusted, and afterwards no index, shape or sum can be out of bounds.
 * Shapes follow from the header and the steps before, so that checking a step needs nothing else.
 */
#include "run/image/image.h"

#include <string.h>

#include "run/section.h"

/* ---- the program header ------------------------------------------------------------------- */

/* Whether a value of this shape is small enough. */
static bool shape_fits(uint64_t channels, uint64_t height, uint64_t width)
{
    const uint64_t most = NIMBUS_MAX_PROGRAM_WIDTH;
    return channels <= most && height <= most && channels * height <= most && width <= most &&
           channels * height * width <= most;
}

/* Scales and offsets of channels, repeated for every element of a row. */
static float *spread(const uint8_t *bytes, size_t channels, size_t n_each)
{
    float *of_channels = nimbus_copy_floats(bytes, channels, channels);
    float *of_all = nimbus_alloc(channels * n_each, sizeof *of_all);
    for (size_t c = 0; of_channels && of_all && c < channels; c++)
        for (size_t i = 0; i < n_each; i++)
            of_all[c * n_each + i] = of_channels[c];
    if (!of_channels) {
        nimbus_free(of_all);
        of_all = NULL;
    }
    nimbus_free(of_channels);
    return of_all;
}

static nimbus_status load_scales(nimbus_section_reader *s, nimbus_program *program)
{
    const nimbus_program_info *info = &program->info;
    const uint8_t *scale, *offset;
    nimbus_status status;
    if ((status = nimbus_section_floats(s, "input scale", info->channels, false, &scale)) ||
        (status = nimbus_section_floats(s, "input offset", info->channels, false, &offset)))
        return status;
    program->image->in_scale = spread(scale, info->channels, info->height * info->width);
    program->image->in_offset = spread(offset, info->channels, info->height * info->width);
    if (!program->image->in_scale || !program->image->in_offset)
        return nimbus_fail(s->error, NIMBUS_ERR_MEMORY, "out of memory for the scales of an image");
    return NIMBUS_OK;
}

nimbus_status nimbus_image_load_header(nimbus_program *program, const nimbus_section *section,
                                       uint64_t start, nimbus_error *error)
{
    nimbus_section_reader s = {nimbus_reader_of(section->bytes, section->size), start,
                               "image header", error};
    nimbus_program_info *info = &program->info;
    uint32_t channels, height, width, dtype, n_outputs, n_steps, zero, scale_bits;
    nimbus_status status;
    if (section->size < NIMBUS_IMAGE_HEADER_BYTES)
        return NIMBUS_FAIL_BACK(&s, NIMBUS_ERR_TRUNCATED, 0, "%s: %zu bytes, expected %d", s.name,
                                section->size, NIMBUS_IMAGE_HEADER_BYTES);
    if ((status = nimbus_section_width(&s, "number of channels", 1, &channels)) ||
        (status = nimbus_section_width(&s, "height", 1, &height)) ||
        (status = nimbus_section_width(&s, "width", 1, &width)))
        return status;
    if (!shape_fits(channels, height, width))
        return NIMBUS_FAIL_BACK(&s, NIMBUS_ERR_LIMIT, 12,
                                "%s: an image of %u x %u x %u, the limit is %u elements", s.name,
                                channels, height, width, NIMBUS_MAX_PROGRAM_WIDTH);
    if ((status = nimbus_section_u32(&s, "input type", NIMBUS_U8, NIMBUS_F32, &dtype)) ||
        (status = nimbus_section_width(&s, "number of outputs", 1, &n_outputs)) ||
        (status = nimbus_section_u32(&s, "number of steps", 1, NIMBUS_MAX_PROGRAM_STEPS, &n_steps)))
        return status;
    scale_bits = nimbus_read_u32le(&s.r);
    if (!nimbus_is_finite(scale_bits))
        return NIMBUS_FAIL_BACK(&s, NIMBUS_ERR_VALUE, 4, "%s: output scale is not finite", s.name);
    if ((status = nimbus_section_u32(&s, "reserved field", 0, 0, &zero)))
        return status;
    info->channels = channels;
    info->height = height;
    info->width = width;
    info->n_inputs = (size_t)channels * height * width;
    info->input_dtype = (nimbus_dtype)dtype;
    info->n_outputs = n_outputs;
    info->n_steps = n_steps;
    memcpy(&info->output_scale, &scale_bits, sizeof scale_bits);
    nimbus_image *image = program->image = nimbus_alloc(1, sizeof *image);
    if (!image || !(image->values = nimbus_alloc(n_steps, sizeof *image->values)) ||
        !(image->steps = nimbus_alloc(n_steps, sizeof *image->steps)))
        return nimbus_fail(error, NIMBUS_ERR_MEMORY, "out of memory for %u steps", n_steps);
    image->values[0] = (nimbus_value){.channels = channels, .height = height, .width = width};
    if (dtype == NIMBUS_F32 && (status = load_scales(&s, program)))
        return status;
    return nimbus_section_end(&s);
}

/* ---- the header of a step ----------------------------------------------------------------- */

typedef struct image_step_header {
    nimbus_step_header step; /* D is not in the file */
    uint32_t n_sources, groups, kernel[2], stride[2], dilation[2], pads[4], low, high;
} image_step_header;

static bool has_window(uint32_t kind)
{
    return kind == NIMBUS_STEP_LOOKUP || kind == NIMBUS_STEP_EXACT ||
           kind == NIMBUS_STEP_MAX_POOL || kind == NIMBUS_STEP_AVERAGE_POOL;
}

/* Kernel, stride, dilation and pads: all of a window, or zeros. */
static nimbus_status read_window(nimbus_section_reader *s, image_step_header *h)
{
    static const char *const names[] = {"kernel height", "kernel width", "stride y",
                                        "stride x",      "dilation y",   "dilation x"};
    static const char *const pad_names[] = {"pad at the top", "pad at the bottom",
                                            "pad at the left", "pad at the right"};
    uint32_t *const fields[] = {&h->kernel[0], &h->kernel[1],   &h->stride[0],
                                &h->stride[1], &h->dilation[0], &h->dilation[1]};
    const bool window = has_window(h->step.kind), pool = h->step.kind >= NIMBUS_STEP_MAX_POOL;
    nimbus_status status;
    for (size_t i = 0; i < 6; i++) {
        if (!window || (pool && i >= 4))
            status = nimbus_section_u32(s, names[i], window, window, fields[i]);
        else
            status = nimbus_section_width(s, names[i], 1, fields[i]);
        if (status)
            return status;
    }
    for (size_t i = 0; i < 4; i++) {
        const uint64_t reach = window ? (uint64_t)(h->kernel[i / 2] - 1) * h->dilation[i / 2] : 0;
        if ((status = nimbus_section_width(s, pad_names[i], 0, &h->pads[i])))
            return status;
        if (h->pads[i] > reach)
            return NIMBUS_FAIL_BACK(s, NIMBUS_ERR_FORMAT, 4, "%s: %s is %u, expected at most %llu",
                                    s->name, pad_names[i], h->pads[i], (unsigned long long)reach);
    }
    return NIMBUS_OK;
}

static nimbus_status read_clamp(nimbus_section_reader *s, image_step_header *h)
{
    h->low = nimbus_read_u32le(&s->r);
    h->high = nimbus_read_u32le(&s->r);
    const int32_t low = (int32_t)h->low, high = (int32_t)h->high;
    const bool scores = h->step.output == NIMBUS_OUT_I32;
    if (low < -128 || high > 127 || low > high || (scores && (low != -128 || high != 127)))
        return NIMBUS_FAIL_BACK(s, NIMBUS_ERR_FORMAT, 8, "%s: clamps to %d..%d, expected %s",
                                s->name, low, high,
                                scores ? "-128..127 for scores" : "a range of i8");
    return NIMBUS_OK;
}

/* The kind and what follows it up to the groups. */
static nimbus_status read_kind(nimbus_section_reader *s, image_step_header *h)
{
    nimbus_step_header *step = &h->step;
    nimbus_status status;
    if ((status =
             nimbus_section_u32(s, "kind", NIMBUS_STEP_LOOKUP, NIMBUS_STEP_CONCAT, &step->kind)))
        return status;
    const bool lookup = step->kind == NIMBUS_STEP_LOOKUP, exact = step->kind == NIMBUS_STEP_EXACT;
    const bool add = step->kind == NIMBUS_STEP_ADD, concat = step->kind == NIMBUS_STEP_CONCAT;
    const bool average = step->kind == NIMBUS_STEP_AVERAGE_POOL;
    const uint32_t allowed =
        NIMBUS_FLAG_MAP | (lookup ? NIMBUS_FLAG_PER_NODE | NIMBUS_FLAG_4BIT : 0u);
    if ((status = nimbus_section_u32(s, "number of sources", add ? 2 : 1,
                                     add || concat ? NIMBUS_MAX_SOURCES : 1, &h->n_sources)) ||
        (status = nimbus_section_width(s, "number of outputs", 1, &step->M)) ||
        (status = lookup ? nimbus_section_width(s, "number of codebooks", 1, &step->C)
                         : nimbus_section_u32(s, "number of codebooks", 0, 0, &step->C)) ||
        (status =
             nimbus_section_u32(s, "number of levels", lookup ? 1 : 0, lookup ? 8 : 0, &step->H)))
        return status;
    step->flags = nimbus_read_u32le(&s->r);
    if (step->flags & ~allowed)
        return NIMBUS_FAIL_BACK(s, NIMBUS_ERR_FORMAT, 4,
                                "%s: flags are 0x%x, expected only bits of 0x%x", s->name,
                                step->flags, allowed);
    const uint32_t least = lookup || exact ? NIMBUS_OUT_I32 : average ? NIMBUS_OUT_SCALED : 0;
    if ((status = nimbus_section_u32(s, "output kind", least, least ? NIMBUS_OUT_SCALED : 0,
                                     &step->output)))
        return status;
    if (step->output == NIMBUS_OUT_I32 && step->flags & NIMBUS_FLAG_MAP)
        return NIMBUS_FAIL_BACK(s, NIMBUS_ERR_FORMAT, 4,
                                "%s: has a map, but its output is 32-bit scores", s->name);
    if ((status = nimbus_section_u32(
             s, "shift", 0, step->output == NIMBUS_OUT_SHIFT ? NIMBUS_MAX_SHIFT : 0, &step->shift)))
        return status;
    return exact ? nimbus_section_width(s, "number of groups", 1, &h->groups)
                 : nimbus_section_u32(s, "number of groups", lookup, lookup, &h->groups);
}

static nimbus_status read_header(nimbus_section_reader *s, image_step_header *h, char *name)
{
    nimbus_status status;
    if (s->r.size < NIMBUS_IMAGE_STEP_HEADER_BYTES)
        return NIMBUS_FAIL_BACK(s, NIMBUS_ERR_TRUNCATED, 0, "%s: %zu bytes, a header needs %d",
                                s->name, s->r.size, NIMBUS_IMAGE_STEP_HEADER_BYTES);
    if ((status = read_kind(s, h)) || (status = read_window(s, h)) || (status = read_clamp(s, h)) ||
        (status = nimbus_section_zero(s, 12, "reserved byte")))
        return status;
    return nimbus_section_name(s, name);
}

/* ---- how a step fits the program ----------------------------------------------------------- */

#define FAIL_STEP(s, status, at, ...)                                                              \
    nimbus_fail_at((s)->error, status, (s)->start + (at), __VA_ARGS__)

/* Which values a step reads, and whether their shapes fit each other and its channels. */
static nimbus_status take_sources(nimbus_section_reader *s, const nimbus_image *image, size_t i,
                                  const image_step_header *h, nimbus_image_step *step)
{
    const uint8_t *bytes;
    nimbus_status status = nimbus_section_take(s, "sources", h->n_sources, 4, &bytes);
    if (status)
        return status;
    const uint32_t kind = h->step.kind;
    size_t channels = 0;
    step->n_sources = h->n_sources;
    for (size_t k = 0; k < h->n_sources; k++) {
        step->sources[k] = nimbus_u32_at(bytes, k);
        if (step->sources[k] > i)
            return NIMBUS_FAIL_BACK(s, NIMBUS_ERR_FORMAT, 4 * (h->n_sources - k),
                                    "%s: source %zu is value %u, expected at most %zu", s->name, k,
                                    step->sources[k], i);
        const nimbus_value *first = &image->values[step->sources[0]];
        const nimbus_value *value = &image->values[step->sources[k]];
        if (value->height != first->height || value->width != first->width ||
            (kind == NIMBUS_STEP_ADD && value->channels != first->channels))
            return NIMBUS_FAIL_BACK(s, NIMBUS_ERR_FORMAT, 4 * (h->n_sources - k),
                                    "%s: source %zu is %zu x %zu x %zu, but source 0 %zu x %zu x "
                                    "%zu",
                                    s->name, k, value->channels, value->height, value->width,
                                    first->channels, first->height, first->width);
        channels = kind == NIMBUS_STEP_CONCAT ? channels + value->channels : value->channels;
    }
    if (kind > NIMBUS_STEP_EXACT && h->step.M != channels)
        return FAIL_STEP(s, NIMBUS_ERR_FORMAT, 8,
                         "%s: has %u outputs, but its sources %zu channels", s->name, h->step.M,
                         channels);
    if (kind == NIMBUS_STEP_EXACT && (channels % h->groups || h->step.M % h->groups))
        return FAIL_STEP(s, NIMBUS_ERR_FORMAT, 32,
                         "%s: %u groups do not divide %zu channels and %u outputs", s->name,
                         h->groups, channels, h->step.M);
    return NIMBUS_OK;
}

/* Height or width of the output, 0 if the window does not fit in. */
static size_t output_size(size_t size, const image_step_header *h, size_t axis)
{
    uint64_t padded = (uint64_t)size + h->pads[2 * axis] + h->pads[2 * axis + 1];
    uint64_t extent = (uint64_t)(h->kernel[axis] - 1) * h->dilation[axis] + 1;
    return padded < extent ? 0 : (size_t)((padded - extent) / h->stride[axis] + 1);
}

/* The window of a step, and the taps that one output sees. */
static nimbus_status check_window(nimbus_section_reader *s, const nimbus_value *source,
                                  image_step_header *h, nimbus_value *out)
{
    const uint32_t kind = h->step.kind;
    const uint64_t taps = (uint64_t)h->kernel[0] * h->kernel[1], most = NIMBUS_MAX_PROGRAM_WIDTH;
    const bool convolution = kind <= NIMBUS_STEP_EXACT;
    const uint64_t channels = convolution ? source->channels / h->groups : 1;
    out->height = output_size(source->height, h, 0);
    out->width = output_size(source->width, h, 1);
    if (!out->height || !out->width)
        return FAIL_STEP(s, NIMBUS_ERR_FORMAT, 36,
                         "%s: a window of %u x %u does not fit into %zu x %zu with its pads",
                         s->name, h->kernel[0], h->kernel[1], source->height, source->width);
    const bool all = kind == NIMBUS_STEP_AVERAGE_POOL && h->kernel[0] == source->height &&
                     h->kernel[1] == source->width && out->height == 1 && out->width == 1 &&
                     h->pads[0] + h->pads[1] + h->pads[2] + h->pads[3] == 0;
    if (taps > most || taps * channels > most ||
        (!convolution && !all && taps > NIMBUS_MAX_POOL_TAPS))
        return FAIL_STEP(s, NIMBUS_ERR_LIMIT, 36,
                         "%s: an output sees %u x %u taps of %llu channels, the limit is %u",
                         s->name, h->kernel[0], h->kernel[1], (unsigned long long)channels,
                         convolution || all ? NIMBUS_MAX_PROGRAM_WIDTH : NIMBUS_MAX_POOL_TAPS);
    if (kind == NIMBUS_STEP_AVERAGE_POOL && 128 * taps > INT32_MAX)
        return FAIL_STEP(s, NIMBUS_ERR_VALUE, 36, "%s: a sum of %llu taps can exceed 32 bits",
                         s->name, (unsigned long long)taps);
    h->step.D = (uint32_t)(taps * channels);
    return NIMBUS_OK;
}

/* The shape of what the step makes; scores are 1 x 1. */
static nimbus_status check_output(nimbus_section_reader *s, const nimbus_program *program, size_t i,
                                  const image_step_header *h, const nimbus_value *out)
{
    const bool last = i + 1 == program->info.n_steps, scores = h->step.output == NIMBUS_OUT_I32;
    if (scores != last)
        return FAIL_STEP(s, NIMBUS_ERR_FORMAT, 24, "%s: output kind is %u, expected %s", s->name,
                         h->step.output, last ? "1 in the last step" : "another before the last");
    if (last && (out->height != 1 || out->width != 1))
        return FAIL_STEP(s, NIMBUS_ERR_FORMAT, 24, "%s: scores of %zu x %zu, expected 1 x 1",
                         s->name, out->height, out->width);
    if (last && out->channels != program->info.n_outputs)
        return FAIL_STEP(s, NIMBUS_ERR_FORMAT, 8,
                         "%s: has %zu outputs, but the image header says %zu", s->name,
                         out->channels, program->info.n_outputs);
    if (!shape_fits(out->channels, out->height, out->width))
        return FAIL_STEP(s, NIMBUS_ERR_LIMIT, 8,
                         "%s: makes %zu x %zu x %zu, the limit is %u elements", s->name,
                         out->channels, out->height, out->width, NIMBUS_MAX_PROGRAM_WIDTH);
    return NIMBUS_OK;
}

/* ---- steps -------------------------------------------------------------------------------- */

static nimbus_status take_arrays(nimbus_section_reader *s, const image_step_header *h,
                                 size_t channels, const uint8_t **pad, nimbus_step_arrays *a)
{
    const nimbus_step_header *step = &h->step;
    nimbus_status status;
    if (has_window(step->kind) && step->kind != NIMBUS_STEP_MAX_POOL &&
        (status = nimbus_section_take(s, "pads", channels, 1, pad)))
        return status;
    if (step->kind <= NIMBUS_STEP_EXACT) {
        status = nimbus_section_step_arrays(s, step, a);
        return status ? status : nimbus_section_end(s);
    }
    if (step->kind == NIMBUS_STEP_AVERAGE_POOL &&
        ((status = nimbus_section_floats(s, "scale", step->M, false, &a->scale)) ||
         (status = nimbus_section_floats(s, "offset", step->M, false, &a->offset))))
        return status;
    if (step->flags & NIMBUS_FLAG_MAP &&
        (status = nimbus_section_take(s, "map entries", 256, 1, &a->map)))
        return status;
    return nimbus_section_end(s);
}

static void fill_step(const image_step_header *h, const nimbus_value *out, size_t bytes,
                      nimbus_program_step *step, nimbus_image_step *of_image)
{
    const nimbus_step_header *from = &h->step;
    const size_t positions = out->height * out->width;
    const bool lookup = from->kind == NIMBUS_STEP_LOOKUP;
    step->input = NIMBUS_IN_I8;
    step->output = from->output;
    step->shift = from->shift;
    step->has_map = from->flags & NIMBUS_FLAG_MAP;
    step->of_image = true;
    step->n_inputs = from->D;
    step->n_outputs = from->M;
    step->n_codebooks = from->C;
    step->n_levels = from->H;
    step->n_leaves = (size_t)1 << from->H;
    nimbus_step_info *info = &step->info;
    info->kind = (nimbus_step_kind)from->kind;
    info->n_inputs = from->D;
    info->n_outputs = from->M;
    info->n_codebooks = from->C;
    info->n_levels = from->H;
    info->n_sources = h->n_sources;
    info->height = out->height;
    info->width = out->width;
    info->kernel_height = h->kernel[0];
    info->kernel_width = h->kernel[1];
    info->stride_y = h->stride[0];
    info->stride_x = h->stride[1];
    info->n_groups = h->groups;
    info->table_bits = !lookup ? 0 : from->flags & NIMBUS_FLAG_4BIT ? 4 : 8;
    info->shared_columns = lookup && !(from->flags & NIMBUS_FLAG_PER_NODE);
    info->bytes = bytes;
    info->lookups = (size_t)from->C * from->M * positions;
    info->comparisons = (size_t)from->C * from->H * positions;
    if (from->kind == NIMBUS_STEP_EXACT)
        info->multiply_adds = (size_t)from->D * from->M * positions;
    of_image->patch =
        (nimbus_patch){h->kernel[0],   h->kernel[1], h->stride[0], h->stride[1], h->dilation[0],
                       h->dilation[1], h->pads[0],   h->pads[1],   h->pads[2],   h->pads[3]};
    of_image->groups = h->groups;
    of_image->low = (int8_t)(int32_t)h->low;
    of_image->high = (int8_t)(int32_t)h->high;
}

/* n_taps weights as dot_taps_i32 reads them, of `bytes` each; NULL: ones. Their sum: 128 times it
 * fits, as in lay_out_weights. */
static int32_t pack_taps(const int8_t *weights, size_t n_taps, size_t bytes, uint8_t *to)
{
    int32_t sum = 0;
    for (size_t t = 0; t < n_taps; t++) {
        int8_t weight = weights ? weights[t] : 1;
        if (bytes == 2)
            ((int16_t *)(void *)to)[t] = weight;
        else
            ((int8_t *)to)[t] = weight;
        sum += weight;
    }
    return sum;
}

/* Weights for dot_taps_i32: of every output of a convolution in groups, or one set of ones. */
static bool prepare_taps(const nimbus_program_step *step, nimbus_image_step *of_image,
                         const int8_t *weights, const nimbus_shape *shape)
{
    const size_t group = shape->group, n_taps = step->n_inputs,
                 n_sets = weights ? step->n_outputs : 1;
    const size_t n_groups = (n_taps + group - 1) / group, bytes = nimbus_group_bytes(shape);
    of_image->n_taps = n_taps;
    of_image->weight_bytes = weights ? n_groups * nimbus_tap_group_bytes(shape) : 0;
    of_image->tap_weights = nimbus_alloc_product(n_sets, n_groups * group, bytes, 0);
    of_image->tap_bias = nimbus_alloc(step->n_outputs, sizeof *of_image->tap_bias);
    if (!of_image->tap_weights || !of_image->tap_bias)
        return false;
    int32_t sum = 0; /* of the one set of ones it serves all outputs */
    for (size_t m = 0; m < step->n_outputs; m++) {
        if (m < n_sets)
            sum = pack_taps(weights ? weights + m * n_taps : NULL, n_taps, bytes,
                            of_image->tap_weights + m * of_image->weight_bytes);
        of_image->tap_bias[m] = (int32_t)((uint32_t)step->bias[m] - shape->flip * (uint32_t)sum);
    }
    return true;
}

/* What one tap becomes, for all its values. */
static bool prepare_tap_maps(const nimbus_program_step *step, nimbus_image_step *of_image,
                             const int8_t *weights)
{
    const nimbus_rounding rounding = nimbus_rounding_of(step, 0);
    if (!(of_image->tap_maps = nimbus_alloc(step->n_outputs, 256)))
        return false;
    for (size_t m = 0; m < step->n_outputs; m++)
        for (int x = -128; x < 128; x++)
            of_image->tap_maps[256 * m + (size_t)(x + 128)] =
                nimbus_round_sum(step->bias[m] + weights[m] * x, &rounding, m);
    return true;
}

static bool prepare_pad(nimbus_image_step *of_image, const uint8_t *pad, size_t channels)
{
    const nimbus_patch *p = &of_image->patch;
    if (p->top + p->bottom + p->left + p->right == 0)
        return true;
    if (!(of_image->pad = nimbus_alloc(channels, 1)))
        return false;
    if (pad)
        memcpy(of_image->pad, pad, channels);
    else
        memset(of_image->pad, -128, channels);
    return true;
}

static nimbus_status prepare(nimbus_program *program, size_t i, const uint8_t *pad,
                             const nimbus_step_arrays *arrays, nimbus_error *error)
{
    nimbus_program_step *step = &program->steps[i];
    nimbus_image_step *of_image = &program->image->steps[i];
    const nimbus_value *source = &program->image->values[of_image->sources[0]];
    const nimbus_shape *shape = &program->kernels->shape;
    const bool average = step->info.kind == NIMBUS_STEP_AVERAGE_POOL;
    bool ok = prepare_pad(of_image, pad, source->channels);
    if (ok && nimbus_is_convolution(step) && of_image->groups == 1)
        return nimbus_step_prepare(step, arrays, program->kernels, error);
    of_image->average_one = average && !of_image->pad && step->info.height == 1 &&
                            step->info.width == 1 && of_image->patch.dilation_y == 1 &&
                            of_image->patch.dilation_x == 1;
    ok = ok && nimbus_step_prepare_output(step, arrays);
    if (ok && nimbus_is_convolution(step))
        ok = prepare_taps(step, of_image, (const int8_t *)arrays->weights, shape) &&
             (step->n_inputs > 1 || step->output == NIMBUS_OUT_I32 ||
              prepare_tap_maps(step, of_image, (const int8_t *)arrays->weights));
    else if (ok && average && !of_image->average_one)
        ok = prepare_taps(step, of_image, NULL, shape);
    return ok ? NIMBUS_OK
              : nimbus_fail(error, NIMBUS_ERR_MEMORY, "out of memory preparing step \"%s\"",
                            step->info.name);
}

nimbus_status nimbus_image_load_step(nimbus_program *program, size_t i,
                                     const nimbus_section *section, uint64_t start,
                                     nimbus_error *error)
{
    nimbus_image *image = program->image;
    nimbus_program_step *step = &program->steps[i];
    nimbus_program_info *info = &program->info;
    nimbus_step_arrays arrays = {0};
    image_step_header header = {0};
    char name[NIMBUS_SECTION_NAME_BYTES];
    const uint8_t *pad = NULL;
    nimbus_status status;
    nimbus_section_reader s = nimbus_section_of_step(section, start, i, name, error);
    if ((status = read_header(&s, &header, step->info.name)) ||
        (status = take_sources(&s, image, i, &header, &image->steps[i])))
        return status;
    const nimbus_value *source = &image->values[image->steps[i].sources[0]];
    nimbus_value out = {
        .channels = header.step.M, .height = source->height, .width = source->width};
    if ((has_window(header.step.kind) && (status = check_window(&s, source, &header, &out))) ||
        (status = check_output(&s, program, i, &header, &out)) ||
        (status = take_arrays(&s, &header, source->channels, &pad, &arrays)))
        return status;
    fill_step(&header, &out, section->size, step, &image->steps[i]);
    if (nimbus_is_convolution(step) && (status = nimbus_section_check_sums(&s, step, &arrays)))
        return status;
    if (arrays.tables)
        info->table_bytes +=
            nimbus_table_row_bytes(&header.step) * (step->n_codebooks << step->n_levels);
    if (arrays.weights)
        info->table_bytes += step->n_inputs * step->n_outputs;
    info->lookups += step->info.lookups;
    info->comparisons += step->info.comparisons;
    info->multiply_adds += step->info.multiply_adds;
    if (i + 1 < info->n_steps)
        image->values[i + 1] = out;
    return prepare(program, i, pad, &arrays, error);
}

void nimbus_image_free(nimbus_image *image, size_t n_steps)
{
    if (!image)
        return;
    nimbus_image_plan_free(&image->one, n_steps);
    nimbus_image_plan_free(&image->block, n_steps);
    for (size_t i = 0; image->steps && i < n_steps; i++) {
        nimbus_free(image->steps[i].pad);
        nimbus_free(image->steps[i].tap_weights);
        nimbus_free(image->steps[i].tap_bias);
        nimbus_free(image->steps[i].tap_maps);
        nimbus_free(image->steps[i].in_window);
    }
    for (size_t f = 0; image->frames && f < image->n_frames; f++)
        nimbus_free(image->frames[f].keep);
    nimbus_free(image->values);
    nimbus_free(image->steps);
    nimbus_free(image->frames);
    nimbus_free(image->in_scale);
    nimbus_free(image->in_offset);
    nimbus_free(image);
}
