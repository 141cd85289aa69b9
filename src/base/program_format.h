/* program_format.h - the .nimbus file: what compile writes and run reads.
 *
 * A container (base.h) with magic NIMBUS_PROGRAM_MAGIC and these sections, in this order:
 *
 *     "PROG"   one, the program header:
 *                u32 n_inputs    elements of a raw row
 *                u32 input_dtype 1 = u8, 2 = f32
 *                u32 n_outputs   of the last step
 *                u32 n_steps
 *                f32 output_scale
 *                u32 0
 *     "STEP"   n_steps of them: a step header of 112 bytes, then its arrays, each starting at a
 *              multiple of 64 from the start of the section, gaps zero, section ends with the last
 *     "META"   at most one: JSON text in UTF-8, not terminated
 *
 * Step header:
 *      0 u32 kind        1 = lookup, 2 = exact
 *      4 u32 n_inputs D  columns of its input
 *      8 u32 n_outputs M columns of its output
 *     12 u32 C           codebooks (lookup; else 0)
 *     16 u32 H           levels, 1..8 (lookup; else 0)
 *     20 u32 flags       bit 0: columns per node, else one per level
 *                        bit 1: tables hold two 4-bit entries a byte
 *                        bit 2: a map of 256 bytes follows (see output)
 *     24 u32 input       1 = raw u8 row, 2 = raw f32 row, 3 = the previous step's i8 columns
 *     28 u32 output      1 = i32 scores (last step only)
 *                        2 = i8, shift:  y = sat8((sum + bias[m]) >> shift)
 *                        3 = i8, scaled: y = sat8(round(f32(sum + bias[m]) * scale[m] + offset[m]))
 *                        for 2 and 3 with flag bit 2: y = map[y + 128]
 *     32 u32 shift       0..24 for output 2, else 0
 *     36 u32 0 x 7
 *     64 char name[48]   NUL-padded
 *
 * A raw u8 value enters as the i8 value - 128; so do thresholds and exact weights see it.
 * round() is to nearest, ties to even; sat8 clamps to -128..127; >> is arithmetic (floor).
 *
 * Arrays of a lookup step:
 *     u32 columns   [C][H] (or [C][K-1] with flag bit 0), each < D
 *     i8 or f32 thresholds [C][K-1]  f32 for a raw f32 input; heap order, right if x > threshold
 *     i8 tables     [C][K][M]        with flag bit 1: [C][K][ceil(M/2)] bytes, entry m in the low
 *                                    nibble for even m, sign-extended from 4 bits
 *     i32 bias      [M]
 *     f32 scale, f32 offset [M] each (output 3 only)
 *     i8 map        [256] (flag bit 2 only)
 *   sum[m] = sum over c of tables[c][code c][m].
 *
 * Arrays of an exact step:
 *     i8 weights    [M][D]
 *     i32 bias      [M]
 *     f32 in_scale, f32 in_offset [D] each (raw f32 input only):
 *                   the input enters as sat8(round(x * in_scale[d] + in_offset[d])), NaN as 0
 *     f32 scale, offset and map as above
 *   sum[m] = sum over d of weights[m][d] * x[d].
 *
 * No sum may leave 32 bits: the reader refuses a step where sum over c of the largest |entry|,
 * or 128 * sum |weight|, plus |bias|, exceeds 2^31 - 1. */
#ifndef NIMBUS_PROGRAM_FORMAT_H
#define NIMBUS_PROGRAM_FORMAT_H

#define NIMBUS_PROGRAM_MAGIC "NIMBUS\r\n"
#define NIMBUS_PROGRAM_MAJOR 1
#define NIMBUS_PROGRAM_MINOR 0

#define NIMBUS_PROGRAM_HEADER_BYTES 24
#define NIMBUS_STEP_HEADER_BYTES 112
#define NIMBUS_STEP_NAME_BYTES 48
#define NIMBUS_MAX_PROGRAM_WIDTH (1u << 24)
#define NIMBUS_MAX_PROGRAM_STEPS 4000
#define NIMBUS_MAX_SHIFT 24

enum { NIMBUS_FLAG_PER_NODE = 1, NIMBUS_FLAG_4BIT = 2, NIMBUS_FLAG_MAP = 4 };
enum { NIMBUS_IN_U8 = 1, NIMBUS_IN_F32 = 2, NIMBUS_IN_I8 = 3 };
enum { NIMBUS_OUT_I32 = 1, NIMBUS_OUT_SHIFT = 2, NIMBUS_OUT_SCALED = 3 };

#endif
