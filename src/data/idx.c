/* idx.c - IDX files, the format of MNIST
 *
 *     offset  bytes
 *          0  2   zero
 *          2  1   element: 08 u8, 09 i8, 0b i16, 0c i32, 0d f32, 0e f64
 *          3  1   rank
 *          4  4*rank  shape, big-endian like everything here
 *         ..  elements, row-major */
#include "data/data.h"

nimbus_status nimbus_idx_parse(const void *bytes, size_t size, nimbus_array *out,
                               nimbus_error *error)
{
    nimbus_reader r = nimbus_reader_of(bytes, size);
    uint32_t magic = nimbus_read_u32be(&r);
    if (r.failed)
        return nimbus_fail(error, NIMBUS_ERR_TRUNCATED,
                           "an IDX file begins with 4 bytes, here are %zu", size);
    if (magic >> 16 != 0)
        return nimbus_fail(error, NIMBUS_ERR_FORMAT,
                           "not an IDX file: it begins with 0x%08x, expected 0x0000....", magic);
    switch (magic >> 8) {
    case 0x08:
        out->element = NIMBUS_ELEMENT_U8;
        break;
    case 0x09:
        out->element = NIMBUS_ELEMENT_I8;
        break;
    case 0x0b:
        out->element = NIMBUS_ELEMENT_I16;
        break;
    case 0x0c:
        out->element = NIMBUS_ELEMENT_I32;
        break;
    case 0x0d:
        out->element = NIMBUS_ELEMENT_F32;
        break;
    case 0x0e:
        out->element = NIMBUS_ELEMENT_F64;
        break;
    default:
        return nimbus_fail_at(error, NIMBUS_ERR_FORMAT, 2,
                              "IDX element type is 0x%02x, expected 08, 09, 0b, 0c, 0d or 0e",
                              magic >> 8);
    }
    out->big_endian = true;
    out->rank = magic & 0xff;
    if (out->rank < 1 || out->rank > NIMBUS_DATA_MAX_RANK)
        return nimbus_fail_at(error, NIMBUS_ERR_FORMAT, 3, "IDX rank is %zu, expected 1 to %d",
                              out->rank, NIMBUS_DATA_MAX_RANK);
    for (size_t i = 0; i < out->rank; i++)
        out->shape[i] = nimbus_read_u32be(&r);
    if (r.failed)
        return nimbus_fail_at(error, NIMBUS_ERR_TRUNCATED, size,
                              "the IDX header of rank %zu takes %zu bytes, here are %zu", out->rank,
                              4 + 4 * out->rank, size);
    return nimbus_array_attach(out, &r, error);
}
