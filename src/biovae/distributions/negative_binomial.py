"""Negative binomial counts, scored where they are not zero.

    m    log mean                (*samples, obs, features)
    r    inverse dispersion      variance = mean + mean**2 / r
    a    m - log r               sigmoid(a) = mean / (r + mean)

    log p(x) = log Gamma(x + r) - log Gamma(r) - log Gamma(x + 1) + x (a - softplus(a)) - r softplus(a)

The last term is the whole of it where x = 0, and 90 to 98 % of single-cell counts are 0. So the dense part costs one
softplus and one sigmoid per entry, in float32. The terms of the non-zeros, large ones that cancel, are summed in
float64. The gradients need softplus(a), sigmoid(a), and one number per non-zero. Means given as a `Composition` are
scored by a compiled loop where one fits (see `fused`, `on_gpu`); what is here is the reference, and runs everywhere:

    d log p / d m     = x sigmoid(-a) - r sigmoid(a)
    d log p / d log r = r [digamma(x + r) - digamma(r) - softplus(a)] - x sigmoid(-a) + r sigmoid(a)

Source: Lopez et al. 2018, Nature Methods 15:1053, doi:10.1038/s41592-018-0229-2.
"""

from typing import Any, NamedTuple

import numpy as np
import scipy.special
import torch
from jaxtyping import Float, Int
from torch import Tensor
from torch.autograd.function import once_differentiable
from torch.nn.functional import softplus

from biovae.batch import SparseCounts
from biovae.distributions.composition import Composition, written
from biovae.distributions.distribution import Distribution
from biovae.distributions.drawn import drawn_counts
from biovae.distributions.fused import composed_log_prob, fits
from biovae.distributions.on_gpu import composed_log_prob_gpu, fits_gpu
from biovae.distributions.sparse import add, as_row, as_rows, as_sparse, clear, repeat, take, wide
from biovae.distributions.special import HALF_LOG_2PI, SHIFT, bounded, log_rising, stirling
from biovae.noise import Noise

LIMIT = 60.0  # |log r|: beyond, exp leaves float32 and the distribution is its limit to any precision
WIDE = 40.0  # where softplus(a) is a in float64; at torch's 20, x (softplus(a) - a) is still 1 at x = 1e9


class NegativeBinomial(Distribution):
    """x ~ NB(mean, r), variance = mean + mean**2 / r.

    log r is kept within +-60; a gradient passes through the bound, so that a parameter beyond it can come back.

    Args:
        log_mean: m, or its parts.
        log_r: Whatever broadcasts to m; (features,) is the fastest.
    """

    def __init__(
        self, log_mean: Float[Tensor, "*samples obs features"] | Composition, log_r: Float[Tensor, "..."]
    ) -> None:
        self.parts = log_mean
        self.log_r = log_r

    @property
    def log_mean(self) -> Float[Tensor, "*samples obs features"]:
        """m."""
        return written(self.parts)

    @property
    def mean(self) -> Float[Tensor, "*samples obs features"]:
        """exp(m)."""
        return self.log_mean.exp().expand(self.shape)

    @property
    def variance(self) -> Float[Tensor, "*samples obs features"]:
        """mean + mean**2 / r."""
        return self.log_mean.exp() + (2 * self.log_mean - bounded_log_r(self.log_r)).exp()

    def log_prob(self, x: SparseCounts | Float[Tensor, "obs features"]) -> Float[Tensor, "*samples obs"]:
        """log p(x), in nats, summed over features."""
        x = as_sparse(x)
        if isinstance(self.parts, Composition):
            log_r = bounded(self.log_r, -LIMIT, LIMIT)
            if fits(self.parts, log_r, x):
                return composed_log_prob(self.parts, log_r, x)
            if fits_gpu(self.parts, log_r, x):
                return composed_log_prob_gpu(self.parts, log_r, x)
        shape = torch.broadcast_shapes(self.shape, x.shape)
        m = as_rows(self.log_mean, shape)
        return _LogProb.apply(m, as_row(self.log_r, shape), repeat(x, len(m))).view(shape[:-1])

    def log_prob_each(self, x: Float[Tensor, "obs features"]) -> Float[Tensor, "*samples obs features"]:
        """log p(x) of every entry of a dense x."""
        m, log_r, v = wide(self.log_mean), wide(bounded_log_r(self.log_r)), wide(x)
        r, sp = log_r.exp(), softplus(m - log_r, threshold=WIDE)
        log_p = log_rising(v, r) - torch.lgamma(v + 1) + v * (m - sp) - r * sp
        return log_p.to(self.log_mean.dtype)

    def cdf(self, x: Float[Tensor, "obs features"]) -> Float[Tensor, "*samples obs features"]:
        """P(X <= x), an incomplete beta function."""
        v, m, log_r = (t.detach().cpu().double().numpy() for t in (x, self.log_mean, bounded_log_r(self.log_r)))
        return torch.from_numpy(_cdf(np.floor(v), m, log_r)).to(self.log_mean)

    def sample(self, noise: Noise) -> Float[Tensor, "*samples obs features"]:
        """One draw of every entry."""
        return drawn_counts(self.log_mean.expand(self.shape), bounded_log_r(self.log_r), noise)

    @property
    def shape(self) -> torch.Size:
        """(*samples, obs, features), as far as the parameters tell."""
        return torch.broadcast_shapes(self.parts.shape, self.log_r.shape)


def bounded_log_r(log_r: Float[Tensor, "..."]) -> Float[Tensor, "..."]:
    """log r within +-60."""
    return log_r.clamp(-LIMIT, LIMIT)


def _cdf(x: np.ndarray, m: np.ndarray, log_r: np.ndarray) -> np.ndarray:
    """P(X <= x) at whole x; the Poisson's where r > e**25, beyond the reach of the incomplete beta function."""
    at = np.maximum(x, 0.0)
    beta = scipy.special.betaincc(at + 1, np.exp(np.minimum(log_r, 25.0)), scipy.special.expit(m - log_r))
    value = np.where(log_r > 25.0, scipy.special.pdtr(at, np.exp(m)), beta)
    return np.where(x < 0, 0.0, value)


class _LogProb(torch.autograd.Function):
    """log p(x) of a matrix of rows; log_r is (features,) or (rows, features)."""

    @staticmethod
    def forward(ctx: Any, m: Tensor, log_r: Tensor, x: SparseCounts) -> Tensor:
        need_m, need_r = ctx.needs_input_grad[:2]
        log_r, flat = bounded_log_r(log_r), x.flat
        r, a = log_r.exp(), m - log_r
        sp = softplus(a)
        at = nonzeros(m, log_r, x, flat, slope=need_r)
        clear(sp, flat, x.value)  # the atoms have it all
        log_p = wide((sp @ r if r.dim() == 1 else (sp * r).sum(-1)).neg_())
        log_p.index_add_(0, x.row, at.log_p)
        if need_m or need_r:
            kept = sp if need_r else sp.new_empty(0)
            ctx.save_for_backward(a.sigmoid_(), kept, r, at.lift, at.slope, flat, x.row, x.column)
        return log_p.to(m.dtype)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, Tensor | None, None]:
        sg, sp, r, lift, slope, flat, row, column = ctx.saved_tensors
        need_m, need_r = ctx.needs_input_grad[:2]
        at_row = grad.index_select(0, row)
        grad_m = grad_log_r = None
        if need_r and r.dim() == 1:
            grad_log_r = (grad @ sg).sub_(grad @ sp).mul_(r).index_add_(0, column, (at_row * slope).to(grad.dtype))
        elif need_r:
            grad_log_r = sg.sub(sp).mul_(r).mul_(grad.unsqueeze(-1))
            add(grad_log_r, flat, at_row * slope)
        if need_m:
            grad_m = (sg * grad.neg().unsqueeze(-1)).mul_(r)
            add(grad_m, flat, at_row * lift)
        return grad_m, grad_log_r, None


class NonZeros(NamedTuple):
    """One number per non-zero, 0 where padded."""

    log_p: Float[Tensor, "capacity"]  # log p(x), in wide precision
    lift: Float[Tensor, "capacity"]  # the gradient in m, but for - r sigmoid(a)
    slope: Float[Tensor, "..."]  # the gradient in log r, but for + r sigmoid(a); empty unless asked for


class _Dispersion(NamedTuple):
    """Functions of r alone, the first three in wide precision."""

    log_r: Tensor
    r: Tensor
    stretch: Tensor  # log((r + 8) / r)
    rest: Tensor  # what is left of log Gamma(r), negative: log(product) - tail
    slope: Tensor  # digamma(r) - log(r + 8)

    @classmethod
    def of(cls, log_r: Tensor) -> "_Dispersion":
        w = wide(log_r)
        r = w.exp()
        low = stirling(r.to(log_r.dtype), slope=True)
        return cls(w, r, torch.log1p(SHIFT / r), low.product.log().sub_(low.tail), low.slope)


def nonzeros(
    m: Float[Tensor, "rows features"], log_r: Tensor, x: SparseCounts, flat: Int[Tensor, "capacity"], *, slope: bool
) -> NonZeros:
    """log p(x) and its gradients at the non-zeros; what grows with x or r is kept wide, the small parts are not."""
    if log_r.dim() == 1:
        d = _Dispersion(*(part.index_select(0, x.column) for part in _Dispersion.of(log_r)))
    else:
        d = _Dispersion.of(take(log_r, flat))
    v, log_p = wide(x.value), wide(take(m, flat))
    sp = softplus(log_p - d.log_r, threshold=WIDE)
    growth = torch.div(v, d.r + SHIFT).log1p_()
    log_p.sub_(sp).add_(d.stretch).mul_(v).addcmul_(d.r, sp, value=-1)
    log_p.addcmul_(growth, (v - 0.5).add_(d.r)).addcmul_((v + (1 + SHIFT)).log_(), v + 0.5, value=-1)

    high = stirling((v + d.r).to(m.dtype), slope=slope)
    factorial = stirling(x.value + 1, slope=False)
    rest = factorial.product.div_(high.product).log_().add_(high.tail).sub_(factorial.tail).add_(d.rest)
    counted = (x.value > 0).to(m.dtype)
    log_p.add_(rest).add_(1 + SHIFT - HALF_LOG_2PI).mul_(counted)

    lift = sp.to(m.dtype, copy=True).neg_().exp_().mul_(x.value)
    if not slope:
        return NonZeros(log_p, lift, high.slope)
    rate = growth.sub_(sp).mul_(d.r).to(m.dtype)
    return NonZeros(log_p, lift, high.slope.sub_(d.slope).mul_(d.r).add_(rate).sub_(lift).mul_(counted))
