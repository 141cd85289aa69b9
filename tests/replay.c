/* replay.c - runs a fuzz target in an ordinary build over its seed corpus
 *
 * The argument is the corpus folder. Each file is given whole, then cut
 * at 64 places, then with 256 single bytes changed; a target must survive all of them. Exits with
 * 77, which ctest shows as skipped, if the folder has no files. */
#include <dirent.h>
#include <stdio.h>
#include <string.h>

#include "base/base.h"

int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t size);

enum { CUTS = 64, CHANGES = 256, MAX_SEED_BYTES = 1 << 24, SKIPPED = 77 };

/* A copy of exactly n bytes, so that a sanitizer sees every read past the end. */
static void run_copy(const uint8_t *bytes, size_t n, size_t change_at, uint8_t change)
{
    uint8_t *copy = nimbus_alloc(n, 1);
    if (!copy)
        return;
    if (n > 0)
        memcpy(copy, bytes, n);
    if (change_at < n)
        copy[change_at] ^= change;
    (void)LLVMFuzzerTestOneInput(copy, n);
    nimbus_free(copy);
}

static void replay(const nimbus_buffer *seed)
{
    run_copy(seed->bytes, seed->size, SIZE_MAX, 0);
    for (size_t i = 0; i < CUTS; i++)
        run_copy(seed->bytes, seed->size * i / CUTS, SIZE_MAX, 0);
    for (size_t i = 0; i < CHANGES; i++) {
        size_t at = nimbus_random_below(1, seed->size, 2 * i, seed->size);
        uint8_t change = (uint8_t)(1 + nimbus_random_below(1, seed->size, 2 * i + 1, 255));
        run_copy(seed->bytes, seed->size, at, change);
    }
}

int main(int argc, char **argv)
{
    DIR *folder = argc == 2 ? opendir(argv[1]) : NULL;
    size_t n_files = 0;
    int result = 0;
    while (folder && result == 0) {
        const struct dirent *entry = readdir(folder);
        if (!entry)
            break;
        if (entry->d_name[0] == '.')
            continue;
        char path[4096];
        nimbus_buffer seed;
        nimbus_error error;
        snprintf(path, sizeof path, "%s/%s", argv[1], entry->d_name);
        if (nimbus_file_read(path, MAX_SEED_BYTES, &seed, &error) != NIMBUS_OK) {
            fprintf(stderr, "%s\n", error.message);
            result = 1;
        } else {
            replay(&seed);
            nimbus_buffer_free(&seed);
            n_files++;
        }
    }
    if (folder)
        closedir(folder);
    printf("replayed %zu files, each with %d cuts and %d changes\n", n_files, CUTS, CHANGES);
    if (n_files == 0 && result == 0) {
        printf("skipped: no seeds in %s\n", argc == 2 ? argv[1] : "(no folder given)");
        result = SKIPPED;
    }
    return result;
}
