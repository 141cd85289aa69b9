/* progress.c - a bar on a terminal, otherwise a plain line every few seconds and every epoch */
#include <math.h>
#include <string.h>
#include <sys/ioctl.h>
#include <unistd.h>

#include "tool.h"

#define PLAIN_SECONDS 5.0
#define BAR_MIN       10

void progress_init(progress_display *display, const common_arguments *common)
{
    *display = (progress_display){
        .quiet = common->quiet, .terminal = isatty(STDERR_FILENO), .last_seconds = -PLAIN_SECONDS};
}

static size_t terminal_width(void)
{
    struct winsize size;
    if (ioctl(STDERR_FILENO, TIOCGWINSZ, &size) == 0 && size.ws_col >= 20)
        return size.ws_col;
    return 80;
}

static void append(char *line, size_t size, const char *format, double value)
{
    size_t used = strlen(line);
    if (isfinite(value) && used < size)
        snprintf(line + used, size - used, format, value);
}

/* "loss 0.1234  train 98.11 %  valid 97.90 %  0:34 left" */
static void describe(const nimbus_progress *p, char *line, size_t size)
{
    line[0] = 0;
    append(line, size, "  loss %.4f", p->loss);
    append(line, size, "  train %.2f %%", 100 * p->train_accuracy);
    append(line, size, "  valid %.2f %%", 100 * p->valid_accuracy);
    if (p->seconds_left >= 0 && p->seconds_left < 1e7) {
        size_t used = strlen(line);
        unsigned long left = (unsigned long)(p->seconds_left + 0.5);
        snprintf(line + used, size - used, "  %lu:%02lu left", left / 60, left % 60);
    }
}

static void show_bar(progress_display *display, const char *head, const char *tail, double part)
{
    char bar[64];
    size_t width = terminal_width(), fixed = strlen(head) + strlen(tail) + 10;
    size_t n = width > fixed + BAR_MIN ? width - fixed : BAR_MIN;
    if (n > sizeof bar - 1)
        n = sizeof bar - 1;
    size_t filled = (size_t)(part * (double)n);
    for (size_t i = 0; i < n; i++)
        bar[i] = i < filled ? '#' : '.';
    bar[n] = 0;
    char line[512];
    int used = snprintf(line, sizeof line, "%s [%s] %3.0f %%%s", head, bar, 100 * part, tail);
    if ((size_t)used >= width && width < sizeof line) /* a wrapped line could not be redrawn */
        line[width - 1] = 0;
    fprintf(stderr, "\r%s\033[K", line);
    fflush(stderr);
    display->shown = 1;
}

/* Keeps what an epoch came to, when it ends, and what there was before the first. */
static void keep_epoch(progress_display *display, const nimbus_progress *p)
{
    double epochs = p->total > 0 ? p->done / p->total * (double)p->n_epochs : 0;
    double whole = round(epochs);
    if (fabs(epochs - whole) > 1e-9 || (whole < 1 && !isfinite(p->valid_accuracy)))
        return;
    if (!display->curve)
        display->curve = json_array();
    double seconds = display->curve_seconds ? *display->curve_seconds : p->seconds;
    size_t n = json_array_size(display->curve);
    const json_t *last = n ? json_array_get(json_array_get(display->curve, n - 1), 0) : NULL;
    if (!last || json_number_value(last) < whole)
        json_array_append_new(display->curve,
                              json_pack("[f,o,o,o,o]", whole, json_number(seconds),
                                        json_number(p->loss), json_number(p->train_accuracy),
                                        json_number(p->valid_accuracy)));
}

json_t *progress_curve(progress_display *display)
{
    json_t *curve = display->curve ? display->curve : json_array();
    display->curve = NULL;
    return curve;
}

int progress_show(void *user, const nimbus_progress *p)
{
    progress_display *display = user;
    char head[256], tail[160];
    int new_stage = strcmp(display->last_stage, p->stage) != 0;
    if (new_stage && display->curve)
        json_array_clear(display->curve);
    keep_epoch(display, p);
    if (display->quiet) {
        snprintf(display->last_stage, sizeof display->last_stage, "%s", p->stage);
        return work_interrupted();
    }
    double part = p->total > 0 ? p->done / p->total : 0;
    part = part < 0 ? 0 : part > 1 ? 1 : part;
    if (new_stage && display->last_stage[0])
        progress_finish(display);
    if (p->n_epochs > 0)
        snprintf(head, sizeof head, "%s %zu/%zu", p->stage, p->epoch, p->n_epochs);
    else
        snprintf(head, sizeof head, "%s", p->stage);
    describe(p, tail, sizeof tail);
    if (display->terminal) {
        show_bar(display, head, tail, part);
    } else if (new_stage || p->epoch != display->last_epoch ||
               p->seconds - display->last_seconds >= PLAIN_SECONDS) {
        fprintf(stderr, "%s  %.0f %%%s\n", head, 100 * part, tail);
        display->last_seconds = p->seconds;
    }
    display->last_epoch = p->epoch;
    snprintf(display->last_stage, sizeof display->last_stage, "%s", p->stage);
    return work_interrupted();
}

void progress_finish(progress_display *display)
{
    if (display->shown)
        fputc('\n', stderr);
    display->shown = 0;
}
