"""Priors: p(z).

    z       latent state                    (*samples, obs, latent)
    encode  pseudo-inputs -> q(z | u)       handed in by the network, for the prior that is made of posteriors

A prior is a recipe; its module answers `log_prob(z, encode)`, `sample(noise, size, encode)` and `kl(q)`, the last with
None where there is no closed form (the bound is then sampled). To add one: write both, list the recipe in `PRIORS`, add
a row to CASES in tests/test_priors.py.
"""

import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from typing import Annotated, Literal

import torch
from jaxtyping import Float
from pydantic import Field, SerializeAsAny
from torch import Tensor, nn

from biovae.distributions.sparse import wide
from biovae.noise import Noise
from biovae.posteriors import LOG_2PI, Density, DiagonalNormal
from biovae.recipe import Recipe, tagged

Encode = Callable[[Sequence[Tensor]], Density]


class Prior(Recipe, ABC):
    """A recipe for p(z)."""

    @abstractmethod
    def build(self, latent: int, inputs: Sequence[int], noise: Noise) -> "PriorModule":
        """Make the module.

        Args:
            latent: Dimensions of z.
            inputs: Features of each modality as its encoder sees them.
            noise: Draws for the start.
        """


class PriorModule(nn.Module, ABC):
    """p(z), with what the bound and the sampler need of it."""

    @abstractmethod
    def log_prob(self, z: Float[Tensor, "*batch latent"], encode: Encode) -> Float[Tensor, "*batch"]:
        """log p(z), in nats."""

    @abstractmethod
    def sample(self, noise: Noise, size: int, encode: Encode) -> Float[Tensor, "size latent"]:
        """Draws from p(z)."""

    def kl(self, q: Density) -> Float[Tensor, "obs groups"] | None:
        """KL(q || p) in closed form, by dimension or in one piece; None where there is none."""
        return None

    def start(self, features: Sequence[Float[Tensor, "rows _"]]) -> None:
        """Look at some observations, as the encoders see them, before training."""


class StandardNormal(Prior):
    """p(z) = N(0, I)."""

    kind: Literal["standard_normal"] = "standard_normal"

    def build(self, latent: int, inputs: Sequence[int], noise: Noise) -> PriorModule:
        """See `Prior.build`."""
        return _StandardNormal(latent)


class _StandardNormal(PriorModule):
    def __init__(self, latent: int) -> None:
        super().__init__()
        self.latent = latent

    def log_prob(self, z: Tensor, encode: Encode) -> Tensor:
        return -0.5 * (z.square() + LOG_2PI).sum(-1)

    def sample(self, noise: Noise, size: int, encode: Encode) -> Tensor:
        return noise.normal(size, self.latent)

    def kl(self, q: Density) -> Tensor:
        return q.kl_standard()


def mixture_log_prob(z: Tensor, components: DiagonalNormal, log_weight: Tensor) -> Float[Tensor, "*batch"]:
    """log sum_k w_k N(z; mean_k, variance_k), normalised weights in logs."""
    # |z - m|**2 / v expanded, so that the largest array is (batch, components) and not (batch, components, latent). Its
    # parts cancel where components are narrow: in double precision, which no setting for matrix products coarsens.
    y, mean, log_variance = (wide(t) for t in (z, components.mean, components.log_variance))
    scale = (-log_variance).exp()
    squares = y.square() @ scale.T - 2 * y @ (scale * mean).T + (scale * mean.square()).sum(-1)
    normaliser = (log_variance + LOG_2PI).sum(-1)
    return torch.logsumexp(log_weight - 0.5 * (squares + normaliser), -1).to(z.dtype)


def mixture_sample(noise: Noise, size: int, components: DiagonalNormal, log_weight: Tensor) -> Tensor:
    """Draws from the mixture of `mixture_log_prob`."""
    k = torch.multinomial(log_weight.exp(), size, replacement=True, generator=noise.generator)
    return components.select(k).sample(noise, 1)[0]


class GaussianMixture(Prior):
    """p(z) = sum_k w_k N(mean_k, diag variance_k), all learned.

    Args:
        components: Number of Gaussians.
    """

    kind: Literal["gaussian_mixture"] = "gaussian_mixture"
    components: int = Field(default=20, ge=1)

    def build(self, latent: int, inputs: Sequence[int], noise: Noise) -> PriorModule:
        """See `Prior.build`."""
        return _GaussianMixture(self.components, latent, noise)


class _GaussianMixture(PriorModule):
    def __init__(self, components: int, latent: int, noise: Noise) -> None:
        super().__init__()
        self.mean = nn.Parameter(noise.normal(components, latent))
        self.log_variance = nn.Parameter(torch.zeros(components, latent))
        self.logits = nn.Parameter(torch.zeros(components))

    def _parts(self) -> tuple[DiagonalNormal, Tensor]:
        return DiagonalNormal(self.mean, self.log_variance.clamp(-8, 6)), self.logits.log_softmax(0)

    def log_prob(self, z: Tensor, encode: Encode) -> Tensor:
        return mixture_log_prob(z, *self._parts())

    def sample(self, noise: Noise, size: int, encode: Encode) -> Tensor:
        return mixture_sample(noise, size, *self._parts())


class VampPrior(Prior):
    """p(z) = sum_k w_k q(z | u_k): a mixture of the posteriors of learned pseudo-inputs, begun at real observations.

    Args:
        components: Number of pseudo-inputs.

    Source: Tomczak and Welling 2018, AISTATS, arXiv:1705.07120.
    """

    kind: Literal["vamp"] = "vamp"
    components: int = Field(default=50, ge=1)

    def build(self, latent: int, inputs: Sequence[int], noise: Noise) -> PriorModule:
        """See `Prior.build`."""
        return _VampPrior(self.components, inputs)


class _VampPrior(PriorModule):
    def __init__(self, components: int, inputs: Sequence[int]) -> None:
        super().__init__()
        self.inputs = nn.ParameterList(torch.zeros(components, width) for width in inputs)
        self.logits = nn.Parameter(torch.zeros(components))

    def start(self, features: Sequence[Tensor]) -> None:
        with torch.no_grad():
            for inputs, seen in zip(self.inputs, features, strict=True):
                inputs.copy_(seen[torch.arange(len(inputs)) % len(seen)])

    def _parts(self, encode: Encode) -> tuple[DiagonalNormal, Tensor]:
        q = encode(list(self.inputs))
        return DiagonalNormal(q.mean, q.variance.log()), self.logits.log_softmax(0)

    def log_prob(self, z: Tensor, encode: Encode) -> Tensor:
        return mixture_log_prob(z, *self._parts(encode))

    def sample(self, noise: Noise, size: int, encode: Encode) -> Tensor:
        return mixture_sample(noise, size, *self._parts(encode))


class Flow(Prior):
    """p(z) = N(f(z); 0, I) |det df/dz|, f a neural spline flow.

    Args:
        transforms: Autoregressive layers.
        hidden: Width of the networks inside them.

    Source: Durkan et al. 2019, NeurIPS, arXiv:1906.04032; the flow itself is zuko's.
    """

    kind: Literal["flow"] = "flow"
    transforms: int = Field(default=3, ge=1)
    hidden: int = Field(default=64, ge=1)

    def build(self, latent: int, inputs: Sequence[int], noise: Noise) -> PriorModule:
        """See `Prior.build`."""
        return _Flow(self, latent, noise)


class _Flow(PriorModule):
    def __init__(self, recipe: Flow, latent: int, noise: Noise) -> None:
        super().__init__()
        import zuko

        with torch.random.fork_rng(devices=[]):  # zuko starts its weights from the global generator
            torch.manual_seed(noise.integer % 2**63)  # noqa: TID251 - inside fork_rng
            self.flow = zuko.flows.NSF(latent, transforms=recipe.transforms, hidden_features=[recipe.hidden] * 2)

    def log_prob(self, z: Tensor, encode: Encode) -> Tensor:
        return self.flow().log_prob(z)

    def sample(self, noise: Noise, size: int, encode: Encode) -> Tensor:
        flow = self.flow()
        base = noise.normal(size, math.prod(flow.base.event_shape))
        return flow.transform.inv(base)


PRIORS = (StandardNormal, GaussianMixture, VampPrior, Flow)
AnyPrior = Annotated[SerializeAsAny[Prior], tagged(Prior, *PRIORS)]
