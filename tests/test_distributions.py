"""One table of distributions, one set of promises that each row must keep."""

from collections.abc import Callable
from typing import NamedTuple

import numpy as np
import pytest
import scipy.special
import scipy.stats
import torch
from torch import Tensor

from biovae.batch import SparseCounts
from biovae.distributions import (
    Bernoulli,
    Categorical,
    Distribution,
    Log1pNormalCounts,
    NegativeBinomial,
    Normal,
    Poisson,
    ZeroInflatedNegativeBinomial,
)
from biovae.noise import Noise

OBS, FEATURES, LEVELS = 5, 7, 4
DOUBLE = torch.float64


class Case(NamedTuple):
    """A distribution, the shapes of its parameters, the kind of data it scores, an independent log-probability."""

    make: Callable[..., Distribution]
    shapes: tuple[tuple[int, ...], ...]
    data: str
    reference: Callable[..., np.ndarray]
    last: tuple[int, ...] = ()  # axes of the first parameter beyond features


def _poisson(x, m):
    return scipy.stats.poisson.logpmf(x, np.exp(m))


def _negative_binomial(x, m, log_r):
    r = np.exp(log_r)
    return scipy.stats.nbinom.logpmf(x, r, r / (r + np.exp(m)))


def _zero_inflated(x, m, log_r, g):
    gate = scipy.special.expit(g)
    return np.log((x == 0) * gate + (1 - gate) * np.exp(_negative_binomial(x, m, log_r)))


def _normal(x, mean, log_scale):
    return scipy.stats.norm.logpdf(x, mean, np.exp(log_scale))


def _log1p_normal(x, mean, log_scale, log_factor):
    edges = (np.log1p(np.exp(log_factor) * np.maximum(x + half, -0.0)) for half in (-0.5, 0.5))
    lower, upper = ((edge - mean) / np.exp(log_scale) for edge in edges)
    lower = np.where(x > 0, lower, -np.inf)
    flip = lower > 0  # into the tail where probabilities are small numbers
    low, high = scipy.stats.norm.logcdf([np.where(flip, -upper, lower), np.where(flip, -lower, upper)])
    return high + np.log1p(-np.exp(low - high))


def _bernoulli(x, logits):
    return scipy.stats.bernoulli.logpmf(x, scipy.special.expit(logits))


def _categorical(x, logits):
    log_p = scipy.special.log_softmax(logits, -1)
    return np.take_along_axis(log_p, np.broadcast_to(x[..., None], (*log_p.shape[:-1], 1)).astype(int), -1)[..., 0]


ZINB = ZeroInflatedNegativeBinomial
FULL, ROW, COLUMN = (OBS, FEATURES), (FEATURES,), (OBS, 1)
CASES = {
    "poisson": Case(Poisson, (), "counts", _poisson),
    "nb, r per feature": Case(NegativeBinomial, (ROW,), "counts", _negative_binomial),
    "nb, r per observation": Case(NegativeBinomial, (FULL,), "counts", _negative_binomial),
    "nb, r per sample": Case(NegativeBinomial, ((3, 1, FEATURES),), "counts", _negative_binomial),
    "nb, one r": Case(NegativeBinomial, ((),), "counts", _negative_binomial),
    "nb, r per row": Case(NegativeBinomial, (COLUMN,), "counts", _negative_binomial),
    "zinb, gate per entry": Case(ZINB, (ROW, FULL), "counts", _zero_inflated),
    "zinb, gate per feature": Case(ZINB, (FULL, ROW), "counts", _zero_inflated),
    "normal, scale per feature": Case(Normal, (ROW,), "reals", _normal),
    "normal, scale per entry": Case(Normal, (FULL,), "reals", _normal),
    "log1p normal, per feature": Case(Log1pNormalCounts, (ROW, COLUMN), "counts", _log1p_normal),
    "log1p normal, per entry": Case(Log1pNormalCounts, (FULL, COLUMN), "counts", _log1p_normal),
    "bernoulli": Case(Bernoulli, (), "binary", _bernoulli),
    "categorical": Case(Categorical, (), "codes", _categorical, (LEVELS,)),
}
each_case = pytest.mark.parametrize("case", CASES.values(), ids=CASES)


def parameters(case: Case, samples: tuple[int, ...] = (3,), spread: float = 1.0) -> tuple[Tensor, ...]:
    noise = Noise(1)
    shapes = ((*samples, OBS, FEATURES, *case.last), *case.shapes)
    return tuple((spread * noise.normal(*shape, dtype=DOUBLE)).requires_grad_() for shape in shapes)


def data(case: Case) -> Tensor:
    noise = Noise(2)
    counts = torch.poisson(3 * noise.uniform(OBS, FEATURES, dtype=DOUBLE), generator=noise.generator)
    return {
        "counts": counts,
        "binary": (counts > 1).to(DOUBLE),
        "codes": counts.clamp(max=LEVELS - 1),
        "reals": noise.normal(OBS, FEATURES, dtype=DOUBLE),
    }[case.data]


def padded(x: Tensor) -> SparseCounts:
    """The non-zeros, then entries of value 0 in the last row: at a zero, at a non-zero, and twice in the same place."""
    s, last = SparseCounts.from_dense(x), x[-1]
    places = torch.cat([(last == 0).nonzero()[:1, 0], (last > 0).nonzero()[:1, 0], torch.tensor([0, 0])])
    row, column = torch.cat([s.row, torch.full_like(places, len(x) - 1)]), torch.cat([s.column, places])
    return SparseCounts(row, column, torch.cat([s.value, s.value.new_zeros(len(places))]), s.shape)


@each_case
def test_agrees_with_an_independent_formula(case):
    p, x = parameters(case), data(case)
    expected = case.reference(x.numpy(), *(q.detach().numpy() for q in p))
    d = case.make(*p)
    np.testing.assert_allclose(d.log_prob_each(x).detach(), expected, rtol=1e-7)
    np.testing.assert_allclose(d.log_prob(x).detach(), expected.sum(-1), rtol=1e-8)


@each_case
@pytest.mark.parametrize("samples", [(), (3,), (2, 3)], ids=str)
def test_sample_axes_pass_through(case, samples):
    d, x = case.make(*parameters(case, (3,) if "r per sample" in str(case.shapes) else samples)), data(case)
    shape = torch.broadcast_shapes((*samples, OBS, FEATURES), d.mean.shape)
    assert d.log_prob(x).shape == shape[:-1]
    for value in (d.mean, d.variance, d.log_prob_each(x), d.cdf(x), d.sample(Noise(0))):
        assert value.shape == shape


@each_case
def test_sparse_equals_dense_and_padding_adds_nothing(case):
    if case.data not in ("counts", "binary"):
        pytest.skip("this distribution takes dense data")
    p, x = parameters(case), data(case)
    results = []
    for form in (x, SparseCounts.from_dense(x), padded(x)):
        log_p = case.make(*p).log_prob(form)
        results.append((log_p, *torch.autograd.grad(log_p.sum(), p)))
    for others in zip(*results, strict=True):
        assert torch.equal(others[0], others[1])
        torch.testing.assert_close(others[2], others[0], rtol=1e-14, atol=1e-14)


@each_case
def test_gradients_of_every_parameter(case):
    p, x = parameters(case), data(case)
    form = padded(x) if case.data in ("counts", "binary") else x
    weight = torch.linspace(0.5, 2, OBS, dtype=DOUBLE)
    assert torch.autograd.gradcheck(lambda *q: case.make(*q).log_prob(form) * weight, p)
    for index in range(len(p)):
        alone = [q if i == index else q.detach() for i, q in enumerate(p)]
        (grad,) = torch.autograd.grad(case.make(*alone).log_prob(form).sum(), alone[index])
        assert (grad != 0).any()


@each_case
def test_float32_is_as_good_as_float64(case):
    single = [q.detach().float().requires_grad_() for q in parameters(case, spread=3.0)]
    x, p = data(case), [q.detach().double().requires_grad_() for q in single]
    exact = case.make(*p).log_prob(x)
    log_p = case.make(*single).log_prob(x.float())
    torch.testing.assert_close(log_p, exact.float(), rtol=1e-5, atol=1e-5)
    for narrow, wide in zip(torch.autograd.grad(log_p.sum(), single), torch.autograd.grad(exact.sum(), p), strict=True):
        torch.testing.assert_close(narrow, wide.float(), rtol=1e-4, atol=1e-4)


@each_case
def test_evaluation_needs_no_gradient(case):
    p, x = parameters(case), data(case)
    with torch.no_grad():
        assert torch.equal(case.make(*p).log_prob(x), case.make(*(q.detach() for q in p)).log_prob(x))


@each_case
def test_masses_sum_to_the_cdf_and_give_the_moments(case):
    if case.data == "reals":
        pytest.skip("a density has no masses")
    small = tuple(q.detach().clamp(-1.0, 0.0) for q in parameters(case, ()))
    d = case.make(*small)
    top = {"counts": 400, "binary": 2, "codes": LEVELS}[case.data]
    k = torch.arange(top, dtype=DOUBLE)
    mass = torch.stack([d.log_prob_each(torch.full(FULL, float(value), dtype=DOUBLE)).exp() for value in k], -1)
    below = torch.stack([d.cdf(torch.full(FULL, float(value), dtype=DOUBLE)) for value in k], -1)
    torch.testing.assert_close(mass.cumsum(-1), below, rtol=1e-8, atol=1e-8)
    if case.make is not Log1pNormalCounts or (below[..., -1] > 1 - 1e-12).all():
        torch.testing.assert_close((mass * k).sum(-1), d.mean, rtol=1e-6, atol=1e-8)
        torch.testing.assert_close((mass * k.square()).sum(-1) - d.mean**2, d.variance, rtol=1e-5, atol=1e-8)
    assert (d.cdf(torch.full(FULL, -1.0, dtype=DOUBLE)) == 0).all()


@each_case
def test_draws_have_the_mean_the_variance_and_the_cdf(case):
    d = case.make(*(q.detach().clamp(-1.0, 1.0) * 0.5 for q in parameters(case, ())))
    noise, draws = Noise(3), 6000
    x = torch.stack([d.sample(noise) for _ in range(draws)])
    error = (d.variance / draws).sqrt()
    assert ((x.mean(0) - d.mean).abs() < 5 * error).all()
    assert ((x.var(0) / d.variance).log().mean().abs()) < 0.1
    for value in (0.0, 1.0, 2.0):
        at = torch.full(FULL, value, dtype=DOUBLE)
        assert ((x <= value).to(DOUBLE).mean(0) - d.cdf(at)).abs().max() < 5 * 0.5 / draws**0.5


@each_case
def test_draws_depend_on_the_noise_alone(case):
    d = case.make(*parameters(case))
    first = d.sample(Noise(4))
    torch.rand(1)
    assert torch.equal(first, d.sample(Noise(4)))
    assert not torch.equal(first, d.sample(Noise(5)))


def test_zeros_cost_no_lgamma():
    """A batch of zeros is scored exactly: -r softplus(a)."""
    m, log_r = torch.full((2, 3), 0.5), torch.zeros(3)
    expected = -3 * torch.log1p(torch.tensor(0.5).exp())
    torch.testing.assert_close(NegativeBinomial(m, log_r).log_prob(torch.zeros(2, 3)), expected.expand(2))


def test_limits_between_distributions():
    """NB tends to the Poisson, and ZINB to the NB."""
    m, x = Noise(0).normal(4, 6), torch.poisson(torch.ones(4, 6), generator=Noise(1).generator)
    poisson = Poisson(m).log_prob(x)
    torch.testing.assert_close(NegativeBinomial(m, torch.full((6,), 40.0)).log_prob(x), poisson, rtol=1e-5, atol=1e-5)
    log_r = Noise(2).normal(6)
    gated = ZINB(m, log_r, torch.full((4, 6), -1e4)).log_prob(x)
    torch.testing.assert_close(gated, NegativeBinomial(m, log_r).log_prob(x), rtol=1e-5, atol=1e-5)
