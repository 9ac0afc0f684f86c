"""Data that a model would have seen in place of those seen: x' ~ p(x | z), z ~ q(z | x), at own depth and covariates.

    x    observed                        (rows, features)
    x'   replicated                      (draws, rows, features)

Where the model is true and q the exact posterior, (z, x) and (z, x') have one distribution: whatever is measured of x
at a draw of z is exchangeable with the same of x' at the same draw, although z was inferred from x. Averaged over z it
is not: x then lies nearer to the middle than a replicate does, and p-values are too large.

Source: Gelman, Meng and Stern 1996, Statistica Sinica 6:733 (replicates); Johnson 2007, doi:10.1214/07-BA229 (one draw
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


class Surprise(NamedTuple):
    """-log p(x | z) in nats, of what was observed and of replicates at the same draws of z."""

    observed: Float[np.ndarray, "rows draws"]
    replicated: Float[np.ndarray, "rows draws"]


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
def surprises(
    network: Network, given: tuple[Observations, Int[Tensor, "rows"]], noise: Noise, draws: int
) -> Iterator[Surprise]:
    """How unlikely x is, and how unlikely x' is, block by block; summed over the modalities that are carried."""
    network.eval()
    observations, rows = given
    for i, batch in enumerate(minibatches(observations, rows, rows_at_once(network, observations))):
        own = noise.at(5, i)
        encoded = network.encode(batch)
        z = encoded.z.sample(own, draws)
        pairs = [_surprise(network, batch, encoded, at, own) for at in z]
        sides = (torch.stack(side, 1) for side in zip(*pairs, strict=True))
        observed, replicated = (side.numpy().astype(np.float64) for side in sides)
        yield Surprise(observed, replicated)


def _surprise(network: Network, batch: Batch, encoded: Encoded, z: Tensor, noise: Noise) -> tuple[Tensor, Tensor]:
    observed = replicated = torch.zeros(len(batch))
    for m, (x, present) in enumerate(zip(batch.x, batch.present, strict=True)):
        p = predicted(network, batch, (encoded, m), z, noise)
        each = [p.log_prob(x).cpu(), p.log_prob(p.sample(noise)).cpu()]
        if present is not None:
            each = [torch.where(present.cpu(), part, 0) for part in each]
        observed, replicated = observed - each[0], replicated - each[1]
    return observed, replicated


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
