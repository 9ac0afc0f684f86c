"""Trajectories of a fitted model: from a root through z to the ends, and what changes on the way."""

from collections.abc import Mapping, Sequence
from typing import TypeAlias

import numpy as np
import pandas as pd
import scipy.sparse
from anndata import AnnData
from jaxtyping import Int
from mudata import MuData

from biovae.analysis import Direction, Trajectory, central, log_normalise, most_changing
from biovae.analysis import direction as check_direction
from biovae.analysis import trajectory as find
from biovae.analysis import trends as fit_trends
from biovae.batch import plain
from biovae.errors import InputError, closest, first
from biovae.model import VAE
from biovae.model.generate import positions
from biovae.model.inference import everything, posterior_draws, posterior_moments
from biovae.noise import Noise
from biovae.tools.labels import carried, complete, quantities
from biovae.training.progress import passing

Root: TypeAlias = str | Sequence[str] | Mapping[str, str] | np.ndarray
SHOWN = 12  # features whose trends are drawn where none are named


def trajectory(  # noqa: PLR0913 - a user's door
    vae: VAE,
    data: AnnData | MuData,
    root: Root,
    *,
    groups: str | None = None,
    ends: Sequence[str] | None = None,
    draws: int = 20,
    seed: int = 0,
    progress: bool = True,
) -> Trajectory:
    """Pseudotime from a root over the neighbour graph of z, its branches and fates, and how sure all of them are.

    Args:
        vae: A fitted model.
        data: The observations; not changed.
        root: A name of an observation; several, such as all those of a cluster; or `{"cell_type": "Ductal"}` for the
            most central observation of that group.
        groups: Column of `obs` that ends are named after.
        ends: Levels of `groups` that are ends: the later half of each absorbs. Found as peaks of pseudotime where not
            given, which misses branches that are short beside the whole.
        draws: Samples of z from the posterior. Everything is repeated for each, a neighbour search included, which
            takes some 6 s for 40,000 observations. 0 leaves the uncertainty out.
        seed: Of the draws.
        progress: Show a bar on a terminal.

    Returns:
        `pseudotime`, `fates`, `branch`, `ends`, `deviation`, `agreement`; printed, it says what was found.

    Raises:
        InputError: The root or an end is not there, or a group has missing values.
    """
    observations = vae.observe(data).observations
    rows = everything(observations)
    z = posterior_moments(vae.network, observations, rows).mean
    labels = None if groups is None else complete(data, groups).astype(str).to_numpy()
    given = None
    if ends is not None:
        if labels is None:
            raise InputError("expected groups to find the ends in, found none: name the column of obs, groups=...")
        given = {end: np.flatnonzero(_member(labels, end, str(groups))) for end in ends}
    samples = posterior_draws(vae.network, observations, rows, Noise(seed), draws)
    shown = passing(samples, draws, "drawing", show=progress)
    return find(z, root_rows(data, z, root), given=given, labels=labels, draws=shown)


def trends(
    vae: VAE,
    data: AnnData | MuData,
    found: Trajectory,
    features: Sequence[str] | None = None,
    *,
    modality: str | None = None,
    seed: int = 0,
) -> pd.DataFrame:
    """Smooth curves of features along every branch, with 90 % intervals: of the data, not of what is decoded.

    Counts are taken as log1p of counts per 10,000, other values as they are. The intervals hold the doubt about
    the mean and, where the trajectory has draws, about pseudotime and fates. `bv.pl.trends` draws the result.

    Args:
        vae: The model, for its features.
        data: The observations of the trajectory; not changed.
        found: Of `trajectory`.
        features: Names; by default the dozen that pseudotime explains best on any branch.
        modality: Which one; None takes the first.
        seed: Of the bootstrap.
    """
    m = vae.index(modality)
    quantities(vae, modality)
    observations = vae.observe(data).observations
    carried(observations, m)
    exposure = observations.exposure[m]
    x = plain(observations.x[m])
    y = np.asarray(x) if exposure is None else log_normalise(x, exposure[:, 0].numpy().astype(np.float64))
    names = vae.features(modality)
    chosen = most_changing(y, names, found, SHOWN) if features is None else list(features)
    return fit_trends(y[:, positions(names, chosen)], chosen, found, seed=seed)


def direction(data: AnnData, found: Trajectory, *, spliced: str = "spliced", unspliced: str = "unspliced") -> Direction:
    """Ask unspliced RNA whether pseudotime runs forward.

    Args:
        data: The observations of the trajectory, with both layers; not changed.
        found: Of `trajectory`.
        spliced: Layer of spliced counts.
        unspliced: Layer of unspliced counts.

    Raises:
        InputError: A layer is not there.
    """
    for name in (spliced, unspliced):
        if name not in data.layers:
            raise InputError(f"expected a layer {name!r}, found none: {closest(name, data.layers)}")
    return check_direction(data.layers[spliced], data.layers[unspliced], found)


def write_trajectory(adata: AnnData, found: Trajectory) -> None:
    """Write a trajectory into an AnnData, under the names that scanpy and CellRank read.

        obs["dpt_pseudotime"]             t; the name is scanpy's, the method is not its diffusion pseudotime
        obs["pseudotime_sd"]              standard deviation over draws      obs["branch_agreement"]  share of draws
        obs["branch"]                     the end committed to, or "trunk"
        obs["term_states_fwd"]            name of the end that absorbs an observation, missing elsewhere (CellRank)
        obsm["lineages_fwd"]              fates, columns in the order of those categories (CellRank)
        obsm["fate_probabilities"]        the same with names
        obsp["connectivities"], obsp["distances"], uns["neighbors"]      the graph (scanpy, CellRank's kernels)
        uns["iroot"]                      the root's row (scanpy)

    Raises:
        InputError: Other observations than those of the trajectory, by their number.
    """
    if adata.n_obs != len(found.pseudotime):
        raise InputError(
            f"expected the {len(found.pseudotime):,} observations of the trajectory, found {adata.n_obs:,}: pass the "
            "data that it was computed from."
        )
    names = [*found.fates.columns]
    fates = found.fates.to_numpy()
    adata.obs["dpt_pseudotime"] = found.pseudotime
    adata.obs["pseudotime_sd"] = found.deviation
    adata.obs["branch"] = pd.Categorical(found.branch)
    adata.obs["branch_agreement"] = found.agreement
    adata.obs["term_states_fwd"] = pd.Categorical.from_codes(found.absorbing, names)
    adata.obsm["lineages_fwd"] = fates
    adata.obsm["fate_probabilities"] = found.fates.set_axis(adata.obs_names)
    adata.obsp["connectivities"] = scipy.sparse.csr_matrix(found.graph.affinity)
    adata.obsp["distances"] = scipy.sparse.csr_matrix(found.graph.lengths)
    params = {"n_neighbors": found.graph.k, "method": "gauss", "metric": "euclidean"}
    if "X_vae" in adata.obsm:
        params["use_rep"] = "X_vae"
    adata.uns["neighbors"] = {"connectivities_key": "connectivities", "distances_key": "distances", "params": params}
    adata.uns["iroot"] = int(found.root[0])


def _member(labels: np.ndarray, level: str, name: str) -> np.ndarray:
    member = labels == str(level)
    if not member.any():
        raise InputError(f"expected a level of {name!r}, found {level!r}: {closest(str(level), np.unique(labels))}")
    return member


def root_rows(data: AnnData | MuData, z: np.ndarray, root: Root) -> Int[np.ndarray, "roots"]:
    """Positions of the observations that a root names; of a group the most central in z."""
    if isinstance(root, np.ndarray) and root.dtype.kind in "iu":
        return root
    if isinstance(root, Mapping):
        if len(root) != 1:
            raise InputError(f"expected one column and one level as root, found {len(root)}: {{'cell_type': 'stem'}}.")
        ((name, level),) = root.items()
        return np.array([central(z, _member(complete(data, name).astype(str).to_numpy(), level, name))])
    names = [root] if isinstance(root, str) else [*root]
    found = [np.flatnonzero(data.obs_names == name) for name in names]
    strange = [name for name, rows in zip(names, found, strict=True) if len(rows) != 1]
    if strange or not found:
        raise InputError(
            f"expected names that one observation each has as root, found {len(strange)} others ({first(strange)}): "
            "take some of obs_names, or name a group as {'cell_type': 'stem'}."
        )
    return np.concatenate(found)
