"""Seconds of differential expression, beside scvi-tools: `python -m benchmarks.differential`.

Ten groups, each against all others, delta 0.25; both models are fitted for a few passes, which costs nothing here.
"""

import time
import warnings
from collections.abc import Callable

import anndata as ad
import numpy as np

import biovae as bv
from benchmarks.common import GENES, QUIET, installed, scvi_model, simulated, spread

SIZES, GROUPS, REPEATS = (4_000, 100_000), 10, 3


def biovae(adata: ad.AnnData) -> Callable[[], object]:
    """A function that runs the comparison."""
    vae = bv.VAE(bv.rna()).fit(adata[:4000].copy(), epochs=2, progress=False)
    return lambda: bv.tl.differential(vae, adata, "group")


def scvi(adata: ad.AnnData) -> Callable[[], object]:
    """The same for the peer, mode "change"."""
    copy = adata.copy()
    model = scvi_model(copy, seed=0)
    model.train(max_epochs=1, **QUIET)
    return lambda: model.differential_expression(groupby="group", mode="change", silent=True)


def main() -> None:
    """Print a row per size and side."""
    for cells in SIZES:
        adata = simulated(cells, GENES)
        adata.obs["group"] = np.random.default_rng(0).integers(GROUPS, size=cells).astype(str)
        for name, make in installed({"biovae": biovae, "scvi": scvi}).items():
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                run, seconds = make(adata), []
                run()  # whatever is compiled or imported once
                for _ in range(REPEATS):
                    start = time.perf_counter()
                    run()
                    seconds.append(time.perf_counter() - start)
            print(f"{cells:,} cells, {name}: {spread(seconds, 2)} s", flush=True)


if __name__ == "__main__":
    main()
