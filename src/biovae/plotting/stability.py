"""What is found again with other seeds: a row per group, beside what the seed has no part in."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from biovae.errors import InputError
from biovae.plotting.canvas import BLUE, INK, MUTED, SMALL, VERMILLION, dress, key, new_axes, plain

if TYPE_CHECKING:
    from matplotlib.axes import Axes

NEEDED = ("observations", "neighbours", "clusters", "stable")
EDGES = {"clusters": 0.75, "apart": 0.5}  # below: not to be relied on (Hennig 2007, doi:10.1016/j.csda.2006.11.025)
WORDS = {"clusters": "clusters", "apart": "apart in the worst fit"}
MOST = 40


def stability(groups: pd.DataFrame, *, most: int = MOST, ax: Axes | None = None) -> Axes:
    """Draw of each group how much two fits agree on: who is clustered with its observations, and who is near them.

    Filled: clusters, or of groups that were named, how far they are apart; hollow: neighbours. Small marks show each
    reference, above the row for clusters, below it for neighbours.

    Args:
        groups: A row per group, as `groups` of `bv.tl.stability`.
        most: How many groups to draw, the least stable first.
        ax: Axes to draw on; new ones otherwise.

    Raises:
        InputError: A column is missing, or there is no group.
    """
    missing = [name for name in NEEDED if name not in groups]
    if missing or groups.empty:
        raise InputError(
            f"expected groups with the columns {', '.join(NEEDED)}, found {len(groups)} groups without "
            f"{', '.join(missing) or 'any row'}: pass the groups of bv.tl.stability."
        )
    by = "apart" if "apart" in groups else "clusters"
    shown = groups.sort_values(by, kind="stable").head(most)[::-1]
    ax = new_axes(ax, width=6.4, height=1.3 + 0.3 * len(shown))
    row = np.arange(len(shown))
    stable = shown["stable"].to_numpy(dtype=bool)
    for name, rows, color in ((WORDS[by], stable, BLUE), (f"{WORDS[by]}, not stable", ~stable, VERMILLION)):
        if rows.any():
            ax.scatter(shown[by][rows], row[rows], s=42, color=color, linewidths=0, zorder=3, label=name)
    ax.scatter(
        shown["neighbours"], row, s=34, facecolors="none", edgecolors=INK, linewidths=1.1, zorder=3, label="neighbours"
    )
    for style, reference in zip(("|", "x"), _references(shown), strict=False):
        for measure, lift in (("clusters", 0.24), ("neighbours", -0.24)):
            if measure in ("neighbours", by):
                ax.plot(
                    shown[f"{measure}, {reference}"], row + lift, style, color=MUTED, markersize=5, linestyle="",
                    label=plain(reference, 60) if measure == "neighbours" else None,
                )  # fmt: skip
    ax.axvline(EDGES[by], color=INK, linewidth=0.9, linestyle=(0, (5, 3)), zorder=0)
    ax.annotate(
        "not to be relied on", (EDGES[by], len(shown) - 0.05), xytext=(-4, -1), textcoords="offset points", ha="right",
        va="top", fontsize=SMALL, color=MUTED,
    )  # fmt: skip
    ax.set_yticks(row, [f"{plain(name, 22)} ({size:,})" for name, size in shown["observations"].items()])
    ax.set_ylim(-0.6, len(shown) - 0.05)
    ax.set_xlim(0, 1.02)
    dress(ax, x="agreement of fits (share, 1 is all)", y="group (observations)", grid="x")
    key(ax, columns=1 if len(_references(shown)) else 3)
    return ax


def _references(groups: pd.DataFrame) -> list[str]:
    return [name.removeprefix("clusters, ") for name in map(str, groups.columns) if name.startswith("clusters, ")]
