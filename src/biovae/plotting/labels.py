"""Names beside points, placed so that they do not cover each other."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from biovae.plotting.canvas import INK, SMALL, halo

if TYPE_CHECKING:
    from collections.abc import Sequence

    from matplotlib.axes import Axes

_ANGLES = np.deg2rad((20, 160, -20, 200, 60, 120, -60, -120, 90, -90))
_RADII = (7, 14, 22, 32, 44, 60, 80)
_OFFSETS = [(r * np.cos(a), r * np.sin(a)) for r in _RADII for a in _ANGLES]  # points, nearest first


def place_labels(ax: Axes, x: np.ndarray, y: np.ndarray, names: Sequence[str]) -> None:
    """Write each name at the nearest free place around its point, with a thin line to it.

    The limits of the axes must not change afterwards. A name for which no place is free is left out.
    """
    at = ax.transData.transform(np.column_stack([x, y])) * (72 / ax.figure.dpi)  # points from the corner
    window = ax.get_window_extent()
    frame = np.array([window.x0, window.y0, window.x1, window.y1]) * (72 / ax.figure.dpi)
    taken = [np.array([px - 2, py - 2, px + 2, py + 2]) for px, py in at]
    for point, px, py, name in zip(range(len(names)), *at.T, names, strict=True):
        for dx, dy in _OFFSETS:
            box = _box(px + dx, py + dy, name, left=dx >= 0)
            if _inside(box, frame) and not any(_overlap(box, other) for other in taken):
                break
        else:
            continue
        taken.append(box)
        ax.annotate(
            name, (x[point], y[point]), xytext=(dx, dy), textcoords="offset points", fontsize=SMALL, color=INK,
            ha="left" if dx >= 0 else "right", va="center", path_effects=halo(),
            arrowprops={"arrowstyle": "-", "color": INK, "linewidth": 0.5, "shrinkA": 0, "shrinkB": 2, "alpha": 0.6},
        )  # fmt: skip


def _box(x: float, y: float, name: str, *, left: bool) -> np.ndarray:
    """An estimate of the space that a name takes, in points: no font is asked, so that this costs nothing."""
    width = 0.66 * SMALL * len(name) + 2
    return np.array([x if left else x - width, y - 0.62 * SMALL, x + width if left else x, y + 0.62 * SMALL])


def _inside(box: np.ndarray, frame: np.ndarray) -> bool:
    return bool((box[:2] >= frame[:2]).all() and (box[2:] <= frame[2:]).all())


def _overlap(a: np.ndarray, b: np.ndarray) -> bool:
    return bool(a[0] < b[2] and b[0] < a[2] and a[1] < b[3] and b[1] < a[3])
