"""Columns of `obs` as tools need them: a value for every observation, or some observations and not others."""

import numpy as np
import pandas as pd
from anndata import AnnData
from jaxtyping import Bool
from mudata import MuData

from biovae.data import column, flags
from biovae.errors import InputError


def complete(data: AnnData | MuData, name: str) -> pd.Series:
    """The column.

    Raises:
        InputError: There is none of that name, or values are missing.
    """
    values = column(data, name)
    if values.isna().any():
        raise InputError(
            f"expected a value of {name!r} for every observation, found {values.isna().sum()} missing: leave those out."
        )
    return values


def named(data: AnnData | MuData, which: str | np.ndarray, least: int = 1) -> Bool[np.ndarray, "obs"]:
    """Observations that a boolean column of `obs`, or an array, names.

    Raises:
        InputError: It is not boolean, not of every observation, or names fewer than `least`.
    """
    found = flags(data, which) if isinstance(which, str) else np.asarray(which)
    if found.dtype != bool or found.shape != (data.n_obs,):
        raise InputError(
            f"expected true or false for each of {data.n_obs} observations, found {found.dtype} of shape "
            f"{found.shape}: give a boolean column of obs, or such an array."
        )
    if found.sum() < least:
        raise InputError(
            f"expected at least {least} observations to be named, found {int(found.sum())} of {len(found)}: name more."
        )
    return found
