/* fingerprint.h - what a training or a conversion is of, for its checkpoint
 *
 * A text with one line "name value" for everything that shapes the result. Runs with equal
 * fingerprints, begun with the same net, end with the same bits; where they differ, the first
 * differing line says what to tell the user. */
#ifndef NIMBUS_FINGERPRINT_H
#define NIMBUS_FINGERPRINT_H

#include "base/base.h"
#include "nimbus_build.h"

/* Most of code_noise, which conversions check before they fit anything. */
#define NIMBUS_MOST_CODE_NOISE 0.9

/* Every field of type double in nimbus_train_options: its default for 0 (0 where a rule decides),
 * and the least and most it may be. */
#define NIMBUS_TRAIN_NUMBERS(X)                                                                    \
    X(rate, 0, 0, 1e6)                                                                             \
    X(table_rate, 0, 0, 1e6)                                                                       \
    X(warmup_steps, 0, 0, 1e15)                                                                    \
    X(beta1, 0.9, 0, 0.999999999)                                                                  \
    X(beta2, 0.999, 0, 0.999999999)                                                                \
    X(momentum, 0.9, 0, 0.999999999)                                                               \
    X(weight_decay, 0, 0, 1e6)                                                                     \
    X(label_smoothing, 0, 0, 1)                                                                    \
    X(mixup, 0, 0, 1e6)                                                                            \
    X(noise, 0, 0, 1e6)                                                                            \
    X(distill, 0, 0, 1)                                                                            \
    X(temperature, 2, 0, 1e6)                                                                      \
    X(hint, 0, 0, 1e6)                                                                             \
    X(tau, 0.5, 0, 1e6)                                                                            \
    X(tau_end, 0, 0, 1e6)                                                                          \
    X(margin_noise, 0, 0, 1e6)                                                                     \
    X(code_noise, 0, 0, NIMBUS_MOST_CODE_NOISE)                                                    \
    X(checkpoint_seconds, 30, 0, 1e9) /* the last one: it does not shape the result */

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
