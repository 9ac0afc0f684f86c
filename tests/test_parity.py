"""Parity with scvi-tools: the same log-probabilities and gradients for its two count distributions.

The numbers were written by benchmarks/reference/make_scvi_reference.py. scvi-tools adds 1e-8 inside its logarithms,
which shows in the fifth digit where a mean is 1e-3; the tolerances allow for that and for nothing else.
"""

from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

from biovae.batch import SparseCounts
from biovae.distributions import NegativeBinomial, ZeroInflatedNegativeBinomial

TOLERANCE = {"rtol": 5e-5, "atol": 1e-6}


@pytest.fixture(scope="module")
def scvi() -> dict[str, Tensor]:
    with np.load(Path(__file__).parent / "reference" / "scvi_nb_zinb.npz") as file:
        return {name: torch.from_numpy(file[name]).unsqueeze(1) for name in file.files if name != "version"}


@pytest.mark.parametrize("sparse", [False, True], ids=["dense", "sparse"])
@pytest.mark.parametrize(
    ("make", "key", "names"),
    [
        (NegativeBinomial, "nb", ("mu", "theta")),
        (ZeroInflatedNegativeBinomial, "zinb", ("mu", "theta", "gate")),
    ],
    ids=["negative_binomial", "zero_inflated"],
)
def test_log_probabilities_and_gradients_are_those_of_scvi(scvi, make, key, names, sparse):
    leaves = {name: scvi[name].clone().requires_grad_() for name in names}
    p = make(*(value if name == "gate" else value.log() for name, value in leaves.items()))
    log_prob = p.log_prob(SparseCounts.from_dense(scvi["x"]) if sparse else scvi["x"])
    torch.testing.assert_close(log_prob, scvi[f"{key}_log_prob"][:, 0], **TOLERANCE)
    log_prob.sum().backward()
    for name, leaf in leaves.items():
        theirs = scvi[f"{key}_d_{'zi_logits' if name == 'gate' else name}"]
        torch.testing.assert_close(leaf.grad, theirs, **TOLERANCE, msg=lambda m, name=name: f"d {name}: {m}")


def test_the_reference_covers_the_range(scvi):
    assert len(scvi["x"]) == 200
    assert 0.2 < float((scvi["x"] == 0).double().mean()) < 0.8
    for name, low, high in [("mu", 0.01, 1000), ("theta", 0.1, 100)]:
        assert float(scvi[name].min()) < low < high < float(scvi[name].max())
