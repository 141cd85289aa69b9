/* base.h - what every stage stands on: errors, memory, bytes, files, random numbers, threads.
 *
 * One header for the small parts of src/base, in reading order. Nothing here prints, exits or
 * keeps state (the two fault-injection hooks of test builds apart). */
#ifndef NIMBUS_BASE_H
#define NIMBUS_BASE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "nimbus.h"

#ifdef NIMBUS_FREESTANDING
/* What compilers ask of their surroundings anyway (strlen apart), and no header promises there. */
void *memcpy(void *to, const void *from, size_t n);
void *memmove(void *to, const void *from, size_t n);
void *memset(void *to, int value, size_t n);
int memcmp(const void *a, const void *b, size_t n);
size_t strlen(const char *s);
/* uint32_t may be a long there: formats are checked elsewhere. */
#define NIMBUS_PRINTF(text, first)
#else
#include <string.h>
#define NIMBUS_PRINTF(text, first) __attribute__((format(printf, text, first)))
#endif

/* Bytes of one element. */
static inline size_t nimbus_dtype_size(nimbus_dtype dtype)
{
    return dtype == NIMBUS_U8 ? 1 : sizeof(float);
}

/* ---- error.c: failing with a message ---------------------------------------------------- */

/* Fills error (may be NULL) and returns status, so that `return nimbus_fail(...)` reads well.
 * Lines longer than the message field are cut. */
NIMBUS_MUST_CHECK nimbus_status nimbus_fail(nimbus_error *error, nimbus_status status,
                                            const char *format, ...) NIMBUS_PRINTF(3, 4);

/* The same with a byte offset, and with the current errno (status NIMBUS_ERR_IO); the message of
 * the latter ends with ": " and the system's text. */
NIMBUS_MUST_CHECK nimbus_status nimbus_fail_at(nimbus_error *error, nimbus_status status,
                                               uint64_t offset, const char *format, ...)
    NIMBUS_PRINTF(4, 5);
NIMBUS_MUST_CHECK nimbus_status nimbus_fail_errno(nimbus_error *error, const char *format, ...)
    NIMBUS_PRINTF(2, 3);

/* Puts "prefix: " in front of a message already there (a file's name, say); returns status. */
NIMBUS_MUST_CHECK nimbus_status nimbus_fail_prefix(nimbus_error *error, nimbus_status status,
                                                   const char *format, ...) NIMBUS_PRINTF(3, 4);

/* ---- memory.c: the only place that allocates -------------------------------------------- */

/* n elements of `size` bytes, zeroed, aligned to 64 bytes; NULL if it overflows or fails.
 * n == 0 returns a valid pointer. Freed with nimbus_free. */
void *nimbus_alloc(size_t n, size_t size);
/* Grows or shrinks to n elements, keeping the first min(n_old, n); new elements are zero. On
 * failure returns NULL and the old block stays valid. */
void *nimbus_realloc(void *old, size_t n_old, size_t n, size_t size);
void nimbus_free(void *p); /* NULL is allowed */
char *nimbus_strdup(const char *s);
bool nimbus_mul_overflows(size_t a, size_t b, size_t *product);

/* ---- bytes.c: a bounds-checked cursor over input, a growing buffer for output ------------ */

typedef struct nimbus_reader {
    const uint8_t *bytes;
    size_t size, at;
    bool failed; /* sticky: a read past the end sets it and yields zeros */
} nimbus_reader;

nimbus_reader nimbus_reader_of(const void *bytes, size_t size);
size_t nimbus_reader_left(const nimbus_reader *r);
/* Next n bytes, or NULL (and failed) if fewer are left. */
const uint8_t *nimbus_read_bytes(nimbus_reader *r, size_t n);
uint8_t nimbus_read_u8(nimbus_reader *r);
uint16_t nimbus_read_u16le(nimbus_reader *r);
uint32_t nimbus_read_u32le(nimbus_reader *r);
uint64_t nimbus_read_u64le(nimbus_reader *r);
uint32_t nimbus_read_u32be(nimbus_reader *r);
float nimbus_read_f32le(nimbus_reader *r);

/* The value of 16 bits in the half-precision format of IEEE 754. */
float nimbus_float_of_half(uint16_t half);

typedef struct nimbus_buffer {
    uint8_t *bytes;
    size_t size, capacity;
    bool failed; /* sticky: out of memory; checked once at the end */
} nimbus_buffer;

void nimbus_write_bytes(nimbus_buffer *b, const void *bytes, size_t n);
void nimbus_write_u8(nimbus_buffer *b, uint8_t v);
void nimbus_write_u16le(nimbus_buffer *b, uint16_t v);
void nimbus_write_u32le(nimbus_buffer *b, uint32_t v);
void nimbus_write_u64le(nimbus_buffer *b, uint64_t v);
void nimbus_write_f32le(nimbus_buffer *b, float v);
void nimbus_write_pad(nimbus_buffer *b, size_t alignment); /* zeros up to a multiple */
void nimbus_buffer_free(nimbus_buffer *b);

/* CRC-32C (Castagnoli, reflected polynomial 0x82f63b78) of bytes, continuing from crc (0 first). */
uint32_t nimbus_crc32c(uint32_t crc, const void *bytes, size_t n);

/* ---- container.c: checksummed sections in one file (.nimbus programs, checkpoints) -------
 *
 *     offset  bytes
 *          0  8   magic, e.g. "NIMBUS\r\n"
 *          8  2+2 format major, minor (little-endian, like everything here)
 *         12  4   n_sections
 *         16  8   size of the whole file
 *         24  4   CRC-32C of the section table
 *         28  4   CRC-32C of bytes 0..27
 *         32  24*n_sections  table: tag u32, crc32c u32, offset u64, length u64
 *          .. sections in table order, each starting at a multiple of 64, gaps filled with zeros,
 *             the file ends with the last section
 *
 * A reader accepts its own major version and any minor up to its own. Every byte is covered by a
 * checksum or must be zero, so no truncation and no single-bit flip goes unseen. */

typedef struct nimbus_section {
    uint32_t tag; /* four characters, NIMBUS_TAG('M','E','T','A') */
    const uint8_t *bytes;
    size_t size;
} nimbus_section;

#define NIMBUS_TAG(a, b, c, d)                                                                     \
    ((uint32_t)(a) | (uint32_t)(b) << 8 | (uint32_t)(c) << 16 | (uint32_t)(d) << 24)
#define NIMBUS_MAX_SECTIONS 4096

/* Appends a whole container to out. Error: MEMORY. */
NIMBUS_MUST_CHECK nimbus_status nimbus_container_write(nimbus_buffer *out, const char magic[8],
                                                       uint16_t major, uint16_t minor,
                                                       const nimbus_section *sections,
                                                       size_t n_sections, nimbus_error *error);

/* Checks everything, and allocates nothing. Errors: FORMAT, TRUNCATED, CHECKSUM, VERSION, LIMIT. */
NIMBUS_MUST_CHECK nimbus_status nimbus_container_check(const void *bytes, size_t size,
                                                       const char magic[8], uint16_t major,
                                                       uint16_t minor, size_t *n_sections,
                                                       nimbus_error *error);
/* Section i of a checked container, pointing into bytes. */
nimbus_section nimbus_container_section(const void *bytes, size_t i);

/* Checks everything and returns an array of sections pointing into bytes; the array is freed with
 * nimbus_free. Errors: FORMAT, TRUNCATED, CHECKSUM, VERSION, LIMIT, MEMORY. */
NIMBUS_MUST_CHECK nimbus_status nimbus_container_read(const void *bytes, size_t size,
                                                      const char magic[8], uint16_t major,
                                                      uint16_t minor, nimbus_section **sections,
                                                      size_t *n_sections, nimbus_error *error);

/* ---- file.c: whole files in, whole files out --------------------------------------------------
 */

/* Reads a regular file, or standard input for "-", of at most `limit` bytes; the buffer is freed
 * with nimbus_buffer_free. Errors: IO, LIMIT, MEMORY; the message names the path. */
NIMBUS_MUST_CHECK nimbus_status nimbus_file_read(const char *path, size_t limit, nimbus_buffer *out,
                                                 nimbus_error *error);

/* Replaces path by these bytes so that at every moment either the old or the new content is there,
 * whole: temporary file beside it, write, fsync, rename, fsync of the folder. On failure the old
 * file is untouched and the temporary one removed, unless only the folder's fsync failed: then the
 * new content is in place and the message says so. Follows symbolic links; refuses anything there
 * but a regular file. */
NIMBUS_MUST_CHECK nimbus_status nimbus_file_write(const char *path, const void *bytes, size_t size,
                                                  nimbus_error *error);
bool nimbus_file_exists(const char *path);

/* Reads `size` bytes at `offset` of a regular file below a folder, whose place there somebody else
 * chose: `below` has to be names with single slashes between, none of them "." or "..", and no
 * symbolic link is followed below the folder ("" is the working one). *file_size: of the whole
 * file. Errors: FORMAT (no such place), IO, TRUNCATED (the file is shorter), MEMORY. */
NIMBUS_MUST_CHECK nimbus_status nimbus_file_read_below(const char *folder, const char *below,
                                                       uint64_t offset, size_t size,
                                                       nimbus_buffer *out, size_t *file_size,
                                                       nimbus_error *error);

/* ---- random.c: counter-based random numbers ---------------------------------------------
 * A value depends only on (seed, stream, counter), never on the order of calls or on threads. */

uint64_t nimbus_random_u64(uint64_t seed, uint64_t stream, uint64_t counter);
double nimbus_random_uniform(uint64_t seed, uint64_t stream, uint64_t counter); /* [0, 1) */
double nimbus_random_normal(uint64_t seed, uint64_t stream, uint64_t counter);
size_t nimbus_random_below(uint64_t seed, uint64_t stream, uint64_t counter, size_t n);
/* Seeded Fisher-Yates shuffle of n indices. */
void nimbus_random_shuffle(uint64_t seed, uint64_t stream, uint32_t *items, size_t n);

/* ---- threads.c --------------------------------------------------------------------------- */

/* Calls body(arg, i) for i in 0..n_items-1 on up to n_threads threads (0: all cores). Items are
 * independent; results must not depend on which thread runs which. */
void nimbus_parallel(unsigned n_threads, size_t n_items, void (*body)(void *arg, size_t i),
                     void *arg);
unsigned nimbus_thread_count(unsigned n_threads); /* resolves 0 */

/* From here on floats too small to be normal count as 0 in this thread, and in loops that it
 * starts: gradients of softmax have many, and arithmetic with them is slow. Returns what to give to
 * nimbus_small_as_before. Does nothing on CPUs that it does not know. */
uint64_t nimbus_small_as_zero(void);
void nimbus_small_as_before(uint64_t mode);

/* ---- clock.c ----------------------------------------------------------------------------- */

double nimbus_seconds(void);     /* since some fixed moment, unaffected by clock changes */
double nimbus_cpu_seconds(void); /* spent by this thread */

/* ---- fault injection, in test builds only (NIMBUS_TEST_HOOKS) ----------------------------- */
#ifdef NIMBUS_TEST_HOOKS
extern long nimbus_fail_alloc_after;     /* fail the k-th allocation from now (1 = next); 0 off */
extern long nimbus_fail_file_call_after; /* open/read/write/fsync/close/rename: ENOSPC */
#endif

#endif
