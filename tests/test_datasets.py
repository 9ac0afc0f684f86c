"""Simulated data keep what they promise. Oracles are built from the truth that is stored beside the counts."""

import subprocess
import sys

import anndata
import numpy as np
import pytest
import scipy.sparse
from pydantic import ValidationError

from biovae.datasets import (
    Programmes,
    Scenario,
    States,
    Technical,
    Violations,
    bayes_types,
    demo,
    expected,
    expected_counts,
    forbidden,
    scenarios,
    simulate,
)
from biovae.errors import InputError

CASES = {
    "types": scenarios.TYPES,
    "nothing": scenarios.NOTHING,
    "trajectory": scenarios.TRAJECTORY,
    "gap_and_bridge": scenarios.GAP_AND_BRIDGE,
    "messy": scenarios.MESSY,
    "demo": scenarios.DEMO,
    "poisson": Scenario(programmes=Programmes(dispersion=0.0), technical=Technical(dropout=0.3)),
    "one_type": Scenario(states=States(types=1), technical=Technical(batches=1)),
    "one_lineage": Scenario(states=States(types=0, branches=1), programmes=Programmes(gradients=0)),
}
PLAIN = Scenario(technical=Technical(batches=1), programmes=Programmes(strength=0.0))


@pytest.fixture(params=CASES.values(), ids=CASES.keys(), scope="module")
def scenario(request):
    return request.param


@pytest.fixture(scope="module")
def adata(scenario):
    return simulate(scenario, cells=800, genes=300, seed=3)


# Every scenario


def test_counts_are_canonical_compressed_rows(adata):
    assert isinstance(adata.X, scipy.sparse.csr_matrix)
    assert adata.X.dtype == np.float32
    assert adata.X.has_canonical_format
    assert (adata.X.data > 0).all()
    assert (adata.X.data == np.round(adata.X.data)).all()


def test_counts_have_the_stated_mean_and_variance(scenario, adata):
    # Sums over cells, standardised by gamma-Poisson moments, are standard normal: a wrong mean or dispersion is not.
    kept_mean, d = expected_counts(adata).astype(float), adata.var["dispersion_true"].to_numpy()
    mu = _before_dropout(kept_mean, scenario.technical.dropout)
    variance = kept_mean / mu * (mu + (1 + d) * mu**2) - kept_mean**2
    z = (np.asarray(adata.X.sum(0)).ravel() - kept_mean.sum(0)) / np.sqrt(variance.sum(0))
    assert abs(z.mean()) < 4 / np.sqrt(len(z))
    assert 0.85 < z.std() < 1.15


def test_squares_of_counts_have_the_stated_mean(scenario, adata):
    mu = _before_dropout(expected_counts(adata).astype(float), scenario.technical.dropout)
    square = expected_counts(adata) / mu * (mu + (1 + adata.var["dispersion_true"].to_numpy()) * mu**2)
    found = np.asarray(adata.X.power(2).sum(0)).ravel() / square.sum(0)
    assert np.median(found) == pytest.approx(1, abs=0.03)


def test_no_cell_is_where_biology_cannot_be(adata):
    assert not forbidden(adata, adata.obsm["latent_true"]).any()


def test_every_state_is_permitted_and_far_away_is_not(adata):
    pieces = adata.uns["truth"]["pieces"]
    assert not forbidden(adata, pieces.reshape(-1, 2)).any()
    assert forbidden(adata, np.array([[100.0, 0.0], [0.0, -100.0]])).all()


def test_nobody_beats_the_true_parameters(adata):
    labels, accuracy = bayes_types(adata)
    assert list(labels.index) == list(adata.obs_names)
    assert set(labels.unique()) <= set(adata.obs["cell_type"])
    chance = adata.obs["cell_type"].value_counts(normalize=True).max()
    assert accuracy > max(0.85, chance) or accuracy == pytest.approx(chance, abs=0.05)


def test_the_scenario_is_stored(scenario, adata):
    assert Scenario.model_validate_json(adata.uns["truth"]["scenario"]) == scenario


def test_truth_survives_a_file(adata, tmp_path):
    adata.write_h5ad(tmp_path / "cells.h5ad")
    read = anndata.read_h5ad(tmp_path / "cells.h5ad")
    np.testing.assert_array_equal(expected_counts(read), expected_counts(adata))
    np.testing.assert_array_equal(expected(read), expected(adata))
    assert bayes_types(read).accuracy == bayes_types(adata).accuracy


def test_truth_holds_for_a_subset_of_the_cells(adata):
    some = adata[adata.obs["batch"] == adata.obs["batch"].iloc[0]][::2].copy()
    every = dict(zip(adata.obs_names, expected(adata), strict=True))
    np.testing.assert_allclose(expected(some), np.stack([every[name] for name in some.obs_names]), rtol=1e-5)
    singlets = (adata.obs["doublet_true"] == "singlet").to_numpy()
    np.testing.assert_allclose(
        expected_counts(adata[singlets].copy()), expected_counts(adata)[singlets], rtol=1e-5, atol=1e-7
    )


# Seeds


def test_the_seed_decides_and_nothing_else():
    before = np.random.get_state()[1].copy()
    one, again, other = (simulate(scenarios.MESSY, cells=50, genes=40, seed=s) for s in (1, 1, 2))
    assert (one.X != again.X).nnz == 0
    assert one.obs.equals(again.obs)
    assert (one.X != other.X).nnz > 0
    assert not np.array_equal(one.varm["programmes_true"], other.varm["programmes_true"])
    np.testing.assert_array_equal(np.random.get_state()[1], before)


@pytest.mark.parametrize(
    ("part", "change"),
    [
        ("technical", {"dropout": 1.0}),
        ("violations", {"ambient": 0.2}),
        ("violations", {"doublets": 0.2}),
        ("violations", {"correlation": 0.5}),
        ("violations", {"outlier_genes": 0.1}),
        ("programmes", {"dispersion": 0.0}),
    ],
)
def test_an_effect_leaves_the_cells_as_they_were(part, change):
    plain = simulate(scenarios.DEMO, cells=60, genes=30)
    changed = simulate(scenarios.DEMO.but(**{part: change}), cells=60, genes=30)
    assert plain.obs["cell_type"].equals(changed.obs["cell_type"])
    np.testing.assert_array_equal(plain.obsm["latent_true"], changed.obsm["latent_true"])
    np.testing.assert_array_equal(plain.varm["programmes_true"], changed.varm["programmes_true"])


# Technical effects


def test_library_sizes_are_lognormal_in_each_batch():
    technical = Technical(batches=2, library=3000.0, library_spread=0.4, depths=(1.0, 0.5))
    adata = simulate(Scenario(technical=technical), cells=4000, genes=20)
    for batch, depth in zip(["batch 1", "batch 2"], technical.depths, strict=True):
        log = np.log(adata.obs["library_true"][adata.obs["batch"] == batch])
        assert len(log) == 2000
        assert log.mean() == pytest.approx(np.log(3000 * depth), abs=0.04)
        assert log.std() == pytest.approx(0.4, abs=0.03)
    total = np.asarray(expected_counts(adata).sum(1))
    np.testing.assert_allclose(total, adata.obs["library_true"], rtol=1e-4)


def test_batch_effects_come_back_as_ratios():
    scenario = scenarios.NOTHING.but(technical={"batch_effect": 0.5, "library": 50_000.0})
    adata = simulate(scenario, cells=1000, genes=200)
    one, two = (np.asarray(adata[adata.obs["batch"] == b].X.sum(0)).ravel() for b in ("batch 1", "batch 2"))
    found = np.log(one) - np.log(two)
    true = -np.diff(adata.varm["batch_effect_true"])[:, 0]
    centred = (found - found.mean()) - (true - true.mean())
    assert np.abs(centred).max() < 0.15
    assert centred.std() < 0.05


def test_dropout_removes_counts_by_their_mean_and_adds_none():
    whole = simulate(scenarios.TYPES, cells=500, genes=200)
    holed = simulate(scenarios.TYPES.but(technical={"dropout": 0.7}), cells=500, genes=200)
    x, y, mu = whole.X.toarray(), holed.X.toarray(), expected_counts(whole)
    assert ((y == x) | (y == 0)).all()
    lost, p = ((y == 0) & (x > 0)).sum(), (0.7 / (mu + 0.7))[x > 0]
    assert abs(lost - p.sum()) < 4 * np.sqrt((p * (1 - p)).sum())
    np.testing.assert_allclose(expected_counts(holed), mu * mu / (mu + 0.7), rtol=1e-4)


@pytest.mark.parametrize("library", [500.0, 5000.0, 30_000.0])
def test_density_scales_with_the_library(library):
    adata = simulate(Scenario(technical=Technical(library=library, library_spread=0.0)), cells=200, genes=500)
    assert adata.X.sum() / 200 == pytest.approx(library, rel=0.05)
    mu, r = expected_counts(adata), 1 / adata.var["dispersion_true"].to_numpy()
    assert adata.X.nnz / mu.size == pytest.approx(1 - ((r / (r + mu)) ** r).mean(), abs=0.01)


def test_gene_means_have_a_heavy_tail():
    share = np.sort(expected(simulate(PLAIN, cells=1, genes=2000))[0])[::-1]
    assert share[:100].sum() > 0.3
    assert share[-1000:].sum() < 0.15


# Violations


def test_doublets_are_the_sum_of_their_cells():
    single = simulate(scenarios.TYPES, cells=400, genes=50)
    double = simulate(scenarios.TYPES.but(violations={"doublets": 0.2}), cells=400, genes=50)
    pair = (double.obs["doublet_true"] != "singlet").to_numpy()
    assert 0.12 < pair.mean() < 0.28
    partner = double.obs_names.get_indexer(double.obs["partner_true"][pair])
    assert not pair[partner].any()
    assert (double.obs["batch"].to_numpy()[partner] == double.obs["batch"].to_numpy()[pair]).all()
    mu = expected_counts(single)
    np.testing.assert_allclose(expected_counts(double)[pair], mu[pair] + mu[partner], rtol=1e-4)
    np.testing.assert_allclose(expected_counts(double)[~pair], mu[~pair], rtol=1e-4)
    alike = single.obs["cell_type"].to_numpy()[pair] == single.obs["cell_type"].to_numpy()[partner]
    np.testing.assert_array_equal(double.obs["doublet_true"][pair] == "homotypic", alike)


def test_the_soup_is_what_the_batch_contains():
    clean = simulate(scenarios.DEMO, cells=800, genes=50)
    soiled = simulate(scenarios.DEMO.but(violations={"ambient": 0.3}), cells=800, genes=50)
    d = scenarios.DEMO.technical.dropout
    before, after = (_before_dropout(expected_counts(a), d) for a in (clean, soiled))
    share = soiled.obs["ambient_true"].to_numpy()[:, None]
    assert share.mean() == pytest.approx(0.3, abs=0.02)
    for b, batch in enumerate(soiled.obs["batch"].cat.categories):
        here = (soiled.obs["batch"] == batch).to_numpy()
        soup = before[here].sum(0) / before[here].sum()
        np.testing.assert_allclose(soiled.varm["ambient_true"][:, b], soup, rtol=1e-3)
        mixed = (1 - share) * before + share * before.sum(1, keepdims=True) * soup
        np.testing.assert_allclose(after[here], mixed[here], rtol=1e-3)


def test_genes_are_correlated_beyond_the_map():
    scenario = PLAIN.but(violations={"correlation": 0.5, "rank": 3})
    adata = simulate(scenario, cells=200, genes=100)
    log = np.log(expected_counts(adata).astype(float))
    log -= log.mean(1, keepdims=True)
    values = np.linalg.svd(log - log.mean(0), compute_uv=False)
    assert values[2] > 10
    assert values[3] < 0.01
    assert adata.obsm["hidden_true"].shape == (200, 3)
    assert (adata.varm["hidden_true"] ** 2).sum(1).mean() == pytest.approx(0.25, rel=0.2)


def test_outlier_cells_are_flat_and_outlier_genes_high():
    scenario = scenarios.TYPES.but(violations={"outlier_cells": 0.1, "outlier_genes": 0.1})
    adata = simulate(scenario, cells=500, genes=200)
    share = expected_counts(adata) / adata.obs["library_true"].to_numpy()[:, None]
    entropy = -(share * np.log(share)).sum(1)
    outlier = adata.obs["outlier_true"].to_numpy()
    assert 0.05 < outlier.mean() < 0.15
    assert entropy[outlier].min() > entropy[~outlier].max()
    gene = adata.var["outlier_true"].to_numpy()
    baseline = adata.var["baseline_true"].to_numpy()
    assert 0.04 < gene.mean() < 0.17
    assert baseline[gene].mean() - baseline[~gene].mean() == pytest.approx(4, abs=1.2)


# Refusals


@pytest.mark.parametrize(
    ("build", "message"),
    [
        (lambda: States(types=1, gap=True), "at least 2 types"),
        (lambda: States(types=3, gap=True, bridge="sampled"), "at least 4 types"),
        (lambda: States(types=0), "found neither"),
        (lambda: Technical(batches=2, depths=(1.0,)), "one depth for each of 2 batches"),
        (lambda: Technical(batches=1, depths=(0.0,)), "depths above 0"),
        (lambda: Violations(dublets=0.1), "Extra inputs"),
    ],
)
def test_impossible_scenarios_are_refused(build, message):
    with pytest.raises(ValidationError, match=message):
        build()


@pytest.mark.parametrize("sizes", [{"cells": 0}, {"genes": 0}, {"seed": -1}])
def test_impossible_sizes_are_refused(sizes):
    with pytest.raises(InputError, match=f"expected {next(iter(sizes))} of at least"):
        simulate(**sizes)


def test_truth_asks_for_what_it_needs():
    adata = simulate(scenarios.TYPES.but(violations={"doublets": 0.3}), cells=40, genes=20)
    with pytest.raises(InputError, match="all 20 genes that were simulated, found 10"):
        expected(adata[:, :10].copy())
    with pytest.raises(InputError, match="partner of every doublet"):
        expected_counts(adata[(adata.obs["doublet_true"] != "singlet").to_numpy()].copy())
    with pytest.raises(InputError, match=r"no uns\['truth'\]"):
        expected(anndata.AnnData(np.ones((2, 2), dtype=np.float32)))


# Sizes


@pytest.mark.parametrize(("cells", "genes"), [(1, 1), (1, 30), (30, 1), (2, 2)])
def test_the_smallest_data_are_finite(cells, genes):
    adata = simulate(scenarios.MESSY, cells=cells, genes=genes)
    assert adata.shape == (cells, genes)
    assert np.isfinite(expected_counts(adata)).all()


def test_chunks_bound_what_is_dense(monkeypatch):
    monkeypatch.setattr("biovae.datasets.world.CHUNK", 700)
    adata = simulate(scenarios.MESSY, cells=333, genes=100)
    assert adata.shape == (333, 100)
    assert adata.X.has_canonical_format
    assert adata.X.sum() == pytest.approx(expected_counts(adata).sum(), rel=0.05)


def test_the_demo_tells_its_truth():
    adata = demo(seed=1)
    assert adata.shape == (2000, 1000)
    assert {"cell_type", "batch", "pseudotime_true", "branch_true", "library_true"} <= set(adata.obs)
    assert adata.obs["cell_type"].nunique() == 7
    assert len(adata.uns["truth"]["gaps"]) == 1
    assert bayes_types(adata).accuracy > 0.95


def test_the_simulator_stands_alone():
    code = (
        "import sys, biovae.datasets; print({'torch', 'biovae.likelihoods', 'biovae.distributions'} & set(sys.modules))"
    )
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert out.stdout.strip() == "set()"


def _before_dropout(mean: np.ndarray, half: float) -> np.ndarray:
    """Solve mean = mu^2 / (mu + half) for mu."""
    return (mean + np.sqrt(mean**2 + 4 * half * mean)) / 2
