/* tensor.c - the stored arrays of a model: in raw or typed fields, or in files beside it
 *
 * The dimensions of an array and the bytes that are there must agree before anything is allocated.
 * Floats of 16 and 64 bits become 32-bit ones, integers and booleans 64-bit integers. */
#include <inttypes.h>
#include <limits.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "import/import.h"

#define MAX_EXTERNAL 4096 /* files beside a model */

/* The typed field that holds a type's elements. */
enum tensor_field { FIELD_FLOAT, FIELD_INT32, FIELD_INT64, FIELD_DOUBLE };

struct tensor_type {
    int32_t code;
    const char *name;
    size_t size; /* of an element in raw bytes */
    bool real;
    enum tensor_field field;
};

#define TYPE(name) NIMBUS__TENSOR_PROTO__DATA_TYPE__##name
static const struct tensor_type types[] = {
    {TYPE(FLOAT), "float", 4, true, FIELD_FLOAT},
    {TYPE(FLOAT16), "float16", 2, true, FIELD_INT32},
    {TYPE(DOUBLE), "double", 8, true, FIELD_DOUBLE},
    {TYPE(INT64), "int64", 8, false, FIELD_INT64},
    {TYPE(INT32), "int32", 4, false, FIELD_INT32},
    {TYPE(INT8), "int8", 1, false, FIELD_INT32},
    {TYPE(UINT8), "uint8", 1, false, FIELD_INT32},
    {TYPE(BOOL), "bool", 1, false, FIELD_INT32},
};

/* What is known of a tensor while it is read. */
struct reading {
    nimbus_importer *im;
    const Nimbus__TensorProto *tensor;
    const struct tensor_type *type;
    char name[64]; /* to be printed */
};

void nimbus_constant_free(nimbus_constant *c)
{
    nimbus_free(c->f);
    nimbus_free(c->i);
    nimbus_free(c->rows);
    *c = (nimbus_constant){0};
}

/* dims may be those of *out. */
nimbus_status nimbus_constant_new(nimbus_importer *im, bool is_real, size_t rank,
                                  const size_t *dims, nimbus_constant *out, nimbus_error *error)
{
    nimbus_constant c = {.real = is_real, .rank = rank, .n = 1};
    if (rank > IMPORT_RANK)
        return nimbus_fail(error, NIMBUS_ERR_LIMIT, "an array of %zu dimensions, the limit is %d",
                           rank, IMPORT_RANK);
    for (size_t k = 0; k < rank; k++) {
        c.dims[k] = dims[k];
        if (nimbus_mul_overflows(c.n, dims[k], &c.n))
            return nimbus_fail(error, NIMBUS_ERR_LIMIT, "an array too large to be counted");
    }
    *out = c;
    if (is_real)
        return nimbus_import_alloc(im, out->n, sizeof *out->f, &out->f, error);
    return nimbus_import_alloc(im, out->n, sizeof *out->i, &out->i, error);
}

/* ---- elements ----------------------------------------------------------------------------- */

static nimbus_status set_double(const struct reading *r, nimbus_constant *c, size_t k, double value,
                                nimbus_error *error)
{
    c->f[k] = (float)value;
    if (isfinite(value) && !isfinite(c->f[k]))
        return nimbus_fail(error, NIMBUS_ERR_VALUE,
                           "tensor %s: element %zu is %g, beyond 32-bit floats", r->name, k, value);
    return NIMBUS_OK;
}

/* Elements from little-endian bytes, which are as many as the dimensions say. */
static nimbus_status read_raw(const struct reading *r, const uint8_t *bytes, nimbus_constant *c,
                              nimbus_error *error)
{
    nimbus_reader in = nimbus_reader_of(bytes, c->n * r->type->size);
    nimbus_status status = NIMBUS_OK;
    for (size_t k = 0; k < c->n && status == NIMBUS_OK; k++)
        switch (r->type->code) {
        case TYPE(FLOAT):
            c->f[k] = nimbus_read_f32le(&in);
            break;
        case TYPE(FLOAT16):
            c->f[k] = nimbus_float_of_half(nimbus_read_u16le(&in));
            break;
        case TYPE(DOUBLE): {
            uint64_t bits = nimbus_read_u64le(&in);
            double value;
            memcpy(&value, &bits, sizeof value);
            status = set_double(r, c, k, value, error);
            break;
        }
        case TYPE(INT64):
            c->i[k] = (int64_t)nimbus_read_u64le(&in);
            break;
        case TYPE(INT32):
            c->i[k] = (int32_t)nimbus_read_u32le(&in);
            break;
        case TYPE(INT8):
            c->i[k] = (int8_t)nimbus_read_u8(&in);
            break;
        default:
            c->i[k] = nimbus_read_u8(&in);
        }
    return status;
}

static nimbus_status read_typed(const struct reading *r, nimbus_constant *c, nimbus_error *error)
{
    const Nimbus__TensorProto *t = r->tensor;
    nimbus_status status = NIMBUS_OK;
    for (size_t k = 0; k < c->n && status == NIMBUS_OK; k++) {
        if (r->type->field == FIELD_FLOAT)
            c->f[k] = t->float_data[k];
        else if (r->type->field == FIELD_DOUBLE)
            status = set_double(r, c, k, t->double_data[k], error);
        else if (r->type->field == FIELD_INT64)
            c->i[k] = t->int64_data[k];
        else if (r->type->real)
            c->f[k] = nimbus_float_of_half((uint16_t)t->int32_data[k]);
        else
            c->i[k] = t->int32_data[k];
    }
    return status;
}

/* ---- files beside the model --------------------------------------------------------------- */

/* A file that is seen for the first time adds its bytes to those that may be read. */
static nimbus_status count_file(struct reading *r, const char *location, size_t size,
                                nimbus_error *error)
{
    nimbus_importer *im = r->im;
    for (size_t k = 0; k < im->n_external; k++)
        if (strcmp(im->external[k], location) == 0)
            return NIMBUS_OK;
    if (im->n_external == MAX_EXTERNAL)
        return nimbus_fail(error, NIMBUS_ERR_LIMIT, "more than %d files beside the model",
                           MAX_EXTERNAL);
    const char **grown =
        nimbus_realloc(im->external, im->n_external, im->n_external + 1, sizeof *grown);
    if (!grown)
        return nimbus_fail(error, NIMBUS_ERR_MEMORY, "no memory for the name of a file");
    im->external = grown;
    im->external[im->n_external++] = location;
    size_t room;
    if (nimbus_mul_overflows(size, IMPORT_ROOM_TIMES, &room) || room > SIZE_MAX - im->left)
        room = SIZE_MAX - im->left;
    im->left += room;
    im->external_left += size;
    return NIMBUS_OK;
}

/* A decimal number without sign. */
static bool parse_size(const char *text, uint64_t *out)
{
    *out = 0;
    if (!*text)
        return false;
    for (; *text; text++) {
        if (*text < '0' || *text > '9' || *out > (UINT64_MAX - 9) / 10)
            return false;
        *out = *out * 10 + (uint64_t)(*text - '0');
    }
    return true;
}

struct external_place {
    const char *location;
    uint64_t offset, length;
    bool has_length;
};

static nimbus_status find_place(const struct reading *r, struct external_place *place,
                                nimbus_error *error)
{
    *place = (struct external_place){0};
    for (size_t k = 0; k < r->tensor->n_external_data; k++) {
        const Nimbus__StringStringEntryProto *e = r->tensor->external_data[k];
        const char *key = e->key ? e->key : "", *value = e->value ? e->value : "";
        bool good = true;
        if (strcmp(key, "location") == 0) {
            good = !place->location;
            place->location = value;
        } else if (strcmp(key, "offset") == 0) {
            good = parse_size(value, &place->offset);
        } else if (strcmp(key, "length") == 0) {
            good = parse_size(value, &place->length);
            place->has_length = true;
        }
        if (!good)
            return nimbus_fail(error, NIMBUS_ERR_FORMAT,
                               "tensor %s: a wrong or second \"%s\" of external data", r->name,
                               strcmp(key, "offset") == 0   ? "offset"
                               : strcmp(key, "length") == 0 ? "length"
                                                            : "location");
    }
    if (!place->location)
        return nimbus_fail(error, NIMBUS_ERR_FORMAT,
                           "tensor %s: external data without a \"location\"", r->name);
    return NIMBUS_OK;
}

static nimbus_status read_external(struct reading *r, nimbus_constant *c, nimbus_error *error)
{
    struct external_place place;
    nimbus_buffer bytes = {0};
    size_t size = c->n * r->type->size, file_size; /* cannot overflow: checked by the caller */
    nimbus_status status = find_place(r, &place, error);
    if (status != NIMBUS_OK)
        return status;
    if (!r->im->folder)
        return nimbus_fail(error, NIMBUS_ERR_UNSUPPORTED,
                           "tensor %s lies in another file, but the model is not read from a file",
                           r->name);
    if (place.has_length && place.length != size)
        return nimbus_fail(error, NIMBUS_ERR_MISMATCH,
                           "tensor %s: %" PRIu64 " bytes of external data, its dimensions take %zu",
                           r->name, place.length, size);
    status = nimbus_file_read_below(r->im->folder, place.location, place.offset, size, &bytes,
                                    &file_size, error);
    if (status == NIMBUS_OK)
        status = count_file(r, place.location, file_size, error);
    if (status == NIMBUS_OK && size > r->im->external_left)
        status = nimbus_fail(error, NIMBUS_ERR_LIMIT,
                             "the tensors in other files overlap: more bytes than there are");
    if (status == NIMBUS_OK) {
        r->im->external_left -= size;
        status = nimbus_constant_new(r->im, r->type->real, c->rank, c->dims, c, error);
    }
    if (status == NIMBUS_OK)
        status = read_raw(r, bytes.bytes, c, error);
    nimbus_buffer_free(&bytes);
    if (status != NIMBUS_OK)
        status = nimbus_fail_prefix(error, status, "tensor %s", r->name);
    return status;
}

/* ---- a tensor ----------------------------------------------------------------------------- */

static nimbus_status read_dims(const struct reading *r, nimbus_constant *c, nimbus_error *error)
{
    const Nimbus__TensorProto *t = r->tensor;
    *c = (nimbus_constant){.real = r->type->real, .rank = t->n_dims, .n = 1};
    if (t->n_dims > IMPORT_RANK)
        return nimbus_fail(error, NIMBUS_ERR_LIMIT, "tensor %s has %zu dimensions, the limit is %d",
                           r->name, t->n_dims, IMPORT_RANK);
    for (size_t k = 0; k < t->n_dims; k++) {
        size_t bytes;
        if (t->dims[k] < 0)
            return nimbus_fail(error, NIMBUS_ERR_FORMAT, "tensor %s: dimension %zu is %" PRId64,
                               r->name, k, t->dims[k]);
        c->dims[k] = (size_t)t->dims[k];
        if (nimbus_mul_overflows(c->n, c->dims[k], &c->n) ||
            nimbus_mul_overflows(c->n, sizeof(int64_t), &bytes))
            return nimbus_fail(error, NIMBUS_ERR_LIMIT,
                               "tensor %s has more elements than can be counted", r->name);
    }
    return NIMBUS_OK;
}

/* How many bytes or elements there are must be what the dimensions say. */
static nimbus_status check_count(const struct reading *r, const nimbus_constant *c, size_t there,
                                 size_t element, nimbus_error *error)
{
    size_t expected = c->n * element;
    const char *what = element > 1 || r->tensor->has_raw_data ? "bytes" : "elements";
    if (there == expected)
        return NIMBUS_OK;
    return nimbus_fail(error, there < expected ? NIMBUS_ERR_TRUNCATED : NIMBUS_ERR_FORMAT,
                       "tensor %s: %zu %s of %s are there, its dimensions take %zu", r->name, there,
                       what, r->type->name, expected);
}

static nimbus_status read_inside(struct reading *r, nimbus_constant *c, nimbus_error *error)
{
    const Nimbus__TensorProto *t = r->tensor;
    const size_t counts[] = {t->n_float_data, t->n_int32_data, t->n_int64_data, t->n_double_data};
    size_t typed = t->n_string_data + t->n_uint64_data, there = counts[r->type->field];
    for (size_t k = 0; k < sizeof counts / sizeof *counts; k++)
        typed += counts[k];
    if (typed > there || (t->has_raw_data && typed > 0))
        return nimbus_fail(error, NIMBUS_ERR_FORMAT,
                           "tensor %s: data in more than one field, or not in that of %s", r->name,
                           r->type->name);
    nimbus_status status = t->has_raw_data
                               ? check_count(r, c, t->raw_data.len, r->type->size, error)
                               : check_count(r, c, there, 1, error);
    if (status == NIMBUS_OK)
        status = nimbus_constant_new(r->im, r->type->real, c->rank, c->dims, c, error);
    if (status != NIMBUS_OK)
        return status;
    return t->has_raw_data ? read_raw(r, t->raw_data.data, c, error) : read_typed(r, c, error);
}

nimbus_status nimbus_tensor_read(nimbus_importer *im, const Nimbus__TensorProto *tensor,
                                 nimbus_constant *out, nimbus_error *error)
{
    struct reading r = {.im = im, .tensor = tensor};
    *out = (nimbus_constant){0};
    nimbus_import_printable(r.name, sizeof r.name,
                            tensor->name && *tensor->name ? tensor->name : "of a node");
    for (size_t k = 0; k < sizeof types / sizeof *types; k++)
        if (types[k].code == tensor->data_type)
            r.type = &types[k];
    if (!r.type)
        return nimbus_fail(error, NIMBUS_ERR_UNSUPPORTED,
                           "tensor %s: data type %d, expected float, float16, double or integers",
                           r.name, (int)tensor->data_type);
    if (tensor->segment)
        return nimbus_fail(error, NIMBUS_ERR_UNSUPPORTED, "tensor %s is stored in segments",
                           r.name);
    bool external = tensor->data_location == NIMBUS__TENSOR_PROTO__DATA_LOCATION__EXTERNAL;
    nimbus_status status = read_dims(&r, out, error);
    if (status == NIMBUS_OK && external && (tensor->has_raw_data || tensor->n_float_data > 0))
        status = nimbus_fail(error, NIMBUS_ERR_FORMAT,
                             "tensor %s: data in the model and in another file", r.name);
    if (status == NIMBUS_OK)
        status = external ? read_external(&r, out, error) : read_inside(&r, out, error);
    if (status != NIMBUS_OK)
        nimbus_constant_free(out);
    return status;
}
