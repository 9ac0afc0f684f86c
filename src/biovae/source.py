"""A source: where one modality lives in an AnnData or MuData, and which values it may hold.

It is all that the data wing knows of a modality: the rest of the recipe belongs to the mathematics.
"""

from pydantic import model_validator

from biovae.errors import InputError
from biovae.recipe import Recipe
from biovae.schema import Support


class Source(Recipe):
    """One modality as the data wing sees it.

    Args:
        name: The modality's name in the model.
        support: Which values its likelihood can have produced.
        mod: The modality of a MuData; found by name or by its values where it is not given.
        layer: A key of `layers`; `X` where it is not given.
        obsm: A key of `obsm`, instead of `X` and `layers`.
        exposure: Whether the mean is proportional to an exposure (the sum over the modelled features).
        size_factor: A column of `obs` to take the exposure from instead.
        allow_values: Accept values that are not whole; they must still be finite and, for counts, not negative.
    """

    name: str
    support: Support
    mod: str | None = None
    layer: str | None = None
    obsm: str | None = None
    exposure: bool = False
    size_factor: str | None = None
    allow_values: bool = False

    @model_validator(mode="after")
    def _one_place(self) -> "Source":
        if self.layer is not None and self.obsm is not None:
            raise InputError(
                f"expected a layer or an obsm key for modality {self.name!r}, "
                f"found layer={self.layer!r} and obsm={self.obsm!r}: give one of them."
            )
        return self
