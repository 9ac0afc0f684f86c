"""Files from elsewhere, taken only as what they are known to be.

A file is written under a temporary name beside its place, checked against its sha256, and renamed: what stands
under the real name is whole and right. A transfer that breaks leaves the temporary file, and the next call goes on from
there where the server allows it (HTTP range requests).
"""

import hashlib
import http.client
import os
import re
import sys
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Callable
from pathlib import Path

from biovae.errors import InputError, first

SCHEMES = ("https", "http", "file")
BLOCK = 2**20
TIMEOUT = 60.0  # seconds without an answer

#: Told the bytes that are here, and the bytes there will be, None where the server does not say.
Progress = Callable[[int, int | None], None]


def on_terminal(here: int, total: int | None) -> None:
    """Keep one line of progress on the terminal, and say nothing where there is none."""
    if not sys.stderr.isatty():
        return
    share = f" of {total / 1e6:.1f} MB ({here / total:.0%})" if total else " MB"
    print(f"\r{here / 1e6:.1f}{share}", end="\n" if here == total else "", file=sys.stderr, flush=True)


def fetch(url: str, path: str | Path, sha256: str, *, progress: Progress = on_terminal) -> Path:
    """Bring a file here unless it already is, and return its path.

    Args:
        url: An https, http or file address.
        path: Where the file shall stand; its folder is made.
        sha256: Checksum of the whole file, 64 hexadecimal digits.
        progress: Called after each block.

    Raises:
        InputError: If the address or checksum is malformed, the file cannot be read or breaks off, the bytes are others
            than promised, or another file stands at `path`, which is never overwritten.
    """
    path, sha256 = Path(path), sha256.lower()
    _check(url, sha256)
    if path.exists():
        _compare(path, sha256, "delete it, or give another path")
        return path
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_name(f"{path.name}.{sha256[:8]}.part")
    try:
        _transfer(url, part, progress)
    except (OSError, http.client.HTTPException) as error:
        reason = getattr(error, "reason", None) or error
        kept = part.stat().st_size if part.exists() else 0
        raise InputError(
            f"expected to read {url}, found {reason}: check the address and the connection; "
            f"{kept} bytes are kept and the next call goes on from there."
        ) from error
    try:
        _compare(part, sha256, "check the address and the checksum")
    except InputError:
        part.unlink()
        raise
    os.replace(part, path)
    return path


def _check(url: str, sha256: str) -> None:
    scheme = urllib.parse.urlsplit(url).scheme
    if scheme not in SCHEMES:
        raise InputError(f"expected an address of {first(SCHEMES)}, found {url!r}: give the whole address.")
    if not re.fullmatch("[0-9a-f]{64}", sha256):
        raise InputError(f"expected a sha256 of 64 hexadecimal digits, found {sha256!r}: copy it from the source.")


def _compare(path: Path, sha256: str, advice: str) -> None:
    with path.open("rb") as file:
        found = hashlib.file_digest(file, "sha256").hexdigest()
    if found != sha256:
        raise InputError(f"expected {path} to have sha256 {sha256}, found {found}: {advice}.")


def _transfer(url: str, part: Path, progress: Progress) -> None:
    """Append to `part` what is missing of it, or write it anew where the server sends the whole."""
    here = part.stat().st_size if part.exists() else 0
    request = urllib.request.Request(url, headers={"Range": f"bytes={here}-"} if here else {})
    try:
        answer = urllib.request.urlopen(request, timeout=TIMEOUT)
    except urllib.error.HTTPError as error:
        if error.code != http.HTTPStatus.REQUESTED_RANGE_NOT_SATISFIABLE:
            raise
        return  # nothing is missing: the checksum decides
    with answer:
        goes_on = answer.headers.get("Content-Range", "").startswith(f"bytes {here}-")
        here = here if goes_on else 0
        length = answer.headers.get("Content-Length")
        total = here + int(length) if length else None
        with part.open("ab" if goes_on else "wb") as file:
            while block := answer.read(BLOCK):
                file.write(block)
                here += len(block)
                progress(here, total)
    if total is not None and here < total:
        raise OSError(f"the end after {here} of {total} bytes")
