"""The decoded f(0) beside the data: what the model holds to be typical."""

from dataclasses import replace

import numpy as np
import pandas as pd
from anndata import AnnData
from jaxtyping import Float
from mudata import MuData

from biovae.analysis import Prototype
from biovae.analysis import prototype as compare
from biovae.batch import Observations
from biovae.model import VAE
from biovae.tools.labels import complete, quantities

PER = 1e4  # counts are compared per 10,000


def prototype(vae: VAE, data: AnnData | MuData, *, groups: str | None = None, modality: str | None = None) -> Prototype:
    """Decode z = 0 and compare it with the mean of the data, the nearest observations, and the means of groups.

    The centre of every group is decoded, too: its own prototype.

    Args:
        vae: A fitted model.
        data: The observations to compare with; not changed.
        groups: Column of `obs` whose levels the prototype is compared with and explained as a mixture of.
        modality: Which one; None takes the first.

    Returns:
        `frame` per feature, nearest observations, similarity to each group, mixture weights; `centres`, the decoded
        mean z of each group.

    Raises:
        InputError: A group column has missing values, or there is none of that name.
    """
    m = vae.index(modality)
    quantities(vae, modality)
    named = None if groups is None else complete(data, groups).astype(str).to_numpy()
    mean, types = averages(vae.observe(data).observations, m, named)
    centre = vae.decode(np.zeros((1, vae.latent)), modality=modality, library=PER)[0]
    z, names = vae.embed(data), list(vae.features(modality))
    found = compare(centre, mean, names, z, types)
    if named is None:
        return found
    middles = pd.DataFrame(z).groupby(named).mean()
    decoded = vae.decode(middles.to_numpy(), modality=modality, library=PER)
    return replace(found, centres=pd.DataFrame(decoded, middles.index, names))


def averages(
    observations: Observations, m: int, groups: np.ndarray | None = None
) -> tuple[Float[np.ndarray, "features"], pd.DataFrame | None]:
    """Mean of a modality, counts per 10,000, among the observations that carry it, and in each group, a row each."""
    (x, rows), exposure = observations.measured(m), observations.exposure[m]
    scale = np.ones(len(rows)) if exposure is None else PER / exposure[rows, 0].numpy()
    mean = np.asarray(scale @ x).ravel() / max(len(rows), 1)
    if groups is None:
        return mean, None
    levels, member = np.unique(groups[rows], return_inverse=True)
    weight = (member[None, :] == np.arange(len(levels))[:, None]) * scale
    return mean, pd.DataFrame(np.asarray(weight @ x) / np.bincount(member)[:, None], index=levels)
