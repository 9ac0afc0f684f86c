"""Every container gives the same observations, and stays as it was (R13, R14, R15)."""

import warnings

import anndata
import numpy as np
import pandas as pd
import pytest
import scipy.sparse
import zarr
from hypothesis import given
from hypothesis import strategies as st

from biovae.data import Source, align, containers, prepare
from biovae.data.containers import ROWS, gather, row_totals
from biovae.schema import Support

RNA = Source(name="rna", support=Support.COUNTS, exposure=True)
REALS = Source(name="protein", support=Support.REALS)


def shuffled(x):
    """CSR with unsorted columns, a stored zero, and one count split in two."""
    csr = scipy.sparse.csr_matrix(x)
    rows, columns = csr.nonzero()
    value = csr.data.copy()
    order = np.random.default_rng(0).permutation(len(value))
    order = order[np.argsort(rows[order], kind="stable")]
    lengths = np.diff(csr.indptr)
    indices, data = columns[order], value[order]
    big = int(np.argmax(data))
    data[big] -= 1
    where = int(np.searchsorted(csr.indptr, big, side="right"))
    indices = np.insert(indices, csr.indptr[where], [columns[order][big], x.shape[1] - 1])
    data = np.insert(data, csr.indptr[where], [1, 0]).astype(x.dtype)
    lengths[where - 1] += 2
    return scipy.sparse.csr_matrix((data, indices, np.concatenate([[0], np.cumsum(lengths)])), shape=x.shape)


class Lazy:
    """A matrix that is computed when it is asked for, as dask does."""

    def __init__(self, x):
        self.x, self.shape, self.dtype = x, x.shape, x.dtype

    def __getitem__(self, rows):
        return Lazy(self.x[rows])

    def compute(self):
        return self.x


CONTAINERS = {
    "csr_matrix": scipy.sparse.csr_matrix,
    "csr_array": scipy.sparse.csr_array,
    "csc_matrix": scipy.sparse.csc_matrix,
    "csc_array": scipy.sparse.csc_array,
    "coo": scipy.sparse.coo_matrix,
    "lil": scipy.sparse.lil_matrix,
    "shuffled": shuffled,
    "dense": np.asarray,
    "fortran": np.asfortranarray,
    "object": lambda x: x.astype(object),
    "frame": pd.DataFrame,
    "lazy": Lazy,
}
DENSE_ONLY = ["float16", ">f4", ">i8"]
TYPES = ["int8", "uint8", "uint16", "int64", "uint64", "float32", "float64", *DENSE_ONLY]
SHAPES = (st.integers(1, 30), st.integers(1, 12), st.integers(0, 99))


@pytest.mark.parametrize("container", CONTAINERS)
@given(st.sampled_from(TYPES), *SHAPES)
def test_every_container_is_gathered_alike(counted, container, kind, observations, features, seed):
    x = counted(observations, features, seed=seed, dtype=np.int64)
    if container in ("coo", "lil", "shuffled") or container.startswith("cs"):
        kind = "float64" if kind in DENSE_ONLY else kind
    matrix = CONTAINERS[container](x.astype(kind))
    random = np.random.default_rng(seed)
    rows, columns = random.permutation(observations)[: observations // 2 + 1], random.permutation(features)[:5]
    for sparse in (True, False):
        whole = gather(matrix, None, None, sparse=sparse, place="X")
        part = gather(matrix, rows, columns, sparse=sparse, place="X")
        if sparse:
            assert whole.has_canonical_format
            assert part.has_canonical_format
            assert np.all(whole.data)
        np.testing.assert_array_equal(whole.toarray() if sparse else whole, x)
        np.testing.assert_array_equal(part.toarray() if sparse else part, x[rows][:, columns])


@pytest.mark.parametrize(
    "container", ["csr_matrix", "csr_array", "csc_matrix", "csc_array", "shuffled", "dense", "fortran"]
)
@given(st.sampled_from(["int8", "uint16", "int64", "float32", "float64"]), *SHAPES)
def test_every_anndata_gives_the_same_observations(
    same, fingerprint, counted, annotated, container, kind, observations, features, seed
):
    x = counted(observations, features, seed=seed, dtype=np.int64)
    reference = prepare(annotated(scipy.sparse.csr_matrix(x)), [RNA])
    data = annotated(CONTAINERS[container](x.astype(kind)))
    before = fingerprint(data)
    prepared = prepare(data, [RNA])
    assert fingerprint(data) == before
    same(reference, prepared)
    same(reference, align(data, [RNA], prepared.schema))
    assert fingerprint(data) == before


@pytest.mark.parametrize("container", ["csr_matrix", "csc_matrix", "dense"])
@pytest.mark.parametrize("suffix", ["h5ad", "zarr"])
def test_backed_and_lazy_files_give_the_same_observations(
    same, counted, annotated, tmp_path, container, suffix, monkeypatch
):
    monkeypatch.setattr("biovae.data.containers.ENTRIES", 64)
    x = counted(40, 9)
    reference = prepare(annotated(scipy.sparse.csr_matrix(x)), [RNA])
    data = annotated(CONTAINERS[container](x))
    path = tmp_path / f"data.{suffix}"
    if suffix == "h5ad":
        data.write_h5ad(path)
        backed = anndata.read_h5ad(path, backed="r")
    else:
        with anndata.settings.override(zarr_write_format=3), warnings.catch_warnings():
            warnings.simplefilter("ignore")  # anndata announces its next default
            data.write_zarr(path)
        group = zarr.open_group(path, mode="r")
        stored = group["X"] if container == "dense" else anndata.io.sparse_dataset(group["X"])
        backed = anndata.AnnData(obs=data.obs, var=data.var, layers={"stored": stored})
    source = RNA if suffix == "h5ad" else RNA.model_copy(update={"layer": "stored"})
    before = path.stat().st_mtime_ns
    same(reference, prepare(backed, [source]))
    order = np.array([7, 3, 33, 3])
    same(prepare(annotated(x), [RNA], rows=order), prepare(backed, [source], rows=order))
    chosen = {"rna": ["gene5", "gene2"]}
    same(prepare(annotated(x), [RNA], features=chosen), prepare(backed, [source], features=chosen))
    assert path.stat().st_mtime_ns == before
    if suffix == "h5ad":
        backed.file.close()


def test_views_and_memory_maps_give_the_same_observations(same, counted, annotated, tmp_path):
    x = counted(20, 6)
    reference = prepare(annotated(x[5:15]), [RNA])
    for layout in (np.asarray, scipy.sparse.csr_matrix, scipy.sparse.csc_matrix):
        view = annotated(layout(x))[5:15]
        assert view.is_view
        same(reference, prepare(view, [RNA]))
        assert view.is_view
    np.save(tmp_path / "x.npy", x[5:15])
    mapped = np.load(tmp_path / "x.npy", mmap_mode="r")
    same(reference, prepare(annotated(mapped), [RNA]))
    same(prepare(annotated(x[5:15]), [REALS]), prepare(annotated(mapped), [REALS]))


TWICE = np.array([200, 200], np.uint8)  # both at (0, 1)
DOUBLES = {
    "csr": scipy.sparse.csr_matrix((TWICE, [1, 1], [0, 2, 2]), shape=(2, 2)),
    "csc": scipy.sparse.csc_array((TWICE, [0, 0], [0, 0, 2]), shape=(2, 2)),
    "coo": scipy.sparse.coo_array((TWICE, ([0, 0], [1, 1])), shape=(2, 2)),
}


@pytest.mark.parametrize("layout", DOUBLES)
@pytest.mark.parametrize("sparse", [True, False])
def test_two_counts_of_a_narrow_type_do_not_overflow_together(layout, sparse):
    part = gather(DOUBLES[layout], None, None, sparse=sparse, place="X")
    np.testing.assert_array_equal(part.toarray() if sparse else part, [[0, 400], [0, 0]])


def test_booleans_are_zeros_and_ones(same, counted, annotated):
    x = counted() > 1
    source = Source(name="atac", support=Support.BINARY)
    same(prepare(annotated(x.astype(np.float32)), [source]), prepare(annotated(scipy.sparse.csr_matrix(x)), [source]))


def test_dense_tensors_share_no_memory_with_the_caller(counted, annotated):
    data = annotated(counted())
    prepare(data, [REALS]).observations.x[0].zero_()
    assert data.X.any()


@pytest.mark.parametrize("count", [2**15, 2**24 + 1, 10**9, 2**40])
def test_huge_counts_arrive_finite(dense, counted, annotated, count):
    x = counted(dtype=np.int64)
    x[0, 0] = count
    observations = prepare(annotated(x), [RNA]).observations
    assert dense(observations.x[0])[0, 0] == np.float32(count)
    assert observations.exposure[0][0] == np.float32(x[0].sum())


@pytest.mark.parametrize(("top", "kind"), [(200, np.uint8), (300, np.int16), (2**20, np.int32), (0.5, np.float64)])
def test_counts_that_are_read_in_pieces_come_as_narrow_as_they_allow(monkeypatch, counted, top, kind):
    monkeypatch.setattr(containers, "ENTRIES", 50)
    x = counted(20, 6).astype(np.float64)
    x[4:9] = 0
    x[-1, 2] = top
    found = gather(Lazy(scipy.sparse.csr_matrix(x)), None, None, sparse=True, place="X")
    assert found.data.dtype == kind
    assert found.indices.dtype == np.int32
    assert found.has_canonical_format
    np.testing.assert_array_equal(found.toarray(), x)
    chosen = np.array([19, 4, 2, 2])
    found = gather(Lazy(scipy.sparse.csr_matrix(x)), chosen, np.array([2, 0]), sparse=True, place="X")
    np.testing.assert_array_equal(found.toarray(), x[chosen][:, [2, 0]])


def test_totals_of_rows_over_many_pieces():
    rng = np.random.default_rng(0)
    dense = rng.poisson(0.05, (2 * ROWS + 7, 5)) * rng.integers(1, 2**20, (2 * ROWS + 7, 5))
    dense[ROWS - 3 : ROWS + 3] = 0
    matrix = scipy.sparse.csr_array(dense.astype(np.float32))
    np.testing.assert_array_equal(row_totals(matrix), dense.sum(1))
    np.testing.assert_array_equal(row_totals(matrix[:0]), np.zeros(0))
