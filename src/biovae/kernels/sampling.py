"""Counts drawn by inversion: the smallest x up to which the probabilities sum to more than a uniform draw u.

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

FEWEST = -30.0  # of log p(0): below, the search from 0 is long, and its first term small
WIDEST = 1e3  # variance: above, the search is long
LEFT = np.float32(-1.0)  # in place of a draw that is left to others
SURE, SAFE = np.float32(1e-12), np.float32(0.99 * WIDEST)  # within both limits, however they are rounded
NOTHING = 1e-20  # a probability that no u can tell from 0


@njit(error_model="numpy")
def _inverted(mean, r, u):
    """One negative binomial draw; -1 where it would take long."""
    ratio = mean / r
    log_zero = -r * math.log1p(ratio)
    if not (log_zero >= FEWEST and mean * (1.0 + ratio) <= WIDEST):  # a mean that is no number is left, too
        return LEFT
    p, x, step = math.exp(log_zero), 0.0, mean / (1.0 + ratio) / r
    u -= p
    while u >= 0.0 and (p > NOTHING or x < mean):
        x += 1.0
        p *= (x - 1.0 + r) / x * step
        u -= p
    return np.float32(x)


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
        m, own_r, own = log_mean[i], log_r[i % log_r.shape[0]], x[i]
        _at_zero(m, own_r, own)
        for j in range(features):
            u = fine_uniform(word, i * features + j)
            if u < own[j]:
                own[j] = np.float32(0)
            else:
                own[j] = _inverted(np.float64(exp(m[j])), np.float64(exp(own_r[j])), u)
    return x


@njit(error_model="numpy", fastmath=QUICK)
def _at_zero(log_mean, log_r, out):
    """p(0) of each feature, to seven digits, all that most draws ask for; 0 where the search may be long."""
    for j in range(out.size):
        mean, ratio = exp(log_mean[j]), min(exp(log_mean[j] - log_r[j]), HUGE)
        at_zero = exp(-exp(log_r[j]) * log1p(ratio))
        out[j] = at_zero if at_zero > SURE and mean * (ONE + ratio) < SAFE else np.float32(0)
