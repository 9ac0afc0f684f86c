"""bv.pp: looking at data before a model does."""

from collections.abc import Sequence

import pandas as pd
from anndata import AnnData
from mudata import MuData

from biovae.data import Prepared, prepare
from biovae.data import select_features as _select
from biovae.errors import listed
from biovae.modalities import Modality, rna

__all__ = ["check", "select_features"]


def check(
    data: AnnData | MuData, *modalities: Modality, covariates: Sequence[str] | str = (), latent: int | None = None
) -> tuple[str, ...]:
    """Look at every value once, as `fit` would, and say what was found; raises for what cannot be fitted.

    Args:
        data: Not changed.
        *modalities: What to look for; RNA counts where none is given.
        covariates: Columns of `obs` that the model would be told.
        latent: Dimensions of z, to be compared with the number of features.
    """
    sources = [m.source for m in modalities or (rna(),)]
    prepared: Prepared = prepare(data, sources, covariates=listed(covariates), latent=latent)
    return (*prepared.places, *prepared.notices)


def select_features(
    data: AnnData | MuData,
    features: int | Sequence[str] = 2000,
    *,
    modality: Modality | None = None,
    batches: str | None = None,
) -> pd.DataFrame:
    """Rank features by the variance of their analytic Pearson residuals; columns `variance`, `rank`, `selected`.

    The result can be handed on by name: `bv.rna(features=table.index[table.selected])`.

    Args:
        data: Not changed.
        features: How many to select, or their names.
        modality: Where the counts are; RNA counts where not given.
        batches: Column of `obs`: features are ranked within each batch, and by the median of those ranks.

    Source: Lause, Berens and Kobak 2021, Genome Biology 22:258, doi:10.1186/s13059-021-02451-7.
    """
    return _select(data, features, source=(modality or rna()).source, batches=batches)
