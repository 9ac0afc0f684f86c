"""From the names of files and folders to observations and models."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pandas as pd
from anndata import AnnData
from mudata import MuData

from biovae.data import Role, join, read, read_many, read_parts, stem
from biovae.errors import InputError
from biovae.model import VAE, load
from biovae.schema import CategoricalCovariate

FILE = "file"  # tells files apart that the model does not


def open_data(paths: Sequence[Path], batch: str, *, transpose: bool) -> tuple[AnnData | MuData, list[str]]:
    """One file, or several joined as batches, and what there is to say about that."""
    if len(paths) == 1:
        return read(paths[0], transpose=transpose), []
    return read_many(paths, batch, transpose=transpose)


def open_model(path: Path) -> VAE:
    """The model of a run's folder, or a model folder itself."""
    return load(path / "model" if (path / "model").is_dir() else path)


def opened(vae: VAE, paths: Sequence[Path], *, transpose: bool = False) -> AnnData | MuData:
    """Files for a model, each observation with the name of its file where the model asks for it and obs does not say.

    Where several files were joined to fit a model, its first covariate tells them apart: see `run.command.described`.
    """
    batch = next((c.name for c in vae.schema.covariates[:1] if isinstance(c, CategoricalCovariate)), None)
    if len(paths) > 1:
        parts, labels = read_parts(paths, transpose=transpose)
        told = all(batch in part.obs for part in parts)
        return join(parts, labels, FILE if batch is None or told else batch)[0]
    data = read(paths[0], transpose=transpose)
    if batch is not None and isinstance(data, AnnData) and batch not in data.obs:
        data.obs[batch] = stem(paths[0])
    return data


def data_of(vae: VAE, run: Path, paths: Sequence[Path] | None = None) -> AnnData | MuData:
    """The observations of some files, else those that a run has kept.

    Raises:
        InputError: No file is given, and the run has not kept all that the model sees.
    """
    if paths:
        return opened(vae, paths)
    kept, source = run / "embedded.h5ad", vae.modalities[0].source
    if not kept.exists() or len(vae.modalities) > 1 or source.mod is not None:
        found = "those of one modality alone" if kept.exists() else "none"
        raise InputError(f"expected the observations of the run in {kept}, found {found}: name the file after {run}.")
    adata = read(kept)
    if source.layer not in (None, "X"):
        adata.layers[source.layer] = adata.X  # where the model looks; the run has kept nothing else
    return adata


def roles_of(run: Path, names: np.ndarray) -> tuple[np.ndarray, bool]:
    """What the run used each observation for, by name, and whether they are the run's own, one by one.

    Observations that it does not know are such as it has never seen.
    """
    split = run / "split.csv"
    then = pd.read_csv(split, dtype=str, keep_default_na=False) if split.exists() else pd.DataFrame()
    if len(then) == len(names) and (then["observation"].to_numpy() == names.astype(str)).all():
        return then["role"].to_numpy(dtype=object), True
    known = then.drop_duplicates("observation").set_index("observation")["role"] if len(then) else pd.Series(dtype=str)
    return known.reindex(names.astype(str)).fillna(Role.TEST.value).to_numpy(dtype=object), False
