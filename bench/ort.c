/* ort.c - ONNX Runtime as a peer: run.js in a child process on the same core
 *
 * Models and rows are handed over in unnamed temporary files that the child inherits, commands and
 * answers go through pipes, a line each (see run.js). Its samples join the rounds of all other
 * contenders. */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <math.h>
#include <poll.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include "bench.h"
#include "bench_error.h"

#define SAMPLE_MS   4
#define PATIENCE_MS 120000
#define INSTALL     "npm ci --prefix"

enum { INT8_MODEL, F32_MODEL, EMPTY_MODEL, RAW_ROWS, FLOAT_ROWS, OUTPUTS, N_FILES };
static const char *const model_names[] = {"int8", "f32", "empty"};

struct bench_ort_child {
    FILE *files[N_FILES];
    pid_t pid; /* 0: not running */
    int to, from;
    size_t n_rows, n_outputs;
    char version[64];
    struct sigaction old_pipe; /* a child that dies must not take the tool along */
};

/* ---- talking to it */

static int read_line(int from, char *line, size_t room)
{
    size_t n = 0;
    struct pollfd ready = {.fd = from, .events = POLLIN};
    while (n + 1 < room) {
        if (poll(&ready, 1, PATIENCE_MS) <= 0 || read(from, line + n, 1) != 1)
            return -1;
        if (line[n] == '\n') {
            line[n] = 0;
            return 0;
        }
        n++;
    }
    return -1;
}

/* The child's answer; NULL, with the error filled in, if there is none or it is an error. */
static json_t *answer_of(const bench_ort_child *child, nimbus_error *error)
{
    char line[1024];
    json_t *answer = read_line(child->from, line, sizeof line) ? NULL : json_loads(line, 0, NULL);
    const char *trouble = json_string_value(json_object_get(answer, "error"));
    if (answer && !trouble)
        return answer;
    (void)bench_fail(error, NIMBUS_ERR_UNSUPPORTED, "ONNX Runtime: %s",
                     trouble ? trouble : "the node process does not answer");
    json_decref(answer);
    return NULL;
}

static json_t *ask(const bench_ort_child *child, const char *command, nimbus_error *error)
{
    if (write(child->to, command, strlen(command)) != (ssize_t)strlen(command)) {
        (void)bench_fail(error, NIMBUS_ERR_UNSUPPORTED, "ONNX Runtime: the node process is gone");
        return NULL;
    }
    return answer_of(child, error);
}

double bench_ort_sample(void *state)
{
    const bench_ort_call *call = state;
    char command[96];
    nimbus_error error;
    snprintf(command, sizeof command, "time %s %zu %d\n", model_names[call->model], call->batch,
             SAMPLE_MS);
    json_t *answer = ask(call->child, command, &error);
    double ns = answer ? json_number_value(json_object_get(answer, "ns")) : NAN;
    json_decref(answer);
    return ns;
}

nimbus_status bench_ort_outputs(bench_ort_child *child, int model, float *outputs,
                                nimbus_error *error)
{
    char command[96];
    const size_t bytes = child->n_rows * child->n_outputs * sizeof *outputs;
    snprintf(command, sizeof command, "classify %s\n", model_names[model]);
    json_t *answer = ask(child, command, error);
    if (!answer)
        return NIMBUS_ERR_UNSUPPORTED;
    json_decref(answer);
    for (size_t got = 0; got < bytes;) {
        ssize_t n =
            pread(fileno(child->files[OUTPUTS]), (char *)outputs + got, bytes - got, (off_t)got);
        if (n <= 0)
            return bench_fail(error, NIMBUS_ERR_IO, "ONNX Runtime gave fewer outputs than rows");
        got += (size_t)n;
    }
    return NIMBUS_OK;
}

const char *bench_ort_version(const bench_ort_child *child)
{
    return child->version;
}

/* ---- starting and stopping it */

static nimbus_status write_files(bench_ort_child *child, const bench_int8 *int8,
                                 const bench_rows *rows, nimbus_error *error)
{
    const bench_net *net = int8->net;
    nimbus_status status;
    for (int i = 0; i < N_FILES; i++)
        if (!(child->files[i] = tmpfile()))
            return bench_fail(error, NIMBUS_ERR_IO, "no temporary file: %s", strerror(errno));
    if ((status = bench_onnx_write_int8(int8, child->files[INT8_MODEL], error)) ||
        (status = bench_onnx_write_f32(net, child->files[F32_MODEL], error)) ||
        (status = bench_onnx_write_empty(net, child->files[EMPTY_MODEL], error)))
        return status;
    if (fwrite(rows->raw, rows->stride, rows->n, child->files[RAW_ROWS]) != rows->n ||
        fwrite(rows->float_rows, rows->d * sizeof(float), rows->n, child->files[FLOAT_ROWS]) !=
            rows->n ||
        fflush(child->files[RAW_ROWS]) != 0 || fflush(child->files[FLOAT_ROWS]) != 0)
        return bench_fail(error, NIMBUS_ERR_IO, "rows for ONNX Runtime: %s", strerror(errno));
    return NIMBUS_OK;
}

/* In the child: becomes node, or ends. */
static void become_node(const bench_ort_child *child, const char *folder, const bench_net *net,
                        const bench_rows *rows, int in, int out)
{
    char script[4096], numbers[N_FILES + 3][64];
    char *args[N_FILES + 6] = {(char *)(uintptr_t) "node", script};
    snprintf(script, sizeof script, "%s/run.js", folder);
    if (bench_rows_are_flat(net))
        snprintf(numbers[0], sizeof numbers[0], "%zu", rows->d);
    else
        snprintf(numbers[0], sizeof numbers[0], "%zu,%zu,%zu", net->in.channels, net->in.height,
                 net->in.width);
    snprintf(numbers[1], sizeof numbers[1], "%zu", rows->n);
    snprintf(numbers[2], sizeof numbers[2], "%zu", rows->n_walk);
    for (int i = 0; i < N_FILES; i++)
        snprintf(numbers[i + 3], sizeof numbers[0], "%d", fileno(child->files[i]));
    for (int i = 0; i < N_FILES + 3; i++)
        args[i + 2] = numbers[i];
    signal(SIGPIPE, SIG_DFL);
    if (dup2(in, 0) >= 0 && dup2(out, 1) >= 0)
        execvp("node", args);
    _exit(127);
}

static nimbus_status start(bench_ort_child *child, const char *folder, const bench_net *net,
                           const bench_rows *rows, nimbus_error *error)
{
    int in[2] = {-1, -1}, out[2] = {-1, -1};
    if (pipe2(in, O_CLOEXEC) != 0 || pipe2(out, O_CLOEXEC) != 0 || (child->pid = fork()) < 0) {
        child->pid = 0;
        for (int i = 0; i < 2; i++) {
            close(in[i]);
            close(out[i]);
        }
        return bench_fail(error, NIMBUS_ERR_IO, "no child process: %s", strerror(errno));
    }
    if (child->pid == 0)
        become_node(child, folder, net, rows, in[0], out[1]);
    close(in[0]);
    close(out[1]);
    child->to = in[1];
    child->from = out[0];
    return NIMBUS_OK;
}

/* Why there was no first answer. */
static nimbus_status explain(bench_ort_child *child, const char *folder, nimbus_error *error)
{
    int code = 0;
    if (strstr(error->message, "missing"))
        return bench_fail(error, NIMBUS_ERR_UNSUPPORTED,
                          "the package onnxruntime-node is not installed: " INSTALL " %s", folder);
    if (waitpid(child->pid, &code, WNOHANG) == child->pid) {
        child->pid = 0;
        if (WIFEXITED(code) && WEXITSTATUS(code) == 127)
            return bench_fail(
                error, NIMBUS_ERR_UNSUPPORTED,
                "node is not installed: apt-get install nodejs npm, then " INSTALL " %s", folder);
    }
    return error->status;
}

nimbus_status bench_ort_start(const char *folder, const bench_int8 *int8, const bench_rows *rows,
                              bench_ort_child **out, nimbus_error *error)
{
    char script[4096];
    const struct sigaction ignore = {.sa_handler = SIG_IGN};
    bench_ort_child *child = calloc(1, sizeof *child);
    json_t *answer = NULL;
    nimbus_status status;
    *out = NULL;
    if (!child)
        return bench_fail(error, NIMBUS_ERR_MEMORY, "out of memory");
    child->to = child->from = -1;
    child->n_rows = rows->n;
    child->n_outputs = int8->net->layers[int8->net->n_layers - 1].m;
    sigaction(SIGPIPE, &ignore, &child->old_pipe);
    snprintf(script, sizeof script, "%s/run.js", folder);
    if (access(script, R_OK) != 0) {
        status = bench_fail(error, NIMBUS_ERR_IO,
                            "%s: %s; --ort-dir names the folder bench/ort of the sources", script,
                            strerror(errno));
        goto done;
    }
    if ((status = write_files(child, int8, rows, error)) ||
        (status = start(child, folder, int8->net, rows, error)))
        goto done;
    if (!(answer = answer_of(child, error))) {
        status = explain(child, folder, error);
        goto done;
    }
    const char *version = json_string_value(json_object_get(answer, "version"));
    snprintf(child->version, sizeof child->version, "%s", version ? version : "?");
done:
    json_decref(answer);
    if (status)
        bench_ort_stop(child);
    else
        *out = child;
    return status;
}

void bench_ort_stop(bench_ort_child *child)
{
    if (!child)
        return;
    if (child->to >= 0)
        close(child->to); /* the end of its commands ends it */
    if (child->from >= 0)
        close(child->from);
    if (child->pid > 0) {
        kill(child->pid, SIGTERM);
        waitpid(child->pid, NULL, 0);
    }
    for (int i = 0; i < N_FILES; i++)
        if (child->files[i])
            fclose(child->files[i]);
    sigaction(SIGPIPE, &child->old_pipe, NULL);
    free(child);
}
