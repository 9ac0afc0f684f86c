"""Does the likelihood describe the data: randomised PIT, zeros, variance against mean.

A distribution is calibrated where P(X <= x) is uniform over the data. For counts, which jump, x is given a random place
within its jump; choose the entries by feature or by expected mean, never by what was observed.

Source: Czado, Gneiting and Held 2009, doi:10.1111/j.1541-0420.2009.01191.x.
"""

import numpy as np
from jaxtyping import Float

from biovae.diagnostics.verdict import Line, State, below

UNEVEN = (0.05, 0.2)  # largest distance of the distribution of PIT from uniform
CHANCE = 1.63  # / sqrt(n): the 99 % point of that distance under the truth (Kolmogorov)
ZEROS = (0.05, 0.15)  # of observations, root mean square over features
SPREAD = (2.0, 5.0)  # factor between observed and expected variance


def pit(
    lower: Float[np.ndarray, "entries"], upper: Float[np.ndarray, "entries"], seed: int = 0
) -> Float[np.ndarray, "entries"]:
    """lower + u (upper - lower), u uniform: the randomised probability integral transform.

    Args:
        lower: P(X < x): P(X <= x - 1) for counts and P(X <= x) for real values.
        upper: P(X <= x).
        seed: Of u.
    """
    lower, upper = (np.asarray(v, dtype=np.float64).ravel() for v in (lower, upper))
    return lower + np.random.default_rng(seed).random(len(upper)) * (upper - lower)


def uniformity(values: Float[np.ndarray, "entries"]) -> Line:
    """The largest distance between the distribution of PIT values and the uniform one, between 0 and 1.

    A distance and no p-value: with a million entries the smallest flaw is significant. Look from 0.05 on, broken from
    0.2 on, both plus what chance allows.
    """
    values = np.sort(np.asarray(values, dtype=np.float64))
    count = len(values)
    steps = np.arange(count + 1) / max(count, 1)
    distance = float(np.maximum(steps[1:] - values, values - steps[:-1]).max(initial=0)) if count else float("nan")
    chance = CHANCE / np.sqrt(max(count, 1))
    state = below(distance, UNEVEN[0] + chance, UNEVEN[1] + chance)
    advice = "Values fall where the likelihood expects them."
    if state is not State.OK:
        advice = f"Values do not fall where the likelihood expects them ({_misfit(values)}): "
        advice += "try another likelihood or dispersion."
    return Line("calibration (PIT)", distance, f"below {UNEVEN[0] + chance:.2g} from uniform", state, advice)


def _misfit(values: Float[np.ndarray, "entries"]) -> str:
    """What the histogram of PIT would show: a bowl, a hump, or a slope."""
    tails = np.array([(values < 0.1).mean(), (values > 0.9).mean()]) if len(values) else np.zeros(2)
    if (tails > 0.12).all():
        return "they spread wider than it does"
    if (tails < 0.08).all():
        return "they spread less than it does"
    return "they lie higher" if tails[1] > tails[0] else "they lie lower"


def zero_fraction(observed: Float[np.ndarray, "features"], expected: Float[np.ndarray, "features"]) -> Line:
    """Root mean square difference of observed and expected fractions of zeros over features.

    Look from 5 points on, which is what the eye sees in the plot; broken from 15 on.
    """
    difference = np.asarray(observed, dtype=np.float64) - np.asarray(expected, dtype=np.float64)
    error = float(np.sqrt(np.mean(difference**2))) if len(difference) else 0.0
    state = below(error, *ZEROS)
    advice = "The model expects as many zeros as there are."
    if state is not State.OK:
        advice = "There are fewer zeros than expected: a likelihood without zero inflation may fit better."
        if difference.mean() > 0:
            advice = (
                "There are more zeros than expected: a negative binomial or zero-inflated likelihood may fit better."
            )
    return Line("zeros", error, f"below {ZEROS[0]} (fraction)", state, advice)


def mean_variance(
    mean: Float[np.ndarray, "features"],
    observed: Float[np.ndarray, "features"],
    expected: Float[np.ndarray, "features"],
) -> Line:
    """The median factor, above 1, between observed and expected variance over features that vary.

    The expected variance of a feature is the mean of its variances plus the variance of its means. Only the half of the
    features where it is larger counts: the variance of rare counts is a matter of luck. Luck alone gives 1.3 for counts
    of 400 observations. Look from a factor of 2 on, broken from 5 on.

    Args:
        mean: Observed, which tells over- from under-dispersion in the advice.
        observed: Variances in the data.
        expected: Variances under the model.
    """
    mean, observed, expected = (np.asarray(v, dtype=np.float64) for v in (mean, observed, expected))
    varies = (observed > 0) & (expected > 0)
    normal = f"below {SPREAD[0]:g} (factor)"
    if not varies.any():
        state = State.LOOK if np.isfinite(observed + expected).all() else State.BROKEN
        return Line("variance", float("nan"), normal, state, "No feature varies, in the data or under the model.")
    keep = varies & (expected >= np.median(expected[varies]))
    logs = np.log(observed[keep] / expected[keep])
    factor = float(np.exp(np.median(np.abs(logs))))
    state = below(factor, *SPREAD)
    advice = "Features vary as much as the model expects."
    if state is not State.OK:
        advice = (
            "Features vary less than the model expects: a few outlying observations may have pulled up dispersions."
        )
        if np.median(logs) > 0:
            poisson = np.median(expected[keep] / np.maximum(mean[keep], 1e-12)) < 1.1
            advice = f"Features vary more than the model expects{' beyond Poisson' if poisson else ''}: "
            advice += "use a likelihood with a dispersion of its own, or train longer."
    return Line("variance", factor, normal, state, advice)
