"""Analysis of arrays: neighbours, clusters, markers, PCA, the prototype, trajectories. Sees no model, needs no torch.

Every function takes arrays and returns an array, a frame, or a frozen record, so that each can be tested against other
people's code and used on what another program fitted. To add one: a file of its own, a row here, a test with a truth.
"""

from biovae.analysis.clusters import leiden, markers
from biovae.analysis.comparison import Comparison, Explained, compare, deviance_explained, variance_explained
from biovae.analysis.diffusion import diffused
from biovae.analysis.linear import explained_out_of_fold, out_of_fold, r2, slopes
from biovae.analysis.neighbour_graph import NeighbourGraph, central, neighbour_graph
from biovae.analysis.neighbours import label_accuracy, label_hits, nearest, shared_neighbours
from biovae.analysis.normalise import log_normalise
from biovae.analysis.pca import PCA, pca
from biovae.analysis.prototype import Prototype, prototype
from biovae.analysis.trajectory import Trajectory, fate_probabilities, pseudotime, trajectory
from biovae.analysis.trends import changes, most_changing, trends
from biovae.analysis.velocity import Direction, direction

__all__ = [
    "PCA",
    "Comparison",
    "Direction",
    "Explained",
    "NeighbourGraph",
    "Prototype",
    "Trajectory",
    "central",
    "changes",
    "compare",
    "deviance_explained",
    "diffused",
    "direction",
    "explained_out_of_fold",
    "fate_probabilities",
    "label_accuracy",
    "label_hits",
    "leiden",
    "log_normalise",
    "markers",
    "most_changing",
    "nearest",
    "neighbour_graph",
    "out_of_fold",
    "pca",
    "prototype",
    "pseudotime",
    "r2",
    "shared_neighbours",
    "slopes",
    "trajectory",
    "trends",
    "variance_explained",
]
