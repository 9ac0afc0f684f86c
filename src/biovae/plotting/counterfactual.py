"""A counterfactual: predicted against observed means, the features that change most by name."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from biovae.plotting.canvas import (
    BLUE,
    INK,
    MUTED,
    RASTERISE_ABOVE,
    VERMILLION,
    dress,
    expect_columns,
    key,
    new_axes,
    plain,
)
from biovae.plotting.labels import place_labels

if TYPE_CHECKING:
    from matplotlib.axes import Axes

NEEDED = ("feature", "source", "prediction", "lower", "upper", "additive")
UNIT = "mean of log1p(counts per 10,000)"


def counterfactual(frame: pd.DataFrame, *, label: int = 12, ax: Axes | None = None) -> Axes:
    """Draw each feature's predicted mean against the observed one, and name those that change most.

    Named features carry their 90 % interval, and an open circle where the additive baseline puts them. Where nothing
    was observed, the means before take the place of those after.

    Args:
        frame: A row per feature: `found.frame` of `bv.tl.counterfactual`, or `found.beside(observed)`, which adds what
            was observed.
        label: How many features to name.
        ax: Axes to draw on; new ones otherwise.

    Raises:
        InputError: A column is missing.
    """
    expect_columns(frame, NEEDED, "bv.tl.counterfactual")
    ax = new_axes(ax, width=4.9, height=4.4)
    known = "observed" in frame
    x = frame["observed" if known else "source"].to_numpy(dtype=np.float64)
    y, before = (frame[name].to_numpy(dtype=np.float64) for name in ("prediction", "source"))
    most = np.argsort(-np.abs((x if known else y) - before), kind="stable")[:label]
    size = float(np.clip(9_000 / max(len(x), 1), 4, 16))
    many = len(x) > RASTERISE_ABOVE
    ax.scatter(x, y, s=size, color=BLUE, alpha=0.4, linewidths=0, rasterized=many, label="features")
    ends = frame[["lower", "upper"]].to_numpy(dtype=np.float64)[most]
    ax.vlines(x[most], ends[:, 0], ends[:, 1], color=VERMILLION, linewidth=0.8, alpha=0.7)
    ax.scatter(x[most], y[most], s=20, color=VERMILLION, linewidths=0, label="change most", zorder=3)
    ax.scatter(
        x[most], frame["additive"].to_numpy(dtype=np.float64)[most], s=20, facecolors="none", edgecolors=INK,
        linewidths=0.8, label="additive", zorder=3,
    )  # fmt: skip
    top = max(float(x.max(initial=0)), float(y.max(initial=0)))
    ax.plot([0, top], [0, top], color=MUTED, linewidth=1.1, linestyle=(0, (5, 3)), label="equal", zorder=0)
    dress(ax, x=f"{'observed' if known else 'before'}: {UNIT}", y=f"predicted: {UNIT}")
    key(ax, columns=4)
    place_labels(ax, x[most], y[most], [plain(name, 16) for name in frame["feature"].to_numpy()[most]])
    return ax
