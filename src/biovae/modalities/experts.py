"""One modality as a network: an expert on z on the way in, a likelihood on the way out."""

from dataclasses import dataclass
from typing import NamedTuple

import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn

from biovae.batch import Context, SparseCounts
from biovae.distributions import Distribution
from biovae.likelihoods import Shape
from biovae.modalities.library import LatentLibrary
from biovae.modalities.modality import Modality
from biovae.nn import Body, quieten
from biovae.noise import Noise
from biovae.posteriors import Density, DiagonalNormal, Posterior, choose


@dataclass(frozen=True)
class Sizes:
    """The numbers that the parts of one modality must agree on."""

    features: int
    latent: int
    encoder_covariates: int
    decoder_covariates: int
    levels: slice | None  # design columns, as the decoder sees them, of the covariate with its own dispersion
    library_levels: slice | None  # the same for the prior of the library size
    alone: bool = True  # whether the model has no other modality


class Expert(NamedTuple):
    """One modality's word on z.

    Attributes:
        z: The expert that enters the product.
        library: How far q(log l | x) lies from its prior, where the library is latent.
        solo: What it would say alone; gradients reach this head only.
    """

    z: Density
    library: DiagonalNormal | None
    solo: Density | None = None


class ModalityNetwork(nn.Module):
    """View, encoder and head (q(z | x) of this modality alone); decoder body and likelihood (p(x | z, l, c))."""

    def __init__(
        self, recipe: Modality, bodies: tuple[Body, Body], posterior: Posterior, sizes: Sizes, noise: Noise
    ) -> None:
        super().__init__()
        encoder, decoder = bodies
        self.features = sizes.features
        self.view = recipe.view.build(sizes.features, alone=sizes.alone)
        self.encoder = encoder.build(sizes.features, sizes.encoder_covariates, noise)
        self.head = posterior.build(self.encoder.width, sizes.latent, noise)
        # Alone an expert must be a whole posterior, in company only what it adds: one head cannot be both.
        self.solo = None if sizes.alone else posterior.build(self.encoder.width, sizes.latent, noise)
        latent_library = recipe.library == "latent"
        self.library = LatentLibrary(self.encoder.width, sizes.library_levels, noise) if latent_library else None
        self.decoder = decoder.build(sizes.latent, sizes.decoder_covariates, noise)
        self.shape = Shape(
            hidden=self.decoder.width,
            groups=self.decoder.groups,
            features=sizes.features,
            covariates=sizes.decoder_covariates,
            levels=sizes.levels,
            composition=recipe.size_factor is None,
        )
        self.likelihood = recipe.likelihood.build(self.shape, noise)
        quieten(self.likelihood, self.decoder.passed)

    def encode(
        self,
        features: SparseCounts | Float[Tensor, "obs features"],
        c: Tensor,
        noise: Noise | None = None,
        present: Tensor | None = None,
        alone: Bool[Tensor, "obs"] | None = None,
    ) -> "Expert":
        """What this modality says of z, and of its library size where that is latent.

        `alone` marks the observations that no other modality speaks for; None stands for none of them.
        """
        h = self.encoder(features, c, noise, present)
        z, library = self.head(h), None if self.library is None else self.library(h)
        if self.solo is None or alone is None:
            return Expert(z, library)
        return Expert(choose(alone, self.solo(h), z), library, self.solo(h.detach()))

    def decode(
        self, z: Float[Tensor, "*samples obs latent"], context: Context, noise: Noise | None = None
    ) -> Distribution:
        """p(x | z, l, c)."""
        return self.likelihood(self.decoder(z, context.covariates, noise, context.present), context)

    @torch.no_grad()
    def start(self, x: SparseCounts | Tensor, context: Context, covariates: Tensor) -> None:
        """Let the parts see some of the training set before the first step."""
        self.view.start(x, context.present)
        self.likelihood.start(x, context)
        if self.library is not None:
            self.library.start(context.depth, covariates)


def carriers(present: Bool[Tensor, "obs"] | None, size: int, device: torch.device) -> Bool[Tensor, "obs"]:
    """Who carries the modality, written out."""
    return torch.ones(size, dtype=torch.bool, device=device) if present is None else present
