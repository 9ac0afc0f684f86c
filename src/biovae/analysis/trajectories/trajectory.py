"""From a root along the neighbour graph of z: how far, towards which end, and how sure.

    t       pseudotime: length of the shortest way from the root, over the longest of all, in [0, 1], (obs,)
    fate    probability of coming to each end, (obs, ends)
    draw    one sample of z from the posterior of every observation, (obs, latent)

Edges are as long as diffusion says (`diffusion.py`): shortest ways over them came nearer to simulated truth than
shortest ways in z (LOG.md). Pseudotime is an order, not a clock: its scale is that of a walk on the graph, and its
direction is the choice of the root. An end is a peak of t (`saddles.py`). Fates are those of a walk that steps to later
neighbours only, with probabilities proportional to their affinity, until an end absorbs it.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import NamedTuple, TypeAlias

import numpy as np
import pandas as pd
import scipy.sparse
from jaxtyping import Float, Int
from scipy.sparse.csgraph import dijkstra
from scipy.sparse.linalg import spsolve_triangular

from biovae.analysis.neighbourhoods.diffusion import diffused
from biovae.analysis.neighbourhoods.neighbour_graph import NeighbourGraph, neighbour_graph
from biovae.analysis.neighbourhoods.neighbours import K
from biovae.analysis.trajectories.baseline import Baseline
from biovae.analysis.trajectories.saddles import Ends, drains, find_ends
from biovae.analysis.trajectories.ways import GAP, Narrowest, emptiest, narrowest, needed
from biovae.errors import InputError, first

SMALLEST, FEWEST = 0.01, 10  # of the observations, and at least: what lies beyond the saddle of an end
SHARED = 0.15  # of the neighbours of two observations, below which an edge between them is no way
LIFT = 0.1  # height of an end over its saddle, in units of t
CERTAIN = 1 - 1e-9
COMMITTED = 0.5  # of the way from the root's probability of a fate to certainty
TRUNK = "trunk"

Rows: TypeAlias = Mapping[str, Int[np.ndarray, "members"]]


@dataclass(frozen=True)
class Trajectory:
    """Pseudotime, branches and fates, with what posterior draws say of them.

    Attributes:
        pseudotime: t, 0 at the root and 1 at the observation farthest from it.
        fates: Probability of each end, a column per end.
        branch: The end that an observation is committed to, or "trunk": committed is whose probability has come half
            of the way from that of the root to 1.
        ends: A row per end: `observations` (absorbing), `pseudotime` (their median), `fork` (t where it parts from its
            nearest sister; NaN for a single end or given ones), `bridged` (it lies in another piece of the graph than
            the root), `support` (share of draws in which it is found again; NaN without draws), `ways` (from
            the earliest observations, that share none; at most 2 k), `gap` (longest stretch of the way without an
            observation, as a share of it), `narrowest` (in words, the groups on either side of the cut of the ways;
            empty where there is none), `shown` (ways and gap are those of a continuum, see `ways.py`).
        absorbing: Number of the end that absorbs an observation; -1 for all others.
        graph: The neighbour graph, its edges as long as diffusion says.
        neighbours: The same before that: Euclidean lengths, and the affinities of all k nearest.
        root: Rows with t = 0.
        deviation: Standard deviation of t over draws, each brought to the distribution of t; NaN without draws. It is
            the encoder's doubt alone, and says little of where the order is wrong (LOG.md).
        agreement: Share of draws that put the observation on the same branch; NaN without draws. Where it is high the
            branch is nearly always right.
        draws: t of each draw, brought to the distribution of t, (draws, obs).
        draw_fates: Fates of each draw, (draws, obs, ends).
        said: Sentences on what was left out.
        baseline: A simple order of the same observations to compare with, where there is one.
    """

    pseudotime: Float[np.ndarray, "obs"]
    fates: pd.DataFrame
    branch: np.ndarray
    ends: pd.DataFrame
    absorbing: Int[np.ndarray, "obs"]
    graph: NeighbourGraph
    neighbours: NeighbourGraph
    root: Int[np.ndarray, "roots"]
    deviation: Float[np.ndarray, "obs"]
    agreement: Float[np.ndarray, "obs"]
    draws: Float[np.ndarray, "draws obs"]
    draw_fates: Float[np.ndarray, "draws obs ends"]
    said: tuple[str, ...] = ()
    baseline: Baseline | None = None

    def __str__(self) -> str:
        """What was found, and how far to trust it."""
        names = ", ".join(f"{name} ({(self.branch == name).sum():,})" for name in self.ends.index)
        ends = "1 end" if len(self.ends) == 1 else f"{len(self.ends)} ends"
        lines = [f"A trajectory of {len(self.branch):,} observations with {ends}: {names}.", str(self.graph)]
        if len(self.draws):
            unsure = [str(name) for name, share in self.ends["support"].items() if share < 0.5]
            lines.append(
                f"Over {len(self.draws)} posterior draws pseudotime has a standard deviation of "
                f"{np.median(self.deviation):.3f} (median), and branches agree for {self.agreement.mean():.0%}."
            )
            if unsure:
                lines.append(f"Found in fewer than half of the draws: {', '.join(unsure)}.")
        lines += [self._unshown()] * (not self.ends["shown"].all())
        lines += [] if self.baseline is None else [str(self.baseline)]
        return " ".join([*lines, *self.said])

    def _unshown(self) -> str:
        """The ends that the data do not show a transition to, and where it would have to be."""
        said = []
        for name, end in self.ends[~self.ends["shown"]].iterrows():
            place = f", narrowest {end['narrowest']}" if end["narrowest"] else ""
            gap = f", a gap of {end['gap']:.0%} of the way" if end["gap"] > GAP else ""
            said.append(f"{name} ({end['ways']} separate {'way' if end['ways'] == 1 else 'ways'}{gap}{place})")
        return (
            f"The data do not show a transition to: {', '.join(said)}; a continuum of enough observations has "
            f"{needed(self.graph.k)} separate ways or more, and no gap over {GAP:.0%}."
        )


def pseudotime(graph: NeighbourGraph, root: Int[np.ndarray, "roots"] | int) -> Float[np.ndarray, "obs"]:
    """t = length of the shortest way from the nearest root along the graph, over the longest such length.

    Raises:
        InputError: There is no root, or it is no row of the graph.
    """
    roots = np.atleast_1d(np.asarray(root))
    count = graph.lengths.shape[0]
    if not len(roots) or roots.min() < 0 or roots.max() >= count:
        raise InputError(f"expected roots among rows 0 to {count - 1}, found {first(roots)}: name an observation.")
    length = dijkstra(graph.lengths, directed=False, indices=roots, min_only=True)
    return length / max(length.max(), np.finfo(np.float64).tiny)


def fate_probabilities(
    graph: NeighbourGraph, t: Float[np.ndarray, "obs"], ends: Iterable[Int[np.ndarray, "members"]]
) -> Float[np.ndarray, "obs ends"]:
    """B = P B with B = 1 where an end absorbs: P steps to later neighbours, in proportion to their affinity.

    An observation without a later neighbour that is no end goes on beyond its saddle. In the order of t the steps are a
    triangular system; crossings of saddles are carried over from sweep to sweep, which ends since none leads back.

    Args:
        graph: The neighbour graph.
        t: Pseudotime.
        ends: Rows that each end absorbs; where two claim an observation, the later of the list has it.
    """
    target = _targets(ends, len(t))
    absorbed = target >= 0
    order = np.argsort(t, kind="stable")
    steps, crossings = (m[order][:, order] for m in _steps(graph, t, absorbed))
    certain = np.zeros((len(t), target.max() + 1))
    certain[absorbed, target[absorbed]] = 1
    certain = certain[order]
    system = scipy.sparse.csc_array(scipy.sparse.eye_array(len(t)) - steps)
    fate = spsolve_triangular(system, certain, lower=False)
    for _ in range(crossings.nnz):  # as many sweeps as there are crossings one behind the other, mostly none
        new = spsolve_triangular(system, certain + crossings @ fate, lower=False)
        if (new == fate).all():
            break
        fate = new
    return fate[np.argsort(order)]


def _targets(ends: Iterable[Int[np.ndarray, "members"]], count: int) -> Int[np.ndarray, "obs"]:
    target = np.full(count, -1)
    for number, members in enumerate(ends):
        target[members] = number
    return target


def _steps(
    graph: NeighbourGraph, t: np.ndarray, absorbed: np.ndarray
) -> tuple[scipy.sparse.csr_array, scipy.sparse.csr_array]:
    """Probabilities of steps to later neighbours, and of crossings beyond saddles, from what is not absorbed."""
    edges = scipy.sparse.coo_array(graph.affinity)
    later = (t[edges.col] > t[edges.row]) & ~absorbed[edges.row]
    row, column, weight = edges.row[later], edges.col[later], edges.data[later]
    total = np.bincount(row, weight, minlength=len(t))
    stuck = np.flatnonzero((total == 0) & ~absorbed)
    beyond = drains(graph.affinity, t, absorbed)
    shape = graph.affinity.shape
    steps = scipy.sparse.csr_array((weight / total[row], (row, column)), shape=shape)
    return steps, scipy.sparse.csr_array((np.ones(len(stuck)), (stuck, beyond[stuck])), shape=shape)


def trajectory(
    z: Float[np.ndarray, "obs latent"],
    root: Int[np.ndarray, "roots"] | int,
    *,
    given: Rows | None = None,
    labels: np.ndarray | None = None,
    draws: Iterable[Float[np.ndarray, "obs latent"]] = (),
    k: int = K,
) -> Trajectory:
    """Pseudotime, ends, fates and branches of z, and how much of them stays when z is drawn from its posterior.

    Each draw gets its own graph, pseudotime and ends; its fates are those of coming to the ends of z itself, so that
    they can be compared.

    Args:
        z: Posterior means.
        root: The row that the trajectory starts from, or several.
        given: Rows of each end by its name, of which the later half absorbs; found as peaks where not given.
        labels: Names of groups, (obs,), None for none: an end that was found is called after most of its observations.
        draws: Samples of z, taken one at a time.
        k: Neighbours per observation.

    Raises:
        InputError: z is not finite, the root is no row, an end is empty or holds a root.

    Source: shortest ways over neighbour graphs, Tenenbaum, de Silva and Langford 2000,
    doi:10.1126/science.290.5500.2319; fates as absorption of a walk directed by pseudotime, Setty et al. 2019,
    doi:10.1038/s41587-019-0068-4 (Palantir).
    """
    neighbours = neighbour_graph(z, k)
    graph = diffused(neighbours)
    roots = np.atleast_1d(np.asarray(root))
    t = pseudotime(graph, roots)
    ends, forks = _found(graph, t, labels) if given is None else (_given(given, roots, t), None)
    here = _walk(graph, t, roots, ends)
    drawn = [_redo(diffused(neighbour_graph(draw, k)), t, roots, ends) for draw in draws]
    table = _table(graph, here, roots, ends, labels)
    table.insert(2, "fork", np.nan if forks is None else forks)
    table.insert(4, "support", np.mean([d.again for d in drawn], axis=0) if drawn and given is None else np.nan)
    nothing = np.full((1, len(t)), np.nan)
    return Trajectory(
        pseudotime=t,
        fates=pd.DataFrame(here.fates, columns=[*ends]),
        branch=np.array([*ends, TRUNK])[here.code],
        ends=table,
        absorbing=_targets(ends.values(), len(t)),
        graph=graph,
        neighbours=neighbours,
        root=roots,
        deviation=np.std([d.t for d in drawn] or nothing, axis=0),
        agreement=np.mean([d.code == here.code for d in drawn] or nothing, axis=0),
        draws=np.array([d.t for d in drawn]).reshape(-1, len(t)),
        draw_fates=np.array([d.fates for d in drawn]).reshape(-1, *here.fates.shape),
    )


def _table(
    graph: NeighbourGraph, walked: "_Walked", roots: np.ndarray, ends: Rows, labels: np.ndarray | None
) -> pd.DataFrame:
    """A row per end: its size, its place, and whether the data show a way to it."""
    t, earliest = walked.t, min(2 * graph.k, len(walked.t)) - 1
    start = np.flatnonzero(t <= np.partition(t, earliest)[earliest])
    table = []
    for number, rows in enumerate(ends.values()):
        middle, found = np.median(t[rows]), narrowest(graph, start, rows)
        gap = emptiest(t, walked.fates[:, number], roots, float(middle))
        shown = found.ways >= needed(graph.k, len(start), len(rows)) and gap <= GAP
        bridged = bool((graph.component[rows] != graph.component[roots[0]]).all())
        table.append((len(rows), middle, bridged, found.ways, gap, _place(found, labels), shown))
    columns = ["observations", "pseudotime", "bridged", "ways", "gap", "narrowest", "shown"]
    return pd.DataFrame(table, index=pd.Index([*ends], name="end"), columns=columns)


def _place(found: Narrowest, labels: np.ndarray | None) -> str:
    """Between which groups it is narrowest."""
    before, behind = _most(labels, found.before), _most(labels, found.behind)
    if not (before and behind):
        return ""
    return f"within {before}" if before == behind else f"between {before} and {behind}"


class _Walked(NamedTuple):
    """Pseudotime, fates, the number of the branch (-1 for the trunk), and which ends were found again."""

    t: Float[np.ndarray, "obs"]
    fates: Float[np.ndarray, "obs ends"]
    code: Int[np.ndarray, "obs"]
    again: Float[np.ndarray, "ends"]


def _walk(graph: NeighbourGraph, t: np.ndarray, roots: np.ndarray, ends: Rows) -> _Walked:
    fates = fate_probabilities(graph, t, ends.values())
    return _Walked(t, fates, _committed(fates, roots), np.ones(len(ends)))


def _redo(graph: NeighbourGraph, t: np.ndarray, roots: np.ndarray, ends: Rows) -> _Walked:
    """The walk on a draw's graph; its pseudotime keeps its order, and takes the values of t."""
    own = pseudotime(graph, roots)
    walked = _walk(graph, own, roots, ends)
    rank = np.argsort(np.argsort(own, kind="stable"))
    return _Walked(
        np.sort(t)[rank].astype(np.float32),
        walked.fates.astype(np.float32),
        walked.code,
        _again(_ends(graph, own), ends),
    )


def _ends(graph: NeighbourGraph, t: np.ndarray) -> Ends:
    return find_ends(graph.affinity, t, max(FEWEST, int(SMALLEST * len(t))), LIFT, SHARED)


def _found(
    graph: NeighbourGraph, t: np.ndarray, labels: np.ndarray | None
) -> tuple[dict[str, np.ndarray], list[float]]:
    """The later half of what lies above the saddle of each peak, the largest first, and t at the saddles."""
    ends = _ends(graph, t)
    order = sorted(range(len(ends.members)), key=lambda e: -len(ends.members[e]))
    absorbing: dict[str, np.ndarray] = {}
    for number, e in enumerate(order, start=1):
        members = ends.members[e]
        rows = _later_half(members, t)
        name = _most(labels, rows) or f"end {number}"
        copies = sum(other.rpartition(" #")[0] == name or other == name for other in absorbing)
        absorbing[f"{name} #{copies + 1}" if copies else name] = rows
    parted = [max((f.level for f in ends.forks if e in f.one + f.other), default=np.nan) for e in order]
    return absorbing, parted


def _most(labels: np.ndarray | None, rows: np.ndarray) -> str:
    """The label of most of some observations; nothing where none has one."""
    common = pd.Series([], dtype=object) if labels is None else pd.Series(labels[rows]).mode()
    return "" if common.empty else str(common[0])


def _later_half(rows: np.ndarray, t: np.ndarray) -> Int[np.ndarray, "members"]:
    return rows[t[rows] >= np.median(t[rows])]


def _given(ends: Rows, roots: np.ndarray, t: np.ndarray) -> dict[str, np.ndarray]:
    count = len(t)
    known = {str(name): np.asarray(rows, dtype=np.int64) for name, rows in ends.items()}
    for name, rows in known.items():
        if not len(rows) or rows.min() < 0 or rows.max() >= count or np.isin(roots, rows).any():
            raise InputError(
                f"expected ends of rows among 0 to {count - 1} without the root, found {name!r} with {len(rows)} rows"
                f"{' and the root among them' if np.isin(roots, rows).any() else ''}: name others."
            )
    if not known:
        raise InputError("expected at least one end, found none: name some, or leave ends out to have them found.")
    return {name: _later_half(rows, t) for name, rows in known.items()}


def _committed(fates: np.ndarray, roots: np.ndarray) -> Int[np.ndarray, "obs"]:
    """The number of the likeliest end where its probability is half of the way from the root's to 1; else -1.

    To an end that the root itself is certain of is committed whoever is.
    """
    if fates.shape[1] == 1:
        return np.zeros(len(fates), dtype=np.int64)
    start = fates[roots].mean(0)
    free = start < CERTAIN
    way = np.where(free, (fates - start) / np.where(free, 1 - start, 1), fates >= CERTAIN)
    return np.where(way.max(1) >= COMMITTED, way.argmax(1), -1)


def _again(ends: Ends, absorbing: Rows) -> Float[np.ndarray, "ends"]:
    """1 for each end that most of its observations share with one end of another graph, to itself."""
    inside = np.array([[np.isin(rows, m).mean() > 0.5 for m in ends.members] for rows in absorbing.values()])
    alone = inside & (inside.sum(0) == 1)
    return alone.any(1).astype(np.float64)
