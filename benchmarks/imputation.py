"""Imputation beside SCVI on the same masks and halves: python -m benchmarks.imputation DATA OUT SEEDS [FILES].

SCVI trains until its validation bound stops rising, at most as long as its own rule says; its rates are means over 25
draws of z. Simple methods choose their settings on a tenth of the cells; see `biovae.analysis.models.imputation`.
"""

import os
import sys
import warnings
from pathlib import Path

import anndata as ad
import numpy as np
import pandas as pd
import scipy.sparse
import torch

import biovae as bv
from benchmarks.common import QUIET, load, scvi_model
from biovae.analysis import Imputer, baselines, compare_imputers, scored_rows
from biovae.model.fitting import Options
from biovae.tools.imputation import exposure_of, imputer_of, questions

NAMES = ("pbmc3k_hvg2000", "kang_ifnb_pbmc", "pancreas_endocrinogenesis_velocity")
SHARE, DRAWS = 0.1, 25


def scvi(given: scipy.sparse.csr_array, obs: pd.DataFrame, batch: str | None, seed: int) -> Imputer:
    """SCVI's shares of the depth."""
    adata = ad.AnnData(scipy.sparse.csr_matrix(given, dtype=np.float32), obs=obs.copy())
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        model = scvi_model(adata, seed, batch)
        model.train(early_stopping=True, **QUIET)
        shares = model.get_normalized_expression(library_size=1, n_samples=DRAWS, return_numpy=True)
    return Imputer("", lambda rows: np.asarray(shares[rows], dtype=np.float64))


def run(folder: str, name: str, seed: int) -> pd.DataFrame:
    """A row per question and method."""
    adata, batch, _ = load(folder, name)
    vae = bv.VAE(bv.rna(), covariates=[batch] if batch else [])
    prepared = vae.prepare(adata)
    roles, rows = vae.roles(adata, prepared, seed=seed), scored_rows(adata.n_obs, seed)
    frames = []
    for given, question in questions(prepared, SHARE, seed):
        vae.fit_prepared(given, roles, Options(seed=seed, progress=False))
        methods = {"VAE": (imputer_of(vae.network, given.observations),)}
        methods["SCVI"] = (scvi(question.given, adata.obs, batch, seed),)
        methods |= baselines(question.given, exposure_of(given.observations), seed)
        frames.append(compare_imputers(question, methods, rows, seed))
    return pd.concat(frames).assign(file=name, seed=seed)


def table(found: pd.DataFrame) -> str:
    """Mean error over seeds, and how far each is beyond that of the VAE, seed by seed."""
    lines = ["| file | question | method | error | beyond the VAE's, by seed (its standard error) |"]
    lines.append("|---|---|---|---|---|")
    for (name, question, method), rows in found.groupby(["file", "question", "method"], sort=False):
        each = ", ".join(f"{r.behind:+.4f} ({r.behind_se:.4f})" for r in rows.sort_values("seed").itertuples())
        lines.append(f"| {name} | {question} | {method} | {rows['error'].mean():.4f} | {each} |")
    return "\n".join(lines)


def main(folder: str, out: str, seeds: str, names: str = ",".join(NAMES)) -> None:
    torch.set_num_threads(int(os.environ.get("OMP_NUM_THREADS", "1")))
    Path(out).mkdir(parents=True, exist_ok=True)
    frames = []
    for seed in map(int, seeds.split(",")):
        for name in names.split(","):
            target = Path(out) / f"imputation_{name}_{seed}.csv"
            if not target.exists():
                run(folder, name, seed).to_csv(target, index=False)
                print(name, seed, "done", flush=True)
            frames.append(pd.read_csv(target))
    print(table(pd.concat(frames)))


if __name__ == "__main__":
    main(*sys.argv[1:5])
