"""What every distribution over one modality can answer.

    x  observation    (obs, features); sparse for counts and binary data, dense for real numbers and categories

Parameters are tensors of shape (*samples, obs, features), or whatever broadcasts to it; sample axes in front pass
through every method. To add a distribution: subclass `Distribution`, add a row to CASES in tests/test_distributions.py.
"""

from abc import ABC, abstractmethod

from jaxtyping import Float
from torch import Tensor

from biovae.batch import SparseCounts
from biovae.noise import Noise


class Distribution(ABC):
    """p(x), independent over features.

    `log_prob` is the training path: of sparse counts it touches lgamma at the non-zeros only. `log_prob_each` and `cdf`
    are for calibration: dense, element by element.
    """

    @property
    @abstractmethod
    def mean(self) -> Float[Tensor, "*samples obs features"]:
        """E[x]."""

    @property
    @abstractmethod
    def variance(self) -> Float[Tensor, "*samples obs features"]:
        """E[x**2] - E[x]**2."""

    @abstractmethod
    def log_prob(self, x: SparseCounts | Float[Tensor, "obs features"]) -> Float[Tensor, "*samples obs"]:
        """log p(x), summed over features, in nats, constants included."""

    @abstractmethod
    def log_prob_each(self, x: Float[Tensor, "obs features"]) -> Float[Tensor, "*samples obs features"]:
        """log p(x) of every entry of a dense x."""

    @abstractmethod
    def cdf(self, x: Float[Tensor, "obs features"]) -> Float[Tensor, "*samples obs features"]:
        """P(X <= x) of every entry of a dense x; 0 below the support."""

    @abstractmethod
    def sample(self, noise: Noise) -> Float[Tensor, "*samples obs features"]:
        """One draw of every entry, from `noise` alone."""
