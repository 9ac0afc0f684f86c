"""Training curves: the bound of both sets, the null to beat, and what the schedule did meanwhile."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from biovae.errors import InputError
from biovae.plotting.canvas import BLUE, INK, MUTED, NORMAL, SMALL, VERMILLION, dress, halo, key, new_axes, thousands

if TYPE_CHECKING:
    from matplotlib.axes import Axes

SERIES = {"train_elbo": ("training", BLUE, "-"), "validation_elbo": ("validation", VERMILLION, "-")}
NEEDED = ("epoch", *SERIES)


def history(history: pd.DataFrame, *, null: float | None = None, ax: Axes | None = None) -> Axes:
    """Draw the bound against epochs; on a figure of its own, beta and the learning rate follow on small axes below.

    The best epoch is the one with the highest validation bound while beta has its final value. The first tenth of a
    run may leave the picture below; a note then says where it began.

    Args:
        history: A row per evaluation: `epoch`, `train_elbo`, `validation_elbo`, and `beta`, `learning_rate` if known.
        null: The bound of the same likelihood without z, in nats per observation.
        ax: Axes to draw the bound on; a new figure with all three otherwise (`ax.figure.axes`).

    Raises:
        InputError: A column is missing, or there is no row.
    """
    missing = [name for name in NEEDED if name not in history]
    if missing or history.empty:
        raise InputError(
            f"expected a history with the columns {', '.join(NEEDED)} and at least one row, found "
            f"{len(history)} rows without {missing or 'any value'}: pass vae.history."
        )
    alone = ax is None
    schedules = [name for name in _SCHEDULES if alone and name in history and history[name].notna().any()]
    ax, *below = _rows(schedules) if ax is None else [ax]
    _bound(ax, history, null)
    for small, name in zip(below, schedules, strict=True):
        _small(small, history, name)
    for upper in [ax, *below][:-1]:
        upper.tick_params(labelbottom=False)
    [ax, *below][-1].set_xlabel("epoch (passes through the training set)", fontsize=NORMAL, color=INK)
    return ax


_SCHEDULES = {"beta": "beta", "learning_rate": "rate"}


def _rows(schedules: list[str]) -> list[Axes]:
    figure = new_axes(width=9.4, height=3.1 + 0.65 * len(schedules)).figure
    figure.clear()
    ratios = [4.6, *(1 for _ in schedules)]
    return list(figure.subplots(1 + len(schedules), 1, sharex=True, squeeze=False, height_ratios=ratios)[:, 0])


def _bound(ax: Axes, history: pd.DataFrame, null: float | None) -> None:
    marker = "o" if len(history) < 4 else ""
    for name, (label, color, line) in SERIES.items():
        known = history[["epoch", name]].dropna()
        ax.plot(known["epoch"], known[name], line, color=color, label=label, linewidth=1.6, marker=marker, markersize=4)
    if null is not None and np.isfinite(null):
        ax.axhline(null, color=INK, linewidth=1.1, linestyle=(0, (5, 3)), label="null: the same likelihood without z")
    best = best_epoch(history)
    if best is not None:
        _mark_best(ax, history, best)
    _window(ax, history, null)
    ax.margins(x=0.015)
    ax.locator_params(axis="x", integer=True)
    dress(ax, x="", y="bound (nats per observation)")
    ax.yaxis.set_major_formatter(thousands)
    key(ax)


def best_epoch(history: pd.DataFrame) -> float | None:
    """The epoch of the highest validation bound among those with the final beta; None where nothing was validated."""
    known = history.dropna(subset=["validation_elbo"])
    if "beta" in known and len(known):
        known = known[np.isclose(known["beta"], known["beta"].iloc[-1])]
    if known.empty:
        return None
    return float(known.loc[known["validation_elbo"].idxmax(), "epoch"])


def _mark_best(ax: Axes, history: pd.DataFrame, best: float) -> None:
    value = float(history.loc[history["epoch"] == best, "validation_elbo"].max())
    ax.axvline(best, color=MUTED, linewidth=0.9, linestyle=(0, (1, 2)))
    ax.plot([best], [value], "o", color=VERMILLION, markeredgecolor=INK, markersize=6, zorder=5)
    right = best > 0.5 * (history["epoch"].min() + history["epoch"].max())
    ax.annotate(
        f"best: epoch {best:g}, {thousands(round(value, 1))}", (best, value), xytext=(-9 if right else 9, -15),
        textcoords="offset points", ha="right" if right else "left", fontsize=SMALL + 0.5, color=INK,
        path_effects=halo(),
    )  # fmt: skip


def _window(ax: Axes, history: pd.DataFrame, null: float | None) -> None:
    """Limit the ordinate to what happens after the first tenth, and say so where something is left out."""
    values = history[list(SERIES)].to_numpy(dtype=np.float64)
    late = values[history["epoch"] >= history["epoch"].min() + 0.1 * np.ptp(history["epoch"])]
    late = late[np.isfinite(late)]
    if late.size == 0:
        return
    level = [null] if null is not None and np.isfinite(null) else []
    low, high = min(late.min(), *level, np.inf), max(late.max(), *level, -np.inf)
    margin = 0.08 * (high - low) or 1.0
    ax.set_ylim(low - 1.5 * margin, high + margin)
    first = np.nanmin(values)
    if first < low - 1.5 * margin:
        note = f"↓ began at {thousands(round(first))}"
        ax.annotate(note, (0.008, 0.02), xycoords="axes fraction", fontsize=SMALL, color=INK)


def _small(ax: Axes, history: pd.DataFrame, name: str) -> None:
    known = history[["epoch", name]].dropna()
    ax.fill_between(known["epoch"], known[name], color=MUTED, alpha=0.25, linewidth=0)
    ax.plot(known["epoch"], known[name], color=INK, linewidth=1.1, marker="o" if len(known) < 4 else "", markersize=3)
    dress(ax, x="", y=_SCHEDULES[name], grid="y")
    top = float(known[name].max())
    top = top if np.isfinite(top) and top > 0 else 1.0
    ax.set_ylim(0, 1.15 * top)
    ax.set_yticks([0, top], ["0", f"{top:.3g}"])
