"""A walk along one latent dimension: what is decoded there, with the band that the other dimensions make."""

from __future__ import annotations

from typing import TYPE_CHECKING

from biovae.plotting.canvas import dress, key, new_axes, plain
from biovae.plotting.palettes import palette

if TYPE_CHECKING:
    from collections.abc import Sequence

    from matplotlib.axes import Axes

    from biovae.analysis import Dimensions

EACH = 3  # features each way, where none are named


def traversal(
    found: Dimensions,
    dimension: int,
    features: Sequence[str] | None = None,
    *,
    unit: str = "counts per 10,000",
    ax: Axes | None = None,
) -> Axes:
    """Draw the decoded mean of some features along one dimension.

    Bands hold 90 % of the observations walked from and, where there are such, of draws of the weights. The scale is
    logarithmic where nothing is below zero.

    Args:
        found: From `bv.tl.dimensions`.
        dimension: Counted from 0.
        features: Names; those that the dimension moves most, three each way, where none are given.
        unit: What is measured.
        ax: Axes to draw on; new ones otherwise.

    Raises:
        InputError: A feature is not the model's.
    """
    names = [*found.top(dimension, EACH)["feature"]] if features is None else [*features]
    frame = found.traversal.frame(dimension, names)
    ax = new_axes(ax)
    for name, color in zip(names, palette(len(names)), strict=True):
        rows = frame[frame["feature"] == name]
        ax.fill_between(rows["value"], rows["lower"], rows["upper"], color=color, alpha=0.15, linewidth=0)
        ax.plot(rows["value"], rows["mean"], color=color, linewidth=1.6, label=plain(name, 16))
    if len(frame) and frame["lower"].min() > 0:
        ax.set_yscale("log")
    dress(ax, x=f"z, dimension {dimension} (latent units)", y=f"decoded mean ({unit})")
    key(ax, columns=3)
    return ax
