"""Pictures of results, offered as `bv.pl`: arrays or a frame in, matplotlib axes out.

matplotlib is imported when the first picture is drawn, and pyplot never.
"""

from biovae.plotting.calibration import calibration, mean_variance, pit, zero_fraction
from biovae.plotting.canvas import png, svg
from biovae.plotting.comparison import comparison, ranking
from biovae.plotting.coordinates import map2d
from biovae.plotting.differential import differential
from biovae.plotting.dimensions import dimensions
from biovae.plotting.history import history
from biovae.plotting.holes import holes
from biovae.plotting.kl import kl
from biovae.plotting.latent import latent, points
from biovae.plotting.palettes import palette
from biovae.plotting.path import path
from biovae.plotting.prototype import prototype
from biovae.plotting.stability import stability
from biovae.plotting.sweep import sweep
from biovae.plotting.trajectory import trajectory, trends
from biovae.plotting.traversal import traversal

__all__ = [
    "calibration",
    "comparison",
    "dimensions",
    "differential",
    "history",
    "holes",
    "kl",
    "latent",
    "map2d",
    "mean_variance",
    "palette",
    "path",
    "pit",
    "png",
    "points",
    "prototype",
    "ranking",
    "stability",
    "svg",
    "sweep",
    "traversal",
    "trajectory",
    "trends",
    "zero_fraction",
]
