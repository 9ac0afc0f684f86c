"""Droplets with two cells: made from the data, and told from single cells by what the model says of both.

    looked     what the model says of some droplets, real or made
    evidence   the columns by which made doublets are told from observed droplets, each higher for doublets

A logistic regression weighs that evidence which fitting the model to real doublets does not change; what it and each
column are worth is tried on further doublets that it has not seen, beside scores that need no model.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import pandas as pd
import scipy.sparse
import torch
from jaxtyping import Float, Int
from sklearn.cluster import KMeans
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from biovae.analysis.oddities.anomalies import standardised
from biovae.analysis.oddities.doublets import Gain, by_components, mixture_gain, neighbour_share, partners, separation
from biovae.batch import Observations, SparseMatrix, plain
from biovae.model import VAE
from biovae.model.generate import mean_at
from biovae.model.inference import everything, minibatches, posterior_moments, rows_at_once
from biovae.model.replicate import blocks, measured
from biovae.noise import Noise
from biovae.training.progress import passing
from biovae.training.working import working

STATES = 24  # that could be the other cell of a droplet
DESIGNS = 16  # combinations of covariates under which they are decoded; their average beyond
MADE = 10_000  # doublets, at most
TRIALS = 1000  # doublets of each sort that scores are tried on
PLACES = 4  # decimals of z by which two observations differ
COMPARED = 5000  # observations that scores are compared on
CROWD = 20_000  # observations among which neighbours are sought
UNNAMED = "no label"  # a place where no observation has one
BLOCK = 128  # droplets whose second states are tried at once
SIMPLE = ("total counts", "features detected")
WEIGHED = ("neighbours in z", *SIMPLE)  # not gain and surprise: doublets trained on have lost them, made ones have not

States = Float[np.ndarray, "designs states features"]
Rarity = tuple[np.ndarray, Callable[[np.ndarray], np.ndarray]]


@dataclass(frozen=True)
class Way:
    """A model, and how to look.

    Attributes:
        m: Position of the modality of counts that other states are sought in.
        draws: Replicates of each observation.
        show: Whether a bar is shown.
    """

    vae: VAE
    m: int
    draws: int
    seed: int
    show: bool


@dataclass(frozen=True)
class Looked:
    """What the model says of some observations.

    Attributes:
        surprise: In standard deviations of replicates; among: the same of the replicates.
        misfit: Another discrepancy, in the same measure; misfit_among: the same of the replicates.
        total: Sum of the values of modality m; detected: how many of them are not 0.
    """

    z: Float[np.ndarray, "obs latent"]
    variance: Float[np.ndarray, "obs latent"]
    surprise: Float[np.ndarray, "obs"]
    among: Float[np.ndarray, "obs draws"]
    misfit: Float[np.ndarray, "obs"]
    misfit_among: Float[np.ndarray, "obs draws"]
    total: Float[np.ndarray, "obs"]
    detected: Float[np.ndarray, "obs"]


class Droplets(NamedTuple):
    """Some droplets, what the model says of them, their designs (see `designs`), and who could share one."""

    observations: Observations
    looked: Looked
    design: Int[np.ndarray, "obs"]
    stratum: Int[np.ndarray, "obs"]


class Found(NamedTuple):
    """What is known of doublets.

    Attributes:
        odds: Log odds of every observed droplet against made doublets, as if there were as many.
        made: Those of the made doublets.
        gain: What a second state explains, and which.
        states: Names of the states.
        trials: See `Anomalies`.
    """

    odds: Float[np.ndarray, "obs"]
    made: Float[np.ndarray, "doublets"]
    gain: Gain
    states: np.ndarray
    trials: pd.DataFrame


def look(way: Way, observations: Observations) -> Looked:
    """Posterior, surprise and totals, in streams."""
    network, rows = way.vae.network, everything(observations)
    moments = posterior_moments(network, observations, rows)
    count = blocks(rows, rows_at_once(network, observations))
    stream = measured(network, (observations, rows), Noise(way.seed), way.draws)
    parts = [*passing(stream, count, "replicating", show=way.show)]
    surprise, misfit = (
        standardised(*(np.concatenate(side) for side in zip(*pieces, strict=True)))
        for pieces in zip(*parts, strict=True)
    )
    x = plain(observations.x[way.m])
    total, detected = (np.asarray(part, dtype=np.float64).ravel() for part in (x.sum(1), (x != 0).sum(1)))
    return Looked(moments.mean.astype(np.float64), moments.variance, *surprise, *misfit, total, detected)


def designs(observations: Observations) -> tuple[torch.Tensor, Int[np.ndarray, "obs"]]:
    """The different rows of the design matrix, and which one each observation has."""
    c = observations.covariates
    if not c.shape[1]:
        return c[:1], np.zeros(len(c), dtype=np.int64)
    rows, member = torch.unique(c, dim=0, return_inverse=True)
    return rows, member.numpy()


def droplets(observations: Observations, pairs: Int[np.ndarray, "size 2"]) -> Observations:
    """Each the sum of two observations: counts and exposures add, covariates are those of the first."""
    one, other = pairs.T
    rows = torch.from_numpy(one)
    counts = [x.scipy() if isinstance(x, SparseMatrix) else scipy.sparse.csr_array(plain(x)) for x in observations.x]
    x = tuple(SparseMatrix.from_scipy(c[one] + c[other]) for c in counts)
    exposure = tuple(None if e is None else e[one] + e[other] for e in observations.exposure)
    present = tuple(None if p is None else p[rows] for p in observations.present)
    return Observations(x, exposure, present, observations.covariates[rows])


def doublets(way: Way, observed: Droplets, rarity: Rarity, kinds: np.ndarray, tried: Int[np.ndarray, "rows"]) -> Found:
    """Make doublets of two kinds, learn to tell them, score every droplet, and try the scores.

    Args:
        way: The model.
        observed: All droplets.
        rarity: -log density of the observed, and z to that of others.
        kinds: The kind of each, None where it has none.
        tried: Rows that trial doublets are to be told from.
    """
    looked, stratum = observed.looked, observed.stratum
    own, of = rarity
    pairs = partners(kinds, stratum, min(len(kinds), MADE), seed=way.seed)
    made = _made(way, observed, pairs)
    near, near_made, near_at = _neighbours(looked.z, made.looked.z, way.seed)
    states, names = _states(way, observed, kinds)
    gain = _gain(way, observed, states)
    evidence = _evidence(looked, near, gain, own)
    theirs = _evidence(made.looked, near_made, _gain(way, made, states), of(made.looked.z))
    odds = _weighed(evidence, theirs)

    trial = _made(way, observed, _trial_pairs(kinds, stratum, way.seed + 1))
    asked = _evidence(trial.looked, near_at(trial.looked.z), _gain(way, trial, states), of(trial.looked.z))
    tried = np.sort(Noise(way.seed).numpy().permutation(tried)[:COMPARED])
    counts = [plain(part.observations.x[way.m]) for part in (observed, made, trial)]
    with working("trying simple scores", show=way.show):
        simple, simple_asked = by_components(counts[0][tried], counts[1][: len(tried)], counts[2], way.seed)
    ours = evidence.iloc[tried].reset_index(drop=True).assign(doublet=odds(evidence)[tried]).join(simple)
    trials = _trials(ours, asked.assign(doublet=odds(asked)).join(simple_asked), {*simple, *SIMPLE})
    return Found(odds(evidence), odds(theirs), gain, names, trials)


def _made(way: Way, observed: Droplets, pairs: np.ndarray) -> Droplets:
    observations, first = droplets(observed.observations, pairs), pairs[:, 0]
    return Droplets(observations, look(way, observations), observed.design[first], observed.stratum[first])


def _trial_pairs(kinds: np.ndarray, stratum: np.ndarray, seed: int) -> np.ndarray:
    """As many of one kind as of two, if there are such; those of two kinds come first."""
    two = partners(kinds, stratum, TRIALS, seed=seed)
    several = pd.Series(np.arange(len(kinds))).groupby([kinds, stratum]).size().max() > 1
    return np.concatenate([two, partners(kinds, stratum, TRIALS, alike=True, seed=seed)]) if several else two


def _neighbours(z: np.ndarray, made: np.ndarray, seed: int) -> tuple[np.ndarray, np.ndarray, Callable]:
    """Share of made doublets near the observed, near the made, and near any z; nobody is a neighbour of itself."""
    crowd = np.zeros(len(z), dtype=bool)
    crowd[Noise(seed).numpy().permutation(len(z))[:CROWD]] = True
    apart = neighbour_share(z[crowd], made)
    observed = np.empty(len(z))
    observed[crowd] = apart[: crowd.sum()]

    def at(where: np.ndarray) -> np.ndarray:
        return neighbour_share(z[crowd], made, where)

    if not crowd.all():
        observed[~crowd] = at(z[~crowd])
    return observed, apart[crowd.sum() :], at


def _states(way: Way, observed: Droplets, kinds: np.ndarray) -> tuple[States, np.ndarray]:
    """Shares of the counts at places that stand for all of z, under every design; and the kind that each place is of.

    Where there are too many designs one average stands for them.
    """
    z = observed.looked.z
    few = np.sort(Noise(way.seed).numpy().permutation(len(z))[:COMPARED])
    apart = len(np.unique(z[few].round(PLACES), axis=0))  # observations may repeat each other, but for rounding
    most = min(STATES, max(2, len(few) // 10), apart)
    found = KMeans(most, n_init=2, random_state=way.seed).fit(z[few])
    names = pd.Series(kinds[few]).groupby(found.labels_).agg(lambda part: next(iter(part.mode()), UNNAMED))
    centres = found.cluster_centers_[names.index]  # of those that have members: z may repeat itself
    at = torch.from_numpy(centres.astype(np.float32))
    rows, _ = designs(observed.observations)
    many = len(rows) > DESIGNS
    rows = rows[torch.linspace(0, len(rows) - 1, DESIGNS).long()] if many else rows
    with torch.no_grad():
        means = [mean_at(way.vae.network, at, row.expand(len(at), -1), way.m, 1.0).cpu().numpy() for row in rows]
    shares = np.stack([mean / np.maximum(mean.sum(1, keepdims=True), 1e-20) for mean in means])
    return (shares.mean(0, keepdims=True) if many else shares), names.to_numpy()


@torch.no_grad()
def _gain(way: Way, of: Droplets, states: States) -> Gain:
    """What the states explain of droplets that their own does not, in a stream."""
    observations, network, m = of.observations, way.vae.network.eval(), way.m
    x, rows = plain(observations.x[m]), everything(observations)
    size = min(BLOCK, rows_at_once(network, observations))
    design = of.design if len(states) > 1 else np.zeros(len(rows), dtype=np.int64)
    found, start = [], 0
    stream = minibatches(observations, rows, size)
    for batch in passing(stream, blocks(rows, size), "trying second states", show=way.show):
        p = network.decode(network.encode(batch).z.mean, batch, m)
        mean, variance = p.mean.cpu().numpy(), p.variance.cpu().numpy()
        part = slice(start, start + len(batch))
        found.append(mixture_gain(x[part], mean, mean / np.maximum(variance, 1e-20), states, design[part]))
        start += len(batch)
    return Gain(*(np.concatenate(column) for column in zip(*found, strict=True)))


def _evidence(looked: Looked, near: np.ndarray, gain: Gain, rarity: np.ndarray) -> pd.DataFrame:
    """Monotone maps of what is known, so that no column has a long tail."""
    columns = {
        "neighbours in z": np.log(near / (1 - near)),
        "gain of a second state": np.sqrt(gain.gain),
        "surprise": np.arcsinh(looked.surprise),
        "rarity": np.arcsinh(rarity),
        "total counts": np.log1p(looked.total),
        "features detected": np.log1p(looked.detected),
    }
    return pd.DataFrame(columns)


def _weighed(observed: pd.DataFrame, made: pd.DataFrame) -> Callable[[pd.DataFrame], np.ndarray]:
    """Evidence to log odds."""
    columns = list(WEIGHED)
    both, is_made = (
        np.concatenate([observed[columns], made[columns]]),
        np.r_[np.zeros(len(observed)), np.ones(len(made))],
    )
    fitted = make_pipeline(StandardScaler(), LogisticRegression(class_weight="balanced", max_iter=1000))
    fitted.fit(both, is_made)
    return lambda evidence: fitted.decision_function(evidence[columns].to_numpy())


def _trials(observed: pd.DataFrame, asked: pd.DataFrame, simple: set[str]) -> pd.DataFrame:
    """How well each score tells trial doublets from observed droplets, best first."""
    rows = []
    for name in asked:
        parts = (asked[name].to_numpy()[:TRIALS], asked[name].to_numpy()[TRIALS:])
        areas = [separation(part, observed[name].to_numpy()) if len(part) else np.nan for part in parts]
        rows.append((name, *areas, name in simple))
    frame = pd.DataFrame(rows, columns=["score", "heterotypic", "homotypic", "simple"])
    return frame.sort_values("heterotypic", ascending=False, kind="stable", ignore_index=True)
