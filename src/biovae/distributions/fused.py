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
    *rows, features = mean.logits.shape
    logits, exposure = mean.logits.reshape(-1, features).contiguous(), mean.exposure.expand(*rows, 1).reshape(-1)
    gate = None if gate is None else gate.reshape(-1, features).contiguous()
    return _LogProb.apply(logits, exposure, log_r.reshape(-1), gate, (x, mean.share)).view(rows)


class _LogProb(torch.autograd.Function):
    """Gradients are finished in forward, but for the weight of each row; those of matrices are weighted in place.

    So there is one backward pass: torch refuses a second one, because what was saved has changed.
    """

    @staticmethod
    def forward(
        ctx: Any,
        logits: Tensor,
        exposure: Tensor,
        log_r: Tensor,
        gate: Tensor | None,
        scored: tuple[SparseCounts, bool],
    ) -> Tensor:
        x, share = scored
        entries = (x.row.numpy(), x.column.numpy(), x.value.numpy())
        slopes = any(ctx.needs_input_grad)
        if gate is None:
            from biovae.kernels.counts import negative_binomial

            found = run_kernel(negative_binomial, logits, exposure, log_r, entries, x.shape[0], share, slopes)
        else:
            from biovae.kernels.zero_inflated import zero_inflated

            found = run_kernel(zero_inflated, logits, exposure, log_r, gate, entries, x.shape[0], share)
        log_p, in_log_exposure, *in_matrices = (torch.from_numpy(part) for part in found)
        if slopes:
            ctx.save_for_backward(in_log_exposure / exposure, *in_matrices)
        return log_p.to(logits.dtype)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        in_exposure, in_logits, in_log_r, *in_gate = ctx.saved_tensors
        need_logits, need_exposure, need_log_r, need_gate = ctx.needs_input_grad[:4]
        per_row = grad.unsqueeze(-1)
        return (
            in_logits.mul_(per_row) if need_logits else None,
            in_exposure * grad if need_exposure else None,
            grad @ in_log_r if need_log_r else None,
            in_gate[0].mul_(per_row) if need_gate else None,
            None,
        )
