"""Is the recipe right at every size? python -m benchmarks.recipe [SIZE ...] [--only batch|rate]: around the choice.

Simulated cells on a curved state space of ten dimensions (`benchmarks.gpu.simulate`), a fifth held out. Each line is
one change of the automatic recipe: nats that the held-out bound gains by it, and seconds of the whole fit. A SIZE is
written as cells x genes: 4000x500.
"""

import argparse
import time
import warnings

import anndata as ad
import numpy as np
import torch

import biovae as bv
from benchmarks import gpu
from benchmarks.common import spread
from biovae.training import plan

SIZES = ("1000x2000", "4000x2000", "16000x2000", "64000x2000", "200000x2000", "4000x500", "4000x8000", "4000x30000")
CHANGES = {"automatic": (1, 1), "batch / 2": (0.5, 1), "batch x 2": (2, 1), "batch x 4": (4, 1),
           "rate / 2": (1, 0.5), "rate x 2": (1, 2)}  # fmt: skip
SEEDS = 3


def cells(size: tuple[int, int], seed: int) -> ad.AnnData:
    """Simulated counts with a `test` column."""
    number, genes = size
    matrix = gpu.simulate(number, torch.device("cpu"), seed=seed, genes=genes).x[0]
    adata = ad.AnnData(matrix.scipy())
    adata.obs_names = [f"cell{i}" for i in range(number)]
    adata.obs["test"] = np.random.default_rng(seed).permutation(number) < number // 5
    return adata


def run(adata: ad.AnnData, change: tuple[float, float], seed: int) -> tuple[float, float, int]:
    """Held-out bound, seconds and steps of one fit."""
    chosen = plan.settings(round(0.72 * adata.n_obs), adata.n_vars)
    began = time.perf_counter()
    vae = bv.VAE(bv.rna()).fit(
        adata, test="test", seed=seed, progress=False,
        batch_size=round(chosen.batch_size * change[0]), rate=chosen.rate * change[1],
    )  # fmt: skip
    seconds = time.perf_counter() - began
    test = np.flatnonzero(adata.obs["test"])[:4000]
    bound = vae.scores(adata, samples=2, seed=1, indices=test).elbo.mean()
    return float(bound), seconds, vae.fitted.record["steps"]


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.recipe")
    parser.add_argument("--quick", action="store_true", help="small sizes: does everything run?")
    parser.add_argument("--only", choices=("batch", "rate"), default="", help="change only this, beside the choice")
    parser.add_argument("sizes", nargs="*", default=SIZES, metavar="SIZE", help=f"default: {' '.join(SIZES)}")
    asked = parser.parse_args()
    warnings.filterwarnings("ignore")
    print(
        "| cells | genes | batch | change | nats gained | seconds | steps |\n|---|---|---|---|---|---|---|", flush=True
    )
    for text in ("500x200",) if asked.quick else asked.sizes:
        number, genes = (int(n) for n in text.split("x"))
        data = [cells((number, genes), seed) for seed in range(1 if asked.quick else SEEDS)]
        default = []
        for name in [name for name in CHANGES if name == "automatic" or name.startswith(asked.only)]:
            change = CHANGES[name]
            found = np.array([run(adata, change, seed) for seed, adata in enumerate(data)])
            default = found if name == "automatic" else default
            said = f"({found[:, 0].mean():.1f})" if name == "automatic" else spread(found[:, 0] - default[:, 0], 2)
            batch = round(plan.settings(round(0.72 * number), genes).batch_size * change[0])
            line = f"{number:,} | {genes:,} | {batch} | {name} | {said} | {spread(found[:, 1], 1)}"
            print(f"| {line} | {found[:, 2].mean():.0f} |", flush=True)


if __name__ == "__main__":
    main()
