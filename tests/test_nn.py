"""Bodies and their parts: who counts in a batch norm, how groups pool, where starts come from."""

import pytest
import torch
from pydantic import BaseModel

from biovae.nn import (
    BODIES,
    MLP,
    Additive,
    AnyBody,
    BatchNorm,
    Body,
    Linear,
    Readout,
    dropout,
    linear,
    quieten,
    running_statistics,
)
from biovae.noise import Noise

OBS, INPUTS, HIDDEN, FEATURES = 7, 4, 6, 5
DOUBLE = torch.float64
PRESENT = torch.tensor([True, False, True, True, False, True, True])

CASES = (
    MLP(hidden=HIDDEN),
    MLP(hidden=HIDDEN, depth=3, norm="layer"),
    MLP(hidden=HIDDEN, norm="none", dropout=0),
    MLP(hidden=HIDDEN, skip=True),
    MLP(depth=0, skip=True),
    MLP(depth=0),
    Linear(),
    Additive(hidden=HIDDEN),
    Additive(groups=2, hidden=HIDDEN),
)


class Holder(BaseModel):
    body: AnyBody


def test_the_table_is_complete():
    assert {type(body) for body in CASES} == set(BODIES)


@pytest.mark.parametrize("covariates", [0, 3])
@pytest.mark.parametrize("body", CASES, ids=repr)
def test_a_body_keeps_its_promises(body: Body, covariates: int):
    module = body.build(INPUTS, covariates, Noise(0))
    x, c = Noise(1).normal(2, OBS, INPUTS), Noise(2).normal(OBS, covariates)
    out = module(x, c, Noise(3), PRESENT)
    assert out.shape == (2, OBS, *([module.groups] if module.groups else []), module.width)
    assert out.isfinite().all()
    for w in module.parameters():
        [grad] = torch.autograd.grad(out.square().sum(), w, retain_graph=True)
        assert (grad != 0).any()
    module.eval()
    assert torch.equal(module(x, c), module(x, c))
    assert torch.equal(body.build(INPUTS, covariates, Noise(0))(x, c, Noise(3), PRESENT), out)
    assert Holder.model_validate_json(Holder(body=body).model_dump_json()).body == body


@pytest.mark.parametrize("body", CASES, ids=repr)
def test_building_draws_from_its_noise_alone(body: Body):
    before = torch.random.get_rng_state()
    first, again, other = (body.build(INPUTS, 2, Noise(seed)).state_dict() for seed in (0, 0, 1))
    assert torch.equal(torch.random.get_rng_state(), before)
    assert all(torch.equal(first[name], again[name]) for name in first)
    assert not first or not all(torch.equal(first[name], other[name]) for name in first)


def test_a_skip_passes_the_input_on_as_it_is():
    x, c = Noise(1).normal(2, OBS, INPUTS), Noise(2).normal(OBS, 3)
    for body in (MLP(hidden=HIDDEN, skip=True), MLP(hidden=HIDDEN, depth=2, dropout=0.9, skip=True)):
        module = body.build(INPUTS, 3, Noise(0))
        assert (module.passed, module.width) == (INPUTS, HIDDEN + INPUTS)
        assert torch.equal(module(x, c, Noise(3), PRESENT)[..., -INPUTS:], x)
    assert MLP(depth=0, skip=True).build(INPUTS, 3, Noise(0)).width == INPUTS


def test_a_readout_ignores_at_first_what_is_passed_on():
    readout = Readout(HIDDEN, 0, FEATURES, 0, Noise(0))
    before = readout.map.weight.detach().clone()
    quieten(torch.nn.ModuleList([readout]), 0)
    assert torch.equal(readout.map.weight, before)
    quieten(torch.nn.ModuleList([readout]), 2)
    assert torch.equal(readout.map.weight[:, :-2], before[:, :-2])
    assert (readout.map.weight[:, -2:] == 0).all()


def test_a_linear_layer_starts_as_torch_has_it():
    layer = linear(400, 50, Noise(0))
    bound = 400**-0.5
    for weight in layer.parameters():
        assert weight.abs().max() <= bound
        assert float(weight.detach().std()) == pytest.approx(bound / 3**0.5, rel=0.2)
    assert linear(0, 3, Noise(0))(torch.zeros(2, 0)).shape == (2, 3)


def test_groups_must_divide_the_latent_dimensions():
    with pytest.raises(ValueError, match="divide the 4 latent dimensions, found groups=3"):
        Additive(groups=3).build(INPUTS, 0, Noise(0))


def test_dropout_keeps_the_mean_and_is_off_without_noise():
    x = torch.ones(200, 200)
    dropped = dropout(x, 0.3, Noise(0))
    assert dropped.unique().tolist() == pytest.approx([0, 1 / 0.7])
    assert dropped.mean() == pytest.approx(1, abs=0.02)
    assert dropout(x, 0.3, None) is x
    assert dropout(x, 0.0, Noise(0)) is x


def test_batch_norm_counts_only_the_present():
    norm, x = BatchNorm(INPUTS), Noise(0).normal(OBS, INPUTS) * 3 + 2
    x[~PRESENT] = 1e6
    out = norm(x, PRESENT)
    torch.testing.assert_close(out[PRESENT].mean(0), torch.zeros(INPUTS), atol=1e-5, rtol=0)
    torch.testing.assert_close(out[PRESENT].std(0, correction=0), torch.ones(INPUTS), atol=1e-3, rtol=0)
    assert (out[~PRESENT] == 0).all()
    torch.testing.assert_close(norm.mean, 0.1 * x[PRESENT].mean(0))
    torch.testing.assert_close(norm.variance, 0.9 + 0.1 * x[PRESENT].var(0))
    everybody = BatchNorm(INPUTS)
    torch.testing.assert_close(everybody(x[PRESENT]), out[PRESENT])


def test_a_single_carrier_trains_on_what_was_learned():
    norm, x = BatchNorm(INPUTS), Noise(0).normal(OBS, INPUTS)
    norm(x)
    learned = norm.mean.clone(), norm.variance.clone()
    alone = torch.arange(OBS) == 3
    out = norm(x, alone)
    torch.testing.assert_close(out[3], (x[3] - norm.mean) / (norm.variance + 1e-3).sqrt())
    assert torch.equal(norm.mean, learned[0])
    assert torch.equal(norm.variance, learned[1])
    out.sum().backward()
    assert all(w.grad.isfinite().all() for w in norm.parameters())
    assert norm(x, torch.zeros(OBS, dtype=torch.bool)).isfinite().all()


def test_running_statistics_hold_inside_and_go_back_after():
    body = MLP(hidden=HIDDEN, depth=2).build(INPUTS, 0, Noise(0))
    body.norms[1].eval()
    before = {name: value.clone() for name, value in body.state_dict().items()}
    x, c = Noise(1).normal(OBS, INPUTS), torch.zeros(OBS, 0)
    with running_statistics(body):
        inside = body(x, c)
    assert all(torch.equal(value, before[name]) for name, value in body.state_dict().items())
    assert [norm.training for norm in body.norms] == [True, False]
    torch.testing.assert_close(inside, body.eval()(x, c))


@pytest.mark.parametrize("samples", [(), (3,)], ids=str)
@pytest.mark.parametrize("scale", [1.0, 300.0])
def test_pooled_groups_are_a_logsumexp_and_so_are_their_gradients(samples, scale):
    groups, noise = 5, Noise(0)
    readout = Readout(HIDDEN, groups, FEATURES, 2, noise).double()
    h = (scale * noise.normal(*samples, OBS, groups, HIDDEN, dtype=DOUBLE)).requires_grad_()
    c, weight = noise.normal(OBS, 2, dtype=DOUBLE), readout.map.weight
    dense = torch.logsumexp(h @ weight.T, -2) - torch.tensor(groups, dtype=DOUBLE).log() + readout.map.bias
    pooled = readout(h, c)
    torch.testing.assert_close(pooled, dense)
    cotangent = noise.normal(*pooled.shape, dtype=DOUBLE)
    ours = torch.autograd.grad(pooled, (h, weight), cotangent)
    theirs = torch.autograd.grad(dense, (h, weight), cotangent)
    torch.testing.assert_close(ours, theirs)


def test_equal_groups_pool_to_one_of_them():
    noise = Noise(0)
    readout, h, c = Readout(HIDDEN, 4, FEATURES, 0, noise), noise.normal(OBS, 1, HIDDEN), torch.zeros(OBS, 0)
    torch.testing.assert_close(readout(h.expand(OBS, 4, HIDDEN), c), readout.map(h[:, 0]))


def test_covariates_enter_the_readout_as_an_offset():
    noise = Noise(0)
    readout, h, c = Readout(HIDDEN, 0, FEATURES, 2, noise), noise.normal(OBS, HIDDEN), noise.normal(OBS, 2)
    torch.nn.init.constant_(readout.side, 2.0)
    torch.testing.assert_close(readout(h, c), readout.map(h) + 2 * c.sum(1, keepdim=True))
