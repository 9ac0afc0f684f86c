"""Rows of the design matrix for observations that do not exist yet: "as if it came from batch A".

c   (rows, covariates), one-hot and standardised as in training
"""

import math
import random
from collections.abc import Mapping

import torch
from jaxtyping import Float
from torch import Tensor

from biovae.errors import InputError, closest, first
from biovae.schema import CategoricalCovariate, Schema

Chosen = Mapping[str, str | float]

MOST = 64  # combinations of levels that an average runs over


def design_row(schema: Schema, chosen: Chosen) -> Float[Tensor, "covariates"]:
    """The row of the named values; a continuous covariate that is not named is at its training mean.

    Raises:
        InputError: A name or level is unknown, or a categorical covariate with several levels is not named.
    """
    names = [c.name for c in schema.covariates]
    if not isinstance(chosen, Mapping):
        raise InputError(f"expected covariates as {{name: level}}, found {chosen!r}: leave them out for an average.")
    for name in chosen:
        if name not in names:
            raise InputError(f"expected a covariate of the model, found {name!r}: {closest(name, names)}")
    parts = []
    for covariate in schema.covariates:
        if not isinstance(covariate, CategoricalCovariate):
            value = float(chosen.get(covariate.name, covariate.mean))
            parts.append(torch.tensor([(value - covariate.mean) / covariate.std]))
            continue
        levels = covariate.categories
        level = str(chosen.get(covariate.name, levels[0] if len(levels) == 1 else ""))
        if covariate.name not in chosen and len(levels) > 1:
            raise InputError(
                f"expected a level for covariate {covariate.name!r}, found none: give one of {first(levels, 8)}."
            )
        if level not in levels:
            raise InputError(f"expected a level of {covariate.name!r}, found {level!r}: {closest(level, levels)}")
        parts.append(torch.eye(len(levels))[levels.index(level)])
    return torch.cat(parts) if parts else torch.zeros(0)


def averaged_rows(schema: Schema, chosen: Chosen | None = None) -> Float[Tensor, "combinations covariates"]:
    """One row for every combination of the levels that are not chosen: what an average over batches runs over.

    Of more than 64 combinations so many, drawn at random, always the same ones.
    """
    chosen = dict(chosen or {})
    free = [c for c in schema.covariates if isinstance(c, CategoricalCovariate) and c.name not in chosen]
    names, sizes = [c.name for c in free], [len(c.categories) for c in free]
    whole = math.prod(sizes)
    drawn = range(whole) if whole <= MOST else sorted(random.Random(0).sample(range(whole), MOST))
    combinations = [[c.categories[i] for c, i in zip(free, _digits(number, sizes), strict=True)] for number in drawn]
    return torch.stack([design_row(schema, chosen | dict(zip(names, levels, strict=True))) for levels in combinations])


def _digits(number: int, sizes: list[int]) -> list[int]:
    """The number of a combination as one of each size, the last one fastest."""
    digits = []
    for size in reversed(sizes):
        number, digit = divmod(number, size)
        digits.append(digit)
    return digits[::-1]
