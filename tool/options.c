/* options.c - one table of options drives parsing, help and the messages for wrong usage */
#include <ctype.h>
#include <errno.h>
#include <getopt.h>
#include <limits.h>
#include <math.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>

#include "tool.h"

#define MAX_OPTIONS 64
#define HELP_COLUMN 26
#define HELP_WIDTH  96

#define COMMON(field) offsetof(common_arguments, field)

static const option_entry data_group[] = {
    {"data", 'd', OPTION_TEXT, "SPEC", COMMON(data), 0, 0, NULL,
     "data set: digits, mnist, fashion-mnist, cifar-10, nsl-kdd, a folder, IMAGES,LABELS (IDX or "
     "npy), a CIFAR-10 batch or a CSV file"},
    {"data-dir", 0, OPTION_TEXT, "DIR", COMMON(data_dir), 0, 0, NULL,
     "where known data sets lie ($NIMBUS_DATA, else data)"},
    {"rows", 0, OPTION_COUNT, "N", COMMON(rows), 1, 1e9, NULL,
     "use only the first N rows of each split; digits: draw N rows (all; digits: 20000 for "
     "training, 4000 for test)"},
    {"label", 0, OPTION_TEXT, "COLUMN", COMMON(label), 0, 0, NULL,
     "CSV: label column by name or number, negative from the end, or none (label, class or target, "
     "else the last)"},
    {"regression", 0, OPTION_FLAG, NULL, COMMON(regression), 0, 0, NULL,
     "CSV: the label column is a number to predict"},
    {"no-test", 0, OPTION_FLAG, NULL, COMMON(no_test), 0, 0, NULL,
     "hold no test rows out, where the data set has none of its own (a fifth, by seed)"},
    {"data-seed", 0, OPTION_SEED, "N", COMMON(data_seed), 0, 0, NULL,
     "seed of the splits and of the digits generator (0)"},
};
const char *const split_names[] = {"all", "train", "valid", "test", NULL};
static const option_entry split_group[] = {
    {"split", 0, OPTION_CHOICE, "NAME", COMMON(split), 0, 0, split_names,
     "rows of --data to use: train, valid, test or all (test)"},
    {"valid", 0, OPTION_NUMBER, "PART", COMMON(valid), 0, 0.9, NULL,
     "part of the training rows that was held out in training (0.05)"},
};
static const option_entry seed_group[] = {
    {"seed", 's', OPTION_SEED, "N", COMMON(seed), 0, 0, NULL, "seed of all random choices (0)"},
};
static const option_entry threads_group[] = {
    {"threads", 't', OPTION_COUNT, "N", COMMON(threads), 0, 1024, NULL,
     "threads; results do not depend on it (all cores)"},
};
static const option_entry output_group[] = {
    {"json", 0, OPTION_FLAG, NULL, COMMON(json), 0, 0, NULL,
     "print the result as one line of JSON"},
    {"quiet", 'q', OPTION_FLAG, NULL, COMMON(quiet), 0, 0, NULL, "no progress, no notes"},
};

/* All options of a verb, in the order of its help. */
static size_t options_collect(const nimbus_verb *verb, const option_entry *list[MAX_OPTIONS])
{
    const struct {
        int wanted;
        const option_entry *entries;
        size_t n;
    } groups[] = {
        {1, verb->options, verb->n_options},
        {(verb->groups & GROUP_DATA) != 0, data_group, sizeof data_group / sizeof *data_group},
        {(verb->groups & GROUP_SPLIT) != 0, split_group, sizeof split_group / sizeof *split_group},
        {(verb->groups & GROUP_SEED) != 0, seed_group, sizeof seed_group / sizeof *seed_group},
        {(verb->groups & GROUP_THREADS) != 0, threads_group,
         sizeof threads_group / sizeof *threads_group},
        {1, output_group, sizeof output_group / sizeof *output_group},
    };
    size_t n = 0;
    for (size_t g = 0; g < sizeof groups / sizeof *groups; g++)
        for (size_t i = 0; groups[g].wanted && i < groups[g].n && n < MAX_OPTIONS; i++)
            list[n++] = &groups[g].entries[i];
    return n;
}

/* Prints text from the present column on, broken at blanks, later lines indented. */
static void print_wrapped(const char *text, size_t indent)
{
    size_t column = indent;
    while (*text) {
        size_t word = strcspn(text, " ");
        if (column + word > HELP_WIDTH && column > indent) {
            printf("\n%*s", (int)indent, "");
            column = indent;
        }
        printf("%.*s", (int)word, text);
        column += word;
        text += word;
        if (*text == ' ') {
            text++;
            if (column + 1 + strcspn(text, " ") <= HELP_WIDTH)
                putchar(' ');
            column++;
        }
    }
    putchar('\n');
}

static void print_option(const option_entry *option)
{
    char left[128];
    int n =
        snprintf(left, sizeof left, "  %c%c%s --%s%s%s", option->letter ? '-' : ' ',
                 option->letter ? option->letter : ' ', option->letter ? "," : " ", option->name,
                 option->argument ? " " : "", option->argument ? option->argument : "");
    if (n >= HELP_COLUMN)
        printf("%s\n%*s", left, HELP_COLUMN, "");
    else
        printf("%-*s", HELP_COLUMN, left);
    print_wrapped(option->help, HELP_COLUMN);
}

static void print_help(const nimbus_verb *verb)
{
    const option_entry *list[MAX_OPTIONS];
    size_t n = options_collect(verb, list);
    printf("nimbus %s - %s\n\nusage: nimbus %s %s\n\n", verb->name, verb->purpose, verb->name,
           verb->usage);
    print_wrapped(verb->about, 0);
    printf("\nexamples\n");
    for (size_t i = 0; i < 4 && verb->examples[i]; i++)
        printf("  %s\n", verb->examples[i]);
    printf("\noptions (default in brackets)\n");
    for (size_t i = 0; i < n; i++)
        print_option(list[i]);
    printf("  -h, --help              this text\n");
}

int usage_error(const nimbus_verb *verb, const char *format, ...)
{
    va_list args;
    fprintf(stderr, "nimbus %s: ", verb->name);
    va_start(args, format);
    vfprintf(stderr, format, args);
    va_end(args);
    fprintf(stderr, "\ntry 'nimbus %s --help'\n", verb->name);
    return EXIT_USAGE;
}

/* Number of single-character edits between two short words. */
static size_t edit_distance(const char *a, const char *b)
{
    size_t row[65], n = strlen(b);
    if (n > 64 || strlen(a) > 64)
        return SIZE_MAX;
    for (size_t j = 0; j <= n; j++)
        row[j] = j;
    for (size_t i = 1; a[i - 1]; i++) {
        size_t diagonal = row[0];
        row[0] = i;
        for (size_t j = 1; j <= n; j++) {
            size_t change = diagonal + (a[i - 1] != b[j - 1]);
            diagonal = row[j];
            size_t best = row[j] < row[j - 1] ? row[j] + 1 : row[j - 1] + 1;
            row[j] = change < best ? change : best;
        }
    }
    return row[n];
}

const char *nearest_name(const char *wrong, const char *const *names, size_t n)
{
    const char *best = NULL;
    size_t best_distance = strlen(wrong) / 2 + 1; /* farther is no longer a slip of the finger */
    for (size_t i = 0; i < n; i++) {
        size_t distance = edit_distance(wrong, names[i]);
        if (distance < best_distance) {
            best_distance = distance;
            best = names[i];
        }
    }
    return best;
}

static int unknown_option(const nimbus_verb *verb, const char *text)
{
    const option_entry *list[MAX_OPTIONS];
    const char *names[MAX_OPTIONS];
    size_t n = options_collect(verb, list);
    for (size_t i = 0; i < n; i++)
        names[i] = list[i]->name;
    char wrong[64];
    size_t length = strcspn(text, "=");
    snprintf(wrong, sizeof wrong, "%.*s", (int)(length < 63 ? length : 63), text);
    const char *near = strncmp(wrong, "--", 2) == 0 ? nearest_name(wrong + 2, names, n) : NULL;
    if (near)
        return usage_error(verb, "unknown option '%s'; did you mean '--%s'?", wrong, near);
    return usage_error(verb, "unknown option '%s'", wrong);
}

static int set_number(const nimbus_verb *verb, const option_entry *option, const char *text,
                      void *field)
{
    char *end;
    errno = 0;
    double value = strtod(text, &end);
    if (end == text || *end || !isfinite(value))
        return usage_error(verb, "--%s: '%s' is not a number", option->name, text);
    if (option->kind == OPTION_COUNT && value != floor(value))
        return usage_error(verb, "--%s: '%s' is not a whole number", option->name, text);
    if (value < option->min || value > option->max)
        return usage_error(verb, "--%s: %s is outside %g to %g", option->name, text, option->min,
                           option->max);
    if (option->kind == OPTION_COUNT)
        *(size_t *)field = (size_t)value;
    else
        *(double *)field = value;
    return -1;
}

int choice_error(const nimbus_verb *verb, const char *option, const char *text, size_t length,
                 const char *const *choices)
{
    char all[256] = "";
    for (size_t i = 0, used = 0; choices[i] && used < sizeof all; i++)
        used += (size_t)snprintf(all + used, sizeof all - used, "%s%s", i ? ", " : "", choices[i]);
    return usage_error(verb, "--%s: '%.*s' is none of %s", option, (int)length, text, all);
}

static int set_choice(const nimbus_verb *verb, const option_entry *option, const char *text,
                      int *field)
{
    for (int i = 0; option->choices[i]; i++)
        if (strcmp(option->choices[i], text) == 0) {
            *field = i;
            return -1;
        }
    return choice_error(verb, option->name, text, strlen(text), option->choices);
}

static int add_text(const nimbus_verb *verb, const option_entry *option, const char *text,
                    text_list *list)
{
    const size_t most = sizeof list->texts / sizeof *list->texts;
    if (list->n == most)
        return usage_error(verb, "--%s: given more than %zu times", option->name, most);
    list->texts[list->n++] = text;
    return -1;
}

static int set_option(const nimbus_verb *verb, const option_entry *option, const char *text,
                      void *args)
{
    void *field = (char *)args + option->offset;
    char *end;
    switch (option->kind) {
    case OPTION_FLAG:
        *(int *)field = 1;
        return -1;
    case OPTION_TEXT:
        if (!*text)
            return usage_error(verb, "--%s: empty", option->name);
        *(const char **)field = text;
        return -1;
    case OPTION_TEXTS:
        return add_text(verb, option, text, field);
    case OPTION_COUNT:
    case OPTION_NUMBER:
        return set_number(verb, option, text, field);
    case OPTION_CHOICE:
        return set_choice(verb, option, text, field);
    case OPTION_SEED:
        errno = 0;
        *(uint64_t *)field = strtoull(text, &end, 0);
        if (end == text || *end || errno || !isdigit((unsigned char)text[0]))
            return usage_error(verb, "--%s: '%s' is not a whole number of 64 bits", option->name,
                               text);
        return -1;
    }
    return -1;
}

/* The same table as getopt_long wants it; values of long options are their index + 256. */
static void getopt_tables(const option_entry *const *list, size_t n, struct option *longs,
                          char *letters)
{
    *letters++ = ':'; /* a missing argument is told apart from an unknown option */
    *letters++ = 'h';
    for (size_t i = 0; i < n; i++) {
        longs[i] = (struct option){
            list[i]->name, list[i]->argument ? required_argument : no_argument, NULL, (int)i + 256};
        if (list[i]->letter) {
            *letters++ = list[i]->letter;
            if (list[i]->argument)
                *letters++ = ':';
        }
    }
    longs[n] = (struct option){"help", no_argument, NULL, 'h'};
    longs[n + 1] = (struct option){NULL, 0, NULL, 0};
    *letters = 0;
}

static int take_files(const nimbus_verb *verb, int argc, char **argv, common_arguments *common)
{
    size_t n = (size_t)(argc - optind);
    if (n < verb->min_files || n > verb->max_files) {
        if (verb->max_files == 0)
            return usage_error(verb, "'%s' is not expected here", argv[optind]);
        return usage_error(verb, "%s; usage: nimbus %s %s",
                           n < verb->min_files ? "a file name is missing" : "too many file names",
                           verb->name, verb->usage);
    }
    for (size_t i = 0; i < n; i++)
        common->files[i] = argv[optind + (int)i];
    common->n_files = n;
    return -1;
}

int options_parse(const nimbus_verb *verb, int argc, char **argv, void *args)
{
    const option_entry *list[MAX_OPTIONS];
    size_t n = options_collect(verb, list);
    struct option longs[MAX_OPTIONS + 2];
    char letters[2 * MAX_OPTIONS + 4];
    getopt_tables(list, n, longs, letters);
    opterr = 0;
    optind = 1;
    for (;;) {
        int at = optind;
        int c = getopt_long(argc, argv, letters, longs, NULL);
        if (c == -1)
            break;
        if (c == 'h') {
            print_help(verb);
            return EXIT_DONE;
        }
        if (c == ':')
            return usage_error(verb, "%s needs a value", argv[optind - 1]);
        const option_entry *option = NULL;
        for (size_t i = 0; i < n && !option; i++)
            if (c == (int)i + 256 || (c == list[i]->letter && c != '?'))
                option = list[i];
        if (!option)
            return unknown_option(verb, optind > at ? argv[optind - 1] : argv[at]);
        int code = set_option(verb, option, optarg, args);
        if (code >= 0)
            return code;
    }
    return take_files(verb, argc, argv, args);
}
