"""The numerics at their extremes, against arbitrary precision: float32 in, finite numbers out, and the right ones.

m    log mean
r    inverse dispersion
"""

import math

import mpmath
import numpy as np
import pytest
import scipy.stats
import torch
from hypothesis import example, given
from hypothesis import strategies as st
from torch import Tensor

from biovae.distributions import (
    Bernoulli,
    Distribution,
    Log1pNormalCounts,
    NegativeBinomial,
    Normal,
    Poisson,
    ZeroInflatedNegativeBinomial,
)
from biovae.distributions.special import digamma_rising, log_rising

COUNTS = st.one_of(st.integers(0, 30), st.integers(0, 2**25), st.just(10**9)).map(np.float32).map(float)
LOG_MEANS = st.floats(-40, 25, width=32)
LOG_RS = st.floats(-40, 40, width=32)
LOGITS = st.one_of(st.floats(-30, 30, width=32), st.sampled_from([-1e4, 1e4]))
ANYTHING = st.one_of(st.floats(-80, 80, width=32), st.sampled_from([-1e4, 1e4]))


def entry(value: float) -> Tensor:
    return torch.tensor([[value]], requires_grad=True)


def scored(make: type[Distribution], x: float, *values: float) -> tuple[float, list[float]]:
    """log p(x) in float32, and its gradients."""
    parameters = [entry(value) for value in values]
    log_p = make(*parameters).log_prob(torch.tensor([[x]]))
    return log_p.item(), [g.item() for g in torch.autograd.grad(log_p.sum(), parameters)]


def precise(x: float, m: float, log_r: float) -> tuple[mpmath.mpf, mpmath.mpf, mpmath.mpf]:
    """log NB(x) and its gradients in m and log r, to 60 digits."""
    with mpmath.workdps(60):
        x, mean, r = mpmath.mpf(x), mpmath.exp(m), mpmath.exp(log_r)
        share = mean / (r + mean)
        log_p = mpmath.loggamma(x + r) - mpmath.loggamma(r) - mpmath.loggamma(x + 1)
        log_p += x * mpmath.log(share) + r * mpmath.log(r / (r + mean))
        slope = r * (mpmath.digamma(x + r) - mpmath.digamma(r) + mpmath.log(r / (r + mean)) + share) - x * (1 - share)
        return log_p, x - (x + r) * share, slope


def close(value: float, expected: float, relative: float, absolute: float = 0.0) -> bool:
    return math.isfinite(value) and abs(value - expected) <= absolute + relative * abs(expected)


@given(x=COUNTS, log_r=st.floats(-60, 60))
@example(x=3.0, log_r=60.0)
@example(x=0.0, log_r=-60.0)
def test_the_rising_factorial(x, log_r):
    r = math.exp(log_r)
    with mpmath.workdps(60):
        expected = mpmath.loggamma(mpmath.mpf(x) + r) - mpmath.loggamma(r) - x * mpmath.log(r)
        slope = mpmath.digamma(mpmath.mpf(x) + r) - mpmath.digamma(r)
    pair = torch.tensor([x, r], dtype=torch.float64)
    value, rate = log_rising(*pair).item(), digamma_rising(*pair).item()
    assert close(value, expected, 1e-9, 1e-9 + 1e-15 * x)
    assert close(rate, slope, 1e-8, 1e-9)


@pytest.mark.parametrize("r", [1e3, 1e5, 1e6, 1e8, 1e12])
def test_float32_loses_nothing_as_r_grows(r):
    x = torch.arange(1.0, 40.0)
    value = log_rising(x, torch.tensor(r))
    with mpmath.workdps(60):
        exact = float(torch.tensor(r))
        expected = [
            float(mpmath.loggamma(k + exact) - mpmath.loggamma(exact) - k * mpmath.log(exact)) for k in x.tolist()
        ]
    torch.testing.assert_close(value, torch.tensor(expected), rtol=1e-5, atol=1e-5)


@given(x=COUNTS, m=LOG_MEANS, log_r=LOG_RS)
@example(x=2.0**24, m=math.log(2.0**24), log_r=18.420680743952367)
@example(x=1e9, m=20.72326583694641, log_r=0.0)
@example(x=5.0, m=1.5, log_r=18.420680743952367)
@example(x=0.0, m=-40.0, log_r=-40.0)
def test_negative_binomial_is_exact_in_float32(x, m, log_r):
    m, log_r = float(np.float32(m)), float(np.float32(log_r))
    log_p, (in_m, in_log_r) = scored(NegativeBinomial, x, m, log_r)
    expected, slope_m, slope_log_r = precise(x, m, log_r)
    assert close(log_p, expected, 1e-5, 1e-5)
    size = 1 + min(math.exp(min(m, 60)), math.exp(log_r)) + min(x, math.exp(log_r))  # of the terms that cancel
    assert close(in_m, slope_m, 1e-5, 1e-5 * size)
    assert close(in_log_r, slope_log_r, 1e-5, 1e-5 * size)


@given(x=COUNTS, m=LOG_MEANS)
@example(x=2.0**24, m=math.log(2.0**24))
def test_poisson_is_exact_in_float32(x, m):
    m = float(np.float32(m))
    log_p, (slope,) = scored(Poisson, x, m)
    with mpmath.workdps(60):
        expected = mpmath.mpf(x) * m - mpmath.exp(m) - mpmath.loggamma(mpmath.mpf(x) + 1)
        rate = mpmath.exp(m)
    assert close(log_p, expected, 1e-5, 1e-5)
    assert close(slope, x - rate, 1e-5, 1e-6 * float(rate))


@given(x=COUNTS, m=LOG_MEANS, log_r=LOG_RS, g=st.floats(-30, 30, width=32))
def test_zero_inflation_is_exact_in_float32(x, m, log_r, g):
    log_p, _ = scored(ZeroInflatedNegativeBinomial, x, m, log_r, g)
    with mpmath.workdps(60):
        counts, gate = mpmath.exp(precise(x, m, log_r)[0]), 1 / (1 + mpmath.exp(-mpmath.mpf(g)))
        expected = mpmath.log((gate if x == 0 else 0) + (1 - gate) * counts)
    assert close(log_p, expected, 1e-5, 1e-5)


@given(x=st.integers(0, 10**6), mu=st.floats(-5, 15), log_s=st.floats(-12, 4), log_f=st.floats(-8, 8))
@example(x=10**6, mu=13.0, log_s=0.0, log_f=0.0)  # a narrow interval
@example(x=3, mu=-900.0, log_s=-5.0, log_f=0.0)  # far in the tail
@example(x=3, mu=900.0, log_s=-5.0, log_f=0.0)
def test_log1p_normal_mass(x, mu, log_s, log_f):
    parameters = [torch.tensor([[value]], dtype=torch.float64, requires_grad=True) for value in (mu, log_s, log_f)]
    log_p = Log1pNormalCounts(*parameters).log_prob(torch.tensor([[float(x)]], dtype=torch.float64))
    slope = torch.autograd.grad(log_p.sum(), parameters[0])[0].item()
    with mpmath.workdps(40):
        s, f = mpmath.exp(log_s), mpmath.exp(log_f)
        upper = (mpmath.log1p(f * (x + 0.5)) - mu) / s
        lower = (mpmath.log1p(f * (x - 0.5)) - mu) / s if x else -mpmath.inf
        side = -1 if lower > 0 else 1  # the tail where probabilities are small numbers
        low, high = sorted((side * lower, side * upper))
        tail = lambda z: mpmath.erfc(-z / mpmath.sqrt(2)) / 2  # noqa: E731
        mass = tail(high) - tail(low)
        density = mpmath.npdf(upper) - mpmath.npdf(lower)
        assert close(log_p.item(), float(mpmath.log(mass)), 1e-7, 1e-7)
        assert close(slope, float(-density / mass / s), 1e-5, 1e-5 / float(s))


@given(mu=st.floats(-1, 3), log_s=st.floats(-6, 0), log_f=st.floats(-3, 3))
def test_log1p_normal_masses_sum_to_one(mu, log_s, log_f):
    d = Log1pNormalCounts(*(torch.tensor([[value]], dtype=torch.float64) for value in (mu, log_s, log_f)))
    x = torch.arange(3000, dtype=torch.float64).unsqueeze(1)
    mass = d.log_prob(x).exp()
    torch.testing.assert_close(mass.sum(), d.cdf(x)[-1, 0], rtol=1e-10, atol=1e-10)
    torch.testing.assert_close(mass.cumsum(0), d.cdf(x)[:, 0], rtol=1e-10, atol=1e-10)


@pytest.mark.parametrize("case", [(40.0, 0.5), (200.0, 0.2), (3.0, 1.0), (500.0, 0.01)], ids=str)
def test_log1p_normal_moments_beyond_the_series(case):
    """Against the sum over masses, where the series has handed over to the integral."""
    centre, s = case
    d = Log1pNormalCounts(*(torch.tensor([[v]], dtype=torch.float64) for v in (math.log1p(centre), math.log(s), 0.0)))
    k = torch.arange(20000, dtype=torch.float64)
    mass = d.log_prob(k.unsqueeze(1)).exp()
    mean = (mass * k).sum()
    torch.testing.assert_close(d.mean.squeeze(), mean, rtol=1e-5, atol=0)
    torch.testing.assert_close(d.variance.squeeze(), (mass * k.square()).sum() - mean**2, rtol=2e-4, atol=0)


@given(x=COUNTS, values=st.lists(ANYTHING, min_size=3, max_size=3))
@example(x=0.0, values=[1e4, 1e4, 1e4])
@example(x=0.0, values=[-1e4, -1e4, -1e4])
@example(x=1e9, values=[-1e4, 1e4, 1e4])
@pytest.mark.parametrize("make", [Poisson, NegativeBinomial, ZeroInflatedNegativeBinomial, Log1pNormalCounts, Normal])
def test_extremes_stay_finite(make, x, values):
    size = {Poisson: 1, ZeroInflatedNegativeBinomial: 3, Log1pNormalCounts: 3}.get(make, 2)
    if make is Log1pNormalCounts:
        values = [values[0], values[1], max(-25.0, min(values[2], 25.0))]  # exposures from 1e-7 to 1e14
    log_p, gradients = scored(make, x, *values[:size])
    assert math.isfinite(log_p)
    assert all(math.isfinite(g) for g in gradients)


@given(x=st.sampled_from([0.0, 1.0]), logit=LOGITS)
def test_bernoulli_is_exact_in_float32(x, logit):
    log_p, (slope,) = scored(Bernoulli, x, logit)
    expected = -np.logaddexp(0.0, -logit if x else logit)
    assert close(log_p, expected, 1e-6)
    assert close(slope, x - 1 / (1 + np.exp(np.float64(-min(max(logit, -700), 700)))), 1e-5, 1e-7)


@given(x=st.integers(0, 10**6), m=st.floats(-10, 14), log_r=st.floats(-8, 60))
def test_negative_binomial_cdf(x, m, log_r):
    """Against scipy, which leaves its range as r grows: the Poisson there."""
    d = NegativeBinomial(torch.tensor([[m]]).double(), torch.tensor([[log_r]]).double())
    r = math.exp(log_r)
    known = scipy.stats.poisson(math.exp(m)) if log_r > 30 else scipy.stats.nbinom(r, r / (r + math.exp(m)))
    assert close(d.cdf(torch.tensor([[float(x)]])).item(), float(known.cdf(x)), 1e-4, 1e-6)
