"""Holes: the density along the way from each region to the next, and how low it falls between."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from biovae.errors import InputError
from biovae.plotting.canvas import BLUE, INK, MUTED, SMALL, VERMILLION, dress, key, new_axes, plain

if TYPE_CHECKING:
    from matplotlib.axes import Axes

    from biovae.analysis import Holes

MOST = 6
FIRST = ("unsupported", "supported")
COLORS = {"unsupported": VERMILLION, "supported": BLUE}


def holes(found: Holes, *, most: int = MOST, ax: Axes | None = None) -> Axes:
    """Draw the passes as dumbbells: from the lower centre down to the pass, with the interval of the depth.

    Args:
        found: What `bv.tl.holes` gave.
        most: How many passes to draw, the deepest first.
        ax: Axes to draw on; new ones otherwise.

    Raises:
        InputError: There is no pass.
    """
    frame: pd.DataFrame = found.frame.head(most)
    if frame.empty:
        raise InputError("expected a pass between two regions, found none: each way leads through a third region.")
    ax = new_axes(ax, width=5.4, height=1.2 + 0.42 * len(frame))
    row = np.arange(len(frame))[::-1]
    for call in FIRST:
        chosen = (frame["call"] == call).to_numpy()
        if not chosen.any():
            continue
        part, at = frame[chosen], row[chosen]
        ax.hlines(at, 0, part["depth"], color=COLORS[call], linewidth=1.1, alpha=0.5)
        ax.hlines(at, part["lower"], part["upper"], color=COLORS[call], linewidth=4, alpha=0.35)
        ax.scatter(part["depth"], at, s=34, color=COLORS[call], linewidths=0, zorder=3, label=f"{call} pass")
    indirect = (frame["best"] < frame["depth"] - 0.5).to_numpy()
    if indirect.any():
        way = frame["best"][indirect]
        ax.scatter(
            way, row[indirect], s=30, facecolors="none", edgecolors=INK, linewidths=1, label="by way of other regions"
        )
    ax.set_yticks(row, [f"{plain(a, 18)} – {plain(b, 18)}" for a, b in zip(frame["one"], frame["other"], strict=True)])
    ax.set_ylim(-0.6, len(frame) - 0.4)
    ax.set_xlim(left=0)
    dress(ax, x="depth below the lower centre (nats, 90 % interval)", y="pass between regions", grid="x")
    for at, support in zip(row, frame["support"], strict=True):
        ax.annotate(
            _share(support), (1, at), xycoords=("axes fraction", "data"), xytext=(4, 0), textcoords="offset points",
            va="center", fontsize=SMALL, color=INK,
        )  # fmt: skip
    ax.annotate(
        "support", (1, len(frame) - 0.62), xycoords=("axes fraction", "data"), xytext=(4, 0),
        textcoords="offset points", va="bottom", fontsize=SMALL, color=MUTED,
    )  # fmt: skip
    key(ax, columns=3)
    return ax


def _share(support: float) -> str:
    return f"{support:.2f}" if support >= 0.01 else "< 0.01"
