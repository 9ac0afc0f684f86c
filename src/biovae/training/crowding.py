"""Whether other processes keep the cores from a run.

The threads of a step wait for one another by spinning, so that on idle cores each of them is busy all the time. Where
their processor time falls behind the clock somebody else has a core, and every step waits for it at every turn.
"""

import time

WINDOW = 5.0  # seconds between looks
IN_A_ROW = 2  # looks: something may have been compiled during one, which a single thread does
CROWDED = 0.85  # share of the threads' time below which they wait for cores (LOG.md, 2026-11-26)


class Crowding:
    """Looks at the clock now and then.

    Args:
        threads: How many work on a step; a single one waits for nobody.
    """

    def __init__(self, threads: int) -> None:
        self.threads = threads
        self._clocks: tuple[float, float] | None = None
        self._in_a_row, self._done = 0, threads == 1

    def look(self) -> str | None:
        """What to say, once, where the cores are taken."""
        now, used = time.monotonic(), time.process_time()
        began, before = self._clocks = self._clocks or (now, used)
        if self._done or now - began < WINDOW:
            return None
        self._clocks, had = (now, used), (used - before) / (now - began)
        self._in_a_row = self._in_a_row + 1 if had < CROWDED * self.threads else 0
        self._done = self._in_a_row == IN_A_ROW
        if not self._done:
            return None
        return (
            f"other processes keep the cores busy ({had:.1f} of {self.threads} were to be had), "
            "so that steps wait; with OMP_NUM_THREADS=1 they do not."
        )
