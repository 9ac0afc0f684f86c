"""What the tools say of a run, each on no more observations than a report needs.

    groups   what a reader calls the regions of the map: the column of `obs` that the clusters agree with most, else the
             clusters

Observations are drawn where there are many, so that the cost hardly grows with their number. To put another tool into
the report: a field and a question here, a field of `report.Report`, a section in `report/answers.py`.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TypeAlias, TypeVar

import numpy as np
import pandas as pd
from anndata import AnnData
from mudata import MuData
from sklearn.metrics import adjusted_rand_score

from biovae.analysis import (
    Density,
    Differential,
    Dimensions,
    Holes,
    PriorSupport,
    Trajectory,
    density,
    holes,
    prior_support,
)
from biovae.errors import InputError
from biovae.model import VAE
from biovae.model.evidence import Evidence
from biovae.noise import Noise
from biovae.plotting.colors import natural
from biovae.schema import Support
from biovae.tools import tl
from biovae.tools.trajectory import Root

Data: TypeAlias = AnnData | MuData
Say = Callable[[str], None]
T = TypeVar("T")

MOST = 1000  # observations that dimensions and holes are looked for in
WALKED = 50  # observations at which dimensions are traversed
CELLS = 200  # of each group, whose features are compared
FEWEST = 5  # of a group that is compared, or is a region
APART = 100  # held-out observations that can measure support
REGIONS = 12  # the largest groups, between which holes are looked for
NEIGHBOURS, DRAWS = 2, 50  # of each region; of the intervals of depth
WALKS = 5  # posterior draws of a trajectory
LEVELS = 40  # of a column that names groups
AGREEMENT = 0.1  # adjusted Rand index of such a column and the clusters
CLUSTER = "cluster"
OWN = "vae_cluster"  # the name under which a run keeps its clusters
TOP = 6
MARKER = (
    "cluster", "feature", "log2_fold_change", "lower", "upper", "expected_fdr", "fraction_in", "fraction_out",
)  # fmt: skip


@dataclass(frozen=True)
class Findings:
    """What was found, None where the data do not allow it.

    Attributes:
        groups: Of each observation, None where it has none; named after the column, or "cluster".
        markers: Each cluster against the others.
        differences: Each group against the others, where groups are not the clusters.
        dimensions: What moves with each dimension.
        holes: The passes between groups.
        prior: How many samples from the prior are supported.
        trajectory: From the root, where one was asked for.
        trends: Along it.
        looked_at: Observations that dimensions and holes were looked for in.
    """

    groups: pd.Series
    markers: Differential | None
    differences: Differential | None
    dimensions: Dimensions | None
    holes: Holes | None
    prior: PriorSupport | None
    trajectory: Trajectory | None
    trends: pd.DataFrame | None
    looked_at: int


def findings(vae: VAE, data: Data, evidence: Evidence, root: Sequence[str], say: Say) -> Findings:
    """Put every question to a judged model; what cannot be answered is said, and left out."""

    def attempt(what: str, question: Callable[[], T]) -> T | None:
        try:
            return question()
        except InputError as error:
            say(f"no {what} in the report: {error}")
            return None

    clusters = pd.Series(evidence.clusters, name=CLUSTER)
    named = telling(data.obs, evidence.clusters, [c.name for c in vae.schema.covariates])
    groups = clusters if named is None else named
    counted = vae.schema.modalities[0].support is Support.COUNTS
    several = counted and clusters.nunique() > 1
    rows = np.sort(Noise(evidence.seed).numpy().permutation(data.n_obs)[:MOST])
    walk = attempt("trajectory", lambda: _trajectory(vae, data, root, named)) if root else None
    return Findings(
        groups=groups,
        markers=attempt("markers", lambda: _apart(vae, data, evidence, clusters)) if several else None,
        differences=(
            attempt("differences", lambda: _apart(vae, data, evidence, groups))
            if counted and named is not None
            else None
        ),
        dimensions=attempt(
            "dimensions", lambda: tl.dimensions(vae, data[rows], cells=WALKED, draws=0, seed=evidence.seed)
        ),
        holes=attempt("holes", lambda: _holes(evidence, groups)) if groups.nunique() > 1 else None,
        prior=attempt("support of the prior", lambda: _prior(evidence)),
        trajectory=None if walk is None else walk[0],
        trends=None if walk is None else walk[1],
        looked_at=len(rows),
    )


def telling(obs: pd.DataFrame, clusters: np.ndarray, covariates: Sequence[str]) -> pd.Series | None:
    """The column of names that the clusters agree with most; None where they agree with none.

    Numbers, clusters under numbers, and what the model corrects for are no such names.
    """
    best, most = None, AGREEMENT
    for name in obs.columns:
        values = obs[name].reset_index(drop=True)
        known = values.notna().to_numpy()
        words = values[known].astype(str)
        numbers = pd.to_numeric(words, errors="coerce").notna().all()
        if numbers or name in (*covariates, OWN) or not 1 < words.nunique() <= LEVELS:
            continue
        agreement = adjusted_rand_score(words, clusters[known])
        if known.mean() > 0.5 and agreement > most:
            best, most = words.reindex(values.index).rename(str(name)), agreement
    return best


def marking(found: Differential, top: int = TOP) -> pd.DataFrame:
    """The surest features that are higher in each cluster, as a table of markers."""
    called = found.called()
    names = {"group": "cluster", "detected": "fraction_in", "reference_detected": "fraction_out"}
    frame = called[called["log2_fold_change"] > 0].groupby("group", sort=False).head(top).rename(columns=names)
    frame = frame[[*MARKER]].sort_values("cluster", key=lambda column: column.map(natural), kind="stable")
    return frame.reset_index(drop=True)


def root_of(data: Data, words: Sequence[str]) -> Root:
    """`column=level` is the centre of a group; anything else names observations."""
    if len(words) == 1 and "=" in words[0] and words[0] not in data.obs_names:
        name, _, level = words[0].partition("=")
        return {name: level}
    return list(words)


def _apart(vae: VAE, data: Data, evidence: Evidence, groups: pd.Series) -> Differential:
    """Each group against the others, among the observations that carry the first modality."""
    return tl.differential(vae, data, _sizeable(groups), effort=tl.Effort(CELLS, 1, seed=evidence.seed))


def _sizeable(groups: pd.Series) -> pd.Series:
    """Groups of fewer than a handful are none."""
    return groups.where(groups.map(groups.value_counts()) >= FEWEST)


def _holes(evidence: Evidence, groups: pd.Series) -> Holes:
    """The passes between the largest groups."""
    apart = _held_out(evidence)
    rows = _drawn(evidence, groups.notna().to_numpy() & ~apart)
    drawn = _sizeable(groups.iloc[rows])
    kept = drawn.isin(drawn.value_counts().index[:REGIONS]).to_numpy()
    q = _density(evidence, rows[kept], apart)
    return holes(q, drawn.to_numpy()[kept], neighbours=NEIGHBOURS, draws=DRAWS, seed=evidence.seed)


def _prior(evidence: Evidence) -> PriorSupport:
    apart = _held_out(evidence)
    return prior_support(_density(evidence, _drawn(evidence, ~apart), apart), evidence.prior_sample)


def _density(evidence: Evidence, rows: np.ndarray, apart: np.ndarray) -> Density:
    mean, variance = evidence.moments
    held_out = mean[apart] if apart.any() else None
    return density(mean[rows], variance[rows], held_out=held_out, seed=evidence.seed)


def _held_out(evidence: Evidence) -> np.ndarray:
    """The scored observations, where they are not all there are, and enough to measure support."""
    apart = np.zeros(len(evidence.observations), dtype=bool)
    if APART <= len(evidence.here) < len(apart):
        apart[evidence.here] = True
    return apart


def _drawn(evidence: Evidence, among: np.ndarray) -> np.ndarray:
    return np.sort(Noise(evidence.seed).numpy().permutation(np.flatnonzero(among))[:MOST])


def _trajectory(vae: VAE, data: Data, words: Sequence[str], named: pd.Series | None) -> tuple[Trajectory, pd.DataFrame]:
    root = root_of(data, words)
    column = next(iter(root)) if isinstance(root, Mapping) else None
    if column is None and named is not None and named.notna().all():
        column = str(named.name)
    found = tl.trajectory(vae, data, root, groups=column, draws=WALKS)
    return found, tl.trends(vae, data, found)
