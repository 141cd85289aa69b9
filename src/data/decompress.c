/* decompress.c - gzip and xz files, recognised by their first bytes
 *
 * The output grows with what really comes out and is capped, so that a small file cannot claim
 * the machine's memory. */
#include <lzma.h>
#include <string.h>
#include <zlib.h>

#include "data/data.h"

#define EXPANSION  200 /* bytes out per byte in, beyond FREE_BYTES */
#define FREE_BYTES ((size_t)64 << 20)
#define XZ_MEMORY  ((uint64_t)100 << 20) /* xz -9 needs 65 MiB */
#define CHUNK      ((size_t)1 << 30)     /* zlib counts in 32 bits */

static size_t output_limit(size_t n_in)
{
    if (n_in > (NIMBUS_DATA_MAX_BYTES - FREE_BYTES) / EXPANSION)
        return NIMBUS_DATA_MAX_BYTES;
    return FREE_BYTES + n_in * EXPANSION;
}

/* Makes room in a full buffer. */
static nimbus_status grow(nimbus_buffer *out, size_t n_in, nimbus_error *error)
{
    size_t limit = output_limit(n_in);
    if (out->capacity >= limit)
        return nimbus_fail(error, NIMBUS_ERR_LIMIT, "%zu compressed bytes expand to more than %zu",
                           n_in, limit);
    size_t capacity = out->capacity ? out->capacity * 2 : n_in * 2 + 4096;
    if (capacity > limit)
        capacity = limit;
    uint8_t *bytes = nimbus_realloc(out->bytes, out->capacity, capacity, 1);
    if (!bytes)
        return nimbus_fail(error, NIMBUS_ERR_MEMORY, "no memory for %zu decompressed bytes",
                           capacity);
    out->bytes = bytes;
    out->capacity = capacity;
    return NIMBUS_OK;
}

static void *zlib_alloc(void *opaque, uInt n, uInt size)
{
    (void)opaque;
    return nimbus_alloc(n, size);
}

static void codec_free(void *opaque, void *p)
{
    (void)opaque;
    nimbus_free(p);
}

static void *xz_alloc(void *opaque, size_t n, size_t size)
{
    (void)opaque;
    return nimbus_alloc(n, size);
}

static nimbus_status gzip_error(int code, uint64_t at, nimbus_error *error)
{
    if (code == Z_MEM_ERROR)
        return nimbus_fail(error, NIMBUS_ERR_MEMORY, "no memory to decompress gzip");
    if (code == Z_BUF_ERROR)
        return nimbus_fail_at(error, NIMBUS_ERR_TRUNCATED, at,
                              "the gzip data end before their end mark");
    return nimbus_fail_at(error, NIMBUS_ERR_FORMAT, at,
                          "damaged gzip data near byte %llu (zlib error %d)",
                          (unsigned long long)at, code);
}

static nimbus_status decompress_gzip(const nimbus_buffer *in, nimbus_buffer *out,
                                     nimbus_error *error)
{
    z_stream z = {.zalloc = zlib_alloc, .zfree = codec_free};
    int code = inflateInit2(&z, 15 + 16);
    if (code != Z_OK)
        return gzip_error(code, 0, error);
    nimbus_status status = NIMBUS_OK;
    size_t at = 0;
    while (status == NIMBUS_OK) {
        if (out->size == out->capacity && (status = grow(out, in->size, error)) != NIMBUS_OK)
            break;
        size_t n_in = in->size - at < CHUNK ? in->size - at : CHUNK;
        size_t left = out->capacity - out->size, n_out = left < CHUNK ? left : CHUNK;
        z.next_in = in->bytes + at;
        z.avail_in = (uInt)n_in;
        z.next_out = out->bytes + out->size;
        z.avail_out = (uInt)n_out;
        code = inflate(&z, Z_NO_FLUSH);
        at += n_in - z.avail_in;
        out->size += n_out - z.avail_out;
        if (code == Z_STREAM_END) {
            if (at == in->size)
                break;
            code = inflateReset(&z); /* another member follows */
        }
        if (code != Z_OK)
            status = gzip_error(code, at, error);
    }
    inflateEnd(&z);
    return status;
}

static nimbus_status xz_error(lzma_ret code, uint64_t at, nimbus_error *error)
{
    if (code == LZMA_MEM_ERROR)
        return nimbus_fail(error, NIMBUS_ERR_MEMORY, "no memory to decompress xz");
    if (code == LZMA_MEMLIMIT_ERROR)
        return nimbus_fail(error, NIMBUS_ERR_LIMIT,
                           "the xz data need more than %llu MiB to decompress",
                           (unsigned long long)(XZ_MEMORY >> 20));
    if (code == LZMA_BUF_ERROR)
        return nimbus_fail_at(error, NIMBUS_ERR_TRUNCATED, at,
                              "the xz data end before their end mark");
    return nimbus_fail_at(error, NIMBUS_ERR_FORMAT, at,
                          "damaged xz data near byte %llu (lzma error %d)", (unsigned long long)at,
                          (int)code);
}

static nimbus_status decompress_xz(const nimbus_buffer *in, nimbus_buffer *out, nimbus_error *error)
{
    const lzma_allocator allocator = {xz_alloc, codec_free, NULL};
    lzma_stream z = LZMA_STREAM_INIT;
    z.allocator = &allocator;
    lzma_ret code = lzma_stream_decoder(&z, XZ_MEMORY, LZMA_CONCATENATED);
    if (code != LZMA_OK)
        return xz_error(code, 0, error);
    nimbus_status status = NIMBUS_OK;
    z.next_in = in->bytes;
    z.avail_in = in->size;
    while (status == NIMBUS_OK) {
        if (out->size == out->capacity && (status = grow(out, in->size, error)) != NIMBUS_OK)
            break;
        z.next_out = out->bytes + out->size;
        z.avail_out = out->capacity - out->size;
        code = lzma_code(&z, LZMA_FINISH);
        out->size = out->capacity - z.avail_out;
        if (code == LZMA_STREAM_END)
            break;
        if (code != LZMA_OK)
            status = xz_error(code, z.total_in, error);
    }
    lzma_end(&z);
    return status;
}

nimbus_status nimbus_decompress(nimbus_buffer *buffer, nimbus_error *error)
{
    static const uint8_t gzip_magic[] = {0x1f, 0x8b}, xz_magic[] = {0xfd, '7', 'z', 'X', 'Z', 0};
    nimbus_buffer out = {0};
    nimbus_status status;
    if (buffer->size >= sizeof gzip_magic && !memcmp(buffer->bytes, gzip_magic, sizeof gzip_magic))
        status = decompress_gzip(buffer, &out, error);
    else if (buffer->size >= sizeof xz_magic && !memcmp(buffer->bytes, xz_magic, sizeof xz_magic))
        status = decompress_xz(buffer, &out, error);
    else
        return NIMBUS_OK;
    if (status != NIMBUS_OK) {
        nimbus_buffer_free(&out);
        return status;
    }
    nimbus_buffer_free(buffer);
    *buffer = out;
    return NIMBUS_OK;
}
