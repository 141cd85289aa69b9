/* protobuf.h - writes protobuf messages, which ONNX files are made of
 *
 * A message is a sequence of fields: a tag (number * 8 + wire type: 0 varint, 2 length and bytes,
 * 5 four bytes) and a value; messages within messages are fields of bytes. */
#ifndef NIMBUS_PROTOBUF_H
#define NIMBUS_PROTOBUF_H

#include <stdint.h>
#include <stdlib.h>
#include <string.h>

typedef struct message {
    unsigned char *bytes;
    size_t n, room;
    int failed; /* out of memory */
} message;

static inline void put(message *to, const void *bytes, size_t n)
{
    if (to->n + n > to->room && !to->failed) {
        size_t room = 2 * (to->n + n) + 64;
        unsigned char *larger = realloc(to->bytes, room);
        to->failed = !larger;
        to->bytes = larger ? larger : to->bytes;
        to->room = larger ? room : to->room;
    }
    if (!to->failed && n) {
        memcpy(to->bytes + to->n, bytes, n);
        to->n += n;
    }
}

static inline void put_varint(message *to, uint64_t value)
{
    do {
        unsigned char byte = (unsigned char)((value & 0x7f) | (value > 0x7f ? 0x80 : 0));
        put(to, &byte, 1);
        value >>= 7;
    } while (value);
}

static inline void put_int(message *to, unsigned field, uint64_t value)
{
    put_varint(to, field << 3);
    put_varint(to, value);
}

static inline void put_bytes(message *to, unsigned field, const void *bytes, size_t n)
{
    put_varint(to, field << 3 | 2);
    put_varint(to, n);
    put(to, bytes, n);
}

static inline void put_text(message *to, unsigned field, const char *text)
{
    put_bytes(to, field, text, strlen(text));
}

/* And frees the inner message. */
static inline void put_message(message *to, unsigned field, message *inner)
{
    to->failed |= inner->failed;
    put_bytes(to, field, inner->bytes, inner->n);
    free(inner->bytes);
    *inner = (message){0};
}

#endif
