"""The step as a CUDA graph: gather, encode, sample, decode, bound, backward and AdamW, recorded once and replayed.

Shapes must not change between replays. So minibatches are equal, another random remainder being left out in each epoch;
and sparse ones are padded to a capacity, looked up once per epoch: that look is all that the host waits for.
"""

import warnings
from collections.abc import Sequence

import torch
from jaxtyping import Int
from torch import Tensor

from biovae.batch import Observations
from biovae.noise import Noise
from biovae.training.feeds import Feed, Moment
from biovae.training.step import Step

REHEARSALS = 3  # torch chooses its algorithms and allocates in the first steps, which cannot be captured
ROOM = 1.05  # how much more than needed is kept free, so that the next epoch fits too


class Captured(Feed):
    """Replay the step on static memory.

    Args:
        step: On a CUDA device; elsewhere, as in a test, the same steps are taken without a graph.
        observations: On the same device; every modality present in every observation.
        noise: On the same device. One generator serves the graph, moved to each step's moment before it.
    """

    def __init__(self, step: Step, observations: Observations, noise: Noise) -> None:
        self.step, self.observations, self.noise = step, observations, noise.at(0)
        self.capacities: tuple[int, ...] = tuple(0 for _ in observations.x)
        self.index: Tensor = torch.zeros(0, dtype=torch.int64, device=noise.device)
        self.graph: torch.cuda.CUDAGraph | None = None
        self.captures = step.device.type == "cuda"

    @staticmethod
    def batches(rows: int, size: int) -> int:
        """Equal minibatches; who is left over is left out."""
        return max(1, rows // size)

    def cut(self, order: Int[Tensor, "rows"], size: int) -> Sequence[Int[Tensor, "obs"]]:
        """See `batches`."""
        size = min(size, len(order))
        return order[: len(order) // size * size].view(-1, size).unbind()

    def begin(self, parts: Sequence[Int[Tensor, "obs"]]) -> None:
        """Make room for the fullest minibatch."""
        needed = self.observations.capacities(torch.stack(tuple(parts)))
        if len(parts[0]) != len(self.index) or any(n > c for n, c in zip(needed, self.capacities, strict=True)):
            self.capacities = tuple(int(n * ROOM) for n in needed)
            self.index = torch.zeros_like(parts[0])
            self.graph = None

    def __call__(self, index: Int[Tensor, "obs"], moment: Moment) -> None:
        """See `Feed`."""
        self.index.copy_(index)
        if self.graph is None and self.captures:
            self.graph = self._record()
        self.noise.move(*moment)
        if self.graph is None:
            self._once()
        else:
            self.graph.replay()

    def _once(self) -> None:
        self.step(self.observations.batch(self.index, self.capacities), self.noise)

    def _record(self) -> "torch.cuda.CUDAGraph | None":
        """The graph; None, said once, where some part of this model cannot be captured."""
        try:
            return self._capture()
        except RuntimeError as error:
            self.captures = False
            reason = str(error).splitlines()[0][:150]
            warnings.warn(f"steps are launched one by one, slower: no CUDA graph of them ({reason}).", stacklevel=2)
            return None

    def _capture(self) -> "torch.cuda.CUDAGraph":
        beside = torch.cuda.Stream()
        beside.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(beside), self.step.rehearsal():
            for _ in range(REHEARSALS):
                self._once()
        torch.cuda.current_stream().wait_stream(beside)
        graph = torch.cuda.CUDAGraph()
        graph.register_generator_state(self.noise.generator)
        with torch.cuda.graph(graph):
            self._once()
        return graph
