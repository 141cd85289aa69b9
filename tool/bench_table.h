/* bench_table.h - how bench and demo show a bench_report to people */
#ifndef NIMBUS_TOOL_BENCH_TABLE_H
#define NIMBUS_TOOL_BENCH_TABLE_H

#include "bench.h"
#include "tool.h"

/* "CPU, kernels, how it was measured" on one line. */
void bench_print_head(const bench_report *report, FILE *out);
/* Everything that the report has, as tables and lines. */
void bench_print(const bench_report *report, FILE *out);

#endif
