"""The questions of `biovae ask`: each calls a tool, and makes words, tables and pictures of what it gave.

features    what differs, what a dimension moves, what is typical, what noise hides
space       holes, paths, trajectories
trust       odd observations, new data, the other condition, other fits
"""

from biovae.run.questions.features import archetypes, differential, dimensions, expression, imputation, prototype
from biovae.run.questions.space import holes, path, trajectory
from biovae.run.questions.trust import anomalies, counterfactual, shift, stability

__all__ = [
    "anomalies",
    "archetypes",
    "counterfactual",
    "differential",
    "dimensions",
    "expression",
    "holes",
    "imputation",
    "path",
    "prototype",
    "shift",
    "stability",
    "trajectory",
]
