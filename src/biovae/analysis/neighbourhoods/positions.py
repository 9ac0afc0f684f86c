"""Positions that can be measured between."""

import numpy as np
from jaxtyping import Float

from biovae.errors import InputError, first


def finite(z: np.ndarray) -> Float[np.ndarray, "obs latent"]:
    """Positions as a float matrix.

    Raises:
        InputError: There are none, or a value is NaN or infinite.
    """
    try:
        z = np.asarray(z, dtype=np.float64)
    except (TypeError, ValueError) as error:
        raise InputError(
            f"expected positions as numbers, found {type(z).__name__} of others: pass an embedding."
        ) from error
    if z.ndim != 2 or z.size == 0:
        raise InputError(f"expected positions of shape (obs, latent), found {z.shape}: pass an embedding.")
    bad = np.flatnonzero(~np.isfinite(z).all(1))
    if len(bad):
        raise InputError(f"expected finite positions, found {len(bad)} that are not, at rows {first(bad)}: fit again.")
    return z
