/* fuzz_container.c - any bytes as a container: refused, or sections that lie inside and re-encode
 * to the same bytes */
#include <stdlib.h>
#include <string.h>

#include "base/base.h"

#define MAGIC "FUZZBOX\n"
enum { MAJOR = 1, MINOR = 0 };

int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t size);

/* A reader that trusts checksums would never get past them here: makes the sums of the header,
 * the table and the sections right, wherever those can be found. */
static void repair(uint8_t *bytes, size_t size)
{
    nimbus_reader r = nimbus_reader_of(bytes, size);
    (void)nimbus_read_bytes(&r, 12);
    uint32_t n_sections = nimbus_read_u32le(&r);
    (void)nimbus_read_bytes(&r, 16);
    nimbus_buffer sums = {0};
    for (uint32_t i = 0; i < n_sections && nimbus_reader_left(&r) >= 24; i++) {
        uint8_t *entry = bytes + r.at;
        (void)nimbus_read_bytes(&r, 8);
        uint64_t offset = nimbus_read_u64le(&r), length = nimbus_read_u64le(&r);
        if (offset > size || length > size - offset)
            continue;
        nimbus_write_u32le(&sums, nimbus_crc32c(0, bytes + offset, (size_t)length));
        if (sums.failed)
            break;
        memcpy(entry + 4, sums.bytes, 4);
        sums.size = 0;
    }
    if (!r.failed) {
        nimbus_write_u32le(&sums, nimbus_crc32c(0, bytes + 32, r.at - 32));
        if (!sums.failed)
            memcpy(bytes + 24, sums.bytes, 4);
        sums.size = 0;
        nimbus_write_u32le(&sums, nimbus_crc32c(0, bytes, 28));
        if (!sums.failed)
            memcpy(bytes + 28, sums.bytes, 4);
    }
    nimbus_buffer_free(&sums);
}

static void check(const uint8_t *bytes, size_t size)
{
    nimbus_section *sections = NULL;
    size_t n_sections = 0;
    nimbus_error error;
    nimbus_buffer again = {0};
    nimbus_status status =
        nimbus_container_read(bytes, size, MAGIC, MAJOR, MINOR, &sections, &n_sections, &error);
    if (status == NIMBUS_OK) {
        if (nimbus_container_write(&again, MAGIC, MAJOR, MINOR, sections, n_sections, &error) !=
                NIMBUS_OK ||
            again.size != size || memcmp(again.bytes, bytes, size) != 0)
            abort();
    } else if (sections || n_sections || error.status != status) {
        abort();
    }
    nimbus_buffer_free(&again);
    nimbus_free(sections);
}

int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t size)
{
    check(bytes, size);
    uint8_t *copy = nimbus_alloc(size, 1);
    if (copy && size > 0) {
        memcpy(copy, bytes, size);
        repair(copy, size);
        check(copy, size);
    }
    nimbus_free(copy);
    return 0;
}
