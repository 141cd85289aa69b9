/* fingerprint.h - what a training or a conversion is of, for its checkpoint
 *
 * A text with one line "name value" for everything that shapes the result. Runs with equal
 * fingerprints, begun with the same net, end with the same bits; where they differ, the first
 * differing line says what to tell the user. */
#ifndef NIMBUS_FINGERPRINT_H
#define NIMBUS_FINGERPRINT_H

#include "base/base.h"
#include "nimbus_build.h"

/* Append a line, of which at most 255 bytes are kept; the checksum of n values of `size` bytes (0
 * if NULL), of all of a data set, and of a net as .net bytes (NULL: 0); and the options of a
 * training, teacher and its outputs apart. Out of memory, text->failed is set. Error: MEMORY. */
void nimbus_fingerprint_line(nimbus_buffer *text, const char *format, ...)
    __attribute__((format(printf, 2, 3)));
void nimbus_fingerprint_values(nimbus_buffer *text, const char *name, const void *values, size_t n,
                               size_t size);
void nimbus_fingerprint_data(nimbus_buffer *text, const nimbus_data *data);
void nimbus_fingerprint_training(nimbus_buffer *text, const nimbus_train_options *options);
NIMBUS_MUST_CHECK nimbus_status nimbus_fingerprint_net(nimbus_buffer *text, const char *name,
                                                       const nimbus_net *net, nimbus_error *error);

/* NIMBUS_OK if the fingerprint of a checkpoint, text[size] without NUL, is equal to that of what is
 * asked for now, else an error that shows the first line they differ in. Error: MISMATCH. */
NIMBUS_MUST_CHECK nimbus_status nimbus_fingerprint_compare(const char *text, size_t size,
                                                           const nimbus_buffer *now,
                                                           nimbus_error *error);

#endif
