"""How a type would respond to what others responded to: three guesses, and the mixture that the others bear out.

    k       a reference type, seen before and after
    d_k     its response: change of the mean of log1p(10,000 x / depth)      (features,)
    n_k     observations behind it, 1 / (1 / before + 1 / after)
    p_k     where its observations lie before                                (places,)

    average    sum_k v_k d_k,  v_k prop. to min(n_k, 50): types count alike unless they are small
    similar    sum_k w_k d_k,  w_k prop. to v_k exp(-|p - p_k|**2 / (2 h**2)): those nearby count more
    decoded    what a decoder says of the type's own observations, given w

    response = a average + b similar + c decoded,   a, b, c >= 0

The average is the additive baseline. The width h and the shares are those under which the responses of the reference
types are met best, each guessed from the others alone (least squares, non-negative); the type that is asked about has
no say. Of the reference types the decoder has seen what came after, of the one that is asked about it has not, and
nothing tells how much it loses. Hence two fits, one that may use the decoder and one that may not, and the mean of
their shares: a decoder that is of no use even where it saw the answer gets none, one that knows all gets half.

What the mixture misses in the reference types is what it may miss in the next one: `spread`, feature by feature.
"""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import pandas as pd
import scipy.optimize
from jaxtyping import Float

from biovae.errors import InputError

ENOUGH = 50.0  # observations beyond which a type counts no more
WIDTHS = (0.25, 0.5, 1.0, 2.0, np.inf)  # of the median distance between types
GUESSES = ("average", "similar", "decoded")
Decoded = Callable[[int | None, Float[np.ndarray, "types"]], Float[np.ndarray, "features"]]


@dataclass(frozen=True)
class References:
    """Types that were seen before and after.

    Attributes:
        names: Of the types.
        change: d.
        error: Standard error of d.
        size: n.
        place: p.
    """

    names: tuple[str, ...]
    change: Float[np.ndarray, "types features"]
    error: Float[np.ndarray, "types features"]
    size: Float[np.ndarray, "types"]
    place: Float[np.ndarray, "types places"]


@dataclass(frozen=True)
class Response:
    """The response of a type that was not seen after.

    Attributes:
        guesses: `average`, `similar`, `decoded`, a column each, a row per feature.
        shares: a, b, c.
        spread: Root mean square of what was missed in the reference types.
        weights: w of the reference types.
        missed: Root mean square over features and reference types that each guess missed, and `mixture`; NaN where
            there are too few types to try.
    """

    guesses: pd.DataFrame
    shares: pd.Series
    spread: Float[np.ndarray, "features"]
    weights: pd.Series
    missed: pd.Series

    @property
    def change(self) -> Float[np.ndarray, "features"]:
        """The mixture of the guesses."""
        return self.guesses.to_numpy() @ self.shares.to_numpy()


def respond(references: References, place: Float[np.ndarray, "places"], decoded: Decoded) -> Response:
    """Guess the response of a type from its place and the responses of others.

    Args:
        references: Types seen before and after, at least one.
        place: p of the type that is asked about.
        decoded: The decoder's guess for a reference type (by number) or the one that is asked about (None), if it
            responds as the weighted reference types did, (types,).

    Raises:
        InputError: There is no reference type.
    """
    count = len(references.names)
    if not count:
        raise InputError("expected another type that was seen before and after, found none: no response to learn from.")
    width = _width(references)
    weights = similar_weights(references, place, width)
    guesses = _guessed(references, place, width, decoded)
    if count == 1:  # nothing can be tried out
        shares = np.array([0.5, 0.0, 0.5])
        spread = np.hypot(references.error[0], 0.5 * np.abs(guesses[:, 2] - guesses[:, 0]))
        missed = np.full(4, np.nan)
    else:
        tried = [_guessed(references, references.place[k], width, decoded, k) for k in range(count)]
        importance = np.sqrt(np.minimum(references.size, ENOUGH))
        stacked = np.concatenate([scale * each for scale, each in zip(importance, tried, strict=True)])
        met = (importance[:, None] * references.change).ravel()
        without = np.append(scipy.optimize.nnls(stacked[:, :2], met)[0], 0.0)
        shares = (without + scipy.optimize.nnls(stacked, met)[0]) / 2
        lost = np.stack([change[:, None] - each for change, each in zip(references.change, tried, strict=True)])
        rest = references.change - np.stack(tried) @ shares
        missed = np.sqrt(np.append(np.square(lost).mean((0, 1)), np.square(rest).mean()))
        spread = np.sqrt(np.square(rest).mean(0))
    return Response(
        pd.DataFrame(guesses, columns=list(GUESSES)),
        pd.Series(shares, index=list(GUESSES)),
        spread,
        pd.Series(weights, index=list(references.names)),
        pd.Series(missed, index=[*GUESSES, "mixture"]),
    )


def similar_weights(
    references: References, place: Float[np.ndarray, "places"], width: float, without: int | None = None
) -> Float[np.ndarray, "types"]:
    """w, which sum to 1; 0 for the type that is left out."""
    square = np.square(references.place - place).sum(1)
    log = np.log(np.minimum(references.size, ENOUGH)) - (0 if np.isinf(width) else square / (2 * width**2))
    if without is not None:
        log[without] = -np.inf
    weight = np.exp(log - log.max())
    return weight / weight.sum()


def _guessed(
    references: References, place: np.ndarray, width: float, decoded: Decoded, k: int | None = None
) -> Float[np.ndarray, "features guesses"]:
    """The three guesses for a place, from all reference types but the k-th."""
    near, all_ = (similar_weights(references, place, h, k) for h in (width, np.inf))
    return np.stack([all_ @ references.change, near @ references.change, decoded(k, near)], axis=1)


def _width(references: References) -> float:
    """h: the width under which similar types tell each other's responses best."""
    count = len(references.names)
    if count < 3:
        return float("inf")
    gaps = np.linalg.norm(references.place[:, None] - references.place[None], axis=-1)
    unit = float(np.median(gaps[~np.eye(count, dtype=bool)]))
    importance = np.minimum(references.size, ENOUGH)

    def missed(width: float) -> float:
        guessed = [similar_weights(references, references.place[k], width, k) @ references.change for k in range(count)]
        return float(importance @ np.square(references.change - np.stack(guessed)).sum(1))

    return min((factor * unit for factor in WIDTHS), key=missed)
