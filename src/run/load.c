/* load.c - from a checked program (base/stored.h) to one prepared for this machine's kernels */
#include <string.h>

#include "run/image/image.h"

static void fill_step(nimbus_program_step *step, const nimbus_stored_step *stored)
{
    step->info = stored->info;
    step->input = stored->input;
    step->output = stored->output;
    step->shift = stored->shift;
    step->has_map = stored->arrays.map;
    step->n_inputs = stored->info.n_inputs;
    step->n_outputs = stored->info.n_outputs;
    step->n_codebooks = stored->info.n_codebooks;
    step->n_levels = stored->info.n_levels;
    step->n_leaves = nimbus_step_leaves(&stored->info);
}

/* A NUL after the text. */
static nimbus_status copy_metadata(nimbus_program *program, const nimbus_stored_program *stored,
                                   nimbus_error *error)
{
    if (!(program->metadata = nimbus_alloc(stored->n_metadata + 1, 1)))
        return nimbus_fail(error, NIMBUS_ERR_MEMORY, "out of memory for the metadata");
    if (stored->n_metadata)
        memcpy(program->metadata, stored->metadata, stored->n_metadata);
    return NIMBUS_OK;
}

static nimbus_status prepare(nimbus_program *program, const nimbus_stored_program *stored,
                             nimbus_error *error)
{
    const size_t n_steps = stored->info.n_steps;
    nimbus_status status;
    program->info = stored->info;
    if ((status = nimbus_kernels_choose(&program->kernels, error)))
        return status;
    if (!(program->steps = nimbus_alloc(n_steps, sizeof *program->steps)))
        return nimbus_fail(error, NIMBUS_ERR_MEMORY, "out of memory for %zu steps", n_steps);
    for (size_t i = 0; i < n_steps; i++)
        fill_step(&program->steps[i], &stored->steps[i]);
    if (stored->of_images) {
        status = nimbus_image_prepare(program, stored, error);
    } else {
        for (size_t i = 0; i < n_steps && !status; i++)
            status = nimbus_step_prepare(&program->steps[i], &stored->steps[i].arrays,
                                         program->kernels, error);
    }
    if (status || (status = copy_metadata(program, stored, error)))
        return status;
    return stored->of_images ? nimbus_image_plan_all(program, error)
                             : nimbus_program_tune(program, error);
}

nimbus_status nimbus_load(const void *bytes, size_t n_bytes, nimbus_program **out,
                          nimbus_error *error)
{
    nimbus_stored_program stored = {0};
    nimbus_program *program = NULL;
    nimbus_status status;

    if (!out)
        return nimbus_fail(error, NIMBUS_ERR_ARGUMENT, "out is NULL");
    *out = NULL;
    if (!bytes)
        return nimbus_fail(error, NIMBUS_ERR_ARGUMENT, "bytes is NULL");
    if ((status = nimbus_stored_read(bytes, n_bytes, &stored, error)))
        goto done;
    if (!(program = nimbus_alloc(1, sizeof *program))) {
        status = nimbus_fail(error, NIMBUS_ERR_MEMORY, "out of memory for a program");
        goto done;
    }
    status = prepare(program, &stored, error);
    if (status == NIMBUS_OK) {
        *out = program;
        program = NULL;
    }
done:
    nimbus_close(program);
    nimbus_stored_free(&stored);
    return status;
}

void nimbus_close(nimbus_program *program)
{
    if (!program)
        return;
    for (size_t i = 0; program->steps && i < program->info.n_steps; i++)
        nimbus_step_free(&program->steps[i]);
    nimbus_free(program->steps);
    nimbus_image_free(program->image, program->info.n_steps);
    nimbus_free(program->metadata);
    nimbus_free(program);
}
