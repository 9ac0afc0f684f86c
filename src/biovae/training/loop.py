"""The training loop: minibatches in, the best weights out.

One step is: gather rows, terms of the bound, objective, gradient, guard, AdamW. Everything random comes from
Noise(seed, epoch, step), so that a run continued from a checkpoint takes the same steps as one that was never stopped.
"""

import math
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field
from typing import Any

import torch
from jaxtyping import Int
from torch import Tensor, nn

from biovae.batch import Batch, Observations
from biovae.errors import TrainingDiverged
from biovae.network import Network
from biovae.noise import Noise
from biovae.objective import Objective, elbo
from biovae.training.schedule import Schedule

BAD_STEPS = 3  # in a row: then the run is given up
ENTRIES = 2**20  # values of a minibatch that is only scored: 4 MB of float32 for each of a few arrays
EVALUATED = 4096  # validation observations that steer training: their mean is known to a 64th of their spread


@dataclass(frozen=True)
class Settings:
    """Numbers of the optimiser, chosen from the size of the data by `plan.settings`."""

    batch_size: int
    rate: float
    weight_decay: float = 1e-3
    betas: tuple[float, float] = (0.9, 0.99)
    clip: float = 100.0
    steps_between: int = 20  # optimiser steps between evaluations, at least one epoch


@dataclass(frozen=True)
class Evaluation:
    """One row of `history.csv`; bounds at beta 1 without free bits, in nats per observation."""

    epoch: int
    step: int
    seconds: float
    beta: float
    learning_rate: float
    train_elbo: float | None  # None where every step since the last evaluation was undone
    validation_elbo: float
    validation_reconstruction: float
    validation_kl: float


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
        rows: Those to learn from; those that steer the schedule and choose the best weights; the second may be empty.
        aim: What is maximised, and the weight of the KL when its warm-up is over.
        schedule: Rate and beta by step, and the end.
        settings: Numbers of the optimiser.
        noise: Source of every draw.
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
    ) -> None:
        self.network, self.observations, self.schedule, self.settings, self.noise = (
            network,
            observations,
            schedule,
            settings,
            noise,
        )
        self.train_rows, self.validation_rows = rows
        self.objective, self.beta = aim
        self.optimiser = _optimiser(network, settings)
        self.progress = Progress()
        self.best: dict[str, Tensor] = {}
        self._shuffled: tuple[int, tuple[Tensor, ...]] | None = None
        self.parameters = list(network.parameters())
        self.buffers = [b for b in network.buffers() if b.is_floating_point()]

    @property
    def batches(self) -> int:
        """Steps per epoch: the remainder is spread over them, so that no batch is tiny."""
        return max(1, round(len(self.train_rows) / self.settings.batch_size))

    def planned(self) -> int:
        """Total steps, as far as the schedule knows."""
        return self.schedule.planned(self.progress.step)

    def run(self) -> Iterator[Progress]:
        """Train to the end of the schedule; yields after every step, so that the caller may save, show, or stop."""
        p = self.progress
        while not self.schedule.finished(p.step):
            started = time.perf_counter()
            parts = self._parts(p.epoch)
            self._step(self.observations.batch(parts[p.step_in_epoch]))
            p.step_in_epoch += 1
            over = self.schedule.finished(p.step)
            if over or p.step_in_epoch == len(parts):
                p.epoch, p.step_in_epoch = p.epoch + 1, 0
                if over or p.step - p.evaluated_at >= self.settings.steps_between:
                    self._evaluate(p.seconds + time.perf_counter() - started)
            p.seconds += time.perf_counter() - started
            yield p
        self.restore_best()

    def restore_best(self) -> None:
        """Put the best weights into the network, if the full objective was ever in force."""
        if self.best:
            self.network.load_state_dict(self.best)

    def _parts(self, epoch: int) -> tuple[Tensor, ...]:
        """The minibatches of an epoch, a function of (seed, epoch) alone; the remainder is spread over them."""
        if self._shuffled is None or self._shuffled[0] != epoch:
            order = self.noise.at(epoch).permutation(len(self.train_rows))
            self._shuffled = (epoch, self.train_rows[order].tensor_split(self.batches))
        return self._shuffled[1]

    def state(self) -> tuple[dict[str, Any], dict[str, Tensor]]:
        """Everything that a checkpoint needs to continue bit by bit: a document and tensors."""
        tensors = {f"network/{name}": value for name, value in self.network.state_dict().items()}
        tensors |= {f"best/{name}": value for name, value in self.best.items()}
        for i, state in self.optimiser.state_dict()["state"].items():
            tensors |= {f"optimiser/{i}/{name}": torch.as_tensor(value) for name, value in state.items()}
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
        self.optimiser.load_state_dict(self.optimiser.state_dict() | {"state": moments})

    def _step(self, batch: Batch) -> None:
        p, network = self.progress, self.network
        if not network.training:
            network.train()
        kept = [b.clone() for b in self.buffers]
        for group in self.optimiser.param_groups:
            group["lr"] = self.settings.rate * self.schedule.rate(p.step)
        noise, objective = self.noise.at(p.epoch + 1, p.step_in_epoch + 1), self.objective
        self.optimiser.zero_grad()
        terms = network.terms(
            batch,
            noise,
            samples=objective.samples,
            train=True,
            doubly=objective.doubly,
            densities=objective.densities,
        )
        loss = -objective(terms, self.beta * self.schedule.share(p.step)).mean()
        if terms.lesson is not None:
            loss = loss + terms.lesson.mean()
        loss.backward()
        norm = _clip(self.parameters, self.settings.clip * math.sqrt(len(batch)))
        if torch.isfinite(norm + loss):
            self.optimiser.step()
            p.bad = 0
            p.bound_sum += float(elbo(terms).detach().sum())
            p.bound_count += len(batch)
        else:
            self._undo(kept, float(loss.detach()))
        p.step += 1

    def _undo(self, kept: list[Tensor], loss: float) -> None:
        """Weights were not touched; put back what the forward pass changed, and go on at half the rate."""
        p = self.progress
        for buffer, value in zip(self.buffers, kept, strict=True):
            buffer.copy_(value)
        p.bad += 1
        self.schedule.scale *= 0.5
        p.events.append(f"step {p.step}: loss {loss:g} or its gradient was not finite; undone, learning rate halved")
        if p.bad >= BAD_STEPS:
            raise TrainingDiverged(
                f"expected finite steps, found {BAD_STEPS} bad ones in a row at step {p.step} (epoch {p.epoch}); "
                "the last good weights were kept: fit with a lower learning rate, or look for extreme values."
            )

    def _evaluate(self, seconds: float) -> None:
        p, schedule = self.progress, self.schedule
        rows = self.validation_rows if len(self.validation_rows) else self.train_rows
        bound, reconstruction, kl = evaluate(self.network, self.observations, rows[:EVALUATED], self.noise)
        share = schedule.share(max(p.step - 1, 0))
        train = p.bound_sum / p.bound_count if p.bound_count else None
        rate = self.settings.rate * schedule.rate(p.step - 1)
        p.history.append(
            Evaluation(p.epoch, p.step, seconds, self.beta * share, rate, train, bound, reconstruction, kl)
        )
        p.bound_sum, p.bound_count, p.evaluated_at = 0.0, 0, p.step
        # What chooses the best weights is the bound at the beta that was asked for.
        aim = reconstruction - self.beta * kl
        schedule.observe(p.step, aim)
        if share == 1 and aim > p.best:
            p.best, p.best_epoch = aim, p.epoch
            self.best = {name: value.detach().clone() for name, value in self.network.state_dict().items()}


def _clip(parameters: list[nn.Parameter], limit: float) -> Tensor:
    """Scale the gradient down to the limit, and say how large it was; nothing is touched where it is smaller."""
    norm = torch.nn.utils.get_total_norm([w.grad for w in parameters if w.grad is not None])
    if norm > limit:
        torch.nn.utils.clip_grads_with_norm_(parameters, limit, norm)
    return norm


def _under(prefix: str, tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    return {name.removeprefix(prefix): value for name, value in tensors.items() if name.startswith(prefix)}


def _optimiser(network: Network, settings: Settings) -> torch.optim.AdamW:
    """AdamW; vectors (biases, norms, dispersions) are not decayed."""
    matrices = [w for w in network.parameters() if w.dim() > 1]
    vectors = [w for w in network.parameters() if w.dim() <= 1]
    groups = [{"params": matrices, "weight_decay": settings.weight_decay}, {"params": vectors, "weight_decay": 0.0}]
    return torch.optim.AdamW(groups, lr=settings.rate, betas=settings.betas, fused=True)


@torch.no_grad()
def evaluate(
    network: Network, observations: Observations, rows: Int[Tensor, "rows"], noise: Noise
) -> tuple[float, float, float]:
    """Mean bound at beta 1, reconstruction and KL of some rows, in nats per observation; the same draws every time."""
    network.eval()
    sums = torch.zeros(3, dtype=torch.float64)
    widest = max(m.features for m in network.parts)
    for i, part in enumerate(rows.split(max(16, min(512, ENTRIES // widest)))):
        t = network.terms(observations.batch(part), noise.at(-1, i), densities=False)
        kl = t.kl_by_group.sum(-1)
        reconstruction = (t.log_px - t.library).mean(0)
        sums += torch.stack([(reconstruction - kl).sum(), reconstruction.sum(), kl.sum()]).double().cpu()
    bound, reconstruction, kl = (sums / max(len(rows), 1)).tolist()
    return bound, reconstruction, kl
