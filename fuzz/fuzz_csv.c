/* fuzz_csv.c - any bytes as a table, whose schema must then read the same table alike */
#include <stdlib.h>
#include <string.h>

#include "nimbus_build.h"

int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t size);

static void read_again(const uint8_t *bytes, size_t size, const nimbus_data *first)
{
    nimbus_data_options options = NIMBUS_DATA_OPTIONS_INIT;
    nimbus_data *again;
    options.schema = nimbus_data_schema(first);
    /* Headings that repeat a value may be taken for a row, so a refusal is allowed. */
    if (nimbus_data_parse(bytes, size, "csv", &options, &again, NULL) != NIMBUS_OK)
        return;
    if (strcmp(nimbus_data_schema(again), options.schema) != 0 ||
        nimbus_data_get_info(again)->n_features != nimbus_data_get_info(first)->n_features)
        abort();
    nimbus_data_free(again);
}

/* The first byte chooses the label option. */
int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t size)
{
    static const char *const labels[] = {NULL, "none", "1", "-2", "label"};
    nimbus_data_options options = NIMBUS_DATA_OPTIONS_INIT;
    nimbus_data *data;
    if (size < 1)
        return 0;
    options.label = labels[bytes[0] % 5];
    options.regression = bytes[0] / 5 % 2;
    if (nimbus_data_parse(bytes + 1, size - 1, "csv", &options, &data, NULL) == NIMBUS_OK) {
        read_again(bytes + 1, size - 1, data);
        nimbus_data_free(data);
    }
    return 0;
}
