"""Simple ways to fill in counts, each in several settings: the ones to beat.

    x       counts that are given                     (obs, features)
    l       their depth                               (obs,)
    share   expected counts per unit of depth         (rows, features)

    gene means   sum x / sum l, the same everywhere
    PCA          a low rank of log1p(10,000 x / l), carried back to counts as in `comparison.deviance_explained`
    diffusion    P**t x / P**t l, P the walk on the neighbour graph of PCA, each cell among its own neighbours

An expected count of 0 where one was seen costs infinitely much: PCA and diffusion are mixed with the gene means. How
much, how many components and how many steps is for the one who compares them to choose, in their favour.

Source of diffusion: van Dijk et al. 2018 (MAGIC), doi:10.1016/j.cell.2018.05.061; here counts and depth are smoothed
apart, so that a deep cell says more than a shallow one.
"""

from collections.abc import Callable
from dataclasses import replace
from typing import NamedTuple

import numpy as np
import scipy.sparse
from jaxtyping import Float, Int

from biovae.analysis.axes.pca import pca
from biovae.analysis.models.comparison import SHRINKAGE, profile
from biovae.analysis.neighbourhoods.neighbour_graph import neighbour_graph
from biovae.analysis.normalise import log_normalise

Shares = Callable[[Int[np.ndarray, "rows"]], Float[np.ndarray, "rows features"]]
COMPONENTS = (5, 10, 20, 50)
PLACES = 20  # components in which neighbours are sought
STEPS = (1, 2, 4)


class Imputer(NamedTuple):
    """A method in one setting.

    Attributes:
        setting: In words; empty where there is nothing to set.
        shares: Rows in, expected counts per unit of depth out.
    """

    setting: str
    shares: Shares


def baselines(
    counts: scipy.sparse.csr_array, depth: Float[np.ndarray, "obs"], seed: int = 0
) -> dict[str, tuple[Imputer, ...]]:
    """Gene means, PCA and diffusion of the same counts.

    Args:
        counts: What is given.
        depth: Of each observation.
        seed: Of PCA's start.
    """
    counts, depth = scipy.sparse.csr_array(counts), np.asarray(depth, dtype=np.float64).ravel()
    means = np.maximum(counts.sum(0), 0.1) / depth.sum()  # a tenth of a count for a feature that was not seen
    base = pca(log_normalise(counts, depth), max(COMPONENTS), seed)

    def line(components: int, share: float) -> Imputer:
        low = replace(base, scores=base.scores[:, :components], loadings=base.loadings[:, :components])
        return Imputer(
            f"{low.scores.shape[1]} components, {share:g} of the gene means",
            lambda rows: profile(low.reconstruct(rows), means, share),
        )

    walk = _walk(base.scores[:, :PLACES])

    def smooth(steps: int, share: float) -> Imputer:
        def shares(rows: np.ndarray) -> np.ndarray:
            near = walk[rows]
            for _ in range(steps - 1):
                near = near @ walk
            return (1 - share) * ((near @ counts).toarray() / (near @ depth)[:, None]) + share * means

        return Imputer(f"{steps} steps, {share:g} of the gene means", shares)

    return {
        "gene means": (Imputer("", lambda rows: np.broadcast_to(means, (len(rows), len(means)))),),
        "PCA": tuple(line(components, share) for components in COMPONENTS for share in SHRINKAGE),
        "diffusion": tuple(smooth(steps, share) for steps in STEPS for share in SHRINKAGE),
    }


def _walk(places: Float[np.ndarray, "obs places"]) -> scipy.sparse.csr_array:
    """One step of the walk: to a neighbour, or nowhere."""
    affinity = neighbour_graph(places).affinity
    step = scipy.sparse.csr_array(affinity + scipy.sparse.eye_array(len(places)))
    return scipy.sparse.csr_array(scipy.sparse.diags_array(1 / step.sum(1)) @ step)
