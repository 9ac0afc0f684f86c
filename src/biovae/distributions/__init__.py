"""Distributions over what is measured: sparse-aware, stable in float32, with no check of values inside."""

from biovae.distributions.composition import Affine, Composition
from biovae.distributions.continuous import Log1pNormalCounts, Normal
from biovae.distributions.discrete import Bernoulli, Categorical
from biovae.distributions.distribution import Distribution
from biovae.distributions.negative_binomial import NegativeBinomial
from biovae.distributions.poisson import Poisson
from biovae.distributions.zero_inflated import ZeroInflatedNegativeBinomial

__all__ = [
    "Affine",
    "Bernoulli",
    "Categorical",
    "Composition",
    "Distribution",
    "Log1pNormalCounts",
    "NegativeBinomial",
    "Normal",
    "Poisson",
    "ZeroInflatedNegativeBinomial",
]
