/* walk_template.h - walk trees for many codebooks of one row
 *
 * Codebooks lie side by side. With a column per level and four levels, all 15 nodes of a tree are
 * compared, and each decision on the path halves what remains of those of all levels below. With
 * another number of levels, decisions halve the thresholds that may be the next one's, and only
 * that is compared. Either way a comparison or choice waits for one selection only. With a column
 * per node, all 15 nodes are compared at once, which leaves their decisions as bits of a 16-bit
 * number; then the path is followed from bit to bit. H is a constant in the inner functions, but
 * for 1 to 3, 7 and 8 levels of one column each. */

#define MOST_LEVELS 8

/* Values i .. i + LANES - 1, one by one. */
HELPER vec gather_bytes(const nimbus_gather *g, size_t i, const uint8_t *x)
{
    uint8_t bytes[LANES];
    const uint32_t *columns = g->columns + i;
    for (size_t j = 0; j < LANES; j += 4) {
        bytes[j] = x[columns[j]];
        bytes[j + 1] = x[columns[j + 1]];
        bytes[j + 2] = x[columns[j + 2]];
        bytes[j + 3] = x[columns[j + 3]];
    }
    return v_xor(v_load(bytes), v_set8((int8_t)g->flip));
}

/* n vectors of values that begin at i, i + step, ...: for sets with windows vectors v, v + 1, ...
 * of a group. */
HELPER void gather(const nimbus_gather *g, size_t group, size_t v, const size_t n, size_t i,
                   size_t step, const uint8_t *x, vec *values)
{
#ifdef WINDOWS
    const vec flip = v_set8((int8_t)g->flip);
    const uint32_t end = g->first_window[group + 1];
    UNROLL
    for (size_t j = 0; j < n; j++)
        values[j] = v_load(g->at + i + j * step);
    for (uint32_t w = g->first_window[group]; w < end; w++) {
        const nimbus_window *window = &g->windows[w];
        const uint64_t *wanted = g->wanted + w * g->vectors + v;
        const vec low = v_load(x + window->first[0]), high = v_load(x + window->first[1]);
        UNROLL
        for (size_t j = 0; j < n; j++)
            values[j] = v_window(wanted[j], values[j], low, high);
    }
    UNROLL
    for (size_t j = 0; j < n; j++)
        values[j] = v_xor(values[j], flip);
#else
    (void)group, (void)v;
    UNROLL
    for (size_t j = 0; j < n; j++)
        values[j] = gather_bytes(g, i + j * step, x);
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
    const size_t C = trees->n_codebooks;
    vec decisions[H][8], values[H], path[H];
    gather(&trees->gather, c / LANES, 0, H, c, C, x, values);
    UNROLL
    for (size_t h = 0; h < H; h++) {
        UNROLL
        for (size_t i = 0; i < 8; i++)
            if (i < (size_t)1 << h)
                decisions[h][i] = v_greater_top8(
                    values[h], v_load(trees->thresholds + (((size_t)1 << h) - 1 + i) * C + c));
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

/* The same for H levels: the decisions so far leave one of a level's thresholds, the first one
 * halving them, and so on. */
HELPER vec walk_levels(const nimbus_walk *trees, size_t c, const size_t H, const uint8_t *x)
{
    const size_t C = trees->n_codebooks;
    mask8 decisions[MOST_LEVELS];
    vec values[MOST_LEVELS], left[1 << (MOST_LEVELS - 1)], code = v_zero();
    gather(&trees->gather, c / LANES, 0, H, c, C, x, values);
    UNROLL
    for (size_t h = 0; h < H; h++) {
        const size_t n = (size_t)1 << h;
        const int8_t *level = trees->thresholds + (n - 1) * C + c;
        if (h == 0)
            left[0] = v_load(level);
        UNROLL
        for (size_t i = 0; i < n / 2; i++)
            left[i] =
                v_select8(decisions[0], v_load(level + (n / 2 + i) * C), v_load(level + i * C));
        UNROLL
        for (size_t j = 1; j < h; j++) {
            const size_t half = n >> (j + 1);
            UNROLL
            for (size_t i = 0; i < half; i++)
                left[i] = v_select8(decisions[j], left[half + i], left[i]);
        }
        decisions[h] = v_greater8(values[h], left[0]);
        code = v_add_where8(decisions[h], v_add8(code, code), v_set8(1));
    }
    return code;
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
    vec values[8];
    decision_bits bits[8];
    gather(&trees->gather, c / (LANES / 2), 0, 8, at, LANES, x, values);
    UNROLL
    for (size_t i = 0; i < 8; i++)
        bits[i] = v_greater_bits8(values[i], v_load(trees->thresholds + at + i * LANES));
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
