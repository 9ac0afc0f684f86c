"""What the pages show runs as it stands."""

import runpy
from pathlib import Path

import numpy as np
import pytest
import torch
from scipy import stats

from biovae.batch import Context
from biovae.datasets import Scenario, Technical, simulate
from biovae.noise import Noise
from biovae.plotting import png

ROOT = Path(__file__).parents[1]
PRACTICE = runpy.run_path(str(ROOT / "docs/practice/make.py"))
SEEDS = [0, pytest.param(1, marks=pytest.mark.slow), pytest.param(2, marks=pytest.mark.slow)]


def blocks(page: str) -> list[str]:
    """The Python of a page, block by block."""
    return PRACTICE["blocks"](ROOT / page)


@pytest.fixture
def contributed() -> dict:
    (block,) = blocks("CONTRIBUTING.md")
    names: dict = {}
    exec(compile(block, "CONTRIBUTING.md", "exec"), names)
    return names


def test_the_contributed_likelihood_is_a_likelihood(contributed):
    x = torch.as_tensor(np.random.default_rng(0).laplace(3, 2, (400, 3)), dtype=torch.float32)
    context = Context(exposure=None, covariates=torch.zeros(400, 0))
    recipe = contributed["LaplaceReals"]()
    likelihood = recipe.build(contributed["Shape"](hidden=4, groups=0, features=3, covariates=0), Noise(0))
    likelihood.start(x, context)

    h = torch.zeros(400, 4)
    p = likelihood(h, context)
    oracle = stats.laplace(np.median(x, 0), likelihood.log_b.detach().exp())
    torch.testing.assert_close(
        p.log_prob(x).detach().double(), torch.as_tensor(oracle.logpdf(x).sum(-1)), rtol=1e-2, atol=1e-2
    )
    torch.testing.assert_close(p.cdf(x).detach().double(), torch.as_tensor(oracle.cdf(x)), rtol=1e-2, atol=1e-2)
    assert abs(float(p.sample(Noise(1)).detach().mean()) - float(np.median(x, 0).mean())) < 0.3


def test_the_scvi_tools_page_runs_as_it_stands():
    adata = simulate(Scenario(technical=Technical(batches=2)), cells=200, genes=40, seed=0)
    names: dict = {"adata": adata}
    for block in blocks("docs/from-scvi-tools.md"):
        exec(compile(block, "docs/from-scvi-tools.md", "exec"), names)
    assert names["expression"].mean.shape == (20, 3)
    assert names["new"].shape == (50, 40)


@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.parametrize("page", PRACTICE["PAGES"], ids=lambda page: page.stem)
def test_practice_holds_what_it_says(page, seed):
    text = page.read_text(encoding="utf-8")
    assert text.count("\nseed = 0\n") == 1
    assert "\nassert " in text
    figure = PRACTICE["run"](page, seed)["figure"]
    assert png(figure, dpi=20).startswith(b"\x89PNG")


def test_practice_has_an_index_and_its_pictures():
    index = (ROOT / "docs/practice/README.md").read_text(encoding="utf-8")
    for page in PRACTICE["PAGES"]:
        assert f"({page.name})" in index
        assert f"](../img/practice/{page.stem}.png)" in page.read_text(encoding="utf-8")
    drawn = {picture.stem for picture in (ROOT / "docs/img/practice").iterdir()}
    assert drawn == {page.stem for page in PRACTICE["PAGES"]}


def test_the_readme_runs_as_it_stands(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    adata = simulate(cells=150, genes=30, seed=0)
    types = adata.obs["cell_type"].astype(str)
    adata.obs["cell_type"] = types.where(types != types.iloc[0], "stem")
    adata.write_h5ad("your.h5ad")
    names: dict = {}
    for block in blocks("README.md"):
        exec(compile(block, "README.md", "exec"), names)
    assert names["adata"].obsm["X_vae"].shape == (150, 10)
    assert (tmp_path / "your.vae" / "manifest.json").exists()
