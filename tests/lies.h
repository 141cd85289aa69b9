/* lies.h - programs with bytes changed by accident or on purpose, and how loading must fail */
#ifndef NIMBUS_TESTS_LIES_H
#define NIMBUS_TESTS_LIES_H

#include "guarded.h"
#include "program_maker.h"

static inline nimbus_status status_of(const void *bytes, size_t size)
{
    nimbus_program *program = (nimbus_program *)&program;
    nimbus_error error = {0};
    nimbus_status status = nimbus_load(bytes, size, &program, &error);
    assert_int_equal(error.status, status);
    if (status == NIMBUS_OK) {
        nimbus_close(program);
    } else {
        assert_null(program);
        assert_true(error.message[0] != '\0');
    }
    return status;
}

/* Bytes that somebody changed on purpose, with checksums that are right. */
typedef struct lie {
    const char *what;
    size_t section; /* 0: header, 1, ...: steps */
    size_t at, n_bytes;
    uint32_t value;
    nimbus_status status;
} lie;

/* A copy of the file with one lie; n_bytes 0 cuts the section at `at`. */
static inline nimbus_buffer tell(const nimbus_buffer *file, const lie *l)
{
    nimbus_section *sections;
    size_t n;
    nimbus_buffer out = {0};
    uint8_t *copy = made_array(file->size, 1);
    assert_int_equal(nimbus_container_read(file->bytes, file->size, NIMBUS_PROGRAM_MAGIC,
                                           NIMBUS_PROGRAM_MAJOR, NIMBUS_PROGRAM_MINOR, &sections,
                                           &n, NULL),
                     NIMBUS_OK);
    nimbus_section *s = &sections[l->section];
    memcpy(copy, s->bytes, s->size);
    assert_true(l->at + l->n_bytes <= s->size);
    for (size_t i = 0; i < l->n_bytes; i++)
        copy[l->at + i] = (uint8_t)(l->value >> 8 * i);
    s->bytes = copy;
    s->size = l->n_bytes ? s->size : l->at;
    assert_int_equal(nimbus_container_write(&out, NIMBUS_PROGRAM_MAGIC, NIMBUS_PROGRAM_MAJOR,
                                            NIMBUS_PROGRAM_MINOR, sections, n, NULL),
                     NIMBUS_OK);
    nimbus_free(sections);
    free(copy);
    return out;
}

static inline void check_lies(const nimbus_buffer *file, const lie *lies, size_t n)
{
    assert_int_equal(status_of(file->bytes, file->size), NIMBUS_OK);
    for (size_t i = 0; i < n; i++) {
        nimbus_buffer bad = tell(file, &lies[i]);
        nimbus_status status = status_of(bad.bytes, bad.size);
        if (status != lies[i].status)
            fail_msg("%s: status \"%s\", expected \"%s\"", lies[i].what, nimbus_status_name(status),
                     nimbus_status_name(lies[i].status));
        nimbus_buffer_free(&bad);
    }
}

/* Every prefix of a file, and every flip of a bit, must be refused. */
static inline void check_damage(nimbus_buffer *file)
{
    assert_int_equal(status_of(file->bytes, file->size), NIMBUS_OK);
    for (size_t size = 0; size < file->size; size++) {
        guarded prefix = guarded_alloc(size);
        memcpy(prefix.at, file->bytes, size);
        assert_int_not_equal(status_of(prefix.at, size), NIMBUS_OK);
        guarded_free(&prefix);
    }
    for (size_t bit = 0; bit < file->size * 8; bit++) {
        file->bytes[bit / 8] ^= (uint8_t)(1u << bit % 8);
        assert_int_not_equal(status_of(file->bytes, file->size), NIMBUS_OK);
        file->bytes[bit / 8] ^= (uint8_t)(1u << bit % 8);
    }
}

#define N_LIES(lies) (sizeof(lies) / sizeof *(lies))
#define FORMAT       NIMBUS_ERR_FORMAT
#define TRUNCATED    NIMBUS_ERR_TRUNCATED
#define LIMIT        NIMBUS_ERR_LIMIT
#define VALUE        NIMBUS_ERR_VALUE
enum { A_NAN = 0x7fc00001, AN_INFINITY = 0x7f800000 };

#endif
