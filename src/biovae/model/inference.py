"""What a fitted network says of data: streams of minibatches in, arrays out, memory bounded by one minibatch.

rows     positions in the observations, (rows,)
samples  draws of z per observation
"""

from collections.abc import Iterator
from typing import NamedTuple

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

from biovae.batch import Batch, Observations
from biovae.network import Network
from biovae.noise import Noise
from biovae.objective import elbo, iwae

ROWS = 1024  # observations per minibatch, at most
ELEMENTS = 2**21  # entries of the largest array at once: 8 MB of float32, of which a score holds a dozen


class Moments(NamedTuple):
    """Posterior means and marginal variances, (rows, latent)."""

    mean: Float[np.ndarray, "rows latent"]
    variance: Float[np.ndarray, "rows latent"]


class Scores(NamedTuple):
    """Per observation, in nats."""

    elbo: Float[np.ndarray, "rows"]
    iwae: Float[np.ndarray, "rows"]
    reconstruction: Float[np.ndarray, "rows"]
    kl: Float[np.ndarray, "rows groups"]


def minibatches(observations: Observations, rows: Int[Tensor, "rows"], size: int) -> Iterator[Batch]:
    """The rows in order, `size` at a time."""
    for part in rows.split(max(1, size)):
        yield observations.batch(part)


def everything(observations: Observations) -> Int[Tensor, "rows"]:
    """All rows."""
    return torch.arange(len(observations))


def rows_at_once(network: Network, observations: Observations, samples: int = 1) -> int:
    """Observations per minibatch so that their dense arrays stay within memory."""
    widest = max(x.shape[1] for x in observations.x)
    return max(1, min(ROWS, ELEMENTS // (widest * samples)))


@torch.no_grad()
def posterior_moments(network: Network, observations: Observations, rows: Int[Tensor, "rows"]) -> Moments:
    """Mean and variance of q(z | x) of each observation."""
    network.eval()
    size = rows_at_once(network, observations)
    parts = [network.encode(batch).z for batch in minibatches(observations, rows, size)]
    mean = torch.cat([q.mean for q in parts]).cpu().numpy()
    return Moments(mean, torch.cat([q.variance for q in parts]).cpu().numpy())


@torch.no_grad()
def bounds(
    network: Network, observations: Observations, rows: Int[Tensor, "rows"], noise: Noise, samples: int
) -> Scores:
    """Bound, importance-weighted bound, reconstruction and KL of each observation, from the same draws."""
    network.eval()
    parts = []
    for i, batch in enumerate(minibatches(observations, rows, rows_at_once(network, observations, samples))):
        t = network.terms(batch, noise.at(0, i), samples=samples)
        parts.append((elbo(t), iwae(t), (t.log_px - t.library).mean(0), t.kl_by_group))
    return Scores(*(torch.cat(column).cpu().numpy().astype(np.float64) for column in zip(*parts, strict=True)))


@torch.no_grad()
def shuffled_reconstruction(
    network: Network, observations: Observations, rows: Int[Tensor, "rows"], noise: Noise
) -> Float[np.ndarray, "rows"]:
    """log p(x | z) of each observation at the z of another one: what is lost is what the decoder hears from z."""
    network.eval()
    others = rows[torch.roll(torch.arange(len(rows)), 1)]
    out = []
    for i, (own, other) in enumerate(zip(rows.split(256), others.split(256), strict=True)):
        z = network.encode(observations.batch(other)).z.sample(noise.at(0, i), 1)
        batch = observations.batch(own)
        log_px = torch.zeros(len(batch))
        for m, (x, present) in enumerate(zip(batch.x, batch.present, strict=True)):
            scored = network.decode(z, batch, m).log_prob(x)[0].cpu()
            log_px += scored if present is None else torch.where(present.cpu(), scored, 0)
        out.append(log_px)
    return torch.cat(out).numpy().astype(np.float64)


@torch.no_grad()
def reconstructions(
    network: Network, observations: Observations, m: int
) -> Iterator[Float[np.ndarray, "rows features"]]:
    """The mean of p(x_m | z) at the posterior mean, at each observation's own exposure and covariates."""
    network.eval()
    size = max(1, min(ROWS, ELEMENTS // network.parts[m].features))
    for batch in minibatches(observations, everything(observations), size):
        yield network.decode(network.encode(batch).z.mean, batch, m).mean.cpu().numpy()


@torch.no_grad()
def predictive(
    network: Network, given: Observations, scored: Observations, rows: Int[Tensor, "rows"], noise: Noise, samples: int
) -> Float[np.ndarray, "rows"]:
    """log mean_s p(x' | z_s), z_s ~ q(z | x): how well z from one data set predicts another of the same cells.

    Exposure and covariates are those of `given` throughout, so that x' is used for nothing but its score.
    """
    network.eval()
    out = []
    for i, part in enumerate(rows.split(rows_at_once(network, given, samples))):
        seen, new = given.batch(part), scored.batch(part)
        z = network.encode(seen).z.sample(noise.at(2, i), samples)
        log_px = torch.zeros(samples, len(part))
        for m, (x, present) in enumerate(zip(new.x, new.present, strict=True)):
            each = network.decode(z, seen, m).log_prob(x).cpu()
            log_px += each if present is None else torch.where(present.cpu(), each, 0)
        out.append(torch.logsumexp(log_px, 0) - np.log(samples))
    return torch.cat(out).numpy().astype(np.float64)


@torch.no_grad()
def posterior_draws(
    network: Network, observations: Observations, rows: Int[Tensor, "rows"], noise: Noise, samples: int
) -> Float[np.ndarray, "samples rows latent"]:
    """z ~ q(z | x) of some rows."""
    network.eval()
    parts = minibatches(observations, rows, rows_at_once(network, observations))
    drawn = [network.encode(batch).z.sample(noise.at(3, i), samples) for i, batch in enumerate(parts)]
    return torch.cat(drawn, 1).cpu().numpy()
