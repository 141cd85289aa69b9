/* test_base_files.c - src/base: containers refuse all damage, files are replaced whole or not at
 * all */
#include <dirent.h>
#include <errno.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cmocka.h>

#include "base/base.h"

/* ---- container.c ------------------------------------------------------------------------- */

#define MAGIC "TESTBOX\n"
enum { MAJOR = 2, MINOR = 3 };

static nimbus_buffer sample_container(void)
{
    static const uint8_t payload[100] = {3, 1, 4, 1, 5, 9, 2, 6, 5, 3, 5, 8, 9, 7, 9};
    const nimbus_section sections[] = {
        {NIMBUS_TAG('H', 'E', 'A', 'D'), payload, 24},
        {NIMBUS_TAG('D', 'A', 'T', 'A'), payload, 100},
        {NIMBUS_TAG('N', 'O', 'N', 'E'), NULL, 0},
        {NIMBUS_TAG('D', 'A', 'T', 'A'), payload, 64},
        {NIMBUS_TAG('M', 'E', 'T', 'A'), payload, 1},
    };
    nimbus_buffer b = {0};
    nimbus_error error;
    assert_int_equal(nimbus_container_write(&b, MAGIC, MAJOR, MINOR, sections, 5, &error),
                     NIMBUS_OK);
    return b;
}

static void put_le(uint8_t *p, uint64_t v, size_t n)
{
    for (size_t i = 0; i < n; i++)
        p[i] = (uint8_t)(v >> 8 * i);
}

/* Reads, and checks that a failure leaves nothing behind and says something. */
static nimbus_status read_status(const void *bytes, size_t size)
{
    nimbus_section *sections = (void *)&sections;
    size_t n_sections = 99;
    nimbus_error error = {0};
    nimbus_status status =
        nimbus_container_read(bytes, size, MAGIC, MAJOR, MINOR, &sections, &n_sections, &error);
    if (status == NIMBUS_OK) {
        nimbus_free(sections);
    } else {
        assert_null(sections);
        assert_int_equal(n_sections, 0);
        assert_int_equal(error.status, status);
        assert_true(strlen(error.message) > 10);
    }
    return status;
}

static void test_container_round_trip(void **state)
{
    (void)state;
    nimbus_buffer b = sample_container();
    nimbus_section *sections;
    size_t n_sections;
    nimbus_error error;
    assert_int_equal(nimbus_container_read(b.bytes, b.size, MAGIC, MAJOR, MINOR + 1, &sections,
                                           &n_sections, &error),
                     NIMBUS_OK);
    assert_int_equal(n_sections, 5);
    const size_t sizes[5] = {24, 100, 0, 64, 1};
    for (size_t i = 0; i < 5; i++) {
        assert_int_equal(sections[i].size, sizes[i]);
        assert_int_equal((sections[i].bytes - b.bytes) % 64, 0);
    }
    assert_int_equal(sections[0].tag, NIMBUS_TAG('H', 'E', 'A', 'D'));
    assert_int_equal(sections[1].bytes[2], 4);
    assert_ptr_equal(sections[4].bytes + 1, b.bytes + b.size);
    nimbus_free(sections);
    nimbus_buffer_free(&b);
}

static void test_container_empty_and_appended(void **state)
{
    (void)state;
    nimbus_buffer plain = {0}, behind = {0};
    nimbus_error error;
    assert_int_equal(nimbus_container_write(&plain, MAGIC, MAJOR, MINOR, NULL, 0, &error),
                     NIMBUS_OK);
    assert_int_equal(plain.size, 32);
    assert_int_equal(read_status(plain.bytes, plain.size), NIMBUS_OK);
    nimbus_buffer_free(&plain);

    /* The same bytes wherever in the buffer the container begins. */
    plain = sample_container();
    const nimbus_section outer = {1, plain.bytes, plain.size};
    nimbus_write_bytes(&behind, "12345", 5);
    assert_int_equal(nimbus_container_write(&behind, MAGIC, MAJOR, MINOR, &outer, 1, &error),
                     NIMBUS_OK);
    nimbus_buffer alone = {0};
    assert_int_equal(nimbus_container_write(&alone, MAGIC, MAJOR, MINOR, &outer, 1, &error),
                     NIMBUS_OK);
    assert_int_equal(behind.size, alone.size + 5);
    assert_memory_equal(behind.bytes + 5, alone.bytes, alone.size);
    assert_int_equal(
        nimbus_container_write(&alone, MAGIC, MAJOR, MINOR, NULL, NIMBUS_MAX_SECTIONS + 1, &error),
        NIMBUS_ERR_LIMIT);
    nimbus_buffer_free(&alone);
    nimbus_buffer_free(&behind);
    nimbus_buffer_free(&plain);
}

static void test_container_refuses_every_prefix(void **state)
{
    (void)state;
    nimbus_buffer b = sample_container();
    assert_int_equal(read_status(b.bytes, b.size), NIMBUS_OK);
    for (size_t n = 0; n < b.size; n++) {
        uint8_t *exact = nimbus_alloc(n, 1); /* so that ASan sees a read past the end */
        memcpy(exact, b.bytes, n);
        assert_int_equal(read_status(exact, n), NIMBUS_ERR_TRUNCATED);
        nimbus_free(exact);
    }
    nimbus_buffer_free(&b);
}

static void test_container_refuses_bytes_behind_it(void **state)
{
    (void)state;
    nimbus_buffer b = sample_container();
    nimbus_write_u8(&b, 0);
    assert_int_equal(read_status(b.bytes, b.size), NIMBUS_ERR_FORMAT);
    put_le(b.bytes + 16, b.size, 8); /* the header knows of the byte, no section does */
    put_le(b.bytes + 28, nimbus_crc32c(0, b.bytes, 28), 4);
    assert_int_equal(read_status(b.bytes, b.size), NIMBUS_ERR_FORMAT);
    nimbus_buffer_free(&b);
}

static void test_container_refuses_every_bit_flip(void **state)
{
    (void)state;
    nimbus_buffer b = sample_container();
    for (size_t bit = 0; bit < 8 * b.size; bit++) {
        b.bytes[bit / 8] ^= (uint8_t)(1u << bit % 8);
        assert_int_not_equal(read_status(b.bytes, b.size), NIMBUS_OK);
        b.bytes[bit / 8] ^= (uint8_t)(1u << bit % 8);
    }
    assert_int_equal(read_status(b.bytes, b.size), NIMBUS_OK);
    nimbus_buffer_free(&b);
}

/* A liar who knows the checksums: sets one field of the sample and makes both sums right. */
static nimbus_status forged_status(size_t at, uint64_t value, size_t n)
{
    nimbus_buffer b = sample_container();
    put_le(b.bytes + at, value, n);
    put_le(b.bytes + 24, nimbus_crc32c(0, b.bytes + 32, 24 * 5), 4);
    put_le(b.bytes + 28, nimbus_crc32c(0, b.bytes, 28), 4);
    nimbus_status status = read_status(b.bytes, b.size);
    nimbus_buffer_free(&b);
    return status;
}

static void test_container_refuses_forgeries(void **state)
{
    (void)state;
    const size_t entry0 = 32, entry1 = 56, entry4 = 128;
    nimbus_buffer b = sample_container();
    const size_t size = b.size;
    nimbus_buffer_free(&b);
    const struct {
        const char *what;
        size_t at;
        uint64_t value;
        size_t n;
        nimbus_status status;
    } cases[] = {
        {"nothing changed", 12, 5, 4, NIMBUS_OK},
        {"older minor", 10, MINOR - 1, 2, NIMBUS_OK},
        {"newer minor", 10, MINOR + 1, 2, NIMBUS_ERR_VERSION},
        {"newer major", 8, MAJOR + 1, 2, NIMBUS_ERR_VERSION},
        {"older major", 8, MAJOR - 1, 2, NIMBUS_ERR_VERSION},
        {"other magic", 0, 'X', 1, NIMBUS_ERR_FORMAT},
        {"size too large", 16, size + 1, 8, NIMBUS_ERR_TRUNCATED},
        {"size too small", 16, size - 1, 8, NIMBUS_ERR_FORMAT},
        {"size huge", 16, UINT64_MAX, 8, NIMBUS_ERR_TRUNCATED},
        {"sections over the limit", 12, NIMBUS_MAX_SECTIONS + 1, 4, NIMBUS_ERR_LIMIT},
        {"sections past the file", 12, NIMBUS_MAX_SECTIONS, 4, NIMBUS_ERR_FORMAT},
        {"all the sections there are", 12, UINT32_MAX, 4, NIMBUS_ERR_LIMIT},
        {"offset in the table", entry0 + 8, 64, 8, NIMBUS_ERR_FORMAT},
        {"offset unaligned", entry0 + 8, 193, 8, NIMBUS_ERR_FORMAT},
        {"offset overlapping", entry1 + 8, 192, 8, NIMBUS_ERR_FORMAT},
        {"offset leaving a hole", entry1 + 8, 320, 8, NIMBUS_ERR_FORMAT},
        {"offset past the file", entry4 + 8, 1 << 20, 8, NIMBUS_ERR_FORMAT},
        {"offset wrapping around", entry1 + 8, UINT64_MAX - 63, 8, NIMBUS_ERR_FORMAT},
        {"length past the file", entry4 + 16, 2, 8, NIMBUS_ERR_FORMAT},
        {"length wrapping around", entry1 + 16, UINT64_MAX, 8, NIMBUS_ERR_FORMAT},
        {"length wrapping with alignment", entry4 + 16, UINT64_MAX - 63, 8, NIMBUS_ERR_FORMAT},
        {"last section short", entry4 + 16, 0, 8, NIMBUS_ERR_CHECKSUM},
        {"wrong section checksum", entry1 + 4, 0, 4, NIMBUS_ERR_CHECKSUM},
        {"data in a gap", 32 + 120 + 3, 1, 1, NIMBUS_ERR_FORMAT},
    };
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        nimbus_status status = forged_status(cases[i].at, cases[i].value, cases[i].n);
        if (status != cases[i].status)
            fail_msg("%s: %s, expected %s", cases[i].what, nimbus_status_name(status),
                     nimbus_status_name(cases[i].status));
    }
}

static void test_container_out_of_memory(void **state)
{
    (void)state;
    nimbus_buffer b = sample_container();
    nimbus_fail_alloc_after = 1;
    assert_int_equal(read_status(b.bytes, b.size), NIMBUS_ERR_MEMORY);
    nimbus_section section = {1, b.bytes, b.size};
    nimbus_error error;
    long k = 0;
    nimbus_status status;
    do {
        nimbus_buffer out = {0};
        nimbus_fail_alloc_after = ++k;
        status = nimbus_container_write(&out, MAGIC, 1, 0, &section, 1, &error);
        assert_true(status == (nimbus_fail_alloc_after > 0 ? NIMBUS_OK : NIMBUS_ERR_MEMORY));
        nimbus_buffer_free(&out);
    } while (status != NIMBUS_OK);
    assert_true(k > 1);
    nimbus_fail_alloc_after = 0;
    nimbus_buffer_free(&b);
}

/* ---- file.c ------------------------------------------------------------------------------ */

static char folder[512];

static const char *in_folder(const char *name)
{
    static char path[1024];
    snprintf(path, sizeof path, "%s/%s", folder, name);
    return path;
}

static int make_folder(void **state)
{
    (void)state;
    const char *base = getenv("TMPDIR");
    snprintf(folder, sizeof folder, "%s/nimbus-test-XXXXXX", base ? base : "/tmp");
    return mkdtemp(folder) ? 0 : -1;
}

/* Number of files in the folder; removes them if asked. */
static int count_files(bool and_remove)
{
    DIR *d = opendir(folder);
    assert_non_null(d);
    int n = 0;
    for (struct dirent *e; (e = readdir(d));) {
        if (strcmp(e->d_name, ".") == 0 || strcmp(e->d_name, "..") == 0)
            continue;
        n++;
        if (and_remove)
            remove(in_folder(e->d_name));
    }
    closedir(d);
    return n;
}

static int remove_folder(void **state)
{
    (void)state;
    nimbus_fail_file_call_after = 0;
    count_files(true);
    return rmdir(folder);
}

static nimbus_status write_text(const char *path, const char *text, nimbus_error *error)
{
    return nimbus_file_write(path, text, strlen(text), error);
}

static void assert_content(const char *path, const char *text)
{
    nimbus_buffer b;
    nimbus_error error;
    assert_int_equal(nimbus_file_read(path, 1 << 20, &b, &error), NIMBUS_OK);
    assert_int_equal(b.size, strlen(text));
    assert_memory_equal(b.bytes, text, b.size);
    nimbus_buffer_free(&b);
}

static void test_file_round_trip(void **state)
{
    (void)state;
    nimbus_error error;
    const char *path = in_folder("file");
    assert_false(nimbus_file_exists(path));
    assert_int_equal(nimbus_file_write(path, NULL, 0, &error), NIMBUS_OK);
    assert_content(path, "");
    for (size_t n = 1; n < 500000; n = n * 7 + 1) {
        uint8_t *bytes = nimbus_alloc(n, 1);
        for (size_t i = 0; i < n; i++)
            bytes[i] = (uint8_t)nimbus_random_u64(9, n, i);
        assert_int_equal(nimbus_file_write(path, bytes, n, &error), NIMBUS_OK);
        nimbus_buffer b;
        assert_int_equal(nimbus_file_read(path, n, &b, &error), NIMBUS_OK);
        assert_int_equal(b.size, n);
        assert_memory_equal(b.bytes, bytes, n);
        nimbus_buffer_free(&b);
        assert_int_equal(nimbus_file_read(path, n - 1, &b, &error), NIMBUS_ERR_LIMIT);
        assert_null(b.bytes);
        nimbus_free(bytes);
    }
    assert_true(nimbus_file_exists(path));
    assert_int_equal(count_files(false), 1);
}

static void test_file_mode_follows_umask(void **state)
{
    (void)state;
    nimbus_error error;
    struct stat info;
    mode_t old = umask(027);
    assert_int_equal(write_text(in_folder("file"), "x", &error), NIMBUS_OK);
    umask(old);
    assert_int_equal(stat(in_folder("file"), &info), 0);
    assert_int_equal(info.st_mode & 0777, 0640);
}

static void test_file_refuses_what_is_no_file(void **state)
{
    (void)state;
    nimbus_error error;
    nimbus_buffer b;
    const char *const no_targets[] = {folder, "", "no/such/folder/file"};
    for (size_t i = 0; i < 3; i++) {
        assert_int_equal(write_text(no_targets[i], "x", &error), NIMBUS_ERR_IO);
        assert_non_null(strstr(error.message, no_targets[i]));
        assert_int_equal(nimbus_file_read(no_targets[i], 1 << 20, &b, &error), NIMBUS_ERR_IO);
        assert_null(b.bytes);
    }
    /* A pipe of our own stands for every device: a wrong rename onto a real one would lose it. */
    assert_int_equal(mkfifo(in_folder("pipe"), 0600), 0);
    assert_int_equal(nimbus_file_read(in_folder("pipe"), 100, &b, &error), NIMBUS_ERR_IO);
    assert_int_equal(write_text(in_folder("pipe"), "x", &error), NIMBUS_ERR_IO);
    assert_int_equal(count_files(false), 1);
    assert_int_equal(nimbus_file_read(in_folder("absent"), 100, &b, &error), NIMBUS_ERR_IO);
    assert_int_equal(error.os_errno, ENOENT);
}

static void test_file_write_follows_links(void **state)
{
    (void)state;
    nimbus_error error;
    struct stat info;
    assert_int_equal(write_text(in_folder("real"), "old", &error), NIMBUS_OK);
    assert_int_equal(symlink("real", in_folder("link")), 0);
    assert_int_equal(write_text(in_folder("link"), "new", &error), NIMBUS_OK);
    assert_int_equal(lstat(in_folder("link"), &info), 0);
    assert_true(S_ISLNK(info.st_mode));
    assert_content(in_folder("real"), "new");
    assert_int_equal(symlink("nowhere", in_folder("dangling")), 0);
    assert_int_equal(write_text(in_folder("dangling"), "x", &error), NIMBUS_ERR_IO);
}

static void test_file_reads_standard_input(void **state)
{
    (void)state;
    nimbus_error error;
    nimbus_buffer b;
    int ends[2], saved = dup(STDIN_FILENO);
    assert_int_equal(pipe(ends), 0);
    assert_int_equal(write(ends[1], "from a pipe", 11), 11);
    close(ends[1]);
    dup2(ends[0], STDIN_FILENO);
    close(ends[0]);
    nimbus_status status = nimbus_file_read("-", 100, &b, &error);
    dup2(saved, STDIN_FILENO);
    close(saved);
    assert_int_equal(status, NIMBUS_OK);
    assert_int_equal(b.size, 11);
    assert_memory_equal(b.bytes, "from a pipe", 11);
    nimbus_buffer_free(&b);
}

/* Fails the k-th system call for every k: the old file stays whole and nothing lies beside it. */
static void test_file_write_survives_every_failing_call(void **state)
{
    (void)state;
    nimbus_error error;
    const char *path = in_folder("file");
    long k = 0;
    for (;;) {
        assert_int_equal(write_text(path, "the old content", &error), NIMBUS_OK);
        nimbus_fail_file_call_after = ++k;
        nimbus_status status = write_text(path, "the new content, longer", &error);
        bool all_passed = nimbus_fail_file_call_after > 0;
        nimbus_fail_file_call_after = 0;
        assert_int_equal(count_files(false), 1);
        if (all_passed) {
            assert_int_equal(status, NIMBUS_OK);
            break;
        }
        assert_int_equal(status, NIMBUS_ERR_IO);
        assert_int_equal(error.os_errno, ENOSPC);
        assert_non_null(strstr(error.message, path));
        /* Only the folder's fsync comes after the new file has taken the old one's place. */
        bool replaced = strstr(error.message, ": written, but") != NULL;
        assert_content(path, replaced ? "the new content, longer" : "the old content");
    }
    /* open folder, open file, write, fsync, close, rename, fsync folder */
    assert_int_equal(k, 8);
    assert_content(path, "the new content, longer");
}

static void test_file_read_survives_every_failing_call(void **state)
{
    (void)state;
    nimbus_error error;
    nimbus_buffer b;
    const char *path = in_folder("file");
    assert_int_equal(write_text(path, "content", &error), NIMBUS_OK);
    for (long k = 1; k <= 3; k++) { /* open, read, read at the end */
        nimbus_fail_file_call_after = k;
        assert_int_equal(nimbus_file_read(path, 100, &b, &error), NIMBUS_ERR_IO);
        assert_null(b.bytes);
    }
    assert_int_equal(nimbus_fail_file_call_after, 0);
    nimbus_fail_alloc_after = 1;
    assert_int_equal(nimbus_file_read(path, 100, &b, &error), NIMBUS_ERR_MEMORY);
    assert_null(b.bytes);
    assert_content(path, "content");
}

/* The system itself cuts a write short, then refuses: a file size limit. */
static void test_file_write_survives_a_full_disk(void **state)
{
    (void)state;
    nimbus_error error;
    struct rlimit old, small;
    char block[5000];
    memset(block, 'n', sizeof block);
    const char *path = in_folder("file");
    assert_int_equal(write_text(path, "old", &error), NIMBUS_OK);
    assert_int_equal(getrlimit(RLIMIT_FSIZE, &old), 0);
    void (*handler)(int) = signal(SIGXFSZ, SIG_IGN);
    small = old;
    small.rlim_cur = 1000;
    assert_int_equal(setrlimit(RLIMIT_FSIZE, &small), 0);
    nimbus_status status = nimbus_file_write(path, block, sizeof block, &error);
    assert_int_equal(setrlimit(RLIMIT_FSIZE, &old), 0);
    signal(SIGXFSZ, handler);
    assert_int_equal(status, NIMBUS_ERR_IO);
    assert_int_equal(error.os_errno, EFBIG);
    assert_content(path, "old");
    assert_int_equal(count_files(false), 1);
}

/* kill -9 of a process that keeps replacing a file: always one whole content. */
static void test_file_write_survives_kill(void **state)
{
    (void)state;
    enum { SIZE = 200000, KILLS = 30 };
    nimbus_error error;
    nimbus_buffer b;
    const char *path = in_folder("file");
    uint8_t *block = nimbus_alloc(SIZE, 1);
    assert_int_equal(nimbus_file_write(path, block, SIZE, &error), NIMBUS_OK);
    for (uint64_t round = 0; round < KILLS; round++) {
        pid_t child = fork();
        assert_true(child >= 0);
        if (child == 0) {
            for (int i = 1;; i++) {
                memset(block, i, SIZE);
                if (nimbus_file_write(path, block, SIZE, &error) != NIMBUS_OK)
                    _exit(1);
            }
        }
        usleep((useconds_t)(500 + nimbus_random_below(3, 0, round, 10000)));
        kill(child, SIGKILL);
        int how;
        assert_int_equal(waitpid(child, &how, 0), child);
        assert_true(WIFSIGNALED(how) && WTERMSIG(how) == SIGKILL);
        assert_int_equal(nimbus_file_read(path, SIZE, &b, &error), NIMBUS_OK);
        assert_int_equal(b.size, SIZE);
        for (size_t i = 1; i < SIZE; i++) {
            if (b.bytes[i] != b.bytes[0])
                fail_msg("kill %d: byte %zu is of another version", (int)round, i);
        }
        nimbus_buffer_free(&b);
    }
    nimbus_free(block);
}

#define IN_FOLDER(test) cmocka_unit_test_setup_teardown(test, make_folder, remove_folder)

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_container_round_trip),
        cmocka_unit_test(test_container_empty_and_appended),
        cmocka_unit_test(test_container_refuses_every_prefix),
        cmocka_unit_test(test_container_refuses_bytes_behind_it),
        cmocka_unit_test(test_container_refuses_every_bit_flip),
        cmocka_unit_test(test_container_refuses_forgeries),
        cmocka_unit_test(test_container_out_of_memory),
        IN_FOLDER(test_file_round_trip),
        IN_FOLDER(test_file_mode_follows_umask),
        IN_FOLDER(test_file_refuses_what_is_no_file),
        IN_FOLDER(test_file_write_follows_links),
        IN_FOLDER(test_file_reads_standard_input),
        IN_FOLDER(test_file_write_survives_every_failing_call),
        IN_FOLDER(test_file_read_survives_every_failing_call),
        IN_FOLDER(test_file_write_survives_a_full_disk),
        IN_FOLDER(test_file_write_survives_kill),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
