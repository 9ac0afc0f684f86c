"""Ctrl-C and SIGTERM ask a run to stop at the next step, where nothing is half done.

Where nothing would be kept by it SIGTERM is left alone: who asks a process to end does not want it to go on with half a
model. Ctrl-C is a person's word to this fit, and keeps what there is.
"""

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

INTERRUPT, TERMINATE = int(signal.SIGINT), int(signal.SIGTERM)


class StopRequest:
    """Which signal asked for the end, if one did."""

    number: int | None = None


@contextmanager
def stop_requests(*signals: int) -> Iterator[StopRequest]:
    """Inside, the first of these signals is noted instead of raised; a second one acts at once, as it always did.

    Python delivers signals to the main thread only: in another thread nothing is caught.
    """
    request = StopRequest()
    if threading.current_thread() is not threading.main_thread():
        yield request
        return
    before = {number: signal.getsignal(number) for number in signals}

    def note(number: int, frame: FrameType | None) -> None:
        request.number = number
        signal.signal(number, before[number])

    for number in signals:
        signal.signal(number, note)
    try:
        yield request
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
