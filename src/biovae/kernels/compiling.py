"""Loops are compiled by a process of its own, and read from the cache here: every process runs the same machine code.

What numba has just compiled is optimised once; what it keeps is linked and optimised again, and may round differently.
So the first process of an installation would give other numbers than every later one, from the same seed. The helper
starts where a loop is not in the cache yet, ends with this process, and if it cannot start the loop is compiled here.
"""

import atexit
import importlib
import json
import os
import signal
import subprocess
import sys
from functools import cache
from typing import Any

DONE, FAILED = b"1", b"0"


def ready(kernel: Any, arguments: list[Any]) -> None:
    """See to it that the cache holds a loop for arguments of these types, if there is a cache.

    Args:
        kernel: A loop under `compiled`.
        arguments: Arrays, numbers and tuples of them.
    """
    import numba

    signature = tuple(map(numba.typeof, arguments))
    if signature in kernel.overloads or _kept(kernel, signature):
        return
    loop = kernel.py_func
    _ask([loop.__module__, loop.__qualname__, [_told(each) for each in signature]])


def _told(kind: Any) -> Any:
    """A type of numba as plain text, numbers and lists."""
    import numba

    if isinstance(kind, numba.types.Array):
        return {"array": [str(kind.dtype), kind.ndim, kind.layout, not kind.mutable, kind.aligned]}
    if isinstance(kind, numba.types.BaseTuple):
        return {"tuple": [_told(each) for each in kind]}  # type: ignore[attr-defined]
    return "boolean" if kind is numba.types.boolean else str(kind)


def _typed(told: Any) -> Any:
    """And back."""
    import numba

    if isinstance(told, str):
        return getattr(numba.types, told)
    if "tuple" in told:
        return numba.types.Tuple([_typed(each) for each in told["tuple"]])
    dtype, dimensions, layout, readonly, aligned = told["array"]
    return numba.types.Array(_typed(dtype), dimensions, layout, readonly, aligned=aligned)


def _kept(kernel: Any, signature: tuple[Any, ...]) -> bool:
    """Whether it is on disk, or cannot be: numba does not say, so that its own index is read."""
    try:
        store = kernel._cache
        key = store._index_key(signature, kernel.targetctx.codegen())
        return key in store._cache_file._load_index()
    except AttributeError:  # no place to keep it, or another numba
        return True


def _ask(request: list[Any]) -> bool:
    """Have the helper compile and keep a loop; whether it did."""
    try:
        helper = _helper()
        helper.stdin.write(json.dumps(request).encode() + b"\n")  # type: ignore[union-attr]  # a pipe
        helper.stdin.flush()  # type: ignore[union-attr]
        return helper.stdout.read(1) == DONE  # type: ignore[union-attr]
    except OSError:
        return False


@cache
def _helper() -> subprocess.Popen[bytes]:
    search = os.pathsep.join(path or os.getcwd() for path in sys.path)  # -P: and nothing that lies about
    helper = subprocess.Popen(
        [sys.executable, "-P", "-c", f"from {__name__} import serve; serve()"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        env=os.environ | {"PYTHONPATH": search},
    )
    atexit.register(_end, helper)
    return helper


def _end(helper: subprocess.Popen[bytes]) -> None:
    """No more requests: it ends by itself."""
    with helper:
        pass


def serve() -> None:
    """What the helper does: compile what is asked for, until nobody asks any more."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for the other process, whose end ends this one
    outward = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)  # nothing else that is printed is taken for an answer
    for request in sys.stdin:
        outward.write(DONE if _compiled(request) else FAILED)
        outward.flush()


def _compiled(request: str) -> bool:
    try:
        module, name, signature = json.loads(request)
        getattr(importlib.import_module(module), name).compile(tuple(map(_typed, signature)))
    except Exception:  # the other process compiles it, and meets the error where it can be told
        return False
    return True
