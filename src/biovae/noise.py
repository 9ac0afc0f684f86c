"""Every random draw in biovae comes from here, and is a function of (seed, epoch, step).

Nothing touches a global generator: the same seed gives the same numbers whatever ran before, and a checkpoint need not
store any random state, because the state at (epoch, step) can be made again from the three numbers.
"""

import hashlib

import numpy as np
import torch
from torch import Tensor


class Noise:
    """A stream of draws that depends on its key alone.

    Two streams with the same key give the same numbers in the same order; a stream keeps a position, so it is made
    afresh for each step. Draws are made on the CPU or on `device`; the numbers differ between kinds of device.

    >>> bool((Noise(0).normal(3) == Noise(0).normal(3)).all())
    True
    >>> bool((Noise(0, epoch=1).normal(3) == Noise(0, epoch=2).normal(3)).any())
    False
    """

    def __init__(self, seed: int, epoch: int = 0, step: int = 0, *, device: torch.device | str = "cpu") -> None:
        self.device = torch.device(device)
        self.generator = torch.Generator(device=self.device)
        self._begin((int(seed), int(epoch), int(step)))

    def _begin(self, key: tuple[int, int, int]) -> None:
        digest = hashlib.blake2b(repr(key).encode(), digest_size=8).digest()
        self.key, self.integer, self._words = key, int.from_bytes(digest, "little") >> 1, 0
        self.generator.manual_seed(self.integer)

    def at(self, epoch: int, step: int = 0) -> "Noise":
        """The stream of another moment of the same seed."""
        return Noise(self.key[0], epoch, step, device=self.device)

    def move(self, epoch: int, step: int = 0) -> None:
        """Become the stream of another moment; a captured graph knows the generator by identity."""
        self._begin((self.key[0], epoch, step))

    def normal(self, *shape: int, dtype: torch.dtype = torch.float32) -> Tensor:
        """Standard normal draws."""
        return torch.randn(shape, generator=self.generator, device=self.device, dtype=dtype)

    def uniform(self, *shape: int, dtype: torch.dtype = torch.float32) -> Tensor:
        """Draws from [0, 1)."""
        return torch.rand(shape, generator=self.generator, device=self.device, dtype=dtype)

    def permutation(self, size: int) -> Tensor:
        """A random order of 0 ... size - 1."""
        return torch.randperm(size, generator=self.generator, device=self.device)

    def word(self) -> np.uint64:
        """64 random bits, from which a compiled loop makes draws of its own; others each time."""
        self._words += 1
        digest = hashlib.blake2b(repr((*self.key, self._words)).encode(), digest_size=8).digest()
        return np.uint64(int.from_bytes(digest, "little"))

    def numpy(self) -> np.random.Generator:
        """A numpy generator with the same key, for the samplers that torch lacks."""
        return np.random.default_rng(self.integer)
