"""What a trajectory says of itself: a simple order beside it, and ends that the data do not show a way to."""

import anndata as ad
import numpy as np
import pytest
import scipy.sparse
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import spearmanr

import biovae as bv
from biovae.analysis import compare_orders, diffusion_pseudotime, neighbour_graph, stage_ranks, trajectory
from biovae.analysis.trajectories.trajectory import _committed
from biovae.analysis.trajectories.ways import emptiest, narrowest, needed
from biovae.datasets import scenarios, simulate
from biovae.errors import InputError
from test_trajectory import fork

# diffusion pseudotime


def dense_pseudotime(z, root, k):
    """Haghverdi et al. 2016: distances of the rows of (1 - T + psi_0 psi_0')^-1 - 1, every matrix written out."""
    square = ((z[:, None] - z[None]) ** 2).sum(-1)
    order = np.argsort(square + np.diag(np.full(len(z), -1.0)), axis=1)[:, 1 : k + 1]
    own = np.median(np.take_along_axis(square, order, 1), axis=1)
    both = own[:, None] + own
    kernel = np.sqrt(2 * np.sqrt(own[:, None] * own) / both) * np.exp(-square / both)
    near = np.zeros(square.shape, dtype=bool)
    np.put_along_axis(near, order, values=True, axis=1)
    w = np.where(near | near.T, kernel, 0)
    w /= np.outer(w.sum(1), w.sum(1))
    degree = w.sum(1)
    psi = np.sqrt(degree / degree.sum())
    t = w / np.sqrt(np.outer(degree, degree)) - np.outer(psi, psi)
    walks = np.linalg.inv(np.eye(len(z)) - t) - np.eye(len(z))
    distance = np.linalg.norm(walks - walks[root], axis=1)
    return distance / distance.max()


def test_diffusion_pseudotime_is_that_of_the_formula():
    z, way, _ = fork(size=50)
    root = int(way.argmin())
    truth = dense_pseudotime(z, root, 10)
    np.testing.assert_allclose(diffusion_pseudotime(z, root, k=10, components=len(z) - 1), truth, atol=1e-6)
    few = diffusion_pseudotime(z, root, k=10)  # the slowest walks carry nearly all of it
    assert spearmanr(few, truth).statistic > 0.995
    assert spearmanr(few, way).statistic > 0.95


def test_diffusion_pseudotime_is_that_of_scanpy():
    scanpy = pytest.importorskip("scanpy", reason="scanpy, an extra, is not installed")
    z, way, _ = fork()
    data = ad.AnnData(z, uns={"iroot": int(way.argmin())})
    scanpy.pp.neighbors(data, n_neighbors=31, method="gauss", use_rep="X", transformer="sklearn")
    scanpy.tl.diffmap(data, n_comps=16)
    scanpy.tl.dpt(data, n_dcs=16)
    ours = diffusion_pseudotime(z, int(way.argmin()))
    assert spearmanr(ours, data.obs["dpt_pseudotime"]).statistic > 0.999


def test_diffusion_pseudotime_is_that_of_the_nearest_root_and_ends_with_the_piece():
    z, _, arm = fork(size=60, apart=50.0)
    a, b = (diffusion_pseudotime(z, root) * 1.0 for root in (3, 100))
    both = diffusion_pseudotime(z, np.array([3, 100]))
    assert both[3] == both[100] == 0
    np.testing.assert_array_equal(np.isnan(both), arm == 2)
    np.testing.assert_array_equal(np.isnan(a), np.isnan(b))
    for root in (len(z), -1, np.array([], int)):
        with pytest.raises(InputError, match="rows 0 to 179"):
            diffusion_pseudotime(z, root)


# two orders and known stages


def test_agreement_is_spearmans_and_holds_it():
    rng = np.random.default_rng(0)
    t = np.round(rng.random(300), 1)  # with ties
    other = t + 0.3 * rng.standard_normal(300)
    other[:20] = np.nan
    found = compare_orders(t, other, "noise")
    value, lower, upper = found.scores.loc["agreement"]
    assert value == pytest.approx(spearmanr(t[20:], other[20:]).statistic)
    assert lower < value < upper
    assert "280 observations that it reaches" in str(found)
    assert "nothing here says which is right" in str(found)


def test_limits_hold_the_truth_at_their_rate():
    """Of pairs of normal variables with correlation r, Spearman's is 6 / pi asin(r / 2)."""
    rng, truth, inside = np.random.default_rng(0), 6 / np.pi * np.arcsin(0.6 / 2), []
    for _ in range(100):
        x = rng.standard_normal(200)
        y = 0.6 * x + 0.8 * rng.standard_normal(200)
        _, lower, upper = compare_orders(x, y, "").scores.loc["agreement"]
        inside.append(lower <= truth <= upper)
    assert 0.8 <= np.mean(inside) <= 0.98


@pytest.mark.parametrize(
    ("noise", "said"),
    [((0.1, 1.0), "the trajectory is nearer"), ((1.0, 0.1), "the baseline is nearer"), ((0.3, 0.3), "cannot be told")],
)
def test_the_better_order_is_named(noise, said):
    rng = np.random.default_rng(0)
    stage = np.repeat([0.0, 1, 2, np.nan], 100)
    t, other = (np.nan_to_num(stage) + size * rng.standard_normal(400) for size in noise)
    found = compare_orders(t, other, "the other", stage=stage)
    assert said in str(found)
    known = np.isfinite(stage)
    for name, order in {"trajectory": t, "baseline": other}.items():
        assert found.scores.loc[name, "spearman"] == pytest.approx(spearmanr(order[known], stage[known]).statistic)
    difference = found.scores.loc["trajectory", "spearman"] - found.scores.loc["baseline", "spearman"]
    assert found.scores.loc["difference", "spearman"] == pytest.approx(difference)


def test_groups_are_ranked_by_both_orders():
    labels = np.repeat(["a", "b", "c", "far"], 10)
    t = np.repeat([0.0, 1, 2, 3], 10)
    other = np.repeat([0.0, 2, 1, np.nan], 10)
    found = compare_orders(t, other, "the other", labels=labels)
    assert found.groups["rank"].dropna().to_dict() == {"a": 1, "b": 2, "c": 3}
    assert found.groups["baseline_rank"].dropna().to_dict() == {"a": 1, "c": 2, "b": 3}
    assert "a, b, c; in the baseline a, c, b" in str(found)
    assert "same order" in str(compare_orders(t, t, "", labels=labels))
    many = np.repeat([f"g{i:02}" for i in range(20)], 2)
    swapped = np.repeat(np.arange(20.0), 2)
    swapped[[0, 1, 38, 39]] = swapped[[38, 39, 0, 1]]
    said = str(compare_orders(np.repeat(np.arange(20.0), 2), swapped, "", labels=many))
    assert "Of 20 groups 2 have another rank, here and in the baseline: g00 (1, 20), g19 (20, 1)" in said


def test_two_stages_at_least():
    with pytest.raises(InputError, match="at least 2 stages among the 5 .* found 1"):
        compare_orders(np.arange(9.0), np.arange(9.0), "", stage=np.where(np.arange(9) < 5, 0, np.nan))
    with pytest.raises(InputError, match="found 9 and 8"):
        compare_orders(np.arange(9.0), np.arange(8.0), "")
    np.testing.assert_array_equal(stage_ranks(np.array(["x", "b", "a"]), ["a", ["b", "c"]]), [np.nan, 1, 0])


# ways


def separate_ways(graph, start, end):
    """Menger's number by brute force: the fewest observations that cut start from end, themselves included."""
    joined = (graph.lengths.toarray() > 0) & (graph.component[:, None] == graph.component)
    best = len(start)
    for code in range(2 ** len(joined)):
        gone = np.array([code >> i & 1 for i in range(len(joined))], dtype=bool)
        if gone.sum() >= best:
            continue
        left = joined & ~gone[:, None] & ~gone
        piece = scipy.sparse.csgraph.connected_components(left, directed=False)[1]
        apart = np.isin(piece[start[~gone[start]]], piece[end[~gone[end]]]).any()
        if not apart:
            best = gone.sum()
    return best


@given(st.integers(0, 30))
def test_as_many_ways_as_the_smallest_cut_has_observations(seed):
    z = np.random.default_rng(seed).standard_normal((9, 2))
    graph = neighbour_graph(z, 3)
    start, end = np.array([0, 1, 2]), np.array([6, 7, 8])
    found = narrowest(graph, start, end)
    assert found.ways == separate_ways(graph, start, end)


def test_the_cut_lies_where_it_is_narrow():
    """Two clouds, and two observations half way: two ways at most, whatever the clouds are."""
    rng = np.random.default_rng(0)
    z = np.concatenate([rng.random((60, 2)), rng.random((60, 2)) + [2, 0], [[1.5, 0.4], [1.5, 0.6]]])
    graph = neighbour_graph(z, 15)
    found = narrowest(graph, np.arange(30), np.arange(90, 120))
    assert 1 <= found.ways <= 2
    strays = {120, 121}
    assert set(found.before) <= set(range(60)) | strays
    assert set(found.behind) <= set(range(60, 120)) | strays
    assert narrowest(graph, np.arange(30), np.arange(30, 60)).ways > 15
    same = narrowest(graph, np.arange(60), np.arange(60))
    assert same.ways == 30  # 2 k, and no more is counted
    assert not len(same.before)


@pytest.mark.parametrize("size", [3, 40])
def test_a_thread_has_the_ways_that_are_asked_for(size):
    """One behind the other at equal distances: each reaches k / 2 on either side."""
    z = np.arange(200.0)[:, None]
    graph = neighbour_graph(z, 14)
    assert narrowest(graph, np.arange(28), np.arange(200 - size, 200)).ways == needed(14, 28, 2 * size)
    assert needed(15) == 7
    assert needed(15, 30, 1) == 1


def test_the_gap_is_the_longest_stretch_of_who_may_still_come():
    t = np.array([0.0, 0.1, 0.2, 0.5, 0.8, 0.9])
    fate = np.array([0.5, 0.5, 1, 0, 1, 1])
    assert emptiest(t, fate, np.array([0]), 0.8) == pytest.approx(0.6 / 0.8)
    assert emptiest(t, np.ones(6), np.array([0]), 0.8) == pytest.approx(0.3 / 0.8)
    assert emptiest(0 * t, fate, np.array([0]), 0.0) == 0


@pytest.mark.parametrize("seed", range(3))
def test_branches_of_a_continuum_are_shown_and_what_strays_lead_to_is_not(seed):
    z, way, arm = fork(seed, noise=0.2)
    labels = np.array(["stem", "one", "two"])[arm]
    found = trajectory(z, int(way.argmin()), labels=labels)
    assert found.ends["shown"].all()
    assert "do not show" not in str(found)
    apart, _, _ = fork(seed, noise=0.2, apart=3.0)
    strays = np.linspace(0, 1, 6)[1:-1, None] * (apart[arm == 2].mean(0) - z[arm == 1].mean(0)) + z[arm == 1].mean(0)
    ends = {name: np.flatnonzero(labels == name) for name in ("one", "two")}
    labels = np.array([*labels, *["stray"] * len(strays)])
    found = trajectory(np.vstack([apart, strays]), int(way.argmin()), given=ends, labels=labels)
    assert found.ends["shown"].to_dict() == {"one": True, "two": False}
    assert "do not show a transition to: two (" in str(found)


def test_who_is_certain_where_the_root_is_certain_is_committed():
    fates = np.array([[1.0, 0.0], [1.0, 0.0], [0.7, 0.3], [0.0, 1.0]])
    np.testing.assert_array_equal(_committed(fates, np.array([0])), [0, 0, -1, 1])
    np.testing.assert_array_equal(_committed(fates, np.array([2])), [0, 0, -1, 1])


# what other programs read


def test_scanpy_reads_the_graph_and_the_root(lineages, tmp_path):
    scanpy = pytest.importorskip("scanpy", reason="scanpy, an extra, is not installed")
    back = written(lineages, tmp_path)
    scanpy.tl.paga(back, groups="cell_type")
    joined = back.uns["paga"]["connectivities"].toarray()
    names = [*back.obs["cell_type"].cat.categories]
    assert joined[names.index("progenitor"), names.index("lineage A")] > 0.01
    assert joined[names.index("type 1"), names.index("lineage A")] < 0.01
    scanpy.tl.umap(back)
    scanpy.tl.diffmap(back)
    own = back.obs["dpt_pseudotime"].to_numpy()
    scanpy.tl.dpt(back)  # from uns["iroot"], over the graph
    reached = np.isfinite(back.obs["dpt_pseudotime"])
    assert spearmanr(back.obs["dpt_pseudotime"][reached], own[reached]).statistic > 0.8


def test_cellrank_reads_pseudotime_fates_and_terminal_states(lineages, tmp_path):
    cellrank = pytest.importorskip("cellrank", reason="cellrank is not installed")
    back = written(lineages, tmp_path)
    kernel = cellrank.kernels.PseudotimeKernel(back, time_key="dpt_pseudotime")
    kernel.compute_transition_matrix(show_progress_bar=False).write_to_adata()
    cellrank.kernels.ConnectivityKernel(back).compute_transition_matrix()
    fates = back.obsm["fate_probabilities"]
    lineage = cellrank.Lineage.from_adata(back)
    assert [*lineage.names] == [*fates.columns]
    np.testing.assert_allclose(lineage.X, fates)
    read = cellrank.estimators.CFLARE.from_adata(back, obsp_key="T_fwd")
    assert [*read.terminal_states.cat.categories] == [*fates.columns]
    assert (read.terminal_states == back.obs["term_states_fwd"])[back.obs["term_states_fwd"].notna()].all()


def written(lineages, folder):
    vae, adata, root = lineages
    adata = adata.copy()
    ends = ["lineage A", "lineage B"]
    bv.tl.write_trajectory(
        adata, bv.tl.trajectory(vae, adata, root, groups="cell_type", ends=ends, draws=0, baseline=False)
    )
    adata.write_h5ad(folder / "a.h5ad")
    return ad.read_h5ad(folder / "a.h5ad")


# the tool


@pytest.fixture(scope="module")
def lineages():
    """Two lineages, and two types that nothing joins to them."""
    states = scenarios.States(types=2, branches=2)
    adata = simulate(scenarios.Scenario(states=states), cells=2000, genes=300, seed=0)
    vae = bv.VAE(bv.rna(), covariates=["batch"]).fit(adata, seed=0, epochs=40, progress=False)
    return vae, adata, adata.obs_names[int(np.nanargmin(adata.obs["pseudotime_true"].to_numpy()))]


def test_the_tool_tells_branches_from_types_and_judges_itself(lineages):
    vae, adata, root = lineages
    ends = ["lineage A", "lineage B", "type 1", "type 2"]
    order = ["progenitor", ["lineage A", "lineage B"]]
    found = bv.tl.trajectory(vae, adata, root, groups="cell_type", ends=ends, order=order, draws=0)
    assert found.ends["shown"].to_dict() == {name: name.startswith("lineage") for name in ends}
    assert "do not show a transition to: type 1 (" in str(found)
    stage = adata.obs["cell_type"].astype(str).map({"progenitor": 0, "lineage A": 1, "lineage B": 1}).to_numpy()
    reached = np.isfinite(stage) & np.isfinite(found.baseline.pseudotime)
    for name, t in {"trajectory": found.pseudotime, "baseline": found.baseline.pseudotime}.items():
        expected = spearmanr(t[reached], stage[reached]).statistic
        assert found.baseline.scores.loc[name, "spearman"] == pytest.approx(expected)
    assert "diffusion pseudotime on 20 principal components without the covariates".capitalize() in str(found)
    true = adata.obs["pseudotime_true"].to_numpy()
    assert spearmanr(found.baseline.pseudotime[reached], true[reached]).statistic > 0.85  # a baseline worth beating


def test_the_baseline_can_be_left_out(lineages):
    vae, adata, root = lineages
    found = bv.tl.trajectory(vae, adata, root, baseline=False, draws=0)
    assert found.baseline is None
    assert "baseline" not in str(found)


@pytest.mark.parametrize(
    ("how", "message"),
    [
        ({"order": ["progenitor", "lineage A"]}, "expected groups"),
        ({"order": ["progenitor", "lineage A"], "groups": "cell_type", "baseline": False}, "expected baseline=True"),
        ({"order": ["progenitor", "lineage"], "groups": "cell_type"}, "did you mean 'lineage B'"),
        ({"order": ["progenitor"], "groups": "cell_type"}, "2 stages at least.* found 1"),
        ({"order": ["progenitor", ["progenitor", "lineage A"]], "groups": "cell_type"}, "named twice \\('progenitor'"),
    ],
)
def test_an_order_that_cannot_be_used_is_refused(lineages, how, message):
    vae, adata, root = lineages
    with pytest.raises(InputError, match=message):
        bv.tl.trajectory(vae, adata, root, draws=0, **how)
