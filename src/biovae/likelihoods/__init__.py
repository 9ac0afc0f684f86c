"""Likelihoods: p(x | h), from a decoder's features to a distribution over one modality.

    h         decoder features               (*samples, obs, hidden), or (*samples, obs, groups, hidden)
    exposure  total counts of each row       (obs, 1), in the context; None for data that have none
    x         observation                    (obs, features)

A likelihood owns its last layer, its start from the data, and the support of its values; no encoder, no loss, no
loading. To add one: write the recipe (a `Likelihood` with `kind`, `support` and `build`) and its module (`forward` and
`start`), list the recipe in `LIKELIHOODS`, add a row to PLAIN in tests/test_likelihoods.py: its tests do the rest.
"""

from typing import Annotated

from pydantic import SerializeAsAny

from biovae.likelihoods.counts import (
    LogMean,
    NegativeBinomialCounts,
    PoissonCounts,
    ZeroInflatedNegativeBinomialCounts,
)
from biovae.likelihoods.discrete import BernoulliBinary, CategoricalLevels
from biovae.likelihoods.gaussian import SCALE, FixedGaussian, Gaussian, Log1pGaussian
from biovae.likelihoods.likelihood import LastLayer, Likelihood, LikelihoodModule, Shape
from biovae.recipe import tagged

__all__ = [
    "COUNTED",
    "LIKELIHOODS",
    "SCALE",
    "AnyLikelihood",
    "BernoulliBinary",
    "CategoricalLevels",
    "FixedGaussian",
    "Gaussian",
    "LastLayer",
    "Likelihood",
    "LikelihoodModule",
    "Log1pGaussian",
    "LogMean",
    "NegativeBinomialCounts",
    "PoissonCounts",
    "Shape",
    "ZeroInflatedNegativeBinomialCounts",
]

COUNTED = (PoissonCounts, NegativeBinomialCounts, ZeroInflatedNegativeBinomialCounts, Log1pGaussian)
LIKELIHOODS = (*COUNTED, Gaussian, FixedGaussian, BernoulliBinary, CategoricalLevels)
AnyLikelihood = Annotated[SerializeAsAny[Likelihood], tagged(Likelihood, *LIKELIHOODS)]
