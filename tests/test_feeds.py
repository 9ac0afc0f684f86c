"""Feeds: whichever way rows reach the step, it is the same step; and what is looked at now and then is not lost."""

import math

import pytest
import torch

from biovae.batch import SparseMatrix
from biovae.errors import TrainingDiverged
from biovae.noise import Noise
from biovae.training import devices
from biovae.training.captured import Captured
from biovae.training.devices import Budget
from biovae.training.feeds import Direct
from biovae.training.streamed import Streamed
from test_training import FEATURES, counts, finish, poison, same, trainer, weights


def fed_by(kind, **how):
    """A run like `trainer`'s, its rows brought by this feed."""
    run = trainer(**how)
    run.feed = kind(run.step, run.observations, run.noise)
    return run


def test_streamed_rows_give_the_same_bits():
    assert same(weights(finish(fed_by(Streamed))), weights(finish(trainer())))


def test_a_streamed_run_goes_on_from_the_middle_of_an_epoch():
    document, tensors = finish(fed_by(Streamed), stop=7).state()
    resumed = fed_by(Streamed)
    resumed.restore(document, tensors)
    assert same(weights(finish(resumed)), weights(finish(trainer())))


def test_what_goes_wrong_in_the_thread_is_raised_where_its_rows_are_taken():
    run = fed_by(Streamed)

    class Broken:
        def batch(self, index):
            raise OSError("the disk is gone")

    run.feed.observations = Broken()
    with pytest.raises(OSError, match="the disk is gone"):
        finish(run)


def test_captured_minibatches_are_equal_and_leave_out_others_each_epoch():
    run, seen = fed_by(Captured, rows=100, batch=32, steps=9), []
    for epoch in range(3):
        run._shuffled = None
        parts = run._parts(epoch)
        assert [len(part) for part in parts] == [32, 32, 32]
        seen.append(set(torch.cat(list(parts)).tolist()))
    assert len(seen[0]) == 96
    assert seen[0] != seen[1] != seen[2]


def test_captured_steps_learn_as_direct_ones_do():
    run, other = finish(fed_by(Captured, steps=80)), finish(trainer(steps=80))
    assert run.progress.history[-1].validation_elbo == pytest.approx(other.progress.history[-1].validation_elbo, abs=2)
    assert run.progress.bound_count == 0
    assert not run.progress.events


@pytest.mark.parametrize("extra", [0, 1, 57])
def test_padding_changes_no_score_and_no_gradient(extra):
    run, rows = trainer(), torch.tensor([3, 50, 7])
    plain = run.observations.batch(rows)
    [needed] = run.observations.capacities(rows.unsqueeze(0))
    padded = run.observations.batch(rows, [needed + extra])
    assert len(padded.x[0].value) == needed + extra
    assert needed == len(plain.x[0].value)
    found = []
    for batch in (plain, padded):
        run.network.eval().zero_grad()
        terms = run.network.terms(batch, Noise(1))
        terms.log_px.sum().backward()
        found.append([terms.log_px] + [w.grad for w in run.network.parameters() if w.grad is not None])
    for a, b in zip(*found, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-4, atol=1e-4)


def test_padded_rows_may_be_empty():
    x = SparseMatrix.from_scipy(torch.tensor([[0, 0], [1, 300], [0, 0], [0, 2]]).numpy())
    for rows in ([0], [0, 2], [1, 0], [0, 3, 2], [3, 1, 1]):
        index = torch.tensor(rows)
        torch.testing.assert_close(x.rows(index, 7).dense(), x.rows(index).dense())


@pytest.mark.parametrize(("top", "kind"), [(255, torch.uint8), (256, torch.int16), (2**15, torch.int32)])
def test_values_are_kept_as_narrow_as_they_allow(top, kind):
    x = SparseMatrix.from_scipy(torch.tensor([[0, top], [1, 0]]).numpy())
    assert x.value.dtype == kind
    assert x.rows(torch.tensor([0])).dense().tolist() == [[0.0, top]]


def test_a_rehearsal_leaves_no_trace():
    run = trainer()
    finish(run, stop=3)
    before, moments = weights(run), {name: value.clone() for name, value in run.state()[1].items()}
    with run.step.rehearsal():
        for i in range(3):
            run.step(run.observations.batch(torch.arange(32)), Noise(0, i))
    assert same(weights(run), before)
    assert all(torch.equal(value, moments[name]) for name, value in run.state()[1].items())
    assert run.step.look().bad == 0


def test_bad_steps_between_two_looks_are_undone_counted_and_said():
    run = trainer(rows=320, steps=60)
    run.look_every = 10
    poison(run, 12, 14, 15)
    before = {}
    for p in run.run():
        if p.step == 12:
            before = weights(run)
        if p.step == 13:
            assert same(weights(run), before)
    [event] = run.progress.events
    assert event.startswith("steps 10 to 19: 3 losses or gradients were not finite")
    assert event.endswith("halved 3 times")
    assert run.schedule.scale == 1 / 8
    assert run.progress.bad == 0


def test_three_bad_steps_in_a_row_between_two_looks_end_the_run():
    run = trainer(rows=320, steps=60)
    run.look_every = 10
    poison(run, 12, 13, 14)
    with pytest.raises(TrainingDiverged, match="3 bad ones in a row"):
        finish(run)
    assert all(value.isfinite().all() for value in weights(run).values())
    run.state()  # the last good state can still be saved


def test_the_tally_does_not_depend_on_how_often_it_is_read():
    often, seldom = trainer(rows=320, steps=30), trainer(rows=320, steps=30)
    seldom.look_every = 7
    rows = [[row.train_elbo for row in finish(run).progress.history] for run in (often, seldom)]
    assert rows[0] == pytest.approx(rows[1], abs=1e-6)


def test_a_gradient_beyond_the_limit_is_shortened_to_it():
    run = trainer(steps=2)
    run.step.clip = 1e-6
    before = weights(run)
    finish(run, stop=1)
    moved = {i: s["exp_avg"] for i, s in run.step.optimiser.state().items()}
    norm = math.sqrt(sum(float(m.square().sum()) for m in moved.values())) / 0.1  # one step of a mean with beta 0.9
    assert norm == pytest.approx(1e-6 * math.sqrt(33), rel=0.05)
    assert not same(before, weights(run))


GIB = 2**30


@pytest.mark.parametrize(("free", "resident"), [(10 * GIB, True), (5 * GIB, False)])
def test_data_that_do_not_fit_are_streamed_and_it_is_said(free, resident):
    memory = Budget(free, 5 * GIB, GIB)
    assert memory.resident == resident
    assert ("kept on the device" if resident else "streamed") in str(memory)
    kind = devices.feed_kind(counts(4), torch.device("cuda"), memory)
    assert kind == (Captured if resident else Streamed)
    assert devices.feed_kind(counts(4), torch.device("cpu"), None) == Direct


def test_observations_know_their_size():
    x = counts(50)
    entries = len(x.x[0].value)
    assert x.nbytes == 51 * 8 + entries * (2 + x.x[0].value.element_size()) + 50 * 4
    assert x.x[0].shape[1] == FEATURES
