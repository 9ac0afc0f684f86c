"""What does each latent dimension mean? Its features, its columns of `obs`, its gene sets."""

from collections.abc import Mapping, Sequence

import numpy as np
import pandas as pd
import scipy.special
from anndata import AnnData
from mudata import MuData

from biovae.analysis import associate, differences, effects, enrich, ladder, traverse
from biovae.analysis.axes.dimensions import Dimensions, summary
from biovae.data import Prepared, column
from biovae.diagnostics.collapse import active
from biovae.errors import InputError, listed
from biovae.model import VAE
from biovae.model.doubt import last_weights
from biovae.model.generate import Wanted
from biovae.model.inference import everything, posterior_draws, posterior_moments
from biovae.model.lastlayer import with_weights
from biovae.model.loadings import loadings
from biovae.noise import Noise
from biovae.schema import Support
from biovae.tools.arguments import model_and_data, whole
from biovae.tools.labels import cleared, left_out, quantities
from biovae.training.working import working

PER = 1e4  # counts are decoded per 10,000
SAMPLES = 4  # draws of z per observation
EDGE = 1e-6  # probabilities nearer to 0 or 1 have a logit that single precision cannot tell
LEVELS = 50  # a column of text with more is a name, unless asked for


def dimensions(  # noqa: PLR0913 - a user's door
    vae: VAE,
    data: AnnData | MuData,
    *,
    columns: Sequence[str] | str | None = None,
    sets: Mapping[str, Sequence[str] | str] | None = None,
    modality: str | None = None,
    cells: int = 250,
    draws: int = 20,
    seed: int = 0,
    progress: bool = True,
) -> Dimensions:
    """Read every latent dimension: which features it moves and which way, and what it goes with.

    Effects are derivatives of log mean (counts), logit (zeros and ones) or mean (reals), averaged over draws of the
    aggregate posterior at averaged covariates. Dimensions of an ordinary decoder are not unique: another seed may give
    others, and PCA's may be as telling (`bv.tl.sweep` has both in its table).

    Args:
        vae: A fitted model.
        data: The observations to look at; not changed.
        columns: Of `obs`, to associate with each dimension; None takes all that vary and are no names. Observations
            without a value have no part in that column's association.
        sets: Names of features by name of the set, for a test of enrichment; `bv.tl.enrichment` has another.
        modality: Whose features; None takes the first.
        cells: Observations, drawn at random, at which derivatives and traversals are taken.
        draws: Of the weights of the last layer, for the limits of effects and the bands of traversals; 19 or more, or 0
            to leave the doubt about weights out, which saves seconds.
        seed: Of the draws.
        progress: Show a bar on a terminal, lines elsewhere.

    Raises:
        InputError: The model is not fitted, a column is missing or constant, or no set has a feature of the model.
    """
    model_and_data(vae, data, draws=draws, seed=seed)
    whole(1, cells=cells)
    quantities(vae, modality)
    with working("reading dimensions", show=progress):
        return _read(vae, data, (columns, sets), modality, (cells, draws, seed))


def _read(
    vae: VAE,
    data: AnnData | MuData,
    asked: tuple[Sequence[str] | str | None, Mapping[str, Sequence[str] | str] | None],
    modality: str | None,
    how: tuple[int, int, int],
) -> Dimensions:
    (columns, sets), (cells, draws, seed) = asked, how
    m, prepared = vae.index(modality), vae.observe(data)
    support, names = vae.schema.modalities[m].support, list(vae.features(modality))
    mean = posterior_moments(vae.network, prepared.observations, everything(prepared.observations)).mean
    noise = Noise(seed)
    rows = noise.permutation(len(mean))[:cells].sort().values
    z = posterior_draws(vae.network, prepared.observations, rows, noise, SAMPLES)

    def decode(z: np.ndarray) -> np.ndarray:
        return vae.decode(z, modality=modality, library=PER)

    table, unit = _table(data, columns), TRANSFORM[support]
    weights = last_weights(vae.fitted, Wanted(m, None, PER, "average", draws), seed) or ()
    others = [with_weights(decode, each) for each in weights]
    slopes = [differences(each, unit) for each in others]
    found = effects(differences(decode, unit), z, names, _weight(prepared, m, support), slopes)
    scores = found["score"].to_numpy().reshape(vae.latent, -1).T
    return Dimensions(
        summary=summary(mean, active(mean)),
        effects=found,
        associations=associate(mean, table, seed=seed),
        traversal=traverse(decode, z[0], ladder(mean), names, others),
        enrichment=None if sets is None else enrich(scores, names, sets),
        loadings=loadings(vae, vae.fitted, mean, m),
        unit=UNITS[support],
        said=tuple(said for name in table for said in left_out(table[name], name)),
    )


def _log(mean: np.ndarray) -> np.ndarray:
    return np.log(np.maximum(mean, np.finfo(np.float32).tiny))


def _logit(mean: np.ndarray) -> np.ndarray:
    return scipy.special.logit(np.clip(mean, EDGE, 1 - EDGE))


def _same(mean: np.ndarray) -> np.ndarray:
    return mean


TRANSFORM = {Support.COUNTS: _log, Support.BINARY: _logit, Support.REALS: _same}
UNITS = {
    Support.COUNTS: "log fold change per unit of z",
    Support.BINARY: "log odds ratio per unit of z",
    Support.REALS: "change per unit of z",
}


def _weight(prepared: Prepared, m: int, support: Support) -> np.ndarray:
    """The root of the information that one unit of effect carries: what makes features comparable."""
    (x, carriers), exposure = prepared.observations.measured(m), prepared.observations.exposure[m]
    mean = np.asarray(x.mean(0), dtype=np.float64).ravel()
    if support is Support.REALS:
        spread = np.asarray(x).std(0)
        return np.divide(1, spread, out=np.zeros_like(mean), where=spread > 0)
    if support is Support.BINARY:
        return np.sqrt(mean * (1 - mean))
    depth = 1.0 if exposure is None else float(exposure[carriers].mean())
    return np.sqrt(mean / depth * PER)


def _table(data: AnnData | MuData, wanted: Sequence[str] | str | None) -> pd.DataFrame:
    if wanted is not None:
        return pd.DataFrame({name: cleared(column(data, name)) for name in listed(wanted)}, index=data.obs_names)
    kept = {}
    for name in data.obs.columns:
        try:
            own = cleared(data.obs[name])
        except InputError:  # lists and the like, of which there can be no association
            continue
        values = own.dropna()
        numeric = pd.api.types.is_numeric_dtype(values)
        if values.nunique() > 1 and (numeric or values.nunique() <= LEVELS):
            kept[name] = own
    return pd.DataFrame(kept, index=data.obs_names)
