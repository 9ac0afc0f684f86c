"""New data are mapped onto a model by name: features, categories, modalities (R08, R09, R10, R12)."""

import numpy as np
import pandas as pd
import pytest

from biovae.data import Source, align, prepare
from biovae.errors import InputError
from biovae.schema import Support

RNA = Source(name="rna", support=Support.COUNTS, exposure=True)
REALS = Source(name="protein", support=Support.REALS)


DRESSES = {
    "other order": lambda s: s.astype(pd.CategoricalDtype(["2", "1", "unused"])),
    "ordered": lambda s: s.astype(pd.CategoricalDtype(["2", "1"], ordered=True)),
    "text": lambda s: s.astype(str),
    "integers": lambda s: s.astype(int),
    "floats": lambda s: s.astype(float),
    "integer categories": lambda s: s.astype(int).astype("category"),
    "nullable": lambda s: s.astype(int).astype("Int64"),
    "mixed": lambda s: pd.Series([int(v) if i % 2 else v for i, v in enumerate(s)], index=s.index, dtype=object),
}


@pytest.mark.parametrize("dress", DRESSES)
def test_categories_are_matched_by_name_not_by_code(same, adata, dress):
    adata.obs["batch"] = pd.Series(list("112212" * 2), index=adata.obs_names, dtype="category")
    prepared = prepare(adata, [RNA], covariates=["batch"])
    adata.obs["batch"] = DRESSES[dress](adata.obs["batch"].astype(str))
    same(prepared, align(adata, [RNA], prepared.schema))


def test_unseen_and_missing_categories_are_an_error_or_a_choice(adata):
    schema = prepare(adata, [RNA], covariates=["batch"]).schema
    new = adata.copy()
    new.obs["batch"] = ["c", None, *new.obs["batch"][2:]]
    with pytest.raises(
        InputError, match="categories 'a', 'b' in obs.'batch'., found the unseen 'c' and 1 missing values"
    ):
        align(new, [RNA], schema)
    design = align(new, [RNA], schema, unseen="zero").observations.covariates
    assert design[:2].sum() == 0
    assert (design[2:].sum(1) == 1).all()
    new.obs["batch"] = ["c", "a", *new.obs["batch"][2:]]
    mapped = align(new, [RNA], schema, unseen={"batch": {"c": "b"}}).observations.covariates
    assert mapped[0].tolist() == [0, 1]
    with pytest.raises(
        InputError, match="known categories of 'batch', found 'bb'.*did you mean 'b'|there are 'a', 'b'"
    ):
        align(new, [RNA], schema, unseen={"batch": {"c": "bb"}})


def test_order_and_extra_features_make_no_difference(same, fingerprint, adata):
    prepared = prepare(adata, [RNA], features={"rna": ["gene1", "gene2", "gene4"]})
    shuffled_data = adata[:, [5, 4, 0, 2, 1, 3]].copy()
    before = fingerprint(shuffled_data)
    same(prepared, align(shuffled_data, [RNA], prepared.schema))
    assert fingerprint(shuffled_data) == before


def test_missing_features_are_an_error_or_a_choice(dense, adata):
    schema = prepare(adata, [RNA]).schema
    some = adata[:, [4, 3, 1]].copy()
    with pytest.raises(InputError, match=r"3 of 6 missing .50.0 %: 'gene0', 'gene2', 'gene5'.*missing='zero'"):
        align(some, [RNA], schema)
    filled = align(some, [RNA], schema, missing="zero")
    expected = adata.X.toarray() * np.isin(np.arange(6), [1, 3, 4])
    np.testing.assert_array_equal(dense(filled.observations.x[0]), expected)
    assert "3 of 6 missing" in filled.notices[0]
    reals = prepare(adata, [REALS]).schema
    np.testing.assert_array_equal(dense(align(some, [REALS], reals, missing="zero").observations.x[0]), expected)


RENAMED = {  # training names, query names, what the message says
    "versions": (
        ["ENSG00000000003.14", "ENSG00000000005.6"],
        ["ENSG00000000003", "ENSG00000000005"],
        "without versions",
    ),
    "case": (["CD3D", "Gapdh"], ["cd3d", "GAPDH"], "without regard to case"),
    "spaces": (["CD3D", "LYZ"], [" CD3D", "LYZ "], "without surrounding spaces"),
    "symbols": (["ENSG00000000003", "ENSG00000000005"], ["TSPAN6", "TNMD"], r"100.0 % match var\['gene_ids'\]"),
    "nothing": (["CD3D", "LYZ"], ["x", "y"], "these are other data"),
}


@pytest.mark.parametrize("missing", ["error", "zero"])
@pytest.mark.parametrize("case", RENAMED)
def test_other_names_for_the_same_features_are_recognised(counted, annotated, case, missing):
    old, new, said = RENAMED[case]
    data = annotated(counted(4, 2))
    data.var_names = old
    schema = prepare(data, [RNA]).schema
    data.var_names = new
    data.var["gene_ids"] = ["ENSG00000000003", "ENSG00000000005"] if case == "symbols" else ["p", "q"]
    with pytest.raises(InputError, match=said):
        align(data, [RNA], schema, missing=missing)


def test_a_feature_that_occurs_twice_is_refused(adata, annotated):
    schema = prepare(adata, [RNA]).schema
    double = annotated(np.hstack([adata.X.toarray(), np.ones((12, 1))]))
    double.var_names = [*adata.var_names, "gene2"]
    with pytest.raises(InputError, match="found 'gene2' more than once"):
        align(double, [RNA], schema)


def test_a_model_of_other_modalities_is_refused(adata):
    schema = prepare(adata, [RNA]).schema
    with pytest.raises(InputError, match="expected the modalities 'rna' of the model, found 'protein'"):
        align(adata, [REALS], schema)
