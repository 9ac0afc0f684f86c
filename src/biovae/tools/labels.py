"""Columns of `obs` as tools need them: a value for every observation, or some observations and not others."""

from collections.abc import Sequence
from typing import TypeAlias

import numpy as np
import pandas as pd
from anndata import AnnData
from jaxtyping import Bool, Int
from mudata import MuData

from biovae.batch import Observations
from biovae.data import column, flags, numeric
from biovae.data.covariates import label
from biovae.errors import InputError
from biovae.model import VAE
from biovae.schema import CategoricalCovariate, Support

MANY = 20  # different numbers, above which a column may be one of measurements
Groups: TypeAlias = str | Sequence[object] | np.ndarray | pd.Series


def labelled(data: AnnData | MuData, groups: Groups) -> pd.Series:
    """The column of that name, or the values that were given, one per observation.

    Raises:
        InputError: There is no such column, or values and observations differ in number.
    """
    if isinstance(groups, str):
        return column(data, groups)
    values = in_order(data, groups) if isinstance(groups, pd.Series) else pd.Series(np.asarray(groups), name="groups")
    if len(values) != data.n_obs:
        raise InputError(
            f"expected a group for each of {data.n_obs:,} observations, found {len(values):,}: name a column of obs, "
            "or give one value per observation."
        )
    return values


def in_order(data: AnnData | MuData, values: pd.Series) -> pd.Series:
    """Values of a series that names observations in the order of the data; one that only counts them is left alone.

    Raises:
        InputError: The series names other observations.
    """
    if isinstance(values.index, pd.RangeIndex) or values.index.equals(data.obs_names):
        return values
    if not (values.index.is_unique and data.obs_names.isin(values.index).all()):
        raise InputError(
            f"expected a series with an entry for each of {data.n_obs:,} observations, found "
            f"{int(data.obs_names.isin(values.index).sum()):,} of their names in its index: index it by obs_names, or "
            "give its values alone."
        )
    return values.reindex(data.obs_names)


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


def levels(data: AnnData | MuData, name: str) -> np.ndarray:
    """The group that a column names for each observation, as text.

    Raises:
        InputError: There is no such column, values are missing, or it holds measurements and no groups.
    """
    if not isinstance(name, str):
        raise InputError(f"expected the name of a column of obs as groups, found {type(name).__name__}: put it there.")
    values = complete(data, name)
    many = values.nunique()
    if numeric(values) and many > MANY and (many > len(values) / 10 or bool((values % 1 != 0).any())):
        raise InputError(
            f"expected a column of groups, found {many:,} different numbers in {name!r}: cut it into intervals, or "
            "name another."
        )
    return np.array([label(value) for value in values], dtype=object).astype(str)


def named(data: AnnData | MuData, which: str | np.ndarray | pd.Series, least: int = 1) -> Bool[np.ndarray, "obs"]:
    """Observations that a boolean column of `obs`, or an array, names.

    Raises:
        InputError: It is not boolean, not of every observation, or names fewer than `least`.
    """
    given = in_order(data, which) if isinstance(which, pd.Series) else which
    found = flags(data, given) if isinstance(given, str) else np.asarray(given)
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


def strata(vae: VAE, data: AnnData | MuData) -> Int[np.ndarray, "obs"]:
    """The number of each observation's combination of levels of the model's categorical covariates."""
    names = [c.name for c in vae.schema.covariates if isinstance(c, CategoricalCovariate)]
    if not names:
        return np.zeros(data.n_obs, dtype=np.int64)
    table = pd.DataFrame({name: column(data, name).astype(str).to_numpy() for name in names})
    return table.groupby(names).ngroup().to_numpy()


def quantities(vae: VAE, modality: str | None) -> None:
    """Refuse a modality whose values are names of categories, of which there is no mean.

    Raises:
        InputError: It is one.
    """
    m = vae.index(modality)
    if vae.schema.modalities[m].support is Support.CATEGORIES:
        raise InputError(
            f"expected counts, reals or zeros and ones, found categories in {vae.modalities[m].name!r}: choose another "
            "modality."
        )


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
