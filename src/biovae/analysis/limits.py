"""The limits of an interval, from a few draws of what is not certain."""

import numpy as np
from jaxtyping import Float

from biovae.errors import InputError

SHARE = 0.9  # of further draws that is expected between the limits


def limits(draws: Float[np.ndarray, "draws *rest"]) -> Float[np.ndarray, "2 *rest"]:
    """Lower and upper: between them 90 % of further draws are expected to lie.

    They stand at the ranks 0.05 (draws + 1) and 0.95 (draws + 1). The usual quantiles hold 0.9 (draws - 1) /
    (draws + 1) of further draws, 81 % for 20. Below 19 draws these are the least and the largest; NaN where a draw is.

    Raises:
        InputError: There is one draw, which has no spread.

    Source: Hyndman and Fan 1996, doi:10.2307/2684934, definition 6.

    >>> limits(np.arange(1.0, 20.0)).tolist()
    [1.0, 19.0]
    """
    if len(draws) < 2:
        raise InputError(
            f"expected several draws for the limits of an interval, found {len(draws)}: 20 will do, or 0 for none."
        )
    ordered = np.sort(np.asarray(draws), axis=0)  # a NaN comes last
    last = len(ordered) - 1
    found = []
    for level in ((1 - SHARE) / 2, (1 + SHARE) / 2):
        rank = min(max(level * (last + 2) - 1, 0.0), float(last))
        low = ordered[int(rank)]
        found.append(low + (rank % 1) * (ordered[min(int(rank) + 1, last)] - low))
    return np.where(np.isnan(ordered[last]), np.nan, np.stack(found))
