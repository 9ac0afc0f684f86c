"""A mean that is given by its parts: counts per observation, and how they are shared out among the features.

    logits      (*samples, obs, features)
    exposure    (*samples, obs, 1)
    log mean    log exposure + log softmax(logits), or log exposure + logits where the features are not shares

Kept apart so that a likelihood may take linear map, softmax, score and gradient in one pass over its rows.
"""

from functools import cached_property
from typing import NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn.functional import linear

from biovae.batch import SparseCounts


class Affine(NamedTuple):
    """Logits that are still to be written out: h W' + b."""

    h: Float[Tensor, "*samples obs hidden"]
    weight: Float[Tensor, "features hidden"]
    bias: Float[Tensor, "features"]


class Composition:
    """Means as shares of an exposure.

    Args:
        logits: One per feature, or the linear map that gives them.
        exposure: Total of each row.
        share: Whether the means of a row sum to its exposure; else each is exposure times exp(logit).
    """

    def __init__(
        self,
        logits: Float[Tensor, "*samples obs features"] | Affine,
        exposure: Float[Tensor, "... 1"],
        *,
        share: bool = True,
    ) -> None:
        self.given, self.exposure, self.share = logits, exposure, share

    @cached_property
    def logits(self) -> Float[Tensor, "*samples obs features"]:
        """Written out."""
        return linear(*self.given) if isinstance(self.given, Affine) else self.given

    @property
    def tensors(self) -> tuple[Tensor, ...]:
        """What was given."""
        return (*(self.given if isinstance(self.given, Affine) else (self.given,)), self.exposure)

    @property
    def rows(self) -> torch.Size:
        """(*samples, obs, features) of the logits."""
        if isinstance(self.given, Affine):
            return torch.Size((*self.given.h.shape[:-1], len(self.given.bias)))
        return self.given.shape

    @property
    def shape(self) -> torch.Size:
        """(*samples, obs, features)."""
        return torch.broadcast_shapes(self.rows, self.exposure.shape)

    @cached_property
    def log_mean(self) -> Float[Tensor, "*samples obs features"]:
        """Written out."""
        return self.exposure.log() + (self.logits.log_softmax(-1) if self.share else self.logits)


def plainly_shaped(mean: Composition, log_r: Float[Tensor, "..."], x: SparseCounts) -> bool:
    """Whether there is a logit for every entry of x, an exposure per row, and one dispersion per feature."""
    whole = mean.rows[-2:] == x.shape and mean.exposure.dim() <= len(mean.rows)
    return whole and log_r.numel() == log_r.shape[-1] == x.shape[1]


def written(log_mean: Float[Tensor, "..."] | Composition) -> Float[Tensor, "..."]:
    """A log mean written out, whichever way it was given."""
    return log_mean.log_mean if isinstance(log_mean, Composition) else log_mean
