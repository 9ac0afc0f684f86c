"""Several fits of one recipe to one split, which differ in their seeds alone: first weights, minibatches, noise.

What such fits agree on may be in the data; what they do not agree on is a choice that the seed made.
"""

import sys
from collections.abc import Callable, Iterator
from contextlib import nullcontext
from dataclasses import replace
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np

from biovae.data import Prepared
from biovae.errors import InputError, Interrupted
from biovae.model.files import Packed, pack, unpack
from biovae.model.fitting import Fitted, Options, fit
from biovae.model.recipe import Architecture
from biovae.model.several import several
from biovae.model.shared import lay_out, pick_up
from biovae.schema import Schema
from biovae.training.checkpoints import Checkpoints
from biovae.training.stopping import INTERRUPT, TERMINATE


def fit_all(recipe: Architecture, prepared: Prepared, roles: np.ndarray, options: Options) -> tuple[Fitted, ...]:
    """A fit for each of `options.ensemble` seeds, from `options.seed` upwards; the first is what one alone would be.

    One after the other, or with `options.workers` side by side: each then has its share of the cores, and sums that are
    split among fewer threads may differ in their last bits. An interrupt keeps the fits that are whole; the first of
    these is then the model.

    Raises:
        InputError: Fewer than one fit was asked for, or several at once on a device that is no CPU.
    """
    if options.ensemble < 1:
        raise InputError(f"expected an ensemble of 1 fit or more, found {options.ensemble}: 5 will do.")
    if options.workers > 1 and options.device != "cpu":
        raise InputError(f"expected one fit at a time on {options.device!r}, found {options.workers}: set workers=1.")
    if min(options.workers, options.ensemble) > 1:
        return _side_by_side(recipe, prepared, roles, options)
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
    """The second fit and those after it."""
    for number in range(2, options.ensemble + 1):
        _say(number, options)
        found = fit(recipe, prepared, roles, _member(options, number))
        if found.record["interrupted"]:
            return
        yield found


def _member(options: Options, number: int) -> Options:
    """The options of one fit, with a seed and a folder of checkpoints of its own; that of the first is the run's."""
    folder = options.checkpoints
    if folder is not None and number > 1:
        folder = folder / f"fit-{number}"
    return replace(options, seed=options.seed + number - 1, checkpoints=folder)


def _say(number: int, options: Options) -> None:
    if options.ensemble > 1 and options.progress:
        print(_name(number, options), file=sys.stderr, flush=True)


def _name(number: int, options: Options) -> str:
    return f"fit {number} of {options.ensemble}, seed {options.seed + number - 1}"


# Side by side


def _side_by_side(recipe: Architecture, prepared: Prepared, roles: np.ndarray, options: Options) -> tuple[Fitted, ...]:
    """All fits in processes, which read the data from files that they share."""
    jobs = {f"seed {options.seed + number - 1}": number for number in range(1, options.ensemble + 1)}
    bare = Architecture(**{name: getattr(recipe, name) for name in Architecture.model_fields})
    packed: dict[int, Packed] = {}
    number = INTERRUPT
    with TemporaryDirectory(prefix="biovae-") as folder:
        lay_out(prepared.observations, Path(folder))
        again = partial(_worker, bare, prepared.schema, roles, options, Path(folder))
        work = partial(_packed, bare, prepared, roles, options)
        try:
            for done, result in several(work, jobs, again=again, workers=options.workers, progress=options.progress):
                packed[done] = result
        except Interrupted as stopped:
            number = stopped.exit_code - 128
    kept = [unpack(bare, prepared.schema, packed[n]) for n in sorted(packed)]
    if len(kept) < options.ensemble:
        _cut_short(kept, options, number)
    return tuple(kept)


def _cut_short(kept: list[Fitted], options: Options, number: int) -> None:
    """Without checkpoints the fits that are whole are kept, the first of them as the model; with them all will be."""
    told = f"interrupted with {len(kept)} of {options.ensemble} fits done"
    if options.checkpoints is not None:
        saved = any(options.checkpoints.rglob("step-*"))
        raise Interrupted(
            f"{told}: {'checkpoints were written; continue with resume' if saved else 'nothing was written yet'}.",
            number,
        )
    if number == TERMINATE or not kept:
        raise Interrupted(f"{told}: nothing to keep.", number)
    kept[0].record["events"].append(f"{told}: others were dropped")


def _worker(
    recipe: Architecture, schema: Schema, roles: np.ndarray, options: Options, folder: Path
) -> Callable[[int], Packed | None]:
    """What a process does with the number of a fit."""
    observations, none = pick_up(folder, len(recipe.modalities)), np.empty(0, np.int64)
    return partial(_packed, recipe, Prepared(schema, observations, none, (), (), none), roles, options)


def _packed(
    recipe: Architecture, prepared: Prepared, roles: np.ndarray, options: Options, number: int
) -> Packed | None:
    fitted = fit(recipe, prepared, roles, replace(_member(options, number), label=_name(number, options)))
    return None if fitted.record["interrupted"] else pack(fitted)
