"""AdamW in one pass over the weights.

    m = b1 m + (1 - b1) g          v = b2 v + (1 - b2) g**2
    w = w - rate decay w - rate (m / (1 - b1**t)) / (sqrt(v / (1 - b2**t)) + eps)

The pass is torch's own, the one that `torch.optim.AdamW(fused=True)` takes. To make an object of that class imports
torch's compiler, which costs more than a second in every process that fits.

Source: Loshchilov and Hutter 2019, ICLR, arXiv:1711.05101.
"""

from collections.abc import Sequence
from typing import NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor, nn

EPS = 1e-8


class Group(NamedTuple):
    """Weights that decay alike, per step in units of the rate."""

    weights: Sequence[nn.Parameter]
    decay: float


class _Moments(NamedTuple):
    """Of one weight: t, m, v."""

    step: Float[Tensor, ""]
    exp_avg: Float[Tensor, "..."]
    exp_avg_sq: Float[Tensor, "..."]


class AdamW:
    """The optimiser of a run.

    Args:
        groups: What is trained; a weight without a gradient stays as it is.
        betas: b1 and b2.
    """

    def __init__(self, groups: Sequence[Group], betas: tuple[float, float]) -> None:
        self.groups, self.betas = groups, betas
        self._steps = [torch.zeros(len(group.weights), device=_device(group)) for group in groups]
        self._of: dict[Tensor, _Moments] = {
            w: _Moments(t, torch.zeros_like(w), torch.zeros_like(w))
            for group, steps in zip(groups, self._steps, strict=True)
            for w, t in zip(group.weights, steps.unbind(), strict=True)
        }

    def zero_grad(self) -> None:
        """Forget the gradients."""
        for w in self._of:
            w.grad = None

    @torch.no_grad()
    def step(
        self,
        rate: float | Float[Tensor, ""],
        bad: Float[Tensor, ""] | None = None,
        excess: Float[Tensor, ""] | None = None,
    ) -> None:
        """Move the weights.

        Args:
            rate: The learning rate.
            bad: Where it is 1 nothing moves, and t stays.
            excess: Gradients are divided by it.
        """
        for group, steps in zip(self.groups, self._steps, strict=True):
            moving: list[Tensor] = [w for w in group.weights if w.grad is not None]
            if not moving:
                continue
            slopes = [w.grad for w in moving if w.grad is not None]
            t, m, v = (list(part) for part in zip(*(self._of[w] for w in moving), strict=True))
            all_move = len(moving) == len(group.weights)  # as a rule: then one addition does
            steps.add_(1) if all_move else torch._foreach_add_(t, 1)
            torch._fused_adamw_(
                moving, slopes, m, v, [], t,
                lr=torch.as_tensor(rate), beta1=self.betas[0], beta2=self.betas[1], weight_decay=group.decay, eps=EPS,
                amsgrad=False, maximize=False, grad_scale=excess, found_inf=bad,
            )  # fmt: skip
            if bad is not None:
                torch._foreach_sub_(t, [bad] * len(t))

    def state(self) -> dict[int, dict[str, Tensor]]:
        """t, m and v of every weight, by its number."""
        return {i: m._asdict() | {"step": m.step.clone()} for i, m in enumerate(self._of.values())}

    def restore(self, state: dict[int, dict[str, Tensor]]) -> None:
        """Put back what `state` gave."""
        for i, moments in enumerate(self._of.values()):
            for name, value in state.get(i, {}).items():
                getattr(moments, name).copy_(value)


def _device(group: Group) -> torch.device | None:
    return group.weights[0].device if group.weights else None
