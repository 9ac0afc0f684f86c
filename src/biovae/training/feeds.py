"""Feeds: how the rows of a minibatch reach the step.

    Direct      rows are gathered where the network is, step by step: a CPU, or a device that cannot capture
    Captured    gather and step are one CUDA graph, replayed (see `captured`)
    Streamed    rows are gathered in the host's memory by a thread, ahead of a device that cannot hold them all

A feed is made for one `Step`, hears of every epoch's minibatches, and is called once for each of them.
"""

from abc import ABC, abstractmethod
from collections.abc import Sequence

from jaxtyping import Int
from torch import Tensor

from biovae.batch import Observations
from biovae.noise import Noise
from biovae.training.step import Step

Moment = tuple[int, int]  # epoch and step: with the seed, the key of every draw


class Feed(ABC):
    """See the head of this file."""

    @staticmethod
    def batches(rows: int, size: int) -> int:
        """Minibatches per epoch: the remainder is spread over them, so that none is tiny."""
        return max(1, round(rows / size))

    def cut(self, order: Int[Tensor, "rows"], size: int) -> Sequence[Int[Tensor, "obs"]]:
        """The minibatches of an epoch."""
        return order.tensor_split(self.batches(len(order), size))

    def begin(self, parts: Sequence[Int[Tensor, "obs"]]) -> None:  # noqa: B027 - most feeds need not know
        """Hear what is to come, in order, until the next `begin`."""

    @abstractmethod
    def __call__(self, index: Int[Tensor, "obs"], moment: Moment) -> None:
        """Take a step on these rows."""

    def end(self) -> None:  # noqa: B027 - most feeds have nothing to put away
        """Let go of what `begin` has started."""


class Direct(Feed):
    """Gather, then step."""

    def __init__(self, step: Step, observations: Observations, noise: Noise) -> None:
        self.step, self.observations, self.noise = step, observations, noise

    def __call__(self, index: Int[Tensor, "obs"], moment: Moment) -> None:
        """See `Feed`."""
        self.step(self.observations.batch(index), self.noise.at(*moment))
