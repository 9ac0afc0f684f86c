"""A trajectory beside a simple order of the same observations: how far they agree, and which is nearer to known stages.

    t        pseudotime of the trajectory and of the baseline, (obs,); NaN where the baseline does not lead
    stage    known rank of each observation, the same for all of a stage; NaN where none is known, (obs,)

Agreement is Spearman's correlation. Limits come from the Bayesian bootstrap over observations, the ranks weighted, too:
they tell whether two orders differ by more than the choice of observations explains. They take the fit as given;
another seed of the model is another order (`bv.tl.stability`).

Source: Rubin 1981, doi:10.1214/aos/1176345338.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd
from jaxtyping import Float

from biovae.analysis.limits import limits
from biovae.errors import InputError

REPEATS = 200
LISTED = 12  # groups that are named in their order; of more, those that differ
FARTHEST = 5  # of those
COLUMNS = ("spearman", "lower", "upper")


@dataclass(frozen=True)
class Baseline:
    """A simple order from the same root, and how the trajectory compares.

    Attributes:
        name: What it is.
        pseudotime: Of the baseline, in [0, 1]; NaN where it does not lead.
        scores: Columns `spearman`, `lower`, `upper` (90 %): row `agreement` of the two orders; where stages are known
            also `trajectory` and `baseline`, each against the stages, and their `difference`.
        groups: A row per group: `observations`, medians of `trajectory` and `baseline`, and the rank of each median,
            `rank` and `baseline_rank`, 1 is the earliest, of the groups that both order. Empty without groups.
    """

    name: str
    pseudotime: Float[np.ndarray, "obs"]
    scores: pd.DataFrame
    groups: pd.DataFrame

    def __str__(self) -> str:
        """Agreement, the order of the groups, and which is better where that can be told."""
        reached = np.isfinite(self.pseudotime)
        said = f"{self.name[:1].upper()}{self.name[1:]}, the simple baseline, agrees with Spearman {self._said(0)}"
        if not reached.all():
            said += f" over the {reached.sum():,} observations that it reaches"
        return " ".join(filter(None, (f"{said}.", self._groups(), self._verdict())))

    def _said(self, row: int) -> str:
        value, lower, upper = self.scores.iloc[row]
        return f"{value:.3f} ({lower:.3f} to {upper:.3f})"

    def _groups(self) -> str:
        both = self.groups.dropna()
        if len(both) < 2:
            return ""
        own, other = (list(both.sort_values(rank, kind="stable").index) for rank in ("rank", "baseline_rank"))
        if own == other:
            return f"Both have the {len(both)} groups in the same order, by their medians."
        if len(both) <= LISTED:
            return f"By their medians the groups are in the order {_row(own)}; in the baseline {_row(other)}."
        apart = (both["rank"] - both["baseline_rank"]).abs().sort_values(ascending=False, kind="stable")
        worst = both.loc[apart[apart > 0].index[:FARTHEST]]
        named = (f"{name} ({a:.0f}, {b:.0f})" for name, a, b in worst[["rank", "baseline_rank"]].itertuples())
        return f"Of {len(both)} groups {(apart > 0).sum()} have another rank, here and in the baseline: {_row(named)}."

    def _verdict(self) -> str:
        if len(self.scores) == 1:
            return (
                "Where they differ, nothing here says which is right: give the known order of groups, if there is one."
            )
        value, lower, upper = self.scores.loc["difference"]
        if lower > 0:
            judged = "the trajectory is nearer"
        elif upper < 0:
            judged = "the baseline is nearer, and the simple order is the better one to report"
        else:
            judged = "the two cannot be told apart"
        return (
            f"Against the known stages the trajectory has Spearman {self._said(1)}, the baseline {self._said(2)}: "
            f"{judged} (difference {value:+.3f}, {lower:+.3f} to {upper:+.3f})."
        )


def compare_orders(
    t: Float[np.ndarray, "obs"],
    baseline: Float[np.ndarray, "obs"],
    name: str,
    *,
    labels: np.ndarray | None = None,
    stage: Float[np.ndarray, "obs"] | None = None,
    seed: int = 0,
) -> Baseline:
    """Set a trajectory beside a simple order.

    Args:
        t: Pseudotime of the trajectory.
        baseline: Of the other; NaN where it does not lead.
        name: What the other is, for the reader.
        labels: Names of groups, (obs,).
        stage: Known rank of each observation; NaN where none is known.
        seed: Of the bootstrap.

    Raises:
        InputError: The orders differ in length, or fewer than two stages are known of what both order.
    """
    if len(t) != len(baseline):
        raise InputError(f"expected two orders of the same observations, found {len(t):,} and {len(baseline):,}.")
    rng = np.random.default_rng(seed)
    both = np.isfinite(baseline)
    rows = [_interval([matrix[0, 1] for matrix in _correlations([t[both], baseline[both]], rng)])]
    if stage is not None:
        known = both & np.isfinite(stage)
        if len(np.unique(stage[known])) < 2:
            raise InputError(
                f"expected at least 2 stages among the {known.sum():,} observations that both order and whose stage is "
                f"known, found {len(np.unique(stage[known]))}: name more groups in the order."
            )
        against = np.array([m[2, :2] for m in _correlations([t[known], baseline[known], stage[known]], rng)])
        rows += [_interval(score) for score in (*against.T, against[:, 0] - against[:, 1])]
    index = ["agreement", "trajectory", "baseline", "difference"][: len(rows)]
    return Baseline(name, baseline, pd.DataFrame(rows, index=index, columns=[*COLUMNS]), _medians(t, baseline, labels))


def stage_ranks(labels: np.ndarray, order: Sequence[str | Sequence[str]]) -> Float[np.ndarray, "obs"]:
    """The place of each observation's group in an order, groups that share a place listed together; NaN for others.

    >>> stage_ranks(np.array(["a", "b", "c", "x"]), ["a", ["b", "c"]]).tolist()
    [0.0, 1.0, 1.0, nan]
    """
    place = {level: i for i, stage in enumerate(order) for level in ([stage] if isinstance(stage, str) else stage)}
    return pd.Series(labels).map(place).to_numpy(dtype=np.float64)


def _medians(t: np.ndarray, baseline: np.ndarray, labels: np.ndarray | None) -> pd.DataFrame:
    frame = pd.DataFrame({"trajectory": t, "baseline": baseline})
    by = frame.groupby(np.empty(len(t), dtype=str) if labels is None else np.asarray(labels))
    found = by.median()
    ranks = found.dropna().rank().set_axis(["rank", "baseline_rank"], axis=1)
    found = found.join(ranks).sort_values("trajectory", kind="stable").rename_axis("group")
    found.insert(0, "observations", by.size())
    return found if labels is not None else found.iloc[:0]


def _correlations(orders: list[np.ndarray], rng: np.random.Generator) -> list[Float[np.ndarray, "orders orders"]]:
    """Spearman's, first of the observations as they are, then under random weights."""
    codes = [np.unique(order, return_inverse=True)[1] for order in orders]
    count = len(orders[0])
    weights = [np.ones(count), *(rng.exponential(size=count) for _ in range(REPEATS))]
    return [_correlation(codes, weight) for weight in weights]


def _correlation(codes: list[np.ndarray], weight: Float[np.ndarray, "obs"]) -> Float[np.ndarray, "orders orders"]:
    """Correlation of weighted ranks; those that tie share the middle of theirs."""
    shares = [np.bincount(code, weight) for code in codes]
    ranks = [(np.cumsum(share) - share / 2)[code] for share, code in zip(shares, codes, strict=True)]
    covariance = np.cov(ranks, aweights=weight)
    size = np.sqrt(np.diag(covariance))
    return covariance / np.maximum(np.outer(size, size), np.finfo(np.float64).tiny)


def _interval(values: Sequence[float] | np.ndarray) -> tuple[float, float, float]:
    """The value itself, which comes first, and the limits of the others."""
    lower, upper = limits(np.asarray(values)[1:])
    return float(values[0]), float(lower), float(upper)


def _row(names: Iterable[object]) -> str:
    return ", ".join(map(str, names))
