/* test_import_tool.c - nimbus import from outside: what it prints, compares and refuses */
#include "import_folder.h"

#include <sys/wait.h>

#include <jansson.h>

static char printed[8192]; /* standard output and error of the last command */

static int tool(const char *arguments)
{
    char line[1024], path[512];
    snprintf(line, sizeof line, "cd '%s' && '%s' import %s >out.txt 2>&1", folder, TEST_TOOL,
             arguments);
    int status = system(line);
    snprintf(path, sizeof path, "%s/out.txt", folder);
    FILE *file = fopen(path, "rb");
    printed[file ? fread(printed, 1, sizeof printed - 1, file) : 0] = 0;
    if (file)
        fclose(file);
    remove_file("out.txt");
    return WIFEXITED(status) ? WEXITSTATUS(status) : -1;
}

static void assert_tool(const char *arguments, int code, const char *text)
{
    int found = tool(arguments);
    if (found != code || !strstr(printed, text))
        fail_msg("%s: exit code %d, expected %d; \"%s\" in: %s", arguments, found, code, text,
                 printed);
}

/* y = softmax(x W), W the unit matrix of 2. */
static void write_model(const char *type)
{
    message graph = {0};
    made_simple(&graph, "MatMul", "x,w", "p");
    made_simple(&graph, type, "p", "y");
    made_floats(&graph, "w", DIMS(2, 2), (const float[]){1, 0, 0, 1});
    message model = made_model(&graph, 13, "x", DIMS(2), "y");
    write_file("m.onnx", model.bytes, model.n);
    free(model.bytes);
}

static void test_report(void **state)
{
    (void)state;
    static const char rows[] = "a,b,class\n0,1,1\n3,2,0\n5,4,1\n";
    static const char npy[] = "\x93NUMPY\x01\x00\x76\x00{'descr': '<f4', 'fortran_order': False, "
                              "'shape': (3, 2), }                                             "
                              "             \n";
    const float expected[] = {0, 1, 3, 2, 5, 4.5f};
    char bytes[sizeof npy - 1 + sizeof expected];
    assert_int_equal((sizeof npy - 1) % 64, 0);
    memcpy(bytes, npy, sizeof npy - 1);
    memcpy(bytes + sizeof npy - 1, expected, sizeof expected);
    write_model("Softmax");
    write_file("rows.csv", rows, sizeof rows - 1);
    write_file("y.npy", bytes, sizeof bytes);
    assert_tool("m.onnx", 0, "p (MatMul)");
    assert_non_null(strstr(printed, "note: the softmax at the end"));
    assert_tool("m.onnx -o n.net --data rows.csv --split all --expect y.npy --json -q", 0, "{");
    json_t *json = json_loads(printed, 0, NULL);
    assert_non_null(json);
    assert_int_equal(json_integer_value(json_object_get(json, "rows")), 3);
    assert_true(json_real_value(json_object_get(json, "difference")) == 0.5);
    assert_true(json_real_value(json_object_get(json, "scale")) == 5);
    assert_int_equal(json_array_size(json_object_get(json, "layers")), 2);
    assert_int_equal(json_integer_value(json_object_get(json, "multiply_adds")), 4);
    json_decref(json);
    assert_tool("m.onnx --keep-softmax --mean 1,2,3", 1, "of 3 channels, the input has 2");
    assert_tool("m.onnx --mean 1 --std 2,3", 2, "--mean has 1 numbers, --std 2");
    assert_tool("m.onnx --std 2,x", 2, "--std: '2,x' is no list");
    assert_tool("m.onnx --expect y.npy", 2, "--expect needs --data");
    assert_tool("m.onnx -o bad.net --data rows.csv --rows 2 --split all --expect y.npy", 1,
                "y.npy: 3 rows of 2 values");
    assert_tool("m.onnx -o bad.net --data absent.csv", 1, "absent.csv");
    write_file("more.csv", "a,b,class\n0,1,x\n3,2,y\n5,4,z\n", 28);
    assert_tool("m.onnx -o bad.net --data more.csv --split all", 1,
                "more.csv: labels of 3 classes, counted from 0, but the net has 2 outputs");
    remove_file("more.csv");
    assert_tool("m.onnx -o bad.net --u8 --data rows.csv --split all", 1,
                "whole numbers from 0 to 255 (u8), the data has f32 values");
    assert_false(file_is_there("bad.net")); /* nothing is left of what failed */
    write_model("Selu");
    assert_tool("m.onnx", 1, "m.onnx: node y (Selu): unsupported operator");
    remove_file("m.onnx");
    remove_file("m.net");
    remove_file("n.net");
    remove_file("rows.csv");
    remove_file("y.npy");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_report),
    };
    return cmocka_run_group_tests(tests, make_folder, remove_folder);
}
