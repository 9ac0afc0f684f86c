"""Covariates: columns of `obs` learned once, then matched by name, never by code.

Text, categories and booleans become one-hot columns; numbers are standardised by the training mean and standard
deviation. A missing value is never a class, and a code of -1 never reaches a model.
"""

from collections.abc import Hashable, Mapping, Sequence
from typing import Any, Literal

import numpy as np
import pandas as pd
from anndata import AnnData
from jaxtyping import Bool
from mudata import MuData

from biovae.errors import InputError, closest, first
from biovae.schema import CategoricalCovariate, ContinuousCovariate

Unseen = Literal["error", "zero"] | Mapping[str, Mapping[Any, str]]
FEW_LEVELS = 20  # whole numbers with so few distinct values may well be codes
MANY_LEVELS = 50  # text with more levels than this and than half of the observations is a name, not a category


def column(data: AnnData | MuData, name: str) -> pd.Series:
    """A column of `obs`; in a MuData also one that only its modalities carry.

    Raises:
        InputError: If no table has it.
    """
    if not isinstance(name, Hashable):
        raise InputError(f"expected the name of a column of obs, found {type(name).__name__}: give it as text.")
    if name in data.obs:
        return data.obs[name]
    known = list(data.obs.columns)
    if isinstance(data, MuData):
        parts = [part.obs[name] for part in data.mod.values() if name in part.obs and part.obs_names.is_unique]
        if parts:
            joined = pd.concat([part.astype(object) for part in parts])
            whole = joined[~joined.index.duplicated()].reindex(data.obs_names)
            return whole.infer_objects()
        known += [key for part in data.mod.values() for key in part.obs.columns]
    raise InputError(f"expected a column {name!r} in obs, found none: {closest(name, known)}")


def learn(
    values: pd.Series, name: str, free: Bool[np.ndarray, "obs"] | None = None
) -> tuple[CategoricalCovariate | ContinuousCovariate, list[str]]:
    """What a model remembers of a covariate, and notices about it; numbers are those of the `free` observations."""
    _refuse_missing(values, name)
    if numeric(values):
        numbers = _floats(values, name)
        return _learn_numbers(numbers if free is None else numbers[free], name)
    labels = pd.Index(_labels(values))
    counts = labels.value_counts()
    levels = sorted(counts.index)
    if len(levels) > max(MANY_LEVELS, len(values) // 2):
        raise InputError(
            f"expected a covariate {name!r} with repeated values, found {len(levels)} different ones in {len(values)} "
            f"observations ({first(levels)}): leave it out."
        )
    notes = []
    if len(levels) == 1:
        notes.append(f"covariate {name!r} has the single level {levels[0]!r}: it has no effect.")
    elif alone := [level for level in levels if counts[level] == 1]:
        notes.append(f"covariate {name!r} has {len(alone)} levels with one observation each ({first(alone)}).")
    return CategoricalCovariate(name=name, categories=tuple(levels)), notes


def encode(values: pd.Series, covariate: CategoricalCovariate | ContinuousCovariate, unseen: Unseen) -> np.ndarray:
    """The columns of the design matrix for one covariate, float32.

    Args:
        values: The column of the new observations.
        covariate: What was learned in training.
        unseen: "error", "zero" (an unknown category is a row of zeros), or {column: {new: known}}.
    """
    if isinstance(covariate, ContinuousCovariate):
        _refuse_missing(values, covariate.name)
        numbers = (_floats(values, covariate.name) - covariate.mean) / covariate.std
        return numbers.astype(np.float32)[:, None]
    codes = _codes(values, covariate, unseen)
    design = np.zeros((len(values), covariate.width), dtype=np.float32)
    known = np.flatnonzero(codes >= 0)
    design[known, codes[known]] = 1
    return design


def _codes(values: pd.Series, covariate: CategoricalCovariate, unseen: Unseen) -> np.ndarray:
    table = {} if isinstance(unseen, str) else {label(k): v for k, v in unseen.get(covariate.name, {}).items()}
    wrong = [known for known in table.values() if known not in covariate.categories]
    if wrong:
        raise InputError(
            f"expected unseen= to map onto known categories of {covariate.name!r}, found {first(wrong)}: "
            + closest(wrong[0], covariate.categories)
        )
    missing = values.isna().to_numpy()
    labels, inverse = np.unique(np.asarray(_labels(values), dtype=object).astype(str), return_inverse=True)
    position = {category: i for i, category in enumerate(covariate.categories)}
    numbers = {_number(category): i for category, i in position.items()}
    numbers.pop(None, None)
    level = [position.get(table.get(str(name), str(name)), numbers.get(_number(str(name)), -1)) for name in labels]
    codes = (
        np.where(missing, -1, np.array(level, dtype=np.int64)[inverse]) if len(labels) else np.zeros(0, dtype=np.int64)
    )
    if unseen != "zero" and (codes < 0).any():
        strange = [str(name) for name, code in zip(labels, level, strict=True) if code < 0 and name != _MISSING]
        found = [f"the unseen {first(strange)}"] if strange else []
        found += [f"{int(missing.sum())} missing values"] if missing.any() else []
        raise InputError(
            f"expected the categories {first(covariate.categories, most=8)} in obs[{covariate.name!r}], found "
            f"{' and '.join(found)}: rename them, give unseen='zero', or unseen={{{covariate.name!r}: {{new: known}}}}."
        )
    return codes


_MISSING = "\0missing"


def label(value: Hashable) -> str:
    """The name of a category, the same whether it was stored as text, as a number or as a boolean."""
    if isinstance(value, float | np.floating) and float(value).is_integer():
        return str(int(value))
    return str(value)


def _labels(values: pd.Series) -> list[str]:
    unique = {value: label(value) for value in values.unique() if not pd.isna(value)}
    return [unique.get(value, _MISSING) for value in values]


def _number(name: str) -> float | None:
    try:
        number = float(name)
    except ValueError:
        return None
    return number if np.isfinite(number) else None


def numeric(values: pd.Series) -> bool:
    """Whether a covariate is a number, not a category: whole numbers are, booleans are not."""
    kind = values.dtype
    return pd.api.types.is_numeric_dtype(kind) and not pd.api.types.is_bool_dtype(kind)


def _floats(values: pd.Series, name: str) -> np.ndarray:
    try:
        numbers = pd.to_numeric(values.astype(object)).to_numpy(dtype=np.float64)
    except (TypeError, ValueError) as error:
        raise InputError(f"expected numbers in obs[{name!r}], found other values ({error}).") from error
    if not np.isfinite(numbers).all():
        wrong = np.flatnonzero(~np.isfinite(numbers))
        raise InputError(
            f"expected finite numbers in obs[{name!r}], found {wrong.size} infinite ({_who(values, wrong)})."
        )
    return numbers


def _learn_numbers(numbers: np.ndarray, name: str) -> tuple[ContinuousCovariate, list[str]]:
    mean, std = float(numbers.mean()), float(numbers.std())
    if not std > 1e-12 * max(1.0, abs(mean)):
        raise InputError(f"expected a covariate {name!r} that varies, found {mean:g} everywhere: leave it out.")
    levels = len(np.unique(numbers))
    notes = []
    if levels <= FEW_LEVELS and (numbers == np.rint(numbers)).all():
        notes.append(
            f"covariate {name!r} holds {levels} whole numbers and is used as a number; if they are codes, "
            f"make it a category: obs[{name!r}].astype(str).astype('category')."
        )
    return ContinuousCovariate(name=name, mean=mean, std=std), notes


def _refuse_missing(values: pd.Series, name: str) -> None:
    missing = np.flatnonzero(values.isna().to_numpy())
    if missing.size:
        raise InputError(
            f"expected {name!r} of every observation, found {missing.size} missing ({_who(values, missing)}): "
            "fill them, or leave these observations out."
        )


def _who(values: pd.Series, rows: Sequence[int] | np.ndarray) -> str:
    return first(values.index[i] for i in rows)
