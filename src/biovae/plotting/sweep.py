"""The rate-distortion curve of a sweep over beta, and what each beta is worth beside PCA and ICA."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from biovae.plotting.canvas import (
    BLUE,
    GREEN,
    INK,
    MUTED,
    NORMAL,
    ORANGE,
    SMALL,
    VERMILLION,
    dress,
    halo,
    key,
    new_axes,
    thousands,
)

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.axes import Axes

    from biovae.analysis import Sweep

MEASURES = {
    "reconstruction": ("reconstruction", BLUE, "o"),
    "accuracy": ("label accuracy", GREEN, "s"),
    "mig": ("MIG", VERMILLION, "^"),
}


def sweep(found: Sweep, *, ax: Axes | None = None) -> Axes:
    """Draw distortion against rate, a point per beta; on a figure of its own, the scores of every beta beside it.

    The dashed line joins all pairs with the bound of the best beta: what lies above it is a worse model of the data,
    however it divides the cost. On the right a dashed line is PCA or ICA, whichever scores higher.

    Args:
        found: From `bv.tl.sweep`.
        ax: Axes to draw the curve on; a new figure with both pictures otherwise (`ax.figure.axes`).
    """
    curve, alone = found.curve, ax is None
    if ax is None:
        figure = new_axes(width=9.4, height=3.6).figure
        figure.clear()
        ax, beside = figure.subplots(1, 2, width_ratios=[1.15, 1])
    _curve(ax, found, curve)
    if alone:
        _scores(beside, found, curve)
    return ax


def _curve(ax: Axes, found: Sweep, curve: pd.DataFrame) -> None:
    rate, distortion = curve["rate"].to_numpy(), curve["distortion"].to_numpy()
    total = float((rate + distortion).min())
    ends = np.array([0.0, rate.max() * 1.05 if rate.max() > 0 else 1.0])
    ax.plot(ends, total - ends, color=INK, linewidth=1, linestyle=(0, (5, 3)), label="equal bound")
    ax.plot(rate, distortion, "-", color=MUTED, linewidth=1.2)
    ax.plot(rate, distortion, "o", color=BLUE, markersize=5, label="a beta")
    marks = {"for imputation": (found.imputation, ORANGE, "D"), "for discovery": (found.discovery, VERMILLION, "s")}
    for label, (beta, color, marker) in marks.items():
        at = curve.loc[beta]
        ax.plot(
            at["rate"], at["distortion"], marker, color=color, markersize=9, label=label, linestyle="",
            fillstyle="none", markeredgewidth=1.8,
        )  # fmt: skip
    for beta, row in curve.iterrows():
        said = f"{beta:g} ({row['active']:.3g})"
        ax.annotate(
            said, (row["rate"], row["distortion"]), xytext=(6, 5), textcoords="offset points", fontsize=SMALL,
            color=INK, path_effects=halo(),
        )  # fmt: skip
    margin = 0.12 * (np.ptp(distortion) or 1.0)
    ax.set_ylim(distortion.min() - margin, distortion.max() + margin)
    ax.set_xlim(-0.05 * ends[1], 1.12 * ends[1])
    dress(ax, x="rate (nats per observation)", y="distortion (nats per observation)")
    ax.yaxis.set_major_formatter(thousands)
    ax.text(0.98, 0.97, "beta (active units)", transform=ax.transAxes, ha="right", va="top", fontsize=SMALL, color=INK)
    key(ax, columns=4)


def _scores(ax: Axes, found: Sweep, curve: pd.DataFrame) -> None:
    place = np.arange(len(curve))
    linear = found.frame[found.frame["method"] != "VAE"]
    for name, (label, color, marker) in MEASURES.items():
        if name not in curve or curve[name].isna().all():
            continue
        ax.plot(place, curve[name], marker=marker, color=color, label=label, linewidth=1.5, markersize=4.5)
        rival = linear[name].max() if name in linear else np.nan
        if np.isfinite(rival):
            ax.axhline(rival, color=color, linewidth=1, linestyle=(0, (4, 2)), alpha=0.8)
    ax.set_xticks(place, [f"{beta:g}" for beta in curve.index])
    ax.set_ylim(bottom=min(0.0, ax.get_ylim()[0]))
    dress(ax, x="beta", y="score (fraction; dashed: PCA or ICA)")
    ax.xaxis.label.set_fontsize(NORMAL)
    key(ax, columns=3)
