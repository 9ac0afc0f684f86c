"""Differences between two groups: how large, between which limits, and how sure."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from biovae.errors import InputError, first
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

NEEDED = ("group", "reference", "feature", "log2_fold_change", "lower", "upper", "probability", "expected_fdr")
NINES = 6  # probabilities beyond 0.999999 are drawn there


def differential(
    frame: pd.DataFrame, *, delta: float = 0.25, fdr: float = 0.05, label: int = 12, ax: Axes | None = None
) -> Axes:
    """Draw each feature's fold change against the probability that it exceeds delta, and name the surest.

    The upper axis counts nines: 0.9, 0.99, 0.999. Named features carry their 95 % interval.

    Args:
        frame: A row per feature of one comparison, as `bv.tl.differential` gives it.
        delta: The fold change that was called none, drawn as a pair of lines.
        fdr: Features whose expected FDR is at most this are coloured.
        label: How many features to name.
        ax: Axes to draw on; new ones otherwise.

    Raises:
        InputError: A column is missing, or there are several comparisons.
    """
    group, reference = _one_comparison(frame)
    ax = new_axes(ax, width=4.7, height=4.2)
    tested = frame[frame["probability"].notna()]
    change = tested["log2_fold_change"].to_numpy(dtype=np.float64)
    nines = _nines(tested["probability"].to_numpy(dtype=np.float64))
    called = (tested["expected_fdr"] <= fdr).to_numpy()
    size = float(np.clip(9_000 / max(len(tested), 1), 5, 16))
    kinds = {  # colour and place both tell them apart
        "no call": (~called, MUTED, 0.4),
        "lower": (called & (change < 0), BLUE, 0.75),
        "higher": (called & (change >= 0), VERMILLION, 0.75),
    }
    many = len(tested) > RASTERISE_ABOVE
    for name, (rows, color, alpha) in kinds.items():
        ax.scatter(
            change[rows], nines[rows], s=size, color=color, alpha=alpha, linewidths=0, rasterized=many,
            label=f"{name} ({rows.sum():,})",
        )  # fmt: skip
    for edge in (-delta, delta) if delta > 0 else (0.0,):
        ax.axvline(edge, color=INK, linewidth=0.9, linestyle=(0, (5, 3)), zorder=0)
    named = np.flatnonzero(called)[np.argsort(-_surest(tested)[called], kind="stable")][:label]
    ends = tested[["lower", "upper"]].to_numpy(dtype=np.float64)[named]
    ax.hlines(nines[named], ends[:, 0], ends[:, 1], color=INK, linewidth=0.7, alpha=0.6)
    ax.set_ylim(-0.15, NINES + 0.35)
    ticks = ["0", *("0." + "9" * count for count in range(1, NINES)), "≥ 0." + "9" * NINES]
    ax.set_yticks(range(NINES + 1), ticks)
    dress(
        ax, x=f"log2 fold change, {plain(group, 18)} over {plain(reference, 18)}",
        y=f"probability of |log2 fold change| > {delta:g}",
    )  # fmt: skip
    key(ax, columns=3)
    place_labels(ax, change[named], nines[named], [plain(name, 16) for name in tested["feature"].to_numpy()[named]])
    return ax


def _one_comparison(frame: pd.DataFrame) -> tuple[str, str]:
    expect_columns(frame, NEEDED, "bv.tl.differential")
    pairs = frame[["group", "reference"]].drop_duplicates()
    if len(pairs) != 1:
        raise InputError(
            f"expected one comparison, found {len(pairs)} ({first(pairs['group'])}): "
            "pass frame[frame['group'] == ...] to draw one of them."
        )
    return str(pairs["group"].iloc[0]), str(pairs["reference"].iloc[0])


def _nines(probability: np.ndarray) -> np.ndarray:
    """-log10(1 - P), at most `NINES`."""
    return -np.log10(np.maximum(1 - probability, 10.0**-NINES))


def _surest(tested: pd.DataFrame) -> np.ndarray:
    """By how much the whole interval lies on one side of zero: what is both large and sure comes first."""
    return np.maximum(tested["lower"], -tested["upper"]).to_numpy(dtype=np.float64)
