"""The record that a report is made of: what a run found, as arrays, frames and records of the analysis.

Every field but the title may be absent; the page then has no such section. Nothing here is a file, a model or an
AnnData, so that a report can be made of anything, and tested without a fit.
"""

from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pandas as pd

from biovae.analysis import Differential, Dimensions, Holes, PriorSupport, Stability, Trajectory


@dataclass(frozen=True, kw_only=True, eq=False)
class Report:
    """What a run found.

    Attributes:
        title: What was modelled, for example the file's name.
        verdict: Has `overall` and `lines`, each with `name`, `value`, `normal`, `advice` and `state`; a state, and
            `overall`, is "ok", "look" or "broken".
        history: Columns `epoch`, `train_elbo`, `validation_elbo`, and `beta`, `learning_rate` where known.
        null_elbo: Bound of the same likelihood without z, nats per observation.
        embedding: Posterior means, (obs, latent).
        coordinates: A map of the embedding, (obs, 2); made with UMAP or PCA where it is not given.
        coordinates_kind: What the given coordinates are, for example "UMAP".
        labels: Columns of `obs` to colour the map by, in the order of the embedding.
        clusters: Cluster of each observation.
        markers: Columns `cluster`, `feature`, `log2_fold_change`, `fraction_in`, `fraction_out`, and where known
            `lower`, `upper` (95 %) and `expected_fdr`.
        groups: Name of the column whose groups `differences` and `holes` are about; "cluster" for the clusters.
        differences: Each group against the others, of `bv.tl.differential`.
        dimensions: Of `bv.tl.dimensions`.
        holes: The passes between groups, of `bv.tl.holes`.
        prior_support: Of `bv.tl.prior_support`.
        looked_at: In how many observations dimensions and holes were looked for.
        trajectory: Of `bv.tl.trajectory`, of the observations of the embedding.
        trends: Along it, of `bv.tl.trends`.
        kl_per_dimension: Nats per observation, (latent,).
        active: Which dimensions are in use, (latent,).
        pit: Randomised probability integral transforms, in [0, 1].
        zero_fraction: Observed and expected fraction of zeros of each feature.
        mean_variance: Mean, observed variance and expected variance of each feature.
        pca_comparison: Columns `measure`, `pca`, `vae`, and `unit`, `better` ("higher", "lower") where known.
        prototype: Columns `feature`, `prototype`, `mean`, `log2_fold_change`.
        prototype_sentence: What the prototype says, in one sentence.
        leakage: Any columns; a row per library size or covariate that z might give away.
        stability: Of `bv.tl.stability`: what the fits of an ensemble agree on, cluster by cluster.
        presence: A boolean column per modality, a row per observation.
        notices: What the data gate said, which layer and features were used: a sentence each.
        metrics: The content of `metrics.json`.
        command: What to type to get the same run.
        seed: Of the run, and of the map and the drawing order.
        versions: Name and version of each piece of software.
        data_sha256: Of the input.
        citations: What to cite beside biovae itself.
        unit: What the features count or measure, for axis labels: "counts", or for example "log intensity".
        prototype_unit: The same for the prototype, which may be on another scale; `unit` where it is empty.
    """

    title: str
    verdict: Any | None = None
    history: pd.DataFrame | None = None
    null_elbo: float | None = None
    embedding: np.ndarray | None = None
    coordinates: np.ndarray | None = None
    coordinates_kind: str = "UMAP"
    labels: pd.DataFrame | None = None
    clusters: np.ndarray | None = None
    markers: pd.DataFrame | None = None
    groups: str = ""
    differences: Differential | None = None
    dimensions: Dimensions | None = None
    holes: Holes | None = None
    prior_support: PriorSupport | None = None
    looked_at: int = 0
    trajectory: Trajectory | None = None
    trends: pd.DataFrame | None = None
    kl_per_dimension: np.ndarray | None = None
    active: np.ndarray | None = None
    pit: np.ndarray | None = None
    zero_fraction: tuple[np.ndarray, np.ndarray] | None = None
    mean_variance: tuple[np.ndarray, np.ndarray, np.ndarray] | None = None
    pca_comparison: pd.DataFrame | None = None
    prototype: pd.DataFrame | None = None
    prototype_sentence: str = ""
    leakage: pd.DataFrame | None = None
    stability: Stability | None = None
    presence: pd.DataFrame | None = None
    notices: list[str] = field(default_factory=list)
    metrics: dict[str, Any] = field(default_factory=dict)
    command: str = ""
    seed: int = 0
    versions: dict[str, str] = field(default_factory=dict)
    data_sha256: str = ""
    citations: list[str] = field(default_factory=list)
    unit: str = "counts"
    prototype_unit: str = ""
