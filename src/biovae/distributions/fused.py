"""Counts of a composition in one pass: softmax, score and gradients while a row is in the cache."""

from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor
from torch.autograd.function import once_differentiable

from biovae.batch import SparseCounts
from biovae.distributions.composition import Composition
from biovae.kernels import kernel_fits, run_kernel


def fits(mean: Composition, log_r: Float[Tensor, "..."], x: SparseCounts) -> bool:
    """Whether the kernel can score x: single precision on a CPU, logits of every entry, one dispersion per feature."""
    whole = mean.logits.shape[-2:] == x.shape and mean.exposure.dim() <= mean.logits.dim()
    per_feature = log_r.numel() == log_r.shape[-1] == x.shape[1]
    return whole and per_feature and kernel_fits(mean.logits, mean.exposure, log_r)


def composed_log_prob(mean: Composition, log_r: Float[Tensor, "..."], x: SparseCounts) -> Float[Tensor, "*samples obs"]:
    """log p(x) of negative binomial counts, summed over features; log_r within the bounds of `NegativeBinomial`."""
    logits, exposure = _rows(mean)
    return _LogProb.apply(logits, exposure, log_r.reshape(-1), (x, mean.share)).view(mean.logits.shape[:-1])


def composed_zero_inflated(
    mean: Composition, log_r: Float[Tensor, "..."], gate: Float[Tensor, "..."], x: SparseCounts
) -> Float[Tensor, "*samples obs"]:
    """The same of zero-inflated counts; g is of the shape of the logits."""
    logits, exposure = _rows(mean)
    gate = gate.reshape(logits.shape).contiguous()
    return _ZeroInflated.apply(logits, exposure, log_r.reshape(-1), gate, (x, mean.share)).view(mean.logits.shape[:-1])


def _rows(mean: Composition) -> tuple[Float[Tensor, "rows features"], Float[Tensor, "rows"]]:
    """Samples and observations as rows of a matrix, and the exposure of each."""
    *rows, features = mean.logits.shape
    return mean.logits.reshape(-1, features).contiguous(), mean.exposure.expand(*rows, 1).reshape(-1)


class _LogProb(torch.autograd.Function):
    """Gradients are finished in forward, but for the weight of each row; that of the logits is weighted in place.

    So there is one backward pass: torch refuses a second one, because what was saved has changed.
    """

    @staticmethod
    def forward(ctx: Any, logits: Tensor, exposure: Tensor, log_r: Tensor, scored: tuple[SparseCounts, bool]) -> Tensor:
        from biovae.kernels.counts import negative_binomial

        x, share = scored
        slopes = any(ctx.needs_input_grad)
        entries = (x.row.numpy(), x.column.numpy(), x.value.numpy())
        found = run_kernel(negative_binomial, logits, exposure, log_r, entries, x.shape[0], share, slopes)
        log_p, in_logits, in_log_r, in_log_exposure = (torch.from_numpy(part) for part in found)
        if slopes:
            ctx.save_for_backward(in_logits, in_log_r, in_log_exposure / exposure)
        return log_p.to(logits.dtype)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        in_logits, in_log_r, in_exposure = ctx.saved_tensors
        need_logits, need_exposure, need_log_r = ctx.needs_input_grad[:3]
        return (
            in_logits.mul_(grad.unsqueeze(-1)) if need_logits else None,
            in_exposure * grad if need_exposure else None,
            grad @ in_log_r if need_log_r else None,
            None,
        )


class _ZeroInflated(torch.autograd.Function):
    """As `_LogProb`."""

    @staticmethod
    def forward(
        ctx: Any, logits: Tensor, exposure: Tensor, log_r: Tensor, gate: Tensor, scored: tuple[SparseCounts, bool]
    ) -> Tensor:
        from biovae.kernels.zero_inflated import zero_inflated

        x, share = scored
        entries = (x.row.numpy(), x.column.numpy(), x.value.numpy())
        found = run_kernel(zero_inflated, logits, exposure, log_r, gate, entries, x.shape[0], share)
        log_p, *slopes, in_log_exposure = (torch.from_numpy(part) for part in found)
        ctx.save_for_backward(*slopes, in_log_exposure / exposure)
        return log_p.to(logits.dtype)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        in_logits, in_log_r, in_gate, in_exposure = ctx.saved_tensors
        need_logits, need_exposure, need_log_r, need_gate = ctx.needs_input_grad[:4]
        return (
            in_logits.mul_(grad.unsqueeze(-1)) if need_logits else None,
            in_exposure * grad if need_exposure else None,
            grad @ in_log_r if need_log_r else None,
            in_gate.mul_(grad.unsqueeze(-1)) if need_gate else None,
            None,
        )
