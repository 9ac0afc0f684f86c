"""What every tool refuses before it begins: other things than a model and data, numbers of draws that are none."""

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
from anndata import AnnData
from mudata import MuData

from biovae.data.covariates import label
from biovae.errors import InputError
from biovae.model import VAE


def model_and_data(vae: object, *data: object, **numbers: object) -> None:
    """Refuse anything else, and numbers that are not whole, or below 0.

    Raises:
        InputError: The first is no `bv.VAE`, one of the others neither an AnnData nor a MuData, or a number is wrong.
    """
    if not isinstance(vae, VAE):
        raise InputError(
            f"expected a model, and then data, found {type(vae).__name__} in place of the model: give a bv.VAE first."
        )
    for each in data:
        if not isinstance(each, AnnData | MuData):
            raise InputError(
                f"expected an AnnData or a MuData, found {type(each).__name__}: read files with biovae.data.read."
            )
    whole(0, **numbers)


def whole(least: int = 0, **numbers: object) -> None:
    """Refuse arguments that are not whole numbers of at least so many.

    Raises:
        InputError: One is not.
    """
    for name, value in numbers.items():
        if isinstance(value, bool) or not isinstance(value, int | np.integer) or value < least:
            raise InputError(f"expected {name} to be a whole number, found {value!r}: give one of {least:,} or more.")


def real(least: float = 0, **numbers: object) -> None:
    """The same of numbers that need not be whole, but finite."""
    for name, value in numbers.items():
        known = isinstance(value, int | float | np.number) and not isinstance(value, bool) and np.isfinite(value)
        if not known or value < least:  # type: ignore[operator]  # it is a number
            raise InputError(f"expected {name} to be a number, found {value!r}: give one of {least:g} or more.")


def each(check: Callable[..., None], least: float, **numbers: object) -> list[Any]:
    """Numbers as a list, every one checked by `whole` or `real`; one number alone is a list of one.

    Raises:
        InputError: One is wrong, or there is none.
    """
    ((name, given),) = numbers.items()
    found: list[Any] = [given] if np.ndim(given) == 0 else [*given]  # type: ignore[misc,arg-type]  # it has a length
    for value in found:
        check(least, **{name: value})
    if not found:
        raise InputError(f"expected one number at least as {name}, found none: give some.")
    return found


def one_group(group: object, name: str) -> tuple[str, str]:
    """Column and level, as text, of an argument `{column: level}`.

    Raises:
        InputError: It is something else.
    """
    if not isinstance(group, Mapping) or len(group) != 1:
        raise InputError(f"expected one column and one level, as {name}, found {group!r}: {{'cell_type': 'B cell'}}.")
    ((column, level),) = group.items()
    return column, label(level)
