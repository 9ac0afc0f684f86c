"""lgamma and digamma where their differences are small: log Gamma(x + r) - log Gamma(r) for every r.

    s = the argument, > 0        w = 1 / (s + 8)        q = s (s + 7) w**2

    log Gamma(s) = (s - 1/2) log(s + 8) - (s + 8) + log(2 pi) / 2 + tail - log(product)
    digamma(s)   = log(s + 8) + slope

`tail` is Stirling's series at s + 8; `product` is s (s + 1) ... (s + 7) w**8, its factors taken in pairs from the ends:
q, q + 6 w**2, q + 10 w**2, q + 12 w**2. Between two arguments the large parts cancel on paper, so that what is left
loses nothing as r grows, and one logarithm of a ratio of products serves them all. Truncation errs by less than 3e-10.

Source: Abramowitz and Stegun 1964, Handbook of Mathematical Functions, 6.1.41 and 6.3.18.
"""

import math
from typing import Any, NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor

SHIFT = 8.0
HALF_LOG_2PI = 0.5 * math.log(2 * math.pi)


class Stirling(NamedTuple):
    """The parts of log Gamma(s) and digamma(s) that the head of this file names; `slope` is empty unless asked for."""

    tail: Float[Tensor, "..."]
    product: Float[Tensor, "..."]
    slope: Float[Tensor, "..."]


def stirling(s: Float[Tensor, "..."], *, slope: bool) -> Stirling:
    """The parts of log Gamma(s), and of digamma(s) where `slope`; s > 0."""
    w = (s + SHIFT).reciprocal_()
    w2 = w * w
    q = s * w
    q.addcmul_(q, w, value=-1)
    inner = torch.add(q, w2, alpha=6)
    outer_pair = torch.add(q, w2, alpha=12).mul_(q)
    inner_pair = torch.add(q, w2, alpha=10).mul_(inner)
    product = outer_pair * inner_pair
    tail = (w2 * (1 / 1260)).sub_(1 / 360).mul_(w2).add_(1 / 12).mul_(w)
    if not slope:
        return Stirling(tail, product, s.new_empty(0))
    change = (
        inner.mul_(inner_pair).addcmul_(outer_pair, q.add_(w2, alpha=8)).div_(product)
    )  # d log product / d q, halved
    change.mul_(torch.add(w, w2, alpha=-4.5))  # d q / d s, halved
    series = (w2 * (1 / 252)).sub_(1 / 120).mul_(w2).add_(1 / 12).mul_(w2).add_(w, alpha=0.5)
    return Stirling(tail, product, change.mul_(-4).sub_(series))


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
    high, low = stirling(x + r, slope=True), stirling(r, slope=True)
    return torch.log1p(x / (r + SHIFT)) + (high.slope - low.slope)


class _Bounded(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, value: Tensor, low: float, high: float) -> Tensor:
        return value.clamp(low, high)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None, None]:
        return grad, None, None


def bounded(value: Float[Tensor, "..."], low: float, high: float) -> Float[Tensor, "..."]:
    """A parameter kept within bounds; its gradient passes through, so that a parameter beyond them can come back."""
    return _Bounded.apply(value, low, high)
