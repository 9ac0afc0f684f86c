"""Bodies: the layers between data and a posterior, and between z and a likelihood.

    x  input      (*samples, obs, inputs)
    c  covariates (obs, covariates), added to every linear layer of a body that was given them
    h  output     (*samples, obs, hidden), or (*samples, obs, groups, hidden) from an additive body

A body is a recipe with `build(inputs, covariates, noise) -> nn.Module`; the module has `width` and `groups` (0 when its
output has no groups axis), and `passed`. To add one: subclass `Body`, list it in `BODIES`, add a row to CASES in
tests/test_nn.py.
"""

import math
from abc import ABC, abstractmethod
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Annotated, Any, Literal

import numpy as np
import torch
from jaxtyping import Bool, Float
from pydantic import Field, SerializeAsAny
from torch import Tensor, nn
from torch.autograd.function import once_differentiable
from torch.nn import functional

from biovae.batch import SparseCounts, dense
from biovae.kernels import kernel_fits, run_kernel
from biovae.noise import Noise
from biovae.recipe import Recipe, tagged

EPS = 1e-3  # under the root of a variance
SPARSE = 0.2  # share of non-zeros below which a sparse first layer is faster (LOG.md, 2026-11-25)


class _Blank(nn.Linear):
    """A linear layer whose weights are still to be set."""

    def reset_parameters(self) -> None:
        """Draw nothing: the global generator is nobody's."""


def linear(inputs: int, outputs: int, noise: Noise, *, bias: bool = True) -> nn.Linear:
    """A linear layer whose start is torch's default, drawn from `noise` instead of the global generator."""
    layer = _Blank(inputs, outputs, bias=bias)
    bound = 1 / math.sqrt(max(inputs, 1))
    with torch.no_grad():
        for weight in layer.parameters():
            weight.copy_((2 * noise.uniform(*weight.shape) - 1) * bound)
    return layer


class FirstLinear(nn.Module):
    """A linear layer that takes sparse input: where that is faster, only the weights of its entries are touched.

    In memory the weights of an input are neighbours, (inputs, outputs); in a state they are as torch has them, turned.
    """

    def __init__(self, layer: nn.Linear) -> None:
        super().__init__()
        self.weight = nn.Parameter(layer.weight.detach().T.contiguous())
        self.bias = layer.bias
        self.register_state_dict_post_hook(_turn_weight)
        self.register_load_state_dict_pre_hook(_turn_weight)

    def forward(self, x: SparseCounts | Float[Tensor, "*samples obs inputs"]) -> Float[Tensor, "*samples obs width"]:
        """x W + b."""
        if isinstance(x, SparseCounts):
            if len(x.value) < SPARSE * x.shape[0] * x.shape[1] and kernel_fits(x.value, self.weight):
                return _SparseLinear.apply(x, self.weight, self.bias)
            x = x.dense()
        return functional.linear(x, self.weight.T, self.bias)


def _turn_weight(_: nn.Module, state: dict[str, Tensor], prefix: str, *__: Any) -> None:
    if prefix + "weight" in state:
        state[prefix + "weight"] = state[prefix + "weight"].T


class _SparseLinear(torch.autograd.Function):
    """x W + b of a sparse x that needs no gradient."""

    @staticmethod
    def forward(ctx: Any, x: SparseCounts, weight: Tensor, bias: Tensor) -> Tensor:
        from biovae.kernels.linear import forward

        ctx.save_for_backward(x.row, x.column, x.value)
        ctx.features = x.shape[1]
        return torch.from_numpy(run_kernel(forward, x.row, x.column, x.value, weight, bias, x.shape[0]))

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[None, Tensor, Tensor]:
        from biovae.kernels.linear import weight_gradient

        found = run_kernel(weight_gradient, *ctx.saved_tensors, grad.contiguous(), ctx.features)
        return None, torch.from_numpy(found), grad.sum(0)


def dropout(x: Float[Tensor, "..."], rate: float, noise: Noise | None) -> Float[Tensor, "..."]:
    """Zero a share `rate` of the entries and scale the rest; nothing without noise."""
    if noise is None or rate == 0:
        return x
    return x * noise.uniform(*x.shape).ge_(rate).div_(1 - rate)


class BatchNorm(nn.Module):
    """Batch normalisation over the observations that are present, with running statistics when fewer than two are.

    Source: Ioffe and Szegedy 2015, ICML, arXiv:1502.03167.
    """

    mean: Tensor
    variance: Tensor

    def __init__(self, width: int, momentum: float = 0.1) -> None:
        super().__init__()
        self.momentum = momentum
        self.scale = nn.Parameter(torch.ones(width))
        self.shift = nn.Parameter(torch.zeros(width))
        self.register_buffer("mean", torch.zeros(width))
        self.register_buffer("variance", torch.ones(width))

    def forward(
        self, x: Float[Tensor, "*samples obs width"], present: Bool[Tensor, "obs"] | None = None
    ) -> Float[Tensor, "*samples obs width"]:
        """Standardise each column, then scale and shift it."""
        seen = x if present is None else x[..., present, :]
        if not self.learns(seen):
            return self._standardise(x, training=False)
        if present is None:
            return self._standardise(x, training=True)
        out = torch.zeros_like(x)
        out[..., present, :] = self._standardise(seen, training=True)
        return out

    def learns(self, seen: Float[Tensor, "*samples obs width"]) -> bool:
        """Whether the statistics are those of these observations."""
        return self.training and math.prod(seen.shape[:-1]) > 1

    def _standardise(self, x: Tensor, *, training: bool) -> Tensor:
        flat = x.reshape(-1, x.shape[-1])
        args = (self.mean, self.variance, self.scale, self.shift, training, self.momentum, EPS)
        return functional.batch_norm(flat, *args).view(x.shape)


class _Hidden(torch.autograd.Function):
    """What dropout leaves of the rectified a, standardised by its own statistics: see `kernels.hidden`."""

    @staticmethod
    def forward(  # noqa: PLR0913
        ctx: Any, a: Tensor, scale: Tensor, shift: Tensor, norm: BatchNorm, rate: float, noise: Noise | None
    ) -> Tensor:
        from biovae.kernels.hidden import forward

        flat, word = a.reshape(-1, a.shape[-1]).contiguous(), np.uint64(0) if noise is None else noise.word()
        running = (norm.mean.numpy(), norm.variance.numpy())
        given = (flat, scale, shift, running, norm.momentum, EPS, np.float32(rate), word)
        found = run_kernel(forward, *given)
        y, mean, inverse = map(torch.from_numpy, found)
        ctx.save_for_backward(y, flat, scale, mean, inverse)
        ctx.rate = rate
        return y.view(a.shape)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        from biovae.kernels.hidden import backward

        flat = grad.reshape(-1, grad.shape[-1]).contiguous()
        found = run_kernel(backward, flat, *ctx.saved_tensors, np.float32(ctx.rate))
        in_a, in_scale, in_shift = map(torch.from_numpy, found)
        return in_a.view(grad.shape), in_scale, in_shift, None, None, None


@contextmanager
def running_statistics(module: nn.Module) -> Iterator[None]:
    """Inside, normalisation layers use what they have learned and learn nothing: for inputs that are not data."""
    layers = [m for m in module.modules() if isinstance(m, BatchNorm)]
    before = [layer.training for layer in layers]
    for layer in layers:
        layer.training = False
    try:
        yield
    finally:
        for layer, training in zip(layers, before, strict=True):
            layer.training = training


class BodyModule(nn.Module):
    """What a body builds.

    Attributes:
        width: How wide its output is.
        groups: How many groups it has, 0 for none.
        passed: How many of the last columns of its output are its input as it was.
    """

    width: int
    groups: int
    passed: int = 0


class Body(Recipe, ABC):
    """A recipe for a network from one vector to another, with covariates at its side."""

    @abstractmethod
    def build(self, inputs: int, covariates: int, noise: Noise) -> BodyModule:
        """Make the module; `forward(x, c, noise=None, present=None)`, attributes `width` and `groups`."""


Norm = Literal["batch", "layer", "none"]


class MLP(Body):
    """Linear, norm, ReLU, dropout, `depth` times; covariates enter every linear layer.

    Args:
        hidden: Width of every layer.
        depth: Number of layers; 0 passes the input through.
        dropout: Share of hidden units left out while training.
        norm: "batch" (statistics of the observations present), "layer", or "none".
        skip: Pass the input on beside the last layer's output: what a straight line can say needs no hidden unit.

    Source: Dieng et al. 2019, AISTATS 89:2397, arXiv:1807.04863, for the skip.
    """

    kind: Literal["mlp"] = "mlp"
    hidden: int = Field(default=128, ge=1)
    depth: int = Field(default=1, ge=0)
    dropout: float = Field(default=0.1, ge=0, lt=1)
    norm: Norm = "batch"
    skip: bool = False

    def build(self, inputs: int, covariates: int, noise: Noise) -> BodyModule:
        """See `Body.build`."""
        return _MLP(self, inputs, covariates, noise)


class _MLP(BodyModule):
    def __init__(self, recipe: MLP, inputs: int, covariates: int, noise: Noise) -> None:
        super().__init__()
        widths = [inputs] + [recipe.hidden] * recipe.depth
        self.passed = inputs if recipe.skip and recipe.depth else 0
        self.groups, self.width = 0, widths[-1] + self.passed
        self.rate = recipe.dropout
        layers = [linear(a, b, noise) for a, b in zip(widths, widths[1:], strict=False)]
        self.layers = nn.ModuleList(layer if i else FirstLinear(layer) for i, layer in enumerate(layers))
        self.norms = nn.ModuleList(_norm(recipe.norm, b) for b in widths[1:])
        self.sides = nn.ModuleList(linear(covariates, b, noise, bias=False) for b in widths[1:] if covariates)

    def forward(
        self, x: SparseCounts | Tensor, c: Tensor, noise: Noise | None = None, present: Tensor | None = None
    ) -> Float[Tensor, "*samples obs width"]:
        h = x
        for i, (layer, norm) in enumerate(zip(self.layers, self.norms, strict=True)):
            a = layer(h) + self.sides[i](c) if self.sides else layer(h)
            h = self._activated(a, norm, noise, present)
        return torch.cat([dense(h), dense(x)], -1) if self.passed else dense(h)

    def _activated(self, a: Tensor, norm: nn.Module, noise: Noise | None, present: Tensor | None) -> Tensor:
        if isinstance(norm, BatchNorm) and present is None and norm.learns(a) and kernel_fits(a, norm.scale):
            return _Hidden.apply(a, norm.scale, norm.shift, norm, 0.0 if noise is None else self.rate, noise)
        a = norm(a, present) if isinstance(norm, BatchNorm) else norm(a)
        return dropout(torch.relu(a), self.rate, noise)


def _norm(name: Norm, width: int) -> nn.Module:
    if name == "batch":
        return BatchNorm(width)
    return nn.LayerNorm(width) if name == "layer" else nn.Identity()


class Linear(Body):
    """The identity: the likelihood's own linear map is then the whole decoder, and its weights are loadings.

    Source: Svensson et al. 2020, Bioinformatics 36:3418, doi:10.1093/bioinformatics/btaa169.
    """

    kind: Literal["linear"] = "linear"

    def build(self, inputs: int, covariates: int, noise: Noise) -> BodyModule:
        """See `Body.build`."""
        return _MLP(MLP(depth=0), inputs, covariates, noise)


class Additive(Body):
    """One sub-decoder per group of latent dimensions; the likelihood pools the groups after its last layer.

    Args:
        groups: Number of groups; None gives every latent dimension its own. Must divide the latent size.
        hidden: Width of each sub-decoder.

    Source: Moinfar and Theis 2024, bioRxiv, doi:10.1101/2024.11.06.622266.
    """

    kind: Literal["additive"] = "additive"
    groups: int | None = Field(default=None, ge=1)
    hidden: int = Field(default=64, ge=1)

    def build(self, inputs: int, covariates: int, noise: Noise) -> BodyModule:
        """See `Body.build`."""
        groups = self.groups or inputs
        if inputs % groups:
            raise ValueError(f"expected groups to divide the {inputs} latent dimensions, found groups={groups}.")
        return _Additive(groups, inputs // groups, self.hidden, covariates, noise)


class _Additive(BodyModule):
    def __init__(self, groups: int, inputs: int, hidden: int, covariates: int, noise: Noise) -> None:
        super().__init__()
        self.groups, self.width = groups, hidden
        # z is standard normal: weights of unit scale put the kinks of the ReLUs where the data are.
        self.weight = nn.Parameter(noise.normal(groups, inputs, hidden) / math.sqrt(inputs))
        self.bias = nn.Parameter(noise.normal(groups, hidden))
        self.side = linear(covariates, hidden, noise, bias=False) if covariates else None

    def forward(
        self, x: SparseCounts | Tensor, c: Tensor, noise: Noise | None = None, present: Tensor | None = None
    ) -> Float[Tensor, "*samples obs groups width"]:
        x = dense(x).unflatten(-1, (self.groups, -1))
        h = torch.einsum("...gi,gih->...gh", x, self.weight) + self.bias
        return torch.relu(h if self.side is None else h + self.side(c).unsqueeze(-2))


BODIES = (MLP, Linear, Additive)
AnyBody = Annotated[SerializeAsAny[Body], tagged(Body, *BODIES)]


class Readout(nn.Module):
    """The last linear map of a likelihood, with covariates, pooled over groups where h has them.

    Without groups `W h + V c + b`. With groups `logsumexp_g(W h_g) + V c + b - log G`: the pooled sum is streamed over
    the groups and computed again in the backward pass, so that memory does not grow with their number.
    """

    def __init__(self, hidden: int, groups: int, features: int, covariates: int, noise: Noise) -> None:
        super().__init__()
        self.groups = groups
        self.map = linear(hidden, features, noise)
        self.side = nn.Parameter(torch.zeros(covariates, features))

    def forward(
        self, h: Float[Tensor, "..."], c: Float[Tensor, "obs covariates"]
    ) -> Float[Tensor, "*samples obs features"]:
        """Map, pool the groups where there are any, add what the covariates say."""
        if not self.groups:
            return functional.linear(*self.affine(h, c))
        out = _PooledGroups.apply(h, self.map.weight) + (self.map.bias - math.log(self.groups))
        return out + c @ self.side if len(self.side) else out

    def affine(self, h: Float[Tensor, "..."], c: Float[Tensor, "obs covariates"]) -> tuple[Tensor, Tensor, Tensor]:
        """Input, weights and bias of the map without groups, covariates among its inputs."""
        if not len(self.side):
            return h, self.map.weight, self.map.bias
        return (
            torch.cat([h, c.expand(*h.shape[:-1], -1)], -1),
            torch.cat([self.map.weight, self.side.T], 1),
            self.map.bias,
        )


@torch.no_grad()
def quieten(module: nn.Module, passed: int) -> None:
    """Let readouts ignore the last `passed` columns of h at first: what z says directly is to be learned, not drawn."""
    for layer in module.modules():
        if passed and isinstance(layer, Readout):
            layer.map.weight[:, -passed:] = 0


class _PooledGroups(torch.autograd.Function):
    """logsumexp over groups of h_g W', one group in memory at a time."""

    @staticmethod
    def forward(ctx: Any, h: Tensor, weight: Tensor) -> Tensor:
        pooled = functional.linear(h[..., 0, :], weight)
        for g in range(1, h.shape[-2]):
            pooled = torch.logaddexp(pooled, functional.linear(h[..., g, :], weight))
        ctx.save_for_backward(h, weight, pooled)
        return pooled

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, Tensor]:
        h, weight, pooled = ctx.saved_tensors
        grad_h, grad_weight = torch.empty_like(h), torch.zeros_like(weight)
        for g in range(h.shape[-2]):
            share = (functional.linear(h[..., g, :], weight) - pooled).exp_().mul_(grad)
            grad_h[..., g, :] = share @ weight
            grad_weight += share.flatten(0, -2).T @ h[..., g, :].flatten(0, -2)
        return grad_h, grad_weight
