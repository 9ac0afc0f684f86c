"""How far maps of the same observations agree: who is near whom, who is grouped with whom, and where everybody lies.

    z    positions in one map, (obs, latent); the axes of two maps need have nothing in common
    s_i  share of the k nearest neighbours of i in one map that are its neighbours in the other
    J_i  |A & B| / |A | B|, A and B the clusters that hold i in the two maps

Neighbours and clusters need no alignment. Positions do: R = argmin |Z R - Z_1|, the orthogonal Procrustes rotation.

Source: J as a measure of a cluster's stability, Hennig 2007, doi:10.1016/j.csda.2006.11.025; Procrustes, Schoenemann
1966, doi:10.1007/BF02289451; the adjusted Rand index, Hubert and Arabie 1985, doi:10.1007/BF01908075.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import combinations

import numpy as np
import pandas as pd
from jaxtyping import Float, Int
from sklearn.metrics import adjusted_rand_score

from biovae.analysis.neighbourhoods.clusters import communities, natural
from biovae.analysis.neighbourhoods.neighbours import K, codes, nearest, neighbours_shared
from biovae.analysis.neighbourhoods.positions import finite
from biovae.errors import InputError

RESOLUTION = 0.3  # of clusters: see `leiden`


@dataclass(frozen=True)
class Agreement:
    """What several maps agree on.

    Attributes:
        pairs: A row per pair of maps: mean of s as `neighbours`, adjusted Rand index of their clusters as `clusters`.
        neighbours: s of each observation, averaged over pairs.
        clusters: J of each observation, averaged over pairs.
        partitions: Name of the cluster of each observation, a row per map.
        apart: See `kept_apart`, a row per map; None where no groups were named.
    """

    pairs: pd.DataFrame
    neighbours: Float[np.ndarray, "obs"]
    clusters: Float[np.ndarray, "obs"]
    partitions: np.ndarray
    apart: pd.DataFrame | None = None

    def row(self) -> dict[str, float]:
        """Mean over pairs, and the pair that agrees least."""
        mean, least = self.pairs.mean(), self.pairs.min()
        return {name: float(mean[name]) for name in self.pairs} | {
            f"{name}_lowest": float(least[name]) for name in self.pairs
        }


def agreement(
    maps: Iterable[Float[np.ndarray, "obs latent"]],
    *,
    k: int = K,
    resolution: float = RESOLUTION,
    seed: int = 0,
    named: np.ndarray | None = None,
) -> Agreement:
    """Compare every map with every other.

    Args:
        maps: Taken one at a time; of each only neighbours and clusters are kept.
        k: Neighbours.
        resolution: Of the clusters, see `leiden`.
        seed: Of the clusters, the same for all maps.
        named: The group of each observation, None where it has none, to see whether groups are apart: among those that
            have one.

    Raises:
        InputError: There are not two maps, or they differ in their number of observations.
    """
    indices, kept = [], []
    has = None if named is None else codes(named, len(named), gaps=True) >= 0
    for z in maps:
        indices.append(nearest(z, k)[0])
        if named is not None and has is not None:
            kept.append(kept_apart(indices[-1] if has.all() else nearest(z[has], k)[0], named[has]))
    if len(indices) < 2:
        raise InputError(f"expected two maps or more to compare, found {len(indices)}: fit(data, ensemble=5).")
    partitions = np.array([communities(index, resolution, seed) for index in indices])
    pairs, near, grouped = [], np.zeros(len(indices[0])), np.zeros(len(indices[0]))
    for a, b in combinations(range(len(indices)), 2):
        shared = neighbours_shared(indices[a], indices[b])
        rand = adjusted_rand_score(partitions[a], partitions[b])
        pairs.append({"neighbours": float(shared.mean()), "clusters": float(rand)})
        near += shared
        grouped += same_cluster(partitions[a], partitions[b])
    apart = pd.DataFrame(kept) if kept else None
    return Agreement(pd.DataFrame(pairs), near / len(pairs), grouped / len(pairs), partitions, apart)


def kept_apart(index: Int[np.ndarray, "obs k"], named: np.ndarray) -> pd.Series:
    """Of each group, the share of its observations' nearest that are its own, beyond chance: 1 is apart, 0 is mixed.

    A group of n has n - 1 neighbours of its own to give: of each of its observations so many are looked at, at most k.
    """
    names, member = np.unique(named, return_inverse=True)
    size = np.bincount(member)
    looked = np.arange(index.shape[1]) < (size[member] - 1)[:, None]
    own = ((member[index] == member[:, None]) & looked).sum(1) / np.maximum(looked.sum(1), 1)
    chance = (size - 1) / max(len(member) - 1, 1)
    share = np.bincount(member, own) / size
    return pd.Series(np.where(chance < 1, (share - chance) / np.where(chance < 1, 1 - chance, 1), 1.0), index=names)


def same_cluster(a: Sequence[object] | np.ndarray, b: Sequence[object] | np.ndarray) -> Float[np.ndarray, "obs"]:
    """J_i = |A & B| / |A | B|: of all that either partition puts with i, itself included, the share that both do.

    >>> same_cluster(["x", "x", "x", "y"], ["u", "u", "v", "v"]).round(2).tolist()
    [0.67, 0.67, 0.25, 0.5]
    """
    a, b = codes(a, len(a)), codes(b, len(a))
    both = np.zeros((a.max() + 1, b.max() + 1))
    np.add.at(both, (a, b), 1)
    joint = both[a, b]
    return joint / (both.sum(1)[a] + both.sum(0)[b] - joint)


def together(partitions: np.ndarray, groups: Sequence[object] | np.ndarray) -> pd.DataFrame:
    """Chance that one observation of a group and another one of a group share a cluster, averaged over partitions.

    Args:
        partitions: A row per partition.
        groups: The group of each observation, None where it has none.

    Returns:
        (groups, groups), symmetric: near 1 on the diagonal where a group holds together, near 0 beside it where groups
        stay apart. NaN for a group of one with itself.
    """
    has = codes(groups, len(groups), gaps=True) >= 0
    named, partitions = np.asarray(groups)[has], partitions[:, has]
    names = sorted(pd.unique(named), key=natural)
    member = pd.Index(names).get_indexer(named)
    size = np.bincount(member).astype(np.float64)
    total = np.zeros((len(names), len(names)))
    for partition in partitions:
        cluster = codes(partition, len(member))
        inside = np.zeros((len(names), cluster.max() + 1))
        np.add.at(inside, (member, cluster), 1)
        total += inside @ inside.T - np.diag(size)  # nobody is paired with itself
    pairs = np.outer(size, size) - np.diag(size)
    share = np.divide(total / len(partitions), pairs, out=np.full_like(total, np.nan), where=pairs > 0)
    return pd.DataFrame(share, index=names, columns=names)


def align(maps: Sequence[Float[np.ndarray, "obs latent"]]) -> Float[np.ndarray, "maps obs latent"]:
    """Every map, centred and turned onto the first: R = U V' with Z'Z_1 = U S V'.

    Lengths are kept, since the prior gives all maps one unit.

    Raises:
        InputError: The maps differ in shape, or a position is not finite.
    """
    shapes = {np.shape(z) for z in maps}
    if len(shapes) != 1:
        raise InputError(f"expected maps of one shape, found {sorted(shapes)}: fit them with one number of dimensions.")
    centred = [finite(z) - np.mean(z, axis=0, dtype=np.float64) for z in maps]
    turned = []
    for z in centred:
        left, _, right = np.linalg.svd(z.T @ centred[0])
        turned.append(z @ (left @ right))
    return np.array(turned)
