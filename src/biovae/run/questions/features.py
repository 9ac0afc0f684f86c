"""Questions about features: what differs, what each dimension moves, what is typical, what noise and zeros hide."""

from collections.abc import Sequence
from pathlib import Path

import pandas as pd

from biovae import plotting as pl
from biovae.errors import InputError
from biovae.model import VAE
from biovae.plotting.canvas import panels
from biovae.report.answers import CIRCULAR
from biovae.run.ask import Answer
from biovae.run.command import epochs_of
from biovae.run.questions.common import MOST_PANELS, Data, flat, observed, unit_of
from biovae.tools import tl


def differential(
    vae: VAE, data: Data, *, groups: str, group: str | None = None, reference: str | None = None, delta: float = 0.25
) -> Answer:
    """Which features differ between groups; see `bv.tl.differential`."""
    found = tl.differential(vae, data, groups, group=group, reference=reference, delta=delta)
    pairs = [rows for _, rows in found.frame.groupby(["group", "reference"], sort=False)]
    axes = panels(min(len(pairs), MOST_PANELS), height=4.2)
    for rows, ax in zip(pairs, axes, strict=False):
        pl.differential(rows, delta=delta, ax=ax)
    said = [str(found), CIRCULAR]
    if len(pairs) > len(axes):
        said.append(f"Drawn are the first {len(axes)} of {len(pairs)} comparisons; the table has them all.")
    return Answer("\n".join(said), {"differential": found.frame}, {"differential": axes[0]})


def dimensions(vae: VAE, data: Data, *, columns: Sequence[str] | None = None, sets: Path | None = None) -> Answer:
    """What each latent dimension moves, and what it goes with; see `bv.tl.dimensions`."""
    found = tl.dimensions(vae, data, columns=columns, sets=None if sets is None else gene_sets(sets))
    tables = {"dimensions": found.table(), "effects": found.effects, "associations": found.associations}
    if found.enrichment is not None:
        tables["enrichment"] = found.enrichment
    if found.loadings is not None:
        tables["loadings"] = found.loadings.rename_axis("feature").reset_index()
    used = found.summary.index[found.summary["active"]][:MOST_PANELS]
    if not len(used):
        return Answer(str(found), tables)
    axes = panels(len(used))
    unit = unit_of(vae)
    for d, ax in zip(used, axes, strict=True):
        pl.traversal(found, int(d), unit=unit, ax=ax)
    return Answer(str(found), tables, {"dimensions": pl.dimensions(found), "traversals": axes[0]})


def prototype(vae: VAE, data: Data, *, groups: str | None = None) -> Answer:
    """What the model holds to be typical; see `bv.tl.prototype`."""
    found = tl.prototype(vae, data, groups=groups)
    types = pd.DataFrame({"correlation": found.similarity, "share_of_mixture": found.weights}).join(found.limits)
    tables = {"prototype": found.frame}
    if found.centres is not None:
        tables["centres"] = found.centres.T.rename_axis("feature").reset_index()
    if len(types):
        tables["types"] = types.sort_values("correlation", ascending=False).rename_axis("type").reset_index()
    picture = pl.prototype(found.frame, unit=unit_of(vae))
    return Answer(str(found), tables, {"prototype": picture})


def archetypes(vae: VAE, data: Data, *, count: int, groups: str | None = None) -> Answer:
    """The corners between which observations lie, and how much of each is in them; see `bv.tl.archetypes`."""
    found = tl.archetypes(vae, data, count, groups=groups)
    names = list(found.profiles.index)
    weights = pd.DataFrame(found.found.weights, columns=names)
    doubt = pd.DataFrame(found.found.deviation, columns=[f"{name} sd" for name in names])
    tables = {
        "archetypes": observed(pd.concat([weights, doubt], axis=1), data),
        "profiles": found.profiles.T.rename_axis("feature").reset_index(),
        "markers": found.markers,
        "groups": found.groups.rename_axis("group").reset_index(),
    }
    return Answer(str(found), tables, {"archetypes": pl.archetypes(found.groups)})


def expression(vae: VAE, data: Data, *, features: Sequence[str], library: float = 1e4, own: bool = False) -> Answer:
    """What every observation would show without noise; see `bv.tl.corrected_expression`."""
    if not features:
        raise InputError("expected names of features, found none: --features CD3D,MS4A1.")
    several = len(vae.members) > 1
    decode = tl.ensemble_expression if several else tl.corrected_expression
    found = decode(vae, data, features, library=library, covariates="own" if own else "average")
    frames = {"expression": found.mean, "expression_lower": found.lower, "expression_upper": found.upper}
    tables = {name: observed(frame, data) for name, frame in frames.items() if frame is not None}
    where, kind = flat(vae.embed(data))
    shown = found.mean.columns[:MOST_PANELS]
    axes = panels(len(shown), width=4.0, height=3.2)
    for name, ax in zip(shown, axes, strict=True):
        pl.points(where, found.mean[name], kind=kind, ax=ax)
    doubt = (
        f"Limits hold the doubt within and between {len(vae.members)} fits."
        if several
        else "Limits hold the doubt about z and about the weights of the last layer, and not that another fit may find "
        "another map: with `fit --ensemble 5` they do."
    )
    at = "at each observation's own covariates" if own else "averaged over the levels of categorical covariates"
    said = f"{len(found.mean):,} observations, {len(features)} features at a depth of {library:,.0f}, {at}. {doubt}"
    return Answer(said, tables, {"expression": axes[0]})


def imputation(vae: VAE, data: Data, *, epochs: str = "auto") -> Answer:
    """Whether the model fills in hidden counts better than simple methods do; see `bv.tl.imputation`."""
    found = tl.imputation(vae, data, epochs=epochs_of(epochs))
    return Answer(str(found), {"imputation": found.frame}, {"imputation": pl.imputation(found.frame)})


def gene_sets(path: Path) -> dict[str, list[str]]:
    """The sets of a GMT file: a line each, fields between tabs: name, description, features.

    Raises:
        InputError: It cannot be read, or holds no set.
    """
    try:
        lines = [line.split("\t") for line in path.read_text(encoding="utf-8").splitlines()]
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"expected a GMT file of sets in {path}, found: {error}.") from error
    sets = {fields[0]: [name for name in fields[2:] if name] for fields in lines if len(fields) > 2}
    if not sets:
        raise InputError(
            f"expected a set in each line of {path}, its fields between tabs (name, description, features), found none "
            f"in {len(lines)} lines."
        )
    return sets
