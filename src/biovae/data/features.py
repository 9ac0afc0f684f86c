"""Features are matched by name: which columns of new data are those of a model, and what to say where they are not.

A repeated name is told apart by its occurrence, "A (1 of 2)" and "A (2 of 2)", so that a model remembers that its data
had two; such features are found again only in data that hold the same features in the same order.
"""

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
import pandas as pd

from biovae.data.locate import Found
from biovae.errors import InputError, closest, first
from biovae.schema import ModalitySchema

Missing = Literal["error", "zero"]
ENSEMBL = re.compile(r"^ENS[A-Z]{0,6}[EGPT]\d{6,}(\.\d+)?$")


@dataclass(frozen=True)
class Columns:
    """Columns of a matrix that become the features of a model.

    Args:
        take: Positions in the matrix; None: all, in order.
        names: The features, in the order of the model.
        slots: Where each taken column goes among the features; None: one after the other, with none left out.
    """

    take: np.ndarray | None
    names: tuple[str, ...]
    slots: np.ndarray | None = None


def told_apart(names: Sequence[str] | np.ndarray) -> np.ndarray:
    """Names that are unique: repeated ones carry their occurrence.

    >>> list(told_apart(["A", "B", "A"]))
    ['A (1 of 2)', 'B', 'A (2 of 2)']
    """
    series = pd.Series(np.asarray(names, dtype=object))
    if series.is_unique:
        return series.to_numpy()
    groups = series.groupby(series, sort=False)
    many, which = groups.transform("size"), groups.cumcount() + 1
    marked = series + " (" + which.astype(str) + " of " + many.astype(str) + ")"
    return series.where(many == 1, marked).to_numpy(dtype=object)


def choose(found: Found, wanted: Sequence[str] | np.ndarray | None) -> Columns:
    """The features to model: all, those of a mask, or those of a list of names, in the order of the data.

    Raises:
        InputError: If a name is unknown or ambiguous, or nothing is left.
    """
    names = told_apart(found.values.var_names)
    if wanted is None:
        take = None
    elif isinstance(wanted, np.ndarray) and wanted.dtype == bool:
        if wanted.shape != names.shape:
            raise InputError(
                f"expected a mask of {len(names)} features for {found.values.where}, found {wanted.size} values."
            )
        take = None if wanted.all() else np.flatnonzero(wanted)
    else:
        take = np.sort(find(names, [str(name) for name in wanted], found))
    names = names if take is None else names[take]
    if not len(names):
        raise InputError(f"expected at least one feature in {found.values.where}, found none.")
    return Columns(take, tuple(names))


def find(names: np.ndarray, wanted: Sequence[str], found: Found) -> np.ndarray:
    """Where the wanted names are; each must exist once."""
    again = pd.Index(wanted)[pd.Index(wanted).duplicated()].unique()
    if len(again):
        raise InputError(f"expected every feature once in the list, found {first(again)} more than once.")
    index = pd.Index(names)
    where = index.get_indexer(wanted)
    unknown = [name for name, i in zip(wanted, where, strict=True) if i < 0]
    if unknown:
        raw = set(found.values.var_names)  # told apart in `names`
        if twice := [name for name in unknown if name in raw]:
            raise InputError(
                f"expected each feature name once in {found.values.where}, found {first(twice)} more than once."
            )
        raise InputError(
            f"expected the features {first(wanted)} in {found.values.where}, found no {first(unknown)}: "
            + closest(unknown[0], names)
        )
    return where


def match(found: Found, modality: ModalitySchema, missing: Missing) -> tuple[Columns, list[str]]:
    """The columns that are the features of a model, by name, and notices.

    Order does not matter and extra features are ignored.

    Args:
        found: The matrix of the new data.
        modality: What the model remembers.
        missing: "error", or "zero" to read features that the data lack as 0.

    Raises:
        InputError: If features are missing, repeated, or named in another way.
    """
    wanted = modality.features
    names = told_apart(found.values.var_names)
    if len(names) == len(wanted) and np.array_equal(names, np.asarray(wanted, dtype=object)):
        return Columns(None, wanted), []
    where = pd.Index(names).get_indexer(wanted)
    _refuse_repeated(found, modality, where)
    lost = np.flatnonzero(where < 0)
    if not lost.size:
        return Columns(where, wanted), []
    _refuse_renamed(found, modality, [wanted[i] for i in lost])
    names_lost = first(wanted[i] for i in lost)
    share = f"{lost.size} of {len(wanted)} missing ({100 * lost.size / len(wanted):.1f} %: {names_lost})"
    if missing == "error" or lost.size == len(wanted):
        advice = (
            "add them, or give missing='zero' to read them as 0."
            if lost.size < len(wanted)
            else "these are other data."
        )
        raise InputError(
            f"expected the {len(wanted)} features of the model in {found.values.where}, found {share}: {advice}"
        )
    kept = np.flatnonzero(where >= 0)
    return Columns(where[kept], wanted, kept), [f"features of {found.values.where} read as 0: {share}."]


def kind(names: Sequence[str]) -> str:
    """What sort of names these are, in words."""
    hits = [m for m in map(ENSEMBL.match, names) if m]
    if len(hits) * 2 < len(names):
        return "gene symbols or other names"
    return "Ensembl ids with versions" if sum(m.group(1) is not None for m in hits) * 2 > len(hits) else "Ensembl ids"


def _refuse_repeated(found: Found, modality: ModalitySchema, where: np.ndarray) -> None:
    raw = pd.Index(found.values.var_names)
    needed = set(modality.features)
    twice = [name for name in raw[raw.duplicated()].unique() if name in needed]
    marked = [i for i, name in enumerate(modality.features) if name not in raw]  # among them "A (1 of 2)"
    seen = where[where >= 0]
    if any(where[i] >= 0 for i in marked) and (np.diff(seen) < 0).any():
        twice += [modality.features[i] for i in marked if where[i] >= 0]
    if twice:
        raise InputError(
            f"expected each feature of the model once in {found.values.where}, found {first(twice)} more than once: "
            "keep one of each, or rename them."
        )


def _refuse_renamed(found: Found, modality: ModalitySchema, lost: Sequence[str]) -> None:
    """Missing features that the data do hold, in another spelling or in another column of `var`."""
    wanted, raw = modality.features, [str(name) for name in found.values.var_names]
    size = len(wanted)
    overlap = 100 * (1 - len(lost) / size)
    for change, how in SPELLINGS:
        there = {change(name): name for name in raw}
        pairs = [(name, there[change(name)]) for name in lost if change(name) in there]
        if pairs:
            raise InputError(
                f"expected the names of the model ({kind(wanted)}) in {found.values.where}, found {kind(raw)}: "
                f"{overlap:.1f} % match as they are, {overlap + 100 * len(pairs) / size:.1f} % {how}, for example "
                f"{first(other for _, other in pairs)} for {first(name for name, _ in pairs)}: rename var_names."
            )
    for name, values in _text(found.var):
        hits = len(set(values) & set(wanted))
        if hits > size - len(lost):
            raise InputError(
                f"expected the names of the model ({kind(wanted)}) in {found.values.where}, found {kind(raw)}: "
                f"{overlap:.1f} % match var_names, {100 * hits / size:.1f} % match var[{name!r}]: use those."
            )


def _unversioned(name: str) -> str:
    return name.partition(".")[0] if ENSEMBL.match(name) else name


SPELLINGS: tuple[tuple[Callable[[str], str], str], ...] = (
    (_unversioned, "without versions"),
    (str.strip, "without surrounding spaces"),
    (str.casefold, "without regard to case"),
)


def _text(var: pd.DataFrame | None) -> list[tuple[str, pd.Series]]:
    if var is None:
        return []
    text = [name for name in var.columns if not pd.api.types.is_numeric_dtype(var[name].dtype)]
    return [(str(name), var[name].astype(str)) for name in text]
