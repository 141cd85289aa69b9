/* pages.c - what is written beside the C: its header, a part of a makefile, a page of costs */
#include <stdio.h>
#include <string.h>

#include "export/export.h"

/* Text as a comment: what could end it, or is no plain character, becomes "_". */
static void write_comment(const char *text, nimbus_buffer *b)
{
    nimbus_text(b, "/* ");
    for (; *text; text++) {
        const bool plain = (*text >= ' ' && *text <= '~' && *text != '*') || *text == '\n';
        nimbus_write_u8(b, (uint8_t)(plain ? *text : '_'));
    }
    nimbus_text(b, " */\n\n");
}

void nimbus_write_header(const nimbus_stored_program *program, const nimbus_export_plan *plan,
                         const nimbus_export_report *report, const nimbus_export_options *options,
                         nimbus_buffer *b)
{
    const nimbus_program_info *info = &program->info;
    char big[NIMBUS_MOST_PREFIX + 1];
    int64_t low, high;
    nimbus_input_range(plan->input, &low, &high);
    nimbus_upper(plan->prefix, big);
    nimbus_text(b, "/* %s.h - a lookup program as plain C (C99, nothing else needed)\n *\n",
                plan->prefix);
    nimbus_text(b, " * %s_run reads a row of %zu ", plan->prefix, info->n_inputs);
    if (plan->input == NIMBUS_EXPORT_F32)
        nimbus_text(b, "floats, as training read them: what the net\n"
                       " * normalised is folded in (the columns of a table are encoded before). "
                       "They are compared as\n"
                       " * integers; what is no number counts as not greater.\n");
    else
        nimbus_text(
            b,
            "integers in %lld..%lld, as they came to training:\n * nothing is to be normalised.\n",
            (long long)low, (long long)high);
    if (info->height)
        nimbus_text(b, " * It is an image, [channel][y][x] of %zu x %zu x %zu.\n", info->channels,
                    info->height, info->width);
    nimbus_text(
        b,
        " * Both arrays need the alignment of their elements. The largest score is the class; "
        "scores times\n * %s_SCALE are the net's outputs. %zu bytes of static buffers are "
        "written: one call at a time. */\n",
        big, report->ram_bytes);
    nimbus_text(b, "#ifndef %s_H\n#define %s_H\n\n#include <stdint.h>\n\n", big, big);
    nimbus_text(b, "#define %s_INPUTS  %zu\n#define %s_OUTPUTS %zu\n#define %s_SCALE   %.9e\n\n",
                big, info->n_inputs, big, info->n_outputs, big, (double)info->output_scale);
    if (options->comment)
        write_comment(options->comment, b);
    nimbus_text(b, "#ifdef __cplusplus\nextern \"C\" {\n#endif\n\n");
    nimbus_text(b, "void %s_run(const %s input[%zu], int32_t scores[%zu]);\n\n", plan->prefix,
                nimbus_input_type(plan->input), info->n_inputs, info->n_outputs);
    nimbus_text(
        b,
        "/* In %s_test.c: 0 if its rows get the scores they must, else the number of the first "
        "that does\n   not, from 1. */\nint %s_selftest(void);\n\n",
        plan->prefix, plan->prefix);
    nimbus_text(b, "#ifdef __cplusplus\n}\n#endif\n#endif\n");
}

void nimbus_write_makefile(const nimbus_export_plan *plan, nimbus_buffer *b)
{
    const char *p = plan->prefix;
    nimbus_text(b,
                "# %s.mk - include it in a makefile, or use it alone: make -f %s.mk %s-selftest\n"
                "%s_GOAL := $(.DEFAULT_GOAL)\n"
                "%s_DIR := $(dir $(lastword $(MAKEFILE_LIST)))\n"
                "%s_CFLAGS ?= -O2 -std=c99 -Wall -Wextra -Wconversion\n\n",
                p, p, p, p, p, p);
    nimbus_text(
        b,
        "%s.o: $(%s_DIR)%s.c $(%s_DIR)%s.h\n"
        "\t$(CC) $(%s_CFLAGS) $(CFLAGS) -c $< -o $@\n\n"
        ".PHONY: %s-selftest\n"
        "%s-selftest:\n"
        "\t$(CC) $(%s_CFLAGS) $(CFLAGS) -DSELFTEST_MAIN $(%s_DIR)%s.c $(%s_DIR)%s_test.c -o $@\n"
        "\t./$@ && echo \"%s: all rows have the scores they must\"\n\n"
        ".DEFAULT_GOAL := $(%s_GOAL)\n",
        p, p, p, p, p, p, p, p, p, p, p, p, p, p, p);
}

static void write_costs(const nimbus_export_report *report, const nimbus_export_options *options,
                        nimbus_buffer *b)
{
    nimbus_text(b, "| what | bytes |\n|---|---|\n");
    nimbus_text(b, "| constant arrays, in flash | %zu |\n", report->array_bytes);
    if (options->compiler)
        nimbus_text(b, "| code, in flash | %zu |\n| flash in all | %zu |\n", options->code_bytes,
                    report->array_bytes + options->code_bytes);
    nimbus_text(b, "| static buffers, in RAM | %zu |\n", report->ram_bytes);
    if (options->compiler)
        nimbus_text(b, "| stack, below the call | %zu |\n", options->stack_bytes);
    nimbus_text(b, "\n| what | for one row |\n|---|---|\n");
    nimbus_text(b, "| table entries looked up | %zu |\n", report->lookups);
    nimbus_text(b, "| additions of entries and products | %zu |\n", report->additions);
    nimbus_text(b, "| comparisons | %zu |\n", report->comparisons);
    nimbus_text(b, "| products, in exact layers alone | %zu |\n\n", report->multiply_adds);
    nimbus_text(b, "Arrays and buffers are the same with every compiler; code and stack are ");
    if (options->compiler)
        nimbus_text(b, "those of\n`%s`.\n\n", options->compiler);
    else
        nimbus_text(b,
                    "the compiler's:\n`nimbus export --cc` with its command states them here.\n\n");
}

void nimbus_write_page(const nimbus_stored_program *program, const nimbus_export_plan *plan,
                       const nimbus_export_report *report, const nimbus_export_options *options,
                       nimbus_buffer *b)
{
    const char *p = plan->prefix;
    char big[NIMBUS_MOST_PREFIX + 1];
    nimbus_upper(p, big);
    nimbus_text(b,
                "# %s\n\nA lookup program as plain C99. `%s.c` and `%s.h` need nothing else.\n\n",
                p, p, p);
    nimbus_text(b,
                "```c\n#include \"%s.h\"\n\n%s input[%zu];\nint32_t scores[%zu];\n%s_run(input, "
                "scores);\n```\n\n",
                p, nimbus_input_type(plan->input), program->info.n_inputs, program->info.n_outputs,
                p);
    write_costs(report, options, b);
    nimbus_text(
        b,
        "Vector registers of SSE2, AVX2, NEON and Helium are used where the compiler has them; "
        "with\n`-D%s_PORTABLE` it is plain C everywhere. The bits are the same.\n\n",
        big);
    nimbus_text(
        b,
        "`%s.nimbus` is the program that the C computes, bit for bit: `nimbus eval %s.nimbus "
        "--data ...` tells its\naccuracy.\n\n`make -f %s.mk %s-selftest` builds and runs the "
        "self-test. On a device call `%s_selftest()`, which is\nin `%s_test.c`.\n\n",
        p, p, p, p, p, p);
    nimbus_text(b, "| layer | step | bits of an entry |\n|---|---|---|\n");
    for (size_t i = 0; i < program->info.n_steps; i++) {
        const nimbus_step_info *info = &program->steps[i].info;
        const unsigned bits = i < NIMBUS_REPORT_LAYERS ? report->table_bits[i] : 0;
        char text[12] = "", name[sizeof info->name];
        if (bits)
            (void)snprintf(text, sizeof text, "%u", bits);
        nimbus_plain_name(info->name, name);
        nimbus_text(b, "| %s | %s | %s |\n", name, nimbus_step_kind_name(info->kind), text);
    }
}
