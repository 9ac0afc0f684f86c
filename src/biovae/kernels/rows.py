"""Rows of a compressed matrix gathered into a minibatch, and their molecules thinned."""

import math

import numpy as np
from numba import njit, prange

from biovae.kernels import compiled

FROM_THE_MODE = 17  # counts from here on are searched from their likeliest value
TABLED = 2048
FACTORIALS = np.array([math.lgamma(x + 1.0) for x in range(TABLED)])
RECIPROCALS = np.array([1.0 / max(x, 1) for x in range(TABLED)])


@compiled(parallel=True)
def gather(pointers, column, value, index):
    """Row, column and value of every entry of the rows `index`, in their order."""
    start = np.empty(index.size + 1, np.int64)
    start[0] = 0
    for i in range(index.size):
        start[i + 1] = start[i] + pointers[index[i] + 1] - pointers[index[i]]
    rows, columns = np.empty(start[-1], np.int64), np.empty(start[-1], np.int64)
    values = np.empty(start[-1], np.float32)
    for i in prange(index.size):
        source = pointers[index[i]] - start[i]
        for k in range(start[i], start[i + 1]):
            rows[k], columns[k], values[k] = i, column[source + k], value[source + k]
    return rows, columns, values


@njit(error_model="numpy")
def log_factorial(x):
    """log x! of a whole number."""
    return FACTORIALS[int(x)] if x < TABLED else math.lgamma(x + 1.0)


@njit(error_model="numpy")
def _over(x):
    """1 / x of a whole number: a division takes longer than reading a table."""
    return RECIPROCALS[int(x)] if x < TABLED else 1.0 / x


@njit(error_model="numpy")
def starts(row, obs):
    """Where each observation begins among entries in row order, and where the last one ends."""
    pointers = np.zeros(obs + 1, np.int64)
    for k in range(row.size):
        pointers[row[k] + 1] += 1
    return pointers.cumsum()


@compiled(parallel=True)
def thin(row, value, kept, uniform):
    """Each of `value` molecules stays with probability `kept[row]`; what is not whole is scaled."""
    stays, pointers = np.empty(value.size, np.float32), starts(row, kept.size)
    for i in prange(kept.size):
        p = kept[i]
        below = _at_most(p)
        for k in range(pointers[i], pointers[i + 1]):
            whole, u = np.float64(np.int64(value[k])), uniform[k]
            if whole < FROM_THE_MODE:
                n = _rank(below[int(whole)], u)
            elif p < 1:
                n = _from_mode(whole, np.float64(p), np.float64(u))
            else:
                n = whole
            stays[k] = n + (value[k] - whole) * p
    return stays


@njit(error_model="numpy")
def _at_most(p):
    """P(at most k of n stay), (n, k), k < n; 2 beyond. A molecule more stays or does not."""
    mass = np.zeros((FROM_THE_MODE, FROM_THE_MODE), np.float32)
    below = np.full((FROM_THE_MODE, FROM_THE_MODE - 1), np.float32(2))
    mass[0, 0] = 1
    for n in range(1, FROM_THE_MODE):
        mass[n, 0] = mass[n - 1, 0] * (1 - p)
        for k in range(1, n + 1):
            mass[n, k] = mass[n - 1, k] * (1 - p) + mass[n - 1, k - 1] * p
        total = np.float32(0)
        for k in range(n):
            total += mass[n, k]
            below[n, k] = total
    return below


@njit(error_model="numpy")
def _rank(below, u):
    """How many of the cumulated masses do not exceed u: all are compared: a search would branch."""
    rank = np.int32(0)
    for k in range(FROM_THE_MODE - 1):
        rank += np.int32(u >= below[k])
    return np.float64(rank)


@njit(error_model="numpy")
def _from_mode(n, p, u):
    """Values in the order mode, mode + 1, mode - 1, ...: as many steps as the spread is wide, and no underflow."""
    odds, mode = p / (1.0 - p), min(np.floor((n + 1.0) * p), n)
    choose = log_factorial(n) - log_factorial(mode) - log_factorial(n - mode)
    middle = math.exp(choose + mode * math.log(p) + (n - mode) * math.log(1.0 - p))
    against, up, down, high, low = 1.0 / odds, middle, middle, mode, mode
    u -= middle
    while u >= 0.0:
        up *= odds * (n - high) * _over(high + 1.0)  # 0 beyond n
        high += 1.0
        u -= up
        if u < 0.0:
            return high
        down *= against * low * _over(n - low + 1.0)  # 0 below 0
        low -= 1.0
        u -= down
        if u < 0.0:
            return low
        if up + down < 1e-18:  # rounding left a little of u: any value this likely would do
            return mode
    return mode
