"""Small data that every test of the data wing may spoil."""

import hashlib
import warnings
from collections.abc import Callable

import anndata
import numpy as np
import pandas as pd
import pytest
import scipy.sparse
import torch
from anndata import AnnData

from biovae.batch import SparseMatrix


@pytest.fixture(scope="session")
def counted() -> Callable[..., np.ndarray]:
    """`counted(12, 6)`: counts without an empty row or column."""

    def make(observations=12, features=6, *, seed=0, dtype=np.float32):
        x = np.random.default_rng(seed).poisson(1.0, (observations, features)).astype(dtype)
        x[np.arange(observations), np.arange(observations) % features] += 1
        x[np.arange(features) % observations, np.arange(features)] += 1
        return x

    return make


@pytest.fixture(scope="session")
def annotated() -> Callable[..., AnnData]:
    """`annotated(x, batch=...)`: an AnnData with names; anndata's own warnings about names are not ours."""

    def make(x, **obs):
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return anndata.AnnData(
                x,
                obs=pd.DataFrame(obs, index=[f"cell{i}" for i in range(x.shape[0])]),
                var=pd.DataFrame(index=[f"gene{j}" for j in range(x.shape[1])]),
            )

    return make


@pytest.fixture
def adata(counted, annotated) -> AnnData:
    """Twelve observations of six features, with a batch and a depth."""
    return annotated(scipy.sparse.csr_matrix(counted()), batch=list("aabbab" * 2), depth=np.arange(12.0))


@pytest.fixture(scope="session")
def dense() -> Callable[..., np.ndarray]:
    """`dense(x)`: the values of a modality, zeros written out."""
    return lambda x: x.scipy().toarray() if isinstance(x, SparseMatrix) else x.numpy()


@pytest.fixture(scope="session")
def same() -> Callable[..., None]:
    """`same(one, other)`: two prepared data sets hold the same observations, bit by bit."""

    def check(one, other):
        for a, b in zip(one.observations.x, other.observations.x, strict=True):
            assert type(a) is type(b)
            if isinstance(a, SparseMatrix):
                assert a.shape == b.shape
                assert a.value.dtype == b.value.dtype
                assert all(torch.equal(getattr(a, name), getattr(b, name)) for name in ("pointers", "column", "value"))
            else:
                assert torch.equal(a, b)
        for name in ("exposure", "present"):
            for a, b in zip(getattr(one.observations, name), getattr(other.observations, name), strict=True):
                assert (a is None and b is None) or torch.equal(a, b)
        assert torch.equal(one.observations.covariates, other.observations.covariates)

    return check


@pytest.fixture(scope="session")
def fingerprint() -> Callable[[AnnData], str]:
    """`fingerprint(adata)`: a hash of every byte, of the types, and of what scipy remembers about its matrices."""

    def make(data):
        parts = [data.obs.to_csv(), data.var.to_csv(), repr(data.obs.dtypes.tolist()), repr(list(data.uns))]
        for x in (data.X, *data.layers.values(), *data.obsm.values()):
            arrays = (x.data, x.indices, x.indptr) if scipy.sparse.issparse(x) else (np.ascontiguousarray(x),)
            parts += [repr((type(x), a.dtype, a.tobytes())) for a in arrays]
            parts.append(repr(sorted(vars(x))) if scipy.sparse.issparse(x) else "")
        return hashlib.sha256("".join(parts).encode()).hexdigest()

    return make
