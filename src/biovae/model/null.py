"""The null model: the same likelihood, exposure and covariates, and no z.

What a latent space buys is `elbo - null`; a model that does not beat its null has learned nothing.
"""

import math

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from biovae.batch import Batch, Observations
from biovae.model.inference import minibatches
from biovae.modalities.modality import Modality
from biovae.network import Network
from biovae.noise import Noise

STEPS, ROWS, RATE = 200, 256, 0.03  # it starts at the mean frequencies: only dispersions have far to go
MOMENT = 2**41  # the moment of Noise that belongs to the null model


class NullModel:
    """p(x | c) with the parameters of the likelihoods alone, fitted to the same training rows.

    Args:
        recipes: The modalities of the model that is judged.
        network: Its network, for the layout of covariates.
        seed: Of every draw.
    """

    def __init__(self, recipes: tuple[Modality, ...], network: Network, seed: int) -> None:
        self.network, self.noise = network, Noise(seed, epoch=MOMENT)
        self.likelihoods = nn.ModuleList(
            recipe.likelihood.build(m.shape._replace(hidden=0, groups=0), self.noise)
            for recipe, m in zip(recipes, network.modalities, strict=True)
        )

    def log_prob(self, batch: Batch) -> Float[Tensor, "obs"]:
        """log p(x | c) of each observation, summed over the modalities that it carries."""
        total = batch.covariates.new_zeros(len(batch))
        empty = batch.covariates.new_zeros(len(batch), 0)
        for i, (likelihood, x, present) in enumerate(zip(self.likelihoods, batch.x, batch.present, strict=True)):
            scored = likelihood(empty, self.network.context(batch, i)).log_prob(x)
            total = total + (scored if present is None else torch.where(present, scored, 0))
        return total

    def fit(self, observations: Observations, rows: Int[Tensor, "rows"]) -> "NullModel":
        """Maximise the likelihood of the training rows; starts at their mean frequencies."""
        start = observations.batch(rows[self.noise.permutation(len(rows))[:10_000]])
        for i, (likelihood, x) in enumerate(zip(self.likelihoods, start.x, strict=True)):
            likelihood.start(x, self.network.context(start, i))
        parameters = [w for w in self.likelihoods.parameters() if w.requires_grad and w.numel()]
        optimiser = torch.optim.Adam(parameters, lr=RATE, betas=(0.9, 0.99))
        for step in range(STEPS if parameters else 0):
            drawn = (self.noise.uniform(min(ROWS, len(rows))) * len(rows)).long()
            for group in optimiser.param_groups:
                group["lr"] = RATE * (0.5 + 0.5 * math.cos(math.pi * step / STEPS))
            optimiser.zero_grad()
            (-self.log_prob(observations.batch(rows[drawn])).mean()).backward()
            optimiser.step()
        return self

    @torch.no_grad()
    def score(self, observations: Observations, rows: Int[Tensor, "rows"]) -> Float[np.ndarray, "rows"]:
        """log p(x | c) of some rows, in nats per observation."""
        parts = [self.log_prob(batch) for batch in minibatches(observations, rows, ROWS)]
        return torch.cat(parts).cpu().numpy().astype(np.float64)
