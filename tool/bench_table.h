/* bench_table.h - how bench and demo show a bench_report */
#ifndef NIMBUS_TOOL_BENCH_TABLE_H
#define NIMBUS_TOOL_BENCH_TABLE_H

#include "bench.h"
#include "tool.h"

/* "CPU, kernels, how it was measured" on one line. */
void bench_print_head(const bench_report *report, FILE *out);
json_t *bench_json(const bench_report *report);

#endif
