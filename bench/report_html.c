/* report_html.c - a bench_report as one page: page.html around the report's JSON
 *
 * page.html comes as the bytes of bench_page from the build. In the JSON "<" can only stand within
 * texts; written as an escape it cannot end the element that holds the report. */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "bench.h"

#define MARK "{{report}}"

extern const unsigned char bench_page[]; /* NUL-terminated */

int bench_write_html(const bench_report *report, FILE *out)
{
    json_t *json = bench_json(report);
    char *text = json ? json_dumps(json, JSON_COMPACT | JSON_REAL_PRECISION(9)) : NULL;
    const char *page = (const char *)bench_page, *mark = strstr(page, MARK);
    json_decref(json);
    if (!text) {
        errno = ENOMEM;
        return -1;
    }
    fwrite(page, 1, (size_t)(mark - page), out);
    for (const char *c = text; *c; c++)
        if (*c == '<')
            fputs("\\u003c", out);
        else
            fputc(*c, out);
    fputs(mark + strlen(MARK), out);
    free(text);
    return ferror(out) ? -1 : 0;
}
