/* emit.c - the drafts become layers of a net, and lines of the report */
#include <math.h>
#include <stdio.h>
#include <string.h>

#include "import/import.h"

static size_t multiply_adds_of(const nimbus_draft *d)
{
    const nimbus_shape in = d->proto.in_shape, out = d->proto.shape;
    const nimbus_slide *s = &d->proto.slide;
    if (d->proto.type == &nimbus_layer_linear)
        return nimbus_shape_width(in) * out.channels;
    if (d->proto.type == &nimbus_layer_conv2d)
        return nimbus_shape_width(out) * (in.channels / d->proto.groups) * s->kernel[0] *
               s->kernel[1];
    return 0;
}

static nimbus_status set_values(const nimbus_draft *d, nimbus_layer *layer, nimbus_error *error)
{
    const char *node = d->node ? d->node->label : "the input";
    for (size_t k = 0; k < DRAFT_VALUES && d->values[k]; k++) {
        nimbus_param *p = &layer->params[k];
        if (k >= layer->n_params || p->n != d->n_values[k])
            return nimbus_fail(error, NIMBUS_ERR_MISMATCH,
                               "node %s: %zu values for a parameter of layer %s", node,
                               d->n_values[k], layer->name);
        for (size_t i = 0; i < p->n; i++) {
            p->value[i] = (real)d->values[k][i];
            if (!isfinite(p->value[i]))
                return nimbus_fail(error, NIMBUS_ERR_VALUE,
                                   "node %s: value %zu of its %s is %g, expected a finite number",
                                   node, i, p->name, (double)p->value[i]);
        }
    }
    return NIMBUS_OK;
}

/* Takes what a layer of the net will own off what the import may take. */
static nimbus_status claim_layer(nimbus_importer *im, const nimbus_draft *d, nimbus_error *error)
{
    size_t n = 0;
    for (size_t k = 0; k < DRAFT_VALUES; k++)
        n += d->n_values[k];
    return nimbus_import_claim(im, n, sizeof(real), error);
}

static void report_layer(nimbus_importer *im, const nimbus_draft *d, const nimbus_layer *layer)
{
    nimbus_import_report *r = &im->report;
    nimbus_import_layer *line = &r->layers[r->n_layers++];
    *line = (nimbus_import_layer){.channels = layer->shape.channels,
                                  .height = layer->shape.height,
                                  .width = layer->shape.width,
                                  .multiply_adds = multiply_adds_of(d)};
    (void)snprintf(line->name, sizeof line->name, "%s", layer->name);
    (void)snprintf(line->type, sizeof line->type, "%s", layer->type->name);
    (void)snprintf(line->node, sizeof line->node, "%s", d->node ? d->node->label : "");
    for (size_t k = 0; k < layer->n_params; k++)
        line->n_params += layer->params[k].statistic ? 0 : layer->params[k].n;
    r->n_params += line->n_params;
    r->multiply_adds += line->multiply_adds;
}

static nimbus_status emit_layer(nimbus_importer *im, nimbus_draft *d, nimbus_net *net,
                                size_t *index_of, nimbus_error *error)
{
    size_t inputs[NIMBUS_MAX_LAYER_INPUTS] = {0}, index = net->n_layers;
    nimbus_shape shape = d->proto.shape;
    const char *node = d->node ? d->node->label : "the input";
    for (size_t k = 0; k < d->n_inputs; k++)
        inputs[k] = index_of[d->inputs[k]];
    nimbus_status status = claim_layer(im, d, error);
    if (status == NIMBUS_OK)
        status = nimbus_net_add(net, &d->proto, inputs, d->n_inputs, 0, error);
    if (status != NIMBUS_OK)
        return nimbus_fail_prefix(error, status == NIMBUS_ERR_ARGUMENT ? NIMBUS_ERR_VALUE : status,
                                  "node %s", node);
    nimbus_layer *layer = &net->layers[index];
    index_of[d - im->drafts] = index;
    if (memcmp(&layer->shape, &shape, sizeof shape) != 0)
        return nimbus_fail(error, NIMBUS_ERR_MISMATCH,
                           "node %s: its layer %s makes rows of %zu x %zu x %zu, expected %zu x "
                           "%zu x %zu",
                           node, layer->name, layer->shape.channels, layer->shape.height,
                           layer->shape.width, shape.channels, shape.height, shape.width);
    status = set_values(d, layer, error);
    if (status == NIMBUS_OK)
        report_layer(im, d, layer);
    return status;
}

nimbus_status nimbus_draft_emit_all(nimbus_importer *im, size_t last, nimbus_net **out,
                                    nimbus_error *error)
{
    size_t n = 0, *index_of = NULL;
    nimbus_net *net = NULL;
    *out = NULL;
    for (size_t k = 0; k <= last; k++)
        n += im->drafts[k].n_users > 0;
    nimbus_status status;
    if (im->drafts[0].n_users == 0 || n < 2)
        return nimbus_fail(error, NIMBUS_ERR_UNSUPPORTED,
                           "no layer of the model computes anything");
    status = nimbus_import_alloc(im, last + 1, sizeof *index_of, (void *)&index_of, error);
    if (status == NIMBUS_OK)
        status = nimbus_import_alloc(im, n, sizeof *im->report.layers, (void *)&im->report.layers,
                                     error);
    if (status != NIMBUS_OK)
        goto done;
    net = nimbus_net_new();
    if (!net) {
        status = nimbus_fail(error, NIMBUS_ERR_MEMORY, "no memory for a net");
        goto done;
    }
    for (size_t k = 0; k <= last && status == NIMBUS_OK; k++)
        if (im->drafts[k].n_users > 0)
            status = emit_layer(im, &im->drafts[k], net, index_of, error);
    if (status == NIMBUS_OK) {
        *out = net;
        net = NULL;
    }
done:
    nimbus_net_free(net);
    nimbus_free(index_of);
    return status;
}
