"""A hidden layer behind its linear map, while training: batch norm, rectifier and dropout at once.

a   what the linear map gives, (rows, width)      n   rows
x   (a - mean) / sqrt(variance + eps), by column  s, t   scale and shift
y   max(s x + t, 0), a share `rate` of the entries put to 0 and the others divided by 1 - rate

    d / d a = s / sqrt(variance + eps) (g - mean(g) - x mean(g x))       g the gradient where y > 0, over 1 - rate

One thread does it all: a hidden layer is small beside the products around it, and waking another takes as long.

Source: Ioffe and Szegedy 2015, ICML, arXiv:1502.03167.
"""

import numpy as np
from numba import njit

from biovae.kernels import compiled
from biovae.kernels.draws import uniform

FAST = {"contract", "reassoc"}


@compiled(fastmath=FAST)
def forward(a, s, t, running, momentum, eps, rate, word):  # noqa: PLR0913
    """y, and mean and 1 / sqrt(variance + eps) of every column; the running statistics learn.

    Args:
        a: At least two rows.
        s: (width,).
        t: (width,).
        running: Mean and variance so far, each (width,), changed in place.
        momentum: How much of them is replaced.
        eps: Added to a variance.
        rate: Share of the entries that are dropped.
        word: Of the draws, see `draws.uniform`.
    """
    rows, width = a.shape
    mean, variance = np.zeros(width), np.zeros(width)
    y, by, plus = np.empty((rows, width), np.float32), np.empty(width, np.float32), np.empty(width, np.float32)
    _moments(a, mean, variance)
    for j in range(width):
        inverse = 1 / np.sqrt(variance[j] + eps)
        by[j], plus[j] = s[j] * inverse, t[j] - s[j] * mean[j] * inverse
        running[0][j] += momentum * (mean[j] - running[0][j])
        running[1][j] += momentum * (variance[j] * rows / (rows - 1) - running[1][j])
        variance[j] = inverse
    kept = np.float32(1 / (1 - rate))
    for i in range(rows):
        source, to, k = a[i], y[i], np.uint64(i * width)
        for j in range(width):
            value = source[j] * by[j] + plus[j]
            gone = value <= 0 or uniform(word, k + np.uint64(j)) < rate  # no: value > 0, which would lose a NaN
            to[j] = np.float32(0) if gone else value * kept
    return y, mean.astype(np.float32), variance.astype(np.float32)


@njit(error_model="numpy", fastmath=FAST)
def _moments(a, mean, variance):
    """In double precision, of every column."""
    for i in range(a.shape[0]):
        source = a[i]
        for j in range(mean.size):
            mean[j] += source[j]
    for j in range(mean.size):
        mean[j] /= a.shape[0]
    for i in range(a.shape[0]):
        source = a[i]
        for j in range(mean.size):
            variance[j] += (source[j] - mean[j]) ** 2
    for j in range(mean.size):
        variance[j] /= a.shape[0]


@compiled(fastmath=FAST)
def backward(grad, y, a, s, mean, inverse, rate):  # noqa: PLR0913
    """The gradients in a, s and t of what has the gradient `grad` in y."""
    rows, width = a.shape
    in_a = np.empty((rows, width), np.float32)
    in_s, in_t, by = np.zeros(width, np.float32), np.zeros(width, np.float32), np.empty(width, np.float32)
    tilt, level, kept = np.empty(width, np.float32), np.empty(width, np.float32), np.float32(1 / (1 - rate))
    for i in range(rows):  # a loop over more arrays at once would not be vectorised
        g, source, to, from_y = grad[i], a[i], in_a[i], y[i]
        for j in range(width):
            to[j] = g[j] * kept if from_y[j] > 0 else np.float32(0)
        for j in range(width):
            in_t[j] += to[j]
        for j in range(width):
            in_s[j] += to[j] * (source[j] - mean[j])
    for j in range(width):
        in_s[j] *= inverse[j]
        by[j] = s[j] * inverse[j]
        tilt[j] = by[j] * inverse[j] * in_s[j] / rows
        level[j] = by[j] * in_t[j] / rows - tilt[j] * mean[j]
    for i in range(rows):
        source, to = a[i], in_a[i]
        for j in range(width):
            to[j] = by[j] * to[j] - tilt[j] * source[j] - level[j]
    return in_a, in_s, in_t
