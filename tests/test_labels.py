"""Groups as tools take them: a column, one value per observation, or a series that says whose each value is."""

import anndata as ad
import numpy as np
import pandas as pd
import pytest

import biovae as bv
from biovae.errors import InputError
from biovae.modalities.views import Standardised
from biovae.tools.labels import labelled, levels, named

CELLS = pd.Index([f"c{i}" for i in range(6)])
GROUPS = pd.Series(list("aabbcc"), index=CELLS)


@pytest.fixture
def adata():
    return ad.AnnData(np.zeros((6, 2), np.float32), obs=pd.DataFrame({"group": GROUPS}, index=CELLS))


GIVEN = {
    "a column": "group",
    "values": list(GROUPS),
    "a series in order": GROUPS,
    "a series in another order": GROUPS.sample(frac=1, random_state=0),
    "a series of more observations": pd.concat([pd.Series({"other": "z"}), GROUPS[::-1]]),
    "a series that counts": GROUPS.reset_index(drop=True),
}


@pytest.mark.parametrize("groups", GIVEN.values(), ids=GIVEN.keys())
def test_every_observation_has_its_own_group(groups, adata):
    assert list(labelled(adata, groups)) == list(GROUPS)


def test_a_mask_follows_names_too(adata):
    mask = GROUPS == "a"
    np.testing.assert_array_equal(named(adata, mask[::-1]), mask.to_numpy())


@pytest.mark.parametrize("index", [[f"x{i}" for i in range(6)], ["c0"] * 6])
def test_a_series_of_other_observations_is_refused(index, adata):
    with pytest.raises(InputError, match="index it by obs_names"):
        labelled(adata, GROUPS.set_axis(index))


@pytest.fixture(scope="module")
def coded():
    """Sites with one of three letters each, and a model of them."""
    x = np.random.default_rng(0).integers(0, 3, (60, 8)).astype(np.float32)
    data = ad.AnnData(x, obs=pd.DataFrame({"kind": ["a", "b"] * 30}, index=[f"o{i}" for i in range(60)]))
    part = bv.Modality(name="sites", likelihood=bv.CategoricalLevels(levels=3), view=Standardised())
    return bv.VAE(part, latent=2, hidden=8).fit(data, epochs=1, progress=False), data


ASKED = {
    "prototype": lambda vae, data: bv.tl.prototype(vae, data),
    "dimensions": lambda vae, data: bv.tl.dimensions(vae, data),
    "path": lambda vae, data: bv.tl.path(vae, data, "a", "b", groups="kind"),
    "archetypes": lambda vae, data: bv.tl.archetypes(vae, data, 2, progress=False),
    "expression": lambda vae, data: bv.tl.corrected_expression(vae, data, progress=False),
    "trends": lambda vae, data: bv.tl.trends(vae, data, bv.tl.trajectory(vae, data, "o0", draws=0)),
}


@pytest.mark.parametrize("ask", ASKED.values(), ids=ASKED.keys())
def test_names_of_categories_have_no_mean(ask, coded):
    with pytest.raises(InputError, match="categories in 'sites'"):
        ask(*coded)


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        (["b", "a", "b"], ["b", "a", "b"]),
        ([1.0, 2.0, 1.0], ["1", "2", "1"]),
        ([0.5, 2.0, 0.5], ["0.5", "2", "0.5"]),
        ([True, False, True], ["True", "False", "True"]),
        (pd.Categorical([3, 1, 3]), ["3", "1", "3"]),
    ],
    ids=["text", "whole numbers", "few numbers", "booleans", "categories"],
)
def test_levels_are_text(values, expected):
    data = ad.AnnData(np.zeros((3, 2), np.float32), obs=pd.DataFrame({"g": values}, index=[*"xyz"]))
    assert list(levels(data, "g")) == expected


@pytest.mark.parametrize("values", [np.linspace(0, 1, 300), np.arange(300)], ids=["reals", "counts"])
def test_measurements_are_no_groups(values):
    data = ad.AnnData(np.zeros((300, 1), np.float32), obs=pd.DataFrame({"depth": values}, index=map(str, range(300))))
    with pytest.raises(InputError, match="300 different numbers in 'depth'"):
        levels(data, "depth")
    data.obs["cluster"] = np.arange(300) % 25  # many clusters are still clusters
    assert len(set(levels(data, "cluster"))) == 25
    with pytest.raises(InputError, match="name of a column of obs as groups, found Series"):
        levels(data, data.obs["cluster"])
