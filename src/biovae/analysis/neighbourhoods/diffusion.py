"""Distances that noise hardly shortens: how differently a random walk on the neighbour graph goes on from two places.

    P     step of the walk, D^-1 W, W the affinity divided by the degrees of both ends, so that density has no say
    psi   coordinates of the walk, lambda / (1 - lambda) times P's right eigenvectors, (obs, components)

The factor adds up steps of all lengths. A chance edge between two branches is short in z, but the walks from its ends
differ, so that in psi it is long and no shortest way takes it.

Source: Coifman and Lafon 2006, doi:10.1016/j.acha.2006.04.006 (density taken out); Haghverdi et al. 2016,
doi:10.1038/nmeth.3971 (steps of all lengths); Setty et al. 2019, doi:10.1038/s41587-019-0068-4 (shortest ways in psi).
"""

import numpy as np
import scipy.sparse
from jaxtyping import Float
from scipy.sparse.linalg import eigsh

from biovae.analysis.neighbourhoods.neighbour_graph import SHORTEST, NeighbourGraph, affinity

COMPONENTS = 10
DENSE = 60  # below so many observations all eigenvectors are computed
LARGEST = 1 - 1e-6  # an eigenvalue nearer to 1 tells pieces apart, not places


def diffused(graph: NeighbourGraph) -> NeighbourGraph:
    """The same ways, each as long as its ends lie apart in psi, and their affinities.

    Every piece has a walk of its own. A bridge, on which nobody walks, keeps its length in z, times the median ratio of
    the lengths of all other edges.
    """
    edges = scipy.sparse.coo_array(graph.lengths)
    inside = graph.component[edges.row] == graph.component[edges.col]
    places = np.zeros((len(graph.component), COMPONENTS))
    for piece in range(graph.component.max() + 1):
        rows = np.flatnonzero(graph.component == piece)
        found = coordinates(graph.affinity[rows][:, rows])
        places[rows, : found.shape[1]] = found
    length = np.linalg.norm(places[edges.row] - places[edges.col], axis=1)
    ratio = np.median(length[inside] / edges.data[inside]) if inside.any() else 1.0
    length = np.where(inside, length, edges.data * ratio)
    parts = (np.maximum(length, SHORTEST), (edges.row, edges.col))
    lengths = scipy.sparse.csr_array(parts, shape=graph.lengths.shape)
    return NeighbourGraph(lengths, affinity(lengths), graph.component, graph.k, graph.bridges)


def coordinates(w: scipy.sparse.csr_array) -> Float[np.ndarray, "obs components"]:
    """psi of a connected graph, the slowest component first; each eigenvector has variance 1 over the walk.

    Args:
        w: Affinities, symmetric, connected.
    """
    walk, degree = symmetric_walk(w)
    value, vector = slowest(walk, degree, COMPONENTS)
    value = np.clip(value, 0, LARGEST)
    return vector * np.sqrt(degree.sum() / degree)[:, None] * (value / (1 - value))


def symmetric_walk(w: scipy.sparse.csr_array) -> tuple[scipy.sparse.csr_array, Float[np.ndarray, "obs"]]:
    """D^-1/2 W D^-1/2 with W the affinity divided by the degrees of both ends, and the degrees D of W."""
    inverse = scipy.sparse.diags_array(1 / w.sum(1))
    w = scipy.sparse.csr_array(inverse @ w @ inverse)
    degree = w.sum(1)
    root = scipy.sparse.diags_array(degree**-0.5)
    return scipy.sparse.csr_array(root @ w @ root), degree


def slowest(
    walk: scipy.sparse.csr_array, degree: Float[np.ndarray, "obs"], components: int
) -> tuple[Float[np.ndarray, "components"], Float[np.ndarray, "obs components"]]:
    """The largest eigenvalues of a symmetric walk and their eigenvectors, without the first, which is D^1/2."""
    count = walk.shape[0]
    if count <= max(DENSE, components + 1):
        value, vector = np.linalg.eigh(walk.toarray())
    else:
        value, vector = eigsh(walk, k=components + 1, which="LA", v0=np.sqrt(degree) + 1 / count)
    order = np.argsort(-value)[1 : components + 1]
    return value[order], vector[:, order]
