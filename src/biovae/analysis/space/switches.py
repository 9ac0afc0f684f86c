"""What changes along a path, and in which order."""

from collections.abc import Sequence

import numpy as np
import pandas as pd
from jaxtyping import Float

from biovae.analysis.limits import limits
from biovae.errors import InputError

CHANGE = 1.0  # log2, or the unit of reals
PSEUDO = 0.01  # of the average feature, in logarithms


def switches(
    expression: Float[np.ndarray, "steps features"],
    features: Sequence[str],
    *,
    additive: bool = False,
    least: float = CHANGE,
    draws: Float[np.ndarray, "draws steps features"] | None = None,
) -> pd.DataFrame:
    """The features that go up or down along a path, in the order in which they do.

    A feature switches where its logarithm (the value itself where additive) first passes the middle between its lowest
    and its highest value along the path, on its way from the one to the other.

    Args:
        expression: Along the path, not negative unless additive, in steps of equal length.
        features: Names.
        additive: Values are reals, whose changes are differences instead of ratios.
        least: Smallest change between lowest and highest that counts as one: log2, or in the unit of reals.
        draws: Of the same expression, for the interval of the place.

    Returns:
        A row per feature: `feature`, `at` (0 at the start, 1 at the end), `lower` and `upper` (90 % of the draws; NaN
        without), `log2_change` or, where additive, `change` (from the extreme that comes first to the other),
        `direction` ("up" or "down").

    Raises:
        InputError: Names and columns differ in number, or a value is negative and not additive.
    """
    expression = np.asarray(expression, dtype=np.float64)
    if expression.ndim != 2 or expression.shape[1] != len(features) or len(expression) < 2:
        raise InputError(
            f"expected 2 or more steps of {len(features)} features, found {expression.shape}: pass the features named."
        )
    if expression.min(initial=0) < 0 and not additive:
        raise InputError(f"expected expression of at least 0, found {expression.min():g}: switches are fold changes.")
    pseudo = max(PSEUDO * float(expression.sum() / max(expression.size, 1)), np.finfo(np.float64).tiny)

    def scaled(values: np.ndarray) -> np.ndarray:
        return values if additive else np.log2(np.maximum(values, 0) + pseudo)

    at, change = _places(scaled(expression))
    column = "change" if additive else "log2_change"
    frame = pd.DataFrame({"feature": [*features], "at": at, "lower": np.nan, "upper": np.nan, column: change})
    if draws is not None and len(draws):
        frame["lower"], frame["upper"] = limits(np.stack([_places(scaled(d))[0] for d in draws]))
    frame["direction"] = np.where(change > 0, "up", "down")
    kept = frame[np.abs(frame[column]) >= least]
    return kept.sort_values("at", kind="stable", ignore_index=True)


def _places(values: Float[np.ndarray, "steps features"]) -> tuple[np.ndarray, np.ndarray]:
    """Where each feature passes the middle of its range, and by how much it changes."""
    columns = np.arange(values.shape[1])
    low, high = values.argmin(0), values.argmax(0)
    begin, finish = np.minimum(low, high), np.maximum(low, high)
    start, end = values[begin, columns], values[finish, columns]
    middle = (start + end) / 2
    step = np.arange(len(values))[:, None]
    beyond = ((values - middle) * np.sign(end - start) >= 0) & (step > begin)
    first = np.where(beyond.any(0), beyond.argmax(0), finish)
    before = np.maximum(first - 1, 0)
    a, b = values[before, columns], values[first, columns]
    share = np.where(b != a, (middle - a) / np.where(b != a, b - a, 1), 0)
    return (before + np.clip(share, 0, 1)) / (len(values) - 1), end - start
