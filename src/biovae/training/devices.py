"""Where a run takes place: which feed a device gets, whether the data fit on it, how its matrix products round."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import NamedTuple

import torch

from biovae.batch import Observations
from biovae.network import Network
from biovae.training.captured import Captured
from biovae.training.feeds import Direct
from biovae.training.streamed import Streamed

ARRAYS = 16  # of a minibatch's size that a step holds at once: logits, gradients, and what lies between
SPARE = 0.9  # share of the free memory that is planned with


class Budget(NamedTuple):
    """Bytes on a device."""

    free: int
    data: int
    step: int  # weights, their moments, and what a step holds

    @property
    def resident(self) -> bool:
        """Whether the data fit beside a step."""
        return self.data + self.step <= SPARE * self.free

    def __str__(self) -> str:
        gigabytes = [f"{amount / 1e9:.2f} GB" for amount in (self.data, self.step, self.free)]
        where = "kept on the device" if self.resident else "streamed from the host's memory"
        return "data {}, a step about {}, free {}: the data are ".format(*gigabytes) + where


def budget(observations: Observations, network: Network, rows: int, device: torch.device) -> Budget | None:
    """What a run needs of a device; None for one that shares the host's memory.

    Args:
        observations: All data.
        network: With its weights.
        rows: Of a minibatch, every draw of z counted.
        device: Where training is to take place.
    """
    if device.type != "cuda":
        return None
    features = sum(m.features for m in network.parts)
    weights = sum(w.nbytes for w in network.parameters())
    step = 4 * weights + 4 * ARRAYS * rows * features
    return Budget(torch.cuda.mem_get_info(device)[0], observations.nbytes, step)


def feed_kind(
    observations: Observations, device: torch.device, memory: Budget | None
) -> type[Direct] | type[Captured] | type[Streamed]:
    """Which feed a run gets."""
    if memory is not None and not memory.resident:
        return Streamed
    whole = all(present is None for present in observations.present)  # who is absent changes the shapes
    return Captured if device.type == "cuda" and whole else Direct


@contextmanager
def on(device: torch.device) -> Iterator[None]:
    """Inside, a CUDA device is the current one and its matrix products round their factors to TF32.

    Everything else is as exact as ever. Other devices need nothing.
    """
    if device.type != "cuda":
        yield
        return
    before = torch.get_float32_matmul_precision()
    torch.set_float32_matmul_precision("high")
    try:
        with torch.cuda.device(device):
            yield
    finally:
        torch.set_float32_matmul_precision(before)
