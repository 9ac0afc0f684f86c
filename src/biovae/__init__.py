"""biovae: variational autoencoders for biological data."""

__version__ = "0.1.0"
