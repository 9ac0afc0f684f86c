"""Observations in files, which processes side by side open as one piece of memory instead of a copy each."""

from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from biovae.batch import Observations, SparseMatrix


def lay_out(observations: Observations, folder: Path) -> None:
    """Write every tensor into a file of its own."""
    _put(folder, "covariates", observations.covariates)
    for m, x in enumerate(observations.x):
        if isinstance(x, SparseMatrix):
            _put(folder, f"{m}-shape", torch.tensor(x.shape))
            for name in ("pointers", "column", "value"):
                _put(folder, f"{m}-{name}", getattr(x, name))
        else:
            _put(folder, f"{m}-x", x)
        _put(folder, f"{m}-exposure", observations.exposure[m])
        _put(folder, f"{m}-present", observations.present[m])


def pick_up(folder: Path, modalities: int) -> Observations:
    """The observations that `lay_out` wrote; who changes a value gets a page of memory of his own for it."""
    return Observations(
        tuple(_values(folder, m) for m in range(modalities)),
        tuple(_get(folder, f"{m}-exposure") for m in range(modalities)),
        tuple(_get(folder, f"{m}-present") for m in range(modalities)),
        _there(folder, "covariates"),
    )


def _values(folder: Path, m: int) -> SparseMatrix | Tensor:
    shape = _get(folder, f"{m}-shape")
    if shape is None:
        return _there(folder, f"{m}-x")
    rows, features = map(int, shape)
    pointers, column, value = (_there(folder, f"{m}-{name}") for name in ("pointers", "column", "value"))
    return SparseMatrix(pointers, column, value, (rows, features))


def _put(folder: Path, name: str, tensor: Tensor | None) -> None:
    if tensor is not None:
        np.save(folder / f"{name}.npy", tensor.cpu().numpy(), allow_pickle=False)


def _get(folder: Path, name: str) -> Tensor | None:
    return _there(folder, name) if (folder / f"{name}.npy").exists() else None


def _there(folder: Path, name: str) -> Tensor:
    return torch.from_numpy(np.load(folder / f"{name}.npy", mmap_mode="c", allow_pickle=False))
