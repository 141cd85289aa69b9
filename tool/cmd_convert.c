/* cmd_convert.c - nimbus convert: the linear layers of a float net become trees and tables */
#include <math.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>

#include "tool.h"

typedef struct convert_arguments {
    common_arguments common;
    const char *output, *layers, *checkpoint;
    int method, speed, accuracy, tree, splits, tables, estimator, no_fine_tune, flip, sensitivity;
    size_t v, levels, trees, bits, epochs, fit_rows;
    double lambda, most_change, layer_epochs, rate, distill, temperature, hint, tau, margin_noise,
        code_noise, valid;
    size_t batch, shift;
    double smoothing, weight_decay, mixup, noise, budget;
} convert_arguments;

#define AT(field) offsetof(convert_arguments, field)

const char *const method_names[] = {"nimbus",      "maddness",     "stella-nera", "lut-nn",
                                    "dense-start", "random-start", "seed",        NULL};
static const char *const trees[] = {"auto", "shared", "node", "fern", "few", NULL};
static const char *const split_methods[] = {"joined", "plain", NULL};
static const char *const table_methods[] = {"least-squares", "mean", NULL};
static const char *const estimators[] = {"flip", "sigmoid", "softmax", NULL};

static const option_entry entries[] = {
    {"output", 'o', OPTION_TEXT, "FILE", AT(output), 0, 0, NULL,
     "where the converted net goes (NET.lookup.net)"},
    {"speed", 0, OPTION_FLAG, NULL, AT(speed), 0, 0, NULL,
     "smaller and faster: 16 columns per codebook, tables of 7 bits; convolutions one tree a "
     "channel"},
    {"accuracy", 0, OPTION_FLAG, NULL, AT(accuracy), 0, 0, NULL,
     "closer to the float net: 4 columns per codebook; of convolutions those stay exact that cost "
     "most"},
    {"method", 0, OPTION_CHOICE, "NAME", AT(method), 0, 0, method_names,
     "to compare with: maddness, stella-nera, lut-nn, settings and epochs as published; not "
     "published: seed, layer by layer and nothing after that, and all layers at once from a "
     "dense-start or random-start (nimbus)"},
    {"budget", 0, OPTION_NUMBER, "EPOCHS", AT(budget), 0, 1e6, NULL,
     "rows that all trainings together see, in epochs, shared between layers and the last training "
     "as the method does; instead of --epochs, with --method of --layer-epochs too (0: not "
     "limited)"},
    {"v", 'v', OPTION_COUNT, "COLUMNS", AT(v), 1, 1u << 24, NULL,
     "input columns per codebook, V; of the first layer on average, fewer where much depends on "
     "them (8; fewer in layers of less than 128, for 16 codebooks; "
     "--speed 16, --accuracy 4)"},
    {"levels", 0, OPTION_COUNT, "H", AT(levels), 1, 8, NULL,
     "levels of a tree; it has 2^H leaves (4)"},
    {"trees", 0, OPTION_COUNT, "T", AT(trees), 1, 16, NULL,
     "trees for each group of V columns (convolutions 2, --speed 1; else 1)"},
    {"bits", 0, OPTION_COUNT, "BITS", AT(bits), 2, 32, NULL,
     "of a table entry, 2 to 8, or 32 for float tables (8; --speed 7)"},
    {"tree", 0, OPTION_CHOICE, "KIND", AT(tree), 0, 0, trees,
     "columns that a tree's nodes compare: shared, the same for all of a depth; node, any of V; "
     "few, any of those that shared would have, so that the layer before computes no more; fern, "
     "shared with one threshold a depth (auto: first layer node, others few; with convolutions or "
     "--speed shared)"},
    {"layers", 0, OPTION_TEXT, "LIST", AT(layers), 0, 0, NULL,
     "per layer: NAME:key=value,... with v, levels, trees, bits, tree, "
     "columns=block|patch|window|balanced|runs, or NAME:exact, separated by ';' (none)"},
    {"sensitivity", 0, OPTION_FLAG, NULL, AT(sensitivity), 0, 0, NULL,
     "only show what each layer costs and brings when it alone is converted, convolutions with 1 "
     "to 4 trees, before training"},
    {"most-change", 0, OPTION_NUMBER, "X", AT(most_change), -1, 1e9, NULL,
     "converted layers may change the outputs by this part of their variance, before training: it "
     "decides their trees, and which stay exact; -1: no limit (none; --accuracy with convolutions "
     "0.1)"},
    {"splits", 0, OPTION_CHOICE, "METHOD", AT(splits), 0, 0, split_methods,
     "trees lower the error of the outputs (joined) or of the inputs (plain) (joined)"},
    {"tables", 0, OPTION_CHOICE, "METHOD", AT(tables), 0, 0, table_methods,
     "fit of the tables: least-squares or mean (least-squares)"},
    {"fit-rows", 0, OPTION_COUNT, "N", AT(fit_rows), 2, 1e9, NULL,
     "rows that trees and tables are fitted on (30000)"},
    {"lambda", 0, OPTION_NUMBER, "X", AT(lambda), 0, 1e9, NULL,
     "ridge of the least squares, in rows per leaf (chosen on held-out rows)"},
    {"layer-epochs", 0, OPTION_NUMBER, "N", AT(layer_epochs), 0, 1000, NULL,
     "training of each layer after its fit (0: none; of other methods as published)"},
    {"epochs", 'e', OPTION_COUNT, "N", AT(epochs), 1, 1e6, NULL,
     "of fine-tuning all layers together (48, --speed 64, --accuracy 32, of few rows up to "
     "twice as many; with convolutions 16, 24, 12, up to 4 times as many)"},
    {"no-fine-tune", 0, OPTION_FLAG, NULL, AT(no_fine_tune), 0, 0, NULL,
     "leave the fine-tuning out"},
    {"batch", 'b', OPTION_COUNT, "ROWS", AT(batch), 1, 1e6, NULL,
     "rows per training step (256; of nets with convolutions 128)"},
    {"rate", 'r', OPTION_NUMBER, "X", AT(rate), 1e-9, 100, NULL,
     "peak learning rate of both trainings (of tables 6e-3, of thresholds 1e-3, in deep nets less "
     "and from 24 layers on 3e-3; with convolutions 5e-3)"},
    {"distill", 0, OPTION_NUMBER, "X", AT(distill), 0, 1, NULL,
     "weight of the float net's outputs against the labels (0.6; with convolutions 0.7)"},
    {"temperature", 0, OPTION_NUMBER, "T", AT(temperature), 0.01, 100, NULL,
     "softens both sides' outputs for that part (1; with convolutions 3)"},
    {"hint", 0, OPTION_NUMBER, "X", AT(hint), 0, 1000, NULL,
     "weight of what the float net gives wherever trees read (0.1 in nets without convolutions of "
     "up to 4 converted layers, 0.3 from 24 on, else 0)"},
    {"shift", 0, OPTION_COUNT, "PIXELS", AT(shift), 0, 16, NULL,
     "images are moved by up to this many pixels while fine-tuning (1, in colour 2; tables and "
     "floats 0)"},
    {"flip", 0, OPTION_FLAG, NULL, AT(flip), 0, 0, NULL,
     "images are mirrored left-right at random while fine-tuning"},
    {"mixup", 0, OPTION_NUMBER, "A", AT(mixup), 0, 10, NULL,
     "mix pairs of rows with weights from Beta(A, A) while fine-tuning: for few rows (0: off)"},
    {"noise", 0, OPTION_NUMBER, "S", AT(noise), 0, 10, NULL,
     "noise on the inputs while fine-tuning, in standard deviations of a column (0)"},
    {"smoothing", 0, OPTION_NUMBER, "X", AT(smoothing), 0, 0.99, NULL,
     "part of each label spread over all classes (0)"},
    {"weight-decay", 0, OPTION_NUMBER, "X", AT(weight_decay), 0, 10, NULL, "of the tables (0)"},
    {"estimator", 0, OPTION_CHOICE, "NAME", AT(estimator), 0, 0, estimators,
     "gradient of a tree: flip, sigmoid or softmax (flip)"},
    {"tau", 0, OPTION_NUMBER, "X", AT(tau), 0.001, 100, NULL,
     "width of the thresholds' gradient, in standard deviations (0.5, of more than 4 "
     "converted layers 1; with convolutions 0.7 falling to 0.4)"},
    {"margin-noise", 0, OPTION_NUMBER, "X", AT(margin_noise), 0, 10, NULL,
     "noise on comparisons while fine-tuning, annealed to 0, in standard deviations (0.15 in nets "
     "without convolutions of up to 4 converted layers, else 0)"},
    {"code-noise", 0, OPTION_NUMBER, "PART", AT(code_noise), 0, 0.9, NULL,
     "part of the codes that are drawn at random while fine-tuning, in layers of 32 codebooks and "
     "more (0.02 in nets without convolutions of up to 4 converted layers, with --shift 0; else "
     "0)"},
    {"valid", 0, OPTION_NUMBER, "PART", AT(valid), 0, 0.9, NULL,
     "part of the training rows held out and evaluated before the last training and after "
     "each of its epochs (0.05)"},
    {"checkpoint", 0, OPTION_TEXT, "FILE", AT(checkpoint), 0, 0, NULL,
     "the same command resumes from it, removed at the end (OUTPUT.ckpt)"},
};

static int convert_run(int argc, char **argv);

const nimbus_verb verb_convert = {
    .name = "convert",
    .purpose = "replace the matrix products of a trained net by trees and tables",
    .usage = "FLOAT.net --data SPEC [-o FILE.net] [options]",
    .about = "Fits trees and tables to every linear layer of a trained float net, in nets with "
             "convolutions to all but the classifier, those of few inputs and those in groups, "
             "layer by layer, then fine-tunes them all with the float net as teacher. The "
             "defaults need no touching; --speed and --accuracy choose the trade. Interrupted, the "
             "same command "
             "goes on from the checkpoint.",
    .examples =
        {"nimbus convert float.net --data mnist",
         "nimbus convert float.net --data mnist --speed --layers linear3:exact -o fast.net"},
    .groups = GROUP_DATA | GROUP_SEED | GROUP_THREADS,
    .options = entries,
    .n_options = sizeof entries / sizeof *entries,
    .min_files = 1,
    .max_files = 1,
    .run = convert_run,
};

static nimbus_convert_options convert_options_of(const convert_arguments *args,
                                                 const nimbus_data_info *data)
{
    nimbus_convert_options o = NIMBUS_CONVERT_OPTIONS_INIT;
    o.method = (nimbus_method)args->method;
    o.budget = args->budget;
    o.preset = args->speed ? NIMBUS_SPEED : args->accuracy ? NIMBUS_ACCURACY : NIMBUS_BALANCED;
    o.v = args->v;
    o.levels = args->levels;
    o.trees = args->trees;
    o.bits = (unsigned)args->bits;
    o.tree = (nimbus_tree_choice)args->tree;
    o.split_method = (nimbus_split_method)args->splits;
    o.table_method = (nimbus_table_method)args->tables;
    o.estimator = (nimbus_estimator)args->estimator;
    o.layers = args->layers;
    o.fit_rows = args->fit_rows;
    o.lambda = args->lambda;
    o.most_change = args->most_change;
    o.layer_epochs = args->layer_epochs;
    o.epochs = args->no_fine_tune ? SIZE_MAX : args->epochs;
    o.train.batch = args->batch;
    o.train.rate = args->rate;
    o.train.distill = given_or_none(args->distill);
    o.train.temperature = args->temperature;
    o.train.hint = given_or_none(args->hint);
    o.train.shift = (unsigned)(args->shift == LEFT_OPEN ? default_shift(data) : args->shift);
    o.train.flip = args->flip;
    o.train.mixup = args->mixup;
    o.train.noise = args->noise;
    o.train.label_smoothing = args->smoothing;
    o.train.weight_decay = args->weight_decay;
    o.train.tau = args->tau;
    o.train.margin_noise = given_or_none(args->margin_noise);
    o.train.code_noise = given_or_none(args->code_noise);
    o.seed = args->common.seed;
    o.n_threads = (unsigned)args->common.threads;
    return o;
}

/* Options for work that shows its progress; ends with progress_finish and work_end. */
static nimbus_convert_options start(const convert_arguments *args, const data_splits *splits,
                                    progress_display *display)
{
    nimbus_convert_options o = convert_options_of(args, nimbus_data_get_info(splits->train));
    progress_init(display, &args->common);
    o.valid = splits->valid;
    o.progress = progress_show;
    o.progress_user = display;
    work_begin();
    return o;
}

/* Says how good the float net is on these data before work begins that takes long: a net that was
 * imported or given other data than it knows shows here. */
static nimbus_status note_float(const convert_arguments *args, const nimbus_net *teacher,
                                const data_splits *splits, nimbus_error *error)
{
    nimbus_evaluation e;
    if (!splits->valid || args->common.quiet)
        return NIMBUS_OK;
    nimbus_status status =
        nimbus_evaluate(teacher, splits->valid, (unsigned)args->common.threads, &e, error);
    if (!status && isfinite(e.accuracy))
        note(&args->common, "%s: %.2f %% of %zu held-out rows right", args->common.files[0],
             100 * e.accuracy, e.n_rows);
    else if (!status)
        note(&args->common, "%s: loss %.4g on %zu held-out rows", args->common.files[0], e.loss,
             e.n_rows);
    return status;
}

static nimbus_status convert_and_save(const convert_arguments *args, const nimbus_net *teacher,
                                      const data_splits *splits, nimbus_net **out,
                                      nimbus_convert_report *report, json_t **curve,
                                      nimbus_error *error)
{
    progress_display display;
    nimbus_convert_options o = start(args, splits, &display);
    o.checkpoint = args->checkpoint;
    nimbus_status status = nimbus_convert(teacher, splits->train, &o, out, report, error);
    progress_finish(&display);
    *curve = progress_curve(&display);
    if (!status)
        status = nimbus_net_save(*out, args->output, error);
    if (!status)
        status = remove_finished(args->checkpoint, error);
    if (status == NIMBUS_ERR_CANCELLED)
        status = tool_error(error, status, "interrupted; the same command goes on from %s",
                            args->checkpoint);
    work_end();
    return status;
}

static json_t *sensitivities_report(const nimbus_convert_report *report, table *t)
{
    json_t *list = json_array();
    table_heads(t, "layer", "trees: change", "", "", "", "multiply-adds", "lookups a tree",
                "chosen");
    for (size_t i = 0; i < report->n_sensitivities && i < NIMBUS_REPORT_LAYERS; i++) {
        const nimbus_sensitivity *s = &report->sensitivities[i];
        table_cell(t, "%s", s->name);
        json_t *changes = json_array();
        for (size_t k = 0; k < NIMBUS_TREES_TRIED; k++) {
            if (k >= s->n_changes) {
                table_cell(t, "%s", "");
                continue;
            }
            table_cell(t, "%zu: %.4f", s->first_trees + k, s->change[k]);
            json_array_append_new(changes,
                                  json_pack("{s:I,s:o}", "trees", (json_int_t)(s->first_trees + k),
                                            "change", json_number(s->change[k])));
        }
        table_size(t, s->multiply_adds);
        table_size(t, s->lookups);
        if (s->trees)
            table_size(t, s->trees);
        else
            table_cell(t, "exact");
        json_array_append_new(
            list, json_pack("{s:s,s:o,s:I,s:I,s:I}", "name", s->name, "changes", changes,
                            "multiply_adds", (json_int_t)s->multiply_adds, "lookups_a_tree",
                            (json_int_t)s->lookups, "trees", (json_int_t)s->trees));
    }
    return list;
}

static json_t *layers_report(const nimbus_convert_report *report, table *t)
{
    json_t *list = json_array();
    table_heads(t, "layer", "codebooks", "leaves", "fit error", "seconds");
    for (size_t i = 0; i < report->n_layers && i < NIMBUS_REPORT_LAYERS; i++) {
        const nimbus_convert_layer_report *layer = &report->layers[i];
        table_cell(t, "%s", layer->name);
        table_size(t, layer->n_codebooks);
        table_size(t, (size_t)1 << layer->n_levels);
        table_number(t, "%.4f", layer->error_fit);
        table_number(t, "%.1f", layer->seconds);
        json_array_append_new(list, json_pack("{s:s,s:I,s:I,s:o,s:o}", "name", layer->name,
                                              "codebooks", (json_int_t)layer->n_codebooks, "levels",
                                              (json_int_t)layer->n_levels, "error",
                                              json_number(layer->error_fit), "seconds",
                                              json_number(layer->seconds)));
    }
    return list;
}

/* Accuracy of a split in what splits_evaluate reported; NaN: there is none. */
static double accuracy_of(const json_t *splits, const char *split)
{
    return number_of_json(json_object_get(json_object_get(splits, split), "accuracy"));
}

/* Says so if the conversion cost more than a point; the test rows are not to choose by. */
static void note_loss(const convert_arguments *args, const json_t *before, const json_t *after)
{
    const char *split = json_object_get(before, "valid") ? "valid" : "train";
    double points = 100 * (accuracy_of(before, split) - accuracy_of(after, split));
    double overfit = accuracy_of(after, "train") - accuracy_of(after, split) -
                     (accuracy_of(before, "train") - accuracy_of(before, split));
    if (points > 1)
        note(&args->common, "the converted net loses %.1f points on the %s; %s", points,
             *split == 'v' ? "held-out rows" : "training rows",
             100 * overfit > points / 2 ? "less on the others: more rows, --mixup or --noise help"
             : args->accuracy           ? "a smaller -v keeps more"
                                        : "--accuracy or a smaller -v keeps more");
}

/* Whether the net has lookup layers and no layer is left to convert. */
static int is_converted(const nimbus_net *net, size_t n_layers)
{
    int n_lookup = 0;
    for (size_t i = 0; i < n_layers; i++) {
        nimbus_layer_info layer;
        nimbus_error ignored;
        if (nimbus_net_get_layer(net, i, &layer, &ignored))
            return 0;
        if (strcmp(layer.type, "linear") == 0 && layer.state < NIMBUS_STATE_SOFT)
            return 0;
        n_lookup += layer.n_codebooks > 0;
    }
    return n_lookup > 0;
}

static int report_result(const convert_arguments *args, const nimbus_net *teacher,
                         const nimbus_net *net, const data_splits *splits,
                         const nimbus_convert_report *report, json_t *curve)
{
    table layers, choice, t;
    nimbus_error error;
    const unsigned n_threads = (unsigned)args->common.threads;
    json_t *before = json_object(), *after = json_object();
    table_init(&layers, "lrrrr");
    table_init(&choice, "lrrrrrrr");
    json_t *json = json_pack(
        "{s:s,s:s,s:O,s:o,s:o,s:o,s:o,s:o,s:o,s:o}", "output", args->output, "method",
        method_names[args->method], "curve", curve, "sensitivity",
        sensitivities_report(report, &choice), "layers", layers_report(report, &layers), "float",
        before, "converted", after, "seconds", json_number(report->seconds), "fit_seconds",
        json_number(report->fit_seconds), "tune_seconds", json_number(report->tune_seconds));
    table_init(&t, "lrrr");
    table_heads(&t, "float net", "rows", "accuracy", "loss");
    nimbus_status status = splits_evaluate(teacher, splits, n_threads, &t, before, &error);
    table_heads(&t, "converted", "", "", "");
    if (!status)
        status = splits_evaluate(net, splits, n_threads, &t, after, &error);
    if (status) {
        json_decref(json);
        return fail(&error);
    }
    if (!args->common.json) {
        if (report->n_sensitivities) {
            table_print(&choice, stdout);
            putchar('\n');
        }
        table_print(&layers, stdout);
        putchar('\n');
    }
    note(&args->common, "%s: converted in %.1f s", args->output, report->seconds);
    note_loss(args, before, after);
    return result_finish(&args->common, &t, json);
}

/* --sensitivity */
static nimbus_status only_measure(const convert_arguments *args, const nimbus_net *teacher,
                                  const data_splits *splits, nimbus_convert_report *report,
                                  nimbus_error *error)
{
    progress_display display;
    nimbus_convert_options o = start(args, splits, &display);
    nimbus_status status = nimbus_convert_sensitivity(teacher, splits->train, &o, report, error);
    progress_finish(&display);
    work_end();
    return status;
}

static int report_sensitivity(const convert_arguments *args, const nimbus_convert_report *report)
{
    table t;
    table_init(&t, "lrrrrrrr");
    json_t *json = json_object();
    json_object_set_new(json, "sensitivity", sensitivities_report(report, &t));
    return result_finish(&args->common, &t, json);
}

/* An option that is given but would change nothing, and why; NULL: none. */
static const char *idle_option(const convert_arguments *args, const char **why)
{
    enum { ANY, LAYERS, TOGETHER }; /* trainings that an option is of */
    const int method = args->method, ours = method == NIMBUS_METHOD_NIMBUS;
    const int seed = method == NIMBUS_METHOD_SEED;
    const int has[] = {[ANY] = 1,
                       [LAYERS] = ours || seed || method == NIMBUS_METHOD_STELLA_NERA,
                       [TOGETHER] =
                           !args->no_fine_tune && !seed && method != NIMBUS_METHOD_MADDNESS};
    const struct {
        const char *name;
        int given, of_ours, training;
    } options[] = {{"--tree", args->tree != 0, 1, ANY},
                   {"--splits", args->splits != 0, 1, ANY},
                   {"--tables", args->tables != 0, 1, ANY},
                   {"--estimator", args->estimator != 0, 1, ANY},
                   {"--most-change", args->most_change != 0, 1, ANY},
                   {"--sensitivity", args->sensitivity != 0, 1, ANY},
                   {"--distill", args->distill > 0, 1, ANY},
                   {"--temperature", args->temperature > 0, 1, ANY},
                   {"--hint", args->hint > 0, 1, TOGETHER},
                   {"--margin-noise", args->margin_noise > 0, 1, TOGETHER},
                   {"--code-noise", args->code_noise > 0, 1, TOGETHER},
                   {"--epochs", args->epochs > 0, 0, TOGETHER},
                   {"--flip", args->flip, 0, TOGETHER},
                   {"--mixup", args->mixup > 0, 0, TOGETHER},
                   {"--noise", args->noise > 0, 0, TOGETHER},
                   {"--shift", args->shift > 0 && args->shift != LEFT_OPEN, 0, TOGETHER},
                   {"--layer-epochs", args->layer_epochs > 0, 0, LAYERS}};
    for (size_t i = 0; i < sizeof options / sizeof *options; i++) {
        const int published = options[i].of_ours && !ours;
        if (!options[i].given || (!published && has[options[i].training]))
            continue;
        *why = published ? "it is as published" : "there is no training that this is of";
        return options[i].name;
    }
    return NULL;
}

static int convert_run(int argc, char **argv)
{
    convert_arguments args = {.valid = 0.05,
                              .shift = LEFT_OPEN,
                              .distill = NAN,
                              .hint = NAN,
                              .margin_noise = NAN,
                              .code_noise = NAN};
    nimbus_error error = {0};
    nimbus_net *teacher = NULL, *net = NULL;
    data_splits splits = {0};
    static nimbus_convert_report report;
    nimbus_net_info info;
    char *output = NULL, *checkpoint = NULL, *schema = NULL;
    json_t *curve = NULL;
    nimbus_status status;
    int result = EXIT_DONE;

    int code = options_parse(&verb_convert, argc, argv, &args);
    if (code >= 0)
        return code;
    if (!args.common.data)
        return usage_error(&verb_convert, "--data SPEC is missing");
    if (args.speed && args.accuracy)
        return usage_error(&verb_convert, "--speed and --accuracy exclude each other");
    if (args.budget > 0 && args.epochs > 0)
        return usage_error(&verb_convert, "--budget and --epochs exclude each other");
    const char *why, *idle = idle_option(&args, &why);
    if (idle)
        return usage_error(&verb_convert, "%s%s takes no %s: %s", args.method ? "--method " : "",
                           args.method ? method_names[args.method] : "--no-fine-tune", idle, why);
    if (args.method && args.shift == LEFT_OPEN)
        args.shift = 0;
    if (args.bits > 8 && args.bits != 32)
        return usage_error(&verb_convert, "--bits: %zu is neither 2 to 8 nor 32", args.bits);
    if (!args.output)
        args.output = output = path_with_suffix(args.common.files[0], ".lookup.net");
    if (args.output && !args.checkpoint)
        args.checkpoint = checkpoint = path_and_suffix(args.output, ".ckpt");
    if (!args.output || !args.checkpoint) {
        status = tool_error(&error, NIMBUS_ERR_MEMORY, "out of memory");
        goto done;
    }
    if ((status = output_check(args.output, &error)) ||
        (status = net_open(args.common.files[0], &teacher, &error)))
        goto done;
    nimbus_net_get_info(teacher, &info);
    schema = schema_of_metadata(info.metadata, NULL);
    if (is_converted(teacher, info.n_layers))
        note(&args.common,
             "%s: all layers are tables already, none is fitted; they are only "
             "quantised and fine-tuned",
             args.common.files[0]);
    if ((status = splits_open(&args.common, schema, args.valid, &splits, &error)))
        goto done;
    if (args.sensitivity) {
        if ((status = only_measure(&args, teacher, &splits, &report, &error)) == NIMBUS_OK)
            result = report_sensitivity(&args, &report);
        goto done;
    }
    if ((status = note_float(&args, teacher, &splits, &error)) ||
        (status = convert_and_save(&args, teacher, &splits, &net, &report, &curve, &error)))
        goto done;
    result = report_result(&args, teacher, net, &splits, &report, curve);
done:
    nimbus_net_free(net);
    nimbus_net_free(teacher);
    splits_close(&splits);
    free(output);
    free(checkpoint);
    free(schema);
    json_decref(curve);
    return status ? fail(&error) : result;
}
