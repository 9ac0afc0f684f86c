"""Whether two regions show the same features to each other: a trace of what lies between them.

    one, other   two regions
    s            place of an observation on the line between the regions' centres in z, towards the other region
    slope        t-like slope of a log-normalised feature on s within a region, (features,)
    shared       how far a feature is higher in both regions than in any third one, in its standard deviations; else 0
    rise         sum over features of shared (slope + slope of the other) / sqrt(2 sum shared^2), in standard errors

Where two states pass into each other, the intermediate has features of its own, and observations near it on either side
begin to show them: both regions share features that no other has, and these rise towards the pass from both sides. At
a gap what rises towards the other side on one shore falls towards the other side on the other, and the sum is small.

A high rise speaks for a passage that was not sampled, a low one for nothing: an intermediate may leave no trace. It is
a score to compare passes by, not a test: its mean is above 0 where nothing lies between, too (4 at simulated gaps, 9 at
simulated bridges), because z and the features come from the same counts.
"""

from typing import NamedTuple

import numpy as np
import scipy.sparse
from jaxtyping import Float, Int

from biovae.errors import InputError

COMMON = 0.02  # share of either region's observations in which a feature must be seen
FEWEST = 10  # observations of a region
TINY = np.finfo(np.float64).tiny


class Rise(NamedTuple):
    """The rise in standard errors, and the features that carry it, the first most; NaN without a third region."""

    value: float
    features: Int[np.ndarray, "shared"]


def rise(
    logs: scipy.sparse.csr_array,
    z: Float[np.ndarray, "obs latent"],
    member: Int[np.ndarray, "obs"],
    pair: tuple[int, int],
    covariates: Float[np.ndarray, "obs covariates"] | None = None,
) -> Rise:
    """How much the features that two regions share, and no third one has, rise towards each other.

    Args:
        logs: Log-normalised values, see `log_normalise`.
        z: Positions.
        member: Region of each observation, 0, 1, ...
        pair: The two regions.
        covariates: Columns whose part in s is removed within each region.

    Raises:
        InputError: Values, positions and regions differ in number.
    """
    if not logs.shape[0] == len(z) == len(member):
        raise InputError(
            f"expected values, positions and regions of the same observations, found {logs.shape[0]}, {len(z)} and "
            f"{len(member)}: use one set."
        )
    rows = [np.flatnonzero(member == g) for g in pair]
    others = [g for g in np.unique(member) if g not in pair]
    if min(map(len, rows)) < FEWEST or not others:
        return Rise(np.nan, np.empty(0, dtype=np.int64))
    parts = [logs[r] for r in rows]
    means, spreads = zip(*(_moments(part) for part in parts), strict=True)
    spread = np.hypot(*spreads) / np.sqrt(2)
    third = np.max([np.asarray(logs[member == g].mean(0)).ravel() for g in others], axis=0)
    seen = np.minimum(*(np.asarray((part > 0).sum(0)).ravel() / part.shape[0] for part in parts)) >= COMMON
    shared = np.where(seen, np.maximum(np.minimum(*means) - third, 0) / spread, 0)
    if not shared.any():
        return Rise(0.0, np.empty(0, dtype=np.int64))
    way = z[rows[1]].mean(0) - z[rows[0]].mean(0)
    both = np.zeros(len(shared))
    for part, r, own, sign in zip(parts, rows, spreads, (1, -1), strict=True):
        slope = _slope(part, sign * (z[r] @ way), None if covariates is None else covariates[r]) / own
        both += slope - slope[seen].mean()  # what all features have in common: shares sum to one
    carried = shared * both
    order = np.argsort(-carried, kind="stable")
    return Rise(float(carried.sum() / np.sqrt(2 * (shared**2).sum())), order[carried[order] > 0])


def _slope(part: scipy.sparse.csr_array, s: np.ndarray, covariates: np.ndarray | None) -> Float[np.ndarray, "features"]:
    """Regression of every feature on s, times |s|; s loses its mean and covariates first, which is the same as both."""
    design = np.ones((len(s), 1)) if covariates is None else np.column_stack([np.ones(len(s)), covariates])
    s = s - design @ np.linalg.lstsq(design, s, rcond=None)[0]
    return np.asarray(part.T @ s).ravel() / max(np.linalg.norm(s), TINY)


def _moments(part: scipy.sparse.csr_array) -> tuple[np.ndarray, np.ndarray]:
    """Mean and standard deviation of every feature; a feature that never varies has no slope to divide."""
    mean = np.asarray(part.mean(0)).ravel()
    variance = np.asarray((part**2).mean(0)).ravel() - mean**2
    return mean, np.sqrt(np.maximum(variance, 1e-6))
