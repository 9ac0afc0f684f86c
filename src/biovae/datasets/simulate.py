"""Single-cell counts with known truth.

    obs    cell_type batch | pseudotime_true branch_true library_true ambient_true doublet_true partner_true
           outlier_true bridge_true
    var    baseline_true dispersion_true outlier_true
    obsm   latent_true (place on the map), hidden_true (factors beyond the map)
    varm   programmes_true batch_effect_true hidden_true (all log fold changes), ambient_true (shares)
    uns    truth: the scenario, the seed, the map (states, pieces, gaps, reach) and the programmes

Whatever ends in `_true` no experiment would show. `biovae.datasets.truth` computes with it: mean expression anywhere on
the map, what is forbidden, how well types can be told apart at all. The same scenario, sizes and seed give the same
data; each effect draws from a stream of its own, so that switching one on leaves the others as they were.

A count is Poisson around a mean multiplied by gamma noise, which makes it negative binomial. Nothing here uses the
likelihoods of biovae, so that these data can judge them.
"""

from dataclasses import replace

import numpy as np
import pandas as pd
import scipy.sparse
from anndata import AnnData

from biovae.datasets.landscape import BRIDGE
from biovae.datasets.scenarios import DEMO, TYPES, Scenario
from biovae.datasets.world import Cells, World, chunks, draw_world, stream
from biovae.errors import InputError

SOUP = 1000  # cells whose mean is the soup of a batch
CONCENTRATION = 20.0  # of the beta distribution of ambient shares


def simulate(scenario: Scenario = TYPES, *, cells: int = 2000, genes: int = 2000, seed: int = 0) -> AnnData:
    """Draw counts of cells, with the truth beside them.

    Args:
        scenario: What to simulate; `biovae.datasets.scenarios` names some.
        cells: Number of cells. Those on an unsampled bridge are drawn and left out.
        genes: Number of genes.
        seed: The same seed gives the same data.

    Returns:
        Counts in `X` (compressed rows, float32); the file head lists the truth.

    Raises:
        InputError: If a size is below 1 or the seed is negative.

    >>> simulate(cells=100, genes=50).shape
    (100, 50)
    """
    check_sizes(cells=cells, genes=genes, seed=seed)
    world = draw_world(scenario, genes, seed)
    state, along, truth = draw_cells(scenario, world, cells, seed)
    world = add_soup(world, truth)
    adata = AnnData(
        X=_counts(world, truth, seed),
        obs=observed(world, truth, state, along),
        var=_genes(world),
        obsm={"latent_true": truth.latent, "hidden_true": truth.hidden},
        varm={
            "programmes_true": world.loadings,
            "batch_effect_true": world.batch_effect,
            "hidden_true": world.hidden,
            "ambient_true": world.ambient,
        },
        uns={"truth": _unstructured(scenario, world, seed)},
    )
    return adata[~adata.obs["bridge_true"].to_numpy()].copy() if scenario.states.bridge == "unsampled" else adata


def demo(seed: int = 0) -> AnnData:
    """2,000 cells, 1,000 genes: four types, a trajectory with two lineages, a forbidden gap, two batches, dropout."""
    return simulate(DEMO, cells=2000, genes=1000, seed=seed)


def check_sizes(**sizes: int) -> None:
    """Refuse sizes below 1 and a negative seed."""
    for name, size in sizes.items():
        least = 0 if name == "seed" else 1
        if size < least:
            raise InputError(f"expected {name} of at least {least}, found {size}: give a larger number.")


def draw_cells(scenario: Scenario, world: World, cells: int, seed: int) -> tuple[np.ndarray, np.ndarray, Cells]:
    """State, position along its piece, and the truth of each droplet."""
    technical, violations = scenario.technical, scenario.violations
    state, along, latent = world.landscape.draw(cells, stream(seed, "places"))
    batch = stream(seed, "batch").permutation(np.arange(cells) % technical.batches)
    depth = np.array(technical.depths or np.ones(technical.batches))
    library = stream(seed, "library").lognormal(np.log(technical.library), technical.library_spread, cells)
    library *= depth[batch]
    kind = stream(seed, "kind").random(cells)
    doublet = kind < violations.doublets
    partner = _partners(doublet, batch, _bridge(world, state), stream(seed, "partner"))
    ambient = np.zeros(cells)
    if violations.ambient:
        a, b = CONCENTRATION * violations.ambient, CONCENTRATION * (1 - violations.ambient)
        ambient = stream(seed, "ambient").beta(a, b, cells)
    truth = Cells(
        latent=latent,
        batch=batch,
        library=library + np.where(partner >= 0, library[partner], 0),
        hidden=stream(seed, "factors").normal(size=(cells, violations.rank)),
        partner=partner,
        ambient=ambient,
        outlier=kind > 1 - violations.outlier_cells,
    )
    return state, along, truth


def add_soup(world: World, cells: Cells) -> World:
    """The soup of a batch is the mean of its first cells, each weighted by its counts."""
    clean = replace(cells, ambient=np.zeros_like(cells.ambient))
    soup = np.zeros_like(world.ambient)
    for batch in range(soup.shape[1]):
        for rows in chunks(np.flatnonzero(cells.batch == batch)[:SOUP], len(soup)):
            soup[:, batch] += world.mean_counts(clean, rows).sum(0, dtype=float)
    total = soup.sum(0)
    return replace(world, ambient=soup / np.where(total > 0, total, 1))


def observed(world: World, cells: Cells, state: np.ndarray, along: np.ndarray) -> pd.DataFrame:
    """The columns of `obs`."""
    landscape = world.landscape
    index = [f"cell{i + 1}" for i in range(len(state))]
    names = np.array(landscape.names)
    start, end = landscape.pseudotime[state].T
    branch = np.where(np.isnan(start), None, names[state])
    kin = np.where(state == state[cells.partner], "homotypic", "heterotypic")
    batches = [f"batch {b + 1}" for b in range(world.batch_effect.shape[1])]
    return pd.DataFrame(
        {
            "cell_type": pd.Categorical.from_codes(state, names),
            "batch": pd.Categorical.from_codes(cells.batch, batches),
            "pseudotime_true": start + along * (end - start),
            "branch_true": pd.Categorical(branch),
            "library_true": cells.library,
            "ambient_true": cells.ambient,
            "doublet_true": pd.Categorical(np.where(cells.partner >= 0, kin, "singlet")),
            "partner_true": np.where(cells.partner >= 0, np.array(index)[cells.partner], ""),
            "outlier_true": cells.outlier,
            "bridge_true": _bridge(world, state),
        },
        index=index,
    )


def _bridge(world: World, state: np.ndarray) -> np.ndarray:
    return np.array(world.landscape.names)[state] == BRIDGE


def _partners(doublet: np.ndarray, batch: np.ndarray, bridge: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """For each doublet a single cell of its batch, outside the bridge; -1 for singlets."""
    partner = np.full(len(doublet), -1)
    for b in np.unique(batch):
        here = batch == b
        single = np.flatnonzero(here & ~doublet & ~bridge)
        if len(single):
            partner[here & doublet] = rng.choice(single, (here & doublet).sum())
    return partner


def _counts(world: World, cells: Cells, seed: int) -> scipy.sparse.csr_matrix:
    """All counts, drawn chunk by chunk into arrays that grow in place, so that they are never held twice."""
    shape = len(cells.batch), len(world.baseline)
    values, columns = np.empty(0, np.float32), np.empty(0, np.int32)
    lengths = []
    filled = 0
    for number, rows in enumerate(chunks(np.arange(shape[0]), shape[1])):
        piece = scipy.sparse.csr_matrix(_draw(world, world.mean_counts(cells, rows), seed, number), dtype=np.float32)
        start, filled = filled, filled + piece.nnz
        if filled > len(values):
            values.resize(filled + filled // 2, refcheck=False)
            columns.resize(filled + filled // 2, refcheck=False)
        values[start:filled], columns[start:filled] = piece.data, piece.indices
        lengths.append(np.diff(piece.indptr))
    values.resize(filled, refcheck=False)
    columns.resize(filled, refcheck=False)
    pointers = np.concatenate([[0], np.cumsum(np.concatenate(lengths), dtype=np.int64)])
    return scipy.sparse.csr_matrix((values, columns, pointers), shape=shape)


def _draw(world: World, mu: np.ndarray, seed: int, chunk: int) -> np.ndarray:
    """Gamma-Poisson counts around `mu`, which is overwritten, with dropout by the mean before the noise."""
    kept = world.kept(mu)
    if world.dispersion.any():
        r = (1 / world.dispersion).astype(np.float32)
        mu *= stream(seed, "gamma", chunk).standard_gamma(r, mu.shape, dtype=np.float32) / r
    x = stream(seed, "poisson", chunk).poisson(mu)
    if world.dropout:
        x[stream(seed, "dropout", chunk).random(x.shape, dtype=np.float32) > kept] = 0
    return x


def _genes(world: World) -> pd.DataFrame:
    names = [f"gene{g + 1}" for g in range(len(world.baseline))]
    truth = {"baseline_true": world.baseline, "dispersion_true": world.dispersion, "outlier_true": world.outlier}
    return pd.DataFrame(truth, index=names)


def _unstructured(scenario: Scenario, world: World, seed: int) -> dict:
    """All of the truth that is neither per cell nor per gene, in types that a file can hold."""
    landscape = world.landscape
    return {
        "scenario": scenario.model_dump_json(),
        "seed": seed,
        "genes": len(world.baseline),
        "batches": np.array([f"batch {b + 1}" for b in range(world.batch_effect.shape[1])]),
        "states": np.array(landscape.names),
        "pieces": landscape.pieces,
        "pseudotime": landscape.pseudotime,
        "shares": landscape.shares,
        "gaps": landscape.gaps,
        "spread": landscape.spread,
        "reach": landscape.reach,
        "anchors": world.anchors,
        "halfway": world.halfway,
        "directions": world.directions,
        "thresholds": world.thresholds,
        "dropout": world.dropout,
    }
