/* netfile_read.c - reads a .net file that anyone may have made; netfile.h describes it
 *
 * Sizes and checksum come first, then JSON under limits of depth and number, then the tensors'
 * places, and only then the graph, which may allocate no more than the tensors really there take.
 */
#include "net/netfile.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define MAX_FILE ((size_t)1 << 36)

/* ================================================================================= the envelope */

struct netfile {
    const uint8_t *bytes;
    const char *header; /* not terminated */
    size_t header_size, data_size;
    const uint8_t *data;
};

/* Reads the version at the header's start; *after is the offset in the header behind it. */
static nimbus_status check_version(const struct netfile *f, size_t *after, nimbus_error *error)
{
    unsigned number[2] = {0, 0};
    size_t at = sizeof NETFILE_START - 1;
    if (f->header_size < at || memcmp(f->header, NETFILE_START, at) != 0)
        return nimbus_fail_at(error, NIMBUS_ERR_FORMAT, 8,
                              "the header does not begin with %s: not a .net file", NETFILE_START);
    for (int i = 0; i < 2; i++) {
        size_t first = at;
        while (at < f->header_size && at - first < 4 && f->header[at] >= '0' &&
               f->header[at] <= '9')
            number[i] = number[i] * 10 + (unsigned)(f->header[at++] - '0');
        if (at == first || at == f->header_size || f->header[at] != (i == 0 ? '.' : '"'))
            return nimbus_fail_at(error, NIMBUS_ERR_FORMAT, 8 + at,
                                  "the format version is not of the form 1.0");
        at += i == 0;
    }
    if (number[0] > NETFILE_FORMAT_MAJOR ||
        (number[0] == NETFILE_FORMAT_MAJOR && number[1] > NETFILE_FORMAT_MINOR))
        return nimbus_fail_at(error, NIMBUS_ERR_VERSION, 8 + sizeof NETFILE_START - 1,
                              ".net format %u.%u, this build reads up to %d.%d", number[0],
                              number[1], NETFILE_FORMAT_MAJOR, NETFILE_FORMAT_MINOR);
    if (number[0] < NETFILE_FORMAT_MAJOR)
        return nimbus_fail_at(error, NIMBUS_ERR_FORMAT, 8 + sizeof NETFILE_START - 1,
                              ".net format %u.%u never existed", number[0], number[1]);
    *after = at;
    return NIMBUS_OK;
}

/* Checks size and checksum of the whole file; both stand behind the version. */
static nimbus_status check_envelope(struct netfile *f, size_t size, nimbus_error *error)
{
    char digits[NETFILE_BYTES_DIGITS + 1];
    size_t at = 0;
    nimbus_status status = check_version(f, &at, error);
    if (status != NIMBUS_OK)
        return status;
    size_t middle = sizeof NETFILE_MIDDLE - 1, key = sizeof NETFILE_BYTES_KEY - 1;
    size_t crc_at = at + middle, bytes_at = crc_at + NETFILE_CRC_DIGITS + key;
    if (f->header_size < bytes_at + NETFILE_BYTES_DIGITS + 1 ||
        memcmp(f->header + at, NETFILE_MIDDLE, middle) != 0 ||
        memcmp(f->header + crc_at + NETFILE_CRC_DIGITS, NETFILE_BYTES_KEY, key) != 0)
        return nimbus_fail_at(error, NIMBUS_ERR_FORMAT, 8 + at,
                              "no nimbus_crc32c and nimbus_bytes behind the version");
    unsigned long long stated = 0;
    memcpy(digits, f->header + bytes_at, NETFILE_BYTES_DIGITS);
    digits[NETFILE_BYTES_DIGITS] = 0;
    if (strspn(digits, "0123456789") != NETFILE_BYTES_DIGITS)
        return nimbus_fail_at(error, NIMBUS_ERR_FORMAT, 8 + bytes_at,
                              "nimbus_bytes is not a number of %d digits", NETFILE_BYTES_DIGITS);
    for (int i = 0; i < NETFILE_BYTES_DIGITS; i++)
        stated = stated * 10 + (unsigned)(digits[i] - '0');
    if (stated != size)
        return nimbus_fail_at(error, stated > size ? NIMBUS_ERR_TRUNCATED : NIMBUS_ERR_FORMAT,
                              stated > size ? size : stated,
                              "the file has %zu bytes, its header says %llu", size, stated);
    uint32_t crc = nimbus_crc32c(0, f->bytes, 8 + crc_at);
    crc = nimbus_crc32c(crc, NETFILE_NO_CRC, NETFILE_CRC_DIGITS);
    crc = nimbus_crc32c(crc, f->bytes + 8 + crc_at + NETFILE_CRC_DIGITS,
                        size - 8 - crc_at - NETFILE_CRC_DIGITS);
    (void)snprintf(digits, sizeof digits, "%08" PRIx32, crc);
    if (memcmp(digits, f->header + crc_at, NETFILE_CRC_DIGITS) != 0)
        return nimbus_fail_at(error, NIMBUS_ERR_CHECKSUM, 8 + crc_at,
                              "the checksum of the file is %s, its header says %.8s", digits,
                              f->header + crc_at);
    return NIMBUS_OK;
}

static nimbus_status open_envelope(const void *bytes, size_t size, struct netfile *f,
                                   nimbus_error *error)
{
    nimbus_reader r = nimbus_reader_of(bytes, size);
    uint64_t length = nimbus_read_u64le(&r);
    if (r.failed)
        return nimbus_fail_at(error, NIMBUS_ERR_TRUNCATED, size,
                              "%zu bytes, a .net file begins with 8 of header length", size);
    if (length > NETFILE_MAX_HEADER)
        return nimbus_fail_at(error, NIMBUS_ERR_LIMIT, 0,
                              "a header of %" PRIu64 " bytes, at most %zu are allowed", length,
                              NETFILE_MAX_HEADER);
    f->bytes = bytes;
    f->header_size = (size_t)length;
    f->header = (const char *)nimbus_read_bytes(&r, f->header_size);
    if (!f->header)
        return nimbus_fail_at(error, NIMBUS_ERR_TRUNCATED, size,
                              "the header takes %" PRIu64 " bytes, the file ends after %zu of them",
                              length, size - 8);
    f->data = f->bytes + 8 + f->header_size;
    f->data_size = size - 8 - f->header_size;
    return check_envelope(f, size, error);
}

/* ========================================================================================= JSON */

/* Refuses deep or huge texts before the (recursive, allocating) parser sees them. */
static nimbus_status parse_json(const char *text, size_t size, const char *what, json_t **out,
                                nimbus_error *error)
{
    size_t depth = 0, values = 0;
    bool quoted = false;
    *out = NULL;
    for (size_t i = 0; i < size; i++) {
        char c = text[i];
        if (quoted) {
            i += c == '\\';
            quoted = c != '"';
            continue;
        }
        quoted = c == '"';
        values += c == ',' || c == ':' || c == '[' || c == '{';
        depth += c == '[' || c == '{';
        depth -= (c == ']' || c == '}') && depth > 0;
        if (depth > NETFILE_MAX_DEPTH || values > NETFILE_MAX_VALUES)
            return nimbus_fail(error, NIMBUS_ERR_LIMIT,
                               "the %s has more than %d %s (byte %zu of it)", what,
                               depth > NETFILE_MAX_DEPTH ? NETFILE_MAX_DEPTH : NETFILE_MAX_VALUES,
                               depth > NETFILE_MAX_DEPTH ? "levels of nesting" : "values", i);
    }
    json_error_t where;
    *out = json_loadb(text, size, JSON_REJECT_DUPLICATES, &where);
    if (!*out)
        return nimbus_fail(error, NIMBUS_ERR_FORMAT, "the %s is not right JSON (byte %d of it): %s",
                           what, where.position, where.text);
    return NIMBUS_OK;
}

/* ====================================================================================== tensors */

static nimbus_status tensor_of(const char *name, const json_t *entry, size_t data_size,
                               size_t *from, size_t *to, nimbus_error *error)
{
    const char *dtype = json_string_value(json_object_get(entry, "dtype"));
    const json_t *shape = json_object_get(entry, "shape");
    const json_t *offsets = json_object_get(entry, "data_offsets");
    if (!dtype || !json_is_array(shape) || json_array_size(shape) > 4 ||
        json_array_size(offsets) != 2)
        return nimbus_fail(error, NIMBUS_ERR_FORMAT,
                           "tensor %.100s: expected dtype, shape of at most 4 and two data_offsets",
                           name);
    if (strcmp(dtype, "F32") != 0)
        return nimbus_fail(error, NIMBUS_ERR_UNSUPPORTED, "tensor %.100s: dtype %.20s is not F32",
                           name, dtype);
    size_t bytes = 4;
    for (size_t i = 0; i < json_array_size(shape); i++) {
        json_int_t side = json_integer_value(json_array_get(shape, i));
        if (side <= 0 || nimbus_mul_overflows(bytes, (size_t)side, &bytes))
            return nimbus_fail(error, NIMBUS_ERR_FORMAT,
                               "tensor %.100s: side %zu of its shape is wrong", name, i);
    }
    json_int_t first = json_integer_value(json_array_get(offsets, 0));
    json_int_t end = json_integer_value(json_array_get(offsets, 1));
    if (first < 0 || end < first || (size_t)end > data_size || (size_t)(end - first) != bytes)
        return nimbus_fail(error, NIMBUS_ERR_FORMAT,
                           "tensor %.100s: offsets %lld to %lld, its shape takes %zu of %zu bytes",
                           name, (long long)first, (long long)end, bytes, data_size);
    *from = (size_t)first;
    *to = (size_t)end;
    return NIMBUS_OK;
}

struct span {
    size_t from, to;
};

static int compare_spans(const void *a, const void *b)
{
    const struct span *x = a, *y = b;
    return (x->from > y->from) - (x->from < y->from);
}

/* Every tensor must be well-formed, and together they must fill the data without gap or overlap. */
static nimbus_status check_tensors(json_t *header, size_t data_size, nimbus_error *error)
{
    nimbus_status status = NIMBUS_OK;
    const char *name;
    json_t *entry;
    size_t n = 0, at = 0;
    struct span *spans = nimbus_alloc(json_object_size(header), sizeof *spans);
    if (!spans)
        return nimbus_fail(error, NIMBUS_ERR_MEMORY, "no memory for the list of tensors");
    json_object_foreach(header, name, entry)
    {
        if (strcmp(name, "__metadata__") == 0)
            continue;
        status = tensor_of(name, entry, data_size, &spans[n].from, &spans[n].to, error);
        if (status != NIMBUS_OK)
            goto done;
        n++;
    }
    qsort(spans, n, sizeof *spans, compare_spans);
    for (size_t i = 0; i < n && spans[i].from == at; i++)
        at = spans[i].to;
    if (at != data_size)
        status = nimbus_fail(error, NIMBUS_ERR_FORMAT,
                             "the tensors do not fill the data: gap, overlap or end at byte %zu of "
                             "%zu",
                             at, data_size);
done:
    nimbus_free(spans);
    return status;
}

/* Fills a param from its tensor, which must have its shape and finite values. */
static nimbus_status read_param(const struct netfile *f, const json_t *header,
                                const nimbus_layer *layer, nimbus_param *p, nimbus_error *error)
{
    char name[NETFILE_MAX_NAME];
    (void)snprintf(name, sizeof name, "%s.%s", layer->name, p->name);
    const json_t *entry = json_object_get(header, name), *shape = json_object_get(entry, "shape");
    if (!entry)
        return nimbus_fail(error, NIMBUS_ERR_FORMAT, "tensor %s is missing", name);
    bool same = json_array_size(shape) == p->rank;
    for (size_t i = 0; same && i < p->rank; i++)
        same = (size_t)json_integer_value(json_array_get(shape, i)) == p->shape[i];
    if (!same)
        return nimbus_fail(error, NIMBUS_ERR_FORMAT,
                           "tensor %s: its shape is not the one the graph gives it", name);
    size_t from =
        (size_t)json_integer_value(json_array_get(json_object_get(entry, "data_offsets"), 0));
    nimbus_reader r = nimbus_reader_of(f->data + from, 4 * p->n);
    for (size_t i = 0; i < p->n; i++) {
        p->value[i] = (real)nimbus_read_f32le(&r);
        if (!isfinite(p->value[i]))
            return nimbus_fail_at(error, NIMBUS_ERR_VALUE, 8 + f->header_size + from + 4 * i,
                                  "tensor %s: value %zu is %g, expected a finite number", name, i,
                                  (double)p->value[i]);
    }
    return NIMBUS_OK;
}

/* ======================================================================================== graph */

/* What building a net from its graph needs to know. */
struct loading {
    const struct netfile *file;
    const json_t *header;
    nimbus_net *net;
    size_t bytes_left; /* of data not yet claimed by a layer: bounds what is allocated */
    size_t n_tensors;  /* claimed */
};

/* Reserves data for a * b floats before anything of that size is allocated. */
static nimbus_status claim(struct loading *l, const char *layer, size_t a, size_t b,
                           nimbus_error *error)
{
    size_t n, bytes;
    if (nimbus_mul_overflows(a, b, &n) || nimbus_mul_overflows(n, 4, &bytes) ||
        bytes > l->bytes_left)
        return nimbus_fail(error, NIMBUS_ERR_FORMAT,
                           "layer %s: the graph promises %zu x %zu values, the file has %zu bytes "
                           "left for them",
                           layer, a, b, l->bytes_left);
    l->bytes_left -= bytes;
    return NIMBUS_OK;
}

static nimbus_status check_statistic(const nimbus_layer *layer, const char *name, bool zero_too,
                                     nimbus_error *error)
{
    const nimbus_param *p = nimbus_layer_param((nimbus_layer *)layer, name);
    for (size_t i = 0; p && i < p->n; i++)
        if (!(p->value[i] > 0 || (zero_too && p->value[i] == 0)))
            return nimbus_fail(error, NIMBUS_ERR_VALUE,
                               "layer %s: value %zu of %s is %g, expected %s", layer->name, i, name,
                               (double)p->value[i], zero_too ? "at least 0" : "more than 0");
    return NIMBUS_OK;
}

/* Whether a value of "columns" is the number of one of d. */
static bool is_column(real value, size_t d)
{
    return value >= 0 && value < (real)d && value == (real)(size_t)value;
}

/* A column exists, or is -1, and belongs to one codebook at most. */
static nimbus_status check_centroids(const nimbus_layer *layer, nimbus_error *error)
{
    const nimbus_param *columns = nimbus_layer_param((nimbus_layer *)layer, "columns");
    size_t d = nimbus_lookup_inputs(layer);
    nimbus_status status = NIMBUS_OK;
    bool *taken = nimbus_alloc(d, sizeof *taken);
    if (!taken)
        return nimbus_fail(error, NIMBUS_ERR_MEMORY, "layer %s: no memory for columns",
                           layer->name);
    for (size_t i = 0; i < columns->n && status == NIMBUS_OK; i++) {
        real column = columns->value[i];
        if (column == -1)
            continue;
        if (!is_column(column, d) || taken[(size_t)column])
            status = nimbus_fail(error, NIMBUS_ERR_VALUE,
                                 "layer %s: column %zu of its centroids is %g, expected -1 or one "
                                 "of %zu, each once",
                                 layer->name, i, (double)column, d);
        else
            taken[(size_t)column] = true;
    }
    nimbus_free(taken);
    const real *centroids = nimbus_layer_param((nimbus_layer *)layer, "centroids")->value;
    const nimbus_lookup *l = layer->lookup;
    for (size_t i = 0; i < l->n_codebooks * l->n_leaves * l->n_columns && status == NIMBUS_OK;
         i++) {
        size_t codebook = i / (l->n_leaves * l->n_columns), v = i % l->n_columns;
        if (columns->value[codebook * l->n_columns + v] < 0 && centroids[i] != 0)
            status = nimbus_fail(error, NIMBUS_ERR_VALUE,
                                 "layer %s: value %zu of its centroids is %g where there is no "
                                 "column, expected 0",
                                 layer->name, i, (double)centroids[i]);
    }
    return status;
}

/* Columns must exist; nodes of a level are tied as the kind of tree says. */
static nimbus_status check_trees(nimbus_layer *layer, nimbus_error *error)
{
    const nimbus_lookup *lookup = layer->lookup;
    if (lookup->kind == NIMBUS_CENTROIDS)
        return check_centroids(layer, error);
    const real *columns = nimbus_layer_param(layer, "columns")->value;
    const real *thresholds = nimbus_layer_param(layer, "thresholds")->value;
    size_t d = nimbus_lookup_inputs(layer), n_nodes = lookup->n_leaves - 1;
    for (size_t c = 0; c < lookup->n_codebooks; c++)
        for (size_t i = 0; i < n_nodes; i++) {
            size_t at = c * n_nodes + i, first = 0;
            while (2 * first + 1 <= i)
                first = 2 * first + 1; /* the first node of the level of i */
            first += c * n_nodes;
            if (!is_column(columns[at], d))
                return nimbus_fail(error, NIMBUS_ERR_VALUE,
                                   "layer %s: node %zu of tree %zu reads column %g of %zu",
                                   layer->name, i, c, (double)columns[at], d);
            if ((lookup->kind != NIMBUS_TREE_PER_NODE && columns[at] != columns[first]) ||
                (lookup->kind == NIMBUS_TREE_FERN && thresholds[at] != thresholds[first]))
                return nimbus_fail(error, NIMBUS_ERR_VALUE,
                                   "layer %s: node %zu of tree %zu differs from others of its "
                                   "level, in a tree of kind %s",
                                   layer->name, i, c, nimbus_netfile_tree_names[lookup->kind]);
        }
    return check_statistic(layer, "margin", false, error);
}

/* Attaches the trees of a layer as the graph describes them; their values come later. */
static nimbus_status load_lookup(struct loading *l, nimbus_layer *layer, const json_t *o,
                                 nimbus_error *error)
{
    size_t codebooks, levels, bits, v = 0, m = layer->units;
    unsigned tree, estimator;
    double temperature = json_number_value(json_object_get(o, "temperature"));
    nimbus_status status =
        nimbus_netfile_get_count(o, "codebooks", 1u << 24, layer->name, &codebooks, error);
    if (status == NIMBUS_OK)
        status =
            nimbus_netfile_get_count(o, "levels", NIMBUS_MAX_LEVELS, layer->name, &levels, error);
    if (status == NIMBUS_OK)
        status = nimbus_netfile_get_count(o, "bits", 8, layer->name, &bits, error);
    if (status == NIMBUS_OK)
        status = nimbus_netfile_get_choice(o, "tree", nimbus_netfile_tree_names, NETFILE_TREES,
                                           layer->name, &tree, error);
    if (status == NIMBUS_OK)
        status = nimbus_netfile_get_choice(o, "estimator", nimbus_netfile_estimator_names,
                                           NETFILE_ESTIMATORS, layer->name, &estimator, error);
    if (status == NIMBUS_OK && tree == NIMBUS_CENTROIDS)
        status = nimbus_netfile_get_count(o, "columns", NIMBUS_MAX_WIDTH, layer->name, &v, error);
    if (status != NIMBUS_OK)
        return status;
    if (!nimbus_layer_is_convertible(layer) || codebooks < 1 ||
        (tree == NIMBUS_CENTROIDS && (v < 1 || layer->bare)) || levels < 1 || bits == 1 ||
        !((float)temperature > 0 && isfinite((float)temperature)))
        return nimbus_fail(
            error, NIMBUS_ERR_FORMAT,
            "layer %s: %zu codebooks of %zu levels, %zu bits and temperature %g on a "
            "layer of type %s",
            layer->name, codebooks, levels, bits, temperature, layer->type->name);
    size_t leaves = (size_t)1 << levels;
    status = claim(l, layer->name, codebooks,
                   leaves * m + (v ? (leaves + 1) * v : 3 * (leaves - 1)), error);
    if (status == NIMBUS_OK && v)
        status = claim(l, layer->name, 1, 1, error); /* sharpness */
    if (status == NIMBUS_OK)
        status = claim(l, layer->name, m, 1, error); /* scales */
    if (status == NIMBUS_OK)
        status = v ? nimbus_centroids_attach(layer, codebooks, levels, v, error)
                   : nimbus_lookup_attach(layer, codebooks, levels, (nimbus_tree_kind)tree, error);
    if (status != NIMBUS_OK)
        return status;
    layer->lookup->bits = (unsigned)bits;
    layer->lookup->estimator = (nimbus_estimator)estimator;
    layer->lookup->temperature = (real)temperature;
    return NIMBUS_OK;
}

/* Type, attributes and inputs of a layer, before it is set up. */
static nimbus_status load_proto(struct loading *l, const json_t *o, nimbus_layer *proto,
                                size_t *inputs, size_t *n_inputs, nimbus_error *error)
{
    static const char *const sides[] = {"channels", "height", "width"};
    char where[64];
    const char *name = json_string_value(json_object_get(o, "name"));
    const char *type = json_string_value(json_object_get(o, "type"));
    const json_t *list = json_object_get(o, "inputs"), *shape = json_object_get(o, "shape");
    (void)snprintf(where, sizeof where, "layer %zu", l->net->n_layers);
    if (!name || !type || !name[0] || strlen(name) >= sizeof proto->name)
        return nimbus_fail(error, NIMBUS_ERR_FORMAT,
                           "%s: needs a \"name\" of 1 to %zu bytes and a \"type\"", where,
                           sizeof proto->name - 1);
    *proto = (nimbus_layer){.type = nimbus_layer_type_named(type)};
    memcpy(proto->name, name, strlen(name));
    (void)snprintf(where, sizeof where, "layer %s", name);
    if (!proto->type)
        return nimbus_fail(error, NIMBUS_ERR_UNSUPPORTED, "layer %s: unknown type '%.40s'", name,
                           type);
    nimbus_status status = nimbus_netfile_get_attributes(o, where, proto, error);
    if (status != NIMBUS_OK)
        return status;
    *n_inputs = json_array_size(list);
    if (*n_inputs > NIMBUS_MAX_LAYER_INPUTS)
        return nimbus_fail(error, NIMBUS_ERR_FORMAT, "layer %s: %zu inputs, at most %d are allowed",
                           name, *n_inputs, NIMBUS_MAX_LAYER_INPUTS);
    for (size_t i = 0; i < *n_inputs; i++) {
        const json_t *v = json_array_get(list, i);
        if (!json_is_integer(v) || json_integer_value(v) < 0)
            return nimbus_fail(error, NIMBUS_ERR_FORMAT, "layer %s: input %zu is not a number",
                               name, i);
        inputs[i] = (size_t)json_integer_value(v);
    }
    size_t *parts[] = {&proto->in_shape.channels, &proto->in_shape.height, &proto->in_shape.width};
    for (size_t i = 0; proto->type == &nimbus_layer_input && i < 3; i++) {
        json_int_t v = json_integer_value(json_array_get(shape, i));
        if (v < 1 || v > (json_int_t)NIMBUS_MAX_WIDTH)
            return nimbus_fail(error, NIMBUS_ERR_FORMAT, "layer %s: %s is not 1 to %u", name,
                               sides[i], NIMBUS_MAX_WIDTH);
        *parts[i] = (size_t)v;
    }
    return NIMBUS_OK;
}

/* Claims what the layer's setup will allocate. */
static nimbus_status claim_params(struct loading *l, const nimbus_layer *proto,
                                  const size_t *inputs, size_t n_inputs, nimbus_error *error)
{
    nimbus_shape in = proto->in_shape;
    if (n_inputs > 0 && inputs[0] < l->net->n_layers)
        in = l->net->layers[inputs[0]].shape;
    size_t width = in.channels, n_params = 0;
    if (nimbus_mul_overflows(width, in.height, &width) ||
        nimbus_mul_overflows(width, in.width, &width))
        width = SIZE_MAX;
    if (proto->type == &nimbus_layer_linear && width < SIZE_MAX)
        return claim(l, proto->name, proto->units, proto->bare ? 1 : width + 1, error);
    if (proto->type == &nimbus_layer_input)
        n_params = 2;
    if (proto->type == &nimbus_layer_batch_norm)
        return claim(l, proto->name, in.channels, proto->bare ? 2 : 4, error);
    if (proto->type == &nimbus_layer_conv2d) {
        size_t n = in.channels / (proto->groups ? proto->groups : 1);
        if (nimbus_mul_overflows(n, proto->slide.kernel[0], &n) ||
            nimbus_mul_overflows(n, proto->slide.kernel[1], &n))
            n = SIZE_MAX / 2;
        return claim(l, proto->name, proto->units, n + 1, error);
    }
    return claim(l, proto->name, width, n_params, error);
}

static nimbus_status check_tables(nimbus_layer *layer, nimbus_error *error)
{
    const nimbus_param *tables = nimbus_layer_param(layer, "tables");
    for (size_t i = 0; i < tables->n; i++)
        if (!isfinite(tables->value[i]))
            return nimbus_fail(error, NIMBUS_ERR_VALUE,
                               "layer %s: entry %zu of its tables overflows: centroids or weights "
                               "are too large",
                               layer->name, i);
    return NIMBUS_OK;
}

/* Reads the values and checks what the layer's functions take for granted. */
static nimbus_status load_values(struct loading *l, size_t index, const json_t *o,
                                 nimbus_error *error)
{
    nimbus_layer *layer = &l->net->layers[index];
    nimbus_status status = NIMBUS_OK;
    unsigned state;
    for (size_t i = 0; i < layer->n_params && status == NIMBUS_OK; i++)
        status = read_param(l->file, l->header, layer, &layer->params[i], error);
    l->n_tensors += layer->n_params;
    if (status == NIMBUS_OK && layer->lookup)
        status = check_trees(layer, error);
    if (status == NIMBUS_OK && layer->type == &nimbus_layer_batch_norm)
        status = check_statistic(layer, "variance", true, error);
    if (status == NIMBUS_OK)
        status =
            check_statistic(layer, "scales", !layer->lookup || layer->lookup->bits == 0, error);
    if (status == NIMBUS_OK)
        status = nimbus_netfile_get_choice(o, "state", nimbus_netfile_state_names, NETFILE_STATES,
                                           layer->name, &state, error);
    if (status != NIMBUS_OK)
        return status;
    if (layer->bare && layer->type == &nimbus_layer_linear && !layer->lookup)
        return nimbus_fail(error, NIMBUS_ERR_FORMAT, "layer %s has neither weights nor trees",
                           layer->name);
    if (layer->state != (nimbus_layer_state)state) {
        status = nimbus_net_set_state(l->net, index, (nimbus_layer_state)state, error);
        if (status == NIMBUS_ERR_STATE)
            return nimbus_fail_prefix(error, NIMBUS_ERR_FORMAT, "the graph");
    }
    if (status == NIMBUS_OK && layer->lookup)
        status = nimbus_lookup_round(layer, 1, error);
    /* tables of centroids have just been made */
    return status == NIMBUS_OK && layer->lookup ? check_tables(layer, error) : status;
}

static nimbus_status load_layer(struct loading *l, const json_t *o, nimbus_error *error)
{
    nimbus_layer proto;
    size_t inputs[NIMBUS_MAX_LAYER_INPUTS] = {0}, n_inputs = 0, index = l->net->n_layers;
    nimbus_status status = load_proto(l, o, &proto, inputs, &n_inputs, error);
    if (status == NIMBUS_OK)
        status = claim_params(l, &proto, inputs, n_inputs, error);
    if (status != NIMBUS_OK)
        return status;
    status = nimbus_net_add(l->net, &proto, inputs, n_inputs, 0, error);
    if (status == NIMBUS_ERR_ARGUMENT || status == NIMBUS_ERR_MISMATCH)
        return nimbus_fail_prefix(error, NIMBUS_ERR_FORMAT, "the graph");
    const json_t *lookup = json_object_get(o, "lookup");
    if (status == NIMBUS_OK && lookup)
        status = load_lookup(l, &l->net->layers[index], lookup, error);
    return status == NIMBUS_OK ? load_values(l, index, o, error) : status;
}

static nimbus_status load_graph(struct loading *l, const json_t *graph, nimbus_error *error)
{
    const json_t *layers = json_object_get(graph, "layers");
    unsigned loss, dtype;
    nimbus_status status = nimbus_netfile_get_choice(graph, "loss", nimbus_netfile_loss_names,
                                                     NETFILE_LOSSES, "graph", &loss, error);
    if (status == NIMBUS_OK)
        status = nimbus_netfile_get_choice(graph, "input", nimbus_netfile_dtype_names,
                                           NETFILE_DTYPES, "graph", &dtype, error);
    if (status != NIMBUS_OK)
        return status;
    l->net->loss = (nimbus_loss)loss;
    l->net->input_dtype = (nimbus_dtype)dtype;
    if (json_array_size(layers) < 2)
        return nimbus_fail(error, NIMBUS_ERR_FORMAT, "the graph has %zu layers, expected 2 or more",
                           json_array_size(layers));
    for (size_t i = 0; i < json_array_size(layers); i++) {
        status = load_layer(l, json_array_get(layers, i), error);
        if (status != NIMBUS_OK)
            return status;
    }
    if (l->n_tensors + 1 != json_object_size(l->header))
        return nimbus_fail(error, NIMBUS_ERR_FORMAT,
                           "%zu tensors, but the graph has %zu parameters",
                           json_object_size(l->header) - 1, l->n_tensors);
    return NIMBUS_OK;
}

nimbus_status nimbus_net_read(const void *bytes, size_t size, nimbus_net **out, nimbus_error *error)
{
    struct netfile file;
    json_t *header = NULL, *graph = NULL;
    struct loading l = {.file = &file};
    *out = NULL;
    nimbus_status status = open_envelope(bytes, size, &file, error);
    if (status == NIMBUS_OK)
        status = parse_json(file.header, file.header_size, "header", &header, error);
    if (status == NIMBUS_OK)
        status = check_tensors(header, file.data_size, error);
    if (status != NIMBUS_OK)
        goto done;
    const json_t *strings = json_object_get(header, "__metadata__");
    const char *text = json_string_value(json_object_get(strings, "nimbus_graph"));
    const char *metadata = json_string_value(json_object_get(strings, "nimbus_metadata"));
    if (!text || !metadata) {
        status = nimbus_fail(error, NIMBUS_ERR_FORMAT,
                             "the metadata lacks a nimbus_graph or nimbus_metadata string");
        goto done;
    }
    status = parse_json(text, strlen(text), "graph", &graph, error);
    if (status != NIMBUS_OK)
        goto done;
    l.header = header;
    l.bytes_left = file.data_size;
    l.net = nimbus_net_new();
    char *copy = l.net ? nimbus_strdup(metadata) : NULL;
    if (!copy) {
        status = nimbus_fail(error, NIMBUS_ERR_MEMORY, "no memory for a net");
        goto done;
    }
    nimbus_free(l.net->metadata);
    l.net->metadata = copy;
    status = load_graph(&l, graph, error);
    if (status == NIMBUS_OK) {
        *out = l.net;
        l.net = NULL;
    }
done:
    nimbus_net_free(l.net);
    json_decref(header);
    json_decref(graph);
    return status;
}

nimbus_status nimbus_net_load(const char *path, nimbus_net **out, nimbus_error *error)
{
    nimbus_buffer buffer = {0};
    *out = NULL;
    nimbus_status status = nimbus_file_read(path, MAX_FILE, &buffer, error);
    if (status == NIMBUS_OK) {
        status = nimbus_net_read(buffer.bytes, buffer.size, out, error);
        if (status != NIMBUS_OK)
            status = nimbus_fail_prefix(error, status, "%s", path);
    }
    nimbus_buffer_free(&buffer);
    return status;
}
