/* fuzz_tar.c - any bytes as a tar archive; header checksums are mended to get past them */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "data/data.h"

int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t size);

static void mend(uint8_t *header)
{
    unsigned sum = 8 * ' ';
    for (size_t i = 0; i < 512; i++)
        if (i < 148 || i >= 156)
            sum += header[i];
    snprintf((char *)header + 148, 8, "%06o", sum);
}

int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t size)
{
    nimbus_tar_entry entry;
    bool end = false;
    uint8_t *copy = malloc(size ? size : 1);
    if (!copy)
        return 0;
    if (size)
        memcpy(copy, bytes, size);
    /* Blocks whose checksum field begins with '0' are meant as headers. */
    for (size_t at = 0; at + 512 <= size; at += 512)
        if (copy[at + 148] == '0')
            mend(copy + at);
    nimbus_reader r = nimbus_reader_of(copy, size);
    while (!end && nimbus_tar_next(&r, &entry, &end, NULL) == NIMBUS_OK)
        if (!end && entry.size > 0 && entry.bytes[entry.size - 1] + strlen(entry.name) > 400)
            abort();
    nimbus_buffer out = {0};
    if (nimbus_cifar_untar(copy, size, size % 2, &out, NULL) == NIMBUS_OK && out.size % 3073)
        abort();
    nimbus_buffer_free(&out);
    free(copy);
    return 0;
}
