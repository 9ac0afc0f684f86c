"""Analysis of arrays: neighbours, clusters, markers, PCA, prototype, density, paths. Never sees a model or torch.

Every function takes arrays and returns an array, a frame, or a frozen record, so that each can be tested against other
people's code and used on what another program fitted. To add one: a file of its own, a row here, a test with a truth.
"""

from biovae.analysis.clusters import leiden, markers
from biovae.analysis.comparison import Comparison, Explained, compare, deviance_explained, variance_explained
from biovae.analysis.density import Density, density
from biovae.analysis.exclusion import exclusive_pairs
from biovae.analysis.holes import Holes, holes
from biovae.analysis.linear import explained_out_of_fold, out_of_fold, r2, slopes
from biovae.analysis.neighbours import label_accuracy, label_hits, nearest, shared_neighbours
from biovae.analysis.normalise import log_normalise
from biovae.analysis.path import Curve, Features, Metric, distances, geodesic, straight
from biovae.analysis.pca import PCA, pca
from biovae.analysis.plausibility import Doubt, Judge, judge
from biovae.analysis.prototype import Prototype, prototype
from biovae.analysis.shores import Rise, rise
from biovae.analysis.switches import switches

__all__ = [
    "PCA",
    "Comparison",
    "Curve",
    "Density",
    "Doubt",
    "Explained",
    "Features",
    "Holes",
    "Judge",
    "Metric",
    "Prototype",
    "Rise",
    "compare",
    "density",
    "deviance_explained",
    "distances",
    "exclusive_pairs",
    "explained_out_of_fold",
    "geodesic",
    "holes",
    "judge",
    "label_accuracy",
    "label_hits",
    "leiden",
    "log_normalise",
    "markers",
    "nearest",
    "out_of_fold",
    "pca",
    "prototype",
    "r2",
    "rise",
    "shared_neighbours",
    "slopes",
    "straight",
    "switches",
    "variance_explained",
]
