"""The bound: every training objective is a few lines over the same log-densities.

    log_px  log p(x | z, l)   (samples, obs), summed over features and modalities
    log_pz  log p(z)          (samples, obs), None where only a closed-form KL is asked for
    log_qz  log q(z | x)      (samples, obs), the same
    kl      KL(q || p)        (obs, groups), by latent dimension where it has a closed form; None where it has none
    library log q(l | x) - log p(l)  (samples, obs), sampled; zero without a latent library
    q       q(z | x)          of every observation, for what sets posteriors side by side

All in nats. Nothing here takes a mean over observations; beta enters in one place. To add an objective: subclass
`Objective`, list it in `OBJECTIVES`, add a row to BOUNDS in tests/test_objective.py.
"""

import math
from abc import ABC, abstractmethod
from typing import Annotated, ClassVar, Literal, NamedTuple

import torch
from jaxtyping import Float
from pydantic import Field, SerializeAsAny
from torch import Tensor

from biovae.posteriors import Density, DiagonalNormal
from biovae.recipe import Recipe, tagged


class Terms(NamedTuple):
    """What one minibatch says, before any objective weighs it."""

    log_px: Float[Tensor, "samples obs"]
    log_pz: Float[Tensor, "samples obs"] | None
    log_qz: Float[Tensor, "samples obs"] | None
    kl: Float[Tensor, "obs groups"] | None
    library: Float[Tensor, "samples obs"]
    draws: tuple[Tensor, ...] = ()  # the sampled latents, each (samples, obs, width)
    lesson: Float[Tensor, "obs"] | None = None  # -log q(z | one modality) of z from all; teaches the solo heads alone
    q: Density | None = None

    @property
    def kl_by_group(self) -> Float[Tensor, "obs groups"]:
        """KL(q || p): the closed form, else its sampled estimate in one group."""
        if self.kl is not None:
            return self.kl
        return -self.log_ratio.mean(0).unsqueeze(-1)

    @property
    def log_ratio(self) -> Float[Tensor, "samples obs"]:
        """log p(z) - log q(z | x) of the draws."""
        if self.log_pz is None or self.log_qz is None:
            raise ValueError("expected log p(z) and log q(z | x), found neither: ask for terms(..., densities=True).")
        return self.log_pz - self.log_qz

    @property
    def log_weight(self) -> Float[Tensor, "samples obs"]:
        """log p(x, z, l) - log q(z, l | x), the importance weight."""
        return self.log_px + self.log_ratio - self.library


def free_bits(kl: Float[Tensor, "obs groups"], nats: float) -> Float[Tensor, "obs groups"]:
    """max(nats, mean KL) of each group, handed back per observation so that its mean is that maximum.

    A group whose mean over the minibatch lies below the allowance has no gradient: it costs nothing to use it.

    Source: Kingma et al. 2016, NeurIPS, arXiv:1606.04934, section 3.3.
    """
    if nats == 0:
        return kl
    return torch.where(kl.mean(0) > nats, kl, torch.full_like(kl, nats))


def elbo(t: Terms, beta: float | Tensor = 1.0, nats: float = 0.0) -> Float[Tensor, "obs"]:
    """E_q log p(x | z) - beta KL(q || p) - KL of the library, in nats per observation.

    Args:
        t: The terms of a minibatch.
        beta: Weight of the KL; 1 is the evidence lower bound (Higgins et al. 2017, ICLR).
        nats: Free bits, in nats per group.
    """
    return (t.log_px - t.library).mean(0) - beta * free_bits(t.kl_by_group, nats).sum(-1)


def total_correlation(z: Float[Tensor, "samples obs latent"], q: Density) -> Float[Tensor, "samples obs"]:
    """log q(z) - sum_d log q(z_d) of each draw, in nats; its mean is how far the dimensions of z depend on one another.

    q(z) is the mixture of the posteriors of a minibatch. Where they hardly overlap each draw finds its own posterior
    alone, and the value is too high. Pairs of observations are scored: memory grows with the square of a minibatch.

    Source: Chen et al. 2018, NeurIPS, arXiv:1802.04942, minibatch-weighted sampling; the size of the data, by which
    they divide, only adds a constant.
    """
    rows, latent = q.mean.shape
    against = z.unsqueeze(-2).expand(*z.shape[:-1], rows, latent)
    joint = q.log_prob(against).logsumexp(-1)
    each = DiagonalNormal(q.mean, q.variance.log()).log_prob_each(against).logsumexp(-2)
    return joint - each.sum(-1) + (latent - 1) * math.log(rows)


def iwae(t: Terms) -> Float[Tensor, "obs"]:
    """log mean_s p(x, z_s) / q(z_s | x): never below the ELBO in expectation, tight as samples grow.

    Source: Burda, Grosse and Salakhutdinov 2016, ICLR, arXiv:1509.00519.
    """
    return torch.logsumexp(t.log_weight, 0) - math.log(len(t.log_px))


class Objective(Recipe, ABC):
    """What training maximises.

    `densities` asks the network to score its draws under prior and posterior, `doubly` to do it under a q whose
    parameters are detached.
    """

    samples: int
    densities: ClassVar[bool] = True
    doubly: ClassVar[bool] = False

    @abstractmethod
    def __call__(self, t: Terms, beta: float | Tensor) -> Float[Tensor, "obs"]:
        """The bound of each observation, in nats."""


class ELBO(Objective):
    """The evidence lower bound, with beta and free bits.

    Args:
        free_bits: Nats that a group of latent dimensions may use at no cost.
        group: Dimensions per group of free bits; 1 gives every dimension its own allowance.
        samples: Draws of z per observation and step.
    """

    kind: Literal["elbo"] = "elbo"
    densities: ClassVar[bool] = False
    free_bits: float = Field(default=0.0, ge=0)
    group: int = Field(default=1, ge=1)
    samples: int = Field(default=1, ge=1)

    def __call__(self, t: Terms, beta: float | Tensor) -> Float[Tensor, "obs"]:
        """See `elbo`."""
        kl = t.kl_by_group
        if self.group > 1 and kl.shape[-1] > 1:
            kl = torch.stack([part.sum(-1) for part in kl.split(self.group, -1)], -1)
        return elbo(t._replace(kl=kl), beta, self.free_bits)


class IWAE(Objective):
    """The importance-weighted bound, with its doubly reparameterised gradient.

    The plain gradient of the encoder loses its signal as samples grow; with q's parameters detached in log q and every
    path through z weighted once more by the normalised weight, it does not. beta enters as z's prior and posterior do.

    Args:
        samples: Draws of z per observation and step.

    Source: Tucker et al. 2019, ICLR, arXiv:1810.04152.
    """

    kind: Literal["iwae"] = "iwae"
    doubly: ClassVar[bool] = True
    samples: int = Field(default=10, ge=2)

    def __call__(self, t: Terms, beta: float | Tensor) -> Float[Tensor, "obs"]:
        """See `iwae`; draws that carry a gradient have it weighted by the normalised importance weight once more."""
        log_weight = t.log_px - t.library + beta * t.log_ratio
        share = log_weight.softmax(0).detach().unsqueeze(-1)
        for draw in t.draws:
            if draw.requires_grad:
                draw.register_hook(lambda grad: share * grad)
        return torch.logsumexp(log_weight, 0) - math.log(len(log_weight))


class TotalCorrelation(Objective):
    """The evidence lower bound, with dependence between the dimensions of z charged `weight` times instead of once.

    The KL has three parts: KL(q || p) = I(x; z) + TC(z) + sum_d KL(q(z_d) || p(z_d)), on average over the data, where
    the prior takes dimensions apart. beta weighs all three, `weight` the second once more. What z may know of x is not
    charged more than before, unlike at a beta above 1.

    Args:
        weight: Of the total correlation; 1 is the evidence lower bound.
        samples: Draws of z per observation and step.

    Source: Chen et al. 2018, NeurIPS, arXiv:1802.04942 (beta-TCVAE).
    """

    kind: Literal["total_correlation"] = "total_correlation"
    densities: ClassVar[bool] = False
    weight: float = Field(default=6.0, ge=0)
    samples: int = Field(default=1, ge=1)

    def __call__(self, t: Terms, beta: float | Tensor) -> Float[Tensor, "obs"]:
        """See `total_correlation`."""
        if t.q is None:
            raise ValueError("expected the posteriors in Terms.q, found none: take the terms from a network.")
        return elbo(t, beta) - beta * (self.weight - 1) * total_correlation(t.draws[0], t.q).mean(0)


OBJECTIVES = (ELBO, IWAE, TotalCorrelation)
AnyObjective = Annotated[SerializeAsAny[Objective], tagged(Objective, *OBJECTIVES)]
