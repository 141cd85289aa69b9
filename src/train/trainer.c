/* trainer.c - the training loop, with checkpoints, progress and a watch on NaN
 *
 * One step: fill a batch, forward, loss, backward, optimiser, round the tables of quantised lookup
 * layers. The state after a step is complete in (net, moments, nimbus_train_state): what comes
 * next depends on nothing else, so a training can be cut after any step. */
#include <math.h>
#include <stdio.h>
#include <string.h>

#include "net/fingerprint.h"
#include "net/lookup.h"
#include "train/checkpoint.h"
#include "train/train.h"

#ifdef NIMBUS_TEST_HOOKS
#define PROGRESS_SECONDS 0.0 /* after every step, so that a test can stop at any of them */
#else
#define PROGRESS_SECONDS 0.1
#endif

#define TINY        1e-12 /* mean square of what a teacher's layer gives */
#define LEAST_DRAWN 32    /* codebooks of a layer that code noise is for */

typedef struct trainer {
    nimbus_net *net;
    nimbus_train_options o; /* resolved */
    const nimbus_data *data;
    size_t n_rows, n_outputs, steps_per_epoch, n_steps;
    nimbus_loss_options loss;
    nimbus_pass *pass, *valid_pass, *teacher_pass;
    nimbus_net *teacher;  /* copy, if it runs along */
    float *teacher_cache; /* else its outputs for all rows, if it is given as a net */
    real *noise;          /* [width] or NULL */
    nimbus_hint *hints;   /* of the pass */
    size_t *hint_layers;  /* [n_hints] the teacher's layers */
    nimbus_batches batches;
    nimbus_moments *moments;
    uint32_t *order; /* [N], of epoch order_epoch */
    uint64_t order_epoch;
    real *target, *teacher_y, *dy; /* [batch][n_outputs] */
    int32_t *label;                /* [batch] */
    nimbus_train_state state;
    nimbus_buffer fingerprint, net_bytes, moment_bytes, file; /* of checkpoints */
    double began, checkpointed, told;                         /* times of this run */
    double step_seconds, valid_seconds; /* spent on this run's steps; on its last evaluation */
    size_t steps_run;                   /* in this run */
    bool resumed;
} trainer;

/* ---- lookup layers ------------------------------------------------------------------------- */

static bool is_soft(const trainer *t, size_t l)
{
    return l >= t->o.first_layer && t->net->layers[l].lookup &&
           t->net->layers[l].state == NIMBUS_STATE_SOFT;
}

/* A layer of few codebooks has none to spare: of NSL-KDD, whose first layer has 15, 99.51 % of
 * held-out rows are right, with 2 % of all codes drawn 99.34, with those of its wider layers alone
 * 99.56 (three seeds, docs/experiments.md). */
static real code_noise_of(const trainer *t, const nimbus_lookup *lookup)
{
    return lookup->n_codebooks < LEAST_DRAWN ? 0 : (real)t->o.code_noise;
}

static void set_soft_layers(trainer *t, size_t step)
{
    double tau = nimbus_schedule_geometric(t->o.tau, t->o.tau_end, step, t->n_steps);
    double noise = nimbus_schedule_to_zero(t->o.margin_noise, step, t->n_steps);
    for (size_t l = 0; l < t->net->n_layers; l++) {
        if (!is_soft(t, l))
            continue;
        nimbus_lookup *lookup = t->net->layers[l].lookup;
        lookup->temperature = (real)tau;
        lookup->margin_noise = (real)noise;
        lookup->code_noise = code_noise_of(t, lookup);
    }
}

/* Outside of steps nothing is noisy, and a net has the temperature of its last step - also one
 * that a checkpoint of finished training gave back. */
static void quieten_soft_layers(trainer *t)
{
    if (t->state.step > 0)
        set_soft_layers(t, t->state.step - 1);
    for (size_t l = 0; l < t->net->n_layers; l++) {
        nimbus_lookup *lookup = t->net->layers[l].lookup;
        if (is_soft(t, l))
            lookup->margin_noise = lookup->code_noise = 0;
    }
}

static nimbus_status round_tables(trainer *t, nimbus_error *error)
{
    nimbus_status status = NIMBUS_OK;
    for (size_t l = 0; l < t->net->n_layers && status == NIMBUS_OK; l++)
        if (is_soft(t, l))
            status = nimbus_lookup_round(&t->net->layers[l], t->o.n_threads, error);
    return status;
}

/* ---- a step -------------------------------------------------------------------------------- */

static const nimbus_layer *first_bad_output(const trainer *t, size_t n)
{
    for (size_t l = t->o.first_layer; l < t->net->n_layers; l++) {
        const nimbus_layer *layer = &t->net->layers[l];
        size_t width = nimbus_shape_width(layer->shape);
        for (size_t i = 0; i < n * width; i++)
            if (!isfinite(t->pass->out[l][i]))
                return layer;
    }
    return NULL;
}

/* The error of a training in which something is no longer finite. */
static nimbus_status diverged(const trainer *t, double loss, size_t n, nimbus_error *error)
{
    nimbus_error cause = {0};
    if (nimbus_net_check_finite(t->net, &cause) == NIMBUS_OK) {
        const nimbus_layer *layer = first_bad_output(t, n);
        const char *what = isfinite(loss) ? "a gradient overflows" : "the loss overflows";
        snprintf(cause.message, sizeof cause.message, "%s%s",
                 layer ? "outputs overflow first in layer " : what, layer ? layer->name : "");
    }
    return nimbus_fail(error, NIMBUS_ERR_VALUE,
                       "training diverged in epoch %llu, step %llu of %zu (loss %g): %.300s; a "
                       "lower rate may help",
                       (unsigned long long)t->state.epoch + 1,
                       (unsigned long long)t->state.cursor + 1, t->steps_per_epoch, loss,
                       cause.message);
}

static void shuffle_rows(trainer *t)
{
    for (size_t i = 0; i < t->n_rows; i++)
        t->order[i] = (uint32_t)i;
    t->order_epoch = t->state.epoch;
    nimbus_random_shuffle(t->o.seed, nimbus_random_stream(NIMBUS_RANDOM_ORDER, t->order_epoch),
                          t->order, t->n_rows);
}

static size_t count_correct(const trainer *t, const real *y, size_t n)
{
    size_t n_correct = 0;
    for (size_t i = 0; i < n; i++)
        n_correct += t->label[i] >= 0 &&
                     nimbus_argmax(y + i * t->n_outputs, t->n_outputs) == (size_t)t->label[i];
    return n_correct;
}

/* The teacher's outputs for the batch that stands in the pass, NULL without a teacher. */
static const real *teach(trainer *t, size_t n)
{
    if (!t->teacher_pass)
        return t->batches.teacher ? t->teacher_y : NULL;
    memcpy(nimbus_pass_input(t->teacher_pass), nimbus_pass_input(t->pass),
           n * t->batches.width * sizeof(real));
    nimbus_pass_forward(t->teacher_pass, n, t->teacher->n_layers - 1);
    return t->teacher_pass->out[t->teacher->n_layers - 1];
}

/* Points the hints at what the teacher gave for this batch, each weighted by its size; where that
 * is all but nothing, there is no hint. */
static void set_hints(trainer *t, size_t n)
{
    for (size_t i = 0; i < t->pass->n_hints; i++) {
        const size_t l = t->hint_layers[i];
        const size_t n_values = n * nimbus_shape_width(t->teacher->layers[l].shape);
        const real *target = t->teacher_pass->out[l];
        double size = 0;
        for (size_t j = 0; j < n_values; j++)
            size += (double)target[j] * (double)target[j];
        const bool usable = size > TINY * (double)n_values && isfinite(size);
        t->hints[i].target = target;
        t->hints[i].scale = (real)(usable ? 2 * t->o.hint / size : 0);
    }
}

static nimbus_status train_step(trainer *t, nimbus_error *error)
{
    nimbus_train_state *s = &t->state;
    if (t->order_epoch != s->epoch)
        shuffle_rows(t);
    size_t first = s->cursor * t->o.batch, left = t->n_rows - first;
    size_t n = left < t->o.batch ? left : t->o.batch, last = t->net->n_layers - 1;
    nimbus_batches_fill(&t->batches, t->order + first, 0, n, s->step, nimbus_pass_input(t->pass),
                        t->target, t->label, t->teacher_y);
    const real *teacher_y = teach(t, n);
    set_soft_layers(t, s->step);
    t->pass->training = true;
    t->pass->step = s->step;
    nimbus_pass_forward(t->pass, n, last);
    const real *y = t->pass->out[last];
    double loss = nimbus_loss_value(&t->loss, n, t->n_outputs, y, t->target, teacher_y, t->dy);
    if (!isfinite(loss))
        return diverged(t, loss, n, error);
    set_hints(t, n);
    const uint64_t mode = nimbus_small_as_zero(); /* training centroids took twice the time */
    nimbus_status status = nimbus_pass_backward(t->pass, t->dy, error);
    double rate =
        nimbus_schedule_rate(t->o.schedule, t->o.rate, t->o.warmup_steps, s->step, t->n_steps);
    if (status == NIMBUS_OK && !nimbus_moments_step(t->moments, rate, s->step))
        status = diverged(t, loss, n, error);
    nimbus_small_as_before(mode);
    if (status != NIMBUS_OK)
        return status;
    s->loss_sum += loss * (double)n;
    s->n_correct += count_correct(t, y, n);
    s->n_seen += n;
    s->step++;
    s->cursor++;
    return round_tables(t, error);
}

static double mean_accuracy(const trainer *t, double n_correct, double n)
{
    return nimbus_data_labels(t->data) && n > 0 ? n_correct / n : (double)NAN;
}

/* Accuracy on held-out rows, if there are any. */
static nimbus_status validate(trainer *t, nimbus_error *error)
{
    nimbus_evaluation valid;
    if (!t->valid_pass)
        return NIMBUS_OK;
    double start = nimbus_seconds();
    quieten_soft_layers(t);
    nimbus_status status = nimbus_evaluate_pass(t->valid_pass, t->o.valid, &valid, error);
    t->valid_seconds = nimbus_seconds() - start;
    if (status == NIMBUS_OK)
        t->state.valid_accuracy = valid.accuracy;
    return status;
}

static nimbus_status finish_epoch(trainer *t, nimbus_error *error)
{
    nimbus_train_state *s = &t->state;
    s->loss = s->loss_sum / (double)s->n_seen;
    s->accuracy = mean_accuracy(t, (double)s->n_correct, (double)s->n_seen);
    s->loss_sum = 0;
    s->n_correct = s->n_seen = s->cursor = 0;
    s->epoch++;
    return validate(t, error);
}

/* ---- progress ------------------------------------------------------------------------------ */

static bool asked_to_stop(trainer *t)
{
    const nimbus_train_state *s = &t->state;
    double now = nimbus_seconds(), per_step = 0;
    bool epoch_ends = s->n_seen == 0 && t->steps_run > 0; /* told always: its means are final */
    if (!t->o.progress || (now - t->told < PROGRESS_SECONDS && !epoch_ends))
        return false;
    t->told = now;
    if (t->steps_run > 0)
        per_step = t->step_seconds / (double)t->steps_run;
    nimbus_progress p = {
        .stage = "train",
        .done = (double)s->step,
        .total = (double)t->n_steps,
        .seconds = now - t->began,
        .seconds_left = t->steps_run == 0 ? -1
                                          : per_step * (double)(t->n_steps - s->step) +
                                                t->valid_seconds * (double)(t->o.epochs - s->epoch),
        .epoch = s->epoch < t->o.epochs ? s->epoch + 1 : t->o.epochs,
        .n_epochs = t->o.epochs,
        .loss = s->n_seen > 0 ? s->loss_sum / (double)s->n_seen : s->loss,
        .train_accuracy =
            s->n_seen > 0 ? mean_accuracy(t, (double)s->n_correct, (double)s->n_seen) : s->accuracy,
        .valid_accuracy = s->valid_accuracy,
    };
    return t->o.progress(t->o.progress_user, &p) != 0;
}

/* ---- checkpoints --------------------------------------------------------------------------- */

static nimbus_status save(trainer *t, nimbus_error *error)
{
    quieten_soft_layers(t);
    nimbus_status status = nimbus_net_check_finite(t->net, error);
    if (status != NIMBUS_OK)
        return diverged(t, t->state.loss, 0, error);
    t->net_bytes.size = t->moment_bytes.size = t->file.size = 0;
    status = nimbus_net_write(t->net, &t->net_bytes, error);
    if (status != NIMBUS_OK)
        return status;
    nimbus_moments_write(t->moments, &t->moment_bytes);
    if (t->moment_bytes.failed)
        return nimbus_fail(error, NIMBUS_ERR_MEMORY, "no memory for a checkpoint");
    nimbus_checkpoint checkpoint = {
        .fingerprint = (const char *)t->fingerprint.bytes,
        .fingerprint_size = t->fingerprint.size,
        .state = t->state,
        .net = t->net_bytes.bytes,
        .net_size = t->net_bytes.size,
        .moments = t->moment_bytes.bytes,
        .moments_size = t->moment_bytes.size,
    };
    double now = nimbus_seconds();
    checkpoint.state.seconds += now - t->began;
    status = nimbus_checkpoint_write(&checkpoint, &t->file, error);
    if (status == NIMBUS_OK)
        status = nimbus_file_write(t->o.checkpoint, t->file.bytes, t->file.size, error);
    t->checkpointed = nimbus_seconds();
    return status;
}

static nimbus_status check_state(const trainer *t, const nimbus_train_state *s, nimbus_error *error)
{
    bool finished = s->epoch == t->o.epochs && s->cursor == 0;
    if ((s->epoch >= t->o.epochs && !finished) || s->cursor >= t->steps_per_epoch ||
        s->step != s->epoch * t->steps_per_epoch + s->cursor || s->n_seen > t->n_rows ||
        s->n_correct > s->n_seen || !isfinite(s->loss_sum) || !(s->seconds >= 0))
        return nimbus_fail(error, NIMBUS_ERR_FORMAT,
                           "impossible state: epoch %llu of %zu, step %llu of %zu, %llu in all",
                           (unsigned long long)s->epoch, t->o.epochs, (unsigned long long)s->cursor,
                           t->steps_per_epoch, (unsigned long long)s->step);
    return NIMBUS_OK;
}

static nimbus_status resume_from(trainer *t, const nimbus_buffer *file, nimbus_error *error)
{
    nimbus_checkpoint c;
    nimbus_status status = nimbus_checkpoint_parse(file->bytes, file->size, &c, error);
    if (status == NIMBUS_OK)
        status =
            nimbus_fingerprint_compare(c.fingerprint, c.fingerprint_size, &t->fingerprint, error);
    if (status == NIMBUS_OK)
        status = check_state(t, &c.state, error);
    if (status == NIMBUS_OK && c.state.net_crc != t->state.net_crc &&
        nimbus_crc32c(0, c.net, c.net_size) != t->state.net_crc)
        status = nimbus_fail(error, NIMBUS_ERR_MISMATCH,
                             "the net to train is neither the one its training began with nor the "
                             "one it stopped at");
    if (status == NIMBUS_OK)
        status = nimbus_moments_read(t->moments, c.moments, c.moments_size, error);
    if (status == NIMBUS_OK)
        status = nimbus_checkpoint_restore(&c, t->net, error);
    if (status == NIMBUS_OK)
        t->state = c.state;
    t->resumed = status == NIMBUS_OK;
    return status;
}

/* Describes the training for checkpoints, and goes on from the one that exists, if any. */
static nimbus_status open_checkpoint(trainer *t, nimbus_error *error)
{
    nimbus_buffer file = {0};
    nimbus_error cause = {0};
    nimbus_status status =
        nimbus_settings_fingerprint(&t->o, t->net, t->data, &t->fingerprint, error);
    if (status == NIMBUS_OK)
        status = nimbus_net_write(t->net, &t->net_bytes, error);
    if (status != NIMBUS_OK)
        return status;
    t->state.net_crc = nimbus_crc32c(0, t->net_bytes.bytes, t->net_bytes.size);
    if (!nimbus_file_exists(t->o.checkpoint))
        return NIMBUS_OK;
    /* A checkpoint of this training holds the net three times over and little else. */
    status = nimbus_file_read(t->o.checkpoint, 4 * t->net_bytes.size + (1 << 20), &file, &cause);
    if (status == NIMBUS_OK)
        status = resume_from(t, &file, &cause);
    if (status != NIMBUS_OK) {
        status = nimbus_fail(error, status,
                             "checkpoint %.150s: %.250s; delete the file to train from the start",
                             t->o.checkpoint, cause.message);
        if (error)
            error->os_errno = cause.os_errno, error->offset = cause.offset;
    }
    nimbus_buffer_free(&file);
    return status;
}

/* ---- begin, loop, end ---------------------------------------------------------------------- */

static nimbus_status make_noise(trainer *t, nimbus_error *error)
{
    size_t width = t->batches.width;
    const nimbus_param *p =
        t->o.first_layer == 0 ? nimbus_layer_param(&t->net->layers[0], "inverse_std") : NULL;
    if (t->o.noise == 0)
        return NIMBUS_OK;
    t->noise = nimbus_alloc(width, sizeof *t->noise);
    if (!t->noise)
        return nimbus_fail(error, NIMBUS_ERR_MEMORY, "no memory for the noise of %zu inputs",
                           width);
    for (size_t d = 0; d < width; d++)
        t->noise[d] = (real)t->o.noise / (p ? p->value[d] : 1);
    t->batches.noise = t->noise;
    return NIMBUS_OK;
}

/* Hints for all layers that SOFT layers read and the teacher has too. */
static nimbus_status make_hints(trainer *t, nimbus_error *error)
{
    const nimbus_net *net = t->net;
    t->hints = nimbus_alloc(net->n_layers, sizeof *t->hints);
    t->hint_layers = nimbus_alloc(net->n_layers, sizeof *t->hint_layers);
    bool *read = nimbus_alloc(net->n_layers, sizeof *read);
    const bool made = t->hints && t->hint_layers && read;
    size_t n = 0;
    for (size_t l = 1; made && l < net->n_layers; l++)
        if (is_soft(t, l))
            read[net->layers[l].input[0]] = true;
    for (size_t l = 1; made && l < net->n_layers; l++) {
        const size_t from = nimbus_net_find_layer(t->teacher, net->layers[l].name);
        if (!read[l] || from == t->teacher->n_layers ||
            nimbus_shape_width(t->teacher->layers[from].shape) !=
                nimbus_shape_width(net->layers[l].shape))
            continue;
        t->hints[n].layer = l;
        t->hint_layers[n++] = from;
    }
    nimbus_free(read);
    t->pass->hints = t->hints;
    t->pass->n_hints = n;
    if (!made)
        return nimbus_fail(error, NIMBUS_ERR_MEMORY, "no memory for hints");
    if (n == 0)
        return nimbus_fail(error, NIMBUS_ERR_MISMATCH,
                           "hint is %g, but no layer that trees read has its like in the teacher",
                           t->o.hint);
    return NIMBUS_OK;
}

/* A teacher of rows that never change is asked once; else, or for hints, it runs along. */
static nimbus_status make_teacher(trainer *t, nimbus_error *error)
{
    size_t n;
    t->batches.teacher = t->o.teacher_outputs;
    if (!t->o.teacher)
        return NIMBUS_OK;
    if (t->o.shift || t->o.flip || t->o.mixup > 0 || t->o.noise > 0 || t->o.hint > 0) {
        nimbus_status status = nimbus_net_copy(t->o.teacher, &t->teacher, error);
        if (status == NIMBUS_OK)
            status =
                nimbus_pass_new(t->teacher, 0, t->o.batch, t->o.n_threads, &t->teacher_pass, error);
        return status == NIMBUS_OK && t->o.hint > 0 ? make_hints(t, error) : status;
    }
    if (!nimbus_mul_overflows(t->n_rows, t->n_outputs, &n))
        t->teacher_cache = nimbus_alloc(n, sizeof *t->teacher_cache);
    if (!t->teacher_cache)
        return nimbus_fail(error, NIMBUS_ERR_MEMORY,
                           "no memory for the teacher's %zu x %zu outputs", t->n_rows,
                           t->n_outputs);
    t->batches.teacher = t->teacher_cache;
    return nimbus_net_predict(t->o.teacher, t->data, t->o.n_threads, t->teacher_cache, error);
}

static nimbus_status make_buffers(trainer *t, nimbus_error *error)
{
    size_t n;
    if (nimbus_mul_overflows(t->o.batch, t->n_outputs, &n))
        return nimbus_fail(error, NIMBUS_ERR_LIMIT, "batches of %zu rows are too large",
                           t->o.batch);
    t->order = nimbus_alloc(t->n_rows, sizeof *t->order);
    t->target = nimbus_alloc(n, sizeof *t->target);
    t->teacher_y = nimbus_alloc(n, sizeof *t->teacher_y);
    t->dy = nimbus_alloc(n, sizeof *t->dy);
    t->label = nimbus_alloc(t->o.batch, sizeof *t->label);
    if (!t->order || !t->target || !t->teacher_y || !t->dy || !t->label)
        return nimbus_fail(error, NIMBUS_ERR_MEMORY, "no memory for batches of %zu rows",
                           t->o.batch);
    return NIMBUS_OK;
}

static nimbus_status begin(trainer *t, nimbus_error *error)
{
    nimbus_status status = nimbus_settings_check_values(t->data, error);
    if (status == NIMBUS_OK)
        status = nimbus_net_check_finite(t->net, error);
    if (status == NIMBUS_OK)
        status = nimbus_net_grads(t->net, error);
    if (status == NIMBUS_OK)
        status =
            nimbus_pass_new(t->net, t->o.first_layer, t->o.batch, t->o.n_threads, &t->pass, error);
    if (status == NIMBUS_OK && t->o.valid)
        status = nimbus_pass_new(t->net, t->o.first_layer, NIMBUS_EVALUATE_ROWS, t->o.n_threads,
                                 &t->valid_pass, error);
    if (status == NIMBUS_OK)
        status = make_buffers(t, error);
    if (status == NIMBUS_OK)
        status = make_noise(t, error);
    if (status == NIMBUS_OK)
        status = nimbus_moments_new(t->net, &t->o, &t->moments, error);
    if (status == NIMBUS_OK && t->o.checkpoint)
        status = open_checkpoint(t, error);
    if (status == NIMBUS_OK)
        status = make_teacher(t, error);
    if (status == NIMBUS_OK)
        status = nimbus_settings_check_array(t->batches.teacher, t->n_rows, t->n_outputs,
                                             "teacher's outputs", error);
    if (status == NIMBUS_OK)
        status = round_tables(t, error);
    if (status != NIMBUS_OK)
        return status;
    t->pass->seed = t->o.seed;
    nimbus_net_zero_grads(t->net);
    return NIMBUS_OK;
}

static nimbus_status cancel(trainer *t, nimbus_error *error)
{
    nimbus_status status = t->o.checkpoint ? save(t, error) : NIMBUS_OK;
    if (status != NIMBUS_OK)
        return status;
    return nimbus_fail(error, NIMBUS_ERR_CANCELLED, "training was stopped after step %llu of %zu%s",
                       (unsigned long long)t->state.step, t->n_steps,
                       t->o.checkpoint ? "; it can go on from its checkpoint" : "");
}

/* Lookup layers: mostly converted ones, which have learned something before any step. */
static bool has_soft_layers(const trainer *t)
{
    for (size_t l = 0; l < t->net->n_layers; l++)
        if (is_soft(t, l))
            return true;
    return false;
}

static nimbus_status run(trainer *t, nimbus_error *error)
{
    nimbus_status status = NIMBUS_OK;
    t->checkpointed = nimbus_seconds();
    if (t->state.step == 0 && has_soft_layers(t))
        status = validate(t, error);
    if (status != NIMBUS_OK)
        return status;
    while (t->state.step < t->n_steps) {
        if (asked_to_stop(t))
            return cancel(t, error);
        double start = nimbus_seconds();
        status = train_step(t, error);
        if (status != NIMBUS_OK)
            return status;
        double now = nimbus_seconds();
        t->step_seconds += now - start;
        t->steps_run++;
        bool epoch_ends = t->state.cursor == t->steps_per_epoch;
        if (epoch_ends)
            status = finish_epoch(t, error);
        if (status == NIMBUS_OK && t->o.checkpoint &&
            (epoch_ends || now - t->checkpointed >= t->o.checkpoint_seconds))
            status = save(t, error);
        if (status != NIMBUS_OK)
            return status;
    }
    if (nimbus_net_check_finite(t->net, error) != NIMBUS_OK)
        return diverged(t, t->state.loss, 0, error);
    return t->steps_run > 0 && asked_to_stop(t) ? cancel(t, error) : NIMBUS_OK;
}

static void end(trainer *t)
{
    quieten_soft_layers(t);
    nimbus_pass_free(t->pass);
    nimbus_pass_free(t->valid_pass);
    nimbus_pass_free(t->teacher_pass);
    nimbus_net_free(t->teacher);
    nimbus_moments_free(t->moments);
    nimbus_free(t->teacher_cache);
    nimbus_free(t->hints);
    nimbus_free(t->hint_layers);
    nimbus_free(t->noise);
    nimbus_free(t->order);
    nimbus_free(t->target);
    nimbus_free(t->teacher_y);
    nimbus_free(t->dy);
    nimbus_free(t->label);
    nimbus_buffer_free(&t->fingerprint);
    nimbus_buffer_free(&t->net_bytes);
    nimbus_buffer_free(&t->moment_bytes);
    nimbus_buffer_free(&t->file);
}

nimbus_status nimbus_train(nimbus_net *net, const nimbus_data *data,
                           const nimbus_train_options *options, nimbus_train_report *report,
                           nimbus_error *error)
{
    trainer t = {.net = net, .data = data, .order_epoch = UINT64_MAX, .began = nimbus_seconds()};
    if (report)
        *report = (nimbus_train_report){.loss = NAN, .train_accuracy = NAN, .valid_accuracy = NAN};
    nimbus_status status = nimbus_settings_resolve(options, net, data, &t.o, error);
    if (status != NIMBUS_OK)
        return status;
    const nimbus_data_info *info = nimbus_data_get_info(data);
    t.n_rows = info->n_rows;
    t.n_outputs = nimbus_shape_width(net->layers[net->n_layers - 1].shape);
    t.steps_per_epoch = nimbus_settings_steps(t.n_rows, t.o.batch);
    t.n_steps = t.o.epochs * t.steps_per_epoch;
    t.state.loss = t.state.accuracy = t.state.valid_accuracy = NAN;
    t.told = t.began - PROGRESS_SECONDS;
    t.loss = (nimbus_loss_options){
        .kind = net->loss,
        .label_smoothing = (real)t.o.label_smoothing,
        .distill = (real)t.o.distill,
        .temperature = (real)t.o.temperature,
    };
    t.batches = (nimbus_batches){
        .data = data,
        .width = info->n_features,
        .n_outputs = t.n_outputs,
        .shift = t.o.shift,
        .flip = t.o.flip != 0,
        .mixup = t.o.mixup,
        .seed = t.o.seed,
        .n_threads = t.o.n_threads,
    };
    status = begin(&t, error);
    if (status == NIMBUS_OK)
        status = run(&t, error);
    if (report)
        *report = (nimbus_train_report){
            .epochs = t.state.epoch,
            .steps = t.state.step,
            .loss = t.state.loss,
            .train_accuracy = t.state.accuracy,
            .valid_accuracy = t.state.valid_accuracy,
            .seconds = t.state.seconds + nimbus_seconds() - t.began,
            .resumed = t.resumed,
        };
    end(&t);
    return status;
}
