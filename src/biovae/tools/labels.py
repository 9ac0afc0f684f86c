"""A column of `obs` that every observation has a value in."""

import pandas as pd
from anndata import AnnData
from mudata import MuData

from biovae.data import column
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
