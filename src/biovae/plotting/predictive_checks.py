"""Posterior predictive checks: coverage, zeros, correlations and detection, observed against replicated."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from biovae.plotting.calibration import zero_fraction
from biovae.plotting.canvas import BLUE, INK, MUTED, ORANGE, RASTERISE_ABOVE, dress, key, new_axes

if TYPE_CHECKING:
    from matplotlib.axes import Axes

    from biovae.tools.predictive import PredictiveChecks

PLACES = ((0.0, 0.56), (0.56, 0.56), (0.0, 0.0), (0.56, 0.0))  # lower left corners of the panels
WIDTH, HEIGHT = 0.44, 0.38
PAIRS = 20_000  # correlations drawn


def predictive_checks(found: PredictiveChecks, *, seed: int = 0, ax: Axes | None = None) -> Axes:
    """Draw what `bv.tl.predictive_checks` found: four panels, or two where there are no counts.

    Args:
        found: The checks.
        seed: Of the pairs of features that are drawn, where there are more than 20,000.
        ax: Axes to draw on; new ones otherwise. The panels are its `child_axes`.
    """
    ax = new_axes(ax, width=8.4, height=7.2)
    ax.set_axis_off()
    ax.set_xlabel("expected (unit of each panel)")
    ax.set_ylabel("observed (unit of each panel)")
    places = iter(PLACES)

    def panel() -> Axes:
        return ax.inset_axes((*next(places), WIDTH, HEIGHT))

    _coverage(found, panel())
    _correlation(found, panel(), seed)
    if found.features["zeros"].notna().any():
        zero_fraction(found.features["zeros"].to_numpy(), found.features["zeros_expected"].to_numpy(), ax=panel())
    if len(found.observations.columns):
        _detected(found, panel())
    return ax


def _coverage(found: PredictiveChecks, ax: Axes) -> None:
    frame = found.features
    often = frame["p_value"].notna().to_numpy()
    logs = found.features["zeros"].notna().any()
    for column, color, marker in (("coverage_90", BLUE, "o"), ("coverage_50", ORANGE, "s")):
        level = int(column.split("_")[1])
        ax.scatter(
            frame["mean"][often], 100 * frame[column][often], s=_size(often.sum()), color=color, marker=marker,
            alpha=0.5, linewidths=0, label=f"{level} % interval", rasterized=often.sum() > RASTERISE_ABOVE,
        )  # fmt: skip
        ax.axhline(level, color=INK, linewidth=1.1, linestyle=(0, (5, 3)))
    if logs:
        ax.set_xscale("log")
    ax.set_ylim(0, 102)
    dress(ax, x="mean of the feature", y="within the interval (% of observations)")
    key(ax, columns=2)


def _correlation(found: PredictiveChecks, ax: Axes, seed: int) -> None:
    above = np.triu_indices(len(found.correlation), k=1)
    few = np.random.default_rng(seed).permutation(len(above[0]))[:PAIRS]
    expected, observed = (of[above][few] for of in (found.correlation_expected, found.correlation))
    ax.scatter(
        expected, observed, s=_size(len(few)), color=BLUE, alpha=0.25, linewidths=0, label="pairs of features",
        rasterized=len(few) > RASTERISE_ABOVE,
    )  # fmt: skip
    reach = 1.05 * max(np.abs(expected).max(initial=0.05), np.abs(observed).max(initial=0.05))
    ax.plot([-reach, reach], [-reach, reach], color=INK, linewidth=1.1, linestyle=(0, (5, 3)), label="equal")
    dress(ax, x="correlation in replicates", y="observed correlation")
    key(ax, columns=2)


def _detected(found: PredictiveChecks, ax: Axes) -> None:
    frame = found.observations
    ends = frame[["detected_lower", "detected_upper"]].to_numpy()
    inside = ((frame["detected"] >= ends[:, 0]) & (frame["detected"] <= ends[:, 1])).to_numpy()
    many = len(frame) > RASTERISE_ABOVE
    ax.vlines(frame["detected"], *ends.T, color=MUTED, alpha=0.35, linewidth=0.8, rasterized=many)
    ax.scatter(
        frame["detected"], frame["detected_expected"], s=_size(len(frame)), color=BLUE, alpha=0.6, linewidths=0,
        label=f"observations ({inside.mean():.0%} within 90 % of replicates)", rasterized=many,
    )  # fmt: skip
    ends = np.array([frame["detected"].min(), frame["detected"].max()])
    ax.plot(ends, ends, color=INK, linewidth=1.1, linestyle=(0, (5, 3)), label="equal")
    dress(ax, x="features detected (count)", y="features detected in replicates (count)")
    key(ax, columns=2)


def _size(count: int) -> float:
    return float(np.clip(9_000 / max(count, 1), 3, 16))
