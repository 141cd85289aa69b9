/* sources.c - the known data sets: names, official files, where they can be had
 *
 * Files may lie there compressed (.gz, .xz) or not. A known set has test rows of its own, so ALL
 * means its training rows. CIFAR-10 takes whichever training batches are present, or the
 * official archive; NSL-KDD takes the 20 % training file, or else the full one. */
#include <ctype.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>

#include "data/data.h"

enum { PATH_SIZE = 1024 };

#define MIRROR_KDD "https://raw.githubusercontent.com/defcom17/NSL_KDD/master/"
#define IDX_FILES  "{train-images-idx3,train-labels-idx1,t10k-images-idx3,t10k-labels-idx1}-ubyte.gz"

static const char *const digit_names[] = {"0", "1", "2", "3", "4", "5", "6", "7", "8", "9"};
static const char *const fashion_names[] = {"T-shirt/top", "Trouser",   "Pullover", "Dress",
                                            "Coat",        "Sandal",    "Shirt",    "Sneaker",
                                            "Bag",         "Ankle boot"};
static const char *const cifar_names[] = {"airplane", "automobile", "bird",  "cat",  "deer",
                                          "dog",      "frog",       "horse", "ship", "truck"};
static const char *const kdd_names[] = {"normal", "attack"};

/* The command that fetches the files into the current folder, and the one that makes the folder
 * first, where the library looks by default. */
#define DOWNLOAD(name, fetch)                                                                      \
    fetch, "(d=\"${NIMBUS_DATA:-data}/" name "\"; mkdir -p \"$d\" && cd \"$d\" && " fetch ")"

static const nimbus_known known_sets[] = {
    {"digits", "28x28 images of digits, drawn by a generator", NIMBUS_SOURCE_DIGITS, digit_names,
     10, "", ""},
    {"mnist", "28x28 images of handwritten digits, 60,000 + 10,000", NIMBUS_SOURCE_IDX, digit_names,
     10,
     DOWNLOAD("mnist", "curl -fLO 'https://ossci-datasets.s3.amazonaws.com/mnist/" IDX_FILES "'")},
    {"fashion-mnist", "28x28 images of clothes, 60,000 + 10,000", NIMBUS_SOURCE_IDX, fashion_names,
     10,
     DOWNLOAD("fashion-mnist",
              "curl -fLO 'http://fashion-mnist.s3-website.eu-central-1.amazonaws.com/" IDX_FILES
              "'")},
    {"cifar-10", "32x32 colour photographs of ten things, 50,000 + 10,000", NIMBUS_SOURCE_CIFAR,
     cifar_names, 10,
     DOWNLOAD("cifar-10", "curl -fLO https://www.cs.toronto.edu/~kriz/cifar-10-binary.tar.gz")},
    {"nsl-kdd", "network connections, normal or attack, 25,192 + 22,544", NIMBUS_SOURCE_KDD,
     kdd_names, 2,
     DOWNLOAD("nsl-kdd",
              "curl -fL -o KDDTrain+_20Percent.txt " MIRROR_KDD "KDDTrain%2B_20Percent.txt "
              "-o KDDTest+.txt " MIRROR_KDD "KDDTest%2B.txt")},
};
enum { N_KNOWN = sizeof known_sets / sizeof *known_sets };

/* The columns of NSL-KDD: 1 to 3 are categories, then follow numbers, label and difficulty. */
static const char *const kdd_headings[] = {
    "duration",
    "protocol_type",
    "service",
    "flag",
    "src_bytes",
    "dst_bytes",
    "land",
    "wrong_fragment",
    "urgent",
    "hot",
    "num_failed_logins",
    "logged_in",
    "num_compromised",
    "root_shell",
    "su_attempted",
    "num_root",
    "num_file_creations",
    "num_shells",
    "num_access_files",
    "num_outbound_cmds",
    "is_host_login",
    "is_guest_login",
    "count",
    "srv_count",
    "serror_rate",
    "srv_serror_rate",
    "rerror_rate",
    "srv_rerror_rate",
    "same_srv_rate",
    "diff_srv_rate",
    "srv_diff_host_rate",
    "dst_host_count",
    "dst_host_srv_count",
    "dst_host_same_srv_rate",
    "dst_host_diff_srv_rate",
    "dst_host_same_src_port_rate",
    "dst_host_srv_diff_host_rate",
    "dst_host_serror_rate",
    "dst_host_srv_serror_rate",
    "dst_host_rerror_rate",
    "dst_host_srv_rerror_rate",
    "label",
    "difficulty",
};
enum { N_KDD_COLUMNS = sizeof kdd_headings / sizeof *kdd_headings };

/* ---- finding files ------------------------------------------------------------------------ */

/* Path of folder/name, compressed or not. */
static bool find_file(const char *folder, const char *name, char path[PATH_SIZE])
{
    static const char *const endings[] = {"", ".gz", ".xz"};
    for (size_t i = 0; i < sizeof endings / sizeof *endings; i++) {
        int n = snprintf(path, PATH_SIZE, "%s/%s%s", folder, name, endings[i]);
        if (n > 0 && n < PATH_SIZE && nimbus_file_exists(path))
            return true;
    }
    return false;
}

/* The four files of an IDX set: images and labels of training (0, 1) and test (2, 3). */
static const char *const idx_files[] = {"train-images-idx3-ubyte", "train-labels-idx1-ubyte",
                                        "t10k-images-idx3-ubyte", "t10k-labels-idx1-ubyte"};
/* The test batch, then the training batches. */
static const char *const cifar_files[] = {"test_batch.bin",   "data_batch_1.bin",
                                          "data_batch_2.bin", "data_batch_3.bin",
                                          "data_batch_4.bin", "data_batch_5.bin"};
enum { N_BATCHES = sizeof cifar_files / sizeof *cifar_files };
static const char cifar_archive[] = "cifar-10-binary.tar";
static const char cifar_folder[] = "cifar-10-batches-bin/";
static const char *const kdd_train[] = {"KDDTrain+_20Percent.txt", "KDDTrain+.txt"};
static const char kdd_test[] = "KDDTest+.txt";

/* A batch in the folder, or in the one that unpacking the archive makes. */
static bool find_batch(const char *folder, size_t i, char path[PATH_SIZE])
{
    char name[64];
    snprintf(name, sizeof name, "%s%s", cifar_folder, cifar_files[i]);
    return find_file(folder, cifar_files[i], path) || find_file(folder, name, path);
}

static bool find_kdd(const char *folder, bool test, char path[PATH_SIZE])
{
    if (test)
        return find_file(folder, kdd_test, path);
    return find_file(folder, kdd_train[0], path) || find_file(folder, kdd_train[1], path);
}

/* Name of a file that is needed for training or test rows but is not there; NULL: all are. */
static const char *missing_file(const nimbus_known *known, const char *folder, bool test)
{
    char path[PATH_SIZE];
    bool any = false;
    switch (known->format) {
    case NIMBUS_SOURCE_IDX:
        for (size_t i = test ? 2 : 0; i < (test ? 4u : 2u); i++)
            if (!find_file(folder, idx_files[i], path))
                return idx_files[i];
        return NULL;
    case NIMBUS_SOURCE_CIFAR:
        for (size_t i = test ? 0 : 1; i < (test ? 1u : (size_t)N_BATCHES); i++)
            any |= find_batch(folder, i, path);
        any |= find_file(folder, cifar_archive, path);
        return any ? NULL : cifar_files[test ? 0 : 1];
    case NIMBUS_SOURCE_KDD:
        if (find_kdd(folder, test, path))
            return NULL;
        return test ? kdd_test : kdd_train[0];
    case NIMBUS_SOURCE_DIGITS:
    default:
        return NULL;
    }
}

const nimbus_known *nimbus_known_named(const char *name)
{
    for (size_t i = 0; i < N_KNOWN; i++)
        if (strcmp(known_sets[i].name, name) == 0)
            return &known_sets[i];
    return NULL;
}

const char *nimbus_known_names(char text[NIMBUS_KNOWN_TEXT], bool files_only, const char *word)
{
    size_t length = 0, last = 0;
    for (size_t i = 0; i < N_KNOWN; i++)
        if (!files_only || known_sets[i].format != NIMBUS_SOURCE_DIGITS)
            last = i;
    for (size_t i = 0; i <= last && length < NIMBUS_KNOWN_TEXT; i++) {
        if (files_only && known_sets[i].format == NIMBUS_SOURCE_DIGITS)
            continue;
        const char *before = length == 0 ? "" : i < last ? ", " : " ";
        const char *conjunction = length > 0 && i == last ? word : "";
        length += (size_t)snprintf(text + length, NIMBUS_KNOWN_TEXT - length, "%s%s%s%s", before,
                                   conjunction, *conjunction ? " " : "", known_sets[i].name);
    }
    return text;
}

/* The next letter or digit from *at on, in small; '\0' at the end. */
static int next_alnum(const char **at)
{
    while (**at && !isalnum((unsigned char)**at))
        ++*at;
    return **at ? tolower((unsigned char)*(*at)++) : '\0';
}

const nimbus_known *nimbus_known_like(const char *name)
{
    for (size_t i = 0; i < N_KNOWN; i++) {
        const char *a = name, *b = known_sets[i].name;
        int x, y;
        do {
            x = next_alnum(&a);
            y = next_alnum(&b);
        } while (x == y && x);
        if (x == y)
            return &known_sets[i];
    }
    return NULL;
}

const nimbus_known *nimbus_known_in(const char *folder)
{
    bool fashion = false; /* MNIST and Fashion-MNIST have the same file names */
    for (const char *at = folder; *at; at++)
        fashion |= strncasecmp(at, "fashion", strlen("fashion")) == 0;
    for (size_t i = 0; i < N_KNOWN; i++) {
        const nimbus_known *known = &known_sets[i];
        if (known->format == NIMBUS_SOURCE_DIGITS ||
            (known->format == NIMBUS_SOURCE_IDX && (known->classes == fashion_names) != fashion))
            continue;
        if (!missing_file(known, folder, false) || !missing_file(known, folder, true))
            return known;
    }
    return NULL;
}

nimbus_status nimbus_known_folder(const nimbus_known *known, const char *data_dir, char folder[512],
                                  nimbus_error *error)
{
    const char *environment = getenv("NIMBUS_DATA");
    if (!data_dir)
        data_dir = environment && *environment ? environment : "data";
    folder[0] = '\0';
    if (known->format == NIMBUS_SOURCE_DIGITS)
        return NIMBUS_OK;
    int n = snprintf(folder, 512, "%s/%s", data_dir, known->name);
    if (n < 0 || n >= 512)
        return nimbus_fail(error, NIMBUS_ERR_ARGUMENT,
                           "the path of the data folder, %.100s..., is too long: at most 511 "
                           "bytes with the name of the set",
                           data_dir);
    return NIMBUS_OK;
}

/* ---- opening ------------------------------------------------------------------------------ */

static nimbus_status open_idx(const char *folder, const nimbus_reading *reading, bool test,
                              nimbus_data **out, nimbus_error *error)
{
    char images[PATH_SIZE], labels[PATH_SIZE];
    if (!find_file(folder, idx_files[test ? 2 : 0], images) ||
        !find_file(folder, idx_files[test ? 3 : 1], labels))
        return nimbus_fail(error, NIMBUS_ERR_IO, "the files in %s went away", folder);
    return nimbus_data_open_arrays(images, labels, reading, out, error);
}

/* The batches are decompressed side by side: xz takes seconds. */
typedef struct batches {
    const char *folder;
    bool test;
    nimbus_buffer file[N_BATCHES];
    nimbus_status status[N_BATCHES];
    nimbus_error error[N_BATCHES];
} batches;

static void read_batch(void *arg, size_t i)
{
    batches *b = arg;
    char path[PATH_SIZE];
    if ((i == 0) != b->test || !find_batch(b->folder, i, path))
        return;
    nimbus_error *error = &b->error[i];
    b->status[i] = nimbus_data_file(path, &b->file[i], error);
    if (b->status[i] != NIMBUS_OK)
        return;
    b->status[i] = nimbus_cifar_check(b->file[i].bytes, b->file[i].size, error);
    if (b->status[i] != NIMBUS_OK)
        b->status[i] = nimbus_fail_prefix(error, b->status[i], "%s", path);
}

/* Appends the files of the batches to records. */
static nimbus_status join_batches(const char *folder, bool test, nimbus_buffer *records,
                                  nimbus_error *error)
{
    batches *b = nimbus_alloc(1, sizeof *b);
    if (!b)
        return nimbus_fail(error, NIMBUS_ERR_MEMORY, "no memory for the batches");
    b->folder = folder;
    b->test = test;
    nimbus_parallel(0, N_BATCHES, read_batch, b);
    nimbus_status status = NIMBUS_OK;
    for (size_t i = 0; i < N_BATCHES; i++) {
        if (status == NIMBUS_OK && b->status[i] != NIMBUS_OK) {
            status = b->status[i];
            if (error)
                *error = b->error[i];
        }
        if (status == NIMBUS_OK && b->file[i].size)
            nimbus_write_bytes(records, b->file[i].bytes, b->file[i].size);
        nimbus_buffer_free(&b->file[i]);
    }
    nimbus_free(b);
    return status;
}

static nimbus_status open_cifar(const char *folder, const nimbus_reading *reading, bool test,
                                nimbus_data **out, nimbus_error *error)
{
    nimbus_buffer records = {0}, archive = {0};
    char path[PATH_SIZE];
    nimbus_status status = join_batches(folder, test, &records, error);
    if (status == NIMBUS_OK && records.size == 0 && find_file(folder, cifar_archive, path)) {
        status = nimbus_data_file(path, &archive, error);
        if (status == NIMBUS_OK) {
            status = nimbus_cifar_untar(archive.bytes, archive.size, test, &records, error);
            if (status != NIMBUS_OK)
                status = nimbus_fail_prefix(error, status, "%s", path);
        }
        nimbus_buffer_free(&archive);
    }
    if (status == NIMBUS_OK && records.failed)
        status = nimbus_fail(error, NIMBUS_ERR_MEMORY, "no memory for the batches");
    if (status == NIMBUS_OK)
        status = nimbus_cifar_data(records.bytes, records.size, reading, out, error);
    nimbus_buffer_free(&records);
    return status;
}

static nimbus_status open_kdd_file(const char *folder, const nimbus_reading *reading, bool test,
                                   nimbus_data **out, nimbus_error *error)
{
    nimbus_column_kind kinds[N_KDD_COLUMNS];
    for (size_t i = 0; i < N_KDD_COLUMNS; i++)
        kinds[i] = i >= 1 && i <= 3 ? NIMBUS_COLUMN_CATEGORY : NIMBUS_COLUMN_NUMBER;
    kinds[N_KDD_COLUMNS - 2] = NIMBUS_COLUMN_CLASS;
    kinds[N_KDD_COLUMNS - 1] = NIMBUS_COLUMN_DROP;
    nimbus_table_plan plan = {kdd_headings, kinds, N_KDD_COLUMNS, 1};
    char path[PATH_SIZE];
    nimbus_buffer file = {0};
    if (!find_kdd(folder, test, path))
        return nimbus_fail(error, NIMBUS_ERR_IO, "the files in %s went away", folder);
    nimbus_status status = nimbus_data_file(path, &file, error);
    if (status == NIMBUS_OK) {
        status = nimbus_table_data((char *)file.bytes, file.size, reading, &plan, out, error);
        if (status != NIMBUS_OK)
            status = nimbus_fail_prefix(error, status, "%s", path);
    }
    nimbus_buffer_free(&file);
    return status;
}

/* Test rows are read by the schema of the training rows. */
static nimbus_status open_kdd(const char *folder, const nimbus_reading *reading, bool test,
                              nimbus_data **out, nimbus_error *error)
{
    if (!test || reading->given)
        return open_kdd_file(folder, reading, test, out, error);
    nimbus_reading training = *reading, testing = *reading;
    nimbus_data *train = NULL;
    training.split = NIMBUS_SPLIT_ALL;
    training.options.n_rows = 0;
    nimbus_status status = open_kdd_file(folder, &training, false, &train, error);
    if (status != NIMBUS_OK)
        return status;
    testing.given = &train->schema;
    status = open_kdd_file(folder, &testing, true, out, error);
    nimbus_data_free(train);
    return status;
}

nimbus_status nimbus_known_open(const nimbus_known *known, const char *folder,
                                nimbus_reading *reading, nimbus_data **out, nimbus_error *error)
{
    bool test = reading->split == NIMBUS_SPLIT_TEST;
    reading->own_test = true;
    reading->classes = known->classes;
    reading->n_classes = known->n_classes;
    if (known->format == NIMBUS_SOURCE_DIGITS)
        return nimbus_digits_data(reading, out, error);
    bool train = !test || (known->format == NIMBUS_SOURCE_KDD && !reading->given);
    const char *missing = train ? missing_file(known, folder, false) : NULL;
    if (!missing && test)
        missing = missing_file(known, folder, true);
    if (missing)
        return nimbus_fail(error, NIMBUS_ERR_IO,
                           "%s: no %s in %s; to download it: mkdir -p '%s' && cd '%s' && %s",
                           known->name, missing, folder, folder, folder, known->fetch);
    /* All rows of the test file are test rows. */
    if (test)
        reading->split = NIMBUS_SPLIT_ALL;
    switch (known->format) {
    case NIMBUS_SOURCE_IDX:
        return open_idx(folder, reading, test, out, error);
    case NIMBUS_SOURCE_CIFAR:
        return open_cifar(folder, reading, test, out, error);
    case NIMBUS_SOURCE_KDD:
    case NIMBUS_SOURCE_DIGITS:
    default:
        return open_kdd(folder, reading, test, out, error);
    }
}

/* ---- the public list ---------------------------------------------------------------------- */

size_t nimbus_data_source_count(void)
{
    return N_KNOWN;
}

nimbus_status nimbus_data_get_source(size_t i, const char *data_dir, nimbus_data_source *out,
                                     nimbus_error *error)
{
    if (!out || i >= N_KNOWN)
        return nimbus_fail(error, NIMBUS_ERR_ARGUMENT, "source %zu of %d", i, (int)N_KNOWN);
    const nimbus_known *known = &known_sets[i];
    out->name = known->name;
    out->description = known->description;
    out->download = known->download;
    nimbus_status status = nimbus_known_folder(known, data_dir, out->folder, error);
    if (status != NIMBUS_OK)
        return status;
    out->present =
        !missing_file(known, out->folder, false) && !missing_file(known, out->folder, true);
    return NIMBUS_OK;
}
