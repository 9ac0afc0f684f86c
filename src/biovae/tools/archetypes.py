"""The corners between which observations lie: what each decodes to, and how much of it each group holds."""

import itertools
from dataclasses import dataclass

import numpy as np
import pandas as pd
from anndata import AnnData
from mudata import MuData

from biovae.analysis import Archetypes, found_again, leiden
from biovae.analysis import archetypes as find
from biovae.model import VAE
from biovae.model.inference import everything, posterior_draws, posterior_moments
from biovae.noise import Noise
from biovae.schema import Support
from biovae.tools.arguments import model_and_data, whole
from biovae.tools.labels import left_out, levels
from biovae.tools.latent import decoder, support_of
from biovae.training.progress import passing
from biovae.training.working import working

MARKERS = 20  # features that are kept of each archetype
SAID = 4  # that are named
ALIKE = 0.8  # correlation of weights from which on an archetype of another fit is the same one
PSEUDO = 0.5  # counts per 10,000


@dataclass(frozen=True)
class Corners:
    """Archetypes, and what they are.

    Attributes:
        found: Positions and weights, see `analysis.Archetypes`.
        profiles: What each decodes to, counts per 10,000: (archetypes, features).
        markers: The features by which each exceeds the others most: `archetype`, `feature`, `value`, `others` (the
            highest of them), and of counts `log2_fold_change`.
        groups: Mean weights of each group, (groups, archetypes).
        again: Of an ensemble: how the weights of each archetype correlate with those of its like in each other fit,
            (fits - 1, archetypes).
        said: Sentences on what was left out.
    """

    found: Archetypes
    profiles: pd.DataFrame
    markers: pd.DataFrame
    groups: pd.DataFrame
    again: pd.DataFrame | None = None
    said: tuple[str, ...] = ()

    def __str__(self) -> str:
        """A line for all, and one for each."""
        lines = [str(self.found)]
        for name in self.profiles.index:
            high = ", ".join(self.markers.loc[self.markers["archetype"] == name, "feature"].head(SAID))
            most = self.groups[name].idxmax()
            where = f"; most in {most} ({self.groups.loc[most, name]:.0%})" if len(self.groups) > 1 else ""
            share = self.found.weights[:, list(self.profiles.index).index(name)].mean()
            lines.append(f"{name}: {share:.0%} of all{where}; above the others in {high}.{self._stable(str(name))}")
        return "\n".join([*lines, *self.said])

    def _stable(self, name: str) -> str:
        if self.again is None:
            return ""
        least = self.again[name].min()
        said = "Found again in every other fit" if least >= ALIKE else "NOT FOUND AGAIN IN EVERY OTHER FIT"
        return f" {said} (correlation of weights {least:.2f} or more)."


def archetypes(  # noqa: PLR0913 - a user's door
    vae: VAE,
    data: AnnData | MuData,
    count: int,
    *,
    groups: str | None = None,
    modality: str | None = None,
    draws: int = 5,
    seed: int = 0,
    progress: bool = True,
) -> Corners:
    """Read every observation as a mixture of a few archetypes, the corners of the cloud in z.

    Where observations are mixtures of pure states, doublets, dilutions, a continuum between programmes, the weights
    are their shares. Where they are not, the corners are extremes and no more; `found.explained` says how much is left.
    Of an ensemble the archetypes are those of the first fit, and each says whether the others find it again.

    Args:
        vae: A fitted model.
        data: The observations; not changed.
        count: How many archetypes.
        groups: Column of `obs` whose levels' mean weights are told, over the observations with a label; None takes
            clusters of the latent neighbour graph.
        modality: Whose features are decoded; None takes the first.
        draws: Samples of z from the posterior, for the doubt about weights.
        seed: Of draws and of the start.
        progress: Show a bar on a terminal.

    Raises:
        InputError: Fewer than two archetypes, or a group column is missing or names no group.
    """
    model_and_data(vae, data, draws=draws, seed=seed)
    whole(2, count=count)
    observations, names = vae.observe(data).observations, [f"archetype {i + 1}" for i in range(count)]
    rows = everything(observations)
    moments = posterior_moments(vae.network, observations, rows)
    z = moments.mean
    with working("clustering", show=progress):
        labels = leiden(z, seed=seed) if groups is None else levels(data, groups)
    samples = posterior_draws(vae.network, observations, rows, Noise(seed), draws)
    maps = passing(itertools.chain([z], samples), 1 + draws, "finding corners", show=progress)
    found = find(next(maps), count, maps, seed, variance=moments.variance)
    profiles = pd.DataFrame(decoder(vae, modality)(found.positions), names, vae.features(modality))
    held = pd.DataFrame(found.weights, columns=names).groupby(labels).mean()
    markers = _markers(profiles, counts=support_of(vae, modality) is Support.COUNTS)
    others = passing(vae.members[1:], len(vae.members) - 1, "other fits", show=progress)
    again = [found_again(found.weights, _of(fit, data, count, seed)) for fit in others]
    said = () if groups is None else left_out(labels, groups)
    return Corners(found, profiles, markers, held, pd.DataFrame(again, columns=names) if again else None, said)


def _of(vae: VAE, data: AnnData | MuData, count: int, seed: int) -> np.ndarray:
    moments = vae.moments(data)
    return find(moments.mean, count, (), seed, variance=moments.variance).weights


def _markers(profiles: pd.DataFrame, *, counts: bool) -> pd.DataFrame:
    parts = []
    for name, own in profiles.iterrows():
        others = profiles.drop(index=name).max()
        change = np.log2((own + PSEUDO) / (others + PSEUDO)) if counts else own - others
        top = change.nlargest(MARKERS)
        part = pd.DataFrame({"archetype": name, "feature": top.index, "value": own[top.index].to_numpy()})
        part["others"] = others[top.index].to_numpy()
        parts.append(part.assign(log2_fold_change=top.to_numpy()) if counts else part)
    return pd.concat(parts, ignore_index=True)
