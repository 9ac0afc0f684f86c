"""Differences between groups, against closed forms, an explicit bootstrap, and simulations whose truth is known."""

import sys

import anndata as ad
import numpy as np
import pandas as pd
import pytest
import scipy.sparse
from scipy import integrate, stats

import biovae as bv
from biovae.analysis import Decoded, Null, differential, expected_fdr, shrink
from biovae.analysis.groups.shrinkage import CENTRES, SCALES
from biovae.datasets import scenarios, simulate
from biovae.datasets.truth import expected
from biovae.errors import InputError
from biovae.tools.differential import _decoder

DELTA = 0.25


class Counts:
    """Overdispersed counts of two groups and two batches, and a decoder that knows their means.

    The first features differ between the groups by `change` (log2); others do not.
    """

    def __init__(self, seed=0, cells=400, features=300, changed=30, change=1.0, confounded=0.5, batch=0.5):
        rng = np.random.default_rng(seed)
        self.group = np.where(np.arange(cells) % 2, "b", "a")
        self.batch = rng.random(cells) < np.where(self.group == "b", confounded, 1 - confounded)
        self.exposure = rng.lognormal(np.log(2000), 0.4, cells)
        self.truth = np.where(np.arange(features) < changed, change * rng.choice([-1, 1], features), 0.0)
        base = np.log(rng.lognormal(0, 1.2, features) / features)
        self.rate = 1e4 * np.exp(base + np.log(2) * self.truth * (self.group == "a")[:, None])
        factor = np.exp(batch * rng.normal(size=features) * self.batch[:, None])
        self.mean = self.rate * factor * self.exposure[:, None] / 1e4
        self.x = scipy.sparse.csr_array(rng.poisson(self.mean * rng.gamma(4, 1 / 4, self.mean.shape)).astype(float))
        self.features = [f"gene{j}" for j in range(features)]
        self.z = np.zeros((1, cells, 1))

    def decode(self, z, rows):
        return Decoded(self.rate[rows], self.mean[rows])

    def flat(self, z, rows):
        """A decoder that knows nothing of groups and batches."""
        rate = np.ones((len(rows), len(self.features)))
        return Decoded(rate, rate * self.exposure[rows, None] / 1e4)

    def compare(self, decode=None, groups=None, **how):
        groups = self.group if groups is None else groups
        pairs = [tuple(sorted(set(groups)))[:2]]
        how = {"contrasts": pairs, "null": Null(DELTA)} | how
        found = differential(self.x, decode or self.decode, self.z, groups, self.features, **how)
        return found.frame.set_index("feature").loc[self.features]


# shrinkage


def drawn_effects(seed, effects=3000):
    rng = np.random.default_rng(seed)
    beta = np.where(rng.random(effects) < 0.15, rng.normal(0, 1, effects), 0.0)
    error = rng.choice([0.05, 0.2, 0.6], effects)
    return beta, beta + error * rng.normal(size=effects), error


def test_the_posterior_is_that_of_brute_force_under_the_shares_it_found():
    _, b, s = drawn_effects(0, 300)
    found = shrink(b, s, delta=DELTA)
    for j in range(0, 300, 37):
        spread = np.sqrt(s[j] ** 2 + SCALES**2)
        weight = found.share * stats.norm.pdf(b[j], CENTRES, spread)
        weight /= weight.sum()

        def density(x, j=j, weight=weight):
            keep = SCALES[1:] ** 2 / (SCALES[1:] ** 2 + s[j] ** 2)
            mean = CENTRES[1:] + keep * (b[j] - CENTRES[1:])
            return float((weight[1:] * stats.norm.pdf(x, mean, np.sqrt(keep) * s[j])).sum())

        inside = integrate.quad(density, -DELTA, DELTA, limit=200, points=[0])[0]
        assert found.beyond[j] == pytest.approx(1 - weight[0] - inside, abs=2e-3)
        mean = integrate.quad(lambda x: x * density(x), b[j] - 20, b[j] + 20, limit=400, points=[0, b[j]])[0]
        assert found.mean[j] == pytest.approx(mean, abs=5e-3)


def test_probabilities_and_intervals_keep_their_word():
    said, true, covered = [], [], []
    for seed in range(20):
        beta, b, s = drawn_effects(seed)
        found = shrink(b, s, delta=DELTA)
        said.append(found.beyond)
        true.append(np.abs(beta) > DELTA)
        covered.append((found.lower - 1e-6 <= beta) & (beta <= found.upper + 1e-6))
    said, true = np.concatenate(said), np.concatenate(true)
    for low in np.arange(0, 1, 0.2):
        bin_ = (said >= low) & (said < low + 0.2)
        assert true[bin_].mean() == pytest.approx(said[bin_].mean(), abs=0.05)
    assert np.mean(covered) > 0.94


def test_of_nothing_but_noise_nothing_is_called():
    rng = np.random.default_rng(0)
    found = shrink(0.3 * rng.normal(size=2000), np.full(2000, 0.3), delta=0.0)
    assert found.share[0] > 0.9
    assert (expected_fdr(found.beyond) > 0.05).all()


def test_expected_fdr_is_the_mean_of_the_doubt_over_the_called():
    p = np.random.default_rng(0).random(50)
    found = expected_fdr(p)
    for j in range(50):
        assert found[j] == pytest.approx((1 - p[p >= p[j]]).mean())


def test_no_effects_are_none():
    assert shrink(np.empty(0), np.empty(0)).mean.shape == (0,)


# rates and their errors


def test_with_one_exposure_and_no_batches_the_rates_are_the_means_of_the_counts_whatever_the_decoder_says():
    data = Counts(batch=0.0)
    data.exposure[:] = 2000
    wrong = np.random.default_rng(1).lognormal(0, 0.7, data.rate.shape)
    frame = data.compare(lambda z, rows: Decoded(wrong[rows], wrong[rows] * 0.2))
    x = data.x.toarray()
    a, b = (5 * x[data.group == name].mean(0) for name in "ab")
    enough = x.sum(0) > 500
    np.testing.assert_allclose(frame["rate"][enough], a[enough], rtol=0.02)
    np.testing.assert_allclose(frame["estimate"][enough], np.log2(a / b)[enough], atol=0.02)


def test_the_error_is_that_of_a_bayesian_bootstrap():
    data = Counts(seed=3)
    frame = data.compare()
    rng = np.random.default_rng(0)
    x = data.x.toarray()
    logs = []
    for name in "ab":
        rows = data.group == name
        w = rng.exponential(size=(1500, rows.sum()))
        f, m = data.rate[rows], data.mean[rows]
        logs.append(np.log((w @ f) / w.sum(1)[:, None] * (w @ x[rows]) / (w @ m)))
    bootstrap = ((logs[0] - logs[1]) / np.log(2)).std(0)
    enough = x.sum(0) > 300
    ratio = frame["standard_error"].to_numpy()[enough] / bootstrap[enough]
    assert np.median(ratio) == pytest.approx(1, abs=0.05)
    assert np.quantile(ratio, [0.05, 0.95]) == pytest.approx([1, 1], abs=0.2)


def test_errors_say_how_far_estimates_are_from_the_truth():
    z = []
    for seed in range(10):
        data = Counts(seed=seed, confounded=0.7)
        frame = data.compare()
        enough = (data.x.sum(0) > 50) & (data.truth == 0)
        z.append(((frame["estimate"] - data.truth) / frame["standard_error"])[enough])
    assert np.concatenate(z).std() == pytest.approx(1, abs=0.1)


def test_a_batch_that_the_decoder_knows_is_taken_out():
    data = Counts(confounded=0.85, batch=1.0)
    enough = data.x.sum(0) > 300
    truth = data.truth[enough]
    corrected = np.abs(data.compare()["estimate"][enough] - truth).mean()
    plain = np.abs(data.compare(data.flat)["estimate"][enough] - truth).mean()
    assert corrected < 0.2 < 3 * corrected < plain


def test_a_gene_that_one_group_lacks_is_called_and_one_that_is_rare_is_not():
    rng = np.random.default_rng(0)
    x = rng.poisson(0.2, (400, 60)).astype(float)
    x[:200, 0] = 0  # 40 expected
    x[:, 1] = 0
    x[:10, 1] = 1  # ten counts, all in one group: 2^-10 by chance, among sixty
    x[:, 2] = 0
    x[:5, 2] = 1
    group = np.repeat(["a", "b"], 200)
    flat = np.full(x.shape, 0.2)
    found = differential(
        scipy.sparse.csr_array(x), lambda z, rows: Decoded(flat[rows], flat[rows]), np.zeros((1, 400, 1)), group,
        [str(j) for j in range(60)], [("a", "b")],
    ).frame.set_index("feature")  # fmt: skip
    assert found.loc["0", "probability"] > 0.999
    assert found.loc["0", "upper"] < -2
    assert 0.3 < found.loc["1", "probability"] < 0.999
    assert np.isnan(found.loc["2", "probability"])  # too few counts to ask
    assert (found["expected_fdr"] <= 0.05).sum() <= 2


def test_observations_that_stand_for_two_count_twice_and_are_no_surer():
    data = Counts(seed=1)
    half = np.arange(400) % 4 < 2
    one = data.compare()
    data.x, data.group, data.z = data.x[half], data.group[half], data.z[:, half]
    data.rate, data.mean = data.rate[half], data.mean[half]
    plain, doubled = data.compare(), data.compare(weights=np.full(200, 2.0))
    pd.testing.assert_frame_equal(plain, doubled, rtol=1e-5)
    assert np.median(plain["standard_error"] / one["standard_error"]) == pytest.approx(np.sqrt(2), abs=0.1)


def test_a_share_of_a_group_is_counted_as_many_as_it_stands_for():
    data = Counts(seed=1)
    groups = np.where(data.group == "a", "a", np.where(np.arange(400) % 8 == 1, "rare", "b"))
    only = scipy.sparse.csr_array((groups == "rare")[:, None].astype(float))
    data.x = scipy.sparse.csr_array(scipy.sparse.hstack([only, data.x[:, 1:]]))
    whole = data.compare(groups=groups, contrasts=[("a", None)])
    kept = (groups != "b") | (np.arange(400) % 3 == 0)  # a third of the common group, which stands for all of it
    data.x, groups, data.z = data.x[kept], groups[kept], data.z[:, kept]
    data.rate, data.mean = data.rate[kept], data.mean[kept]
    weights = np.where(groups == "b", 3.0, 1.0)
    part = data.compare(groups=groups, contrasts=[("a", None)], weights=weights)
    assert part.loc["gene0", "reference_detected"] == pytest.approx(whole.loc["gene0", "reference_detected"], abs=0.01)


def test_blocks_do_not_matter(monkeypatch):
    data = Counts()
    whole = data.compare()
    monkeypatch.setattr(sys.modules["biovae.analysis.groups.differential"], "ENTRIES", 7 * 300)
    pd.testing.assert_frame_equal(whole, data.compare(), rtol=1e-6)


def test_more_draws_of_z_leave_less_to_chance():
    data = Counts()
    rng = np.random.default_rng(0)

    def noisy(z, rows):
        return Decoded(data.rate[rows] * np.exp(0.5 * z), data.mean[rows])

    assert data.compare(noisy)["monte_carlo_error"].isna().all()
    estimates, said = [], []
    for _ in range(40):
        data.z = rng.standard_normal((5, 400, 1))
        frame = data.compare(noisy)
        estimates.append(frame["estimate"])
        said.append(frame["monte_carlo_error"] ** 2)
    spread = np.var(estimates, axis=0, ddof=1)
    assert np.mean(said) == pytest.approx(spread.mean(), rel=0.3)


def test_each_group_is_compared_with_all_others():
    data = Counts()
    group = np.array(["x", "y", "z"])[np.arange(400) % 3]
    found = differential(data.x, data.decode, data.z, group, data.features)
    assert [*found.frame["group"].unique()] == ["x", "y", "z"]
    assert set(found.frame["reference"]) == {"rest"}
    merged = np.where(group == "x", "x", "others")
    pair = data.compare(groups=merged, contrasts=[("x", "others")])
    mine = found.frame[found.frame["group"] == "x"].set_index("feature").loc[data.features]
    np.testing.assert_allclose(mine["estimate"], pair["estimate"], rtol=1e-6)
    assert "x against rest: " in str(found)


def test_what_a_few_features_gain_and_all_others_lose_is_said():
    data = Counts(changed=0)
    assert "shares" not in str(differential(data.x, data.decode, data.z, data.group, data.features))
    x = data.x.toarray()
    x[data.group == "a", 0] += 1500  # of about 4,000: the shares of all others fall by a quarter
    data.x = scipy.sparse.csr_array(x)
    exposure = x.sum(1)[:, None]
    ones = np.ones_like(x)
    found = differential(
        data.x, lambda z, rows: Decoded(ones[rows], exposure[rows] * ones[rows]), data.z, data.group, data.features
    )
    lines = str(found).splitlines()
    assert "a against rest" in lines[0]
    assert lines[0].endswith("what a few features gain, all others lose.")
    assert lines[1].endswith("what a few features lose, all others gain.")


# what calls are worth


def test_random_halves_do_not_differ():
    calls = []
    for seed in range(20):
        data = Counts(seed=seed, changed=0)
        halves = np.random.default_rng(seed).permutation(data.group)
        calls.append((data.compare(groups=halves, null=Null(0.0))["expected_fdr"] <= 0.05).sum())
    assert np.median(calls) == 0
    assert np.mean(np.array(calls) > 0) <= 0.15


@pytest.mark.parametrize("delta", [0.0, DELTA])
def test_the_share_of_false_calls_is_what_was_expected(delta):
    shares, power = [], []
    for seed in range(20):
        data = Counts(seed=100 + seed, changed=40)
        frame = data.compare(null=Null(delta))
        called = (frame["expected_fdr"] <= 0.05).to_numpy()
        shares.append((called & (data.truth == 0)).sum() / max(called.sum(), 1))
        power.append(called[:40].mean())
    limit = np.mean(shares) + 1.96 * np.std(shares, ddof=1) / np.sqrt(len(shares))
    assert limit < 0.07
    assert np.mean(power) > 0.8


@pytest.mark.parametrize(
    ("how", "message"),
    [
        ({"groups": np.repeat("a", 400)}, "at least two groups"),
        ({"groups": np.r_[["c"], np.repeat(["a", "b"], [200, 199])]}, "found 1 in 'c' and 399"),
        ({"groups": np.repeat(["a", "b"], 50)}, "found 100"),
        ({"contrasts": [("a", "q")]}, "the name of a group, found 'q'"),
        ({"contrasts": [("a", "a")]}, "'a' twice"),
        ({"features": ["x"]}, "300 feature names, found 1"),
        ({"z": np.zeros((1, 3, 1))}, "found that of 3"),
    ],
)
def test_errors_say_what_was_found(how, message):
    data = Counts()
    given = {"z": data.z, "groups": data.group, "features": data.features} | how
    with pytest.raises(InputError, match=message):
        differential(data.x, data.decode, **given)


def test_nonsense_is_refused():
    with pytest.raises(InputError, match="delta of at least 0"):
        Null(-1)
    with pytest.raises(InputError, match="1 of 2"):
        shrink(np.zeros(2), np.array([1.0, 0.0]))
    data = Counts()
    with pytest.raises(InputError, match="between 0 and 1"):
        differential(data.x, data.decode, data.z, data.group, data.features).called(5)


# with a model


@pytest.fixture(scope="module")
def fitted():
    adata = simulate(scenarios.TYPES.but(technical={"library": 1500.0}), cells=400, genes=150, seed=0)
    return adata, bv.VAE(bv.rna(), covariates=["batch"], latent=5, hidden=32).fit(adata, epochs=60, progress=False)


def type_changes(adata):
    """log2 of each type's mean composition over that of all others, batch left out: type -> (genes,)."""
    share, kind = expected(adata), adata.obs["cell_type"].astype(str).to_numpy()
    return {k: np.log2(share[kind == k].mean(0) / share[kind != k].mean(0)) for k in np.unique(kind)}


def test_types_differ_where_the_simulation_made_them(fitted):
    adata, vae = fitted
    found = bv.tl.differential(vae, adata, "cell_type")
    truth, false = type_changes(adata), []
    for kind, rows in found.frame.groupby("group"):
        rows = rows.set_index("feature").loc[adata.var_names]
        true = pd.Series(truth[kind], index=adata.var_names)
        called = rows["expected_fdr"] <= 0.05
        false.append((true[called].abs() <= DELTA).mean())
        assert np.corrcoef(rows["log2_fold_change"][called], true[called])[0, 1] > 0.95
        assert ((rows["lower"] <= true) & (true <= rows["upper"])).mean() > 0.85
        assert (rows["monte_carlo_error"] < 0.3 * rows["standard_error"]).mean() > 0.95
    assert np.mean(false) < 0.1


def test_two_types_alone_and_in_a_sample(fitted):
    adata, vae = fitted
    one, other = adata.obs["cell_type"].cat.categories[:2]
    pair = {"group": one, "reference": other}
    whole = bv.tl.differential(vae, adata, "cell_type", **pair).frame.set_index("feature")
    again = bv.tl.differential(vae, adata, "cell_type", **pair).frame.set_index("feature")
    pd.testing.assert_frame_equal(whole, again)
    drawn = bv.tl.differential(vae, adata, "cell_type", **pair, effort=bv.tl.Effort(cells=20, draws=2))
    drawn = drawn.frame.set_index("feature").loc[whole.index]
    distance = (drawn["estimate"] - whole["estimate"]).abs() / drawn["standard_error"]
    assert distance.median() < 1
    assert (drawn["standard_error"] > whole["standard_error"]).mean() > 0.9


def test_rates_and_means_are_those_of_the_models_verbs(fitted):
    adata, vae = fitted
    observations = vae.observe(adata).observations
    z, rows = vae.embed(adata)[50:80], np.arange(50, 80)
    for covariates in ("average", {"batch": "batch 2"}):
        found = _decoder(vae, observations, 0, covariates)(z, rows)
        np.testing.assert_allclose(found.rate, vae.decode(z, covariates=covariates), rtol=1e-4)
        np.testing.assert_allclose(found.mean, vae.reconstruct(adata)[50:80], rtol=1e-4)


@pytest.mark.parametrize("likelihood", ["log1p_gaussian", "zero_inflated_negative_binomial"])
def test_other_likelihoods_and_posteriors_and_a_covariate_that_is_a_number(fitted, likelihood):
    adata = fitted[0].copy()
    adata.obs["age"] = np.linspace(20, 60, adata.n_obs)
    model = bv.VAE(
        bv.rna(likelihood=likelihood), covariates=["age"], latent=3, hidden=16, posterior=bv.LowRank(rank=1)
    ).fit(adata, epochs=4, progress=False)
    frame = bv.tl.differential(model, adata, "cell_type", group="type 1").frame.set_index("feature")
    x = adata.X.toarray() / adata.X.sum(1)
    inside = (adata.obs["cell_type"] == "type 1").to_numpy()
    plain = np.log2(x[inside].mean(0) / x[~inside].mean(0))
    common = adata.X.toarray().sum(0) > 1000
    away = frame.loc[adata.var_names, "estimate"].to_numpy()[common] - np.asarray(plain).ravel()[common]
    assert np.abs(away).max() < 0.3  # no batch to correct for: the decoder may say what it likes


def test_unlabelled_observations_take_no_part(fitted):
    adata, vae = fitted
    copy = adata.copy()
    names = copy.obs["cell_type"].astype(object)
    keep = names.isin(copy.obs["cell_type"].cat.categories[:2]).to_numpy()
    copy.obs["some"] = names.where(keep)
    some = bv.tl.differential(vae, copy, "some").frame
    alone = bv.tl.differential(vae, copy[keep].copy(), "some").frame
    pd.testing.assert_frame_equal(some[["group", "feature"]], alone[["group", "feature"]])
    np.testing.assert_allclose(some["estimate"], alone["estimate"], atol=1e-5)


def test_a_group_per_observation_is_as_good_as_a_column_and_one_alone_is_not_compared(fitted):
    adata, vae = fitted
    names = adata.obs["cell_type"].astype(str).to_numpy().copy()
    column = bv.tl.differential(vae, adata, "cell_type").frame
    pd.testing.assert_frame_equal(bv.tl.differential(vae, adata, names).frame, column)
    names[0] = "alone"
    assert "alone" not in set(bv.tl.differential(vae, adata, names).frame["group"])
    with pytest.raises(InputError, match="a group for each of 400 observations, found 3"):
        bv.tl.differential(vae, adata, ["a", "b", "c"])


@pytest.mark.parametrize(
    ("how", "message"),
    [
        ({"groups": "cell_typ"}, "did you mean 'cell_type'"),
        ({"groups": "cell_type", "group": "type9"}, "a level of 'cell_type', found 'type9'"),
        ({"groups": "cell_type", "reference": "type1"}, "give group="),
        ({"groups": "batch"}, "its covariate 'batch'"),
        ({"groups": "all"}, "at least two groups"),
    ],
)
def test_a_wrong_column_or_level_is_named(fitted, how, message):
    adata, vae = fitted
    copy = adata.copy()
    copy.obs["all"] = "same"
    with pytest.raises(InputError, match=message):
        bv.tl.differential(vae, copy, **how)


def test_reals_have_no_fold_change():
    obs = pd.DataFrame({"g": ["a", "b"] * 30}, index=[str(i) for i in range(60)])
    adata = ad.AnnData(np.random.default_rng(0).normal(size=(60, 8)), obs=obs)
    vae = bv.VAE(bv.continuous(), latent=2, hidden=8).fit(adata, epochs=2, progress=False)
    with pytest.raises(InputError, match="modality of counts"):
        bv.tl.differential(vae, adata, "g")
