"""What the model holds to be typical, f(0), beside the mean of the data and the types that are known.

The decoder at the centre of the latent space is an object of the model, not an observation: it may lie between types.
This file says between which.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import pandas as pd
import scipy.optimize
from jaxtyping import Float, Int

from biovae.analysis.limits import limits
from biovae.errors import InputError

NEAREST = 10
PSEUDO = 0.01  # of the average feature, in logarithms


class Draw(NamedTuple):
    """f(0), the mean of the data and the means of types, as they might have been: a bootstrap, other fits."""

    typical: Float[np.ndarray, "features"]
    mean: Float[np.ndarray, "features"]
    types: Float[np.ndarray, "types features"]


@dataclass(frozen=True)
class Prototype:
    """f(0) against what is known.

    Attributes:
        frame: Columns `feature`, `prototype`, `mean`, `difference`, `log2_fold_change` (of prototype over mean; NaN for
            values that can be negative), a row per feature; with draws `lower` and `upper`, 90 % limits of the fold
            change, or of the difference where there is none.
        nearest: Observations nearest to the centre of the latent space, nearest first; empty without positions.
        similarity: Correlation with each type's mean, highest first; of logarithms where values are not negative.
        weights: Shares of the types in the closest mixture, highest first; empty where values can be negative.
        unexplained: Share of the prototype that the mixture leaves unexplained; NaN without one.
        limits: `lower` and `upper` of each weight, between which 90 % of the draws lie; empty without draws.
        centres: What the centre of each type decodes to, (types, features); None without a decoder.
        said: Sentences on what was left out.
    """

    frame: pd.DataFrame
    nearest: Int[np.ndarray, "nearest"]
    similarity: pd.Series
    weights: pd.Series
    unexplained: float
    limits: pd.DataFrame
    centres: pd.DataFrame | None = None
    said: tuple[str, ...] = ()

    def __str__(self) -> str:
        """What the prototype resembles, and how many features differ from the mean for sure."""
        return " ".join(said for said in (self._resembles(), self._differs(), *self.said) if said)

    def _resembles(self) -> str:
        if self.similarity.empty:
            return "The prototype f(0) is what the model decodes from the centre of the latent space."
        name, value = self.similarity.index[0], self.similarity.iloc[0]
        said = f"The prototype f(0) resembles {name!s} most (correlation {value:.2f})"
        most = self.weights[self.weights >= 0.05].head(4)
        parts = [f"{share:.0%} {kind!s}{self._between(kind)}" for kind, share in most.items()]
        return f"{said}; as a mixture of types it is {', '.join(parts)}." if parts else f"{said}."

    def _differs(self) -> str:
        if "lower" not in self.frame:
            return ""
        above, below = (self.frame["lower"] > 0).sum(), (self.frame["upper"] < 0).sum()
        return (
            f"Of {len(self.frame):,} features {above:,} are higher than in the mean of the data and {below:,} lower, "
            "by their 90 % limits."
        )

    def _between(self, kind: object) -> str:
        if self.limits.empty:
            return ""
        lower, upper = self.limits.loc[kind, ["lower", "upper"]]
        return f" ({lower:.0%} to {upper:.0%})"


def prototype(
    typical: Float[np.ndarray, "features"],
    mean: Float[np.ndarray, "features"],
    features: Sequence[str],
    z: Float[np.ndarray, "obs latent"] | None = None,
    types: pd.DataFrame | None = None,
    draws: Iterable[Draw] = (),
) -> Prototype:
    """Compare the decoded f(0) with the mean of the data, the observations near the centre, and the means of types.

    The mixture is the non-negative least-squares fit of f(0) by the types' means, each feature divided by the square
    root of its mean so that abundant ones do not decide alone, and scaled to sum to 1.

    Args:
        typical: The decoded f(0), on the scale of `mean`: fractions of the exposure, counts per 10,000, ...
        mean: Of the data.
        features: Names.
        z: Positions of the observations.
        types: A row per type, a column per feature in the same order: means on the same scale.
        draws: For all limits.

    Raises:
        InputError: The lengths differ.
    """
    typical, mean = (np.asarray(v, dtype=np.float64).ravel() for v in (typical, mean))
    widths = {len(typical), len(mean), len(features), types.shape[1] if types is not None else len(mean)}
    if len(widths) > 1:
        raise InputError(f"expected one number of features, found {sorted(widths)}: pass the features of the model.")
    table = types.to_numpy(dtype=np.float64) if types is not None else np.empty((0, len(mean)))
    positive = min(typical.min(initial=0), mean.min(initial=0), table.min(initial=0)) >= 0
    pseudo = max(PSEUDO * float(np.abs(mean).mean()), np.finfo(np.float64).tiny)
    scale = (lambda v: np.log2(v + pseudo)) if positive else np.asarray
    drawn = list(draws)
    frame = pd.DataFrame({"feature": [*features], "prototype": typical, "mean": mean, "difference": typical - mean})
    frame["log2_fold_change"] = scale(typical) - scale(mean) if positive else np.nan
    if drawn:

        def change(draw: Draw) -> np.ndarray:
            ends = (np.maximum(v, 0) if positive else v for v in draw[:2])  # reals may fall below 0 in a draw
            return np.subtract(*map(scale, ends))

        frame["lower"], frame["upper"] = limits(np.stack([change(each) for each in drawn]))
    names = types.index if types is not None else pd.Index([])
    similarity = [_correlation(scale(typical), scale(row)) for row in table]
    weights, unexplained = _mixture(typical, table, mean + pseudo) if positive else (np.empty(0), np.nan)
    weighed = names if len(weights) else names[:0]
    again = [_mixture(each.typical, each.types, mean + pseudo)[0] for each in drawn] if len(weights) else []
    ends = limits(np.stack(again)) if again else np.empty((2, 0))
    return Prototype(
        frame,
        _central(z),
        _ranked(similarity, names),
        _ranked(weights, weighed),
        unexplained,
        pd.DataFrame(dict(zip(("lower", "upper"), ends, strict=True)), index=weighed if again else names[:0]),
    )


def _ranked(values: Sequence[float] | np.ndarray, names: pd.Index) -> pd.Series:
    return pd.Series(values, index=names, dtype=float).sort_values(ascending=False, kind="stable")


def _mixture(typical: np.ndarray, table: np.ndarray, mean: np.ndarray) -> tuple[np.ndarray, float]:
    if not len(table):
        return np.empty(0), float("nan")
    scale = np.sqrt(mean)
    weights, residual = scipy.optimize.nnls((table / scale).T, typical / scale)
    whole = float(np.square(typical / scale).sum())
    return weights / max(weights.sum(), np.finfo(np.float64).tiny), residual**2 / whole if whole > 0 else 0.0


def _central(z: np.ndarray | None) -> Int[np.ndarray, "nearest"]:
    if z is None:
        return np.empty(0, dtype=np.int64)
    return np.argsort((np.asarray(z, dtype=np.float64) ** 2).sum(1), kind="stable")[:NEAREST]


def _correlation(a: np.ndarray, b: np.ndarray) -> float:
    a, b = a - a.mean(), b - b.mean()
    norm = float(np.sqrt((a @ a) * (b @ b)))
    return float(a @ b) / norm if norm > 0 else 0.0
