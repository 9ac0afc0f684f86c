"""States lie where the map says, and types are as recoverable as the truth allows."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from biovae.datasets import Scenario, States, bayes_types, expected, forbidden, scenarios, simulate
from biovae.datasets.landscape import distance, lay_out


def test_shares_of_types_are_uneven_as_asked():
    adata = simulate(Scenario(states=States(types=3, unevenness=1.0)), cells=5000, genes=2)
    share = adata.obs["cell_type"].value_counts(normalize=True)[["type 1", "type 2", "type 3"]]
    np.testing.assert_allclose(share, np.array([6, 3, 2]) / 11, atol=0.03)


def test_expression_follows_its_formula():
    # Written out from the stored truth, cell by cell and programme by programme.
    adata = simulate(scenarios.DEMO, cells=20, genes=40)
    truth = adata.uns["truth"]
    for cell, u in enumerate(adata.obsm["latent_true"]):
        activity = [1 / (1 + (_way(u, *a) / h) ** 4) for a, h in zip(truth["anchors"], truth["halfway"], strict=True)]
        activity += [
            1 / (1 + np.exp(-(u @ w - t))) for w, t in zip(truth["directions"], truth["thresholds"], strict=True)
        ]
        f = adata.var["baseline_true"].to_numpy() + adata.varm["programmes_true"] @ np.array(activity)
        np.testing.assert_allclose(expected(adata)[cell], np.exp(f) / np.exp(f).sum(), rtol=1e-4)


def test_the_gap_is_forbidden_and_its_shores_are_not():
    adata = simulate(scenarios.GAP_AND_BRIDGE, cells=2000, genes=2)
    (start, end) = adata.uns["truth"]["gaps"][0]
    across = start + np.linspace(0.01, 0.99, 50)[:, None] * (end - start)
    assert forbidden(adata, across).all()
    assert not forbidden(adata, np.stack([start - 0.01 * (end - start), end + 0.01 * (end - start)])).any()
    assert np.linalg.norm(end - start) > 5 * adata.uns["truth"]["spread"]
    assert expected(adata, across).shape == (50, 2)


def test_an_unsampled_bridge_leaves_out_its_cells_alone():
    sampled = simulate(scenarios.GAP_AND_BRIDGE.but(states={"bridge": "sampled"}), cells=400, genes=50)
    unsampled = simulate(scenarios.GAP_AND_BRIDGE, cells=400, genes=50)
    bridge = sampled.obs["bridge_true"].to_numpy()
    assert bridge.sum() > 20
    assert (sampled.obs["cell_type"][bridge] == "intermediate").all()
    assert list(unsampled.obs_names) == list(sampled.obs_names[~bridge])
    assert (unsampled.X != sampled.X[~bridge]).nnz == 0
    assert not forbidden(unsampled, sampled.obsm["latent_true"][bridge]).any()


def test_a_mirrored_map_is_the_same_upside_down():
    plain, mirrored = (lay_out(States(types=4, branches=2, gap=True, mirrored=m)) for m in (False, True))
    np.testing.assert_allclose(mirrored.pieces, plain.pieces * [1, -1])
    np.testing.assert_allclose(mirrored.gaps, plain.gaps * [1, -1])
    np.testing.assert_array_equal(mirrored.shares, plain.shares)


def test_a_bridge_leads_from_one_type_to_the_other():
    truth = simulate(scenarios.GAP_AND_BRIDGE, cells=10, genes=2).uns["truth"]
    pieces = dict(zip(truth["states"], truth["pieces"], strict=True))
    np.testing.assert_allclose(pieces["intermediate"], [pieces["type 3"][1], pieces["type 4"][1]])


def test_pseudotime_runs_from_the_root_along_the_branches():
    adata = simulate(scenarios.DEMO.but(states={"spread": 0.0}), cells=1000, genes=200)
    obs, u = adata.obs, adata.obsm["latent_true"]
    timed = obs["pseudotime_true"].notna().to_numpy()
    assert list(obs["branch_true"].cat.categories) == ["lineage A", "lineage B", "progenitor"]
    np.testing.assert_array_equal(timed, obs["branch_true"].notna())
    np.testing.assert_array_equal(timed, ~obs["cell_type"].astype(str).str.startswith("type"))
    fork = adata.uns["truth"]["pieces"][list(adata.uns["truth"]["states"]).index("progenitor")][1]
    early = (obs["branch_true"] == "progenitor").to_numpy()
    way = np.where(early, np.linalg.norm(u, axis=1), np.linalg.norm(fork) + np.linalg.norm(u - fork, axis=1))
    np.testing.assert_allclose(obs["pseudotime_true"][timed], way[timed] / (3 * np.linalg.norm(fork)), atol=1e-6)


@pytest.mark.parametrize("strength", [0.0, 0.15, 1.5])
def test_types_are_as_recoverable_as_their_programmes_are_strong(strength):
    adata = simulate(scenarios.TYPES.but(programmes={"strength": strength}), cells=1000, genes=300)
    chance = adata.obs["cell_type"].value_counts(normalize=True).max()
    low, high = {0.0: (chance - 0.03, chance + 0.03), 0.15: (chance + 0.05, 0.98), 1.5: (0.99, 1.0)}[strength]
    assert low <= bayes_types(adata).accuracy <= high


@given(st.lists(st.floats(-5, 5), min_size=6, max_size=6))
def test_distance_is_the_shortest_way(numbers):
    u, start, end = np.array(numbers).reshape(3, 2)
    points = start + np.linspace(0, 1, 2001)[:, None] * (end - start)
    shortest = np.linalg.norm(u - points, axis=1).min()
    assert distance(u[None], np.stack([start, end])[None])[0, 0] == pytest.approx(shortest, abs=0.01)


@settings(max_examples=40)
@given(types=st.integers(4, 40), branches=st.integers(0, 6), spread=st.floats(0, 0.3))
def test_types_stay_apart_on_every_map(types, branches, spread):
    land = lay_out(States(types=types, branches=branches, gap=True, bridge="absent", spread=spread))
    discrete = [i for i, name in enumerate(land.names) if name.startswith("type")]
    for i in discrete:
        others = np.delete(land.pieces, i, axis=0)
        assert distance(land.pieces[i], others).min() > 2 * land.reach
    assert land.shares.sum() == pytest.approx(1)


def _way(u: np.ndarray, start: np.ndarray, end: np.ndarray) -> float:
    points = start + np.linspace(0, 1, 20_001)[:, None] * (end - start)
    return np.linalg.norm(u - points, axis=1).min()
