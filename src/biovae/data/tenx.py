"""What Cell Ranger writes: `.h5` of today and before version 3, and the folder with `matrix.mtx`.

On disk the matrix is features x cells; here it is cells x features, with symbols as names and accessions in
`var["gene_ids"]`. Genes alone become an AnnData; where antibodies or peaks were counted in the same cells, a MuData
with one modality for each.
"""

import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import scipy.io
import scipy.sparse
from anndata import AnnData
from mudata import MuData

from biovae.data.hdf5 import as_text, open_hdf5
from biovae.data.limits import Tally, check_compressed, open_text
from biovae.errors import InputError, first

MODALITIES = {"Gene Expression": "rna", "Antibody Capture": "prot", "Peaks": "atac"}
ENTRY_BYTES = 24  # a coordinate of two 64-bit integers and its value


def read_10x_h5(path: Path) -> AnnData | MuData:
    """Read a 10x `.h5`, of either layout."""
    with open_hdf5(path) as file:
        if "matrix" in file:
            return _read_group(file["matrix"], file["matrix/features"] if "matrix/features" in file else {}, path)
        genomes = [name for name in file if "barcodes" in file[name] and "genes" in file[name]]
        if len(genomes) != 1:
            found = f"{len(genomes)} genomes ({first(genomes)})" if genomes else f"{first(file)} at the top"
            hint = "an AnnData belongs into .h5ad, a MuData into .h5mu" if "obs" in file else "split or convert it"
            raise InputError(f"expected a 10x matrix of one genome in {path.name}, found {found}: {hint}.")
        return _read_group(file[genomes[0]], file[genomes[0]], path)


def _read_group(group: Mapping[str, Any], features: Mapping[str, Any], path: Path) -> AnnData | MuData:
    tally = Tally(path, path.stat().st_size)
    missing = [name for name in ("barcodes", "shape", "data", "indices", "indptr") if name not in group]
    columns = {"id": "gene_ids", "genes": "gene_ids", "name": "name", "gene_names": "name"}
    columns |= {"feature_type": "feature_types", "genome": "genome"}
    var = {new: as_text(features[old]) for old, new in columns.items() if old in features}
    missing += [name for name in ("gene_ids", "name") if name not in var]
    if missing:
        tally.refuse("a 10x matrix", f"none of {first(missing)}", "check that Cell Ranger wrote it")
    shape = tuple(int(side) for side in group["shape"][()])
    check_compressed(group, shape, group["data"].name, tally, by_rows=False)
    parts = (group["data"][()], group["indices"][()], group["indptr"][()])
    counts = scipy.sparse.csc_matrix(parts, shape=shape).T  # the columns, cells, become the rows of a CSR
    return _assemble(counts, as_text(group["barcodes"]), pd.DataFrame(var), path)


def read_10x_folder(path: Path) -> AnnData | MuData:
    """Read a 10x folder: `matrix.mtx`, `barcodes.tsv`, and `features.tsv` or `genes.tsv`, each gzipped or not."""
    matrix = _member(path, "matrix.mtx")
    barcodes = _lines(_member(path, "barcodes.tsv"))[0]
    features = _lines(_member(path, "features.tsv", "genes.tsv"))
    ids = features[0].to_numpy(object)
    var = {"gene_ids": ids, "name": features[1].to_numpy(object) if 1 in features else ids}
    if 2 in features:
        var["feature_types"] = features[2].to_numpy(object)
    _check_header(matrix, len(ids), len(barcodes))
    with open_text(matrix) as stream:
        counts = scipy.sparse.csr_matrix(scipy.io.mmread(stream).T)
    return _assemble(counts, barcodes.to_numpy(object), pd.DataFrame(var), path)


def _member(folder: Path, *names: str) -> Path:
    for name in names:
        for candidate in (folder / name, folder / f"{name}.gz"):
            if candidate.is_file():
                return candidate
    found = first(sorted(entry.name for entry in folder.iterdir())) or "nothing"
    raise InputError(
        f"expected {' or '.join(names)}, gzipped or not, in the 10x folder {folder.name}, found {found}: "
        "name a file, a .zarr folder, or a whole 10x folder."
    )


def _lines(path: Path) -> pd.DataFrame:
    with open_text(path) as stream:
        try:
            return pd.read_csv(stream, sep="\t", header=None, dtype=str, keep_default_na=False, quoting=3)
        except pd.errors.EmptyDataError:
            raise InputError(f"expected a name on each line of {path.name}, found none: get the file again.") from None


def _check_header(matrix: Path, features: int, cells: int) -> None:
    """The sizes that a Matrix Market file declares, before they are allocated."""
    tally = Tally(matrix, matrix.stat().st_size)
    with open_text(matrix) as stream:
        banner = stream.readline(1024).decode("utf-8", "replace").lower().split()
        line = stream.readline(2**16)
        while line.startswith(b"%") or (line and not line.strip()):
            line = stream.readline(2**16)
    if banner[:1] != ["%%matrixmarket"] or "coordinate" not in banner or "general" not in banner:
        tally.refuse("a general coordinate Matrix Market text", f"{' '.join(banner)[:60]!r}")
    sizes = [int(word) if word.isdigit() else -1 for word in line.split()]
    if len(sizes) != 3 or sizes[:2] != [features, cells] or min(sizes) < 0:
        found = line.decode("utf-8", "replace").strip()[:60]
        tally.refuse(f"{features:,} features x {cells:,} cells as the other files list", repr(found))
    tally.array("entries", sizes[2] * ENTRY_BYTES, tally.stored)


def _assemble(counts: Any, barcodes: np.ndarray, var: pd.DataFrame, path: Path) -> AnnData | MuData:
    if counts.shape != (len(barcodes), len(var)):
        found = f"{len(barcodes):,} barcodes and {len(var):,} features for {counts.shape[0]:,} x {counts.shape[1]:,}"
        raise InputError(f"expected a name for each row and column in {path.name}, found {found}: get it again.")
    obs, var = pd.DataFrame(index=barcodes), var.set_index("name").rename_axis(None)
    whole = AnnData(counts, obs=obs, var=var)
    kinds = list(pd.unique(var["feature_types"])) if "feature_types" in var else []
    if len(kinds) < 2:
        return whole
    known = [kind for kind in MODALITIES if kind in kinds]
    parts = {MODALITIES[kind]: whole[:, (var["feature_types"] == kind).to_numpy()].copy() for kind in known}
    left = var["feature_types"][~var["feature_types"].isin(known)]
    if len(left):
        message = f"left out {len(left):,} features of types {first(left.unique())} in {path.name}"
        warnings.warn(message, UserWarning, stacklevel=2)
    if not parts:
        raise InputError(f"expected one of {first(MODALITIES)} in {path.name}, found {first(kinds)}: split it by type.")
    return MuData(parts) if len(parts) > 1 else next(iter(parts.values()))
