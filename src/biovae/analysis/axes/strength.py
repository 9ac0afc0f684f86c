"""How much of a dimension's ranks a column explains, and the limits of that.

    rho    Spearman's correlation, of a column of numbers
    eta2   between-level share of the rank variance, of a column of categories: H / (n - 1), H of Kruskal and Wallis

Limits hold 90 %, from bootstrap samples of the observations, which they take as independent. A sample of fewer spreads
the wider, and its spread is shrunk to all. rho moves on Fisher's scale. eta2 is centred on 1 - (1 - eta2) (n - 1) /
(n - k): k levels explain (k - 1) / (n - 1) by chance alone. With ten observations to a level its limits hold 85 %.

Source: Kelley 1935, doi:10.1073/pnas.21.9.554 (the correction); Bickel, Götze and van Zwet 1997, Statistica Sinica 7,
1-31 (samples of fewer).
"""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import pandas as pd
import scipy.stats
from jaxtyping import Float, Int

from biovae.analysis.limits import limits
from biovae.errors import InputError

DRAWS = 99
MOST = 5000  # observations in a sample
ONE = 1 - 1e-9  # correlations beyond it have no finite place on Fisher's scale


class Column(NamedTuple):
    """What is known of some observations.

    Attributes:
        name: Of the column.
        at: The rows where it is known.
        values: Numbers, or codes of the levels, of those rows.
        levels: None for numbers.
    """

    name: str
    at: Int[np.ndarray, "known"]
    values: np.ndarray
    levels: np.ndarray | None


def known(name: str, column: pd.Series) -> Column:
    """A column as numbers or levels, where it has a value.

    Raises:
        InputError: It has one value only.
    """
    at = np.flatnonzero(column.notna().to_numpy())
    values = column.iloc[at]
    if values.nunique() < 2:
        raise InputError(f"expected a column that varies, found one value in {name!r}: leave it out.")
    if pd.api.types.is_numeric_dtype(values) and not pd.api.types.is_bool_dtype(values):
        return Column(name, at, values.to_numpy(np.float64), None)
    codes, levels = pd.factorize(values.astype(str), sort=True)
    return Column(name, at, codes, np.asarray(levels))


def correlations(ranks: Float[np.ndarray, "rows latent"], values: np.ndarray) -> Float[np.ndarray, "latent"]:
    """Rho of each dimension; 0 where one of both is constant."""
    own = scipy.stats.rankdata(values)
    own, centred = own - own.mean(), ranks - ranks.mean(0)
    norm = np.sqrt((own @ own) * (centred**2).sum(0))
    return np.divide(own @ centred, norm, out=np.zeros(ranks.shape[1]), where=norm > 0)


def mean_ranks(
    ranks: Float[np.ndarray, "rows latent"], codes: Int[np.ndarray, "rows"], levels: int
) -> tuple[Float[np.ndarray, "levels latent"], Int[np.ndarray, "levels"]]:
    """Of each level; and how many have it."""
    size = np.bincount(codes, minlength=levels)
    sums = np.stack([np.bincount(codes, column, minlength=levels) for column in ranks.T], 1)
    return sums / np.maximum(size, 1)[:, None], size


def shares(
    ranks: Float[np.ndarray, "rows latent"], codes: Int[np.ndarray, "rows"], levels: int
) -> Float[np.ndarray, "latent"]:
    """eta2 of each dimension; 0 where it is constant."""
    means, size = mean_ranks(ranks, codes, levels)
    centre = (len(ranks) + 1) / 2
    whole = ((ranks - centre) ** 2).sum(0)
    between = (size[:, None] * (means - centre) ** 2).sum(0)
    return np.divide(between, whole, out=np.zeros(len(whole)), where=whole > 0)


def between(
    z: Float[np.ndarray, "obs latent"],
    columns: Sequence[Column],
    measured: Sequence[Float[np.ndarray, "latent"]],
    draws: int = DRAWS,
    seed: int = 0,
) -> Float[np.ndarray, "columns 2 latent"]:
    """Limits of rho**2 or eta2 of each column, of which rho or eta2 was measured; NaN without draws."""
    if not draws or not columns:
        return np.full((len(columns), 2, z.shape[1]), np.nan)
    rng, drawn = np.random.default_rng(seed), np.empty((len(columns), draws, z.shape[1]))
    for draw in range(draws):
        every = rng.integers(len(z), size=min(len(z), MOST))
        ranks = scipy.stats.rankdata(z[every], axis=0)  # once for all columns without gaps
        for i, column in enumerate(columns):
            if len(column.at) == len(z):
                drawn[i, draw] = _measured(ranks, column, every)
                continue
            rows = rng.integers(len(column.at), size=min(len(column.at), MOST))
            drawn[i, draw] = _measured(scipy.stats.rankdata(z[column.at[rows]], axis=0), column, rows)
    return np.stack([_limits(*each) for each in zip(columns, measured, drawn, strict=True)])


def _measured(ranks: np.ndarray, column: Column, rows: np.ndarray) -> np.ndarray:
    values = column.values[rows]
    return correlations(ranks, values) if column.levels is None else shares(ranks, values, len(column.levels))


def _limits(column: Column, own: np.ndarray, drawn: np.ndarray) -> Float[np.ndarray, "2 latent"]:
    n = len(column.at)
    shrink = np.sqrt(min(n, MOST) / n)
    if column.levels is None:
        own, drawn = (np.arctanh(np.clip(r, -ONE, ONE)) for r in (own, drawn))
        low, high = np.tanh(own + shrink * limits(drawn - drawn.mean(0)))
        return np.stack([np.where(low * high > 0, np.minimum(low**2, high**2), 0), np.maximum(low**2, high**2)])
    centre = 1 - (1 - own) * (n - 1) / max(n - len(column.levels), 1)
    return np.clip(centre + shrink * limits(drawn - drawn.mean(0)), 0, 1)
