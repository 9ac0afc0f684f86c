"""Files of every kind into AnnData or MuData: `read` one, `read_many` as batches of one.

The kind follows from the name. Each reader looks its file through before anything is allocated (limits.py, hdf5.py,
stores.py), so a hostile or damaged file ends in one InputError; no file is ever written. To add a kind, write a
function from a path to an AnnData and give it a line in `READERS`.
"""

import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import anndata
import mudata
import zarr
from anndata import AnnData
from mudata import MuData

from biovae.data.hdf5 import open_hdf5
from biovae.data.join import join
from biovae.data.loom import read_loom
from biovae.data.stores import open_store
from biovae.data.table import read_table
from biovae.data.tenx import read_10x_folder, read_10x_h5
from biovae.errors import InputError, closest


def read(path: str | Path, *, transpose: bool = False) -> AnnData | MuData:
    """Read a file or folder, whatever it is, after making sure that it is what it says.

    Args:
        path: `.h5ad`, `.h5mu`, `.zarr`, a 10x `.h5` or folder, `.loom`, `.csv`, `.tsv`, or the last two with `.gz`.
        transpose: The rows of a table are features, not observations.

    Raises:
        InputError: The path leads nowhere, is of no known kind, damaged, or asks for more than it holds.
    """
    path = Path(path)
    suffix = _suffix(path)
    if transpose and suffix not in TABLES:
        raise InputError(f"expected a table to transpose, found {path.name}: leave transpose out.")
    with _one_sentence(path):
        return read_table(path, transpose=True) if transpose else READERS[suffix](path)


def read_many(paths: Sequence[str | Path], batch: str, *, transpose: bool = False) -> tuple[AnnData, list[str]]:
    """Read several files and join their observations, over the genes that all of them have.

    Args:
        paths: The files, each an AnnData.
        batch: The column of `obs` that will name the file of each observation.
        transpose: Of tables: rows are features.

    Returns:
        The joined data, and a sentence for everything that was left out or renamed.

    Raises:
        InputError: A file cannot be read or holds a MuData, or the files share no gene.
    """
    return join(*read_parts(paths, transpose=transpose), batch)


def read_parts(paths: Sequence[str | Path], *, transpose: bool = False) -> tuple[list[AnnData], list[str]]:
    """Several files as they are, and a name for each, as `join` takes them; see `read_many`."""
    if not paths:
        raise InputError("expected at least one file to read, found none.")
    parts = []
    for path in map(Path, paths):
        part = read(path, transpose=transpose)
        if not isinstance(part, AnnData):
            raise InputError(f"expected one modality per file to join, found a MuData in {path.name}: fit it alone.")
        parts.append(part)
    return parts, _labels([Path(path) for path in paths])


def _read_h5ad(path: Path) -> AnnData:
    with open_hdf5(path) as file:
        if "mod" in file and "obs" in file:
            raise InputError(f"expected an AnnData, found a MuData in {path.name}: rename it to .h5mu.")
        if "obs" not in file or "var" not in file:
            raise InputError(f"expected an AnnData with obs and var, found none in {path.name}: check its name.")
    return anndata.read_h5ad(path)


def _read_h5mu(path: Path) -> MuData:
    with open_hdf5(path) as file:
        if "mod" not in file:
            raise InputError(f"expected a MuData with modalities, found none in {path.name}: is it an .h5ad?")
    return mudata.read_h5mu(path)


def _read_zarr(path: Path) -> AnnData | MuData:
    store = open_store(path)
    try:
        return mudata.read_zarr(store) if "mod" in zarr.open_group(store, mode="r") else anndata.read_zarr(store)
    finally:
        store.close()


READERS: dict[str, Callable[[Path], AnnData | MuData]] = {
    ".h5ad": _read_h5ad,
    ".h5mu": _read_h5mu,
    ".zarr": _read_zarr,
    ".zarr.zip": _read_zarr,
    ".h5": read_10x_h5,
    ".loom": read_loom,
    "folder": read_10x_folder,
}
TABLES = (".csv", ".csv.gz", ".tsv", ".tsv.gz")
READERS |= dict.fromkeys(TABLES, lambda path: read_table(path, transpose=False))


def _suffix(path: Path) -> str:
    """The kind of a path, as `READERS` knows it."""
    if not path.exists():
        folder = path.parent
        names = sorted(entry.name for entry in folder.iterdir()) if folder.is_dir() else []
        hint = closest(path.name, names) if folder.is_dir() else f"there is no folder {folder} either."
        raise InputError(f"expected a file at {path}, found none: {hint}")
    name = path.name.lower()
    if path.is_dir():
        zarr_inside = any((path / document).exists() for document in ("zarr.json", ".zgroup"))
        return ".zarr" if zarr_inside or name.endswith(".zarr") else "folder"
    suffix = next((suffix for suffix in READERS if name.endswith(suffix)), None)
    if suffix is None or not path.is_file():
        known = ", ".join(suffix for suffix in READERS if suffix.startswith("."))
        raise InputError(f"expected a file of a known kind, found {path.name}: convert it to one of {known}.")
    return suffix


def _labels(paths: list[Path]) -> list[str]:
    """A name for each file: its own without the suffix, with the folder's where that is not enough, or a number.

    >>> _labels([Path("a/x.h5ad"), Path("b/x.h5ad"), Path("c.csv.gz")])
    ['a/x', 'b/x', 'c']
    """
    stems = [stem(path) for path in paths]
    stems = [f"{path.absolute().parent.name}/{stem}" if stems.count(stem) > 1 else stem
             for path, stem in zip(paths, stems, strict=True)]  # fmt: skip
    return [f"{stem}-{stems[:i].count(stem) + 1}" if stems.count(stem) > 1 else stem for i, stem in enumerate(stems)]


def stem(path: Path) -> str:
    """The name of a file without the suffix that says what it holds."""
    suffix = next((suffix for suffix in READERS if path.name.lower().endswith(suffix)), "")
    return path.name[: len(path.name) - len(suffix)] or path.name


@contextmanager
def quiet() -> Iterator[None]:
    """Silence what other libraries warn of when they read or write, and the data gate says in its own words."""
    with warnings.catch_warnings():
        for message in QUIET:
            warnings.filterwarnings("ignore", message=message)
        yield


@contextmanager
def _one_sentence(path: Path) -> Iterator[None]:
    """What other libraries raise becomes an InputError; what they warn of, and the data gate will say, is silenced."""
    with quiet(), mudata.set_options(pull_on_update=False):  # obs and var as the file has them
        try:
            yield
        except InputError:
            raise
        except MemoryError as error:
            raise InputError(f"expected {path.name} to fit into memory, found too little: read a subset.") from error
        except Exception as error:  # whatever three libraries raise at a damaged file
            reason = f"{type(error).__name__}: {error}".splitlines()[0][:200]
            raise InputError(
                f"expected to read {path.name}, found it damaged or of another layout ({reason}): write it again."
            ) from error


QUIET = (
    r"(Variable |Observation |var_|obs_)names are not unique",
    r"Cannot join columns with the same name because",  # var_names shared by modalities
    r"Element .* was written without encoding metadata",
    r"Moving element from",
    r"Forward slashes will be disallowed",  # in names of columns, which are the user's
    r"Consolidated metadata is currently not part",
    r"The data type .* does not have a Zarr V3 specification",
)
