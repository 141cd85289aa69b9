/* internal.h - the state of a running conversion, shared by the schedule and its checkpoint. */
#ifndef NIMBUS_CONVERT_INTERNAL_H
#define NIMBUS_CONVERT_INTERNAL_H

#include "convert/convert.h"

/* ---- frontier.c: outputs of a net's layers over many rows, kept only while needed ------------ */

typedef struct nimbus_frontier {
    nimbus_net *net;
    const nimbus_data *data;
    size_t n_rows;
    unsigned n_threads;
    real **out;       /* [n_layers] -> [n_rows][width], NULL before it is computed or after the
                         last layer that reads it is done */
    size_t *last_use; /* [n_layers] index of that layer */
} nimbus_frontier;

NIMBUS_MUST_CHECK nimbus_status nimbus_frontier_new(nimbus_frontier *f, nimbus_net *net,
                                                    const nimbus_data *data, unsigned n_threads,
                                                    nimbus_error *error);
void nimbus_frontier_free(nimbus_frontier *f);

/* Computes layer i (in inference mode; its inputs must be there) and releases what no later layer
 * reads. Layers are advanced in order. Error: MEMORY. */
NIMBUS_MUST_CHECK nimbus_status nimbus_frontier_advance(nimbus_frontier *f, size_t i,
                                                        nimbus_error *error);

/* A seeded choice of n rows of data, as a data set of its own. */
NIMBUS_MUST_CHECK nimbus_status nimbus_sample_rows(const nimbus_data *data, size_t n, uint64_t seed,
                                                   nimbus_data **out, nimbus_error *error);

/* ---- method.c: settings of this and previous work ---------------------------------------------
 */

typedef enum nimbus_start {
    NIMBUS_START_TREES = 0,
    NIMBUS_START_CENTROIDS,
    NIMBUS_START_RANDOM
} nimbus_start;
typedef enum nimbus_layer_training {
    NIMBUS_LAYERS_UNTRAINED = 0,
    NIMBUS_LAYERS_ALONE,   /* each with those behind it locked */
    NIMBUS_LAYERS_WITH_ALL /* the whole net, each time one more layer is converted */
} nimbus_layer_training;

/* But for NIMBUS: zero means none, no or the trainer's default. */
typedef struct nimbus_method_recipe {
    nimbus_start start;
    nimbus_split_method splits;
    nimbus_table_method tables;
    bool clean;      /* layers are fitted on what the float net computes, not on the converted */
    bool own_target; /* tables are fitted to weights times inputs, not to the float net's outputs */
    bool uniform;    /* tables of a layer have one step */
    bool raw_margins; /* margins are in units of the inputs */
    double ridge;     /* of the tables, in rows */
    nimbus_estimator estimator;
    nimbus_layer_training layers;
    double layer_epochs; /* as published: of each layer, and */
    size_t epochs;       /* of all together */
    size_t batch;
    double layer_rate, rate; /* Adam's */
    double threshold_rate;   /* times the rate */
    double tau;
} nimbus_method_recipe;

/* NULL: no such method. */
const nimbus_method_recipe *nimbus_method_recipe_of(nimbus_method method);

/* ---- the conversion -------------------------------------------------------------------------- */

typedef struct conversion {
    nimbus_convert_options options; /* with defaults filled in */
    nimbus_layer_plan *plans;       /* [n_layers] */
    nimbus_net *teacher, *net;      /* copies: the float net, and what becomes of it */
    const nimbus_data *data;        /* the caller's */
    nimbus_data *fit_data;
    nimbus_frontier clean, converted; /* the teacher's and the net's layer outputs over fit_data;
                                         both the teacher's, for a method with clean inputs */
    float *teacher_outputs;           /* [fit rows][n_outputs], once a layer is trained alone */
    const nimbus_method_recipe *method;
    double layer_epochs;          /* resolved */
    size_t layers_done;           /* layers below this index are finished */
    bool rounded;                 /* tables have their quantisation steps */
    bool tuned;                   /* trained together: finished */
    double rows_seen;             /* by trainings of layers, in this run */
    double began, seconds_before; /* seconds_before: of earlier runs */
    nimbus_buffer fingerprint; /* of everything that shapes the result; empty without checkpoint */
    uint32_t used_tune;        /* checksum of the training checkpoint that is used up */
    char tune_path[4096];      /* the training checkpoint beside options.checkpoint; "" */
    char stage[80];
} conversion;

void nimbus_conversion_release(conversion *c); /* what only fitting needs */
void nimbus_conversion_free(conversion *c);

/* Says which layer is worked on, in words such as "fit layer %s". Error: CANCELLED. */
NIMBUS_MUST_CHECK nimbus_status nimbus_conversion_report(conversion *c, const char *words,
                                                         const nimbus_layer *layer, size_t done,
                                                         size_t total, nimbus_error *error);

/* ---- settings.c -------------------------------------------------------------------------------
 */

/* Checks the options, and fills in what depends on net and data alone. Error: ARGUMENT. */
NIMBUS_MUST_CHECK nimbus_status nimbus_conversion_settle(const nimbus_convert_options *options,
                                                         const nimbus_net *teacher,
                                                         const nimbus_data *data,
                                                         nimbus_convert_options *out,
                                                         nimbus_error *error);
/* No hints and noise: what previous methods and trainings of single layers lack. */
void nimbus_conversion_clear_ours(nimbus_train_options *train);
/* Fills in epochs, rates, temperatures, hints and noise that the options leave open. Plans must be
 * final. */
void nimbus_conversion_settle_training(conversion *c);

/* ---- graph.c --------------------------------------------------------------------------------
 */

/* Lets the trees of the net's convolutions read before ReLUs. */
void nimbus_conversion_read_before_relus(conversion *c);
/* Puts batch norms behind the convolutions that are to be converted, in the teacher and in the net,
 * where they change nothing yet. Plans must be final. Errors: MEMORY, LIMIT (layers). */
NIMBUS_MUST_CHECK nimbus_status nimbus_conversion_insert_norms(conversion *c, nimbus_error *error);
/* A batch norm behind a converted layer gets mean and variance of what it now reads, and a
 * scale and shift with which it does the same as before. Other layers: nothing happens. The
 * converted frontier stands just before layer i. Errors: MEMORY. */
NIMBUS_MUST_CHECK nimbus_status nimbus_conversion_renew_norm(conversion *c, size_t i,
                                                             nimbus_error *error);

/* ---- fit.c ------------------------------------------------------------------------------------
 */

/* Whether layer i is to get trees and tables. */
bool nimbus_conversion_fits(const conversion *c, size_t i);
/* Whether it is trained right after that: alone only if nothing reads past it, else with all. What
 * its trees read must be settled. */
bool nimbus_conversion_trains(const conversion *c, size_t i);
/* Number of layers of which `is` says so. */
size_t nimbus_conversion_count(const conversion *c, bool (*is)(const conversion *c, size_t i));
/* Columns of its codebooks. Freed with nimbus_groups_free. */
NIMBUS_MUST_CHECK nimbus_status nimbus_conversion_groups(const conversion *c, size_t i,
                                                         nimbus_groups *out, nimbus_error *error);
/* Gives layer i of the net trees and tables that make of the converted frontier's inputs the clean
 * frontier's outputs, and sets it to LOOKUP. Both frontiers stand just before it (clean: at it). */
NIMBUS_MUST_CHECK nimbus_status nimbus_conversion_fit(conversion *c, size_t i, double *error_fit,
                                                      nimbus_error *error);

/* ---- sensitivity.c ----------------------------------------------------------------------------
 */

/* Measures every layer that is to be converted alone, lists them, and plans their trees, and which
 * stay exact, by options.most_change. Error: VALUE (outputs that are not finite). */
NIMBUS_MUST_CHECK nimbus_status nimbus_conversion_choose(conversion *c, const nimbus_data *data,
                                                         nimbus_convert_report *report,
                                                         nimbus_error *error);
/* Takes what fitting needs. */
NIMBUS_MUST_CHECK nimbus_status nimbus_conversion_prepare(conversion *c, const nimbus_data *data,
                                                          nimbus_error *error);

/* ---- resume.c ---------------------------------------------------------------------------------
 */

/* Takes up a checkpoint if options.checkpoint names one that exists. Errors: MISMATCH (made with
 * other options, net or data), and those of reading. */
NIMBUS_MUST_CHECK nimbus_status nimbus_conversion_open(conversion *c, const nimbus_data *data,
                                                       nimbus_error *error);
/* Writes the checkpoint, then removes the one of the training whose result it holds. */
NIMBUS_MUST_CHECK nimbus_status nimbus_conversion_save(const conversion *c, nimbus_error *error);

/* The checkpoint's bytes, for tests and fuzzing: fills c->net, the fingerprint and the
 * progress fields. */
NIMBUS_MUST_CHECK nimbus_status nimbus_conversion_read(conversion *c, const void *bytes,
                                                       size_t size, nimbus_error *error);

#endif
