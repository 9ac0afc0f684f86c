"""The optimiser beside torch's own, and without what torch's own brings along."""

import subprocess
import sys

import pytest
import torch

from biovae.noise import Noise
from biovae.training.adamw import AdamW, Group

SHAPES = ((5, 3), (7,), ())


def weights() -> list[torch.nn.Parameter]:
    return [torch.nn.Parameter(Noise(1, i).normal(*shape)) for i, shape in enumerate(SHAPES)]


def gradients(weights: list[torch.nn.Parameter], step: int) -> None:
    for i, w in enumerate(weights):
        w.grad = Noise(2, step, i).normal(*w.shape)


def made(weights: list[torch.nn.Parameter]) -> AdamW:
    return AdamW([Group(weights[:1], 0.1), Group(weights[1:], 0.0)], (0.9, 0.99))


def test_it_is_adamw():
    ours, theirs = weights(), weights()
    optimiser = made(ours)
    groups = [{"params": theirs[:1], "weight_decay": 0.1}, {"params": theirs[1:], "weight_decay": 0.0}]
    reference = torch.optim.AdamW(groups, betas=(0.9, 0.99))
    for step in range(20):
        for group in reference.param_groups:
            group["lr"] = 0.01 * (step + 1)
        gradients(ours, step)
        gradients(theirs, step)
        optimiser.step(0.01 * (step + 1))
        reference.step()
    for a, b in zip(ours, theirs, strict=True):
        torch.testing.assert_close(a, b)


def test_the_rate_may_be_a_tensor():
    ours, other = weights(), weights()
    for each, rate in ((ours, 0.01), (other, torch.tensor(0.01))):
        gradients(each, 0)
        made(each).step(rate)
    for a, b in zip(ours, other, strict=True):
        torch.testing.assert_close(a, b)


def test_a_bad_step_leaves_no_trace():
    moved = weights()
    optimiser = made(moved)
    gradients(moved, 0)
    optimiser.step(0.1)
    before = [w.detach().clone() for w in moved]
    moments = {i: {name: t.clone() for name, t in of.items()} for i, of in optimiser.state().items()}
    moved[0].grad.fill_(torch.nan)
    optimiser.step(0.1, bad=torch.tensor(1.0))
    assert all(torch.equal(a, b) for a, b in zip(moved, before, strict=True))
    for i, of in optimiser.state().items():
        assert all(torch.equal(t, moments[i][name]) for name, t in of.items())


def test_gradients_are_divided_by_the_excess():
    long, short = weights(), weights()
    for each, excess in ((long, torch.tensor(4.0)), (short, None)):
        gradients(each, 0)
        if excess is None:
            for w in each:
                w.grad /= 4
        optimiser = made(each)
        optimiser.step(0.1, excess=excess)
        each.append(optimiser.state()[0]["exp_avg"])
    for a, b in zip(long, short, strict=True):
        torch.testing.assert_close(a, b)


def test_a_weight_without_a_gradient_stays():
    some = weights()
    gradients(some, 0)
    some[1].grad = None
    before = some[1].detach().clone()
    optimiser = made(some)
    optimiser.step(0.1)
    assert torch.equal(some[1], before)
    assert optimiser.state()[1]["step"] == 0
    optimiser.zero_grad()
    assert all(w.grad is None for w in some)


def test_it_goes_on_from_its_state():
    whole, cut = weights(), weights()
    optimiser = made(whole)
    for step in range(6):
        gradients(whole, step)
        optimiser.step(0.1)
    optimiser = made(cut)
    for step in range(6):
        if step == 3:
            state = {i: {name: t.clone() for name, t in of.items()} for i, of in optimiser.state().items()}
            optimiser = made(cut)
            optimiser.restore(state)
        gradients(cut, step)
        optimiser.step(0.1)
    assert all(torch.equal(a, b) for a, b in zip(whole, cut, strict=True))


FIT = """
import sys
import biovae as bv
adata = bv.datasets.simulate(cells=80, genes=30, seed=0)
vae = bv.VAE(bv.rna(), latent=2, hidden=8).fit(adata, epochs=2, progress=False)
vae.embed(adata), vae.scores(adata, samples=2)
print([name for name in ("torch._dynamo", "torch._inductor", "sympy") if name in sys.modules])
"""


@pytest.mark.parametrize("code", [FIT], ids=["fit"])
def test_a_fit_does_not_import_a_compiler(code):
    run = subprocess.run([sys.executable, "-W", "ignore", "-c", code], capture_output=True, text=True, check=True)
    assert run.stdout.strip() == "[]"
