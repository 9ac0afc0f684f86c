"""Each line of the verdict in both directions: it speaks where it must, and is silent where it must be."""

import json

import numpy as np
import pandas as pd
import pytest
import scipy.stats
from hypothesis import given
from hypothesis import strategies as st

from biovae import diagnostics as d
from biovae.analysis import Explained
from biovae.diagnostics.prior import divergence
from biovae.errors import InputError

OK, LOOK, BROKEN = d.State
CELLS = 1500


def rng(seed=0):
    return np.random.default_rng(seed)


# verdict


def example():
    lines = [
        d.Line("gain over the null", 32.3, "above 1.2 nats (2 SE)", OK, "Better than averages."),
        d.Line("final beta", np.float64("nan"), "1, as asked", BROKEN, "Train for more epochs. " * 8),
        d.Line("posterior collapse", "7 of 10 dimensions", "none", LOOK, "Compare with beta 1."),
    ]
    return d.Verdict(tuple(lines))


def test_the_verdict_is_its_worst_line():
    assert example().overall is BROKEN
    assert d.Verdict(example().lines[::2]).overall is LOOK
    assert d.Verdict(()).overall is OK
    assert example()["final beta"].state is BROKEN
    with pytest.raises(InputError, match="did you mean 'final beta'"):
        example()["finale beta"]


def test_the_table_fits_a_terminal_and_advises_where_something_is_wrong():
    text = str(example())
    assert max(len(row) for row in text.splitlines()) <= 100
    assert text.startswith("verdict: broken")
    assert "Compare with beta 1." in text
    assert "Better than averages." not in text
    starts = {
        row.index(state) for row in text.splitlines() for state in (" ok ", "? look ", "! broken ") if state in row
    }
    assert len(starts) <= 2
    assert str(d.Verdict(())).startswith("verdict: ok")


def test_a_verdict_is_json_and_a_frame():
    text = json.loads(json.dumps(example().to_dict(), allow_nan=False))
    assert text["overall"] == "broken"
    assert [line["value"] for line in text["lines"]] == [32.3, None, "7 of 10 dimensions"]
    assert [*example().to_frame()["state"]] == ["ok", "broken", "look"]
    assert [*d.Verdict(()).to_frame().columns] == ["name", "value", "normal", "state", "advice"]


# fit


@pytest.mark.parametrize(("mean", "state"), [(5.0, OK), (0.3, LOOK), (0.05, BROKEN), (-20.0, BROKEN), (np.nan, BROKEN)])
def test_gain_is_judged_by_its_standard_error(mean, state):
    difference = rng().standard_normal(100)
    difference = (difference - difference.mean()) / difference.std(ddof=1) + mean  # its error is 0.1
    null = 300 * rng(1).standard_normal(100)
    line = d.gain(null + difference, null)
    assert line.state is state
    assert line.value == pytest.approx(mean, nan_ok=True)


@pytest.mark.parametrize(
    ("gap", "won", "state"),
    [
        (0.5, 20, OK),
        (3, 20, OK),
        (12, 20, LOOK),
        (3, -20, LOOK),
        (0.5, -20, OK),
        (-1, 20, BROKEN),
        (np.nan, 20, BROKEN),
    ],
)
def test_a_loose_bound_is_called_and_a_tight_one_is_not(gap, won, state):
    elbo = rng().standard_normal(50) - 300
    assert d.tightness(elbo, elbo + gap, elbo + gap - won).state is state


@pytest.mark.parametrize(("final", "asked", "state"), [(1, 1, OK), (4, 4, OK), (0.017, 1, BROKEN), (0, 0, OK)])
def test_the_final_beta_is_the_one_that_was_asked_for(final, asked, state):
    assert d.objective(final, asked).state is state


def history(bound, beta=None, kl=None):
    steps = np.arange(1, len(bound) + 1)
    beta = np.ones(len(bound)) if beta is None else beta
    kl = np.full(len(bound), 10.0) if kl is None else kl
    return pd.DataFrame(
        {"epoch": steps, "step": 20 * steps, "beta": beta, "validation_elbo": bound, "validation_kl": kl}
    )


TIME = np.arange(60)
CURVES = {
    "settled": (-300 - 50 * np.exp(-TIME / 10), OK),
    "straight": (-350 + TIME / 2, LOOK),
    "slow": (-300 - 50 * np.exp(-TIME / 80), LOOK),
    "overfitting": (-300 - 50 * np.exp(-TIME / 4) - 0.5 * TIME, LOOK),
    "jitter": (-300 - 50 * np.exp(-TIME / 10) + 0.02 * rng().standard_normal(60), OK),
    "short": (np.array([-400.0, -350, -320]), LOOK),
}


@pytest.mark.parametrize("name", CURVES)
def test_curves_are_read_as_the_eye_reads_them(name):
    bound, state = CURVES[name]
    line = d.convergence(history(bound), null=-340.0)
    assert line.state is state
    assert len(line.shown) <= 24


def test_only_the_full_objective_counts():
    rising = np.r_[np.full(30, -900.0), CURVES["settled"][0]]
    assert d.convergence(history(rising, np.r_[np.linspace(0, 0.9, 30), np.ones(60)])).state is OK
    assert d.convergence(history(rising[:33], np.r_[np.linspace(0, 0.9, 30), np.ones(3)])).state is LOOK
    assert d.convergence(history(rising).iloc[:0]).state is LOOK


def test_what_is_judged_is_what_was_maximised():
    """At beta 4 the bound at beta 1 may fall while the objective rises to its end."""
    kl = 12 - 6 * (1 - np.exp(-TIME / 10))
    bound = -300 - 20 * (1 - np.exp(-TIME / 10))
    assert d.convergence(history(bound, np.full(60, 4.0), np.full(60, 10.0))).state is LOOK
    assert d.convergence(history(bound, np.full(60, 8.0), kl)).state is OK


def test_a_run_that_was_stopped_or_never_beat_the_null_is_called():
    settled = history(CURVES["settled"][0])
    assert d.convergence(settled, stopped="interrupted").state is LOOK
    assert d.convergence(settled, validation_null=-340).state is OK
    assert d.convergence(settled, validation_null=-290).state is BROKEN


def test_bad_steps_are_counted():
    assert d.events([]).state is OK
    assert d.events(["step 7: loss nan"]).state is LOOK
    assert "step 7" in d.events(["step 7: loss nan"]).advice
    assert d.events(["step 7"] * 8).state is BROKEN


# KL and information: a Gaussian channel, whose truth is known


def channel(signal, cells=CELLS, seed=0):
    """z = signal_i + noise in each dimension, with unit variance in all: q(z) is the standard normal."""
    signal = np.asarray(signal, dtype=np.float64)
    mean = np.sqrt(signal) * rng(seed).standard_normal((cells, len(signal)))
    variance = np.broadcast_to(1 - signal, mean.shape)
    kl = 0.5 * (mean**2 + variance - 1 - np.log(variance))
    return mean, variance, kl


@given(st.lists(st.floats(0, 0.9), min_size=1, max_size=3), st.integers(0, 3))
def test_information_of_a_gaussian_channel(signal, seed):
    mean, variance, kl = channel(signal, cells=600, seed=seed)
    truth = -0.5 * np.log(1 - np.asarray(signal)).sum()
    found, limit = d.information(mean, variance, seed)
    assert limit == pytest.approx(np.log(600))
    assert found == pytest.approx(truth, abs=0.2 + 0.1 * truth)
    assert kl.sum(1).mean() == pytest.approx(truth, abs=0.2 + 0.1 * truth)  # q(z) = p(z): all of the KL is information


def test_information_ends_at_its_limit():
    mean, variance, _ = channel([0.999999] * 4, cells=300)
    found, limit = d.information(mean, variance)
    assert found == pytest.approx(limit, abs=1e-6)
    assert "cannot go higher" in d.mutual_information(mean, variance).advice


def test_active_units_and_kl_agree_with_the_channel():
    mean, variance, kl = channel([0.9, 0.5, 0.0, 0.0])
    assert d.active(mean).tolist() == [True, True, False, False]
    line = d.active_units(mean, kl)
    assert (line.value, line.state) == (2, OK)
    assert "2 carry more than 0.1 nats" in line.advice
    assert d.kl_per_dimension(kl).value == pytest.approx(-0.5 * np.log(0.1 * 0.5), abs=0.1)
    assert d.kl_per_dimension(kl).state is d.mutual_information(mean, variance).state is OK


def test_an_empty_channel_is_called_by_every_line():
    mean, variance, kl = channel([0.0] * 5)
    assert d.active_units(mean).state is BROKEN
    assert d.kl_per_dimension(kl).state is BROKEN
    assert d.mutual_information(mean, variance).state is BROKEN


# collapse

ALL, SOME, NONE = [0.9] * 10, [0.9] * 3 + [0.0] * 7, [0.0] * 10


def evidence(signal, heard, won, seed=0):
    kl = channel(signal, seed=seed)[2]
    own = 100 * rng(seed + 1).standard_normal(CELLS) - 500
    shuffled = own - heard - 3 * rng(seed + 2).standard_normal(CELLS)
    elbo = own - kl.sum(1)
    return kl, own, shuffled, elbo, elbo - won - rng(seed + 3).standard_normal(CELLS), len(signal)


@pytest.mark.parametrize("seed", range(20))
@pytest.mark.parametrize(
    ("signal", "heard", "won", "beta", "value", "state"),
    [
        (ALL, 60, 30, 1.0, "none", OK),
        (SOME, 60, 30, 1.0, "none", OK),  # spare dimensions are no fault
        (ALL, 60, 30, 4.0, "none", OK),  # nor is a beta that took nothing
        (SOME, 60, 30, 4.0, "7 of 10 dimensions", LOOK),
        (NONE, 0, 0, 1.0, "whole", BROKEN),
        (NONE, 0, 0, 50.0, "whole", BROKEN),
        (NONE, 0, 30, 1.0, "whole", BROKEN),  # the decoder does it alone
        (ALL, 0, 30, 1.0, "whole", BROKEN),  # z is full, and nobody listens
    ],
)
def test_collapse_is_called_and_health_is_not(signal, heard, won, beta, value, state, seed):
    line = d.collapse(*evidence(signal, heard, won, seed), beta=beta)
    assert (line.value, line.state) == (value, state)


def test_few_observations_that_resemble_one_another_are_no_proof_of_a_collapse():
    kl, own, shuffled, elbo, null, latent = (x[:5] if isinstance(x, np.ndarray) else x for x in evidence(ALL, 0, 90))
    shuffled = own - [0, 0, 5, 8, 300]
    line = d.collapse(kl, own, shuffled, elbo, null, latent)
    assert (line.value, line.state) == ("not certain", LOOK)
    assert "5 held-out observations are too few" in line.advice
    assert d.collapse(kl, own, own - [0, 0, 0.5, 1, 2], elbo, null, latent).state is BROKEN  # too little for 90 nats


def test_the_advice_names_the_cause_of_a_collapse():
    assert "Beta 50" in d.collapse(*evidence(NONE, 0, 0), beta=50.0).advice
    assert "covariates" in d.collapse(*evidence(NONE, 0, 30)).advice
    assert "if the data hold structure" in d.collapse(*evidence(NONE, 0, 0)).advice
    assert "7 of 10 dimensions are spare" in d.collapse(*evidence(SOME, 60, 30)).advice


@pytest.mark.parametrize(
    ("pca", "vae", "se", "state"),
    [(0.4, 0.42, 0.01, OK), (0.4, 0.35, 0.01, OK), (0.4, 0.27, 0.01, LOOK), (0.4, 0.1, 0.01, BROKEN),
     (0.4, 0.1, 0.2, OK), (-0.01, -0.05, 0.001, OK)],
)  # fmt: skip
def test_a_model_far_below_a_straight_line_is_called(pca, vae, se, state):
    explained = Explained("deviance", pca, vae, se)
    assert d.collapse(*evidence(SOME, 60, 30), explained=explained).state is state


def test_a_kl_in_one_piece_is_judged_as_a_whole():
    kl, *rest = evidence(SOME, 60, 30)
    assert d.collapse(kl.sum(1, keepdims=True), *rest, beta=4.0).state is OK
    assert d.collapse(np.zeros((CELLS, 1)), *rest).state is BROKEN


def test_what_is_not_a_number_is_broken():
    kl, own, shuffled, elbo, null, latent = evidence(ALL, 60, 30)
    assert d.collapse(kl, own * np.nan, shuffled, elbo, null, latent).state is BROKEN
    assert d.collapse(kl * np.nan, own, shuffled, elbo, null, latent).state is BROKEN
    assert d.kl_per_dimension(kl * np.nan).state is BROKEN


# prior


@pytest.mark.parametrize(
    ("scale", "shift", "state"),
    [(1, 0, OK), (1.3, 0.3, OK), (2.5, 0, LOOK), (0.4, 0, LOOK), (1, 1.2, LOOK), (8, 0, BROKEN), (1, 3, BROKEN)],
)
def test_the_aggregate_posterior_is_held_against_the_prior(scale, shift, state):
    mean, variance, _ = channel([0.9, 0.5, 0.0])
    line = d.aggregate(mean * scale + shift, variance * scale**2, rng(9).standard_normal((2000, 3)))
    assert line.state is state


def test_divergence_of_two_normals():
    p, q = 0.5 * rng(0).standard_normal((4000, 2)) + 1, rng(1).standard_normal((4000, 2))
    truth = 2 * 0.5 * (0.25 + 1 - 1 - np.log(0.25))
    assert divergence(p, q) == pytest.approx(truth, rel=0.1)
    assert divergence(rng(2).standard_normal((4000, 2)), q) < 0.05


def test_holes_are_seen_where_they_are():
    mean, variance, _ = channel([0.9, 0.9])
    draws = rng(9).standard_normal((2000, 2))
    assert d.off_prior(mean, variance, draws).value < 0.05
    apart = np.where(rng().random((CELLS, 2)) < 0.5, -2.0, 2.0)
    line = d.off_prior(apart, np.full((CELLS, 2), 0.01), draws)
    assert (line.value > 0.8, line.state) == (True, LOOK)
    assert d.off_prior(mean[:1], variance[:1], draws).state is LOOK


# calibration


def poisson_pit(data_mean, model_mean, entries=20_000):
    x = rng(1).poisson(data_mean, entries)
    model = scipy.stats.poisson(model_mean)
    return d.pit(model.cdf(x - 1), model.cdf(x), seed=2)


@given(st.floats(0.05, 30))
def test_pit_of_the_truth_is_uniform_whatever_the_mean(mean):
    values = poisson_pit(mean, mean, entries=4000)
    assert ((values >= 0) & (values <= 1)).all()
    assert scipy.stats.kstest(values, "uniform").statistic < 1.95 / np.sqrt(4000)
    assert d.uniformity(values).state is OK


def test_pit_of_another_model_is_not():
    assert d.uniformity(poisson_pit(5, 6)).state is not OK
    assert "lie lower" in d.uniformity(poisson_pit(5, 7)).advice
    assert "lie higher" in d.uniformity(poisson_pit(7, 5)).advice
    assert d.uniformity(poisson_pit(20, 5)).state is BROKEN
    x = rng().negative_binomial(1, 1 / 6, 20_000)  # mean 5, variance 30
    model = scipy.stats.poisson(5)
    narrow = d.uniformity(d.pit(model.cdf(x - 1), model.cdf(x)))
    assert narrow.state is not OK
    assert "spread wider" in narrow.advice


def test_the_distance_of_pit_is_kolmogorovs():
    values = rng().random(500) ** 2
    assert d.uniformity(values).value == pytest.approx(scipy.stats.kstest(values, "uniform").statistic)
    assert d.uniformity(np.empty(0)).state is BROKEN


def counts(cells=800, r=1.0):
    mean = np.exp(rng(0).normal(-0.5, 1.2, 300))
    x = rng(1).poisson(mean * rng(2).gamma(r, 1 / r, (cells, 300)))
    return x, mean, r


def test_zeros_and_variance_of_the_truth_and_of_poisson():
    x, mean, r = counts()
    zeros, variance = (x == 0).mean(0), x.var(0)
    assert d.zero_fraction(zeros, (1 + mean / r) ** -r).state is OK
    assert d.zero_fraction(zeros, np.exp(-mean)).state is not OK
    assert "more zeros" in d.zero_fraction(zeros, np.exp(-mean)).advice
    assert "fewer zeros" in d.zero_fraction(zeros, np.minimum(zeros + 0.2, 1)).advice
    assert d.mean_variance(x.mean(0), variance, mean + mean**2 / r).state is OK
    poisson = d.mean_variance(x.mean(0), variance, mean)
    assert poisson.state is not OK
    assert "more than the model expects beyond Poisson" in poisson.advice
    assert "less than" in d.mean_variance(x.mean(0), variance, 9 * (mean + mean**2)).advice


def test_features_that_never_vary_are_no_number():
    nothing = np.zeros(3)
    assert d.mean_variance(nothing, nothing, nothing).state is LOOK
    assert d.mean_variance(nothing, nothing, nothing * np.nan).state is BROKEN


# leakage


def types(seed=0, latent=6, apart=8.0, kinds=4):
    kind = rng(seed).integers(kinds, size=CELLS)
    centre = apart * np.eye(max(latent, kinds))[:kinds, :latent]
    return centre[kind] + rng(seed + 1).standard_normal((CELLS, latent)), kind


def clusters(z):
    from biovae.analysis import leiden

    return leiden(z)


@pytest.mark.parametrize("seed", range(5))
def test_types_of_different_depth_do_not_feign_a_leak(seed):
    z, kind = types(seed)
    depth = 1.5 * kind + 0.4 * rng(seed + 2).standard_normal(CELLS)
    for groups in (clusters(z), kind.astype(str)):
        line = d.library(z, depth, groups)
        assert (line.value < 0.05, line.state) == (True, OK)


@pytest.mark.parametrize("strength", [0.6, 2.0])
def test_a_leak_within_types_is_called(strength):
    z, kind = types()
    own = rng(3).standard_normal(CELLS)
    z = z + strength * own[:, None] * np.array([0, 0, 0, 0, 0, 1.0])
    line = d.library(z, 1.5 * kind + 0.4 * own, clusters(z))
    truth = strength**2 / (1 + strength**2)
    assert line.value == pytest.approx(truth, abs=0.12)
    assert line.state is (LOOK if truth < 0.5 else BROKEN)


def test_a_leak_of_another_sign_in_every_type_is_called():
    z, kind = types()
    own = rng(3).standard_normal(CELLS)
    z[:, 5] += np.where(kind % 2, 3, -3) * own
    assert d.library(z, own, kind.astype(str)).state is BROKEN


@pytest.mark.parametrize("latent", [1, 3])
def test_a_space_that_clusters_cut_into_slices_of_depth_is_called(latent):
    """One homogeneous type: every cluster holds a slice of depth, so that little is left within."""
    depth = rng().standard_normal(CELLS)
    z = np.hstack([4 * depth[:, None], np.zeros((CELLS, latent - 1))]) + rng(1).standard_normal((CELLS, latent))
    assert d.library(z, depth, clusters(z)).value > 0.8


def test_what_pca_of_normalised_values_knows_as_well_is_the_datas_doing():
    depth, one = rng().standard_normal(CELLS), np.zeros(CELLS)
    knows, knows_not = depth[:, None], rng(1).standard_normal((CELLS, 2))
    assert d.library(knows, depth, one, linear=knows).state is LOOK
    assert d.library(knows, depth, one, linear=knows_not).state is BROKEN


def test_dimensions_without_variance_leak_nothing_and_few_observations_are_not_judged():
    depth = rng().standard_normal(CELLS)
    assert d.library(1e-3 * depth[:, None], depth, np.zeros(CELLS)).value == 0
    few = d.library(depth[:15, None], depth[:15], np.zeros(15))
    assert (np.isnan(few.value), few.state) == (True, LOOK)
    empty = np.where(np.arange(CELLS) < 5, -np.inf, depth)  # observations without counts
    assert d.library(depth[:, None], empty, np.zeros(CELLS)).value > 0.9


def test_mixed_batches_are_ok_and_separate_ones_are_not():
    z, kind = types()
    batch = np.where(rng(5).random(CELLS) < 0.3, "a", "b")
    assert d.covariate(z, batch, clusters(z), "batch").state is OK
    shifted = z + 0.6 * (batch == "a")[:, None]
    assert d.covariate(shifted, batch, kind.astype(str), "batch").state is LOOK
    apart = z + 4.0 * (batch == "a")[:, None] * np.array([0, 0, 0, 0, 1.0, 1.0])
    assert d.covariate(apart, batch, kind.astype(str), "batch").state is BROKEN
    assert d.covariate(apart, batch, clusters(apart), "batch").state is not OK


def test_batches_of_different_composition_do_not_feign_a_leak():
    z, kind = types()
    batch = np.where(rng(5).random(CELLS) < np.array([0.1, 0.3, 0.7, 0.9])[kind], "a", "b")
    assert d.covariate(z, batch, clusters(z), "batch").state is OK


def test_a_rare_batch_can_be_judged():
    z, _ = types()
    batch = np.where(rng(5).random(CELLS) < 0.03, "a", "b")
    assert d.covariate(z, batch, clusters(z), "batch").state is OK


def test_batches_without_a_common_type_cannot_be_judged():
    z, kind = types()
    line = d.covariate(z, np.where(kind < 2, "a", "b"), clusters(z), "batch")
    assert (line.value, line.state) == ("apart", LOOK)
    assert d.covariate(z, np.repeat("a", CELLS), clusters(z), "batch").state is OK


def test_numbers_leak_as_depth_does():
    z, kind = types()
    assert d.covariate(z, z[:, 5] + 0.3 * rng(7).standard_normal(CELLS), clusters(z), "age").state is BROKEN
    assert d.covariate(z, kind + rng(7).standard_normal(CELLS), clusters(z), "age").state is OK
