"""Claims made once by every fit: which of them hold in all, and what both kinds of doubt leave of their sizes."""

from collections.abc import Sequence
from itertools import combinations

import numpy as np
import pandas as pd
from scipy.stats import norm, spearmanr

from biovae.analysis.groups.differential import COVERAGE, Differential
from biovae.analysis.pooling import pooled
from biovae.analysis.trajectories.trajectory import Trajectory
from biovae.errors import InputError

KEY = ["group", "reference", "feature"]


def calls_held(found: Sequence[Differential], fdr: float = 0.05) -> pd.DataFrame:
    """Differences between groups over several fits.

    Args:
        found: The same comparisons, made with each fit.
        fdr: Expected share of false calls.

    Returns:
        A row per comparison and feature, in the order of the first fit: `called`, in how many fits; `first`, whether in
        the first; the mean `log2_fold_change`, its standard deviation `within` a fit and `between` fits, and the 95 %
        interval of both, `lower` and `upper`; `probability`, the lowest of all fits. NaN where a feature is not tested.

    Raises:
        InputError: There are not two results, or they compare different things.
    """
    frames = [one.frame.set_index(KEY) for one in found]
    if len(frames) < 2 or any(len(f) != len(frames[0]) or not f.index.isin(frames[0].index).all() for f in frames):
        raise InputError("expected the same comparisons from two fits or more, found others: compare the same groups.")
    frames = [frame.loc[frames[0].index] for frame in frames]
    change, low, high, probability, expected = (
        np.array([frame[name].to_numpy(dtype=np.float64) for frame in frames])
        for name in ("log2_fold_change", "lower", "upper", "probability", "expected_fdr")
    )
    both = pooled(change, ((high - low) / (2 * norm.ppf((1 + COVERAGE) / 2))) ** 2, COVERAGE)
    called = expected <= fdr  # no call where it is NaN
    return pd.DataFrame(
        {
            "called": called.sum(0),
            "first": called[0],
            "log2_fold_change": both.mean,
            "within": both.within,
            "between": both.between,
            "lower": both.lower,
            "upper": both.upper,
            "probability": probability.min(0),
        },
        index=frames[0].index,
    ).reset_index()


def order_held(found: Sequence[Trajectory]) -> tuple[pd.DataFrame, float]:
    """Pseudotime over several fits, each brought to the distribution of the first, so that only the order counts.

    Args:
        found: Trajectories from one root, of the same observations.

    Returns:
        A row per observation: the mean `pseudotime`, its standard deviation `within` a fit (0 without draws) and
        `between` fits, and the 95 % interval of both, `lower` and `upper`; and the lowest Spearman correlation of two
        fits.

    Raises:
        InputError: There are not two, or they differ in their observations.
    """
    if len(found) < 2 or len({len(one.pseudotime) for one in found}) != 1:
        raise InputError(f"expected two trajectories or more of the same observations, found {len(found)} or others.")
    values = np.sort(found[0].pseudotime)
    order = np.array([np.argsort(np.argsort(one.pseudotime, kind="stable")) for one in found])
    deviation = np.nan_to_num([one.deviation for one in found])
    both = pooled(values[order], deviation**2)
    rank = min(float(spearmanr(a.pseudotime, b.pseudotime).statistic) for a, b in combinations(found, 2))
    told = {"pseudotime": both.mean, "within": both.within, "between": both.between}
    return pd.DataFrame(told | {"lower": both.lower, "upper": both.upper}), rank
