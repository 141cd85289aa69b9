/* main.c - the command-line tool: finds the verb, keeps signals and standard output in order */
#include <cblas.h>
#include <signal.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "tool.h"

static const nimbus_verb *const verbs[] = {
    &verb_demo, &verb_data, &verb_train, &verb_import,  &verb_convert, &verb_compile, &verb_export,
    &verb_eval, &verb_run,  &verb_bench, &verb_inspect, &verb_check,   &verb_compare, &verb_report};
#define N_VERBS (sizeof verbs / sizeof *verbs)

const char *tool_path = "nimbus";
static const char *verb_name = "";
static volatile sig_atomic_t signal_seen, working;
static const char *volatile unfinished_file;

static void on_signal(int number)
{
    if (signal_seen || !working) {
        if (unfinished_file)
            unlink(unfinished_file);
        _exit(128 + number);
    }
    signal_seen = number;
}

void work_begin(void)
{
    working = 1;
}

void work_end(void)
{
    working = 0;
}

void remove_on_signal(const char *path)
{
    unfinished_file = path;
}

int work_interrupted(void)
{
    return (int)signal_seen;
}

static void install_signals(void)
{
    struct sigaction action = {.sa_handler = on_signal, .sa_flags = SA_RESTART};
    sigemptyset(&action.sa_mask);
    sigaction(SIGINT, &action, NULL);
    sigaction(SIGTERM, &action, NULL);
    signal(SIGXFSZ, SIG_IGN); /* a write past a size limit then fails with a message */
}

int fail(const nimbus_error *error)
{
    return fail_with("%s", error->message[0] ? error->message : nimbus_status_name(error->status));
}

int fail_with(const char *format, ...)
{
    va_list args;
    (void)fflush(stdout); /* what was printed before stands before */
    fprintf(stderr, "nimbus %s: ", verb_name);
    va_start(args, format);
    vfprintf(stderr, format, args);
    va_end(args);
    fputc('\n', stderr);
    return signal_seen ? 128 + (int)signal_seen : EXIT_FAILED;
}

void note(const common_arguments *common, const char *format, ...)
{
    va_list args;
    if (common->quiet)
        return;
    fflush(stdout); /* both may go to the same place */
    va_start(args, format);
    vfprintf(stderr, format, args);
    va_end(args);
    fputc('\n', stderr);
}

/* OpenMP's settings are read before main. Waiting threads must sleep: while other programs wanted
 * the same cores, spinning ones made training six times slower. */
static bool tell_openmp(void)
{
    return !getenv("OMP_WAIT_POLICY") && setenv("OMP_WAIT_POLICY", "passive", 1) == 0;
}

/* An OpenBLAS older than the CPU takes the kernels of a Prescott: Debian 12's on Emerald Rapids,
 * and its products take four times as long. It reads the variable when it is loaded. */
static bool tell_openblas(void)
{
#if defined(__x86_64__)
    const char *core = __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
                               __builtin_cpu_supports("avx512dq") &&
                               __builtin_cpu_supports("avx512vl")
                           ? "SkylakeX"
                       : __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma") ? "Haswell"
                                                                                         : NULL;
    return core && !getenv("OPENBLAS_CORETYPE") &&
           strcmp(openblas_get_corename(), "Prescott") == 0 &&
           setenv("OPENBLAS_CORETYPE", core, 1) == 0;
#else
    return false;
#endif
}

static void tell_libraries(char **argv)
{
    bool openmp = tell_openmp(), openblas = tell_openblas();
    if (openmp || openblas)
        execv("/proc/self/exe", argv); /* if that fails, it only goes slower */
}

static void print_overview(FILE *out)
{
    fputs("nimbus - turns float nets into integer lookup programs, and runs them\n\n"
          "usage: nimbus VERB [options]\n\n",
          out);
    for (size_t i = 0; i < N_VERBS; i++)
        fprintf(out, "  %-8s  %s\n", verbs[i]->name, verbs[i]->purpose);
    fputs("\nthe way of a net:  data -> train -> convert -> compile -> run, export\n"
          "start here:        nimbus demo\n"
          "more:              nimbus VERB --help\n",
          out);
}

static int dispatch(int argc, char **argv)
{
    const char *names[N_VERBS];
    for (size_t i = 0; i < N_VERBS; i++) {
        names[i] = verbs[i]->name;
        if (strcmp(argv[0], verbs[i]->name) == 0) {
            verb_name = verbs[i]->name;
            return verbs[i]->run(argc, argv);
        }
    }
    const char *near = nearest_name(argv[0], names, N_VERBS);
    fprintf(stderr, "nimbus: unknown verb '%s'%s%s%s\ntry 'nimbus --help'\n", argv[0],
            near ? "; did you mean '" : "", near ? near : "", near ? "'?" : "");
    return EXIT_USAGE;
}

int main(int argc, char **argv)
{
    int code = EXIT_DONE;
    tool_path = argv[0];
    tell_libraries(argv);
    install_signals();
    if (argc < 2) {
        print_overview(stderr);
        return EXIT_USAGE;
    }
    if (strcmp(argv[1], "--version") == 0 || strcmp(argv[1], "-V") == 0) {
        printf("nimbus %s\n", nimbus_version());
    } else if (strcmp(argv[1], "--help") == 0 || strcmp(argv[1], "-h") == 0 ||
               (strcmp(argv[1], "help") == 0 && argc == 2)) {
        print_overview(stdout);
    } else if (strcmp(argv[1], "help") == 0) {
        char *help[] = {argv[2], "--help", NULL};
        code = dispatch(2, help);
    } else {
        code = dispatch(argc - 1, argv + 1);
    }
    if ((fflush(stdout) != 0 || ferror(stdout)) && code == EXIT_DONE) {
        perror("nimbus: cannot write to standard output");
        code = EXIT_FAILED;
    }
    return code;
}
