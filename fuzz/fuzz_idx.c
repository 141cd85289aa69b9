/* fuzz_idx.c - any bytes as an IDX file */
#include "nimbus_build.h"

int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t size)
{
    nimbus_data *data;
    if (nimbus_data_parse(bytes, size, "idx", NULL, &data, NULL) == NIMBUS_OK)
        nimbus_data_free(data);
    return 0;
}
