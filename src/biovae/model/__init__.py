"""The VAE and everything that needs its network."""

from biovae.model.recipe import Covariate
from biovae.model.vae import VAE, load

__all__ = ["VAE", "Covariate", "load"]
