"""One face for every container a matrix comes in: rows in order, as canonical CSR or a plain array, in bounded pieces.

In memory: any scipy format (matrix or array), numpy of any numeric type, memory maps, data frames, views. On disk or
lazy: backed AnnData, h5py, Zarr, dask, anything that can be sliced by rows. The caller's object is never changed.

    entries      values looked at in one piece, so that temporaries stay small whatever the size of the data
    canonical    sorted columns, each at most once, no stored zeros
"""

from collections.abc import Iterator
from typing import Any, TypeAlias

import numpy as np
import pandas as pd
import scipy.sparse
from anndata.abc import CSCDataset, CSRDataset

from biovae.batch import narrowed
from biovae.errors import InputError

ENTRIES = 2**22
ROWS = 1024  # whose values are widened at once
Matrix: TypeAlias = "scipy.sparse.csr_array | np.ndarray"


def size(matrix: Any, place: str) -> tuple[int, int]:
    """The shape, which must have two axes."""
    if len(matrix.shape) != 2:
        raise InputError(f"expected {place} to be observations x features, found {len(matrix.shape)} axes.")
    return int(matrix.shape[0]), int(matrix.shape[1])


def gather(matrix: Any, rows: np.ndarray | None, columns: np.ndarray | None, *, sparse: bool, place: str) -> Matrix:
    """The chosen part of a matrix in memory: canonical CSR or an array.

    What is in memory already as canonical CSR is passed through without a copy. Counts that are read in pieces come
    in integers as narrow as they allow, everything else in the type it was stored in.

    Args:
        matrix: Any container.
        rows: Positions, in the order wanted; all where None.
        columns: Positions, in the order wanted; all where None.
        sparse: Whether the result is CSR; an array otherwise.
        place: Where the matrix was found, for messages.
    """
    if isinstance(matrix, CSCDataset):
        matrix = matrix.to_memory()
    if scipy.sparse.issparse(matrix):
        part = _compressed(matrix, rows, place)
        part = canonical(part if columns is None else part[:, columns])
        return part if sparse else part.toarray()
    if isinstance(matrix, np.ndarray) and not sparse:
        part = np.asarray(matrix if rows is None else matrix[rows])
        return plain(part if columns is None else part[:, columns], place)
    pieces = [_typed(piece, sparse=sparse, place=place) for piece in _pieces(matrix, rows, columns, place)]
    if len(pieces) == 1:
        return pieces[0]
    return _stacked(pieces) if sparse else np.concatenate(pieces)


def blocks(matrix: Matrix, entries: int | None = None) -> Iterator[tuple[int, Matrix]]:
    """Cut a matrix in memory into row blocks without copying; yields (first row, block).

    Args:
        matrix: What `gather` returned.
        entries: Values in one block, about; `ENTRIES` where not given.
    """
    for start, stop in _cuts(matrix, entries or ENTRIES):
        if isinstance(matrix, np.ndarray):
            yield start, matrix[start:stop]
        else:
            inside = slice(matrix.indptr[start], matrix.indptr[stop])
            pointers = matrix.indptr[start : stop + 1] - matrix.indptr[start]
            parts = (matrix.data[inside], matrix.indices[inside], pointers)
            yield start, scipy.sparse.csr_array(parts, shape=(stop - start, matrix.shape[1]))


def canonical(matrix: scipy.sparse.csr_array) -> scipy.sparse.csr_array:
    """Sorted columns, duplicates summed, no stored zeros; a copy only where something must change."""
    sorted_once = matrix.has_canonical_format
    if sorted_once and (matrix.data.size == 0 or bool(np.all(matrix.data))):
        return matrix
    matrix = scipy.sparse.csr_array(matrix, copy=True)
    if not sorted_once:
        matrix = _roomy(matrix)
        matrix.sum_duplicates()
    matrix.eliminate_zeros()
    return matrix


def row_totals(matrix: scipy.sparse.csr_array) -> np.ndarray:
    """The sum of each row in double precision, whatever the type of the values."""
    totals = np.zeros(matrix.shape[0])
    filled = np.flatnonzero(np.diff(matrix.indptr))
    for rows in np.split(filled, range(ROWS, filled.size, ROWS)):
        if rows.size:  # consecutive filled rows are adjacent in `data`
            start = matrix.indptr[rows[0]]
            # Widened beforehand: reduceat takes three times as long to widen value by value.
            wide = matrix.data[start : matrix.indptr[rows[-1] + 1]].astype(np.float64)
            totals[rows] = np.add.reduceat(wide, matrix.indptr[rows] - start)
    return totals


def check_indices(matrix: Any, place: str) -> None:
    """Refuse compressed rows or columns that point outside the matrix, before any kernel follows them."""
    try:
        matrix.check_format(full_check=True)
    except ValueError as error:
        raise InputError(f"expected sound indices in {place}, found a broken sparse matrix ({error}).") from error


def _cuts(matrix: Matrix, entries: int) -> Iterator[tuple[int, int]]:
    rows, columns = matrix.shape
    if isinstance(matrix, np.ndarray):
        step = max(1, entries // max(1, columns))
        yield from ((start, min(rows, start + step)) for start in range(0, rows, step))
        return
    start = 0
    while start < rows:
        stop = int(np.searchsorted(matrix.indptr, int(matrix.indptr[start]) + entries, side="right")) - 1
        stop = min(rows, max(stop, start + 1))
        yield start, stop
        start = stop


def _compressed(matrix: Any, rows: np.ndarray | None, place: str) -> scipy.sparse.csr_array:
    """Rows as CSR that shares the caller's arrays where it can; the object itself and its flags stay untouched."""
    if matrix.format == "csr":
        matrix = scipy.sparse.csr_array(_rewrapped(matrix, place))
        matrix = matrix if rows is None else matrix[rows]  # only rows that are used have to be sound inside
        check_indices(matrix, place)
    else:
        if matrix.format == "csc":
            matrix = _rewrapped(matrix, place)
            check_indices(matrix, place)
        matrix = scipy.sparse.csr_array(_roomy(matrix) if matrix.format == "coo" else matrix)
        matrix = matrix if rows is None else matrix[rows]
    matrix.data = plain(matrix.data, place)
    return matrix


def _rewrapped(matrix: Any, place: str) -> Any:
    """A compressed matrix over the same arrays, its pointers checked."""
    kind = scipy.sparse.csr_array if matrix.format == "csr" else scipy.sparse.csc_array
    try:
        if np.any(np.diff(matrix.indptr) < 0):
            raise ValueError("index pointer values must form a non-decreasing sequence")
        return kind((matrix.data, matrix.indices, matrix.indptr), shape=matrix.shape)
    except ValueError as error:
        raise InputError(f"expected sound indices in {place}, found a broken sparse matrix ({error}).") from error


def _roomy(matrix: Any) -> Any:
    """Two counts of a narrow type may not fit into it together."""
    return matrix.astype(np.int64) if matrix.dtype.kind in "ui" and matrix.dtype.itemsize < 8 else matrix


def _pieces(matrix: Any, rows: np.ndarray | None, columns: np.ndarray | None, place: str) -> Iterator[Any]:
    """Row pieces of anything that can be sliced, in memory."""
    if isinstance(matrix, pd.DataFrame):
        matrix = matrix.to_numpy()
    count, width = size(matrix, place)
    step = max(1, ENTRIES // max(1, width)) * (8 if isinstance(matrix, CSRDataset) else 1)
    count = count if rows is None else len(rows)
    for start in range(0, max(count, 1), step):  # one empty piece where there are no rows
        stop = min(count, start + step)
        piece = matrix[start:stop] if rows is None else _take(matrix, rows[start:stop])
        piece = piece.compute() if hasattr(piece, "compute") else piece
        if scipy.sparse.issparse(piece):
            piece = _compressed(piece, None, place)
        else:
            piece = np.asarray(piece)
        yield piece if columns is None else piece[:, columns]


def _take(matrix: Any, rows: np.ndarray) -> Any:
    """Rows of a container that may insist on increasing positions, as HDF5 does."""
    if isinstance(matrix, np.ndarray):
        return matrix[rows]
    ordered, back = np.unique(rows, return_inverse=True)
    if ordered.size and ordered[-1] - ordered[0] + 1 == ordered.size:
        piece = matrix[int(ordered[0]) : int(ordered[-1]) + 1]
    else:
        piece = matrix[ordered]
    piece = piece.compute() if hasattr(piece, "compute") else piece
    return piece if np.array_equal(back, np.arange(len(rows))) else piece[back]


def _typed(piece: Any, *, sparse: bool, place: str) -> Matrix:
    if scipy.sparse.issparse(piece):
        piece = canonical(piece)
        return _lean(piece) if sparse else piece.toarray()
    piece = plain(piece, place)
    return _lean(canonical(scipy.sparse.csr_array(piece))) if sparse else piece


def _lean(piece: scipy.sparse.csr_array) -> scipy.sparse.csr_array:
    """The same with narrow counts and columns: a file as large as the memory is read in half of it."""
    index = np.int32 if max(piece.nnz, *piece.shape) < 2**31 else np.int64
    parts = (narrowed(piece.data), *(part.astype(index, copy=False) for part in (piece.indices, piece.indptr)))
    return scipy.sparse.csr_array(parts, shape=piece.shape)


def _stacked(pieces: list[scipy.sparse.csr_array]) -> scipy.sparse.csr_array:
    """Rows of all pieces, below one another; a piece is let go when it has been copied, so that no two sets exist."""
    lengths = np.concatenate([np.diff(piece.indptr) for piece in pieces])
    pointers = np.concatenate([[0], np.cumsum(lengths, dtype=np.int64)])
    shape = (len(lengths), pieces[0].shape[1])
    index = np.int32 if max(pointers[-1], *shape) < 2**31 else np.int64
    values = np.empty(pointers[-1], np.result_type(*{piece.data.dtype for piece in pieces}))
    columns = np.empty(pointers[-1], index)
    start = 0
    pieces.reverse()
    while pieces:
        piece = pieces.pop()
        inside = slice(start, start + piece.nnz)
        values[inside], columns[inside] = piece.data, piece.indices
        start += piece.nnz
    return scipy.sparse.csr_array((values, columns, pointers.astype(index)), shape=shape)


def plain(values: np.ndarray, place: str) -> np.ndarray:
    """Values as a native numeric type that torch and scipy know; text and complex numbers are refused."""
    if values.dtype.kind == "O":
        try:
            values = values.astype(np.float64)
        except (TypeError, ValueError) as error:
            raise InputError(f"expected numbers in {place}, found other objects ({error}).") from error
    if values.dtype.kind not in "buif":
        raise InputError(f"expected numbers in {place}, found values of type {values.dtype}.")
    if values.dtype.kind == "f" and values.dtype.itemsize not in (4, 8):
        return values.astype(np.float32 if values.dtype.itemsize < 4 else np.float64)
    return np.asarray(values, dtype=values.dtype.newbyteorder("="))
