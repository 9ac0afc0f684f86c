"""Trajectories of a fitted model: from a root through z to the ends, and what changes on the way."""

import itertools
from collections.abc import Iterable, Mapping, Sequence
from colorsys import hsv_to_rgb
from dataclasses import replace
from typing import TypeAlias

import numpy as np
import pandas as pd
import scipy.sparse
from anndata import AnnData
from jaxtyping import Float, Int
from mudata import MuData

from biovae.analysis import (
    Baseline,
    Direction,
    Trajectory,
    central,
    compare_orders,
    diffusion_pseudotime,
    log_normalise,
    most_changing,
    stage_ranks,
)
from biovae.analysis import direction as check_direction
from biovae.analysis import trajectory as find
from biovae.analysis import trends as fit_trends
from biovae.analysis.trajectories.trends import UNBOUNDED
from biovae.batch import Observations, plain
from biovae.data.covariates import label
from biovae.errors import InputError, closest, first, listed
from biovae.model import VAE
from biovae.model.generate import positions
from biovae.model.inference import everything, posterior_draws, posterior_moments
from biovae.noise import Noise
from biovae.schema import Support
from biovae.tools.arguments import model_and_data, one_group
from biovae.tools.labels import Labels, carried, left_out, levels, present, quantities
from biovae.tools.latent import linear, support_of
from biovae.training.progress import passing
from biovae.training.working import working

Root: TypeAlias = str | Sequence[str] | Mapping[str, str] | np.ndarray
COMPONENTS = 20  # of the baseline
SHOWN = 12  # features whose trends are drawn where none are named
BOUNDS = {Support.COUNTS: (0.0, np.inf), Support.BINARY: (0.0, 1.0), Support.REALS: UNBOUNDED}


def trajectory(  # noqa: PLR0913 - a user's door
    vae: VAE,
    data: AnnData | MuData,
    root: Root,
    *,
    groups: str | None = None,
    ends: Sequence[str] | str | None = None,
    order: Sequence[str | Sequence[str]] | None = None,
    baseline: bool = True,
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
        groups: Column of `obs` that ends are named after; observations without a label have no say in it.
        ends: Levels of `groups` that are ends: the later half of each absorbs. Found as peaks of pseudotime where not
            given, which misses branches that are short beside the whole.
        order: Levels of `groups` in the order of stages that is known, those that share a stage in a list of their own,
            `["Ductal", "Pre-endocrine", ["Alpha", "Beta"]]`: which is nearer to it, the trajectory or the baseline?
        baseline: Compare with diffusion pseudotime from the same root on 20 principal components of the first modality,
            log-normalised where it is counts, covariates regressed out; some 30 s for 40,000 observations.
        draws: Samples of z from the posterior. Everything is repeated for each, a neighbour search included, which
            takes some 6 s for 40,000 observations. 0 leaves the uncertainty out; a spread needs 2.
        seed: Of the draws.
        progress: Show a bar on a terminal.

    Returns:
        `pseudotime`, `fates` (indexed by the names of the observations), `branch`, `ends`, `deviation`, `agreement`,
        `baseline`; printed, it says what was found, which ends the data do not show a transition to, how far the simple
        order agrees, and which of the two is nearer to a known order.

    Raises:
        InputError: The root, an end or a stage is not there, a stage is named twice, no observation has a group, or
            draws are negative or a single one.
    """
    model_and_data(vae, data, draws=draws, seed=seed)
    if draws == 1:
        raise InputError(f"expected 0 draws, or at least 2 to have a spread, found {draws}: take 20, or 0 for none.")
    observations = vae.observe(data).observations
    rows = everything(observations)
    z = posterior_moments(vae.network, observations, rows).mean
    labels = None if groups is None else levels(data, groups)
    given = None if ends is None else _given(labels, ends, str(groups))
    stage = None if order is None else _stages(labels, order, str(groups), baseline=baseline)
    samples = posterior_draws(vae.network, observations, rows, Noise(seed), draws)
    start = root_rows(data, z, root)
    maps = passing(itertools.chain([z], samples), 1 + draws, "walking", show=progress)
    found = find(next(maps), start, given=given, labels=labels, draws=maps)
    with working("walking on principal components", show=progress):
        simple = _baseline(observations, found, labels, stage, seed) if baseline else None
    said = () if labels is None else left_out(labels, groups)
    fates = found.fates.set_axis(data.obs_names)  # by which other data are told from these
    return replace(found, fates=fates, said=said, baseline=simple)


def trends(  # noqa: PLR0913 - a user's door
    vae: VAE,
    data: AnnData | MuData,
    found: Trajectory,
    features: Sequence[str] | str | None = None,
    *,
    modality: str | None = None,
    seed: int = 0,
    progress: bool = True,
) -> pd.DataFrame:
    """Smooth curves of features along every branch, with 90 % intervals: of the data, not of what is decoded.

    Counts are taken as log1p of counts per 10,000, other values as they are. The intervals hold the doubt about
    the mean and, where the trajectory has draws, about pseudotime and fates. They are NaN where a branch has hardly an
    observation. `bv.pl.trends` draws the result.

    Args:
        vae: The model, for its features.
        data: The observations of the trajectory; not changed.
        found: Of `trajectory`.
        features: Names; by default the dozen that pseudotime explains best on any branch, of those that at least 10
            of its observations express.
        modality: Which one; None takes the first.
        seed: Of the bootstrap.
        progress: Show a bar on a terminal, lines elsewhere.

    Raises:
        InputError: The data are not those of the trajectory, a feature is not there, or none can be chosen.
    """
    model_and_data(vae, data, seed=seed)
    _expect_same(data, found)
    m = vae.index(modality)
    quantities(vae, modality)
    observations = vae.observe(data).observations
    carried(observations, m)
    exposure = observations.exposure[m]
    x = plain(observations.x[m])
    y = x if exposure is None else log_normalise(x, exposure[:, 0].numpy().astype(np.float64))
    names, bounds = vae.features(modality), BOUNDS[support_of(vae, modality)]
    with working("choosing features", show=progress):
        chosen = most_changing(y, names, found, SHOWN, bounds=bounds) if features is None else listed(features)
    if not chosen:
        raise InputError(
            "expected features that change along a branch and that at least 10 of its observations express, found "
            "none: name features."
        )
    with working("fitting trends", show=progress):
        return fit_trends(y[:, positions(names, chosen)], chosen, found, bounds=bounds, seed=seed)


def direction(data: AnnData, found: Trajectory, *, spliced: str = "spliced", unspliced: str = "unspliced") -> Direction:
    """Ask unspliced RNA whether pseudotime runs forward.

    Args:
        data: The observations of the trajectory, with both layers; not changed.
        found: Of `trajectory`.
        spliced: Layer of spliced counts.
        unspliced: Layer of unspliced counts.

    Raises:
        InputError: The data are not those of the trajectory, or a layer is not there.
    """
    if not isinstance(data, AnnData):
        raise InputError(f"expected an AnnData with layers, found {type(data).__name__}: pass that of the counts.")
    _expect_same(data, found)
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
        obs["term_states_fwd_probs"]      1 there, missing elsewhere         uns["term_states_fwd_colors"]  (CellRank)
        obsm["lineages_fwd"]              fates, columns in the order of those categories (CellRank)
        obsm["fate_probabilities"]        the same with names
        obsp["connectivities"], obsp["distances"], uns["neighbors"]      the graph in z (scanpy, CellRank's kernels)
        uns["iroot"]                      the root's row (scanpy)

    CellRank's `Lineage.from_adata` and plots read the fates, `CFLARE.from_adata` the terminal states; its estimators
    keep fates only where they computed them, from `set_terminal_states(adata.obs["term_states_fwd"])`.

    Raises:
        InputError: Other observations than those of the trajectory, or another order of them.
    """
    if not isinstance(adata, AnnData | MuData):
        raise InputError(
            f"expected an AnnData to write into, found {type(adata).__name__}: pass that of the trajectory."
        )
    _expect_same(adata, found)
    names = [*found.fates.columns]
    fates = found.fates.to_numpy()
    adata.obs["dpt_pseudotime"] = found.pseudotime
    adata.obs["pseudotime_sd"] = found.deviation
    adata.obs["branch"] = pd.Categorical(found.branch)
    adata.obs["branch_agreement"] = found.agreement
    adata.obs["term_states_fwd"] = pd.Categorical.from_codes(found.absorbing, names)
    adata.obs["term_states_fwd_probs"] = np.where(found.absorbing >= 0, 1.0, np.nan)
    adata.uns["term_states_fwd_colors"] = [_hue(i / len(names)) for i in range(len(names))]
    adata.obsm["lineages_fwd"] = fates
    adata.obsm["fate_probabilities"] = found.fates.set_axis(adata.obs_names)
    adata.obsp["connectivities"] = scipy.sparse.csr_matrix(found.neighbours.affinity)
    adata.obsp["distances"] = scipy.sparse.csr_matrix(found.neighbours.lengths)
    params = {"n_neighbors": found.neighbours.k, "method": "gauss", "metric": "euclidean"}
    if "X_vae" in adata.obsm:
        params["use_rep"] = "X_vae"
    adata.uns["neighbors"] = {"connectivities_key": "connectivities", "distances_key": "distances", "params": params}
    adata.uns["iroot"] = int(found.root[0])


def _given(labels: Labels | None, ends: Sequence[str] | str, name: str) -> dict[str, Int[np.ndarray, "members"]]:
    """Rows of the groups that are ends."""
    if labels is None:
        raise InputError("expected groups to find the ends in, found none: name the column of obs, groups=...")
    return {end: np.flatnonzero(_member(labels, end, name)) for end in listed(ends)}


def _baseline(
    observations: Observations, found: Trajectory, labels: np.ndarray | None, stage: np.ndarray | None, seed: int
) -> Baseline | None:
    """Diffusion pseudotime on principal components; NaN where the first modality is missing, None where at the root."""
    rows = observations.carriers(0).cpu().numpy()
    root = np.flatnonzero(np.isin(rows, found.root))
    if not len(root):
        return None
    scores = linear(observations, COMPONENTS, seed=seed).scores[rows]
    known = observations.covariates.cpu().numpy()[rows].astype(np.float64)
    known = np.hstack([np.ones((len(rows), 1)), known])
    scores = scores - known @ np.linalg.lstsq(known, scores)[0]
    t = np.full(len(observations), np.nan)
    t[rows] = diffusion_pseudotime(scores, root)
    name = f"diffusion pseudotime on {scores.shape[1]} principal components"
    if known.shape[1] > 1:
        name += " without the covariates"
    return compare_orders(found.pseudotime, t, name, labels=labels, stage=stage, seed=seed)


def _stages(
    labels: np.ndarray | None, order: Sequence[str | Sequence[str]], name: str, *, baseline: bool
) -> Float[np.ndarray, "obs"]:
    """The known rank of each observation."""
    if labels is None or not baseline:
        lacks = "groups, the column of obs that the order is of," if labels is None else "baseline=True"
        raise InputError(f"expected {lacks} to judge two orders by known stages, found none: give it.")
    order = listed(order)
    named = [level for stage in order for level in ([stage] if isinstance(stage, str) else stage)]
    twice = sorted({level for level in named if named.count(level) > 1})
    if twice or len(order) < 2:
        raise InputError(
            f"expected 2 stages at least, each group in one of them, found {len(order)} and {len(twice)} groups named "
            f"twice{f' ({first(twice)})' if twice else ''}: put groups that share a stage in a list of their own."
        )
    for level in named:
        _member(labels, level, name)
    return stage_ranks(labels, [[label(level)] if isinstance(level, str) else [*map(label, level)] for level in order])


def _hue(share: float) -> str:
    return "#" + "".join(f"{round(255 * part):02x}" for part in hsv_to_rgb(share, 0.65, 0.8))


def _expect_same(data: AnnData | MuData, found: Trajectory) -> None:
    """Refuse other observations; a trajectory made without a tool knows no names, and only their number is compared."""
    if not isinstance(found, Trajectory):
        raise InputError(f"expected a trajectory, found {type(found).__name__}: bv.tl.trajectory finds one.")
    known, given = found.fates.index, data.obs_names
    remedy = "pass the data that it was computed from, or data[found.fates.index] where all are among them."
    if len(known) != len(given):
        raise InputError(
            f"expected the {len(known):,} observations of the trajectory, found {len(given):,} observations: {remedy}"
        )
    strange = np.flatnonzero(known.to_numpy(dtype=object) != given.to_numpy(dtype=object))
    if len(strange) and not isinstance(known, pd.RangeIndex):
        i = strange[0]
        raise InputError(
            f"expected the observations of the trajectory in its order, found {given[i]!r} in place of {known[i]!r} "
            f"and {len(strange):,} of {len(known):,} that differ: {remedy}"
        )


def _member(labels: np.ndarray, level: str, name: str) -> np.ndarray:
    member = labels == label(level)
    if not member.any():
        raise InputError(f"expected a level of {name!r}, found {level!r}: {closest(label(level), present(labels))}")
    return member


def root_rows(data: AnnData | MuData, z: np.ndarray, root: Root) -> Int[np.ndarray, "roots"]:
    """Positions of the observations that a root names, of a group the most central in z; an array of them is kept."""
    if isinstance(root, np.ndarray) and root.dtype.kind in "iu":
        return root
    if isinstance(root, Mapping):
        name, level = one_group(root, "root")
        return np.array([central(z, _member(levels(data, name), level, name))])
    names = [root] if isinstance(root, str) or not isinstance(root, Iterable) else [*root]
    odd = [f"{name} ({type(name).__name__})" for name in names if not isinstance(name, str)]
    if odd or not names:
        raise InputError(
            f"expected names of observations, or one group as {{column: level}}, as root, found "
            f"{odd[0] if odd else 'none'}: take some of obs_names, or name a group as {{'cell_type': 'stem'}}."
        )
    found = [np.flatnonzero(data.obs_names == name) for name in names]
    strange = [name for name, rows in zip(names, found, strict=True) if len(rows) != 1]
    if strange:
        raise InputError(
            f"expected names that one observation each has as root, found {len(strange)} others ({first(strange)}): "
            "take some of obs_names, or name a group as {'cell_type': 'stem'}."
        )
    return np.concatenate(found)
