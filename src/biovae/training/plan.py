"""Numbers of the optimiser and the schedule, from the size of the data: see LOG.md for the measurements behind them."""

import math
from typing import Literal

from biovae.errors import InputError
from biovae.training.schedule import OneCycle, Plateau, Schedule, Warmup
from biovae.training.step import Settings

Epochs = int | Literal["auto"]

PEAK = 4e-3  # learning rate
RAMP = 200  # steps until rate and beta are in full force
DECAY = 300  # steps of the final fall of the rate
WINDOW, LOOKS = 100, 4  # steps over which the validation bound is averaged; evaluations, at most, two at least
MOST = 0.2  # share of hidden units left out
LIMIT = 400  # epochs that the holding phase may take at most, or
STEPS = 2_000  # steps, whichever is more


def share(observations: int, features: int) -> float:
    """sqrt(2 observations / features), at most 1: how much of PEAK, RAMP and DECAY a training set can bear.

    Few observations of many features are learned by heart, and the sooner the higher the rate and the longer the run.
    With half as many observations as features, nothing is held back any more (LOG.md, 2026-11-27).
    """
    return min(1.0, math.sqrt(2 * observations / max(features, 1)))


def settings(
    observations: int,
    features: int,
    epochs: Epochs = "auto",
    *,
    batch_size: int | None = None,
    rate: float | None = None,
) -> Settings:
    """Batch size and learning rate for a training set of this size.

    Small sets need many steps, large ones few epochs: the batch grows with the square root of the size, from 128 at
    2,000 observations to 1,024 at 128,000 and above (LOG.md, 2026-11-26, latest). A given number of epochs is a budget:
    while it has fewer steps than there are observations, the rate is not held back.
    """
    if epochs != "auto" and (isinstance(epochs, str) or not epochs > 0):
        raise InputError(f"expected epochs to be 'auto' or a number above 0, found {epochs!r}: leave them at 'auto'.")
    if batch_size is None:
        batch_size = 128
        while batch_size < 1024 and observations >= 2_000 * (2 * batch_size / 128) ** 2:
            batch_size *= 2
    if rate is None:
        bearable = share(observations, features)
        if epochs != "auto":
            steps = epochs * -(-observations // batch_size)
            bearable = max(bearable, min(1.0, observations / steps))
        rate = PEAK * bearable
    return Settings(batch_size=batch_size, rate=rate)


def patience(observations: int, features: int) -> float:
    """(observations / (2 features))**(1/3), at least 1: how much longer the bound of a run is waited for.

    Many observations of few features are not learned by heart, and are still learned from when the bound rises by less
    than it varies from one evaluation to the next (LOG.md, 2026-11-27, night).
    """
    return max(1.0, observations / (2 * max(features, 1))) ** (1 / 3)


def dropout(observations: int, features: int) -> tuple[float, float]:
    """Shares of the encoder's and of the decoder's hidden units left out, for a training set of this size.

    What guards a small set against being learned by heart keeps a large one from being learned at all, and one of few
    features needs no guard. More than MOST lets depth into z, and tells types apart less well (LOG.md, 2026-11-26,
    night; 2026-11-27, night).
    """
    n = max(observations, 1)
    needed = min(1.0, 10 * features / n)
    return needed * min(MOST, 500 / n), needed * min(MOST, 250 / n)


def schedule(epochs: Epochs, size: tuple[int, int], batches: int, warmup: Warmup) -> Schedule:
    """The schedule of a run of `batches` steps per epoch.

    Args:
        epochs: A number plans that many and follows one cycle; "auto" holds the rate until the validation bound stops
            rising, then lets it fall.
        size: Observations in training, features.
        batches: Steps per epoch.
        warmup: Shape of beta's ramp.
    """
    if epochs == "auto":
        ramp, decay = (max(1, round(steps * share(*size))) for steps in (RAMP, DECAY))
        between = -(-Settings.steps_between // batches) * batches  # steps from one evaluation to the next
        longer = patience(*size)
        window = max(2, min(math.ceil(LOOKS * longer), math.ceil(WINDOW * longer / between)))
        return Plateau(ramp=ramp, decay=decay, most=max(STEPS, LIMIT * batches), window=window, warmup=warmup)
    return OneCycle(epochs * batches, warmup)
