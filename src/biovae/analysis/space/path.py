"""Ways from one state to another: straight in z, or along what the decoder makes of z and where the data are.

    f(z)     decoded features in which lengths are measured, (points, features)
    J        derivative of f, (features, latent);  J'J is the pull-back metric: a step dz is as long as f moves
    w(z)     1 + penalty * max(0, log q_low - log q(z)): what a stretch costs outside the support, log q_low being the
             density that one real observation in twenty falls below
    E        sum_t w(z_t+1/2)^2 |f(z_t+1) - f(z_t)|^2 * steps, the discrete energy of a curve; its minimum is a geodesic
    curve    points in order, (steps, latent)

A geodesic starts as the shortest way in the neighbour graph of the observations, edges measured by f and w, and is then
refined as a cubic spline whose knots move down the gradient of E. Straight lines are short in z and may run through
holes; geodesics run where the data are, unless there is no way around.

With f = 2 sqrt(mean counts) a length is one in the Fisher metric of Poisson counts: in standard deviations of the
counts. The length of the shortest curve is a distance between states.

Source: Arvanitidis, Hansen and Hauberg 2018, arXiv:1710.11379; Yang, Arvanitidis, Fu, Li and Hauberg 2018,
arXiv:1809.04747 (discrete spline energy); Arvanitidis et al. 2022, arXiv:2106.05367 (pulling back Fisher's metric).
"""

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from functools import cached_property
from itertools import combinations
from typing import NamedTuple

import numpy as np
import scipy.optimize
from jaxtyping import Float, Int
from scipy.interpolate import make_interp_spline
from scipy.spatial.distance import cdist

from biovae.analysis.neighbourhoods.positions import finite
from biovae.analysis.space.density import LEVEL, Density
from biovae.analysis.space.route import edges, equal_steps, shortest, way
from biovae.errors import InputError

Features = Callable[[Float[np.ndarray, "points latent"]], Float[np.ndarray, "points features"]]
Pull = Callable[[Float[np.ndarray, "points features"]], Float[np.ndarray, "points latent"]]
Lift = Callable[[Float[np.ndarray, "points latent"]], tuple[Float[np.ndarray, "points features"], Pull]]

STEPS = 41  # points of a curve
KNOTS = 8  # of the spline, ends included
K = 10  # neighbours in the graph
NODES = 1500  # observations in it
ELEMENTS = 2**22  # differences of features held at once
DIFFERENCE = 1e-2  # step of the numerical derivative, of the width of a kernel
ITERATIONS = 60  # of L-BFGS, or until the energy falls by less than this share: lengths are then off by 1 in 2,000
FALL = 1e-5
PENALTY = 0.5  # per nat outside the support


@dataclass(frozen=True)
class Metric:
    """Lengths by f, dearer outside the support of q.

    Attributes:
        f: The features in which lengths are measured.
        q: The density; None, or a penalty of 0, leaves it out.
        penalty: Per nat below log q_low.
        lift: f(z) of points, and what pulls vectors (points, features) back: v to J(z)' v. None takes differences of f,
            at 2 latent + 1 times the cost of f. Its f may hold more features than `f` does, such as those by which
            decoders differ: they count in the energy, and not in lengths.
    """

    f: Features
    q: Density | None = None
    penalty: float = PENALTY
    lift: Lift | None = None

    def cost(self, z: Float[np.ndarray, "points latent"]) -> Float[np.ndarray, "points"]:
        """w(z) = 1 + penalty * max(0, log q_low - log q(z))."""
        if self.q is None or self.penalty == 0:
            return np.ones(len(z))
        return 1 + self.penalty * np.maximum(self._low - self.q.log_density(z), 0)

    def toll(
        self, z: Float[np.ndarray, "points latent"]
    ) -> tuple[Float[np.ndarray, "points"], Float[np.ndarray, "points latent"]]:
        """w, and its derivative."""
        w, slope = self.cost(z), np.zeros_like(z)
        outside = w > 1
        if self.q is not None and outside.any():
            slope[outside] = -self.penalty * self.q.gradient(z[outside])
        return w, slope

    def edge(
        self, nodes: Float[np.ndarray, "nodes latent"], pairs: Int[np.ndarray, "edges 2"]
    ) -> Float[np.ndarray, "edges"]:
        """Cost of straight edges between nodes: w in the middle, times what f moves."""
        at = np.asarray(self.f(nodes)).reshape(len(nodes), -1)
        moved = [_norm(at[y] - at[x]) for x, y in _pieces(pairs, at.shape[1])]
        return self.cost(nodes[pairs].mean(1)) * np.concatenate(moved or [np.empty(0)])

    def along(self, curve: Float[np.ndarray, "steps latent"]) -> Float[np.ndarray, "segments"]:
        """What f moves at each step of a curve, without w."""
        return np.linalg.norm(np.diff(_wide(self.f(curve)), axis=0), axis=1)

    @cached_property
    def _low(self) -> float:
        return float(np.quantile(self.q.reference, LEVEL)) if self.q is not None else -np.inf

    def energy(
        self, curve: Float[np.ndarray, "steps latent"], size: Float[np.ndarray, "latent"]
    ) -> tuple[float, Float[np.ndarray, "steps latent"]]:
        """E of a curve and its derivative by every point; without `lift` numerically, by a fraction of `size`."""
        f, back = self._lifted(curve, size)
        step = np.diff(f, axis=0)
        square = (step**2).sum(1)
        middle = (curve[1:] + curve[:-1]) / 2
        w, slope = self.toll(middle)
        count = len(step)
        pull = 2 * count * (w**2)[:, None] * step
        force = np.zeros_like(f)
        force[1:] += pull
        force[:-1] -= pull
        gradient = back(force)
        climb = count * (w * square)[:, None] * slope  # 2 w w' / 2, the middle moves by half
        gradient[1:] += climb
        gradient[:-1] += climb
        return float(count * (w**2 @ square)), gradient

    def _lifted(self, z: np.ndarray, size: np.ndarray) -> tuple[np.ndarray, Pull]:
        if self.lift is None:
            return _wide(self.f(z)), lambda v: _pulled(self.f, z, v, size)
        f, back = self.lift(z)
        return _wide(f), back


@dataclass(frozen=True)
class Curve:
    """A way from one point to another, cut into steps that are equally long in f.

    Attributes:
        z: (steps, latent).
        length: Of the curve, by f.
        straight: Of the straight line between its ends, by f.
        log_density: Along the curve; NaN without a density.
        support: Share of real observations whose density is as low; NaN without a density.
    """

    z: Float[np.ndarray, "steps latent"]
    length: float
    straight: float
    log_density: Float[np.ndarray, "steps"]
    support: Float[np.ndarray, "steps"]

    @property
    def time(self) -> Float[np.ndarray, "steps"]:
        """From 0 at the start to 1 at the end."""
        return np.linspace(0, 1, len(self.z))

    def __str__(self) -> str:
        """Length, and how much of the way is unsupported."""
        said = f"A curve of length {self.length:.4g}, the straight line has {self.straight:.4g}"
        if np.isnan(self.support).all():
            return f"{said}."
        return f"{said}; {np.mean(self.support < LEVEL):.0%} of it is unsupported by data."


def straight(
    metric: Metric, start: Float[np.ndarray, "latent"], end: Float[np.ndarray, "latent"], steps: int = STEPS
) -> Curve:
    """The straight line in z, cut into steps of equal length in f."""
    ends = finite(np.stack([np.ravel(start), np.ravel(end)]))
    return _curve(metric, equal_steps(ends, steps))


def geodesic(
    metric: Metric,
    start: Float[np.ndarray, "latent"],
    end: Float[np.ndarray, "latent"],
    nodes: Float[np.ndarray, "obs latent"],
    *,
    steps: int = STEPS,
    seed: int = 0,
) -> Curve:
    """A curve of least energy between two points.

    Args:
        metric: What a step costs.
        start: The first point.
        end: The last point.
        nodes: Observations, whose neighbour graph gives the first guess; up to 1,500 of them are drawn.
        steps: Points of the curve.
        seed: Of the draw.

    Raises:
        InputError: The points differ in dimension, or one is not finite.
    """
    return _geodesic(metric, finite(np.stack([np.ravel(start), np.ravel(end)])), _net(metric, nodes, seed), steps)


def _geodesic(metric: Metric, ends: np.ndarray, net: "_Net", steps: int) -> Curve:
    if net.nodes.shape[1] != ends.shape[1]:
        raise InputError(f"expected ends with {net.nodes.shape[1]} coordinates, found {ends.shape[1]}: use one space.")
    size = net.nodes.std(0) + np.finfo(np.float64).tiny if metric.q is None else np.sqrt(metric.q.variance.mean(0))
    guesses = [equal_steps(guess, steps) for guess in (net.through(ends), ends)]
    refined = [_refined(metric, guess, size) for guess in guesses]
    best = min(refined, key=lambda curve: metric.energy(curve, size)[0])
    return _curve(metric, best)


class _Net(NamedTuple):
    """The neighbour graph of observations, and what its edges cost: the shortest way in it is a first guess."""

    nodes: Float[np.ndarray, "nodes latent"]
    pairs: Int[np.ndarray, "edges 2"]
    cost: Float[np.ndarray, "edges"]

    def through(self, ends: Float[np.ndarray, "two latent"]) -> Float[np.ndarray, "steps latent"]:
        """The shortest way from the first end to the second."""
        first, last = cdist(ends, self.nodes).argmin(1)
        _, before = shortest(len(self.nodes), self.pairs, self.cost, int(first))
        return np.concatenate([ends[:1], self.nodes[way(before, int(last))], ends[1:]])


def _net(metric: Metric, nodes: Float[np.ndarray, "obs latent"], seed: int) -> _Net:
    nodes = finite(nodes)
    kept = nodes[np.sort(np.random.default_rng(seed).permutation(len(nodes))[:NODES])]
    pairs = edges(kept, K)
    return _Net(kept, pairs, metric.edge(kept, pairs))


def distances(
    metric: Metric,
    points: Float[np.ndarray, "points latent"],
    nodes: Float[np.ndarray, "obs latent"],
    seed: int = 0,
    pairs: Iterable[tuple[int, int]] | None = None,
) -> Float[np.ndarray, "points points"]:
    """Lengths of the curves between each two points, (points, points); symmetric, in the units of f.

    `pairs` says between which, 0 is left between others; None means all.
    """
    points, net = finite(points), _net(metric, nodes, seed)
    found = np.zeros((len(points), len(points)))
    for a, b in combinations(range(len(points)), 2) if pairs is None else pairs:
        found[a, b] = found[b, a] = _geodesic(metric, points[[a, b]], net, STEPS).length
    return found


def _refined(metric: Metric, curve: np.ndarray, size: np.ndarray) -> np.ndarray:
    """The spline through a few knots of a curve, the inner ones moved until E is least."""
    steps, latent = curve.shape
    knots = np.linspace(0, 1, min(KNOTS, steps))
    degree = min(3, len(knots) - 1)
    basis = make_interp_spline(knots, np.eye(len(knots)), k=degree)(np.linspace(0, 1, steps))
    at = equal_steps(curve, len(knots))

    def value(inner: np.ndarray) -> tuple[float, np.ndarray]:
        moved = np.concatenate([at[:1], inner.reshape(-1, latent) * size, at[-1:]])
        energy, gradient = metric.energy(basis @ moved, size)
        return energy, ((basis.T @ gradient)[1:-1] * size).ravel()

    start = (at[1:-1] / size).ravel()
    found = scipy.optimize.minimize(
        value, start, jac=True, method="L-BFGS-B", options={"maxiter": ITERATIONS, "ftol": FALL}
    )
    return basis @ np.concatenate([at[:1], found.x.reshape(-1, latent) * size, at[-1:]])


def _curve(metric: Metric, z: np.ndarray) -> Curve:
    """Cut into steps of equal length in f, and measured."""
    done = np.concatenate([[0.0], np.cumsum(metric.along(z))])
    if done[-1] > 0:
        wanted = np.linspace(0, done[-1], len(z))
        z = np.column_stack([np.interp(wanted, done, column) for column in z.T])
    line = equal_steps(z[[0, -1]], len(z))
    q = metric.q
    nothing = np.full(len(z), np.nan)
    return Curve(
        z,
        float(metric.along(z).sum()),
        float(metric.along(line).sum()),
        nothing if q is None else q.log_density(z),
        nothing if q is None else q.support(z),
    )


def _pulled(f: Features, z: np.ndarray, v: np.ndarray, size: np.ndarray) -> Float[np.ndarray, "points latent"]:
    """J(z)' v by central differences of f."""
    points, latent = z.shape
    h = DIFFERENCE * size
    moved = np.eye(latent) * h
    every = np.concatenate([z[:, None] + moved, z[:, None] - moved], axis=1)
    values = _wide(f(every.reshape(-1, latent))).reshape(points, 2 * latent, -1)
    return np.einsum("tlf,tf->tl", values[:, :latent] - values[:, latent:], v) / (2 * h)


def _pieces(pairs: np.ndarray, features: int) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    size = max(1, ELEMENTS // max(features, 1))
    for start in range(0, len(pairs), size):
        yield tuple(pairs[start : start + size].T)


def _norm(values: np.ndarray) -> Float[np.ndarray, "rows"]:
    return np.sqrt(np.einsum("rf,rf->r", values, values, dtype=np.float64))


def _wide(values: np.ndarray) -> Float[np.ndarray, "points features"]:
    values = np.asarray(values, dtype=np.float64)
    return values.reshape(len(values), -1)
