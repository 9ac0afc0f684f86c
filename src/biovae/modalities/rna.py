"""RNA: counts per gene."""

from collections.abc import Sequence
from typing import Literal

from biovae.likelihoods import Likelihood, NegativeBinomialCounts
from biovae.modalities.modality import Modality
from biovae.modalities.views import RootCounts, View
from biovae.nn import Body


def rna(  # noqa: PLR0913 - a user's door
    layer: str | None = None,
    *,
    name: str = "rna",
    mod: str | None = None,
    features: int | Literal["all"] | Sequence[str] = "all",
    likelihood: Likelihood | str = NegativeBinomialCounts(),  # noqa: B008 - frozen
    size_factor: str | None = None,
    library: Literal["observed", "latent"] = "observed",
    decoder: Body | str | None = None,
    encoder: Body | str | None = None,
    view: View | str = RootCounts(),  # noqa: B008 - frozen
    allow_values: bool = False,
) -> Modality:
    """Raw counts of RNA molecules, by default negative binomial given each observation's total.

    Args:
        layer: Key in `layers`; None takes `X` if it holds counts, else `layers["counts"]`, else `.raw`.
        name: What the modality is called.
        mod: Key in a MuData; None takes the modality called `name`, or the only one with counts.
        features: How many features to model (by variance of Pearson residuals), "all", or their names.
        likelihood: A recipe, or the kind of one: "poisson", "negative_binomial", "zero_inflated_negative_binomial",
            "log1p_gaussian".
        size_factor: Column of `obs` used as exposure instead of the sum over the modelled features.
        library: "latent" infers the library size instead of taking it as observed.
        decoder: Body of p(x | z): "mlp", "linear", "additive", or a recipe.
        encoder: Body of q(z | x).
        view: How the encoder sees counts.
        allow_values: Fit values that are not whole numbers; the data gate refuses them otherwise.
    """
    return Modality.model_validate(
        {
            "name": name,
            "mod": mod,
            "layer": layer,
            "features": features if isinstance(features, int | str) else tuple(features),
            "likelihood": likelihood,
            "size_factor": size_factor,
            "library": library,
            "decoder": decoder,
            "encoder": encoder,
            "view": view,
            "allow_values": allow_values,
        }
    )
