"""How features change along the branches of a trajectory: smooth curves with intervals.

    y   values, (obs, features), for example log1p of counts per 10,000
    t   pseudotime, (obs,)
    w   weight of an observation on a branch, (obs,): 1 before the fork, its fate relative to the root's, at most 1
    B   cubic splines of t, (obs, splines)

A curve is B a with a = argmin sum w (y - B a)**2 + penalty |second differences of a|**2; the penalty is chosen for each
feature by generalised cross-validation. Intervals come from refits under random weights (the Bayesian bootstrap), each
with the pseudotime and fates of another posterior draw where there are any, so that they hold both kinds of doubt.
Where a branch has hardly an observation there is no curve, and what hardly an observation expresses is never chosen.

Source: Eilers and Marx 1996, doi:10.1214/ss/1038425655 (penalised splines); Rubin 1981, doi:10.1214/aos/1176345338.
"""

from collections.abc import Iterator, Sequence
from typing import NamedTuple

import numpy as np
import pandas as pd
import scipy.sparse
from jaxtyping import Float
from scipy.interpolate import BSpline

from biovae.analysis.limits import limits
from biovae.analysis.trajectories.trajectory import Trajectory
from biovae.errors import InputError

SPLINES, DEGREE = 12, 3
PENALTIES = 10.0 ** np.arange(-4, 5)  # per unit of weight
POINTS = 50
REPEATS = 200
NEAR = 3.0  # observations, by weight, within a spline's knot of a place: with fewer there is no curve
FEWEST = 10.0  # observations of a branch, by weight, that express a feature: with fewer it is not chosen
NOTHING = 1e-9  # of the sum of squares: a variance that rounding can make
UNREACHED = 1e-9  # a fate of the root's below it is rounding: no way leads there
UNBOUNDED = (-np.inf, np.inf)
COLUMNS = ("branch", "feature", "pseudotime", "mean", "lower", "upper")
CHANGES = ("branch", "feature", "start", "finish", "low", "high", "switch", "margin")


class _Normal(NamedTuple):
    """The normal equations of one branch: B'WB, B'WY, Y'WY, and the total weight."""

    gram: Float[np.ndarray, "splines splines"]
    right: Float[np.ndarray, "splines features"]
    square: Float[np.ndarray, "features"]
    total: float


def trends(
    y: scipy.sparse.csr_array | np.ndarray,
    features: Sequence[str],
    found: Trajectory,
    *,
    bounds: tuple[float, float] = UNBOUNDED,
    seed: int = 0,
) -> pd.DataFrame:
    """Smooth curves of features along every branch, with 90 % intervals.

    Args:
        y: Values, on a scale on which means make sense.
        features: Names of the columns.
        found: Of the same observations, in the same order.
        bounds: The least and the largest value that y can have; curves and intervals keep to them, and to the
            values that each feature was seen to have: beside a gap they would run off.
        seed: Of the random weights.

    Returns:
        A row per branch, feature and place: columns `branch`, `feature`, `pseudotime`, `mean`, `lower`, `upper`. A
        branch begins at the root and reaches to the latest 1 % of its observations. Values are NaN where fewer than 3
        of its observations, by weight, lie within a ninth of its length: there is nothing to see there.

    Raises:
        InputError: Observations or features differ in number.
    """
    _expect_shape(y, features, found)
    rng = np.random.default_rng(seed)
    least, most = _range(y, bounds)
    frames = []
    for number, name in enumerate(found.ends.index):
        places, curves = _curves(y, found, number, rng)
        mean, lower, upper = np.clip(curves, least, most)
        columns = [name, np.repeat(features, POINTS), np.tile(places, len(features)), mean.T.ravel()]
        columns += [lower.T.ravel(), upper.T.ravel()]
        frames.append(pd.DataFrame(dict(zip(COLUMNS, columns, strict=True))))
    return pd.concat(frames, ignore_index=True)


def changes(frame: pd.DataFrame) -> pd.DataFrame:
    """What each feature does on each branch, the surest and largest changes first.

    Args:
        frame: Of `trends`.

    Returns:
        A row per branch and feature: `start` and `finish` (means at both ends of the branch), `low` and `high` (its
        extremes), `switch` (pseudotime of the steepest place), and `margin`: by how much the interval at the highest
        place clears that at the lowest; below 0 the change may be none. A curve counts where it is there; one that is
        there at fewer than two places has no row.
    """
    rows = []
    for (branch, feature), part in frame.dropna(subset="mean").groupby(["branch", "feature"], sort=False):
        if len(part) < 2:
            continue
        mean, t = part["mean"].to_numpy(), part["pseudotime"].to_numpy()
        top, bottom = int(mean.argmax()), int(mean.argmin())
        steepest = int(np.abs(np.diff(mean)).argmax())
        rows.append(
            {
                "branch": branch,
                "feature": feature,
                "start": mean[0],
                "finish": mean[-1],
                "low": mean[bottom],
                "high": mean[top],
                "switch": (t[steepest] + t[steepest + 1]) / 2,
                "margin": part["lower"].to_numpy()[top] - part["upper"].to_numpy()[bottom],
            }
        )
    table = pd.DataFrame(rows, columns=CHANGES)
    return table.sort_values("margin", ascending=False, kind="stable", ignore_index=True)


def most_changing(
    y: scipy.sparse.csr_array | np.ndarray,
    features: Sequence[str],
    found: Trajectory,
    count: int,
    *,
    bounds: tuple[float, float] = UNBOUNDED,
) -> list[str]:
    """The features of which pseudotime explains the largest share of the variance on any branch, best first.

    Args:
        y: Values, on a scale on which means make sense.
        features: Names of the columns.
        found: Of the same observations, in the same order.
        count: Features at most; those of which pseudotime explains nothing are left out.
        bounds: Of the values. Where the least is 0, at least 10 observations of the branch, by weight, must have more.

    Raises:
        InputError: Observations or features differ in number.
    """
    _expect_shape(y, features, found)
    best = np.zeros(len(features))
    for number in range(len(found.ends)):
        w = _weights(found.fates.to_numpy()[:, number], found.root)
        if w.sum() >= FEWEST:
            explained = _explained(_normal(y, found.pseudotime, w, _end(found, number)))
            enough = w @ (y > 0) >= FEWEST if bounds[0] == 0 else True
            best = np.maximum(best, np.where(enough, explained, 0))
    order = np.argsort(-best, kind="stable")[:count]
    return [str(features[i]) for i in order if best[i] > 0]


def _range(
    y: scipy.sparse.csr_array | np.ndarray, bounds: tuple[float, float]
) -> tuple[Float[np.ndarray, "features"], Float[np.ndarray, "features"]]:
    """The least and the largest value of each feature, within the bounds."""
    if scipy.sparse.issparse(y):
        least, most = (np.asarray(extreme.todense()).ravel() for extreme in (y.min(axis=0), y.max(axis=0)))
    else:
        least, most = np.min(y, axis=0), np.max(y, axis=0)
    return np.clip(least, *bounds), np.clip(most, *bounds)


def _expect_shape(y: scipy.sparse.csr_array | np.ndarray, features: Sequence[str], found: Trajectory) -> None:
    expected = (len(found.pseudotime), len(features))
    if y.shape != expected:
        raise InputError(
            f"expected values of shape {expected}, found {y.shape}: pass the observations of the trajectory, and a "
            "name for each column."
        )


def _curves(
    y: scipy.sparse.csr_array | np.ndarray, found: Trajectory, number: int, rng: np.random.Generator
) -> tuple[Float[np.ndarray, "points"], Float[np.ndarray, "3 points features"]]:
    """Places along a branch, and mean, lower and upper there: NaN where the branch has hardly an observation."""
    end = _end(found, number)
    places, w = np.linspace(0, end, POINTS), _weights(found.fates.to_numpy()[:, number], found.root)
    seen = _near(found.pseudotime, w, places, end / (SPLINES - DEGREE)) >= NEAR
    curves = np.full((3, POINTS, y.shape[1]), np.nan)
    if seen.any():
        at = _splines(places[seen], end).toarray()
        normal = _normal(y, found.pseudotime, w, end)
        penalty = _penalties(normal)
        refits = [at @ _solve(_normal(y, t, v, end), penalty) for t, v in _repeats(found, number, rng)]
        curves[0, seen], curves[1:, seen] = at @ _solve(normal, penalty), limits(np.stack(refits))
    return places, curves


def _end(found: Trajectory, number: int) -> float:
    """Where a branch ends: t of its latest 1 %."""
    own = (found.branch == found.ends.index[number]) | (found.absorbing == number)
    return float(np.quantile(found.pseudotime[own], 0.99))


def _near(t: np.ndarray, w: np.ndarray, places: np.ndarray, reach: float) -> Float[np.ndarray, "points"]:
    """Weight of the observations that lie within reach of a place."""
    order = np.argsort(t)
    before = np.concatenate([[0.0], np.cumsum(w[order])])
    first = np.searchsorted(t[order], places - reach, "left")
    last = np.searchsorted(t[order], places + reach, "right")
    return before[last] - before[first]


def _explained(normal: _Normal) -> Float[np.ndarray, "features"]:
    """Share of the variance that the curves explain; 0 where there is none to explain."""
    mean = normal.right.sum(0) / normal.total  # splines sum to 1
    whole = normal.square - normal.total * mean**2
    varies = whole > NOTHING * normal.square
    left = _residual(normal, _solve(normal, _penalties(normal)))
    return np.where(varies, 1 - left / np.where(varies, whole, 1), 0)


def _repeats(found: Trajectory, number: int, rng: np.random.Generator) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Pseudotime and weights of every refit."""
    for repeat in range(REPEATS):
        if len(found.draws):
            draw = repeat % len(found.draws)
            t, fate = found.draws[draw].astype(np.float64), found.draw_fates[draw, :, number].astype(np.float64)
        else:
            t, fate = found.pseudotime, found.fates.to_numpy()[:, number]
        yield t, _weights(fate, found.root) * rng.exponential(size=len(t))


def _weights(fate: np.ndarray, root: np.ndarray) -> Float[np.ndarray, "obs"]:
    start = max(float(fate[root].mean()), UNREACHED)
    return np.minimum(fate / start, 1)


def _splines(t: np.ndarray, end: float) -> scipy.sparse.csr_array:
    """Cubic B-splines at equal distances over [0, end]."""
    knots = end * (np.arange(-DEGREE, SPLINES + 1) / (SPLINES - DEGREE))  # in this order one knot is the end to the bit
    return scipy.sparse.csr_array(BSpline.design_matrix(np.clip(t, 0, end), knots, DEGREE))


def _normal(y: scipy.sparse.csr_array | np.ndarray, t: np.ndarray, w: np.ndarray, end: float) -> _Normal:
    w = np.where(t <= end, w, 0.0)
    basis = _splines(t, end)
    weighted = scipy.sparse.csr_array(basis * w[:, None])
    right = weighted.T @ y
    squares = w @ y.power(2) if isinstance(y, scipy.sparse.csr_array) else w @ np.square(y)
    dense = right.toarray() if scipy.sparse.issparse(right) else np.asarray(right)
    return _Normal((weighted.T @ basis).toarray(), dense, np.asarray(squares).ravel(), float(w.sum()))


def _roughness(weight: float) -> Float[np.ndarray, "splines splines"]:
    second = np.diff(np.eye(SPLINES), n=2, axis=0)
    return weight * second.T @ second


def _system(normal: _Normal, penalty: float) -> Float[np.ndarray, "splines splines"]:
    ridge = 1e-9 * max(normal.total, 1)  # solvable even where a draw leaves the branch without weight
    return normal.gram + _roughness(penalty * normal.total) + ridge * np.eye(SPLINES)


def _residual(normal: _Normal, a: Float[np.ndarray, "splines features"]) -> Float[np.ndarray, "features"]:
    return normal.square - 2 * (a * normal.right).sum(0) + (a * (normal.gram @ a)).sum(0)


def _penalties(normal: _Normal) -> Float[np.ndarray, "features"]:
    """For each feature the penalty with the least (residual / total) / (1 - degrees of freedom / total)**2."""
    scores = []
    for penalty in PENALTIES:
        system = _system(normal, penalty)
        a = np.linalg.solve(system, normal.right)
        free = np.trace(np.linalg.solve(system, normal.gram))
        scores.append(_residual(normal, a) / (1 - free / max(normal.total, free + 1)) ** 2)
    return PENALTIES[np.argmin(scores, axis=0)]


def _solve(normal: _Normal, penalty: np.ndarray) -> Float[np.ndarray, "splines features"]:
    out = np.empty_like(normal.right)
    for value in np.unique(penalty):
        out[:, penalty == value] = np.linalg.solve(_system(normal, value), normal.right[:, penalty == value])
    return out
