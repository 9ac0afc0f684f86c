"""From a judged model to the record that a report is made of."""

from collections.abc import Iterator
from typing import Any

import numpy as np
import pandas as pd
import torch

from biovae.analysis import compare, deviance_explained, log_normalise, pca, prototype, variance_explained
from biovae.analysis.models.comparison import Comparison
from biovae.batch import SparseMatrix
from biovae.data import Role
from biovae.diagnostics import Verdict
from biovae.diagnostics import pit as randomised_pit
from biovae.model.evidence import Evidence
from biovae.model.generate import At, decode
from biovae.model.inference import ELEMENTS, minibatches
from biovae.report import Report
from biovae.run.findings import marking
from biovae.tools.labels import texts
from biovae.tools.prototype import PER, averages


def versus_pca(evidence: Evidence, roles: np.ndarray, labels: pd.Series | None = None) -> Comparison:
    """PCA of the same training observations and dimension, beside the model, on held-out ones.

    Of the first modality, and of the observations that carry it.
    """
    observations = evidence.observations
    (x, carriers), scored = observations.measured(0), observations.carriers(0, evidence.rows)
    z, train = evidence.moments.mean[carriers], (roles == Role.TRAIN)[carriers]
    means = _means(evidence, scored)
    split = (train, np.searchsorted(carriers, scored.numpy()))
    if isinstance(x, np.ndarray):
        base = pca(x, z.shape[1], evidence.seed, train)
        explained = variance_explained(x, split, means, base)
    else:
        exposure = observations.exposure[0]
        size = np.asarray(x.sum(1)) if exposure is None else exposure[carriers, 0].numpy()
        base = pca(log_normalise(x, size), z.shape[1], evidence.seed, train)
        explained = deviance_explained(x, size, split, means, base)
    labels = None if labels is None else labels.iloc[carriers]
    if labels is None or labels.isna().any() or not 1 < labels.nunique() < len(labels):
        return compare(z, base, explained, None, evidence.seed)
    return compare(z, base, explained, labels.astype(str).to_numpy(), evidence.seed)


def _means(evidence: Evidence, rows: torch.Tensor) -> Iterator[np.ndarray]:
    """The model's expected values of some rows, in blocks."""
    network, size = evidence.fitted.network, max(1, ELEMENTS // evidence.observations.x[0].shape[1])
    with torch.no_grad():
        for batch in minibatches(evidence.observations, rows, min(512, size)):
            yield network.decode(network.encode(batch).z.mean, batch, 0).mean.numpy()


def typical(evidence: Evidence, names: pd.Series) -> Any:
    """The decoded z = 0 beside the mean of the data and of each group of observations."""
    fitted, observations = evidence.fitted, evidence.observations
    counts = isinstance(observations.x[0], SparseMatrix)
    at: At = (0, PER if counts else None, "average")
    centre = decode(fitted.network, fitted.schema, torch.zeros(1, evidence.recipe.latent), at)[0]
    overall, types = averages(observations, 0, texts(names))
    return prototype(centre, overall, list(fitted.schema.modalities[0].features), evidence.moments.mean, types)


def report(evidence: Evidence, verdict: Verdict, roles: np.ndarray, obs: pd.DataFrame, about: dict[str, Any]) -> Report:
    """Everything that a run found, as plain arrays and frames.

    Args:
        evidence: The judged model.
        verdict: Its judgement.
        roles: Train, validation or test, per observation.
        obs: Columns to colour the map by, in the order of the observations.
        about: `title`, `metrics`, `command`, `notices`, `comparison` and `findings`.
    """
    calibration, found = evidence.calibration, about["findings"]
    x = evidence.observations.x[0]
    labels = _labels(obs)
    centre = typical(evidence, found.groups)
    zeros = None
    if calibration.zero_observed is not None and calibration.zero_expected is not None:
        zeros = (calibration.zero_observed, calibration.zero_expected)
    moments = (calibration.mean, calibration.variance_observed, calibration.variance_expected)
    kl = evidence.scores.kl.mean(0)
    return Report(
        title=about["title"],
        verdict=verdict,
        history=evidence.fitted.history,
        null_elbo=float(evidence.null.mean()),
        embedding=evidence.moments.mean,
        labels=labels,
        clusters=evidence.clusters,
        markers=None if found.markers is None else marking(found.markers),
        groups=str(found.groups.name),
        differences=found.differences,
        dimensions=found.dimensions,
        holes=found.holes,
        prior_support=found.prior,
        looked_at=found.looked_at,
        trajectory=found.trajectory,
        trends=found.trends,
        kl_per_dimension=kl,
        active=evidence.moments.mean.var(0) > 0.01 if len(kl) == evidence.recipe.latent else None,
        pit=randomised_pit(calibration.lower, calibration.upper, evidence.seed),
        zero_fraction=zeros,
        mean_variance=moments,
        pca_comparison=about["comparison"].to_frame() if about["comparison"] is not None else None,
        prototype=centre.frame,
        prototype_sentence=str(centre),
        presence=_presence(evidence),
        notices=about["notices"],
        stability=about.get("stability"),
        metrics=about["metrics"],
        command=about["command"],
        seed=evidence.seed,
        versions=about["metrics"]["versions"],
        data_sha256=about["metrics"]["data_sha256"],
        unit="counts" if isinstance(x, SparseMatrix) else "value",
        prototype_unit="counts per 10,000" if isinstance(x, SparseMatrix) else "value",
    )


def _labels(obs: pd.DataFrame, most: int = 8) -> pd.DataFrame:
    """Columns worth a colour: at least two values, not a name of every observation, no more than a few columns."""
    keep = []
    for name in obs.columns:
        values = obs[name].dropna()
        numeric = pd.api.types.is_numeric_dtype(values) and not pd.api.types.is_bool_dtype(values)
        if values.nunique() > 1 and (numeric or values.nunique() <= max(2, len(obs) // 4)):
            keep.append((numeric, name))
    # Labels first: they are what a map is looked at for.
    return obs[[name for _, name in sorted(keep, key=lambda item: item[0])][:most]]


def _presence(evidence: Evidence) -> pd.DataFrame | None:
    present = evidence.observations.present
    if len(present) < 2:
        return None
    names = [m.name for m in evidence.fitted.schema.modalities]
    everybody = np.ones(len(evidence.observations), bool)
    return pd.DataFrame({n: everybody if p is None else p.numpy() for n, p in zip(names, present, strict=True)})
