/* test_planner_tool.c - nimbus compile --plan from outside: choice, lists, refusals */
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cmocka.h>
#include <jansson.h>

#define DATA "--data digits --rows 400 -t 1 "

static char folder[64];
static char said[4096]; /* standard error of the last command */

static int shell(const char *command)
{
    char line[2048], path[128];
    (void)snprintf(line, sizeof line,
                   "cd '%s' && nimbus() { '%s' \"$@\"; } && { %s; } >out.txt 2>err.txt", folder,
                   TEST_TOOL, command);
    int status = system(line);
    (void)snprintf(path, sizeof path, "%s/err.txt", folder);
    FILE *file = fopen(path, "rb");
    said[file ? fread(said, 1, sizeof said - 1, file) : 0] = 0;
    if (file)
        (void)fclose(file);
    return WIFEXITED(status) ? WEXITSTATUS(status) : -1;
}

static void assert_shell(const char *command, int code, const char *text)
{
    int found = shell(command);
    if (found != code || !strstr(said, text))
        fail_msg("%s: exit code %d, expected %d; \"%s\" in: %s", command, found, code, text, said);
}

static json_t *result(void)
{
    char path[128];
    (void)snprintf(path, sizeof path, "%s/out.txt", folder);
    json_t *json = json_load_file(path, 0, NULL);
    assert_non_null(json);
    return json;
}

static int make_nets(void **state)
{
    (void)state;
    (void)snprintf(folder, sizeof folder, "/tmp/nimbus-test-XXXXXX");
    if (!mkdtemp(folder))
        return -1;
    return shell("nimbus train " DATA "--net 'mlp:24,16;bn' --epochs 1 -q -o float.net && "
                 "nimbus convert float.net " DATA "--epochs 1 -q -o lookup.net");
}

static int remove_folder(void **state)
{
    (void)state;
    return shell("rm -rf \"$PWD\"");
}

/* auto says what it chose; the same layers by name give the same file. */
static void test_auto(void **state)
{
    (void)state;
    char names[200] = "", command[400];
    size_t i;
    json_t *layer;
    assert_shell("nimbus compile lookup.net --float float.net -p auto -b 64 " DATA
                 "-o auto.nimbus --json",
                 0, "auto.nimbus: written");
    json_t *json = result(), *plan = json_object_get(json, "plan");
    assert_int_equal(json_integer_value(json_object_get(plan, "batch")), 64);
    assert_int_equal(json_array_size(json_object_get(plan, "layers")), 3);
    json_array_foreach(json_object_get(plan, "layers"), i, layer)
    {
        const char *kind = json_string_value(json_object_get(layer, "step"));
        assert_true(json_real_value(json_object_get(layer, "lookup_ns")) > 0);
        assert_true(json_real_value(json_object_get(layer, "exact_ns")) > 0);
        if (strcmp(kind, "exact") == 0)
            (void)snprintf(names + strlen(names), 60, "%s%s", *names ? "," : "",
                           json_string_value(json_object_get(layer, "name")));
        else
            assert_string_equal(kind, "lookup");
    }
    assert_int_equal(strstr(said, "layers made exact change the outputs") != NULL, *names != 0);
    json_decref(json);
    (void)snprintf(command, sizeof command,
                   "nimbus compile lookup.net %s %s " DATA "-o again.nimbus && "
                   "cmp auto.nimbus again.nimbus",
                   *names ? "--float float.net --plan" : "--plan lookup", names);
    assert_shell(command, 0, "");
}

static void test_exact(void **state)
{
    (void)state;
    assert_shell("nimbus compile lookup.net --float float.net --plan exact " DATA
                 "-o exact.nimbus --json",
                 0, "'nimbus eval' tells the accuracy");
    json_t *json = result();
    assert_int_equal(json_integer_value(json_object_get(json, "lookups")), 0);
    assert_int_equal(json_integer_value(json_object_get(json, "multiply_adds")),
                     784 * 24 + 24 * 16 + 16 * 10);
    assert_null(json_object_get(json, "plan"));
    json_decref(json);
    /* all of it exact is the float net */
    assert_shell("nimbus compile float.net " DATA "-o float.nimbus && "
                 "nimbus run exact.nimbus --data digits --rows 100 >a.csv && "
                 "nimbus run float.nimbus --data digits --rows 100 >b.csv && cmp a.csv b.csv",
                 0, "");
    assert_shell("nimbus compile lookup.net --plan linear2 " DATA "-o one.nimbus --json", 0,
                 "one.nimbus: written");
    json = result();
    assert_int_equal(json_integer_value(json_object_get(json, "multiply_adds")), 24 * 16);
    json_decref(json);
}

static void test_refusals(void **state)
{
    (void)state;
    assert_shell("nimbus compile lookup.net --float float.net", 2, "--float goes with a --plan");
    assert_shell("nimbus compile lookup.net --plan lookup --float float.net", 2, "--float goes");
    assert_shell("nimbus compile lookup.net --plan exact --batch 3 " DATA, 2,
                 "--batch goes with --plan auto");
    assert_shell("nimbus compile lookup.net --plan auto", 2, "--plan auto needs --data");
    assert_shell("nimbus compile lookup.net --plan nonsense " DATA, 1,
                 "\"nonsense\" in the list of exact layers");
    assert_shell("nimbus compile lookup.net --plan exact", 1, "give data");
    assert_shell("nimbus compile lookup.net --plan auto --float lookup.net " DATA, 1,
                 "layer linear1 of the float net has trees and tables");
    assert_shell("test ! -e lookup.nimbus", 0, "");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_auto),
        cmocka_unit_test(test_exact),
        cmocka_unit_test(test_refusals),
    };
    return cmocka_run_group_tests(tests, make_nets, remove_folder);
}
