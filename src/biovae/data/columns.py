"""Columns of `obs`, wherever the data keep them."""

import numpy as np
import pandas as pd
from anndata import AnnData
from mudata import MuData

from biovae.errors import InputError, closest, first


def column(data: AnnData | MuData, name: str) -> pd.Series:
    """A column of `obs`, or an error that suggests the nearest name."""
    if name not in data.obs:
        raise InputError(f"expected a column of obs, found {name!r}: {closest(name, data.obs.columns)}")
    return data.obs[name]


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
