"""The VAE: a recipe that can be fitted, and the verbs that need its network.

    vae = VAE(rna(layer="counts"), covariates=["batch"], latent=10).fit(adata)
    z = vae.embed(adata)

Construction takes hyperparameters and nothing else; data come in at `fit`, and are never kept. Every verb takes
`indices=` and streams.
"""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal, Self, TypeAlias

import numpy as np
import pandas as pd
import torch
from anndata import AnnData
from jaxtyping import Float
from mudata import MuData
from pydantic import PrivateAttr

from biovae.data import Prepared, align, column, flags, numeric, prepare, select_features, split, unlearned
from biovae.diagnostics import Verdict
from biovae.errors import InputError, closest
from biovae.modalities.modality import Modality
from biovae.model.doubt import last_weights
from biovae.model.ensemble import fit_all
from biovae.model.evidence import Evidence
from biovae.model.files import load as read_model
from biovae.model.files import save as write_model
from biovae.model.fitting import Fitted, Options
from biovae.model.generate import Expression, Wanted, decode
from biovae.model.generate import expression as expression_of
from biovae.model.generate import sample as draw
from biovae.model.inference import Moments, Scores, bounds, everything, posterior_moments, reconstructions
from biovae.model.judge import verdict
from biovae.model.recipe import Architecture
from biovae.network import Network
from biovae.noise import Noise
from biovae.recipe import Recipe
from biovae.schema import Schema
from biovae.training.plan import Epochs

Data: TypeAlias = AnnData | MuData
Rows: TypeAlias = Sequence[int] | np.ndarray | None
Missing = Literal["error", "zero"]


class VAE(Architecture):
    """A variational autoencoder: the parts of `Architecture`, and the verbs that need them fitted.

    Args:
        modalities: What was measured, each with its likelihood.
        covariates: Columns of `obs`, as names or `Covariate`; a name goes into the decoder only.
        latent: Dimensions of z.
        hidden: Width of the encoders' and decoders' layers.
        depth: Number of those layers.
        dropout: Share of the encoders' hidden units left out while training; None chooses by the size of the data.
        decoder_dropout: The same for the decoders.
        skip: Let likelihoods see z itself beside the decoders' hidden units.
        beta: Weight of the KL at the end of its warm-up; 1 is the evidence lower bound.
        warmup: Shape of beta's rise, in fractions of the planned steps.
        objective: `ELBO(free_bits=...)` or `IWAE(samples=...)`.
        prior: p(z).
        posterior: q(z | x).
        modality_dropout: With several modalities, how often an observation is embedded from a random part of them
            while training. Each modality alone has a posterior without it; three or more profit in their pairs.
    """

    _fits: tuple[Fitted, ...] = PrivateAttr(default=())

    def __init__(self, *modalities: Modality, **parameters: Any) -> None:
        if modalities:
            parameters = {"modalities": modalities, **parameters}
        super().__init__(**parameters)

    # Fitting

    def fit(  # noqa: PLR0913 - one place to ask for a run, each word of it optional
        self,
        data: Data,
        *,
        epochs: Epochs = "auto",
        validation: float | str = 0.1,
        test: str | np.ndarray | None = None,
        seed: int = 0,
        batch_size: int | None = None,
        rate: float | None = None,
        device: str = "cpu",
        checkpoints: Path | str | None = None,
        resume: bool = False,
        progress: bool = True,
        ensemble: int = 1,
        workers: int = 1,
    ) -> Self:
        """Check the data, train, keep the best weights. The data are not kept.

        Args:
            data: An AnnData, or a MuData for several modalities; not changed.
            epochs: How many, or "auto" to go on until the validation bound stops rising.
            validation: Fraction that steers training, stratified by covariates, or a boolean column of `obs`.
            test: A boolean column or array: observations that training never sees.
            seed: Of every random draw; the same seed gives the same weights on the same kind of machine.
            batch_size: Observations per step; None chooses by the size of the data.
            rate: Peak learning rate; None chooses.
            device: "cpu", "cuda", "mps".
            checkpoints: A folder; a run that was interrupted goes on from there with `resume`.
            resume: Continue from `checkpoints` if it holds any.
            progress: Show a bar on a terminal, lines elsewhere.
            ensemble: Fit so many times, with seeds from `seed` upwards and one split. Verbs speak of the first fit;
                `members` are all of them, and `bv.tl.stability` says what they agree on.
            workers: Fits of an ensemble side by side, in processes of their own that share the data; see
                `model.several`. Each has its share of the cores.

        Raises:
            InputError: The data cannot be fitted as given.
            TrainingDiverged: Three steps in a row were not finite.
        """
        held_out = flags(data, test) if isinstance(test, str) else test
        prepared = self.prepare(data, held_out=held_out)
        roles = self.roles(data, prepared, validation=validation, held_out=held_out, seed=seed)
        folder = None if checkpoints is None else Path(checkpoints)
        options = Options(epochs, batch_size, rate, seed, device, folder, resume, progress, ensemble, workers)
        return self.fit_prepared(prepared, roles, options)

    def prepare(self, data: Data, *, held_out: np.ndarray | None = None) -> Prepared:
        """The data as `fit` would see them: checked, features chosen without the held-out rows, schema drawn up."""
        sources = [m.source for m in self.modalities]
        names = [c.name for c in self.covariates]
        chosen, said = self._features(data, held_out)
        prepared = prepare(data, sources, covariates=names, features=chosen, latent=self.latent, held_out=held_out)
        if held_out is not None:
            said += unlearned(prepared, ~np.asarray(held_out, bool))
        return replace(prepared, notices=(*said, *prepared.notices))

    def _features(self, data: Data, held_out: np.ndarray | None) -> tuple[dict[str, Sequence[str]], list[str]]:
        """Names of the features to model where not all are, and a sentence about each choice."""
        rows = None if held_out is None else np.flatnonzero(~np.asarray(held_out, bool))
        chosen: dict[str, Sequence[str]] = {}
        said = []
        for m in self.modalities:
            if isinstance(m.features, int):
                table = select_features(data, m.features, source=m.source, batches=self._batches(data), rows=rows)
                chosen[m.name] = list(table.index[table["selected"]])
                said.append(f"{m.name}: models the {len(chosen[m.name]):,} most variable of {len(table):,} features")
            elif m.features != "all":
                chosen[m.name] = list(m.features)
        return chosen, said

    def _batches(self, data: Data) -> str | None:
        """The first covariate whose values are categories: features are ranked within each of its levels."""
        names = (c.name for c in self.covariates if not numeric(column(data, c.name)))
        return next(names, None)

    def roles(
        self,
        data: Data,
        prepared: Prepared,
        *,
        validation: float | str = 0.1,
        held_out: np.ndarray | None = None,
        seed: int = 0,
    ) -> np.ndarray:
        """Which observation trains, steers, or is left out: see `data.split`."""
        steering = flags(data, validation) if isinstance(validation, str) else validation
        c = prepared.observations.covariates
        categorical = [i for i in range(c.shape[1]) if bool(((c[:, i] == 0) | (c[:, i] == 1)).all())]
        strata = np.unique(c[:, categorical].numpy(), axis=0, return_inverse=True)[1] if categorical else None
        return split(len(prepared.obs_names), validation=steering, test=held_out, strata=strata, seed=seed)

    def fit_prepared(self, prepared: Prepared, roles: np.ndarray, options: Options) -> Self:
        """Train on data that `prepare` and `roles` made ready."""
        self._fits = fit_all(self, prepared, roles, options)
        return self

    @property
    def fitted(self) -> Fitted:
        """The result of `fit`, or an error that says how to get one."""
        if not self._fits:
            raise InputError("expected a fitted model, found one that was only constructed: call fit(data) first.")
        return self._fits[0]

    @property
    def members(self) -> tuple["VAE", ...]:
        """Every fit of `fit(ensemble=k)` as a model of its own; the first is this one."""
        return tuple(_fitted(self, [each]) for each in (self.fitted, *self._fits[1:]))

    @property
    def network(self) -> Network:
        """The tensor network, a plain `nn.Module`."""
        return self.fitted.network

    @property
    def schema(self) -> Schema:  # type: ignore[override]  # pydantic's own is deprecated, and means another thing
        """The names of features and covariates that the model was fitted to."""
        return self.fitted.schema

    @property
    def history(self) -> pd.DataFrame:
        """A row per evaluation; bounds at beta 1, in nats per observation."""
        return self.fitted.history.copy()

    def features(self, modality: str | None = None) -> pd.Index:
        """The names of a modality's features, in the order of every array of this model."""
        return pd.Index(self.schema.modalities[self.index(modality)].features)

    def index(self, modality: str | None = None) -> int:
        """Position of a modality; None is the only one, or the first."""
        names = [m.name for m in self.modalities]
        if modality is None:
            return 0
        if modality not in names:
            raise InputError(f"expected a modality of the model, found {modality!r}: {closest(modality, names)}")
        return names.index(modality)

    # Verbs on data

    def observe(
        self, data: Data, *, indices: Rows = None, missing: Missing = "error", unseen: Missing = "error"
    ) -> Prepared:
        """New data, checked and mapped by name onto the features and covariates of the model.

        Args:
            data: An AnnData or MuData; not changed.
            indices: Rows to look at; None takes all.
            missing: "error", or "zero" to treat features that the data lack as never seen.
            unseen: "error", or "zero" to treat unknown covariate levels as none of the known ones.
        """
        sources = [m.source for m in self.modalities]
        rows = None if indices is None else np.asarray(indices)
        return align(data, sources, self.schema, missing=missing, unseen=unseen, rows=rows)

    def embed(
        self, data: Data, *, indices: Rows = None, missing: Missing = "error", unseen: Missing = "error"
    ) -> Float[np.ndarray, "obs latent"]:
        """Posterior means of z, one row per observation."""
        observations = self.observe(data, indices=indices, missing=missing, unseen=unseen).observations
        return posterior_moments(self.network, observations, everything(observations)).mean

    def moments(self, data: Data, *, indices: Rows = None) -> Moments:
        """Means and marginal variances of q(z | x)."""
        observations = self.observe(data, indices=indices).observations
        return posterior_moments(self.network, observations, everything(observations))

    def reconstruct(
        self, data: Data, *, modality: str | None = None, indices: Rows = None
    ) -> Float[np.ndarray, "obs features"]:
        """Mean of p(x | z) at the posterior mean, with each observation's own exposure and covariates."""
        observations = self.observe(data, indices=indices).observations
        m = self.index(modality)
        return np.concatenate(list(reconstructions(self.network, observations, m)))

    def log_likelihood(
        self, data: Data, *, samples: int = 100, seed: int = 0, indices: Rows = None
    ) -> Float[np.ndarray, "obs"]:
        """Importance-weighted estimate of log p(x) of each observation, in nats; a lower bound, tighter with samples.

        Source: Burda, Grosse and Salakhutdinov 2016, ICLR, arXiv:1509.00519.
        """
        return self.scores(data, samples=samples, seed=seed, indices=indices).iwae

    def scores(self, data: Data, *, samples: int = 100, seed: int = 0, indices: Rows = None) -> Scores:
        """Bound, importance-weighted bound, reconstruction and KL of each observation, in nats."""
        observations = self.observe(data, indices=indices).observations
        rows = everything(observations)
        return bounds(self.network, observations, rows, Noise(seed), samples)

    def expression(  # noqa: PLR0913 - a user's door
        self,
        data: Data,
        *,
        modality: str | None = None,
        features: Sequence[str] | None = None,
        library: float = 1e4,
        covariates: Mapping[str, str | float] | Literal["own", "average"] = "average",
        samples: int = 0,
        indices: Rows = None,
    ) -> Expression:
        """Denoised expression: what each observation would show at one library size, per 10,000 by default.

        Args:
            data: An AnnData or MuData.
            modality: Which one; None takes the first.
            features: Names; None takes all.
            library: Exposure of every observation.
            covariates: "average" over the levels of every categorical covariate, "own", or chosen values by name.
            samples: Draws of z and of the last layer's weights, for limits that hold 90 % of them (see `model.doubt`);
                0 gives the value at the posterior mean alone.
            indices: Rows; None takes all.
        """
        prepared = self.observe(data, indices=indices)
        wanted = Wanted(self.index(modality), features, library, covariates, samples)
        return expression_of(self.fitted, prepared, wanted, last_weights(self.fitted, wanted))

    def diagnose(self, data: Data, *, seed: int = 0, indices: Rows = None) -> Verdict:
        """Judge the model on data: what is normal, what to look at, what is broken, and what to do about it.

        Give the held-out observations as `indices` to judge what the model says of data it has not seen.
        """
        return verdict(Evidence(self, self.fitted, self.observe(data, indices=indices), seed=seed))

    # Verbs on z

    def decode(
        self,
        z: Float[np.ndarray, "rows latent"],
        *,
        modality: str | None = None,
        library: float = 1e4,
        covariates: Mapping[str, str | float] | Literal["average"] = "average",
    ) -> Float[np.ndarray, "rows features"]:
        """Mean of p(x | z) at a library size, at chosen covariates or averaged over their levels."""
        rows = torch.as_tensor(np.atleast_2d(z), dtype=torch.float32)
        if rows.shape[1] != self.latent:
            raise InputError(f"expected z with {self.latent} columns, found {rows.shape[1]}: give (rows, latent).")
        return decode(self.network, self.schema, rows, (self.index(modality), library, covariates))

    def sample(
        self,
        size: int,
        *,
        seed: int = 0,
        library: float | np.ndarray | None = None,
        covariates: Mapping[str, str | float] | None = None,
    ) -> Data:
        """New observations: z from the prior, x from the likelihood.

        Args:
            size: How many.
            seed: Of every draw.
            library: Exposure of each; None draws it as the training set has it, log-normal, together in all modalities.
            covariates: Chosen values by name; a level that is not chosen is drawn at random.

        Returns:
            An AnnData, or a MuData with several modalities, with z in `obsm["X_vae"]`.
        """
        return draw(self.fitted, size, seed=seed, library=library, covariates=covariates)

    # On disk

    def save(self, path: Path | str, *, overwrite: bool = False) -> None:
        """Write the model to a folder: JSON and safetensors, hashed, whole or not at all."""
        write_model(self, [member.fitted for member in self.members], path, overwrite=overwrite)

    def __repr__(self) -> str:
        parts = ", ".join(f"{m.name}: {m.likelihood.model_dump()['kind']}" for m in self.modalities)
        state = "not fitted"
        if self._fits:
            record, schema = self.fitted.record, self.fitted.schema
            sizes = " + ".join(str(len(m.features)) for m in schema.modalities)
            state = f"fitted to {schema.observations} observations x {sizes} features, {record['epochs']} epochs"
            state += f", {len(self._fits)} fits" if len(self._fits) > 1 else ""
        return f"VAE({parts}; latent {self.latent}, beta {self.beta:g}; {state})"

    __str__ = __repr__


def load(path: Path | str, *, parts: Sequence[type[Recipe]] = ()) -> VAE:
    """Read a model that `VAE.save` wrote.

    Args:
        path: The folder.
        parts: Recipes of your own that the model is made of; a class name in a file is never imported.

    Raises:
        ModelFileError: The folder is not a model, was changed, or needs a part that is not known.
    """
    return _fitted(*read_model(path, parts))


def _fitted(recipe: Architecture, fits: Sequence[Fitted]) -> VAE:
    """A model of this recipe that carries these fits."""
    vae = VAE(**{name: getattr(recipe, name) for name in Architecture.model_fields})
    vae._fits = tuple(fits)
    return vae
