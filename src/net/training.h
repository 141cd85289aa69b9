/* training.h - the numbers in nimbus_train_options: one table for all who read them */
#ifndef NIMBUS_TRAINING_H
#define NIMBUS_TRAINING_H

#include <string.h>

#include "base/base.h"
#include "nimbus_build.h"

typedef struct nimbus_train_number {
    const char *name;
    size_t offset;                   /* in nimbus_train_options */
    double value_for_0, least, most; /* value_for_0: 0 where a rule decides; below 0: none */
    bool shapes_result;
} nimbus_train_number;

enum { NIMBUS_TRAIN_NUMBERS = 18 };
extern const nimbus_train_number nimbus_train_numbers[];

static inline double *nimbus_train_number_of(nimbus_train_options *options, size_t i)
{
    return (double *)(void *)((char *)options + nimbus_train_numbers[i].offset);
}

static inline double nimbus_train_value(const nimbus_train_options *options, size_t i)
{
    double value;
    memcpy(&value, (const char *)options + nimbus_train_numbers[i].offset, sizeof value);
    return value;
}

/* NIMBUS_OK if all are numbers from least to most. Error: ARGUMENT. */
NIMBUS_MUST_CHECK nimbus_status nimbus_train_check_numbers(const nimbus_train_options *options,
                                                           nimbus_error *error);

#endif
