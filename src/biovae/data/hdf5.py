"""HDF5 files looked through before they are read: nothing in them may lead outside, run a plug-in, or ask for too much.

HDF5 follows external links, external storage and virtual datasets into any file the user may read, and loads filters
as shared libraries; anndata allocates whatever a shape says. Every path that a reader could take is walked, soft links
and object references included, so that what is counted here is what would be read. Two damages on which HDF5 itself
(2.0.0) loops for ever or crashes are looked for too: a global heap with an empty object, and sequences of an unknown
kind where text should be.
"""

import math
import mmap
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import h5py
import numpy as np

from biovae.data.limits import MOST_RATIO, MOST_UNCHECKED, OBJECT_BYTES, Tally, check_compressed
from biovae.errors import InputError

FILTERS = {
    h5py.h5z.FILTER_DEFLATE, h5py.h5z.FILTER_SHUFFLE, h5py.h5z.FILTER_FLETCHER32, h5py.h5z.FILTER_SZIP,
    h5py.h5z.FILTER_NBIT, h5py.h5z.FILTER_SCALEOFFSET, h5py.h5z.FILTER_LZF,
}  # fmt: skip
HEAP = b"GCOL\x01\0\0\0"
SIGNATURES = {
    b"\x1f\x8b": "a gzip file", b"PK": "a zip file", b"\x80": "a pickle", b"BZh": "a bzip2 file", b"%!": "a document",
    b"<": "a web page", b"{": "a JSON text", b"%%MatrixMarket": "a Matrix Market text",
}  # fmt: skip


@contextmanager
def open_hdf5(path: Path) -> Iterator[h5py.File]:
    """An HDF5 file, opened for reading and looked through; an InputError says what is wrong with it."""
    try:
        file = h5py.File(path, "r")
    except OSError as error:
        raise InputError(_why_not(path, str(error))) from error
    with file:
        tally = Tally(path, path.stat().st_size)
        _check_heaps(tally)
        _visit(file, "", (), tally)
        yield file


def as_text(dataset: h5py.Dataset) -> np.ndarray:
    """Strings of fixed or variable length, or numbers, as an array of str."""
    values = dataset[()]
    decoded = [value.decode("utf-8", "replace") if isinstance(value, bytes) else str(value) for value in values]
    return np.array(decoded, dtype=object)


def _why_not(path: Path, reason: str) -> str:
    if not h5py.is_hdf5(path):
        start = path.read_bytes()[:16] if path.stat().st_size < 2**16 else path.open("rb").read(16)
        kind = next((kind for sign, kind in SIGNATURES.items() if start.startswith(sign)), "something else")
        return f"expected an HDF5 file, found {kind if start else 'an empty file'} in {path.name}: check its name."
    if "truncated" in reason:
        return f"expected the whole of {path.name}, found a truncated file: copy or download it again."
    return f"expected a sound HDF5 file, found {path.name} that cannot be opened ({reason.splitlines()[0]})."


def _check_heaps(tally: Tally) -> None:
    """Each global heap, where text of variable length lives, must be filled by its objects, one after the other."""
    with tally.path.open("rb") as stream, mmap.mmap(stream.fileno(), 0, access=mmap.ACCESS_READ) as content:
        start = content.find(HEAP)
        while start >= 0:
            end = start + int.from_bytes(content[start + 8 : start + 16], "little")
            position = start + 16
            while position + 16 <= end <= len(content):
                index = int.from_bytes(content[position : position + 2], "little")
                size = int.from_bytes(content[position + 8 : position + 16], "little")
                step = 16 + -(-size // 8) * 8 if index else size  # the free space, number 0, counts its own head
                if not step or position + step > end:
                    tally.refuse("sound global heaps", f"a broken one at byte {start:,}", "copy the file again")
                position += step
            start = content.find(HEAP, start + 8)


def _check_type(dtype: np.dtype, place: str, tally: Tally) -> None:
    """Numbers, text, references, and records of them; sequences of variable length are nobody's business here."""
    dtype = dtype.base
    for field in dtype.names or ():
        _check_type(dtype[field], place, tally)
    known = dtype.names or h5py.check_string_dtype(dtype) or h5py.check_ref_dtype(dtype)
    if dtype.hasobject and not known:
        tally.refuse("numbers and text", f"sequences of variable length at {place!r}")


def _visit(node: Any, place: str, above: tuple[int, ...], tally: Tally) -> None:
    group = isinstance(node, h5py.Group)
    tally.node(place or "/", depth=len(above), children=len(node) if group else 0)
    _check_attributes(node, place, above, tally)
    if isinstance(node, h5py.Dataset):
        _check_dataset(node, place, tally)
    if not group:
        return
    address = h5py.h5o.get_info(node.id).addr
    if address in above:
        tally.refuse("a tree of groups", f"a link at {place!r} that leads back to a group above it")
    for name in node:
        _visit(_linked(node, name, place, tally), f"{place}/{name}", (*above, address), tally)
    _check_sparse(node, place or "/", tally)


def _linked(group: h5py.Group, name: str, place: str, tally: Tally) -> Any:
    """What a link leads to, if it stays in the file."""
    link = group.get(name, getlink=True)
    if isinstance(link, h5py.ExternalLink):
        tally.refuse("all data inside", f"a link at {f'{place}/{name}'!r} to {link.path!r} of {link.filename!r}")
    if not isinstance(link, h5py.HardLink | h5py.SoftLink):
        tally.refuse("hard and soft links", f"one of another kind at {f'{place}/{name}'!r}")
    try:
        return group[name]
    except (KeyError, OSError, RuntimeError) as error:
        tally.refuse("links that lead somewhere", f"{f'{place}/{name}'!r} ({str(error).strip(chr(34))})")


def _check_attributes(node: Any, place: str, above: tuple[int, ...], tally: Tally) -> None:
    """Attributes must be as small as the file; the arrays they refer to are read by old anndata formats."""
    for name in node.attrs:
        attribute = node.attrs.get_id(name)
        _check_type(attribute.dtype, f"{place}@{name}", tally)
        if math.prod(attribute.shape) * attribute.dtype.itemsize > tally.stored:
            tally.refuse("attributes smaller than the file", f"{name!r} of {place or '/'!r}")
        if h5py.check_ref_dtype(attribute.dtype) is h5py.Reference:
            for reference in np.ravel(node.attrs[name]):
                target = node.file[reference] if reference else None
                if isinstance(target, h5py.Dataset) and target != node:
                    _check_dataset(target, f"{place}@{name}", tally)


def _check_dataset(dataset: h5py.Dataset, place: str, tally: Tally) -> None:
    layout = dataset.id.get_create_plist()
    if layout.get_external_count():
        tally.refuse("all data inside", f"{place!r} stored in {layout.get_external(0)[0].decode(errors='replace')!r}")
    if layout.get_layout() == h5py.h5d.VIRTUAL:
        tally.refuse("all data inside", f"{place!r}, a virtual dataset made of other files")
    for code, _, _, name in (layout.get_filter(number) for number in range(layout.get_nfilters())):
        if code not in FILTERS:
            found = f"filter {code} ({name.decode(errors='replace') or 'unnamed'}), a plug-in, at {place!r}"
            tally.refuse("filters that HDF5 brings along", found, "write the file again with compression='gzip'")
    _check_type(dataset.dtype, place, tally)
    size = OBJECT_BYTES if dataset.dtype.hasobject else dataset.dtype.itemsize
    entries = math.prod(dataset.shape) if dataset.shape is not None else 0
    chunk = math.prod(layout.get_chunk()) if layout.get_layout() == h5py.h5d.CHUNKED else 0
    tally.array(place, max(entries, chunk) * size, dataset.id.get_storage_size())
    if dataset.dtype.hasobject and entries * tally.stored > MOST_UNCHECKED:
        _check_strings(dataset, place, tally)


def _check_strings(dataset: h5py.Dataset, place: str, tally: Tally) -> None:
    """Many strings may share one long text on disk; each is at most as long as the file, so pieces are safe to read."""
    if len(dataset.shape) != 1 or h5py.check_string_dtype(dataset.dtype) is None:
        return
    step = min(2**16, max(256, MOST_UNCHECKED // tally.stored))
    total = 0
    for start in range(0, dataset.shape[0], step):
        total += sum(map(len, dataset[start : start + step]))
        if total > MOST_UNCHECKED and total > MOST_RATIO * tally.stored:
            tally.refuse("strings as large as what is stored", f"more than {total:,} characters at {place!r}")


def _check_sparse(group: h5py.Group, place: str, tally: Tally) -> None:
    kind = group.attrs.get("encoding-type", group.attrs.get("h5sparse_format", ""))
    kind = kind.decode() if isinstance(kind, bytes) else str(kind)
    if kind in ("csr_matrix", "csr", "csc_matrix", "csc"):
        shape = group.attrs.get("shape", group.attrs.get("h5sparse_shape", ()))
        check_compressed(group, shape, place, tally, by_rows=kind.startswith("csr"))
