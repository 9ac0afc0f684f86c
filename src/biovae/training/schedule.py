"""Schedules: what the learning rate and beta are at every step, and when training ends.

    step      optimiser steps taken so far
    progress  step / planned steps, in [0, 1]

The schedule is honest: the objective in force at the end is the one that was asked for, and only weights seen under it
can be called the best. Nothing here depends on a clock or on chance.
"""

import math
from abc import ABC, abstractmethod
from typing import Annotated, Any, Literal

from pydantic import Field, SerializeAsAny

from biovae.recipe import Recipe, tagged


class Warmup(Recipe, ABC):
    """The share of beta in force, as a function of progress. From `end` on it is 1."""

    @property
    @abstractmethod
    def end(self) -> float:
        """Progress from which all of beta is in force."""

    @abstractmethod
    def share(self, progress: float) -> float:
        """Between 0 and 1."""


class Constant(Warmup):
    """All of beta from the first step."""

    kind: Literal["constant"] = "constant"

    @property
    def end(self) -> float:
        """See `Warmup.end`."""
        return 0.0

    def share(self, progress: float) -> float:
        """See `Warmup.share`."""
        return 1.0


class LinearWarmup(Warmup):
    """progress / until, at most 1.

    Source: Bowman et al. 2016, CoNLL, doi:10.18653/v1/K16-1002.
    """

    kind: Literal["linear"] = "linear"
    until: float = Field(default=0.3, gt=0, le=1)

    @property
    def end(self) -> float:
        """See `Warmup.end`."""
        return self.until

    def share(self, progress: float) -> float:
        """See `Warmup.share`."""
        return min(1.0, progress / self.until)


class SigmoidWarmup(Warmup):
    """A logistic rise centred half way to `until`, stretched to run from exactly 0 to exactly 1.

    Source: Bowman et al. 2016, CoNLL, doi:10.18653/v1/K16-1002.
    """

    kind: Literal["sigmoid"] = "sigmoid"
    until: float = Field(default=0.3, gt=0, le=1)
    steepness: float = Field(default=10.0, gt=0)

    @property
    def end(self) -> float:
        """See `Warmup.end`."""
        return self.until

    def share(self, progress: float) -> float:
        """See `Warmup.share`."""
        if progress >= self.until:
            return 1.0
        low = self._logistic(-0.5)
        return (self._logistic(progress / self.until - 0.5) - low) / (self._logistic(0.5) - low)

    def _logistic(self, x: float) -> float:
        return 1 / (1 + math.exp(-self.steepness * x))


class CyclicalWarmup(Warmup):
    """`cycles` rises from 0 to 1, each followed by a hold; the last hold lasts until the end.

    Source: Fu et al. 2019, NAACL, doi:10.18653/v1/N19-1021.
    """

    kind: Literal["cyclical"] = "cyclical"
    cycles: int = Field(default=4, ge=1)
    rise: float = Field(default=0.5, gt=0, le=1)

    @property
    def end(self) -> float:
        """See `Warmup.end`: the top of the last rise."""
        return (self.cycles - 1 + self.rise) / self.cycles

    def share(self, progress: float) -> float:
        """See `Warmup.share`."""
        if progress >= self.end:
            return 1.0
        return min(1.0, (progress * self.cycles) % 1.0 / self.rise)


AnyWarmup = Annotated[SerializeAsAny[Warmup], tagged(Warmup, Constant, LinearWarmup, SigmoidWarmup, CyclicalWarmup)]


class Schedule(ABC):
    """Rate and beta by step. `scale` is halved whenever a bad step was undone."""

    scale: float = 1.0

    @abstractmethod
    def rate(self, step: int) -> float:
        """Learning rate at this step, as a share of the peak."""

    @abstractmethod
    def share(self, step: int) -> float:
        """Share of beta at this step."""

    @abstractmethod
    def finished(self, step: int) -> bool:
        """Whether training is over."""

    @abstractmethod
    def planned(self, step: int) -> int:
        """The total number of steps, at most: for the progress bar."""

    @property
    def settled(self) -> bool:
        """Whether that is how many it will be."""
        return True

    def observe(self, step: int, bound: float) -> None:  # noqa: B027 - most schedules need not listen
        """Hear the validation bound after an evaluation."""

    def state(self) -> dict[str, Any]:
        """What a checkpoint must keep."""
        return {"scale": self.scale}

    def restore(self, state: dict[str, Any]) -> None:
        """Continue from a checkpoint."""
        for name, value in state.items():
            setattr(self, name, value)


class OneCycle(Schedule):
    """`steps` steps: the rate rises linearly over the first `rise` of them and falls as a cosine to zero.

    Source: Smith and Topin 2019, doi:10.1117/12.2520589.
    """

    def __init__(self, steps: int, warmup: Warmup, rise: float = 0.2) -> None:
        self.steps, self.warmup, self.rise = max(steps, 1), warmup, rise

    def rate(self, step: int) -> float:
        """See `Schedule.rate`."""
        progress = step / self.steps
        if progress < self.rise:
            return self.scale * (0.04 + 0.96 * progress / self.rise)
        return self.scale * (0.5 + 0.5 * math.cos(math.pi * min(1.0, (progress - self.rise) / (1 - self.rise))))

    def share(self, step: int) -> float:
        """See `Schedule.share`; the last step has progress 1."""
        return self.warmup.share(step / max(self.steps - 1, 1))

    def finished(self, step: int) -> bool:
        """See `Schedule.finished`."""
        return step >= self.steps

    def planned(self, step: int) -> int:
        """See `Schedule.planned`."""
        return self.steps


class Plateau(Schedule):
    """Ramp rate and beta, hold them until the validation bound stops rising, then let the rate fall.

    Args:
        ramp: Steps until rate and beta are in full force.
        decay: Steps of the cosine fall at the end.
        most: Steps after which the decay begins whatever the bound does.
        window: Evaluations over which the bound is averaged, since each is noisy: the holding phase ends when the mean
            of the last window is not above that of the window before it.
        warmup: Shape of beta's ramp.
    """

    def __init__(self, *, ramp: int, decay: int, most: int, window: int, warmup: Warmup) -> None:
        self.ramp, self.length, self.most, self.window, self.warmup = ramp, decay, most, window, warmup
        self.bounds: list[float] = []  # of the last two windows
        self.decay_from: int | None = None

    def rate(self, step: int) -> float:
        """See `Schedule.rate`."""
        if self.decay_from is None or step < self.decay_from:
            return self.scale * min(1.0, 0.04 + 0.96 * step / self.ramp)
        return self.scale * (0.5 + 0.5 * math.cos(math.pi * min(1.0, (step - self.decay_from) / self.length)))

    def share(self, step: int) -> float:
        """See `Schedule.share`; the ramp of beta ends where the ramp of the rate does."""
        return self.warmup.share(self.warmup.end * step / self.ramp) if step < self.ramp else 1.0

    def finished(self, step: int) -> bool:
        """See `Schedule.finished`."""
        return self.decay_from is not None and step >= self.decay_from + self.length

    @property
    def settled(self) -> bool:
        """See `Schedule.settled`: once the rate falls."""
        return self.decay_from is not None

    def planned(self, step: int) -> int:
        """See `Schedule.planned`."""
        return (self.most if self.decay_from is None else self.decay_from) + self.length

    def observe(self, step: int, bound: float) -> None:
        """See `Schedule.observe`."""
        if step < self.ramp or self.decay_from is not None:
            return
        self.bounds = [*self.bounds, bound][-2 * self.window :]
        before, now = sum(self.bounds[: -self.window]), sum(self.bounds[-self.window :])
        rising = len(self.bounds) < 2 * self.window or now > before  # NaN does not rise
        if not rising or step >= self.most:
            self.decay_from = step

    def state(self) -> dict[str, Any]:
        """See `Schedule.state`."""
        return {"scale": self.scale, "bounds": self.bounds, "decay_from": self.decay_from}
