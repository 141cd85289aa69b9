/* rows.c - which rows of a source belong to a split
 *
 * The rows are shuffled by the seed; a source without test rows of its own gives the first of
 * them to TEST, the next to VALID and the rest to TRAIN. Inside a split rows keep the source's
 * order. */
#include <math.h>
#include <stdlib.h>

#include "data/data.h"

enum { STREAM_SPLIT = 0x73706c74 };

static int compare_rows(const void *a, const void *b)
{
    uint32_t x = *(const uint32_t *)a, y = *(const uint32_t *)b;
    return (x > y) - (x < y);
}

/* Rows of a fraction of n: at least one and never all of them, as far as n allows. */
static size_t part(size_t n, double fraction)
{
    if (fraction <= 0 || n < 2)
        return 0;
    size_t k = (size_t)llround((double)n * fraction);
    if (k < 1)
        return 1;
    return k < n ? k : n - 1;
}

static nimbus_status check_fractions(const nimbus_data_options *o, nimbus_error *error)
{
    if (!(o->valid_fraction >= 0 && o->valid_fraction < 1))
        return nimbus_fail(error, NIMBUS_ERR_ARGUMENT,
                           "valid_fraction is %g, it must be at least 0 and below 1",
                           o->valid_fraction);
    if (!(o->test_fraction < 1)) /* negative: none */
        return nimbus_fail(error, NIMBUS_ERR_ARGUMENT, "test_fraction is %g, it must be below 1",
                           o->test_fraction);
    return NIMBUS_OK;
}

/* The run first..first+n of the shuffled rows that is the split. */
static void locate(const nimbus_reading *reading, size_t n_source, size_t *first, size_t *n)
{
    const nimbus_data_options *o = &reading->options;
    size_t n_test = 0;
    if (!reading->own_test && o->test_fraction >= 0)
        n_test = part(n_source, o->test_fraction > 0 ? o->test_fraction : 0.2);
    size_t n_valid = part(n_source - n_test, o->valid_fraction);
    switch (reading->split) {
    case NIMBUS_SPLIT_TEST:
        *first = 0;
        *n = n_test;
        break;
    case NIMBUS_SPLIT_VALID:
        *first = n_test;
        *n = n_valid;
        break;
    case NIMBUS_SPLIT_TRAIN:
        *first = n_test + n_valid;
        *n = n_source - n_test - n_valid;
        break;
    case NIMBUS_SPLIT_ALL:
    default:
        *first = 0;
        *n = n_source;
    }
}

nimbus_status nimbus_rows_choose(const nimbus_reading *reading, size_t n_source, nimbus_rows *out,
                                 nimbus_error *error)
{
    out->n = 0;
    out->row = NULL;
    nimbus_status status = check_fractions(&reading->options, error);
    if (status != NIMBUS_OK)
        return status;
    if (n_source == 0)
        return nimbus_fail(error, NIMBUS_ERR_VALUE, "there are no rows");
    if (n_source > UINT32_MAX)
        return nimbus_fail(error, NIMBUS_ERR_LIMIT, "%zu rows, the limit is %u", n_source,
                           UINT32_MAX);
    size_t first, n;
    locate(reading, n_source, &first, &n);
    if (n == 0 && reading->split == NIMBUS_SPLIT_VALID && reading->options.valid_fraction <= 0)
        return nimbus_fail(error, NIMBUS_ERR_ARGUMENT,
                           "no validation rows are held out: valid_fraction is 0");
    if (n == 0 && reading->split == NIMBUS_SPLIT_TEST && reading->options.test_fraction < 0)
        return nimbus_fail(error, NIMBUS_ERR_ARGUMENT, "no test rows are held out");
    if (n == 0)
        return nimbus_fail(error, NIMBUS_ERR_VALUE,
                           "%zu rows are too few to be split: none are left for this split",
                           n_source);

    uint32_t *row = nimbus_alloc(n_source, sizeof *row);
    if (!row)
        return nimbus_fail(error, NIMBUS_ERR_MEMORY, "no memory for %zu row numbers", n_source);
    for (size_t i = 0; i < n_source; i++)
        row[i] = (uint32_t)i;
    if (n < n_source) {
        nimbus_random_shuffle(reading->options.seed, STREAM_SPLIT, row, n_source);
        for (size_t i = 0; i < n; i++)
            row[i] = row[first + i];
        qsort(row, n, sizeof *row, compare_rows);
    }
    if (reading->options.n_rows > 0 && n > reading->options.n_rows)
        n = reading->options.n_rows;
    out->row = row;
    out->n = n;
    return NIMBUS_OK;
}
