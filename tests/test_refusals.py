"""What users give by mistake: every tool answers it, or refuses it in a sentence; none ends in a traceback.

Rows of a table: a tool, what is wrong, and words of the sentence. Other forms of the same data are answered alike.
"""

import inspect
import warnings

import anndata as ad
import mudata as md
import numpy as np
import pandas as pd
import pytest
import scipy.sparse as sp

import biovae as bv
from biovae.analysis import density
from biovae.errors import InputError
from biovae.model.fitting import Options

CELLS, GENES = 60, 12
QUIET = {"progress": False}


@pytest.fixture(scope="module")
def data():
    rng = np.random.default_rng(0)
    kind = np.repeat([0, 1, 2], CELLS // 3)
    x = rng.poisson(8 * rng.gamma(1.0, 1.0, (3, GENES))[kind]).astype(np.float32)
    obs = pd.DataFrame({"kind": np.array(["a", "b", "c"])[kind]}, index=[f"o{i}" for i in range(CELLS)])
    obs["condition"] = np.tile(["ctrl", "stim"], CELLS // 2)
    obs["number"], obs["flag"], obs["whole"], obs["depth"] = kind, kind == 0, kind.astype(float), rng.normal(size=CELLS)
    obs["same"], obs["alone"] = "x", np.where(np.arange(CELLS) == 0, "one", "rest")
    obs["lists"] = pd.Series([[k] for k in kind], index=obs.index, dtype=object)
    return ad.AnnData(sp.csr_matrix(x), obs=obs, var=pd.DataFrame(index=[f"g{i}" for i in range(GENES)]))


@pytest.fixture(scope="module")
def vae(data):
    return bv.VAE(bv.rna(), latent=2, hidden=8).fit(data, epochs=1, ensemble=2, progress=False)


def _one(vae: object) -> object:
    """One fit of an ensemble: an answer of its own, in half of the time."""
    return vae.members[0] if isinstance(vae, bv.VAE) and vae._fits else vae


ASK = {
    "prototype": lambda v, d, **k: bv.tl.prototype(_one(v), d, **{"groups": "kind", "draws": 19} | k),
    "archetypes": lambda v, d, **k: bv.tl.archetypes(
        _one(v), d, **{"count": 3, "groups": "kind", "draws": 2} | QUIET | k
    ),
    "dimensions": lambda v, d, **k: bv.tl.dimensions(v, d, **{"columns": "kind", "cells": 10, "draws": 0} | k),
    "differential": lambda v, d, **k: bv.tl.differential(v, d, **{"groups": "kind"} | k),
    "counterfactual": lambda v, d, **k: bv.tl.counterfactual(
        _one(v), d, **{"column": "condition", "source": "ctrl", "target": "stim", "group": {"kind": "a"}} | k
    ),
    "density": lambda v, d, **k: bv.tl.density(v, d, **k),
    "plausibility": lambda v, d, **k: bv.tl.plausibility(_one(v), d, **{"z": np.zeros((2, 2)), "draws": 0} | k),
    "prior_support": lambda v, d, **k: bv.tl.prior_support(_one(v), d, **{"size": 20} | k),
    "holes": lambda v, d, **k: bv.tl.holes(_one(v), d, **{"groups": "kind", "draws": 20} | k),
    "path": lambda v, d, **k: bv.tl.path(
        _one(v), d, **{"start": "a", "end": "c", "groups": "kind", "draws": 0, "direct": True} | k
    ),
    "path_lengths": lambda v, d, **k: bv.tl.path_lengths(_one(v), d, **{"groups": "kind"} | k),
    "expression": lambda v, d, **k: bv.tl.corrected_expression(v, d, **{"samples": 2} | QUIET | k),
    "trajectory": lambda v, d, **k: bv.tl.trajectory(
        v, d, **{"root": {"kind": "a"}, "groups": "kind", "draws": 0} | QUIET | k
    ),
    "predictive_checks": lambda v, d, **k: bv.tl.predictive_checks(v, d, **{"draws": 3, "features": 4} | QUIET | k),
    "shift": lambda v, d, **k: bv.tl.shift(v, **{"data": d, "reference": d, "draws": 3} | QUIET | k),
    "stability": lambda v, d, **k: bv.tl.stability(v, d, **{"groups": "kind"} | QUIET | k),
    "ensemble_expression": lambda v, d, **k: bv.tl.ensemble_expression(v, d, **{"samples": 2} | QUIET | k),
    "anomalies": lambda v, d, **k: bv.tl.anomalies(_one(v), d, **{"groups": "kind", "draws": 3} | QUIET | k),
    "imputation": lambda v, d, **k: bv.tl.imputation(v, d, **{"epochs": 1} | QUIET | k),
    "sweep": lambda v, d, **k: bv.tl.sweep(v, d, **{"betas": (1.0,), "labels": "kind", "epochs": 1} | QUIET | k),
    "compare": lambda v, d, **k: bv.tl.compare(v, d, **{"likelihoods": "poisson", "epochs": 1} | QUIET | k),
}
FITS = {"imputation", "sweep", "compare"}  # they fit by themselves
GROUPED = {
    "prototype": "groups", "archetypes": "groups", "differential": "groups", "trajectory": "groups",
    "stability": "groups", "anomalies": "groups", "sweep": "labels", "holes": "groups", "path": "groups",
    "path_lengths": "groups",
}  # fmt: skip

MODELS = {"None": (None, "found NoneType in place of the model"), "the class": (bv.VAE, "in place of the model")}


@pytest.mark.parametrize(("model", "message"), MODELS.values(), ids=MODELS.keys())
@pytest.mark.parametrize("tool", ASK)
def test_what_is_no_model(tool, model, message, data):
    with pytest.raises(InputError, match=message):
        ASK[tool](model, data)


@pytest.mark.parametrize("tool", ASK)
def test_data_before_the_model(tool, vae, data):
    with pytest.raises(InputError, match="found AnnData in place of the model"):
        ASK[tool](data, vae)


@pytest.mark.parametrize("tool", [tool for tool in ASK if tool not in FITS])
def test_a_model_that_is_not_fitted(tool, data):
    with pytest.raises(InputError, match="call fit"):
        ASK[tool](bv.VAE(bv.rna(), latent=2, hidden=8), data)


WRONG = {
    "nothing": (lambda d: None, "AnnData or a MuData, found NoneType"),
    "a frame": (lambda d: d.to_df(), "AnnData or a MuData, found DataFrame"),
    "a matrix": (lambda d: d.X, "AnnData or a MuData, found csr_matrix"),
    "no observations": (lambda d: d[:0].copy(), "none|found 0"),
    "fewer features": (lambda d: d[:, :6].copy(), "found 6 of 12 missing"),
    "a NaN": (lambda d: _with(d, np.nan), "expected finite numbers"),
    "a negative count": (lambda d: _with(d, -1), "1 negative values"),
}


def _with(data: ad.AnnData, value: float) -> ad.AnnData:
    copy = data.copy()
    copy.X.data[0] = value
    return copy


@pytest.mark.parametrize(
    ("tool", "wrong"),
    [(tool, wrong) for tool in ASK for wrong in WRONG if not (wrong == "fewer features" and tool in FITS)],
)
def test_what_is_no_data(tool, wrong, vae, data):
    make, message = WRONG[wrong]
    with pytest.raises(InputError, match=message):
        ASK[tool](vae, make(data))


COLUMNS = {
    "unknown": ("nope", "'nope'"), "a number": (5, "found int"), "a list": (["kind"], "found list|found 1"),
    "measurements": ("depth", "60 different numbers"), "lists": ("lists", "column of labels, found list"),
}  # fmt: skip


@pytest.mark.parametrize(("groups", "message"), COLUMNS.values(), ids=COLUMNS.keys())
@pytest.mark.parametrize("tool", GROUPED)
def test_what_is_no_column_of_groups(tool, groups, message, vae, data):
    with pytest.raises(InputError, match=message):
        ASK[tool](vae, data, **{GROUPED[tool]: groups})


@pytest.mark.parametrize("tool", ["differential", "anomalies", "sweep", "holes", "path_lengths"])
def test_one_group_is_no_comparison(tool, vae, data):
    with pytest.raises(InputError, match="at least two groups in 'same', found 'x' alone"):
        ASK[tool](vae, data, **{GROUPED[tool]: "same"})


@pytest.mark.parametrize("groups", ["number", "flag", "whole"])
@pytest.mark.parametrize(
    "tool",
    ["prototype", "archetypes", "differential", "trajectory", "stability", "anomalies", "holes", "path_lengths"],
)
def test_numbers_and_booleans_name_groups(tool, groups, vae, data):
    """They are answered as the same column written out as text is."""
    text = data.copy()
    text.obs[groups] = [str(int(v)) if isinstance(v, float) else str(v) for v in data.obs[groups].tolist()]
    given = {GROUPED[tool]: groups}
    assert str(ASK[tool](vae, data, **given)) == str(ASK[tool](vae, text, **given))


@pytest.mark.parametrize("tool", ["prototype", "archetypes", "trajectory", "stability", "anomalies", "holes"])
def test_a_group_of_one_is_a_group(tool, vae, data):
    assert ASK[tool](vae, data, groups="alone") is not None


NUMBERS = {
    "draws": ["prototype", "archetypes", "dimensions", "trajectory", "predictive_checks", "shift", "anomalies",
              "holes", "path", "plausibility"],
    "cells": ["dimensions", "counterfactual", "stability", "imputation"],
    "samples": ["expression", "ensemble_expression"],
    "seed": ["prototype", "archetypes", "dimensions", "counterfactual", "density", "trajectory", "predictive_checks",
             "shift", "stability", "anomalies", "imputation", "holes", "path", "path_lengths", "plausibility",
             "prior_support"],
    "size": ["prior_support"],
    "seeds": ["sweep", "compare"],
    "workers": ["sweep", "compare"],
    "latents": ["compare"],
    "count": ["archetypes"],
    "features": ["predictive_checks"],
}  # fmt: skip


@pytest.mark.parametrize("value", [-1, 2.5, "a", True, [None]], ids=repr)
@pytest.mark.parametrize(("name", "tool"), [(name, tool) for name, tools in NUMBERS.items() for tool in tools])
def test_numbers_that_count_nothing(name, tool, value, vae, data):
    with pytest.raises(InputError, match=f"expected {name} to be a whole number"):
        ASK[tool](vae, data, **{name: value})


ROWS = [
    ("dimensions", {"cells": 0}, "cells to be a whole number, found 0: give one of 1 or more"),
    ("dimensions", {"columns": 5}, "a name, or a list of names, found 5"),
    ("dimensions", {"columns": [["kind"]]}, "name of a column of obs, found list"),
    ("dimensions", {"columns": "same"}, "one value in 'same'"),
    ("dimensions", {"columns": "lists"}, "column of labels, found list"),
    ("dimensions", {"sets": ["g1"]}, "sets as {name: features}, found list"),
    ("dimensions", {"sets": {}}, "sets with features of the model"),
    ("differential", {"groups": None}, "found NoneType"),
    ("differential", {"groups": []}, "found 0"),
    ("differential", {"group": "nope"}, "a level of 'kind', found 'nope'"),
    ("differential", {"groups": "alone", "group": "one"}, "at least two observations on either side, found 1"),
    ("differential", {"delta": "a"}, "delta to be a number, found 'a'"),
    ("differential", {"effort": 5}, "an effort, found int"),
    ("differential", {"covariates": 5}, "covariates as {name: level}, found 5"),
    ("counterfactual", {"group": "a"}, "one column and one level, as group, found 'a'"),
    ("counterfactual", {"group": {}}, "one column and one level, as group, found {}"),
    ("counterfactual", {"group": {"same": "x"}}, "found none, nor any other level"),
    ("counterfactual", {"target": "nope"}, "a level of 'condition', found 'nope'"),
    ("counterfactual", {"target": "ctrl"}, "found 'ctrl' twice"),
    ("density", {"held_out": np.arange(CELLS)}, "expected true or false for each of 60 observations, found int"),
    ("density", {"held_out": "kind"}, "expected true or false in column 'kind'"),
    ("density", {"held_out": np.ones(CELLS, bool)}, "found 60 of 60"),
    ("plausibility", {"z": "a"}, "positions as numbers, found ndarray of others"),
    ("plausibility", {"z": np.full((1, 2), np.nan)}, "expected finite positions"),
    ("plausibility", {"doubt": 5}, "a function of z as doubt, found int"),
    ("path", {"start": "nope"}, "a group or an observation, found 'nope'"),
    ("path", {"start": 7}, "a group or an observation, found '7'"),
    ("path", {"start": None}, "a group or an observation, found 'None'"),
    ("path", {"start": [0.0]}, "a position with 2 coordinates, found 1"),
    ("path", {"start": [np.nan, 0.0]}, "expected finite positions"),
    ("path", {"start": []}, "expected positions of shape"),
    ("path_lengths", {"groups": None}, "name of a column of obs as groups, found NoneType"),
    ("expression", {"features": ["nope"]}, "found 1 others"),
    ("expression", {"features": 5}, "a name, or a list of names, found 5"),
    ("expression", {"library": "a"}, "a library above 0, found 'a'"),
    ("expression", {"covariates": None}, "covariates as {name: level}, found None"),
    ("expression", {"modality": 3}, "a modality of the model, found 3"),
    ("trajectory", {"root": {}}, "one column and one level, as root, found {}"),
    ("trajectory", {"root": None}, "found None"),
    ("trajectory", {"root": {"kind": "nope"}}, "a level of 'kind', found 'nope'"),
    ("trajectory", {"ends": 5}, "a name, or a list of names, found 5"),
    ("trajectory", {"ends": "nope"}, "a level of 'kind', found 'nope'"),
    ("shift", {"reference": None}, "AnnData or a MuData, found NoneType"),
    ("stability", {"resolution": "a"}, "resolution to be a number, found 'a'"),
    ("imputation", {"share": "a"}, "share to be a number, found 'a'"),
    ("imputation", {"epochs": 0}, "epochs to be 'auto' or a number above 0, found 0"),
    ("imputation", {"epochs": "many"}, "epochs to be 'auto' or a number above 0, found 'many'"),
    ("sweep", {"betas": ()}, "one number at least as betas, found none"),
    ("sweep", {"betas": [np.nan]}, "betas to be a number, found nan"),
    ("sweep", {"betas": "a"}, "betas to be a number, found 'a'"),
    ("sweep", {"factors": 5}, "a name, or a list of names, found 5"),
    ("sweep", {"test": 0.0}, "expected 2 held-out observations at least, found 0"),
    ("sweep", {"test": "a"}, "test to be a number, found 'a'"),
    ("compare", {"likelihoods": "nope"}, "a likelihood that biovae knows, found 'nope'"),
    ("compare", {"likelihoods": 5}, "a name, or a list of names, found 5"),
]


@pytest.mark.parametrize(("tool", "how", "message"), ROWS, ids=[f"{tool} {how}"[:50] for tool, how, _ in ROWS])
def test_what_is_refused_and_why(tool, how, message, vae, data):
    with pytest.raises(InputError, match=message):
        ASK[tool](vae, data, **how)


LONE = [
    ("dimensions", "columns", "kind", lambda found: found.associations),
    ("expression", "features", "g10", lambda found: found.mean),
    ("ensemble_expression", "features", "g10", lambda found: found.mean),
    ("trajectory", "ends", "c", lambda found: found.fates),
    ("sweep", "factors", "condition", lambda found: found.frame.drop(columns="seconds")),
    ("sweep", "betas", 1.0, lambda found: found.frame.drop(columns="seconds")),
    ("compare", "likelihoods", "poisson", lambda found: found.frame.drop(columns="seconds")),
    ("compare", "latents", 2, lambda found: found.frame.drop(columns="seconds")),
]


@pytest.mark.parametrize(("tool", "name", "value", "of"), LONE, ids=[f"{tool} {name}" for tool, name, *_ in LONE])
def test_one_name_alone_is_a_list_of_one(tool, name, value, of, vae, data):
    alone, listed = (of(ASK[tool](vae, data, **{name: given})) for given in (value, [value]))
    pd.testing.assert_frame_equal(alone, listed)


def test_one_feature_alone_of_sets_trends_and_traversals(vae, data):
    a, b = (ASK["dimensions"](vae, data, sets={"s": given}) for given in ("g10", ["g10"]))
    pd.testing.assert_frame_equal(a.enrichment, b.enrichment)
    assert int(a.enrichment["features"].iloc[0]) == 1
    pd.testing.assert_frame_equal(bv.tl.enrichment(a, {"s": "g10"}), bv.tl.enrichment(a, {"s": ["g10"]}))
    with pytest.raises(InputError, match="what bv.tl.dimensions gives, found DataFrame"):
        bv.tl.enrichment(a.effects, {"s": "g10"})
    with pytest.raises(InputError, match="sets as {name: features}, found list"):
        bv.tl.enrichment(a, ["g10"])
    pd.testing.assert_frame_equal(a.traversal.frame(0, "g10"), a.traversal.frame(0, ["g10"]))
    found = ASK["trajectory"](vae, data)
    assert list(bv.tl.trends(vae, data, found, "g10")["feature"].unique()) == ["g10"]


def test_a_level_may_be_a_boolean_or_a_number(vae, data):
    for column, level in (("flag", True), ("number", 0), ("whole", 0.0)):
        found = bv.tl.differential(vae, data, column, group=level).frame
        written = str(level) if isinstance(level, bool) else "0"
        assert set(found["group"]) == {written}
        known = bv.tl.differential(vae, data, data.obs["kind"] == "a", group=True).frame
        pd.testing.assert_series_equal(found["log2_fold_change"], known["log2_fold_change"])
    assert bv.tl.counterfactual(
        vae, data, "condition", "ctrl", "stim", group={"number": 0}
    ).asked == ("0", "ctrl", "stim")  # fmt: skip


def test_a_way_between_groups_that_are_numbers_or_booleans(vae, data):
    for column, ends in (("number", (0, 2)), ("whole", (0.0, 2.0)), ("flag", (True, False))):
        text = data.copy()
        text.obs[column] = [str(int(v)) if isinstance(v, float) else str(v) for v in data.obs[column].tolist()]
        written = ["0", "2"] if column != "flag" else ["True", "False"]
        found = ASK["path"](vae, data, start=ends[0], end=ends[1], groups=column)
        expected = ASK["path"](vae, text, start=written[0], end=written[1], groups=column)
        np.testing.assert_array_equal(found.curve.z, expected.curve.z)


FORMS = {
    "a view": lambda d, folder: d[:],
    "columns compressed": lambda d, folder: _x(d, sp.csc_matrix(d.X)),
    "dense": lambda d, folder: _x(d, d.X.toarray()),
    "whole numbers": lambda d, folder: _x(d, d.X.astype(np.int64)),
    "double precision": lambda d, folder: _x(d, d.X.astype(np.float64)),
    "backed": lambda d, folder: _backed(d, folder),
    "a MuData": lambda d, folder: _mudata(d),
    "names that repeat": lambda d, folder: _renamed(d),
}


def _x(data: ad.AnnData, x: object) -> ad.AnnData:
    return ad.AnnData(x, obs=data.obs, var=data.var)


def _backed(data: ad.AnnData, folder) -> ad.AnnData:
    whole = data.copy()
    del whole.obs["lists"]
    whole.write_h5ad(folder / "data.h5ad")
    return ad.read_h5ad(folder / "data.h5ad", backed="r")


def _mudata(data: ad.AnnData) -> md.MuData:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return md.MuData({"rna": data.copy()})


def _renamed(data: ad.AnnData) -> ad.AnnData:
    copy = data.copy()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        copy.obs_names = ["o0"] * CELLS
    return copy


@pytest.mark.filterwarnings("ignore:Observation names are not unique")
@pytest.mark.parametrize("form", FORMS.values(), ids=FORMS.keys())
@pytest.mark.parametrize("tool", [tool for tool in ASK if tool not in FITS])
def test_other_forms_of_the_same_data_are_answered_alike(tool, form, vae, data, tmp_path):
    plain, other = ASK[tool](vae, data), ASK[tool](vae, form(data, tmp_path))
    if isinstance(plain, pd.DataFrame):
        pd.testing.assert_frame_equal(plain, other)
    elif hasattr(plain, "mean"):
        np.testing.assert_array_equal(np.asarray(plain.mean), np.asarray(other.mean))
    else:
        assert str(plain) == str(other)


FEW = {
    "archetypes": "fewer than observations", "counterfactual": "a level of 'condition'|two observations",
    "differential": "at least two", "shift": "at least 20", "predictive_checks": "at least 10 observations",
    "stability": "2 training observations", "compare": "held-out observations at least|to train on",
    "sweep": "held-out observations at least|to train on",
}  # fmt: skip


@pytest.mark.parametrize(("tool", "message"), FEW.items(), ids=FEW.keys())
def test_three_observations(tool, message, vae, data):
    with pytest.raises(InputError, match=message):
        ASK[tool](vae, data[[0, 20, 40]].copy())


@pytest.mark.parametrize("tool", ["prototype", "dimensions", "density", "expression", "trajectory", "anomalies"])
def test_three_observations_are_enough_for_some(tool, vae, data):
    assert ASK[tool](vae, data[[0, 20, 40]].copy()) is not None


def test_observations_that_are_all_alike(vae, data):
    obs = pd.DataFrame({"kind": ["a", "b"] * 15}, index=[f"o{i}" for i in range(30)])
    alike = ad.AnnData(sp.csr_matrix(np.tile(data.X[:1].toarray(), (30, 1))), obs=obs, var=data.var)
    assert len(ASK["stability"](vae, alike).cells) == 30


def test_an_embedding_without_posteriors_is_told_what_to_give():
    z = np.random.default_rng(0).normal(size=(400, 2))
    with pytest.raises(InputError, match="an embedding without posteriors .PCA, UMAP. needs a kernel"):
        density(z)
    near = np.sort(np.linalg.norm(z[:, None] - z[None], axis=-1), axis=1)[:, 10]
    found = density(z, np.full(z.shape, np.median(near) ** 2 / 2)).log_density(z[:50])
    truth = -0.5 * (z[:50] ** 2).sum(1) - np.log(2 * np.pi)
    assert np.median(np.abs(found - truth)) < 0.2


def test_epochs_are_checked_before_anything_else(vae, data):
    with pytest.raises(InputError, match="epochs"):
        vae.variant().fit(data, epochs=-1, progress=False)
    assert Options().epochs == "auto"


@pytest.mark.parametrize("tool", ASK)
def test_a_sign_of_life_on_request(tool, vae, data, monkeypatch, capsys):
    monkeypatch.setattr("biovae.training.working.PATIENCE", 0.0)
    monkeypatch.setattr("biovae.training.working.EVERY", 0.001)
    monkeypatch.setattr("biovae.training.progress.SELDOM", 0.001)
    ASK[tool](vae, data, progress=False)
    assert capsys.readouterr().err == ""
    ASK[tool](vae, data, progress=True)
    assert capsys.readouterr().err != ""


@pytest.mark.parametrize("tool", ASK)
def test_progress_is_on_unless_switched_off(tool):
    door = getattr(bv.tl, "corrected_expression" if tool == "expression" else tool)
    assert inspect.signature(door).parameters["progress"].default is True
