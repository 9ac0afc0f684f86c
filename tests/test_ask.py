"""`biovae ask` as a person types it: words on the screen, tables and pictures in a folder, one sentence per error."""

import subprocess
import sys
import time

import anndata as ad
import numpy as np
import pandas as pd
import pytest
import scipy.sparse
from typer.testing import CliRunner

from biovae.cli import app
from biovae.datasets import Scenario, Technical, simulate
from biovae.run.ask import Answer
from biovae.run.questions.features import gene_sets
from biovae.run.questions.space import _unseen
from biovae.training.working import working

CELLS, GENES = 300, 60
PNG = b"\x89PNG"


@pytest.fixture(scope="module", autouse=True)
def plain_maps():
    """Without UMAP the maps are PCA: compiling UMAP is slow."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(sys.modules, "umap", None)
        yield


def run(*words: object) -> tuple[int, str]:
    result = CliRunner().invoke(app, [str(w) for w in words])
    if result.exception is not None and not isinstance(result.exception, SystemExit):
        raise result.exception
    return result.exit_code, result.output


def asked(folder, question, *words):
    """The answer's words and its tables by name."""
    code, out = run("ask", question, folder / "run", *words)
    assert code == 0, out
    where = folder / "run" / question
    assert all(path.read_bytes()[:4] == PNG for path in where.glob("*.png"))
    assert list(where.glob("*.png")) or question == "path"  # where nothing switches, there is nothing to draw
    said = (where / "answer.txt").read_text()
    assert said.split("\n\n", 1)[1].strip() in out
    return out, {path.stem: pd.read_csv(path, keep_default_na=False, na_values=[""]) for path in where.glob("*.csv")}


@pytest.fixture(scope="module")
def adata():
    adata = simulate(Scenario(technical=Technical(batches=2)), cells=CELLS, genes=GENES, seed=0)
    adata.obs = adata.obs[["cell_type", "batch"]].astype(str)
    adata.obs["constant"] = "same"
    adata.obs["drug"] = np.where(np.arange(CELLS) % 2 == 0, "none", "given")
    return adata


@pytest.fixture(scope="module")
def folder(tmp_path_factory, adata):
    folder = tmp_path_factory.mktemp("ask")
    adata.write_h5ad(folder / "cells.h5ad")
    options = ("--epochs", 60, "--latent", 4, "--hidden", 32, "--covariates", "batch", "--seed", 2)
    level = adata.obs["cell_type"].iloc[0]
    code, out = run("fit", folder / "cells.h5ad", "--out", folder / "run", *options, "--root", f"cell_type={level}")
    assert code == 0, out
    return folder


@pytest.fixture(scope="module")
def levels(adata):
    return [*adata.obs["cell_type"].value_counts().index]


def share(adata):
    """Each cell's counts as shares of its total."""
    counts = adata.X.toarray().astype(np.float64)
    return counts / counts.sum(1, keepdims=True)


def test_differential_agrees_with_the_counts(folder, adata, levels):
    out, tables = asked(folder, "differential", "--groups", "cell_type")
    frame = tables["differential"]
    assert len(frame) == GENES * len(levels)
    assert set(frame["group"]) == set(levels)
    assert "expected false" in out
    assert "differ by construction" in out
    name = levels[0]
    inside = (adata.obs["cell_type"] == name).to_numpy()
    truth = pd.Series(np.log2(share(adata)[inside].mean(0) / share(adata)[~inside].mean(0)), adata.var_names)
    own = frame[(frame["group"] == name) & (frame["expected_fdr"] <= 0.01)]
    assert len(own) > 5
    assert np.corrcoef(own["log2_fold_change"], truth[own["feature"]])[0, 1] > 0.9


def test_one_group_is_compared_with_one_other(folder, levels):
    words = ("--groups", "cell_type", "--group", levels[0], "--reference", levels[1])
    _, tables = asked(folder, "differential", *words)
    assert len(tables["differential"]) == GENES
    assert set(tables["differential"]["reference"]) == {levels[1]}


def test_dimensions_are_tabled_and_tested_for_sets(folder, adata, tmp_path):
    (tmp_path / "sets.gmt").write_text("\t".join(["first", "what", *adata.var_names[:10]]) + "\n")
    out, tables = asked(folder, "dimensions", "--columns", "cell_type,batch", "--sets", tmp_path / "sets.gmt")
    assert len(tables["dimensions"]) == 4
    assert len(tables["effects"]) == 4 * GENES
    assert set(tables["associations"]["column"]) == {"cell_type", "batch"}
    assert list(tables["enrichment"]["features"]) == [10] * 4
    assert "goes with cell_type" in out


def test_holes_are_told_in_careful_words(folder, levels):
    out, tables = asked(folder, "holes", "--groups", "cell_type")
    assert "absence of data alone cannot prove a state forbidden" in out
    assert "samples from the prior are supported by data" in out
    assert "Support is measured by" in out
    frame = tables["holes"]
    assert set(frame["one"]) | set(frame["other"]) <= set(levels)
    assert set(frame["call"]) <= {"supported", "unsupported"}
    assert ((frame["support"] < 0.05) == (frame["call"] == "unsupported")).all()


@pytest.mark.parametrize(("unseen", "measured"), [(120, True), (99, False), (0, False)])
def test_support_is_measured_by_what_the_run_has_not_trained_on(unseen, measured, tmp_path):
    names = np.array([f"c{i}" for i in range(300)])
    roles = np.where(np.arange(300) < unseen, "validation", "train")
    pd.DataFrame({"observation": names, "role": roles}).to_csv(tmp_path / "split.csv", index=False)
    data = ad.AnnData(np.zeros((300, 1), np.float32), obs=pd.DataFrame(index=names))
    apart = _unseen(tmp_path, data)
    assert (apart is not None) == measured
    if measured:
        np.testing.assert_array_equal(apart, roles == "validation")
    assert _unseen(tmp_path, data[:200]) is None  # other data than those of the run
    assert _unseen(None, data) is None


def test_a_path_starts_and_ends_where_it_was_asked_to(folder, adata, levels):
    _, tables = asked(folder, "path", "--groups", "cell_type", "--from", levels[0], "--to", levels[1])
    assert list(tables["path"]["time"].iloc[[0, -1]]) == [0, 1]
    means = pd.DataFrame(share(adata), columns=adata.var_names).groupby(adata.obs["cell_type"].to_numpy()).mean()
    ends = tables["expression"].drop(columns="time").iloc[[0, -1]].to_numpy()
    for end, own, other in zip(ends, levels[:2], levels[1::-1], strict=True):
        to_own, to_other = (np.corrcoef(np.log(end), np.log(means.loc[n] + 1e-4))[0, 1] for n in (own, other))
        assert to_own > to_other


def test_a_trajectory_starts_at_its_root(folder, adata, levels):
    out, tables = asked(folder, "trajectory", "--root", f"cell_type={levels[0]}", "--draws", 2)
    frame = tables["trajectory"]
    assert list(frame["observation"]) == list(adata.obs_names)
    first = frame.loc[frame["pseudotime"].idxmin()]
    assert first["pseudotime"] == 0
    assert adata.obs.loc[first["observation"], "cell_type"] == levels[0]
    assert frame["pseudotime"].max() == 1
    np.testing.assert_allclose(frame.filter(like="fate ").sum(1), 1, atol=1e-5)
    assert {"ends", "trends"} <= set(tables)
    assert "Over 2 posterior draws" in out


def test_a_trajectory_takes_names_ends_and_features(folder, adata, levels):
    name, genes = adata.obs_names[adata.obs["cell_type"] == levels[0]][0], ",".join(adata.var_names[:2])
    words = ("--root", name, "--groups", "cell_type", "--end", levels[1], "--features", genes, "--draws", 0)
    stages = ("--stage", levels[0], "--stage", ",".join(levels[1:3]))
    out, tables = asked(folder, "trajectory", *words, *stages)
    assert "Against the known stages the trajectory has Spearman" in out
    assert list(tables["baseline"]["score"]) == ["agreement", "trajectory", "baseline", "difference"]
    assert set(tables["groups"]["group"]) == set(adata.obs["cell_type"])
    assert {"ways", "gap", "shown"} <= set(tables["ends"])
    assert list(tables["ends"]["end"]) == [levels[1]]
    assert set(tables["trends"]["feature"]) == set(adata.var_names[:2])
    assert tables["trajectory"].set_index("observation").loc[name, "pseudotime"] == 0


def test_layers_that_hold_too_little_cost_no_answer(folder, adata, levels, tmp_path):
    layered = adata.copy()
    layered.layers["spliced"], layered.layers["unspliced"] = layered.X.copy(), layered.X * 0
    layered.write_h5ad(tmp_path / "layered.h5ad")
    words = ("--root", f"cell_type={levels[0]}", "--draws", 0, "--out", tmp_path / "t")
    code, out = run("ask", "trajectory", folder / "run", tmp_path / "layered.h5ad", *words)
    assert code == 0, out
    assert "No direction from unspliced counts" in out
    assert (tmp_path / "t" / "trajectory.csv").exists()


def test_archetypes_are_told_by_groups(folder, levels):
    out, tables = asked(folder, "archetypes", "--count", 3, "--groups", "cell_type")
    assert "3 archetypes explain" in out
    assert set(tables) == {"archetypes", "profiles", "markers", "groups"}
    weights = tables["archetypes"].filter(regex=r"^archetype \d$")
    np.testing.assert_allclose(weights.sum(1), 1, atol=1e-6)


def test_the_prototype_is_compared_with_groups(folder, levels):
    out, tables = asked(folder, "prototype", "--groups", "cell_type")
    assert "The prototype f(0) resembles" in out
    assert set(tables["types"]["type"]) == set(levels)
    assert tables["types"]["share_of_mixture"].sum() == pytest.approx(1)


def test_expression_lies_between_its_limits(folder, adata):
    names = [*adata.var_names[:3]]
    out, tables = asked(folder, "expression", "--features", ",".join(names), "--library", 1000)
    mean, lower, upper = (tables[name] for name in ("expression", "expression_lower", "expression_upper"))
    assert list(mean["observation"]) == list(adata.obs_names)
    for name in names:
        assert ((lower[name] <= mean[name] * 1.05) & (mean[name] <= upper[name] * 1.05)).mean() > 0.9
        assert mean[name].mean() == pytest.approx(1000 * share(adata)[:, adata.var_names == name].mean(), rel=0.3)
    assert "depth of 1,000, averaged over" in out
    assert "doubt about z and about the weights" in out


def test_imputation_is_scored_beside_simple_methods(folder):
    out, tables = asked(folder, "imputation", "--epochs", 5)
    assert {"VAE", "gene means"} <= set(tables["imputation"]["method"])
    assert set(tables["imputation"]["question"]) == {"masking", "thinning"}
    assert "VAE" in out


def test_odd_observations_are_named(folder, adata, tmp_path):
    odd = adata.copy()
    counts = odd.X.toarray()
    counts[:5] = counts[:5, np.random.default_rng(0).permutation(GENES)] * 3
    odd.X = scipy.sparse.csr_matrix(counts)
    odd.obs["normal"] = np.arange(CELLS) >= 5
    odd.write_h5ad(tmp_path / "odd.h5ad")
    words = (tmp_path / "odd.h5ad", "--groups", "cell_type", "--normal", "normal", "--fdr", 0.2)
    out, tables = asked(folder, "anomalies", *words)
    frame = tables["anomalies"]
    assert list(frame["observation"]) == list(adata.obs_names)
    assert (frame.loc[:4, "p_value"] < 0.1).all()
    assert "20% expected false" in out
    assert any(f"{name} (" in out for name in adata.obs_names[:5])
    assert "score" in tables["trials"]


def test_new_data_are_compared_with_those_of_the_run(folder, adata, tmp_path):
    other = adata[:120].copy()
    other.obs_names = [f"new {i}" for i in range(120)]
    other.X = scipy.sparse.csr_matrix(other.X.toarray() * np.where(np.arange(GENES) < 10, 5, 1).astype(np.float32))
    other.write_h5ad(tmp_path / "other.h5ad")
    out, tables = asked(folder, "shift", tmp_path / "other.h5ad")
    assert "Not like the reference" in out
    assert "The reference: 300 observations. Training has seen them" in out
    assert list(tables["shift"]["observation"]) == list(other.obs_names)
    assert set(tables["features"]["feature"].head(5)) <= set(adata.var_names[:10])
    (tmp_path / "run").mkdir()
    for path in ("model", "embedded.h5ad"):
        (tmp_path / "run" / path).symlink_to(folder / "run" / path)
    split = pd.read_csv(folder / "run" / "split.csv").assign(role=["train", "validation"] * 150)
    split.to_csv(tmp_path / "run" / "split.csv", index=False)
    code, out = run("ask", "shift", tmp_path / "run", folder / "cells.h5ad")
    assert code == 0, out
    assert "No difference from the reference" in out
    assert "The reference: 150 observations that training has not seen" in out
    (tmp_path / "run" / "split.csv").unlink()
    code, out = run("ask", "shift", tmp_path / "run", folder / "cells.h5ad")
    assert code == 0, out
    assert "The reference: 300 observations. What training has seen of them is not known." in out
    words = ("--reference", folder / "cells.h5ad", "--out", tmp_path / "s")
    code, out = run("ask", "shift", folder / "run", folder / "cells.h5ad", *words)
    assert code == 0, out
    assert out.count("The reference: 300 observations.") == 1
    assert "Training has seen" not in out


def test_the_other_condition_is_told_and_scored(folder, adata, levels, tmp_path):
    words = ("--column", "drug", "--from", "none", "--to", "given", "--group", f"cell_type={levels[0]}")
    out, tables = asked(folder, "counterfactual", folder / "cells.h5ad", *words)
    assert f"{levels[0]}, none to given, by latent arithmetic" in out
    frame = tables["counterfactual"].set_index("feature")
    assert list(frame.index) == list(adata.var_names)
    rows = ((adata.obs["cell_type"] == levels[0]) & (adata.obs["drug"] == "given")).to_numpy()
    adata[rows].write_h5ad(tmp_path / "truth.h5ad")
    out, tables = asked(folder, "counterfactual", folder / "cells.h5ad", *words, "--observed", tmp_path / "truth.h5ad")
    assert f"Against {rows.sum():,} observations that are named the truth" in out
    logs = np.log1p(1e4 * share(adata)[rows]).mean(0)
    np.testing.assert_allclose(tables["counterfactual"]["observed"], logs, rtol=1e-5)
    assert {"VAE", "additive"} <= set(tables["judged"]["method"])


def test_several_fits_say_what_they_agree_on(folder, adata, levels, tmp_path):
    words = ("--epochs", 4, "--latent", 2, "--hidden", 8, "--ensemble", 2, "--covariates", "batch")
    code, out = run("fit", folder / "cells.h5ad", "--out", tmp_path / "run", *words)
    assert code == 0, out
    words = ("--groups", "cell_type", "--contrasts", "cell_type", "--root", f"cell_type={levels[0]}")
    out, tables = asked(tmp_path, "stability", *words)
    assert set(tables["stability"]["group"]) == set(levels)
    assert set(tables["order"]["observation"]) == set(adata.obs_names)
    assert {"calls", "summary", "dimensions", "observations"} <= set(tables)
    out, _ = asked(tmp_path, "expression", "--features", adata.var_names[0])
    assert "within and between 2 fits" in out


def test_files_and_a_folder_may_be_named(folder, tmp_path):
    code, out = run("ask", "prototype", folder / "run", folder / "cells.h5ad", "--out", tmp_path / "own")
    assert code == 0, out
    assert {p.name for p in (tmp_path / "own").iterdir()} == {"answer.txt", "prototype.csv", "prototype.png"}


def test_a_bare_model_is_asked_without_touching_it(folder, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    code, out = run("ask", "prototype", folder / "run" / "model", folder / "cells.h5ad")
    assert code == 0, out
    assert (tmp_path / "prototype" / "prototype.csv").exists()
    assert not (folder / "run" / "model" / "prototype").exists()


def test_the_report_answers_too(folder, levels):
    page = (folder / "run" / "report.html").read_text()
    for section in ("differences", "dimensions", "holes", "trajectory"):
        assert f'<section id="{section}"' in page
    assert "What sets each cell_type apart" in page
    assert "cannot prove a state forbidden" in page
    markers = ad.read_h5ad(folder / "run" / "embedded.h5ad").uns["vae_markers"]
    assert {"cluster", "feature", "log2_fold_change", "expected_fdr"} <= set(markers.columns)


def test_a_misspelt_root_costs_no_run(folder):
    code, out = run("report", folder / "run", "--root", "cell_typ=x")
    assert code == 0
    assert "no trajectory in the report" in out
    assert "cell_type" in out


def test_a_run_on_a_layer_answers_from_what_it_kept(folder, adata, tmp_path):
    layered = adata.copy()
    layered.layers["raw"], layered.X = adata.X, None
    layered.write_h5ad(tmp_path / "layered.h5ad")
    words = ("--layer", "raw", "--epochs", 2, "--latent", 2, "--hidden", 8)
    code, out = run("fit", tmp_path / "layered.h5ad", "--out", tmp_path / "run", *words)
    assert code == 0, out
    for command in (("report", tmp_path / "run"), ("ask", "prototype", tmp_path / "run")):
        code, out = run(*command)
        assert code == 0, out


WRONG = {
    "no such column": (("differential", "--groups", "cel_type"), 3, "did you mean 'cell_type'"),
    "one group only": (("differential", "--groups", "constant"), 3, "at least two groups"),
    "a covariate": (("differential", "--groups", "batch"), 3, "does not correct for"),
    "no such group": (("differential", "--groups", "cell_type", "--group", "nobody"), 3, "nobody"),
    "one region only": (("holes", "--groups", "constant"), 3, "at least two groups"),
    "a constant column": (("dimensions", "--columns", "constant"), 3, "one value in 'constant'"),
    "no such set file": (("dimensions", "--sets", "nowhere.gmt"), 3, "nowhere.gmt"),
    "no such start": (("path", "--from", "nobody", "--to", "nowhere"), 3, "nobody"),
    "no start at all": (("path", "--to", "nowhere"), 2, "--from"),
    "no such root": (("trajectory", "--root", "nobody"), 3, "nobody"),
    "no such root's column": (("trajectory", "--root", "cel_type=x"), 3, "did you mean 'cell_type'"),
    "no such feature": (("trajectory", "--root", "cell_type=LEVEL", "--features", "nogene"), 3, "nogene"),
    "no such gene": (("expression", "--features", "gen_1"), 3, "gen_1"),
    "no gene at all": (("expression", "--features", ","), 3, "--features"),
    "no such depth of fit": (("imputation", "--epochs", "many"), 3, "many"),
    "no such ordinary ones": (("anomalies", "--normal", "usual"), 3, "usual"),
    "no rate of false calls": (("anomalies", "--fdr", "2"), 3, "between 0 and 1"),
    "no new file": (("shift", "nowhere.h5ad"), 3, "nowhere.h5ad"),
    "no column of a group": (
        ("counterfactual", "--column", "drug", "--from", "none", "--to", "given", "--group", "T"),
        3,
        "COLUMN=GROUP",
    ),
    "one fit": (("stability",), 3, "ensemble=5"),
    "no such question": (("meaning",), 2, "meaning"),
}


@pytest.mark.parametrize(("words", "code", "says"), WRONG.values(), ids=WRONG.keys())
def test_errors_are_one_sentence_with_an_exit_code(words, code, says, folder, levels, tmp_path):
    question, *options = (word.replace("LEVEL", levels[0]) for word in words)
    found, out = run("ask", question, folder / "run", *options, "--out", tmp_path / "x")
    assert found == code, out
    assert says in out
    assert not (tmp_path / "x").exists()


def test_foreign_data_are_refused(folder, tmp_path):
    other = simulate(cells=40, genes=30, seed=1)
    other.var_names = [f"other{i}" for i in range(30)]
    other.obs["batch"] = "1"
    other.write_h5ad(tmp_path / "other.h5ad")
    code, out = run("ask", "prototype", folder / "run", tmp_path / "other.h5ad", "--out", tmp_path / "x")
    assert code == 3
    assert "features" in out


def test_an_answer_does_not_replace_a_file(folder, tmp_path):
    (tmp_path / "mine").write_text("years of work")
    code, out = run("ask", "prototype", folder / "run", "--out", tmp_path / "mine")
    assert code == 3
    assert (tmp_path / "mine").read_text() == "years of work", out


def test_a_new_fit_names_the_answers_that_an_earlier_one_gave(folder, tmp_path):
    answer = tmp_path / "run" / "holes" / "answer.txt"
    answer.parent.mkdir(parents=True)
    answer.write_text("of an earlier fit")
    (tmp_path / "run" / "metrics.json").write_text("{}")
    small = ("--epochs", 1, "--latent", 2, "--hidden", 8)
    code, out = run("fit", folder / "cells.h5ad", "--out", tmp_path / "run", *small)
    assert code == 0, out
    assert "holes/: answers of an earlier fit" in " ".join(out.split())
    assert answer.read_text() == "of an earlier fit"


def test_sets_are_read_from_gmt_files(tmp_path):
    path = tmp_path / "sets.gmt"
    path.write_text("one\tabout\tA\tB\t\ntwo\t\tC\n\n")
    assert gene_sets(path) == {"one": ["A", "B"], "two": ["C"]}


def test_work_that_takes_long_says_so(capsys, monkeypatch):
    monkeypatch.setattr("biovae.training.working.PATIENCE", 0.05)
    monkeypatch.setattr("biovae.training.working.EVERY", 0.05)
    with working("thinking"):
        time.sleep(0.3)
    assert capsys.readouterr().err.count("thinking: ") >= 2
    with working("quick"):
        pass
    assert not capsys.readouterr().err


def test_work_that_fails_stops_saying_so():
    with pytest.raises(KeyboardInterrupt), working("thinking"):
        raise KeyboardInterrupt


def test_an_answer_may_lack_pictures():
    assert dict(Answer("said", {}).pictures) == {}


def test_help_asks_for_nothing_heavy():
    heavy = ["torch", "anndata", "pandas", "scipy", "matplotlib"]
    code = f"import sys, biovae.cli; print([name for name in {heavy} if name in sys.modules])"
    loaded = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert loaded.strip() == "[]"
