"""`metrics.json`: flat, with stable names; bounds in nats per observation, constants included."""

import hashlib
import platform
import resource
import sys
from importlib import metadata
from pathlib import Path
from typing import Any

import numpy as np
import torch

from biovae import __version__
from biovae.analysis import Stability
from biovae.analysis.models.stability import FITS
from biovae.data import Role
from biovae.model.evidence import Evidence
from biovae.model.inference import bounds
from biovae.noise import Noise

IWAE_SAMPLES = 100
PACKAGES = ("torch", "numpy", "scipy", "anndata", "mudata")


def versions() -> dict[str, str]:
    """Of biovae, Python, and what the numbers depend on."""
    return {"biovae": __version__, "python": platform.python_version()} | {p: metadata.version(p) for p in PACKAGES}


def sha256(path: Path) -> str:
    """Of a file, or of the names and contents of a folder's files in order."""
    digest = hashlib.sha256()
    for file in sorted(p for p in path.rglob("*") if p.is_file()) if path.is_dir() else [path]:
        digest.update(file.relative_to(path).as_posix().encode() if path.is_dir() else b"")
        with file.open("rb") as stream:
            while chunk := stream.read(2**22):
                digest.update(chunk)
    return digest.hexdigest()


def peak_memory_mb() -> float:
    """Most memory this process has held, in MB."""
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak / 2**20 if sys.platform == "darwin" else peak / 2**10


def metrics(evidence: Evidence, roles: np.ndarray, verdict: str, data_sha256: str) -> dict[str, Any]:
    """The numbers of a run; `test_*` are null without a test set."""
    fitted = evidence.fitted
    record, history = fitted.record, fitted.history
    best = history[history["epoch"] == record["best_epoch"]]
    test = np.flatnonzero(roles == Role.TEST)
    scored = (
        _test_scores(evidence, test)
        if len(test)
        else dict.fromkeys(("test_elbo", "test_iwae", "test_reconstruction", "test_kl"))
    )
    active = evidence.moments.mean.var(0) > 0.01
    return {
        "seconds": record["seconds"],
        "seconds_to_best": float(best["seconds"].iloc[0]) if len(best) else record["seconds"],
        "epochs": record["epochs"],
        "observations_per_second": record["train_observations"] * record["epochs"] / max(record["seconds"], 1e-9),
        "validation_elbo": float(known.iloc[0]) if len(known := best["validation_elbo"].dropna()) else None,
        **scored,
        "iwae_samples": IWAE_SAMPLES,
        "null_elbo": float(evidence.null.mean()),
        "active_units": int(active.sum()),
        "final_beta": record["final_beta"],
        "verdict": verdict,
        "peak_memory_mb": round(peak_memory_mb(), 1),
        "versions": versions(),
        "seed": record["seed"],
        "data_sha256": data_sha256,
    }


def _test_scores(evidence: Evidence, test: np.ndarray) -> dict[str, float]:
    s = bounds(
        evidence.fitted.network, evidence.observations, torch.from_numpy(test), Noise(evidence.seed), IWAE_SAMPLES
    )
    return {
        "test_elbo": float(s.elbo.mean()),
        "test_iwae": float(s.iwae.mean()),
        "test_reconstruction": float(s.reconstruction.mean()),
        "test_kl": float(s.kl.sum(1).mean()),
    }


def agreement(found: Stability) -> dict[str, Any]:
    """What an ensemble adds to the numbers of a run."""
    own = found.summary.loc[FITS]
    return {
        "ensemble": len(found.partitions),
        "neighbours_between_fits": float(own["neighbours"]),
        "clusters_between_fits": float(own["clusters"]),
        "stable_clusters": int(found.groups["stable"].sum()),
    }
