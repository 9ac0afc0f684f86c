"""Questions about trust: which observations are odd, is new data alike, would it be otherwise, do other fits agree."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from biovae import plotting as pl
from biovae.data import Role
from biovae.errors import InputError
from biovae.model import VAE
from biovae.run.ask import Answer
from biovae.run.findings import root_of
from biovae.run.opening import opened, roles_of
from biovae.run.questions.common import Data, observed
from biovae.tools import tl
from biovae.tools.shift import Missing

MANY = 100  # observations that training has not seen, to stand for all
NAMED = 10


def anomalies(
    vae: VAE, data: Data, *, groups: str | None = None, normal: str | None = None, fdr: float = 0.1
) -> Answer:
    """Odd observations; see `bv.tl.anomalies`."""
    found = tl.anomalies(vae, data, groups=groups, normal=normal)
    called = found.called(fdr)
    tables = {"anomalies": observed(found.frame, data)}
    if not found.trials.empty:
        tables["trials"] = found.trials
    odd = ", ".join(f"{name} ({kind})" for name, kind in called["kind"].head(NAMED).items())
    said = f"{len(called):,} are odd with {fdr:.0%} expected false, all kinds together" + (f": {odd}." if odd else ".")
    return Answer(f"{found}\n{said}", tables, {"anomalies": pl.anomalies(found, fdr=fdr)})


def shift(
    vae: VAE,
    data: Data,
    *,
    new: Sequence[Path],
    run: Path | None = None,
    missing: Missing = "error",
    unseen: Missing = "error",
) -> Answer:
    """Whether new observations are like a reference; see `bv.tl.shift`.

    Args:
        vae: The model of the run.
        data: The reference.
        new: Files of new observations.
        run: Whose observations the reference is: those that training has not seen stand for all, where there are many.
        missing: "zero" takes features that the new data lack as never seen.
        unseen: "zero" takes unknown levels of covariates as none of the known ones.
    """
    said = f"The reference: {data.n_obs:,} observations."
    if run is not None:
        roles, own = roles_of(run, np.asarray(data.obs_names))
        apart = np.flatnonzero(roles != Role.TRAIN)
        if not own:
            said += " What training has seen of them is not known."
        elif len(apart) >= MANY:
            data, said = data[apart], f"The reference: {len(apart):,} observations that training has not seen."
        else:
            said += " Training has seen them: they surprise a little less than others like them would."
    other = opened(vae, new)
    found = tl.shift(vae, other, data, missing=missing, unseen=unseen)
    tables = {"shift": observed(found.observations, other), "tests": found.tests, "features": found.features}
    return Answer(f"{found}\n{said}", tables, {"shift": pl.shift(found)})


def counterfactual(  # noqa: PLR0913 - the options of a command
    vae: VAE,
    data: Data,
    *,
    column: str,
    source: str,
    target: str,
    group: str,
    observed: Sequence[Path] | None = None,
) -> Answer:
    """What a group would look like in the other condition; see `bv.tl.counterfactual`."""
    name, sign, level = group.partition("=")
    if not sign:
        raise InputError(f"expected --group COLUMN=GROUP, found {group!r}: name the column, too.")
    found = tl.counterfactual(vae, data, column, source, target, group={name: level})
    tables = {"counterfactual": found.frame, "guesses": found.response.guesses.reset_index(names="feature")}
    if observed is None:
        return Answer(str(found), tables, {"counterfactual": pl.counterfactual(found.frame)})
    truth = opened(vae, observed)
    judged, beside = found.score(truth), found.beside(truth)
    said = f"{found}\nAgainst {truth.n_obs:,} observations that are named the truth:\n{judged}"
    return Answer(
        said, tables | {"counterfactual": beside, "judged": judged.frame}, {"counterfactual": pl.counterfactual(beside)}
    )


def stability(
    vae: VAE,
    data: Data,
    *,
    groups: str | None = None,
    contrasts: str | None = None,
    root: Sequence[str] | None = None,
) -> Answer:
    """What the other fits of an ensemble find again; see `bv.tl.stability`."""
    start = root_of(data, root) if root else None
    found = tl.stability(vae, data, groups=groups, contrasts=contrasts, root=start)
    frames = {
        "stability": found.groups.rename_axis("group"),
        "summary": found.summary.rename_axis("what"),
        "observations": found.cells.rename_axis("observation"),
        "dimensions": found.dimensions.rename_axis("dimension"),
    }
    tables = {name: frame.reset_index() for name, frame in frames.items()}
    if found.calls is not None:
        tables["calls"] = found.calls
    if found.order is not None:
        tables["order"] = found.order.rename_axis("observation").reset_index()
    return Answer(str(found), tables, {"stability": pl.stability(found.groups)})
