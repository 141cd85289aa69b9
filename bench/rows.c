/* rows.c - rows for the contenders: those of a data set, or made-up ones */
#include <stdlib.h>
#include <string.h>

#include "bench.h"
#include "bench_error.h"

#define MADE_UP_ROWS 2048
/* Few enough for all contenders' copies to stay in the last level cache together: what the program
 * reads should not depend on what the peers have just read. More than the second level holds. */
#define WALK_ROWS 2048

void bench_rows_free(bench_rows *rows)
{
    free((void *)(uintptr_t)rows->raw);
    free(rows->float_rows);
    *rows = (bench_rows){0};
}

static void make_up_row(char *raw, size_t d, nimbus_dtype dtype, uint32_t *random)
{
    for (size_t j = 0; j < d; j++) {
        *random = *random * 1664525u + 1013904223u;
        float value = (float)(*random >> 8) / 16777216.0f - 0.5f;
        if (dtype == NIMBUS_U8)
            raw[j] = (char)(*random >> 24);
        else
            memcpy(raw + j * 4, &value, 4);
    }
}

static nimbus_status check_fit(const nimbus_program_info *info, const nimbus_data_info *data,
                               nimbus_error *error)
{
    if (data->n_features == info->n_inputs && data->dtype == info->input_dtype && data->n_rows > 0)
        return NIMBUS_OK;
    return bench_fail(error, NIMBUS_ERR_MISMATCH,
                      "the program reads rows of %zu values, the data has %zu rows of %zu%s",
                      info->n_inputs, data->n_rows, data->n_features,
                      data->dtype == info->input_dtype ? "" : " of another type");
}

nimbus_status bench_rows_make(const nimbus_program_info *info, const nimbus_data *data,
                              size_t limit, size_t batch, bench_rows *out, nimbus_error *error)
{
    const size_t d = info->n_inputs, element = info->input_dtype == NIMBUS_U8 ? 1 : 4;
    const char *from = data ? nimbus_data_features(data) : NULL;
    size_t have = MADE_UP_ROWS;
    uint32_t random = 1;
    *out = (bench_rows){0};
    if (data) {
        const nimbus_data_info *has = nimbus_data_get_info(data);
        nimbus_status status = check_fit(info, has, error);
        if (status)
            return status;
        have = limit && limit < has->n_rows ? limit : has->n_rows;
    }
    const size_t n = (have + batch - 1) / batch * batch, stride = d * element;
    char *raw = aligned_alloc(64, (n * stride + 63) / 64 * 64);
    float *floats = aligned_alloc(64, (n * d * sizeof *floats + 63) / 64 * 64);
    *out = (bench_rows){.n = n,
                        .n_real = have,
                        .d = d,
                        .n_walk = n < WALK_ROWS ? n : (WALK_ROWS + batch - 1) / batch * batch,
                        .stride = stride,
                        .raw = raw,
                        .float_rows = floats,
                        .labels = data ? nimbus_data_labels(data) : NULL};
    if (!raw || !floats) {
        bench_rows_free(out);
        return bench_fail(error, NIMBUS_ERR_MEMORY, "out of memory for %zu rows", n);
    }
    for (size_t i = 0; i < n; i++)
        if (data)
            memcpy(raw + i * stride, from + (i % have) * stride, stride);
        else
            make_up_row(raw + i * stride, d, info->input_dtype, &random);
    for (size_t i = 0; i < n * d; i++)
        if (element == 1)
            floats[i] = (float)(unsigned char)raw[i];
        else
            memcpy(&floats[i], raw + i * 4, 4);
    return NIMBUS_OK;
}

void bench_rows_normalise(bench_rows *rows, const bench_net *net)
{
    for (size_t i = 0; i < rows->n; i++)
        for (size_t j = 0; j < rows->d; j++) {
            float *x = &rows->float_rows[i * rows->d + j];
            *x = (*x - net->mean[j]) * net->inverse_std[j];
        }
}

nimbus_status bench_walk_on(void *walk)
{
    bench_walk *w = walk;
    if (w->at + w->n > w->rows->n_walk)
        w->at = 0;
    size_t first = w->at;
    w->at += w->n;
    return w->run(w->state, w->rows, first, w->n, w->outputs);
}
