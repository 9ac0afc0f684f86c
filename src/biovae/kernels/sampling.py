"""Counts drawn by inversion: the smallest x up to which the probabilities sum to more than a uniform draw u.

    p(0) = (1 + mean / r)**-r        p(x) = p(x - 1) (x - 1 + r) / x  mean / (mean + r)

Most counts of a cell are 0, so that most draws end with the first term.

Source: Devroye 1986, Non-Uniform Random Variate Generation, chapter III.2.
"""

import numpy as np
from numba import njit, prange

from biovae.kernels import compiled
from biovae.kernels.counts import HUGE, ONE, QUICK, exp, log1p
from biovae.kernels.draws import fine_uniform
from biovae.kernels.rows import over

WIDEST = np.float32(1e3)  # variance: above, the search is long
LEAST = np.float32(1e-12)  # p(0): below, its rounding tells
LEFT = np.float32(-1.0)  # in place of a draw that is left to others
NOTHING = 1e-20  # a probability that no u can tell from 0


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
        _at_zero(m, log_r_i, x_i)
        for j in range(features):
            u = fine_uniform(word, i * features + j) - x_i[j]
            if u < 0:
                x_i[j] = np.float32(0)
            else:
                x_i[j] = _searched(x_i[j], np.float64(exp(m[j])), np.float64(exp(log_r_i[j])), u)
    return x


@njit(error_model="numpy", fastmath=QUICK)
def _at_zero(log_mean, log_r, out):
    """p(0) of each feature; 0 where the search would be long, or a mean is no number."""
    for j in range(out.size):
        mean, ratio = exp(log_mean[j]), min(exp(log_mean[j] - log_r[j]), HUGE)
        p = exp(-exp(log_r[j]) * log1p(ratio))
        out[j] = p if p > LEAST and mean * (ONE + ratio) < WIDEST else np.float32(0)


@njit(error_model="numpy")
def _searched(at_zero, mean, r, u):
    """The smallest x > 0 at which what is left of u is used up."""
    if at_zero == 0:
        return LEFT
    p, x, step = np.float64(at_zero), 0, mean / (mean + r)
    while u >= 0 and (p > NOTHING or x < mean):
        p *= (x + r) * step * over(x + 1)
        x += 1
        u -= p
    return np.float32(x)
