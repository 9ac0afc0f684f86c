"""Counts on the scale that linear methods want: log1p(10,000 x / exposure)."""

import numpy as np
import scipy.sparse
from jaxtyping import Float

from biovae.errors import InputError

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
    x = scipy.sparse.csr_array(counts, dtype=np.float64, copy=True)
    total = x.sum(1)
    exposure = total if exposure is None else np.asarray(exposure, dtype=np.float64).ravel()
    if exposure.shape != total.shape or ((exposure <= 0) & (total > 0)).any():
        found = f"{exposure.size} values, {int((exposure <= 0).sum())} of them not above 0"
        raise InputError(
            f"expected {len(total)} positive exposures, found {found}: pass the total counts of each observation."
        )
    x.data *= np.repeat(target / np.where(exposure > 0, exposure, 1), np.diff(x.indptr))
    np.log1p(x.data, out=x.data)
    return x
