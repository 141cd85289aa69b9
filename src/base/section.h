/* section.h - checked reading of a section's fields and arrays (section.c)
 *
 * What both kinds of programs share. Every function that returns a status has filled the error
 * with what was found, what was expected, and where. */
#ifndef NIMBUS_SECTION_H
#define NIMBUS_SECTION_H

#include "base/stored.h"

/* Where reading stands in one section; errors are reported as offsets in the whole file. */
typedef struct nimbus_section_reader {
    nimbus_reader r;
    uint64_t start;   /* of the section in the file */
    const char *name; /* for messages: "program header", "step 3" */
    nimbus_error *error;
} nimbus_section_reader;

/* Fails at the byte `back` bytes before the next one. */
#define NIMBUS_FAIL_BACK(s, status, back, ...)                                                     \
    nimbus_fail_at((s)->error, status, (s)->start + (s)->r.at - (back), __VA_ARGS__)

#define NIMBUS_SECTION_NAME_BYTES 32

/* A reader of step i, whose name is written to `name`. */
nimbus_section_reader nimbus_section_of_step(const nimbus_section *section, uint64_t start,
                                             size_t i, char name[NIMBUS_SECTION_NAME_BYTES],
                                             nimbus_error *error);

/* The next u32, refused outside low..high; or above NIMBUS_MAX_PROGRAM_WIDTH (LIMIT). */
nimbus_status nimbus_section_u32(nimbus_section_reader *s, const char *field, uint32_t low,
                                 uint32_t high, uint32_t *value);
nimbus_status nimbus_section_width(nimbus_section_reader *s, const char *field, uint32_t low,
                                   uint32_t *value);

/* The next n bytes, which must be there, must be zeros. */
nimbus_status nimbus_section_zero(nimbus_section_reader *s, size_t n, const char *what);
nimbus_status nimbus_section_name(nimbus_section_reader *s, char name[NIMBUS_STEP_NAME_BYTES]);

/* Finds the next array, count * size bytes at a multiple of 64. */
nimbus_status nimbus_section_take(nimbus_section_reader *s, const char *name, uint64_t count,
                                  uint64_t size, const uint8_t **out);
/* n floats, which must be finite, or if `infinite` only not NaN. */
nimbus_status nimbus_section_floats(nimbus_section_reader *s, const char *name, uint64_t n,
                                    bool infinite, const uint8_t **out);
nimbus_status nimbus_section_end(const nimbus_section_reader *s); /* nothing is left */

bool nimbus_is_finite(uint32_t bits);

/* What both kinds of program headers end with, from the input type on. */
nimbus_status nimbus_section_program(nimbus_section_reader *s, nimbus_program_info *info);

/* What the arrays of a lookup or exact step depend on. */
typedef struct nimbus_step_header {
    uint32_t kind, D, M, C, H, flags, input, output, shift;
} nimbus_step_header;

nimbus_status nimbus_section_step_arrays(nimbus_section_reader *s, const nimbus_step_header *h,
                                         nimbus_step_arrays *a);

/* Fills what both kinds of programs have in a step, `positions` outputs of each channel. */
void nimbus_section_fill_step(const nimbus_step_header *h, size_t bytes, size_t positions,
                              nimbus_stored_step *step);

/* Whether no sum of a filled step can leave 32 bits. */
nimbus_status nimbus_section_check_sums(nimbus_section_reader *s, const nimbus_stored_step *step);

/* ---- stored_image.c ----------------------------------------------------------------------- */

NIMBUS_MUST_CHECK nimbus_status nimbus_stored_image_header(nimbus_stored_program *program,
                                                           const nimbus_section *section,
                                                           uint64_t start, nimbus_error *error);
/* After the header, for i = 0, 1, ... Sets the value that the step makes. */
NIMBUS_MUST_CHECK nimbus_status nimbus_stored_image_step(nimbus_stored_program *program, size_t i,
                                                         const nimbus_section *section,
                                                         uint64_t start, nimbus_error *error);

#endif
