"""The Triton kernels, without a GPU: interpreted they say what the formula says, and they compile for real devices."""

import os
import subprocess
import sys

import pytest
import torch

pytest.importorskip("triton", reason="Triton is not installed: it comes with torch's CUDA build, or pip install triton")

INTERPRETED = """
import torch
from torch.nn.functional import softplus
from biovae.batch import SparseCounts
from biovae.distributions import Composition
from biovae.distributions.on_gpu import _error, composed_log_prob_gpu

assert max(_error(torch.device("cpu"), share=share) for share in (True, False)) < 1e-4

def formula(x, share, logits, exposure, log_r):
    m, r = exposure.log() + (logits.log_softmax(-1) if share else logits), log_r.exp()
    sp = softplus(m - log_r, threshold=50)
    log_p = torch.lgamma(x + r) - torch.lgamma(r) - torch.lgamma(x + 1) + x * (m - log_r - sp) - r * sp
    return log_p.sum(-1)

torch.manual_seed(0)
for share, samples, features in ((True, 1, 300), (False, 1, 300), (True, 2, 1030)):
    obs = 4
    logits = torch.randn(samples, obs, features) * 2 - (0 if share else 8)
    exposure, log_r = torch.rand(obs, 1) * 1000 + 200, torch.randn(features) * 3
    log_r[:5] = torch.tensor([-12.0, 12, 10, 5, -5])
    x = torch.poisson(torch.rand(obs, features) * 2) * (torch.rand(obs, features) < 0.2)
    x[0, 3], x[0, 1] = 40000, 7
    padded = SparseCounts.from_dense(x)
    extra = padded._replace(
        row=torch.cat([padded.row, torch.full((9,), obs - 1)]),
        column=torch.cat([padded.column, torch.zeros(9, dtype=torch.int64)]),
        value=torch.cat([padded.value, torch.zeros(9)]),
    )
    given = [t.clone().requires_grad_() for t in (logits, exposure, log_r)]
    exact = [t.double().requires_grad_() for t in (logits, exposure, log_r)]
    weight = torch.rand(samples, obs)
    found = composed_log_prob_gpu(Composition(given[0], given[1], share=share), given[2], extra)
    wanted = formula(x.double(), share, *exact)
    torch.testing.assert_close(found.double(), wanted, rtol=1e-6, atol=1e-4)
    pairs = zip(
        torch.autograd.grad((weight * found).sum(), given), torch.autograd.grad((weight * wanted).sum(), exact)
    )
    for a, b in pairs:
        torch.testing.assert_close(a.double(), b, rtol=2e-4, atol=2e-4)
print("agreed")
"""

COMPILED = """
import sys
import triton
from triton.backends.compiler import GPUTarget
from triton.compiler import ASTSource
from biovae.kernels import triton_counts as kernels

TYPES = {"features": "i32", "count": "i32", "rows": "i32", "row_of": "*i64", "column_of": "*i64", "log_p": "*fp64"}
SIZES = {"SHARE": True, "BLOCK": 256, "COLUMNS": kernels.COLUMNS, "ROWS": kernels.ROWS}
kinds = ("_rows_forward", "_entries_forward", "_rows_backward", "_entries_backward", "_columns_backward")
for kernel in (getattr(kernels, kind) for kind in kinds):
    names = kernel.arg_names
    signature = {n: "constexpr" if n in SIZES else TYPES.get(n, "*fp32") for n in names}
    sizes = {(i,): SIZES[n] for i, n in enumerate(names) if n in SIZES}
    source = ASTSource(fn=kernel, signature=signature, constexprs=sizes)
    assert triton.compile(source, target=GPUTarget("cuda", int(sys.argv[1]), 32)).asm["cubin"]
print("compiled")
"""


def said(code: str, *arguments: str, **environment: str) -> str:
    run = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", code, *arguments],
        capture_output=True,
        text=True,
        env=os.environ | environment,
        check=False,
    )
    assert run.returncode == 0, run.stderr
    return run.stdout.strip()


def test_interpreted_they_agree_with_the_formula():
    assert said(INTERPRETED, TRITON_INTERPRET="1") == "agreed"


@pytest.mark.parametrize("architecture", ["80", "90"])
def test_they_compile_for_devices_that_are_not_here(architecture, tmp_path):
    assert said(COMPILED, architecture, TRITON_CACHE_DIR=str(tmp_path)) == "compiled"


@pytest.mark.gpu
def test_a_device_trusts_them():
    from biovae.distributions.on_gpu import trusted

    if not torch.cuda.is_available():
        pytest.skip("no CUDA device here")
    assert trusted(torch.device("cuda"))
