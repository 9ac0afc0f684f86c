"""bv.tl: questions to a fitted model, or about which model to fit."""

from biovae.tools.likelihoods import rank_likelihoods, thin
from biovae.tools.prototype import prototype
from biovae.tools.trajectory import direction, trajectory, trends, write_trajectory

__all__ = [
    "direction",
    "prototype",
    "rank_likelihoods",
    "thin",
    "trajectory",
    "trends",
    "write_trajectory",
]
