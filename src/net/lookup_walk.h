/* lookup_walk.h - blocks of rows on their way down trees, for forward and backward */
#ifndef NIMBUS_LOOKUP_WALK_H
#define NIMBUS_LOOKUP_WALK_H

#include <string.h>

#include "base/philox.h"
#include "net/internal.h"
#include "net/lookup.h"

enum {
    BLOCK = NIMBUS_ROW_BLOCK, /* rows of one parallel item; fixed, so that threads change nothing */
    MAX_NODES = (1 << NIMBUS_MAX_LEVELS) - 1
};

/* The arrays of a layer. */
typedef struct trees {
    const nimbus_lookup *lookup;
    const int32_t *columns; /* [C][K-1] */
    const real *margin, *thresholds, *tables, *bias;
    real *dthresholds, *dtables, *dbias; /* NULL where not trained */
    size_t c, h, k, nodes, d, m;
    bool soft;       /* trees are trained */
    uint64_t stream; /* of the layer's noise */
} trees;

/* Looks them up, once per pass; column_index is renewed. */
trees nimbus_trees_of(const nimbus_layer *layer);

/* Noise on the margins of a block of rows from `row` on in one codebook, [H][BLOCK]: triangular
 * with standard deviation sigma, from 32 bits of counter randomness each. */
NIMBUS_INLINE void margin_noise(const nimbus_io *io, uint64_t stream, size_t row, size_t c,
                                size_t levels, real sigma, real *restrict noise)
{
    const real step = (real)(2.449489742783178 / 65536.0); /* sqrt(6): triangle of variance 1 */
    uint32_t words[4][BLOCK];
    for (size_t h = 0; h < levels; h++) {
        const uint64_t first = ((uint64_t)(c * NIMBUS_MAX_LEVELS + h) << 32) + row;
        for (size_t r = 0; h % 4 == 0 && r < BLOCK; r++) {
            const nimbus_philox bits = nimbus_philox_of(io->seed ^ stream, io->step, first + r);
            for (size_t j = 0; j < 4; j++)
                words[j][r] = bits.word[j];
        }
        for (size_t r = 0; r < BLOCK; r++) {
            const uint32_t bits = words[h % 4][r];
            const int32_t triangle = (int32_t)(bits & 0xffff) - (int32_t)(bits >> 16);
            noise[h * BLOCK + r] = sigma * step * (real)triangle;
        }
    }
}

/* Random bits for the codes of one codebook, of a block of rows from `row` on: the low 24 say
 * whether a code is drawn, the high 8 which leaf. Margin noise does not use level 1's counters. */
enum { PARTS = 1 << 24 };

NIMBUS_INLINE void code_bits(const nimbus_io *io, uint64_t stream, size_t row, size_t c,
                             uint32_t *restrict bits)
{
    const uint64_t first = ((uint64_t)(c * NIMBUS_MAX_LEVELS + 1) << 32) + row;
    for (size_t r = 0; r < BLOCK; r++)
        bits[r] = nimbus_philox_of(io->seed ^ stream, io->step, first + r).word[0];
}

/* What the trees of one codebook compare, of a block of rows. */
typedef struct block {
    const trees *t;
    size_t c, n;                     /* codebook; rows: those behind them hold zeros */
    bool shared;                     /* values: one column a level, else one a node */
    const real *thresholds, *margin; /* [K-1] */
    const real *noise;               /* [H][BLOCK], or NULL */
    real values[MAX_NODES * BLOCK];  /* [column][BLOCK] */
    real noise_values[NIMBUS_MAX_LEVELS * BLOCK];
} block;

/* Rows as the caller has them: the value of row r in column d is x[r * row + d * column]. */
typedef struct source {
    const nimbus_io *io; /* NULL: no noise */
    const real *x;
    size_t first, n_rows, row, column;
    real sigma;     /* of margins */
    uint32_t drawn; /* codes, of PARTS */
} source;

NIMBUS_INLINE bool is_drawn(const source *from, uint32_t bits)
{
    return bits % PARTS < from->drawn;
}

/* io NULL: without noise. */
static inline source source_of(const trees *t, const nimbus_io *io, const nimbus_lookup_rows *rows)
{
    const bool noisy = io && io->training && t->soft;
    return (source){.io = io,
                    .x = rows->x,
                    .first = rows->first,
                    .n_rows = rows->n_rows,
                    .row = rows->blocks ? 1 : t->d,
                    .column = rows->blocks ? BLOCK : 1,
                    .sigma = noisy ? t->lookup->margin_noise : 0,
                    .drawn = noisy ? (uint32_t)(t->lookup->code_noise * PARTS) : 0};
}

/* First node of a level; all of its nodes read the same column where columns are shared. */
static inline size_t first_node(size_t level)
{
    return ((size_t)1 << level) - 1;
}

NIMBUS_INLINE void load_block(block *b, const trees *t, const source *from, size_t item, size_t c)
{
    const int32_t *columns = t->columns + c * t->nodes;
    const real *x = from->x + item * BLOCK * t->d;
    b->t = t;
    b->c = c;
    b->n = nimbus_rows_in_block(from->n_rows, item);
    b->shared = t->lookup->kind != NIMBUS_TREE_PER_NODE;
    b->thresholds = t->thresholds + c * t->nodes;
    b->margin = t->margin + c * t->nodes;
    b->noise = from->sigma > 0 ? b->noise_values : NULL;
    for (size_t j = 0; j < (b->shared ? t->h : t->nodes); j++) {
        const real *value = x + (size_t)columns[b->shared ? first_node(j) : j] * from->column;
        real *to = b->values + j * BLOCK;
        if (from->row == 1) {
            memcpy(to, value, BLOCK * sizeof *to);
            continue;
        }
        for (size_t r = 0; r < b->n; r++)
            to[r] = value[r * from->row];
        for (size_t r = b->n; r < BLOCK; r++)
            to[r] = 0;
    }
    if (b->noise)
        margin_noise(from->io, t->stream, from->first + item * BLOCK, c, t->h, from->sigma,
                     b->noise_values);
}

/* All rows from their nodes on level h to those on the next one. */
NIMBUS_INLINE void step_down(const block *b, size_t h, int32_t *restrict node)
{
    const real *restrict thresholds = b->thresholds, *restrict margin = b->margin;
    const real *restrict noise = b->noise ? b->noise + h * BLOCK : NULL;
    const real *restrict level = b->values + h * BLOCK, *restrict values = b->values;
    if (noise)
        for (size_t r = 0; r < BLOCK; r++) {
            int32_t i = node[r];
            real value = b->shared ? level[r] : values[(size_t)i * BLOCK + r];
            node[r] = 2 * i + 1 + ((value - thresholds[i]) * margin[i] + noise[r] > 0);
        }
    else if (b->shared)
        for (size_t r = 0; r < BLOCK; r++)
            node[r] = 2 * node[r] + 1 + (level[r] > thresholds[node[r]]);
    else
        for (size_t r = 0; r < BLOCK; r++) {
            int32_t i = node[r];
            node[r] = 2 * i + 1 + (values[(size_t)i * BLOCK + r] > thresholds[i]);
        }
}

#endif
