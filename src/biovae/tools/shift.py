"""Is a new data set like those that the model knows? A reference stands for them: the model keeps no data."""

from typing import Literal

import numpy as np
import pandas as pd
import torch
from anndata import AnnData
from mudata import MuData

from biovae.analysis import density
from biovae.analysis.oddities.doublets import neighbour_share
from biovae.analysis.oddities.shift import Residuals, Shift, drivers, energy, rank_test, two_sided
from biovae.analysis.space.density import tail
from biovae.batch import Observations, plain
from biovae.errors import InputError
from biovae.model import VAE
from biovae.model.inference import minibatches, rows_at_once
from biovae.model.replicate import blocks
from biovae.schema import Support
from biovae.tools.arguments import model_and_data, whole
from biovae.tools.doublets import Looked, Way, look
from biovae.training.progress import passing
from biovae.training.working import working

LEAST = 20  # observations of either
LEVEL = 0.05
CROWD = 10_000  # observations of either that neighbours are sought among
Missing = Literal["error", "zero"]


def shift(  # noqa: PLR0913 - a user's door
    vae: VAE,
    data: AnnData | MuData,
    reference: AnnData | MuData,
    *,
    modality: str | None = None,
    missing: Missing = "error",
    unseen: Missing = "error",
    draws: int = 8,
    seed: int = 0,
    progress: bool = True,
) -> Shift:
    """Compare new observations with a reference: their surprise, their z, their depth, and which features differ.

    Surprise (standardised, so that depth has no part in it) and z are tests of whether the model's population is left;
    depth stands beside them. All are compared with what the reference shows itself, and no distribution is assumed.

    Args:
        vae: A fitted model.
        data: New observations; not changed.
        reference: Observations of the population that the model was fitted to, best such as training has not seen: what
            was trained on surprises a little less.
        modality: Whose depth and features are compared; None takes the first.
        missing: "zero" takes features that the new data lack as never seen.
        unseen: "zero" takes unknown levels of covariates as none of the known ones.
        draws: Replicates of each observation, at least 3.
        seed: Of every draw.
        progress: Show a bar on a terminal.

    Raises:
        InputError: Fewer than 20 observations of either, or features and covariates do not fit.
    """
    model_and_data(vae, data, reference, seed=seed)
    whole(3, draws=draws)
    way = Way(vae, vae.index(modality), draws, seed, progress)
    old = vae.observe(reference).observations
    new = vae.observe(data, missing=missing, unseen=unseen).observations
    if min(len(old), len(new)) < LEAST:
        raise InputError(
            f"expected at least {LEAST} observations of both, found {len(new)} new and {len(old)} of the reference: "
            "give more."
        )
    before, after = look(way, old), look(way, new)
    counts = vae.schema.modalities[way.m].support is Support.COUNTS
    with working("comparing z", show=progress):
        near_old, near_new = _neighbours(before.z, after.z, seed)
        tests = _tests(before, after, (near_old, near_new), counts=counts, seed=seed)
        support = density(before.z, before.variance, seed=seed).support(after.z)
    each = {"newness": near_new, "p_support": support, "p_surprise": tail(after.surprise, before.surprise)}
    observations = pd.DataFrame(each, index=pd.Index(data.obs_names))
    residuals = _residuals(way, old), _residuals(way, new)
    tested = tests["p_value"].dropna()
    return Shift(
        tests=tests,
        p_value=float(min(1.0, len(tested) * tested.min())),
        unsupported=float((observations["p_support"] <= LEVEL).mean() - LEVEL),
        surprising=float((observations["p_surprise"] <= LEVEL).mean() - LEVEL),
        observations=observations,
        features=drivers(*residuals, vae.features(modality), counts=counts),
    )


def _tests(
    before: Looked, after: Looked, near: tuple[np.ndarray, np.ndarray], *, counts: bool, seed: int
) -> pd.DataFrame:
    effect, p = rank_test(before.surprise, after.surprise)
    apart, _ = rank_test(*near)
    _, p_z = energy(before.z, after.z, seed=seed)
    rows = [
        ("surprise", two_sided(effect), p, f"new observations are {'more' if effect > 0.5 else 'less'} surprising"),
        ("z", max(apart, 0.5), p_z, "new observations lie elsewhere in z: other states, or other shares of them"),
    ]
    if counts:
        effect, _ = rank_test(before.total, after.total)
        deeper = "deeper" if effect > 0.5 else "shallower"
        rows.append(("depth", two_sided(effect), np.nan, f"new observations are {deeper}; not part of the test"))
    return pd.DataFrame(rows, columns=["what", "effect", "p_value", "meaning"])


def _neighbours(old: np.ndarray, new: np.ndarray, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Share of new observations near each old and each new one; nobody is its own neighbour."""
    rng = np.random.default_rng(seed)
    few = [np.sort(rng.permutation(len(z))[:CROWD]) for z in (old, new)]
    apart = neighbour_share(old[few[0]], new[few[1]])
    near_old, near_new = apart[: len(few[0])], np.empty(len(new))
    near_new[few[1]] = apart[len(few[0]) :]
    rest = np.setdiff1d(np.arange(len(new)), few[1])
    if len(rest):
        near_new[rest] = neighbour_share(old[few[0]], new[few[1]], new[rest])
    return near_old, near_new


@torch.no_grad()
def _residuals(way: Way, observations: Observations) -> Residuals:
    """What was counted and what was expected at each observation's own z and depth, in a stream."""
    network, m = way.vae.network.eval(), way.m
    rows = observations.carriers(m)
    x, sums = plain(observations.x[m]), Residuals(observations.x[m].shape[1])
    size = rows_at_once(network, observations)
    parts = zip(rows.split(size), minibatches(observations, rows, size), strict=True)
    for part, batch in passing(parts, blocks(rows, size), "comparing features", show=way.show):
        p = network.decode(network.encode(batch).z.mean, batch, m)
        sums.add(x[part.numpy()], p.mean.cpu().numpy(), p.variance.expand_as(p.mean).cpu().numpy())
    return sums
