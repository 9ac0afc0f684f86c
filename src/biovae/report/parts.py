"""What a page is put together from: sections of pictures, tables and sentences; and how numbers are written."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from numbers import Real
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from biovae.plotting import svg

if TYPE_CHECKING:
    from matplotlib.axes import Axes


@dataclass(frozen=True)
class Picture:
    """An SVG element, what it shows for those who cannot see it, and the sentence below it."""

    svg: str
    alt: str
    caption: str
    wide: bool = False


@dataclass(frozen=True)
class Table:
    """Headings, and rows of cells that are text already; `numeric` columns are set flush right."""

    headings: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    numeric: tuple[bool, ...]
    caption: str = ""
    folded: bool = False


@dataclass(frozen=True)
class Section:
    """One heading of the page and what stands under it; `lead` says how to read it."""

    key: str
    title: str
    lead: str
    pictures: tuple[Picture, ...] = ()
    tables: tuple[Table, ...] = ()
    notes: tuple[str, ...] = ()
    layout: str = ""  # "three": narrow pictures in threes; "beside": the first table stands beside the picture


@dataclass(frozen=True)
class Tile:
    """One number at the top of the page."""

    name: str
    value: str
    unit: str = ""


def picture(ax: Axes, key: str, alt: str, caption: str, *, wide: bool = False) -> Picture:
    """The figure of these axes, ready for the page; `key` is unique on it."""
    return Picture(svg(ax.figure, prefix=key, label=alt), alt, caption, wide)


def number(value: Any, digits: int = 3) -> str:
    """A number for people: thousands separated, `digits` significant ones, a dash for what is not there.

    >>> number(1234567), number(-690.123, 4), number(0.00012345), number(None), number(True), number(2.0)
    ('1,234,567', '-690.1', '0.000123', '-', 'yes', '2')
    """
    if value is None or value is pd.NA or value is pd.NaT:
        return "-"
    if isinstance(value, bool | np.bool_):
        return "yes" if value else "no"
    if not isinstance(value, Real):
        return str(value)
    value = float(value)
    if math.isnan(value):
        return "-"
    if math.isinf(value):
        return "∞" if value > 0 else "-∞"
    if value == int(value) and abs(value) < 1e15:
        return f"{int(value):,}"
    if abs(value) >= 1e6 or abs(value) < 1e-4:
        return f"{value:.{digits - 1}e}"
    decimals = max(digits - 1 - math.floor(math.log10(abs(value))), 0)
    return f"{value:,.{decimals}f}"


def percent(fraction: float) -> str:
    """A fraction as a percentage.

    >>> percent(0.9876).split(), percent(float("nan"))  # the space between does not break
    (['98.8', '%'], '-')
    """
    return "-" if math.isnan(fraction) else f"{100 * fraction:.1f}\N{NO-BREAK SPACE}%"


def frame_table(
    frame: pd.DataFrame, headings: Mapping[str, str], *, caption: str = "", folded: bool = False, digits: int = 3
) -> Table:
    """A table of the columns that are both named in `headings` and in the frame."""
    names = [name for name in headings if name in frame]
    numeric = tuple(pd.api.types.is_numeric_dtype(frame[name]) for name in names)
    rows = zip(*(frame[name] for name in names), strict=True)
    return Table(tuple(headings[name] for name in names), _cells(rows, digits), numeric, caption, folded)


def plain_table(headings: Iterable[str], rows: Iterable[Iterable[Any]], numeric: Iterable[bool]) -> Table:
    """A table of values that are written as `number` writes them."""
    return Table(tuple(headings), _cells(rows), tuple(numeric))


def _cells(rows: Iterable[Iterable[Any]], digits: int = 3) -> tuple[tuple[str, ...], ...]:
    return tuple(tuple(number(value, digits) for value in row) for row in rows)
