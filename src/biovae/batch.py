"""The records that cross the house: a matrix of counts, a minibatch of it, and what a likelihood knows beside x.

    x            observation                          (obs, features), one per modality
    exposure     total counts of each observation     (obs, 1), None where the likelihood has no use for it
    covariates   one-hot and standardised columns     (obs, covariates), zero columns where there are none
    present      who carries the modality             (obs,), None where everybody does

Counts stay sparse from disk to loss. `SparseMatrix` holds a whole data set as compressed rows, stored narrow;
`SparseCounts` is one minibatch of it, widened. A padded entry of value 0 adds exactly 0 everywhere.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import scipy.sparse
import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from biovae.errors import InputError
from biovae.kernels import kernel_fits, run_kernel


class SparseCounts(NamedTuple):
    """The non-zeros of one minibatch, in row order.

    Entries may be padded at the end with zeros of value, in the last row and any column; a position occurs at most once
    otherwise. `row` and `column` are int64 because torch indexes in nothing narrower.
    """

    row: Int[Tensor, "capacity"]
    column: Int[Tensor, "capacity"]
    value: Float[Tensor, "capacity"]
    shape: tuple[int, int]

    @property
    def flat(self) -> Int[Tensor, "capacity"]:
        """Positions in the flattened (obs, features) matrix."""
        return self.row * self.shape[1] + self.column

    def dense(self, value: Tensor | None = None) -> Float[Tensor, "obs features"]:
        """The matrix, zeros written out; `value` replaces the stored values (for example their logarithm)."""
        value = self.value if value is None else value
        x = value.new_zeros(self.shape[0] * self.shape[1])
        return x.index_add_(0, self.flat, value).view(self.shape)

    def scipy(self) -> scipy.sparse.csr_array:
        """The minibatch for the wing that knows no tensors."""
        parts = (self.value.cpu().numpy(), (self.row.cpu().numpy(), self.column.cpu().numpy()))
        return scipy.sparse.csr_array(parts, shape=self.shape)

    def total(self) -> Float[Tensor, "obs 1"]:
        """The sum of each row."""
        return self.value.new_zeros(self.shape[0]).index_add_(0, self.row, self.value).unsqueeze(1)

    def each(self, change: Callable[[Tensor], Tensor]) -> "SparseCounts":
        """The same counts, every tensor of them changed."""
        return SparseCounts(change(self.row), change(self.column), change(self.value), self.shape)

    def to(self, target: torch.device | torch.dtype) -> "SparseCounts":
        """The same counts on another device, or with values of another floating type."""
        if isinstance(target, torch.dtype):
            return self._replace(value=self.value.to(target))
        return self.each(lambda t: t.to(target))

    @classmethod
    def from_dense(cls, x: Float[Tensor, "obs features"]) -> "SparseCounts":
        """The non-zeros of a dense matrix."""
        row, column = x.nonzero(as_tuple=True)
        return cls(row, column, x[row, column], (x.shape[0], x.shape[1]))


@dataclass(frozen=True)
class SparseMatrix:
    """A data set of counts as compressed sparse rows, stored as narrow as its values allow.

    `pointers[i]:pointers[i + 1]` are the entries of row i. Columns are kept in int16 or int32, whole numbers in the
    narrowest of uint8, int16 and int32 that holds them all; values that are not whole stay float32.
    """

    pointers: Int[Tensor, "rows_plus_one"]
    column: Int[Tensor, "entries"]
    value: Tensor
    shape: tuple[int, int]

    @classmethod
    def from_scipy(cls, x: scipy.sparse.sparray | scipy.sparse.spmatrix | np.ndarray) -> "SparseMatrix":
        """Compress a matrix; the input is not changed."""
        csr = scipy.sparse.csr_array(x)
        if not csr.has_canonical_format:
            csr = csr.copy()
            csr.sum_duplicates()
        return cls.from_parts(csr.indptr, csr.indices, csr.data, csr.shape)

    @classmethod
    def from_parts(
        cls, pointers: np.ndarray, column: np.ndarray, value: np.ndarray, shape: tuple[int, int]
    ) -> "SparseMatrix":
        """The arrays of a canonical CSR matrix, copied and narrowed."""
        column = column.astype(np.int16 if shape[1] < 2**15 else np.int32)
        narrow = narrowed(value)
        narrow = value.astype(np.float32) if narrow is value else narrow
        pointers = pointers.astype(np.int64)
        return cls(torch.from_numpy(pointers), torch.from_numpy(column), torch.from_numpy(narrow), shape)

    def __len__(self) -> int:
        """Rows, so that a matrix and a dense tensor answer alike."""
        return self.shape[0]

    @property
    def nbytes(self) -> int:
        """Memory that it takes, wherever it is."""
        return self.pointers.nbytes + self.column.nbytes + self.value.nbytes

    def entries(self, index: Int[Tensor, "..."]) -> Int[Tensor, "..."]:
        """How many non-zeros each of these rows has."""
        return self.pointers[index + 1] - self.pointers[index]

    def rows(self, index: Int[Tensor, "obs"], capacity: int | None = None) -> SparseCounts:
        """Gather rows into one minibatch, without a loop over them.

        Args:
            index: Which rows.
            capacity: At least as many entries as the rows have: the minibatch is padded to it, so that shapes do not
                depend on values and nothing waits for a device.
        """
        if capacity is not None:
            return self._padded(index, capacity)
        if kernel_fits() and self.pointers.device.type == "cpu":
            from biovae.kernels.rows import gather

            found = run_kernel(gather, self.pointers, self.column, self.value, index)
            row, column, value = map(torch.from_numpy, found)
            return SparseCounts(row, column, value, (len(index), self.shape[1]))
        start, length = self.pointers[index], self.entries(index)
        row = torch.repeat_interleave(torch.arange(len(index), device=index.device), length)
        entries = torch.arange(len(row), device=index.device) + (start - length.cumsum(0) + length)[row]
        column = self.column.index_select(0, entries).to(torch.int64)
        value = self.value.index_select(0, entries).to(torch.float32)
        return SparseCounts(row, column, value, (len(index), self.shape[1]))

    def _padded(self, index: Int[Tensor, "obs"], capacity: int) -> SparseCounts:
        """Entry k belongs to the first row that ends behind it; those beyond the last end are empty."""
        start, end = self.pointers[index], self.entries(index).cumsum(0)
        k = torch.arange(capacity, device=index.device)
        row = torch.searchsorted(end, k, right=True).clamp_(max=len(index) - 1)
        # Empty entries borrow the columns of others: added all at one place they would wait for each other.
        entry = torch.where(k < end[-1], (start - end + self.entries(index))[row] + k, k % max(len(self.value), 1))
        value = torch.where(k < end[-1], self.value[entry].to(torch.float32), 0)
        return SparseCounts(row, self.column[entry].to(torch.int64), value, (len(index), self.shape[1]))

    def to(self, device: torch.device | str) -> "SparseMatrix":
        """The same matrix on another device."""
        return SparseMatrix(self.pointers.to(device), self.column.to(device), self.value.to(device), self.shape)

    def scipy(self) -> scipy.sparse.csr_array:
        """The matrix for the data wing, float32."""
        parts = (self.value.cpu().numpy().astype(np.float32), self.column.cpu().numpy(), self.pointers.cpu().numpy())
        return scipy.sparse.csr_array(parts, shape=self.shape)


def narrowed(value: np.ndarray) -> np.ndarray:
    """A copy of whole numbers in the narrowest integers that hold them all; the same array where there is none."""
    least, largest = float(value.min(initial=0)), max(float(value.max(initial=0)), -float(value.min(initial=0)))
    if not largest < 2**31 or not _whole(value):
        return value
    if least >= 0 and largest < 2**8:
        return value.astype(np.uint8)
    return value.astype(np.int16 if largest < 2**15 else np.int32)


def _whole(value: np.ndarray, piece: int = 2**16) -> bool:
    """Whether there is no fraction, looked at in pieces that stay in the cache."""
    pieces = (value[start : start + piece] for start in range(0, value.size, piece))
    return value.dtype.kind != "f" or all(bool((part == np.rint(part)).all()) for part in pieces)


class Context(NamedTuple):
    """What a likelihood or a body may know of an observation beside x itself, for one modality.

    `exposure` multiplies the mean of counts. `covariates` is the part of the design matrix that is to be seen.
    """

    exposure: Float[Tensor, "... 1"] | None
    covariates: Float[Tensor, "obs covariates"]
    present: Bool[Tensor, "obs"] | None = None

    @property
    def depth(self) -> Float[Tensor, "... 1"]:
        """The exposure of counts, which must be there."""
        if self.exposure is None:
            raise InputError("expected an exposure for a likelihood of counts, found none: give the total of each row.")
        return self.exposure


@dataclass(frozen=True)
class Batch:
    """One minibatch: for every modality x and its exposure, for all of them the covariates."""

    x: tuple[SparseCounts | Tensor, ...]
    exposure: tuple[Float[Tensor, "obs 1"] | None, ...]
    present: tuple[Bool[Tensor, "obs"] | None, ...]
    covariates: Float[Tensor, "obs covariates"]

    def __len__(self) -> int:
        return len(self.covariates)

    def each(self, change: Callable[[Tensor], Tensor]) -> "Batch":
        """The same minibatch, every tensor of it changed."""
        x = tuple(v.each(change) if isinstance(v, SparseCounts) else change(v) for v in self.x)
        exposure = tuple(None if e is None else change(e) for e in self.exposure)
        present = tuple(None if p is None else change(p) for p in self.present)
        return Batch(x, exposure, present, change(self.covariates))

    def to(self, device: torch.device | str) -> "Batch":
        """The same minibatch on another device."""
        return self if self.covariates.device == torch.device(device) else self.each(lambda t: t.to(device))


@dataclass(frozen=True)
class Observations:
    """A whole data set in memory, ready to be cut into minibatches: the same fields as `Batch`, for all rows."""

    x: tuple[SparseMatrix | Tensor, ...]
    exposure: tuple[Float[Tensor, "obs 1"] | None, ...]
    present: tuple[Bool[Tensor, "obs"] | None, ...]
    covariates: Float[Tensor, "obs covariates"]

    def __len__(self) -> int:
        return len(self.covariates)

    @property
    def nbytes(self) -> int:
        """Memory that they take."""
        parts = (*self.x, *self.exposure, *self.present, self.covariates)
        return sum(part.nbytes for part in parts if part is not None)

    def capacities(self, parts: Int[Tensor, "batches obs"]) -> tuple[int, ...]:
        """Per modality, the most non-zeros that any of these minibatches has; 0 for dense ones."""
        return tuple(int(x.entries(parts).sum(-1).amax()) if isinstance(x, SparseMatrix) else 0 for x in self.x)

    def batch(self, rows: Int[Tensor, "obs"], capacities: Sequence[int | None] | None = None) -> Batch:
        """The minibatch of these rows, in this order; sparse modalities padded to their capacities, if given."""
        padded = [None] * len(self.x) if capacities is None else capacities
        pairs = zip(self.x, padded, strict=True)
        x = tuple(m.rows(rows, most) if isinstance(m, SparseMatrix) else m[rows] for m, most in pairs)
        exposure = tuple(None if e is None else e[rows] for e in self.exposure)
        present = tuple(None if p is None else p[rows] for p in self.present)
        return Batch(x, exposure, present, self.covariates[rows])

    def carriers(self, m: int, rows: Int[Tensor, "obs"] | None = None) -> Int[Tensor, "carriers"]:
        """Those of the rows, of all if None, that carry a modality: the others are blank, which is no measurement."""
        rows = torch.arange(len(self), device=self.covariates.device) if rows is None else rows
        present = self.present[m]
        return rows if present is None else rows[present[rows]]

    def measured(self, m: int) -> tuple[scipy.sparse.csr_array | np.ndarray, Int[np.ndarray, "carriers"]]:
        """A modality's values of the observations that carry it, (carriers, features), and which those are."""
        rows, x = self.carriers(m).cpu().numpy(), plain(self.x[m])
        return x if len(rows) == len(self) else x[rows], rows

    def to(self, device: torch.device | str) -> "Observations":
        """The same data on another device."""
        x = tuple(m.to(device) for m in self.x)
        exposure = tuple(None if e is None else e.to(device) for e in self.exposure)
        present = tuple(None if p is None else p.to(device) for p in self.present)
        return Observations(x, exposure, present, self.covariates.to(device))


def plain(x: SparseMatrix | SparseCounts | Tensor) -> scipy.sparse.csr_array | np.ndarray:
    """The values of one modality for the wing that knows no tensors."""
    return x.cpu().numpy() if isinstance(x, Tensor) else x.scipy()


def dense(x: SparseCounts | Tensor) -> Float[Tensor, "... features"]:
    """A minibatch with its zeros written out."""
    return x.dense() if isinstance(x, SparseCounts) else x
