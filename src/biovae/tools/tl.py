"""bv.tl: questions to a fitted model, or about which model to fit."""

from biovae.tools.compare import compare
from biovae.tools.differential import Effort, differential
from biovae.tools.dimensions import dimensions
from biovae.tools.holes import density, holes, plausibility
from biovae.tools.likelihoods import thin
from biovae.tools.path import path, path_lengths
from biovae.tools.prototype import prototype
from biovae.tools.sweep import sweep
from biovae.tools.trajectory import direction, trajectory, trends, write_trajectory

__all__ = [
    "Effort",
    "compare",
    "density",
    "differential",
    "dimensions",
    "direction",
    "holes",
    "path",
    "path_lengths",
    "plausibility",
    "prototype",
    "sweep",
    "thin",
    "trajectory",
    "trends",
    "write_trajectory",
]
