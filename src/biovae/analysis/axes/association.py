"""What a latent dimension goes with: columns of `obs`, and sets of features.

Ranks throughout: no scale of z or of a column matters, and no outlier decides. The p-values take observations (or
features) as independent; cells of one donor are not, so that they are too small wherever donors differ. Read the
strength first: with thousands of cells everything is significant. The limits of a strength take observations as
independent, too.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd
import scipy.stats
from jaxtyping import Float

from biovae.analysis.axes.strength import DRAWS, Column, between, correlations, known, mean_ranks, shares
from biovae.analysis.neighbourhoods.positions import finite
from biovae.errors import InputError, first, listed

CORRELATION = 0.01  # between the features of a set beyond what z explains: limma's preset
LEAST = 5  # features of a set that a test needs
ASSOCIATION = (
    "dimension", "column", "kind", "strength", "least", "most", "rho", "highest", "p", "fdr", "observations",
)  # fmt: skip


def associate(
    z: Float[np.ndarray, "obs latent"], columns: pd.DataFrame, draws: int = DRAWS, seed: int = 0
) -> pd.DataFrame:
    """Share of the rank variance of z_d that a column explains: rho**2 for numbers, eta**2 for categories.

    Numbers are tested by Spearman's rho (t approximation), categories by the Kruskal-Wallis H, of which eta**2 is
    H / (n - 1). Observations where a column is missing are left out for that column.

    Args:
        z: Posterior means.
        columns: Of the same observations; numbers are continuous, anything else is categories.
        draws: Bootstrap samples for the limits of the strength, 19 or more; 0 for none.
        seed: Of these samples.

    Returns:
        A row per dimension and column: `kind` ("numbers" or "categories"), `strength`, `least` and `most` (its 90 %
        limits, see `analysis.axes.strength`; below it where many categories explain much by chance), `rho`, `highest`
        (the category with the highest mean rank), `p`, `fdr` (Benjamini and Hochberg, over all rows), `observations`.

    Raises:
        InputError: Rows differ in number, or a column has one value only.

    Source: Kruskal and Wallis 1952, doi:10.1080/01621459.1952.10483441; Benjamini and Hochberg 1995,
    doi:10.1111/j.2517-6161.1995.tb02031.x.
    """
    z = finite(z)
    if len(columns) != len(z):
        raise InputError(
            f"expected columns of {len(z)} observations, found {len(columns)}: pass those of the same rows."
        )
    each = [known(str(name), column) for name, column in columns.items()]
    ranks = scipy.stats.rankdata(z, axis=0)
    found = [_tested(ranks if len(c.at) == len(z) else scipy.stats.rankdata(z[c.at], axis=0), c) for c in each]
    measured = [f["strength" if c.levels is not None else "rho"] for c, f in zip(each, found, strict=True)]
    rows = []
    for i, (least, most) in enumerate(between(z, each, measured, draws, seed)):
        where = {"dimension": np.arange(z.shape[1]), "column": each[i].name, "observations": len(each[i].at)}
        rows.append(pd.DataFrame(where | found[i] | {"least": least, "most": most}))
    return adjusted(rows, [*ASSOCIATION])


def enrich(
    scores: Float[np.ndarray, "features dimensions"],
    features: Sequence[str],
    sets: Mapping[str, Sequence[str] | str],
    correlation: float = CORRELATION,
) -> pd.DataFrame:
    """Do the features of a set rank higher than the others along a dimension? A rank-sum test that allows for company.

    Features of a set are correlated beyond their common effect, which makes the plain test call too often. The variance
    of the rank sum is widened as in CAMERA for a correlation between them, 0.01 by default.

    Args:
        scores: What ranks the features, signs kept.
        features: Names.
        sets: Names of features by name of the set; those the model does not have are left out.
        correlation: Between features of a set; 0 is the Mann-Whitney test.

    Returns:
        A row per dimension and set: `features` (of the set that are known), `auc` (chance that one of the set ranks
        above one that is not; 0.5 is none), `p` (two-sided), `fdr` over all rows. Sets of fewer than 5 known features
        are listed without a test.

    Raises:
        InputError: No set has a known feature.

    Source: Wu and Smyth 2012, doi:10.1093/nar/gks461 (CAMERA); Mann and Whitney 1947, doi:10.1214/aoms/1177730491.
    """
    if not isinstance(sets, Mapping):
        raise InputError(f"expected sets as {{name: features}}, found {type(sets).__name__}: give each set a name.")
    scores = finite(scores)
    index = pd.Index(features)
    if len(index) != len(scores):
        raise InputError(f"expected {len(scores)} feature names, found {len(index)}: pass those of the model.")
    members = {name: np.unique(index.get_indexer_for(listed(names))) for name, names in sets.items()}
    members = {name: at[at >= 0] for name, at in members.items()}
    if not any(len(at) for at in members.values()):
        raise InputError(
            f"expected sets with features of the model ({first(index)}), found none: use the same kind of names."
        )
    ranks = scipy.stats.rankdata(scores, axis=0)
    ties = np.array([(np.unique(column, return_counts=True)[1].astype(float) ** 3).sum() for column in scores.T])
    rows = []
    for name, at in members.items():
        inside, outside = len(at), len(index) - len(at)
        u = ranks[at].sum(0) - inside * (inside + 1) / 2
        tested = inside >= LEAST and outside > 0
        auc = u / (inside * outside) if inside and outside else np.full(scores.shape[1], np.nan)
        p = _rank_sum(u, (inside, outside), ties, correlation) if tested else np.full(scores.shape[1], np.nan)
        where = {"dimension": np.arange(scores.shape[1]), "set": name, "features": inside}
        rows.append(pd.DataFrame(where | {"auc": auc, "p": p}))
    return adjusted(rows, ["dimension", "set", "features", "auc", "p", "fdr"])


def _rank_sum(u: np.ndarray, sizes: tuple[int, int], cubes: np.ndarray, rho: float) -> np.ndarray:
    """Two-sided p of the Mann-Whitney U, its variance widened by a correlation rho between the features inside."""
    a, b = sizes
    n = a + b
    pairs = [np.pi / 2, (b - 1) * np.arcsin(0.5), (a - 1) * (b - 1) * np.arcsin(rho / 2)]
    pairs.append((a - 1) * np.arcsin((rho + 1) / 2))
    variance = a * b * sum(pairs) / (2 * np.pi)
    variance = variance * (1 - (cubes - n) / (n * (n * n - 1.0)))  # ties: sum of t^3 - t
    away = np.maximum(np.abs(u - a * b / 2) - 0.5, 0)
    return 2 * scipy.stats.norm.sf(away / np.sqrt(np.maximum(variance, np.finfo(float).tiny)))


def _tested(ranks: Float[np.ndarray, "known latent"], column: Column) -> dict[str, Any]:
    """Strength and p of each dimension: the t approximation for numbers, chi-squared for categories."""
    n = len(ranks)
    if column.levels is None:
        rho = correlations(ranks, column.values)
        t = rho * np.sqrt(max(n - 2, 0) / np.maximum((1 - rho) * (1 + rho), 1e-300))
        p = 2 * scipy.stats.t.sf(np.abs(t), n - 2) if n > 2 else np.ones(len(rho))
        return {"kind": "numbers", "strength": rho**2, "rho": rho, "highest": "", "p": p}
    count = len(column.levels)
    eta = shares(ranks, column.values, count)
    highest = column.levels[mean_ranks(ranks, column.values, count)[0].argmax(0)]
    p = scipy.stats.chi2.sf((n - 1) * eta, count - 1)
    return {"kind": "categories", "strength": eta, "rho": np.nan, "highest": highest, "p": p}


def adjusted(rows: list[pd.DataFrame], columns: list[str]) -> pd.DataFrame:
    """One frame with `fdr`, the p-values adjusted over all tests that were made."""
    if not rows:
        return pd.DataFrame({name: [] for name in columns})
    frame = pd.concat(rows, ignore_index=True)
    tested = frame["p"].notna()
    frame["fdr"] = np.nan
    if tested.any():
        frame.loc[tested, "fdr"] = scipy.stats.false_discovery_control(frame.loc[tested, "p"])
    return frame[columns]
