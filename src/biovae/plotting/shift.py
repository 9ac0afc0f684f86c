"""A new data set beside a reference: where its observations lie, and which features differ."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from biovae.plotting.canvas import (
    BLUE,
    INK,
    MUTED,
    ORANGE,
    RASTERISE_ABOVE,
    VERMILLION,
    dress,
    key,
    new_axes,
    plain,
)
from biovae.plotting.labels import place_labels

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.axes import Axes

    from biovae.analysis import Shift

BINS = 20
LEVEL = 0.05


def shift(found: Shift, *, label: int = 8, ax: Axes | None = None) -> Axes:
    """Draw what `bv.tl.shift` found: p-values of new observations, and how much of each feature's change z explains.

    Args:
        found: The comparison.
        label: How many features to name.
        ax: Axes to draw on; new ones otherwise. The panels are its `child_axes`.
    """
    ax = new_axes(ax, width=8.6, height=3.8)
    ax.set_axis_off()
    ax.set_xlabel("p-value, log2 fold change (unit of each panel)")
    ax.set_ylabel("density, log2 fold change")
    _observations(found.observations, ax.inset_axes((0, 0, 0.4, 1)))
    _features(found.features, label, ax.inset_axes((0.54, 0, 0.46, 1)))
    return ax


def _observations(frame: pd.DataFrame, ax: Axes) -> None:
    for name, color, style in (("support", BLUE, "-"), ("surprise", ORANGE, (0, (4, 2)))):
        density, edges = np.histogram(frame[f"p_{name}"].dropna(), bins=BINS, range=(0, 1), density=True)
        ax.stairs(density, edges, color=color, linewidth=1.5, linestyle=style, label=name)
    ax.axhline(1, color=INK, linewidth=0.9, linestyle=(0, (5, 3)), label="alike", zorder=0)
    ax.set_xlim(0, 1)
    ax.set_ylim(bottom=0)
    dress(ax, x="p-value among the reference", y="density of new observations")
    key(ax, columns=3)


def _features(frame: pd.DataFrame, label: int, ax: Axes) -> None:
    counts = frame["log2_fold_change"].notna().any()
    along = "log2_fold_change" if counts else "z_score"
    x, y = (frame[name].to_numpy(dtype=np.float64) for name in (along, "unexplained"))
    told = (frame["fdr"] <= LEVEL).to_numpy()
    size = float(np.clip(9_000 / max(len(x), 1), 4, 16))
    many = len(x) > RASTERISE_ABOVE
    for rows, color, name in ((~told, MUTED, "explained by z, or chance"), (told, VERMILLION, "not explained")):
        if rows.any():
            ax.scatter(x[rows], y[rows], s=size, color=color, alpha=0.6, linewidths=0, rasterized=many, label=name)
    ax.axhline(0, color=INK, linewidth=0.8, zorder=0)
    if counts:
        ends = [x.min(), x.max()]
        ax.plot(ends, ends, color=MUTED, linewidth=1.1, linestyle=(0, (5, 3)), label="nothing explained", zorder=0)
        dress(ax, x="log2 fold change of the share", y="part that z does not explain (log2)")
    else:
        dress(ax, x="change that z does not explain (standard errors)", y="the same (standard deviations)")
    key(ax, columns=2)
    named = np.flatnonzero(told)[:label]
    place_labels(ax, x[named], y[named], [plain(name, 16) for name in frame["feature"].to_numpy()[named]])
