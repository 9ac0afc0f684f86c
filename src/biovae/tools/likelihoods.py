"""Likelihoods on one scale: z from one half of every observation's counts, the score from the other half.

With the observed library L = sum x, p(x | L) does not sum to one over x, and likelihoods that use L differently cannot
be ranked by it. Binomial thinning takes the question away: exposure and z come from one half alone, and the other half
is predicted.
"""

from dataclasses import replace

import numpy as np
import scipy.sparse
import torch

from biovae.batch import SparseMatrix
from biovae.data import Prepared
from biovae.errors import InputError
from biovae.noise import Noise

COUNTS = ("negative_binomial", "zero_inflated_negative_binomial", "poisson", "log1p_gaussian")
SAMPLES = 50
THINNED = "log-probability of the other half of a held-out observation's counts"
BOUND = "importance-weighted bound of held-out observations"


def thin(counts: scipy.sparse.csr_array, seed: int = 0) -> tuple[scipy.sparse.csr_array, scipy.sparse.csr_array]:
    """Two halves of the same counts: each molecule goes to one of them by the toss of a coin.

    Poisson counts split into independent halves; overdispersed ones into halves that share their mean. Values that are
    not whole, counts that were corrected, are rounded up or down at random first, so that their means stay.

    Args:
        counts: (obs, features).
        seed: Of the tosses.
    """
    whole, noise = scipy.sparse.csr_array(counts), Noise(seed)
    molecules = np.floor(whole.data).astype(np.int64)
    part = whole.data - molecules
    if part.any():
        molecules += noise.at(1).numpy().random(len(part)) < part
    one, other = whole.copy(), whole.copy()
    one.data = noise.numpy().binomial(molecules, 0.5).astype(whole.dtype)
    other.data = (molecules - one.data).astype(whole.dtype)
    for half in (one, other):
        half.eliminate_zeros()
    return one, other


def halves(prepared: Prepared, seed: int) -> tuple[Prepared, Prepared]:
    """The same observations with half the counts each; both have the exposure that the first half shows."""
    o = prepared.observations
    matrix, whole = o.x[0], o.exposure[0]
    if not isinstance(matrix, SparseMatrix) or whole is None:
        raise InputError("expected counts, found a table of reals: likelihoods of reals are compared by their bound.")
    counts = matrix.scipy()
    one, other = thin(counts, seed)
    share = np.maximum(one.sum(1), 1) / np.maximum(counts.sum(1), 1)
    exposure = whole * torch.from_numpy(share.astype(np.float32)).unsqueeze(1)
    parts = [type(o)((SparseMatrix.from_scipy(h),), (exposure,), o.present, o.covariates) for h in (one, other)]
    first, second = (replace(prepared, observations=part) for part in parts)
    return first, second
