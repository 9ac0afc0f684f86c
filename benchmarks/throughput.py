"""Training cells per second at batch 128: python -m benchmarks.throughput DATA [biovae|scvi], alternate the two.

Ten epochs over the files that have a name below, 2,000 genes, all threads, seeds 0 to 2. Where both packages are
installed both run, in turns; else the one that is there. Evaluations during training count as training time.
"""

import importlib.util
import logging
import statistics
import sys
import time
import warnings

from benchmarks.common import load

NAMES = ("pbmc3k_hvg2000", "pbmc_facs")
EPOCHS, BATCH = 10, 128


def biovae(adata, seed: int) -> float:
    import biovae as bv

    record = bv.VAE(bv.rna()).fit(
        adata, epochs=EPOCHS, seed=seed, batch_size=BATCH, validation=0.02, progress=False
    ).fitted.record  # fmt: skip
    return record["train_observations"] * record["epochs"] / record["seconds"]


def scvi(adata, seed: int) -> float:
    import scvi as peer

    peer.settings.verbosity, peer.settings.seed = logging.ERROR, seed
    peer.model.SCVI.setup_anndata(adata)
    model = peer.model.SCVI(adata, gene_likelihood="nb")
    began = time.perf_counter()
    model.train(
        max_epochs=EPOCHS, batch_size=BATCH, train_size=1.0, accelerator="cpu", enable_progress_bar=False, logger=False
    )
    return adata.n_obs * EPOCHS / (time.perf_counter() - began)


def main(folder: str, *who: str) -> None:
    warnings.filterwarnings("ignore")
    sides = {"biovae": biovae, "scvi": scvi}
    chosen = who or [name for name in sides if importlib.util.find_spec(name)]
    for name in NAMES:
        adata, _, _ = load(folder, name)
        speeds = {side: [] for side in chosen}
        for seed in (0, 1, 2):
            for side in chosen:
                speeds[side].append(sides[side](adata.copy(), seed))
        for side, found in speeds.items():
            print(f"{name} {side}: {statistics.median(found):,.0f} ({min(found):,.0f} to {max(found):,.0f}) cells/s")


if __name__ == "__main__":
    main(*sys.argv[1:])
