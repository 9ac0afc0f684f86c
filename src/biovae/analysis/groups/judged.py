"""How near predicted observations come to those that were observed: means of features, and whole clouds.

    y     mean of each feature, on a scale of logarithms, observed      (features,)
    m     the same, predicted                                           (features,)

    R2                1 - sum (y - m)**2 / sum (y - mean y)**2: a prediction that is too low everywhere fails here, as
                      it would not under a squared correlation
    energy distance   2 E|A - B| - E|A - A'| - E|B - B'|, 0 if and only if A and B have one distribution

Intervals are those of a bootstrap over predicted and over observed observations; gains are paired, since every method
is drawn with the same observations.

Source: Székely and Rizzo 2013, doi:10.1016/j.jspi.2013.03.018.
"""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import pandas as pd
from jaxtyping import Float
from scipy.spatial.distance import cdist

from biovae.analysis.limits import limits
from biovae.errors import InputError

TOP = 100  # features that changed most
DRAWS = 200
MEASURES = ("R2 of means", f"R2 of the {TOP} most changed", "energy distance")
LOWER_IS_BETTER = {"energy distance"}


@dataclass(frozen=True)
class Predicted:
    """What one method predicts.

    Attributes:
        mean: m of the observations as they were before, plus the predicted change, in logarithms, (features,).
        cloud: Where each predicted observation lies, (obs, components).
    """

    mean: Float[np.ndarray, "features"]
    cloud: Float[np.ndarray, "obs components"]


@dataclass(frozen=True)
class Judged:
    """Methods beside each other.

    Attributes:
        frame: For each measure a row per method: `measure`, `method`, `value` with its 90 % interval `lower`, `upper`;
            `gain` over the baseline (positive is better) with `gain_lower`, `gain_upper`.
        method: The one that is judged.
        baseline: The one it is compared with.
        coverage: Share of features whose observed mean lies in the 90 % interval of the prediction, where there is one.
    """

    frame: pd.DataFrame
    method: str
    baseline: str
    coverage: float = float("nan")

    def __str__(self) -> str:
        """Whether the method beats the baseline, a sentence per measure."""
        said = [self._verdict(name, rows) for name, rows in self.frame.groupby("measure", sort=False)]
        if np.isfinite(self.coverage):
            said.append(f"Of the observed means {self.coverage:.0%} lie in the 90 % intervals.")
        return "\n".join(said)

    def _verdict(self, measure: str, rows: pd.DataFrame) -> str:
        table = rows.set_index("method")
        mine, other = table.loc[self.method], table.loc[self.baseline]
        said = (
            f"{measure}: {{}}; {self.method} {mine['value']:.3f}, {self.baseline} {other['value']:.3f}, gain "
            f"{mine['gain']:.2g} ({mine['gain_lower']:.2g} to {mine['gain_upper']:.2g})."
        )
        if mine["gain_lower"] > 0:
            return said.format(f"{self.method} beats {self.baseline}")
        if mine["gain_upper"] < 0:
            return said.format(f"{self.baseline} beats {self.method}")
        return said.format("level")


def energy_distance(a: Float[np.ndarray, "a components"], b: Float[np.ndarray, "b components"]) -> float:
    """2 E|A - B| - E|A - A'| - E|B - B'| over all pairs, those of an observation with itself included; never below 0.

    >>> energy_distance(np.array([[0.0], [1.0]]), np.array([[0.0], [1.0]]))
    0.0
    """
    return float(2 * cdist(a, b).mean() - cdist(a, a).mean() - cdist(b, b).mean())


def judge_predictions(
    methods: Mapping[str, Predicted],
    before: Float[np.ndarray, "obs features"],
    observed: tuple[Float[np.ndarray, "after features"], Float[np.ndarray, "after components"]],
    names: tuple[str, str],
    seed: int = 0,
) -> Judged:
    """Compare predictions with observations.

    Args:
        methods: What each predicts, all from the same observations.
        before: Those observations as they were, in logarithms.
        observed: What was observed after, in logarithms, and where it lies.
        names: Of the method that is judged and of its baseline.
        seed: Of the bootstrap.

    Raises:
        InputError: There are fewer than two observations on a side.
    """
    after, cloud = observed
    if min(len(before), len(after)) < 2:
        raise InputError(f"expected two observations or more on either side, found {len(before)} and {len(after)}.")
    rng = np.random.default_rng(seed)
    a, b = (_weights(rng, len(x)) for x in (before, after))
    y, start = b @ after, a @ before
    top = np.argsort(-np.abs(y[0] - start[0]), kind="stable")[:TOP]
    within = np.einsum("ij,ij->i", b @ cdist(cloud, cloud), b)
    values: dict[tuple[str, str], np.ndarray] = {}
    for name, told in methods.items():
        m = start - start[0] + told.mean
        own = np.einsum("ij,ij->i", a @ cdist(told.cloud, told.cloud), a)
        values[MEASURES[0], name] = _r2(y, m)
        values[MEASURES[1], name] = _r2(y[:, top], m[:, top])
        values[MEASURES[2], name] = 2 * np.einsum("ij,ij->i", a @ cdist(told.cloud, cloud), b) - own - within
    rows = []
    for (measure, name), found in values.items():
        gain = (found - values[measure, names[1]]) * (-1 if measure in LOWER_IS_BETTER else 1)
        drawn = [value for v in (found, gain) for value in (v[0], *limits(v[1:]))]
        rows.append((measure, name, *drawn))
    columns = ["measure", "method", "value", "lower", "upper", "gain", "gain_lower", "gain_upper"]
    frame = pd.DataFrame(rows, columns=columns)
    frame["measure"] = pd.Categorical(frame["measure"], MEASURES)
    frame = frame.sort_values("measure", kind="stable", ignore_index=True)
    return Judged(frame.astype({"measure": str}), *names)


def _r2(y: Float[np.ndarray, "draws features"], m: Float[np.ndarray, "draws features"]) -> Float[np.ndarray, "draws"]:
    total = np.square(y - y.mean(1, keepdims=True)).sum(1)
    return 1 - np.square(y - m).sum(1) / np.maximum(total, np.finfo(np.float64).tiny)


def _weights(rng: np.random.Generator, count: int) -> Float[np.ndarray, "draws obs"]:
    """Even weights, and below them those of the bootstrap; each row sums to 1."""
    drawn = rng.multinomial(count, np.full(count, 1 / count), DRAWS)
    return np.vstack([np.ones(count), drawn]) / count
