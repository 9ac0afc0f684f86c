"""Two coordinates for a latent map: UMAP where it can be had, the first two principal components of z otherwise.

    z   posterior means   (obs, latent)

Source: McInnes, Healy and Melville 2018, UMAP: uniform manifold approximation and projection, arXiv:1802.03426.
"""

from __future__ import annotations

import warnings
from typing import Any

import numpy as np

from biovae.errors import InputError
from biovae.noise import Noise

PCA_NAME, UMAP_NAME = "PCA of z", "UMAP"
FEWEST_FOR_UMAP = 50  # its neighbour graph says nothing about fewer observations


def map2d(z: np.ndarray, seed: int = 0) -> tuple[np.ndarray, str]:
    """Coordinates (obs, 2) and what they are: "UMAP" or "PCA of z".

    UMAP is used where the package `umap-learn` is installed and works, z has more than two dimensions, and there are at
    least 50 observations; the same seed gives the same map.

    Args:
        z: Latent positions, (obs, latent).
        seed: The seed of UMAP; the principal components need none.

    Raises:
        InputError: z is not a finite matrix with at least one row and one column.
    """
    z = np.asarray(z, dtype=np.float64)
    if z.ndim != 2 or 0 in z.shape:
        raise InputError(f"expected z as (obs, latent), found an array of shape {z.shape}: pass vae.embed(adata).")
    bad = int((~np.isfinite(z)).any(axis=1).sum())
    if bad:
        found = f"NaN or infinity in {bad:,} of {len(z):,} observations"
        raise InputError(f"expected finite z, found {found}: fit again, with a smaller learning rate.")
    reducer = _umap_class() if z.shape[1] > 2 and len(z) >= FEWEST_FOR_UMAP else None
    return (pca2d(z), PCA_NAME) if reducer is None else (_umap(reducer, z, seed), UMAP_NAME)


def pca2d(z: np.ndarray) -> np.ndarray:
    """The first two principal components, (obs, 2); the sign is such that the largest loading is positive."""
    centred = z - z.mean(axis=0)
    _, vectors = np.linalg.eigh(centred.T @ centred)
    axes = vectors[:, ::-1][:, :2]
    axes = axes * np.sign(axes[np.abs(axes).argmax(axis=0), np.arange(axes.shape[1])])
    scores = centred @ axes
    return np.pad(scores, ((0, 0), (0, 2 - scores.shape[1])))


def _umap_class() -> Any:
    """UMAP; None where it is not installed, or one of the packages that it needs does not work."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of its own dependencies: numba and optional tensorflow
        try:
            from umap import UMAP
        except ImportError:
            return None
    return UMAP


def _umap(reducer: Any, z: np.ndarray, seed: int) -> np.ndarray:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        fitted = reducer(n_components=2, random_state=Noise(seed).integer % 2**32, n_jobs=1).fit_transform(z)
    return np.asarray(fitted, dtype=np.float64)
