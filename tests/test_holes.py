"""Density, passes, plausibility and paths against closed forms, scipy, and surfaces whose geodesics are known."""

from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
import scipy.sparse
from scipy import optimize, stats

from biovae.analysis import (
    Binary,
    Counts,
    Decoder,
    Density,
    Holes,
    Metric,
    Reals,
    among_fits,
    density,
    distances,
    exclusive_pairs,
    geodesic,
    holes,
    judge,
    prior_support,
    rise,
    straight,
    switches,
)
from biovae.analysis.space.density import tail
from biovae.analysis.space.route import edges, equal_steps
from biovae.errors import InputError


def mixture(seed=0, obs=300, latent=3):
    """Means and variances of components, and the same mixture as scipy knows it."""
    rng = np.random.default_rng(seed)
    mean, variance = rng.standard_normal((obs, latent)), rng.uniform(0.05, 0.6, (obs, latent))
    parts = [stats.multivariate_normal(m, np.diag(v)) for m, v in zip(mean, variance, strict=True)]
    return mean, variance, lambda z: np.log(np.mean([p.pdf(z) for p in parts], axis=0))


def two_types(seed=0, each=400, apart=4.0, latent=2, spread=0.5, kernel=0.3):
    """Posterior means around two centres, their variances, and the label of each."""
    rng = np.random.default_rng(seed)
    centre = np.zeros((2, latent))
    centre[:, 0] = -apart / 2, apart / 2
    label = np.repeat([0, 1], each)
    mean = centre[label] + spread * rng.standard_normal((2 * each, latent))
    return mean, np.full(mean.shape, kernel**2), np.array(["left", "right"])[label]


# density


def test_density_is_the_mixture_that_scipy_knows():
    mean, variance, truth = mixture()
    z = np.random.default_rng(1).normal(0, 1.5, (40, 3))
    np.testing.assert_allclose(Density(mean, variance).log_density(z), truth(z), rtol=1e-9)


def test_an_observation_can_be_left_out():
    mean, variance, _ = mixture(obs=50)
    q, rest = Density(mean, variance), Density(mean[1:], variance[1:])
    np.testing.assert_allclose(q.log_density(mean[:1], np.array([0])), rest.log_density(mean[:1]), rtol=1e-9)


def test_gradient_is_that_of_finite_differences():
    mean, variance, truth = mixture()
    z = np.array([[0.3, -0.2, 0.9], [2.5, 1.0, -1.0]])
    for point, gradient in zip(z, Density(mean, variance).gradient(z), strict=True):
        expected = optimize.approx_fprime(point, lambda at: float(truth(at)), 1e-6)
        np.testing.assert_allclose(gradient, expected, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("latent", [2, 10])
def test_many_components_are_as_good_as_summed_one_by_one(latent):
    rng = np.random.default_rng(0)
    obs = 30_000
    mean = rng.standard_normal((obs, latent))
    mean[: obs // 2, 0] += 4
    variance = rng.uniform(0.1, 0.3, (obs, latent))
    z = np.concatenate([mean[:50] + 0.3 * rng.standard_normal((50, latent)), rng.normal(0, 2.5, (50, latent))])
    terms = -0.5 * (
        ((z[:, None] - mean) ** 2 / variance).sum(-1) + np.log(2 * np.pi * variance).sum(-1)
    )  # every one of them
    exact = np.logaddexp.reduce(terms, axis=1) - np.log(obs)
    q = Density(mean, variance)
    error = q.log_density(z) - exact
    assert np.abs(error).max() < 0.25
    assert abs(error.mean()) < 0.02
    weight = np.exp(terms - np.logaddexp.reduce(terms, axis=1)[:, None])
    gradient = np.einsum("po,pol->pl", weight, (mean - z[:, None]) / variance)
    np.testing.assert_allclose(q.gradient(z), gradient, atol=0.1 * np.abs(gradient).max())
    left = q.log_density(mean[:20], np.arange(20))
    own = -0.5 * np.log(2 * np.pi * variance[:20]).sum(1) - np.log(obs)
    full = q.log_density(mean[:20])
    np.testing.assert_allclose(np.exp(left - full), 1 - np.exp(own - full), atol=0.02)


def test_an_owner_is_the_likeliest_component_far_more_often_than_a_stand_in():
    rng = np.random.default_rng(0)
    mean, variance = rng.standard_normal((40_000, 5)), np.full((40_000, 5), 0.1)
    z = rng.standard_normal((100, 5))
    terms = -0.5 * ((z[:, None] - mean) ** 2 / variance[0]).sum(-1)
    owner = Density(mean, variance).owner(z)
    assert (owner == terms.argmax(1)).mean() > 0.95  # with one variance it is the nearest


@pytest.mark.parametrize("own", [False, True])
def test_far_from_zero_and_just_above_the_limit_all_components_count(own):
    rng = np.random.default_rng(0)
    mean = 30 + 0.1 * rng.standard_normal((9000, 10))
    variance = np.full(mean.shape, 1e-2)
    rows = np.arange(50)
    terms = -0.5 * ((mean[rows, None] - mean) ** 2 / 1e-2 + np.log(2 * np.pi * 1e-2)).sum(-1)
    if own:
        terms[rows, rows] = -np.inf
    exact = np.logaddexp.reduce(terms, axis=1) - np.log(9000 - own)
    found = Density(mean, variance).log_density(mean[rows], rows if own else None)
    np.testing.assert_allclose(found, exact, atol=2e-6)


@pytest.mark.parametrize("latent", [2, 8])
def test_support_is_uniform_on_observations_that_had_no_part(latent):
    rng = np.random.default_rng(latent)
    mean, held_out, new = (rng.standard_normal((n, latent)) for n in (2000, 2000, 2000))
    variance = np.full(mean.shape, 0.05)
    for q in (density(mean, variance), density(mean, variance, held_out=held_out)):
        assert stats.kstest(q.support(new), "uniform").statistic < 0.05  # 1.36 / sqrt(2000) + that of the reference
    assert density(mean, variance).support(np.full((1, latent), 30.0))[0] < 1e-3


def test_samples_of_the_prior_are_supported_as_far_as_they_lie_among_the_data():
    rng = np.random.default_rng(0)
    q = density(rng.standard_normal((2000, 2)), np.full((2000, 2), 0.1), held_out=rng.standard_normal((2000, 2)))
    same = prior_support(q, rng.standard_normal((4000, 2)))
    assert same.share == pytest.approx(0.95, abs=0.015)
    interval = stats.binomtest(round(same.share * 4000), 4000).proportion_ci(method="wilson")
    assert (same.lower, same.upper) == pytest.approx((interval.low, interval.high), abs=1e-4)
    half = prior_support(q, np.where(np.arange(4000)[:, None] < 2600, 50.0, 0.0) + np.zeros((1, 2)))
    assert half.share == pytest.approx(0.35)
    assert "sample around observations" in str(half)
    assert "sample around" not in str(same)


def test_width_is_the_one_that_foretells_new_observations_best():
    rng = np.random.default_rng(0)
    mean, new = rng.standard_normal((500, 4)), rng.standard_normal((4000, 4))
    narrow = np.full(mean.shape, 0.01)
    q = density(mean, narrow)
    assert q.width > 4
    scores = {w: Density(mean, w * narrow, w).log_density(new).mean() for w in (1.0, q.width)}
    assert scores[q.width] > scores[1.0] + 1


def test_the_bootstrap_has_the_spread_of_new_data():
    draws = []
    for seed in range(200):
        mean, variance, _ = two_types(seed, each=100, apart=2.0)
        draws.append(Density(mean, variance).log_density(np.zeros((1, 2)))[0])
    mean, variance, _ = two_types(1000, each=100, apart=2.0)
    again = Density(mean, variance).resampled(np.zeros((1, 2)), draws=400)[:, 0]
    assert 0.5 < again.std() / np.std(draws) < 2
    assert abs(np.median(again) - Density(mean, variance).log_density(np.zeros((1, 2)))[0]) < again.std()


def test_a_group_stands_among_its_own_and_not_at_an_outlier():
    rng = np.random.default_rng(0)
    mean, variance = rng.standard_normal((800, 10)), np.full((800, 10), 0.2)
    mean[400:, 0] += 6
    mean[0, 1:], variance[0] = 4.0, 0.02  # far from all others, and the highest peak by far
    label = np.repeat(["left", "right"], 400)
    q = density(mean, variance)
    assert q.log_density(mean).argmax() == 0
    found = holes(q, label, draws=20)
    for name, middle in (("left", 0.0), ("right", 6.0)):
        place = found.centres.loc[name].to_numpy() - [middle, *[0] * 9]
        assert np.linalg.norm(place) < np.sqrt(10)
    alone = density(mean[1:], variance[1:])
    without = holes(alone, label[1:], draws=20).frame["depth"].iloc[0]
    assert found.frame["depth"].iloc[0] == pytest.approx(without, abs=0.1)


def test_leaving_the_owner_out_agrees_with_the_bootstrap():
    mean, variance, _ = mixture(obs=200)
    q, own = Density(mean, variance), np.array([3, -1])
    point, drawn = q.log_density(mean[[3, 3]], own), Density(mean, variance).resampled(mean[[3, 3]], own, draws=400)
    assert point[0] < point[1] == pytest.approx(q.log_density(mean[[3]])[0])
    assert (np.abs(np.median(drawn, axis=0) - point) < drawn.std(0)).all()


def test_tail_counts_as_high_or_higher():
    assert tail(np.array([0.0, 2.0, 5.0]), np.array([1.0, 2.0, 3.0])).tolist() == [1.0, 0.75, 0.25]


# holes


@pytest.mark.parametrize(("weights", "obs"), [((0.5, 0.5), 1000), ((0.8, 0.2), 1000), ((0.8, 0.2), 6000)])
def test_the_pass_between_two_normals_is_where_the_derivative_vanishes(weights, obs):
    # Components in two places are two weighted normals, of which everything is known.
    count = (np.array(weights) * obs).astype(int)
    mean = np.repeat([[-2.0, 0.0, 0.0], [2.0, 1.0, 0.0]], count, axis=0)
    q = density(mean, np.full(mean.shape, 0.49), width=1.0)
    found = holes(q, np.repeat(["a", "b"], count))
    (row,) = found.frame.to_dict("records")

    ends = np.array([[-2.0, 0.0, 0.0], [2.0, 1.0, 0.0]])
    way = ends[1] - ends[0]

    def log_p(t, counted=count):
        at = ends[0] + t * way
        density = [stats.multivariate_normal(m, 0.49 * np.eye(3)).pdf(at) for m in ends]
        return np.log(np.dot(counted, density) / counted.sum())

    low = optimize.minimize_scalar(log_p, bounds=(0.2, 0.8), method="bounded", options={"xatol": 1e-10})
    np.testing.assert_allclose(found.z[0], ends[0] + low.x * way, atol=2e-3)
    depth = min(log_p(0.0, count - [1, 0]), log_p(1.0, count - [0, 1])) - low.fun  # without the centre itself
    np.testing.assert_allclose(row["depth"], depth, atol=1e-3)
    assert row["lower"] <= row["depth"] <= row["upper"]


def test_a_gap_is_deeper_than_a_bridge_and_its_interval_says_so():
    mean, variance, label = two_types()
    bridge = np.column_stack([np.random.default_rng(5).uniform(-2, 2, 300), np.zeros(300)])
    with_bridge = np.concatenate([mean, bridge]), np.full((len(mean) + 300, 2), variance[0, 0])
    sides = np.where(bridge[:, 0] < 0, "left", "right")
    gap = holes(density(mean, variance), label).frame.iloc[0]
    joined = holes(density(*with_bridge), np.concatenate([label, sides])).frame.iloc[0]
    assert gap["lower"] > joined["upper"]
    assert (gap["call"], joined["call"]) == ("unsupported", "supported")


def test_a_way_around_is_found_and_a_third_region_is_no_border():
    # An arc of three regions: its ends border on the middle one, and on each other only across the void.
    rng = np.random.default_rng(0)
    angle = rng.uniform(0, np.pi, 900)
    mean = 3 * np.column_stack([np.cos(angle), np.sin(angle)]) + 0.1 * rng.standard_normal((900, 2))
    label = np.array(["right", "top", "left"])[(angle / (np.pi / 3)).astype(int)]
    q = density(mean, np.full(mean.shape, 0.04))
    frame = holes(q, label).frame
    borders = {frozenset(pair) for pair in frame[["one", "other"]].to_numpy()}
    assert {frozenset(("right", "top")), frozenset(("top", "left"))} <= borders
    assert (frame["best"] < 4).all()  # every journey has a populated way


def test_holes_say_what_they_cannot_know():
    mean, variance, label = two_types()
    assert "cannot prove a state forbidden" in str(holes(density(mean, variance), label))


# plausibility


def test_depths_of_several_fits_have_limits_for_another():
    def record(depths, calls):
        pairs = pd.DataFrame({"one": ["a", "a", "b"], "other": ["b", "c", "c"]}).loc[list(depths)]
        half = stats.norm.ppf(0.95) * 0.5  # a bootstrap's standard deviation of half a nat
        frame = pairs.assign(depth=depths.values(), call=calls)
        frame = frame.assign(lower=frame["depth"] - half, upper=frame["depth"] + half).reset_index(drop=True)
        place = np.arange(len(frame), dtype=float)[:, None]
        return Holes(frame, place, pd.DataFrame(), place[:, None], place)

    first = record({0: 4.0, 1: 9.0, 2: 3.0}, ["supported", "unsupported", "supported"])
    second = record({1: 1.0, 0: 4.0}, ["unsupported", "unsupported"])
    found = among_fits(first, [second, record({0: 7.0}, ["supported"])])
    frame = found.frame.set_index("other")
    np.testing.assert_allclose(frame["depth"], [5, 5, 3])
    np.testing.assert_allclose(frame["agree"], [2 / 3, 1, 1])
    assert frame["fits"].tolist() == [3, 2, 1]
    between = (1 + 1 / 3) * 3.0
    half = stats.t.ppf(0.95, 2 * (1 + 0.25 / between) ** 2) * np.sqrt(0.25 + between)
    assert frame["upper"].iloc[0] == pytest.approx(5 + half)
    assert frame["lower"].iloc[0] == max(5 - half, 0)
    assert frame["upper"].iloc[2] == first.frame.loc[2, "upper"]
    assert among_fits(first, []) is first
    wider = among_fits(first, [record({0: 20.0}, ["supported"])])
    assert wider.frame["depth"].tolist() == [12, 9, 3]
    np.testing.assert_array_equal(wider.z[:, 0], [0, 1, 2])
    assert "over 2 fits" in str(replace(wider, frame=wider.frame.assign(call="unsupported")))


def typed_counts(seed=0, cells=600, exclusive=True):
    """Two types whose markers exclude each other; z_0 says which type, decode is the truth."""
    rng = np.random.default_rng(seed)
    place = np.where(rng.random(cells) < 0.5, -2.0, 2.0)
    mean = np.column_stack([place, np.zeros(cells)]) + 0.3 * rng.standard_normal((cells, 2))

    def decode(z):
        on = 1 / (1 + np.exp(-4 * np.atleast_2d(z)[:, :1]))
        base = np.ones((len(on), 30))
        markers = np.concatenate([np.repeat(on, 5, 1), np.repeat(1 - on if exclusive else on, 5, 1)], axis=1)
        return np.concatenate([base, 0.01 + 4 * markers], axis=1)

    profile = decode(mean) / decode(mean).sum(1, keepdims=True)
    counts = scipy.sparse.csr_array(rng.poisson(100 * profile).astype(float))
    return mean, np.full(mean.shape, 0.09), counts, decode


def test_pairs_that_exclude_each_other_are_the_markers_of_the_two_types():
    *_, counts, _ = typed_counts()
    pairs = exclusive_pairs(counts)
    assert len(pairs) == 25
    assert {(a in range(30, 35)) and (b in range(35, 40)) for a, b in pairs.tolist()} == {True}
    *_, together, _ = typed_counts(exclusive=False)
    assert len(exclusive_pairs(together)) == 0


def test_real_observations_are_as_plausible_as_each_other_and_the_hole_is_not():
    mean, variance, counts, decode = typed_counts()
    judged = judge(density(mean[:400], variance[:400]), Counts(counts[:400]), decode, again=lambda z: z + 0.0)
    new = judged(mean[400:])
    assert stats.kstest(new["plausibility"], "uniform").statistic < 0.15  # 400 measure 200
    assert stats.kstest(new["coherence"], "uniform").statistic < 0.15
    hole = judged(np.zeros((1, 2))).iloc[0]
    assert hole["support"] < 0.01
    assert hole["p_clash"] < 0.01
    assert hole["p_misfit"] < 0.01
    assert hole["plausibility"] < 0.01


def test_parts_that_are_given_are_reported_and_the_others_are_not():
    mean, variance, counts, decode = typed_counts(cells=200)
    q = density(mean, variance)
    plain = judge(q, Counts(counts), decode)(mean[:3])
    assert "drift" not in plain
    assert "doubt" not in plain
    whole = judge(q, Counts(counts), decode, again=np.zeros_like, doubt=lambda z: np.abs(z[:, 0]))(mean[:3])
    np.testing.assert_allclose(whole["doubt"], np.abs(mean[:3, 0]))
    np.testing.assert_allclose(whole["drift"], (mean[:3] ** 2 / q.variance.mean(0)).sum(1))


def test_misfit_is_the_likelihood_lost_by_the_neighbours():
    mean, variance, counts, decode = typed_counts(cells=10)
    z = np.array([[0.5, 0.0]])
    found = judge(density(mean, variance), Counts(counts), decode)(z)["misfit"].iloc[0]
    near = np.argsort(((mean - z) ** 2).sum(1))[:10]
    lost = seen = 0.0
    for n in near:
        own, other = (np.log(decode(at)[0] / decode(at).sum()) for at in (mean[n], z[0]))
        lost += counts[[n]].toarray()[0] @ (own - other)
        seen += counts[[n]].sum()
    assert found == pytest.approx(1000 * lost / seen, rel=1e-5)


@pytest.mark.parametrize("far", [0.0, 1e4])
def test_nats_tell_means_apart_as_the_likelihood_does(far):
    rng = np.random.default_rng(0)
    chosen = scipy.sparse.csr_array(np.array([[1.0, 1, 0, 0], [0, 1, 0, 1]]))
    p, q = rng.uniform(0.05, 0.95, (2, 2, 6))
    ones = rng.integers(0, 2, (4, 6)).astype(float)
    said = Binary(ones).nats(chosen, p) - Binary(ones).nats(chosen, q)
    expected = chosen @ ones * np.log(p / q) + (chosen @ (1 - ones)) * np.log((1 - p) / (1 - q))
    np.testing.assert_allclose(said, expected.sum(1))
    x, m, n, noise = far + rng.standard_normal((4, 6)), far + p, far - q, rng.uniform(0.5, 2, 6)
    found = Reals(x, noise).nats(chosen, m) - Reals(x, noise).nats(chosen, n)
    each = [
        sum(stats.norm.logpdf(x[i], m[k], noise).sum() - stats.norm.logpdf(x[i], n[k], noise).sum() for i in rows)
        for k, rows in enumerate([(0, 1), (1, 3)])
    ]
    np.testing.assert_allclose(found, each, rtol=1e-6)


def test_doubt_is_how_far_decoders_differ_more_than_at_the_nearest_observations():
    mean, variance, counts, decode = typed_counts(cells=200)
    tilts = np.linspace(-0.3, 0.3, 5)
    others = [
        Decoder(lambda z, tilt=tilt: decode(z) * np.exp(tilt * np.atleast_2d(z)[:, :1] * (np.arange(40) % 2)))
        for tilt in tilts
    ]
    q, z = density(mean, variance), np.array([[-1.1, 0.0], [1.0, 0.2], [6.0, 0.0]])
    found = judge(q, Counts(counts), decode, others=others)(z)
    depth = np.median(counts.sum(1))

    def spread(at):
        profiles = np.stack([other.decode(at) / other.decode(at).sum(1, keepdims=True) for other in others])
        return (4 * depth * np.sqrt(profiles).var(0, ddof=1)).sum(1)

    near = np.argsort(((z[:, None] - mean) ** 2).sum(-1), axis=1)[:, :5]
    expected = [np.log(spread(z[[i]])[0]) - np.log(spread(mean[rows])).mean() for i, rows in enumerate(near)]
    np.testing.assert_allclose(found["doubt"], expected, rtol=1e-6)
    assert found["p_doubt"].iloc[2] < 0.01
    assert (found["lower"] <= found["upper"]).all()
    assert found["lower"].iloc[0] < found["plausibility"].iloc[0] < found["upper"].iloc[0]


# shores


def shores(seed=0, bridge=True, cells=600, features=80):
    """Three regions. Features 10 to 19 are on in the first two alone, and rise on both shores where there is a bridge.

    Features 0 to 9 tell the two apart; 20 to 29 are on in both, too, but fall along the whole way, as a gradient does.
    """
    rng = np.random.default_rng(seed)
    member = np.repeat([0, 1, 2], cells // 3)
    s = rng.uniform(0, 1, cells)  # how near the other shore
    z = np.column_stack([np.choose(member, [-2 + s, 2 - s, np.zeros(cells)]), rng.standard_normal(cells)])
    z[member == 2, 1] += 5
    effect = np.zeros((cells, features))
    effect[:, :10] = (member == 0)[:, None]
    effect[:, 10:30] = (member < 2)[:, None] * 1.0
    effect[:, 10:20] += bridge * 0.5 * (s * (member < 2))[:, None]
    effect[:, 20:30] -= 0.2 * (z[:, 0] * (member < 2))[:, None]
    return scipy.sparse.csr_array(3 + effect + 0.5 * rng.standard_normal(effect.shape)), z, member


@pytest.mark.parametrize("seed", range(5))
def test_shores_rise_to_each_other_where_something_lies_between(seed):
    bridge, gap = (rise(*shores(seed, bridge), (0, 1)) for bridge in (True, False))
    assert bridge.value > 8
    assert abs(gap.value) < 4
    assert set(range(10, 20)) <= set(bridge.features[:12].tolist())


def test_without_a_third_region_or_enough_observations_there_is_no_rise():
    logs, z, member = shores()
    two = member < 2
    assert np.isnan(rise(logs[two], z[two], member[two], (0, 1)).value)
    few = np.r_[0:5, 200:600]
    assert np.isnan(rise(logs[few], z[few], member[few], (0, 1)).value)


# paths


def hemisphere(z):
    """(x, y) inside the unit circle to the point above it on the sphere."""
    z = np.atleast_2d(z)
    return np.column_stack([z, np.sqrt(np.maximum(1 - (z**2).sum(1), 1e-9))])


def swiss_roll(z):
    """(t, h): unrolled it is flat, with the arc length of the spiral r = t as its first coordinate."""
    t, h = np.atleast_2d(z).T
    return np.column_stack([t * np.cos(t), h, t * np.sin(t)])


def spiral_length(t):
    return 0.5 * (t * np.sqrt(1 + t**2) + np.arcsinh(t))


@pytest.mark.parametrize("ends", [((-0.6, 0.5), (0.6, 0.5)), ((0.0, 0.85), (0.8, -0.1))])
def test_geodesics_of_the_sphere_are_great_circles(ends):
    rng = np.random.default_rng(0)
    nodes = rng.uniform(-1, 1, (1500, 2))
    nodes = nodes[(nodes**2).sum(1) < 0.95]
    curve = geodesic(Metric(hemisphere), *map(np.array, ends), nodes)
    a, b = (hemisphere(np.array(end))[0] for end in ends)
    truth = np.arccos(a @ b)
    assert curve.length == pytest.approx(truth, rel=2e-3)
    assert curve.straight > 1.02 * truth or ends[0] == (0.0, 0.85)
    normal = np.cross(a, b) / np.linalg.norm(np.cross(a, b))
    assert np.abs(hemisphere(curve.z) @ normal).max() < 0.03
    steps = np.linalg.norm(np.diff(hemisphere(curve.z), axis=0), axis=1)
    assert steps.std() / steps.mean() < 0.02


def test_geodesics_of_the_swiss_roll_are_straight_where_it_is_unrolled():
    rng = np.random.default_rng(0)
    nodes = np.column_stack([rng.uniform(4, 12, 1500), rng.uniform(0, 10, 1500)])
    start, end = np.array([4.5, 1.0]), np.array([11.5, 9.0])
    curve = geodesic(Metric(swiss_roll), start, end, nodes, steps=81)
    truth = np.hypot(spiral_length(11.5) - spiral_length(4.5), 8.0)
    assert curve.length == pytest.approx(truth, rel=5e-3)
    unrolled = np.column_stack([spiral_length(curve.z[:, 0]), curve.z[:, 1]])
    way = (unrolled[-1] - unrolled[0]) / np.linalg.norm(unrolled[-1] - unrolled[0])
    off = unrolled - unrolled[0]
    assert np.abs(off[:, 0] * way[1] - off[:, 1] * way[0]).max() < 0.02 * truth
    table = distances(Metric(swiss_roll), np.stack([start, end]), nodes)
    assert table[0, 1] == table[1, 0] == pytest.approx(truth, rel=5e-3)


def test_a_penalty_bends_the_way_around_a_hole():
    # A ring of observations: straight across is empty, and the flat decoder alone sees no reason to go around.
    rng = np.random.default_rng(0)
    angle = rng.uniform(0, 2 * np.pi, 1200)
    mean = 3 * np.column_stack([np.cos(angle), np.sin(angle)]) + 0.15 * rng.standard_normal((1200, 2))
    q = density(mean, np.full(mean.shape, 0.05))
    a, b = np.array([-3.0, 0.0]), np.array([3.0, 0.0])
    flat = geodesic(Metric(np.asarray), a, b, mean)
    around = geodesic(Metric(np.asarray, q), a, b, mean)
    assert flat.length == pytest.approx(6.0, rel=1e-3)
    assert straight(Metric(np.asarray, q), a, b).support.min() < 0.01
    assert (around.support > 0.05).mean() > 0.9
    assert 2.6 * np.pi < around.length < 3 * np.pi  # inside the ring's inner edge there is no support
    assert "unsupported" in str(around)


def test_energy_has_the_derivative_that_it_says():
    rng = np.random.default_rng(0)
    mean, variance, _ = two_types()
    metric = Metric(hemisphere, density(mean / 10, variance / 10), penalty=0.3)
    curve, size = 0.3 * rng.standard_normal((7, 2)), np.ones(2)
    _, gradient = metric.energy(curve, size)

    def value(flat):
        return metric.energy(flat.reshape(curve.shape), size)[0]

    expected = optimize.approx_fprime(curve.ravel(), value, 1e-6)
    np.testing.assert_allclose(gradient.ravel(), expected, rtol=2e-3, atol=1e-3)


def test_a_graph_in_pieces_is_joined_by_its_shortest_edges():
    nodes = np.concatenate([np.linspace(0, 1, 10), np.linspace(5, 6, 10), np.linspace(20, 21, 10)])[:, None]
    pairs = {tuple(pair) for pair in edges(nodes, 2).tolist()}
    assert {(9, 10), (19, 20)} <= pairs
    assert (9, 20) not in pairs


def test_the_deepest_hole_is_said_with_what_is_not_sure_of_it():
    mean, variance, names = two_types(each=30)
    q = density(mean, variance)
    sure, plain = (holes(q, names, draws=draws) for draws in (20, 0))
    row = sure.frame.iloc[0]
    assert f"{row['depth']:.1f} nats; {row['lower']:.1f} to {row['upper']:.1f} by a bootstrap" in str(sure)
    assert plain.frame["lower"].isna().all()
    assert f"({row['depth']:.1f} nats);" in str(plain)


def test_equal_steps_are_equal():
    curve = np.cumsum(np.random.default_rng(0).random((30, 1)), axis=0)
    steps = np.diff(equal_steps(curve, 12), axis=0)
    np.testing.assert_allclose(steps, steps.mean(), rtol=1e-9)


def test_features_switch_in_the_order_of_their_thresholds():
    time = np.linspace(0, 1, 101)[:, None]
    at = np.array([0.7, 0.2, 0.5])
    sign = np.array([1, -1, 1])
    level = np.exp2(4 * stats.logistic.cdf(40 * sign * (time - at)))
    frame = switches(np.column_stack([level, np.ones(101)]), ["late", "early", "middle", "constant"])
    assert frame["feature"].tolist() == ["early", "middle", "late"]
    assert frame["direction"].tolist() == ["down", "up", "up"]
    np.testing.assert_allclose(frame["at"], [0.2, 0.5, 0.7], atol=0.01)
    np.testing.assert_allclose(frame["log2_change"].abs(), 4, atol=0.1)
    draws = np.stack([np.column_stack([np.roll(level, k, axis=0), np.ones(101)]) for k in (-3, 0, 3)])
    drawn = switches(draws[1], ["late", "early", "middle", "constant"], draws=draws)
    assert (drawn["lower"] < drawn["at"]).all()
    assert (drawn["at"] < drawn["upper"]).all()


# errors


@pytest.mark.parametrize(
    ("act", "message"),
    [
        (lambda m, v: Density(m, -v), "positive variance"),
        (lambda m, v: Density(m, v[:5]), "positive variance"),
        (lambda m, v: density(m[:1], v[:1]), "found 1"),
        (lambda m, v: density(m, v, width=0.0), "above 0"),
        (lambda m, v: density(m, v).support(np.zeros((2, 7))), "2 coordinates, as the density has, found 7"),
        (lambda m, v: holes(density(m, v), ["a"] * len(m)), "found 1: a hole"),
        (lambda m, v: holes(density(m, v), ["a"] * 3), "found 3"),
        (lambda m, v: judge(density(m, v), Counts(scipy.sparse.csr_array((3, 2))), np.asarray), "found 3 rows"),
        (lambda m, v: judge(density(m, v), Counts(np.full((len(m), 2), -1.0)), np.asarray), "at least 0"),
        (lambda m, v: rise(scipy.sparse.csr_array((3, 2)), m, np.zeros(len(m), int), (0, 1)), "found 3"),
        (lambda m, v: geodesic(Metric(np.asarray), np.zeros(3), np.ones(3), m), "2 coordinates"),
        (lambda m, v: switches(np.ones((3, 2)), ["a"]), "1 features"),
        (lambda m, v: switches(-np.ones((3, 1)), ["a"]), "at least 0"),
    ],
)
def test_errors_say_what_was_found(act, message):
    mean, variance, _ = two_types(each=20)
    with pytest.raises(InputError, match=message):
        act(mean, variance)
