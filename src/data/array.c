/* array.c - data from arrays of typed elements (IDX and npy files)
 *
 * u8 stays u8, everything else becomes f32. The first dimension counts the rows. A row of two
 * dimensions is an image [H][W]; of three, planar [C][H][W], or interleaved [H][W][C] if only the
 * last dimension can be a number of channels (1, 3 or 4): that is made planar. */
#include <float.h>
#include <math.h>
#include <string.h>

#include "data/data.h"

size_t nimbus_element_size(nimbus_element element)
{
    static const size_t sizes[] = {1, 1, 2, 4, 8, 2, 4, 8};
    return sizes[element];
}

nimbus_status nimbus_array_attach(nimbus_array *array, nimbus_reader *r, nimbus_error *error)
{
    size_t bytes = nimbus_element_size(array->element);
    for (size_t i = 0; i < array->rank; i++) {
        if (array->shape[i] == 0)
            return nimbus_fail(error, NIMBUS_ERR_FORMAT, "the array is empty: dimension %zu is 0",
                               i + 1);
        if (nimbus_mul_overflows(bytes, array->shape[i], &bytes) || bytes > NIMBUS_DATA_MAX_BYTES)
            return nimbus_fail(error, NIMBUS_ERR_LIMIT,
                               "the array claims more than %zu bytes (dimension %zu is %zu)",
                               NIMBUS_DATA_MAX_BYTES, i + 1, array->shape[i]);
    }
    size_t left = nimbus_reader_left(r);
    if (left < bytes)
        return nimbus_fail_at(error, NIMBUS_ERR_TRUNCATED, r->size,
                              "the array takes %zu bytes, %zu are there", bytes, left);
    if (left > bytes)
        return nimbus_fail_at(error, NIMBUS_ERR_FORMAT, r->at + bytes,
                              "%zu bytes follow the array of %zu bytes", left - bytes, bytes);
    array->bytes = nimbus_read_bytes(r, bytes);
    return NIMBUS_OK;
}

static double value_at(const nimbus_array *array, size_t i)
{
    size_t size = nimbus_element_size(array->element);
    const uint8_t *p = array->bytes + i * size;
    uint64_t raw = 0;
    for (size_t k = 0; k < size; k++)
        raw |= (uint64_t)p[array->big_endian ? size - 1 - k : k] << 8 * k;
    uint32_t low = (uint32_t)raw;
    float f;
    double d;
    switch (array->element) {
    case NIMBUS_ELEMENT_I8:
        return (int8_t)raw;
    case NIMBUS_ELEMENT_I16:
        return (int16_t)raw;
    case NIMBUS_ELEMENT_I32:
        return (int32_t)low;
    case NIMBUS_ELEMENT_I64:
        return (double)(int64_t)raw;
    case NIMBUS_ELEMENT_F16:
        return (double)nimbus_float_of_half((uint16_t)raw);
    case NIMBUS_ELEMENT_F32:
        memcpy(&f, &low, sizeof f);
        return (double)f;
    case NIMBUS_ELEMENT_F64:
        memcpy(&d, &raw, sizeof d);
        return d;
    case NIMBUS_ELEMENT_U8:
    default:
        return (double)raw;
    }
}

/* Sets the shape of a row; true if its values must be rearranged to be planar. */
static bool shape_row(const nimbus_array *a, nimbus_data_info *info)
{
    const size_t *s = a->shape;
    info->n_features = 1;
    for (size_t i = 1; i < a->rank; i++)
        info->n_features *= s[i];
    info->channels = info->n_features;
    info->height = info->width = 1;
    bool interleaved = false;
    if (a->rank == 3) {
        info->channels = 1;
        info->height = s[1];
        info->width = s[2];
    } else if (a->rank == 4) {
        bool first = s[1] == 1 || s[1] == 3 || s[1] == 4;
        interleaved = !first && (s[3] == 1 || s[3] == 3 || s[3] == 4);
        info->channels = interleaved ? s[3] : s[1];
        info->height = interleaved ? s[1] : s[2];
        info->width = interleaved ? s[2] : s[3];
    }
    return interleaved;
}

/* Error for a value that is not finite in f32; `what` is "features" or "targets". */
static nimbus_status check_value(double v, const char *what, size_t row, size_t column,
                                 nimbus_error *error)
{
    if (fabs(v) <= (double)FLT_MAX)
        return NIMBUS_OK;
    return nimbus_fail(error, NIMBUS_ERR_VALUE, "%s, row %zu, column %zu: %s", what, row + 1,
                       column + 1, isnan(v) ? "NaN" : "infinite, or beyond 32-bit floats");
}

static nimbus_status copy_features(const nimbus_array *a, const nimbus_rows *rows, bool interleaved,
                                   nimbus_data *data, nimbus_error *error)
{
    size_t d = data->info.n_features, c = data->info.channels, pixels = d / c;
    for (size_t i = 0; i < rows->n; i++) {
        size_t from = rows->row[i] * d;
        if (a->element == NIMBUS_ELEMENT_U8 && !interleaved) {
            memcpy((uint8_t *)data->features + i * d, a->bytes + from, d);
            continue;
        }
        for (size_t j = 0; j < d; j++) {
            size_t k = interleaved ? (j % pixels) * c + j / pixels : j;
            double v = value_at(a, from + k);
            nimbus_status status = check_value(v, "features", rows->row[i], k, error);
            if (status != NIMBUS_OK)
                return status;
            if (data->info.dtype == NIMBUS_U8)
                ((uint8_t *)data->features)[i * d + j] = (uint8_t)v;
            else
                ((float *)data->features)[i * d + j] = (float)v;
        }
    }
    return NIMBUS_OK;
}

/* Checks the labels of all rows, so that every split has the same number of classes. */
static nimbus_status count_classes(const nimbus_array *labels, const nimbus_reading *reading,
                                   size_t *n_classes, nimbus_error *error)
{
    size_t known = reading->given ? reading->given->classes.n : reading->n_classes;
    size_t limit = known ? known : NIMBUS_DATA_MAX_NAMES;
    size_t n = known;
    if (labels->element >= NIMBUS_ELEMENT_F16)
        return nimbus_fail(error, NIMBUS_ERR_VALUE,
                           "the labels are floating-point numbers: class labels are integers; "
                           "values to predict need the regression option");
    if (reading->given && known == 0)
        return nimbus_fail(
            error, NIMBUS_ERR_MISMATCH,
            "there are class labels, the data the net was trained on have no classes");
    for (size_t i = 0; i < labels->shape[0]; i++) {
        double v = value_at(labels, i);
        if (!(v >= 0 && v < (double)limit))
            return nimbus_fail(error, NIMBUS_ERR_VALUE,
                               "label %.0f in row %zu is out of range: expected 0 to %zu", v, i + 1,
                               limit - 1);
        if ((size_t)v >= n)
            n = (size_t)v + 1;
    }
    *n_classes = n;
    return NIMBUS_OK;
}

/* Fills info's classes or targets from the shape and values of the labels. */
static nimbus_status shape_labels(const nimbus_array *features, const nimbus_array *labels,
                                  const nimbus_reading *reading, nimbus_data_info *info,
                                  nimbus_error *error)
{
    if (labels->shape[0] != features->shape[0])
        return nimbus_fail(error, NIMBUS_ERR_MISMATCH, "%zu rows of features, but %zu labels",
                           features->shape[0], labels->shape[0]);
    size_t per_row = 1;
    for (size_t i = 1; i < labels->rank; i++)
        per_row *= labels->shape[i];
    if (reading->options.regression) {
        info->n_targets = per_row;
        return NIMBUS_OK;
    }
    if (per_row != 1)
        return nimbus_fail(error, NIMBUS_ERR_MISMATCH, "%zu labels per row, expected one", per_row);
    return count_classes(labels, reading, &info->n_classes, error);
}

static nimbus_status copy_labels(const nimbus_array *labels, const nimbus_rows *rows,
                                 nimbus_data *data, nimbus_error *error)
{
    size_t t = data->info.n_targets;
    for (size_t i = 0; i < rows->n; i++) {
        if (data->labels)
            data->labels[i] = (int32_t)value_at(labels, rows->row[i]);
        for (size_t j = 0; j < t; j++) {
            double v = value_at(labels, rows->row[i] * t + j);
            nimbus_status status = check_value(v, "targets", rows->row[i], j, error);
            if (status != NIMBUS_OK)
                return status;
            data->targets[i * t + j] = (float)v;
        }
    }
    return NIMBUS_OK;
}

nimbus_status nimbus_array_data(const nimbus_array *features, const nimbus_array *labels,
                                const nimbus_reading *reading, nimbus_data **out,
                                nimbus_error *error)
{
    nimbus_rows rows = {0};
    nimbus_data *data = NULL;
    nimbus_data_info info = {0};
    *out = NULL;
    bool interleaved = shape_row(features, &info);
    info.dtype = features->element == NIMBUS_ELEMENT_U8 ? NIMBUS_U8 : NIMBUS_F32;
    nimbus_status status =
        reading->given ? nimbus_data_compare(&info, reading->given, error) : NIMBUS_OK;
    if (status == NIMBUS_OK && labels)
        status = shape_labels(features, labels, reading, &info, error);
    if (status == NIMBUS_OK)
        status = nimbus_rows_choose(reading, features->shape[0], &rows, error);
    if (status != NIMBUS_OK)
        goto done;
    info.n_rows = rows.n;
    status = nimbus_data_new(&info, &data, error);
    if (status == NIMBUS_OK)
        status = copy_features(features, &rows, interleaved, data, error);
    if (status == NIMBUS_OK && labels)
        status = copy_labels(labels, &rows, data, error);
    if (status == NIMBUS_OK)
        status = nimbus_data_finish(data, reading, error);
done:
    nimbus_free(rows.row);
    if (status != NIMBUS_OK) {
        nimbus_data_free(data);
        data = NULL;
    }
    *out = data;
    return status;
}
