/* compiled.c - what a compiler makes of exported C: bytes of its sections and of its stack */
#include "compiled.h"

#include <stdlib.h>
#include <string.h>
#include <unistd.h>

enum { MOST_FUNCTIONS = 256, MOST_CALLS = 4096, MOST_TITLE = 400 };

/* The graph of calls that gcc -fcallgraph-info=su writes. */
typedef struct call_graph {
    size_t n, n_calls;
    struct {
        char title[MOST_TITLE];
        size_t bytes; /* of its frame */
    } functions[MOST_FUNCTIONS];
    struct {
        size_t from, to;
    } calls[MOST_CALLS];
} call_graph;

/* The text between quotes behind a word; whether it is there. */
static int field(const char *line, const char *word, char out[MOST_TITLE])
{
    const char *at = strstr(line, word), *end;
    if (!at)
        return 0;
    at += strlen(word);
    end = strchr(at, '"');
    if (!end || end - at >= MOST_TITLE)
        return 0;
    memcpy(out, at, (size_t)(end - at));
    out[end - at] = '\0';
    return 1;
}

static size_t function_of(call_graph *g, const char *title)
{
    size_t i = 0;
    while (i < g->n && strcmp(g->functions[i].title, title) != 0)
        i++;
    if (i == g->n && i < MOST_FUNCTIONS) {
        snprintf(g->functions[i].title, MOST_TITLE, "%s", title);
        g->functions[i].bytes = 0; /* one that is called, but not of this file */
        g->n++;
    }
    return i;
}

static int read_graph(const char *path, call_graph *g)
{
    char line[4 * MOST_TITLE], a[MOST_TITLE], b[MOST_TITLE];
    FILE *file = fopen(path, "r");
    if (!file)
        return 0;
    while (fgets(line, sizeof line, file) && g->n < MOST_FUNCTIONS && g->n_calls < MOST_CALLS) {
        if (strncmp(line, "node:", 5) == 0 && field(line, "title: \"", a)) {
            const char *bytes = strstr(line, " bytes (");
            while (bytes && bytes > line && bytes[-1] >= '0' && bytes[-1] <= '9')
                bytes--;
            const size_t i = function_of(g, a);
            if (bytes && i < MOST_FUNCTIONS)
                g->functions[i].bytes = (size_t)strtoul(bytes, NULL, 10);
        } else if (strncmp(line, "edge:", 5) == 0 && field(line, "sourcename: \"", a) &&
                   field(line, "targetname: \"", b)) {
            g->calls[g->n_calls].from = function_of(g, a);
            g->calls[g->n_calls++].to = function_of(g, b);
        }
    }
    fclose(file);
    return g->n > 0 && g->n < MOST_FUNCTIONS && g->n_calls < MOST_CALLS;
}

/* The deepest stack of function i and all that it calls; exported code never calls itself. */
static size_t depth(const call_graph *g, size_t i, size_t n_above)
{
    size_t most = 0;
    for (size_t c = 0; c < g->n_calls && n_above < MOST_FUNCTIONS; c++)
        if (g->calls[c].from == i) {
            const size_t below = depth(g, g->calls[c].to, n_above + 1);
            most = below > most ? below : most;
        }
    return g->functions[i].bytes + most;
}

static int read_text_bytes(const char *path, size_t *bytes)
{
    char line[200];
    FILE *file = fopen(path, "r");
    int ok = file && fgets(line, sizeof line, file) && fgets(line, sizeof line, file) &&
             sscanf(line, "%zu", bytes) == 1;
    if (file)
        fclose(file);
    return ok;
}

static nimbus_status measure_in(const char *folder, const char *compiler, const char *prefix,
                                size_t *flash_bytes, size_t *stack_bytes, nimbus_error *error)
{
    char command[3000], path[200], title[64];
    int n = snprintf(
        command, sizeof command,
        "cd %s && %s -std=c99 -ffreestanding -fno-lto -fcallgraph-info=su -c %s.c -o p.o && "
        "\"$(%s -print-prog-name=size)\" p.o >size",
        folder, compiler, prefix, compiler);
    if (n < 0 || (size_t)n >= sizeof command)
        return tool_error(error, NIMBUS_ERR_ARGUMENT, "--cc: the command is too long");
    fflush(stdout);
    if (system(command) != 0)
        return tool_error(error, NIMBUS_ERR_ARGUMENT,
                          "--cc: a GCC of version 10 or later is expected; this failed: %s",
                          command);
    call_graph *graph = calloc(1, sizeof *graph);
    nimbus_status status = NIMBUS_OK;
    snprintf(title, sizeof title, "%s_run", prefix);
    snprintf(path, sizeof path, "%s/p.ci", folder);
    if (!graph || !read_graph(path, graph))
        status =
            tool_error(error, NIMBUS_ERR_FORMAT, "--cc: the compiler said nothing of its stack");
    else
        *stack_bytes = depth(graph, function_of(graph, title), 0);
    free(graph);
    snprintf(path, sizeof path, "%s/size", folder);
    if (!status && !read_text_bytes(path, flash_bytes))
        status = tool_error(error, NIMBUS_ERR_FORMAT, "--cc: the compiler's `size` said nothing");
    return status;
}

nimbus_status compiled_measure(const char *compiler, const nimbus_export *result,
                               const char *prefix, size_t *code_bytes, size_t *stack_bytes,
                               nimbus_error *error)
{
    static const char *const made[] = {"p.o", "p.ci", "p.su", "size"};
    char folder[] = "/tmp/nimbus_export_XXXXXX", path[128];
    size_t flash_bytes = 0;
    if (!mkdtemp(folder))
        return tool_error(error, NIMBUS_ERR_IO, "/tmp: cannot make a folder");
    nimbus_status status = nimbus_export_write(result, folder, error);
    if (!status)
        status = measure_in(folder, compiler, prefix, &flash_bytes, stack_bytes, error);
    *code_bytes = flash_bytes - result->report.array_bytes;
    for (size_t i = 0; i < sizeof made / sizeof *made; i++) {
        snprintf(path, sizeof path, "%s/%s", folder, made[i]);
        unlink(path);
    }
    for (size_t i = 0; i < sizeof result->files / sizeof *result->files; i++) {
        snprintf(path, sizeof path, "%s/%s", folder, result->files[i].name);
        unlink(path);
    }
    rmdir(folder);
    return status;
}
