"""Cells per second, both packages in turns: python -m benchmarks.throughput DATA

Training for ten epochs at batch 128 and at 1,024 on 2,000 genes, at 128 on all, and embedding; all threads, seeds 0
to 2. Where one package is missing the other runs alone. Evaluations during training count as training time.
"""

import math
import sys
import time
import warnings

import numpy as np

from benchmarks.common import QUIET, installed, load, scvi_model, spread

NAMES = ("pbmc3k_hvg2000", "pbmc_facs")
EPOCHS = 10
COPIES = 8  # of the cells that are embedded, so that a call is long enough to time
CASES = {"batch 128": (128, 2000), "batch 1,024": (1024, 2000), "batch 128, all genes": (128, None)}


def train_biovae(adata, batch: int, epochs: int, seed: int):
    """A fitted model, and cells per second of training."""
    import biovae as bv

    vae = bv.VAE(bv.rna()).fit(
        adata, epochs=epochs, seed=seed, batch_size=batch, validation=0.02, progress=False
    )  # fmt: skip
    record = vae.fitted.record
    return vae, record["train_observations"] * record["epochs"] / record["seconds"]


def train_scvi(adata, batch: int, epochs: int, seed: int, most: int | None = None):
    """The same of the peer; an epoch ends after `most` cells, drawn from all."""
    model, steps = scvi_model(adata, seed), math.ceil(min(adata.n_obs, most or adata.n_obs) / batch)
    began = time.perf_counter()
    model.train(max_epochs=epochs, batch_size=batch, train_size=1.0, limit_train_batches=steps, **QUIET)
    return model, min(adata.n_obs, steps * batch) * epochs / (time.perf_counter() - began)


def embedding(adata, embed) -> float:
    """Cells per second of embedding."""
    many = adata[np.tile(np.arange(adata.n_obs), COPIES)].copy()
    many.obs_names_make_unique()
    began = time.perf_counter()
    embed(many)
    return many.n_obs / (time.perf_counter() - began)


def biovae(adata, batch: int, seed: int) -> tuple[float, float]:
    """Cells per second of training and of embedding."""
    vae, trained = train_biovae(adata, batch, EPOCHS, seed)
    return trained, embedding(adata, vae.embed)


def scvi(adata, batch: int, seed: int) -> tuple[float, float]:
    """The same of the peer."""
    model, trained = train_scvi(adata, batch, EPOCHS, seed)
    return trained, embedding(adata, model.get_latent_representation)


def main(folder: str) -> None:
    warnings.filterwarnings("ignore")
    sides = installed({"biovae": biovae, "scvi": scvi})
    for name in NAMES:
        for case, (batch, genes) in CASES.items():
            adata = load(folder, name, genes)[0]
            if genes is None and adata.n_vars <= 2000:
                continue
            speeds = {(side, what): [] for what in ("train", "embed") for side in sides}
            for seed in (0, 1, 2):
                for side, run in sides.items():
                    for what, speed in zip(("train", "embed"), run(adata.copy(), batch, seed), strict=True):
                        speeds[side, what].append(speed)
            for (side, what), found in speeds.items():
                print(f"{name}, {adata.n_vars} genes, {case}, {what}, {side}: {spread(found)}")


if __name__ == "__main__":
    main(sys.argv[1])
