/* layer.c - runs a part of one layer again and again, for scripts/arm-counts to count instructions
 *
 * usage: layer ISA PART REPEATS
 * The layer has N = 256 rows, D = 512 inputs and M = 128 outputs, i8 columns in and out: as trees
 * and tables C = 32 of K = 16 (V = 16), or as an exact product. Which instructions run depends on
 * sizes alone, so trees, tables and weights are zeros. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/base.h"
#include "run/kernels.h"

enum { N = 256, D = 512, M = 128, C = 32, K = 16, H = 4, SHIFT = 6 };

typedef struct layer {
    const nimbus_kernels *k;
    int8_t *columns, *out;
    uint8_t *codes, *packed, *zeros; /* trees, tables and weights are all of `zeros` */
    int32_t *sums;
    uint32_t order[C];
} layer;

static void encode(layer *l)
{
    static uint32_t tree_columns[C * H];
    for (size_t i = 0; i < C * H; i++)
        tree_columns[i] = (uint32_t)(i * D / (C * H));
    nimbus_trees trees = {tree_columns, l->zeros, C, H};
    l->k->encode_i8u8(&trees, l->columns, N, N, l->codes, N);
}

/* In groups of `size` codebooks. */
static void lookup(layer *l, size_t size)
{
    nimbus_tile tile = {.tables = l->zeros, .order = l->order};
    for (size_t g = 0; g < NIMBUS_GROUP_SIZES; g++)
        tile.n_groups[g] = size == (size_t)8 >> g ? (uint32_t)(C / size) : 0;
    for (size_t m = 0; m < M; m += l->k->shape.tile)
        l->k->lookup_u8i8(&tile, l->codes, N, N, SHIFT, l->out + m * N, N);
}

static void lookup_1(layer *l)
{
    lookup(l, 1);
}

static void lookup_2(layer *l)
{
    lookup(l, 2);
}

static void lookup_8(layer *l)
{
    lookup(l, 8);
}

static void pack(layer *l)
{
    l->k->pack_u8u8((const uint8_t *)l->columns, N, N, D, l->k->shape.flip * 0x01010101u, l->packed,
                    N);
}

static void dot(layer *l)
{
    nimbus_weights weights = {l->zeros, l->sums, D / l->k->shape.group, M};
    for (size_t m = 0; m < M; m += l->k->shape.tile)
        l->k->dot_columns_i32(&weights, m, l->packed, N, N, l->sums + M);
}

static void shift(layer *l)
{
    for (size_t m = 0; m < M; m++)
        l->k->shift_i32i8(l->sums, N, SHIFT, l->out + m * N);
}

int main(int argc, char **argv)
{
    static const struct {
        const char *name;
        void (*run)(layer *);
    } parts[] = {{"encode", encode},     {"lookup-1", lookup_1}, {"lookup-2", lookup_2},
                 {"lookup-8", lookup_8}, {"pack", pack},         {"dot", dot},
                 {"shift", shift}};
    layer l = {
        .columns = nimbus_alloc(D, N),
        .out = nimbus_alloc(M, N),
        .codes = nimbus_alloc(C, N),
        .packed = nimbus_alloc(D * 2, N),
        .zeros = nimbus_alloc(M * D, 2),
        .sums = nimbus_alloc(M + NIMBUS_MAX_TILE * N, sizeof *l.sums),
    };
    void (*run)(layer *) = NULL;
    int status = 1;
    if (!l.columns || !l.out || !l.codes || !l.packed || !l.zeros || !l.sums)
        goto done;
    for (uint32_t c = 0; c < C; c++)
        l.order[c] = c;
    for (size_t i = 0; argc == 4 && i < nimbus_kernel_table_size; i++)
        if (strcmp(nimbus_kernel_table[i].isa, argv[1]) == 0 && nimbus_kernel_table[i].usable())
            l.k = &nimbus_kernel_table[i];
    for (size_t i = 0; argc == 4 && i < sizeof parts / sizeof *parts; i++)
        if (strcmp(parts[i].name, argv[2]) == 0)
            run = parts[i].run;
    if (!l.k || !run) {
        fprintf(stderr, "usage: layer ISA PART REPEATS, with an instruction set of this machine\n");
        goto done;
    }
    for (long n = strtol(argv[3], NULL, 10); n > 0; n--)
        run(&l);
    status = 0;
done:
    nimbus_free(l.columns);
    nimbus_free(l.out);
    nimbus_free(l.codes);
    nimbus_free(l.packed);
    nimbus_free(l.zeros);
    nimbus_free(l.sums);
    return status;
}
