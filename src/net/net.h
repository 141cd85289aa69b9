/* net.h - the graph of layers that every building stage works on.
 *
 * A net is a list of layers in topological order; each reads the outputs of earlier layers, so
 * chains, residuals and concatenations are the same thing. A layer type is a table of functions
 * (nimbus_layer_type), its forward and backward side by side in one file. Activations are
 * row-major, N rows by the width of the layer's output shape.
 *
 * Arithmetic is in `real`: float in the library, double in the build of the gradient tests. */
#ifndef NIMBUS_NET_H
#define NIMBUS_NET_H

#include <jansson.h>

#include "base/base.h"
#include "nimbus_build.h"

#ifdef NIMBUS_REAL_DOUBLE
typedef double real;
#else
typedef float real;
#endif

#define NIMBUS_MAX_LAYER_INPUTS 8
#define NIMBUS_MAX_LAYER_PARAMS 8
#define NIMBUS_MAX_LAYERS       4096
#define NIMBUS_MAX_WIDTH        (1u << 24)

/* Shape of one row's output: channels x height x width; vectors have height = width = 1. */
typedef struct nimbus_shape {
    size_t channels, height, width;
} nimbus_shape;

static inline size_t nimbus_shape_width(nimbus_shape s)
{
    return s.channels * s.height * s.width;
}

/* How a convolution or pooling slides over an image, and what stands around the image; index 0 is
 * vertical, 1 horizontal. A stride or dilation of 0 is taken as 1; kernel {0, 0}, for pooling, as
 * the whole image. */
typedef struct nimbus_slide {
    size_t kernel[2], stride[2], dilation[2];
    size_t before[2], after[2]; /* rows and columns of padding */
} nimbus_slide;

typedef enum nimbus_pad_mode {
    NIMBUS_PAD_CONSTANT = 0,
    NIMBUS_PAD_REFLECT, /* mirrored without the edge itself */
    NIMBUS_PAD_EDGE     /* the edge repeated */
} nimbus_pad_mode;

/* A named array of a layer. Trained parameters have a gradient of the same size; statistics
 * (batch norm's running mean, say) and index arrays (kept as real, exact below 2^24) do not. */
typedef struct nimbus_param {
    const char *name; /* static string, "weight" */
    size_t rank, shape[4], n;
    real *value;
    real *grad;      /* allocated by nimbus_net_grads; NULL before and for statistics */
    bool statistic;  /* never trained */
    bool trained;    /* now: derived from the layer's type and state, see nimbus_net_set_state */
    bool decay;      /* weight decay applies */
    real rate_scale; /* multiplies the learning rate; 1 unless the trainer changes it */
} nimbus_param;

struct nimbus_lookup; /* trees and tables of a converted layer, lookup.h */

typedef struct nimbus_layer nimbus_layer;

/* What a layer's functions see of one pass. */
typedef struct nimbus_io {
    size_t n_rows;
    size_t n_inputs;
    const real *x[NIMBUS_MAX_LAYER_INPUTS]; /* [n_rows][width of input i] */
    real *y;                                /* [n_rows][width] */
    const real *dy;                         /* backward: gradient of y */
    real *dx[NIMBUS_MAX_LAYER_INPUTS];      /* backward ADDS here; NULL where nobody needs it */
    void *saved;                            /* saved_size bytes kept from forward to backward */
    void *scratch;                          /* scratch_size bytes of anything */
    bool training;                          /* dropout acts, batch norm uses the batch */
    uint64_t seed, step;                    /* counter for dropout and margin noise */
    unsigned n_threads;
} nimbus_io;

typedef struct nimbus_layer_type {
    const char *name;
    size_t min_inputs, max_inputs;
    /* Checks the attributes against the inputs' shapes, sets layer->shape and allocates and
     * initialises params (from seed). Errors: MISMATCH, ARGUMENT, MEMORY. */
    nimbus_status (*setup)(nimbus_layer *layer, const nimbus_shape *inputs, size_t n_inputs,
                           uint64_t seed, nimbus_error *error);
    /* NULL: nothing saved; SIZE_MAX: more than can be counted */
    size_t (*saved_size)(const nimbus_layer *layer, size_t n_rows);
    /* The same for what a call needs and leaves behind: layers share it. */
    size_t (*scratch_size)(const nimbus_layer *layer, size_t n_rows);
    void (*forward)(nimbus_layer *layer, nimbus_io *io);
    void (*backward)(nimbus_layer *layer, nimbus_io *io); /* adds to grads of trained params */
} nimbus_layer_type;

struct nimbus_layer {
    const nimbus_layer_type *type;
    char name[48]; /* unique in the net, "linear1" */
    size_t n_inputs;
    size_t input[NIMBUS_MAX_LAYER_INPUTS]; /* indices of earlier layers */
    size_t in_channels[NIMBUS_MAX_LAYER_INPUTS];
    nimbus_shape in_shape; /* of input 0 (of the layer itself for `input`) */
    nimbus_shape shape;
    size_t n_params;
    nimbus_param params[NIMBUS_MAX_LAYER_PARAMS];
    /* The type's attributes; those of other types are zero.
     *     dropout        number: rate
     *     batch_norm     number: epsilon; bare: no scale and shift. A mean, variance, scale and
     *                    shift per channel
     *     linear         units: M; bare: no weight, a lookup layer from birth
     *     conv2d         units: M output channels; slide; groups. weight [M][channels / groups]
     *                    [kernel 0][kernel 1], bias [M]; pads with zeros; groups of 0 are
     *                    taken as 1
     *     max_pool       slide; padding never wins
     *     average_pool   slide; count_padding: zeros of the padding count as elements. Windows of
     *                    both touch the image
     *     pad            slide.before and .after; pad_mode; number: the constant
     *     clip           number, number2: least and greatest value, finite (ReLU6: 0 and 6)
     *     hard_sigmoid   number, number2: y = clip(number * x + number2, 0, 1)
     *     hard_swish     x * clip(x / 6 + 0.5, 0, 1)
     *     softmax        over the channels of every position
     *     add, concat    2 inputs and more, concat along the channels
     *     flatten        to a vector
     *     reshape        new_shape
     *     transpose      order: axis i of the output is axis order[i] of the input, among
     *                    channels, height, width */
    double number, number2;
    size_t units, groups;
    bool bare, count_padding;
    nimbus_slide slide;
    nimbus_pad_mode pad_mode;
    nimbus_shape new_shape;
    uint8_t order[3];
    /* Convolutions: in the states SOFT and LOOKUP input[0] is what goes into the ReLU (or clip from
     * 0) that the weights read; relu is that one. Values that it makes equal tell leaves apart, and
     * gradients pass. Wired to the ReLU when added; input[0] follows the state. */
    bool before_relu;
    size_t relu;
    nimbus_layer_state state;     /* DENSE except for products on their way through conversion */
    struct nimbus_lookup *lookup; /* products with trees and tables, else NULL; owned */
    /* RECORD: inputs seen so far, [n_recorded][D]; owned. Set record_limit first: the move to
     * RECORD frees an older record and makes room for that many rows. */
    real *record;
    size_t n_recorded, record_limit;
};

struct nimbus_net {
    size_t n_layers;
    nimbus_layer *layers;
    nimbus_loss loss;
    nimbus_dtype input_dtype; /* of the raw rows the net was made for */
    char *metadata;           /* JSON text: data schema, how it was trained; may be "" */
};

/* ---- net.c ------------------------------------------------------------------------------- */

extern const nimbus_layer_type nimbus_layer_input, nimbus_layer_linear, nimbus_layer_batch_norm,
    nimbus_layer_relu, nimbus_layer_gelu, nimbus_layer_tanh, nimbus_layer_sigmoid,
    nimbus_layer_dropout, nimbus_layer_conv2d, nimbus_layer_max_pool, nimbus_layer_average_pool,
    nimbus_layer_pad, nimbus_layer_clip, nimbus_layer_hard_sigmoid, nimbus_layer_hard_swish,
    nimbus_layer_softmax, nimbus_layer_add, nimbus_layer_concat, nimbus_layer_flatten,
    nimbus_layer_reshape, nimbus_layer_transpose;
const nimbus_layer_type *nimbus_layer_type_named(const char *name); /* NULL if unknown */

nimbus_net *nimbus_net_new(void); /* empty; NULL: out of memory */

/* Appends a layer reading the given earlier layers; sets it up. `proto` gives type, name (empty:
 * made from the type and a number; else letters, digits, '_', '-'), its attributes and, for
 * `input`, in_shape; the rest is ignored. A bare linear layer needs nimbus_lookup_attach next. */
NIMBUS_MUST_CHECK nimbus_status nimbus_net_add(nimbus_net *net, const nimbus_layer *proto,
                                               const size_t *inputs, size_t n_inputs, uint64_t seed,
                                               nimbus_error *error);

size_t nimbus_net_find_layer(const nimbus_net *net, const char *name); /* n_layers if absent */
bool nimbus_net_has_layer(const nimbus_net *net, const char *name);

/* Puts a batch norm that changes nothing behind layer i, which no trees read past: all that read
 * layer i read it instead. Indices above i rise by one. `name` of less than 48 characters, as in
 * nimbus_net_add. Errors: those of nimbus_net_add; ARGUMENT: trees read before layer i, a ReLU. */
NIMBUS_MUST_CHECK nimbus_status nimbus_net_insert_norm(nimbus_net *net, size_t i, const char *name,
                                                       nimbus_error *error);
/* Input k as the layer is wired, whatever its state. */
static inline size_t nimbus_layer_wired(const nimbus_layer *layer, size_t k)
{
    return k == 0 && layer->before_relu ? layer->relu : layer->input[k];
}
/* What the trees of a product read: input[0] as it is in the states SOFT and LOOKUP. */
size_t nimbus_net_trees_read(const nimbus_net *net, const nimbus_layer *layer);
/* Has the trees of convolution i read what goes into the ReLU (or clip from 0) in front of it, if
 * there is one. The layer is in another state than SOFT and LOOKUP. */
void nimbus_net_read_before_relu(nimbus_net *net, size_t i);

/* Adds a parameter to a layer during setup: zeroed value of the given shape. */
NIMBUS_MUST_CHECK nimbus_status nimbus_layer_add_param(nimbus_layer *layer, const char *name,
                                                       size_t rank, const size_t *shape,
                                                       bool statistic, bool decay,
                                                       nimbus_error *error);
nimbus_param *nimbus_layer_param(nimbus_layer *layer, const char *name); /* NULL if absent */

/* Whether the layer is a product with weights, which has states: linear or a convolution. */
bool nimbus_layer_is_product(const nimbus_layer *layer);
/* Whether trees and tables can stand in its place: a convolution in groups has none. */
bool nimbus_layer_is_convertible(const nimbus_layer *layer);

/* Allocates missing gradients of trained params; frees those of others. Error: MEMORY. */
NIMBUS_MUST_CHECK nimbus_status nimbus_net_grads(nimbus_net *net, nimbus_error *error);
void nimbus_net_zero_grads(nimbus_net *net);

NIMBUS_MUST_CHECK nimbus_status nimbus_net_copy(const nimbus_net *net, nimbus_net **out,
                                                nimbus_error *error);

/* Index of the first layer with a trained param at or after `from`; n_layers if none. */
size_t nimbus_net_first_trained(const nimbus_net *net, size_t from);

/* First param value that is NaN or infinite, as an error NIMBUS_ERR_VALUE naming layer, param and
 * index; NIMBUS_OK if all are finite. */
NIMBUS_MUST_CHECK nimbus_status nimbus_net_check_finite(const nimbus_net *net, nimbus_error *error);

/* ---- pass.c: running a net over a batch -------------------------------------------------- */

/* Adds scale * (y - target) to the gradient of a layer's output y. */
typedef struct nimbus_hint {
    size_t layer;
    const real *target; /* [n_rows][width] */
    real scale;
} nimbus_hint;

/* Buffers for batches of up to max_rows rows. `first` lets a pass begin in the middle: the rows
 * given to nimbus_pass_forward are then the outputs of layer first - 1 (0 = the net's inputs). */
typedef struct nimbus_pass {
    nimbus_net *net;
    size_t first, max_rows, n_rows;
    bool training;
    uint64_t seed, step;
    unsigned n_threads;
    real **out;   /* [n_layers] -> [max_rows][width]; NULL before `first - 1` */
    real **dout;  /* the same for gradients; allocated on the first backward */
    void **saved; /* [n_layers] */
    void *scratch;
    const nimbus_hint *hints; /* [n_hints] for the backward, in the order of their layers, of none
                                 the last; borrowed */
    size_t n_hints;
} nimbus_pass;

NIMBUS_MUST_CHECK nimbus_status nimbus_pass_new(nimbus_net *net, size_t first, size_t max_rows,
                                                unsigned n_threads, nimbus_pass **out,
                                                nimbus_error *error);
void nimbus_pass_free(nimbus_pass *pass);

/* The buffer to put n_rows input rows into before nimbus_pass_forward. For first == 0 these are
 * raw values (0..255 for pixels): the input layer normalises. */
real *nimbus_pass_input(nimbus_pass *pass);

/* Runs layers first..last (inclusive). Outputs stand in pass->out[i] until the next forward. */
void nimbus_pass_forward(nimbus_pass *pass, size_t n_rows, size_t last);

/* Given the gradient of the last layer's output ([n_rows][width]) adds the gradients of all
 * trained params; needs a forward of all layers with training = true. Error: MEMORY. */
NIMBUS_MUST_CHECK nimbus_status nimbus_pass_backward(nimbus_pass *pass, const real *dlast,
                                                     nimbus_error *error);

/* ---- gemm.c: matrix products through BLAS, the same bits for any number of threads -------- */

/* The only threads are nimbus_parallel's: BLAS and LAPACK must not start their own, with which they
 * give other bits. Whatever calls them does this first; it holds for the whole process. */
void nimbus_blas_alone(void);

/* C[m][n] = alpha * op(A) op(B) + beta * C, row-major, work cut into fixed tiles of C. */
void nimbus_gemm(bool trans_a, bool trans_b, size_t m, size_t n, size_t k, real alpha,
                 const real *a, size_t lda, const real *b, size_t ldb, real beta, real *c,
                 size_t ldc, unsigned n_threads);

/* ---- loss.c ------------------------------------------------------------------------------ */

typedef struct nimbus_loss_options {
    nimbus_loss kind;
    real label_smoothing; /* softmax cross-entropy: mass spread over all classes */
    real distill;         /* 0..1: weight of the teacher's part */
    real temperature;     /* of the distillation softmax; its gradient is scaled by T^2 */
} nimbus_loss_options;

/* Mean loss over n rows of m outputs and, if dy is given, its gradient. target is [n][m]: class
 * probabilities for cross-entropy, values for mean squared error. teacher ([n][m] logits) may be
 * NULL if distill is 0. */
double nimbus_loss_value(const nimbus_loss_options *options, size_t n, size_t m, const real *y,
                         const real *target, const real *teacher, real *dy);

/* ---- predict.c --------------------------------------------------------------------------- */

/* Rows first..first+n-1 of a data set as reals, out is [n][D]. */
void nimbus_rows_read(const nimbus_data *data, size_t first, size_t n, real *out);
/* Error MISMATCH: the net reads u8, the data has floats. */
NIMBUS_MUST_CHECK nimbus_status nimbus_dtype_fits(const nimbus_net *net, const nimbus_data *data,
                                                  nimbus_error *error);

/* Index of the largest of m outputs, the first of several. */
size_t nimbus_argmax(const real *y, size_t m);

/* ---- netfile.c: the .net file (safetensors, the graph in its metadata) -------------------- */

/* Appends the file's bytes to out / reads them back; nimbus_net_save and nimbus_net_load of the
 * public header add the file handling. A loaded net's layers are in the states they were in. */
NIMBUS_MUST_CHECK nimbus_status nimbus_net_write(const nimbus_net *net, nimbus_buffer *out,
                                                 nimbus_error *error);
NIMBUS_MUST_CHECK nimbus_status nimbus_net_read(const void *bytes, size_t size, nimbus_net **out,
                                                nimbus_error *error);

#endif
