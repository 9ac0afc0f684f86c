"""The files, the genes and the test cells that both sides see."""

import anndata as ad
import numpy as np
import scipy.sparse

FILES = {
    "pbmc3k_hvg2000": None, "pbmc_facs": None, "worm_neurons": None, "pbmc_3chemistries": "batch",
    "kang_ifnb_pbmc": None, "cellbench_3cl_2protocols": "batch", "pancreas_endocrinogenesis_velocity": None,
    "mouse_bladder_mca": None,
}  # fmt: skip
LABELS = {"kang_ifnb_pbmc": "cell_type_derived", "pbmc_3chemistries": "cell_type_derived"}
GENES = 2000


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
