/* rows.c - reads rows for `nimbus run`: CSV and raw rows as a stream, arrays as a whole
 *
 * A CSV stream is cut after the last complete line read so far (a newline within quotes does not
 * end one); each piece is parsed by the library behind a copy of the headings, if there are any. */
#include <errno.h>
#include <fcntl.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#include <zlib.h>

#include "rows.h"

#define PIECE       (1u << 20)
#define ARRAY_LIMIT ((size_t)1 << 32)
#define LINE_LIMIT  ((size_t)64 << 20)

const char *const rows_format_names[] = {"auto", "csv", "npy", "idx", "u8", "f32", NULL};

struct rows_reader {
    const char *path;
    const model *m;
    rows_format format;
    int file;
    gzFile gz; /* NULL: read from file directly */
    int at_end;
    char *bytes; /* read and not yet used: [first, size) */
    size_t first, size, capacity;
    char *headings; /* first line of a CSV stream with its newline, "" if it is a row */
    size_t n_done;
    nimbus_data *data; /* parsed rows: an array, or the present piece of a table */
    int borrowed;
    size_t data_at;
    size_t n_filled, n_unknown; /* cells: see nimbus_data_gaps */
    void *converted;            /* rows of data in the model's type, where that differs */
};

static size_t row_bytes(const model *m)
{
    return m->n_inputs * (m->input_dtype == NIMBUS_U8 ? 1 : 4);
}

/* Reads on until at least one byte came; at_end if none does. */
static nimbus_status fill(rows_reader *r, nimbus_error *error)
{
    if (r->first > 0) {
        memmove(r->bytes, r->bytes + r->first, r->size - r->first);
        r->size -= r->first;
        r->first = 0;
    }
    if (r->capacity - r->size < PIECE) {
        size_t capacity = r->capacity * 2 + PIECE;
        char *bytes = realloc(r->bytes, capacity);
        if (!bytes)
            return tool_error(error, NIMBUS_ERR_MEMORY, "%s: out of memory", r->path);
        r->bytes = bytes;
        r->capacity = capacity;
    }
    int problem = 0;
    ssize_t n =
        r->gz ? gzread(r->gz, r->bytes + r->size, PIECE) : read(r->file, r->bytes + r->size, PIECE);
    if (n < 0 && r->gz)
        return tool_error(error, NIMBUS_ERR_FORMAT, "%s: %s", r->path, gzerror(r->gz, &problem));
    if (n < 0)
        return tool_error(error, NIMBUS_ERR_IO, "%s: %s", r->path, strerror(errno));
    if (n == 0 && r->gz && gzerror(r->gz, &problem) && problem == Z_BUF_ERROR)
        return tool_error(error, NIMBUS_ERR_TRUNCATED, "%s: the compressed data end early",
                          r->path);
    r->at_end = n == 0;
    r->size += (size_t)n;
    return NIMBUS_OK;
}

static int is_gz(const char *path)
{
    size_t n = strlen(path);
    return n > 3 && strcmp(path + n - 3, ".gz") == 0;
}

/* A last ".gz" aside. */
static int has_suffix(const char *path, const char *suffix)
{
    size_t n = strlen(path) - (is_gz(path) ? 3 : 0), m = strlen(suffix);
    return n >= m && strncmp(path + n - m, suffix, m) == 0;
}

static int looks_like_text(const rows_reader *r)
{
    size_t n = r->size < 512 ? r->size : 512;
    for (size_t i = 0; i < n; i++)
        if ((unsigned char)r->bytes[i] < ' ' && !strchr("\t\r\n", r->bytes[i]))
            return 0;
    return n > 0 && memchr(r->bytes, 0, n) == NULL;
}

static nimbus_status choose_format(rows_reader *r, nimbus_error *error)
{
    if (r->format != ROWS_AUTO)
        return NIMBUS_OK;
    if (r->size >= 6 && memcmp(r->bytes, "\x93NUMPY", 6) == 0)
        r->format = ROWS_NPY;
    else if (r->size >= 4 && !r->bytes[0] && !r->bytes[1] && strchr("\x08\x0d", r->bytes[2]) &&
             r->bytes[2] && r->bytes[3] > 0 && r->bytes[3] <= 4)
        r->format = ROWS_IDX;
    else if (has_suffix(r->path, ".csv") || has_suffix(r->path, ".tsv") ||
             has_suffix(r->path, ".txt") || looks_like_text(r))
        r->format = ROWS_CSV;
    else if (r->size > 0)
        return tool_error(error, NIMBUS_ERR_FORMAT,
                          "%s: neither CSV nor npy nor IDX; for raw rows say --format u8 or f32",
                          r->path);
    return NIMBUS_OK;
}

/* Checks the width and brings the values into the model's type, if that loses nothing. */
static nimbus_status adopt_data(rows_reader *r, nimbus_error *error)
{
    const nimbus_data_info *info = nimbus_data_get_info(r->data);
    const size_t n = info->n_rows * info->n_features;
    if (info->n_features != r->m->n_inputs)
        return tool_error(error, NIMBUS_ERR_MISMATCH,
                          "%s: a row has %zu values, but the model reads %zu", r->path,
                          info->n_features, r->m->n_inputs);
    size_t n_filled, n_unknown;
    nimbus_data_gaps(r->data, &n_filled, &n_unknown);
    r->n_filled += n_filled;
    r->n_unknown += n_unknown;
    free(r->converted);
    r->converted = NULL;
    r->data_at = 0;
    if (info->dtype == r->m->input_dtype)
        return NIMBUS_OK;
    r->converted = malloc(n * (r->m->input_dtype == NIMBUS_U8 ? 1 : 4) + 1);
    if (!r->converted)
        return tool_error(error, NIMBUS_ERR_MEMORY, "%s: out of memory", r->path);
    const uint8_t *bytes = nimbus_data_features(r->data);
    const float *floats = nimbus_data_features(r->data);
    for (size_t i = 0; i < n; i++) {
        if (info->dtype == NIMBUS_U8) {
            ((float *)r->converted)[i] = (float)bytes[i];
        } else if (floats[i] >= 0 && floats[i] <= 255 && floats[i] == floorf(floats[i])) {
            ((uint8_t *)r->converted)[i] = (uint8_t)floats[i];
        } else {
            return tool_error(error, NIMBUS_ERR_MISMATCH,
                              "%s: row %zu, value %zu is %g, but the model reads whole numbers "
                              "from 0 to 255",
                              r->path, r->n_done + i / info->n_features + 1,
                              i % info->n_features + 1, (double)floats[i]);
        }
    }
    return NIMBUS_OK;
}

static nimbus_status parse(rows_reader *r, const char *bytes, size_t size, nimbus_data **out,
                           nimbus_error *error)
{
    nimbus_data_options options = NIMBUS_DATA_OPTIONS_INIT;
    options.label = "none"; /* what is to be found out need not be in the table */
    options.schema = r->format == ROWS_CSV ? r->m->schema : NULL;
    nimbus_status status =
        nimbus_data_parse(bytes, size, rows_format_names[r->format], &options, out, error);
    nimbus_error cause = *error;
    if (status && r->n_done > 0)
        return tool_error(error, status, "%s: after %zu good rows: %.400s", r->path, r->n_done,
                          cause.message);
    return status ? tool_error(error, status, "%s: %.450s", r->path, cause.message) : NIMBUS_OK;
}

/* Position after the last complete line in bytes[first..size), or first if there is none; `one`:
 * after the first line. */
static size_t line_end(const rows_reader *r, int one)
{
    size_t end = r->first;
    int quoted = 0;
    for (size_t i = r->first; i < r->size; i++) {
        quoted ^= r->bytes[i] == '"';
        if (r->bytes[i] == '\n' && !quoted) {
            end = i + 1;
            if (one)
                return end;
        }
    }
    return r->at_end && end < r->size ? r->size : end;
}

/* The first line holds headings if, taken twice, it does not give two rows. */
static nimbus_status find_headings(rows_reader *r, nimbus_error *error)
{
    size_t size = line_end(r, 1) - r->first;
    char *twice = malloc(2 * size + 3);
    r->headings = calloc(size + 2, 1);
    if (!twice || !r->headings) {
        free(twice);
        return tool_error(error, NIMBUS_ERR_MEMORY, "%s: out of memory", r->path);
    }
    nimbus_data *data = NULL;
    nimbus_error ignored;
    int newline = size > 0 && r->bytes[r->first + size - 1] == '\n';
    int n = snprintf(twice, 2 * size + 3, "%.*s%s%.*s", (int)size, r->bytes + r->first,
                     newline ? "" : "\n", (int)size, r->bytes + r->first);
    if (parse(r, twice, (size_t)n, &data, &ignored) || nimbus_data_get_info(data)->n_rows != 2) {
        memcpy(r->headings, r->bytes + r->first, size);
        r->first += size;
    }
    nimbus_data_free(data);
    free(twice);
    return NIMBUS_OK;
}

/* Waits for complete lines that are not all empty; *size is their length, 0 at the end. */
static nimbus_status next_lines(rows_reader *r, size_t *size, nimbus_error *error)
{
    for (;;) {
        size_t end = line_end(r, 0), i = r->first;
        while (i < end && (r->bytes[i] == '\n' || r->bytes[i] == '\r'))
            i++;
        r->first = i;
        *size = end - i;
        if (*size > 0 || r->at_end)
            return NIMBUS_OK;
        if (r->size - r->first > LINE_LIMIT)
            return tool_error(error, NIMBUS_ERR_LIMIT, "%s: a line of more than %zu bytes", r->path,
                              LINE_LIMIT);
        nimbus_status status = fill(r, error);
        if (status)
            return status;
    }
}

/* The fault of the line taken for headings, if a table ended with it. */
static nimbus_status check_headings(rows_reader *r, nimbus_error *error)
{
    nimbus_data *data = NULL;
    nimbus_status status = parse(r, r->headings, strlen(r->headings), &data, error);
    nimbus_data_free(data);
    return status;
}

/* Makes r->data of the complete lines that are there, waiting for at least one; none at the end. */
static nimbus_status next_table(rows_reader *r, nimbus_error *error)
{
    size_t size;
    nimbus_data_free(r->data);
    r->data = NULL;
    nimbus_status status = next_lines(r, &size, error);
    if (!status && size > 0 && !r->headings && !(status = find_headings(r, error)))
        status = next_lines(r, &size, error);
    if (!status && size == 0 && r->n_done == 0 && r->headings && r->headings[0])
        return check_headings(r, error);
    if (status || size == 0)
        return status;
    size_t head = strlen(r->headings);
    char *text = malloc(head + size);
    if (!text)
        return tool_error(error, NIMBUS_ERR_MEMORY, "%s: out of memory", r->path);
    memcpy(text, r->headings, head);
    memcpy(text + head, r->bytes + r->first, size);
    r->first += size;
    status = parse(r, text, head + size, &r->data, error);
    free(text);
    return status ? status : adopt_data(r, error);
}

static nimbus_status read_array(rows_reader *r, nimbus_error *error)
{
    nimbus_status status = NIMBUS_OK;
    while (!r->at_end && !status) {
        if (r->size > ARRAY_LIMIT)
            return tool_error(error, NIMBUS_ERR_LIMIT, "%s: more than %zu bytes", r->path,
                              ARRAY_LIMIT);
        status = fill(r, error);
    }
    if (!status)
        status = parse(r, r->bytes, r->size, &r->data, error);
    return status ? status : adopt_data(r, error);
}

nimbus_status rows_of_data(const nimbus_data *data, const model *m, rows_reader **out,
                           nimbus_error *error)
{
    rows_reader *r = calloc(1, sizeof *r);
    *out = NULL;
    if (!r)
        return tool_error(error, NIMBUS_ERR_MEMORY, "out of memory");
    r->path = "data";
    r->m = m;
    r->file = -1;
    r->format = ROWS_NPY;
    r->data = (nimbus_data *)(uintptr_t)data; /* only read */
    r->borrowed = 1;
    nimbus_status status = adopt_data(r, error);
    if (status)
        rows_close(r);
    else
        *out = r;
    return status;
}

nimbus_status rows_open(const char *path, rows_format format, const model *m, rows_reader **out,
                        nimbus_error *error)
{
    rows_reader *r = calloc(1, sizeof *r);
    *out = NULL;
    if (!r)
        return tool_error(error, NIMBUS_ERR_MEMORY, "out of memory");
    int is_stdin = strcmp(path, "-") == 0;
    nimbus_status status = NIMBUS_OK;
    r->path = is_stdin ? "standard input" : path;
    r->m = m;
    r->format = format;
    r->file = is_stdin ? STDIN_FILENO : open(path, O_RDONLY | O_CLOEXEC);
    if (r->file < 0) {
        status = tool_error(error, NIMBUS_ERR_IO, "%s: %s", path, strerror(errno));
        goto done;
    }
    if (is_gz(path) && !(r->gz = gzdopen(r->file, "rb"))) {
        status = tool_error(error, NIMBUS_ERR_MEMORY, "out of memory");
        goto done;
    }
    if ((status = fill(r, error)) || (status = choose_format(r, error)))
        goto done;
    if (r->format == ROWS_NPY || r->format == ROWS_IDX)
        status = read_array(r, error);
    else if (r->format == ROWS_U8 || r->format == ROWS_F32) {
        if ((r->format == ROWS_U8) != (m->input_dtype == NIMBUS_U8))
            status = tool_error(error, NIMBUS_ERR_MISMATCH, "%s: the model reads %s rows", r->path,
                                m->input_dtype == NIMBUS_U8 ? "u8" : "f32");
    }
done:
    if (status)
        rows_close(r);
    else
        *out = r;
    return status;
}

void rows_close(rows_reader *r)
{
    if (!r)
        return;
    if (r->gz)
        gzclose(r->gz);
    else if (r->file > STDIN_FILENO)
        close(r->file);
    if (!r->borrowed)
        nimbus_data_free(r->data);
    free(r->converted);
    free(r->headings);
    free(r->bytes);
    free(r);
}

void rows_gaps(const rows_reader *r, size_t *n_filled, size_t *n_unknown)
{
    *n_filled = r->n_filled;
    *n_unknown = r->n_unknown;
}

static nimbus_status next_raw(rows_reader *r, size_t max_rows, const void **rows, size_t *n_rows,
                              nimbus_error *error)
{
    const size_t width = row_bytes(r->m);
    nimbus_status status = NIMBUS_OK;
    while (r->size - r->first < width && !r->at_end && !status)
        status = fill(r, error);
    if (status)
        return status;
    size_t n = (r->size - r->first) / width;
    if (n == 0 && r->size > r->first)
        return tool_error(error, NIMBUS_ERR_TRUNCATED,
                          "%s: ends within row %zu: %zu bytes of %zu are there", r->path,
                          r->n_done + 1, r->size - r->first, width);
    *n_rows = n < max_rows ? n : max_rows;
    *rows = r->bytes + r->first;
    r->first += *n_rows * width;
    return NIMBUS_OK;
}

nimbus_status rows_next(rows_reader *r, size_t max_rows, const void **rows, size_t *n_rows,
                        nimbus_error *error)
{
    nimbus_status status = NIMBUS_OK;
    *n_rows = 0;
    if (r->format == ROWS_U8 || r->format == ROWS_F32) {
        status = next_raw(r, max_rows, rows, n_rows, error);
    } else {
        if (r->format == ROWS_CSV &&
            (!r->data || r->data_at == nimbus_data_get_info(r->data)->n_rows))
            status = next_table(r, error);
        if (!status && r->data) {
            size_t left = nimbus_data_get_info(r->data)->n_rows - r->data_at;
            const char *from = r->converted ? r->converted : nimbus_data_features(r->data);
            *n_rows = left < max_rows ? left : max_rows;
            *rows = from + r->data_at * row_bytes(r->m);
            r->data_at += *n_rows;
        }
    }
    if (!status && *n_rows == 0 && r->n_done == 0)
        status = tool_error(error, NIMBUS_ERR_VALUE, "%s: is empty, there are no rows", r->path);
    r->n_done += *n_rows;
    return status;
}
