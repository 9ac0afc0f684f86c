"""Diffusion pseudotime: the simple order, here of principal components, that a trajectory of z has to beat.

    w    kernel of the k nearest neighbours, as wide as each neighbourhood, divided by the degrees of both ends
    T    D^-1/2 w D^-1/2, its eigenvalues 1 = l_0 > l_1 >= ... and eigenvectors psi_0, psi_1, ...
    t    |sum_i>0 l_i / (1 - l_i) (psi_i - psi_i(root))|, over the longest, in [0, 1], (obs,)

The sum is that of random walks of all lengths: with all eigenvectors t is the distance of two rows of
(1 - T + psi_0 psi_0')^-1 - 1. The first ones carry nearly all of it.

Source: Haghverdi et al. 2016, doi:10.1038/nmeth.3971; Coifman and Lafon 2006, doi:10.1016/j.acha.2006.04.006 (density
taken out). scanpy's `tl.dpt` on its Gaussian kernel is the same, but for what it adds of psi_0.
"""

import numpy as np
import scipy.sparse
from jaxtyping import Float, Int
from scipy.sparse.csgraph import connected_components
from scipy.spatial import cKDTree

from biovae.analysis.neighbourhoods.diffusion import slowest, symmetric_walk
from biovae.analysis.neighbourhoods.neighbours import nearest
from biovae.errors import InputError, first

K = 30  # neighbours: more than a way needs, since a walk averages over them
COMPONENTS = 15
LARGEST = 1 - 1e-9


def diffusion_pseudotime(
    z: Float[np.ndarray, "obs dimensions"],
    root: Int[np.ndarray, "roots"] | int,
    *,
    k: int = K,
    components: int = COMPONENTS,
) -> Float[np.ndarray, "obs"]:
    """t = |sum_i l_i / (1 - l_i) (psi_i - psi_i(root))| of the nearest root; NaN where no walk from a root leads.

    Args:
        z: Positions, for example principal components of log-normalised counts.
        root: The row that the order starts from, or several.
        k: Neighbours of each observation.
        components: Eigenvectors, without the first.

    Raises:
        InputError: There is no root, or it is no row of z.
    """
    roots = np.atleast_1d(np.asarray(root))
    if not len(roots) or roots.min() < 0 or roots.max() >= len(z):
        raise InputError(f"expected roots among rows 0 to {len(z) - 1}, found {first(roots)}: name an observation.")
    w = _kernel(z, k)
    piece = connected_components(w, directed=False)[1]
    t = np.full(len(z), np.nan)
    for number in np.unique(piece[roots]):
        rows = np.flatnonzero(piece == number)
        walk, degree = symmetric_walk(w[rows][:, rows])
        value, vector = slowest(walk, degree, components)
        value = np.minimum(value, LARGEST)
        places = vector * (value / (1 - value))
        t[rows] = cKDTree(places[np.isin(rows, roots)]).query(places)[0]
    return t / max(np.nanmax(t), np.finfo(np.float64).tiny)


def _kernel(z: np.ndarray, k: int) -> scipy.sparse.csr_array:
    """sqrt(2 s_i s_j / (s_i^2 + s_j^2)) exp(-d^2 / (s_i^2 + s_j^2)), s^2 the median squared distance to neighbours."""
    index, distance = nearest(z, k)
    square = np.maximum(np.median(distance**2, axis=1), np.finfo(np.float64).tiny)
    row, column = np.repeat(np.arange(len(z)), index.shape[1]), index.ravel()
    both = square[row] + square[column]
    value = np.sqrt(2 * np.sqrt(square[row]) * np.sqrt(square[column]) / both) * np.exp(-(distance.ravel() ** 2) / both)
    w = scipy.sparse.csr_array((value, (row, column)), shape=(len(z), len(z)))
    w = scipy.sparse.csr_array(w.maximum(w.T))
    w.eliminate_zeros()
    return w
