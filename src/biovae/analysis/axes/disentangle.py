"""Does one latent dimension carry one factor? Scores against known factors, and dependence without any.

    z        positions, (obs, latent)
    factors  what is known of each observation, a column each: numbers are continuous, anything else is categories

MIG and DCI do not change when a dimension is scaled; SAP of categories does, through the penalty of its classifier. All
ask whether axes mean something, and none whether the space is good: PCA and ICA of the same data often score higher
than a VAE. Without supervision a rotated code fits the data as well as the one sought (Locatello et al. 2019, ICML,
arXiv:1811.12359), so that a score of one fit is a draw: compare seeds.
"""

from dataclasses import dataclass

import numpy as np
import pandas as pd
from jaxtyping import Float, Int

from biovae.analysis.neighbourhoods.positions import finite
from biovae.errors import InputError, first

BINS = 20  # of equal width, per dimension and per continuous factor
MOST = 15_000  # observations that learners see: two thirds to fit, one third to score
TRACE = 1e-11  # added to importances, so that 0 log 0 is 0
PENALTY = 0.01  # C of SAP's support vector machines
LARGEST = 2000  # observations whose posteriors are mixed
BLOCK = 128


@dataclass(frozen=True)
class Gaps:
    """A score per factor: how far its best dimension is ahead of its second best.

    Attributes:
        score: Mean over the factors; 1 is one dimension for each factor, 0 is none.
        each: The gap of each factor.
        table: What every dimension says of every factor, (latent, factors): nats for MIG; for SAP the accuracy of
            categories, or the squared correlation.
    """

    score: float
    each: pd.Series
    table: pd.DataFrame


@dataclass(frozen=True)
class DCI:
    """Disentanglement, completeness and informativeness.

    Attributes:
        disentanglement: 1 where each dimension is important for one factor only.
        completeness: 1 where each factor needs one dimension only.
        informativeness: Held-out accuracy (categories) or R2 (numbers) of each factor from all of z.
        importance: Of each dimension for each factor, (latent, factors); columns sum to 1.
    """

    disentanglement: float
    completeness: float
    informativeness: pd.Series
    importance: pd.DataFrame


def mig(z: Float[np.ndarray, "obs latent"], factors: pd.DataFrame) -> Gaps:
    """Mutual information gap: mean over factors v of [I(z_a; v) - I(z_b; v)] / H(v), a the best dimension, b the next.

    Dimensions are cut into 20 bins of equal width, and so are continuous factors.

    Raises:
        InputError: A factor is missing somewhere, or does not vary.

    Source: Chen et al. 2018, NeurIPS, arXiv:1802.04942; binned as in Locatello et al. 2019, arXiv:1811.12359.
    """
    z = finite(z)
    known = _known(factors, len(z))
    states = [_bins(column) for column in z.T]
    values = {name: _bins(v) if v.dtype.kind == "f" else v for name, v in known.items()}
    table = pd.DataFrame({name: [_information(s, v) for s in states] for name, v in values.items()})
    entropy = pd.Series({name: _information(v, v) for name, v in values.items()})
    return _gaps(table, entropy)


def sap(z: Float[np.ndarray, "obs latent"], factors: pd.DataFrame, seed: int = 0) -> Gaps:
    """Separated attribute predictability: the gap between the two dimensions that predict a factor best, each alone.

    Prediction is the squared correlation for numbers, and for categories the held-out accuracy of a linear support
    vector machine (C = 0.01, classes weighted evenly).

    Args:
        z: See the file head.
        factors: See the file head.
        seed: Of the split in two thirds and one third.

    Raises:
        InputError: A factor is missing somewhere, or does not vary.

    Source: Kumar, Sattigeri and Balakrishnan 2018, ICLR, arXiv:1711.00848.
    """
    z = finite(z)
    train, test = _split(len(z), seed)
    columns = {}
    for name, v in _known(factors, len(z)).items():
        if v.dtype.kind == "f":
            columns[name] = [_squared_correlation(column[train], v[train]) for column in z.T]
        else:
            _two_levels(name, v[train])
            columns[name] = [_accuracy(column[:, None], v, (train, test), seed) for column in z.T]
    return _gaps(pd.DataFrame(columns), pd.Series(1.0, index=[*columns]))


def dci(z: Float[np.ndarray, "obs latent"], factors: pd.DataFrame, seed: int = 0) -> DCI:
    """Disentanglement sum_i rho_i (1 - H_K(R_i.)), completeness sum_k w_k (1 - H_D(R_.k)), R the importances.

    R holds the feature importances of gradient boosted trees, one set of trees per factor; H_K is the entropy to base
    K of a row as shares, rho_i the share of R in row i, w_k the share in column k. With a single factor every dimension
    is disentangled by definition: the score is NaN.

    Args:
        z: See the file head.
        factors: See the file head.
        seed: Of the split in two thirds and one third, and of the trees.

    Raises:
        InputError: A factor is missing somewhere, or does not vary.

    Source: Eastwood and Williams 2018, ICLR, openreview.net/forum?id=By-7dz-AZ; trees as in arXiv:1811.12359.
    """
    from sklearn.ensemble import GradientBoostingClassifier, GradientBoostingRegressor

    z = finite(z)
    train, test = _split(len(z), seed)
    importance, informativeness = {}, {}
    for name, v in _known(factors, len(z)).items():
        if v.dtype.kind != "f":
            _two_levels(name, v[train])
        learner = (GradientBoostingRegressor if v.dtype.kind == "f" else GradientBoostingClassifier)(random_state=seed)
        learner.fit(z[train], v[train])
        importance[name] = np.abs(learner.feature_importances_)
        informativeness[name] = float(learner.score(z[test], v[test]))
    table = pd.DataFrame(importance)
    return DCI(
        concentration(table.to_numpy()),
        concentration(table.to_numpy().T),
        pd.Series(informativeness),
        table,
    )


def concentration(importance: Float[np.ndarray, "rows columns"]) -> float:
    """sum_i rho_i (1 - H(R_i.)), H to the base of the number of columns, rho_i the share of row i; NaN of one column.

    >>> round(concentration(np.array([[1.0, 0.0], [0.0, 1.0]])), 6)
    1.0
    >>> round(concentration(np.array([[1.0, 1.0], [1.0, 1.0]])), 6)
    0.0
    """
    importance = np.asarray(importance, dtype=np.float64)
    if importance.shape[1] < 2 or importance.sum() <= 0:
        return float("nan")
    share = importance + TRACE
    share = share / share.sum(1, keepdims=True)
    entropy = -(share * np.log(share)).sum(1) / np.log(importance.shape[1])
    return float((importance.sum(1) / importance.sum()) @ (1 - entropy))


def total_correlation(
    mean: Float[np.ndarray, "obs latent"], variance: Float[np.ndarray, "obs latent"], seed: int = 0
) -> float:
    """TC = E log q(z) - sum_d log q(z_d), in nats: how far the dimensions of the aggregate posterior depend on another.

    q(z) is the mixture of the diagonal posteriors of the same observations, 2,000 of them at most, and one z is drawn
    from each. Where posteriors hardly overlap, so that I(x; z) is near log n (7.6 nats), each z finds its own posterior
    alone and the estimate is too high: compare `gaussian_total_correlation`, which sees straight dependence only.

    Args:
        mean: Of q(z | x).
        variance: Of q(z | x).
        seed: Of the draws.

    Source: Watanabe 1960, doi:10.1147/rd.41.0066; Chen et al. 2018, arXiv:1802.04942.
    """
    rng = np.random.default_rng(seed)
    rows = rng.permutation(len(mean))[:LARGEST]
    middle = finite(mean)[rows]
    spread = np.sqrt(np.maximum(np.asarray(variance, dtype=np.float64)[rows], 1e-12))
    z = middle + spread * rng.standard_normal(middle.shape)
    total = 0.0
    for start in range(0, len(z), BLOCK):
        each = -0.5 * ((z[start : start + BLOCK, None] - middle) / spread) ** 2 - np.log(spread)
        joint = np.logaddexp.reduce(each.sum(-1), axis=1) - np.log(len(z))
        alone = np.logaddexp.reduce(each, axis=1) - np.log(len(z))
        total += float((joint - alone.sum(-1)).sum())
    return total / len(z)


def gaussian_total_correlation(
    z: Float[np.ndarray, "obs latent"], variance: Float[np.ndarray, "obs latent"] | None = None
) -> float:
    """-1/2 log det of the correlation matrix, in nats: the total correlation of a normal with the same covariance.

    Dimensions that do not vary are left out. PCA and ICA score 0 by construction.

    Args:
        z: Positions, or means of q(z | x).
        variance: Of q(z | x): its mean is added to the covariance of the means, which makes it that of the aggregate
            posterior. Without it, dimensions that are not in use count by the traces that they keep.

    >>> gaussian_total_correlation(np.array([[1.0, 1.0], [1.0, -1.0], [-1.0, 1.0], [-1.0, -1.0]]))
    0.0
    """
    z = finite(z)
    centred = z - z.mean(0)
    covariance = centred.T @ centred / len(z)
    if variance is not None:
        covariance = covariance + np.diag(np.asarray(variance, dtype=np.float64).mean(0))
    scale = np.sqrt(np.diag(covariance))
    used = np.flatnonzero(scale > 1e-9)
    if len(used) < 2:
        return 0.0
    correlation = covariance[np.ix_(used, used)] / np.outer(scale[used], scale[used])
    sign, logdet = np.linalg.slogdet(correlation)
    return float(max(0.0, -0.5 * logdet)) if sign > 0 else float("inf")


def indicators(labels: pd.Series | np.ndarray) -> pd.DataFrame:
    """One factor per level, this level against all others: whether each type has a dimension of its own.

    As one factor, a label of ten types could score high only if a single dimension told all ten apart.

    >>> indicators(np.array(["a", "b", "a"])).columns.tolist()
    ['a', 'b']
    """
    values = pd.Series(np.asarray(labels)).astype(object)
    if values.isna().any():
        raise InputError(
            f"expected a label for every observation, found {values.isna().sum()} missing: leave those out."
        )
    values = values.astype(str)
    return pd.DataFrame({level: values == level for level in sorted(values.unique())})


def _known(factors: pd.DataFrame, expected: int) -> dict[str, np.ndarray]:
    """Each factor as floats (numbers) or codes (categories)."""
    if len(factors) != expected or not len(factors.columns):
        raise InputError(
            f"expected factors of {expected} observations, found {len(factors)} rows and {len(factors.columns)} "
            "columns: pass a frame with a row per observation."
        )
    known = {}
    for name, column in factors.items():
        if column.isna().any():
            raise InputError(
                f"expected factor {name!r} for every observation, found {column.isna().sum()} missing: leave those out."
            )
        numeric = pd.api.types.is_numeric_dtype(column) and not pd.api.types.is_bool_dtype(column)
        known[str(name)] = column.to_numpy(np.float64) if numeric else pd.factorize(column)[0]
    constant = [name for name, v in known.items() if len(np.unique(v)) < 2]
    if constant:
        raise InputError(f"expected factors that vary, found one value only in {first(constant)}: leave them out.")
    return known


def _two_levels(name: str, values: np.ndarray) -> None:
    if len(np.unique(values)) < 2:
        raise InputError(
            f"expected two levels of factor {name!r} among the {len(values)} observations that are fitted, found one: "
            "leave out the factors that are so rare."
        )


def _gaps(table: pd.DataFrame, unit: pd.Series) -> Gaps:
    ordered = np.sort(
        np.vstack([table.to_numpy(), np.zeros((1, table.shape[1]))]), axis=0
    )  # one dimension: second is 0
    each = pd.Series((ordered[-1] - ordered[-2]) / unit.to_numpy(), index=table.columns)
    return Gaps(float(each.mean()), each, table)


def _bins(values: np.ndarray) -> Int[np.ndarray, "obs"]:
    low, high = values.min(), values.max()
    if high <= low:
        return np.zeros(len(values), dtype=np.int64)
    return np.minimum((BINS * ((values - low) / (high - low))).astype(np.int64), BINS - 1)


def _information(a: Int[np.ndarray, "obs"], b: Int[np.ndarray, "obs"]) -> float:
    """I(a; b) of two codes, in nats."""
    levels = int(b.max()) + 1
    joint = np.bincount(a * levels + b, minlength=(int(a.max()) + 1) * levels).reshape(-1, levels) / len(a)
    apart = joint.sum(1, keepdims=True) * joint.sum(0, keepdims=True)
    here = joint > 0
    return float((joint[here] * np.log(joint[here] / apart[here])).sum())


def _split(size: int, seed: int) -> tuple[Int[np.ndarray, "train"], Int[np.ndarray, "test"]]:
    rows = np.random.default_rng(seed).permutation(size)[:MOST]
    if len(rows) < 3:
        raise InputError(f"expected at least 3 observations, found {len(rows)}: two thirds fit, one third scores.")
    cut = 2 * len(rows) // 3
    return rows[:cut], rows[cut:]


def _squared_correlation(a: np.ndarray, b: np.ndarray) -> float:
    a, b = a - a.mean(), b - b.mean()
    whole = float((a @ a) * (b @ b))
    return float(a @ b) ** 2 / whole if float(a @ a) / len(a) > 1e-12 and whole > 0 else 0.0


def _accuracy(x: np.ndarray, v: np.ndarray, split: tuple[np.ndarray, np.ndarray], seed: int) -> float:
    from sklearn.svm import LinearSVC

    learner = LinearSVC(C=PENALTY, class_weight="balanced", dual=False, random_state=seed, max_iter=10_000)
    return float(learner.fit(x[split[0]], v[split[0]]).score(x[split[1]], v[split[1]]))
