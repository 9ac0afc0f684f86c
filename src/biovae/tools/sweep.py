"""The rate-distortion curve of a model and data: one fit per beta, every number taken on observations held out."""

from collections.abc import Iterator, Sequence
from typing import Any

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
    label_accuracy,
    mig,
    sap,
    total_correlation,
    variance_explained,
)
from biovae.analysis.sweep import Sweep, recommend
from biovae.batch import SparseMatrix, plain
from biovae.data import Prepared, Role
from biovae.diagnostics.collapse import active, information
from biovae.errors import InputError
from biovae.model import VAE
from biovae.model.evidence import Evidence
from biovae.model.fitting import Options
from biovae.model.inference import minibatches, predictive, rows_at_once
from biovae.noise import Noise
from biovae.posteriors import Diagonal
from biovae.schema import Support
from biovae.tools.labels import complete
from biovae.tools.latent import linear
from biovae.tools.likelihoods import SAMPLES, halves
from biovae.training.plan import Epochs

BETAS = (0.03, 0.1, 0.3, 1.0, 2.0, 4.0, 8.0, 16.0)
NEAR = 1.0  # nats below log n, beyond which no estimate of the information is to be trusted
THINNED = "log-probability of the other half of a held-out observation's counts"
BOUND = "importance-weighted bound of held-out observations"


def sweep(  # noqa: PLR0913 - a user's door
    vae: VAE,
    data: AnnData,
    betas: Sequence[float] = BETAS,
    *,
    labels: str | None = None,
    factors: Sequence[str] = (),
    test: float = 0.2,
    seeds: Sequence[int] = (0,),
    epochs: Epochs = "auto",
    progress: bool = False,
) -> Sweep:
    """Fit the same model at several betas, and say which to take for imputation and for discovery.

    Counts are scored by thinning: z comes from one half of a held-out observation's counts, and the other half is
    predicted, so that copying noise does not pay. PCA and ICA of the same training data stand in the same table: as
    maps and as axes they often win. Every fit starts afresh from its seed.

    Args:
        vae: The model in all but its beta; one modality.
        data: Not changed.
        betas: Weights of the KL.
        labels: Column of `obs`: label accuracy of neighbours, and MIG, DCI and SAP of each level against the others.
        factors: Further columns of `obs` for MIG, DCI and SAP; numbers count as continuous.
        test: Fraction of observations that no fit sees, and that are scored.
        seeds: A fit of every beta for each of them; differences between betas mean little where seeds differ as much.
        epochs: Of each fit.
        progress: Show each fit.

    Raises:
        InputError: The model has several modalities, a beta is negative, or a column is missing or has gaps.
    """
    if len(vae.modalities) != 1:
        raise InputError(f"expected a model of one modality, found {len(vae.modalities)}: sweep them one at a time.")
    if not len(betas) or not len(seeds) or min(betas) < 0:
        raise InputError(f"expected one beta and one seed at least, and none below 0, found {betas} and {seeds}.")
    prepared = vae.prepare(data)
    named = None if labels is None else complete(data, labels).astype(str).to_numpy()
    known = _factors(data, labels, factors)
    held_out = Noise(seeds[0]).numpy().random(len(prepared.obs_names)) < test
    roles = vae.roles(data, prepared, held_out=held_out, seed=seeds[0])
    base = linear(prepared.observations, vae.latent, roles == Role.TRAIN, seeds[0])
    rows: list[dict[str, Any]] = []
    scores = []
    for seed in seeds:
        for beta in sorted(set(map(float, betas))):
            candidate = VAE.model_validate(vae.model_dump() | {"beta": beta})
            candidate.fit_prepared(prepared, roles, Options(epochs=epochs, seed=seed, progress=progress))
            # The same draws and halves judge every fit, so that differences between them are paired.
            judged, score, z = _judge(candidate, prepared, roles, base, seeds[0])
            rows.append({"method": "VAE", "beta": beta, "seed": seed} | judged | _axes(z, named, known, seeds[0]))
            scores.append(pd.Series(score, name=beta))
    behind = _behind(scores)
    rows = [row | {"behind_se": behind[row["beta"]]} for row in rows]
    rows += _linear(base, rows[0]["pca"], named, known, seeds[0])
    frame = pd.DataFrame(rows).drop(columns="pca")
    return recommend(frame, THINNED if _counts(prepared) else BOUND)


def _judge(
    vae: VAE, prepared: Prepared, roles: np.ndarray, base: PCA, seed: int
) -> tuple[dict[str, float], np.ndarray, np.ndarray]:
    """Everything that needs the network; each held-out observation's score; posterior means of all observations."""
    fitted = vae.fitted
    evidence = Evidence(vae, fitted, prepared, np.flatnonzero(roles == Role.TEST), seed)
    mean, variance = evidence.moments
    scores, rows = evidence.scores, evidence.rows
    if _counts(prepared):
        given, other = (half.observations for half in halves(prepared, seed))
        score = predictive(fitted.network, given, other, rows, Noise(seed), SAMPLES)
        without = fitted.null.score(other, rows)
    else:
        score, without = scores.iwae, evidence.null
    explained = _explained(evidence, roles == Role.TRAIN, base)
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
        "seconds": fitted.record["seconds"],
    }
    return found, score, mean


def _behind(scores: Sequence[pd.Series]) -> pd.Series:
    """Paired standard error of the distance of each beta's score to the best, over observations, after the seeds."""
    each = pd.concat(scores, axis=1).T.groupby(level=0).mean().T
    return each.sub(each[each.mean().idxmax()], axis=0).sem()


def _linear(
    base: PCA, reconstruction: float, named: np.ndarray | None, known: pd.DataFrame | None, seed: int
) -> list[dict[str, Any]]:
    """The rows of PCA and ICA, which span the same space; neither has correlated axes, by construction."""
    turned = ica(base, seed)
    shared: dict[str, Any] = {"seed": seed, "reconstruction": reconstruction, "gaussian_total_correlation": 0.0}
    name = "ICA" if turned.converged else "ICA, not converged"
    return [
        {"method": method} | shared | _axes(scores, named, known, seed)
        for method, scores in (("PCA", base.scores), (name, turned.scores))
    ]


def _counts(prepared: Prepared) -> bool:
    return prepared.schema.modalities[0].support is Support.COUNTS


def _axes(z: np.ndarray, named: np.ndarray | None, known: pd.DataFrame | None, seed: int) -> dict[str, float]:
    """What can be asked of any embedding; SAP sees dimensions of unit variance, or those of PCA would weigh more."""
    found: dict[str, float] = {}
    if named is not None:
        found["accuracy"] = label_accuracy(z, named)
    if known is not None:
        of = dci(z, known, seed)
        spread = z.std(0)
        scaled = z / np.where(spread > 1, spread, 1)  # what hardly varies stays small
        found |= {
            "mig": mig(z, known).score,
            "sap": sap(scaled, known, seed).score,
            "disentanglement": of.disentanglement,
            "completeness": of.completeness,
            "informativeness": float(of.informativeness.mean()),
        }
    return found


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


def _factors(data: AnnData, labels: str | None, names: Sequence[str]) -> pd.DataFrame | None:
    """One factor per level of the labels (a single one for two levels), and the further columns as they are."""
    parts = [complete(data, name).rename(name) for name in names]
    if labels is not None:
        own = complete(data, labels)
        several = own.nunique() > 2
        parts += [indicators(own).set_axis(data.obs_names)] if several else [own.astype(str).rename(labels)]
    return pd.concat(parts, axis=1) if parts else None
