"""Does unspliced RNA say that pseudotime runs the right way? A check of its direction, not an estimate of velocity.

    s, u   spliced and unspliced counts, divided by their own totals and averaged over neighbours, (obs, genes)
    v      u - gamma s: more unspliced RNA than a steady state has, so the gene is rising, (obs, genes)
    d      mean of s over later neighbours minus that over earlier ones, (obs, genes)

If pseudotime runs forward, what rises along it (d) is what is being made (v). Each gene's v and d are divided by the
standard deviation that counting gives them, sqrt(mean u + gamma**2 mean s) and sqrt(mean s), so that noise weighs the
same in all genes, and compared by their cosine, observation by observation. What chance does to the mean cosine is told
by the genes: if each spoke for either direction at random, their contributions would add up to it.

Source: La Manno et al. 2018, doi:10.1038/s41586-018-0414-6 (gamma from the extremes of s).
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import scipy.sparse
from jaxtyping import Float, Int

from biovae.analysis.trajectories.trajectory import Trajectory
from biovae.errors import InputError

EXTREME = 0.05  # of the observations at either end of s, which give gamma
SEEN = 0.02  # of the observations with a count of a gene, at least, in both layers
GENES = 256  # written out at once
SURE = 3.0  # standard deviations


@dataclass(frozen=True)
class Direction:
    """Cosine of v and d.

    Attributes:
        cosine: Of each observation; NaN where it has no later or no earlier neighbour.
        mean: Over observations. Reversed pseudotime has minus this.
        chance: Standard deviation of the mean if each gene spoke for either direction at random.
        genes: Columns that were used.
        contributions: Of each of these genes to the mean.
    """

    cosine: Float[np.ndarray, "obs"]
    mean: float
    chance: float
    genes: Int[np.ndarray, "genes"]
    contributions: Float[np.ndarray, "genes"]

    def __str__(self) -> str:
        """The verdict in one sentence."""
        forward = float((self.cosine[np.isfinite(self.cosine)] > 0).mean())
        if abs(self.mean) < SURE * self.chance:
            word = "says nothing of the direction of pseudotime"
        else:
            word = "agrees with the direction of pseudotime" if self.mean > 0 else "speaks against it: try another root"
        return (
            f"Unspliced RNA of {len(self.genes):,} genes {word}: mean cosine {self.mean:.3f} "
            f"({self.chance:.3f} by chance), above 0 in {forward:.0%} of the observations."
        )


def direction(
    spliced: scipy.sparse.sparray | scipy.sparse.spmatrix | np.ndarray,
    unspliced: scipy.sparse.sparray | scipy.sparse.spmatrix | np.ndarray,
    found: Trajectory,
) -> Direction:
    """Compare pseudotime with the excess of unspliced over spliced RNA.

    Args:
        spliced: Counts, (obs, genes).
        unspliced: Counts, the same genes.
        found: Of the same observations.

    Raises:
        InputError: The layers differ in shape, or no gene has enough counts in both.
    """
    layers = [scipy.sparse.csc_array(x, dtype=np.float64) for x in (spliced, unspliced)]
    count = len(found.pseudotime)
    if layers[0].shape != layers[1].shape or layers[0].shape[0] != count:
        raise InputError(
            f"expected spliced and unspliced counts of {count} observations and the same genes, found "
            f"{layers[0].shape} and {layers[1].shape}: pass those of the trajectory's observations."
        )
    seen = np.logical_and(*(x.count_nonzero(axis=0) >= max(3, SEEN * count) for x in layers))
    genes = np.flatnonzero(seen)
    if not len(genes):
        raise InputError(
            f"expected genes with counts in {SEEN:.0%} of the observations in both layers, found none of "
            f"{len(seen):,}: there is too little unspliced RNA."
        )
    dot, norms = np.zeros(count), np.zeros((2, count))
    for v, d in _blocks(layers, genes, found):
        dot += (v * d).sum(1)
        norms += (v**2).sum(1), (d**2).sum(1)
    length = np.sqrt(norms.prod(0))
    known = length > 0
    weight = np.where(known, 1 / np.where(known, length, 1), 0) / max(known.sum(), 1)
    parts = np.concatenate([weight @ (v * d) for v, d in _blocks(layers, genes, found)])
    cosine = np.where(known, dot / np.where(known, length, 1), np.nan)
    return Direction(cosine, float(parts.sum()), float(np.sqrt((parts**2).sum())), genes, parts)


def _blocks(
    layers: Sequence[scipy.sparse.csc_array], genes: np.ndarray, found: Trajectory
) -> Iterator[tuple[Float[np.ndarray, "obs genes"], Float[np.ndarray, "obs genes"]]]:
    """v and d of some genes at a time, in units of counting noise."""
    layers = [_shares(x) for x in layers]
    smooth, gradient = _smoother(found), _gradient(found)
    tiny = np.finfo(np.float64).tiny
    for start in range(0, len(genes), GENES):
        s, u = ((smooth @ x[:, genes[start : start + GENES]]).toarray() for x in layers)
        gamma = _gamma(s, u)
        v = (u - gamma * s) / np.sqrt(np.maximum(u.mean(0) + gamma**2 * s.mean(0), tiny))
        yield v, (gradient @ s) / np.sqrt(np.maximum(s.mean(0), tiny))


def _shares(x: scipy.sparse.csc_array) -> scipy.sparse.csc_array:
    total = np.asarray(x.sum(1)).ravel()
    return scipy.sparse.csc_array(scipy.sparse.diags_array(np.median(total) / np.maximum(total, 1)) @ x)


def _smoother(found: Trajectory) -> scipy.sparse.csr_array:
    """The mean over an observation and its neighbours."""
    whole = scipy.sparse.csr_array(found.graph.affinity.sign() + scipy.sparse.eye_array(len(found.pseudotime)))
    return scipy.sparse.csr_array(scipy.sparse.diags_array(1 / whole.sum(1)) @ whole)


def _gradient(found: Trajectory) -> scipy.sparse.csr_array:
    """The mean over later neighbours minus that over earlier ones; nothing where either are missing."""
    edges = scipy.sparse.coo_array(found.graph.affinity)
    later = found.pseudotime[edges.col] > found.pseudotime[edges.row]
    size = len(found.pseudotime)
    ahead, behind = (np.bincount(edges.row[rows], minlength=size) for rows in (later, ~later))
    both = (ahead > 0) & (behind > 0)
    value = np.where(later, 1 / np.maximum(ahead, 1)[edges.row], -1 / np.maximum(behind, 1)[edges.row])
    return scipy.sparse.csr_array((value * both[edges.row], (edges.row, edges.col)), shape=(size, size))


def _gamma(s: np.ndarray, u: np.ndarray) -> Float[np.ndarray, "genes"]:
    """The slope of u on s through the origin, over the observations with the least and the most s."""
    low, high = np.quantile(s, (EXTREME, 1 - EXTREME), axis=0)
    extreme = (s <= low) | (s >= high)
    return (s * u * extreme).sum(0) / np.maximum((s**2 * extreme).sum(0), np.finfo(np.float64).tiny)
