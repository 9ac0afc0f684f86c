"""How training time grows with the data, both packages in turns: python -m benchmarks.scaling [--quick] [--only PART]

On simulated counts, the same for both, with the same threads. Where one package is missing the other runs alone.

    cells   training at batch 128 on 2,000 genes, 1,000 to 1,000,000 cells
    genes   training at batch 128 on 10,000 cells, 500 to 30,000 genes
    fits    biovae at its defaults to its end, from the AnnData in memory to the weights

A run takes as many epochs as see about VALUES counts, zeros included, but one at least. An epoch of SCVI ends after
MOST cells, drawn from all, and is extrapolated. The exponent is the slope of log seconds against log size, by least
squares: where it is 1, twice the data take twice the time.
"""

import argparse
import time
import warnings
from dataclasses import dataclass
from functools import partial

import numpy as np
import torch

from benchmarks.common import GENES, density, installed, simulated, spread
from benchmarks.throughput import train_biovae, train_scvi

BATCH = 128
VALUES = 2e8
MOST = 200_000
PARTS = ("cells", "genes", "fits")
SIDES = {"biovae": train_biovae, "scvi": partial(train_scvi, most=MOST)}


@dataclass(frozen=True)
class Plan:
    """What to measure: sizes as (cells, genes), counts that a run sees, and seeds, a turn each."""

    cells: tuple[tuple[int, int], ...]
    genes: tuple[tuple[int, int], ...]
    fits: tuple[tuple[int, int], ...]
    values: float
    seeds: int


FULL = Plan(
    cells=tuple((cells, GENES) for cells in (1_000, 10_000, 100_000, 1_000_000)),
    genes=tuple((10_000, genes) for genes in (500, 2_000, 8_000, 30_000)),
    fits=tuple((cells, GENES) for cells in (1_000, 10_000, 100_000)),
    values=VALUES,
    seeds=3,
)
QUICK = Plan(
    cells=((500, 200), (1_000, 200), (2_000, 200)),
    genes=((500, 200), (500, 400)),
    fits=((500, 200), (1_000, 200)),
    values=5e5,
    seeds=1,
)


def speeds(adata, plan: Plan) -> dict[str, list[float]]:
    """Cells per second of each side, a number per seed, in turns."""
    epochs = max(1, round(plan.values / (adata.n_obs * adata.n_vars)))
    turns = [{side: train(adata, BATCH, epochs, seed)[1] for side, train in installed(SIDES).items()}
             for seed in range(plan.seeds)]  # fmt: skip
    return {side: [turn[side] for turn in turns] for side in turns[0]}


def exponent(sizes, seconds) -> float:
    """Slope of log seconds against log size."""
    return float(np.polyfit(np.log(sizes), np.log(seconds), 1)[0])


def heading(names: list[str]) -> str:
    return f"| {' | '.join(names)} |\n|{'---|' * len(names)}"


def training(sizes: tuple[tuple[int, int], ...], axis: int, plan: Plan) -> None:
    """One table of throughput: a row per size, and how seconds per epoch grow along an axis, 0 cells or 1 genes."""
    sides = list(installed(SIDES))
    columns = [f"{side}, {what}" for side in sides for what in ("cells/s", "s per epoch")]
    print("\n" + heading(["cells", "genes", "not zero", *columns]), flush=True)
    taken = {side: [] for side in sides}
    for cells, genes in sizes:
        adata = simulated(cells, genes)
        row = [f"{cells:,}", f"{genes:,}", f"{density(adata):.1%}"]
        for side, found in speeds(adata, plan).items():
            taken[side].append(cells / np.median(found))
            row += [spread(found), f"{taken[side][-1]:.3g}"]
        print(f"| {' | '.join(row)} |", flush=True)
    along = [size[axis] for size in sizes]
    slopes = ", ".join(f"{side} {exponent(along, seconds):.2f}" for side, seconds in taken.items())
    print(f"\nexponent of seconds per epoch against {('cells', 'genes')[axis]}: {slopes}")
    if "scvi" in sides and max(cells for cells, _ in sizes) > MOST:
        print(f"scvi saw {MOST:,} cells of each larger set; its seconds per epoch are extrapolated")


def fits(plan: Plan) -> None:
    """Seconds of whole fits."""
    import biovae as bv

    print("\n" + heading(["cells", "genes", "biovae, whole fit, s", "epochs", "batch"]), flush=True)
    medians = []
    for cells, genes in plan.fits:
        adata, seconds = simulated(cells, genes), []
        for seed in range(plan.seeds):
            began = time.perf_counter()
            vae = bv.VAE(bv.rna()).fit(adata, seed=seed, progress=False)
            seconds.append(time.perf_counter() - began)
        medians.append(np.median(seconds))
        record = vae.fitted.record
        row = [f"{cells:,}", f"{genes:,}", spread(seconds, 1), str(record["epochs"]), str(record["batch_size"])]
        print(f"| {' | '.join(row)} |", flush=True)
    print(f"\nexponent of seconds of a fit against cells: {exponent([cells for cells, _ in plan.fits], medians):.2f}")


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.scaling")
    parser.add_argument("--quick", action="store_true", help="small sizes: does everything run?")
    parser.add_argument("--only", choices=PARTS, action="append", help="one part; may be given again")
    asked = parser.parse_args()
    plan, parts = QUICK if asked.quick else FULL, asked.only or PARTS
    warnings.filterwarnings("ignore")
    print(f"{torch.get_num_threads()} threads, batch {BATCH}; median (range) of {plan.seeds} seeds")
    speeds(simulated(1_000, 500), QUICK)  # compiles the loops, off the clock
    if "cells" in parts:
        training(plan.cells, 0, plan)
    if "genes" in parts:
        training(plan.genes, 1, plan)
    if "fits" in parts and "biovae" in installed(SIDES):
        fits(plan)


if __name__ == "__main__":
    main()
