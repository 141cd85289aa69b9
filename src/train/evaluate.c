/* evaluate.c - accuracy and loss of a net over a data set, in batches of fixed size */
#include <math.h>

#include "train/train.h"

nimbus_status nimbus_evaluate_pass(nimbus_pass *pass, const nimbus_data *data,
                                   nimbus_evaluation *out, nimbus_error *error)
{
    const nimbus_net *net = pass->net;
    const nimbus_data_info *info = nimbus_data_get_info(data);
    const nimbus_loss_options loss = {.kind = net->loss, .temperature = 1};
    size_t n_outputs = nimbus_shape_width(net->layers[net->n_layers - 1].shape);
    nimbus_batches batches = {.data = data,
                              .width = info->n_features,
                              .n_outputs = n_outputs,
                              .n_threads = pass->n_threads};
    nimbus_status status = NIMBUS_OK;
    real *target = NULL;
    int32_t *label = nimbus_alloc(pass->max_rows, sizeof *label);
    size_t n_target, n_correct = 0;
    double loss_sum = 0;
    if (!nimbus_mul_overflows(pass->max_rows, n_outputs, &n_target))
        target = nimbus_alloc(n_target, sizeof *target);
    if (!target || !label) {
        status = nimbus_fail(error, NIMBUS_ERR_MEMORY, "no memory to evaluate %zu rows at a time",
                             pass->max_rows);
        goto done;
    }
    pass->training = false;
    for (size_t first = 0; first < info->n_rows; first += pass->max_rows) {
        size_t left = info->n_rows - first, n = left < pass->max_rows ? left : pass->max_rows;
        nimbus_batches_fill(&batches, NULL, first, n, 0, nimbus_pass_input(pass), target, label,
                            NULL);
        nimbus_pass_forward(pass, n, net->n_layers - 1);
        const real *y = pass->out[net->n_layers - 1];
        loss_sum += nimbus_loss_value(&loss, n, n_outputs, y, target, NULL, NULL) * (double)n;
        for (size_t i = 0; i < n; i++)
            n_correct +=
                label[i] >= 0 && nimbus_argmax(y + i * n_outputs, n_outputs) == (size_t)label[i];
    }
    *out = (nimbus_evaluation){
        .n_rows = info->n_rows,
        .n_correct = n_correct,
        .accuracy =
            nimbus_data_labels(data) ? (double)n_correct / (double)info->n_rows : (double)NAN,
        .loss = loss_sum / (double)info->n_rows,
    };
done:
    nimbus_free(target);
    nimbus_free(label);
    return status;
}

nimbus_status nimbus_evaluate(const nimbus_net *net, const nimbus_data *data, unsigned n_threads,
                              nimbus_evaluation *out, nimbus_error *error)
{
    nimbus_net *copy = NULL; /* a pass works in the net, which is the caller's and constant */
    nimbus_pass *pass = NULL;
    *out = (nimbus_evaluation){.accuracy = NAN, .loss = NAN};
    nimbus_status status = nimbus_settings_fit(net, 0, data, true, "data", error);
    if (status == NIMBUS_OK)
        status = nimbus_net_copy(net, &copy, error);
    if (status == NIMBUS_OK)
        status = nimbus_pass_new(copy, 0, NIMBUS_EVALUATE_ROWS, n_threads, &pass, error);
    if (status == NIMBUS_OK)
        status = nimbus_evaluate_pass(pass, data, out, error);
    nimbus_pass_free(pass);
    nimbus_net_free(copy);
    return status;
}
