"""What a dimension means, against closed forms, scipy, and simulations that know."""

import sys
import warnings

import anndata as ad
import numpy as np
import pandas as pd
import pytest
import scipy.stats
import torch

import biovae as bv
from biovae.analysis import Dimensions, associate, differences, effects, enrich, ladder, traverse
from biovae.batch import Context
from biovae.datasets import scenarios, simulate
from biovae.errors import InputError

RNG = np.random.default_rng(0)
W = RNG.standard_normal((6, 3))
NAMES = [f"g{i}" for i in range(6)]


def shares(z):
    a = np.exp(z @ W.T)
    return a / a.sum(1, keepdims=True)


# effects


def test_differences_are_the_derivative_of_a_softmax():
    z = RNG.standard_normal((20, 3))
    expected = W[:, 1] - shares(z) @ W[:, [1]]
    np.testing.assert_allclose(differences(shares)(z, 1), expected, atol=2e-3)
    np.testing.assert_allclose(differences(shares, step=1e-4)(z, 1), expected, atol=1e-7)


def test_effects_tell_a_direction_from_a_bend():
    def decode(z):
        return np.exp(np.stack([z[:, 0], -2 * z[:, 0], z[:, 0] ** 2, 0 * z[:, 0] + z[:, 1]], 1))

    draws = np.random.default_rng(1).standard_normal((4, 2000, 2))
    frame = effects(differences(decode), draws, ["up", "down", "bend", "still"])
    first = frame[frame["dimension"] == 0].set_index("feature")
    np.testing.assert_allclose(first.loc[["up", "down", "still"], "effect"], [1, -2, 0], atol=1e-5)
    assert first["sign"].to_dict() == {"up": 1, "down": -1, "bend": 0, "still": 0}
    bend = first.loc["bend"]  # its derivative is 2 z, and z is standard normal
    assert bend["se"] == pytest.approx(2 / np.sqrt(8000), rel=0.1)
    assert abs(bend["effect"]) < 4 * bend["se"]
    np.testing.assert_allclose([bend["lower"], bend["upper"]], [-3.29, 3.29], atol=0.15)
    assert bend["positive"] == pytest.approx(0.5, abs=0.02)
    second = frame[frame["dimension"] == 1].set_index("feature")
    assert second["sign"].to_dict() == {"up": 0, "down": 0, "bend": 0, "still": 1}


def test_a_weight_ranks_and_leaves_the_effects():
    draws = np.random.default_rng(1).standard_normal((1, 50, 3))
    plain = effects(differences(shares), draws, NAMES)
    weighed = effects(differences(shares), draws, NAMES, np.arange(6.0))
    pd.testing.assert_series_equal(plain["effect"], weighed["effect"])
    np.testing.assert_allclose(weighed["score"], plain["effect"] * np.tile(np.arange(6.0), 3))


def test_slopes_of_another_number_of_features_are_refused():
    with pytest.raises(InputError, match="slopes of 5 features"):
        effects(differences(shares), np.zeros((1, 4, 3)), NAMES[:5])


def test_draws_of_weights_give_limits_of_an_effect_and_take_a_sign_that_they_do_not_agree_on():
    shifts = np.random.default_rng(0).standard_normal((99, 3)) * [0.1, 0.1, 0.0]

    def slope_with(shift):
        return lambda z, d: np.broadcast_to(np.array([1.0, 0.05, -1.0]) + shift, (len(z), 3))

    draws = np.random.default_rng(1).standard_normal((2, 300, 1))
    plain = effects(slope_with(0), draws, ["sure", "unsure", "fixed"])
    assert plain[["least", "most"]].isna().all(axis=None)
    assert plain["sign"].tolist() == [1, 1, -1]
    found = effects(slope_with(0), draws, ["sure", "unsure", "fixed"], others=[slope_with(s) for s in shifts])
    pd.testing.assert_frame_equal(
        found.drop(columns=["least", "most", "sign", "nearest"]),
        plain.drop(columns=["least", "most", "sign", "nearest"]),
    )
    expected = np.array([1.0, 0.05, -1.0]) + np.sort(shifts, axis=0)[[4, 94]]  # the 5th and 95th of 99
    np.testing.assert_allclose(found[["least", "most"]].to_numpy().T, expected, atol=1e-6)
    assert found["sign"].tolist() == [1, 0, -1]
    np.testing.assert_allclose(found["nearest"], [expected[0, 0], 0, -1], atol=1e-6)
    assert plain["nearest"].isna().all()


def of_effects(score, nearest):
    """Of one dimension, with features a, b, ..."""
    frame = pd.DataFrame({"dimension": 0, "feature": [*"abcdefgh"[: len(score)]], "score": score, "nearest": nearest})
    summary = pd.DataFrame({"spread": [1.0], "active": [True]})
    nothing = pd.DataFrame({"dimension": [], "strength": [], "fdr": []})
    return Dimensions(summary, frame, nothing, None)


def test_features_stand_by_the_limit_nearest_to_zero():
    found = of_effects([9.0, 3.0, 2.0, 1.0, -8.0, -1.0], [0.0, 0.5, 1.5, 0.0, 0.0, -0.2])
    assert found.sides(0) == ([*"cbad"], [*"fe"])
    assert found.sides(0, 2) == ([*"cb"], [*"fe"])
    assert "up c, b (not sure: a, d); down f (not sure: e)." in str(found)


def test_it_is_said_where_nothing_is_sure_and_where_nothing_is_known():
    found = of_effects([3.0, 2.0, -1.0], [0.0, 0.0, -0.5])
    assert "up nothing sure (perhaps a, b); down c." in str(found)
    assert "need draws" not in str(found)
    known = of_effects([2.0, 3.0, -1.0], np.nan)
    assert "up b, a; down c." in str(known)
    assert "their limits need draws" in str(known)


# traversals


def test_the_band_of_a_traversal_holds_what_other_weights_decode():
    def decode_with(shift):
        return lambda z: z + shift

    shifts = np.linspace(-2, 2, 20)
    found = traverse(
        decode_with(0), np.zeros((400, 1)), np.array([[0.0, 1.0]]), ["a"], [decode_with(s) for s in shifts]
    )
    np.testing.assert_allclose(found.mean[0, :, 0], [0, 1])
    low, high = np.quantile(np.tile(shifts, 20), [0.05, 0.95])
    np.testing.assert_allclose(found.lower[0, :, 0], low + np.array([0, 1]), atol=1e-6)
    np.testing.assert_allclose(found.upper[0, :, 0], high + np.array([0, 1]), atol=1e-6)
    few = traverse(decode_with(0), np.zeros((3, 1)), np.array([[0.0, 1.0]]), ["a"], [decode_with(s) for s in shifts])
    np.testing.assert_allclose(few.lower, found.lower, atol=0.2)  # every one of the others, whatever the rows
    np.testing.assert_allclose(few.upper, found.upper, atol=0.2)


def test_a_traversal_moves_one_dimension_and_bands_the_others():
    def decode(z):
        return np.stack([z[:, 0], z[:, 1], z[:, 0] + z[:, 1]], 1)

    base = np.random.default_rng(2).standard_normal((4000, 2))
    values = np.array([[-1.0, 0.0, 1.0], [-2.0, 0.0, 2.0]])
    found = traverse(decode, base, values, ["a", "b", "both"])
    np.testing.assert_allclose(found.mean[0, :, 0], values[0])
    np.testing.assert_allclose(found.upper[0, :, 0] - found.lower[0, :, 0], 0, atol=1e-6)
    np.testing.assert_allclose(found.mean[1, :, 1], values[1])
    expected = np.quantile(base[:, 1], [0.05, 0.95])
    np.testing.assert_allclose([found.lower[0, 2, 2], found.upper[0, 2, 2]], 1 + expected, atol=1e-5)
    alone = traverse(decode, base[:1], values, ["a", "b", "both"])
    assert (alone.lower == alone.upper).all()
    frame = found.frame(1, ["both"])
    assert frame["value"].tolist() == [-2, 0, 2]
    np.testing.assert_allclose(frame["mean"], found.mean[1, :, 2])
    with pytest.raises(InputError, match="'c'"):
        found.frame(0, ["c"])


def test_a_ladder_stays_where_the_data_are():
    z = np.random.default_rng(0).standard_normal((10_000, 2)) * [1, 3]
    rungs = ladder(z, 5)
    assert rungs.shape == (2, 5)
    np.testing.assert_allclose(rungs[:, -1], [2.33, 6.98], atol=0.2)


# associations


def test_numbers_are_spearmans_and_categories_kruskals():
    rng = np.random.default_rng(0)
    z = rng.standard_normal((300, 2))
    age = np.round(z[:, 0] + rng.standard_normal(300), 1)
    age[:20] = np.nan
    kind = np.array(["a", "b", "c"])[rng.integers(3, size=300)]
    z[kind == "b", 1] += 2
    found = associate(z, pd.DataFrame({"age": age, "kind": kind})).set_index(["column", "dimension"])
    for d in range(2):
        rho = scipy.stats.spearmanr(z[20:, d], age[20:])
        assert found.loc[("age", d), "rho"] == pytest.approx(rho.statistic)
        assert found.loc[("age", d), "p"] == pytest.approx(rho.pvalue)
        assert found.loc[("age", d), "strength"] == pytest.approx(rho.statistic**2)
        h = scipy.stats.kruskal(*(z[kind == level, d] for level in "abc"))
        assert found.loc[("kind", d), "p"] == pytest.approx(h.pvalue)
        assert found.loc[("kind", d), "strength"] == pytest.approx(h.statistic / 299)
    assert found.loc[("kind", 1), "highest"] == "b"
    assert found.loc[("age", 0), "observations"] == 280
    np.testing.assert_allclose(found["fdr"], scipy.stats.false_discovery_control(found["p"]))


def test_ties_and_booleans_are_as_scipy_has_them():
    rng = np.random.default_rng(1)
    z = rng.integers(4, size=(200, 1)).astype(float)
    flag = rng.random(200) < 0.3 + 0.1 * z[:, 0]
    found = associate(z, pd.DataFrame({"flag": flag})).iloc[0]
    assert found["p"] == pytest.approx(scipy.stats.kruskal(z[flag, 0], z[~flag, 0]).pvalue)
    assert found["kind"] == "categories"


def test_p_values_are_uniform_where_nothing_goes_with_anything():
    rng = np.random.default_rng(0)
    z = rng.standard_normal((120, 400))
    frame = associate(z, pd.DataFrame({"x": rng.standard_normal(120), "k": rng.integers(4, size=120).astype(str)}))
    for _, rows in frame.groupby("column"):
        assert scipy.stats.kstest(rows["p"], "uniform").pvalue > 0.01


@pytest.mark.parametrize(
    ("columns", "message"),
    [(pd.DataFrame({"x": np.ones(30)}), "one value in 'x'"), (pd.DataFrame({"x": np.arange(3)}), "found 3")],
)
def test_columns_that_cannot_be_tested_are_refused(columns, message):
    with pytest.raises(InputError, match=message):
        associate(np.random.default_rng(0).standard_normal((30, 2)), columns)


def held(found, truth):
    return ((found["least"] <= truth) & (truth <= found["most"])).mean()


@pytest.mark.parametrize("r", [0.0, 0.3, 0.8])
def test_limits_of_a_rank_correlation_hold_the_truth_as_often_as_said(r):
    rng = np.random.default_rng(0)
    truth = (6 / np.pi * np.arcsin(r / 2)) ** 2  # Spearman's rho of a normal pair
    found = []
    for _ in range(8):
        x = rng.standard_normal(200)
        z = r * x[:, None] + np.sqrt(1 - r**2) * rng.standard_normal((200, 60))
        found.append(associate(z, pd.DataFrame({"x": x})))
    assert 0.86 < held(pd.concat(found), truth) < (0.97 if r else 1.0)


@pytest.mark.parametrize("apart", [0.0, 0.5, 1.5])
def test_limits_of_a_share_hold_the_truth_as_often_as_said(apart):
    rng = np.random.default_rng(1)
    levels, shift = np.array([*"abcd"]), apart * np.arange(4.0)
    many = rng.integers(4, size=400_000)
    ranks = scipy.stats.rankdata(shift[many] + rng.standard_normal(len(many)))
    truth = 1 - sum(((ranks[many == k] - ranks[many == k].mean()) ** 2).sum() for k in range(4)) / (
        len(ranks) * ranks.var()
    )
    found = []
    for _ in range(8):
        k = rng.integers(4, size=200)
        z = shift[k][:, None] + rng.standard_normal((200, 60))
        found.append(associate(z, pd.DataFrame({"k": levels[k]})))
    assert 0.86 < held(pd.concat(found), truth) < (0.97 if apart else 1.0)


def test_limits_of_many_observations_come_from_samples_of_fewer():
    rng = np.random.default_rng(2)
    n = 20_000
    x = rng.standard_normal(n)
    z = 0.5 * x[:, None] + np.sqrt(0.75) * rng.standard_normal((n, 5))
    found = associate(z, pd.DataFrame({"x": x}))
    rho = found["rho"].to_numpy()
    half = 1.645 * np.sqrt((1 + rho**2 / 2) / n)  # Bonett and Wright 2000, doi:10.1007/BF02294183
    np.testing.assert_allclose(found["least"], np.tanh(np.arctanh(rho) - half) ** 2, atol=0.006)
    np.testing.assert_allclose(found["most"], np.tanh(np.arctanh(rho) + half) ** 2, atol=0.006)


def test_limits_are_of_the_observations_that_have_a_value_and_can_be_left_out():
    rng = np.random.default_rng(3)
    z = rng.standard_normal((400, 1))
    x = np.where(np.arange(400) < 100, z[:, 0] + rng.standard_normal(400), np.nan)
    whole, part = associate(z, pd.DataFrame({"x": x})), associate(z[:100], pd.DataFrame({"x": x[:100]}))
    np.testing.assert_allclose(whole[["least", "most"]], part[["least", "most"]], atol=0.08)
    assert associate(z, pd.DataFrame({"x": x}), draws=0)[["least", "most"]].isna().all(axis=None)


# enrichment


def test_enrichment_without_correlation_is_mann_and_whitneys():
    rng = np.random.default_rng(0)
    scores = np.round(rng.standard_normal((200, 3)), 1)  # with ties
    names = [f"g{i}" for i in range(200)]
    found = enrich(scores, names, {"s": names[:20]}, correlation=0).set_index("dimension")
    for d in range(3):
        u = scipy.stats.mannwhitneyu(scores[:20, d], scores[20:, d], method="asymptotic")
        assert found.loc[d, "p"] == pytest.approx(u.pvalue)
        assert found.loc[d, "auc"] == pytest.approx(u.statistic / (20 * 180))


def test_correlated_features_are_called_too_often_unless_they_are_allowed_for():
    rng = np.random.default_rng(0)
    scores = rng.standard_normal((300, 2000))
    scores[:30] = np.sqrt(0.9) * scores[:30] + np.sqrt(0.1) * rng.standard_normal((1, 2000))
    names = [f"g{i}" for i in range(300)]
    plain, aware = ((enrich(scores, names, {"s": names[:30]}, correlation=c)["p"] < 0.05).mean() for c in (0, 0.1))
    assert plain > 0.25
    assert 0.03 < aware < 0.07


def test_a_planted_set_is_found_on_its_dimension_with_its_sign():
    rng = np.random.default_rng(0)
    scores = rng.standard_normal((500, 2))
    scores[:15, 1] -= 2
    names = [f"g{i}" for i in range(500)]
    sets = {"planted": [*names[:15], "unknown"], "random": names[100:150], "small": names[:3]}
    found = enrich(scores, names, sets).set_index(["set", "dimension"])
    assert found.loc[("planted", 1), "fdr"] < 1e-4
    assert found.loc[("planted", 1), "auc"] < 0.2
    assert found.loc[("planted", 1), "features"] == 15
    assert found.loc["random", "fdr"].min() > 0.05
    assert found.loc["small", "p"].isna().all()
    with pytest.raises(InputError, match="same kind of names"):
        enrich(scores, names, {"other": ["ENSG1"]})


# the tool


@pytest.fixture(scope="module")
def cells():
    return simulate(scenarios.TYPES, cells=500, genes=240, seed=0)


def fitted(cells, **how):
    parts = {"covariates": ["batch"], "latent": 4, "hidden": 32, **how}
    modality = bv.rna(decoder=parts.pop("decoder", None))
    return bv.VAE(modality, **parts).fit(cells, epochs=25, progress=False)


@pytest.fixture(scope="module")
def vae(cells):
    return fitted(cells)


def programmes(cells):
    """Genes of each type's own programme."""
    loadings = np.asarray(cells.varm["programmes_true"])[:, : cells.obs["cell_type"].nunique()]
    sets = {f"type {t + 1}": cells.var_names[column > 0] for t, column in enumerate(loadings.T)}
    return {name: genes for name, genes in sets.items() if len(genes) >= 5}


def test_dimensions_of_a_model_name_what_was_simulated(cells, vae):
    found = bv.tl.dimensions(vae, cells, sets=programmes(cells), columns=["cell_type", "library_true"])
    assert len(found.effects) == 4 * 240
    known = found.associations.set_index(["column", "dimension"])["strength"]
    assert known["cell_type"].max() > 0.5
    assert len(programmes(cells)) >= 3
    assert known["library_true"].max() < 0.1  # depth has no place in z
    z = vae.embed(cells)
    for name, genes in programmes(cells).items():
        rows = found.enrichment.query("set == @name").set_index("dimension")
        best = rows["p"].idxmin()
        assert rows.loc[best, "fdr"] < 0.05
        inside = (cells.obs["cell_type"] == name).to_numpy()
        where = np.sign(z[inside, best].mean() - z[~inside, best].mean())
        assert where == np.sign(rows.loc[best, "auc"] - 0.5), f"{name}: {len(genes)} genes"
    assert "goes with cell_type" in str(found)


def test_effects_of_a_model_have_limits_and_bands_are_wider_for_them(cells, vae):
    found, without = (bv.tl.dimensions(vae, cells, columns=[], cells=60, draws=d) for d in (20, 0))
    assert without.effects[["least", "most"]].isna().all(axis=None)
    frame = found.effects
    assert (frame["least"] <= frame["effect"]).mean() > 0.95
    assert (frame["effect"] <= frame["most"]).mean() > 0.95
    np.testing.assert_allclose(frame["effect"], without.effects["effect"])
    assert (np.abs(found.effects["sign"]) <= np.abs(without.effects["sign"])).all()
    np.testing.assert_array_equal(found.traversal.mean, without.traversal.mean)
    wider = [np.log(t.upper / t.lower).mean() for t in (found.traversal, without.traversal)]
    assert wider[0] > wider[1]


def test_the_table_has_the_sides_and_the_company_of_each_dimension(cells, vae):
    found = bv.tl.dimensions(vae, cells, columns=["cell_type"])
    table = found.table(3).set_index("dimension")
    assert list(table.index) == [0, 1, 2, 3]
    rows = found.effects.query("dimension == 2").set_index("feature")
    weight = rows["score"] / rows["effect"]
    up, down = rows["least"] * weight, rows["most"] * weight  # three of each side are sure
    assert table.loc[2, "up"] == ", ".join(up.nlargest(3).index)
    assert table.loc[2, "down"] == ", ".join(down.nsmallest(3).index)
    assert up.nlargest(3).min() > 0 > down.nsmallest(3).max()
    strength = found.associations.set_index("dimension")["strength"]
    assert table["strength"].max() == pytest.approx(strength.max())
    weak = strength.index[strength < 0.05]
    assert table.loc[weak, "column"].isna().all()


def test_differences_of_a_network_are_its_gradients(cells, vae):
    z = vae.embed(cells)[:40]
    slope = differences(lambda at: vae.decode(at, covariates={"batch": "batch 1"}))(z, 2)
    c = torch.tensor([[1.0, 0.0]]).expand(40, -1)
    at = torch.from_numpy(z)

    def log_mean(z):
        return vae.network.parts[0].decode(z, Context(torch.full((40, 1), 1e4), c)).mean.log()

    move = torch.zeros_like(at)
    move[:, 2] = 1
    exact = torch.autograd.functional.jvp(log_mean, at, move)[1].detach().numpy()
    error = np.abs(slope - exact)
    assert np.median(error) < 5e-3
    assert np.corrcoef(slope.ravel(), exact.ravel())[0, 1] > 0.997  # where a ReLU bends, it is the mean of both sides


def test_loadings_of_a_linear_decoder_are_its_slopes(cells):
    vae = fitted(cells, decoder="linear", covariates=[])
    found = bv.tl.dimensions(vae, cells)
    slopes = found.effects["effect"].to_numpy().reshape(4, -1).T
    loadings = found.loadings.to_numpy()
    np.testing.assert_allclose(slopes - slopes[0], loadings - loadings[0], atol=2e-3)
    assert (found.effects["upper"] - found.effects["lower"]).median() < 0.5 * found.effects["effect"].abs().max()


def test_loadings_of_an_additive_decoder_are_the_ends_of_its_curves(cells):
    vae = fitted(cells, decoder="additive")
    found = bv.tl.dimensions(vae, cells).loadings
    assert found.columns.tolist() == [f"{d}{sign}" for d in range(4) for sign in "-+"]
    part = vae.network.parts[0]
    weight, bias, side = (
        t.detach().numpy() for t in (part.decoder.weight, part.decoder.bias, part.decoder.side.weight)
    )
    out = part.likelihood.log_mean.readout.map.weight.detach().numpy()
    end = np.quantile(vae.embed(cells)[:, 1], 0.95)
    start = bias[1] + side.mean(1)
    expected = out @ (np.maximum(start + end * weight[1, 0], 0) - np.maximum(start, 0))
    np.testing.assert_allclose(found["1+"], expected, atol=1e-4)


def test_a_decoder_that_mixes_has_no_loadings(cells, vae):
    assert bv.tl.dimensions(vae, cells, cells=20).loadings is None


def test_reals_and_zeros_and_ones_have_effects_of_their_own(cells):
    logs = np.log1p(np.asarray(cells.X.todense())[:, :30])
    for modality, x, unit in ((bv.continuous(), logs, "change"), (bv.binary(), (logs > 0).astype(float), "log odds")):
        table = cells[:, :30].copy()
        table.X = x
        vae = bv.VAE(modality, latent=2, hidden=16).fit(table, epochs=10, progress=False)
        found = bv.tl.dimensions(vae, table, cells=30)
        assert found.unit.startswith(unit)
        assert np.isfinite(found.effects[["effect", "lower", "upper", "score"]]).all(None)


def test_a_column_that_is_not_there_is_named(cells, vae):
    with pytest.raises(InputError, match="did you mean 'cell_type'"):
        bv.tl.dimensions(vae, cells, columns=["celltype"])


def scored(scores):
    """Found dimensions with these scores, (features, dimensions), of features g0, g1, ..."""
    features, latent = scores.shape
    frame = pd.DataFrame(
        {
            "dimension": np.repeat(np.arange(latent), features),
            "feature": np.tile([f"g{i}" for i in range(features)], latent),
            "score": scores.T.ravel(),
        }
    )
    return Dimensions(pd.DataFrame(), frame, pd.DataFrame(), None)


SETS = {"down": [f"g{i}" for i in range(15)], "none": [f"g{i}" for i in range(100, 150)], "small": ["g1", "g2", "x"]}


def test_contrasts_are_the_scores_in_the_order_of_the_features():
    scores = np.random.default_rng(0).standard_normal((12, 2))
    frame = scored(scores).contrasts
    np.testing.assert_array_equal(frame, scores.T)
    assert list(frame) == [f"g{i}" for i in range(12)]
    assert frame.index.tolist() == ["0", "1"]


def test_enrichment_of_found_dimensions_is_that_of_their_scores():
    scores = np.random.default_rng(0).standard_normal((300, 2))
    found = bv.tl.enrichment(scored(scores), SETS)
    pd.testing.assert_frame_equal(found, enrich(scores, [f"g{i}" for i in range(300)], SETS))


def test_what_a_test_of_enrichment_lacks_is_named(monkeypatch):
    found = scored(np.zeros((300, 1)))
    with pytest.raises(InputError, match="'camera'"):
        bv.tl.enrichment(found, SETS, "camra")
    monkeypatch.setitem(sys.modules, "decoupler", None)  # as where it is not installed
    with pytest.raises(InputError, match=r"biovae\[enrichment\]"):
        bv.tl.enrichment(found, SETS, "ulm")
    with pytest.raises(InputError, match="same kind of names"):
        bv.tl.enrichment(found, {"other": ["ENSG1"]}, "ulm")


def test_decouplers_linear_model_is_the_regression_of_scores_on_membership():
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of its dependencies
        pytest.importorskip("decoupler", reason="the extra 'enrichment'")
    scores = np.random.default_rng(0).standard_normal((300, 2))
    scores[:15, 1] -= 2
    found = bv.tl.enrichment(scored(scores), SETS, "ulm").set_index(["set", "dimension"])
    for name in ("down", "none"):
        inside = [f"g{i}" in SETS[name] for i in range(300)]
        for d in range(2):
            line = scipy.stats.linregress(inside, scores[:, d])
            assert found.loc[(name, d), "t"] == pytest.approx(line.slope / line.stderr, rel=1e-5)
            assert found.loc[(name, d), "p"] == pytest.approx(line.pvalue, rel=1e-5)
    assert found.loc[("down", 1), "fdr"] < 1e-6
    assert found.loc["small", "p"].isna().all()
    assert found["features"].to_dict() == {
        (s, d): n for s, n in (("down", 15), ("none", 50), ("small", 2)) for d in (0, 1)
    }


INTERFERON = "IFIT1 IFIT2 IFIT3 ISG15 ISG20 MX1 MX2 OAS1 LY6E IFI6 IFITM3 CXCL10 IFI44L RSAD2 TNFSF10".split()


@pytest.mark.slow
@pytest.mark.parametrize("seed", [0, 1, 2])
def test_the_dimension_of_the_stimulus_moves_the_interferon_genes(seed, real):
    adata = ad.read_h5ad(real("kang_ifnb_pbmc.h5ad"))
    vae = bv.VAE(bv.rna(features=1000)).fit(adata, epochs=30, seed=seed, progress=False)
    found = bv.tl.dimensions(vae, adata, columns=["condition"], sets={"interferon": INTERFERON})
    best = found.associations.sort_values("strength").iloc[-1]
    row = found.enrichment.set_index("dimension").loc[best["dimension"]]
    up = best["highest"] == "stim"
    assert row["fdr"] < 0.01
    assert row["auc"] > 0.9 if up else row["auc"] < 0.1
    isg15 = found.effects.set_index(["dimension", "feature"]).loc[(best["dimension"], "ISG15")]
    assert isg15["sign"] == (1 if up else -1)
