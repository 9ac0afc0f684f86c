"""Numbers of the optimiser and the schedule, from the size of the data: see LOG.md for the measurements behind them."""

from typing import Literal

from biovae.training.schedule import OneCycle, Plateau, Schedule, Warmup
from biovae.training.step import Settings

Epochs = int | Literal["auto"]

RAMP = 200  # steps until rate and beta are in full force: the same for every size, since a step is a step
DECAY = 300  # steps of the final fall of the rate
PATIENCE = 4  # epochs without a rise, and two evaluations at least
MOST = 0.2  # share of hidden units left out
LIMIT = 400  # epochs that the holding phase may take at most


def settings(observations: int, *, batch_size: int | None = None, rate: float | None = None) -> Settings:
    """Batch size and learning rate for a training set of this size.

    Small sets need many steps, large ones few epochs: the batch grows with the square root of the size, from 128 at
    2,000 observations to 1,024 at 128,000 and above (LOG.md, 2026-11-26, latest).
    """
    if batch_size is None:
        batch_size = 128
        while batch_size < 1024 and observations >= 2_000 * (2 * batch_size / 128) ** 2:
            batch_size *= 2
    return Settings(batch_size=batch_size, rate=4e-3 if rate is None else rate)


def dropout(observations: int) -> tuple[float, float]:
    """Shares of the encoder's and of the decoder's hidden units left out, for a training set of this size.

    What guards a small set against being learned by heart keeps a large one from being learned at all. More than MOST
    lets depth into z, and tells types apart less well (LOG.md, 2026-11-26, night).
    """
    return min(MOST, 500 / max(observations, 1)), min(MOST, 250 / max(observations, 1))


def schedule(epochs: Epochs, batches: int, warmup: Warmup) -> Schedule:
    """The schedule of a run of `batches` steps per epoch.

    Args:
        epochs: A number plans that many and follows one cycle; "auto" holds the rate until the validation bound stops
            rising, then lets it fall.
        batches: Steps per epoch.
        warmup: Shape of beta's ramp.
    """
    if epochs == "auto":
        most = max(RAMP + 1, LIMIT * batches)
        between = -(-Settings.steps_between // batches)  # epochs from one evaluation to the next
        patience = max(2, -(-PATIENCE // between))
        return Plateau(ramp=RAMP, decay=DECAY, most=most, patience=patience, warmup=warmup)
    return OneCycle(epochs * batches, warmup)
