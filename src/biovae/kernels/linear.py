"""A linear map of a sparse minibatch: only the weights of what is there are read, and written in the backward pass.

y   entries (row, column, value) in row order        w  weights      (features, width), rows contiguous
h   y w + b, (obs, width)
"""

import numpy as np
from numba import prange

from biovae.kernels import compiled
from biovae.kernels.rows import starts

LANES = 16  # floats of a cache line: no two threads write to the same


@compiled(parallel=True, fastmath={"contract"})
def forward(row, column, value, w, b, obs):
    """y w + b."""
    h, pointers = np.empty((obs, w.shape[1]), np.float32), starts(row, obs)
    for i in prange(obs):
        out, first, last = h[i], pointers[i], pointers[i + 1]
        fours = first + (last - first) // 4 * 4
        out[:] = b
        for k in range(first, fours, 4):  # four at a time: `out` is then read and written a quarter as often
            w0, w1, w2, w3 = w[column[k]], w[column[k + 1]], w[column[k + 2]], w[column[k + 3]]
            v0, v1, v2, v3 = value[k], value[k + 1], value[k + 2], value[k + 3]
            for j in range(out.size):
                out[j] += (v0 * w0[j] + v1 * w1[j]) + (v2 * w2[j] + v3 * w3[j])
        for k in range(fours, last):
            weights, v = w[column[k]], value[k]
            for j in range(out.size):
                out[j] += v * weights[j]
    return h


@compiled(parallel=True, fastmath={"contract"})
def weight_gradient(row, column, value, grad, features, parts):
    """y' grad, (features, width); each thread has columns of its own."""
    width = grad.shape[1]
    out = np.empty((features, width), np.float32)
    share = LANES * ((width + LANES * parts - 1) // (LANES * parts))
    for part in prange(parts):
        low, high = min(part * share, width), min((part + 1) * share, width)
        for f in range(features):
            out[f][low:high] = 0
        for k in range(row.size):
            to, g, v = out[column[k]][low:high], grad[row[k]][low:high], value[k]
            for j in range(to.size):
                to[j] += v * g[j]
    return out
