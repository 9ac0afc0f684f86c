"""The gate refuses what cannot be fitted in one sentence with numbers and names, and notes what deserves a look."""

import anndata
import numpy as np
import pandas as pd
import pytest
import scipy.sparse

from biovae.data import Values, check_values
from biovae.errors import InputError
from biovae.schema import Support

SPOILED = {  # name: value put at (3, 2), support, what the message says
    "nan": (np.nan, Support.COUNTS, ["NaN", "1 that are", "cell3", "gene2"]),
    "nan in reals": (np.nan, Support.REALS, ["NaN", "cell3", "gene2"]),
    "infinity": (np.inf, Support.REALS, ["infinite", "cell3"]),
    "beyond float32": (1e300, Support.REALS, ["single precision"]),
    "negative": (-1.0, Support.COUNTS, ["1 negative", "cell3", "gene2"]),
    "fraction": (0.5, Support.COUNTS, ["not whole", "0.5 for observation 'cell3', feature 'gene2'", "raw counts"]),
    "two": (2.0, Support.BINARY, ["1 values above 1", "binarise"]),
    "half": (0.5, Support.BINARY, ["0 or 1", "not whole"]),
    "negative code": (-1.0, Support.CATEGORIES, ["codes 0, 1, 2", "1 negative"]),
}


def values(x, **kwargs):
    rows, columns = x.shape
    return Values(
        x, np.array([f"cell{i}" for i in range(rows)]), np.array([f"gene{j}" for j in range(columns)]), **kwargs
    )


@pytest.mark.parametrize(
    "layout", [np.asarray, scipy.sparse.csr_matrix, scipy.sparse.csc_array, scipy.sparse.coo_array]
)
@pytest.mark.parametrize("case", SPOILED)
def test_what_cannot_be_fitted_is_refused(case, layout, counted):
    value, support, said = SPOILED[case]
    x = (counted(dtype=np.float64) > 1).astype(np.float64)
    x[3, 2] = value
    with pytest.raises(InputError) as error:
        check_values(values(layout(x)), support)
    for words in said:
        assert words in str(error.value)


@pytest.mark.parametrize("rows", [1, 7, 5000])
def test_the_last_value_counts_as_much_as_the_first(rows, monkeypatch):
    monkeypatch.setattr("biovae.data.containers.ENTRIES", 16)  # many pieces
    x = np.ones((rows, 5))
    x[-1, -1] = 0.25
    for layout in (np.asarray, scipy.sparse.csr_matrix, scipy.sparse.csc_matrix):
        with pytest.raises(InputError, match=f"0.25 for observation 'cell{rows - 1}', feature 'gene4'"):
            check_values(values(layout(x)), Support.COUNTS)


def test_the_share_of_fractions_is_exact(counted):
    x = counted(dtype=np.float64)
    x[0] = 0.5
    share = 100 * x.shape[1] / np.count_nonzero(x)
    with pytest.raises(InputError, match=f"{share:.1f} % of the non-zero values not whole"):
        check_values(values(x), Support.COUNTS)


def test_log_normalised_data_are_recognised(counted):
    with pytest.raises(InputError, match="looks log1p-normalised"):
        check_values(values(np.log1p(counted())), Support.COUNTS)
    with pytest.raises(InputError, match=r"largest .*: looks normalised"):
        check_values(values(1e3 * np.log1p(counted())), Support.COUNTS)


def test_the_layer_that_holds_counts_is_named(counted):
    with pytest.raises(InputError, match="layer='spliced' holds counts"):
        check_values(values(np.log1p(counted()), layers_hint=lambda: ["layer='spliced'"]), Support.COUNTS)


def test_values_may_be_allowed_but_never_negative_or_missing(counted):
    x = counted() + np.float32(0.5)
    assert check_values(values(x), Support.COUNTS, allow_values=True) == []
    for wrong in (-1, np.nan):
        x[0, 0] = wrong
        with pytest.raises(InputError):
            check_values(values(x), Support.COUNTS, allow_values=True)


@pytest.mark.parametrize("largest", [2**24 + 1, 10**9, 2**40])
def test_large_counts_pass(largest, counted):
    x = counted(dtype=np.int64)
    x[0, 0] = largest
    assert check_values(values(x), Support.COUNTS) == []


def test_what_is_empty_or_repeated_is_noted_once(counted):
    x = counted()
    x[4], x[:, 1] = 0, 0
    names = np.array(["same", "same", *"abcdefghij"])
    checked = Values(x, names, np.array(["g", "g", *"hijk"]), "X")
    notes = check_values(checked, Support.COUNTS)
    assert notes == [
        "all-zero observations in X: 1 ('c').",
        "all-zero features in X: 1 ('g').",
        "repeated observation names of X: 1 ('same').",
        "repeated feature names of X: 1 ('g').",
    ]
    with pytest.raises(InputError, match="on_bad='raise'.*all-zero observations"):
        check_values(checked, Support.COUNTS, on_bad="raise")


@pytest.mark.parametrize("rows", [10, 8192])
def test_constant_features_of_reals_are_noted(rows):
    x = np.random.default_rng(0).normal(size=(rows, 3))
    x[:, 1] = 7
    x[: rows // 2, 2], x[rows // 2 :, 2] = 1, 2  # 8192: constant in each of two pieces
    assert check_values(values(x), Support.REALS) == ["constant features in X: 1 ('gene1')."]


@pytest.mark.parametrize("spoil", ["beyond", "negative", "pointers"])
def test_sparse_matrices_that_point_outside_are_refused_before_any_kernel(spoil, counted):
    x = scipy.sparse.csr_matrix(counted())
    match spoil:
        case "beyond":
            x.indices[3] = 10_000_000
        case "negative":
            x.indices[3] = -7
        case "pointers":
            x.indptr[2] = x.indptr[1] - 1
    with pytest.raises(InputError, match="sound indices in X"):
        check_values(values(x), Support.COUNTS)


@pytest.mark.parametrize("x", [np.array([["a", "b"]]), np.array([[1 + 2j]]), np.array([["x", 3]], object)])
def test_what_is_no_number_is_refused(x):
    with pytest.raises(InputError, match="expected numbers in X"):
        check_values(values(x), Support.COUNTS)


def test_a_matrix_on_disk_is_checked_in_pieces(tmp_path, annotated, counted):
    x = counted(9000, 5)
    for name, matrix in {"dense": x, "sparse": scipy.sparse.csr_matrix(x), "csc": scipy.sparse.csc_matrix(x)}.items():
        data = annotated(matrix)
        data.write_h5ad(tmp_path / f"{name}.h5ad")
        spoiled = annotated(matrix.copy())
        spoiled.X[8500, 1] = 0.5
        spoiled.write_h5ad(tmp_path / f"{name}_spoiled.h5ad")
        backed = anndata.read_h5ad(tmp_path / f"{name}.h5ad", backed="r")
        assert check_values(values(backed.X), Support.COUNTS) == []
        backed.file.close()
        backed = anndata.read_h5ad(tmp_path / f"{name}_spoiled.h5ad", backed="r")
        with pytest.raises(InputError, match="cell8500"):
            check_values(values(backed.X), Support.COUNTS)
        backed.file.close()


def test_data_frames_are_checked_too(counted):
    assert check_values(values(pd.DataFrame(counted())), Support.COUNTS) == []
