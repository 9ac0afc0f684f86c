"""bv.tl: questions to a fitted model, or about which model to fit."""

from biovae.tools.holes import density, holes, plausibility
from biovae.tools.likelihoods import rank_likelihoods, thin
from biovae.tools.path import path, path_lengths
from biovae.tools.prototype import prototype

__all__ = [
    "density",
    "holes",
    "path",
    "path_lengths",
    "plausibility",
    "prototype",
    "rank_likelihoods",
    "thin",
]
