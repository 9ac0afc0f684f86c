"""Poisson counts, scored where they are not zero.

    m   log mean    (*samples, obs, features)

The dense part costs one exponential per entry, in float32; the terms of the non-zeros are summed in float64:

    log p(x) = sum_{x > 0} [x m - log Gamma(x + 1)] - sum_all exp(m)
    d log p / d m = x - exp(m)

Where the means are shares of an exposure their sum is the exposure, and no entry but the non-zeros needs its mean.
"""

from typing import Any

import numpy as np
import scipy.special
import torch
from jaxtyping import Float
from torch import Tensor
from torch.autograd.function import once_differentiable

from biovae.batch import SparseCounts
from biovae.distributions.composition import Composition, written
from biovae.distributions.distribution import Distribution
from biovae.distributions.sparse import add, as_rows, as_sparse, clear, repeat, take, wide
from biovae.noise import Noise

LARGEST = 30.0  # of m: a mean of 1e13, that gradients may be squared and summed in float32


class Poisson(Distribution):
    """x ~ Poisson(mean): counts with no more spread than sampling gives them.

    m is kept below 30; a gradient passes through the bound, so that a network beyond it can come back.

    Args:
        log_mean: m, or its parts.
    """

    def __init__(self, log_mean: Float[Tensor, "*samples obs features"] | Composition) -> None:
        self.parts = log_mean

    @property
    def log_mean(self) -> Float[Tensor, "*samples obs features"]:
        """m."""
        return written(self.parts)

    @property
    def mean(self) -> Float[Tensor, "*samples obs features"]:
        """exp(m)."""
        return _clamped(self.log_mean).exp()

    @property
    def variance(self) -> Float[Tensor, "*samples obs features"]:
        """The mean."""
        return self.mean

    def log_prob(self, x: SparseCounts | Float[Tensor, "obs features"]) -> Float[Tensor, "*samples obs"]:
        """log p(x), in nats, summed over features."""
        x, mean = as_sparse(x), self.parts
        if isinstance(mean, Composition) and mean.share and mean.logits.shape[-2:] == x.shape:
            return _shared_out(mean, x)
        m = self.log_mean
        shape = torch.broadcast_shapes(m.shape, x.shape)
        m = as_rows(m, shape)
        return _LogProb.apply(m, repeat(x, len(m))).view(shape[:-1])

    def log_prob_each(self, x: Float[Tensor, "obs features"]) -> Float[Tensor, "*samples obs features"]:
        """log p(x) of every entry of a dense x."""
        m, v = wide(_clamped(self.log_mean)), wide(x)
        return (v * m - torch.lgamma(v + 1) - m.exp()).to(self.log_mean.dtype)

    def cdf(self, x: Float[Tensor, "obs features"]) -> Float[Tensor, "*samples obs features"]:
        """P(X <= x), an incomplete gamma function."""
        v, mean = np.floor(x.detach().cpu().double().numpy()), self.mean.detach().cpu().double().numpy()
        value = np.where(v < 0, 0.0, scipy.special.pdtr(np.maximum(v, 0.0), mean))
        return torch.from_numpy(value).to(self.log_mean)

    def sample(self, noise: Noise) -> Float[Tensor, "*samples obs features"]:
        """One draw of every entry."""
        return torch.poisson(self.mean, generator=noise.generator)


def _shared_out(mean: Composition, x: SparseCounts) -> Float[Tensor, "*samples obs"]:
    """sum_{x > 0} [x m - log Gamma(x + 1)] - exposure."""
    shape = mean.shape
    logits, exposure = as_rows(mean.logits, shape), mean.exposure.expand(*shape[:-1], 1).reshape(-1)
    x = repeat(x, len(logits))
    base, v = wide(exposure.log() - logits.logsumexp(-1)), wide(x.value)
    atoms = v * (wide(take(logits, x.flat)) + base.index_select(0, x.row)) - torch.lgamma(v + 1)
    log_p = wide(exposure).neg().index_add(0, x.row, atoms)
    return log_p.to(logits.dtype).view(shape[:-1])


def _clamped(m: Tensor) -> Tensor:
    return m.clamp(max=LARGEST)


class _LogProb(torch.autograd.Function):
    """log p(x) of a matrix of rows."""

    @staticmethod
    def forward(ctx: Any, m: Tensor, x: SparseCounts) -> Tensor:
        flat, v = x.flat, wide(x.value)
        at = wide(_clamped(take(m, flat)))
        rate = _clamped(m).exp_()
        if ctx.needs_input_grad[0]:
            ctx.save_for_backward(rate.neg(), flat, x.row, x.value)
        clear(rate, flat, x.value)  # the atoms have it all
        atoms = (v * at).sub_(torch.lgamma(v + 1)).sub_(at.exp_().mul_(v > 0))
        return wide(rate.sum(-1).neg_()).index_add_(0, x.row, atoms).to(m.dtype)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None]:
        slope, flat, row, value = ctx.saved_tensors
        grad_m = slope * grad.unsqueeze(-1)
        add(grad_m, flat, grad.index_select(0, row) * value)
        return grad_m, None
