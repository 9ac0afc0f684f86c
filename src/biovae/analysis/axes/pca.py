"""Principal components of sparse data: what a straight line finds, computed beside every fit as the one to beat.

    x         log-normalised counts, or any table, (obs, features)
    scores    positions, (obs, components)
    loadings  directions, (features, components), orthonormal

Sparse data stay sparse.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np
import scipy.sparse
import scipy.sparse.linalg
from jaxtyping import Bool, Float

from biovae.errors import InputError

ROWS = 256  # squared at once
ALIKE = 1e-12  # of the squares: less variance than that is rounding


@dataclass(frozen=True)
class PCA:
    """x = mean + scores loadings' + residual.

    Attributes:
        scores: Of all observations, those that were not fitted included.
        loadings: Each with its largest entry positive.
        mean: Of the training observations, (features,).
        explained: Share of the training variance along each component, (components,).
    """

    scores: Float[np.ndarray, "obs components"]
    loadings: Float[np.ndarray, "features components"]
    mean: Float[np.ndarray, "features"]
    explained: Float[np.ndarray, "components"]

    def reconstruct(self, rows: slice | np.ndarray = slice(None)) -> Float[np.ndarray, "rows features"]:
        """mean + scores loadings', of some rows."""
        return self.mean + self.scores[rows] @ self.loadings.T


def pca(
    x: scipy.sparse.sparray | scipy.sparse.spmatrix | np.ndarray,
    components: int,
    seed: int = 0,
    train: Bool[np.ndarray, "obs"] | None = None,
) -> PCA:
    """Principal components of the training observations, and the scores of all.

    Sparse data are centred implicitly: (x - 1 mean') v = x v - 1 (mean' v), so that nothing is written out. Where there
    are fewer observations or features than components asked for, all components there are.

    Args:
        x: Log-normalised counts, or any table.
        components: Directions to keep.
        seed: Of the vector that the Lanczos iteration starts from.
        train: Observations to fit to; all of them where it is not given.

    Raises:
        InputError: Fewer than two training observations.
    """
    x = scipy.sparse.csr_array(x) if scipy.sparse.issparse(x) else np.asarray(x, dtype=np.float64)
    fitted = np.ones(x.shape[0]) if train is None else np.asarray(train, dtype=np.float64)
    number = int(fitted.sum())
    if number < 2 or components < 1:
        raise InputError(
            f"expected 2 training observations and 1 component at least, found {number} and {components}: "
            "fit to more data."
        )
    mean = np.asarray(x.T @ fitted).ravel() / number
    most = min(number - 1, x.shape[1])
    squares = _squares(x, fitted)
    total = squares - number * (mean**2).sum()
    if total <= ALIKE * squares:  # no direction is longer than another
        deviation, loadings = np.zeros(min(components, most)), np.eye(x.shape[1], min(components, most))
    else:
        deviation, loadings = _right_vectors(x, mean, fitted, min(components, most), seed)
    loadings = loadings * np.where(loadings[np.abs(loadings).argmax(0), np.arange(loadings.shape[1])] < 0, -1, 1)
    scores = np.asarray(x @ loadings) - mean @ loadings
    return PCA(scores, loadings, mean, deviation**2 / total if total > 0 else np.zeros(len(deviation)))


def _squares(x: Any, fitted: Float[np.ndarray, "obs"]) -> float:
    """Sum of squares over the fitted observations."""
    if not scipy.sparse.issparse(x):
        return float(fitted @ np.einsum("ij,ij->i", x, x))
    blocks = (slice(start, start + ROWS) for start in range(0, x.shape[0], ROWS))
    return float(sum(fitted[block] @ np.asarray(x[block].power(2).sum(1)).ravel() for block in blocks))


def _right_vectors(
    x: Any, mean: np.ndarray, fitted: Float[np.ndarray, "obs"], components: int, seed: int
) -> tuple[Float[np.ndarray, "components"], Float[np.ndarray, "features components"]]:
    """Largest singular values and right vectors of (x - mean) with the rows that are not fitted set to 0.

    Such rows change neither, and leaving them in place saves a copy of the data. Written out only where one side is
    short.
    """
    if components >= min(int(fitted.sum()), x.shape[1]) - 1:
        rows = x[np.flatnonzero(fitted)]
        dense = rows.toarray() if scipy.sparse.issparse(rows) else rows
        _, value, right = np.linalg.svd(dense - mean, full_matrices=False)
        return value[:components], right[:components].T
    weight = fitted[:, None]
    centred = scipy.sparse.linalg.LinearOperator(
        x.shape,
        matvec=lambda v: fitted * (x @ v.ravel() - mean @ v.ravel()),
        rmatvec=lambda u: x.T @ (fitted * u.ravel()) - mean * (fitted @ u.ravel()),
        matmat=lambda v: weight * (x @ v - mean @ v),
        rmatmat=lambda u: x.T @ (weight * u) - np.outer(mean, fitted @ u),
        dtype=np.float64,
    )
    start = np.random.default_rng(seed).standard_normal(min(x.shape))
    _, value, right = scipy.sparse.linalg.svds(centred, k=components, v0=start)
    order = np.argsort(-value)
    return value[order], right[order].T
