"""Questions about the space: where data are and are not, the way from one state to another, the course of a process."""

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import pandas as pd
from anndata import AnnData

from biovae import plotting as pl
from biovae.data import Role
from biovae.errors import InputError
from biovae.model import VAE
from biovae.plotting.canvas import panels
from biovae.run.ask import Answer
from biovae.run.findings import APART, root_of
from biovae.run.opening import roles_of
from biovae.run.questions.common import MOST_PANELS, Data, flat, observed
from biovae.schema import Support
from biovae.tools import tl

LAYERS = ("spliced", "unspliced")


def holes(vae: VAE, data: Data, *, groups: str | None = None, run: Path | None = None) -> Answer:
    """Where the data support a state and where not; see `bv.tl.holes`.

    Support is measured by those of the run's observations that training has not seen, where there are many, as on its
    page: training spreads what it has seen, beside which all else looks supported.
    """
    apart = _unseen(run, data)
    found = tl.holes(vae, data, groups=groups, held_out=apart)
    prior = tl.prior_support(vae, data, held_out=apart)
    pictures = {} if found.frame.empty else {"holes": pl.holes(found, most=MOST_PANELS)}
    if apart is None:
        measured = "Support is measured by observations that training may have seen, which makes it too high."
    else:
        measured = f"Support is measured by {apart.sum():,} observations that training has not seen."
    return Answer(f"{found}\n{prior}\n{measured}", {"holes": found.frame}, pictures)


def _unseen(run: Path | None, data: Data) -> np.ndarray | None:
    """The run's own observations that it did not train on; None where they are too few, or not known."""
    if run is None:
        return None
    roles, own = roles_of(run, np.asarray(data.obs_names))
    apart = roles != Role.TRAIN
    return apart if own and APART <= apart.sum() < len(apart) else None


def path(vae: VAE, data: Data, *, start: str, end: str, groups: str | None = None, direct: bool = False) -> Answer:
    """The way from one state to another; see `bv.tl.path`."""
    walk = tl.path(vae, data, start, end, groups=groups, direct=direct)
    curve = walk.curve
    steps = pd.DataFrame({"time": curve.time, "support": curve.support, "log_density": curve.log_density})
    for d, position in enumerate(curve.z.T):
        steps[f"z{d}"] = position
    frames = {"expression": walk.expression, "expression_lower": walk.lower, "expression_upper": walk.upper}
    tables = {"path": steps, "switches": walk.switches} | {n: frame.reset_index() for n, frame in frames.items()}
    pictures = {} if walk.switches.empty else {"path": pl.path(walk.expression, walk.switches, curve.support)}
    return Answer(str(walk), tables, pictures)


def trajectory(  # noqa: PLR0913 - the options of a command
    vae: VAE,
    data: Data,
    *,
    root: Sequence[str],
    groups: str | None = None,
    ends: Sequence[str] | None = None,
    order: Sequence[Sequence[str]] | None = None,
    features: Sequence[str] | None = None,
    draws: int = 20,
) -> Answer:
    """Pseudotime from a root, branches and fates, and the features that change; see `bv.tl.trajectory`."""
    start = root_of(data, root)
    if groups is None and isinstance(start, Mapping):
        groups = next(iter(start))
    found = tl.trajectory(vae, data, start, groups=groups, ends=ends or None, order=order or None, draws=draws)
    curves = tl.trends(vae, data, found, features)
    said = [str(found)]
    if isinstance(data, AnnData) and all(layer in data.layers for layer in LAYERS):
        try:
            said.append(str(tl.direction(data, found)))
        except InputError as error:  # layers that hold too little to tell; the trajectory stands without them
            said.append(f"No direction from unspliced counts: {error}")
    where, kind = flat(vae.embed(data))
    names = curves["feature"].unique()[:MOST_PANELS]
    axes = panels(len(names), width=3.6, height=2.7)
    unit = "log1p of counts per 10,000" if vae.schema.modalities[0].support is Support.COUNTS else "value"
    for name, ax in zip(names, axes, strict=True):
        pl.trends(curves, name, unit=unit, ax=ax)
    table = pd.DataFrame(
        {
            "pseudotime": found.pseudotime,
            "pseudotime_sd": found.deviation,
            "branch": found.branch,
            "branch_agreement": found.agreement,
        }
    )
    simple = found.baseline
    if simple is not None:
        table["diffusion_pseudotime"] = simple.pseudotime
    fates = found.fates.add_prefix("fate ").set_axis(table.index)
    tables = {
        "trajectory": observed(pd.concat([table, fates], axis=1), data),
        "ends": found.ends.reset_index(),
        "trends": curves,
    }
    if simple is not None:
        tables |= {"baseline": simple.scores.rename_axis("score").reset_index(), "groups": simple.groups.reset_index()}
    pictures = {"trajectory": pl.trajectory(where, found, kind=kind), "trends": axes[0]}
    return Answer("\n".join(said), tables, pictures)
