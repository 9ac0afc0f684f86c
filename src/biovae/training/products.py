"""Matrix products in bfloat16 where the machine multiplies it natively: half the time or less of a training step.

Only the factors are rounded; sums, and everything that is not a matrix product (counts, library sizes, likelihoods,
norms), stay in single precision. Scores, embeddings and validation bounds are never computed this way.
"""

from collections.abc import Iterator
from contextlib import contextmanager

import torch


def native_bfloat16(device: torch.device) -> bool:
    """Whether matrix products in bfloat16 are faster there: tensor cores, AVX512-BF16 or AMX."""
    if device.type == "cuda":
        return torch.cuda.get_device_capability(device)[0] >= 8
    if device.type != "cpu":
        return False
    return bool(torch.cpu._is_avx512_bf16_supported() or torch.cpu._is_amx_tile_supported())


@contextmanager
def rounded_products(*, on: bool) -> Iterator[None]:
    """Inside, torch may round the factors of float32 matrix products."""
    before = torch.get_float32_matmul_precision()
    if on:
        torch.set_float32_matmul_precision("medium")
    try:
        yield
    finally:
        torch.set_float32_matmul_precision(before)
