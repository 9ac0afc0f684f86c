"""Negative binomial counts, a share sigmoid(g) of them replaced by zeros: score and gradients in one pass.

t = r log(1 + u), w = sigmoid(-g - t)       w is the probability that a zero is a count

log p(0) = max(g, -t) + log(1 + exp(-|g + t|)) - softplus(g)        log p(x) = log NB(x) - softplus(g)
d log p(0) / d t = -w, d log p(0) / d g = 1 - w - sigmoid(g)        d log p(x) / d g = -sigmoid(g)
"""

import math

import numpy as np
from numba import njit, prange

from biovae.kernels import compiled
from biovae.kernels.counts import HUGE, ONE, QUICK, exp, exponentials, large_ones, largest, listed, log1p, tables
from biovae.kernels.rows import starts


@compiled(parallel=True, fastmath=QUICK)
def zero_inflated(logits, exposure, log_r, gate, entries, obs, share):  # noqa: PLR0913
    """log p(x) of each row, and its derivatives in log exposure, in the logits, in log r and in g.

    The arguments are those of `counts.negative_binomial`, and g of every entry.
    """
    rows, features = logits.shape
    row, column, value = entries
    r, inverse, rise, fall = tables(log_r)
    pointers = starts(row, obs)
    log_p, in_log_exposure = np.empty(rows, np.float64), np.empty(rows, np.float32)
    in_logits, in_log_r = np.empty((rows, features), np.float32), np.empty((rows, features), np.float32)
    in_gate = np.empty((rows, features), np.float32)
    for i in prange(rows):
        logit, own = logits[i], slice(pointers[i % obs], pointers[i % obs + 1])
        column_i, value_i = column[own], value[own]
        mean, in_r, in_g = in_logits[i], in_log_r[i], in_gate[i]
        soft, at_zero, weight = np.empty(features, np.float32), np.empty(features, np.float32), in_g.copy()
        atoms = np.empty((2, value_i.size), np.float32)

        top = largest(logit)
        total = exponentials(logit, top, mean)
        log_scale = math.log(exposure[i]) - (math.log(total) if share else -np.float64(top))
        scored, pull = large_ones(column_i, value_i, logit, log_scale - top, log_r, mean, atoms)
        scale = np.float32(math.exp(log_scale))
        zeros, down = _dense(mean, scale, r, inverse, gate[i], (soft, at_zero, weight, in_r, in_g))
        counted, lifted = _counts(
            column_i, value_i, logit, log_scale - top, gate[i], (r, inverse, rise, fall),
            (mean, soft, at_zero, weight, in_r, in_g), atoms,
        )  # fmt: skip
        log_p[i] = scored + zeros + counted
        pull += lifted - down
        in_log_exposure[i] = pull
        _gradient(mean, inverse, weight, pull / exposure[i] if share else np.float32(0))
        for k in range(value_i.size):
            mean[column_i[k]] += atoms[0, k]
    return log_p, in_log_exposure, in_logits, in_log_r, in_gate


@njit(error_model="numpy", fastmath=QUICK)
def _softplus(g):
    return max(g, np.float32(0)) + log1p(exp(-abs(g)))


@njit(error_model="numpy", fastmath=QUICK)
def _sigmoid(g):
    e = exp(-abs(g))
    return (ONE if g >= 0 else e) / (ONE + e)


@njit(error_model="numpy", fastmath=QUICK)
def _dense(mean, scale, r, inverse, gate, out):
    """Every entry as if it were 0."""
    soft, at_zero, weight, in_r, in_g = out
    total, down = np.float32(0), np.float32(0)
    for j in range(mean.size):
        g = gate[j]
        mean[j] = min(mean[j] * scale, HUGE)
        u = min(mean[j] * inverse[j], HUGE)
        soft[j] = log1p(u)
        t, slope = r[j] * soft[j], r[j] * (u / (ONE + u))
        e = exp(-abs(g + t))
        at_zero[j] = max(g, -t) + log1p(e) - _softplus(g)
        weight[j] = (e if g + t >= 0 else ONE) / (ONE + e)
        in_g[j] = ONE - weight[j] - _sigmoid(g)
        in_r[j] = weight[j] * (slope - t)
        total += at_zero[j]
        down += weight[j] * slope
    return total, down


@njit(error_model="numpy", fastmath=QUICK)
def _counts(column, value, logit, shift, gate, tables_of_r, out, atoms):  # noqa: PLR0913
    """What is not 0, instead of what was written as if it were; what it adds to log p and to the slope in exposure."""
    r, inverse, rise, fall = tables_of_r
    mean, soft, at_zero, weight, in_r, in_g = out
    log_p, pull = 0.0, np.float32(0)
    for k in range(value.size):
        j, x = column[k], value[k]
        if x <= 0:
            atoms[0, k] = 0
            continue
        log_p -= np.float64(at_zero[j]) + _softplus(gate[j])
        in_g[j] = -_sigmoid(gate[j])
        if listed(x):
            u = min(mean[j] * inverse[j], HUGE)
            lift, slope, t = x / (ONE + u), r[j] * (u / (ONE + u)), r[j] * soft[j]
            log_p += rise[int(x), j] + x * (np.float64(logit[j]) + shift - soft[j]) - t
            in_r[j] = slope - t + fall[int(x), j] + (x - lift)
            pull += lift - (ONE - weight[j]) * slope
        else:
            mean[j] = min(exp(np.float32(np.float64(logit[j]) + shift)), HUGE)
            lift = x / (ONE + min(mean[j] * inverse[j], HUGE))
            in_r[j] = atoms[1, k]
        weight[j] = ONE
        atoms[0, k] = lift
    return log_p, pull


@njit(error_model="numpy", fastmath=QUICK)
def _gradient(mean, inverse, weight, back):
    for j in range(mean.size):
        mean[j] = -weight[j] * mean[j] / (ONE + min(mean[j] * inverse[j], HUGE)) - mean[j] * back
