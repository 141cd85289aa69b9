/* test_in_place.c - src/run/in_place.c: the scores of nimbus_run, from a program that is not copied
 */
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h>

#include "image_maker.h"
#include "program_maker.h"

enum { ROWS = 5, GUARD = 0xab };

static nimbus_error error;

/* Random rows; floats of the size of thresholds. */
static void *random_rows(const nimbus_program_info *info, uint64_t seed)
{
    const size_t n = ROWS * info->n_inputs;
    uint8_t *rows = nimbus_alloc(n, nimbus_dtype_size(info->input_dtype));
    assert_non_null(rows);
    for (size_t i = 0; i < n; i++) {
        if (info->input_dtype == NIMBUS_U8) {
            rows[i] = (uint8_t)nimbus_random_below(seed, 1, i, 256);
        } else {
            float x = (float)(4 * nimbus_random_uniform(seed, 2, i) - 2);
            if (nimbus_random_below(seed, 3, i, 50) == 0)
                x = nimbus_random_below(seed, 4, i, 2) ? NAN : INFINITY;
            memcpy(rows + 4 * i, &x, 4);
        }
    }
    return rows;
}

/* The program at an odd address, in memory and scratch of just the sizes that it asks for. */
static void assert_same_scores(const nimbus_buffer *file, uint64_t seed)
{
    nimbus_program *program;
    nimbus_in_place *in_place;
    assert_int_equal(nimbus_load(file->bytes, file->size, &program, &error), NIMBUS_OK);
    const nimbus_program_info *info = nimbus_info(program);
    const size_t memory_bytes = nimbus_in_place_memory_size(file->bytes, file->size),
                 M = info->n_outputs;
    uint8_t *bytes = nimbus_alloc(file->size + 1, 1), *memory = nimbus_alloc(memory_bytes, 1);
    memcpy(bytes + 1, file->bytes, file->size);
    if (nimbus_in_place_open(bytes + 1, file->size, memory, memory_bytes, &in_place, &error))
        fail_msg("%s", error.message);
    assert_int_equal(nimbus_in_place_info(in_place)->n_outputs, M);
    assert_int_equal(nimbus_in_place_info(in_place)->lookups, info->lookups);
    const size_t scratch_bytes = nimbus_in_place_scratch_size(in_place);
    uint8_t *scratch = nimbus_alloc(scratch_bytes + 1, 1), *rows = random_rows(info, seed);
    void *big = nimbus_alloc(nimbus_scratch_size(program, ROWS), 1);
    int32_t *want = nimbus_alloc(ROWS * M, 4), *got = nimbus_alloc(M, 4);
    const size_t row_bytes = info->n_inputs * nimbus_dtype_size(info->input_dtype);
    scratch[scratch_bytes] = GUARD;
    assert_int_equal(nimbus_run(program, rows, row_bytes, ROWS, want, big), NIMBUS_OK);
    for (size_t r = 0; r < ROWS; r++) {
        assert_int_equal(nimbus_in_place_run(in_place, rows + r * row_bytes, got, scratch),
                         NIMBUS_OK);
        assert_memory_equal(got, want + r * M, 4 * M);
    }
    assert_int_equal(scratch[scratch_bytes], GUARD);
    nimbus_free(got);
    nimbus_free(want);
    nimbus_free(big);
    nimbus_free(rows);
    nimbus_free(scratch);
    nimbus_free(memory);
    nimbus_free(bytes);
    nimbus_close(program);
}

static void test_programs(void **state)
{
    (void)state;
    for (uint64_t seed = 0; seed < 300; seed++) {
        made_program p = made_random_program(seed, 70);
        nimbus_buffer file = made_write(&p);
        assert_same_scores(&file, seed);
        nimbus_buffer_free(&file);
        made_free(&p);
    }
}

static void test_images(void **state)
{
    (void)state;
    for (uint64_t seed = 0; seed < 300; seed++) {
        made_image p = made_random_image(seed, 12, 12);
        nimbus_buffer file = made_image_write(&p);
        assert_same_scores(&file, seed);
        nimbus_buffer_free(&file);
        made_image_free(&p);
    }
}

/* Too little memory is refused, with the number that is enough; damage is found as by nimbus_load;
 * and wrong calls do nothing. */
static void test_refusals(void **state)
{
    (void)state;
    made_program p = made_random_program(3, 20);
    nimbus_buffer file = made_write(&p);
    uint64_t memory[1000];
    nimbus_in_place *in_place = (nimbus_in_place *)memory;
    assert_int_equal(nimbus_in_place_open(file.bytes, file.size, memory, 100, &in_place, &error),
                     NIMBUS_ERR_MEMORY);
    assert_null(in_place);
    const char *expected = strstr(error.message, "expected ");
    assert_non_null(expected);
    const size_t enough = strtoul(expected + 9, NULL, 10);
    assert_int_equal(nimbus_in_place_memory_size(file.bytes, file.size), enough);
    assert_int_equal(nimbus_in_place_memory_size(file.bytes, 10), 0);
    assert_int_equal(
        nimbus_in_place_open(file.bytes, file.size, (char *)memory + 1, enough, &in_place, &error),
        NIMBUS_OK);
    assert_int_equal(nimbus_in_place_run(in_place, NULL, NULL, NULL), NIMBUS_ERR_ARGUMENT);
    assert_int_equal(nimbus_in_place_open(NULL, 0, memory, sizeof memory, &in_place, &error),
                     NIMBUS_ERR_ARGUMENT);
    file.bytes[file.size - 1] ^= 1;
    assert_int_equal(
        nimbus_in_place_open(file.bytes, file.size, memory, sizeof memory, &in_place, &error),
        NIMBUS_ERR_CHECKSUM);
    assert_null(in_place);
    assert_int_equal(nimbus_in_place_scratch_size(NULL), 0);
    nimbus_buffer_free(&file);
    made_free(&p);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_programs),
        cmocka_unit_test(test_images),
        cmocka_unit_test(test_refusals),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
