"""bv.tl: questions to a fitted model, or about which model to fit."""

from biovae.tools.differential import Effort, differential
from biovae.tools.likelihoods import rank_likelihoods, thin
from biovae.tools.prototype import prototype

__all__ = ["Effort", "differential", "prototype", "rank_likelihoods", "thin"]
