"""Minibatches for a device that cannot hold the data: gathered by a thread, pinned, copied beside the computation."""

import queue
import threading
from collections import deque
from collections.abc import Sequence
from typing import NamedTuple

import torch
from jaxtyping import Int
from torch import Tensor

from biovae.batch import Batch, Observations
from biovae.noise import Noise
from biovae.training.feeds import Feed, Moment
from biovae.training.step import Step

AHEAD = 2  # minibatches that wait ready while the device works on one


class _Ready(NamedTuple):
    batch: Batch
    copied: "torch.cuda.Event | None"


class Streamed(Feed):
    """Steps on minibatches that come from the host's memory.

    Args:
        step: On any device.
        observations: In the memory of the host.
        noise: On the device of the step.
    """

    def __init__(self, step: Step, observations: Observations, noise: Noise) -> None:
        self.step, self.observations, self.noise = step, observations, noise
        self.side = torch.cuda.Stream(step.device) if step.device.type == "cuda" else None
        self._taken: deque[torch.cuda.Event] = deque()
        self._worker: _Worker | None = None

    def begin(self, parts: Sequence[Int[Tensor, "obs"]]) -> None:
        """Start gathering."""
        self.end()
        self._worker = _Worker(self, parts)

    def __call__(self, index: Int[Tensor, "obs"], moment: Moment) -> None:
        """See `Feed`."""
        if self._worker is None:
            raise RuntimeError("expected begin() before the first minibatch, found none.")
        batch, copied = self._worker.next()
        if copied is None:
            self.step(batch, self.noise.at(*moment))
            return
        here = torch.cuda.current_stream(self.step.device)
        here.wait_event(copied)
        batch.each(lambda t: _used_by(t, here))
        self.step(batch, self.noise.at(*moment))
        self._taken.append(here.record_event())
        if len(self._taken) > AHEAD:  # steps are launched faster than they are taken: memory is bounded by waiting
            self._taken.popleft().synchronize()

    def end(self) -> None:
        """Stop gathering."""
        if self._worker is not None:
            self._worker.stop()
        self._worker = None

    def gather(self, index: Int[Tensor, "obs"]) -> _Ready:
        """One minibatch on its way to the device."""
        batch = self.observations.batch(index)
        if self.side is None:
            return _Ready(batch.to(self.step.device), None)
        with torch.cuda.stream(self.side):
            pinned = batch.each(Tensor.pin_memory)
            there = pinned.each(lambda t: t.to(self.step.device, non_blocking=True))
            return _Ready(there, self.side.record_event())


def _used_by(tensor: Tensor, stream: "torch.cuda.Stream") -> Tensor:
    """Tell the allocator that the memory is not free before this stream is done with it."""
    tensor.record_stream(stream)
    return tensor


class _Worker:
    """A thread that gathers the minibatches of an epoch; what goes wrong in it is raised where they are taken."""

    def __init__(self, feed: Streamed, parts: Sequence[Tensor]) -> None:
        self._queue: queue.Queue[_Ready | BaseException] = queue.Queue(maxsize=AHEAD)
        self._stopped = threading.Event()
        self._thread = threading.Thread(target=self._work, args=(feed, parts), daemon=True)
        self._thread.start()

    def _work(self, feed: Streamed, parts: Sequence[Tensor]) -> None:
        for part in parts:
            try:
                ready: _Ready | BaseException = feed.gather(part)
            except BaseException as error:  # handed over, not swallowed
                ready = error
            while not self._stopped.is_set():
                try:
                    self._queue.put(ready, timeout=0.1)
                    break
                except queue.Full:
                    continue
            if self._stopped.is_set() or isinstance(ready, BaseException):
                return

    def next(self) -> _Ready:
        ready = self._queue.get()
        if isinstance(ready, BaseException):
            raise ready
        return ready

    def stop(self) -> None:
        self._stopped.set()
        self._thread.join()
