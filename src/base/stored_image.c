/* stored_image.c - read and check the header and steps of a program on images (program_format.h)
 *
 * Shapes follow from the header and the steps before, so that checking a step needs nothing else.
 */
#include "base/section.h"

/* ---- the program header ------------------------------------------------------------------- */

/* Whether a value of this shape is small enough. */
static bool shape_fits(uint64_t channels, uint64_t height, uint64_t width)
{
    const uint64_t most = NIMBUS_MAX_PROGRAM_WIDTH;
    return channels <= most && height <= most && channels * height <= most && width <= most &&
           channels * height * width <= most;
}

nimbus_status nimbus_stored_image_header(nimbus_stored_program *program,
                                         const nimbus_section *section, uint64_t start,
                                         nimbus_error *error)
{
    nimbus_section_reader s = {nimbus_reader_of(section->bytes, section->size), start,
                               "image header", error};
    nimbus_program_info *info = &program->info;
    uint32_t channels, height, width;
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
    if ((status = nimbus_section_program(&s, info)))
        return status;
    info->channels = channels;
    info->height = height;
    info->width = width;
    info->n_inputs = (size_t)channels * height * width;
    program->values[0] = nimbus_value_of(channels, height, width);
    if (info->input_dtype == NIMBUS_F32 &&
        ((status = nimbus_section_floats(&s, "input scale", channels, false, &program->in_scale)) ||
         (status =
              nimbus_section_floats(&s, "input offset", channels, false, &program->in_offset))))
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
static nimbus_status take_sources(nimbus_section_reader *s, const nimbus_stored_program *program,
                                  size_t i, const image_step_header *h, nimbus_stored_step *step)
{
    const uint8_t *bytes;
    nimbus_status status = nimbus_section_take(s, "sources", h->n_sources, 4, &bytes);
    if (status)
        return status;
    const uint32_t kind = h->step.kind;
    size_t channels = 0;
    step->info.n_sources = h->n_sources;
    for (size_t k = 0; k < h->n_sources; k++) {
        step->sources[k] = nimbus_u32_at(bytes, k);
        if (step->sources[k] > i)
            return NIMBUS_FAIL_BACK(s, NIMBUS_ERR_FORMAT, 4 * (h->n_sources - k),
                                    "%s: source %zu is value %u, expected at most %zu", s->name, k,
                                    step->sources[k], i);
        const nimbus_stored_value *first = &program->values[step->sources[0]];
        const nimbus_stored_value *value = &program->values[step->sources[k]];
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
static nimbus_status check_window(nimbus_section_reader *s, const nimbus_stored_value *source,
                                  image_step_header *h, nimbus_stored_value *out)
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
static nimbus_status check_output(nimbus_section_reader *s, const nimbus_stored_program *program,
                                  size_t i, const image_step_header *h,
                                  const nimbus_stored_value *out)
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
                                 size_t channels, nimbus_step_arrays *a)
{
    const nimbus_step_header *step = &h->step;
    nimbus_status status;
    if (has_window(step->kind) && step->kind != NIMBUS_STEP_MAX_POOL &&
        (status = nimbus_section_take(s, "pads", channels, 1, &a->pad)))
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

static void fill_step(const image_step_header *h, const nimbus_stored_value *out, size_t bytes,
                      nimbus_stored_step *step)
{
    nimbus_section_fill_step(&h->step, bytes, out->height * out->width, step);
    nimbus_step_info *info = &step->info;
    step->input = NIMBUS_IN_I8;
    info->height = out->height;
    info->width = out->width;
    info->kernel_height = h->kernel[0];
    info->kernel_width = h->kernel[1];
    info->stride_y = h->stride[0];
    info->stride_x = h->stride[1];
    info->n_groups = h->groups;
    step->patch =
        (nimbus_patch){h->kernel[0],   h->kernel[1], h->stride[0], h->stride[1], h->dilation[0],
                       h->dilation[1], h->pads[0],   h->pads[1],   h->pads[2],   h->pads[3]};
    step->low = (int8_t)(int32_t)h->low;
    step->high = (int8_t)(int32_t)h->high;
}

nimbus_status nimbus_stored_image_step(nimbus_stored_program *program, size_t i,
                                       const nimbus_section *section, uint64_t start,
                                       nimbus_error *error)
{
    nimbus_stored_step *step = &program->steps[i];
    image_step_header header = {0};
    char name[NIMBUS_SECTION_NAME_BYTES];
    nimbus_status status;
    nimbus_section_reader s = nimbus_section_of_step(section, start, i, name, error);
    if ((status = read_header(&s, &header, step->info.name)) ||
        (status = take_sources(&s, program, i, &header, step)))
        return status;
    const nimbus_stored_value *source = &program->values[step->sources[0]];
    nimbus_stored_value out = nimbus_value_of(header.step.M, source->height, source->width);
    if ((has_window(header.step.kind) && (status = check_window(&s, source, &header, &out))) ||
        (status = check_output(&s, program, i, &header, &out)) ||
        (status = take_arrays(&s, &header, source->channels, &step->arrays)))
        return status;
    fill_step(&header, &out, section->size, step);
    program->values[i + 1] = out;
    return nimbus_is_convolution(&step->info) ? nimbus_section_check_sums(&s, step) : NIMBUS_OK;
}
