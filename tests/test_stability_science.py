"""What an ensemble must say of cells whose truth is known, and of real ones; minutes long, run before a release."""

import anndata as ad
import numpy as np
import pytest

import biovae as bv
from biovae.datasets import scenarios, simulate
from biovae.datasets.truth import expected_counts

pytestmark = pytest.mark.slow
SEEDS, FITS = (0, 1, 2), 5


def fitted(scenario, seed):
    adata = simulate(scenario.but(technical={"batches": 1}), cells=1000, genes=500, seed=seed)
    return bv.VAE(bv.rna()).fit(adata, seed=100 * seed, ensemble=FITS, progress=False), adata


@pytest.mark.parametrize("seed", SEEDS)
def test_clear_types_are_found_again_and_limits_hold_the_truth(seed):
    vae, adata = fitted(scenarios.TYPES, seed)
    found = bv.tl.stability(vae, adata, groups="cell_type", contrasts="cell_type", progress=False)
    assert found.summary.loc["fits", "clusters"] > 0.95
    assert not found.unstable
    assert "All 5 groups are apart from all others in every fit" in str(found)
    chance = found.k / (adata.n_obs - 1)
    assert found.summary.loc["fits", "neighbours"] > 10 * chance

    names = list(adata.var_names[np.argsort(-adata.var["baseline_true"].to_numpy())[:300:6]])
    counts = expected_counts(adata)  # with the effect of its one batch, which nobody can tell from the genes' own level
    true = (counts / counts.sum(1, keepdims=True))[:, adata.var_names.get_indexer(names)] * 1e4
    one = vae.expression(adata, features=names, samples=25)
    every = bv.tl.ensemble_expression(vae, adata, names, progress=False)
    inside = [((told.lower <= true) & (true <= told.upper)).to_numpy().mean() for told in (one, every)]
    assert inside[0] > 0.9
    assert inside[1] > 0.9
    errors = [np.abs(np.log(told.mean.to_numpy() / true)).mean() for told in (one, every)]
    assert errors[1] < errors[0]


@pytest.mark.parametrize("seed", SEEDS)
def test_where_there_is_nothing_no_cluster_is_found_again(seed):
    vae, adata = fitted(scenarios.NOTHING, seed)
    found = bv.tl.stability(vae, adata, resolution=1.0, progress=False)
    assert len(found.groups) > 1
    assert not found.groups["stable"].any()
    assert "Not found again at this resolution, and not to be reported" in str(found)


@pytest.mark.parametrize(
    "name", ["pbmc3k_hvg2000.h5ad", "pancreas_endocrinogenesis_velocity.h5ad", "worm_neurons.h5ad"]
)
def test_real_types_are_more_stable_than_their_neighbours(name, real):
    adata = ad.read_h5ad(real(name))
    vae = bv.VAE(bv.rna(features=2000)).fit(adata, ensemble=3, progress=False)
    found = bv.tl.stability(vae, adata, progress=False)
    own = found.summary.loc["fits"]
    assert own["clusters"] > own["neighbours"]
    assert own["neighbours"] > 10 * found.k / len(found.cells)
    assert str(found).startswith("3 fits of")
