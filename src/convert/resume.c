/* resume.c - the conversion's checkpoint: the net so far, and how far that is
 *
 * A container with magic "NIMBUSCV" and the sections "META" (the fingerprint, as of trainings),
 * "INFO" (u32 finished layers, u32 tables are rounded, u32 finished, f32 seconds, u32 checksum of
 * used up PATH.tune) and "NET " (the bytes of a .net file). Training keeps its own checkpoint in a
 * file beside it, PATH.tune, which is removed once its result stands here; the checksum tells it
 * from a newer one if a kill came in between. */
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "convert/internal.h"
#include "net/fingerprint.h"

static const char magic[8] = "NIMBUSCV";
enum { MAJOR = 2, MINOR = 0, INFO_BYTES = 20, META = 0, INFO, NET, N_SECTIONS };
static const uint32_t tags[N_SECTIONS] = {[META] = NIMBUS_TAG('M', 'E', 'T', 'A'),
                                          [INFO] = NIMBUS_TAG('I', 'N', 'F', 'O'),
                                          [NET] = NIMBUS_TAG('N', 'E', 'T', ' ')};
static const size_t size_limit = (size_t)8 << 30;

/* Everything that shapes the result: options, plans, the float net, the data. */
static nimbus_status take_fingerprint(conversion *c, const nimbus_data *data, nimbus_error *error)
{
    const nimbus_convert_options *o = &c->options;
    nimbus_buffer *text = &c->fingerprint;
    nimbus_fingerprint_data(text, data);
    nimbus_fingerprint_line(text, "method %d", (int)o->method);
    nimbus_fingerprint_line(text, "preset %d", (int)o->preset);
    nimbus_fingerprint_line(text, "budget %.17g", o->budget);
    if (o->epochs == SIZE_MAX) /* else the epochs are among the training's options */
        nimbus_fingerprint_line(text, "no fine-tuning");
    nimbus_fingerprint_line(text, "layer-epochs %.17g", o->layer_epochs);
    nimbus_fingerprint_line(text, "fit-rows %zu", o->fit_rows);
    nimbus_fingerprint_line(text, "lambda %.17g", o->lambda);
    nimbus_fingerprint_line(text, "splits %d", (int)o->split_method);
    nimbus_fingerprint_line(text, "tables %d", (int)o->table_method);
    nimbus_fingerprint_line(text, "estimator %d", (int)o->estimator);
    nimbus_fingerprint_line(text, "most-change %.17g", o->most_change);
    for (size_t i = 0; i < c->net->n_layers; i++) { /* as options or measurements have them */
        const nimbus_layer_plan *p = &c->plans[i];
        const char *name = c->net->layers[i].name;
        if (p->exact)
            nimbus_fingerprint_line(text, "%s exact", name);
        else
            nimbus_fingerprint_line(
                text, "%s v %zu levels %zu trees %zu bits %u tree %d columns %d", name, p->v,
                p->levels, p->trees, p->bits, (int)p->tree, (int)p->columns);
    }
    nimbus_fingerprint_training(text, &o->train);
    /* last: norms of the net that is to be converted depend on the plans */
    nimbus_status status = nimbus_fingerprint_net(text, "net", c->teacher, error);
    if (status == NIMBUS_OK && text->failed)
        status = nimbus_fail(error, NIMBUS_ERR_MEMORY, "no memory for a checkpoint");
    return status;
}

nimbus_status nimbus_conversion_read(conversion *c, const void *bytes, size_t size,
                                     nimbus_error *error)
{
    nimbus_section *sections = NULL;
    nimbus_net *net = NULL;
    nimbus_buffer fingerprint = {0};
    size_t n = 0;
    nimbus_status status =
        nimbus_container_read(bytes, size, magic, MAJOR, MINOR, &sections, &n, error);
    if (status)
        return status;
    bool known = n == N_SECTIONS;
    for (size_t i = 0; i < n && known; i++)
        known = sections[i].tag == tags[i];
    if (!known || sections[INFO].size != INFO_BYTES) {
        status =
            nimbus_fail(error, NIMBUS_ERR_FORMAT,
                        "%zu sections, expected META, INFO of %d bytes and NET", n, INFO_BYTES);
        goto done;
    }
    nimbus_reader r = nimbus_reader_of(sections[INFO].bytes, sections[INFO].size);
    uint32_t layers = nimbus_read_u32le(&r);
    uint32_t rounded = nimbus_read_u32le(&r), tuned = nimbus_read_u32le(&r);
    float seconds = nimbus_read_f32le(&r);
    uint32_t used_tune = nimbus_read_u32le(&r);
    if ((status = nimbus_net_read(sections[NET].bytes, sections[NET].size, &net, error)))
        goto done;
    if (layers > net->n_layers || rounded > 1 || tuned > rounded || !(seconds >= 0)) {
        status = nimbus_fail(error, NIMBUS_ERR_FORMAT,
                             "%u finished layers of %zu, expected no more than there are", layers,
                             net->n_layers);
        goto done;
    }
    nimbus_write_bytes(&fingerprint, sections[META].bytes, sections[META].size);
    if (fingerprint.failed) {
        status = nimbus_fail(error, NIMBUS_ERR_MEMORY, "no memory for a checkpoint");
        goto done;
    }
    nimbus_buffer_free(&c->fingerprint);
    c->fingerprint = fingerprint;
    fingerprint = (nimbus_buffer){0};
    c->layers_done = layers;
    c->rounded = rounded;
    c->tuned = tuned;
    c->seconds_before = (double)seconds;
    c->used_tune = used_tune;
    nimbus_net_free(c->net);
    c->net = net;
    net = NULL;
done:
    nimbus_buffer_free(&fingerprint);
    nimbus_net_free(net);
    nimbus_free(sections);
    return status;
}

static bool has_trees(const nimbus_layer *layer)
{
    return layer->state == NIMBUS_STATE_SOFT || layer->state == NIMBUS_STATE_LOOKUP;
}

static bool wired_the_same(const nimbus_layer *a, const nimbus_layer *b)
{
    bool same = a->n_inputs == b->n_inputs;
    for (size_t k = 0; k < a->n_inputs && same; k++)
        same = nimbus_layer_wired(a, k) == nimbus_layer_wired(b, k);
    return same;
}

/* Whether the checkpoint's net is what became of the float net: the same layers, and trees where,
 * and only where, they are due. Its checksums may be right all the same. */
static nimbus_status check_net(const conversion *c, nimbus_error *error)
{
    const nimbus_net *net = c->net, *teacher = c->teacher;
    if (net->n_layers != teacher->n_layers)
        return nimbus_fail(error, NIMBUS_ERR_FORMAT, "its net has %zu layers, the float net %zu",
                           net->n_layers, teacher->n_layers);
    for (size_t i = 0; i < net->n_layers; i++) {
        const nimbus_layer *a = &teacher->layers[i], *b = &net->layers[i];
        bool same = a->type == b->type && strcmp(a->name, b->name) == 0 && wired_the_same(a, b) &&
                    memcmp(&a->in_shape, &b->in_shape, sizeof a->in_shape) == 0 &&
                    memcmp(&a->shape, &b->shape, sizeof a->shape) == 0;
        if (!same)
            return nimbus_fail(error, NIMBUS_ERR_FORMAT,
                               "layer %zu of its net is not that of the float net", i);
        bool due = a->lookup ? has_trees(a)
                             : nimbus_layer_is_convertible(a) && !c->plans[i].exact &&
                                   (i < c->layers_done || c->rounded);
        if (has_trees(b) != due)
            return nimbus_fail(error, NIMBUS_ERR_FORMAT,
                               "layer %s of its net is in state %s with %zu layers finished",
                               b->name, nimbus_layer_state_name(b->state), c->layers_done);
    }
    return NIMBUS_OK;
}

/* Checksum of the training's checkpoint, 0 if there is none. */
static nimbus_status sum_tune(const conversion *c, uint32_t *sum, nimbus_error *error)
{
    nimbus_buffer file = {0};
    nimbus_status status = NIMBUS_OK;
    *sum = 0;
    if (nimbus_file_exists(c->tune_path)) {
        status = nimbus_file_read(c->tune_path, size_limit, &file, error);
        *sum = nimbus_crc32c(0, file.bytes, file.size);
        nimbus_buffer_free(&file);
    }
    return status;
}

static nimbus_status remove_tune(const conversion *c, nimbus_error *error)
{
    if (nimbus_file_exists(c->tune_path) && unlink(c->tune_path) != 0)
        return nimbus_fail_errno(error, "removing the finished checkpoint %s", c->tune_path);
    return NIMBUS_OK;
}

nimbus_status nimbus_conversion_open(conversion *c, const nimbus_data *data, nimbus_error *error)
{
    const char *path = c->options.checkpoint;
    nimbus_buffer file = {0}, asked = {0};
    nimbus_status status;
    uint32_t tune = 0;

    if (!path)
        return NIMBUS_OK;
    if ((status = take_fingerprint(c, data, error)))
        return status;
    int length = snprintf(c->tune_path, sizeof c->tune_path, "%s.tune", path);
    if (length < 0 || (size_t)length >= sizeof c->tune_path)
        return nimbus_fail(error, NIMBUS_ERR_ARGUMENT,
                           "the checkpoint's path has %zu characters, expected fewer than %zu",
                           strlen(path), sizeof c->tune_path - 5);
    if (!nimbus_file_exists(path))
        return NIMBUS_OK;
    if ((status = nimbus_file_read(path, size_limit, &file, error)))
        return status;
    asked = c->fingerprint;
    c->fingerprint = (nimbus_buffer){0};
    status = nimbus_conversion_read(c, file.bytes, file.size, error);
    if (status == NIMBUS_OK)
        status = nimbus_fingerprint_compare((const char *)c->fingerprint.bytes, c->fingerprint.size,
                                            &asked, error);
    if (status == NIMBUS_OK)
        status = check_net(c, error);
    if (status)
        status =
            nimbus_fail_prefix(error, status, "checkpoint %.150s (delete it to start again)", path);
    nimbus_buffer_free(&asked);
    nimbus_buffer_free(&file);
    if (status == NIMBUS_OK)
        status = sum_tune(c, &tune, error);
    if (status == NIMBUS_OK && tune != 0 && tune == c->used_tune)
        status = remove_tune(c, error);
    return status;
}

nimbus_status nimbus_conversion_save(const conversion *c, nimbus_error *error)
{
    nimbus_buffer info = {0}, net = {0}, file = {0};
    nimbus_status status = NIMBUS_OK;
    uint32_t tune = 0;

    if (!c->options.checkpoint)
        return NIMBUS_OK;
    if ((status = sum_tune(c, &tune, error)))
        goto done;
    nimbus_write_u32le(&info, (uint32_t)c->layers_done);
    nimbus_write_u32le(&info, c->rounded);
    nimbus_write_u32le(&info, c->tuned);
    nimbus_write_f32le(&info, (float)(c->seconds_before + nimbus_seconds() - c->began));
    nimbus_write_u32le(&info, tune);
    if ((status = nimbus_net_write(c->net, &net, error)))
        goto done;
    if (info.failed) {
        status = nimbus_fail(error, NIMBUS_ERR_MEMORY, "no memory for a checkpoint");
        goto done;
    }
    const nimbus_section sections[N_SECTIONS] = {
        [META] = {tags[META], c->fingerprint.bytes, c->fingerprint.size},
        [INFO] = {tags[INFO], info.bytes, info.size},
        [NET] = {tags[NET], net.bytes, net.size}};
    if ((status =
             nimbus_container_write(&file, magic, MAJOR, MINOR, sections, N_SECTIONS, error)) == 0)
        status = nimbus_file_write(c->options.checkpoint, file.bytes, file.size, error);
    if (status == NIMBUS_OK)
        status = remove_tune(c, error);
done:
    nimbus_buffer_free(&info);
    nimbus_buffer_free(&net);
    nimbus_buffer_free(&file);
    return status;
}

void nimbus_conversion_release(conversion *c)
{
    if (c->clean.net)
        nimbus_frontier_free(&c->clean);
    if (c->converted.net)
        nimbus_frontier_free(&c->converted);
    nimbus_data_free(c->fit_data);
    c->fit_data = NULL;
    nimbus_free(c->teacher_outputs);
    c->teacher_outputs = NULL;
}

void nimbus_conversion_free(conversion *c)
{
    if (!c)
        return;
    nimbus_conversion_release(c);
    nimbus_free(c->plans);
    nimbus_net_free(c->teacher);
    nimbus_net_free(c->net);
    nimbus_buffer_free(&c->fingerprint);
    nimbus_free(c);
}
