"""Exact nearest neighbours of many points at once.

    points  those among which neighbours are sought, (points, dimensions)
    at      places that ask, (places, dimensions)

In up to 15 dimensions a k-d tree answers, in more all distances are computed. Points and places are taken in the order
of the leaves of a tree, so that those that ask one after the other read the same memory: nine times sooner than in
their own order for 200,000 points in 10 dimensions (LOG.md).

Source: Bentley 1975, doi:10.1145/361002.361007; Maneewongvatana and Mount 1999, arXiv:cs/9901013 (sliding midpoints).
"""

import numpy as np
import torch
from jaxtyping import Float, Int
from scipy.spatial import cKDTree
from sklearn.neighbors import NearestNeighbors

from biovae.analysis.neighbourhoods.positions import finite

DIMENSIONS = 15  # above so many a tree is slower than all distances
LEAF = 64  # points of a leaf
PLACES = 1 << 15  # that ask at once: an interrupt is heard between

Found = tuple[Int[np.ndarray, "places k"], Float[np.ndarray, "places k"]]


class Search:
    """Points among which neighbours are sought.

    Args:
        points: Positions.

    Raises:
        InputError: There are none, or one is not finite.
    """

    def __init__(self, points: Float[np.ndarray, "points dimensions"]) -> None:
        points = finite(points)
        self.order = side_by_side(points)
        self.points = np.ascontiguousarray(points[self.order])
        few = points.shape[1] <= DIMENSIONS
        self._by = _tree(self.points) if few else NearestNeighbors(algorithm="brute").fit(self.points)

    def __len__(self) -> int:
        """How many points there are."""
        return len(self.points)

    def at(self, places: Float[np.ndarray, "places dimensions"], k: int) -> Found:
        """Rows of the k nearest points of each place, the nearest first, and their distances; of fewer points all."""
        places = finite(places)
        order = side_by_side(places)
        index, distance = self._nearest(places[order], min(k, len(self)))
        return _back(self.order[index], order), _back(distance, order)

    def others(self, k: int) -> Found:
        """The same for every point itself, which is not its own neighbour; of fewer others all."""
        k = min(k, len(self) - 1)
        index, distance = self._nearest(self.points, k + 1)
        own = index == np.arange(len(self))[:, None]
        own[~own.any(1), -1] = True  # more than k points at the very same place: the last of them goes
        index, distance = (found[~own].reshape(len(self), k) for found in (index, distance))
        return _back(self.order[index], self.order), _back(distance, self.order)

    def _nearest(self, places: np.ndarray, k: int) -> Found:
        index, distance = np.empty((len(places), k), dtype=np.int64), np.empty((len(places), k))
        for start in range(0, len(places), PLACES):
            rows = slice(start, start + PLACES)
            if isinstance(self._by, NearestNeighbors):
                distance[rows], index[rows] = self._by.kneighbors(places[rows], k)
            else:
                found = self._by.query(places[rows], k=range(1, k + 1), workers=torch.get_num_threads())
                distance[rows], index[rows] = found
        return index, distance


def _tree(points: np.ndarray) -> cKDTree:
    return cKDTree(points, leafsize=LEAF, balanced_tree=False)


def side_by_side(points: Float[np.ndarray, "points dimensions"]) -> Int[np.ndarray, "points"]:
    """Rows in an order in which neighbours follow each other, as a tree holds them; of many dimensions as they are."""
    return _tree(points).indices if points.shape[1] <= DIMENSIONS else np.arange(len(points))


def _back(found: np.ndarray, order: np.ndarray) -> np.ndarray:
    own = np.empty_like(found)
    own[order] = found
    return own
