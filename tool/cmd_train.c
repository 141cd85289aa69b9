/* cmd_train.c - nimbus train: a data set becomes a trained float net, or a native lookup net */
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "tool.h"

typedef struct train_arguments {
    common_arguments common;
    const char *net, *output, *teacher, *checkpoint;
    size_t epochs, batch, shift;
    int optimiser, schedule, flip;
    double rate, momentum, beta2, weight_decay, smoothing, mixup, noise;
    double distill, temperature, tau, margin_noise, code_noise, valid;
} train_arguments;

#define AT(field) offsetof(train_arguments, field)

static const char *const optimisers[] = {"adamw", "sgd", NULL};
static const char *const schedules[] = {"cosine", "one-cycle", "constant", NULL};

static const option_entry entries[] = {
    {"net", 'n', OPTION_TEXT, "SPEC", AT(net), 0, 0, NULL,
     "what to train: mlp:512,512 with ;bn, ;residual, ;relu|gelu|tanh|sigmoid, ;dropout=P after "
     "it, or lookup "
     "layers lut:392x16,256x10 with ;levels=H, ;window=W, ;span=N, or for images resnet8, resnet9 "
     "with ;width=CHANNELS (mlp:512,512)"},
    {"output", 'o', OPTION_TEXT, "FILE", AT(output), 0, 0, NULL, "where the trained net goes"},
    {"epochs", 'e', OPTION_COUNT, "N", AT(epochs), 1, 1e6, NULL,
     "passes over the training rows (40; lookup layers 20)"},
    {"batch", 'b', OPTION_COUNT, "ROWS", AT(batch), 1, 1e6, NULL, "rows per step (256)"},
    {"rate", 'r', OPTION_NUMBER, "X", AT(rate), 1e-9, 100, NULL,
     "peak learning rate (adamw 0.002, sgd 0.05, lookup layers 0.02)"},
    {"optimiser", 0, OPTION_CHOICE, "NAME", AT(optimiser), 0, 0, optimisers,
     "adamw or sgd (adamw)"},
    {"schedule", 0, OPTION_CHOICE, "NAME", AT(schedule), 0, 0, schedules,
     "of the learning rate: cosine, one-cycle or constant (cosine)"},
    {"momentum", 0, OPTION_NUMBER, "X", AT(momentum), 0, 0.9999, NULL, "of sgd (0.9)"},
    {"beta2", 0, OPTION_NUMBER, "X", AT(beta2), 0.001, 0.999999, NULL,
     "of adamw's squared gradients (0.999; lookup layers 0.99)"},
    {"weight-decay", 0, OPTION_NUMBER, "X", AT(weight_decay), 0, 10, NULL,
     "pull of the weights towards 0, per step and unit of rate (0.05; lookup layers 0)"},
    {"smoothing", 0, OPTION_NUMBER, "X", AT(smoothing), 0, 0.99, NULL,
     "part of each label spread over all classes (0.1; lookup layers 0)"},
    {"mixup", 0, OPTION_NUMBER, "A", AT(mixup), 0, 10, NULL,
     "mix pairs of rows with weights from Beta(A, A) (0: off)"},
    {"noise", 0, OPTION_NUMBER, "S", AT(noise), 0, 10, NULL,
     "noise added to the inputs, in standard deviations of a column (0)"},
    {"shift", 0, OPTION_COUNT, "PIXELS", AT(shift), 0, 16, NULL,
     "images are moved by up to this many pixels each way (1; tables 0)"},
    {"flip", 0, OPTION_FLAG, NULL, AT(flip), 0, 0, NULL,
     "images are mirrored left-right at random"},
    {"teacher", 0, OPTION_TEXT, "FILE", AT(teacher), 0, 0, NULL,
     "a trained .net whose outputs are imitated too (none)"},
    {"distill", 0, OPTION_NUMBER, "X", AT(distill), 0, 1, NULL,
     "weight of the teacher's part of the loss (0.5)"},
    {"temperature", 0, OPTION_NUMBER, "T", AT(temperature), 0.01, 100, NULL,
     "softens both sides' outputs for the teacher's part (2)"},
    {"tau", 0, OPTION_NUMBER, "X", AT(tau), 0.001, 100, NULL,
     "lookup layers: width of the thresholds' gradient, in standard deviations (0.3)"},
    {"margin-noise", 0, OPTION_NUMBER, "X", AT(margin_noise), 0, 10, NULL,
     "lookup layers: noise on comparisons, annealed to 0, in standard deviations (0)"},
    {"code-noise", 0, OPTION_NUMBER, "PART", AT(code_noise), 0, 0.9, NULL,
     "lookup layers of 32 trees and more: part of the codes that are drawn at random (0)"},
    {"valid", 0, OPTION_NUMBER, "PART", AT(valid), 0, 0.9, NULL,
     "part of the training rows held out and evaluated after every epoch (0.05)"},
    {"checkpoint", 0, OPTION_TEXT, "FILE", AT(checkpoint), 0, 0, NULL,
     "written every 30 s and every epoch, removed at the end; the same command resumes from it "
     "(OUTPUT.ckpt)"},
};

static int train_run(int argc, char **argv);

const nimbus_verb verb_train = {
    .name = "train",
    .purpose = "train a float net, or a net of lookup layers from the start",
    .usage = "--data SPEC -o FILE.net [options]",
    .about = "Trains the net on the training rows, writes it, and prints its accuracy on training, "
             "held-out and test rows. Interrupted (Ctrl-C, kill, power), the same command goes on "
             "from the checkpoint and ends with the same bytes.",
    .examples =
        {"nimbus train --data mnist -o float.net",
         "nimbus train --data mnist --net lut:392x16,256x10 --teacher float.net -o lut.net"},
    .groups = GROUP_DATA | GROUP_SEED | GROUP_THREADS,
    .options = entries,
    .n_options = sizeof entries / sizeof *entries,
    .run = train_run,
};

static int has_trees(const train_arguments *args)
{
    return strncmp(args->net, "lut:", 4) == 0;
}

/* What the user left open, by kind of net: found on held-out rows of MNIST and Fashion-MNIST. */
static void fill_defaults(train_arguments *args, const nimbus_data_info *data)
{
    int lookup = has_trees(args);
    if (args->epochs == LEFT_OPEN)
        args->epochs = lookup ? 20 : 40;
    if (args->shift == LEFT_OPEN)
        args->shift = default_shift(data);
    if (isnan(args->rate))
        args->rate = lookup ? 0.02 : 0; /* 0: the library's, by optimiser */
    if (isnan(args->beta2))
        args->beta2 = lookup ? 0.99 : 0;
    if (isnan(args->weight_decay))
        args->weight_decay = lookup ? 0 : 0.05;
    if (isnan(args->smoothing))
        args->smoothing = lookup || data->n_classes == 0 ? 0 : 0.1;
}

static nimbus_train_options train_options_of(const train_arguments *args)
{
    nimbus_train_options o = NIMBUS_TRAIN_OPTIONS_INIT;
    o.epochs = args->epochs;
    o.batch = args->batch;
    o.optimiser = (nimbus_optimiser)args->optimiser;
    o.schedule = (nimbus_schedule)args->schedule;
    o.rate = args->rate;
    o.momentum = given_or_none(args->momentum);
    o.beta2 = args->beta2;
    o.weight_decay = args->weight_decay;
    o.label_smoothing = args->smoothing;
    o.mixup = args->mixup;
    o.noise = args->noise;
    o.shift = (unsigned)args->shift;
    o.flip = args->flip;
    o.distill = given_or_none(args->distill);
    o.temperature = args->temperature;
    o.tau = args->tau;
    o.margin_noise = args->margin_noise;
    o.code_noise = args->code_noise;
    o.seed = args->common.seed;
    o.n_threads = (unsigned)args->common.threads;
    return o;
}

/* Lookup layers leave training as layers that only look up. */
static nimbus_status settle_layers(nimbus_net *net, nimbus_error *error)
{
    nimbus_net_info info;
    nimbus_net_get_info(net, &info);
    for (size_t i = 0; i < info.n_layers; i++) {
        nimbus_layer_info layer;
        nimbus_status status = nimbus_net_get_layer(net, i, &layer, error);
        if (!status && layer.state == NIMBUS_STATE_SOFT)
            status = nimbus_net_set_state(net, i, NIMBUS_STATE_LOOKUP, error);
        if (status)
            return status;
    }
    return NIMBUS_OK;
}

static nimbus_status train_and_save(const train_arguments *args, nimbus_net *net,
                                    const nimbus_net *teacher, const data_splits *splits,
                                    nimbus_train_report *report, json_t **curve,
                                    nimbus_error *error)
{
    progress_display display;
    nimbus_train_options o = train_options_of(args);
    char *checkpoint = path_and_suffix(args->output, ".ckpt");
    nimbus_status status;
    if (!checkpoint)
        return tool_error(error, NIMBUS_ERR_MEMORY, "out of memory");
    progress_init(&display, &args->common);
    o.teacher = teacher;
    o.valid = splits->valid;
    o.checkpoint = args->checkpoint ? args->checkpoint : checkpoint;
    o.progress = progress_show;
    o.progress_user = &display;
    work_begin();
    status = nimbus_train(net, splits->train, &o, report, error);
    progress_finish(&display);
    *curve = progress_curve(&display);
    if (!status)
        status = settle_layers(net, error);
    if (!status)
        status = nimbus_net_save(net, args->output, error);
    if (!status)
        status = remove_finished(o.checkpoint, error);
    if (status == NIMBUS_ERR_CANCELLED)
        status = tool_error(error, status, "interrupted; the same command goes on from %s",
                            o.checkpoint);
    work_end();
    free(checkpoint);
    return status;
}

static int report_result(const train_arguments *args, const nimbus_net *net,
                         const data_splits *splits, const nimbus_train_report *report,
                         json_t *curve)
{
    nimbus_net_info info;
    nimbus_error error;
    table t;
    nimbus_net_get_info(net, &info);
    json_t *json =
        json_pack("{s:s,s:s,s:I,s:I,s:I,s:o,s:b,s:O}", "output", args->output, "net", args->net,
                  "params", (json_int_t)info.n_params, "epochs", (json_int_t)report->epochs,
                  "steps", (json_int_t)report->steps, "seconds", json_number(report->seconds),
                  "resumed", report->resumed, "curve", curve);
    table_init(&t, "lrrr");
    table_heads(&t, "rows", "", "accuracy", "loss");
    if (splits_evaluate(net, splits, (unsigned)args->common.threads, &t, json, &error)) {
        json_decref(json);
        return fail(&error);
    }
    note(&args->common, "%s: %zu parameters, %zu epochs in %.1f s%s", args->output, info.n_params,
         report->epochs, report->seconds, report->resumed ? ", resumed" : "");
    return result_finish(&args->common, &t, json);
}

static int train_run(int argc, char **argv)
{
    train_arguments args = {.net = "mlp:512,512",
                            .epochs = LEFT_OPEN,
                            .shift = LEFT_OPEN,
                            .rate = NAN,
                            .momentum = NAN,
                            .beta2 = NAN,
                            .weight_decay = NAN,
                            .smoothing = NAN,
                            .distill = NAN,
                            .tau = 0.3,
                            .valid = 0.05};
    nimbus_error error = {0};
    nimbus_net *net = NULL, *teacher = NULL;
    data_splits splits = {0};
    nimbus_train_report report;
    nimbus_status status;
    json_t *curve = NULL;
    int result = EXIT_DONE;

    int code = options_parse(&verb_train, argc, argv, &args);
    if (code >= 0)
        return code;
    if (!args.common.data || !args.output)
        return usage_error(&verb_train, "%s is missing",
                           args.common.data ? "--output FILE" : "--data SPEC");
    if ((args.margin_noise > 0 || args.code_noise > 0) && !has_trees(&args))
        return usage_error(&verb_train,
                           "--margin-noise and --code-noise are of lookup layers, but --net %s has "
                           "none",
                           args.net);
    const int sgd = args.optimiser == NIMBUS_SGD;
    if (!isnan(sgd ? args.beta2 : args.momentum))
        return usage_error(&verb_train, "%s is of --optimiser %s, not of %s",
                           sgd ? "--beta2" : "--momentum", optimisers[!sgd],
                           optimisers[args.optimiser]);
    nimbus_net_options build = NIMBUS_NET_OPTIONS_INIT;
    build.spec = args.net;
    build.seed = args.common.seed;
    if ((status = output_check(args.output, &error)) ||
        (args.teacher && (status = net_open(args.teacher, &teacher, &error))) ||
        (status = splits_open(&args.common, NULL, args.valid, &splits, &error)) ||
        (status = nimbus_net_build(&build, splits.train, &net, &error)))
        goto done;
    fill_defaults(&args, nimbus_data_get_info(splits.train));
    if ((status = train_and_save(&args, net, teacher, &splits, &report, &curve, &error)))
        goto done;
    result = report_result(&args, net, &splits, &report, curve);
done:
    json_decref(curve);
    nimbus_net_free(net);
    nimbus_net_free(teacher);
    splits_close(&splits);
    return status ? fail(&error) : result;
}
