"""The decoded f(0) beside the data: what the model holds to be typical."""

from collections.abc import Sequence
from dataclasses import replace
from functools import partial

import numpy as np
import pandas as pd
import scipy.sparse
from anndata import AnnData
from jaxtyping import Float
from mudata import MuData

from biovae.analysis import Prototype
from biovae.analysis import prototype as compare
from biovae.analysis.space.prototype import Draw
from biovae.batch import Observations
from biovae.model import VAE
from biovae.model.doubt import last_weights
from biovae.model.generate import Wanted
from biovae.model.lastlayer import LastWeights, with_weights
from biovae.noise import Noise
from biovae.tools.arguments import model_and_data
from biovae.tools.labels import left_out, levels, quantities
from biovae.training.working import working

PER = 1e4  # counts are compared per 10,000
DRAWS = 40  # of observations, by a bootstrap, and of weights


def prototype(  # noqa: PLR0913 - a user's door
    vae: VAE,
    data: AnnData | MuData,
    *,
    groups: str | None = None,
    modality: str | None = None,
    draws: int = DRAWS,
    seed: int = 0,
    progress: bool = True,
) -> Prototype:
    """Decode z = 0 and compare it with the mean of the data, the nearest observations, and the means of groups.

    The centre of every group is decoded, too: its own prototype. Fold changes and shares of the mixture have limits,
    from a bootstrap of the observations, draws of the weights of the last layer, and the fits of an ensemble.

    Args:
        vae: A fitted model.
        data: The observations to compare with; not changed.
        groups: Column of `obs` whose levels the prototype is compared with and explained as a mixture of. Observations
            without a label count for the mean of the data alone.
        modality: Which one; None takes the first.
        draws: For the limits; 19 or more, or 0 to leave them out, which saves seconds.
        seed: Of the draws.
        progress: Show a bar on a terminal, lines elsewhere.

    Returns:
        `frame` per feature, nearest observations, similarity to each group, mixture weights; `centres`, the decoded
        mean z of each group.

    Raises:
        InputError: There is no such column, or it names no group.
    """
    model_and_data(vae, data, draws=draws, seed=seed)
    m = vae.index(modality)
    quantities(vae, modality)
    named = None if groups is None else levels(data, groups)
    observations = vae.observe(data).observations
    mean, types = averages(observations, m, named)
    centre = vae.decode(np.zeros((1, vae.latent)), modality=modality, library=PER)[0]
    z, names = vae.embed(data), list(vae.features(modality))
    with working("drawing again", show=progress):
        again = _again(vae, observations, (m, named), draws, seed)
        found = compare(centre, mean, names, z, types, again)
    if named is None:
        return found
    middles = pd.DataFrame(z).groupby(named).mean()
    decoded = vae.decode(middles.to_numpy(), modality=modality, library=PER)
    centres = pd.DataFrame(decoded, middles.index, names)
    return replace(found, centres=centres, said=left_out(named, groups))


def averages(
    observations: Observations, m: int, groups: np.ndarray | None = None
) -> tuple[Float[np.ndarray, "features"], pd.DataFrame | None]:
    """Mean of a modality, counts per 10,000, among the observations that carry it, and in each group, a row each."""
    x, scale, rows = _scaled(observations, m)
    mean = np.asarray(scale @ x).ravel() / max(len(rows), 1)
    if groups is None:
        return mean, None
    member, levels = pd.factorize(groups[rows], sort=True)
    return mean, pd.DataFrame(_means(x, scale, member, np.ones((1, len(rows))))[0], index=levels)


def _again(
    vae: VAE, observations: Observations, of: tuple[int, np.ndarray | None], draws: int, seed: int
) -> list[Draw]:
    """f(0) with drawn weights, of one fit after the other, and means of observations that a bootstrap weighs."""
    m, groups = of
    x, scale, rows = _scaled(observations, m)
    if not draws or not len(rows):
        return []
    weight = Noise(seed).numpy().exponential(size=(draws, len(rows)))
    whole = _means(x, scale, np.zeros(len(rows), dtype=np.int64), weight)[:, 0]
    member = None if groups is None else pd.factorize(groups[rows], sort=True)[0]
    types = np.empty((draws, 0, x.shape[1])) if member is None else _means(x, scale, member, weight)
    centres = [_centres(fit, m, -(-draws // len(vae.members)), seed) for fit in vae.members]
    drawn = [centres[draw % len(centres)][draw // len(centres)] for draw in range(draws)]
    return [Draw(*each) for each in zip(drawn, whole, types, strict=True)]


def _centres(fit: VAE, m: int, draws: int, seed: int) -> list[Float[np.ndarray, "features"]]:
    """f(0) of one fit, again and again with the weights that its training leaves in doubt."""
    wanted, z = Wanted(m, None, PER, "average", draws), np.zeros((1, fit.latent))
    weights: Sequence[LastWeights | None] = last_weights(fit.fitted, wanted, seed) or [None] * draws
    decode = partial(fit.decode, modality=fit.schema.modalities[m].name, library=PER)
    return [with_weights(decode, each)(z)[0] for each in weights]


def _scaled(
    observations: Observations, m: int
) -> tuple[scipy.sparse.csr_array | np.ndarray, Float[np.ndarray, "carriers"], np.ndarray]:
    """Values of the observations that carry a modality, what makes them counts per 10,000, and which these are."""
    (x, rows), exposure = observations.measured(m), observations.exposure[m]
    return x, np.ones(len(rows)) if exposure is None else PER / exposure[rows, 0].numpy(), rows


def _means(
    x: scipy.sparse.csr_array | np.ndarray,
    scale: np.ndarray,
    member: np.ndarray,
    weight: Float[np.ndarray, "draws carriers"],
) -> Float[np.ndarray, "draws groups features"]:
    """Weighted means of groups, `member` -1 for none.

    The Bayesian bootstrap draws the weights: Rubin 1981, doi:10.1214/aos/1176345338.
    """
    found = np.empty((len(weight), int(member.max(initial=-1)) + 1, x.shape[1]))
    for group in range(found.shape[1]):
        rows = np.flatnonzero(member == group)
        own = weight[:, rows]
        values = x if len(rows) == x.shape[0] else x[rows]
        found[:, group] = ((own * scale[rows]) @ values) / own.sum(1, keepdims=True)
    return found
