"""Ways through a cloud of points: a neighbour graph that holds together, shortest ways in it, equal steps.

nodes    positions, (nodes, latent)
curve    points in order, (steps, latent)
"""

import numpy as np
import scipy.sparse
from jaxtyping import Float, Int
from scipy.interpolate import CubicSpline
from scipy.sparse.csgraph import connected_components, dijkstra, minimum_spanning_tree
from scipy.spatial.distance import cdist

from biovae.analysis.neighbourhoods.positions import finite
from biovae.analysis.neighbourhoods.search import Search
from biovae.errors import InputError


def edges(nodes: Float[np.ndarray, "nodes latent"], k: int) -> Int[np.ndarray, "edges 2"]:
    """Each node with its k nearest, and where that falls to pieces, the shortest edges that join them."""
    nodes = finite(nodes)
    if len(nodes) < 2:
        return np.empty((0, 2), dtype=np.int64)
    k = min(k, len(nodes) - 1)
    near = Search(nodes).others(k)[0]
    pairs = np.column_stack([np.repeat(np.arange(len(nodes)), k), near.ravel()])
    graph = scipy.sparse.csr_array((np.ones(len(pairs)), tuple(pairs.T)), shape=(len(nodes), len(nodes)))
    count, piece = connected_components(graph, directed=False)
    if count > 1:
        pairs = np.concatenate([pairs, _bridges(nodes, piece, count)])
    return np.unique(np.sort(pairs, axis=1), axis=0)


def shortest(
    nodes: int, pairs: Int[np.ndarray, "edges 2"], length: Float[np.ndarray, "edges"], start: int
) -> tuple[Float[np.ndarray, "nodes"], Int[np.ndarray, "nodes"]]:
    """Distance of every node from `start`, and the node before it on the way (-9999 where there is none).

    Source: Tenenbaum, de Silva and Langford 2000, doi:10.1126/science.290.5500.2319 (geodesics by neighbour graphs).
    """
    weight = np.maximum(length, np.finfo(np.float64).tiny)
    graph = scipy.sparse.csr_array((weight, tuple(pairs.T)), shape=(nodes, nodes))
    distance, before = dijkstra(graph, directed=False, indices=start, return_predecessors=True)
    return distance, before


def way(before: Int[np.ndarray, "nodes"], end: int) -> Int[np.ndarray, "steps"]:
    """The nodes from the start to `end`."""
    found = [end]
    while before[found[-1]] >= 0:
        found.append(int(before[found[-1]]))
    return np.array(found[::-1])


def equal_steps(curve: Float[np.ndarray, "steps latent"], steps: int) -> Float[np.ndarray, "steps latent"]:
    """The same curve, cut into equal lengths.

    >>> equal_steps(np.array([[0.0], [1.0], [4.0]]), 3).ravel().tolist()
    [0.0, 2.0, 4.0]
    """
    at = np.concatenate([[0.0], np.cumsum(np.linalg.norm(np.diff(curve, axis=0), axis=1))])
    wanted = np.linspace(0, at[-1], steps)
    return np.column_stack([np.interp(wanted, at, column) for column in curve.T])


def finely(curve: Float[np.ndarray, "steps latent"], times: int) -> Float[np.ndarray, "fine latent"]:
    """Points of the cubic spline through a curve, `times` to each of its steps."""
    if len(curve) < 2:
        raise InputError(f"expected a curve of at least 2 points, found {len(curve)}: give its two ends.")
    at = np.arange(len(curve))
    return CubicSpline(at, curve)(np.linspace(0, len(curve) - 1, times * (len(curve) - 1) + 1))


def _bridges(nodes: np.ndarray, piece: np.ndarray, count: int) -> Int[np.ndarray, "bridges 2"]:
    """For the shortest tree over the pieces, the nearest nodes of each two that it joins."""
    members = [np.flatnonzero(piece == c) for c in range(count)]
    between, nearest = np.zeros((count, count)), {}
    for a in range(count):
        for b in range(a + 1, count):
            distance = cdist(nodes[members[a]], nodes[members[b]])
            i, j = np.unravel_index(distance.argmin(), distance.shape)
            between[a, b] = max(distance[i, j], np.finfo(np.float64).tiny)
            nearest[a, b] = (members[a][i], members[b][j])
    tree = scipy.sparse.coo_array(minimum_spanning_tree(scipy.sparse.csr_array(between)))
    return np.array([nearest[min(a, b), max(a, b)] for a, b in zip(tree.row, tree.col, strict=True)])
