/* netfile.h - the .net file: safetensors, with the graph in the metadata
 *
 *     u64 LE   length of the header
 *     header   JSON, padded with spaces to a multiple of 8:
 *                {"__metadata__":{"nimbus_format":"1.1","nimbus_crc32c":"xxxxxxxx",
 *                 "nimbus_bytes":"dddddddddddddddd","nimbus_graph":"{...}","nimbus_metadata":"..."},
 *                 "linear1.weight":{"dtype":"F32","shape":[M,D],"data_offsets":[from,to]},...}
 *     data     float32 LE, tensor after tensor without gaps
 *
 * The header starts with exactly these bytes, so that length, version and checksum are known before
 * any JSON is parsed. nimbus_bytes is the size of the file; nimbus_crc32c is the CRC-32C of all of
 * it with the eight digits of the checksum itself taken as '0': no truncation and no single-bit
 * flip goes unseen. nimbus_graph is JSON in a string, as safetensors demands:
 *
 *     {"loss":"cross_entropy","input":"u8","layers":[{"name":"linear1","type":"linear",
 *      "inputs":[0],"units":512,"number":0,"bare":false,"state":"soft","lookup":{"codebooks":98,
 *      "levels":4,"tree":"shared","estimator":"flip","bits":8,"temperature":0.5}},...]}
 *
 * The first layer has "shape":[channels,height,width]. Version 1.1 added the attributes of image
 * layers, which stand there where they are not zero: "number2", "groups", "count_padding", lists
 * of two "kernel", "stride", "dilation", "before", "after", "pad_mode" ("constant", "reflect",
 * "edge"), "new_shape":[channels,height,width], "before_relu" (1.2: trees read what goes into the
 * ReLU in "inputs") and "order":[0,1,2]. Since 1.3 a "tree" may be "centroids", with
 * "columns" of each. */
#ifndef NIMBUS_NETFILE_H
#define NIMBUS_NETFILE_H

#include "net/internal.h"
#include "net/lookup.h"

#define NETFILE_FORMAT_MAJOR 1
#define NETFILE_FORMAT_MINOR 3
#define NETFILE_START        "{\"__metadata__\":{\"nimbus_format\":\""
#define NETFILE_MIDDLE       "\",\"nimbus_crc32c\":\""
#define NETFILE_BYTES_KEY    "\",\"nimbus_bytes\":\""
#define NETFILE_NO_CRC       "00000000"
#define NETFILE_CRC_DIGITS   8
#define NETFILE_BYTES_DIGITS 16
#define NETFILE_MAX_HEADER   ((size_t)8 << 20)
#define NETFILE_MAX_DEPTH    32
#define NETFILE_MAX_VALUES   131072 /* of one JSON text; a value costs jansson some 100 bytes */
#define NETFILE_MAX_TENSORS  8192   /* take fewer values than that */
#define NETFILE_MAX_NAME     128

#define NETFILE_LOSSES     2
#define NETFILE_DTYPES     3
#define NETFILE_TREES      4
#define NETFILE_ESTIMATORS 3
#define NETFILE_STATES     5 /* all but integer */

/* Names in the graph, by the value of the enum; "" is not a value. Defined in netfile_write.c;
 * states are named by nimbus_layer_state_name. */
extern const char *const nimbus_netfile_loss_names[NETFILE_LOSSES];
extern const char *const nimbus_netfile_dtype_names[NETFILE_DTYPES];
extern const char *const nimbus_netfile_tree_names[NETFILE_TREES];
extern const char *const nimbus_netfile_estimator_names[NETFILE_ESTIMATORS];
extern const char *const nimbus_netfile_state_names[NETFILE_STATES];

/* ---- netfile_attributes.c ---------------------------------------------------------------- */

/* Adds a layer's attributes to its object; false if memory ran out. */
bool nimbus_netfile_put_attributes(const nimbus_layer *layer, json_t *o);

/* Reads them back; messages begin with `where`. Errors: FORMAT, UNSUPPORTED (an unknown one). */
NIMBUS_MUST_CHECK nimbus_status nimbus_netfile_get_attributes(const json_t *o, const char *where,
                                                              nimbus_layer *layer,
                                                              nimbus_error *error);

/* The value of a key that must hold an integer 0..limit. */
NIMBUS_MUST_CHECK nimbus_status nimbus_netfile_get_count(const json_t *o, const char *key,
                                                         size_t limit, const char *where,
                                                         size_t *out, nimbus_error *error);
/* The position of a key's string among the names; unknown ones are UNSUPPORTED. */
NIMBUS_MUST_CHECK nimbus_status nimbus_netfile_get_choice(const json_t *o, const char *key,
                                                          const char *const *names, size_t n,
                                                          const char *where, unsigned *out,
                                                          nimbus_error *error);

#endif
