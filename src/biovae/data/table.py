"""Tables of text, `.csv` and `.tsv`, gzipped or not: numbers become X, everything else a column of obs."""

from pathlib import Path

import pandas as pd
from anndata import AnnData

from biovae.data.limits import open_text
from biovae.errors import InputError, first

ENOUGH, STRAY = 10, 0.1  # values of a column, and the share of them that are no numbers where the others are
UNNAMED = ("index", "obs_names", "var_names")  # headers that say no more than "names"


def read_table(path: Path, *, transpose: bool) -> AnnData:
    """Read a table whose rows are observations, or features if it is to be transposed.

    The first column names the rows if its header is empty or "index", if it holds text and no value twice, or if it
    does no more than number them; it is kept in `obs` too if it has a header of its own, so that nothing a model may
    want (a sequence, a molecule) is lost.
    """
    frame = _frame(path)
    names = _names(frame, path)
    header = str(frame.columns[0])
    if names is not None and (transpose or not frame.columns[0] or header.lower() in UNNAMED):
        frame = frame.iloc[:, 1:]
    frame.index = pd.Index(map(str, range(len(frame))) if names is None else names, dtype=object)
    numeric = [name for name, kind in frame.dtypes.items() if kind.kind in "iuf"]
    if names is not None and header in numeric[:1]:
        numeric = numeric[1:]
    rest = [name for name in frame if name not in set(numeric)]
    _refuse_stray_text(frame[rest], path)
    if transpose and rest:
        raise InputError(
            f"expected numbers in every column of {path.name} but the first to transpose it, found text in "
            f"{first(rest)}: drop those columns."
        )
    if transpose:
        return AnnData(frame.T.to_numpy(), obs=pd.DataFrame(index=frame.columns), var=pd.DataFrame(index=frame.index))
    values = frame[numeric].to_numpy(None if numeric else float)
    return AnnData(values, obs=frame[rest], var=pd.DataFrame(index=pd.Index(numeric, dtype=object)))


def _refuse_stray_text(words: pd.DataFrame, path: Path) -> None:
    """Numbers with a word among them would silently be no feature."""
    for name in words:
        known = words[name].dropna()
        stray = pd.to_numeric(known, errors="coerce").isna()
        if len(known) >= ENOUGH and 0 < stray.mean() <= STRAY:
            raise InputError(
                f"expected numbers or words in column {name!r} of {path.name}, found {int(stray.sum())} of "
                f"{len(known):,} that are no number ({first(known[stray])}): leave them empty or correct them, or say "
                "in words what the others are."
            )


def _frame(path: Path) -> pd.DataFrame:
    comma = "\t" if ".tsv" in path.name.lower() else ","
    try:
        with open_text(path) as stream:
            frame = pd.read_csv(stream, sep=comma, low_memory=False)
    except (ValueError, OSError, EOFError) as error:
        raise InputError(
            f"expected a table in UTF-8 with a header and {comma!r} between columns, found {path.name} that cannot be "
            f"read ({str(error).strip().splitlines()[0]}): check the file."
        ) from error
    if not isinstance(frame.index, pd.RangeIndex):  # rows one longer than the header, as R writes them
        if frame.index.nlevels > 1 or frame.iloc[:, -1].isna().all():
            raise InputError(f"expected as many names in the header of {path.name} as columns, found fewer: add them.")
        frame = frame.reset_index(names="")
    if not len(frame):
        raise InputError(f"expected rows below the header of {path.name}, found none: check the file.")
    return frame.rename(columns={frame.columns[0]: _header(str(frame.columns[0]))})


def _header(header: str) -> str:
    return "" if header.startswith("Unnamed: ") else header.removeprefix("#")


def _names(frame: pd.DataFrame, path: Path) -> list[str] | None:
    column = frame.iloc[:, 0]
    told = not frame.columns[0] or frame.columns[0].lower() in UNNAMED
    if told and column.isna().any():
        raise InputError(f"expected a name in every row of {path.name}, found {column.isna().sum():,} without.")
    text = column.dtype.kind not in "iufb" and not column.isna().any() and column.is_unique
    return column.astype(str).tolist() if told or text or _numbers_rows(column) else None


def _numbers_rows(column: pd.Series) -> bool:
    """Whether it counts up by one from 0 or 1: no measurement of ten observations or more does."""
    return (
        column.dtype.kind in "iu" and len(column) >= 10 and column[0] in (0, 1) and bool((column.diff()[1:] == 1).all())
    )
