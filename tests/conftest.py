"""What every test shares: real data if they are there, shapes checked at run time, reproducible examples."""

import os
from collections.abc import Callable
from pathlib import Path

import hypothesis
import pytest
from jaxtyping import install_import_hook

os.environ.setdefault("MPLBACKEND", "Agg")
if "PYTEST_XDIST_WORKER" in os.environ:  # processes share the cores, before torch and numba look at them
    for library in ("OMP", "MKL", "OPENBLAS", "NUMBA"):
        os.environ.setdefault(f"{library}_NUM_THREADS", "1")

hypothesis.settings.register_profile("biovae", deadline=None, derandomize=True, max_examples=50)
hypothesis.settings.load_profile("biovae")

# From here on the axes written in annotations are assertions, in whatever of these modules a test imports.
MATHEMATICS = (
    "batch", "distributions", "likelihoods", "network", "nn", "noise", "objective", "posteriors", "priors",
)  # fmt: skip
install_import_hook([f"biovae.{room}" for room in MATHEMATICS], "beartype.beartype")

SHARED = Path(__file__).parents[2] / "shared" / "data"


@pytest.fixture(scope="session")
def real() -> Callable[[str], Path]:
    """`real("pbmc3k_hvg2000.h5ad")`: the path of a real data set; skips where no data were promised."""
    promised = os.environ.get("BIOVAE_DATA")
    folder = Path(promised or SHARED)

    def find(name: str) -> Path:
        if not promised and not folder.is_dir():
            pytest.skip(f"no real data: set BIOVAE_DATA to the folder that holds {name}")
        path = folder / name
        if not path.is_file():
            pytest.fail(f"expected {name} in the data folder, found none; BIOVAE_DATA must be complete or unset")
        return path

    return find
