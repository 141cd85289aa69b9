/* onnx.c - an ONNX model becomes a net: the whole import, from a file or from memory */
#include <inttypes.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "import/import.h"

enum { OLDEST_OPSET = 9, NEWEST_OPSET = 20, NEWEST_IR = 13, MAX_NOTES = 64 };

/* ---- what all parts use -------------------------------------------------------------------- */

nimbus_status nimbus_import_claim(nimbus_importer *im, size_t n, size_t size, nimbus_error *error)
{
    size_t bytes;
    if (nimbus_mul_overflows(n, size, &bytes) || bytes > im->left)
        return nimbus_fail(error, NIMBUS_ERR_LIMIT,
                           "the model takes too much memory for its size: %zu more elements of "
                           "%zu bytes",
                           n, size);
    im->left -= bytes;
    return NIMBUS_OK;
}

nimbus_status nimbus_import_alloc(nimbus_importer *im, size_t n, size_t size, void *out,
                                  nimbus_error *error)
{
    void *p = NULL;
    nimbus_status status = nimbus_import_claim(im, n, size, error);
    if (status == NIMBUS_OK) {
        p = nimbus_alloc(n, size);
        if (!p)
            status = nimbus_fail(error, NIMBUS_ERR_MEMORY, "no memory for %zu elements", n);
    }
    memcpy(out, &p, sizeof p);
    return status;
}

char *nimbus_import_printable(char *to, size_t room, const char *text)
{
    size_t k = 0;
    for (; text[k] && k + 1 < room; k++)
        to[k] = text[k] >= 0x20 && text[k] < 0x7f ? text[k] : '?';
    to[k] = '\0';
    return to;
}

nimbus_status nimbus_import_note(nimbus_importer *im, nimbus_error *error, const char *format, ...)
{
    nimbus_import_report *r = &im->report;
    va_list args;
    if (!r->notes) {
        nimbus_status status =
            nimbus_import_alloc(im, MAX_NOTES, sizeof *r->notes, &r->notes, error);
        if (status != NIMBUS_OK)
            return status;
    }
    if (r->n_notes == MAX_NOTES)
        return NIMBUS_OK;
    va_start(args, format);
    (void)vsnprintf(r->notes[r->n_notes++], sizeof *r->notes, format, args);
    va_end(args);
    return NIMBUS_OK;
}

/* ---- the model ------------------------------------------------------------------------------ */

static nimbus_status check_model(nimbus_importer *im, const Nimbus__ModelProto *model,
                                 nimbus_error *error)
{
    bool found = false;
    if (!model->graph)
        return nimbus_fail(error, NIMBUS_ERR_FORMAT, "the model has no graph");
    if (model->has_ir_version && model->ir_version > NEWEST_IR)
        return nimbus_fail(error, NIMBUS_ERR_VERSION, "IR version %" PRId64 ", known are up to %d",
                           model->ir_version, NEWEST_IR);
    for (size_t k = 0; k < model->n_opset_import; k++) {
        const Nimbus__OperatorSetIdProto *set = model->opset_import[k];
        const char *domain = set->domain ? set->domain : "";
        if (*domain && strcmp(domain, "ai.onnx") != 0)
            continue;
        if (found)
            return nimbus_fail(error, NIMBUS_ERR_FORMAT, "two versions of the operators of ONNX");
        found = true;
        im->opset = set->version;
    }
    if (!found)
        return nimbus_fail(error, NIMBUS_ERR_FORMAT, "no version of the operators of ONNX");
    if (im->opset < OLDEST_OPSET)
        return nimbus_fail(error, NIMBUS_ERR_UNSUPPORTED, "opset %" PRId64 ", expected %d to %d",
                           im->opset, OLDEST_OPSET, NEWEST_OPSET);
    if (im->opset > NEWEST_OPSET)
        return nimbus_fail(error, NIMBUS_ERR_VERSION, "opset %" PRId64 ", expected %d to %d",
                           im->opset, OLDEST_OPSET, NEWEST_OPSET);
    im->graph = model->graph;
    im->report.opset = (int)im->opset;
    char producer[40], version[16];
    nimbus_import_printable(producer, sizeof producer,
                            model->producer_name ? model->producer_name : "");
    nimbus_import_printable(version, sizeof version,
                            model->producer_version ? model->producer_version : "");
    (void)snprintf(im->report.producer, sizeof im->report.producer, "%s%s%s", producer,
                   *producer && *version ? " " : "", version);
    return NIMBUS_OK;
}

static nimbus_status run_nodes(nimbus_importer *im, nimbus_error *error)
{
    nimbus_status status = NIMBUS_OK;
    size_t unused = 0;
    for (size_t k = 0; k < im->n_nodes && status == NIMBUS_OK; k++) {
        im->report.n_nodes += im->nodes[k].needed;
        unused += !im->nodes[k].needed;
        if (im->nodes[k].needed)
            status = nimbus_node_run(im, &im->nodes[k], error);
    }
    if (status == NIMBUS_OK && unused > 0)
        status = nimbus_import_note(im, error, "%zu node%s not needed for the output", unused,
                                    unused == 1 ? " is" : "s are");
    return status;
}

/* From the checked messages to the net. */
static nimbus_status build(nimbus_importer *im, nimbus_net **out, nimbus_error *error)
{
    size_t last;
    nimbus_status status = nimbus_graph_open(im, error);
    if (status == NIMBUS_OK)
        status = nimbus_graph_input(im, error);
    if (status == NIMBUS_OK)
        status = run_nodes(im, error);
    if (status == NIMBUS_OK)
        status = nimbus_graph_check_output(im, error);
    if (status != NIMBUS_OK)
        return status;
    nimbus_view *v = &im->values[im->output].view;
    size_t maker = im->values[im->output].maker;
    if (maker == SIZE_MAX)
        return nimbus_fail(error, NIMBUS_ERR_UNSUPPORTED, "the output is the input itself");
    status = nimbus_view_settle(im, &im->nodes[maker], v, error);
    last = v->layer;
    if (status == NIMBUS_OK)
        status = nimbus_draft_merge_all(im, &last, error);
    if (status == NIMBUS_OK)
        status = nimbus_draft_emit_all(im, last, out, error);
    if (status == NIMBUS_OK) {
        const nimbus_view *input = NULL;
        for (size_t k = 0; k < im->n_values && !input; k++)
            input = im->values[k].input ? &im->values[k].view : NULL;
        (*out)->input_dtype = im->options->input_dtype ? im->options->input_dtype
                              : input && input->bytes  ? NIMBUS_U8
                                                       : NIMBUS_F32;
    }
    return status;
}

static nimbus_status set_metadata(const nimbus_importer *im, nimbus_net *net, nimbus_error *error)
{
    json_t *json = json_pack("{s:{s:s,s:s,s:i}}", "imported", "format", "onnx", "producer",
                             im->report.producer, "opset", im->report.opset);
    char *text = json ? json_dumps(json, JSON_COMPACT) : NULL;
    char *copy = text ? nimbus_strdup(text) : NULL;
    json_decref(json);
    free(text);
    if (!copy)
        return nimbus_fail(error, NIMBUS_ERR_MEMORY, "no memory for a net's metadata");
    nimbus_free(net->metadata);
    net->metadata = copy;
    return NIMBUS_OK;
}

static nimbus_status import_bytes(const void *bytes, size_t size, const char *folder,
                                  const nimbus_import_options *options, nimbus_net **out,
                                  nimbus_import_report *report, nimbus_error *error)
{
    static const nimbus_import_options defaults = NIMBUS_IMPORT_OPTIONS_INIT;
    nimbus_importer im = {.options = options ? options : &defaults, .folder = folder};
    Nimbus__ModelProto *model;
    if (nimbus_mul_overflows(size, IMPORT_ROOM_TIMES, &im.left) || im.left > SIZE_MAX - IMPORT_ROOM)
        return nimbus_fail(error, NIMBUS_ERR_LIMIT, "a model of %zu bytes", size);
    im.left += IMPORT_ROOM;
    nimbus_arena arena = {.left = im.left};
    nimbus_status status = nimbus_wire_unpack(bytes, size, &arena, &model, error);
    im.left = arena.left;
    if (status == NIMBUS_OK)
        status = check_model(&im, model, error);
    if (status == NIMBUS_OK)
        status = build(&im, out, error);
    if (status == NIMBUS_OK)
        status = set_metadata(&im, *out, error);
    if (status != NIMBUS_OK) {
        nimbus_net_free(*out);
        *out = NULL;
    }
    nimbus_draft_free_all(&im);
    nimbus_graph_close(&im);
    nimbus_arena_free(&arena);
    if (status == NIMBUS_OK && report)
        *report = im.report;
    else
        nimbus_import_report_free(&im.report);
    return status;
}

nimbus_status nimbus_import_onnx_bytes(const void *bytes, size_t n_bytes,
                                       const nimbus_import_options *options, nimbus_net **out,
                                       nimbus_import_report *report, nimbus_error *error)
{
    *out = NULL;
    if (report)
        *report = (nimbus_import_report){0};
    return import_bytes(bytes, n_bytes, NULL, options, out, report, error);
}

/* What a file is if it begins as another framework's does, and how it becomes an ONNX model. */
static nimbus_status refuse_other_formats(const nimbus_buffer *file, nimbus_error *error)
{
    static const struct {
        const char *bytes;
        size_t at, n;
        const char *what;
    } formats[] = {
        {"TFL3", 4, 4,
         "a TensorFlow Lite model; python -m tf2onnx.convert --tflite makes an ONNX "
         "model of a float one"},
        {"PK\3\4", 0, 4,
         "a zip file, as PyTorch's .pt and Keras' .keras are; export the model with "
         "torch.onnx.export or tf2onnx"},
        {"\x89HDF", 0, 4, "an HDF5 file, as Keras' .h5 are; export the model with tf2onnx"},
        {"\0\0\0\0{", 4, 5, "a .net file or other safetensors"},
        {"NIMBUS\r\n", 0, 8, "a compiled .nimbus program"},
        {"\x80\2", 0, 2,
         "a Python pickle, as old .pt files are; export the model with "
         "torch.onnx.export"},
    };
    for (size_t i = 0; i < sizeof formats / sizeof *formats; i++)
        if (file->size >= formats[i].at + formats[i].n &&
            memcmp(file->bytes + formats[i].at, formats[i].bytes, formats[i].n) == 0)
            return nimbus_fail(error, NIMBUS_ERR_FORMAT, "no ONNX model but %s", formats[i].what);
    return NIMBUS_OK;
}

nimbus_status nimbus_import_onnx(const char *path, const nimbus_import_options *options,
                                 nimbus_net **out, nimbus_import_report *report,
                                 nimbus_error *error)
{
    nimbus_buffer bytes = {0};
    char *folder = nimbus_strdup(path), *slash = folder ? strrchr(folder, '/') : NULL;
    *out = NULL;
    if (report)
        *report = (nimbus_import_report){0};
    if (!folder)
        return nimbus_fail(error, NIMBUS_ERR_MEMORY, "no memory for a path");
    if (slash)
        slash[slash == folder] = '\0'; /* keeps the root's only slash */
    else
        folder[0] = '\0';
    nimbus_status status = nimbus_file_read(path, IMPORT_MAX_FILE, &bytes, error);
    if (status == NIMBUS_OK) {
        status = refuse_other_formats(&bytes, error);
        if (status == NIMBUS_OK)
            status = import_bytes(bytes.bytes, bytes.size, strcmp(path, "-") == 0 ? NULL : folder,
                                  options, out, report, error);
        if (status != NIMBUS_OK)
            status = nimbus_fail_prefix(error, status, "%s", path);
    }
    nimbus_buffer_free(&bytes);
    nimbus_free(folder);
    return status;
}

void nimbus_import_report_free(nimbus_import_report *report)
{
    nimbus_free(report->layers);
    nimbus_free(report->notes);
    *report = (nimbus_import_report){0};
}
