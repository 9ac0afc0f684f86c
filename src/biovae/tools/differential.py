"""Differential expression: what differs between groups of observations, with batch and depth taken out."""

import itertools
import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, Literal

import numpy as np
import pandas as pd
import torch
from anndata import AnnData
from mudata import MuData

from biovae.analysis import Differential, Null
from biovae.analysis import differential as compare
from biovae.analysis.groups.differential import Decode, Decoded
from biovae.batch import Observations, plain
from biovae.data.covariates import label
from biovae.errors import InputError, closest
from biovae.model import VAE
from biovae.model.design import MOST, design_row
from biovae.model.inference import everything, posterior_draws
from biovae.noise import Noise
from biovae.schema import CategoricalCovariate, Support
from biovae.tools.arguments import model_and_data, real, whole
from biovae.tools.labels import Groups, Labels, labelled, left_out, present, strata, texts
from biovae.training.working import working

PER = 1e4  # rates are per 10,000


@dataclass(frozen=True)
class Effort:
    """How much is looked at.

    Args:
        cells: At most so many observations of each group, drawn from every level of the covariates in proportion,
            before anything is encoded or decoded.
        draws: Of z for each observation.
        counts: Features with fewer counts in the two groups together are not tested.
        seed: Of all draws.
    """

    cells: int = 2000
    draws: int = 2
    counts: float = 10
    seed: int = 0

    def __post_init__(self) -> None:
        whole(2, cells=self.cells)
        whole(1, draws=self.draws)
        whole(seed=self.seed)
        real(1, counts=self.counts)


def differential(  # noqa: PLR0913 - a user's door
    vae: VAE,
    data: AnnData | MuData,
    groups: Groups,
    *,
    group: object = None,
    reference: object = None,
    covariates: Mapping[str, str | float] | Literal["average"] = "average",
    delta: float = 0.25,
    modality: str | None = None,
    effort: Effort | None = None,
    progress: bool = True,
) -> Differential:
    """P(|log2 fold change| > delta) of every feature between groups: a column of `obs` says who belongs to which.

    Rates are what the decoder says at common covariates, corrected by the observed counts of each group; see
    `biovae.analysis.groups.differential`. Observations are taken to be independent: where a condition was given to a
    few donors, differences between donors count as differences between conditions. What a covariate of the model
    explains is taken out; donors of one condition each, as a covariate, take the condition out with them. Rates are
    shares of the counts: what a few features gain, all others lose.

    Args:
        vae: A fitted model of counts.
        data: The observations; not changed. Those without a group, or without the modality, are left out.
        groups: Column of `obs`, or a group per observation. Clusters that were found in these counts differ by
            construction: find them in one half of `bv.tl.thin`, and compare in the other.
        group: One of its levels; None compares each level with all others.
        reference: The level to compare `group` with; None takes all others.
        covariates: "average" over the levels of every categorical covariate, or chosen values by name.
        delta: |log2 fold change| up to here counts as none.
        modality: Which one; None takes the first.
        effort: How many observations and draws.
        progress: Show a bar on a terminal, lines elsewhere.

    Returns:
        `frame` with a row per comparison and feature; `called(fdr)` for those that differ.

    Raises:
        InputError: The modality is not one of counts, a level is unknown, or there are not two groups.
    """
    model_and_data(vae, data)
    real(delta=delta)
    m, effort = vae.index(modality), _effort(effort)
    if vae.schema.modalities[m].support is not Support.COUNTS:
        raise InputError("expected a modality of counts, found another kind: fold changes need values above zero.")
    if isinstance(groups, str) and groups in [c.name for c in vae.schema.covariates]:
        raise InputError(
            f"expected groups that the model does not correct for, found its covariate {groups!r}: fit without it."
        )
    values = labelled(data, groups)
    given = texts(values, 2)
    labels, contrasts = _labels(_measured(vae, data, m, given), values.name, (group, reference))
    rows, weights = _drawn(labels, strata(vae, data), effort)
    observations = vae.observe(data, indices=rows).observations
    z = posterior_draws(vae.network, observations, everything(observations), Noise(effort.seed), effort.draws)
    decode = _decoder(vae, observations, m, covariates)
    x, names, null = plain(observations.x[m]), list(vae.features(modality)), Null(delta, effort.counts)
    with working("comparing", show=progress):
        found = compare(x, decode, z, labels[rows].astype(str), names, contrasts, weights, null)
    return replace(found, said=left_out(given, values.name))


def _effort(given: object) -> Effort:
    if given is not None and not isinstance(given, Effort):
        raise InputError(f"expected an effort, found {type(given).__name__}: bv.tl.Effort(cells=2000, draws=2).")
    return Effort() if given is None else given


def _measured(vae: VAE, data: AnnData | MuData, m: int, labels: Labels) -> Labels:
    """The groups of the observations that carry the modality, None for all others."""
    if not isinstance(data, MuData):
        return labels
    carried = vae.observe(data).observations.present[m]
    return labels if carried is None else _only(labels, carried.numpy())


def _labels(labels: Labels, column: object, sides: tuple[Any, Any]) -> tuple[Labels, list | None]:
    """The group of each observation, None where it takes no part; and the comparisons."""
    known = present(labels)
    group, reference = (None if side is None else label(side) for side in sides)
    if group is None:
        if reference is not None:
            raise InputError(f"expected a group to compare with {reference!r}, found none: give group=.")
        sizes = pd.Series(labels).value_counts()
        return labels, [(name, None) for name in known if sizes[name] > 1] or None  # one alone is compared with nothing
    for name in (group, reference):
        if name is not None and name not in known:
            raise InputError(f"expected a level of {column!r}, found {name!r}: {closest(name, known)}")
    if reference is not None:
        return _only(labels, np.isin(labels, [group, reference])), [(group, reference)]
    return labels, [(group, None)]


def _only(labels: Labels, rows: np.ndarray) -> Labels:
    """Labels of some observations, None for all others."""
    kept = labels.copy()
    kept[~rows] = None
    return kept


def _drawn(labels: np.ndarray, strata: np.ndarray, effort: Effort) -> tuple[np.ndarray, np.ndarray]:
    """Rows that are looked at, in order, and how many of its group and stratum each one stands for."""
    noise = Noise(effort.seed).numpy()
    rows, weights = [], []
    taking_part = np.flatnonzero(labels != None)  # noqa: E711 - elementwise
    for _, members in pd.Series(taking_part).groupby(labels[taking_part]):
        share = min(1, effort.cells / len(members))
        for _, stratum in members.groupby(np.asarray(strata)[members]):
            size = max(1, round(share * len(stratum)))
            rows.append(noise.choice(stratum.to_numpy(), size, replace=False) if share < 1 else stratum.to_numpy())
            weights.append(np.full(size, len(stratum) / size))
    if not rows:
        raise InputError("expected observations with a group, found none: choose another column.")
    order = np.argsort(np.concatenate(rows))
    return np.concatenate(rows)[order], np.concatenate(weights)[order]


def _decoder(vae: VAE, observations: Observations, m: int, covariates: Mapping | Literal["average"]) -> Decode:
    """z and rows to rates per 10,000 at common covariates, and to means as each row was measured."""
    network, name = vae.network.eval(), vae.modalities[m].name

    @torch.no_grad()
    def apart(z: np.ndarray, rows: np.ndarray) -> Decoded:
        own = network.decode(torch.from_numpy(z), observations.batch(torch.from_numpy(rows)), m)
        rate = vae.decode(z, modality=name, library=PER, covariates=covariates)
        return Decoded(rate, own.mean.cpu().numpy())

    combinations = _combinations(vae)
    if covariates != "average" or not combinations or not _proportional(vae, name):
        return apart
    design = torch.stack([design_row(vae.schema, chosen) for chosen in combinations])
    level = (observations.covariates.unsqueeze(1) == design).all(-1).int().argmax(1).numpy()
    exposure = observations.exposure[m]
    depth = np.ones((len(observations), 1), np.float32) if exposure is None else exposure.numpy() / PER

    def together(z: np.ndarray, rows: np.ndarray) -> Decoded:
        """What a row was measured as is among what is averaged: nothing is decoded twice."""
        rates = [vae.decode(z, modality=name, library=PER, covariates=chosen) for chosen in combinations]
        if len(rates) == 1:
            return Decoded(rates[0], rates[0] * depth[rows])
        own = np.stack(rates)[level[rows], np.arange(len(rows))]
        return Decoded(np.mean(rates, axis=0), own * depth[rows])

    return together


def _combinations(vae: VAE) -> list[dict[str, str]]:
    """Of the levels of all covariates, one after the other; none where one is a number, or where they are too many."""
    levels = [c.categories for c in vae.schema.covariates if isinstance(c, CategoricalCovariate)]
    if len(levels) < len(vae.schema.covariates) or math.prod(map(len, levels)) > MOST:
        return []
    names = [c.name for c in vae.schema.covariates]
    return [dict(zip(names, chosen, strict=True)) for chosen in itertools.product(*levels)]


def _proportional(vae: VAE, name: str) -> bool:
    """Whether the mean is exposure times something: tried at the centre, because a likelihood does not say."""
    centre = np.zeros((1, vae.latent), dtype=np.float32)
    once, twice = (vae.decode(centre, modality=name, library=library) for library in (PER, 2 * PER))
    return bool(np.allclose(twice, 2 * once, rtol=1e-4))
