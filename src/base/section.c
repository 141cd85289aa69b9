/* section.c - checked reading of a section's fields and arrays
 *
 * Every array is found in the bytes before anything of its size is allocated, so memory stays in
 * proportion to the file. */
#include "base/section.h"

nimbus_section_reader nimbus_section_of_step(const nimbus_section *section, uint64_t start,
                                             size_t i, char name[NIMBUS_SECTION_NAME_BYTES],
                                             nimbus_error *error)
{
    size_t n_digits = 1, number = i;
    memcpy(name, "step ", 5);
    while (number /= 10)
        n_digits++;
    name[5 + n_digits] = '\0';
    for (number = i; n_digits; number /= 10)
        name[5 + --n_digits] = (char)('0' + number % 10);
    return (nimbus_section_reader){nimbus_reader_of(section->bytes, section->size), start, name,
                                   error};
}

/* Refuses a u32 field just read that is outside low..high. */
static nimbus_status check_u32(nimbus_section_reader *s, const char *field, uint32_t value,
                               uint32_t low, uint32_t high)
{
    if (value >= low && value <= high)
        return NIMBUS_OK;
    return NIMBUS_FAIL_BACK(s, NIMBUS_ERR_FORMAT, 4, "%s: %s is %u, expected %u to %u", s->name,
                            field, value, low, high);
}

nimbus_status nimbus_section_u32(nimbus_section_reader *s, const char *field, uint32_t low,
                                 uint32_t high, uint32_t *value)
{
    *value = nimbus_read_u32le(&s->r);
    return check_u32(s, field, *value, low, high);
}

nimbus_status nimbus_section_width(nimbus_section_reader *s, const char *field, uint32_t low,
                                   uint32_t *value)
{
    *value = nimbus_read_u32le(&s->r);
    if (*value > NIMBUS_MAX_PROGRAM_WIDTH)
        return NIMBUS_FAIL_BACK(s, NIMBUS_ERR_LIMIT, 4, "%s: %s is %u, the limit is %u", s->name,
                                field, *value, NIMBUS_MAX_PROGRAM_WIDTH);
    return check_u32(s, field, *value, low, NIMBUS_MAX_PROGRAM_WIDTH);
}

bool nimbus_is_finite(uint32_t bits)
{
    return (bits & 0x7f800000u) != 0x7f800000u;
}

static bool is_nan(uint32_t bits)
{
    return (bits & 0x7fffffffu) > 0x7f800000u;
}

nimbus_status nimbus_section_zero(nimbus_section_reader *s, size_t n, const char *what)
{
    const uint8_t *bytes = nimbus_read_bytes(&s->r, n);
    for (size_t i = 0; i < n; i++)
        if (bytes[i])
            return NIMBUS_FAIL_BACK(s, NIMBUS_ERR_FORMAT, n - i, "%s: %s is %u, expected 0",
                                    s->name, what, bytes[i]);
    return NIMBUS_OK;
}

nimbus_status nimbus_section_name(nimbus_section_reader *s, char name[NIMBUS_STEP_NAME_BYTES])
{
    memcpy(name, nimbus_read_bytes(&s->r, NIMBUS_STEP_NAME_BYTES), NIMBUS_STEP_NAME_BYTES);
    size_t length = 0;
    while (length < NIMBUS_STEP_NAME_BYTES && name[length])
        length++;
    if (length == NIMBUS_STEP_NAME_BYTES)
        return NIMBUS_FAIL_BACK(s, NIMBUS_ERR_FORMAT, 1, "%s: name has no terminating NUL",
                                s->name);
    s->r.at -= NIMBUS_STEP_NAME_BYTES - length;
    return nimbus_section_zero(s, NIMBUS_STEP_NAME_BYTES - length, "padding after the name");
}

nimbus_status nimbus_section_program(nimbus_section_reader *s, nimbus_program_info *info)
{
    uint32_t dtype, n_outputs, n_steps, zero;
    nimbus_status status;
    if ((status = nimbus_section_u32(s, "input type", NIMBUS_U8, NIMBUS_F32, &dtype)) ||
        (status = nimbus_section_width(s, "number of outputs", 1, &n_outputs)) ||
        (status = nimbus_section_u32(s, "number of steps", 1, NIMBUS_MAX_PROGRAM_STEPS, &n_steps)))
        return status;
    const uint32_t scale_bits = nimbus_read_u32le(&s->r);
    if (!nimbus_is_finite(scale_bits))
        return NIMBUS_FAIL_BACK(s, NIMBUS_ERR_VALUE, 4, "%s: output scale is not finite", s->name);
    if ((status = nimbus_section_u32(s, "reserved field", 0, 0, &zero)))
        return status;
    info->input_dtype = (nimbus_dtype)dtype;
    info->n_outputs = n_outputs;
    info->n_steps = n_steps;
    memcpy(&info->output_scale, &scale_bits, sizeof scale_bits);
    return NIMBUS_OK;
}

/* ---- arrays ------------------------------------------------------------------------------ */

/* Finds the next array, count * size bytes at a multiple of 64; NULL after an error. */
nimbus_status nimbus_section_take(nimbus_section_reader *s, const char *name, uint64_t count,
                                  uint64_t size, const uint8_t **out)
{
    nimbus_status status;
    size_t gap = (size_t)(-s->r.at & 63), left = nimbus_reader_left(&s->r);
    if (left < gap || count > (left - gap) / size)
        return NIMBUS_FAIL_BACK(
            s, NIMBUS_ERR_TRUNCATED, 0,
            "%s: %zu bytes are left, expected %zu of padding and %llu x %llu of %s", s->name, left,
            gap, (unsigned long long)count, (unsigned long long)size, name);
    if ((status = nimbus_section_zero(s, gap, "padding byte")))
        return status;
    *out = nimbus_read_bytes(&s->r, (size_t)(count * size));
    return NIMBUS_OK;
}

/* Takes n floats, which must be finite, or (thresholds) only not NaN. */
nimbus_status nimbus_section_floats(nimbus_section_reader *s, const char *name, uint64_t n,
                                    bool infinite, const uint8_t **out)
{
    nimbus_status status = nimbus_section_take(s, name, n, 4, out);
    if (status != NIMBUS_OK)
        return status;
    for (size_t i = 0; i < n; i++) {
        uint32_t bits = nimbus_u32_at(*out, i);
        if (infinite ? is_nan(bits) : !nimbus_is_finite(bits))
            return NIMBUS_FAIL_BACK(s, NIMBUS_ERR_VALUE, 4 * (n - i), "%s: %s %zu is not %s",
                                    s->name, name, i, infinite ? "a number" : "finite");
    }
    return NIMBUS_OK;
}

static nimbus_status take_columns(nimbus_section_reader *s, const nimbus_step_header *h, uint64_t n,
                                  const uint8_t **out)
{
    nimbus_status status = nimbus_section_take(s, "columns", n, 4, out);
    if (status != NIMBUS_OK)
        return status;
    for (size_t i = 0; i < n; i++) {
        uint32_t column = nimbus_u32_at(*out, i);
        if (column >= h->D)
            return NIMBUS_FAIL_BACK(s, NIMBUS_ERR_FORMAT, 4 * (n - i),
                                    "%s: column %zu is %u, the step has %u inputs", s->name, i,
                                    column, h->D);
    }
    return NIMBUS_OK;
}

static nimbus_status take_tables(nimbus_section_reader *s, const nimbus_step_header *h,
                                 uint64_t n_rows, const uint8_t **out)
{
    bool packed = h->flags & NIMBUS_FLAG_4BIT;
    const size_t row_bytes = nimbus_table_row_bytes(packed ? 4 : 8, h->M);
    nimbus_status status = nimbus_section_take(s, "tables", n_rows, row_bytes, out);
    if (status != NIMBUS_OK || !packed || h->M % 2 == 0)
        return status;
    for (size_t row = 0; row < n_rows; row++)
        if ((*out)[(row + 1) * row_bytes - 1] >> 4)
            return NIMBUS_FAIL_BACK(s, NIMBUS_ERR_FORMAT, (n_rows - row - 1) * row_bytes + 1,
                                    "%s: the unused half byte of table row %zu is not zero",
                                    s->name, row);
    return NIMBUS_OK;
}

nimbus_status nimbus_section_step_arrays(nimbus_section_reader *s, const nimbus_step_header *h,
                                         nimbus_step_arrays *a)
{
    nimbus_status status;
    if (h->kind == NIMBUS_STEP_LOOKUP) {
        uint64_t C = h->C, n_nodes = (1u << h->H) - 1;
        uint64_t per_tree = h->flags & NIMBUS_FLAG_PER_NODE ? n_nodes : h->H;
        if ((status = take_columns(s, h, C * per_tree, &a->columns)))
            return status;
        status = h->input == NIMBUS_IN_F32
                     ? nimbus_section_floats(s, "threshold", C * n_nodes, true, &a->thresholds)
                     : nimbus_section_take(s, "thresholds", C * n_nodes, 1, &a->thresholds);
        if (status || (status = take_tables(s, h, C << h->H, &a->tables)))
            return status;
    } else if ((status = nimbus_section_take(s, "weights", h->M, h->D, &a->weights))) {
        return status;
    }
    if ((status = nimbus_section_take(s, "biases", h->M, 4, &a->bias)))
        return status;
    if (h->kind == NIMBUS_STEP_EXACT && h->input == NIMBUS_IN_F32 &&
        ((status = nimbus_section_floats(s, "input scale", h->D, false, &a->in_scale)) ||
         (status = nimbus_section_floats(s, "input offset", h->D, false, &a->in_offset))))
        return status;
    if (h->output == NIMBUS_OUT_SCALED &&
        ((status = nimbus_section_floats(s, "scale", h->M, false, &a->scale)) ||
         (status = nimbus_section_floats(s, "offset", h->M, false, &a->offset))))
        return status;
    return h->flags & NIMBUS_FLAG_MAP ? nimbus_section_take(s, "map entries", 256, 1, &a->map)
                                      : NIMBUS_OK;
}

nimbus_status nimbus_section_end(const nimbus_section_reader *s)
{
    if (nimbus_reader_left(&s->r))
        return NIMBUS_FAIL_BACK(s, NIMBUS_ERR_FORMAT, 0,
                                "%s: %zu bytes after the last array, expected none", s->name,
                                nimbus_reader_left(&s->r));
    return NIMBUS_OK;
}

/* ---- what stored numbers mean ------------------------------------------------------------- */

int8_t nimbus_step_finish(const nimbus_stored_step *step, int32_t y)
{
    y = y < -128 ? -128 : y > 127 ? 127 : y;
    y = step->arrays.map ? (int8_t)step->arrays.map[y + 128] : y;
    return (int8_t)(y < step->low ? step->low : y > step->high ? step->high : y);
}

int8_t nimbus_step_output(const nimbus_stored_step *step, size_t m, int32_t sum)
{
    if (step->output == NIMBUS_OUT_SHIFT)
        return nimbus_step_finish(step, sum < 0 ? ~(~sum >> step->shift) : sum >> step->shift);
    return nimbus_step_finish(step,
                              nimbus_scale_to_i8((float)sum, nimbus_f32_at(step->arrays.scale, m),
                                                 nimbus_f32_at(step->arrays.offset, m)));
}

/* ---- filled steps ------------------------------------------------------------------------- */

float nimbus_f32_at(const uint8_t *bytes, size_t i)
{
    uint32_t bits = nimbus_u32_at(bytes, i);
    float value;
    memcpy(&value, &bits, sizeof value);
    return value;
}

int nimbus_table_entry(const nimbus_step_info *info, const uint8_t *tables, size_t row, size_t m)
{
    const size_t M = info->n_outputs;
    if (info->table_bits == 8)
        return (int8_t)tables[row * M + m];
    unsigned nibble = tables[row * nimbus_table_row_bytes(4, M) + m / 2] >> (m % 2 * 4) & 15;
    return (int)(nibble ^ 8) - 8;
}

void nimbus_section_fill_step(const nimbus_step_header *h, size_t bytes, size_t positions,
                              nimbus_stored_step *step)
{
    const bool lookup = h->kind == NIMBUS_STEP_LOOKUP;
    step->input = h->input;
    step->output = h->output;
    step->shift = h->shift;
    step->low = -128;
    step->high = 127;
    nimbus_step_info *info = &step->info;
    info->kind = (nimbus_step_kind)h->kind;
    info->n_inputs = h->D;
    info->n_outputs = h->M;
    info->n_codebooks = h->C;
    info->n_levels = h->H;
    info->table_bits = !lookup ? 0 : h->flags & NIMBUS_FLAG_4BIT ? 4 : 8;
    info->shared_columns = lookup && !(h->flags & NIMBUS_FLAG_PER_NODE);
    info->bytes = bytes;
    info->lookups = (size_t)h->C * h->M * positions;
    info->comparisons = (size_t)h->C * h->H * positions;
    info->multiply_adds = h->kind == NIMBUS_STEP_EXACT ? (size_t)h->D * h->M * positions : 0;
}

/* The most that |sum| can be for output m, without its bias. */
static int64_t largest_sum(const nimbus_stored_step *step, size_t m)
{
    const nimbus_step_info *info = &step->info;
    const size_t K = nimbus_step_leaves(info);
    int64_t total = 0;
    if (info->kind == NIMBUS_STEP_EXACT) {
        for (size_t d = 0; d < info->n_inputs; d++) {
            int weight = (int8_t)step->arrays.weights[m * info->n_inputs + d];
            total += 128 * (weight < 0 ? -weight : weight);
        }
        return total;
    }
    for (size_t c = 0; c < info->n_codebooks; c++) {
        int largest = 0;
        for (size_t k = 0; k < K; k++) {
            int entry = nimbus_table_entry(info, step->arrays.tables, c * K + k, m);
            entry = entry < 0 ? -entry : entry;
            largest = entry > largest ? entry : largest;
        }
        total += largest;
    }
    return total;
}

nimbus_status nimbus_section_check_sums(nimbus_section_reader *s, const nimbus_stored_step *step)
{
    for (size_t m = 0; m < step->info.n_outputs; m++) {
        int64_t bias = (int32_t)nimbus_u32_at(step->arrays.bias, m);
        int64_t largest = largest_sum(step, m) + (bias < 0 ? -bias : bias);
        if (largest > INT32_MAX)
            return nimbus_fail_at(s->error, NIMBUS_ERR_VALUE,
                                  s->start + (uint64_t)(step->arrays.bias - s->r.bytes) + 4 * m,
                                  "%s: output %zu can reach %lld, expected at most %d", s->name, m,
                                  (long long)largest, INT32_MAX);
    }
    return NIMBUS_OK;
}
