"""Counts drawn by inversion: the smallest x with P(X > x) < v, v a uniform draw.

    p(0) = (1 + mean / r)**-r        p(x) = p(x - 1) (x - 1 + r) / x  mean / (mean + r)

Most counts of a cell are 0, so that most draws end with the first term.

Source: Devroye 1986, Non-Uniform Random Variate Generation, chapter III.2.
"""

import math

import numpy as np
from numba import njit, prange

from biovae.kernels import compiled
from biovae.kernels.counts import HUGE, ONE, QUICK, exp, log1p
from biovae.kernels.draws import fine_uniform
from biovae.kernels.rows import over

WIDEST = np.float32(1e3)  # variance: above, the search is long
LEAST = np.float32(1e-12)  # p(0): below, the search from 0 is long
SLACK = np.float32(1e-5)  # more than single precision errs in p(0)
LONG = np.float32(2.0)  # where a bound of P(x > 0) would stand, were the search not long
LEFT = np.float32(-1.0)  # in place of a draw that is left to others
NOTHING = 1e-20  # a probability that no v can tell from 0


@compiled(parallel=True)
def negative_binomial_draws(log_mean, log_r, word):
    """A draw for every entry; -1 where the search would be long: where means are large, or widely dispersed.

    Args:
        log_mean: (rows, features).
        log_r: Of each feature, (1, features), or of every entry.
        word: 64 random bits.
    """
    rows, features = log_mean.shape
    x = np.empty((rows, features), np.float32)
    for i in prange(rows):
        m, log_r_i, x_i = log_mean[i], log_r[i % log_r.shape[0]], x[i]
        _bounds(m, log_r_i, x_i)
        for j in range(features):
            v = 1.0 - fine_uniform(word, i * features + j)
            if v > x_i[j]:
                x_i[j] = np.float32(0)
            elif x_i[j] == LONG:
                x_i[j] = LEFT
            else:
                x_i[j] = _searched(np.float64(exp(m[j])), np.float64(exp(log_r_i[j])), v)
    return x


@njit(error_model="numpy", fastmath=QUICK)
def _bounds(log_mean, log_r, out):
    """Hardly more than P(x > 0), all that most draws ask for; LONG where the search is, or a mean is no number."""
    for j in range(out.size):
        mean, ratio = exp(log_mean[j]), min(exp(log_mean[j] - log_r[j]), HUGE)
        p = exp(-exp(log_r[j]) * log1p(ratio))
        out[j] = ONE - p + SLACK if p > LEAST and mean * (ONE + ratio) < WIDEST else LONG


@njit(error_model="numpy")
def _searched(mean, r, v):
    """The smallest x with P(X > x) < v, in double precision; what is left of P(X > x) is exact where it is small."""
    log_zero = -r * math.log1p(mean / r)
    p, x, step = math.exp(log_zero), 0, mean / (mean + r)
    above = 1.0 - p if p < 0.99 else -math.expm1(log_zero)
    while v <= above:
        p *= (x + r) * step * over(x + 1)
        x += 1
        above -= p
        if p < NOTHING and x > mean:
            return LEFT  # v is among the last roundings
    return np.float32(x)
