"""The data gate: every value that a model will see is looked at once, before fitting, and never again.

    non-finite     NaN, infinity, or beyond single precision: never allowed
    negative       refused for counts, 0/1 values and categories
    fractional     refused there too, unless the source says `allow_values=True`
    above one      refused for 0/1 values

What cannot be fitted is an `InputError` that says how many, where first, and what to do. What can be fitted but
deserves a look (observations and features that are all zero, repeated names) comes back as a notice.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

import numpy as np
import pandas as pd
import scipy.sparse

from biovae.data.containers import Matrix, blocks, gather, size
from biovae.errors import InputError, first
from biovae.schema import Support

FORBIDDEN = {
    Support.REALS: ("non-finite",),
    Support.COUNTS: ("non-finite", "negative", "fractional"),
    Support.CATEGORIES: ("non-finite", "negative", "fractional"),
    Support.BINARY: ("non-finite", "negative", "above one", "fractional"),
}
OnBad = Literal["keep", "raise", "drop"]
SPARSE = (Support.COUNTS, Support.BINARY)  # mostly zeros, kept as compressed rows; the others are kept as arrays
LOG1P = 20.0  # log1p of counts per million stays below 13.8; raw counts of a whole data set hardly ever do
REAL = "fit them as real numbers (bv.continuous(), --modality continuous)"
LARGEST = float(np.finfo(np.float32).max)
PIECE = 4096  # rows read from disk at a time when a matrix is only checked
PIECE_ENTRIES = 2**17  # of a sparse matrix


@dataclass(frozen=True)
class Values:
    """A matrix on its way through the gate, with the names that a message needs.

    Args:
        matrix: Any container, observations x features.
        obs_names: One name per row.
        var_names: One name per column.
        where: The matrix in words, for example "X of modality 'rna'".
        layers_hint: Names of the places that do hold counts; called only for an error message.
    """

    matrix: Any
    obs_names: np.ndarray
    var_names: np.ndarray
    where: str = "X"
    layers_hint: Callable[[], Sequence[str]] | None = None


@dataclass
class _Fault:
    """Values of one forbidden kind: how many, and the first three of them."""

    count: int = 0
    shown: list[tuple[int, int, float]] = field(default_factory=list)


@dataclass
class Census:
    """What the gate saw: the forbidden values, and which rows and columns hold nothing."""

    faults: dict[str, _Fault]
    nonzero: int
    largest: float
    empty_rows: np.ndarray
    flat_columns: np.ndarray
    first_row: np.ndarray | None  # of dense values: what a constant column has to equal

    def forbidden(self, support: Support, *, allow_values: bool = False) -> dict[str, _Fault]:
        """The faults that such values must not have and these do, the gravest first."""
        kinds = [kind for kind in FORBIDDEN[support] if not (allow_values and kind == "fractional")]
        return {kind: self.faults[kind] for kind in kinds if self.faults[kind].count}


def check_values(values: Values, support: Support, *, allow_values: bool = False, on_bad: OnBad = "keep") -> list[str]:
    """Check a whole matrix in bounded memory, wherever it lives; returns notices.

    Args:
        values: The matrix and its names.
        support: Which values are allowed.
        allow_values: Allow counts that are not whole.
        on_bad: "raise" makes errors of the notices; "keep" and "drop" return them.

    Raises:
        InputError: If a value is not allowed.
    """
    rows, _ = size(values.matrix, values.where)
    step = max(rows, 1) if scipy.sparse.issparse(values.matrix) else PIECE
    seen = None
    for start in range(0, max(rows, 1), step):
        index = None if rows <= step else np.arange(start, min(rows, start + step))
        piece = gather(values.matrix, index, None, sparse=support in SPARSE, place=values.where)
        seen = _joined(seen, census(piece, support, start=start))
    assert seen is not None
    judge(seen, values, support, allow_values=allow_values)
    notes = blemishes(seen, values, support)
    notes += repeated(values.obs_names, f"observation names of {values.where}")
    return settle(notes + repeated(values.var_names, f"feature names of {values.where}"), on_bad)


def census(matrix: Matrix, support: Support, *, start: int = 0) -> Census:
    """Look at every value of a matrix in memory; `start` is the position of its first row in the data."""
    dense = isinstance(matrix, np.ndarray)
    seen = Census(
        faults={kind: _Fault() for kind in FORBIDDEN[Support.BINARY]},
        nonzero=0,
        largest=0.0,
        empty_rows=_empty(matrix),
        flat_columns=np.ones(matrix.shape[1], dtype=bool),
        first_row=matrix[0] if dense and matrix.shape[0] else None,
    )
    for offset, block in blocks(matrix):
        if block.shape[0] and block.shape[1]:
            _look(block, support, seen, start + offset)
            _strike(seen, block)
    return seen


def judge(seen: Census, values: Values, support: Support, *, allow_values: bool) -> None:
    """Refuse what the support does not allow."""
    bad = seen.forbidden(support, allow_values=allow_values)
    if "non-finite" in bad:
        raise InputError(
            f"expected finite numbers in {values.where}, found {bad['non-finite'].count} that are NaN, infinite or "
            f"beyond single precision, {_places(bad['non-finite'], values)}: fill or remove them."
        )
    if "negative" in bad:
        raise InputError(
            f"expected {_expected(support)} in {values.where}, found {bad['negative'].count} negative values, "
            f"{_places(bad['negative'], values)}: {_advice(values, f'give the untransformed values, or {REAL}.')}"
        )
    if "above one" in bad:
        raise InputError(
            f"expected {_expected(support)} in {values.where}, found {bad['above one'].count} values above 1, "
            f"{_places(bad['above one'], values)}: binarise the data, or choose a likelihood for counts."
        )
    if "fractional" in bad:
        share = 100 * bad["fractional"].count / max(1, seen.nonzero)
        looks = "looks log1p-normalised" if seen.largest < LOG1P else "looks normalised"
        raise InputError(
            f"expected {_expected(support)} in {values.where}, found {share:.1f} % of the non-zero values not whole, "
            f"{_places(bad['fractional'], values)} (largest {seen.largest:.4g}: {looks}): "
            + _advice(values, f"give the raw counts, or {REAL} or as counts (allow_values=True, --allow-values).")
        )


def blemishes(seen: Census, values: Values, support: Support) -> list[str]:
    """What can be fitted and deserves a look."""
    notes = []
    empty, flat = np.flatnonzero(seen.empty_rows), np.flatnonzero(seen.flat_columns)
    if empty.size:
        names = first(values.obs_names[i] for i in empty)
        notes.append(f"all-zero observations in {values.where}: {empty.size} ({names}).")
    if flat.size and len(values.obs_names) > 1:
        state = "all-zero" if support in SPARSE else "constant"
        notes.append(f"{state} features in {values.where}: {flat.size} ({first(values.var_names[i] for i in flat)}).")
    return notes


def repeated(names: np.ndarray, what: str) -> list[str]:
    """A notice about names that occur more than once."""
    index = pd.Index(names, dtype=object)
    twice = index[index.duplicated()].unique()
    return [f"repeated {what}: {len(twice)} ({first(twice)})."] if len(twice) else []


def settle(notes: list[str], on_bad: OnBad) -> list[str]:
    """Notices as they are, or as one error for those who are strict."""
    if notes and on_bad == "raise":
        raise InputError("expected clean data because of on_bad='raise', found: " + " ".join(notes))
    return notes


def _empty(matrix: Matrix) -> np.ndarray:
    if isinstance(matrix, np.ndarray):
        return np.zeros(len(matrix), dtype=bool)
    return np.diff(matrix.indptr) == 0


def _look(block: Matrix, support: Support, seen: Census, start: int) -> None:
    data = block if isinstance(block, np.ndarray) else block.data
    if data.size == 0:
        return
    with np.errstate(invalid="ignore"):
        low, high = float(data.min()), float(data.max())  # NaN comes through
    finite = abs(low) <= LARGEST and abs(high) <= LARGEST
    if not finite:
        _count(seen.faults["non-finite"], ~(np.abs(data) <= LARGEST), block, start)
        return
    seen.largest = max(seen.largest, high)
    if support is Support.REALS:
        return
    seen.nonzero += data.size
    if low < 0:
        _count(seen.faults["negative"], data < 0, block, start)
    if high > 1 and support is Support.BINARY:
        _count(seen.faults["above one"], data > 1, block, start)
    if data.dtype.kind == "f":
        broken = data != np.rint(data)
        if broken.any():
            _count(seen.faults["fractional"], broken, block, start)


def _strike(seen: Census, block: Matrix) -> None:
    """Columns of this block that vary are not flat; entries are passed over once no column is left."""
    if isinstance(block, np.ndarray):
        seen.flat_columns &= (block == seen.first_row).all(axis=0)
        return
    for start in range(0, block.indices.size, PIECE_ENTRIES):
        if not seen.flat_columns.any():
            return
        seen.flat_columns[block.indices[start : start + PIECE_ENTRIES]] = False


def _count(fault: _Fault, wrong: np.ndarray, block: Matrix, start: int) -> None:
    fault.count += int(np.count_nonzero(wrong))
    for entry in np.flatnonzero(wrong)[: 3 - len(fault.shown)]:
        if isinstance(block, np.ndarray):
            row, column = np.unravel_index(entry, block.shape)
            value = block[row, column]
        else:
            row = np.searchsorted(block.indptr, entry, side="right") - 1
            column, value = block.indices[entry], block.data[entry]
        fault.shown.append((start + int(row), int(column), float(value)))


def _joined(seen: Census | None, more: Census) -> Census:
    """Two censuses of consecutive rows as one."""
    if seen is None:
        return more
    for kind, fault in more.faults.items():
        seen.faults[kind].count += fault.count
        seen.faults[kind].shown += fault.shown[: 3 - len(seen.faults[kind].shown)]
    seen.nonzero += more.nonzero
    seen.largest = max(seen.largest, more.largest)
    seen.empty_rows = np.concatenate([seen.empty_rows, more.empty_rows])
    seen.flat_columns &= more.flat_columns
    if seen.first_row is not None and more.first_row is not None:
        seen.flat_columns &= seen.first_row == more.first_row
    return seen


def _places(fault: _Fault, values: Values) -> str:
    names = [
        f"{value:.4g} for observation {str(values.obs_names[row])!r}, feature {str(values.var_names[column])!r}"
        for row, column, value in fault.shown
    ]
    return "first " + "; ".join(names)


def _expected(support: Support) -> str:
    return {Support.BINARY: "0 or 1", Support.CATEGORIES: "codes 0, 1, 2, ..."}.get(support, "counts (0, 1, 2, ...)")


def _advice(values: Values, otherwise: str) -> str:
    hints = list(values.layers_hint()) if values.layers_hint else []
    return f"{' and '.join(hints)} {'hold' if len(hints) > 1 else 'holds'} counts, use that." if hints else otherwise
