"""What each latent dimension does to the features: local effects, traversals, and the record that joins them.

    z       positions, (rows, latent); dimensions are counted from 0
    draws   of z from q(z | x) of some observations, (samples, obs, latent): draws of the aggregate posterior
    decode  z -> mean of p(x | z), (rows, features)
    slope   z, d -> derivative of the transformed mean with respect to z_d, (rows, features)

    others  the same decoder, or slope, at draws of its weights, as far as the training set leaves them in doubt

A derivative answers "which way, here"; its spread over the map answers "everywhere?", its spread over draws of weights
"is it so?". Another seed gives other dimensions all the same, because a standard normal prior prefers no axes.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd
from jaxtyping import Bool, Float

from biovae.analysis.limits import limits
from biovae.analysis.neighbourhoods.positions import finite
from biovae.errors import InputError, listed

Decode = Callable[[Float[np.ndarray, "rows latent"]], Float[np.ndarray, "rows features"]]
Slope = Callable[[Float[np.ndarray, "rows latent"], int], Float[np.ndarray, "rows features"]]

STEP = 0.05  # of a central difference, in units of z
LEVEL = 0.9  # of every interval
ENDS = (0.5 - LEVEL / 2, 0.5 + LEVEL / 2)
SURE = 0.95  # share of the draws that must agree on a sign
WEAK = 0.05  # strength of an association below which it is not told
TOP = 5
TABLE = ("dimension", "spread", "active", "up", "down", "column", "strength", "highest", "rho")
ROWS = 256  # decoded at once
FEW = 32  # observations over which an effect is averaged for each draw of weights


@dataclass(frozen=True)
class Traversal:
    """Decoded features along each dimension, all other dimensions left where each observation has them.

    Attributes:
        values: Where z_d was set, (latent, steps).
        mean: Over the observations, (latent, steps, features).
        lower: 5 % quantile over the observations, and over draws of weights where there are such, the same shape.
        upper: 95 % quantile.
        features: Names.
    """

    values: Float[np.ndarray, "latent steps"]
    mean: Float[np.ndarray, "latent steps features"]
    lower: Float[np.ndarray, "latent steps features"]
    upper: Float[np.ndarray, "latent steps features"]
    features: tuple[str, ...]

    def frame(self, dimension: int, features: Sequence[str] | None = None) -> pd.DataFrame:
        """Columns `feature`, `value`, `mean`, `lower`, `upper` of one dimension; all features where none are named."""
        wanted = list(self.features) if features is None else listed(features)
        unknown = [f for f in wanted if f not in self.features]
        if unknown:
            raise InputError(f"expected features of the traversal, found {unknown[0]!r}: use the model's names.")
        at = pd.Index(self.features).get_indexer_for(wanted)
        columns = {name: getattr(self, name)[dimension][:, at].T.ravel() for name in ("mean", "lower", "upper")}
        steps = self.values.shape[1]
        places = {"feature": np.repeat(wanted, steps), "value": np.tile(self.values[dimension], len(wanted))}
        return pd.DataFrame(places | columns)


@dataclass(frozen=True)
class Dimensions:
    """What is known of each latent dimension.

    Attributes:
        summary: A row per dimension: `spread` (standard deviation of the posterior means) and `active`.
        effects: See `effects`.
        associations: See `associate`.
        traversal: See `traverse`.
        enrichment: See `enrich`; None without gene sets.
        loadings: Features x dimensions where the decoder has weights that can be read; None elsewhere.
        unit: Of an effect.
        said: Sentences on what was left out.
    """

    summary: pd.DataFrame
    effects: pd.DataFrame
    associations: pd.DataFrame
    traversal: Traversal
    enrichment: pd.DataFrame | None = None
    loadings: pd.DataFrame | None = None
    unit: str = "log fold change per unit of z"
    said: tuple[str, ...] = ()

    @property
    def contrasts(self) -> pd.DataFrame:
        """Scores, dimensions x features, as decoupler reads contrasts x genes; the index is text."""
        table = self.effects.pivot(index="dimension", columns="feature", values="score")
        table = table[self.effects["feature"].unique()].rename_axis(columns=None)
        return table.set_axis(table.index.astype(str).rename("dimension"))

    def top(self, dimension: int, count: int = TOP) -> pd.DataFrame:
        """The `count` features that rise most surely with a dimension, surest first; then those that fall, surest last.

        In the order of `nearest`, then of the score where limits hold 0, or are not known.
        """
        rows = self.effects[self.effects["dimension"] == dimension]
        order = pd.DataFrame({"sure": rows["nearest"].abs().fillna(0), "size": rows["score"].abs()})
        rows = rows.loc[order.sort_values(["sure", "size"], ascending=False).index]
        up, down = (rows[way].head(count) for way in (rows["score"] > 0, rows["score"] < 0))
        return pd.concat([up, down.iloc[::-1]], ignore_index=True)

    def sides(self, dimension: int, count: int = TOP) -> tuple[list[str], list[str]]:
        """Names of the features that rise most surely with a dimension, and of those that fall, surest first."""
        up, down = self._sides(dimension, count)
        return [str(name) for name in up["feature"]], [str(name) for name in down["feature"]]

    def _sides(self, dimension: int, count: int = TOP) -> tuple[pd.DataFrame, pd.DataFrame]:
        top = self.top(dimension, count)
        return top[top["score"] > 0], top[top["score"] < 0].iloc[::-1]

    def company(self, dimension: int) -> pd.Series | None:
        """The row of `associations` of the column that a dimension most surely goes with; None where that is weak."""
        known = self.associations[self.associations["dimension"] == dimension]
        known = known[(known["strength"] >= WEAK) & (known["fdr"] < 1 - SURE)]
        return None if known.empty else known.sort_values(["least", "strength"], ascending=False).iloc[0]

    def table(self, count: int = TOP) -> pd.DataFrame:
        """A row per dimension: its spread, the features on either side, and the column that it goes with most."""
        rows = []
        for d in self.summary.index:
            (up, down), best = self.sides(int(d), count), self.company(int(d))
            row = {"dimension": d, **self.summary.loc[d], "up": ", ".join(up), "down": ", ".join(down)}
            rows.append(row | ({} if best is None else best[["column", "strength", "highest", "rho"]].to_dict()))
        return pd.DataFrame(rows, columns=[*TABLE])

    def __str__(self) -> str:
        """A line per active dimension, the widest first."""
        order = self.summary.sort_values("spread", ascending=False, kind="stable")
        lines = [self._line(int(d)) for d in order.index[order["active"]]]
        spare = [str(d) for d in self.summary.index[~self.summary["active"]]]
        lines += [f"Not in use: {', '.join(spare)}."] if spare else []
        lines += (
            ["Features stand by size alone: their limits need draws."] if self.effects["nearest"].isna().all() else []
        )
        return "\n".join([*lines, *self.said, "Another seed may give other dimensions: believe what several agree on."])

    def _line(self, dimension: int) -> str:
        up, down = map(_named, self._sides(dimension))
        line = f"Dimension {dimension} (spread {self.summary.loc[dimension, 'spread']:.2f}): up {up}; down {down}"
        best = self.company(dimension)
        if best is None:
            return f"{line}."
        where = f", highest in {best['highest']}" if best["kind"] == "categories" else f", rho {best['rho']:.2f}"
        limits = "" if np.isnan(best["least"]) else f", {best['least']:.0%} to {best['most']:.0%}"
        return f"{line}; goes with {best['column']} ({best['strength']:.0%} of its rank variance{limits}{where})."


def _named(side: pd.DataFrame) -> str:
    """The features of one side, those whose limits hold 0 apart."""
    unsure = side["nearest"] == 0
    sure, rest = (", ".join(map(str, side.loc[which, "feature"])) for which in (~unsure, unsure))
    if not rest:
        return sure or "none"
    return f"{sure} (not sure: {rest})" if sure else f"nothing sure (perhaps {rest})"


def differences(decode: Decode, transform: Callable[[np.ndarray], np.ndarray] = np.log, step: float = STEP) -> Slope:
    """[t(f(z + h e_d)) - t(f(z - h e_d))] / 2h: the slope of any decoder, by central differences.

    Exact up to h**2 where the decoder is smooth; at the kink of a ReLU, the mean of both sides.

    Args:
        decode: See the file head.
        transform: t; the logarithm makes a slope a log fold change.
        step: h, in units of z.
    """

    def slope(z: np.ndarray, dimension: int) -> np.ndarray:
        move = np.zeros(z.shape[1])
        move[dimension] = step
        above, below = (np.asarray(decode(z + way), dtype=np.float64) for way in (move, -move))
        return (transform(above) - transform(below)) / (2 * step)

    return slope


def effects(
    slope: Slope,
    draws: Float[np.ndarray, "samples obs latent"],
    features: Sequence[str],
    weight: Float[np.ndarray, "features"] | None = None,
    others: Sequence[Slope] = (),
) -> pd.DataFrame:
    """E_q(z) of the derivative of each feature with respect to each z_d, with its spread over the aggregate posterior.

    Args:
        slope: See the file head; `differences(decode)` makes one.
        draws: See the file head.
        features: Names.
        weight: What makes effects of different features comparable, (features,): the square root of the mean turns the
            derivative of log mean into (the root of) the information that a Poisson count carries about z_d, so that a
            feature with hardly a count does not lead the list. 1 where it is not given.
        others: See the file head; 19 or more give limits that are not too narrow.

    Returns:
        A row per dimension and feature: `effect`, `se` (of that mean, over observations), `least` and `most` (90 %
        limits of the effect, from draws of weights; NaN without), `lower` and `upper` (90 % of the local derivatives
        lie between), `positive` (share of them above 0), `sign` (1 or -1 where 95 % of them agree and the limits do
        not hold 0, else 0), `score` = effect * weight, and `nearest`, by which features are ranked: the limit of the
        score nearest to 0 on its own side, 0 where the limits hold 0, NaN without draws.
    """
    draws = np.asarray(draws, dtype=np.float64)
    samples, observations, latent = draws.shape
    flat = finite(draws.reshape(-1, latent))
    weight = np.ones(len(features)) if weight is None else np.asarray(weight, dtype=np.float64)
    few, frames = draws[0][:: -(-observations // FEW)], []
    for d in range(latent):
        local = _in_blocks(slope, flat, d, len(features))
        by_observation = local.reshape(samples, observations, -1).mean(0)
        effect, positive = by_observation.mean(0), (local > 0).mean(0)
        lower, upper = np.quantile(local, ENDS, axis=0)
        least, most = effect + _doubt(slope, others, few, d, len(features))
        one_way = (positive >= SURE).astype(int) - ((local < 0).mean(0) >= SURE)
        if others:
            one_way *= (least > 0) | (most < 0)
        spread = by_observation.std(0, ddof=1) if observations > 1 else np.full(len(effect), np.nan)
        columns = {
            "dimension": d, "feature": [*features], "effect": effect, "se": spread / np.sqrt(observations),
            "least": least, "most": most, "lower": lower, "upper": upper, "positive": positive, "sign": one_way,
            "score": effect * weight,
            "nearest": weight * np.where(effect > 0, np.maximum(least, 0), np.minimum(most, 0)),
        }  # fmt: skip
        frames.append(pd.DataFrame(columns))
    return pd.concat(frames, ignore_index=True)


def _doubt(
    slope: Slope, others: Sequence[Slope], z: np.ndarray, dimension: int, width: int
) -> Float[np.ndarray, "2 features"]:
    """90 % limits of what other weights change of a mean slope; NaN without such."""
    if not others:
        return np.full((2, width), np.nan)
    own = _in_blocks(slope, z, dimension, width).mean(0)
    return limits(np.stack([_in_blocks(other, z, dimension, width).mean(0) - own for other in others]))


def _in_blocks(slope: Slope, z: np.ndarray, dimension: int, width: int) -> Float[np.ndarray, "rows features"]:
    """Slopes in single precision, a block of rows at a time."""
    out = np.empty((len(z), width), dtype=np.float32)
    for start in range(0, len(z), ROWS):
        block = np.asarray(slope(z[start : start + ROWS], dimension))
        if block.shape != (min(ROWS, len(z) - start), width):
            raise InputError(
                f"expected slopes of {width} features, found an array of shape {block.shape}: name the features of the "
                "decoder, in its order."
            )
        out[start : start + ROWS] = block
    return out


def traverse(
    decode: Decode,
    base: Float[np.ndarray, "rows latent"],
    values: Float[np.ndarray, "latent steps"],
    features: Sequence[str],
    others: Sequence[Decode] = (),
) -> Traversal:
    """Decode with z_d set to each of its values in turn, for every row of `base`, and average over the rows.

    One row (the mean of the aggregate posterior, or a chosen observation) gives a curve without a band; rows drawn from
    the aggregate posterior give the band that the other dimensions make.

    Args:
        decode: See the file head.
        base: Where the other dimensions are.
        values: Of each dimension; `ladder(z)` spans what the data span.
        features: Names.
        others: See the file head; each decodes its share of the rows for the band.
    """
    base, values = finite(base), np.asarray(values, dtype=np.float64)
    shape = (*values.shape, len(features))
    mean, lower, upper = (np.empty(shape, dtype=np.float32) for _ in range(3))
    for d, places in enumerate(values):
        z = np.repeat(base[:, None], len(places), axis=1)  # (rows, steps, latent)
        z[:, :, d] = places
        for step in range(len(places)):
            decoded = decode(z[:, step])
            mean[d, step] = decoded.mean(0)
            if not others:
                lower[d, step], upper[d, step] = np.quantile(decoded, ENDS, axis=0)
        if others:
            z = z[np.arange(max(len(z), len(others))) % len(z)]  # each of the others has a row
            spread = np.concatenate([_decoded(other, z[i :: len(others)]) for i, other in enumerate(others)])
            for step in range(len(places)):
                lower[d, step], upper[d, step] = np.quantile(spread[:, step], ENDS, axis=0)
    return Traversal(values, mean, lower, upper, tuple(features))


def _decoded(decode: Decode, z: Float[np.ndarray, "rows steps latent"]) -> Float[np.ndarray, "rows steps features"]:
    return np.asarray(decode(z.reshape(-1, z.shape[-1]))).reshape(*z.shape[:2], -1)


def ladder(z: Float[np.ndarray, "obs latent"], steps: int = 9) -> Float[np.ndarray, "latent steps"]:
    """Evenly spaced values from the 1 % to the 99 % quantile of each dimension: a traversal stays where data are."""
    low, high = np.quantile(finite(z), (0.01, 0.99), axis=0)
    return np.linspace(low, high, steps).T


def summary(z: Float[np.ndarray, "obs latent"], active: Bool[np.ndarray, "latent"]) -> pd.DataFrame:
    """A row per dimension: `spread` of the posterior means, and whether it is `active`."""
    frame = pd.DataFrame({"spread": finite(z).std(0), "active": np.asarray(active, dtype=bool)})
    return frame.rename_axis("dimension")
