"""Views: how an encoder sees the values of a modality, well scaled.

    x         values of one minibatch          sparse counts, or (obs, features)
    exposure  total counts of each row         (obs, 1), None for data that have none
    y         what the encoder reads           sparse where x is, or (obs, features)

While training a view blurs what it shows: counts lose molecules, real numbers gain noise. The likelihood still scores
all of x, so that z must hold what can be told from a worse measurement of the same observation, and not its noise. At
prediction nothing is blurred. To add a view: write the recipe (a `View`) and its module, list it in `AnyView`, add a
row to COUNTS in tests/test_views.py.
"""

from abc import ABC, abstractmethod
from typing import Annotated, Any, Literal

import torch
from jaxtyping import Float
from pydantic import Field, SerializeAsAny
from torch import Tensor, nn

from biovae.batch import SparseCounts
from biovae.kernels import kernel_fits, run_kernel
from biovae.likelihoods import SCALE
from biovae.noise import Noise
from biovae.recipe import Recipe, tagged

BESIDE = 1.0  # blur of real numbers beside another modality, in standard deviations


class ViewModule(nn.Module, ABC):
    """From values to what an encoder reads."""

    @abstractmethod
    def forward(self, x: Any, exposure: Any, noise: Noise | None = None) -> SparseCounts | Tensor:
        """The features, (obs, features); with noise as in training, without it as at prediction."""

    @abstractmethod
    def start(self, x: Any, present: Tensor | None) -> None:
        """Look at some observations before training."""


class View(Recipe, ABC):
    """How an encoder sees x: a map from values to well-scaled features."""

    @abstractmethod
    def build(self, features: int, *, alone: bool = True) -> ViewModule:
        """Make the module; `alone` where the model has no other modality."""


class CountsView(View, ABC):
    """A transform of counts per 10,000 of exposure, or of counts as they are, thinned at random while training.

    Thinning keeps each molecule with a probability drawn per observation: the encoder sees the same observation at many
    depths and must find the same z. Depth has no place left in z, and no observation is learned by heart.

    Args:
        raw: Leave the counts as they are, so that the encoder sees depth.
        thin: The smallest share of the molecules that is kept, drawn from [thin, 1]; 1 keeps all.
    """

    raw: bool = False
    thin: float = Field(default=0.2, gt=0, le=1)

    def build(self, features: int, *, alone: bool = True) -> ViewModule:
        """See `View.build`."""
        return _CountsView(self)

    @abstractmethod
    def transform(self, value: Float[Tensor, "entries"]) -> Float[Tensor, "entries"]:
        """Of the non-zeros; zero must stay zero."""


class RootCounts(CountsView):
    """sqrt(x): the spread of a Poisson count is then the same at every mean, and low counts are not pressed together.

    Source: Bartlett 1936, J R Stat Soc Suppl 3:68, doi:10.2307/2983678.
    """

    kind: Literal["root_counts"] = "root_counts"

    def transform(self, value: Float[Tensor, "entries"]) -> Float[Tensor, "entries"]:
        """See `CountsView.transform`."""
        return value.sqrt()


class LogCounts(CountsView):
    """log(1 + x), the field's habit."""

    kind: Literal["log_counts"] = "log_counts"

    def transform(self, value: Float[Tensor, "entries"]) -> Float[Tensor, "entries"]:
        """See `CountsView.transform`."""
        return value.log1p()


class _CountsView(ViewModule):
    def __init__(self, recipe: CountsView) -> None:
        super().__init__()
        self.recipe = recipe

    def forward(self, x: SparseCounts, exposure: Tensor | None, noise: Noise | None = None) -> SparseCounts:
        kept = torch.ones(x.shape[0], device=x.value.device)
        if noise is not None and self.recipe.thin < 1:
            kept = self.recipe.thin + (1 - self.recipe.thin) * noise.uniform(x.shape[0])
            x = thinned(x, kept, noise)
        if self.recipe.raw or exposure is None:
            return x._replace(value=self.recipe.transform(x.value))
        return x._replace(value=self.recipe.transform(_times(x, SCALE / (exposure[:, 0] * kept))))

    def start(self, x: SparseCounts, present: Tensor | None) -> None:
        """Nothing to learn."""


def thinned(x: SparseCounts, kept: Float[Tensor, "obs"], noise: Noise) -> SparseCounts:
    """Each molecule of an observation stays with probability `kept`; what is not whole is scaled."""
    if kernel_fits(x.value, kept):
        from biovae.kernels.rows import thin

        return x._replace(value=torch.from_numpy(run_kernel(thin, x.row, x.value, kept, noise.word())))
    share, whole = kept[x.row], x.value.floor()
    stays = torch.binomial(whole, share, generator=noise.generator)
    return x._replace(value=stays.addcmul_(x.value - whole, share))


def _times(x: SparseCounts, factor: Float[Tensor, "obs"]) -> Float[Tensor, "entries"]:
    """The values, those of an observation multiplied by its factor."""
    if kernel_fits(x.value, factor):
        from biovae.kernels.rows import times

        return torch.from_numpy(run_kernel(times, x.row, x.value, factor))
    return x.value * factor[x.row]


class Standardised(View):
    """(x - mean) / standard deviation, per feature, of the training set; with Gaussian noise on top while training.

    Args:
        blur: Standard deviation of the noise, in those of the feature; 0 adds none. None adds 1 beside other modalities
            and none alone: beside them z should gain what can be told of the observation, not how each value erred.
    """

    kind: Literal["standardised"] = "standardised"
    blur: float | None = Field(default=None, ge=0)

    def build(self, features: int, *, alone: bool = True) -> ViewModule:
        """See `View.build`."""
        beside = 0.0 if alone else BESIDE
        return _Standardised(features, beside if self.blur is None else self.blur)


class _Standardised(ViewModule):
    mean: Tensor
    spread: Tensor

    def __init__(self, features: int, blur: float) -> None:
        super().__init__()
        self.blur = blur
        self.register_buffer("mean", torch.zeros(features))
        self.register_buffer("spread", torch.ones(features))

    def forward(self, x: Tensor, exposure: Tensor | None, noise: Noise | None = None) -> Float[Tensor, "obs features"]:
        y = (x - self.mean) / self.spread
        return y if noise is None or self.blur == 0 else y + self.blur * noise.normal(*y.shape)

    @torch.no_grad()
    def start(self, x: Tensor, present: Tensor | None) -> None:
        seen = x if present is None else x[present]
        spread = seen.std(0, correction=0)
        self.mean.copy_(seen.mean(0))
        self.spread.copy_(torch.where(spread > 1e-6 * (1 + seen.abs().amax(0)), spread, 1))


AnyView = Annotated[SerializeAsAny[View], tagged(View, RootCounts, LogCounts, Standardised)]
