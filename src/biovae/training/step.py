"""One step of training: terms of the bound, objective, gradient, guard, AdamW. Nothing in it waits for a device.

A step whose loss or gradient is not finite is undone where it happens: the optimiser is told to leave weights and
moments alone, buffers are put back, the rate is halved. The host reads the tally when it likes.
"""

import math
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import NamedTuple

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from biovae.batch import Batch
from biovae.network import Network
from biovae.noise import Noise
from biovae.objective import Objective, elbo
from biovae.training.adamw import AdamW, Group


@dataclass(frozen=True)
class Settings:
    """Numbers of the optimiser, chosen from the size of the data by `plan.settings`."""

    batch_size: int
    rate: float
    weight_decay: float = 1e-3
    betas: tuple[float, float] = (0.9, 0.99)
    clip: float = 100.0  # norm of the gradient per square root of an observation, in nats
    steps_between: int = 10  # optimiser steps between evaluations, at least one epoch


class Tally(NamedTuple):
    """What happened since the last look."""

    bound: float  # of the good steps at beta 1, summed over their observations
    observations: float  # of the good steps
    bad: float  # steps that were undone
    in_a_row: float  # of them, up to the last step
    most_in_a_row: float
    loss: float  # of the last step


class Step:
    """The step of one run: its optimiser, and a tally on the device.

    The learning rate and the weight of the KL are numbers on the device, so that a captured step reads them anew.

    Args:
        network: Trained in place.
        objective: What is maximised.
        settings: Numbers of the optimiser.
    """

    def __init__(self, network: Network, objective: Objective, settings: Settings) -> None:
        self.network, self.objective, self.clip = network, objective, settings.clip
        self.parameters = list(network.parameters())
        self.buffers = [b for b in network.buffers() if b.is_floating_point()]
        self.device = self.parameters[0].device
        self._rate, self._weight, self._in_force = (torch.zeros((), device=self.device) for _ in range(3))
        self._scale = torch.ones((), device=self.device)
        self.optimiser = _optimiser(network, settings)
        # Apple's devices have no float64; the sums of a few minibatches do without.
        wide = torch.float32 if self.device.type == "mps" else torch.float64
        self._tally = torch.zeros(len(Tally._fields), dtype=wide, device=self.device)

    def aim(self, rate: float, weight: float) -> None:
        """Set the learning rate and the weight of the KL of the steps to come."""
        self._rate.fill_(rate)
        self._weight.fill_(weight)

    def __call__(self, batch: Batch, noise: Noise) -> None:
        """Take a step."""
        network, objective = self.network, self.objective
        before = [b.clone() for b in self.buffers]
        self.optimiser.zero_grad()
        terms = network.terms(
            batch,
            noise,
            samples=objective.samples,
            train=True,
            doubly=objective.doubly,
            densities=objective.densities,
        )
        loss = -objective(terms, self._weight).mean()
        if terms.lesson is not None:
            loss = loss + terms.lesson.mean()
        loss.backward()
        with torch.no_grad():
            slopes = [w.grad for w in self.parameters if w.grad is not None]
            norm = torch.stack(torch._foreach_norm(slopes)).norm()
            excess = norm / (self.clip * math.sqrt(len(batch)))
            bound = elbo(terms).sum()
            if self.device.type == "cpu" and math.isfinite(float(norm + loss)):  # on a CPU looking is free
                self._move(float(excess))
                self._count_good(float(bound), len(batch), float(loss))
                return
            bad = (norm + loss).isfinite().logical_not_()
            self._guard(bad, excess, before)
            self._count(bad, torch.where(bad, 0, bound), len(batch), loss)

    def _move(self, excess: float) -> None:
        """AdamW; a gradient longer than the limit by the factor `excess` is scaled down."""
        self._in_force.copy_(self._rate * self._scale)
        # To divide by 1 would be a pass over the gradients for nothing.
        self.optimiser.step(self._in_force, excess=None if excess <= 1 else torch.tensor(excess))

    def _guard(self, bad: Bool[Tensor, ""], excess: Float[Tensor, ""], before: list[Tensor]) -> None:
        """The same where nobody waits for the device: after a `bad` step nothing has moved and the rate is halved."""
        self._in_force.copy_(self._rate * self._scale)
        self.optimiser.step(self._in_force, bad=bad.float(), excess=excess.clamp(min=1))
        self._scale.mul_(1 - 0.5 * bad)
        for buffer, value in zip(self.buffers, before, strict=True):
            buffer.copy_(torch.where(bad, value, buffer))

    def _count_good(self, bound: float, observations: int, loss: float) -> None:
        t = self._tally.numpy()
        t[0] += bound
        t[1] += observations
        t[3], t[5] = 0, loss

    def _count(self, bad: Tensor, bound: Tensor, observations: int, loss: Tensor) -> None:
        t = self._tally
        in_a_row = (t[3] + 1) * bad
        new = (t[0] + bound, t[1] + observations * ~bad, t[2] + bad, in_a_row, torch.maximum(t[4], in_a_row), loss)
        t.copy_(torch.stack([value.to(t.dtype) for value in new]))

    def look(self) -> Tally:
        """The tally since the last look; only this waits for the device. What it says no longer halves the rate."""
        found = Tally(*self._tally.tolist())
        self.begin(in_a_row=found.in_a_row)
        return found

    def begin(self, in_a_row: float = 0) -> None:
        """Start the tally anew, with so many bad steps just behind."""
        self._tally.zero_()
        self._tally[3:5] = in_a_row
        self._scale.fill_(1)

    @contextmanager
    def rehearsal(self) -> Iterator[None]:
        """Inside every step is a bad one, and afterwards none has been: what a step needs is then allocated."""
        kept = [t.clone() for t in (self._weight, self._tally, self._scale)]
        self._weight.fill_(math.nan)
        try:
            yield
        finally:
            for tensor, value in zip((self._weight, self._tally, self._scale), kept, strict=True):
                tensor.copy_(value)

    def restore(self, moments: dict[int, dict[str, Tensor]]) -> None:
        """Put back the state of the optimiser."""
        self.optimiser.restore(moments)


def _optimiser(network: Network, settings: Settings) -> AdamW:
    """AdamW; vectors (biases, norms, dispersions) are not decayed."""
    matrices = [w for w in network.parameters() if w.dim() > 1]
    vectors = [w for w in network.parameters() if w.dim() <= 1]
    return AdamW([Group(matrices, settings.weight_decay), Group(vectors, 0.0)], settings.betas)
