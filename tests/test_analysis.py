"""Analysis against brute force, scikit-learn, and data whose truth is known."""

import random

import numpy as np
import pandas as pd
import pytest
import scipy.sparse
from hypothesis import given
from hypothesis import strategies as st
from sklearn.decomposition import PCA as ReferencePCA
from sklearn.metrics import adjusted_rand_score, mean_poisson_deviance

from biovae.analysis import (
    compare,
    deviance_explained,
    explained_out_of_fold,
    label_accuracy,
    label_hits,
    leiden,
    limits,
    log_normalise,
    markers,
    nearest,
    out_of_fold,
    pca,
    prototype,
    r2,
    shared_neighbours,
    variance_explained,
)  # fmt: skip
from biovae.analysis.neighbourhoods import search
from biovae.analysis.neighbourhoods.search import Search
from biovae.analysis.space.prototype import Draw
from biovae.errors import InputError
from biovae.plotting.prototype import most_different

FEATURES = [f"gene{j}" for j in range(40)]


def blobs(seed=0, sizes=(80, 60, 40), latent=3, apart=12.0):
    rng = np.random.default_rng(seed)
    label = np.repeat(np.arange(len(sizes)), sizes)
    centre = np.zeros((len(sizes), latent))
    centre[np.arange(len(sizes)), np.arange(len(sizes)) % latent] = apart
    return centre[label] + rng.standard_normal((len(label), latent)), np.array(["A", "B", "C"])[label]


def typed_counts(seed=0, cells=300, depth=400):
    """Three types, each with five features eight times as high; depths differ tenfold. Curved by exp alone."""
    rng = np.random.default_rng(seed)
    label = rng.integers(3, size=cells)
    profile = np.ones((3, len(FEATURES)))
    for t in range(3):
        profile[t, 5 * t : 5 * t + 5] = 8
    profile /= profile.sum(1, keepdims=True)
    exposure = depth * np.exp(rng.normal(0, 0.6, cells))
    mean = exposure[:, None] * profile[label]
    counts = scipy.sparse.csr_array(rng.poisson(mean).astype(np.float64))
    return counts, label, mean


# neighbours


@given(st.integers(2, 40), st.sampled_from([1, 2, 5, 15, 16, 30]), st.integers(1, 20), st.integers(0, 5))
def test_neighbours_are_those_of_brute_force(count, latent, k, seed):
    z = np.random.default_rng(seed).standard_normal((count, latent))
    index, distance = nearest(z, k)
    every = np.linalg.norm(z[:, None] - z[None], axis=-1)
    np.fill_diagonal(every, np.inf)
    expected = np.sort(every, axis=1)[:, : min(k, count - 1)]
    np.testing.assert_allclose(distance, expected, atol=1e-9)
    np.testing.assert_allclose(np.take_along_axis(every, index, 1), distance, atol=1e-9)


def test_nobody_is_its_own_neighbour_even_among_duplicates():
    index, _ = nearest(np.zeros((30, 2)), 5)
    assert not (index == np.arange(30)[:, None]).any()


@pytest.mark.parametrize("dimensions", [3, 20])  # a tree, all distances
def test_places_find_the_nearest_of_many_points_in_whatever_order_they_ask(dimensions):
    rng = np.random.default_rng(0)
    points, places = rng.standard_normal((500, dimensions)), rng.standard_normal((300, dimensions))
    every = np.linalg.norm(places[:, None] - points[None], axis=-1)
    index, distance = Search(points).at(places, 7)
    np.testing.assert_array_equal(index, np.argsort(every, axis=1)[:, :7])
    np.testing.assert_allclose(distance, np.sort(every, axis=1)[:, :7])
    assert Search(points).at(places, 900)[0].shape == (300, 500)


def test_more_than_a_block_of_places_is_searched(monkeypatch):
    z = np.random.default_rng(0).standard_normal((50, 3))
    whole = Search(z).others(4)
    monkeypatch.setattr(search, "PLACES", 7)
    for a, b in zip(Search(z).others(4), whole, strict=True):
        np.testing.assert_array_equal(a, b)


def test_one_observation_has_no_neighbours():
    assert nearest(np.zeros((1, 2)))[0].shape == (1, 0)
    assert not label_hits(np.zeros((1, 2)), ["a"]).any()


def test_separate_types_are_always_hit_and_shuffled_ones_at_chance():
    z, label = blobs()
    assert label_accuracy(z, label) == 1.0
    shuffled = np.random.default_rng(0).permutation(label)
    assert label_accuracy(z, shuffled) < 0.6


def test_hits_are_the_majority_of_the_neighbours_nearest_first_in_a_tie():
    z = np.array([[0.0], [1.0], [2.1], [3.3], [4.6]])
    assert label_hits(z, ["a", "a", "b", "b", "b"], k=2).tolist() == [True, True, False, True, True]
    assert label_hits(z, ["b", "a", "b", "b", "b"], k=2).tolist() == [False, False, False, True, True]


@pytest.mark.parametrize(
    ("act", "message"),
    [
        (lambda z: nearest(np.where(z > 5, np.nan, z)), "finite positions"),
        (lambda z: nearest(z, 0), "k=0"),
        (lambda z: label_accuracy(z, ["a"] * 3), "found 3"),
        (lambda z: label_accuracy(z, [None] + ["a"] * (len(z) - 1)), "rows '0'"),
        (lambda z: shared_neighbours(nearest(z)[0], nearest(z[:9])[0]), "two equal tables"),
        (lambda z: compare(z, pca(z[:50], 2)), "found 180 and 50"),
        (lambda z: pca(z[:1], 2), "2 training observations"),
        (lambda z: log_normalise(np.abs(z), np.zeros(len(z))), "180 positive exposures"),
        (lambda z: markers(np.abs(z), np.repeat("a", len(z)), ["x"]), "3 feature names"),
        (lambda z: prototype(z[0], z[1], ["x"]), "one number of features"),
    ],
)
def test_errors_say_what_was_found(act, message):
    with pytest.raises(InputError, match=message):
        act(blobs()[0])


# clusters and markers


@pytest.mark.parametrize("seed", range(5))
def test_leiden_finds_blobs_and_names_them_by_size(seed):
    z, label = blobs(seed)
    found = leiden(z, resolution=0.3, seed=seed)
    assert adjusted_rand_score(label, found) == 1.0
    assert [*pd.Series(found).value_counts().loc[["0", "1", "2"]]] == [80, 60, 40]


def test_leiden_is_decided_by_its_seed_and_leaves_the_global_generator_alone():
    z = np.random.default_rng(0).standard_normal((200, 2))
    random.seed(1)
    state = random.getstate()
    once = leiden(z, resolution=2.0, seed=3)
    assert random.getstate() == state
    random.seed(2)
    assert (leiden(z, resolution=2.0, seed=3) == once).all()


@pytest.mark.parametrize("count", [1, 2, 5])
def test_leiden_of_a_handful(count):
    assert len(leiden(np.arange(count, dtype=float)[:, None])) == count


def test_markers_are_those_that_were_planted():
    counts, label, mean = typed_counts()
    before = counts.data.copy()
    frame = markers(counts, label.astype(str), FEATURES, top=5)
    assert [*frame.columns] == ["cluster", "feature", "log2_fold_change", "fraction_in", "fraction_out", "score"]
    for t in range(3):
        rows = frame[frame["cluster"] == str(t)]
        assert set(rows["feature"]) == set(FEATURES[5 * t : 5 * t + 5])
        np.testing.assert_allclose(rows["log2_fold_change"], 3, atol=0.35)
    assert (counts.data == before).all()


def test_the_score_is_welchs_t():
    counts, label, _ = typed_counts()
    logs = log_normalise(counts).toarray()
    t = scipy.stats.ttest_ind(logs[label == 1], logs[label != 1], equal_var=False).statistic
    frame = markers(counts, label.astype(str), FEATURES, top=3).query("cluster == '1'")
    np.testing.assert_allclose(frame["score"], np.sort(t)[::-1][:3], rtol=1e-6)


def test_markers_of_one_cluster_and_of_a_single_cell():
    counts, label, _ = typed_counts(cells=20)
    assert markers(counts, np.repeat("all", 20), FEATURES).empty
    alone = np.where(np.arange(20) == 0, "one", "rest")
    assert np.isfinite(markers(counts, alone, FEATURES)["score"]).all()


# lines


def test_a_line_is_found_out_of_fold_and_noise_is_not():
    rng = np.random.default_rng(0)
    x = rng.standard_normal((500, 4))
    y = x @ rng.standard_normal((4, 2)) + 3
    assert explained_out_of_fold(x, y) > 0.99
    assert -0.05 < explained_out_of_fold(x, rng.standard_normal((500, 2))) < 0.02
    assert r2(np.ones((4, 1)), np.zeros((4, 1))) == 0.0


def test_a_column_that_hardly_varies_predicts_little():
    rng = np.random.default_rng(0)
    secret = rng.standard_normal((500, 1))
    x = np.hstack([rng.standard_normal((500, 1)), 1e-4 * secret])
    assert explained_out_of_fold(x, secret) < 0.05


@pytest.mark.parametrize("count", [1, 2, 3])
def test_predictions_of_a_handful_are_finite(count):
    assert np.isfinite(out_of_fold(np.zeros((count, 2)), np.ones((count, 1)))).all()


# PCA


@pytest.mark.parametrize("components", [2, 5])
@pytest.mark.parametrize("kind", [scipy.sparse.csr_array, scipy.sparse.csr_matrix, np.asarray])
def test_pca_is_scikit_learns(components, kind):
    x = log_normalise(typed_counts()[0]).toarray()
    train = np.arange(len(x)) < 200
    found = pca(kind(x), components, train=train)
    reference = ReferencePCA(components, svd_solver="full").fit(x[train])
    np.testing.assert_allclose(found.explained, reference.explained_variance_ratio_, rtol=1e-6)
    np.testing.assert_allclose(np.abs(found.loadings.T @ reference.components_.T), np.eye(components), atol=1e-5)
    np.testing.assert_allclose(found.mean, x[train].mean(0), atol=1e-9)
    np.testing.assert_allclose(
        found.reconstruct(np.arange(200, 210)), reference.inverse_transform(reference.transform(x[200:210])), atol=1e-5
    )


def test_pca_gives_the_same_bits_for_the_same_seed():
    x = log_normalise(typed_counts()[0])
    assert (pca(x, 4, seed=1).scores == pca(x, 4, seed=1).scores).all()


def test_pca_of_fewer_features_than_components_keeps_what_there_is():
    x = np.random.default_rng(0).standard_normal((20, 3))
    found = pca(x, 10)
    assert found.scores.shape == (20, 3)
    np.testing.assert_allclose(found.reconstruct(), x, atol=1e-9)
    assert (pca(np.ones((5, 3)), 2).explained == 0).all()


# comparison


def split(count):
    return np.arange(count) % 5 != 0, np.flatnonzero(np.arange(count) % 5 == 0)


def test_the_truth_explains_what_its_deviance_says_and_more_than_pca():
    counts, _, mean = typed_counts()
    train, rows = split(300)
    exposure = counts.sum(1)
    base = pca(log_normalise(counts, exposure), 2, train=train)
    blocks = np.array_split(mean[rows], 7)
    found = deviance_explained(counts, exposure, (train, rows), blocks, base)
    null = exposure[rows, None] * counts[train].sum(0) / exposure[train].sum()
    dense = counts[rows].toarray().ravel()
    expected = 1 - mean_poisson_deviance(dense, mean[rows].ravel()) / mean_poisson_deviance(dense, null.ravel())
    assert found.vae == pytest.approx(expected, rel=1e-9)
    assert 0.5 * found.vae < found.pca < found.vae  # two components hold three types; the line costs a little


def test_a_model_that_says_the_mean_explains_nothing():
    counts, _, _ = typed_counts()
    train, rows = split(300)
    exposure = counts.sum(1)
    null = exposure[rows, None] * counts[train].sum(0) / exposure[train].sum()
    found = deviance_explained(counts, exposure, (train, rows), [null], pca(log_normalise(counts), 2, train=train))
    assert found.vae == pytest.approx(0, abs=1e-12)
    assert found.pca - found.vae > 5 * found.se > 0


def test_means_of_other_rows_are_refused():
    counts, _, mean = typed_counts()
    with pytest.raises(InputError, match="means of 60 observations, found 10"):
        deviance_explained(counts, counts.sum(1), split(300), [mean[:10]], pca(log_normalise(counts), 2))


def test_variance_explained_of_real_values():
    rng = np.random.default_rng(0)
    signal = rng.standard_normal((200, 2)) @ rng.standard_normal((2, 6))
    x = signal + 0.1 * rng.standard_normal((200, 6))
    train, rows = split(200)
    found = variance_explained(x, (train, rows), [signal[rows]], pca(x, 2, train=train))
    assert found.vae > 0.97
    assert found.pca > 0.97


def test_comparison_of_pca_with_itself_and_with_a_bent_space():
    rng = np.random.default_rng(0)
    x = rng.standard_normal((400, 5)) * [4, 3, 0.1, 0.1, 0.1]
    base = pca(x, 2)
    same = compare(base.scores @ [[0.6, 0.8], [-0.8, 0.6]], base)
    assert same.agreement == pytest.approx(1)
    assert same.nonlinear == pytest.approx(0, abs=1e-3)
    bent = compare(base.scores**2, base, labels=(base.scores[:, 0] > 0).astype(str))
    assert bent.nonlinear > 0.9
    assert bent.labels[0] > 0.95 > 0.7 > bent.labels[1]
    frame = bent.to_frame()
    assert [*frame.columns] == ["measure", "pca", "vae", "unit", "better"]
    assert len(frame) == 3


# prototype


def test_a_prototype_between_two_types_is_called_so():
    rng = np.random.default_rng(0)
    types = pd.DataFrame(rng.dirichlet(np.ones(40), 4), index=["A", "B", "C", "D"], columns=FEATURES)
    typical = 0.7 * types.loc["A"] + 0.3 * types.loc["C"]
    z = np.array([[3.0, 0.0], [0.1, 0.0], [0.0, 1.0]])
    found = prototype(typical.to_numpy(), types.mean().to_numpy(), FEATURES, z, types)
    assert found.weights.index[0] == "A"
    np.testing.assert_allclose(found.weights.loc[["A", "C", "B", "D"]], [0.7, 0.3, 0, 0], atol=1e-6)
    assert found.unexplained == pytest.approx(0, abs=1e-9)
    assert found.similarity.index[0] == "A"
    assert found.nearest.tolist() == [1, 2, 0]
    assert str(found).endswith("as a mixture of types it is 70% A, 30% C.")


def test_shares_of_a_mixture_lie_between_what_draws_of_them_say():
    rng = np.random.default_rng(0)
    truth = rng.dirichlet(np.ones(40), 3)
    typical = np.array([0.6, 0.4, 0]) @ truth

    def seen():
        return pd.DataFrame(truth * rng.gamma(200, 1 / 200, truth.shape), index=["A", "B", "C"], columns=FEATURES)

    inside = 0
    for _ in range(60):
        types = seen()
        again = [types.to_numpy() * rng.gamma(200, 1 / 200, truth.shape) for _ in range(40)]
        draws = [Draw(typical, truth.mean(0), each) for each in again]
        found = prototype(typical, truth.mean(0), FEATURES, types=types, draws=draws)
        inside += int(found.limits.loc["A", "lower"] < 0.6 < found.limits.loc["A", "upper"])
    assert 46 <= inside <= 60  # 54 expected
    assert "A (" in str(found)
    assert prototype(typical, truth.mean(0), FEATURES, types=types).limits.empty


@pytest.mark.parametrize("sign", [1, -1], ids=["counts", "reals"])
def test_a_prototype_differs_from_the_mean_where_the_limits_say_so(sign):
    typical, mean = np.array([8.0, 4.2, 1.0]), np.array([4.0, 4.0, 4.0]) * sign
    typical[1] *= sign
    rng = np.random.default_rng(0)
    none = np.empty((0, 3))
    draws = [Draw(typical * (1 + 0.1 * rng.standard_normal(3)), mean, none) for _ in range(200)]
    found = prototype(typical, mean, ["a", "b", "c"], draws=draws)
    value = found.frame["log2_fold_change" if sign > 0 else "difference"]
    assert ((found.frame["lower"] < value) & (value < found.frame["upper"])).all()
    if sign > 0:
        low, high = np.log2(8 * (1 + 0.1 * np.array([-1.645, 1.645])) / 4)
        np.testing.assert_allclose(found.frame.loc[0, ["lower", "upper"]].astype(float), [low, high], atol=0.05)
        assert "Of 3 features 1 are higher than in the mean of the data and 1 lower" in str(found)
        assert set(most_different(found.frame, 3)) == {0, 2}  # what does not differ for sure is not named
    assert "lower" not in prototype(typical, mean, ["a", "b", "c"]).frame


def test_draws_below_zero_do_not_make_limits_of_what_is_not():
    draws = [Draw(np.array([value]), np.array([4.0]), np.empty((0, 1))) for value in np.linspace(-0.2, 0.3, 40)]
    frame = prototype(np.array([0.05]), np.array([4.0]), ["a"], draws=draws).frame
    assert frame["lower"].item() <= frame["log2_fold_change"].item() <= frame["upper"].item() < 0


def test_fold_changes_are_the_logarithms_of_ratios():
    found = prototype(np.array([8.0, 4.0, 0.0]), np.array([4.0, 4.0, 4.0]), ["a", "b", "c"])
    np.testing.assert_allclose(found.frame["log2_fold_change"][:2], [1, 0], atol=0.01)
    assert np.isfinite(found.frame["log2_fold_change"]).all()
    assert found.weights.empty
    assert "centre" in str(found)


def test_values_that_can_be_negative_have_differences_and_no_mixture():
    types = pd.DataFrame([[1.0, -1.0, 0.5], [0.0, 2.0, -1.0]], index=["A", "B"])
    found = prototype(np.array([0.9, -1.1, 0.4]), np.array([0.5, 0.5, -0.3]), ["a", "b", "c"], types=types)
    assert found.frame["log2_fold_change"].isna().all()
    np.testing.assert_allclose(found.frame["difference"], [0.4, -1.6, 0.7])
    assert found.similarity.index[0] == "A"
    assert found.weights.empty


# limits


@pytest.mark.parametrize("draws", [19, 20, 25, 40, 200])
def test_limits_hold_as_many_further_draws_as_they_say(draws):
    values = np.random.default_rng(draws).standard_normal((draws + 1, 20_000))
    lower, upper = limits(values[:draws])
    inside = ((values[draws] > lower) & (values[draws] < upper)).mean()
    assert 0.893 < inside < 0.915  # between two ranks a straight line lies outside a normal quantile
    np.testing.assert_allclose([lower, upper], np.quantile(values[:draws], (0.05, 0.95), axis=0, method="weibull"))


def test_limits_of_hardly_any_draws_are_the_outermost_and_unknown_where_one_is():
    values = np.array([[1.0, 5.0], [3.0, np.nan], [2.0, 1.0]])
    np.testing.assert_array_equal(limits(values), [[1, np.nan], [3, np.nan]])
    with pytest.raises(InputError, match="several draws for the limits of an interval, found 1"):
        limits(values[:1])
