"""bv.tl: questions to a fitted model, or about which model to fit."""

from biovae.tools.differential import Effort, differential
from biovae.tools.dimensions import dimensions
from biovae.tools.likelihoods import rank_likelihoods, thin
from biovae.tools.prototype import prototype
from biovae.tools.sweep import sweep

__all__ = ["Effort", "differential", "dimensions", "prototype", "rank_likelihoods", "sweep", "thin"]
