"""Independent components: PCA's space turned until its axes are as independent as a rotation can make them."""

import warnings
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float

from biovae.analysis.axes.pca import PCA

TURNS = 1000
TOLERANCE = 1e-4


@dataclass(frozen=True)
class ICA:
    """PCA's scores = scores mixing' + mean.

    Attributes:
        scores: Of unit variance and uncorrelated, (obs, components).
        loadings: Directions in the space of features, (features, components).
        converged: Whether the rotation came to rest; where it did not, another seed gives other components.
    """

    scores: Float[np.ndarray, "obs components"]
    loadings: Float[np.ndarray, "features components"]
    converged: bool


def ica(base: PCA, seed: int = 0) -> ICA:
    """Rotate whitened PCA scores towards non-normal, independent axes: maximise the negentropy E log cosh.

    ICA spans what PCA spans: reconstruction and everything else that a rotation leaves alone are PCA's.

    Args:
        base: PCA of the data; components without variance are left out.
        seed: Of the rotation that it begins at.

    Source: Hyvarinen 1999, doi:10.1109/72.761722 (FastICA).
    """
    from sklearn.decomposition import FastICA
    from sklearn.exceptions import ConvergenceWarning

    used = base.scores.std(0) > 1e-9 * max(base.scores.std(0).max(initial=0), 1e-300)
    method = FastICA(whiten="unit-variance", random_state=seed, max_iter=TURNS, tol=TOLERANCE)
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", category=ConvergenceWarning)  # said in the record
        scores = method.fit_transform(base.scores[:, used])
    return ICA(scores, base.loadings[:, used] @ method.mixing_, method.n_iter_ < TURNS)
