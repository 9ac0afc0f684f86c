"""A trajectory on the latent map, and what features do along its branches."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from biovae.errors import InputError, closest
from biovae.plotting.canvas import INK, NORMAL, PAPER, SMALL, dress, key, new_axes, plain
from biovae.plotting.coordinates import UMAP_NAME
from biovae.plotting.labels import place_labels
from biovae.plotting.latent import points
from biovae.plotting.palettes import palette

if TYPE_CHECKING:
    from matplotlib.axes import Axes

    from biovae.analysis import Trajectory

STOPS = 40  # along a branch
WIDTH = 0.04  # of the window that a branch is averaged in, in units of pseudotime
SHORT = 9  # letters of a name of which three fit side by side
ROW = 14  # points that a row of the legend takes
LINES: dict[bool, Any] = {True: "-", False: (0, (2.2, 1.4))}  # of a transition that is shown, and of one that is not
NEEDED = ("branch", "feature", "pseudotime", "mean", "lower", "upper")


def trajectory(
    coordinates: np.ndarray, found: Trajectory, *, kind: str = UMAP_NAME, seed: int = 0, ax: Axes | None = None
) -> Axes:
    """Draw a map coloured by pseudotime, a line for every branch from the root to its end, and the ends' names.

    A line is the moving average of the observations' places, each weighted by its fate; it is broken where the data do
    not show a transition. An end beyond a bridge has a name and no line, since no observation leads there.

    Args:
        coordinates: Positions, (obs, 2), for example of `bv.pl.map2d`.
        found: Of `bv.tl.trajectory`, of the same observations.
        kind: What the coordinates are: "UMAP" or "PCA of z".
        seed: Of the drawing order.
        ax: Axes to draw on; new ones otherwise.

    Raises:
        InputError: Coordinates and trajectory differ in length.
    """
    coordinates = np.asarray(coordinates, dtype=np.float64)
    if len(coordinates) != len(found.pseudotime):
        raise InputError(
            f"expected a place for each of {len(found.pseudotime):,} observations, found {len(coordinates):,}: pass "
            "coordinates of the trajectory's observations."
        )
    ax = points(coordinates, pd.Series(found.pseudotime, name="pseudotime"), kind=kind, seed=seed, ax=ax)
    colors = palette(min(len(found.ends), 30))
    places = np.array([np.median(coordinates[found.absorbing == n], axis=0) for n in range(len(found.ends))])
    for number, end in enumerate(found.ends.itertuples()):
        color, dashes = colors[number % len(colors)], LINES[bool(end.shown)]
        if not end.bridged:
            path = _path(coordinates, found, number)
            ax.plot(*path.T, color=PAPER, linewidth=3.6, solid_capstyle="round")
            ax.plot(*path.T, color=color, linewidth=1.8, linestyle=dashes)
        ax.plot(*places[number], marker="s", markersize=6, color=color, markeredgecolor=PAPER, linestyle="")
    root = np.median(coordinates[found.root], axis=0)
    ax.plot(*root, marker="o", markersize=8, color=PAPER, markeredgecolor=INK, markeredgewidth=1.4, linestyle="")
    ax.autoscale_view()
    ax.apply_aspect()
    place_labels(ax, places[:, 0], places[:, 1], [plain(name, 18) for name in found.ends.index])
    _lines(ax, found)
    return ax


def _lines(ax: Axes, found: Trajectory) -> None:
    """What the lines and the root are, below the axes: the title stands above."""
    from matplotlib.lines import Line2D

    drawn = found.ends[~found.ends["bridged"]]["shown"]
    handles = [Line2D([], [], marker="o", color=PAPER, markeredgecolor=INK, markersize=6, linestyle="", label="root")]
    for shown, said in ((True, "branch"), (False, "a transition that the data do not show")):
        if (drawn == shown).any():
            handles.append(Line2D([], [], color=INK, linewidth=1.4, linestyle=LINES[shown], label=said))
    ax.legend(
        handles=handles, loc="upper left", bbox_to_anchor=(0, -0.1), ncols=3, frameon=False, fontsize=SMALL,
        labelcolor=INK, borderaxespad=0.3, handlelength=2.4, columnspacing=1.4, handletextpad=0.5,
    )  # fmt: skip


def trends(
    frame: pd.DataFrame, feature: str | None = None, *, unit: str = "log1p of counts per 10,000", ax: Axes | None = None
) -> Axes:
    """Draw one feature along pseudotime: a line per branch, with its 90 % interval; a gap where observations lack.

    Args:
        frame: Of `bv.tl.trends`.
        feature: Which; the first of the frame by default.
        unit: What is measured.
        ax: Axes to draw on; new ones otherwise.

    Raises:
        InputError: A column is missing, or the feature is not in the frame.
    """
    missing = [name for name in NEEDED if name not in frame]
    if missing or frame.empty:
        raise InputError(
            f"expected rows with the columns {', '.join(NEEDED)}, found {len(frame):,} rows and none called "
            f"{', '.join(missing) or '(all are there)'}: pass the frame of bv.tl.trends."
        )
    names = frame["feature"].unique()
    chosen = str(names[0]) if feature is None else feature
    if chosen not in names:
        raise InputError(f"expected a feature of the frame, found {chosen!r}: {closest(chosen, names)}")
    ax = new_axes(ax, width=3.6, height=2.6)
    branches = frame["branch"].unique()
    colors = palette(min(len(branches), 30))
    for number, branch in enumerate(branches):
        part = frame[(frame["branch"] == branch) & (frame["feature"] == chosen)]
        t, color = part["pseudotime"].to_numpy(), colors[number % len(colors)]
        ax.fill_between(t, part["lower"], part["upper"], color=color, alpha=0.22, linewidth=0)
        ax.plot(t, part["mean"], color=color, linewidth=1.6, label=plain(branch, 18))
    dress(ax, x="pseudotime (0 at the root)", y=unit)
    columns = 3 if max(len(plain(branch, 18)) for branch in branches) <= SHORT else 2
    key(ax, columns=columns)
    above = ROW * -(-len(branches) // columns) + 5
    ax.set_title(plain(chosen, 40), fontsize=NORMAL + 1, color=INK, loc="left", fontweight="bold", pad=above)
    return ax


def _path(coordinates: np.ndarray, found: Trajectory, number: int) -> np.ndarray:
    """Where the observations that come to an end are, on average, as pseudotime passes."""
    t, fate = found.pseudotime, found.fates.to_numpy()[:, number]
    weight = np.minimum(fate / max(float(fate[found.root].mean()), np.finfo(np.float32).tiny), 1)
    stops = np.linspace(0, found.ends["pseudotime"].iloc[number], STOPS)
    near = np.exp(-0.5 * ((stops[:, None] - t) / WIDTH) ** 2) * weight
    path = near @ coordinates / np.maximum(near.sum(1, keepdims=True), np.finfo(np.float64).tiny)
    return np.vstack([np.median(coordinates[found.root], axis=0), path])
