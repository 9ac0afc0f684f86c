"""One modality of the chosen observations: gathered, passed through the gate, and laid out as the model wants it.

Sparse kinds of values become compressed rows, the others a dense float32 tensor. An observation that lacks the modality
has an empty row. Its exposure is 1, and so is that of an observation whose counts are all zero: log(0) is no number.
"""

from dataclasses import dataclass, replace

import numpy as np
import pandas as pd
import scipy.sparse
import torch
from anndata import AnnData
from mudata import MuData
from torch import Tensor

from biovae.batch import SparseMatrix
from biovae.data.containers import Matrix, gather, row_totals
from biovae.data.covariates import column
from biovae.data.features import Columns
from biovae.data.gate import SPARSE, Census, Values, blemishes, census, judge
from biovae.data.locate import Found
from biovae.errors import InputError, first
from biovae.source import Source

RELATIVE = 2.0  # times that counts exceed size factors which are no totals


@dataclass(frozen=True)
class Part:
    """One modality, ready for the model.

    Args:
        x: Values of all chosen observations.
        exposure: (obs, 1), None where the likelihood has no use for it.
        present: Which observations carry the modality; None: all.
        empty: Observations that are all zero or lack the modality.
        flat: Features that never vary.
        notices: One sentence each.
        scale: How many times size factors were taken.
    """

    x: SparseMatrix | Tensor
    exposure: Tensor | None
    present: Tensor | None
    empty: np.ndarray
    flat: np.ndarray
    notices: tuple[str, ...]
    scale: float = 1.0


def load(
    data: AnnData | MuData,
    found: Found,
    source: Source,
    columns: Columns,
    chosen: np.ndarray,
    scale: float | None = None,
) -> Part:
    """Gather, check and lay out one modality.

    Args:
        data: The caller's object, for a size factor that lives in its `obs`.
        found: The matrix.
        source: What it may hold.
        columns: Which of its columns are the features.
        chosen: Positions of the observations wanted.
        scale: How many times size factors are taken; None finds out.

    Raises:
        InputError: If a value is not allowed.
    """
    rows = chosen if found.rows is None else found.rows[chosen]
    carriers = rows >= 0
    present = None if carriers.all() else carriers
    rows = rows[carriers]
    values, x, seen = admit(found, source, columns, rows)
    notices = blemishes(seen, values, source.support)
    exposure, times = None, 1.0
    if source.exposure or source.size_factor is not None:
        asked = None if source.size_factor is None else _size_factor(data, found, source, (chosen[carriers], rows))
        exposure = _exposure(x, asked, values, carriers)
    if exposure is not None and source.size_factor is not None:
        times = _times(x, exposure[torch.from_numpy(carriers)]) if scale is None else scale
        exposure[torch.from_numpy(carriers)] *= times
        if scale is None and times != 1:
            notices.append(
                f"size factors in obs[{source.size_factor!r}] are relative, far below the counts of {values.where}: "
                f"taken {times:,.4g} times, so that they speak of counts"
            )
    return Part(
        x=_laid_out(x, columns, present),
        exposure=exposure,
        present=None if present is None else torch.from_numpy(present),
        empty=_widened(seen.empty_rows, present, fill=True),
        flat=seen.flat_columns,
        notices=tuple(notices),
        scale=times,
    )


def _times(x: Matrix, size: Tensor) -> float:
    """By how much size factors fall short of counts: 1 for totals, which no sum over features exceeds by much."""
    total = x.sum(dtype=np.float64) if isinstance(x, np.ndarray) else row_totals(x).sum()
    ratio = float(total) / max(float(size.double().sum()), np.finfo(np.float64).tiny)
    return ratio if ratio > RELATIVE else 1.0


def admit(found: Found, source: Source, columns: Columns, rows: np.ndarray) -> tuple[Values, Matrix, Census]:
    """The wanted part of a matrix in memory, after the gate.

    Args:
        found: The matrix.
        source: What it may hold.
        columns: Which of its columns are wanted.
        rows: Which of its rows.

    Raises:
        InputError: If a value is not allowed.
    """
    values, sparse = found.values, source.support in SPARSE
    everything = len(rows) == values.matrix.shape[0] and np.array_equal(rows, np.arange(len(rows)))
    x = gather(values.matrix, None if everything else rows, columns.take, sparse=sparse, place=values.where)
    names = np.asarray(values.var_names, dtype=object)
    names = names if columns.take is None else names[columns.take]
    values = replace(values, matrix=x, obs_names=np.asarray(values.obs_names, dtype=object)[rows], var_names=names)
    seen = census(x, source.support)
    judge(seen, values, source.support, allow_values=source.allow_values)
    return values, x, seen


def absent(source: Source, features: int, observations: int) -> Part:
    """A modality that none of the observations carries."""
    sparse = source.support in SPARSE
    empty = scipy.sparse.csr_array((observations, features), dtype=np.int16)
    return Part(
        x=SparseMatrix.from_scipy(empty) if sparse else torch.zeros(observations, features),
        exposure=torch.ones(observations, 1) if source.exposure or source.size_factor is not None else None,
        present=torch.zeros(observations, dtype=torch.bool),
        empty=np.ones(observations, dtype=bool),
        flat=np.ones(features, dtype=bool),
        notices=(),
    )


def _size_factor(
    data: AnnData | MuData, found: Found, source: Source, rows: tuple[np.ndarray, np.ndarray]
) -> tuple[str, pd.Series]:
    """The column to take the exposure from: of the modality if it has it, else of the whole; `rows` in either."""
    name = str(source.size_factor)
    whole, own = rows
    return name, found.obs[name].iloc[own] if name in found.obs else column(data, name).iloc[whole]


def _exposure(x: Matrix, asked: tuple[str, pd.Series] | None, values: Values, carriers: np.ndarray) -> Tensor:
    if asked is None:
        name = f"the row sums of {values.where}"
        totals = x.sum(axis=1, dtype=np.float64) if isinstance(x, np.ndarray) else row_totals(x)
        totals = np.where(totals == 0, 1.0, totals)
    else:
        name = f"obs[{asked[0]!r}], the size factor of {values.where}"
        totals = pd.to_numeric(asked[1].astype(object), errors="coerce").to_numpy(dtype=np.float64)
    wrong = np.flatnonzero(~((totals > 0) & (totals < np.finfo(np.float32).max)))
    if wrong.size:
        raise InputError(
            f"expected finite numbers above 0 in {name}, found {wrong.size} others, first {totals[wrong[0]]:.4g} "
            f"({first(values.obs_names[i] for i in wrong)}): fill them, or leave these observations out."
        )
    exposure = torch.ones(len(carriers), 1)
    exposure[torch.from_numpy(carriers), 0] = torch.from_numpy(totals.astype(np.float32))
    return exposure


def _laid_out(x: Matrix, columns: Columns, present: np.ndarray | None) -> SparseMatrix | Tensor:
    """Features in their slots, observations without the modality as rows of zeros."""
    width = len(columns.names)
    if isinstance(x, np.ndarray):
        observations = len(x) if present is None else len(present)
        if present is None and columns.slots is None:
            return torch.from_numpy(np.array(x, dtype=np.float32, order="C"))
        dense = np.zeros((observations, width), dtype=np.float32)
        rows = np.arange(observations) if present is None else np.flatnonzero(present)
        dense[np.ix_(rows, np.arange(width) if columns.slots is None else columns.slots)] = x
        return torch.from_numpy(dense)
    indices = x.indices if columns.slots is None else columns.slots[x.indices]
    lengths = _widened(np.diff(x.indptr), present, fill=0)
    pointers = np.concatenate([[0], np.cumsum(lengths, dtype=np.int64)])
    if columns.slots is None:  # still in order
        return SparseMatrix.from_parts(pointers, indices, x.data, (len(lengths), width))
    return SparseMatrix.from_scipy(scipy.sparse.csr_array((x.data, indices, pointers), shape=(len(lengths), width)))


def _widened(values: np.ndarray, present: np.ndarray | None, *, fill: int | bool) -> np.ndarray:
    if present is None:
        return values
    wide = np.full(len(present), fill, dtype=values.dtype)
    wide[present] = values
    return wide
