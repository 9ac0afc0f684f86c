"""The decoded f(0) beside the data: what the model holds to be typical."""

import numpy as np
import pandas as pd
from anndata import AnnData
from mudata import MuData

from biovae.analysis import Prototype
from biovae.analysis import prototype as compare
from biovae.batch import plain
from biovae.model import VAE
from biovae.tools.labels import complete

PER = 1e4  # counts are compared per 10,000


def prototype(vae: VAE, data: AnnData | MuData, *, groups: str | None = None, modality: str | None = None) -> Prototype:
    """Decode z = 0 and compare it with the mean of the data, the nearest observations, and the means of groups.

    Args:
        vae: A fitted model.
        data: The observations to compare with; not changed.
        groups: Column of `obs` whose levels the prototype is compared with and explained as a mixture of.
        modality: Which one; None takes the first.

    Returns:
        `frame` per feature, nearest observations, similarity to each group, mixture weights.

    Raises:
        InputError: A group column has missing values, or there is none of that name.
    """
    m = vae.index(modality)
    observations = vae.observe(data).observations
    x = plain(observations.x[m])
    exposure = observations.exposure[m]
    scale = np.ones(len(observations)) if exposure is None else PER / exposure[:, 0].numpy()
    types = None
    if groups is not None:
        types = group_means(x, complete(data, groups).astype(str).to_numpy(), scale)
    centre = vae.decode(np.zeros((1, vae.latent)), modality=modality, library=PER)[0]
    mean = np.asarray(scale @ x).ravel() / len(scale)
    return compare(centre, mean, list(vae.features(modality)), vae.embed(data), types)


def group_means(x: np.ndarray, groups: np.ndarray, scale: np.ndarray) -> pd.DataFrame:
    """Mean of scale * x in each group, a row per group."""
    levels, member = np.unique(groups, return_inverse=True)
    weight = (member[None, :] == np.arange(len(levels))[:, None]) * scale
    return pd.DataFrame(np.asarray(weight @ x) / np.bincount(member)[:, None], index=levels)
