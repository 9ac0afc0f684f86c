"""A modality: where its values live, how its encoder sees them, and the likelihood that scores them.

Every kind of measurement is one `Modality` record made by a constructor (`bv.rna`, `bv.continuous`, ...): a choice of
parts. Nothing above this floor knows counts, genes or cells.
"""

from typing import Literal

from pydantic import PositiveInt

from biovae.errors import InputError
from biovae.likelihoods import AnyLikelihood
from biovae.modalities.views import AnyView, CountsView, Standardised
from biovae.nn import AnyBody
from biovae.recipe import Recipe
from biovae.schema import Support
from biovae.source import Source


class Modality(Recipe):
    """One kind of measurement of every observation, and the parts that model it.

    Args:
        name: What the modality is called in schemas, reports and verbs.
        mod: Key of the modality in a MuData.
        layer: Key in `layers`; None looks for the right values (see `data.locate`).
        obsm: Key in `obsm`, instead of `X` or a layer.
        size_factor: Column of `obs` used as exposure; None takes the sum over the modelled features.
        features: How many features to model, "all", or their names.
        library: "observed" takes the exposure as given, "latent" infers it with a posterior and prior of its own.
        likelihood: p(x | h).
        view: How the encoder sees x.
        encoder: Body of q(z | x); None takes the model's `hidden`, `depth` and `dropout`.
        decoder: Body of p(x | z); None takes the model's `hidden` and `depth`.
        allow_values: Fit values that the likelihood cannot have produced (the override by name of the data gate).
    """

    name: str
    mod: str | None = None
    layer: str | None = None
    obsm: str | None = None
    size_factor: str | None = None
    features: PositiveInt | Literal["all"] | tuple[str, ...] = "all"
    library: Literal["observed", "latent"] = "observed"
    likelihood: AnyLikelihood
    view: AnyView
    encoder: AnyBody | None = None
    decoder: AnyBody | None = None
    allow_values: bool = False

    @property
    def source(self) -> Source:
        """What the data wing needs to know.

        Raises:
            InputError: The likelihood scores other values than the encoder sees.
        """
        counted = self.likelihood.support in (Support.COUNTS, Support.BINARY)
        if isinstance(self.view, Standardised if counted else CountsView):
            wanted = "real numbers" if counted else "counts"
            advice = "bv.rna(), --modality rna" if counted else "bv.continuous(), --modality continuous"
            raise InputError(
                f"expected a likelihood of {wanted} for {self.name!r}, found {self.likelihood.model_dump()['kind']!r}, "
                f"which scores {self.likelihood.support}: take another likelihood, or another modality ({advice})."
            )
        return Source(
            name=self.name,
            support=self.likelihood.support,
            mod=self.mod,
            layer=self.layer,
            obsm=self.obsm,
            exposure=self.likelihood.support is Support.COUNTS,
            size_factor=self.size_factor,
            allow_values=self.allow_values,
        )
