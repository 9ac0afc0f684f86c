"""The training loop: minibatches in, the best weights out.

One step is: gather rows (see `feeds`), and what `step` does with them. Everything random comes from Noise(seed, epoch,
step), so that a run continued from a checkpoint takes the same steps as one that was never stopped: on a CPU bit by
bit, on a GPU, which adds in any order, to rounding.
"""

import math
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

import torch
from jaxtyping import Int
from torch import Tensor

from biovae.batch import Observations
from biovae.errors import TrainingDiverged
from biovae.network import Network
from biovae.noise import Noise
from biovae.objective import ELBO, Objective
from biovae.training.feeds import Direct, Feed
from biovae.training.schedule import Schedule
from biovae.training.step import Settings, Step

BAD_STEPS = 3  # in a row: then the run is given up
LOOK = 100  # steps between looks at what an accelerator has done; a CPU is asked after each
ENTRIES = 2**20  # values of a minibatch that is only scored: 4 MB of float32 for each of a few arrays
EVALUATED = 4096  # validation observations that steer training: their mean is known to a 64th of their spread


@dataclass(frozen=True)
class Evaluation:
    """One row of `history.csv`; bounds at beta 1 without free bits, in nats per observation."""

    epoch: int
    step: int
    seconds: float
    beta: float
    learning_rate: float
    train_elbo: float | None  # None where every step since the last evaluation was undone
    validation_elbo: float | None  # None, like the next two, where nothing was held out
    validation_reconstruction: float | None
    validation_kl: float | None


@dataclass
class Progress:
    """All that a run knows of itself beside weights: what a checkpoint stores as JSON."""

    epoch: int = 0
    step: int = 0
    step_in_epoch: int = 0
    seconds: float = 0.0
    bound_sum: float = 0.0  # of the training bound since the last evaluation, and its observations
    bound_count: int = 0
    bad: int = 0
    best: float = -math.inf
    best_epoch: int = -1
    evaluated_at: int = 0
    history: list[Evaluation] = field(default_factory=list)
    events: list[str] = field(default_factory=list)

    def document(self) -> dict[str, Any]:
        """JSON-able; -inf, which JSON lacks, becomes None."""
        return asdict(self) | {"best": None if self.best == -math.inf else self.best}

    @classmethod
    def from_document(cls, document: dict[str, Any]) -> "Progress":
        """Undo `document`."""
        history = [Evaluation(**row) for row in document["history"]]
        best = -math.inf if document["best"] is None else document["best"]
        return cls(**(document | {"history": history, "best": best}))


class Trainer:
    """A run in progress: network, optimiser, schedule and what happened so far.

    Args:
        network: Trained in place.
        observations: Training and validation rows, in memory.
        rows: Those to learn from; those that steer the schedule and choose the best weights. Where there are none of
            the second kind, the first steer.
        aim: What is maximised, and the weight of the KL when its warm-up is over.
        schedule: Rate and beta by step, and the end.
        settings: Numbers of the optimiser.
        noise: Source of every draw.
        feed: How minibatches reach the step; None cuts them from observations that lie where the network does.
    """

    def __init__(  # noqa: PLR0913 - a run is all of these
        self,
        network: Network,
        observations: Observations,
        rows: tuple[Int[Tensor, "train"], Int[Tensor, "validation"]],
        aim: tuple[Objective, float],
        schedule: Schedule,
        settings: Settings,
        noise: Noise,
        feed: Callable[[Step], Feed] | None = None,
    ) -> None:
        self.network, self.observations, self.schedule, self.settings, self.noise = (
            network,
            observations,
            schedule,
            settings,
            noise,
        )
        self.train_rows, self.validation_rows = rows
        self.steering = some(self.validation_rows if len(self.validation_rows) else self.train_rows, noise)
        self.objective, self.beta = aim
        self.step = Step(network, self.objective, settings)
        self.feed = Direct(self.step, observations, noise) if feed is None else feed(self.step)
        self.progress = Progress()
        self.best: dict[str, Tensor] = {}
        self._shuffled: tuple[int, Sequence[Tensor]] | None = None
        self.look_every = 1 if self.step.device.type == "cpu" else LOOK
        self._looked_at = 0

    def planned(self) -> int:
        """Total steps, at most."""
        return self.schedule.planned(self.progress.step)

    def settled(self) -> bool:
        """Whether that is how many they will be."""
        return self.schedule.settled

    def run(self) -> Iterator[Progress]:
        """Train to the end of the schedule; yields after every step, so that the caller may save, show, or stop."""
        try:
            yield from self._steps()
        finally:
            self.feed.end()
        self.restore_best()

    def _steps(self) -> Iterator[Progress]:
        p = self.progress
        while not self.schedule.finished(p.step):
            started = time.perf_counter()
            parts = self._parts(p.epoch)
            self._step(parts[p.step_in_epoch])
            p.step_in_epoch += 1
            over = self.schedule.finished(p.step)
            if over or p.step_in_epoch == len(parts):
                p.epoch, p.step_in_epoch = p.epoch + 1, 0
                if over or p.step - p.evaluated_at >= self.settings.steps_between:
                    self._evaluate(p.seconds + time.perf_counter() - started)
            p.seconds += time.perf_counter() - started
            yield p

    def restore_best(self) -> None:
        """Put the best weights into the network, if the full objective was ever in force."""
        if self.best:
            self.network.load_state_dict(self.best)

    def _parts(self, epoch: int) -> Sequence[Tensor]:
        """The minibatches of an epoch, a function of (seed, epoch) alone."""
        if self._shuffled is None or self._shuffled[0] != epoch:
            order = self.noise.at(epoch).permutation(len(self.train_rows)).to(self.train_rows.device)
            parts = self.feed.cut(self.train_rows[order], self.settings.batch_size)
            self.feed.begin(parts[self.progress.step_in_epoch :])
            self._shuffled = (epoch, parts)
        return self._shuffled[1]

    def state(self) -> tuple[dict[str, Any], dict[str, Tensor]]:
        """Everything that a checkpoint needs to continue bit by bit: a document and tensors."""
        self._collect()
        tensors = {f"network/{name}": value for name, value in self.network.state_dict().items()}
        tensors |= {f"best/{name}": value for name, value in self.best.items()}
        for i, moments in self.step.optimiser.state().items():
            tensors |= {f"optimiser/{i}/{name}": value for name, value in moments.items()}
        return {"progress": self.progress.document(), "schedule": self.schedule.state()}, tensors

    def restore(self, document: dict[str, Any], tensors: dict[str, Tensor]) -> None:
        """Continue from what `state` gave."""
        self.progress = Progress.from_document(document["progress"])
        self.schedule.restore(document["schedule"])
        self.network.load_state_dict(_under("network/", tensors))
        self.best = _under("best/", tensors)
        moments: dict[int, dict[str, Tensor]] = {}
        for path, value in _under("optimiser/", tensors).items():
            i, name = path.split("/")
            moments.setdefault(int(i), {})[name] = value
        self.step.restore(moments)
        self.step.begin(in_a_row=self.progress.bad)
        self._looked_at = self.progress.step

    def _step(self, index: Int[Tensor, "obs"]) -> None:
        p = self.progress
        if not self.network.training:
            self.network.train()
        self.step.aim(self.settings.rate * self.schedule.rate(p.step), self.beta * self.schedule.share(p.step))
        self.feed(index, (p.epoch + 1, p.step_in_epoch + 1))
        p.step += 1
        if p.step - self._looked_at >= self.look_every:
            self._collect()
        if p.bad >= BAD_STEPS:
            raise TrainingDiverged(
                f"expected finite steps, found {BAD_STEPS} bad ones in a row at step {p.step - 1} (epoch {p.epoch}); "
                "the last good weights were kept: fit with a lower learning rate, or look for extreme values."
            )

    def _collect(self) -> None:
        """Take over what the step has tallied since the last time; a bad step costs half the rate."""
        p, found = self.progress, self.step.look()
        p.bound_sum += found.bound
        p.bound_count += round(found.observations)
        p.bad = round(found.in_a_row if found.most_in_a_row < BAD_STEPS else found.most_in_a_row)
        if found.bad:
            self.schedule.scale *= 0.5**found.bad
            since = f"step {p.step - 1}: loss {found.loss:g} or its gradient was"
            if p.step - self._looked_at > 1:
                since = f"steps {self._looked_at} to {p.step - 1}: {found.bad:.0f} losses or gradients were"
            halved = "halved" if found.bad == 1 else f"halved {found.bad:.0f} times"
            p.events.append(f"{since} not finite; undone, learning rate {halved}")
        self._looked_at = p.step

    def _evaluate(self, seconds: float) -> None:
        self._collect()
        p, schedule = self.progress, self.schedule
        aim, *found = evaluate(self.network, self.observations, self.steering, self.noise, self.objective, self.beta)
        held_out = found if len(self.validation_rows) else (None, None, None)
        share = schedule.share(max(p.step - 1, 0))
        train = p.bound_sum / p.bound_count if p.bound_count else None
        rate = self.settings.rate * schedule.rate(p.step - 1)
        p.history.append(Evaluation(p.epoch, p.step, seconds, self.beta * share, rate, train, *held_out))
        p.bound_sum, p.bound_count, p.evaluated_at = 0.0, 0, p.step
        schedule.observe(p.step, aim)
        if share == 1 and aim > p.best:
            p.best, p.best_epoch = aim, p.epoch
            self.best = {name: value.detach().clone() for name, value in self.network.state_dict().items()}


def some(rows: Int[Tensor, "rows"], noise: Noise) -> Int[Tensor, "some"]:
    """At most EVALUATED of the rows, drawn at random: files are often sorted."""
    if len(rows) <= EVALUATED:
        return rows
    return rows[noise.permutation(len(rows))[:EVALUATED].sort().values.to(rows.device)]


def _under(prefix: str, tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    return {name.removeprefix(prefix): value for name, value in tensors.items() if name.startswith(prefix)}


@torch.no_grad()
def evaluate(
    network: Network,
    observations: Observations,
    rows: Int[Tensor, "rows"],
    noise: Noise,
    objective: Objective = ELBO(),  # noqa: B008 - frozen
    beta: float = 1.0,
) -> tuple[float, float, float, float]:
    """Means of the objective at its beta, of the bound at beta 1, the reconstruction, and the KL.

    In nats per observation. The first chooses the best weights, the others are for people. The same draws every time.
    """
    network.eval()
    sums = torch.zeros(4, dtype=torch.float64)
    widest = max(m.features for m in network.parts) * objective.samples
    for i, part in enumerate(rows.split(max(16, min(512, ENTRIES // widest)))):
        batch, draws = observations.batch(part).to(noise.device), noise.at(-1, i)
        t = network.terms(batch, draws, samples=objective.samples, densities=objective.densities)
        kl = t.kl_by_group.sum(-1)
        reconstruction = (t.log_px - t.library).mean(0)
        parts = (objective(t, beta), reconstruction - kl, reconstruction, kl)
        sums += torch.stack([part.sum() for part in parts]).cpu().double()
    aim, bound, reconstruction, kl = (sums / max(len(rows), 1)).tolist()
    return aim, bound, reconstruction, kl
