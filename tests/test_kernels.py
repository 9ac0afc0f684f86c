"""Compiled loops against their plain torch forms, exact laws, and formulas in double precision."""

import os
import subprocess
import sys
from contextlib import nullcontext
from unittest.mock import patch

import numba
import numpy as np
import pytest
import scipy.sparse
import scipy.stats
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch.nn.functional import softplus

from biovae import kernels
from biovae.batch import SparseCounts, SparseMatrix
from biovae.distributions import Affine, Composition, NegativeBinomial, Poisson, ZeroInflatedNegativeBinomial
from biovae.kernels import compiled, full_precision, hidden, kernel_fits, run_kernel, without_kernels
from biovae.kernels.counts import exp, log1p, negative_binomial
from biovae.kernels.draws import uniform
from biovae.kernels.rows import starts, thin
from biovae.kernels.sampling import _searched
from biovae.nn import EPS, MLP, FirstLinear, linear
from biovae.noise import Noise

OBS, FEATURES = 24, 70


def counts(seed: int, density: float = 0.2) -> torch.Tensor:
    rng = np.random.default_rng(seed)
    x = rng.negative_binomial(0.4, 0.05, size=(OBS, FEATURES)) * (rng.random((OBS, FEATURES)) < density)
    return torch.from_numpy(x.astype(np.float32))


def log_mean(logits, exposure, share):
    return exposure.log() + (logits.log_softmax(-1) if share else logits)


def exact_negative_binomial(x, share, logits, exposure, log_r):
    m, r = log_mean(logits, exposure, share), log_r.exp()
    sp = softplus(m - log_r, threshold=40)
    return torch.lgamma(x + r) - torch.lgamma(r) - torch.lgamma(x + 1) + x * (m - log_r - sp) - r * sp


def exact_zero_inflated(x, share, logits, exposure, log_r, gate):
    log_p = exact_negative_binomial(x, share, logits, exposure, log_r)
    return torch.where(x > 0, log_p, torch.logaddexp(gate, log_p)) - softplus(gate, threshold=40)


def exact_poisson(x, share, logits, exposure):
    m = log_mean(logits, exposure, share)
    return x * m - m.exp() - torch.lgamma(x + 1)


EXACT = {
    NegativeBinomial: exact_negative_binomial,
    ZeroInflatedNegativeBinomial: exact_zero_inflated,
    Poisson: exact_poisson,
}


@pytest.mark.parametrize("kind", EXACT)
@given(st.integers(0, 10_000), st.floats(0.1, 6), st.floats(0, 4), st.booleans(), st.sampled_from([(), (2,)]))
def test_scores_and_gradients_of_a_composition(kind, seed, spread, dispersion, share, samples):
    noise, x = Noise(seed), counts(seed)
    x[0, 0], x[1, 1], x[2] = 12_345, 2.5, 0
    logits, gate = (spread * noise.normal(*samples, OBS, FEATURES) - 3 * (not share) for _ in range(2))
    exposure, weight = 100 + 5_000 * noise.uniform(OBS, 1), 0.5 + noise.uniform(OBS)
    others = {NegativeBinomial: 1, ZeroInflatedNegativeBinomial: 2, Poisson: 0}[kind]
    inputs = (logits, exposure, *(dispersion * noise.normal(FEATURES), gate)[:others])
    found, expected = [], []
    for out, precision in ((found, torch.float32), (expected, torch.float64)):
        parts = [part.to(precision).clone().detach().requires_grad_() for part in inputs]
        if precision == torch.float32:
            log_p = kind(Composition(*parts[:2], share=share), *parts[2:]).log_prob(SparseCounts.from_dense(x))
        else:
            log_p = EXACT[kind](x.to(precision), share, *parts).sum(-1)
        (log_p * weight).sum().backward()
        out += [log_p.detach(), *(part.grad for part in parts)]
    for mine, truth in zip(found, expected, strict=True):
        error = (mine.double() - truth).abs().max()
        assert error < 3e-6 * (1 + truth.abs().max()), (error, truth.abs().max())


@pytest.mark.parametrize("full", [True, False], ids=["float32", "bfloat16"])
@pytest.mark.parametrize("weighted", [True, False])
@given(st.integers(0, 10_000), st.booleans(), st.sampled_from([(), (2,)]))
def test_gradients_through_the_map_of_the_logits(full, weighted, seed, share, samples):
    features = 300  # enough for half precision
    noise, rng = Noise(seed), np.random.default_rng(seed)
    x = torch.from_numpy(rng.negative_binomial(0.4, 0.05, size=(OBS, features)) * (rng.random((OBS, features)) < 0.2))
    x[0, 0], x[1] = 12_345, 0
    inputs = [noise.normal(*samples, OBS, 9), noise.normal(features, 9), noise.normal(features) - 3 * (not share)]
    inputs += [100 + 5_000 * noise.uniform(OBS, 1), noise.normal(features)]
    each = 0.5 + noise.uniform(OBS) if weighted else torch.full((OBS,), 0.3)
    found = []
    for precision in (torch.float32, torch.float64):
        parts = [part.to(precision).clone().requires_grad_() for part in inputs]
        with full_precision() if full else patch("biovae.distributions.fused.has_bfloat16", lambda: True):
            mean = Composition(Affine(*parts[:3]), parts[3], share=share)
            log_p = NegativeBinomial(mean, parts[4]).log_prob(SparseCounts.from_dense(x.to(precision)))
            (log_p * each).sum().backward()
        found.append([log_p.detach(), *(part.grad for part in parts)])
    for i, (mine, truth) in enumerate(zip(*found, strict=True)):
        products = i in (1, 2) and not full  # of the gradients only those in h and W are matrix products
        assert (mine - truth).norm() < (1e-2 if products else 1e-5) * (1e-3 + truth.norm())


@pytest.mark.parametrize("share", [True, False])
def test_the_plain_form_agrees_and_scores_alone(share):
    noise, x = Noise(1), SparseCounts.from_dense(counts(1))
    p = NegativeBinomial(
        Composition(noise.normal(OBS, FEATURES), 1 + 100 * noise.uniform(OBS, 1), share=share), noise.normal(FEATURES)
    )
    scored = p.log_prob(x)
    with without_kernels():
        assert not kernel_fits()
        plain = p.log_prob(x)
    torch.testing.assert_close(scored, plain, rtol=1e-5, atol=1e-4)
    assert not (scored == plain).all(), "the two forms round differently; both runs took the same one"


def test_a_second_backward_pass_is_refused():
    logits = Noise(3).normal(OBS, FEATURES).requires_grad_()
    p = NegativeBinomial(Composition(logits, torch.ones(OBS, 1)), torch.zeros(FEATURES))
    loss = p.log_prob(counts(3)).sum()
    loss.backward(retain_graph=True)
    with pytest.raises(RuntimeError, match="inplace"):
        loss.backward()


@pytest.mark.parametrize("poison", [float("nan"), float("inf"), float("-inf")])
def test_what_is_not_finite_is_seen(poison):
    logits = Noise(2).normal(OBS, FEATURES)
    logits[3, 5] = poison
    x = counts(2)
    x[3, 5] = 1
    log_p = NegativeBinomial(Composition(logits, torch.ones(OBS, 1)), torch.zeros(FEATURES)).log_prob(x)
    others = torch.arange(OBS) != 3
    assert not log_p[3].isfinite()
    assert log_p[others].isfinite().all()


def test_exp_and_log1p_to_single_precision():
    x = np.linspace(-87, 88, 20_001, dtype=np.float32)
    np.testing.assert_allclose([exp(v) for v in x], np.exp(x.astype(np.float64)), rtol=3e-7)
    u = np.geomspace(1e-30, 1e37, 20_001).astype(np.float32)
    np.testing.assert_allclose([log1p(v) for v in u], np.log1p(u.astype(np.float64)), rtol=3e-7)


def test_logits_that_are_only_a_bias():
    x, bias = counts(4), Noise(4).normal(FEATURES).requires_grad_()
    empty, exposure = torch.zeros(OBS, 0), torch.full((OBS, 1), 50.0)
    found = NegativeBinomial(
        Composition(Affine(empty, torch.zeros(FEATURES, 0), bias), exposure), torch.zeros(FEATURES)
    )
    plain = NegativeBinomial(Composition(bias.expand(OBS, -1), exposure), torch.zeros(FEATURES))
    scores = [p.log_prob(SparseCounts.from_dense(x)).sum() for p in (found, plain)]
    torch.testing.assert_close(*scores)
    torch.testing.assert_close(*(torch.autograd.grad(score, bias)[0] for score in scores), rtol=1e-4, atol=1e-3)


def test_no_rows_and_no_entries():
    empty = SparseCounts.from_dense(torch.zeros(3, 4))
    p = NegativeBinomial(Composition(torch.zeros(3, 4), torch.full((3, 1), 4.0)), torch.zeros(4))
    torch.testing.assert_close(p.log_prob(empty), torch.full((3,), -4 * np.log(2.0)))
    none = Composition(torch.zeros(0, 4), torch.ones(0, 1))
    assert NegativeBinomial(none, torch.zeros(4)).log_prob(torch.zeros(0, 4)).shape == (0,)


@pytest.mark.parametrize("n", [0, 1, 2, 16, 17, 40, 128, 129, 2_047, 2_048, 200_000])
@pytest.mark.parametrize("p", [0.2, 0.5, 0.97, 1.0])
def test_thinning_has_the_binomial_law(n, p):
    draws, rng = 20_000, np.random.default_rng(n)
    row, value = np.zeros(draws, np.int64), np.full(draws, n, np.float32)
    stays = thin(row, value, np.array([p], np.float32), Noise(n).word())
    assert (stays == stays.round()).all()
    assert 0 <= stays.min() <= stays.max() <= n
    if n == 0 or p == 1:
        assert (stays == n).all()
        return
    # Whole numbers spread over their unit interval: then the law is continuous, and Kolmogorov's test exact.
    at = stays + rng.random(draws)
    law = scipy.stats.binom(n, np.float64(np.float32(p)))
    assert (
        scipy.stats.kstest(at, lambda v: law.cdf(np.floor(v) - 1) + (v - np.floor(v)) * law.pmf(np.floor(v))).pvalue
        > 1e-4
    )


def test_thinning_scales_what_is_not_whole():
    stays = thin(np.zeros(2, np.int64), np.array([0.5, 0], np.float32), np.array([0.4], np.float32), np.uint64(0))
    np.testing.assert_allclose(stays, [0.2, 0])


def test_draws_are_uniform_and_independent():
    u = draws(Noise(0).word(), 200_000)
    assert scipy.stats.kstest(u, "uniform").pvalue > 1e-3
    assert 0 <= u.min() <= u.max() < 1
    others = draws(Noise(1).word(), len(u))
    # Of 200,000 pairs a correlation above 5 / sqrt(200,000) is found once in two million times.
    for lag in (1, 2, 16, 128):
        assert abs(np.corrcoef(u[:-lag], u[lag:])[0, 1]) < 5 / np.sqrt(len(u))
    assert abs(np.corrcoef(u, others)[0, 1]) < 5 / np.sqrt(len(u))


def test_draws_are_those_of_splitmix():
    """The first outputs from the state 1234567, as the reference implementation in C gives them."""
    first = [6457827717110365317, 3203168211198807973, 9817491932198370423, 4593380528125082431, 16408922859458223821]
    expected = [(word >> 40) / 2**24 for word in first]
    np.testing.assert_array_equal(draws(np.uint64(1234567), 6)[1:], expected)


def draws(word: np.uint64, count: int) -> np.ndarray:
    @numba.njit
    def loop(word, count):
        return np.array([uniform(word, k) for k in range(count)])

    return loop(word, count)


@pytest.mark.parametrize("rows", [[0, 0, 2, 2, 2, 5], [], [3], [0] * 9])
def test_where_observations_begin(rows):
    row = np.array(rows, np.int64)
    np.testing.assert_array_equal(starts(row, 7), np.searchsorted(row, np.arange(8)))


LAYERS = ((2, 3), (24, 70), (513, 128))


@pytest.mark.parametrize("shape", LAYERS)
def test_a_hidden_layer_is_batch_norm_and_rectifier(shape):
    noise = Noise(7)
    a, s, t, grad = 3 + 2 * noise.normal(*shape), noise.normal(shape[1]), noise.normal(shape[1]), noise.normal(*shape)
    running = [np.full(shape[1], 0.5, np.float32), np.full(shape[1], 2.0, np.float32)]
    y, mean, inverse = run_kernel(hidden.forward, a, s, t, tuple(running), 0.1, EPS, np.float32(0), np.uint64(0))
    found = run_kernel(hidden.backward, grad, y, a, s, mean, inverse, np.float32(0))

    exact = [part.double().requires_grad_() for part in (a, s, t)]
    learned = [torch.full(shape[1:], value, dtype=torch.float64) for value in (0.5, 2.0)]
    out = torch.nn.functional.batch_norm(exact[0], *learned, exact[1], exact[2], True, 0.1, EPS).relu()
    out.backward(grad.double())
    for mine, truth in ((y, out.detach()), *zip(running, learned, strict=True)):
        torch.testing.assert_close(torch.from_numpy(mine).double(), truth, rtol=1e-5, atol=1e-5)
    for mine, part in zip(found, exact, strict=True):
        bound = 1e-5 * max(1.0, float(part.grad.abs().max()))
        torch.testing.assert_close(torch.from_numpy(mine).double(), part.grad, rtol=1e-4, atol=bound)


def test_a_hidden_layer_shows_what_is_not_a_number():
    body = MLP(hidden=8, dropout=0).build(FEATURES, 0, Noise(0))
    x = Noise(1).normal(6, FEATURES)
    x[2, 3] = torch.nan
    assert body(x, x[:, :0], Noise(2)).isnan().all()


def test_dropout_of_a_hidden_layer():
    body = MLP(hidden=64, dropout=0.25).build(FEATURES, 0, Noise(0))
    x = Noise(1).normal(400, FEATURES)
    kept, again, other = (body(x, x[:, :0], noise) for noise in (Noise(2), Noise(2), Noise(3)))
    whole = body(x, x[:, :0])
    assert torch.equal(kept, again)
    assert not torch.equal(kept, other)
    on = whole > 1e-3
    dropped = (kept == 0) & on
    assert float(dropped.sum() / on.sum()) == pytest.approx(0.25, abs=5 * (0.25 * 0.75 / float(on.sum())) ** 0.5)
    torch.testing.assert_close(kept[on & ~dropped], whole[on & ~dropped] / 0.75)


def test_training_is_the_same_with_and_without_the_loop():
    """One layer, its gradients, and what its normalisation learned, without dropout, which draws otherwise."""
    x, found = Noise(1).normal(50, FEATURES), []
    for context in (nullcontext(), without_kernels()):
        body = MLP(hidden=32, depth=2, dropout=0).build(FEATURES, 0, Noise(0))
        with context:
            body(x, x[:, :0], Noise(2)).square().sum().backward()
        found.append([p.grad for p in body.parameters()] + list(body.buffers()))
    for loop, plain in zip(*found, strict=True):
        torch.testing.assert_close(loop, plain, rtol=1e-4, atol=1e-3)


@pytest.mark.parametrize("kind", [np.float32, np.int32, np.int64])
@pytest.mark.parametrize("width", [70, 40_000])
def test_gathered_rows_are_the_rows(kind, width):
    x = scipy.sparse.random(50, width, 0.1, format="csr", random_state=0)
    x.data = np.ceil(x.data * 40_000).astype(kind) if kind != np.float32 else x.data.astype(kind)
    matrix, index = SparseMatrix.from_scipy(x), torch.tensor([3, 3, 0, 49])
    gathered = matrix.rows(index)
    np.testing.assert_array_equal(gathered.dense(), x[index.numpy()].toarray().astype(np.float32))
    with without_kernels():
        for mine, plain in zip(gathered, matrix.rows(index), strict=True):
            assert mine == plain if isinstance(mine, tuple) else torch.equal(mine, plain)
    assert matrix.rows(index[:0]).shape == (0, width)


@pytest.mark.parametrize("width", [1, 16, 100])
def test_sparse_linear_is_linear(width):
    x = SparseCounts.from_dense(counts(5, density=0.1))
    layer = FirstLinear(linear(FEATURES, width, Noise(0)))
    grad = Noise(1).normal(OBS, width)
    results = []
    for run in (lambda: layer(x), lambda: layer(x.dense())):
        layer.zero_grad()
        h = run()
        (h * grad).sum().backward()
        results.append((h, layer.weight.grad, layer.bias.grad))
    for sparse, dense in zip(*results, strict=True):
        torch.testing.assert_close(sparse, dense, rtol=1e-5, atol=1e-4)


def test_a_first_layer_keeps_torchs_state():
    layer, plain = FirstLinear(linear(5, 3, Noise(0))), linear(5, 3, Noise(0))
    assert {name: value.shape for name, value in layer.state_dict().items()} == {"weight": (3, 5), "bias": (3,)}
    other = FirstLinear(linear(5, 3, Noise(1)))
    other.load_state_dict(plain.state_dict())
    torch.testing.assert_close(other(torch.eye(5)), plain(torch.eye(5)))


def test_the_number_of_threads_is_torchs_and_changes_nothing():
    x, noise = SparseCounts.from_dense(counts(6)), Noise(6)
    entries = tuple(part.numpy() for part in x[:3])
    handed = (noise.normal(OBS, FEATURES), torch.ones(OBS), torch.zeros(FEATURES), torch.ones(OBS), entries, OBS, True)
    before, found = torch.get_num_threads(), []
    try:
        for threads in (1, 2):
            torch.set_num_threads(threads)
            out = torch.zeros(OBS, FEATURES)
            found.append((*run_kernel(negative_binomial, *handed, out), out))
            assert torch.get_num_threads() == threads
    finally:
        torch.set_num_threads(before)
    for one, two in zip(*found, strict=True):
        np.testing.assert_array_equal(one, two)


@pytest.mark.parametrize("missing", ["numba", "a place to keep what was compiled"])
def test_without_numba_or_a_cache_it_works_and_says_so(missing):
    code = {
        "numba": "import sys; sys.modules['numba'] = None",
        "a place to keep what was compiled": "import numba.core.caching as c; c.CacheImpl._locator_classes = []",
    }[missing]
    script = f"""
import warnings
{code}
import torch
from biovae.batch import SparseCounts
from biovae.distributions import Composition, NegativeBinomial
with warnings.catch_warnings(record=True) as caught:
    warnings.simplefilter("always")
    p = NegativeBinomial(Composition(torch.zeros(2, 3), torch.full((2, 1), 3.0)), torch.zeros(3))
    print(float(p.log_prob(SparseCounts.from_dense(torch.zeros(2, 3))).sum()), *(w.message for w in caught))
"""
    out = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True).stdout
    assert float(out.split()[0]) == pytest.approx(-6 * np.log(2))
    assert ("expected numba" in out) == (missing == "numba")


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork on this system")
def test_a_forked_child_takes_the_plain_form():
    script = """
import os, torch
from biovae.distributions import Composition, NegativeBinomial
from biovae.kernels import kernel_fits
p = NegativeBinomial(Composition(torch.zeros(2, 3), torch.full((2, 1), 3.0)), torch.zeros(3))
before = float(p.log_prob(torch.zeros(2, 3)).sum())
child = os.fork()
if not child:
    same = abs(float(p.log_prob(torch.zeros(2, 3)).sum()) - before) < 1e-5
    os._exit(0 if same and not kernel_fits() else 1)
assert kernel_fits()
print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))
"""
    out = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True, timeout=100)
    assert out.stdout.split() == ["0"], out.stderr


@pytest.mark.parametrize(
    ("vector", "matrix", "intel", "expected"),
    [(True, False, False, True), (True, False, True, False), (True, True, True, True), (False, False, False, False)],
)
def test_half_precision_is_taken_where_it_is_faster(monkeypatch, vector, matrix, intel, expected):
    monkeypatch.setattr(torch.cpu, "_is_avx512_bf16_supported", lambda: vector)
    monkeypatch.setattr(torch.cpu, "_is_amx_tile_supported", lambda: matrix)
    monkeypatch.setattr(kernels, "_by_intel", lambda: intel)
    assert kernels.has_bfloat16.__wrapped__() is expected


# draws of counts


@pytest.mark.parametrize("r", [1e-2, 0.5, 3.0, 1e3, np.exp(60.0)])
@pytest.mark.parametrize("mean", [1e-3, 0.3, 4.0, 25.0, 300.0, 1e5])
@pytest.mark.parametrize("loops", [nullcontext, without_kernels], ids=["compiled", "plain"])
def test_draws_follow_the_law_of_scipy(mean, r, loops):
    law = scipy.stats.nbinom(r, r / (r + mean)) if r < 1e6 else scipy.stats.poisson(mean)
    draws = 100_000
    with loops():
        d = NegativeBinomial(torch.full((draws // 10, 10), np.log(mean)), torch.full((10,), np.log(r)))
        x = d.sample(Noise(5)).numpy().ravel()
    edges = np.unique(law.ppf(np.linspace(0.02, 0.98, 30)))
    expected = draws * np.diff(law.cdf(edges), prepend=0.0, append=1.0)
    seen = np.bincount(np.searchsorted(edges, x), minlength=len(edges) + 1)
    kept = expected > 10
    expected, seen = (np.append(v[kept], v[~kept].sum()) for v in (expected, seen))
    assert expected[-1] < 20
    assert abs(seen[-1] - expected[-1]) <= 5 * expected[-1] ** 0.5 + 1
    assert scipy.stats.chisquare(seen[:-1], expected[:-1] * seen[:-1].sum() / expected[:-1].sum()).pvalue > 1e-4


@pytest.mark.parametrize(("mean", "r"), [(30.0, 1.0), (10.0, 0.2), (3.0, 0.01), (3.896, 0.5), (0.5, 1e3)])
@pytest.mark.parametrize("v", [0.9, 0.3, 1e-3, 1e-6, 1e-9, 1e-12])
def test_inversion_gives_the_quantile_into_the_tail(mean, r, v):
    law = scipy.stats.nbinom(r, r / (r + mean))
    mean, r = float(np.float32(mean)), float(np.float32(r))
    if v > law.sf(0):
        return  # zeros do not come to the search
    x = _searched(mean, r, v)
    assert law.sf(x) < v * (1 + 1e-3)
    assert law.sf(x - 1) > v * (1 - 1e-3)


@pytest.mark.parametrize("mean", [1e-8, 2.5e-7, 1e-5])
def test_small_means_are_drawn_as_often_as_they_are(mean):
    d = NegativeBinomial(torch.full((4000, 5000), np.log(mean)), torch.zeros(5000))
    total, expected = 0.0, 2e7 * mean * 20
    for seed in range(20):
        total += float(d.sample(Noise(seed)).sum())
    assert abs(total - expected) < 5 * expected**0.5 + 1


def test_a_draw_depends_on_its_place_alone():
    noise = Noise(1)
    m, log_r = noise.normal(3, 50, 40), noise.normal(40)
    before = torch.get_num_threads()
    try:
        torch.set_num_threads(1)
        one = NegativeBinomial(m, log_r).sample(Noise(2))
        torch.set_num_threads(2)
        two = NegativeBinomial(m, log_r).sample(Noise(2))
    finally:
        torch.set_num_threads(before)
    assert torch.equal(one, two)
    per_entry = NegativeBinomial(m, log_r.expand(3, 50, 40)).sample(Noise(2))
    assert torch.equal(one, per_entry)


def test_a_mean_that_is_no_number_is_no_count():
    with pytest.raises(RuntimeError, match="Poisson"):
        NegativeBinomial(torch.full((2, 3), float("nan")), torch.zeros(3)).sample(Noise(0))


FRESH = """
import hashlib, sys
import numpy as np, torch
from biovae.kernels import counts, run_kernel

torch.set_num_threads(1)
rng = np.random.default_rng(0)
rows, features = 32, 3000
x = rng.poisson(0.3, (rows, features))
row, column = np.nonzero(x)
given = [rng.standard_normal((rows, features)), np.full(rows, 5e3), rng.standard_normal(features), np.ones(rows)]
out = np.empty((rows, features), np.float32)
entries = (row, column, x[row, column].astype(np.float32))
found = run_kernel(counts.negative_binomial, *(a.astype(np.float32) for a in given), entries, rows, True, out)
told = hashlib.sha1(b"".join(np.ascontiguousarray(a).tobytes() for a in (*found, out))).hexdigest()
print(told, sum(counts.negative_binomial.stats.cache_misses.values()))
"""


def test_the_first_process_of_an_installation_gives_the_numbers_of_every_later_one(tmp_path):
    """Compiled in one's own process, the loop rounds differently from what is read from the cache."""
    environment = os.environ | {"NUMBA_CACHE_DIR": str(tmp_path)}
    runs = [
        subprocess.run([sys.executable, "-c", FRESH], env=environment, capture_output=True, text=True, check=True)
        for _ in range(2)
    ]
    first, again = (run.stdout.split() for run in runs)
    assert first == again
    assert first[1] == "0"  # it was read, not compiled
    assert list(tmp_path.rglob("counts.negative_binomial*.nbc"))


def test_a_loop_that_the_helper_cannot_find_is_compiled_here():
    @compiled()
    def double(x):
        return 2 * x

    np.testing.assert_array_equal(run_kernel(double, np.arange(3.0)), [0, 2, 4])
