"""What is true of simulated data, computed from the parameters that `simulate` left in the AnnData.

    expected          composition that the biology asks for, of the cells or anywhere on the map
    expected_counts   the mean of X: batch, library, hidden factors, partner, soup and dropout included
    forbidden         whether the biology can be at a place
    bayes_types       types told by the true parameters: how well anybody can do

All of them work on a subset of the cells; genes must be complete, since shares are taken over all of them.
"""

from typing import NamedTuple

import numpy as np
import pandas as pd
from anndata import AnnData
from jaxtyping import Bool, Float, Int
from scipy.special import logsumexp

from biovae.datasets.landscape import Landscape
from biovae.datasets.world import Cells, World, chunks, softmax
from biovae.errors import InputError, first

PLACES = 9  # along a piece of positive length, for the Bayes classifier


class BayesTypes(NamedTuple):
    """The most probable type of each cell; the share that is right, doublets and outliers left out."""

    labels: pd.Series
    accuracy: float


def expected(adata: AnnData, latent: Float[np.ndarray, "cells 2"] | None = None) -> Float[np.ndarray, "cells genes"]:
    """Mean shares of counts that the programmes give, without batch, noise, partner, soup or dropout.

    Args:
        adata: Simulated data.
        latent: Places on the map, permitted or not; by default those of the cells.

    Raises:
        InputError: If the data were not simulated here, or lack some genes.
    """
    world = world_of(adata)
    return softmax(world.log_expression(adata.obsm["latent_true"] if latent is None else np.asarray(latent)))


def expected_counts(adata: AnnData) -> Float[np.ndarray, "cells genes"]:
    """The mean that every count of `X` was drawn around, dropout included.

    Raises:
        InputError: As `expected`, or if the partner of a doublet is not among the cells.
    """
    world, cells = world_of(adata), cells_of(adata)
    lost = (cells.partner < 0) & (adata.obs["partner_true"] != "").to_numpy()
    if lost.any():
        raise InputError(
            f"expected the partner of every doublet among the cells, found {lost.sum()} without "
            f"({first(adata.obs_names[lost])}): take expected_counts before a subset of the cells."
        )
    mu = world.mean_counts(cells, np.arange(adata.n_obs))
    return mu * world.kept(mu)


def forbidden(adata: AnnData, latent: Float[np.ndarray, "cells 2"]) -> Bool[np.ndarray, "cells"]:
    """Whether no state of the simulated biology reaches a place on the map.

    A bridge is permitted even where it was left unsampled. `adata.uns["truth"]["gaps"]` holds the two ends of the gap.
    """
    return world_of(adata).landscape.forbidden(np.asarray(latent, dtype=float))


def bayes_types(adata: AnnData) -> BayesTypes:
    """Types told by argmax of log share + log p(x | state) over the states that occur, all other parameters known.

    Known are batch, library, ambient share, dispersion and dropout. A state is the mixture of 9 places along its piece,
    without the spread around it or hidden factors: where these are large the accuracy is a lower bound of the best.
    """
    world, cells = world_of(adata), cells_of(adata)
    states, places = _places(world.landscape)
    f = world.log_expression(places)
    score = np.empty((adata.n_obs, len(world.landscape.names)))
    for rows in _rows_by_batch(cells.batch, adata.n_vars):
        x = np.asarray(adata.X[rows].toarray(), dtype=np.float32)
        batch = cells.batch[rows[0]]
        compositions = softmax(f + world.batch_effect[:, batch].astype(np.float32))
        log_px = np.empty((len(rows), len(places)))
        for place, rho in enumerate(compositions):
            rho = (1 - cells.ambient[rows, None]) * rho + cells.ambient[rows, None] * world.ambient[:, batch]
            log_px[:, place] = _log_likelihood(x, (cells.library[rows, None] * rho).astype(np.float32), world)
        for state in range(score.shape[1]):
            mixture = log_px[:, states == state]
            score[rows, state] = logsumexp(mixture, axis=1) - np.log(mixture.shape[1])
    names = np.array(world.landscape.names)
    score += np.log(world.landscape.shares)
    score[:, ~np.isin(names, adata.obs["cell_type"].unique())] = -np.inf
    labels = pd.Series(pd.Categorical.from_codes(score.argmax(1), names), index=adata.obs_names, name="bayes_type")
    ordinary = (adata.obs["doublet_true"] == "singlet") & ~adata.obs["outlier_true"].astype(bool)
    right = labels.astype(str) == adata.obs["cell_type"].astype(str)
    return BayesTypes(labels, float(right[ordinary].mean()))


def world_of(adata: AnnData) -> World:
    """Read the true parameters back.

    Raises:
        InputError: If the data were not simulated here, or lack some genes.
    """
    if "truth" not in adata.uns:
        raise InputError("expected data from biovae.datasets.simulate, found no uns['truth']: simulate some.")
    truth = adata.uns["truth"]
    if adata.n_vars != truth["genes"]:
        raise InputError(
            f"expected all {truth['genes']} genes that were simulated, found {adata.n_vars}: "
            "compute the truth before a subset of the genes, then take the same columns of it."
        )
    landscape = Landscape(
        names=tuple(truth["states"]),
        **{key: np.asarray(truth[key]) for key in ("pieces", "pseudotime", "shares", "gaps")},
        spread=float(truth["spread"]),
    )
    return World(
        landscape=landscape,
        **{key: np.asarray(truth[key]) for key in ("anchors", "halfway", "directions", "thresholds")},
        **{key: adata.var[f"{key}_true"].to_numpy() for key in ("baseline", "outlier", "dispersion")},
        **{key: adata.varm[f"{key}_true"] for key in ("batch_effect", "hidden", "ambient")},
        loadings=adata.varm["programmes_true"],
        dropout=float(truth["dropout"]),
    )


def cells_of(adata: AnnData) -> Cells:
    """Read the truth of each droplet back; a partner that is not among the cells counts as none."""
    obs = adata.obs
    return Cells(
        latent=adata.obsm["latent_true"],
        batch=pd.Index(adata.uns["truth"]["batches"]).get_indexer(obs["batch"]),
        hidden=adata.obsm["hidden_true"],
        partner=adata.obs_names.get_indexer(obs["partner_true"]),
        **{key: obs[f"{key}_true"].to_numpy() for key in ("library", "ambient", "outlier")},
    )


def _places(landscape: Landscape) -> tuple[Int[np.ndarray, "places"], Float[np.ndarray, "places 2"]]:
    """Places that stand for each state, and the state of each."""
    states, places = [], []
    for state, (start, end) in enumerate(landscape.pieces):
        count = PLACES if (start != end).any() else 1
        along = (np.arange(count) + 0.5) / count
        states.append(np.full(count, state))
        places.append(start + along[:, None] * (end - start))
    return np.concatenate(states), np.concatenate(places)


def _rows_by_batch(batch: Int[np.ndarray, "cells"], genes: int) -> list[np.ndarray]:
    return [rows for b in np.unique(batch) for rows in chunks(np.flatnonzero(batch == b), genes)]


def _log_likelihood(
    x: Float[np.ndarray, "cells genes"], mu: Float[np.ndarray, "cells genes"], world: World
) -> Float[np.ndarray, "cells"]:
    """log p(x | mu) of gamma-Poisson counts with dropout, up to a constant of x.

    NB: x log(mu / (r + mu)) - r log(1 + mu / r) with r = 1 / dispersion; Poisson: x log mu - mu.
    """
    if world.dispersion.any():
        r = (1 / world.dispersion).astype(np.float32)
        per_count, at_zero = np.log(mu / (r + mu)), -r * np.log1p(mu / r)
    else:
        per_count, at_zero = np.log(mu), -mu
    log_p = x * per_count + at_zero
    if world.dropout:
        kept = world.kept(mu)
        log_p = np.where(x == 0, np.log(1 - kept + kept * np.exp(at_zero)), log_p + np.log(kept))
    return log_p.sum(1, dtype=float)
