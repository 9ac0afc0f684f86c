"""What of a model and of what it says is found again with other seeds: questions to an ensemble."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Literal

import numpy as np
import pandas as pd
import torch
from scipy.stats import norm

from biovae.analysis import Stability, calls_held, order_held, pooled
from biovae.analysis import stability as compare
from biovae.batch import Observations
from biovae.errors import InputError, listed
from biovae.model import VAE
from biovae.model.doubt import last_weights
from biovae.model.generate import Expression, Wanted, expression
from biovae.model.inference import ELEMENTS, posterior_draws, posterior_moments
from biovae.noise import Noise
from biovae.schema import Support
from biovae.tools.arguments import model_and_data, real, whole
from biovae.tools.differential import Effort, differential
from biovae.tools.labels import left_out, levels
from biovae.tools.latent import PER, Data, linear, support_of
from biovae.tools.trajectory import Root, root_rows, trajectory
from biovae.training.progress import passing
from biovae.training.working import working

CELLS = 20_000  # that are compared, at most: beyond, numbers hardly move and the search for neighbours takes minutes
DRAWS = 5  # of z for the doubt about pseudotime within a fit
NOISE, LINE = "two draws from the posterior of one fit", "principal components of two halves of the data"
COVERAGE = 0.9  # of intervals, as those of `VAE.expression`


def stability(  # noqa: PLR0913 - a user's door
    vae: VAE,
    data: Data,
    *,
    groups: str | None = None,
    contrasts: str | None = None,
    root: Root | None = None,
    resolution: float = 0.3,
    cells: int = CELLS,
    seed: int = 0,
    progress: bool = True,
) -> Stability:
    """Which neighbours, clusters, dimensions and claims are the same in every fit of an ensemble.

    Beside the fits stand two draws from the posterior of one fit, and principal components of two halves of the
    observations: how much neighbours and clusters change for reasons other than the seed.

    Args:
        vae: A model of `fit(data, ensemble=k)`.
        data: The observations; not changed.
        groups: Column of `obs` to speak of; None takes the clusters of the first fit. Observations without a label have
            no part in the groups; neighbours, clusters and positions they count for.
        contrasts: Column of `obs` whose levels are compared by `bv.tl.differential` with every fit.
        root: Of `bv.tl.trajectory`, which is then repeated with every fit.
        resolution: Of the clusters.
        cells: Compare at most so many observations, drawn at random.
        seed: Of draws and clusters.
        progress: Show a bar on a terminal.

    Returns:
        `summary`, `groups`, `cells`, `dimensions`, `aligned`, and `calls` and `order` where asked for; printed, it says
        which claims not to make.

    Raises:
        InputError: The model is no ensemble, or a column is missing or names no group.
    """
    model_and_data(vae, data, seed=seed)
    whole(3, cells=cells)
    real(resolution=resolution)
    members = ensemble(vae)
    named = None if groups is None else levels(data, groups)
    observations = vae.observe(data).observations
    found = compared(members, observations, named, resolution=resolution, cells=cells, seed=seed, progress=progress)
    said = () if named is None or groups is None else left_out(named, groups)
    if contrasts is not None:
        shown = passing(members, len(members), "differences", show=progress)
        each = [differential(m, data, contrasts, effort=Effort(seed=seed), progress=False) for m in shown]
        found = replace(found, calls=calls_held(each))
        said = tuple(dict.fromkeys(said + each[0].said))
    if root is not None:
        start = root_rows(data, members[0].embed(data), root)  # the same in every fit
        shown = passing(members, len(members), "trajectories", show=progress)
        order, rank = order_held([trajectory(m, data, start, draws=DRAWS, seed=seed, progress=False) for m in shown])
        found = replace(found, order=order.set_axis(data.obs_names), rank=rank)
    rows = some(len(observations), cells, seed)
    return replace(found, cells=found.cells.set_axis(data.obs_names[rows]), said=said)


def ensemble(vae: VAE) -> tuple[VAE, ...]:
    """The members of an ensemble.

    Raises:
        InputError: The model has one fit only.
    """
    members = vae.members
    if len(members) < 2:
        raise InputError("expected an ensemble, found a model with one fit: fit(data, ensemble=5).")
    return members


def some(observations: int, cells: int, seed: int) -> np.ndarray:
    """The rows that are compared."""
    if cells < 3:
        raise InputError(f"expected to compare at least 3 observations, found cells={cells}: leave it at {CELLS:,}.")
    return np.sort(Noise(seed).numpy().permutation(observations)[:cells])


def compared(  # noqa: PLR0913 - what `stability` and a run's report have in common
    members: Sequence[VAE],
    observations: Observations,
    named: np.ndarray | None,
    *,
    clusters: bool = False,
    resolution: float = 0.3,
    cells: int = CELLS,
    seed: int = 0,
    progress: bool = False,
) -> Stability:
    """The members' latent spaces side by side.

    Args:
        members: Fitted models of one recipe.
        observations: As the models see them.
        named: The group of each observation, None where it has none; without it clusters of the first member.
        clusters: Groups are clusters of the first member.
        resolution: Of the clusters.
        cells: Compare at most so many.
        seed: Of draws and clusters.
        progress: Show a bar on a terminal.
    """
    rows = some(len(observations), cells, seed)
    here = torch.from_numpy(rows)
    shown = passing(members, len(members), "embedding", show=progress)
    moments = [posterior_moments(m.network, observations, here) for m in shown]
    half = Noise(seed).at(1).numpy().permutation(len(observations)) % 2 == 0
    noise = [*posterior_draws(members[0].network, observations, here, Noise(seed), 2)]
    with working("finding principal components", show=progress):
        line = [linear(observations, members[0].latent, part, seed).scores[rows] for part in (half, ~half)]
    with working("comparing fits", show=progress):
        return compare(
            [m.mean for m in moments],
            [m.variance for m in moments],
            groups=None if named is None else named[rows],
            clusters=clusters,
            references={NOISE: noise, LINE: line},
            resolution=resolution,
            seed=seed,
        )


def ensemble_expression(  # noqa: PLR0913 - a user's door
    vae: VAE,
    data: Data,
    features: Sequence[str] | str | None = None,
    *,
    modality: str | None = None,
    library: float = PER,
    covariates: Mapping[str, str | float] | Literal["own", "average"] = "average",
    samples: int = 25,
    progress: bool = True,
) -> Expression:
    """Denoised expression over all fits of an ensemble: the mean, and 90 % intervals for both kinds of doubt.

    Those of `VAE.expression` hold the doubt within one fit, and not that another seed finds another map. Counts are
    pooled as logarithms, other values as they are; see `biovae.analysis.pooling`. The doubt about weights is in
    both kinds in part, so that limits are wide rather than narrow (LOG.md).

    Args:
        vae: A model of `fit(data, ensemble=k)`.
        data: The observations; not changed.
        features: Names; None takes all.
        modality: Which one; None takes the first.
        library: Exposure of every observation.
        covariates: As for `VAE.expression`.
        samples: Draws of each fit.
        progress: Show a bar on a terminal.

    Raises:
        InputError: The model is no ensemble, or there are no samples.
    """
    model_and_data(vae, data, samples=samples)
    members = ensemble(vae)
    if samples < 2:
        raise InputError(f"expected at least 2 samples to see the doubt within a fit, found {samples}: 25 will do.")
    width = len(vae.features(modality)) if features is None else len(listed(features))
    blocks = np.array_split(np.arange(data.n_obs), max(1, data.n_obs * max(width, 1) // ELEMENTS))
    logs = support_of(vae, modality) is Support.COUNTS
    wanted = Wanted(vae.index(modality), features, library, covariates, samples)
    weights = [last_weights(m.fitted, wanted) for m in members]
    parts = []
    for rows in passing(blocks, len(blocks), "expression", show=progress):
        observed = vae.observe(data, indices=rows)
        told = [expression(m.fitted, observed, wanted, drawn) for m, drawn in zip(members, weights, strict=True)]
        parts.append(_pooled(told, logs=logs))
    return Expression(*(pd.concat(frames) for frames in zip(*parts, strict=True)))


def _pooled(told: Sequence[Expression], *, logs: bool) -> tuple[pd.DataFrame, pd.DataFrame, pd.DataFrame]:
    tiny = np.finfo(np.float32).tiny
    there, back = (lambda x: np.log(np.maximum(x, tiny)), np.exp) if logs else (np.asarray, np.asarray)
    mean, lower, upper = (
        there(np.array([getattr(each, name).to_numpy(dtype=np.float64) for each in told]))
        for name in ("mean", "lower", "upper")
    )
    within = ((upper - lower) / (2 * norm.ppf((1 + COVERAGE) / 2))) ** 2
    both = pooled(mean, within, COVERAGE)
    like = told[0].mean
    one, two, three = (
        pd.DataFrame(back(values), index=like.index, columns=like.columns)
        for values in (both.mean, both.lower, both.upper)
    )
    return one, two, three
