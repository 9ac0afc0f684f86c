"""Archetypes: the corners between which observations lie, each a mixture of them.

    Z   positions, (obs, latent)
    S   shares of observations in an archetype, rows sum to 1      (archetypes, obs)
    X = S Z, the archetypes, inside the cloud or on its edge       (archetypes, latent)
    A   shares of archetypes in an observation, rows sum to 1      (obs, archetypes)

    v   variances of the posteriors, mean over dimensions          (obs,)
    w = 1 / (v + median of v), what an observation counts; 1 where v is not known

    min over A, S of sum_i w_i |z_i - a_i X|^2

Where cells are mixtures of a few pure states the archetypes are those states; where they are not, no weight means much:
look at what is left unexplained. Corners are sought among means of neighbourhoods, since a lone outlier is none. Those
of whom few counts are known lie far out, and are not sure to: unweighted they take a corner from the states. Both
factors move down their gradients with momentum and are put back on the simplex.

Source: Cutler and Breiman 1994, doi:10.1080/00401706.1994.10485840; Mørup and Hansen 2012,
doi:10.1016/j.neucom.2011.06.033 (start and gradients); Duchi et al. 2008, doi:10.1145/1390156.1390191 (projection).
"""

from collections.abc import Callable, Iterable
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float, Int
from scipy.optimize import linear_sum_assignment
from scipy.spatial.distance import cdist

from biovae.analysis.neighbourhoods.neighbours import nearest
from biovae.analysis.neighbourhoods.positions import finite
from biovae.errors import InputError

Slope = Callable[[np.ndarray], np.ndarray]

NEIGHBOURS = 10
MOST = 2000  # observations that archetypes are made of; the weights are those of all
STARTS, TRIED = 5, 15  # how many, and rounds after which the best one is taken
ROUNDS, STEPS = 100, 10  # alternations at most, and steps down the gradient in each
LITTLE = 0.4  # share of the variance of z below which observations are no mixtures of the corners
SETTLED = 1e-3  # share of the unexplained by which a round must still lower it


@dataclass(frozen=True)
class Archetypes:
    """The corners of a cloud, the most common one first.

    Attributes:
        positions: (archetypes, latent).
        weights: Shares of the archetypes in each observation, (obs, archetypes).
        deviation: Standard deviation of the weights over draws of z; NaN without draws.
        explained: Share of the variance of z that mixtures of archetypes explain.
        nearest: The observation nearest to each archetype.
    """

    positions: Float[np.ndarray, "archetypes latent"]
    weights: Float[np.ndarray, "obs archetypes"]
    deviation: Float[np.ndarray, "obs archetypes"]
    explained: float
    nearest: Int[np.ndarray, "archetypes"]

    def __str__(self) -> str:
        """How much they explain, and how sure the weights are."""
        said = f"{len(self.positions)} archetypes explain {self.explained:.0%} of the variance of z"
        if self.explained < LITTLE:
            said += ", so little that they are extremes rather than pure states"
        if np.isnan(self.deviation).all():
            return f"{said}."
        return f"{said}; over draws of z weights have a standard deviation of {self.deviation.mean():.2f}."


def archetypes(
    z: Float[np.ndarray, "obs latent"],
    count: int,
    draws: Iterable[Float[np.ndarray, "obs latent"]] = (),
    seed: int = 0,
    *,
    variance: Float[np.ndarray, "obs latent"] | None = None,
    neighbours: int = NEIGHBOURS,
) -> Archetypes:
    """Find the corners between which observations lie, and how much of each is in every observation.

    Args:
        z: Positions.
        count: How many archetypes.
        draws: Samples of z, for the doubt about weights.
        seed: Of the start, and of the observations that archetypes are made of, above 2,000.
        variance: Of the posteriors: who is less sure counts less. None counts all alike.
        neighbours: Corners are sought among means of so many neighbours; 1 takes observations as they are.

    Raises:
        InputError: Fewer than two archetypes, or as many as observations; variances that are not those of z, or not
            above 0.
    """
    z = finite(z)
    w = _counted(z, variance)
    if not 2 <= count < len(z):
        raise InputError(f"expected 2 archetypes or more, and fewer than observations ({len(z):,}), found {count}.")
    rng = np.random.default_rng(seed)
    rows = np.sort(rng.permutation(len(z))[:MOST])
    near = np.arange(len(rows))[:, None]
    if neighbours > 1:
        near = np.column_stack([near, nearest(z[rows], neighbours - 1)[0]])
    w = w[rows][near]
    smooth, own = _smooth(z[rows], near, w), w.mean(1)
    starts = [_at(_furthest(smooth, count, first, own), len(rows)) for first in rng.integers(len(rows), size=STARTS)]
    best, _ = min((_corners(smooth, start, own, TRIED) for start in starts), key=lambda found: found[1])
    s, _ = _corners(smooth, best, own)
    weights = shares(z, s @ smooth)
    order = np.argsort(-weights.mean(0), kind="stable")
    positions, weights, s = s[order] @ smooth, weights[:, order], s[order]
    again = []
    for draw in draws:
        smooth = _smooth(draw[rows], near, w)
        again.append(shares(draw, _corners(smooth, s, own)[0] @ smooth))
    rest = np.square(z - weights @ positions).sum() / max(np.square(z - z.mean(0)).sum(), np.finfo(np.float64).tiny)
    deviation = np.std(again, axis=0) if again else np.full(weights.shape, np.nan)
    return Archetypes(positions, weights, deviation, float(1 - rest), cdist(positions, z).argmin(1))


def _counted(z: np.ndarray, variance: np.ndarray | None) -> Float[np.ndarray, "obs"]:
    """w, of mean 1."""
    if variance is None:
        return np.ones(len(z))
    v = np.asarray(variance, dtype=np.float64)
    if v.shape != z.shape or not (np.isfinite(v) & (v > 0)).all():
        raise InputError(
            f"expected a variance above 0 for each of {z.shape} positions, found {v.shape} with smallest "
            f"{v.min(initial=np.inf):g}: pass those of vae.moments(adata), or none."
        )
    mean = v.mean(1)
    w = 1 / (mean + np.median(mean))
    return w / w.mean()


def _smooth(z: np.ndarray, near: np.ndarray, w: np.ndarray) -> Float[np.ndarray, "obs latent"]:
    """Means of neighbourhoods, the surer neighbours counting more."""
    return np.einsum("nk,nkl->nl", w, z[near]) / w.sum(1, keepdims=True)


def found_again(
    weights: Float[np.ndarray, "obs archetypes"], other: Float[np.ndarray, "obs archetypes"]
) -> Float[np.ndarray, "archetypes"]:
    """How each archetype correlates, over observations, with the one that another fit has in its place.

    Archetypes of two fits are paired so that the sum of the correlations is as large as can be.

    Source: Kuhn 1955, doi:10.1002/nav.3800020109 (assignment).
    """
    count = weights.shape[1]
    with np.errstate(invalid="ignore", divide="ignore"):
        r = np.corrcoef(weights, other, rowvar=False)[:count, count:]
    r = np.nan_to_num(r)  # what is nowhere mixed in correlates with nothing
    rows, columns = linear_sum_assignment(-r)
    return r[rows, columns]


def shares(
    z: Float[np.ndarray, "obs latent"], positions: Float[np.ndarray, "archetypes latent"]
) -> Float[np.ndarray, "obs archetypes"]:
    """The mixture of archetypes nearest to each observation: A, rows at least 0 that sum to 1."""
    even = np.full((len(z), len(positions)), 1 / len(positions))
    return _descend(even, *_slope_of_a(np.asarray(z, dtype=np.float64), positions), 3 * ROUNDS)


def _at(rows: np.ndarray, size: int) -> np.ndarray:
    """S of archetypes that are observations."""
    s = np.zeros((len(rows), size))
    s[np.arange(len(rows)), rows] = 1
    return s


def _corners(
    z: np.ndarray, s: np.ndarray, w: np.ndarray, rounds: int = ROUNDS
) -> tuple[Float[np.ndarray, "archetypes obs"], float]:
    """S, from one to start with, and the squares that it leaves."""
    z = np.asarray(z, dtype=np.float64)
    z = z - np.average(z, axis=0, weights=w)
    a, before, left = np.full((len(z), len(s)), 1 / len(s)), np.inf, np.inf
    for _ in range(rounds):
        a = _descend(a, *_slope_of_a(z, s @ z), STEPS)
        s = _descend(s, *_slope_of_s(z, a, w), STEPS)
        left = float(w @ np.square(z - a @ (s @ z)).sum(1))
        if before - left < SETTLED * before:
            break
        before = left
    return s, left


def _slope_of_a(z: np.ndarray, x: np.ndarray) -> tuple[Slope, float]:
    """A X X' - Z X', and its steepest change."""
    inner, target = x @ x.T, z @ x.T
    return lambda a: a @ inner - target, float(np.linalg.norm(inner, 2))


def _slope_of_s(z: np.ndarray, a: np.ndarray, w: np.ndarray) -> tuple[Slope, float]:
    """A' W (A S Z - Z) Z', and its steepest change."""
    inner, target = (a.T * w) @ a, (a.T * w) @ z
    return lambda s: (inner @ (s @ z) - target) @ z.T, float(np.linalg.norm(inner, 2) * np.linalg.norm(z, 2) ** 2)


def _descend(shares: np.ndarray, slope: Slope, steepest: float, steps: int) -> Float[np.ndarray, "rows parts"]:
    """Down the slope of half the squares, with momentum and back onto the simplex.

    Source: Beck and Teboulle 2009, doi:10.1137/080716542.
    """
    ahead, pace = shares, 1.0
    for _ in range(steps):
        moved = _simplex(ahead - slope(ahead) / max(steepest, np.finfo(np.float64).tiny))
        faster = (1 + np.sqrt(1 + 4 * pace**2)) / 2
        ahead = moved + (pace - 1) / faster * (moved - shares)
        shares, pace = moved, faster
    return shares


def _simplex(v: Float[np.ndarray, "rows parts"]) -> Float[np.ndarray, "rows parts"]:
    """The nearest row that is at least 0 and sums to 1.

    >>> _simplex(np.array([[0.5, 0.7], [3.0, -1.0]])).round(2).tolist()
    [[0.4, 0.6], [1.0, 0.0]]
    """
    ordered = -np.sort(-v, axis=1)
    over = (np.cumsum(ordered, axis=1) - 1) / np.arange(1, v.shape[1] + 1)
    last = (ordered > over).sum(1) - 1
    return np.maximum(v - over[np.arange(len(v)), last][:, None], 0)


def _furthest(z: np.ndarray, count: int, first: int, w: np.ndarray) -> Int[np.ndarray, "archetypes"]:
    """Observations far from each other: each next one has the largest sum of distances; the first is given up."""
    counted = np.sqrt(w)  # as in the squares that are left

    def apart(row: int) -> np.ndarray:
        return counted * np.linalg.norm(z - z[row], axis=1)

    chosen, total = [first], apart(first)
    for turn in range(count):
        if turn == count - 1:
            total = total - apart(chosen.pop(0))
        free = np.where(np.isin(np.arange(len(z)), chosen), -np.inf, total)
        chosen.append(int(free.argmax()))
        total = total + apart(chosen[-1])
    return np.array(chosen)
