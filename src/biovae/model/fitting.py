"""A fit from a recipe and prepared data to a fitted network: the straight line through training."""

import hashlib
import json
import logging
import sys
from contextlib import nullcontext
from dataclasses import dataclass
from itertools import combinations
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from jaxtyping import Float

from biovae.batch import Observations, SparseMatrix
from biovae.data import Prepared, Role
from biovae.errors import InputError, Interrupted, ResumeError, TrainingDiverged
from biovae.kernels import kernel_fits, loops
from biovae.model.build import BUILD, dropout, network
from biovae.model.null import NullModel
from biovae.model.recipe import Architecture
from biovae.network import Network
from biovae.nn import SPARSE
from biovae.noise import Noise
from biovae.schema import Schema
from biovae.training import devices, plan
from biovae.training.checkpoints import Checkpoints
from biovae.training.loop import Progress, Trainer
from biovae.training.progress import FITTING, watch
from biovae.training.stopping import INTERRUPT, TERMINATE, stop_requests
from biovae.training.streamed import Streamed

LOGGER = logging.getLogger("biovae")
TINY = 1e-12  # of a spread of logs
SAVE_SECONDS = 10.0  # between checkpoints: what a kill can cost


@dataclass(frozen=True)
class Options:
    """How a fit is run, beside what is fitted: see `VAE.fit`."""

    epochs: plan.Epochs = "auto"
    batch_size: int | None = None
    rate: float | None = None
    seed: int = 0
    device: str = "cpu"
    checkpoints: Path | None = None
    resume: bool = False
    progress: bool = True
    ensemble: int = 1
    workers: int = 1
    label: str = FITTING  # what a line of progress begins with

    def __post_init__(self) -> None:
        for name, value, least in (
            ("seed", self.seed, 0),
            ("batch_size", self.batch_size, 1),
            ("workers", self.workers, 1),
        ):
            if value is not None and value < least:
                raise InputError(f"expected {name} of at least {least}, found {value}: give another.")


@dataclass(frozen=True)
class Fitted:
    """What a fit leaves behind: the network, the schema, and the record of the run. No data."""

    network: Network
    null: NullModel
    schema: Schema
    history: pd.DataFrame
    record: dict[str, Any]  # JSON-able: seed, epochs, batch size, final beta, events, best epoch, seconds


def fit(recipe: Architecture, prepared: Prepared, roles: np.ndarray, options: Options) -> Fitted:
    """Train the network of `recipe` on the training rows of `prepared`; it comes back to the memory of the CPU.

    Raises:
        InputError: The device is not there.
    """
    device = _reach(options.device)
    train, validation = (_rows(roles, role) for role in (Role.TRAIN, Role.VALIDATION))
    observations, net = prepared.observations, network(recipe, prepared.schema, options.seed, len(train))
    _check_carried(prepared, train)
    net.start(observations, train, Noise(options.seed).at(BUILD))
    for modality, x in zip(recipe.modalities, observations.x, strict=True):
        LOGGER.debug("%s: %s", modality.name, _path(x))
    with devices.on(device):
        trainer = _trainer(recipe, net.to(device), (observations, train, validation), options)
        _run(trainer, _identity(recipe, prepared, roles, options) | {"plan": _plan(trainer)}, options)
    net = net.eval().to("cpu")
    null = NullModel(recipe.modalities, net, options.seed).fit(observations, train)
    p = trainer.progress
    history = pd.DataFrame([vars(row) for row in p.history]).apply(pd.to_numeric)
    record = {
        "seed": options.seed,
        "epochs": p.epoch,
        "steps": p.step,
        "best_epoch": p.best_epoch,
        "seconds": p.seconds,
        "batch_size": trainer.settings.batch_size,
        "learning_rate": trainer.settings.rate,
        "dropout": list(dropout(recipe, (len(train), sum(x.shape[1] for x in observations.x)))),
        "final_beta": p.history[-1].beta if p.history else recipe.beta,
        "events": list(p.events),
        "interrupted": any(event.startswith("interrupted") for event in p.events),
        "validation_null": float(null.score(observations, trainer.steering.cpu()).mean()) if len(validation) else None,
        "train_observations": len(train),
        "carriers": [len(observations.carriers(m, train)) for m in range(len(observations.x))],
        "design": observations.covariates[train].mean(0).tolist(),
        "exposure": [_log_moments(observations, m, train) for m in range(len(observations.x))],
        "exposure_correlation": _log_correlation(observations, train).tolist(),
    }
    return Fitted(net, null, prepared.schema, history, record)


def _trainer(
    recipe: Architecture,
    net: Network,
    data: tuple[Observations, torch.Tensor, torch.Tensor],
    options: Options,
) -> Trainer:
    """A run on the device where the network is, with its data there if they fit."""
    observations, train, validation = data
    device, noise = next(net.parameters()).device, Noise(options.seed, device=options.device)
    size = (len(train), sum(x.shape[1] for x in observations.x))
    settings = plan.settings(*size, options.epochs, batch_size=options.batch_size, rate=options.rate)
    rows = settings.batch_size * recipe.objective.samples
    memory = devices.budget(observations, net, rows, device)
    kind = devices.feed_kind(observations, device, memory)
    if memory is not None and options.progress:
        print(f"{device}: {memory}", file=sys.stderr, flush=True)
    home = "cpu" if kind is Streamed else device
    observations, train, validation = observations.to(home), train.to(home), validation.to(home)
    batches = kind.batches(len(train), settings.batch_size)
    schedule = plan.schedule(options.epochs, size, batches, recipe.warmup)
    aim = (recipe.objective, recipe.beta)
    return Trainer(
        net,
        observations,
        (train, validation),
        aim,
        schedule,
        settings,
        noise,
        feed=lambda step: kind(step, observations, noise),
    )


def _check_carried(prepared: Prepared, train: torch.Tensor) -> None:
    for m, modality in enumerate(prepared.schema.modalities):
        if not len(prepared.observations.carriers(m, train)):
            raise InputError(
                f"expected observations that carry {modality.name!r} to train on, found none among {len(train)}: hold "
                "out fewer, or leave the modality out."
            )


def _reach(device: str) -> torch.device:
    """Put a number on the device, before hours are planned around it."""
    try:
        return torch.zeros(1, device=device).device
    except (AssertionError, RuntimeError) as error:  # what torch raises differs from device to device
        reason = str(error).splitlines()[0].rstrip(".")[:100]
        raise InputError(
            f"expected a device that torch can reach, found {device!r} ({reason}): use device 'cpu'."
        ) from error


def _path(x: SparseMatrix | torch.Tensor) -> str:
    """How the first layer will read a modality."""
    if isinstance(x, torch.Tensor):
        return "dense values"
    share = len(x.value) / max(x.shape[0] * x.shape[1], 1)
    way = "one by one" if share < SPARSE and kernel_fits() else "written out"
    return f"{share:.1%} of the values are not 0, and the first layer reads them {way}"


def _log_moments(observations: Observations, m: int, rows: torch.Tensor) -> list[float] | None:
    """Mean and standard deviation of the log exposure of a modality in the training set, for new observations."""
    exposure = observations.exposure[m]
    if exposure is None:
        return None
    logs = exposure[observations.carriers(m, rows)].log()
    return [float(logs.mean()), float(logs.std(correction=0))]


def _log_correlation(observations: Observations, rows: torch.Tensor) -> Float[np.ndarray, "modalities modalities"]:
    """How log exposures of modalities go together in the training set, among those that carry both; 0 where unknown."""
    found = np.eye(len(observations.x))
    for a, b in combinations(range(len(observations.x)), 2):
        one, other = observations.exposure[a], observations.exposure[b]
        both = observations.carriers(b, observations.carriers(a, rows))
        if one is None or other is None or not len(both):
            continue
        logs = torch.cat([one[both], other[both]], 1).log().double()
        logs = (logs - logs.mean(0)) / logs.std(0, correction=0).clamp_min(TINY)
        found[a, b] = found[b, a] = float(logs.prod(1).mean())
    return found


def _rows(roles: np.ndarray, role: str) -> torch.Tensor:
    return torch.from_numpy(np.flatnonzero(roles == role))


def _run(trainer: Trainer, identity: dict[str, str], options: Options) -> None:
    """Take every step; save as time passes, at a signal, and when training diverges."""
    keeper = None if options.checkpoints is None else Checkpoints(options.checkpoints)
    signals = (INTERRUPT,) if keeper is None else (INTERRUPT, TERMINATE)
    with nullcontext() if keeper is None else keeper.lock(), stop_requests(*signals) as request:
        if keeper is not None and options.resume:
            _resume(trainer, keeper, identity)
        saved_at = trainer.progress.seconds
        try:
            threads = torch.get_num_threads() if trainer.step.device.type == "cpu" else 1
            for p in watch(trainer, show=options.progress, threads=threads, label=options.label):
                if keeper is not None and (p.seconds - saved_at >= SAVE_SECONDS or request.number):
                    _save(trainer, keeper, identity)
                    saved_at = p.seconds
                if request.number is not None:
                    _stop(trainer, keeper, request.number)
                    break
        except TrainingDiverged:
            trainer.restore_best()
            if keeper is not None:
                _save(trainer, keeper, identity)
            raise
        if keeper is not None:
            _save(trainer, keeper, identity)


def _stop(trainer: Trainer, keeper: Checkpoints | None, signal: int) -> None:
    p: Progress = trainer.progress
    if keeper is not None:
        raise Interrupted(
            f"interrupted at step {p.step} (epoch {p.epoch + 1}): a checkpoint was written; continue with resume.",
            signal,
        )
    # Without checkpoints the best that can be done is to keep the model, and to say that it is unfinished.
    most = "" if trainer.settled() else "at most "
    p.events.append(f"interrupted at step {p.step} of {most}{trainer.planned()}: training was cut short")
    trainer.restore_best()


def _save(trainer: Trainer, keeper: Checkpoints, identity: dict[str, str]) -> None:
    document, tensors = trainer.state()
    keeper.save(trainer.progress.step, {"run": document, "identity": identity}, tensors)


def _resume(trainer: Trainer, keeper: Checkpoints, identity: dict[str, str]) -> None:
    checkpoint = keeper.latest()
    if checkpoint is None:
        return
    then = checkpoint.documents["identity"]
    changed = [name for name in identity if then.get(name) != identity[name]]
    if changed:
        raise ResumeError(
            f"expected the same {', '.join(changed)} as when the run began, found a difference: "
            "repeat the command that began it, or start afresh without resume."
        )
    trainer.restore(checkpoint.documents["run"], checkpoint.tensors)


def _identity(recipe: Architecture, prepared: Prepared, roles: np.ndarray, options: Options) -> dict[str, str]:
    """What must not change between the parts of one run, each as a short hash or word."""
    return {
        "recipe": _hash(recipe.model_dump_json().encode()),
        "data": fingerprint(prepared.observations),
        "split": _hash("".join(role[:2] for role in roles).encode()),
        "options": json.dumps([options.epochs, options.batch_size, options.rate, options.seed, options.device]),
        "torch version": torch.__version__,
        "loops": loops(),
    }


def _plan(trainer: Trainer) -> str:
    """The numbers that steer training: another version of biovae may choose others."""
    return _hash(repr([trainer.settings, vars(trainer.schedule)]).encode())


def fingerprint(observations: Observations) -> str:
    """A hash of every value, exposure and covariate."""
    digest = hashlib.sha256()
    for x in observations.x:
        tensors = (x.pointers, x.column, x.value) if isinstance(x, SparseMatrix) else (x,)
        for part in tensors:
            digest.update(part.cpu().contiguous().numpy().tobytes())
    for tensor in (*observations.exposure, *observations.present, observations.covariates):
        if tensor is not None:
            digest.update(tensor.cpu().contiguous().numpy().tobytes())
    return digest.hexdigest()


def _hash(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()[:16]
