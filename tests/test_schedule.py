"""Schedules: honest at their end, monotone where they say so, the same after a restart."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from biovae.training import plan
from biovae.training.schedule import Constant, CyclicalWarmup, LinearWarmup, OneCycle, Plateau, SigmoidWarmup

WARMUPS = (
    Constant(),
    LinearWarmup(),
    LinearWarmup(until=1.0),
    SigmoidWarmup(),
    SigmoidWarmup(until=1.0, steepness=40),
    CyclicalWarmup(),
    CyclicalWarmup(cycles=3, rise=1.0),
)


def plateau(**changes) -> Plateau:
    return Plateau(**({"ramp": 10, "decay": 20, "most": 1000, "window": 3, "warmup": LinearWarmup()} | changes))


@pytest.mark.parametrize("warmup", WARMUPS, ids=repr)
def test_a_warmup_ends_at_exactly_one(warmup):
    assert 0 <= warmup.end <= 1
    assert warmup.share(warmup.end) == 1.0
    assert warmup.share(1.0) == 1.0
    assert warmup.share(0.0) == (1.0 if warmup.end == 0 else 0.0)


@pytest.mark.parametrize("warmup", WARMUPS, ids=repr)
@given(progress=st.floats(0, 1))
def test_a_warmup_is_a_share(warmup, progress):
    assert 0 <= warmup.share(progress) <= 1
    if progress >= warmup.end:
        assert warmup.share(progress) == 1.0


@pytest.mark.parametrize("warmup", [w for w in WARMUPS if w.kind != "cyclical"], ids=repr)
def test_a_plain_warmup_never_falls(warmup):
    shares = [warmup.share(i / 100) for i in range(101)]
    assert shares == sorted(shares)


def test_cycles_begin_again():
    shares = [CyclicalWarmup(cycles=4, rise=0.5).share(i / 400) for i in range(401)]
    assert [i for i in range(1, 401) if shares[i] < shares[i - 1]] == [100, 200, 300]
    assert all(shares[i] == 0 for i in (0, 100, 200, 300))


@pytest.mark.parametrize("warmup", WARMUPS, ids=repr)
@pytest.mark.parametrize("steps", [1, 2, 7, 1000])
def test_one_cycle_ends_under_the_full_objective(warmup, steps):
    schedule = OneCycle(steps, warmup)
    assert steps == 1 or schedule.share(steps - 1) == 1.0
    assert [schedule.finished(s) for s in (0, steps - 1, steps)] == [False, False, True]
    assert schedule.planned(0) == steps


def test_one_cycle_rises_then_falls_to_nothing():
    schedule = OneCycle(1000, Constant(), rise=0.2)
    rates = [schedule.rate(s) for s in range(1001)]
    assert rates.index(max(rates)) == 200
    assert rates[200] == 1.0
    assert rates[:201] == sorted(rates[:201])
    assert rates[200:] == sorted(rates[200:], reverse=True)
    assert min(rates[:-1]) > 0
    assert rates[1000] == pytest.approx(0, abs=1e-12)


@pytest.mark.parametrize("warmup", WARMUPS, ids=repr)
def test_a_plateau_is_at_full_force_from_the_end_of_its_ramp(warmup):
    schedule = plateau(warmup=warmup)
    assert [schedule.share(s) for s in (10, 11, 500)] == [1.0] * 3
    assert [schedule.rate(s) for s in (10, 11, 500)] == [1.0] * 3
    assert schedule.rate(0) == 0.04
    assert not schedule.finished(10**9)


def test_a_plateau_falls_when_the_mean_of_a_window_does_not_rise():
    schedule = plateau(window=2)
    schedule.observe(5, 100.0)  # during the ramp the objective is another one: not heard
    for step, bound in [(20, 1.0), (30, 2.0), (40, 1.5), (50, 2.0), (60, 3.0), (70, 2.6), (80, 3.1)]:
        schedule.observe(step, bound)
    assert schedule.decay_from is None
    assert not schedule.settled
    schedule.observe(90, 0.4)  # 3.1 and 0.4 after 3.0 and 2.6
    assert schedule.decay_from == 90
    assert schedule.settled
    schedule.observe(95, 50.0)  # too late
    assert schedule.decay_from == 90
    assert schedule.rate(100) == pytest.approx(0.5)
    assert [schedule.finished(s) for s in (109, 110)] == [False, True]
    assert schedule.planned(95) == 110


def test_a_bound_that_is_not_a_number_does_not_rise():
    schedule = plateau(window=2)
    for step, bound in [(20, 1.0), (30, 2.0), (40, 3.0)]:
        schedule.observe(step, bound)
    schedule.observe(50, float("nan"))
    assert schedule.decay_from == 50


def test_a_plateau_ends_though_the_bound_rises_for_ever():
    schedule = plateau(most=50)
    for step in range(0, 60, 10):
        schedule.observe(step, float(step))
    assert schedule.decay_from == 50


@pytest.mark.parametrize("make", [lambda: OneCycle(200, LinearWarmup()), plateau], ids=["one_cycle", "plateau"])
@pytest.mark.parametrize("cut", [0, 25, 60, 90])
def test_a_restored_schedule_goes_on_as_if_it_had_not_stopped(make, cut):
    whole, first, second = make(), make(), make()
    bounds = {step: min(step, 50) for step in range(0, 200, 10)}
    for schedule, steps in [(whole, range(200)), (first, range(cut))]:
        schedule.scale = 0.25
        for step in steps:
            if step in bounds:
                schedule.observe(step, bounds[step])
    second.restore(json.loads(json.dumps(first.state())))
    for step in range(cut, 200):
        if step in bounds:
            second.observe(step, bounds[step])
    assert second.state() == whole.state()
    assert [second.rate(s) for s in range(200)] == [whole.rate(s) for s in range(200)]


@pytest.mark.parametrize(("rows", "size"), [(1, 128), (7_999, 128), (8_000, 256), (32_000, 512), (10**7, 1024)])
def test_the_batch_grows_with_the_root_of_the_data(rows, size):
    assert plan.settings(rows, 2_000).batch_size == size
    assert plan.settings(rows, 2_000, batch_size=7, rate=0.1).batch_size == 7


@pytest.mark.parametrize(
    ("rows", "features", "epochs", "rate"),
    [
        (10**6, 30_000, "auto", 4e-3),
        (1_000, 2_000, "auto", 4e-3),
        (250, 8_000, "auto", 1e-3),  # 4e-3 * sqrt(1 / 16)
        (250, 8_000, 1, 4e-3),  # two steps
        (250, 8_000, 125, 4e-3),  # as many steps as observations
        (250, 8_000, 250, 2e-3),
        (250, 8_000, 1_000, 1e-3),
        (50, 10, "auto", 4e-3),
    ],
)
def test_few_observations_of_many_features_have_a_low_rate_unless_the_budget_is_short(rows, features, epochs, rate):
    assert plan.settings(rows, features, epochs).rate == pytest.approx(rate)
    assert plan.settings(rows, features, epochs, rate=0.1).rate == 0.1


def test_a_number_of_epochs_is_kept_and_auto_waits():
    assert plan.schedule(5, (1_000, 100), 8, Constant()).planned(0) == 40
    assert isinstance(plan.schedule("auto", (1_000, 100), 8, Constant()), Plateau)


@pytest.mark.parametrize(
    ("size", "batches", "between", "window"),
    [
        ((4_000, 2_000), *row)
        for row in [(1, 10, 4), (3, 12, 4), (11, 11, 4), (40, 40, 3), (100, 100, 2), (5_000, 5_000, 2)]
    ]
    + [((2 * 27 * 30, 30), 11, 11, 12), ((2 * 27 * 30, 30), 100, 100, 3), ((2 * 64 * 200, 200), 26, 26, 16)],
)
def test_auto_compares_two_windows_that_are_longer_for_many_observations_of_few_features(
    size, batches, between, window
):
    schedule = plan.schedule("auto", size, batches, Constant())
    start = -(-schedule.ramp // between) * between
    for evaluation in range(2 * window):
        assert schedule.decay_from is None
        schedule.observe(start + evaluation * between, -float(evaluation))
    assert schedule.decay_from == start + (2 * window - 1) * between


@pytest.mark.parametrize(
    ("size", "ramp", "decay"),
    [((3, 10**8), 1, 1), ((250, 8_000), 50, 75), ((500, 500), 200, 300), ((10**6, 10), 200, 300)],
)
def test_few_observations_of_many_features_have_a_short_ramp_and_a_short_fall(size, ramp, decay):
    schedule = plan.schedule("auto", size, 8, Constant())
    assert (schedule.ramp, schedule.length) == (ramp, decay)


@pytest.mark.parametrize(
    ("rows", "features", "encoder", "decoder"),
    [(1, 50, 0.2, 0.2), (1_000, 2_000, 0.2, 0.2), (2_500, 2_000, 0.2, 0.1), (50_000, 5_000, 0.01, 0.005),
     (2_500, 250, 0.2, 0.1), (2_500, 25, 0.02, 0.01)],
)  # fmt: skip
def test_dropout_goes_away_with_more_data_and_fewer_features(rows, features, encoder, decoder):
    assert plan.dropout(rows, features) == pytest.approx((encoder, decoder))
