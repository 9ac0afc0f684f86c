"""bv.tl: questions to a fitted model, or about which model to fit."""

from biovae.tools.likelihoods import rank_likelihoods, thin
from biovae.tools.prototype import prototype

__all__ = ["prototype", "rank_likelihoods", "thin"]
