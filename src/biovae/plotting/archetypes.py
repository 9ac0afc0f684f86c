"""How much of each archetype the groups hold."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from biovae.plotting.canvas import SMALL, dress, key, new_axes, plain
from biovae.plotting.palettes import palette

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.axes import Axes

WRITTEN = 0.12  # share from which on it is written into its bar


def archetypes(groups: pd.DataFrame, *, ax: Axes | None = None) -> Axes:
    """Draw a bar per group, cut into the mean weights of the archetypes.

    Args:
        groups: (groups, archetypes), rows sum to 1: `groups` of what `bv.tl.archetypes` gave.
        ax: Axes to draw on; new ones otherwise.
    """
    ax = new_axes(ax, width=5.4, height=1.3 + 0.27 * len(groups))
    row = np.arange(len(groups))[::-1]
    left = np.zeros(len(groups))
    for name, colour in zip(groups, palette(len(groups.columns)), strict=True):
        share = groups[name].to_numpy(dtype=np.float64)
        ax.barh(row, share, left=left, height=0.78, color=colour, label=plain(name, 20), linewidth=0)
        for at, start, part in zip(row, left, share, strict=True):
            if part >= WRITTEN:
                ink = "#111111" if _light(colour) else "#ffffff"  # on a bar, whatever the page
                ax.text(start + part / 2, at, f"{part:.0%}", ha="center", va="center", fontsize=SMALL, color=ink)
        left = left + share
    ax.set_yticks(row, [plain(name, 24) for name in groups.index])
    ax.set_xlim(0, 1)
    ax.set_ylim(-0.6, len(groups) - 0.4)
    dress(ax, x="mean weight of the archetypes (fraction)", y="group of observations", grid="none")
    key(ax, columns=min(4, len(groups.columns)))
    return ax


def _light(colour: str) -> bool:
    red, green, blue = (int(colour[i : i + 2], 16) for i in (1, 3, 5))
    return 0.299 * red + 0.587 * green + 0.114 * blue > 130
