/* settings.c - the options of a conversion: limits, and what they leave open */
#include <math.h>
#include <string.h>

#include "convert/internal.h"
#include "net/training.h"

enum {
    DEFAULT_FIT_ROWS = 30000,
    FRONTIER_REALS = 1 << 25, /* of the widest layer's outputs on the rows that are fitted on */
    SHALLOW = 4, /* converted linear layers that the recipe is for; more: see settle_rates */
    DEEP = 24    /* from so many on hints are needed */
};

/* What a training is like where the options leave it open: of nets on images, with many positions a
 * row, and of others. */
typedef struct recipe {
    size_t batch, epochs[3]; /* by preset; more of few rows, until there are enough steps, */
    size_t most_repeats, enough_steps; /* but at most so many times as many */
    double table_rate, rate, distill, temperature, tau, tau_end;
    double most_change; /* with ACCURACY */
} recipe;

/* Of many rows twice the epochs gain: 24 to 48 on Fashion-MNIST 89.46 -> 89.69 % held out, on MNIST
 * 98.80 -> 98.85 %, means of three seeds. */
static const recipe on_rows = {
    .batch = 256,
    .epochs = {[NIMBUS_BALANCED] = 48, [NIMBUS_SPEED] = 64, [NIMBUS_ACCURACY] = 32},
    .most_repeats = 2,
    .enough_steps = 5000,
    .table_rate = 6e-3,
    .rate = 1e-3,
    .distill = 0.6,
    .temperature = 1,
    .tau = 0.5,
    .tau_end = 0.5};
static const recipe on_images = {
    .batch = 128,
    .epochs = {[NIMBUS_BALANCED] = 16, [NIMBUS_SPEED] = 24, [NIMBUS_ACCURACY] = 12},
    .most_repeats = 4,
    .enough_steps = 2500,
    .table_rate = 5e-3,
    .rate = 5e-3,
    .distill = 0.7,
    .temperature = 3,
    .tau = 0.7,
    .tau_end = 0.4,
    .most_change = 0.1,
};

static const recipe *recipe_of(const nimbus_net *net)
{
    return nimbus_has_convolutions(net) ? &on_images : &on_rows;
}

static size_t default_epochs(const recipe *r, nimbus_preset preset, size_t n_rows, size_t batch)
{
    size_t least = r->epochs[preset], most = r->most_repeats * least;
    size_t steps = (n_rows + batch - 1) / batch, wanted = (r->enough_steps + steps - 1) / steps;
    return wanted < least ? least : wanted > most ? most : wanted;
}

static size_t default_fit_rows(const nimbus_net *teacher)
{
    size_t widest = 1;
    for (size_t i = 0; i < teacher->n_layers; i++) {
        size_t width = nimbus_shape_width(teacher->layers[i].shape);
        widest = width > widest ? width : widest;
    }
    size_t n = FRONTIER_REALS / widest + 1;
    return n < DEFAULT_FIT_ROWS ? n : DEFAULT_FIT_ROWS;
}

/* What the options leave open of a training, as previous work has it. */
static void settle_method(nimbus_convert_options *out, const nimbus_method_recipe *method)
{
    nimbus_train_options *train = &out->train;
    out->split_method = method->splits;
    out->table_method = method->tables;
    out->estimator = method->estimator;
    out->most_change = -1;
    out->tree = NIMBUS_CHOICE_SHARED;
    if (out->epochs == 0 || method->epochs == 0)
        out->epochs = method->epochs ? method->epochs : SIZE_MAX;
    train->batch = train->batch ? train->batch : method->batch;
    train->rate = train->rate > 0 ? train->rate : method->rate;
    train->tau = train->tau > 0 ? train->tau : method->tau;
}

/* A number of a training that previous methods lack, as do trainings of single layers: 0 leaves it
 * open, less is none. */
typedef struct our_number {
    const char *name;
    double *value;
} our_number;
enum { OUR_NUMBERS = 3 };

static void list_ours(nimbus_train_options *train, our_number out[OUR_NUMBERS])
{
    const our_number all[OUR_NUMBERS] = {{"hint", &train->hint},
                                         {"margin_noise", &train->margin_noise},
                                         {"code_noise", &train->code_noise}};
    memcpy(out, all, sizeof all);
}

void nimbus_conversion_clear_ours(nimbus_train_options *train)
{
    our_number ours[OUR_NUMBERS];
    list_ours(train, ours);
    for (size_t i = 0; i < OUR_NUMBERS; i++)
        *ours[i].value = 0;
}

static nimbus_status check_training(const nimbus_convert_options *options, nimbus_error *error)
{
    nimbus_train_options train = options->train;
    our_number ours[OUR_NUMBERS];
    list_ours(&train, ours);
    for (size_t i = 0; i < OUR_NUMBERS; i++)
        if (*ours[i].value > 0 && options->method != NIMBUS_METHOD_NIMBUS)
            return nimbus_fail(error, NIMBUS_ERR_ARGUMENT,
                               "%s is %g, but previous methods have none", ours[i].name,
                               *ours[i].value);
    return nimbus_train_check_numbers(&train, error);
}

nimbus_status nimbus_conversion_settle(const nimbus_convert_options *options,
                                       const nimbus_net *teacher, const nimbus_data *data,
                                       nimbus_convert_options *out, nimbus_error *error)
{
    nimbus_convert_options defaults = NIMBUS_CONVERT_OPTIONS_INIT;
    size_t n_rows = nimbus_data_get_info(data)->n_rows;

    *out = options ? *options : defaults;
    if (out->size != sizeof *out || out->train.size != sizeof out->train)
        return nimbus_fail(error, NIMBUS_ERR_ARGUMENT,
                           "conversion options of %zu bytes, expected %zu: not set up with "
                           "NIMBUS_CONVERT_OPTIONS_INIT",
                           out->size, sizeof *out);
    const nimbus_method_recipe *method = nimbus_method_recipe_of(out->method);
    if (!method)
        return nimbus_fail(error, NIMBUS_ERR_ARGUMENT, "unknown method %d", (int)out->method);
    if ((unsigned)out->split_method > NIMBUS_PLAIN || (unsigned)out->table_method > NIMBUS_MEAN ||
        (unsigned)out->estimator > NIMBUS_ESTIMATOR_SOFTMAX)
        return nimbus_fail(error, NIMBUS_ERR_ARGUMENT, "unknown split, table or estimator method");
    if (!(out->lambda >= 0) || !isfinite(out->lambda))
        return nimbus_fail(error, NIMBUS_ERR_ARGUMENT, "lambda %g, expected 0 or more",
                           out->lambda);
    nimbus_status status = check_training(out, error);
    if (status)
        return status;
    if (!isfinite(out->most_change))
        return nimbus_fail(error, NIMBUS_ERR_ARGUMENT, "change of at most %g, expected a number",
                           out->most_change);
    if (!isfinite(out->layer_epochs))
        return nimbus_fail(error, NIMBUS_ERR_ARGUMENT, "%g epochs for each layer",
                           out->layer_epochs);
    if (!(out->budget >= 0) || !isfinite(out->budget))
        return nimbus_fail(error, NIMBUS_ERR_ARGUMENT, "budget of %g epochs, expected 0 or more",
                           out->budget);
    if (out->fit_rows == 0)
        out->fit_rows = default_fit_rows(teacher);
    if (out->fit_rows > n_rows)
        out->fit_rows = n_rows;
    nimbus_train_options *train = &out->train;
    train->seed = out->seed;
    train->n_threads = out->n_threads;
    train->valid = out->valid;
    train->teacher = NULL;
    train->teacher_outputs = NULL;
    train->first_layer = 0;
    if (out->method != NIMBUS_METHOD_NIMBUS) {
        nimbus_conversion_clear_ours(train);
        settle_method(out, method);
        return NIMBUS_OK;
    }
    const recipe *r = recipe_of(teacher);
    train->batch = train->batch ? train->batch : r->batch;
    if (out->epochs == 0 && (unsigned)out->preset <= NIMBUS_ACCURACY) /* else refused by the plan */
        out->epochs = default_epochs(r, out->preset, n_rows, train->batch);
    if (out->most_change == 0 && out->preset == NIMBUS_ACCURACY)
        out->most_change = r->most_change;
    train->epochs = out->epochs;
    train->warmup_steps = train->warmup_steps > 0 ? train->warmup_steps : 50;
    train->distill = train->distill != 0 ? train->distill : r->distill;
    train->temperature = train->temperature > 0 ? train->temperature : r->temperature;
    return NIMBUS_OK;
}

/* Whether a converted layer reads what another layer gives, which the float net gives too. */
static bool can_have_hints(const conversion *c)
{
    for (size_t i = 0; i < c->net->n_layers; i++)
        if (nimbus_conversion_fits(c, i) && c->net->layers[i].input[0] > 0)
            return true;
    return false;
}

/* Hints and noise that the options leave open, of n converted layers of a net without convolutions
 * (0: with).
 *
 * Noise on margins makes thresholds that hold for rows nearby, and hints say what each layer should
 * give: shallow nets learn less by heart (docs/experiments.md); 8 layers lose by hints. In very
 * deep nets what a layer should do is lost in the noise of the others, and hints tell it. 32
 * layers, 10 epochs, test rows: 57.2 -> 80.1 %; 16 layers lose by them, 86.8 -> 86.1 % held out.
 *
 * Codes drawn at random keep outputs from leaning on few trees: Fashion-MNIST 89.11 -> 89.55 % held
 * out, MNIST 98.62 -> 98.63, its cross-entropy 0.101 -> 0.092. Images that are moved are never the
 * same twice, and gain nothing by it. */
static void settle_hints(conversion *c, size_t n)
{
    const double shallow_hint = 0.1, shallow_noise = 0.15, shallow_drawn = 0.02, deep_hint = 0.3;
    nimbus_train_options *train = &c->options.train;
    const bool shallow = n > 0 && n <= SHALLOW;
    if (train->hint == 0 && (shallow || n >= DEEP) && can_have_hints(c))
        train->hint = shallow ? shallow_hint : deep_hint;
    if (train->margin_noise == 0 && shallow)
        train->margin_noise = shallow_noise;
    if (train->code_noise == 0 && shallow && !train->shift)
        train->code_noise = shallow_drawn;
}

/* Rates, temperatures and hints that the options leave open.
 *
 * In deep nets the errors of a step add up from layer to layer: tables learn in smaller steps, and
 * more rows have a say in the thresholds. Fashion-MNIST, 256 wide with batch norm, 6 epochs,
 * held-out rows: 16 layers 73.1 -> 84.8 %, 8 layers 87.2 -> 87.5 %. Hints in very deep ones let
 * each layer learn faster. */
static void settle_rates(conversion *c)
{
    const double deep_rate = 3e-3;
    nimbus_train_options *train = &c->options.train;
    const recipe *r = recipe_of(c->teacher);
    const size_t n = nimbus_has_convolutions(c->teacher)
                         ? 0
                         : nimbus_conversion_count(c, nimbus_conversion_fits);
    const double depth = n < SHALLOW ? 1 : (double)n / SHALLOW;
    const bool told = n >= DEEP && !(train->hint < 0);
    settle_hints(c, n);
    if (!(train->table_rate > 0))
        train->table_rate = train->rate > 0 ? train->rate
                            : told          ? deep_rate
                                            : r->table_rate / depth;
    train->rate = train->rate > 0 ? train->rate : told ? deep_rate : r->rate;
    if (!(train->tau > 0)) {
        train->tau = depth > 1 ? 1 : r->tau;
        train->tau_end = train->tau_end > 0 ? train->tau_end : depth > 1 ? 1 : r->tau_end;
    }
}

/* Epochs of the trainings: as the options have them, else as published; of a budget every training
 * gets its share, in rows of what it sees. */
static void settle_epochs(conversion *c)
{
    nimbus_convert_options *o = &c->options;
    const nimbus_method_recipe *method = c->method;
    const bool ours = o->method == NIMBUS_METHOD_NIMBUS;
    const size_t n_trained = nimbus_conversion_count(c, nimbus_conversion_trains);
    const size_t n_rows = nimbus_data_get_info(c->data)->n_rows;
    c->layer_epochs = o->layer_epochs != 0 && (ours || method->layer_epochs > 0)
                          ? o->layer_epochs
                          : method->layer_epochs;
    if (o->budget > 0) {
        const double all = (double)n_trained * method->layer_epochs + (double)method->epochs;
        double layers = (double)n_trained * c->layer_epochs * (double)o->fit_rows / (double)n_rows;
        if (!ours && all > 0)
            c->layer_epochs =
                o->budget * method->layer_epochs / all *
                (method->layers == NIMBUS_LAYERS_ALONE ? (double)n_rows / (double)o->fit_rows : 1);
        double rest = ours ? o->budget - (layers > 0 ? layers : 0)
                           : o->budget * (double)method->epochs / (all > 0 ? all : 1);
        if (o->epochs != SIZE_MAX)
            o->epochs = rest >= 0.5 ? (size_t)lround(rest) : ours ? 1 : SIZE_MAX;
    }
    o->train.epochs = o->epochs;
}

void nimbus_conversion_settle_training(conversion *c)
{
    settle_epochs(c);
    if (c->options.method == NIMBUS_METHOD_NIMBUS)
        settle_rates(c);
}
