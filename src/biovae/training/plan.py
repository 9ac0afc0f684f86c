"""Numbers of the optimiser and the schedule, from the size of the data: see LOG.md for the measurements behind them."""

from typing import Literal

from biovae.training.schedule import OneCycle, Plateau, Schedule, Warmup
from biovae.training.step import Settings

Epochs = int | Literal["auto"]

PEAK = 4e-3  # learning rate, from LARGE observations on
LARGE = 2_000
RAMP = 200  # steps until rate and beta are in full force, and no more than an eighth of the observations
DECAY = 300  # steps of the final fall of the rate, and no more than a tenth of the observations
WINDOW = 100  # steps over which the validation bound is averaged, between two evaluations and four
MOST = 0.2  # share of hidden units left out
LIMIT = 400  # epochs that the holding phase may take at most


def settings(
    observations: int, epochs: Epochs = "auto", *, batch_size: int | None = None, rate: float | None = None
) -> Settings:
    """Batch size and learning rate for a training set of this size.

    Small sets need many steps, large ones few epochs: the batch grows with the square root of the size, from 128 at
    2,000 observations to 1,024 at 128,000 and above (LOG.md, 2026-11-26, latest). Small sets are learned by heart after
    few steps, and the sooner the higher the rate. A given number of epochs is a budget: while it has fewer steps than
    there are observations nothing is held back (LOG.md, 2026-11-27).
    """
    if batch_size is None:
        batch_size = 128
        while batch_size < 1024 and observations >= LARGE * (2 * batch_size / 128) ** 2:
            batch_size *= 2
    if rate is None:
        rate = PEAK * min(1.0, (observations / LARGE) ** 0.75)
        if epochs != "auto":
            steps = max(1, epochs * -(-observations // batch_size))
            rate = max(rate, PEAK * min(1.0, observations / steps))
    return Settings(batch_size=batch_size, rate=rate)


def dropout(observations: int) -> tuple[float, float]:
    """Shares of the encoder's and of the decoder's hidden units left out, for a training set of this size.

    What guards a small set against being learned by heart keeps a large one from being learned at all. More than MOST
    lets depth into z, and tells types apart less well (LOG.md, 2026-11-26, night).
    """
    return min(MOST, 500 / max(observations, 1)), min(MOST, 250 / max(observations, 1))


def schedule(epochs: Epochs, observations: int, batches: int, warmup: Warmup) -> Schedule:
    """The schedule of a run of `batches` steps per epoch.

    Args:
        epochs: A number plans that many and follows one cycle; "auto" holds the rate until the validation bound stops
            rising, then lets it fall.
        observations: In training.
        batches: Steps per epoch.
        warmup: Shape of beta's ramp.
    """
    if epochs == "auto":
        ramp, decay = max(1, min(RAMP, observations // 8)), max(1, min(DECAY, observations // 10))
        between = -(-Settings.steps_between // batches) * batches  # steps from one evaluation to the next
        window = max(2, min(4, -(-WINDOW // between)))
        return Plateau(ramp=ramp, decay=decay, most=max(ramp + 1, LIMIT * batches), window=window, warmup=warmup)
    return OneCycle(epochs * batches, warmup)
