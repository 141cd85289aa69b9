/* training.c - limits of the numbers in a training's options */
#include "net/training.h"

#include <math.h>
#include <stddef.h>

#define AT(field) #field, offsetof(nimbus_train_options, field)
const nimbus_train_number nimbus_train_numbers[] = {
    {AT(rate), 0, 0, 1e6, true},
    {AT(table_rate), 0, 0, 1e6, true},
    {AT(warmup_steps), 0, 0, 1e15, true},
    {AT(beta1), 0.9, 0, 0.999999999, true},
    {AT(beta2), 0.999, 0, 0.999999999, true},
    {AT(momentum), 0.9, -1, 0.999999999, true},
    {AT(weight_decay), 0, 0, 1e6, true},
    {AT(label_smoothing), 0, 0, 1, true},
    {AT(mixup), 0, 0, 1e6, true},
    {AT(noise), 0, 0, 1e6, true},
    {AT(distill), 0, -1, 1, true},
    {AT(temperature), 2, 0, 1e6, true},
    {AT(hint), 0, -1, 1e6, true},
    {AT(tau), 0.5, 0, 1e6, true},
    {AT(tau_end), 0, 0, 1e6, true},
    {AT(margin_noise), 0, -1, 1e6, true},
    {AT(code_noise), 0, -1, 0.9, true},
    {AT(checkpoint_seconds), 30, 0, 1e9, false},
};
#undef AT
_Static_assert(sizeof nimbus_train_numbers / sizeof *nimbus_train_numbers == NIMBUS_TRAIN_NUMBERS,
               "one row for each");

nimbus_status nimbus_train_check_numbers(const nimbus_train_options *options, nimbus_error *error)
{
    for (size_t i = 0; i < NIMBUS_TRAIN_NUMBERS; i++) {
        const nimbus_train_number *number = &nimbus_train_numbers[i];
        const double value = nimbus_train_value(options, i);
        if (!(value >= number->least && value <= number->most))
            return nimbus_fail(error, NIMBUS_ERR_ARGUMENT,
                               "training option %s is %g, expected %g to %g%s", number->name,
                               value, fmax(number->least, 0), number->most,
                               number->least < 0 ? ", or -1 for none" : "");
    }
    return NIMBUS_OK;
}
