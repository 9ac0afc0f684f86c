"""A fitted model on disk: `config.json`, `weights.safetensors`, `manifest.json`, and never a pickle.

A recipe that does not say is of a model without `skip`, from before there was one.

config.json holds the recipe, the schema and the record of the run; the weights are checked against the network that the
recipe builds before one of them is used. Further fits of an ensemble stand in the same two files, under `others`.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
import pandas as pd
import torch
from pydantic import ValidationError
from torch import Tensor, nn

from biovae import artifact
from biovae.errors import BiovaeError, ModelFileError, first
from biovae.model.build import network
from biovae.model.fitting import Fitted
from biovae.model.null import NullModel
from biovae.model.recipe import Architecture
from biovae.recipe import Recipe
from biovae.schema import Schema

KIND = "model"

Packed: TypeAlias = tuple[dict[str, Any], dict[str, np.ndarray]]  # what a fit says of itself, and its weights


def save(recipe: Architecture, fits: Sequence[Fitted], path: Path | str, *, overwrite: bool = False) -> None:
    """Write a model folder, whole or not at all; the first fit is the model, the others are those of its ensemble."""
    config = {
        "recipe": recipe.model_dump(mode="json"),
        "schema": fits[0].schema.model_dump(mode="json"),
        **_told(fits[0]),
    }
    if len(fits) > 1:
        config["others"] = [_told(fitted) for fitted in fits[1:]]
    artifact.write(path, {"config": config}, _weights(fits).state_dict(), kind=KIND, overwrite=overwrite)


def load(path: Path | str, parts: Sequence[type[Recipe]] = ()) -> tuple[Architecture, tuple[Fitted, ...]]:
    """Read a model folder; nothing in it is trusted before its hash is."""
    documents, tensors = artifact.read(path, kind=KIND)
    config = documents.get("config", {})
    try:
        recipe = Architecture.model_validate({"skip": False} | config["recipe"], context={"parts": parts})
        schema = Schema.model_validate(config["schema"])
        fits = [_blank(recipe, schema, told) for told in (config, *config.get("others", ()))]
    except BiovaeError:
        raise
    except (ValidationError, KeyError, TypeError, ValueError, AttributeError) as error:
        raise ModelFileError(
            f"expected the recipe of a model in {path}/config.json, found one that cannot be built "
            f"({str(error).splitlines()[0]}): it was not written by this version of biovae."
        ) from error
    weights = _weights(fits)
    _check(weights, tensors, path)
    weights.load_state_dict(tensors)
    return recipe, tuple(fits)


def pack(fitted: Fitted) -> Packed:
    """A fit as plain values, for another process."""
    return _told(fitted), {name: tensor.numpy() for name, tensor in _weights([fitted]).state_dict().items()}


def unpack(recipe: Architecture, schema: Schema, packed: Packed) -> Fitted:
    """The fit that was packed."""
    told, arrays = packed
    fitted = _blank(recipe, schema, told)
    _weights([fitted]).load_state_dict({name: torch.from_numpy(array) for name, array in arrays.items()})
    return fitted


def _told(fitted: Fitted) -> dict[str, Any]:
    """What a fit says of itself, as JSON."""
    history = fitted.history.astype(object).where(fitted.history.notna(), None)
    return {"record": fitted.record, "history": history.to_dict(orient="list")}


def _blank(recipe: Architecture, schema: Schema, told: dict[str, Any]) -> Fitted:
    """A fit whose weights are still to be read."""
    record: dict[str, Any] = dict(told["record"])
    seed = int(record["seed"])
    net = network(recipe, schema, seed)
    null = NullModel(recipe.modalities, net, seed)
    return Fitted(net.eval(), null, schema, pd.DataFrame(told["history"]), record)


def _weights(fits: Sequence[Fitted]) -> nn.ModuleDict:
    """One dictionary of weights for a model, the null that it is judged against, and the rest of its ensemble."""
    own = nn.ModuleDict({"network": fits[0].network, "null": fits[0].null})
    if len(fits) > 1:
        own["others"] = nn.ModuleList(_weights([fitted]) for fitted in fits[1:])
    return own


def _check(net: nn.Module, tensors: dict[str, Tensor], path: Path | str) -> None:
    expected = net.state_dict()
    missing, extra = sorted(expected.keys() - tensors.keys()), sorted(tensors.keys() - expected.keys())
    if missing or extra:
        raise ModelFileError(
            f"expected the {len(expected)} tensors of the recipe in {path}, found {len(missing)} missing "
            f"({first(missing)}) and {len(extra)} unknown ({first(extra)}): the folder mixes two models."
        )
    for name, tensor in expected.items():
        found = tensors[name]
        if found.shape != tensor.shape or found.dtype != tensor.dtype:
            raise ModelFileError(
                f"expected {name} of shape {tuple(tensor.shape)} and {tensor.dtype} in {path}, "
                f"found {tuple(found.shape)} and {found.dtype}: the folder mixes two models."
            )
        if found.is_floating_point() and not torch.isfinite(found).all():
            raise ModelFileError(f"expected finite weights in {path}, found NaN or infinity in {name}: fit again.")
