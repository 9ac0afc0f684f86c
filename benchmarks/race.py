"""Held-out bound against seconds, biovae and scvi-tools in turns on the same cells, genes, threads and machine.

    python -m benchmarks DATA OUT [--files NAME,...] [--seeds 0,1,2]

The clock runs from the AnnData in memory to the weights; scoring of the test cells for the curve is taken out of both.

    biovae       its defaults
    SCVI         its defaults: (a) its whole run, (b) the first crossing, within 0.1 nats, of the bound it ends at
    SCVI, tuned  batch 1,024, rate 4e-3, stopped where its test bound is best: a choice nobody can make in practice
    PCA, NMF     log1p of counts per 10,000, ten components: the floor for time
"""

import time
import warnings
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import torch

from benchmarks.common import QUIET, load, scvi_model
from biovae.analysis import label_hits

NEAR = 0.1  # nats
SCORED = 100  # times that the peer's curve is looked at
DRAWS = 5  # per cell and point of the peer's curve, and for the bound that a run ends with


@dataclass
class Clock:
    """Seconds of a run without those spent on looking at it."""

    began: float = field(default_factory=time.perf_counter)
    looked: float = 0.0
    curve: list[tuple[float, float]] = field(default_factory=list)

    @property
    def now(self) -> float:
        return time.perf_counter() - self.began - self.looked

    def look(self, bound) -> None:
        """Add a point; `bound()` is off the clock."""
        at, began = self.now, time.perf_counter()
        self.curve.append((at, float(bound())))
        self.looked += time.perf_counter() - began


@dataclass(frozen=True)
class Run:
    """What a run leaves: curve, seconds, the bound of each test cell at its end, z of all cells, the null's bound."""

    clock: Clock
    seconds: float
    elbo: np.ndarray
    z: np.ndarray
    null: float = np.nan

    def save(self, target: Path, labels: np.ndarray, **floor: float) -> None:
        """Curve and numbers, and of each cell whether its neighbours in z name its type."""
        bound, hits = float(self.elbo.mean()), label_hits(self.z, labels)
        kept = {"curve": np.array(self.clock.curve), "bound": bound, "seconds": self.seconds, "null": self.null}
        np.savez(target, **kept, elbo=self.elbo, hits=hits, **floor)


def biovae(adata, batch, seed: int) -> Run:
    """At its defaults; it ends with the best weights."""
    import biovae as bv
    from biovae.noise import Noise
    from biovae.training import loop

    test, evaluated = torch.from_numpy(np.flatnonzero(adata.obs["test"])), loop.Trainer._evaluate
    clock = Clock()

    def observed(trainer, seconds: float) -> None:
        evaluated(trainer, seconds)
        clock.look(lambda: loop.evaluate(trainer.network, trainer.observations, test, Noise(1))[1])

    loop.Trainer._evaluate = observed
    try:
        vae = bv.VAE(bv.rna(), covariates=[batch] if batch else [])
        vae.fit(adata, test="test", seed=seed, progress=False)
    finally:
        loop.Trainer._evaluate = evaluated
    if vae.fitted.record["interrupted"]:  # half a run is no result
        raise KeyboardInterrupt
    seconds, rows = clock.now, test.numpy()
    null = vae.fitted.null.score(vae.observe(adata, indices=rows).observations, torch.arange(len(rows)))
    elbo = vae.scores(adata, samples=DRAWS, seed=1, indices=rows).elbo
    return Run(clock, seconds, elbo, vae.embed(adata), float(null.mean()))


def scvi(adata, batch, seed: int, *, tuned: bool = False, epochs: int | None = None) -> Run:
    """The same of the peer."""
    import scvi  # noqa: F401 - off the clock
    from lightning.pytorch.callbacks import Callback

    from benchmarks.peer import score

    train, test = adata[~adata.obs["test"]].copy(), adata[adata.obs["test"]].copy()
    clock = Clock()
    model = scvi_model(train, seed, batch)
    planned = epochs or min(round(20_000 / train.n_obs * 400), 400)

    def each() -> np.ndarray:
        values = score(model, test, DRAWS)[0]
        model.module.train()
        return values

    class Look(Callback):
        def on_train_epoch_end(self, trainer, module) -> None:
            if (trainer.current_epoch + 1) % max(1, planned // SCORED) == 0:
                clock.look(lambda: each().mean())

    how = {"batch_size": 1024, "plan_kwargs": {"lr": 4e-3}} if tuned else {}
    model.train(max_epochs=planned, callbacks=[Look()], **QUIET, **how)
    return Run(clock, clock.now, each(), model.get_latent_representation(adata.copy()))


def pca(adata) -> float:
    """Seconds of the floor: components of the training cells, scores of all."""
    from biovae.analysis import log_normalise
    from biovae.analysis import pca as components

    began = time.perf_counter()
    components(log_normalise(adata.X), 10, 0, ~adata.obs["test"].to_numpy())
    return time.perf_counter() - began


def nmf(adata) -> float:
    """The same of components that are not negative."""
    from sklearn.decomposition import NMF

    from biovae.analysis import log_normalise

    began = time.perf_counter()
    x = log_normalise(adata.X)
    NMF(10, random_state=0).fit(x[~adata.obs["test"].to_numpy()]).transform(x)
    return time.perf_counter() - began


def race(folder: str, out: Path, name: str, seed: int) -> None:
    """Run everyone once, in turns, and keep the curves; what is there already is not repeated."""
    runs = {
        "biovae": biovae,
        "scvi": scvi,
        "scvi_tuned": lambda a, b, s: scvi(a, b, s, tuned=True, epochs=200),
    }
    out.mkdir(parents=True, exist_ok=True)
    for who, run in runs.items():
        target = out / f"{who}_{name}_{seed}.npz"
        if target.exists():
            continue
        adata, batch, labels = load(folder, name)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            done = run(adata, batch, seed)
            done.save(target, labels, floor=pca(adata), nmf=nmf(adata))
        print(f"{name} {seed} {who}: {done.elbo.mean():.1f} nats after {done.seconds:.1f} s", flush=True)


def crossing(run, bound: float) -> float:
    """Seconds until a run's curve is within NEAR of a bound; those of the whole run where only its end is."""
    seconds, values = run["curve"].T
    reached = np.flatnonzero(values >= bound - NEAR)
    if len(reached):
        return float(seconds[reached[0]])
    return float(run["seconds"]) if run["bound"] >= bound - NEAR else np.nan
