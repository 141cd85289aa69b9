/* image_prepare.c - copy the arrays of a checked program on images into the kernels' layouts */
#include "run/image/image.h"

#include <string.h>

/* Scales and offsets of channels, repeated for every element of a row. */
static float *spread(const uint8_t *bytes, size_t channels, size_t n_each)
{
    float *of_all = nimbus_alloc(channels * n_each, sizeof *of_all);
    for (size_t i = 0; of_all && i < channels * n_each; i++)
        of_all[i] = nimbus_f32_at(bytes, i / n_each);
    return of_all;
}

/* n_taps weights as dot_taps_i32 reads them, of `bytes` each; NULL: ones. Their sum: 128 times it
 * fits, as in lay_out_weights. */
static int32_t pack_taps(const int8_t *weights, size_t n_taps, size_t bytes, uint8_t *to)
{
    int32_t sum = 0;
    for (size_t t = 0; t < n_taps; t++) {
        int8_t weight = weights ? weights[t] : 1;
        if (bytes == 2)
            ((int16_t *)(void *)to)[t] = weight;
        else
            ((int8_t *)to)[t] = weight;
        sum += weight;
    }
    return sum;
}

/* Weights for dot_taps_i32: of every output of a convolution in groups, or one set of ones. */
static bool prepare_taps(const nimbus_program_step *step, nimbus_image_step *of_image,
                         const int8_t *weights, const nimbus_shape *shape)
{
    const size_t group = shape->group, n_taps = step->n_inputs,
                 n_sets = weights ? step->n_outputs : 1;
    const size_t n_groups = (n_taps + group - 1) / group, bytes = nimbus_group_bytes(shape);
    of_image->n_taps = n_taps;
    of_image->weight_bytes = weights ? n_groups * nimbus_tap_group_bytes(shape) : 0;
    of_image->tap_weights = nimbus_alloc_product(n_sets, n_groups * group, bytes, 0);
    of_image->tap_bias = nimbus_alloc(step->n_outputs, sizeof *of_image->tap_bias);
    if (!of_image->tap_weights || !of_image->tap_bias)
        return false;
    int32_t sum = 0; /* of the one set of ones it serves all outputs */
    for (size_t m = 0; m < step->n_outputs; m++) {
        if (m < n_sets)
            sum = pack_taps(weights ? weights + m * n_taps : NULL, n_taps, bytes,
                            of_image->tap_weights + m * of_image->weight_bytes);
        of_image->tap_bias[m] = (int32_t)((uint32_t)step->bias[m] - shape->flip * (uint32_t)sum);
    }
    return true;
}

/* What one tap becomes, for all its values. */
static bool prepare_tap_maps(const nimbus_program_step *step, nimbus_image_step *of_image,
                             const int8_t *weights)
{
    const nimbus_rounding rounding = nimbus_rounding_of(step, 0);
    if (!(of_image->tap_maps = nimbus_alloc(step->n_outputs, 256)))
        return false;
    for (size_t m = 0; m < step->n_outputs; m++)
        for (int x = -128; x < 128; x++)
            of_image->tap_maps[256 * m + (size_t)(x + 128)] =
                nimbus_round_sum(step->bias[m] + weights[m] * x, &rounding, m);
    return true;
}

static bool prepare_pad(nimbus_image_step *of_image, const uint8_t *pad, size_t channels)
{
    const nimbus_patch *p = &of_image->patch;
    if (p->top + p->bottom + p->left + p->right == 0)
        return true;
    if (!(of_image->pad = nimbus_alloc(channels, 1)))
        return false;
    if (pad)
        memcpy(of_image->pad, pad, channels);
    else
        memset(of_image->pad, -128, channels);
    return true;
}

static nimbus_status prepare_step(nimbus_program *program, size_t i,
                                  const nimbus_stored_step *stored, nimbus_error *error)
{
    nimbus_program_step *step = &program->steps[i];
    nimbus_image_step *of_image = &program->image->steps[i];
    const nimbus_step_arrays *arrays = &stored->arrays;
    const nimbus_value *source = &program->image->values[of_image->sources[0]];
    const nimbus_shape *shape = &program->kernels->shape;
    const bool average = step->info.kind == NIMBUS_STEP_AVERAGE_POOL;
    const bool convolution = nimbus_is_convolution(&step->info);
    bool ok = prepare_pad(of_image, arrays->pad, source->channels);
    if (ok && convolution && of_image->groups == 1)
        return nimbus_step_prepare(step, arrays, program->kernels, error);
    of_image->average_one = average && !of_image->pad && step->info.height == 1 &&
                            step->info.width == 1 && of_image->patch.dilation_y == 1 &&
                            of_image->patch.dilation_x == 1;
    ok = ok && nimbus_step_prepare_output(step, arrays);
    if (ok && convolution)
        ok = prepare_taps(step, of_image, (const int8_t *)arrays->weights, shape) &&
             (step->n_inputs > 1 || step->output == NIMBUS_OUT_I32 ||
              prepare_tap_maps(step, of_image, (const int8_t *)arrays->weights));
    else if (ok && average && !of_image->average_one)
        ok = prepare_taps(step, of_image, NULL, shape);
    return ok ? NIMBUS_OK
              : nimbus_fail(error, NIMBUS_ERR_MEMORY, "out of memory preparing step \"%s\"",
                            step->info.name);
}

static void fill_step(nimbus_program *program, size_t i, const nimbus_stored_step *stored)
{
    nimbus_image_step *step = &program->image->steps[i];
    program->steps[i].of_image = true;
    step->n_sources = stored->info.n_sources;
    memcpy(step->sources, stored->sources, sizeof step->sources);
    step->patch = stored->patch;
    step->groups = stored->info.n_groups;
    step->low = stored->low;
    step->high = stored->high;
}

static bool prepare_input(nimbus_image *image, const nimbus_stored_program *stored)
{
    const nimbus_stored_value *input = &stored->values[0];
    const size_t n_each = input->height * input->width;
    if (!stored->in_scale)
        return true;
    image->in_scale = spread(stored->in_scale, input->channels, n_each);
    image->in_offset = spread(stored->in_offset, input->channels, n_each);
    return image->in_scale && image->in_offset;
}

nimbus_status nimbus_image_prepare(nimbus_program *program, const nimbus_stored_program *stored,
                                   nimbus_error *error)
{
    const size_t n_steps = stored->info.n_steps;
    nimbus_image *image = program->image = nimbus_alloc(1, sizeof *image);
    nimbus_status status = NIMBUS_OK;
    if (!image || !(image->values = nimbus_alloc(n_steps, sizeof *image->values)) ||
        !(image->steps = nimbus_alloc(n_steps, sizeof *image->steps)) ||
        !prepare_input(image, stored))
        return nimbus_fail(error, NIMBUS_ERR_MEMORY, "out of memory for %zu steps", n_steps);
    for (size_t i = 0; i < n_steps && !status; i++) {
        const nimbus_stored_value *value = &stored->values[i];
        image->values[i] = (nimbus_value){
            .channels = value->channels, .height = value->height, .width = value->width};
        fill_step(program, i, &stored->steps[i]);
        status = prepare_step(program, i, &stored->steps[i], error);
    }
    return status;
}

void nimbus_image_free(nimbus_image *image, size_t n_steps)
{
    if (!image)
        return;
    nimbus_image_plan_free(&image->one, n_steps);
    nimbus_image_plan_free(&image->block, n_steps);
    for (size_t i = 0; image->steps && i < n_steps; i++) {
        nimbus_free(image->steps[i].pad);
        nimbus_free(image->steps[i].tap_weights);
        nimbus_free(image->steps[i].tap_bias);
        nimbus_free(image->steps[i].tap_maps);
        nimbus_free(image->steps[i].in_window);
    }
    for (size_t f = 0; image->frames && f < image->n_frames; f++)
        nimbus_free(image->frames[f].keep);
    nimbus_free(image->values);
    nimbus_free(image->steps);
    nimbus_free(image->frames);
    nimbus_free(image->in_scale);
    nimbus_free(image->in_offset);
    nimbus_free(image);
}
