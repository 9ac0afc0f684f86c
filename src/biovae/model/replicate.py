"""Data that a model would have seen in place of those seen: x' ~ p(x | z), z ~ q(z | x), at own depth and covariates.

    x    observed                        (rows, features)
    x'   replicated                      (draws, rows, features)

Where the model is true and q the exact posterior, (z, x) and (z, x') have one distribution: whatever is measured of x
at a draw of z is exchangeable with the same of x' at the same draw, although z was inferred from x. Averaged over z it
is not: x then lies nearer to the middle than a replicate does, and p-values are too large.

Source: Gelman, Meng and Stern 1996, Statistica Sinica 6:733 (replicates); Freeman and Tukey 1950,
doi:10.1214/aoms/1177729756 (deviates of roots); Johnson 2007, doi:10.1214/07-BA229 (one draw
of the posterior gives exact p-values).
"""

from collections.abc import Iterator
from typing import NamedTuple

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

from biovae.batch import Batch, Observations, SparseCounts, dense
from biovae.distributions import Distribution
from biovae.model.inference import minibatches, rows_at_once
from biovae.network import Encoded, Network
from biovae.noise import Noise


class Discrepancy(NamedTuple):
    """How far values are from p(x | z): of what was observed, and of replicates at the same draws of z."""

    observed: Float[np.ndarray, "rows draws"]
    replicated: Float[np.ndarray, "rows draws"]


class Measured(NamedTuple):
    """Two discrepancies of the same rows, each summed over the modalities that are carried.

    Attributes:
        surprise: -log p(x | z), nats.
        misfit: Freeman and Tukey's sum_j (sqrt x_j - sqrt E x_j)**2 over counts. Every feature has about the same
            weight, while the surprise forgives those whose counts are widely dispersed, as markers of an unseen state.
    """

    surprise: Discrepancy
    misfit: Discrepancy


def blocks(rows: Int[Tensor, "rows"], size: int) -> int:
    """How many minibatches there will be."""
    return -(-len(rows) // max(1, size))


@torch.no_grad()
def replicates(
    network: Network, given: tuple[Observations, Int[Tensor, "rows"]], m: int, noise: Noise, draws: int
) -> Iterator[tuple[Float[Tensor, "rows features"], Float[Tensor, "draws rows features"]]]:
    """x of modality m, and x' at one draw of z that they share, block by block."""
    network.eval()
    observations, rows = given
    for i, batch in enumerate(minibatches(observations, rows, rows_at_once(network, observations, draws))):
        own = noise.at(4, i)
        encoded = network.encode(batch)
        p = predicted(network, batch, (encoded, m), encoded.z.sample(own, 1)[0], own)
        yield dense(batch.x[m]), torch.stack([p.sample(own) for _ in range(draws)])


@torch.no_grad()
def measured(
    network: Network, given: tuple[Observations, Int[Tensor, "rows"]], noise: Noise, draws: int
) -> Iterator[Measured]:
    """How far x is from what the model says at z, and how far x' is, block by block."""
    network.eval()
    observations, rows = given
    for i, batch in enumerate(minibatches(observations, rows, rows_at_once(network, observations))):
        own = noise.at(5, i)
        encoded = network.encode(batch)
        z = encoded.z.sample(own, draws)
        each = torch.stack([_measured(network, batch, encoded, at, own) for at in z], -1).numpy().astype(np.float64)
        yield Measured(Discrepancy(*each[:2]), Discrepancy(*each[2:]))


def _measured(
    network: Network, batch: Batch, encoded: Encoded, z: Tensor, noise: Noise
) -> Float[Tensor, "discrepancies rows"]:
    """Surprise of x and of x', misfit of x and of x', at one draw of z."""
    sums = torch.zeros(4, len(batch))
    for m, (x, present) in enumerate(zip(batch.x, batch.present, strict=True)):
        p = predicted(network, batch, (encoded, m), z, noise)
        pair = (x, p.sample(noise))
        of = [-p.log_prob(values) for values in pair]
        counted = isinstance(x, SparseCounts)
        of += [_misfit(dense(values), p.mean) if counted else torch.zeros_like(of[0]) for values in pair]
        each = torch.stack(of).cpu()
        sums += each if present is None else torch.where(present.cpu(), each, 0)
    return sums


def _misfit(x: Float[Tensor, "rows features"], mean: Float[Tensor, "rows features"]) -> Float[Tensor, "rows"]:
    """Freeman and Tukey's sum of (sqrt x - sqrt E x)**2."""
    return (x.sqrt() - mean.sqrt()).square().sum(-1)


def predicted(
    network: Network, batch: Batch, of: tuple[Encoded, int], z: Float[Tensor, "rows latent"], noise: Noise
) -> Distribution:
    """p(x_m | z) at each row's own covariates and exposure, which is drawn where the library size is latent."""
    encoded, m = of
    q = encoded.libraries[m]
    log_library = None if q is None else q.sample(noise, 1)[0]
    return network.parts[m].decode(z, network.context(batch, m, log_library))


def alike(x: Float[Tensor, "rows features"], was: SparseCounts | Tensor) -> SparseCounts | Tensor:
    """Drawn values, kept as the observed ones are."""
    return SparseCounts.from_dense(x) if isinstance(was, SparseCounts) else x
