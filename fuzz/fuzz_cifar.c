/* fuzz_cifar.c - CIFAR-10 records; the input is stretched to their size */
#include <stdlib.h>
#include <string.h>

#include "nimbus_build.h"

int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t size);

/* Byte i of the input becomes 1,024 bytes, the last one is cut by a count of its own. */
int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t size)
{
    nimbus_data *data;
    if (size < 1 || size > 64)
        return 0;
    size_t n = size * 1024 - bytes[0];
    uint8_t *records = malloc(n);
    if (!records)
        return 0;
    for (size_t i = 0; i < n; i++)
        records[i] = bytes[i / 1024];
    if (nimbus_data_parse(records, n, "cifar", NULL, &data, NULL) == NIMBUS_OK)
        nimbus_data_free(data);
    free(records);
    return 0;
}
