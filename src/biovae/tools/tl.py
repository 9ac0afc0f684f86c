"""bv.tl: questions to a fitted model, or about which model to fit."""

from biovae.tools.differential import Effort, differential
from biovae.tools.dimensions import dimensions
from biovae.tools.holes import density, holes, plausibility
from biovae.tools.likelihoods import rank_likelihoods, thin
from biovae.tools.path import path, path_lengths
from biovae.tools.prototype import prototype
from biovae.tools.stability import ensemble_expression, stability
from biovae.tools.sweep import sweep
from biovae.tools.trajectory import direction, trajectory, trends, write_trajectory

__all__ = [
    "Effort",
    "density",
    "differential",
    "dimensions",
    "direction",
    "ensemble_expression",
    "holes",
    "path",
    "path_lengths",
    "plausibility",
    "prototype",
    "rank_likelihoods",
    "stability",
    "sweep",
    "thin",
    "trajectory",
    "trends",
    "write_trajectory",
]
