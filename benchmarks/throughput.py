"""Cells per second, both packages in turns: python -m benchmarks.throughput DATA

Training for ten epochs at batch 128 and at 1,024 on 2,000 genes, at 128 on all, and embedding; all threads, seeds 0
to 2. Where one package is missing the other runs alone. Evaluations during training count as training time.
"""

import importlib.util
import logging
import statistics
import sys
import time
import warnings

import numpy as np

from benchmarks.common import load

NAMES = ("pbmc3k_hvg2000", "pbmc_facs")
EPOCHS = 10
COPIES = 8  # of the cells that are embedded, so that a call is long enough to time
CASES = {"batch 128": (128, 2000), "batch 1,024": (1024, 2000), "batch 128, all genes": (128, None)}


def biovae(adata, batch: int, seed: int) -> tuple[float, float]:
    """Cells per second of training and of embedding."""
    import biovae as bv

    vae = bv.VAE(bv.rna()).fit(
        adata, epochs=EPOCHS, seed=seed, batch_size=batch, validation=0.02, progress=False
    )  # fmt: skip
    record, many = vae.fitted.record, adata[np.tile(np.arange(adata.n_obs), COPIES)].copy()
    many.obs_names_make_unique()
    began = time.perf_counter()
    vae.embed(many)
    embedded = many.n_obs / (time.perf_counter() - began)
    return record["train_observations"] * record["epochs"] / record["seconds"], embedded


def scvi(adata, batch: int, seed: int) -> tuple[float, float]:
    import scvi as peer

    logging.getLogger("lightning.pytorch").setLevel(logging.ERROR)
    peer.settings.verbosity, peer.settings.seed = logging.ERROR, seed
    peer.model.SCVI.setup_anndata(adata)
    model = peer.model.SCVI(adata, gene_likelihood="nb")
    began = time.perf_counter()
    model.train(
        max_epochs=EPOCHS, batch_size=batch, train_size=1.0, accelerator="cpu", enable_progress_bar=False, logger=False
    )
    trained = adata.n_obs * EPOCHS / (time.perf_counter() - began)
    many = adata[np.tile(np.arange(adata.n_obs), COPIES)].copy()
    many.obs_names_make_unique()
    began = time.perf_counter()
    model.get_latent_representation(many)
    return trained, many.n_obs / (time.perf_counter() - began)


def main(folder: str) -> None:
    warnings.filterwarnings("ignore")
    sides = {name: run for name, run in (("biovae", biovae), ("scvi", scvi)) if importlib.util.find_spec(name)}
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
                middle, low, high = statistics.median(found), min(found), max(found)
                print(
                    f"{name}, {adata.n_vars} genes, {case}, {what}, {side}: {middle:,.0f} ({low:,.0f} to {high:,.0f})"
                )


if __name__ == "__main__":
    main(sys.argv[1])
