"""PCA of what a model was fitted to: the same training observations, the same values, on the scale that suits them."""

import numpy as np

from biovae.analysis import PCA, log_normalise, pca
from biovae.batch import plain
from biovae.data import Prepared, Role


def principal(prepared: Prepared, roles: np.ndarray, components: int, seed: int) -> PCA:
    """PCA of the first modality; of counts, of log1p of counts per 10,000 of the exposure."""
    x, exposure = plain(prepared.observations.x[0]), prepared.observations.exposure[0]
    if exposure is not None:
        x = log_normalise(x, exposure[:, 0].numpy())
    return pca(x, components, seed, roles == Role.TRAIN)
