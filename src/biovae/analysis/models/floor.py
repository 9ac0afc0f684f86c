"""What predicts held-out data without a network: PCA with the noise that suits it, in nats, as models are scored.

Counts get a negative binomial around PCA's line, whose dispersions are those of the training set; reals the density
that PCA stands for. A model that does not predict better has bought nothing that a line does not give.
"""

from collections.abc import Iterator

import numpy as np
import scipy.sparse
from jaxtyping import Bool, Float, Int
from scipy.special import gammaln

from biovae.analysis.axes.pca import PCA
from biovae.analysis.models.comparison import SHRINKAGE, TUNING, profile
from biovae.errors import InputError

ROWS = 512  # observations written out at once
MOST = 10_000  # training observations that dispersions are taken from
Split = tuple[Bool[np.ndarray, "obs"], Int[np.ndarray, "rows"]]


def pca_counts(
    counts: scipy.sparse.csr_array, exposure: Float[np.ndarray, "obs"], split: Split, base: PCA
) -> Float[np.ndarray, "rows"]:
    """log p(x | PCA) of held-out counts, negative binomial, in nats per observation.

        mean      exposure * profile: PCA's log profile carried back to counts as in `deviance_explained`
        variance  mean + mean**2 / r,  1 / r = sum((x - mean)**2 - mean) / sum(mean**2) over training observations

    The share of the average that is mixed into the profile is the one under which the training counts are likeliest.

    Args:
        counts: What is scored, (obs, features). PCA may have seen other counts of the same observations (thinning).
        exposure: Expected total of each observation, (obs,).
        split: The training observations as a mask, and the rows that are scored.
        base: PCA of log1p(10,000 x / exposure), fitted to the training observations.
    """
    counts, exposure = scipy.sparse.csr_array(counts), np.asarray(exposure, dtype=np.float64).ravel()
    train = np.flatnonzero(split[0])
    train = train[np.linspace(0, len(train) - 1, min(MOST, len(train))).astype(int)]
    composition = np.maximum(counts[train].sum(0), 0.1) / exposure[train].sum()

    def means(rows: np.ndarray, share: float) -> Iterator[tuple[np.ndarray, np.ndarray]]:
        for part in (rows[start : start + ROWS] for start in range(0, len(rows), ROWS)):
            yield part, exposure[part, None] * profile(base.reconstruct(part), composition, share)

    def score(rows: np.ndarray, share: float, fitted: np.ndarray) -> np.ndarray:
        r = _dispersions(counts, means(fitted, share))
        return np.concatenate([_negative_binomial(counts[part], mean, r) for part, mean in means(rows, share)])

    few = train[np.linspace(0, len(train) - 1, min(TUNING, len(train))).astype(int)]
    share = max(SHRINKAGE, key=lambda share: score(few, share, few).sum())
    return score(np.asarray(split[1]), share, train)


def pca_reals(x: Float[np.ndarray, "obs features"], split: Split, components: int) -> Float[np.ndarray, "rows"]:
    """log p(x) of held-out reals under PCA as a density, each feature in units of its training deviation, in nats.

    x ~ N(mean, W W' + s**2 I): components of the training covariance, and the same noise in all other directions.

    Args:
        x: (obs, features).
        split: The training observations as a mask, and the rows that are scored.
        components: Directions that are kept.

    Source: Tipping and Bishop 1999, doi:10.1111/1467-9868.00196.
    """
    from sklearn.decomposition import PCA as ProbabilisticPCA

    train = np.asarray(x, dtype=np.float64)[np.asarray(split[0], dtype=bool)]
    if len(train) < 2:
        raise InputError(f"expected 2 training observations at least, found {len(train)}: hold out fewer.")
    mean, spread = train.mean(0), np.where(train.std(0) > 0, train.std(0), 1)
    kept = max(1, min(components, len(train) - 1, train.shape[1] - 1))
    fitted = ProbabilisticPCA(kept, svd_solver="full").fit((train - mean) / spread)
    return fitted.score_samples((np.asarray(x)[split[1]] - mean) / spread) - np.log(spread).sum()


def _dispersions(
    counts: scipy.sparse.csr_array, means: Iterator[tuple[np.ndarray, np.ndarray]]
) -> Float[np.ndarray, "features"]:
    """r of each feature by moments, between 0.01 and 1,000."""
    square, excess = np.zeros(counts.shape[1]), np.zeros(counts.shape[1])
    for rows, mean in means:
        square += (mean**2).sum(0)
        excess += ((counts[rows].toarray() - mean) ** 2 - mean).sum(0)
    return 1 / np.clip(excess / np.maximum(square, np.finfo(np.float64).tiny), 1e-3, 100)


def _negative_binomial(
    counts: scipy.sparse.csr_array, mean: Float[np.ndarray, "rows features"], r: Float[np.ndarray, "features"]
) -> Float[np.ndarray, "rows"]:
    """Sum over features of log NB(x; mean, r): lgamma at the non-zeros alone."""
    x = counts.tocoo()
    at, value, m = r[x.col], x.data.astype(np.float64), mean[x.row, x.col]
    each = gammaln(value + at) - gammaln(at) - gammaln(value + 1) + value * np.log(m / (m + at))
    return np.bincount(x.row, each, len(mean)) - (r * np.log1p(mean / r)).sum(1)
