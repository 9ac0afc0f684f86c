"""Is a data set like the one it is compared with? Two samples, tests by permutation, and what drives a difference.

    a, b    the reference and the new sample, in any space      (obs, dimensions)
    E       2 mean |a - b| - mean |a - a'| - mean |b - b'|       the energy distance

A p-value says whether chance explains the difference. Observations of one donor, lane or day resemble each other: two
samples of different donors differ, and with many observations always significantly. Look at the effect: AUROC 0.5 where
nothing tells the samples apart, 1 where everything does.

Source: Székely and Rizzo 2013, doi:10.1016/j.jspi.2013.03.018 (energy distance); Lopez-Paz and Oquab 2017, ICLR,
arXiv:1610.06545 (classifiers as two-sample tests).
"""

from dataclasses import dataclass

import numpy as np
import pandas as pd
import scipy.sparse
from jaxtyping import Float
from scipy import stats
from scipy.spatial.distance import cdist

from biovae.analysis.neighbourhoods.positions import finite
from biovae.errors import InputError

MOST = 1000  # observations of each sample that are compared pair by pair
SMALL = 0.6  # AUROC up to which a difference is called small
NAMED = 5


@dataclass(frozen=True)
class Shift:
    """How a new data set differs from a reference.

    Attributes:
        tests: A row per question: `what`, `effect` (AUROC: how well it tells a new observation from one of the
            reference), `p_value`, `meaning`.
        p_value: Of all questions that are tests of the model's population together (Bonferroni).
        unsupported: Share of new observations whose z is rarer than 95 % of the reference's, minus the 5 % expected.
        surprising: The same for surprise.
        observations: A row per new observation: `newness` (share of the new sample among its neighbours in z, 0.5
            expected), `p_support`, `p_surprise`.
        features: A row per feature, most telling first: `log2_fold_change` of its share of the counts, `unexplained`
            (the part of it that z does not hold), its `z_score`, `p_value` and `fdr`.
    """

    tests: pd.DataFrame
    p_value: float
    unsupported: float
    surprising: float
    observations: pd.DataFrame
    features: pd.DataFrame

    def __str__(self) -> str:
        """Like the reference or not, by how much, and what drives it."""
        tested = self.tests[self.tests["p_value"].notna()]
        largest = float(tested["effect"].max())
        if self.p_value >= 0.05:
            said = "No difference from the reference that chance would not explain"
        elif largest < SMALL and max(self.unsupported, self.surprising) < 0.05:
            said = "Different from the reference, by little"
        else:
            said = "Not like the reference"
        found = self.features[self.features["fdr"] <= 0.05]
        names = f": {', '.join(found['feature'].astype(str).head(NAMED))}" if len(found) else ""
        return (
            f"{said} (p = {self.p_value:.2g}, largest AUROC {largest:.2f}).\n"
            f"{self.tests.round(4).to_string(index=False)}\n"
            f"Beyond what the reference would show, {max(self.unsupported, 0):.1%} of the new observations are "
            f"unsupported and {max(self.surprising, 0):.1%} surprising. {len(found):,} features differ in what z does "
            f"not explain{names}.\n"
            "Observations are taken to be independent: another donor or lane alone can make a small p."
        )


def energy(
    a: Float[np.ndarray, "reference dimensions"],
    b: Float[np.ndarray, "new dimensions"],
    draws: int = 500,
    seed: int = 0,
) -> tuple[float, float]:
    """The energy distance of two samples, and its p-value among random relabellings; at most 1,000 of each are taken.

    Args:
        a: One sample.
        b: The other.
        draws: Relabellings.
        seed: Of them, and of subsets.

    Raises:
        InputError: A sample has fewer than two observations.
    """
    rng = np.random.default_rng(seed)
    a, b = (_few(finite(sample), rng) for sample in (a, b))
    if min(len(a), len(b)) < 2:
        raise InputError(f"expected at least two observations of each, found {len(a)} and {len(b)}: give more.")
    both = np.concatenate([a, b])
    distance = cdist(both, both)
    new = np.zeros((draws + 1, len(both)))
    new[0, len(a) :] = 1
    for row in new[1:]:
        row[rng.permutation(len(both))[: len(b)]] = 1
    reach = new @ distance  # (draws, both): summed distance to the new ones
    among_new, whole = (reach * new).sum(1), distance.sum()
    across = reach.sum(1) - among_new
    among_old = whole - 2 * across - among_new
    found = 2 * across / (len(a) * len(b)) - among_old / len(a) ** 2 - among_new / len(b) ** 2
    return float(found[0]), float((1 + (found[1:] >= found[0] - 1e-12).sum()) / (draws + 1))


def two_sided(effect: float) -> float:
    """An AUROC whichever way it points, at least 0.5."""
    return max(effect, 1 - effect)


def rank_test(a: Float[np.ndarray, "reference"], b: Float[np.ndarray, "new"]) -> tuple[float, float]:
    """P(b > a), ties by half, and the p-value that it is 0.5 (Mann and Whitney)."""
    found = stats.mannwhitneyu(b, a, alternative="two-sided")
    return float(found.statistic / (len(a) * len(b))), float(found.pvalue)


class Residuals:
    """Sums over observations of what was counted, and of what the model expects, feature by feature."""

    def __init__(self, features: int) -> None:
        self.count = 0
        self.x, self.mean = np.zeros(features), np.zeros(features)
        self.r, self.square = np.zeros(features), np.zeros(features)

    def add(
        self, x: scipy.sparse.csr_array | np.ndarray, mean: Float[np.ndarray, "obs features"], variance: np.ndarray
    ) -> None:
        """A block of observations, with the mean and variance that each of their values was expected to have."""
        x = x.toarray() if isinstance(x, scipy.sparse.csr_array) else np.asarray(x)
        residual = (x - mean) / np.sqrt(np.maximum(variance, 1e-12))
        self.count += len(x)
        self.x += x.sum(0)
        self.mean += mean.sum(0)
        self.r += residual.sum(0)
        self.square += np.square(residual).sum(0)

    @property
    def moments(self) -> tuple[np.ndarray, np.ndarray]:
        """Mean Pearson residual, and its squared standard error.

        A residual's variance is taken to be 1 at least, as the model has it: a rare feature that was never met among
        few observations shows none, and would be told from anything.
        """
        mean = self.r / self.count
        return mean, np.maximum(self.square / self.count - mean**2, 1) / max(self.count - 1, 1)


def drivers(reference: Residuals, new: Residuals, features: pd.Index, *, counts: bool) -> pd.DataFrame:
    """What differs between two samples feature by feature, most telling first: see `Shift.features`.

    The z-score compares mean Pearson residuals of the two (Welch): what the model explains at each observation's own z
    and depth is taken out.
    """
    (one, error), (other, other_error) = reference.moments, new.moments
    z = (other - one) / np.sqrt(error + other_error)
    p = 2 * stats.norm.sf(np.abs(z))
    frame = pd.DataFrame({"feature": features, "log2_fold_change": np.nan, "unexplained": other - one})
    if counts:
        total = (np.maximum(new.x.sum(), 1), np.maximum(reference.x.sum(), 1))
        frame["log2_fold_change"] = np.log2((new.x + 0.5) / total[0]) - np.log2((reference.x + 0.5) / total[1])
        own = [np.log2((of.x + 0.5) / (of.mean + 0.5)) for of in (new, reference)]
        frame["unexplained"] = own[0] - own[1]
    frame["z_score"], frame["p_value"], frame["fdr"] = z, p, stats.false_discovery_control(p)
    return frame.sort_values("z_score", key=np.abs, ascending=False, kind="stable").reset_index(drop=True)


def _few(sample: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    return sample if len(sample) <= MOST else sample[np.sort(rng.choice(len(sample), MOST, replace=False))]
