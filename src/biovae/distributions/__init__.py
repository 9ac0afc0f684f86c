"""Distributions over what is measured: sparse-aware, stable in float32, with no check of values inside."""

from biovae.distributions.distribution import Distribution
from biovae.distributions.negative_binomial import NegativeBinomial
from biovae.distributions.poisson import Poisson

__all__ = ["Distribution", "NegativeBinomial", "Poisson"]
