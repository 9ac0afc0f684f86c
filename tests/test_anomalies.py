"""Odd observations and shifted data sets: pure functions against brute force, the tools on small simulations."""

import anndata as ad
import numpy as np
import pandas as pd
import pytest
import scipy.sparse
from scipy import stats
from scipy.spatial.distance import cdist
from sklearn.metrics import roc_auc_score

import biovae as bv
from biovae.analysis import contamination, energy, mixture_gain, neighbour_share, partners
from biovae.analysis.oddities import anomalies as a
from biovae.analysis.oddities.anomalies import winner
from biovae.analysis.oddities.doublets import PARTS, by_components, separation
from biovae.analysis.oddities.shift import Residuals, drivers, rank_test
from biovae.datasets import Scenario, States, Technical, simulate, simulate_multi

RNG = np.random.default_rng(0)


# doublets


def states_and_counts():
    rho = RNG.dirichlet(np.ones(15), size=(2, 4))  # two designs, four states
    own, design = RNG.integers(4, size=30), RNG.integers(2, size=30)
    exposure = RNG.uniform(50, 200, 30)
    mean = exposure[:, None] * rho[design, own]
    x = RNG.poisson(0.6 * mean + 0.4 * exposure[:, None] * rho[design, (own + 1) % 4])
    x[3] = 0
    return scipy.sparse.csr_array(x.astype(float)), mean, rho, design, own


def test_the_gain_of_poisson_counts_is_the_best_log_likelihood_ratio():
    x, mean, rho, design, _ = states_and_counts()
    found = mixture_gain(x, mean, np.ones_like(mean), rho, design)
    dense = x.toarray()
    for i in range(30):
        best, exposure = 0.0, mean[i].sum()
        for k in range(4):
            for s in PARTS:
                mixed = (1 - s) * mean[i] + s * exposure * rho[design[i], k]
                ratio = (stats.poisson(mixed).logpmf(dense[i]) - stats.poisson(mean[i]).logpmf(dense[i])).sum()
                best = max(best, ratio)
        assert found.gain[i] == pytest.approx(best, abs=1e-6)


def test_the_other_state_of_a_mixture_is_named():
    x, mean, rho, design, own = states_and_counts()
    found = mixture_gain(100 * x, 100 * mean, np.ones_like(mean), rho, design)
    rows = np.arange(30) != 3
    assert (found.state[rows] == (own[rows] + 1) % 4).mean() > 0.9
    assert np.median(found.part[rows]) in (0.3, 0.5)


def test_a_count_that_says_little_weighs_little():
    x, mean, rho, design, _ = states_and_counts()
    whole = mixture_gain(x, mean, np.ones_like(mean), rho, design).gain
    np.testing.assert_allclose(mixture_gain(x, mean, np.full_like(mean, 0.1), rho, design).gain, 0.1 * whole, atol=1e-9)


def test_partners_are_of_two_kinds_and_one_batch():
    kinds, batch = RNG.choice(list("abc"), 500, p=[0.9, 0.05, 0.05]), RNG.integers(3, size=500)
    pairs = partners(kinds, batch, 400)
    assert pairs.shape == (400, 2)
    assert (kinds[pairs[:, 0]] != kinds[pairs[:, 1]]).all()
    assert (batch[pairs[:, 0]] == batch[pairs[:, 1]]).all()
    alike = partners(kinds, batch, 400, alike=True)
    assert (kinds[alike[:, 0]] == kinds[alike[:, 1]]).all()
    assert (alike[:, 0] != alike[:, 1]).all()
    with pytest.raises(bv.InputError, match="two kinds"):
        partners(np.array(["a"] * 10), np.zeros(10), 5)
    with pytest.raises(bv.InputError, match="two kinds"):
        partners(np.array(["a", "b"]), np.array([0, 1]), 5)


def test_neighbours_are_counted_as_by_hand():
    observed, simulated = RNG.normal(size=(40, 2)), RNG.normal(1, 1, size=(40, 2))
    both = np.concatenate([observed, simulated])
    distance = cdist(both, both)
    np.fill_diagonal(distance, np.inf)
    near = np.argsort(distance, axis=1)[:, :10]
    expected = ((near >= 40).sum(1) + 1) / 12
    np.testing.assert_allclose(neighbour_share(observed, simulated, k=10), expected)
    at = np.argsort(cdist([[0.0, 0.0]], both), axis=1)[:, :10]
    np.testing.assert_allclose(neighbour_share(observed, simulated, np.zeros((1, 2)), 10), ((at >= 40).sum(1) + 1) / 12)


def test_a_share_of_neighbours_does_not_depend_on_how_many_were_simulated():
    observed = RNG.normal(size=(2000, 2))
    few, many = (neighbour_share(observed, RNG.normal(size=(n, 2)))[:2000].mean() for n in (500, 2000))
    assert few == pytest.approx(0.5, abs=0.05)
    assert many == pytest.approx(0.5, abs=0.05)


@pytest.mark.parametrize("seed", range(3))
def test_doublets_among_scores_are_counted_and_false_calls_foretold(seed):
    rng = np.random.default_rng(seed)
    single, double = rng.normal(0, 1, 1800), rng.normal(3, 1, 200)
    found = contamination(np.r_[single, double], rng.normal(3, 1, 2000))
    assert 0.05 < found.share < 0.14
    assert stats.kstest(found.p[:1800], "uniform").statistic < 0.06
    called = found.fdr <= 0.1
    assert called[1800:].mean() > 0.4
    assert called[:1800].sum() / called.sum() < 0.2
    order = np.argsort(-np.r_[single, double])
    assert (np.diff(found.p[order]) >= 0).all()
    assert (np.diff(found.fdr[order]) >= 0).all()


def test_no_doublets_are_none():
    found = contamination(RNG.normal(0, 1, 2000), RNG.normal(4, 1, 2000))
    assert found.share < 0.01


def test_separation_is_the_area_under_the_curve():
    positive, negative = RNG.integers(0, 9, 50), RNG.integers(0, 7, 80)
    expected = roc_auc_score(np.r_[np.ones(50), np.zeros(80)], np.r_[positive, negative])
    assert separation(positive, negative) == pytest.approx(expected)


def test_the_residual_of_components_is_the_distance_from_their_span():
    x = scipy.sparse.csr_array(RNG.poisson(2.0, (120, 60)).astype(float))
    own, asked = by_components(x[:60], x[60:90], x[90:])
    y = np.log1p(1e4 * x.toarray() / x.toarray().sum(1, keepdims=True))
    centred = y - y[:60].mean(0)
    right = np.linalg.svd(centred[:60], full_matrices=False)[2][:30]
    residual = ((centred - centred @ right.T @ right) ** 2).sum(1)
    np.testing.assert_allclose(own["residual of components"], residual[:60], rtol=1e-6)
    np.testing.assert_allclose(asked["residual of components"], residual[90:], rtol=1e-6)
    assert own["neighbours on components"].between(0, 1).all()


# p-values


def test_conformal_p_values_count_the_ordinary_and_leave_oneself_out():
    score, normal = np.array([1.0, 2.0, 3.0, 2.5]), np.array([True, True, True, False])
    np.testing.assert_allclose(a.conformal(score, normal), [3 / 3, 2 / 3, 1 / 3, 2 / 4])


def test_conformal_p_values_are_uniform_and_so_is_the_least_of_several():
    x = RNG.gamma(1, size=(4000, 3)) + RNG.gamma(2, size=(4000, 1))
    normal = np.arange(4000) < 2000
    p = pd.DataFrame({name: a.conformal(x[:, i], normal) for i, name in enumerate("abc")})
    chance = 1.63 * np.sqrt(2 / 2000)  # of 2,000 measured by 2,000
    assert stats.kstest(p["a"][~normal], "uniform").statistic < chance
    assert stats.kstest(a.together(p, normal)[~normal], "uniform").statistic < chance
    np.testing.assert_allclose(a.together(p, None), np.minimum(1, 3 * p.min(axis=1)))
    np.testing.assert_allclose(np.exp(-a.oddity(p)), p.prod(axis=1))


def test_surprise_is_measured_in_deviations_of_replicates():
    mean, deviation = RNG.uniform(100, 1000, 3000), 5.0
    z_part = RNG.normal(0, 0.5, (3000, 8))
    replicated = mean[:, None] + z_part + deviation * RNG.normal(size=(3000, 8))
    observed = mean[:, None] + z_part + deviation * RNG.normal(size=(3000, 1))
    t, among = a.standardised(observed, replicated)
    for values in (t, among.ravel()):
        assert values.mean() == pytest.approx(0, abs=0.1)
        assert values.std() == pytest.approx(1, abs=0.05)
    assert a.standardised(observed + 20, replicated)[0].mean() == pytest.approx(20 / deviation, rel=0.15)
    with pytest.raises(bv.InputError, match="3 draws"):
        a.standardised(observed[:, :2], replicated[:, :2])


def test_a_value_is_compared_with_those_of_ordinary_neighbours():
    z, value = RNG.normal(size=(200, 3)), RNG.normal(size=200)
    ordinary = RNG.random(200) < 0.5
    found = a.unlike_neighbours(z, value, ordinary)
    distance = cdist(z, z) + np.diag(np.full(200, np.inf))
    distance[:, ~ordinary] = np.inf
    theirs = value[np.argsort(distance, axis=1)[:, : a.AROUND]]
    expected = np.abs(value - theirs.mean(1)) / np.sqrt(theirs.var(1) + a.LEAST**2)
    np.testing.assert_allclose(found, expected)
    assert not a.unlike_neighbours(z[:1], value[:1], np.ones(1, dtype=bool)).any()


def test_a_null_is_moved_to_the_bulk_and_never_made_narrower():
    null, real = RNG.normal(size=20_000), 3 + 2 * RNG.normal(size=20_000)
    real[:1000] += 30  # some are odd
    placed = a.placed(null, real)
    assert np.median(placed) == pytest.approx(np.median(real))
    assert placed.std() == pytest.approx(2, rel=0.1)
    assert a.placed(null, 0.1 * null).std() == pytest.approx(null.std())


def test_the_winner_is_named_whoever_it_is():
    def trials(ours, simple):
        rows = [("doublet", ours, False), ("total counts", simple, True), ("rarity", 0.99, False)]
        return pd.DataFrame(rows, columns=["score", "heterotypic", "simple"])

    assert "best by this model" in winner(trials(0.9, 0.8))
    assert "SIMPLE SCORE" in winner(trials(0.8, 0.9))
    assert "No better" in winner(trials(0.9, 0.899))


# two samples


def test_the_energy_distance_is_that_of_its_formula():
    rng = np.random.default_rng(1)
    one, two = rng.normal(size=(30, 3)), rng.normal(0.5, 1, size=(50, 3))
    expected = 2 * cdist(one, two).mean() - cdist(one, one).mean() - cdist(two, two).mean()
    found, p = energy(one, two)
    assert found == pytest.approx(expected)
    assert p < 0.05


def test_the_energy_test_is_calibrated():
    p = [energy(*np.random.default_rng(s).normal(size=(2, 40, 2)), draws=99, seed=s)[1] for s in range(100)]
    assert stats.kstest(p, "uniform").pvalue > 0.01


def test_ranks_tell_which_way():
    assert rank_test(np.arange(10.0), np.arange(10.0) + 100) == (1.0, pytest.approx(0, abs=1e-3))
    assert rank_test(np.arange(10.0), np.arange(10.0))[0] == 0.5


def test_residuals_of_blocks_are_those_of_the_whole_and_name_the_driver():
    features = pd.Index([f"g{i}" for i in range(30)])
    mean = RNG.uniform(1, 5, (400, 30))
    x = RNG.poisson(mean)
    y = RNG.poisson(np.where(np.arange(30) == 7, 2, 1) * mean)
    whole, parts, new = Residuals(30), Residuals(30), Residuals(30)
    whole.add(x, mean, mean)
    for rows in np.array_split(np.arange(400), 7):
        parts.add(scipy.sparse.csr_array(x[rows]), mean[rows], mean[rows])
    np.testing.assert_allclose(whole.moments, parts.moments)
    new.add(y, mean, mean)
    frame = drivers(whole, new, features, counts=True)
    assert frame["feature"].iloc[0] == "g7"
    assert frame["unexplained"].iloc[0] == pytest.approx(1, abs=0.1)
    assert (frame["fdr"] <= 0.05).sum() <= 3


@pytest.mark.parametrize("size", [60, 189, 1000])
def test_rare_features_of_one_population_drive_nothing(size):
    rng = np.random.default_rng(size)
    mean, sets = 10 ** rng.uniform(-4, 1, 2000), []
    for count in (size, 1000):
        expected = mean * rng.lognormal(0, 0.5, (count, 1))
        sets.append(Residuals(2000))
        counts = rng.poisson(rng.gamma(2.0, expected / 2))
        sets[-1].add(counts, expected, expected + expected**2 / 2)
    frame = drivers(*sets, pd.Index(range(2000)), counts=True)
    assert (frame["fdr"] <= 0.05).sum() <= 1
    assert (frame["p_value"] <= 0.05).mean() < 0.07


# the tools


@pytest.fixture(scope="module")
def adata():
    scenario = Scenario(states=States(types=4, unevenness=0), technical=Technical(batches=2, library=2000))
    data = simulate(scenario.but(violations={"doublets": 0.1}), cells=600, genes=150, seed=0)
    data.obs["test"] = np.arange(600) % 3 == 0
    data.obs["ordinary"] = data.obs["test"] & (data.obs["doublet_true"] == "singlet")
    return data


@pytest.fixture(scope="module")
def vae(adata):
    model = bv.VAE(bv.rna(), covariates=["batch"], latent=5, hidden=32)
    return model.fit(adata, epochs=50, test="test", progress=False)


@pytest.fixture(scope="module")
def found(vae, adata):
    return bv.tl.anomalies(vae, adata, progress=False)


def test_an_ensemble_says_how_many_of_its_fits_call_an_observation(adata):
    vae = bv.VAE(bv.rna(), latent=3, hidden=16).fit(adata, epochs=4, ensemble=2, progress=False)
    found = bv.tl.anomalies(vae, adata, groups="cell_type", progress=False)
    each = [bv.tl.anomalies(fit, adata, groups="cell_type", progress=False) for fit in vae.members]
    called = [frame.index.isin(fit.called().index) for fit, frame in ((e, e.frame) for e in each)]
    np.testing.assert_allclose(found.frame["agree"], np.mean(called, axis=0))
    assert 0 < called[0].sum() < len(adata)
    np.testing.assert_array_equal(found.frame["p_value"], each[0].frame["p_value"])
    assert f"Of {called[0].sum()} called by any kind, {(called[0] & called[1]).sum()} are called by every fit" in str(
        found
    )
    assert "every fit" not in str(each[0])


def test_every_observation_has_a_score_of_each_kind(found, adata):
    assert found.kinds == ("surprise", "misfit", "depth", "support", "doublet")
    assert list(found.frame.index) == list(adata.obs_names)
    p = found.frame[["p_surprise", "p_misfit", "p_depth", "p_support", "p_doublet", "p_value"]]
    assert p.notna().all(axis=None)
    assert ((p > 0) & (p <= 1)).all(axis=None)
    assert found.frame["kind"].isin(found.kinds).all()
    assert not found.calibrated


def test_heterotypic_doublets_are_found_and_homotypic_ones_less(found, adata):
    truth, score = adata.obs["doublet_true"].to_numpy(), found.frame["doublet"].to_numpy()
    single = score[truth == "singlet"]
    assert separation(score[truth == "heterotypic"], single) > 0.85
    trials = found.trials.set_index("score")
    assert trials.loc["doublet", "heterotypic"] > trials.loc["doublet", "homotypic"]
    assert {"neighbours on components", "residual of components", "total counts"} <= set(trials.index[trials["simple"]])


def test_a_covariate_that_is_a_number_keeps_no_cells_apart(adata):
    data = adata.copy()
    data.obs["mito"] = np.random.default_rng(0).random(600)
    model = bv.VAE(bv.rna(), covariates=["mito"], latent=3, hidden=16).fit(data, epochs=5, progress=False)
    assert "doublet" in bv.tl.anomalies(model, data, progress=False).frame


def test_observations_that_repeat_each_other_stand_for_few_states(vae, adata):
    rows = np.repeat(np.arange(12), 40)
    few = ad.AnnData(adata.X[rows], adata.obs.iloc[rows].reset_index(drop=True).rename(index=str), adata.var)
    found = bv.tl.anomalies(vae, few, groups="cell_type", draws=3, progress=False)
    assert found.frame["doublet"].notna().all()


def test_where_no_batch_holds_two_kinds_no_doublets_are_made(adata):
    model = bv.VAE(bv.rna(), covariates=["batch"], latent=3, hidden=16).fit(adata, epochs=5, progress=False)
    found = bv.tl.anomalies(model, adata, groups="batch", progress=False)
    assert "doublet" not in found.frame
    assert "no batch holds two kinds" in str(found)


def test_the_second_state_is_that_of_the_partner_or_of_the_cell(vae, adata):
    named = bv.tl.anomalies(vae, adata, groups="cell_type", progress=False)
    kind = adata.obs["cell_type"].astype(str)
    rows = (adata.obs["doublet_true"] == "heterotypic").to_numpy()
    pair = np.column_stack([kind[rows], kind[adata.obs["partner_true"][rows]]])
    told = named.frame["partner"].to_numpy()[rows]
    assert (pair == told[:, None]).any(axis=1).mean() > 0.8


def test_the_same_seed_gives_the_same_scores(found, vae, adata):
    pd.testing.assert_frame_equal(bv.tl.anomalies(vae, adata, progress=False).frame, found.frame)


def test_ordinary_observations_measure_and_are_not_called(vae, adata):
    measured = bv.tl.anomalies(vae, adata, normal="ordinary", progress=False)
    assert measured.calibrated
    ordinary = adata.obs["ordinary"].to_numpy()
    assert measured.frame["fdr"][ordinary].isna().all()
    assert measured.frame["fdr"][~ordinary].notna().all()
    own = measured.frame["p_doublet"][ordinary].sort_values().to_numpy()
    np.testing.assert_allclose(own, np.arange(1, len(own) + 1) / len(own), atol=3 / len(own))  # but for ties
    doublet = (adata.obs["doublet_true"] == "heterotypic").to_numpy() & ~ordinary
    assert measured.frame["p_doublet"][doublet].median() < 0.05


def test_calls_are_a_set_of_the_oddest(found):
    called = found.called(0.2, "doublet")
    assert (called["fdr_doublet"] <= 0.2).all()
    assert called["p_doublet"].is_monotonic_increasing
    assert "AUROC" not in str(found)  # the table has its own heading
    assert "heterotypic" in str(found)
    with pytest.raises(bv.InputError, match="did you mean 'doublet'"):
        found.called(kind="doublets")
    with pytest.raises(bv.InputError, match="0.1 is usual"):
        found.called(1.0)


def test_damaged_cells_are_surprising(vae, adata):
    test = adata[(adata.obs["ordinary"]).to_numpy()].copy()
    damaged = test[:40].copy()
    shuffled = RNG.permutation(test.n_vars)
    damaged.X = scipy.sparse.csr_matrix(RNG.binomial(test.X[:40].toarray().astype(int), 0.5) + RNG.binomial(
        test.X[:40].toarray()[:, shuffled].astype(int), 0.5
    )).astype(np.float32)  # fmt: skip
    both = ad.concat([test[40:], damaged], index_unique="-")
    frame = bv.tl.anomalies(vae, both, progress=False).frame
    assert separation(frame["surprise"].to_numpy()[-40:], frame["surprise"].to_numpy()[:-40]) > 0.95


def test_reals_have_no_doublets():
    x = RNG.normal(size=(150, 8)) + RNG.normal(size=(150, 1))
    x[:5] += 8 * RNG.normal(size=(5, 8))
    data = ad.AnnData(x.astype(np.float32), obs=pd.DataFrame(index=[f"o{i}" for i in range(150)]))
    vae = bv.VAE(bv.continuous(), latent=2, hidden=16).fit(data, epochs=40, progress=False)
    found = bv.tl.anomalies(vae, data, progress=False)
    assert found.kinds == ("surprise", "support")
    assert "holds none" in str(found)
    assert separation(found.frame["surprise"].to_numpy()[:5], found.frame["surprise"].to_numpy()[5:]) > 0.9
    assert bv.pl.png(bv.pl.anomalies(found).figure).startswith(b"\x89PNG")


@pytest.mark.parametrize(
    ("missing", "modality", "kinds"),
    [
        (0.0, "rna", ("surprise", "misfit", "depth", "support")),
        (0.0, "prot", ("surprise", "misfit", "support")),  # the sum of log levels is no depth
        (0.2, "rna", ("surprise", "misfit", "support")),  # nor is the total of what an observation lacks
    ],
)
def test_depth_is_asked_of_counts_that_every_observation_carries(missing, modality, kinds):
    data = simulate_multi(cells=120, genes=40, missing=(missing, 0.0), seed=0)
    parts = (bv.continuous(name="prot"), bv.rna())
    vae = bv.VAE(*parts, latent=3, hidden=16).fit(data, epochs=3, progress=False)
    found = bv.tl.anomalies(vae, data, modality=modality, progress=False)
    assert found.kinds == kinds
    assert np.isfinite(found.frame[[f"p_{kind}" for kind in kinds]]).all(axis=None)
    assert np.isfinite(found.frame[["surprise", "misfit"]]).all(axis=None)


def test_halves_of_a_data_set_are_alike_and_another_world_is_not(vae, adata):
    test = adata[adata.obs["ordinary"].to_numpy()]
    half = np.arange(test.n_obs) % 2 == 0
    same = bv.tl.shift(vae, test[half], test[~half], progress=False)
    assert same.p_value > 0.01
    assert abs(same.unsupported) < 0.1
    assert "chance would not explain" in str(same)
    other = simulate(Scenario(states=States(types=3)), cells=200, genes=150, seed=9)
    other.obs["batch"] = other.obs["batch"].astype(str)
    moved = bv.tl.shift(vae, other, test, progress=False)
    assert moved.p_value < 1e-3
    assert str(moved).startswith("Not like the reference")
    assert moved.surprising > 0.5
    assert list(moved.observations.index) == list(other.obs_names)


def test_the_feature_that_moved_is_named(vae, adata):
    test = adata[adata.obs["ordinary"].to_numpy()].copy()
    half = np.arange(test.n_obs) % 2 == 0
    new = test[half].copy()
    loud = int(np.argsort(-np.asarray(new.X.mean(0)).ravel())[10])
    x = new.X.toarray()
    x[:, loud] *= 4
    new.X = scipy.sparse.csr_matrix(x)
    moved = bv.tl.shift(vae, new, test[~half], progress=False)
    assert moved.features["feature"].iloc[0] == adata.var_names[loud]
    assert moved.features["log2_fold_change"].iloc[0] > 1


@pytest.mark.parametrize(
    ("act", "message"),
    [
        (lambda vae, d: bv.tl.anomalies(bv.VAE(bv.rna()), d), "call fit"),
        (lambda vae, d: bv.tl.anomalies(vae, d, groups="celltype"), "cell_type"),
        (lambda vae, d: bv.tl.anomalies(vae, d, normal="ordinry"), "did you mean 'ordinary'"),
        (lambda vae, d: bv.tl.anomalies(vae, d, normal=np.arange(600) < 5), "at least 20"),
        (
            lambda vae, d: bv.tl.anomalies(vae, d[d.obs["cell_type"] == "type 1"], groups="cell_type"),
            "at least two groups",
        ),
        (lambda vae, d: bv.tl.anomalies(vae, d, modality="rnaa"), "did you mean 'rna'"),
        (lambda vae, d: bv.tl.shift(bv.VAE(bv.rna()), d, d), "call fit"),
        (lambda vae, d: bv.tl.shift(vae, d[:5], d), "5 new and 600"),
    ],
)
def test_errors_say_what_was_found(act, message, vae, adata):
    with pytest.raises(bv.InputError, match=message):
        act(vae, adata)
