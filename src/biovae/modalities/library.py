"""A latent library size: l is inferred, not read off the row sum.

    log l   (samples, obs, 1)
    n       row sums (obs, 1)
    e       exposures (obs, 1): the row sums, or size factors
    p(log l | c) = N(location, v), both of the level c
    q(log l | x) = N(location + w (log e - location) + mean(x), variance(x) / (1/v + n)),   w = n / (1/v + n)

Without mean(x) and variance(x), which the encoder gives, q is Laplace's approximation for Poisson counts. The encoder
sees counts without their depth, so that depth has no place in z: without e, l would not hear of it. The prior is set
from the training set's exposures, by level of the first categorical covariate.
"""

from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn

from biovae.noise import Noise
from biovae.posteriors import Diagonal, DiagonalNormal


class LatentLibrary(nn.Module):
    """The posterior's head and the prior of one modality's log library size.

    Source: Lopez et al. 2018, Nature Methods 15:1053, doi:10.1038/s41592-018-0229-2.
    """

    location: Tensor
    variance: Tensor
    heard: Tensor

    def __init__(self, hidden: int, levels: slice | None, noise: Noise) -> None:
        super().__init__()
        self.head = Diagonal().build(hidden, 1, noise)
        self.levels = levels
        size = levels.stop - levels.start if levels else 1
        self.register_buffer("location", torch.zeros(size))
        self.register_buffer("variance", torch.ones(size))
        self.register_buffer("heard", torch.ones(1))  # 0 in models saved before q heard of n

    def forward(self, h: Float[Tensor, "obs hidden"]) -> DiagonalNormal:
        """The encoder's mean(x) and log variance(x)."""
        return self.head(h)

    def place(
        self,
        q: DiagonalNormal,
        n: Float[Tensor, "obs 1"],
        e: Float[Tensor, "obs 1"],
        c: Float[Tensor, "obs covariates"],
    ) -> DiagonalNormal:
        """q(log l | x), from what `forward` gave. Nobody without counts (n = 0) is anywhere but at the prior."""
        prior = self.prior(c)
        precision = 1 / prior.variance + n
        mean = prior.mean + self.heard * n / precision * (e.log() - prior.mean) + q.mean
        return DiagonalNormal(mean, q.log_variance + torch.where(self.heard > 0, -precision.log(), -2.0))

    def _load_from_state_dict(self, state_dict: dict[str, Any], prefix: str, *args: Any) -> None:
        state_dict.setdefault(f"{prefix}heard", torch.zeros(1))
        super()._load_from_state_dict(state_dict, prefix, *args)

    def prior(self, c: Float[Tensor, "obs covariates"]) -> DiagonalNormal:
        """p(log l | c); an observation of no known level has the average of the levels."""
        weight = c[:, self.levels] if self.levels else c.new_ones(len(c), 1)
        known = weight.sum(1, keepdim=True)
        weight = torch.where(known > 0, weight, 1 / weight.shape[1])
        return DiagonalNormal((weight @ self.location).unsqueeze(1), (weight @ self.variance).log().unsqueeze(1))

    @torch.no_grad()
    def start(self, exposure: Float[Tensor, "obs 1"], c: Float[Tensor, "obs covariates"]) -> None:
        """Read each level's mean and variance of the log row sums; a level seen only once takes the overall ones."""
        log_l = exposure[:, 0].log()
        overall = (log_l.mean(), log_l.var(correction=0).clamp(min=1e-2))
        columns = c[:, self.levels].T if self.levels else c.new_ones(1, len(c))
        for j, level in enumerate(columns):
            seen = log_l[level > 0]
            mean, variance = (seen.mean(), seen.var(correction=0).clamp(min=1e-2)) if len(seen) > 1 else overall
            self.location[j], self.variance[j] = mean, variance
