"""A linear map of a sparse minibatch: only the weights of what is there are read, and written in the backward pass.

y   entries (row, column, value) in row order        w  weights      (features, width), rows contiguous
h   y w + b, (obs, width)
"""

import numpy as np
from numba import njit, prange

from biovae.kernels import compiled
from biovae.kernels.rows import starts


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
def weight_gradient(row, column, value, grad, features):
    """y' grad, (features, width): entries are put in order of their column, so that a weight is written once."""
    out = np.empty((features, grad.shape[1]), np.float32)
    pointers, rows, values = by_column(row, column, value, features)
    for f in prange(features):
        to, first, last = out[f], pointers[f], pointers[f + 1]
        fours = first + (last - first) // 4 * 4
        to[:] = 0
        for k in range(first, fours, 4):
            g0, g1, g2, g3 = grad[rows[k]], grad[rows[k + 1]], grad[rows[k + 2]], grad[rows[k + 3]]
            v0, v1, v2, v3 = values[k], values[k + 1], values[k + 2], values[k + 3]
            for j in range(to.size):
                to[j] += (v0 * g0[j] + v1 * g1[j]) + (v2 * g2[j] + v3 * g3[j])
        for k in range(fours, last):
            g, v = grad[rows[k]], values[k]
            for j in range(to.size):
                to[j] += v * g[j]
    return out


@njit(error_model="numpy")
def by_column(row, column, value, features):
    """Entries in order of their column: where each column begins, rows and values."""
    pointers, free = np.zeros(features + 1, np.int64), np.empty(features, np.int64)
    for k in range(column.size):
        pointers[column[k] + 1] += 1
    for f in range(features):
        pointers[f + 1] += pointers[f]
        free[f] = pointers[f]
    rows, values = np.empty(row.size, np.int32), np.empty(row.size, np.float32)
    for k in range(column.size):
        to = free[column[k]]
        rows[to], values[to], free[column[k]] = row[k], value[k], to + 1
    return pointers, rows, values
