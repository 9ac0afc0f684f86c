"""Peaks and saddles of a function on a graph: where branches end, where they part, and where small peaks drain.

    t       a value on every observation, higher is later, (obs,)
    level   the value at which two regions of higher t meet: the best saddle between them

Going down from the highest value, each peak begins a region, and regions meet at saddles. A peak that stands high
enough over its saddle, in a region large enough, is an end; a smaller one is noise, and drains over its saddle into the
region that it meets. Everything happens on the spanning tree of the highest saddles: no other edge joins regions.

    J       share of the neighbours of two observations, themselves included, that both have, of each edge

One edge across is enough to join two branches, and in a graph of nearest neighbours there are some. Those who share
hardly a neighbour are therefore joined last, after all paths of others.

Source: Edelsbrunner, Letscher and Zomorodian 2002, doi:10.1007/s00454-002-2885-2 (persistence of peaks);
Jarvis and Patrick 1973, doi:10.1109/T-C.1973.223640 (shared neighbours).
"""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import scipy.sparse
from jaxtyping import Bool, Float, Int
from scipy.sparse.csgraph import connected_components, minimum_spanning_tree

EDGES = 2**17  # whose neighbours are compared at once


@dataclass(frozen=True)
class Fork:
    """Two groups of ends part here: `level` of t, and the numbers of the ends on either side."""

    level: float
    one: tuple[int, ...]
    other: tuple[int, ...]


@dataclass(frozen=True)
class Ends:
    """Peaks that count, in the order of their heights: the observations above the saddle of each, and the forks."""

    members: tuple[Int[np.ndarray, "members"], ...]
    forks: tuple[Fork, ...]


class _Regions:
    """Union-find over observations; of each region the size and the peak."""

    def __init__(self, count: int) -> None:
        self.parent, self.peak, self.size = list(range(count)), list(range(count)), [1] * count

    def find(self, i: int) -> int:
        """The region of an observation."""
        parent = self.parent
        while parent[i] != i:
            parent[i] = parent[parent[i]]
            i = parent[i]
        return i

    def join(self, keeps: int, goes: int) -> None:
        """The region `goes` becomes part of `keeps`, whose peak remains."""
        self.parent[goes] = keeps
        self.size[keeps] += self.size[goes]


def find_ends(
    graph: scipy.sparse.csr_array, t: Float[np.ndarray, "obs"], smallest: int, lift: float, shared: float = 0.0
) -> Ends:
    """The peaks of t that stand at least `lift` above their saddle, in a region of at least `smallest` observations.

    Where no two such peaks are, the one end is everything.

    Args:
        graph: Edges, symmetric; connected.
        t: Values.
        smallest: Observations above the saddle.
        lift: Height over the saddle, in the units of t.
        shared: Edges of a smaller J join last, and hold no region together.
    """
    loose = _loose(graph, shared)
    firm = scipy.sparse.csr_array(graph - loose) if loose.nnz else graph
    firm.eliminate_zeros()
    regions, time = _Regions(len(t)), t.tolist()
    tops: list[tuple[int, float]] = []  # a peak and its saddle
    forks: list[Fork] = []
    found: dict[int, tuple[int, ...]] = {}  # ends, by region
    for i, j, level in _meetings(graph, t, loose):
        a, b = regions.find(i), regions.find(j)
        if all(c in found or (regions.size[c] >= smallest and time[regions.peak[c]] - level >= lift) for c in (a, b)):
            for c in (a, b):
                if c not in found:
                    found[c] = (len(tops),)
                    tops.append((regions.peak[c], level))
            forks.append(Fork(level, found[a], found[b]))
        keeps, goes = (a, b) if time[regions.peak[a]] >= time[regions.peak[b]] else (b, a)
        regions.join(keeps, goes)
        if together := found.pop(keeps, ()) + found.pop(goes, ()):
            found[keeps] = together
    if not tops:
        return Ends((np.arange(len(t)),), ())
    return Ends(tuple(_above(firm, t, peak, level) for peak, level in tops), tuple(forks))


def drains(
    graph: scipy.sparse.csr_array, t: Float[np.ndarray, "obs"], absorbing: Bool[np.ndarray, "obs"]
) -> Int[np.ndarray, "obs"]:
    """Where to go on from an observation that has no later neighbour: to the one beyond its saddle; -1 at an end.

    Whoever climbs from neighbour to later neighbour, and crosses the saddle where there is none, comes to an absorbing
    observation: every crossing leads to a region that has an end, or a higher peak. It leads past the saddle itself,
    from where one could climb back.
    """
    regions, time, holds = _Regions(len(t)), t.tolist(), absorbing.tolist()
    beyond = np.full(len(t), -1)
    for i, j, level in _meetings(graph, t):
        a, b = regions.find(i), regions.find(j)
        stays = (holds[a], time[regions.peak[a]]) >= (holds[b], time[regions.peak[b]])
        keeps, goes, at = (a, b, i) if stays else (b, a, j)
        if not holds[goes]:
            beyond[regions.peak[goes]] = beyond[at] if time[at] == level and beyond[at] >= 0 else at
        regions.join(keeps, goes)
    return beyond


def _loose(graph: scipy.sparse.csr_array, shared: float) -> scipy.sparse.csr_array:
    """The edges whose J is smaller, both ways."""
    edges = scipy.sparse.coo_array(scipy.sparse.triu(graph, k=1))
    row, column, value = edges.row, edges.col, edges.data
    near = scipy.sparse.csr_array((np.ones(graph.nnz), graph.indices, graph.indptr), shape=graph.shape)
    near = scipy.sparse.csr_array(near + scipy.sparse.eye_array(graph.shape[0]))
    size, few = near.sum(1), np.zeros(len(row), dtype=bool)
    for start in range(0, len(row) if shared > 0 else 0, EDGES):
        i, j = row[start : start + EDGES], column[start : start + EDGES]
        both = near[i].multiply(near[j]).sum(1)
        few[start : start + EDGES] = both < shared * (size[i] + size[j] - both)
    half = scipy.sparse.csr_array((value[few], (row[few], column[few])), shape=graph.shape)
    return scipy.sparse.csr_array(half + half.T)


def _meetings(
    graph: scipy.sparse.csr_array, t: np.ndarray, loose: scipy.sparse.csr_array | None = None
) -> Iterator[tuple[int, int, float]]:
    """Edges of the spanning tree of the highest saddles, highest first, each with its level; loose ones come last."""
    edges = scipy.sparse.coo_array(graph)
    level = np.minimum(t[edges.row], t[edges.col])
    cost = scipy.sparse.csr_array((t.max() + 1 - level, (edges.row, edges.col)), shape=graph.shape)
    if loose is not None and loose.nnz:
        late = loose.copy()
        late.data[:] = np.ptp(t) + 1
        cost = scipy.sparse.csr_array(cost + late)
    tree = scipy.sparse.coo_array(minimum_spanning_tree(cost))
    order = np.argsort(tree.data, kind="stable")
    one, other = tree.row[order], tree.col[order]
    return zip(one.tolist(), other.tolist(), np.minimum(t[one], t[other]).tolist(), strict=True)


def _above(graph: scipy.sparse.csr_array, t: np.ndarray, peak: int, level: float) -> Int[np.ndarray, "members"]:
    """The observations joined to the peak without going down to the level."""
    rows = np.flatnonzero(t > level)
    label = connected_components(graph[rows][:, rows], directed=False)[1]
    return rows[label == label[np.searchsorted(rows, peak)]]
