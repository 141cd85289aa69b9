/* train.h - the parts of training: settings, rate schedule, optimiser, batches with augmentation.
 *
 * Everything random is a function of (seed, step or epoch, row), every sum has a fixed order, and
 * work is cut into pieces that do not depend on the number of threads: the same seed gives the
 * same bits for any number of threads and across interruptions. */
#ifndef NIMBUS_TRAIN_H
#define NIMBUS_TRAIN_H

#include "base/base.h"
#include "net/net.h"
#include "nimbus_build.h"

/* ---- settings.c: options with their defaults filled in ----------------------------------- */

/* Copies options (NULL: all defaults), fills in the defaults and checks every field, alone and
 * against net and data. Errors: ARGUMENT, MISMATCH, LIMIT. */
NIMBUS_MUST_CHECK nimbus_status nimbus_settings_resolve(const nimbus_train_options *options,
                                                        const nimbus_net *net,
                                                        const nimbus_data *data,
                                                        nimbus_train_options *out,
                                                        nimbus_error *error);

/* Fits data rows to the net: widths, classes or targets. what: "data" or "validation data". */
NIMBUS_MUST_CHECK nimbus_status nimbus_settings_fit(const nimbus_net *net, size_t first_layer,
                                                    const nimbus_data *data, bool labels_needed,
                                                    const char *what, nimbus_error *error);

/* Refuses NaN and infinity in features and targets, or in values [n_rows][width] (may be NULL)
 * that are called `what`. Error: VALUE with row and column, from 1. */
NIMBUS_MUST_CHECK nimbus_status nimbus_settings_check_array(const float *values, size_t n_rows,
                                                            size_t width, const char *what,
                                                            nimbus_error *error);
NIMBUS_MUST_CHECK nimbus_status nimbus_settings_check_values(const nimbus_data *data,
                                                             nimbus_error *error);

/* Appends the whole fingerprint of a training: resolved options, layers, checksums of data and
 * teacher. Error: MEMORY. */
NIMBUS_MUST_CHECK nimbus_status nimbus_settings_fingerprint(const nimbus_train_options *options,
                                                            const nimbus_net *net,
                                                            const nimbus_data *data,
                                                            nimbus_buffer *text,
                                                            nimbus_error *error);

/* Steps in an epoch of n_rows. The last batch may be short; it is left out only if it would be a
 * single row, of which batch normalisation can make nothing. */
size_t nimbus_settings_steps(size_t n_rows, size_t batch);

/* ---- schedule.c --------------------------------------------------------------------------- */

/* Learning rate of step 0 <= step < total. */
double nimbus_schedule_rate(nimbus_schedule schedule, double peak, double warmup_steps, size_t step,
                            size_t total);

/* Value annealed geometrically from `begin` at step 0 to `end` at the last step (both > 0), and
 * linearly from `begin` to 0. */
double nimbus_schedule_geometric(double begin, double end, size_t step, size_t total);
double nimbus_schedule_to_zero(double begin, size_t step, size_t total);

/* ---- optimiser.c -------------------------------------------------------------------------- */

typedef struct nimbus_moments nimbus_moments; /* the optimiser with its state */

/* For the trained params of layers first_layer.., whose gradients must be allocated. */
NIMBUS_MUST_CHECK nimbus_status nimbus_moments_new(nimbus_net *net,
                                                   const nimbus_train_options *resolved,
                                                   nimbus_moments **out, nimbus_error *error);
void nimbus_moments_free(nimbus_moments *moments);

/* One update from the gradients, which are set to zero for the next step. step counts from 0.
 * Returns false if a value became NaN or infinite. */
NIMBUS_MUST_CHECK bool nimbus_moments_step(nimbus_moments *moments, double rate, size_t step);

/* State to and from bytes, for checkpoints. Error of read: FORMAT. */
void nimbus_moments_write(const nimbus_moments *moments, nimbus_buffer *out);
NIMBUS_MUST_CHECK nimbus_status nimbus_moments_read(nimbus_moments *moments, const uint8_t *bytes,
                                                    size_t size, nimbus_error *error);

/* ---- augment.c: rows of a data set to batches of reals ------------------------------------- */

/* Where batches come from and what is done to them. All zero but data, width and n_outputs:
 * rows as they are. */
typedef struct nimbus_batches {
    const nimbus_data *data;
    size_t width, n_outputs; /* of a row, of a target */
    const float *teacher;    /* [N][n_outputs] or NULL */
    unsigned shift;
    bool flip;
    double mixup;
    const real *noise; /* [width] standard deviations in raw units, or NULL */
    uint64_t seed;
    unsigned n_threads;
} nimbus_batches;

/* Puts n data rows index[0..n-1] into x [n][width], their targets into target [n][n_outputs]
 * (class probabilities or values; zeros without labels), the most likely class of each into label
 * [n] (-1 without labels) and the teacher's outputs into teacher_y [n][n_outputs] if there are
 * any. index NULL: rows first, first + 1, ... */
void nimbus_batches_fill(const nimbus_batches *batches, const uint32_t *index, size_t first,
                         size_t n, size_t step, real *x, real *target, int32_t *label,
                         real *teacher_y);

/* A number distributed as Beta(a, a), a > 0. */
double nimbus_random_beta(double a, uint64_t seed, uint64_t stream, uint64_t counter);

/* The stream of random numbers of one purpose in one step or epoch. */
typedef enum nimbus_purpose {
    NIMBUS_RANDOM_ORDER = 1,
    NIMBUS_RANDOM_SHIFT,
    NIMBUS_RANDOM_FLIP,
    NIMBUS_RANDOM_MIXUP,
    NIMBUS_RANDOM_NOISE
} nimbus_purpose;
static inline uint64_t nimbus_random_stream(nimbus_purpose purpose, uint64_t step)
{
    return (uint64_t)0x7472 << 48 | (uint64_t)purpose << 40 | step;
}

/* ---- evaluate.c ---------------------------------------------------------------------------- */

/* Evaluates rows that are the outputs of layer pass->first - 1, in batches of pass->max_rows.
 * Errors: MEMORY. */
NIMBUS_MUST_CHECK nimbus_status nimbus_evaluate_pass(nimbus_pass *pass, const nimbus_data *data,
                                                     nimbus_evaluation *out, nimbus_error *error);

#define NIMBUS_EVALUATE_ROWS 512

#endif
