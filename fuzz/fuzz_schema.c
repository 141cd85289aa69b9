/* fuzz_schema.c - any text as a schema, up to the first NUL; what follows is read by it */
#include <string.h>

#include "nimbus_build.h"

int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t size)
{
    static const char *const formats[] = {"csv", "idx", "npy"};
    const uint8_t *nul = size ? memchr(bytes, 0, size) : NULL;
    nimbus_data_options options = NIMBUS_DATA_OPTIONS_INIT;
    nimbus_data *data;
    if (!nul)
        return 0;
    options.schema = (const char *)bytes;
    size_t left = size - (size_t)(nul + 1 - bytes);
    for (size_t i = 0; i < 3; i++)
        if (nimbus_data_parse(nul + 1, left, formats[i], &options, &data, NULL) == NIMBUS_OK)
            nimbus_data_free(data);
    return 0;
}
