"""Ctrl-C and SIGTERM ask a run to stop at the next step, where nothing is half done.

Where nothing would be kept by it SIGTERM is left alone: who asks a process to end does not want it to go on with half a
model. Ctrl-C is a person's word to this fit, and keeps what there is.
"""

import signal
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

INTERRUPT, TERMINATE = int(signal.SIGINT), int(signal.SIGTERM)
GRACE = 10.0  # seconds to write a checkpoint


class StopRequest:
    """Which signal asked for the end, if one did."""

    number: int | None = None


@contextmanager
def stop_requests(*signals: int) -> Iterator[StopRequest]:
    """Inside, the first of these signals is noted instead of raised; a second Ctrl-C acts at once, as it always did.

    So does another SIGTERM once there was time to write a checkpoint: who ends several processes may send it twice.
    Python delivers signals to the main thread only: in another thread nothing is caught.
    """
    request = StopRequest()
    if threading.current_thread() is not threading.main_thread():
        yield request
        return
    before = {number: signal.getsignal(number) for number in signals}
    first: dict[int, float] = {}

    def note(number: int, frame: FrameType | None) -> None:
        now, request.number = time.monotonic(), number
        late = now - first.setdefault(number, now) > GRACE
        if late or number != TERMINATE:
            signal.signal(number, before[number])
        if late:
            signal.raise_signal(number)

    for number in signals:
        signal.signal(number, note)
    try:
        yield request
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


@contextmanager
def raised(number: int) -> Iterator[StopRequest]:
    """Inside, this signal is noted, and raised as Ctrl-C is: for who waits for others and takes no steps."""
    request = StopRequest()
    if threading.current_thread() is not threading.main_thread():
        yield request
        return

    def note(number: int, frame: FrameType | None) -> None:
        request.number = number
        raise KeyboardInterrupt

    before = signal.signal(number, note)
    try:
        yield request
    finally:
        signal.signal(number, before)
