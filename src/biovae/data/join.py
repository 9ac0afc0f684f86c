"""Several AnnData as the batches of one."""

import warnings
from collections.abc import Sequence

import anndata
import numpy as np
import pandas as pd
from anndata import AnnData

from biovae.errors import InputError, first


def join(parts: Sequence[AnnData], labels: Sequence[str], batch: str) -> tuple[AnnData, list[str]]:
    """Stack observations over the genes that all parts name, in the order of the first.

    Args:
        parts: The data.
        labels: A name for each, all different.
        batch: The column of `obs` to make.

    Returns:
        The joined data, and a sentence for everything that was left out or renamed.
    """
    for part, label in zip(parts, labels, strict=True):
        _check(part, label, batch)
    shared = set(parts[0].var_names).intersection(*(part.var_names for part in parts[1:]))
    genes = [name for name in parts[0].var_names if name in shared]
    if not genes:
        shown = "; ".join(f"{label}: {first(part.var_names)}" for part, label in zip(parts, labels, strict=True))
        raise InputError(f"expected genes shared by all {len(parts)} files, found none ({shown}): name genes alike.")
    kept = [part[:, genes] for part in parts]
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Observation names are not unique")  # until `_rename`
        warnings.filterwarnings("ignore", message="Only some AnnData objects have `.raw`")  # said below
        whole = anndata.concat(kept, join="inner", label=batch, keys=list(labels), merge="same")
    notices = [
        f"left out {part.n_vars - len(genes):,} of {part.n_vars:,} genes of {label} that not all files have"
        for part, label in zip(parts, labels, strict=True)
        if part.n_vars > len(genes)
    ]
    if whole.raw is None and any(part.raw is not None for part in parts):
        notices.append("left out .raw, which not all files have")
    lost = sorted({name for part in parts for name in [*part.obs, *part.layers]} - {*whole.obs, *whole.layers})
    notices += [f"left out columns of obs and layers that not all files have: {first(lost)}"] if lost else []
    return whole, notices + _rename(whole, batch)


def _check(part: AnnData, label: str, batch: str) -> None:
    if not part.var_names.is_unique:
        twice = part.var_names[part.var_names.duplicated()].unique()
        raise InputError(f"expected each gene once to join files, found {first(twice)} more than once in {label}.")
    if batch in part.obs:
        raise InputError(f"expected a new name for the batch column, found {batch!r} in obs of {label}: rename it.")


def _rename(whole: AnnData, batch: str) -> list[str]:
    """Give observations that share a name with another file's the name of their file too."""
    names = pd.Series(whole.obs_names.astype(str))
    clash = names.map(whole.obs[batch].astype(str).groupby(names.to_numpy()).nunique()).to_numpy() > 1
    if clash.any():
        whole.obs_names = np.where(clash, names + "-" + whole.obs[batch].astype(str).to_numpy(), names)
    notices = [f"added the file's name to {int(clash.sum()):,} names of observations"] if clash.any() else []
    left = int(whole.obs_names.duplicated().sum())
    return notices + ([f"kept {left:,} names of observations that occur more than once in one file"] if left else [])
