"""Ways from one state to another, with the expression along them."""

import itertools
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import numpy as np
import pandas as pd
import torch
from anndata import AnnData
from jaxtyping import Float
from mudata import MuData

from biovae.analysis import Curve, Metric, Pull, central, distances, geodesic, limits, pooled, straight, switches
from biovae.analysis.limits import SHARE
from biovae.analysis.neighbourhoods.positions import finite
from biovae.data.covariates import label
from biovae.errors import InputError, closest
from biovae.model import VAE
from biovae.model.doubt import last_weights
from biovae.model.generate import At, Wanted, lift
from biovae.model.lastlayer import LastWeights, with_weights
from biovae.schema import Support
from biovae.tools.arguments import model_and_data
from biovae.tools.labels import left_out, levels, present, quantities
from biovae.tools.latent import PER, Latent, decoder, latent, support_of
from biovae.training.progress import passing
from biovae.training.working import working

Place = str | float | Sequence[float] | np.ndarray
DRAWS = 40
ENOUGH = 1000  # features, over draws, whose doubt is summed
SAID = 8  # features that are named
EDGE = 1e-6  # of a probability
TINY = torch.finfo(torch.float32).tiny
UNIT: dict[Support, Callable[[torch.Tensor], torch.Tensor]] = {  # f of a mean, in which lengths are measured
    Support.COUNTS: lambda mean: 2 * mean.clamp_min(TINY).sqrt(),
    Support.BINARY: lambda mean: 2 * mean.clamp(TINY, 1 - EDGE).sqrt().asin(),
}


@dataclass(frozen=True)
class Walk:
    """A way and what is expressed along it.

    Attributes:
        curve: Positions, length, density and support, see `analysis.Curve`.
        expression: Means, of counts per 10,000, (steps, features); the index runs from 0 to 1.
        lower: 90 % interval over draws of z around the way and of the last layer's weights: below. Without draws both
            limits are the means.
        upper: Above.
        switches: The features that go up or down, in order, see `analysis.switches`: by a `log2_change` of at least 1,
            or of reals by a `change` of at least 1 in their unit.
        said: Sentences on what was left out.
    """

    curve: Curve
    expression: pd.DataFrame
    lower: pd.DataFrame
    upper: pd.DataFrame
    switches: pd.DataFrame
    said: tuple[str, ...] = ()

    def __str__(self) -> str:
        """Length, support, and the features that change most, in the order in which they switch."""
        change = "change" if "change" in self.switches else "log2_change"
        most = self.switches[change].abs().nlargest(SAID).index.sort_values()
        names = ", ".join(f"{row.feature} {row.direction}" for row in self.switches.loc[most].itertuples())
        said = f"; in order, those that change most: {names}." if names else "."
        return " ".join([f"{self.curve} {len(self.switches):,} features switch{said}", *self.said])


def path(  # noqa: PLR0913 - a user's door
    vae: VAE,
    data: AnnData | MuData,
    start: Place,
    end: Place,
    *,
    groups: str | None = None,
    modality: str | None = None,
    direct: bool = False,
    draws: int = DRAWS,
    seed: int = 0,
    progress: bool = True,
) -> Walk:
    """Walk from one state to another along a geodesic of the decoder that keeps to the data, or straight.

    A geodesic goes where the decoder moves little and is sure: its energy is the expectation over last layers that the
    training set cannot tell apart (see `model.doubt`), dearer outside the support of the data.

    Lengths are in standard deviations of Poisson counts at 10,000 per observation, f = 2 sqrt(mean); of real values,
    in their units. Steps are equally long.

    Args:
        vae: A fitted model.
        data: The observations that the way keeps to; not changed.
        start: A group of `groups` (text, a number or a boolean), the name of an observation, or a position.
        end: The same.
        groups: Column of `obs`; a group stands at its central observation. Observations without a label are of none.
        modality: Whose features are decoded; None takes the first.
        direct: Take the straight line.
        draws: Of z and of the last layer's weights, for the intervals.
        seed: Of every draw.
        progress: Show a bar on a terminal, lines elsewhere.

    Raises:
        InputError: A start or end is neither a group, an observation, nor a position.
    """
    model_and_data(vae, data, draws=draws, seed=seed)
    named = None if groups is None else levels(data, groups)
    with working("walking", show=progress):
        given = latent(vae, data, seed=seed)
        metric = _metric(given, modality) if direct else _doubting(given, modality, seed)
        a, b = (_place(given, data, place, named) for place in (start, end))
        curve = straight(metric, a, b) if direct else geodesic(metric, a, b, given.q.mean, seed=seed)
        walk = _walk(given, curve, modality, (draws, seed))
    return walk if named is None else replace(walk, said=left_out(named, groups))


@dataclass(frozen=True)
class Lengths:
    """How far groups are apart.

    Attributes:
        frame: Lengths of the geodesics between their centres, a row and a column per group; of an ensemble the mean
            over its fits, of logarithms.
        lower: Of the interval that holds the length in another fit with 90 % probability; None for a single fit.
        upper: Of it.
        said: Sentences on what was left out.
    """

    frame: pd.DataFrame
    lower: pd.DataFrame | None = None
    upper: pd.DataFrame | None = None
    said: tuple[str, ...] = ()

    def __str__(self) -> str:
        """Who is nearest, who is farthest, and how sure that is."""
        one, other = np.triu_indices(len(self.frame), 1)
        order = np.argsort(self.frame.to_numpy()[one, other], kind="stable")
        nearest, farthest = (self._pair(int(one[i]), int(other[i])) for i in (order[0], order[-1]))
        doubt = (
            " One fit: how far lengths move with the seed is not known; fit(data, ensemble=5) knows."
            if self.lower is None
            else ""
        )
        return " ".join([f"Nearest are {nearest}, farthest {farthest}.{doubt}", *self.said])

    def _pair(self, a: int, b: int) -> str:
        names = self.frame.index
        said = f"{names[a]} and {names[b]}, {self.frame.iloc[a, b]:.3g}"
        if self.lower is None or self.upper is None:
            return said
        return f"{said} ({self.lower.iloc[a, b]:.3g} to {self.upper.iloc[a, b]:.3g})"


def path_lengths(
    vae: VAE,
    data: AnnData | MuData,
    groups: str,
    *,
    modality: str | None = None,
    seed: int = 0,
    progress: bool = True,
) -> Lengths:
    """Lengths of the geodesics between the centres of groups: a distance between types.

    Every fit of an ensemble is asked: the seed moves a length by several per cent.

    Args:
        vae: A fitted model.
        data: The observations that the ways keep to; not changed.
        groups: Column of `obs`; observations without a label are of none.
        modality: Whose features measure length; None takes the first.
        seed: Of the neighbour graph.
        progress: Show a bar on a terminal.

    Raises:
        InputError: There is one group only, or no such column.
    """
    model_and_data(vae, data, seed=seed)
    said = left_out(levels(data, groups, 2), groups)
    tables = [_lengths(member, data, groups, (modality, seed), show=progress) for member in vae.members]
    if len(tables) == 1:
        return Lengths(tables[0], said=said)
    logs = np.log(np.maximum(np.array(tables), TINY))
    both = pooled(logs, np.zeros_like(logs), SHARE)
    apart, like = ~np.eye(len(tables[0]), dtype=bool), tables[0]
    mean, lower, upper = (like * 0 + np.where(apart, np.exp(x), 0) for x in (both.mean, both.lower, both.upper))
    return Lengths(mean, lower, upper, said)


def _lengths(vae: VAE, data: AnnData | MuData, groups: str, how: tuple[str | None, int], *, show: bool) -> pd.DataFrame:
    modality, seed = how
    with working("measuring density", show=show):
        given = latent(vae, data, seed=seed)
    named = levels(data, groups)
    known = present(named)
    centres = given.q.mean[[central(given.q.mean, named == level) for level in known]]
    pairs = [*itertools.combinations(range(len(known)), 2)]
    shown = passing(pairs, len(pairs), "walking", show=show)
    found = distances(_metric(given, modality), centres, given.q.mean, seed, shown)
    return pd.DataFrame(found, index=known, columns=known)


def _metric(given: Latent, modality: str | None) -> Metric:
    """A unit of length is a standard deviation, as far as the support of the values tells it."""
    vae = given.vae
    at: At = (vae.index(modality), PER, "average")
    quantities(vae, modality)
    unit = UNIT.get(support_of(vae, modality), lambda mean: mean)

    def f(z: np.ndarray) -> np.ndarray:
        return unit(torch.from_numpy(vae.decode(z, modality=modality, library=PER))).numpy()

    def lifted(z: np.ndarray) -> tuple[np.ndarray, Pull]:
        return lift(vae.network, vae.schema, z, at, unit)

    return Metric(f, given.q, lift=lifted)


def _doubting(given: Latent, modality: str | None, seed: int) -> Metric:
    """The metric whose energy is expected over draws of the last layer: |E df|^2 + E |df - E df|^2.

    Weights of features are drawn apart, so that one draw of thousands of them averages itself.

    Source: Syrota et al. 2024, arXiv:2408.07507 (geodesics of the expected energy).
    """
    metric, m = _metric(given, modality), given.vae.index(modality)
    draws = -(-ENOUGH // len(given.vae.features(modality)))
    weights = last_weights(given.vae.fitted, Wanted(m, None, PER, "average", draws), seed)
    if weights is None or metric.lift is None:
        return metric
    plain, share = metric.lift, 1 / np.sqrt(draws)

    def lifted(z: np.ndarray) -> tuple[np.ndarray, Pull]:
        f, back = plain(z)
        others = []
        for drawn in weights:
            with drawn.in_place():
                others.append(plain(z))

        def pulled(v: np.ndarray) -> np.ndarray:
            mean, *apart = np.split(v, 1 + draws, axis=1)
            total = back(mean - share * sum(apart))
            for drawn, (_, of_draw), part in zip(weights, others, apart, strict=True):
                with drawn.in_place():  # the weights are read again on the way back
                    total += of_draw(share * part)
            return total

        return np.concatenate([f, *(share * (other - f) for other, _ in others)], axis=1), pulled

    return replace(metric, lift=lifted)


def _place(
    given: Latent, data: AnnData | MuData, place: Place, named: np.ndarray | None
) -> Float[np.ndarray, "latent"]:
    if np.ndim(place):
        z = finite(np.atleast_2d(place)).ravel()
        if len(z) != given.vae.latent:
            raise InputError(f"expected a position with {given.vae.latent} coordinates, found {len(z)}.")
        return z
    place = label(place)  # type: ignore[arg-type]  # one value
    if named is not None and place in named:
        return given.q.mean[central(given.q.mean, named == place)]
    names = np.asarray(data.obs_names)[given.rows]
    if place in names:
        return given.q.mean[int(np.flatnonzero(names == place)[0])]
    known = [] if named is None else present(named)
    raise InputError(
        f"expected a group or an observation, found {place!r}: " + (closest(place, known) if known else "name groups=.")
    )


def _walk(given: Latent, curve: Curve, modality: str | None, how: tuple[int, int]) -> Walk:
    decode, (draws, seed) = decoder(given.vae, modality), how
    mean = decode(curve.z).astype(np.float64)
    spread = np.sqrt(given.q.variance[given.q.owner(curve.z)] / given.q.width)
    noise = np.random.default_rng(seed).standard_normal((draws, 1, curve.z.shape[1]))  # one for a whole draw of the way
    wanted = Wanted(given.vae.index(modality), None, PER, "average", draws)
    weights: Sequence[LastWeights | None] = last_weights(given.vae.fitted, wanted, seed) or [None] * draws

    both = zip(noise, weights, strict=True)
    decoded = [with_weights(decode, last)(curve.z + spread * e).astype(np.float64) for e, last in both]
    drawn = np.stack(decoded) if draws else None
    lower, upper = (mean, mean) if drawn is None else limits(drawn)
    names, time = given.vae.features(modality), pd.Index(curve.time, name="time")
    table, below, above = (pd.DataFrame(values, index=time, columns=names) for values in (mean, lower, upper))
    additive = support_of(given.vae, modality) is Support.REALS  # a ratio of reals means nothing
    order = switches(mean, list(names), additive=additive, draws=drawn)
    return Walk(curve, table, below, above, order)
