"""The errors a user can meet, each one sentence long and each with the exit code of the command line.

    BiovaeError
    |-- InputError          3   the data cannot be used as given
    |-- ModelFileError      4   a model or checkpoint on disk cannot be trusted
    |-- TrainingDiverged    5   three bad steps in a row; the last good state was kept
    |-- ResumeError         6   the run cannot be continued, or its folder is in use
    `-- Interrupted   130/143   Ctrl-C or SIGTERM; a checkpoint was written

Every message says what was expected, what was found (with numbers and the first names) and what to do about it.
"""

import difflib
from collections.abc import Iterable
from typing import Any


class BiovaeError(Exception):
    """Anything biovae refuses on purpose."""

    exit_code = 1


class InputError(BiovaeError, ValueError):
    """The data, or an argument about the data, cannot be used as given."""

    exit_code = 3


class ModelFileError(BiovaeError):
    """A file on disk is not a model that biovae wrote, or not any more."""

    exit_code = 4


class TrainingDiverged(BiovaeError):
    """The optimiser met three non-finite steps in a row."""

    exit_code = 5


class ResumeError(BiovaeError):
    """A run cannot be continued from its checkpoints, or another process holds its folder."""

    exit_code = 6


class Interrupted(BiovaeError):
    """A signal ended a run that keeps checkpoints; it continues with `resume`."""

    def __init__(self, message: str, signal: int) -> None:
        super().__init__(message)
        self.exit_code = 128 + signal


def first(names: Iterable[object], most: int = 3) -> str:
    """The first few names, for an error message.

    >>> first(["a", "b", "c", "d", "e"])
    "'a', 'b', 'c' and 2 more"
    """
    names = list(names)
    shown = ", ".join(repr(str(name)) for name in names[:most])
    return shown if len(names) <= most else f"{shown} and {len(names) - most} more"


def listed(names: object) -> list[Any]:
    """Names as a list: text alone is one name, and not its letters.

    >>> listed("CD3D"), listed(("CD3D", "MS4A1"))
    (['CD3D'], ['CD3D', 'MS4A1'])

    Raises:
        InputError: It is neither a name nor several.
    """
    if isinstance(names, str):
        return [names]
    if not isinstance(names, Iterable):
        raise InputError(f"expected a name, or a list of names, found {names!r}: give names as text.")
    return list(names)


def closest(name: object, known: Iterable[object]) -> str:
    """A sentence that helps after a misspelt name: the nearest one known, else what there is.

    >>> closest("cel_type", ["cell_type", "batch"])
    "did you mean 'cell_type'?"
    >>> closest("x", [])
    'there are none.'
    """
    names = [str(k) for k in known]
    if not names:
        return "there are none."
    match = difflib.get_close_matches(str(name), names, n=1)
    return f"did you mean {match[0]!r}?" if match else f"there are {first(names, most=8)}."
