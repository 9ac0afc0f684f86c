"""A path: the features that switch along it, in order, over the support of the data."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from biovae.errors import InputError
from biovae.plotting.canvas import BLUE, INK, MUTED, SMALL, VERMILLION, dress, new_axes, plain
from biovae.plotting.palettes import CONTINUOUS

if TYPE_CHECKING:
    from matplotlib.axes import Axes

LEVEL = 0.05  # of support
MOST = 24


def path(
    expression: pd.DataFrame,
    switches: pd.DataFrame,
    support: np.ndarray | None = None,
    *,
    most: int = MOST,
    ax: Axes | None = None,
) -> Axes:
    """Draw the features that change most along a path as a heat map, in the order in which they switch.

    A row runs from the lowest (dark) to the highest value of its feature; the tick is the place of the switch, the line
    its 90 % interval. Above, the support of the path by real observations, on a scale of logarithms.

    Args:
        expression: (steps, features), the index from 0 to 1: `walk.expression`.
        switches: `walk.switches`.
        support: `walk.curve.support`; left out if None.
        most: How many features to draw, those of the largest change.
        ax: Axes to draw on; new ones otherwise.

    Raises:
        InputError: No feature switches.
    """
    if switches.empty:
        raise InputError(
            "expected features that switch along the path, found none: its ends look alike; draw another, or lower "
            "the least change."
        )
    additive = "change" in switches  # reals
    largest = switches["change" if additive else "log2_change"].abs().nlargest(most).index
    frame = switches.loc[np.sort(largest)]
    ax = new_axes(ax, width=5.6, height=1.7 + 0.16 * len(frame))
    values = expression[frame["feature"]].to_numpy().T
    if not additive:
        values = np.log2(values + 0.01 * float(expression.to_numpy().mean()) + 1e-12)
    low, high = values.min(1, keepdims=True), values.max(1, keepdims=True)
    image = (values - low) / np.maximum(high - low, 1e-12)
    count = len(frame)
    ax.imshow(image, aspect="auto", extent=(0, 1, count - 0.5, -0.5), cmap=CONTINUOUS, interpolation="nearest")
    row = np.arange(count)
    ax.scatter(frame["at"], row, marker="|", s=40, color="white", linewidths=1.4)
    if np.isfinite(frame["lower"]).all():
        ax.hlines(row, frame["lower"], frame["upper"], color="white", linewidth=0.8)
    arrows = np.where(frame["direction"] == "up", "↑", "↓")
    ax.set_yticks(row, [f"{plain(name, 16)} {arrow}" for name, arrow in zip(frame["feature"], arrows, strict=True)])
    way = "way from start to end (share of its length)\ncolour: each feature from its lowest, dark, to its highest"
    ax.set_xlim(0, 1)  # where the support above ends, too
    dress(ax, x=way, y="feature that switches, in order", grid="none")
    ax.tick_params(axis="y", labelsize=SMALL - 1)
    if support is not None and np.isfinite(support).all():
        _support(ax, expression.index.to_numpy(dtype=np.float64), np.asarray(support))
    return ax


def _support(ax: Axes, time: np.ndarray, support: np.ndarray) -> None:
    above = ax.inset_axes((0, 1.03, 1, 0.22))
    above.plot(time, support, color=BLUE, linewidth=1.3)
    above.fill_between(time, support, LEVEL, where=support < LEVEL, color=VERMILLION, alpha=0.35, linewidth=0)
    above.axhline(LEVEL, color=INK, linewidth=0.8, linestyle=(0, (5, 3)))
    above.set_yscale("log")
    above.set_ylim(min(support.min(), LEVEL) / 2, 1)
    above.set_xlim(0, 1)
    dress(above, x="", y="support", grid="y")
    above.tick_params(labelbottom=False)
    above.annotate(
        f"dashed: unsupported below {LEVEL:g}", (1, 1), xycoords="axes fraction", xytext=(0, 2),
        textcoords="offset points", ha="right", va="bottom", fontsize=SMALL - 1, color=MUTED,
    )  # fmt: skip
