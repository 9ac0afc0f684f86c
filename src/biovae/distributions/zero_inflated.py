"""Negative binomial counts of which some were replaced by zeros, scored where they are not zero.

    m    log mean of the counts         (*samples, obs, features)
    r    inverse dispersion
    g    logit of a replaced count      sigmoid(g) is its probability
    t    r softplus(m - log r)          -t is the log-probability that an NB count is zero
    u    g + t                          sigmoid(u) is the probability that a zero was a replaced count

    log p(0) = log(sigmoid(g) + sigmoid(-g) exp(-t)) = max(g, -t) + softplus(-|u|) - softplus(g)
    log p(x) = log NB(x) - softplus(g)

At a zero d log p / d t = -sigmoid(-u) and d log p / d g = sigmoid(u) - sigmoid(g); at a non-zero they are the negative
binomial's, and -sigmoid(g).

Source: Lopez et al. 2018, Nature Methods 15:1053, doi:10.1038/s41592-018-0229-2.
"""

from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor
from torch.autograd.function import once_differentiable
from torch.nn.functional import softplus

from biovae.batch import SparseCounts
from biovae.distributions.composition import Composition
from biovae.distributions.distribution import Distribution
from biovae.distributions.fused import composed_log_prob, fits
from biovae.distributions.negative_binomial import LIMIT, NegativeBinomial, NonZeros, bounded_log_r, nonzeros
from biovae.distributions.sparse import add, as_row, as_rows, as_sparse, clear, repeat, take, wide
from biovae.distributions.special import bounded
from biovae.kernels import kernel_fits
from biovae.noise import Noise


class ZeroInflatedNegativeBinomial(Distribution):
    """x = 0 with probability sigmoid(g), else x ~ NB(mean, r).

    Args:
        log_mean: m, or its parts.
        log_r: Whatever broadcasts to m, kept within +-60.
        gate_logits: g, whatever broadcasts to m.
    """

    def __init__(
        self,
        log_mean: Float[Tensor, "*samples obs features"] | Composition,
        log_r: Float[Tensor, "..."],
        gate_logits: Float[Tensor, "..."],
    ) -> None:
        self.counts = NegativeBinomial(log_mean, log_r)
        self.gate_logits = gate_logits

    @property
    def mean(self) -> Float[Tensor, "*samples obs features"]:
        """sigmoid(-g) times the mean of the counts."""
        return torch.sigmoid(-self.gate_logits) * self.counts.mean

    @property
    def variance(self) -> Float[Tensor, "*samples obs features"]:
        """sigmoid(-g) (variance of the counts + sigmoid(g) mean**2)."""
        mean, gate = self.counts.mean, torch.sigmoid(self.gate_logits)
        return torch.sigmoid(-self.gate_logits) * (self.counts.variance + gate * mean.square())

    def log_prob(self, x: SparseCounts | Float[Tensor, "obs features"]) -> Float[Tensor, "*samples obs"]:
        """log p(x), in nats, summed over features."""
        x, mean, log_r, gate = as_sparse(x), self.counts.parts, self.counts.log_r, self.gate_logits
        whole = isinstance(mean, Composition) and gate.shape == mean.logits.shape
        if isinstance(mean, Composition) and whole and kernel_fits(gate) and fits(mean, log_r, x):
            return composed_log_prob(mean, bounded(log_r, -LIMIT, LIMIT), x, gate)
        shape = torch.broadcast_shapes(self.counts.shape, self.gate_logits.shape, x.shape)
        m, g = as_rows(self.counts.log_mean, shape), as_rows(self.gate_logits, shape)
        return _LogProb.apply(m, as_row(self.counts.log_r, shape), g, repeat(x, len(m))).view(shape[:-1])

    def log_prob_each(self, x: Float[Tensor, "obs features"]) -> Float[Tensor, "*samples obs features"]:
        """log p(x) of every entry of a dense x."""
        g, log_p = wide(self.gate_logits), wide(self.counts.log_prob_each(x))
        log_p = torch.where(x > 0, log_p, torch.logaddexp(g, log_p)) - softplus(g)
        return log_p.to(self.gate_logits.dtype)

    def cdf(self, x: Float[Tensor, "obs features"]) -> Float[Tensor, "*samples obs features"]:
        """P(X <= x)."""
        g = self.gate_logits.detach()
        return torch.sigmoid(g) * (x >= 0) + torch.sigmoid(-g) * self.counts.cdf(x)

    def sample(self, noise: Noise) -> Float[Tensor, "*samples obs features"]:
        """Counts, some of them replaced by zeros."""
        counts, gate = torch.broadcast_tensors(self.counts.sample(noise), torch.sigmoid(self.gate_logits))
        return counts * (noise.uniform(*gate.shape, dtype=gate.dtype) >= gate)


class _LogProb(torch.autograd.Function):
    """log p(x) of a matrix of rows; log_r is (features,) or (rows, features). Gradients are finished in forward."""

    @staticmethod
    def forward(ctx: Any, m: Tensor, log_r: Tensor, g: Tensor, x: SparseCounts) -> Tensor:
        log_r, flat = bounded_log_r(log_r), x.flat
        atoms = nonzeros(m, log_r, x, flat, slope=ctx.needs_input_grad[1])
        r, a = log_r.exp(), m - log_r
        sp = softplus(a)
        t = sp * r
        u = g + t
        zero = torch.maximum(g, t.neg_()).add_(softplus(u.abs().neg_()))
        clear(zero, flat, x.value)
        log_p = wide(zero.sub_(softplus(g)).sum(-1)).index_add_(0, x.row, atoms.log_p)
        if any(ctx.needs_input_grad):
            ctx.save_for_backward(*_gradients(ctx.needs_input_grad, (a, sp, r, g, u), x, flat, atoms))
            ctx.per_feature = log_r.dim() == 1
        return log_p.to(m.dtype)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        grad_m, grad_log_r, grad_g = ctx.saved_tensors
        per_row = grad.unsqueeze(-1)
        if grad_log_r is not None:
            grad_log_r = grad @ grad_log_r if ctx.per_feature else per_row * grad_log_r
        scaled = (None if part is None else per_row * part for part in (grad_m, grad_g))
        return next(scaled), grad_log_r, next(scaled), None


def _gradients(
    need: tuple[bool, ...],
    dense: tuple[Tensor, Tensor, Tensor, Tensor, Tensor],
    x: SparseCounts,
    flat: Int[Tensor, "capacity"],
    atoms: NonZeros,
) -> tuple[Tensor | None, Tensor | None, Tensor | None]:
    """d log p / d m, d log r, d g of every entry."""
    a, sp, r, g, u = dense
    grad_m = grad_log_r = grad_g = None
    clear(sp, flat, x.value)
    if need[2]:
        grad_g = torch.sigmoid(u)
        clear(grad_g, flat, x.value)
        grad_g.sub_(torch.sigmoid(g))
    weight = torch.sigmoid(u.neg_())  # of a count, had it been one: 1 at the non-zeros
    add(weight, flat, (1 - take(weight, flat)).mul_(x.value > 0))
    weight.mul_(r)
    sg = a.sigmoid_()
    if need[0]:
        grad_m = (sg * weight).neg_()
        add(grad_m, flat, atoms.lift)
    if need[1]:
        grad_log_r = sg.sub_(sp).mul_(weight)
        add(grad_log_r, flat, atoms.slope)
    return grad_m, grad_log_r, grad_g
