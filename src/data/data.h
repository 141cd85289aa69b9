/* data.h - what the files of the data stage share.
 *
 * Reading is the same in every format: find out how many rows the source has, choose the rows of
 * the split (rows.c), then copy just those into a nimbus_data. An array format first yields a
 * nimbus_array, a view of typed elements in the file's bytes; a table first yields its cells.
 * Only this folder and the tests and fuzz targets of its parsers include this header. */
#ifndef NIMBUS_DATA_H
#define NIMBUS_DATA_H

#include "base/base.h"
#include "nimbus_build.h"

#define NIMBUS_DATA_MAX_BYTES   ((size_t)1 << 33) /* of a file, and of the features in memory */
#define NIMBUS_DATA_MAX_NAMES   65535             /* classes; categories of one column */
#define NIMBUS_DATA_MAX_COLUMNS 65535             /* of a table */
#define NIMBUS_DATA_MAX_RANK    6

/* ---- schema.c: names, columns, and their JSON text ---------------------------------------- */

/* A list of strings in two blocks of memory. */
typedef struct nimbus_names {
    size_t n;
    const char **name; /* [n], into text */
    char *text;
} nimbus_names;

/* Copies n strings of the given sizes (NULL: NUL-terminated ones). Error: MEMORY. */
NIMBUS_MUST_CHECK nimbus_status nimbus_names_set(nimbus_names *names, size_t n,
                                                 const char *const *text, const size_t *sizes,
                                                 nimbus_error *error);
/* "0", "1", ...; n is at most NIMBUS_DATA_MAX_NAMES. Error: MEMORY. */
NIMBUS_MUST_CHECK nimbus_status nimbus_names_number(nimbus_names *names, size_t n,
                                                    nimbus_error *error);
void nimbus_names_free(nimbus_names *names);

typedef enum nimbus_column_kind {
    NIMBUS_COLUMN_AUTO = 0, /* not decided yet; never in a schema's text */
    NIMBUS_COLUMN_NUMBER,
    NIMBUS_COLUMN_CATEGORY, /* one feature per category */
    NIMBUS_COLUMN_CLASS,    /* the label */
    NIMBUS_COLUMN_TARGET,   /* the value to predict */
    NIMBUS_COLUMN_DROP
} nimbus_column_kind;

typedef struct nimbus_column {
    nimbus_column_kind kind;
    bool log1p;          /* number: the feature is sign(x) ln(1 + |x|) */
    bool missing;        /* category: a last feature stands for a missing cell */
    double mean;         /* number: stands in for a missing cell */
    nimbus_names values; /* category: sorted by bytes */
} nimbus_column;

typedef enum nimbus_schema_kind {
    NIMBUS_SCHEMA_VECTOR = 0,
    NIMBUS_SCHEMA_IMAGE,
    NIMBUS_SCHEMA_TABLE
} nimbus_schema_kind;

typedef struct nimbus_schema {
    nimbus_schema_kind kind;
    nimbus_dtype dtype;
    size_t channels, height, width; /* as in nimbus_data_info */
    size_t n_targets;
    nimbus_names classes;
    size_t others;          /* class of a label that is not in classes; SIZE_MAX: refused */
    nimbus_names headings;  /* table: names of the columns */
    nimbus_column *columns; /* [headings.n] */
} nimbus_schema;

/* Features that a column makes. */
size_t nimbus_column_width(const nimbus_column *column);
/* Width of a row of features: the sum over the columns, or the shape's product. */
size_t nimbus_schema_width(const nimbus_schema *schema);
/* The JSON text, freed with nimbus_free. Error: MEMORY. */
NIMBUS_MUST_CHECK nimbus_status nimbus_schema_write(const nimbus_schema *schema, char **text,
                                                    nimbus_error *error);
/* Errors: FORMAT, LIMIT, MEMORY. *out is freed with nimbus_schema_free, then nimbus_free. */
NIMBUS_MUST_CHECK nimbus_status nimbus_schema_read(const char *text, nimbus_schema **out,
                                                   nimbus_error *error);
void nimbus_schema_free(nimbus_schema *schema); /* what it owns, not itself */

/* ---- data.c: the object -------------------------------------------------------------------- */

struct nimbus_data {
    nimbus_data_info info;
    nimbus_schema schema;
    char *json;
    void *features;             /* [N][D] of dtype */
    int32_t *labels;            /* [N] or NULL */
    float *targets;             /* [N][n_targets] or NULL */
    size_t n_filled, n_unknown; /* cells of a table: see nimbus_data_gaps */
};

/* What is known while a source is read. */
typedef struct nimbus_reading {
    nimbus_data_options options; /* complete: every field is there */
    nimbus_split split;
    bool own_test;              /* the source's rows are training rows, tests lie elsewhere */
    nimbus_schema *given;       /* options.schema, or NULL; borrowed */
    const char *const *classes; /* names of a known set's n_classes classes, or NULL */
    size_t n_classes;
} nimbus_reading;

/* Allocates features (and labels, targets if info has classes, targets) for a shape that is
 * checked against the limits and info's own width. Errors: LIMIT, MEMORY. */
NIMBUS_MUST_CHECK nimbus_status nimbus_data_new(const nimbus_data_info *info, nimbus_data **out,
                                                nimbus_error *error);
/* Whether rows of this shape are of the given schema's; to be asked before values are looked at.
 * Error: MISMATCH. */
NIMBUS_MUST_CHECK nimbus_status nimbus_data_compare(const nimbus_data_info *info,
                                                    const nimbus_schema *given,
                                                    nimbus_error *error);
/* Names the classes, compares with reading->given and writes the JSON text. Takes everything
 * about vectors and images from data->info; a table brings its schema along. Errors: MISMATCH,
 * MEMORY. */
NIMBUS_MUST_CHECK nimbus_status nimbus_data_finish(nimbus_data *data, const nimbus_reading *reading,
                                                   nimbus_error *error);

/* ---- rows.c: splits ------------------------------------------------------------------------ */

typedef struct nimbus_rows {
    size_t n;
    uint32_t *row; /* [n] ascending, into the source's rows; freed with nimbus_free */
} nimbus_rows;

/* The rows of reading's split among n_source rows. Errors: ARGUMENT (fractions; a split that has
 * no rows), LIMIT, VALUE (no rows at all), MEMORY. */
NIMBUS_MUST_CHECK nimbus_status nimbus_rows_choose(const nimbus_reading *reading, size_t n_source,
                                                   nimbus_rows *out, nimbus_error *error);

/* ---- array.c: typed elements in a file's bytes --------------------------------------------- */

typedef enum nimbus_element {
    NIMBUS_ELEMENT_U8 = 0,
    NIMBUS_ELEMENT_I8,
    NIMBUS_ELEMENT_I16,
    NIMBUS_ELEMENT_I32,
    NIMBUS_ELEMENT_I64,
    NIMBUS_ELEMENT_F16, /* from here on floats */
    NIMBUS_ELEMENT_F32,
    NIMBUS_ELEMENT_F64
} nimbus_element;

typedef struct nimbus_array {
    nimbus_element element;
    bool big_endian;
    size_t rank, shape[NIMBUS_DATA_MAX_RANK]; /* all > 0 */
    const uint8_t *bytes;                     /* row-major, exactly the shape's product */
} nimbus_array;

size_t nimbus_element_size(nimbus_element element);
/* Points array->bytes at the rest of the reader, which must be just what shape and element
 * promise. Errors: TRUNCATED, FORMAT, LIMIT. */
NIMBUS_MUST_CHECK nimbus_status nimbus_array_attach(nimbus_array *array, nimbus_reader *r,
                                                    nimbus_error *error);
/* Makes data of an array [N][...] and, if given, labels or targets [N]. */
NIMBUS_MUST_CHECK nimbus_status nimbus_array_data(const nimbus_array *features,
                                                  const nimbus_array *labels,
                                                  const nimbus_reading *reading, nimbus_data **out,
                                                  nimbus_error *error);

/* ---- one file per format ------------------------------------------------------------------- */

NIMBUS_MUST_CHECK nimbus_status nimbus_idx_parse(const void *bytes, size_t size, nimbus_array *out,
                                                 nimbus_error *error);
NIMBUS_MUST_CHECK nimbus_status nimbus_npy_parse(const void *bytes, size_t size, nimbus_array *out,
                                                 nimbus_error *error);
/* A batch is a whole number of records, 3,073 bytes each, with labels 0 to 9. Errors: TRUNCATED,
 * VALUE. */
NIMBUS_MUST_CHECK nimbus_status nimbus_cifar_check(const void *bytes, size_t size,
                                                   nimbus_error *error);
NIMBUS_MUST_CHECK nimbus_status nimbus_cifar_data(const void *bytes, size_t size,
                                                  const nimbus_reading *reading, nimbus_data **out,
                                                  nimbus_error *error);
/* Appends the batches of the official tar archive: those of training, or the test batch. */
NIMBUS_MUST_CHECK nimbus_status nimbus_cifar_untar(const void *bytes, size_t size, bool test,
                                                   nimbus_buffer *out, nimbus_error *error);

/* One regular file of a tar archive. */
typedef struct nimbus_tar_entry {
    char name[101];
    const uint8_t *bytes;
    size_t size;
} nimbus_tar_entry;
bool nimbus_tar_recognise(const void *bytes, size_t size);
/* Next regular file; *end is set after the last. Errors: TRUNCATED, FORMAT, CHECKSUM. */
NIMBUS_MUST_CHECK nimbus_status nimbus_tar_next(nimbus_reader *r, nimbus_tar_entry *entry,
                                                bool *end, nimbus_error *error);

/* Replaces gzip or xz content of the buffer by what it holds; leaves anything else alone.
 * Errors: TRUNCATED, FORMAT, LIMIT (more than 64 MiB + 200 bytes per byte), MEMORY. */
NIMBUS_MUST_CHECK nimbus_status nimbus_decompress(nimbus_buffer *buffer, nimbus_error *error);

typedef struct nimbus_cell {
    uint32_t at, size;
} nimbus_cell;

typedef struct nimbus_csv {
    char *text; /* borrowed; quotes inside quoted cells are undoubled in place */
    size_t size;
    char delimiter;
    size_t n_rows, n_columns;
    nimbus_cell *cells; /* [n_rows][n_columns] */
    uint32_t *lines;    /* [n_rows] line on which a row begins, from 1 */
} nimbus_csv;

/* Errors: FORMAT, TRUNCATED (an open quote), LIMIT, VALUE (rows of unequal length), MEMORY. */
NIMBUS_MUST_CHECK nimbus_status nimbus_csv_parse(char *text, size_t size, nimbus_csv *out,
                                                 nimbus_error *error);
void nimbus_csv_free(nimbus_csv *csv);
/* A decimal number, "inf" or an overflow giving an infinity; false: something else. */
bool nimbus_csv_number(const char *text, size_t size, double *value);
bool nimbus_csv_missing(const char *text, size_t size); /* "", "?", "NA", "nan" */

/* Column headings and kinds that are known beforehand; kind AUTO is decided by the data. */
typedef struct nimbus_table_plan {
    const char *const *headings;
    const nimbus_column_kind *kinds;
    size_t n_columns;
    size_t others;
} nimbus_table_plan;

/* Reads a table; plan may be NULL. text is overwritten. */
NIMBUS_MUST_CHECK nimbus_status nimbus_table_data(char *text, size_t size,
                                                  const nimbus_reading *reading,
                                                  const nimbus_table_plan *plan, nimbus_data **out,
                                                  nimbus_error *error);

/* ---- digits.c: the generator --------------------------------------------------------------- */

NIMBUS_MUST_CHECK nimbus_status nimbus_digits_data(const nimbus_reading *reading, nimbus_data **out,
                                                   nimbus_error *error);

/* ---- sources.c: the known data sets -------------------------------------------------------- */

typedef enum nimbus_source_format {
    NIMBUS_SOURCE_DIGITS = 0,
    NIMBUS_SOURCE_IDX,
    NIMBUS_SOURCE_CIFAR,
    NIMBUS_SOURCE_KDD
} nimbus_source_format;

typedef struct nimbus_known {
    const char *name, *description;
    nimbus_source_format format;
    const char *const *classes; /* [n_classes] */
    size_t n_classes;
    const char *fetch;    /* shell command that downloads the files into the current folder */
    const char *download; /* the same into the default folder, which it makes */
} nimbus_known;

const nimbus_known *nimbus_known_named(const char *name); /* NULL if unknown */
#define NIMBUS_KNOWN_TEXT 128
/* Their names as "A, B and C" where `word` is "and", of all or only of those that are files. */
const char *nimbus_known_names(char text[NIMBUS_KNOWN_TEXT], bool files_only, const char *word);
/* The set whose name differs from this only in case and punctuation; NULL: none. */
const nimbus_known *nimbus_known_like(const char *name);
/* The set whose official files lie in folder; NULL if none. Of the two with the same files it is
 * Fashion-MNIST if "fashion" stands in the path, in letters of any size, else MNIST. */
const nimbus_known *nimbus_known_in(const char *folder);
/* Opens a known set whose files lie in folder. */
NIMBUS_MUST_CHECK nimbus_status nimbus_known_open(const nimbus_known *known, const char *folder,
                                                  nimbus_reading *reading, nimbus_data **out,
                                                  nimbus_error *error);
/* data_dir or its default, "/", name. Error: ARGUMENT (too long). */
NIMBUS_MUST_CHECK nimbus_status nimbus_known_folder(const nimbus_known *known, const char *data_dir,
                                                    char folder[512], nimbus_error *error);

/* ---- open.c: files ------------------------------------------------------------------------- */

/* Reads a file and decompresses it; freed with nimbus_buffer_free. The message names the path. */
NIMBUS_MUST_CHECK nimbus_status nimbus_data_file(const char *path, nimbus_buffer *out,
                                                 nimbus_error *error);
/* A pair of IDX or npy files; labels may be NULL. */
NIMBUS_MUST_CHECK nimbus_status nimbus_data_open_arrays(const char *features, const char *labels,
                                                        const nimbus_reading *reading,
                                                        nimbus_data **out, nimbus_error *error);
#endif
