"""How much a file may ask for: counted while it is walked, refused before anything is allocated.

    declared    bytes that an array takes in memory, by the shape and type the file gives it
    stored      bytes that are really on disk; a shape costs a few of them, whatever it says
    place       where in the file: "/X/indices"

A file is refused when it declares both more than `MOST_UNCHECKED` bytes and more than `MOST_RATIO` times what it
stores (deflate, the strongest compressor of HDF5's own, ends at about 1,030), or more than the memory there is, or
more than `MOST_NODES` arrays and groups, or a nesting deeper than `MOST_NESTING`.
"""

import gzip
import io
import os
import re
import sys
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NoReturn

import numpy as np

from biovae.errors import InputError

MOST_UNCHECKED = 2**30
MOST_RATIO = 1000
MOST_NODES = 100_000
MOST_NESTING = 64
OBJECT_BYTES = 64  # what a short string takes as a Python object
CHUNK = 2**22  # indices looked at in one piece


def available() -> int:
    """Bytes of memory this process may still hope for; everything addressable where the system does not say."""
    known = [sys.maxsize]
    with suppress(OSError, ValueError, AttributeError):
        known.append(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES"))
    with suppress(OSError):
        found = re.search(r"MemAvailable:\s+(\d+) kB", Path("/proc/meminfo").read_text())
        known += [int(found[1]) * 1024] if found else []
    with suppress(OSError, ValueError):  # the limit of a container; "max" where there is none
        known.append(int(Path("/sys/fs/cgroup/memory.max").read_text()))
    return min(known)


def readable(size: int) -> str:
    """A number of bytes for people.

    >>> readable(27_000), readable(8 * 10**12)
    ('27.0 kB', '8.0 TB')
    """
    value, units = float(size), ["bytes", "kB", "MB", "GB", "TB", "PB", "EB"]
    while value >= 1000 and len(units) > 1:
        value, _ = value / 1000, units.pop(0)
    return f"{value:.0f} bytes" if units[0] == "bytes" else f"{value:,.1f} {units[0]}"


@dataclass
class Tally:
    """What a file has declared so far.

    Args:
        path: The file, for messages.
        stored: Its size in bytes.
        declared: The sum over the arrays seen.
        nodes: The number of arrays and groups seen.
    """

    path: Path
    stored: int
    declared: int = 0
    nodes: int = 0

    def refuse(self, expected: str, found: str, advice: str = "get the file again from a source you trust") -> NoReturn:
        """Raise the one sentence that names the file, what was expected, what was found and what to do."""
        raise InputError(f"expected {expected} in {self.path.name}, found {found}: {advice}.")

    def node(self, place: str, *, depth: int, children: int = 0) -> None:
        """Count one array or group, and see that its children could still be counted."""
        self.nodes += 1
        if self.nodes + children > MOST_NODES:
            self.refuse(f"at most {MOST_NODES:,} arrays and groups", f"{self.nodes + children:,} at {place!r}")
        if depth > MOST_NESTING:
            self.refuse(f"at most {MOST_NESTING} levels", f"a deeper one at {place[:80]!r}")

    def array(self, place: str, declared: int, stored: int) -> None:
        """Count one array, alone and together with those before it."""
        self.declared += declared
        stored = min(stored, self.stored)
        for what, asked, there in ((repr(place), declared, stored), ("the whole file", self.declared, self.stored)):
            if asked > MOST_UNCHECKED and asked > MOST_RATIO * there:
                self.refuse(
                    "arrays as large as what is stored",
                    f"{what} declaring {readable(asked)} and storing {readable(there)}",
                )
        memory = available()
        if self.declared > memory:
            found = f"{readable(self.declared)} up to {place!r}"
            self.refuse(f"arrays that fit into {readable(memory)} of memory", found, "take a subset elsewhere")


def check_compressed(group: Mapping[str, Any], shape: Any, place: str, tally: Tally, *, by_rows: bool) -> None:
    """Refuse a compressed sparse matrix whose pointers or indices leave it, reading them in chunks.

    Args:
        group: Holds `data`, `indices` and `indptr`, on disk.
        shape: The declared (rows, columns).
        place: Where the matrix is, for messages.
        tally: Refuses.
        by_rows: Whether rows are compressed (CSR), or columns (CSC).
    """
    missing = [name for name in ("data", "indices", "indptr") if name not in group]
    shape = tuple(int(side) for side in np.ravel(shape))
    if missing or len(shape) != 2 or min(shape) < 0:
        tally.refuse(f"a sparse matrix at {place!r}", f"shape {shape} and no {' or '.join(missing) or 'matrix of it'}")
    major, minor = shape if by_rows else shape[::-1]
    data, indices, indptr = (group[name] for name in ("data", "indices", "indptr"))
    if any(len(array.shape) != 1 for array in (data, indices, indptr)):
        tally.refuse(f"flat data, indices and indptr at {place!r}", "other axes")
    if indptr.dtype.kind not in "iu" or indices.dtype.kind not in "iu":
        tally.refuse(f"whole indices at {place!r}", f"types {indptr.dtype} and {indices.dtype}")
    if indptr.shape[0] != major + 1 or data.shape != indices.shape:
        found = f"{indptr.shape[0]:,} pointers, {data.shape[0]:,} values and {indices.shape[0]:,} indices"
        tally.refuse(f"{major + 1:,} pointers and as many values as indices at {place!r}", found)
    _check_pointers(indptr, indices.shape[0], place, tally)
    _check_indices(indices, minor, place, tally)


def _check_pointers(indptr: Any, count: int, place: str, tally: Tally) -> None:
    last = 0
    for start in range(0, indptr.shape[0], CHUNK):
        piece = np.asarray(indptr[start : start + CHUNK])
        falls = int(piece[0]) < last or bool((piece[1:] < piece[:-1]).any())
        if falls or (start == 0 and piece[0] != 0):
            found = "some that fall" if falls else f"{piece[0]:,} at their start"
            tally.refuse(f"pointers that rise from 0 to {count:,} at {place + '/indptr'!r}", found)
        last = int(piece[-1])
    if last != count:
        tally.refuse(f"pointers that rise from 0 to {count:,} at {place + '/indptr'!r}", f"{last:,} at their end")


def _check_indices(indices: Any, minor: int, place: str, tally: Tally) -> None:
    for start in range(0, indices.shape[0], CHUNK):
        piece = np.asarray(indices[start : start + CHUNK])
        for worst in (int(piece.min()), int(piece.max())):
            if not 0 <= worst < minor:
                tally.refuse(f"indices from 0 to {minor - 1:,} at {place + '/indices'!r}", f"{worst:,}")


def open_text(path: Path) -> io.BufferedReader:
    """A text file's bytes, unpacked where its name ends in .gz, that refuse to unpack into a bomb."""
    raw = _Bounded(path)
    return io.BufferedReader(raw, buffer_size=2**18)


class _Bounded(io.RawIOBase):
    """A stream that counts what it gives."""

    def __init__(self, path: Path) -> None:
        self._stream: Any = gzip.open(path, "rb") if path.suffix.lower() == ".gz" else path.open("rb")
        self._tally = Tally(path, path.stat().st_size)
        self._given = 0
        self._most = min(available(), max(MOST_UNCHECKED, MOST_RATIO * self._tally.stored))

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        count = self._stream.readinto(buffer)
        self._given += count
        if self._given > self._most:
            self._tally.refuse(f"at most {readable(self._most)} of text", "more", "unpack it and read a part")
        return count

    def close(self) -> None:
        self._stream.close()
        super().close()
