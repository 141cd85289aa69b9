/* walk_template.h - walk trees for many codebooks of one row
 *
 * Codebooks lie side by side. With a column per level and four levels of bytes, all 15 nodes of a
 * tree are compared, and each decision on the path halves what remains of those of all levels
 * below. With another number of levels, and of f32, decisions halve the thresholds that may be the
 * next one's, and only that is compared. Either way a comparison or choice waits for one selection
 * only. With a column per node, all 15 nodes are compared at once, which leaves their decisions as
 * bits of a 16-bit number; then the path is followed from bit to bit. H is a constant in the inner
 * functions where it is 4, or 5 or 6 of bytes, or nodes have columns. */

#define MOST_LEVELS 8

#ifndef JOINED_WINDOWS
HELPER vec copy_bytes(const uint32_t *columns, const uint8_t *x)
{
    uint8_t bytes[LANES];
    for (size_t i = 0; i < LANES; i += 4) {
        bytes[i] = x[columns[i]];
        bytes[i + 1] = x[columns[i + 1]];
        bytes[i + 2] = x[columns[i + 2]];
        bytes[i + 3] = x[columns[i + 3]];
    }
    return v_load(bytes);
}
#endif

/* The n vectors of values of a group. */
HELPER void gather(const nimbus_gather *g, size_t group, const size_t n, const uint8_t *x,
                   vec *values)
{
    const vec flip = v_set8((int8_t)g->flip);
    const uint32_t end = g->first_window[group + 1];
#ifdef JOINED_WINDOWS
    const uint8_t *at = g->at + group * g->group_step;
    UNROLL
    for (size_t j = 0; j < n; j++)
        values[j] = v_load(at + j * g->vector_step);
    for (uint32_t w = g->first_window[group]; w < end; w++) {
        const nimbus_window *window = &g->windows[w];
        const vec low = v_load(x + window->first[0]), high = v_load(x + window->first[1]);
        UNROLL
        for (size_t j = 0; j < n; j++)
            values[j] = v_window(g->wanted[w * n + j], values[j], low, high);
    }
    UNROLL
    for (size_t j = 0; j < n; j++)
        values[j] = v_xor(values[j], flip);
#else
    UNROLL
    for (size_t j = 0; j < n; j++)
        values[j] = flip;
    if (g->first_window[group] == end) {
        const uint32_t *columns = g->columns + group * g->group_step;
        for (size_t j = 0; j < n; j++)
            values[j] = v_xor(values[j], copy_bytes(columns + j * g->vector_step, x));
        return;
    }
    for (uint32_t w = g->first_window[group]; w < end; w++) {
        const vec window = v_load_parts(x, g->windows[w].first);
        UNROLL
        for (size_t j = 0; j < n; j++)
            values[j] = v_xor(values[j], v_shuffle8(window, v_load(g->at + (w * n + j) * LANES)));
    }
#endif
}

#ifndef TOP_DECISIONS
HELPER vec v_greater_top8(vec a, vec b)
{
    return v_greater8(a, b);
}

HELPER vec v_select_top8(vec which, vec a, vec b)
{
    return v_select8(which, a, b);
}

HELPER vec v_join_tops8(const vec tops[4])
{
    vec code = v_zero();
    UNROLL
    for (size_t h = 0; h < 4; h++)
        code = v_add_where8(tops[h], code, v_set8(8 >> h));
    return code;
}
#endif

/* The codes of codebooks c .. c + LANES - 1 of four levels. */
HELPER vec walk(const nimbus_walk *trees, size_t c, const uint8_t *x)
{
    enum { H = 4 };
    const size_t stride = nimbus_padded(trees->n_codebooks);
    const int8_t *thresholds = (const int8_t *)trees->thresholds + c;
    vec decisions[H][8], values[H], path[H];
    gather(&trees->gather, c / LANES, H, x, values);
    UNROLL
    for (size_t h = 0; h < H; h++) {
        UNROLL
        for (size_t i = 0; i < 8; i++)
            if (i < (size_t)1 << h)
                decisions[h][i] = v_greater_top8(
                    values[h], v_load(thresholds + (((size_t)1 << h) - 1 + i) * stride));
    }
    UNROLL
    for (size_t h = 0; h < H; h++) {
        path[h] = decisions[h][0];
        UNROLL
        for (size_t below = h + 1; below < H; below++) {
            const size_t half = (size_t)1 << (below - h - 1);
            UNROLL
            for (size_t i = 0; i < 4; i++)
                if (i < half)
                    decisions[below][i] =
                        v_select_top8(path[h], decisions[below][i + half], decisions[below][i]);
        }
    }
    return v_join_tops8(path);
}

/* What walks by levels do with i8 and with f32 values. */
#define LEVEL_LOAD_i8(p)             v_load(p)
#define LEVEL_SELECT_i8(mask, a, b)  v_select8(mask, a, b)
#define LEVEL_GREATER_i8(a, b)       v_greater8(a, b)
#define LEVEL_ADD_i8(mask, code)     v_add_where8(mask, v_add8(code, code), v_set8(1))
#define LEVEL_LOAD_f32(p)            v_load_f32(p)
#define LEVEL_SELECT_f32(mask, a, b) v_select_f32(mask, a, b)
#define LEVEL_GREATER_f32(a, b)      v_greater_where_f32(v_all32(), a, b)
#define LEVEL_ADD_f32(mask, code)    v_add_where32(mask, v_add32(code, code), v_set32(1))

/* Functions walk_levels_<suffix>: the codes of codebooks side by side of H levels. The decisions so
 * far leave one of a level's thresholds, the first one halving them, and so on. */
#define WALK_LEVELS_FUNCTION(suffix, element, vector, mask_type)                                   \
    HELPER vec walk_levels_##suffix(const element *thresholds, size_t stride, const size_t H,      \
                                    const vector *values)                                          \
    {                                                                                              \
        mask_type decisions[MOST_LEVELS];                                                          \
        vector left[1 << (MOST_LEVELS - 1)];                                                       \
        vec code = v_zero();                                                                       \
        UNROLL                                                                                     \
        for (size_t h = 0; h < H && h < MOST_LEVELS; h++) {                                        \
            const size_t n = (size_t)1 << h;                                                       \
            const element *level = thresholds + (n - 1) * stride;                                  \
            if (h == 0)                                                                            \
                left[0] = LEVEL_LOAD_##suffix(level);                                              \
            UNROLL                                                                                 \
            for (size_t i = 0; i < n / 2; i++)                                                     \
                left[i] = LEVEL_SELECT_##suffix(decisions[0],                                      \
                                                LEVEL_LOAD_##suffix(level + (n / 2 + i) * stride), \
                                                LEVEL_LOAD_##suffix(level + i * stride));          \
            UNROLL                                                                                 \
            for (size_t j = 1; j < h; j++) {                                                       \
                const size_t half = n >> (j + 1);                                                  \
                UNROLL                                                                             \
                for (size_t i = 0; i < half; i++)                                                  \
                    left[i] = LEVEL_SELECT_##suffix(decisions[j], left[half + i], left[i]);        \
            }                                                                                      \
            decisions[h] = LEVEL_GREATER_##suffix(values[h], left[0]);                             \
            code = LEVEL_ADD_##suffix(decisions[h], code);                                         \
        }                                                                                          \
        return code;                                                                               \
    }
WALK_LEVELS_FUNCTION(i8, int8_t, vec, mask8)
WALK_LEVELS_FUNCTION(f32, float, vec_f32, mask32)

/* The codes of codebooks c .. c + LANES - 1 of H levels. */
HELPER vec walk_levels(const nimbus_walk *trees, size_t c, const size_t H, const uint8_t *x)
{
    const size_t stride = nimbus_padded(trees->n_codebooks);
    vec values[MOST_LEVELS];
    gather(&trees->gather, c / LANES, H, x, values);
    return walk_levels_i8((const int8_t *)trees->thresholds + c, stride, H, values);
}

/* The same of f32 rows, LANES / 4 codebooks at a time. */
HELPER vec walk_floats(const nimbus_walk *trees, size_t c, const size_t H, const float *x)
{
    const size_t stride = nimbus_padded(trees->n_codebooks);
    vec quarters[4] = {v_zero(), v_zero(), v_zero(), v_zero()};
    for (size_t q = 0; q < 4 && c < trees->n_codebooks; q++, c += LANES / 4) {
        vec_f32 values[MOST_LEVELS] = {{0}};
        UNROLL
        for (size_t h = 0; h < H && h < MOST_LEVELS; h++)
            values[h] = v_gather_f32(x, trees->gather.columns + h * stride + c);
        quarters[q] = walk_levels_f32((const float *)trees->thresholds + c, stride, H, values);
    }
    return v_pack32(quarters);
}

TARGET void KERNEL(walk_u8u8)(const nimbus_walk *trees, const uint8_t *x, uint8_t *codes)
{
    for (size_t c = 0; c < trees->n_codebooks; c += LANES) {
        vec code;
        switch (trees->n_levels) {
        case 4:
            code = walk(trees, c, x);
            break;
        case 5:
            code = walk_levels(trees, c, 5, x);
            break;
        case 6:
            code = walk_levels(trees, c, 6, x);
            break;
        default: /* not worth 255 selections in a row */
            code = walk_levels(trees, c, trees->n_levels, x);
        }
        v_store(codes + c, code);
    }
}

TARGET void KERNEL(walk_f32u8)(const nimbus_walk *trees, const float *x, uint8_t *codes)
{
    for (size_t c = 0; c < trees->n_codebooks; c += LANES)
        v_store(codes + c, trees->n_levels == 4 ? walk_floats(trees, c, 4, x)
                                                : walk_floats(trees, c, trees->n_levels, x));
}

#ifdef DECISION_BITS
/* Codes from the decisions at all nodes of trees, as bits of 16-bit numbers: node i is followed by
 * node 2i + 1 + bit i. */
HELPER vec follow_bits(vec decisions, const size_t H)
{
    const vec one = v_set16(1);
    vec node = v_zero();
    UNROLL
    for (size_t h = 0; h < H; h++) {
        vec bit = v_and(v_shift_right_each16(decisions, node), one);
        node = v_add16(v_add16(node, node), v_add16(bit, one));
    }
    return v_sub16(node, v_set16((1 << H) - 1));
}

/* The codes of LANES / 2 codebooks from c on, as 16-bit numbers. */
HELPER vec walk_nodes(const nimbus_walk *trees, size_t c, const size_t H, const uint8_t *x)
{
    const size_t at = c * NIMBUS_NODES;
    const int8_t *thresholds = (const int8_t *)trees->thresholds + at;
    vec values[8];
    decision_bits bits[8];
#ifdef JOINED_WINDOWS
    gather(&trees->gather, c / (LANES / 2), 8, x, values);
#else
    UNROLL
    for (size_t i = 0; i < 8; i++)
        gather(&trees->gather, at / LANES + i, 1, x, values + i);
#endif
    UNROLL
    for (size_t i = 0; i < 8; i++)
        bits[i] = v_greater_bits8(values[i], v_load(thresholds + i * LANES));
    return follow_bits(v_from_bits(bits), H);
}

HELPER void walk_nodes_of_row(const nimbus_walk *trees, const size_t H, const uint8_t *x,
                              uint8_t *codes)
{
    for (size_t c = 0; c < trees->n_codebooks; c += LANES) {
        vec first = walk_nodes(trees, c, H, x), second = walk_nodes(trees, c + LANES / 2, H, x);
        v_store(codes + c, v_pack16(first, second));
    }
}

TARGET void KERNEL(walk_nodes_u8u8)(const nimbus_walk *trees, const uint8_t *x, size_t x_stride,
                                    size_t n_rows, uint8_t *codes, size_t codes_stride)
{
    for (size_t r = 0; r < n_rows; r++, x += x_stride, codes += codes_stride) {
        switch (trees->n_levels) {
        case 1:
            walk_nodes_of_row(trees, 1, x, codes);
            break;
        case 2:
            walk_nodes_of_row(trees, 2, x, codes);
            break;
        case 3:
            walk_nodes_of_row(trees, 3, x, codes);
            break;
        default:
            walk_nodes_of_row(trees, 4, x, codes);
        }
    }
}
#endif
