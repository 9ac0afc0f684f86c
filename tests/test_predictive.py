"""Posterior predictive checks: each line against a truth, and the tool on models that are right and wrong."""

import numpy as np
import pandas as pd
import pytest
import torch
from scipy import stats

import biovae as bv
from biovae import diagnostics as d
from biovae.datasets import Scenario, States, Technical, simulate
from biovae.diagnostics import State
from biovae.model.evidence import LEVELS, _covered

RNG = np.random.default_rng(0)


@pytest.fixture(scope="module")
def adata():
    data = simulate(Scenario(states=States(types=3), technical=Technical(batches=2)), cells=600, genes=120, seed=0)
    data.obs["test"] = np.arange(600) % 4 == 0
    return data


def fitted(adata, likelihood="negative_binomial", **more):
    vae = bv.VAE(bv.rna(likelihood=likelihood, **more), covariates=["batch"], latent=4, hidden=32)
    return vae.fit(adata, epochs=60, test="test", progress=False)


@pytest.fixture(scope="module")
def vae(adata):
    return fitted(adata)


@pytest.fixture(scope="module")
def found(vae, adata):
    return bv.tl.predictive_checks(vae, adata, held_out="test", features=60, progress=False)


# lines


@pytest.mark.parametrize(
    "of", [stats.poisson(0.2), stats.poisson(30), stats.nbinom(2, 0.1)], ids=["rare", "common", "overdispersed"]
)
def test_expected_coverage_of_a_count_is_the_level_whatever_its_jumps(of):
    x = np.arange(2000)
    low, high = (torch.as_tensor(of.cdf(v))[:, None] for v in (x - 1, x))
    weight = of.pmf(x)
    for i, level in enumerate(LEVELS):
        each = np.array([float(_covered(low[j : j + 1], high[j : j + 1])[0, i, 0]) for j in range(300)])
        assert weight[:300] @ each == pytest.approx(level, abs=1e-6)


def test_coverage_of_reals_counts_those_inside():
    p = torch.tensor([0.01, 0.2, 0.5, 0.8, 0.94, 0.99], dtype=torch.float64)[:, None]
    inside, squares = _covered(p, p)
    np.testing.assert_array_equal(inside[:, 0], [1, 4])
    np.testing.assert_array_equal(squares, inside)


@pytest.mark.parametrize(
    ("value", "state"), [(0.9, State.OK), (0.82, State.LOOK), (0.99, State.LOOK), (0.5, State.BROKEN)]
)
def test_coverage_is_judged_by_its_distance(value, state):
    line = d.coverage(np.full(10, value), 0.9)
    assert line.state is state
    assert ("too wide" in line.advice) == (value == 0.99)


def test_ranks_are_uniform_where_observed_and_replicated_are_alike():
    values = RNG.poisson(3, size=(21, 4000)).astype(float)
    assert stats.kstest(d.ranks(values[0], values[1:]), "uniform").pvalue > 0.01
    assert d.detection(values[0], values[1:]).state is State.OK
    more = d.detection(values[0] + 2, values[1:])
    assert more.state is State.BROKEN
    assert "more features" in more.advice


def test_totals_that_were_given_are_compared_by_their_mean():
    drawn = RNG.poisson(100, size=(10, 500)).astype(float)
    same = np.full(500, 100.0)
    assert d.totals(same, drawn, given=True).state is State.OK
    assert d.totals(same, drawn, given=False).state is not State.OK  # they all lie in the middle
    assert d.totals(same, 2 * drawn, given=True).state is State.BROKEN


def drawn_sets(loading, sets, size=400, features=20):
    common = RNG.normal(size=(sets, size, 1)) * loading
    x = common + RNG.normal(size=(sets, size, features))
    return np.stack([np.corrcoef(one.T) for one in x])


def test_correlations_that_replicates_have_are_not_missed_and_those_they_lack_are():
    alike = drawn_sets(1.0, 11)
    line = d.correlations(alike[0], alike[1:])
    assert line.state is State.OK
    assert line.value < 0.1
    lacking = d.correlations(alike[0], drawn_sets(0.0, 10))
    assert lacking.state is State.BROKEN
    assert lacking.value == pytest.approx(1, abs=0.1)
    assert d.correlations(drawn_sets(0.0, 1)[0], drawn_sets(0.0, 10)).value == "hardly any to miss"


def test_p_values_against_replicates_are_uniform():
    p = []
    for seed in range(400):
        values = np.random.default_rng(seed).normal(5, 2, 9)
        frame = d.against_replicates({"mean": (values[0], values[1:])})
        p.append(frame["p_value"].iloc[0])
    assert stats.kstest(p, "uniform").pvalue > 0.01
    assert frame["lower"].iloc[0] < frame["expected"].iloc[0] < frame["upper"].iloc[0]


# the tool


def test_a_model_of_the_right_kind_passes(found, adata):
    states = {line.name: line.state for line in found.verdict.lines}
    assert {"zeros", "variance", "features detected", "correlations missed", "coverage of 90% intervals"} <= set(states)
    assert State.BROKEN not in states.values(), str(found)
    assert len(found.observations) == int(adata.obs["test"].sum())
    assert set(found.observations.index) == set(adata.obs_names[adata.obs["test"]])
    names = adata.obs_names[adata.obs["test"]]
    total = pd.Series(np.asarray(adata[names].X.sum(1)).ravel(), names)
    np.testing.assert_allclose(found.observations["total"], total[found.observations.index])
    detected = pd.Series(np.asarray((adata[names].X > 0).sum(1)).ravel(), names)
    np.testing.assert_allclose(found.observations["detected"], detected[found.observations.index])


def test_what_is_shown_of_features_is_that_of_the_data(found, adata):
    held_out = adata[adata.obs["test"].to_numpy()]
    x = held_out.X.toarray()
    np.testing.assert_allclose(found.features["mean"], x.mean(0), rtol=1e-5)
    np.testing.assert_allclose(found.features["zeros"], (x == 0).mean(0), atol=1e-9)
    logs = np.log1p(1e4 * x / x.sum(1, keepdims=True))[:, adata.var_names.get_indexer(found.correlated)]
    np.testing.assert_allclose(found.correlation, np.corrcoef(logs.T), atol=1e-4)
    variance = np.log1p(1e4 * x / x.sum(1, keepdims=True)).var(0)
    assert set(found.correlated) == set(adata.var_names[np.argsort(-variance)[:60]])


def test_the_same_seed_gives_the_same_checks(found, vae, adata):
    again = bv.tl.predictive_checks(vae, adata, held_out="test", features=60, progress=False)
    pd.testing.assert_frame_equal(again.features, found.features)
    pd.testing.assert_frame_equal(again.statistics, found.statistics)


def test_the_text_says_what_was_looked_at(found, vae, adata):
    assert "20 replicates" in str(found)
    assert "Training may have seen" not in str(found)
    seen = bv.tl.predictive_checks(vae, adata, features=10, draws=3, progress=False)
    assert "Training may have seen" in str(seen)


def test_a_likelihood_without_overdispersion_is_found_out():
    scenario = Scenario(states=States(types=3), technical=Technical(batches=1)).but(programmes={"dispersion": 1.0})
    data = simulate(scenario, cells=500, genes=100, seed=1)
    checked = {}
    for likelihood in ("poisson", "negative_binomial"):
        vae = bv.VAE(bv.rna(likelihood=likelihood), latent=4, hidden=32).fit(data, epochs=60, progress=False)
        checked[likelihood] = bv.tl.predictive_checks(vae, data, features=30, draws=5, progress=False)
    lines = {name: of.verdict["coverage of 90% intervals"] for name, of in checked.items()}
    assert lines["poisson"].state is not State.OK
    assert "too narrow" in lines["poisson"].advice
    assert abs(lines["negative_binomial"].value - 0.9) < 0.6 * abs(lines["poisson"].value - 0.9)
    off = {name: (of.features["fdr"] <= 0.05).sum() for name, of in checked.items()}
    assert off["poisson"] > off["negative_binomial"]


def test_a_latent_library_is_drawn(adata):
    vae = fitted(adata, library="latent")
    checked = bv.tl.predictive_checks(vae, adata, held_out="test", features=20, draws=200, progress=False)
    assert checked.verdict["totals"].state is State.OK
    told, expected = (np.log(checked.observations[name]) for name in ("total", "total_expected"))
    assert np.corrcoef(told, expected)[0, 1] > 0.9
    assert abs((expected - told).mean()) < 0.05


def test_reals_have_no_zeros_totals_or_detection():
    x = RNG.normal(size=(200, 8)) + RNG.normal(size=(200, 1))
    import anndata as ad

    data = ad.AnnData(x.astype(np.float32), obs=pd.DataFrame(index=[f"o{i}" for i in range(200)]))
    vae = bv.VAE(bv.continuous(), latent=2, hidden=16).fit(data, epochs=30, progress=False)
    checked = bv.tl.predictive_checks(vae, data, features=8, draws=4, progress=False)
    assert checked.observations.empty
    assert checked.features["zeros"].isna().all()
    assert list(checked.statistics["statistic"]) == ["correlation of features, root mean square"]
    assert bv.pl.png(bv.pl.predictive_checks(checked).figure).startswith(b"\x89PNG")


@pytest.mark.parametrize(
    ("act", "message"),
    [
        (lambda vae, a: bv.tl.predictive_checks(bv.VAE(bv.rna()), a), "call fit"),
        (lambda vae, a: bv.tl.predictive_checks(vae, a, held_out="tst"), "did you mean 'test'"),
        (lambda vae, a: bv.tl.predictive_checks(vae, a, held_out=np.zeros(600, bool)), "found 0 of 600"),
        (lambda vae, a: bv.tl.predictive_checks(vae, a, held_out=np.ones(5, bool)), "each of 600"),
        (lambda vae, a: bv.tl.predictive_checks(vae, a[:5].copy()), "at least 10 observations"),
        (lambda vae, a: bv.tl.predictive_checks(vae, a, draws=1), "give one of 3 or more"),
        (lambda vae, a: bv.tl.predictive_checks(vae, a, modality="rnaa"), "did you mean 'rna'"),
    ],
)
def test_errors_say_what_was_found(act, message, vae, adata):
    with pytest.raises(bv.InputError, match=message):
        act(vae, adata)
