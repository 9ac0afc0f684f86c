"""Training data in, schema and observations out; what cannot be fitted is refused in one sentence."""

import time
import warnings

import anndata
import mudata
import numpy as np
import pandas as pd
import pytest
import scipy.sparse
import torch

from biovae.data import Source, align, prepare, read
from biovae.errors import InputError
from biovae.schema import CategoricalCovariate, ContinuousCovariate, Support

RNA = Source(name="rna", support=Support.COUNTS, exposure=True)
REALS = Source(name="protein", support=Support.REALS)


@pytest.fixture
def twins(counted):
    """A MuData: RNA of cells 0 to 7, protein of cells 5 to 9."""
    mods = {
        "rna": anndata.AnnData(
            scipy.sparse.csr_matrix(counted(8, 6)), obs=pd.DataFrame(index=[f"c{i}" for i in range(8)])
        ),
        "prot": anndata.AnnData(
            np.random.default_rng(0).normal(size=(5, 4)).astype(np.float32),
            obs=pd.DataFrame({"site": list("xyxyx")}, index=[f"c{i}" for i in range(5, 10)]),
        ),
    }
    for name, part in mods.items():
        part.var_names = [f"{name}{j}" for j in range(part.n_vars)]
    with mudata.set_options(pull_on_update=False):
        return mudata.MuData(mods)


# -- where the values are --------------------------------------------------------------------------------------------


def test_counts_are_found_and_the_choice_is_said(same, counted, annotated):
    x, logs = counted(), np.log1p(counted())
    reference = prepare(annotated(x), [RNA])
    data = annotated(logs)
    data.layers["counts"] = x
    found = prepare(data, [RNA])
    same(reference, found)
    assert found.places == ("rna: counts from layers['counts'], 12 x 6 (X holds no counts)",)
    data = annotated(x)
    data.raw = data.copy()
    data.X = logs
    found = prepare(data, [RNA])
    same(reference, found)
    assert found.places == ("rna: counts from .raw, 12 x 6 (X holds no counts)",)
    data.layers["spliced"] = x
    assert "layers['spliced']" in prepare(data, [RNA.model_copy(update={"layer": "spliced"})]).places[0]


def test_normalised_data_are_refused_with_the_layer_that_holds_counts(dense, counted, annotated):
    data = annotated(np.log1p(counted()))
    data.layers["spliced"] = scipy.sparse.csr_matrix(counted())
    data.layers["scaled"] = np.log1p(counted())
    with pytest.raises(
        InputError, match=r"not whole, first .* 'cell0', feature 'gene\d'.*log1p.*layer='spliced' holds counts"
    ):
        prepare(data, [RNA])
    allowed = prepare(data, [RNA.model_copy(update={"allow_values": True})])
    np.testing.assert_allclose(dense(allowed.observations.x[0]), np.log1p(counted()))


def test_obsm_is_a_home_too(dense, adata):
    protein = np.random.default_rng(0).normal(size=(12, 3))
    adata.obsm["protein"] = pd.DataFrame(protein, index=adata.obs_names, columns=["CD3", "CD4", "CD8"])
    adata.obsm["plain"] = protein
    sources = [RNA, REALS.model_copy(update={"obsm": "protein"})]
    prepared = prepare(adata, sources)
    assert prepared.schema.modalities[1].features == ("CD3", "CD4", "CD8")
    np.testing.assert_allclose(dense(prepared.observations.x[1]), protein, rtol=1e-6)
    assert prepare(adata, [REALS.model_copy(update={"obsm": "plain"})]).schema.modalities[0].features[0] == "plain_0"


KEYS = {
    "layer": ({"layer": "cuonts"}, "did you mean 'counts'"),
    "obsm": ({"obsm": "protien"}, "did you mean 'protein'"),
    "mod": ({"mod": "rna"}, "found an AnnData: leave mod= out"),
    "size factor": ({"size_factor": "dept"}, "did you mean 'depth'"),
}


@pytest.mark.parametrize("case", KEYS)
def test_wrong_keys_suggest_the_right_one(adata, case):
    changes, said = KEYS[case]
    adata.layers["counts"] = adata.X
    adata.obsm["protein"] = np.ones((12, 2))
    with pytest.raises(InputError, match=said):
        prepare(adata, [RNA.model_copy(update=changes)])


# -- several modalities (R16) ----------------------------------------------------------------------------------------


def test_unpaired_observations_are_masked(dense, twins, counted):
    prepared = prepare(twins, [RNA, REALS])
    assert prepared.places[1] == "protein: in mod['prot'], values from X, 5 x 4"
    names = list(prepared.obs_names)
    assert names == list(twins.obs_names)
    for present, part in zip(prepared.observations.present, ("rna", "prot"), strict=True):
        assert [n for n, there in zip(names, present, strict=True) if there] == [
            n for n in names if n in twins[part].obs_names
        ]
    rna, protein = (dense(x) for x in prepared.observations.x)
    for i, name in enumerate(names):
        expected = counted(8, 6)[int(name[1:])] if name in twins["rna"].obs_names else np.zeros(6)
        np.testing.assert_array_equal(rna[i], expected)
        assert prepared.observations.exposure[0][i] == (expected.sum() or 1)
        expected = twins["prot"][name].X[0] if name in twins["prot"].obs_names else np.zeros(4)
        np.testing.assert_array_equal(protein[i], expected)


def test_some_rows_of_unpaired_data_agree_with_all_rows(dense, twins):
    whole = prepare(twins, [RNA, REALS])
    rows = np.array([9, 0, 6, 5])
    part = prepare(twins, [RNA, REALS], rows=rows)
    for a, b in zip(part.observations.x, whole.observations.x, strict=True):
        np.testing.assert_array_equal(dense(a), dense(b)[rows])
    assert list(part.obs_names) == list(whole.obs_names[rows])
    assert (part.rows == rows).all()


def test_an_observation_without_any_modality_is_refused(twins):
    with pytest.raises(InputError, match="found 2 without any .'c8', 'c9'"):
        prepare(twins, [RNA])
    assert len(prepare(twins, [RNA], rows=np.arange(8)).obs_names) == 8


def test_a_modality_that_new_data_lack_is_absent(twins):
    schema = prepare(twins, [RNA, REALS]).schema
    with mudata.set_options(pull_on_update=False):
        alone = mudata.MuData({"rna": twins["rna"].copy()})
    aligned = align(alone, [RNA, REALS], schema)
    assert aligned.observations.present[0] is None
    assert not aligned.observations.present[1].any()
    assert aligned.observations.x[1].shape == (8, 4)
    assert "absent from all 8" in aligned.places[1]


def test_modalities_are_told_apart_by_name_or_values(twins):
    with pytest.raises(InputError, match="expected a modality 'protein'.*there are 'rna', 'prot'|did you mean 'prot'"):
        prepare(twins, [RNA, REALS.model_copy(update={"mod": "protein"})])
    with pytest.raises(InputError, match="one modality for 'x'.*found 2 that fit"):
        prepare(twins, [REALS.model_copy(update={"name": "x"})])


def test_covariates_of_a_modality_are_found(twins):
    rows = np.arange(5, 10)
    prepared = prepare(twins, [RNA, REALS], covariates=["site"], rows=rows)
    assert prepared.schema.covariates[0].categories == ("x", "y")
    with pytest.raises(InputError, match="expected 'site' of every observation, found 5 missing"):
        prepare(twins, [RNA, REALS], covariates=["site"])


def test_the_same_names_in_two_modalities_do_not_mix(dense, counted):
    mods = {"one": counted(5, 3), "two": counted(5, 3, seed=1)}
    mods = {
        k: anndata.AnnData(x, obs=pd.DataFrame(index=list("abcde")), var=pd.DataFrame(index=list("xyz")))
        for k, x in mods.items()
    }
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        data = mudata.MuData(mods)
    prepared = prepare(data, [RNA.model_copy(update={"name": name}) for name in mods])
    for x, part in zip(prepared.observations.x, mods.values(), strict=True):
        np.testing.assert_array_equal(dense(x), part.X)


# -- small, empty, repeated (R05, R06, R07, R17) ---------------------------------------------------------------------


def test_rows_are_positions_a_mask_or_counted_from_the_end(adata):
    for rows in ([11, 2], np.array([11, 2]), [-1, -10]):
        assert list(prepare(adata, [RNA], rows=rows).obs_names) == ["cell11", "cell2"]
    assert list(prepare(adata, [RNA], rows=np.arange(12) > 9).obs_names) == ["cell10", "cell11"]


@pytest.mark.parametrize("shape", [(1, 1), (1, 5), (2, 1), (2, 2)])
def test_tiny_data_pass(counted, annotated, shape):
    prepared = prepare(annotated(counted(*shape)), [RNA, REALS][:1], latent=1)
    assert prepared.observations.x[0].shape == shape


REFUSED = {
    "no observations": (lambda d: d[:0], {}, "at least one observation, found none"),
    "no features": (lambda d: d[:, :0], {}, "at least one feature"),
    "latent": (lambda d: d, {"latent": 7}, "at most 6 latent dimensions.*latent=7"),
    "unknown feature": (lambda d: d, {"features": {"rna": ["gene99"]}}, "no 'gene99'.*did you mean 'gene"),
    "unknown modality": (lambda d: d, {"features": {"rnaa": ["gene1"]}}, "did you mean 'rna'"),
    "short mask": (lambda d: d, {"features": {"rna": np.ones(3, bool)}}, "mask of 6 features"),
    "empty list": (lambda d: d, {"features": {"rna": []}}, "at least one feature"),
    "rows outside": (lambda d: d, {"rows": [0, 12]}, "below 12, found 0 to 12"),
    "option": (lambda d: d, {"on_bad": "rise"}, "did you mean 'raise'"),
    "table": (lambda d: d.to_df(), {}, "expected an AnnData or a MuData, found a DataFrame"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_what_cannot_be_fitted_is_refused_in_one_sentence(adata, case):
    change, arguments, said = REFUSED[case]
    with pytest.raises(InputError, match=said) as error:
        prepare(change(adata), [RNA], **arguments)
    assert "\n" not in str(error.value)


def test_empty_observations_and_features_are_kept_raised_or_dropped(dense, counted, annotated):
    x = counted(10, 5)
    x[3], x[:, 2] = 0, 0
    data = annotated(scipy.sparse.csr_matrix(x))
    kept = prepare(data, [RNA])
    assert len(kept.notices) == 2
    assert kept.observations.exposure[0][3] == 1
    with pytest.raises(InputError, match="all-zero observations in X of modality 'rna': 1 .'cell3'"):
        prepare(data, [RNA], on_bad="raise")
    dropped = prepare(data, [RNA], on_bad="drop")
    assert list(dropped.rows) == [0, 1, 2, *range(4, 10)]
    assert dropped.schema.modalities[0].features == ("gene0", "gene1", "gene3", "gene4")
    np.testing.assert_array_equal(dense(dropped.observations.x[0]), np.delete(np.delete(x, 3, 0), 2, 1))
    assert dropped.notices == ("1 observations and 1 features without any signal were dropped.",)


def test_repeated_names_are_kept_with_a_notice(same, counted, annotated):
    data = annotated(counted(4, 4))
    data.obs_names = ["a", "a", "b", "c"]
    data.var_names = ["g", "h", "g", "i"]
    prepared = prepare(data, [RNA])
    assert list(prepared.obs_names) == ["a", "a", "b", "c"]
    assert prepared.notices[:2] == (
        "repeated observation names: 1 ('a').",
        "repeated feature names of X of modality 'rna': 1 ('g').",
    )
    assert prepared.schema.modalities[0].features == ("g (1 of 2)", "h", "g (2 of 2)", "i")
    same(prepared, align(data, [RNA], prepared.schema))  # the same data still fit
    with pytest.raises(InputError, match="more than once"):
        align(data[:, ::-1], [RNA], prepared.schema)  # which 'g' is which?
    with pytest.raises(InputError, match="found 'g' more than once"):
        prepare(data, [RNA], features={"rna": ["g"]})


@pytest.mark.parametrize("name", ["zelle/ä-µ", "日本語", "x" * 5000, "nan", ""])
def test_names_survive_as_they_are(counted, annotated, name):
    data = annotated(counted(4, 3), batch=[name, "b", "b", name])
    data.obs_names = [name, "b", "c", "d"]
    data.var_names = [name, "y", "z"]
    prepared = prepare(data, [RNA], covariates=["batch"])
    assert prepared.obs_names[0] == name
    assert prepared.schema.modalities[0].features[0] == name
    assert name in prepared.schema.covariates[0].categories
    assert type(prepared.schema).model_validate_json(prepared.schema.model_dump_json()) == prepared.schema


# -- exposure --------------------------------------------------------------------------------------------------------


def test_exposure_is_the_sum_over_the_modelled_features(adata):
    x = adata.X.toarray()
    np.testing.assert_array_equal(prepare(adata, [RNA]).observations.exposure[0][:, 0], x.sum(1))
    two = prepare(adata, [RNA], features={"rna": ["gene3", "gene0"]})
    assert two.schema.modalities[0].features == ("gene0", "gene3")
    np.testing.assert_array_equal(two.observations.exposure[0][:, 0], np.maximum(x[:, [0, 3]].sum(1), 1))
    assert prepare(adata, [RNA.model_copy(update={"exposure": False})]).observations.exposure[0] is None


def test_a_size_factor_takes_its_place(adata):
    source = RNA.model_copy(update={"size_factor": "total"})
    adata.obs["total"] = np.arange(1, 13) * 1e3
    prepared = prepare(adata, [source])
    np.testing.assert_array_equal(prepared.observations.exposure[0][:, 0], np.arange(1, 13) * 1e3)
    assert prepared.schema.modalities[0].scale == 1
    for wrong in (0, -1, np.nan, np.inf):
        adata.obs.loc["cell5", "total"] = wrong
        with pytest.raises(InputError, match="above 0 in obs.'total'.*found 1 others.*'cell5'"):
            prepare(adata, [source])


def test_relative_size_factors_speak_of_counts_here_and_in_new_data(adata):
    source = RNA.model_copy(update={"size_factor": "relative"})
    adata.obs["relative"] = np.arange(1, 13) / 60
    prepared = prepare(adata, [source])
    exposure = prepared.observations.exposure[0][:, 0].double().numpy()
    assert exposure.sum() == pytest.approx(adata.X.sum(), rel=1e-6)
    np.testing.assert_allclose(exposure / exposure[0], np.arange(1, 13), rtol=1e-6)
    assert any("relative" in notice for notice in prepared.notices)
    again = align(adata[:2].copy(), [source], prepared.schema)
    np.testing.assert_allclose(again.observations.exposure[0][:, 0], exposure[:2], rtol=1e-6)


# -- covariates (R03, R10, R11, R12) ---------------------------------------------------------------------------------


def test_covariates_become_a_design_matrix(adata):
    adata.obs["old"] = adata.obs["depth"] > 3
    prepared = prepare(adata, [RNA], covariates=["batch", "depth", "old"])
    batch, depth, old = prepared.schema.covariates
    assert isinstance(depth, ContinuousCovariate)
    assert batch == CategoricalCovariate(name="batch", categories=("a", "b"))
    assert old.categories == ("False", "True")
    design = prepared.observations.covariates.numpy()
    np.testing.assert_array_equal(design[:, :2], np.stack([adata.obs["batch"] == "a", adata.obs["batch"] == "b"], 1))
    np.testing.assert_allclose(design[:, 2], (np.arange(12) - 5.5) / np.arange(12).std(), rtol=1e-6)
    np.testing.assert_array_equal(design[:, 4], adata.obs["old"])
    assert prepared.schema.width == design.shape[1] == 5


def test_what_is_held_out_has_no_part_in_the_scale_of_a_number(adata):
    adata.obs["depth"] = np.where(np.arange(12) < 9, np.arange(12.0), 1e6)
    (depth,) = prepare(adata, [RNA], covariates=["depth"], held_out=np.arange(12) >= 9).schema.covariates
    assert (depth.mean, depth.std) == (4, pytest.approx(np.arange(9).std()))
    rows = np.array([1, 3, 10])
    (depth,) = prepare(adata, [RNA], covariates=["depth"], rows=rows, held_out=np.arange(12) >= 9).schema.covariates
    assert (depth.mean, depth.std) == (2, 1)


SPOILED = {
    "missing category": ("batch", None, "'batch' of every observation, found 1 missing .'cell0'"),
    "missing number": ("depth", np.nan, "'depth' of every observation, found 1 missing .'cell0'"),
    "infinite number": ("depth", np.inf, "finite numbers in obs.'depth'.*1 infinite .'cell0'"),
}


@pytest.mark.parametrize("case", SPOILED)
def test_missing_covariates_never_become_a_class(adata, case):
    name, value, said = SPOILED[case]
    adata.obs[name] = [value, *adata.obs[name][1:]]
    with pytest.raises(InputError, match=said):
        prepare(adata, [RNA], covariates=[name])


def test_covariates_without_use_are_told(adata):
    adata.obs["one"], adata.obs["flat"] = "only", 3.0
    adata.obs["code"] = [0, 1, 2] * 4
    adata.obs["rare"] = ["x", *"y" * 11]
    prepared = prepare(adata, [RNA], covariates=["one", "code", "rare"])
    assert [n.split(":")[0] for n in prepared.notices] == [
        "covariate 'one' has the single level 'only'",
        "covariate 'code' holds 3 whole numbers and is used as a number; if they are codes, make it a category",
        "covariate 'rare' has 1 levels with one observation each ('x').",
    ]
    with pytest.raises(InputError, match="'flat' that varies"):
        prepare(adata, [RNA], covariates=["flat"])
    with pytest.raises(InputError, match="did you mean 'batch'"):
        prepare(adata, [RNA], covariates=["bacth"])


def test_a_column_of_names_is_no_covariate(counted, annotated):
    data = annotated(counted(200, 3), barcode=[f"b{i}" for i in range(200)])
    with pytest.raises(InputError, match="found 200 different ones in 200"):
        prepare(data, [RNA], covariates=["barcode"])


# -- real data -------------------------------------------------------------------------------------------------------


def test_real_counts_pass_in_a_blink(real):
    data = anndata.read_h5ad(real("pbmc_facs.h5ad"))
    start = time.process_time()
    prepared = prepare(data, [RNA])
    assert time.process_time() - start < 2
    assert prepared.notices == ()
    x = prepared.observations.x[0]
    assert (x.column.dtype, x.value.dtype) == (torch.int16, torch.uint8)
    np.testing.assert_array_equal(prepared.observations.exposure[0][:, 0], np.asarray(data.X.sum(1)).ravel())


def test_a_real_multimodal_file(real):
    data = read(real("pbmc_citeseq_10k_5k.h5mu"))
    protein = Source(name="protein", support=Support.COUNTS)
    prepared = prepare(data, [RNA, protein], covariates=["batch"])
    assert prepared.observations.present[0] is None
    assert int(prepared.observations.present[1].sum()) == 6855
    methylation = read(real("scmt_mesc_rna_methylation.h5mu"))
    with pytest.raises(InputError, match="NaN, infinite or beyond single precision"):
        prepare(methylation, [REALS.model_copy(update={"mod": "met_cpg"})], rows=[0, 1, 2])
