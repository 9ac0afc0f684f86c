"""Which likelihood suits the counts: fit each to one half of every observation's counts, score the other half.

With the observed library L = sum x, p(x | L) does not sum to one over x, and likelihoods that use L differently cannot
be ranked by it. Binomial thinning takes the question away: exposure and z come from one half alone, and the other half
is predicted.
"""

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import pandas as pd
import scipy.sparse
import torch
from anndata import AnnData

from biovae.batch import SparseMatrix
from biovae.data import Prepared, Role
from biovae.errors import InputError
from biovae.likelihoods import Likelihood
from biovae.model import VAE
from biovae.model.fitting import Options
from biovae.model.inference import predictive
from biovae.noise import Noise
from biovae.schema import Support
from biovae.training.plan import Epochs

COUNTS = ("negative_binomial", "zero_inflated_negative_binomial", "poisson", "log1p_gaussian")
SAMPLES = 50


def thin(counts: scipy.sparse.csr_array, seed: int = 0) -> tuple[scipy.sparse.csr_array, scipy.sparse.csr_array]:
    """Two halves of the same counts: each molecule goes to one of them by the toss of a coin.

    Poisson counts split into independent halves; overdispersed ones into halves that share their mean.

    Args:
        counts: Whole numbers, (obs, features).
        seed: Of the tosses.
    """
    whole = scipy.sparse.csr_array(counts)
    one = whole.copy()
    one.data = Noise(seed).numpy().binomial(whole.data.astype(np.int64), 0.5).astype(whole.dtype)
    other = whole.copy()
    other.data = whole.data - one.data
    for half in (one, other):
        half.eliminate_zeros()
    return one, other


def rank_likelihoods(  # noqa: PLR0913 - a user's door
    vae: VAE,
    data: AnnData,
    likelihoods: Sequence[Likelihood | str] = COUNTS,
    *,
    test: float = 0.2,
    seed: int = 0,
    epochs: Epochs = "auto",
    progress: bool = False,
) -> pd.DataFrame:
    """Fit the same model under several likelihoods and rank them on one scale, best first.

    Args:
        vae: The model in all but its likelihood; one modality of counts.
        data: Raw counts; not changed.
        likelihoods: Recipes or their kinds.
        test: Fraction of observations that no fit sees, and that are scored.
        seed: Of thinning, split and fits.
        epochs: Of each fit.
        progress: Show each fit.

    Returns:
        A row per likelihood: `name`, `mean` and `se` of the held-out half's log-probability in nats per observation,
        `difference` from the best and its paired `difference_se`, `seconds`.

    Raises:
        InputError: The model has several modalities, or a likelihood is not one of counts.
    """
    if len(vae.modalities) != 1:
        raise InputError(f"expected a model of one modality, found {len(vae.modalities)}: rank them one at a time.")
    prepared = vae.prepare(data)
    given, scored = halves(prepared, seed)
    held_out = Noise(seed).numpy().random(len(prepared.obs_names)) < test
    roles = vae.roles(data, prepared, held_out=held_out, seed=seed)
    rows = torch.from_numpy(np.flatnonzero(roles == Role.TEST))
    columns, seconds = {}, {}
    for likelihood in likelihoods:
        modality = vae.modalities[0]
        parts = vae.model_dump() | {"modalities": (modality.model_dump() | {"likelihood": likelihood},)}
        candidate = VAE.model_validate(parts)
        recipe = candidate.modalities[0].likelihood
        if recipe.support is not Support.COUNTS:
            raise InputError(f"expected likelihoods of counts, found one of {recipe.support}: {likelihood!r}.")
        candidate.fit_prepared(given, roles, Options(epochs=epochs, seed=seed, progress=progress))
        name = recipe.model_dump()["kind"]
        seconds[name] = candidate.fitted.record["seconds"]
        columns[name] = predictive(
            candidate.network, given.observations, scored.observations, rows, Noise(seed), SAMPLES
        )
    return _ranked(pd.DataFrame(columns), seconds)


def halves(prepared: Prepared, seed: int) -> tuple[Prepared, Prepared]:
    """The same observations with half the counts each; both have the exposure that the first half shows."""
    o = prepared.observations
    matrix, whole = o.x[0], o.exposure[0]
    if not isinstance(matrix, SparseMatrix) or whole is None:
        raise InputError("expected counts, found a table of reals: likelihoods of reals are compared by their bound.")
    counts = matrix.scipy()
    one, other = thin(counts, seed)
    share = np.maximum(one.sum(1), 1) / np.maximum(counts.sum(1), 1)
    exposure = whole * torch.from_numpy(share.astype(np.float32)).unsqueeze(1)
    parts = [type(o)((SparseMatrix.from_scipy(h),), (exposure,), o.present, o.covariates) for h in (one, other)]
    first, second = (replace(prepared, observations=part) for part in parts)
    return first, second


def _ranked(scores: pd.DataFrame, seconds: dict[str, float]) -> pd.DataFrame:
    best = scores.mean().idxmax()
    behind = scores.sub(scores[best], axis=0)
    root = np.sqrt(len(scores))
    frame = pd.DataFrame(
        {
            "name": scores.columns,
            "mean": scores.mean().to_numpy(),
            "se": (scores.std() / root).to_numpy(),
            "difference": behind.mean().to_numpy(),
            "difference_se": (behind.std() / root).to_numpy(),
            "seconds": [seconds[name] for name in scores.columns],
        }
    )
    return frame.sort_values("mean", ascending=False, ignore_index=True)
