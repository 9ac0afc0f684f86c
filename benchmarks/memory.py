"""Megabytes that a fit needs, one process each.

    python -m benchmarks.memory FILE.h5ad ...   biovae on each file, beyond torch and the data
    python -m benchmarks.memory [--quick]       biovae and SCVI on the same simulated counts, and their ratio

Imports are what is resident before the data are read; fit is the peak beyond imports and data. What loads at the first
fit, such as compiled loops, counts as fit: the row with few cells shows how much that is.
"""

import argparse
import json
import subprocess
import sys
import tempfile
import warnings
from pathlib import Path

from benchmarks.common import GENES, QUIET, density, installed, scvi_model, simulated

EPOCHS = 5
FEW, MANY = 2_000, 200_000


def status(key: str) -> float:
    """A line of /proc/self/status, in megabytes."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(float(line.split()[1]) / 1024 for line in lines if line.startswith(key + ":"))


def biovae(path: str) -> dict[str, float | str]:
    """Megabytes of a process that fits and judges a file."""
    import torch

    import biovae as bv

    torch.ones(8, 8).mm(torch.ones(8, 8))
    vae = bv.VAE(bv.rna())
    before = status("VmRSS")
    adata = bv.read(path)
    data = status("VmRSS") - before
    vae.fit(adata, seed=0, epochs=EPOCHS, progress=False)
    peak = status("VmHWM")
    vae.diagnose(adata)
    judged = status("VmHWM") - before - data
    size = f"{adata.n_obs} x {adata.n_vars}"
    return {"size": size, "imports": before, "data": data, "fit": peak - before - data, "judged": judged, "peak": peak}


def scvi(path: str) -> dict[str, float | str]:
    """The same of the peer, which does not judge."""
    import anndata as ad
    import scvi  # noqa: F401 - resident before the data
    import torch

    torch.ones(8, 8).mm(torch.ones(8, 8))
    before = status("VmRSS")
    adata = ad.read_h5ad(path)
    data = status("VmRSS") - before
    scvi_model(adata, 0).train(max_epochs=EPOCHS, **QUIET)
    peak = status("VmHWM")
    return {"imports": before, "data": data, "fit": peak - before - data, "peak": peak}


SIDES = {"biovae": biovae, "scvi": scvi}


def measure(side: str, path: str) -> dict[str, float | str]:
    """A side's megabytes, in a process of its own."""
    command = [sys.executable, "-m", "benchmarks.memory", "--side", side, path]
    printed = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout
    return json.loads(printed.splitlines()[-1])


def files(paths: list[str]) -> None:
    print("| file | size | torch and imports | data | fit | with the verdict |")
    print("|---|---|---|---|---|---|", flush=True)
    for path in paths:
        at = measure("biovae", path)
        print(
            f"| {Path(path).stem} | {at['size']} | {at['imports']:.0f} | {at['data']:.0f} "
            f"| {at['fit']:.0f} | {at['judged']:.0f} |",
            flush=True,
        )


def both(sizes: list[int]) -> None:
    """Everyone who is there on the same counts, and how many times more the peer needs."""
    print(f"{GENES:,} genes, {EPOCHS} epochs\n")
    print("| cells | not zero | side | imports | data | fit | data and fit | peak of the process |")
    print("|---|---|---|---|---|---|---|---|", flush=True)
    ratios = [(cells, compare(cells)) for cells in sizes]
    for cells, times in ratios:
        if times:
            print(f"\nscvi to biovae, {cells:,} cells: {times}")


def compare(cells: int) -> str:
    """Print a row per side; give back the ratios of the two."""
    with tempfile.TemporaryDirectory() as folder:
        path, adata = f"{folder}/simulated.h5ad", simulated(cells, GENES)
        adata.write_h5ad(path)
        found = {side: measure(side, path) for side in installed(SIDES)}
    for side, at in found.items():
        at["data and fit"] = at["data"] + at["fit"]
        row = " | ".join(f"{at[key]:.0f}" for key in ("imports", "data", "fit", "data and fit", "peak"))
        print(f"| {cells:,} | {density(adata):.1%} | {side} | {row} |", flush=True)
    if len(found) < len(SIDES):
        return ""
    keys = ("fit", "data and fit", "peak")
    return ", ".join(f"{key} {found['scvi'][key] / found['biovae'][key]:.2f}" for key in keys)


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.memory")
    parser.add_argument("files", nargs="*")
    parser.add_argument("--quick", action="store_true", help=f"{FEW:,} cells, not {MANY:,} as well")
    parser.add_argument("--side", help=argparse.SUPPRESS)
    asked = parser.parse_args()
    warnings.simplefilter("ignore")
    if asked.side:
        print(json.dumps(SIDES[asked.side](asked.files[0])))
    elif asked.files:
        files(asked.files)
    else:
        both([FEW] if asked.quick else [FEW, MANY])


if __name__ == "__main__":
    main()
