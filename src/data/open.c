/* open.c - from a spec, or bytes, to a data set: what is it, and who reads it
 *
 * Known names come first, then folders, then "features,labels" pairs, then single files. Files
 * are told apart by their first bytes; only CIFAR-10 batches, which have no mark of their own,
 * by a name that ends in .bin (.gz, .xz). Whatever is left must be a text table. */
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>

#include "data/data.h"

enum { NPY_MAGIC_SIZE = 6 };

/* ---- options ------------------------------------------------------------------------------ */

static nimbus_status begin(nimbus_reading *reading, nimbus_split split,
                           const nimbus_data_options *options, nimbus_error *error)
{
    *reading = (nimbus_reading){.split = split, .options = NIMBUS_DATA_OPTIONS_INIT};
    if ((unsigned)split > NIMBUS_SPLIT_TEST)
        return nimbus_fail(error, NIMBUS_ERR_ARGUMENT, "split is %d, expected 0 to %d", (int)split,
                           NIMBUS_SPLIT_TEST);
    if (options) {
        size_t size = options->size < sizeof *options ? options->size : sizeof *options;
        if (size < sizeof options->size)
            return nimbus_fail(error, NIMBUS_ERR_ARGUMENT,
                               "the data options are not initialised: their size is %zu",
                               options->size);
        memcpy(&reading->options, options, size);
    }
    const char *schema = reading->options.schema;
    return schema && *schema ? nimbus_schema_read(schema, &reading->given, error) : NIMBUS_OK;
}

static void end(nimbus_reading *reading)
{
    if (reading->given)
        nimbus_schema_free(reading->given);
    nimbus_free(reading->given);
}

/* ---- files -------------------------------------------------------------------------------- */

nimbus_status nimbus_data_file(const char *path, nimbus_buffer *out, nimbus_error *error)
{
    nimbus_status status = nimbus_file_read(path, NIMBUS_DATA_MAX_BYTES, out, error);
    if (status != NIMBUS_OK)
        return status;
    status = nimbus_decompress(out, error);
    if (status != NIMBUS_OK) {
        nimbus_buffer_free(out);
        return nimbus_fail_prefix(error, status, "%s", path);
    }
    return NIMBUS_OK;
}

static bool is_npy(const uint8_t *bytes, size_t size)
{
    return size >= NPY_MAGIC_SIZE && memcmp(bytes, "\x93NUMPY", NPY_MAGIC_SIZE) == 0;
}

/* Views bytes as an array: npy by its first bytes, else IDX. */
static nimbus_status parse_elements(const void *bytes, size_t size, nimbus_array *array,
                                    nimbus_error *error)
{
    return is_npy(bytes, size) ? nimbus_npy_parse(bytes, size, array, error)
                               : nimbus_idx_parse(bytes, size, array, error);
}

/* Reads a file into *buffer and views it as an array. */
static nimbus_status open_array(const char *path, nimbus_buffer *buffer, nimbus_array *array,
                                nimbus_error *error)
{
    nimbus_status status = nimbus_data_file(path, buffer, error);
    if (status != NIMBUS_OK)
        return status;
    status = parse_elements(buffer->bytes, buffer->size, array, error);
    return status == NIMBUS_OK ? status : nimbus_fail_prefix(error, status, "%s", path);
}

nimbus_status nimbus_data_open_arrays(const char *features, const char *labels,
                                      const nimbus_reading *reading, nimbus_data **out,
                                      nimbus_error *error)
{
    nimbus_buffer feature_bytes = {0}, label_bytes = {0};
    nimbus_array feature_array = {0}, label_array = {0};
    nimbus_status status = open_array(features, &feature_bytes, &feature_array, error);
    if (status == NIMBUS_OK && labels)
        status = open_array(labels, &label_bytes, &label_array, error);
    if (status == NIMBUS_OK) {
        status =
            nimbus_array_data(&feature_array, labels ? &label_array : NULL, reading, out, error);
        if (status != NIMBUS_OK)
            status = nimbus_fail_prefix(error, status, "%s%s%s", features, labels ? "," : "",
                                        labels ? labels : "");
    }
    nimbus_buffer_free(&feature_bytes);
    nimbus_buffer_free(&label_bytes);
    return status;
}

static nimbus_status open_archive(const nimbus_buffer *file, nimbus_reading *reading,
                                  nimbus_data **out, nimbus_error *error)
{
    nimbus_buffer records = {0};
    bool test = reading->split == NIMBUS_SPLIT_TEST;
    nimbus_status status = nimbus_cifar_untar(file->bytes, file->size, test, &records, error);
    reading->own_test = true;
    if (test)
        reading->split = NIMBUS_SPLIT_ALL;
    if (status == NIMBUS_OK)
        status = nimbus_cifar_data(records.bytes, records.size, reading, out, error);
    nimbus_buffer_free(&records);
    return status;
}

/* Two zero bytes, then an element type: no text begins like this. */
static bool is_idx(const uint8_t *bytes, size_t size)
{
    return size >= 4 && bytes[0] == 0 && bytes[1] == 0 && bytes[2] >= 8 && bytes[2] <= 14;
}

static bool ends_with(const char *text, const char *end)
{
    size_t n = strlen(text), n_end = strlen(end);
    return n >= n_end && strcmp(text + n - n_end, end) == 0;
}

static nimbus_status open_file(const char *path, nimbus_reading *reading, nimbus_data **out,
                               nimbus_error *error)
{
    const nimbus_known *cifar = nimbus_known_named("cifar-10");
    bool bin = ends_with(path, ".bin") || ends_with(path, ".bin.gz") || ends_with(path, ".bin.xz");
    nimbus_buffer file = {0};
    nimbus_array array = {0};
    nimbus_status status = nimbus_data_file(path, &file, error);
    if (status != NIMBUS_OK)
        return status;
    bool tar = nimbus_tar_recognise(file.bytes, file.size);
    if (bin || tar) {
        reading->classes = cifar->classes;
        reading->n_classes = cifar->n_classes;
    }
    if (bin)
        status = nimbus_cifar_data(file.bytes, file.size, reading, out, error);
    else if (tar)
        status = open_archive(&file, reading, out, error);
    else if (is_npy(file.bytes, file.size) || is_idx(file.bytes, file.size)) {
        status = parse_elements(file.bytes, file.size, &array, error);
        if (status == NIMBUS_OK)
            status = nimbus_array_data(&array, NULL, reading, out, error);
    } else
        status = nimbus_table_data((char *)file.bytes, file.size, reading, NULL, out, error);
    nimbus_buffer_free(&file);
    return status == NIMBUS_OK ? status : nimbus_fail_prefix(error, status, "%s", path);
}

/* "features,labels" */
static nimbus_status open_pair(const char *spec, const nimbus_reading *reading, nimbus_data **out,
                               nimbus_error *error)
{
    char *features = nimbus_strdup(spec);
    nimbus_status status;
    if (features) {
        char *comma = strchr(features, ',');
        *comma = '\0';
        status = nimbus_data_open_arrays(features, comma + 1, reading, out, error);
    } else {
        status = nimbus_fail(error, NIMBUS_ERR_MEMORY, "no memory for a path");
    }
    nimbus_free(features);
    return status;
}

static bool is_folder(const char *path)
{
    struct stat st;
    return stat(path, &st) == 0 && S_ISDIR(st.st_mode);
}

static nimbus_status open_spec(const char *spec, nimbus_reading *reading, nimbus_data **out,
                               nimbus_error *error)
{
    const nimbus_known *known = nimbus_known_named(spec);
    char names[NIMBUS_KNOWN_TEXT];
    if (known) {
        char folder[512];
        nimbus_status status = nimbus_known_folder(known, reading->options.data_dir, folder, error);
        return status == NIMBUS_OK ? nimbus_known_open(known, folder, reading, out, error) : status;
    }
    if (is_folder(spec)) {
        known = nimbus_known_in(spec);
        if (!known)
            return nimbus_fail(error, NIMBUS_ERR_IO, "%s: no files of %s in this folder", spec,
                               nimbus_known_names(names, true, "or"));
        return nimbus_known_open(known, spec, reading, out, error);
    }
    if (strchr(spec, ',') && !nimbus_file_exists(spec))
        return open_pair(spec, reading, out, error);
    known = nimbus_file_exists(spec) ? NULL : nimbus_known_like(spec);
    if (known)
        return nimbus_fail(error, NIMBUS_ERR_IO, "%s: there is no such file; did you mean %s?",
                           spec, known->name);
    if (!strpbrk(spec, "./-") && !nimbus_file_exists(spec))
        return nimbus_fail(error, NIMBUS_ERR_IO,
                           "%s: neither a file nor a known data set; those are %s", spec,
                           nimbus_known_names(names, false, "and"));
    return open_file(spec, reading, out, error);
}

nimbus_status nimbus_data_open(const char *spec, nimbus_split split,
                               const nimbus_data_options *options, nimbus_data **out,
                               nimbus_error *error)
{
    if (!out)
        return nimbus_fail(error, NIMBUS_ERR_ARGUMENT, "out is NULL");
    *out = NULL;
    if (!spec || !*spec)
        return nimbus_fail(error, NIMBUS_ERR_ARGUMENT, "no data set is named");
    nimbus_reading reading;
    nimbus_status status = begin(&reading, split, options, error);
    if (status == NIMBUS_OK)
        status = open_spec(spec, &reading, out, error);
    end(&reading);
    return status;
}

/* ---- memory ------------------------------------------------------------------------------- */

static nimbus_status parse_table(const void *bytes, size_t n_bytes, const nimbus_reading *reading,
                                 nimbus_data **out, nimbus_error *error)
{
    char *text = nimbus_alloc(n_bytes, 1);
    if (!text)
        return nimbus_fail(error, NIMBUS_ERR_MEMORY, "no memory for %zu bytes", n_bytes);
    memcpy(text, bytes, n_bytes);
    nimbus_status status = nimbus_table_data(text, n_bytes, reading, NULL, out, error);
    nimbus_free(text);
    return status;
}

static nimbus_status parse_array(const void *bytes, size_t n_bytes, bool npy,
                                 const nimbus_reading *reading, nimbus_data **out,
                                 nimbus_error *error)
{
    nimbus_array array = {0};
    nimbus_status status = npy ? nimbus_npy_parse(bytes, n_bytes, &array, error)
                               : nimbus_idx_parse(bytes, n_bytes, &array, error);
    return status == NIMBUS_OK ? nimbus_array_data(&array, NULL, reading, out, error) : status;
}

nimbus_status nimbus_data_parse(const void *bytes, size_t n_bytes, const char *format,
                                const nimbus_data_options *options, nimbus_data **out,
                                nimbus_error *error)
{
    if (!out)
        return nimbus_fail(error, NIMBUS_ERR_ARGUMENT, "out is NULL");
    *out = NULL;
    if (!format || (!bytes && n_bytes > 0))
        return nimbus_fail(error, NIMBUS_ERR_ARGUMENT, "bytes or format is NULL");
    nimbus_reading reading;
    nimbus_status status = begin(&reading, NIMBUS_SPLIT_ALL, options, error);
    if (status == NIMBUS_OK && n_bytes == 0)
        status = nimbus_fail(error, NIMBUS_ERR_TRUNCATED, "there are no bytes");
    if (status == NIMBUS_OK) {
        if (strcmp(format, "csv") == 0) {
            status = parse_table(bytes, n_bytes, &reading, out, error);
        } else if (strcmp(format, "npy") == 0 || strcmp(format, "idx") == 0) {
            status = parse_array(bytes, n_bytes, *format == 'n', &reading, out, error);
        } else if (strcmp(format, "cifar") == 0) {
            const nimbus_known *cifar = nimbus_known_named("cifar-10");
            reading.classes = cifar->classes;
            reading.n_classes = cifar->n_classes;
            status = nimbus_cifar_data(bytes, n_bytes, &reading, out, error);
        } else {
            status = nimbus_fail(error, NIMBUS_ERR_ARGUMENT,
                                 "format is '%.20s', expected csv, npy, idx or cifar", format);
        }
    }
    end(&reading);
    return status;
}
