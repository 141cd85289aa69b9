/* stored.c - read and check a .nimbus program (base/program_format.h) where it lies */
#include "base/stored.h"

#include "base/section.h"

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

/* How step i must fit the program and the step before it. */
static nimbus_status check_chain(nimbus_section_reader *s, const nimbus_stored_program *program,
                                 size_t i)
{
    const nimbus_stored_step *step = &program->steps[i];
    const nimbus_program_info *info = &program->info;
    bool last = i + 1 == info->n_steps;
    size_t n_inputs = i ? program->steps[i - 1].info.n_outputs : info->n_inputs;
    uint32_t input = i                                ? NIMBUS_IN_I8
                     : info->input_dtype == NIMBUS_U8 ? NIMBUS_IN_U8
                                                      : NIMBUS_IN_F32;
    if (step->info.n_inputs != n_inputs)
        return nimbus_fail_at(s->error, NIMBUS_ERR_FORMAT, s->start + 4,
                              "%s: has %zu inputs, but %s has %zu", s->name, step->info.n_inputs,
                              i ? "the step before it" : "a row", n_inputs);
    if (step->input != input)
        return nimbus_fail_at(s->error, NIMBUS_ERR_FORMAT, s->start + 24,
                              "%s: input kind is %u, expected %u", s->name, step->input, input);
    if ((step->output == NIMBUS_OUT_I32) != last)
        return nimbus_fail_at(s->error, NIMBUS_ERR_FORMAT, s->start + 28,
                              "%s: output kind is %u, expected %s", s->name, step->output,
                              last ? "1 in the last step" : "2 or 3 before the last step");
    if (last && step->info.n_outputs != info->n_outputs)
        return nimbus_fail_at(s->error, NIMBUS_ERR_FORMAT, s->start + 8,
                              "%s: has %zu outputs, but the program header says %zu", s->name,
                              step->info.n_outputs, info->n_outputs);
    return NIMBUS_OK;
}

static nimbus_status read_step(nimbus_stored_program *program, size_t i,
                               const nimbus_section *section, uint64_t start, nimbus_error *error)
{
    nimbus_stored_step *step = &program->steps[i];
    nimbus_step_header header;
    char name[NIMBUS_SECTION_NAME_BYTES];
    nimbus_status status;
    nimbus_section_reader s = nimbus_section_of_step(section, start, i, name, error);
    if ((status = read_step_header(&s, &header, step->info.name)))
        return status;
    nimbus_section_fill_step(&header, section->size, 1, step);
    if ((status = check_chain(&s, program, i)) ||
        (status = nimbus_section_step_arrays(&s, &header, &step->arrays)) ||
        (status = nimbus_section_end(&s)))
        return status;
    return nimbus_section_check_sums(&s, step);
}

static nimbus_status read_header(nimbus_program_info *info, const nimbus_section *section,
                                 uint64_t start, nimbus_error *error)
{
    nimbus_section_reader s = {nimbus_reader_of(section->bytes, section->size), start,
                               "program header", error};
    uint32_t n_inputs;
    nimbus_status status;
    if (section->size != NIMBUS_PROGRAM_HEADER_BYTES)
        return NIMBUS_FAIL_BACK(&s, NIMBUS_ERR_FORMAT, 0, "%s: %zu bytes, expected %d", s.name,
                                section->size, NIMBUS_PROGRAM_HEADER_BYTES);
    if ((status = nimbus_section_width(&s, "number of inputs", 1, &n_inputs)))
        return status;
    info->n_inputs = n_inputs;
    return nimbus_section_program(&s, info);
}

static nimbus_status read_metadata(nimbus_stored_program *program, const nimbus_section *section,
                                   uint64_t start, nimbus_error *error)
{
    for (size_t i = 0; i < section->size; i++)
        if (!section->bytes[i])
            return nimbus_fail_at(error, NIMBUS_ERR_FORMAT, start + i,
                                  "metadata: NUL at byte %zu, expected text", i);
    program->metadata = section->bytes;
    program->n_metadata = section->size;
    return NIMBUS_OK;
}

/* Whether the sections are PROG, n_steps x STEP and at most one META, in this order. */
static nimbus_status check_sections(const void *bytes, size_t n, size_t n_steps,
                                    nimbus_error *error)
{
    size_t n_found = 0;
    while (n_found + 1 < n && nimbus_container_section(bytes, n_found + 1).tag == TAG_STEP)
        n_found++;
    const uint32_t next = n_found + 1 < n ? nimbus_container_section(bytes, n_found + 1).tag : 0;
    const bool has_meta = next == TAG_META;
    if (n_found != n_steps)
        return nimbus_fail(error, NIMBUS_ERR_FORMAT,
                           "found %zu step sections after the header, which promises %zu", n_found,
                           n_steps);
    if (1 + n_found + has_meta != n)
        return nimbus_fail(error, NIMBUS_ERR_FORMAT,
                           "section %zu has tag 0x%x, expected the end or one META section",
                           1 + n_found + has_meta,
                           nimbus_container_section(bytes, 1 + n_found + has_meta).tag);
    return NIMBUS_OK;
}

/* What a read step adds to what the program says of itself. */
static void add_up(nimbus_program_info *info, const nimbus_stored_step *step)
{
    const nimbus_step_info *of = &step->info;
    const size_t M = of->n_outputs;
    if (step->arrays.tables)
        info->table_bytes +=
            nimbus_table_row_bytes(of->table_bits, M) * (of->n_codebooks << of->n_levels);
    if (step->arrays.weights)
        info->table_bytes += of->n_inputs * M;
    info->lookups += of->lookups;
    info->comparisons += of->comparisons;
    info->multiply_adds += of->multiply_adds;
}

/* A program on rows reads and makes values as one on images does: step i value i. */
static void fill_values(nimbus_stored_program *program)
{
    program->values[0] = nimbus_value_of(program->info.n_inputs, 1, 1);
    for (size_t i = 0; i < program->info.n_steps; i++) {
        program->values[i + 1] = nimbus_value_of(program->steps[i].info.n_outputs, 1, 1);
        program->steps[i].sources[0] = (uint32_t)i;
    }
}

nimbus_status nimbus_stored_count(const void *bytes, size_t n_bytes, size_t *n, nimbus_error *error)
{
    return nimbus_container_check(bytes, n_bytes, NIMBUS_PROGRAM_MAGIC, NIMBUS_PROGRAM_MAJOR,
                                  NIMBUS_PROGRAM_MINOR, n, error);
}

nimbus_status nimbus_stored_fill(const void *bytes, size_t n_bytes, size_t n,
                                 nimbus_stored_program *out, nimbus_error *error)
{
    nimbus_program_info *info = &out->info;
    nimbus_status status;
    const nimbus_section first = n ? nimbus_container_section(bytes, 0) : (nimbus_section){0};
    info->file_bytes = n_bytes;
    if (n == 0 || (first.tag != TAG_PROG && first.tag != TAG_IMAG))
        return nimbus_fail(error, NIMBUS_ERR_FORMAT, "the first section is not a program header");
    const uint64_t start = (uint64_t)(first.bytes - (const uint8_t *)bytes);
    out->of_images = first.tag == TAG_IMAG;
    if ((status = out->of_images ? nimbus_stored_image_header(out, &first, start, error)
                                 : read_header(info, &first, start, error)) ||
        (status = check_sections(bytes, n, info->n_steps, error)))
        return status;
    for (size_t i = 0; i < info->n_steps; i++) {
        const nimbus_section section = nimbus_container_section(bytes, 1 + i);
        const uint64_t at = (uint64_t)(section.bytes - (const uint8_t *)bytes);
        out->steps[i] = (nimbus_stored_step){0};
        status = out->of_images ? nimbus_stored_image_step(out, i, &section, at, error)
                                : read_step(out, i, &section, at, error);
        if (status != NIMBUS_OK)
            return status;
        add_up(info, &out->steps[i]);
    }
    if (!out->of_images)
        fill_values(out);
    const nimbus_section last = nimbus_container_section(bytes, n - 1);
    return 1 + info->n_steps < n
               ? read_metadata(out, &last, (uint64_t)(last.bytes - (const uint8_t *)bytes), error)
               : NIMBUS_OK;
}

nimbus_status nimbus_stored_read(const void *bytes, size_t n_bytes, nimbus_stored_program *out,
                                 nimbus_error *error)
{
    size_t n;
    *out = (nimbus_stored_program){0};
    nimbus_status status = nimbus_stored_count(bytes, n_bytes, &n, error);
    if (status)
        return status;
    out->steps = nimbus_alloc(n, sizeof *out->steps);
    out->values = nimbus_alloc(n, sizeof *out->values);
    if (!out->steps || !out->values)
        return nimbus_fail(error, NIMBUS_ERR_MEMORY, "out of memory for %zu steps", n);
    return nimbus_stored_fill(bytes, n_bytes, n, out, error);
}

void nimbus_stored_free(nimbus_stored_program *program)
{
    nimbus_free(program->steps);
    nimbus_free(program->values);
    *program = (nimbus_stored_program){0};
}
