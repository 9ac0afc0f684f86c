"""From z to data: decoding at a chosen exposure and covariates, denoised expression, new observations.

z   (rows, latent)
c   (combinations, covariates), the design rows that an average runs over
"""

import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
import pandas as pd
import scipy.sparse
import torch
from anndata import AnnData
from jaxtyping import Float, Int
from mudata import MuData
from torch import Tensor

from biovae.analysis import limits
from biovae.batch import Context
from biovae.data import Prepared
from biovae.errors import InputError, closest, first, listed
from biovae.model.design import Chosen, averaged_rows, design_row
from biovae.model.fitting import Fitted
from biovae.model.inference import ELEMENTS, ROWS, minibatches
from biovae.model.lastlayer import LastWeights, placed
from biovae.network import Network
from biovae.noise import Noise
from biovae.schema import CategoricalCovariate, Schema

At = tuple[int, float | None, Chosen | Literal["average"]]  # modality, library, covariates


@dataclass(frozen=True)
class Wanted:
    """What `VAE.expression` was asked for."""

    modality: int
    features: Sequence[str] | str | None
    library: float
    covariates: Chosen | Literal["own", "average"]
    samples: int

    def positions(self, schema: Schema) -> Int[np.ndarray, "wanted"]:
        """Where the features stand among those of the modality."""
        names = pd.Index(schema.modalities[self.modality].features)
        return np.arange(len(names)) if self.features is None else positions(names, self.features)


@dataclass(frozen=True)
class Expression:
    """Denoised expression: observations x features, at one library size; limits hold 90 % of the posterior draws."""

    mean: pd.DataFrame
    lower: pd.DataFrame | None = None
    upper: pd.DataFrame | None = None


@torch.no_grad()
def decode(
    network: Network, schema: Schema, z: Float[Tensor, "rows latent"], at: At
) -> Float[np.ndarray, "rows features"]:
    """Mean of p(x | z) at one exposure, averaged over design rows where covariates are "average"."""
    m, library, covariates = at
    network.eval()
    chosen = averaged_rows(schema) if covariates == "average" else design_row(schema, covariates).unsqueeze(0)
    size = max(1, ELEMENTS // network.parts[m].features)
    parts = [_averaged(network, part, chosen, m, library) for part in z.split(size)]
    return torch.cat(parts).cpu().numpy()


def lift(
    network: Network, schema: Schema, z: Float[np.ndarray, "rows latent"], at: At, unit: Callable[[Tensor], Tensor]
) -> tuple[Float[np.ndarray, "rows features"], Callable[[np.ndarray], np.ndarray]]:
    """unit(decode(z)), and what pulls v, (rows, features), back to J(z)' v, (rows, latent): which way z moves it."""
    m, library, covariates = at
    network.eval()
    chosen = averaged_rows(schema) if covariates == "average" else design_row(schema, covariates).unsqueeze(0)
    place = torch.as_tensor(z, dtype=torch.float32).clone().requires_grad_()
    f = unit(_averaged(network, place, chosen, m, library).cpu())

    def back(v: np.ndarray) -> np.ndarray:
        return torch.autograd.grad(f, place, torch.as_tensor(v, dtype=torch.float32))[0].numpy().astype(np.float64)

    return f.detach().numpy(), back


def positive(library: float | np.ndarray) -> float | np.ndarray:
    """Refuse an exposure at which nothing is observed.

    Raises:
        InputError: It is not above 0, or not finite.
    """
    if np.asarray(library).dtype.kind not in "iuf":
        raise InputError(f"expected a library above 0, found {library!r}: 1e4 is the usual one.")
    if not (np.isfinite(library) & (np.asarray(library) > 0)).all():
        least = np.nanmin(np.append(np.asarray(library, np.float64), np.inf))
        raise InputError(f"expected a library above 0, and finite, found {least:g} or NaN: 1e4 is the usual one.")
    return library


def _averaged(network: Network, z: Tensor, chosen: Tensor, m: int, library: float | None) -> Tensor:
    total = torch.zeros(())
    for row in chosen:
        total = total + mean_at(network, z, row.expand(len(z), -1), m, library)
    return total / len(chosen)


def mean_at(network: Network, z: Tensor, c: Tensor, m: int, library: float | None) -> Tensor:
    """Means of p(x_m | z) at rows of the design matrix and one exposure."""
    device = network.into_decoder.device
    exposure = torch.full((len(z), 1), 1.0 if library is None else float(positive(library)), device=device)
    context = Context(exposure, c.to(device)[:, network.into_decoder])
    return network.parts[m].decode(z.to(device), context).mean


@torch.no_grad()
def expression(
    fitted: Fitted, prepared: Prepared, wanted: Wanted, weights: Sequence[LastWeights] | None = None
) -> Expression:
    """See `VAE.expression`; the last layer of each draw has the weights that are given, by default those of the fit."""
    network, schema = fitted.network, fitted.schema
    names = pd.Index(schema.modalities[wanted.modality].features)
    keep = wanted.positions(schema)
    layers: Sequence[LastWeights | None] = weights or [None] * wanted.samples
    network.eval()
    means: list[np.ndarray] = []
    lowers: list[np.ndarray] = []
    uppers: list[np.ndarray] = []
    size = max(1, min(ROWS, ELEMENTS // (len(names) * max(1, wanted.samples))))
    everything = torch.arange(len(prepared.observations))
    for i, batch in enumerate(minibatches(prepared.observations, everything, size)):
        q = network.encode(batch).z
        means.append(_at(network, schema, q.mean, batch.covariates, wanted)[:, keep].numpy())
        if wanted.samples:
            draws = q.sample(Noise(0, 0, i), wanted.samples)
            values = []
            for z, drawn in zip(draws, layers, strict=True):
                with placed(drawn):
                    values.append(_at(network, schema, z, batch.covariates, wanted)[:, keep].numpy())
            lower, upper = limits(np.stack(values))
            lowers.append(lower)
            uppers.append(upper)
    frames = [
        pd.DataFrame(np.concatenate(parts), index=prepared.obs_names, columns=names[keep]) if parts else None
        for parts in (means, lowers, uppers)
    ]
    return Expression(*frames)


def _at(network: Network, schema: Schema, z: Tensor, own: Tensor, wanted: Wanted) -> Tensor:
    if wanted.covariates == "own":
        return mean_at(network, z, own, wanted.modality, wanted.library).cpu()
    if wanted.covariates == "average":
        return _averaged(network, z, averaged_rows(schema), wanted.modality, wanted.library).cpu()
    chosen = design_row(schema, wanted.covariates).unsqueeze(0)
    return _averaged(network, z, chosen, wanted.modality, wanted.library).cpu()


def positions(names: pd.Index, features: Sequence[str] | str) -> np.ndarray:
    """Where features of the model are."""
    wanted = listed(features)
    unknown = [f for f in wanted if f not in names]
    if unknown:
        raise InputError(
            f"expected features of the model, found {len(unknown)} others ({first(unknown)}): "
            + closest(str(unknown[0]), names)
        )
    return names.get_indexer_for(wanted)


@torch.no_grad()
def sample(
    fitted: Fitted,
    size: int,
    *,
    seed: int,
    library: float | np.ndarray | None,
    covariates: Mapping[str, str | float] | None,
) -> AnnData | MuData:
    """See `VAE.sample`."""
    if size < 1:
        raise InputError(f"expected to sample at least one observation, found {size}.")
    network, schema, noise = fitted.network.eval(), fitted.schema, Noise(seed)
    z = network.prior.sample(noise, size, network.pseudo)
    drawn = _draw_covariates(schema, covariates or {}, size, noise)
    c = torch.stack([design_row(schema, row) for row in drawn.to_dict("records")]) if len(drawn.columns) else None
    c = torch.zeros(size, 0) if c is None else c
    names = [f"sample_{i + 1}" for i in range(size)]
    parts, depths = {}, exposures(fitted, size, noise, library)
    for m, modality in enumerate(schema.modalities):
        blocks = list(_draws(network, (z, c, depths[m]), m, noise))
        whole = (
            scipy.sparse.vstack(blocks, format="csr") if scipy.sparse.issparse(blocks[0]) else np.concatenate(blocks)
        )
        obs = drawn.set_axis(names)
        part = AnnData(whole, obs=obs, var=pd.DataFrame(index=pd.Index(modality.features)))
        part.obsm["X_vae"] = z.numpy()
        parts[modality.name] = part
    if len(parts) == 1:
        return next(iter(parts.values()))
    with warnings.catch_warnings():  # mudata announces another way to join columns; there are none to join
        warnings.simplefilter("ignore", FutureWarning)
        joined = MuData(parts)
    joined.obsm["X_vae"] = z.numpy()
    return joined


def exposures(
    fitted: Fitted, size: int, noise: Noise, library: float | np.ndarray | None = None
) -> list[Float[Tensor, "size 1"] | None]:
    """Exposure of new observations in each modality, drawn together."""
    seen = fitted.record["exposure"]
    depths = _depths(fitted.record.get("exposure_correlation"), len(seen), size, noise)
    return [_draw_library(each, library, depths[:, m : m + 1]) for m, each in enumerate(seen)]


def _draws(network: Network, given: tuple[Tensor, Tensor, Tensor | None], m: int, noise: Noise) -> Iterator:
    z, c, exposure = given
    size = max(1, ELEMENTS // network.parts[m].features)
    for rows in torch.arange(len(z)).split(size):
        context = Context(None if exposure is None else exposure[rows], c[rows][:, network.into_decoder])
        x = network.parts[m].decode(z[rows], context).sample(noise).numpy()
        yield x if exposure is None else scipy.sparse.csr_matrix(x)


def _draw_covariates(schema: Schema, chosen: Chosen, size: int, noise: Noise) -> pd.DataFrame:
    """A value for every covariate of every new observation: chosen, else a level at random, else the mean."""
    values = {}
    for covariate in schema.covariates:
        if covariate.name in chosen or not isinstance(covariate, CategoricalCovariate):
            values[covariate.name] = [chosen.get(covariate.name, getattr(covariate, "mean", None))] * size
        else:
            at = (noise.uniform(size) * len(covariate.categories)).long()
            values[covariate.name] = np.asarray(covariate.categories)[at.numpy()]
    unknown = set(chosen) - {c.name for c in schema.covariates}
    if unknown:
        name = sorted(unknown)[0]
        raise InputError(
            f"expected a covariate of the model, found {name!r}: " + closest(name, [c.name for c in schema.covariates])
        )
    return pd.DataFrame(values, index=range(size))


def _depths(
    correlation: list[list[float]] | None, modalities: int, size: int, noise: Noise
) -> Float[Tensor, "rows modalities"]:
    """Standard normal, correlated as depths were; a model of an earlier version draws them apart."""
    drawn = noise.normal(size, modalities)
    if correlation is None or modalities == 1:
        return drawn
    values, vectors = np.linalg.eigh(np.asarray(correlation))  # pairs are measured among those that carry both
    root = vectors * np.sqrt(np.maximum(values, 0))
    root /= np.linalg.norm(root, axis=1, keepdims=True)
    return drawn @ torch.from_numpy(root.T.astype(np.float32))


def _draw_library(
    seen: list[float] | None, library: float | np.ndarray | None, depth: Float[Tensor, "rows 1"]
) -> Float[Tensor, "rows 1"] | None:
    """Exposure of new observations: as given, else log-normal with the training set's mean and spread of logs."""
    if seen is None:
        return None
    if library is not None:
        given = np.broadcast_to(np.asarray(positive(library), np.float32), (len(depth),))
        return torch.as_tensor(given.copy()).unsqueeze(1)
    mean, spread = seen
    return (mean + spread * depth).exp()
