"""The prototype f(0), what the model holds to be typical, beside the mean of the data."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from biovae.plotting.canvas import BLUE, INK, RASTERISE_ABOVE, VERMILLION, dress, expect_columns, key, new_axes, plain
from biovae.plotting.labels import place_labels

if TYPE_CHECKING:
    from matplotlib.axes import Axes

NEEDED = ("feature", "prototype", "mean", "log2_fold_change")


def prototype(frame: pd.DataFrame, *, label: int = 12, unit: str = "counts per 10,000", ax: Axes | None = None) -> Axes:
    """Draw every feature's prototype against its mean, and name those that differ most.

    Both axes are logarithmic where no value is negative; a value of zero is drawn at the smallest positive one.

    Args:
        frame: A row per feature: `feature`, `prototype`, `mean`, `log2_fold_change` of prototype over mean.
        label: How many features to name, see `most_different`.
        unit: What is measured.
        ax: Axes to draw on; new ones otherwise.

    Raises:
        InputError: A column is missing.
    """
    expect_columns(frame, NEEDED, "bv.tl.prototype")
    ax = new_axes(ax, width=4.7, height=4.2)
    mean, typical = (frame[name].to_numpy(dtype=np.float64) for name in ("mean", "prototype"))
    if min(mean.min(initial=0), typical.min(initial=0)) >= 0:
        mean, typical = _above_zero(mean, typical)
        ax.set_xscale("log")
        ax.set_yscale("log")
    most = most_different(frame, label)
    size = float(np.clip(9_000 / max(len(mean), 1), 4, 16))
    many = len(mean) > RASTERISE_ABOVE
    ax.scatter(mean, typical, s=size, color=BLUE, alpha=0.45, linewidths=0, rasterized=many, label="features")
    ax.scatter(mean[most], typical[most], s=18, color=VERMILLION, linewidths=0, label="differ most")
    if len(mean):
        ends = [min(mean.min(), typical.min()), max(mean.max(), typical.max())]
        ax.plot(ends, ends, color=INK, linewidth=1.1, linestyle=(0, (5, 3)), label="equal")
    dress(ax, x=f"mean of the data ({unit})", y=f"prototype f(0) ({unit})")
    key(ax, columns=3)
    names = frame["feature"].iloc[most]
    place_labels(ax, mean[most], typical[most], [plain(name, 16) for name in names])
    return ax


def most_different(frame: pd.DataFrame, count: int) -> np.ndarray:
    """Rows of the features whose prototype differs most from the mean: by fold change, or by difference without one.

    Where there are limits, those differ that differ for sure, by the limit that is nearer to no change.
    """
    if {"lower", "upper"} <= {*frame.columns}:
        least = np.abs((np.maximum(frame["lower"], 0) + np.minimum(frame["upper"], 0)).to_numpy())
        return np.argsort(-least, kind="stable")[: min(count, int((least > 0).sum()))]
    change = frame["log2_fold_change"].to_numpy(dtype=np.float64)
    if not np.isfinite(change).any():
        change = (frame["prototype"] - frame["mean"]).to_numpy(dtype=np.float64)
    return np.argsort(-np.abs(np.nan_to_num(change, posinf=0, neginf=0)), kind="stable")[:count]


def _above_zero(*values: np.ndarray) -> tuple[np.ndarray, ...]:
    together = np.concatenate(values)
    floor = together[together > 0].min(initial=1.0)
    return tuple(np.maximum(v, floor) for v in values)
