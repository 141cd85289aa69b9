/* fuzz_checkpoint.c - the checkpoint reader and the net inside it, on any bytes
 *
 * The bytes are tried as a file, and as the contents of a file's four sections, which checksums
 * would otherwise hide from the fuzzer: the first eight bytes cut the rest. */
#include "net/fingerprint.h"
#include "train/checkpoint.h"

int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t size);

/* What is accepted can be compared, restored from, and written again to the same size. */
static void try_file(const uint8_t *bytes, size_t size)
{
    nimbus_checkpoint checkpoint;
    nimbus_error error;
    nimbus_buffer fingerprint = {0}, again = {0};
    nimbus_net *net = NULL;
    if (nimbus_checkpoint_parse(bytes, size, &checkpoint, &error) != NIMBUS_OK)
        return;
    nimbus_write_bytes(&fingerprint, "epochs 3\nbatch 16\n", 18);
    if (nimbus_fingerprint_compare(checkpoint.fingerprint, checkpoint.fingerprint_size,
                                   &fingerprint, &error) == NIMBUS_OK &&
        checkpoint.fingerprint_size != fingerprint.size)
        __builtin_trap();
    if (nimbus_net_read(checkpoint.net, checkpoint.net_size, &net, &error) == NIMBUS_OK &&
        nimbus_checkpoint_restore(&checkpoint, net, &error) != NIMBUS_OK)
        __builtin_trap();
    if (nimbus_checkpoint_write(&checkpoint, &again, &error) != NIMBUS_OK || again.size != size)
        __builtin_trap();
    nimbus_net_free(net);
    nimbus_buffer_free(&fingerprint);
    nimbus_buffer_free(&again);
}

int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t size)
{
    static const uint32_t tags[] = {
        NIMBUS_TAG('M', 'E', 'T', 'A'),
        NIMBUS_TAG('S', 'T', 'A', 'T'),
        NIMBUS_TAG('N', 'E', 'T', ' '),
        NIMBUS_TAG('O', 'P', 'T', 'M'),
    };
    nimbus_section sections[4];
    nimbus_buffer file = {0};
    nimbus_error error;
    try_file(bytes, size);
    nimbus_reader reader = nimbus_reader_of(bytes, size);
    for (size_t i = 0; i < 4; i++) {
        size_t n = nimbus_read_u16le(&reader);
        sections[i] = (nimbus_section){.tag = tags[i], .size = n};
    }
    for (size_t i = 0; i < 4; i++) {
        size_t left = nimbus_reader_left(&reader);
        if (sections[i].size > left)
            sections[i].size = left;
        sections[i].bytes = nimbus_read_bytes(&reader, sections[i].size);
    }
    if (!reader.failed &&
        nimbus_container_write(&file, "NIMBUSCK", 1, 0, sections, 4, &error) == NIMBUS_OK)
        try_file(file.bytes, file.size);
    nimbus_buffer_free(&file);
    return 0;
}
