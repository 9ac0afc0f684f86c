"""PCA against VAE, and likelihoods against each other: a dot per score, each on a scale that makes it readable."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from biovae.errors import InputError
from biovae.plotting.canvas import BLUE, INK, MUTED, NORMAL, ORANGE, SMALL, dress, new_axes, plain, thousands

if TYPE_CHECKING:
    from matplotlib.axes import Axes

MEASURES = ("measure", "pca", "vae")
SCORES = ("name", "mean", "se")
TWO_SIDED_95 = 1.96


def comparison(frame: pd.DataFrame, *, ax: Axes | None = None) -> Axes:
    """Draw every measure of PCA and of the VAE on a row of its own, with its own scale.

    Args:
        frame: A row per measure: `measure`, `pca`, `vae`, and where known `unit` and `better` ("higher" or "lower").
        ax: Axes to draw on; new ones otherwise. The rows are its `child_axes`.

    Raises:
        InputError: A column is missing.
    """
    _expect(frame, MEASURES)
    ax = new_axes(ax, width=9.4, height=0.7 + 0.62 * max(len(frame), 1))
    ax.set_axis_off()
    step = 1 / max(len(frame), 1)
    for place, row in enumerate(frame.to_dict("records")):
        _row(ax.inset_axes((0.34, 1 - (place + 0.62) * step, 0.64, 0.24 * step)), row, first=place == 0)
    ax.set_xlabel("value (unit of each row)")
    ax.set_ylabel("measure")
    return ax


def ranking(frame: pd.DataFrame, *, unit: str = "nats per observation", ax: Axes | None = None) -> Axes:
    """Draw scores as dots with 95 % intervals, the best at the top.

    Args:
        frame: A row per candidate: `name`, `mean` (higher is better) and `se`, its standard error.
        unit: Of the scores.
        ax: Axes to draw on; new ones otherwise.

    Raises:
        InputError: A column is missing.
    """
    _expect(frame, SCORES)
    frame = frame.sort_values("mean", kind="stable")
    ax = new_axes(ax, width=6.4, height=1.0 + 0.34 * max(len(frame), 1))
    place = np.arange(len(frame))
    mean, half = frame["mean"].to_numpy(dtype=np.float64), TWO_SIDED_95 * frame["se"].to_numpy(dtype=np.float64)
    ax.hlines(place, mean - half, mean + half, color=BLUE, linewidth=1.6)
    ax.plot(mean, place, "o", color=BLUE, markersize=6, linestyle="")
    for at, value in zip(place, mean, strict=True):
        ax.annotate(
            thousands(round(value, 1)), (value, at), xytext=(0, 6), textcoords="offset points", ha="center",
            fontsize=SMALL, color=INK,
        )  # fmt: skip
    ax.set_yticks(place, [plain(name) for name in frame["name"]])
    ax.set_ylim(-0.6, len(frame) - 0.3)
    ax.margins(x=0.12)
    dress(ax, x=f"score ({unit}; higher is better; bars: 95 % interval)", y="", grid="x")
    ax.xaxis.set_major_formatter(thousands)
    ax.set_ylabel("candidate", fontsize=NORMAL, color=INK)
    return ax


def _row(ax: Axes, row: dict, *, first: bool) -> None:
    pca, vae = float(row["pca"]), float(row["vae"])
    ax.plot([pca, vae], [0, 0], color=MUTED, linewidth=1.4)
    ax.plot([pca], [0], "s", color=ORANGE, markersize=7, label="PCA")
    ax.plot([vae], [0], "o", color=BLUE, markersize=8, label="VAE")
    known = [value for value in (pca, vae) if np.isfinite(value)]
    span = max(known, default=1.0) - min(known, default=0.0)
    margin = 0.35 * span or 0.1 * abs(known[0] if known else 1.0) or 1.0
    ax.set_xlim(min(known, default=0.0) - margin, max(known, default=1.0) + margin)
    dress(ax, x="", y="", grid="none")
    ax.spines["left"].set_visible(False)
    ax.set_yticks([])
    ax.set_ylim(-1, 1)
    ax.locator_params(axis="x", nbins=6)
    ax.tick_params(pad=1)
    unit, better = row.get("unit") or "", row.get("better") or ""
    detail = ", ".join(part for part in (str(unit), f"{better} is better" if better else "") if part)
    where: dict[str, Any] = {"transform": ax.transAxes, "ha": "right", "va": "center", "color": INK}
    ax.text(-0.03, 0.85 if detail else 0.5, plain(row["measure"], 44), fontsize=NORMAL, **where)
    ax.text(-0.03, -0.1, plain(detail, 60), fontsize=SMALL - 0.5, alpha=0.75, **where)
    if first:
        ax.legend(
            loc="lower left", bbox_to_anchor=(0, 1.4), ncols=2, frameon=False, fontsize=SMALL, labelcolor=INK,
            borderaxespad=0,
        )  # fmt: skip


def _expect(frame: pd.DataFrame, needed: tuple[str, ...]) -> None:
    missing = [name for name in needed if name not in frame]
    if missing:
        raise InputError(
            f"expected a frame with the columns {', '.join(needed)}, found "
            f"{', '.join(map(str, frame.columns)) or 'none'}: add {', '.join(missing)}."
        )
