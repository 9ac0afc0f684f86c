"""Megabytes that a fit needs beyond torch and the data: python -m benchmarks.memory FILE.h5ad ..., a process each."""

import subprocess
import sys
from pathlib import Path


def status(key: str) -> float:
    """A line of /proc/self/status, in megabytes."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(float(line.split()[1]) / 1024 for line in lines if line.startswith(key + ":"))


def one(path: str) -> None:
    import torch

    import biovae as bv

    torch.ones(8, 8).mm(torch.ones(8, 8))
    before = status("VmRSS")
    adata = bv.read(path)
    data = status("VmRSS") - before
    vae = bv.VAE(bv.rna()).fit(adata, seed=0, epochs=5, progress=False)
    fit = status("VmHWM") - before - data
    vae.diagnose(adata)
    judged = status("VmHWM") - before - data
    size = f"{adata.n_obs} x {adata.n_vars}"
    print(f"| {Path(path).stem} | {size} | {before:.0f} | {data:.0f} | {fit:.0f} | {judged:.0f} |", flush=True)


if __name__ == "__main__":
    if len(sys.argv) == 3 and sys.argv[1] == "--one":
        one(sys.argv[2])
    else:
        print("| file | size | torch and imports | data | fit | with the verdict |")
        print("|---|---|---|---|---|---|", flush=True)
        for path in sys.argv[1:]:
            subprocess.run([sys.executable, __file__, "--one", path], check=True)
