/* file.c - whole files in, whole files out
 *
 * Writing never touches the old file: the bytes go to a temporary file beside it, reach the disk
 * (fsync), and take its place in one step (rename), which reaches the disk too (fsync of the
 * folder). A crash at any moment leaves the old or the new content, at worst with a temporary
 * file beside it. */
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/base.h"

enum { READ_CHUNK = 1 << 16, MAX_TRANSFER = 1 << 30, TEMPORARY_NAMES = 1000 };

/* ---- the system calls, each able to fail on demand in test builds ------------------------- */

#ifdef NIMBUS_TEST_HOOKS
long nimbus_fail_file_call_after;

static bool injected_failure(void)
{
    if (__atomic_load_n(&nimbus_fail_file_call_after, __ATOMIC_RELAXED) <= 0 ||
        __atomic_sub_fetch(&nimbus_fail_file_call_after, 1, __ATOMIC_RELAXED) != 0)
        return false;
    errno = ENOSPC;
    return true;
}
#else
static bool injected_failure(void)
{
    return false;
}
#endif

static int file_open_at(int folder, const char *path, int flags)
{
    int fd;
    if (injected_failure())
        return -1;
    do
        fd = openat(folder, path, flags | O_CLOEXEC, 0666);
    while (fd < 0 && errno == EINTR);
    return fd;
}

static int file_open(const char *path, int flags)
{
    return file_open_at(AT_FDCWD, path, flags);
}

static ssize_t file_read(int fd, void *bytes, size_t n)
{
    ssize_t got;
    if (injected_failure())
        return -1;
    do
        got = read(fd, bytes, n < MAX_TRANSFER ? n : MAX_TRANSFER);
    while (got < 0 && errno == EINTR);
    return got;
}

static ssize_t file_write(int fd, const void *bytes, size_t n)
{
    ssize_t put;
    if (injected_failure())
        return -1;
    do
        put = write(fd, bytes, n < MAX_TRANSFER ? n : MAX_TRANSFER);
    while (put < 0 && errno == EINTR);
    return put;
}

static int file_sync(int fd)
{
    int result;
    if (injected_failure())
        return -1;
    do
        result = fsync(fd);
    while (result < 0 && errno == EINTR);
    return result;
}

/* The descriptor is gone after close, whatever it returns; EINTR is no loss after an fsync. */
static int file_close(int fd)
{
    int result = close(fd);
    if (injected_failure())
        return -1;
    return result < 0 && errno == EINTR ? 0 : result;
}

static int file_rename(const char *from, const char *to)
{
    return injected_failure() ? -1 : rename(from, to);
}

/* ---- reading ----------------------------------------------------------------------------- */

/* Reads to the end of fd; `expected` bytes are announced (0: unknown). */
static nimbus_status read_all(int fd, const char *name, size_t expected, size_t limit,
                              nimbus_buffer *out, nimbus_error *error)
{
    /* One byte more than announced, so that the end is seen without growing. */
    size_t room = expected > 0 ? expected + 1 : READ_CHUNK;
    for (;;) {
        if (out->size == out->capacity) {
            size_t capacity = out->capacity > 0 ? out->capacity * 2 : room;
            uint8_t *grown = capacity <= out->capacity
                                 ? NULL
                                 : nimbus_realloc(out->bytes, out->size, capacity, 1);
            if (!grown)
                return nimbus_fail(error, NIMBUS_ERR_MEMORY,
                                   "%s: out of memory for a file of more than %zu bytes", name,
                                   out->size);
            out->bytes = grown;
            out->capacity = capacity;
        }
        ssize_t got = file_read(fd, out->bytes + out->size, out->capacity - out->size);
        if (got < 0)
            return nimbus_fail_errno(error, "%s: cannot read", name);
        if (got == 0)
            return NIMBUS_OK;
        out->size += (size_t)got;
        if (out->size > limit)
            return nimbus_fail(error, NIMBUS_ERR_LIMIT, "%s: larger than the limit of %zu bytes",
                               name, limit);
    }
}

static nimbus_status read_regular(int fd, const char *path, size_t limit, nimbus_buffer *out,
                                  nimbus_error *error)
{
    struct stat info;
    if (fstat(fd, &info) != 0)
        return nimbus_fail_errno(error, "%s: cannot read", path);
    if (!S_ISREG(info.st_mode))
        return nimbus_fail(error, NIMBUS_ERR_IO, "%s: %s, expected a regular file", path,
                           S_ISDIR(info.st_mode) ? "a folder" : "a device or pipe");
    if ((uintmax_t)info.st_size > limit)
        return nimbus_fail(error, NIMBUS_ERR_LIMIT, "%s: %jd bytes; the limit is %zu", path,
                           (intmax_t)info.st_size, limit);
    return read_all(fd, path, (size_t)info.st_size, limit, out, error);
}

nimbus_status nimbus_file_read(const char *path, size_t limit, nimbus_buffer *out,
                               nimbus_error *error)
{
    nimbus_status status;
    *out = (nimbus_buffer){0};
    if (limit >= PTRDIFF_MAX)
        limit = PTRDIFF_MAX - 1;
    if (strcmp(path, "-") == 0) {
        status = read_all(STDIN_FILENO, "standard input", 0, limit, out, error);
    } else {
        /* O_NONBLOCK: a pipe is refused below, not waited for. */
        int fd = file_open(path, O_RDONLY | O_NONBLOCK | O_NOCTTY);
        if (fd < 0)
            return nimbus_fail_errno(error, "%s: cannot open", path);
        status = read_regular(fd, path, limit, out, error);
        close(fd);
    }
    if (status != NIMBUS_OK)
        nimbus_buffer_free(out);
    return status;
}

/* Whether these are names with single slashes between. */
static bool is_plain_path(const char *below)
{
    for (;;) {
        size_t n = strcspn(below, "/");
        if (n == 0 || n > NAME_MAX || (n == 1 && below[0] == '.') ||
            (n == 2 && below[0] == '.' && below[1] == '.'))
            return false;
        if (!below[n])
            return true;
        below += n + 1;
    }
}

/* Opens a plain path below a folder, name by name, so that none of them can be a symbolic link;
 * -1 with errno set on failure. */
static int open_below(const char *folder, const char *below)
{
    char name[NAME_MAX + 1];
    int at = file_open(*folder ? folder : ".", O_RDONLY | O_DIRECTORY);
    while (at >= 0) {
        size_t n = strcspn(below, "/");
        memcpy(name, below, n);
        name[n] = '\0';
        int flags = below[n] ? O_DIRECTORY : O_NONBLOCK | O_NOCTTY;
        int fd = file_open_at(at, name, O_RDONLY | O_NOFOLLOW | flags);
        int cause = errno;
        close(at);
        errno = cause;
        at = fd;
        if (!below[n])
            break;
        below += n + 1;
    }
    return at;
}

static nimbus_status read_part(int fd, const char *name, uint64_t offset, size_t size,
                               nimbus_buffer *out, size_t *file_size, nimbus_error *error)
{
    struct stat info;
    if (fstat(fd, &info) != 0)
        return nimbus_fail_errno(error, "%s: cannot read", name);
    if (!S_ISREG(info.st_mode))
        return nimbus_fail(error, NIMBUS_ERR_IO, "%s: expected a regular file", name);
    *file_size = (size_t)info.st_size;
    if (offset > *file_size || size > *file_size - offset)
        return nimbus_fail(error, NIMBUS_ERR_TRUNCATED,
                           "%s: %zu bytes, expected %zu from byte %ju on", name, *file_size, size,
                           (uintmax_t)offset);
    out->bytes = nimbus_alloc(size, 1);
    if (!out->bytes)
        return nimbus_fail(error, NIMBUS_ERR_MEMORY, "%s: out of memory for %zu bytes", name, size);
    out->capacity = size;
    if (lseek(fd, (off_t)offset, SEEK_SET) < 0)
        return nimbus_fail_errno(error, "%s: cannot read", name);
    while (out->size < size) {
        ssize_t got = file_read(fd, out->bytes + out->size, size - out->size);
        if (got < 0)
            return nimbus_fail_errno(error, "%s: cannot read", name);
        if (got == 0)
            return nimbus_fail(error, NIMBUS_ERR_TRUNCATED, "%s: became shorter", name);
        out->size += (size_t)got;
    }
    return NIMBUS_OK;
}

nimbus_status nimbus_file_read_below(const char *folder, const char *below, uint64_t offset,
                                     size_t size, nimbus_buffer *out, size_t *file_size,
                                     nimbus_error *error)
{
    *out = (nimbus_buffer){0};
    *file_size = 0;
    if (!is_plain_path(below))
        return nimbus_fail(error, NIMBUS_ERR_FORMAT,
                           "'%.100s' is not the place of a file below a folder", below);
    int fd = open_below(folder, below);
    if (fd < 0)
        return nimbus_fail_errno(error, "%s: cannot open without following symbolic links", below);
    nimbus_status status = read_part(fd, below, offset, size, out, file_size, error);
    close(fd);
    if (status != NIMBUS_OK)
        nimbus_buffer_free(out);
    return status;
}

bool nimbus_file_exists(const char *path)
{
    struct stat info;
    return stat(path, &info) == 0;
}

/* ---- writing ----------------------------------------------------------------------------- */

/* Where a replacement of path goes: path itself, or the file a symbolic link leads to. Refuses
 * folders and devices, which a rename would displace. */
static nimbus_status find_target(const char *path, char target[PATH_MAX], nimbus_error *error)
{
    struct stat info;
    size_t length = strlen(path);
    if (length == 0 || length >= PATH_MAX || path[length - 1] == '/') {
        errno = length >= PATH_MAX ? ENAMETOOLONG : length == 0 ? ENOENT : EISDIR;
        return nimbus_fail_errno(error, "%s: cannot write", path);
    }
    memcpy(target, path, length + 1);
    if (lstat(path, &info) != 0) {
        if (errno == ENOENT)
            return NIMBUS_OK;
        return nimbus_fail_errno(error, "%s: cannot write", path);
    }
    if (S_ISLNK(info.st_mode) && (!realpath(path, target) || stat(target, &info) != 0))
        return nimbus_fail_errno(error, "%s: cannot follow this symbolic link", path);
    if (!S_ISREG(info.st_mode))
        return nimbus_fail(error, NIMBUS_ERR_IO, "%s: %s, expected a regular file or nothing", path,
                           S_ISDIR(info.st_mode) ? "a folder" : "a device or pipe");
    return NIMBUS_OK;
}

/* Creates a file beside target that did not exist before; -1 with errno set on failure. */
static int open_temporary(const char *target, char temporary[PATH_MAX])
{
    for (int i = 0; i < TEMPORARY_NAMES; i++) {
        int n = snprintf(temporary, PATH_MAX, "%s.tmp-%ld-%d", target, (long)getpid(), i);
        if (n < 0 || n >= PATH_MAX) {
            errno = ENAMETOOLONG;
            return -1;
        }
        int fd = file_open(temporary, O_WRONLY | O_CREAT | O_EXCL);
        if (fd >= 0 || errno != EEXIST)
            return fd;
    }
    return -1;
}

static int open_folder_of(const char *target)
{
    char folder[PATH_MAX];
    const char *slash = strrchr(target, '/');
    size_t n = slash ? (size_t)(slash - target) : 0;
    memcpy(folder, target, n);
    folder[n] = '\0';
    return file_open(n > 0 ? folder : slash ? "/" : ".", O_RDONLY | O_DIRECTORY);
}

/* Writes and syncs everything; closes fd in any case. -1 with errno set on failure. */
static int fill_and_close(int fd, const uint8_t *bytes, size_t size)
{
    int result = 0;
    while (size > 0 && result == 0) {
        ssize_t put = file_write(fd, bytes, size);
        if (put > 0) {
            bytes += put;
            size -= (size_t)put;
        } else {
            result = -1;
            if (put == 0)
                errno = ENOSPC;
        }
    }
    if (result == 0)
        result = file_sync(fd);
    int cause = errno;
    int closed = file_close(fd);
    if (result != 0)
        errno = cause;
    return result != 0 ? result : closed;
}

nimbus_status nimbus_file_write(const char *path, const void *bytes, size_t size,
                                nimbus_error *error)
{
    char target[PATH_MAX], temporary[PATH_MAX];
    int folder = -1;
    bool created = false;
    nimbus_status status = find_target(path, target, error);
    if (status != NIMBUS_OK)
        return status;
    folder = open_folder_of(target);
    if (folder < 0) {
        status = nimbus_fail_errno(error, "%s: cannot open its folder", path);
        goto done;
    }
    int fd = open_temporary(target, temporary);
    if (fd < 0) {
        status = nimbus_fail_errno(error, "%s: cannot create a file beside it", path);
        goto done;
    }
    created = true;
    if (fill_and_close(fd, bytes, size) != 0 || file_rename(temporary, target) != 0) {
        status = nimbus_fail_errno(error, "%s: cannot write", path);
        goto done;
    }
    created = false;
    /* Some file systems cannot sync a folder (EINVAL): then there is nothing more to do. */
    if (file_sync(folder) != 0 && errno != EINVAL)
        status = nimbus_fail_errno(
            error, "%s: written, but its folder could not be synced to the disk", path);
done:
    if (created)
        unlink(temporary);
    if (folder >= 0)
        close(folder);
    return status;
}
