/* cmd_report.c - nimbus report: what other verbs printed as JSON, as one page with charts */
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "tool.h"

typedef struct report_arguments {
    common_arguments common;
    const char *output, *title;
} report_arguments;

#define AT(field) offsetof(report_arguments, field)

static const option_entry entries[] = {
    {"output", 'o', OPTION_TEXT, "FILE", AT(output), 0, 0, NULL, "the page (report.html)"},
    {"title", 0, OPTION_TEXT, "TEXT", AT(title), 0, 0, NULL, "its heading (what the files are of)"},
};

static int report_run(int argc, char **argv);

const nimbus_verb verb_report = {
    .name = "report",
    .purpose = "draw trainings, conversions, comparisons and measurements as one page",
    .usage = "FILE.json... [-o PAGE.html] [options]",
    .about = "FILEs are results of 'nimbus compare', and what train, convert and bench print with "
             "--json. Writes one self-contained page: accuracy by epoch and by time, errors of "
             "layers, methods side by side, accuracy against time a row.",
    .examples = {"nimbus convert float.net --data mnist --json > convert.json",
                 "nimbus report convert.json compare.json -o report.html"},
    .options = entries,
    .n_options = sizeof entries / sizeof *entries,
    .min_files = 1,
    .max_files = MOST_FILES,
    .run = report_run,
};

/* Which verb wrote this, by what only it has; NULL: none. */
static const char *kind_of(const json_t *json)
{
    static const struct {
        const char *key, *kind;
    } kinds[] = {
        {"runs", "compare"}, {"fit_seconds", "convert"}, {"results", "bench"}, {"steps", "train"}};
    for (size_t i = 0; i < sizeof kinds / sizeof *kinds; i++)
        if (json_object_get(json, kinds[i].key))
            return kinds[i].kind;
    return NULL;
}

static nimbus_status add_file(json_t *files, const char *path, const char **kind,
                              nimbus_error *error)
{
    json_error_t wrong;
    json_t *json = json_load_file(path, 0, &wrong);
    const int why = errno;
    if (!json && json_error_code(&wrong) == json_error_cannot_open_file)
        return tool_error(error, NIMBUS_ERR_IO, "%s: cannot be opened: %s", path, strerror(why));
    *kind = json ? kind_of(json) : NULL;
    if (!*kind) {
        nimbus_status status = tool_error(
            error, NIMBUS_ERR_FORMAT,
            "%s: %s%.80s; expected results of compare, or what train, convert or bench print with "
            "--json",
            path, json ? "JSON of something else" : "no JSON: ", json ? "" : wrong.text);
        json_decref(json);
        return status;
    }
    const char *slash = strrchr(path, '/');
    json_t *entry =
        json_pack("{s:s,s:s,s:o}", "name", slash ? slash + 1 : path, "kind", *kind, "json", json);
    return entry && json_array_append_new(files, entry) == 0
               ? NIMBUS_OK
               : tool_error(error, NIMBUS_ERR_ARGUMENT,
                            "%s: names must be UTF-8 to stand on a page", path);
}

static int report_run(int argc, char **argv)
{
    report_arguments args = {.output = "report.html"};
    nimbus_error error = {0};
    const char *kind = "";
    char date[32] = "";
    time_t now = time(NULL);
    struct tm day;

    int code = options_parse(&verb_report, argc, argv, &args);
    if (code >= 0)
        return code;
    json_t *files = json_array();
    nimbus_status status = output_check(args.output, &error);
    for (size_t i = 0; i < args.common.n_files && !status; i++)
        status = same_file(args.common.files[i], args.output)
                     ? tool_error(&error, NIMBUS_ERR_ARGUMENT,
                                  "%s: is one of the results, and the page would replace it",
                                  args.output)
                     : add_file(files, args.common.files[i], &kind, &error);
    if (status) {
        json_decref(files);
        return fail(&error);
    }
    if (gmtime_r(&now, &day))
        (void)strftime(date, sizeof date, "%Y-%m-%d", &day);
    const char *title = args.title                     ? args.title
                        : strcmp(kind, "compare") == 0 ? "Methods compared"
                        : strcmp(kind, "convert") == 0 ? "A conversion"
                        : strcmp(kind, "train") == 0   ? "A training"
                                                       : "Measurements";
    json_t *report = json_pack("{s:s,s:s,s:s,s:o}", "title", title, "version", nimbus_version(),
                               "date", date, "files", files);
    status = report ? page_write(report_page, report, args.output, &error)
                    : tool_error(&error, NIMBUS_ERR_ARGUMENT, "the title must be UTF-8");
    if (status)
        return fail(&error);
    note(&args.common, "%s: written", args.output);
    return args.common.json
               ? result_finish(&args.common, NULL, json_pack("{s:s}", "output", args.output))
               : EXIT_DONE;
}
