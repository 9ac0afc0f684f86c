"""How far the training set leaves the last layer in doubt: Laplace's approximation, one output at a time.

    eta = w' phi                            argument of the mean of one output; phi: last hidden units, z, covariates, 1
    i                                       what one observation tells of eta, see `likelihoods.LastLayer`
    A   = n E[i phi phi'] + diag(1 / s**2)
    w   ~ N(as fitted, A^-1)
    s**2                                    mean over outputs of w**2 + (A^-1)_jj, by EM: for hidden units, and for z

The expectation is over observations that the model draws itself, so that a model needs no data for it and keeps none.
Hidden layers and encoder are taken as they are. The bias and the weights of covariates have s = 1.

Source: MacKay 1992, doi:10.1162/neco.1992.4.3.415 (approximation, and EM for s); Daxberger et al. 2021, NeurIPS,
arXiv:2106.14806 (the last layer alone).
"""

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property

import torch
from jaxtyping import Float, Int
from torch import Tensor

from biovae.batch import Context
from biovae.likelihoods import LikelihoodModule
from biovae.model.fitting import Fitted
from biovae.model.generate import Wanted, exposures
from biovae.model.lastlayer import LastWeights, slopes
from biovae.nn import Readout
from biovae.noise import Noise
from biovae.schema import CategoricalCovariate

DRAWN = 512  # observations that stand for the training set
LEARNED = 32  # outputs that s is learned from
ROUNDS = 10  # of EM
ENTRIES = 5_000_000  # of slopes at once
TINY = 1e-8  # of a variance of weights


@dataclass(frozen=True)
class _Seen:
    """Observations, drawn by the model, that stand for its training set."""

    readout: Readout
    h: Float[Tensor, "..."]
    c: Float[Tensor, "rows covariates"]
    information: Float[Tensor, "rows outputs"]  # of each row times the number of training observations it stands for
    passed: int  # columns of h that are z

    def precision(self, outputs: Int[Tensor, "outputs"]) -> Float[Tensor, "outputs inputs inputs"]:
        """n E[i phi phi'] of some outputs."""
        told = self.information[:, outputs].T.double()  # values without noise tell 1e10 times what s does
        if self.readout.groups:
            weighed = slopes(self.readout, self.h, self.c, outputs).double() * told.sqrt().unsqueeze(-1)
            return weighed.mT @ weighed
        found = told.new_empty(len(outputs), self.inputs, self.inputs)
        i, j = torch.tril_indices(self.inputs, self.inputs)
        found[:, i, j] = found[:, j, i] = told @ self.products
        return found

    @cached_property
    def products(self) -> Float[Tensor, "rows pairs"]:
        """phi_i phi_j, j <= i, where all outputs have the same phi: one product of matrices makes A of them all."""
        phi = slopes(self.readout, self.h, self.c, torch.arange(0))[0].double()
        i, j = torch.tril_indices(self.inputs, self.inputs)
        return phi[:, i] * phi[:, j]

    def blocks(self, outputs: Int[Tensor, "outputs"]) -> Iterator[Int[Tensor, "block"]]:
        """Outputs, few enough at a time."""
        return iter(outputs.split(max(1, ENTRIES // (len(self.c) * self.inputs))))

    @property
    def inputs(self) -> int:
        """Weights of one output."""
        return self.readout.map.in_features + len(self.readout.side) + 1


@torch.no_grad()
def last_weights(fitted: Fitted, wanted: Wanted, seed: int = 0) -> list[LastWeights] | None:
    """Draws of the last layer's weights, one for each of `wanted.samples`; None where the likelihood has no word on it.

    Weights that no feature in question has stay as fitted.
    """
    noise = Noise(seed)
    seen = _seen(fitted, wanted.modality, noise) if wanted.samples else None
    if seen is None:
        return None
    each = seen.readout.map.out_features // fitted.network.parts[wanted.modality].features
    keep = torch.from_numpy(wanted.positions(fitted.schema))
    outputs = (keep.unsqueeze(1) * each + torch.arange(each)).flatten()
    prior = torch.diag(_precision(seen, noise))
    parts = []
    for block in seen.blocks(outputs):
        root = torch.linalg.cholesky(seen.precision(block) + prior)
        white = noise.normal(len(block), seen.inputs, wanted.samples, dtype=torch.float64)
        parts.append(torch.linalg.solve_triangular(root.mT, white, upper=True).float())
    drawn = torch.cat(parts)
    return [LastWeights(seen.readout, outputs, drawn[..., s]) for s in range(wanted.samples)]


def _seen(fitted: Fitted, m: int, noise: Noise) -> _Seen | None:
    network, part = fitted.network.eval(), fitted.network.parts[m]
    if not isinstance(part.likelihood, LikelihoodModule):
        return None
    z = network.prior.sample(noise, DRAWN, network.pseudo)
    context = Context(exposures(fitted, DRAWN, noise)[m], _design(fitted, noise)[:, network.into_decoder])
    h = part.decoder(z, context.covariates)
    last = part.likelihood.last(part.likelihood(h, context))
    if last is None:
        return None
    n = fitted.record.get("carriers", [fitted.record["train_observations"]] * len(network.parts))[m]
    return _Seen(last.readout, h, context.covariates, last.information * (n / DRAWN), part.decoder.passed)


def _design(fitted: Fitted, noise: Noise) -> Float[Tensor, "rows covariates"]:
    """Rows of the design matrix: levels as frequent as in training (evenly, if the record has no word on it)."""
    columns, start = [torch.zeros(DRAWN, 0)], 0
    shares = torch.tensor(fitted.record.get("design", [1.0] * fitted.schema.width))
    for covariate in fitted.schema.covariates:
        mine = shares[start : start + covariate.width]
        start += covariate.width
        if isinstance(covariate, CategoricalCovariate):
            ends = mine.cumsum(0) / mine.sum()
            level = (noise.uniform(DRAWN, 1) >= ends[:-1]).sum(1)
            columns.append(torch.eye(covariate.width)[level])
        else:
            columns.append(noise.normal(DRAWN, 1))  # standardised, as in training
    return torch.cat(columns, 1)


def _precision(seen: _Seen, noise: Noise) -> Float[Tensor, "inputs"]:
    """1 / s**2 of every input."""
    weight = seen.readout.map.weight
    some = noise.permutation(len(weight))[:LEARNED]
    hidden = weight.shape[1] - seen.passed
    kinds = [kind for kind in (slice(0, hidden), slice(hidden, weight.shape[1])) if kind.start < kind.stop]
    square, information = weight[some].double().square(), seen.precision(some)
    found = torch.ones(seen.inputs, dtype=torch.float64)
    doubt = torch.zeros_like(square)
    for _ in range(ROUNDS):
        for kind in kinds:
            found[kind] = 1 / (square + doubt)[:, kind].mean().clamp_min(TINY)
        doubt = torch.linalg.inv(information + torch.diag(found)).diagonal(dim1=-2, dim2=-1)[:, : weight.shape[1]]
    return found
