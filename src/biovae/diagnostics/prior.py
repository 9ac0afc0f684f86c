"""Does the whole of the data fill the prior that samples are drawn from?

    mean, variance  of q(z | x), (obs, latent)
    draws           from the prior, (draws, latent)

The aggregate posterior q(z) is the mixture of all q(z | x).
"""

import numpy as np
from jaxtyping import Float
from scipy.spatial import cKDTree

from biovae.diagnostics.verdict import Line, State, below, worst

SHIFT = (0.75, 2.0)  # standard deviations of the prior
RATIO = (3.0, 25.0)  # of variances, either way; unused dimensions have a ratio of 1
HOLLOW = 0.5  # of the prior's draws: then most samples are of no state that was seen
FAR = 0.99  # quantile of the data's own distances
LARGEST = 10_000  # draws


def aggregate(
    mean: Float[np.ndarray, "obs latent"],
    variance: Float[np.ndarray, "obs latent"],
    draws: Float[np.ndarray, "draws latent"],
    seed: int = 0,
) -> Line:
    """The largest mismatch of q(z) and the prior over dimensions: the ratio of their variances, either way.

    The variance of q(z) is the mean of the variances plus the variance of the means. Look from a ratio of 3 or a shift
    of 0.75 standard deviations on, broken from 25 or 2 on: there the map uses a part of the space that samples do not
    come from. The advice names KL(q(z) || p), estimated from draws of both.
    """
    mean, variance, draws = (np.asarray(v, dtype=np.float64) for v in (mean, variance, draws))
    tiny = np.finfo(np.float64).tiny
    scale = np.maximum(draws.var(0), tiny)
    ratio = np.maximum(mean.var(0) + variance.mean(0), tiny) / scale
    shift = np.abs(mean.mean(0) - draws.mean(0)) / np.sqrt(scale)
    either = np.maximum(ratio, 1 / ratio)
    wide, off = below(float(either.max()), *RATIO), below(float(shift.max()), *SHIFT)
    state = worst([wide, off])
    normal = f"below {RATIO[0]:g} (ratio of variances)"
    apart = divergence(draw(mean, variance, seed)[: len(draws)], draws)
    advice = f"All posteriors together lie about {apart:.2g} nats from the prior."
    if state is not State.OK:
        at = int((either if wide is state else shift).argmax())
        advice = (
            f"In dimension {at} the data have {ratio[at]:.2g} times the prior's variance and lie {shift[at]:.2g} sd "
            "off it: new samples would not resemble the data; train longer, or use a mixture, VampPrior or flow prior."
        )
    return Line("aggregate posterior", float(either.max()), normal, state, advice)


def draw(
    mean: Float[np.ndarray, "obs latent"], variance: Float[np.ndarray, "obs latent"], seed: int = 0
) -> Float[np.ndarray, "draws latent"]:
    """One z from the posterior of each observation, in random order, 10,000 at most: draws of q(z)."""
    rng = np.random.default_rng(seed)
    rows = rng.permutation(len(mean))[:LARGEST]
    noise = rng.standard_normal((len(rows), np.shape(mean)[1]))
    return np.asarray(mean, dtype=np.float64)[rows] + np.sqrt(np.asarray(variance, dtype=np.float64)[rows]) * noise


def divergence(p: Float[np.ndarray, "draws latent"], q: Float[np.ndarray, "others latent"]) -> float:
    """KL of the distribution behind one set of draws from that behind another, in nats, by nearest neighbours.

    latent mean(log(nu / rho)) + log(others / (draws - 1)), rho the distance to the nearest draw of the same set, nu of
    the other one. Its bias grows with the dimension.

    Source: Wang, Kulkarni and Verdu 2009, doi:10.1109/TIT.2009.2016060.
    """
    if len(p) < 2:
        return float("nan")
    tiny = np.finfo(np.float64).tiny
    own = np.maximum(cKDTree(p).query(p, k=2)[0][:, 1], tiny)
    other = np.maximum(cKDTree(q).query(p)[0], tiny)
    return max(0.0, float(p.shape[1] * np.log(other / own).mean() + np.log(len(q) / (len(p) - 1))))


def off_prior(
    mean: Float[np.ndarray, "obs latent"],
    variance: Float[np.ndarray, "obs latent"],
    draws: Float[np.ndarray, "draws latent"],
    seed: int = 0,
) -> Line:
    """The share of the prior's draws that lie where no data do; look from one half on.

    A draw is off the data where its nearest draw from q(z) is farther than 99 % of draws from q(z) have theirs, so that
    a prior equal to q(z) gives about 1 %. Types that are well apart leave such holes, which is biology and no
    fault; but what is sampled there is nothing that was seen.
    """
    z = draw(mean, variance, seed)
    seen, others = z[::2], z[1::2]
    normal = f"below {HOLLOW:.0%} of prior draws"
    if len(others) == 0:
        advice = "One observation does not tell where data lie: judge on more."
        return Line("prior without data", float("nan"), normal, State.LOOK, advice)
    tree = cKDTree(seen)
    limit = np.quantile(tree.query(others)[0], FAR)
    share = float((tree.query(np.asarray(draws, dtype=np.float64)[: LARGEST // 2])[0] > limit).mean())
    advice = "Most samples from the prior fall where data lie."
    if share >= HOLLOW:
        advice = (
            f"{share:.0%} of samples from the prior fall where no data lie: sample around observations, or fit with a "
            "mixture, VampPrior or flow prior."
        )
    return Line("prior without data", share, normal, below(share, HOLLOW), advice)
