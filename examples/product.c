/* product.c - one layer's product as trees and tables, without a program around it
 *
 *     cc -O2 product.c $(pkg-config --cflags --libs nimbus) -o product
 *     ./product
 *
 * For callers with network code of their own: x W^T of a layer is replaced by a tree per stretch of
 * inputs and a table row per leaf. Here the trees are trivial ones, so that the result can be
 * checked by eye: with two codebooks of two levels over four inputs each, a codebook's leaf is the
 * number of its first two inputs that are positive, read as bits, and its table says how much each
 * leaf adds to the three outputs. */
#include <stdio.h>
#include <stdlib.h>

#include "nimbus.h"

enum { D = 8, M = 3, C = 2, H = 2, K = 1 << H, ROWS = 5 };

int main(void)
{
    /* Level h of codebook c reads input columns[c][h]; right if it is greater than the threshold.
     * Nodes in heap order: the root, then the two of the second level. */
    static const uint32_t columns[C][H] = {{0, 1}, {4, 5}};
    static const int8_t thresholds[C][K - 1] = {{0}};
    static const int8_t tables[C][K][M] = {{{0, 0, 0}, {1, 0, 0}, {2, 0, 0}, {3, 0, 0}},
                                           {{0, 0, 0}, {0, 10, 1}, {0, 20, 2}, {0, 30, 3}}};
    static const int32_t bias[M] = {100, 200, 300};
    const nimbus_product_arrays arrays = {
        sizeof arrays, D, M, C, H, &columns[0][0], &thresholds[0][0], &tables[0][0][0], bias};
    nimbus_product *product;
    nimbus_error error;
    if (nimbus_product_new(&arrays, &product, &error) != NIMBUS_OK) {
        fprintf(stderr, "%s\n", error.message);
        return 1;
    }
    /* Column-major: column d of all rows is x[d][0..ROWS-1], and so are codes and sums. */
    int8_t x[D][ROWS] = {{0}};
    uint8_t codes[C][ROWS];
    int32_t sums[M][ROWS];
    for (int r = 0; r < ROWS; r++) {
        x[0][r] = r & 2 ? 5 : -5;
        x[1][r] = r & 1 ? 5 : -5;
        x[4][r] = r & 1 ? 9 : -9;
        x[5][r] = r & 2 ? 9 : -9;
    }
    void *scratch = malloc(nimbus_product_scratch_size(product));
    int failed = !scratch ||
                 nimbus_product_encode(product, &x[0][0], ROWS, ROWS, &codes[0][0], ROWS,
                                       scratch) != NIMBUS_OK ||
                 nimbus_product_lookup(product, &codes[0][0], ROWS, ROWS, &sums[0][0], ROWS,
                                       scratch) != NIMBUS_OK;
    for (int r = 0; r < ROWS && !failed; r++)
        printf("row %d: leaves %d %d, sums %d %d %d\n", r, codes[0][r], codes[1][r],
               (int)sums[0][r], (int)sums[1][r], (int)sums[2][r]);
    free(scratch);
    nimbus_product_free(product);
    return failed;
}
