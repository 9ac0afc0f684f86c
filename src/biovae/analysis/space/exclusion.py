"""Features that exclude each other: both common, hardly ever seen in one observation.

    on       whether a count is above 0, (obs, features)
    pair     two features, (pairs, 2)

With shallow counts two features are missed together by chance; what counts is how far their joint detection falls below
what it would be if they were independent, n p_g p_h.
"""

import numpy as np
import scipy.sparse
from jaxtyping import Float, Int

COMMON = 0.03  # share of observations in which a feature must be seen
WIDEST = 1000  # features that are paired
PAIRS = 2000  # pairs kept, those that fall farthest below
RATIO = 0.3  # of joint detection to independence, below which two features exclude each other
SURE = 5.0  # standard deviations by which it must fall below


def exclusive_pairs(
    counts: scipy.sparse.sparray | scipy.sparse.spmatrix | np.ndarray,
    ratio: float = RATIO,
    pairs: int = PAIRS,
) -> Int[np.ndarray, "pairs 2"]:
    """Pairs of common features seen together less than `ratio` times as often as if they were independent.

    Looked for among the 1,000 features whose detection varies most, p (1 - p); kept are those that fall farthest below,
    in standard deviations of a Poisson number, and at least 5.

    Args:
        counts: (obs, features).
        ratio: Of joint detection to independence.
        pairs: At most so many.
    """
    on = scipy.sparse.csc_array(counts)
    on = scipy.sparse.csc_array((np.ones(on.nnz), on.indices, on.indptr), shape=on.shape) if on.nnz else on
    share = np.asarray(on.sum(0)).ravel() / on.shape[0]
    common = np.flatnonzero((share > COMMON) & (share < 1 - COMMON))
    varied = (share * (1 - share))[common]
    kept = np.sort(common[np.argsort(-varied, kind="stable")[:WIDEST]])
    part = scipy.sparse.csr_array(on[:, kept])
    together = (part.T @ part).toarray()
    chance = on.shape[0] * np.outer(share[kept], share[kept])
    below = (chance - together) / np.sqrt(np.maximum(chance, np.finfo(np.float64).tiny))
    first, second = np.nonzero(np.triu((together < ratio * chance) & (below > SURE), k=1))
    order = np.argsort(-below[first, second], kind="stable")[:pairs]
    return np.column_stack([kept[first[order]], kept[second[order]]])


def together(
    chance: Float[np.ndarray, "points features"], pairs: Int[np.ndarray, "pairs 2"]
) -> Float[np.ndarray, "points"]:
    """Mean over pairs of the chance to see both, of the chances to see each."""
    return np.array([(row[pairs[:, 0]] * row[pairs[:, 1]]).mean() for row in chance])
