/* nimbus_build.h - everything that makes a program: data, nets, training, conversion, compiling.
 *
 * One section per stage, in the order of the data flow:
 *
 *     data --> train --> convert --> compile --> run (nimbus.h)
 *              import ------^
 *
 * Objects are opaque and owned by the caller who received them; each has one free function that
 * accepts NULL. Options are structs that begin with their size: set them up with the INIT macro,
 * then change what you need; a field left at zero means its documented default. Functions that can
 * fail return a nimbus_status, set *out to NULL on failure and fill *error (which may be NULL).
 * The library never prints, exits or keeps globals - with one exception it cannot avoid: training
 * and conversion set OpenBLAS to one thread and thread by themselves. */
#ifndef NIMBUS_BUILD_H
#define NIMBUS_BUILD_H

#include "nimbus.h"

#ifdef __cplusplus
extern "C" {
#endif

/* ======================================================================= progress and cancel */

/* Told by every long operation, at most some ten times a second. Returning non-zero asks it to
 * stop: it writes its checkpoint, if it has one, and returns NIMBUS_ERR_CANCELLED. */
typedef struct nimbus_progress {
    const char *stage;      /* "train", "convert: layer linear2", "fine-tune", ... */
    double done, total;     /* units of work, of this stage */
    double seconds;         /* since this operation began (since its resumption, if resumed) */
    double seconds_left;    /* estimate for the whole operation, < 0 if not known yet */
    size_t epoch, n_epochs; /* epoch: 1-based, 0 outside training */
    double loss;            /* running mean of the epoch, NaN if there is none */
    double train_accuracy;  /* running, 0..1; NaN if there is none */
    double valid_accuracy;  /* after the last finished epoch, of nets with lookup layers also
                               before the first; NaN if there is none */
} nimbus_progress;

typedef int (*nimbus_progress_fn)(void *user, const nimbus_progress *progress);

/* ====================================================================================== data */

/* A data set: N rows of D features of one dtype, and a class label or target values per row. */
typedef struct nimbus_data nimbus_data;

typedef enum nimbus_split {
    NIMBUS_SPLIT_ALL = 0, /* every row of the source that is opened; of a known set, all its
                             training rows */
    NIMBUS_SPLIT_TRAIN,   /* training rows without the validation rows */
    NIMBUS_SPLIT_VALID,   /* rows held out from the training rows */
    NIMBUS_SPLIT_TEST
} nimbus_split;

typedef struct nimbus_data_options {
    size_t size;
    const char *data_dir;  /* where known data sets lie; NULL: $NIMBUS_DATA, else "data" */
    double valid_fraction; /* of the training rows, chosen by seed; 0: none are held out */
    double test_fraction;  /* for sources without test rows of their own; 0: 0.2, negative: none */
    uint64_t seed;         /* of the splits and of the `digits` generator */
    size_t n_rows;         /* digits: rows drawn for training, held-out ones among them, and for
                              the test (0: 20,000 and 4,000);
                              others: keep only the first n_rows rows of the split (0: all) */
    const char *label;     /* CSV: name or number (1-based; negative counts from the end) of the
                              label column; NULL: the column called "label", "class" or "target",
                              else the last. "none": there is no label column */
    int regression;        /* CSV: the label column is a number to predict, not a class */
    const char *schema;    /* JSON from nimbus_data_schema of the training data: CSV columns are
                              read as they were there (same categories, same classes) */
} nimbus_data_options;
#define NIMBUS_DATA_OPTIONS_INIT                                                                   \
    {                                                                                              \
        .size = sizeof(nimbus_data_options)                                                        \
    }

typedef struct nimbus_data_info {
    size_t n_rows, n_features; /* N, D */
    nimbus_dtype dtype;
    size_t channels, height, width; /* of an image row (planar); n_features, 1, 1 for vectors */
    size_t n_classes;               /* 0: regression or no labels */
    size_t n_targets;               /* values per row of a regression target, else 0 */
} nimbus_data_info;

/* Opens a data set. `spec` is
 *   - a known name: "digits" (built in, drawn by a generator), "mnist", "fashion-mnist",
 *     "cifar-10", "nsl-kdd", looked up below data_dir/<name>/;
 *   - a folder holding one of those in its official file names;
 *   - "images,labels": a pair of IDX files or of .npy files, .gz allowed;
 *   - a CIFAR-10 batch (.bin, .bin.xz) or the official .tar.gz;
 *   - a .csv/.txt/.tsv (.gz) table;  - a .npy file (features only, no labels).
 * Errors: IO (missing file; the message says the command that downloads a known set), FORMAT,
 * TRUNCATED, CHECKSUM (tar), VERSION and UNSUPPORTED (npy), VALUE (label out of range, NaN, text
 * where a number belongs - with row and column), MISMATCH (does not fit options.schema), LIMIT,
 * MEMORY, ARGUMENT. */
NIMBUS_API NIMBUS_MUST_CHECK nimbus_status nimbus_data_open(const char *spec, nimbus_split split,
                                                            const nimbus_data_options *options,
                                                            nimbus_data **out, nimbus_error *error);

/* Reads one uncompressed table or array from memory: format "csv", "npy", "idx", "cifar".
 * Labels come from the table itself (csv, cifar); npy and idx give features only. */
NIMBUS_API NIMBUS_MUST_CHECK nimbus_status nimbus_data_parse(const void *bytes, size_t n_bytes,
                                                             const char *format,
                                                             const nimbus_data_options *options,
                                                             nimbus_data **out,
                                                             nimbus_error *error);

/* Copies caller's arrays: features [N][D] of dtype, labels [N] in 0..n_classes-1 (or NULL),
 * targets [N][n_targets] (or NULL). Errors: VALUE (label out of range, NaN), MEMORY, ARGUMENT. */
NIMBUS_API NIMBUS_MUST_CHECK nimbus_status
nimbus_data_from_arrays(const nimbus_data_info *info, const void *features, const int32_t *labels,
                        const float *targets, nimbus_data **out, nimbus_error *error);

NIMBUS_API void nimbus_data_free(nimbus_data *data);
NIMBUS_API const nimbus_data_info *nimbus_data_get_info(const nimbus_data *data);
NIMBUS_API const void *nimbus_data_features(const nimbus_data *data);  /* [N][D] of dtype */
NIMBUS_API const int32_t *nimbus_data_labels(const nimbus_data *data); /* [N] or NULL */
NIMBUS_API const float *nimbus_data_targets(const nimbus_data *data);  /* [N][n_targets] or NULL */
NIMBUS_API const char *nimbus_data_class_name(const nimbus_data *data, size_t label); /* or NULL */

/* Cells of a table that had no value of their own: numbers missing and filled in by the mean, and
 * categories that no training row had, which make all features of their column zero. */
NIMBUS_API void nimbus_data_gaps(const nimbus_data *data, size_t *n_filled, size_t *n_unknown);

/* JSON text that describes the columns: kind, names, categories, classes. Owned by the data. */
NIMBUS_API const char *nimbus_data_schema(const nimbus_data *data);

/* Mean and 1 / standard deviation of every column over the rows, [D] each: per column for tables,
 * the same for all pixels of a channel for images. Constant columns get 1. */
NIMBUS_API void nimbus_data_normalisation(const nimbus_data *data, float *mean, float *inverse_std);

/* A known data set: where it is looked up, whether it is there, how to get it. */
typedef struct nimbus_data_source {
    const char *name, *description;
    char folder[512];
    int present;
    const char *download; /* shell command, into the default folder; "" for the built-in one */
} nimbus_data_source;
NIMBUS_API size_t nimbus_data_source_count(void);
NIMBUS_API NIMBUS_MUST_CHECK nimbus_status nimbus_data_get_source(size_t i, const char *data_dir,
                                                                  nimbus_data_source *out,
                                                                  nimbus_error *error);

/* ======================================================================================= net */

/* A graph of layers with its parameters, in 32-bit floats. */
typedef struct nimbus_net nimbus_net;

typedef enum nimbus_loss {
    NIMBUS_LOSS_CROSS_ENTROPY = 0, /* softmax cross-entropy over class logits */
    NIMBUS_LOSS_SQUARED_ERROR      /* mean squared error of the outputs */
} nimbus_loss;

/* States of a linear layer on its way to a lookup layer. Allowed transitions:
 * DENSE <-> LOCKED, DENSE/LOCKED <-> RECORD, DENSE/LOCKED/RECORD -> SOFT or LOOKUP (with trees),
 * SOFT <-> LOOKUP, SOFT/LOOKUP -> DENSE/LOCKED (with weights), SOFT/LOOKUP -> INTEGER (compiled).
 */
typedef enum nimbus_layer_state {
    NIMBUS_STATE_DENSE = 0, /* matrix product; weights are trained */
    NIMBUS_STATE_LOCKED,    /* matrix product; passes gradients, nothing is trained */
    NIMBUS_STATE_RECORD,    /* matrix product; keeps its inputs */
    NIMBUS_STATE_SOFT,      /* hard tree walk forward, differentiable backward; trained */
    NIMBUS_STATE_LOOKUP,    /* tree walk and table sum; nothing is trained */
    NIMBUS_STATE_INTEGER    /* integer thresholds and tables; exists in programs only */
} nimbus_layer_state;

/* How the comparisons of one tree are tied together. */
typedef enum nimbus_tree_kind {
    NIMBUS_TREE_SHARED = 0, /* one column per level, a threshold per node */
    NIMBUS_TREE_PER_NODE,   /* a column and a threshold per node */
    NIMBUS_TREE_FERN,       /* one column and one threshold per level */
    NIMBUS_CENTROIDS        /* no tree: the nearest of K centroids, only as LUT-NN's method */
} nimbus_tree_kind;

/* Backward of the differentiable form. Forward is always the hard walk. */
typedef enum nimbus_estimator {
    NIMBUS_ESTIMATOR_FLIP = 0, /* difference between the two leaves a node on the path decides */
    NIMBUS_ESTIMATOR_SIGMOID,  /* leaf probability = product of sigmoids along the path */
    NIMBUS_ESTIMATOR_SOFTMAX   /* softmax over tree scores, as in Stella Nera (2023) */
} nimbus_estimator;

typedef struct nimbus_net_options {
    size_t size;
    /* What to build between the data's width and its number of classes:
     *   "mlp:512,512"              hidden layers, ReLU between; also "784-512-512-10"
     *   "mlp:512,512;bn;gelu;dropout=0.1"   batch norm, activation relu|gelu|tanh|sigmoid
     *   "mlp:64,64,64;residual"    what goes into every two hidden layers, from the second on,
     *                              is added to what comes out, before the activation
     *   "lut:392x16,256x10"        lookup layers from the start: trees x outputs
     *   "lut:392x16,256x10;levels=4;window=7"    levels per tree, side of the pixel window
     *   "lut:98x16,64x10;span=392"   images: the first layer reads only as many adjoining pixels,
     *                              those that vary most (channels lie one after the other), so
     *                              that less memory is gone through
     *   "resnet8"                  images: 16 channels, residual blocks of 16, 32 and 64, the mean
     *                              of every channel (MLPerf Tiny's); 2 x 2 pixels and more
     *   "resnet9"                  images: 64, 128, 128 + 128 residual, 256, 256, 256 + 256
     *                              residual, the maximum of every channel; 8 x 8 pixels and more
     *   "resnet9;width=32"         the same, 32 channels in the first convolution and all others in
     *                              proportion; also resnet8
     * Batch norm follows every convolution of the residual nets. */
    const char *spec;
    uint64_t seed;
} nimbus_net_options;
#define NIMBUS_NET_OPTIONS_INIT                                                                    \
    {                                                                                              \
        .size = sizeof(nimbus_net_options)                                                         \
    }

/* Builds a net for this data: widths, normalisation and schema are taken from it.
 * Errors: ARGUMENT (spec; the message points at the character), MISMATCH, MEMORY. */
NIMBUS_API NIMBUS_MUST_CHECK nimbus_status nimbus_net_build(const nimbus_net_options *options,
                                                            const nimbus_data *data,
                                                            nimbus_net **out, nimbus_error *error);

/* .net files are safetensors; the graph stands in their metadata. Errors of load: IO, FORMAT,
 * TRUNCATED, CHECKSUM, VERSION, UNSUPPORTED, VALUE (NaN), LIMIT, MEMORY; of save: IO, MEMORY. */
NIMBUS_API NIMBUS_MUST_CHECK nimbus_status nimbus_net_load(const char *path, nimbus_net **out,
                                                           nimbus_error *error);
NIMBUS_API NIMBUS_MUST_CHECK nimbus_status nimbus_net_save(const nimbus_net *net, const char *path,
                                                           nimbus_error *error);
NIMBUS_API void nimbus_net_free(nimbus_net *net);

typedef struct nimbus_net_info {
    size_t n_layers, n_inputs, n_outputs, n_params;
    nimbus_dtype input_dtype;
    nimbus_loss loss;
    const char *metadata; /* JSON with the data's schema; owned by the net */
} nimbus_net_info;

typedef struct nimbus_layer_info {
    const char *name, *type;
    nimbus_layer_state state;
    size_t n_inputs, n_outputs, n_params;
    /* layers with trees and tables, else 0 */
    size_t n_codebooks, n_levels, live_columns; /* distinct input columns read by the trees */
    nimbus_tree_kind tree;
    unsigned bits;
    /* where it stands in the graph: the layers it reads, earlier ones; owned by the net */
    size_t n_sources;
    const size_t *sources;
    size_t channels, height, width; /* of its outputs; vectors are 1 x 1 images */
    /* how a convolution or pool slides, else 0: index 0 vertical, 1 horizontal */
    size_t kernel[2], stride[2], dilation[2];
    size_t pad_before[2], pad_after[2];
    size_t groups;     /* of a convolution, else 0 */
    int count_padding; /* average pool: zeros of the padding count as elements */
    double number[2];  /* batch norm: epsilon; clip: least and greatest value; others as in the
                          graph of a .net file */
} nimbus_layer_info;

NIMBUS_API void nimbus_net_get_info(const nimbus_net *net, nimbus_net_info *out);
NIMBUS_API NIMBUS_MUST_CHECK nimbus_status nimbus_net_get_layer(const nimbus_net *net, size_t i,
                                                                nimbus_layer_info *out,
                                                                nimbus_error *error);
/* A parameter of layer i by name ("weight": [M][D], "bias": [M], "mean", "variance", "scale",
 * "shift", "columns", "thresholds", "tables", ...). Owned by the net. Error: ARGUMENT. */
NIMBUS_API NIMBUS_MUST_CHECK nimbus_status nimbus_net_get_param(const nimbus_net *net, size_t i,
                                                                const char *name,
                                                                const float **values, size_t *n,
                                                                nimbus_error *error);

/* Moves layer i to a state; checks that the transition is allowed. Error: STATE (names both). */
NIMBUS_API NIMBUS_MUST_CHECK nimbus_status nimbus_net_set_state(nimbus_net *net, size_t i,
                                                                nimbus_layer_state state,
                                                                nimbus_error *error);
NIMBUS_API const char *nimbus_layer_state_name(nimbus_layer_state state);

/* Outputs [N][n_outputs] (logits) of raw rows, row-major without gaps. n_threads 0: all cores.
 * Errors: MISMATCH, MEMORY. */
NIMBUS_API NIMBUS_MUST_CHECK nimbus_status nimbus_net_predict(const nimbus_net *net,
                                                              const nimbus_data *data,
                                                              unsigned n_threads, float *outputs,
                                                              nimbus_error *error);

/* ===================================================================================== train */

typedef enum nimbus_optimiser { NIMBUS_ADAMW = 0, NIMBUS_SGD } nimbus_optimiser;
typedef enum nimbus_schedule {
    NIMBUS_COSINE = 0,
    NIMBUS_ONE_CYCLE,
    NIMBUS_CONSTANT
} nimbus_schedule;

typedef struct nimbus_train_options {
    size_t size;
    size_t epochs; /* 0: 12 */
    size_t batch;  /* rows per step, 0: 256 */
    nimbus_optimiser optimiser;
    nimbus_schedule schedule;
    double rate;         /* peak learning rate, 0: 2e-3 AdamW, 0.05 SGD */
    double table_rate;   /* of tables and thresholds in SOFT layers, 0: same as rate */
    double warmup_steps; /* linear rise before the schedule, 0: none; one-cycle: 30 % */
    double beta1, beta2; /* AdamW, 0: 0.9, 0.999 */
    double momentum;     /* SGD, 0: 0.9; -1: none */
    double weight_decay; /* decoupled; of weights and tables, not of biases and norms */
    double label_smoothing;
    double mixup;                 /* Beta(a, a) mixing of row pairs, 0: off */
    double noise;                 /* standard deviation added to normalised inputs */
    unsigned shift;               /* images are moved by up to this many pixels each way */
    int flip;                     /* images are mirrored left-right at random */
    const nimbus_net *teacher;    /* distillation target, same inputs and outputs; may be NULL */
    const float *teacher_outputs; /* instead of teacher: [N][n_outputs] logits of the data rows
                                     (not with shift, flip, noise or mixup); borrowed */
    double distill;           /* weight of the teacher's part of the loss; 0 with a teacher: 0.5;
                                 -1: none */
    double temperature;       /* of distillation, 0: 2 */
    double hint;              /* weight of hints (Romero et al. 2015), which need a teacher: what is
                                 minimised has hint * sum of |y - t|^2 / |t|^2 too, squares taken
                                 over a batch, over all layers but the input that SOFT layers read
                                 and the teacher has by the same name and width; t is what it gives
                                 there. Losses that are reported leave this out. 0: none; when
                                 converting a net without convolutions 0.1 for up to 4 layers,
                                 0.3 from 24 on, and -1 none */
    double tau, tau_end;      /* temperature of SOFT margins, annealed; 0: 0.5, tau */
    double margin_noise;      /* noise on SOFT margins, annealed to 0, in standard deviations. 0:
                                 none; when converting a net without convolutions 0.15 for up to
                                 4 layers, and -1 none */
    double code_noise;        /* part, at most 0.9, of the codes of SOFT trees that are drawn at
                                 random instead of walked to, in layers of 32 codebooks and more,
                                 akin to dropout (Srivastava et al. 2014): tables learn of them,
                                 thresholds do not. 0: none; when converting a net without
                                 convolutions, with shift 0, 0.02 for up to 4 layers, and -1
                                 none */
    size_t first_layer;       /* rows are the outputs of layer first_layer - 1 (0: net inputs) */
    const nimbus_data *valid; /* evaluated after every epoch, of nets with lookup layers also
                                 before the first; may be NULL */
    uint64_t seed;
    unsigned n_threads;        /* 0: all cores; results do not depend on it */
    const char *checkpoint;    /* file written every checkpoint_seconds and at the end of every
                                  epoch; NULL: none. If it exists and fits these options, training
                                  goes on from it and ends with the same bits. At the end it holds
                                  the finished net: remove it once the net is saved */
    double checkpoint_seconds; /* 0: 30 */
    nimbus_progress_fn progress;
    void *progress_user;
} nimbus_train_options;
#define NIMBUS_TRAIN_OPTIONS_INIT                                                                  \
    {                                                                                              \
        .size = sizeof(nimbus_train_options)                                                       \
    }

typedef struct nimbus_train_report {
    size_t epochs, steps;
    double loss, train_accuracy; /* running means over the last epoch; accuracy NaN if none */
    double valid_accuracy;       /* NaN without validation rows */
    double seconds;              /* including earlier runs of a resumed training */
    int resumed;
} nimbus_train_report;

/* Trains the net in place. On failure or cancel the net holds the last completed step's values,
 * but after a divergence those of the step that went wrong. report may be NULL. Errors: MISMATCH
 * (net and data), VALUE (NaN in data, teacher or net; loss or weights diverged: layer named), IO
 * and others of the checkpoint, CANCELLED, LIMIT, MEMORY, ARGUMENT. */
NIMBUS_API NIMBUS_MUST_CHECK nimbus_status nimbus_train(nimbus_net *net, const nimbus_data *data,
                                                        const nimbus_train_options *options,
                                                        nimbus_train_report *report,
                                                        nimbus_error *error);

typedef struct nimbus_evaluation {
    size_t n_rows, n_correct; /* n_correct: 0 for regression */
    double accuracy;          /* NaN for regression */
    double loss;              /* of the net's own kind, mean over rows */
} nimbus_evaluation;

NIMBUS_API NIMBUS_MUST_CHECK nimbus_status nimbus_evaluate(const nimbus_net *net,
                                                           const nimbus_data *data,
                                                           unsigned n_threads,
                                                           nimbus_evaluation *out,
                                                           nimbus_error *error);

/* ==================================================================================== import */

typedef struct nimbus_import_options {
    size_t size;
    int keep_softmax;         /* of a classifier's outputs; else it is left out: logits rank the
                                 same, and training and compiling want them */
    nimbus_dtype input_dtype; /* of the rows: NIMBUS_U8 for raw pixels; 0: as the model says */
    /* What the model expects in place of raw values: (x - input_mean) / input_std, n_input_channels
     * of each, 1 or as many as the input has channels; NULL: 0 and 1. */
    const float *input_mean, *input_std;
    size_t n_input_channels;
} nimbus_import_options;
#define NIMBUS_IMPORT_OPTIONS_INIT                                                                 \
    {                                                                                              \
        .size = sizeof(nimbus_import_options)                                                      \
    }

typedef struct nimbus_import_layer {
    char name[48], type[24];
    char node[96]; /* the model's node that it was made of: "name (Operator)", printable ASCII */
    size_t channels, height, width; /* of its outputs */
    size_t n_params, multiply_adds; /* trained parameters; multiply-adds per row */
} nimbus_import_layer;

/* What was understood of a model. Freed with nimbus_import_report_free. */
typedef struct nimbus_import_report {
    size_t n_layers;
    nimbus_import_layer *layers; /* those of the net, in its order */
    size_t n_notes;
    char (*notes)[200]; /* what the net does not do as the model says, a line each */
    char producer[64];  /* program that wrote the model, "" if it does not say */
    int opset;          /* version of ONNX's operators */
    size_t n_nodes;     /* of the model that the net does the work of */
    size_t n_params, multiply_adds;
} nimbus_import_report;

/* Makes a float net of an ONNX model with one input and one output, whose first dimension are the
 * rows. Every operator does what ONNX says (opset 9 to 20), or is refused by name. Images are
 * planar, channels x height x width; a model that transposes its input to that is given it so.
 * Weights may lie in files below the model's folder; no symbolic link there is followed. Dropout
 * and nodes that the output does not need fall away. options and report may be NULL.
 * Errors: IO, FORMAT (no ONNX; names, order, types), TRUNCATED, VERSION (newer opset),
 * UNSUPPORTED (operator, attribute or dimensions, by node), MISMATCH (things that do not fit each
 * other), VALUE (NaN, negative variances, ...), LIMIT, ARGUMENT (means for other channels), MEMORY.
 */
NIMBUS_API NIMBUS_MUST_CHECK nimbus_status nimbus_import_onnx(const char *path,
                                                              const nimbus_import_options *options,
                                                              nimbus_net **out,
                                                              nimbus_import_report *report,
                                                              nimbus_error *error);
/* The same from memory; all weights must be inside. */
NIMBUS_API NIMBUS_MUST_CHECK nimbus_status
nimbus_import_onnx_bytes(const void *bytes, size_t n_bytes, const nimbus_import_options *options,
                         nimbus_net **out, nimbus_import_report *report, nimbus_error *error);
NIMBUS_API void nimbus_import_report_free(nimbus_import_report *report);

/* =================================================================================== convert */

typedef enum nimbus_split_method { NIMBUS_JOINED = 0, NIMBUS_PLAIN } nimbus_split_method;
typedef enum nimbus_table_method {
    NIMBUS_LEAST_SQUARES = 0, /* all codebooks together, against the float net's outputs */
    NIMBUS_MEAN               /* mean product of the rows in a leaf */
} nimbus_table_method;
/* How a net is converted: this work, and previous work to compare with; src/convert/method.c says
 * what each does and where that comes from. */
typedef enum nimbus_method {
    NIMBUS_METHOD_NIMBUS = 0,
    NIMBUS_METHOD_MADDNESS,
    NIMBUS_METHOD_STELLA_NERA,
    NIMBUS_METHOD_LUT_NN,
    NIMBUS_METHOD_DENSE_START, /* trees in all layers at once, from the float net */
    NIMBUS_METHOD_RANDOM_START,
    NIMBUS_METHOD_SEED
} nimbus_method;

/* Which columns of its group the nodes of a converted layer's tree compare. */
typedef enum nimbus_tree_choice {
    /* PER_NODE in the first layer, where columns cost nothing by being read; FEW behind it, SHARED
     * with more than 4 levels. SHARED in all layers of nets with convolutions, with SPEED, and of
     * other methods */
    NIMBUS_CHOICE_AUTO = 0,
    NIMBUS_CHOICE_SHARED,   /* one a level */
    NIMBUS_CHOICE_PER_NODE, /* any */
    NIMBUS_CHOICE_FERN,     /* one a level, with one threshold */
    NIMBUS_CHOICE_FEW       /* any of those that SHARED would compare, so that the layer before
                               computes no more for them */
} nimbus_tree_choice;

typedef enum nimbus_preset {
    NIMBUS_BALANCED = 0, /* V = 8 */
    NIMBUS_SPEED,        /* V = 16, tables of 7 bits */
    NIMBUS_ACCURACY      /* V = 4 */
} nimbus_preset;

typedef struct nimbus_convert_options {
    size_t size;
    /* Of other methods than NIMBUS: splits, tables, estimator, fit and training are the method's,
     * but for the epochs. */
    nimbus_method method;
    nimbus_preset preset; /* gives V where v is 0 (less for narrow layers), and the epochs */
    size_t v;             /* columns per codebook; of a first layer that is linear on average: fewer
                             where the outputs depend on them most */
    size_t levels;        /* H, 1..8; 0: 4 (K = 16) */
    size_t trees;         /* per group of V columns, each learned on what those before it leave;
                             0: by preset for convolutions (1 SPEED, else 2), else 1 */
    unsigned bits;        /* table entries, 2..8; 0: 8, or 7 with SPEED; 32: float tables */
    nimbus_tree_choice tree;
    nimbus_split_method split_method;
    nimbus_table_method table_method;
    nimbus_estimator estimator;
    /* Per layer, "NAME:key=value,...;..." with keys v, levels, trees, bits, tree
     * (auto|shared|node|fern|few), columns (block|patch|window|balanced|runs); "NAME:exact" leaves
     * the layer a product. A convolution's columns are those of its patch,
     * [channel][row][column]: unless V is given every input channel has a codebook. In nets with
     * convolutions the last product, and those of less than 64 values a patch, are exact unless
     * they have settings of their own. e.g. "linear1:v=16,columns=window;linear3:exact". NULL:
     * none. */
    const char *layers;
    size_t fit_rows; /* rows that trees and tables are fitted on, 0: 30,000, fewer for large
                        images; of a convolution 200,000 positions of theirs at most */
    double lambda;   /* ridge, in rows per leaf; 0: chosen on held-out rows */
    /* What converted layers may change the net's outputs by, all together: squared error as a share
     * of the outputs' variance, measured for one layer at a time on rows of `valid` (else of the
     * data) before any training. Convolutions get as many trees as that takes, unless `trees` says
     * how many, and layers stay exact, always where that lowers the change most for the time it
     * costs; layers with settings in `layers` are left as they are. 0: no limit, but 0.1 with
     * ACCURACY for nets with convolutions; < 0: no limit */
    double most_change;
    double layer_epochs; /* training of each layer after its fit, parts on fewer rows, where all
                            behind it passes through the one in front of it; not of convolutions
                            behind a ReLU; 0: none (of other methods: as published) */
    size_t epochs;       /* global fine-tuning, 0: by preset and rows; SIZE_MAX: none */
    double budget;       /* > 0: rows seen by all trainings together, in epochs of the data; shared
                            between layers and the last training as published, NIMBUS: all that
                            layer_epochs leaves goes to the last one */
    /* Of both trainings; zero fields mean the conversion's own defaults. Its teacher, epochs, first
     * layer, seed, threads, validation rows, checkpoint and progress are set by the conversion. */
    nimbus_train_options train;
    const char *checkpoint; /* file: resumable at any layer and step (a training keeps
                               its own, PATH.tune, meanwhile); NULL: none. As with training,
                               remove it once the net is saved */
    uint64_t seed;
    unsigned n_threads;
    const nimbus_data *valid;
    nimbus_progress_fn progress;
    void *progress_user;
} nimbus_convert_options;
#define NIMBUS_CONVERT_OPTIONS_INIT                                                                \
    {                                                                                              \
        .size = sizeof(nimbus_convert_options), .train = {.size = sizeof(nimbus_train_options) }   \
    }

/* Reports list so many layers at most; their n_layers may be larger. */
#define NIMBUS_REPORT_LAYERS 64

typedef struct nimbus_convert_layer_report {
    char name[48];
    size_t n_codebooks, n_levels;
    double error_fit; /* normalised squared error against the float layer right after the fit; NaN
                         if an earlier run fitted it */
    double seconds;
} nimbus_convert_layer_report;

#define NIMBUS_TREES_TRIED 4

/* What a layer costs and brings when it alone is converted, as nimbus_convert_options.most_change
 * has it. change[k] is with first_trees + k trees a group: 1 to NIMBUS_TREES_TRIED for
 * convolutions, for others and where the number is given only that. */
typedef struct nimbus_sensitivity {
    char name[48];
    size_t first_trees, n_changes;
    double change[NIMBUS_TREES_TRIED];
    size_t multiply_adds, lookups; /* of a row: as a product; with one tree a group */
    size_t trees;                  /* chosen, or as planned if nothing was; 0: stays a product */
} nimbus_sensitivity;

typedef struct nimbus_convert_report {
    size_t n_sensitivities; /* 0: nothing was chosen by them */
    nimbus_sensitivity sensitivities[NIMBUS_REPORT_LAYERS];
    size_t n_layers; /* converted layers, including those of a resumed conversion */
    nimbus_convert_layer_report layers[NIMBUS_REPORT_LAYERS];
    double seconds, fit_seconds, tune_seconds;
    double rows_seen; /* by all trainings, but for what earlier runs trained of layers */
    nimbus_train_report tune;
} nimbus_convert_report;

/* Replaces the linear layers and convolutions of a copy of `teacher` by lookup layers, fitted and
 * fine-tuned on data. The result's layers are in state LOOKUP (or DENSE where exact). Fine-tuning
 * trains all parameters: also those of exact layers, and of layers that were lookup layers before,
 * whose trees are kept. report may be NULL. Errors: ARGUMENT (V larger than a layer, K larger than
 * the rows, bad layer string), MISMATCH, CANCELLED, IO of the checkpoint, MEMORY. */
NIMBUS_API NIMBUS_MUST_CHECK nimbus_status nimbus_convert(
    const nimbus_net *teacher, const nimbus_data *data, const nimbus_convert_options *options,
    nimbus_net **out, nimbus_convert_report *report, nimbus_error *error);

/* Only measures what each layer would cost and bring, into report->sensitivities. Errors: those of
 * nimbus_convert. */
NIMBUS_API NIMBUS_MUST_CHECK nimbus_status nimbus_convert_sensitivity(
    const nimbus_net *teacher, const nimbus_data *data, const nimbus_convert_options *options,
    nimbus_convert_report *report, nimbus_error *error);

/* =================================================================================== compile */

typedef struct nimbus_compile_options {
    size_t size;
    /* Needed for exact layers, for ranges of their inputs and fits; and for all nets on images. */
    const nimbus_data *calibration;
    unsigned n_threads;
    /* Lookup layers to compile as exact int8 products: names with commas between, "*" for all;
     * NULL: none. Their weights are the float net's, or those that conversion left in the net.
     * Among lookup layers they are fitted to what these expect, on the calibration rows (in nets
     * on images their means alone); all together, with a float net, they are the float net in
     * int8. */
    const char *exact;
    const nimbus_net *float_net; /* the net this one was converted from; NULL: not at hand */
} nimbus_compile_options;
#define NIMBUS_COMPILE_OPTIONS_INIT                                                                \
    {                                                                                              \
        .size = sizeof(nimbus_compile_options)                                                     \
    }

/* Makes the integer program of a converted (or plain float) net: a .nimbus file's bytes, freed
 * with nimbus_compile_free. Chains of linear layers become programs on rows, all other nets
 * programs on images. Errors: UNSUPPORTED (a layer that no step can express, by name), ARGUMENT (no
 * calibration data though it is needed; an unknown name in `exact`), MISMATCH (a
 * float net or calibration data that do not fit), STATE (`exact` names a layer without weights),
 * VALUE (calibration data that nothing can be fitted to), LIMIT (sums that could overflow 32
 * bits), MEMORY. */
NIMBUS_API NIMBUS_MUST_CHECK nimbus_status nimbus_compile(const nimbus_net *net,
                                                          const nimbus_compile_options *options,
                                                          void **bytes, size_t *n_bytes,
                                                          nimbus_error *error);
NIMBUS_API void nimbus_compile_free(void *bytes);

/* The same into a file, written atomically. */
NIMBUS_API NIMBUS_MUST_CHECK nimbus_status
nimbus_compile_to_file(const nimbus_net *net, const nimbus_compile_options *options,
                       const char *path, nimbus_error *error);

typedef struct nimbus_choose_options {
    size_t size;
    size_t batch; /* rows a call of nimbus_run will have, 0: 256; at most 65,536 */
    /* CPU time for each comparison of two programs, 0: 0.1; at least 22 calls of either are timed
     */
    double seconds;
    nimbus_progress_fn progress;
    void *progress_user;
} nimbus_choose_options;
#define NIMBUS_CHOOSE_OPTIONS_INIT                                                                 \
    {                                                                                              \
        .size = sizeof(nimbus_choose_options)                                                      \
    }

typedef struct nimbus_choose_layer {
    char name[48];
    nimbus_step_kind kind; /* chosen */
    /* Of the whole program with this layer as one or the other, and those after it already
     * chosen, ns a row; NaN if it could be one only. */
    double lookup_ns, exact_ns;
} nimbus_choose_layer;

typedef struct nimbus_choose_report {
    size_t n_layers; /* steps of the program with weights or tables */
    nimbus_choose_layer layers[NIMBUS_REPORT_LAYERS];
    char exact[NIMBUS_REPORT_LAYERS * 48]; /* the choice, for nimbus_compile_options.exact */
    size_t batch;
    /* ns a row of the program with every layer a lookup, with every layer exact that can be, and
     * of the chosen one; NaN if there was no choice */
    double lookup_ns, exact_ns, chosen_ns;
} nimbus_choose_report;

/* Finds the layers to make exact for the program that is fastest on this CPU, of those in which
 * each lookup layer with weights (its own, or those of options->float_net) is a lookup or an exact
 * step. Compiles and times a program for each such layer and a few more, on calibration rows and on
 * the calling thread: pin it to a core first. The choice is never slower than all lookup or all
 * exact as far as can be measured; it depends on the machine, and on noise. Errors: those of
 * nimbus_compile; ARGUMENT (no calibration data, or options->exact is set), LIMIT (more than
 * NIMBUS_REPORT_LAYERS products), CANCELLED. */
NIMBUS_API NIMBUS_MUST_CHECK nimbus_status nimbus_compile_choose(
    const nimbus_net *net, const nimbus_compile_options *options,
    const nimbus_choose_options *choose, nimbus_choose_report *out, nimbus_error *error);

/* ==================================================================================== export */

/* Type of an element of the rows that exported C reads. */
typedef enum nimbus_export_input {
    NIMBUS_EXPORT_AS_STORED = 0, /* the program's: u8 or f32 */
    NIMBUS_EXPORT_U8,
    NIMBUS_EXPORT_I8,
    NIMBUS_EXPORT_U16,
    NIMBUS_EXPORT_I16,
    NIMBUS_EXPORT_I32, /* without the two at either end */
    NIMBUS_EXPORT_F32  /* read as bits and compared as integers */
} nimbus_export_input;

#define NIMBUS_EXPORT_CODE_BYTES 4096

typedef struct nimbus_export_options {
    size_t size;
    const char *prefix; /* of every name, a C identifier of up to 32 characters; NULL: "model" */
    /* Integers for a program that reads f32: raw units, the numbers that its rows had as floats. */
    nimbus_export_input input;
    /* Bits of a table entry, 4..8: rounded to so many. 0: 8, or what most_flash asks for. */
    unsigned table_bits;
    const unsigned char *step_bits; /* [n_steps] the same for each step, 0: 8; NULL: not given */
    /* Bytes, 0: no limit. Tables are narrowed step by step, the least harm first, until arrays and
     * code fit into most_flash. */
    size_t most_flash, most_ram;
    size_t code_bytes; /* of most_flash that the code will need; 0: NIMBUS_EXPORT_CODE_BYTES */
    /* For PREFIX.md, where a compiler was tried: its command, and what it made of the C. */
    const char *compiler;    /* NULL: none was */
    size_t stack_bytes;      /* below the call; code_bytes is then exact */
    const nimbus_data *rows; /* for the self-test; NULL: made up */
    const char *comment;     /* for the header: what inputs and scores are; NULL: none */
    size_t n_golden;         /* rows in the self-test, 0: 4; at most 64 */
} nimbus_export_options;
#define NIMBUS_EXPORT_OPTIONS_INIT                                                                 \
    {                                                                                              \
        .size = sizeof(nimbus_export_options)                                                      \
    }

/* What exported C needs and does: bytes, and operations for one row. */
typedef struct nimbus_export_report {
    size_t array_bytes; /* constant arrays, in flash; what the code needs comes on top */
    size_t ram_bytes;   /* static buffers */
    size_t lookups, additions, comparisons, multiply_adds; /* the last in exact steps alone */
    /* Thresholds of the first step that no value of the input type can pass, or fail: many of them
     * say that rows are not of that type. */
    size_t idle_thresholds, n_thresholds;
    size_t n_steps;
    unsigned char table_bits[NIMBUS_REPORT_LAYERS]; /* by step, 0: no tables */
    /* What entries were rounded to, which may need fewer; as options.step_bits has it. */
    unsigned char rounded_bits[NIMBUS_REPORT_LAYERS];
} nimbus_export_report;

typedef struct nimbus_export_file {
    char name[48];
    unsigned char *bytes; /* n_bytes of them, and a NUL */
    size_t n_bytes;
} nimbus_export_file;

/* PREFIX.c and PREFIX.h, which need nothing but a C99 compiler; PREFIX_test.c, the self-test;
 * PREFIX.mk, a part of a makefile; PREFIX.md, what it costs; and PREFIX.nimbus, the program that
 * the C computes to the last bit, with the tables that it has. */
typedef struct nimbus_export {
    nimbus_export_report report;
    nimbus_export_file files[6];
} nimbus_export;

/* Turns a program, the n_bytes of a .nimbus file, into stand-alone C: no library, no allocation, no
 * recursion, no floating point, static buffers; lookup layers without a product. *out is freed with
 * nimbus_export_free. Errors: those of nimbus_load; ARGUMENT (options), UNSUPPORTED (a step that
 * cannot be done in integers, by its name), LIMIT (it does not fit; the message says what would),
 * MISMATCH and VALUE (rows that are not of the program, or not of the input type), MEMORY. */
NIMBUS_API NIMBUS_MUST_CHECK nimbus_status nimbus_export_c(const void *bytes, size_t n_bytes,
                                                           const nimbus_export_options *options,
                                                           nimbus_export **out,
                                                           nimbus_error *error);
NIMBUS_API void nimbus_export_free(nimbus_export *result); /* NULL is allowed */

/* Writes the files into a folder, which is made if it is not there; each is replaced as a whole.
 * Errors: IO, ARGUMENT (NULL), MEMORY. */
NIMBUS_API NIMBUS_MUST_CHECK nimbus_status nimbus_export_write(const nimbus_export *result,
                                                               const char *folder,
                                                               nimbus_error *error);

/* ===================================================================================== check */

/* Normalised squared error of one layer between two forms, over the same rows:
 * sum (a - b)^2 / sum (a - mean a)^2. NaN where a form does not exist, infinite where a never
 * changes but b differs. */
typedef struct nimbus_check_layer {
    char name[48];
    double dense_to_lookup;         /* the float layer on the converted net's inputs */
    double soft_to_lookup;          /* must be 0: the same bits */
    size_t soft_lookup_differences; /* outputs whose bits differ */
} nimbus_check_layer;

typedef struct nimbus_check_report {
    size_t n_layers; /* with trees and tables */
    nimbus_check_layer layers[NIMBUS_REPORT_LAYERS];
    size_t n_rows;
    double float_accuracy;    /* of `teacher`, NaN if none was given */
    double lookup_accuracy;   /* of the converted net */
    double integer_accuracy;  /* of the program */
    size_t decisions_changed; /* rows whose class differs between converted net and program */
    double integer_error;     /* normalised squared error of the program's outputs */
} nimbus_check_report;

/* Runs all states on the same rows. teacher may be NULL. Errors: MISMATCH, MEMORY. */
NIMBUS_API NIMBUS_MUST_CHECK nimbus_status
nimbus_check(const nimbus_net *teacher, const nimbus_net *converted, const nimbus_program *program,
             const nimbus_data *data, nimbus_check_report *out, nimbus_error *error);

#ifdef __cplusplus
}
#endif
#endif
