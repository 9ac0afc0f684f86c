"""What the questions have in common: units, a map, and tables that name their observations."""

from typing import TypeAlias

import numpy as np
import pandas as pd
from anndata import AnnData
from mudata import MuData

from biovae import plotting as pl
from biovae.model import VAE
from biovae.plotting.coordinates import PCA_NAME, pca2d
from biovae.schema import Support

Data: TypeAlias = AnnData | MuData
MOST_PANELS = 12
MOST_MAPPED = 20_000  # observations of a UMAP; beyond, the map is a PCA of z
UNITS = {Support.COUNTS: "counts per 10,000", Support.BINARY: "probability", Support.REALS: "value"}


def unit_of(vae: VAE) -> str:
    """In which the first modality is told."""
    return UNITS[vae.schema.modalities[0].support]


def flat(z: np.ndarray) -> tuple[np.ndarray, str]:
    """Two coordinates of each observation, and what they are."""
    return pl.map2d(z) if len(z) <= MOST_MAPPED else (pca2d(z), PCA_NAME)


def observed(frame: pd.DataFrame, data: Data) -> pd.DataFrame:
    """A row per observation, its name first."""
    names = pd.Series(np.asarray(data.obs_names), name="observation")
    return pd.concat([names, frame.reset_index(drop=True)], axis=1)
