"""bv.tl: questions to a fitted model, or about which model to fit."""

from biovae.tools.differential import Effort, differential
from biovae.tools.dimensions import dimensions
from biovae.tools.likelihoods import rank_likelihoods, thin
from biovae.tools.prototype import prototype
from biovae.tools.sweep import sweep
from biovae.tools.trajectory import direction, trajectory, trends, write_trajectory

__all__ = [
    "Effort",
    "differential",
    "dimensions",
    "direction",
    "prototype",
    "rank_likelihoods",
    "sweep",
    "thin",
    "trajectory",
    "trends",
    "write_trajectory",
]
