"""The neighbour graph of z: who is joined to whom, how far apart they lie, and where a bridge had to be laid.

    z         positions, (obs, latent)
    lengths   Euclidean distance of joined observations, sparse, symmetric, (obs, obs)
    affinity  exp(-length**2 / (s_i s_j)), s the median length at an observation, sparse, symmetric, (obs, obs)

A way leads between two observations where each is among the k nearest of the other; an edge that only one side asks for
is kept where the graph would fall apart without it. A walk, whose affinities average over many edges, takes all edges
that either side asks for. What is still apart then is joined by the shortest ways between the pieces, and those bridges
are listed: no observation lies on them.
"""

from dataclasses import dataclass

import numpy as np
import pandas as pd
import scipy.sparse
from jaxtyping import Bool, Float, Int
from scipy.sparse.csgraph import connected_components, minimum_spanning_tree
from scipy.spatial import cKDTree

from biovae.analysis.neighbourhoods.neighbours import K, nearest
from biovae.analysis.neighbourhoods.positions import finite
from biovae.errors import InputError

FARTHEST = 30.0  # in the exponent of an affinity: what lies farther, as a bridge may, can still be crossed
SMALL = 200  # observations of a piece whose neighbours are looked through
PAIRS = 1e8  # of observations in two pieces, up to which the nearest is found for certain
STARTS = 8
SHORTEST = 1e-12  # duplicates lie apart by this, since a sparse matrix holds no zeros


@dataclass(frozen=True)
class NeighbourGraph:
    """A connected graph of observations, undirected.

    Attributes:
        lengths: Euclidean distances along ways.
        affinity: Likeness of neighbours, in (0, 1]; its edges hold those of `lengths`.
        component: The piece of each observation before bridges were laid; 0 is the largest.
        k: Neighbours that each observation asked for.
        bridges: Columns `one`, `other` (rows of z) and `length`, a row per bridge.
    """

    lengths: scipy.sparse.csr_array
    affinity: scipy.sparse.csr_array
    component: Int[np.ndarray, "obs"]
    k: int
    bridges: pd.DataFrame

    def __str__(self) -> str:
        """Whether it held together by itself, in one sentence."""
        if self.bridges.empty:
            return "The neighbour graph is in one piece."
        return (
            f"The neighbour graph is in {self.component.max() + 1} pieces, joined by {len(self.bridges)} bridges "
            "on which no observation lies: what crosses one is not supported by data."
        )


def neighbour_graph(z: Float[np.ndarray, "obs latent"], k: int = K) -> NeighbourGraph:
    """Join mutual k nearest neighbours by ways and all k nearest by affinities, and bridge what stays apart.

    Args:
        z: Positions.
        k: Neighbours that each observation asks for.

    Raises:
        InputError: Fewer than three observations, or a position is not finite.
    """
    z = finite(z)
    if len(z) < 3:
        raise InputError(f"expected at least 3 observations to join to a graph, found {len(z)}: pass more.")
    index, distance = nearest(z, k)
    asked = _matrix(np.repeat(np.arange(len(z)), index.shape[1]), index.ravel(), distance.ravel(), len(z))
    either = asked.maximum(asked.T)
    tree = scipy.sparse.csr_array(minimum_spanning_tree(either))
    own = asked.minimum(asked.T).maximum(tree).maximum(tree.T)
    component = _by_size(connected_components(own, directed=False)[1])
    bridges = _bridges(z, component)
    one, other, length = (bridges[name].to_numpy() for name in bridges)
    laid = _matrix(one, other, length, len(z))
    lengths, walked = (scipy.sparse.csr_array(edges.maximum(laid).maximum(laid.T)) for edges in (own, either))
    return NeighbourGraph(lengths, affinity(walked), component, index.shape[1], bridges)


def affinity(lengths: scipy.sparse.csr_array) -> scipy.sparse.csr_array:
    """exp(-length**2 / (s_i s_j)), s_i the median length at i: as wide as the neighbourhood, and never quite 0."""
    edges = scipy.sparse.coo_array(lengths)
    scale = np.maximum(_medians(edges.data, edges.row, lengths.indptr), SHORTEST)
    exponent = edges.data**2 / (scale[edges.row] * scale[edges.col])
    values = np.exp(-np.minimum(exponent, FARTHEST))
    return scipy.sparse.csr_array((values, (edges.row, edges.col)), shape=lengths.shape)


def _medians(data: np.ndarray, row: np.ndarray, start: np.ndarray) -> Float[np.ndarray, "obs"]:
    """Of each row, which has at least one value; all rows at once."""
    ordered = data[np.lexsort((data, row))]
    middle = start[:-1] + start[1:] - 1
    return (ordered[middle // 2] + ordered[(middle + 1) // 2]) / 2


def central(z: Float[np.ndarray, "obs latent"], member: Bool[np.ndarray, "obs"]) -> int:
    """The row of the most central member of a group: the one nearest to the group's mean.

    A peak of the density would be a worse place to stand for a group: in many dimensions the highest is an outlier's.

    Raises:
        InputError: The group has no member.
    """
    rows = np.flatnonzero(member)
    if not len(rows):
        raise InputError("expected a group with members, found an empty one: name a group that occurs.")
    inside = finite(z)[rows]
    return int(rows[((inside - inside.mean(0)) ** 2).sum(1).argmin()])


def _matrix(row: np.ndarray, column: np.ndarray, length: np.ndarray, size: int) -> scipy.sparse.csr_array:
    return scipy.sparse.csr_array((np.maximum(length, SHORTEST), (row, column)), shape=(size, size))


def _by_size(label: np.ndarray) -> Int[np.ndarray, "obs"]:
    order = np.argsort(-np.bincount(label), kind="stable")
    return np.argsort(order)[label]


def _bridges(z: np.ndarray, component: np.ndarray) -> pd.DataFrame:
    """The shortest ways that make one piece of many: each piece but the largest reaches out, until one is left."""
    found: set[tuple[int, int]] = set()
    label, tree = component, cKDTree(z)
    while label.max() > 0:
        pieces = np.split(np.argsort(label, kind="stable"), np.cumsum(np.bincount(label))[:-1])
        found |= {_way_out(z, tree, label, rows) for rows in pieces[1:]}
        one, other = np.array(sorted(found)).T
        joined = scipy.sparse.coo_array(
            (np.ones(len(one)), (component[one], component[other])), shape=(_count(component),) * 2
        )
        label = _by_size(connected_components(joined, directed=False)[1][component])
    pairs = np.array(sorted(found), dtype=np.int64).reshape(-1, 2)
    length = np.linalg.norm(z[pairs[:, 0]] - z[pairs[:, 1]], axis=1)
    return pd.DataFrame({"one": pairs[:, 0], "other": pairs[:, 1], "length": length})


def _count(component: np.ndarray) -> int:
    return int(component.max()) + 1


def _way_out(z: np.ndarray, tree: cKDTree, label: np.ndarray, rows: np.ndarray) -> tuple[int, int]:
    """The two rows, one in a piece and one outside, that are nearest to each other; the smaller first.

    Of size + 1 neighbours of an observation in a piece one is outside. A larger piece asks a tree of those outside, and
    where that would take minutes, a short way will do.
    """
    if len(rows) <= SMALL:
        distance, place = tree.query(z[rows], k=len(rows) + 1)
        distance = np.where(label[place] == label[rows[0]], np.inf, distance)
        best = int(distance.argmin())
        one, other = int(rows[best // distance.shape[1]]), int(place.ravel()[best])
    else:
        others = np.flatnonzero(label != label[rows[0]])
        way = _nearest_pair if len(rows) * len(others) <= PAIRS else _near_pair
        at, near = way(z[rows], z[others])
        one, other = int(rows[at]), int(others[near])
    return min(one, other), max(one, other)


def _nearest_pair(a: np.ndarray, b: np.ndarray) -> tuple[int, int]:
    distance, place = cKDTree(b).query(a)
    at = int(distance.argmin())
    return at, int(place[at])


def _near_pair(a: np.ndarray, b: np.ndarray) -> tuple[int, int]:
    """From several starts to and fro, each time to the nearest on the other side, until it is no nearer."""
    one, other, best = cKDTree(a), cKDTree(b), (np.inf, 0, 0)
    for start in np.linspace(0, len(a) - 1, STARTS).astype(int):
        at, found = int(start), np.inf
        while True:
            near = int(other.query(a[at])[1])
            length, at = one.query(b[near])
            if length >= found:
                break
            found = float(length)
            best = min(best, (found, int(at), near))
    return best[1], best[2]
