"""Negative binomial counts drawn at given means.

By inversion in a compiled loop where that is quick, as a mixture of Poisson distributions elsewhere.

Source: Greenwood and Yule 1920, doi:10.2307/2341080 (a Poisson variable whose rate is a gamma variable).
"""

import torch
from jaxtyping import Float
from torch import Tensor

from biovae.distributions.sparse import as_row, as_rows
from biovae.kernels import kernel_fits, run_kernel
from biovae.noise import Noise


def drawn_counts(
    log_mean: Float[Tensor, "*samples obs features"], log_r: Float[Tensor, "..."], noise: Noise
) -> Float[Tensor, "*samples obs features"]:
    """x ~ NB(mean, r).

    Args:
        log_mean: Of every entry.
        log_r: Whatever broadcasts to it, within +-60.
        noise: Where the draws come from; other numbers with numba than without.
    """
    m, r = as_rows(log_mean, log_mean.shape), as_row(log_r, log_mean.shape)
    if not kernel_fits(m, r):
        return _mixed(m, r, noise).view(log_mean.shape)
    from biovae.kernels.sampling import negative_binomial_draws

    x: Tensor = torch.from_numpy(run_kernel(negative_binomial_draws, m, torch.atleast_2d(r), noise.word()))
    left = x < 0
    if left.any():
        x[left] = _mixed(m[left], r.expand(m.shape)[left], noise)
    return x.view(log_mean.shape)


def _mixed(log_mean: Float[Tensor, "..."], log_r: Float[Tensor, "..."], noise: Noise) -> Float[Tensor, "..."]:
    """A Poisson draw at the rate mean * g / r, g a gamma variable of shape r."""
    gamma = torch._standard_gamma(log_r.exp().expand(log_mean.shape).contiguous(), generator=noise.generator)
    return torch.poisson(gamma * (log_mean - log_r).exp(), generator=noise.generator)
