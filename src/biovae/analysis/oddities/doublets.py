"""Two cells in one droplet: made from the data themselves, and told from single cells.

    x       counts of a droplet                                            (obs, features)
    m       its mean under one state, its own                              (obs, features)
    weight  m / variance, what a count is worth; 1 for Poisson counts      (obs, features)
    rho     shares of the counts in other states                           (states, features)
    s       the part of the droplet that another state would contribute

    gain = max over states k and parts s of  sum_g weight [x log(m_s / m) - (m_s - m)],   m_s = (1 - s) m + s L rho_k

The gain is what a mixture of two states explains of a droplet that one state does not, in nats; for Poisson counts it
is the log of a likelihood ratio. A cell of two different kinds gains much, one of two alike gains nothing: droplets of
two like cells (homotypic) differ from single ones in their total alone, and no composition can tell them apart.

Source: Wolock, Lopez and Klein 2019, doi:10.1016/j.cels.2018.11.005 (simulated doublets among neighbours); Wedderburn
1974, doi:10.1093/biomet/61.3.439 (quasi-likelihood).
"""

from typing import NamedTuple

import numpy as np
import pandas as pd
import scipy.sparse
from jaxtyping import Float, Int

from biovae.analysis.axes.pca import pca
from biovae.analysis.neighbourhoods.neighbours import codes
from biovae.analysis.neighbourhoods.positions import finite
from biovae.analysis.neighbourhoods.search import Search
from biovae.analysis.normalise import log_normalise
from biovae.errors import InputError

PARTS = (0.05, 0.15, 0.3, 0.5)  # s: what the likelihood is tried at
TRIES = 50  # rounds of drawing partners
K = 30  # neighbours among observed and simulated droplets
REACH = 0.5  # share of the simulated that a threshold must leave above it, to tell how many are doublets
COMPONENTS = 30  # the habit of those who use them
NEIGHBOURS, RESIDUAL = "neighbours on components", "residual of components"


class Gain(NamedTuple):
    """What a second state explains, each (obs,).

    Attributes:
        gain: In nats, 0 where no state explains anything.
        state: The one that explains most.
        part: Its part of the droplet, s; 0 where there is no gain.
    """

    gain: Float[np.ndarray, "obs"]
    state: Int[np.ndarray, "obs"]
    part: Float[np.ndarray, "obs"]


class Contamination(NamedTuple):
    """Doublets among the observed.

    Attributes:
        share: pi, at most.
        p: Share of single cells that score as high as each observation.
        fdr: Expected share of false calls among each observation and all that score higher.
    """

    share: float
    p: Float[np.ndarray, "obs"]
    fdr: Float[np.ndarray, "obs"]


def mixture_gain(
    x: scipy.sparse.csr_array,
    mean: Float[np.ndarray, "obs features"],
    weight: Float[np.ndarray, "obs features"],
    others: Float[np.ndarray, "designs states features"],
    design: Int[np.ndarray, "obs"] | None = None,
) -> Gain:
    """What any other state explains of each observation beside its own.

    Args:
        x: Counts.
        mean: m.
        weight: m / variance.
        others: rho, under every design (batch, for example) that an observation may have.
        design: Which one it has; the first where it is not given.
    """
    x = scipy.sparse.csr_array(x)
    design = np.zeros(len(mean), dtype=np.int64) if design is None else design
    exposure = mean.sum(1)
    row = np.repeat(np.arange(len(mean)), np.diff(x.indptr))
    theirs = np.moveaxis(others, 1, 2)[design[row], x.indices]  # (entries, states)
    theirs *= (exposure[row] / np.maximum(mean[row, x.indices], 1e-20))[:, None]
    worth = (x.data * weight[row, x.indices])[:, None]
    seen = np.flatnonzero(np.diff(x.indptr))  # reduceat has no word for rows without entries
    states = others.shape[1]
    less = np.empty((len(mean), states))  # sum weight (L rho - m): what is expected and may be missing
    for d in np.unique(design):
        here = design == d
        less[here] = exposure[here, None] * (weight[here] @ others[d].T)
    less -= (weight * mean).sum(1, keepdims=True)
    best = Gain(np.zeros(len(mean)), np.zeros(len(mean), dtype=np.int64), np.zeros(len(mean)))
    for s in PARTS:
        found = -s * less
        log_ratio = np.log(s * theirs + (1 - s))
        found[seen] += np.add.reduceat(worth * log_ratio, x.indptr[seen], axis=0)
        state = found.argmax(1)
        value = found[np.arange(len(mean)), state]
        better = value > best.gain
        best = Gain(*(np.where(better, new, old) for new, old in zip((value, state, s), best, strict=True)))
    return best


def partners(
    groups: np.ndarray, strata: np.ndarray, size: int, *, alike: bool = False, seed: int = 0
) -> Int[np.ndarray, "size 2"]:
    """Pairs of observations, the rows of the cells of a droplet.

    Args:
        groups: Kind of each observation; one without a kind, None, is in no pair.
        strata: Only observations of one stratum (batch, lane) share a droplet.
        size: Pairs, drawn with replacement.
        alike: Whether both are of one kind, instead of two.
        seed: Of the draws.

    Raises:
        InputError: No two observations of one stratum are of two kinds (or of one).
    """
    kind, stratum = codes(groups, len(groups), gaps=True), codes(strata, len(groups))
    named = np.flatnonzero(kind >= 0)
    kind, stratum = kind[named], stratum[named]
    order = np.argsort(stratum, kind="stable")
    count = np.bincount(stratum)
    start = np.cumsum(count) - count
    rng = np.random.default_rng(seed)
    found: list[np.ndarray] = []
    for _ in range(TRIES):
        one = rng.integers(len(named), size=2 * size)
        other = order[start[stratum[one]] + rng.integers(count[stratum[one]])]
        fits = ((kind[one] == kind[other]) == alike) & (one != other)
        found.append(named[np.column_stack([one, other])[fits]])
        if sum(map(len, found)) >= size:
            return np.concatenate(found)[:size]
    if not sum(map(len, found)):
        wanted = "one kind" if alike else "two kinds"
        raise InputError(
            f"expected observations of {wanted} that could share a droplet, found none among {kind.max() + 1} groups "
            f"in {stratum.max() + 1} batches: name other groups."
        )
    pairs = np.concatenate(found)
    return pairs[rng.integers(len(pairs), size=size)]


def neighbour_share(
    observed: Float[np.ndarray, "obs dimensions"],
    simulated: Float[np.ndarray, "doublets dimensions"],
    at: Float[np.ndarray, "points dimensions"] | None = None,
    k: int = K,
) -> Float[np.ndarray, "points"]:
    """The density of simulated among observed and simulated neighbours, (their number + 1) / (k + 2), as if as many.

    Args:
        observed: Positions, in any space: z, or principal components.
        simulated: Those of simulated doublets.
        at: Where to ask; by default at the observed and then at the simulated, each not its own neighbour.
        k: Neighbours, where there are as many simulated as observed; more where there are more.
    """
    observed, simulated = finite(observed), finite(simulated)
    ratio = len(simulated) / len(observed)
    both = np.concatenate([observed, simulated])
    most = max(1, min(round(k * (1 + ratio) / 2), len(both) - 1))
    among = Search(both)
    index, _ = among.others(most) if at is None else among.at(at, most)
    share = ((index >= len(observed)).sum(1) + 1) / (most + 2)
    return share / (share + ratio * (1 - share))


def contamination(observed: Float[np.ndarray, "obs"], simulated: Float[np.ndarray, "doublets"]) -> Contamination:
    """How many of the observed are doublets, and which, from the scores of simulated ones.

    With S(t) the share of scores of at least t: S_observed = (1 - pi) S_single + pi S_simulated, so that pi is at most
    S_observed / S_simulated at every t; its smallest value is the estimate, from thresholds that half of the simulated
    exceed: the oddest of them are odder than real ones, which the model was trained on. False calls at t are then
    1 - pi S_simulated / S_observed. pi is too large where single cells score as high as doublets, and leaves out those
    doublets that are not like the simulated ones.

    Source: Blanchard, Lee and Scott 2010, JMLR 11:2973 (mixture proportion); Storey 2002, doi:10.1111/1467-9868.00346.
    """
    reach = _share_above(simulated, simulated)
    ratio = _share_above(observed, simulated) / reach
    share = float(np.clip(ratio[reach >= REACH].min(), 0, 1))
    all_of, doublets = _share_above(observed, observed), share * _share_above(simulated, observed)
    order = np.argsort(-observed, kind="stable")
    p, false = np.empty(len(observed)), np.empty(len(observed))
    single = np.clip((all_of - doublets) / max(1 - share, 1e-12), 1 / (1 + len(observed)), 1)
    p[order] = np.maximum.accumulate(single[order])  # a higher score is never worth less
    false[order] = np.minimum.accumulate(np.clip(1 - doublets / all_of, 0, 1)[order][::-1])[::-1]
    return Contamination(share, p, false)


def separation(positive: Float[np.ndarray, "some"], negative: Float[np.ndarray, "others"]) -> float:
    """P(a positive scores higher than a negative), ties counted by half: the area under the ROC curve.

    >>> separation(np.array([1.0, 3.0]), np.array([0.0, 1.0]))
    0.875
    """
    below = np.searchsorted(np.sort(negative), positive, side="left")
    upto = np.searchsorted(np.sort(negative), positive, side="right")
    return float((below + upto).mean() / (2 * len(negative)))


def _share_above(values: np.ndarray, at: np.ndarray) -> np.ndarray:
    """Share of the values of at least each `at`, of one more than there are, so that none is 0."""
    return (1 + len(values) - np.searchsorted(np.sort(values), at, side="left")) / (1 + len(values))


def by_components(
    observed: scipy.sparse.csr_array, made: scipy.sparse.csr_array, trial: scipy.sparse.csr_array, seed: int = 0
) -> tuple[pd.DataFrame, pd.DataFrame]:
    """What needs no model: scores of the observed and of the trial droplets on 30 principal components of log counts.

    Args:
        observed: Counts of real droplets, to which the components are fitted.
        made: Of simulated doublets, among which neighbours are counted.
        trial: Of droplets to score beside the observed.
        seed: Of the components.

    Returns:
        Two frames with the columns `neighbours on components` (Scrublet's score, up to a monotone map) and
        `residual of components` (squared distance from the span of the components).
    """
    y = log_normalise(scipy.sparse.vstack([observed, made, trial], format="csr"))
    ends = np.cumsum([observed.shape[0], made.shape[0]])
    base = pca(y, COMPONENTS, seed, np.arange(y.shape[0]) < ends[0])
    ours, theirs, asked = np.split(base.scores, ends)
    near = neighbour_share(ours, theirs)[: ends[0]], neighbour_share(ours, theirs, asked)
    norm = np.asarray(y.power(2).sum(1)).ravel() - 2 * (y @ base.mean) + base.mean @ base.mean
    residual = norm - (base.scores**2).sum(1)
    frames = [
        pd.DataFrame({NEIGHBOURS: share, RESIDUAL: left})
        for share, left in zip(near, (residual[: ends[0]], residual[ends[1] :]), strict=True)
    ]
    return frames[0], frames[1]
