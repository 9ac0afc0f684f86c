"""lgamma and digamma where their differences are small: log Gamma(x + r) - log Gamma(r) for every r.

    s = the argument, > 0        w = 1 / (s + 8)        q = s (s + 7) w**2

    log Gamma(s) = (s - 1/2) log(s + 8) - (s + 8) + log(2 pi) / 2 + tail - log(product)
    digamma(s)   = log(s + 8) + slope

with Stirling's series at s + 8 in `tail`, and the eight factors s (s + 1) ... (s + 7), scaled by (s + 8)**-8, in `product`
= q (q + 6 w**2) (q + 10 w**2) (q + 12 w**2). Between two arguments the large parts cancel on paper, so that what is left
loses nothing as r grows; one logarithm of a ratio of products serves them all. Truncated at s = 0 with an error of 1e-11.

Source: Abramowitz and Stegun 1964, Handbook of Mathematical Functions, 6.1.41 and 6.3.18.
"""

import math
from typing import NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor

SHIFT = 8.0
HALF_LOG_2PI = 0.5 * math.log(2 * math.pi)


class Stirling(NamedTuple):
    """The parts of log Gamma(s) that the head of this file names; `slope` is None unless it was asked for."""

    tail: Float[Tensor, "..."]
    product: Float[Tensor, "..."]
    slope: Float[Tensor, "..."] | None


def stirling(s: Float[Tensor, "..."], *, slope: bool) -> Stirling:
    """The parts of log Gamma(s), and of digamma(s) where `slope`; s > 0."""
    w = (s + SHIFT).reciprocal_()
    w2 = w * w
    q = (s * w).mul_(1 - w)
    product = (q + 6 * w2).mul_(q).mul_(q + 10 * w2).mul_(q + 12 * w2)
    tail = _horner(w2, 1 / 12, -1 / 360, 1 / 1260, -1 / 1680).mul_(w)
    if not slope:
        return Stirling(tail, product, None)
    series = _horner(w2, 1 / 12, -1 / 120, 1 / 252, -1 / 240).mul_(w2)
    factors = _horner(q, 720 * w2 * w2 * w2, 504 * w2 * w2, 84 * w2, 4.0)  # d product / d q
    factors.mul_(2 * w - 9 * w2).div_(product)
    return Stirling(tail, product, factors.add_(series).add_(w, alpha=0.5).neg_())


def _horner(x: Tensor, *coefficients: float | Tensor) -> Tensor:
    """c0 + x (c1 + x (c2 + ...))."""
    *lower, highest = coefficients
    value = x * highest
    for coefficient in lower[:0:-1]:
        value.add_(coefficient).mul_(x)
    return value.add_(lower[0])


def log_rising(x: Float[Tensor, "..."], r: Float[Tensor, "..."]) -> Float[Tensor, "..."]:
    """log Gamma(x + r) - log Gamma(r) - x log r: what is left of the rising factorial as r grows is x**2 / 2r."""
    high, low = stirling(x + r, slope=False), stirling(r, slope=False)
    return (
        (x + r - 0.5) * torch.log1p(x / (r + SHIFT))
        + x * (torch.log1p(SHIFT / r) - 1)
        + (high.tail - low.tail)
        - torch.log(high.product / low.product)
    )


def digamma_rising(x: Float[Tensor, "..."], r: Float[Tensor, "..."]) -> Float[Tensor, "..."]:
    """digamma(x + r) - digamma(r)."""
    return torch.log1p(x / (r + SHIFT)) + (stirling(x + r, slope=True).slope - stirling(r, slope=True).slope)


class _Bounded(torch.autograd.Function):
    @staticmethod
    def forward(ctx, value: Tensor, low: float, high: float) -> Tensor:
        return value.clamp(low, high)

    @staticmethod
    def backward(ctx, grad: Tensor):
        return grad, None, None


def bounded(value: Float[Tensor, "..."], low: float, high: float) -> Float[Tensor, "..."]:
    """A parameter kept within bounds; its gradient passes through, so that a parameter beyond them can come back."""
    return _Bounded.apply(value, low, high)
