/* bytes.c - a bounds-checked cursor over input, a growing buffer for output, CRC-32C
 *
 * All integers are assembled from bytes, so nothing here depends on the machine's byte order or
 * on alignment. */
#include "base/base.h"

/* ---- reading ----------------------------------------------------------------------------- */

nimbus_reader nimbus_reader_of(const void *bytes, size_t size)
{
    return (nimbus_reader){.bytes = bytes, .size = size};
}

size_t nimbus_reader_left(const nimbus_reader *r)
{
    return r->failed ? 0 : r->size - r->at;
}

const uint8_t *nimbus_read_bytes(nimbus_reader *r, size_t n)
{
    static const uint8_t nothing[1];
    if (r->failed || n > r->size - r->at) {
        r->failed = true;
        return NULL;
    }
    if (n == 0)
        return nothing;
    const uint8_t *p = r->bytes + r->at;
    r->at += n;
    return p;
}

/* Little-endian value of n <= 8 bytes; 0 past the end. */
static uint64_t read_le(nimbus_reader *r, size_t n)
{
    const uint8_t *p = nimbus_read_bytes(r, n);
    uint64_t v = 0;
    for (size_t i = 0; p && i < n; i++)
        v |= (uint64_t)p[i] << (8 * i);
    return v;
}

uint8_t nimbus_read_u8(nimbus_reader *r)
{
    return (uint8_t)read_le(r, 1);
}

uint16_t nimbus_read_u16le(nimbus_reader *r)
{
    return (uint16_t)read_le(r, 2);
}

uint32_t nimbus_read_u32le(nimbus_reader *r)
{
    return (uint32_t)read_le(r, 4);
}

uint64_t nimbus_read_u64le(nimbus_reader *r)
{
    return read_le(r, 8);
}

uint32_t nimbus_read_u32be(nimbus_reader *r)
{
    return __builtin_bswap32((uint32_t)read_le(r, 4));
}

float nimbus_read_f32le(nimbus_reader *r)
{
    uint32_t bits = nimbus_read_u32le(r);
    float v;
    memcpy(&v, &bits, sizeof v);
    return v;
}

float nimbus_float_of_half(uint16_t half)
{
    const uint32_t sign = (uint32_t)(half >> 15) << 31;
    const uint32_t exponent = half >> 10 & 0x1f, mantissa = half & 0x3ff;
    const uint32_t bits =
        sign | (exponent == 0x1f ? 0xff : exponent + 127 - 15) << 23 | mantissa << 13;
    float value;
    if (exponent == 0) {
        value = (float)mantissa * 0x1p-24F;
        return sign ? -value : value;
    }
    memcpy(&value, &bits, sizeof value);
    return value;
}

/* ---- writing ----------------------------------------------------------------------------- */

static bool reserve(nimbus_buffer *b, size_t n)
{
    if (b->failed)
        return false;
    if (n <= b->capacity - b->size)
        return true;
    size_t need = b->size + n;
    size_t capacity = b->capacity > SIZE_MAX / 2 ? SIZE_MAX : b->capacity * 2;
    if (capacity < 256)
        capacity = 256;
    if (capacity < need)
        capacity = need;
    uint8_t *grown = need < n ? NULL : nimbus_realloc(b->bytes, b->size, capacity, 1);
    if (!grown) {
        b->failed = true;
        return false;
    }
    b->bytes = grown;
    b->capacity = capacity;
    return true;
}

void nimbus_write_bytes(nimbus_buffer *b, const void *bytes, size_t n)
{
    if (n == 0 || !reserve(b, n))
        return;
    memcpy(b->bytes + b->size, bytes, n);
    b->size += n;
}

static void write_le(nimbus_buffer *b, uint64_t v, size_t n)
{
    uint8_t bytes[8];
    for (size_t i = 0; i < n; i++)
        bytes[i] = (uint8_t)(v >> (8 * i));
    nimbus_write_bytes(b, bytes, n);
}

void nimbus_write_u8(nimbus_buffer *b, uint8_t v)
{
    write_le(b, v, 1);
}

void nimbus_write_u16le(nimbus_buffer *b, uint16_t v)
{
    write_le(b, v, 2);
}

void nimbus_write_u32le(nimbus_buffer *b, uint32_t v)
{
    write_le(b, v, 4);
}

void nimbus_write_u64le(nimbus_buffer *b, uint64_t v)
{
    write_le(b, v, 8);
}

void nimbus_write_f32le(nimbus_buffer *b, float v)
{
    uint32_t bits;
    memcpy(&bits, &v, sizeof bits);
    nimbus_write_u32le(b, bits);
}

void nimbus_write_pad(nimbus_buffer *b, size_t alignment)
{
    size_t n = (alignment - b->size % alignment) % alignment;
    if (!reserve(b, n))
        return;
    if (n > 0)
        memset(b->bytes + b->size, 0, n);
    b->size += n;
}

void nimbus_buffer_free(nimbus_buffer *b)
{
    nimbus_free(b->bytes);
    *b = (nimbus_buffer){0};
}

/* ---- CRC-32C, eight bytes at a time -------------------------------------------------------
 *
 * slices[k][v] is the register after byte v and k zero bytes ("slicing by 8", Kounavis and Berry
 * 2005). A CRC is linear over bits, so an entry is the XOR of the entries of its bits; those 64
 * are successive states of the shift register that starts with the polynomial: slice 0 bit 7,
 * bit 6, ... bit 0, slice 1 bit 7, ... */

#define ENTRY(v, b7, b6, b5, b4, b3, b2, b1, b0)                                                   \
    (((v)&128 ? b7 : 0) ^ ((v)&64 ? b6 : 0) ^ ((v)&32 ? b5 : 0) ^ ((v)&16 ? b4 : 0) ^              \
     ((v)&8 ? b3 : 0) ^ ((v)&4 ? b2 : 0) ^ ((v)&2 ? b1 : 0) ^ ((v)&1 ? b0 : 0))
#define ENTRIES4(v, ...)                                                                           \
    ENTRY(v, __VA_ARGS__), ENTRY((v) + 1, __VA_ARGS__), ENTRY((v) + 2, __VA_ARGS__),               \
        ENTRY((v) + 3, __VA_ARGS__)
#define ENTRIES16(v, ...)                                                                          \
    ENTRIES4(v, __VA_ARGS__), ENTRIES4((v) + 4, __VA_ARGS__), ENTRIES4((v) + 8, __VA_ARGS__),      \
        ENTRIES4((v) + 12, __VA_ARGS__)
#define ENTRIES64(v, ...)                                                                          \
    ENTRIES16(v, __VA_ARGS__), ENTRIES16((v) + 16, __VA_ARGS__), ENTRIES16((v) + 32, __VA_ARGS__), \
        ENTRIES16((v) + 48, __VA_ARGS__)
#define SLICE(...)                                                                                 \
    {                                                                                              \
        ENTRIES64(0, __VA_ARGS__), ENTRIES64(64, __VA_ARGS__), ENTRIES64(128, __VA_ARGS__),        \
            ENTRIES64(192, __VA_ARGS__)                                                            \
    }

static const uint32_t slices[8][256] = {
    SLICE(0x82f63b78, 0x417b1dbc, 0x20bd8ede, 0x105ec76f, 0x8ad958cf, 0xc79a971f, 0xe13b70f7,
          0xf26b8303),
    SLICE(0xfbc3faf9, 0xff17c604, 0x7f8be302, 0x3fc5f181, 0x9d14c3b8, 0x4e8a61dc, 0x274530ee,
          0x13a29877),
    SLICE(0x8b277743, 0xc76580d9, 0xe144fb14, 0x70a27d8a, 0x38513ec5, 0x9edea41a, 0x4f6f520d,
          0xa541927e),
    SLICE(0x52a0c93f, 0xaba65fe7, 0xd725148b, 0xe964b13d, 0xf64463e6, 0x7b2231f3, 0xbf672381,
          0xdd45aab8),
    SLICE(0x6ea2d55c, 0x37516aae, 0x1ba8b557, 0x8f2261d3, 0xc5670b91, 0xe045beb0, 0x7022df58,
          0x38116fac),
    SLICE(0x1c08b7d6, 0x0e045beb, 0x85f4168d, 0xc00c303e, 0x6006181f, 0xb2f53777, 0xdb8ca0c3,
          0xef306b19),
    SLICE(0xf56e0ef4, 0x7ab7077a, 0x3d5b83bd, 0x9c5bfaa6, 0x4e2dfd53, 0xa5e0c5d1, 0xd0065990,
          0x68032cc8),
    SLICE(0x34019664, 0x1a00cb32, 0x0d006599, 0x847609b4, 0x423b04da, 0x211d826d, 0x9278fa4e,
          0x493c7d27),
};

uint32_t nimbus_crc32c(uint32_t crc, const void *bytes, size_t n)
{
    const uint8_t *p = bytes;
    crc = ~crc;
    for (; n >= 8; n -= 8, p += 8) {
        uint32_t low = crc ^ ((uint32_t)p[0] | (uint32_t)p[1] << 8 | (uint32_t)p[2] << 16 |
                              (uint32_t)p[3] << 24);
        crc = slices[7][low & 255] ^ slices[6][low >> 8 & 255] ^ slices[5][low >> 16 & 255] ^
              slices[4][low >> 24] ^ slices[3][p[4]] ^ slices[2][p[5]] ^ slices[1][p[6]] ^
              slices[0][p[7]];
    }
    for (; n > 0; n--, p++)
        crc = crc >> 8 ^ slices[0][(crc ^ *p) & 255];
    return ~crc;
}
