"""Weights of a decoder that can be read: what each latent dimension adds to each feature, without decoding anything.

Linear decoders have them as they stand; additive ones as the curve of each dimension, told by its two ends. Others have
none, and are asked by derivatives (`bv.tl.dimensions`).
"""

import numpy as np
import pandas as pd
import torch
from jaxtyping import Float
from torch import Tensor, nn

from biovae.model.design import averaged_rows
from biovae.model.fitting import Fitted
from biovae.model.recipe import Architecture
from biovae.nn import MLP, Additive, Linear, Readout

ENDS = {"-": 0.05, "+": 0.95}  # quantiles of z_d at which the curve of an additive decoder is told


@torch.no_grad()
def loadings(
    recipe: Architecture, fitted: Fitted, z: Float[np.ndarray, "obs latent"], m: int = 0
) -> pd.DataFrame | None:
    """Features x dimensions: W of a linear decoder, or what an additive one adds at the ends of each dimension.

    Linear: `log mean = log softmax(W z + b)`, columns 0, 1, ... Of shares only differences between features mean
    anything: a constant added to a column changes no mean. Additive: `W [h_d(end) - h_d(0)]` with the end at the 5 %
    quantile of z_d (column "0-") and at its 95 % quantile ("0+"), the other dimensions of a group at 0; the groups'
    contributions are pooled by logsumexp, so that a group counts where it is the largest.

    Args:
        recipe: The model.
        fitted: Its fit.
        z: Posterior means, for the ends.
        m: The modality.

    Returns:
        None where the decoder has hidden layers that mix dimensions, or several outputs per feature.

    Source: Svensson et al. 2020, doi:10.1093/bioinformatics/btaa169; Moinfar and Theis 2024,
    doi:10.1101/2024.11.06.622266.
    """
    body = recipe.modalities[m].decoder or MLP(depth=recipe.depth)
    part, features = fitted.network.eval().parts[m], list(fitted.schema.modalities[m].features)
    readout = _readout(part.likelihood)
    if readout is None or readout.map.out_features != len(features):
        return None
    if isinstance(body, Linear) or (isinstance(body, MLP) and body.depth == 0):
        return pd.DataFrame(readout.map.weight.numpy(), index=features, columns=map(str, range(recipe.latent)))
    if not isinstance(body, Additive):
        return None
    c = averaged_rows(fitted.schema).mean(0, keepdim=True)[:, fitted.network.into_decoder]
    columns = {}
    for d in range(recipe.latent):
        group = d * part.decoder.groups // recipe.latent
        for sign, quantile in ENDS.items():
            ends = torch.zeros(2, recipe.latent)
            ends[1, d] = float(np.quantile(z[:, d], quantile))
            h = part.decoder(ends, c.expand(2, -1))[:, group]
            columns[f"{d}{sign}"] = _added(readout, h)
    return pd.DataFrame(columns, index=features)


def _added(readout: Readout, h: Float[Tensor, "two hidden"]) -> Float[np.ndarray, "features"]:
    return (readout.map.weight @ (h[1] - h[0])).numpy()


def _readout(likelihood: nn.Module) -> Readout | None:
    """The last linear map of the mean, wherever the likelihood keeps it."""
    for owner in (getattr(likelihood, "log_mean", None), likelihood):
        found = getattr(owner, "readout", None)
        if isinstance(found, Readout):
            return found
    return None
