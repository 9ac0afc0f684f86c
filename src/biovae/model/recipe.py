"""What a VAE is made of, before there are data: the whole of it that `config.json` stores."""

from typing import Any, Literal, Self

from pydantic import Field, field_validator, model_validator

from biovae.errors import InputError
from biovae.modalities.modality import Modality
from biovae.objective import ELBO, AnyObjective
from biovae.posteriors import AnyPosterior, Diagonal
from biovae.priors import AnyPrior, StandardNormal
from biovae.recipe import Recipe
from biovae.training.schedule import AnyWarmup, LinearWarmup


class Covariate(Recipe):
    """A column of `obs` that the model is told, so that z need not carry it.

    Args:
        name: The column; text and categories become one-hot, numbers are standardised.
        encoder: Whether encoders see it.
        decoder: Whether decoders and likelihoods see it.
    """

    name: str
    encoder: bool = False
    decoder: bool = True


class Architecture(Recipe):
    """The parts of a variational autoencoder: the arguments of `VAE`, which says what each of them does."""

    kind: Literal["vae"] = "vae"
    modalities: tuple[Modality, ...]
    covariates: tuple[Covariate, ...] = ()
    latent: int = Field(default=10, ge=1)
    hidden: int = Field(default=128, ge=1)
    depth: int = Field(default=1, ge=0)
    dropout: float | None = Field(default=None, ge=0, lt=1)
    decoder_dropout: float | None = Field(default=None, ge=0, lt=1)
    skip: bool = True
    beta: float = Field(default=1.0, ge=0)
    warmup: AnyWarmup = LinearWarmup()
    objective: AnyObjective = ELBO()
    prior: AnyPrior = StandardNormal()
    posterior: AnyPosterior = Diagonal()
    modality_dropout: float = Field(default=0.0, ge=0, le=1)

    @field_validator("covariates", mode="before")
    @classmethod
    def _named(cls, covariates: Any) -> Any:
        return tuple({"name": c} if isinstance(c, str) else c for c in covariates)

    @model_validator(mode="after")
    def _distinct(self) -> Self:
        names = [m.name for m in self.modalities]
        if not names:
            raise InputError("expected at least one modality, found none: VAE(bv.rna()), for example.")
        if len(set(names)) < len(names):
            raise InputError(f"expected a name of its own for every modality, found {names}: set name= in each.")
        return self
