"""One drawn set of weights of a last layer, and the decoder with them in place."""

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import NamedTuple

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor
from torch.nn.functional import linear

from biovae.nn import Readout

Decode = Callable[[Float[np.ndarray, "rows latent"]], Float[np.ndarray, "rows features"]]


class LastWeights(NamedTuple):
    """What is added to the weights of some outputs: those of h, of covariates, and the bias, in one row."""

    readout: Readout
    outputs: Int[Tensor, "outputs"]
    change: Float[Tensor, "outputs inputs"]

    @contextmanager
    def in_place(self) -> Iterator[None]:
        """Inside, the layer has the drawn weights."""
        weight, side, bias = self.readout.map.weight, self.readout.side, self.readout.map.bias
        kept = weight.data, side.data, bias.data
        by_h, by_c, shift = self.change.split([weight.shape[1], len(side), 1], 1)
        weight.data = kept[0].index_add(0, self.outputs, by_h)
        side.data = kept[1].index_add(1, self.outputs, by_c.T)
        bias.data = kept[2].index_add(0, self.outputs, shift[:, 0])
        try:
            yield
        finally:
            weight.data, side.data, bias.data = kept


def placed(drawn: LastWeights | None) -> AbstractContextManager[None]:
    """With drawn weights in place, or as fitted."""
    return nullcontext() if drawn is None else drawn.in_place()


def with_weights(decode: Decode, drawn: LastWeights | None) -> Decode:
    """The same decoder with drawn weights, or as fitted."""

    def other(z: np.ndarray) -> np.ndarray:
        with placed(drawn):
            return decode(z)

    return other


def slopes(
    readout: Readout, h: Float[Tensor, "..."], c: Float[Tensor, "rows covariates"], outputs: Int[Tensor, "outputs"]
) -> Float[Tensor, "each rows inputs"]:
    """d output / d (weights of h, of covariates, bias): one matrix for all outputs, or with groups one for each.

    The pooled output is logsumexp_g(h_g w), its slope the mean of h_g with weights softmax_g(h_g w).
    """
    if readout.groups:
        shares = linear(h, readout.map.weight[outputs]).softmax(1)
        h = torch.einsum("ngo,ngw->onw", shares, h)
    else:
        h = h.unsqueeze(0)
    return torch.cat([h, c.expand(len(h), *c.shape), h.new_ones(*h.shape[:2], 1)], -1)
