"""Where the values of each modality are: a matrix of an AnnData, or of one modality of a MuData, found by name.

Counts are looked for in the layer given, else in `X`, else in `layers["counts"]`, else in `.raw`; the choice is put
into words (`Found.place`) and printed by whoever asked. Other values are taken from the layer given, else from `X`.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pandas as pd
from anndata import AnnData
from mudata import MuData

from biovae.data.containers import gather, size
from biovae.data.gate import SPARSE, Values, census
from biovae.errors import InputError, closest, first
from biovae.schema import Support
from biovae.source import Source

PROBE = 512  # rows that tell whether a matrix can be what is wanted; the gate looks at all of them later


@dataclass(frozen=True)
class Found:
    """The matrix of one modality, and how its rows belong to the observations.

    Args:
        values: The matrix with its names.
        obs: The `obs` table of the rows of the matrix.
        var: The `var` table of its columns, None where there is none (`obsm`).
        place: The choice in words, for the user.
        rows: For every observation its row in the matrix, -1 where it lacks the modality; None: all, in order.
    """

    values: Values
    obs: pd.DataFrame
    var: pd.DataFrame | None
    place: str
    rows: np.ndarray | None = None


def locate(data: AnnData | MuData, sources: Sequence[Source], *, optional: bool = False) -> list[Found | None]:
    """Find the matrix of every source.

    Args:
        data: The caller's object, not changed.
        sources: One per modality of the model.
        optional: Give None for a modality that a MuData lacks, as long as it has another one.

    Raises:
        InputError: If a key does not exist, or it is not clear which modality is meant.
    """
    if isinstance(data, AnnData):
        return [_in_anndata(data, source) for source in sources]
    if not isinstance(data, MuData):
        raise InputError(
            f"expected an AnnData or a MuData, found a {type(data).__name__}: read the file with biovae.data.read."
        )
    if data.axis != 0:
        raise InputError(f"expected modalities that share observations (axis 0), found a MuData of axis {data.axis}.")
    names = _assign(data, sources, optional=optional)
    found = [
        None if name is None else _in_mudata(data, name, source) for name, source in zip(names, sources, strict=True)
    ]
    if not any(found):
        raise InputError(
            f"expected at least one of the modalities {first(s.mod or s.name for s in sources)}, "
            f"found {first(data.mod)}: rename them, or name them with mod=."
        )
    return found


def holds(matrix: Any, support: Support, *, rows: int | None = None) -> bool:
    """Whether a matrix could hold such values, judged by all of it or by its first rows."""
    if matrix is None or len(matrix.shape) != 2:
        return False
    index = None if rows is None or rows >= matrix.shape[0] else np.arange(rows)
    try:
        part = gather(matrix, index, None, sparse=support in SPARSE, place="the matrix")
    except InputError:
        return False
    return not census(part, support).forbidden(support)


def _in_anndata(data: AnnData, source: Source) -> Found:
    if source.mod is not None:
        raise InputError(
            f"expected a MuData with the modality {source.mod!r}, found an AnnData: leave mod= out, "
            f"or wrap it as MuData({{{source.mod!r}: adata}})."
        )
    return _within(data, source)


def _in_mudata(data: MuData, name: str, source: Source) -> Found:
    part = data.mod[name]
    found = _within(part, source)
    if part.obs_names.is_unique and data.obs_names.is_unique:
        rows = part.obs_names.get_indexer(data.obs_names)
    else:
        rows = np.asarray(data.obsmap[name]).ravel().astype(np.int64) - 1
    if rows.size and rows.max(initial=-1) >= part.n_obs:
        raise InputError(
            f"expected the map of observations to fit modality {name!r}, found it out of date: call mdata.update()."
        )
    where = f"{found.values.where.removesuffix(_of(source))} of modality {name!r}"
    everyone = part.n_obs == data.n_obs and np.array_equal(rows, np.arange(data.n_obs))
    renamed = replace(found.values, where=where)
    place = f"{source.name}: in mod[{name!r}], {found.place.removeprefix(source.name + ': ')}"
    return replace(found, values=renamed, place=place, rows=None if everyone else rows)


def _within(data: AnnData, source: Source) -> Found:
    """Choose among `obsm`, `layers`, `X` and `.raw` of one AnnData."""
    if source.obsm is not None:
        return _obsm(data, source, source.obsm)
    if source.layer is not None and source.layer != "X":
        if source.layer not in data.layers:
            raise InputError(
                f"expected a layer {source.layer!r} for modality {source.name!r}, found none: "
                + closest(source.layer, ["X", *_layers(data)])
            )
        return _found(data, source, data.layers[source.layer], f"layers[{source.layer!r}]", "as asked")
    x = data.X
    pinned = source.layer == "X" or source.support not in SPARSE or source.allow_values
    if x is not None and (pinned or holds(x, source.support, rows=PROBE)):
        return _found(data, source, x, "X", "")
    reason = "X is empty" if x is None else f"X holds no {source.support}"
    if not pinned:
        if holds(data.layers.get("counts"), source.support, rows=PROBE):
            return _found(data, source, data.layers["counts"], "layers['counts']", reason)
        if data.raw is not None and holds(data.raw.X, source.support, rows=PROBE):
            return _found(data, source, data.raw.X, ".raw", reason)
    if x is None:
        raise InputError(
            f"expected values for modality {source.name!r} in X, found none: name a layer "
            f"({first(_layers(data)) or 'there are none'})."
        )
    return _found(data, source, x, "X", "")


def _found(data: AnnData, source: Source, matrix: Any, key: str, reason: str) -> Found:
    var = data.raw.var if key == ".raw" else data.var

    def hint() -> list[str]:
        places = {f"layer={name!r}": data.layers[name] for name in _layers(data)}
        places |= {} if key == "X" else {"layer='X'": data.X}
        return [name for name, other in places.items() if holds(other, source.support)]

    names = var.index.astype(str).to_numpy(dtype=object)
    values = Values(matrix, _obs_names(data), names, key + _of(source), hint)
    rows, columns = size(matrix, values.where)
    what = {Support.COUNTS: "counts", Support.BINARY: "0/1 values"}.get(source.support, "values")
    place = f"{source.name}: {what} from {key}, {rows} x {columns}" + (f" ({reason})" if reason else "")
    return Found(values, data.obs, var, place)


def _obsm(data: AnnData, source: Source, key: str) -> Found:
    if key not in data.obsm:
        raise InputError(f"expected obsm[{key!r}] for modality {source.name!r}, found none: {closest(key, data.obsm)}")
    matrix = data.obsm[key]
    where = f"obsm[{key!r}]"
    rows, columns = size(matrix, where)
    names = matrix.columns if isinstance(matrix, pd.DataFrame) else [f"{key}_{i}" for i in range(columns)]
    values = Values(matrix, _obs_names(data), np.array([str(n) for n in names], dtype=object), where + _of(source))
    return Found(values, data.obs, None, f"{source.name}: values from {where}, {rows} x {columns} (as asked)")


def _assign(data: MuData, sources: Sequence[Source], *, optional: bool) -> list[str | None]:
    """The modality of a MuData that each source means: by `mod`, by name, else the only one left that fits."""
    named = {s.name: s.mod or s.name for s in sources if (s.mod or s.name) in data.mod}
    for source in sources:
        if source.mod is not None and source.mod not in data.mod and not optional:
            raise InputError(
                f"expected a modality {source.mod!r} in the MuData, found none: {closest(source.mod, data.mod)}"
            )
    open_sources = [s for s in sources if s.name not in named and s.mod is None]
    for source in sorted(open_sources, key=lambda s: s.support not in SPARSE):  # counts fit fewer places than reals
        fits = [name for name in data.mod if name not in named.values() and _fits(data.mod[name], source)]
        if len(fits) == 1:
            named[source.name] = fits[0]
        elif not optional:
            state = f"{len(fits)} that fit ({first(fits)})" if fits else "none that fits"
            raise InputError(
                f"expected one modality for {source.name!r} among {first(data.mod, most=8)}, found {state}: "
                "name it with mod=."
            )
    return [named.get(s.name) for s in sources]


def _fits(part: AnnData, source: Source) -> bool:
    if source.obsm is not None:
        return source.obsm in part.obsm
    if source.layer is not None:
        return source.layer == "X" or source.layer in part.layers
    counts = part.layers.get("counts") if source.support in SPARSE else None
    return any(holds(matrix, source.support, rows=PROBE) for matrix in (part.X, counts))


def _layers(data: AnnData) -> list[str]:
    return [name for name in data.layers if name is not None]  # anndata 0.13 lists X as the layer None


def _obs_names(data: AnnData) -> np.ndarray:
    return data.obs_names.astype(str).to_numpy(dtype=object)


def _of(source: Source) -> str:
    return f" of modality {source.name!r}"
