"""Bridges between the pieces of a neighbour graph: the nearest pairs, by brute force, and short ones where many are."""

import numpy as np
import pytest
import scipy.sparse
from scipy.sparse.csgraph import connected_components
from scipy.spatial.distance import cdist

from biovae.analysis.neighbourhoods import neighbour_graph as module


def pieces(seed):
    """Clumps of 1 to 300 points, and which clump each belongs to, the largest first."""
    rng = np.random.default_rng(seed)
    sizes = [300, 250, *rng.integers(1, 40, rng.integers(1, 10))]
    z = np.concatenate([0.3 * rng.normal(size=(n, 3)) + 6 * rng.normal(size=3) for n in sizes])
    label = np.repeat(np.arange(len(sizes)), sizes)
    order = np.argsort(-np.bincount(label), kind="stable")
    return z, np.argsort(order)[label]


def by_brute_force(z, label):
    found, now, far = set(), label, cdist(z, z)
    while now.max() > 0:
        for piece in range(1, now.max() + 1):
            rows, others = np.flatnonzero(now == piece), np.flatnonzero(now != piece)
            a, b = np.unravel_index(far[np.ix_(rows, others)].argmin(), (len(rows), len(others)))
            found.add((min(rows[a], others[b]), max(rows[a], others[b])))
        one, other = np.array(sorted(found)).T
        links = scipy.sparse.coo_array((np.ones(len(one)), (label[one], label[other])), shape=(label.max() + 1,) * 2)
        now = connected_components(links, directed=False)[1][label]
        now = np.argsort(np.argsort(-np.bincount(now), kind="stable"))[now]
    return found


@pytest.mark.parametrize("seed", range(6))
def test_every_piece_reaches_the_nearest_observation_outside(seed):
    z, label = pieces(seed)
    bridges = module._bridges(z, label)
    assert {*map(tuple, bridges[["one", "other"]].to_numpy())} == by_brute_force(z, label)
    ends = z[bridges["one"]] - z[bridges["other"]]
    np.testing.assert_allclose(bridges["length"], np.linalg.norm(ends, axis=1))


@pytest.mark.parametrize("seed", range(3))
def test_where_pieces_are_large_a_short_bridge_will_do(seed, monkeypatch):
    z, label = pieces(seed)
    exact = module._bridges(z, label)
    monkeypatch.setattr(module, "SMALL", 0)
    monkeypatch.setattr(module, "PAIRS", 0)
    near = module._bridges(z, label)
    assert len(near) == label.max()
    assert exact["length"].sum() <= near["length"].sum() * (1 + 1e-9) <= 1.1 * exact["length"].sum()
