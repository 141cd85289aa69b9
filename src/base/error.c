/* error.c - failing with a message: what was found, what was expected, where */
#include <stdarg.h>

#include "base/base.h"

#ifdef NIMBUS_FREESTANDING
/* What of printf the runtime's messages use: %% %c %s %d %u %x with z, l, ll, a width that zeros
 * fill, and a precision for %s. */
static void print_number(char **to, const char *end, unsigned long long value, unsigned base,
                         int width)
{
    char digits[24];
    int n = 0;
    do
        digits[n++] = "0123456789abcdef"[value % base];
    while ((value /= base) || n < width);
    while (n > 0 && *to < end)
        *(*to)++ = digits[--n];
}

static unsigned long long unsigned_of(int n_long, va_list *args)
{
    return n_long > 1   ? va_arg(*args, unsigned long long)
           : n_long < 0 ? va_arg(*args, size_t)
           : n_long     ? va_arg(*args, unsigned long)
                        : va_arg(*args, unsigned);
}

static long long signed_of(int n_long, va_list *args)
{
    return n_long > 1   ? va_arg(*args, long long)
           : n_long < 0 ? va_arg(*args, ptrdiff_t)
           : n_long     ? va_arg(*args, long)
                        : va_arg(*args, int);
}

static int vsnprintf(char *out, size_t size, const char *format, va_list all)
{
    const char *end = out + size - 1;
    char *to = out;
    va_list args;
    va_copy(args, all);
    for (; *format && to < end; format++) {
        int width = 0, most = -1, n_long = 0;
        if (*format != '%') {
            *to++ = *format;
            continue;
        }
        for (format++; *format >= '0' && *format <= '9'; format++)
            width = 10 * width + (*format - '0');
        if (*format == '.') {
            most = 0;
            if (*++format == '*') {
                most = va_arg(args, int);
                format++;
            }
            for (; *format >= '0' && *format <= '9'; format++)
                most = 10 * most + (*format - '0');
        }
        for (; *format == 'l' || *format == 'z'; format++)
            n_long = *format == 'z' ? -1 : n_long + 1;
        if (*format == 's') {
            const char *text = va_arg(args, const char *);
            while (*text && most-- != 0 && to < end)
                *to++ = *text++;
        } else if (*format == 'd') {
            const long long value = signed_of(n_long, &args);
            if (value < 0)
                *to++ = '-';
            print_number(&to, end,
                         value < 0 ? 0 - (unsigned long long)value : (unsigned long long)value, 10,
                         width);
        } else if (*format == 'u' || *format == 'x') {
            print_number(&to, end, unsigned_of(n_long, &args), *format == 'u' ? 10 : 16, width);
        } else if (*format == 'c') {
            *to++ = (char)va_arg(args, int);
        } else {
            *to++ = *format ? *format : '%';
        }
        if (!*format)
            break;
    }
    *to = '\0';
    va_end(args);
    return (int)(to - out);
}
#else
#include <errno.h>
#include <stdio.h>
#endif

/* A message is one line whatever names and file contents were printed into it. */
static void keep_one_line(char *s)
{
    for (; *s; s++) {
        if ((unsigned char)*s < 0x20 || *s == 0x7f)
            *s = '?';
    }
}

static void fill(nimbus_error *error, nimbus_status status, int os_errno, uint64_t offset,
                 const char *format, va_list args)
{
    error->status = status;
    error->os_errno = os_errno;
    error->offset = offset;
    vsnprintf(error->message, sizeof error->message, format, args);
    keep_one_line(error->message);
}

nimbus_status nimbus_fail(nimbus_error *error, nimbus_status status, const char *format, ...)
{
    if (error) {
        va_list args;
        va_start(args, format);
        fill(error, status, 0, 0, format, args);
        va_end(args);
    }
    return status;
}

nimbus_status nimbus_fail_at(nimbus_error *error, nimbus_status status, uint64_t offset,
                             const char *format, ...)
{
    if (error) {
        va_list args;
        va_start(args, format);
        fill(error, status, 0, offset, format, args);
        va_end(args);
    }
    return status;
}

#ifndef NIMBUS_FREESTANDING
nimbus_status nimbus_fail_errno(nimbus_error *error, const char *format, ...)
{
    int os_errno = errno;
    if (error) {
        va_list args;
        va_start(args, format);
        fill(error, NIMBUS_ERR_IO, os_errno, 0, format, args);
        va_end(args);
        char text[128] = "unknown error";
        if (strerror_r(os_errno, text, sizeof text) != 0)
            snprintf(text, sizeof text, "system error %d", os_errno);
        size_t used = strlen(error->message);
        snprintf(error->message + used, sizeof error->message - used, ": %s", text);
    }
    return NIMBUS_ERR_IO;
}

nimbus_status nimbus_fail_prefix(nimbus_error *error, nimbus_status status, const char *format, ...)
{
    if (error) {
        char old[sizeof error->message];
        memcpy(old, error->message, sizeof old);
        va_list args;
        va_start(args, format);
        fill(error, status, error->os_errno, error->offset, format, args);
        va_end(args);
        size_t used = strlen(error->message);
        snprintf(error->message + used, sizeof error->message - used, ": %s", old);
    }
    return status;
}
#endif

const char *nimbus_status_name(nimbus_status status)
{
    static const char *const names[] = {
        [NIMBUS_OK] = "ok",
        [NIMBUS_ERR_ARGUMENT] = "argument",
        [NIMBUS_ERR_MEMORY] = "memory",
        [NIMBUS_ERR_IO] = "io",
        [NIMBUS_ERR_FORMAT] = "format",
        [NIMBUS_ERR_TRUNCATED] = "truncated",
        [NIMBUS_ERR_CHECKSUM] = "checksum",
        [NIMBUS_ERR_VERSION] = "version",
        [NIMBUS_ERR_UNSUPPORTED] = "unsupported",
        [NIMBUS_ERR_LIMIT] = "limit",
        [NIMBUS_ERR_VALUE] = "value",
        [NIMBUS_ERR_MISMATCH] = "mismatch",
        [NIMBUS_ERR_STATE] = "state",
        [NIMBUS_ERR_CANCELLED] = "cancelled",
    };
    size_t i = (size_t)status;
    return i < sizeof names / sizeof names[0] ? names[i] : "unknown";
}

#define TEXT_OF(x)       #x
#define VERSION(a, b, c) TEXT_OF(a) "." TEXT_OF(b) "." TEXT_OF(c)

const char *nimbus_version(void)
{
    return VERSION(NIMBUS_VERSION_MAJOR, NIMBUS_VERSION_MINOR, NIMBUS_VERSION_PATCH);
}
