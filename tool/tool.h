/* tool.h - what the verbs of the command-line tool share.
 *
 * Every verb is one file cmd_<verb>.c with one nimbus_verb: its table of options drives parsing,
 * --help and error messages (options.c). Exit codes: 0 done, 1 failed, 2 wrong usage, 128 + n
 * stopped by signal n. Results go to standard output, all else to standard error. */
#ifndef NIMBUS_TOOL_H
#define NIMBUS_TOOL_H

#include <jansson.h>
#include <stdio.h>

#include "nimbus_build.h"

enum { EXIT_DONE = 0, EXIT_FAILED = 1, EXIT_USAGE = 2 };

/* ---- options.c: one table per verb ------------------------------------------------------- */

typedef enum option_kind {
    OPTION_FLAG,   /* int, set to 1 */
    OPTION_TEXT,   /* const char * */
    OPTION_TEXTS,  /* text_list: may be given several times */
    OPTION_COUNT,  /* size_t in min..max */
    OPTION_NUMBER, /* double in min..max */
    OPTION_SEED,   /* uint64_t */
    OPTION_CHOICE  /* int, index into choices */
} option_kind;

typedef struct text_list {
    size_t n;
    const char *texts[16];
} text_list;

typedef struct option_entry {
    const char *name; /* without the dashes */
    char letter;      /* short form, 0: none */
    option_kind kind;
    const char *argument; /* placeholder in the help; NULL for flags */
    size_t offset;        /* of the field in the verb's struct of arguments */
    double min, max;
    const char *const *choices; /* NULL-terminated */
    const char *help;           /* says unit and default */
} option_entry;

enum { MOST_FILES = 256 };

/* Every verb's arguments begin with these. */
typedef struct common_arguments {
    const char *data, *data_dir, *label;
    int regression, no_test;
    size_t rows;
    uint64_t data_seed;
    int split; /* a nimbus_split */
    double valid;
    uint64_t seed;
    size_t threads;
    int json, quiet;
    size_t n_files;
    const char *files[MOST_FILES];
} common_arguments;

/* Groups of common options that a verb takes; --json, --quiet and --help it always has. */
enum { GROUP_DATA = 1, GROUP_SEED = 2, GROUP_THREADS = 4, GROUP_SPLIT = 8 };

/* What a verb of GROUP_SPLIT begins with: the test rows. */
#define SPLIT_DEFAULTS .split = NIMBUS_SPLIT_TEST, .valid = 0.05
extern const char *const split_names[]; /* by nimbus_split, NULL at the end */

typedef struct nimbus_verb {
    const char *name, *purpose; /* purpose: one line, lower case, no full stop */
    const char *usage;          /* what follows "nimbus NAME" */
    const char *about;          /* a paragraph */
    const char *examples[4];    /* NULL-terminated */
    unsigned groups;
    const option_entry *options;
    size_t n_options;
    size_t min_files, max_files;
    int (*run)(int argc, char **argv);
} nimbus_verb;

/* Fills args (which begin with common_arguments and hold the defaults). Returns a negative number
 * to go on, else the exit code: help was shown, or the usage was wrong and that was said. */
int options_parse(const nimbus_verb *verb, int argc, char **argv, void *args);
/* "nimbus VERB: message" and a pointer to --help; returns EXIT_USAGE. */
int usage_error(const nimbus_verb *verb, const char *format, ...)
    __attribute__((format(printf, 2, 3)));
/* The same where the first `length` characters of text are none of an option's choices, a list with
 * NULL at the end. */
int choice_error(const nimbus_verb *verb, const char *option, const char *text, size_t length,
                 const char *const *choices);
/* The name closest to `wrong`, or NULL if none is close. */
const char *nearest_name(const char *wrong, const char *const *names, size_t n);

/* ---- main.c: verbs, signals -------------------------------------------------------------- */

extern const nimbus_verb verb_train, verb_convert, verb_compare, verb_report, verb_compile,
    verb_export, verb_eval, verb_run, verb_bench, verb_inspect, verb_check, verb_data, verb_demo,
    verb_import;

/* Between these a signal only sets a flag, which the progress callback passes on; outside them it
 * ends the tool at once. A second signal always does. */
void work_begin(void);
void work_end(void);
int work_interrupted(void); /* number of the signal that arrived, else 0 */
/* A file to be removed if a signal ends the tool; NULL: none. */
void remove_on_signal(const char *path);

extern const char *tool_path; /* as the tool was called, for commands to type next */

/* "nimbus VERB: message" on standard error; returns EXIT_FAILED, or 128 + n after signal n. */
int fail(const nimbus_error *error);
int fail_with(const char *format, ...) __attribute__((format(printf, 1, 2)));
/* A line on standard error, unless quiet. */
void note(const common_arguments *common, const char *format, ...)
    __attribute__((format(printf, 2, 3)));

/* ---- cmd_convert.c ------------------------------------------------------------------------ */

enum { N_METHODS = NIMBUS_METHOD_SEED + 1 };
extern const char *const method_names[]; /* by nimbus_method, NULL at the end */

/* ---- progress.c -------------------------------------------------------------------------- */

typedef struct progress_display {
    int quiet, terminal, shown; /* shown: characters stand on the current terminal line */
    double last_seconds;
    size_t last_epoch;
    char last_stage[256];
    /* Of the last stage that has epochs, after each: [epoch, seconds, loss, accuracy on training
     * rows, on held-out rows]; NULL before. */
    json_t *curve;
    const double *curve_seconds; /* what the curve has instead of the progress's seconds; or NULL */
} progress_display;

void progress_init(progress_display *display, const common_arguments *common);
int progress_show(void *display, const nimbus_progress *progress); /* a nimbus_progress_fn */
void progress_finish(progress_display *display);
/* Hands the curve over, an empty one if nothing was measured. */
json_t *progress_curve(progress_display *display);

/* ---- output.c: tables and JSON ----------------------------------------------------------- */

#define TABLE_COLUMNS 12
#define TABLE_ROWS    80
typedef struct table {
    const char *align; /* a letter per column: l or r */
    size_t n_columns, n_cells;
    char cells[TABLE_COLUMNS * TABLE_ROWS][256];
} table;

void table_init(table *t, const char *align);
void table_cell(table *t, const char *format, ...) __attribute__((format(printf, 2, 3)));
/* A row of column heads, as many texts as columns. */
void table_heads_of(table *t, const char *const *heads);
#define table_heads(t, ...) table_heads_of(t, (const char *const[]){__VA_ARGS__})
void table_percent(table *t, double fraction);                /* "98.61 %", or "-" for NaN */
void table_number(table *t, const char *format, double value) /* "-" for NaN */
    __attribute__((format(printf, 2, 0)));
void table_size(table *t, size_t value); /* with thin groups: 1,234,567 */
void table_print(const table *t, FILE *out);

json_t *json_number(double value);          /* null for NaN and infinities */
double number_of_json(const json_t *value); /* NaN for null and all that is no number */
/* Prints the JSON if the user asked for it, else the table, and frees the JSON; an exit code. */
int result_finish(const common_arguments *common, const table *t, json_t *json);

/* ---- page.c: reports as HTML --------------------------------------------------------------- */

extern const unsigned char bench_page[], report_page[]; /* NUL-terminated, made by the build */
/* Takes the report. Errors: IO, MEMORY. */
nimbus_status page_write(const unsigned char *page, json_t *report, const char *path,
                         nimbus_error *error) NIMBUS_MUST_CHECK;

/* ---- inputs.c: opening data and models --------------------------------------------------- */

/* Data options of the common arguments, for a net trained with this schema (NULL: none). */
nimbus_data_options data_options_of(const common_arguments *common, const char *schema);

/* The splits of one data set; valid is NULL if no rows were asked for. */
typedef struct data_splits {
    nimbus_data *train, *valid, *test;
} data_splits;

nimbus_status splits_open(const common_arguments *common, const char *schema, double valid_fraction,
                          data_splits *out, nimbus_error *error) NIMBUS_MUST_CHECK;
void splits_close(data_splits *splits);

/* A .net or a .nimbus file, told apart by its first bytes; exactly one of net and program is set.
 */
typedef struct model {
    nimbus_net *net;
    nimbus_program *program;
    char *schema;    /* JSON text of the data schema, NULL if the model has none */
    json_t *classes; /* array of class names, NULL if unknown; owned */
    size_t n_inputs, n_outputs;
    nimbus_dtype input_dtype;
} model;

nimbus_status model_open(const char *path, model *out, nimbus_error *error) NIMBUS_MUST_CHECK;
void model_close(model *m);

/* Opens a model, refusing a net with a hint. */
nimbus_status program_open(const char *path, model *out, nimbus_error *error) NIMBUS_MUST_CHECK;
/* Opens a net, refusing a .nimbus program with a hint. */
nimbus_status net_open(const char *path, nimbus_net **out, nimbus_error *error) NIMBUS_MUST_CHECK;
char *schema_of_metadata(const char *metadata, json_t **classes); /* malloc'd or NULL */
/* Lines that say what scores and inputs are; malloc'd, NULL if the schema has no names. */
char *names_of_schema(const char *schema);

/* Opens a split for a program (NULL: for nets), whose f32 rows may lie there as u8: nets read both.
 * Errors: as of nimbus_data_open. */
nimbus_status program_data_open(const nimbus_program *program, const char *spec, nimbus_split split,
                                const nimbus_data_options *options, nimbus_data **out,
                                nimbus_error *error);

/* Scores [N][n_outputs] of a program over all rows of data, times its output scale; freed with
 * free(). Errors: MISMATCH, MEMORY. */
nimbus_status program_outputs(const nimbus_program *program, const nimbus_data *data,
                              size_t n_threads, float **outputs,
                              nimbus_error *error) NIMBUS_MUST_CHECK;
/* One row per split of a table with align "lrrr" (rows, accuracy, loss), and the same as JSON. */
nimbus_status splits_evaluate(const nimbus_net *net, const data_splits *splits, unsigned n_threads,
                              table *t, json_t *json, nimbus_error *error) NIMBUS_MUST_CHECK;
/* Accuracy and loss of outputs against the data's labels or targets. */
nimbus_evaluation outputs_evaluate(const float *outputs, size_t n_outputs, const nimbus_data *data);
nimbus_status model_evaluate(const model *m, const nimbus_data *data, unsigned n_threads,
                             nimbus_evaluation *out, nimbus_error *error) NIMBUS_MUST_CHECK;

#define LEFT_OPEN SIZE_MAX /* a count the user did not give */

/* Pixels that images are shifted by in training unless the user says otherwise; 0 for tables. */
size_t default_shift(const nimbus_data_info *data);

/* Removes the checkpoint of work whose result is saved; NULL is allowed. */
nimbus_status remove_finished(const char *checkpoint, nimbus_error *error) NIMBUS_MUST_CHECK;

/* A number that may be left open (NaN) as the library has it: 0 leaves the choice to it, and less
 * than that is none. */
double given_or_none(double given);

/* Whether both are there and are one file. */
int same_file(const char *a, const char *b);

/* Writes a whole file, or leaves what is there. Errors: IO, MEMORY. */
nimbus_status file_replace(const char *path, const char *bytes, size_t size,
                           nimbus_error *error) NIMBUS_MUST_CHECK;

/* Refuses, before hours of work, a path that cannot be written later. */
nimbus_status output_check(const char *path, nimbus_error *error) NIMBUS_MUST_CHECK;
/* path plus suffix; path without its last suffix, plus suffix. malloc'd, NULL: out of memory. */
char *path_and_suffix(const char *path, const char *suffix);
char *path_with_suffix(const char *path, const char *suffix);
nimbus_status tool_error(nimbus_error *error, nimbus_status status, const char *format, ...)
    __attribute__((format(printf, 3, 4))) NIMBUS_MUST_CHECK;

#endif
