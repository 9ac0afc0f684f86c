"""The command line as a person types it: files written, exit codes, one sentence per error."""

import json
import os
import signal
import subprocess
import sys
import time
import warnings

import anndata as ad
import mudata
import numpy as np
import pandas as pd
import pytest
import scipy.sparse
from typer.testing import CliRunner

import biovae as bv
from biovae.cli import app
from biovae.datasets import Scenario, Technical, simulate
from biovae.run.command import workers_of
from biovae.tools import compare as module

WITHOUT_UMAP = "import sys; sys.modules['umap'] = None; from biovae.cli import main; main()"
FILES = {
    "model", "embedding.npy", "obs_names.txt", "embedded.h5ad", "split.csv", "metrics.json", "history.csv",
    "report.html", "checkpoints",
}  # fmt: skip
METRICS = {
    "seconds", "seconds_to_best", "epochs", "observations_per_second", "validation_elbo", "test_elbo", "test_iwae",
    "test_reconstruction", "test_kl", "iwae_samples", "null_elbo", "active_units", "final_beta", "verdict",
    "peak_memory_mb", "versions", "seed", "data_sha256",
}  # fmt: skip


@pytest.fixture(scope="module", autouse=True)
def plain_maps():
    """Without UMAP the maps are PCA: pictures have tests of their own, and compiling UMAP is slow."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(sys.modules, "umap", None)
        yield


def run(*words: object) -> tuple[int, str]:
    result = CliRunner().invoke(app, [str(w) for w in words])
    if result.exception is not None and not isinstance(result.exception, SystemExit):
        raise result.exception
    return result.exit_code, result.output


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("cli")
    adata = simulate(Scenario(technical=Technical(batches=2)), cells=250, genes=50, seed=0)
    adata.obs["held"] = np.arange(250) % 6 == 0
    adata.write_h5ad(folder / "cells.h5ad")
    log = adata.copy()
    log.X = scipy.sparse.csr_matrix(np.log1p(adata.X.toarray() * 3.7))
    log.write_h5ad(folder / "log.h5ad")
    levels = ad.AnnData(log.X, obs=log.obs[[]], var=pd.DataFrame(index=[f"protein {i}" for i in range(50)]))
    with mudata.set_options(pull_on_update=False):
        mudata.MuData({"rna": adata, "levels": levels}).write(folder / "both.h5mu")
    options = ("--epochs", 4, "--latent", 3, "--hidden", 16, "--covariates", "batch", "--test", "held")
    code, out = run("fit", folder / "cells.h5ad", "--out", folder / "run", *options)
    assert code == 0, out
    return folder


def test_fit_writes_the_whole_folder(folder):
    assert {p.name for p in (folder / "run").iterdir()} == FILES


def test_metrics_are_flat_and_complete(folder):
    metrics = json.loads((folder / "run" / "metrics.json").read_text())
    assert set(metrics) == METRICS
    assert metrics["test_iwae"] >= metrics["test_elbo"]
    assert metrics["test_elbo"] == pytest.approx(metrics["test_reconstruction"] - metrics["test_kl"], rel=1e-4)
    assert metrics["final_beta"] == 1.0


def test_embedding_follows_the_input_held_out_rows_included(folder):
    z = np.load(folder / "run" / "embedding.npy")
    embedded = ad.read_h5ad(folder / "run" / "embedded.h5ad")
    names = (folder / "run" / "obs_names.txt").read_text().split()
    assert list(embedded.obs_names) == names == list(ad.read_h5ad(folder / "cells.h5ad").obs_names)
    np.testing.assert_array_equal(embedded.obsm["X_vae"], z)
    assert {"vae_cluster"} <= set(embedded.obs.columns)
    roles = pd.read_csv(folder / "run" / "split.csv")["role"]
    assert roles.value_counts()["test"] == 42


def test_history_has_the_documented_columns(folder):
    history = pd.read_csv(folder / "run" / "history.csv")
    expected = (
        "epoch step seconds beta learning_rate train_elbo validation_elbo validation_reconstruction validation_kl"
    )
    assert list(history.columns) == expected.split()
    assert history["beta"].iloc[-1] == 1.0


def test_embed_gives_the_same_positions(folder):
    code, out = run("embed", folder / "run", folder / "cells.h5ad", "--out", folder / "again.h5ad")
    assert code == 0, out
    again = ad.read_h5ad(folder / "again.h5ad").obsm["X_vae"]
    np.testing.assert_allclose(again, np.load(folder / "run" / "embedding.npy"), atol=1e-6)


def test_a_messy_file_is_fitted_and_embedded_without_a_foreign_warning(folder):
    adata = ad.read_h5ad(folder / "log.h5ad")
    counts = ad.read_h5ad(folder / "cells.h5ad").X.tolil()
    counts[5], counts[:, 7] = 0, 0
    adata.layers["counts"] = counts.tocsr().astype(np.float64)
    adata.obs["donor / <é>"] = np.where(np.arange(250) % 3 == 0, None, np.where(np.arange(250) % 2, "A & B", "<b>"))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the file is what is tested, not its making
        adata.obs_names, adata.var_names = ["cell"] * 250, ["g1", "g1", *adata.var_names[2:]]
        adata.write_h5ad(folder / "messy.h5ad")
    code, out = run("fit", folder / "messy.h5ad", "--out", folder / "messy", "--epochs", 2, "--latent", 3)
    assert code == 0, out
    assert "repeated observation names: 1 ('cell')" in out
    assert "all-zero observations" in out
    code, out = run("embed", folder / "messy", folder / "messy.h5ad", "--out", folder / "messy_again.h5ad")
    assert code == 0, out


def test_sample_writes_counts(folder):
    code, out = run("sample", folder / "run", "--n", 20, "--out", folder / "new.h5ad")
    assert code == 0, out
    assert ad.read_h5ad(folder / "new.h5ad").shape == (20, 50)


def test_report_can_be_written_again(folder):
    (folder / "run" / "report.html").unlink()
    code, out = run("report", folder / "run")
    assert code == 0, out
    assert "Verdict" in (folder / "run" / "report.html").read_text()


def contents(folder):
    return {p.name: p.read_bytes() for p in folder.iterdir() if p.is_file() and not p.name.startswith("report")}


def test_a_report_on_a_file_leaves_the_run_as_it_was(folder, tmp_path):
    before = contents(folder / "run")
    code, out = run("report", folder / "run", folder / "cells.h5ad")
    assert code == 0, out
    assert contents(folder / "run") == before
    page = (folder / "run" / "report.html").read_text()
    assert json.loads(before["metrics.json"])["data_sha256"] in page
    new = ad.read_h5ad(folder / "cells.h5ad")[:80].copy()
    new.obs_names = [f"new {i}" for i in range(80)]
    new.write_h5ad(tmp_path / "new.h5ad")
    code, out = run("report", folder / "run", tmp_path / "new.h5ad")
    assert code == 0, out
    assert contents(folder / "run") == before
    assert (folder / "run" / "report.html").read_text() == page
    assert "Verdict" in (folder / "run" / "report-new.html").read_text()
    (folder / "run" / "report-new.html").unlink()


def test_a_fit_without_held_out_observations_says_so(folder, tmp_path):
    words = ("--validation", 0, "--epochs", 2, "--hidden", 8, "--latent", 2, "--out", tmp_path / "r")
    code, out = run("fit", folder / "cells.h5ad", *words)
    assert code == 0, out
    assert "nothing was held out" in out
    assert json.loads((tmp_path / "r" / "metrics.json").read_text())["validation_elbo"] is None
    assert pd.read_csv(tmp_path / "r" / "history.csv")["validation_elbo"].isna().all()


def test_files_that_were_joined_are_known_again_by_name(folder, tmp_path):
    adata = ad.read_h5ad(folder / "cells.h5ad")
    adata.obs["donor"] = np.where(np.arange(250) % 3 == 0, "x", "y")
    for name, part in (("one", adata[:125]), ("two", adata[125:])):
        part = part.copy()
        part.obs = part.obs[["donor"]]
        part.obs["mixed"] = 2 if name == "one" else "b"  # numbers in one file, words in the other
        part.write_h5ad(tmp_path / f"{name}.h5ad")
    both = (tmp_path / "one.h5ad", tmp_path / "two.h5ad")
    options = ("--covariates", "donor", "--epochs", 2, "--hidden", 8, "--latent", 2)
    code, out = run("fit", *both, *options, "--out", tmp_path / "r")
    assert code == 0, out
    assert [c.name for c in bv.load(tmp_path / "r" / "model").covariates] == ["batch", "donor"]
    z = np.load(tmp_path / "r" / "embedding.npy")
    for paths, expected in ((both, z), (both[1:], z[125:])):
        code, out = run("embed", tmp_path / "r", *paths, "--out", tmp_path / "z.h5ad")
        assert code == 0, out
        np.testing.assert_allclose(ad.read_h5ad(tmp_path / "z.h5ad").obsm["X_vae"], expected, atol=1e-5)


def test_several_tables_are_transposed_alike(folder, tmp_path):
    x = ad.read_h5ad(folder / "cells.h5ad")[:60].to_df().astype(int)
    for name, part in (("a", x[:30]), ("b", x[30:])):
        part.T.rename_axis("gene").to_csv(tmp_path / f"{name}.csv")
    words = ("--transpose", "--epochs", 1, "--hidden", 8, "--latent", 2, "--out", tmp_path / "r")
    code, out = run("fit", tmp_path / "a.csv", tmp_path / "b.csv", *words)
    assert code == 0, out
    assert np.load(tmp_path / "r" / "embedding.npy").shape == (60, 2)


def test_check_says_where_the_counts_are(folder):
    code, out = run("check", folder / "cells.h5ad", "--json")
    assert code == 0
    assert json.loads(out)["ok"] is True


MEANT = {
    "real numbers": (("--modality", "continuous", "--features", 20), "gaussian"),
    "counts all the same": (("--allow-values",), "negative_binomial"),
}


@pytest.mark.parametrize(("words", "likelihood"), MEANT.values(), ids=MEANT.keys())
def test_values_that_are_no_counts_are_fitted_where_they_are_meant(words, likelihood, folder, tmp_path):
    code, out = run("check", folder / "log.h5ad", *[w for w in words if w not in ("--features", 20)])
    assert (code, "nothing stands in the way" in out) == (0, True), out
    code, out = run("fit", folder / "log.h5ad", *words, "--epochs", 2, "--hidden", 8, "--out", tmp_path / "r")
    assert code == 0, out
    assert bv.load(tmp_path / "r" / "model").modalities[0].likelihood.kind.startswith(likelihood)
    code, out = run("embed", tmp_path / "r", folder / "log.h5ad", "--out", tmp_path / "z.h5ad")
    assert code == 0, out
    assert ad.read_h5ad(tmp_path / "z.h5ad").obsm["X_vae"].shape == (250, 10)


def test_a_file_of_several_modalities_is_fitted_by_what_each_holds(folder, tmp_path):
    code, out = run("check", folder / "both.h5mu")
    assert code == 0, out
    words = ("--likelihood", "poisson", "--epochs", 2, "--hidden", 8, "--out", tmp_path / "r")
    code, out = run("fit", folder / "both.h5mu", *words)
    assert code == 0, out
    kinds = {m.name: m.likelihood.kind for m in bv.load(tmp_path / "r" / "model").modalities}
    assert kinds == {"rna": "poisson", "levels": "gaussian"}
    assert np.load(tmp_path / "r" / "embedding.npy").shape == (250, 10)


@pytest.mark.parametrize(
    ("asked", "features", "device", "expected"),
    [(None, 2000, "cpu", 3), (None, 20, "cpu", 1), (None, 2000, "cuda", 1), (2, 20, "cpu", 2), (9, 20, "cpu", 4)],
)
def test_fits_stand_side_by_side_where_processes_pay(asked, features, device, expected, monkeypatch):
    monkeypatch.setattr("biovae.run.command.cores", lambda: 3)
    data = ad.AnnData(scipy.sparse.csr_array((3000, features), dtype=np.float32))
    assert workers_of(asked, data, 4, device) == expected


def test_sweep_writes_a_table_and_a_picture_and_prints_what_to_take(folder, tmp_path):
    words = ("--betas", "0.5,1,50", "--labels", "cell_type", "--latent", 3, "--hidden", 16, "--epochs", 3)
    code, out = run("sweep", folder / "cells.h5ad", "--out", tmp_path / "s", *words, "--workers", 1)
    assert code == 0, out
    assert {p.name for p in (tmp_path / "s").iterdir()} == {"sweep.csv", "sweep.png"}
    table = pd.read_csv(tmp_path / "s" / "sweep.csv")
    assert table["method"].tolist() == ["VAE"] * 3 + ["PCA", "ICA"]
    assert table["beta"].tolist()[:3] == [0.5, 1.0, 50.0]
    assert table["mig"].notna().all()
    assert (tmp_path / "s" / "sweep.png").read_bytes().startswith(b"\x89PNG")
    assert "fit 3 of 3 done: beta 50, seed 0" in out


def test_compare_ranks_likelihoods_and_sizes(folder, tmp_path):
    words = ("--likelihoods", "poisson,negative_binomial", "--latents", "2,3", "--epochs", 3, "--hidden", 8)
    code, out = run("compare", folder / "cells.h5ad", "--out", tmp_path / "c", *words)
    assert code == 0, out
    assert {p.name for p in (tmp_path / "c").iterdir()} == {"compare.csv", "compare.png"}
    table = pd.read_csv(tmp_path / "c" / "compare.csv")
    names = {f"{kind}, latent {n}" for kind in ("poisson", "negative_binomial") for n in (2, 3)}
    assert names <= set(table["name"])
    assert any(name in out for name in names)


def test_a_comparison_that_is_interrupted_ranks_what_is_done(folder, tmp_path, monkeypatch):
    several = module.several

    def ends_early(*given, **how):
        yield next(iter(several(*given, **how)))

    monkeypatch.setattr(module, "several", ends_early)
    words = ("--latents", "2,3", "--likelihoods", "poisson", "--epochs", 2, "--hidden", 8)
    code, out = run("compare", folder / "cells.h5ad", "--out", tmp_path / "c", *words)
    assert code == 130
    assert "holds 1 of 2 models" in out
    assert "latent 2" in out
    table = pd.read_csv(tmp_path / "c" / "compare.csv")
    assert list(table["name"][~table["floor"]]) == ["latent 2"]


def test_a_sweep_that_is_interrupted_keeps_its_fits(folder, tmp_path):
    words = ["sweep", str(folder / "cells.h5ad"), "--out", str(tmp_path / "s"), "--epochs", "2000", "--hidden", "16"]
    command = [sys.executable, "-c", WITHOUT_UMAP, *words, "--betas", "1,2,3,4", "--workers", "1"]
    sweep = subprocess.Popen(
        command, env=os.environ | {"OMP_NUM_THREADS": "1"}, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True
    )
    deadline = time.monotonic() + 120
    while not (tmp_path / "s" / "sweep.csv").exists() and time.monotonic() < deadline:
        time.sleep(0.05)
    sweep.send_signal(signal.SIGINT)
    said, _ = sweep.communicate(timeout=60)
    assert sweep.returncode == 130
    done = (pd.read_csv(tmp_path / "s" / "sweep.csv")["method"] == "VAE").sum()
    assert 1 <= done < 4
    assert "Imputation: beta" in said or "No beta predicts better" in said


WRONG = {
    "log-normalised": (("fit", "log.h5ad"), 3, "whole"),
    "no such file": (("fit", "cels.h5ad"), 3, "cells.h5ad"),
    "no such column": (("fit", "cells.h5ad", "--covariates", "bach"), 3, "batch"),
    "no such layer": (("fit", "cells.h5ad", "--layer", "cuonts"), 3, "layer"),
    "too many dimensions": (("fit", "cells.h5ad", "--latent", 500), 3, "latent"),
    "no such likelihood": (("fit", "cells.h5ad", "--likelihood", "poison"), 3, "likelihood"),
    "not a model": (("embed", "cells.h5ad", "cells.h5ad"), 4, "model"),
    "wrong option": (("fit", "cells.h5ad", "--latnet", 3), 2, "latent"),
    "no such number": (("sweep", "cells.h5ad", "--betas", "1,two"), 3, "two"),
    "no such labels": (("sweep", "cells.h5ad", "--labels", "celltype"), 3, "cell_type"),
    "a name for the only matrix": (("fit", "log.h5ad", "--modality", "rna=continuous"), 3, "continuous"),
    "no such kind": (("check", "log.h5ad", "--modality", "continous"), 3, "continuous"),
    "size of real numbers": (
        ("fit", "log.h5ad", "--modality", "continuous", "--size-factor", "n"),
        3,
        "--size-factor",
    ),
    "a kind for one of several": (("check", "both.h5mu", "--modality", "continuous"), 3, "NAME=KIND"),
    "no such name": (("check", "both.h5mu", "--modality", "prot=rna"), 3, "prot"),
    "counts where there are none": (
        ("check", "both.h5mu", "--modality", "rna=continuous", "--allow-values"),
        3,
        "--allow-values",
    ),
    "a batch name for one file": (("fit", "cells.h5ad", "--batch", "donor"), 3, "--covariates donor"),
    "a layer of counts where there are none": (
        ("check", "both.h5mu", "--modality", "rna=continuous", "--layer", "spliced"),
        3,
        "--layer",
    ),
    "a likelihood of other values": (("fit", "log.h5ad", "--likelihood", "gaussian"), 3, "--modality continuous"),
    "counts for a likelihood of reals": (
        ("check", "log.h5ad", "--modality", "continuous", "--allow-values"),
        3,
        "--allow-values",
    ),
    "no step": (("fit", "cells.h5ad", "--batch-size", 0), 2, "batch-size"),
    "no such seed": (("fit", "cells.h5ad", "--seed", -1), 2, "seed"),
    "nowhere to write": (("sample", "run", "--out", "nowhere/new.h5ad"), 3, "nowhere"),
    "log-normalised, checked": (("check", "log.h5ad"), 3, "--modality continuous"),
    "no such size": (("compare", "cells.h5ad", "--latents", "5,ten"), 3, "5,ten"),
    "no such candidate": (("compare", "cells.h5ad", "--likelihoods", "poison"), 3, "did you mean 'poisson'"),
    "no such objective": (("sweep", "cells.h5ad", "--objective", "elbow"), 3, "objective"),
}


@pytest.mark.parametrize(("words", "code", "says"), WRONG.values(), ids=WRONG.keys())
def test_errors_are_one_sentence_with_an_exit_code(words, code, says, folder, tmp_path, monkeypatch):
    monkeypatch.chdir(folder)
    extra = ("--out", tmp_path / "x") if words[0] in ("fit", "sweep", "compare") else ()
    found, out = run(*words, *extra)
    assert found == code, out
    assert says in out
    assert not (tmp_path / "x").exists()


@pytest.mark.parametrize(
    "error", [MemoryError(), RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried to allocate 9 bytes")]
)
def test_too_little_memory_is_said_in_one_sentence(error, folder, monkeypatch):
    def fails(*_):
        raise error

    monkeypatch.setattr("biovae.run.command.check_file", fails)
    code, out = run("check", folder / "cells.h5ad")
    assert code == 3
    assert "expected enough memory" in out
    monkeypatch.setattr("biovae.run.command.check_file", lambda *_: int("x"))
    with pytest.raises(ValueError, match="invalid literal"):
        run("check", folder / "cells.h5ad")


def test_options_come_from_a_file_and_typed_ones_win(folder, tmp_path):
    config = tmp_path / "fit.toml"
    config.write_text('epochs = 2\nlatent = 2\nhidden = 8\ncovariates = ["batch"]\n')
    code, out = run("fit", folder / "cells.h5ad", "--config", config, "--latent", 3, "--out", tmp_path / "r")
    assert code == 0, out
    assert np.load(tmp_path / "r" / "embedding.npy").shape == (250, 3)
    assert json.loads((tmp_path / "r" / "metrics.json").read_text())["epochs"] == 2
    config.write_text(f'strict = true\nmodality = "rna"\nout = "{tmp_path / "s"}"\nepochs = 1\nbeta = 1000.0\n')
    code, out = run("fit", folder / "cells.h5ad", "--config", config, "--latent", 2)
    assert (code, (tmp_path / "s" / "report.html").exists()) == (1, True), out  # emptied by its beta, and strict
    assert f"wrote {tmp_path / 's'}" in out.replace("\n", "")
    config.write_text("latnet = 2\n")
    code, out = run("fit", folder / "cells.h5ad", "--config", config, "--out", tmp_path / "q")
    assert code == 3
    assert "latent" in out


def test_an_ensemble_leaves_all_its_fits_and_says_what_is_stable(folder, tmp_path):
    out = tmp_path / "several"
    words = ("fit", folder / "cells.h5ad", "--epochs", 3, "--latent", 3, "--hidden", 16, "--out", out, "--ensemble", 3)
    code, said = run(*words)
    assert code == 0, said
    assert "3 fits of 250 observations" in said
    assert "fit 2 of 3 done" not in said  # small ones are fitted one after another
    assert {p.name for p in out.iterdir()} == FILES
    metrics = json.loads((out / "metrics.json").read_text())
    assert set(metrics) - METRICS == {
        "ensemble", "neighbours_between_fits", "clusters_between_fits", "stable_clusters",
    }  # fmt: skip
    embedded = ad.read_h5ad(out / "embedded.h5ad")
    clusters = embedded.obs.groupby("vae_cluster", observed=True)["vae_cluster_stable"].first()
    assert int(clusters.sum()) == metrics["stable_clusters"]
    assert "Stability: what other seeds find again" in (out / "report.html").read_text()
    (out / "report.html").unlink()
    code, said = run("report", out)
    assert code == 0, said
    assert "Stability: what other seeds find again" in (out / "report.html").read_text()
    code, said = run(*words, "--resume", "--workers", 2)
    assert code == 0, said
    assert json.loads((out / "metrics.json").read_text())["validation_elbo"] == metrics["validation_elbo"]
    assert run("fit", folder / "cells.h5ad", "--ensemble", 0, "--out", tmp_path / "none")[0] == 2


def test_other_peoples_folders_are_left_alone(folder, tmp_path):
    (tmp_path / "thesis.docx").write_text("years of work")
    code, out = run("fit", folder / "cells.h5ad", "--epochs", 1, "--out", tmp_path)
    assert code == 3
    assert [p.name for p in tmp_path.iterdir()] == ["thesis.docx"], out


def test_killed_and_resumed_equals_unbroken(folder, tmp_path):
    words = ["fit", str(folder / "cells.h5ad"), "--epochs", "120", "--latent", "3", "--hidden", "16"]
    command = [sys.executable, "-c", WITHOUT_UMAP, *words]
    environment = os.environ | {"OMP_NUM_THREADS": "1"}

    def fit(out: str, *more: str) -> subprocess.Popen:
        return subprocess.Popen(
            [*command, "--out", str(tmp_path / out), *more], env=environment, stderr=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
        )  # fmt: skip

    assert fit("whole").wait(120) == 0
    broken = fit("broken")
    lock = tmp_path / "broken" / "checkpoints"
    deadline = time.monotonic() + 60
    while not lock.exists() and time.monotonic() < deadline:
        time.sleep(0.02)
    time.sleep(0.3)
    broken.send_signal(signal.SIGTERM)
    assert broken.wait(60) in (143, 0)  # 0 where the machine was faster than the signal
    assert fit("broken", "--resume").wait(120) == 0
    z = [np.load(tmp_path / out / "embedding.npy") for out in ("whole", "broken")]
    np.testing.assert_array_equal(z[0], z[1])
