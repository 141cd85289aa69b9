/* spec.h - the few words that describe a net to build, "mlp:512,512;bn", "lut:392x16,256x10" or
 * "resnet8" */
#ifndef NIMBUS_SPEC_H
#define NIMBUS_SPEC_H

#include "net/net.h"

#define NIMBUS_SPEC_MAX_LAYERS   64
#define NIMBUS_SPEC_MAX_UNITS    65536
#define NIMBUS_SPEC_MAX_CHANNELS 1024

typedef enum nimbus_spec_kind {
    NIMBUS_SPEC_LAYERS = 0, /* linear layers as below */
    NIMBUS_SPEC_RESNET8,
    NIMBUS_SPEC_RESNET9
} nimbus_spec_kind;

typedef struct nimbus_spec {
    nimbus_spec_kind kind;
    size_t width; /* of the residual nets: channels of their first convolution */
    /* the rest is of LAYERS */
    bool lookup;                          /* lookup layers from the start, not matrix products */
    size_t n_layers;                      /* linear layers, the last one included */
    size_t units[NIMBUS_SPEC_MAX_LAYERS]; /* M of each */
    size_t trees[NIMBUS_SPEC_MAX_LAYERS]; /* lookup: C of each */
    const nimbus_layer_type *activation;
    bool batch_norm;
    bool residual; /* a shortcut around every two hidden layers, from the second on */
    double dropout;
    size_t levels, window, span; /* lookup; span 0: the first layer reads all pixels */
} nimbus_spec;

/* Parses text for data of n_inputs columns and n_outputs classes or targets; grammar:
 *
 *     spec   = "mlp:" units {"," units} {";" option}           hidden layers
 *            | width "-" {units "-"} classes {";" option}      all widths
 *            | "lut:" trees "x" units {"," trees "x" units} {";" setting}
 *            | ("resnet8" | "resnet9") {";width=" channels}    for images
 *     option = "bn" | "residual" | "relu" | "gelu" | "tanh" | "sigmoid" | "dropout=" fraction
 *     setting = "levels=" 1..8 | "window=" 1..255 | "span=" pixels
 *
 * Errors: ARGUMENT (wrong text) or MISMATCH (does not fit the data); the message points at the
 * character, counted from 1, and error.offset holds its index. */
NIMBUS_MUST_CHECK nimbus_status nimbus_spec_parse(const char *text, size_t n_inputs,
                                                  size_t n_outputs, nimbus_spec *out,
                                                  nimbus_error *error);

/* Chooses columns and starts thresholds and tables of the lookup layers; net is built from spec,
 * its linear layers bare. */
NIMBUS_MUST_CHECK nimbus_status nimbus_lut_start(nimbus_net *net, const nimbus_spec *spec,
                                                 const nimbus_data *data, uint64_t seed,
                                                 nimbus_error *error);

/* Appends the layers of a residual net to one that has an input layer. Errors: MISMATCH (no image,
 * or too small a one), MEMORY. */
NIMBUS_MUST_CHECK nimbus_status nimbus_resnet_add(nimbus_net *net, const nimbus_spec *spec,
                                                  size_t n_outputs, uint64_t seed,
                                                  nimbus_error *error);

#endif
