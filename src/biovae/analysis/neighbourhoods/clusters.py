"""Groups of observations on the latent neighbour graph, and the features that mark them."""

import random
from collections.abc import Sequence

import numpy as np
import pandas as pd
import scipy.sparse
from jaxtyping import Float, Int

from biovae.analysis.neighbourhoods.neighbours import K, codes, nearest
from biovae.analysis.neighbourhoods.positions import finite
from biovae.analysis.normalise import log_normalise
from biovae.errors import InputError

ITERATIONS = 2  # of Leiden; later ones move hardly an observation
PSEUDOCOUNT = 0.1  # per 10,000, in fold changes
COLUMNS = ("cluster", "feature", "log2_fold_change", "fraction_in", "fraction_out", "score")


def leiden(z: Float[np.ndarray, "obs latent"], k: int = K, resolution: float = 0.3, seed: int = 0) -> np.ndarray:
    """Clusters of the latent neighbour graph, named "0", "1", ... from the largest to the smallest.

    An edge weighs the share of neighbours that its two ends have in common (Jaccard), as in PhenoGraph; the partition
    maximises modularity. The seed alone decides: igraph's generator is replaced for the call and then given back to
    Python's `random`, igraph's own default, whose state is not touched.

    Args:
        z: Positions, (obs, latent).
        k: Neighbours per observation.
        resolution: Of the modularity; higher for more clusters. At 1, the usual default, types fall to pieces (LOG.md).
        seed: Of the order in which observations are moved.

    Source: Traag, Waltman and van Eck 2019, doi:10.1038/s41598-019-41695-z (Leiden); Levine et al. 2015,
    doi:10.1016/j.cell.2015.05.047 (PhenoGraph).
    """
    return communities(nearest(finite(z), k)[0], resolution, seed)


def communities(index: Int[np.ndarray, "obs k"], resolution: float = 0.3, seed: int = 0) -> np.ndarray:
    """The same from a table of neighbours, for those who have one."""
    import igraph

    edges = _jaccard(index)
    graph = igraph.Graph(n=len(index), edges=np.stack([edges.row, edges.col], 1))
    igraph.set_random_number_generator(random.Random(seed))
    try:
        found = graph.community_leiden(
            objective_function="modularity", weights=edges.data, resolution=resolution, n_iterations=ITERATIONS
        )
    finally:
        igraph.set_random_number_generator(random)
    member = np.asarray(found.membership)
    order = np.argsort(-np.bincount(member), kind="stable")
    rank = np.empty_like(order)
    rank[order] = np.arange(len(order))
    return rank[member].astype(str)


def markers(
    counts: scipy.sparse.sparray | scipy.sparse.spmatrix | np.ndarray,
    clusters: np.ndarray,
    feature_names: Sequence[str],
    top: int = 5,
) -> pd.DataFrame:
    """The features that set each cluster apart from all other observations, best first.

    The score is Welch's t of log-normalised values, inside against outside; it ranks, and is no p-value, because the
    clusters were found in the same data. Only features that are higher inside are listed.

    Args:
        counts: (obs, features).
        clusters: Name of each observation's cluster, (obs,).
        feature_names: (features,).
        top: Features per cluster, at most.

    Returns:
        Columns `cluster`, `feature`, `log2_fold_change` (of mean counts per 10,000), `fraction_in` and `fraction_out`
        (of observations with a count), `score`.
    """
    logs = log_normalise(counts)
    if len(feature_names) != logs.shape[1]:
        raise InputError(
            f"expected {logs.shape[1]} feature names, found {len(feature_names)}: pass those of the columns."
        )
    codes(clusters, logs.shape[0])
    names, member = np.unique(np.asarray(clusters), return_inverse=True)
    inside = scipy.sparse.csr_array((np.ones(len(member)), (member, np.arange(len(member)))))
    size = np.bincount(member)
    values = {"mean": logs, "square": logs**2, "linear": _map(logs, np.expm1), "detected": _map(logs, np.sign)}
    sums = {name: (inside @ x).toarray() for name, x in values.items()}
    frames = []
    for i in sorted(range(len(names)), key=lambda i: natural(names[i])):
        if size[i] == len(member):
            continue  # nothing lies outside
        split = {name: (s[i], s.sum(0) - s[i]) for name, s in sums.items()}
        frames.append(_best(split, (size[i], len(member) - size[i])))
        frames[-1].insert(0, "cluster", str(names[i]))
    if not frames:
        return pd.DataFrame({name: [] for name in COLUMNS})
    frame = pd.concat(frames)
    frame["feature"] = np.asarray(feature_names, dtype=object)[frame.index]
    frame = frame[frame["score"] > 0].groupby("cluster", sort=False).head(top)
    return frame.loc[:, list(COLUMNS)].reset_index(drop=True)


def _best(sums: dict[str, tuple[np.ndarray, np.ndarray]], sizes: tuple[int, int]) -> pd.DataFrame:
    """All features of one cluster, best first; the index is their position."""
    mean, square, linear, detected = (
        [s / n for s, n in zip(sums[name], sizes, strict=True)] for name in ("mean", "square", "linear", "detected")
    )
    spread = [np.maximum(s - m**2, 0) * n / max(n - 1, 1) for s, m, n in zip(square, mean, sizes, strict=True)]
    if min(sizes) == 1:  # one observation has no spread: it borrows that of the others
        spread = [np.maximum(*spread)] * 2
    error = np.sqrt(sum(s / n for s, n in zip(spread, sizes, strict=True)) + 1e-12)
    change = np.log2((linear[0] + PSEUDOCOUNT) / (linear[1] + PSEUDOCOUNT))
    frame = pd.DataFrame(
        {
            "log2_fold_change": change,
            "fraction_in": detected[0],
            "fraction_out": detected[1],
            "score": (mean[0] - mean[1]) / error,
        }
    )
    return frame.sort_values("score", ascending=False, kind="stable")


def _jaccard(index: np.ndarray) -> scipy.sparse.coo_array:
    """Edges between neighbours, each once, weighed by shared neighbours; each is its own neighbour here."""
    count = len(index)
    row = np.repeat(np.arange(count), index.shape[1])
    own = np.arange(count)
    ones = np.ones(len(row) + count)
    near = scipy.sparse.csr_array((ones, (np.r_[row, own], np.r_[index.ravel(), own])), shape=(count, count))
    shared = scipy.sparse.csr_array((near @ near.T) * near.maximum(near.T))
    upper = scipy.sparse.coo_array(scipy.sparse.triu(shared, k=1))
    upper.data = upper.data / (2 * (index.shape[1] + 1) - upper.data)
    return upper


def _map(x: scipy.sparse.csr_array, f: np.ufunc) -> scipy.sparse.csr_array:
    return scipy.sparse.csr_array((f(x.data), x.indices, x.indptr), shape=x.shape)


def natural(name: object) -> tuple[int, str]:
    """The order "2" before "10", and words after numbers."""
    text = str(name)
    return (int(text), "") if text.isdecimal() else (2**62, text)
