"""Counts of a composition on a CUDA device: the kernels of `kernels.triton_counts` as one autograd function."""

import warnings
from functools import cache
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor
from torch.autograd.function import once_differentiable
from torch.nn.functional import softplus

from biovae.batch import SparseCounts
from biovae.distributions.composition import Composition, plainly_shaped
from biovae.distributions.sparse import repeat
from biovae.kernels import LOOPS


def fits_gpu(mean: Composition, log_r: Float[Tensor, "..."], x: SparseCounts) -> bool:
    """Whether the kernels can score x: single precision on a CUDA device, logits of every entry, log r per feature."""
    single = all(t.dtype == torch.float32 for t in (*mean.tensors, log_r))
    wanted = LOOPS.on and log_r.device.type == "cuda" and single and plainly_shaped(mean, log_r, x)
    return wanted and trusted(log_r.device)


def composed_log_prob_gpu(
    mean: Composition, log_r: Float[Tensor, "..."], x: SparseCounts
) -> Float[Tensor, "*samples obs"]:
    """log p(x), summed over features; log r within the bounds of `NegativeBinomial`."""
    *rows, features = mean.logits.shape
    logits = mean.logits.reshape(-1, features).contiguous()
    exposure = mean.exposure.expand(*rows, 1).reshape(-1).contiguous()
    counts = repeat(x, len(logits))
    return _LogProb.apply(logits, exposure, log_r.reshape(-1).contiguous(), counts, mean.share).view(rows)


class _LogProb(torch.autograd.Function):
    """Forward keeps three numbers per row; backward makes the means again instead of reading them."""

    @staticmethod
    def forward(ctx: Any, logits: Tensor, exposure: Tensor, log_r: Tensor, x: SparseCounts, share: bool) -> Tensor:  # noqa: FBT001
        from biovae.kernels.triton_counts import score

        found = score(logits, exposure, log_r, (x.row, x.column, x.value), share=share)
        ctx.save_for_backward(logits, exposure, log_r, x.row, x.column, x.value, *found)
        ctx.share = share
        return found.log_p.to(logits.dtype)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        from biovae.kernels.triton_counts import Scored, gradients

        logits, exposure, log_r, *rest = ctx.saved_tensors
        entries, scored = tuple(rest[:3]), Scored(*rest[3:])
        in_logits, in_log_r = gradients(logits, exposure, log_r, entries, scored, grad.contiguous(), share=ctx.share)
        in_exposure = scored.pull / exposure * grad if ctx.needs_input_grad[1] else None
        return in_logits, in_exposure, in_log_r, None, None


@cache
def trusted(device: torch.device) -> bool:
    """Whether the kernels compile here and say what the formula says: tried once, and said where they do not."""
    try:
        error = max(_error(device, share=share) for share in (True, False))
    except Exception as reason:
        said = str(reason).splitlines()[:1]
    else:
        if error < 1e-3:
            return True
        said = [f"off by {error:.1g}"]
    warnings.warn(f"counts are scored by plain forms on {device}, slower: Triton failed there ({said}).", stacklevel=2)
    return False


def _error(device: torch.device, *, share: bool) -> float:
    """The largest relative error of scores and gradients on a few random counts."""
    draw, shape = torch.Generator().manual_seed(0), (6, 1504)
    logits, log_r = torch.randn(shape, generator=draw), torch.randn(shape[1], generator=draw)
    x = torch.poisson(torch.rand(shape, generator=draw), generator=draw) * (torch.rand(shape, generator=draw) < 0.1)
    exposure = x.sum(-1, keepdim=True) + 1
    logits = logits if share else logits - 8
    given = [t.to(device).requires_grad_() for t in (logits, exposure, log_r)]
    with torch.enable_grad():
        mean = Composition(given[0], given[1], share=share)
        score = composed_log_prob_gpu(mean, given[2], SparseCounts.from_dense(x.to(device)))
        wanted = [t.double().requires_grad_() for t in (logits, exposure, log_r)]
        m = wanted[1].log() + (wanted[0].log_softmax(-1) if share else wanted[0])
        r, a, v = wanted[2].exp(), m - wanted[2], x.double()
        log_p = torch.lgamma(v + r) - torch.lgamma(r) - torch.lgamma(v + 1) + v * (a - softplus(a)) - r * softplus(a)
    pairs = [(score.detach(), log_p.sum(-1).detach())]
    pairs += zip(torch.autograd.grad(score.sum(), given), torch.autograd.grad(log_p.sum(), wanted), strict=True)
    return max(float((a.cpu() - b).abs().max() / b.abs().max()) for a, b in pairs)
