"""What a model remembers of its data: the names of features and covariates, and nothing that identifies an observation.

The schema is stored in `config.json` beside the recipe. New data are mapped onto it by name.
"""

from enum import StrEnum

from pydantic import BaseModel, ConfigDict


class Support(StrEnum):
    """Which values a likelihood can have produced; all that the data gate needs to know of it."""

    COUNTS = "counts"  # 0, 1, 2, ...
    REALS = "reals"  # any finite number
    BINARY = "binary"  # 0 or 1
    CATEGORIES = "categories"  # 0 ... levels - 1, coded


class _Record(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class ModalitySchema(_Record):
    """One modality: its name, the features it models (in order), and the support of its values.

    Size factors are taken `scale` times, so that exposures speak of counts.
    """

    name: str
    features: tuple[str, ...]
    support: Support
    scale: float = 1.0


class CategoricalCovariate(_Record):
    """A column of `obs` with a fixed set of levels, one-hot in the design matrix."""

    name: str
    categories: tuple[str, ...]

    @property
    def width(self) -> int:
        """Columns in the design matrix."""
        return len(self.categories)


class ContinuousCovariate(_Record):
    """A numeric column of `obs`, standardised by the training mean and standard deviation."""

    name: str
    mean: float
    std: float

    @property
    def width(self) -> int:
        """Columns in the design matrix."""
        return 1


class Schema(_Record):
    """All that a model knows of the data it was fitted to, beside its weights."""

    modalities: tuple[ModalitySchema, ...]
    covariates: tuple[CategoricalCovariate | ContinuousCovariate, ...] = ()
    observations: int

    @property
    def width(self) -> int:
        """Columns of the design matrix."""
        return sum(c.width for c in self.covariates)
