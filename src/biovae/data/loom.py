"""Loom files, read with h5py alone: `/matrix` is genes x cells, `row_attrs` and `col_attrs` hold their columns."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pandas as pd
import scipy.sparse
from anndata import AnnData

from biovae.data.hdf5 import as_text, open_hdf5
from biovae.errors import InputError, first

ENTRIES = 2**24  # values of the dense matrix held at once


def read_loom(path: Path) -> AnnData:
    """Read a `.loom`: cells x genes in CSR, layers and one-dimensional attributes included."""
    with open_hdf5(path) as file:
        missing = [name for name in ("matrix", "row_attrs", "col_attrs") if name not in file]
        if missing:
            raise InputError(f"expected a loom file, found no {first(missing)} in {path.name}: check its name.")
        genes, cells = _sides(file["matrix"], path)
        var = _frame(file["row_attrs"], genes, ("Gene", "Accession"), path)
        if isinstance(var.index, pd.RangeIndex):
            found = first(file["row_attrs"]) or "nothing"
            raise InputError(f"expected 'Gene' or 'Accession' in row_attrs of {path.name}, found {found}: add names.")
        obs = _frame(file["col_attrs"], cells, ("CellID",), path)
        layers = file.get("layers", {})
        for name in layers:
            if _sides(layers[name], path) != (genes, cells):
                raise InputError(f"expected layer {name!r} of {path.name} as large as the matrix: get the file again.")
        obs.index, var.index = obs.index.astype(str), var.index.astype(str)
        values = {name: _transposed(layers[name]) for name in layers}
        return AnnData(_transposed(file["matrix"]), obs=obs, var=var, layers=values)


def _sides(matrix: Any, path: Path) -> tuple[int, int]:
    if not isinstance(matrix, h5py.Dataset) or len(matrix.shape or ()) != 2 or matrix.dtype.kind not in "biuf":
        raise InputError(f"expected genes x cells of numbers in {path.name}, found {matrix}: get the file again.")
    return int(matrix.shape[0]), int(matrix.shape[1])


def _frame(group: Mapping[str, Any], length: int, names: tuple[str, ...], path: Path) -> pd.DataFrame:
    """The flat attributes as columns; the first of `names` that is there becomes the index."""
    columns = {}
    for name in group:
        attribute = group[name]
        if not isinstance(attribute, h5py.Dataset) or len(attribute.shape or ()) != 1:
            continue  # embeddings, graphs
        if attribute.shape[0] != length:
            found = f"{attribute.shape[0]:,} at {attribute.name!r}"
            raise InputError(f"expected {length:,} values per attribute in {path.name}, found {found}.")
        columns[name] = attribute[()] if attribute.dtype.kind in "biuf" else as_text(attribute)
    frame = pd.DataFrame(columns, index=pd.RangeIndex(length))
    index = next((name for name in names if name in frame), None)
    return frame if index is None else frame.set_index(index).rename_axis(None)


def _transposed(matrix: h5py.Dataset) -> scipy.sparse.csr_matrix:
    """The transpose as CSR, from blocks of cells."""
    genes, cells = matrix.shape
    step = max(1, ENTRIES // max(1, genes))
    blocks = [scipy.sparse.csr_matrix(np.ascontiguousarray(matrix[:, start : start + step].T))
              for start in range(0, max(cells, 1), step)]  # fmt: skip
    return scipy.sparse.vstack(blocks, format="csr")
