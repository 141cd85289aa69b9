/* cmd_eval.c - nimbus eval: accuracy and loss of a net or a program on a data set */
#include "tool.h"

static int eval_run(int argc, char **argv);

const nimbus_verb verb_eval = {
    .name = "eval",
    .purpose = "measure accuracy and loss of a net or a program",
    .usage = "MODEL --data SPEC [--split test] [options]",
    .about = "MODEL is a .net file (float or converted) or a compiled .nimbus program; which of "
             "them is seen from its content.",
    .examples = {"nimbus eval float.net --data mnist",
                 "nimbus eval mnist.nimbus --data mnist --split test --json"},
    .groups = GROUP_DATA | GROUP_SPLIT | GROUP_THREADS,
    .min_files = 1,
    .max_files = 1,
    .run = eval_run,
};

static int report_result(const common_arguments *common, const model *m, const nimbus_evaluation *e)
{
    table t;
    const char *path = common->files[0], *form = m->program ? "program" : "net";
    json_t *json = json_pack("{s:s,s:s,s:s,s:I,s:I,s:o,s:o}", "model", path, "form", form, "split",
                             split_names[common->split], "rows", (json_int_t)e->n_rows, "correct",
                             (json_int_t)e->n_correct, "accuracy", json_number(e->accuracy), "loss",
                             json_number(e->loss));
    table_init(&t, "llrrr");
    table_heads(&t, "model", "split", "rows", "accuracy", "loss");
    table_cell(&t, "%s", path);
    table_cell(&t, "%s", split_names[common->split]);
    table_size(&t, e->n_rows);
    table_percent(&t, e->accuracy);
    table_number(&t, "%.4f", e->loss);
    return result_finish(common, &t, json);
}

static int eval_run(int argc, char **argv)
{
    common_arguments common = {SPLIT_DEFAULTS};
    nimbus_error error = {0};
    nimbus_data *data = NULL;
    nimbus_evaluation result;
    model m = {0};
    nimbus_status status;

    int code = options_parse(&verb_eval, argc, argv, &common);
    if (code >= 0)
        return code;
    if (!common.data)
        return usage_error(&verb_eval, "--data SPEC is missing");
    if ((status = model_open(common.files[0], &m, &error)))
        goto done;
    nimbus_data_options o = data_options_of(&common, m.schema);
    if ((status = program_data_open(m.program, common.data, (nimbus_split)common.split, &o, &data,
                                    &error)))
        goto done;
    status = model_evaluate(&m, data, (unsigned)common.threads, &result, &error);
done:
    code = status ? fail(&error) : report_result(&common, &m, &result);
    model_close(&m);
    nimbus_data_free(data);
    return code;
}
