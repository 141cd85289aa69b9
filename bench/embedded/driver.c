/* driver.c - runs an exported program on rows from a file, on anything
 *
 * Built with -DPROGRAM=name -DPROGRAM_HEADER="name.h" -DELEMENT=type. Reads rows.bin, writes
 * scores.bin, both as embedded_rows does. On a device (semihosting.h) it also says in report.txt
 * what the first row took: ticks of the SysTick timer, and bytes of stack, from a painted one. With
 * -DIN_PLACE="name.nimbus" in the place of PROGRAM the runtime runs that file, which lies in flash.
 */
#ifdef IN_PLACE
#include "nimbus.h"

__asm__(".section .rodata\n.balign 4\n.global program_bytes\nprogram_bytes: .incbin \"" IN_PLACE
        "\"\n.global program_end\nprogram_end: .byte 0\n.text\n");
extern const unsigned char program_bytes[], program_end[];

#ifdef SMALL
enum { MEMORY_BYTES = 2400, SCRATCH_BYTES = 1024 };
#else
enum { MEMORY_BYTES = 24000, SCRATCH_BYTES = 100000 };
#endif
static union {
    uint64_t alignment;
    unsigned char bytes[MEMORY_BYTES];
} memory;
static unsigned char scratch[SCRATCH_BYTES];
static nimbus_in_place *program;

static void RUN(const void *row, int32_t *scores)
{
    if (!program && (nimbus_in_place_open(program_bytes, (size_t)(program_end - program_bytes),
                                          memory.bytes, sizeof memory, &program, NULL) ||
                     nimbus_in_place_scratch_size(program) > sizeof scratch))
        return; /* the scores then are not what they must be */
    (void)nimbus_in_place_run(program, row, scores, scratch);
}
#else
#include PROGRAM_HEADER

#define JOIN_(a, b) a##b
#define JOIN(a, b)  JOIN_(a, b)
#define RUN         JOIN(PROGRAM, _run)
#endif

#ifdef DEVICE
#include "../../examples/cortex-m0/semihosting.h"
#else
#include <stdio.h>
#endif

static ELEMENT row[N_INPUTS];
static int32_t scores[N_OUTPUTS];
static unsigned char
    bytes[N_INPUTS * sizeof(ELEMENT) > 4 * N_OUTPUTS ? N_INPUTS * sizeof(ELEMENT) : 4 * N_OUTPUTS];

static uint32_t u32_at(const unsigned char *b, unsigned n)
{
    uint32_t value = 0;
    for (unsigned i = 0; i < n; i++)
        value |= (uint32_t)b[i] << 8 * i;
    return value;
}

static void take_row(void)
{
    for (unsigned d = 0; d < N_INPUTS; d++) {
        union {
            uint32_t u;
            ELEMENT element;
        } one;
        const uint32_t value = u32_at(bytes + d * sizeof(ELEMENT), sizeof(ELEMENT));
        if (sizeof(ELEMENT) == 4) {
            one.u = value;
            row[d] = one.element;
        } else {
            row[d] = (ELEMENT)value;
        }
    }
}

static void put_scores(void)
{
    for (unsigned m = 0; m < N_OUTPUTS; m++)
        for (unsigned i = 0; i < 4; i++)
            bytes[4 * m + i] = (unsigned char)((uint32_t)scores[m] >> 8 * i);
}

#ifdef DEVICE

int main(void)
{
    const int in = file_open("rows.bin", 0), out = file_open("scores.bin", 1);
    int first = 1;
    if (in < 0 || out < 0)
        device_exit(1);
    while (file_read(in, bytes, N_INPUTS * sizeof(ELEMENT))) {
        take_row();
        if (first) {
            measure_begin();
            RUN(row, scores);
            measure_end();
            first = 0;
        } else {
            RUN(row, scores);
        }
        put_scores();
        file_write(out, bytes, 4 * N_OUTPUTS);
    }
    measure_report();
    device_exit(0);
    return 0;
}

#else

int main(void)
{
    FILE *in = fopen("rows.bin", "rb"), *out = fopen("scores.bin", "wb");
    if (!in || !out)
        return 1;
    while (fread(bytes, N_INPUTS * sizeof(ELEMENT), 1, in) == 1) {
        take_row();
        RUN(row, scores);
        put_scores();
        fwrite(bytes, 4 * N_OUTPUTS, 1, out);
    }
    return fclose(out) != 0;
}

#endif
