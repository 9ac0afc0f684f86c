"""From AnnData or MuData to the record that is cut into minibatches: once for training, once for every new data set.

`prepare` learns a schema; `align` maps other data onto it, by name. Both look at every value that the model will see,
and neither changes the caller's object.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from anndata import AnnData
from mudata import MuData

from biovae.batch import Observations
from biovae.data.covariates import Unseen, column, encode, learn
from biovae.data.features import Columns, Missing, choose, match
from biovae.data.gate import OnBad, repeated, settle
from biovae.data.loading import Part, absent, load
from biovae.data.locate import Found, locate
from biovae.errors import InputError, closest, first
from biovae.schema import CategoricalCovariate, ModalitySchema, Schema
from biovae.source import Source

Wanted = Mapping[str, Sequence[str] | np.ndarray]


@dataclass(frozen=True)
class Prepared:
    """Data that passed the gate.

    Args:
        schema: What the model remembers of its training data.
        observations: Values, exposures, presence and design matrix.
        obs_names: The names of these observations; they may repeat.
        notices: What deserves a look, one sentence each.
        places: Where each modality was found, one sentence each.
        rows: The position of each observation in the caller's object.
    """

    schema: Schema
    observations: Observations
    obs_names: np.ndarray
    notices: tuple[str, ...]
    places: tuple[str, ...]
    rows: np.ndarray


def prepare(  # noqa: PLR0913 (the door of the wing: each of these is something a user says)
    data: AnnData | MuData,
    sources: Sequence[Source],
    *,
    covariates: Sequence[str] = (),
    features: Wanted | None = None,
    latent: int | None = None,
    on_bad: OnBad = "keep",
    rows: np.ndarray | Sequence[int] | None = None,
    held_out: np.ndarray | None = None,
) -> Prepared:
    """Read and check training data, and learn their schema.

    Args:
        data: The observations; not changed.
        sources: Where each modality lives.
        covariates: Columns of `obs` that the model is to see.
        features: For each modality a list of names or a mask; all features of those not mentioned.
        latent: Latent dimensions of the model to come, to check that there are enough features for them.
        on_bad: What to do about observations and features that are all zero and names that repeat: "keep" them with a
            notice, "raise" an error, or "drop" what is all zero.
        rows: Positions of the observations to use, or a mask.
        held_out: Mask of the observations in `data` that have no part in the mean and spread of numeric covariates.

    Raises:
        InputError: If the data cannot be fitted.
    """
    chosen = positions(data, rows)
    _check_names(sources, features, on_bad)
    _check_covariates(covariates)
    found = [place for place in locate(data, sources) if place is not None]
    columns = [choose(place, (features or {}).get(source.name)) for place, source in zip(found, sources, strict=True)]
    _check_latent(latent, columns)
    parts = [load(data, f, s, c, chosen) for f, s, c in zip(found, sources, columns, strict=True)]
    if on_bad == "drop" and (smaller := _without_empty(sources, found, columns, parts)):
        keep, wanted, note = smaller
        rest = prepare(
            data, sources, covariates=covariates, features=wanted, latent=latent, rows=chosen[keep], held_out=held_out
        )
        return replace(rest, notices=(note, *rest.notices))
    notices = [*_repeats(data, chosen, found), *(note for part in parts for note in part.notices)]
    settle(notices, on_bad)
    free = np.ones(len(chosen), dtype=bool) if held_out is None else ~np.asarray(held_out, dtype=bool)[chosen]
    learned = [learn(column(data, name).iloc[chosen], name, free) for name in covariates]
    schema = Schema(
        modalities=tuple(
            ModalitySchema(name=s.name, features=c.names, support=s.support, scale=p.scale)
            for s, c, p in zip(sources, columns, parts, strict=True)
        ),
        covariates=tuple(covariate for covariate, _ in learned),
        observations=len(chosen),
    )
    notices += [note for _, notes in learned for note in notes]
    observations = _observations(data, schema, parts, chosen, "error")
    return Prepared(schema, observations, _names(data, chosen), tuple(notices), tuple(f.place for f in found), chosen)


def unlearned(prepared: Prepared, free: np.ndarray) -> list[str]:
    """A sentence about every covariate with levels that none of the `free` observations, a mask, has."""
    seen, start, said = prepared.observations.covariates[torch.from_numpy(free)].bool().any(0).numpy(), 0, []
    for covariate in prepared.schema.covariates:
        mine = seen[start : start + covariate.width]
        start += covariate.width
        if isinstance(covariate, CategoricalCovariate) and not mine.all():
            levels = np.asarray(covariate.categories)[~mine]
            said.append(
                f"covariate {covariate.name!r}: {first(levels)} in the test set alone, so that no effect of it can be "
                "learned; leave the covariate out to judge how a model does on levels that it has not seen."
            )
    return said


def align(
    data: AnnData | MuData,
    sources: Sequence[Source],
    schema: Schema,
    *,
    missing: Missing = "error",
    unseen: Unseen = "error",
    rows: np.ndarray | Sequence[int] | None = None,
) -> Prepared:
    """Read and check new data, mapped by name onto the schema of a fitted model.

    Features in another order are put in order, features that the model does not know are ignored.

    Args:
        data: The observations; not changed.
        sources: Where each modality lives; the modalities of the schema, in its order.
        schema: What the model remembers.
        missing: What to do about features that the data lack: "error", or read them as "zero".
        unseen: What to do about categories that the model does not know, or that are missing: "error", "zero" (the
            observation belongs to none), or {column: {new: known}}.
        rows: Positions of the observations to use, or a mask.

    Raises:
        InputError: If the data do not fit the model.
    """
    if [s.name for s in sources] != [m.name for m in schema.modalities]:
        raise InputError(
            f"expected the modalities {first(m.name for m in schema.modalities)} of the model, "
            f"found {first(s.name for s in sources)}: give the same ones in the same order."
        )
    _check_choice("missing", missing, ("error", "zero"))
    if isinstance(unseen, str):
        _check_choice("unseen", unseen, ("error", "zero"))
    chosen = positions(data, rows)
    parts, notices, places = [], [], []
    for source, modality, found in zip(sources, schema.modalities, locate(data, sources, optional=True), strict=True):
        if found is None:
            parts.append(absent(source, len(modality.features), len(chosen)))
            places.append(f"{source.name}: not among these data, absent from all {len(chosen)} observations")
            continue
        columns, notes = match(found, modality, missing)
        parts.append(load(data, found, source, columns, chosen, modality.scale))
        places.append(found.place)
        notices += notes
    observations = _observations(data, schema, parts, chosen, unseen)
    return Prepared(schema, observations, _names(data, chosen), tuple(notices), tuple(places), chosen)


def positions(data: AnnData | MuData, rows: np.ndarray | Sequence[int] | None) -> np.ndarray:
    """Positions of the observations to use, checked.

    Raises:
        InputError: If there are none, or one lies outside the data.
    """
    if not isinstance(data, AnnData | MuData):
        raise InputError(
            f"expected an AnnData or a MuData, found a {type(data).__name__}: read files with biovae.data.read."
        )
    chosen = np.arange(data.n_obs) if rows is None else np.asarray(rows)
    if chosen.dtype == bool:
        if chosen.shape != (data.n_obs,):
            raise InputError(f"expected a mask of {data.n_obs} observations, found {chosen.size} values.")
        chosen = np.flatnonzero(chosen)
    if not chosen.size:
        raise InputError(f"expected at least one observation, found none of {data.n_obs}.")
    if chosen.ndim != 1 or chosen.dtype.kind not in "iu":
        raise InputError(
            f"expected whole numbers (positions) or a mask in one row, found values of type {chosen.dtype} "
            f"with {chosen.ndim} axes: give for example np.flatnonzero(mask)."
        )
    chosen = chosen.astype(np.int64)
    if chosen.min() < -data.n_obs or chosen.max() >= data.n_obs:
        raise InputError(f"expected positions below {data.n_obs}, found {chosen.min()} to {chosen.max()}.")
    return chosen % data.n_obs


def _observations(
    data: AnnData | MuData, schema: Schema, parts: Sequence[Part], chosen: np.ndarray, unseen: Unseen
) -> Observations:
    """Join the modalities with the design matrix."""
    nobody = np.logical_and.reduce(
        [np.zeros(len(chosen), bool) if p.present is None else ~p.present.numpy() for p in parts]
    )
    if nobody.any():
        names = _names(data, chosen[nobody])
        raise InputError(
            f"expected every observation to carry a modality of the model, found {len(names)} without any "
            f"({first(names)}): leave them out."
        )
    design = [encode(column(data, c.name).iloc[chosen], c, unseen) for c in schema.covariates]
    return Observations(
        x=tuple(part.x for part in parts),
        exposure=tuple(part.exposure for part in parts),
        present=tuple(part.present for part in parts),
        covariates=torch.from_numpy(np.hstack(design)) if design else torch.zeros(len(chosen), 0),
    )


def _without_empty(
    sources: Sequence[Source], found: Sequence[Found], columns: Sequence[Columns], parts: Sequence[Part]
) -> tuple[np.ndarray, dict[str, np.ndarray], str] | None:
    """Which observations and features to keep, with a notice; None if that is all of them."""
    keep = ~np.logical_and.reduce([part.empty for part in parts])
    flat = sum(int(part.flat.sum()) for part in parts)
    if keep.all() and not flat:
        return None
    wanted = {}
    for source, place, chosen, part in zip(sources, found, columns, parts, strict=True):
        mask = np.zeros(len(place.values.var_names), dtype=bool)
        mask[np.arange(len(mask)) if chosen.take is None else chosen.take] = ~part.flat
        wanted[source.name] = mask
    return keep, wanted, f"{int((~keep).sum())} observations and {flat} features without any signal were dropped."


def _repeats(data: AnnData | MuData, chosen: np.ndarray, found: Sequence[Found]) -> list[str]:
    notes = repeated(_names(data, chosen), "observation names")
    for place in found:
        notes += repeated(place.values.var_names, f"feature names of {place.values.where}")
    return notes


def _names(data: AnnData | MuData, chosen: np.ndarray) -> np.ndarray:
    return data.obs_names.astype(str).to_numpy(dtype=object)[chosen]


def _check_names(sources: Sequence[Source], features: Wanted | None, on_bad: OnBad) -> None:
    names = [source.name for source in sources]
    if not names or len(set(names)) < len(names):
        raise InputError(f"expected modalities with different names, found {names}: name each of them.")
    for name in features or {}:
        if name not in names:
            raise InputError(
                f"expected features of the modalities {first(names)}, found {name!r}: {closest(name, names)}"
            )
    _check_choice("on_bad", on_bad, ("keep", "raise", "drop"))


def _check_covariates(names: Sequence[str]) -> None:
    if isinstance(names, str):
        raise InputError(f"expected a list of columns as covariates, found the text {names!r}: give [{names!r}].")
    if len(set(names)) < len(names):
        raise InputError(f"expected every covariate once, found {first(names, most=8)}: leave the repeated one out.")


def _check_choice(argument: str, value: str, known: Sequence[str]) -> None:
    if value not in known:
        raise InputError(f"expected {argument} to be one of {first(known)}, found {value!r}: {closest(value, known)}")


def _check_latent(latent: int | None, columns: Sequence[Columns]) -> None:
    total = sum(len(chosen.names) for chosen in columns)
    if latent is not None and latent > total:
        raise InputError(
            f"expected at most {total} latent dimensions, one per feature, found latent={latent}: lower it."
        )
