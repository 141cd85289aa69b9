/* page.c - a report as one self-contained page: pages/base.html with a script, around its JSON
 *
 * Pages come as bytes from the build. In JSON "<" can only stand within texts; written as an escape
 * it cannot end the element that holds the report. */
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
    char *whole = NULL;
    size_t size = 0;
    FILE *out = text ? open_memstream(&whole, &size) : NULL;
    if (out)
        put_page((const char *)page, text, out);
    const int complete = out && fclose(out) == 0;
    nimbus_status status = complete
                               ? file_replace(path, whole, size, error)
                               : tool_error(error, NIMBUS_ERR_MEMORY, "%s: out of memory", path);
    free(whole);
    free(text);
    json_decref(report);
    return status;
}
