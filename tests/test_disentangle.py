"""Disentanglement scores against hand computations, other libraries, and codes whose truth is known."""

import numpy as np
import pandas as pd
import pytest
import scipy.stats
from sklearn.metrics import mutual_info_score

from biovae.analysis import dci, gaussian_total_correlation, ica, indicators, mig, pca, sap, total_correlation
from biovae.analysis.axes.disentangle import concentration
from biovae.errors import InputError

TURN = np.array([[1, -1], [1, 1]]) / np.sqrt(2)


def independent(count=1500, factors=2, seed=0):
    return np.random.default_rng(seed).uniform(-1, 1, (count, factors))


def named(values):
    return pd.DataFrame(values, columns=[f"v{j}" for j in range(values.shape[1])])


# by hand


def test_mig_of_a_bit_that_is_right_three_times_in_four():
    v = np.array(["a"] * 4 + ["b"] * 4)
    z = np.stack([[0, 0, 0, 1, 1, 1, 1, 0], np.ones(8)], 1).astype(float)
    found = mig(z, pd.DataFrame({"v": v}))
    noise = scipy.stats.entropy([0.25, 0.75], base=2)
    assert found.score == pytest.approx(1 - noise)
    np.testing.assert_allclose(found.table["v"], [np.log(2) * (1 - noise), 0], atol=1e-12)


def test_mig_subtracts_the_second_best():
    v = np.array([0, 0, 1, 1] * 25, dtype=str)
    z = np.stack([np.tile([0, 0, 1, 1], 25), np.tile([5, 5, -5, -5], 25), np.tile([0, 1], 50)], 1).astype(float)
    assert mig(z, pd.DataFrame({"v": v})).score == pytest.approx(0)
    assert mig(z[:, [0, 2]], pd.DataFrame({"v": v})).score == pytest.approx(1)
    assert mig(z[:, :1], pd.DataFrame({"v": v})).score == pytest.approx(1)  # nothing is second


def test_mig_is_that_of_disentanglement_lib():
    rng = np.random.default_rng(3)
    z, v = rng.standard_normal((400, 4)), rng.integers(3, size=(400, 2))
    z[:, 0] += v[:, 0]
    z[:, 2] -= 2 * v[:, 1]
    cut = np.stack([np.digitize(c, np.histogram(c, 20)[1][:-1]) for c in z.T])
    shared = np.array([[mutual_info_score(c, w) for w in v.T] for c in cut])
    top = np.sort(shared, axis=0)[::-1]
    expected = (top[0] - top[1]) / [mutual_info_score(w, w) for w in v.T]
    found = mig(z, named(v.astype(str)))
    np.testing.assert_allclose(found.each, expected, rtol=1e-9)
    np.testing.assert_allclose(found.table, shared, rtol=1e-9)


def test_concentration_is_one_minus_the_weighted_entropy():
    r = np.array([[0.9, 0.2, 0.3], [0.1, 0.8, 0.7]])
    rows = 1 - scipy.stats.entropy((r / r.sum(1, keepdims=True)).T, base=3)
    assert concentration(r) == pytest.approx((r.sum(1) / r.sum()) @ rows, abs=1e-6)
    assert np.isnan(concentration(r[:, :1]))


def test_sap_of_numbers_is_the_gap_of_squared_correlations():
    rng = np.random.default_rng(0)
    v = rng.standard_normal(20_000)
    z = np.stack([v + rng.standard_normal(20_000), v + 3 * rng.standard_normal(20_000), 0 * v], 1)
    found = sap(z, pd.DataFrame({"v": v}))
    np.testing.assert_allclose(found.table["v"], [0.5, 0.1, 0], atol=0.02)
    assert found.score == pytest.approx(0.4, abs=0.03)


def test_sap_of_a_balanced_bit_ends_at_a_half():
    rng = np.random.default_rng(0)
    v = rng.integers(2, size=3000)
    z = np.stack([6.0 * v, rng.standard_normal(3000)], 1)
    found = sap(z, pd.DataFrame({"v": v.astype(bool)}))
    assert found.table.loc[0, "v"] == 1
    assert found.score == pytest.approx(0.5, abs=0.05)


# known codes


def test_an_axis_aligned_code_scores_near_one():
    v = independent()
    order = v[:, ::-1] * [3, 0.1]  # neither order nor scale of the dimensions matters
    assert mig(order, named(v)).score > 0.9
    assert sap(order, named(v)).score > 0.99
    found = dci(order, named(v))
    assert min(found.disentanglement, found.completeness) > 0.98
    assert found.informativeness.min() > 0.98


def test_levels_of_two_factors_on_two_axes_score_one():
    v = np.random.default_rng(0).integers(4, size=(1200, 2))
    assert mig(v.astype(float), named(v.astype(str))).score == pytest.approx(1, abs=0.01)
    found = dci(v.astype(float), named(v.astype(str)))
    assert min(found.disentanglement, found.completeness, found.informativeness.min()) > 0.99


def test_a_code_turned_by_45_degrees_scores_low():
    v = independent()
    assert mig(v @ TURN, named(v)).score < 0.05
    assert sap(v @ TURN, named(v)).score < 0.05
    found = dci(v @ TURN, named(v))
    assert max(found.disentanglement, found.completeness) < 0.05
    assert found.informativeness.min() > 0.9  # nothing is lost, only turned


def test_an_independent_code_scores_near_zero():
    v, z = independent(), independent(seed=1)
    assert mig(z, named(v)).score < 0.02
    assert sap(z, named(v)).score < 0.01
    assert dci(z, named(v)).informativeness.max() < 0.05


def test_a_factor_spread_over_two_dimensions_is_disentangled_and_incomplete():
    v, noise = independent(), 0.05 * np.random.default_rng(5).standard_normal((1500, 2))
    found = dci(np.stack([v[:, 0] + noise[:, 0], v[:, 0] + noise[:, 1], v[:, 1]], 1), named(v))
    assert found.disentanglement > 0.95
    even = 1 - np.log(2) / np.log(3)  # one factor on two dimensions of three, the other on one
    assert found.completeness == pytest.approx((even + 1) / 2, abs=0.06)


# total correlation


@pytest.mark.parametrize("rho", [0.0, 0.5, 0.9])
def test_total_correlation_of_a_normal_is_its_closed_form(rho):
    rng = np.random.default_rng(0)
    noise = 0.05
    whole = np.array([[1, rho], [rho, 1]])
    mean = rng.multivariate_normal([0, 0], whole - noise * np.eye(2), 2000)
    expected = -0.5 * np.log(1 - rho**2)
    assert total_correlation(mean, np.full_like(mean, noise)) == pytest.approx(expected, abs=0.08)
    z = mean + np.sqrt(noise) * rng.standard_normal(mean.shape)
    assert gaussian_total_correlation(z) == pytest.approx(expected, abs=0.05)


def test_total_correlation_sees_dependence_without_correlation():
    rng = np.random.default_rng(0)
    angle = rng.uniform(0, 2 * np.pi, 2000)
    ring = 2 * np.stack([np.cos(angle), np.sin(angle)], 1)
    assert gaussian_total_correlation(ring) < 0.01
    assert total_correlation(ring, np.full_like(ring, 0.01)) > 0.5


def test_traces_in_unused_dimensions_count_for_nothing_in_the_aggregate_posterior():
    z = independent()
    traces = np.c_[z, 1e-4 * z[:, :1], 1e-4 * z[:, :1]]
    variance = np.tile([0.01, 0.01, 1.0, 1.0], (len(z), 1))
    assert gaussian_total_correlation(traces) > 10
    assert gaussian_total_correlation(traces, variance) < 0.01


def test_dimensions_that_do_not_vary_and_copies_of_one():
    z = independent()
    assert gaussian_total_correlation(np.c_[z, np.zeros(len(z))]) == gaussian_total_correlation(z)
    assert gaussian_total_correlation(z[:, [0, 0]]) > 10
    assert gaussian_total_correlation(z[:, :1]) == 0


# ICA


def test_ica_finds_the_axes_that_pca_turns_away_from():
    sources = np.random.default_rng(0).laplace(size=(3000, 2))
    x = sources @ np.array([[1.0, 0.9], [-0.9, 1.0], [0.5, 0.1], [0.3, 0.7]]).T
    base = pca(x, 2)
    found = ica(base)
    assert found.converged
    np.testing.assert_allclose(found.scores.std(0), 1, rtol=1e-3)
    np.testing.assert_allclose(found.scores @ found.loadings.T, base.reconstruct() - base.mean, atol=1e-8)
    assert sap(found.scores, named(sources)).score > 0.95
    assert sap(base.scores, named(sources)).score < sap(found.scores, named(sources)).score - 0.2


# doors


def test_a_label_becomes_one_factor_per_level():
    frame = indicators(pd.Series(["B", "T", "NK", "B"]).astype("category"))
    assert frame.columns.tolist() == ["B", "NK", "T"]
    assert frame["B"].tolist() == [True, False, False, True]


@pytest.mark.parametrize("score", [mig, sap, dci])
@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (lambda v: v.assign(v0=1.0), "found one value only in 'v0'"),
        (lambda v: v.assign(v1=np.where(np.arange(len(v)) < 3, np.nan, v["v1"])), "found 3 missing"),
        (lambda v: v[:10], "found 10 rows"),
        (lambda v: v[[]], "0 columns"),
    ],
)
def test_errors_say_what_was_found(score, spoil, message):
    v = independent(60)
    with pytest.raises(InputError, match=message):
        score(v, spoil(named(v)))


def test_a_level_too_rare_to_be_fitted_is_named():
    z = independent(60)
    rare = pd.DataFrame({"rare": [f"{i == 0}" for i in range(60)]})
    seed = next(s for s in range(50) if 0 in np.random.default_rng(s).permutation(60)[40:])
    for score in (sap, dci):
        with pytest.raises(InputError, match="'rare'"):
            score(z, rare, seed)


def test_a_missing_label_is_refused():
    with pytest.raises(InputError, match="1 missing"):
        indicators(np.array(["a", None], dtype=object))
