"""Views: at prediction what an encoder reads is a formula; while training, a worse measurement of the same thing."""

from contextlib import nullcontext

import numpy as np
import pytest
import torch

from biovae.batch import SparseCounts, dense
from biovae.kernels import without_kernels
from biovae.modalities.views import BESIDE, LogCounts, RootCounts, Standardised, thinned
from biovae.noise import Noise

COUNTS = {
    "root": (RootCounts, np.sqrt),
    "log": (LogCounts, np.log1p),
}


@pytest.fixture
def counts():
    return np.random.default_rng(0).poisson(3.0, (40, 30)).astype(np.float32)


@pytest.mark.parametrize("name", COUNTS)
@pytest.mark.parametrize("raw", [False, True])
def test_counts_are_transformed_at_prediction(name, raw, counts):
    kind, transform = COUNTS[name]
    total = counts.sum(1, keepdims=True)
    expected = transform(counts if raw else counts * 1e4 / total)
    view = kind(raw=raw).build(30)
    y = dense(view(SparseCounts.from_dense(torch.from_numpy(counts)), torch.from_numpy(total)))
    np.testing.assert_allclose(y.numpy(), expected, rtol=1e-5)


@pytest.mark.parametrize("name", COUNTS)
def test_training_hides_molecules_and_prediction_does_not(name, counts):
    kind, _ = COUNTS[name]
    x, total = SparseCounts.from_dense(torch.from_numpy(counts)), torch.from_numpy(counts.sum(1, keepdims=True))
    clear, blurred = (dense(kind(thin=0.1).build(30)(x, total, noise)) for noise in (None, Noise(0)))
    assert ((blurred > 0) <= (clear > 0)).all()
    assert (blurred == 0).sum() > (clear == 0).sum()
    assert torch.equal(dense(kind(thin=1).build(30)(x, total, Noise(0))), clear)


@pytest.mark.parametrize("form", [nullcontext, without_kernels])
def test_thinning_keeps_the_share_that_was_asked_for(counts, form):
    x = SparseCounts.from_dense(torch.from_numpy(counts * 100 + 0.25))
    kept = torch.linspace(0.1, 1, 40)
    with form():
        y = thinned(x, kept, Noise(0))
    molecules = x.total()[:, 0]
    off = (y.total()[:, 0] - kept * molecules) / (molecules * kept * (1 - kept)).sqrt().clamp(min=1)
    assert off.abs().max() < 4  # standard errors of a binomial
    assert y.total()[-1, 0] == pytest.approx(float(molecules[-1]), rel=1e-6)


@pytest.mark.parametrize("form", [nullcontext, without_kernels])
def test_depth_has_no_say_in_the_mean_of_a_thinned_share(counts, form):
    x, total = SparseCounts.from_dense(torch.from_numpy(counts * 1000)), torch.from_numpy(counts.sum(1) * 1000)
    kept = torch.full((40,), 0.3)
    with form():
        share = thinned(x, kept, Noise(1)).dense() / (total * kept)[:, None]
    np.testing.assert_allclose(share.mean(0), (counts / counts.sum(1, keepdims=True)).mean(0), rtol=0.03)


@pytest.mark.parametrize(
    ("asked", "alone", "blur"), [(0.0, False, 0.0), (0.5, True, 0.5), (None, True, 0.0), (None, False, BESIDE)]
)
def test_real_numbers_are_blurred_as_asked_and_in_training_only(asked, alone, blur):
    x = torch.from_numpy(np.random.default_rng(0).normal(5, 3, (5000, 4)).astype(np.float32))
    view = Standardised(blur=asked).build(4, alone=alone)
    view.start(x, None)
    y, blurred = view(x, None), view(x, None, Noise(0))
    np.testing.assert_allclose(y.mean(0), 0, atol=1e-4)
    np.testing.assert_allclose(y.std(0), 1, rtol=1e-3)
    assert float((blurred - y).std()) == pytest.approx(blur, rel=0.03)
