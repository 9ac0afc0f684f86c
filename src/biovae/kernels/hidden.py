"""A hidden layer behind its linear map, while training: batch norm, rectifier and dropout by rows.

a   what the linear map gives, (rows, width)      n   rows
x   (a - mean) / sqrt(variance + EPS), by column  s, t   scale and shift
y   max(s x + t, 0), a share `rate` of the entries put to 0 and the others divided by 1 - rate

    d / d a = s / sqrt(variance + EPS) (g - mean(g) - x mean(g x))       g the gradient where y > 0, over 1 - rate

Rows are worked on in chunks, each with sums of its own: how many there are depends on the rows alone.

Source: Ioffe and Szegedy 2015, ICML, arXiv:1502.03167.
"""

import numpy as np
from numba import njit, prange

from biovae.kernels import compiled
from biovae.kernels.draws import uniform

EPS = 1e-3
ROWS = 256  # of a chunk
FAST = {"contract", "reassoc"}


@compiled(parallel=True, fastmath=FAST)
def forward(a, s, t, running, momentum, rate, word):  # noqa: PLR0913
    """y, and mean and 1 / sqrt(variance + EPS) of every column; the running statistics learn.

    Args:
        a: At least two rows.
        s: (width,).
        t: (width,).
        running: Mean and variance so far, each (width,), changed in place.
        momentum: How much of them is replaced.
        rate: Share of the entries that are dropped.
        word: Of the draws, see `draws.uniform`.
    """
    rows, width = a.shape
    chunks = (rows + ROWS - 1) // ROWS
    y, sums = np.empty((rows, width), np.float32), np.zeros((2, chunks, width), np.float64)
    for chunk in prange(chunks):
        _sum(a[chunk * ROWS : (chunk + 1) * ROWS], sums[0, chunk])
    mean = sums[0].sum(0) / rows
    for chunk in prange(chunks):
        _sum_of_squares(a[chunk * ROWS : (chunk + 1) * ROWS], mean, sums[1, chunk])
    variance = sums[1].sum(0) / rows
    inverse = 1 / np.sqrt(variance + EPS)
    by, plus = (s * inverse).astype(np.float32), (t - s * mean * inverse).astype(np.float32)
    for chunk in prange(chunks):
        own = slice(chunk * ROWS, (chunk + 1) * ROWS)
        _rectify(a[own], by, plus, rate, word, np.uint64(chunk * ROWS * width), y[own])
    for j in range(width):
        running[0][j] += momentum * (mean[j] - running[0][j])
        running[1][j] += momentum * (variance[j] * rows / (rows - 1) - running[1][j])
    return y, mean.astype(np.float32), inverse.astype(np.float32)


@njit(error_model="numpy", fastmath=FAST)
def _sum(a, out):
    for i in range(a.shape[0]):
        source = a[i]
        for j in range(out.size):
            out[j] += source[j]


@njit(error_model="numpy", fastmath=FAST)
def _sum_of_squares(a, mean, out):
    for i in range(a.shape[0]):
        source = a[i]
        for j in range(out.size):
            out[j] += (source[j] - mean[j]) ** 2


@njit(error_model="numpy", fastmath=FAST)
def _rectify(a, by, plus, rate, word, first, y):  # noqa: PLR0913
    kept = np.float32(1 / (1 - rate))
    for i in range(a.shape[0]):
        source, to, k = a[i], y[i], first + np.uint64(i * by.size)
        for j in range(by.size):
            value = max(source[j] * by[j] + plus[j], np.float32(0)) * kept
            to[j] = value if uniform(word, k + np.uint64(j)) >= rate else np.float32(0)


@compiled(parallel=True, fastmath=FAST)
def backward(grad, y, a, s, mean, inverse, rate):  # noqa: PLR0913
    """The gradients in a, s and t of what has the gradient `grad` in y."""
    rows, width = a.shape
    chunks = (rows + ROWS - 1) // ROWS
    in_a, sums = np.empty((rows, width), np.float32), np.zeros((2, chunks, width), np.float32)
    for chunk in prange(chunks):
        own = slice(chunk * ROWS, (chunk + 1) * ROWS)
        _gather(grad[own], y[own], a[own], mean, rate, in_a[own], sums[0, chunk], sums[1, chunk])
    in_s, in_t, by = sums[0].sum(0) * inverse, sums[1].sum(0), s * inverse
    tilt = by * inverse * in_s / np.float32(rows)
    level = by * in_t / np.float32(rows) - tilt * mean
    for chunk in prange(chunks):
        own = slice(chunk * ROWS, (chunk + 1) * ROWS)
        _centre(a[own], by, level, tilt, in_a[own])
    return in_a, in_s, in_t


@njit(error_model="numpy", fastmath=FAST)
def _gather(grad, y, a, mean, rate, out, turned, summed):  # noqa: PLR0913
    """g of every entry, and the sums of g (a - mean) and of g; a loop with more arrays would not be vectorised."""
    kept = np.float32(1 / (1 - rate))
    for i in range(a.shape[0]):
        g, source, to, from_y = grad[i], a[i], out[i], y[i]
        for j in range(to.size):
            to[j] = g[j] * kept if from_y[j] > 0 else np.float32(0)
        for j in range(to.size):
            summed[j] += to[j]
        for j in range(to.size):
            turned[j] += to[j] * (source[j] - mean[j])


@njit(error_model="numpy", fastmath=FAST)
def _centre(a, by, level, tilt, out):
    """g becomes the gradient in a."""
    for i in range(a.shape[0]):
        source, to = a[i], out[i]
        for j in range(to.size):
            to[j] = by[j] * to[j] - tilt[j] * source[j] - level[j]
