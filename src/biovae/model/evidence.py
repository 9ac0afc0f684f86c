"""What a model and data say about each other: everything that the verdict, the report and `metrics.json` are made of.

Computed once, on at most `MOST` observations where the cost grows with features, in streams.
"""

from dataclasses import dataclass
from functools import cached_property

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

from biovae.analysis import leiden, log_normalise, pca
from biovae.batch import Observations, dense, plain
from biovae.data import Prepared
from biovae.model.fitting import Fitted
from biovae.model.inference import (
    ELEMENTS,
    Moments,
    Scores,
    bounds,
    everything,
    minibatches,
    posterior_moments,
    shuffled_reconstruction,
)
from biovae.model.recipe import Architecture
from biovae.noise import Noise
from biovae.schema import Support

MOST = 4000  # observations that are scored: a standard error below a fiftieth of the spread
CALIBRATED = 1000  # observations whose every feature is compared with its distribution
PIT_FEATURES = 400
RARE, ENOUGH = 0.9, 50
LEVELS = (0.5, 0.9)  # of the central intervals whose coverage is counted
SAMPLES = 25


@dataclass(frozen=True)
class Calibration:
    """Data against the distributions that the model gives them, for one modality.

    Attributes:
        lower: P(X < x), upper: P(X <= x), of a sample of entries.
        zero_observed: Fraction of zeros of each feature; None where zeros mean nothing.
        zero_expected: The same under the model.
        mean: Of each feature.
        variance_observed: Of each feature.
        variance_expected: Mean of the variances plus variance of the means.
        coverage: Share of observations within the central 50 % and 90 % of their distribution; of a count that
            straddles an end, the share of its probability that lies within.
        coverage_error: Standard error of that.
    """

    lower: Float[np.ndarray, "entries"]
    upper: Float[np.ndarray, "entries"]
    zero_observed: Float[np.ndarray, "features"] | None
    zero_expected: Float[np.ndarray, "features"] | None
    mean: Float[np.ndarray, "features"]
    variance_observed: Float[np.ndarray, "features"]
    variance_expected: Float[np.ndarray, "features"]
    coverage: Float[np.ndarray, "levels features"]
    coverage_error: Float[np.ndarray, "levels features"]


class Evidence:
    """A model and data it is judged on; each part is computed when it is first asked for.

    Args:
        recipe: The model.
        fitted: What its fit left behind.
        prepared: Data, mapped onto the model.
        rows: Those of them that are scored, held-out ones if there are any.
        seed: Of every draw.
    """

    def __init__(
        self,
        recipe: Architecture,
        fitted: Fitted,
        prepared: Prepared,
        rows: Int[np.ndarray, "rows"] | None = None,
        seed: int = 0,
    ) -> None:
        self.recipe, self.fitted, self.prepared, self.seed = recipe, fitted, prepared, seed
        self.observations: Observations = prepared.observations
        everything = np.arange(len(self.observations)) if rows is None else np.asarray(rows)
        chosen = Noise(seed).numpy().permutation(everything)[:MOST]
        self.rows: Tensor = torch.from_numpy(np.sort(chosen))

    @cached_property
    def moments(self) -> Moments:
        """q(z | x) of all observations."""
        return posterior_moments(self.fitted.network, self.observations, everything(self.observations))

    @property
    def here(self) -> Int[np.ndarray, "rows"]:
        """The scored rows, as an index into arrays of all observations."""
        return self.rows.numpy()

    @cached_property
    def scores(self) -> Scores:
        """Bounds of the scored rows."""
        return bounds(self.fitted.network, self.observations, self.rows, Noise(self.seed), SAMPLES)

    @cached_property
    def null(self) -> Float[np.ndarray, "rows"]:
        """log p(x | c) without z of the scored rows."""
        return self.fitted.null.score(self.observations, self.rows)

    @cached_property
    def shuffled(self) -> Float[np.ndarray, "rows"]:
        """log p(x | z of another observation) of the scored rows."""
        return shuffled_reconstruction(self.fitted.network, self.observations, self.rows, Noise(self.seed))

    @cached_property
    def prior_sample(self) -> Float[np.ndarray, "draws latent"]:
        """2,000 draws from the prior."""
        network = self.fitted.network
        with torch.no_grad():
            return network.prior.sample(Noise(self.seed), 2000, network.pseudo).cpu().numpy()

    @cached_property
    def clusters(self) -> np.ndarray:
        """Communities of the latent neighbour graph of all observations."""
        return leiden(self.moments.mean, seed=self.seed)

    def linear(self, rows: Int[np.ndarray, "rows"]) -> Float[np.ndarray, "rows components"] | None:
        """PCA of depth-normalised counts of the first modality among these rows, which carry it.

        None for values without depth, and where there is too little to take components of.
        """
        here = self.observations.batch(torch.from_numpy(rows))
        values, exposure = plain(here.x[0]), here.exposure[0]
        if exposure is None or min(values.shape) < 2:
            return None
        return pca(log_normalise(values, exposure[:, 0].numpy()), self.recipe.latent, self.seed).scores

    @cached_property
    def calibration(self) -> Calibration:
        """The first modality's values against their distributions."""
        return calibrate(self, m=0)


@torch.no_grad()
def calibrate(evidence: Evidence, m: int, other: Observations | None = None) -> Calibration:
    """Compare each feature's values with the mixture of distributions that the observations' posteriors give.

    Args:
        evidence: The model, and what posteriors come from.
        m: The modality.
        other: Values of the same observations to compare instead of those that posteriors come from (thinning).
    """
    network, observations = evidence.fitted.network.eval(), evidence.observations
    other = observations if other is None else other
    noise = Noise(evidence.seed)
    rows = calibrated_rows(evidence, m)
    features = observations.x[m].shape[1]
    counts = evidence.fitted.schema.modalities[m].support is not Support.REALS
    sums, covered = torch.zeros(6, features, dtype=torch.float64), torch.zeros(2, 2, features, dtype=torch.float64)
    lower, upper, some = [], [], torch.arange(0)
    size = max(1, min(256, ELEMENTS // (8 * features)))  # a cdf holds that many arrays, in double precision
    pairs = zip(minibatches(observations, rows, size), minibatches(other, rows, size), strict=True)
    for i, (batch, compared) in enumerate(pairs):
        z = network.encode(batch).z.sample(noise.at(1, i), 1)[0]
        p = network.decode(z, batch, m)
        x = dense(compared.x[m])
        zero = p.log_prob_each(torch.zeros_like(x)).exp() if counts else torch.zeros_like(x)
        if i == 0:
            some = _informative(zero, noise)
        mean = p.mean
        parts = (x, x.square(), mean, mean.square(), p.variance.expand_as(x), zero)
        sums += torch.stack([part.double().sum(0) for part in parts])
        high = p.cdf(x).double()
        low = p.cdf(x - 1).double() if counts else high
        covered += _covered(low, high)
        upper.append(high[:, some].flatten())
        lower.append(low[:, some].flatten())
    sums = sums / max(len(rows), 1)
    x, xx, mean, mean2, variance, zero = sums.numpy()
    observed_zero = _zeros(other, rows, m) if counts else None
    coverage, square = (covered / max(len(rows), 1)).numpy()
    return Calibration(
        torch.cat(lower).numpy(),
        torch.cat(upper).numpy(),
        observed_zero,
        zero if counts else None,
        x,
        np.maximum(xx - x**2, 0),
        np.maximum(variance + mean2 - mean**2, 0),
        coverage,
        np.sqrt(np.maximum(square - coverage**2, 0) / max(len(rows) - 1, 1)),
    )


def _informative(zero: Tensor, noise: Noise) -> Tensor:
    """Features whose distribution can be tested: expected, not found, to be zero in under nine of ten observations."""
    expected = zero.mean(0)
    likely = torch.nonzero(expected < RARE)[:, 0]
    if len(likely) < ENOUGH:
        likely = expected.argsort()[:ENOUGH]
    return likely[noise.permutation(len(likely))[:PIT_FEATURES]]


def calibrated_rows(evidence: Evidence, m: int) -> Int[Tensor, "rows"]:
    """The observations whose every feature is looked at: at most 1,000 that carry the modality, evenly spaced."""
    rows = evidence.observations.carriers(m, evidence.rows)
    if len(rows) <= CALIBRATED:
        return rows
    return rows[torch.linspace(0, len(rows) - 1, CALIBRATED).long()]


def _covered(low: Tensor, high: Tensor) -> Float[Tensor, "2 levels features"]:
    """Sums over observations of what of [P(X < x), P(X <= x)] lies within each central interval, and of its square.

    Of one feature under its true distribution the expectation is the level, whatever the size of its jumps.
    """
    jump = high - low
    parts = []
    for level in LEVELS:
        a, b = (1 - level) / 2, (1 + level) / 2
        inside = (high.clamp(a, b) - low.clamp(a, b)) / torch.where(jump > 0, jump, 1)
        parts.append(torch.where(jump > 0, inside, ((high >= a) & (high <= b)).to(high)))
    each = torch.stack(parts)
    return torch.stack([each.sum(1), each.square().sum(1)])


def _zeros(observations: Observations, rows: Tensor, m: int) -> Float[np.ndarray, "features"]:
    """Fraction of zeros of each feature among some rows."""
    x = observations.batch(rows).x[m]
    if isinstance(x, Tensor):
        return (x == 0).double().mean(0).numpy()
    seen = torch.bincount(x.column[x.value != 0], minlength=x.shape[1])
    return 1 - seen.numpy() / max(len(rows), 1)
