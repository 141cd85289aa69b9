/* fuzz_conversion.c - the checkpoint of a conversion, on any bytes
 *
 * The bytes are tried as a file, and as the contents of a file's three sections, which checksums
 * would otherwise hide from the fuzzer: 20 bytes of INFO, 16 of META, the rest is the net, whose
 * own checksum is put right as well. */
#include <stdlib.h>
#include <string.h>

#include "convert/internal.h"
#include "net/fingerprint.h"
#include "net_seal.h"

int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t size);

enum { INFO_BYTES = 20, META_BYTES = 16, HEAD = INFO_BYTES + META_BYTES };

/* What is accepted says how far it is, and has a net of so many layers. */
static void try_file(const uint8_t *bytes, size_t size)
{
    conversion c = {.layers_done = SIZE_MAX};
    nimbus_error error = {0};
    if (nimbus_conversion_read(&c, bytes, size, &error) == NIMBUS_OK) {
        const nimbus_buffer none = {0};
        if (nimbus_fingerprint_compare((const char *)c.fingerprint.bytes, c.fingerprint.size, &none,
                                       &error) == NIMBUS_OK &&
            c.fingerprint.size > 0)
            abort();
        if (!c.net || c.layers_done > c.net->n_layers || !(c.seconds_before >= 0))
            abort();
    } else if (c.net || c.layers_done != SIZE_MAX || error.message[0] == 0) {
        abort();
    }
    nimbus_net_free(c.net);
    nimbus_buffer_free(&c.fingerprint);
}

int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t size)
{
    nimbus_buffer file = {0};
    nimbus_error error;
    try_file(bytes, size);
    if (size < HEAD)
        return 0;
    uint8_t *copy = malloc(size);
    if (!copy)
        return 0;
    memcpy(copy, bytes, size);
    net_seal(copy + HEAD, size - HEAD);
    const nimbus_section sections[] = {
        {NIMBUS_TAG('M', 'E', 'T', 'A'), copy + INFO_BYTES, META_BYTES},
        {NIMBUS_TAG('I', 'N', 'F', 'O'), copy, INFO_BYTES},
        {NIMBUS_TAG('N', 'E', 'T', ' '), copy + HEAD, size - HEAD}};
    if (nimbus_container_write(&file, "NIMBUSCV", 2, 0, sections, 3, &error) == NIMBUS_OK)
        try_file(file.bytes, file.size);
    nimbus_buffer_free(&file);
    free(copy);
    return 0;
}
