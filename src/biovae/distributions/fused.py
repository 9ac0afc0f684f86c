"""Counts of a composition in one pass over its rows on a CPU: softmax, score and gradients, by compiled loops.

Gradients are finished in the forward pass, as if every row weighed 1: in the bound of a minibatch all rows weigh the
same, and one number is then all that backward has to add. Where they do not, the loop runs again with their weights.
Given the linear map instead of the logits, its backward products are taken in bfloat16 where the CPU has them: their
factors are gradients of a random minibatch, and lose three digits of what they never had. Everything else is float32.
"""

from typing import Any, NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor
from torch.autograd.function import once_differentiable

from biovae.batch import SparseCounts
from biovae.distributions.composition import Affine, Composition, plainly_shaped
from biovae.kernels import HALF_PRECISION, has_bfloat16, kernel_fits, run_kernel

FEW = 256  # features below which a product in half precision saves nothing


def fits(mean: Composition, log_r: Float[Tensor, "..."], x: SparseCounts) -> bool:
    """Whether the loop can score x: single precision on a CPU, logits of every entry, one dispersion per feature."""
    return plainly_shaped(mean, log_r, x) and kernel_fits(*mean.tensors, log_r)


def composed_log_prob(
    mean: Composition, log_r: Float[Tensor, "..."], x: SparseCounts, gate: Float[Tensor, "..."] | None = None
) -> Float[Tensor, "*samples obs"]:
    """log p(x), summed over features.

    Args:
        mean: Of the counts.
        log_r: One per feature, within the bounds of `NegativeBinomial`.
        x: The counts.
        gate: Logit of a count being replaced by 0, in the shape of the logits; None where none is.
    """
    *rows, features = mean.rows
    exposure, log_r = mean.exposure.expand(*rows, 1).reshape(-1), log_r.reshape(-1)
    if gate is None and isinstance(mean.given, Affine):
        h, weight, bias = mean.given
        return _OfMap.apply(h.flatten(0, -2), weight, bias, exposure, log_r, (x, mean.share)).view(rows)
    logits = mean.logits.reshape(-1, features).contiguous()
    if gate is None:
        return _OfLogits.apply(logits, exposure, log_r, (x, mean.share)).view(rows)
    gate = gate.reshape(-1, features).contiguous()
    return _ZeroInflated.apply(logits, exposure, log_r, gate, (x, mean.share)).view(rows)


class _Given(NamedTuple):
    """What is scored, and under what."""

    logits: Float[Tensor, "rows features"]
    exposure: Float[Tensor, "rows"]
    log_r: Float[Tensor, "features"]
    x: SparseCounts
    share: bool


class _Scored(NamedTuple):
    """What `kernels.counts.negative_binomial` gives, and the gradient in the logits."""

    log_p: Float[Tensor, "rows"]
    in_log_exposure: Float[Tensor, "rows"]
    in_log_r: Float[Tensor, "features"]
    in_bias: Float[Tensor, "features"]
    in_logits: Float[Tensor, "rows features"]


def _score(given: _Given, weight: Float[Tensor, "rows"], kind: torch.dtype) -> _Scored:
    """Run the loop; `kind` is the precision of the gradient in the logits, or bool where none is wanted."""
    from biovae.kernels.counts import negative_binomial

    logits, exposure, log_r, x, share = given
    entries = (x.row.numpy(), x.column.numpy(), x.value.numpy())
    shape = (0, 0) if kind == torch.bool else tuple(logits.shape)
    out = torch.empty(shape, dtype=torch.uint16 if kind == torch.bfloat16 else torch.float32)
    found = run_kernel(negative_binomial, logits, exposure, log_r, weight, entries, x.shape[0], share, out)
    log_p, pull, in_log_r, in_bias = map(torch.from_numpy, found)
    return _Scored(log_p, pull, in_log_r, in_bias, out.view(torch.bfloat16) if kind == torch.bfloat16 else out)


def _same(weight: Float[Tensor, "rows"]) -> bool:
    return bool((weight == weight[:1]).all())


class _OfMap(torch.autograd.Function):
    """log p(x) where the logits are h W' + b."""

    @staticmethod
    def forward(  # noqa: PLR0913
        ctx: Any, h: Tensor, weight: Tensor, bias: Tensor, exposure: Tensor, log_r: Tensor, scored: Any
    ) -> Tensor:
        kind = _precision(len(bias)) if any(ctx.needs_input_grad) else torch.bool
        logits = torch.addmm(bias, h, weight.T)
        found = _score(_Given(logits, exposure, log_r, *scored), torch.ones_like(exposure), kind)
        ctx.save_for_backward(h, weight, bias, exposure, log_r, *found[1:])
        ctx.scored = scored
        return found.log_p.to(h.dtype)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        h, weight, bias, exposure, log_r, pull, in_log_r, in_bias, slope = ctx.saved_tensors
        by = grad[:1]
        if not _same(grad):
            logits, by = torch.addmm(bias, h, weight.T), torch.ones(1)
            again = _score(_Given(logits, exposure, log_r, *ctx.scored), grad.contiguous(), slope.dtype)
            in_log_r, in_bias, slope = again[2:]
        in_h = (slope @ weight.to(slope.dtype)).float().mul_(by)
        in_weight = (slope.T @ (h * by).to(slope.dtype)).float()
        return in_h, in_weight, in_bias * by, pull / exposure * grad, in_log_r * by, None


def _precision(features: int) -> torch.dtype:
    half = HALF_PRECISION.on and has_bfloat16() and features >= FEW
    return torch.bfloat16 if half else torch.float32


class _OfLogits(torch.autograd.Function):
    """log p(x) where the logits are given.

    There is one backward pass: torch refuses a second one, because what was saved has been weighted in place.
    """

    @staticmethod
    def forward(ctx: Any, logits: Tensor, exposure: Tensor, log_r: Tensor, scored: Any) -> Tensor:
        kind = torch.float32 if any(ctx.needs_input_grad) else torch.bool
        found = _score(_Given(logits, exposure, log_r, *scored), torch.ones_like(exposure), kind)
        ctx.save_for_backward(logits, exposure, log_r, found.in_log_exposure, found.in_log_r, found.in_logits)
        ctx.scored = scored
        return found.log_p.to(logits.dtype)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        logits, exposure, log_r, pull, in_log_r, in_logits = ctx.saved_tensors
        if _same(grad):
            in_log_r = in_log_r * grad[:1]
        else:
            again = _score(_Given(logits, exposure, log_r, *ctx.scored), grad.contiguous(), torch.float32)
            in_log_r = again.in_log_r
        return in_logits.mul_(grad.unsqueeze(-1)), pull / exposure * grad, in_log_r, None


class _ZeroInflated(torch.autograd.Function):
    """log p(x) where a share of the counts is replaced by zeros; one backward pass, as in `_OfLogits`."""

    @staticmethod
    def forward(
        ctx: Any, logits: Tensor, exposure: Tensor, log_r: Tensor, gate: Tensor, scored: tuple[SparseCounts, bool]
    ) -> Tensor:
        from biovae.kernels.zero_inflated import zero_inflated

        x, share = scored
        entries = (x.row.numpy(), x.column.numpy(), x.value.numpy())
        found = run_kernel(zero_inflated, logits, exposure, log_r, gate, entries, x.shape[0], share)
        log_p, pull, *in_matrices = map(torch.from_numpy, found)
        ctx.save_for_backward(pull / exposure, *in_matrices)
        return log_p.to(logits.dtype)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        in_exposure, in_logits, in_log_r, in_gate = ctx.saved_tensors
        per_row = grad.unsqueeze(-1)
        return in_logits.mul_(per_row), in_exposure * grad, grad @ in_log_r, in_gate.mul_(per_row), None
