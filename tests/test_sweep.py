"""The sweep over beta: its rules on curves drawn by hand, and its numbers on cells that are known."""

import anndata as ad
import numpy as np
import pandas as pd
import pytest
import scipy.stats

import biovae as bv
from biovae.analysis import recommend
from biovae.datasets import scenarios, simulate
from biovae.errors import InputError
from biovae.noise import Noise
from biovae.tools.sweep import _behind


def curve(**change):
    """Scores that peak at beta 0.5; a dimension goes silent at 2, everything at 8."""
    columns = {
        "method": "VAE",
        "beta": [0.1, 0.5, 1.0, 2.0, 4.0, 8.0],
        "seed": 0,
        "rate": [30.0, 20.0, 12.0, 8.0, 5.0, 0.01],
        "distortion": [300.0, 302.0, 306.0, 310.0, 316.0, 330.0],
        "score": [-312.0, -310.0, -311.0, -311.8, -316.0, -330.0],
        "gain": [18.0, 20.0, 19.0, 18.2, 14.0, 0.0],
        "active": [5, 5, 5, 4, 3, 0],
    }
    return pd.DataFrame(columns | change)


def test_the_rules_on_a_curve_drawn_by_hand():
    found = recommend(curve(), "score")
    assert (found.imputation, found.discovery, found.pruned, found.collapsed) == (0.5, 2.0, 2.0, 8.0)
    said = str(found)
    assert "Imputation: beta 0.5" in said
    assert "Discovery: beta 2 (91% of that gain" in said
    assert "fall silent from beta 2." in said
    assert "left from beta 8." in said
    assert "edge" not in said


def test_labels_can_lower_the_beta_for_discovery():
    found = recommend(curve(accuracy=[0.9, 0.95, 0.94, 0.8, 0.8, 0.2]), "score")
    assert found.discovery == 1.0


def test_an_edge_and_a_sweep_without_collapse_are_said():
    rows = curve().iloc[1:4]
    said = str(recommend(rows, "score"))
    assert "edge of the sweep" in said
    assert "No collapse up to beta 2." in said
    assert recommend(rows, "score").collapsed is None


def test_betas_that_cannot_be_told_from_the_best_are_named():
    found = recommend(curve(behind_se=[0.5, 0.0, 0.6, 0.5, 0.5, 0.5]), "score")
    assert found.alike == (1.0,)
    assert "within two standard errors: beta 1." in str(found)
    assert recommend(curve(), "score").alike == ()


def test_where_z_buys_nothing_nothing_is_recommended():
    found = recommend(curve(gain=-np.arange(1.0, 7.0)), "score")
    assert str(found).startswith("No beta predicts better than the same likelihood without z (-2.0 nats at best)")
    assert found.collapsed == 0.1


def test_seeds_are_averaged_before_anything_is_read():
    other = curve(seed=1, score=[-310.0, -315.0, -310.5, -312.0, -316.0, -330.0])
    found = recommend(pd.concat([curve(), other]), "score")
    assert found.curve.loc[0.5, "score"] == pytest.approx(-312.5)
    assert found.imputation == 1.0


def beside(more, *rivals):
    """The curve above with a measure, beside PCA and ICA; imputation wants beta 0.5, discovery 2."""
    rows = pd.DataFrame([{"method": name} | row for name, row in rivals])
    return recommend(pd.concat([curve(**more), rows]), "score")


def test_rivals_meet_the_beta_for_the_purpose_and_not_the_best_of_many():
    measured = {"reconstruction": [0.4, 0.2, 0.1, 0.1, 0.1, 0.0], "mig": [0.9, 0.1, 0.1, 0.2, 0.1, 0.0]}
    found = beside(measured, ("PCA", {"reconstruction": 0.3, "mig": 0.3})).rivals.set_index("measure")
    assert found["beta"].to_dict() == {"reconstruction": 0.5, "mig": 2.0}
    assert found["vae"].to_dict() == {"reconstruction": 0.2, "mig": 0.2}
    np.testing.assert_allclose(found["difference"], -0.1)
    assert found["best"].to_dict() == {"reconstruction": 0.4, "mig": 0.9}
    assert found["best_beta"].tolist() == [0.1, 0.1]


@pytest.mark.parametrize(("pca", "verdict"), [(0.85, "ahead of"), (0.89, "alike with"), (0.95, "behind")])
def test_a_rival_is_as_good_within_two_paired_standard_errors(pca, verdict):
    more = {"accuracy": 0.9, "accuracy_se_pca": 0.02, "accuracy_se_ica": 0.001}
    found = beside(more, ("PCA", {"accuracy": pca}), ("ICA, not converged", {"accuracy": 0.893}))
    rows = found.rivals.set_index("rival")
    assert rows["verdict"].to_dict() == {"PCA": verdict, "ICA, not converged": "ahead of"}
    assert f"at beta 2: VAE 0.90, {verdict} PCA {pca:.2f} ({0.9 - pca:+.3f} ± 0.020)" in str(found)
    assert "Best of 6 betas: 0.90 at 0.1." in str(found)


def test_one_fit_without_pairs_is_not_judged_and_seeds_are_by_students_t():
    pca = ("PCA", {"mig": 0.2})
    alone = beside({"mig": 0.3}, pca)
    assert alone.rivals["verdict"].tolist() == ["not judged against"]
    assert "needs several seeds" in str(alone)
    rows = [curve(mig=value, seed=seed) for seed, value in enumerate((0.30, 0.32, 0.34))]
    found = recommend(pd.concat([*rows, pd.DataFrame([{"method": pca[0]} | pca[1]])]), "score").rivals.iloc[0]
    low, high = scipy.stats.t.interval(0.95, 2, loc=0.32, scale=0.02 / np.sqrt(3))
    np.testing.assert_allclose([found["vae"] - 2 * found["se"], found["vae"] + 2 * found["se"]], [low, high])
    assert found["verdict"] == "ahead of"


def test_no_difference_is_told_where_there_is_none_as_often_as_said():
    rng = np.random.default_rng(0)
    told = []
    for _ in range(400):
        rows = [curve(mig=0.3 + 0.1 * rng.standard_normal(), seed=seed) for seed in range(3)]
        frame = pd.concat([*rows, pd.DataFrame([{"method": "PCA", "mig": 0.3}])])
        told.append(recommend(frame, "score").rivals["verdict"].item() != "alike with")
    assert 0.02 < np.mean(told) < 0.09  # 5 %; with plain standard errors 18 %


def test_a_frame_that_is_no_sweep_is_refused():
    with pytest.raises(InputError, match="score"):
        recommend(curve().drop(columns="score"), "score")


@pytest.fixture(scope="module")
def cells():
    return simulate(scenarios.TYPES, cells=400, genes=80, seed=0)


@pytest.fixture(scope="module")
def found(cells):
    vae = bv.VAE(bv.rna(), covariates=["batch"], latent=4, hidden=32)
    return bv.tl.sweep(vae, cells, [300.0, 0.3, 1.0], labels="cell_type", factors=["library_true"], epochs=30)


def test_rate_falls_and_distortion_rises_with_beta(found):
    assert found.curve.index.tolist() == [0.3, 1.0, 300.0]
    assert (np.diff(found.curve["rate"]) < 0).all()
    assert found.curve["distortion"].iloc[-1] > found.curve["distortion"].iloc[0] + 1
    bound = -found.curve["rate"] - found.curve["distortion"]
    np.testing.assert_allclose(bound, found.curve["elbo"], rtol=1e-5)


def test_a_beta_that_forbids_information_is_called_collapsed(found):
    assert found.collapsed == 300.0
    last = found.curve.loc[300.0]
    assert last["active"] == 0
    assert last["gain"] < 1
    assert found.imputation < 300
    assert found.discovery < 300


def test_distances_between_betas_are_paired(found):
    curve = found.curve
    assert curve.loc[found.imputation, "behind_se"] == 0
    others = curve.drop(found.imputation)
    assert (others["behind_se"] > 0).all()
    assert others.loc[1.0 if found.imputation == 0.3 else 0.3, "behind_se"] < 0.5 * curve["score_se"].mean()


def test_pca_and_ica_stand_in_the_same_table(found):
    frame = found.frame.set_index("method")
    assert frame.index.tolist()[-2:] == ["PCA", "ICA"]
    measures = ["accuracy", "mig", "sap", "disentanglement", "completeness", "informativeness", "reconstruction"]
    assert np.isfinite(frame[measures]).all(None)
    assert frame.loc["PCA", "reconstruction"] == frame.loc["ICA", "reconstruction"] > 0
    assert frame.loc[["PCA", "ICA"], "gaussian_total_correlation"].max() < 0.05
    assert frame.loc["PCA", "accuracy"] > 0.8


def test_the_vae_and_its_rivals_are_paired_over_held_out_cells(found):
    rows = found.frame[found.frame["method"] == "VAE"]
    held_out = int((Noise(0).numpy().random(400) < 0.2).sum())
    hits = found.frame["accuracy"] * held_out
    np.testing.assert_allclose(hits, hits.round())
    assert rows["reconstruction_se_pca"].between(1e-5, 0.2).all()
    pca = found.frame.set_index("method").loc["PCA", "accuracy"]
    far = (rows["accuracy"] - pca).abs().to_numpy()  # as many hits differ as the difference at least, each by 1
    least = np.sqrt((far - far**2) / (held_out - 1))
    assert (rows["accuracy_se_pca"] >= least - 1e-12).all()
    assert set(found.rivals["rival"]) == {"PCA", "ICA"}
    assert "Held-out reconstruction at beta" in str(found)


def test_reals_are_swept_by_their_bound(cells):
    table = cells[:, :20].copy()
    table.X = np.log1p(table.X.toarray())
    vae = bv.VAE(bv.continuous(), latent=2, hidden=16)
    found = bv.tl.sweep(vae, table, [1.0, 100.0], epochs=10)
    assert "importance-weighted" in found.scored
    assert "mig" not in found.frame


@pytest.mark.parametrize(
    ("how", "message"),
    [({"betas": []}, "as betas, found none"), ({"betas": [-1.0]}, "found -1.0"), ({"labels": "celltype"}, "cell_type")],
)
def test_what_cannot_be_swept_is_refused_before_anything_is_fitted(cells, how, message):
    with pytest.raises(InputError, match=message):
        bv.tl.sweep(bv.VAE(bv.rna()), cells, **how)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["pbmc_facs.h5ad", "pbmc3k_hvg2000.h5ad"])
def test_on_cells_a_low_beta_predicts_and_a_high_one_collapses(name, real):
    adata = ad.read_h5ad(real(name))
    vae = bv.VAE(bv.rna(features=500), hidden=64)
    found = bv.tl.sweep(vae, adata, [0.1, 1.0, 100.0], labels="cell_type", epochs=30)
    assert found.imputation <= 1.0
    assert found.collapsed == 100.0
    assert found.curve.loc[100.0, "active"] < found.curve.loc[0.1, "active"]
    frame = found.frame.groupby("method").max(numeric_only=True)
    assert frame.loc["VAE", "reconstruction"] > frame.loc["PCA", "reconstruction"]
    (ica,) = (name for name in frame.index if name.startswith("ICA"))  # it is said where it has not converged
    assert frame.loc[ica, "mig"] > frame.loc["PCA", "mig"]


def test_what_seeds_disagree_on_is_in_the_doubt():
    rng = np.random.default_rng(0)
    base = pd.Series(rng.standard_normal(500))
    steady = [(beta, base + shift) for shift in (0.0, 0.0) for beta, shift in ((1.0, 0.0), (2.0, -0.3))]
    unsteady = [(1.0, base), (2.0, base - 1.3), (1.0, base), (2.0, base + 0.7)]
    same, apart = (_behind([of.rename(beta) for beta, of in each]) for each in (steady, unsteady))
    assert same[2.0] < 1e-9
    assert apart[2.0] == pytest.approx(1.0)  # +-1 around -0.3, two seeds
    assert apart[1.0] == 0
