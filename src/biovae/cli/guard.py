"""What is common to all commands: one line for a person, and one sentence for everything that can go wrong."""

import errno
import sys
from collections.abc import Callable
from functools import wraps
from typing import Any

import typer

from biovae.errors import BiovaeError, InputError

DISK = {errno.ENOSPC, errno.EROFS, errno.EDQUOT, errno.EACCES, errno.EPERM, errno.EIO, errno.ENOTDIR, errno.EISDIR}


def say(sentence: str) -> None:
    """One line for a person, on standard error, so that standard output stays for results."""
    print(sentence, file=sys.stderr, flush=True)


def guarded(command: Callable[..., None]) -> Callable[..., None]:
    """One sentence and an exit code for everything that can go wrong."""

    @wraps(command)
    def run(*args: Any, **kwargs: Any) -> None:
        try:
            command(*args, **kwargs)
        except BiovaeError as error:
            say(f"error: {error}")
            raise typer.Exit(error.exit_code) from error
        except (MemoryError, RuntimeError) as error:
            if not _is_out_of_memory(error):
                raise
            say(
                "error: expected enough memory, found none left: model fewer features (--features 2000), take smaller "
                "steps (--batch-size), or close other programs."
            )
            raise typer.Exit(InputError.exit_code) from error
        except OSError as error:
            if error.errno not in DISK:
                raise
            say(f"error: expected to be able to write, found: {error}; free some space or choose another folder.")
            raise typer.Exit(7) from error

    return run


def _is_out_of_memory(error: Exception) -> bool:
    """What numpy raises, and what torch does: an error of its own on a GPU, on a CPU its allocator's word."""
    of_torch = type(error).__name__ == "OutOfMemoryError" or "can't allocate memory" in str(error)
    return isinstance(error, MemoryError) or of_torch
