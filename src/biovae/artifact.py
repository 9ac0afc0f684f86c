"""A folder on disk that can be trusted: JSON documents, one safetensors file, and a manifest that vouches for both.

    NAME.json              one per document, strict JSON
    weights.safetensors    every tensor
    manifest.json          kind, schema version, versions of the software, size and sha256 of each file and of itself

`write` fills a folder under a temporary name, flushes it, and renames it: a reader sees all of it or none. `read`
believes nothing: names, sizes and hashes are checked before any file is parsed, nesting and sizes are bounded, and no
code, path or class is ever taken from a file. The same content gives the same bytes.

To change the layout, raise SCHEMA_VERSION, teach `read` to translate the older ones, and keep a folder of each
version among the tests.
"""

import errno
import hashlib
import json
import math
import os
import platform
import re
import secrets
import shutil
import stat
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

import safetensors.torch
import torch
from safetensors import SafetensorError
from torch import Tensor

from biovae import __version__
from biovae.errors import InputError, ModelFileError, first

SCHEMA_VERSION = 1
MANIFEST = "manifest.json"
WEIGHTS = "weights.safetensors"
TEMPORARY = ".tmp-"  # how unfinished folders are called; whoever owns the parent may delete them

MOST_BYTES = {".json": 32 * 2**20, ".safetensors": 16 * 2**30}
MOST_HEADER_BYTES = 32 * 2**20
MOST_NESTING = 32

_FILE_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_-]*\.(json|safetensors)")
_PICKLES = {".pt", ".pth", ".pkl", ".pickle", ".ckpt", ".bin", ".joblib", ".distcp"}
_DTYPES = {
    torch.float64, torch.float32, torch.float16, torch.bfloat16, torch.bool,
    torch.int64, torch.int32, torch.int16, torch.int8, torch.uint8,
}  # fmt: skip


def write(
    path: Path | str,
    documents: Mapping[str, Mapping[str, Any]],
    tensors: Mapping[str, Tensor],
    *,
    kind: str,
    overwrite: bool = False,
    finite: bool = True,
) -> None:
    """Write an artifact to `path`, whole or not at all.

    An artifact that is replaced stands aside until the new one is complete; if the write fails it is still there.

    Args:
        path: The folder to make; its parents are made too.
        documents: What each `NAME.json` holds; numbers must be finite.
        tensors: What `weights.safetensors` holds, on any device.
        kind: What the folder is, for example "model"; `read` must ask for the same.
        overwrite: Replace an artifact that is already there (anything else is never replaced).
        finite: Refuse NaN and infinity among the tensors.

    Raises:
        InputError: `path` is taken.
        ModelFileError: A tensor is not finite, or a document has a name that is no plain file name.
        OSError: The disk is full, read-only or failing; the message says what is left as it was.
    """
    path = Path(os.path.abspath(path))
    _check_target(path, overwrite=overwrite)
    files = {f"{name}.json": _document(name, content) for name, content in documents.items()}
    files[WEIGHTS] = safetensors.torch.save(_plain(tensors, finite=finite))
    files[MANIFEST] = _manifest(files, kind)

    temporary = path.with_name(f"{TEMPORARY}{path.name}-{secrets.token_hex(4)}")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        temporary.mkdir()
        for name, data in files.items():
            _write_file(temporary / name, data)
        _flush_folder(temporary)
        _rename(temporary, path)
    except OSError as error:
        reason = error.strerror or str(error)
        message = (
            f"expected to write {path}, found '{reason}'; nothing was changed, free space or choose another folder"
        )
        raise OSError(error.errno or errno.EIO, message) from error
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def read(
    path: Path | str, *, kind: str, device: torch.device | str = "cpu", finite: bool = True
) -> tuple[dict[str, dict[str, Any]], dict[str, Tensor]]:
    """Read back the documents and tensors of an artifact, or say what is wrong with it.

    Args:
        path: A folder made by `write`.
        kind: What the folder has to be.
        device: Where the tensors go.
        finite: Refuse NaN and infinity among the tensors.

    Raises:
        ModelFileError: Anything is missing, extra, changed, too large, too deep, of another kind or version.
    """
    path = Path(path)
    manifest = _read_manifest(path, kind)
    files = {name: _read_file(path / name, entry) for name, entry in manifest["files"].items()}
    documents = {
        name.removesuffix(".json"): _parse(data, path / name) for name, data in files.items() if name.endswith(".json")
    }
    tensors = _parse_tensors(files[WEIGHTS], path / WEIGHTS)
    _check_tensors(tensors, path / WEIGHTS, finite=finite)
    return documents, {name: tensor.to(device) for name, tensor in tensors.items()}


def _check_target(path: Path, *, overwrite: bool) -> None:
    """Only an artifact may be replaced, and only if asked to."""
    if not os.path.lexists(path):
        return
    if not overwrite:
        raise InputError(f"expected a new folder, found {path} already there; pass overwrite=True or another name.")
    strangers = [] if not path.is_dir() else [p.name for p in path.iterdir() if not _FILE_NAME.fullmatch(p.name)]
    if path.is_symlink() or not path.is_dir() or strangers:
        found = f"a folder with {first(sorted(strangers))}" if strangers else "no folder of biovae's"
        raise InputError(f"expected {path} to be an older artifact to replace, found {found}; choose another name.")


def _document(name: str, content: Mapping[str, Any]) -> bytes:
    if not _FILE_NAME.fullmatch(f"{name}.json") or f"{name}.json" == MANIFEST:
        raise ModelFileError(f"expected a document named by letters, digits, - and _, found {name!r}; rename it.")
    try:
        return _json(content)
    except (TypeError, ValueError) as error:
        raise ModelFileError(f"expected {name}.json to hold finite numbers, text, lists and maps: {error}.") from None


def _json(content: Mapping[str, Any]) -> bytes:
    text = json.dumps(content, indent=1, allow_nan=False, ensure_ascii=False) + "\n"
    return text.encode(errors="surrogatepass")


def _manifest(files: Mapping[str, bytes], kind: str) -> bytes:
    manifest = {
        "kind": kind,
        "schema_version": SCHEMA_VERSION,
        "files": {name: {"bytes": len(data), "sha256": _sha256(data)} for name, data in sorted(files.items())},
        "versions": {"biovae": __version__, "torch": torch.__version__, "python": platform.python_version()},
    }
    return _sealed(manifest)


def _sealed(manifest: Mapping[str, Any]) -> bytes:
    """The one spelling of a manifest: its own hash comes last, so that a byte changed anywhere shows."""
    body = {key: value for key, value in manifest.items() if key != "sha256"}
    return _json(body | {"sha256": _sha256(_json(body))})


def _plain(tensors: Mapping[str, Tensor], *, finite: bool) -> dict[str, Tensor]:
    """Tensors as they go to disk: on the CPU, contiguous, sharing no memory."""
    copies = {name: t.detach().to("cpu", copy=True).contiguous() for name, t in tensors.items()}
    _check_tensors(copies, Path(WEIGHTS), finite=finite)
    return copies


def _write_file(path: Path, data: bytes) -> None:
    with open(path, "xb") as file:
        file.write(data)
        file.flush()
        os.fsync(file.fileno())


def _flush_folder(path: Path) -> None:
    """Make the names in a folder durable, where the system can."""
    if os.name == "posix":
        descriptor = os.open(path, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)


def _rename(temporary: Path, path: Path) -> None:
    """Put the finished folder in place; what was there steps aside first and comes back if that fails."""
    aside = temporary.with_name(f"{temporary.name}-old")
    if path.exists():
        os.replace(path, aside)
    try:
        os.replace(temporary, path)
    except BaseException:  # an interrupt too
        with suppress(FileNotFoundError):
            os.replace(aside, path)
        raise
    _flush_folder(path.parent)
    shutil.rmtree(aside, ignore_errors=True)


def _sha256(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


def _refusal(path: Path, expected: str, found: str) -> ModelFileError:
    return ModelFileError(f"expected {expected} at {path}, found {found}; restore it from a copy or save it again.")


def _read_manifest(path: Path, kind: str) -> dict[str, Any]:
    """The manifest, once it and the list of files in the folder hold together."""
    if not path.is_dir():
        found = "a file" if path.exists() else "nothing"
        raise _refusal(path, f"a folder that holds a {kind}", found)
    names = sorted(os.listdir(path))
    pickles = [name for name in names if Path(name).suffix.lower() in _PICKLES]
    if pickles:
        raise _refusal(path, "JSON and safetensors alone", f"{first(pickles)}, which may run code when opened")
    if MANIFEST not in names:
        raise _refusal(path, f"a {MANIFEST}", f"{first(names)}" if names else "an empty folder")

    data = _read_file(path / MANIFEST)
    manifest = _parse(data, path / MANIFEST)
    version = manifest.get("schema_version")
    if isinstance(version, int) and version > SCHEMA_VERSION:
        raise ModelFileError(
            f"expected schema version {SCHEMA_VERSION} or older at {path}, found {version}; upgrade biovae to read it."
        )
    if type(version) is not int or version != SCHEMA_VERSION:
        raise _refusal(path, f"schema version {SCHEMA_VERSION}", repr(version))
    if data != _sealed(manifest):
        raise _refusal(path / MANIFEST, "the manifest as it was written", "one that was changed since")
    if manifest.get("kind") != kind:
        raise ModelFileError(f"expected a {kind} at {path}, found a {manifest.get('kind')}; open it as what it is.")
    _check_names(manifest.get("files"), names, path)
    return manifest


def _check_names(files: Any, names: list[str], path: Path) -> None:
    """The manifest lists plain names and nothing else lies in the folder; hidden files of the system are ignored."""
    if not isinstance(files, dict) or WEIGHTS not in files:
        raise _refusal(path / MANIFEST, f"a list of files with {WEIGHTS}", "none")
    strange = [name for name in files if not _FILE_NAME.fullmatch(name)]
    if strange:
        raise _refusal(path / MANIFEST, "plain names of .json and .safetensors files", first(strange))
    missing = [name for name in files if name not in names]
    if missing:
        raise _refusal(path, f"{len(files)} files beside the manifest", f"{first(missing)} missing")
    extra = [name for name in names if name not in files and name != MANIFEST and not name.startswith(".")]
    if extra:
        raise _refusal(path, "only the files that the manifest lists", f"{first(extra)} beside them")


def _read_file(path: Path, entry: Any = None) -> bytes:
    """The bytes of a regular file of bounded size; with an entry of the manifest, of exactly that size and hash."""
    status = os.lstat(path)
    if not stat.S_ISREG(status.st_mode):
        raise _refusal(path, "a regular file", "a link" if stat.S_ISLNK(status.st_mode) else "something else")
    most = MOST_BYTES[path.suffix]
    if status.st_size > most:
        raise _refusal(path, f"at most {most:,} bytes", f"{status.st_size:,}")
    if entry is not None and not (isinstance(entry, dict) and entry.get("bytes") == status.st_size):
        size = entry.get("bytes") if isinstance(entry, dict) else entry
        raise _refusal(path, f"{size} bytes as in the manifest", f"{status.st_size}")
    data = path.read_bytes()
    if entry is not None and _sha256(data) != entry.get("sha256"):
        raise _refusal(path, f"sha256 {str(entry.get('sha256'))[:12]}...", f"{_sha256(data)[:12]}...: it was changed")
    return data


def _parse(data: bytes, path: Path) -> dict[str, Any]:
    """A JSON object, strictly: no NaN, no endless nesting or numbers."""
    try:
        document = json.loads(data, parse_constant=_finite, parse_float=_finite)
    except RecursionError:
        raise _refusal(path, f"JSON nested at most {MOST_NESTING} deep", "far deeper nesting") from None
    except ValueError as error:
        raise _refusal(path, "JSON", f"something else ({error})") from None
    if not isinstance(document, dict):
        raise _refusal(path, "a JSON object", f"a {type(document).__name__}")
    level: list[Any] = [document]
    for _ in range(MOST_NESTING + 1):
        level = [child for parent in level for child in _children(parent)]
    if level:
        raise _refusal(path, f"JSON nested at most {MOST_NESTING} deep", "deeper nesting")
    return document


def _finite(number: str) -> float:
    value = float(number)
    if not math.isfinite(value):
        raise ValueError(f"{number} is not a finite number")
    return value


def _children(value: Any) -> list[Any]:
    """The containers directly inside a JSON value."""
    items = value.values() if isinstance(value, dict) else value
    return [item for item in items if isinstance(item, dict | list)]


def _parse_tensors(data: bytes, path: Path) -> dict[str, Tensor]:
    """The tensors; safetensors itself refuses overlaps, holes and shapes that do not fit, we bound its header."""
    header = int.from_bytes(data[:8], "little")
    if len(data) < 8 or header > min(MOST_HEADER_BYTES, len(data) - 8):
        raise _refusal(path, f"a safetensors header within {len(data):,} bytes", f"one of {header:,} bytes")
    try:
        return safetensors.torch.load(data)
    except (SafetensorError, KeyError, ValueError, TypeError, RuntimeError, AssertionError, OverflowError) as error:
        raise _refusal(path, "safetensors", f"something else ({error})") from None


def _check_tensors(tensors: Mapping[str, Tensor], path: Path, *, finite: bool) -> None:
    odd = {name: t for name, t in tensors.items() if t.dtype not in _DTYPES}
    if odd:
        raise _refusal(path, "real, whole or boolean tensors", f"{first(odd)} of {next(iter(odd.values())).dtype}")
    bad = [name for name, t in tensors.items() if finite and t.is_floating_point() and not bool(t.isfinite().all())]
    if bad:
        raise ModelFileError(
            f"expected finite tensors in {path}, found NaN or infinity in {len(bad)} of {len(tensors)}: {first(bad)}; "
            "keep the last good weights instead."
        )
