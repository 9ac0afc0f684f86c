"""Rows of a compressed matrix gathered into a minibatch, and their molecules thinned."""

import math

import numpy as np
from numba import njit, prange

from biovae.kernels import compiled
from biovae.kernels.draws import uniform

PILE = 16  # molecules of which it is looked up how many stay; a pile more is a draw more
SUMMED = 128  # molecules from which on a search from their likeliest number is faster than so many piles
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
def over(x):
    """1 / x of a whole number: a division takes longer than reading a table."""
    return RECIPROCALS[int(x)] if x < TABLED else 1.0 / x


@njit(error_model="numpy")
def starts(row, obs):
    """Where each observation begins among entries in row order, and where the last one ends."""
    pointers = np.empty(obs + 1, np.int64)
    pointers[0], pointers[obs] = 0, row.size
    for i in range(1, obs):
        low, high = pointers[i - 1], row.size
        while low < high:  # bisection: to look at every entry takes ten times as long
            middle = (low + high) // 2
            if row[middle] < i:
                low = middle + 1
            else:
                high = middle
        pointers[i] = low
    return pointers


@compiled()
def times(row, value, factor):
    """value * factor[row]."""
    out = np.empty(value.size, np.float32)
    for k in range(value.size):
        out[k] = value[k] * factor[row[k]]
    return out


@compiled(parallel=True)
def thin(row, value, kept, word):
    """Each of `value` molecules stays with probability `kept[row]`; what is not whole is scaled.

    `word` is that of the draws, see `draws.uniform`.
    """
    stays, pointers = np.empty(value.size, np.float32), starts(row, kept.size)
    for i in prange(kept.size):
        p = kept[i]
        below = _at_most(p)
        for k in range(pointers[i], pointers[i + 1]):
            whole = np.int64(value[k])
            if whole <= SUMMED:
                n, left, draw = np.int64(0), whole, np.int64(k)
                while left > 0:
                    n += _rank(below, min(left, PILE), uniform(word, draw))
                    left, draw = left - PILE, draw + value.size
            elif p < 1:
                n = np.int64(_from_mode(np.float64(whole), np.float64(p), np.float64(uniform(word, k))))
            else:
                n = whole
            stays[k] = n + (value[k] - whole) * p
    return stays


@njit(error_model="numpy")
def _at_most(p):
    """P(at most k of n stay), (n, k), k < n; 2 beyond. A molecule more stays or does not."""
    mass = np.zeros((PILE + 1, PILE + 1), np.float32)
    below = np.full((PILE + 1, PILE), np.float32(2))
    mass[0, 0] = 1
    for n in range(1, PILE + 1):
        mass[n, 0] = mass[n - 1, 0] * (1 - p)
        for k in range(1, n + 1):
            mass[n, k] = mass[n - 1, k] * (1 - p) + mass[n - 1, k - 1] * p
        total = np.float32(0)
        for k in range(n):
            total += mass[n, k]
            below[n, k] = total
    return below


@njit(error_model="numpy")
def _rank(below, n, u):
    """How many of the cumulated masses do not exceed u: all are compared: a search would branch."""
    rank = np.int32(0)
    for k in range(PILE):
        rank += np.int32(u >= below[n, k])
    return rank


@njit(error_model="numpy")
def _from_mode(n, p, u):
    """Values in the order mode, mode + 1, mode - 1, ...: as many steps as the spread is wide, and no underflow."""
    odds, mode = p / (1.0 - p), min(np.floor((n + 1.0) * p), n)
    choose = log_factorial(n) - log_factorial(mode) - log_factorial(n - mode)
    middle = math.exp(choose + mode * math.log(p) + (n - mode) * math.log(1.0 - p))
    against, up, down, high, low = 1.0 / odds, middle, middle, mode, mode
    u -= middle
    while u >= 0.0:
        up *= odds * (n - high) * over(high + 1.0)  # 0 beyond n
        high += 1.0
        u -= up
        if u < 0.0:
            return high
        down *= against * low * over(n - low + 1.0)  # 0 below 0
        low -= 1.0
        u -= down
        if u < 0.0:
            return low
        if up + down < 1e-18:  # rounding left a little of u: any value this likely would do
            return mode
    return mode
