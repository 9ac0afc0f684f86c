"""What to simulate: four small records, and named scenarios made of them.

    States       which states a cell can be in, and where they lie on the map
    Programmes   how genes answer to the place of a cell on the map
    Technical    what the measurement does that a count model with covariates can describe
    Violations   what the measurement does that such a model does not assume

To add a scenario, write one more constant at the end; every field that is not named keeps its default.
"""

from collections.abc import Mapping
from typing import Any, Literal, Self

from pydantic import Field, model_validator

from biovae.recipe import Recipe

Changes = Mapping[str, Any]  # fields of one record


class States(Recipe):
    """Where cells can be.

    Attributes:
        types: Number of discrete cell types.
        branches: Lineages that leave the progenitor, or 0 for no trajectory.
        gap: Stretch `type 1` and `type 2` towards each other, and forbid the middle of the way.
        bridge: Join the last two types by intermediate cells. `"unsampled"` leaves these out of the data although the
            biology has them: from the cells alone it looks like a gap.
        unevenness: The k-th state has a share proportional to k ** -unevenness; 0 makes all equal.
        spread: Standard deviation of a cell around its state, on a map where types are 4 apart; never beyond 3 of it.
        mirrored: Turn the map upside down. All gradients rise upwards, so that a gap and a bridge differ by their place
            alone; where every second simulation is mirrored, with `unevenness=0`, only the truth tells them apart.
    """

    types: int = Field(default=5, ge=0, le=100)
    branches: int = Field(default=0, ge=0, le=6)
    gap: bool = False
    bridge: Literal["absent", "sampled", "unsampled"] = "absent"
    unevenness: float = Field(default=0.5, ge=0)
    spread: float = Field(default=0.2, ge=0, le=0.3)
    mirrored: bool = False

    @model_validator(mode="after")
    def _possible(self) -> Self:
        ends = 2 * self.gap + 2 * (self.bridge != "absent")
        if self.types < ends:
            raise ValueError(f"expected at least {ends} types, 2 for a gap and 2 for a bridge, found {self.types}.")
        if self.types + self.branches == 0:
            raise ValueError("expected a type or a branch, found neither: give types or branches.")
        return self


class Programmes(Recipe):
    """How genes answer.

    Attributes:
        markers: Share of genes that take part in one programme.
        strength: Mean log fold change of a marker where its programme is fully on; 0 makes all cells alike.
        gradients: Programmes that vary along a direction of the map, beside the one of each state.
        tail: Standard deviation of the log mean of genes: 1.5 spans a thousandfold over 98 % of the genes.
        dispersion: Median of the dispersion d of genes, where variance = mean + d mean^2; 0 is Poisson.
        dispersion_spread: Standard deviation of log d over genes.
    """

    markers: float = Field(default=0.05, gt=0, le=1)
    strength: float = Field(default=1.5, ge=0)
    gradients: int = Field(default=6, ge=0)
    tail: float = Field(default=1.5, ge=0)
    dispersion: float = Field(default=0.2, ge=0)
    dispersion_spread: float = Field(default=0.5, ge=0)


class Technical(Recipe):
    """What a measurement does, and a count model with covariates can describe.

    Attributes:
        batches: Number of batches, of equal size.
        batch_effect: Standard deviation of the log factor of each gene in each batch.
        library: Median of the expected total count per cell.
        library_spread: Standard deviation of the log of it.
        depths: Factor on the library size of each batch; empty for none.
        dropout: Mean count at which half of the entries are set to zero; 0 for none.
    """

    batches: int = Field(default=2, ge=1)
    batch_effect: float = Field(default=0.2, ge=0)
    library: float = Field(default=4000.0, gt=0)
    library_spread: float = Field(default=0.35, ge=0)
    depths: tuple[float, ...] = ()
    dropout: float = Field(default=0.0, ge=0)

    @model_validator(mode="after")
    def _one_depth_per_batch(self) -> Self:
        if self.depths and len(self.depths) != self.batches:
            raise ValueError(f"expected one depth for each of {self.batches} batches, found {len(self.depths)}.")
        if any(depth <= 0 for depth in self.depths):
            raise ValueError(f"expected depths above 0, found {min(self.depths)}.")
        return self


class Violations(Recipe):
    """What a measurement does, and a VAE does not assume.

    Attributes:
        correlation: Standard deviation of log expression that genes share beyond the map.
        rank: Hidden factors that carry it, drawn afresh for each cell.
        ambient: Mean share of a cell's counts that come from the soup of its batch.
        doublets: Share of droplets with two cells.
        outlier_cells: Share of cells whose composition is flattened to its square root, as in broken cells.
        outlier_genes: Share of genes with a mean far above the rest, by a log factor of 4 +- 0.5.
    """

    correlation: float = Field(default=0.0, ge=0)
    rank: int = Field(default=5, ge=1)
    ambient: float = Field(default=0.0, ge=0, lt=1)
    doublets: float = Field(default=0.0, ge=0, le=0.5)
    outlier_cells: float = Field(default=0.0, ge=0, le=0.5)
    outlier_genes: float = Field(default=0.0, ge=0, lt=1)


class Scenario(Recipe):
    """All that `simulate` needs beside a size and a seed."""

    states: States = States()
    programmes: Programmes = Programmes()
    technical: Technical = Technical()
    violations: Violations = Violations()

    def but(
        self,
        *,
        states: Changes | None = None,
        programmes: Changes | None = None,
        technical: Changes | None = None,
        violations: Changes | None = None,
    ) -> "Scenario":
        """The same scenario with some fields of its records changed.

        >>> TYPES.but(technical={"dropout": 0.3}).technical.dropout
        0.3
        """
        changes = {"states": states, "programmes": programmes, "technical": technical, "violations": violations}
        whole = self.model_dump()
        return Scenario.model_validate({part: whole[part] | dict(changes[part] or {}) for part in whole})


#: Five separate types in two batches.
TYPES = Scenario()

#: No structure at all: what a method finds here, it made up.
NOTHING = Scenario(programmes=Programmes(strength=0.0))

#: A progenitor and three lineages, without discrete types.
TRAJECTORY = Scenario(states=States(types=0, branches=3))

#: A forbidden gap, and a way between two other types that is populated and merely unsampled.
GAP_AND_BRIDGE = Scenario(states=States(types=4, gap=True, bridge="unsampled"))

#: Everything that goes wrong in a droplet experiment.
MESSY = Scenario(
    states=States(types=6, branches=2, gap=True, bridge="sampled"),
    technical=Technical(batches=3, batch_effect=0.3, depths=(1.0, 0.6, 1.5), dropout=0.2),
    violations=Violations(correlation=0.3, ambient=0.1, doublets=0.06, outlier_cells=0.01, outlier_genes=0.01),
)

#: The scenario of `biovae demo`.
DEMO = Scenario(
    states=States(types=4, branches=2, gap=True, unevenness=0.4),
    technical=Technical(library=2000.0, depths=(1.0, 0.7), dropout=0.05),
)
