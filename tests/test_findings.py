"""What a report asks the tools: which column names the groups, and what is drawn of large data."""

import numpy as np
import pandas as pd
import pytest
from anndata import AnnData

import biovae as bv
from biovae.data import Role
from biovae.datasets import Scenario, States, simulate
from biovae.model.evidence import Evidence
from biovae.run import findings as module
from biovae.run.findings import findings, marking, root_of, telling

SIZE = 400


@pytest.fixture(scope="module")
def adata():
    adata = simulate(Scenario(states=States(types=4, unevenness=0.0)), cells=SIZE, genes=80, seed=0)
    adata.obs = adata.obs[["cell_type"]].astype(str)
    return adata


@pytest.fixture(scope="module")
def vae(adata):
    return bv.VAE(bv.rna(), latent=4, hidden=32).fit(adata, epochs=50, progress=False)


@pytest.fixture
def evidence(vae, adata):
    prepared = vae.observe(adata)
    roles = np.where(np.arange(SIZE) % 3 == 0, Role.VALIDATION, Role.TRAIN)
    return Evidence(vae, vae.fitted, prepared, np.flatnonzero(roles == Role.VALIDATION), seed=0)


def test_the_column_that_clusters_agree_with_names_the_groups():
    rng = np.random.default_rng(0)
    truth = rng.integers(0, 4, 300)
    half = pd.Series(np.array(["a", "b", "c", "d"])[truth]).where(np.arange(300) % 5 > 0)
    obs = pd.DataFrame(
        {
            "donor": rng.choice(["x", "y"], 300),
            "coarse": np.array(["ab", "cd"])[truth // 2],
            "type": half,
            "leiden": truth.astype(str),  # other people's clusters
            "number": truth,
            "vae_cluster": truth.astype(str),
            "batch": np.array(["p", "q", "r", "s"])[truth],  # the model's covariate
            "name": [f"cell {i}" for i in range(300)],
        }
    )
    found = telling(obs, truth.astype(str), ["batch"])
    assert found.name == "type"
    assert found.isna().sum() == 60
    assert list(found[half.notna()]) == list(half.dropna())
    assert telling(obs[["donor", "leiden", "number", "name"]], truth.astype(str), []) is None


def test_everything_is_found_on_simple_types(vae, adata, evidence):
    said = []
    found = findings(vae, adata, evidence, ["cell_type=type 1"], said.append)
    assert not said
    assert found.groups.name == "cell_type"
    assert set(found.differences.frame["group"]) == set(adata.obs["cell_type"])
    assert set(found.holes.frame["one"]) <= set(adata.obs["cell_type"])
    assert len(found.dimensions.summary) == 4
    assert 0 <= found.prior.share <= 1
    assert found.looked_at == SIZE
    first = found.trajectory.pseudotime.argmin()
    assert adata.obs["cell_type"].iloc[first] == "type 1"


def test_markers_are_higher_inside_and_in_the_order_of_the_clusters(vae, adata, evidence):
    found = findings(vae, adata, evidence, [], print)
    table = marking(found.markers, top=3)
    assert list(table["cluster"].unique()) == sorted(table["cluster"].unique(), key=int)
    assert (table.groupby("cluster").size() <= 3).all()
    x = adata.X.toarray()
    share = pd.DataFrame(x / x.sum(1, keepdims=True), columns=adata.var_names)
    for row in table.itertuples():
        inside = evidence.clusters == row.cluster
        assert share.loc[inside, row.feature].mean() > share.loc[~inside, row.feature].mean()
        assert row.fraction_in == pytest.approx((x[inside][:, adata.var_names.get_loc(row.feature)] > 0).mean())


def test_large_data_are_drawn_from(vae, adata, evidence, monkeypatch):
    monkeypatch.setattr(module, "MOST", 120)
    monkeypatch.setattr(module, "CELLS", 20)
    found = findings(vae, adata, evidence, [], print)
    assert found.looked_at == 120
    assert found.dimensions.associations["observations"].max() <= 120
    assert found.holes is not None


def test_one_group_leaves_out_what_needs_two(vae, adata, evidence):
    evidence.__dict__["clusters"] = np.repeat("0", SIZE)
    said = []
    found = findings(vae, adata, evidence, [], said.append)
    assert found.markers is None
    assert found.differences is None
    assert found.holes is None
    assert found.dimensions is not None
    assert not said


def test_what_cannot_be_answered_is_said(vae, adata, evidence):
    said = []
    found = findings(vae, adata, evidence, ["cell_typ=type 1"], said.append)
    assert found.trajectory is None
    assert len(said) == 1
    assert said[0].startswith("no trajectory in the report: expected a column 'cell_typ'")


def test_small_groups_and_missing_names_take_no_part(vae, adata, evidence):
    copy = adata.copy()
    names = copy.obs["cell_type"].astype(object)
    names.iloc[:3] = "a handful"
    names.iloc[3:40] = None
    copy.obs["cell_type"] = names
    found = findings(vae, copy, evidence, [], print)
    assert "a handful" not in set(found.differences.frame["group"])
    assert not {"a handful", "nan", "None"} & (set(found.holes.frame["one"]) | set(found.holes.frame["other"]))


def test_reals_have_dimensions_and_holes_but_no_differences():
    rng = np.random.default_rng(0)
    group = rng.integers(0, 3, 300)
    data = reals(rng.normal(size=(300, 10)) + 4 * rng.normal(size=(3, 10))[group])
    data.obs["kind"] = np.array(["one", "two", "three"])[group]
    vae = bv.VAE(bv.continuous(), latent=3, hidden=16).fit(data, epochs=40, progress=False)
    found = findings(vae, data, Evidence(vae, vae.fitted, vae.observe(data)), [], print)
    assert found.markers is None
    assert found.differences is None
    assert found.dimensions is not None
    assert found.holes is not None


def reals(x):
    return AnnData(x.astype(np.float32), obs=pd.DataFrame(index=[f"o{i}" for i in range(len(x))]))


def test_a_root_is_a_group_or_names(adata):
    assert root_of(adata, ["cell_type=type 1"]) == {"cell_type": "type 1"}
    assert root_of(adata, ["a", "b"]) == ["a", "b"]
    named = adata[:2].copy()
    named.obs_names = ["x=1", "x=2"]
    assert root_of(named, ["x=1"]) == ["x=1"]
