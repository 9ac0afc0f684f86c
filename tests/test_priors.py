"""Priors: densities that integrate to one, and samplers that agree with them."""

import pytest
import torch
from pydantic import BaseModel
from torch.distributions import Categorical, Independent, MixtureSameFamily, Normal

from biovae.noise import Noise
from biovae.posteriors import Diagonal, DiagonalNormal, LowRank
from biovae.priors import PRIORS, AnyPrior, Flow, GaussianMixture, PriorModule, StandardNormal, VampPrior

LATENT, INPUTS, OBS = 2, 5, 6

CASES = (StandardNormal(), GaussianMixture(components=4), VampPrior(components=3), Flow(transforms=2, hidden=16))
every_case = pytest.mark.parametrize("recipe", CASES, ids=lambda r: r.kind)


class Holder(BaseModel):
    prior: AnyPrior


@pytest.fixture(scope="module")
def encode():
    """q(z | u) of pseudo-inputs, by a head alone."""
    head = Diagonal().build(INPUTS, LATENT, Noise(5))
    return lambda inputs: head(inputs[0])


def started(recipe) -> PriorModule:
    module = recipe.build(LATENT, [INPUTS], Noise(0))
    module.start([3 * Noise(1).normal(7, INPUTS)])
    return module


def test_the_table_is_complete():
    assert {type(recipe) for recipe in CASES} == set(PRIORS)


@every_case
@torch.no_grad()
def test_the_density_integrates_to_one(recipe, encode):
    axis = torch.linspace(-12, 12, 481)
    grid = torch.cartesian_prod(axis, axis)
    mass = started(recipe).log_prob(grid, encode).exp().sum() * (axis[1] - axis[0]) ** 2
    assert float(mass) == pytest.approx(1, abs=0.01)


@every_case
@torch.no_grad()
def test_samples_come_from_the_density(recipe, encode):
    """For any set A: the share of draws in A is the mean over uniform points of p(z) 1[z in A] times the volume."""
    module, size = started(recipe), 20_000
    z = module.sample(Noise(2), size, encode)
    assert z.shape == (size, LATENT)
    axis = torch.linspace(-12, 12, 481)
    grid = torch.cartesian_prod(axis, axis)
    mass = module.log_prob(grid, encode).exp() * (axis[1] - axis[0]) ** 2
    for inside in (lambda p: p[:, 0] > 0.5, lambda p: p.norm(dim=1) < 1, lambda p: p[:, 0] > p[:, 1] + 0.3):
        expected = float(mass[inside(grid)].sum())
        assert float(inside(z).float().mean()) == pytest.approx(expected, abs=0.02)


@every_case
def test_draws_depend_on_their_noise_alone(recipe, encode):
    before = torch.random.get_rng_state()
    first, again, other = (started(recipe).sample(Noise(seed), 5, encode) for seed in (0, 0, 1))
    assert torch.equal(torch.random.get_rng_state(), before)
    assert torch.equal(first, again)
    assert not torch.equal(first, other)


@every_case
def test_every_parameter_learns(recipe, encode):
    module = started(recipe)
    z = Noise(3).normal(4, OBS, LATENT).requires_grad_()
    score = module.log_prob(z, encode)
    assert score.shape == (4, OBS)
    score.sum().backward()
    assert z.grad.isfinite().all()
    assert all((w.grad != 0).any() for w in module.parameters())


@pytest.mark.parametrize("posterior", [Diagonal(), LowRank()], ids=lambda p: p.kind)
@torch.no_grad()
def test_a_kl_in_closed_form_is_the_mean_of_the_sampled_one(posterior, encode):
    module, q = started(StandardNormal()), posterior.build(INPUTS, LATENT, Noise(0))(Noise(1).normal(OBS, INPUTS))
    z = q.sample(Noise(4), 20_000)
    sampled = q.log_prob(z) - module.log_prob(z, encode)
    error = sampled.std(0) / 20_000**0.5
    assert ((sampled.mean(0) - module.kl(q).sum(-1)).abs() < 4.5 * error).all()


@pytest.mark.parametrize("recipe", CASES[1:], ids=lambda r: r.kind)
def test_other_priors_have_no_closed_form(recipe):
    assert started(recipe).kl(DiagonalNormal(torch.zeros(OBS, LATENT), torch.zeros(OBS, LATENT))) is None


def test_a_mixture_is_that_of_torch(encode):
    module, noise = started(GaussianMixture(components=4)), Noise(6)
    with torch.no_grad():
        for weight in module.parameters():
            weight.copy_(noise.normal(*weight.shape))
    parts = Independent(Normal(module.mean, (0.5 * module.log_variance).exp()), 1)
    oracle = MixtureSameFamily(Categorical(logits=module.logits), parts)
    z = noise.normal(3, OBS, LATENT) * 4
    torch.testing.assert_close(module.log_prob(z, encode), oracle.log_prob(z), rtol=1e-4, atol=1e-4)


def test_vamp_begins_at_observations_and_is_their_mean_posterior(encode):
    module, seen = started(VampPrior(components=9)), 3 * Noise(1).normal(7, INPUTS)
    torch.testing.assert_close(module.inputs[0][:7], seen)
    torch.testing.assert_close(module.inputs[0][7:], seen[:2])  # fewer observations than components: round again
    z = Noise(7).normal(OBS, LATENT)
    by_component = torch.stack([encode([u.unsqueeze(0)]).log_prob(z) for u in module.inputs[0]])
    torch.testing.assert_close(module.log_prob(z, encode), by_component.exp().mean(0).log(), rtol=1e-4, atol=1e-4)


@every_case
def test_json_brings_back_the_recipe(recipe):
    assert Holder.model_validate_json(Holder(prior=recipe).model_dump_json()).prior == recipe
