"""The loop: it learns, repeats itself bit by bit, goes on from any step, and survives what is not finite."""

import math
import signal
import time
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from biovae.batch import Observations, SparseMatrix
from biovae.errors import TrainingDiverged
from biovae.likelihoods import NegativeBinomialCounts
from biovae.modalities.experts import ModalityNetwork, Sizes
from biovae.modalities.modality import Modality
from biovae.modalities.views import RootCounts
from biovae.network import Network
from biovae.nn import MLP
from biovae.noise import Noise
from biovae.objective import ELBO, IWAE, TotalCorrelation
from biovae.posteriors import Diagonal
from biovae.priors import StandardNormal
from biovae.training import crowding
from biovae.training import progress as shown
from biovae.training.loop import EVALUATED, Evaluation, Progress, Trainer, evaluate, some
from biovae.training.schedule import LinearWarmup, OneCycle
from biovae.training.step import Settings
from biovae.training.stopping import INTERRUPT, TERMINATE, stop_requests

FEATURES, LATENT, HELD_OUT = 12, 2, 20
NOTHING = torch.zeros(0, dtype=torch.int64)


def counts(rows: int) -> Observations:
    """Three kinds of observation that differ in what they are made of."""
    rng = np.random.default_rng(0)
    profiles = rng.dirichlet(np.full(FEATURES, 0.5), size=3)
    x = rng.poisson(200 * profiles[rng.integers(3, size=rows)])
    x[:, 0] += 1
    exposure = torch.from_numpy(x.sum(1, keepdims=True)).float()
    return Observations((SparseMatrix.from_scipy(x),), (exposure,), (None,), torch.zeros(rows, 0))


def trainer(
    rows: int = 100, *, steps: int = 30, seed: int = 0, batch: int = 32, rate: float = 1e-2, **other
) -> Trainer:
    noise, observations = Noise(seed), counts(rows + HELD_OUT)
    modality = Modality(name="rna", likelihood=NegativeBinomialCounts(), view=RootCounts())
    sizes = Sizes(FEATURES, LATENT, 0, 0, levels=None, library_levels=None)
    part = ModalityNetwork(modality, (MLP(hidden=8), MLP(hidden=8, dropout=0)), Diagonal(), sizes, noise)
    network = Network([part], StandardNormal().build(LATENT, [FEATURES], noise), columns=(NOTHING, NOTHING))
    train = torch.arange(rows)
    network.start(observations, train, noise)
    return Trainer(
        network,
        observations,
        (train, torch.arange(rows, rows + HELD_OUT)),
        (other.get("objective", ELBO()), 1.0),
        OneCycle(steps, LinearWarmup()),
        Settings(batch_size=batch, rate=rate, steps_between=5),
        noise,
    )


def finish(run: Trainer, stop: int | None = None) -> Trainer:
    for progress in run.run():
        if progress.step == stop:
            break
    return run


def weights(run: Trainer) -> dict[str, torch.Tensor]:
    return {name: value.clone() for name, value in run.network.state_dict().items()}


def same(a: dict[str, torch.Tensor], b: dict[str, torch.Tensor]) -> bool:
    return a.keys() == b.keys() and all(torch.equal(a[name], b[name]) for name in a)


def poison(run: Trainer, *steps: int) -> None:
    """A NaN in the gradient of one weight, at these steps; the loss itself stays finite."""
    weight = run.network.modalities[0].head.mean.weight
    weight.register_hook(lambda grad: grad * math.nan if run.progress.step in steps else grad)


@pytest.mark.parametrize("objective", [ELBO(), IWAE(samples=4), TotalCorrelation()], ids=lambda o: o.kind)
def test_the_bound_rises(objective):
    run = finish(trainer(steps=80, objective=objective))
    bounds = [row.validation_elbo for row in run.progress.history]
    assert run.progress.best > bounds[0] + 5
    assert run.progress.history[-1].beta == 1.0
    assert not run.progress.events


@pytest.mark.parametrize(
    ("objective", "sign"), [(TotalCorrelation(weight=20.0), -1), (IWAE(samples=20), 1), (ELBO(free_bits=20.0), -1)],
    ids=lambda o: getattr(o, "kind", ""),
)  # fmt: skip
def test_the_objective_that_was_asked_for_chooses_the_best_weights(objective, sign):
    run = finish(trainer(steps=40, objective=objective))
    aim, bound, reconstruction, kl = evaluate(
        run.network, run.observations, run.validation_rows, run.noise, run.objective
    )
    assert bound == pytest.approx(reconstruction - kl, abs=1e-3)
    assert sign * (aim - bound) > 0.01  # a charge, a tighter bound, an allowance that is not used up
    assert run.progress.best == pytest.approx(aim, abs=1e-3)


def test_beta_weighs_the_kl_where_weights_are_chosen():
    run = finish(trainer(steps=10))
    aim, _, reconstruction, kl = evaluate(
        run.network, run.observations, run.validation_rows, run.noise, beta=3.0
    )  # fmt: skip
    assert aim == pytest.approx(reconstruction - 3 * kl, rel=1e-5)


def test_many_rows_are_judged_by_some_of_them_from_everywhere():
    rows = torch.arange(100, 100 + 20 * EVALUATED)
    chosen = some(rows, Noise(0))
    assert len(chosen) == EVALUATED
    assert (chosen.diff() > 0).all()
    assert set(chosen.tolist()) <= set(rows.tolist())
    tenths = torch.bincount((chosen - 100) * 10 // len(rows), minlength=10)
    assert (tenths - EVALUATED / 10).abs().max() < 0.02 * EVALUATED
    assert torch.equal(chosen, some(rows, Noise(0)))
    assert torch.equal(some(rows[:50], Noise(0)), rows[:50])


def test_without_held_out_observations_nothing_poses_as_one():
    run = trainer(steps=40)
    run = Trainer(
        run.network, run.observations, (run.train_rows, torch.arange(0)), (run.objective, 1.0), run.schedule,
        run.settings, run.noise,
    )  # fmt: skip
    finish(run)
    row = run.progress.history[-1]
    assert (row.validation_elbo, row.validation_reconstruction, row.validation_kl) == (None, None, None)
    assert row.train_elbo is not None
    assert run.best


def test_the_best_weights_are_handed_back():
    run = finish(trainer(steps=40))
    assert same(weights(run), run.best)
    full = [row.validation_elbo for row in run.progress.history if row.beta == 1.0]
    assert run.progress.best == pytest.approx(max(full), abs=1e-4)


def test_the_same_seed_gives_the_same_bits():
    first, again, other = finish(trainer(seed=3)), finish(trainer(seed=3)), finish(trainer(seed=4))
    assert same(weights(first), weights(again))
    assert not same(weights(first), weights(other))


@pytest.mark.parametrize("stop", [1, 7, 17, 29])
def test_a_run_cut_in_an_epoch_goes_on_bit_by_bit(stop):
    whole = finish(trainer())
    document, tensors = finish(trainer(), stop=stop).state()
    assert document["progress"]["step_in_epoch"] == stop % 3
    resumed = trainer(seed=0)
    resumed.restore(document, {name: value.clone() for name, value in tensors.items()})
    assert same(weights(finish(resumed)), weights(whole))
    timeless = [row | {"seconds": 0} for row in resumed.progress.document()["history"]]
    assert timeless == [row | {"seconds": 0} for row in whole.progress.document()["history"]]


def test_a_step_that_is_not_finite_is_undone():
    run = trainer(steps=20)
    poison(run, 5)
    finish(run, stop=5)
    before = weights(run)
    moments = {name: value.clone() for name, value in run.state()[1].items()}
    steps = run.run()
    next(steps)
    assert same(weights(run), before)
    assert all(torch.equal(value, moments[name]) for name, value in run.state()[1].items())
    assert run.schedule.scale == 0.5
    [event] = run.progress.events
    assert event.startswith("step 5: ")
    assert event.endswith("learning rate halved")
    next(steps)
    assert not same(weights(run), before)
    assert run.progress.bad == 0


def test_three_in_a_row_end_the_run_with_finite_weights():
    run = trainer()
    poison(run, 2, 3, 5, 6, 7)
    with pytest.raises(TrainingDiverged, match="3 bad ones in a row at step 7"):
        finish(run)
    assert len(run.progress.events) == 5
    assert all(value.isfinite().all() for value in weights(run).values())


def test_a_loss_that_is_not_finite_is_undone_with_its_statistics():
    run = trainer(steps=4)
    run.observations.exposure[0][:100] = math.nan
    before = weights(run)
    with pytest.raises(TrainingDiverged):
        finish(run)
    assert same(weights(run), before)


@pytest.mark.parametrize("rows", [1, 2, 5, 32, 33, 65])
def test_no_minibatch_is_tiny(rows):
    run = trainer(rows, steps=4)
    sizes = [len(part) for part in run._parts(0)]
    assert sum(sizes) == rows
    assert max(sizes) - min(sizes) <= 1
    assert all(value.isfinite().all() for value in weights(finish(run)).values())


def test_every_epoch_sees_every_observation_once_in_an_order_of_its_own():
    run = trainer()
    first, second = (torch.cat(run._parts(epoch)) for epoch in (0, 1))
    assert not torch.equal(first, second)
    assert torch.equal(first.sort().values, second.sort().values)


def test_a_rate_a_thousand_times_too_high_fails_loudly_or_stays_finite():
    run = trainer(rate=10.0)
    try:
        finish(run)
    except TrainingDiverged:
        assert len(run.progress.events) >= 3
    assert all(value.isfinite().all() for value in weights(run).values())


@pytest.mark.parametrize(("settled", "said"), [(True, "step 1 of 9, "), (False, "step 1 of at most 9, ")])
def test_an_open_end_is_said_to_be_open(settled, said, capsys):
    row = Evaluation(1, 1, 0.1, 1.0, 1e-3, -5.0, -5.0, -4.0, 1.0)

    class Run:
        progress = Progress()

        def run(self):
            self.progress.step, self.progress.history = 1, [row]
            yield self.progress

        def planned(self):
            return 9

        def settled(self):
            return settled

    list(shown._lines(Run(), crowding.Crowding(1), every=0.0))
    assert said in capsys.readouterr().err


def test_slow_parts_are_counted_without_a_terminal(monkeypatch, capsys):
    def parts():
        for i in range(4):
            time.sleep(0.02)
            yield i

    assert list(shown.passing(parts(), 4, "walking", show=True)) == [0, 1, 2, 3]
    assert capsys.readouterr().err == ""
    monkeypatch.setattr(shown, "SELDOM", 0.03)
    assert list(shown.passing(parts(), 4, "walking", show=True)) == [0, 1, 2, 3]
    said = capsys.readouterr().err
    assert "walking: " in said
    assert " of 4" in said
    assert list(shown.passing(parts(), 4, "walking", show=False)) == [0, 1, 2, 3]
    assert capsys.readouterr().err == ""


def test_a_slow_first_step_is_explained(monkeypatch, capsys):
    class Slow:
        progress = Progress()

        def run(self):
            time.sleep(0.3)
            yield self.progress
            time.sleep(0.3)
            yield self.progress

        def planned(self):
            return 2

        def settled(self):
            return True

    monkeypatch.setattr(shown, "PATIENCE", 0.05)
    assert len(list(shown.watch(Slow(), show=True))) == 2
    assert capsys.readouterr().err.count(shown.SLOW_START) == 1
    assert len(list(shown.watch(Slow(), show=False))) == 2


@pytest.mark.parametrize(
    ("threads", "had", "said"), [(2, 2.0, False), (2, 1.2, True), (1, 0.5, False), (8, 7.5, False)]
)
def test_cores_that_others_keep_busy_are_spoken_of_once(threads, had, said, monkeypatch):
    seconds = [0.0]
    clocks = SimpleNamespace(monotonic=lambda: seconds[0], process_time=lambda: had * seconds[0])
    monkeypatch.setattr(crowding, "time", clocks)
    watching, heard = crowding.Crowding(threads), []
    for seconds[0] in range(60):
        heard.append(watching.look())
    assert not any(heard[: int(crowding.IN_A_ROW * crowding.WINDOW)])
    assert len(list(filter(None, heard))) == said
    assert (f"{had} of {threads}" in str(heard)) == said


@pytest.mark.skipif(not hasattr(signal, "raise_signal"), reason="no signals on this system")
def test_a_run_that_keeps_nothing_leaves_the_signal_to_end_it_alone():
    def ended(number: int, frame: object) -> None:
        raise SystemExit(143)

    before = signal.signal(signal.SIGTERM, ended)
    try:
        with stop_requests(INTERRUPT) as request:
            signal.raise_signal(signal.SIGINT)
            assert request.number == INTERRUPT
            with pytest.raises(SystemExit):
                signal.raise_signal(signal.SIGTERM)
        with stop_requests(INTERRUPT, TERMINATE) as request:
            signal.raise_signal(signal.SIGTERM)
        assert request.number == TERMINATE
        assert signal.getsignal(signal.SIGTERM) is ended
    finally:
        signal.signal(signal.SIGTERM, before)
