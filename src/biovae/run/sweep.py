"""`biovae sweep`: one fit per beta; a table, a picture and a recommendation."""

import signal
from pathlib import Path
from typing import Any

from biovae.analysis import Sweep
from biovae.errors import InputError, Interrupted
from biovae.plotting import png
from biovae.plotting import sweep as draw
from biovae.run.command import USUAL, described, epochs_of, words, workers_of
from biovae.run.folder import Say, check_free
from biovae.tools.sweep import BETAS, sweep

LEFT = {"sweep.csv", "sweep.png"}


def sweep_from_options(given: dict[str, Any], say: Say) -> Sweep:
    """Sweep, and write the folder; `sweep.csv` grows with every fit that is done.

    Raises:
        Interrupted: Ctrl-C came before the last fit; what was done is written, and its recommendation said.
    """
    out, betas, seeds = Path(given["out"]), _numbers(given["betas"]) or BETAS, range(given["seeds"])
    data, vae, notices = described(USUAL | given)
    for sentence in notices:
        say(sentence)
    fits = len(set(betas)) * len(seeds)
    workers = workers_of(given["workers"], data, fits)
    check_free(out, LEFT)
    say(f"{data.n_obs:,} observations, {fits} fits, {workers} at a time")
    found = sweep(
        vae,
        data,
        betas,
        labels=given["labels"],
        factors=words(given["factors"]),
        seeds=seeds,
        epochs=epochs_of(given["epochs"]),
        workers=workers,
        keep=out / "sweep.csv",
    )
    (out / "sweep.png").write_bytes(png(draw(found).figure))
    done = int((found.frame["method"] == "VAE").sum())
    if done < fits:
        print(found)
        raise Interrupted(f"interrupted after {done} of {fits} fits: {out} holds what they say.", signal.SIGINT)
    return found


def _numbers(text: str) -> list[float]:
    try:
        return [float(word) for word in words(text)]
    except ValueError as error:
        raise InputError(
            f"expected numbers between commas for --betas, found {text!r}: give 0.3,1,3 or the like."
        ) from error
