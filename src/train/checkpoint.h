/* checkpoint.h - the file from which an interrupted training goes on
 *
 * A container (base.h) with the magic "NIMBUSCK", version 1.0, and these sections in this order:
 *
 *     META   the fingerprint: text, a line "name value" for all that shapes the result
 *     STAT   the state: 11 little-endian words, see nimbus_train_state
 *     NET    the net, as in a .net file
 *     OPTM   the optimiser's moments: their number, then float32 values
 */
#ifndef NIMBUS_CHECKPOINT_H
#define NIMBUS_CHECKPOINT_H

#include "train/train.h"

/* Where a training stands, after a completed step. Each field is a 64-bit word of the file. */
typedef struct nimbus_train_state {
    uint64_t epoch, cursor, step; /* finished epochs, steps of the epoch begun, steps in all */
    uint64_t n_seen, n_correct;   /* rows of the epoch begun */
    uint64_t net_crc;             /* of the net that training began with, as .net bytes */
    double loss_sum;              /* over the rows of the epoch begun */
    double loss, accuracy;        /* of the last finished epoch */
    double valid_accuracy;
    double seconds;
} nimbus_train_state;

/* A parsed checkpoint; points into the bytes it was parsed from. */
typedef struct nimbus_checkpoint {
    const char *fingerprint; /* not NUL-terminated */
    size_t fingerprint_size;
    nimbus_train_state state;
    const uint8_t *net, *moments;
    size_t net_size, moments_size;
} nimbus_checkpoint;

/* Errors: FORMAT, TRUNCATED, CHECKSUM, VERSION, LIMIT, MEMORY. */
NIMBUS_MUST_CHECK nimbus_status nimbus_checkpoint_parse(const void *bytes, size_t size,
                                                        nimbus_checkpoint *out,
                                                        nimbus_error *error);

/* Appends a whole checkpoint to out. Error: MEMORY. */
NIMBUS_MUST_CHECK nimbus_status nimbus_checkpoint_write(const nimbus_checkpoint *checkpoint,
                                                        nimbus_buffer *out, nimbus_error *error);

/* Copies all values of a checkpoint's net into net, layer by layer. Error: MISMATCH, and those of
 * reading a net. */
NIMBUS_MUST_CHECK nimbus_status nimbus_checkpoint_restore(const nimbus_checkpoint *checkpoint,
                                                          nimbus_net *net, nimbus_error *error);

#endif
