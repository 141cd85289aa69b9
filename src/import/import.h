/* import.h - the parts of the import stage: from the bytes of an ONNX model to a net.
 *
 *     wire.c       the bytes, checked and unpacked       Nimbus__ModelProto
 *     tensor.c     stored arrays                         nimbus_constant
 *     graph.c      names, order, what is needed          nimbus_import_value, nimbus_import_node
 *     operators.c  node by node, in the graph's order:
 *         fold*.c      what depends on constants only    nimbus_constant
 *         op_*.c       what depends on the input         nimbus_view on a nimbus_draft
 *     draft.c      what is not needed falls away, neighbours are merged
 *     emit.c       the drafts become layers              nimbus_net
 *
 * N, the number of rows, is unknown: it is the first dimension of every view, and integers
 * computed from shapes may be multiples of it. */
#ifndef NIMBUS_IMPORT_H
#define NIMBUS_IMPORT_H

#include <onnx.pb-c.h>

#include "net/net.h"

#define IMPORT_RANK       8
#define IMPORT_MAX_DEPTH  32 /* of messages within messages */
#define IMPORT_MAX_FIELDS (1u << 22)
#define IMPORT_MAX_NAMES  (1u << 18) /* values, nodes */
#define IMPORT_MAX_FILE   ((size_t)1 << 32)
/* Memory that an import may take, beyond the file itself: so much, and so many times the bytes of
 * the file and of the files beside it. */
#define IMPORT_ROOM       ((size_t)1 << 26)
#define IMPORT_ROOM_TIMES 8

/* ---- wire.c: bytes to messages ------------------------------------------------------------ */

struct nimbus_arena_block;

/* Where an unpacked model lies; freed as a whole. */
typedef struct nimbus_arena {
    struct nimbus_arena_block *blocks;
    size_t left; /* bytes that may still be taken */
    bool full, failed;
} nimbus_arena;

void nimbus_arena_free(nimbus_arena *arena);

/* Checks every length and the nesting, then unpacks. *out lies in the arena. Errors: FORMAT,
 * TRUNCATED, LIMIT, MEMORY. */
NIMBUS_MUST_CHECK nimbus_status nimbus_wire_unpack(const void *bytes, size_t size,
                                                   nimbus_arena *arena, Nimbus__ModelProto **out,
                                                   nimbus_error *error);

/* ---- the import under way ----------------------------------------------------------------- */

/* An array that does not depend on the net's input. */
typedef struct nimbus_constant {
    bool real; /* floats, else integers (booleans too) */
    size_t rank, dims[IMPORT_RANK], n;
    float *f;
    int64_t *i;
    bool *rows; /* [n] or NULL: integer k is i[k] * N */
} nimbus_constant;

/* An array of N rows that a layer computes. Its values, in the order of its dimensions, are those
 * of the layer, unless n_axes > 0: then those of the layer as an array of `base`, transposed so
 * that axis k is axis order[k] of base. Rows only: dims[0] is N, base and order leave it out. */
typedef struct nimbus_view {
    size_t layer; /* index of a draft */
    size_t rank, dims[IMPORT_RANK];
    size_t n_axes, base[IMPORT_RANK], order[IMPORT_RANK];
    bool bytes; /* u8, to be cast to float before anything is computed */
} nimbus_view;

typedef enum nimbus_value_kind {
    VALUE_UNKNOWN = 0, /* not computed yet */
    VALUE_CONSTANT,
    VALUE_VIEW
} nimbus_value_kind;

typedef struct nimbus_import_value {
    const char *name;
    nimbus_value_kind kind;
    nimbus_constant constant;
    nimbus_view view;
    const Nimbus__TensorProto *tensor; /* initialiser, read when it is first asked for */
    const Nimbus__ValueInfoProto *input;
    size_t maker, slot; /* the node, SIZE_MAX: none, and which of its outputs it is */
    size_t n_uses;      /* by needed nodes, and as the output */
} nimbus_import_value;

struct nimbus_operator;

typedef struct nimbus_import_node {
    const Nimbus__NodeProto *proto;
    const struct nimbus_operator *op;
    size_t n_inputs, *inputs; /* values; SIZE_MAX: left out */
    size_t output;
    bool needed;
    char label[96]; /* its name, or that of its output, and its operator: for messages */
} nimbus_import_node;

typedef enum nimbus_draft_kind {
    DRAFT_LAYER = 0,
    DRAFT_AFFINE,     /* scale * x + shift per channel, or one for all: merged, or a batch norm */
    DRAFT_ERF,        /* exists only as a part of GELU */
    DRAFT_LOG_SOFTMAX /* only at the end, where it is dropped */
} nimbus_draft_kind;

#define DRAFT_VALUES 4

/* A layer to be. values are its parameters in the order of the layer's own; an affine draft has
 * scale and shift, of one value or one per channel. */
typedef struct nimbus_draft {
    nimbus_draft_kind kind;
    nimbus_layer proto; /* type, in_shape, shape and attributes */
    size_t n_inputs, inputs[NIMBUS_MAX_LAYER_INPUTS];
    float *values[DRAFT_VALUES];
    size_t n_values[DRAFT_VALUES];
    const nimbus_import_node *node; /* NULL: the input */
    size_t n_users;
    size_t stands_for; /* itself, or the draft that does its work */
} nimbus_draft;

typedef struct nimbus_importer {
    const nimbus_import_options *options;
    const char *folder; /* of files beside the model, NULL: there are none */
    const Nimbus__GraphProto *graph;
    int64_t opset;
    size_t fixed_rows; /* N as the model has it; 0: left open */
    size_t n_values;
    nimbus_import_value *values;
    size_t *by_name; /* indices of values, sorted by name */
    size_t n_nodes;
    nimbus_import_node *nodes;
    size_t n_drafts, room_drafts;
    nimbus_draft *drafts;
    size_t output;        /* value */
    size_t left;          /* bytes that may still be taken */
    size_t external_left; /* of them, bytes to read from files beside the model */
    size_t n_external;
    const char **external; /* files seen */
    nimbus_import_report report;
} nimbus_importer;

/* n zeroed elements, taken off what the import may take. Errors: LIMIT, MEMORY. */
NIMBUS_MUST_CHECK nimbus_status nimbus_import_alloc(nimbus_importer *im, size_t n, size_t size,
                                                    void *out, nimbus_error *error);
NIMBUS_MUST_CHECK nimbus_status nimbus_import_claim(nimbus_importer *im, size_t n, size_t size,
                                                    nimbus_error *error);
/* A line of the report: something that the caller should know about. */
NIMBUS_MUST_CHECK nimbus_status nimbus_import_note(nimbus_importer *im, nimbus_error *error,
                                                   const char *format, ...)
    __attribute__((format(printf, 3, 4)));
/* Copies what can be printed of a text, '?' for the rest; returns `to`. */
char *nimbus_import_printable(char *to, size_t room, const char *text);

/* ---- tensor.c ----------------------------------------------------------------------------- */

NIMBUS_MUST_CHECK nimbus_status nimbus_tensor_read(nimbus_importer *im,
                                                   const Nimbus__TensorProto *tensor,
                                                   nimbus_constant *out, nimbus_error *error);
void nimbus_constant_free(nimbus_constant *c);
/* An array of these dimensions with room for its values. */
NIMBUS_MUST_CHECK nimbus_status nimbus_constant_new(nimbus_importer *im, bool is_real, size_t rank,
                                                    const size_t *dims, nimbus_constant *out,
                                                    nimbus_error *error);

/* ---- graph.c ------------------------------------------------------------------------------ */

/* Names, order and kinds of all values and nodes; marks what the output needs. */
NIMBUS_MUST_CHECK nimbus_status nimbus_graph_open(nimbus_importer *im, nimbus_error *error);
void nimbus_graph_close(nimbus_importer *im);
/* Makes the view of the graph's input. */
NIMBUS_MUST_CHECK nimbus_status nimbus_graph_input(nimbus_importer *im, nimbus_error *error);
/* Compares the output's dimensions with those the model promises. */
NIMBUS_MUST_CHECK nimbus_status nimbus_graph_check_output(nimbus_importer *im, nimbus_error *error);

/* ---- node.c: what operators ask of their node ---------------------------------------------- */

/* Fails with the node's label in front. */
NIMBUS_MUST_CHECK nimbus_status nimbus_node_fail(const nimbus_import_node *n, nimbus_status status,
                                                 nimbus_error *error, const char *format, ...)
    __attribute__((format(printf, 4, 5)));

const Nimbus__AttributeProto *nimbus_node_attribute(const nimbus_import_node *n, const char *name);
/* The value of an attribute; what *out holds stays if there is none. Error: FORMAT (type). */
NIMBUS_MUST_CHECK nimbus_status nimbus_node_int(const nimbus_import_node *n, const char *name,
                                                int64_t *out, nimbus_error *error);
NIMBUS_MUST_CHECK nimbus_status nimbus_node_float(const nimbus_import_node *n, const char *name,
                                                  double *out, nimbus_error *error);
NIMBUS_MUST_CHECK nimbus_status nimbus_node_ints(const nimbus_import_node *n, const char *name,
                                                 const int64_t **out, size_t *count,
                                                 nimbus_error *error);
/* One of the words, NULL-terminated; *out is its position. Errors: FORMAT, UNSUPPORTED. */
NIMBUS_MUST_CHECK nimbus_status nimbus_node_word(const nimbus_import_node *n, const char *name,
                                                 const char *const *words, size_t *out,
                                                 nimbus_error *error);

/* Input k, NULL if it is left out. */
nimbus_import_value *nimbus_node_input(nimbus_importer *im, const nimbus_import_node *n, size_t k);
/* Input k as a constant of floats or integers, *out NULL if it is left out. Errors: UNSUPPORTED
 * (depends on the net's input), MISMATCH (other type). */
NIMBUS_MUST_CHECK nimbus_status nimbus_node_constant(nimbus_importer *im,
                                                     const nimbus_import_node *n, size_t k,
                                                     bool is_real, const nimbus_constant **out,
                                                     nimbus_error *error);
/* Input k as a single number. *out stays if it is left out. */
NIMBUS_MUST_CHECK nimbus_status nimbus_node_scalar(nimbus_importer *im, const nimbus_import_node *n,
                                                   size_t k, double *out, nimbus_error *error);
/* Input 0 (or k) as a view of floats. Error: UNSUPPORTED, MISMATCH. */
NIMBUS_MUST_CHECK nimbus_status nimbus_node_view(nimbus_importer *im, const nimbus_import_node *n,
                                                 size_t k, nimbus_view *out, nimbus_error *error);
/* A list of integers without multiples of N: input k, or attribute `name`; *out NULL: neither. */
NIMBUS_MUST_CHECK nimbus_status nimbus_node_list(nimbus_importer *im, const nimbus_import_node *n,
                                                 size_t k, const char *name, const int64_t **out,
                                                 size_t *count, nimbus_error *error);
/* Turns an axis of `rank` that may be negative into 0..rank-1. Error: MISMATCH. */
NIMBUS_MUST_CHECK nimbus_status nimbus_node_axis(const nimbus_import_node *n, int64_t axis,
                                                 size_t rank, size_t *out, nimbus_error *error);

/* Sets the node's result. The constant is taken over. */
void nimbus_node_set_view(nimbus_importer *im, const nimbus_import_node *n, const nimbus_view *v);
void nimbus_node_set_constant(nimbus_importer *im, const nimbus_import_node *n,
                              const nimbus_constant *c);

/* ---- operators.c: the operators, listed once ----------------------------------------------- */

typedef nimbus_status nimbus_operator_fn(nimbus_importer *im, const nimbus_import_node *n,
                                         nimbus_error *error);

typedef struct nimbus_operator {
    const char *name, *attributes; /* those known, with blanks between */
    size_t min_inputs, max_inputs;
    nimbus_operator_fn *fold;  /* all inputs are constants; NULL: cannot be */
    nimbus_operator_fn *build; /* else; NULL: cannot be */
} nimbus_operator;

/* Finds the operator of a needed node and checks its attributes and inputs, then runs it. */
NIMBUS_MUST_CHECK nimbus_status nimbus_node_run(nimbus_importer *im, nimbus_import_node *n,
                                                nimbus_error *error);

nimbus_operator_fn nimbus_fold_constant, nimbus_fold_constant_of_shape, nimbus_fold_identity,
    nimbus_fold_cast, nimbus_fold_concat, nimbus_fold_gather, nimbus_fold_slice,
    nimbus_fold_reshape, nimbus_fold_squeeze, nimbus_fold_unsqueeze, nimbus_fold_transpose,
    nimbus_fold_add, nimbus_fold_sub, nimbus_fold_mul, nimbus_fold_div, nimbus_fold_shape;
nimbus_operator_fn nimbus_build_shape, nimbus_build_identity, nimbus_build_cast,
    nimbus_build_flatten, nimbus_build_reshape, nimbus_build_squeeze, nimbus_build_unsqueeze,
    nimbus_build_transpose, nimbus_build_concat, nimbus_build_dropout;
nimbus_operator_fn nimbus_build_conv, nimbus_build_max_pool, nimbus_build_average_pool,
    nimbus_build_global_average_pool, nimbus_build_global_max_pool, nimbus_build_reduce_mean,
    nimbus_build_reduce_max, nimbus_build_pad;
nimbus_operator_fn nimbus_build_gemm, nimbus_build_matmul, nimbus_build_batch_norm,
    nimbus_build_add, nimbus_build_sub, nimbus_build_mul, nimbus_build_div, nimbus_build_sum;
nimbus_operator_fn nimbus_build_relu, nimbus_build_sigmoid, nimbus_build_tanh, nimbus_build_gelu,
    nimbus_build_erf, nimbus_build_clip, nimbus_build_hard_sigmoid, nimbus_build_hard_swish,
    nimbus_build_softmax, nimbus_build_log_softmax;

/* ---- view.c ------------------------------------------------------------------------------- */

size_t nimbus_view_width(const nimbus_view *v); /* values per row */
/* Its rows as an image: channels are dimension 1; vectors where there are too many dimensions. */
nimbus_shape nimbus_view_shape(const nimbus_view *v);
/* Its base as an image; for bases of up to 3 axes. */
nimbus_shape nimbus_view_base(const nimbus_view *v);
/* Whether its order can be told axis by axis: axis k of the rows is axis base_axis[k] of base. */
bool nimbus_view_axes(const nimbus_view *v, size_t base_axis[IMPORT_RANK]);
/* Makes its values those of its layer, by a transpose layer if one is needed. */
NIMBUS_MUST_CHECK nimbus_status nimbus_view_settle(nimbus_importer *im, const nimbus_import_node *n,
                                                   nimbus_view *v, nimbus_error *error);
/* Settles it and gives the layer this shape, by a reshape layer if one is needed. */
NIMBUS_MUST_CHECK nimbus_status nimbus_view_give_shape(nimbus_importer *im,
                                                       const nimbus_import_node *n, nimbus_view *v,
                                                       nimbus_shape shape, nimbus_error *error);
/* Gives the layer a shape whose channels are row axis `axis` - 1 of the view, without moving a
 * value. *done: whether that can be; if not, nothing has changed. */
NIMBUS_MUST_CHECK nimbus_status nimbus_view_as_channels(nimbus_importer *im,
                                                        const nimbus_import_node *n, nimbus_view *v,
                                                        size_t axis, bool *done,
                                                        nimbus_error *error);
/* Row axis k of the result is row axis order[k]. */
NIMBUS_MUST_CHECK nimbus_status nimbus_view_transpose(nimbus_importer *im,
                                                      const nimbus_import_node *n, nimbus_view *v,
                                                      const size_t *order, nimbus_error *error);
/* Where every value of a row stands in the layer's row: index[width]. */
void nimbus_view_index(const nimbus_view *v, uint32_t *index);

/* ---- draft.c ------------------------------------------------------------------------------ */

/* Adds a layer to be that reads one layer or several; in_shape is set from the first. */
NIMBUS_MUST_CHECK nimbus_status nimbus_draft_add(nimbus_importer *im, const nimbus_import_node *n,
                                                 const nimbus_draft *draft, size_t *index,
                                                 nimbus_error *error);
/* The same for a type without parameters that keeps its input's shape, on a view; the view becomes
 * the result. */
NIMBUS_MUST_CHECK nimbus_status nimbus_draft_element(nimbus_importer *im,
                                                     const nimbus_import_node *n,
                                                     const nimbus_draft *draft, nimbus_view *v,
                                                     nimbus_error *error);
/* scale * x + shift for all values of a layer. */
NIMBUS_MUST_CHECK nimbus_status nimbus_draft_scale(nimbus_importer *im, const nimbus_import_node *n,
                                                   size_t layer, double scale, double shift,
                                                   size_t *index, nimbus_error *error);
/* If the draft is `scale * x + shift` with one scale and shift for all values, of any depth, says
 * so and where x is; else it is 1 * itself + 0. */
void nimbus_draft_scaled(const nimbus_importer *im, size_t index, size_t *x, double *scale,
                         double *shift);
/* Frees what the drafts own. */
void nimbus_draft_free_all(nimbus_importer *im);
/* Drops a softmax at the end, counts users, merges; *last is the layer that gives the output. */
NIMBUS_MUST_CHECK nimbus_status nimbus_draft_merge_all(nimbus_importer *im, size_t *last,
                                                       nimbus_error *error);

/* ---- emit.c ------------------------------------------------------------------------------- */

NIMBUS_MUST_CHECK nimbus_status nimbus_draft_emit_all(nimbus_importer *im, size_t last,
                                                      nimbus_net **out, nimbus_error *error);

#endif
