"""biovae at its defaults on the same cells, and the table beside SCVI: python -m benchmarks.quality DATA OUT SEEDS."""

import os
import sys
import time
from pathlib import Path

import numpy as np
import torch

import biovae as bv
from benchmarks.common import FILES, load
from benchmarks.table import interval
from biovae.analysis import label_hits, log_normalise, pca


def fit(folder: str, out: Path, name: str, seed: int) -> None:
    target = out / f"biovae_{name}_{seed}.npz"
    if target.exists():
        return
    adata, batch, _ = load(folder, name)
    began = time.perf_counter()
    vae = bv.VAE(bv.rna(), covariates=[batch] if batch else [])
    vae.fit(adata, test="test", seed=seed, progress=False)
    seconds = time.perf_counter() - began
    test = np.flatnonzero(adata.obs["test"])
    scores = vae.scores(adata, samples=100, seed=1, indices=test)
    prepared = vae.observe(adata, indices=test)
    null = vae.fitted.null.score(prepared.observations, torch.arange(len(test)))
    np.savez(target, z=vae.embed(adata), elbo=scores.elbo, iwae=scores.iwae, null=null, seconds=seconds)
    print(name, seed, f"{seconds:.0f} s", scores.elbo.mean(), scores.iwae.mean(), flush=True)


def row(folder: str, out: Path, name: str, seeds: list[int]) -> str:
    adata, _, labels = load(folder, name)
    peers, ours = ([np.load(out / f"{who}_{name}_{s}.npz") for s in seeds] for who in ("scvi", "biovae"))
    mean = lambda runs, key: np.mean([run[key].mean() for run in runs])  # noqa: E731
    hits = [np.mean([label_hits(run["z"], labels) for run in runs], axis=0) for runs in (peers, ours)]
    base = label_hits(pca(log_normalise(adata.X), 10, 0, ~adata.obs["test"].to_numpy()).scores, labels)
    return (
        f"| {name} | {mean(ours, 'null'):.1f} | {mean(peers, 'elbo'):.1f} / {mean(peers, 'iwae'):.1f} | "
        f"{mean(ours, 'elbo'):.1f} / {mean(ours, 'iwae'):.1f} | {hits[0].mean():.3f} | {hits[1].mean():.3f} | "
        f"{interval(100 * (hits[1] - hits[0]))} | {base.mean():.3f} |"
    )


def main(folder: str, out: str, seeds: str) -> None:
    torch.set_num_threads(int(os.environ.get("OMP_NUM_THREADS", "1")))
    chosen = [int(seed) for seed in seeds.split(",")]
    Path(out).mkdir(parents=True, exist_ok=True)
    for name in FILES:
        for seed in chosen:
            fit(folder, Path(out), name, seed)
    print("| file | null | SCVI bound / IWAE | biovae bound / IWAE | 15-NN SCVI | biovae | points (95 %) | PCA |")
    print("|---|---|---|---|---|---|---|---|")
    for name in FILES:
        print(row(folder, Path(out), name, chosen), flush=True)


if __name__ == "__main__":
    main(*sys.argv[1:4])
