/* program_format.h - the .nimbus file: what compile writes, run and export read.
 *
 * A container (base.h) with magic NIMBUS_PROGRAM_MAGIC. The first section says which of two kinds
 * of program it is: "PROG", a chain of layers on rows (since 1.0), or "IMAG", convolutions and what
 * goes with them on images (since 1.1).
 *
 * ==== Programs on rows =========================================================================
 *
 * These sections, in this order:
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
 * or 128 * sum |weight|, plus |bias|, exceeds 2^31 - 1.
 *
 * ==== Programs on images =======================================================================
 *
 * Steps work on values, each of them channels x height x width of i8. Value 0 is the input image,
 * value i + 1 the output of step i; the last step makes scores instead. A step reads values before
 * its own, any of them, any number of times. Sections:
 *
 *     "IMAG"   one, the program header:
 *                u32 channels, u32 height, u32 width of the input image
 *                u32 input_dtype 1 = u8, 2 = f32
 *                u32 n_outputs   of the last step
 *                u32 n_steps
 *                f32 output_scale
 *                u32 0
 *              with f32 input then arrays as in a step: f32 in_scale, f32 in_offset [channels]
 *     "STEP"   n_steps of them: a step header of 144 bytes, then its arrays, as above
 *     "META"   at most one, as above
 *
 * A raw row is the image [channel][y][x]. u8 enters as the i8 value - 128; f32 as
 * sat8(round(x * in_scale[channel] + in_offset[channel])), NaN as 0.
 *
 * Step header:
 *      0 u32 kind        1 = convolution by lookup, 2 = exact convolution, 3 = add, 4 = max pool,
 *                        5 = average pool, 6 = concat
 *      4 u32 n_sources   values it reads: 1, add 2..16, concat 1..16
 *      8 u32 n_outputs M channels of its output
 *     12 u32 C           codebooks (kind 1; else 0)
 *     16 u32 H           levels, 1..8 (kind 1; else 0)
 *     20 u32 flags       as above: bits 0 and 1 for kind 1, bit 2 (map) unless it makes scores
 *     24 u32 output      convolutions: 1, 2 or 3 as above; 1 in the last step and only there, which
 *                        must be a convolution with a 1 x 1 image; average pool: 3; else 0
 *     28 u32 shift       0..24 for output 2, else 0
 *     32 u32 groups      kind 2: divides the channels of source and output; kind 1: 1; else 0
 *     36 u32 kernel height, width      the window; kinds 1, 2, 4, 5, at least 1; else 0, as are
 *     44 u32 stride y, x               all up to the pads
 *     52 u32 dilation y, x             pools: 1
 *     60 u32 pad top, bottom, left, right   each at most (kernel - 1) * dilation
 *     76 i32 low, high   -128 <= low <= high <= 127: what outputs are clamped to; scores have
 *                        -128 and 127
 *     84 u32 0 x 3
 *     96 char name[48]   NUL-padded
 *
 * Output height = (height + top + bottom - (kernel - 1) * dilation - 1) / stride + 1, rounded down,
 * and the window must fit in once; width alike. Tap (ky, kx) of output (y, x) is the source at
 * (y * stride + ky * dilation - top, x * stride + kx * dilation - left).
 *
 * Arrays, each only where it is said; they start at multiples of 64, as above:
 *     u32 sources   [n_sources]      numbers of values, at most that of the step
 *     i8 pad        [channels]       kinds 1, 2 and 5, of the source: what stands for a tap outside
 *                                    of the image. For a max pool, it is -128
 *     u32 columns, i8 thresholds, i8 tables   kind 1: as in a lookup step; a column is a tap of the
 *                                    window, [channel][ky][kx] counted through
 *     i8 weights    [M][channels / groups][ky][kx]   kind 2; outputs of group g, M / groups of
 *                                    them, see the channels of group g
 *     i32 bias      [M]              kinds 1 and 2
 *     f32 scale, f32 offset [M]      output 3
 *     i8 map        [256]            flag bit 2
 *
 * What steps compute, for every position; convolutions and average pools have sums and outputs as
 * above (an output of i8 is sat8(...) of them):
 *     convolution by lookup   sum = bias[m] + sum over c of tables[c][code c][m]
 *     exact convolution       sum = bias[m] + sum over its taps of weights * x
 *     average pool            sum = sum of the taps of channel m. (With a pad of 0, taps outside of
 *                             the image count for nothing; scale is the same everywhere)
 *     max pool                y = largest tap of channel m
 *     add                     y = sat8(sum of all sources, which have the same shape)
 *     concat                  y = channels of all sources, one after the other, same height, width
 * then y = map[y + 128] where there is a map, then y = clamped to low..high.
 * A linear layer is a convolution whose kernel is the whole image; vectors are 1 x 1 images. A
 * global average is an average pool whose kernel is the whole image. A concat of one source is a
 * map alone.
 *
 * Sums must fit 32 bits as above; of an average pool, 128 * taps. Limits, LIMIT if exceeded: 2^24
 * elements of a value, 2^24 taps of a window in all channels, 4096 of a pool other than a global
 * average in one, and NIMBUS_MAX_IMAGE_SCRATCH bytes of working memory for one image. */
#ifndef NIMBUS_PROGRAM_FORMAT_H
#define NIMBUS_PROGRAM_FORMAT_H

#define NIMBUS_PROGRAM_MAGIC "NIMBUS\r\n"
#define NIMBUS_PROGRAM_MAJOR 1
#define NIMBUS_PROGRAM_MINOR 1
/* Programs on rows are written as 1.0, which readers before 1.1 take. */
#define NIMBUS_ROW_PROGRAM_MINOR 0

#define NIMBUS_PROGRAM_HEADER_BYTES 24
#define NIMBUS_STEP_HEADER_BYTES    112
#define NIMBUS_STEP_NAME_BYTES      48
#define NIMBUS_MAX_PROGRAM_WIDTH    (1u << 24)
#define NIMBUS_MAX_PROGRAM_STEPS    4000
#define NIMBUS_MAX_SHIFT            24

#define NIMBUS_IMAGE_HEADER_BYTES      32
#define NIMBUS_IMAGE_STEP_HEADER_BYTES 144
#define NIMBUS_MAX_SOURCES             16
#define NIMBUS_MAX_POOL_TAPS           4096
#define NIMBUS_MAX_IMAGE_SCRATCH       (1u << 28)

enum { NIMBUS_FLAG_PER_NODE = 1, NIMBUS_FLAG_4BIT = 2, NIMBUS_FLAG_MAP = 4 };
enum { NIMBUS_IN_U8 = 1, NIMBUS_IN_F32 = 2, NIMBUS_IN_I8 = 3 };
enum { NIMBUS_OUT_I32 = 1, NIMBUS_OUT_SHIFT = 2, NIMBUS_OUT_SCALED = 3 };

#endif
