/* digits.c - the built-in data set: 28 x 28 images of hand-drawn digits
 *
 * Each digit has a few styles, each style a few strokes: smooth curves (Catmull-Rom) through
 * points on a sheet of 100 x 100, a repeated point being a corner. A row draws one style with its
 * points jittered, the sheet warped by a slow wave, then stretched, sheared, rotated and shifted,
 * the pen of random thickness and softness, and noise and specks on the paper. The spread is
 * tuned so that a linear classifier stays below 93 % and a good network passes 98 %.
 *
 * All random numbers of a row depend on (seed, split, row) alone. */
#include <math.h>
#include <string.h>

#include "data/data.h"

enum {
    SIDE = 28,
    PIXELS = SIDE * SIDE,
    CLASSES = 10,
    DEFAULT_TRAIN = 20000,
    DEFAULT_TEST = 4000,
    MOST_POINTS = 24,
    SPAN_PARTS = 6, /* straight pieces between two points */
    MOST_SPECKS = 3,
    DRAW_BITS = 12, /* random numbers per row: 2^12 */
    STREAM_TRAIN = 0x64696731,
    STREAM_TEST = 0x64696732
};

#define UP  -1 /* lifts the pen: the next point begins a stroke */
#define END -2 /* of the style */

static const int8_t styles[][48] = {
    /* 0 */
    {50, 0, 22, 12, 12, 50, 22, 88, 50, 100, 78, 88, 88, 50, 78, 12, 50, 0, END},
    {62, 2, 36, 12, 22, 55, 34, 95, 56, 98, 74, 72, 78, 30, 62, 2, END},
    {66, 12, 44, 0, 18, 20, 12, 60, 30, 96, 60, 98, 86, 70, 84, 28, 64, 4, 46, 8, END},
    /* 1 */
    {50, 0, 50, 50, 50, 100, END},
    {26, 24, 52, 0, 52, 0, 52, 100, END},
    {30, 22, 52, 0, 52, 0, 52, 100, 52, 100, UP, 26, 100, 78, 100, END},
    /* 2 */
    {18, 22, 36, 2, 66, 2, 80, 26, 62, 56, 15, 100, 15, 100, 85, 100, END},
    {20, 25, 42, 2, 74, 8, 76, 36, 50, 72, 22, 96, 16, 84, 36, 80, 60, 94, 90, 92, END},
    {15, 16, 46, 0, 78, 14, 74, 42, 42, 74, 12, 98, 12, 98, 50, 94, 88, 100, END},
    /* 3 */
    {18, 10, 48, 0, 78, 16, 70, 40, 40, 48, 40, 48, 74, 56, 84, 78, 58, 100, 15, 90, END},
    {15, 2, 80, 2, 80, 2, 45, 40, 45, 40, 78, 52, 82, 82, 50, 100, 14, 88, END},
    {20, 14, 52, 0, 74, 22, 52, 44, 52, 44, 80, 66, 66, 96, 32, 100, 16, 82, END},
    /* 4 */
    {30, 0, 15, 58, 15, 58, 86, 58, UP, 66, 18, 62, 100, END},
    {66, 100, 66, 0, 66, 0, 12, 68, 12, 68, 90, 68, END},
    {24, 2, 18, 36, 30, 52, 74, 46, UP, 78, 0, 76, 50, 70, 100, END},
    /* 5 */
    {80, 0, 26, 0, 26, 0, 20, 44, 20, 44, 56, 38, 82, 58, 74, 90, 40, 100, 14, 88, END},
    {28, 4, 24, 44, 24, 44, 52, 38, 80, 58, 74, 90, 44, 100, 16, 88, UP, 28, 4, 84, 2, END},
    {78, 6, 40, 2, 26, 18, 24, 40, 56, 46, 80, 70, 60, 98, 18, 94, END},
    /* 6 */
    {70, 0, 36, 24, 16, 66, 30, 96, 58, 98, 80, 76, 66, 54, 38, 56, 18, 76, END},
    {54, 0, 26, 38, 18, 76, 44, 100, 76, 84, 72, 58, 46, 52, 20, 74, END},
    {78, 12, 52, 2, 24, 28, 14, 68, 36, 98, 70, 92, 78, 66, 52, 50, 20, 68, END},
    /* 7 */
    {12, 2, 85, 2, 85, 2, 40, 100, END},
    {14, 4, 84, 2, 84, 2, 44, 100, UP, 34, 52, 76, 48, END},
    {14, 20, 16, 4, 16, 4, 60, 6, 86, 2, 86, 2, 58, 44, 46, 100, END},
    /* 8 */
    {50, 47, 24, 32, 26, 8,   50, 0,  76, 8,  76, 32, 50, 47,
     20, 66, 20, 92, 50, 100, 82, 92, 80, 66, 50, 47, END},
    {76, 16, 50, 0, 24, 18, 44, 44, 76, 70, 62, 98, 28, 94, 24, 72, 54, 46, 76, 16, END},
    {60, 44, 30, 34, 32, 8, 58, 0, 76, 18, 58, 44, 24, 70, 30, 96, 60, 98, 74, 74, 54, 46, END},
    /* 9 */
    {78, 22, 52, 0, 22, 18, 26, 46, 54, 52, 78, 24, 78, 24, 74, 60, 66, 100, END},
    {76, 26, 52, 0, 22, 20, 28, 48, 60, 48, 78, 22, 80, 58, 62, 94, 24, 96, END},
    {72, 12, 44, 2, 22, 28, 42, 50, 70, 36, 76, 10, 76, 10, 76, 100, END},
};
enum { STYLES_PER_DIGIT = sizeof styles / sizeof *styles / CLASSES };

typedef struct point {
    float x, y;
} point;

/* The random numbers of one row, in order. */
typedef struct dice {
    uint64_t seed, stream, counter;
} dice;

static float uniform(dice *d, float low, float high)
{
    return low + (high - low) * (float)nimbus_random_uniform(d->seed, d->stream, d->counter++);
}

static float normal(dice *d, float deviation)
{
    return deviation * (float)nimbus_random_normal(d->seed, d->stream, d->counter++);
}

/* ---- where the sheet comes to lie ---------------------------------------------------------- */

typedef struct placement {
    float xx, xy, yx, yy, dx, dy;         /* from the sheet's middle to pixels */
    float wave, fx, fy, phase_x, phase_y; /* a slow wave bends the sheet first */
} placement;

static placement place(dice *d)
{
    float angle = normal(d, 0.17f), shear = normal(d, 0.20f);
    float height = uniform(d, 15.5f, 21.5f) / 100, width = uniform(d, 11.0f, 19.0f) / 100;
    float c = cosf(angle), s = sinf(angle);
    placement p;
    p.xx = c * width;
    p.yx = s * width;
    p.xy = (-c * shear - s) * height;
    p.yy = (-s * shear + c) * height;
    p.dx = SIDE / 2.0f + normal(d, 1.1f);
    p.dy = SIDE / 2.0f + normal(d, 1.1f);
    p.wave = uniform(d, 0, 6);
    p.fx = uniform(d, 0.02f, 0.05f);
    p.fy = uniform(d, 0.02f, 0.05f);
    p.phase_x = uniform(d, 0, 6.2831853f);
    p.phase_y = uniform(d, 0, 6.2831853f);
    return p;
}

static point put(const placement *p, point a)
{
    float x = a.x - 50 + p->wave * sinf(p->fx * a.y + p->phase_x);
    float y = a.y - 50 + p->wave * sinf(p->fy * a.x + p->phase_y);
    return (point){p->dx + p->xx * x + p->xy * y, p->dy + p->yx * x + p->yy * y};
}

/* ---- drawing ------------------------------------------------------------------------------ */

/* Darkens the pixels within `radius` of the line from a to b, with soft edges. */
static void draw_line(float *canvas, point a, point b, float radius)
{
    float reach = radius + 1, dx = b.x - a.x, dy = b.y - a.y;
    float length2 = dx * dx + dy * dy + 1e-9f;
    int x0 = (int)fmaxf(0, floorf(fminf(a.x, b.x) - reach));
    int y0 = (int)fmaxf(0, floorf(fminf(a.y, b.y) - reach));
    int x1 = (int)fminf(SIDE - 1, ceilf(fmaxf(a.x, b.x) + reach));
    int y1 = (int)fminf(SIDE - 1, ceilf(fmaxf(a.y, b.y) + reach));
    for (int y = y0; y <= y1; y++)
        for (int x = x0; x <= x1; x++) {
            float px = (float)x + 0.5f - a.x, py = (float)y + 0.5f - a.y;
            float t = fminf(1, fmaxf(0, (px * dx + py * dy) / length2));
            float ex = px - t * dx, ey = py - t * dy;
            float ink = fminf(1, radius + 0.5f - sqrtf(ex * ex + ey * ey));
            float *pixel = canvas + y * SIDE + x;
            *pixel = fmaxf(*pixel, ink);
        }
}

/* The Catmull-Rom curve between b and c, with neighbours a and d. */
static point curve(point a, point b, point c, point d, float t)
{
    float u = t * t, v = u * t;
    float wa = -0.5f * v + u - 0.5f * t, wb = 1.5f * v - 2.5f * u + 1;
    float wc = -1.5f * v + 2 * u + 0.5f * t, wd = 0.5f * v - 0.5f * u;
    return (point){wa * a.x + wb * b.x + wc * c.x + wd * d.x,
                   wa * a.y + wb * b.y + wc * c.y + wd * d.y};
}

static void draw_stroke(float *canvas, const placement *p, const point *points, size_t n,
                        float radius)
{
    point from = put(p, points[0]);
    for (size_t i = 0; i + 1 < n; i++) {
        point a = points[i > 0 ? i - 1 : 0], b = points[i], c = points[i + 1];
        point d = points[i + 2 < n ? i + 2 : n - 1];
        for (int k = 1; k <= SPAN_PARTS; k++) {
            point to = put(p, curve(a, b, c, d, (float)k / SPAN_PARTS));
            draw_line(canvas, from, to, radius);
            from = to;
        }
    }
}

/* Draws all strokes of a style with jittered points; a corner's two points stay together. */
static void draw_style(float *canvas, const int8_t *style, dice *d)
{
    placement p = place(d);
    float radius = uniform(d, 0.55f, 1.75f), jitter = uniform(d, 1.5f, 5.5f);
    point points[MOST_POINTS], shift = {0, 0};
    size_t n = 0;
    for (const int8_t *s = style;; s++) {
        if (*s < 0) {
            draw_stroke(canvas, &p, points, n, radius);
            n = 0;
            if (*s == END)
                return;
            continue;
        }
        bool corner = n > 0 && s[-2] == s[0] && s[-1] == s[1];
        if (!corner)
            shift = (point){normal(d, jitter), normal(d, jitter)};
        points[n++] = (point){(float)s[0] + shift.x, (float)s[1] + shift.y};
        s++;
    }
}

/* Mixes every pixel with the mean of its 3 x 3 neighbourhood (binomial weights). */
static void soften(float *canvas, float amount)
{
    float blurred[PIXELS];
    for (int y = 0; y < SIDE; y++)
        for (int x = 0; x < SIDE; x++) {
            float sum = 0;
            for (int v = -1; v <= 1; v++)
                for (int u = -1; u <= 1; u++)
                    if (y + v >= 0 && y + v < SIDE && x + u >= 0 && x + u < SIDE)
                        sum += canvas[(y + v) * SIDE + x + u] * (float)((2 - v * v) * (2 - u * u)) /
                               16;
            blurred[y * SIDE + x] = sum;
        }
    for (size_t i = 0; i < PIXELS; i++)
        canvas[i] += amount * (blurred[i] - canvas[i]);
}

static void add_specks(float *canvas, dice *d)
{
    int n = (int)uniform(d, 0, MOST_SPECKS + 1);
    for (int i = 0; i < n; i++) {
        point a = {uniform(d, 0, SIDE), uniform(d, 0, SIDE)};
        point b = {a.x + normal(d, 1.0f), a.y + normal(d, 1.0f)};
        draw_line(canvas, a, b, uniform(d, 0.1f, 0.6f));
    }
}

/* Pixels 0..255 with noise: eight of them share a random word. */
static void develop(const float *canvas, float ink, float noise, dice *d, uint8_t *out)
{
    uint64_t word = 0;
    for (size_t i = 0; i < PIXELS; i++) {
        if (i % 8 == 0)
            word = nimbus_random_u64(d->seed, d->stream, d->counter++);
        float grain = ((float)(word & 0xff) - 127.5f) / 127.5f;
        word >>= 8;
        float v = canvas[i] * ink + noise * grain;
        out[i] = (uint8_t)(fminf(1, fmaxf(0, v)) * 255 + 0.5f);
    }
}

static int32_t draw_digit(uint64_t seed, uint64_t stream, uint64_t row, uint8_t *out)
{
    float canvas[PIXELS] = {0};
    dice d = {seed, stream, row << DRAW_BITS};
    size_t digit = nimbus_random_below(seed, stream, d.counter++, CLASSES);
    size_t style = nimbus_random_below(seed, stream, d.counter++, STYLES_PER_DIGIT);
    draw_style(canvas, styles[digit * STYLES_PER_DIGIT + style], &d);
    add_specks(canvas, &d);
    soften(canvas, uniform(&d, 0, 0.9f));
    float ink = uniform(&d, 0.75f, 1.1f), noise = uniform(&d, 0, 0.12f);
    develop(canvas, ink, noise, &d, out);
    return (int32_t)digit;
}

/* ---- the data set ------------------------------------------------------------------------- */

typedef struct job {
    nimbus_data *data;
    const nimbus_rows *rows;
    uint64_t seed, stream;
} job;

static void draw_row(void *arg, size_t i)
{
    const job *j = arg;
    j->data->labels[i] =
        draw_digit(j->seed, j->stream, j->rows->row[i], (uint8_t *)j->data->features + i * PIXELS);
}

nimbus_status nimbus_digits_data(const nimbus_reading *reading, nimbus_data **out,
                                 nimbus_error *error)
{
    nimbus_reading drawing = *reading;
    nimbus_rows rows;
    nimbus_data *data = NULL;
    bool test = reading->split == NIMBUS_SPLIT_TEST;
    size_t n = reading->options.n_rows;
    *out = NULL;
    if (n == 0)
        n = test ? DEFAULT_TEST : DEFAULT_TRAIN;
    if (test)
        drawing.split = NIMBUS_SPLIT_ALL;
    drawing.options.n_rows = 0;
    nimbus_status status = nimbus_rows_choose(&drawing, n, &rows, error);
    if (status != NIMBUS_OK)
        return status;
    nimbus_data_info info = {.n_rows = rows.n,
                             .n_features = PIXELS,
                             .dtype = NIMBUS_U8,
                             .channels = 1,
                             .height = SIDE,
                             .width = SIDE,
                             .n_classes = CLASSES};
    status = nimbus_data_new(&info, &data, error);
    if (status == NIMBUS_OK) {
        job j = {data, &rows, reading->options.seed, test ? STREAM_TEST : STREAM_TRAIN};
        nimbus_parallel(0, rows.n, draw_row, &j);
        status = nimbus_data_finish(data, reading, error);
    }
    nimbus_free(rows.row);
    if (status != NIMBUS_OK) {
        nimbus_data_free(data);
        data = NULL;
    }
    *out = data;
    return status;
}
