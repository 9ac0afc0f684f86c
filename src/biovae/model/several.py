"""Several fits: one after another, or side by side in processes of their own; a person sees how far they are.

Whatever was finished before Ctrl-C is kept. Processes are started afresh (compiled loops do not survive a fork), so the
script that asks for them needs the usual `if __name__ == "__main__":`, and none of them outlives this one.
"""

import multiprocessing
import os
import shutil
import signal
import sys
import threading
import time
from collections.abc import Callable, Generator, Iterator, Mapping
from concurrent.futures import ProcessPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from contextlib import closing, contextmanager, nullcontext
from multiprocessing.reduction import ForkingPickler
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import torch

from biovae.errors import InputError, Interrupted
from biovae.training.stopping import GRACE, INTERRUPT, TERMINATE, StopRequest, raised

Jobs = Mapping[str, Any]  # by the name under which a person is told of it
Work = Callable[[Any], Any]  # of a job: fits, judges, returns what is kept; None where the fit was interrupted
Results = Generator[tuple[str, Any], None, None]

_work: Work | None = None  # of this worker process


def several(
    work: Work, jobs: Jobs, *, again: Callable[[], Work], workers: int = 1, progress: bool = True
) -> Iterator[tuple[Any, Any]]:
    """Each job with its result, as it is done; ends early, and says so, where it is interrupted.

    Args:
        work: Does a job.
        jobs: What to do, each by its name.
        again: Makes the work anew, in each worker process; it is pickled, with the data that it needs.
        workers: Processes; 1 works here, with all threads that torch has.
        progress: Say what is done.

    Raises:
        InputError: A worker process ended before its work was done, or `workers` is below 1.
        Interrupted: Ctrl-C before the first job was done, or SIGTERM while processes were at work.
    """
    if workers < 1:
        raise InputError(f"expected 1 worker at least, found {workers}: leave it at 1, or give the number of cores.")
    done, workers = 0, min(workers, len(jobs))
    beside = raised(TERMINATE) if workers > 1 else nullcontext(StopRequest())
    with beside as request, closing(_results(work, jobs, again, workers, progress)) as results:
        try:
            for name, result in results:
                if result is None:
                    raise KeyboardInterrupt
                done += 1
                if progress:
                    _say(f"fit {done} of {len(jobs)} done: {name}")
                yield jobs[name], result
        except KeyboardInterrupt:
            if request.number is not None:
                raise Interrupted(f"ended with {done} of {len(jobs)} fits done.", request.number) from None
            if not done:
                raise Interrupted("interrupted before the first fit was done: nothing to keep.", INTERRUPT) from None
            _say(f"interrupted: {done} of {len(jobs)} fits were done, and are kept")


def _results(work: Work, jobs: Jobs, again: Callable[[], Work], workers: int, progress: bool) -> Results:  # noqa: FBT001
    if workers == 1:
        return _in_turn(work, jobs)
    if progress:
        _say(f"{len(jobs)} fits, {workers} at a time, in processes that start now")
    return _side_by_side(again, jobs, workers)


def cores() -> int:
    """Cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _in_turn(work: Work, jobs: Jobs) -> Results:
    for name, job in jobs.items():
        yield name, work(job)


def _side_by_side(again: Callable[[], Work], jobs: Jobs, workers: int) -> Results:
    with TemporaryDirectory(prefix="biovae-") as folder:
        # In a file: what a process is given at its start goes through a pipe that it reads once everything is imported,
        # and until then no other one would be started.
        written = Path(folder) / "work"
        written.write_bytes(ForkingPickler.dumps(again))
        yield from _as_done(written, jobs, workers)


def _as_done(written: Path, jobs: Jobs, workers: int) -> Results:
    threads = max(1, torch.get_num_threads() // workers)
    others = set(multiprocessing.active_children())
    afresh, begin = multiprocessing.get_context("spawn"), (written, threads, os.getpid())
    pool = ProcessPoolExecutor(workers, mp_context=afresh, initializer=_begin, initargs=begin)
    try:
        with _deaf():
            tasks = {pool.submit(_do, job): name for name, job in jobs.items()}
        for task in as_completed(tasks):
            yield tasks[task], task.result()
    except BrokenProcessPool as error:
        raise InputError(
            f"expected {workers} worker processes that last, found one that ended, perhaps for lack of memory: "
            "workers=1 takes less. A script puts the call under if __name__ == '__main__':, and parts of its own into "
            "a module."
        ) from error
    except BaseException:  # Ctrl-C, a fit that failed, or nobody waits for the rest any more
        for process in set(multiprocessing.active_children()) - others:
            process.terminate()
        raise
    finally:
        pool.shutdown(cancel_futures=True)


@contextmanager
def _deaf() -> Iterator[None]:
    """Processes started inside do not hear Ctrl-C, which reaches all of a terminal's: it is for this one to act on."""
    here = threading.current_thread() is threading.main_thread()
    before = signal.signal(signal.SIGINT, signal.SIG_IGN) if here else None
    try:
        yield
    finally:
        if here:
            signal.signal(signal.SIGINT, before)


def _begin(written: Path, threads: int, parent: int) -> None:
    """Ready a worker."""
    global _work
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    threading.Thread(target=_follow, args=(written, parent), daemon=True).start()
    torch.set_num_threads(threads)
    _work = ForkingPickler.loads(written.read_bytes())()


def _follow(written: Path, parent: int) -> None:
    """End with the parent, were it killed: nobody else would end a worker, or have use for what it does."""
    while os.getppid() == parent:
        time.sleep(1)
    shutil.rmtree(written.parent, ignore_errors=True)
    while True:
        os.kill(os.getpid(), signal.SIGTERM)
        time.sleep(2 * GRACE)  # to write a checkpoint


def _do(job: Any) -> Any:
    try:
        return None if _work is None else _work(job)
    except Interrupted as stopped:  # its checkpoint is written, and the next job, which waits already, not for here
        os._exit(stopped.exit_code)


def _say(sentence: str) -> None:
    print(sentence, file=sys.stderr, flush=True)
