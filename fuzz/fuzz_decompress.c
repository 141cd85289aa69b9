/* fuzz_decompress.c - any bytes as a gzip or xz file */
#include "data/data.h"

int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t size)
{
    nimbus_buffer buffer = {0};
    nimbus_write_bytes(&buffer, bytes, size);
    if (!buffer.failed)
        (void)!nimbus_decompress(&buffer, NULL);
    nimbus_buffer_free(&buffer);
    return 0;
}
