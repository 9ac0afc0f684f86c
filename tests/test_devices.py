"""What an accelerator says beside the CPU: every part on the same draws, every fit to the same bound.

Everything here runs on each device that is there. The plain forms, which are what runs where no compiled loop fits,
stand in for a device that is not: they are compared with the loops of the CPU in the same way.
"""

import copy
import json
from collections.abc import Iterator
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass

import anndata as ad
import numpy as np
import pytest
import torch
from torch import Tensor

import biovae as bv
from biovae.batch import Observations
from biovae.datasets import Scenario, Technical, simulate
from biovae.kernels import full_precision, without_kernels
from biovae.noise import Noise
from biovae.objective import elbo
from test_model import CASES, two_modalities

ROWS, SAMPLES = 48, 2
SCORES = 1e-4  # relative: single precision, sums in another order
MOMENTS = 1e-3  # of the largest entry: the same in posteriors, and in gradients
BOUND = 0.02  # relative: between fits with draws of their own

THERE = {
    "plain": lambda: True,
    "cuda": torch.cuda.is_available,
    "mps": torch.backends.mps.is_available,
}


@dataclass(frozen=True)
class Elsewhere:
    """A device by the name that `fit` knows it by; `inside` it runs what it would run."""

    name: str
    plain: bool

    def inside(self) -> AbstractContextManager[None]:
        return without_kernels() if self.plain else nullcontext()


@pytest.fixture(params=THERE)
def elsewhere(request) -> Iterator[Elsewhere]:
    """Every device that is there."""
    if not THERE[request.param]():
        pytest.skip(f"no {request.param} device here")
    plain = request.param == "plain"
    with full_precision():
        yield Elsewhere("cpu" if plain else request.param, plain)


@pytest.fixture(scope="module")
def adata() -> ad.AnnData:
    found = simulate(Scenario(technical=Technical(batches=2)), cells=300, genes=60, seed=0)
    found.obs["depth"] = np.asarray(found.X.sum(1)).ravel()
    return found


class Carried(Noise):
    """Draws of the CPU, carried to a device: the same numbers everywhere."""

    def __init__(self, target: str) -> None:
        super().__init__(0)
        self.target = target

    def normal(self, *shape: int, dtype: torch.dtype = torch.float32) -> Tensor:
        return super().normal(*shape, dtype=dtype).to(self.target)


def said(vae: bv.VAE, observations: Observations, device: str) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    """All that a network says of some observations on the draws of the CPU, and the gradient of its bound."""
    network = copy.deepcopy(vae.network).to(device)
    batch = observations.batch(torch.arange(ROWS)).to(device)
    q = network.encode(batch).z
    terms = network.terms(batch, Carried(device), samples=SAMPLES)
    values = {"mean": q.mean, "variance": q.variance, "elbo": elbo(terms), "kl": terms.kl_by_group.sum(-1)}
    values |= {"log_px": terms.log_px, "log_pz": terms.log_pz, "log_qz": terms.log_qz, "library": terms.library}
    for m in range(len(network.parts)):
        values[f"decoded {m}"] = network.decode(q.mean, batch, m).mean
    (-elbo(terms).mean()).backward()
    gradients = {name: w.grad for name, w in network.named_parameters() if w.grad is not None}
    return tuple({name: t.detach().cpu() for name, t in found.items()} for found in (values, gradients))


def agree(vae: bv.VAE, data, elsewhere: Elsewhere) -> None:
    observations = vae.observe(data).observations
    values, gradients = said(vae, observations, "cpu")
    with elsewhere.inside():
        other, slopes = said(vae, observations, elsewhere.name)
    for name, value in values.items():
        near = MOMENTS if name in ("mean", "variance") or name.startswith("decoded") else SCORES
        torch.testing.assert_close(other[name], value, rtol=near, atol=near * float(value.abs().max()), msg=name)
    assert slopes.keys() == gradients.keys()
    for name, slope in gradients.items():
        most = MOMENTS * max(float(slope.abs().max()), 1e-3)
        torch.testing.assert_close(slopes[name], slope, rtol=MOMENTS, atol=most, msg=name)


@pytest.mark.parametrize(("part", "model"), CASES.values(), ids=CASES.keys())
def test_every_part_says_the_same(part, model, adata, elsewhere):
    vae = bv.VAE(bv.rna(**part), covariates=["batch"], latent=4, **({"hidden": 16} | model))
    agree(vae.fit(adata, epochs=3, progress=False), adata, elsewhere)


def test_two_modalities_say_the_same(adata, elsewhere):
    mdata = two_modalities(adata)
    vae = bv.VAE(bv.rna(mod="rna"), bv.continuous(name="prot", mod="prot"), latent=4, hidden=16)
    agree(vae.fit(mdata, epochs=3, progress=False), mdata, elsewhere)


@pytest.mark.parametrize(("part", "model"), CASES.values(), ids=CASES.keys())
def test_every_part_is_fitted_there(part, model, adata, elsewhere, tmp_path):
    vae = bv.VAE(bv.rna(**part), covariates=["batch"], latent=4, **({"hidden": 16} | model))
    with elsewhere.inside():
        vae.fit(adata, epochs=3, device=elsewhere.name, progress=False)
    assert not vae.fitted.record["events"]
    assert vae.network.into_decoder.device.type == "cpu"
    assert np.isfinite(vae.scores(adata, samples=3).iwae).all()
    vae.save(tmp_path / "m")
    np.testing.assert_array_equal(bv.load(tmp_path / "m").embed(adata), vae.embed(adata))


def test_a_fit_there_comes_to_the_bound_of_one_on_the_cpu(adata, elsewhere):
    def fit(device: str) -> bv.VAE:
        vae = bv.VAE(bv.rna(), latent=4, hidden=32)
        return vae.fit(adata, epochs=60, device=device, progress=False)

    here = fit("cpu")
    with elsewhere.inside():
        there = fit(elsewhere.name)
    ends = [vae.history["validation_elbo"].max() for vae in (here, there)]
    assert abs(ends[1] - ends[0]) < BOUND * abs(ends[0])


def test_a_run_there_goes_on_from_a_checkpoint(adata, elsewhere, tmp_path):
    def fit(epochs: int) -> bv.VAE:
        vae = bv.VAE(bv.rna(), latent=4, hidden=16)
        how = {"checkpoints": tmp_path, "resume": True, "device": elsewhere.name}
        return vae.fit(adata, epochs=epochs, progress=False, **how)

    with elsewhere.inside():
        first = fit(6)
        again = fit(6)  # nothing is left to do
    assert again.fitted.record["steps"] == first.fitted.record["steps"]
    json.dumps(again.fitted.record)
    np.testing.assert_allclose(again.embed(adata), first.embed(adata), atol=1e-5)
