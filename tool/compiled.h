/* compiled.h - what a compiler makes of exported C (compiled.c) */
#ifndef NIMBUS_COMPILED_H
#define NIMBUS_COMPILED_H

#include "tool.h"

/* Builds an export with a command like "arm-none-eabi-gcc -Os -mcpu=cortex-m0 -mthumb" in a folder
 * of its own, and tells the bytes of code beside constant arrays, and the deepest stack below the
 * call of PREFIX_run. Needs a GCC. Errors: ARGUMENT (the command failed), FORMAT, IO. */
nimbus_status compiled_measure(const char *compiler, const nimbus_export *result,
                               const char *prefix, size_t *code_bytes, size_t *stack_bytes,
                               nimbus_error *error) NIMBUS_MUST_CHECK;

#endif
