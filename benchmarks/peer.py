"""SCVI at its defaults, scored by the sampler that scores biovae: python -m benchmarks.peer DATA OUT SEEDS."""

import os
import sys
import time
from pathlib import Path

import numpy as np
import torch
from torch.distributions import Normal, kl_divergence

from benchmarks.common import FILES, QUIET, load, scvi_model

DRAWS = 100


@torch.no_grad()
def score(model, adata, draws: int = DRAWS) -> tuple[np.ndarray, np.ndarray]:
    """Bound and importance-weighted bound of each cell; constants included, in float64."""
    adata = model._validate_anndata(adata)
    module = model.module.eval()
    bounds, weighted = [], []
    for tensors in model._make_data_loader(adata=adata, batch_size=64):
        inference = module.inference(**module._get_inference_input(tensors))
        q, x = inference["qz"], tensors["X"].double()
        z = q.sample((draws,))
        cells = len(x)
        generative = module.generative(
            z=z.reshape(draws * cells, -1),
            library=inference["library"].repeat(draws, 1),
            batch_index=tensors["batch"].repeat(draws, 1),
        )
        r, mean = generative["px"].theta.double(), generative["px"].mu.double().reshape(draws, cells, -1)
        r = r if r.dim() == 1 else r.reshape(draws, cells, -1)
        log_p = torch.lgamma(x + r) - torch.lgamma(r) - torch.lgamma(x + 1) + r * (r.log() - (r + mean).log())
        log_p = (log_p + torch.xlogy(x, mean / (r + mean))).sum(-1)
        bounds.append((log_p.mean(0) - kl_divergence(q, Normal(0.0, 1.0)).sum(-1)).numpy())
        weight = log_p + Normal(0.0, 1.0).log_prob(z).sum(-1) - q.log_prob(z).sum(-1)
        weighted.append((torch.logsumexp(weight, 0) - np.log(draws)).numpy())
    return np.concatenate(bounds), np.concatenate(weighted)


def main(folder: str, out: str, seeds: str) -> None:
    torch.set_num_threads(int(os.environ.get("OMP_NUM_THREADS", "1")))
    Path(out).mkdir(parents=True, exist_ok=True)
    for seed in map(int, seeds.split(",")):
        for name in FILES:
            target = Path(out) / f"scvi_{name}_{seed}.npz"
            if target.exists():
                continue
            adata, batch, _ = load(folder, name)
            train, test = adata[~adata.obs["test"]].copy(), adata[adata.obs["test"]].copy()
            model = scvi_model(train, seed, batch)
            began = time.perf_counter()
            model.train(**QUIET)
            seconds = time.perf_counter() - began
            z = model.get_latent_representation(adata.copy())
            elbo, iwae = score(model, test)
            np.savez(target, z=z, elbo=elbo, iwae=iwae, seconds=seconds)
            print(name, seed, f"{seconds:.0f} s", elbo.mean(), iwae.mean(), flush=True)


if __name__ == "__main__":
    main(*sys.argv[1:4])
