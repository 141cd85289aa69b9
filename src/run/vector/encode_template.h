/* encode_template.h - walk trees for many rows, or for many codebooks of one row
 *
 * With a column per level, the code so far selects the threshold of each row by a shuffle. With a
 * column per node, all nodes are compared; then each level's comparison is picked out of its 2^h
 * by the decisions before it, last decision first. The walk of one row does the same with
 * thresholds, codebooks lying side by side. H is a constant in the inner functions. */

HELPER vec append_bit(vec code, vec mask)
{
    return v_sub8(v_add8(code, code), mask);
}

HELPER void encode_levels(const nimbus_trees *trees, size_t c, const size_t H,
                          const int8_t *columns, size_t stride, size_t n, uint8_t *codes)
{
    const int8_t *thresholds = (const int8_t *)trees->thresholds + c * H * 16, *x[4];
    vec table[4];
    UNROLL
    for (size_t h = 0; h < H; h++) {
        table[h] = v_load_table(thresholds + h * 16);
        x[h] = columns + trees->columns[c * H + h] * stride;
    }
    const vec first = v_set8(thresholds[0]);
    for (size_t r = 0; r < n; r += LANES) {
        vec code = v_sub8(v_zero(), v_greater8(v_load(x[0] + r), first));
        UNROLL
        for (size_t h = 1; h < H; h++)
            code = append_bit(code, v_greater8(v_load(x[h] + r), v_shuffle8(table[h], code)));
        v_store(codes + c * stride + r, code);
    }
}

TARGET void KERNEL(encode_i8u8)(const nimbus_trees *trees, const int8_t *columns, size_t stride,
                                size_t n, uint8_t *codes)
{
    for (size_t c = 0; c < trees->n_codebooks; c++) {
        switch (trees->n_levels) {
        case 1:
            encode_levels(trees, c, 1, columns, stride, n, codes);
            break;
        case 2:
            encode_levels(trees, c, 2, columns, stride, n, codes);
            break;
        case 3:
            encode_levels(trees, c, 3, columns, stride, n, codes);
            break;
        default:
            encode_levels(trees, c, 4, columns, stride, n, codes);
        }
    }
}

/* Among 2^h candidates of a level, the one that the h decisions so far lead to. */
HELPER vec pick(vec candidates[8], const vec decisions[4], const size_t h)
{
    UNROLL
    for (size_t j = 3; j-- > 0;) {
        UNROLL
        for (size_t i = 0; i < 4; i++)
            if (j < h && i < (size_t)1 << j)
                candidates[i] = v_select8(decisions[j], candidates[2 * i + 1], candidates[2 * i]);
    }
    return candidates[0];
}

/* Decisions at the nodes in heap order, -1 for right, to codes: 0..K-1 in each element, which is
 * made of as many bytes as those of the masks. */
#define CODE_OF_NODES(H, decide, code)                                                             \
    vec decisions[4];                                                                              \
    UNROLL                                                                                         \
    for (size_t h = 0; h < (H); h++) {                                                             \
        vec candidates[8];                                                                         \
        UNROLL                                                                                     \
        for (size_t i = 0; i < 8; i++) {                                                           \
            if (i < (size_t)1 << h) {                                                              \
                size_t node = ((size_t)1 << h) - 1 + i;                                            \
                candidates[i] = (decide);                                                          \
            }                                                                                      \
        }                                                                                          \
        decisions[h] = pick(candidates, decisions, h);                                             \
        code = append_bit_of(code, decisions[h]);                                                  \
    }

#define append_bit_of append_bit
HELPER void encode_nodes_i8(const int8_t *thresholds, const int8_t *const x[15], const size_t H,
                            size_t n, uint8_t *codes)
{
    for (size_t r = 0; r < n; r += LANES) {
        vec code = v_zero();
        CODE_OF_NODES(H, v_greater8(v_load(x[node] + r), v_set8(thresholds[node])), code)
        v_store(codes + r, code);
    }
}
#undef append_bit_of

#define append_bit_of(code, mask) v_sub32(v_add32(code, code), mask)
HELPER void encode_nodes_f32(const float *thresholds, const float *const x[15], const size_t H,
                             size_t n, uint8_t *codes)
{
    for (size_t r = 0; r < n; r += LANES) {
        vec quarters[4];
        for (size_t q = 0; q < 4; q++) {
            size_t at = r + q * (LANES / 4);
            vec code = v_zero();
            CODE_OF_NODES(H, v_greater_f32(v_load_f32(x[node] + at), v_set_f32(thresholds[node])),
                          code)
            quarters[q] = code;
        }
        v_store(codes + r, v_pack32(quarters));
    }
}
#undef append_bit_of

/* encode_nodes_* of every codebook with H as a constant. */
#define ENCODE_NODES(type, encode)                                                                 \
    const size_t n_nodes = ((size_t)1 << trees->n_levels) - 1;                                     \
    for (size_t c = 0; c < trees->n_codebooks; c++) {                                              \
        const type *thresholds = (const type *)trees->thresholds + c * n_nodes, *x[15];            \
        uint8_t *out = codes + c * stride;                                                         \
        for (size_t i = 0; i < n_nodes; i++)                                                       \
            x[i] = columns + trees->columns[c * n_nodes + i] * stride;                             \
        switch (trees->n_levels) {                                                                 \
        case 1:                                                                                    \
            encode(thresholds, x, 1, n, out);                                                      \
            break;                                                                                 \
        case 2:                                                                                    \
            encode(thresholds, x, 2, n, out);                                                      \
            break;                                                                                 \
        case 3:                                                                                    \
            encode(thresholds, x, 3, n, out);                                                      \
            break;                                                                                 \
        default:                                                                                   \
            encode(thresholds, x, 4, n, out);                                                      \
        }                                                                                          \
    }

TARGET void KERNEL(encode_nodes_i8u8)(const nimbus_trees *trees, const int8_t *columns,
                                      size_t stride, size_t n,
                                      uint8_t *codes){ENCODE_NODES(int8_t, encode_nodes_i8)}

TARGET
    void KERNEL(encode_nodes_f32u8)(const nimbus_trees *trees, const float *columns, size_t stride,
                                    size_t n, uint8_t *codes){ENCODE_NODES(float, encode_nodes_f32)}

/* One vector of codebooks, H a constant up to 4; `thresholds` and `values` already point at its
   first. */
HELPER void walk(const int8_t *values, const int8_t *thresholds, size_t n_codebooks, const size_t H,
                 uint8_t *codes)
{
    vec decisions[4], code = v_zero();
    UNROLL
    for (size_t h = 0; h < H; h++) {
        vec candidates[8];
        UNROLL
        for (size_t i = 0; i < 8; i++)
            if (i < (size_t)1 << h)
                candidates[i] = v_load(thresholds + (((size_t)1 << h) - 1 + i) * n_codebooks);
        vec threshold = pick(candidates, decisions, h);
        decisions[h] = v_greater8(v_load(values + h * n_codebooks), threshold);
        code = append_bit(code, decisions[h]);
    }
    v_store(codes, code);
}

/* The same for any H. */
HELPER void walk_deep(const int8_t *values, const int8_t *thresholds, size_t n_codebooks, size_t H,
                      uint8_t *codes)
{
    vec decisions[8], candidates[128], code = v_zero();
    for (size_t h = 0; h < H; h++) {
        size_t n = (size_t)1 << h;
        for (size_t i = 0; i < n; i++)
            candidates[i] = v_load(thresholds + (n - 1 + i) * n_codebooks);
        for (size_t j = h; j-- > 0;)
            for (size_t i = 0; i < (size_t)1 << j; i++)
                candidates[i] = v_select8(decisions[j], candidates[2 * i + 1], candidates[2 * i]);
        decisions[h] = v_greater8(v_load(values + h * n_codebooks), candidates[0]);
        code = append_bit(code, decisions[h]);
    }
    v_store(codes, code);
}

TARGET void KERNEL(walk_i8u8)(const int8_t *values, const int8_t *thresholds, size_t n_codebooks,
                              size_t n_levels, uint8_t *codes)
{
    for (size_t c = 0; c < n_codebooks; c += LANES) {
        if (n_levels == 4)
            walk(values + c, thresholds + c, n_codebooks, 4, codes + c);
        else
            walk_deep(values + c, thresholds + c, n_codebooks, n_levels, codes + c);
    }
}
