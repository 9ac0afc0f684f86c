"""Does the model fill in counts better than something simple? Asked of the user's own data."""

from dataclasses import replace

import numpy as np
import pandas as pd
import scipy.sparse
import torch
from anndata import AnnData
from jaxtyping import Float
from torch import Tensor

from biovae.analysis import Imputation, Imputer, Question, baselines, compare_imputers, hide, scored_rows
from biovae.batch import Batch, Observations, SparseMatrix, plain
from biovae.data import Prepared
from biovae.errors import InputError
from biovae.model import VAE
from biovae.model.fitting import Options
from biovae.model.inference import minibatches
from biovae.network import Network
from biovae.noise import Noise
from biovae.schema import Support
from biovae.tools.arguments import model_and_data, real, whole
from biovae.tools.likelihoods import halves
from biovae.training.plan import Epochs
from biovae.training.working import working

COVERED = 400  # observations whose intervals are checked
DRAWS = 8  # of z for each
ENTRIES = 2**20  # probabilities at once
TAIL = 0.05  # on either side of an interval
NAME = "VAE"


def imputation(  # noqa: PLR0913 - a user's door
    vae: VAE,
    data: AnnData,
    *,
    share: float = 0.1,
    cells: int = 20_000,
    seed: int = 0,
    epochs: Epochs = "auto",
    progress: bool = True,
) -> Imputation:
    """Score how a model fills in counts that it was not shown, beside gene means, PCA and diffusion over neighbours.

    The model is fitted afresh, once to data with a tenth of the counts above zero hidden, once to one half of every
    observation's molecules; `vae` itself may be fitted or not, and is not changed. See
    `biovae.analysis.models.imputation` for what is asked, and `biovae.analysis.models.imputers` for what it is compared
    with.

    Args:
        vae: The model; one modality of counts.
        data: Raw counts; not changed.
        share: Of the counts above zero, how many are hidden.
        cells: At most so many observations, drawn at random.
        seed: Of what is hidden, thinned, drawn and fitted.
        epochs: Of each of the two fits.
        progress: Show the fits, and that the trials go on.

    Returns:
        `frame` with a row per question and method; printed, it says who wins.

    Raises:
        InputError: The model has several modalities, or one that is not of counts.
    """
    model_and_data(vae, data, seed=seed)
    whole(1, cells=cells)
    real(share=share)
    if len(vae.modalities) != 1 or vae.modalities[0].likelihood.support is not Support.COUNTS:
        found = ", ".join(str(m.likelihood.support) for m in vae.modalities)
        raise InputError(f"expected a model of one modality of counts, found {found}: impute them one at a time.")
    if data.n_obs > cells:
        data = data[np.sort(Noise(seed).numpy().permutation(data.n_obs)[:cells])]
    prepared = vae.prepare(data)
    roles = vae.roles(data, prepared, seed=seed)
    rows = scored_rows(len(prepared.obs_names), seed)
    with working("hiding counts", show=progress):
        asked = questions(prepared, share, seed)
    frames = []
    for given, question in asked:
        model = VAE.model_validate(vae.model_dump())
        model.fit_prepared(given, roles, Options(epochs=epochs, seed=seed, progress=progress, label=question.name))
        with working(f"{question.name}: trying the model and the baselines", show=progress):
            frames.append(_asked(model.network, given.observations, question, rows, seed))
    entries = next(question.held[rows[1]].nnz for _, question in asked if question.name == "masking")
    return Imputation(pd.concat(frames, ignore_index=True), NAME, entries, len(rows[1]))


def _asked(
    network: Network, given: Observations, question: Question, rows: tuple[np.ndarray, np.ndarray], seed: int
) -> pd.DataFrame:
    """The model and the baselines in one table."""
    methods = {NAME: (imputer_of(network, given),)} | baselines(question.given, exposure_of(given), seed)
    frame = compare_imputers(question, methods, rows, seed)
    frame["coverage"] = np.nan
    if question.name == "masking":
        few = torch.from_numpy(rows[1][:COVERED])
        frame.loc[frame["method"] == NAME, "coverage"] = _inside(network, given, question, few, Noise(seed))
    return frame


def questions(prepared: Prepared, share: float, seed: int) -> list[tuple[Prepared, Question]]:
    """What is given to a model, and what every method is asked."""
    o = prepared.observations
    whole, exposure = o.x[0], o.exposure[0]
    if not isinstance(whole, SparseMatrix) or exposure is None:
        raise InputError("expected sparse counts with a depth, found none: give raw counts.")
    counts = whole.scipy()
    left, hidden = hide(counts, share, seed)
    kept = np.maximum(left.sum(1), 1) / np.maximum(counts.sum(1), 1)
    seen = exposure * torch.from_numpy(kept.astype(np.float32)).unsqueeze(1)
    masked = Observations((SparseMatrix.from_scipy(left),), (seen,), o.present, o.covariates)
    one, other = halves(prepared, seed)
    first, second = (scipy.sparse.csr_array(plain(part.observations.x[0])) for part in (one, other))
    hiding = Question("masking", left, hidden, exposure_of(masked) / (1 - share))
    halving = Question("thinning", first, second, exposure_of(one.observations))
    return [(replace(prepared, observations=masked), hiding), (one, halving)]


def exposure_of(observations: Observations) -> Float[np.ndarray, "obs"]:
    """The depth that a model is given, (obs,)."""
    exposure = observations.exposure[0]
    assert exposure is not None
    return exposure[:, 0].numpy().astype(np.float64)


def imputer_of(network: Network, observations: Observations) -> Imputer:
    """The decoder's mean at the posterior mean, per unit of depth, at each observation's own covariates."""
    depth = exposure_of(observations)
    network.eval()

    @torch.no_grad()
    def shares(rows: np.ndarray) -> np.ndarray:
        batch = observations.batch(torch.from_numpy(rows))
        mean = network.decode(network.encode(batch).z.mean, batch, 0).mean
        return mean.numpy().astype(np.float64) / depth[rows, None]

    return Imputer("", shares)


@torch.no_grad()
def _inside(network: Network, given: Observations, question: Question, rows: Tensor, noise: Noise) -> float:
    """The share of hidden counts in the central 90 % of what the model says of a count that is known not to be 0.

    The place of x in its distribution, drawn evenly within the step at x:

        u ~ [P(X < x | X > 0), P(X <= x | X > 0)],   P(X <= x | X > 0) = sum_s (F_s(x) - F_s(0)) / sum_s (1 - F_s(0))
    """
    network.eval()
    lift = float(np.median(question.depth / exposure_of(given)))
    size = max(1, ENTRIES // (DRAWS * question.held.shape[1]))
    places = []
    for i, batch in enumerate(minibatches(given, rows, size)):
        held = scipy.sparse.csr_array(question.held[rows[i * size : i * size + len(batch)].numpy()])
        x = torch.from_numpy(held.toarray().astype(np.float32))
        z = network.encode(batch).z.sample(noise.at(4, i), DRAWS)
        whole = Batch(
            batch.x, tuple(e if e is None else lift * e for e in batch.exposure), batch.present, batch.covariates
        )
        p = network.decode(z, whole, 0)
        zero, at = p.log_prob_each(torch.zeros_like(x)).exp(), p.log_prob_each(x).exp()
        above = (1 - zero).sum(0).clamp(min=1e-12)
        upper = ((p.cdf(x) - zero).sum(0) / above).clamp(0, 1)
        lower = (upper - at.sum(0) / above).clamp(0, 1)
        u = lower + noise.at(5, i).uniform(*x.shape) * (upper - lower)
        places.append(u[x > 0])
    u = torch.cat(places)
    return float(((u >= TAIL) & (u <= 1 - TAIL)).float().mean()) if len(u) else float("nan")
