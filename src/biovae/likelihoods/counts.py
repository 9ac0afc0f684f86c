"""Counts: a mean that is a share of an observation's total, and how counts spread around it."""

from typing import ClassVar, Literal

import torch
from jaxtyping import Float
from torch import Tensor, nn

from biovae.batch import Context, SparseCounts
from biovae.distributions import (
    Affine,
    Composition,
    Distribution,
    NegativeBinomial,
    Poisson,
    ZeroInflatedNegativeBinomial,
)
from biovae.likelihoods.likelihood import LastLayer, Likelihood, LikelihoodModule, Shape
from biovae.nn import Readout
from biovae.noise import Noise
from biovae.schema import Support


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
            counts = summed(x._replace(value=x.value * level[x.row]))
            expected = log_rate.exp() * (context.depth[:, 0] * level).sum()
            # Ten pseudo-counts: a level with few counts says little about a feature.
            self.readout.side[j].copy_(((counts + 10) / (expected + 10)).log())

    def last(self, p: Distribution) -> LastLayer:
        """d mean / d log mean is the mean; that the other shares move a little the other way is left out."""
        return LastLayer(self.readout, p.mean.square() / p.variance.clamp_min(torch.finfo(p.mean.dtype).tiny))


def summed(x: SparseCounts) -> Float[Tensor, "features"]:
    """Totals of features."""
    return x.value.new_zeros(x.shape[1]).index_add_(0, x.column, x.value)


def _log_rate(x: SparseCounts, exposure: Tensor) -> Float[Tensor, "features"]:
    """log of each feature's counts per unit of exposure; a tenth of a count where it has none."""
    return ((summed(x) + 0.1) / exposure.sum()).log()


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

    def last(self, p: Distribution) -> LastLayer:
        return self.log_mean.last(p)


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

    def last(self, p: Distribution) -> LastLayer:
        return self.log_mean.last(p)


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
