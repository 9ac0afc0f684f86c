"""Observations as a model sees them, and what its decoder says of them elsewhere in z or under another covariate."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
import scipy.sparse
import torch
from anndata import AnnData
from jaxtyping import Float, Int
from mudata import MuData
from torch import Tensor

from biovae.analysis import References, log_normalise
from biovae.batch import Batch, Observations, SparseMatrix
from biovae.errors import InputError, closest
from biovae.model import VAE
from biovae.model.inference import everything, posterior_moments, rows_at_once
from biovae.noise import Noise
from biovae.schema import CategoricalCovariate
from biovae.tools.labels import carried

SAMPLES = 4  # of the counts of each observation: noise of the counts adds little to that of the observations
Swap = tuple[slice, Tensor]  # columns of the design matrix, and what they are to hold


@dataclass(frozen=True)
class Moved:
    """Some observations, and how they are moved.

    Attributes:
        vae: A fitted model.
        m: Its modality.
        rows: Positions in the data, in order.
        observations: In the order of `rows`.
        logs: log1p(counts per 10,000), sparse, the same order.
        z: Posterior means.
        swap: What the decoder is told instead; None moves z.
        seed: Of counts.
    """

    vae: VAE
    m: int
    rows: Int[np.ndarray, "obs"]
    observations: Observations
    logs: scipy.sparse.csr_array
    z: Float[np.ndarray, "obs latent"]
    swap: Swap | None
    seed: int

    def at(self, rows: Int[np.ndarray, "some"]) -> Int[np.ndarray, "some"]:
        """Where rows of the data are here."""
        return np.searchsorted(self.rows, rows)

    def references(self, pairs: Mapping[str, tuple[np.ndarray, np.ndarray]]) -> References:
        """The change from the first to the second rows of each type, its error, and where the first ones lie."""
        change, error, size, place = [], [], [], []
        for before, after in pairs.values():
            (low, low_error), (high, high_error) = (_mean_and_error(self.logs[self.at(r)]) for r in (before, after))
            change.append(high - low)
            error.append(np.hypot(low_error, high_error))
            size.append(1 / (1 / len(before) + 1 / len(after)))
            place.append(self.z[self.at(before)].mean(0))
        return References(tuple(pairs), np.stack(change), np.stack(error), np.array(size), np.stack(place))

    def shifts(
        self, pairs: Sequence[tuple[np.ndarray, np.ndarray]], z: Float[np.ndarray, "obs latent"] | None = None
    ) -> Float[np.ndarray, "types latent"]:
        """How z moves from the first to the second rows of each pair."""
        z = self.z if z is None else z
        return np.stack([z[self.at(after)].mean(0) - z[self.at(before)].mean(0) for before, after in pairs])

    def change(
        self,
        rows: Int[np.ndarray, "some"],
        shift: Float[np.ndarray, "latent"],
        z: Float[np.ndarray, "obs latent"] | None = None,
        samples: int = SAMPLES,
        draw: int = 0,
    ) -> Float[np.ndarray, "features"]:
        """Mean change of log1p(counts per 10,000), counts drawn from the decoder before and after; others each draw."""
        before = self._decoded(rows, None, z, (samples, draw))
        after = self._decoded(rows, shift, z, (samples, draw))
        total = sum(np.asarray((a - b).sum(0)) for a, b in zip(after, before, strict=True))
        return np.asarray(total) / len(rows)

    def drawn(self, rows: Int[np.ndarray, "some"], shift: Float[np.ndarray, "latent"]) -> scipy.sparse.csr_array:
        """One draw of counts after, of each row."""
        parts = [scipy.sparse.csr_array(part) for part in self._decoded(rows, shift, None, (1, 0), logs=False)]
        return scipy.sparse.csr_array(scipy.sparse.vstack(parts))

    def logs_of(self, data: AnnData | MuData, rows: np.ndarray) -> scipy.sparse.csr_array:
        """log1p(counts per 10,000) of other data."""
        return _logs(self.vae.observe(data, indices=rows).observations, self.m)

    @torch.no_grad()
    def _decoded(
        self,
        rows: np.ndarray,
        shift: np.ndarray | None,
        z: np.ndarray | None,
        how: tuple[int, int],
        *,
        logs: bool = True,
    ) -> list[np.ndarray]:
        """Counts, or the mean of their logarithms over samples, block by block; without a shift, as they are."""
        samples, draw = how
        network = self.vae.network.eval()
        places = torch.from_numpy(self.at(rows))
        points = torch.from_numpy(np.asarray(self.z if z is None else z, dtype=np.float32))
        step = torch.zeros(points.shape[1])
        if shift is not None and self.swap is None:
            step = torch.from_numpy(np.asarray(shift, dtype=np.float32))
        out = []
        for i, part in enumerate(places.split(rows_at_once(network, self.observations, samples))):
            batch = self.observations.batch(part)
            if shift is not None and self.swap is not None:
                batch = _told(batch, self.swap)
            at = (points[part] + step).expand(samples, -1, -1)
            x = network.decode(at, batch, self.m).sample(Noise(self.seed, 6 + 2 * draw + (shift is not None), i))
            if logs:
                x = torch.log1p(1e4 * x / x.sum(-1, keepdim=True).clamp(min=1)).mean(0)
            out.append(x.numpy() if logs else x[0].numpy())
        return out


def seen_by(
    vae: VAE, data: AnnData | MuData, m: int, rows: Int[np.ndarray, "obs"], swap: Swap | None, seed: int
) -> Moved:
    """Look at some rows of the data.

    Raises:
        InputError: An observation does not carry the modality.
    """
    rows = np.sort(rows)
    observations = vae.observe(data, indices=rows).observations
    carried(observations, m)
    z = posterior_moments(vae.network, observations, everything(observations)).mean
    return Moved(vae, m, rows, observations, _logs(observations, m), z, swap, seed)


def swapped(vae: VAE, column: str, source: str, target: str) -> Swap | None:
    """What to tell the decoder of observations in the other condition; None where it does not know the condition.

    Raises:
        InputError: The condition is a number to the model, or a level is unknown to it.
    """
    start = 0
    for recipe, covariate in zip(vae.covariates, vae.schema.covariates, strict=True):
        if covariate.name == column and recipe.decoder:
            if not isinstance(covariate, CategoricalCovariate):
                raise InputError(f"expected a condition with levels, found the number {column!r}: make it a category.")
            for level in (source, target):
                if level not in covariate.categories:
                    raise InputError(
                        f"expected a level of {column!r} that the model knows, found {level!r}: "
                        + closest(level, covariate.categories)
                    )
            return slice(start, start + covariate.width), torch.eye(covariate.width)[covariate.categories.index(target)]
        start += covariate.width
    return None


def _told(batch: Batch, swap: Swap) -> Batch:
    columns, values = swap
    c = batch.covariates.clone()
    c[:, columns] = values
    return replace(batch, covariates=c)


def _logs(observations: Observations, m: int) -> scipy.sparse.csr_array:
    x, exposure = observations.x[m], observations.exposure[m]
    if not isinstance(x, SparseMatrix) or exposure is None:
        raise InputError("expected sparse counts with a depth, found none: give raw counts.")
    return log_normalise(x.scipy())


def _mean_and_error(
    logs: scipy.sparse.csr_array,
) -> tuple[Float[np.ndarray, "features"], Float[np.ndarray, "features"]]:
    count = logs.shape[0]
    mean = np.asarray(logs.mean(0)).ravel()
    square = np.asarray(logs.power(2).mean(0)).ravel()
    return mean, np.sqrt(np.maximum(square - mean**2, 0) / max(count - 1, 1))
