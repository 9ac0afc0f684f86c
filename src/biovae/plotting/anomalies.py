"""Odd observations: p-values of each kind, where the odd ones lie, and what the scores are worth."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from biovae.plotting.canvas import (
    BLUE,
    GREEN,
    INK,
    MUTED,
    ORANGE,
    PURPLE,
    RASTERISE_ABOVE,
    SMALL,
    VERMILLION,
    dress,
    key,
    new_axes,
    plain,
)

if TYPE_CHECKING:
    from matplotlib.axes import Axes

    from biovae.analysis import Anomalies

COLORS = {"surprise": VERMILLION, "misfit": GREEN, "depth": PURPLE, "support": BLUE, "doublet": ORANGE}
BINS = 20
FAR = 20.0  # standard deviations and nats beyond which points are drawn at the edge


def anomalies(found: Anomalies, *, fdr: float = 0.1, ax: Axes | None = None) -> Axes:
    """Draw what `bv.tl.anomalies` found: p-values, scores with those called, and trials on simulated doublets.

    Args:
        found: The scores.
        fdr: Expected share of false calls up to which observations are coloured, kind by kind.
        ax: Axes to draw on; new ones otherwise. The panels are its `child_axes`.
    """
    tried = not found.trials.empty
    ax = new_axes(ax, width=11.4 if tried else 7.6, height=3.6)
    ax.set_axis_off()
    ax.set_xlabel("p-value, score, AUROC (unit of each panel)")
    ax.set_ylabel("density, score, name of a score")
    width = 0.24 if tried else 0.42
    _p_values(found, ax.inset_axes((0, 0, width, 1)))
    _scores(found, fdr, ax.inset_axes((0.32 if tried else 0.56, 0, width, 1)))
    if tried:
        _trials(found.trials, ax.inset_axes((0.78, 0, 0.22, 1)))
    return ax


def _p_values(found: Anomalies, ax: Axes) -> None:
    asked = found.frame["fdr"].notna()
    for kind in found.kinds:
        density, edges = np.histogram(found.frame[f"p_{kind}"][asked], bins=BINS, range=(0, 1), density=True)
        ax.stairs(density, edges, color=COLORS[kind], linewidth=1.6, label=kind)
    ax.axhline(1, color=INK, linewidth=1.1, linestyle=(0, (5, 3)), label="ordinary")
    ax.set_xlim(0, 1)
    ax.set_ylim(bottom=0)
    dress(ax, x="p-value (probability)", y="density (1 = uniform)", grid="y")
    key(ax, columns=2)


def _scores(found: Anomalies, fdr: float, ax: Axes) -> None:
    frame = found.frame
    x = np.clip(frame["surprise"].to_numpy(dtype=np.float64), -FAR, FAR)
    y, name = (frame["doublet"], "doublet (log odds)") if "doublet" in frame else (frame["rarity"], "rarity (nats)")
    y = np.clip(y.to_numpy(dtype=np.float64), -FAR, None)
    called = pd.DataFrame({kind: frame[f"fdr_{kind}"] <= fdr for kind in found.kinds})
    kinds = pd.DataFrame({kind: frame[f"p_{kind}"] for kind in found.kinds}).where(called.to_numpy(), np.inf)
    kind = np.where(called.any(axis=1), kinds.columns.to_numpy()[kinds.to_numpy().argmin(1)], "no call")
    size = float(np.clip(9_000 / max(len(frame), 1), 4, 16))
    for of, color in {"no call": MUTED, **COLORS}.items():
        rows = kind == of
        if rows.any():
            ax.scatter(
                x[rows], y[rows], s=size, color=color, alpha=0.4 if of == "no call" else 0.8, linewidths=0,
                label=f"{of} ({rows.sum():,})", rasterized=len(frame) > RASTERISE_ABOVE,
            )  # fmt: skip
    dress(ax, x="surprise (standard deviations of replicates)", y=name)
    key(ax, columns=2)


def _trials(frame: pd.DataFrame, ax: Axes) -> None:
    frame = frame.iloc[::-1]
    row = np.arange(len(frame))
    ax.scatter(frame["homotypic"], row, s=22, facecolors="none", edgecolors=MUTED, label="homotypic")
    for simple, color, label in ((False, BLUE, "heterotypic"), (True, GREEN, "heterotypic, no model")):
        chosen = (frame["simple"] == simple).to_numpy()
        ax.scatter(frame["heterotypic"][chosen], row[chosen], s=30, color=color, linewidths=0, label=label)
    ax.axvline(0.5, color=INK, linewidth=1.1, linestyle=(0, (5, 3)))
    ax.set_yticks(row, [plain(name, 30) for name in frame["score"]])
    ax.set_ylim(-0.6, len(frame) - 0.4)
    ax.set_xlim(min(0.45, float(frame[["heterotypic", "homotypic"]].min().min()) - 0.03), 1.02)
    dress(ax, x="AUROC for simulated doublets", y="", grid="x")
    ax.tick_params(axis="y", labelsize=SMALL - 0.5)
    key(ax, columns=2)
