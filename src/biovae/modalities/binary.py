"""Zeros and ones: a peak that is open or not, a mark that is there or not."""

from typing import Literal

from biovae.likelihoods import BernoulliBinary
from biovae.modalities.modality import Modality
from biovae.modalities.views import RootCounts


def binary(
    layer: str | None = None,
    *,
    name: str = "binary",
    mod: str | None = None,
    features: int | Literal["all"] = "all",
) -> Modality:
    """Zeros and ones, Bernoulli per feature.

    Args:
        layer: Key in `layers`; None takes `X`.
        name: What the modality is called.
        mod: Key in a MuData; None takes the modality called `name`, or the only one that fits.
        features: How many features to model, or "all".
    """
    return Modality(
        name=name, mod=mod, layer=layer, features=features, likelihood=BernoulliBinary(), view=RootCounts(raw=True)
    )
