"""What the keys of `metrics.json` mean, in words and units; a key that is not here is shown under its own name."""

from typing import NamedTuple


class Entry(NamedTuple):
    """A metric's name, unit and reading."""

    name: str
    unit: str
    meaning: str


NATS = "nats per observation"
METRICS: dict[str, Entry] = {
    "validation_elbo": Entry("bound, validation set", NATS, "a lower bound on log p(x); higher is better"),
    "test_elbo": Entry("bound, test set", NATS, "the same on observations that training never touched"),
    "null_elbo": Entry("null", NATS, "the same likelihood without z; a useful model lies above it"),
    "test_iwae": Entry("importance-weighted bound, test set", NATS, "a tighter bound on log p(x)"),
    "iwae_samples": Entry("importance samples", "per observation", "behind the line above"),
    "test_reconstruction": Entry("reconstruction, test set", NATS, "log p(x | z), averaged over the posterior"),
    "test_kl": Entry("KL, test set", NATS, "the information that z carries about x, at most"),
    "active_units": Entry("active units", "dimensions", "latent dimensions that the data move"),
    "final_beta": Entry("final beta", "", "weight of the KL at the end of training; 1 is the bound itself"),
    "epochs": Entry("epochs", "passes", "through the training set"),
    "seconds": Entry("time, whole run", "s", "from the data in memory to the model"),
    "seconds_to_best": Entry("time to the best epoch", "s", ""),
    "observations_per_second": Entry("speed", "observations per s", "in training"),
    "peak_memory_mb": Entry("peak memory", "MB", "of the process"),
    "ensemble": Entry("fits", "", "with seeds that follow each other, on one split"),
    "neighbours_between_fits": Entry("neighbours shared", "share", "of the 15 nearest, between two fits"),
    "clusters_between_fits": Entry("clusters alike", "adjusted Rand index", "of two fits; 1 is the same"),
    "stable_clusters": Entry("stable clusters", "", "found again in every fit"),
    "verdict": Entry("verdict", "", ""),
    "seed": Entry("seed", "", ""),
}
ELSEWHERE = {"versions", "data_sha256"}  # shown under "Reproduce"

ENGINE = "Kingma and Welling 2014, Auto-encoding variational Bayes, ICLR, arXiv:1312.6114"
UMAP = "McInnes, Healy and Melville 2018, UMAP: uniform manifold approximation and projection, arXiv:1802.03426"
LEIDEN = (
    "Traag, Waltman and van Eck 2019, From Louvain to Leiden: guaranteeing well-connected communities, "
    "Scientific Reports 9:5233, doi:10.1038/s41598-019-41695-z"
)
PIT = (
    "Czado, Gneiting and Held 2009, Predictive model assessment for count data, Biometrics 65:1254, "
    "doi:10.1111/j.1541-0420.2009.01191.x"
)
HENNIG = (
    "Hennig 2007, Cluster-wise assessment of cluster stability, Computational Statistics and Data Analysis 52:258, "
    "doi:10.1016/j.csda.2006.11.025"
)
