"""The doubt about the last layer: closed forms where there are some, and the truth of simulated cells."""

import numpy as np
import pandas as pd
import pytest
import torch
from anndata import AnnData

import biovae as bv
from biovae.datasets import scenarios, simulate
from biovae.datasets.truth import expected_counts
from biovae.errors import InputError
from biovae.likelihoods import LikelihoodModule
from biovae.model.doubt import last_weights
from biovae.model.generate import Wanted, expression
from biovae.model.lastlayer import slopes
from biovae.nn import Readout
from biovae.noise import Noise

FEW = 20


@pytest.fixture(scope="module")
def line():
    """Real values of a linear decoder: the last layer is all of it."""
    rng = np.random.default_rng(0)
    x = rng.normal(size=(400, 2)) @ rng.normal(size=(2, 8)) + 0.5 * rng.normal(size=(400, 8))
    adata = AnnData(x.astype(np.float32), var=pd.DataFrame(index=[f"v{i}" for i in range(8)]))
    return bv.VAE(bv.continuous(decoder="linear"), latent=2).fit(adata, epochs=20, progress=False), adata


@pytest.fixture(scope="module", params=["mlp", "additive"])
def counts(request):
    adata = simulate(scenarios.TYPES, cells=200, genes=30, seed=1)
    modality = bv.rna(decoder=request.param)
    return bv.VAE(modality, covariates=["batch"], latent=4, hidden=16).fit(adata, epochs=5, progress=False), adata


def wanted(features=None, samples=FEW):
    return Wanted(0, features, 1e4, "average", samples)


def test_weights_of_a_linear_gaussian_decoder_are_as_doubtful_as_regression_says(line):
    vae, _ = line
    draws = last_weights(vae.fitted, wanted(samples=2000))
    module = vae.network.parts[0].likelihood
    n = vae.fitted.record["train_observations"]
    s2 = (module.spread * module.log_scale.base.exp()).square().detach()  # unexplained variance
    information = n * module.spread.square() / s2  # z is standard normal: the rows of z have a covariance of 1
    bias = torch.stack([each.change[:, 2] for each in draws])
    torch.testing.assert_close(bias.std(0), (information + 1).rsqrt(), rtol=0.1, atol=0)
    assert bias.mean(0).abs().max() < 0.1 * bias.std(0).max()


def test_drawn_weights_move_the_mean_by_their_slope_and_are_put_back(line):
    vae, adata = line
    part, z = vae.network.parts[0], torch.from_numpy(vae.embed(adata)[:5])
    before = {name: value.clone() for name, value in part.state_dict().items()}
    plain = vae.decode(z.numpy())
    drawn = last_weights(vae.fitted, wanted(samples=1))[0]
    phi = torch.cat([z, torch.ones(5, 1)], 1)
    with drawn.in_place():
        moved = vae.decode(z.numpy())
    np.testing.assert_allclose(moved - plain, part.likelihood.spread * (phi @ drawn.change.T), atol=1e-5)
    with pytest.raises(InputError), drawn.in_place():
        vae.decode(np.zeros((1, 3)))
    for name, value in part.state_dict().items():
        assert torch.equal(value, before[name]), name
    np.testing.assert_array_equal(vae.decode(z.numpy()), plain)


def test_values_nearly_without_noise_have_finite_narrower_limits(line):
    vae, adata = line
    scale = vae.network.parts[0].likelihood.log_scale.base
    before = scale.data
    scale.data = torch.full_like(before, -6.9)  # a thousandth of the spread, the least that there is
    try:
        found = vae.expression(adata, samples=FEW)
    finally:
        scale.data = before
    assert np.isfinite(found.lower).all(axis=None)
    noisy = vae.expression(adata, samples=FEW)
    assert (found.upper - found.lower).mean(axis=None) < (noisy.upper - noisy.lower).mean(axis=None)


@pytest.mark.parametrize("groups", [0, 3])
def test_slopes_are_the_derivatives_of_the_outputs(groups):
    readout = Readout(5, groups, 4, 2, Noise(0))
    with torch.no_grad():
        readout.side.copy_(Noise(1).normal(2, 4))
    h = Noise(2).normal(6, *([groups] if groups else []), 5)
    c = Noise(3).normal(6, 2)
    outputs = torch.tensor([1, 3])
    found = slopes(readout, h, c, outputs).expand(2, 6, 8)
    for i, output in enumerate(outputs):
        for row in range(6):
            by = torch.autograd.grad(
                readout(h[row : row + 1], c[row : row + 1])[0, output],
                (readout.map.weight, readout.side, readout.map.bias),
            )
            true = torch.cat([by[0][output], by[1][:, output], by[2][output : output + 1]])
            torch.testing.assert_close(found[i, row], true)


def test_limits_with_covariates_and_groups_are_wider_than_those_of_z(counts):
    vae, adata = counts
    names = list(adata.var_names[:5])
    asked = wanted(names)
    prepared = vae.observe(adata)
    by_z = expression(vae.fitted, prepared, asked)
    both = vae.expression(adata, features=names, samples=FEW)
    pd.testing.assert_frame_equal(by_z.mean, both.mean)
    wide = [np.log(each.upper / each.lower).to_numpy() for each in (by_z, both)]
    assert np.isfinite(wide[1]).all()
    assert (wide[1].mean(0) > wide[0].mean(0)).all()
    again = bv.tl.corrected_expression(vae, adata, names, samples=FEW, progress=False)
    pd.testing.assert_frame_equal(again.upper, both.upper)


def test_the_doubt_about_an_effect_is_that_of_its_observations():
    """A number that varied is known; a level of ten observations is in more doubt than one of 290."""
    adata = simulate(scenarios.TYPES.but(technical={"batches": 1}), cells=300, genes=30, seed=1)
    adata.obs["age"] = np.random.default_rng(0).normal(50, 9, 300)
    adata.obs["site"] = ["rare" if i % 30 == 0 else "usual" for i in range(300)]
    vae = bv.VAE(bv.rna(), covariates=["age", "site"], latent=4, hidden=16).fit(adata, epochs=5, progress=False)
    drawn = last_weights(vae.fitted, wanted(samples=300))
    age, rare, usual, bias = torch.stack([each.change for each in drawn])[..., -4:].unbind(-1)
    age, rare, usual = (effect.std(0).mean() for effect in (age, bias + rare, bias + usual))
    assert age < 0.3
    assert rare > 1.5 * usual


def test_only_the_features_in_question_move(counts):
    vae, adata = counts
    drawn = last_weights(vae.fitted, wanted([adata.var_names[3]], samples=1))
    assert drawn[0].outputs.tolist() == [3]
    assert last_weights(vae.fitted, wanted(samples=0)) is None


def test_a_likelihood_without_a_word_on_it_leaves_the_doubt_about_z(counts, monkeypatch):
    vae, adata = counts
    monkeypatch.setattr(type(vae.network.parts[0].likelihood), "last", LikelihoodModule.last)
    assert last_weights(vae.fitted, wanted()) is None
    assert vae.expression(adata, samples=FEW, indices=range(5)).upper.notna().all().all()


def test_limits_of_one_fit_hold_the_true_expression():
    adata = simulate(scenarios.TYPES.but(technical={"batches": 1}), cells=600, genes=120, seed=0)
    vae = bv.VAE(bv.rna()).fit(adata, progress=False)
    mean = expected_counts(adata)
    true = 1e4 * mean / mean.sum(1, keepdims=True)
    found = vae.expression(adata, samples=25)
    by_z = expression(vae.fitted, vae.observe(adata), wanted(samples=25))
    inside, held = (((f.lower <= true) & (true <= f.upper)).to_numpy().mean() for f in (by_z, found))
    assert inside < 0.75
    assert 0.85 < held < 0.99
