"""Holes: the low passes of a density between populated regions, how deep they are, and who borders them.

    centre    where a region stands: the observation nearest to its mean           (latent,)
    string    curve from one centre to another, uphill as far as it can be across itself   (images, latent)
    pass      its lowest point, a saddle: a minimum along the string, a maximum across it
    depth     log q(lower of the two centres) - log q(pass), in nats, q at a centre without its own component: where
              posteriors are narrow each is a spike of its own, and a spike is no region

Between each two regions a string is relaxed by mean shift across itself, from the straight line and from the way
through the neighbour graph, and the higher pass counts. A string that runs through a third region is no border: from
one to the other one goes by way of it, and `best` says how deep the best such journey goes.

The interval of a depth is one of sampling: in a void the density hangs on the few observations nearest to it, and the
bootstrap, which cannot draw others, is then too narrow (2.6 times in a simulation with 100 observations on each side).

What lies in a hole is unsupported: the data hold nothing like it. That can be a state that does not exist, one that is
passed quickly, one that the tissue or the dissociation lost, or too few observations. **Absence of data alone cannot
prove a state forbidden.**

Source: E, Ren and Vanden-Eijnden 2007, doi:10.1063/1.2720838 (the string method); Henkelman, Uberuaga and Jonsson 2000,
doi:10.1063/1.1329672 (nudged elastic band).
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import combinations

import numpy as np
import pandas as pd
import scipy.sparse
from jaxtyping import Float, Int
from scipy.sparse.csgraph import minimum_spanning_tree
from scipy.spatial.distance import cdist

from biovae.analysis.limits import limits
from biovae.analysis.neighbourhoods.neighbour_graph import central
from biovae.analysis.neighbourhoods.neighbours import codes
from biovae.analysis.pooling import pooled_intervals
from biovae.analysis.space.density import LEVEL, Density
from biovae.analysis.space.route import edges, equal_steps, finely, shortest, way
from biovae.errors import InputError

IMAGES = 33  # points of a string
STEPS = 100  # of its relaxation, at most
SPEED = 0.3  # share of the mean shift that is taken in one step
STILL = 1e-3  # of the kernel's width: a string that moves less is relaxed
FINE = 8  # points of the spline to each image, where the pass is looked for
COARSE = 4000  # components of the density that strings are relaxed in
POLISH = 5  # further steps in the whole density
NODES = 1500  # observations of the neighbour graph
K = 10  # neighbours there
NEIGHBOURS = 6  # regions that each region is joined with, at least
FOREIGN = 0.1  # share of a string that a third region may own


@dataclass(frozen=True)
class Holes:
    """The passes between regions, deepest first.

    Attributes:
        frame: A row per pass: `one` and `other`, the regions it divides; `log_density` there, in nats; `depth` with
            `lower` and `upper` (90 %, Bayesian bootstrap over observations, or see `among_fits`); `best`, the depth of
            the best journey from one to the other by way of any regions; `support` of the pass, and in words `call`.
        z: Positions of the passes, (holes, latent).
        centres: A row per region.
        strings: (holes, images, latent).
        profiles: log q along the strings, (holes, images).
        said: Sentences on what was left out.
    """

    frame: pd.DataFrame
    z: Float[np.ndarray, "holes latent"]
    centres: pd.DataFrame
    strings: Float[np.ndarray, "holes images latent"]
    profiles: Float[np.ndarray, "holes images"]
    said: tuple[str, ...] = ()

    def __str__(self) -> str:
        """How many passes are unsupported, and what that means."""
        if self.frame.empty:
            through = (
                "Every way from one region to another leads through a third: none has a hole of its own to lie in."
            )
            return " ".join([through, *self.said])
        empty = self.frame[self.frame["call"] == "unsupported"]
        said = f"{len(empty)} of {len(self.frame)} passes between regions are unsupported"
        if len(empty):
            row = empty.iloc[0]
            how = (
                f"over {row['fits']} fits" if row.get("fits", 1) > 1 else "by a bootstrap, which is too sure of a void"
            )
            doubt = f"; {row['lower']:.1f} to {row['upper']:.1f} {how}"
            known = doubt if np.isfinite(row["lower"]) else ""
            said += f", the deepest between {row['one']} and {row['other']} ({row['depth']:.1f} nats{known})"
        return " ".join([f"{said}; absence of data alone cannot prove a state forbidden.", *self.said])


def holes(
    q: Density,
    groups: Sequence[object] | np.ndarray,
    *,
    neighbours: int = NEIGHBOURS,
    draws: int = 200,
    seed: int = 0,
) -> Holes:
    """Find the passes of q between regions that border on each other.

    Args:
        q: The density, see `density`.
        groups: The region of each of its observations: types, or clusters; None where it is of none, which counts for q
            alone.
        neighbours: Each region is joined with as many of the nearest others.
        draws: Of the bootstrap; 0 leaves the limits out.
        seed: Of the bootstrap and of the neighbour graph.

    Raises:
        InputError: Labels differ in number from the observations, or there is one region only.
    """
    member = codes(groups, len(q.mean), gaps=True)
    names = [str(np.asarray(groups)[np.flatnonzero(member == g)[0]]) for g in range(member.max() + 1)]
    if len(names) < 2:
        raise InputError(f"expected at least 2 regions, found {len(names)}: a hole lies between two; cluster first.")
    centres = np.array([central(q.mean, member == g) for g in range(member.max() + 1)])
    rows = np.sort(np.random.default_rng(seed).permutation(len(q.mean))[:NODES])
    graph = _Graph(q.mean[rows], edges(q.mean[rows], K))
    coarse = _thinned(q, seed)
    found = []
    for a, b in _pairs(q.mean, member, neighbours):
        string = _relaxed((q, coarse), q.mean[centres[[a, b]]], graph)
        owners = member[q.owner(string)]
        if np.mean((owners != a) & (owners != b) & (owners >= 0)) <= FOREIGN:
            found.append((a, b, string))
    return _record(q, names, centres, found, (draws, seed))


def among_fits(found: Holes, others: Sequence[Holes]) -> Holes:
    """What other fits of the same observations, with the same regions, say of the passes of one.

    Args:
        found: The passes.
        others: Those of the other fits; none leaves `found` as it is.

    Returns:
        `found` with the columns `fits`, how many have the pass, itself included, and `agree`, the share of them whose
        call is the same; `depth` is their mean where there are several, with limits for another fit: between fits by
        their spread, within each by its bootstrap.
    """
    if not others:
        return found
    frames = [_by_pair(each.frame).reindex(_by_pair(found.frame).index) for each in (found, *others)]
    table = np.array([frame[["depth", "lower", "upper"]].to_numpy() for frame in frames])
    calls = pd.concat([frame["call"] for frame in frames], axis=1)
    frame = found.frame.assign(
        fits=calls.notna().sum(axis=1).to_numpy(),
        agree=calls.eq(calls.iloc[:, 0], axis=0).sum(axis=1).to_numpy() / calls.notna().sum(axis=1).to_numpy(),
    )
    for row in np.flatnonzero(frame["fits"] > 1):
        depth, lower, upper = table[~np.isnan(table[:, row, 0]), row].T
        both = pooled_intervals(depth, lower, upper)
        frame.loc[row, ["depth", "lower", "upper"]] = both.mean, max(both.lower, 0), both.upper
    return _ordered(replace(found, frame=frame))


def _ordered(found: Holes) -> Holes:
    """Deepest first."""
    order = np.argsort(-found.frame["depth"].to_numpy(), kind="stable")
    frame = found.frame.iloc[order].reset_index(drop=True)
    return Holes(frame, found.z[order], found.centres, found.strings[order], found.profiles[order])


def _by_pair(frame: pd.DataFrame) -> pd.DataFrame:
    return frame.set_index(["one", "other"])


@dataclass(frozen=True)
class _Graph:
    nodes: Float[np.ndarray, "nodes latent"]
    pairs: Int[np.ndarray, "edges 2"]

    def between(self, ends: Float[np.ndarray, "two latent"]) -> Float[np.ndarray, "steps latent"]:
        """The way in the graph whose largest steps are as small as can be: edges cost the fourth power of length."""
        first, last = cdist(ends, self.nodes).argmin(1)
        length = np.linalg.norm(np.diff(self.nodes[self.pairs], axis=1)[:, 0], axis=1)
        typical = np.median(length)
        _, before = shortest(len(self.nodes), self.pairs, (length / (typical if typical > 0 else 1.0)) ** 4, int(first))
        return np.concatenate([ends[:1], self.nodes[way(before, int(last))], ends[1:]])


def _pairs(mean: np.ndarray, member: np.ndarray, neighbours: int) -> Iterator[tuple[int, int]]:
    """Each region and the nearest others, once."""
    count = member.max() + 1
    centre = np.stack([mean[member == g].mean(0) for g in range(count)])
    rank = cdist(centre, centre).argsort(1, kind="stable").argsort(1)
    return ((a, b) for a, b in combinations(range(count), 2) if min(rank[a, b], rank[b, a]) <= neighbours)


def _thinned(q: Density, seed: int) -> Density:
    """The density of up to 4,000 of the observations, in which a step costs little."""
    if len(q.mean) <= COARSE:
        return q
    rows = np.sort(np.random.default_rng([seed, 1]).choice(len(q.mean), COARSE, replace=False))
    return Density(q.mean[rows], q.variance[rows], q.width)


def _relaxed(densities: tuple[Density, Density], ends: np.ndarray, graph: _Graph) -> Float[np.ndarray, "images latent"]:
    """The string with the higher pass, of one that starts straight and one that starts in the graph."""
    q, coarse = densities
    strings = [relax(coarse, equal_steps(start, IMAGES)) for start in (ends, graph.between(ends))]
    best = max(strings, key=lambda string: q.log_density(finely(string, 2)).min())
    return best if coarse is q else relax(q, best, POLISH)


def relax(
    q: Density, string: Float[np.ndarray, "images latent"], steps: int = STEPS
) -> Float[np.ndarray, "images latent"]:
    """Move a string across itself, uphill, until the gradient points along it everywhere.

    The force is the mean shift without its part along the string; after each step the images are spread to equal
    distances, which keeps them from sliding off the pass. The ends stay.
    """
    size = np.sqrt(q.variance.mean(0))
    for _ in range(steps):
        along = np.gradient(string, axis=0)
        along /= np.maximum(np.linalg.norm(along, axis=1, keepdims=True), np.finfo(np.float64).tiny)
        force = q.shift(string) - string
        force -= (force * along).sum(1, keepdims=True) * along
        force[[0, -1]] = 0
        moved = equal_steps(string + SPEED * force, len(string))
        still = np.abs((moved - string) / size).max() < STILL
        string = moved
        if still:
            break
    return string


def lowest(q: Density, string: Float[np.ndarray, "images latent"]) -> Float[np.ndarray, "latent"]:
    """The point of lowest density on the spline through a string."""
    low, high = 0.0, len(string) - 1.0
    at = np.linspace(low, high, FINE * (len(string) - 1) + 1)
    curve = finely(string, FINE)
    i = int(q.log_density(curve).argmin())
    if i in (0, len(at) - 1):
        return curve[i]
    fine = finely(curve[max(i - 3, 0) : i + 4], 32)
    return fine[q.log_density(fine).argmin()]


def _record(
    q: Density, names: list[str], centres: np.ndarray, found: list[tuple[int, int, np.ndarray]], how: tuple[int, int]
) -> Holes:
    latent = q.mean.shape[1]
    ends = np.array([(a, b) for a, b, _ in found], dtype=np.int64).reshape(-1, 2)
    strings = np.array([string for *_, string in found]).reshape(-1, IMAGES, latent)
    z = np.array([lowest(q, string) for string in strings]).reshape(-1, latent)
    places = pd.DataFrame(q.mean[centres], index=names)
    columns = ["one", "other", "log_density", "depth", "lower", "upper", "best", "support", "call"]
    if not found:
        return Holes(pd.DataFrame(columns=columns), z, places, strings, np.empty((0, IMAGES)))
    draws, seed = how
    top, bottom = q.log_density(q.mean[centres], centres), q.log_density(z)
    depth = np.maximum(top[ends].min(1) - bottom, 0)
    left_out = np.concatenate([centres, np.full(len(z), -1)])
    drawn = q.resampled(np.concatenate([q.mean[centres], z]), left_out, draws=draws, seed=seed)
    lower = np.where(top[ends[:, 0]] <= top[ends[:, 1]], *ends.T)  # the same one in every draw: a minimum is biased
    deep = np.maximum(drawn[:, lower] - drawn[:, len(centres) :], 0)
    support = q.support(z)
    frame = pd.DataFrame({"one": [names[a] for a in ends[:, 0]], "other": [names[b] for b in ends[:, 1]]})
    frame = frame.assign(log_density=bottom, depth=depth)
    frame["lower"], frame["upper"] = limits(deep) if draws else (np.nan, np.nan)
    frame["best"] = np.maximum(top[ends].min(1) - _journeys(ends, bottom, len(centres)), 0)
    frame["support"] = support
    frame["call"] = np.where(support < LEVEL, "unsupported", "supported")
    profiles = q.log_density(strings.reshape(-1, latent)).reshape(-1, IMAGES)
    return _ordered(Holes(frame, z, places, strings, profiles))


def _journeys(
    ends: Int[np.ndarray, "holes 2"], bottom: Float[np.ndarray, "holes"], count: int
) -> Float[np.ndarray, "holes"]:
    """The lowest density on the best journey between the two regions of each pass, by way of any others.

    Journeys of the highest minimum run in the spanning tree of highest passes.

    Source: Pollack 1960, doi:10.1287/opre.8.5.733 (maximum capacity routes).
    """
    cost = bottom.max() - bottom + 1  # the highest pass costs 1; a graph knows no edge of cost 0
    graph = scipy.sparse.csr_array((cost, tuple(ends.T)), shape=(count, count))
    tree = minimum_spanning_tree(graph)
    tree = scipy.sparse.csr_array(tree + tree.T)
    best = np.full((count, count), np.inf)
    for start in range(count):
        best[start, start] = -np.inf
        waiting = [start]
        while waiting:
            here = waiting.pop()
            for there, step in zip(*_row(tree, here), strict=True):
                if np.isinf(best[start, there]) and there != start:
                    best[start, there] = max(best[start, here], step)
                    waiting.append(int(there))
    return bottom.max() + 1 - best[tuple(ends.T)]


def _row(graph: scipy.sparse.csr_array, row: int) -> tuple[np.ndarray, np.ndarray]:
    part = slice(graph.indptr[row], graph.indptr[row + 1])
    return graph.indices[part], graph.data[part]
