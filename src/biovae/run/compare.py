"""`biovae compare`: one fit per likelihood and size; a table, a picture and a recommendation."""

import signal
from pathlib import Path
from typing import Any

from mudata import MuData

from biovae.analysis import Choice
from biovae.errors import InputError, Interrupted
from biovae.plotting import compare as draw
from biovae.plotting import png
from biovae.run.command import USUAL, described, epochs_of, words, workers_of
from biovae.run.folder import Say, check_free
from biovae.tools.compare import candidates, compare

LEFT = {"compare.csv", "compare.png"}


def compare_from_options(given: dict[str, Any], say: Say) -> Choice:
    """Compare, and write the folder.

    Raises:
        InputError: The data hold several modalities, or an option does not fit them.
        Interrupted: Ctrl-C came before the last fit; the models that were done are ranked, written and said.
    """
    out = Path(given["out"])
    data, vae, notices = described(USUAL | given)
    if isinstance(data, MuData):
        raise InputError(f"expected one modality to compare, found {', '.join(data.mod)}: give a file of one of them.")
    for sentence in notices:
        say(sentence)
    check_free(out, LEFT)
    asked = candidates(vae, words(given["likelihoods"]) or None, _sizes(given["latents"]))
    workers = workers_of(given["workers"], data, len(asked) * given["seeds"])
    say(f"{data.n_obs:,} observations, {len(asked)} models, {workers} at a time")
    found = compare(
        asked,
        data,
        test=given["test"],
        seeds=range(given["seeds"]),
        epochs=epochs_of(given["epochs"]),
        workers=workers,
    )
    out.mkdir(parents=True, exist_ok=True)
    found.frame.to_csv(out / "compare.csv", index=False)
    (out / "compare.png").write_bytes(png(draw(found).figure))
    done = int((~found.frame["floor"]).sum())
    if done < len(asked):
        print(found)
        raise Interrupted(f"interrupted: {out} holds {done} of {len(asked)} models.", signal.SIGINT)
    return found


def _sizes(text: str) -> list[int] | None:
    if not all(word.isdigit() and int(word) for word in words(text)):
        raise InputError(f"expected whole numbers between commas for --latents, found {text!r}: give 5,10,20.")
    return [int(word) for word in words(text)] or None
