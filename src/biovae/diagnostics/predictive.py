"""Do data that the model replicates look like the data? Coverage, totals, detection, correlation.

    replicate   a data set drawn in place of the observed one, observation by observation
    draws       how many of them

A p-value says whether chance explains a difference, and with thousands of observations it never does: the lines of the
verdict go by the size of a difference, and p-values stand beside them in `against_replicates`.
"""

from dataclasses import replace

import numpy as np
import pandas as pd
from jaxtyping import Float
from scipy import stats

from biovae.diagnostics.calibration import uniformity
from biovae.diagnostics.verdict import Line, State, below

OFF = (0.05, 0.15)  # distance of the mean coverage from its level
MISSED = (0.5, 0.8)  # share of what features have in common beyond chance
FAINT = 2.0  # features have something in common where their correlations are so many times those of chance


def coverage(covered: Float[np.ndarray, "features"], level: float) -> Line:
    """The mean share of observations in the central interval that the model gives their value; it should be `level`.

    Look from 5 points off, broken from 15 points off.

    Args:
        covered: Of features that are not nearly always zero.
        level: Probability of the interval.
    """
    value = float(np.mean(covered)) if len(covered) else float("nan")
    state = below(abs(value - level), *OFF)
    advice = "Intervals hold what they say."
    if state is not State.OK:
        width, spread = ("wide", "less") if value > level else ("narrow", "more")
        advice = f"Intervals are too {width}: values spread {spread} than the model expects; "
        advice += "try another likelihood or dispersion."
    return Line(f"coverage of {level:.0%} intervals", value, f"{level - OFF[0]:g} to {level + OFF[0]:g}", state, advice)


def ranks(
    observed: Float[np.ndarray, "obs"], replicated: Float[np.ndarray, "draws obs"], seed: int = 0
) -> Float[np.ndarray, "obs"]:
    """The place of each value among its replicates, between 0 and 1, ties at random: uniform under the model."""
    rng = np.random.default_rng(seed)
    less, same = (replicated < observed).sum(0), (replicated == observed).sum(0)
    return (less + rng.random(len(observed)) * (same + 1)) / (len(replicated) + 1)


def detection(observed: Float[np.ndarray, "obs"], replicated: Float[np.ndarray, "draws obs"], seed: int = 0) -> Line:
    """Whether as many features are detected in observations as in replicates: distance of ranks from uniform."""
    line = uniformity(ranks(observed, replicated, seed))
    advice = "Observations show as many features as the model expects."
    if line.state is not State.OK:
        more = observed.mean() > replicated.mean()
        advice = f"Observations show {'more' if more else 'fewer'} features than the model expects: "
        advice += "dispersions may be off, or the depth of observations is not what the model was told."
    return replace(line, name="features detected", advice=advice)


def totals(
    observed: Float[np.ndarray, "obs"], replicated: Float[np.ndarray, "draws obs"], *, given: bool, seed: int = 0
) -> Line:
    """Whether totals lie where those of replicates do.

    Args:
        observed: Total of each observation.
        replicated: Of its replicates.
        given: Whether the model was told the total: it then lies in the middle of its replicates whatever the model.
        seed: Of ties.
    """
    if given:
        ratio = float(replicated.mean() / max(observed.mean(), 1e-12))
        state = below(abs(np.log(max(ratio, 1e-12))), np.log(1.1), np.log(1.5))
        advice = "The total is given to the model, so that only the mean of replicates can be compared with it."
        return Line("total of replicates", ratio, "0.9 to 1.1 (of observed)", state, advice)
    line = uniformity(ranks(observed, replicated, seed))
    advice = "Totals are as large as the model expects, and vary as much."
    if line.state is not State.OK:
        advice = "Totals are not what the model expects: look at its exposure (size_factor, or a latent library)."
    return replace(line, name="totals", advice=advice)


def correlations(
    observed: Float[np.ndarray, "features features"], replicated: Float[np.ndarray, "draws features features"]
) -> Line:
    """The share of what features have in common that replicates lack.

    missed = (|a - b|^2 - noise) / (|a|^2 - noise) over pairs of features; a the observed correlations, b the mean of
    the replicates', noise their sampling variance in a data set of this size, as it is between replicates.
    """
    if len(observed) < 2 or len(replicated) < 2:
        advice = "Fewer than two features or replicates: nothing to compare."
        return Line("correlations missed", "none to compare", f"below {MISSED[0]:g} (share)", State.OK, advice)
    a, b = _pairs(observed[None])[0], _pairs(replicated)
    draws, noise = len(b), float(b.var(0, ddof=1).mean())
    lacking = float(np.mean((a - b.mean(0)) ** 2)) - noise * (1 + 1 / draws)
    common = float(np.mean(a**2)) - noise
    normal = f"below {MISSED[0]:g} (share)"
    if common < (FAINT**2 - 1) * noise:
        advice = "Features have hardly more in common than chance gives them: there is little that could be missed."
        return Line("correlations missed", "hardly any to miss", normal, State.OK, advice)
    value = max(lacking, 0.0) / common
    state = below(value, *MISSED)
    advice = "Features vary together as they do under the model."
    if state is not State.OK:
        advice = "Features vary together in ways that z does not hold: more latent dimensions, a longer training, or "
        advice += "something that is not biology (cell cycle, stress, ambient molecules)."
    return Line("correlations missed", value, normal, state, advice)


def against_replicates(values: dict[str, tuple[float, Float[np.ndarray, "draws"]]]) -> pd.DataFrame:
    """Numbers that describe a data set, beside the same of its replicates.

    Args:
        values: By name the number of the observed data, and those of the replicates.

    Returns:
        `statistic`, `observed`, `expected`, `lower`, `upper` (95 % of further replicates) and `p_value`, two-sided, by
        Student's t with draws - 1 degrees of freedom: means over many observations are nearly normal. It says whether
        chance explains the difference, and not whether the difference matters.
    """
    rows = []
    for name, (observed, drawn) in values.items():
        drawn = np.asarray(drawn, dtype=np.float64)
        freedom = max(len(drawn) - 1, 1)
        spread = max(float(drawn.std(ddof=1)) * np.sqrt(1 + 1 / len(drawn)), 1e-12) if len(drawn) > 1 else np.nan
        half = stats.t.ppf(0.975, freedom) * spread
        p = 2 * stats.t.sf(abs(observed - drawn.mean()) / spread, freedom)
        rows.append((name, observed, drawn.mean(), drawn.mean() - half, drawn.mean() + half, p))
    return pd.DataFrame(rows, columns=["statistic", "observed", "expected", "lower", "upper", "p_value"])


def _pairs(matrices: Float[np.ndarray, "draws features features"]) -> Float[np.ndarray, "draws pairs"]:
    """The entries above the diagonal."""
    row, column = np.triu_indices(matrices.shape[1], k=1)
    return matrices[:, row, column]
