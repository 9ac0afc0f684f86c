"""Odd observations: surprising, unsupported, or two cells in one; with p-values, and simple scores beside them."""

from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pandas as pd
from anndata import AnnData
from jaxtyping import Bool
from mudata import MuData

from biovae.analysis import density, leiden
from biovae.analysis.oddities import anomalies as a
from biovae.analysis.oddities.anomalies import Anomalies
from biovae.analysis.oddities.doublets import contamination
from biovae.analysis.space.density import tail
from biovae.batch import Observations, SparseMatrix
from biovae.model import VAE
from biovae.schema import Support
from biovae.tools.arguments import model_and_data, whole
from biovae.tools.doublets import Droplets, Looked, Way, designs, doublets, look
from biovae.tools.labels import left_out, levels, named, strata
from biovae.training.working import working

ORDINARY = 20  # observations that p-values can be measured by, at least


def anomalies(  # noqa: PLR0913 - a user's door
    vae: VAE,
    data: AnnData | MuData,
    *,
    normal: str | np.ndarray | None = None,
    groups: str | None = None,
    modality: str | None = None,
    draws: int = 8,
    seed: int = 0,
    progress: bool = True,
) -> Anomalies:
    """A score of each kind for every observation, with a p-value and the expected share of false calls.

    Surprise asks whether the values are unlikely at the observation's own z and depth, misfit whether counts lie on
    other features than z lets expect (a state that the model has never seen), depth whether there are more or fewer
    counts than others near z have (damage, or two cells), support whether z lies where others lie, doublet whether the
    observation is like sums of two observations of different groups. A droplet with two cells of one group differs from
    a single cell in its total alone; the record says how often such are found. Of an ensemble the scores are those of
    the first fit, and `agree` says in what share of all fits an observation is called.

    Args:
        vae: A fitted model.
        data: The observations; not changed.
        normal: Boolean column of `obs`, or array: ordinary observations that training has not seen. p-values are then
            uniform on others like them. Without them see `biovae.analysis.oddities.anomalies`.
        groups: Column of `obs` with the kinds of which doublets are made, from observations with a label; all are asked
            about. None takes clusters of the latent neighbour graph.
        modality: Of the counts in which a second state is looked for; None takes the first.
        draws: Replicates of each observation, at least 3.
        seed: Of every draw.
        progress: Show a bar on a terminal.

    Returns:
        See `Anomalies`; `called(fdr)` for those to look at, `trials` for what the scores are worth.

    Raises:
        InputError: A column is missing or not of its kind, there is one group only, or fewer than 20 normal ones.
    """
    model_and_data(vae, data, seed=seed)
    whole(3, draws=draws)
    ordinary = None if normal is None else named(data, normal, ORDINARY)
    given = None if groups is None else levels(data, groups, 2)
    ways = [Way(fit, fit.index(modality), draws, seed, progress) for fit in vae.members]
    found = a.among_fits([_one_fit(way, data, ordinary, given) for way in ways])
    return found if given is None else replace(found, said=found.said + left_out(given, groups))


def _one_fit(way: Way, data: AnnData | MuData, ordinary: np.ndarray | None, given: np.ndarray | None) -> Anomalies:
    vae, seed = way.vae, way.seed
    observations = vae.observe(data).observations
    looked = look(way, observations)
    with working("measuring support", show=way.show):
        rarity, rarity_at = _rarity(looked, ordinary, seed)
        scores, p = _discrepancies(observations, way.m, looked, ordinary)
    scores["rarity"], p["support"] = rarity, a.conformal(rarity, _or_all(ordinary, rarity))
    fdr = {kind: _adjusted(of, ordinary) for kind, of in p.items()}
    said, trials, share, stratum = _unfit(vae, observations), pd.DataFrame(), float("nan"), strata(vae, data)
    kinds, said = (None, said) if said else _kinds(given, looked, stratum, seed)
    if kinds is not None and not said:
        droplets = Droplets(observations, looked, designs(observations)[1], stratum)
        found = doublets(way, droplets, (rarity, rarity_at), kinds, np.flatnonzero(_or_all(ordinary, rarity)))
        scores |= {"doublet": found.odds, "gain": found.gain.gain}
        scores |= {"partner": found.states[found.gain.state], "part": found.gain.part}
        p["doublet"], fdr["doublet"], share = _p_doublet(found.odds, found.made, ordinary)
        trials = found.trials
    frame = _frame(scores, p, fdr, ordinary).set_axis(pd.Index(data.obs_names))
    return Anomalies(frame, tuple(p), ordinary is not None, trials, share, said)


def _or_all(ordinary: np.ndarray | None, like: np.ndarray) -> Bool[np.ndarray, "obs"]:
    return np.ones(len(like), dtype=bool) if ordinary is None else ordinary


def _rarity(
    looked: Looked, ordinary: np.ndarray | None, seed: int
) -> tuple[np.ndarray, Callable[[np.ndarray], np.ndarray]]:
    """-log density of ordinary observations at each z, without its own part in it; and at any other z."""
    among = _or_all(ordinary, looked.z)
    q = density(looked.z[among], looked.variance[among], seed=seed)
    rarity = np.empty(len(among))
    rarity[among] = -q.log_density(looked.z[among], np.arange(int(among.sum())))
    if not among.all():
        rarity[~among] = -q.log_density(looked.z[~among])
    return rarity, lambda z: -q.log_density(z)


def _discrepancies(
    observations: Observations, m: int, looked: Looked, ordinary: np.ndarray | None
) -> tuple[dict[str, np.ndarray], dict[str, np.ndarray]]:
    """Scores, and their p, that compare values with what the model says, and totals of modality m with neighbours'."""
    scores, p = {"surprise": looked.surprise}, {"surprise": _p_measured(looked.surprise, looked.among, ordinary)}
    if any(isinstance(x, SparseMatrix) for x in observations.x):
        scores["misfit"] = looked.misfit
        p["misfit"] = _p_measured(looked.misfit, looked.misfit_among, ordinary)
    present = observations.present[m]
    if isinstance(observations.x[m], SparseMatrix) and (present is None or bool(present.all())):
        everyone = _or_all(ordinary, looked.z)
        scores["depth"] = a.unlike_neighbours(looked.z, np.log1p(looked.total), everyone)
        p["depth"] = a.conformal(scores["depth"], everyone)
    return scores, p


def _p_measured(score: np.ndarray, among: np.ndarray, ordinary: np.ndarray | None) -> np.ndarray:
    """p of a discrepancy: by ordinary observations, else by replicates."""
    if ordinary is not None:
        return a.conformal(score, ordinary)
    return tail(score, a.placed(among.ravel(), score))


def _p_doublet(odds: np.ndarray, made: np.ndarray, ordinary: np.ndarray | None) -> tuple[np.ndarray, np.ndarray, float]:
    """p, expected share of false calls, and the share of doublets among those that are asked about."""
    asked = _or_all(None if ordinary is None else ~ordinary, odds)
    found = contamination(odds[asked] if asked.any() else odds, made)
    if ordinary is None:
        return found.p, found.fdr, found.share
    p = a.conformal(odds, ordinary)
    return p, _adjusted(p, ordinary), found.share


def _adjusted(p: np.ndarray, ordinary: np.ndarray | None) -> np.ndarray:
    """Over the observations that are asked about; NaN for those that were said to be ordinary."""
    asked = _or_all(None if ordinary is None else ~ordinary, p)
    found = np.full(len(p), np.nan)
    if asked.any():
        found[asked] = a.adjusted(p[asked])
    return found


def _frame(scores: dict, p: dict, fdr: dict, ordinary: np.ndarray | None) -> pd.DataFrame:
    each = pd.DataFrame(p)
    frame = pd.concat([pd.DataFrame(scores), each.add_prefix("p_"), pd.DataFrame(fdr).add_prefix("fdr_")], axis=1)
    frame["p_value"] = a.together(each, ordinary)
    frame["fdr"] = _adjusted(frame["p_value"].to_numpy(), ordinary)
    frame["oddity"] = a.oddity(each.drop(columns="doublet", errors="ignore"))
    frame["kind"] = each.columns.to_numpy()[each.to_numpy().argmin(1)]
    return frame


def _kinds(
    given: np.ndarray | None, looked: Looked, stratum: np.ndarray, seed: int
) -> tuple[np.ndarray, tuple[str, ...]]:
    """Kinds of which doublets are made, by default clusters; and why there can be none, if so."""
    found = leiden(looked.z, seed=seed) if given is None else given
    if given is None and len(np.unique(found)) < 2:
        return found, ("No doublets were looked for: all observations are of one cluster; name kinds with groups=.",)
    if pd.Series(found).groupby(stratum).nunique().max() < 2:
        return found, ("No doublets were looked for: no batch holds two kinds; name other kinds with groups=.",)
    return found, ()


def _unfit(vae: VAE, observations: Observations) -> tuple[str, ...]:
    """Why doublets cannot be looked for, if so."""
    others = [s.name for s in vae.schema.modalities if s.support is not Support.COUNTS]
    if others:
        return (f"No doublets were looked for: two cells add up in counts, and {', '.join(others)} holds none.",)
    if any(present is not None and not bool(present.all()) for present in observations.present):
        return ("No doublets were looked for: some observations lack a modality.",)
    return ()
