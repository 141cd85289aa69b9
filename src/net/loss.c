/* loss.c - softmax cross-entropy with smoothing and distillation, mean squared error
 *
 * cross-entropy  (1 - w) * CE(t', softmax y) + w * T^2 * KL(softmax(teacher / T) || softmax(y / T))
 *                with t' = (1 - s) t + s / M and w the weight of distillation (Hinton et al. 2015);
 *                mean over rows
 * squared error  mean of (y - t)^2 over rows and outputs; distillation pulls towards the teacher's
 *                outputs in the same measure */
#include "net/internal.h"

/* log of the sum of exp(y / t) over a row; probabilities exp(y / t - that) never overflow. */
static double log_sum_exp(const real *y, size_t m, double t)
{
    double top = (double)y[0], sum = 0;
    for (size_t i = 1; i < m; i++)
        if ((double)y[i] > top)
            top = (double)y[i];
    for (size_t i = 0; i < m; i++)
        sum += exp(((double)y[i] - top) / t);
    return top / t + log(sum);
}

static double cross_entropy_row(const nimbus_loss_options *o, size_t m, const real *y,
                                const real *target, const real *teacher, double weight, real *dy)
{
    double s = (double)o->label_smoothing, w = teacher ? (double)o->distill : 0;
    double t = o->temperature > 0 ? (double)o->temperature : 1;
    double all = log_sum_exp(y, m, 1), mass = 0, loss = 0;
    double soft_all = w > 0 ? log_sum_exp(y, m, t) : 0;
    double teacher_all = w > 0 ? log_sum_exp(teacher, m, t) : 0;
    for (size_t i = 0; i < m; i++)
        mass += (1 - s) * (double)target[i] + s / (double)m;
    for (size_t i = 0; i < m; i++) {
        double wanted = (1 - s) * (double)target[i] + s / (double)m;
        double log_p = (double)y[i] - all;
        double gradient = (1 - w) * (mass * exp(log_p) - wanted);
        loss -= (1 - w) * wanted * log_p;
        if (w > 0) {
            double log_q = (double)teacher[i] / t - teacher_all, q = exp(log_q);
            double log_soft = (double)y[i] / t - soft_all;
            loss += w * t * t * q * (log_q - log_soft);
            gradient += w * t * (exp(log_soft) - q);
        }
        if (dy)
            dy[i] = (real)(gradient * weight);
    }
    return loss;
}

static double squared_error_row(const nimbus_loss_options *o, size_t m, const real *y,
                                const real *target, const real *teacher, double weight, real *dy)
{
    double w = teacher ? (double)o->distill : 0, loss = 0;
    for (size_t i = 0; i < m; i++) {
        double e = (double)(y[i] - target[i]), f = w > 0 ? (double)(y[i] - teacher[i]) : 0;
        loss += ((1 - w) * e * e + w * f * f) / (double)m;
        if (dy)
            dy[i] = (real)(2 * ((1 - w) * e + w * f) * weight / (double)m);
    }
    return loss;
}

double nimbus_loss_value(const nimbus_loss_options *options, size_t n, size_t m, const real *y,
                         const real *target, const real *teacher, real *dy)
{
    double sum = 0, weight = 1 / (double)n;
    for (size_t r = 0; r < n; r++) {
        const real *teacher_row = teacher ? teacher + r * m : NULL;
        real *dy_row = dy ? dy + r * m : NULL;
        sum += options->kind == NIMBUS_LOSS_SQUARED_ERROR
                   ? squared_error_row(options, m, y + r * m, target + r * m, teacher_row, weight,
                                       dy_row)
                   : cross_entropy_row(options, m, y + r * m, target + r * m, teacher_row, weight,
                                       dy_row);
    }
    return sum * weight;
}
