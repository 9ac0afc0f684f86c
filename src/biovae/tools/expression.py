"""Expression as it would be without noise, depth and batch: chosen features, with intervals, block by block."""

from collections.abc import Mapping, Sequence
from typing import Literal

import numpy as np
import pandas as pd
from anndata import AnnData
from mudata import MuData

from biovae.errors import InputError
from biovae.model import VAE
from biovae.model.doubt import last_weights
from biovae.model.generate import Expression, Wanted, expression
from biovae.tools.arguments import model_and_data
from biovae.tools.labels import quantities
from biovae.training.progress import passing

ROWS = 4096  # observations at once


def corrected_expression(  # noqa: PLR0913 - a user's door
    vae: VAE,
    data: AnnData | MuData,
    features: Sequence[str] | str | None = None,
    *,
    modality: str | None = None,
    covariates: Mapping[str, str | float] | Literal["own", "average"] = "average",
    library: float = 1e4,
    samples: int = 20,
    key: str | None = None,
    progress: bool = True,
) -> Expression:
    """What every observation would show at one depth, averaged over batches, between limits.

    The mean is decoded at the posterior mean of z; limits hold 90 % of draws of z and of the last layer's weights (see
    `biovae.model.doubt`). They are limits of the expected count, not of a count. Only the chosen features are kept, in
    float32: ten of 200,000 observations with their limits take 24 MB.

    Args:
        vae: A fitted model.
        data: The observations; not changed, but for `key`.
        features: Names; None takes all.
        modality: Which one; None takes the first.
        covariates: "average" over the levels of every categorical covariate, "own", or chosen values by name.
        library: Counts per observation.
        samples: Draws for the limits; 0 gives the means alone.
        key: Write the means into an AnnData: into `layers[key]` if `features` are all of its variables, else as a
            table into `obsm[key]`; limits beside them, as `key_lower` and `key_upper`.
        progress: Show a bar on a terminal.

    Returns:
        `mean`, and `lower` and `upper` where there are samples: frames of observations x features.

    Raises:
        InputError: A feature is unknown, or `key` was given for something else than an AnnData.
    """
    model_and_data(vae, data, samples=samples)
    if key is not None and not isinstance(data, AnnData):
        raise InputError(f"expected an AnnData to write {key!r} into, found a {type(data).__name__}: leave out key=.")
    quantities(vae, modality)
    wanted = Wanted(vae.index(modality), features, library, covariates, samples)
    weights = last_weights(vae.fitted, wanted)
    blocks = [np.arange(start, min(start + ROWS, data.n_obs)) for start in range(0, max(data.n_obs, 1), ROWS)]
    parts = [
        expression(vae.fitted, vae.observe(data, indices=rows), wanted, weights)
        for rows in passing(blocks, len(blocks), "decoding", show=progress)
    ]
    mean, lower, upper = (_joined([getattr(part, name) for part in parts]) for name in ("mean", "lower", "upper"))
    assert mean is not None
    found = Expression(mean, lower, upper)
    if key is not None:
        write_expression(data, found, key)
    return found


def write_expression(adata: AnnData, found: Expression, key: str) -> None:
    """Put frames into an AnnData: a layer where they cover its variables, a table in `obsm` where they do not."""
    for name, frame in ((key, found.mean), (f"{key}_lower", found.lower), (f"{key}_upper", found.upper)):
        if frame is None:
            continue
        if len(frame.columns) == adata.n_vars and set(frame.columns) == set(adata.var_names):
            adata.layers[name] = frame[list(adata.var_names)].to_numpy()
        else:
            adata.obsm[name] = frame.set_axis(adata.obs_names)


def _joined(parts: Sequence[pd.DataFrame | None]) -> pd.DataFrame | None:
    frames = [part for part in parts if part is not None]
    return pd.concat(frames) if frames else None
