"""What both sides share: files, genes and test cells; simulated counts; who is installed; numbers with their range."""

import importlib.util
import logging
from collections.abc import Callable, Sequence

import anndata as ad
import numpy as np
import scipy.sparse

FILES = {
    "pbmc3k_hvg2000": None, "pbmc_facs": None, "worm_neurons": None, "pbmc_3chemistries": "batch",
    "kang_ifnb_pbmc": None, "cellbench_3cl_2protocols": "batch", "pancreas_endocrinogenesis_velocity": None,
    "mouse_bladder_mca": None, "onek1k_subset_donors": None, "osmfish_cortex": None,
}  # fmt: skip
LABELS = {"kang_ifnb_pbmc": "cell_type_derived", "pbmc_3chemistries": "cell_type_derived"}
GENES = 2000
DENSITY = 0.08  # of simulated counts: the share that is not zero
PROFILES = 200  # simulated ways to be a cell
TICKETS = 30_000  # genes of a profile to draw from, each as often as its share
ROWS = 10_000  # simulated at once
QUIET = {"accelerator": "cpu", "enable_progress_bar": False, "logger": False}  # arguments of the peer's training


def pearson_variance(x: scipy.sparse.csr_matrix) -> np.ndarray:
    """Variance of analytic Pearson residuals, dense, in blocks of genes (Lause et al. 2021)."""
    x = x.astype(np.float64)
    depth, total = np.asarray(x.sum(1)).ravel(), np.asarray(x.sum(0)).ravel()
    share, clip = total / total.sum(), np.sqrt(x.shape[0])
    out = np.zeros(x.shape[1])
    for start in range(0, x.shape[1], 1000):
        block = slice(start, start + 1000)
        mean = np.outer(depth, share[block])
        with np.errstate(all="ignore"):
            residual = np.nan_to_num((x[:, block].toarray() - mean) / np.sqrt(mean + mean**2 / 100))
        out[block] = np.clip(residual, -clip, clip).var(0)
    return out


def load(folder: str, name: str, genes: int | None = GENES) -> tuple[ad.AnnData, str | None, np.ndarray]:
    """Counts of the chosen genes with a `test` column, the batch column, and the labels."""
    adata, batch = ad.read_h5ad(f"{folder}/{name}.h5ad"), FILES[name]
    adata.X = scipy.sparse.csr_matrix(adata.X, dtype=np.float32)
    if genes is not None and adata.n_vars > genes:
        if batch is None:
            score = pearson_variance(adata.X)
        else:
            parts = [
                pearson_variance(adata.X[(adata.obs[batch] == level).to_numpy()]) for level in adata.obs[batch].unique()
            ]
            score = -np.median([np.argsort(np.argsort(-part)) for part in parts], axis=0)
        adata = adata[:, np.sort(np.argsort(-score, kind="stable")[:genes])].copy()
    test = np.zeros(adata.n_obs, bool)
    test[np.random.default_rng(12345).permutation(adata.n_obs)[: adata.n_obs // 5]] = True
    adata.obs["test"] = test
    return adata, batch, adata.obs[LABELS.get(name, "cell_type")].astype(str).to_numpy()


def simulated(cells: int, genes: int, seed: int = 0) -> ad.AnnData:
    """Sparse counts, about DENSITY of them not zero: totals are gamma-Poisson, genes are drawn by a cell's profile."""
    draw, blocks = np.random.default_rng(seed), []
    profiles = np.stack([draw.choice(genes, TICKETS, p=share) for share in shares(genes, draw)]).astype(np.int32)
    for start in range(0, cells, ROWS):
        size = min(ROWS, cells - start)
        totals = 1 + draw.poisson(1.25 * DENSITY * genes * draw.gamma(10, 0.1, size))
        profile = np.repeat(draw.integers(PROFILES, size=size), totals)
        column = profiles[profile, draw.integers(TICKETS, size=len(profile))]
        ones, pointers = np.ones(len(column), np.float32), np.append(0, totals.cumsum())
        block = scipy.sparse.csr_matrix((ones, column, pointers), (size, genes))
        block.sum_duplicates()
        blocks.append(block)
    return ad.AnnData(scipy.sparse.vstack(blocks, format="csr"))


def shares(genes: int, draw: np.random.Generator) -> np.ndarray:
    """Expression of each profile, summing to 1: log-normal genes, and log-normal changes of them."""
    share = np.exp(1.2 * draw.normal(size=genes) + 0.6 * draw.normal(size=(PROFILES, genes)))
    return share / share.sum(1, keepdims=True)


def density(adata: ad.AnnData) -> float:
    """Share of the counts that are not zero."""
    return adata.X.nnz / (adata.n_obs * adata.n_vars)


def installed(sides: dict[str, Callable]) -> dict[str, Callable]:
    """Those whose package is there."""
    return {name: side for name, side in sides.items() if importlib.util.find_spec(name)}


def scvi_model(adata: ad.AnnData, seed: int, batch: str | None = None):
    """SCVI with a negative binomial likelihood, not trained yet, and quiet."""
    import scvi

    for name in ("lightning.pytorch", "lightning.fabric"):
        logging.getLogger(name).setLevel(logging.ERROR)
    scvi.settings.verbosity, scvi.settings.seed = logging.ERROR, seed
    scvi.model.SCVI.setup_anndata(adata, batch_key=batch)
    return scvi.model.SCVI(adata, gene_likelihood="nb")


def spread(found: Sequence[float], digits: int = 0) -> str:
    """Median, and the range in brackets."""
    middle, low, high = (f"{value:,.{digits}f}" for value in (np.median(found), np.min(found), np.max(found)))
    return f"{middle} ({low} to {high})"
