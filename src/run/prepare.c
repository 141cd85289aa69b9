/* prepare.c - copy a checked step into the layouts that the kernels read
 *
 * Memory: with the file's table bytes as unit, row tables take 1 (2 for 4-bit entries) and column
 * tables 16/K (32/K). Nothing here can fail but allocation. */
#include <stdlib.h>
#include <string.h>

#include "run/program.h"

int nimbus_table_entry(const nimbus_program_step *step, const uint8_t *tables, size_t row, size_t m)
{
    size_t M = step->n_outputs;
    if (step->info.table_bits == 8)
        return (int8_t)tables[row * M + m];
    unsigned nibble = tables[row * ((M + 1) / 2) + m / 2] >> (m % 2 * 4) & 15;
    return (int)(nibble ^ 8) - 8;
}

static float f32_at(const uint8_t *bytes, size_t i)
{
    uint32_t bits = nimbus_u32_at(bytes, i);
    float value;
    memcpy(&value, &bits, sizeof value);
    return value;
}

/* n floats of the file in an array of n_allocated, or NULL. */
static float *copy_floats(const uint8_t *bytes, size_t n, size_t n_allocated)
{
    float *copy = nimbus_alloc(n_allocated, sizeof *copy);
    for (size_t i = 0; copy && i < n; i++)
        copy[i] = f32_at(bytes, i);
    return copy;
}

/* nimbus_alloc for n * m elements of `size` bytes and some more. */
static void *alloc_product(size_t n, size_t m, size_t size, size_t extra)
{
    size_t product;
    if (nimbus_mul_overflows(n, m, &product) || product > SIZE_MAX - extra)
        return NULL;
    return nimbus_alloc(product + extra, size);
}

static bool prepare_columns(nimbus_program_step *step, const uint8_t *file)
{
    size_t C = step->n_codebooks, H = step->n_levels, n_nodes = step->n_leaves - 1;
    if (!(step->columns = alloc_product(C, n_nodes, sizeof *step->columns, 0)))
        return false;
    for (size_t c = 0; c < C; c++) {
        for (size_t i = 0, level = 0; i < n_nodes; i++) {
            level += i + 1 == (size_t)2 << level;
            size_t at = step->info.shared_columns ? c * H + level : c * n_nodes + i;
            step->columns[c * n_nodes + i] = nimbus_u32_at(file, at);
        }
    }
    return true;
}

static bool prepare_thresholds(nimbus_program_step *step, const uint8_t *file)
{
    size_t n = step->n_codebooks * (step->n_leaves - 1);
    if (step->input == NIMBUS_IN_F32)
        return (step->thresholds = copy_floats(file, n, n)) != NULL;
    if (!(step->thresholds = nimbus_alloc(n, 1)))
        return false;
    memcpy(step->thresholds, file, n);
    return true;
}

/* Codebooks side by side, for trees walked by many codebooks of one row at a time. Few codebooks
 * are not worth the padding. */
static bool prepare_walk(nimbus_program_step *step)
{
    size_t C = step->n_codebooks, H = step->n_levels, n_nodes = step->n_leaves - 1;
    size_t padded = nimbus_rounded_up(C, NIMBUS_WALK);
    if (!step->info.shared_columns || step->input == NIMBUS_IN_F32 || C < NIMBUS_WALK / 2)
        return true;
    step->walk_columns = alloc_product(H, padded, sizeof *step->walk_columns, 0);
    step->walk_thresholds = alloc_product(n_nodes, padded, 1, 0);
    if (!step->walk_columns || !step->walk_thresholds)
        return false;
    const int8_t *thresholds = step->thresholds;
    for (size_t c = 0; c < C; c++) {
        for (size_t h = 0; h < H; h++)
            step->walk_columns[h * padded + c] = step->columns[c * n_nodes + ((1u << h) - 1)];
        for (size_t i = 0; i < n_nodes; i++)
            step->walk_thresholds[i * padded + c] = thresholds[c * n_nodes + i];
    }
    return true;
}

/* The least and greatest table entry of every codebook and output, as low and high [C][M]. */
static void find_ranges(const nimbus_program_step *step, int8_t *low, int8_t *high)
{
    size_t M = step->n_outputs, K = step->n_leaves;
    for (size_t c = 0; c < step->n_codebooks; c++) {
        for (size_t k = 0; k < K; k++) {
            const uint8_t *row = step->entries + (c * K + k) * M;
            for (size_t m = 0; m < M; m++) {
                int8_t entry = (int8_t)(row[m] ^ 0x80);
                if (k == 0 || entry < low[c * M + m])
                    low[c * M + m] = entry;
                if (k == 0 || entry > high[c * M + m])
                    high[c * M + m] = entry;
            }
        }
    }
}

/* Whether all sums that the tables and biases can make fit 16 bits. */
static bool is_narrow(const nimbus_program_step *step, const int8_t *low, const int8_t *high)
{
    for (size_t m = 0; m < step->n_outputs; m++) {
        int64_t least = step->bias[m], most = step->bias[m];
        for (size_t c = 0; c < step->n_codebooks; c++) {
            least += low[c * step->n_outputs + m];
            most += high[c * step->n_outputs + m];
        }
        if (least < INT16_MIN || most > INT16_MAX)
            return false;
    }
    return true;
}

static bool prepare_row_bias(nimbus_program_step *step)
{
    size_t M = step->n_outputs;
    uint32_t carried = 128 * (uint32_t)step->n_codebooks;
    step->row_bias = nimbus_alloc(nimbus_padded(M), step->narrow ? 2 : 4);
    if (!step->row_bias)
        return false;
    for (size_t m = 0; m < M; m++) {
        uint32_t bias = (uint32_t)step->bias[m] - carried;
        if (step->narrow)
            ((int16_t *)step->row_bias)[m] = (int16_t)bias;
        else
            ((int32_t *)step->row_bias)[m] = (int32_t)bias;
    }
    return true;
}

/* Puts codebooks into groups whose ranges add up to at most 255: from the small end as many groups
 * of 8 and then of 4 as possible, then pairs of a small and a large range, then single ones.
 * `sorted` holds C codebooks by ascending range and is overwritten in part. */
static void make_groups(const uint8_t *range, const uint32_t *sorted, size_t C, uint32_t *order,
                        uint32_t n_groups[NIMBUS_GROUP_SIZES])
{
    size_t from = 0, to = C, front = 0, back = C;
    for (size_t g = 0; g < 2; g++) {
        size_t size = (size_t)8 >> g;
        n_groups[g] = 0;
        for (; from + size <= C; from += size) {
            unsigned total = 0;
            for (size_t i = 0; i < size; i++)
                total += range[sorted[from + i]];
            if (total > 255)
                break;
            memcpy(order + front, sorted + from, size * sizeof *order);
            front += size;
            n_groups[g]++;
        }
    }
    n_groups[2] = n_groups[3] = 0;
    while (from < to) {
        uint32_t largest = sorted[--to];
        if (from < to && range[sorted[from]] + range[largest] <= 255) {
            order[front++] = sorted[from++];
            order[front++] = largest;
            n_groups[2]++;
        } else {
            order[--back] = largest;
            n_groups[3]++;
        }
    }
}

/* Working memory of prepare_tiles. */
typedef struct tile_work {
    int8_t *low, *high; /* [C][M] */
    uint8_t *range;     /* [C] */
    uint32_t *sorted;   /* [C] */
} tile_work;

static void prepare_tile(const nimbus_program_step *step, const tile_work *work, size_t m0,
                         nimbus_tile *tile, uint8_t *tables, uint32_t *order)
{
    size_t C = step->n_codebooks, M = step->n_outputs, K = step->n_leaves;
    size_t n = M - m0 < NIMBUS_TILE ? M - m0 : NIMBUS_TILE;
    size_t first[257] = {0};         /* counting sort by range */
    int64_t bias[NIMBUS_TILE] = {0}; /* the sums' bound holds for it too */

    for (size_t t = 0; t < n; t++)
        bias[t] = step->bias[m0 + t];
    for (size_t c = 0; c < C; c++) {
        int range = 0;
        for (size_t t = 0; t < n; t++) {
            size_t at = c * M + m0 + t;
            int r = work->high[at] - work->low[at];
            range = r > range ? r : range;
            bias[t] += work->low[at];
        }
        work->range[c] = (uint8_t)range;
        first[range + 1]++;
    }
    for (size_t r = 0; r < 256; r++)
        first[r + 1] += first[r];
    for (size_t c = 0; c < C; c++)
        work->sorted[first[work->range[c]]++] = (uint32_t)c;
    make_groups(work->range, work->sorted, C, order, tile->n_groups);
    for (size_t i = 0; i < C; i++) {
        size_t c = order[i];
        for (size_t t = 0; t < n; t++)
            for (size_t k = 0; k < K; k++)
                tables[(i * NIMBUS_TILE + t) * 16 + k] =
                    (uint8_t)((step->entries[(c * K + k) * M + m0 + t] ^ 0x80) -
                              work->low[c * M + m0 + t]);
    }
    tile->tables = tables;
    tile->order = order;
    for (size_t t = 0; t < NIMBUS_TILE; t++)
        tile->bias[t] = (int32_t)bias[t];
}

static bool prepare_tiles(nimbus_program_step *step, const tile_work *work)
{
    size_t C = step->n_codebooks, M = step->n_outputs;
    size_t n_tiles = (M + NIMBUS_TILE - 1) / NIMBUS_TILE;
    step->tiles = nimbus_alloc(n_tiles, sizeof *step->tiles);
    step->tile_tables = alloc_product(n_tiles, C, (size_t)NIMBUS_TILE * 16, 0);
    step->tile_orders = alloc_product(n_tiles, C, sizeof *step->tile_orders, 0);
    if (!step->tiles || !step->tile_tables || !step->tile_orders)
        return false;
    for (size_t i = 0; i < n_tiles; i++)
        prepare_tile(step, work, i * NIMBUS_TILE, &step->tiles[i],
                     step->tile_tables + i * C * NIMBUS_TILE * 16, step->tile_orders + i * C);
    return true;
}

static bool prepare_tables(nimbus_program_step *step, const uint8_t *file)
{
    size_t C = step->n_codebooks, M = step->n_outputs, K = step->n_leaves;
    tile_work work = {0};
    bool ok = false;
    step->entries = alloc_product(C * K, M, 1, NIMBUS_PAD);
    work.low = alloc_product(C, M, 1, 0);
    work.high = alloc_product(C, M, 1, 0);
    work.range = nimbus_alloc(C, sizeof *work.range);
    work.sorted = nimbus_alloc(C, sizeof *work.sorted);
    if (!step->entries || !work.low || !work.high || !work.range || !work.sorted)
        goto done;
    for (size_t row = 0; row < C * K; row++)
        for (size_t m = 0; m < M; m++)
            step->entries[row * M + m] = (uint8_t)(nimbus_table_entry(step, file, row, m) ^ 0x80);
    step->table = (nimbus_table){step->entries, C, K, M};
    find_ranges(step, work.low, work.high);
    step->narrow = step->output == NIMBUS_OUT_SHIFT && is_narrow(step, work.low, work.high);
    ok = prepare_row_bias(step) && (!nimbus_step_has_columns(step) || prepare_tiles(step, &work));
done:
    nimbus_free(work.low);
    nimbus_free(work.high);
    nimbus_free(work.range);
    nimbus_free(work.sorted);
    return ok;
}

static int compare_u32(const void *a, const void *b)
{
    uint32_t x = *(const uint32_t *)a, y = *(const uint32_t *)b;
    return (x > y) - (x < y);
}

/* Lists the distinct columns that trees read, and makes trees count in them. */
static bool prepare_live(nimbus_program_step *step, size_t n)
{
    uint32_t *columns = step->tree_columns;
    if (!(step->live = nimbus_alloc(n, sizeof *step->live)))
        return false;
    memcpy(step->live, columns, n * sizeof *columns);
    qsort(step->live, n, sizeof *step->live, compare_u32);
    for (size_t i = 0; i < n; i++)
        if (i == 0 || step->live[i] != step->live[step->n_live - 1])
            step->live[step->n_live++] = step->live[i];
    for (size_t i = 0; i < n; i++) {
        const uint32_t *found =
            bsearch(&columns[i], step->live, step->n_live, sizeof *step->live, compare_u32);
        columns[i] = (uint32_t)(found - step->live);
    }
    return true;
}

/* Trees for the column encoders. */
static bool prepare_trees(nimbus_program_step *step)
{
    size_t C = step->n_codebooks, H = step->n_levels, n_nodes = step->n_leaves - 1;
    bool levels = step->info.shared_columns && step->input != NIMBUS_IN_F32;
    size_t per_tree = levels ? H : n_nodes;
    if (!(step->tree_columns = alloc_product(C, per_tree, sizeof *step->tree_columns, 0)))
        return false;
    for (size_t c = 0; c < C; c++)
        for (size_t i = 0; i < per_tree; i++) {
            size_t node = levels ? ((size_t)1 << i) - 1 : i;
            step->tree_columns[c * per_tree + i] = step->columns[c * n_nodes + node];
        }
    step->trees = (nimbus_trees){step->tree_columns, step->thresholds, C, H};
    if (levels) {
        const int8_t *thresholds = step->thresholds;
        if (!(step->level_thresholds = alloc_product(C * H, 16, 1, 0)))
            return false;
        for (size_t c = 0; c < C; c++)
            for (size_t h = 0; h < H; h++)
                memcpy(step->level_thresholds + (c * H + h) * 16,
                       thresholds + c * n_nodes + ((1u << h) - 1), (size_t)1 << h);
        step->trees.thresholds = step->level_thresholds;
    }
    return step->input == NIMBUS_IN_I8 || prepare_live(step, C * per_tree);
}

static bool prepare_weights(nimbus_program_step *step, const nimbus_step_arrays *arrays)
{
    size_t D = step->n_inputs, M = step->n_outputs;
    if (!(step->weights = alloc_product(M, D, 1, NIMBUS_PAD)))
        return false;
    memcpy(step->weights, arrays->weights, M * D);
    if (step->input != NIMBUS_IN_F32)
        return true;
    step->in_scale = copy_floats(arrays->in_scale, D, D);
    step->in_offset = copy_floats(arrays->in_offset, D, D);
    return step->in_scale && step->in_offset;
}

static bool prepare(nimbus_program_step *step, const nimbus_step_arrays *arrays)
{
    size_t M = step->n_outputs;
    if (!(step->bias = nimbus_alloc(M, sizeof *step->bias)))
        return false;
    for (size_t m = 0; m < M; m++)
        step->bias[m] = (int32_t)nimbus_u32_at(arrays->bias, m);
    if (step->output == NIMBUS_OUT_SCALED) {
        step->scale = copy_floats(arrays->scale, M, nimbus_padded(M));
        step->offset = copy_floats(arrays->offset, M, nimbus_padded(M));
        if (!step->scale || !step->offset)
            return false;
    }
    if (step->has_map)
        memcpy(step->map, arrays->map, sizeof step->map);
    if (step->info.kind == NIMBUS_STEP_EXACT)
        return prepare_weights(step, arrays);
    return prepare_columns(step, arrays->columns) && prepare_thresholds(step, arrays->thresholds) &&
           prepare_walk(step) && prepare_tables(step, arrays->tables) &&
           (!nimbus_step_has_columns(step) || prepare_trees(step));
}

nimbus_status nimbus_step_prepare(nimbus_program_step *step, const nimbus_step_arrays *arrays,
                                  nimbus_error *error)
{
    if (prepare(step, arrays))
        return NIMBUS_OK;
    return nimbus_fail(error, NIMBUS_ERR_MEMORY, "out of memory preparing step \"%s\"",
                       step->info.name);
}

void nimbus_step_free(nimbus_program_step *step)
{
    void *const owned[] = {step->columns,
                           step->thresholds,
                           step->walk_columns,
                           step->walk_thresholds,
                           step->entries,
                           step->row_bias,
                           step->live,
                           step->tree_columns,
                           step->tiles,
                           step->tile_tables,
                           step->level_thresholds,
                           step->tile_orders,
                           step->weights,
                           step->in_scale,
                           step->in_offset,
                           step->bias,
                           step->scale,
                           step->offset};
    for (size_t i = 0; i < sizeof owned / sizeof *owned; i++)
        nimbus_free(owned[i]);
}
