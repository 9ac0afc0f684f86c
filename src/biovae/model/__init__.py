"""The VAE and everything that needs its network."""

from biovae.model.vae import VAE, Covariate, load

__all__ = ["VAE", "Covariate", "load"]
