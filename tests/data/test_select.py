"""Feature selection agrees with the residuals written out in full, and never makes them."""

import time

import anndata
import numpy as np
import pytest
import scipy.sparse
from hypothesis import given, settings
from hypothesis import strategies as st

from biovae.data import Source, select_features
from biovae.data.select import pearson_variance
from biovae.errors import InputError
from biovae.schema import Support

RNA = Source(name="rna", support=Support.COUNTS)


def written_out(x):
    """Lause et al. (2021), equation 8, dense."""
    x = np.asarray(x, dtype=np.float64)
    mean = x.sum(1, keepdims=True) * x.sum(0) / max(1.0, x.sum())
    spread = np.sqrt(mean + mean**2 / 100)
    z = np.divide(x - mean, spread, out=np.zeros_like(x), where=spread > 0)
    return np.clip(z, -np.sqrt(len(x)), np.sqrt(len(x))).var(axis=0)


@given(st.integers(1, 40), st.integers(1, 15), st.floats(0.02, 300), st.integers(0, 10**6))
@settings(max_examples=60)
def test_the_variance_is_that_of_the_residuals(observations, features, mean, seed):
    random = np.random.default_rng(seed)
    x = random.poisson(mean * random.gamma(1.0, 1.0, features), (observations, features))
    np.testing.assert_allclose(pearson_variance(scipy.sparse.csr_array(x)), written_out(x), rtol=1e-9, atol=1e-9)


def test_pieces_make_no_difference(monkeypatch):
    x = np.random.default_rng(0).poisson(0.7, (60, 30))
    monkeypatch.setattr("biovae.data.containers.ENTRIES", 40)
    monkeypatch.setattr("biovae.data.select.TABLE", 50)
    np.testing.assert_allclose(pearson_variance(scipy.sparse.csr_array(x)), written_out(x))


def test_what_varies_beyond_noise_comes_first(annotated):
    random = np.random.default_rng(1)
    x = random.poisson(5.0, (300, 40))
    x[:150, [3, 17]] += random.poisson(20.0, (150, 2))
    table = select_features(annotated(scipy.sparse.csr_matrix(x)), 2, source=RNA)
    assert list(table.index[table["selected"]]) == ["gene3", "gene17"]
    assert sorted(table["rank"]) == list(range(1, 41))
    assert (table.sort_values("rank")["variance"].diff().dropna() <= 0).all()


def test_batches_are_ranked_apart(annotated):
    random = np.random.default_rng(2)
    x = random.poisson(5.0, (400, 30))
    batch = np.repeat(["a", "b"], 200)
    x[:200, 4] *= 10  # differs between the batches, not within them
    x[::2, 9] *= 4  # differs within both
    data = annotated(scipy.sparse.csr_matrix(x), batch=batch)
    assert select_features(data, 1, source=RNA)["rank"]["gene4"] == 1
    table = select_features(data, 1, source=RNA, batches="batch")
    assert table["rank"]["gene9"] == 1
    assert table["rank"]["gene4"] > 1
    ranks = np.stack([(-written_out(x[batch == b])).argsort().argsort() + 1 for b in "ab"])
    assert table["rank"]["gene9"] == np.median(ranks, axis=0)[9]


def test_rows_that_are_held_out_have_no_say(annotated):
    x = np.random.default_rng(3).poisson(2.0, (80, 12))
    data = annotated(scipy.sparse.csr_matrix(x))
    table = select_features(data, 3, source=RNA, rows=np.arange(80) < 50)
    np.testing.assert_allclose(table["variance"], written_out(x[:50]))


def test_other_values_have_a_plain_variance(annotated):
    x = np.random.default_rng(4).normal(size=(50, 6)) * np.arange(1, 7)
    table = select_features(annotated(x), 1, source=Source(name="x", support=Support.REALS))
    np.testing.assert_allclose(table["variance"], x.var(axis=0))
    assert table["selected"]["gene5"]


def test_a_list_and_all_are_taken_as_they_are(adata):
    assert select_features(adata, "all", source=RNA)["selected"].all()
    assert select_features(adata, 99, source=RNA)["selected"].all()
    table = select_features(adata, ["gene4", "gene1"], source=RNA)
    assert list(table.index[table["selected"]]) == ["gene1", "gene4"]


@pytest.mark.parametrize(
    ("features", "said"),
    [
        (["gene77"], "'gene77'.*did you mean 'gene"),
        (0, "at least 1"),
        ("most", "'all'"),
        (["gene1"] * 2, "more than once"),
    ],
)
def test_mistakes_are_told(adata, features, said):
    with pytest.raises(InputError, match=said):
        select_features(adata, features, source=RNA)


def test_it_is_fast_on_real_counts(real):
    data = anndata.read_h5ad(real("pbmc_facs.h5ad"))
    start = time.process_time()
    table = select_features(data, 2000, source=RNA)
    assert time.process_time() - start < 4
    assert {"GNLY", "S100A8", "S100A9", "LYZ", "NKG7", "CD79A"} <= set(table.index[table["selected"]])
    some = table.sample(40, random_state=0).index
    x = data.X.astype(np.float64).tocsr()
    total = np.asarray(x.sum(1))
    mean = total * np.asarray(x.sum(0))[:, data.var_names.get_indexer(some)] / total.sum()
    z = (x[:, data.var_names.get_indexer(some)].toarray() - mean) / np.sqrt(mean + mean**2 / 100)
    expected = np.clip(z, -np.sqrt(len(z)), np.sqrt(len(z))).var(axis=0)
    np.testing.assert_allclose(table["variance"][some], expected, rtol=1e-9)
