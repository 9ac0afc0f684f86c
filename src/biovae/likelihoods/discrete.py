"""Yes or no, and one of several levels."""

from typing import ClassVar, Literal

import torch
from pydantic import Field
from torch import Tensor, nn

from biovae.batch import Context, SparseCounts
from biovae.distributions import Bernoulli, Categorical, Distribution
from biovae.likelihoods.counts import summed
from biovae.likelihoods.likelihood import LastLayer, Likelihood, LikelihoodModule, Shape
from biovae.nn import Readout
from biovae.noise import Noise
from biovae.schema import Support


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
        self.readout.map.bias.copy_(((summed(x) + 0.1) / (x.shape[0] + 0.2)).logit())

    def last(self, p: Distribution) -> LastLayer:
        return LastLayer(self.readout, p.variance)


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

    def last(self, p: Distribution) -> LastLayer:
        assert isinstance(p, Categorical)
        share = p.logits.softmax(-1)
        return LastLayer(self.readout, (share * (1 - share)).flatten(-2))
