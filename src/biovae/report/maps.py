"""The sections about the latent space: its map under every label, and its clusters with their markers."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pandas as pd

from biovae.errors import InputError
from biovae.noise import Noise
from biovae.plotting import map2d, points
from biovae.plotting.canvas import new_axes
from biovae.plotting.colors import categories, is_categorical, natural
from biovae.plotting.coordinates import FEWEST_FOR_UMAP, PCA_NAME, UMAP_NAME
from biovae.report.parts import Picture, Section, Table, frame_table, number, percent, picture, plain_table
from biovae.report.report import Report

MOST_POINTS = 20_000  # more say nothing more on a picture of this size
MOST_LABELS = 12
MOST_NAMED = 3  # label columns beside the clusters
TOP_MARKERS = 6
WIDE = ("map", "clusters")  # the keys of pictures that take the whole width


@dataclass(frozen=True)
class Map:
    """Which observations are drawn, where, and what the two axes are."""

    rows: np.ndarray
    coordinates: np.ndarray
    kind: str
    note: str


def locate(report: Report) -> Map | None:
    """The map of a report: the coordinates given, else made from the embedding; None where there is neither."""
    source = report.embedding if report.coordinates is None else report.coordinates
    if source is None:
        return None
    rows = np.arange(len(source))
    if len(rows) > MOST_POINTS:
        rows = np.sort(Noise(report.seed).numpy().permutation(len(source))[:MOST_POINTS])
    if report.coordinates is None:
        coordinates, kind = map2d(np.asarray(source)[rows], report.seed)
    else:
        coordinates, kind = np.asarray(source)[rows], report.coordinates_kind
    note = _what(kind, len(source), np.shape(report.embedding)[-1] if report.embedding is not None else None)
    if len(rows) < len(source):
        note += f" Drawn are {len(rows):,} of {len(source):,} observations, taken at random."
    return Map(rows, coordinates, kind, note)


def latent_map(report: Report, where: Map | None) -> Section | None:
    """The map, once per label."""
    if where is None:
        return None
    columns = _columns(report)
    keys = ["map"] if len(columns) == 1 else [f"map{i}" for i in range(len(columns))]
    shown = zip(columns[:MOST_LABELS], keys, strict=False)
    pictures = tuple(_draw(report, where, column, key) for column, key in shown)
    if not columns and report.clusters is None:
        pictures = (_draw(report, where, None, "map"),)
    notes = [where.note]
    if not columns:
        notes.append("No column of obs was named to colour the map by.")
    if len(columns) > MOST_LABELS:
        left_out = ", ".join(str(column.name) for column in columns[MOST_LABELS:])
        notes.append(f"Not drawn, beyond the first {MOST_LABELS} columns: {left_out}.")
    lead = (
        "Each point is one observation; neighbours have similar latent positions. Colours that separate are told apart "
        "by the model. Batches that separate may be a technical difference."
    )
    return Section("map", "The latent map", lead, pictures, notes=tuple(notes))


def clusters(report: Report, where: Map | None) -> Section | None:
    """Clusters of the latent neighbour graph, what they are called in the labels, and their markers."""
    if report.clusters is None:
        return None
    names = pd.Series([str(name) for name in report.clusters], name="cluster")
    names = names.astype(pd.CategoricalDtype(sorted(names.unique(), key=natural)))
    pictures: tuple[Picture, ...] = ()
    if where is not None:
        expect_length(len(names), "clusters", size(report))
        pictures = (_draw(report, where, names, "clusters", annotate=True),)
    tables = [_summary(report, names)]
    if report.markers is not None and not report.markers.empty:
        headings = {
            "cluster": "cluster", "feature": "feature", "log2_fold_change": "log2 fold change", "lower": "from",
            "upper": "to (95 %)", "expected_fdr": "expected FDR",
            "fraction_in": "fraction inside", "fraction_out": "fraction outside",
        }  # fmt: skip
        caption = f"All {len(report.markers):,} markers (fraction of observations in which the feature is found)"
        tables.append(frame_table(report.markers, headings, caption=caption, folded=True))
    lead = (
        "Groups found in the neighbour graph of z, without looking at any label, and the features that set each apart "
        "from all others. They name regions of the map; they are not proof of types, and because clusters and markers "
        "come from the same counts, more markers are false than their expected FDR says."
    )
    return Section("clusters", "Clusters and their markers", lead, pictures, tuple(tables))


def _summary(report: Report, names: pd.Series) -> Table:
    """A row per cluster: its size, its most frequent labels, its first markers."""
    labels = [column for column in _columns(report) if is_categorical(column)][:MOST_NAMED]
    for column in labels:
        expect_length(len(column), f"labels {column.name!r}", len(names))
    stable = None if report.stability is None else report.stability.groups
    headings = ["cluster", "observations", "share", *(f"mostly ({column.name})" for column in labels)]
    numeric = [False, True, True, *(False for _ in labels)]
    if stable is not None:
        headings, numeric = [*headings, "found again"], [*numeric, False]
    if report.markers is not None:
        headings, numeric = [*headings, "markers"], [*numeric, False]
    rows = []
    for cluster in names.cat.categories:
        inside = (names == cluster).to_numpy()
        row = [cluster, int(inside.sum()), percent(inside.mean()), *(_mostly(column, inside) for column in labels)]
        if stable is not None:
            row.append(_again(stable, cluster))
        if report.markers is not None:
            own = report.markers["feature"][report.markers["cluster"].astype(str) == cluster]
            row.append(", ".join(map(str, own.head(TOP_MARKERS))) or "none")
        rows.append(row)
    return plain_table(headings, rows, numeric)


def _again(stable: pd.DataFrame, cluster: str) -> str:
    """Whether other seeds find a cluster, and how much of it."""
    if cluster not in stable.index:
        return "-"
    row = stable.loc[cluster]
    return f"{'yes' if row['stable'] else 'NO: not stable'} ({number(row['clusters'], 2)})"


def _mostly(column: pd.Series, inside: np.ndarray) -> str:
    """The most frequent category among some observations, and its share of those that have one."""
    counts = column[inside].dropna().astype(str).value_counts()
    return "-" if counts.empty else f"{counts.index[0]} ({percent(counts.iloc[0] / counts.sum())})"


def _columns(report: Report) -> list[pd.Series]:
    if report.labels is None:
        return []
    return [report.labels.iloc[:, i].rename(str(name)) for i, name in enumerate(report.labels.columns)]


def _draw(report: Report, where: Map, column: pd.Series | None, key: str, *, annotate: bool = False) -> Picture:
    alt = f"{where.kind} of {len(where.rows):,} observations"
    caption = where.kind
    if column is not None:
        expect_length(len(column), f"labels {column.name!r}", size(report))
        column = column.iloc[where.rows]
        alt += f", coloured by {column.name}"
        caption = f"{where.kind}, coloured by {column.name}."
        named = f": {len(categories(column).names)} categories" if is_categorical(column) else ", dark is low"
        alt += named
    wide = key in WIDE
    ax = new_axes(width=9.4, height=4.6) if wide else None
    ax = points(where.coordinates, column, kind=where.kind, annotate=annotate, seed=report.seed, ax=ax)
    return picture(ax, key, alt + ".", caption, wide=wide)


def size(report: Report) -> int:
    """Observations of a report."""
    source = report.embedding if report.coordinates is None else report.coordinates
    return 0 if source is None else len(source)


def expect_length(found: int, what: str, expected: int) -> None:
    """An error where something has another length than the embedding."""
    if found != expected:
        raise InputError(
            f"expected {what} for all {expected:,} observations of the embedding, found {found:,}: "
            "pass the same observations in the same order."
        )


def _what(kind: str, size: int, latent: int | None) -> str:
    """What the map is, and why it is not UMAP where it is not."""
    if kind == UMAP_NAME:
        return "The map is a UMAP of z: it keeps neighbours; distances and sizes of groups mean little."
    if kind != PCA_NAME:
        return f"The map is: {kind}."
    if latent is not None and latent <= 2:
        reason = f"z has {number(latent)} dimensions, so nothing needs to be flattened"
    elif size < FEWEST_FOR_UMAP:
        reason = f"UMAP needs at least {FEWEST_FOR_UMAP} observations"
    else:
        reason = "for a UMAP, install the extra: pip install 'biovae[umap]'"
    return f"The map shows the first two principal components of z ({reason})."
