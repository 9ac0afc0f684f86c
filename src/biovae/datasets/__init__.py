"""Data with known truth, and files from elsewhere with known checksums.

    scenarios    what to simulate: records, and named scenarios made of them
    landscape    where cells can be
    world        the true parameters and the mean counts that follow
    simulate     counts of cells, with the truth beside them
    multi        RNA and protein of the same cells
    truth        what is true of simulated data
    download     files, checked

>>> adata = simulate(scenarios.MESSY, cells=100, genes=50)
>>> adata.obs["batch"].nunique()
3
"""

from biovae.datasets import scenarios
from biovae.datasets.download import fetch
from biovae.datasets.multi import simulate_multi
from biovae.datasets.scenarios import Programmes, Scenario, States, Technical, Violations
from biovae.datasets.simulate import demo, simulate
from biovae.datasets.truth import BayesTypes, bayes_types, expected, expected_counts, forbidden

__all__ = [
    "BayesTypes",
    "Programmes",
    "Scenario",
    "States",
    "Technical",
    "Violations",
    "bayes_types",
    "demo",
    "expected",
    "expected_counts",
    "fetch",
    "forbidden",
    "scenarios",
    "simulate",
    "simulate_multi",
]
