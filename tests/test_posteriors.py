"""Posteriors against torch.distributions, and the product of experts against Bayes."""

import pytest
import torch
from pydantic import BaseModel, ValidationError
from torch import Tensor
from torch.distributions import Independent, MultivariateNormal, Normal

from biovae.noise import Noise
from biovae.posteriors import POSTERIORS, AnyPosterior, Density, Diagonal, DiagonalNormal, LowRank

OBS, LATENT, INPUTS = 4, 3, 5
DOUBLE = torch.float64
EVERYBODY = torch.ones(OBS, dtype=torch.bool)

CASES = (Diagonal(), Diagonal(variance=0.3), LowRank(), LowRank(rank=1))
every_case = pytest.mark.parametrize("recipe", CASES, ids=repr)


class Holder(BaseModel):
    posterior: AnyPosterior


def density(recipe, seed: int = 0) -> Density:
    noise = Noise(seed)
    return recipe.build(INPUTS, LATENT, noise).double()(noise.normal(OBS, INPUTS, dtype=DOUBLE))


def oracle(q: Density) -> torch.distributions.Distribution:
    if isinstance(q, DiagonalNormal):
        return Independent(Normal(q.mean, (0.5 * q.log_variance).exp()), 1)
    return MultivariateNormal(q.mean, precision_matrix=q.precision)


def moments(q: Density) -> tuple[Tensor, Tensor]:
    """Mean and precision matrix, whatever the kind."""
    precision = torch.diag_embed(1 / q.variance) if isinstance(q, DiagonalNormal) else q.precision
    return q.mean, precision


def test_the_table_is_complete():
    assert {type(recipe) for recipe in CASES} == set(POSTERIORS)


@every_case
def test_densities_are_those_of_torch(recipe):
    q = density(recipe)
    z = q.sample(Noise(1), 6)
    assert z.shape == (6, OBS, LATENT)
    torch.testing.assert_close(q.log_prob(z), oracle(q).log_prob(z))
    torch.testing.assert_close(q.variance, oracle(q).variance)


@every_case
def test_the_kl_to_the_standard_normal_is_that_of_torch(recipe):
    q = density(recipe)
    covariance = torch.linalg.inv(moments(q)[1])
    standard = MultivariateNormal(torch.zeros(LATENT, dtype=DOUBLE), torch.eye(LATENT, dtype=DOUBLE))
    expected = torch.distributions.kl_divergence(MultivariateNormal(q.mean, covariance), standard)
    torch.testing.assert_close(q.kl_standard().sum(-1), expected)
    assert (q.kl_standard() >= 0).all()


@every_case
def test_samples_have_the_stated_moments(recipe):
    q, size = density(recipe), 40_000
    z = q.sample(Noise(2), size).detach()
    deviation = q.variance.sqrt()
    assert ((z.mean(0) - q.mean).abs() < 5 * deviation / size**0.5).all()
    torch.testing.assert_close(z.var(0), q.variance, rtol=0.05, atol=0)
    centred = z - z.mean(0)
    covariance = torch.einsum("soi,soj->oij", centred, centred) / size
    torch.testing.assert_close(covariance, torch.linalg.inv(moments(q)[1]), rtol=0.05, atol=0.02)


@every_case
def test_a_product_multiplies_densities(recipe):
    experts = [density(recipe, seed) for seed in (1, 2, 3)]
    product = type(experts[0]).product(experts, [EVERYBODY] * 3)
    z = Noise(4).normal(50, OBS, LATENT, dtype=DOUBLE)
    gap = product.log_prob(z) - sum(q.log_prob(z) for q in experts)
    torch.testing.assert_close(gap, gap[:1].expand_as(gap))  # the normaliser does not depend on z


@every_case
def test_absent_experts_are_silent(recipe):
    experts = [density(recipe, seed) for seed in (1, 2)]
    present = [torch.tensor([True, True, False, True]), torch.tensor([True, False, True, False])]
    product = type(experts[0]).product(experts, present)
    both = type(experts[0]).product(experts, [EVERYBODY] * 2)
    for row, expected in enumerate([both, experts[0], experts[1], experts[0]]):
        rows = torch.tensor([row])
        torch.testing.assert_close(moments(product.select(rows)), moments(expected.select(rows)))


@every_case
def test_every_parameter_learns_from_its_draws_and_none_through_detach(recipe):
    noise = Noise(0)
    head = recipe.build(INPUTS, LATENT, noise)
    q = head(noise.normal(OBS, INPUTS))
    (q.sample(noise, 2).square().sum() + q.kl_standard().sum()).backward()
    assert all((w.grad != 0).any() for w in head.parameters())
    assert not any(part.requires_grad for part in q.detach())
    assert all(torch.equal(a, b) for a, b in zip(q.detach(), q, strict=True))


def test_low_rank_precision_is_diagonal_plus_rank():
    recipe, noise = LowRank(rank=1), Noise(0)
    head = recipe.build(INPUTS, LATENT, noise)
    h = noise.normal(OBS, INPUTS)
    off = head(h).precision - torch.diag_embed(head.log_precision(h).exp())
    assert (torch.linalg.matrix_rank(off, atol=1e-5) == 1).all()


@pytest.mark.parametrize("size", [1e3, 1e6])
@every_case
def test_extreme_features_give_finite_densities(recipe, size):
    head = recipe.build(INPUTS, LATENT, Noise(0))
    q = head(size * Noise(1).normal(OBS, INPUTS))
    assert q.log_prob(q.sample(Noise(2), 2)).isfinite().all()
    assert q.kl_standard().isfinite().all()


@pytest.mark.parametrize("variance", [0.0, -1.0, float("inf"), float("nan")])
def test_a_variance_without_a_density_is_refused_with_the_reason(variance):
    with pytest.raises(ValidationError, match="the KL diverges"):
        Diagonal(variance=variance)


@every_case
def test_json_brings_back_the_recipe(recipe):
    assert Holder.model_validate_json(Holder(posterior=recipe).model_dump_json()).posterior == recipe
