/* walk_template.h - walk trees for many codebooks of one row
 *
 * Codebooks lie side by side. With a column per level, each level's threshold is picked out of its
 * 2^h by the decisions before it: each one halves what remains for all levels below, so that the
 * next comparison waits for one selection only. With a column per node, all 15 nodes of a
 * tree are compared at once, which leaves their decisions as bits of a 16-bit number; then the path
 * is followed from bit to bit. H is a constant in the inner functions. */

#ifdef WINDOWS
/* LANES values from the windows that begin at *window, up to `end`, which becomes *window. */
HELPER vec gather_windows(const nimbus_gather *g, const nimbus_window **window,
                          const nimbus_window *end, const uint8_t *x)
{
    const nimbus_window *w = *window;
    vec values = v_window(w, x);
    while (++w < end)
        values = v_select8(w->wanted, v_window(w, x), values);
    *window = w;
    return v_xor(values, v_set8((int8_t)g->flip));
}
#endif

/* Values i .. i + LANES - 1. */
HELPER vec gather(const nimbus_gather *g, size_t i, const uint8_t *x)
{
#ifdef WINDOWS
    const nimbus_window *window = g->windows + g->first_window[i / LANES];
    return gather_windows(g, &window, g->windows + g->first_window[i / LANES + 1], x);
#else
    uint8_t bytes[LANES];
    const uint32_t *columns = g->columns + i;
    for (size_t j = 0; j < LANES; j += 4) {
        bytes[j] = x[columns[j]];
        bytes[j + 1] = x[columns[j + 1]];
        bytes[j + 2] = x[columns[j + 2]];
        bytes[j + 3] = x[columns[j + 3]];
    }
    return v_xor(v_load(bytes), v_set8((int8_t)g->flip));
#endif
}

/* The codes of codebooks c .. c + LANES - 1, H a constant up to 4. */
HELPER vec walk(const nimbus_walk *trees, size_t c, const size_t H, const uint8_t *x)
{
    const size_t C = trees->n_codebooks;
    vec candidates[4][8], values[4], code = v_zero();
    UNROLL
    for (size_t h = 0; h < H; h++) {
        values[h] = gather(&trees->gather, h * C + c, x);
        UNROLL
        for (size_t i = 0; i < 8; i++)
            if (i < (size_t)1 << h)
                candidates[h][i] = v_load(trees->thresholds + (((size_t)1 << h) - 1 + i) * C + c);
    }
    UNROLL
    for (size_t h = 0; h < H; h++) {
        mask8 decision = v_greater8(values[h], candidates[h][0]);
        code = v_add_where8(decision, code, v_set8(1 << (H - 1 - h)));
        UNROLL
        for (size_t below = h + 1; below < H; below++) {
            const size_t half = (size_t)1 << (below - h - 1);
            UNROLL
            for (size_t i = 0; i < 4; i++)
                if (i < half)
                    candidates[below][i] =
                        v_select8(decision, candidates[below][i + half], candidates[below][i]);
        }
    }
    return code;
}

/* The same for any H. */
HELPER vec walk_deep(const nimbus_walk *trees, size_t c, size_t H, const uint8_t *x)
{
    const size_t C = trees->n_codebooks;
    mask8 decisions[8];
    vec candidates[128], code = v_zero();
    for (size_t h = 0; h < H; h++) {
        size_t n = (size_t)1 << h;
        for (size_t i = 0; i < n; i++)
            candidates[i] = v_load(trees->thresholds + (n - 1 + i) * C + c);
        for (size_t j = h; j-- > 0;)
            for (size_t i = 0; i < (size_t)1 << j; i++)
                candidates[i] = v_select8(decisions[j], candidates[2 * i + 1], candidates[2 * i]);
        decisions[h] = v_greater8(gather(&trees->gather, h * C + c, x), candidates[0]);
        code = v_add_where8(decisions[h], v_add8(code, code), v_set8(1));
    }
    return code;
}

TARGET void KERNEL(walk_u8u8)(const nimbus_walk *trees, const uint8_t *x, uint8_t *codes)
{
    for (size_t c = 0; c < trees->n_codebooks; c += LANES)
        v_store(codes + c, trees->n_levels == 4 ? walk(trees, c, 4, x)
                                                : walk_deep(trees, c, trees->n_levels, x));
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
    decision_bits bits[8];
    UNROLL
    for (size_t i = 0; i < 8; i++) {
        size_t at = c * NIMBUS_NODES + i * LANES;
        bits[i] = v_greater_bits8(gather(&trees->gather, at, x), v_load(trees->thresholds + at));
    }
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
