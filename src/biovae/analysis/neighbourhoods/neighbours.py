"""Who lies next to whom: exact nearest neighbours, and how often they carry the same label.

    z      positions, (obs, latent)
    index  neighbours of each observation, nearest first, itself excluded, (obs, k)

Distances are Euclidean.
"""

from collections.abc import Sequence

import numpy as np
import pandas as pd
from jaxtyping import Bool, Float, Int

from biovae.analysis.neighbourhoods.positions import finite
from biovae.analysis.neighbourhoods.search import Search
from biovae.errors import InputError, first

K = 15  # neighbours: the field's habit, and what published accuracies use
ROWS = 8192  # observations whose votes are counted at once


def nearest(
    z: Float[np.ndarray, "obs latent"], k: int = K
) -> tuple[Int[np.ndarray, "obs k"], Float[np.ndarray, "obs k"]]:
    """The k nearest other observations of each, by Euclidean distance; exact, in memory proportional to obs x k.

    Where there are fewer than k others, all of them.

    Raises:
        InputError: A position is not finite, or k is below 1.
    """
    z = finite(z)
    if k < 1:
        raise InputError(f"expected at least 1 neighbour, found k={k}: ask for k=15, for example.")
    return Search(z).others(k)


def label_hits(
    z: Float[np.ndarray, "obs latent"], labels: Sequence[object] | np.ndarray, k: int = K
) -> Bool[np.ndarray, "obs"]:
    """Whether the majority of the k nearest neighbours carries the observation's own label, observation by observation.

    Among labels with equally many votes, the one whose voters are nearer in rank wins. Two embeddings of the same
    observations are compared by a paired test on these.

    Raises:
        InputError: Labels and positions differ in number, or a label is missing.
    """
    own = codes(labels, len(z))
    index, _ = nearest(z, k)
    if index.shape[1] == 0:
        return np.zeros(len(own), dtype=bool)
    weight = 1 + np.arange(index.shape[1], 0, -1) / (10 * index.shape[1] ** 2)  # a tie-break worth less than a vote
    levels = int(own.max()) + 1
    hits = np.empty(len(own), dtype=bool)
    for start in range(0, len(own), ROWS):
        votes = own[index[start : start + ROWS]]
        cell = (np.arange(len(votes))[:, None] * levels + votes).ravel()
        tally = np.bincount(cell, np.tile(weight, len(votes)), minlength=len(votes) * levels)
        hits[start : start + ROWS] = tally.reshape(len(votes), levels).argmax(1) == own[start : start + ROWS]
    return hits


def label_accuracy(z: Float[np.ndarray, "obs latent"], labels: Sequence[object] | np.ndarray, k: int = K) -> float:
    """The fraction of `label_hits`: leave-one-out accuracy of a vote among the k nearest neighbours."""
    return float(label_hits(z, labels, k).mean())


def shared_neighbours(a: Int[np.ndarray, "obs k"], b: Int[np.ndarray, "obs k"]) -> float:
    """The mean share of each observation's neighbours in one space that are its neighbours in the other, too.

    >>> shared_neighbours(np.array([[1, 2], [0, 2], [0, 1]]), np.array([[2, 3], [2, 0], [3, 4]]))
    0.5
    """
    return float(neighbours_shared(a, b).mean())


def neighbours_shared(a: Int[np.ndarray, "obs k"], b: Int[np.ndarray, "obs k"]) -> Float[np.ndarray, "obs"]:
    """The same, observation by observation.

    Raises:
        InputError: The tables differ in shape, or hold no neighbours.
    """
    if a.shape != b.shape or a.shape[1] == 0:
        raise InputError(
            f"expected two equal tables of neighbours, found {a.shape} and {b.shape}: use one set and one k."
        )
    both = np.sort(np.concatenate([a, b], axis=1), axis=1)
    return (both[:, 1:] == both[:, :-1]).sum(1) / a.shape[1]


def codes(labels: Sequence[object] | np.ndarray, expected: int, *, gaps: bool = False) -> Int[np.ndarray, "obs"]:
    """Labels as 0, 1, ...: one for each observation; with `gaps`, -1 where one is missing.

    Raises:
        InputError: Too few, too many, or a missing one without `gaps`.
    """
    if len(labels) != expected:
        raise InputError(
            f"expected {expected} labels, one per observation, found {len(labels)}: pass those of the same rows."
        )
    found, _ = pd.factorize(np.asarray(labels))
    missing = np.flatnonzero(found < 0)
    if len(missing) and not gaps:
        raise InputError(
            f"expected a label for every observation, found none at rows {first(missing)}: leave them out."
        )
    return found
