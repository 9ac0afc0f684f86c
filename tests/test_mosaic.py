"""Observations that lack a modality: what was not measured is no zero, in any tool, verdict or page."""

import mudata
import numpy as np
import pandas as pd
import pytest
import scipy.sparse
import torch
from anndata import AnnData

import biovae as bv
from biovae.data import Role
from biovae.datasets import scenarios, simulate_multi
from biovae.model.evidence import Evidence
from biovae.model.judge import verdict
from biovae.run.collect import typical, versus_pca
from biovae.tools.latent import linear

HELD = np.arange(400) % 4 == 0


@pytest.fixture(scope="module")
def cells():
    """400 cells, RNA in 60 % of them, protein in 80 %."""
    return simulate_multi(scenarios.TYPES, cells=400, genes=60, proteins=10, missing=(0.4, 0.2), seed=1)


@pytest.fixture(scope="module")
def vae(cells):
    parts = (bv.rna(mod="rna"), bv.continuous(name="prot", mod="prot"))
    return bv.VAE(*parts, latent=4, hidden=32).fit(cells, epochs=20, test=HELD, progress=False)


@pytest.fixture(scope="module")
def evidence(vae, cells):
    return Evidence(vae, vae.fitted, vae.observe(cells), np.flatnonzero(HELD))


def rates(cells):
    """Counts per 10,000 of the cells that have RNA, from the data alone."""
    x = np.asarray(cells.mod["rna"].X.todense(), dtype=np.float64)
    return pd.DataFrame(1e4 * x / x.sum(1, keepdims=True), index=cells.mod["rna"].obs_names)


def test_the_prototype_is_compared_with_means_of_the_cells_that_were_measured(vae, cells):
    found, expected = bv.tl.prototype(vae, cells, groups="cell_type"), rates(cells)
    np.testing.assert_allclose(found.frame["mean"], expected.mean(), rtol=1e-4)
    reals = bv.tl.prototype(vae, cells, modality="prot").frame["mean"]
    np.testing.assert_allclose(reals, np.asarray(cells.mod["prot"].X).mean(0), rtol=1e-4, atol=1e-5)


def test_types_of_the_report_are_means_of_the_cells_that_were_measured(evidence, cells):
    types = cells.obs["cell_type"].astype(str)
    shown = typical(evidence, types.reset_index(drop=True)).frame
    np.testing.assert_allclose(shown["mean"], rates(cells).mean(), rtol=1e-4)


def test_dimensions_weigh_features_by_the_cells_that_were_measured(vae, cells):
    found = bv.tl.dimensions(vae, cells, modality="prot", cells=100)
    spread = np.asarray(cells.mod["prot"].X).std(0)
    first = found.effects[found.effects["dimension"] == 0]
    np.testing.assert_allclose(first["score"].abs(), (first["effect"] / spread).abs(), rtol=1e-3)


def test_new_observations_are_as_deep_as_those_that_were_measured(vae, cells):
    depth = np.log(np.asarray(cells.mod["rna"].X.sum(1)).ravel())
    mean, spread = vae.fitted.record["exposure"][0]
    assert mean == pytest.approx(depth.mean(), abs=0.1)
    assert spread == pytest.approx(depth.std(), abs=0.1)


@pytest.mark.parametrize("shared", [0.0, 0.95])
def test_new_observations_are_deep_in_all_modalities_or_in_none(shared):
    rng = np.random.default_rng(3)
    own = rng.standard_normal((300, 3))
    depth = np.exp(5 + 0.5 * (np.sqrt(shared) * own[:, :1] + np.sqrt(1 - shared) * own[:, 1:]))
    names = [f"c{i}" for i in range(300)]
    parts = {}
    for m, name in enumerate(("one", "other")):
        counts = rng.poisson(depth[:, m : m + 1] * rng.dirichlet(np.full(30, 2.0)))
        parts[name] = AnnData(scipy.sparse.csr_matrix(counts.astype(np.float32)), obs=pd.DataFrame(index=names))
        parts[name].var_names = [f"{name}{g}" for g in range(30)]
    with mudata.set_options(pull_on_update=False):
        data = mudata.MuData(parts)
    model = bv.VAE(*(bv.rna(name=name, mod=name) for name in parts), latent=2, hidden=8)
    model.fit(data, epochs=5, progress=False)
    new = model.sample(3000, seed=0)
    logs = [np.log(np.maximum(np.asarray(new.mod[name].X.sum(1)).ravel(), 1)) for name in parts]
    assert np.corrcoef(*logs)[0, 1] == pytest.approx(shared, abs=0.12)
    del model.fitted.record["exposure_correlation"]  # as in models of earlier versions
    apart = model.sample(3000, seed=0)
    logs = [np.log(np.maximum(np.asarray(apart.mod[name].X.sum(1)).ravel(), 1)) for name in parts]
    assert abs(np.corrcoef(*logs)[0, 1]) < 0.12


def test_pca_of_what_was_measured_stands_beside_the_model(evidence, cells):
    roles = np.where(HELD, Role.TEST.value, Role.TRAIN.value)
    alone = versus_pca(evidence, roles, cells.obs["cell_type"])
    x = cells.mod["rna"].X
    carriers = evidence.observations.carriers(0).numpy()
    base = linear(evidence.observations, 4, ~HELD)
    blank = np.setdiff1d(np.arange(400), carriers)
    assert (base.scores[blank] == 0).all()
    logs = bv.analysis.log_normalise(x, np.asarray(x.sum(1)).ravel())
    expected = bv.analysis.pca(logs, 4, 0, ~HELD[carriers])
    np.testing.assert_allclose(base.scores[carriers], expected.scores, atol=1e-3)
    assert 0 < alone.explained.pca < 1
    assert alone.labels is not None


def test_depth_leaks_are_sought_where_there_is_depth(evidence):
    lines = {line.name: line for line in verdict(evidence).lines}
    assert str(next(line for name, line in lines.items() if name.startswith("leakage of library")).state) != "broken"
    assert np.isfinite(evidence.linear(evidence.observations.carriers(0).numpy())).all()


def test_groups_are_compared_where_they_were_measured(vae, cells):
    found = bv.tl.differential(vae, cells, "cell_type")
    with mudata.set_options(pull_on_update=False):
        alone = bv.tl.differential(vae, cells[cells.mod["rna"].obs_names].copy(), "cell_type")
    order = ["group", "feature"]
    for name in ("rate", "detected", "reference_detected"):
        one, other = (f.frame.set_index(order)[name].sort_index() for f in (found, alone))
        np.testing.assert_allclose(one, other, rtol=0.05, atol=0.02)


def test_what_needs_every_cell_measured_says_so(vae, cells):
    found = bv.tl.trajectory(vae, cells, cells.obs_names[0], draws=0)
    with pytest.raises(bv.InputError, match="missing in 160"):
        bv.tl.trends(vae, cells, found)
    with pytest.raises(bv.InputError, match="missing in 160"):
        bv.tl.plausibility(vae, cells, np.zeros((1, 4)))


def test_a_modality_that_no_training_cell_carries_is_refused_before_hours_are_spent(cells):
    carry = cells.obs_names.isin(cells.mod["prot"].obs_names)
    parts = (bv.rna(mod="rna"), bv.continuous(name="prot", mod="prot"))
    with pytest.raises(bv.InputError, match="carry 'prot' to train on, found none"):
        bv.VAE(*parts, latent=2).fit(cells, test=carry, epochs=1, progress=False)


def test_few_carriers_are_found_by_the_null_and_the_start(cells):
    with mudata.set_options(pull_on_update=False):
        few = mudata.MuData({"rna": cells.mod["rna"].copy(), "prot": cells.mod["prot"][:6].copy()})
    parts = (bv.rna(mod="rna"), bv.continuous(name="prot", mod="prot"))
    vae = bv.VAE(*parts, latent=2, hidden=8).fit(few, epochs=1, validation=0.0, progress=False)
    for tensor in (*vae.network.state_dict().values(), *vae.fitted.null.state_dict().values()):
        assert torch.isfinite(tensor.double()).all()
