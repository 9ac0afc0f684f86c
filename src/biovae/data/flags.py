"""Columns of `obs` that say yes or no."""

import numpy as np
from anndata import AnnData
from mudata import MuData

from biovae.data.covariates import column
from biovae.errors import InputError, first


def flags(data: AnnData | MuData, name: str) -> np.ndarray:
    """A boolean column; 0 and 1, "true" and "false" are read as such."""
    values = column(data, name)
    words = values.astype(str).str.lower().str.replace(r"\.0$", "", regex=True)
    known = {"true": True, "1": True, "yes": True, "false": False, "0": False, "no": False}
    strange = sorted(set(words) - set(known))
    if strange:
        raise InputError(
            f"expected true or false in column {name!r}, found {first(strange)}: give a boolean column of obs."
        )
    return words.map(known).to_numpy(bool)
