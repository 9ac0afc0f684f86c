"""What several tools need of a model and data: posteriors as a density, decoding, and the way there and back."""

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import TypeAlias

import numpy as np
import scipy.sparse
import torch
from anndata import AnnData
from jaxtyping import Bool, Float, Int
from mudata import MuData
from torch import Tensor

from biovae.analysis import PCA, Density, density, leiden, log_normalise, pca
from biovae.batch import Batch, Observations, SparseMatrix, plain
from biovae.errors import InputError
from biovae.model import VAE
from biovae.model.inference import everything, posterior_moments, rows_at_once
from biovae.model.replicate import alike
from biovae.network import Network
from biovae.noise import Noise
from biovae.schema import Support
from biovae.tools.arguments import model_and_data
from biovae.tools.labels import Labels, carried, levels, named, quantities

Data: TypeAlias = AnnData | MuData
PER = 1e4  # counts are decoded per 10,000
TIMES = 4  # that each point is decoded and encoded again


@dataclass(frozen=True)
class Latent:
    """Observations as a model sees them, those of its density and no others.

    Attributes:
        q: The density.
        observations: In the order of q.
        rows: Their positions in the data.
    """

    vae: VAE
    q: Density
    observations: Observations
    rows: Int[np.ndarray, "obs"]


def latent(
    vae: VAE, data: Data, held_out: str | np.ndarray | None = None, seed: int = 0, most: int | None = None
) -> Latent:
    """The aggregate posterior of data; the support is measured by the held-out observations where there are some.

    Args:
        vae: A fitted model.
        data: The observations; not changed.
        held_out: Boolean column of `obs`, or array: observations that training has not seen, kept out of the density.
        seed: Of subsets of large data.
        most: Make the density of so many observations at most, drawn at random; None takes all.
    """
    model_and_data(vae, data, seed=seed)
    observations = vae.observe(data).observations
    moments = posterior_moments(vae.network, observations, everything(observations))
    apart = _apart(data, len(observations), held_out)
    rows = np.flatnonzero(~apart)
    if most is not None and len(rows) > most:
        rows = np.sort(Noise(seed).numpy().permutation(rows)[:most])
    measured = moments.mean[apart] if apart.any() else None
    q = density(moments.mean[rows], moments.variance[rows], held_out=measured, seed=seed)
    if len(rows) < len(observations):
        observations = vae.observe(data, indices=rows).observations
    return Latent(vae, q, observations, rows)


def _apart(data: Data, observations: int, held_out: str | np.ndarray | None) -> Bool[np.ndarray, "obs"]:
    """The observations that have no part in the density."""
    if held_out is None:
        return np.zeros(observations, dtype=bool)
    apart = named(data, held_out)
    if apart.all():
        raise InputError(
            f"expected some of {observations} observations held out and some not, found {int(apart.sum())} of "
            f"{len(apart)}: give a boolean for each."
        )
    return apart


def regions(given: Latent, data: Data, groups: str | None, seed: int = 0, least: int = 1) -> Labels:
    """The group of each observation: a column of `obs`, None for none, or clusters of the latent neighbour graph.

    Raises:
        InputError: There is no such column, or it names fewer groups than `least`.
    """
    if groups is None:
        return leiden(given.q.mean, seed=seed)
    return levels(data, groups, least)[given.rows]


def decoder(vae: VAE, modality: str | None) -> Callable[[np.ndarray], Float[np.ndarray, "points features"]]:
    """z to means per 10,000, averaged over the levels of the covariates."""
    quantities(vae, modality)
    return lambda z: vae.decode(np.asarray(z), modality=modality, library=PER)


def support_of(vae: VAE, modality: str | None) -> Support:
    """Which values a modality has."""
    return vae.schema.modalities[vae.index(modality)].support


def there_and_back(given: Latent, seed: int = 0) -> Callable[[np.ndarray], Float[np.ndarray, "points latent"]]:
    """z to the mean of encode(x), x drawn from the decoder at z, four times.

    Exposure, covariates and carried modalities are those of the observation that owns z.
    """

    def again(z: np.ndarray) -> np.ndarray:
        owners = torch.from_numpy(given.q.owner(z))
        points = torch.as_tensor(z, dtype=torch.float32)
        network = given.vae.network.eval()
        size = rows_at_once(network, given.observations)
        parts = zip(owners.split(size), points.split(size), strict=True)
        drawn = [_again(network, given.observations.batch(own), at, (seed, i)) for i, (own, at) in enumerate(parts)]
        return torch.cat(drawn).cpu().numpy().astype(np.float64)

    return again


@torch.no_grad()
def _again(network: Network, batch: Batch, z: Tensor, key: tuple[int, int]) -> Float[Tensor, "points latent"]:
    total = torch.zeros(())
    for time in range(TIMES):
        noise = Noise(key[0], 7 + time, key[1])
        x = tuple(
            alike(network.decode(z, batch, m).sample(noise), was) for m, was in enumerate(batch.x)
        )  # a modality that is not carried is drawn, and not read
        total = total + network.encode(Batch(x, batch.exposure, batch.present, batch.covariates)).z.mean
    return total / TIMES


def counts_of(given: Latent, modality: str | None) -> scipy.sparse.csr_array:
    """The counts of a modality, sparse.

    Raises:
        InputError: It holds no counts.
    """
    m = given.vae.index(modality)
    x = given.observations.x[m]
    if support_of(given.vae, modality) is not Support.COUNTS or not isinstance(x, SparseMatrix):
        raise InputError(
            f"expected a modality of counts, found {support_of(given.vae, modality)} in "
            f"{given.vae.modalities[m].name!r}: plausibility compares counts; name another with modality=."
        )
    carried(given.observations, m)
    return x.scipy()


def linear(
    observations: Observations, components: int, train: Bool[np.ndarray, "obs"] | None = None, seed: int = 0
) -> PCA:
    """Principal components of the first modality of some observations, and the scores of all; counts log-normalised.

    An observation that does not carry the modality has no part in them, and stands at their mean.
    """
    x, exposure = plain(observations.x[0]), observations.exposure[0]
    if exposure is not None:
        x = log_normalise(x, exposure[:, 0].numpy())
    fitted = np.zeros(len(observations), dtype=bool)
    fitted[observations.carriers(0).numpy()] = True
    base = pca(x, components, seed, fitted if train is None else fitted & train)
    return replace(base, scores=np.where(fitted[:, None], base.scores, 0))
