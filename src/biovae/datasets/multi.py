"""RNA counts and protein levels of the same cells, some of which lack one of the two.

    y    log levels of proteins   (cells, proteins)   background + activity loadings' + batch; for a doublet the log sum
    X    y + noise, less its mean over proteins: centred log ratios, as CITE-seq gives after CLR

The truth of the RNA is that of `simulate`. Of the proteins, layer `mean_true` holds the mean of X, and varm
`programmes_true` the log fold changes; every programme of a state, root or tip has its proteins, in turn.
"""

import numpy as np
import pandas as pd
from anndata import AnnData
from jaxtyping import Float
from mudata import MuData, set_options

from biovae.datasets.scenarios import TYPES, Scenario
from biovae.datasets.simulate import check_sizes, simulate
from biovae.datasets.truth import cells_of, world_of
from biovae.datasets.world import stream
from biovae.errors import InputError

CONTRAST = 1.5  # log fold change of a protein per log fold change of a gene
NOISE = 0.35  # standard deviation of a log level
BATCH = 0.5  # log factor of a protein per log factor of a gene


def simulate_multi(
    scenario: Scenario = TYPES,
    *,
    cells: int = 2000,
    genes: int = 2000,
    proteins: int = 20,
    missing: tuple[float, float] = (0.0, 0.25),
    seed: int = 0,
) -> MuData:
    """Draw RNA counts (`mod["rna"]`) and centred log levels of proteins (`mod["prot"]`) of the same cells.

    Args:
        scenario: What to simulate.
        cells: Number of cells; each has RNA, protein or both.
        genes: Number of genes.
        proteins: Number of proteins, at least 2.
        missing: Share of the cells without RNA, and share without protein.
        seed: The same seed gives the same data, and the RNA that `simulate` gives.

    Raises:
        InputError: If a size is too small, or shares are negative or sum to more than 1.

    >>> {name: part.shape for name, part in simulate_multi(cells=100, genes=50).mod.items()}
    {'rna': (100, 50), 'prot': (75, 20)}
    """
    check_sizes(cells=cells, genes=genes, proteins=proteins - 1, seed=seed)
    if min(missing) < 0 or sum(missing) > 1:
        raise InputError(f"expected shares of missing cells from 0 to a sum of 1, found {missing}: give smaller ones.")
    rna = simulate(scenario, cells=cells, genes=genes, seed=seed)
    prot = _proteins(rna, scenario, proteins, seed)
    order = stream(seed, "missing").permutation(rna.n_obs)
    without_rna, without_prot = (round(share * rna.n_obs) for share in missing)
    has_rna, has_prot = np.ones((2, rna.n_obs), dtype=bool)
    has_rna[order[:without_rna]] = False
    has_prot[order[without_rna : without_rna + without_prot]] = False
    shared = rna.obs[["cell_type", "batch", "pseudotime_true", "branch_true"]]
    with set_options(pull_on_update=False):  # the columns that both share are joined once, without a prefix
        mdata = MuData({"rna": rna[has_rna].copy(), "prot": prot[has_prot].copy()})
        mdata.obs = mdata.obs.join(shared)
    return mdata


def _proteins(rna: AnnData, scenario: Scenario, proteins: int, seed: int) -> AnnData:
    """All cells, with the noise of one draw."""
    world, cells = world_of(rna), cells_of(rna)
    rng = stream(seed, "proteins")
    loadings = np.zeros((proteins, world.loadings.shape[1]))
    turn = np.arange(proteins) % len(world.anchors)
    loadings[np.arange(proteins), turn] = CONTRAST * scenario.programmes.strength * rng.normal(1.0, 0.2, proteins)
    background = rng.normal(size=proteins)
    factor = BATCH * scenario.technical.batch_effect * rng.normal(size=(scenario.technical.batches, proteins))
    level = background + world.activity(cells.latent) @ loadings.T + factor[cells.batch]
    doublet = cells.partner >= 0
    total = level.copy()
    total[doublet] = np.logaddexp(level[doublet], level[cells.partner[doublet]])
    noisy = total + NOISE * stream(seed, "protein noise").normal(size=level.shape)
    names = [f"protein{p + 1}" for p in range(proteins)]
    return AnnData(
        X=_centred(noisy).astype(np.float32),
        obs=rna.obs.copy(),
        var=pd.DataFrame(index=names),
        obsm={"latent_true": rna.obsm["latent_true"].copy()},
        varm={"programmes_true": loadings, "batch_effect_true": factor.T},
        layers={"mean_true": _centred(total).astype(np.float32)},
    )


def _centred(y: Float[np.ndarray, "cells proteins"]) -> Float[np.ndarray, "cells proteins"]:
    return y - y.mean(1, keepdims=True)
