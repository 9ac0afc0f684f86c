"""Three sets: validation steers training, test is never touched by it, the rest trains.

The validation set is drawn in proportion from every stratum (a combination of covariates), and every stratum keeps at
least one observation to train on. With very few observations it may be empty: a share of half an observation is rounded
up, a smaller one is not.
"""

from enum import StrEnum

import numpy as np

from biovae.errors import InputError
from biovae.noise import Noise

SPLIT = 2**41  # the moment of Noise that belongs to splitting: no epoch reaches it


class Role(StrEnum):
    """What an observation is used for."""

    TRAIN = "train"
    VALIDATION = "validation"
    TEST = "test"


def split(
    observations: int,
    *,
    validation: float | np.ndarray = 0.1,
    test: np.ndarray | None = None,
    strata: np.ndarray | None = None,
    seed: int = 0,
) -> np.ndarray:
    """The role of every observation, as an array of `Role` values.

    Args:
        observations: How many there are.
        validation: The fraction of the observations outside the test set, or a mask.
        test: A mask of observations that training must not touch.
        strata: A label for every observation; each label is represented in proportion.
        seed: Of the draw.

    Raises:
        InputError: If a mask or fraction makes no sense, or nothing is left to train on.
    """
    roles = np.full(observations, Role.TRAIN.value, dtype="<U10")
    held = np.zeros(observations, dtype=bool) if test is None else _mask(test, observations, "test")
    roles[held] = Role.TEST.value
    if np.ndim(validation):
        chosen = _mask(np.asarray(validation), observations, "validation")
        if (both := int((chosen & held).sum())) > 0:
            raise InputError(
                f"expected validation and test to have no observation in common, found {both}: take them apart."
            )
    else:
        chosen = _draw(observations, float(validation), held, strata, Noise(seed, epoch=SPLIT).numpy())
    roles[chosen] = Role.VALIDATION.value
    if not (roles == Role.TRAIN.value).any():
        raise InputError(
            f"expected observations to train on, found {int(chosen.sum())} for validation and {int(held.sum())} for "
            f"test out of {observations}: hold out fewer."
        )
    return roles


def _draw(
    observations: int, fraction: float, held: np.ndarray, strata: np.ndarray | None, random: np.random.Generator
) -> np.ndarray:
    """Largest remainders: every stratum gives its share rounded down, the rest goes to the largest remainders."""
    if not 0 <= fraction < 1:
        raise InputError(f"expected a validation fraction of at least 0 and below 1, found {fraction:g}.")
    free = random.permutation(np.flatnonzero(~held))
    labels = np.zeros(observations, dtype=np.int64)
    if strata is not None:
        if len(strata) != observations:
            raise InputError(f"expected a stratum for each of {observations} observations, found {len(strata)}.")
        labels = np.unique(np.asarray(strata).astype(str), return_inverse=True)[1].ravel()
    levels = random.permutation(np.unique(labels[free]))  # ties fall at random
    place = np.zeros(labels.max(initial=0) + 1, dtype=np.int64)
    place[levels] = np.arange(len(levels))
    group = place[labels[free]]
    members = np.bincount(group, minlength=len(levels))
    quotas = members * fraction
    sizes = np.floor(quotas + 1e-9).astype(np.int64)
    spare = members - 1 - sizes
    short = int(np.floor(len(free) * fraction + 0.5)) - int(sizes.sum())
    order = np.argsort(sizes - quotas, kind="stable")
    sizes[order[spare[order] > 0][: max(0, short)]] += 1
    turn = np.arange(len(free)) - np.repeat(np.cumsum(members) - members, members)  # within its stratum
    chosen = np.zeros(observations, dtype=bool)
    chosen[free[np.argsort(group, kind="stable")[turn < np.repeat(sizes, members)]]] = True
    return chosen


def _mask(values: np.ndarray, observations: int, what: str) -> np.ndarray:
    mask = np.asarray(values)
    if mask.shape != (observations,) or mask.dtype != bool:
        raise InputError(
            f"expected {what} to be a boolean for each of {observations} observations, "
            f"found values of type {mask.dtype} and shape {mask.shape}."
        )
    return mask
