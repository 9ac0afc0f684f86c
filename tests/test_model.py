"""The VAE end to end on small simulated counts: every verb, from every door."""

import hashlib
import warnings

import anndata as ad
import numpy as np
import pandas as pd
import pytest
import scipy.sparse
import torch
from mudata import MuData, set_options

import biovae as bv
from biovae.datasets import Scenario, Technical, scenarios, simulate, simulate_multi
from biovae.kernels import without_kernels
from biovae.model.design import averaged_rows
from biovae.schema import CategoricalCovariate, Schema
from biovae.tools.prototype import averages
from biovae.training import plan

EPOCHS = 8


@pytest.fixture(scope="module")
def adata() -> ad.AnnData:
    return simulate(Scenario(technical=Technical(batches=2)), cells=300, genes=60, seed=0)


@pytest.fixture(scope="module")
def vae(adata):
    return bv.VAE(bv.rna(), covariates=["batch"], latent=4, hidden=32).fit(adata, epochs=EPOCHS, progress=False)


def digest(adata: ad.AnnData) -> str:
    parts = (adata.X.data, adata.X.indices, adata.X.indptr, adata.obs.to_csv().encode(), adata.var.to_csv().encode())
    return hashlib.sha256(
        b"".join(np.asarray(p).tobytes() if not isinstance(p, bytes) else p for p in parts)
    ).hexdigest()


def test_fit_returns_itself_and_leaves_the_data_alone(adata):
    before = digest(adata)
    model = bv.VAE(bv.rna(), latent=3, hidden=16)
    assert model.fit(adata, epochs=2, progress=False) is model
    assert digest(adata) == before
    assert "X_vae" not in adata.obsm


def test_dropout_is_chosen_by_the_size_of_the_training_set_unless_asked_for(vae, adata):
    chosen = plan.dropout(vae.fitted.record["train_observations"], adata.n_vars)
    assert (vae.dropout, vae.decoder_dropout) == (None, None)
    assert _rates(vae) == tuple(vae.fitted.record["dropout"]) == chosen
    asked = bv.VAE(bv.rna(), latent=3, hidden=16, dropout=0.0).fit(adata, epochs=1, progress=False)
    assert _rates(asked) == tuple(asked.fitted.record["dropout"]) == (0.0, chosen[1])


def _rates(vae):
    part = vae.network.parts[0]
    return part.encoder.rate, part.decoder.rate


def test_unfitted_model_says_so():
    with pytest.raises(bv.InputError, match="call fit"):
        bv.VAE(bv.rna()).decode(np.zeros((1, 10)))


def test_embedding_has_a_row_per_observation_and_is_the_same_twice(vae, adata):
    z = vae.embed(adata)
    assert z.shape == (300, 4)
    np.testing.assert_array_equal(z, vae.embed(adata))


def test_indices_and_order_of_observations_change_nothing(vae, adata):
    z = vae.embed(adata)
    order = np.random.default_rng(0).permutation(300)
    np.testing.assert_allclose(vae.embed(adata[order]), z[order], atol=1e-6)
    np.testing.assert_allclose(vae.embed(adata, indices=[5, 2, 7]), z[[5, 2, 7]], atol=1e-6)


def test_features_are_matched_by_name(vae, adata):
    shuffled = adata[:, np.random.default_rng(1).permutation(60)].copy()
    np.testing.assert_allclose(vae.embed(shuffled), vae.embed(adata), atol=1e-6)


def test_a_gain_over_the_null_on_what_was_not_seen():
    adata = simulate(cells=800, genes=150, seed=1)
    test = np.arange(800) % 5 == 0
    model = bv.VAE(bv.rna(), latent=4, hidden=32).fit(adata, epochs=60, test=test, progress=False)
    verdict = model.diagnose(adata, indices=np.flatnonzero(test))
    assert verdict["gain over the null"].value > 0
    assert verdict["final beta"].value == 1.0
    assert str(verdict.overall) in ("ok", "look")


def test_bounds_are_ordered(vae, adata):
    scores = vae.scores(adata, samples=50)
    assert scores.elbo.mean() < scores.iwae.mean()
    np.testing.assert_allclose(scores.elbo, scores.reconstruction - scores.kl.sum(1), rtol=1e-5)
    assert vae.log_likelihood(adata, indices=range(10)).shape == (10,)


def test_decode_keeps_the_library_and_knows_its_covariates(vae):
    z = np.zeros((2, 4))
    np.testing.assert_allclose(vae.decode(z, library=500).sum(1), 500, rtol=1e-4)
    levels = vae.schema.covariates[0].categories
    apart = [vae.decode(z, covariates={"batch": level}) for level in levels]
    np.testing.assert_allclose(vae.decode(z), np.mean(apart, axis=0), rtol=1e-4)
    with pytest.raises(bv.InputError, match="did you mean 'batch'"):
        vae.decode(z, covariates={"bach": levels[0]})
    for nothing in (0, -1, np.nan, np.inf):
        with pytest.raises(bv.InputError, match="expected a library above 0"):
            vae.decode(z, library=nothing)
        with pytest.raises(bv.InputError, match="expected a library above 0"):
            vae.sample(len(z), library=nothing)
    with pytest.raises(bv.InputError, match="4 columns, found 3"):
        vae.decode(np.zeros((1, 3)))


def test_samples_look_like_the_data(vae, adata):
    new = vae.sample(400, seed=1)
    assert new.shape == (400, 60)
    assert new.obsm["X_vae"].shape == (400, 4)
    assert scipy.sparse.issparse(new.X)
    assert (new.X.data == np.round(new.X.data)).all()
    shares = [np.asarray(a.X.sum(0)).ravel() / a.X.sum() for a in (new, adata)]
    assert np.corrcoef(np.log(shares[0] + 1e-5), np.log(shares[1] + 1e-5))[0, 1] > 0.9
    assert (new.X != vae.sample(400, seed=1).X).nnz == 0


def test_expression_has_intervals_around_its_mean(vae, adata):
    names = list(adata.var_names[:5])
    e = vae.expression(adata, features=names, samples=20, indices=range(30))
    assert list(e.mean.columns) == names
    assert list(e.mean.index) == list(adata.obs_names[:30])
    assert ((e.lower <= e.upper) & (e.lower <= e.mean * 1.5)).all().all()
    own = vae.expression(adata, covariates="own", indices=range(30)).mean
    np.testing.assert_allclose(own.sum(1), 1e4, rtol=1e-4)


def test_reconstruction_has_each_observations_own_depth(vae, adata):
    np.testing.assert_allclose(vae.reconstruct(adata).sum(1), np.asarray(adata.X.sum(1)).ravel(), rtol=1e-4)


def test_saved_and_loaded_model_is_the_same(vae, adata, tmp_path):
    vae.save(tmp_path / "model")
    assert {p.name for p in (tmp_path / "model").iterdir()} == {"config.json", "weights.safetensors", "manifest.json"}
    again = bv.load(tmp_path / "model")
    assert again.model_dump() == vae.model_dump()
    assert repr(again) == repr(vae)
    np.testing.assert_array_equal(again.embed(adata), vae.embed(adata))
    pd.testing.assert_frame_equal(again.history, vae.history)


def test_changed_weights_are_refused(vae, tmp_path):
    vae.save(tmp_path / "model")
    file = tmp_path / "model" / "weights.safetensors"
    data = bytearray(file.read_bytes())
    data[-5] ^= 1
    file.write_bytes(data)
    with pytest.raises(bv.ModelFileError):
        bv.load(tmp_path / "model")


def test_the_debug_log_names_the_path_of_the_first_layer(adata, caplog):
    caplog.set_level("DEBUG", logger="biovae")
    bv.VAE(bv.rna(features=20)).fit(adata, epochs=1, progress=False)
    with without_kernels():
        bv.VAE(bv.rna(features=20)).fit(adata, epochs=1, progress=False)
    written = [
        "written out" in record.getMessage() for record in caplog.records if "first layer" in record.getMessage()
    ]
    assert len(written) == 2
    assert written[1], "without compiled loops the layer is dense"


def test_same_seed_same_bits(adata):
    fits = [bv.VAE(bv.rna(), latent=3, hidden=16).fit(adata, epochs=3, seed=s, progress=False) for s in (0, 0, 1)]
    same, other = (fits[i].embed(adata) for i in (1, 2))
    np.testing.assert_array_equal(fits[0].embed(adata), same)
    assert (same != other).any()


def test_interrupted_and_resumed_equals_unbroken(adata, tmp_path, monkeypatch):
    from biovae.model import fitting

    def fit(**how):
        model = bv.VAE(bv.rna(), latent=3, hidden=16)
        return model.fit(adata, epochs=6, progress=False, **how)

    whole = fit()
    taken = 0
    steps = fitting.Trainer.run

    def stopped(self):
        nonlocal taken
        for p in steps(self):
            yield p
            taken += 1
            if taken == 7:
                import os
                import signal

                os.kill(os.getpid(), signal.SIGINT)

    monkeypatch.setattr(fitting.Trainer, "run", stopped)
    with pytest.raises(bv.Interrupted) as caught:
        fit(checkpoints=tmp_path)
    assert caught.value.exit_code == 130
    monkeypatch.setattr(fitting.Trainer, "run", steps)
    resumed = fit(checkpoints=tmp_path, resume=True)
    for name, weight in whole.network.state_dict().items():
        assert (resumed.network.state_dict()[name] == weight).all(), name
    with without_kernels(), pytest.raises(bv.ResumeError, match="loops"):
        fit(checkpoints=tmp_path, resume=True)
    with pytest.raises(bv.ResumeError, match="recipe"):
        bv.VAE(bv.rna(), latent=2, hidden=16).fit(adata, epochs=6, progress=False, checkpoints=tmp_path, resume=True)
    monkeypatch.setattr(plan, "PEAK", 2 * plan.PEAK)  # as another version of biovae might have it
    with pytest.raises(bv.ResumeError, match="same plan as when"):
        fit(checkpoints=tmp_path, resume=True)


PARTS = {
    "poisson": {"likelihood": "poisson"},
    "zero-inflated": {"likelihood": "zero_inflated_negative_binomial"},
    "log1p": {"likelihood": "log1p_gaussian"},
    "latent library": {"library": "latent"},
    "linear": {"decoder": "linear"},
    "additive": {"decoder": "additive"},
    "dispersion by batch": {"likelihood": bv.NegativeBinomialCounts(dispersion="batch")},
    "dispersion by observation": {"likelihood": bv.NegativeBinomialCounts(dispersion="observation")},
    "size factor": {"size_factor": "depth"},
    "chosen features": {"features": 30},
}
MODELS = {
    "mixture": {"prior": "gaussian_mixture"},
    "vamp": {"prior": bv.VampPrior(components=5)},
    "flow": {"prior": bv.Flow(transforms=1, hidden=8)},
    "low rank": {"posterior": bv.LowRank(rank=1)},
    "iwae": {"objective": bv.IWAE(samples=3)},
    "free bits": {"objective": bv.ELBO(free_bits=0.1)},
    "total correlation": {"objective": "total_correlation"},
    "total correlation, low rank": {"objective": bv.TotalCorrelation(weight=2), "posterior": bv.LowRank(rank=1)},
    "cyclical": {"warmup": bv.CyclicalWarmup()},
    "deep": {"depth": 2, "beta": 2.0},
}
CASES = {name: (part, {}) for name, part in PARTS.items()} | {name: ({}, model) for name, model in MODELS.items()}


@pytest.mark.parametrize(("part", "model"), CASES.values(), ids=CASES.keys())
def test_every_part_fits_judges_samples_saves_and_loads(part, model, adata, tmp_path):
    data = adata.copy()
    data.obs["depth"] = np.asarray(adata.X.sum(1)).ravel()
    vae = bv.VAE(bv.rna(**part), covariates=["batch"], latent=4, **({"hidden": 16} | model))
    vae.fit(data, epochs=3, progress=False)
    assert np.isfinite(vae.embed(data)).all()
    assert np.isfinite(vae.scores(data, samples=3).elbo).all()
    assert vae.diagnose(data).lines
    assert np.isfinite(vae.sample(5, library=100).X.sum())
    vae.save(tmp_path / "m")
    np.testing.assert_array_equal(bv.load(tmp_path / "m").embed(data), vae.embed(data))


def two_modalities(adata, missing: int = 100) -> MuData:
    rng = np.random.default_rng(0)
    values = adata.obsm["latent_true"] @ rng.normal(size=(adata.obsm["latent_true"].shape[1], 6))
    prot = ad.AnnData((values + rng.normal(size=values.shape)).astype(np.float32), obs=adata.obs[[]].copy())
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)  # mudata announces another way to join columns
        return MuData({"rna": adata.copy(), "prot": prot[missing:].copy()})


def test_two_modalities_with_some_observations_missing_one(adata):
    mdata = two_modalities(adata)
    vae = bv.VAE(bv.rna(mod="rna"), bv.continuous(name="prot", mod="prot"), latent=4, hidden=16)
    vae.fit(mdata, epochs=5, progress=False)
    z = vae.embed(mdata)
    assert z.shape == (mdata.n_obs, 4)
    assert np.isfinite(z).all()
    assert vae.decode(z[:3], modality="prot").shape == (3, 6)
    new = vae.sample(4)
    assert set(new.mod) == {"rna", "prot"}
    assert vae.diagnose(mdata).lines


@pytest.mark.parametrize(("cells", "genes", "latent"), [(1, 5, 2), (2, 5, 2), (3, 1, 1), (20, 1, 1)])
def test_tiny_data_run_or_say_why(cells, genes, latent):
    x = np.random.default_rng(0).poisson(3.0, (cells, genes)).astype(np.float32)
    adata = ad.AnnData(scipy.sparse.csr_matrix(x))
    vae = bv.VAE(bv.rna(), latent=latent, hidden=8).fit(adata, epochs=2, progress=False)
    assert np.isfinite(vae.embed(adata)).all()


def test_more_latent_dimensions_than_features_are_refused():
    adata = ad.AnnData(scipy.sparse.csr_matrix(np.ones((5, 3), np.float32)))
    with pytest.raises(bv.InputError, match="latent"):
        bv.VAE(bv.rna(), latent=4).fit(adata, progress=False)


def test_a_variance_of_zero_is_refused_with_the_reason():
    with pytest.raises(ValueError, match="KL diverges"):
        bv.Diagonal(variance=0.0)


@pytest.mark.skipif(torch.cuda.is_available(), reason="the device is there")
@pytest.mark.parametrize("device", ["cuda", "nonsense"])
def test_a_device_that_is_not_there_is_refused(adata, device):
    with pytest.raises(bv.InputError, match=f"expected a device that torch can reach, found '{device}'"):
        bv.VAE(bv.rna()).fit(adata, device=device, progress=False)


def test_unknown_batch_is_an_error_or_a_choice(vae, adata):
    other = adata[:5].copy()
    other.obs["batch"] = "somewhere else"
    with pytest.raises(bv.InputError, match="somewhere else"):
        vae.embed(other)
    assert np.isfinite(vae.embed(other, unseen="zero")).all()


def test_prototype_lies_near_the_data(vae, adata):
    found = bv.tl.prototype(vae, adata, groups="cell_type")
    assert len(found.frame) == 60
    assert found.weights.sum() == pytest.approx(1)
    per = adata.X.toarray() * (1e4 / adata.X.toarray().sum(1, keepdims=True))
    means = pd.DataFrame(per, columns=adata.var_names).groupby(adata.obs["cell_type"].to_numpy()).mean()
    table = averages(vae.observe(adata).observations, 0, adata.obs["cell_type"].astype(str).to_numpy())[1]
    np.testing.assert_allclose(table.loc[means.index], means, rtol=1e-5)
    weights, limits = found.weights, found.limits.loc[found.weights.index]
    assert ((limits["lower"] <= weights + 0.02) & (weights <= limits["upper"] + 0.02)).all()
    assert (limits["upper"] - limits["lower"]).max() > 0.01
    plain, bare = bv.tl.prototype(vae, adata), bv.tl.prototype(vae, adata, draws=0)
    assert plain.limits.empty
    inside = plain.frame["log2_fold_change"].between(plain.frame["lower"], plain.frame["upper"])
    assert inside.mean() > 0.9
    assert "lower" not in bare.frame
    pd.testing.assert_frame_equal(plain.frame.drop(columns=["lower", "upper"]), bare.frame)


def test_thinned_halves_add_up(adata):
    one, other = bv.tl.thin(adata.X, seed=3)
    assert ((one + other) != scipy.sparse.csr_array(adata.X)).nnz == 0
    assert abs(one.sum() / adata.X.sum() - 0.5) < 0.01


def test_corrected_counts_are_thinned_to_half_of_their_mean():
    x = scipy.sparse.csr_array(np.tile([0.8, 2.3, 5.0, 0.0], (4000, 1)))
    one, other = bv.tl.thin(x, seed=0)
    for half in (one, other):
        assert (half.data == np.rint(half.data)).all()
        np.testing.assert_allclose(half.mean(0), [0.4, 1.15, 2.5, 0], atol=0.05)


def test_many_levels_are_averaged_over_by_some_of_them():
    schema = Schema(
        modalities=(),
        covariates=tuple(
            CategoricalCovariate(name=name, categories=tuple(f"{name}{i}" for i in range(size)))
            for name, size in (("donor", 90), ("lane", 3))
        ),
        observations=1,
    )
    rows = averaged_rows(schema)
    assert rows.shape == (64, 93)
    assert (rows[:, :90].sum(1) == 1).all()
    assert (rows[:, 90:].sum(1) == 1).all()
    assert len(rows.unique(dim=0)) == 64
    assert rows[:, 90:].sum(0).min() > 10
    assert torch.equal(rows, averaged_rows(schema))
    few = averaged_rows(schema, {"donor": "donor7"})
    assert torch.equal(few[:, 90:], torch.eye(3))


def test_whole_numbers_are_no_batches(adata):
    data = adata.copy()
    data.obs["depth"] = np.arange(data.n_obs)
    chosen = [
        bv.VAE(bv.rna(features=20), covariates=covariates).prepare(data).schema.modalities[0].features
        for covariates in ([], ["depth"])
    ]
    assert chosen[0] == chosen[1]


def test_levels_that_are_in_the_test_set_alone_are_named(adata):
    data = adata.copy()
    data.obs["donor"] = np.where(np.arange(data.n_obs) < 40, "new", "old")
    prepared = bv.VAE(bv.rna(), covariates=["donor"]).prepare(data, held_out=(data.obs["donor"] == "new").to_numpy())
    assert any("'new' in the test set alone" in notice for notice in prepared.notices)


@pytest.mark.parametrize(("how", "message"), [({"seed": -1}, "seed"), ({"batch_size": 0}, "batch_size")])
def test_numbers_that_make_no_sense_are_refused_before_training(adata, how, message):
    with pytest.raises(bv.InputError, match=f"expected {message} of at least"):
        bv.VAE(bv.rna(), latent=2, hidden=8).fit(adata, epochs=1, progress=False, **how)


def test_a_modality_can_stand_alone_after_a_fit_to_complete_cells():
    both = simulate_multi(scenarios.TYPES, cells=600, genes=80, proteins=12, missing=(0, 0), seed=0)
    vae = bv.VAE(bv.rna(mod="rna"), bv.continuous(mod="prot", name="prot"), latent=4)
    vae.fit(both, epochs=60, seed=0, progress=False)
    joint = vae.embed(both)
    with set_options(pull_on_update=False):
        halves = MuData({"rna": both["rna"][:300].copy(), "prot": both["prot"][300:].copy()})
    alone = pd.DataFrame(vae.embed(halves), index=halves.obs_names).loc[both.obs_names].to_numpy()
    for part, most in ((slice(0, 300), 0.1), (slice(300, 600), 0.8)):
        off = np.square(alone[part] - joint[part]).mean(0).sum() / joint[part].var(0).sum()
        assert off < most  # a head that was never taught is off by more than the spread of z
