"""The rate-distortion curve of a model and data: one fit per beta, predictions scored on observations held out."""

from collections.abc import Iterator, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
import torch
from anndata import AnnData

from biovae.analysis import (
    PCA,
    Explained,
    dci,
    deviance_explained,
    gaussian_total_correlation,
    ica,
    indicators,
    label_hits,
    mig,
    sap,
    total_correlation,
    variance_explained,
)
from biovae.analysis.models.sweep import Sweep, recommend
from biovae.batch import SparseMatrix, plain
from biovae.data import Role, column
from biovae.diagnostics.collapse import active, information
from biovae.errors import InputError, first, listed
from biovae.model import VAE
from biovae.model.evidence import Evidence
from biovae.model.fitting import Options
from biovae.model.inference import minibatches, predictive, rows_at_once
from biovae.model.several import several
from biovae.noise import Noise
from biovae.posteriors import Diagonal
from biovae.schema import Support
from biovae.tools.arguments import each, model_and_data, real, whole
from biovae.tools.labels import Labels, cleared, left_out, levels
from biovae.tools.latent import linear
from biovae.tools.likelihoods import BOUND, SAMPLES, THINNED, halves
from biovae.training.plan import Epochs

BETAS = (0.03, 0.1, 0.3, 1.0, 2.0, 4.0, 8.0, 16.0)
NEAR = 1.0  # nats below log n, beyond which no estimate of the information is to be trusted
Row = dict[str, Any]


def sweep(  # noqa: PLR0913 - a user's door
    vae: VAE,
    data: AnnData,
    betas: Sequence[float] = BETAS,
    *,
    labels: str | None = None,
    factors: Sequence[str] | str = (),
    test: float = 0.2,
    seeds: Sequence[int] = (0,),
    epochs: Epochs = "auto",
    workers: int = 1,
    progress: bool = True,
    keep: Path | str | None = None,
) -> Sweep:
    """Fit the same model at several betas, and say which to take for imputation and for discovery.

    Counts are scored by thinning: z comes from one half of a held-out observation's counts, and the other half is
    predicted, so that copying noise does not pay. PCA and ICA of the same training data stand in the same table: as
    maps and as axes they often win. They are compared with the beta that is recommended, since the best of many betas
    would win by being many. Every fit starts afresh from its seed: begun at the weights of another beta, it would keep
    much of that one's rate (docs/decisions.md). Ctrl-C ends early, with the fits that are done.

    Args:
        vae: The model in all but its beta; one modality.
        data: Not changed.
        betas: Weights of the KL.
        labels: Column of `obs`: how often its neighbours name the label of a held-out observation, and MIG, DCI and SAP
            of each level against the others. Observations without a label, or without a factor, have no part in
            these numbers.
        factors: Further columns of `obs` for MIG, DCI and SAP; numbers count as continuous.
        test: Fraction of observations that no fit sees, and that are scored.
        seeds: A fit of every beta for each of them; differences between betas mean little where seeds differ as much.
        epochs: Of each fit.
        workers: Fits side by side, in processes of their own; see `model.several`.
        progress: Show each fit.
        keep: A CSV file for the numbers of the fits, written anew after each of them.

    Raises:
        InputError: The model has several modalities, a beta is negative, or a column is missing or names fewer than two
            groups.
    """
    model_and_data(vae, data)
    whole(1, workers=workers)
    real(test=test)
    factors, seeds = listed(factors), each(whole, 0, seeds=seeds)
    jobs = _jobs(each(real, 0, betas=betas), seeds)
    how = (test, seeds[0], epochs)
    again = partial(_Trial, vae.variant(), data, (labels, factors), how, progress=progress)
    trial = again()
    found: list[_Found] = []
    for _, one in several(trial, jobs, again=again, workers=workers, progress=progress):
        found.append(one)
        _write(pd.DataFrame([each.row for each in found]), keep)
    found.sort(key=lambda each: (each.row["seed"], each.row["beta"]))
    frame = _frame(found, trial.linear(found[0].row["pca"]))
    _write(frame, keep)
    advice = recommend(frame.drop(columns="pca"), THINNED if trial.counts else BOUND)
    return replace(advice, said=trial.said)


class _Found(NamedTuple):
    """Of one fit, or of PCA or ICA: its row; score, and hits of the labels' vote, of each held-out observation."""

    row: Row
    score: np.ndarray | None
    hits: np.ndarray | None


class _Trial:
    """The data of a sweep, and what is done at each beta."""

    def __init__(
        self,
        vae: VAE,
        data: AnnData,
        columns: tuple[str | None, Sequence[str]],
        how: tuple[float, int, Epochs],
        *,
        progress: bool,
    ) -> None:
        if len(vae.modalities) != 1:
            raise InputError(f"expected a model of one modality, found {len(vae.modalities)}: sweep one at a time.")
        labels, factors = columns
        test, self.seed, self.epochs = how
        self.vae, self.progress = vae, progress
        self.prepared = vae.prepare(data)
        self.named = None if labels is None else levels(data, labels, 2)
        self.known = _factors(data, self.named, (labels, factors))
        self.said = _left_out(data, [*([] if labels is None else [labels]), *factors])
        held_out = Noise(self.seed).numpy().random(len(self.prepared.obs_names)) < test
        self.roles = vae.roles(data, self.prepared, held_out=held_out, seed=self.seed)
        self.rows = np.flatnonzero(self.roles == Role.TEST)
        if len(self.rows) < 2:
            raise InputError(f"expected 2 held-out observations at least, found {len(self.rows)}: raise test.")
        if self.named is not None and pd.isna(self.named[self.rows]).all():
            raise InputError(f"expected held-out observations with a label in {labels!r}, found none: raise test.")
        self.base = linear(self.prepared.observations, vae.latent, self.roles == Role.TRAIN, self.seed)
        self.counts = self.prepared.schema.modalities[0].support is Support.COUNTS

    def __call__(self, job: tuple[float, int]) -> _Found | None:
        beta, seed = job
        candidate = self.vae.variant(beta=beta)
        label = f"beta {beta:g}, seed {seed}"
        options = Options(epochs=self.epochs, seed=seed, progress=self.progress, label=label)
        candidate.fit_prepared(self.prepared, self.roles, options)
        if candidate.fitted.record["interrupted"]:
            return None
        # The same draws and halves judge every fit, so that differences between them are paired.
        judged, score, z = self._judge(candidate)
        axes, hits = self._axes(z)
        return _Found({"method": "VAE", "beta": beta, "seed": seed} | judged | axes, score, hits)

    def linear(self, reconstruction: float) -> list[_Found]:
        """The rows of PCA and ICA, which span the same space; neither has correlated axes, by construction."""
        turned = ica(self.base, self.seed)
        shared: Row = {"seed": self.seed, "reconstruction": reconstruction, "gaussian_total_correlation": 0.0}
        name = "ICA" if turned.converged else "ICA, not converged"
        found = []
        for method, scores in (("PCA", self.base.scores), (name, turned.scores)):
            axes, hits = self._axes(scores)
            found.append(_Found({"method": method} | shared | axes, None, hits))
        return found

    def _judge(self, vae: VAE) -> tuple[Row, np.ndarray, np.ndarray]:
        """Everything that needs the network; each held-out observation's score; posterior means of all observations."""
        fitted, seed = vae.fitted, self.seed
        evidence = Evidence(vae, fitted, self.prepared, self.rows, seed)
        mean, variance = evidence.moments
        scores, rows = evidence.scores, evidence.rows
        if self.counts:
            given, other = (half.observations for half in halves(self.prepared, seed))
            score = predictive(fitted.network, given, other, rows, Noise(seed), SAMPLES)
            without = fitted.null.score(other, rows)
        else:
            score, without = scores.iwae, evidence.null
        explained = _explained(evidence, self.roles == Role.TRAIN, self.base)
        told, limit = information(mean, variance, seed) if isinstance(vae.posterior, Diagonal) else (np.nan, np.nan)
        overlapping = told < limit - NEAR  # else the estimate of the total correlation is far too high
        found = {
            "rate": float(scores.kl.sum(1).mean()),
            "distortion": float(-scores.reconstruction.mean()),
            "elbo": float(scores.elbo.mean()),
            "score": float(score.mean()),
            "score_se": float(score.std(ddof=1) / np.sqrt(len(score))),
            "gain": float((score - without).mean()),
            "active": int(active(mean).sum()),
            "information": told,
            "total_correlation": total_correlation(mean, variance, seed) if overlapping else np.nan,
            "gaussian_total_correlation": gaussian_total_correlation(mean, variance),
            "reconstruction": explained.vae,
            "pca": explained.pca,
            "reconstruction_se_pca": explained.se,
            "reconstruction_se_ica": explained.se,  # it spans what PCA spans
            "seconds": fitted.record["seconds"],
        }
        return found, score, mean

    def _axes(self, z: np.ndarray) -> tuple[dict[str, float], np.ndarray | None]:
        """What any embedding can be asked; SAP sees dimensions of unit variance, or those of PCA would weigh more."""
        found: dict[str, float] = {}
        hits = None
        if self.named is not None:
            has = ~pd.isna(self.named)
            hits = label_hits(z[has], self.named[has])[np.isin(np.flatnonzero(has), self.rows)].astype(float)
            found["accuracy"] = float(hits.mean())
        if self.known is not None:
            z = z[self.known.index]
            of = dci(z, self.known, self.seed)
            spread = z.std(0)
            scaled = z / np.where(spread > 1, spread, 1)  # what hardly varies stays small
            found |= {
                "mig": mig(z, self.known).score,
                "sap": sap(scaled, self.known, self.seed).score,
                "disentanglement": of.disentanglement,
                "completeness": of.completeness,
                "informativeness": float(of.informativeness.mean()),
            }
        return found, hits


def _write(frame: pd.DataFrame, keep: Path | str | None) -> None:
    if keep is not None:
        Path(keep).parent.mkdir(parents=True, exist_ok=True)
        frame.drop(columns="pca").to_csv(keep, index=False)


def _frame(found: Sequence[_Found], linear: Sequence[_Found]) -> pd.DataFrame:
    """Rows of the fits and of PCA and ICA, with the standard errors of differences between them."""
    behind = _behind([pd.Series(each.score, name=each.row["beta"]) for each in found])
    rows = [each.row | {"behind_se": behind[each.row["beta"]]} | _paired(each, linear) for each in found]
    return pd.DataFrame([*rows, *(each.row for each in linear)])


def _paired(fit: _Found, linear: Sequence[_Found]) -> dict[str, float]:
    """Standard errors of the distance of a fit's accuracy from that of PCA and of ICA, paired over observations."""
    if fit.hits is None:
        return {}
    rivals = zip(("pca", "ica"), linear, strict=True)
    return {f"accuracy_se_{name}": float(pd.Series(fit.hits - rival.hits).sem()) for name, rival in rivals}


def _jobs(betas: Sequence[float], seeds: Sequence[int]) -> dict[str, tuple[float, int]]:
    """Every beta with every seed, by name."""
    ordered = sorted(set(map(float, betas)))
    return {f"beta {beta:g}, seed {seed}": (beta, seed) for seed in seeds for beta in ordered}


def _behind(scores: Sequence[pd.Series]) -> pd.Series:
    """Standard error of the distance of each beta's mean score to the best, paired over observations and over seeds."""
    each = pd.concat(scores, axis=1)
    mean = each.T.groupby(level=0).mean().T
    best = mean.mean().idxmax()
    of_seeds = pd.DataFrame({beta: each[[beta]].mean().to_numpy() for beta in mean.columns})
    of_seeds = of_seeds.sub(of_seeds[best], axis=0).sem().fillna(0)  # one seed says nothing of others
    return np.hypot(mean.sub(mean[best], axis=0).sem(), of_seeds)


def _explained(evidence: Evidence, train: np.ndarray, base: PCA) -> Explained:
    x, exposure, split = evidence.observations.x[0], evidence.observations.exposure[0], (train, evidence.here)
    if isinstance(x, SparseMatrix) and exposure is not None:
        return deviance_explained(x.scipy(), exposure[:, 0].numpy(), split, _means(evidence), base)
    return variance_explained(plain(x), split, _means(evidence), base)


@torch.no_grad()
def _means(evidence: Evidence) -> Iterator[np.ndarray]:
    """The model's expected values of the held-out observations, in blocks."""
    network, size = evidence.fitted.network, rows_at_once(evidence.fitted.network, evidence.observations)
    for batch in minibatches(evidence.observations, evidence.rows, size):
        yield network.decode(network.encode(batch).z.mean, batch, 0).mean.numpy()


def _factors(data: AnnData, named: Labels | None, names: tuple[str | None, Sequence[str]]) -> pd.DataFrame | None:
    """One factor per level of the labels (a single one for two levels), and the further columns as they are.

    A row for each observation that has all of them; the index is its number.
    """
    labels, factors = names
    parts = [cleared(column(data, name)).rename(name).reset_index(drop=True) for name in factors]
    parts += [] if named is None else [pd.Series(named, name=labels)]
    if not parts:
        return None
    table = pd.concat(parts, axis=1).dropna()
    own = table.iloc[:, -1]
    if table.empty:
        raise InputError(f"expected observations with a value in all of {first(table.columns)}, found none: ask apart.")
    if named is None or own.nunique() < 3:
        return table
    return pd.concat([table.iloc[:, :-1], indicators(own).set_axis(own.index)], axis=1)


def _left_out(data: AnnData, names: Sequence[str]) -> tuple[str, ...]:
    return tuple(said for name in names for said in left_out(cleared(column(data, name)), name))
