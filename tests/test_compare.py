"""Which model to take: rules on scores drawn by hand, floors against closed forms, fits on cells that are known."""

import operator
from functools import partial
from typing import ClassVar, Literal

import anndata as ad
import numpy as np
import pandas as pd
import pytest
import torch
from scipy.stats import multivariate_normal, nbinom

import biovae as bv
from biovae.analysis import choose, log_normalise, pca, pca_counts, pca_reals
from biovae.analysis.models.comparison import profile
from biovae.datasets import scenarios, simulate
from biovae.distributions import NegativeBinomial
from biovae.errors import InputError, Interrupted
from biovae.likelihoods import Likelihood, LikelihoodModule, LogMean
from biovae.model.several import several
from biovae.schema import Support

OBS = 400


def scores(seed: int = 0, **shift: float) -> pd.DataFrame:
    """Scores that share what makes an observation hard, so that only pairs can tell them apart."""
    rng = np.random.default_rng(seed)
    hard = -300 + 40 * np.random.default_rng(99).normal(size=OBS)
    return pd.DataFrame({name: hard + value + rng.normal(size=OBS) for name, value in shift.items()})


def about(**parameters: float) -> pd.DataFrame:
    return pd.DataFrame(
        {"latent": 10, "parameters": parameters, "pit": 0.02, "seconds": 5.0}, index=[*parameters]
    )  # fmt: skip


# rules


def test_differences_are_paired():
    given = scores(nb=0.0, poisson=-5.0)
    row = choose([given], about(nb=100, poisson=90)).frame.set_index("name").loc["poisson"]
    behind = given["poisson"] - given["nb"]
    assert row["difference"] == pytest.approx(behind.mean())
    assert row["difference_se"] == pytest.approx(behind.std(ddof=1) / np.sqrt(OBS))
    assert row["se"] == pytest.approx(given["poisson"].std(ddof=1) / np.sqrt(OBS))
    assert row["se"] > 10 * row["difference_se"]


def test_the_best_is_taken_and_a_smaller_one_that_is_as_good_is_named():
    found = choose(
        [scores(nb=0.0, small=-0.05, large=-0.04, poisson=-9.0)], about(nb=200, small=100, large=300, poisson=90)
    )
    assert (found.best, found.alike) == ("nb", ("small", "large"))
    said = str(found)
    assert said.startswith("Take nb: ")
    assert "and smaller: small (" in said
    assert "100 parameters instead of 200" in said
    assert "and no smaller: large (" in said
    assert "Behind: poisson (-8.9" in said
    assert "repeat with several seeds" in said


def test_floors_that_are_beaten_are_said_and_those_that_are_not_come_first():
    given = scores(nb=0.0)
    beaten = choose([given], about(nb=100), pd.DataFrame({"PCA": given["nb"] - 30}))
    assert beaten.floors == ()
    assert "Without a network: PCA (-30.0" in str(beaten)
    even = scores(seed=5, PCA=0.0)
    found = choose([given], about(nb=100), even)
    assert found.floors == ("PCA",)
    assert str(found).startswith("No candidate predicts better than PCA")
    better = str(choose([given], about(nb=100), even + 20))
    assert "20" in better.splitlines()[0]
    assert "behind" in better.splitlines()[0]


def test_the_spread_of_seeds_is_in_the_errors():
    each = [scores(seed, nb=shift, poisson=-3.0) for seed, shift in enumerate((-4.0, 0.0, 4.0))]
    found = choose(each, about(nb=100, poisson=90))
    behind = [frame["poisson"].mean() - frame["nb"].mean() for frame in each]
    pooled = (sum(frame["poisson"] - frame["nb"] for frame in each) / 3).sem()
    row = found.frame.set_index("name").loc["poisson"]
    assert row["difference_se"] == pytest.approx(np.hypot(np.std(behind, ddof=1) / np.sqrt(3), pooled))
    assert found.alike == ("poisson",)
    assert choose(each[:1], about(nb=100, poisson=90)).best == "poisson"
    assert "Means of 3 seeds" in str(found)


def test_an_uneven_calibration_is_said():
    rows = about(nb=100).assign(pit=0.2)
    assert "0.200 from uniform (0.05 and more is worth a look)" in str(choose([scores(nb=0.0)], rows))


@pytest.mark.parametrize(
    ("given", "rows", "message"),
    [
        ([], about(nb=1), "fewer"),
        ([scores(nb=0.0).head(1)], about(nb=1), "fewer"),
        ([scores(nb=np.nan)], about(nb=1), "finite"),
        ([scores(nb=0.0)], about(nb=1).drop(columns="pit"), "pit"),
    ],
)
def test_scores_that_cannot_be_ranked_are_refused(given, rows, message):
    with pytest.raises(InputError, match=message):
        choose(given, rows)


# floors


def test_pca_of_counts_is_a_negative_binomial_around_its_line():
    rng = np.random.default_rng(0)
    cells, genes = 300, 12
    z = rng.normal(size=(cells, 2))
    share = np.exp(z @ rng.normal(size=(2, genes)))
    share /= share.sum(1, keepdims=True)
    exposure = rng.uniform(200, 600, cells)
    counts = rng.poisson(exposure[:, None] * share * rng.gamma(4, 1 / 4, (cells, genes)))
    train, rows = np.arange(cells) < 240, np.arange(240, cells)
    base = pca(log_normalise(counts, exposure), 2, 0, train)
    found = pca_counts(counts, exposure, (train, rows), base)
    composition = counts[train].sum(0) / exposure[train].sum()
    candidates = []
    for mixed in (0.001, 0.003, 0.01, 0.03, 0.1, 0.3):
        mean = exposure[:, None] * profile(base.reconstruct(), composition, mixed)
        excess = ((counts - mean) ** 2 - mean)[train].sum(0) / (mean**2)[train].sum(0)
        r = 1 / np.clip(excess, 1e-3, 100)
        each = nbinom.logpmf(counts, r, r / (r + mean)).sum(1)
        candidates.append((each[train].sum(), each[rows]))
    np.testing.assert_allclose(found, max(candidates, key=lambda pair: pair[0])[1], rtol=1e-6)


def test_pca_of_reals_is_the_density_it_stands_for():
    rng = np.random.default_rng(0)
    x = rng.normal(size=(200, 3)) @ rng.normal(size=(3, 3)) * np.array([1.0, 10.0, 0.1]) + 5
    train = np.arange(200) < 150
    mean, spread = x[train].mean(0), x[train].std(0)
    y = (x - mean) / spread
    value, vector = np.linalg.eigh(np.cov(y[train].T))
    noise = value[:2].mean()
    covariance = noise * np.eye(3) + (value[2] - noise) * np.outer(vector[:, 2], vector[:, 2])
    oracle = multivariate_normal(np.zeros(3), covariance).logpdf(y[~train]) - np.log(spread).sum()
    np.testing.assert_allclose(pca_reals(x, (train, np.flatnonzero(~train)), 1), oracle, rtol=1e-6)


# fits


class Geometric(Likelihood):
    """Counts as a user might write them: negative binomial with one success, so that nothing is learned of spread."""

    kind: Literal["geometric"] = "geometric"
    support: ClassVar[Support] = Support.COUNTS

    def build(self, shape, noise):
        return _Geometric(shape, noise)


class _Geometric(LikelihoodModule):
    def __init__(self, shape, noise):
        super().__init__()
        self.log_mean = LogMean(shape, noise)
        self.register_buffer("log_r", torch.zeros(shape.features))

    def forward(self, h, context):
        return NegativeBinomial(self.log_mean(h, context), self.log_r)

    def start(self, x, context):
        self.log_mean.start(x, context)


@pytest.fixture(scope="module")
def cells():
    return simulate(scenarios.TYPES.but(technical={"library": 800.0}), cells=300, genes=60, seed=0)


@pytest.fixture(scope="module")
def vae():
    return bv.VAE(bv.rna(), covariates=["batch"], latent=3, hidden=16)


@pytest.fixture(scope="module")
def found(vae, cells):
    return bv.tl.compare(vae, cells, ("poisson", "negative_binomial", Geometric()), epochs=15, progress=False)


def test_likelihoods_are_ranked_on_one_scale_a_users_own_among_them(found, vae):
    frame = found.frame
    assert set(frame["name"][~frame["floor"]]) == {"poisson", "negative_binomial", "geometric"}
    assert list(frame["name"][frame["floor"]]) in (["PCA, 3 components", "no z"], ["no z", "PCA, 3 components"])
    assert found.best != "poisson"  # few passes: how the two with a spread stand to each other is a matter of luck
    assert frame["mean"].is_monotonic_decreasing
    assert frame.set_index("name").loc[found.best, "difference"] == 0
    fits = frame[~frame["floor"]].set_index("name")
    assert (fits[["se", "seconds", "parameters"]] > 0).all(None)
    assert fits["pit"].between(0, 1).all()
    assert fits.loc["negative_binomial", "parameters"] == fits.loc["poisson", "parameters"] + 60
    assert "not fitted" in repr(vae)


def test_sizes_of_one_model_are_named_by_their_size(vae, cells):
    found = bv.tl.compare(vae, cells, ["poisson"], (2, 4), epochs=2, progress=False)
    frame = found.frame[~found.frame["floor"]].set_index("name")
    assert dict(frame["latent"]) == {"latent 2": 2, "latent 4": 4}
    assert frame.loc["latent 4", "parameters"] > frame.loc["latent 2", "parameters"]


def test_dispersions_of_one_kind_are_told_apart(vae, cells):
    both = (bv.NegativeBinomialCounts(), bv.NegativeBinomialCounts(dispersion="batch"))
    found = bv.tl.compare(vae, cells, both, epochs=2, progress=False)
    names = set(found.frame["name"][~found.frame["floor"]])
    assert names == {"negative_binomial", "negative_binomial (dispersion batch)"}


def test_models_of_ones_own_are_compared_by_name_and_left_alone(cells):
    with_batch = bv.VAE(bv.rna(), covariates=["batch"], latent=2, hidden=8)
    without = bv.VAE(bv.rna(decoder="linear"), latent=3, hidden=8, prior="gaussian_mixture")
    found = bv.tl.compare({"batch": with_batch, "linear": without}, cells, epochs=3, progress=False)
    assert set(found.frame["name"][~found.frame["floor"]]) == {"batch", "linear"}
    assert "not fitted" in repr(with_batch)


def test_reals_are_compared_by_their_bound(cells):
    table = cells[:, :20].copy()
    table.X = np.log1p(table.X.toarray())
    vae = bv.VAE(bv.continuous(), latent=2, hidden=16)
    wide = bv.FixedGaussian(variance=25.0)
    found = bv.tl.compare(vae, table, (bv.Gaussian(), wide), epochs=15, progress=False)
    assert "importance-weighted" in found.scored
    assert found.best == "gaussian"
    assert "PCA, 2 components" in set(found.frame["name"])


def test_several_seeds_give_one_row_each(vae, cells):
    found = bv.tl.compare(vae, cells, ["poisson"], seeds=(0, 1), epochs=2, progress=False)
    assert found.seeds == 2
    assert len(found.frame) == 3


def test_side_by_side_is_the_same_as_in_turn(vae, cells):
    common = ["poisson", "negative_binomial"]
    before = torch.get_num_threads()
    torch.set_num_threads(1)  # as each worker has: two threads sum in another order
    try:
        found = [bv.tl.compare(vae, cells, common, epochs=15, workers=n, progress=False) for n in (1, 2)]
    finally:
        torch.set_num_threads(before)
    one, other = (f.frame.set_index("name").loc[common, "mean"] for f in found)
    np.testing.assert_allclose(one, other, rtol=1e-5)


WRONG = {
    "mixture": (lambda vae: ({"a": vae}, ["poisson"]), "one or the other"),
    "no models": (lambda vae: ({}, None), "models by name"),
    "other features": (lambda vae: ({"a": vae, "b": bv.VAE(bv.rna(features=10), latent=2)}, None), "same features"),
    "reals among counts": (
        lambda vae: ({"a": vae, "b": bv.VAE(bv.continuous(name="rna"), latent=2)}, None),
        "same features",
    ),
    "a likelihood of reals": (lambda vae: (vae, ["poisson", bv.Gaussian()]), "scores reals"),
    "two modalities": (lambda vae: (bv.VAE(bv.rna(), bv.rna(name="b"), latent=2), None), "one modality"),
    "nothing to vary": (lambda vae: (vae, []), "one likelihood"),
}


@pytest.mark.parametrize(("make", "message"), WRONG.values(), ids=WRONG.keys())
def test_what_cannot_be_compared_is_refused_before_anything_is_fitted(make, message, vae, cells):
    models, likelihoods = make(vae)
    with pytest.raises(InputError, match=message):
        bv.tl.compare(models, cells, likelihoods, progress=False)


def test_a_variant_keeps_parts_that_nobody_knows():
    vae = bv.VAE(bv.rna(likelihood=Geometric()), latent=2)
    assert vae.variant(beta=3.0).modalities[0].likelihood == Geometric()
    with pytest.raises(ValueError, match="greater than or equal"):
        vae.variant(beta=-1.0)


# several fits


def test_what_was_done_before_an_interruption_is_kept(capsys):
    jobs = {"one": 1, "two": 2, "three": None, "four": 4}
    assert dict(several(lambda job: job, jobs, again=lambda: None)) == {1: 1, 2: 2}
    assert "interrupted: 2 of 4 fits" in capsys.readouterr().err
    with pytest.raises(Interrupted, match="nothing to keep"):
        dict(several(lambda job: None, jobs, again=lambda: None))

    def stopped(job):
        if job == 2:
            raise KeyboardInterrupt
        return job

    assert dict(several(stopped, jobs, again=lambda: None, progress=False)) == {1: 1}


def test_processes_do_the_work_that_they_make():
    triple = partial(partial, operator.mul, 3)
    jobs = {str(i): i for i in range(1, 6)}
    assert dict(several(triple(), jobs, again=triple, workers=2, progress=False)) == {i: 3 * i for i in range(1, 6)}
    with pytest.raises(InputError, match="workers=1"):
        dict(several(triple(), jobs, again=partial(operator.truediv, 1, 0), workers=2, progress=False))
    with pytest.raises(InputError, match="1 worker"):
        dict(several(triple(), jobs, again=triple, workers=0))


# science


@pytest.mark.slow
@pytest.mark.parametrize("seed", [0, 1, 2])
def test_the_truth_of_a_simulation_is_found(seed):
    spread = scenarios.TYPES.but(technical={"library": 1500.0})
    alike = spread.but(programmes={"dispersion": 0.0})
    vae = bv.VAE(bv.rna(), covariates=["batch"])
    both = ("negative_binomial", "poisson")
    overdispersed = bv.tl.compare(vae, simulate(spread, cells=1000, genes=500, seed=seed), both, progress=False)
    row = overdispersed.frame.set_index("name").loc["poisson"]
    assert row["difference"] < -5 * row["difference_se"]
    assert overdispersed.floors == ()
    poisson = bv.tl.compare(vae, simulate(alike, cells=1000, genes=500, seed=seed), both, progress=False)
    assert poisson.best == "poisson" or "poisson" in poisson.alike


@pytest.mark.slow
@pytest.mark.parametrize("name", ["pbmc3k_hvg2000.h5ad", "kang_ifnb_pbmc.h5ad"])
def test_overdispersed_counts_prefer_the_negative_binomial(name, real):
    found = bv.tl.compare(bv.VAE(bv.rna(features=2000)), ad.read_h5ad(real(name)), epochs=40, progress=False)
    mean = found.frame.set_index("name")["mean"]
    for better in ("negative_binomial", "zero_inflated_negative_binomial"):
        for worse in ("poisson", "log1p_gaussian", "no z", "PCA, 10 components"):
            assert mean[better] > mean[worse]
