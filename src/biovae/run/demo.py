"""`biovae demo`: cells whose truth is known, and how much of it the model found."""

import json
from pathlib import Path

import numpy as np
import pandas as pd
import scipy.sparse.csgraph
from anndata import AnnData
from scipy.stats import spearmanr
from sklearn.metrics import adjusted_rand_score
from sklearn.neighbors import kneighbors_graph

from biovae.analysis import explained_out_of_fold, label_accuracy, leiden, nearest
from biovae.datasets import demo, expected, forbidden
from biovae.diagnostics import Verdict
from biovae.modalities import rna
from biovae.model import VAE
from biovae.model.fitting import Options
from biovae.run.folder import Request, Say, fit_run

LATENT = 8
SAMPLES, PER = 500, 1e4
GRID = 60  # points along each side of the map on which decoded states are looked up


def demo_run(out: Path, seed: int, command: str, say: Say) -> Verdict:
    """Simulate, fit, judge, report; and compare with the truth in `truth.json`."""
    adata = demo(seed)
    say(f"simulated {adata.n_obs:,} cells x {adata.n_vars:,} genes: types, two lineages, two batches, dropout, a gap")
    shown = adata.copy()
    shown.obs = adata.obs[["cell_type", "batch", "pseudotime_true"]]
    vae = VAE(rna(), covariates=["batch"], latent=LATENT)
    options = Options(seed=seed, checkpoints=out / "checkpoints")
    request = Request(data=shown, vae=vae, out=out, options=options, title="simulated cells", command=command)
    verdict = fit_run(request, say)
    truth = against_truth(vae, adata, seed)
    (out / "truth.json").write_text(json.dumps(truth, indent=2) + "\n")
    for name, value in truth.items():
        say(f"truth: {name} {value:.3f}")
    return verdict


def against_truth(vae: VAE, adata: AnnData, seed: int) -> dict[str, float]:
    """How much of a simulation's truth a fitted model found, each number by name."""
    z = vae.embed(adata)
    types = adata.obs["cell_type"].astype(str).to_numpy()
    found = {
        "accuracy of cell types among 15 neighbours": label_accuracy(z, types),
        "agreement of clusters with cell types (adjusted Rand index)": adjusted_rand_score(types, leiden(z, seed=seed)),
        "variance of log library size explained by z within types": library_in(z, adata),
        "order along the lineages (Spearman)": order(z, adata),
        "share of neighbours from the same batch, over chance": mixing(z, adata.obs["batch"].to_numpy()),
        "share of decoded cells in forbidden states": forbidden_share(vae, adata, z[:SAMPLES]),
        "share of prior samples in forbidden states": forbidden_share(
            vae, adata, vae.sample(SAMPLES, seed=seed).obsm["X_vae"]
        ),
    }
    return {name: round(float(value), 4) for name, value in found.items()}


def library_in(z: np.ndarray, adata: AnnData) -> float:
    """Cross-validated R2 of the true log library size from z, both centred within each type."""
    types = adata.obs["cell_type"].astype(str).to_numpy()
    size = np.log(adata.obs["library_true"].to_numpy(dtype=float))
    centred = pd.DataFrame(z).groupby(types).transform(lambda column: column - column.mean()).to_numpy()
    target = pd.Series(size).groupby(types).transform(lambda column: column - column.mean()).to_numpy()
    return explained_out_of_fold(centred, target[:, None])


def order(z: np.ndarray, adata: AnnData) -> float:
    """Spearman correlation of true pseudotime with graph distance in z from the true root."""
    on = np.flatnonzero(adata.obs["pseudotime_true"].notna().to_numpy())
    time = adata.obs["pseudotime_true"].to_numpy(dtype=float)[on]
    graph = kneighbors_graph(z[on], min(15, len(on) - 1), mode="distance")
    distance = scipy.sparse.csgraph.dijkstra(graph, directed=False, indices=int(time.argmin()))
    known = np.isfinite(distance)
    return float(spearmanr(distance[known], time[known]).statistic)


def mixing(z: np.ndarray, batch: np.ndarray) -> float:
    """Share of neighbours of the same batch, divided by what chance gives: 1 is perfect mixing."""
    batch = batch.astype(str)
    same = (batch[nearest(z)[0]] == batch[:, None]).mean()
    return float(same / np.square(pd.Series(batch).value_counts(normalize=True)).sum())


def forbidden_share(vae: VAE, adata: AnnData, z: np.ndarray) -> float:
    """Share of positions whose decoded profile is closest to a place on the map that no cell can be in."""
    reach = np.abs(adata.obsm["latent_true"]).max() * 1.05
    axis = np.linspace(-reach, reach, GRID)
    places = np.stack(np.meshgrid(axis, axis), -1).reshape(-1, 2)
    profiles = standardised(np.log1p(expected(adata, places) * PER))
    closest = (standardised(np.log1p(vae.decode(z, library=PER))) @ profiles.T).argmax(1)
    return float(forbidden(adata, places)[closest].mean())


def standardised(x: np.ndarray) -> np.ndarray:
    """Rows with mean 0 and standard deviation 1, so that a product of two is their correlation."""
    return (x - x.mean(1, keepdims=True)) / x.std(1, keepdims=True)
