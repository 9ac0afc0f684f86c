"""Imputation: the error of a model beside those of simple methods, for each way of asking."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from biovae.errors import InputError
from biovae.plotting.canvas import BLUE, INK, MUTED, VERMILLION, dress, key, new_axes, plain

if TYPE_CHECKING:
    from matplotlib.axes import Axes

NEEDED = ("question", "method", "error", "behind", "behind_se")
ASKED = {"masking": "hidden counts", "thinning": "other half"}


def imputation(frame: pd.DataFrame, *, model: str = "VAE", ax: Axes | None = None) -> Axes:
    """Draw each method's error in per cent of the model's: right of the line it does worse, left of it better.

    Whiskers are two standard errors of the difference, paired over observations.

    Args:
        frame: A row per question and method, as `bv.tl.imputation` gives it.
        model: The method that the others are compared with.
        ax: Axes to draw on; new ones otherwise.

    Raises:
        InputError: A column or the model is missing.
    """
    missing = [name for name in NEEDED if name not in frame]
    if missing or model not in set(frame["method"]):
        raise InputError(
            f"expected the columns {', '.join(NEEDED)} and a method {model!r}, found none called "
            f"{', '.join(missing) or repr(model)}: pass the frame of bv.tl.imputation."
        )
    ax = new_axes(ax, width=5.2, height=0.9 + 0.28 * len(frame))
    own = frame[frame["method"] == model].set_index("question")["error"]
    unit = own.loc[frame["question"]].to_numpy(dtype=np.float64) / 100
    value, spread = (frame[name].to_numpy(dtype=np.float64) / unit for name in ("behind", "behind_se"))
    gaps = (frame["question"] != frame["question"].shift()).cumsum().to_numpy() - 1
    place = np.arange(len(frame)) + 0.6 * gaps
    mine = (frame["method"] == model).to_numpy()
    clear = np.abs(value) > 2 * spread
    kinds = {
        "the model": (mine, INK, "D"),
        "worse": (~mine & clear & (value > 0), BLUE, "o"),
        "better": (~mine & clear & (value < 0), VERMILLION, "s"),
        "level": (~mine & ~clear, MUTED, "o"),
    }
    ax.axvline(0, color=INK, linewidth=0.9, linestyle=(0, (5, 3)), zorder=0)
    ax.hlines(place, value - 2 * spread, value + 2 * spread, color=INK, linewidth=0.8, alpha=0.7)
    for name, (rows, color, marker) in kinds.items():
        if rows.any():
            ax.scatter(value[rows], place[rows], s=26, color=color, marker=marker, linewidths=0, label=name, zorder=3)
    asked = frame["question"].map(ASKED).fillna(frame["question"])
    ax.set_yticks(place, [f"{plain(m, 18)}, {plain(q, 18)}" for m, q in zip(frame["method"], asked, strict=True)])
    ax.invert_yaxis()
    dress(ax, x=f"error beyond that of {plain(model, 18)} (% of it)", y="method, asked for", grid="x")
    key(ax)
    return ax
