"""What each latent dimension moves, and what it goes with: a row per dimension, features on the left, columns right."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from biovae.errors import InputError
from biovae.plotting.canvas import BLUE, INK, MUTED, NORMAL, PAPER, SMALL, VERMILLION, new_axes, plain

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.axes import Axes

    from biovae.analysis import Dimensions

SIDE = 4  # features each way
GAP = 0.3  # of a cell, between falling and rising features
NOTE = "(in brackets: no sign is sure)    grey: share of the rank variance of z that a column explains"
MOST_COLUMNS = 10
MOST_DIMENSIONS = 20
WIDTH, ROW, LEAST = 9.4, 0.3, 2.6  # inches


def dimensions(found: Dimensions, *, ax: Axes | None = None) -> Axes:
    """Draw the active dimensions, widest first: the features that each moves most, and what it goes with.

    A feature's cell is the darker the more it tells of z_d, blue where it falls as z_d rises and vermillion where it
    rises; one whose sign changes over the map, or with what the weights may be, is set in brackets. On the right stands
    the share of the dimension's rank variance that a column of `obs` explains.

    Args:
        found: From `bv.tl.dimensions`.
        ax: Axes to draw on; new ones otherwise. The two tables are its `child_axes`.

    Raises:
        InputError: No dimension is active.
    """
    order = found.summary[found.summary["active"]].sort_values("spread", ascending=False, kind="stable").index
    if not len(order):
        raise InputError("expected an active dimension, found none: the latent space has collapsed, see vae.diagnose.")
    order = order[:MOST_DIMENSIONS]
    columns = _strongest(found.associations)
    height = max(1.1 + ROW * len(order), LEAST)
    ax = new_axes(ax, width=WIDTH, height=height)
    ax.set_axis_off()
    ax.set_xlabel("feature, or column of obs")
    ax.set_ylabel("latent dimension (counted from 0)")
    share = 0.06 * max(len(columns), 2) if len(columns) <= 5 else 0.33
    bottom, top = 0.25 / height, 0.75 / height  # inches for the note and for the names of columns
    left = ax.inset_axes((0.06, bottom, 0.92 - share if columns else 0.94, 1 - bottom - top))
    _features(left, found, order)
    if columns:
        right = ax.inset_axes((1.0 - share, bottom, share, 1 - bottom - top))
        _columns(right, found.associations, (order, columns))
    ax.text(0.06, 0, NOTE, transform=ax.transAxes, fontsize=SMALL - 0.5, color=INK, alpha=0.75, va="bottom")
    return ax


def _features(ax: Axes, found: Dimensions, order: pd.Index) -> None:
    for row, d in enumerate(order):
        top = found.top(int(d), SIDE)
        up, down = top[top["score"] > 0], top[top["score"] < 0].iloc[::-1]
        largest = float(top["score"].abs().max()) if len(top) else 1.0
        for side, start, step in ((down, SIDE - 1.0, -1), (up, SIDE + GAP, 1)):
            for place, feature in enumerate(side.to_dict("records")):
                _cell(ax, start + step * place, row, feature, largest)
    ax.axvline(SIDE - 0.5 + GAP / 2, color=MUTED, linewidth=0.7)
    _frame(ax, len(order), 2 * SIDE + GAP)
    ax.set_yticks(range(len(order)), [str(d) for d in order])
    ax.set_xticks([(SIDE - 1) / 2, SIDE + GAP + (SIDE - 1) / 2], ["falls as z rises", "rises with z"])
    ax.set_ylabel("latent dimension (counted from 0)", fontsize=NORMAL, color=INK)


def _cell(ax: Axes, x: float, row: int, feature: dict[str, Any], largest: float) -> None:
    depth = abs(feature["score"]) / largest
    color = VERMILLION if feature["score"] > 0 else BLUE
    _rectangle(ax, x, row, color, 0.12 + 0.6 * depth)
    name = plain(feature["feature"], 11)
    ax.text(x, row, name if feature["sign"] else f"({name})", ha="center", va="center", fontsize=SMALL - 1, color=INK)


def _columns(ax: Axes, frame: pd.DataFrame, what: tuple[pd.Index, list[str]]) -> None:
    order, columns = what
    table = frame.pivot(index="dimension", columns="column", values="strength").loc[order, columns].to_numpy()
    for row, values in enumerate(table):
        for x, value in enumerate(values):
            _rectangle(ax, x, row, INK, 0.8 * float(np.nan_to_num(value)))
            color = PAPER if value > 0.55 else INK
            ax.text(x, row, f"{value:.0%}", ha="center", va="center", fontsize=SMALL - 1, color=color)
    _frame(ax, len(order), len(columns))
    ax.set_yticks([])
    ax.set_xticks(range(len(columns)), [plain(c, 22) for c in columns], rotation=30, ha="left", rotation_mode="anchor")


def _strongest(frame: pd.DataFrame) -> list[str]:
    """The columns that explain most of any dimension, strongest first."""
    if frame.empty:
        return []
    best = frame.groupby("column", sort=False)["strength"].max().sort_values(ascending=False, kind="stable")
    return [*best.index[:MOST_COLUMNS]]


def _rectangle(ax: Axes, x: float, y: float, color: str, alpha: float) -> None:
    from matplotlib.patches import Rectangle

    ax.add_patch(Rectangle((x - 0.48, y - 0.46), 0.96, 0.92, facecolor=color, alpha=alpha, linewidth=0))


def _frame(ax: Axes, rows: int, columns: float) -> None:
    ax.set_facecolor("none")
    ax.spines[:].set_visible(False)
    ax.set_xlim(-0.5, columns - 0.5)
    ax.set_ylim(rows - 0.5, -0.5)
    ax.xaxis.tick_top()
    ax.tick_params(length=0, labelsize=SMALL, labelcolor=INK)
