"""The questions of `biovae ask`: each calls a tool, and makes words, tables and pictures of what it gave."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TypeAlias

import pandas as pd
from anndata import AnnData
from mudata import MuData

from biovae import plotting as pl
from biovae.errors import InputError
from biovae.model import VAE
from biovae.plotting.canvas import panels
from biovae.plotting.coordinates import PCA_NAME, pca2d
from biovae.report.answers import CIRCULAR
from biovae.run.ask import Answer
from biovae.run.findings import root_of
from biovae.schema import Support
from biovae.tools import tl

Data: TypeAlias = AnnData | MuData
MOST_PANELS = 12
MOST_MAPPED = 20_000  # observations of a UMAP; beyond, the map is a PCA of z
LAYERS = ("spliced", "unspliced")
UNITS = {Support.COUNTS: "counts per 10,000", Support.BINARY: "probability", Support.REALS: "value"}


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
    unit = UNITS[vae.schema.modalities[0].support]
    for d, ax in zip(used, axes, strict=True):
        pl.traversal(found, int(d), unit=unit, ax=ax)
    return Answer(str(found), tables, {"dimensions": pl.dimensions(found), "traversals": axes[0]})


def holes(vae: VAE, data: Data, *, groups: str | None = None) -> Answer:
    """Where the data support a state and where not; see `bv.tl.holes`."""
    found, prior = tl.holes(vae, data, groups=groups), tl.prior_support(vae, data)
    pictures = {} if found.frame.empty else {"holes": pl.holes(found, most=MOST_PANELS)}
    return Answer(f"{found}\n{prior}", {"holes": found.frame}, pictures)


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
    features: Sequence[str] | None = None,
    draws: int = 20,
) -> Answer:
    """Pseudotime from a root, branches and fates, and the features that change; see `bv.tl.trajectory`."""
    start = root_of(data, root)
    if groups is None and isinstance(start, Mapping):
        groups = next(iter(start))
    found = tl.trajectory(vae, data, start, groups=groups, ends=ends or None, draws=draws)
    curves = tl.trends(vae, data, found, features)
    said = [str(found)]
    if isinstance(data, AnnData) and all(layer in data.layers for layer in LAYERS):
        try:
            said.append(str(tl.direction(data, found)))
        except InputError as error:  # layers that hold too little to tell; the trajectory stands without them
            said.append(f"No direction from unspliced counts: {error}")
    z = vae.embed(data)
    where, kind = pl.map2d(z) if len(z) <= MOST_MAPPED else (pca2d(z), PCA_NAME)
    names = curves["feature"].unique()[:MOST_PANELS]
    axes = panels(len(names), width=3.6, height=2.7)
    unit = "log1p of counts per 10,000" if vae.schema.modalities[0].support is Support.COUNTS else "value"
    for name, ax in zip(names, axes, strict=True):
        pl.trends(curves, name, unit=unit, ax=ax)
    table = pd.DataFrame(
        {
            "observation": data.obs_names,
            "pseudotime": found.pseudotime,
            "pseudotime_sd": found.deviation,
            "branch": found.branch,
            "branch_agreement": found.agreement,
        }
    )
    fates = found.fates.add_prefix("fate ").set_axis(table.index)
    tables = {"trajectory": pd.concat([table, fates], axis=1), "ends": found.ends.reset_index(), "trends": curves}
    pictures = {"trajectory": pl.trajectory(where, found, kind=kind), "trends": axes[0]}
    return Answer("\n".join(said), tables, pictures)


def prototype(vae: VAE, data: Data, *, groups: str | None = None) -> Answer:
    """What the model holds to be typical; see `bv.tl.prototype`."""
    found = tl.prototype(vae, data, groups=groups)
    types = pd.DataFrame({"correlation": found.similarity, "share_of_mixture": found.weights})
    tables = {"prototype": found.frame}
    if found.centres is not None:
        tables["centres"] = found.centres.T.rename_axis("feature").reset_index()
    if len(types):
        tables["types"] = types.sort_values("correlation", ascending=False).rename_axis("type").reset_index()
    picture = pl.prototype(found.frame, unit=UNITS[vae.schema.modalities[0].support])
    return Answer(str(found), tables, {"prototype": picture})


def archetypes(vae: VAE, data: Data, *, count: int, groups: str | None = None) -> Answer:
    """The corners between which observations lie, and how much of each is in them; see `bv.tl.archetypes`."""
    found = tl.archetypes(vae, data, count, groups=groups)
    names = list(found.profiles.index)
    weights = pd.DataFrame(found.found.weights, columns=names)
    doubt = pd.DataFrame(found.found.deviation, columns=[f"{name} sd" for name in names])
    tables = {
        "archetypes": pd.concat([pd.Series(data.obs_names, name="observation"), weights, doubt], axis=1),
        "profiles": found.profiles.T.rename_axis("feature").reset_index(),
        "markers": found.markers,
        "groups": found.groups.rename_axis("group").reset_index(),
    }
    return Answer(str(found), tables, {"archetypes": pl.archetypes(found.groups)})


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
