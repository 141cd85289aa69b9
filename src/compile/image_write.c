/* image_write.c - the bytes of a program on images */
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "compile/image.h"

static size_t count(const bool *flags, size_t n)
{
    size_t sum = 0;
    for (size_t i = 0; i < n; i++)
        sum += flags[i];
    return sum;
}

static const bool *source_live(const nimbus_image_build *b, const nimbus_node *node)
{
    return b->nodes[node->sources[0]].live;
}

/* Flag bits and everything else of the 144 bytes in front of the arrays. */
static void write_header(const nimbus_node *node, uint32_t flags, nimbus_buffer *out)
{
    bool lookup = node->kind == NIMBUS_NODE_LOOKUP, window = nimbus_node_has_window(node);
    size_t m = count(node->live, node->shape.channels);
    const nimbus_slide *s = &node->slide;
    size_t groups = nimbus_node_is_product(node) ? node->plain ? m : node->groups : 0;
    const size_t words[] = {node->kind,
                            node->n_sources,
                            m,
                            lookup ? count(node->used, node->layer->lookup->n_codebooks) : 0,
                            lookup ? node->layer->lookup->n_levels : 0,
                            flags,
                            node->output,
                            node->shift,
                            groups,
                            s->kernel[0],
                            s->kernel[1],
                            s->stride[0],
                            s->stride[1],
                            s->dilation[0],
                            s->dilation[1],
                            s->before[0],
                            s->after[0],
                            s->before[1],
                            s->after[1]};
    char name[NIMBUS_STEP_NAME_BYTES] = {0};
    for (size_t i = 0; i < sizeof words / sizeof *words; i++)
        nimbus_write_u32le(out, i < 9 || window ? (uint32_t)words[i] : 0);
    nimbus_write_u32le(out, (uint32_t)node->low);
    nimbus_write_u32le(out, (uint32_t)node->high);
    for (size_t i = 0; i < 3; i++)
        nimbus_write_u32le(out, 0);
    memcpy(name, node->layer->name, strnlen(node->layer->name, sizeof name - 1));
    nimbus_write_bytes(out, name, sizeof name);
}

static void write_sources(const nimbus_node *node, nimbus_buffer *out)
{
    nimbus_array_begin(out);
    for (size_t k = 0; k < node->n_sources; k++)
        nimbus_write_u32le(out, (uint32_t)node->sources[k]);
}

static void write_pad(const nimbus_image_build *b, const nimbus_node *node, nimbus_buffer *out)
{
    const bool *live = source_live(b, node);
    nimbus_array_begin(out);
    for (size_t c = 0; c < node->in.channels; c++)
        if (live[c])
            nimbus_write_u8(out, (uint8_t)(node->pad ? node->pad[c]
                                                     : nimbus_image_zero(b, node->sources[0], c)));
}

static nimbus_status write_trees(const nimbus_image_build *b, const nimbus_node *node,
                                 double *reach, nimbus_buffer *out, nimbus_error *error)
{
    const bool *live = source_live(b, node);
    size_t taps = nimbus_node_taps(node), n = node->in.channels * taps;
    uint32_t *number = nimbus_alloc(n, sizeof *number);
    uint32_t *rank = nimbus_alloc(node->in.channels, sizeof *rank), next = 0;
    nimbus_status status;
    if (!number || !rank) {
        nimbus_free(number);
        nimbus_free(rank);
        return nimbus_fail(error, NIMBUS_ERR_MEMORY, "no memory to write layer %s",
                           node->layer->name);
    }
    for (size_t c = 0; c < node->in.channels; c++) {
        rank[c] = next;
        next += live[c];
    }
    for (size_t d = 0; d < n; d++) {
        size_t element = node->order ? node->order[d] : d;
        number[d] = (uint32_t)(rank[element / taps] * taps + element % taps);
    }
    nimbus_trees_build trees = {.layer = node->layer,
                                .splits = node->splits,
                                .number = number,
                                .unit = node->unit,
                                .tables = node->tables,
                                .live = node->live,
                                .used = node->used};
    status = nimbus_trees_write(&trees, reach, out, error);
    nimbus_free(number);
    nimbus_free(rank);
    return status;
}

static void write_weights(const nimbus_image_build *b, const nimbus_node *node, double *reach,
                          nimbus_buffer *out)
{
    const bool *live = source_live(b, node);
    size_t taps = nimbus_node_taps(node), depth = node->in.channels / node->groups * taps;
    nimbus_array_begin(out);
    for (size_t m = 0; m < node->shape.channels; m++) {
        double sum = 0;
        for (size_t d = 0; node->live[m] && d < depth; d++) {
            int8_t w = node->weight[m * depth + d];
            if (node->groups == 1 && !live[d / taps])
                continue;
            nimbus_write_u8(out, (uint8_t)w);
            sum += abs(w);
        }
        *reach = 128 * sum > *reach ? 128 * sum : *reach;
    }
}

static void write_floats(const nimbus_node *node, const double *values, nimbus_buffer *out)
{
    nimbus_array_begin(out);
    for (size_t m = 0; m < node->shape.channels; m++)
        if (node->live[m])
            nimbus_write_f32le(out, (float)values[m]);
}

static nimbus_status write_product(const nimbus_image_build *b, const nimbus_node *node,
                                   nimbus_buffer *out, nimbus_error *error)
{
    double reach = 0, largest = 0;
    nimbus_status status = NIMBUS_OK;
    if (node->kind == NIMBUS_NODE_LOOKUP)
        status = write_trees(b, node, &reach, out, error);
    else
        write_weights(b, node, &reach, out);
    if (status)
        return status;
    nimbus_array_begin(out);
    for (size_t m = 0; m < node->shape.channels; m++)
        if (node->live[m]) {
            nimbus_write_u32le(out, (uint32_t)node->bias[m]);
            largest = fmax(largest, fabs((double)node->bias[m]));
        }
    if (reach + largest > 2147483647.0)
        return nimbus_fail(error, NIMBUS_ERR_LIMIT,
                           "layer %s: a sum can reach %.0f, more than 32 bits hold",
                           node->layer->name, reach + largest);
    return NIMBUS_OK;
}

static nimbus_status write_step(const nimbus_image_build *b, const nimbus_node *node,
                                nimbus_buffer *out, nimbus_error *error)
{
    uint32_t flags =
        (node->kind == NIMBUS_NODE_LOOKUP ? nimbus_lookup_flags(node->layer->lookup) : 0u) |
        (node->mapped ? NIMBUS_FLAG_MAP : 0u);
    nimbus_status status = NIMBUS_OK;
    write_header(node, flags, out);
    write_sources(node, out);
    if (nimbus_node_is_product(node) || node->kind == NIMBUS_NODE_AVERAGE_POOL)
        write_pad(b, node, out);
    if (nimbus_node_is_product(node))
        status = write_product(b, node, out, error);
    if (node->output == NIMBUS_OUT_SCALED) {
        write_floats(node, node->scale, out);
        write_floats(node, node->offset, out);
    }
    if (node->mapped) {
        nimbus_array_begin(out);
        nimbus_write_bytes(out, node->map, sizeof node->map);
    }
    if (status == NIMBUS_OK && out->failed)
        status =
            nimbus_fail(error, NIMBUS_ERR_MEMORY, "no memory to write layer %s", node->layer->name);
    return status;
}

static void write_image_header(const nimbus_image_build *b, nimbus_buffer *out)
{
    const nimbus_node *input = &b->nodes[0];
    const size_t words[] = {input->shape.channels,
                            input->shape.height,
                            input->shape.width,
                            b->net->input_dtype == NIMBUS_U8 ? NIMBUS_IN_U8 : NIMBUS_IN_F32,
                            b->nodes[b->n_nodes - 1].shape.channels,
                            b->n_nodes - 1};
    for (size_t i = 0; i < sizeof words / sizeof *words; i++)
        nimbus_write_u32le(out, (uint32_t)words[i]);
    nimbus_write_f32le(out, b->output_scale);
    nimbus_write_u32le(out, 0);
    if (b->net->input_dtype != NIMBUS_U8) {
        write_floats(input, input->scale, out);
        write_floats(input, input->offset, out);
    }
}

nimbus_status nimbus_image_write(const nimbus_image_build *b, nimbus_buffer *out,
                                 nimbus_error *error)
{
    nimbus_buffer *bodies = nimbus_alloc(b->n_nodes, sizeof *bodies);
    nimbus_section *sections = nimbus_alloc(b->n_nodes + 1, sizeof *sections);
    const char *metadata = b->net->metadata ? b->net->metadata : "";
    nimbus_status status = NIMBUS_OK;
    size_t n = 0;

    if (!bodies || !sections) {
        status = nimbus_fail(error, NIMBUS_ERR_MEMORY, "no memory to write the program");
        goto done;
    }
    write_image_header(b, &bodies[0]);
    for (size_t i = 1; i < b->n_nodes; i++)
        if ((status = write_step(b, &b->nodes[i], &bodies[i], error)))
            goto done;
    if (bodies[0].failed) {
        status = nimbus_fail(error, NIMBUS_ERR_MEMORY, "no memory to write the program");
        goto done;
    }
    for (size_t i = 0; i < b->n_nodes; i++)
        sections[n++] = (nimbus_section){i == 0 ? NIMBUS_TAG('I', 'M', 'A', 'G')
                                                : NIMBUS_TAG('S', 'T', 'E', 'P'),
                                         bodies[i].bytes, bodies[i].size};
    if (metadata[0])
        sections[n++] = (nimbus_section){NIMBUS_TAG('M', 'E', 'T', 'A'), (const uint8_t *)metadata,
                                         strlen(metadata)};
    status = nimbus_container_write(out, NIMBUS_PROGRAM_MAGIC, NIMBUS_PROGRAM_MAJOR,
                                    NIMBUS_PROGRAM_MINOR, sections, n, error);
done:
    for (size_t i = 0; bodies && i < b->n_nodes; i++)
        nimbus_buffer_free(&bodies[i]);
    nimbus_free(bodies);
    nimbus_free(sections);
    return status;
}
