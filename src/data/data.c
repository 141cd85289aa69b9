/* data.c - the data set object: allocation, access, normalisation, caller's arrays */
#include <math.h>
#include <string.h>

#include "data/data.h"

nimbus_status nimbus_data_new(const nimbus_data_info *info, nimbus_data **out, nimbus_error *error)
{
    *out = NULL;
    size_t element = nimbus_dtype_size(info->dtype), n, bytes;
    if (nimbus_mul_overflows(info->n_rows, info->n_features, &n) ||
        nimbus_mul_overflows(n, element, &bytes) || bytes > NIMBUS_DATA_MAX_BYTES)
        return nimbus_fail(error, NIMBUS_ERR_LIMIT,
                           "%zu rows of %zu features take more than %zu bytes", info->n_rows,
                           info->n_features, NIMBUS_DATA_MAX_BYTES);
    size_t n_targets;
    if (nimbus_mul_overflows(info->n_rows, info->n_targets, &n_targets) ||
        n_targets > NIMBUS_DATA_MAX_BYTES / 4)
        return nimbus_fail(error, NIMBUS_ERR_LIMIT,
                           "%zu rows of %zu targets take more than %zu bytes", info->n_rows,
                           info->n_targets, NIMBUS_DATA_MAX_BYTES);
    nimbus_data *data = nimbus_alloc(1, sizeof *data);
    if (data) {
        data->info = *info;
        data->schema.others = SIZE_MAX;
        data->features = nimbus_alloc(n, element);
        if (info->n_classes)
            data->labels = nimbus_alloc(info->n_rows, sizeof *data->labels);
        if (info->n_targets)
            data->targets = nimbus_alloc(n_targets, sizeof *data->targets);
    }
    if (!data || !data->features || (info->n_classes && !data->labels) ||
        (info->n_targets && !data->targets)) {
        nimbus_data_free(data);
        return nimbus_fail(error, NIMBUS_ERR_MEMORY, "no memory for %zu rows of %zu features",
                           info->n_rows, info->n_features);
    }
    *out = data;
    return NIMBUS_OK;
}

void nimbus_data_free(nimbus_data *data)
{
    if (!data)
        return;
    nimbus_schema_free(&data->schema);
    nimbus_free(data->json);
    nimbus_free(data->features);
    nimbus_free(data->labels);
    nimbus_free(data->targets);
    nimbus_free(data);
}

/* The class names: the given schema's (even of rows without labels), the known set's, or
 * numbers. */
static nimbus_status name_classes(nimbus_data *data, const nimbus_reading *reading,
                                  nimbus_error *error)
{
    nimbus_names *classes = &data->schema.classes;
    size_t n = data->info.n_classes;
    const nimbus_names *given = reading && reading->given ? &reading->given->classes : NULL;
    if (given)
        return nimbus_names_set(classes, given->n, given->name, NULL, error);
    if (reading && reading->classes && reading->n_classes == n)
        return nimbus_names_set(classes, n, reading->classes, NULL, error);
    return nimbus_names_number(classes, n, error);
}

nimbus_status nimbus_data_compare(const nimbus_data_info *info, const nimbus_schema *given,
                                  nimbus_error *error)
{
    const char *dtype = info->dtype == NIMBUS_U8 ? "u8" : "f32";
    const char *given_dtype = given->dtype == NIMBUS_U8 ? "u8" : "f32";
    if (given->kind == NIMBUS_SCHEMA_TABLE)
        return nimbus_fail(error, NIMBUS_ERR_MISMATCH,
                           "the data are arrays, rows of %zu %s values; the net was trained on a "
                           "table that gives %zu f32 values",
                           info->n_features, dtype, nimbus_schema_width(given));
    if (info->channels != given->channels || info->height != given->height ||
        info->width != given->width || info->dtype != given->dtype)
        return nimbus_fail(error, NIMBUS_ERR_MISMATCH,
                           "the data are rows of %zu x %zu x %zu %s values, the net was trained on "
                           "%zu x %zu x %zu %s (channels, height, width)",
                           info->channels, info->height, info->width, dtype, given->channels,
                           given->height, given->width, given_dtype);
    if (info->n_targets && info->n_targets != given->n_targets)
        return nimbus_fail(error, NIMBUS_ERR_MISMATCH,
                           "the data have %zu targets per row, those the net was trained on %zu",
                           info->n_targets, given->n_targets);
    return NIMBUS_OK;
}

nimbus_status nimbus_data_finish(nimbus_data *data, const nimbus_reading *reading,
                                 nimbus_error *error)
{
    nimbus_schema *schema = &data->schema;
    nimbus_status status = NIMBUS_OK;
    if (schema->kind != NIMBUS_SCHEMA_TABLE) {
        if (reading && reading->given)
            status = nimbus_data_compare(&data->info, reading->given, error);
        if (status == NIMBUS_OK)
            status = name_classes(data, reading, error);
        if (status != NIMBUS_OK)
            return status;
        schema->kind =
            data->info.height * data->info.width > 1 ? NIMBUS_SCHEMA_IMAGE : NIMBUS_SCHEMA_VECTOR;
        schema->n_targets =
            reading && reading->given ? reading->given->n_targets : data->info.n_targets;
        schema->dtype = data->info.dtype;
        schema->channels = data->info.channels;
        schema->height = data->info.height;
        schema->width = data->info.width;
    }
    return nimbus_schema_write(schema, &data->json, error);
}

/* ---- caller's arrays ---------------------------------------------------------------------- */

static nimbus_status check_info(const nimbus_data_info *info, const int32_t *labels,
                                const float *targets, nimbus_error *error)
{
    if (info->dtype != NIMBUS_U8 && info->dtype != NIMBUS_F32)
        return nimbus_fail(error, NIMBUS_ERR_ARGUMENT, "dtype is %d, expected u8 (1) or f32 (2)",
                           (int)info->dtype);
    if (info->n_rows == 0 || info->n_features == 0)
        return nimbus_fail(error, NIMBUS_ERR_ARGUMENT, "%zu rows of %zu features", info->n_rows,
                           info->n_features);
    size_t shape;
    if (nimbus_mul_overflows(info->channels, info->height, &shape) ||
        nimbus_mul_overflows(shape, info->width, &shape) ||
        (shape != 0 && shape != info->n_features))
        return nimbus_fail(error, NIMBUS_ERR_ARGUMENT,
                           "%zu x %zu x %zu values (channels, height, width) are not the %zu "
                           "features",
                           info->channels, info->height, info->width, info->n_features);
    if (info->n_classes > NIMBUS_DATA_MAX_NAMES)
        return nimbus_fail(error, NIMBUS_ERR_LIMIT, "%zu classes, the limit is %d", info->n_classes,
                           NIMBUS_DATA_MAX_NAMES);
    if ((labels != NULL) != (info->n_classes > 0))
        return nimbus_fail(error, NIMBUS_ERR_ARGUMENT, "n_classes is %zu, but labels are %s",
                           info->n_classes, labels ? "given" : "not given");
    if ((targets != NULL) != (info->n_targets > 0))
        return nimbus_fail(error, NIMBUS_ERR_ARGUMENT, "n_targets is %zu, but targets are %s",
                           info->n_targets, targets ? "given" : "not given");
    return NIMBUS_OK;
}

/* First value that is not finite among [n_rows][n] values. */
static nimbus_status check_finite(const float *values, size_t n_rows, size_t n, const char *what,
                                  nimbus_error *error)
{
    for (size_t i = 0; i < n_rows * n; i++)
        if (!isfinite(values[i]))
            return nimbus_fail(error, NIMBUS_ERR_VALUE, "%s, row %zu, column %zu: %s", what,
                               i / n + 1, i % n + 1, isnan(values[i]) ? "NaN" : "infinite");
    return NIMBUS_OK;
}

static nimbus_status check_values(const nimbus_data *data, nimbus_error *error)
{
    const nimbus_data_info *info = &data->info;
    nimbus_status status = NIMBUS_OK;
    if (info->dtype == NIMBUS_F32)
        status = check_finite(data->features, info->n_rows, info->n_features, "features", error);
    if (status == NIMBUS_OK && data->targets)
        status = check_finite(data->targets, info->n_rows, info->n_targets, "targets", error);
    for (size_t i = 0; status == NIMBUS_OK && data->labels && i < info->n_rows; i++)
        if (data->labels[i] < 0 || (size_t)data->labels[i] >= info->n_classes)
            status = nimbus_fail(error, NIMBUS_ERR_VALUE,
                                 "label %d in row %zu is out of range: expected 0 to %zu",
                                 (int)data->labels[i], i + 1, info->n_classes - 1);
    return status;
}

nimbus_status nimbus_data_from_arrays(const nimbus_data_info *info, const void *features,
                                      const int32_t *labels, const float *targets,
                                      nimbus_data **out, nimbus_error *error)
{
    if (!out)
        return nimbus_fail(error, NIMBUS_ERR_ARGUMENT, "out is NULL");
    *out = NULL;
    if (!info || !features)
        return nimbus_fail(error, NIMBUS_ERR_ARGUMENT, "info or features is NULL");
    nimbus_status status = check_info(info, labels, targets, error);
    if (status != NIMBUS_OK)
        return status;
    nimbus_data_info whole = *info;
    if (info->channels * info->height * info->width == 0) {
        whole.channels = info->n_features;
        whole.height = whole.width = 1;
    }
    nimbus_data *data;
    status = nimbus_data_new(&whole, &data, error);
    if (status != NIMBUS_OK)
        return status;
    size_t n = whole.n_rows;
    memcpy(data->features, features, n * whole.n_features * nimbus_dtype_size(whole.dtype));
    if (labels)
        memcpy(data->labels, labels, n * sizeof *labels);
    if (targets)
        memcpy(data->targets, targets, n * whole.n_targets * sizeof *targets);
    status = check_values(data, error);
    if (status == NIMBUS_OK)
        status = nimbus_data_finish(data, NULL, error);
    if (status != NIMBUS_OK) {
        nimbus_data_free(data);
        data = NULL;
    }
    *out = data;
    return status;
}

/* ---- access ------------------------------------------------------------------------------- */

const nimbus_data_info *nimbus_data_get_info(const nimbus_data *data)
{
    return &data->info;
}

const void *nimbus_data_features(const nimbus_data *data)
{
    return data->features;
}

const int32_t *nimbus_data_labels(const nimbus_data *data)
{
    return data->labels;
}

const float *nimbus_data_targets(const nimbus_data *data)
{
    return data->targets;
}

const char *nimbus_data_class_name(const nimbus_data *data, size_t label)
{
    return label < data->schema.classes.n ? data->schema.classes.name[label] : NULL;
}

void nimbus_data_gaps(const nimbus_data *data, size_t *n_filled, size_t *n_unknown)
{
    *n_filled = data->n_filled;
    *n_unknown = data->n_unknown;
}

const char *nimbus_data_schema(const nimbus_data *data)
{
    return data->json;
}

/* ---- normalisation ------------------------------------------------------------------------ */

typedef struct normalisation {
    const nimbus_data *data;
    float *mean, *inverse_std;
} normalisation;

/* Sum over all rows and the pixels of one channel of (value - shift) and of its square. */
static void channel_sums(const nimbus_data *data, size_t channel, double shift, double *sum,
                         double *squares)
{
    size_t d = data->info.n_features, pixels = d / data->info.channels;
    *sum = *squares = 0;
    for (size_t i = 0; i < data->info.n_rows; i++) {
        size_t first = i * d + channel * pixels;
        for (size_t j = first; j < first + pixels; j++) {
            double v = data->info.dtype == NIMBUS_U8 ? (double)((uint8_t *)data->features)[j]
                                                     : (double)((float *)data->features)[j];
            *sum += v - shift;
            *squares += (v - shift) * (v - shift);
        }
    }
}

static void normalise_channel(void *arg, size_t channel)
{
    const normalisation *n = arg;
    size_t pixels = n->data->info.n_features / n->data->info.channels;
    double count = (double)n->data->info.n_rows * (double)pixels, sum, squares;
    channel_sums(n->data, channel, 0, &sum, &squares);
    double mean = sum / count;
    channel_sums(n->data, channel, mean, &sum, &squares);
    double std = sqrt(squares / count);
    /* A column that is constant but for rounding has no scale of its own. */
    double inverse = std > 1e-6 * (1e-6 + fabs(mean)) ? 1 / std : 1;
    for (size_t j = channel * pixels; j < (channel + 1) * pixels; j++) {
        n->mean[j] = (float)mean;
        n->inverse_std[j] = (float)inverse;
    }
}

void nimbus_data_normalisation(const nimbus_data *data, float *mean, float *inverse_std)
{
    normalisation n = {data, mean, inverse_std};
    nimbus_parallel(0, data->info.channels, normalise_channel, &n);
}
