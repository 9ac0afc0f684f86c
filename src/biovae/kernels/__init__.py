"""Kernels: the few loops that set the speed of training, compiled by numba on a CPU, by Triton on a GPU.

Each has a plain torch form beside it, one floor up, which is the reference that tests hold it to and what runs on other
devices, in other precisions, and where neither is installed. Compiled once per installation, then read from a cache
(`compiling.py`).
Rows are shared out among as many threads as torch uses; a result does not depend on how many there are.
"""

import os
import platform
import threading
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import cache
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

_ONE_AT_A_TIME = threading.Lock()  # numba's simplest threading layer, the one left on some systems, allows no more
_launched = False


class Switch:
    """Something that can be left out for a while: for experiments, and for tests of what runs instead."""

    def __init__(self) -> None:
        self.on = True

    @contextmanager
    def off(self) -> Iterator[None]:
        """Inside, it is left out."""
        before, self.on = self.on, False
        try:
            yield
        finally:
            self.on = before


LOOPS, HALF_PRECISION = Switch(), Switch()
without_kernels = LOOPS.off  # inside, the plain torch forms run
full_precision = HALF_PRECISION.off  # inside, no product is taken in bfloat16


@cache
def installed() -> bool:
    """Whether numba is there and works with the numpy beside it; said once where it does not."""
    try:
        import numba  # noqa: F401
    except Exception as error:
        warnings.warn(
            f"expected numba, found none that works ({error}): plain loops run, up to twice as long, "
            "and a seed gives other numbers; pip install numba.",
            RuntimeWarning,
            stacklevel=2,
        )
        return False
    return True


def loops() -> str:
    """Which loops run, by name and version: they round differently, and thin and drop out with draws of their own."""
    half = ", bfloat16" if has_bfloat16() else ""
    return f"numba {version('numba')}{half}" if kernel_fits() else "plain"


@cache
def has_bfloat16() -> bool:
    """Whether the CPU multiplies matrices in bfloat16 faster than in float32.

    Intel's AVX-512 adds twice as many products at half the rate: without its matrix unit the conversions are lost
    (LOG.md, 2026-11-27).
    """
    vector, matrix = (getattr(torch.cpu, f"_is_{unit}_supported", bool)() for unit in ("avx512_bf16", "amx_tile"))
    return matrix or (vector and not _by_intel())


def _by_intel() -> bool:
    told = Path("/proc/cpuinfo")  # Linux; elsewhere Python knows
    return "GenuineIntel" in (told.read_text() if told.exists() else platform.processor())


def compiled(**options: Any) -> Callable[[Callable[..., Any]], Any]:
    """Decorate a loop: compiled at its first call, kept on disk if there is a place to keep it."""
    import numba

    def decorate(loop: Callable[..., Any]) -> Any:
        try:
            return numba.njit(cache=True, error_model="numpy", **options)(loop)
        except RuntimeError:  # neither the package's folder nor the user's cache can be written
            return numba.njit(error_model="numpy", **options)(loop)

    return decorate


def kernel_fits(*tensors: Tensor) -> bool:
    """Whether the kernels can work on these: single precision, in the memory of the CPU."""
    return LOOPS.on and installed() and all(t.dtype == torch.float32 and t.device.type == "cpu" for t in tensors)


def run_kernel(kernel: Callable[..., Any], *arguments: Any) -> Any:
    """Call a compiled loop on the memory of tensors, with torch's number of threads."""
    global _launched
    from biovae.kernels.compiling import ready

    _launched = True
    arrays = [_array(a) if isinstance(a, Tensor) else a for a in arguments]
    with _ONE_AT_A_TIME:
        ready(kernel, arrays)
        _share_threads(torch.get_num_threads())
        return kernel(*arrays)


def _array(tensor: Tensor) -> Any:
    return (tensor.detach() if tensor.requires_grad else tensor).numpy()


def _share_threads(number: int) -> None:
    """Give numba as many threads as torch has; numba's start must not change torch's."""
    import numba

    numba.set_num_threads(min(number, _most_threads()))
    if torch.get_num_threads() != number:
        torch.set_num_threads(number)


@cache
def _most_threads() -> int:
    import numba

    return int(numba.config.NUMBA_NUM_THREADS)  # type: ignore[attr-defined]


def _after_fork() -> None:
    """A child of a process that ran the loops has none of its threads: it takes the plain forms, on one thread.

    numba would end it, and torch would wait forever for threads that were not copied.
    """
    if _launched:
        LOOPS.on = False
        torch.set_num_threads(1)


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork)
