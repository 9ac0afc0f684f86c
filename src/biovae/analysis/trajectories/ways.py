"""Whether the data show a way to an end: how many ways share no observation, and how long the emptiest stretch is.

    way     a sequence of neighbours in the graph, from one of the earliest observations to one that an end absorbs
    cut     the fewest observations without which no way is left: as many as there are separate ways
    gap     the longest stretch of pseudotime, as a share of the whole way, in which no observation of a branch lies

A graph of nearest neighbours joins what nothing joins in life: a few stray observations, doublets among them, are
enough for a way from B cells to monocytes. But such ways all meet in the few, and between them lie long gaps. Along a
continuum every place has many neighbours on either side: even a thread of observations one behind the other has half of
k separate ways. An end with fewer, or beyond a gap, is not shown to be reached. Density does not tell the two apart:
between types that lie apart, the middle of z can hold poor observations, whose posteriors are wide (LOG.md).

Neither is proof. Many doublets make ways enough; and a branch of some 100 observations is a thread with gaps of its
own, that may be called not shown although it is real (LOG.md).

Source: Menger 1927, doi:10.4064/fm-10-1-96-115 (separate ways and cuts are equally many).
"""

from typing import NamedTuple

import numpy as np
import scipy.sparse
from jaxtyping import Bool, Float, Int
from scipy.sparse.csgraph import breadth_first_order, maximum_flow

from biovae.analysis.neighbourhoods.neighbour_graph import NeighbourGraph

GAP = 0.15  # of the way, at most, along a continuum
FOLLOWED = 0.1  # of the root's probability of a fate: who has less is on another branch
UNREACHED = 1e-9


class Narrowest(NamedTuple):
    """Separate ways, at most 2 k of them, and the observations just before and just behind the narrowest stretch.

    There are none of these where there are 2 k ways, or where bridges alone lead to the end.
    """

    ways: int
    before: Int[np.ndarray, "before"]
    behind: Int[np.ndarray, "behind"]


def needed(k: int, *sizes: int) -> int:
    """The separate ways that even a thread of observations has: half of k, or of the start or end where it is small."""
    return max(min((k, *sizes)) // 2, 1)


def narrowest(graph: NeighbourGraph, start: Int[np.ndarray, "start"], end: Int[np.ndarray, "end"]) -> Narrowest:
    """Count the ways from the observations at the start to those of an end that share none, and find their cut.

    Every observation is a gate that lets one way through; bridges, on which nobody lies, are closed.

    Args:
        graph: The neighbour graph.
        start: Rows.
        end: Rows; one at the start is a way of its own.
    """
    edges = scipy.sparse.coo_array(graph.lengths)
    inside = graph.component[edges.row] == graph.component[edges.col]
    one, other, most = edges.row[inside], edges.col[inside], 2 * graph.k
    gates, source, sink = _gates((one, other), start, end, most)
    found = maximum_flow(gates, source, sink)
    if found.flow_value == most:
        return Narrowest(most, np.empty(0, dtype=np.int64), np.empty(0, dtype=np.int64))
    left = scipy.sparse.csr_matrix(gates - found.flow)
    left.eliminate_zeros()
    entered, leads = _from(left, source)[0:source:2], _from(left.T.tocsr(), sink)[1:source:2]
    before = one[entered[one] & ~entered[other]]
    behind = other[leads[other] & ~leads[one]]
    return Narrowest(int(found.flow_value), np.unique(before), np.unique(behind))


def emptiest(
    t: Float[np.ndarray, "obs"], fate: Float[np.ndarray, "obs"], root: Int[np.ndarray, "roots"], end: float
) -> float:
    """The gap: the longest stretch between neighbours in t that may still come to an end, over t of the end.

    Args:
        t: Pseudotime.
        fate: Probability of coming to the end.
        root: Rows with t = 0.
        end: Pseudotime of the end.
    """
    follows = (fate >= FOLLOWED * max(float(fate[root].mean()), UNREACHED)) & (t <= end)
    return float(np.diff([0.0, *np.sort(t[follows]), end]).max() / end) if end > 0 else 0.0


def _from(capacity: scipy.sparse.csr_matrix, node: int) -> Bool[np.ndarray, "nodes"]:
    reached = np.zeros(capacity.shape[0], dtype=bool)
    reached[breadth_first_order(capacity, node, return_predecessors=False)] = True
    return reached


def _gates(
    edges: tuple[np.ndarray, np.ndarray], start: np.ndarray, end: np.ndarray, most: int
) -> tuple[scipy.sparse.csr_matrix, int, int]:
    """Capacities, the source and the sink; observation i is entered at 2 i and left at 2 i + 1."""
    count = int(max(part.max(initial=0) for part in (*edges, start, end))) + 1
    source, sink, each = 2 * count, 2 * count + 2, np.arange(count)
    gate = np.array([source + 1])  # lets through no more ways than are counted
    row = np.concatenate([2 * edges[0] + 1, 2 * each, np.repeat(gate, len(start)), 2 * end + 1, gate - 1])
    column = np.concatenate([2 * edges[1], 2 * each + 1, 2 * start, np.full(len(end), sink), gate])
    value = np.ones(len(row), dtype=np.int32)
    value[-1] = most
    return scipy.sparse.csr_matrix((value, (row, column)), shape=(sink + 1, sink + 1)), source, sink
