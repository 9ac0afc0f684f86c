"""A table of real numbers: normalised protein, log values, methylation M-values, any embedding."""

from collections.abc import Sequence
from typing import Literal

from biovae.likelihoods import Gaussian, Likelihood
from biovae.modalities.modality import Modality
from biovae.modalities.views import Standardised
from biovae.nn import Body


def continuous(  # noqa: PLR0913 - a user's door
    layer: str | None = None,
    *,
    name: str = "continuous",
    mod: str | None = None,
    obsm: str | None = None,
    features: int | Literal["all"] | Sequence[str] = "all",
    likelihood: Likelihood | str = Gaussian(),  # noqa: B008 - frozen
    decoder: Body | str | None = None,
    encoder: Body | str | None = None,
) -> Modality:
    """Real numbers, by default Gaussian with a learned variance per feature, scored in the units of the data.

    Args:
        layer: Key in `layers`; None takes `X`.
        name: What the modality is called.
        mod: Key in a MuData; None takes the modality called `name`, or the only one that fits.
        obsm: Key in `obsm`, instead of `X` or a layer.
        features: How many features to model (by variance), "all", or their names.
        likelihood: A recipe, or "gaussian" or "fixed_gaussian".
        decoder: Body of p(x | z): "mlp", "linear", "additive", or a recipe.
        encoder: Body of q(z | x).
    """
    return Modality.model_validate(
        {
            "name": name,
            "mod": mod,
            "layer": layer,
            "obsm": obsm,
            "features": features if isinstance(features, int | str) else tuple(features),
            "likelihood": likelihood,
            "view": Standardised(),
            "decoder": decoder,
            "encoder": encoder,
        }
    )
