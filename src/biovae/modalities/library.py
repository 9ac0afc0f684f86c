"""A latent library size: l is inferred, not read off the row sum.

    log l   (samples, obs, 1)
    q(log l | x) = N(mean(x), variance(x)),   p(log l | c) = N(location_c, variance_c)

The prior is set from the training set's row sums, by level of the first categorical covariate.
"""

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

    def __init__(self, hidden: int, levels: slice | None, noise: Noise) -> None:
        super().__init__()
        self.head = Diagonal().build(hidden, 1, noise)
        self.levels = levels
        size = levels.stop - levels.start if levels else 1
        self.register_buffer("location", torch.zeros(size))
        self.register_buffer("variance", torch.ones(size))

    def forward(self, h: Float[Tensor, "obs hidden"]) -> DiagonalNormal:
        """q(log l | x) relative to the prior's mean, so that training starts at the prior."""
        q = self.head(h)
        return DiagonalNormal(q.mean, q.log_variance - 2)

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
