"""A recipe says how to build one part of a model, and is all of it that `config.json` stores.

Recipes are frozen pydantic records. Each kind of part (likelihood, prior, body, ...) is a closed tagged union: `kind`
names the class, the classes are listed in code, and a name found in a file is never imported. A user's own part is
accepted as an object, and loads again through `bv.load(path, parts=[MyPart])`.

To add a kind of part, see `docs/contributing` and any catalogue, for example `priors.py`.
"""

from typing import Any, Self

from pydantic import BaseModel, BeforeValidator, ConfigDict, ValidationInfo

from biovae.errors import ModelFileError, closest


class Recipe(BaseModel):
    """A frozen record; equal fields make equal recipes, unknown fields are refused."""

    model_config = ConfigDict(frozen=True, extra="forbid", arbitrary_types_allowed=False)

    def variant(self, **parts: Any) -> Self:
        """The same recipe with some parts replaced, checked as at construction; a model comes back not fitted."""
        return type(self)(**{name: getattr(self, name) for name in type(self).model_fields} | parts)


def tagged(base: type[Recipe], *known: type[Recipe]) -> BeforeValidator:
    """How a field of one catalogue is read: an instance of `base`, or the JSON of one of the `known` classes.

    A field has the type `Annotated[SerializeAsAny[base], tagged(base, *known)]`.

    Args:
        base: The abstract recipe of the catalogue.
        known: The recipes that biovae ships; each has a `kind` with a default.
    """
    table = {recipe.model_fields["kind"].default: recipe for recipe in known}

    def read(value: Any, info: ValidationInfo) -> Any:
        if isinstance(value, str) and value in table:
            return table[value]()  # the door: bv.rna(likelihood="poisson")
        if not isinstance(value, dict):
            return value
        parts = (info.context or {}).get("parts", ())
        names = table | {part.model_fields["kind"].default: part for part in parts if issubclass(part, base)}
        kind = value.get("kind")
        if kind not in names:
            raise ModelFileError(
                f"expected a {base.__name__} that biovae knows, found kind {kind!r}: {closest(str(kind), names)} "
                "Your own parts load with bv.load(path, parts=[MyPart])."
            )
        return names[kind].model_validate(value, context=info.context)

    return BeforeValidator(read)
