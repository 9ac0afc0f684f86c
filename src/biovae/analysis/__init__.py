"""Analysis of arrays: neighbours, clusters, PCA, the prototype, dimensions. Never sees a model; needs no torch.

Every function takes arrays and returns an array, a frame, or a frozen record, so that each can be tested against other
people's code and used on what another program fitted. The rooms, each of which may use those above it:

    neighbourhoods   which observations lie near each other
    axes             components, and what dimensions mean
    space            density, holes, and ways between places
    trajectories     an order, and its branches
    groups           what differs between groups
    oddities         what is not like the rest
    models           which model, and how far to believe it

To add a tool: a file of its own in its room, a row here, a test with a truth.
"""

from biovae.analysis.axes.archetypes import Archetypes, archetypes, found_again
from biovae.analysis.axes.association import associate, enrich
from biovae.analysis.axes.dimensions import Dimensions, Traversal, differences, effects, ladder, traverse
from biovae.analysis.axes.disentangle import (
    DCI,
    Gaps,
    dci,
    gaussian_total_correlation,
    indicators,
    mig,
    sap,
    total_correlation,
)
from biovae.analysis.axes.ica import ICA, ica
from biovae.analysis.axes.linear import explained_out_of_fold, out_of_fold, r2, slopes
from biovae.analysis.axes.pca import PCA, pca
from biovae.analysis.groups.differential import Decoded, Differential, Null, differential
from biovae.analysis.groups.judged import Judged, Predicted, energy_distance, judge_predictions
from biovae.analysis.groups.response import References, Response, respond
from biovae.analysis.groups.shrinkage import Shrunk, expected_fdr, shrink
from biovae.analysis.limits import limits
from biovae.analysis.models.agreement import Agreement, agreement, align, same_cluster, together
from biovae.analysis.models.choice import Choice, choose
from biovae.analysis.models.claims import calls_held, order_held
from biovae.analysis.models.comparison import Comparison, Explained, compare, deviance_explained, variance_explained
from biovae.analysis.models.floor import pca_counts, pca_reals
from biovae.analysis.models.imputation import Imputation, Question, compare_imputers, hide, scored_rows
from biovae.analysis.models.imputers import Imputer, baselines
from biovae.analysis.models.stability import Stability, stability
from biovae.analysis.models.sweep import Sweep, recommend
from biovae.analysis.neighbourhoods.clusters import leiden, markers
from biovae.analysis.neighbourhoods.diffusion import diffused
from biovae.analysis.neighbourhoods.neighbour_graph import NeighbourGraph, central, neighbour_graph
from biovae.analysis.neighbourhoods.neighbours import (
    label_accuracy,
    label_hits,
    nearest,
    neighbours_shared,
    shared_neighbours,
)
from biovae.analysis.normalise import log_normalise
from biovae.analysis.oddities.anomalies import Anomalies
from biovae.analysis.oddities.doublets import (
    Contamination,
    Gain,
    contamination,
    mixture_gain,
    neighbour_share,
    partners,
)
from biovae.analysis.oddities.shift import Shift, energy
from biovae.analysis.pooling import Pooled, pooled, pooled_intervals
from biovae.analysis.space.density import Density, PriorSupport, density, prior_support
from biovae.analysis.space.exclusion import exclusive_pairs
from biovae.analysis.space.holes import Holes, among_fits, holes
from biovae.analysis.space.observed import Binary, Counts, Observed, Reals
from biovae.analysis.space.path import Curve, Features, Lift, Metric, Pull, distances, geodesic, straight
from biovae.analysis.space.plausibility import Decoder, Doubt, Judge, judge
from biovae.analysis.space.prototype import Prototype, prototype
from biovae.analysis.space.shores import Rise, rise
from biovae.analysis.space.switches import switches
from biovae.analysis.trajectories.baseline import Baseline, compare_orders, stage_ranks
from biovae.analysis.trajectories.diffusion_pseudotime import diffusion_pseudotime
from biovae.analysis.trajectories.trajectory import Trajectory, fate_probabilities, pseudotime, trajectory
from biovae.analysis.trajectories.trends import changes, most_changing, trends
from biovae.analysis.trajectories.velocity import Direction, direction

__all__ = [
    "DCI",
    "ICA",
    "PCA",
    "Agreement",
    "Anomalies",
    "Archetypes",
    "Baseline",
    "Binary",
    "Choice",
    "Comparison",
    "Contamination",
    "Counts",
    "Curve",
    "Decoded",
    "Decoder",
    "Density",
    "Differential",
    "Dimensions",
    "Direction",
    "Doubt",
    "Explained",
    "Features",
    "Gain",
    "Gaps",
    "Holes",
    "Imputation",
    "Imputer",
    "Judge",
    "Judged",
    "Lift",
    "Metric",
    "NeighbourGraph",
    "Null",
    "Observed",
    "Pooled",
    "Predicted",
    "PriorSupport",
    "Prototype",
    "Pull",
    "Question",
    "Reals",
    "References",
    "Response",
    "Rise",
    "Shift",
    "Shrunk",
    "Stability",
    "Sweep",
    "Trajectory",
    "Traversal",
    "agreement",
    "align",
    "among_fits",
    "archetypes",
    "associate",
    "baselines",
    "calls_held",
    "central",
    "changes",
    "choose",
    "compare",
    "compare_imputers",
    "compare_orders",
    "contamination",
    "dci",
    "density",
    "deviance_explained",
    "differences",
    "differential",
    "diffused",
    "diffusion_pseudotime",
    "direction",
    "distances",
    "effects",
    "energy",
    "energy_distance",
    "enrich",
    "exclusive_pairs",
    "expected_fdr",
    "explained_out_of_fold",
    "fate_probabilities",
    "found_again",
    "gaussian_total_correlation",
    "geodesic",
    "hide",
    "holes",
    "ica",
    "indicators",
    "judge",
    "judge_predictions",
    "label_accuracy",
    "label_hits",
    "ladder",
    "leiden",
    "limits",
    "log_normalise",
    "markers",
    "mig",
    "mixture_gain",
    "most_changing",
    "nearest",
    "neighbour_graph",
    "neighbour_share",
    "neighbours_shared",
    "order_held",
    "out_of_fold",
    "partners",
    "pca",
    "pca_counts",
    "pca_reals",
    "pooled",
    "pooled_intervals",
    "prior_support",
    "prototype",
    "pseudotime",
    "r2",
    "recommend",
    "respond",
    "rise",
    "same_cluster",
    "sap",
    "scored_rows",
    "shared_neighbours",
    "shrink",
    "slopes",
    "stability",
    "stage_ranks",
    "straight",
    "switches",
    "together",
    "total_correlation",
    "trajectory",
    "traverse",
    "trends",
    "variance_explained",
]
