/* container.c - checksummed sections in one file; the layout stands in base.h */
#include "base/base.h"

/* For printing: not everywhere is there an <inttypes.h>. */
#define LU(x)  ((unsigned long)(x))
#define LLU(x) ((unsigned long long)(x))

enum { HEADER_BYTES = 32, ENTRY_BYTES = 24, SECTION_ALIGNMENT = 64 };

/* Where the next section starts if the bytes so far end at `end`. */
static uint64_t aligned(uint64_t end)
{
    return (end + SECTION_ALIGNMENT - 1) / SECTION_ALIGNMENT * SECTION_ALIGNMENT;
}

static void put_u32le(uint8_t *p, uint32_t v)
{
    for (int i = 0; i < 4; i++)
        p[i] = (uint8_t)(v >> (8 * i));
}

/* ---- writing ----------------------------------------------------------------------------- */

nimbus_status nimbus_container_write(nimbus_buffer *out, const char magic[8], uint16_t major,
                                     uint16_t minor, const nimbus_section *sections,
                                     size_t n_sections, nimbus_error *error)
{
    static const uint8_t zeros[SECTION_ALIGNMENT];
    if (n_sections > NIMBUS_MAX_SECTIONS)
        return nimbus_fail(error, NIMBUS_ERR_LIMIT, "%zu sections to write; the limit is %d",
                           n_sections, NIMBUS_MAX_SECTIONS);
    size_t start = out->size;
    uint64_t table_bytes = (uint64_t)n_sections * ENTRY_BYTES;
    uint64_t end = HEADER_BYTES + table_bytes;
    for (size_t i = 0; i < n_sections; i++)
        end = aligned(end) + sections[i].size;

    nimbus_write_bytes(out, magic, 8);
    nimbus_write_u16le(out, major);
    nimbus_write_u16le(out, minor);
    nimbus_write_u32le(out, (uint32_t)n_sections);
    nimbus_write_u64le(out, end);
    nimbus_write_u64le(out, 0); /* the two checksums, filled in below */
    uint64_t at = HEADER_BYTES + table_bytes;
    for (size_t i = 0; i < n_sections; i++) {
        at = aligned(at);
        nimbus_write_u32le(out, sections[i].tag);
        nimbus_write_u32le(out, nimbus_crc32c(0, sections[i].bytes, sections[i].size));
        nimbus_write_u64le(out, at);
        nimbus_write_u64le(out, sections[i].size);
        at += sections[i].size;
    }
    for (size_t i = 0; i < n_sections; i++) {
        uint64_t written = out->size - start;
        nimbus_write_bytes(out, zeros, (size_t)(aligned(written) - written));
        nimbus_write_bytes(out, sections[i].bytes, sections[i].size);
    }
    if (out->failed)
        return nimbus_fail(error, NIMBUS_ERR_MEMORY, "out of memory for a file of %llu bytes",
                           LLU(end));
    uint8_t *header = out->bytes + start;
    put_u32le(header + 24, nimbus_crc32c(0, header + HEADER_BYTES, (size_t)table_bytes));
    put_u32le(header + 28, nimbus_crc32c(0, header, 28));
    return NIMBUS_OK;
}

/* ---- reading ----------------------------------------------------------------------------- */

typedef struct header {
    uint32_t n_sections;
    uint32_t table_crc;
} header;

static nimbus_status read_header(nimbus_reader *r, const char magic[8], uint16_t major,
                                 uint16_t minor, header *out, nimbus_error *error)
{
    size_t compared = r->size < 8 ? r->size : 8;
    if (compared > 0 && memcmp(r->bytes, magic, compared) != 0)
        return nimbus_fail(error, NIMBUS_ERR_FORMAT,
                           "the file does not begin with \"%.6s\": it is of another kind", magic);
    if (r->size < HEADER_BYTES)
        return nimbus_fail_at(error, NIMBUS_ERR_TRUNCATED, r->size,
                              "the file ends after %zu bytes, inside its header of %d", r->size,
                              HEADER_BYTES);
    uint32_t crc = nimbus_crc32c(0, r->bytes, 28);
    (void)nimbus_read_bytes(r, 8);
    uint16_t file_major = nimbus_read_u16le(r);
    uint16_t file_minor = nimbus_read_u16le(r);
    out->n_sections = nimbus_read_u32le(r);
    uint64_t file_size = nimbus_read_u64le(r);
    out->table_crc = nimbus_read_u32le(r);
    uint32_t stored = nimbus_read_u32le(r);
    if (crc != stored)
        return nimbus_fail_at(error, NIMBUS_ERR_CHECKSUM, 28,
                              "the header is damaged: checksum %08lx, stored is %08lx", LU(crc),
                              LU(stored));
    if (file_major != major || file_minor > minor)
        return nimbus_fail_at(error, NIMBUS_ERR_VERSION, 8,
                              "format version %u.%u; this build reads %u.0 to %u.%u", file_major,
                              file_minor, major, major, minor);
    if (file_size > r->size)
        return nimbus_fail_at(error, NIMBUS_ERR_TRUNCATED, r->size,
                              "the file ends after %zu bytes of %llu", r->size, LLU(file_size));
    if (file_size < r->size)
        return nimbus_fail_at(error, NIMBUS_ERR_FORMAT, file_size,
                              "the file has %zu bytes, its header says %llu", r->size,
                              LLU(file_size));
    if (out->n_sections > NIMBUS_MAX_SECTIONS)
        return nimbus_fail_at(error, NIMBUS_ERR_LIMIT, 12, "%lu sections; the limit is %d",
                              LU(out->n_sections), NIMBUS_MAX_SECTIONS);
    return NIMBUS_OK;
}

/* Checks the table entry at r, whose section must start where the one before it ended (*end) and
 * its gap of zeros. */
static nimbus_status check_section(nimbus_reader *r, size_t i, uint64_t *end, nimbus_error *error)
{
    uint64_t entry_at = r->at;
    (void)nimbus_read_u32le(r); /* the tag */
    uint32_t stored = nimbus_read_u32le(r);
    uint64_t offset = nimbus_read_u64le(r);
    uint64_t length = nimbus_read_u64le(r);
    uint64_t expected = aligned(*end);
    if (offset != expected)
        return nimbus_fail_at(error, NIMBUS_ERR_FORMAT, entry_at,
                              "section %zu starts at byte %llu, expected %llu", i, LLU(offset),
                              LLU(expected));
    if (offset > r->size || length > r->size - offset)
        return nimbus_fail_at(error, NIMBUS_ERR_FORMAT, entry_at,
                              "section %zu of %llu bytes at %llu does not fit a file of %zu", i,
                              LLU(length), LLU(offset), r->size);
    for (uint64_t at = *end; at < offset; at++) {
        if (r->bytes[at] != 0)
            return nimbus_fail_at(error, NIMBUS_ERR_FORMAT, at,
                                  "byte %llu between two sections is 0x%02x, expected zero",
                                  LLU(at), r->bytes[at]);
    }
    uint32_t crc = nimbus_crc32c(0, r->bytes + offset, (size_t)length);
    if (crc != stored)
        return nimbus_fail_at(error, NIMBUS_ERR_CHECKSUM, offset,
                              "section %zu is damaged: checksum %08lx, stored is %08lx", i, LU(crc),
                              LU(stored));
    *end = offset + length;
    return NIMBUS_OK;
}

nimbus_status nimbus_container_check(const void *bytes, size_t size, const char magic[8],
                                     uint16_t major, uint16_t minor, size_t *n_sections,
                                     nimbus_error *error)
{
    nimbus_reader r = nimbus_reader_of(bytes, size);
    header h = {0};
    *n_sections = 0;
    nimbus_status status = read_header(&r, magic, major, minor, &h, error);
    if (status != NIMBUS_OK)
        return status;
    size_t table_bytes = (size_t)h.n_sections * ENTRY_BYTES;
    if (table_bytes > nimbus_reader_left(&r))
        return nimbus_fail_at(error, NIMBUS_ERR_FORMAT, 12,
                              "a table of %lu sections does not fit a file of %zu bytes",
                              LU(h.n_sections), size);
    uint32_t crc = nimbus_crc32c(0, r.bytes + HEADER_BYTES, table_bytes);
    if (crc != h.table_crc)
        return nimbus_fail_at(error, NIMBUS_ERR_CHECKSUM, HEADER_BYTES,
                              "the section table is damaged: checksum %08lx, stored is %08lx",
                              LU(crc), LU(h.table_crc));
    uint64_t end = HEADER_BYTES + table_bytes;
    for (size_t i = 0; i < h.n_sections; i++)
        if ((status = check_section(&r, i, &end, error)))
            return status;
    if (end != size)
        return nimbus_fail_at(error, NIMBUS_ERR_FORMAT, end,
                              "the last section ends at byte %llu of %zu", LLU(end), size);
    *n_sections = h.n_sections;
    return NIMBUS_OK;
}

nimbus_section nimbus_container_section(const void *bytes, size_t i)
{
    const size_t at = HEADER_BYTES + i * ENTRY_BYTES;
    nimbus_reader r = nimbus_reader_of((const uint8_t *)bytes + at, ENTRY_BYTES);
    nimbus_section section = {.tag = nimbus_read_u32le(&r)};
    (void)nimbus_read_u32le(&r); /* the checksum */
    section.bytes = (const uint8_t *)bytes + nimbus_read_u64le(&r);
    section.size = (size_t)nimbus_read_u64le(&r);
    return section;
}

nimbus_status nimbus_container_read(const void *bytes, size_t size, const char magic[8],
                                    uint16_t major, uint16_t minor, nimbus_section **sections,
                                    size_t *n_sections, nimbus_error *error)
{
    size_t n;
    *sections = NULL;
    *n_sections = 0;
    nimbus_status status = nimbus_container_check(bytes, size, magic, major, minor, &n, error);
    if (status != NIMBUS_OK)
        return status;
    if (!(*sections = nimbus_alloc(n, sizeof **sections)))
        return nimbus_fail(error, NIMBUS_ERR_MEMORY, "out of memory for %zu sections", n);
    for (size_t i = 0; i < n; i++)
        (*sections)[i] = nimbus_container_section(bytes, i);
    *n_sections = n;
    return NIMBUS_OK;
}
