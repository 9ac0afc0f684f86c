"""Write what scvi-tools says of negative binomial log-probabilities and their gradients, for tests/test_parity.py.

Run it where scvi-tools is installed; biovae is not needed:

    python benchmarks/reference/make_scvi_reference.py tests/reference/scvi_nb_zinb.npz
"""

import sys
from importlib.metadata import version

import numpy as np
import torch
from scvi.distributions import NegativeBinomial, ZeroInflatedNegativeBinomial

VALUES = 200


def values() -> dict[str, torch.Tensor]:
    """Counts, means, inverse dispersions and gate logits, over the range that data have; a third of the counts is 0."""
    rng = np.random.default_rng(0)
    mu = 10 ** rng.uniform(-3, 4, VALUES)
    theta = 10 ** rng.uniform(-2, 3, VALUES)
    x = rng.poisson(mu * rng.gamma(theta) / theta) * (rng.uniform(size=VALUES) > 1 / 3)
    gate = rng.normal(0, 3, VALUES)
    return {name: torch.tensor(value, dtype=torch.float64) for name, value in locals().items() if name != "rng"}


def scored(make: type, x: torch.Tensor, **parameters: torch.Tensor) -> dict[str, torch.Tensor]:
    """The log-probability of every value, and its gradient with respect to every parameter."""
    leaves = {name: value.clone().requires_grad_() for name, value in parameters.items()}
    log_prob = make(**leaves).log_prob(x)
    gradients = torch.autograd.grad(log_prob.sum(), list(leaves.values()))
    return {"log_prob": log_prob.detach().reshape(x.shape)} | {
        f"d_{name}": g for name, g in zip(leaves, gradients, strict=True)
    }


def main(path: str) -> None:
    """Write the file."""
    given = values()
    x, mu, theta = given["x"], given["mu"], given["theta"]
    found = {f"nb_{name}": value for name, value in scored(NegativeBinomial, x, mu=mu, theta=theta).items()}
    zinb = scored(ZeroInflatedNegativeBinomial, x, mu=mu, theta=theta, zi_logits=given["gate"])
    found |= {f"zinb_{name}": value for name, value in zinb.items()}
    arrays = {name: value.numpy() for name, value in (given | found).items()}
    np.savez_compressed(path, version=version("scvi-tools"), **arrays)


if __name__ == "__main__":
    main(*sys.argv[1:])
