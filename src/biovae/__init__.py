"""biovae: variational autoencoders for biological data.

    vae = bv.VAE(bv.rna(layer="counts"), covariates=["batch"]).fit(adata)

Importing biovae imports nothing heavy: every name below is found where it lives when it is first used.
"""

import importlib
from typing import TYPE_CHECKING, Any

__version__ = "0.1.0"

_HOMES = {
    "VAE": "biovae.model",
    "Covariate": "biovae.model",
    "load": "biovae.model",
    "rna": "biovae.modalities",
    "continuous": "biovae.modalities",
    "binary": "biovae.modalities",
    "Modality": "biovae.modalities",
    "RootCounts": "biovae.modalities",
    "LogCounts": "biovae.modalities",
    "Standardised": "biovae.modalities",
    "PoissonCounts": "biovae.likelihoods",
    "NegativeBinomialCounts": "biovae.likelihoods",
    "ZeroInflatedNegativeBinomialCounts": "biovae.likelihoods",
    "Gaussian": "biovae.likelihoods",
    "FixedGaussian": "biovae.likelihoods",
    "Log1pGaussian": "biovae.likelihoods",
    "BernoulliBinary": "biovae.likelihoods",
    "CategoricalLevels": "biovae.likelihoods",
    "StandardNormal": "biovae.priors",
    "GaussianMixture": "biovae.priors",
    "VampPrior": "biovae.priors",
    "Flow": "biovae.priors",
    "Diagonal": "biovae.posteriors",
    "LowRank": "biovae.posteriors",
    "MLP": "biovae.nn",
    "Linear": "biovae.nn",
    "Additive": "biovae.nn",
    "ELBO": "biovae.objective",
    "IWAE": "biovae.objective",
    "TotalCorrelation": "biovae.objective",
    "Constant": "biovae.training.schedule",
    "LinearWarmup": "biovae.training.schedule",
    "SigmoidWarmup": "biovae.training.schedule",
    "CyclicalWarmup": "biovae.training.schedule",
    "read": "biovae.data",
}
_ROOMS = {"tl": "biovae.tools.tl", "pp": "biovae.tools.pp", "pl": "biovae.plotting", "datasets": "biovae.datasets"}
_ERRORS = ("BiovaeError", "InputError", "ModelFileError", "TrainingDiverged", "ResumeError", "Interrupted")

__all__ = sorted([*_HOMES, *_ROOMS, *_ERRORS, "__version__"])

if TYPE_CHECKING:
    from biovae import datasets
    from biovae import plotting as pl
    from biovae.data import read
    from biovae.errors import BiovaeError, InputError, Interrupted, ModelFileError, ResumeError, TrainingDiverged
    from biovae.likelihoods import (
        BernoulliBinary,
        CategoricalLevels,
        FixedGaussian,
        Gaussian,
        Log1pGaussian,
        NegativeBinomialCounts,
        PoissonCounts,
        ZeroInflatedNegativeBinomialCounts,
    )
    from biovae.modalities import LogCounts, Modality, RootCounts, Standardised, binary, continuous, rna
    from biovae.model import VAE, Covariate, load
    from biovae.nn import MLP, Additive, Linear
    from biovae.objective import ELBO, IWAE, TotalCorrelation
    from biovae.posteriors import Diagonal, LowRank
    from biovae.priors import Flow, GaussianMixture, StandardNormal, VampPrior
    from biovae.tools import pp, tl
    from biovae.training.schedule import Constant, CyclicalWarmup, LinearWarmup, SigmoidWarmup


def __getattr__(name: str) -> Any:
    if name in _ROOMS:
        return importlib.import_module(_ROOMS[name])
    if name in _ERRORS:
        return getattr(importlib.import_module("biovae.errors"), name)
    if name in _HOMES:
        return getattr(importlib.import_module(_HOMES[name]), name)
    raise AttributeError(f"module 'biovae' has no attribute {name!r}")


def __dir__() -> list[str]:
    return __all__
