/* cifar.c - CIFAR-10's binary batches and the archive they come in
 *
 * A record is a label byte and 32 x 32 pixels, planar: 1,024 red, 1,024 green, 1,024 blue. */
#include <stdio.h>
#include <string.h>

#include "data/data.h"

enum { PIXELS = 3072, RECORD = PIXELS + 1, CLASSES = 10, BATCHES = 5 };

nimbus_status nimbus_cifar_check(const void *bytes, size_t size, nimbus_error *error)
{
    const uint8_t *records = bytes;
    if (size == 0 || size % RECORD != 0)
        return nimbus_fail_at(error, NIMBUS_ERR_TRUNCATED, size - size % RECORD,
                              "a CIFAR-10 batch consists of records of %d bytes; these %zu bytes "
                              "end inside record %zu",
                              RECORD, size, size / RECORD + 1);
    for (size_t at = 0; at < size; at += RECORD)
        if (records[at] >= CLASSES)
            return nimbus_fail_at(error, NIMBUS_ERR_VALUE, at,
                                  "label %u in row %zu is out of range: expected 0 to %d",
                                  records[at], at / RECORD + 1, CLASSES - 1);
    return NIMBUS_OK;
}

nimbus_status nimbus_cifar_data(const void *bytes, size_t size, const nimbus_reading *reading,
                                nimbus_data **out, nimbus_error *error)
{
    nimbus_rows rows = {0};
    nimbus_data *data = NULL;
    const uint8_t *records = bytes;
    *out = NULL;
    nimbus_status status = nimbus_cifar_check(bytes, size, error);
    if (status == NIMBUS_OK)
        status = nimbus_rows_choose(reading, size / RECORD, &rows, error);
    if (status != NIMBUS_OK)
        return status;
    nimbus_data_info info = {.n_rows = rows.n,
                             .n_features = PIXELS,
                             .dtype = NIMBUS_U8,
                             .channels = 3,
                             .height = 32,
                             .width = 32,
                             .n_classes = CLASSES};
    status = nimbus_data_new(&info, &data, error);
    for (size_t i = 0; status == NIMBUS_OK && i < rows.n; i++) {
        const uint8_t *record = records + (size_t)rows.row[i] * RECORD;
        data->labels[i] = record[0];
        memcpy((uint8_t *)data->features + i * PIXELS, record + 1, PIXELS);
    }
    if (status == NIMBUS_OK)
        status = nimbus_data_finish(data, reading, error);
    nimbus_free(rows.row);
    if (status != NIMBUS_OK) {
        nimbus_data_free(data);
        data = NULL;
    }
    *out = data;
    return status;
}

/* Number 1..5 of a training batch by its path in the archive, 0 for the test batch, else -1. */
static int batch_number(const char *path)
{
    const char *slash = strrchr(path, '/'), *name = slash ? slash + 1 : path;
    int number = -1, end = 0;
    if (strcmp(name, "test_batch.bin") == 0)
        return 0;
    if (sscanf(name, "data_batch_%1d.bin%n", &number, &end) == 1 && end > 0 && !name[end] &&
        number >= 1 && number <= BATCHES)
        return number;
    return -1;
}

nimbus_status nimbus_cifar_untar(const void *bytes, size_t size, bool test, nimbus_buffer *out,
                                 nimbus_error *error)
{
    nimbus_tar_entry batches[BATCHES + 1] = {0}, entry;
    nimbus_reader r = nimbus_reader_of(bytes, size);
    bool end, found = false;
    for (;;) {
        nimbus_status status = nimbus_tar_next(&r, &entry, &end, error);
        if (status != NIMBUS_OK)
            return status;
        if (end)
            break;
        int number = batch_number(entry.name);
        if (number >= 0 && (number == 0) == test) {
            batches[number] = entry;
            found = true;
        }
    }
    if (!found)
        return nimbus_fail(error, NIMBUS_ERR_FORMAT, "the tar archive holds no %s",
                           test ? "test_batch.bin" : "data_batch_1.bin to data_batch_5.bin");
    for (size_t i = 0; i <= BATCHES; i++) {
        if (!batches[i].bytes)
            continue;
        nimbus_status status = nimbus_cifar_check(batches[i].bytes, batches[i].size, error);
        if (status != NIMBUS_OK)
            return nimbus_fail_prefix(error, status, "%s", batches[i].name);
        nimbus_write_bytes(out, batches[i].bytes, batches[i].size);
    }
    return out->failed ? nimbus_fail(error, NIMBUS_ERR_MEMORY, "no memory for the batches")
                       : NIMBUS_OK;
}
