"""A fitted model on disk: `config.json`, `weights.safetensors`, `manifest.json`, and never a pickle.

config.json holds the recipe, the schema and the record of the run; the weights are checked against the network that the
recipe builds before one of them is used.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

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
from biovae.network import Network
from biovae.recipe import Recipe
from biovae.schema import Schema

KIND = "model"


def save(recipe: Architecture, fitted: Fitted, path: Path | str, *, overwrite: bool = False) -> None:
    """Write a model folder, whole or not at all."""
    history = fitted.history.astype(object).where(fitted.history.notna(), None)
    config = {
        "recipe": recipe.model_dump(mode="json"),
        "schema": fitted.schema.model_dump(mode="json"),
        "record": fitted.record,
        "history": history.to_dict(orient="list"),
    }
    artifact.write(
        path, {"config": config}, _both(fitted.network, fitted.null).state_dict(), kind=KIND, overwrite=overwrite
    )


def load(path: Path | str, parts: Sequence[type[Recipe]] = ()) -> tuple[Architecture, Fitted]:
    """Read a model folder; nothing in it is trusted before its hash is."""
    documents, tensors = artifact.read(path, kind=KIND)
    config = documents.get("config", {})
    try:
        recipe = Architecture.model_validate(config["recipe"], context={"parts": parts})
        schema = Schema.model_validate(config["schema"])
        record: dict[str, Any] = dict(config["record"])
        history = pd.DataFrame(config["history"])
        net = network(recipe, schema, int(record["seed"]))
        null = NullModel(recipe.modalities, net, int(record["seed"]))
    except BiovaeError:
        raise
    except (ValidationError, KeyError, TypeError, ValueError) as error:
        raise ModelFileError(
            f"expected the recipe of a model in {path}/config.json, found one that cannot be built "
            f"({str(error).splitlines()[0]}): it was not written by this version of biovae."
        ) from error
    both = _both(net, null)
    _check(both, tensors, path)
    both.load_state_dict(tensors)
    return recipe, Fitted(net.eval(), null, schema, history, record)


def _both(net: Network, null: NullModel) -> nn.ModuleDict:
    """One dictionary of weights for the model and the null that it is judged against."""
    return nn.ModuleDict({"network": net, "null": null})


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
