"""What one GPU does, in one command of a few minutes: python -m benchmarks.gpu [--file COUNTS.h5ad] [--quick]

Needs torch, numpy, scipy, pandas, h5py, pydantic, jaxtyping and this repository; no AnnData, no numba, no network.
Every part prints its lines as it ends; one that fails says so and lets the others go on.

    agreement    the same network and rows on CPU and GPU: terms of the bound, gradients, a short training run
    loss         softmax, negative binomial and both gradients: Triton against the plain forms
    throughput   training, cells per second: one CUDA graph, launched one by one, streamed from the host
    epoch        one epoch of ten million simulated cells kept on the device
    quality      the automatic schedule on simulated cells (or a file's), to its end: held-out bound and seconds
"""

import argparse
import time
import traceback
from collections.abc import Callable, Iterator
from contextlib import nullcontext

import h5py
import numpy as np
import scipy.sparse
import torch
from torch import Tensor

from biovae.batch import Observations, SparseCounts, SparseMatrix
from biovae.distributions import Composition, NegativeBinomial
from biovae.distributions.on_gpu import trusted
from biovae.kernels import loops, without_kernels
from biovae.likelihoods import NegativeBinomialCounts
from biovae.modalities.experts import ModalityNetwork, Sizes
from biovae.modalities.modality import Modality
from biovae.modalities.views import RootCounts
from biovae.network import Network
from biovae.nn import MLP
from biovae.noise import Noise
from biovae.objective import ELBO
from biovae.posteriors import Diagonal
from biovae.priors import StandardNormal
from biovae.training import plan
from biovae.training.captured import Captured
from biovae.training.devices import on
from biovae.training.feeds import Direct
from biovae.training.loop import Trainer, evaluate
from biovae.training.schedule import LinearWarmup
from biovae.training.step import Settings
from biovae.training.streamed import Streamed

GENES, DENSITY, LATENT, HIDDEN = 2_000, 0.08, 10, 128
CHUNK = 20_000  # cells simulated at a time
LONGEST = 100.0  # seconds of a run to its end
RAMP = 20  # steps before the clock starts


# Cells and models


def simulate(cells: int, device: torch.device, *, seed: int = 0, genes: int = GENES) -> Observations:
    """Counts of cells on a curved ten-dimensional state space, eight per cent of them not zero, made on the device."""
    draw = torch.Generator(device).manual_seed(seed)

    def normal(*shape: int) -> Tensor:
        return torch.randn(shape, generator=draw, device=device)

    into, out = normal(LATENT, 64) / LATENT**0.5, normal(64, genes) * 0.25
    base = 1.5 * normal(genes)
    depth = DENSITY * genes * 1.5
    columns, values, lengths = [], [], []
    for start in range(0, cells, CHUNK):
        size = min(CHUNK, cells - start)
        share = ((normal(size, LATENT) @ into).relu() @ out + base).softmax(-1)
        rate = share * depth * torch.exp(0.3 * normal(size, 1))
        x = torch.poisson(rate, generator=draw)
        x[:, 0] += x.sum(-1) == 0
        row, column = x.nonzero(as_tuple=True)
        columns.append(column.to(torch.int16))
        values.append(x[row, column].clamp_(max=255).to(torch.uint8))
        lengths.append((x > 0).sum(-1))
    pointers = torch.cat([torch.zeros(1, dtype=torch.int64, device=device), torch.cat(lengths).cumsum(0)])
    return observed(SparseMatrix(pointers, torch.cat(columns), torch.cat(values), (cells, genes)))


def observed(matrix: SparseMatrix) -> Observations:
    """Counts with their totals as exposure."""
    total = torch.zeros(matrix.shape[0], device=matrix.pointers.device)
    for start in range(0, matrix.shape[0], 100_000):
        stop = min(start + 100_000, matrix.shape[0])
        low, high = matrix.pointers[start], matrix.pointers[stop]
        row = torch.repeat_interleave(matrix.entries(torch.arange(start, stop, device=total.device)))
        total[start:stop].index_add_(0, row, matrix.value[low:high].float())
    return Observations((matrix,), (total.unsqueeze(1),), (None,), torch.zeros(len(total), 0, device=total.device))


def read(path: str) -> Observations:
    """The counts of an .h5ad whose X is compressed by rows or columns."""
    with h5py.File(path) as file:
        x, kind = file["X"], file["X"].attrs["encoding-type"]
        parts, shape = (x["data"][:], x["indices"][:], x["indptr"][:]), tuple(x.attrs["shape"])
    matrix = (
        scipy.sparse.csr_array(parts, shape=shape)
        if kind == "csr_matrix"
        else scipy.sparse.csc_array(parts, shape=shape)
    )
    return observed(SparseMatrix.from_scipy(matrix))


def model(observations: Observations, rows: Tensor, seed: int = 0) -> Network:
    """The default model, started on the CPU from these rows."""
    noise, features = Noise(seed), observations.x[0].shape[1]
    recipe = Modality(name="rna", likelihood=NegativeBinomialCounts(), view=RootCounts())
    sizes = Sizes(features, LATENT, 0, 0, levels=None, library_levels=None)
    bodies = (MLP(hidden=HIDDEN, dropout=0.2), MLP(hidden=HIDDEN, dropout=0.1))
    none = torch.zeros(0, dtype=torch.int64)
    part = ModalityNetwork(recipe, bodies, Diagonal(), sizes, noise)
    network = Network([part], StandardNormal().build(LATENT, [features], noise), columns=(none, none))
    few = observations.batch(rows[:10_000])
    part.start(few.to("cpu").x[0], network.context(few.to("cpu"), 0), few.covariates.cpu())
    return network


def trainer(
    observations: Observations,
    device: torch.device,
    kind: type[Direct] | type[Captured] | type[Streamed],
    *,
    batch: int,
    epochs: int | str = 1000,
    held_out: int = 0,
) -> Trainer:
    """A run of the default model; the last `held_out` cells steer it."""
    home = observations.covariates.device
    rows = torch.arange(len(observations), device=home)
    train, steering = rows[: len(rows) - held_out], rows[len(rows) - held_out :]
    network, noise = model(observations, train).to(device), Noise(0, device=device)
    size = (len(train), observations.x[0].shape[1])
    settings = plan.settings(*size, epochs, batch_size=batch)
    if epochs == 1000:  # throughput alone: no evaluations
        settings = Settings(settings.batch_size, settings.rate, steps_between=10**9)
    schedule = plan.schedule(epochs, size, kind.batches(len(train), settings.batch_size), LinearWarmup())
    return Trainer(
        network, observations, (train, steering), (ELBO(), 1.0), schedule, settings, noise,
        feed=lambda step: kind(step, observations, noise),
    )  # fmt: skip


def wait(device: torch.device) -> float:
    """The time when all that was asked of the device is done."""
    if device.type == "cuda":
        torch.cuda.synchronize()
    return time.perf_counter()


def speed(run: Trainer, device: torch.device, *, seconds: float = 8.0, least: int = 40) -> str:
    """Cells per second of training, the first steps left out; said where a graph could not be captured."""
    steps = run.run()
    for _ in range(RAMP):
        next(steps)
    began, taken = wait(device), 0
    while taken < least or time.perf_counter() - began < seconds:
        for _ in range(least):
            next(steps)
        taken += least
        if wait(device) - began > seconds:
            break
    took = wait(device) - began
    steps.close()
    plain = isinstance(run.feed, Captured) and run.feed.graph is None
    return f"{taken * run.settings.batch_size / took:,.0f} cells/s" + (" (NOT captured)" if plain else "")


# Parts


def agreement(device: torch.device, quick: bool) -> Iterator[str]:  # noqa: FBT001
    """The same numbers on both devices."""
    observations = simulate(5_000, torch.device("cpu"))
    rows = torch.arange(512)
    found = []
    for where in (torch.device("cpu"), device):
        network = model(observations, torch.arange(5_000)).to(where).eval()
        batch = observations.batch(rows).to(where)
        terms = network.terms(batch, Noise(0, device=where))
        q = network.encode(batch).z
        log_px = network.decode(q.mean, batch, 0).log_prob(batch.x[0])
        network.zero_grad()
        (log_px.mean() - terms.kl_by_group.sum(-1).mean()).backward()
        grads = torch.cat([w.grad.flatten().cpu() for w in network.parameters() if w.grad is not None])
        found.append((log_px.detach().cpu(), terms.kl_by_group.detach().cpu(), grads))
    for name, a, b in zip(("log p(x | mean z)", "KL", "gradient"), *found, strict=True):
        yield f"{name}: largest difference {float((a - b).abs().max()):.2e} of {float(a.abs().max()):.2e}"
    ends = {}
    for name, where, kind in (
        ("CPU", torch.device("cpu"), Direct),
        ("GPU, one by one", device, Direct),
        ("GPU, captured", device, Captured),
    ):
        with on(where):
            run = trainer(observations.to(where), where, kind, batch=128, epochs=4 if quick else 12, held_out=500)
            for _ in run.run():
                pass
        ends[name] = run.progress.best
    yield "validation bound after the same epochs: " + ", ".join(f"{name} {bound:.2f}" for name, bound in ends.items())


def loss(device: torch.device, quick: bool) -> Iterator[str]:  # noqa: FBT001
    """Triton against the plain forms, both replayed as graphs, as training does."""
    if device.type == "cuda":
        yield "Triton compiles here and agrees with the formula: " + ("yes" if trusted(device) else "NO")
    for rows, features in ((1024, 2_000), (4096, 2_000), (1024, 17_000)):
        draw = torch.Generator(device).manual_seed(0)
        logits = torch.randn(rows, features, generator=draw, device=device, requires_grad=True)
        log_r = torch.zeros(features, device=device, requires_grad=True)
        x = torch.poisson(torch.full((rows, features), 0.085, device=device), generator=draw)
        counts, exposure = SparseCounts.from_dense(x), x.sum(-1, keepdim=True) + 1

        def once(logits=logits, log_r=log_r, counts=counts, exposure=exposure) -> None:
            score = NegativeBinomial(Composition(logits, exposure), log_r).log_prob(counts).sum()
            torch.autograd.grad(score, (logits, log_r))

        fused = milliseconds(once, device)
        with without_kernels():
            plain = milliseconds(once, device)
        yield f"{rows} x {features}: plain {plain:.3f} ms, Triton {fused:.3f} ms, {plain / fused:.1f} times"


def milliseconds(once: Callable[[], None], device: torch.device, times: int = 30) -> float:
    """Of one call, the first ones left out."""
    beside = torch.cuda.Stream() if device.type == "cuda" else None
    with torch.cuda.stream(beside) if beside else nullcontext():
        for _ in range(5):
            once()
    wait(device)
    if beside:
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph):
            once()
        once = graph.replay
        once()
    began = wait(device)
    for _ in range(times):
        once()
    return 1e3 * (wait(device) - began) / times


def throughput(device: torch.device, quick: bool) -> Iterator[str]:  # noqa: FBT001
    """Cells per second, by feed and batch size."""
    cells, seconds = (50_000, 2.0) if quick else (1_000_000, 8.0)
    observations = simulate(cells, device)
    yield f"{cells:,} cells x {GENES:,} genes, {density(observations):.1%} not zero, {observations.nbytes / 1e9:.2f} GB"
    cases = [(Captured, 1024), (Captured, 4096), (Captured, 8192), (Direct, 4096), (Streamed, 4096)]
    for kind, batch in cases:
        home = observations.to("cpu") if kind is Streamed else observations
        with on(device):
            found = speed(trainer(home, device, kind, batch=batch), device, seconds=seconds)
        yield f"batch {batch}, {kind.__name__.lower()}, TF32 products: {found}"
    yield f"(rows were gathered on the host by {loops()} loops)"
    exact = speed(trainer(observations, device, Captured, batch=4096), device, seconds=seconds)
    yield f"batch 4096, captured, full float32: {exact}"
    with without_kernels(), on(device):
        plain = speed(trainer(observations, device, Captured, batch=4096), device, seconds=seconds)
    yield f"batch 4096, captured, TF32, plain loss: {plain}"


def density(observations: Observations) -> float:
    """Share of the counts that are not zero."""
    x = observations.x[0]
    return len(x.value) / (x.shape[0] * x.shape[1])


def epoch(device: torch.device, quick: bool) -> Iterator[str]:  # noqa: FBT001
    """Ten million cells, once."""
    cells = 200_000 if quick else 10_000_000
    began = wait(device)
    observations = simulate(cells, device)
    size, made = observations.nbytes / 1e9, wait(device) - began
    yield f"{cells:,} cells, {density(observations):.1%} not zero, {size:.2f} GB, made in {made:.0f} s"
    if device.type == "cuda":
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats()
    with on(device):
        run = trainer(observations, device, Captured, batch=4096)
        steps, batches = run.run(), Captured.batches(cells, 4096)
        for _ in range(RAMP):
            next(steps)
        began = wait(device)
        for _ in range(batches):  # an epoch's worth, the drawing of its order included
            next(steps)
        seconds = wait(device) - began
    yield f"one epoch at batch 4096: {seconds:.2f} s, {batches * 4096 / seconds:,.0f} cells/s"
    if device.type == "cuda":
        yield f"peak memory {torch.cuda.max_memory_reserved() / 1e9:.2f} GB, data included"


def quality(device: torch.device, quick: bool, path: str | None = None) -> Iterator[str]:  # noqa: FBT001
    """The whole recipe to its end."""
    observations = read(path).to(device) if path else simulate(20_000 if quick else 500_000, device)
    held_out = max(1, min(len(observations) // 10, 20_000))
    for batch in (None, 4096):
        began = wait(device)
        with on(device):
            run = trainer(observations, device, Captured, batch=batch, epochs="auto", held_out=held_out)
            for _ in run.run():
                if time.perf_counter() - began > LONGEST:
                    break
        seconds = wait(device) - began
        bound = evaluate(run.network, observations, run.validation_rows, Noise(1, device=device))[1]
        how = f"batch {run.settings.batch_size}" + (" (chosen)" if batch is None else "")
        taken = f"{run.progress.epoch} epochs, {run.progress.step} steps, {seconds:.1f} s"
        how += " (cut short)" if seconds > LONGEST else ""
        yield f"{how}: held-out bound {bound:.2f} nats after {taken}"


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.gpu")
    parser.add_argument("--file", help="an .h5ad with counts in X for the last part")
    parser.add_argument("--quick", action="store_true", help="small sizes: does everything run?")
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    asked = parser.parse_args()
    device = torch.device(asked.device)
    name = torch.cuda.get_device_name() if device.type == "cuda" else "CPU"
    print(f"{name}, torch {torch.__version__}, numpy {np.__version__}", flush=True)
    began = time.perf_counter()
    parts = {"agreement": agreement, "loss": loss, "throughput": throughput, "epoch": epoch}
    for title, part in (*parts.items(), ("quality", lambda d, q: quality(d, q, asked.file))):
        print(f"\n{title}", flush=True)
        try:
            for line in part(device, asked.quick):
                print(f"  {line}", flush=True)
        except Exception:
            print("  FAILED: " + traceback.format_exc(limit=-6).replace("\n", "\n  "), flush=True)
        if device.type == "cuda":
            torch.cuda.empty_cache()
    print(f"\n{time.perf_counter() - began:.0f} s in all", flush=True)


if __name__ == "__main__":
    main()
