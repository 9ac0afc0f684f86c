"""The normal distribution, of real numbers, and of logarithms of counts.

    mu   mean of y               (*samples, obs, features)
    s    standard deviation      whatever broadcasts to it
    f    factor of a count       (obs, 1): y = log1p(f x)
    l    lower edge of an interval of y, in units of s, measured from mu
    d    its width, in units of s

A count x is scored as a probability mass: that of all y whose count rounds to x, [x - 1/2, x + 1/2) pushed through
log1p(f x), the first interval open to the left. So the masses sum to one, and rank beside those of the counts.
"""

import math
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor
from torch.autograd.function import once_differentiable
from torch.special import erfcx, log_ndtr, ndtr

from biovae.batch import SparseCounts
from biovae.distributions.distribution import Distribution
from biovae.distributions.sparse import as_dense, as_rows, as_sparse, clear, repeat, take, wide
from biovae.distributions.special import HALF_LOG_2PI, bounded
from biovae.noise import Noise

NARROWEST, WIDEST = -20.0, 40.0  # log s: gradients in 1 / s**2 stay summable in float32
NARROW = 1e-5  # an interval below this width is a density times its width
SERIES = 32  # counts whose probabilities are summed one by one for the moments


class Normal(Distribution):
    """x ~ N(mu, s**2), log s kept within -20 and 40; a gradient passes through these bounds.

    Args:
        mean: mu.
        log_scale: log s, whatever broadcasts to mu.
    """

    def __init__(self, mean: Float[Tensor, "*samples obs features"], log_scale: Float[Tensor, "..."]) -> None:
        self.location = mean
        self.log_scale = bounded(log_scale, NARROWEST, WIDEST)

    @property
    def mean(self) -> Float[Tensor, "*samples obs features"]:
        """mu."""
        return self.location.expand(self._shape)

    @property
    def variance(self) -> Float[Tensor, "*samples obs features"]:
        """s**2."""
        return (2 * self.log_scale).exp().expand(self._shape)

    def log_prob(self, x: SparseCounts | Float[Tensor, "obs features"]) -> Float[Tensor, "*samples obs"]:
        """log p(x), in nats, summed over features."""
        return self.log_prob_each(as_dense(x)).sum(-1)

    def log_prob_each(self, x: Float[Tensor, "obs features"]) -> Float[Tensor, "*samples obs features"]:
        """log p(x) of every entry."""
        z = (x - self.location) * (-self.log_scale).exp()
        return z.square().mul(-0.5) - (self.log_scale + HALF_LOG_2PI)

    def cdf(self, x: Float[Tensor, "obs features"]) -> Float[Tensor, "*samples obs features"]:
        """P(X <= x)."""
        return ndtr((x - self.location) * (-self.log_scale).exp())

    def sample(self, noise: Noise) -> Float[Tensor, "*samples obs features"]:
        """One draw of every entry."""
        return self.location + self.log_scale.exp() * noise.normal(*self._shape, dtype=self.location.dtype)

    @property
    def _shape(self) -> torch.Size:
        return torch.broadcast_shapes(self.location.shape, self.log_scale.shape)


class Log1pNormalCounts(Distribution):
    """x = max(0, round((exp(y) - 1) / f)), y ~ N(mu, s**2): a Gaussian on log1p(f x), as a mass on the integers.

    log s is kept within -20 and 40; a gradient passes through these bounds.

    Args:
        mean: mu.
        log_scale: log s, whatever broadcasts to mu.
        log_factor: log f, (obs, 1).
    """

    def __init__(
        self,
        mean: Float[Tensor, "*samples obs features"],
        log_scale: Float[Tensor, "..."],
        log_factor: Float[Tensor, "obs 1"],
    ) -> None:
        self.location = mean
        self.log_scale = bounded(log_scale, NARROWEST, WIDEST)
        self.log_factor = log_factor

    @property
    def mean(self) -> Float[Tensor, "*samples obs features"]:
        """E[x] = sum_k P(x > k): term by term to 32, then an integral with its first midpoint correction.

        Exact where x stays below 32 or its standard deviation exceeds one; otherwise within 1/2, the rounding.
        """
        return self._moments()[0].to(self.location.dtype)

    @property
    def variance(self) -> Float[Tensor, "*samples obs features"]:
        """E[x**2] - E[x]**2, E[x**2] = sum_k (2 k + 1) P(x > k) summed as the mean is; infinite where floats end."""
        first, second = self._moments()
        return (second - first.square()).clamp(min=0).nan_to_num(nan=math.inf).to(self.location.dtype)

    def log_prob(self, x: SparseCounts | Float[Tensor, "obs features"]) -> Float[Tensor, "*samples obs"]:
        """log P(x), in nats, summed over features."""
        x = as_sparse(x)
        shape = torch.broadcast_shapes(self._shape, x.shape)
        mu, log_s, log_f = (as_rows(p, shape) for p in (self.location, self.log_scale, self.log_factor))
        x = repeat(x, len(mu))
        counted = torch.ones_like(mu)
        clear(counted, x.flat, x.value)
        zeros = _log_mass_of_zero(mu, log_s, log_f) * counted
        value = wide(torch.where(x.value > 0, x.value, 1))
        atoms = _log_mass(value, *(wide(take(p, x.flat)) for p in (mu, log_s, log_f))) * (x.value > 0)
        return wide(zeros.sum(-1)).index_add(0, x.row, atoms).to(mu.dtype).view(shape[:-1])

    def log_prob_each(self, x: Float[Tensor, "obs features"]) -> Float[Tensor, "*samples obs features"]:
        """log P(x) of every entry of a dense x."""
        mu, log_s, log_f = wide(self.location), wide(self.log_scale), wide(self.log_factor)
        zero = _log_mass_of_zero(mu, log_s, log_f)
        mass = _log_mass(wide(x).clamp(min=1), mu, log_s, log_f)
        return torch.where(x > 0, mass, zero).to(self.location.dtype)

    def cdf(self, x: Float[Tensor, "obs features"]) -> Float[Tensor, "*samples obs features"]:
        """P(X <= x)."""
        value = self._below(x.floor().clamp(min=0) + 0.5)
        return torch.where(x < 0, 0, value).to(self.location.dtype)

    def sample(self, noise: Noise) -> Float[Tensor, "*samples obs features"]:
        """A normal draw, brought back to a count and rounded half up."""
        z = noise.normal(*self._shape, dtype=self.location.dtype)
        count = torch.expm1(self.location + self.log_scale.exp() * z) * (-self.log_factor).exp()
        return (count + 0.5).floor_().clamp_(min=0)

    @property
    def _shape(self) -> torch.Size:
        return torch.broadcast_shapes(self.location.shape, self.log_scale.shape, self.log_factor.shape)

    def _below(self, edge: Tensor | float) -> Tensor:
        """P(count before rounding < edge), float64."""
        log_edge = torch.log1p(wide(self.log_factor).exp() * edge)
        return ndtr((log_edge - wide(self.location)) * wide(-self.log_scale).exp())

    def _moments(self) -> tuple[Tensor, Tensor]:
        """E[x] and E[x**2], float64."""
        mu, s, f = wide(self.location), wide(self.log_scale).exp(), wide(self.log_factor).exp()
        first, second = torch.zeros_like(mu), torch.zeros_like(mu)
        for k in range(SERIES):
            above = 1 - self._below(k + 0.5)
            first, second = first + above, second + (2 * k + 1) * above
        edge = torch.log1p(f * SERIES)
        z = (edge - mu) / s
        density = torch.exp(-z.square() / 2 - HALF_LOG_2PI - edge) * f / s  # of the count before rounding, at the edge
        zero, one, two = (_tilted(mu, s, z, power) for power in range(3))
        first = first + (one - zero) / f - SERIES * zero - density / 24
        second = second + (two - 2 * one + zero) / f.square() - SERIES**2 * zero + (zero - SERIES * density) / 12
        return first, second


def _tilted(mu: Tensor, s: Tensor, z: Tensor, power: int) -> Tensor:
    """E[exp(power y); y > mu + s z]."""
    return torch.exp(power * mu + (power * s).square() / 2 + log_ndtr(power * s - z))


def _log_mass_of_zero(mu: Tensor, log_s: Tensor, log_f: Tensor) -> Tensor:
    """log P(0)."""
    return _LogBelow.apply((torch.log1p(log_f.exp() / 2) - mu) * (-log_s).exp())


def _log_mass(x: Tensor, mu: Tensor, log_s: Tensor, log_f: Tensor) -> Tensor:
    """log P(x) where x > 0."""
    f, per_s = log_f.exp(), (-log_s).exp()
    below = f * (x - 0.5)
    return _LogInterval.apply((torch.log1p(below) - mu) * per_s, torch.log1p(f / (1 + below)) * per_s)


class _LogBelow(torch.autograd.Function):
    """log Phi(z). Torch's own gradient is a ratio of numbers that underflow: 6 times too large at z = -1e4."""

    @staticmethod
    def forward(ctx: Any, z: Tensor) -> Tensor:
        log_p, scaled = _log_below(z)
        ctx.save_for_backward(z, log_p, scaled)
        return log_p

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> Tensor:
        z, log_p, scaled = ctx.saved_tensors
        right = torch.exp(-z.square() / 2 - HALF_LOG_2PI - log_p)
        return grad * torch.where(z < 0, math.sqrt(2 / math.pi) / scaled, right)


def _log_below(z: Tensor) -> tuple[Tensor, Tensor]:
    """log Phi(z), and erfcx(|z| / sqrt(2)), the tail beyond |z| with its exp(-z**2 / 2) taken out."""
    scaled, exponent = erfcx(z.abs() / math.sqrt(2)), -z.square() / 2
    log_p = torch.where(z < 0, torch.log(scaled / 2) + exponent, torch.log1p(-scaled / 2 * torch.exp(exponent)))
    return log_p, scaled


class _LogInterval(torch.autograd.Function):
    """log[Phi(l + d) - Phi(l)], d > 0, relative to the density at the edge nearer to 0, so that no tail underflows."""

    @staticmethod
    def forward(ctx: Any, lower: Tensor, width: Tensor) -> Tensor:
        middle = lower + width / 2
        near, far = middle.abs() - width / 2, middle.abs() + width / 2
        drop = middle.abs() * width  # log density(near) - log density(far)
        log_tail = _log_mills(near)
        beyond = (_log_mills(far) - log_tail - drop).clamp(max=-torch.finfo(width.dtype).tiny)
        broad = log_tail + torch.log(-torch.expm1(beyond))
        slant = drop.clamp(min=1e-30)
        narrow = torch.log(width) + torch.log(-torch.expm1(-slant) / slant)
        ratio = torch.where(width < NARROW, narrow, broad)  # log of mass / density(near)
        ctx.save_for_backward(middle, drop, ratio)
        return ratio - near.square() / 2 - HALF_LOG_2PI

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, Tensor]:
        middle, drop, ratio = ctx.saved_tensors
        near = torch.exp(-ratio)  # density / mass, at the near edge
        at_upper = near * torch.exp(torch.where(middle >= 0, -drop, 0))
        return grad * near * torch.expm1(-drop) * middle.sign(), grad * at_upper


def _log_mills(t: Tensor) -> Tensor:
    """log[(1 - Phi(t)) / phi(t)]."""
    log_p, scaled = _log_below(-t)
    return torch.where(t > 0, torch.log(scaled) + 0.5 * math.log(math.pi / 2), log_p + t.square() / 2 + HALF_LOG_2PI)
