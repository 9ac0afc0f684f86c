"""From a column to colours: categories get a palette and a legend, numbers a colour bar, missing values grey."""

from __future__ import annotations

import re
from dataclasses import dataclass

import numpy as np
import pandas as pd

from biovae.plotting.palettes import LONGEST, OTHER, palette

FEW_INTEGERS = 12  # an integer column with no more distinct values is read as categories


@dataclass(frozen=True)
class Categories:
    """One code per observation (-1 where missing), and for every code its name, colour and size."""

    codes: np.ndarray
    names: tuple[str, ...]
    colors: tuple[str, ...]
    sizes: tuple[int, ...]

    @property
    def missing(self) -> int:
        """Observations without a value."""
        return int((self.codes < 0).sum())


def is_categorical(values: pd.Series) -> bool:
    """Whether a column is to be read as categories: everything but numbers, and integers with few distinct values."""
    if isinstance(values.dtype, pd.CategoricalDtype) or pd.api.types.is_bool_dtype(values.dtype):
        return True
    if not pd.api.types.is_numeric_dtype(values.dtype):
        return True
    return pd.api.types.is_integer_dtype(values.dtype) and values.nunique() <= FEW_INTEGERS


def categories(values: pd.Series) -> Categories:
    """The categories of a column, in their own order if it has one, else sorted with numbers in names as numbers.

    Beyond `LONGEST` categories the largest keep a colour and the rest share one, called "other".
    """
    column = values if isinstance(values.dtype, pd.CategoricalDtype) else _as_category(values)
    column = column.cat.remove_unused_categories()
    codes = column.cat.codes.to_numpy().astype(np.int64)
    names = [str(name) for name in column.cat.categories]
    sizes = np.bincount(codes[codes >= 0], minlength=len(names))
    if len(names) <= LONGEST:
        return Categories(codes, tuple(names), palette(len(names)), tuple(map(int, sizes)))
    kept = np.sort(np.argsort(-sizes, kind="stable")[: LONGEST - 1])
    lookup = np.full(len(names) + 1, len(kept))
    lookup[kept] = np.arange(len(kept))
    lookup[-1] = -1  # code -1, missing, stays missing
    rest = len(names) - len(kept)
    shown = (*(names[i] for i in kept), f"other ({rest} categories)")
    counts = (*(int(sizes[i]) for i in kept), int(sizes.sum() - sizes[kept].sum()))
    return Categories(lookup[codes], shown, (*palette(len(kept)), OTHER), counts)


def natural(name: object) -> tuple[tuple[bool, int, str], ...]:
    """A sorting key under which "cluster 9" comes before "cluster 10"."""
    parts = re.split(r"(\d+)", str(name))
    return tuple((part.isdecimal(), int(part) if part.isdecimal() else 0, part) for part in parts)


def _as_category(values: pd.Series) -> pd.Series:
    text = values.astype(object).where(values.notna(), None)
    text = text.map(str, na_action="ignore")
    return text.astype(pd.CategoricalDtype(sorted(text.dropna().unique(), key=natural)))
