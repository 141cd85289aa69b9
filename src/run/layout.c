/* layout.c - tables, weights and trees in the layouts of one instruction set's kernels (kernels.h)
 */
#include <stdlib.h>
#include <string.h>

#include "run/program.h"

static int entry(const nimbus_program_step *step, size_t c, size_t k, size_t m)
{
    const nimbus_table *table = &step->table;
    return table->entries[(c * table->n_leaves + k) * table->stride + m] -
           (table->paired ? 64 : 128);
}

/* ---- tables ------------------------------------------------------------------------------- */

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

/* Puts codebooks into such groups as they stand, and says how many those are. */
static size_t group_in_order(const uint8_t *range, size_t C, uint32_t n_groups[NIMBUS_GROUP_SIZES])
{
    size_t from = 0, n = 0;
    for (size_t g = 0; g < NIMBUS_GROUP_SIZES; g++) {
        const size_t size = (size_t)8 >> g;
        n_groups[g] = 0;
        for (; from + size <= C; from += size) {
            unsigned total = 0;
            for (size_t i = 0; i < size; i++)
                total += range[from + i];
            if (total > 255)
                break;
            n_groups[g]++;
        }
        n += n_groups[g];
    }
    return n;
}

/* Groups the codebooks of a tile. They stay in order, which is quicker to go through, if any other
 * makes no fewer groups. */
static void choose_groups(const uint8_t *range, const uint32_t *sorted, size_t C, uint32_t *order,
                          nimbus_tile *tile)
{
    uint32_t in_order[NIMBUS_GROUP_SIZES];
    size_t n = 0;
    make_groups(range, sorted, C, order, tile->n_groups);
    for (size_t g = 0; g < NIMBUS_GROUP_SIZES; g++)
        n += tile->n_groups[g];
    tile->order = order;
    if (group_in_order(range, C, in_order) <= n) {
        memcpy(tile->n_groups, in_order, sizeof in_order);
        tile->order = NULL;
    }
}

/* Working memory for the tiles of a step. */
typedef struct tile_work {
    uint8_t *range;   /* [C] */
    uint32_t *sorted; /* [C] */
} tile_work;

/* Outputs m0 .. m0 + n - 1 of a tile for sets that shuffle. */
static void shuffled_tile(const nimbus_program_step *step, const tile_work *work, size_t m0,
                          size_t n, size_t tile_size, nimbus_tile *tile, uint8_t *tables,
                          uint32_t *order)
{
    size_t C = step->n_codebooks, M = step->n_outputs, K = step->n_leaves;
    size_t table_bytes = K > 16 ? 64 : 16;
    size_t first[257] = {0};             /* counting sort by range */
    int64_t bias[NIMBUS_MAX_TILE] = {0}; /* the sums' bound holds for it too */

    for (size_t t = 0; t < n; t++)
        bias[t] = step->bias[m0 + t];
    for (size_t c = 0; c < C; c++) {
        int range = 0;
        for (size_t t = 0; t < n; t++) {
            size_t at = c * M + m0 + t;
            int r = step->high[at] - step->low[at];
            range = r > range ? r : range;
            bias[t] += step->low[at];
        }
        work->range[c] = (uint8_t)range;
        first[range + 1]++;
    }
    for (size_t r = 0; r < 256; r++)
        first[r + 1] += first[r];
    for (size_t c = 0; c < C; c++)
        work->sorted[first[work->range[c]]++] = (uint32_t)c;
    choose_groups(work->range, work->sorted, C, order, tile);
    for (size_t i = 0; i < C; i++) {
        size_t c = tile->order ? order[i] : i;
        for (size_t t = 0; t < n; t++)
            for (size_t k = 0; k < K; k++)
                tables[(i * tile_size + t) * table_bytes + k] =
                    (uint8_t)(entry(step, c, k, m0 + t) - step->low[c * M + m0 + t]);
    }
    for (size_t t = 0; t < n; t++)
        tile->bias[t] = (int32_t)bias[t];
}

/* Whether entries of codebooks four apart, for outputs m0 .. m0 + n - 1, add up to an i8. */
static bool can_pair(const nimbus_program_step *step, size_t m0, size_t n)
{
    const size_t C = step->n_codebooks, M = step->n_outputs;
    for (size_t c = 0; c + 4 < C; c += c % 8 == 3 ? 5 : 1)
        for (size_t m = m0; m < m0 + n; m++)
            if (step->low[c * M + m] + step->low[(c + 4) * M + m] < INT8_MIN ||
                step->high[c * M + m] + step->high[(c + 4) * M + m] > INT8_MAX)
                return false;
    return true;
}

/* The same for sets that look up in packed codes. */
static void packed_tile(const nimbus_program_step *step, size_t m0, size_t n, size_t tile_size,
                        nimbus_tile *tile, uint8_t *tables)
{
    size_t C = step->n_codebooks, K = step->n_leaves;
    for (size_t c = 0; c < C; c++)
        for (size_t t = 0; t < n; t++)
            for (size_t k = 0; k < K; k++)
                tables[((c / 4 * tile_size + t) * 4 + c % 4) * 16 + k] =
                    (uint8_t)entry(step, c, k, m0 + t);
    tile->n_quads = (C + 3) / 4;
    tile->paired = can_pair(step, m0, n);
    for (size_t t = 0; t < n; t++)
        tile->bias[t] = step->bias[m0 + t];
}

bool nimbus_step_lay_out_tiles(nimbus_program_step *step, const nimbus_kernels *kernels)
{
    const size_t size = kernels->shape.tile, C = step->n_codebooks, M = step->n_outputs;
    const bool packed = nimbus_step_is_packed(step, kernels);
    const size_t n_tiles = (M + size - 1) / size;
    const size_t tile_bytes =
        packed ? (C + 3) / 4 * size * 64 : C * size * (step->n_leaves > 16 ? 64 : 16);
    tile_work work = {nimbus_alloc(C, 1), nimbus_alloc(C, sizeof(uint32_t))};
    step->tiles = nimbus_alloc(n_tiles, sizeof *step->tiles);
    step->tile_tables = nimbus_alloc_product(n_tiles, tile_bytes, 1, 0);
    if (!packed)
        step->tile_orders = nimbus_alloc_product(n_tiles, C, sizeof *step->tile_orders, 0);
    /* A set that packs 32-bit sums to 16 bits before the shift saturates the same ones. */
    step->in_bytes =
        step->narrow || (packed && step->output == NIMBUS_OUT_SHIFT && step->shift <= 8);
    bool ok = work.range && work.sorted && step->tiles && step->tile_tables &&
              (packed || step->tile_orders);
    for (size_t i = 0; ok && i < n_tiles; i++) {
        nimbus_tile *tile = &step->tiles[i];
        size_t m = i * size, n = M - m < size ? M - m : size;
        uint8_t *tables = step->tile_tables + i * tile_bytes;
        tile->tables = tables;
        if (packed)
            packed_tile(step, m, n, size, tile, tables);
        else
            shuffled_tile(step, &work, m, n, size, tile, tables, step->tile_orders + i * C);
    }
    nimbus_free(work.range);
    nimbus_free(work.sorted);
    return ok;
}

/* ---- weights ------------------------------------------------------------------------------ */

bool nimbus_step_lay_out_weights(nimbus_program_step *step, const int8_t *weights,
                                 const nimbus_kernels *kernels)
{
    const size_t D = step->n_inputs, M = step->n_outputs;
    const size_t group = kernels->shape.group, block = kernels->shape.block;
    const size_t n_groups = (D + group - 1) / group, n_blocks = (M + block - 1) / block;
    const size_t bytes = nimbus_group_bytes(&kernels->shape);
    step->packed_weights = nimbus_alloc_product(n_blocks * block, n_groups, group * bytes, 0);
    step->packed_bias = nimbus_alloc(nimbus_padded(M), sizeof *step->packed_bias);
    if (!step->packed_weights || !step->packed_bias)
        return false;
    uint8_t *packed = step->packed_weights;
    for (size_t m = 0; m < M; m++) {
        int32_t sum = 0; /* 128 times it fits: load.c has checked that no sum leaves 32 bits */
        for (size_t d = 0; d < D; d++) {
            int8_t weight = weights[m * D + d];
            size_t at =
                ((m / block * n_groups + d / group) * block + m % block) * group + d % group;
            if (bytes == 2)
                ((int16_t *)(void *)packed)[at] = weight;
            else
                ((int8_t *)packed)[at] = weight;
            sum += weight;
        }
        step->packed_bias[m] =
            (int32_t)((uint32_t)step->bias[m] - kernels->shape.flip * (uint32_t)sum);
    }
    step->weights = (nimbus_weights){packed, step->packed_bias, n_groups, M};
    return true;
}

/* ---- walking the trees of one row --------------------------------------------------------- */

/* Of a group's windows for each of its vectors: columns that lie further apart are copied one by
 * one sooner. */
enum { MOST_WINDOWS = 10 };
enum { MOST_VECTORS = 8 }; /* of a group: the levels of a tree, or nimbus_node_vectors */

/* How rows of `width` bytes, no fewer than a part has, are cut into windows. Shorter ones come in a
 * copy (nimbus_encode_row). */
typedef struct cutting {
    const nimbus_gather *gather;
    const nimbus_shape *shape;
    size_t width, alignment;
    nimbus_window *windows; /* NULL to count them only; else this and the next two are filled */
    uint64_t *wanted;
    uint8_t *at;
} cutting;

/* Notes that value `lane` of vector v of a group is byte `place` of a part of a window. */
static void place_value(const cutting *cut, size_t group, size_t window, size_t part, size_t v,
                        size_t lane, size_t place)
{
    const nimbus_gather *g = cut->gather;
    const size_t row = window * g->vectors + v;
    if (!cut->shape->joined) {
        cut->at[row * cut->shape->lanes + lane] = (uint8_t)place;
        return;
    }
    cut->wanted[row] |= (uint64_t)1 << lane;
    cut->at[group * g->group_step + v * g->vector_step + lane] =
        (uint8_t)(place + part * nimbus_window_part(cut->shape));
}

/* Cuts windows that have all values of a group, each part from the lowest column on that is left,
 * and returns how many there are; they are put after the first `before` ones. */
static uint32_t cut_windows(const cutting *cut, size_t group, size_t before)
{
    const nimbus_gather *g = cut->gather;
    const uint32_t *columns = g->columns + group * g->group_step;
    const size_t lanes = cut->shape->lanes, part_bytes = nimbus_window_part(cut->shape);
    const uint64_t all = lanes < 64 ? ((uint64_t)1 << lanes) - 1 : UINT64_MAX;
    uint64_t left[MOST_VECTORS], any = 1;
    uint32_t n_windows = 0;
    for (size_t v = 0; v < g->vectors; v++)
        left[v] = all;
    for (; any; n_windows++) {
        any = 0;
        for (size_t part = 0; part < nimbus_window_parts(cut->shape); part++) {
            const uint64_t served = cut->shape->joined ? all : (uint64_t)0xffff << 16 * part;
            size_t first = cut->width - part_bytes;
            for (size_t i = 0; i < g->vectors * lanes; i++) {
                const size_t v = i / lanes, lane = i % lanes;
                const size_t column = columns[v * g->vector_step + lane];
                if ((left[v] & served) >> lane & 1 && column < first)
                    first = column / cut->alignment * cut->alignment;
            }
            if (cut->windows)
                cut->windows[before + n_windows].first[part] = first;
            for (size_t i = 0; i < g->vectors * lanes; i++) {
                const size_t v = i / lanes, lane = i % lanes;
                const size_t column = columns[v * g->vector_step + lane];
                if (!((left[v] & served) >> lane & 1) || column - first >= part_bytes)
                    continue;
                left[v] ^= (uint64_t)1 << lane;
                if (cut->windows)
                    place_value(cut, group, before + n_windows, part, v, lane, column - first);
            }
        }
        for (size_t v = 0; v < g->vectors; v++)
            any |= left[v];
    }
    return n_windows;
}

/* Rows of activations were stored a register at a time, and parts of them are loaded that lie in
 * one of these stores. */
static bool lay_out_windows(nimbus_program_step *step, nimbus_gather *gather,
                            const nimbus_shape *shape)
{
    const bool u8 = step->input == NIMBUS_IN_U8;
    const size_t part_bytes = nimbus_window_part(shape);
    cutting cut = {.gather = gather,
                   .shape = shape,
                   .width = !u8                           ? nimbus_padded(step->n_inputs)
                            : step->n_inputs > part_bytes ? step->n_inputs
                                                          : part_bytes,
                   .alignment = u8 ? 1 : part_bytes};
    const size_t n = gather->n_values / (gather->vectors * shape->lanes);
    uint32_t *first = step->first_windows = nimbus_alloc(n + 1, sizeof *first);
    if (!first)
        return false;
    for (size_t g = 0; g < n; g++) {
        const uint32_t n_windows = cut_windows(&cut, g, 0);
        const bool few = shape->joined || n_windows <= MOST_WINDOWS * gather->vectors;
        first[g + 1] = first[g] + (few ? n_windows : 0);
    }
    const size_t rows = shape->joined ? 1 : first[n]; /* of places */
    const size_t in_row = shape->joined ? gather->n_values : gather->vectors * shape->lanes;
    step->windows = nimbus_alloc(first[n], sizeof *step->windows);
    step->window_places = nimbus_alloc_product(rows, in_row, 1, 0);
    if (shape->joined)
        step->wanted = nimbus_alloc_product(first[n], gather->vectors, sizeof *step->wanted, 0);
    if (!step->windows || !step->window_places || (shape->joined && !step->wanted))
        return false;
    memset(step->window_places, NIMBUS_ELSEWHERE, rows * in_row);
    cut.windows = step->windows;
    cut.wanted = step->wanted;
    cut.at = step->window_places;
    for (size_t g = 0; g < n; g++)
        if (first[g + 1] > first[g])
            cut_windows(&cut, g, first[g]);
    gather->windows = step->windows;
    gather->first_window = first;
    gather->wanted = step->wanted;
    gather->at = step->window_places;
    return true;
}

/* Codebook p of those side by side: what fills them up reads no columns of its own. */
static size_t codebook_at(const nimbus_program_step *step, size_t p)
{
    return p < step->n_codebooks ? p : step->n_codebooks - 1;
}

/* For walk_u8u8 or walk_f32u8. */
static void lay_out_levels(const nimbus_program_step *step, size_t padded)
{
    const size_t n_nodes = step->n_leaves - 1;
    for (size_t p = 0; p < padded; p++) {
        const size_t first = codebook_at(step, p) * n_nodes;
        for (size_t h = 0; h < step->n_levels; h++)
            step->gather_columns[h * padded + p] = step->columns[first + ((size_t)1 << h) - 1];
        for (size_t i = 0; i < n_nodes; i++)
            if (step->input == NIMBUS_IN_F32)
                ((float *)step->walk_thresholds)[i * padded + p] =
                    ((const float *)step->thresholds)[first + i];
            else
                ((int8_t *)step->walk_thresholds)[i * padded + p] =
                    ((const int8_t *)step->thresholds)[first + i];
    }
}

/* For walk_nodes_u8u8. */
static void lay_out_nodes(const nimbus_program_step *step, size_t padded)
{
    const size_t n_nodes = step->n_leaves - 1;
    for (size_t p = 0; p < padded; p++) {
        const uint32_t *columns = step->columns + codebook_at(step, p) * n_nodes;
        const int8_t *thresholds =
            (const int8_t *)step->thresholds + codebook_at(step, p) * n_nodes;
        size_t used = 0; /* a node whose comparison is not always false: others read its column */
        while (used + 1 < n_nodes && thresholds[used] == INT8_MAX)
            used++;
        for (size_t i = 0; i < NIMBUS_NODES; i++) {
            const bool idle = i >= n_nodes || thresholds[i] == INT8_MAX;
            step->gather_columns[p * NIMBUS_NODES + i] = columns[idle ? used : i];
        }
        memcpy((int8_t *)step->walk_thresholds + p * NIMBUS_NODES, thresholds, n_nodes);
    }
}

/* Codebooks side by side. */
static bool lay_out_walk(nimbus_program_step *step, bool nodes, const nimbus_shape *shape)
{
    const size_t C = step->n_codebooks, H = step->n_levels, padded = nimbus_padded(C);
    const size_t per_tree = nodes ? NIMBUS_NODES : H;
    const size_t vectors = nodes ? nimbus_node_vectors(shape) : H;
    const bool floats = step->input == NIMBUS_IN_F32;
    step->gather_columns = nimbus_alloc_product(per_tree, padded, sizeof *step->gather_columns, 0);
    step->walk_thresholds = nimbus_alloc_product(nodes ? NIMBUS_NODES : step->n_leaves - 1, padded,
                                                 floats ? sizeof(float) : 1, 0);
    if (!step->gather_columns || !step->walk_thresholds)
        return false;
    if (nodes)
        lay_out_nodes(step, padded);
    else
        lay_out_levels(step, padded);
    step->walk =
        (nimbus_walk){.gather = {.columns = step->gather_columns,
                                 .n_values = per_tree * padded,
                                 .flip = step->input == NIMBUS_IN_U8 ? 0x80 : 0,
                                 .vectors = vectors,
                                 .vector_step = nodes ? shape->lanes : padded,
                                 .group_step = nodes ? vectors * shape->lanes : shape->lanes},
                      .thresholds = step->walk_thresholds,
                      .n_codebooks = C,
                      .n_levels = H};
    return floats || lay_out_windows(step, &step->walk.gather, shape);
}

/* For trees walked by many codebooks of one row at a time. Few codebooks are not worth the padding.
 */
bool nimbus_step_lay_out_walk(nimbus_program_step *step, const nimbus_kernels *kernels)
{
    const nimbus_shape *shape = &kernels->shape;
    const bool nodes = !step->info.shared_columns;
    if (shape->granule == 0 || step->n_codebooks < NIMBUS_WALK_FROM ||
        (step->input == NIMBUS_IN_F32 && (nodes || step->n_levels > NIMBUS_FLOAT_LEVELS)) ||
        (nodes && (step->n_levels > 4 || !kernels->walk_nodes_u8u8)) ||
        (shape->joined && step->input == NIMBUS_IN_U8 && step->n_inputs < NIMBUS_PAD))
        return true;
    return lay_out_walk(step, nodes, shape);
}

/* ---- raw u8 rows to columns ---------------------------------------------------------------- */

/* Where part p of a row begins: the last one may overlap the one before, since rows are not read
 * beyond their end. */
static uint32_t part_first(const nimbus_program_step *step, size_t p)
{
    const size_t D = step->n_inputs;
    return (uint32_t)(p * 16 + 16 <= D ? p * 16 : D < 16 ? 0 : D - 16);
}

bool nimbus_step_lay_out_parts(nimbus_program_step *step)
{
    step->n_parts = (step->n_inputs + 15) / 16;
    step->n_columns = step->n_inputs;
    if (!(step->parts = nimbus_alloc(step->n_parts, sizeof *step->parts)))
        return false;
    for (size_t p = 0; p < step->n_parts; p++)
        step->parts[p].first = step->parts[p].out = part_first(step, p);
    return true;
}

enum { UNUSED = UINT32_MAX };

/* What becomes of a part: its columns have a place from the stage that transposes them to the last
 * one with a codebook that reads them; then others get it. */
typedef struct part_life {
    uint32_t index;  /* among the parts that are used, or UNUSED */
    uint32_t wanted; /* bit i: trees read byte i of it */
    uint32_t last_stage, place;
    uint32_t next; /* of those with the same last stage, or UNUSED */
} part_life;

/* Has a part pick the bytes of `wanted`, at most NIMBUS_FEW; the last one fills up. */
static void pick_few(nimbus_part *part, uint32_t wanted)
{
    size_t n = 0;
    for (uint8_t i = 0; i < 16; i++)
        if (wanted >> i & 1)
            part->at[n++] = i;
    for (; n < NIMBUS_FEW; n++)
        part->at[n] = part->at[n - 1];
    memset(part->selectors, 0x80, sizeof part->selectors);
    for (size_t q = 0; q < NIMBUS_FEW; q++)
        for (size_t j = 0; j < 4; j++)
            part->selectors[j][4 * q + j] = part->at[q];
    part->few = true;
}

/* Numbers the parts that trees read, and gives every stage its parts and codebooks: those that read
 * nothing of later parts; codebooks stand in the order of their last columns. */
static void divide_into_stages(nimbus_program_step *step, size_t per_tree, part_life *lives)
{
    const size_t n_all = (step->n_inputs + 15) / 16, n = step->n_codebooks * per_tree;
    for (size_t p = 0; p < n_all; p++)
        lives[p].index = UNUSED;
    for (size_t i = 0; i < n; i++) {
        const uint32_t column = step->tree_columns[i];
        lives[column / 16].index = 0;
        lives[column / 16].wanted |= 1u << (column - part_first(step, column / 16));
    }
    for (size_t p = 0; p < n_all; p++) {
        if (lives[p].index == UNUSED)
            continue;
        step->parts[step->n_parts].first = part_first(step, p);
        if (__builtin_popcount(lives[p].wanted) <= NIMBUS_FEW)
            pick_few(&step->parts[step->n_parts], lives[p].wanted);
        lives[p].index = (uint32_t)step->n_parts++;
    }
    step->n_stages = (step->n_parts + NIMBUS_STAGE_PARTS - 1) / NIMBUS_STAGE_PARTS;
    for (size_t s = 0; s < step->n_stages; s++) {
        size_t first = s * NIMBUS_STAGE_PARTS, left = step->n_parts - first;
        step->stages[s].first_part = (uint32_t)first;
        step->stages[s].n_parts = (uint32_t)(left < NIMBUS_STAGE_PARTS ? left : NIMBUS_STAGE_PARTS);
    }
    for (size_t c = 0; c < step->n_codebooks; c++) {
        const uint32_t *columns = step->tree_columns + c * per_tree;
        uint32_t last = 0;
        for (size_t i = 0; i < per_tree; i++)
            last = lives[columns[i] / 16].index > last ? lives[columns[i] / 16].index : last;
        nimbus_stage *stage = &step->stages[last / NIMBUS_STAGE_PARTS];
        if (stage->n_codebooks++ == 0)
            stage->first_codebook = (uint32_t)c;
        for (size_t i = 0; i < per_tree; i++)
            lives[columns[i] / 16].last_stage = last / NIMBUS_STAGE_PARTS;
    }
}

/* Gives every part a place, and makes parts and trees count in places. Working memory: `ending`,
 * [n_stages], the first of the parts whose last stage that is. */
static void assign_places(nimbus_program_step *step, size_t per_tree, part_life *lives,
                          uint32_t *free_places, uint32_t *ending)
{
    const size_t n_all = (step->n_inputs + 15) / 16;
    uint32_t n_free = 0, n_places = 0;
    size_t entering = 0;
    for (size_t s = 0; s < step->n_stages; s++)
        ending[s] = UNUSED;
    for (size_t p = n_all; p-- > 0;) {
        if (lives[p].index == UNUSED)
            continue;
        lives[p].next = ending[lives[p].last_stage];
        ending[lives[p].last_stage] = (uint32_t)p;
    }
    for (size_t s = 0; s < step->n_stages; s++) {
        const nimbus_stage *stage = &step->stages[s];
        for (; entering < n_all; entering++) {
            part_life *life = &lives[entering];
            if (life->index == UNUSED)
                continue;
            if (life->index >= stage->first_part + stage->n_parts)
                break;
            life->place = n_free ? free_places[--n_free] : n_places++;
            step->parts[life->index].out = 16 * life->place;
        }
        for (uint32_t p = ending[s]; p != UNUSED; p = lives[p].next)
            free_places[n_free++] = lives[p].place;
    }
    for (size_t i = 0; i < step->n_codebooks * per_tree; i++) {
        const uint32_t p = step->tree_columns[i] / 16;
        uint32_t at = step->tree_columns[i] - part_first(step, p);
        if (step->parts[lives[p].index].few) /* the how manieth of the wanted */
            at = (uint32_t)__builtin_popcount(lives[p].wanted & ((1u << at) - 1));
        step->tree_columns[i] = 16 * lives[p].place + at;
    }
    step->n_columns = 16 * (size_t)n_places;
}

bool nimbus_step_lay_out_stages(nimbus_program_step *step)
{
    const size_t n_all = (step->n_inputs + 15) / 16;
    const size_t per_tree = step->info.shared_columns ? step->n_levels : step->n_leaves - 1;
    const size_t n_read = step->n_codebooks * per_tree, most = n_read < n_all ? n_read : n_all;
    part_life *lives = nimbus_alloc(n_all, sizeof *lives);
    uint32_t *free_places = nimbus_alloc(most, sizeof *free_places);
    uint32_t *ending = nimbus_alloc(most, sizeof *ending);
    step->parts = nimbus_alloc(most, sizeof *step->parts);
    step->stages = nimbus_alloc(most, sizeof *step->stages);
    bool ok = lives && free_places && ending && step->parts && step->stages;
    if (ok) {
        divide_into_stages(step, per_tree, lives);
        assign_places(step, per_tree, lives, free_places, ending);
    }
    nimbus_free(lives);
    nimbus_free(free_places);
    nimbus_free(ending);
    return ok;
}
