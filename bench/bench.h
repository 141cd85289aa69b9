/* bench.h - the peers that a program is measured against, and the clock.
 *
 * A peer is the same net in another form: int8 through oneDNN, 32-bit floats through OpenBLAS.
 * Letters: N rows, D inputs and M outputs of a layer. */
#ifndef NIMBUS_BENCH_H
#define NIMBUS_BENCH_H

#include "nimbus_build.h"

#define BENCH_MAX_LAYERS 64
#define BENCH_PEERS      3
#define BENCH_BATCH      256

/* ---- mlp.c: a float net as plain matrices ------------------------------------------------- */

typedef struct bench_layer {
    size_t d, m;
    float *w, *b; /* [M][D], [M]: normalisations are folded in */
    int relu;
} bench_layer;

typedef struct bench_mlp {
    size_t n_layers;
    bench_layer layers[BENCH_MAX_LAYERS];
    nimbus_dtype input_dtype;
} bench_mlp;

/* Fails with UNSUPPORTED, saying why, for anything but a chain of linear layers with batch norm
 * and ReLU between them. Freed with bench_mlp_free. */
nimbus_status bench_mlp_from_net(const nimbus_net *net, bench_mlp *out,
                                 nimbus_error *error) NIMBUS_MUST_CHECK;
void bench_mlp_free(bench_mlp *mlp);

/* ---- rows to run on ----------------------------------------------------------------------- */

typedef struct bench_rows {
    size_t n, d;
    size_t stride;           /* bytes of a raw row */
    const void *raw;         /* [N][D] u8 or f32, as the program and the int8 peer read them */
    const float *float_rows; /* [N][D], what the float peer reads: its conversion is not timed */
} bench_rows;

/* ---- peers -------------------------------------------------------------------------------- */

/* Runs rows first .. first + n - 1; outputs [n][M] are floats, or i32 scores for the program. */
typedef nimbus_status (*bench_run_fn)(void *state, const bench_rows *rows, size_t first, size_t n,
                                      void *outputs);

/* peer_openblas.c: sgemm (sgemv for one row), bias and ReLU; one thread. */
typedef struct bench_openblas bench_openblas;
nimbus_status bench_openblas_new(const bench_mlp *mlp, size_t max_batch, bench_openblas **out,
                                 nimbus_error *error) NIMBUS_MUST_CHECK;
nimbus_status bench_openblas_run(void *state, const bench_rows *rows, size_t first, size_t n,
                                 void *outputs);
void bench_openblas_free(bench_openblas *peer);

/* peer_onednn.c: int8 inner products for exactly `batch` rows at a time; one thread. The ranges
 * of hidden activations are measured with the float form on the calibration rows. */
typedef struct bench_onednn bench_onednn;
nimbus_status bench_onednn_new(const bench_mlp *mlp, size_t batch, const bench_rows *calibration,
                               bench_onednn **out, nimbus_error *error) NIMBUS_MUST_CHECK;
nimbus_status bench_onednn_run(void *state, const bench_rows *rows, size_t first, size_t n,
                               void *outputs);
void bench_onednn_free(bench_onednn *peer);

/* ---- measure.c ---------------------------------------------------------------------------- */

typedef struct bench_time {
    double median, low, high; /* ns per row: median, 10th and 90th percentile over rounds */
} bench_time;

typedef struct bench_result {
    const char *name;
    const char *skipped;      /* why there are no figures; NULL: there are */
    bench_time single, batch; /* one row at a time, BENCH_BATCH rows at a time */
    double accuracy;          /* NaN without labels */
} bench_result;

typedef struct bench_report {
    char cpu[128];
    const char *isa;
    size_t n_rows, rounds;
    char reason[512];                  /* text behind `skipped` */
    bench_result results[BENCH_PEERS]; /* program, oneDNN int8, OpenBLAS f32 */
} bench_report;

/* Measures program and peers, interleaved round by round, on the rows of data (or on made-up rows
 * if data is NULL), CPU time of one thread pinned to one core. float_net may be NULL: no peers.
 * Errors: MISMATCH, MEMORY, UNSUPPORTED only for the measurement as a whole. */
nimbus_status bench_measure(const nimbus_program *program, const nimbus_net *float_net,
                            const nimbus_data *data, const nimbus_data *calibration,
                            bench_report *out, nimbus_error *error) NIMBUS_MUST_CHECK;

#endif
