/* prepare.c - copy a checked step into the layouts that the kernels read
 *
 * Memory: with the file's table bytes as unit, row tables take 1 (2 for 4-bit entries), and up to
 * 16 where a layer has less than 16 outputs; column tables 16/K (32/K), 64/K where K is above 16,
 * and a few times that where outputs do not fill a tile; trees are copied for walks by rows as
 * well, and for every window of a group of them 32 bytes and a byte or a bit for each value of the
 * group. Nothing here can fail but allocation. Layouts that depend on the instruction set are in
 * layout.c. */
#include <stdlib.h>
#include <string.h>

#include "run/program.h"

float *nimbus_copy_floats(const uint8_t *bytes, size_t n, size_t n_allocated)
{
    float *copy = nimbus_alloc(n_allocated, sizeof *copy);
    for (size_t i = 0; copy && i < n; i++)
        copy[i] = nimbus_f32_at(bytes, i);
    return copy;
}

/* nimbus_alloc for n * m elements of `size` bytes and some more. */
void *nimbus_alloc_product(size_t n, size_t m, size_t size, size_t extra)
{
    size_t product;
    if (nimbus_mul_overflows(n, m, &product) || product > SIZE_MAX - extra)
        return NULL;
    return nimbus_alloc(product + extra, size);
}

typedef struct place {
    uint32_t last_column, codebook;
} place;

static int compare_places(const void *a, const void *b)
{
    const place *x = a, *y = b;
    int by_column = (x->last_column > y->last_column) - (x->last_column < y->last_column);
    return by_column ? by_column : (x->codebook > y->codebook) - (x->codebook < y->codebook);
}

/* Which codebook of the file stands where. Those that read raw u8 rows stand in the order in which
 * the columns they read lie in a row, the last one deciding: sums do not depend on it, but a row
 * can then be encoded while it is read from one end to the other. */
static bool order_codebooks(const nimbus_program_step *step, const uint8_t *file_columns,
                            uint32_t *order)
{
    const size_t C = step->n_codebooks;
    const size_t per_tree = step->info.shared_columns ? step->n_levels : step->n_leaves - 1;
    place *places = nimbus_alloc(C, sizeof *places);
    if (!places)
        return false;
    for (size_t c = 0; c < C; c++) {
        places[c].codebook = (uint32_t)c;
        for (size_t i = 0; i < per_tree && step->input == NIMBUS_IN_U8; i++) {
            uint32_t column = nimbus_u32_at(file_columns, c * per_tree + i);
            if (column > places[c].last_column)
                places[c].last_column = column;
        }
    }
    qsort(places, C, sizeof *places, compare_places);
    for (size_t c = 0; c < C; c++)
        order[c] = places[c].codebook;
    nimbus_free(places);
    return true;
}

static bool prepare_columns(nimbus_program_step *step, const uint32_t *order, const uint8_t *file)
{
    size_t C = step->n_codebooks, H = step->n_levels, n_nodes = step->n_leaves - 1;
    if (!(step->columns = nimbus_alloc_product(C, n_nodes, sizeof *step->columns, 0)))
        return false;
    for (size_t c = 0; c < C; c++) {
        for (size_t i = 0, level = 0; i < n_nodes; i++) {
            level += i + 1 == (size_t)2 << level;
            size_t at = step->info.shared_columns ? order[c] * H + level : order[c] * n_nodes + i;
            step->columns[c * n_nodes + i] = nimbus_u32_at(file, at);
        }
    }
    return true;
}

static bool prepare_thresholds(nimbus_program_step *step, const uint32_t *order,
                               const uint8_t *file)
{
    const size_t C = step->n_codebooks, n = step->n_leaves - 1;
    const bool floats = step->input == NIMBUS_IN_F32;
    step->thresholds = nimbus_alloc_product(C, n, floats ? sizeof(float) : 1, 0);
    if (!step->thresholds)
        return false;
    for (size_t c = 0; c < C; c++)
        for (size_t i = 0; i < n; i++)
            if (floats)
                ((float *)step->thresholds)[c * n + i] = nimbus_f32_at(file, order[c] * n + i);
            else
                ((int8_t *)step->thresholds)[c * n + i] = (int8_t)file[order[c] * n + i];
    return true;
}

/* The least and greatest table entry of every codebook and output. */
static bool find_ranges(nimbus_program_step *step)
{
    size_t C = step->n_codebooks, M = step->n_outputs, K = step->n_leaves;
    step->low = nimbus_alloc_product(C, M, 1, 0);
    step->high = nimbus_alloc_product(C, M, 1, 0);
    if (!step->low || !step->high)
        return false;
    for (size_t c = 0; c < C; c++) {
        int8_t *low = step->low + c * M, *high = step->high + c * M;
        for (size_t k = 0; k < K; k++) {
            const uint8_t *row = step->entries + (c * K + k) * step->table.stride;
            for (size_t m = 0; m < M; m++) {
                int8_t entry = (int8_t)(row[m] - (step->table.paired ? 64 : 128));
                if (k == 0 || entry < low[m])
                    low[m] = entry;
                if (k == 0 || entry > high[m])
                    high[m] = entry;
            }
        }
    }
    return true;
}

/* Whether all sums that the tables and biases can make fit 16 bits. */
static bool is_narrow(const nimbus_program_step *step)
{
    for (size_t m = 0; m < step->n_outputs; m++) {
        int64_t least = step->bias[m], most = step->bias[m];
        for (size_t c = 0; c < step->n_codebooks; c++) {
            least += step->low[c * step->n_outputs + m];
            most += step->high[c * step->n_outputs + m];
        }
        if (least < INT16_MIN || most > INT16_MAX)
            return false;
    }
    return true;
}

static bool prepare_row_bias(nimbus_program_step *step)
{
    const size_t M = step->n_outputs, padded = nimbus_padded(M);
    uint32_t carried = (step->table.paired ? 64u : 128u) * (uint32_t)step->n_codebooks;
    step->row_bias = nimbus_alloc(padded, sizeof *step->row_bias);
    step->even_bias = nimbus_alloc(padded, sizeof *step->even_bias);
    if (!step->row_bias || !step->even_bias)
        return false;
    step->odd_bias = step->even_bias + padded / 2;
    for (size_t m = 0; m < M; m++) {
        step->row_bias[m] = (int32_t)((uint32_t)step->bias[m] - carried);
        step->even_bias[m % 2 * (padded / 2) + m / 2] = (int16_t)step->row_bias[m];
    }
    return true;
}

/* Bytes from one row of a table of n_rows to the next: rows of a few outputs do not straddle cache
 * lines, unless the tables would fill the L2 cache so. Sets with packed lookups load four rows
 * together, which straddling ones would hold up. */
static size_t row_stride(size_t n_outputs, size_t n_rows, const nimbus_kernels *kernels)
{
    const size_t whole = n_outputs <= 16 ? 16 : n_outputs <= 32 ? 32 : nimbus_padded(n_outputs);
    const bool large = n_rows > NIMBUS_BLOCK_BYTES / whole;
    return whole == 32 && large && !kernels->shape.packed ? nimbus_rounded_up(n_outputs, 8) : whole;
}

static bool entries_fit(const nimbus_program_step *step, const uint8_t *file, int least, int most)
{
    const size_t n_rows = step->n_codebooks * step->n_leaves;
    for (size_t row = 0; row < n_rows; row++)
        for (size_t m = 0; m < step->n_outputs; m++) {
            int entry = nimbus_table_entry(&step->info, file, row, m);
            if (entry < least || entry > most)
                return false;
        }
    return true;
}

static bool prepare_tables(nimbus_program_step *step, const uint32_t *order, const uint8_t *file,
                           const nimbus_kernels *kernels)
{
    const size_t C = step->n_codebooks, M = step->n_outputs, K = step->n_leaves;
    const size_t stride = row_stride(M, C * K, kernels);
    step->entries = nimbus_alloc_product(C * K, stride, 1, NIMBUS_PAD);
    if (!step->entries)
        return false;
    const bool paired = entries_fit(step, file, -64, 63);
    const int from = paired ? 64 : 128;
    for (size_t row = 0; row < C * K; row++)
        for (size_t m = 0; m < M; m++)
            step->entries[row * stride + m] =
                (uint8_t)(nimbus_table_entry(&step->info, file, order[row / K] * K + row % K, m) +
                          from);
    step->table = (nimbus_table){step->entries, C, K, M, stride, paired};
    if (!find_ranges(step))
        return false;
    step->narrow = step->output == NIMBUS_OUT_SHIFT && is_narrow(step);
    return prepare_row_bias(step);
}

static int compare_u32(const void *a, const void *b)
{
    uint32_t x = *(const uint32_t *)a, y = *(const uint32_t *)b;
    return (x > y) - (x < y);
}

/* Lists parts of 4 columns of f32 rows that have all those that trees read, and has trees count in
 * the columns of the parts. No part reads beyond a row's end. */
static bool prepare_parts(nimbus_program_step *step, size_t n)
{
    const uint32_t D = (uint32_t)step->n_inputs, last = D < 4 ? 0 : D - 4;
    uint32_t *columns = step->tree_columns, *sorted = nimbus_alloc(n, sizeof *sorted);
    uint32_t *parts = step->float_parts = nimbus_alloc(n, sizeof *parts);
    if (sorted && parts) {
        memcpy(sorted, columns, n * sizeof *sorted);
        qsort(sorted, n, sizeof *sorted, compare_u32);
        size_t n_parts = 0;
        for (size_t i = 0; i < n; i++)
            if (i == 0 || sorted[i] - parts[n_parts - 1] >= 4)
                parts[n_parts++] = sorted[i] < last ? sorted[i] : last;
        for (size_t i = 0; i < n; i++) {
            size_t p = 0; /* the last part that begins no later than the column */
            for (size_t beyond = n_parts; p + 1 < beyond;) {
                const size_t middle = p + (beyond - p) / 2;
                if (parts[middle] <= columns[i])
                    p = middle;
                else
                    beyond = middle;
            }
            columns[i] = (uint32_t)(4 * p) + columns[i] - parts[p];
        }
        step->n_parts = n_parts;
        step->n_columns = 4 * n_parts;
    }
    nimbus_free(sorted);
    return sorted && parts && step->n_columns <= SIZE_MAX / (sizeof(float) * NIMBUS_PAD);
}

/* Thresholds as the column encoders want them. */
static bool prepare_tree_thresholds(nimbus_program_step *step, bool levels)
{
    const size_t C = step->n_codebooks, H = step->n_levels, n_nodes = step->n_leaves - 1;
    const bool floats = step->input == NIMBUS_IN_F32;
    const size_t bytes = !levels  ? 4 * n_nodes
                         : floats ? sizeof(float) * NIMBUS_NODES
                                  : nimbus_level_threshold_bytes(H);
    const int8_t *from = step->thresholds;
    int8_t *to = step->tree_thresholds = nimbus_alloc_product(C, bytes, 1, 0);
    if (!to)
        return false;
    if (floats) {
        const size_t tree = n_nodes * sizeof(float);
        for (size_t c = 0; c < C; c++)
            memcpy(to + c * bytes + (levels ? sizeof(float) : 0), from + c * tree, tree);
        return true;
    }
    for (size_t c = 0; c < C; c++, from += n_nodes, to += bytes) {
        for (size_t i = 0; i < n_nodes && !levels; i++)
            memset(to + 4 * i, from[i], 4);
        for (size_t h = 0; h < H && levels; h++)
            for (size_t k = 0; k < (size_t)1 << h; k++)
                to[nimbus_threshold_place(H, h, k)] = from[((size_t)1 << h) - 1 + k];
    }
    return true;
}

/* Trees for the column encoders. */
static bool prepare_trees(nimbus_program_step *step)
{
    size_t C = step->n_codebooks, H = step->n_levels, n_nodes = step->n_leaves - 1;
    const bool levels = step->info.shared_columns;
    size_t per_tree = levels ? H : n_nodes;
    if (!(step->tree_columns = nimbus_alloc_product(C, per_tree, sizeof *step->tree_columns, 0)))
        return false;
    for (size_t c = 0; c < C; c++)
        for (size_t i = 0; i < per_tree; i++) {
            size_t node = levels ? ((size_t)1 << i) - 1 : i;
            step->tree_columns[c * per_tree + i] = step->columns[c * n_nodes + node];
        }
    if (!prepare_tree_thresholds(step, levels))
        return false;
    step->trees = (nimbus_trees){step->tree_columns, step->tree_thresholds, C, H};
    if (step->input == NIMBUS_IN_U8)
        return nimbus_step_lay_out_stages(step);
    return step->input == NIMBUS_IN_I8 || prepare_parts(step, C * per_tree);
}

static bool prepare_exact(nimbus_program_step *step, const nimbus_step_arrays *arrays,
                          const nimbus_kernels *kernels)
{
    size_t D = step->n_inputs;
    if (!nimbus_step_lay_out_weights(step, (const int8_t *)arrays->weights, kernels))
        return false;
    if (step->input == NIMBUS_IN_U8)
        return nimbus_step_lay_out_parts(step);
    if (step->input != NIMBUS_IN_F32)
        return true;
    step->in_scale = nimbus_copy_floats(arrays->in_scale, D, D);
    step->in_offset = nimbus_copy_floats(arrays->in_offset, D, D);
    return step->in_scale && step->in_offset;
}

static bool prepare_lookup(nimbus_program_step *step, const nimbus_step_arrays *arrays,
                           const nimbus_kernels *kernels)
{
    uint32_t *order = nimbus_alloc(step->n_codebooks, sizeof *order);
    bool ok = order && order_codebooks(step, arrays->columns, order) &&
              prepare_columns(step, order, arrays->columns) &&
              prepare_thresholds(step, order, arrays->thresholds) &&
              prepare_tables(step, order, arrays->tables, kernels) &&
              (step->of_image || nimbus_step_lay_out_walk(step, kernels)) &&
              (!nimbus_step_has_columns(step, kernels) ||
               (prepare_trees(step) && nimbus_step_lay_out_tiles(step, kernels)));
    nimbus_free(order);
    return ok;
}

bool nimbus_step_prepare_output(nimbus_program_step *step, const nimbus_step_arrays *arrays)
{
    size_t M = step->n_outputs;
    if (!(step->bias = nimbus_alloc(M, sizeof *step->bias)))
        return false;
    for (size_t m = 0; m < M && arrays->bias; m++)
        step->bias[m] = (int32_t)nimbus_u32_at(arrays->bias, m);
    if (step->output == NIMBUS_OUT_SCALED) {
        step->scale = nimbus_copy_floats(arrays->scale, M, nimbus_padded(M));
        step->offset = nimbus_copy_floats(arrays->offset, M, nimbus_padded(M));
        if (!step->scale || !step->offset)
            return false;
    }
    if (step->has_map)
        memcpy(step->map, arrays->map, sizeof step->map);
    step->columns_from = SIZE_MAX;
    return true;
}

nimbus_status nimbus_step_prepare(nimbus_program_step *step, const nimbus_step_arrays *arrays,
                                  const nimbus_kernels *kernels, nimbus_error *error)
{
    bool ok = nimbus_step_prepare_output(step, arrays) &&
              (step->info.kind == NIMBUS_STEP_EXACT ? prepare_exact(step, arrays, kernels)
                                                    : prepare_lookup(step, arrays, kernels));
    nimbus_free(step->low);
    nimbus_free(step->high);
    step->low = step->high = NULL;
    if (ok)
        return NIMBUS_OK;
    return nimbus_fail(error, NIMBUS_ERR_MEMORY, "out of memory preparing step \"%s\"",
                       step->info.name);
}

void nimbus_step_free(nimbus_program_step *step)
{
    void *const owned[] = {
        step->columns,     step->thresholds,     step->entries,         step->row_bias,
        step->even_bias,   step->gather_columns, step->windows,         step->first_windows,
        step->wanted,      step->window_places,  step->walk_thresholds, step->parts,
        step->stages,      step->float_parts,    step->tree_columns,    step->tree_thresholds,
        step->tiles,       step->tile_tables,    step->tile_orders,     step->packed_weights,
        step->packed_bias, step->in_scale,       step->in_offset,       step->bias,
        step->scale,       step->offset};
    for (size_t i = 0; i < sizeof owned / sizeof *owned; i++)
        nimbus_free(owned[i]);
}
