"""Does the likelihood describe the data? Three pictures: PIT, zeros, and variance against mean.

Source: Czado, Gneiting and Held 2009, Predictive model assessment for count data, Biometrics 65:1254,
doi:10.1111/j.1541-0420.2009.01191.x.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from biovae.plotting.canvas import BLUE, INK, MUTED, ORANGE, RASTERISE_ABOVE, dress, key, new_axes, panels

if TYPE_CHECKING:
    from matplotlib.axes import Axes

BINS = 20
TOLERANCE = 0.1  # of the uniform density; what chance adds for few values comes on top


def calibration(
    pit_values: np.ndarray | None = None,
    zeros: tuple[np.ndarray, np.ndarray] | None = None,
    moments: tuple[np.ndarray, np.ndarray, np.ndarray] | None = None,
) -> tuple[Axes, ...]:
    """Draw what there is of the three pictures side by side on one figure.

    Args:
        pit_values: See `pit`.
        zeros: Observed and expected, see `zero_fraction`.
        moments: Mean, observed and expected variance, see `mean_variance`.
    """
    wanted = [values is not None for values in (pit_values, zeros, moments)]
    axes = iter(panels(sum(wanted), width=4.2))
    drawn: list[Axes] = []
    if pit_values is not None:
        drawn.append(pit(pit_values, ax=next(axes)))
    if zeros is not None:
        drawn.append(zero_fraction(*zeros, ax=next(axes)))
    if moments is not None:
        drawn.append(mean_variance(*moments, ax=next(axes)))
    return tuple(drawn)


def pit(values: np.ndarray, *, tolerance: float = TOLERANCE, ax: Axes | None = None) -> Axes:
    """Draw the histogram of the randomised probability integral transform: flat where the likelihood is calibrated.

    Args:
        values: Numbers in [0, 1].
        tolerance: The half-width of the band around the uniform density that counts as flat.
        ax: Axes to draw on; new ones otherwise.
    """
    values = np.asarray(values, dtype=np.float64).ravel()
    values = values[np.isfinite(values)]
    ax = new_axes(ax)
    chance = 2.58 * np.sqrt((BINS - 1) / max(len(values), 1))  # 99 % of a bin's height, relative
    band = tolerance + chance
    density, edges = np.histogram(values, bins=BINS, range=(0, 1), density=len(values) > 0)
    ax.stairs(density, edges, fill=True, color=BLUE, alpha=0.8, label="observed", zorder=1)
    top = max(1.6, 1.12 * float(density.max(initial=0)))
    ax.fill_between(
        [0, 1], max(1 - band, 0), min(1 + band, top), color=MUTED, alpha=0.3, linewidth=0, zorder=2,
        label=f"tolerance ±{100 * band:.0f} %",
    )  # fmt: skip
    ax.axhline(1, color=INK, linewidth=1.1, linestyle=(0, (5, 3)), label="uniform")
    ax.set_xlim(0, 1)
    ax.set_ylim(0, top)
    key(ax, columns=3)
    return dress(ax, x="PIT (probability)", y="density (1 = uniform)", grid="y")


def zero_fraction(observed: np.ndarray, expected: np.ndarray, *, ax: Axes | None = None) -> Axes:
    """Draw the fraction of zeros of each feature, observed against expected under the model.

    Args:
        observed: Fractions in the data, (features,).
        expected: Fractions under the model, (features,).
        ax: Axes to draw on; new ones otherwise.
    """
    observed, expected = np.asarray(observed, dtype=np.float64), np.asarray(expected, dtype=np.float64)
    error = float(np.sqrt(np.nanmean((observed - expected) ** 2))) if observed.size else float("nan")
    ax = new_axes(ax)
    _dots(ax, expected, observed, color=BLUE, label=f"features (RMS error {100 * error:.2g} points)")
    ax.plot([0, 1], [0, 1], color=INK, linewidth=1.1, linestyle=(0, (5, 3)), label="equal")
    ax.set_xlim(-0.02, 1.02)
    ax.set_ylim(-0.02, 1.02)
    key(ax, columns=2)
    return dress(ax, x="expected zeros (fraction)", y="observed zeros (fraction)")


def mean_variance(
    mean: np.ndarray, observed: np.ndarray, expected: np.ndarray, *, unit: str = "counts", ax: Axes | None = None
) -> Axes:
    """Draw the variance of each feature against its mean: observed, expected under the model, and Poisson's line.

    Args:
        mean: Means of the features, (features,).
        observed: Variances in the data, (features,).
        expected: Variances under the model, (features,).
        unit: What is measured. Only counts get logarithmic axes and Poisson's line.
        ax: Axes to draw on; new ones otherwise.
    """
    mean, observed, expected = (np.asarray(values, dtype=np.float64) for values in (mean, observed, expected))
    ax = new_axes(ax)
    counts = unit == "counts" and mean.min(initial=0) >= 0
    keep = (mean > 0) & (observed > 0) & (expected > 0) if counts else np.isfinite(mean)
    _dots(ax, mean[keep], observed[keep], color=BLUE, label="observed")
    _dots(ax, mean[keep], expected[keep], color=ORANGE, label="expected")
    if counts and keep.any():
        ends = np.array([mean[keep].min(), mean[keep].max()])
        ax.plot(ends, ends, color=INK, linewidth=1.1, linestyle=(0, (5, 3)), label="Poisson")
        ax.set_xscale("log")
        ax.set_yscale("log")
    key(ax, columns=3)
    return dress(ax, x=f"mean ({unit})", y=f"variance ({unit}²)")


def _dots(ax: Axes, x: np.ndarray, y: np.ndarray, *, color: str, label: str) -> None:
    size = float(np.clip(9_000 / max(len(x), 1), 4, 16))
    ax.scatter(x, y, s=size, color=color, alpha=0.6, linewidths=0, label=label, rasterized=len(x) > RASTERISE_ABOVE)
