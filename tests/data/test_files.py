"""Every kind of file gives back the matrix it was written from; every hostile one ends in one sentence."""

import contextlib
import gzip
import hashlib
import io
import json
import os
import shutil
import time
import warnings
import zipfile
from pathlib import Path

import anndata
import h5py
import hypothesis.strategies as st
import mudata
import numpy as np
import pandas as pd
import pytest
import scipy.io
import scipy.sparse
import zarr
from anndata import AnnData
from hypothesis import HealthCheck, given, settings
from mudata import MuData

from biovae.data import limits, read, read_many
from biovae.data.hdf5 import open_hdf5
from biovae.errors import InputError

COUNTS = np.random.default_rng(0).poisson(0.6, (12, 7)).astype(np.float32)
CELLS = [f"cell{i}" for i in range(12)]
GENES = [f"G{i}" for i in range(7)]
REAL = [
    "a549_scicar_rna_atac_half.h5mu", "cbmc_citeseq.h5mu", "cellbench_3cl_2protocols.h5ad",
    "cellbench_rnamix_celseq2.h5ad", "hematopoiesis_scatac.h5ad", "kang_ifnb_pbmc.h5ad", "mouse_bladder_mca.h5ad",
    "onek1k_subset_donors.h5ad", "osmfish_cortex.h5ad", "pancreas_endocrinogenesis_velocity.h5ad",
    "pbmc3k_hvg2000.h5ad", "pbmc_3chemistries.h5ad", "pbmc_citeseq_10k_5k.h5mu", "pbmc_facs.h5ad",
    "scmt_mesc_rna_methylation.h5mu", "worm_neurons.h5ad",
]  # fmt: skip


def cells(counts=COUNTS, *, kind=scipy.sparse.csr_matrix) -> AnnData:
    obs = pd.DataFrame({"type": pd.Categorical(["a", "b"] * 6), "depth": counts.sum(1)}, index=CELLS)
    return AnnData(kind(counts), obs=obs, var=pd.DataFrame(index=GENES))


def quietly(write, *args, **options):
    """Writers of other packages warn of their own affairs."""
    with warnings.catch_warnings(), mudata.set_options(pull_on_update=False):
        warnings.simplefilter("ignore")
        return write(*args, **options)


def strings(group, name, values) -> None:
    group.create_dataset(name, data=np.array(values, dtype="S"))


def h5ad(path: Path, **options) -> Path:
    quietly(cells(**options).write_h5ad, path, compression="gzip")
    return path


def h5ad_csc(path: Path) -> Path:
    return h5ad(path, kind=scipy.sparse.csc_matrix)


def h5ad_dense(path: Path) -> Path:
    return h5ad(path, kind=np.asarray)


def store(path: Path, *, version: int) -> Path:
    with anndata.settings.override(zarr_write_format=version):
        quietly(cells().write_zarr, path)
    return path


def store_2(path: Path) -> Path:
    return store(path, version=2)


def store_3(path: Path) -> Path:
    return store(path, version=3)


def zipped(path: Path) -> Path:
    folder = store(path.with_name("inner"), version=3)
    with zipfile.ZipFile(path, "w") as archive:
        for file in sorted(folder.rglob("*")):
            if file.is_file():
                archive.write(file, file.relative_to(folder).as_posix())
    shutil.rmtree(folder)
    return path


def tenx(path: Path, types=("Gene Expression",) * 7) -> Path:
    matrix = scipy.sparse.csc_matrix(COUNTS.T.astype(np.int32))
    with h5py.File(path, "w") as file:
        group = file.create_group("matrix")
        for name in ("data", "indices", "indptr"):
            group[name] = getattr(matrix, name)
        group["shape"] = np.array(matrix.shape)
        strings(group, "barcodes", CELLS)
        strings(group, "features/id", [f"ENSG{i}" for i in range(7)])
        strings(group, "features/name", GENES)
        strings(group, "features/feature_type", types)
        strings(group, "features/genome", ["GRCh38"] * 7)
    return path


def tenx_legacy(path: Path) -> Path:
    matrix = scipy.sparse.csc_matrix(COUNTS.T.astype(np.int32))
    with h5py.File(path, "w") as file:
        group = file.create_group("hg19")
        for name in ("data", "indices", "indptr"):
            group[name] = getattr(matrix, name)
        group["shape"] = np.array(matrix.shape)
        strings(group, "barcodes", CELLS)
        strings(group, "genes", [f"ENSG{i}" for i in range(7)])
        strings(group, "gene_names", GENES)
    return path


def folder(path: Path, *, packed: bool = True, features: str = "features") -> Path:
    path.mkdir()
    buffer = io.BytesIO()
    scipy.io.mmwrite(buffer, scipy.sparse.coo_matrix(COUNTS.T.astype(int)))
    kinds = "\tGene Expression" if features == "features" else ""
    texts = {
        "matrix.mtx": buffer.getvalue(),
        "barcodes.tsv": "".join(f"{name}\n" for name in CELLS).encode(),
        f"{features}.tsv": "".join(f"ENSG{i}\t{name}{kinds}\n" for i, name in enumerate(GENES)).encode(),
    }
    for name, text in texts.items():
        (path / (f"{name}.gz" if packed else name)).write_bytes(gzip.compress(text) if packed else text)
    return path


def folder_legacy(path: Path) -> Path:
    return folder(path, packed=False, features="genes")


def loom(path: Path) -> Path:
    with h5py.File(path, "w") as file:
        file["matrix"] = COUNTS.T
        file["layers/spliced"] = COUNTS.T * 2
        strings(file, "row_attrs/Gene", GENES)
        strings(file, "row_attrs/Accession", [f"ENSG{i}" for i in range(7)])
        strings(file, "col_attrs/CellID", CELLS)
        file["col_attrs/depth"] = COUNTS.sum(1)
        file["col_attrs/embedding"] = np.zeros((12, 2))
        file.create_group("col_graphs")
    return path


def table(path: Path) -> Path:
    pd.DataFrame(COUNTS, index=CELLS, columns=GENES).to_csv(path, sep="\t" if ".tsv" in path.name else ",")
    return path


KINDS = {
    "a.h5ad": h5ad, "csc.h5ad": h5ad_csc, "dense.h5ad": h5ad_dense, "v2.zarr": store_2, "v3.zarr": store_3,
    "z.zarr.zip": zipped, "a.h5": tenx, "legacy.h5": tenx_legacy, "folder": folder, "old folder": folder_legacy,
    "a.loom": loom, "a.csv": table, "a.csv.gz": table, "a.tsv": table, "a.TSV.gz": table,
}  # fmt: skip


def values(matrix) -> np.ndarray:
    return np.asarray(matrix.toarray() if scipy.sparse.issparse(matrix) else matrix)


def fingerprint(path: Path) -> str:
    files = sorted(path.rglob("*")) if path.is_dir() else [path]
    digest = hashlib.sha256()
    for file in files:
        digest.update(str(file).encode() + (file.read_bytes() if file.is_file() else b""))
    return digest.hexdigest()


@pytest.mark.parametrize("name", KINDS)
def test_every_kind_gives_the_same_cells(tmp_path, name):
    if name == "a.TSV.gz":
        path = table(tmp_path / "a.tsv.gz").rename(tmp_path / name)
    else:
        path = KINDS[name](tmp_path / name)
    before = fingerprint(path)
    adata = read(str(path))
    assert isinstance(adata, AnnData)
    assert list(adata.obs_names) == CELLS
    assert list(adata.var_names) == GENES
    np.testing.assert_array_equal(values(adata.X), COUNTS)
    assert fingerprint(path) == before, "reading must not write"


@pytest.mark.parametrize("name", ["a.h5mu", "mu.zarr"])
def test_a_mudata_keeps_its_modalities(tmp_path, name):
    with mudata.set_options(pull_on_update=False):
        mdata = MuData({"rna": cells(), "prot": AnnData(COUNTS[:5, :3], obs=pd.DataFrame(index=CELLS[:5]))})
    quietly(mdata.write if name.endswith("h5mu") else mdata.write_zarr, tmp_path / name)
    back = read(tmp_path / name)
    assert isinstance(back, MuData)
    assert {name: part.shape for name, part in back.mod.items()} == {"rna": (12, 7), "prot": (5, 3)}
    np.testing.assert_array_equal(values(back["rna"].X), COUNTS)


def test_columns_of_loom_and_tenx_are_kept(tmp_path):
    adata = read(loom(tmp_path / "a.loom"))
    np.testing.assert_array_equal(values(adata.layers["spliced"]), COUNTS * 2)
    assert list(adata.obs) == ["depth"]
    assert list(adata.var["Accession"]) == [f"ENSG{i}" for i in range(7)]
    assert list(read(tenx(tmp_path / "a.h5")).var) == ["gene_ids", "feature_types", "genome"]


def test_antibodies_become_a_modality(tmp_path):
    mdata = read(tenx(tmp_path / "a.h5", ["Gene Expression"] * 4 + ["Antibody Capture"] * 3))
    assert {name: list(part.var_names) for name, part in mdata.mod.items()} == {"rna": GENES[:4], "prot": GENES[4:]}
    np.testing.assert_array_equal(values(mdata["prot"].X), COUNTS[:, 4:])


def test_guides_are_left_out_aloud(tmp_path):
    path = tenx(tmp_path / "a.h5", ["Gene Expression"] * 4 + ["CRISPR Guide Capture"] * 3)
    with pytest.warns(UserWarning, match="left out 3 features of types 'CRISPR Guide Capture' in a.h5"):
        adata = read(path)
    assert list(adata.var_names) == GENES[:4]


def test_numbers_of_a_table_go_to_x_and_text_to_obs(tmp_path):
    (tmp_path / "a.csv").write_text("site,age,sex,bp\nrome,61,f,1.5\nrome,40,m,\n")
    adata = read(tmp_path / "a.csv")
    assert list(adata.var_names) == ["age", "bp"]
    assert list(adata.obs_names) == ["0", "1"], "a column with a value twice names nobody"
    assert list(adata.obs["site"]) == ["rome", "rome"]
    np.testing.assert_array_equal(adata.X, [[61, 1.5], [40, np.nan]])


def test_a_column_of_text_that_names_rows_stays_in_obs(tmp_path):
    (tmp_path / "a.csv").write_text("smiles\nCCO\nC1=CC=CC=C1\n")
    adata = read(tmp_path / "a.csv")
    assert list(adata.obs_names) == list(adata.obs["smiles"]) == ["CCO", "C1=CC=CC=C1"]
    assert adata.shape == (2, 0)


@pytest.mark.parametrize("header", ["index,a,b", "Index,a,b", ",a,b", "a,b"])
def test_numbers_name_rows_if_the_header_says_so(tmp_path, header):
    """The last header is shorter than the rows, as R writes it."""
    (tmp_path / "a.csv").write_text(f"{header}\n7,1,2\n9,3,4\n")
    adata = read(tmp_path / "a.csv")
    assert (list(adata.obs_names), list(adata.var_names)) == (["7", "9"], ["a", "b"])
    np.testing.assert_array_equal(adata.X, [[1, 2], [3, 4]])


@pytest.mark.parametrize(("start", "step", "named"), [(0, 1, True), (1, 1, True), (0, 2, False), (5, 1, False)])
def test_a_column_that_only_numbers_the_rows_is_no_feature(start, step, named, tmp_path):
    rows = [f"{start + step * i},{i % 3},{i * i}" for i in range(12)]
    (tmp_path / "a.csv").write_text("\n".join(["row,dose,area", *rows]))
    adata = read(tmp_path / "a.csv")
    assert list(adata.var_names) == (["dose", "area"] if named else ["row", "dose", "area"])
    assert ("row" in adata.obs) is named
    assert adata.obs_names[2] == (str(start + 2) if named else "2")


def test_a_table_of_features_is_transposed(tmp_path):
    pd.DataFrame(COUNTS.T, index=GENES, columns=CELLS).rename_axis("gene").to_csv(tmp_path / "a.csv")
    adata = read(tmp_path / "a.csv", transpose=True)
    assert (list(adata.obs_names), list(adata.var_names)) == (CELLS, GENES)
    np.testing.assert_array_equal(adata.X, COUNTS)


NOT_READ = {
    "none.h5ad": (None, "expected a file at .*none.h5ad, found none"),
    "a.xlsx": (b"PK", "known kind, found a.xlsx: convert it to one of .h5ad"),
    "web.h5ad": (b"<!DOCTYPE html>", "expected an HDF5 file, found a web page in web.h5ad"),
    "zero.h5": (b"", "found an empty file in zero.h5"),
    "pickle.h5mu": (b"\x80\x04\x95", "found a pickle in pickle.h5mu"),
    "text.zarr": (b"text", "Zarr folder or zip, found a file of another kind in text.zarr"),
    "empty.csv": (b"", "expected a table"),
    "header.csv": (b"a,b\n", "expected rows below the header"),
    "latin.csv": ("name,a\nhé,1\n".encode("latin-1"), "UTF-8"),
    "plain.csv.gz": (b"a,b\n1,2\n", "cannot be read .Not a gzipped file"),
    "unnamed.csv": (b",a\nx,1\n,2\n", "a name in every row of unnamed.csv, found 1 without"),
    "trailing.csv": (b"a,b\n1,2,\n3,4,\n", "as many names in the header"),
    "cut.csv.gz": (gzip.compress(b"a,b\n" + b"1,2\n" * 9999)[:60], "cannot be read"),
}


@pytest.mark.parametrize("name", NOT_READ)
def test_what_is_no_file_of_its_kind_is_refused(tmp_path, name):
    content, message = NOT_READ[name]
    if content is not None:
        (tmp_path / name).write_bytes(content)
    with pytest.raises(InputError, match=message):
        read(tmp_path / name)


def test_misspelt_paths_are_helped(tmp_path):
    h5ad(tmp_path / "pbmc.h5ad")
    with pytest.raises(InputError, match="did you mean 'pbmc.h5ad'"):
        read(tmp_path / "pmbc.h5ad")
    with pytest.raises(InputError, match="there is no folder .*nowhere either"):
        read(tmp_path / "nowhere" / "pbmc.h5ad")


def test_swapped_suffixes_are_told(tmp_path):
    path = h5ad(tmp_path / "a.h5ad")
    for wrong, message in {"a.h5": "belongs into .h5ad", "a.h5mu": "is it an .h5ad", "a.loom": "no 'matrix'"}.items():
        shutil.copy(path, tmp_path / wrong)
        with pytest.raises(InputError, match=message):
            read(tmp_path / wrong)
    with pytest.raises(InputError, match="expected a table to transpose, found a.h5ad"):
        read(path, transpose=True)


@pytest.mark.parametrize("kept", [0.2, 0.7, 0.999])
def test_truncated_files_are_refused(tmp_path, kept):
    path = h5ad(tmp_path / "a.h5ad")
    path.write_bytes(path.read_bytes()[: int(kept * path.stat().st_size)])
    with pytest.raises(InputError, match="expected the whole of a.h5ad, found a truncated file"):
        read(path)


def sparse_entry(file, name, position, value) -> None:
    array = file[f"X/{name}"]
    array[position] = value


def float_indices(file) -> None:
    del file["X/indices"]
    file["X/indices"] = np.ones(3)


def huge(file, name="obsm/bomb", shape=(10**6, 10**6), **options) -> None:
    dataset = file.create_dataset(name, shape, dtype="f8", chunks=(1000, 1000), **options)
    dataset.attrs.update({"encoding-type": "array", "encoding-version": "0.2.0"})


def virtual(file) -> None:
    layout = h5py.VirtualLayout((3,), dtype="f8")
    layout[:] = h5py.VirtualSource("secret.h5", "x", shape=(3,))
    file.create_virtual_dataset("obsm/v", layout)


def plugin(file) -> None:
    properties = h5py.h5p.create(h5py.h5p.DATASET_CREATE)
    properties.set_chunk((3,))
    properties.set_filter(32015, h5py.h5z.FLAG_OPTIONAL, (3,))
    h5py.h5d.create(file["obsm"].id, b"p", h5py.h5t.NATIVE_DOUBLE, h5py.h5s.create_simple((3,)), properties)


def wide(file) -> None:
    group = file.create_group("uns/wide", track_order=False)
    for i in range(100_001):
        group.id.links.create_soft(f"{i}".encode(), b"/obs")


def doubling(file) -> None:
    """Each of 40 levels holds the next twice: 2^40 paths to a reader."""
    below = file.create_group("uns/level0")
    for level in range(1, 40):
        group = file.create_group(f"uns/level{level}")
        group["a"] = group["b"] = below
        below = group


def deep(file) -> None:
    file.create_group("uns/" + "d/" * 100)


def shared_strings(file) -> None:
    text = file["obs"].create_dataset("long", (20_000,), dtype=h5py.string_dtype(), chunks=(1000,), compression="gzip")
    text[:] = ["x" * 10] * 20_000


def reference(file) -> None:
    hidden = file.create_dataset("uns/hidden", (3,), dtype="f8", external=[("secret.bin", 0, 24)])
    file["obs/depth"].attrs["categories"] = hidden.ref


def sequences(file) -> None:
    file.create_dataset("uns/s", (2,), dtype=h5py.vlen_dtype(np.int8))


def loop(file) -> None:
    file["uns/loop"] = file["uns"]


def soft_loop(file) -> None:
    file["uns/loop"] = h5py.SoftLink("/")


HOSTILE = {
    "column too large": (lambda f: sparse_entry(f, "indices", 0, 10**7), "from 0 to 6 at '/X/indices'.*10,000,000"),
    "column negative": (lambda f: sparse_entry(f, "indices", 0, -1), "from 0 to 6 at '/X/indices'.*found -1"),
    "pointer falls": (lambda f: sparse_entry(f, "indptr", 3, 10**6), "'/X/indptr' in a.h5ad, found some that fall"),
    "pointer starts late": (lambda f: sparse_entry(f, "indptr", 0, 1), "'/X/indptr' in a.h5ad, found 1 at their start"),
    "pointer ends early": (lambda f: sparse_entry(f, "indptr", -1, f["X/indptr"][-2]), "'/X/indptr'.* their end"),
    "rows missing": (lambda f: f["X"].attrs.modify("shape", (13, 7)), "14 pointers .*, found 13 pointers"),
    "rows of a bomb": (lambda f: f["X"].attrs.modify("shape", (10**15, 7)), "found 13 pointers"),
    "negative shape": (lambda f: f["X"].attrs.modify("shape", (-1, 7)), r"'/X' in a.h5ad, found shape \(-1, 7\)"),
    "values missing": (lambda f: f["X"].__delitem__("data"), "no data"),
    "float indices": (float_indices, "whole indices"),
    "shape bomb": (huge, "'/obsm/bomb' declaring 8.0 TB and storing 0 bytes"),
    "packed shape bomb": (lambda f: huge(f, compression="gzip"), "'/obsm/bomb' declaring 8.0 TB"),
    "external link": (
        lambda f: f.__setitem__("obsm/l", h5py.ExternalLink("/etc/secret.h5", "/x")),
        "'/obsm/l' to '/x' of '/etc/secret.h5'",
    ),
    "dangling link": (lambda f: f.__setitem__("obsm/l", h5py.SoftLink("/nowhere")), "lead somewhere in .*'/obsm/l'"),
    "external storage": (
        lambda f: f.create_dataset("obsm/e", (3,), dtype="f8", external=[("secret.bin", 0, 24)]),
        "'/obsm/e' stored in 'secret.bin'",
    ),
    "referenced storage": (reference, "'/obs/depth@categories' stored in 'secret.bin'"),
    "virtual dataset": (virtual, "'/obsm/v', a virtual dataset"),
    "plug-in": (plugin, "filter 32015 .*, a plug-in, at '/obsm/p'"),
    "sequences": (sequences, "sequences of variable length at '/uns/s'"),
    "sequences in attributes": (
        lambda f: f["uns"].attrs.create("s", h5py.Empty(h5py.vlen_dtype(np.int8))),
        "sequences of variable length at '/uns@s'",
    ),
    "hard loop": (loop, "'/uns/loop' that leads back"),
    "soft loop": (soft_loop, "'/uns/loop' that leads back"),
    "too many": (wide, "at most 100,000 arrays and groups in a.h5ad, found 100,0.. at '/uns/wide'"),
    "too many paths": (doubling, "at most 1,000 arrays and groups in a.h5ad, found 1,001"),
    "too deep": (deep, "at most 64 levels"),
}  # fmt: skip


@pytest.mark.parametrize("fault", HOSTILE)
def test_hostile_hdf5_is_refused(tmp_path, fault, monkeypatch):
    if fault == "too many paths":
        monkeypatch.setattr(limits, "MOST_NODES", 1000)
    change, message = HOSTILE[fault]
    path = h5ad(tmp_path / "a.h5ad")
    with h5py.File(path, "a") as file:
        change(file)
    start = time.perf_counter()
    with pytest.raises(InputError, match=message) as caught:
        read(path)
    assert "a.h5ad" in str(caught.value)
    assert time.perf_counter() - start < 10


@pytest.mark.parametrize("size", [0, 2**40], ids=["empty", "beyond the end"])
def test_heaps_on_which_hdf5_would_loop_are_refused(tmp_path, size):
    """The first object of the first heap loses its number and its size."""
    path = h5ad(tmp_path / "a.h5ad")
    content = bytearray(path.read_bytes())
    head = content.index(b"GCOL") + 16
    content[head : head + 16] = bytes(8) + size.to_bytes(8, "little")
    path.write_bytes(content)
    with pytest.raises(InputError, match="sound global heaps in a.h5ad, found a broken one at byte"):
        read(path)


def test_a_csc_matrix_is_checked_too(tmp_path):
    path = h5ad_csc(tmp_path / "a.h5ad")
    with h5py.File(path, "a") as file:
        file["X/indices"][0] = 12
    with pytest.raises(InputError, match="from 0 to 11 at '/X/indices' in a.h5ad, found 12"):
        read(path)


def test_ten_x_indices_are_checked(tmp_path):
    path = tenx(tmp_path / "a.h5")
    with h5py.File(path, "a") as file:
        file["matrix/indices"][0] = -3
    with pytest.raises(InputError, match="found -3"):
        read(path)


def test_small_files_are_held_to_the_memory_there_is(tmp_path, monkeypatch):
    path = h5ad(tmp_path / "a.h5ad")
    monkeypatch.setattr(limits, "available", lambda: 1000)
    with pytest.raises(InputError, match="arrays that fit into 1.0 kB of memory"):
        read(path)


def test_strings_that_share_their_text_are_counted(tmp_path, monkeypatch):
    """As if 1,000 cells' descriptions were one text of the file, packed: more characters than the file has bytes."""
    path = h5ad(tmp_path / "a.h5ad")
    with h5py.File(path, "a") as file:
        shared_strings(file)
    monkeypatch.setattr("biovae.data.hdf5.MOST_UNCHECKED", 10**5)
    monkeypatch.setattr("biovae.data.hdf5.MOST_RATIO", 0.1)
    with pytest.raises(InputError, match="characters at '/obs/long'"):
        read(path)


def test_text_bombs_are_refused(tmp_path, monkeypatch):
    monkeypatch.setattr(limits, "MOST_UNCHECKED", 10**6)
    monkeypatch.setattr(limits, "MOST_RATIO", 100)
    (tmp_path / "a.csv.gz").write_bytes(gzip.compress(b"a,b\n" + b"1,2\n" * 10**6))
    with pytest.raises(InputError, match="expected at most 1.0 MB of text in a.csv.gz, found more"):
        read(tmp_path / "a.csv.gz")


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("matrix.mtx", b"%%MatrixMarket matrix coordinate integer general\n7 12 900000000000\n", "declaring 21.6 TB"),
        ("matrix.mtx", b"%%MatrixMarket matrix coordinate integer general\n9 12 1\n1 1 1\n", "7 features x 12 cells"),
        ("matrix.mtx", b"%%MatrixMarket matrix coordinate integer general\n7 12 1\n8 1 1\n", "damaged"),
        ("matrix.mtx", b"%%MatrixMarket matrix array integer general\n7 12\n", "coordinate"),
        ("matrix.mtx", b"hello", "coordinate"),
        ("matrix.mtx", b"", "coordinate"),
        ("barcodes.tsv", b"", "a name on each line of barcodes.tsv"),
        ("barcodes.tsv", None, "expected barcodes.tsv, gzipped or not"),
    ],
)
def test_damaged_folders_are_refused(tmp_path, name, content, message):
    path = folder(tmp_path / "folder", packed=False)
    (path / name).unlink()
    if content is not None:
        (path / name).write_bytes(content)
    with pytest.raises(InputError, match=message):
        read(path)


def edit(path: Path, change) -> None:
    content = json.loads(path.read_text())
    change(content)
    path.write_text(json.dumps(content))


def drop_consolidated(path: Path) -> None:
    edit(path / "zarr.json", lambda content: content.pop("consolidated_metadata", None))


def consolidated_escape(path: Path) -> None:
    def change(content):
        inner = content["consolidated_metadata"]["metadata"]
        inner["../../secret"] = inner["X"]

    edit(path / "zarr.json", change)


def consolidated_bomb(path: Path) -> None:
    def change(content):
        content["consolidated_metadata"]["metadata"]["X/data"]["shape"] = [10**12]

    edit(path / "zarr.json", change)


def symlink(path: Path) -> None:
    (path / "obsm" / "l").symlink_to("/etc")


def fifo(path: Path) -> None:
    os.mkfifo(path / "obsm" / "pipe")


def bad_index(path: Path) -> None:
    zarr.open_group(path, mode="r+")["X/indices"][0] = 99


HOSTILE_STORES = {
    "symlink": (store_3, symlink, "a link to '/etc' at 'obsm/l'"),
    "pipe": (store_3, fifo, "a special file at 'obsm/pipe'"),
    "shape bomb": (
        store_3,
        lambda p: edit(p / "X/data/zarr.json", lambda c: c.update(shape=[10**12])),
        "'/X/data' declaring 4.0 TB",
    ),
    "shape bomb 2": (
        store_2,
        lambda p: edit(p / "X/data/.zarray", lambda c: c.update(shape=[10**12])),
        "'/X/data' declaring 4.0 TB",
    ),
    "chunk bomb": (
        store_2,
        lambda p: edit(p / "X/data/.zarray", lambda c: c.update(chunks=[10**12])),
        "'/X/data' declaring 4.0 TB",
    ),
    "consolidated bomb": (store_3, consolidated_bomb, "'/X/data' declaring 4.0 TB"),
    "consolidated escape": (store_3, consolidated_escape, "paths that stay inside in a.zarr, found '../../secret'"),
    "unknown codec": (
        store_3,
        lambda p: edit(p / "X/data/zarr.json", lambda c: c["codecs"].append({"name": "numcodecs.pickle"})),
        "known codecs at '/X/data' in a.zarr, found 'numcodecs.pickle'",
    ),
    "pickle": (
        store_2,
        lambda p: edit(p / "X/data/.zarray", lambda c: c.update(filters=[{"id": "vlen-utf8"}, {"id": "pickle"}])),
        "'/X/data' in a.zarr, found 'pickle'",
    ),
    "msgpack": (
        store_2,
        lambda p: edit(p / "X/data/.zarray", lambda c: c.update(compressor={"id": "msgpack2"})),
        "found 'msgpack2'",
    ),
    "index": (store_3, bad_index, "from 0 to 6 at '/X/indices' in a.zarr, found 99"),
    "no json": (store_3, lambda p: (p / "X/data/zarr.json").write_text("{"), "'X/data/zarr.json' that is none"),
    "deep json": (
        store_3,
        lambda p: (p / "X/data/zarr.json").write_text("[" * 10**5),
        "'X/data/zarr.json' that is none",
    ),
    "list": (store_2, lambda p: (p / "X/.zattrs").write_text("[]"), "a list at 'X/.zattrs'"),
    "nonsense": (
        store_3,
        lambda p: edit(p / "X/data/zarr.json", lambda c: c.update(data_type=3)),
        "the metadata of an array in a.zarr, found other at '/X/data'",
    ),
}


@pytest.mark.parametrize("fault", HOSTILE_STORES)
def test_hostile_stores_are_refused(tmp_path, fault):
    make, change, message = HOSTILE_STORES[fault]
    path = make(tmp_path / "a.zarr")
    change(path)
    with pytest.raises(InputError, match=message):
        read(path)


@pytest.mark.parametrize("name", ["../out/zarr.json", "/etc/zarr.json", "..\\out"])
def test_zips_that_climb_out_are_refused(tmp_path, name):
    path = zipped(tmp_path / "a.zarr.zip")
    with zipfile.ZipFile(path, "a") as archive:
        archive.writestr(name, "{}")
    with pytest.raises(InputError, match="paths that stay inside in a.zarr.zip"):
        read(path)


def test_links_and_doubles_in_zips_are_refused(tmp_path):
    path = zipped(tmp_path / "a.zarr.zip")
    with zipfile.ZipFile(path, "a") as archive:
        link = zipfile.ZipInfo("obsm/l")
        link.external_attr = 0o120777 << 16
        archive.writestr(link, "/etc/passwd")
    with pytest.raises(InputError, match="a link or an encrypted file at 'obsm/l'"):
        read(path)
    path = zipped(tmp_path / "b.zarr.zip")
    with zipfile.ZipFile(path, "a") as archive, warnings.catch_warnings():
        warnings.simplefilter("ignore")
        archive.writestr("zarr.json", "{}")
    with pytest.raises(InputError, match="each member once"):
        read(path)


def test_files_are_joined_over_shared_genes(tmp_path):
    one, two = cells(), cells()[:, ["G6", "G2", "G1"]].copy()
    two.obs_names = [f"cell{i}" for i in range(8, 20)]
    two.obs["extra"] = 1
    (tmp_path / "b").mkdir()
    quietly(one.write_h5ad, tmp_path / "one.h5ad")
    quietly(two.write_h5ad, tmp_path / "two.h5ad")
    adata, notices = read_many([tmp_path / "one.h5ad", tmp_path / "two.h5ad"], "sample")
    assert list(adata.var_names) == ["G1", "G2", "G6"], "in the order of the first file"
    np.testing.assert_array_equal(values(adata.X), np.vstack([COUNTS[:, [1, 2, 6]]] * 2))
    assert adata.obs["sample"].tolist() == ["one"] * 12 + ["two"] * 12
    assert adata.obs_names[:9].tolist() == [*CELLS[:8], "cell8-one"]
    assert adata.obs_names[12:17].tolist() == ["cell8-two", "cell9-two", "cell10-two", "cell11-two", "cell12"]
    assert notices == [
        "left out 4 of 7 genes of one that not all files have",
        "left out columns of obs and layers that not all files have: 'extra'",
        "added the file's name to 8 names of observations",
    ]


@pytest.mark.parametrize("both", [True, False])
def test_raw_counts_are_joined_or_missed(both, tmp_path):
    for name in ("one", "two"):
        part = cells()
        if both or name == "one":
            part.raw = part.copy()
        part.X = np.log1p(values(part.X))
        quietly(part.write_h5ad, tmp_path / f"{name}.h5ad")
    adata, notices = read_many([tmp_path / "one.h5ad", tmp_path / "two.h5ad"], "sample")
    if both:
        np.testing.assert_array_equal(values(adata.raw.X), np.vstack([COUNTS] * 2))
        assert list(adata.raw.var_names) == GENES
    else:
        assert adata.raw is None
    assert ("left out .raw, which not all files have" in notices) is not both


@pytest.mark.parametrize("text", ["-", "1,234", "<LOD"])
def test_a_word_among_numbers_is_no_silent_loss(text, tmp_path):
    rows = [f"c{i},{i % 3},{i}" for i in range(30)]
    rows[7] = f'c7,"{text}",7'
    (tmp_path / "a.csv").write_text("\n".join(["cell,g1,g2", *rows]))
    with pytest.raises(InputError, match="column 'g1' of a.csv, found 1 of 30 that are no number"):
        read(tmp_path / "a.csv")


def test_names_of_batches_are_unique(tmp_path):
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
        h5ad(tmp_path / name / "x.h5ad")
    paths = [tmp_path / "a" / "x.h5ad", tmp_path / "b" / "x.h5ad", tmp_path / "b" / "x.h5ad"]
    adata, _ = read_many(paths, "batch")
    assert list(adata.obs["batch"].cat.categories) == ["a/x", "b/x-1", "b/x-2"]
    assert adata.obs_names.is_unique


def test_files_that_cannot_be_joined_are_refused(tmp_path):
    one, two = h5ad(tmp_path / "one.h5ad"), cells()
    two.var_names = [name.lower() for name in GENES]
    quietly(two.write_h5ad, tmp_path / "two.h5ad")
    with pytest.raises(InputError, match="shared by all 2 files, found none .one: 'G0', .*two: 'g0'"):
        read_many([one, tmp_path / "two.h5ad"], "batch")
    with pytest.raises(InputError, match="found 'type' in obs of one"):
        read_many([one], "type")
    with pytest.raises(InputError, match="at least one file"):
        read_many([], "batch")
    mixed = tenx(tmp_path / "a.h5", ["Gene Expression"] * 4 + ["Antibody Capture"] * 3)
    with pytest.raises(InputError, match="found a MuData in a.h5"):
        read_many([one, mixed], "batch")
    two.var_names = ["G0"] * 7
    quietly(two.write_h5ad, tmp_path / "two.h5ad")
    with pytest.raises(InputError, match="'G0' more than once in two"):
        read_many([one, tmp_path / "two.h5ad"], "batch")


@given(data=st.data())
@settings(max_examples=50, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_flipped_bytes_end_in_data_or_a_sentence(tmp_path, data):
    whole = tmp_path / "whole.h5ad"
    content = bytearray(whole.read_bytes() if whole.exists() else h5ad(whole).read_bytes())
    for _ in range(data.draw(st.integers(1, 8))):
        content[data.draw(st.integers(0, len(content) - 1))] ^= data.draw(st.integers(1, 255))
    (tmp_path / "flipped.h5ad").write_bytes(content)
    with contextlib.suppress(InputError):
        read(tmp_path / "flipped.h5ad")


@pytest.mark.parametrize("name", REAL)
def test_real_files_are_read_and_checks_are_quick(real, name):
    path = real(name)
    start = time.perf_counter()
    with open_hdf5(path):
        seconds = time.perf_counter() - start
    assert seconds < 1, "0.3 s when nothing else runs"
    assert min(read(path).shape) > 0
