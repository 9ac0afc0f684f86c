"""What a diagnosis is: lines, each with a value, what is normal, a state and one sentence of advice."""

import math
import textwrap
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from enum import StrEnum
from typing import Any

import pandas as pd

from biovae.errors import InputError, closest

WIDTH = 100  # columns of a terminal
MARKS = {"ok": " ", "look": "?", "broken": "!"}
SAID = {
    "ok": "nothing here speaks against the model",
    "look": "read the lines marked ? before you rely on the model",
    "broken": "do not use the model before the lines marked ! are dealt with",
}


class State(StrEnum):
    """How a line stands, from good to bad."""

    OK = "ok"
    LOOK = "look"
    BROKEN = "broken"


def worst(states: Iterable[State]) -> State:
    """The worst of some states; ok where there are none.

    >>> worst([State.OK, State.BROKEN, State.LOOK])
    <State.BROKEN: 'broken'>
    """
    order = [*State]
    return max(states, key=order.index, default=State.OK)


def below(value: float, look: float, broken: float = math.inf) -> State:
    """Ok below `look`, broken from `broken` on; what is not a number is broken.

    >>> below(0.1, 0.2, 0.5), below(0.2, 0.2, 0.5), below(math.nan, 0.2)
    (<State.OK: 'ok'>, <State.LOOK: 'look'>, <State.BROKEN: 'broken'>)
    """
    if value < look:
        return State.OK
    return State.LOOK if value < broken else State.BROKEN


@dataclass(frozen=True)
class Line:
    """One thing that was looked at.

    Attributes:
        name: What.
        value: A number, or a few words where one number would not tell.
        normal: What a healthy model shows, with the unit.
        state: ok, look, or broken.
        advice: One sentence for the person at the bench.
    """

    name: str
    value: float | str
    normal: str
    state: State
    advice: str

    @property
    def shown(self) -> str:
        """The value, with as many digits as mean something."""
        return self.value if isinstance(self.value, str) else f"{self.value:.3g}"


@dataclass(frozen=True)
class Verdict:
    """All lines of a diagnosis; the worst of them is the verdict."""

    lines: tuple[Line, ...]

    @property
    def overall(self) -> State:
        """The worst state of all lines."""
        return worst(line.state for line in self.lines)

    def __getitem__(self, name: str) -> Line:
        found = {line.name: line for line in self.lines}
        if name not in found:
            raise InputError(f"expected a line of the verdict, found {name!r}: {closest(name, found)}")
        return found[name]

    def to_frame(self) -> pd.DataFrame:
        """A row per line, a column per attribute."""
        columns = ["name", "value", "normal", "state", "advice"]
        return pd.DataFrame([asdict(line) | {"state": str(line.state)} for line in self.lines], columns=columns)

    def to_dict(self) -> dict[str, Any]:
        """For JSON, which has no word for what is not a number: such a value becomes None."""
        rows = [asdict(line) | {"state": str(line.state)} for line in self.lines]
        for row in rows:
            if not isinstance(row["value"], str):
                row["value"] = float(row["value"]) if math.isfinite(row["value"]) else None
        return {"overall": str(self.overall), "lines": rows}

    def __str__(self) -> str:
        """A table of 100 columns: the advice stands under every line that is not ok."""
        cells = [(f"{MARKS[x.state]} {x.state}", x.name, x.shown) for x in self.lines]
        name, value = (max((len(c[i]) for c in cells), default=0) for i in (1, 2))
        table = [f"verdict: {self.overall}: {SAID[self.overall]}", ""]
        for (state, called, shown), line in zip(cells, self.lines, strict=True):
            start = f"{state:<8}  {called:<{name}}  {shown:>{value}}  "
            table += _wrap(line.normal, f"{start}normal: ", " " * (len(start) + 8))
            if line.state is not State.OK:
                table += _wrap(line.advice, " " * 10 + "-> ", " " * 13)
        return "\n".join(table)


def _wrap(text: str, start: str, rest: str) -> list[str]:
    return textwrap.wrap(text, max(WIDTH, len(rest) + 20), initial_indent=start, subsequent_indent=rest)
