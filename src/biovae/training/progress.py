"""What a person sees while a model trains: a bar on a terminal, a line now and then elsewhere."""

import math
import multiprocessing
import sys
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from typing import Protocol, TypeVar

from biovae.training.crowding import Crowding
from biovae.training.loop import Progress
from biovae.training.working import speaking

PATIENCE = 2.0  # seconds without a word
SELDOM = 10.0  # seconds between lines of what is no fit
FITTING = "fitting"
SLOW_START = "compiling loops, once per installation"

Part = TypeVar("Part")


class Watched(Protocol):
    """A run that can say how far it is: see `loop.Trainer`."""

    progress: Progress

    def run(self) -> Iterator[Progress]:
        """Train, step by step."""

    def planned(self) -> int:
        """Total steps, at most."""

    def settled(self) -> bool:
        """Whether that is how many they will be."""


def watch(run: Watched, *, show: bool, threads: int = 1, label: str = FITTING) -> Iterable[Progress]:
    """The steps of a run, shown as they pass.

    Args:
        run: A run about to start or to continue.
        show: False for silence.
        threads: Of this machine's cores that work on a step together; where others keep them busy, that is said.
        label: What lines and bars begin with. There is no bar in a process beside others, which write lines as well.
    """
    if not show:
        return run.run()
    crowding = Crowding(threads)
    alone = multiprocessing.parent_process() is None
    return _bar(run, crowding, label) if alone and sys.stderr.isatty() else _lines(run, crowding, label)


def _bar(run: Watched, crowding: Crowding, label: str) -> Iterator[Progress]:
    from rich.console import Console
    from rich.progress import BarColumn, TextColumn, TimeRemainingColumn
    from rich.progress import Progress as Bar

    columns = (TextColumn(label, markup=False), BarColumn(), TextColumn("{task.fields[said]}"), TimeRemainingColumn())
    with Bar(*columns, console=Console(stderr=True), transient=True, refresh_per_second=5) as bar:
        task = bar.add_task("fit", total=_total(run), completed=run.progress.step, said="")
        for p in _patiently(run, lambda: bar.update(task, said=SLOW_START)):
            bar.update(task, total=_total(run), completed=p.step, said=_summary(p))
            if said := crowding.look():
                bar.console.print(f"{label}: {said}", markup=False, highlight=False)
            yield p


def _total(run: Watched) -> int | None:
    """Of the bar; None, a bar that only moves, while the end is open."""
    return run.planned() if run.settled() else None


def _lines(run: Watched, crowding: Crowding, label: str = FITTING, every: float = 5.0) -> Iterator[Progress]:
    last, evaluations = time.monotonic(), len(run.progress.history)
    for p in _patiently(run, lambda: print(f"{label}: {SLOW_START}", file=sys.stderr, flush=True)):
        if len(p.history) > evaluations and time.monotonic() - last >= every:
            last, evaluations = time.monotonic(), len(p.history)
            most = "" if run.settled() else "at most "
            print(f"{label}: step {p.step} of {most}{run.planned()}, {_summary(p)}", file=sys.stderr, flush=True)
        if said := crowding.look():
            print(f"{label}: {said}", file=sys.stderr, flush=True)
        yield p


def _patiently(run: Watched, notify: Callable[[], None]) -> Iterator[Progress]:
    """The steps of a run; `notify` is called where the first one takes longer than a person waits without a word."""
    timer = threading.Timer(PATIENCE, notify)
    timer.daemon = True
    timer.start()
    try:
        for p in run.run():
            timer.cancel()
            yield p
    finally:
        timer.cancel()


def _summary(p: Progress) -> str:
    if not p.history:
        return f"epoch {p.epoch + 1}"
    row = p.history[-1]
    bound = next((b for b in (row.validation_elbo, row.train_elbo) if b is not None), math.nan)
    return f"epoch {p.epoch + 1}, bound {bound:.1f} nats, rate {row.learning_rate:.1e}, beta {row.beta:.2g}"


def passing(parts: Iterable[Part], total: int, name: str, *, show: bool) -> Iterator[Part]:
    """Any stream of parts, with a bar on a terminal while they pass; elsewhere a line now and then, if slow.

    That goes on while a part is made, and while something is done with it.
    """
    if show and sys.stderr.isatty():
        from rich.console import Console
        from rich.progress import track

        yield from track(parts, name, total, console=Console(stderr=True), transient=True)
        return
    if not show:
        yield from parts
        return
    done = 0
    with speaking(lambda: f"{name}: {done} of {total}", SELDOM, SELDOM):
        for done, part in enumerate(parts):  # noqa: B007 - it is said
            yield part
