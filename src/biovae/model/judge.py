"""The verdict: every line of the diagnosis, from the evidence."""

import numpy as np
import torch

from biovae import diagnostics as d
from biovae.analysis import Explained
from biovae.model.evidence import Evidence
from biovae.schema import CategoricalCovariate

MOST = 5000  # observations whose neighbourhoods are searched for leaks


def verdict(evidence: Evidence, explained: Explained | None = None) -> d.Verdict:
    """Judge a model on the evidence; `explained` is what PCA of the same dimension explains beside it, where known."""
    return d.Verdict((*_fit(evidence), *_latent(evidence, explained), *_calibration(evidence), *_leaks(evidence)))


def _fit(e: Evidence) -> list[d.Line]:
    record, recipe = e.fitted.record, e.recipe
    return [
        d.gain(e.scores.elbo, e.null),
        d.tightness(e.scores.elbo, e.scores.iwae, e.null),
        d.objective(record["final_beta"], recipe.beta),
        d.convergence(
            e.fitted.history,
            record["validation_null"],
            "interrupted" if record["interrupted"] else None,
            validation_null=record["validation_null"],
        ),
        d.events(record["events"]),
    ]


def _latent(e: Evidence, explained: Explained | None) -> list[d.Line]:
    s, (mean, variance) = e.scores, (e.moments.mean[e.here], e.moments.variance[e.here])
    return [
        d.kl_per_dimension(s.kl),
        d.active_units(mean, s.kl),
        d.mutual_information(mean, variance, e.seed),
        d.collapse(
            s.kl, s.reconstruction, e.shuffled, s.elbo, e.null, e.recipe.latent, beta=e.recipe.beta, explained=explained
        ),
        d.aggregate(mean, variance, e.prior_sample, e.seed),
    ]


def _calibration(e: Evidence) -> list[d.Line]:
    c = e.calibration
    lines = [d.uniformity(d.pit(c.lower, c.upper, e.seed))]
    if c.zero_observed is not None and c.zero_expected is not None:
        lines.append(d.zero_fraction(c.zero_observed, c.zero_expected))
    return [*lines, d.mean_variance(c.mean, c.variance_observed, c.variance_expected)]


def _leaks(e: Evidence) -> list[d.Line]:
    z = e.moments.mean
    rows = np.arange(len(z))[:: max(1, len(z) // MOST)]
    lines = []
    exposure = e.observations.exposure[0]
    if exposure is not None:
        with_depth = e.observations.carriers(0, torch.from_numpy(rows)).numpy()
        depth = exposure[with_depth, 0].log().numpy()
        lines.append(d.library(z[with_depth], depth, e.clusters[with_depth], e.seed, e.linear(with_depth)))
    start = 0
    for covariate in e.fitted.schema.covariates:
        columns = e.observations.covariates[:, start : start + covariate.width].numpy()[rows]
        start += covariate.width
        if isinstance(covariate, CategoricalCovariate):
            if covariate.width < 2:
                continue
            values = np.asarray(covariate.categories)[columns.argmax(1)]
        else:
            values = columns[:, 0]
        lines.append(d.covariate(z[rows], values, e.clusters[rows], covariate.name, e.seed))
    return lines
