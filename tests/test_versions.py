"""A model saved by an earlier version loads, and says the same."""

from pathlib import Path

import anndata as ad
import numpy as np
import pandas as pd
import pytest
import scipy.sparse

import biovae as bv

FIXTURES = Path(__file__).parent / "fixtures"


@pytest.mark.parametrize("version", [1])
def test_models_of_every_schema_version_load_and_embed_as_they_did(version):
    then = np.load(FIXTURES / f"model_v{version}.npz")
    obs = pd.DataFrame({"batch": then["batch"]}, index=[f"cell{i}" for i in range(len(then["x"]))])
    adata = ad.AnnData(scipy.sparse.csr_matrix(then["x"]), obs=obs, var=pd.DataFrame(index=then["names"]))
    vae = bv.load(FIXTURES / f"model_v{version}")
    np.testing.assert_allclose(vae.embed(adata), then["z"], atol=1e-6)
    assert np.isfinite(vae.scores(adata, samples=5).elbo).all()
    assert vae.sample(3).shape == (3, 12)
