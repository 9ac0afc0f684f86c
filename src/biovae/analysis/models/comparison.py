"""What the VAE bought over PCA of the same data and dimension, each measure on one scale for both.

Reconstruction is scored on observations that neither was fitted to. For counts the scale is the share of the Poisson
deviance explained, given the exposure: PCA's line lives on log-normalised values, and is carried back to counts in the
kindest way known here, so that PCA loses by its straightness and not by its logarithm.
"""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd
import scipy.sparse
from jaxtyping import Bool, Float, Int

from biovae.analysis.axes.linear import explained_out_of_fold
from biovae.analysis.axes.pca import PCA
from biovae.analysis.neighbourhoods.neighbours import K, label_accuracy, nearest, shared_neighbours
from biovae.errors import InputError

MOST = 20_000  # observations whose neighbours are compared; more change no digit
ROWS = 512  # observations reconstructed at once
TUNING = 1000  # training observations that choose PCA's shrinkage
SHRINKAGE = (0.001, 0.003, 0.01, 0.03, 0.1, 0.3)


@dataclass(frozen=True)
class Explained:
    """How much of held-out data each method explains: 0 is the mean of the training data, 1 is everything.

    `se` is the standard error of the difference, paired over observations; `measure` says what is explained.
    """

    measure: str
    pca: float
    vae: float
    se: float


@dataclass(frozen=True)
class Comparison:
    """PCA and VAE side by side.

    Attributes:
        explained: Held-out reconstruction, where it was scored.
        agreement: Share of each observation's 15 nearest neighbours that both spaces agree on.
        nonlinear: Share of the variance of z that no straight line through PCA's scores predicts, cross-validated.
        labels: Accuracy of a vote among 15 neighbours in PCA's space and in z, where labels were given.
    """

    explained: Explained | None
    agreement: float
    nonlinear: float
    labels: tuple[float, float] | None = None

    def to_frame(self) -> pd.DataFrame:
        """Columns `measure`, `pca`, `vae`, `unit`, `better`; what PCA has by definition is written out as 1 or 0."""
        rows: list[tuple[str, float, float, str]] = []
        if (e := self.explained) is not None:
            rows.append((f"held-out {e.measure} explained", e.pca, e.vae, "higher"))
        if self.labels is not None:
            rows.append((f"label accuracy of {K} neighbours", *self.labels, "higher"))
        rows.append(("neighbours shared with PCA", 1.0, self.agreement, ""))
        rows.append(("variance of z not linear in PCA", 0.0, self.nonlinear, ""))
        frame = pd.DataFrame(rows, columns=["measure", "pca", "vae", "better"])
        frame.insert(3, "unit", "fraction")
        return frame


def compare(
    z: Float[np.ndarray, "obs latent"],
    base: PCA,
    explained: Explained | None = None,
    labels: Sequence[object] | np.ndarray | None = None,
    seed: int = 0,
) -> Comparison:
    """Compare an embedding with PCA's of the same observations.

    Args:
        z: Posterior means, (obs, latent).
        base: PCA of the same observations, in the same order.
        explained: See `deviance_explained` and `variance_explained`.
        labels: A label per observation, none missing.
        seed: Of the subset, above 20,000 observations, and of the folds.
    """
    if len(z) != len(base.scores) or len(z) < 3:
        raise InputError(
            f"expected the same 3 or more observations twice, found {len(z)} and {len(base.scores)}: use one set."
        )
    rows = np.arange(len(z))
    if len(z) > MOST:
        rows = np.sort(np.random.default_rng(seed).choice(len(z), MOST, replace=False))
    z, scores = np.asarray(z, dtype=np.float64)[rows], base.scores[rows]
    agreement = shared_neighbours(nearest(z)[0], nearest(scores)[0])
    nonlinear = float(np.clip(1 - explained_out_of_fold(scores, z, seed), 0, 1))
    if labels is None:
        return Comparison(explained, agreement, nonlinear)
    kept = np.asarray(labels)[rows]
    return Comparison(explained, agreement, nonlinear, (label_accuracy(scores, kept), label_accuracy(z, kept)))


def deviance_explained(
    counts: scipy.sparse.csr_array,
    exposure: Float[np.ndarray, "obs"],
    split: tuple[Bool[np.ndarray, "obs"], Int[np.ndarray, "rows"]],
    means: Iterable[Float[np.ndarray, "block features"]],
    base: PCA,
) -> Explained:
    """1 - D(model) / D(null), D the Poisson deviance of held-out counts given their exposure.

    The null is the composition of the training set. PCA's log profile is undone by expm1, clipped at 0, scaled to the
    training total, and mixed with the null; the share of the null (0.001 to 0.3) is the one that fits the training set
    best, because an expected count of 0 where one was seen would cost infinitely much.

    Args:
        counts: (obs, features).
        exposure: Total counts, as both methods were given them, (obs,).
        split: The training observations as a mask, and the rows that are scored.
        means: The VAE's expected counts of those rows, in blocks of any size, in order.
        base: PCA of log1p(10,000 x / exposure).
    """
    counts, exposure = scipy.sparse.csr_array(counts), np.asarray(exposure, dtype=np.float64).ravel()
    train, rows = np.flatnonzero(split[0]), np.asarray(split[1])
    composition = counts[train].sum(0) / exposure[train].sum()
    seen = composition > 0  # a feature never seen in training can be explained by neither
    floor = composition[seen].min() if seen.any() else 1.0

    def linear(at: np.ndarray, share: float) -> Iterator[np.ndarray]:
        for part in _blocks(at):
            yield exposure[part, None] * profile(base.reconstruct(part), composition, share)

    def score(at: np.ndarray, blocks: Iterable[np.ndarray]) -> np.ndarray:
        return np.concatenate([*deviances(counts[at], blocks, floor * exposure[at])])

    tuned = train[np.linspace(0, len(train) - 1, min(TUNING, len(train))).astype(int)]
    share = min(SHRINKAGE, key=lambda share: score(tuned, linear(tuned, share)).sum())
    null = score(rows, (exposure[part, None] * composition for part in _blocks(rows)))
    return _explained("deviance", null, score(rows, linear(rows, share)), score(rows, means))


def variance_explained(
    x: Float[np.ndarray, "obs features"],
    split: tuple[Bool[np.ndarray, "obs"], Int[np.ndarray, "rows"]],
    means: Iterable[Float[np.ndarray, "block features"]],
    base: PCA,
) -> Explained:
    """1 - residual / total sum of squares of held-out real values, each feature in units of its training deviation.

    Args:
        x: (obs, features).
        split: The training observations as a mask, and the rows that are scored.
        means: The VAE's expected values of those rows, in blocks of any size, in order.
        base: PCA of the same values.
    """
    train, rows = x[np.asarray(split[0], dtype=bool)], np.asarray(split[1])
    scale = np.where(train.std(0) > 0, train.std(0), 1)
    squares = [
        (((x[rows] - fitted) / scale) ** 2).sum(1)
        for fitted in (train.mean(0), base.reconstruct(rows), np.concatenate([*means]))
    ]
    return _explained("variance", *squares)


def _explained(measure: str, null: np.ndarray, linear: np.ndarray, model: np.ndarray) -> Explained:
    """From the loss of each held-out observation under each; the error is that of the sum of their differences."""
    whole = max(float(null.sum()), np.finfo(np.float64).tiny)
    difference = linear - model
    se = float(difference.std(ddof=1) * np.sqrt(len(difference)) / whole) if len(difference) > 1 else float("inf")
    return Explained(measure, float(1 - linear.sum() / whole), float(1 - model.sum() / whole), se)


def deviances(
    counts: scipy.sparse.csr_array, blocks: Iterable[np.ndarray], floor: Float[np.ndarray, "rows"]
) -> Iterator[Float[np.ndarray, "block"]]:
    """2 sum(x log(x / mean) - x + mean) of each row, means held above a thousandth of `floor`."""
    start = 0
    for mean in blocks:
        x = counts[start : start + len(mean)].tocoo()
        mean = np.maximum(mean, floor[start : start + len(mean), None] * 1e-3)
        term = np.bincount(x.row, x.data * np.log(np.where(x.data > 0, x.data, 1) / mean[x.row, x.col]), len(mean))
        yield 2 * (term - np.bincount(x.row, x.data, len(mean)) + mean.sum(1))
        start += len(mean)
    if start != counts.shape[0]:
        raise InputError(
            f"expected means of {counts.shape[0]} observations, found {start}: pass those of the scored rows."
        )


def profile(
    logs: Float[np.ndarray, "rows features"], composition: Float[np.ndarray, "features"], share: float
) -> Float[np.ndarray, "rows features"]:
    """Fractions of the exposure: expm1, clipped, scaled to the training total, mixed with the training composition."""
    linear = np.maximum(np.expm1(np.minimum(logs, 20)), 0)
    total = linear.sum(1, keepdims=True)
    linear = np.where(total > 0, linear * composition.sum() / np.where(total > 0, total, 1), composition)
    return (1 - share) * linear + share * composition


def _blocks(rows: np.ndarray) -> Iterator[np.ndarray]:
    yield from (rows[start : start + ROWS] for start in range(0, len(rows), ROWS))
