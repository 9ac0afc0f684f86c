"""PCA against VAE, and models against each other: a dot per score, each on a scale that makes it readable."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from biovae.errors import InputError
from biovae.plotting.canvas import (
    BLUE,
    INK,
    MUTED,
    NORMAL,
    ORANGE,
    SMALL,
    VERMILLION,
    dress,
    key,
    new_axes,
    plain,
    thousands,
)

if TYPE_CHECKING:
    from matplotlib.axes import Axes

    from biovae.analysis import Choice

MEASURES = ("measure", "pca", "vae")
LINEAR = 10.0  # nats up to which differences are drawn to scale
KINDS = {
    "best": ("best", BLUE, "o"),
    "alike": ("as good, within two standard errors", ORANGE, "o"),
    "behind": ("behind", MUTED, "o"),
    "floor": ("without a network", VERMILLION, "s"),
}
TABLE = {  # title, decimals, and points to the right of the axes: in widths of them the layout would not come to rest
    "mean": ("score", 1, 46),
    "pit": ("PIT off", 3, 96),
    "parameters": ("parameters", 0, 170),
}


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


def compare(found: Choice, *, ax: Axes | None = None) -> Axes:
    """Draw how far each candidate and floor lies from the best candidate, paired, beside what else is known of it.

    Differences beyond ten nats are drawn on a logarithmic scale, so that those that matter can be seen.

    Args:
        found: From `bv.tl.compare`.
        ax: Axes to draw on; new ones otherwise.
    """
    frame = found.frame.iloc[::-1].reset_index(drop=True)
    ax = new_axes(ax, width=9.4, height=1.3 + 0.34 * len(frame))
    for kind, (label, color, marker) in KINDS.items():
        rows = frame[[kind == _kind(found, row) for row in frame.itertuples()]]
        if rows.empty:
            continue
        half = 2 * rows["difference_se"]
        ax.hlines(rows.index, rows["difference"] - half, rows["difference"] + half, color=color, linewidth=1.6)
        ax.plot(rows["difference"], rows.index, marker, color=color, markersize=6, linestyle="", label=label)
    ax.axvline(0, color=INK, linewidth=1, linestyle=(0, (5, 3)))
    ax.set_yticks(frame.index, [plain(name, 44) for name in frame["name"]])
    ax.set_ylim(-0.6, len(frame) - 0.1)
    if frame["difference"].abs().max() > LINEAR:
        ax.set_xscale("symlog", linthresh=LINEAR, linscale=1.5)
    _columns(ax, frame)
    dress(ax, x="score less that of the best (nats per observation; bars: two standard errors)", y="", grid="x")
    ax.xaxis.set_major_formatter(thousands)
    ax.set_ylabel("candidate", fontsize=NORMAL, color=INK)
    key(ax, columns=4)
    return ax


def _kind(found: Choice, row: Any) -> str:
    if row.floor:
        return "floor"
    return "best" if row.name == found.best else "alike" if row.name in found.alike else "behind"


def _columns(ax: Axes, frame: pd.DataFrame) -> None:
    """The other numbers of each row, to the right of it."""
    how: dict[str, Any] = {"xycoords": ax.get_yaxis_transform(), "textcoords": "offset points", "color": INK}
    how |= {"ha": "right", "va": "center", "fontsize": SMALL, "annotation_clip": False}
    for name, (title, digits, x) in TABLE.items():
        ax.annotate(title, (1, len(frame) - 0.35), (x, 0), fontweight="bold", **how)
        for y, value in frame[name].items():
            told = f"{value:,.{digits}f}".replace("-", "−") if np.isfinite(value) else "–"
            ax.annotate(told, (1, y), (x, 0), **how)


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
