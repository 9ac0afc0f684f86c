"""Features that vary more than counting noise explains.

    x_ij   count of feature j in observation i
    n_i    total of observation i                  p_j   share of feature j among all counts
    mu_ij = n_i p_j                                theta = 100, overdispersion of the null model

The Pearson residual (x - mu) / sqrt(mu + mu^2 / theta), clipped at sqrt(observations), has variance 1 where nothing but
sampling is going on. At x = 0 it is -sqrt(mu / (1 + mu / theta)), a function of n_i and p_j alone: its sums over all
observations are taken once per distinct n and p, and corrected at the non-zeros, so that no dense matrix is ever made.
The result is exact.

Source: Lause, Berens and Kobak (2021), Genome Biology 22, 258, doi:10.1186/s13059-021-02451-7.
"""

from collections.abc import Sequence
from typing import Any, Literal

import numpy as np
import pandas as pd
import scipy.sparse
import scipy.stats
from anndata import AnnData
from mudata import MuData

from biovae.data.containers import Matrix, blocks, row_totals
from biovae.data.covariates import column
from biovae.data.features import Columns, find, told_apart
from biovae.data.loading import admit
from biovae.data.locate import Found, locate
from biovae.data.prepare import positions
from biovae.errors import InputError
from biovae.source import Source

THETA = 100.0
BLOCK = 2**16  # non-zeros at a time: they stay in the cache
TABLE = 2**18  # entries of the table of (distinct p) x (distinct n) held at a time


def select_features(
    data: AnnData | MuData,
    features: int | Literal["all"] | Sequence[str] = 2000,
    *,
    source: Source,
    batches: str | None = None,
    rows: np.ndarray | Sequence[int] | None = None,
) -> pd.DataFrame:
    """The features of one modality with their variance, their rank, and whether they are selected.

    For counts and 0/1 values the variance is that of analytic Pearson residuals, for other values the plain one. With
    batches both are taken within each batch, and a feature has the mean of the variances and the median of the ranks.

    Args:
        data: The observations; not changed.
        features: How many to select, "all", or a list of names.
        source: The modality.
        batches: A column of `obs`.
        rows: Positions of the observations to use (those of the training set), or a mask.

    Returns:
        One row per feature, in the order of the data, with columns `variance`, `rank` (1 is the most variable) and
        `selected`. Features with a repeated name carry their occurrence.

    Raises:
        InputError: If a name is unknown, or the values are not what the source says.
    """
    (found,) = (place for place in locate(data, [source]) if place is not None)
    groups = _groups(data, found, source, batches, positions(data, rows))
    variances = np.stack([_variance(group) for group in groups])
    ranks = np.stack([_ranks(variance) for variance in variances])
    names = told_apart(found.values.var_names)
    table = pd.DataFrame({"variance": variances.mean(axis=0)}, index=pd.Index(names, name="feature"))
    score = np.lexsort((np.arange(len(names)), -table["variance"].to_numpy(), np.median(ranks, axis=0)))
    table["rank"] = 0
    table.iloc[score, 1] = np.arange(1, len(names) + 1)
    table["selected"] = _selected(table, features, found)
    return table


def _groups(
    data: AnnData | MuData, found: Found, source: Source, batches: str | None, chosen: np.ndarray
) -> list[Matrix]:
    """The chosen observations that carry the modality, as one matrix or one per batch."""
    rows = chosen if found.rows is None else found.rows[chosen]
    carriers = rows >= 0
    if not carriers.any():
        raise InputError(f"expected observations that carry {found.values.where}, found none of {len(chosen)}.")
    _, x, _ = admit(found, source, Columns(None, tuple(found.values.var_names)), rows[carriers])
    if batches is None:
        return [x]
    labels = column(data, batches).iloc[chosen[carriers]]
    if (missing := int(labels.isna().sum())) > 0:
        raise InputError(f"expected a batch for every observation in obs[{batches!r}], found {missing} missing.")
    codes = pd.factorize(labels)[0]
    return [x[codes == code] for code in range(codes.max() + 1)]


def pearson_variance(x: Any) -> np.ndarray:
    """Variance of the clipped analytic Pearson residuals of each feature.

    Args:
        x: Counts, observations x features, canonical.
    """
    observations, features = x.shape
    totals = row_totals(x)
    share = np.zeros(features)
    block: Any
    for _, block in blocks(x, BLOCK):
        share += np.bincount(block.indices, weights=block.data, minlength=features)
    share /= max(1.0, totals.sum())
    first, second = _zeros(share, totals)
    for start, block in blocks(x, BLOCK):
        lengths = np.diff(block.indptr)
        mean = np.repeat(totals[start : start + len(lengths)], lengths) * share[block.indices]
        damped = 1 + mean / THETA
        residual = ((block.data - mean) / np.sqrt(mean * damped)).clip(-np.sqrt(observations), np.sqrt(observations))
        square = np.minimum(mean / damped, observations)  # at x = 0, where the residual is -sqrt(square)
        first += np.bincount(block.indices, weights=residual + np.sqrt(square), minlength=features)
        second += np.bincount(block.indices, weights=residual**2 - square, minlength=features)
    return np.maximum(second / observations - (first / observations) ** 2, 0.0)


def _zeros(share: np.ndarray, totals: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """For each feature the sums over observations of the residual at x = 0, and of its square."""
    depths, weights = np.unique(totals, return_counts=True)
    shares, back = np.unique(share, return_inverse=True)
    weights = weights.astype(np.float64)
    first, second = np.empty(len(shares)), np.empty(len(shares))
    step = max(1, TABLE // len(depths))
    for start in range(0, len(shares), step):
        mean = shares[start : start + step, None] * depths
        square = np.minimum(mean / (1 + mean / THETA), len(totals))
        second[start : start + step] = square @ weights
        first[start : start + step] = -np.sqrt(square) @ weights
    return first[back.ravel()], second[back.ravel()]


def _variance(x: Matrix) -> np.ndarray:
    if isinstance(x, np.ndarray):
        return x.var(axis=0, dtype=np.float64)
    return pearson_variance(scipy.sparse.csr_array(x))


def _ranks(variance: np.ndarray) -> np.ndarray:
    """1 for the largest; equal ones share the mean of their ranks, so that order in the file does not matter."""
    return scipy.stats.rankdata(-variance)


def _selected(table: pd.DataFrame, features: int | str | Sequence[str], found: Found) -> np.ndarray:
    if isinstance(features, str):
        if features != "all":
            raise InputError(f"expected a number of features, 'all' or a list of names, found {features!r}.")
        return np.ones(len(table), dtype=bool)
    if isinstance(features, int | np.integer):
        if features < 1:
            raise InputError(f"expected at least 1 feature to select, found {features}.")
        return table["rank"].to_numpy() <= features
    mask = np.zeros(len(table), dtype=bool)
    mask[find(table.index.to_numpy(), [str(name) for name in features], found)] = True
    return mask
