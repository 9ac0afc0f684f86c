"""What of a latent space is found again when the same model is fitted with other seeds, and what is not.

A number of agreement means little by itself, so that every one stands beside others: what noise does to a single fit
(maps drawn from its posterior), and what another sample of observations does to a straight line (principal components
of two halves of the data).
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd
from jaxtyping import Float

from biovae.analysis.models.agreement import RESOLUTION, agreement, align, together
from biovae.analysis.neighbourhoods.neighbours import K, codes
from biovae.errors import InputError

STABLE = 0.75  # mean J of a group's observations, below which the group is not to be relied on (Hennig 2007)
APART = 0.5  # of a named group's nearest, beyond chance: below, in the worst fit, its own are not most of them
MIXED = 0.2  # of the pairs across two groups in one cluster: then one is said to go over into the other
KEPT = 0.5  # share of a dimension's variance, below which it is called the seed's
SILENT = 0.01  # variance of a dimension that the data do not move
FITS = "fits"
MEASURES = ("neighbours", "clusters")


@dataclass(frozen=True)
class Stability:
    """What several fits agree on.

    Attributes:
        summary: A row for the fits and for each reference: the share of `neighbours` and the adjusted Rand index of
            `clusters` that two maps have in common, averaged over pairs; the pair with the lowest; `least` and `most`
            clusters found in one map.
        groups: A row per group: `observations`; `neighbours` and `clusters`, the same shares for its observations (see
            `agreement`); those of each reference; `together`, the chance that two of its observations share a cluster;
            `mixes_with`, the group that it goes over into most, and the chance of that, `mixed`; `stable`. Of groups
            that were named, `apart` comes first, and decides: the lowest over fits of `kept_apart`. Clusters are judged
            by `clusters`: they are another set in each fit.
        cells: A row per observation: `neighbours`, `clusters`, and the root mean square of its distance from its mean
            place over the aligned fits, `between`, beside what the posterior of a fit allows, `within` (latent units).
        dimensions: A row per dimension of the first fit: `spread`, its standard deviation, and `kept`, the share of the
            variance along it that the aligned fits agree on; NaN where the data do not move it.
        together: See `analysis.together`.
        aligned: Positions in every fit, turned onto the first, (fits, obs, latent).
        partitions: Clusters of each fit, (fits, obs).
        k: Neighbours.
        calls: Differences between groups over all fits, where asked for: see `calls_held`.
        order: Pseudotime over all fits, where asked for: see `order_held`.
        rank: Lowest Spearman correlation of pseudotime between two fits; NaN where not asked for.
        said: Sentences on what was left out.
    """

    summary: pd.DataFrame
    groups: pd.DataFrame
    cells: pd.DataFrame
    dimensions: pd.DataFrame
    together: pd.DataFrame
    aligned: Float[np.ndarray, "fits obs latent"]
    partitions: np.ndarray
    k: int
    calls: pd.DataFrame | None = None
    order: pd.DataFrame | None = None
    rank: float = np.nan
    said: tuple[str, ...] = ()

    @property
    def unstable(self) -> list[str]:
        """Names of the groups that are not found again."""
        return [str(name) for name in self.groups.index[~self.groups["stable"]]]

    def __str__(self) -> str:
        """What holds, what does not, and which claims not to make."""
        lines = [self._agreed(), self._linear(), self._grouped(), self._placed(), *self._claimed()]
        return "\n".join([*lines, *self.said])

    def _agreed(self) -> str:
        own = self.summary.loc[FITS]
        beside = [f"{name} {row['neighbours']:.2f}" for name, row in self.summary.drop(FITS).iterrows()]
        beside.append(f"chance {self.k / max(len(self.cells) - 1, 1):.2f}")
        found = f"{own['least']:.0f}" if own["least"] == own["most"] else f"{own['least']:.0f} to {own['most']:.0f}"
        return (
            f"{len(self.partitions)} fits of {len(self.cells):,} observations: two share {own['neighbours']:.2f} "
            f"of an observation's {self.k} nearest neighbours ({', '.join(beside)}), and their "
            f"{found} clusters have an adjusted Rand index of "
            f"{own['clusters']:.2f} (lowest {own['clusters_lowest']:.2f})."
        )

    def _linear(self) -> str:
        own, others = self.summary.loc[FITS], self.summary.drop(FITS)
        better = [str(name) for name, row in others.iterrows() if row["neighbours"] > own["neighbours"]]
        worse = [str(name) for name in others.index if str(name) not in better]
        said = [f"neighbours change more from fit to fit than between {name}" for name in better]
        said += [f"no more than between {name}" for name in worse]
        told = "; ".join(said) or "nothing was given to compare with"
        return f"{told[0].upper()}{told[1:]}."

    def _grouped(self) -> str:
        if len(self.groups) == 1 and self.groups["stable"].all():
            return "There is one group: nothing to tell apart, and nothing that could fall apart."
        broken = self.groups[~self.groups["stable"]]
        given = "apart" in self.groups
        by = self.groups["apart" if given else "clusters"]
        if broken.empty:
            found = "groups are apart from all others" if given else "clusters are found again"
            return f"All {len(self.groups)} {found} in every fit (worst {by.min():.2f})."
        told = []
        for name, row in broken.iterrows():
            mixed = f", goes over into {row['mixes_with']}" if row["mixed"] > MIXED else ""
            told.append(f"{name} ({row['observations']:,} observations, {by[name]:.2f}{mixed})")
        lead = (
            "Not apart from the others in every fit (share of the nearest that are its own, beyond chance)"
            if given
            else "Not found again at this resolution, and not to be reported as groups of their own"
        )
        return f"{lead}: {'; '.join(told)}."

    def _placed(self) -> str:
        kept = self.dimensions["kept"].dropna()
        lost = [str(name) for name in kept.index[kept < KEPT]]
        between, within = (float(np.sqrt(np.mean(self.cells[name] ** 2))) for name in ("between", "within"))
        aside = f" Do not interpret dimension {', '.join(lost)}: other seeds do not find it." if lost else ""
        return (
            f"After turning the fits onto the first, observations move by {between:.2f} between fits; the posterior of "
            f"one fit allows {within:.2f} (latent units, root mean square).{aside}"
        )

    def _claimed(self) -> list[str]:
        said = []
        if self.calls is not None:
            first, fits = int(self.calls["first"].sum()), len(self.partitions)
            held = int((self.calls["first"] & (self.calls["called"] == fits)).sum())
            said.append(
                f"Of {first:,} differences that the first fit calls (5 % expected false) {held:,} are called in all "
                f"{fits} fits; report those."
            )
        if self.order is not None:
            said.append(
                f"Pseudotime has a rank correlation of at least {self.rank:.2f} between two fits; its deviation is "
                f"{self.order['between'].median():.3f} between fits and {self.order['within'].median():.3f} within one."
            )
        return said


def stability(  # noqa: PLR0913 - the door for those who fitted something else
    maps: Sequence[Float[np.ndarray, "obs latent"]],
    variances: Sequence[Float[np.ndarray, "obs latent"]] | None = None,
    *,
    groups: Sequence[object] | np.ndarray | None = None,
    clusters: bool = False,
    references: Mapping[str, Sequence[Float[np.ndarray, "obs latent"]]] | None = None,
    k: int = K,
    resolution: float = RESOLUTION,
    seed: int = 0,
) -> Stability:
    """Compare the latent spaces of several fits to the same observations.

    Args:
        maps: Posterior means of each fit.
        variances: Marginal variances of its posterior; 0 where not given.
        groups: What to speak of: labels, None for none, or clusters of the first map where not given.
        clusters: Groups are clusters of the first map, too: judged by whether they are found again.
        references: By name, maps of the same observations that show what a number means.
        k: Neighbours.
        resolution: Of the clusters.
        seed: Of the clusters.

    Raises:
        InputError: There are not two maps, they differ in shape, or no observation has a label.
    """
    given = None if groups is None else np.asarray(groups)
    if given is not None and (codes(given, len(maps[0]) if maps else 0, gaps=True) < 0).all():
        raise InputError("expected a label for some observations, found none: leave groups out, or name others.")
    own = agreement(maps, k=k, resolution=resolution, seed=seed, named=None if clusters else given)
    others = {name: agreement(m, k=k, resolution=resolution, seed=seed) for name, m in (references or {}).items()}
    rows = {}
    for name, found in {FITS: own, **others}.items():
        counts = [len(np.unique(partition)) for partition in found.partitions]
        rows[name] = found.row() | {"least": min(counts), "most": max(counts)}
    aligned = align(maps)
    count = aligned.shape[1]
    if any(len(found.neighbours) != count for found in others.values()):
        raise InputError(f"expected references of the same {count} observations, found others: pass the same rows.")
    within = np.zeros(count) if variances is None else np.sqrt(np.mean([v.sum(1) for v in variances], axis=0))
    cells = pd.DataFrame(
        {
            "neighbours": own.neighbours,
            "clusters": own.clusters,
            "within": within,
            "between": np.sqrt(aligned.var(0, ddof=1).sum(1)),
        }
    )
    named = own.partitions[0] if given is None else given
    shared = together(own.partitions, named)
    beside = {f"{measure}, {name}": getattr(a, measure) for name, a in others.items() for measure in MEASURES}
    table = _groups(pd.DataFrame({measure: cells[measure] for measure in MEASURES} | beside), named, shared)
    if own.apart is not None:
        table.insert(1, "apart", own.apart.min())
        table["stable"] = table["apart"] >= APART
    return Stability(
        pd.DataFrame(rows).T, table, cells, _dimensions(aligned), shared, aligned, own.partitions, min(k, count - 1)
    )


def _groups(shares: pd.DataFrame, named: np.ndarray, shared: pd.DataFrame) -> pd.DataFrame:
    """A row per group, in the order of their names."""
    by = shares.groupby(named)
    table = by.mean().loc[shared.index]
    table.insert(0, "observations", by.size())
    apart = shared.to_numpy().copy()
    table["together"] = np.diagonal(apart)
    np.fill_diagonal(apart, -1)
    alone = len(shared) == 1
    table["mixes_with"] = None if alone else shared.index.to_numpy()[apart.argmax(1)]
    table["mixed"] = np.nan if alone else apart.max(1)
    table["stable"] = table["clusters"] >= STABLE
    return table.rename_axis("group")


def _dimensions(aligned: Float[np.ndarray, "fits obs latent"]) -> pd.DataFrame:
    """How much of the variance along each dimension is that of the mean over fits."""
    between, common = aligned.var(0, ddof=1).mean(0), aligned.mean(0).var(0)
    own = aligned[0].var(0)
    kept = np.divide(common, common + between, out=np.full(len(own), np.nan), where=own > SILENT)
    frame = pd.DataFrame({"spread": np.sqrt(own), "kept": kept})
    return frame.rename_axis("dimension")  # counted from 0, as everywhere
