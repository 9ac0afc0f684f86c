"""The pictures of the README, from the demonstration: `python docs/img/make.py DEMO_FOLDER`."""

import sys
from pathlib import Path

import anndata as ad
import numpy as np
from matplotlib.figure import Figure

import biovae as bv
from biovae.plotting import map2d, png
from biovae.plotting.latent import points

run = Path(sys.argv[1])
adata = ad.read_h5ad(run / "embedded.h5ad")
coordinates, kind = map2d(np.load(run / "embedding.npy"), 0)
figure = Figure(figsize=(12, 3.6), layout="constrained")
for ax, column in zip(figure.subplots(1, 3), ("cell_type", "batch", "pseudotime_true"), strict=True):
    points(coordinates, adata.obs[column], kind=kind, ax=ax)
Path(__file__).with_name("demo.png").write_bytes(png(figure, dpi=110))
print(f"biovae {bv.__version__}")
