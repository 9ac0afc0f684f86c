"""How much of one array a straight line through another predicts, honestly: on observations left out of the fit.

    x  predictors, (obs, predictors)
    y  responses, (obs, responses)

Every observation is predicted by a fit that never saw it, so that noise explains nothing.
"""

import numpy as np
from jaxtyping import Float

FOLDS = 5
PENALTY = 1e-3  # of the mean variance of the predictors


def out_of_fold(
    x: Float[np.ndarray, "obs predictors"], y: Float[np.ndarray, "obs responses"], seed: int = 0
) -> Float[np.ndarray, "obs responses"]:
    """Ridge predictions of y from x, each made by a fit to the other folds.

    The predictors share one scale, so that a column which hardly varies counts for little: a latent dimension that
    the model does not use cannot leak anything that a neighbour graph would see.
    """
    fold = np.random.default_rng(seed).permutation(len(x)) % min(FOLDS, max(len(x), 1))
    predicted = np.zeros_like(y, dtype=np.float64)
    for test in range(fold.max(initial=-1) + 1):
        held = fold == test
        predicted[held] = _ridge(x[~held], y[~held], x[held]) if not held.all() else y[held]
    return predicted


def r2(y: Float[np.ndarray, "obs responses"], predicted: Float[np.ndarray, "obs responses"]) -> float:
    """1 - residual / total sum of squares, over all responses together; 0 where y does not vary.

    >>> r2(np.array([[1.0], [2.0], [3.0]]), np.array([[1.0], [2.0], [2.0]]))
    0.5
    """
    total = ((y - y.mean(0)) ** 2).sum()
    return float(1 - ((y - predicted) ** 2).sum() / total) if total > 0 else 0.0


def explained_out_of_fold(
    x: Float[np.ndarray, "obs predictors"], y: Float[np.ndarray, "obs responses"], seed: int = 0
) -> float:
    """Cross-validated R2 of y from x: at most 1, and about 0 or a little below where x says nothing of y."""
    return r2(y, out_of_fold(x, y, seed))


def slopes(
    x: Float[np.ndarray, "obs predictors"], y: Float[np.ndarray, "obs responses"]
) -> Float[np.ndarray, "predictors responses"]:
    """The ridge coefficients of y on x, both without their means."""
    centred = x - x.mean(0)
    gram = centred.T @ centred
    gram += np.eye(x.shape[1]) * max(PENALTY * np.trace(gram) / x.shape[1], np.finfo(np.float64).tiny)
    return np.linalg.solve(gram, centred.T @ (y - y.mean(0)))


def _ridge(x: np.ndarray, y: np.ndarray, at: np.ndarray) -> np.ndarray:
    return y.mean(0) + (at - x.mean(0)) @ slopes(x, y)
