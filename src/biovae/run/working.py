"""A sign of life during work that does not say how far it is: a moving bar on a terminal, a line at times elsewhere."""

import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager

PATIENCE, EVERY = 2.0, 10.0  # seconds without a word, and between words


@contextmanager
def working(what: str) -> Iterator[None]:
    """Show that the work inside goes on, and for how long it has; nothing where it is quick.

    Args:
        what: What is being done: "reading the data".
    """
    with _bar(what) if sys.stderr.isatty() else _lines(what):
        yield


@contextmanager
def _bar(what: str) -> Iterator[None]:
    from rich.console import Console
    from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn

    columns = (TextColumn("{task.description}"), BarColumn(), TimeElapsedColumn())
    with Progress(*columns, console=Console(stderr=True), transient=True) as bar:
        bar.add_task(what, total=None)
        yield


@contextmanager
def _lines(what: str) -> Iterator[None]:
    done, start = threading.Event(), time.monotonic()

    def speak() -> None:
        wait = PATIENCE
        while not done.wait(wait):
            print(f"{what}: {time.monotonic() - start:.0f} s", file=sys.stderr, flush=True)
            wait = EVERY

    speaker = threading.Thread(target=speak, daemon=True)
    speaker.start()
    try:
        yield
    finally:
        done.set()
        speaker.join()
