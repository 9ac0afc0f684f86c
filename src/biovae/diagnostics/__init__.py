"""Is the model any good? Arrays in, a line of the verdict out.

    verdict      the records: a state, a line, all lines together
    fit          gain over the null, tightness of the bound, final beta, convergence, events of the run
    collapse     KL, active units, mutual information, posterior collapse
    prior        aggregate posterior against the prior
    calibration  PIT, zeros, mean and variance
    leakage      library size and covariates in z
    predictive   replicated data against observed: coverage, correlation, detection, totals

Nothing here sees a model. To add a line: a function that returns a `Line`, a row in `model/judge.py`, and two tests,
one in which it must speak and one in which it must not.
"""

from biovae.diagnostics.calibration import mean_variance, pit, uniformity, zero_fraction
from biovae.diagnostics.collapse import (
    active,
    active_units,
    collapse,
    information,
    kl_per_dimension,
    mutual_information,
)
from biovae.diagnostics.fit import convergence, events, gain, objective, tightness
from biovae.diagnostics.leakage import covariate, library
from biovae.diagnostics.predictive import (
    against_replicates,
    correlations,
    coverage,
    detection,
    ranks,
    totals,
)
from biovae.diagnostics.prior import aggregate, off_prior
from biovae.diagnostics.verdict import Line, State, Verdict, worst

__all__ = [
    "Line",
    "State",
    "Verdict",
    "active",
    "active_units",
    "against_replicates",
    "aggregate",
    "collapse",
    "convergence",
    "correlations",
    "covariate",
    "coverage",
    "detection",
    "events",
    "gain",
    "information",
    "kl_per_dimension",
    "library",
    "mean_variance",
    "mutual_information",
    "objective",
    "off_prior",
    "pit",
    "ranks",
    "tightness",
    "totals",
    "uniformity",
    "worst",
    "zero_fraction",
]
