/* load.c - read and check a .nimbus program (base/program_format.h)
 *
 * The container has already proven that no byte was damaged; here a file is distrusted that
 * somebody built on purpose. Every array is found in the bytes before anything of its size is
 * allocated, so memory stays in proportion to the file, and afterwards no index, sum or value can
 * be out of bounds: the executor checks nothing. */
#include <string.h>

#include "run/image/image.h"
#include "run/section.h"

enum {
    TAG_IMAG = NIMBUS_TAG('I', 'M', 'A', 'G'),
    TAG_PROG = NIMBUS_TAG('P', 'R', 'O', 'G'),
    TAG_STEP = NIMBUS_TAG('S', 'T', 'E', 'P'),
    TAG_META = NIMBUS_TAG('M', 'E', 'T', 'A')
};

static nimbus_status read_step_header(nimbus_section_reader *s, nimbus_step_header *h, char *name)
{
    nimbus_status status;
    if (s->r.size < NIMBUS_STEP_HEADER_BYTES)
        return NIMBUS_FAIL_BACK(s, NIMBUS_ERR_TRUNCATED, 0, "%s: %zu bytes, a header needs %d",
                                s->name, s->r.size, NIMBUS_STEP_HEADER_BYTES);
    if ((status = nimbus_section_u32(s, "kind", NIMBUS_STEP_LOOKUP, NIMBUS_STEP_EXACT, &h->kind)))
        return status;
    bool lookup = h->kind == NIMBUS_STEP_LOOKUP;
    uint32_t allowed = NIMBUS_FLAG_MAP | (lookup ? NIMBUS_FLAG_PER_NODE | NIMBUS_FLAG_4BIT : 0u);
    if ((status = nimbus_section_width(s, "number of inputs", 1, &h->D)) ||
        (status = nimbus_section_width(s, "number of outputs", 1, &h->M)))
        return status;
    if (lookup) {
        if ((status = nimbus_section_width(s, "number of codebooks", 1, &h->C)) ||
            (status = nimbus_section_u32(s, "number of levels", 1, 8, &h->H)))
            return status;
    } else if ((status =
                    nimbus_section_u32(s, "number of codebooks of an exact step", 0, 0, &h->C)) ||
               (status = nimbus_section_u32(s, "number of levels of an exact step", 0, 0, &h->H))) {
        return status;
    }
    h->flags = nimbus_read_u32le(&s->r);
    if (h->flags & ~allowed)
        return NIMBUS_FAIL_BACK(s, NIMBUS_ERR_FORMAT, 4,
                                "%s: flags are 0x%x, expected only bits of 0x%x", s->name, h->flags,
                                allowed);
    if ((status = nimbus_section_u32(s, "input kind", NIMBUS_IN_U8, NIMBUS_IN_I8, &h->input)) ||
        (status =
             nimbus_section_u32(s, "output kind", NIMBUS_OUT_I32, NIMBUS_OUT_SCALED, &h->output)))
        return status;
    if (h->output == NIMBUS_OUT_I32 && h->flags & NIMBUS_FLAG_MAP)
        return NIMBUS_FAIL_BACK(s, NIMBUS_ERR_FORMAT, 4,
                                "%s: has a map, but its output is 32-bit scores", s->name);
    if ((status = nimbus_section_u32(
             s, "shift", 0, h->output == NIMBUS_OUT_SHIFT ? NIMBUS_MAX_SHIFT : 0, &h->shift)) ||
        (status = nimbus_section_zero(s, 28, "reserved byte")))
        return status;
    return nimbus_section_name(s, name);
}

/* ---- steps and the program --------------------------------------------------------------- */

static void fill_step(nimbus_program_step *step, const nimbus_step_header *h, size_t bytes)
{
    bool lookup = h->kind == NIMBUS_STEP_LOOKUP;
    step->input = h->input;
    step->output = h->output;
    step->shift = h->shift;
    step->has_map = h->flags & NIMBUS_FLAG_MAP;
    step->n_inputs = h->D;
    step->n_outputs = h->M;
    step->n_codebooks = h->C;
    step->n_levels = h->H;
    step->n_leaves = (size_t)1 << h->H;
    nimbus_step_info *info = &step->info;
    info->kind = (nimbus_step_kind)h->kind;
    info->n_inputs = h->D;
    info->n_outputs = h->M;
    info->n_codebooks = h->C;
    info->n_levels = h->H;
    info->table_bits = !lookup ? 0 : h->flags & NIMBUS_FLAG_4BIT ? 4 : 8;
    info->shared_columns = lookup && !(h->flags & NIMBUS_FLAG_PER_NODE);
    info->bytes = bytes;
    info->lookups = (size_t)h->C * h->M;
    info->comparisons = (size_t)h->C * h->H;
    info->multiply_adds = lookup ? 0 : (size_t)h->D * h->M;
}

/* How step i must fit the program and the step before it. */
static nimbus_status check_chain(nimbus_section_reader *s, const nimbus_program *program, size_t i)
{
    const nimbus_program_step *step = &program->steps[i];
    const nimbus_program_info *info = &program->info;
    bool last = i + 1 == info->n_steps;
    size_t n_inputs = i ? program->steps[i - 1].n_outputs : info->n_inputs;
    uint32_t input = i                                ? NIMBUS_IN_I8
                     : info->input_dtype == NIMBUS_U8 ? NIMBUS_IN_U8
                                                      : NIMBUS_IN_F32;
    if (step->n_inputs != n_inputs)
        return nimbus_fail_at(s->error, NIMBUS_ERR_FORMAT, s->start + 4,
                              "%s: has %zu inputs, but %s has %zu", s->name, step->n_inputs,
                              i ? "the step before it" : "a row", n_inputs);
    if (step->input != input)
        return nimbus_fail_at(s->error, NIMBUS_ERR_FORMAT, s->start + 24,
                              "%s: input kind is %u, expected %u", s->name, step->input, input);
    if ((step->output == NIMBUS_OUT_I32) != last)
        return nimbus_fail_at(s->error, NIMBUS_ERR_FORMAT, s->start + 28,
                              "%s: output kind is %u, expected %s", s->name, step->output,
                              last ? "1 in the last step" : "2 or 3 before the last step");
    if (last && step->n_outputs != info->n_outputs)
        return nimbus_fail_at(s->error, NIMBUS_ERR_FORMAT, s->start + 8,
                              "%s: has %zu outputs, but the program header says %zu", s->name,
                              step->n_outputs, info->n_outputs);
    return NIMBUS_OK;
}

static nimbus_status load_step(nimbus_program *program, size_t i, const nimbus_section *section,
                               uint64_t start, nimbus_error *error)
{
    nimbus_program_step *step = &program->steps[i];
    nimbus_step_arrays arrays = {0};
    nimbus_step_header header;
    char name[NIMBUS_SECTION_NAME_BYTES];
    nimbus_status status;
    nimbus_section_reader s = nimbus_section_of_step(section, start, i, name, error);
    if ((status = read_step_header(&s, &header, step->info.name)))
        return status;
    fill_step(step, &header, section->size);
    if ((status = check_chain(&s, program, i)) ||
        (status = nimbus_section_step_arrays(&s, &header, &arrays)) ||
        (status = nimbus_section_end(&s)) ||
        (status = nimbus_section_check_sums(&s, step, &arrays)))
        return status;
    nimbus_program_info *info = &program->info;
    info->table_bytes += arrays.tables
                             ? nimbus_table_row_bytes(&header) * ((size_t)header.C << header.H)
                             : (size_t)header.D * header.M;
    info->lookups += step->info.lookups;
    info->comparisons += step->info.comparisons;
    info->multiply_adds += step->info.multiply_adds;
    return nimbus_step_prepare(step, &arrays, program->kernels, error);
}

static nimbus_status load_header(nimbus_program_info *info, const nimbus_section *section,
                                 uint64_t start, nimbus_error *error)
{
    nimbus_section_reader s = {nimbus_reader_of(section->bytes, section->size), start,
                               "program header", error};
    uint32_t n_inputs, dtype, n_outputs, n_steps, zero, scale_bits;
    nimbus_status status;
    if (section->size != NIMBUS_PROGRAM_HEADER_BYTES)
        return NIMBUS_FAIL_BACK(&s, NIMBUS_ERR_FORMAT, 0, "%s: %zu bytes, expected %d", s.name,
                                section->size, NIMBUS_PROGRAM_HEADER_BYTES);
    if ((status = nimbus_section_width(&s, "number of inputs", 1, &n_inputs)) ||
        (status = nimbus_section_u32(&s, "input type", NIMBUS_U8, NIMBUS_F32, &dtype)) ||
        (status = nimbus_section_width(&s, "number of outputs", 1, &n_outputs)) ||
        (status = nimbus_section_u32(&s, "number of steps", 1, NIMBUS_MAX_PROGRAM_STEPS, &n_steps)))
        return status;
    scale_bits = nimbus_read_u32le(&s.r);
    if (!nimbus_is_finite(scale_bits))
        return NIMBUS_FAIL_BACK(&s, NIMBUS_ERR_VALUE, 4, "%s: output scale is not finite", s.name);
    if ((status = nimbus_section_u32(&s, "reserved field", 0, 0, &zero)))
        return status;
    info->n_inputs = n_inputs;
    info->input_dtype = (nimbus_dtype)dtype;
    info->n_outputs = n_outputs;
    info->n_steps = n_steps;
    memcpy(&info->output_scale, &scale_bits, sizeof scale_bits);
    return NIMBUS_OK;
}

static nimbus_status load_metadata(nimbus_program *program, const nimbus_section *section,
                                   uint64_t start, nimbus_error *error)
{
    size_t size = section ? section->size : 0;
    if (!(program->metadata = nimbus_alloc(size + 1, 1)))
        return nimbus_fail(error, NIMBUS_ERR_MEMORY, "out of memory for the metadata");
    for (size_t i = 0; i < size; i++) {
        if (!section->bytes[i])
            return nimbus_fail_at(error, NIMBUS_ERR_FORMAT, start + i,
                                  "metadata: NUL at byte %zu, expected text", i);
        program->metadata[i] = (char)section->bytes[i];
    }
    return NIMBUS_OK;
}

/* Whether the sections are PROG, n_steps x STEP and at most one META, in this order. */
static nimbus_status check_sections(const nimbus_section *sections, size_t n, size_t n_steps,
                                    nimbus_error *error)
{
    size_t n_found = 0;
    while (n_found + 1 < n && sections[n_found + 1].tag == TAG_STEP)
        n_found++;
    bool has_meta = n_found + 1 < n && sections[n_found + 1].tag == TAG_META;
    if (n_found != n_steps)
        return nimbus_fail(error, NIMBUS_ERR_FORMAT,
                           "found %zu step sections after the header, which promises %zu", n_found,
                           n_steps);
    if (1 + n_found + has_meta != n)
        return nimbus_fail(error, NIMBUS_ERR_FORMAT,
                           "section %zu has tag 0x%x, expected the end or one META section",
                           1 + n_found + has_meta, sections[1 + n_found + has_meta].tag);
    return NIMBUS_OK;
}

static nimbus_status load(nimbus_program *program, const uint8_t *bytes,
                          const nimbus_section *sections, size_t n, nimbus_error *error)
{
    nimbus_program_info *info = &program->info;
    nimbus_status status;
    if (n == 0 || (sections[0].tag != TAG_PROG && sections[0].tag != TAG_IMAG))
        return nimbus_fail(error, NIMBUS_ERR_FORMAT, "the first section is not a program header");
    const bool image = sections[0].tag == TAG_IMAG;
    const uint64_t start = (uint64_t)(sections[0].bytes - bytes);
    if ((status = nimbus_kernels_choose(&program->kernels, error)) ||
        (status = image ? nimbus_image_load_header(program, &sections[0], start, error)
                        : load_header(info, &sections[0], start, error)) ||
        (status = check_sections(sections, n, info->n_steps, error)))
        return status;
    if (!(program->steps = nimbus_alloc(info->n_steps, sizeof *program->steps)))
        return nimbus_fail(error, NIMBUS_ERR_MEMORY, "out of memory for %zu steps", info->n_steps);
    for (size_t i = 0; i < info->n_steps; i++) {
        const nimbus_section *section = &sections[1 + i];
        const uint64_t at = (uint64_t)(section->bytes - bytes);
        status = image ? nimbus_image_load_step(program, i, section, at, error)
                       : load_step(program, i, section, at, error);
        if (status != NIMBUS_OK)
            return status;
    }
    const nimbus_section *meta = 1 + info->n_steps < n ? &sections[n - 1] : NULL;
    status = load_metadata(program, meta, meta ? (uint64_t)(meta->bytes - bytes) : 0, error);
    if (status)
        return status;
    return image ? nimbus_image_plan_all(program, error) : nimbus_program_tune(program, error);
}

nimbus_status nimbus_load(const void *bytes, size_t n_bytes, nimbus_program **out,
                          nimbus_error *error)
{
    nimbus_section *sections = NULL;
    size_t n = 0;
    nimbus_program *program = NULL;
    nimbus_status status;

    if (!out)
        return nimbus_fail(error, NIMBUS_ERR_ARGUMENT, "out is NULL");
    *out = NULL;
    if (!bytes)
        return nimbus_fail(error, NIMBUS_ERR_ARGUMENT, "bytes is NULL");
    status = nimbus_container_read(bytes, n_bytes, NIMBUS_PROGRAM_MAGIC, NIMBUS_PROGRAM_MAJOR,
                                   NIMBUS_PROGRAM_MINOR, &sections, &n, error);
    if (status != NIMBUS_OK)
        goto done;
    program = nimbus_alloc(1, sizeof *program);
    if (!program) {
        status = nimbus_fail(error, NIMBUS_ERR_MEMORY, "out of memory for a program");
        goto done;
    }
    program->info.file_bytes = n_bytes;
    status = load(program, bytes, sections, n, error);
    if (status == NIMBUS_OK) {
        *out = program;
        program = NULL;
    }
done:
    nimbus_close(program);
    nimbus_free(sections);
    return status;
}

void nimbus_close(nimbus_program *program)
{
    if (!program)
        return;
    for (size_t i = 0; program->steps && i < program->info.n_steps; i++)
        nimbus_step_free(&program->steps[i]);
    nimbus_free(program->steps);
    nimbus_image_free(program->image, program->info.n_steps);
    nimbus_free(program->metadata);
    nimbus_free(program);
}
