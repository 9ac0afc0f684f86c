"""The step as a CUDA graph: gather, encode, sample, decode, bound, backward and AdamW, recorded once and replayed.

Shapes must not change between replays. So minibatches are equal, another random remainder being left out in each epoch;
and sparse ones are padded to a capacity, looked up once per epoch: that look is all that the host waits for.
"""

import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

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
        self.beside = torch.cuda.Stream(step.device) if step.device.type == "cuda" else None  # to capture on

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
        if self.graph is None and self.beside is not None:
            self.graph = self._record(self.beside)
        self.noise.move(*moment)
        if self.graph is None:
            self._once()
        else:
            self.graph.replay()

    def _once(self) -> None:
        self.step(self.observations.batch(self.index, self.capacities), self.noise)

    def _record(self, beside: "torch.cuda.Stream") -> "torch.cuda.CUDAGraph | None":
        """The graph; None, said once, where some part of this model cannot be captured."""
        here = torch.cuda.current_stream(self.step.device)
        try:
            return self._capture(beside)
        except torch.OutOfMemoryError:
            raise
        except Exception as error:  # what refuses to be captured says so in its own way
            self.beside, self.noise = None, self.noise.at(0)  # the old generator may still wait for the graph
            reason = str(error).splitlines()[0][:150]
            warnings.warn(f"steps are launched one by one, slower: no CUDA graph of them ({reason}).", stacklevel=2)
            return None
        finally:
            torch.cuda.set_stream(here)  # a capture that fails leaves the thread on its own stream
            here.wait_stream(beside)

    def _capture(self, beside: "torch.cuda.Stream") -> "torch.cuda.CUDAGraph":
        beside.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(beside), self.step.rehearsal():
            self._once()  # what is compiled or checked once may wait
            with _no_waiting():
                for _ in range(REHEARSALS - 1):
                    self._once()
        torch.cuda.current_stream().wait_stream(beside)
        graph = torch.cuda.CUDAGraph()
        graph.register_generator_state(self.noise.generator)
        # Only what this thread does is recorded: others may copy or pin as they like meanwhile.
        with torch.cuda.graph(graph, stream=beside, capture_error_mode="thread_local"):
            self._once()
        return graph


@contextmanager
def _no_waiting() -> Iterator[None]:
    """Inside, what makes the host wait for the device is an error: a capture of it would fail, and not so cleanly."""
    before = torch.cuda.get_sync_debug_mode()
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Synchronization debug mode")
        torch.cuda.set_sync_debug_mode("error")
    try:
        yield
    finally:
        torch.cuda.set_sync_debug_mode(before)
