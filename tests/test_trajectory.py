"""Trajectories against brute force, closed forms, and simulations whose branches are known."""

from dataclasses import replace

import anndata as ad
import numpy as np
import pandas as pd
import pytest
import scipy.sparse
import scipy.sparse.linalg
from hypothesis import given
from hypothesis import strategies as st
from scipy.optimize import linear_sum_assignment
from scipy.stats import spearmanr

import biovae as bv
from biovae import plotting as pl
from biovae.analysis import (
    central,
    changes,
    direction,
    fate_probabilities,
    log_normalise,
    most_changing,
    neighbour_graph,
    pseudotime,
    trajectory,
    trends,
)
from biovae.analysis.trajectories.saddles import drains, find_ends
from biovae.analysis.trajectories.trends import _splines
from biovae.datasets import scenarios, simulate
from biovae.errors import InputError


def fork(seed=0, size=150, noise=0.08, apart=0.0):
    """A stem from 0 to 1 and two arms of length 1; the true way from the root, and the arm (0 is the stem).

    `apart` moves a third group of observations off, which nothing joins to the rest.
    """
    rng = np.random.default_rng(seed)
    arm = np.repeat([0, 1, 2], size)
    along = rng.random(3 * size)
    turn = np.array([0.0, 0.9, -0.9])[arm]
    start = np.where(arm[:, None] == 0, 0.0, [[1.0, 0.0]])
    z = start + along[:, None] * np.stack([np.cos(turn), np.sin(turn)], 1)
    z = np.hstack([z, np.zeros((len(z), 2))]) + noise * rng.standard_normal((len(z), 4))
    z[:, 2] += apart * (arm == 2)
    return z, along + (arm > 0), arm


def matched(found, true):
    """The share of observations on their own branch, under the best naming of the branches."""
    table = pd.crosstab(np.asarray(found), np.asarray(true)).to_numpy()
    return table[linear_sum_assignment(-table)].sum() / len(true)


# the graph


def test_the_graph_is_symmetric_connected_and_as_long_as_the_ways_are():
    z, _, _ = fork()
    graph = neighbour_graph(z)
    lengths = graph.lengths.toarray()
    row, column = np.nonzero(lengths)
    np.testing.assert_allclose(lengths[row, column], np.linalg.norm(z[row] - z[column], axis=1), atol=1e-12)
    np.testing.assert_array_equal(lengths, lengths.T)
    assert scipy.sparse.csgraph.connected_components(graph.lengths)[0] == 1
    assert graph.bridges.empty
    assert "one piece" in str(graph)


def test_a_bridge_is_laid_at_the_narrowest_place_and_said():
    z, _, arm = fork(apart=5.0)
    graph = neighbour_graph(z)
    every = np.linalg.norm(z[arm == 2][:, None] - z[arm != 2][None], axis=-1)
    assert len(graph.bridges) == 1
    assert graph.bridges["length"][0] == pytest.approx(every.min())
    assert len(set(graph.component[arm == 2])) == 1
    assert (graph.component[arm != 2] == 0).all()
    assert "2 pieces, joined by 1 bridge" in str(graph)


@given(st.integers(3, 60), st.integers(1, 8), st.integers(0, 20))
def test_any_cloud_becomes_one_piece(count, k, seed):
    rng = np.random.default_rng(seed)
    z = rng.standard_normal((count, 2)) + 20 * rng.integers(0, 4, (count, 1))
    z[: count // 3] = z[0]  # duplicates
    graph = neighbour_graph(z, k)
    assert scipy.sparse.csgraph.connected_components(graph.lengths)[0] == 1
    assert np.isfinite(pseudotime(graph, 0)).all()


def test_the_most_central_member_is_nearest_to_the_mean():
    z = np.array([[0.0], [1.0], [2.5], [9.0]])
    assert central(z, np.array([True, True, True, False])) == 1


# pseudotime


def test_pseudotime_is_the_shortest_way_of_brute_force():
    z, _, _ = fork(size=20)
    graph = neighbour_graph(z, 5)
    way = np.where(graph.lengths.toarray() > 0, graph.lengths.toarray(), np.inf)
    np.fill_diagonal(way, 0)
    for middle in range(len(z)):
        way = np.minimum(way, way[:, [middle]] + way[[middle]])
    np.testing.assert_allclose(pseudotime(graph, 3), way[3] / way[3].max(), atol=1e-9)
    np.testing.assert_allclose(
        pseudotime(graph, np.array([3, 7])), way[[3, 7]].min(0) / way[[3, 7]].min(0).max(), atol=1e-9
    )


# ends, drains and fates


def chain(t, edges):
    row, column = np.array(edges).T
    half = scipy.sparse.coo_array((np.ones(len(row)), (row, column)), shape=(len(t), len(t)))
    return scipy.sparse.csr_array(half + half.T), np.asarray(t, dtype=float)


def test_ends_are_peaks_that_stand_over_their_saddle():
    # 0-1-2-3 rises to 3; 1-4-5-6 rises to 6; 6-7 is a small peak beside it
    graph, t = chain([0, 0.2, 0.5, 0.9, 0.4, 0.7, 1.0, 0.95], [(0, 1), (1, 2), (2, 3), (1, 4), (4, 5), (5, 6), (5, 7)])
    ends = find_ends(graph, t, smallest=2, lift=0.3)
    assert sorted(sorted(m.tolist()) for m in ends.members) == [[2, 3], [4, 5, 6, 7]]
    (parting,) = ends.forks
    assert parting.level == pytest.approx(0.2)
    assert find_ends(graph, t, smallest=2, lift=0.75).forks == ()
    assert find_ends(graph, t, smallest=4, lift=0.1).forks == ()


def test_one_edge_between_two_branches_moves_no_fork():
    """Two arms of 40 from a common stem, every third neighbour joined, and one edge across near the tips."""
    stem, arm = np.arange(40), np.arange(40)
    t = np.concatenate([stem / 80, 0.5 + (arm + 1) / 80, 0.5 + (arm + 1) / 80 - 1e-3])
    ways = [np.arange(80), np.concatenate([stem, np.arange(80, 120)])]
    pairs = {(int(way[i]), int(way[j])) for way in ways for i in range(80) for j in range(i + 1, min(i + 4, 80))}
    row, column = np.array(sorted(pairs | {(75, 115)})).T
    graph = scipy.sparse.csr_array((np.ones(len(row)), (row, column)), shape=(120, 120))
    graph = scipy.sparse.csr_array(graph + graph.T)
    assert find_ends(graph, t, smallest=5, lift=0.1).forks == ()
    (fork,) = find_ends(graph, t, smallest=5, lift=0.1, shared=0.15).forks
    assert fork.level == pytest.approx(0.5, abs=0.05)
    lone = graph.tolil()
    lone[80:, :80] = lone[:80, 80:] = 0  # the second arm is held by the one edge alone
    lone[75, 115] = lone[115, 75] = 1
    (fork,) = find_ends(scipy.sparse.csr_array(lone), t, smallest=4, lift=0.04, shared=0.15).forks
    assert fork.level == t[[75, 115]].min()


def test_a_small_peak_drains_over_its_saddle():
    graph, t = chain([0, 0.2, 0.5, 0.9, 0.4, 0.7, 1.0, 0.95], [(0, 1), (1, 2), (2, 3), (1, 4), (4, 5), (5, 6), (5, 7)])
    absorbing = np.isin(np.arange(8), [3])
    beyond = drains(graph, t, absorbing)
    assert beyond[3] == -1
    assert beyond[7] == 6  # past the saddle at 5
    assert beyond[6] == 2  # past the saddle at 1


def brute_fates(graph, t, ends):
    """Absorption by a dense solve, crossings included."""
    affinity = graph.affinity.toarray()
    target = np.full(len(t), -1)
    for number, rows in enumerate(ends):
        target[rows] = number
    step = affinity * (t[None] > t[:, None])
    beyond = drains(graph.affinity, t, target >= 0)
    for i in np.flatnonzero(step.sum(1) == 0):
        step[i, beyond[i]] = 1
    step /= step.sum(1, keepdims=True)
    step[target >= 0] = 0
    right = (target[:, None] == np.arange(len(ends))).astype(float)
    return np.linalg.solve(np.eye(len(t)) - step, right)


@pytest.mark.parametrize("seed", range(5))
def test_fates_are_those_of_a_dense_solve_and_sum_to_one(seed):
    z, _, arm = fork(seed, size=40, noise=0.2)
    graph = neighbour_graph(z, 6)
    t = pseudotime(graph, 0)
    ends = [np.flatnonzero((arm == 1) & (t > 0.6)), np.flatnonzero((arm == 2) & (t > 0.5))]
    fates = fate_probabilities(graph, t, ends)
    np.testing.assert_allclose(fates, brute_fates(graph, t, ends), atol=1e-7)
    np.testing.assert_allclose(fates.sum(1), 1, atol=1e-7)
    assert fates.min() >= 0


@pytest.mark.parametrize("seed", range(3))
def test_a_fork_is_found_with_its_order_and_its_arms(seed):
    z, way, arm = fork(seed)
    found = trajectory(z, int(way.argmin()))
    clear = np.abs(way - 1) > 0.25
    assert len(found.ends) == 2
    assert spearmanr(found.pseudotime, way).statistic > 0.95
    assert matched(found.branch, arm) > 0.85  # at the fork itself nobody knows
    assert matched(found.branch[clear], arm[clear]) > 0.95
    assert matched(found.fates.to_numpy()[clear & (arm > 0)].argmax(1), arm[clear & (arm > 0)]) > 0.95
    assert found.fates.iloc[way.argmin()].between(0.1, 0.9).all()
    fork_at = np.interp(found.ends["fork"], np.sort(found.pseudotime), np.sort(way))
    assert ((fork_at > 0.8) & (fork_at < 1.7)).all()


def test_a_line_has_one_end():
    z, way, arm = fork()
    line = arm != 2
    found = trajectory(z[line], int(way[line].argmin()), labels=np.array(["stem", "arm", "x"])[arm[line]])
    assert [*found.ends.index] == ["arm"]
    assert (found.branch == "arm").all()
    np.testing.assert_allclose(found.fates, 1, atol=1e-9)


def test_an_end_beyond_a_bridge_is_called_so():
    z, way, arm = fork(apart=5.0)
    found = trajectory(z, int(way.argmin()), labels=np.array(["stem", "one", "two"])[arm])
    assert found.ends.loc["two", "bridged"]
    assert not found.ends.loc["one", "bridged"]
    assert "bridge" in str(found)


def test_draws_say_where_the_order_is_unsure():
    z, way, arm = fork()
    rng = np.random.default_rng(1)
    spread = np.where(arm == 1, 0.3, 0.01)[:, None]
    draws = [z + spread * rng.standard_normal(z.shape) for _ in range(10)]
    found = trajectory(z, int(way.argmin()), draws=draws)
    assert found.draws.shape == (10, len(z))
    assert np.median(found.deviation[arm == 1]) > 1.3 * np.median(found.deviation[arm == 2])
    still = trajectory(z, int(way.argmin()), draws=[z, z])
    np.testing.assert_allclose(still.deviation, 0, atol=1e-6)
    assert (still.agreement == 1).all()
    assert (still.ends["support"] == 1).all()
    assert np.isnan(trajectory(z, 0).deviation).all()


def test_noise_does_not_keep_the_ends():
    z, way, _ = fork()
    rng = np.random.default_rng(1)
    found = trajectory(z, int(way.argmin()), draws=[rng.standard_normal(z.shape) for _ in range(5)])
    assert (found.ends["support"] < 0.5).all()
    assert "fewer than half" in str(found)


def test_given_ends_absorb():
    z, way, arm = fork()
    ends = {"one": np.flatnonzero((arm == 1) & (way > 1.7)), "two": np.flatnonzero((arm == 2) & (way > 1.7))}
    found = trajectory(z, int(way.argmin()), given=ends)
    assert [*found.ends.index] == ["one", "two"]
    one = ends["one"][found.pseudotime[ends["one"]] >= np.median(found.pseudotime[ends["one"]])]
    np.testing.assert_array_equal(np.flatnonzero(found.absorbing == 0), one)
    np.testing.assert_allclose(found.fates["one"].iloc[one], 1)
    late = way > 1.25
    assert (found.fates.to_numpy()[late].argmax(1) + 1 == arm[late]).mean() > 0.95


# trends and direction


def genes_along(way, arm, seed=0):
    rng = np.random.default_rng(seed)
    truth = np.stack([way / 2, np.where(arm == 1, way - 1, 0).clip(0), np.full(len(way), 0.7)], 1)
    return truth + 0.2 * rng.standard_normal(truth.shape), ["rises", "one arm", "flat"]


def test_trends_follow_the_truth_on_each_branch():
    z, way, arm = fork(size=300)
    y, names = genes_along(way, arm)
    found = trajectory(z, int(way.argmin()), labels=np.array(["stem", "one", "two"])[arm])
    frame = trends(y, names, found)
    assert (frame["lower"] <= frame["upper"]).all()
    last = frame.groupby(["branch", "feature"]).last()["mean"]
    assert last["one", "rises"] == pytest.approx(1.0, abs=0.15)
    assert last["one", "one arm"] == pytest.approx(1.0, abs=0.2)
    assert last["two", "one arm"] == pytest.approx(0.0, abs=0.15)
    flat = frame[frame["feature"] == "flat"]
    assert flat["mean"].between(0.6, 0.8).all()
    assert ((flat["lower"] <= 0.7) & (flat["upper"] >= 0.7)).mean() > 0.7
    table = changes(frame)
    assert (table[table["feature"] == "flat"]["margin"] < 0.1).all()
    assert (table[table["feature"] == "rises"]["margin"] > 0.5).all()
    assert set(most_changing(y, names, found, 2)) == {"rises", "one arm"}
    sparse = trends(scipy.sparse.csr_array(y), names, found)
    pd.testing.assert_frame_equal(frame, sparse)


@given(st.floats(1e-3, 10))
def test_splines_reach_to_the_end_wherever_it_is(end):
    """They sum to 1 on a whole branch; an end that is no multiple of a ninth must not fall outside by rounding."""
    basis = _splines(np.array([0, end / 3, end, 2 * end]), end).toarray()
    np.testing.assert_allclose(basis.sum(1), 1, atol=1e-9)


def test_intervals_cover_at_their_rate():
    rng = np.random.default_rng(0)
    t = np.sort(rng.random(400))
    z = np.stack([t, np.zeros(400)], 1)
    truth = np.sin(3 * t)
    found = trajectory(z, 0)
    inside = []
    y = truth[:, None] + 0.3 * rng.standard_normal((400, 40))
    frame = trends(y, [f"g{i}" for i in range(40)], found)
    place = np.interp(frame["pseudotime"], found.pseudotime, truth)
    inside = (frame["lower"] <= place) & (place <= frame["upper"])
    assert 0.8 < inside.mean() < 0.97


def test_doubt_about_pseudotime_widens_the_intervals():
    z, way, arm = fork(size=200)
    y, names = genes_along(way, arm)
    rng = np.random.default_rng(1)
    draws = [z + 0.25 * rng.standard_normal(z.shape) for _ in range(10)]
    root = int(way.argmin())
    width = [
        (f["upper"] - f["lower"]).mean() for f in (trends(y, names, trajectory(z, root, draws=d)) for d in ((), draws))
    ]
    assert width[1] > 1.2 * width[0]


def test_features_that_hardly_an_observation_expresses_are_not_chosen():
    """Of all-zero features a curve explains nothing, of hardly detected ones by chance nearly all."""
    z, way, arm = fork(size=300)
    found = trajectory(z, int(way.argmin()))
    rng = np.random.default_rng(0)
    tip = np.flatnonzero(arm == 1)[np.argsort(-way[arm == 1])]
    y = np.zeros((len(z), 5))
    y[tip[:9], 1] = 5  # 9 at the very tip of an arm: one too few
    y[:, 2] = 1e4  # the same in all
    y[:, 3] = rng.poisson(2 * way)
    y[tip[:40], 4] = 5
    names = ["nowhere", "in nine", "constant", "rises", "in forty"]
    for values in (y, scipy.sparse.csr_array(y)):
        assert set(most_changing(values, names, found, 5, bounds=(0, np.inf))) == {"rises", "in forty"}
    assert "in nine" in most_changing(y, names, found, 5)  # of reals 0 is a value like others
    assert most_changing(y[:, :1], names[:1], found, 5) == []


def test_curves_keep_to_the_values_that_can_be_and_were_seen():
    z, way, arm = fork(size=300)
    y = np.where((arm == 1) & (way > 1.5), 1.0, 0.0)[:, None]  # curves overshoot a step
    found = trajectory(z, int(way.argmin()))
    values = ["mean", "lower", "upper"]
    free = trends(y, ["step"], found)
    kept = trends(y, ["step"], found, bounds=(0, 0.9))
    assert free[values].min(axis=None) == 0
    assert free[values].max(axis=None) == 1
    np.testing.assert_array_equal(kept[values], free[values].clip(0, 0.9))
    pd.testing.assert_frame_equal(free, trends(scipy.sparse.csr_array(y), ["step"], found))


def test_there_is_no_curve_where_a_branch_has_no_observations():
    z, way, arm = fork(apart=5.0)  # nothing lies on the way to the second arm
    found = trajectory(z, int(way.argmin()), labels=np.array(["stem", "one", "two"])[arm])
    y, names = genes_along(way, arm)
    frame = trends(y, names, found)
    two, t = frame[frame["branch"] == "two"], found.pseudotime
    reach = two["pseudotime"].max() / 9
    near = np.array([(np.abs(t[arm == 2] - place) <= reach).sum() for place in two["pseudotime"]])
    assert 0 < (near < 3).mean() < 1
    for column in ("mean", "lower", "upper"):
        np.testing.assert_array_equal(two[column].isna(), near < 3)
    assert frame[frame["branch"] == "one"].notna().all(axis=None)
    table = changes(frame).set_index(["branch", "feature"])
    assert table.loc["two", "flat"]["low"] == two[two["feature"] == "flat"]["mean"].min()
    assert np.isfinite(table).all(axis=None)
    assert "two" not in set(changes(frame.assign(mean=frame["mean"].where(frame["branch"] != "two")))["branch"])
    nothing = frame.assign(**{name: frame[name].where(frame["branch"] != "two") for name in ("mean", "lower", "upper")})
    for each in (frame, nothing, nothing[nothing["branch"] == "two"]):
        bv.pl.png(pl.trends(each, "flat").figure)  # without a warning


def test_unspliced_rna_tells_forward_from_backward():
    rng = np.random.default_rng(0)
    count, genes, gamma = 400, 60, 0.3
    time = np.sort(rng.random(count))
    rate = rng.choice([-3.0, 3.0], genes)
    s = 4 * np.exp(rate * (time[:, None] - 0.5))
    u = gamma * s + 0.15 * rate * s  # u = gamma s + ds/dt, in units of the splicing rate
    layers = [rng.poisson(np.maximum(x, 0)) for x in (s, u)]
    z = np.stack([4 * time, np.zeros(count)], 1) + 0.02 * rng.standard_normal((count, 2))
    forward, backward = (direction(*layers, trajectory(z, root)) for root in (0, count - 1))
    assert forward.mean > 3 * forward.chance > 0
    assert backward.mean == pytest.approx(-forward.mean, abs=0.1)
    assert forward.contributions.sum() == pytest.approx(forward.mean)
    assert np.nanmean(forward.cosine) == pytest.approx(forward.mean)
    assert "agrees" in str(forward)
    assert "against" in str(backward)


@pytest.mark.parametrize(
    ("act", "message"),
    [
        (lambda z: neighbour_graph(z[:2]), "at least 3"),
        (lambda z: trajectory(z, len(z)), "rows 0 to 449"),
        (lambda z: trajectory(z, np.array([], int)), "expected roots"),
        (lambda z: trajectory(z, 0, given={"a": np.array([0])}), "root among them"),
        (lambda z: trajectory(z, 0, given={"a": np.array([], int)}), "0 rows"),
        (lambda z: trajectory(z, 0, given={}), "at least one end"),
        (lambda z: central(z, np.zeros(len(z), bool)), "empty one"),
        (lambda z: trends(z[:5], list("abcd"), trajectory(z, 0)), r"\(450, 4\), found \(5, 4\)"),
        (lambda z: direction(z, z[:5], trajectory(z, 0)), "same genes"),
        (lambda z: direction(0 * z, 0 * z, trajectory(z, 0)), "found none of 4"),
    ],
)
def test_errors_say_what_was_found(act, message):
    z, _, _ = fork()
    with pytest.raises(InputError, match=message):
        act(z)


# the tools and the pictures


@pytest.fixture(scope="module")
def branching():
    """A small simulation of two lineages, a model of it, and its trajectory with draws."""
    states = scenarios.States(types=0, branches=2)
    adata = simulate(scenarios.Scenario(states=states), cells=500, genes=200, seed=0)
    vae = bv.VAE(bv.rna(), covariates=["batch"], latent=5).fit(adata, seed=0, epochs=40, progress=False)
    root = adata.obs_names[int(adata.obs["pseudotime_true"].to_numpy().argmin())]
    return vae, adata, bv.tl.trajectory(vae, adata, root, groups="cell_type", draws=5)


def test_the_tool_finds_order_and_lineages(branching):
    _, adata, found = branching
    assert spearmanr(found.pseudotime, adata.obs["pseudotime_true"]).statistic > 0.85
    assert {"lineage A", "lineage B"} <= set(found.ends.index)
    assert 0 < np.median(found.deviation) < 0.2
    assert found.agreement.mean() > 0.6


def test_the_same_seed_gives_the_same_trajectory(branching):
    vae, adata, found = branching
    again = bv.tl.trajectory(vae, adata, adata.obs_names[found.root[0]], groups="cell_type", draws=5)
    np.testing.assert_array_equal(found.draws, again.draws)
    other = bv.tl.trajectory(vae, adata, adata.obs_names[found.root[0]], draws=5, seed=1)
    np.testing.assert_array_equal(found.pseudotime, other.pseudotime)
    assert (found.draws != other.draws).any()


def test_roots_are_a_name_several_names_or_a_group(branching):
    vae, adata, _ = branching
    stem = adata.obs_names[adata.obs["cell_type"] == "progenitor"]
    whole = bv.tl.trajectory(vae, adata, [*stem], draws=0)
    assert (whole.pseudotime[(adata.obs["cell_type"] == "progenitor").to_numpy()] == 0).all()
    middle = bv.tl.trajectory(vae, adata, {"cell_type": "progenitor"}, draws=0)
    assert adata.obs_names[middle.root[0]] in stem
    given = bv.tl.trajectory(vae, adata, stem[0], groups="cell_type", ends=["lineage A", "lineage B"], draws=0)
    assert [*given.fates.columns] == ["lineage A", "lineage B"]


@pytest.mark.parametrize(
    ("how", "message"),
    [
        ({"root": "nobody"}, "found 1 others \\('nobody'\\)"),
        ({"root": {"cell_type": "progenitr"}}, "did you mean 'progenitor'"),
        ({"root": {"cel_type": "progenitor"}}, "did you mean 'cell_type'"),
        ({"root": {}}, "one column and one level"),
        ({"root": 0}, r"names of observations.* found 0 \(int\)"),
        ({"root": [0]}, r"names of observations.* found 0 \(int\)"),
        ({"root": []}, "names of observations.* found none"),
        ({"root": "nobody", "draws": -1}, "draws to be a whole number, found -1"),
        ({"root": "nobody", "draws": 1}, "0 draws, or at least 2 to have a spread, found 1"),
        ({"root": {"cell_type": "progenitor"}, "ends": ["lineage A"]}, "expected groups"),
        ({"root": {"cell_type": "progenitor"}, "ends": ["lineage Q"], "groups": "cell_type"}, "did you mean"),
    ],
)
def test_the_tool_says_what_it_lacks(branching, how, message):
    vae, adata, _ = branching
    with pytest.raises(InputError, match=message):
        bv.tl.trajectory(vae, adata, **{"draws": 0, **how})


def test_trends_of_the_tool_know_the_features(branching):
    vae, adata, found = branching
    frame = bv.tl.trends(vae, adata, found)
    assert frame["feature"].nunique() == 12
    assert set(frame["branch"]) == set(found.ends.index)
    assert (frame[["mean", "lower", "upper"]].min() >= 0).all()  # log1p of counts
    with pytest.raises(InputError, match="did you mean 'gene1"):
        bv.tl.trends(vae, adata, found, ["gene_1"])
    with pytest.raises(InputError, match="layer 'spliced'"):
        bv.tl.direction(adata, found)


def test_what_is_written_is_read_back(branching, tmp_path):
    vae, adata, found = branching
    adata = adata.copy()
    bv.tl.write_trajectory(adata, found)
    adata.write_h5ad(tmp_path / "a.h5ad")
    back = ad.read_h5ad(tmp_path / "a.h5ad")
    np.testing.assert_allclose(back.obs["dpt_pseudotime"], found.pseudotime)
    np.testing.assert_allclose(back.obsm["lineages_fwd"], found.fates)
    assert [*back.obs["term_states_fwd"].cat.categories] == [*found.fates.columns]
    assert back.obs["term_states_fwd"].notna().sum() == (found.absorbing >= 0).sum()
    graph = neighbour_graph(vae.embed(adata))
    assert (abs(back.obsp["connectivities"] - graph.affinity) > 1e-6).nnz == 0
    assert (abs(back.obsp["distances"] - graph.lengths) > 1e-6).nnz == 0
    np.testing.assert_array_equal(back.obs["term_states_fwd_probs"].notna(), found.absorbing >= 0)
    assert len(set(back.uns["term_states_fwd_colors"])) == found.fates.shape[1]
    assert back.obsp[back.uns["neighbors"]["distances_key"]].shape == (adata.n_obs, adata.n_obs)
    assert back.uns["iroot"] == found.root[0]
    with pytest.raises(InputError, match="500 observations"):
        bv.tl.write_trajectory(adata[:10].copy(), found)


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        (slice(None, None, -1), "in its order, found 'cell500' in place of 'cell1' and 500 of 500"),
        (slice(100), "the 500 observations of the trajectory, found 100"),
    ],
)
def test_other_observations_or_another_order_are_refused(branching, rows, message):
    vae, adata, found = branching
    assert [*found.fates.index] == [*adata.obs_names]
    other = adata[rows].copy()
    for act in (
        lambda: bv.tl.trends(vae, other, found),
        lambda: bv.tl.write_trajectory(other, found),
        lambda: bv.tl.direction(other, found),
    ):
        with pytest.raises(InputError, match=message):
            act()
    assert "dpt_pseudotime" not in other.obs


def test_a_trajectory_without_names_is_written_by_number(branching):
    _, adata, _ = branching
    adata = adata.copy()
    found = trajectory(adata.obsm["latent_true"], 0)
    bv.tl.write_trajectory(adata, found)
    np.testing.assert_array_equal(adata.obs["dpt_pseudotime"], found.pseudotime)


def test_zeros_and_ones_have_trends_between_them():
    rng = np.random.default_rng(0)
    level = np.linspace(0, 1, 300)
    x = (rng.random((300, 20)) < np.where(np.arange(20) < 10, level[:, None], 0.5)).astype(np.float32)
    x[:, 0] = 0
    data = ad.AnnData(x)
    vae = bv.VAE(bv.binary(), latent=2, hidden=16).fit(data, epochs=10, progress=False)
    found = bv.tl.trajectory(vae, data, "0", draws=0)
    frame = bv.tl.trends(vae, data, found)
    assert "0" not in set(frame["feature"])
    assert frame["lower"].min() >= 0
    assert frame["upper"].max() <= 1
    with pytest.raises(InputError, match="at least 10 of its observations express, found none"):
        bv.tl.trends(vae, ad.AnnData(np.zeros_like(x)), found)


def test_pictures_name_the_ends_and_refuse_other_data(branching):
    _, adata, found = branching
    ax = pl.trajectory(adata.obsm["latent_true"], found)
    written = {text.get_text() for text in ax.texts}
    assert set(found.ends.index) <= written
    assert sum(len(line.get_xdata()) > 1 for line in ax.lines) == 2 * (~found.ends["bridged"]).sum()
    for shown in (True, False):
        told = replace(found, ends=found.ends.assign(shown=shown))
        broken = [line for line in pl.trajectory(adata.obsm["latent_true"], told).lines if line.is_dashed()]
        assert len(broken) == (0 if shown else (~found.ends["bridged"]).sum())
    with pytest.raises(InputError, match="500 observations, found 3"):
        pl.trajectory(XY, found)
    frame = trends(log_normalise(adata.X)[:, [0]], ["gene1"], found)
    with pytest.raises(InputError, match="did you mean 'gene1'"):
        pl.trends(frame, "gene")
    with pytest.raises(InputError, match="none called upper"):
        pl.trends(frame.drop(columns="upper"))


XY = np.zeros((3, 2))
