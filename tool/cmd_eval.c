/* cmd_eval.c - nimbus eval: accuracy and loss of a net or a program on a data set */
#include "tool.h"

typedef struct eval_arguments {
    common_arguments common;
    int split;
    double valid;
} eval_arguments;

static const char *const splits[] = {"all", "train", "valid", "test", NULL};

static const option_entry entries[] = {
    {"split", 0, OPTION_CHOICE, "NAME", offsetof(eval_arguments, split), 0, 0, splits,
     "rows to use: train, valid, test or all (test)"},
    {"valid", 0, OPTION_NUMBER, "PART", offsetof(eval_arguments, valid), 0, 0.9, NULL,
     "part of the training rows that was held out in training (0.05)"},
};

static int eval_run(int argc, char **argv);

const nimbus_verb verb_eval = {
    .name = "eval",
    .purpose = "measure accuracy and loss of a net or a program",
    .usage = "MODEL --data SPEC [--split test] [options]",
    .about = "MODEL is a .net file (float or converted) or a compiled .nimbus program; which of "
             "them is seen from its content.",
    .examples = {"nimbus eval float.net --data mnist",
                 "nimbus eval mnist.nimbus --data mnist --split test --json"},
    .groups = GROUP_DATA | GROUP_THREADS,
    .options = entries,
    .n_options = sizeof entries / sizeof *entries,
    .min_files = 1,
    .max_files = 1,
    .run = eval_run,
};

static int report_result(const eval_arguments *args, const model *m, const nimbus_evaluation *e)
{
    table t;
    const char *path = args->common.files[0], *form = m->program ? "program" : "net";
    json_t *json = json_pack("{s:s,s:s,s:s,s:I,s:I,s:o,s:o}", "model", path, "form", form, "split",
                             splits[args->split], "rows", (json_int_t)e->n_rows, "correct",
                             (json_int_t)e->n_correct, "accuracy", json_number(e->accuracy), "loss",
                             json_number(e->loss));
    table_init(&t, "llrrr");
    table_heads(&t, "model", "split", "rows", "accuracy", "loss");
    table_cell(&t, "%s", path);
    table_cell(&t, "%s", splits[args->split]);
    table_size(&t, e->n_rows);
    table_percent(&t, e->accuracy);
    table_number(&t, "%.4f", e->loss);
    return result_finish(&args->common, &t, json);
}

static int eval_run(int argc, char **argv)
{
    eval_arguments args = {.split = NIMBUS_SPLIT_TEST, .valid = 0.05};
    nimbus_error error = {0};
    nimbus_data *data = NULL;
    nimbus_evaluation result;
    model m = {0};
    nimbus_status status;

    int code = options_parse(&verb_eval, argc, argv, &args);
    if (code >= 0)
        return code;
    if (!args.common.data)
        return usage_error(&verb_eval, "--data SPEC is missing");
    if ((status = model_open(args.common.files[0], &m, &error)))
        goto done;
    nimbus_data_options o = data_options_of(&args.common, m.schema);
    o.valid_fraction = args.valid;
    if ((status = nimbus_data_open(args.common.data, (nimbus_split)args.split, &o, &data, &error)))
        goto done;
    status = model_evaluate(&m, data, (unsigned)args.common.threads, &result, &error);
done:
    code = status ? fail(&error) : report_result(&args, &m, &result);
    model_close(&m);
    nimbus_data_free(data);
    return code;
}
