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
        h[i] = b
        _add(h[i], column, value, w, pointers[i], pointers[i + 1])
    return h


@compiled(parallel=True, fastmath={"contract"})
def weight_gradient(row, column, value, grad, features):
    """y' grad, (features, width): entries are put in order of their column, so that a weight is written once."""
    out = np.empty((features, grad.shape[1]), np.float32)
    pointers, rows, values = by_column(row, column, value, features)
    for f in prange(features):
        out[f] = 0
        _add(out[f], rows, values, grad, pointers[f], pointers[f + 1])
    return out


@njit(error_model="numpy", fastmath={"contract"}, forceinline=True)
def _add(out, index, value, table, first, last):
    """Rows `index` of a table times `value`, of the entries from `first` up to `last`, added to `out`."""
    fours = first + (last - first) // 4 * 4
    for k in range(first, fours, 4):  # four at a time: `out` is then read and written a quarter as often
        t0, t1, t2, t3 = table[index[k]], table[index[k + 1]], table[index[k + 2]], table[index[k + 3]]
        v0, v1, v2, v3 = value[k], value[k + 1], value[k + 2], value[k + 3]
        for j in range(out.size):
            out[j] += (v0 * t0[j] + v1 * t1[j]) + (v2 * t2[j] + v3 * t3[j])
    for k in range(fours, last):
        t, v = table[index[k]], value[k]
        for j in range(out.size):
            out[j] += v * t[j]


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
