"""Between (*samples, obs, features) and the matrix of rows that the autograd functions work on.

    rows   samples * obs: a sample axis is only more rows, so that every index into a matrix is one-dimensional

Differences of large terms are taken at the non-zeros alone, in `wide` precision: they are few.
"""

import torch
from jaxtyping import Float, Int
from torch import Size, Tensor

from biovae.batch import SparseCounts


def as_sparse(x: SparseCounts | Float[Tensor, "obs features"]) -> SparseCounts:
    """The same counts; a dense x is compressed."""
    return x if isinstance(x, SparseCounts) else SparseCounts.from_dense(x)


def as_dense(x: SparseCounts | Float[Tensor, "obs features"]) -> Float[Tensor, "obs features"]:
    """The same values, zeros written out."""
    return x.dense() if isinstance(x, SparseCounts) else x


def as_rows(parameter: Float[Tensor, "..."], shape: Size) -> Float[Tensor, "rows features"]:
    """A parameter that broadcasts to `shape`, written out as a matrix."""
    return parameter.expand(shape).reshape(-1, shape[-1]).contiguous()


def as_row(parameter: Float[Tensor, "..."], shape: Size) -> Float[Tensor, "..."]:
    """As `as_rows`, but a parameter per feature stays (features,), so that its functions are computed once."""
    per_feature = all(size == 1 for size in parameter.shape[:-1])
    return parameter.reshape(-1).expand(shape[-1]) if per_feature else as_rows(parameter, shape)


def repeat(x: SparseCounts, rows: int) -> SparseCounts:
    """The counts under every sample: x again and again until it has so many rows."""
    samples = rows // max(x.shape[0], 1)
    if samples == 1:
        return x
    start = torch.arange(samples, device=x.row.device).mul_(x.shape[0])
    row = (start.unsqueeze(1) + x.row).flatten()
    return SparseCounts(row, x.column.repeat(samples), x.value.repeat(samples), (rows, x.shape[1]))


def take(dense: Float[Tensor, "rows features"], flat: Int[Tensor, "capacity"]) -> Float[Tensor, "capacity"]:
    """The entries at flattened positions."""
    return dense.view(-1).index_select(0, flat)


def add(dense: Float[Tensor, "rows features"], flat: Int[Tensor, "capacity"], value: Float[Tensor, "capacity"]) -> None:
    """dense[flat] += value, in place; value is of any precision."""
    dense.view(-1).index_add_(0, flat, value.to(dense.dtype))


def clear(
    dense: Float[Tensor, "rows features"], flat: Int[Tensor, "capacity"], value: Float[Tensor, "capacity"]
) -> None:
    """dense[flat] = 0 where value > 0, in place: exactly 0 at the non-zeros, untouched where a padded entry points."""
    add(dense, flat, take(dense, flat).mul_(value > 0).neg_())


def wide(value: Tensor) -> Tensor:
    """Float64 where the device has it (Apple's has not)."""
    return value if value.device.type == "mps" else value.to(torch.float64)
