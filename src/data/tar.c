/* tar.c - walk the regular files of a tar archive in memory
 *
 * Headers of 512 bytes: name 100, mode 8, uid 8, gid 8, size 12 (octal), mtime 12, checksum 8
 * (octal sum of all header bytes, itself taken as spaces), type 1, ...; contents follow, padded
 * to 512. Two zero blocks end the archive. Other entries than files are skipped. */
#include <string.h>

#include "data/data.h"

enum { BLOCK = 512, AT_SIZE = 124, AT_CHECKSUM = 148, AT_TYPE = 156 };

/* Octal digits between spaces, ended by a space, a NUL or the field's end. */
static bool read_octal(const uint8_t *field, size_t size, uint64_t *value)
{
    size_t i = 0;
    *value = 0;
    while (i < size && field[i] == ' ')
        i++;
    size_t first = i;
    while (i < size && field[i] >= '0' && field[i] <= '7')
        *value = *value * 8 + (uint64_t)(field[i++] - '0');
    return i > first && (i == size || field[i] == ' ' || field[i] == '\0');
}

static bool header_good(const uint8_t *header)
{
    uint64_t sum = 0, stored;
    for (size_t i = 0; i < BLOCK; i++)
        sum += i >= AT_CHECKSUM && i < AT_CHECKSUM + 8 ? ' ' : header[i];
    return read_octal(header + AT_CHECKSUM, 8, &stored) && stored == sum;
}

bool nimbus_tar_recognise(const void *bytes, size_t size)
{
    return size >= BLOCK && header_good(bytes);
}

static bool all_zero(const uint8_t *block)
{
    for (size_t i = 0; i < BLOCK; i++)
        if (block[i] != 0)
            return false;
    return true;
}

nimbus_status nimbus_tar_next(nimbus_reader *r, nimbus_tar_entry *entry, bool *end,
                              nimbus_error *error)
{
    *end = false;
    for (;;) {
        size_t at = r->at;
        const uint8_t *header = nimbus_read_bytes(r, BLOCK);
        if (!header)
            return nimbus_fail_at(error, NIMBUS_ERR_TRUNCATED, at,
                                  "the tar archive ends without its end mark");
        if (all_zero(header)) {
            *end = true;
            return NIMBUS_OK;
        }
        if (!header_good(header))
            return nimbus_fail_at(error, NIMBUS_ERR_CHECKSUM, at, "damaged tar header at byte %zu",
                                  at);
        uint64_t size;
        if (!read_octal(header + AT_SIZE, 12, &size))
            return nimbus_fail_at(error, NIMBUS_ERR_FORMAT, at + AT_SIZE,
                                  "the size in the tar header at byte %zu is not octal", at);
        /* Twelve octal digits stay below 2^36, so padding cannot overflow. */
        size_t padded = (size_t)((size + BLOCK - 1) / BLOCK * BLOCK);
        const uint8_t *bytes = nimbus_read_bytes(r, padded);
        if (!bytes)
            return nimbus_fail_at(error, NIMBUS_ERR_TRUNCATED, at,
                                  "the tar entry at byte %zu takes %zu bytes, %zu are left", at,
                                  padded, r->size - at - BLOCK);
        if (header[AT_TYPE] != '0' && header[AT_TYPE] != '\0')
            continue;
        memcpy(entry->name, header, 100);
        entry->name[100] = '\0';
        entry->bytes = bytes;
        entry->size = (size_t)size;
        return NIMBUS_OK;
    }
}
