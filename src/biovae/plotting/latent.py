"""The latent map: every observation a point, coloured by a column."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from biovae.errors import InputError, closest
from biovae.noise import Noise
from biovae.plotting.canvas import BLUE, INK, NORMAL, RASTERISE_ABOVE, SMALL, dress, halo, new_axes, plain, thousands
from biovae.plotting.colors import Categories, categories, is_categorical
from biovae.plotting.coordinates import PCA_NAME, UMAP_NAME, map2d
from biovae.plotting.palettes import CONTINUOUS, MISSING

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.collections import PathCollection

EMBEDDING_KEY = "X_vae"


def latent(vae: Any, adata: Any, *, color: str | None = None, seed: int = 0, ax: Axes | None = None) -> Axes:
    """Draw the latent map of a data set, coloured by a column of `obs` or by a feature.

    Args:
        vae: A fitted model; asked to embed only where `adata.obsm["X_vae"]` is not there.
        adata: The AnnData or MuData to draw.
        color: A column of `obs` or a name of a feature; without it all points look alike.
        seed: Of the map and of the drawing order.
        ax: Axes to draw on; new ones otherwise.

    Raises:
        InputError: `color` is neither a column of `obs` nor a feature.
    """
    z = adata.obsm[EMBEDDING_KEY] if EMBEDDING_KEY in adata.obsm else vae.embed(adata)
    coordinates, kind = map2d(np.asarray(z), seed)
    return points(coordinates, _column(adata, color), kind=kind, seed=seed, ax=ax)


def points(
    coordinates: np.ndarray,
    color: pd.Series | None = None,
    *,
    kind: str = UMAP_NAME,
    annotate: bool = False,
    seed: int = 0,
    ax: Axes | None = None,
) -> Axes:
    """Draw points in a random but repeatable order, so that no category hides another.

    Args:
        coordinates: Positions, (obs, 2).
        color: One value per observation; its name is the title. Missing values are grey, and counted in the legend.
        kind: What the coordinates are, for the axis labels: "UMAP" or "PCA of z".
        annotate: Write the name of every category over its median position.
        seed: Of the drawing order.
        ax: Axes to draw on; new ones otherwise.

    Raises:
        InputError: Coordinates and colours differ in length.
    """
    coordinates = np.asarray(coordinates, dtype=np.float64)
    if color is not None and len(color) != len(coordinates):
        raise InputError(
            f"expected one colour per point, found {len(color):,} colours for {len(coordinates):,} points: "
            "pass the column of the same observations."
        )
    ax = new_axes(ax, width=4.7, height=3.5)
    order = Noise(seed).numpy().permutation(len(coordinates))
    if color is None:
        _scatter(ax, coordinates[order], c=BLUE)
    elif is_categorical(color):
        _categorical(ax, coordinates, categories(color), order, annotate=annotate)
    else:
        _continuous(ax, coordinates, color.to_numpy(dtype=np.float64, na_value=np.nan), order)
    _frame(ax, kind, "" if color is None else str(color.name or ""))
    return ax


def point_size(count: int) -> float:
    """The area of a marker in points squared: smaller where there are more of them."""
    return float(np.clip(9_000 / max(count, 1), 0.8, 22))


def _column(adata: Any, color: str | None) -> pd.Series | None:
    if color is None:
        return None
    if color in adata.obs:
        return adata.obs[color]
    if color in adata.var_names and hasattr(adata, "obs_vector"):
        return pd.Series(np.asarray(adata.obs_vector(color), dtype=np.float64), index=adata.obs_names, name=color)
    known = [*adata.obs.columns, *adata.var_names]
    raise InputError(f"expected a column of obs or a feature to colour by, found {color!r}: {closest(color, known)}")


def _scatter(ax: Axes, coordinates: np.ndarray, **how: Any) -> PathCollection:
    many = len(coordinates) > RASTERISE_ABOVE
    how = {"s": point_size(len(coordinates)), "linewidths": 0, "rasterized": many} | how
    return ax.scatter(coordinates[:, 0], coordinates[:, 1], **how)


def _categorical(ax: Axes, coordinates: np.ndarray, groups: Categories, order: np.ndarray, *, annotate: bool) -> None:
    colors = np.array((*groups.colors, MISSING))
    _scatter(ax, coordinates[order], c=colors[groups.codes[order]])
    labels = [f"{plain(name, 26)} ({size:,})" for name, size in zip(groups.names, groups.sizes, strict=True)]
    _legend(ax, [*labels, *_missing_label(groups.missing)], colors)
    for code, name in enumerate(groups.names if annotate else ()):
        small = groups.sizes[code] < 0.01 * len(coordinates)  # a name would cover it: write it above
        _write(ax, np.median(coordinates[groups.codes == code], axis=0), plain(name, 18), lift=9 if small else 0)


def _continuous(ax: Axes, coordinates: np.ndarray, values: np.ndarray, order: np.ndarray) -> None:
    known = np.isfinite(values)
    size = point_size(len(values))
    if not known.all():
        _scatter(ax, coordinates[~known], c=MISSING, s=size)
        _legend(ax, _missing_label(int((~known).sum())), np.array([MISSING]), anchor=(0, -0.16))
    if not known.any():
        return
    low, high = np.quantile(values[known], (0.01, 0.99))
    shown = order[known[order]]
    drawn = _scatter(ax, coordinates[shown], c=values[shown], cmap=CONTINUOUS, vmin=low, vmax=high, s=size)
    bar = ax.figure.colorbar(drawn, ax=ax, fraction=0.045, pad=0.03, extend="both" if high > low else "neither")
    bar.outline.set_visible(False)
    bar.ax.tick_params(labelsize=SMALL, labelcolor=INK, length=0)
    bar.ax.yaxis.set_major_formatter(thousands)
    bar.ax.set_ylabel("value (1 to 99 % of observations)", fontsize=SMALL, color=INK)


def _missing_label(count: int) -> list[str]:
    return [f"missing ({count:,})"] if count else []


def _legend(ax: Axes, labels: list[str], colors: np.ndarray, anchor: tuple[float, float] = (1.02, 1.0)) -> None:
    """Names beside the axes, in two columns where there are many."""
    from matplotlib.lines import Line2D

    marks = [
        Line2D([], [], linestyle="", marker="o", markersize=5, markeredgewidth=0, color=color)
        for color in colors[: len(labels)]
    ]
    ax.legend(
        marks, labels, loc="upper left", bbox_to_anchor=anchor, ncols=1 + (len(labels) > 16), frameon=False,
        fontsize=SMALL if len(labels) <= 16 else SMALL - 1, labelcolor=INK, borderaxespad=0, handletextpad=0.3,
        handlelength=1.0, labelspacing=0.45, columnspacing=0.8,
    )  # fmt: skip


def _write(ax: Axes, at: np.ndarray, text: str, *, lift: float) -> None:
    ax.annotate(
        text, (float(at[0]), float(at[1])), xytext=(0, lift), textcoords="offset points", ha="center", va="center",
        fontsize=NORMAL, fontweight="bold", color=INK, path_effects=halo(),
    )  # fmt: skip


def _frame(ax: Axes, kind: str, title: str) -> None:
    if kind == PCA_NAME:
        x, y = "PC 1 of z (latent units)", "PC 2 of z (latent units)"
    else:
        x, y = f"{kind} 1 (arbitrary units)", f"{kind} 2 (arbitrary units)"
        ax.set_xticks([])
        ax.set_yticks([])
    dress(ax, x=x, y=y, title=title, grid="none")
    ax.set_aspect("equal", adjustable="datalim")
    ax.margins(0.04)
