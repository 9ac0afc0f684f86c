"""Columns of `obs` as tools need them: a value for every observation, or some observations and not others."""

from collections.abc import Sequence
from typing import TypeAlias

import numpy as np
import pandas as pd
from anndata import AnnData
from jaxtyping import Bool
from mudata import MuData

from biovae.batch import Observations
from biovae.data import column, flags
from biovae.errors import InputError

Groups: TypeAlias = str | Sequence[object] | np.ndarray | pd.Series


def labelled(data: AnnData | MuData, groups: Groups) -> pd.Series:
    """The column of that name, or the values that were given, one per observation.

    Raises:
        InputError: There is no such column, or values and observations differ in number.
    """
    if isinstance(groups, str):
        return column(data, groups)
    values = groups if isinstance(groups, pd.Series) else pd.Series(np.asarray(groups), name="groups")
    if len(values) != data.n_obs:
        raise InputError(
            f"expected a group for each of {data.n_obs:,} observations, found {len(values):,}: name a column of obs, "
            "or give one value per observation."
        )
    return values


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


def carried(observations: Observations, m: int) -> None:
    """Refuse observations of which some lack a modality.

    Raises:
        InputError: Some do.
    """
    present = observations.present[m]
    if present is not None and not bool(present.all()):
        raise InputError(
            f"expected the modality in every observation, found it missing in {int((~present).sum())} of those drawn: "
            "pass the observations that carry it."
        )
