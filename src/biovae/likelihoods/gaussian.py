"""Real values, and logarithms of counts, with normal spread around their mean."""

import math
from typing import ClassVar, Literal

import torch
from jaxtyping import Float
from pydantic import Field
from torch import Tensor, nn

from biovae.batch import Context, SparseCounts
from biovae.distributions import Distribution, Log1pNormalCounts, Normal
from biovae.likelihoods.counts import summed
from biovae.likelihoods.likelihood import LastLayer, Likelihood, LikelihoodModule, Shape
from biovae.nn import Readout
from biovae.noise import Noise
from biovae.schema import Support

SCALE = 1e4  # log1p of counts per 10,000, the field's habit


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

    def last(self, p: Distribution) -> LastLayer:
        return LastLayer(self.readout, self.spread.square() / p.variance)


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
        mean = summed(x._replace(value=y)) / x.shape[0]
        square = summed(x._replace(value=y.square())) / x.shape[0]
        self.readout.map.bias.copy_(mean)
        self.log_scale.base.copy_(0.5 * (square - mean.square()).clamp(min=1e-2).log())

    def last(self, p: Distribution) -> LastLayer:
        assert isinstance(p, Log1pNormalCounts)
        return LastLayer(self.readout, (-2 * p.log_scale).exp().expand_as(p.location))
