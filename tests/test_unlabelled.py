"""One policy where a column names no group for some observations: they have no part in the groups, and that is said.

The oracles know nothing of missing values: the same question with the missing label written as a level of its own, or
without those observations, where they could not count for anything else.
"""

import anndata as ad
import numpy as np
import pandas as pd
import pytest

import biovae as bv
from biovae.analysis import density
from biovae.analysis import holes as find_holes
from biovae.analysis import stability as compare
from biovae.analysis.models.agreement import kept_apart
from biovae.analysis.neighbourhoods.neighbours import label_hits, nearest
from biovae.analysis.oddities.doublets import partners
from biovae.data import Role
from biovae.errors import InputError
from biovae.noise import Noise
from biovae.tools.labels import left_out, levels, texts
from biovae.tools.latent import linear

CELLS, GENES, OTHER = 240, 30, "zz"  # OTHER sorts last, so that the other groups keep their places
SAID = "40 of 240 observations have no kind and have no part in the groups."


@pytest.fixture(scope="module")
def asked():
    """Three kinds of 80, the first 40 of `c` without a label; two conditions of each; an ensemble of two."""
    rng = np.random.default_rng(0)
    rates = rng.gamma(1.0, 1.0, (3, GENES))
    kind = np.repeat([0, 1, 2], CELLS // 3)
    condition = np.tile(["ctrl", "stim"], CELLS // 2)
    x = rng.poisson(8 * rates[kind] * np.where(condition == "stim", 1.3, 1.0)[:, None]).astype(np.float32)
    names = np.array(["a", "b", "c"], dtype=object)[kind]
    obs = pd.DataFrame({"whole": names, "condition": condition}, index=[f"o{i}" for i in range(CELLS)])
    obs["extra"] = np.where(np.arange(CELLS) // 40 == 4, OTHER, names)
    data = ad.AnnData(x, obs=obs, var=pd.DataFrame(index=[f"g{i}" for i in range(GENES)]))
    vae = bv.VAE(bv.rna(), latent=3, hidden=16).fit(data, epochs=4, ensemble=2, progress=False)
    return vae, data


def _missing(data: ad.AnnData, absent: object, dtype: str) -> ad.AnnData:
    """The data with a column `kind`: as `extra`, but that OTHER is missing in this way."""
    values = data.obs["extra"].astype(object).where(data.obs["extra"] != OTHER, absent)
    copy = data.copy()
    copy.obs["kind"] = values.astype(dtype)
    return copy


WAYS = {
    "NaN in a category": (np.nan, "category"), "blank in a category": ("", "category"),
    "NaN among objects": (np.nan, "object"), "None among objects": (None, "object"),
    "blank among objects": (" ", "object"),
    "NA in text": (pd.NA, "string"), "blank in text": ("", "string"),
}  # fmt: skip


@pytest.fixture(params=WAYS.values(), ids=WAYS.keys())
def gaps(request, asked):
    return asked[0], _missing(asked[1], *request.param)


def _prototype(vae, data, column):
    found = bv.tl.prototype(vae, data, groups=column, draws=20)
    kept = found.similarity.drop(OTHER, errors="ignore")
    return kept.sort_index(), found.centres.drop(OTHER, errors="ignore"), found.frame


def _archetypes(vae, data, column):
    found = bv.tl.archetypes(vae, data, 3, groups=column, draws=2, progress=False)
    return found.groups.drop(OTHER, errors="ignore"), found.found.weights


def _differential(vae, data, column):
    return (bv.tl.differential(vae, data, column, group="a", reference="c").frame,)


def _counterfactual(vae, data, column):
    asked = data[(data.obs["extra"] != OTHER).to_numpy()] if column == "extra" else data
    found = bv.tl.counterfactual(vae, asked, "condition", "ctrl", "stim", group={column: "a"})
    return found.frame["source"], found.frame["additive"], pd.Series(sorted(found.response.weights.index))


def _trajectory(vae, data, column):
    found = bv.tl.trajectory(vae, data, {column: "a"}, groups=column, ends=["c"], draws=0, progress=False)
    return found.fates, found.pseudotime, found.ends


def _stability(vae, data, column):
    found = bv.tl.stability(vae, data, groups=column, progress=False)
    return found.together.drop(OTHER, errors="ignore").drop(columns=OTHER, errors="ignore"), found.cells, found.summary


def _path(vae, data, column):
    found = bv.tl.path(vae, data, "a", "c", groups=column, draws=0, direct=True)
    return found.curve.z, found.expression


def _lengths(vae, data, column):
    frame = bv.tl.path_lengths(vae.members[0], data, column, progress=False).frame
    return (frame.drop(OTHER, errors="ignore").drop(columns=OTHER, errors="ignore"),)


def _rises(vae, data, column):
    """What the passes between a and b, which are far from the unlabelled, are."""
    frame = bv.tl.holes(vae.members[0], data, groups=column, draws=0).frame
    row = frame[(frame["one"] == "a") & (frame["other"] == "b")].reset_index(drop=True)
    return (row[["one", "other", "log_density", "depth", "support", "plausibility"]],)


COMPARED = {
    "path": _path, "path_lengths": _lengths, "holes": _rises,
    "prototype": _prototype, "archetypes": _archetypes, "differential": _differential,
    "counterfactual": _counterfactual, "trajectory": _trajectory, "stability": _stability,
}  # fmt: skip


@pytest.mark.parametrize("ask", COMPARED.values(), ids=COMPARED.keys())
def test_what_is_said_of_the_others_is_as_if_the_missing_were_a_level_that_is_not_asked_about(ask, gaps):
    vae, data = gaps
    for found, expected in zip(ask(vae, data, "kind"), ask(vae, data, "extra"), strict=True):
        if isinstance(found, np.ndarray):
            np.testing.assert_array_equal(found, expected)
        elif isinstance(found, pd.Series):
            pd.testing.assert_series_equal(found, expected, check_names=False)
        else:
            pd.testing.assert_frame_equal(found, expected, check_names=False, rtol=1e-6)


TELLS = {
    "prototype": lambda vae, data, c: bv.tl.prototype(vae, data, groups=c, draws=0),
    "archetypes": lambda vae, data, c: bv.tl.archetypes(vae, data, 3, groups=c, draws=0, progress=False),
    "differential": lambda vae, data, c: bv.tl.differential(vae, data, c),
    "counterfactual": lambda vae, data, c: bv.tl.counterfactual(vae, data, "condition", "ctrl", "stim", group={c: "a"}),
    "dimensions": lambda vae, data, c: bv.tl.dimensions(vae, data, columns=[c], draws=0, cells=20),
    "trajectory": lambda vae, data, c: bv.tl.trajectory(vae, data, "o0", groups=c, draws=0, progress=False),
    "holes": lambda vae, data, c: bv.tl.holes(vae.members[0], data, groups=c, draws=0),
    "path": lambda vae, data, c: bv.tl.path(vae, data, "o0", "o1", groups=c, draws=0, direct=True),
    "path_lengths": lambda vae, data, c: bv.tl.path_lengths(vae.members[0], data, c, progress=False),
    "anomalies": lambda vae, data, c: bv.tl.anomalies(vae.members[0], data, groups=c, draws=3, progress=False),
    "stability": lambda vae, data, c: bv.tl.stability(vae, data, groups=c, progress=False),
    "stability of contrasts": lambda vae, data, c: bv.tl.stability(vae, data, contrasts=c, progress=False),
    "sweep": lambda vae, data, c: bv.tl.sweep(vae, data, (1.0,), labels=c, epochs=1, progress=False),
}


@pytest.mark.parametrize("ask", TELLS.values(), ids=TELLS.keys())
def test_the_answer_says_how_many_have_no_part(ask, asked):
    vae, data = asked
    data = _missing(data, None, "category")
    assert str(ask(vae, data, "kind")).count(SAID) == 1
    assert "no part in the groups" not in str(ask(vae, data, "whole"))


@pytest.mark.parametrize("ask", TELLS.values(), ids=TELLS.keys())
def test_nothing_left_is_refused(ask, asked):
    vae, data = asked
    data = data.copy()
    data.obs["kind"] = pd.Categorical([None] * CELLS)
    with pytest.raises(InputError, match=r"'kind'|a level of 'kind'"):
        ask(vae, data, "kind")


COMPARE = ["differential", "dimensions", "anomalies", "stability of contrasts", "sweep", "holes", "path_lengths"]


@pytest.mark.parametrize("name", COMPARE)
def test_one_group_left_is_refused_where_groups_are_compared(name, asked):
    vae, data = asked
    data = data.copy()
    data.obs["kind"] = data.obs["whole"].where(data.obs["whole"] == "b")
    with pytest.raises(InputError, match=r"'b' alone, and 160 of 240 observations|one value in 'kind'"):
        TELLS[name](vae, data, "kind")


def test_a_dimension_goes_with_a_column_where_it_has_values(gaps):
    """All but the limits, which are drawn."""
    vae, data = gaps
    few = data[(data.obs["extra"] != OTHER).to_numpy()]
    found, expected = (
        bv.tl.dimensions(vae, part, columns=[name], draws=0, cells=20).associations.drop(columns=["least", "most"])
        for part, name in ((data, "kind"), (few, "whole"))
    )
    pd.testing.assert_frame_equal(found, expected.assign(column="kind"), rtol=1e-6)


def test_a_sweep_measures_labels_where_there_are_some(gaps):
    """PCA and ICA of all observations, their axes and neighbours against the labels that there are."""
    vae, data = gaps
    table = bv.tl.sweep(vae, data, (1.0,), labels="kind", epochs=1, progress=False).frame.set_index("method")
    prepared = vae.prepare(data)
    held_out = Noise(0).numpy().random(CELLS) < 0.2
    train = vae.roles(data, prepared, held_out=held_out, seed=0) == Role.TRAIN
    has = (data.obs["extra"] != OTHER).to_numpy()
    z = linear(prepared.observations, vae.latent, train, 0).scores[has]
    hits = label_hits(z, data.obs["whole"].to_numpy()[has])[held_out[has]]
    assert table.loc["PCA", "accuracy"] == pytest.approx(hits.mean())


def test_doublets_are_made_of_observations_with_a_kind():
    kinds = np.array(["a", "b", None, "a", None, "b", "c"] * 10, dtype=object)
    strata = np.arange(len(kinds)) % 2
    has = np.flatnonzero([kind is not None for kind in kinds])
    for alike in (False, True):
        found = partners(kinds, strata, 100, alike=alike, seed=1)
        np.testing.assert_array_equal(found, has[partners(kinds[has], strata[has], 100, alike=alike, seed=1)])


def test_every_observation_is_scored_as_a_doublet(asked):
    vae, data = asked
    found = bv.tl.anomalies(
        vae.members[0], _missing(data, None, "category"), groups="kind", draws=3, progress=False
    ).frame
    assert found["p_doublet"].notna().all()
    assert set(found["partner"]) <= {"a", "b", "c", "no label"}


def test_passes_are_those_between_regions_though_some_observations_are_of_none():
    """Those far away: as a region of their own they change no pass between the others, and none leads through them."""
    rng = np.random.default_rng(1)
    z = np.repeat([[0.0, 0.0], [6.0, 0.0], [3.0, 40.0]], 60, axis=0) + rng.normal(size=(180, 2))
    q = density(z, np.full(z.shape, 0.2))
    named = np.repeat(np.array(["a", "b", OTHER], dtype=object), 60)
    expected, found = find_holes(q, named), find_holes(q, np.where(named == OTHER, None, named))
    row = expected.frame[(expected.frame["one"] == "a") & (expected.frame["other"] == "b")].reset_index(drop=True)
    pd.testing.assert_frame_equal(found.frame.drop(columns="best"), row.drop(columns="best"))
    assert list(found.centres.index) == ["a", "b"]


def test_groups_are_apart_among_those_that_have_one():
    rng = np.random.default_rng(3)
    maps = [rng.normal(size=(60, 2)) + np.repeat([[0, 0], [3, 0], [0, 3]], 20, axis=0) for _ in range(2)]
    named = np.repeat(np.array(["a", "b", None], dtype=object), 20)
    expected = [kept_apart(nearest(z[:40], 10)[0], named[:40]) for z in maps]
    found = compare(maps, groups=named, k=10)
    np.testing.assert_allclose(found.groups["apart"].to_numpy(), np.min(expected, axis=0))
    assert list(found.groups["observations"]) == [20, 20]
    assert len(found.cells) == 60


@pytest.mark.parametrize("values", [[1.0, np.nan, 2.0], [True, None, False], ["x", "", "y"], ["x", "  ", "y"]])
def test_labels_without_a_value(values):
    labels = texts(pd.Series(values, name="g"))
    assert labels[1] is None
    assert [type(name) for name in labels[[0, 2]]] == [str, str]
    assert left_out(labels, "g") == ("1 of 3 observations has no g and has no part in the groups.",)


def test_whole_numbers_are_whole_with_and_without_gaps():
    data = ad.AnnData(np.zeros((3, 1), np.float32), obs=pd.DataFrame({"g": [1, np.nan, 2]}, index=[*"xyz"]))
    assert list(levels(data, "g")) == ["1", None, "2"]
