/* bench_error.h - failing with a message, for the files of this folder */
#ifndef NIMBUS_BENCH_ERROR_H
#define NIMBUS_BENCH_ERROR_H

#include <stdarg.h>
#include <stdio.h>

#include "nimbus.h"

static inline nimbus_status __attribute__((format(printf, 3, 4)))
bench_fail(nimbus_error *error, nimbus_status status, const char *format, ...)
{
    va_list args;
    *error = (nimbus_error){.status = status};
    va_start(args, format);
    vsnprintf(error->message, sizeof error->message, format, args);
    va_end(args);
    return status;
}

#endif
