"""Likelihoods: p(x | h), from a decoder's features to a distribution over one modality.

    h         decoder features               (*samples, obs, hidden), or (*samples, obs, groups, hidden)
    exposure  total counts of each row       (obs, 1), in the context; None for data that have none
    x         observation                    (obs, features)

A likelihood owns its last layer, its start from the data, and the support of its values; no encoder, no loss, no
loading. To add one: write the recipe (a `Likelihood` with `kind`, `support` and `build`) and its module (`forward` and
`start`), list the recipe in `LIKELIHOODS`, add a row to PLAIN in tests/test_likelihoods.py: its tests do the rest.
"""

import math
from abc import ABC, abstractmethod
from typing import Annotated, Any, ClassVar, Literal, NamedTuple

import torch
from jaxtyping import Float
from pydantic import Field, SerializeAsAny
from torch import Tensor, nn

from biovae.batch import Context, SparseCounts
from biovae.distributions import (
    Affine,
    Bernoulli,
    Categorical,
    Composition,
    Distribution,
    Log1pNormalCounts,
    NegativeBinomial,
    Normal,
    Poisson,
    ZeroInflatedNegativeBinomial,
)
from biovae.nn import Readout
from biovae.noise import Noise
from biovae.recipe import Recipe, tagged
from biovae.schema import Support

SCALE = 1e4  # log1p of counts per 10,000, the field's habit


class Shape(NamedTuple):
    """What a likelihood stands on: the decoder's width and groups, and the data's features and covariates."""

    hidden: int
    groups: int
    features: int
    covariates: int
    levels: slice | None = None  # columns of the covariate that has a dispersion of its own
    composition: bool = True  # the mean is exposure times a share (softmax), else exposure times a rate (exp)


class LikelihoodModule(nn.Module, ABC):
    """p(x | h) of one modality."""

    @abstractmethod
    def forward(self, h: Tensor, context: Context) -> Distribution:
        """p(x | h, exposure, covariates)."""

    @abstractmethod
    def start(self, x: Any, context: Context) -> None:
        """Look at some observations before training, and begin where they are."""


class Likelihood(Recipe, ABC):
    """p(x | h), summed over features: `log_prob(x)` is one number per observation, in nats.

    Concrete recipes have a `kind`, name their `support`, and build a `LikelihoodModule`.
    """

    support: ClassVar[Support]

    @abstractmethod
    def build(self, shape: Shape, noise: Noise) -> LikelihoodModule:
        """Make the module."""


class LogMean(nn.Module):
    """log mean = log exposure + log softmax(W h + V c + b), the last layer that the count likelihoods share."""

    def __init__(self, shape: Shape, noise: Noise) -> None:
        super().__init__()
        self.readout = Readout(shape.hidden, shape.groups, shape.features, shape.covariates, noise)
        self.composition = shape.composition

    def forward(self, h: Tensor, context: Context) -> Composition:
        """See the class."""
        readout, c = self.readout, context.covariates
        logits = readout(h, c) if readout.groups else Affine(*readout.affine(h, c))
        return Composition(logits, context.depth, share=self.composition)

    @torch.no_grad()
    def start(self, x: SparseCounts, context: Context) -> None:
        """Begin at the mean frequencies, and with categorical covariates at the mean frequencies of each level."""
        log_rate = _log_rate(x, context.depth)
        self.readout.map.bias.copy_(log_rate)
        for j, level in enumerate(context.covariates.T):
            if not ((level == 0) | (level == 1)).all():
                continue  # a continuous covariate starts without effect
            counts = _sum(x._replace(value=x.value * level[x.row]))
            expected = log_rate.exp() * (context.depth[:, 0] * level).sum()
            # Ten pseudo-counts: a level with few counts says little about a feature.
            self.readout.side[j].copy_(((counts + 10) / (expected + 10)).log())


def _sum(x: SparseCounts) -> Float[Tensor, "features"]:
    return x.value.new_zeros(x.shape[1]).index_add_(0, x.column, x.value)


def _log_rate(x: SparseCounts, exposure: Tensor) -> Float[Tensor, "features"]:
    """log of each feature's counts per unit of exposure; a tenth of a count where it has none."""
    return ((_sum(x) + 0.1) / exposure.sum()).log()


class _LogR(nn.Module):
    """log r: per feature, predicted from h, or per feature and level of a covariate.

    Bounded to [-12, 12]: beyond that the density no longer changes, and a gradient only lets r wander.
    """

    def __init__(self, dispersion: str, shape: Shape, noise: Noise) -> None:
        super().__init__()
        self.base = nn.Parameter(torch.zeros(shape.features))
        self.levels = shape.levels
        predicted = dispersion == "observation"
        levels = shape.levels.stop - shape.levels.start if shape.levels else 0
        self.side = nn.Parameter(torch.zeros(levels, shape.features)) if levels else None
        self.readout = Readout(shape.hidden, shape.groups, shape.features, 0, noise) if predicted else None

    def forward(self, h: Tensor, context: Context) -> Float[Tensor, "..."]:
        log_r: Tensor = self.base if self.readout is None else self.base + self.readout(h, context.covariates)
        if self.side is not None:
            log_r = log_r + context.covariates[:, self.levels] @ self.side
        return log_r.clamp(-12, 12)

    @torch.no_grad()
    def start(self, x: SparseCounts, context: Context) -> None:
        """Begin at the moments of the data: E[x (x - 1)] - mean**2 = mean**2 / r."""
        log_rate = _log_rate(x, context.depth)
        mean_square = log_rate.exp().square() * context.depth.square().sum()
        factorial = x.value.new_zeros(x.shape[1]).index_add_(0, x.column, x.value * (x.value - 1))
        excess = (factorial - mean_square).clamp(min=1e-3 * mean_square)
        # Differences between cell types inflate the moments: what z will explain is not dispersion.
        self.base.copy_((4 * mean_square / excess).clamp(0.1, 100).log())


class PoissonCounts(Likelihood):
    """x ~ Poisson(mean), mean = exposure * softmax(W h): counts with no more spread than sampling gives them."""

    kind: Literal["poisson"] = "poisson"
    support: ClassVar[Support] = Support.COUNTS

    def build(self, shape: Shape, noise: Noise) -> LikelihoodModule:
        """See `Likelihood`."""
        return _Poisson(shape, noise)


class _Poisson(LikelihoodModule):
    def __init__(self, shape: Shape, noise: Noise) -> None:
        super().__init__()
        self.log_mean = LogMean(shape, noise)

    def forward(self, h: Tensor, context: Context) -> Distribution:
        return Poisson(self.log_mean(h, context))

    def start(self, x: SparseCounts, context: Context) -> None:
        self.log_mean.start(x, context)


class NegativeBinomialCounts(Likelihood):
    """x ~ NB(mean, variance = mean + mean**2 / r), mean = exposure * softmax(W h).

    Units: x and exposure are raw counts; the softmax is each feature's share of its observation. As the inverse
    dispersion r grows the distribution tends to the Poisson.

    Args:
        dispersion: "feature", "observation", or the name of a categorical covariate.

    Source: Lopez et al. 2018, Nature Methods 15:1053, doi:10.1038/s41592-018-0229-2.
    """

    kind: Literal["negative_binomial"] = "negative_binomial"
    support: ClassVar[Support] = Support.COUNTS
    dispersion: str = "feature"

    def build(self, shape: Shape, noise: Noise) -> LikelihoodModule:
        """See `Likelihood`."""
        return _NegativeBinomial(self.dispersion, shape, noise)


class _NegativeBinomial(LikelihoodModule):
    def __init__(self, dispersion: str, shape: Shape, noise: Noise) -> None:
        super().__init__()
        self.log_mean = LogMean(shape, noise)
        self.log_r = _LogR(dispersion, shape, noise)

    def forward(self, h: Tensor, context: Context) -> Distribution:
        return NegativeBinomial(self.log_mean(h, context), self.log_r(h, context))

    def start(self, x: SparseCounts, context: Context) -> None:
        self.log_mean.start(x, context)
        self.log_r.start(x, context)


class ZeroInflatedNegativeBinomialCounts(Likelihood):
    """x = 0 with probability sigmoid(g), else as `NegativeBinomialCounts`; g = W' h per observation and feature."""

    kind: Literal["zero_inflated_negative_binomial"] = "zero_inflated_negative_binomial"
    support: ClassVar[Support] = Support.COUNTS
    dispersion: str = "feature"

    def build(self, shape: Shape, noise: Noise) -> LikelihoodModule:
        """See `Likelihood`."""
        return _ZeroInflated(self.dispersion, shape, noise)


class _ZeroInflated(_NegativeBinomial):
    def __init__(self, dispersion: str, shape: Shape, noise: Noise) -> None:
        super().__init__(dispersion, shape, noise)
        self.gate = Readout(shape.hidden, shape.groups, shape.features, 0, noise)

    def forward(self, h: Tensor, context: Context) -> Distribution:
        gate = self.gate(h, context.covariates)
        return ZeroInflatedNegativeBinomial(self.log_mean(h, context), self.log_r(h, context), gate)

    @torch.no_grad()
    def start(self, x: SparseCounts, context: Context) -> None:
        super().start(x, context)
        self.gate.map.bias.fill_(-3)  # few extra zeros until the data ask for them


class Gaussian(Likelihood):
    """x ~ N(mean, s**2), both in the units of the data; s is learned, per feature or per observation and feature.

    Args:
        variance: "feature", or "observation" to predict it from h.
    """

    kind: Literal["gaussian"] = "gaussian"
    support: ClassVar[Support] = Support.REALS
    variance: Literal["feature", "observation"] = "feature"

    def build(self, shape: Shape, noise: Noise) -> LikelihoodModule:
        """See `Likelihood`."""
        return _Gaussian(shape, noise, predicted=self.variance == "observation", fixed=None)


class FixedGaussian(Likelihood):
    """x ~ N(mean, variance) with a variance that is given: the squared error of textbooks, in nats.

    -log p(x) = |x - mean|**2 / (2 variance) + features / 2 log(2 pi variance).

    Args:
        variance: In squared units of the data.
    """

    kind: Literal["fixed_gaussian"] = "fixed_gaussian"
    support: ClassVar[Support] = Support.REALS
    variance: float = Field(default=1.0, gt=0)

    def build(self, shape: Shape, noise: Noise) -> LikelihoodModule:
        """See `Likelihood`."""
        return _Gaussian(shape, noise, predicted=False, fixed=self.variance)


class _LogScale(nn.Module):
    """log s, per feature or predicted, relative to the spread of the data; bounded below at a thousandth of it."""

    def __init__(self, shape: Shape, noise: Noise, *, predicted: bool) -> None:
        super().__init__()
        self.base = nn.Parameter(torch.zeros(shape.features))
        self.readout = Readout(shape.hidden, shape.groups, shape.features, 0, noise) if predicted else None

    def forward(self, h: Tensor, context: Context) -> Float[Tensor, "..."]:
        log_s = self.base if self.readout is None else self.base + self.readout(h, context.covariates)
        return log_s.clamp(-7, 7)


class _Gaussian(LikelihoodModule):
    location: Tensor
    spread: Tensor

    def __init__(self, shape: Shape, noise: Noise, *, predicted: bool, fixed: float | None) -> None:
        super().__init__()
        self.readout = Readout(shape.hidden, shape.groups, shape.features, shape.covariates, noise)
        self.fixed = fixed
        self.log_scale = _LogScale(shape, noise, predicted=predicted) if fixed is None else nn.Identity()
        self.register_buffer("location", torch.zeros(shape.features))
        self.register_buffer("spread", torch.ones(shape.features))

    def forward(self, h: Tensor, context: Context) -> Distribution:
        mean = self.location + self.spread * self.readout(h, context.covariates)
        if self.fixed is not None:
            return Normal(mean, mean.new_full((), 0.5 * math.log(self.fixed)))
        # Where nothing varied, nothing tells how far from it others may lie: s stays at 1.
        log_s = torch.where(self.spread > 0, self.spread.log() + self.log_scale(h, context), 0)
        return Normal(mean, log_s)

    @torch.no_grad()
    def start(self, x: Tensor, context: Context) -> None:
        x = x if context.present is None else x[context.present]
        self.location.copy_(x.mean(0))
        spread = x.std(0, correction=0)
        self.spread.copy_(torch.where(spread > 1e-6 * (1 + x.abs().amax(0)), spread, 0))
        self.readout.map.bias.zero_()


class Log1pGaussian(Likelihood):
    """log1p(1e4 x / exposure) ~ N(mean, s**2), scored as a probability mass of the integer x.

    The interval [x - 1/2, x + 1/2] is pushed through the transform, the first one open to the left, so that the masses
    sum to one and the score can stand beside those of the count likelihoods.
    """

    kind: Literal["log1p_gaussian"] = "log1p_gaussian"
    support: ClassVar[Support] = Support.COUNTS
    variance: Literal["feature", "observation"] = "feature"

    def build(self, shape: Shape, noise: Noise) -> LikelihoodModule:
        """See `Likelihood`."""
        return _Log1pGaussian(shape, noise, predicted=self.variance == "observation")


class _Log1pGaussian(LikelihoodModule):
    def __init__(self, shape: Shape, noise: Noise, *, predicted: bool) -> None:
        super().__init__()
        self.readout = Readout(shape.hidden, shape.groups, shape.features, shape.covariates, noise)
        self.log_scale = _LogScale(shape, noise, predicted=predicted)

    def forward(self, h: Tensor, context: Context) -> Distribution:
        mean = self.readout(h, context.covariates)
        return Log1pNormalCounts(mean, self.log_scale(h, context), math.log(SCALE) - context.depth.log())

    @torch.no_grad()
    def start(self, x: SparseCounts, context: Context) -> None:
        y = torch.log1p(x.value * (SCALE / context.depth[x.row, 0]))
        mean = _sum(x._replace(value=y)) / x.shape[0]
        square = _sum(x._replace(value=y.square())) / x.shape[0]
        self.readout.map.bias.copy_(mean)
        self.log_scale.base.copy_(0.5 * (square - mean.square()).clamp(min=1e-2).log())


class BernoulliBinary(Likelihood):
    """x ~ Bernoulli(sigmoid(W h)): a peak that is open or not, a mark that is there or not."""

    kind: Literal["bernoulli"] = "bernoulli"
    support: ClassVar[Support] = Support.BINARY

    def build(self, shape: Shape, noise: Noise) -> LikelihoodModule:
        """See `Likelihood`."""
        return _Bernoulli(shape, noise)


class _Bernoulli(LikelihoodModule):
    def __init__(self, shape: Shape, noise: Noise) -> None:
        super().__init__()
        self.readout = Readout(shape.hidden, shape.groups, shape.features, shape.covariates, noise)

    def forward(self, h: Tensor, context: Context) -> Distribution:
        return Bernoulli(self.readout(h, context.covariates))

    @torch.no_grad()
    def start(self, x: SparseCounts, context: Context) -> None:
        self.readout.map.bias.copy_(((_sum(x) + 0.1) / (x.shape[0] + 0.2)).logit())


class CategoricalLevels(Likelihood):
    """x ~ Categorical(softmax(W h)), each feature one of `levels` coded 0, 1, ...

    Args:
        levels: Number of levels, the same for every feature of the modality.
    """

    kind: Literal["categorical"] = "categorical"
    support: ClassVar[Support] = Support.CATEGORIES
    levels: int = Field(ge=2)

    def build(self, shape: Shape, noise: Noise) -> LikelihoodModule:
        """See `Likelihood`."""
        return _Categorical(self.levels, shape, noise)


class _Categorical(LikelihoodModule):
    def __init__(self, levels: int, shape: Shape, noise: Noise) -> None:
        super().__init__()
        self.levels = levels
        self.readout = Readout(shape.hidden, shape.groups, shape.features * levels, shape.covariates, noise)

    def forward(self, h: Tensor, context: Context) -> Distribution:
        return Categorical(self.readout(h, context.covariates).unflatten(-1, (-1, self.levels)))

    @torch.no_grad()
    def start(self, x: Tensor, context: Context) -> None:
        share = nn.functional.one_hot(x.long(), self.levels).float().mean(0)
        self.readout.map.bias.copy_((share + 1e-3).log().flatten())


COUNTED = (PoissonCounts, NegativeBinomialCounts, ZeroInflatedNegativeBinomialCounts, Log1pGaussian)
LIKELIHOODS = (*COUNTED, Gaussian, FixedGaussian, BernoulliBinary, CategoricalLevels)
AnyLikelihood = Annotated[SerializeAsAny[Likelihood], tagged(Likelihood, *LIKELIHOODS)]
