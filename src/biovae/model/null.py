"""The null model: the same likelihood, exposure and covariates, and no z.

What a latent space buys is `elbo - null`; a model that does not beat its null has learned nothing. It is fitted beside
the network to the same training set, and saved with it, so that any data can be judged later.
"""

import math
from collections.abc import Sequence

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from biovae.batch import Batch, Observations
from biovae.modalities.modality import Modality
from biovae.model.inference import minibatches
from biovae.network import Network
from biovae.noise import Noise
from biovae.training.adamw import AdamW, Group

STEPS, RATE = 150, 0.05  # it starts at the mean frequencies: only dispersions have far to go
ELEMENTS = 2**19  # entries of a minibatch
MOMENT = 2**41  # the moment of Noise that belongs to the null model


class NullModel(nn.Module):
    """p(x | c) with the parameters of the likelihoods alone.

    Args:
        recipes: The modalities of the model that is judged.
        network: Its network, for the layout of exposures and covariates.
        seed: Of every draw.
    """

    def __init__(self, recipes: Sequence[Modality], network: Network, seed: int) -> None:
        super().__init__()
        self.noise = Noise(seed, epoch=MOMENT)
        self.parts = [
            recipe.likelihood.build(m.shape._replace(hidden=0, groups=0), self.noise)
            for recipe, m in zip(recipes, network.parts, strict=True)
        ]
        self.likelihoods = nn.ModuleList(self.parts)
        self._context = network.context  # the method, so that the network is no part of this module

    def log_prob(self, batch: Batch) -> Float[Tensor, "obs"]:
        """log p(x | c) of each observation, summed over the modalities that it carries."""
        total = batch.covariates.new_zeros(len(batch))
        empty = batch.covariates.new_zeros(len(batch), 0)
        for i, (likelihood, x, present) in enumerate(zip(self.parts, batch.x, batch.present, strict=True)):
            scored = likelihood(empty, self._context(batch, i)).log_prob(x)
            total = total + (scored if present is None else torch.where(present, scored, 0))
        return total

    def fit(self, observations: Observations, rows: Int[Tensor, "rows"]) -> "NullModel":
        """Maximise the likelihood of the training rows, starting at their mean frequencies."""
        order = rows[self.noise.permutation(len(rows)).to(rows.device)]
        for i, likelihood in enumerate(self.parts):
            start = observations.batch(observations.carriers(i, order)[:10_000])
            likelihood.start(start.x[i], self._context(start, i))
        parameters = [w for w in self.parameters() if w.numel()]
        optimiser = AdamW([Group(parameters, decay=0.0)], betas=(0.9, 0.95))
        size = max(16, min(256, len(rows), ELEMENTS // max(x.shape[1] for x in observations.x)))
        for step in range(STEPS):
            drawn = (self.noise.uniform(size) * len(rows)).long().to(rows.device)
            optimiser.zero_grad()
            (-self.log_prob(observations.batch(rows[drawn])).mean()).backward()
            optimiser.step(RATE * (0.5 + 0.5 * math.cos(math.pi * step / STEPS)))
        return self

    @torch.no_grad()
    def score(self, observations: Observations, rows: Int[Tensor, "rows"]) -> Float[np.ndarray, "rows"]:
        """log p(x | c) of some rows, in nats per observation."""
        size = max(16, ELEMENTS // max(x.shape[1] for x in observations.x))
        parts = [self.log_prob(batch) for batch in minibatches(observations, rows, size)]
        return torch.cat(parts).cpu().numpy().astype(np.float64)
