/* bench.h - what a program is measured against, how, and what is reported.
 *
 * A contender is one form of the same net: the compiled program, or a peer that computes the float
 * net as int8 or 32-bit float products. Everything is measured in one process (ONNX Runtime in a
 * child of it), one thread pinned to one core, in turns (measure.c), into one bench_report that the
 * table, the JSON and the HTML page are all made from.
 * Letters: N rows, D inputs and M outputs of a layer, C codebooks, V columns per codebook. */
#ifndef NIMBUS_BENCH_H
#define NIMBUS_BENCH_H

#include <jansson.h>
#include <stdio.h>

#include "nimbus_build.h"

#define BENCH_MAX_LAYERS  64  /* of a net */
#define BENCH_MAX_STEPS   128 /* of a program whose steps are timed; not below BENCH_MAX_LAYERS */
#define BENCH_MAX_BATCHES 10
#define BENCH_MAX_SHAPES  16
#define BENCH_MAX_SWEEP   96
#define BENCH_TEXT        1024

/* ---- measure.c: clock and turns ----------------------------------------------------------- */

typedef struct bench_time {
    double median, low, high; /* ns: median, 10th and 90th percentile over rounds */
} bench_time;

/* A sample takes about this many ns of calls. */
#define BENCH_SAMPLE_NS 2e6

/* Something to be timed. One call handles `units` rows (or adds, or whatever is counted). */
typedef struct bench_task {
    const char *name;
    nimbus_status (*call)(void *state);
    /* or, for what is timed elsewhere: ns of a call; NaN: it failed */
    double (*sample)(void *state);
    void *state;
    double units;
    bench_time ns; /* out: per unit */
} bench_task;

/* Times all tasks, taking turns in every round. Errors: UNSUPPORTED (a task failed; it is named),
 * MEMORY. */
nimbus_status bench_interleave(bench_task *tasks, size_t n_tasks, size_t rounds,
                               nimbus_error *error) NIMBUS_MUST_CHECK;
/* Index of the fastest of the tasks, by a short trial. */
nimbus_status bench_fastest(bench_task *tasks, size_t n_tasks, size_t *best,
                            nimbus_error *error) NIMBUS_MUST_CHECK;

/* A task of dependent adds, one a cycle: the core's clock is 1 / ns. NaN where it is unknown how to
 * write one. */
bench_task bench_clock_task(void);
double bench_clock_ghz(const bench_task *clock);

double bench_wall_ns(void); /* CLOCK_MONOTONIC */
/* For short times: the time stamp counter between fences, or ns where there is none; measured over
 * 20 ms, what a tick is; and the median time between two calls. */
uint64_t bench_ticks(void);
double bench_ns_per_tick(void);
double bench_timer_ns(double ns_per_tick);
bench_time bench_summary(double *samples, size_t n, double units); /* sorts them */
void bench_cpu_name(char *out, size_t size);

/* Holds this thread on its present core and the libraries at one thread; and lets go again. */
typedef struct bench_pinning bench_pinning;
bench_pinning *bench_pin(void); /* NULL: out of memory, nothing was pinned */
void bench_unpin(bench_pinning *before);

/* ---- rows.c: what the contenders run on --------------------------------------------------- */

typedef struct bench_rows {
    size_t n, n_real, d;   /* n_real rows of the data, repeated up to n */
    size_t n_walk;         /* the first of them, which timed calls walk through again and again */
    size_t stride;         /* bytes of a raw row */
    const void *raw;       /* [N][D] u8 or f32, as the program and the int8 peers read them */
    float *float_rows;     /* [N][D], what the float peers read: its conversion is not timed */
    const int32_t *labels; /* [n_real], borrowed; NULL without */
} bench_rows;

/* A copy of the rows of data (at most `limit`; 0: all), or made-up ones if data is NULL, repeated
 * up to a multiple of `batch`. Errors: MISMATCH (data does not fit the program), MEMORY. */
nimbus_status bench_rows_make(const nimbus_program_info *info, const nimbus_data *data,
                              size_t limit, size_t batch, bench_rows *out,
                              nimbus_error *error) NIMBUS_MUST_CHECK;
void bench_rows_free(bench_rows *rows);

/* ---- float_net.c: a float net as the peers see it ----------------------------------------- */

typedef enum bench_kind {
    BENCH_PRODUCT, /* a linear layer or a convolution */
    BENCH_ADD,
    BENCH_MAX_POOL,
    BENCH_AVERAGE_POOL
} bench_kind;

typedef struct bench_image {
    size_t channels, height, width; /* vectors are 1 x 1 images */
} bench_image;

/* A layer reads values and makes one: value 0 are the normalised rows, value i + 1 is what layer i
 * makes. Batch norm is folded into products, ReLU into what it follows. */
typedef struct bench_layer {
    bench_kind kind;
    char name[48]; /* the layer's in the net */
    size_t n_sources, sources[2];
    bench_image in, out;
    int relu;
    float high; /* with ReLU: values are cut there; INFINITY: nowhere */
    /* windows of convolutions and pools; index 0 is vertical */
    size_t kernel[2], stride[2], dilation[2], before[2], after[2];
    int count_padding;
    /* products */
    int linear; /* one window, all of the image: y = W x */
    size_t groups, d, m;
    float *w, *b; /* [M][D], [M]; D: [channels / groups][kernel 0][kernel 1] */
} bench_layer;

typedef struct bench_net {
    size_t n_layers;
    bench_layer layers[BENCH_MAX_LAYERS];
    nimbus_dtype input_dtype;
    bench_image in;
    float *mean, *inverse_std; /* [D]: value 0 = (row - mean) * inverse_std */
} bench_net;

/* Fails with UNSUPPORTED, naming the layer, for what the peers do not know: anything but linear
 * layers, convolutions, batch norm after them, ReLU, sums of two, pools. Freed with
 * bench_net_free. */
nimbus_status bench_net_from(const nimbus_net *net, bench_net *out,
                             nimbus_error *error) NIMBUS_MUST_CHECK;
void bench_net_free(bench_net *net);
/* Linear layers, each reading the one before it, with ReLU between them. */
int bench_net_is_chain(const bench_net *net);
static inline size_t bench_width(bench_image image)
{
    return image.channels * image.height * image.width;
}
/* Whether rows are vectors to the first layer, not images. */
static inline int bench_rows_are_flat(const bench_net *net)
{
    return net->layers[0].linear;
}
/* Makes the float rows what the float peers read, value 0. */
void bench_rows_normalise(bench_rows *rows, const bench_net *net);

/* ---- quantise.c: the same net in 8 bits, for every int8 peer ------------------------------ */

/* y = (sum of w * (u - zero) + bias) * scale, in steps of the output or, for the last layer, in
 * reals. */
typedef struct bench_int8_layer {
    int8_t *w;           /* [M][D] */
    float *bias, *scale; /* [M]: in units of the accumulator; accumulator to output */
    float *w_scale;      /* [M]: real value of a weight of one */
} bench_int8_layer;

/* A value v stands for (u - zero[v]) * scale[v], u of 8 bits: zero is 128 where values have both
 * signs. Value 0 has a scale of 1 and, as u8 rows, a zero of 0: weights and bias know the rest. */
typedef struct bench_int8 {
    const bench_net *net; /* borrowed */
    bench_int8_layer layers[BENCH_MAX_LAYERS];
    float scale[BENCH_MAX_LAYERS + 1];
    int zero[BENCH_MAX_LAYERS + 1];
    float *gain, *middle; /* [D], f32 rows only: u = (x - middle) * gain + 128; else NULL */
    uint8_t *pad; /* [channels]: what stands around images for the layer that reads the rows; NULL:
                     it needs nothing */
} bench_int8;

/* Ranges of values are measured with the float form on the calibration rows, normalised. Weights
 * lie within +-limit. Freed with bench_int8_free. */
nimbus_status bench_int8_make(const bench_net *net, const bench_rows *calibration, int limit,
                              bench_int8 *out, nimbus_error *error) NIMBUS_MUST_CHECK;
void bench_int8_free(bench_int8 *net);
/* Biases [M] of product i where rows are read as the u8 that they are and other values without
 * their zero; to be freed. NULL: out of memory. */
float *bench_int8_bias(const bench_int8 *net, size_t i);

/* ---- peers -------------------------------------------------------------------------------- */

/* Runs rows first .. first + n - 1; outputs [n][M] are floats, or i32 scores for the program. */
typedef nimbus_status (*bench_run_fn)(void *state, const bench_rows *rows, size_t first, size_t n,
                                      void *outputs);

/* rows.c: a task's state that runs n rows a call and walks through all of them. */
typedef struct bench_walk {
    bench_run_fn run;
    void *state;
    const bench_rows *rows;
    size_t n, at;
    void *outputs;
} bench_walk;
nimbus_status bench_walk_on(void *walk);

/* product.c: one product y = relu(x W^T + bias), in the fastest of the forms that a library has for
 * its size, weights packed or transposed once. x is [N][D], y [N][M]. */
typedef enum bench_library { BENCH_ONEDNN, BENCH_OPENBLAS } bench_library;

typedef struct bench_product_spec {
    bench_library library;
    size_t n, d, m;
    int int8;      /* x u8, w s8, y u8 (or f32); else all are f32; oneDNN only */
    int float_out; /* int8: y is f32 */
    int relu;
    const void *w;      /* [M][D] */
    const float *bias;  /* [M] */
    const float *scale; /* int8: [M], what a sum is multiplied by after the bias is added */
} bench_product_spec;

typedef struct bench_product bench_product;
nimbus_status bench_product_new(const bench_product_spec *spec, bench_product **out,
                                nimbus_error *error) NIMBUS_MUST_CHECK;
nimbus_status bench_product_run(const bench_product *product, const void *x, void *y);
const char *bench_product_how(const bench_product *product); /* "inner product", "matmul", ... */
void bench_product_free(bench_product *product);

/* onednn_forms.c, openblas_forms.c: what product.c chooses from. make copies what it needs; NULL:
 * the library has no such form. */
typedef struct bench_form {
    const char *name;
    void *(*make)(const bench_product_spec *spec);
    nimbus_status (*run)(void *state, const void *x, void *y);
    void (*free)(void *state);
} bench_form;
extern const bench_form bench_onednn_forms[3], bench_openblas_forms[2];

/* 127, or 63 where oneDNN's 8-bit dot product saturates in 16 bits (no VNNI), as it advises. */
int bench_onednn_weight_limit(void);
/* Limits oneDNN to "ssse3", "avx2", "avx512bw" or "avx512vbmi"; before any other use of it. Errors:
 * ARGUMENT (unknown name), STATE (oneDNN refused). */
nimbus_status bench_onednn_limit(const char *isa, nimbus_error *error) NIMBUS_MUST_CHECK;

/* finish.c: what the library's plain products leave to do. */
void bench_finish_f32(float *y, size_t n, size_t m, const float *bias, int relu);
/* y u8 or, with float_out, f32. */
void bench_finish_i32(const int32_t *sums, const bench_product_spec *spec, void *y);

/* Where the time of a net goes. */
typedef struct bench_ticks_of {
    uint64_t ticks[BENCH_MAX_STEPS];
    size_t n_calls[BENCH_MAX_STEPS]; /* of the timer, which each take their time */
} bench_ticks_of;

/* onednn_net.c: a net of any kind through oneDNN, for exactly `batch` rows at a time; int8 NULL: in
 * f32. x are raw rows as u8 (f32 rows quantised), or value 0 as floats; y [N][M] floats. */
typedef struct bench_graph bench_graph;
nimbus_status bench_graph_new(const bench_net *net, const bench_int8 *int8, size_t batch,
                              bench_graph **out, nimbus_error *error) NIMBUS_MUST_CHECK;
/* ticks, if given, has the time of each layer's primitives added, by layer, and their number. */
nimbus_status bench_graph_run(bench_graph *graph, const void *x, void *y, bench_ticks_of *ticks);
/* The layer whose primitives do the work of layer i: a sum may be part of a product. */
size_t bench_graph_layer_of(const bench_graph *graph, size_t i);
void bench_graph_free(bench_graph *graph);
/* Largest absolute value that each layer makes of the float rows, BENCH_RANGE_ROWS at a time. */
#define BENCH_RANGE_ROWS 64
nimbus_status bench_graph_ranges(const bench_net *net, const bench_rows *rows, float *top,
                                 nimbus_error *error) NIMBUS_MUST_CHECK;

/* peer_net.c: a float net, or its int8 form, for exactly `batch` rows at a time: chains as products
 * of the library, others as a graph of oneDNN. */
typedef struct bench_peer bench_peer;
nimbus_status bench_peer_new(bench_library library, const bench_net *net, const bench_int8 *int8,
                             size_t batch, bench_peer **out, nimbus_error *error) NIMBUS_MUST_CHECK;
nimbus_status bench_peer_run(void *peer, const bench_rows *rows, size_t first, size_t n,
                             void *outputs); /* a bench_run_fn */
/* The same, telling the layers' times apart. */
nimbus_status bench_peer_run_layers(void *peer, const bench_rows *rows, size_t first, size_t n,
                                    void *outputs, bench_ticks_of *ticks);
size_t bench_peer_layer_of(const bench_peer *peer, size_t i);
/* Appends "batch 256: inner product, matmul" to the text. */
void bench_peer_how(const bench_peer *peer, char *text, size_t size);
void bench_peer_free(bench_peer *peer);

/* onnx_write.c: the same nets as ONNX files; "empty" does nothing with rows of the same shape. The
 * float net reads normalised rows. Errors: IO, MEMORY. */
nimbus_status bench_onnx_write_f32(const bench_net *net, FILE *out,
                                   nimbus_error *error) NIMBUS_MUST_CHECK;
nimbus_status bench_onnx_write_int8(const bench_int8 *int8, FILE *out,
                                    nimbus_error *error) NIMBUS_MUST_CHECK;
nimbus_status bench_onnx_write_empty(const bench_net *net, FILE *out,
                                     nimbus_error *error) NIMBUS_MUST_CHECK;

/* ort.c: ONNX Runtime in a child process. Fails with UNSUPPORTED, saying what to install. */
typedef struct bench_ort_child bench_ort_child;
enum { BENCH_ORT_MODEL_INT8, BENCH_ORT_MODEL_F32, BENCH_ORT_MODEL_EMPTY };
nimbus_status bench_ort_start(const char *folder, const bench_int8 *int8, const bench_rows *rows,
                              bench_ort_child **out, nimbus_error *error) NIMBUS_MUST_CHECK;
const char *bench_ort_version(const bench_ort_child *child);
typedef struct bench_ort_call {
    bench_ort_child *child;
    int model;
    size_t batch;
} bench_ort_call;
double bench_ort_sample(void *call); /* of a bench_task */
/* outputs: f32 [rows.n][M] */
nimbus_status bench_ort_outputs(bench_ort_child *child, int model, float *outputs,
                                nimbus_error *error) NIMBUS_MUST_CHECK;
void bench_ort_stop(bench_ort_child *child); /* NULL is allowed */

/* ---- what is reported --------------------------------------------------------------------- */

/* Contenders of a net, in the order of the report. */
enum {
    BENCH_PROGRAM,
    BENCH_ONEDNN_INT8,
    BENCH_ONEDNN_F32,
    BENCH_OPENBLAS_F32,
    BENCH_ORT_INT8,
    BENCH_ORT_F32,
    BENCH_CONTENDERS
};

typedef struct bench_result {
    const char *name;                 /* NULL: not asked for */
    char skipped[BENCH_TEXT];         /* why there are no figures; "": there are */
    char how[BENCH_TEXT];             /* in what form it ran; "" if there is only one */
    bench_time ns[BENCH_MAX_BATCHES]; /* per row, at each batch size */
    double accuracy;                  /* NaN without labels */
    double agreement; /* share of rows with the class of OpenBLAS f32, or of oneDNN f32 where that
                         does not run; NaN without either */
} bench_result;

#define BENCH_BINS_PER_OCTAVE 8
#define BENCH_BINS            (BENCH_BINS_PER_OCTAVE * 24)

/* Single calls of one row each. Bin i counts times from 2^(i / BENCH_BINS_PER_OCTAVE + 3) ns. */
typedef struct bench_latency {
    int contender; /* BENCH_PROGRAM or BENCH_ONEDNN_INT8 */
    int cold;      /* caches were swept before every call */
    size_t n;
    double p50, p99, p999, max; /* ns, the timer's own time taken off */
    size_t bins[BENCH_BINS];
} bench_latency;

/* A step of a program on images. */
typedef struct bench_step {
    char name[48];
    nimbus_step_kind kind;
    int has_peer;         /* oneDNN int8 has primitives for this layer */
    size_t multiply_adds; /* of that layer, if it is a product: per row */
    size_t with; /* the step in whose layer's primitives oneDNN does this one's work; itself, if
                    there is none */
    bench_time ns[BENCH_MAX_BATCHES], peer_ns[BENCH_MAX_BATCHES]; /* per row */
} bench_step;

typedef struct bench_steps {
    size_t n; /* 0: not measured */
    bench_step list[BENCH_MAX_STEPS];
    /* sums over lookup steps and those that go with them, by batch: medians */
    double lookup_ns[BENCH_MAX_BATCHES], lookup_peer_ns[BENCH_MAX_BATCHES];
} bench_steps;

typedef struct bench_shape {
    size_t n, d, m, v;
    unsigned bits; /* of a table entry */
} bench_shape;

typedef struct bench_layer_result {
    bench_shape shape;
    char isa[32];
    double clock_ghz;
    size_t n_codebooks;
    bench_time ours, encode, lookup; /* ns per row: both, and each alone */
    bench_time onednn_int8, onednn_f32, openblas_f32;
    char int8_how[32], f32_how[32], openblas_how[32];
    double lookups_per_cycle, codes_per_cycle; /* of each alone */
} bench_layer_result;

/* Table entries added per cycle, codes given, sums to i32 and to i8. */
typedef struct bench_peak {
    bench_shape shape;
    char isa[32];
    double clock_ghz;
    size_t n_codebooks;
    double to_i32, to_i8;
} bench_peak;

typedef struct bench_sweep {
    size_t n_points, batch[BENCH_MAX_SWEEP];
    bench_time ns[BENCH_MAX_SWEEP];
    double rise; /* largest ns[j] / ns[i] - 1 over all batch[i] < batch[j]; 0 if it never rises */
    size_t rise_from, rise_to;
} bench_sweep;

typedef struct bench_ort {
    char version[64];
    double overhead_ns[BENCH_MAX_BATCHES]; /* of a call from JavaScript; taken off every time */
} bench_ort;

typedef struct bench_report {
    char cpu[128], isa[32], isa_limit[32];
    double clock_ghz;
    size_t n_rows, rounds; /* n_rows: 0 if they are made up */
    size_t n_walk;         /* rows that timed calls walked through */
    char program[128];     /* file name, without folders; "" without a program */
    size_t n_batches, batches[BENCH_MAX_BATCHES];
    bench_result results[BENCH_CONTENDERS];
    size_t n_latencies;
    bench_latency latencies[4];
    double timer_ns; /* taken off each latency */
    size_t cold_bytes;
    size_t n_layers;
    bench_layer_result layers[BENCH_MAX_SHAPES];
    int has_peak;
    bench_peak peak;
    bench_sweep sweep; /* n_points 0: not asked for */
    bench_steps steps;
    bench_ort ort;
} bench_report;

typedef struct bench_settings {
    size_t rounds;
    size_t n_batches, batches[BENCH_MAX_BATCHES]; /* ascending */
    int latency, sweep, peak;
    const char *ort;  /* folder of run.js and its node_modules; NULL: no ONNX Runtime */
    const char *onnx; /* folder that gets f32.onnx and int8.onnx; NULL: none */
    size_t n_shapes;
    bench_shape shapes[BENCH_MAX_SHAPES];
    const char *isa_limit;                              /* NULL: none */
    void (*begins)(const void *user, const char *part); /* of the work; NULL: nobody listens */
    const void *user;
} bench_settings;

typedef struct bench_models {
    const char *name;              /* of the program's file */
    const nimbus_program *program; /* NULL: only layers and peak are measured */
    const nimbus_net *float_net;   /* NULL: no peers */
    const nimbus_data *data;       /* NULL: rows are made up */
    const nimbus_data *calibration;
} bench_models;

/* contenders.c: everything that the settings ask for. With an ISA limit the program must have been
 * opened after nimbus_set_max_isa, and oneDNN be limited before. Errors: MISMATCH, MEMORY,
 * UNSUPPORTED only for the measurement as a whole. */
nimbus_status bench_measure(const bench_settings *settings, const bench_models *models,
                            bench_report *out, nimbus_error *error) NIMBUS_MUST_CHECK;
/* ns per row of a contender at a batch size; NULL if that was not measured. */
const bench_time *bench_time_at(const bench_report *report, int contender, size_t batch);
/* Contender with the least median at batch index i among those whose name ends in `suffix`
 * ("int8"); -1 if none ran. */
int bench_best_peer(const bench_report *report, size_t i, const char *suffix);

/* One row at a time through a contender, with what runs it. */
typedef struct bench_runner {
    int contender;
    bench_run_fn run;
    void *state;
} bench_runner;

/* latency.c */
nimbus_status bench_measure_latency(const bench_runner *runners, size_t n_runners,
                                    const bench_rows *rows, size_t n_outputs, bench_report *report,
                                    nimbus_error *error) NIMBUS_MUST_CHECK;
double bench_bin_start(size_t bin); /* ns */

/* sweep.c: batch sizes 1..32 and steps up to BENCH_SWEEP_LARGEST through the program. */
#define BENCH_SWEEP_LARGEST 1024
nimbus_status bench_measure_sweep(const bench_runner *program, const bench_rows *rows,
                                  size_t n_outputs, bench_report *report,
                                  nimbus_error *error) NIMBUS_MUST_CHECK;

/* steps.c: where the time of a program on images goes, beside oneDNN int8. peers: at each batch
 * size; NULL: there is no such peer. scratch: for the largest batch. */
nimbus_status bench_measure_steps(const nimbus_program *program, void *scratch,
                                  bench_peer *const *peers, const bench_net *net,
                                  const bench_rows *rows, void *outputs, bench_report *report,
                                  nimbus_error *error) NIMBUS_MUST_CHECK;

/* layer.c: single random layers. Outputs are checked before anything is timed. Errors: STATE (a
 * contender computed something else), ARGUMENT, MEMORY, UNSUPPORTED. */
nimbus_status bench_measure_layer(const bench_shape *shape, size_t rounds, bench_layer_result *out,
                                  nimbus_error *error) NIMBUS_MUST_CHECK;
nimbus_status bench_measure_peak(size_t rounds, bench_peak *out,
                                 nimbus_error *error) NIMBUS_MUST_CHECK;

/* report_json.c: NULL: out of memory. */
json_t *bench_json(const bench_report *report);

#endif
