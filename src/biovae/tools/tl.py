"""bv.tl: questions to a fitted model, or about which model to fit."""

from biovae.tools.anomalies import anomalies
from biovae.tools.archetypes import archetypes
from biovae.tools.compare import compare
from biovae.tools.counterfactual import counterfactual
from biovae.tools.differential import Effort, differential
from biovae.tools.dimensions import dimensions
from biovae.tools.enrichment import enrichment
from biovae.tools.expression import corrected_expression
from biovae.tools.holes import density, holes, plausibility, prior_support
from biovae.tools.imputation import imputation
from biovae.tools.likelihoods import thin
from biovae.tools.path import path, path_lengths
from biovae.tools.predictive import PredictiveChecks, predictive_checks
from biovae.tools.prototype import prototype
from biovae.tools.shift import shift
from biovae.tools.stability import ensemble_expression, stability
from biovae.tools.sweep import sweep
from biovae.tools.trajectory import direction, trajectory, trends, write_trajectory

__all__ = [
    "Effort",
    "PredictiveChecks",
    "anomalies",
    "archetypes",
    "compare",
    "corrected_expression",
    "counterfactual",
    "density",
    "differential",
    "dimensions",
    "direction",
    "enrichment",
    "ensemble_expression",
    "holes",
    "imputation",
    "path",
    "path_lengths",
    "plausibility",
    "predictive_checks",
    "prior_support",
    "prototype",
    "shift",
    "stability",
    "sweep",
    "thin",
    "trajectory",
    "trends",
    "write_trajectory",
]
