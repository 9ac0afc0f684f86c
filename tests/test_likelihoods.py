"""One table of likelihoods, one set of promises that each row must keep."""

from typing import NamedTuple

import numpy as np
import pytest
import torch
from pydantic import BaseModel
from torch import Tensor

from biovae.batch import Context, SparseCounts
from biovae.errors import ModelFileError
from biovae.likelihoods import (
    LIKELIHOODS,
    AnyLikelihood,
    BernoulliBinary,
    CategoricalLevels,
    FixedGaussian,
    Gaussian,
    Likelihood,
    Log1pGaussian,
    NegativeBinomialCounts,
    PoissonCounts,
    Shape,
    ZeroInflatedNegativeBinomialCounts,
)
from biovae.noise import Noise
from biovae.schema import Support

OBS, FEATURES, HIDDEN, COVARIATES, LEVELS = 60, 6, 5, 3, 4


class Case(NamedTuple):
    """A recipe, and how the shape it is built on departs from the plain one."""

    recipe: Likelihood
    shape: dict = {}


PLAIN = (
    Case(PoissonCounts()),
    Case(NegativeBinomialCounts()),
    Case(ZeroInflatedNegativeBinomialCounts()),
    Case(Gaussian()),
    Case(FixedGaussian(variance=0.5)),
    Case(Log1pGaussian()),
    Case(BernoulliBinary()),
    Case(CategoricalLevels(levels=LEVELS)),
)
CASES = (
    *PLAIN,
    *(Case(recipe, {"groups": 3}) for recipe, _ in PLAIN),
    Case(PoissonCounts(), {"composition": False}),
    Case(NegativeBinomialCounts(), {"composition": False}),
    Case(NegativeBinomialCounts(dispersion="observation")),
    Case(NegativeBinomialCounts(dispersion="observation"), {"groups": 3}),
    Case(NegativeBinomialCounts(dispersion="batch"), {"levels": slice(0, 2)}),
    Case(ZeroInflatedNegativeBinomialCounts(dispersion="observation")),
    Case(ZeroInflatedNegativeBinomialCounts(dispersion="batch"), {"levels": slice(0, 2)}),
    Case(Gaussian(variance="observation")),
    Case(Log1pGaussian(variance="observation")),
)
ids = [f"{c.recipe.kind}-{getattr(c.recipe, 'dispersion', '')}-{c.shape}" for c in CASES]
every_case = pytest.mark.parametrize("case", CASES, ids=ids)
every_plain = pytest.mark.parametrize("case", PLAIN, ids=[c.recipe.kind for c in PLAIN])


def build(case: Case, **changes) -> torch.nn.Module:
    plain = {"hidden": HIDDEN, "groups": 0, "features": FEATURES, "covariates": COVARIATES}
    return case.recipe.build(Shape(**(plain | case.shape | changes)), Noise(0))


def dense(support: Support) -> Tensor:
    """Data of a kind, every feature with frequencies of its own."""
    noise, ramp = Noise(1), torch.arange(1.0, FEATURES + 1)
    if support is Support.COUNTS:
        return torch.poisson((ramp * torch.ones(OBS, 1)).double(), generator=noise.generator).float() + 1
    if support is Support.BINARY:
        return (noise.uniform(OBS, FEATURES) < ramp / 8).float()
    if support is Support.CATEGORIES:
        return (noise.uniform(OBS, FEATURES) ** 2 * LEVELS).floor()
    return ramp + noise.normal(OBS, FEATURES) * ramp


def observed(support: Support, covariates: int = COVARIATES) -> tuple[Tensor | SparseCounts, Context]:
    """The same as a likelihood gets it; two one-hot columns and a continuous one."""
    x = dense(support)
    batch = torch.arange(OBS) % 2
    c = torch.cat([torch.nn.functional.one_hot(batch, 2).float(), Noise(2).normal(OBS, 1)], 1)[:, :covariates]
    sparse = support in (Support.COUNTS, Support.BINARY)
    exposure = x.sum(1, keepdim=True) if support is Support.COUNTS else None
    return SparseCounts.from_dense(x) if sparse else x, Context(exposure, c)


def features(case: Case, *samples: int, obs: int = OBS) -> Tensor:
    groups = case.shape.get("groups", 0)
    return Noise(3).normal(*samples, obs, *([groups] if groups else []), HIDDEN)


def test_the_table_is_complete():
    assert {type(case.recipe) for case in PLAIN} == set(LIKELIHOODS)


@every_case
def test_every_parameter_learns(case):
    module, (x, context) = build(case), observed(case.recipe.support)
    module.start(x, context)
    score = module(features(case, 2), context).log_prob(x)
    assert score.shape == (2, OBS)
    assert score.isfinite().all()
    score.sum().backward()
    learns = {n: bool((w.grad.isfinite() & (w.grad != 0)).any()) for n, w in module.named_parameters() if w.numel()}
    assert all(learns.values()), learns


@every_plain
def test_it_starts_at_the_frequencies_of_the_data(case):
    module, (x, context) = build(case, covariates=0), observed(case.recipe.support, covariates=0)
    module.start(x, context)
    p = module(torch.zeros(OBS, HIDDEN), context)
    seen = dense(case.recipe.support)
    if case.recipe.support is Support.CATEGORIES:
        share = torch.nn.functional.one_hot(seen.long(), LEVELS).float().mean(0)
        torch.testing.assert_close(p.logits.softmax(-1)[0], share, atol=0.01, rtol=0)
    elif isinstance(case.recipe, Log1pGaussian):
        torch.testing.assert_close(p.mean.mean(0), seen.mean(0), atol=0, rtol=0.3)  # the mean of logs was matched
    else:
        gate = 1 - torch.sigmoid(torch.tensor(-3.0)) if "zero_inflated" in case.recipe.kind else 1
        torch.testing.assert_close(p.mean.mean(0) / gate, seen.mean(0), atol=0.02, rtol=0.02)


@pytest.mark.parametrize("case", [c for c in PLAIN if c.recipe.kind in ("poisson", "negative_binomial")], ids=repr)
def test_it_starts_at_the_frequencies_of_each_level(case):
    _, context = observed(Support.COUNTS, covariates=2)
    shifted = dense(Support.COUNTS)
    shifted[::2, 0] *= 20
    x, context = SparseCounts.from_dense(shifted), context._replace(exposure=shifted.sum(1, keepdim=True))
    module = build(case, covariates=2)
    module.start(x, context)
    mean = module(torch.zeros(OBS, HIDDEN), context).mean
    for rows in (slice(0, None, 2), slice(1, None, 2)):
        torch.testing.assert_close(mean[rows].mean(0), shifted[rows].mean(0), rtol=0.15, atol=0.1)


@every_case
def test_samples_have_the_stated_mean_and_the_support(case):
    module, (x, context) = build(case), observed(case.recipe.support)
    module.start(x, context)
    few = Context(None if context.exposure is None else context.exposure[:3], context.covariates[:3])
    p = module(features(case, 4_000, obs=3)[:1].expand(4_000, *features(case, obs=3).shape), few)
    draws = p.sample(Noise(4))
    assert draws.shape == (4_000, 3, FEATURES)
    if case.recipe.support is not Support.REALS:
        assert ((draws >= 0) & (draws == draws.round())).all()
    if case.recipe.support is Support.BINARY:
        assert (draws <= 1).all()
    error = draws.double().std(0) / 4_000**0.5 + 1e-3
    assert ((draws.double().mean(0) - p.mean[0].double()).abs() < 5 * error).all()


def test_without_composition_the_mean_is_exposure_times_a_rate():
    _, context = observed(Support.COUNTS)
    for composition in (True, False):
        case = Case(PoissonCounts(), {"composition": composition})
        mean = build(case)(features(case), context).mean
        doubled = build(case)(features(case), context._replace(exposure=2 * context.exposure)).mean
        torch.testing.assert_close(doubled, 2 * mean)
        sums = torch.isclose(mean.sum(1, keepdim=True), context.exposure, rtol=1e-4)
        assert bool(sums.all()) == composition


class Holder(BaseModel):
    likelihood: AnyLikelihood


@every_case
def test_json_brings_back_the_recipe(case):
    text = Holder(likelihood=case.recipe).model_dump_json()
    assert Holder.model_validate_json(text).likelihood == case.recipe


def test_an_unknown_kind_is_refused_with_the_closest_names():
    with pytest.raises(ModelFileError, match="'poison'.*poisson"):
        Holder.model_validate({"likelihood": {"kind": "poison"}})
    with pytest.raises(ValueError, match="Extra inputs"):
        Holder.model_validate({"likelihood": {"kind": "poisson", "rate": 3}})


def test_nothing_is_made_of_a_feature_that_never_varied():
    x = torch.from_numpy(np.random.default_rng(0).standard_normal((50, 3))).float()
    x[:, 1] = 2.0
    module = Gaussian().build(Shape(hidden=4, groups=0, features=3, covariates=0), Noise(0))
    context = Context(None, torch.zeros(50, 0))
    module.start(x, context)
    with torch.no_grad():
        module.log_scale.base.fill_(-7.0)
    p = module(torch.randn(50, 4), context)
    assert (p.mean[:, 1] == 2).all()
    assert (p.variance[..., 1] == 1).all()
    assert (p.variance[..., [0, 2]] < 1e-5).all()


@pytest.mark.parametrize(
    "case",
    [case for case in PLAIN if case.recipe.kind not in ("zero_inflated_negative_binomial", "log1p_gaussian")],
    ids=lambda case: case.recipe.kind,
)
def test_what_an_observation_tells_is_fishers_information(case):
    rows, outputs = 20_000, FEATURES * getattr(case.recipe, "levels", 1)
    module = build(case, covariates=0, hidden=outputs, composition=False)
    layer = getattr(module, "log_mean", module).readout
    with torch.no_grad():
        layer.map.weight.copy_(torch.eye(outputs))  # so that the outputs are h, and can be differentiated by
        layer.map.bias.zero_()
    h = Noise(4).normal(1, outputs).repeat(rows, 1).requires_grad_()
    counts = case.recipe.support is Support.COUNTS
    p = module(h, Context(torch.full((rows, 1), 3.0) if counts else None, torch.zeros(rows, 0)))
    x = p.sample(Noise(5)).detach()
    sparse = case.recipe.support in (Support.COUNTS, Support.BINARY)
    score = torch.autograd.grad(p.log_prob(SparseCounts.from_dense(x) if sparse else x).sum(), h)[0]
    told = module.last(p)
    assert told.readout is layer
    torch.testing.assert_close(told.information[0].detach(), score.square().mean(0), rtol=0.1, atol=1e-3)
