"""From a recipe and a schema to a network."""

from collections.abc import Sequence

import torch

from biovae.errors import InputError, closest
from biovae.modalities.experts import ModalityNetwork, Sizes
from biovae.modalities.modality import Modality
from biovae.model.recipe import Architecture
from biovae.network import Network
from biovae.nn import MLP
from biovae.noise import Noise
from biovae.schema import CategoricalCovariate, Schema
from biovae.training import plan

BUILD = 2**40  # the moment of Noise that belongs to building: no epoch reaches it


def network(recipe: Architecture, schema: Schema, seed: int, observations: int = 0) -> Network:
    """The untrained network of this recipe for data of this schema.

    Args:
        recipe: Its parts.
        schema: What was measured.
        seed: Of its first weights.
        observations: How many it will be trained on, by which dropout is chosen; no matter where it is not.
    """
    widths = [len(m.features) for m in schema.modalities]
    encoder_dropout, decoder_dropout = dropout(recipe, (observations, sum(widths)))
    noise = Noise(seed, epoch=BUILD)
    into_encoder, into_decoder = _columns(recipe, schema)
    parts = []
    for modality, seen in zip(recipe.modalities, schema.modalities, strict=True):
        sizes = Sizes(
            features=len(seen.features),
            latent=recipe.latent,
            encoder_covariates=len(into_encoder),
            decoder_covariates=len(into_decoder),
            levels=_dispersion_levels(modality, schema, into_decoder),
            library_levels=_first_levels(schema),
            alone=len(recipe.modalities) == 1,
        )
        body = MLP(hidden=recipe.hidden, depth=recipe.depth, dropout=encoder_dropout)
        encoder = modality.encoder or body
        decoder = modality.decoder or body.model_copy(update={"dropout": decoder_dropout, "skip": recipe.skip})
        parts.append(ModalityNetwork(modality, (encoder, decoder), recipe.posterior, sizes, noise))
    prior = recipe.prior.build(recipe.latent, widths, noise)
    drop = recipe.modality_dropout if len(parts) > 1 else 0.0
    encoder_columns, decoder_columns = (torch.tensor(c, dtype=torch.int64) for c in (into_encoder, into_decoder))
    return Network(parts, prior, columns=(encoder_columns, decoder_columns), drop=drop)


def dropout(recipe: Architecture, size: tuple[int, int]) -> tuple[float, float]:
    """The encoders' and the decoders': as asked for, else by the training set, its observations and features."""
    asked, chosen = (recipe.dropout, recipe.decoder_dropout), plan.dropout(*size)
    encoder, decoder = (b if a is None else a for a, b in zip(asked, chosen, strict=True))
    return encoder, decoder


def _spans(schema: Schema) -> dict[str, range]:
    """Columns of the design matrix, by covariate."""
    spans, start = {}, 0
    for covariate in schema.covariates:
        spans[covariate.name] = range(start, start + covariate.width)
        start += covariate.width
    return spans


def _columns(recipe: Architecture, schema: Schema) -> tuple[list[int], list[int]]:
    spans = _spans(schema)
    into_encoder = [column for c in recipe.covariates if c.encoder for column in spans[c.name]]
    into_decoder = [column for c in recipe.covariates if c.decoder for column in spans[c.name]]
    return into_encoder, into_decoder


def _dispersion_levels(modality: Modality, schema: Schema, into_decoder: Sequence[int]) -> slice | None:
    """Where the decoder finds the one-hot columns of the covariate that has a dispersion of its own."""
    name = getattr(modality.likelihood, "dispersion", "feature")
    if name in ("feature", "observation"):
        return None
    categorical = {c.name: c for c in schema.covariates if isinstance(c, CategoricalCovariate)}
    span = _spans(schema).get(name, range(0))
    if name not in categorical or not set(span) <= set(into_decoder):
        raise InputError(
            f"expected dispersion 'feature', 'observation' or a categorical covariate of the decoder, found {name!r}: "
            + closest(name, ["feature", "observation", *categorical])
        )
    start = into_decoder.index(span[0])
    return slice(start, start + len(span))


def _first_levels(schema: Schema) -> slice | None:
    """Columns of the first categorical covariate in the whole design matrix; the library prior has one level each."""
    spans = _spans(schema)
    for covariate in schema.covariates:
        if isinstance(covariate, CategoricalCovariate):
            return slice(spans[covariate.name].start, spans[covariate.name].stop)
    return None
