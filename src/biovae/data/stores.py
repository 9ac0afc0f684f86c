"""Zarr stores looked through before they are read: folders and zips, formats 2 and 3.

A store is a tree of JSON documents and chunks. No link may leave it, no codec may run code (a pickle is one), and no
shape may ask for more than is there; consolidated metadata is believed by zarr, hence checked like the rest.
"""

import json
import math
import os
import re
import stat
import zipfile
from collections.abc import Iterator, Mapping
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np
import zarr
from zarr.storage import LocalStore, ZipStore

from biovae.data.limits import MOST_NESTING, OBJECT_BYTES, Tally, check_compressed, readable
from biovae.errors import InputError

CODECS = {
    "bytes", "transpose", "gzip", "zstd", "blosc", "crc32c", "sharding_indexed", "vlen-utf8", "vlen-bytes",
}  # fmt: skip
CODECS_2 = {
    "blosc", "zstd", "zlib", "gzip", "lz4", "bz2", "lzma", "vlen-utf8", "vlen-bytes", "delta", "shuffle", "crc32c",
}  # fmt: skip
DOCUMENTS = {"zarr.json", ".zarray", ".zgroup", ".zattrs", ".zmetadata"}
MOST_DOCUMENT = 64 * 2**20


def open_store(path: Path) -> LocalStore | ZipStore:
    """A Zarr store for reading, looked through; an InputError says what is wrong with it."""
    folder = path.is_dir()
    if not folder and not zipfile.is_zipfile(path):
        raise InputError(f"expected a Zarr folder or zip, found a file of another kind in {path.name}: check its name.")
    sizes = _folder(path) if folder else _zip(path)
    tally = Tally(path, sum(sizes.values()) if folder else path.stat().st_size)
    if "zarr.json" not in sizes and ".zgroup" not in sizes:
        tally.refuse("a Zarr group", "neither zarr.json nor .zgroup", "check its name")
    documents = dict(_documents(path, sizes, tally))
    stored = _stored(sizes, {_parent(key) for key, content in documents.items() if "shape" in content})
    for key, content in documents.items():
        if content.get("node_type") in ("array", "group") or key.endswith((".zarray", ".zgroup")):
            tally.node(_place(key), depth=key.count("/"))
        if "shape" in content and ("chunk_grid" in content or "chunks" in content):
            _check_array(content, _place(key), stored.get(_parent(key), 0), tally)
    store = LocalStore(path, read_only=True) if folder else ZipStore(path, mode="r")
    _check_sparse(store, documents, tally)
    return store


def _folder(path: Path) -> dict[str, int]:
    """Size in bytes of each file below a folder; only plain files and folders may be there."""
    sizes = {}
    folders = [str(path)]
    while folders:
        with os.scandir(folders.pop()) as entries:
            for entry in entries:
                name = Path(entry.path).relative_to(path).as_posix()
                if entry.is_dir(follow_symlinks=False):
                    folders.append(entry.path)
                elif entry.is_file(follow_symlinks=False):
                    sizes[name] = entry.stat(follow_symlinks=False).st_size
                else:
                    kind = f"a link to {os.readlink(entry.path)!r}" if entry.is_symlink() else "a special file"
                    Tally(path, 0).refuse("plain files and folders", f"{kind} at {name!r}")
    return sizes


def _zip(path: Path) -> dict[str, int]:
    """Size in bytes of each member of a zip; members stay below it, and are as large as what is stored."""
    tally = Tally(path, path.stat().st_size)
    try:
        with zipfile.ZipFile(path) as archive:
            members = archive.infolist()
    except (zipfile.BadZipFile, OSError, ValueError) as error:
        raise InputError(f"expected a whole zip, found a broken one in {path.name} ({error}).") from error
    for member in members:
        _check_name(member.filename, tally)
        if stat.S_ISLNK(member.external_attr >> 16) or member.flag_bits & 1:
            tally.refuse("plain members", f"a link or an encrypted file at {member.filename!r}")
        tally.array(member.filename, member.file_size, member.compress_size)
    names = [member.filename for member in members]
    if len(set(names)) < len(names):
        tally.refuse("each member once", f"{len(names) - len(set(names))} twice")
    return {member.filename: member.compress_size for member in members if not member.is_dir()}


def _check_name(name: str, tally: Tally) -> None:
    if name.startswith("/") or "\\" in name or ":" in name.split("/")[0] or ".." in PurePosixPath(name).parts:
        tally.refuse("paths that stay inside", repr(name))


def _documents(path: Path, sizes: dict[str, int], tally: Tally) -> Iterator[tuple[str, dict[str, Any]]]:
    """The metadata of every array and group, those of consolidated metadata under a key of their own."""
    archive = zipfile.ZipFile(path) if path.is_file() else None
    for key in sorted(name for name in sizes if name.rsplit("/", 1)[-1] in DOCUMENTS):
        if sizes[key] > MOST_DOCUMENT:
            tally.refuse(f"at most {readable(MOST_DOCUMENT)} of metadata", f"{readable(sizes[key])} at {key!r}")
        content = _parse(archive.read(key) if archive else (path / key).read_bytes(), key, tally)
        yield key, content
        inner = content.get("consolidated_metadata") or {}
        inner = content.get("metadata", {}) if key.endswith(".zmetadata") else inner.get("metadata", {})
        suffix = "" if key.endswith(".zmetadata") else "/zarr.json"
        for name, document in inner.items():
            _check_name(name, tally)
            yield f"{_parent(key)}/{name}{suffix}#".lstrip("/"), _object(document, key, tally)
    if archive:
        archive.close()


def _parse(data: bytes, key: str, tally: Tally) -> dict[str, Any]:
    try:
        content = json.loads(data)
    except (ValueError, RecursionError) as error:
        tally.refuse("JSON metadata", f"{key!r} that is none ({type(error).__name__})")
    return _object(content, key, tally)


def _object(content: Any, key: str, tally: Tally) -> dict[str, Any]:
    if not isinstance(content, dict):
        tally.refuse("JSON objects as metadata", f"a {type(content).__name__} at {key!r}")
    return content


def _parent(key: str) -> str:
    return key.removesuffix("#").rpartition("/")[0]


def _place(key: str) -> str:
    return "/" + _parent(key)


def _stored(sizes: Mapping[str, int], arrays: set[str]) -> dict[str, int]:
    """Bytes below each array."""
    stored = dict.fromkeys(arrays, 0)
    for name, size in sizes.items():
        folder = name
        while folder:
            folder = folder.rpartition("/")[0]
            if folder in stored:
                stored[folder] += size
                break
    return stored


def _check_array(content: dict[str, Any], place: str, stored: int, tally: Tally) -> None:
    try:
        shape = [int(side) for side in content["shape"]]
        if "chunk_grid" in content:
            names, size = list(_codecs(content["codecs"])), _size_3(content["data_type"])
            chunks, allowed = content["chunk_grid"]["configuration"]["chunk_shape"], CODECS
        else:
            names = [codec["id"] for codec in [*(content.get("filters") or []), content.get("compressor")] if codec]
            chunks, allowed, size = content["chunks"], CODECS_2, _size_2(content["dtype"])
        chunk = math.prod(int(side) for side in chunks)
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        tally.refuse("the metadata of an array", f"other at {place!r} ({type(error).__name__}: {error})")
    unknown = [name for name in names if name not in allowed]
    if unknown:
        advice = "write the store again with a standard codec such as zstd"
        tally.refuse(f"known codecs at {place!r}", ", ".join(map(repr, unknown)), advice)
    if min(shape, default=0) < 0 or chunk < 1:
        tally.refuse(f"a shape at {place!r}", f"{shape} in chunks of {chunk} values")
    tally.array(place, max(math.prod(shape), chunk) * size, stored)


def _codecs(codecs: list[Any], depth: int = 0) -> Iterator[str]:
    """Names of the codecs of format 3, those inside shards included."""
    if depth > MOST_NESTING:
        raise ValueError("shards in shards")
    for codec in codecs:
        yield codec if isinstance(codec, str) else codec["name"]
        inner = {} if isinstance(codec, str) else codec.get("configuration", {})
        for part in ("codecs", "index_codecs"):
            yield from _codecs(inner.get(part, []), depth + 1)


def _size_2(dtype: Any) -> int:
    dtype = np.dtype(dtype if isinstance(dtype, str) else [tuple(field) for field in dtype])
    return OBJECT_BYTES if dtype.hasobject else dtype.itemsize


def _size_3(data_type: Any) -> int:
    """Bytes of one value: int64 has 8, r24 has 3, text of a fixed length says so."""
    if isinstance(data_type, dict):
        return int(data_type.get("configuration", {}).get("length_bytes", OBJECT_BYTES))
    bits = re.fullmatch(r"(?:u?int|float|complex|r)(\d+)", data_type)
    return -(-int(bits[1]) // 8) if bits else 1 if data_type == "bool" else OBJECT_BYTES


def _check_sparse(store: Any, documents: Mapping[str, dict[str, Any]], tally: Tally) -> None:
    kinds = {}
    for key, content in documents.items():
        attributes = content if key.rstrip("#").endswith(".zattrs") else content.get("attributes")
        kind = attributes.get("encoding-type") if isinstance(attributes, dict) else None
        if kind in ("csr_matrix", "csc_matrix"):
            kinds[_parent(key)] = kind
    for folder, kind in kinds.items():
        group: Any = zarr.open_group(store, path=folder, mode="r")
        check_compressed(group, group.attrs.get("shape", ()), f"/{folder}", tally, by_rows=kind == "csr_matrix")
