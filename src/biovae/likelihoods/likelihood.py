"""What a likelihood is made from, and what it must offer."""

from abc import ABC, abstractmethod
from typing import Any, ClassVar, NamedTuple

from jaxtyping import Float
from torch import Tensor, nn

from biovae.batch import Context
from biovae.distributions import Distribution
from biovae.nn import Readout
from biovae.noise import Noise
from biovae.recipe import Recipe
from biovae.schema import Support


class Shape(NamedTuple):
    """What a likelihood stands on: the decoder's width and groups, and the data's features and covariates."""

    hidden: int
    groups: int
    features: int
    covariates: int
    levels: slice | None = None  # columns of the covariate that has a dispersion of its own
    composition: bool = True  # the mean is exposure times a share (softmax), else exposure times a rate (exp)


class LastLayer(NamedTuple):
    """The layer that the mean is read from, and what one observation tells of each of its outputs.

    In the manner of quasi-likelihood (Wedderburn 1974, doi:10.1093/biomet/61.3.439) that is (d mean / d output)**2 /
    variance: Fisher's information of Poisson, negative binomial, Bernoulli and normal values at a known dispersion.
    """

    readout: Readout
    information: Float[Tensor, "*samples obs outputs"]


class LikelihoodModule(nn.Module, ABC):
    """p(x | h) of one modality."""

    @abstractmethod
    def forward(self, h: Tensor, context: Context) -> Distribution:
        """p(x | h, exposure, covariates)."""

    @abstractmethod
    def start(self, x: Any, context: Context) -> None:
        """Look at some observations before training, and begin where they are."""

    def last(self, p: Distribution) -> LastLayer | None:
        """What the limits of denoised values need to know; None leaves the doubt about weights out of them."""
        return None


class Likelihood(Recipe, ABC):
    """p(x | h), summed over features: `log_prob(x)` is one number per observation, in nats.

    Concrete recipes have a `kind`, name their `support`, and build a `LikelihoodModule`.
    """

    support: ClassVar[Support]

    @abstractmethod
    def build(self, shape: Shape, noise: Noise) -> LikelihoodModule:
        """Make the module."""
