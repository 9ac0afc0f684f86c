"""Many noisy effects, most of them nothing: what each is, given all of them.

    b    estimate of an effect          (effects,)    b ~ N(beta, s**2)
    s    its standard error             (effects,)
    w    shares of the prior            (components,) beta ~ sum_k w_k N(mu_k, sigma_k**2), mu_0 = sigma_0 = 0

The shares are learned from all effects together, so that the posterior knows how rare changes are. Estimates alone do
not: among 2,000 effects of zero, 100 lie beyond two standard errors.
"""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float
from scipy.special import ndtr

from biovae.errors import InputError

AROUND_ZERO = np.r_[0, 2.0 ** np.arange(-4, 4)]  # sigma_k: from nothing to an eightfold range of log2 fold changes
AWAY = 2.0 ** np.arange(-2, 3.5, 0.5)  # |mu_k|: effects that are all of about one size, as they may well be
SCALES = np.r_[AROUND_ZERO, AWAY / 4, AWAY / 4]
CENTRES = np.r_[np.zeros(len(AROUND_ZERO)), AWAY, -AWAY]
NULL_BIAS = 10.0  # pseudo-effects of exactly zero: where the data do not say, nothing has changed
STEPS, SETTLED = 500, 1e-5
PRUNED, VANISHED = 20, 1e-6  # how often components are looked through, and what share is given up
NEGLIGIBLE = 1e-4  # a share below this is left out of posteriors
HALVINGS = 22  # of an interval of a dozen at most: to a hundred-thousandth


@dataclass(frozen=True)
class Shrunk:
    """The posterior of each effect, all (effects,).

    Attributes:
        mean: Expected effect.
        lower: End of the central credible interval.
        upper: The other end.
        beyond: P(|beta| > delta).
        share: Prior shares of the components, (components,).
    """

    mean: Float[np.ndarray, "effects"]
    lower: Float[np.ndarray, "effects"]
    upper: Float[np.ndarray, "effects"]
    beyond: Float[np.ndarray, "effects"]
    share: Float[np.ndarray, "components"]


def shrink(
    estimate: Float[np.ndarray, "effects"],
    error: Float[np.ndarray, "effects"],
    *,
    delta: float = 0.0,
    coverage: float = 0.95,
) -> Shrunk:
    """P(beta | b) is proportional to N(b; beta, s**2) sum_k w_k N(beta; mu_k, sigma_k**2), w by maximum likelihood.

    Args:
        estimate: b.
        error: s, above 0.
        delta: An effect within +-delta counts as none.
        coverage: Of the credible interval.

    Raises:
        InputError: An estimate is not finite, or an error not above 0.

    Source: Stephens 2017, doi:10.1093/biostatistics/kxw041 (adaptive shrinkage).
    """
    b, s = (np.asarray(v, dtype=np.float64).ravel() for v in (estimate, error))
    wrong = int((~np.isfinite(b) | ~np.isfinite(s) | (s <= 0)).sum()) if b.shape == s.shape else len(b)
    if wrong:
        raise InputError(
            f"expected finite estimates with errors above 0, found {wrong} of {len(b)} without: leave them out."
        )
    if not len(b):
        return Shrunk(b, b, b, b, np.eye(len(SCALES))[0])
    spread = np.sqrt(s[:, None] ** 2 + SCALES**2)
    log_likelihood = -0.5 * np.square((b[:, None] - CENTRES) / spread) - np.log(spread)
    likelihood = np.exp(log_likelihood - log_likelihood.max(1, keepdims=True))
    share = _shares(likelihood)
    kept = share > NEGLIGIBLE
    weight = likelihood[:, kept] * share[kept]
    weight /= weight.sum(1, keepdims=True)
    keep = np.square(SCALES[kept] / spread[:, kept])  # how much of an estimate a component believes
    means, deviations = CENTRES[kept] + keep * (b[:, None] - CENTRES[kept]), np.sqrt(keep) * s[:, None]
    mixture = (weight, means, deviations)
    tail = (1 - coverage) / 2
    return Shrunk(
        mean=(weight * means).sum(1),
        lower=_quantile(mixture, tail),
        upper=_quantile(mixture, 1 - tail),
        beyond=_below(mixture, np.full(len(b), -delta), strictly=True)
        + _below((weight, -means, deviations), np.full(len(b), -delta), strictly=True),
        share=share,
    )


def expected_fdr(probability: Float[np.ndarray, "effects"]) -> Float[np.ndarray, "effects"]:
    """The expected share of false calls among an effect and all that are more probable: mean of 1 - P over them.

    >>> expected_fdr(np.array([0.5, 1.0, 0.9])).round(3).tolist()
    [0.2, 0.0, 0.05]

    Source: Newton et al. 2004, doi:10.1093/biostatistics/5.2.155.
    """
    order = np.argsort(-probability, kind="stable")
    found = np.empty(len(order))
    found[order] = np.cumsum(1 - probability[order]) / np.arange(1, len(order) + 1)
    return found


def _shares(likelihood: Float[np.ndarray, "effects components"]) -> Float[np.ndarray, "components"]:
    """Maximise sum_j log sum_k w_k L_jk + NULL_BIAS log w_0, by expectation and maximisation."""
    share, alive = np.full(likelihood.shape[1], 1 / likelihood.shape[1]), np.arange(likelihood.shape[1])
    for step in range(STEPS):
        if step % PRUNED == 0:
            alive = np.flatnonzero((share > VANISHED) | (np.arange(len(share)) == 0))
            part = np.ascontiguousarray(likelihood[:, alive])
        counted = share[alive] * (part.T @ (1 / (part @ share[alive])))
        counted[0] += NULL_BIAS
        update = counted / counted.sum()
        change = np.abs(update - share[alive]).max()
        share[alive] = update
        if change < SETTLED:
            break
    share[np.setdiff1d(np.arange(len(share)), alive)] = 0
    return share


Mixture = tuple[np.ndarray, np.ndarray, np.ndarray]  # weight, mean, deviation: (effects, components)


def _below(mixture: Mixture, at: Float[np.ndarray, "effects"], *, strictly: bool = False) -> np.ndarray:
    """P(beta <= at), or P(beta < at): they differ where a component is a point at zero."""
    weight, mean, deviation = mixture
    distance = at[:, None] - mean
    point = distance > 0 if strictly else distance >= 0
    spread = np.where(deviation > 0, deviation, 1)
    return (weight * np.where(deviation > 0, ndtr(distance / spread), point)).sum(1)


def _quantile(mixture: Mixture, level: float) -> np.ndarray:
    """By bisection: the smallest value with at least this share below it."""
    weight, mean, deviation = mixture
    low, high = (mean - 8 * deviation).min(1) - 1e-9, (mean + 8 * deviation).max(1) + 1e-9
    for _ in range(HALVINGS):
        middle = (low + high) / 2
        under = _below(mixture, middle) < level
        low, high = np.where(under, middle, low), np.where(under, high, middle)
    return high
