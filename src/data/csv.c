/* csv.c - cut a text table into cells
 *
 * Cells are separated by commas, tabs or semicolons, whichever cuts the first lines into equally
 * many; cells in double quotes may hold separators, line ends and doubled quotes. Spaces around a
 * cell, carriage returns at the end of a line, blank lines and a UTF-8 byte order mark are
 * dropped. Every row must have as many cells as the first. */
#include <math.h>
#include <string.h>
#include <strings.h>

#include "data/data.h"

enum { DETECT_LINES = 16 };

/* ---- what a cell holds -------------------------------------------------------------------- */

bool nimbus_csv_missing(const char *text, size_t size)
{
    return size == 0 || (size == 1 && text[0] == '?') ||
           (size == 2 && strncasecmp(text, "na", 2) == 0) ||
           (size == 3 && strncasecmp(text, "nan", 3) == 0);
}

/* Digits from *at on into mantissa, as far as it can hold them; *exponent counts those it cannot,
 * or those behind the point. Returns how many there were. */
static size_t read_digits(const char *text, size_t size, size_t *at, uint64_t *mantissa,
                          int *exponent, bool fraction)
{
    size_t n = 0;
    for (; *at < size && text[*at] >= '0' && text[*at] <= '9'; (*at)++, n++) {
        bool fits = *mantissa < UINT64_MAX / 10 - 1;
        if (fits)
            *mantissa = *mantissa * 10 + (uint64_t)(text[*at] - '0');
        if (fits == fraction && *exponent > -100000 && *exponent < 100000)
            *exponent += fraction ? -1 : 1;
    }
    return n;
}

bool nimbus_csv_number(const char *text, size_t size, double *value)
{
    size_t at = 0;
    bool negative = size > 0 && text[0] == '-';
    if (size > 0 && (text[0] == '-' || text[0] == '+'))
        at++;
    if (size - at == 3 && strncasecmp(text + at, "inf", 3) == 0) {
        *value = negative ? -(double)INFINITY : (double)INFINITY;
        return true;
    }
    uint64_t mantissa = 0;
    int exponent = 0;
    size_t n = read_digits(text, size, &at, &mantissa, &exponent, false);
    if (at < size && text[at] == '.') {
        at++;
        n += read_digits(text, size, &at, &mantissa, &exponent, true);
    }
    if (n == 0)
        return false;
    if (at < size && (text[at] == 'e' || text[at] == 'E')) {
        at++;
        bool down = at < size && text[at] == '-';
        if (at < size && (text[at] == '-' || text[at] == '+'))
            at++;
        uint64_t e = 0;
        int beyond = 0;
        if (read_digits(text, size, &at, &e, &beyond, false) == 0)
            return false;
        int shift = e > 100000 ? 100000 : (int)e;
        exponent += down ? -shift : shift;
    }
    if (at != size)
        return false;
    double v = (double)mantissa;
    /* Powers up to 10^22 are exact, which keeps usual numbers correctly rounded. */
    if (v != 0)
        v = exponent < 0
                ? (exponent < -300 ? v / 1e300 * pow(10, exponent + 300) : v / pow(10, -exponent))
                : v * pow(10, exponent);
    *value = negative ? -v : v;
    return true;
}

/* ---- which separator ---------------------------------------------------------------------- */

/* Number of cells that a separator makes of the first lines, or of the first line alone (minus a
 * handicap) if they differ. */
static int64_t separator_score(const char *text, size_t size, char delimiter)
{
    int64_t first = 0, cells = 1;
    bool quoted = false, equal = true, blank = true;
    int lines = 0;
    for (size_t i = 0; i <= size && lines < DETECT_LINES; i++) {
        if (i == size || (text[i] == '\n' && !quoted)) {
            if (!blank && lines++ == 0)
                first = cells;
            else if (!blank && cells != first)
                equal = false;
            cells = 1;
            blank = true;
            continue;
        }
        quoted ^= text[i] == '"';
        cells += text[i] == delimiter && !quoted;
        blank = blank && (text[i] == ' ' || text[i] == '\r');
    }
    return first == 1 ? INT64_MIN : equal ? first : first - ((int64_t)1 << 40);
}

static char detect_delimiter(const char *text, size_t size)
{
    static const char candidates[] = {',', '\t', ';'};
    char best = ',';
    int64_t best_score = INT64_MIN;
    for (size_t i = 0; i < sizeof candidates; i++) {
        int64_t score = separator_score(text, size, candidates[i]);
        if (score > best_score) {
            best_score = score;
            best = candidates[i];
        }
    }
    return best;
}

/* ---- cells -------------------------------------------------------------------------------- */

typedef struct scanner {
    char *text;
    size_t size, at;
    char delimiter;
    uint32_t line;
} scanner;

static bool is_space(const scanner *s, char c)
{
    return c == ' ' || c == '\r' || (c == '\t' && s->delimiter != '\t');
}

static void skip_spaces(scanner *s)
{
    while (s->at < s->size && is_space(s, s->text[s->at]))
        s->at++;
}

/* A quoted cell, its doubled quotes made single in place. */
static nimbus_status scan_quoted(scanner *s, nimbus_cell *cell, nimbus_error *error)
{
    uint32_t first_line = s->line;
    size_t first = ++s->at, to = first;
    for (;;) {
        if (s->at == s->size)
            return nimbus_fail_at(error, NIMBUS_ERR_TRUNCATED, first - 1,
                                  "line %u: the quote is never closed", first_line);
        char c = s->text[s->at++];
        if (c == '"') {
            if (s->at == s->size || s->text[s->at] != '"')
                break;
            s->at++;
        }
        s->line += c == '\n';
        s->text[to++] = c;
    }
    *cell = (nimbus_cell){(uint32_t)first, (uint32_t)(to - first)};
    skip_spaces(s);
    if (s->at < s->size && s->text[s->at] != s->delimiter && s->text[s->at] != '\n')
        return nimbus_fail_at(error, NIMBUS_ERR_FORMAT, s->at,
                              "line %u: text follows a closing quote", s->line);
    return NIMBUS_OK;
}

static nimbus_status scan_cell(scanner *s, nimbus_cell *cell, nimbus_error *error)
{
    skip_spaces(s);
    if (s->at < s->size && s->text[s->at] == '"')
        return scan_quoted(s, cell, error);
    size_t first = s->at;
    while (s->at < s->size && s->text[s->at] != s->delimiter && s->text[s->at] != '\n')
        s->at++;
    size_t end = s->at;
    while (end > first && is_space(s, s->text[end - 1]))
        end--;
    *cell = (nimbus_cell){(uint32_t)first, (uint32_t)(end - first)};
    return NIMBUS_OK;
}

/* Scans one row into cells; *n counts them. Stops behind the line's end. */
static nimbus_status scan_row(scanner *s, nimbus_cell *cells, size_t *n, nimbus_error *error)
{
    *n = 0;
    for (;;) {
        nimbus_status status = scan_cell(s, &cells[*n], error);
        if (status != NIMBUS_OK)
            return status;
        (*n)++;
        if (s->at == s->size)
            return NIMBUS_OK;
        if (s->text[s->at++] == '\n') {
            s->line++;
            return NIMBUS_OK;
        }
    }
}

/* Skips lines of nothing but spaces; false at the end of the text. */
static bool skip_blank_lines(scanner *s)
{
    for (;;) {
        size_t line = s->at;
        while (s->at < s->size && (s->text[s->at] == ' ' || s->text[s->at] == '\r'))
            s->at++;
        if (s->at == s->size)
            return false;
        if (s->text[s->at] != '\n') {
            s->at = line;
            return true;
        }
        s->at++;
        s->line++;
    }
}

static nimbus_status scan_rows(scanner *s, nimbus_csv *out, nimbus_error *error)
{
    size_t n_cells = 0, n;
    while (skip_blank_lines(s)) {
        uint32_t line = s->line;
        nimbus_status status = scan_row(s, out->cells + n_cells, &n, error);
        if (status != NIMBUS_OK)
            return status;
        if (out->n_rows == 0)
            out->n_columns = n;
        if (n != out->n_columns)
            return nimbus_fail(error, NIMBUS_ERR_VALUE,
                               "row %zu (line %u) has %zu column%s, the first row has %zu",
                               out->n_rows + 1, line, n, n == 1 ? "" : "s", out->n_columns);
        if (n > NIMBUS_DATA_MAX_COLUMNS)
            return nimbus_fail(error, NIMBUS_ERR_LIMIT, "%zu columns, the limit is %d", n,
                               NIMBUS_DATA_MAX_COLUMNS);
        out->lines[out->n_rows++] = line;
        n_cells += n;
    }
    return NIMBUS_OK;
}

nimbus_status nimbus_csv_parse(char *text, size_t size, nimbus_csv *out, nimbus_error *error)
{
    *out = (nimbus_csv){.text = text, .size = size};
    if (size > UINT32_MAX)
        return nimbus_fail(error, NIMBUS_ERR_LIMIT, "a table of %zu bytes, the limit is %u", size,
                           UINT32_MAX);
    const char *nul = size ? memchr(text, '\0', size) : NULL;
    if (nul)
        return nimbus_fail_at(error, NIMBUS_ERR_FORMAT, (uint64_t)(nul - text),
                              "not a text table: byte %zu is zero", (size_t)(nul - text));
    scanner s = {text, size, 0, ',', 1};
    if (size >= 3 && memcmp(text, "\xef\xbb\xbf", 3) == 0)
        s.at = 3;
    s.delimiter = out->delimiter = detect_delimiter(text + s.at, size - s.at);
    size_t most_cells = 1, most_rows = 1;
    for (size_t i = 0; i < size; i++) {
        most_cells += text[i] == s.delimiter || text[i] == '\n';
        most_rows += text[i] == '\n';
    }
    out->cells = nimbus_alloc(most_cells, sizeof *out->cells);
    out->lines = nimbus_alloc(most_rows, sizeof *out->lines);
    nimbus_status status;
    if (!out->cells || !out->lines)
        status = nimbus_fail(error, NIMBUS_ERR_MEMORY, "no memory for %zu cells", most_cells);
    else
        status = scan_rows(&s, out, error);
    if (status == NIMBUS_OK && out->n_rows == 0)
        status = nimbus_fail(error, NIMBUS_ERR_VALUE, "the table is empty");
    if (status != NIMBUS_OK)
        nimbus_csv_free(out);
    return status;
}

void nimbus_csv_free(nimbus_csv *csv)
{
    nimbus_free(csv->cells);
    nimbus_free(csv->lines);
    *csv = (nimbus_csv){0};
}
