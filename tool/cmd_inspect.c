/* cmd_inspect.c - nimbus inspect: what stands in a .net or a .nimbus file, and what a row costs */
#include <math.h>
#include <stdlib.h>

#include "tool.h"

static int inspect_run(int argc, char **argv);

const nimbus_verb verb_inspect = {
    .name = "inspect",
    .purpose = "show the layers of a net or the steps of a program, their sizes and costs",
    .usage = "MODEL [--json]",
    .about =
        "For a .net file: every layer with its state, shape, parameters, codebooks C, columns "
        "per codebook V, leaves K and the distinct input columns its trees read. For a "
        ".nimbus program: every step with bytes, lookups, comparisons, additions and "
        "multiply-adds per row; of a program on images, the windows and what every step makes, "
        "channels x height x width.",
    .examples = {"nimbus inspect lookup.net", "nimbus inspect mnist.nimbus --json"},
    .min_files = 1,
    .max_files = 1,
    .run = inspect_run,
};

static void cell_or_dash(table *t, size_t value)
{
    if (value)
        table_size(t, value);
    else
        table_cell(t, "-");
}

static json_t *net_layer(table *t, const nimbus_layer_info *layer, size_t *lookups)
{
    static const char *const kinds[] = {"shared", "node", "fern"};
    size_t c = layer->n_codebooks, k = c ? (size_t)1 << layer->n_levels : 0;
    int linear = layer->n_params > 0 && (c || layer->state != NIMBUS_STATE_DENSE);
    *lookups += c * layer->n_outputs;
    table_cell(t, "%s", layer->name);
    table_cell(t, "%s", layer->type);
    table_cell(t, "%s", linear ? nimbus_layer_state_name(layer->state) : "-");
    table_size(t, layer->n_inputs);
    table_size(t, layer->n_outputs);
    cell_or_dash(t, layer->n_params);
    cell_or_dash(t, c);
    if (c)
        table_cell(t, "%.3g", (double)layer->n_inputs / (double)c);
    else
        table_cell(t, "-");
    cell_or_dash(t, k);
    table_cell(t, "%s", c ? kinds[layer->tree] : "-");
    cell_or_dash(t, layer->live_columns);
    cell_or_dash(t, c * layer->n_outputs);
    return json_pack("{s:s,s:s,s:s,s:I,s:I,s:I,s:I,s:I,s:s,s:I,s:I,s:I,s:I}", "name", layer->name,
                     "type", layer->type, "state", nimbus_layer_state_name(layer->state), "inputs",
                     (json_int_t)layer->n_inputs, "outputs", (json_int_t)layer->n_outputs, "params",
                     (json_int_t)layer->n_params, "codebooks", (json_int_t)c, "leaves",
                     (json_int_t)k, "tree", c ? kinds[layer->tree] : "", "bits",
                     (json_int_t)layer->bits, "live_columns", (json_int_t)layer->live_columns,
                     "lookups", (json_int_t)(c * layer->n_outputs), "comparisons",
                     (json_int_t)(c * layer->n_levels));
}

static int inspect_net(const common_arguments *common, const nimbus_net *net)
{
    nimbus_net_info info;
    table t;
    nimbus_error error;
    size_t lookups = 0;
    nimbus_net_get_info(net, &info);
    json_t *layers = json_array(), *metadata = json_loads(info.metadata, 0, NULL);
    table_init(&t, "lllrrrrrrlrr");
    table_heads(&t, "layer", "type", "state", "inputs", "outputs", "params", "C", "V", "K", "tree",
                "live", "lookups");
    for (size_t i = 0; i < info.n_layers; i++) {
        nimbus_layer_info layer;
        if (nimbus_net_get_layer(net, i, &layer, &error)) {
            json_decref(layers);
            return fail(&error);
        }
        json_array_append_new(layers, net_layer(&t, &layer, &lookups));
    }
    if (!common->json)
        printf("%s: net of %zu layers, %zu %s inputs, %zu outputs, %zu parameters, %zu lookups a "
               "row\n\n",
               common->files[0], info.n_layers, info.n_inputs,
               info.input_dtype == NIMBUS_U8 ? "u8" : "f32", info.n_outputs, info.n_params,
               lookups);
    json_t *json =
        json_pack("{s:s,s:s,s:I,s:I,s:s,s:I,s:I,s:o,s:o}", "model", common->files[0], "form", "net",
                  "inputs", (json_int_t)info.n_inputs, "outputs", (json_int_t)info.n_outputs,
                  "input_type", info.input_dtype == NIMBUS_U8 ? "u8" : "f32", "params",
                  (json_int_t)info.n_params, "lookups", (json_int_t)lookups, "layers", layers,
                  "metadata", metadata ? metadata : json_null());
    return result_finish(common, &t, json);
}

/* "3x3/2" for a window of 3 x 3 that moves by 2, "-" for none; "16x32x32" for what a step makes. */
static void image_cells(table *t, const nimbus_step_info *step)
{
    if (!step->kernel_height)
        table_cell(t, "-");
    else if (step->stride_y == 1 && step->stride_x == 1)
        table_cell(t, "%zux%zu", step->kernel_height, step->kernel_width);
    else if (step->stride_y == step->stride_x)
        table_cell(t, "%zux%zu/%zu", step->kernel_height, step->kernel_width, step->stride_y);
    else
        table_cell(t, "%zux%zu/%zux%zu", step->kernel_height, step->kernel_width, step->stride_y,
                   step->stride_x);
    table_cell(t, "%zux%zux%zu", step->n_outputs, step->height, step->width);
}

static json_t *program_step(table *t, const nimbus_step_info *step)
{
    const char *kind = nimbus_step_kind_name(step->kind);
    size_t c = step->n_codebooks, k = c ? (size_t)1 << step->n_levels : 0;
    table_cell(t, "%s", step->name);
    table_cell(t, "%s", kind);
    if (step->height) {
        image_cells(t, step);
    } else {
        table_size(t, step->n_inputs);
        table_size(t, step->n_outputs);
    }
    cell_or_dash(t, c);
    cell_or_dash(t, k);
    table_cell(t, "%s", !c ? "-" : step->shared_columns ? "level" : "node");
    cell_or_dash(t, step->table_bits);
    table_size(t, step->bytes);
    cell_or_dash(t, step->lookups);
    cell_or_dash(t, step->comparisons);
    cell_or_dash(t, step->multiply_adds);
    json_t *json = json_pack(
        "{s:s,s:s,s:I,s:I,s:I,s:I,s:I,s:b,s:I,s:I,s:I,s:I}", "name", step->name, "kind", kind,
        "inputs", (json_int_t)step->n_inputs, "outputs", (json_int_t)step->n_outputs, "codebooks",
        (json_int_t)c, "leaves", (json_int_t)k, "bits", (json_int_t)step->table_bits,
        "shared_columns", step->shared_columns, "bytes", (json_int_t)step->bytes, "lookups",
        (json_int_t)step->lookups, "comparisons", (json_int_t)step->comparisons, "multiply_adds",
        (json_int_t)step->multiply_adds);
    if (step->height) {
        json_t *image =
            json_pack("{s:I,s:I,s:I,s:[I,I],s:[I,I],s:I}", "sources", (json_int_t)step->n_sources,
                      "height", (json_int_t)step->height, "width", (json_int_t)step->width,
                      "kernel", (json_int_t)step->kernel_height, (json_int_t)step->kernel_width,
                      "stride", (json_int_t)step->stride_y, (json_int_t)step->stride_x, "groups",
                      (json_int_t)step->n_groups);
        json_object_update(json, image);
        json_decref(image);
    }
    return json;
}

static int inspect_program(const common_arguments *common, const nimbus_program *program)
{
    const nimbus_program_info *info = nimbus_info(program);
    const char *dtype = info->input_dtype == NIMBUS_U8 ? "u8" : "f32";
    char image[80] = "";
    if (info->channels)
        snprintf(image, sizeof image, "images of %zux%zux%zu, ", info->channels, info->height,
                 info->width);
    table t;
    json_t *steps = json_array(), *metadata = json_loads(nimbus_metadata(program), 0, NULL);
    table_init(&t, "llrrrrlrrrrr");
    table_heads(&t, "step", "kind", info->channels ? "window" : "inputs",
                info->channels ? "makes" : "outputs", "C", "K", "column per", "bits", "bytes",
                "lookups", "compares", "mul-adds");
    for (size_t i = 0; i < info->n_steps; i++) {
        nimbus_step_info step;
        if (nimbus_step(program, i, &step) == NIMBUS_OK)
            json_array_append_new(steps, program_step(&t, &step));
    }
    if (!common->json)
        printf("%s: program of %zu steps, %s%zu %s inputs, %zu outputs, %zu bytes (%zu of tables)\n"
               "per row: %zu lookups (one addition each), %zu comparisons, %zu multiply-adds\n\n",
               common->files[0], info->n_steps, image, info->n_inputs, dtype, info->n_outputs,
               info->file_bytes, info->table_bytes, info->lookups, info->comparisons,
               info->multiply_adds);
    json_t *json = json_pack(
        "{s:s,s:s,s:I,s:I,s:s,s:I,s:I,s:I,s:I,s:I,s:f,s:s,s:o,s:o}", "model", common->files[0],
        "form", "program", "inputs", (json_int_t)info->n_inputs, "outputs",
        (json_int_t)info->n_outputs, "input_type", dtype, "bytes", (json_int_t)info->file_bytes,
        "table_bytes", (json_int_t)info->table_bytes, "lookups", (json_int_t)info->lookups,
        "comparisons", (json_int_t)info->comparisons, "multiply_adds",
        (json_int_t)info->multiply_adds, "output_scale", (double)info->output_scale, "isa",
        nimbus_isa(program), "steps", steps, "metadata", metadata ? metadata : json_null());
    return result_finish(common, &t, json);
}

static int inspect_run(int argc, char **argv)
{
    common_arguments common = {0};
    nimbus_error error = {0};
    model m;
    int code = options_parse(&verb_inspect, argc, argv, &common);
    if (code >= 0)
        return code;
    if (model_open(common.files[0], &m, &error))
        code = fail(&error);
    else if (m.net)
        code = inspect_net(&common, m.net);
    else
        code = inspect_program(&common, m.program);
    model_close(&m);
    return code;
}
