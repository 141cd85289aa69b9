/* wire.c - the bytes of an ONNX model, checked, then unpacked by protobuf-c
 *
 * protobuf-c recurses into messages within messages and allocates before it knows how much is
 * there. So the bytes are walked first, without recursion: every length must fit what is left,
 * messages nest no deeper than a limit, and no field that may stand once stands twice (merging them
 * is one more recursion). What is unpacked lies in an arena with a limit. */
#include <protobuf-c/protobuf-c.h>
#include <string.h>

#include "import/import.h"

enum { WIRE_VARINT = 0, WIRE_8 = 1, WIRE_BYTES = 2, WIRE_4 = 5, BLOCK = 1 << 16, ALIGNMENT = 16 };

/* ---- the arena ---------------------------------------------------------------------------- */

struct nimbus_arena_block {
    struct nimbus_arena_block *next;
    size_t used, room; /* of the bytes that follow this header */
};

#define HEADER ((sizeof(struct nimbus_arena_block) + ALIGNMENT - 1) / ALIGNMENT * ALIGNMENT)

static void *arena_alloc(void *user, size_t size)
{
    nimbus_arena *arena = user;
    if (size > arena->left || size > SIZE_MAX - HEADER - ALIGNMENT) {
        arena->full = true;
        return NULL;
    }
    size = (size + ALIGNMENT - 1) / ALIGNMENT * ALIGNMENT;
    struct nimbus_arena_block *block = arena->blocks;
    if (!block || block->room - block->used < size) {
        size_t room = size > BLOCK ? size : BLOCK;
        block = nimbus_alloc(1, HEADER + room);
        if (!block) {
            arena->failed = true;
            return NULL;
        }
        *block = (struct nimbus_arena_block){arena->blocks, 0, room};
        arena->blocks = block;
    }
    uint8_t *at = (uint8_t *)block + HEADER + block->used;
    block->used += size;
    arena->left -= size < arena->left ? size : arena->left;
    return at;
}

static void arena_free_nothing(void *user, void *p)
{
    (void)user, (void)p;
}

void nimbus_arena_free(nimbus_arena *arena)
{
    while (arena->blocks) {
        struct nimbus_arena_block *next = arena->blocks->next;
        nimbus_free(arena->blocks);
        arena->blocks = next;
    }
}

/* ---- the walk ----------------------------------------------------------------------------- */

/* A message that has begun and not yet ended. */
struct level {
    const ProtobufCMessageDescriptor *type;
    size_t end;    /* offset behind it */
    uint64_t seen; /* bit per field number that may stand once */
};

struct walk {
    nimbus_reader r;
    size_t depth, n_fields;
    struct level levels[IMPORT_MAX_DEPTH];
};

static nimbus_status read_varint(struct walk *w, uint64_t *value, nimbus_error *error)
{
    size_t first = w->r.at;
    *value = 0;
    for (unsigned shift = 0; shift < 70; shift += 7) {
        uint8_t byte = nimbus_read_u8(&w->r);
        if (w->r.failed)
            return nimbus_fail_at(error, NIMBUS_ERR_TRUNCATED, w->r.size,
                                  "the model ends within a number, at byte %zu", w->r.size);
        *value |= shift == 63 ? (uint64_t)(byte & 1) << 63 : (uint64_t)(byte & 0x7f) << shift;
        if (!(byte & 0x80))
            return NIMBUS_OK;
    }
    return nimbus_fail_at(error, NIMBUS_ERR_FORMAT, first,
                          "byte %zu: a number of more than 10 bytes", first);
}

/* The size of a field's value, which must lie within the message it is a part of. */
static nimbus_status take(struct walk *w, const struct level *l, uint64_t n, size_t at,
                          nimbus_error *error)
{
    size_t left = w->r.at < l->end ? l->end - w->r.at : 0; /* of the message */
    if (w->r.at <= l->end && n <= left)
        return NIMBUS_OK;
    if (n > nimbus_reader_left(&w->r))
        return nimbus_fail_at(error, NIMBUS_ERR_TRUNCATED, w->r.size,
                              "byte %zu: a field of %llu bytes, the model ends after %zu of them",
                              at, (unsigned long long)n, nimbus_reader_left(&w->r));
    return nimbus_fail_at(error, NIMBUS_ERR_FORMAT, at,
                          "byte %zu: a field of %llu bytes in a %s that ends after %zu of them", at,
                          (unsigned long long)n, l->type->name, left);
}

/* How a single value of a type stands in the bytes. */
static unsigned wire_of(ProtobufCType type)
{
    switch (type) {
    case PROTOBUF_C_TYPE_FLOAT:
    case PROTOBUF_C_TYPE_FIXED32:
    case PROTOBUF_C_TYPE_SFIXED32:
        return WIRE_4;
    case PROTOBUF_C_TYPE_DOUBLE:
    case PROTOBUF_C_TYPE_FIXED64:
    case PROTOBUF_C_TYPE_SFIXED64:
        return WIRE_8;
    case PROTOBUF_C_TYPE_STRING:
    case PROTOBUF_C_TYPE_BYTES:
    case PROTOBUF_C_TYPE_MESSAGE:
        return WIRE_BYTES;
    default:
        return WIRE_VARINT;
    }
}

/* Checks a known field against how it is declared. */
static nimbus_status check_field(struct level *l, const ProtobufCFieldDescriptor *field,
                                 unsigned wire, size_t at, nimbus_error *error)
{
    bool repeated = field->label == PROTOBUF_C_LABEL_REPEATED;
    unsigned expected = wire_of(field->type);
    if (wire != expected && !(repeated && wire == WIRE_BYTES))
        return nimbus_fail_at(error, NIMBUS_ERR_FORMAT, at,
                              "byte %zu: field %s of %s has wire type %u, expected %u", at,
                              field->name, l->type->name, wire, expected);
    /* The members of a oneof exclude each other; a message has one at most, and no field 63. */
    bool one_of = field->flags & PROTOBUF_C_FIELD_FLAG_ONEOF;
    uint64_t bit = (uint64_t)1 << (one_of ? 63 : field->id & 63);
    if (!repeated && (l->seen & bit))
        return nimbus_fail_at(error, NIMBUS_ERR_FORMAT, at,
                              "byte %zu: field %s of %s stands twice%s", at, field->name,
                              l->type->name, one_of ? ", or another in its place" : "");
    l->seen |= repeated ? 0 : bit;
    return NIMBUS_OK;
}

/* Bytes, text, a message or packed numbers. */
static nimbus_status walk_bytes(struct walk *w, struct level *l,
                                const ProtobufCFieldDescriptor *field, size_t at,
                                nimbus_error *error)
{
    uint64_t n;
    nimbus_status status = read_varint(w, &n, error);
    if (status == NIMBUS_OK)
        status = take(w, l, n, at, error);
    if (status != NIMBUS_OK)
        return status;
    if (field && field->type == PROTOBUF_C_TYPE_MESSAGE) {
        if (w->depth == IMPORT_MAX_DEPTH)
            return nimbus_fail_at(error, NIMBUS_ERR_LIMIT, at,
                                  "byte %zu: messages nest deeper than %d", at, IMPORT_MAX_DEPTH);
        w->levels[w->depth++] = (struct level){field->descriptor, w->r.at + (size_t)n, 0};
        return NIMBUS_OK;
    }
    const uint8_t *bytes = nimbus_read_bytes(&w->r, (size_t)n);
    if (field && field->type == PROTOBUF_C_TYPE_STRING && n > 0 && memchr(bytes, 0, (size_t)n))
        return nimbus_fail_at(error, NIMBUS_ERR_FORMAT, at,
                              "byte %zu: a zero byte in the text of field %s of %s", at,
                              field->name, l->type->name);
    size_t element = !field                           ? 1
                     : wire_of(field->type) == WIRE_4 ? 4
                     : wire_of(field->type) == WIRE_8 ? 8
                                                      : 1;
    if (n % element != 0)
        return nimbus_fail_at(error, NIMBUS_ERR_FORMAT, at,
                              "byte %zu: %llu bytes of field %s of %s, expected a multiple of %zu",
                              at, (unsigned long long)n, field->name, l->type->name, element);
    return NIMBUS_OK;
}

static nimbus_status walk_field(struct walk *w, nimbus_error *error)
{
    struct level *l = &w->levels[w->depth - 1];
    size_t at = w->r.at;
    uint64_t tag, ignored;
    nimbus_status status = read_varint(w, &tag, error);
    if (status != NIMBUS_OK)
        return status;
    unsigned wire = tag & 7;
    if (tag >> 3 == 0 || tag >> 3 > 0x1fffffff ||
        (wire != WIRE_VARINT && wire != WIRE_8 && wire != WIRE_BYTES && wire != WIRE_4))
        return nimbus_fail_at(error, NIMBUS_ERR_FORMAT, at,
                              "not an ONNX model: at byte %zu no field of one begins with %llu", at,
                              (unsigned long long)tag);
    const ProtobufCFieldDescriptor *field =
        protobuf_c_message_descriptor_get_field(l->type, (unsigned)(tag >> 3));
    if (field && (status = check_field(l, field, wire, at, error)) != NIMBUS_OK)
        return status;
    if (wire == WIRE_BYTES)
        return walk_bytes(w, l, field, at, error);
    if (wire == WIRE_VARINT)
        status = read_varint(w, &ignored, error);
    else if (!nimbus_read_bytes(&w->r, wire == WIRE_8 ? 8 : 4))
        status = nimbus_fail_at(error, NIMBUS_ERR_TRUNCATED, w->r.size,
                                "the model ends within a number, at byte %zu", w->r.size);
    if (status == NIMBUS_OK && w->r.at > l->end)
        status = nimbus_fail_at(error, NIMBUS_ERR_FORMAT, at,
                                "byte %zu: a number goes on behind the end of its %s", at,
                                l->type->name);
    return status;
}

static nimbus_status walk_message(const void *bytes, size_t size, nimbus_error *error)
{
    struct walk w = {.r = nimbus_reader_of(bytes, size), .depth = 1};
    w.levels[0] = (struct level){&nimbus__model_proto__descriptor, size, 0};
    nimbus_status status = NIMBUS_OK;
    while (w.depth > 0 && status == NIMBUS_OK) {
        if (w.r.at == w.levels[w.depth - 1].end)
            w.depth--;
        else if (w.n_fields++ == IMPORT_MAX_FIELDS)
            status = nimbus_fail_at(error, NIMBUS_ERR_LIMIT, w.r.at, "more than %u fields",
                                    IMPORT_MAX_FIELDS);
        else
            status = walk_field(&w, error);
    }
    return status;
}

nimbus_status nimbus_wire_unpack(const void *bytes, size_t size, nimbus_arena *arena,
                                 Nimbus__ModelProto **out, nimbus_error *error)
{
    ProtobufCAllocator allocator = {arena_alloc, arena_free_nothing, arena};
    *out = NULL;
    if (size == 0)
        return nimbus_fail(error, NIMBUS_ERR_TRUNCATED, "the model is empty");
    nimbus_status status = walk_message(bytes, size, error);
    if (status != NIMBUS_OK)
        return status;
    *out = nimbus__model_proto__unpack(&allocator, size, bytes);
    if (*out)
        return NIMBUS_OK;
    if (arena->failed)
        return nimbus_fail(error, NIMBUS_ERR_MEMORY, "no memory for a model of %zu bytes", size);
    if (arena->full)
        return nimbus_fail(error, NIMBUS_ERR_LIMIT,
                           "a model of %zu bytes whose parts take too much memory", size);
    return nimbus_fail(error, NIMBUS_ERR_FORMAT, "the bytes are no ONNX model");
}
