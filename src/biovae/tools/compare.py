"""Which likelihood, which size, which model: each fitted to the same split of the same data, and scored on one scale.

Counts are scored by thinning (see `tools.likelihoods`): z comes from one half of a held-out observation's counts, and
the other half is predicted. Reals, binary values and categories are scored by their importance-weighted bound.
"""

from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
import torch
from anndata import AnnData

from biovae.analysis import Choice, choose, pca_counts, pca_reals
from biovae.batch import plain
from biovae.data import Prepared, Role
from biovae.diagnostics import pit, uniformity
from biovae.errors import InputError, closest, first, listed
from biovae.likelihoods import Likelihood
from biovae.modalities import Modality
from biovae.model import VAE
from biovae.model.evidence import CALIBRATED, Evidence, calibrate
from biovae.model.fitting import Options
from biovae.model.inference import bounds, predictive
from biovae.model.several import several
from biovae.noise import Noise
from biovae.schema import Support
from biovae.tools.arguments import each, model_and_data, real, whole
from biovae.tools.latent import linear
from biovae.tools.likelihoods import BOUND, COUNTS, SAMPLES, THINNED, halves
from biovae.training.plan import Epochs

Models = VAE | Mapping[str, VAE]


def compare(  # noqa: PLR0913 - a user's door
    models: Models,
    data: AnnData,
    likelihoods: Sequence[Likelihood | str] | Likelihood | str | None = None,
    latents: Sequence[int] | int | None = None,
    *,
    test: float = 0.2,
    seeds: Sequence[int] = (0,),
    epochs: Epochs = "auto",
    workers: int = 1,
    progress: bool = True,
) -> Choice:
    """Fit several models, rank them by the log-probability of held-out data, and say which to take.

    PCA of the same dimension with noise that suits it, and the same likelihood without z, stand in the same table: what
    does not predict better than these has bought nothing. Ctrl-C ends early, and ranks the models that are done with
    every seed.

    Args:
        models: One model, of which variants are made, or models by name: of one modality each, of the same features
            and values.
        data: Not changed.
        likelihoods: Of the variants: recipes, your own ones too, or their kinds. None takes negative binomial,
            zero-inflated, Poisson and log1p-Gaussian for counts, and the model's own for other data.
        latents: Of the variants: dimensions of z. None takes the model's own.
        test: Fraction of observations that no fit sees, and that are scored.
        seeds: A fit of every model for each of them. The first one splits and thins the data.
        epochs: Of each fit.
        workers: Fits side by side, in processes of their own; see `model.several`.
        progress: Show each fit.

    Returns:
        `frame`, `best`, `alike`; printed, it says what to take.

    Raises:
        InputError: A model has several modalities, models differ in features or values, or likelihoods in support.
    """
    for model in models.values() if isinstance(models, Mapping) else [models]:
        model_and_data(model, data)
    whole(1, workers=workers)
    real(test=test)
    asked, seeds = candidates(models, likelihoods, latents), each(whole, 0, seeds=seeds)
    again = partial(_Trial, asked, data, (test, seeds[0], epochs), progress=progress)
    trial = again()
    jobs = {f"{name}, seed {seed}": (name, seed) for name in asked for seed in seeds}
    results = dict(several(trial, jobs, again=again, workers=workers, progress=progress))
    done = [name for name in asked if all((name, seed) in results for seed in seeds)]
    if not done:
        raise InputError("expected one model at least that is done with every seed, found none: let it run longer.")
    kept: dict[str, list[_Found]] = {name: [results[name, seed] for seed in seeds] for name in done}
    scores = [pd.DataFrame({name: kept[name][i].score for name in done}) for i in range(len(seeds))]
    best = (sum(scores[1:], start=scores[0]) / len(scores)).mean().idxmax()
    floors = {"no z": np.mean([found.null for found in kept[best]], axis=0)} | trial.linear(best)
    about = pd.DataFrame({name: _about(kept[name]) | {"latent": asked[name].latent} for name in done}).T
    return choose(scores, about.astype(float), pd.DataFrame(floors), THINNED if trial.counts else BOUND)


class _Found(NamedTuple):
    """Of one fit: what is kept."""

    score: np.ndarray
    null: np.ndarray
    pit: float
    parameters: int
    seconds: float


class _Trial:
    """The data of a comparison, and what is done with each candidate."""

    def __init__(
        self, candidates: Mapping[str, VAE], data: AnnData, how: tuple[float, int, Epochs], *, progress: bool
    ) -> None:
        test, self.seed, self.epochs = how
        self.candidates, self.progress = candidates, progress
        held_out = Noise(self.seed).numpy().random(data.n_obs) < test
        self.prepared = _prepared(candidates, data, held_out)
        name = next(iter(candidates))
        self.roles = candidates[name].roles(data, self.prepared[name], held_out=held_out, seed=self.seed)
        self.rows = np.flatnonzero(self.roles == Role.TEST)
        if len(self.rows) < 2:
            raise InputError(f"expected 2 held-out observations at least, found {len(self.rows)}: raise test.")
        self.counts = candidates[name].modalities[0].source.support is Support.COUNTS

    def __call__(self, job: tuple[str, int]) -> _Found | None:
        name, seed = job
        vae, (given, scored) = self.candidates[name].variant(), self.parts(name)
        label = f"{name}, seed {seed}"
        vae.fit_prepared(given, self.roles, Options(epochs=self.epochs, seed=seed, progress=self.progress, label=label))
        fitted, rows, noise = vae.fitted, torch.from_numpy(self.rows), Noise(self.seed)
        if fitted.record["interrupted"]:
            return None
        if self.counts:
            score = predictive(fitted.network, given.observations, scored.observations, rows, noise, SAMPLES)
        else:
            score = bounds(fitted.network, given.observations, rows, noise, SAMPLES).iwae
        few = Noise(self.seed).numpy().permutation(self.rows)[:CALIBRATED]
        c = calibrate(Evidence(vae, fitted, given, few, self.seed), 0, scored.observations)
        return _Found(
            score,
            fitted.null.score(scored.observations, rows),
            float(uniformity(pit(c.lower, c.upper, self.seed)).value),
            sum(w.numel() for w in fitted.network.parameters()),
            fitted.record["seconds"],
        )

    def parts(self, name: str) -> tuple[Prepared, Prepared]:
        """What z comes from, and what is scored."""
        prepared = self.prepared[name]
        return halves(prepared, self.seed) if self.counts else (prepared, prepared)

    def linear(self, name: str) -> dict[str, np.ndarray]:
        """The scores of PCA with as many components as this candidate has dimensions, where it can be scored."""
        latent, (given, scored) = self.candidates[name].latent, self.parts(name)
        x, exposure = plain(scored.observations.x[0]), scored.observations.exposure[0]
        split = (self.roles == Role.TRAIN, self.rows)
        support = given.schema.modalities[0].support
        if support is Support.COUNTS and exposure is not None:
            base = linear(given.observations, latent, self.roles == Role.TRAIN, self.seed)
            return {f"PCA, {latent} components": pca_counts(x, exposure[:, 0].numpy(), split, base)}
        return {f"PCA, {latent} components": pca_reals(x, split, latent)} if support is Support.REALS else {}


def candidates(
    models: Models,
    likelihoods: Sequence[Likelihood | str] | Likelihood | str | None,
    latents: Sequence[int] | int | None,
) -> dict[str, VAE]:
    """What `compare` fits, by name: see its arguments.

    Raises:
        InputError: As `compare`.
    """
    if isinstance(models, Mapping):
        if likelihoods is not None or latents is not None or not models:
            raise InputError(
                f"expected {len(models)} models by name, or one model with likelihoods and latents to vary, found a "
                "mixture: give one or the other."
            )
        several_parts = {name: len(vae.modalities) for name, vae in models.items() if len(vae.modalities) != 1}
        if several_parts:
            raise InputError(f"expected models of one modality, found more in {first(several_parts)}: one at a time.")
        return {name: vae.variant() for name, vae in models.items()}
    if len(models.modalities) != 1:
        raise InputError(f"expected a model of one modality, found {len(models.modalities)}: compare one at a time.")
    modality = models.modalities[0]
    if likelihoods is None:
        likelihoods = COUNTS if modality.source.support is Support.COUNTS else (modality.likelihood,)
    likelihoods = [likelihoods] if isinstance(likelihoods, Likelihood) else listed(likelihoods)
    sizes = [models.latent] if latents is None else each(whole, 1, latents=latents)
    found = {}
    for likelihood in likelihoods:
        part = _scored_by(modality, likelihood)
        for latent in sizes:
            words = [_named(part.likelihood)] if len(likelihoods) > 1 or len(sizes) == 1 else []
            words += [f"latent {latent}"] if len(sizes) > 1 else []
            found[", ".join(words)] = models.variant(modalities=(part,), latent=latent)
    if not found:
        raise InputError("expected one likelihood and one latent size at least, found none.")
    return found


def _scored_by(modality: Modality, likelihood: Likelihood | str) -> Modality:
    """The modality with another likelihood, which may be given by its kind."""
    kinds = [
        known.model_fields["kind"].default for known in Likelihood.__subclasses__() if "kind" in known.model_fields
    ]
    if not isinstance(likelihood, Likelihood) and likelihood not in kinds:
        raise InputError(f"expected a likelihood that biovae knows, found {likelihood!r}: {closest(likelihood, kinds)}")
    return modality.variant(likelihood=likelihood)


def _named(likelihood: Likelihood) -> str:
    """Its kind, with the fields that are not at their default."""
    fields = likelihood.model_dump(exclude_defaults=True)
    changed = ", ".join(f"{name} {value}" for name, value in fields.items() if name != "kind")
    kind = str(likelihood.model_dump()["kind"])
    return f"{kind} ({changed})" if changed else kind


def _prepared(candidates: Mapping[str, VAE], data: AnnData, held_out: np.ndarray) -> dict[str, Prepared]:
    """The data as each candidate sees them: once for those that see the same.

    Raises:
        InputError: They see different features, values, or kinds of value.
    """
    once: dict[Any, Prepared] = {}
    found = {}
    for name, vae in sorted(candidates.items(), key=lambda item: -item[1].latent):  # the largest asks most of the data
        m = vae.modalities[0]
        key = (m.source, m.features, vae.covariates)
        if key not in once:
            once[key] = vae.prepare(data, held_out=held_out)
        found[name] = once[key]
    one = next(iter(found.values()))
    strange = [name for name, other in found.items() if other is not one and not _same(one, other)]
    if strange:
        raise InputError(
            f"expected models of the same features, values and kind of value, found others in {first(strange)}: "
            "log-probabilities of different things cannot be ranked."
        )
    return found


def _same(one: Prepared, other: Prepared) -> bool:
    a, b = (p.schema.modalities[0] for p in (one, other))
    if a.features != b.features or a.support is not b.support:
        return False
    x, y = (plain(p.observations.x[0]) for p in (one, other))
    return bool((x != y).sum() == 0)


def _about(found: Sequence[_Found]) -> dict[str, float]:
    """Means over seeds."""
    return {name: float(np.mean([getattr(f, name) for f in found])) for name in ("pit", "parameters", "seconds")}
