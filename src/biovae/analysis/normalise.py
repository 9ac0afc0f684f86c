"""Counts on the scale that linear methods want: log1p(10,000 x / exposure)."""

import numpy as np
import scipy.sparse
from jaxtyping import Float

from biovae.errors import InputError

ROWS = 256  # scaled at once
TARGET = 1e4  # counts per observation, the field's habit


def log_normalise(
    counts: scipy.sparse.sparray | scipy.sparse.spmatrix | np.ndarray,
    exposure: Float[np.ndarray, "obs"] | None = None,
    target: float = TARGET,
) -> scipy.sparse.csr_array:
    """log1p(target x / exposure), still sparse; the counts are not changed.

    Args:
        counts: (obs, features).
        exposure: Total counts of each observation, (obs,); the sums of the rows where it is not given.
        target: What every total becomes. An observation without counts stays empty.

    Raises:
        InputError: An observation has counts and no exposure.
    """
    given = scipy.sparse.csr_array(counts)
    parts = (given.data.astype(np.float64), given.indices.copy(), given.indptr.copy())
    x = scipy.sparse.csr_array(parts, shape=given.shape)
    total = x.sum(1)
    exposure = total if exposure is None else np.asarray(exposure, dtype=np.float64).ravel()
    if exposure.shape != total.shape or ((exposure <= 0) & (total > 0)).any():
        found = f"{exposure.size} values, {int((exposure <= 0).sum())} of them not above 0"
        raise InputError(
            f"expected {len(total)} positive exposures, found {found}: pass the total counts of each observation."
        )
    scale = target / np.where(exposure > 0, exposure, 1)
    for start in range(0, len(scale), ROWS):
        ends = x.indptr[start : start + ROWS + 1]
        part = x.data[ends[0] : ends[-1]]
        part *= np.repeat(scale[start : start + ROWS], np.diff(ends))
        np.log1p(part, out=part)
    return x
