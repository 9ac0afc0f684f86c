"""Random numbers by their place: a word and a number k give the k-th draw, whoever asks, in any order.

Source: Steele, Lea and Flood 2014, OOPSLA, doi:10.1145/2660193.2660195 (SplitMix64).
"""

import numpy as np
from numba import njit

STEP, FIRST, SECOND = (np.uint64(c) for c in (0x9E3779B97F4A7C15, 0xBF58476D1CE4E5B9, 0x94D049BB133111EB))
A, B, C, TO_24_BITS, TO_53_BITS = (np.uint64(c) for c in (30, 27, 31, 40, 11))
OF_24_BITS, OF_53_BITS = np.float32(2.0**-24), 2.0**-53


@njit(error_model="numpy")
def _bits(word, k):
    """SplitMix64's output number k from the state `word`."""
    state = word + np.uint64(k) * STEP
    state = (state ^ (state >> A)) * FIRST
    state = (state ^ (state >> B)) * SECOND
    return state ^ (state >> C)


@njit(error_model="numpy")
def uniform(word, k):
    """The k-th draw from [0, 1), in single precision."""
    return np.float32(_bits(word, k) >> TO_24_BITS) * OF_24_BITS


@njit(error_model="numpy")
def fine_uniform(word, k):
    """The same in double precision: it comes 2**-53 near to 1."""
    return np.float64(_bits(word, k) >> TO_53_BITS) * OF_53_BITS
