/* test_examples_tool.c - the examples that are folders, each as its one command
 *
 * On few rows and for few epochs: that every step runs and its result is there, not how good it is.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cmocka.h>

static const char *const names[] = {"image-classifier", "keyword-spotting", "intrusion-detection"};
enum { N_EXAMPLES = sizeof names / sizeof *names };

static char folder[64];
static char printed[1 << 16]; /* standard output and error of the last example */

/* Runs an example from another folder than the project's; returns its exit code. */
static int example(const char *environment, const char *name, const char *options)
{
    char line[4096], path[128], root[1024];
    assert_non_null(getcwd(root, sizeof root));
    int n = snprintf(line, sizeof line,
                     "r='%s'; cd '%s' && %s NIMBUS='%s' \"$r/examples/%s/run\" %s >out.txt 2>&1",
                     root, folder, environment, TEST_TOOL, name, options);
    assert_true(n > 0 && (size_t)n < sizeof line);
    int status = system(line);
    snprintf(path, sizeof path, "%s/out.txt", folder);
    FILE *file = fopen(path, "rb");
    assert_non_null(file);
    printed[fread(printed, 1, sizeof printed - 1, file)] = '\0';
    fclose(file);
    return WIFEXITED(status) ? WEXITSTATUS(status) : 128 + WTERMSIG(status);
}

static void check_example(int code, int expected, const char *part)
{
    if (code != expected || !strstr(printed, part))
        fail_msg("exit code %d, expected %d; \"%s\" in:\n%s", code, expected, part, printed);
}

/* The data lie where $NIMBUS_DATA says, from the project's root. */
static const char *data_place(char place[1100])
{
    char root[512];
    const char *data = getenv("NIMBUS_DATA");
    data = data && *data ? data : "../shared/data";
    assert_non_null(getcwd(root, sizeof root));
    snprintf(place, 1100, "NIMBUS_DATA='%s%s%s'", *data == '/' ? "" : root, *data == '/' ? "" : "/",
             data);
    return place;
}

/* The same with CIFAR-10's first rows alone, where its batches are files: to decompress all at
 * every step takes most of the time. */
static const char *image_place(char place[1100])
{
    char command[2400];
    data_place(place);
    int n = snprintf(command, sizeof command,
                     "%s; cd '%s' && mkdir -p few/cifar-10 && for b in data_batch_1 test_batch; do "
                     "f=$(ls \"$NIMBUS_DATA/cifar-10/$b.bin\"* 2>/dev/null) && case $f in "
                     "*.xz) xz -dc \"$f\" ;; *.gz) gzip -dc \"$f\" ;; *) cat \"$f\" ;; esac "
                     "2>/dev/null | head -c $((3073 * 4000)) >few/cifar-10/$b.bin && "
                     "[ -s few/cifar-10/$b.bin ] || exit 1; done && "
                     "ln -s \"$NIMBUS_DATA/mlperf-tiny\" few/",
                     place, folder);
    assert_true(n > 0 && (size_t)n < sizeof command);
    if (system(command) == 0)
        snprintf(place, 1100, "NIMBUS_DATA=few");
    return place;
}

/* A quick run, twice: the second keeps what is there. */
static void check_quick_run(const char *name, const char *place, const char *const *parts)
{
    char options[64];
    snprintf(options, sizeof options, "--quick --out %s", name);
    int code = example(place, name, options);
    if (code == 1 && strstr(printed, "data are missing")) {
        printf("skipped: no data for %s in $NIMBUS_DATA\n", name);
        skip();
    }
    for (; *parts; parts++)
        check_example(code, 0, *parts);
    check_example(example(place, name, options), 0, ".nimbus is there and kept");
    assert_null(strstr(printed, " convert "));
}

static void images_are_classified(void **state)
{
    (void)state;
    char place[1100];
    static const char *const parts[] = {" import ", " convert ",   " compile ", " eval ",
                                        " bench ",  "oneDNN int8", " inspect ", NULL};
    check_quick_run("image-classifier", image_place(place), parts);
}

static void keywords_are_spotted(void **state)
{
    (void)state;
    char place[1100];
    static const char *const parts[] = {" import ",  " convert ", " compile ", " bench ",
                                        " inspect ", "held out",  NULL};
    check_quick_run("keyword-spotting", data_place(place), parts);
}

static void intrusions_are_detected(void **state)
{
    (void)state;
    char place[1100];
    static const char *const parts[] = {" train ", " convert ",           " compile ", " run ",
                                        " bench ", "class,normal,attack", NULL};
    check_quick_run("intrusion-detection", data_place(place), parts);
}

/* An example that needs no data, but other programs; what it says without them is not a failure. */
static void check_built_in_run(const char *name, const char *const *parts)
{
    char options[64];
    snprintf(options, sizeof options, "--quick --out %s", name);
    int code = example("", name, options);
    if (code == 1 && strstr(printed, " is missing; scripts/install-deps ")) {
        printf("skipped: %s\n", printed);
        skip();
    }
    for (; *parts; parts++)
        check_example(code, 0, *parts);
    check_example(example("", name, options), 0, ".nimbus is there and kept");
}

static void cortex_m0_runs(void **state)
{
    (void)state;
    static const char *const parts[] = {" export ", "self-test: all rows have the scores they must",
                                        "the image: ", NULL};
    check_built_in_run("cortex-m0", parts);
}

static void shared_library_is_called(void **state)
{
    (void)state;
    static const char *const parts[] = {" export ", "self-test: all rows have the scores they must",
                                        "the image: ", "ns a row", NULL};
    check_built_in_run("shared-library", parts);
}

static void missing_data_are_named(void **state)
{
    (void)state;
    static const char *const sources[] = {"cs.toronto.edu", "github.com/mlcommons/tiny",
                                          "unb.ca/cic/datasets/nsl"};
    for (size_t i = 0; i < N_EXAMPLES; i++) {
        check_example(example("NIMBUS_DATA=nowhere", names[i], ""), 1, "data are missing");
        check_example(1, 1, sources[i]);
        check_example(1, 1, "nowhere");
    }
}

static void wrong_options_are_named(void **state)
{
    (void)state;
    for (size_t i = 0; i < N_EXAMPLES; i++) {
        check_example(example("", names[i], "--help"), 0, "usage: examples/");
        check_example(example("", names[i], "--fast"), 2, "unknown option '--fast'");
        check_example(example("", names[i], "--out"), 2, "--out needs a folder");
    }
}

static int make_folder(void **state)
{
    (void)state;
    snprintf(folder, sizeof folder, "/tmp/nimbus-examples-XXXXXX");
    return mkdtemp(folder) ? 0 : -1;
}

static int remove_folder(void **state)
{
    char command[128];
    (void)state;
    snprintf(command, sizeof command, "rm -rf '%s'", folder);
    return system(command);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(images_are_classified),    cmocka_unit_test(keywords_are_spotted),
        cmocka_unit_test(intrusions_are_detected),  cmocka_unit_test(cortex_m0_runs),
        cmocka_unit_test(shared_library_is_called), cmocka_unit_test(missing_data_are_named),
        cmocka_unit_test(wrong_options_are_named),
    };
    return cmocka_run_group_tests_name("examples", tests, make_folder, remove_folder);
}
