/* encode_template.h - walk trees for many rows at once
 *
 * A code is made of its bits from the top: level h adds 2^(H-1-h). With a column per level, the
 * code so far selects the threshold of each row by a shuffle; of more than four levels, the place
 * among the leaves that a row has come to does. With a column per node, every node is compared, but
 * only where the decisions above lead to it. H is a constant in the inner functions. */

HELPER void encode_levels(const nimbus_trees *trees, size_t c, const size_t H,
                          const int8_t *columns, size_t stride, size_t n, uint8_t *codes,
                          size_t codes_stride)
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
        vec code = v_keep_where8(v_greater8(v_load(x[0] + r), first), v_set8(1 << (H - 1)));
        UNROLL
        for (size_t h = 1; h < H; h++)
            code = v_add_where8(v_greater8(v_load(x[h] + r), v_shuffle8(table[h], code)), code,
                                v_set8(1 << (H - 1 - h)));
        v_store(codes + c * codes_stride + r, code);
    }
}

#ifdef WIDE
/* The same with all thresholds in one table, in the order of the leaves that they lie between: from
 * where a row has come to at level h its next threshold is 2^(H-2-h) places away. */
HELPER void encode_levels_wide(const nimbus_trees *trees, size_t c, const size_t H,
                               const int8_t *columns, size_t stride, size_t n, uint8_t *codes,
                               size_t codes_stride)
{
    const int8_t *thresholds = (const int8_t *)trees->thresholds + c * 64, *x[6];
    const wide_table table = v_load_wide_table(thresholds);
    UNROLL
    for (size_t h = 0; h < H; h++)
        x[h] = columns + trees->columns[c * H + h] * stride;
    for (size_t r = 0; r < n; r += LANES) {
        vec at = v_set8(1 << (H - 1));
        UNROLL
        for (size_t h = 0; h + 1 < H; h++) {
            const mask8 greater = v_greater8(v_load(x[h] + r), v_shuffle64(table, at));
            const int step = 1 << (H - 2 - h);
            at = v_add_where8(greater, v_sub8(at, v_set8(step)), v_set8(2 * step));
        }
        const mask8 greater = v_greater8(v_load(x[H - 1] + r), v_shuffle64(table, at));
        v_store(codes + c * codes_stride + r,
                v_add_where8(greater, v_sub8(at, v_set8(1)), v_set8(1)));
    }
}
#endif

/* Leaves a rest of n rows that fills at most half a vector to the set with half as many lanes. */
#ifdef NARROWER
#define NARROWER_REST(op)                                                                          \
    const size_t whole = n / LANES * LANES;                                                        \
    if (n - whole > 0 && n - whole <= LANES / 2) {                                                 \
        NARROWER(op)(trees, columns + whole, stride, LANES / 2, codes + whole, codes_stride);      \
        n = whole;                                                                                 \
    }
#else
#define NARROWER_REST(op)
#endif

/* Encodes all codebooks of at most four levels by a function that takes H as a constant. */
#define ENCODE_TREES(encode)                                                                       \
    for (size_t c = 0; c < trees->n_codebooks; c++) {                                              \
        switch (trees->n_levels) {                                                                 \
        case 1:                                                                                    \
            encode(trees, c, 1, columns, stride, n, codes, codes_stride);                          \
            break;                                                                                 \
        case 2:                                                                                    \
            encode(trees, c, 2, columns, stride, n, codes, codes_stride);                          \
            break;                                                                                 \
        case 3:                                                                                    \
            encode(trees, c, 3, columns, stride, n, codes, codes_stride);                          \
            break;                                                                                 \
        default:                                                                                   \
            encode(trees, c, 4, columns, stride, n, codes, codes_stride);                          \
        }                                                                                          \
    }

TARGET void KERNEL(encode_i8u8)(const nimbus_trees *trees, const int8_t *columns, size_t stride,
                                size_t n, uint8_t *codes, size_t codes_stride)
{
#ifdef WIDE
    if (trees->n_levels > 4) {
        for (size_t c = 0; c < trees->n_codebooks; c++)
            if (trees->n_levels == 5)
                encode_levels_wide(trees, c, 5, columns, stride, n, codes, codes_stride);
            else
                encode_levels_wide(trees, c, 6, columns, stride, n, codes, codes_stride);
        return;
    }
#endif
    NARROWER_REST(encode_i8u8)
    ENCODE_TREES(encode_levels)
}

/* Codes of f32 columns. The nodes of level h are numbers 2^h .. 2^(h+1) - 1 of NIMBUS_NODES. */
HELPER void encode_levels_f32(const nimbus_trees *trees, size_t c, const size_t H,
                              const float *columns, size_t stride, size_t n, uint8_t *codes,
                              size_t codes_stride)
{
    const float *thresholds = (const float *)trees->thresholds + c * NIMBUS_NODES, *x[4];
    f32_table table[4];
    UNROLL
    for (size_t h = 0; h < H; h++) {
        table[h] = v_load_f32_table(thresholds + ((size_t)1 << h));
        x[h] = columns + trees->columns[c * H + h] * stride;
    }
    const vec_f32 first = v_set_f32(thresholds[1]);
    const vec one = v_set32(1);
    for (size_t r = 0; r < n; r += LANES) {
        vec quarters[4];
        UNROLL
        for (size_t q = 0; q < 4; q++) {
            const size_t at = r + q * (LANES / 4);
            vec code = v_add_where32(v_greater_where_f32(v_all32(), v_load_f32(x[0] + at), first),
                                     v_zero(), one);
            UNROLL
            for (size_t h = 1; h < H; h++)
                code = v_add_where32(v_greater_where_f32(v_all32(), v_load_f32(x[h] + at),
                                                         v_pick_f32(table[h], code)),
                                     v_add32(code, code), one);
            quarters[q] = code;
        }
        v_store(codes + c * codes_stride + r, v_pack32(quarters));
    }
}

TARGET void KERNEL(encode_f32u8)(const nimbus_trees *trees, const float *columns, size_t stride,
                                 size_t n, uint8_t *codes, size_t codes_stride)
{
    NARROWER_REST(encode_f32u8)
    ENCODE_TREES(encode_levels_f32)
}

/* The trees of a codebook with a column per node. */
typedef struct node_tree {
    const uint8_t *columns;   /* all */
    size_t stride;            /* bytes from one to the next */
    const uint32_t *column;   /* [K-1] of each node */
    const uint8_t *threshold; /* [K-1] of 32 bits each */
} node_tree;

/* What the nodes of trees do, for i8 and for f32 columns: the rows of `here` whose value is
 * greater than the threshold, a bit added to the codes of some, and the others of `here`. */
#define NODE_GREATER_i8(here, x, t)    v_greater_where8(here, v_load(x), v_load_table32(t))
#define NODE_ADD_i8(right, code, bit)  v_add_where8(right, code, v_set8(bit))
#define NODE_OTHERS_i8(here, right)    v_without8(here, right)
#define NODE_GREATER_f32(here, x, t)   v_greater_where_f32(here, v_load_f32(x), v_load_table_f32(t))
#define NODE_ADD_f32(right, code, bit) v_add_where32(right, code, v_set32(bit))
#define NODE_OTHERS_f32(here, right)   v_without32(here, right)

/* A function subtree<h>_<suffix> that walks, for one vector of rows, the h levels of nodes from
 * node i downwards, where `here` says which rows have come to it; it returns the code with their
 * decisions added. Depth first, so that few of these masks are alive at a time. */
#define SUBTREE_FUNCTION(suffix, mask_type, h, below)                                              \
    HELPER vec subtree##h##_##suffix(const node_tree *tree, size_t offset, const size_t i,         \
                                     mask_type here, vec code)                                     \
    {                                                                                              \
        mask_type right = NODE_GREATER_##suffix(                                                   \
            here, (const void *)(tree->columns + tree->column[i] * tree->stride + offset),         \
            tree->threshold + 4 * i);                                                              \
        code = NODE_ADD_##suffix(right, code, 1 << ((h)-1));                                       \
        below return code;                                                                         \
    }
#define BELOW(suffix, h)                                                                           \
    code =                                                                                         \
        subtree##h##_##suffix(tree, offset, 2 * i + 1, NODE_OTHERS_##suffix(here, right), code);   \
    code = subtree##h##_##suffix(tree, offset, 2 * i + 2, right, code);
#define SUBTREE_FUNCTIONS(suffix, mask_type)                                                       \
    SUBTREE_FUNCTION(suffix, mask_type, 1, )                                                       \
    SUBTREE_FUNCTION(suffix, mask_type, 2, BELOW(suffix, 1))                                       \
    SUBTREE_FUNCTION(suffix, mask_type, 3, BELOW(suffix, 2))                                       \
    SUBTREE_FUNCTION(suffix, mask_type, 4, BELOW(suffix, 3))
SUBTREE_FUNCTIONS(i8, mask8)
SUBTREE_FUNCTIONS(f32, mask32)

#define WALK_NODES(suffix, H, offset, all)                                                         \
    ((H) == 1   ? subtree1_##suffix(tree, offset, 0, all, v_zero())                                \
     : (H) == 2 ? subtree2_##suffix(tree, offset, 0, all, v_zero())                                \
     : (H) == 3 ? subtree3_##suffix(tree, offset, 0, all, v_zero())                                \
                : subtree4_##suffix(tree, offset, 0, all, v_zero()))

HELPER node_tree tree_of(const nimbus_trees *trees, size_t c, const size_t H, const void *columns,
                         size_t stride)
{
    const size_t first = c * (((size_t)1 << H) - 1);
    return (node_tree){columns, stride, trees->columns + first,
                       (const uint8_t *)trees->thresholds + 4 * first};
}

HELPER void encode_nodes_i8(const nimbus_trees *trees, size_t c, const size_t H,
                            const int8_t *columns, size_t stride, size_t n, uint8_t *codes,
                            size_t codes_stride)
{
    const node_tree of_c = tree_of(trees, c, H, columns, stride), *tree = &of_c;
    for (size_t r = 0; r < n; r += LANES)
        v_store(codes + c * codes_stride + r, WALK_NODES(i8, H, r, v_all8()));
}

HELPER void encode_nodes_f32(const nimbus_trees *trees, size_t c, const size_t H,
                             const float *columns, size_t stride, size_t n, uint8_t *codes,
                             size_t codes_stride)
{
    const node_tree of_c = tree_of(trees, c, H, columns, stride * sizeof *columns), *tree = &of_c;
    for (size_t r = 0; r < n; r += LANES) {
        vec quarters[4];
        UNROLL
        for (size_t q = 0; q < 4; q++)
            quarters[q] = WALK_NODES(f32, H, 4 * r + q * LANES, v_all32());
        v_store(codes + c * codes_stride + r, v_pack32(quarters));
    }
}

TARGET void KERNEL(encode_nodes_i8u8)(const nimbus_trees *trees, const int8_t *columns,
                                      size_t stride, size_t n, uint8_t *codes,
                                      size_t codes_stride){ENCODE_TREES(encode_nodes_i8)}

TARGET void KERNEL(encode_nodes_f32u8)(const nimbus_trees *trees, const float *columns,
                                       size_t stride, size_t n, uint8_t *codes, size_t codes_stride)
{
    NARROWER_REST(encode_nodes_f32u8)
    ENCODE_TREES(encode_nodes_f32)
}
