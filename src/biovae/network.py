"""The tensor network of a VAE: modalities joined by a product of experts, one prior, and the terms of the bound.

    q(z | x, c)  prop. to  prod_m q_m(z | x_m, c)       over the modalities that an observation carries
    p(x | z, c)     =      prod_m p_m(x_m | z, l_m, c)

It knows batches, not files: any kind of modality enters through `modalities/`.
"""

from collections.abc import Sequence
from typing import NamedTuple

import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn

from biovae.batch import Batch, Context, Observations, SparseCounts, dense
from biovae.distributions import Distribution
from biovae.modalities.experts import ModalityNetwork, carriers
from biovae.nn import running_statistics
from biovae.noise import Noise
from biovae.objective import Terms
from biovae.posteriors import Density, DiagonalNormal, product
from biovae.priors import PriorModule

START_ROWS = 10_000  # observations that set biases and scales before training: enough for means, bounded in memory


class Encoded(NamedTuple):
    """q(z | x) of every observation, q(log l | x) of each modality with a latent library, and each expert by itself."""

    z: Density
    libraries: tuple[DiagonalNormal | None, ...]
    solos: tuple[Density | None, ...]


class Network(nn.Module):
    """Encoders, decoders, likelihoods and prior of one model.

    Args:
        modalities: One network per modality, in the order of `Batch.x`.
        prior: p(z).
        columns: Those of the design matrix that encoders see, and those that decoders and likelihoods see.
        drop: Chance, while training, that one of several encoders of an observation is left out.
    """

    into_encoder: Tensor
    into_decoder: Tensor

    def __init__(
        self,
        modalities: Sequence[ModalityNetwork],
        prior: PriorModule,
        *,
        columns: tuple[Tensor, Tensor],
        drop: float = 0.0,
    ) -> None:
        super().__init__()
        self.modalities = nn.ModuleList(modalities)
        self.parts = tuple(modalities)  # the same modules, with their type
        self.prior = prior
        self.drop = drop
        self.register_buffer("into_encoder", columns[0], persistent=False)
        self.register_buffer("into_decoder", columns[1], persistent=False)

    def encode(self, batch: Batch, noise: Noise | None = None) -> Encoded:
        """q(z | x, c); with noise as in training, without it as at prediction."""
        c = batch.covariates[:, self.into_encoder]
        present = self._encoders_used(batch, noise)
        alone = None if len(present) == 1 else torch.stack(present).sum(0) == 1
        experts, solos = [], []
        libraries: list[DiagonalNormal | None] = []
        for m, x, exposure, here in zip(self.parts, batch.x, batch.exposure, batch.present, strict=True):
            q, shift, solo = m.encode(m.view(x, exposure, noise), c, noise, here, alone)
            experts.append(q)
            solos.append(solo)
            libraries.append(_placed(m, shift, x, Context(exposure, batch.covariates)))
        return Encoded(product(experts, present), tuple(libraries), tuple(solos))

    def _encoders_used(self, batch: Batch, noise: Noise | None) -> list[Bool[Tensor, "obs"]]:
        """Who is read by each encoder: the carriers; while training some are left out, never all of an observation."""
        everybody = [carriers(p, len(batch), batch.covariates.device) for p in batch.present]
        if noise is None or self.drop == 0 or len(everybody) == 1:
            return everybody
        present = torch.stack(everybody)
        lottery = noise.uniform(*present.shape) * present
        spared = lottery == lottery.amax(0)  # the winner stays, so that one encoder always speaks
        dropped = noise.uniform(len(batch)) < self.drop
        return list(present & (spared | ~dropped))

    def context(self, batch: Batch, m: int, log_library: Tensor | None = None) -> Context:
        """What the decoder of modality m may know beside z."""
        exposure = batch.exposure[m] if log_library is None else log_library.exp()
        return Context(exposure, batch.covariates[:, self.into_decoder], batch.present[m])

    def terms(
        self,
        batch: Batch,
        noise: Noise,
        *,
        samples: int = 1,
        train: bool = False,
        doubly: bool = False,
        densities: bool = True,
    ) -> Terms:
        """Draw z (and latent libraries) and score them under likelihoods, prior and posterior.

        Args:
            batch: A minibatch.
            noise: Every draw.
            samples: Draws per observation.
            train: Apply dropout and leave out encoders.
            doubly: Detach the parameters of q where it scores its own draws (see `objective.IWAE`).
            densities: Score the draws under prior and posterior even where their KL has a closed form.
        """
        regular = noise if train else None
        q, libraries, solos = self.encode(batch, regular)
        z = q.sample(noise, samples)
        draws, log_px, library = [z], z.new_zeros(z.shape[:-1]), z.new_zeros(z.shape[:-1])
        for i, (m, x, q_l) in enumerate(zip(self.parts, batch.x, libraries, strict=True)):
            log_l = None
            if q_l is not None and m.library is not None:
                log_l = q_l.sample(noise, samples)
                draws.append(log_l)
                prior = m.library.prior(batch.covariates)
                cost = (q_l.detach() if doubly else q_l).log_prob(log_l) - prior.log_prob(log_l)
                library = library + _masked(cost, batch.present[i])
            scored = m.decode(z, self.context(batch, i, log_l), regular).log_prob(x)
            log_px = log_px + _masked(scored, batch.present[i])
        lessons = [
            -_masked(solo.log_prob(z.detach()).mean(0), present)
            for solo, present in zip(solos, batch.present, strict=True)
            if train and solo is not None
        ]
        lesson = torch.stack(lessons).sum(0) if lessons else None
        kl, log_pz, log_qz = self.prior.kl(q), None, None
        if densities or kl is None:
            log_pz = self.prior.log_prob(z, self.pseudo)
            log_qz = (q.detach() if doubly else q).log_prob(z)
        return Terms(log_px, log_pz, log_qz, kl, library, tuple(draws), lesson, q)

    def decode(self, z: Float[Tensor, "*samples obs latent"], batch: Batch, m: int) -> Distribution:
        """p(x_m | z, c) at the exposure of the batch."""
        return self.parts[m].decode(z, self.context(batch, m))

    def pseudo(self, inputs: Sequence[Tensor]) -> Density:
        """q(z | u) of inputs that are no data: no noise, and normalisation does not learn from them."""
        c = inputs[0].new_zeros(len(inputs[0]), len(self.into_encoder))
        everybody = carriers(None, len(inputs[0]), inputs[0].device)
        with running_statistics(self):
            experts = [m.encode(u, c).z for m, u in zip(self.parts, inputs, strict=True)]
        return product(experts, [everybody] * len(experts))

    @torch.no_grad()
    def start(self, observations: Observations, rows: Tensor, noise: Noise) -> None:
        """Set biases, scales, library priors and pseudo-inputs from (some of) the training set."""
        rows = rows[noise.permutation(len(rows)).to(rows.device)]
        for i, m in enumerate(self.parts):  # who does not carry a modality has no say in its means
            batch = observations.batch(observations.carriers(i, rows)[:START_ROWS])
            if len(batch):
                m.start(batch.x[i], self.context(batch, i), batch.covariates)
        few = observations.batch(rows[:1000])
        self.prior.start([dense(m.view(x, e)) for m, x, e in zip(self.parts, few.x, few.exposure, strict=True)])


def _placed(
    m: ModalityNetwork, q: DiagonalNormal | None, x: SparseCounts | Tensor, context: Context
) -> DiagonalNormal | None:
    """q(log l | x) of a modality whose library is latent."""
    if m.library is None or q is None:
        return None
    n = x.total() if isinstance(x, SparseCounts) else x.sum(1, keepdim=True)
    return m.library.place(q, n, context.depth, context.covariates)


def _masked(value: Tensor, present: Tensor | None) -> Tensor:
    """Nothing where the modality is absent: a modality that was not measured says nothing."""
    return value if present is None else torch.where(present, value, 0)
