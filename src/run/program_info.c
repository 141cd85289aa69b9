/* program_info.c - what a loaded program says about itself */
#include "run/program.h"

const nimbus_program_info *nimbus_info(const nimbus_program *program)
{
    return &program->info;
}

nimbus_status nimbus_step(const nimbus_program *program, size_t i, nimbus_step_info *out)
{
    if (!program || !out || i >= program->info.n_steps)
        return NIMBUS_ERR_ARGUMENT;
    *out = program->steps[i].info;
    return NIMBUS_OK;
}

const char *nimbus_metadata(const nimbus_program *program)
{
    return program->metadata;
}

const char *nimbus_isa(const nimbus_program *program)
{
    return program->kernels->isa;
}

const char *nimbus_step_kind_name(nimbus_step_kind kind)
{
    static const char *const names[] = {"",         "lookup",       "exact", "add",
                                        "max pool", "average pool", "concat"};
    return (size_t)kind < sizeof names / sizeof *names ? names[kind] : "";
}
