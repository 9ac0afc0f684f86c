"""Binary and categorical data.

    x        0 or 1, sparse                 (obs, features); or a code 0 ... levels - 1, dense
    logits   log odds of a 1                (*samples, obs, features)
             unnormalised log-probability   (*samples, obs, features, levels)

Any value above 0 counts as a 1 in binary data.
"""

from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor
from torch.autograd.function import once_differentiable
from torch.nn.functional import softplus

from biovae.batch import SparseCounts
from biovae.distributions.distribution import Distribution
from biovae.distributions.sparse import add, as_dense, as_rows, as_sparse, clear, repeat, take, wide
from biovae.noise import Noise


class Bernoulli(Distribution):
    """x = 1 with probability sigmoid(logits), else 0.

    Args:
        logits: Log odds.
    """

    def __init__(self, logits: Float[Tensor, "*samples obs features"]) -> None:
        self.logits = logits

    @property
    def mean(self) -> Float[Tensor, "*samples obs features"]:
        """P(x = 1)."""
        return torch.sigmoid(self.logits)

    @property
    def variance(self) -> Float[Tensor, "*samples obs features"]:
        """P(x = 1) P(x = 0)."""
        return torch.sigmoid(self.logits) * torch.sigmoid(-self.logits)

    def log_prob(self, x: SparseCounts | Float[Tensor, "obs features"]) -> Float[Tensor, "*samples obs"]:
        """log p(x) = -sum_ones softplus(-logits) - sum_zeros softplus(logits), in nats, summed over features."""
        x = as_sparse(x)
        shape = torch.broadcast_shapes(self.logits.shape, x.shape)
        logits = as_rows(self.logits, shape)
        return _BernoulliLogProb.apply(logits, repeat(x, len(logits))).view(shape[:-1])

    def log_prob_each(self, x: Float[Tensor, "obs features"]) -> Float[Tensor, "*samples obs features"]:
        """log p(x) of every entry of a dense x."""
        return -softplus(torch.where(x > 0, -self.logits, self.logits))

    def cdf(self, x: Float[Tensor, "obs features"]) -> Float[Tensor, "*samples obs features"]:
        """P(X <= x)."""
        return torch.where(x < 1, torch.sigmoid(-self.logits), 1) * (x >= 0)

    def sample(self, noise: Noise) -> Float[Tensor, "*samples obs features"]:
        """One draw of every entry."""
        uniform = noise.uniform(*self.logits.shape, dtype=self.logits.dtype)
        return (uniform < self.mean).to(self.logits.dtype)


class _BernoulliLogProb(torch.autograd.Function):
    """log p(x) of a matrix of rows."""

    @staticmethod
    def forward(ctx: Any, logits: Tensor, x: SparseCounts) -> Tensor:
        flat = x.flat
        surprise = softplus(logits)
        clear(surprise, flat, x.value)
        atoms = softplus(-take(logits, flat)).mul_(x.value > 0).neg_()
        if ctx.needs_input_grad[0]:
            slope = torch.sigmoid(logits).neg_()
            add(slope, flat, (x.value > 0).to(slope.dtype))
            ctx.save_for_backward(slope)
        return wide(surprise.sum(-1).neg_()).index_add_(0, x.row, wide(atoms)).to(logits.dtype)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None]:
        (slope,) = ctx.saved_tensors
        return slope * grad.unsqueeze(-1), None


class Categorical(Distribution):
    """x = k with probability softmax(logits)[k]; its mean and variance are those of the code k.

    Args:
        logits: Unnormalised log-probabilities, levels last.
    """

    def __init__(self, logits: Float[Tensor, "*samples obs features levels"]) -> None:
        self.logits = logits

    @property
    def mean(self) -> Float[Tensor, "*samples obs features"]:
        """The expected code: of use where levels are ordered."""
        return self.logits.softmax(-1) @ self._codes

    @property
    def variance(self) -> Float[Tensor, "*samples obs features"]:
        """The variance of the code."""
        away = self._codes - self.mean.unsqueeze(-1)
        return (self.logits.softmax(-1) * away.square()).sum(-1)

    def log_prob(self, x: SparseCounts | Float[Tensor, "obs features"]) -> Float[Tensor, "*samples obs"]:
        """log p(x), in nats, summed over features."""
        return self.log_prob_each(as_dense(x)).sum(-1)

    def log_prob_each(self, x: Float[Tensor, "obs features"]) -> Float[Tensor, "*samples obs features"]:
        """log p(x) of every entry of codes."""
        return self._at(self.logits.log_softmax(-1), x)

    def cdf(self, x: Float[Tensor, "obs features"]) -> Float[Tensor, "*samples obs features"]:
        """P(X <= x), in the order of the codes."""
        value = self._at(self.logits.softmax(-1).cumsum(-1), x.floor().clamp(0, self.logits.shape[-1] - 1))
        return torch.where(x < 0, 0, value.clamp(max=1))

    def sample(self, noise: Noise) -> Float[Tensor, "*samples obs features"]:
        """One code of every entry: how many cumulative probabilities a uniform draw exceeds."""
        uniform = noise.uniform(*self.logits.shape[:-1], 1, dtype=self.logits.dtype)
        steps = self.logits.softmax(-1).cumsum(-1)[..., :-1]
        return (uniform >= steps).sum(-1).to(self.logits.dtype)

    @property
    def _codes(self) -> Float[Tensor, "levels"]:
        return torch.arange(self.logits.shape[-1], device=self.logits.device, dtype=self.logits.dtype)

    def _at(self, table: Tensor, x: Tensor) -> Tensor:
        code = x.to(torch.int64).expand(table.shape[:-1])
        return table.gather(-1, code.unsqueeze(-1)).squeeze(-1)
