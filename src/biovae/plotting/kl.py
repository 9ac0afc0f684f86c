"""What each latent dimension carries: its KL divergence from the prior."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from biovae.plotting.canvas import BLUE, INK, MUTED, SMALL, dress, key, new_axes

if TYPE_CHECKING:
    from matplotlib.axes import Axes

MOST_TICKS = 40


def kl(kl_per_dimension: np.ndarray, active: np.ndarray | None = None, *, ax: Axes | None = None) -> Axes:
    """Draw the mean KL of every latent dimension, largest first; dimensions that are not in use are hatched.

    Args:
        kl_per_dimension: Nats per observation, (latent,).
        active: Which dimensions are in use, (latent,); all of them where it is not given.
        ax: Axes to draw on; new ones otherwise.
    """
    heights = np.asarray(kl_per_dimension, dtype=np.float64)
    active = np.ones(len(heights), dtype=bool) if active is None else np.asarray(active, dtype=bool)
    order = np.argsort(-heights, kind="stable")
    place = np.arange(len(heights))
    used = active[order]
    ax = new_axes(ax, width=9.4, height=2.9)
    ax.bar(place[used], heights[order][used], width=0.72, color=BLUE, label=f"active ({used.sum()})")
    if not used.all():
        ax.bar(
            place[~used], heights[order][~used], width=0.72, facecolor="none", edgecolor=MUTED, hatch="////",
            linewidth=0.8, label=f"unused ({(~used).sum()})",
        )  # fmt: skip
        for at in place[~used] if len(heights) <= MOST_TICKS else ():
            height = max(heights[order][at], 0)
            ax.annotate("×", (at, height), xytext=(0, 1), textcoords="offset points", ha="center", color=INK)
    step = -(-len(heights) // MOST_TICKS)
    ax.set_xticks(place[::step], [str(dimension) for dimension in order[::step]])
    ax.set_xlim(-0.6, len(heights) - 0.4)
    ax.set_ylim(bottom=min(0.0, float(np.nanmin(heights, initial=0.0))))
    dress(ax, x="latent dimension (counted from 0)", y="KL (nats per observation)", grid="y")
    ax.tick_params(axis="x", labelsize=SMALL)
    key(ax)
    return ax
