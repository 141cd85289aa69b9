/* page.c - a report as one self-contained page: pages/base.html with a script, around its JSON
 *
 * Pages come as bytes from the build. In JSON "<" can only stand within texts; written as an escape
 * it cannot end the element that holds the report. */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "tool.h"

#define MARK "{{report}}"

static void put_page(const char *page, const char *text, FILE *out)
{
    const char *mark = strstr(page, MARK);
    fwrite(page, 1, (size_t)(mark - page), out);
    for (const char *c = text; *c; c++)
        if (*c == '<')
            fputs("\\u003c", out);
        else
            fputc(*c, out);
    fputs(mark + strlen(MARK), out);
}

nimbus_status page_write(const unsigned char *page, json_t *report, const char *path,
                         nimbus_error *error)
{
    char *text = report ? json_dumps(report, JSON_COMPACT | JSON_REAL_PRECISION(9)) : NULL;
    json_decref(report);
    if (!text)
        return tool_error(error, NIMBUS_ERR_MEMORY, "%s: out of memory", path);
    FILE *file = fopen(path, "w");
    int why = errno, failed = !file;
    if (file) {
        put_page((const char *)page, text, file);
        failed = ferror(file) != 0;
        why = errno;
        if (fclose(file) != 0 && !failed) {
            failed = 1;
            why = errno;
        }
    }
    free(text);
    return failed
               ? tool_error(error, NIMBUS_ERR_IO, "%s: cannot be written: %s", path, strerror(why))
               : NIMBUS_OK;
}
