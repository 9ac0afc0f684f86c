"""What must hold on real data and on simulations whose truth is known; minutes long, run before a release."""

import anndata as ad
import numpy as np
import pytest
from sklearn.cluster import KMeans
from sklearn.metrics import adjusted_rand_score

import biovae as bv
from biovae.analysis import total_correlation
from biovae.datasets import bayes_types, scenarios, simulate
from biovae.run.demo import library_in, order

pytestmark = pytest.mark.slow
SEEDS = range(20)


def held_out(size: int) -> np.ndarray:
    return np.arange(size) % 5 == 0


@pytest.mark.parametrize("seed", [0, 1, 2])
def test_types_and_order_come_back_and_depth_does_not(seed):
    adata = simulate(scenarios.TYPES, seed=seed)
    assert bayes_types(adata).accuracy > 0.99
    z = bv.VAE(bv.rna(), covariates=["batch"]).fit(adata, seed=seed, progress=False).embed(adata)
    found = KMeans(adata.obs["cell_type"].nunique(), n_init=10, random_state=0).fit_predict(z)
    assert adjusted_rand_score(adata.obs["cell_type"], found) > 0.95
    assert library_in(z, adata) < 0.05
    adata = simulate(scenarios.TRAJECTORY, seed=seed)
    z = bv.VAE(bv.rna(), covariates=["batch"]).fit(adata, seed=seed, progress=False).embed(adata)
    assert order(z, adata) > 0.9
    assert library_in(z, adata) < 0.05


@pytest.mark.parametrize("name", ["pbmc3k_hvg2000.h5ad", "worm_neurons.h5ad", "pbmc_facs.h5ad"])
def test_the_latent_buys_something_on_cells_it_has_not_seen(name, real):
    adata = ad.read_h5ad(real(name))
    vae = bv.VAE(bv.rna(features=2000)).fit(adata, test=held_out(adata.n_obs), progress=False)
    verdict = vae.diagnose(adata, indices=np.flatnonzero(held_out(adata.n_obs)))
    assert str(verdict["gain over the null"].state) == "ok"


def small(seed: int, **how: object) -> str:
    """The verdict's word on collapse, on held-out cells."""
    adata = simulate(scenarios.TYPES, cells=600, genes=200, seed=seed)
    vae = bv.VAE(bv.rna(), covariates=["batch"], **{"latent": 6, "hidden": 64, **how})
    vae.fit(adata, epochs=60, seed=seed, test=held_out(600), progress=False)
    return str(vae.diagnose(adata, indices=np.flatnonzero(held_out(600)))["posterior collapse"].state)


@pytest.mark.parametrize("seed", SEEDS)
def test_healthy_models_are_not_called_collapsed(seed):
    assert small(seed) == "ok"


@pytest.mark.parametrize("seed", SEEDS)
def test_wholly_collapsed_models_are_called_broken(seed):
    assert small(seed, beta=300.0) == "broken"


@pytest.mark.parametrize("seed", SEEDS)
def test_models_collapsed_in_some_dimensions_are_called(seed):
    assert small(seed, beta=15.0) in ("look", "broken")


@pytest.mark.parametrize("seed", [0, 1])
def test_charging_total_correlation_lowers_it_at_no_worse_a_reconstruction(seed):
    """Against a beta of 2, which pays for independence with information."""
    adata = simulate(scenarios.TYPES.but(technical={"library": 300.0}), cells=2000, genes=150, seed=seed)
    test = np.random.default_rng(seed).random(adata.n_obs) < 0.5
    found = {}
    for name, part in {"beta": {"beta": 2.0}, "charged": {"objective": bv.TotalCorrelation(weight=4)}}.items():
        vae = bv.VAE(bv.rna(), covariates=["batch"], latent=6, **part).fit(adata, test=test, seed=seed, progress=False)
        rows = np.flatnonzero(test)
        distortion = -vae.scores(adata, samples=10, indices=rows).reconstruction.mean()
        found[name] = (total_correlation(*vae.moments(adata, indices=rows)), distortion)
    assert found["charged"][0] < 0.8 * found["beta"][0]
    assert found["charged"][1] < found["beta"][1] + 0.1
