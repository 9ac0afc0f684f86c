"""Which features differ between groups of observations, by how much, and how sure that is.

    x      counts                                        (obs, features)
    m      their mean at the observation's own exposure and covariates, decoded at a draw of z
    f      the rate there at one exposure, covariates averaged out or chosen, decoded at the same z
    v      how many observations each one stands for     (obs,)

The rate of a group is what the decoder says, times how far the counts of the group bear it out:

    rate = (sum v f / sum v) (sum v x / sum v m)

Where the decoder is right the second factor is 1. Where it shrinks a difference, or lends a feature the difference of
another one, the factor takes that back: with one exposure and no covariates the rate is the plain mean of the counts.
What the decoder adds is the first factor: rates free of batch and depth.

Uncertainty is that of another sample of observations from the same groups, to first order that of a Bayesian bootstrap:
each observation moves log rate by u = v (f / sum v f - 1 / sum v + x / sum v x - m / sum v m), and the variance is the
sum of u**2. It contains the spread between observations, the noise of counts, and q(z | x). Sums and products of sums
are all that is kept, so that the data pass through in blocks, and any two groups can be compared afterwards.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import pandas as pd
import scipy.sparse
from jaxtyping import Float, Int

from biovae.analysis.groups.shrinkage import expected_fdr, shrink
from biovae.analysis.neighbourhoods.neighbours import codes
from biovae.errors import InputError, closest, first

ENTRIES = 2**19  # decoded at once: a block stays in the cache of the processor
PSEUDO = 0.5  # counts in agreement with the decoder that every group has before any are seen
SHARED = 5.0  # counts' worth of trust in the overdispersion that the two groups have in common
COVERAGE = 0.95
SHIFT = 0.1  # median log2 fold change that is worth a word
LN2 = np.log(2)
COLUMNS = (
    "group", "reference", "feature", "log2_fold_change", "lower", "upper", "probability", "expected_fdr",
    "estimate", "standard_error", "monte_carlo_error", "rate", "reference_rate", "detected", "reference_detected",
)  # fmt: skip


class Decoded(NamedTuple):
    """What a decoder says of some observations, both (obs, features).

    Attributes:
        rate: f, at one exposure and common covariates.
        mean: m, at their own.
    """

    rate: Float[np.ndarray, "obs features"]
    mean: Float[np.ndarray, "obs features"]


Decode = Callable[[Float[np.ndarray, "obs latent"], Int[np.ndarray, "obs"]], Decoded]  # z of some rows, which rows
Contrast = tuple[str, str | None]  # a group, and the one it is compared with; None for all others


@dataclass(frozen=True)
class Null:
    """What is not called a difference, and what is not asked about.

    Args:
        delta: |log2 fold change| up to here counts as none.
        counts: Features with fewer counts in the two groups together are not tested.
    """

    delta: float = 0.25
    counts: float = 10

    def __post_init__(self) -> None:
        if not (self.delta >= 0 and self.counts >= 1):
            raise InputError(
                f"expected delta of at least 0 and counts of at least 1, found {self.delta:g} and {self.counts:g}."
            )


@dataclass(frozen=True)
class Differential:
    """Differences between groups.

    Attributes:
        frame: For each comparison a row per feature, most probable first: `group`, `reference`, `feature`; the
            posterior `log2_fold_change` with its 95 % interval `lower`, `upper`; `probability` that it exceeds delta in
            size; `expected_fdr` of calling this feature and all above it; the `estimate` from these two groups alone,
            its `standard_error` and the `monte_carlo_error` that is left of drawing z; `rate` and `reference_rate`; the
            shares `detected` and `reference_detected` of observations with a count. NaN where a feature is not tested.
        null: What was not called a difference.
        said: Sentences on what was left out.
    """

    frame: pd.DataFrame
    null: Null
    said: tuple[str, ...] = ()

    def called(self, fdr: float = 0.05) -> pd.DataFrame:
        """The rows of the largest sets whose expected share of false calls is at most `fdr`, comparison by comparison.

        Raises:
            InputError: `fdr` is not between 0 and 1.
        """
        if not 0 < fdr < 1:
            raise InputError(f"expected an FDR between 0 and 1, found {fdr:g}: 0.05 is usual.")
        return self.frame[self.frame["expected_fdr"] <= fdr]

    @property
    def shifts(self) -> pd.Series:
        """Median estimate of each comparison's tested features, by group and reference: what most features share.

        Rates are shares of the counts. Where a few strong features take them, all others fall together.
        """
        tested = self.frame[self.frame["probability"].notna()]
        whole = pd.MultiIndex.from_frame(self.frame[["group", "reference"]].drop_duplicates())
        return tested.groupby(["group", "reference"], sort=False)["estimate"].median().reindex(whole)

    def __str__(self) -> str:
        """How many features differ, in one sentence per comparison, and what was left out."""
        lines = []
        for (group, reference), rows in self.frame.groupby(["group", "reference"], sort=False):
            found = rows[rows["expected_fdr"] <= 0.05]
            tested = int(rows["probability"].notna().sum())
            names = f": {', '.join(found['feature'].astype(str).head(5))}" if len(found) else ""
            lines.append(
                f"{group} against {reference}: {len(found):,} of {tested:,} features differ by more than "
                f"{2**self.null.delta:.2f} times (5 % expected false){names}{', ...' if len(found) > 5 else ''}."
            )
            shift = self.shifts[group, reference]
            if abs(shift) > SHIFT:
                lines[-1] += (
                    f" The median log2 fold change is {shift:.2f}: rates are shares of the counts, and what a few "
                    f"features {'gain' if shift < 0 else 'lose'}, all others {'lose' if shift < 0 else 'gain'}."
                )
        return "\n".join([*lines, *self.said])


def differential(  # noqa: PLR0913 - the door for those who fitted something else
    x: scipy.sparse.csr_array,
    decode: Decode,
    z: Float[np.ndarray, "draws obs latent"],
    groups: Sequence[object] | np.ndarray,
    features: Sequence[str],
    contrasts: Sequence[Contrast] | None = None,
    weights: Float[np.ndarray, "obs"] | None = None,
    null: Null | None = None,
) -> Differential:
    """P(|log2 rate / rate of the reference| > delta) of every feature, for each pair of groups.

    Args:
        x: Counts.
        decode: z and the rows it belongs to in, `Decoded` out; called on blocks of rows of one group.
        z: Draws from q(z | x) of each observation; two or more for a Monte Carlo error.
        groups: The group of each observation. If groups were found in these same counts, their differences are partly
            those that they were found by, and no probability here knows of it: find them in one half of the counts
            and compare them in the other.
        features: Names.
        contrasts: Pairs of groups; by default each against all others.
        weights: v, for observations that were drawn to stand for more; 1 by default.
        null: What is not a difference.

    Raises:
        InputError: Shapes differ, a group is unknown or has fewer than two observations, or there is only one.

    Source: Rubin 1981, doi:10.1214/aos/1176345338 (Bayesian bootstrap); Särndal, Swensson and Wretman 1992,
    doi:10.1007/978-1-4612-4378-6 (estimates assisted by a model).
    """
    member, names = _members(groups, (x.shape[0], z.shape[1]))
    if len(features) != x.shape[1]:
        raise InputError(f"expected {x.shape[1]} feature names, found {len(features)}: pass those of the columns.")
    null = Null() if null is None else null
    pairs = [(name, None) for name in names] if contrasts is None else [*contrasts]
    sides = [_sides(pair, names, np.bincount(member)) for pair in pairs]
    v = np.ones(len(member)) if weights is None else np.asarray(weights, dtype=np.float64)
    x = scipy.sparse.csr_array(x)
    effects = [_Effects(x.shape[1]) for _ in sides]
    for draw in z:
        sums = _sums(x, decode, draw, (member, v, len(names)))
        for effect, (one, other) in zip(effects, sides, strict=True):
            effect.add(sums.of(one), sums.of(other))
    seen = _seen(x, member, v, len(names))
    frames = [
        _frame(effect, (seen.of(one), seen.of(other)), null, features)
        for effect, (one, other) in zip(effects, sides, strict=True)
    ]
    for frame, (group, reference) in zip(frames, pairs, strict=True):
        frame.insert(0, "group", group)
        frame.insert(1, "reference", "rest" if reference is None else reference)
    return Differential(pd.concat(frames, ignore_index=True).loc[:, list(COLUMNS)], null)


def _members(groups: Sequence[object] | np.ndarray, rows: tuple[int, int]) -> tuple[np.ndarray, list[str]]:
    """The number of each observation's group, and the groups' names in order."""
    if rows[0] != rows[1]:
        raise InputError(f"expected z of the {rows[0]} observations in x, found that of {rows[1]}: pass the same rows.")
    codes(groups, rows[0])
    names, member = np.unique(np.asarray(groups).astype(str), return_inverse=True)
    if len(names) < 2:
        raise InputError(f"expected at least two groups to compare, found {first(names)} alone: choose another column.")
    return member, [str(name) for name in names]


def _sides(contrast: Contrast, names: list[str], sizes: np.ndarray) -> tuple[list[int], list[int]]:
    """The numbers of the groups on either side."""
    for name in contrast:
        if name is not None and name not in names:
            raise InputError(f"expected the name of a group, found {name!r}: {closest(name, names)}")
    if contrast[0] == contrast[1]:
        raise InputError(f"expected two different groups, found {contrast[0]!r} twice: name another reference.")
    one = names.index(contrast[0])
    others = [i for i in range(len(names)) if i != one] if contrast[1] is None else [names.index(contrast[1])]
    if min(sizes[one], sizes[others].sum()) < 2:
        raise InputError(
            f"expected at least two observations on either side, found {sizes[one]} in {names[one]!r} and "
            f"{sizes[others].sum()} to compare with: leave that group out."
        )
    return [one], others


class _Sums(NamedTuple):
    """Of f, x, m and 1: sums of v, and of v**2 times products, for every group."""

    first: Float[np.ndarray, "groups 4 features"]
    second: Float[np.ndarray, "groups 4 4 features"]

    def of(self, groups: list[int]) -> "_Sums":
        """Several groups as one."""
        return _Sums(self.first[groups].sum(0), self.second[groups].sum(0))


def _sums(
    x: scipy.sparse.csr_array, decode: Decode, z: np.ndarray, design: tuple[np.ndarray, np.ndarray, int]
) -> _Sums:
    member, v, groups = design
    features = x.shape[1]
    first_, second = np.zeros((groups, 4, features)), np.zeros((groups, 4, 4, features))
    for group, rows in _blocks(member, max(1, ENTRIES // features)):
        rate, mean = decode(z[rows], rows)
        w = v[rows].astype(rate.dtype)[:, None]
        parts = [rate, x[rows].toarray().astype(rate.dtype, copy=False), mean]
        if (w != 1).any():
            parts = [part * w for part in parts]
        for i, a in enumerate(parts):
            first_[group, i] += a.sum(0)
            for j in range(i, 3):
                second[group, i, j] += (a * parts[j]).sum(0)
            second[group, i, 3] += w[:, 0] @ a
        first_[group, 3] += w.sum()
        second[group, 3, 3] += np.square(w).sum()
    for i in range(4):
        for j in range(i):
            second[:, i, j] = second[:, j, i]
    return _Sums(first_, second)


def _blocks(member: np.ndarray, size: int) -> Iterator[tuple[int, np.ndarray]]:
    """Rows of one group at a time, `size` of them."""
    order = np.argsort(member, kind="stable")
    for group, rows in enumerate(np.split(order, np.cumsum(np.bincount(member))[:-1])):
        for start in range(0, len(rows), size):
            yield group, rows[start : start + size]


class _Side(NamedTuple):
    """One side of a comparison, all (features,): log rate, the counts behind it, and how overdispersed they are."""

    log_rate: np.ndarray
    counts: np.ndarray
    variance: np.ndarray  # of the counts, if log_rate moves as they do
    unit: float  # how many counts one observed count stands for
    size: float  # how many observations of equal weight there are


def _side(sums: _Sums) -> _Side:
    f, x, m, v = sums.first
    unit = float(sums.second[3, 3, 0] / v[0])
    pseudo = PSEUDO * unit
    with np.errstate(divide="ignore", invalid="ignore"):
        log_rate = np.log(f / v) + np.log((x + pseudo) / (m + pseudo))
        slope = np.stack([x / f, np.ones_like(x), -x / m, -x / v])  # of x * log rate
    slope[~np.isfinite(slope)] = 0
    variance = np.einsum("ig,ijg,jg->g", slope, sums.second, slope)
    size = float(v[0] ** 2 / sums.second[3, 3, 0])
    return _Side(log_rate, x, np.maximum(variance, 0) * size / max(size - 1, 1), unit, size)


def _contrast(one: _Side, other: _Side) -> tuple[np.ndarray, np.ndarray]:
    """The log ratio of two rates and its standard error.

    The error is the width of a normal density that falls from the estimate to no difference as the likelihood of
    overdispersed counts does, |b| / sqrt(deviance). Unlike a curvature at the estimate it is right where one side has
    hardly a count. That the overdispersion is itself estimated, from few observations, widens it as Student's t does.

    Source: Wallace 1959, doi:10.1214/aoms/1177706079 (the normal score of a t).
    """
    common = (one.variance + other.variance) / np.maximum(one.counts + other.counts, 1e-12)
    y, e, freedom = [], [], []
    for side in (one, other):
        dispersion = (side.variance + SHARED * side.unit * common) / (side.counts + SHARED * side.unit)
        y.append((side.counts + PSEUDO * side.unit) / np.maximum(dispersion, side.unit))
        e.append(y[-1] / np.exp(side.log_rate))
        freedom.append(max(side.size - 1, 1))
    rate = sum(y) / sum(e)
    deviance = 2 * sum(a * np.log(a / (b * rate)) for a, b in zip(y, e, strict=True))
    b = one.log_rate - other.log_rate
    curvature = np.sqrt(sum(1 / a for a in y))
    df = sum(1 / a for a in y) ** 2 / sum(1 / (a**2 * n) for a, n in zip(y, freedom, strict=True))
    shorter = (8 * df + 1) / (8 * df + 3)
    score = shorter * np.sqrt(df * np.log1p(np.maximum(deviance, 0) / df))
    near = np.abs(b) < 1e-2 * curvature  # where both vanish, their ratio is the curvature's
    return b, np.where(near, curvature / shorter, np.abs(b) / np.where(near, 1, score))


class _Effects:
    """The log2 fold changes of one comparison, gathered draw by draw."""

    def __init__(self, features: int) -> None:
        self.draws = 0
        self.b, self.square, self.s2 = np.zeros(features), np.zeros(features), np.zeros(features)
        self.rates = np.zeros((2, features))

    def add(self, one: _Sums, other: _Sums) -> None:
        """One draw of z for every observation."""
        sides = _side(one), _side(other)
        b, s = _contrast(*sides)
        self.draws += 1
        self.b += b / LN2
        self.square += np.square(b / LN2)
        self.s2 += np.square(s / LN2)
        self.rates += np.exp([side.log_rate for side in sides])

    @property
    def estimate(self) -> np.ndarray:
        return self.b / self.draws

    @property
    def error(self) -> np.ndarray:
        return np.sqrt(self.s2 / self.draws)

    @property
    def monte_carlo(self) -> np.ndarray:
        """The standard error that is left of drawing z; NaN for a single draw."""
        if self.draws < 2:
            return np.full(len(self.b), np.nan)
        spread = np.maximum(self.square / self.draws - np.square(self.estimate), 0)
        return np.sqrt(spread / (self.draws - 1))


class _Seen(NamedTuple):
    """What was observed in every group: counts; observations with a count and all, as many as they stand for."""

    counts: Float[np.ndarray, "groups features"]
    detected: Float[np.ndarray, "groups features"]
    size: Float[np.ndarray, "groups"]

    def of(self, groups: list[int]) -> tuple[np.ndarray, np.ndarray]:
        """Counts of several groups as one, and the share of observations with a count."""
        return self.counts[groups].sum(0), self.detected[groups].sum(0) / self.size[groups].sum()


def _seen(x: scipy.sparse.csr_array, member: np.ndarray, v: np.ndarray, groups: int) -> _Seen:
    place, shape = (member, np.arange(len(member))), (groups, len(member))
    inside, standing = (scipy.sparse.csr_array((each, place), shape) for each in (np.ones(len(member)), v))
    detected = scipy.sparse.csr_array((np.sign(x.data), x.indices, x.indptr), x.shape)
    return _Seen((inside @ x).toarray(), (standing @ detected).toarray(), np.bincount(member, v, groups))


def _frame(
    effects: _Effects, seen: tuple[tuple[np.ndarray, np.ndarray], ...], null: Null, features: Sequence[str]
) -> pd.DataFrame:
    """A row per feature, most probable first."""
    (counts, detected), (other_counts, other_detected) = seen
    tested = counts + other_counts >= null.counts
    posterior = shrink(effects.estimate[tested], effects.error[tested], delta=null.delta, coverage=COVERAGE)
    told = {
        "log2_fold_change": posterior.mean,
        "lower": posterior.lower,
        "upper": posterior.upper,
        "probability": posterior.beyond,
        "expected_fdr": expected_fdr(posterior.beyond),
    }
    frame = pd.DataFrame({"feature": np.asarray(features, dtype=object)})
    for name, values in told.items():
        frame[name] = np.nan
        frame.loc[tested, name] = values
    frame["estimate"], frame["standard_error"] = effects.estimate, effects.error
    frame["monte_carlo_error"] = effects.monte_carlo
    frame["rate"], frame["reference_rate"] = effects.rates / effects.draws
    frame["detected"], frame["reference_detected"] = detected, other_detected
    # Beyond a millionth no probability means anything: there the larger of two sure changes comes first.
    sure = np.maximum(frame["lower"], -frame["upper"])
    order = np.lexsort((-sure.fillna(-np.inf), -frame["probability"].round(6).fillna(-1)))
    return frame.iloc[order].reset_index(drop=True)
