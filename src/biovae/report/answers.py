"""The sections that ask the model: what sets groups apart, where data support a state, what changes on the way."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pandas as pd

from biovae.analysis import Differential, Trajectory
from biovae.plotting import dimensions as draw_dimensions
from biovae.plotting import holes as draw_holes
from biovae.plotting import trajectory as draw_trajectory
from biovae.plotting import trends as draw_trends
from biovae.plotting.canvas import new_axes, panels
from biovae.report.maps import Map, expect_length, size
from biovae.report.parts import Picture, Section, Table, frame_table, picture, plain_table
from biovae.report.report import Report

FDR = 0.05
NAMED, LISTED = 8, 30  # features of a group, in its row and in the long table
PASSES = 8
TRENDS = 6
CIRCULAR = (
    "If these groups were found in the same counts (clusters, or types named after clusters), they differ by "
    "construction, and more of the calls are false than is expected here."
)


def differences(report: Report) -> Section | None:
    """Which features set the groups of a column apart, a row per group."""
    found = report.differences
    if found is None or found.frame.empty:
        return None
    called = found.called(FDR)
    rows = []
    for group, tested in found.frame.groupby("group", sort=False):
        own = called[called["group"] == group]
        up, down = own[own["log2_fold_change"] > 0], own[own["log2_fold_change"] < 0]
        names = [", ".join(map(str, side["feature"].head(NAMED))) or "none" for side in (up, down)]
        rows.append((str(group), f"{len(own):,} of {int(tested['probability'].notna().sum()):,}", *names))
    name = report.groups or "group"
    headings = (name, "differ", "higher, surest first", "lower, surest first")
    summary = plain_table(headings, rows, (False, True, False, False))
    lead = (
        f"Each {name} against all others: features whose rate differs more than {2**found.null.delta:.2f} times, "
        f"depth and the model's covariates taken out. Of those counted here {FDR:.0%} are expected to be false."
    )
    listed = called.groupby("group", sort=False).head(LISTED)
    notes = (CIRCULAR, *_shared(found))
    return Section(
        "differences", f"What sets each {name} apart", lead, tables=(summary, _long(listed, name)), notes=notes
    )


def _shared(found: Differential) -> tuple[str, ...]:
    """In which groups most features go the same way, which says more of a few others than of them."""
    moved = found.shifts[found.shifts.abs() > found.null.delta].droplevel("reference")
    if moved.empty:
        return ()
    strongest = moved.loc[moved.abs().sort_values(ascending=False, kind="stable").index]
    said = ", ".join(f"{group} ({2**shift:.2f} times)" for group, shift in strongest.head(NAMED).items())
    said += f" and {len(moved) - NAMED} more" if len(moved) > NAMED else ""
    return (
        f"Rates are shares of the counts that were fitted, and most of them go the same way in {said}: a few strong "
        "features take or leave the counts there. If the features are a selection, fit with size factors from all of "
        "them (--size-factor) to tell more of a feature from less of the others.",
    )


def _long(called: pd.DataFrame, name: str) -> Table:
    headings = {
        "group": name, "feature": "feature", "log2_fold_change": "log2 fold change", "lower": "from",
        "upper": "to (95 %)", "expected_fdr": "expected FDR", "detected": "fraction inside",
        "reference_detected": "fraction outside",
    }  # fmt: skip
    caption = f"The {LISTED} surest of each {name} (fraction of observations in which the feature is found)"
    return frame_table(called, headings, caption=caption, folded=True)


def moves(report: Report) -> tuple[tuple[Picture, ...], tuple[str, ...]]:
    """What each dimension moves and goes with: the picture, and how to read it."""
    found = report.dimensions
    if found is None or not found.summary["active"].any():
        return (), ()
    said = str(found).splitlines()
    alt = "Active latent dimensions, the features that each moves most, and the columns it goes with. " + " ".join(said)
    caption = (
        "Active dimensions, widest first. The darker a feature, the more it tells of the dimension; blue falls and "
        "vermillion rises with z."
    )
    return (picture(draw_dimensions(found), "moves", alt, caption, wide=True),), (said[-1],)


def holes(report: Report) -> Section | None:
    """The passes between groups, and how much of the prior is supported."""
    found, prior = report.holes, report.prior_support
    notes = [str(prior)] if prior is not None else []
    pictures: tuple[Picture, ...] = ()
    tables: tuple[Table, ...] = ()
    if found is not None:
        notes.append(str(found))
    if found is not None and not found.frame.empty:
        frame = found.frame.head(PASSES)
        deepest = "; ".join(f"{row.one} and {row.other} {row.depth:.1f} nats, {row.call}" for row in frame.itertuples())
        alt = f"The deepest passes of the density between groups: {deepest}."
        caption = "Support is the share of real observations whose density is as low as that of the pass."
        pictures = (picture(draw_holes(found, most=PASSES), "passes", alt, caption),)
        headings = {
            "one": "between", "other": "and", "depth": "depth (nats)", "lower": "from", "upper": "to (90 %)",
            "best": "by way of others", "support": "support", "call": "call",
        }  # fmt: skip
        tables = (frame_table(found.frame, headings, caption=f"All {len(found.frame)} passes", folded=True),)
    if not notes:
        return None
    if report.looked_at and report.embedding is not None and report.looked_at < len(report.embedding):
        seen = f"Looked at are {report.looked_at:,} of {len(report.embedding):,} observations, drawn at random."
        notes.append(f"{seen} Passes between close groups depend on it; biovae ask holes looks at all.")
    lead = (
        "Between two groups the density of the data falls to a pass and rises again. A pass is called unsupported "
        "where fewer than one real observation in twenty lies at a density as low. That can be a state that does not "
        "exist, one that is passed quickly, or one that was not sampled: absence of data alone cannot prove a state "
        "forbidden."
    )
    return Section("holes", "Where the data support a state, and where not", lead, pictures, tables, tuple(notes))


def trajectory(report: Report, where: Map | None) -> Section | None:
    """Pseudotime on the map, and the features that change most."""
    found = report.trajectory
    if found is None or where is None:
        return None
    alt = f"{where.kind}, coloured by pseudotime, a line for each of {len(found.ends)} branches."
    caption = (
        "Dark is early; the ring is the root, a line leads to each end, coloured as the curves below and broken where "
        "the data do not show a transition."
    )
    ax = new_axes(width=9.4, height=4.6)
    expect_length(len(found.pseudotime), "a trajectory", size(report))
    shown = _shown(found, where.rows)
    pictures = [
        picture(draw_trajectory(where.coordinates, shown, kind=where.kind, ax=ax), "way", alt, caption, wide=True)
    ]
    if report.trends is not None and not report.trends.empty:
        names = report.trends["feature"].unique()[:TRENDS]
        axes = panels(len(names), width=3.2, height=3.0)
        unit = "log1p of counts per 10,000" if report.unit == "counts" else report.unit
        for name, each in zip(names, axes, strict=True):
            draw_trends(report.trends, name, unit=unit, ax=each)
        alt = f"Curves over pseudotime of {', '.join(map(str, names))}, a line with a 90 % interval for each branch."
        caption = "The features that pseudotime explains best: of the data, not of what is decoded; bands hold 90 %."
        pictures.append(picture(axes[0], "trends", alt, caption, wide=True))
    headings = {
        "end": "end", "observations": "observations", "pseudotime": "pseudotime", "support": "share of draws",
        "ways": "separate ways", "gap": "longest gap", "narrowest": "narrowest",
    }  # fmt: skip
    table = frame_table(found.ends.rename_axis("end").reset_index(), headings)
    lead = (
        "Pseudotime is an order along the neighbour graph of z from the root that was named: not a clock, and its "
        "direction is the choice of the root."
    )
    return Section("trajectory", "From the root to the ends", lead, tuple(pictures), (table,), (str(found),))


def _shown(found: Trajectory, rows: np.ndarray) -> Trajectory:
    """The trajectory of the observations that are drawn; its root is the earliest of them."""
    t = found.pseudotime[rows]
    root = np.flatnonzero(t == t.min())
    return replace(found, pseudotime=t, fates=found.fates.iloc[rows], absorbing=found.absorbing[rows], root=root)
