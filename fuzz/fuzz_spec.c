/* fuzz_spec.c - any text as the description of a net */
#include <stdlib.h>
#include <string.h>

#include "net/spec.h"

int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t size)
{
    nimbus_spec spec;
    nimbus_error error = {0};
    char *text = malloc(size + 1);
    if (!text)
        return 0;
    if (size > 0)
        memcpy(text, bytes, size);
    text[size] = 0;
    if (nimbus_spec_parse(text, 784, 10, &spec, &error) == NIMBUS_OK) {
        bool layers = spec.kind == NIMBUS_SPEC_LAYERS;
        if (layers && (spec.n_layers < 1 || spec.units[spec.n_layers - 1] != 10))
            abort();
    } else if (error.offset > strlen(text) || error.message[0] == 0) {
        abort(); /* the message must point into the text */
    }
    free(text);
    return 0;
}
