"""Columns of `obs` as tools need them: a group for each observation, or some observations and not others.

An observation without a label (a missing value, blank text) has no part in the groups. It counts for all else: density,
neighbours, clusters, means of the data. Tools say how many there are, and refuse where too few groups are left.
"""

from collections.abc import Hashable, Sequence
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
Labels: TypeAlias = np.ndarray  # text, None where an observation has none, (obs,)


def labelled(data: AnnData | MuData, groups: Groups) -> pd.Series:
    """The column of that name, or the values that were given, one per observation.

    Raises:
        InputError: There is no such column, or values and observations differ in number.
    """
    if isinstance(groups, str):
        return column(data, groups)
    if groups is None or np.ndim(np.asarray(groups, dtype=object)) != 1:
        raise InputError(
            f"expected the name of a column of obs, or a group for each observation, found {type(groups).__name__}: "
            "name a column."
        )
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


def levels(data: AnnData | MuData, name: str, least: int = 1) -> Labels:
    """The group that a column names for each observation, as text; None where it names none.

    Raises:
        InputError: There is no such column, it holds measurements and no groups, or names fewer groups than `least`.
    """
    if not isinstance(name, str):
        raise InputError(f"expected the name of a column of obs as groups, found {type(name).__name__}: put it there.")
    return texts(column(data, name).rename(name), least)


def texts(values: pd.Series, least: int = 1) -> Labels:
    """The same of values that are given, one per observation."""
    values = cleared(values)
    code, known = pd.factorize(values)
    if numeric(values) and len(known) > MANY and (len(known) > len(values) / 10 or bool((known % 1 != 0).any())):
        raise InputError(
            f"expected a column of groups, found {len(known):,} different numbers in {values.name!r}: cut it into "
            "intervals, or name another."
        )
    labels = np.array([*map(label, known), None], dtype=object)[code]
    if len(groups := present(labels)) < least:
        wanted = "one group" if least == 1 else "two groups"
        found, gone = f"{groups[0]!r} alone" if groups else "none", int((code < 0).sum())
        aside = f", and {gone:,} of {len(values):,} observations without a label" if gone else ""
        raise InputError(f"expected at least {wanted} in {values.name!r}, found {found}{aside}: name another column.")
    return labels


def cleared(values: pd.Series) -> pd.Series:
    """The column with blank text as missing.

    Raises:
        InputError: It holds what is no label: lists, arrays.
    """
    if numeric(values) or pd.api.types.is_bool_dtype(values.dtype):
        return values
    odd = next((value for value in values if not isinstance(value, Hashable)), None)
    if odd is not None:
        raise InputError(f"expected a column of labels, found {type(odd).__name__} in {values.name!r}: name another.")
    blank = [isinstance(value, str) and not value.strip() for value in values]
    return values.mask(np.array(blank, dtype=bool))


def present(labels: Labels) -> list[str]:
    """Names of the groups, in order."""
    return sorted({name for name in labels if name is not None})


def left_out(labels: Labels | pd.Series, name: object) -> tuple[str, ...]:
    """A sentence on the observations without a label; none where all have one.

    >>> left_out(np.array(["B", None, "T"], dtype=object), "cell_type")
    ('1 of 3 observations has no cell_type and has no part in the groups.',)
    """
    gone = int(pd.isna(labels).sum())
    has = "has" if gone == 1 else "have"
    said = f"{gone:,} of {len(labels):,} observations {has} no {name} and {has} no part in the groups."
    return (said,) if gone else ()


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
