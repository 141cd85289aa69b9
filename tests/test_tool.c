/* test_tool.c - the command-line tool as its users meet it: exit codes, messages, files, signals
 *
 * Black box: every test runs the built binary in a temporary folder. A small float net, its
 * converted form and its program are made once, from 400 drawn digits. */
#include <signal.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include <setjmp.h>

#include <cmocka.h>
#include <jansson.h>

#include "base/base.h"

#define OUTPUT_BYTES (1 << 20)
#define PIXELS       784

static char folder[64];
static char out[OUTPUT_BYTES], err[OUTPUT_BYTES]; /* of the last command */

static void read_text(const char *name, char *text)
{
    char path[128];
    snprintf(path, sizeof path, "%s/%s", folder, name);
    FILE *file = fopen(path, "rb");
    assert_non_null(file);
    size_t n = fread(text, 1, OUTPUT_BYTES - 1, file);
    text[n] = 0;
    fclose(file);
}

/* Runs a shell command in the folder, where "nimbus" is the tool; returns the exit code. */
static int shell(const char *format, ...) __attribute__((format(printf, 1, 2)));
static int shell(const char *format, ...)
{
    char command[2048], line[4096];
    va_list args;
    va_start(args, format);
    vsnprintf(command, sizeof command, format, args);
    va_end(args);
    snprintf(line, sizeof line,
             "cd '%s' && nimbus() { '%s' \"$@\"; } && { %s; } >out.txt 2>err.txt", folder,
             TEST_TOOL, command);
    int status = system(line);
    read_text("out.txt", out);
    read_text("err.txt", err);
    return WIFEXITED(status) ? WEXITSTATUS(status) : 128 + WTERMSIG(status);
}

static void check_contains(const char *text, const char *part)
{
    if (!strstr(text, part))
        fail_msg("expected \"%s\" in:\n%s", part, text);
}

static void check_code(int code, int expected)
{
    if (code != expected)
        fail_msg("exit code %d, expected %d; out:\n%s\nerr:\n%s", code, expected, out, err);
}

static void write_file(const char *name, const void *bytes, size_t n)
{
    char path[128];
    snprintf(path, sizeof path, "%s/%s", folder, name);
    FILE *file = fopen(path, "wb");
    assert_non_null(file);
    assert_int_equal(fwrite(bytes, 1, n, file), n);
    assert_int_equal(fclose(file), 0);
}

static int file_is_there(const char *name)
{
    char path[128];
    snprintf(path, sizeof path, "%s/%s", folder, name);
    return access(path, F_OK) == 0;
}

static size_t read_file(const char *name, unsigned char **bytes)
{
    char path[128];
    struct stat s;
    snprintf(path, sizeof path, "%s/%s", folder, name);
    FILE *file = fopen(path, "rb");
    assert_non_null(file);
    assert_int_equal(fstat(fileno(file), &s), 0);
    *bytes = malloc((size_t)s.st_size + 1);
    assert_non_null(*bytes);
    assert_int_equal(fread(*bytes, 1, (size_t)s.st_size, file), s.st_size);
    fclose(file);
    return (size_t)s.st_size;
}

#define DIGITS "--data digits --rows 400"
#define MORE   "--data digits --rows 1500"

static int make_models(void **state)
{
    (void)state;
    snprintf(folder, sizeof folder, "/tmp/nimbus-test-XXXXXX");
    if (!mkdtemp(folder))
        return -1;
    int code = shell("nimbus train " MORE " --net mlp:32 -e 12 -o float.net &&"
                     " nimbus convert float.net " MORE " -e 2 -o lookup.net &&"
                     " nimbus compile lookup.net -o digits.nimbus");
    if (code != 0)
        fprintf(stderr, "exit code %d\n%s\n%s\n", code, out, err);
    return code;
}

static int remove_models(void **state)
{
    char command[128];
    (void)state;
    snprintf(command, sizeof command, "rm -rf '%s'", folder);
    return system(command);
}

/* ---- help and wrong usage ------------------------------------------------------------------ */

static const char *const verbs[] = {"train", "convert", "compile", "export", "eval", "run",
                                    "bench", "inspect", "check",   "data",   "demo"};

static void help_teaches(void **state)
{
    (void)state;
    char usage[64];
    check_code(shell("nimbus --help"), 0);
    for (size_t i = 0; i < sizeof verbs / sizeof *verbs; i++)
        check_contains(out, verbs[i]);
    for (size_t i = 0; i < sizeof verbs / sizeof *verbs; i++) {
        check_code(shell("nimbus %s --help", verbs[i]), 0);
        snprintf(usage, sizeof usage, "usage: nimbus %s", verbs[i]);
        check_contains(out, usage);
        check_contains(out, "--json");
        check_contains(out, "--quiet");
        const char *examples = strstr(out, "examples\n");
        assert_non_null(examples);
        size_t n = 0;
        for (const char *line = examples + 9; line[0] == ' '; line = strchr(line, '\n') + 1)
            n += strstr(line, "nimbus") != NULL;
        assert_true(n >= 2);
    }
    check_code(shell("nimbus help run"), 0);
    check_contains(out, "usage: nimbus run");
    check_code(shell("nimbus --version"), 0);
}

static void wrong_usage_is_named(void **state)
{
    (void)state;
    static const struct {
        const char *command, *message;
    } cases[] = {
        {"nimbus", "usage: nimbus VERB"},
        {"nimbus trian", "did you mean 'train'"},
        {"nimbus frobnicate", "unknown verb 'frobnicate'"},
        {"nimbus train --epoks 3", "did you mean '--epochs'"},
        {"nimbus train -Z", "unknown option '-Z'"},
        {"nimbus train --epochs three", "--epochs: 'three' is not a number"},
        {"nimbus train --epochs 0", "--epochs: 0 is outside 1 to"},
        {"nimbus train --epochs 2.5", "--epochs: '2.5' is not a whole number"},
        {"nimbus train --rate nan", "--rate: 'nan' is not a number"},
        {"nimbus train --seed -1", "--seed: '-1' is not a whole number"},
        {"nimbus train --optimiser adam", "none of adamw, sgd"},
        {"nimbus train --epochs", "--epochs needs a value"},
        {"nimbus train -o x.net", "--data SPEC is missing"},
        {"nimbus train --data digits", "--output FILE is missing"},
        {"nimbus train --data digits -o x.net --momentum 0.5", "--momentum is of --optimiser sgd"},
        {"nimbus train --data digits -o x.net --optimiser sgd --beta2 0.5",
         "--beta2 is of --optimiser adamw"},
        {"nimbus convert", "a file name is missing"},
        {"nimbus convert float.net --data digits --speed --accuracy", "exclude each other"},
        {"nimbus convert float.net --data digits --bits 16", "neither 2 to 8 nor 32"},
        {"nimbus eval a b --data digits", "too many file names"},
        {"nimbus check --data digits", "--net FILE is missing"},
        {"nimbus bench", "nimbus demo"},
        {"nimbus demo extra", "'extra' is not expected here"},
        {"nimbus run digits.nimbus x.csv --data digits", "not both"},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        check_code(shell("%s", cases[i].command), 2);
        check_contains(err, cases[i].message);
        assert_string_equal(out, "");
    }
}

/* ---- bad input ----------------------------------------------------------------------------- */

static void bad_files_are_refused(void **state)
{
    (void)state;
    unsigned char *bytes;
    size_t n = read_file("digits.nimbus", &bytes);

    check_code(shell("nimbus inspect nowhere.net"), 1);
    check_contains(err, "nimbus inspect: nowhere.net");
    write_file("text.net", "hello, world, this is no net", 28);
    check_code(shell("nimbus inspect text.net"), 1);
    check_contains(err, "neither a .nimbus program nor a .net file");
    write_file("model.onnx", "\x08\x08\x12\x07pytorch", 11);
    check_code(shell("nimbus convert model.onnx --data digits"), 1);
    check_contains(err, "neither a .nimbus program nor a .net file; 'nimbus import' makes");
    write_file("short.net", "NIM", 3);
    check_code(shell("nimbus inspect short.net"), 1);
    check_contains(err, "only 3 bytes");
    for (size_t cut = 9; cut < n; cut += n / 7) {
        write_file("cut.nimbus", bytes, cut);
        check_code(shell("nimbus eval cut.nimbus " DIGITS), 1);
        check_contains(err, "cut.nimbus");
    }
    bytes[n / 2] ^= 4;
    write_file("flip.nimbus", bytes, n);
    check_code(shell("nimbus eval flip.nimbus " DIGITS), 1);
    bytes[n / 2] ^= 4;
    bytes[8]++; /* the format's major version, its header checksum made right again */
    uint32_t crc = nimbus_crc32c(0, bytes, 28);
    for (int i = 0; i < 4; i++)
        bytes[28 + i] = (unsigned char)(crc >> 8 * i);
    write_file("newer.nimbus", bytes, n);
    check_code(shell("nimbus inspect newer.nimbus"), 1);
    check_contains(err, "version");
    free(bytes);

    n = read_file("float.net", &bytes);
    write_file("cut.net", bytes, n - 5);
    free(bytes);
    check_code(shell("nimbus eval cut.net " DIGITS), 1);
    check_contains(err, "cut.net");
    check_code(shell("nimbus run float.net"), 1);
    check_contains(err, "nimbus compile");
    check_code(shell("nimbus convert digits.nimbus " DIGITS " -o x.net"), 1);
    check_contains(err, "a .net file is needed");
    assert_false(file_is_there("x.net"));
}

static void bad_data_is_located(void **state)
{
    (void)state;
    static const struct {
        const char *text, *message;
    } tables[] = {
        {"a,b,label\n1,2,x\n3,4,y\n5,6\n7,8,x\n", "3"},
        {"a,b,label\n1,2,x\n3,4,y\n5,oops,x\n1,2,y\n1,2,x\n1,2,y\n1,2,x\n1,2,y\n1,2,x\n1,2,y\n"
         "1,2,x\n1,2,y\n1,2,x\n1,2,y\n1,2,x\n1,2,y\n1,2,x\n1,2,y\n1,2,x\n1,2,y\n1,2,x\n1,2,y\n",
         "oops"},
    };
    for (size_t i = 0; i < sizeof tables / sizeof *tables; i++) {
        write_file("bad.csv", tables[i].text, strlen(tables[i].text));
        check_code(shell("nimbus train --data bad.csv --valid 0 --net mlp:4 -o bad.net"), 1);
        check_contains(err, tables[i].message);
        assert_false(file_is_there("bad.net"));
    }
    check_code(shell("nimbus train --data nowhere.csv -o bad.net"), 1);
    check_contains(err, "nowhere.csv");
    check_code(shell("nimbus train --data mnist --data-dir nowhere -o bad.net"), 1);
    check_contains(err, "http"); /* the command that downloads it */
    check_code(shell("nimbus train " DIGITS " --net mlp:8,,8 -o bad.net"), 1);
    check_contains(err, "mlp:8,,8");
    write_file("narrow.csv", "a,b,label\n1,2,0\n3,4,1\n5,6,0\n7,8,1\n9,9,0\n", 41);
    check_code(shell("nimbus eval float.net --data narrow.csv"), 1);
    check_code(shell("nimbus eval digits.nimbus --data narrow.csv"), 1);
    check_code(shell("nimbus convert float.net " DIGITS " -v 1000 -o bad.net"), 1);
    check_contains(err, "1000");
    check_code(shell("nimbus convert float.net --data digits --rows 100 --levels 8 -o bad.net"), 1);
    check_code(shell("nimbus convert float.net " DIGITS " --layers linear9:exact -o bad.net"), 1);
    check_contains(err, "linear9");
    assert_false(file_is_there("bad.net"));
}

static void run_refuses_tables_without_rows(void **state)
{
    (void)state;
    static const char rows[] = "a,b,label\nx,p,yes\ny,q,no\nx,q,yes\ny,p,no\nx,p,yes\n";
    write_file("two.csv", rows, sizeof rows - 1);
    check_code(shell("nimbus train --data two.csv --valid 0 --net lut:2x4,2x2 -e 1 -o two.net &&"
                     " nimbus compile two.net -o two.nimbus"),
               0);
    static const struct {
        const char *text, *message;
    } cases[] = {
        {"", "standard input: is empty, there are no rows"},
        {"a,b\\n", "standard input: "},
        {"a,bee\\nx,p\\n", "the table has no column \"b\"; it has a, bee"},
        {"a,bee\\n", "the table has no column \"b\"; it has a, bee"},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        check_code(shell("printf '%s' | nimbus run two.nimbus", cases[i].text), 1);
        check_contains(err, cases[i].message);
        assert_string_equal(out, "");
    }
    check_code(shell("nimbus run digits.nimbus -f u8 </dev/null"), 1);
    check_contains(err, "there are no rows");
    check_code(shell("nimbus eval two.nimbus " DIGITS), 1);
    check_contains(err, "784 u8 values");
    assert_null(strstr(err, "schema"));
    check_code(shell("nimbus data cifar10"), 1);
    check_contains(err, "did you mean cifar-10?");
}

static void conversion_says_what_it_did(void **state)
{
    (void)state;
    check_code(shell("nimbus convert float.net " MORE " --no-fine-tune -v 32 -o coarse.net"), 0);
    check_contains(out, "fit error");
    check_contains(err, "points on the held-out rows; --accuracy or a smaller -v keeps more");
    check_contains(err, "held-out rows right"); /* of the float net, before */
    assert_null(strstr(err, "tables already"));
    check_code(shell("nimbus convert coarse.net " DIGITS " -e 1 -o twice.net"), 0);
    check_contains(err, "coarse.net: all layers are tables already");
}

/* ---- outputs that cannot be written -------------------------------------------------------- */

static void outputs_are_whole_or_absent(void **state)
{
    (void)state;
    unsigned char *before, *after;
    check_code(shell("nimbus train " DIGITS " -o nowhere/x.net"), 1);
    check_contains(err, "nowhere");
    check_code(shell("nimbus compile lookup.net -o /dev/full"), 1);
    check_contains(err, "not a regular file");
    size_t n = read_file("digits.nimbus", &before);
    check_code(shell("ulimit -f 8; nimbus compile lookup.net -o digits.nimbus"), 1);
    check_contains(err, "digits.nimbus");
    assert_int_equal(read_file("digits.nimbus", &after), n);
    assert_memory_equal(before, after, n);
    free(before);
    free(after);
    check_code(shell("ulimit -f 8; nimbus compile lookup.net -o fresh.nimbus; code=$?;"
                     " ls | grep fresh; exit $code"),
               1);
    assert_string_equal(out, ""); /* neither the file nor a temporary one */
    check_code(shell("ulimit -f 8; nimbus run digits.nimbus " DIGITS " -o rows.csv; code=$?;"
                     " ls | grep rows; exit $code"),
               1);
    assert_string_equal(out, "");
    check_code(shell("nimbus inspect digits.nimbus >/dev/full"), 1);
    check_contains(err, "No space left");
    check_code(shell("nimbus run digits.nimbus " DIGITS " >/dev/full"), 1);
    check_contains(err, "No space left");
}

/* ---- signals ------------------------------------------------------------------------------- */

/* Starts the command, waits until it shows progress, sends the signal; its exit code. */
static int interrupt(const char *const *words, const char *progress, int number)
{
    char *argv[24];
    size_t n = 0;
    for (; words[n]; n++)
        argv[n] = (char *)(uintptr_t)words[n];
    argv[n] = NULL;
    write_file("err.txt", "", 0);
    pid_t child = fork();
    assert_true(child >= 0);
    if (child == 0) {
        if (chdir(folder) != 0 || !freopen("err.txt", "w", stderr) ||
            !freopen("/dev/null", "w", stdout))
            _exit(99);
        execv(TEST_TOOL, argv);
        _exit(98);
    }
    int status;
    do {
        assert_int_equal(waitpid(child, &status, WNOHANG), 0); /* it must not end by itself */
        nanosleep(&(struct timespec){0, 5000000}, NULL);
        read_text("err.txt", err);
    } while (!strstr(err, progress));
    kill(child, number);
    assert_int_equal(waitpid(child, &status, 0), child);
    read_text("err.txt", err);
    return WIFEXITED(status) ? WEXITSTATUS(status) : -1;
}

static void check_same_file(const char *a, const char *b)
{
    unsigned char *one, *two;
    size_t n = read_file(a, &one);
    assert_int_equal(read_file(b, &two), n);
    assert_memory_equal(one, two, n);
    free(one);
    free(two);
}

static void interrupted_training_resumes(void **state)
{
    (void)state;
    static const char *const words[] = {"nimbus", "train", "--data",   "digits", "--rows",
                                        "3000",   "--net", "mlp:256",  "-e",     "12",
                                        "--json", "-o",    "part.net", NULL};
    check_code(shell("nimbus train --data digits --rows 3000 --net mlp:256 -e 12 -o whole.net"), 0);
    assert_int_equal(interrupt(words, "train ", SIGINT), 128 + SIGINT);
    check_contains(err, "part.net.ckpt");
    assert_true(file_is_there("part.net.ckpt"));
    assert_false(file_is_there("part.net"));
    assert_int_equal(interrupt(words, "train ", SIGTERM), 128 + SIGTERM);
    check_code(shell("nimbus train --data digits --rows 3000 --net mlp:256 -e 12 --json"
                     " -o part.net"),
               0);
    check_contains(out, "\"resumed\":true");
    assert_false(file_is_there("part.net.ckpt"));
    check_same_file("whole.net", "part.net");
}

static void interrupted_conversion_resumes(void **state)
{
    (void)state;
    static const char *const words[] = {"nimbus", "convert", "float.net", "--data",
                                        "digits", "--rows",  "1500",      "-e",
                                        "20",     "-o",      "half.net",  NULL};
    check_code(shell("nimbus convert float.net " MORE " -e 20 -o full.net"), 0);
    assert_int_equal(interrupt(words, "fine-tune", SIGINT), 128 + SIGINT);
    check_contains(err, "half.net.ckpt");
    assert_true(file_is_there("half.net.ckpt"));
    assert_false(file_is_there("half.net"));
    check_code(shell("nimbus convert float.net " MORE " -e 20 -o half.net"), 0);
    assert_false(file_is_there("half.net.ckpt"));
    check_same_file("full.net", "half.net");
}

/* ---- the way through ----------------------------------------------------------------------- */

static json_t *json_of(const char *format, ...) __attribute__((format(printf, 1, 2)));
static json_t *json_of(const char *format, ...)
{
    char command[1024];
    json_error_t error;
    va_list args;
    va_start(args, format);
    vsnprintf(command, sizeof command, format, args);
    va_end(args);
    check_code(shell("nimbus %s --json --quiet", command), 0);
    assert_string_equal(err, "");
    json_t *json = json_loads(out, 0, &error);
    if (!json)
        fail_msg("%s: no JSON: %s\n%s", command, error.text, out);
    return json;
}

static double accuracy_of(const char *model)
{
    json_t *json = json_of("eval %s " DIGITS, model);
    double accuracy = json_real_value(json_object_get(json, "accuracy"));
    assert_int_equal(json_integer_value(json_object_get(json, "rows")), 400);
    json_decref(json);
    return accuracy;
}

/* After an interrupted demo a shorter one does not stumble over its checkpoints; the same one does
 * go on from them, here from something that is none. */
static void interrupted_demo_gives_way(void **state)
{
    (void)state;
    check_code(shell("mkdir -p shown"), 0);
    write_file("shown/float.net.ckpt", "no checkpoint", 13);
    write_file("shown/lookup.net.ckpt", "no checkpoint", 13);
    check_code(shell("nimbus demo -o shown --rows 300 -e 1 -q -t 1"), 0);
    write_file("shown/lookup.net.ckpt", "no checkpoint", 13);
    check_code(shell("nimbus demo -o shown --rows 300 -e 1 -q -t 1"), 1);
    check_contains(err, "shown/lookup.net.ckpt");
    check_code(shell("nimbus demo -o shown --rows 301 -e 1 -q -t 1"), 0);
}

static void forms_agree(void **state)
{
    (void)state;
    double float_net = accuracy_of("float.net"), lookup = accuracy_of("lookup.net"),
           program = accuracy_of("digits.nimbus");
    assert_true(float_net > 0.7); /* 0.1 is guessing */
    assert_true(lookup > float_net - 0.25);
    assert_true(program > lookup - 0.02 && program < lookup + 0.02);
    json_t *json =
        json_of("check --float float.net --net lookup.net --program digits.nimbus " DIGITS);
    assert_true(json_real_value(json_object_get(json, "integer_accuracy")) == program);
    assert_int_equal(json_array_size(json_object_get(json, "layers")), 2);
    json_decref(json);
}

static void run_writes_every_row(void **state)
{
    (void)state;
    check_code(shell("nimbus run digits.nimbus " DIGITS), 0);
    size_t n_lines = 0;
    for (const char *c = out; *c; c++)
        n_lines += *c == '\n';
    assert_int_equal(n_lines, 401);
    assert_memory_equal(out, "class,0,1,2,3,4,5,6,7,8,9\n", 26);

    check_code(shell("nimbus run digits.nimbus " DIGITS " --json"), 0);
    char *rest = out;
    n_lines = 0;
    for (char *end; (end = strchr(rest, '\n')); rest = end + 1, n_lines++) {
        *end = 0;
        json_t *line = json_loads(rest, 0, NULL);
        assert_non_null(line);
        assert_int_equal(json_integer_value(json_object_get(line, "row")), n_lines);
        assert_int_equal(json_array_size(json_object_get(line, "scores")), 10);
        assert_non_null(json_string_value(json_object_get(line, "class")));
        json_decref(line);
    }
    assert_int_equal(n_lines, 400);
}

/* Held-out rows mean the same to every verb: 5 % of 400 unless --valid says otherwise. */
static void splits_are_the_same_everywhere(void **state)
{
    (void)state;
    static const char *const commands[] = {"eval digits.nimbus", "check --net lookup.net"};
    for (size_t i = 0; i < 4; i++) {
        char command[200];
        (void)snprintf(command, sizeof command, "nimbus %s " DIGITS " --split valid --json%s",
                       commands[i / 2], i % 2 ? " --valid 0.1" : "");
        check_code(shell("%s", command), 0);
        json_t *json = json_loads(out, 0, NULL);
        assert_int_equal(json_integer_value(json_object_get(json, "rows")), i % 2 ? 40 : 20);
        json_decref(json);
    }
    check_code(shell("nimbus run digits.nimbus " DIGITS " --split valid | wc -l"), 0);
    assert_int_equal(atoi(out), 21);
}

static void run_reads_raw_and_arrays(void **state)
{
    (void)state;
    static unsigned char rows[3 * PIXELS + 128];
    static char first[OUTPUT_BYTES];
    static const unsigned char idx[16] = {0, 0, 8, 3, 0, 0, 0, 3, 0, 0, 0, 28, 0, 0, 0, 28};
    for (size_t i = 0; i < 3 * PIXELS; i++)
        rows[128 + i] = (unsigned char)(i * i / 97);
    write_file("rows.u8", rows + 128, 3 * PIXELS);
    check_code(shell("nimbus run digits.nimbus -f u8 < rows.u8"), 0);
    memcpy(first, out, sizeof first);
    check_code(shell("nimbus run digits.nimbus rows.u8 --format u8 -o classes.csv"), 0);
    read_text("classes.csv", out);
    assert_string_equal(out, first);

    memcpy(rows + 112, idx, sizeof idx);
    write_file("rows.idx", rows + 112, 16 + 3 * PIXELS);
    check_code(shell("nimbus run digits.nimbus rows.idx"), 0);
    assert_string_equal(out, first);
    check_code(shell("gzip -kf rows.idx && nimbus run digits.nimbus rows.idx.gz"), 0);
    assert_string_equal(out, first);
    static const char head[] = "{'descr': '|u1', 'fortran_order': False, 'shape': (3, 784), }";
    memset(rows, ' ', 128);
    memcpy(rows, "\x93NUMPY\x01\x00\x76\x00", 10);
    memcpy(rows + 10, head, sizeof head - 1);
    rows[127] = '\n';
    write_file("rows.npy", rows, 128 + 3 * PIXELS);
    check_code(shell("nimbus run digits.nimbus rows.npy"), 0);
    assert_string_equal(out, first);

    check_code(shell("head -c 1573 rows.u8 | nimbus run digits.nimbus - -f u8"), 1);
    check_contains(err, "ends within row 3: 5 bytes of 784");
    check_code(shell("nimbus run digits.nimbus rows.u8"), 1);
    check_contains(err, "--format u8");
    check_code(shell("nimbus run digits.nimbus rows.u8 --format f32"), 1);
    check_contains(err, "the model reads u8 rows");
}

static void tables_run_with_and_without_headings(void **state)
{
    (void)state;
    static char text[1 << 16], first[OUTPUT_BYTES];
    size_t n = (size_t)snprintf(text, sizeof text, "size,colour,label\n");
    for (int i = 0; i < 300; i++)
        n += (size_t)snprintf(text + n, sizeof text - n, "%d.5,%s,%s\n", i * 37 % 100,
                              i % 3 ? "red" : "\"light, blue\"",
                              (i * 37 % 100 > 50) == (i % 3 > 0) ? "yes" : "no");
    write_file("table.csv", text, n);
    check_code(shell("nimbus train --data table.csv --net mlp:16 -e 30 -o table.net &&"
                     " nimbus convert table.net --data table.csv -v 1 -e 2 -o tl.net &&"
                     " nimbus compile tl.net -o table.nimbus"),
               0);
    static const char rows[] = "3.5,red,no\n96.5,\"light, blue\",no\n80.5,red,yes\n";
    write_file("plain.csv", rows, sizeof rows - 1);
    check_code(shell("nimbus run table.nimbus plain.csv"), 0);
    memcpy(first, out, sizeof first);
    assert_memory_equal(first, "class,no,yes\n", 13);
    static const char turned[] = "colour,size\nred,3.5\n\"light, blue\",96.5\nred,80.5\n";
    write_file("turned.csv", turned, sizeof turned - 1);
    check_code(shell("nimbus run table.nimbus turned.csv"), 0);
    assert_string_equal(out, first);
    check_code(shell("{ head -n 2 turned.csv; sleep 0.2; tail -n 2 turned.csv; } |"
                     " nimbus run table.nimbus -"),
               0);
    assert_string_equal(out, first);
    assert_null(strstr(err, "never seen"));
    check_code(shell("printf 'size,colour\\n?,green\\n3,blue\\n' | nimbus run table.nimbus"), 0);
    check_contains(err, "missing numbers filled in: 1, categories never seen in training: 2");
    check_code(shell("printf 'colour,size\\nred,tall\\n' | nimbus run table.nimbus"), 1);
    check_contains(err, "tall");
}

static void json_is_valid_everywhere(void **state)
{
    (void)state;
    static const char *const commands[] = {
        "inspect float.net",
        "inspect lookup.net",
        "inspect digits.nimbus",
        "compile lookup.net -o again.nimbus",
        "data",
        "data digits --rows 100",
        "bench digits.nimbus --float float.net --rounds 3 " DIGITS,
        "train " DIGITS " --net lut:16x8,8x10 -e 1 -o native.net --teacher float.net",
        "convert float.net " DIGITS " --speed --no-fine-tune --layers linear2:exact -o exact.net",
        "compile exact.net -o exact.nimbus " DIGITS,
        "eval exact.nimbus " DIGITS,
        "compile native.net -o native.nimbus",
    };
    for (size_t i = 0; i < sizeof commands / sizeof *commands; i++)
        json_decref(json_of("%s", commands[i]));
    check_same_file("digits.nimbus", "again.nimbus"); /* same net, same bytes */
}

static void peers_classify_like_the_float_net(void **state)
{
    (void)state;
    double float_net = accuracy_of("float.net"), program = accuracy_of("digits.nimbus");
    json_t *json = json_of("bench digits.nimbus --float float.net --rounds 3 " DIGITS);
    const json_t *results = json_object_get(json, "results");
    assert_int_equal(json_array_size(results), 4);
    const double expected[] = {program, float_net, float_net, float_net};
    const double slack[] = {1e-9, 0.01, 0.003, 0.003};
    for (size_t i = 0; i < 4; i++) {
        json_t *one = json_array_get(results, i);
        double accuracy = json_real_value(json_object_get(one, "accuracy"));
        assert_true(accuracy > expected[i] - slack[i] && accuracy < expected[i] + slack[i]);
    }
    json_decref(json);
    json = json_of("bench digits.nimbus --rounds 3");
    assert_non_null(
        json_object_get(json_array_get(json_object_get(json, "results"), 1), "skipped"));
    json_decref(json);
}

/* Whether `cc` is a GCC, which can tell stacks. */
static bool cc_is_gcc(void)
{
    return shell("cc -dM -E -x c /dev/null | grep __GNUC__ && ! cc -dM -E -x c /dev/null | grep "
                 "__clang__") == 0;
}

static void programs_are_exported(void **state)
{
    (void)state;
    json_t *json = json_of("export digits.nimbus -o c --prefix digits --golden 3 " DIGITS);
    assert_true(json_integer_value(json_object_get(json, "array_bytes")) > 1000);
    assert_int_equal(json_integer_value(json_object_get(json, "multiply_adds")), 0);
    json_decref(json);
    check_code(shell("make -s -f c/digits.mk digits-selftest"), 0);
    check_contains(out, "all rows have the scores they must");
    /* A wrong table is seen. */
    check_code(
        shell("sed 's/^\\(static const uint32_t step_0_table_8.*\\)$/\\1 5,/' c/digits.c >x.c && "
              "cc -Ic -DSELFTEST_MAIN x.c c/digits_test.c -o x 2>err && ./x"),
        1);
    /* The program beside the C has its tables: the same, or narrower ones. */
    assert_true(accuracy_of("c/digits.nimbus") == accuracy_of("digits.nimbus"));
    check_code(shell("nimbus export digits.nimbus -o in/a/c5 --prefix digits --table-bits 5 && "
                     "mv in/a/c5 c5 && cmp c5/digits.nimbus digits.nimbus"),
               1);
    check_contains(out, "differ");
    assert_true(accuracy_of("c5/digits.nimbus") > 0.1);
    check_code(shell("grep 'linear1 | lookup | [45]' c5/digits.md"), 0);
    check_code(shell("grep '^  9  9$' c5/digits.h && grep 'DIGITS_SCALE ' c5/digits.h"), 0);
}

/* Fewer bits are never larger. */
static void exports_shrink_with_bits(void **state)
{
    (void)state;
    json_int_t before = 0;
    for (int bits = 4; bits <= 8; bits++) {
        json_t *json = json_of("export digits.nimbus -o bits --table-bits %d", bits);
        const json_int_t bytes = json_integer_value(json_object_get(json, "array_bytes"));
        assert_true(bytes >= before && bytes > 0);
        before = bytes;
        json_decref(json);
    }
    check_code(shell("nimbus export float.net -o bits"), 1);
    check_contains(err, "is a .net file");
}

static void exports_say_what_does_not_fit(void **state)
{
    (void)state;
    check_code(shell("nimbus export digits.nimbus -o small --fit-flash 9000"), 1);
    check_contains(err, "bytes of flash with tables of 4 bits");
    check_code(shell("nimbus export digits.nimbus -o small --fit-ram 10"), 1);
    check_contains(err, "bytes of RAM, 10 are allowed");
    check_code(shell("nimbus export digits.nimbus -o small --prefix 'a b'"), 1);
    check_contains(err, "prefix is \"a b\"");
    check_code(shell("nimbus export digits.nimbus -o small --prefix stdint"), 1);
    check_contains(err, "stdint.h would be in the way");
    check_code(shell("nimbus export . -o small"), 1);
    check_contains(err, "Is a directory");
    check_code(shell("nimbus export none.nimbus -o small"), 1);
    check_contains(err, "No such file");
    check_code(shell("nimbus export digits.nimbus -o small --input i16"), 1);
    check_contains(err, "the program reads u8");
    check_code(shell("nimbus export float.net -o small"), 1);
    check_contains(err, "float.net");
    check_code(shell("nimbus export digits.nimbus -o small --cc false"), 1);
    check_contains(err, "a GCC of version 10 or later is expected");
    check_code(shell("test ! -e small"), 0);
    check_code(shell("nimbus export digits.nimbus -o small --to verilog"), 2);
    check_code(shell("nimbus export digits.nimbus -o out.txt"), 1);
    check_contains(err, "out.txt");
}

static void exports_state_code_and_stack(void **state)
{
    (void)state;
    if (!cc_is_gcc())
        skip();
    json_t *json = json_of("export digits.nimbus -o measured --prefix digits --cc 'cc -O2'");
    const json_int_t code = json_integer_value(json_object_get(json, "code_bytes"));
    const json_int_t stack = json_integer_value(json_object_get(json, "stack_bytes"));
    const json_int_t arrays = json_integer_value(json_object_get(json, "array_bytes"));
    assert_true(code > 200 && code < 20000 && stack > 8 && stack < 2000);
    json_decref(json);
    check_code(shell("grep '^| flash in all | %d |$' measured/digits.md", (int)(arrays + code)), 0);
    check_code(shell("nimbus export digits.nimbus -o measured --prefix digits --cc 'cc -O2' "
                     "--fit-flash %d",
                     (int)(arrays + code - 1)),
               0);
    check_code(shell("nimbus export digits.nimbus -o measured --prefix digits --cc 'cc -O2' "
                     "--fit-flash %d",
                     (int)(code + 1000)),
               1);
    /* Every budget from the narrowest tables on is met. */
    json = json_of("export digits.nimbus -o narrow --table-bits 4 --cc 'cc -O2'");
    const json_int_t least = json_integer_value(json_object_get(json, "array_bytes")) +
                             json_integer_value(json_object_get(json, "code_bytes"));
    json_decref(json);
    for (int i = 0; i <= 4; i++) {
        const int budget = (int)(least + (arrays + code - least) * i / 4);
        json = json_of("export digits.nimbus -o narrow --cc 'cc -O2' --fit-flash %d", budget);
        assert_true(json_integer_value(json_object_get(json, "array_bytes")) +
                        json_integer_value(json_object_get(json, "code_bytes")) <=
                    budget);
        json_decref(json);
    }
    check_code(
        shell("cp digits.nimbus narrow/model.nimbus && nimbus export narrow/model.nimbus -o narrow "
              "--table-bits 4"),
        1);
    check_contains(err, "would be replaced");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(help_teaches),
        cmocka_unit_test(wrong_usage_is_named),
        cmocka_unit_test(bad_files_are_refused),
        cmocka_unit_test(bad_data_is_located),
        cmocka_unit_test(run_refuses_tables_without_rows),
        cmocka_unit_test(conversion_says_what_it_did),
        cmocka_unit_test(outputs_are_whole_or_absent),
        cmocka_unit_test(interrupted_training_resumes),
        cmocka_unit_test(interrupted_conversion_resumes),
        cmocka_unit_test(interrupted_demo_gives_way),
        cmocka_unit_test(forms_agree),
        cmocka_unit_test(run_writes_every_row),
        cmocka_unit_test(splits_are_the_same_everywhere),
        cmocka_unit_test(run_reads_raw_and_arrays),
        cmocka_unit_test(tables_run_with_and_without_headings),
        cmocka_unit_test(json_is_valid_everywhere),
        cmocka_unit_test(peers_classify_like_the_float_net),
        cmocka_unit_test(programs_are_exported),
        cmocka_unit_test(exports_shrink_with_bits),
        cmocka_unit_test(exports_say_what_does_not_fit),
        cmocka_unit_test(exports_state_code_and_stack),
    };
    return cmocka_run_group_tests_name("tool", tests, make_models, remove_models);
}
