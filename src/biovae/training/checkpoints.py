"""Checkpoints: the last few states of a run, each whole, and a lock so that one process at a time writes them.

    step-000123/    one state, an artifact of kind "checkpoint"
    LOCK            who holds the folder: process id, host, and when that process began
    .tmp-*          what a killed process left unfinished; cleaned by the next holder

A kill at any moment, also in the midst of saving, costs the steps since the last `save` and nothing else.
"""

import json
import os
import re
import shutil
import socket
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO, Any, NamedTuple

from torch import Tensor

from biovae import artifact
from biovae.errors import ModelFileError, ResumeError

try:
    import fcntl
except ImportError:  # Windows: the record in LOCK alone decides
    fcntl = None  # type: ignore[assignment]

KIND = "checkpoint"
_STEP = re.compile(r"step-(\d{6,})")


class Checkpoint(NamedTuple):
    """One state of a run."""

    step: int
    documents: dict[str, dict[str, Any]]
    tensors: dict[str, Tensor]


class Checkpoints:
    """The last `keep` states of one run in `folder`.

    Only the process that made this object saves: a copy in a forked worker does nothing, so that a signal which
    reaches the whole process group writes one checkpoint and not one per worker.

    Args:
        folder: Where they lie; made at the first save.
        keep: How many states stay; two, so that a damaged one still leaves one.
    """

    def __init__(self, folder: Path | str, keep: int = 2) -> None:
        if keep < 1:
            raise ValueError(f"expected to keep at least one checkpoint, found keep={keep}.")
        self.folder = Path(os.path.abspath(folder))
        self.keep = keep
        self.notices: list[str] = []  # one sentence for each thing that was not as expected
        self._owner = os.getpid()

    def save(self, step: int, documents: Mapping[str, Mapping[str, Any]], tensors: Mapping[str, Tensor]) -> bool:
        """Write the state at `step`, then drop the older ones; whether this process was the one to write.

        States beyond `step` belong to a future that this run did not take, and are dropped too.

        Raises:
            OSError: The disk is full, read-only or failing; the earlier checkpoints are intact.
        """
        if os.getpid() != self._owner:
            return False
        path = self.folder / f"step-{step:06d}"
        artifact.write(path, documents, tensors, kind=KIND, overwrite=True, finite=False)
        kept = [s for s in self.steps() if s <= step][-self.keep :]
        for other in set(self.steps()) - set(kept):
            shutil.rmtree(self._path(other), ignore_errors=True)
        return True

    def latest(self) -> Checkpoint | None:
        """The newest state that passes its hashes, or None if there never was one; a damaged one is noted.

        Raises:
            ResumeError: There are checkpoints, and every one of them is damaged.
        """
        reasons = []
        for step in reversed(self.steps()):
            try:
                found = Checkpoint(step, *artifact.read(self._path(step), kind=KIND, finite=False))
            except ModelFileError as error:
                reasons.append(f"checkpoint {step} was passed over: {error}")
                continue
            self.notices += reasons
            return found
        if reasons:
            raise ResumeError(
                f"expected an intact checkpoint in {self.folder}, found {len(reasons)} damaged; "
                f"delete the folder to start anew. The newest: {reasons[0]}"
            )
        return None

    def steps(self) -> list[int]:
        """The steps that have a checkpoint, in order."""
        names = os.listdir(self.folder) if self.folder.is_dir() else []
        return sorted(int(match[1]) for match in map(_STEP.fullmatch, names) if match)

    @contextmanager
    def lock(self) -> Iterator[None]:
        """Hold the folder while a run writes to it, and clean what a killed one left.

        Raises:
            ResumeError: Another process holds it, and is alive or on another machine.
        """
        self.folder.mkdir(parents=True, exist_ok=True)
        mine = {"pid": os.getpid(), "host": socket.gethostname(), "began": _began(os.getpid())}
        with self._record() as file:
            holder = _parse(file.read())
            if holder is not None and _may_live(holder):
                raise ResumeError(
                    f"expected {self.folder} to be free, found it in use by process {holder['pid']} on "
                    f"{holder['host']}; wait for it, or delete {self.folder / 'LOCK'} if it is gone."
                )
            if holder is not None:
                self.notices.append(f"process {holder['pid']} ended without letting go of the folder; taken over.")
            _rewrite(file, json.dumps(mine))
        try:
            self._clean()
            yield
        finally:
            if os.getpid() == mine["pid"]:  # a forked worker on its way out holds nothing
                with self._record() as file:
                    if _parse(file.read()) == mine:
                        _rewrite(file, "")

    @contextmanager
    def _record(self) -> Iterator[IO[str]]:
        """The LOCK file, for one process at a time: between reading it and writing it nobody else does either."""
        with open(self.folder / "LOCK", "a+", encoding="utf-8") as file:
            if fcntl is not None:
                with suppress(OSError):  # a network disk without locks: the record still keeps others out
                    fcntl.flock(file, fcntl.LOCK_EX)
            file.seek(0)
            yield file

    def _clean(self) -> None:
        for path in self.folder.glob(f"{artifact.TEMPORARY}*"):
            shutil.rmtree(path, ignore_errors=True)

    def _path(self, step: int) -> Path:
        return self.folder / f"step-{step:06d}"


def _rewrite(file: IO[str], text: str) -> None:
    file.truncate(0)
    file.write(text)


def _parse(text: str) -> dict[str, Any] | None:
    """The holder in a LOCK file; an empty or half-written record is nobody's."""
    with suppress(ValueError):
        record = json.loads(text)
        if isinstance(record, dict) and isinstance(record.get("pid"), int) and "host" in record:
            return record
    return None


def _may_live(holder: Mapping[str, Any]) -> bool:
    """Whether the holder of a lock may still run; on another machine, or another system than POSIX, it may."""
    if holder["host"] != socket.gethostname() or os.name != "posix":
        return True
    try:
        os.kill(holder["pid"], 0)
    except PermissionError:
        return True
    except (ProcessLookupError, OverflowError):
        return False
    return holder.get("began") == _began(holder["pid"])


def _began(pid: int) -> str:
    """When a process began, in the system's ticks: its number may be used again, its number and beginning may not.

    Empty for a process that ended, though nobody collected it yet, and on systems without /proc.
    """
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return ""
    return "" if fields[0] in "ZX" else fields[19]
