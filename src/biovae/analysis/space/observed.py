"""What plausibility asks of observed values, for each kind of them.

    x      observed, (obs, features)
    mean   decoded, (points, features)
    rho    mean / sum of mean
    L      median total count of an observation

              nats of x_n under a mean                        a unit of them       f, in standard deviations    chance
    counts    sum_g x_ng log rho_g                            1,000 counts         2 sqrt(L rho_g)              1 - exp(-L rho_g)
    binary    sum_g x_ng log p_g + (1 - x_ng) log(1 - p_g)    an observation       2 arcsin sqrt(p_g)           p_g
    reals     -1/2 sum_g (x_ng - mean_g)^2 / s_g^2            an observation       mean_g / s_g                 none

The chance is that of seeing a feature at all; features that exclude each other in the data are not expected together.

Source: Bartlett 1947, doi:10.2307/3001536 (the scales of f, on which noise is alike everywhere).
"""  # noqa: E501 - a table

from dataclasses import dataclass
from functools import cached_property
from typing import Any, ClassVar, Protocol, TypeAlias

import numpy as np
import scipy.sparse
from jaxtyping import Float

from biovae.errors import InputError

Matrix: TypeAlias = scipy.sparse.sparray | scipy.sparse.spmatrix | np.ndarray
Chosen: TypeAlias = scipy.sparse.csr_array  # (points, obs), 1 where an observation is to be explained by a point

FLOOR = 1e-9  # of a share, in logarithms
EDGE = 1e-6  # of a probability
UNIT = 1000  # counts that misfit is told per


class Observed(Protocol):
    """Values of one kind."""

    detected: ClassVar[bool]  # a feature is seen in an observation or it is not

    @property
    def x(self) -> Any:
        """(obs, features)."""

    def nats(self, chosen: Chosen, mean: Float[np.ndarray, "points features"]) -> Float[np.ndarray, "points"]:
        """Log-likelihood of the chosen observations together under each point's mean, up to what the mean is not in."""

    def units(self, chosen: Chosen) -> Float[np.ndarray, "points"]:
        """How many units of observation were chosen."""

    def scaled(self, mean: Float[np.ndarray, "points features"]) -> Float[np.ndarray, "points features"]:
        """f, in standard deviations of the measurement."""

    def chance(self, mean: Float[np.ndarray, "points features"]) -> Float[np.ndarray, "points features"]:
        """Chance to see each feature, where `detected`."""


@dataclass(frozen=True)
class Counts:
    """Counts, explained by shares.

    Attributes:
        x: (obs, features).

    Raises:
        InputError: A count is negative.
    """

    x: Matrix
    detected: ClassVar[bool] = True

    def __post_init__(self) -> None:
        x = scipy.sparse.csr_array(self.x)
        if x.nnz and x.data.min() < 0:
            raise InputError(f"expected counts of at least 0, found {x.data.min():g}: name values that are no counts.")
        object.__setattr__(self, "x", x)

    @cached_property
    def exposure(self) -> float:
        """L."""
        return float(np.median(self.x.sum(1)))

    def nats(self, chosen: Chosen, mean: np.ndarray) -> np.ndarray:
        """See `Observed`."""
        return np.asarray((chosen @ self.x).multiply(np.log(shares(mean) + FLOOR)).sum(1)).ravel()

    def units(self, chosen: Chosen) -> np.ndarray:
        """See `Observed`."""
        return np.maximum(chosen @ np.asarray(self.x.sum(1)).ravel(), 1) / UNIT

    def scaled(self, mean: np.ndarray) -> np.ndarray:
        """See `Observed`."""
        return 2 * np.sqrt(self.exposure * shares(mean))

    def chance(self, mean: np.ndarray) -> np.ndarray:
        """See `Observed`."""
        return -np.expm1(-self.exposure * shares(mean))


@dataclass(frozen=True)
class Binary:
    """Zeros and ones, explained by probabilities.

    Attributes:
        x: (obs, features).
    """

    x: Matrix
    detected: ClassVar[bool] = True

    def __post_init__(self) -> None:
        object.__setattr__(self, "x", scipy.sparse.csr_array(self.x))

    def nats(self, chosen: Chosen, mean: np.ndarray) -> np.ndarray:
        """See `Observed`."""
        p, ones = np.clip(mean, EDGE, 1 - EDGE), (chosen @ self.x).toarray()
        zeros = np.asarray(chosen.sum(1)).reshape(-1, 1) - ones
        return (ones * np.log(p) + zeros * np.log1p(-p)).sum(1)

    def units(self, chosen: Chosen) -> np.ndarray:
        """See `Observed`."""
        return _number(chosen)

    def scaled(self, mean: np.ndarray) -> np.ndarray:
        """See `Observed`."""
        return 2 * np.arcsin(np.sqrt(np.clip(mean, 0, 1)))

    def chance(self, mean: np.ndarray) -> np.ndarray:
        """See `Observed`."""
        return np.clip(mean, 0, 1)


@dataclass(frozen=True)
class Reals:
    """Real values, explained by means with one noise for each feature.

    Attributes:
        x: (obs, features).
        noise: s, the standard deviation of a value around its mean, (features,).
    """

    x: Float[np.ndarray, "obs features"]
    noise: Float[np.ndarray, "features"]
    detected: ClassVar[bool] = False

    @cached_property
    def _standard(self) -> np.ndarray:
        return self.scaled(self.x)

    def nats(self, chosen: Chosen, mean: np.ndarray) -> np.ndarray:
        """See `Observed`."""
        at, x = self.scaled(mean), self._standard
        apart = chosen @ (x**2).sum(1) - 2 * (at * (chosen @ x)).sum(1) + _number(chosen) * (at**2).sum(1)
        return -0.5 * apart

    def units(self, chosen: Chosen) -> np.ndarray:
        """See `Observed`."""
        return _number(chosen)

    def scaled(self, mean: np.ndarray) -> np.ndarray:
        """In standard deviations, from the middle of the data, where no large squares cancel."""
        return (np.asarray(mean, dtype=np.float64) - self._middle) / self.noise

    @cached_property
    def _middle(self) -> np.ndarray:
        return np.asarray(self.x, dtype=np.float64).mean(0)

    def chance(self, mean: np.ndarray) -> np.ndarray:
        """Of no feature: a real value is not seen or unseen."""
        return np.zeros_like(mean)


def shares(mean: Float[np.ndarray, "points features"]) -> Float[np.ndarray, "points features"]:
    """Means divided by their sum."""
    mean = np.maximum(np.asarray(mean, dtype=np.float64), 0)
    return mean / np.maximum(mean.sum(1, keepdims=True), np.finfo(np.float64).tiny)


def _number(chosen: Chosen) -> Float[np.ndarray, "points"]:
    return np.asarray(chosen.sum(1), dtype=np.float64).ravel()
