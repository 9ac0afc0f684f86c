"""Pictures of results, offered as `bv.pl`: arrays or a frame in, matplotlib axes out.

matplotlib is imported when the first picture is drawn, and pyplot never.
"""

from biovae.plotting.anomalies import anomalies
from biovae.plotting.archetypes import archetypes
from biovae.plotting.calibration import calibration, mean_variance, pit, zero_fraction
from biovae.plotting.canvas import png, svg
from biovae.plotting.comparison import compare, comparison
from biovae.plotting.coordinates import map2d
from biovae.plotting.counterfactual import counterfactual
from biovae.plotting.differential import differential
from biovae.plotting.dimensions import dimensions
from biovae.plotting.history import history
from biovae.plotting.holes import holes
from biovae.plotting.imputation import imputation
from biovae.plotting.kl import kl
from biovae.plotting.latent import latent, points
from biovae.plotting.palettes import palette
from biovae.plotting.path import path
from biovae.plotting.predictive_checks import predictive_checks
from biovae.plotting.prototype import prototype
from biovae.plotting.shift import shift
from biovae.plotting.stability import stability
from biovae.plotting.sweep import sweep
from biovae.plotting.trajectory import trajectory, trends
from biovae.plotting.traversal import traversal

__all__ = [
    "anomalies",
    "archetypes",
    "calibration",
    "compare",
    "comparison",
    "counterfactual",
    "differential",
    "dimensions",
    "history",
    "holes",
    "imputation",
    "kl",
    "latent",
    "map2d",
    "mean_variance",
    "palette",
    "path",
    "pit",
    "png",
    "points",
    "predictive_checks",
    "prototype",
    "shift",
    "stability",
    "svg",
    "sweep",
    "trajectory",
    "traversal",
    "trends",
    "zero_fraction",
]
