"""Several fits of one recipe to one split, which differ in their seeds alone: first weights, minibatches, noise.

What such fits agree on may be in the data; what they do not agree on is a choice that the seed made.
"""

import sys
from collections.abc import Iterator
from contextlib import nullcontext
from dataclasses import replace

import numpy as np

from biovae.data import Prepared
from biovae.errors import InputError
from biovae.model.fitting import Fitted, Options, fit
from biovae.model.recipe import Architecture
from biovae.training.checkpoints import Checkpoints


def fit_all(recipe: Architecture, prepared: Prepared, roles: np.ndarray, options: Options) -> tuple[Fitted, ...]:
    """A fit for each of `options.ensemble` seeds, from `options.seed` upwards; the first is what one alone would be.

    One after the other, so that the bits are those of single fits; processes are faster, and not used yet (LOG.md).
    An interrupt keeps the fits that are whole.

    Raises:
        InputError: Fewer than one fit was asked for.
    """
    if options.ensemble < 1:
        raise InputError(f"expected an ensemble of 1 fit or more, found {options.ensemble}: 5 will do.")
    _say(1, options)
    first = fit(recipe, prepared, roles, options)
    if options.ensemble == 1 or first.record["interrupted"]:
        return (first,)
    with nullcontext() if options.checkpoints is None else Checkpoints(options.checkpoints).lock():
        others = tuple(_others(recipe, prepared, roles, options))
    if len(others) + 1 < options.ensemble:
        first.record["events"].append(f"interrupted in fit {len(others) + 2} of {options.ensemble}: it was dropped")
    return first, *others


def _others(recipe: Architecture, prepared: Prepared, roles: np.ndarray, options: Options) -> Iterator[Fitted]:
    """The second fit and those after it, each with a seed and a folder of checkpoints of its own."""
    for number in range(2, options.ensemble + 1):
        _say(number, options)
        folder = None if options.checkpoints is None else options.checkpoints / f"fit-{number}"
        found = fit(recipe, prepared, roles, replace(options, seed=options.seed + number - 1, checkpoints=folder))
        if found.record["interrupted"]:
            return
        yield found


def _say(number: int, options: Options) -> None:
    if options.ensemble > 1 and options.progress:
        print(f"fit {number} of {options.ensemble}, seed {options.seed + number - 1}", file=sys.stderr, flush=True)
