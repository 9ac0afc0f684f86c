"""Objectives against a model whose evidence is known.

z ~ N(0, I),  x | z ~ N(A z + b, s**2 I),  so that  x ~ N(b, A A' + s**2 I)
"""

import math
from typing import NamedTuple

import pytest
import torch
from torch import Tensor
from torch.distributions import MultivariateNormal

from biovae.noise import Noise
from biovae.objective import ELBO, IWAE, OBJECTIVES, Terms, TotalCorrelation, elbo, free_bits, iwae, total_correlation
from biovae.posteriors import DiagonalNormal, PrecisionNormal

OBS, FEATURES, LATENT, SCALE = 6, 5, 2, 0.7
DOUBLE = torch.float64


class LinearGaussian(NamedTuple):
    """A VAE in closed form. The columns of A are orthogonal, so that the exact posterior is a diagonal normal."""

    loadings: Tensor
    offset: Tensor
    x: Tensor

    @property
    def evidence(self) -> Tensor:
        covariance = self.loadings @ self.loadings.T + SCALE**2 * torch.eye(FEATURES, dtype=DOUBLE)
        return MultivariateNormal(self.offset, covariance).log_prob(self.x)

    @property
    def posterior(self) -> DiagonalNormal:
        variance = 1 / (1 + self.loadings.square().sum(0) / SCALE**2)
        mean = (self.x - self.offset) @ self.loadings * variance / SCALE**2
        return DiagonalNormal(mean, variance.log().expand_as(mean))

    def log_px(self, z: Tensor) -> Tensor:
        residual = (self.x - self.offset - z @ self.loadings.T) / SCALE
        return (-0.5 * residual.square() - math.log(SCALE) - 0.5 * math.log(2 * math.pi)).sum(-1)

    def terms(self, q: DiagonalNormal, noise: Noise, samples: int, *, doubly: bool = False) -> Terms:
        z = q.sample(noise, samples)
        log_pz = -0.5 * (z.square() + math.log(2 * math.pi)).sum(-1)
        log_qz = (q.detach() if doubly else q).log_prob(z)
        return Terms(self.log_px(z), log_pz, log_qz, q.kl_standard(), torch.zeros_like(log_pz), (z,), q=q)


@pytest.fixture
def model() -> LinearGaussian:
    noise = Noise(0)
    directions = torch.linalg.qr(noise.normal(FEATURES, LATENT, dtype=DOUBLE)).Q
    return LinearGaussian(
        directions * torch.tensor([2.0, 0.5], dtype=DOUBLE),
        noise.normal(FEATURES, dtype=DOUBLE),
        noise.normal(OBS, FEATURES, dtype=DOUBLE),
    )


def astray(model: LinearGaussian, by: float = 0.4) -> DiagonalNormal:
    """A posterior that is wrong, as leaves of a graph."""
    q = model.posterior
    return DiagonalNormal((q.mean + by).requires_grad_(), (q.log_variance + by).detach().requires_grad_())


def test_every_bound_is_the_evidence_at_the_exact_posterior(model):
    terms = model.terms(model.posterior, Noise(1), 1)
    torch.testing.assert_close(terms.log_weight[0], model.evidence)
    torch.testing.assert_close(iwae(model.terms(model.posterior, Noise(1), 5)), model.evidence)
    # The closed-form KL leaves the noise of log p(x | z) alone, so that the ELBO reaches the evidence on average.
    many = elbo(model.terms(model.posterior, Noise(2), 40_000))
    torch.testing.assert_close(many, model.evidence, atol=0.05, rtol=0)


def test_the_sampled_kl_makes_the_elbo_exact_without_averaging(model):
    terms = model.terms(model.posterior, Noise(1), 3)._replace(kl=None)
    torch.testing.assert_close(elbo(terms), model.evidence)


def test_away_from_it_the_importance_weighted_bound_lies_between(model):
    terms = model.terms(astray(model), Noise(3), 4_000)
    blocks = terms.log_weight.view(10, 400, OBS)
    tighter = (torch.logsumexp(blocks, 0) - math.log(10)).mean(0)
    assert (elbo(terms) < tighter).all()
    assert (tighter < model.evidence).all()


def pairwise(t: Terms) -> Tensor:
    """log q(z) - sum_d log q(z_d) of the first draw, pair by pair."""
    z, q = t.draws[0][0], torch.distributions.Normal(t.q.mean, t.q.variance.sqrt())
    each = torch.stack([q.log_prob(row) for row in z])  # (draws, posteriors, latent)
    joint, alone = each.sum(-1).exp().mean(1).log(), each.exp().mean(1).log().sum(-1)
    return joint - alone


BOUNDS = {"elbo": elbo, "iwae": iwae, "total_correlation": lambda t: elbo(t) - 5 * pairwise(t)}


@pytest.mark.parametrize("objective", [recipe() for recipe in OBJECTIVES], ids=lambda o: o.kind)
def test_the_objective_is_its_function_at_beta_one(objective, model):
    terms = model.terms(model.posterior, Noise(4), objective.samples)
    expected = BOUNDS[objective.kind](terms)
    torch.testing.assert_close(objective(terms, 1.0), expected)
    cost = terms._replace(library=torch.full_like(terms.library, 2.0))
    torch.testing.assert_close(objective(cost, 1.0), expected - 2)


def test_beta_weighs_the_kl_and_nothing_else(model):
    terms = model.terms(model.posterior, Noise(5), 3)
    kl = terms.kl.sum(-1)
    torch.testing.assert_close(elbo(terms, 0.0), terms.log_px.mean(0))
    torch.testing.assert_close(elbo(terms, 1.0) - elbo(terms, 4.0), 3 * kl)
    torch.testing.assert_close(IWAE()(terms, 0.0), torch.logsumexp(terms.log_px, 0) - math.log(3))


def test_free_bits_are_the_larger_of_allowance_and_mean():
    kl = torch.tensor([[0.1, 2.0, 0.0], [0.3, 4.0, 0.9]], dtype=DOUBLE, requires_grad=True)
    free = free_bits(kl, 0.5)
    torch.testing.assert_close(free.mean(0), torch.tensor([0.5, 3.0, 0.5], dtype=DOUBLE))
    free.sum().backward()
    torch.testing.assert_close(kl.grad, torch.tensor([[0.0, 1.0, 0.0]] * 2, dtype=DOUBLE))
    assert free_bits(kl, 0.0) is kl


def test_a_group_of_dimensions_shares_one_allowance(model):
    terms = model.terms(model.posterior, Noise(6), 1)
    kl = terms.kl.sum(-1)
    nats = float(kl.mean()) - 0.01  # above it together, below it alone
    assert (terms.kl.mean(0) < nats).all()
    torch.testing.assert_close(ELBO(free_bits=nats, group=2)(terms, 1.0), elbo(terms))
    torch.testing.assert_close(ELBO(free_bits=nats)(terms, 1.0), terms.log_px.mean(0) - 2 * nats)


def encoder_gradients(model: LinearGaussian, *, doubly: bool, runs: int = 600, samples: int = 16) -> Tensor:
    """Gradients of the importance-weighted bound with respect to the posterior's parameters, (runs, parameters)."""
    gradients = []
    for run in range(runs):
        q = astray(model)
        terms = model.terms(q, Noise(7, run), samples, doubly=doubly)
        bound = IWAE()(terms, 1.0) if doubly else iwae(terms)
        gradients.append(torch.cat([g.flatten() for g in torch.autograd.grad(bound.sum(), q)]))
    return torch.stack(gradients)


def test_the_doubly_reparameterised_gradient_is_unbiased_and_quieter(model):
    plain, doubly = (encoder_gradients(model, doubly=kind) for kind in (False, True))
    error = ((plain.var(0) + doubly.var(0)) / len(plain)).sqrt()
    assert ((plain.mean(0) - doubly.mean(0)).abs() < 4.5 * error).all()
    assert doubly.var(0).sum() < 0.5 * plain.var(0).sum()


def test_the_decoder_gradient_is_the_plain_one(model):
    gradients = []
    for doubly in (False, True):
        loadings = model.loadings.clone().requires_grad_()
        terms = model._replace(loadings=loadings).terms(astray(model), Noise(8), 16, doubly=doubly)
        bound = IWAE()(terms, 1.0) if doubly else iwae(terms)
        gradients.append(torch.autograd.grad(bound.sum(), loadings)[0])
    torch.testing.assert_close(*gradients)


def test_paths_through_draws_are_quieter_than_scores_of_them(model):
    q = astray(model)
    z = q.sample(Noise(9), 4_000)
    pathwise = torch.autograd.grad(model.log_px(z).sum(), z)[0]  # d z / d mean = 1
    score = model.log_px(z).detach().unsqueeze(-1) * (z - q.mean) / q.variance
    error = ((pathwise.var(0) + score.var(0)) / len(z)).sqrt()
    assert ((pathwise.mean(0) - score.mean(0)).abs() < 4.5 * error).all()
    assert (score.var(0) / pathwise.var(0) > 1).all()


def correlated(rows: int, strength: float, spread: float = 0.25) -> DiagonalNormal:
    """Posteriors whose mixture is N(0, C), C with ones on its diagonal and `strength` beside it."""
    covariance = torch.tensor([[1.0, strength], [strength, 1.0]], dtype=DOUBLE)
    factor = torch.linalg.cholesky(covariance - spread * torch.eye(2, dtype=DOUBLE))
    mean = Noise(11).normal(rows, 2, dtype=DOUBLE) @ factor.T
    return DiagonalNormal(mean, torch.full_like(mean, math.log(spread)))


@pytest.mark.parametrize("strength", [0.0, 0.5, -0.7])
def test_the_total_correlation_is_that_of_the_aggregate_posterior(strength):
    q = correlated(2_000, strength)
    z = q.sample(Noise(12), 1)
    found = total_correlation(z, q)
    assert found.shape == (1, 2_000)
    truth = -0.5 * math.log(1 - strength**2)  # -1/2 log det of the correlation matrix
    assert float(found.mean()) == pytest.approx(truth, abs=0.04)
    dependent = PrecisionNormal(q.mean, torch.diag_embed(1 / q.variance))
    torch.testing.assert_close(total_correlation(z, dependent), found)


def test_a_weight_of_one_is_the_evidence_lower_bound_and_more_costs_more(model):
    terms = model.terms(astray(model), Noise(13), 1)
    torch.testing.assert_close(TotalCorrelation(weight=1)(terms, 2.0), elbo(terms, 2.0))
    two, four = (TotalCorrelation(weight=weight)(terms, 0.5) for weight in (2.0, 4.0))
    torch.testing.assert_close(two - four, pairwise(terms))  # beta 0.5, weights 2 apart


def test_its_gradient_takes_dimensions_apart():
    start = correlated(400, 0.7)
    mean = start.mean.clone().requires_grad_()
    optimiser = torch.optim.Adam([mean], lr=0.02)
    for step in range(60):
        q = DiagonalNormal(mean, start.log_variance)
        optimiser.zero_grad()
        total_correlation(q.sample(Noise(14, step), 1), q).mean().backward()
        optimiser.step()
    before, after = (float(torch.corrcoef(m.detach().T)[0, 1]) for m in (start.mean, mean))
    assert before > 0.8
    assert abs(after) < 0.5 * before


def test_nothing_in_it_asks_a_device_for_a_number():
    shape = (8, 3)
    mean, z, row = (torch.zeros(s, device="meta") for s in (shape, (1, *shape), (1, 8)))
    terms = Terms(row, None, None, mean, row, (z,), q=DiagonalNormal(mean, mean))
    assert TotalCorrelation()(terms, torch.ones((), device="meta")).shape == (8,)  # a number cannot be read there
