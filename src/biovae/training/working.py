"""A sign of life during work that does not say how far it is: a moving bar on a terminal, a line at times elsewhere."""

import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext

PATIENCE, EVERY = 2.0, 10.0  # seconds without a word, and between words
_speaking: list[threading.Event] = []  # each inside the one before


@contextmanager
def working(what: str, *, show: bool = True) -> Iterator[None]:
    """Show that the work inside goes on, and for how long it has; nothing where it is quick.

    Args:
        what: What is being done: "reading the data".
        show: False for silence.
    """
    with _sign(what) if show else nullcontext():
        yield


def _sign(what: str) -> AbstractContextManager[None]:
    if sys.stderr.isatty():
        return _bar(what)
    start = time.monotonic()
    return speaking(lambda: f"{what}: {time.monotonic() - start:.0f} s", PATIENCE, EVERY)


@contextmanager
def _bar(what: str) -> Iterator[None]:
    from rich.console import Console
    from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn

    columns = (TextColumn("{task.description}"), BarColumn(), TimeElapsedColumn())
    with Progress(*columns, console=Console(stderr=True), transient=True) as bar:
        bar.add_task(what, total=None)
        yield


@contextmanager
def speaking(say: Callable[[], str], first: float, every: float) -> Iterator[None]:
    """Write what there is to say after so many seconds, and again every so many, while the work inside goes on.

    Of several, one inside the other, the innermost speaks.
    """
    done = threading.Event()
    _speaking.append(done)

    def speak() -> None:
        wait = first
        while not done.wait(wait):
            if done is _speaking[-1]:
                print(say(), file=sys.stderr, flush=True)
            wait = every

    speaker = threading.Thread(target=speak, daemon=True)
    speaker.start()
    try:
        yield
    finally:
        done.set()
        speaker.join()
        _speaking.remove(done)
