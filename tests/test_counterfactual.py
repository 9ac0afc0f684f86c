"""Counterfactuals: guesses and mixtures whose truth is known, energy distances by brute force, and a simulated drug."""

import anndata as ad
import numpy as np
import pandas as pd
import pytest
import scipy.sparse

import biovae as bv
from biovae.analysis import Predicted, References, energy_distance, judge_predictions, respond
from biovae.errors import InputError


def references(change, place, size=100.0, error=0.01):
    change, place = np.asarray(change, float), np.asarray(place, float)
    names = tuple(f"type {k}" for k in range(len(change)))
    return References(names, change, np.full(change.shape, error), np.full(len(change), size), place)


def nothing(k, weights):
    return np.zeros(200)


# guesses


def test_where_all_respond_alike_the_response_is_the_average():
    rng = np.random.default_rng(0)
    common = rng.normal(size=200)
    found = respond(references(common + 0.01 * rng.normal(size=(5, 200)), np.eye(5)), np.zeros(5), nothing)
    np.testing.assert_allclose(found.change, common, atol=0.05)
    assert found.shares["decoded"] == pytest.approx(0, abs=1e-6)
    assert found.shares.sum() == pytest.approx(1, abs=0.02)
    assert found.spread.mean() < 0.02


def test_where_near_types_respond_alike_they_are_listened_to():
    rng = np.random.default_rng(1)
    kinds = rng.normal(size=(2, 200))
    which = np.array([0, 0, 0, 1, 1, 1])
    place = np.column_stack([10.0 * which, rng.normal(size=6)])
    found = respond(references(kinds[which] + 0.05 * rng.normal(size=(6, 200)), place), np.array([10.0, 0.0]), nothing)
    assert found.shares["similar"] > 0.9
    assert found.weights[3:].sum() > 0.99
    np.testing.assert_allclose(found.change, kinds[1], atol=0.15)
    assert found.missed["mixture"] < 0.3 * found.missed["average"]


def test_a_decoder_that_is_right_is_believed_and_one_that_is_wrong_is_not():
    rng = np.random.default_rng(2)
    change = rng.normal(size=(5, 200))
    asked = rng.normal(size=200)
    right = respond(references(change, np.eye(5)), np.zeros(5), lambda k, w: asked if k is None else change[k])
    assert right.shares["decoded"] == pytest.approx(0.5, abs=0.01)  # it may have seen the answer
    assert np.corrcoef(right.change, asked)[0, 1] > 0.95
    wrong = respond(references(change, np.eye(5)), np.zeros(5), lambda k, w: 3 * rng.normal(size=200))
    assert wrong.shares["decoded"] < 0.1


def test_the_type_that_is_asked_about_has_no_say_in_the_shares():
    rng = np.random.default_rng(3)
    change, noisy = rng.normal(size=(4, 200)), rng.normal(size=(4, 200))

    def decoded(answer):
        return lambda k, w: answer if k is None else change[k] + noisy[k]

    one, two = (respond(references(change, np.eye(4)), np.zeros(4), decoded(np.full(200, v))) for v in (0.0, 100.0))
    np.testing.assert_array_equal(one.shares, two.shares)
    np.testing.assert_array_equal(one.spread, two.spread)


def test_no_type_tells_its_own_response():
    seen = []

    def decoded(k, weights):
        seen.append((k, weights))
        return np.zeros(200)

    respond(references(np.random.default_rng(0).normal(size=(4, 200)), np.eye(4)), np.zeros(4), decoded)
    assert {k for k, _ in seen} == {None, 0, 1, 2, 3}
    for k, weights in seen:
        assert weights.sum() == pytest.approx(1)
        assert k is None or weights[k] == 0


def test_one_reference_is_enough_and_none_is_not():
    change = np.random.default_rng(0).normal(size=(1, 200))
    found = respond(references(change, np.zeros((1, 2))), np.ones(2), lambda k, w: np.zeros(200))
    np.testing.assert_allclose(found.change, change[0] / 2)
    assert np.isnan(found.missed["mixture"])
    with pytest.raises(InputError, match="no response to learn from"):
        respond(references(np.empty((0, 200)), np.empty((0, 2))), np.ones(2), nothing)


# scores


def test_the_energy_distance_is_that_of_brute_force():
    rng = np.random.default_rng(0)
    a, b = rng.normal(size=(30, 3)), rng.normal(1, 1, size=(40, 3))

    def mean(u, v):
        return np.mean([[np.linalg.norm(x - y) for y in v] for x in u])

    assert energy_distance(a, b) == pytest.approx(2 * mean(a, b) - mean(a, a) - mean(b, b))
    assert energy_distance(a, a) == pytest.approx(0)


def scored(told, clouds=None, seed=0):
    """Observations before and after of 300 features, of which 150 change; predictions by name."""
    rng = np.random.default_rng(seed)
    level = rng.gamma(2, 1, 300)
    change = np.where(np.arange(300) < 150, rng.normal(0, 1, 300), 0)
    before = level + 0.5 * rng.normal(size=(80, 300))
    after = level + change + 0.5 * rng.normal(size=(90, 300))
    methods = {}
    for name, share in told.items():
        moved = before + share * change
        methods[name] = Predicted(moved.mean(0), moved[:, :10])
    return judge_predictions(methods, before, (after, after[:, :10]), ("model", "additive")), (before, after, change)


def test_scores_are_those_of_their_definitions():
    judged, (before, after, change) = scored({"model": 0.9, "additive": 0.5, "no change": 0.0})
    table = judged.frame.pivot(index="method", columns="measure", values="value")
    y = after.mean(0)
    top = np.argsort(-np.abs(y - before.mean(0)))[:100]
    for name, share in (("model", 0.9), ("additive", 0.5), ("no change", 0.0)):
        m = before.mean(0) + share * change
        assert table.loc[name, "R2 of means"] == pytest.approx(1 - ((y - m) ** 2).sum() / ((y - y.mean()) ** 2).sum())
        expected = 1 - ((y - m)[top] ** 2).sum() / ((y[top] - y[top].mean()) ** 2).sum()
        assert table.loc[name, "R2 of the 100 most changed"] == pytest.approx(expected)
        moved = (before + share * change)[:, :10]
        assert table.loc[name, "energy distance"] == pytest.approx(energy_distance(moved, after[:, :10]))
    assert str(judged).count("model beats additive") == 3
    assert (judged.frame["lower"] <= judged.frame["upper"]).all()


def test_a_model_that_loses_is_said_to_lose_and_a_tie_is_level():
    assert str(scored({"model": 0.2, "additive": 0.9})[0]).count("additive beats model") == 3
    assert str(scored({"model": 0.9, "additive": 0.9})[0]).count("level") == 3


# the door


KINDS = ("B", "Mono", "NK", "T")


def treated(seed=0, cells=800, genes=120):
    """Four types before and after a drug: 30 genes answer in all types, 10 more in each pair of types."""
    rng = np.random.default_rng(seed)
    base = rng.normal(0, 1, genes) + 0.8 * rng.normal(size=(4, genes)) * (rng.random((4, genes)) < 0.4)
    answer = np.zeros((4, genes))
    answer[:, :30] = rng.normal(1.2, 0.4, 30)
    answer[:2, 30:40] = answer[2:, 40:50] = 1.2
    kind, after = rng.integers(4, size=cells), rng.random(cells) < 0.5
    log_share = base[kind] + answer[kind] * after[:, None] + 0.1 * rng.normal(size=(cells, genes))
    share = np.exp(log_share)
    mean = share / share.sum(1, keepdims=True) * rng.lognormal(np.log(800), 0.2, (cells, 1))
    obs = pd.DataFrame(
        {"type": np.array(KINDS)[kind], "drug": np.where(after, "given", "none")}, index=[f"c{i}" for i in range(cells)]
    )
    var = pd.DataFrame(index=[f"gene{j}" for j in range(genes)])
    return ad.AnnData(scipy.sparse.csr_matrix(rng.poisson(mean).astype(np.float32)), obs=obs, var=var)


@pytest.fixture(scope="module")
def adata():
    return treated()


@pytest.fixture(scope="module")
def left_out(adata):
    return ((adata.obs["type"] == "NK") & (adata.obs["drug"] == "given")).to_numpy()


@pytest.fixture(scope="module", params=["latent arithmetic", "covariate swap"])
def found(request, adata, left_out):
    told = ["drug"] if request.param == "covariate swap" else []
    vae = bv.VAE(bv.rna(), covariates=told, latent=6, hidden=48)
    vae.fit(adata[~left_out].copy(), epochs=60, progress=False)
    found = bv.tl.counterfactual(vae, adata, "drug", "none", "given", group={"type": "NK"})
    assert found.way == request.param
    return found


def test_a_counterfactual_comes_near_what_happens(found, adata, left_out):
    judged = found.score(adata[left_out])
    table = judged.frame.pivot(index="measure", columns="method", values="value")
    assert table.loc["R2 of means", "VAE"] > table.loc["R2 of means", "no change"]
    assert table.loc["R2 of the 100 most changed", "VAE"] > table.loc["R2 of the 100 most changed", "no change"] + 0.1
    assert table.loc["energy distance", "VAE"] < 0.5 * table.loc["energy distance", "no change"]
    assert 0.7 < judged.coverage
    assert "additive" in str(judged)


def test_the_frame_is_in_logarithms_of_counts(found, adata):
    x = adata.X.toarray()[(adata.obs["type"] == "NK") & (adata.obs["drug"] == "none")]
    np.testing.assert_allclose(found.frame["source"], np.log1p(1e4 * x / x.sum(1, keepdims=True)).mean(0), rtol=1e-5)
    frame = found.frame
    assert (frame["lower"] <= frame["upper"]).all()
    assert (
        (frame["lower"] <= frame["prediction"] + 0.05) & (frame["prediction"] - 0.05 <= frame["upper"])
    ).mean() > 0.9
    np.testing.assert_allclose(frame["change"], frame["prediction"] - frame["source"])
    assert found.counts.shape == (len(found.rows), 120)
    assert (found.counts.data == np.round(found.counts.data)).all()
    assert set(adata.obs["type"].iloc[found.rows]) == {"NK"}
    assert set(adata.obs["drug"].iloc[found.rows]) == {"none"}
    assert "NK, none to given" in str(found)
    assert list(found.response.weights.index) == ["B", "Mono", "T"]


def test_every_draw_has_counts_of_its_own(found):
    moved, shift = found.moved, np.full(found.moved.z.shape[1], 0.1)
    one, again, other = (moved.change(found.rows, shift, samples=1, draw=k) for k in (1, 1, 2))
    np.testing.assert_array_equal(one, again)
    assert (one != other).mean() > 0.9


def test_an_ensemble_predicts_the_mean_of_its_fits_as_surely_as_they_agree(adata):
    vae = bv.VAE(bv.rna(), latent=3, hidden=16).fit(adata, epochs=4, ensemble=3, progress=False)
    asked = (adata, "drug", "none", "given")
    found = bv.tl.counterfactual(vae, *asked, group={"type": "NK"})
    each = [bv.tl.counterfactual(fit, *asked, group={"type": "NK"}).frame for fit in vae.members]
    told = np.array([frame["prediction"] for frame in each])
    width = np.array([frame["upper"] - frame["lower"] for frame in each])
    np.testing.assert_allclose(found.frame["prediction"], told.mean(0))
    np.testing.assert_allclose(found.frame["change"], told.mean(0) - each[0]["source"])
    assert (found.frame["lower"] <= found.frame["upper"]).all()
    wide = (found.frame["upper"] - found.frame["lower"]).to_numpy()
    free = found.frame["lower"] > 0  # a limit at 0 is cut off
    assert (wide >= np.sqrt((width**2).mean(0)) * (1 - 1e-9))[free].all()
    assert "mean of 3 fits" in str(found)
    assert "mean of" not in str(bv.tl.counterfactual(vae.members[1], *asked, group={"type": "NK"}))


def test_what_is_asked_about_is_not_looked_at(found, adata, left_out):
    others = adata[~left_out].copy()
    again = bv.tl.counterfactual(found.moved.vae, others, "drug", "none", "given", group={"type": "NK"})
    pd.testing.assert_frame_equal(again.frame, found.frame)


def test_it_can_be_drawn(found, adata, left_out):
    frame = found.beside(adata[left_out])
    x = adata.X.toarray()[left_out]
    np.testing.assert_allclose(frame["observed"], np.log1p(1e4 * x / x.sum(1, keepdims=True)).mean(0), rtol=1e-5)
    assert bv.pl.png(bv.pl.counterfactual(frame).figure).startswith(b"\x89PNG")
    assert "before" in bv.pl.counterfactual(found.frame).get_xlabel()


@pytest.mark.parametrize(
    ("how", "message"),
    [
        ({"column": "drugs"}, "did you mean 'drug'"),
        ({"target": "givn"}, "did you mean 'given'"),
        ({"source": "given"}, "two different levels"),
        ({"group": {"type": "NKT"}}, "did you mean 'NK'"),
        ({"group": "NK"}, "one column and one level"),
        ({"keep": ["NK"]}, "no response to learn from"),
        ({"unfitted": True}, "call fit"),
    ],
)
def test_errors_say_what_was_found(how, message, found, adata):
    how = {"column": "drug", "source": "none", "target": "given", "group": {"type": "NK"}} | how
    data = adata[adata.obs["type"].isin(how.pop("keep", KINDS))].copy()
    vae = bv.VAE(bv.rna()) if how.pop("unfitted", False) else found.moved.vae
    with pytest.raises(InputError, match=message):
        bv.tl.counterfactual(vae, data, how["column"], how["source"], how["target"], group=how["group"])


# science


@pytest.mark.slow
def test_types_left_out_of_kang_are_predicted_beside_the_additive_baseline(real):
    """On average over types the mixture is nearer than the additive baseline, by every measure; B cells may lose."""
    adata = ad.read_h5ad(real("kang_ifnb_pbmc.h5ad"))
    kinds, stimulated = adata.obs["cell_type_derived"].astype(str), (adata.obs["condition"] == "stim").to_numpy()
    gains = []
    for seed in range(3):
        for kind in ("B", "CD14+ Mono", "CD4 T", "CD8 T", "FCGR3A+ Mono", "NK", "cDC"):
            left = (kinds == kind).to_numpy() & stimulated
            train = adata[~left].copy()
            vae = bv.VAE(bv.rna(features=2000)).fit(train, seed=seed, progress=False)
            how = {"group": {"cell_type_derived": kind}, "seed": seed}
            judged = bv.tl.counterfactual(vae, train, "condition", "ctrl", "stim", **how).score(adata[left])
            print(f"{kind}, seed {seed}\n{judged}")
            gains.append(judged.frame[judged.frame["method"] == "VAE"].set_index("measure")["gain"])
    assert (pd.concat(gains, axis=1).mean(axis=1) > 0).all()
