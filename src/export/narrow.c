/* narrow.c - fewer bits in table entries
 *
 * Entries of b bits are multiples of 1 << (8 - b), so a program with narrow tables is a program
 * still, and the runtime can tell its accuracy. */
#include <string.h>

#include "export/export.h"

static size_t n_entries(const nimbus_step_info *info)
{
    return (info->n_codebooks << info->n_levels) * info->n_outputs;
}

static int entry_at(const nimbus_stored_step *step, size_t i)
{
    const size_t M = step->info.n_outputs;
    return nimbus_table_entry(&step->info, step->arrays.tables, i / M, i % M);
}

/* To the nearest multiple of 1 << drop that fits 8 bits with sign. */
static int rounded(int entry, unsigned drop)
{
    const int unit = 1 << drop, most = 127 / unit;
    int q = (entry + 128 + unit / 2) / unit - 128 / unit;
    return (q > most ? most : q) * unit;
}

nimbus_packing nimbus_packing_of(const nimbus_stored_step *step, unsigned bits)
{
    const size_t n = n_entries(&step->info);
    int all = 0, least = 0, most = 0;
    for (size_t i = 0; i < n; i++) {
        const int entry = entry_at(step, i);
        all |= entry;
        least = entry < least ? entry : least;
        most = entry > most ? entry : most;
    }
    nimbus_packing p = {4, 0};
    while (p.drop < 4 && !(all >> p.drop & 1))
        p.drop++;
    while (p.bits < 8 &&
           (least < -(1 << (p.bits + p.drop - 1)) || most >= 1 << (p.bits + p.drop - 1)))
        p.bits++;
    /* Between 4 and 8 bits saves flash, not time. */
    if (p.bits > 4 && bits == 8)
        p = (nimbus_packing){8, 0};
    return p;
}

double nimbus_narrow_error(const nimbus_stored_step *step, unsigned bits)
{
    const size_t n = n_entries(&step->info);
    double total = 0;
    for (size_t i = 0; i < n; i++) {
        const int entry = entry_at(step, i), error = rounded(entry, 8 - bits) - entry;
        total += error * error;
    }
    return total;
}

double nimbus_table_energy(const nimbus_stored_step *step)
{
    double total = 0;
    for (size_t i = 0; i < n_entries(&step->info); i++)
        total += entry_at(step, i) * entry_at(step, i);
    return total;
}

nimbus_status nimbus_narrow(const nimbus_stored_program *program, const void *bytes,
                            const unsigned *bits, nimbus_buffer *out, nimbus_error *error)
{
    nimbus_section *sections = NULL;
    nimbus_buffer copy = {0};
    size_t n = 0;
    nimbus_write_bytes(&copy, bytes, program->info.file_bytes);
    nimbus_status status =
        copy.failed ? nimbus_fail(error, NIMBUS_ERR_MEMORY, "out of memory for narrow tables")
                    : nimbus_container_read(copy.bytes, copy.size, NIMBUS_PROGRAM_MAGIC,
                                            NIMBUS_PROGRAM_MAJOR, NIMBUS_PROGRAM_MINOR, &sections,
                                            &n, error);
    for (size_t i = 0; i < program->info.n_steps && !status; i++) {
        const nimbus_stored_step *step = &program->steps[i];
        if (!step->arrays.tables || step->info.table_bits == 4 || bits[i] == 8)
            continue;
        uint8_t *tables = copy.bytes + (step->arrays.tables - (const uint8_t *)bytes);
        for (size_t e = 0; e < n_entries(&step->info); e++)
            tables[e] = (uint8_t)rounded((int8_t)tables[e], 8 - bits[i]);
    }
    if (!status) {
        const uint8_t *p = bytes;
        status = nimbus_container_write(out, NIMBUS_PROGRAM_MAGIC, (uint16_t)(p[8] | p[9] << 8),
                                        (uint16_t)(p[10] | p[11] << 8), sections, n, error);
    }
    nimbus_free(sections);
    nimbus_buffer_free(&copy);
    return status;
}
