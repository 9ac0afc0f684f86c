"""Ensembles, and what they say is stable: on maps made by hand, on small fits, and on disk."""

from itertools import combinations

import numpy as np
import pandas as pd
import pytest
from scipy import stats
from scipy.stats import ortho_group

import biovae as bv
import test_ensemble
from biovae.analysis import (
    Differential,
    Null,
    agreement,
    align,
    calls_held,
    nearest,
    neighbours_shared,
    order_held,
    pooled,
    same_cluster,
    shared_neighbours,
    stability,
    together,
    trajectory,
)
from biovae.analysis.models.agreement import kept_apart
from biovae.errors import InputError
from biovae.tools.trajectory import root_rows
from biovae.training import progress

model, cells, fitted = test_ensemble.model, test_ensemble.cells, test_ensemble.fitted  # two are fixtures

# maps by hand

RNG = np.random.default_rng(0)
CENTRES = 8 * np.eye(4)
KIND = np.repeat([0, 1, 2, 3], 60)
MAP = CENTRES[KIND] + RNG.normal(size=(240, 4))


def turned(z, seed):
    return (z - z.mean(0)) @ ortho_group.rvs(z.shape[1], random_state=seed) + 3


def test_same_cluster_is_the_overlap_of_the_sets_that_hold_it():
    a, b = RNG.integers(4, size=50), RNG.integers(3, size=50).astype(str)
    for i, found in enumerate(same_cluster(a, b)):
        one, other = set(np.flatnonzero(a == a[i])), set(np.flatnonzero(b == b[i]))
        assert found == pytest.approx(len(one & other) / len(one | other))


def test_together_counts_pairs():
    partitions, groups = RNG.integers(3, size=(4, 40)), np.array([*"abc"])[RNG.integers(3, size=40)]
    found = together(partitions, groups)
    for one in "abc":
        for other in "abc":
            pairs = [(i, j) for i in range(40) for j in range(40) if i != j and groups[i] == one and groups[j] == other]
            share = np.mean([partitions[:, i] == partitions[:, j] for i, j in pairs])
            assert found.loc[one, other] == pytest.approx(share)


def test_a_group_of_one_has_nobody_to_be_together_with():
    found = together(np.zeros((2, 3), int), ["a", "b", "b"])
    assert np.isnan(found.loc["a", "a"])
    assert found.loc["a", "b"] == 1


def test_shares_of_neighbours_are_those_of_sets():
    a, b = nearest(MAP, 7)[0], nearest(MAP + RNG.normal(size=MAP.shape), 7)[0]
    each = [len(set(x) & set(y)) / 7 for x, y in zip(a, b, strict=True)]
    np.testing.assert_allclose(neighbours_shared(a, b), each)
    assert shared_neighbours(a, b) == pytest.approx(np.mean(each))


def test_what_is_turned_and_moved_is_turned_back():
    aligned = align([MAP, turned(MAP, 1), turned(MAP, 2)])
    for one in aligned:
        np.testing.assert_allclose(one, MAP - MAP.mean(0), atol=1e-9)


def test_the_rotation_is_the_best_there_is():
    other = turned(MAP, 1) + RNG.normal(size=MAP.shape)
    aligned = align([MAP, other])
    best = ((aligned[1] - aligned[0]) ** 2).sum()
    for seed in range(50):
        step = ortho_group.rvs(4, random_state=seed)
        assert ((aligned[1] @ step - aligned[0]) ** 2).sum() > best
    small = np.eye(4)
    small[:2, :2] = [[np.cos(0.01), -np.sin(0.01)], [np.sin(0.01), np.cos(0.01)]]
    assert ((aligned[1] @ small - aligned[0]) ** 2).sum() > best


def test_maps_that_differ_by_a_rotation_agree_on_all():
    found = stability([turned(MAP, seed) for seed in range(3)])
    assert found.summary.loc["fits", ["neighbours", "clusters", "clusters_lowest"]].tolist() == [1, 1, 1]
    assert found.groups["stable"].all()
    assert found.groups["observations"].tolist() == [60] * 4
    np.testing.assert_allclose(found.cells["between"], 0, atol=1e-6)
    np.testing.assert_allclose(found.dimensions["kept"], 1)
    assert "All 4 clusters are found again in every fit (worst 1.00)" in str(found)


def falling_apart():
    """Three maps of which one puts group c upon group d."""
    there = [turned(MAP, seed) for seed in range(2)]
    upon = MAP - np.where(KIND == 2, 1, 0)[:, None] * (CENTRES[2] - CENTRES[3])
    return [*there, upon]


def test_a_cluster_that_falls_apart_is_named_with_what_it_goes_over_into():
    found = stability(falling_apart(), groups=np.array([*"abcd"])[KIND])
    assert found.unstable == ["c", "d"]
    # One of three maps is alone with its opinion: two pairs of three disagree, on half of the union.
    assert found.groups.loc["c", "clusters"] == pytest.approx((1 + 0.5 + 0.5) / 3)
    assert found.groups.loc["c", "mixes_with"] == "d"
    assert found.groups.loc["c", "mixed"] == pytest.approx(1 / 3)
    assert found.groups.loc["a", "together"] == 1
    said = str(found)
    assert "Not apart from the others in every fit" in said
    apart = found.groups.loc["c", "apart"]
    assert 0.2 < apart < 0.5  # on one another half of the nearest are their own, a quarter by chance
    assert f"c (60 observations, {apart:.2f}, goes over into d)" in said
    assert "a (60" not in said
    assert found.summary.loc["fits", "least"] == 3
    assert "3 to 4 clusters" in said


def test_clusters_that_fall_apart_are_not_to_be_reported():
    found = stability(falling_apart())
    assert len(found.unstable) == 2
    assert "Not found again at this resolution, and not to be reported" in str(found)
    assert "apart" not in found.groups


def test_clusters_that_are_given_are_judged_as_clusters():
    found = stability(falling_apart(), groups=np.array([*"abcd"])[KIND], clusters=True)
    assert found.unstable == ["c", "d"]
    assert "apart" not in found.groups
    assert "Not found again at this resolution" in str(found)


def test_named_groups_are_judged_by_their_neighbours_and_not_by_clusters():
    """At a resolution where clusters are random pieces, groups that lie apart are apart all the same."""
    named = np.array([*"abcd"])[KIND]
    found = stability(
        [turned(MAP, seed) + RNG.normal(0, 0.2, MAP.shape) for seed in range(3)], groups=named, resolution=9
    )
    assert (found.groups["clusters"] < 0.75).all()
    assert not found.unstable
    assert "All 4 groups are apart from all others in every fit (worst 1.00)" in str(found)


def test_how_far_a_group_is_apart_is_counted_in_neighbours():
    z = np.array([0, 1, 2, 10, 11, 12.5, 2.6, 30])[:, None]
    named = np.array([*"aaabbbac"])
    index = np.argsort(np.abs(z - z.T) + 1e9 * np.eye(8), axis=1)[:, :4]
    found = kept_apart(index, named)
    shares = {name: [] for name in "abc"}
    for i, own in enumerate(named):
        near = index[i][: min(4, (named == own).sum() - 1)]
        shares[own].append(np.mean(named[near] == own) if len(near) else 0)
    for name, size in (("a", 4), ("b", 3), ("c", 1)):
        chance = (size - 1) / 7
        assert found[name] == pytest.approx((np.mean(shares[name]) - chance) / (1 - chance))
    assert kept_apart(index, np.full(8, "a"))["a"] == 1


def test_a_dimension_that_others_do_not_have_is_named():
    maps = [np.column_stack([MAP[:, :3], np.random.default_rng(seed).normal(0, 3, size=240)]) for seed in range(3)]
    found = stability(maps)
    assert found.dimensions["kept"].iloc[:3].min() > 0.9
    assert found.dimensions["kept"].iloc[3] < 0.5
    assert "Do not interpret dimension 3: other seeds do not find it" in str(found)


def test_a_silent_dimension_is_not_judged():
    found = stability([np.column_stack([MAP, np.full(240, 1e-3 * seed)]) for seed in range(2)])
    assert np.isnan(found.dimensions["kept"].iloc[4])


def test_references_stand_beside_the_fits():
    noisy = [MAP + np.random.default_rng(seed).normal(size=MAP.shape) for seed in range(2)]
    found = stability([MAP, turned(MAP, 1)], references={"noise": noisy})
    assert found.summary.index.tolist() == ["fits", "noise"]
    assert found.summary.loc["noise", "neighbours"] == pytest.approx(
        shared_neighbours(nearest(noisy[0])[0], nearest(noisy[1])[0])
    )
    assert "No more than between noise." in str(found)
    worse = stability(noisy, references={"a line": [MAP, MAP]})
    assert "Neighbours change more from fit to fit than between a line." in str(worse)
    assert {"clusters, noise", "neighbours, noise"} <= set(found.groups.columns)


def test_doubt_within_a_fit_is_the_root_of_the_summed_variances():
    found = stability([MAP, turned(MAP, 1)], [np.full((240, 4), 0.25), np.full((240, 4), 0.75)])
    np.testing.assert_allclose(found.cells["within"], np.sqrt(4 * 0.5))


def test_without_structure_all_is_said_to_be_unstable():
    maps = [np.random.default_rng(seed).normal(size=(300, 4)) for seed in range(3)]
    found = stability(maps)
    assert found.summary.loc["fits", "clusters"] < 0.05
    assert not found.groups["stable"].any()
    assert found.summary.loc["fits", "neighbours"] == pytest.approx(15 / 299, abs=0.03)


WRONG = {
    "one map": (lambda: agreement([MAP]), "two maps"),
    "shapes": (lambda: stability([MAP, MAP[:, :3]]), "one shape"),
    "references": (lambda: stability([MAP, MAP], references={"x": [MAP[:99], MAP[:99]]}), "the same 240"),
    "labels": (lambda: stability([MAP, MAP], groups=["a"]), "240 labels"),
    "one estimate": (lambda: pooled(np.ones((1, 3)), np.ones((1, 3))), "two fits"),
    "one result": (lambda: calls_held([DIFFERENCES[0]]), "same comparisons"),
    "one trajectory": (lambda: order_held([]), "two trajectories"),
}


# claims


def differences(change, fdr, wide=0.2):
    frame = pd.DataFrame(
        {
            "group": "a", "reference": "b", "feature": ["g1", "g2", "g3", "g4"], "log2_fold_change": change,
            "lower": np.array(change) - wide, "upper": np.array(change) + wide, "probability": 1 - np.array(fdr),
            "expected_fdr": fdr,
        }
    )  # fmt: skip
    return Differential(frame, Null())


DIFFERENCES = [
    differences([2.0, 1.0, 0.1, np.nan], [0.0, 0.01, 0.6, np.nan]),
    differences([2.2, 0.4, 0.1, np.nan], [0.0, 0.3, 0.6, np.nan]),
    differences([2.1, 0.9, 0.1, np.nan], [0.0, 0.02, 0.01, np.nan]),
]


@pytest.mark.parametrize(("wrong", "says"), WRONG.values(), ids=WRONG.keys())
def test_what_cannot_be_compared_is_refused(wrong, says):
    with pytest.raises(InputError, match=says):
        wrong()


def test_calls_are_counted_whatever_the_order_of_the_rows():
    shuffled = Differential(DIFFERENCES[1].frame.iloc[[3, 1, 0, 2]], Null())
    found = calls_held([DIFFERENCES[0], shuffled, DIFFERENCES[2]]).set_index("feature")
    assert found["called"].tolist() == [3, 2, 1, 0]
    assert found["first"].tolist() == [True, True, False, False]
    assert found.loc["g2", "log2_fold_change"] == pytest.approx(2.3 / 3)
    assert found.loc["g2", "between"] == pytest.approx(np.std([1.0, 0.4, 0.9], ddof=1))
    assert found.loc["g2", "within"] == pytest.approx(0.2 / stats.norm.ppf(0.975))
    assert found.loc["g2", "probability"] == pytest.approx(0.7)
    assert found.loc["g4"].isna().sum() == 6
    width = found["upper"] - found["lower"]
    assert width["g3"] == pytest.approx(0.4, rel=1e-3)  # fits that do not differ: the interval of one
    assert width["g2"] > 1


def test_only_the_order_of_pseudotime_is_compared():
    line = np.column_stack([np.linspace(0, 10, 80), RNG.normal(0, 0.002, 80)])
    bent = line.copy()
    bent[:, 0] = bent[:, 0] ** 2 / 10 + 0.2 * bent[:, 0]
    found, rank = order_held([trajectory(line, 0), trajectory(bent, 0)])
    assert rank > 0.99
    assert found["between"].max() < 0.05
    assert (found["within"] == 0).all()
    back, rank = order_held([trajectory(line, 0), trajectory(line, 79)])
    assert rank < -0.9
    assert back["between"].max() > 0.5


def test_total_variance_is_within_plus_between():
    rng = np.random.default_rng(1)
    b, w = rng.normal(size=(5, 1000)), np.full((5, 1000), 0.3)
    found = pooled(b, w)
    np.testing.assert_allclose(found.mean, b.mean(0))
    np.testing.assert_allclose(found.within**2, 0.3)
    np.testing.assert_allclose(found.between**2, b.var(0, ddof=1))
    same = pooled(np.ones((3, 1)), np.full((3, 1), 4.0), coverage=0.9)
    assert (same.upper - same.lower)[0] == pytest.approx(2 * 2 * stats.norm.ppf(0.95), rel=1e-4)


@pytest.mark.parametrize("fits", [2, 3, 5])
@pytest.mark.parametrize("within", [0.1, 1.0])
def test_intervals_hold_what_they_say_where_a_fit_is_one_draw_of_many(fits, within):
    """Truth 0; a fit errs by its seed (1) and, together with all others, by the noise of the data (`within`)."""
    rng = np.random.default_rng(fits)
    shared = rng.normal(0, within, size=(1, 20_000))
    found = pooled(shared + rng.normal(size=(fits, 20_000)), np.full((fits, 20_000), within**2), coverage=0.9)
    assert ((found.lower <= 0) & (found.upper >= 0)).mean() > 0.89


# fitted models


@pytest.fixture(scope="module")
def found(fitted, cells):
    root = cells.obs_names[0]
    return bv.tl.stability(fitted, cells, groups="cell_type", contrasts="cell_type", root=root, progress=False)


def test_the_tool_compares_the_members(fitted, cells, found):
    maps = [m.embed(cells) for m in fitted.members]
    pairs = [shared_neighbours(nearest(a)[0], nearest(b)[0]) for a, b in combinations(maps, 2)]
    assert found.summary.loc["fits", "neighbours"] == pytest.approx(np.mean(pairs))
    assert found.summary.loc["fits", "neighbours_lowest"] == pytest.approx(min(pairs))
    assert len(found.summary) == 3
    assert found.groups["observations"].to_dict() == cells.obs["cell_type"].astype(str).value_counts().to_dict()
    assert found.cells.index.equals(cells.obs_names)
    variance = np.mean([m.moments(cells).variance.sum(1) for m in fitted.members], axis=0)
    np.testing.assert_allclose(found.cells["within"] ** 2, variance, rtol=1e-5)


def test_claims_are_those_of_the_members(fitted, cells, found):
    each = [bv.tl.differential(m, cells, "cell_type") for m in fitted.members]
    assert int(found.calls["first"].sum()) == len(each[0].called())
    assert found.calls["called"].sum() == sum(len(one.called()) for one in each)
    t = [bv.tl.trajectory(m, cells, cells.obs_names[0], draws=0).pseudotime for m in fitted.members]
    assert found.rank == pytest.approx(min(stats.spearmanr(a, b).statistic for a, b in combinations(t, 2)))
    assert found.order.index.equals(cells.obs_names)
    said = str(found)
    assert "called in all 3 fits; report those" in said
    assert "rank correlation of at least" in said


def test_a_group_as_root_is_the_same_observation_in_every_fit(fitted, cells):
    root = {"cell_type": cells.obs["cell_type"].iloc[0]}
    by_group = bv.tl.stability(fitted, cells, root=root, progress=False)
    start = root_rows(cells, fitted.members[0].embed(cells), root)
    by_name = bv.tl.stability(fitted, cells, root=cells.obs_names[start[0]], progress=False)
    pd.testing.assert_frame_equal(by_group.order, by_name.order)


def test_a_subset_is_compared_where_there_are_many(fitted, cells):
    found = bv.tl.stability(fitted, cells, cells=100, progress=False)
    assert len(found.cells) == 100
    assert found.cells.index.isin(cells.obs_names).all()
    assert found.cells.index.is_unique


def test_one_fit_is_no_ensemble(cells):
    vae = model().fit(cells, epochs=1, progress=False)
    with pytest.raises(InputError, match="ensemble=5"):
        bv.tl.stability(vae, cells)
    with pytest.raises(InputError, match="ensemble=5"):
        bv.tl.ensemble_expression(vae, cells)
    with pytest.raises(InputError, match="call fit"):
        bv.tl.stability(model(), cells)


def test_missing_columns_and_too_few_cells_are_said(fitted, cells):
    with pytest.raises(InputError, match="cell_type"):
        bv.tl.stability(fitted, cells, groups="cell_tpye", progress=False)
    with pytest.raises(InputError, match="give one of 3 or more"):
        bv.tl.stability(fitted, cells, cells=2, progress=False)
    with pytest.raises(InputError, match="at least 2 samples"):
        bv.tl.ensemble_expression(fitted, cells, samples=0)


def test_expression_holds_both_doubts(fitted, cells):
    names = list(cells.var_names[:4])
    found = bv.tl.ensemble_expression(fitted, cells, names, progress=False)
    each = [m.expression(cells, features=names, samples=25) for m in fitted.members]
    logs = np.log([one.mean.to_numpy() for one in each])
    np.testing.assert_allclose(np.log(found.mean), logs.mean(0), rtol=1e-5)
    width = np.log(found.upper / found.lower)
    own = np.mean([np.log(one.upper / one.lower).to_numpy() ** 2 for one in each], axis=0) ** 0.5
    assert (width.to_numpy() >= own - 1e-6).all()
    assert found.mean.index.equals(cells.obs_names)
    assert list(found.mean.columns) == names


def test_reals_are_compared_too(cells):
    table = cells[:, :20].copy()
    table.X = np.log1p(table.X.toarray())
    vae = bv.VAE(bv.continuous(), latent=2, hidden=16).fit(table, epochs=2, ensemble=2, progress=False)
    assert 0 <= bv.tl.stability(vae, table, progress=False).summary.loc["fits", "neighbours"] <= 1
    found = bv.tl.ensemble_expression(vae, table, progress=False)
    assert (found.lower <= found.mean).all(None)


def test_what_is_quick_prints_nothing_without_a_terminal(fitted, cells, capsys, monkeypatch):
    monkeypatch.setattr(progress, "SELDOM", 1e6)  # quick, on any machine
    bv.tl.stability(fitted, cells)
    assert capsys.readouterr().err == ""
