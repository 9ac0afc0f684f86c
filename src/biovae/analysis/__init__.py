"""Analysis of arrays: neighbours, clusters, markers, differences, PCA, the prototype. Never sees a model, nor torch.

Every function takes arrays and returns an array, a frame, or a frozen record, so that each can be tested against other
people's code and used on what another program fitted. To add one: a file of its own, a row here, a test with a truth.
"""

from biovae.analysis.clusters import leiden, markers
from biovae.analysis.comparison import Comparison, Explained, compare, deviance_explained, variance_explained
from biovae.analysis.differential import Decoded, Differential, Null, differential
from biovae.analysis.linear import explained_out_of_fold, out_of_fold, r2, slopes
from biovae.analysis.neighbours import label_accuracy, label_hits, nearest, shared_neighbours
from biovae.analysis.normalise import log_normalise
from biovae.analysis.pca import PCA, pca
from biovae.analysis.prototype import Prototype, prototype
from biovae.analysis.shrinkage import Shrunk, expected_fdr, shrink

__all__ = [
    "PCA",
    "Comparison",
    "Decoded",
    "Differential",
    "Explained",
    "Null",
    "Prototype",
    "Shrunk",
    "compare",
    "deviance_explained",
    "differential",
    "expected_fdr",
    "explained_out_of_fold",
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
    "shared_neighbours",
    "shrink",
    "slopes",
    "variance_explained",
]
