"""`biovae ask`: one question to a fitted model, its answer in words, tables and pictures.

    answer.txt      the command, and what was found in words
    QUESTION.csv    the table of that question, others beside it under their own names
    QUESTION.png    its picture

The questions are in `questions/`. To add one: a function there, a command in `cli/asking.py`.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

import pandas as pd
from anndata import AnnData
from mudata import MuData

from biovae.errors import InputError
from biovae.model import VAE
from biovae.plotting import png
from biovae.run.folder import Say
from biovae.run.opening import data_of, open_model
from biovae.training.working import working

if TYPE_CHECKING:
    from matplotlib.axes import Axes


@dataclass(frozen=True)
class Answer:
    """What a question came to.

    Attributes:
        said: Sentences for a person.
        tables: By the name of the file.
        pictures: By the name of the file, the axes of a figure.
    """

    said: str
    tables: Mapping[str, pd.DataFrame]
    pictures: Mapping[str, "Axes"] = field(default_factory=dict)


Question = Callable[[VAE, AnnData | MuData], Answer]


@dataclass(frozen=True)
class Asked:
    """A question as the command line puts it.

    Attributes:
        name: Of the question, and of the folder that the answer goes to.
        run: Folder of a run, or of a model.
        data: Files; none for those that the run has kept.
        out: Where the answer goes; None takes the folder of that name in the run.
        command: What was typed.
    """

    name: str
    run: Path
    data: Sequence[Path] | None
    out: Path | None
    command: str

    @property
    def folder(self) -> Path:
        """Where the answer goes; a bare model's folder holds nothing but the model."""
        if self.out is not None:
            return self.out
        return self.run / self.name if (self.run / "model").is_dir() else Path(self.name)


def ask(asked: Asked, question: Question, say: Say) -> str:
    """Put a question to the model of a run, write the answer, and return its sentences.

    Raises:
        InputError: The data or the question do not fit the model, or the folder is a file.
    """
    if asked.folder.exists() and not asked.folder.is_dir():
        raise InputError(f"expected a folder for the answer, found the file {asked.folder}: choose another --out.")
    vae = open_model(asked.run)
    with working("reading the data"):
        data = data_of(vae, asked.run, asked.data)
    with working(f"asking: {asked.name}"):
        answer = question(vae, data)
    with working("writing the answer"):
        names = _write(answer, asked)
    say(f"wrote {asked.folder}: {', '.join(names)}")
    return answer.said


def _write(answer: Answer, asked: Asked) -> list[str]:
    folder = asked.folder
    folder.mkdir(parents=True, exist_ok=True)
    for name, table in answer.tables.items():
        table.to_csv(folder / f"{name}.csv", index=False)
    for name, axes in answer.pictures.items():
        (folder / f"{name}.png").write_bytes(png(axes.figure))
    (folder / "answer.txt").write_text(f"{asked.command}\n\n{answer.said}\n", encoding="utf-8")
    return ["answer.txt", *(f"{name}.csv" for name in answer.tables), *(f"{name}.png" for name in answer.pictures)]
