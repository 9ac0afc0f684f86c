"""How features change along the branches of a trajectory: smooth curves with intervals.

    y   values, (obs, features), for example log1p of counts per 10,000
    t   pseudotime, (obs,)
    w   weight of an observation on a branch, (obs,): 1 before the fork, its fate relative to the root's, at most 1
    B   cubic splines of t, (obs, splines)

A curve is B a with a = argmin sum w (y - B a)**2 + penalty |second differences of a|**2; the penalty is chosen for each
feature by generalised cross-validation. Intervals come from refits under random weights (the Bayesian bootstrap), each
with the pseudotime and fates of another posterior draw where there are any, so that they hold both kinds of doubt.

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
COLUMNS = ("branch", "feature", "pseudotime", "mean", "lower", "upper")


class _Normal(NamedTuple):
    """The normal equations of one branch: B'WB, B'WY, Y'WY, and the total weight."""

    gram: Float[np.ndarray, "splines splines"]
    right: Float[np.ndarray, "splines features"]
    square: Float[np.ndarray, "features"]
    total: float


def trends(
    y: scipy.sparse.csr_array | np.ndarray, features: Sequence[str], found: Trajectory, *, seed: int = 0
) -> pd.DataFrame:
    """Smooth curves of features along every branch, with 90 % intervals.

    Args:
        y: Values, on a scale on which means make sense.
        features: Names of the columns.
        found: Of the same observations, in the same order.
        seed: Of the random weights.

    Returns:
        A row per branch, feature and place: columns `branch`, `feature`, `pseudotime`, `mean`, `lower`, `upper`. A
        branch begins at the root and reaches to the latest 1 % of its observations.

    Raises:
        InputError: Observations or features differ in number.
    """
    if y.shape != (len(found.pseudotime), len(features)):
        raise InputError(
            f"expected values of shape {(len(found.pseudotime), len(features))}, found {y.shape}: pass the "
            "observations of the trajectory, and a name for each column."
        )
    rng = np.random.default_rng(seed)
    frames = []
    for number, name in enumerate(found.ends.index):
        end = float(np.quantile(found.pseudotime[found.branch == name], 0.99))
        places = np.linspace(0, end, POINTS)
        at = _splines(places, end).toarray()
        normal = _normal(y, found.pseudotime, _weights(found.fates.to_numpy()[:, number], found.root), end)
        penalty = _penalties(normal)
        curves = [at @ _solve(_normal(y, t, w, end), penalty) for t, w in _repeats(found, number, rng)]
        lower, upper = limits(np.stack(curves))
        mean = at @ _solve(normal, penalty)
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
        place clears that at the lowest; below 0 the change may be none.
    """
    rows = []
    for (branch, feature), part in frame.groupby(["branch", "feature"], sort=False):
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
    table = pd.DataFrame(rows)
    return table.sort_values("margin", ascending=False, kind="stable", ignore_index=True)


def most_changing(
    y: scipy.sparse.csr_array | np.ndarray, features: Sequence[str], found: Trajectory, count: int
) -> list[str]:
    """The features of which pseudotime explains the largest share of the variance on any branch, best first."""
    best = np.zeros(len(features))
    for number, name in enumerate(found.ends.index):
        end = float(np.quantile(found.pseudotime[found.branch == name], 0.99))
        normal = _normal(y, found.pseudotime, _weights(found.fates.to_numpy()[:, number], found.root), end)
        a = _solve(normal, _penalties(normal))
        mean = normal.right.sum(0) / normal.total  # splines sum to 1
        whole = np.maximum(normal.square - normal.total * mean**2, np.finfo(np.float64).tiny)
        residual = normal.square - 2 * (a * normal.right).sum(0) + (a * (normal.gram @ a)).sum(0)
        best = np.maximum(best, 1 - residual / whole)
    return [str(features[i]) for i in np.argsort(-best, kind="stable")[:count]]


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
    start = max(float(fate[root].mean()), np.finfo(np.float32).tiny)
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


def _penalties(normal: _Normal) -> Float[np.ndarray, "features"]:
    """For each feature the penalty with the least (residual / total) / (1 - degrees of freedom / total)**2."""
    scores = []
    for penalty in PENALTIES:
        system = normal.gram + _roughness(penalty * normal.total) + 1e-9 * normal.total * np.eye(SPLINES)
        a = np.linalg.solve(system, normal.right)
        free = np.trace(np.linalg.solve(system, normal.gram))
        residual = normal.square - 2 * (a * normal.right).sum(0) + (a * (normal.gram @ a)).sum(0)
        scores.append(residual / (1 - free / max(normal.total, free + 1)) ** 2)
    return PENALTIES[np.argmin(scores, axis=0)]


def _solve(normal: _Normal, penalty: np.ndarray) -> Float[np.ndarray, "splines features"]:
    out = np.empty_like(normal.right)
    for value in np.unique(penalty):
        system = normal.gram + _roughness(value * normal.total) + 1e-9 * normal.total * np.eye(SPLINES)
        out[:, penalty == value] = np.linalg.solve(system, normal.right[:, penalty == value])
    return out
