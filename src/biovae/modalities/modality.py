"""A modality: where its values live, how its encoder sees them, and the likelihood that scores them.

Every kind of measurement is one `Modality` record made by a constructor (`bv.rna`, `bv.continuous`, ...): a choice of
parts. Nothing above this floor knows counts, genes or cells.
"""

from abc import ABC, abstractmethod
from typing import Annotated, Any, Literal

import torch
from jaxtyping import Float
from pydantic import Field, PositiveInt, SerializeAsAny
from torch import Tensor, nn

from biovae.batch import SparseCounts
from biovae.data.source import Source
from biovae.likelihoods import SCALE, AnyLikelihood
from biovae.nn import AnyBody
from biovae.noise import Noise
from biovae.recipe import Recipe, tagged
from biovae.schema import Support


class ViewModule(nn.Module, ABC):
    """From values to what an encoder reads."""

    @abstractmethod
    def forward(self, x: Any, exposure: Any, noise: Noise | None = None) -> Tensor:
        """Dense features, (obs, features); with noise as in training, without it as at prediction."""

    @abstractmethod
    def start(self, x: Any, present: Tensor | None) -> None:
        """Look at some observations before training."""


class View(Recipe, ABC):
    """How an encoder sees x: a map from values to dense, well-scaled features."""

    @abstractmethod
    def build(self, features: int) -> ViewModule:
        """Make the module."""


class LogCounts(View):
    """log1p of counts, per 10,000 of exposure or as they are, thinned at random while training.

    Thinning keeps each molecule with a probability drawn per observation: the encoder sees the same observation at many
    depths and must find the same z. Depth has no place left in z, and no observation is learned by heart.

    Args:
        raw: Leave the counts as they are, so that the encoder sees depth.
        thin: The smallest share of the molecules that is kept, drawn from [thin, 1]; 1 keeps all.
    """

    kind: Literal["log_counts"] = "log_counts"
    raw: bool = False
    thin: float = Field(default=0.2, gt=0, le=1)

    def build(self, features: int) -> ViewModule:
        """See `View.build`."""
        return _LogCounts(self.thin, raw=self.raw)


class _LogCounts(ViewModule):
    def __init__(self, thin: float, *, raw: bool) -> None:
        super().__init__()
        self.thin, self.raw = thin, raw

    def forward(self, x: SparseCounts, exposure: Tensor | None, noise: Noise | None = None) -> Tensor:
        kept = torch.ones(x.shape[0], device=x.value.device)
        if noise is not None and self.thin < 1:
            kept = self.thin + (1 - self.thin) * noise.uniform(x.shape[0])
            x = thinned(x, kept, noise)
        if self.raw or exposure is None:
            return x.dense(x.value.log1p())
        return x.dense(torch.log1p(x.value * (SCALE / (exposure[:, 0] * kept))[x.row]))

    def start(self, x: SparseCounts, present: Tensor | None) -> None:
        """Nothing to learn."""


def thinned(x: SparseCounts, kept: Float[Tensor, "obs"], noise: Noise) -> SparseCounts:
    """Each molecule of an observation stays with probability `kept`; what is not whole is scaled."""
    share, whole = kept[x.row], x.value.floor()
    return x._replace(value=torch.binomial(whole, share, generator=noise.generator) + (x.value - whole) * share)


class Standardised(View):
    """(x - mean) / standard deviation, per feature, of the training set."""

    kind: Literal["standardised"] = "standardised"

    def build(self, features: int) -> ViewModule:
        """See `View.build`."""
        return _Standardised(features)


class _Standardised(ViewModule):
    mean: Tensor
    spread: Tensor

    def __init__(self, features: int) -> None:
        super().__init__()
        self.register_buffer("mean", torch.zeros(features))
        self.register_buffer("spread", torch.ones(features))

    def forward(self, x: Tensor, exposure: Tensor | None, noise: Noise | None = None) -> Float[Tensor, "obs features"]:
        return (x - self.mean) / self.spread

    @torch.no_grad()
    def start(self, x: Tensor, present: Tensor | None) -> None:
        seen = x if present is None else x[present]
        spread = seen.std(0, correction=0)
        self.mean.copy_(seen.mean(0))
        self.spread.copy_(torch.where(spread > 1e-6 * (1 + seen.abs().amax(0)), spread, 1))


AnyView = Annotated[SerializeAsAny[View], tagged(View, LogCounts, Standardised)]


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
        """What the data wing needs to know."""
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
