"""Posteriors: q(z | x, c), and how the experts of several modalities become one.

    mean          (obs, latent)
    log_variance  (obs, latent)            of a diagonal expert
    precision     (obs, latent, latent)    of a low-rank expert, diagonal plus U U'

A product of Gaussian experts adds precisions; there is no prior expert, so that one modality leaves q as it is and any
prior may be used. To add a posterior: write the recipe (a `Posterior`), its head, and its record with the methods of
`DiagonalNormal`; list the recipe in `POSTERIORS`, add a row to CASES in tests/test_posteriors.py.
"""

import math
from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import Annotated, Literal, NamedTuple

import torch
from jaxtyping import Bool, Float
from pydantic import Field, SerializeAsAny, field_validator
from torch import Tensor, nn

from biovae.nn import linear
from biovae.noise import Noise
from biovae.recipe import Recipe, tagged

LOG_2PI = math.log(2 * math.pi)


class DiagonalNormal(NamedTuple):
    """N(mean, diag(exp(log_variance)))."""

    mean: Float[Tensor, "*obs latent"]
    log_variance: Float[Tensor, "*obs latent"]

    @property
    def variance(self) -> Float[Tensor, "*obs latent"]:
        """Marginal variances."""
        return self.log_variance.exp()

    def sample(self, noise: Noise, samples: int) -> Float[Tensor, "samples *obs latent"]:
        """Reparameterised draws, mean + standard deviation * noise."""
        eps = noise.normal(samples, *self.mean.shape, dtype=self.mean.dtype)
        return self.mean + (0.5 * self.log_variance).exp() * eps

    def log_prob(self, z: Float[Tensor, "samples *obs latent"]) -> Float[Tensor, "samples *obs"]:
        """log q(z), summed over dimensions."""
        return self.log_prob_each(z).sum(-1)

    def log_prob_each(self, z: Float[Tensor, "samples *obs latent"]) -> Float[Tensor, "samples *obs latent"]:
        """log q(z_d) of each dimension."""
        squares = (z - self.mean).square() * (-self.log_variance).exp()
        return -0.5 * (squares + self.log_variance + LOG_2PI)

    def kl_standard(self) -> Float[Tensor, "*obs latent"]:
        """KL(q || N(0, 1)) of each dimension: (mean**2 + variance - 1 - log variance) / 2."""
        return 0.5 * (self.mean.square() + self.log_variance.expm1() - self.log_variance)

    def detach(self) -> "DiagonalNormal":
        """The same density, through which no gradient flows to the encoder."""
        return DiagonalNormal(self.mean.detach(), self.log_variance.detach())

    def select(self, rows: Tensor) -> "DiagonalNormal":
        """The density of some observations."""
        return DiagonalNormal(self.mean[rows], self.log_variance[rows])

    @staticmethod
    def product(experts: Sequence["DiagonalNormal"], present: Sequence[Bool[Tensor, "obs"]]) -> "DiagonalNormal":
        """The normalised product of the experts that are present for each observation."""
        weights = torch.stack(
            [(-e.log_variance).exp() * p.unsqueeze(-1) for e, p in zip(experts, present, strict=True)]
        )
        precision = weights.sum(0)
        mean = (weights * torch.stack([e.mean for e in experts])).sum(0) / precision
        return DiagonalNormal(mean, -precision.log())


class PrecisionNormal(NamedTuple):
    """N(mean, P^-1), P = L L': for posteriors whose dimensions depend on each other.

    The latent space is small, so that P is kept dense: rank only bounds what the encoder can say, not the cost here.
    """

    mean: Float[Tensor, "*obs latent"]
    precision: Float[Tensor, "*obs latent latent"]

    @property
    def factor(self) -> Float[Tensor, "*obs latent latent"]:
        """L, lower triangular."""
        return cholesky(self.precision)

    @property
    def variance(self) -> Float[Tensor, "*obs latent"]:
        """Marginal variances, the diagonal of P^-1."""
        identity = torch.eye(self.mean.shape[-1], dtype=self.mean.dtype, device=self.mean.device)
        return torch.linalg.solve_triangular(self.factor, identity, upper=False).square().sum(-2)

    def sample(self, noise: Noise, samples: int) -> Float[Tensor, "samples *obs latent"]:
        """Reparameterised draws, mean + L'^-1 noise."""
        eps = noise.normal(samples, *self.mean.shape, dtype=self.mean.dtype)
        scaled = torch.linalg.solve_triangular(self.factor.mT, eps.unsqueeze(-1), upper=True)
        return self.mean + scaled.squeeze(-1)

    def log_prob(self, z: Float[Tensor, "samples *obs latent"]) -> Float[Tensor, "samples *obs"]:
        """log q(z)."""
        factor = self.factor
        white = ((z - self.mean).unsqueeze(-2) @ factor).squeeze(-2)
        half_logdet = factor.diagonal(dim1=-2, dim2=-1).log().sum(-1)
        return half_logdet - 0.5 * (white.square().sum(-1) + z.shape[-1] * LOG_2PI)

    def kl_standard(self) -> Float[Tensor, "*obs 1"]:
        """KL(q || N(0, I)) in one piece: dependent dimensions have no KL of their own."""
        half_logdet = self.factor.diagonal(dim1=-2, dim2=-1).log().sum(-1, keepdim=True)
        square = (self.mean.square() + self.variance).sum(-1, keepdim=True)
        return 0.5 * (square - self.mean.shape[-1]) + half_logdet

    def detach(self) -> "PrecisionNormal":
        """The same density, through which no gradient flows to the encoder."""
        return PrecisionNormal(self.mean.detach(), self.precision.detach())

    def select(self, rows: Tensor) -> "PrecisionNormal":
        """The density of some observations."""
        return PrecisionNormal(self.mean[rows], self.precision[rows])

    @staticmethod
    def product(experts: Sequence["PrecisionNormal"], present: Sequence[Bool[Tensor, "obs"]]) -> "PrecisionNormal":
        """The normalised product of the experts that are present for each observation; ranks add."""
        precisions = torch.stack([e.precision * p[:, None, None] for e, p in zip(experts, present, strict=True)])
        precision = precisions.sum(0)
        pull = (precisions @ torch.stack([e.mean for e in experts]).unsqueeze(-1)).sum(0)
        factor = cholesky(precision)
        half = torch.linalg.solve_triangular(factor, pull, upper=False)
        return PrecisionNormal(torch.linalg.solve_triangular(factor.mT, half, upper=True).squeeze(-1), precision)


def cholesky(p: Float[Tensor, "*obs latent latent"]) -> Float[Tensor, "*obs latent latent"]:
    """L of P = L L'; NaN where P is not positive definite, so that a step on it is undone and nothing waits to know."""
    factor, failed = torch.linalg.cholesky_ex(p)
    return torch.where((failed == 0)[..., None, None], factor, torch.nan)


Density = DiagonalNormal | PrecisionNormal


def product(experts: Sequence[Density], present: Sequence[Bool[Tensor, "obs"]]) -> Density:
    """The normalised product of experts of one kind; a single one is left as it is."""
    if len(experts) == 1:
        return experts[0]
    diagonal = [e for e in experts if isinstance(e, DiagonalNormal)]
    if diagonal:
        return DiagonalNormal.product(diagonal, present)
    return PrecisionNormal.product([e for e in experts if isinstance(e, PrecisionNormal)], present)


def choose(first: Bool[Tensor, "obs"], a: Density, b: Density) -> Density:
    """The density of `a` where `first`, of `b` elsewhere; both of one kind."""
    parts = (torch.where(first.view(-1, *[1] * (x.dim() - 1)), x, y) for x, y in zip(a, b, strict=True))
    return type(b)(*parts)


class Posterior(Recipe, ABC):
    """A recipe for the head that turns an encoder's features into q(z | x)."""

    @abstractmethod
    def build(self, inputs: int, latent: int, noise: Noise) -> nn.Module:
        """Make the head; `forward(h)` returns a density with the methods of `DiagonalNormal`."""


class Diagonal(Posterior):
    """q(z | x) = N(mean(x), diag(variance(x))), the usual choice.

    Args:
        variance: None to predict it; a positive number to fix it. Zero is refused: the KL to any prior with a density
            is infinite, because -1/2 log variance is.

    Source: Kingma and Welling 2014, ICLR, arXiv:1312.6114.
    """

    kind: Literal["diagonal"] = "diagonal"
    variance: float | None = None

    @field_validator("variance")
    @classmethod
    def _positive(cls, variance: float | None) -> float | None:
        if variance is not None and not (variance > 0 and math.isfinite(variance)):
            raise ValueError(
                f"expected a posterior variance above 0, found {variance:g}: at 0 the KL diverges "
                "(-1/2 log variance grows without bound); use variance=None to learn it, or a positive number."
            )
        return variance

    def build(self, inputs: int, latent: int, noise: Noise) -> nn.Module:
        """See `Posterior.build`."""
        return _DiagonalHead(self.variance, inputs, latent, noise)


class _DiagonalHead(nn.Module):
    def __init__(self, variance: float | None, inputs: int, latent: int, noise: Noise) -> None:
        super().__init__()
        self.mean = linear(inputs, latent, noise)
        self.log_variance = linear(inputs, latent, noise) if variance is None else None
        self.fixed = 0.0 if variance is None else math.log(variance)

    def forward(self, h: Float[Tensor, "obs inputs"]) -> DiagonalNormal:
        mean = self.mean(h)
        if self.log_variance is None:
            return DiagonalNormal(mean, torch.full_like(mean, self.fixed))
        # Bounded: a variance of e^-12 is already far below what data tell, and its inverse must stay finite.
        return DiagonalNormal(mean, self.log_variance(h).clamp(-12, 6))


class LowRank(Posterior):
    """q(z | x) = N(mean, P^-1), P = diag(d(x)) + U(x) U(x)' with `rank` columns: dimensions may depend on each other.

    Args:
        rank: Columns of U.

    Source: Ong, Nott and Smith 2018, J Comput Graph Stat 27:465, doi:10.1080/10618600.2017.1390472 (there for the
    covariance; here for the precision, so that experts multiply).
    """

    kind: Literal["low_rank"] = "low_rank"
    rank: int = Field(default=2, ge=1)

    def build(self, inputs: int, latent: int, noise: Noise) -> nn.Module:
        """See `Posterior.build`."""
        return _LowRankHead(self.rank, inputs, latent, noise)


class _LowRankHead(nn.Module):
    def __init__(self, rank: int, inputs: int, latent: int, noise: Noise) -> None:
        super().__init__()
        self.rank = rank
        self.mean = linear(inputs, latent, noise)
        self.log_precision = linear(inputs, latent, noise)
        self.columns = linear(inputs, latent * rank, noise)

    def forward(self, h: Float[Tensor, "obs inputs"]) -> PrecisionNormal:
        d = self.log_precision(h).clamp(-6, 12).exp()
        # Bounded beside the diagonal: whatever h is, P keeps a Cholesky factor in float32.
        u = d.sqrt().unsqueeze(-1) * self.columns(h).unflatten(-1, (-1, self.rank)).clamp(-100, 100)
        return PrecisionNormal(self.mean(h), torch.diag_embed(d) + u @ u.mT)


POSTERIORS = (Diagonal, LowRank)
AnyPosterior = Annotated[SerializeAsAny[Posterior], tagged(Posterior, *POSTERIORS)]
