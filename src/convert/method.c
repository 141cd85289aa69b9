/* method.c - how this and previous work convert a net: one row of settings each
 *
 * Settings of previous work are those of its publications and code:
 *   MADDNESS     Blalock & Guttag 2021, "Multiplying Matrices Without Multiplying": trees on the
 *                inputs of the float net, prototypes by ridge regression with lambda 1, one scale a
 *                layer, no training. Sums are exact here, where the original averages bytes.
 *   Stella Nera  Schoenleber et al. 2023: MADDNESS layer by layer, each time with 25 epochs of the
 *                whole net, then 300 more; Adam 1e-3, at the end 5e-4, half of it for thresholds,
 *                temperature 1 on raw differences, batches of 128, no distillation.
 *   LUT-NN       Tang et al. 2023: k-means centroids on 1,024 rows for all layers at once, then 200
 *                epochs of the whole net, weights included; Adam 1e-3, a learned temperature at
 *                rate 0.1.
 *   all at once  trees in all layers from the start, trained together: from what the float net
 *                gives (mean tables), or from random numbers, where nothing of it is used.
 *   seed         strictly layer by layer: joined splits, mean tables, every layer trained for 90
 *                epochs at rate 0.01 with the layers before it finished and those behind it locked;
 *                nothing after that. */
#include "convert/internal.h"

static const nimbus_method_recipe recipes[] = {
    [NIMBUS_METHOD_NIMBUS] = {.start = NIMBUS_START_TREES},
    [NIMBUS_METHOD_MADDNESS] = {.start = NIMBUS_START_TREES,
                                .splits = NIMBUS_PLAIN,
                                .tables = NIMBUS_LEAST_SQUARES,
                                .clean = true,
                                .own_target = true,
                                .uniform = true,
                                .ridge = 1},
    [NIMBUS_METHOD_STELLA_NERA] = {.start = NIMBUS_START_TREES,
                                   .splits = NIMBUS_PLAIN,
                                   .tables = NIMBUS_LEAST_SQUARES,
                                   .own_target = true,
                                   .uniform = true,
                                   .raw_margins = true,
                                   .ridge = 1,
                                   .estimator = NIMBUS_ESTIMATOR_SOFTMAX,
                                   .layers = NIMBUS_LAYERS_WITH_ALL,
                                   .layer_epochs = 25,
                                   .epochs = 300,
                                   .batch = 128,
                                   .layer_rate = 1e-3,
                                   .rate = 5e-4,
                                   .threshold_rate = 0.5,
                                   .tau = 1},
    [NIMBUS_METHOD_LUT_NN] = {.start = NIMBUS_START_CENTROIDS,
                              .clean = true,
                              .uniform = true,
                              .epochs = 200,
                              .batch = 256,
                              .rate = 1e-3},
    [NIMBUS_METHOD_DENSE_START] = {.start = NIMBUS_START_TREES,
                                   .splits = NIMBUS_PLAIN,
                                   .tables = NIMBUS_MEAN,
                                   .clean = true,
                                   .estimator = NIMBUS_ESTIMATOR_SIGMOID,
                                   .epochs = 200,
                                   .batch = 256,
                                   .rate = 1e-3},
    [NIMBUS_METHOD_RANDOM_START] = {.start = NIMBUS_START_RANDOM,
                                    .estimator = NIMBUS_ESTIMATOR_SIGMOID,
                                    .epochs = 200,
                                    .batch = 256,
                                    .rate = 1e-3},
    [NIMBUS_METHOD_SEED] = {.start = NIMBUS_START_TREES,
                            .splits = NIMBUS_JOINED,
                            .tables = NIMBUS_MEAN,
                            .estimator = NIMBUS_ESTIMATOR_SOFTMAX,
                            .layers = NIMBUS_LAYERS_ALONE,
                            .layer_epochs = 90,
                            .batch = 256,
                            .layer_rate = 1e-2,
                            .tau = 1},
};

const nimbus_method_recipe *nimbus_method_recipe_of(nimbus_method method)
{
    return (size_t)method < sizeof recipes / sizeof recipes[0] ? &recipes[method] : NULL;
}
