/* npy.c - NumPy's .npy files, versions 1 to 3
 *
 *     "\x93NUMPY", major u8, minor u8, header size (u16, or u32 from version 2), header, elements
 *
 * The header is a Python dictionary with exactly the keys descr, fortran_order and shape, such as
 * {'descr': '<f4', 'fortran_order': False, 'shape': (60000, 784), }. */
#include <string.h>

#include "data/data.h"

static const struct {
    char name[4];
    nimbus_element element;
} elements[] = {
    {"|u1", NIMBUS_ELEMENT_U8},  {"|i1", NIMBUS_ELEMENT_I8},  {"<i2", NIMBUS_ELEMENT_I16},
    {"<i4", NIMBUS_ELEMENT_I32}, {"<i8", NIMBUS_ELEMENT_I64}, {"<f2", NIMBUS_ELEMENT_F16},
    {"<f4", NIMBUS_ELEMENT_F32}, {"<f8", NIMBUS_ELEMENT_F64},
};

static void skip_spaces(nimbus_reader *r)
{
    while (r->at < r->size && (r->bytes[r->at] == ' ' || r->bytes[r->at] == '\n'))
        r->at++;
}

/* Skips spaces and then `word`, if that is what comes next. */
static bool accept(nimbus_reader *r, const char *word)
{
    skip_spaces(r);
    size_t n = strlen(word);
    if (nimbus_reader_left(r) < n || memcmp(r->bytes + r->at, word, n) != 0)
        return false;
    r->at += n;
    return true;
}

/* A quoted string of fewer than `size` characters without escapes. */
static bool read_string(nimbus_reader *r, char *out, size_t size)
{
    skip_spaces(r);
    uint8_t quote = nimbus_read_u8(r);
    if (quote != '\'' && quote != '"')
        return false;
    for (size_t n = 0; n < size && !r->failed; n++) {
        uint8_t c = nimbus_read_u8(r);
        out[n] = c == quote ? '\0' : (char)c;
        if (c == quote)
            return true;
    }
    return false;
}

/* "(60000, 784)", "(5,)" */
static bool read_shape(nimbus_reader *r, nimbus_array *out)
{
    if (!accept(r, "("))
        return false;
    out->rank = 0;
    while (!accept(r, ")")) {
        if (out->rank == NIMBUS_DATA_MAX_RANK)
            return false;
        size_t value = 0, digits = 0;
        while (r->at < r->size && r->bytes[r->at] >= '0' && r->bytes[r->at] <= '9') {
            value = value * 10 + (size_t)(r->bytes[r->at++] - '0');
            if (++digits > 15)
                return false;
        }
        if (digits == 0)
            return false;
        out->shape[out->rank++] = value;
        if (!accept(r, ",") && !accept(r, ")"))
            return false;
        if (r->bytes[r->at - 1] == ')')
            break;
    }
    return true;
}

static nimbus_status find_element(const char *descr, nimbus_array *out, nimbus_error *error)
{
    for (size_t i = 0; i < sizeof elements / sizeof *elements; i++) {
        const char *name = elements[i].name;
        if (strcmp(descr, name) == 0 || (name[2] == '1' && strcmp(descr + 1, name + 1) == 0)) {
            out->element = elements[i].element;
            return NIMBUS_OK;
        }
    }
    return nimbus_fail(error, NIMBUS_ERR_UNSUPPORTED,
                       "npy element type '%s', expected <f2, <f4, <f8, |u1, |i1, <i2, <i4 or <i8",
                       descr);
}

static nimbus_status read_header(nimbus_reader *header, nimbus_array *out, nimbus_error *error)
{
    char key[16], descr[16] = "";
    bool fortran = false;
    unsigned seen = 0;
    bool good = accept(header, "{");
    while (good && !accept(header, "}")) {
        good = read_string(header, key, sizeof key) && accept(header, ":");
        if (!good)
            break;
        unsigned bit = 0;
        if (strcmp(key, "descr") == 0) {
            bit = 1;
            good = read_string(header, descr, sizeof descr);
        } else if (strcmp(key, "fortran_order") == 0) {
            bit = 2;
            fortran = accept(header, "True");
            good = fortran || accept(header, "False");
        } else if (strcmp(key, "shape") == 0) {
            bit = 4;
            good = read_shape(header, out);
        }
        good = good && bit != 0 && (seen & bit) == 0;
        seen |= bit;
        if (good && !accept(header, ",")) {
            good = accept(header, "}");
            break;
        }
    }
    skip_spaces(header);
    if (!good || seen != 7 || nimbus_reader_left(header) > 0)
        return nimbus_fail_at(error, NIMBUS_ERR_FORMAT, header->at,
                              "the npy header is not a dictionary of descr (a simple type), "
                              "fortran_order and shape (up to %d sizes)",
                              NIMBUS_DATA_MAX_RANK);
    if (fortran && out->rank > 1)
        return nimbus_fail(error, NIMBUS_ERR_UNSUPPORTED,
                           "the npy array is in Fortran order; save it with "
                           "numpy.ascontiguousarray");
    if (out->rank == 0)
        return nimbus_fail(error, NIMBUS_ERR_FORMAT, "the npy array is a scalar");
    return find_element(descr, out, error);
}

nimbus_status nimbus_npy_parse(const void *bytes, size_t size, nimbus_array *out,
                               nimbus_error *error)
{
    nimbus_reader r = nimbus_reader_of(bytes, size);
    const uint8_t *magic = nimbus_read_bytes(&r, 6);
    if (magic && memcmp(magic, "\x93NUMPY", 6) != 0)
        return nimbus_fail(error, NIMBUS_ERR_FORMAT,
                           "not an npy file: it does not begin with \\x93NUMPY");
    uint8_t major = nimbus_read_u8(&r), minor = nimbus_read_u8(&r);
    size_t header_size = major == 1 ? nimbus_read_u16le(&r) : nimbus_read_u32le(&r);
    if (r.failed)
        return nimbus_fail(error, NIMBUS_ERR_TRUNCATED, "the npy file ends in its header");
    if (major < 1 || major > 3 || minor != 0)
        return nimbus_fail_at(error, NIMBUS_ERR_VERSION, 6,
                              "npy version %u.%u, expected 1.0, 2.0 or 3.0", major, minor);
    const uint8_t *text = nimbus_read_bytes(&r, header_size);
    if (!text)
        return nimbus_fail_at(error, NIMBUS_ERR_TRUNCATED, r.at,
                              "the npy header takes %zu bytes, %zu are left", header_size,
                              nimbus_reader_left(&r));
    nimbus_reader header = nimbus_reader_of(text, header_size);
    nimbus_status status = read_header(&header, out, error);
    if (status != NIMBUS_OK)
        return status;
    out->big_endian = false;
    return nimbus_array_attach(out, &r, error);
}
