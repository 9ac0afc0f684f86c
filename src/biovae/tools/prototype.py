"""The decoded f(0) beside the data: what the model holds to be typical."""

from dataclasses import replace

import numpy as np
import pandas as pd
import scipy.sparse
from anndata import AnnData
from jaxtyping import Float
from mudata import MuData

from biovae.analysis import Prototype
from biovae.analysis import prototype as compare
from biovae.batch import Observations
from biovae.model import VAE
from biovae.noise import Noise
from biovae.tools.labels import complete, quantities

PER = 1e4  # counts are compared per 10,000
DRAWS = 40  # bootstraps of the observations


def prototype(
    vae: VAE, data: AnnData | MuData, *, groups: str | None = None, modality: str | None = None, seed: int = 0
) -> Prototype:
    """Decode z = 0 and compare it with the mean of the data, the nearest observations, and the means of groups.

    The centre of every group is decoded, too: its own prototype. The shares of the mixture have limits: those of a
    bootstrap of the observations, and of an ensemble over the f(0) of its fits as well.

    Args:
        vae: A fitted model.
        data: The observations to compare with; not changed.
        groups: Column of `obs` whose levels the prototype is compared with and explained as a mixture of.
        modality: Which one; None takes the first.
        seed: Of the bootstrap.

    Returns:
        `frame` per feature, nearest observations, similarity to each group, mixture weights; `centres`, the decoded
        mean z of each group.

    Raises:
        InputError: A group column has missing values, or there is none of that name.
    """
    m = vae.index(modality)
    quantities(vae, modality)
    named = None if groups is None else complete(data, groups).astype(str).to_numpy()
    observations = vae.observe(data).observations
    mean, types = averages(observations, m, named)
    centres = [fit.decode(np.zeros((1, vae.latent)), modality=modality, library=PER)[0] for fit in vae.members]
    z, names = vae.embed(data), list(vae.features(modality))
    again = () if named is None else _again(observations, m, named, centres, seed)
    found = compare(centres[0], mean, names, z, types, again)
    if named is None:
        return found
    middles = pd.DataFrame(z).groupby(named).mean()
    decoded = vae.decode(middles.to_numpy(), modality=modality, library=PER)
    return replace(found, centres=pd.DataFrame(decoded, middles.index, names))


def averages(
    observations: Observations, m: int, groups: np.ndarray | None = None
) -> tuple[Float[np.ndarray, "features"], pd.DataFrame | None]:
    """Mean of a modality, counts per 10,000, among the observations that carry it, and in each group, a row each."""
    x, scale, rows = _scaled(observations, m)
    mean = np.asarray(scale @ x).ravel() / max(len(rows), 1)
    if groups is None:
        return mean, None
    levels, member = np.unique(groups[rows], return_inverse=True)
    return mean, pd.DataFrame(_means(x, scale, member, np.ones((1, len(rows))))[0], index=levels)


def _again(
    observations: Observations, m: int, groups: np.ndarray, centres: list[np.ndarray], seed: int
) -> list[tuple[Float[np.ndarray, "features"], Float[np.ndarray, "types features"]]]:
    """f(0) of one fit after the other, and the means of groups whose observations are weighed by a bootstrap."""
    x, scale, rows = _scaled(observations, m)
    member = np.unique(groups[rows], return_inverse=True)[1]
    means = _means(x, scale, member, Noise(seed).numpy().exponential(size=(DRAWS, len(rows))))
    return [(centres[draw % len(centres)], table) for draw, table in enumerate(means)]


def _scaled(
    observations: Observations, m: int
) -> tuple[scipy.sparse.csr_array | np.ndarray, Float[np.ndarray, "carriers"], np.ndarray]:
    """Values of the observations that carry a modality, what makes them counts per 10,000, and which these are."""
    (x, rows), exposure = observations.measured(m), observations.exposure[m]
    return x, np.ones(len(rows)) if exposure is None else PER / exposure[rows, 0].numpy(), rows


def _means(
    x: scipy.sparse.csr_array | np.ndarray,
    scale: np.ndarray,
    member: np.ndarray,
    weight: Float[np.ndarray, "draws carriers"],
) -> Float[np.ndarray, "draws groups features"]:
    """Weighted means of groups; the Bayesian bootstrap (Rubin 1981, doi:10.1214/aos/1176345338) draws the weights."""
    found = np.empty((len(weight), int(member.max(initial=-1)) + 1, x.shape[1]))
    for group in range(found.shape[1]):
        rows = np.flatnonzero(member == group)
        own = weight[:, rows]
        found[:, group] = ((own * scale[rows]) @ x[rows]) / own.sum(1, keepdims=True)
    return found
