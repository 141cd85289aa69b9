/* checkpoint.c - the bytes of a checkpoint, written and read */
#include "train/checkpoint.h"

#include <string.h>

static const char magic[8] = {'N', 'I', 'M', 'B', 'U', 'S', 'C', 'K'};
enum { MAJOR = 1, MINOR = 0, META = 0, STAT, NET, OPTM, N_SECTIONS };
static const struct {
    uint32_t tag;
    const char *name;
} expected[N_SECTIONS] = {
    {NIMBUS_TAG('M', 'E', 'T', 'A'), "META"},
    {NIMBUS_TAG('S', 'T', 'A', 'T'), "STAT"},
    {NIMBUS_TAG('N', 'E', 'T', ' '), "NET"},
    {NIMBUS_TAG('O', 'P', 'T', 'M'), "OPTM"},
};

#define STATE_WORDS (sizeof(nimbus_train_state) / sizeof(uint64_t))
_Static_assert(sizeof(nimbus_train_state) == 11 * sizeof(uint64_t), "the state is 11 words");

nimbus_status nimbus_checkpoint_write(const nimbus_checkpoint *checkpoint, nimbus_buffer *out,
                                      nimbus_error *error)
{
    nimbus_buffer state = {0};
    uint64_t words[STATE_WORDS];
    memcpy(words, &checkpoint->state, sizeof words);
    for (size_t i = 0; i < STATE_WORDS; i++)
        nimbus_write_u64le(&state, words[i]);
    const nimbus_section sections[N_SECTIONS] = {
        [META] = {expected[META].tag, (const uint8_t *)checkpoint->fingerprint,
                  checkpoint->fingerprint_size},
        [STAT] = {expected[STAT].tag, state.bytes, state.size},
        [NET] = {expected[NET].tag, checkpoint->net, checkpoint->net_size},
        [OPTM] = {expected[OPTM].tag, checkpoint->moments, checkpoint->moments_size},
    };
    nimbus_status status =
        state.failed
            ? nimbus_fail(error, NIMBUS_ERR_MEMORY, "no memory for a checkpoint")
            : nimbus_container_write(out, magic, MAJOR, MINOR, sections, N_SECTIONS, error);
    nimbus_buffer_free(&state);
    return status;
}

nimbus_status nimbus_checkpoint_parse(const void *bytes, size_t size, nimbus_checkpoint *out,
                                      nimbus_error *error)
{
    nimbus_section *sections = NULL;
    size_t n = 0;
    *out = (nimbus_checkpoint){0};
    nimbus_status status =
        nimbus_container_read(bytes, size, magic, MAJOR, MINOR, &sections, &n, error);
    if (status != NIMBUS_OK)
        return status;
    for (size_t i = 0; i < N_SECTIONS && status == NIMBUS_OK; i++)
        if (n != N_SECTIONS || sections[i].tag != expected[i].tag)
            status = nimbus_fail(error, NIMBUS_ERR_FORMAT,
                                 "%zu sections, number %zu with tag %08x: expected %d with %s "
                                 "there",
                                 n, i, i < n ? (unsigned)sections[i].tag : 0, (int)N_SECTIONS,
                                 expected[i].name);
    if (status == NIMBUS_OK && sections[STAT].size != sizeof(nimbus_train_state))
        status = nimbus_fail(error, NIMBUS_ERR_FORMAT, "section STAT has %zu bytes, expected %zu",
                             sections[STAT].size, sizeof(nimbus_train_state));
    if (status == NIMBUS_OK) {
        uint64_t words[STATE_WORDS];
        nimbus_reader reader = nimbus_reader_of(sections[STAT].bytes, sections[STAT].size);
        for (size_t i = 0; i < STATE_WORDS; i++)
            words[i] = nimbus_read_u64le(&reader);
        memcpy(&out->state, words, sizeof words);
        out->fingerprint = (const char *)sections[META].bytes;
        out->fingerprint_size = sections[META].size;
        out->net = sections[NET].bytes;
        out->net_size = sections[NET].size;
        out->moments = sections[OPTM].bytes;
        out->moments_size = sections[OPTM].size;
    }
    nimbus_free(sections);
    return status;
}

nimbus_status nimbus_checkpoint_restore(const nimbus_checkpoint *checkpoint, nimbus_net *net,
                                        nimbus_error *error)
{
    nimbus_net *stored = NULL;
    nimbus_status status = nimbus_net_read(checkpoint->net, checkpoint->net_size, &stored, error);
    if (status != NIMBUS_OK)
        return status;
    /* First all comparisons, then all copies: the net stays as it was on failure. */
    for (int copy = 0; copy < 2 && status == NIMBUS_OK; copy++) {
        for (size_t l = 0; l < net->n_layers && status == NIMBUS_OK; l++) {
            nimbus_layer *to = &net->layers[l];
            const nimbus_layer *from = l < stored->n_layers ? &stored->layers[l] : NULL;
            bool fits = stored->n_layers == net->n_layers && strcmp(from->name, to->name) == 0 &&
                        from->state == to->state && from->n_params == to->n_params;
            for (size_t p = 0; fits && p < to->n_params; p++) {
                const nimbus_param *have = &from->params[p];
                fits = strcmp(have->name, to->params[p].name) == 0 && have->n == to->params[p].n;
                if (fits && copy)
                    memcpy(to->params[p].value, have->value, have->n * sizeof(real));
            }
            if (!fits)
                status = nimbus_fail(error, NIMBUS_ERR_MISMATCH,
                                     "its net differs from the one to train at layer %s", to->name);
        }
    }
    nimbus_net_free(stored);
    return status;
}
