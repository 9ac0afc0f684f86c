"""Where the latent space holds data, where it does not, and how plausible what lies there is.

Absence of data alone cannot prove a state forbidden: what is found here is "supported" or "unsupported" by the
observations that were made.
"""

from dataclasses import replace

import numpy as np
import pandas as pd
import torch
from anndata import AnnData
from jaxtyping import Float
from mudata import MuData

from biovae.analysis import (
    Binary,
    Counts,
    Decoder,
    Density,
    Doubt,
    Holes,
    Judge,
    Observed,
    PriorSupport,
    Reals,
    among_fits,
    judge,
    log_normalise,
    rise,
)
from biovae.analysis import holes as find
from biovae.analysis import prior_support as supported
from biovae.analysis.neighbourhoods.positions import finite
from biovae.batch import plain
from biovae.errors import InputError
from biovae.model import VAE
from biovae.model.doubt import last_weights
from biovae.model.generate import Wanted
from biovae.model.lastlayer import with_weights
from biovae.noise import Noise
from biovae.schema import Support
from biovae.tools.arguments import model_and_data, whole
from biovae.tools.labels import carried, left_out, levels, quantities
from biovae.tools.latent import PER, Latent, counts_of, decoder, latent, regions, support_of, there_and_back
from biovae.training.working import working

RISERS = 5  # features that are named
CELLS = 20_000  # observations whose values are looked at
DECODERS = 20  # that the training set cannot tell from the one it gave
RESIDUALS = 1000  # observations that tell the noise of real values
LEAST = 1e-6  # of a standard deviation of noise


def density(
    vae: VAE,
    data: AnnData | MuData,
    *,
    held_out: str | np.ndarray | None = None,
    seed: int = 0,
    progress: bool = True,
) -> Density:
    """The aggregate posterior of data: `log_density(z)` in nats, `support(z)` as a share of real observations.

    Args:
        vae: A fitted model.
        data: The observations; not changed.
        held_out: Boolean column of `obs`, or array, of observations that training has not seen: they measure support,
            and have no part in the density. Without them each observation is measured by the others, and support is
            too high where training has spread what it saw.
        seed: Of subsets of large data.
        progress: Show a bar on a terminal, lines elsewhere.
    """
    with working("measuring density", show=progress):
        return latent(vae, data, held_out, seed).q


def holes(  # noqa: PLR0913 - a user's door
    vae: VAE,
    data: AnnData | MuData,
    *,
    groups: str | None = None,
    modality: str | None = None,
    held_out: str | np.ndarray | None = None,
    draws: int = 200,
    seed: int = 0,
    progress: bool = True,
) -> Holes:
    """The low passes between regions of the latent space, deepest first, with the plausibility of what lies in them.

    For counts each pass also says how much its two shores rise to each other: whether features that both share and no
    third region has go up towards the pass from both sides. That is the trace that a passage which was not sampled may
    leave, and a gap does not; without it the data cannot tell the two apart.

    Every fit of an ensemble is asked for the depths between the same groups (clusters are those of the first); all else
    is said by the first.

    Args:
        vae: A fitted model.
        data: The observations; not changed.
        groups: Column of `obs` that names the regions; None takes clusters of the latent neighbour graph. Observations
            without a label are of no region, and count for the density alone.
        modality: Whose decoded values are judged; None takes the first. Up to 20,000 observations are looked at for
            that.
        held_out: See `density`.
        draws: Of the bootstrap, for the intervals of depth.
        seed: Of every draw.
        progress: Show a bar on a terminal, lines elsewhere.

    Returns:
        `frame` with the columns of `analysis.holes` (`lower` and `upper` are those of depth), those of `plausibility`
        with `plausibility_lower` and `plausibility_upper`, and for counts `rise` (see `analysis.rise`) and `risers`,
        the features that carry it; of an ensemble also `fits`, how many have the pass, and `agree`, the share of them
        with the same call, and limits of depth for another fit on other observations; positions, strings, profiles of
        density.

    Raises:
        InputError: There is one region only, or no such column.
    """
    model_and_data(vae, data, draws=draws, seed=seed)
    with working("looking for holes", show=progress):
        found = _found(vae, data, (groups, modality, held_out), (draws, seed))
    return found if groups is None else replace(found, said=left_out(levels(data, groups), groups))


def _found(
    vae: VAE,
    data: AnnData | MuData,
    asked: tuple[str | None, str | None, str | np.ndarray | None],
    how: tuple[int, int],
) -> Holes:
    (groups, modality, held_out), (draws, seed) = asked, how
    given = latent(vae, data, held_out, seed)
    named = regions(given, data, groups, seed, 2)
    found = find(given.q, named, draws=draws, seed=seed)
    if found.frame.empty:
        return found
    densities = (latent(member, data, held_out, seed).q for member in vae.members[1:])
    found = among_fits(found, [find(q, named, draws=draws, seed=seed) for q in densities])
    few = given if len(given.rows) <= CELLS else latent(vae, data, held_out, seed, CELLS)
    judged = _judge(few, modality, DECODERS, seed)(found.z).drop(columns=["rarity", "support"])
    parts = [found.frame, judged.rename(columns={name: f"plausibility_{name}" for name in ("lower", "upper")})]
    if support_of(vae, modality) is Support.COUNTS:
        parts.append(_rises(few, found, named[np.searchsorted(given.rows, few.rows)], modality))
    return replace(found, frame=pd.concat(parts, axis=1))


def prior_support(
    vae: VAE,
    data: AnnData | MuData,
    *,
    size: int = 2000,
    held_out: str | np.ndarray | None = None,
    seed: int = 0,
    progress: bool = True,
) -> PriorSupport:
    """How many samples from the prior lie where data support a state; the others decode to nothing that was seen.

    Args:
        vae: A fitted model.
        data: The observations; not changed.
        size: Samples.
        held_out: See `density`.
        seed: Of the samples, and of subsets of large data.
        progress: Show a bar on a terminal, lines elsewhere.
    """
    model_and_data(vae, data, seed=seed)
    whole(1, size=size)
    with torch.no_grad():
        samples = vae.network.prior.sample(Noise(seed), size, vae.network.pseudo).cpu().numpy()
    with working("measuring support", show=progress):
        return supported(latent(vae, data, held_out, seed).q, samples)


def plausibility(  # noqa: PLR0913 - a user's door
    vae: VAE,
    data: AnnData | MuData,
    z: Float[np.ndarray, "points latent"],
    *,
    modality: str | None = None,
    held_out: str | np.ndarray | None = None,
    doubt: Doubt | None = None,
    draws: int = DECODERS,
    seed: int = 0,
    progress: bool = True,
) -> pd.DataFrame:
    """How plausible is what points of the latent space decode to: every part, its share among real observations, all.

    Args:
        vae: A fitted model.
        data: The observations to measure by, up to 20,000 of them; not changed.
        z: Points, (points, latent).
        modality: Whose decoded values are judged: counts, reals, or zeros and ones. None takes the first.
        held_out: See `density`.
        doubt: z to the uncertainty of the decoder, in place of how far decoders differ whose last layer the training
            set cannot tell from this one's (see `model.doubt`).
        draws: Of the last layer's weights, for doubt and for the limits of plausibility; 0 leaves both out.
        seed: Of every draw.
        progress: Show a bar on a terminal, lines elsewhere.

    Returns:
        See `analysis.Judge`: a row per point, columns `rarity`, `doubt`, `drift`, `misfit`, `clash`; `support`,
        `p_doubt`, ...; `coherence`, `plausibility`, and its 90 % interval, `lower` and `upper`. A likelihood that
        does not know how sure its weights are has neither doubt nor limits.
    """
    model_and_data(vae, data, draws=draws, seed=seed)
    if doubt is not None and not callable(doubt):
        raise InputError(f"expected a function of z as doubt, found {type(doubt).__name__}: leave it out.")
    with working("judging", show=progress):
        return _judge(latent(vae, data, held_out, seed, CELLS), modality, draws, seed, doubt)(finite(np.atleast_2d(z)))


def _rises(given: Latent, found: Holes, named: np.ndarray, modality: str | None) -> pd.DataFrame:
    logs, features = log_normalise(counts_of(given, modality)), given.vae.features(modality)
    member, known = pd.factorize(named, sort=True)
    place, has = {str(level): g for g, level in enumerate(known)}, member >= 0
    logs, z, member, covariates = logs[has], given.q.mean[has], member[has], given.observations.covariates.numpy()[has]
    rows = []
    for one, other in zip(found.frame["one"], found.frame["other"], strict=True):
        value, carriers = rise(logs, z, member, (place[one], place[other]), covariates)
        rows.append((value, ", ".join(features[carriers[:RISERS]])))
    return pd.DataFrame(rows, columns=["rise", "risers"])


def _judge(given: Latent, modality: str | None, draws: int, seed: int, doubt: Doubt | None = None) -> Judge:
    decode, again = decoder(given.vae, modality), there_and_back(given, seed)
    wanted = Wanted(given.vae.index(modality), None, PER, "average", draws)
    weights = last_weights(given.vae.fitted, wanted, seed) or ()
    others = [Decoder(with_weights(decode, drawn), with_weights(again, drawn)) for drawn in weights]
    return judge(given.q, _observed(given, modality), decode, again=again, others=others, doubt=doubt, seed=seed)


def _observed(given: Latent, modality: str | None) -> Observed:
    """The values of a modality, as their kind asks."""
    quantities(given.vae, modality)
    support, m = support_of(given.vae, modality), given.vae.index(modality)
    if support is Support.COUNTS:
        return Counts(counts_of(given, modality))
    carried(given.observations, m)
    x = given.observations.x[m]
    if support is Support.BINARY:
        return Binary(plain(x))
    values = plain(x)
    rows = np.random.default_rng(0).permutation(len(values))[:RESIDUALS]
    left = values[rows] - given.vae.decode(given.q.mean[rows], modality=modality)
    return Reals(values, np.maximum(np.sqrt((left**2).mean(0)), LEAST))
