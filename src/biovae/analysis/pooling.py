"""One number from several fits, and what is left of doubt: that within each fit, and that between them.

    b  estimates, (fits, ...)
    W  their variances as each fit states them, (fits, ...)
    m  number of fits

    variance = mean W + (1 + 1/m) var b

is the rule of total variance with a correction for few fits. An interval takes Student's t with

    (m - 1) (1 + mean W / ((1 + 1/m) var b))^2

degrees of freedom: three fits that differ know little of how much others would. What all fits get wrong together no
spread between them can show.

Source: Rubin 1987, Multiple imputation for nonresponse in surveys, doi:10.1002/9780470316696; fits that differ in their
seeds as a mixture, Lakshminarayanan, Pritzel and Blundell 2017, NeurIPS, arXiv:1612.01474.
"""

from dataclasses import dataclass

import numpy as np
import scipy.stats
from jaxtyping import Float

from biovae.analysis.limits import SHARE
from biovae.errors import InputError

ALIKE = 1e-300  # variance between fits, at least, so that fits which do not differ have a normal interval


@dataclass(frozen=True)
class Pooled:
    """Arrays of the shape of one estimate.

    Attributes:
        mean: Of the fits.
        within: Standard deviation that a fit states, as the root of its mean square.
        between: Standard deviation between fits.
        lower: Of the interval that holds both.
        upper: Of it.
    """

    mean: Float[np.ndarray, "..."]
    within: Float[np.ndarray, "..."]
    between: Float[np.ndarray, "..."]
    lower: Float[np.ndarray, "..."]
    upper: Float[np.ndarray, "..."]


def pooled(
    estimates: Float[np.ndarray, "fits ..."], variances: Float[np.ndarray, "fits ..."], coverage: float = 0.95
) -> Pooled:
    """The mean of several fits with an interval for both kinds of doubt.

    Args:
        estimates: b; NaN where there is none.
        variances: W; zeros where a fit states no doubt.
        coverage: Of the interval.

    Raises:
        InputError: Fewer than two fits, or arrays of two shapes.
    """
    b, w = np.asarray(estimates, dtype=np.float64), np.asarray(variances, dtype=np.float64)
    if len(b) < 2 or b.shape != w.shape:
        raise InputError(f"expected estimates and variances of two fits or more, found {b.shape} and {w.shape}.")
    mean, within, between = b.mean(0), w.mean(0), b.var(0, ddof=1)
    extra = (1 + 1 / len(b)) * np.maximum(between, ALIKE)
    with np.errstate(over="ignore"):
        freedom = np.minimum((len(b) - 1) * (1 + within / extra) ** 2, 1e6)
    half = scipy.stats.t.ppf((1 + coverage) / 2, freedom) * np.sqrt(within + extra)
    return Pooled(mean, np.sqrt(within), np.sqrt(between), mean - half, mean + half)


def pooled_intervals(
    estimates: Float[np.ndarray, "fits ..."],
    lower: Float[np.ndarray, "fits ..."],
    upper: Float[np.ndarray, "fits ..."],
    coverage: float = SHARE,
) -> Pooled:
    """`pooled` where each fit states an interval: its width tells the variance, as that of a normal would.

    Args:
        estimates: b.
        lower: Limits that each fit states; NaN where it states none.
        upper: The others.
        coverage: Of these, and of the interval that is found.
    """
    reach = 2 * scipy.stats.norm.ppf((1 + coverage) / 2)
    within = ((np.asarray(upper, np.float64) - np.asarray(lower, np.float64)) / reach) ** 2
    return pooled(estimates, np.nan_to_num(within), coverage)
