"""The aggregate posterior as a density: how much of the data any point of the latent space stands for.

    q(z) = 1/n sum_i N(z; mean_i, w variance_i)

    mean, variance  of each observation's posterior, (obs, latent); with dependent dimensions, the marginal variances
    w               one factor on all variances, 1 or more: a finite sample of narrow posteriors is spikes with nothing
                    between them, and the factor is the one under which each observation is best foretold by the others
    z               points, (points, latent)
    support         share of real observations whose density is as low or lower, (points,)

A low density says that the data hold nothing like z, and no more: **absence of data alone cannot prove a state
forbidden**. The words are "supported" and "unsupported".
"""

from collections.abc import Iterator
from dataclasses import dataclass, field

import numpy as np
from jaxtyping import Float, Int

from biovae.analysis.neighbourhoods.positions import finite
from biovae.analysis.neighbourhoods.search import Search, side_by_side
from biovae.errors import InputError

EXACT = 8192  # components up to which every one is evaluated in double precision
NEAR = 64  # components evaluated one by one around each point, above that
CROWD = 16_384  # others that stand for the rest
ELEMENTS = 2**19  # numbers in the largest array at once: what a core's cache holds
REFERENCE = 5000  # real observations that support is measured by
TUNING = 1000  # observations that choose w
WIDTHS = (1.0, 1.4, 2.0, 2.8, 4.0, 5.6, 8.0, 11.0, 16.0)
LEVEL = 0.05  # support below which a point is called unsupported
TWO_SIDED_95 = 1.96


@dataclass(frozen=True)
class Density:
    """q(z) = 1/n sum_i N(z; mean_i, diag(variance_i)).

    Up to 8,192 components all are summed. Above, the 64 nearest to z are summed one by one, and 16,384 others, drawn
    once, stand for the rest in proportion: exact where it matters, unbiased elsewhere, at a cost that hardly grows
    with the data. Log densities then take the others in single precision; gradients do not.

    Attributes:
        mean: (obs, latent).
        variance: The factor w included.
        width: w.
        reference: Log density of real observations, each without its own component, sorted.
    """

    mean: Float[np.ndarray, "obs latent"]
    variance: Float[np.ndarray, "obs latent"]
    width: float = 1.0
    reference: Float[np.ndarray, "reference"] = field(default_factory=lambda: np.empty(0))
    seed: int = 0

    def __post_init__(self) -> None:
        mean, variance = finite(self.mean), np.asarray(self.variance, dtype=np.float64)
        if variance.shape != mean.shape or not (np.isfinite(variance) & (variance > 0)).all():
            raise InputError(
                f"expected a positive variance for each of {mean.shape} means, found {variance.shape} with smallest "
                f"{variance.min(initial=np.inf):g}: pass vae.moments(adata)."
            )
        many = len(mean) > EXACT
        every, chosen = np.arange(len(mean)), min(CROWD, len(mean))
        crowd = np.sort(np.random.default_rng(self.seed).choice(every, chosen, replace=False)) if many else every
        place = np.full(len(mean), -1)
        place[crowd] = np.arange(len(crowd))
        scale = np.sqrt(variance.mean(0))
        search = Search(mean / scale) if many else None
        for name, value in {
            "mean": mean, "variance": variance, "_centre": mean.mean(0), "_scale": scale, "_crowd": crowd,
            "_place": place, "_search": search,
        }.items():  # fmt: skip
            object.__setattr__(self, name, value)
        object.__setattr__(self, "_terms", self._linear(crowd))

    _centre: np.ndarray = field(init=False, repr=False)
    _scale: np.ndarray = field(init=False, repr=False)
    _crowd: np.ndarray = field(init=False, repr=False)
    _place: np.ndarray = field(init=False, repr=False)  # of each component in the crowd; -1 where it is not in it
    _search: Search | None = field(init=False, repr=False)
    _terms: np.ndarray = field(init=False, repr=False)

    def log_density(
        self, z: Float[np.ndarray, "points latent"], own: Int[np.ndarray, "points"] | None = None
    ) -> Float[np.ndarray, "points"]:
        """log q(z), in nats.

        Args:
            z: Points.
            own: For each point a component that is left out, as if the density had been made without it; -1 for none.
        """
        found = np.empty(len(z))
        for rows, near, _, crowd, rest in self._pieces(z, own, np.float64 if self._search is None else np.float32):
            found[rows] = np.logaddexp(_total(near), _total(crowd) + rest)
        return found - np.log(len(self.mean) - (0 if own is None else own >= 0))

    def gradient(self, z: Float[np.ndarray, "points latent"]) -> Float[np.ndarray, "points latent"]:
        """Derivative of log q(z)."""
        precision, pull = self._pull(z)
        return pull - finite(z) * precision

    def shift(self, z: Float[np.ndarray, "points latent"]) -> Float[np.ndarray, "points latent"]:
        """sum_i r_i P_i mean_i / sum_i r_i P_i, r_i the share of component i in q(z), P_i its precision.

        A step of mean shift: never downhill, and at rest where the gradient is zero.

        Source: Comaniciu and Meer 2002, doi:10.1109/34.1000236; Carreira-Perpinan 2000, doi:10.1109/34.888716.
        """
        precision, pull = self._pull(z)
        return pull / precision

    def owner(self, z: Float[np.ndarray, "points latent"]) -> Int[np.ndarray, "points"]:
        """The component with the largest share in q(z), of those that are near or in the crowd."""
        found = np.empty(len(z), dtype=np.int64)
        for rows, near, index, crowd, _ in self._pieces(z):
            found[rows] = self._crowd[crowd.argmax(1)]
            if near.shape[1]:
                closer = index[np.arange(len(near)), near.argmax(1)]
                found[rows] = np.where(near.max(1) >= crowd.max(1), closer, found[rows])
        return found

    def support(self, z: Float[np.ndarray, "points latent"]) -> Float[np.ndarray, "points"]:
        """(1 + number of real observations with a density as low as q(z) or lower) / (1 + number of them).

        Of a real observation that had no part in q it is uniform on (0, 1): a value below 0.05 is what one real
        observation in twenty has.

        Source: Vovk, Gammerman and Shafer 2005, doi:10.1007/b106715 (conformal p-values).
        """
        return tail(-self.log_density(z), -self.reference)

    def resampled(
        self,
        z: Float[np.ndarray, "points latent"],
        own: Int[np.ndarray, "points"] | None = None,
        *,
        draws: int = 200,
        seed: int = 0,
    ) -> Float[np.ndarray, "draws points"]:
        """log q(z) with exponential weights on the observations: draws of the Bayesian bootstrap, over all components.

        Args:
            z: Points.
            own: For each point a component that is left out; -1 for none.
            draws: How many.
            seed: Of the weights.

        Source: Rubin 1981, doi:10.1214/aos/1176345338.
        """
        z, rng = finite(z), np.random.default_rng(seed)
        own = np.full(len(z), -1) if own is None else own
        level = self.log_density(z, own) + np.log(len(self.mean) - (own >= 0))
        total, whole = np.zeros((draws, len(z))), np.zeros((draws, 1))
        size = max(1, ELEMENTS // max(len(z), draws))
        for start in range(0, len(self.mean), size):
            part = np.arange(start, min(start + size, len(self.mean)))
            weight = rng.exponential(size=(draws, len(part)))
            log_share = _powers(z - self._centre) @ self._linear(part) - level[:, None]
            share = np.where(part == own[:, None], 0, np.exp(log_share))
            total += weight @ share.T
            whole += weight.sum(1, keepdims=True)
        return np.log(total) - np.log(whole) + level

    def _pull(self, z: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Mean precision of the components, and mean of precision times position, weighted by their shares in q(z)."""
        precision, pull = np.empty(z.shape), np.empty(z.shape)
        crowded = 1 / self.variance[self._crowd]
        pulling = self.mean[self._crowd] * crowded
        for rows, near, index, crowd, rest in self._pieces(z):
            crowd += rest[:, None]
            top = np.maximum(near.max(1, initial=-np.inf), crowd.max(1))[:, None]
            share, apart = np.exp(crowd - top), np.exp(near - top)
            total = (share.sum(1) + apart.sum(1))[:, None]
            sharp = 1 / self.variance[index]
            precision[rows] = (share @ crowded + np.einsum("pk,pkl->pl", apart, sharp)) / total
            pull[rows] = (share @ pulling + np.einsum("pk,pkl->pl", apart, sharp * self.mean[index])) / total
        return precision, pull

    def _pieces(
        self, z: np.ndarray, own: np.ndarray | None = None, precision: type = np.float64
    ) -> Iterator[tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray, np.ndarray]]:
        """Rows of some points: log terms of the near components, which these are, those of the crowd, and what to add.

        That is the log of how many components each of the crowd stands for. A near component that is in the crowd, too,
        counts once: there it is left out.
        """
        z = finite(z)
        if z.shape[1] != self.mean.shape[1]:
            raise InputError(
                f"expected points with {self.mean.shape[1]} coordinates, as the density has, found {z.shape[1]}: use "
                "one space."
            )
        own = np.full(len(z), -1) if own is None else own
        terms: np.ndarray = self._terms.astype(precision)
        size = max(1, ELEMENTS // len(self._crowd))
        order = np.arange(len(z)) if self._search is None else side_by_side(z / self._scale)
        for start in range(0, len(z), size):
            rows = order[start : start + size]
            index, block, gone = np.empty((len(rows), 0), dtype=np.int64), z[rows], own[rows, None]
            crowd = _powers(block - self._centre).astype(precision) @ terms
            if self._search is not None:
                index, _ = self._search.at(block / self._scale, NEAR)
                gone = np.concatenate([index, np.where((index == gone).any(1, keepdims=True), -1, gone)], axis=1)
            remaining = len(self.mean) - index.shape[1] - (gone[:, -1] >= 0)
            place = np.where(gone >= 0, self._place[gone], -1)
            at, which = np.nonzero(place >= 0)
            crowd[at, place[at, which]] = -np.inf
            rest = np.log(np.maximum(remaining, 1) / np.maximum(crowd.shape[1] - (place >= 0).sum(1), 1))
            near = np.where(index == own[rows, None], -np.inf, self._each(block, index))
            yield rows, near, index, crowd, rest

    def _linear(self, rows: np.ndarray) -> Float[np.ndarray, "powers components"]:
        """What takes `_powers` of z - centre, where no large squares cancel, to log N(z; mean_i, variance_i)."""
        mean, variance = self.mean[rows] - self._centre, self.variance[rows]
        constant = -0.5 * (np.log(2 * np.pi * variance) + mean**2 / variance).sum(1, keepdims=True)
        return np.concatenate([mean / variance, -0.5 / variance, constant], axis=1).T

    def _each(self, z: np.ndarray, index: np.ndarray) -> Float[np.ndarray, "points near"]:
        """log N(z; mean_i, variance_i) for each point's own components."""
        variance = self.variance[index]
        square = ((z[:, None] - self.mean[index]) ** 2 / variance).sum(-1)
        return -0.5 * (square + np.log(2 * np.pi * variance).sum(-1))


def density(
    mean: Float[np.ndarray, "obs latent"],
    variance: Float[np.ndarray, "obs latent"] | None = None,
    *,
    held_out: Float[np.ndarray, "real latent"] | None = None,
    width: float | None = None,
    seed: int = 0,
) -> Density:
    """The aggregate posterior of observations, with its support calibrated on real ones.

    Args:
        mean: Posterior means, (obs, latent).
        variance: Posterior variances, (obs, latent): `vae.moments(adata)` has both. An embedding without posteriors, of
            PCA, UMAP, or somebody else, needs a kernel in their place, such as one number h**2 for all, h the median
            distance to the tenth neighbour over the root of the number of dimensions; w then widens it.
        held_out: Posterior means of observations that had no part in training, which make support exact. Without them
            up to 5,000 of `mean` are used, each judged by the others.
        width: The factor w on all variances; None takes the one, from 1 to 16, that foretells observations best.
        seed: Of subsets, where there are more observations than are needed.

    Raises:
        InputError: No variance, fewer than two observations, shapes that differ, or a width below or at 0.
    """
    mean = finite(mean)
    if variance is None:
        raise InputError(
            f"expected a variance for each of {mean.shape} means, found none: pass vae.moments(adata); an embedding "
            "without posteriors (PCA, UMAP) needs a kernel, np.full(z.shape, h**2), h the median distance to the tenth "
            "neighbour over the root of the number of dimensions."
        )
    variance = np.asarray(variance, dtype=np.float64)
    if len(mean) < 2:
        raise InputError(f"expected at least 2 observations, found {len(mean)}: a density needs several.")
    if width is not None and not width > 0:
        raise InputError(f"expected a width above 0, found {width:g}: 1 leaves the posteriors as they are.")
    rng = np.random.default_rng(seed)
    rows = np.sort(rng.permutation(len(mean))[:REFERENCE])
    if width is None:
        tuning = np.sort(rng.permutation(len(mean))[:TUNING])
        width = max(WIDTHS, key=lambda w: Density(mean, w * variance).log_density(mean[tuning], tuning).mean())
    q = Density(mean, width * variance, width, seed=seed)
    real = q.log_density(mean[rows], rows) if held_out is None else q.log_density(held_out)
    return Density(mean, width * variance, width, np.sort(real), seed)


@dataclass(frozen=True)
class PriorSupport:
    """How many samples from the prior are supported by data.

    Attributes:
        share: Of the samples, those whose support is at least 0.05; of real observations it is 0.95 by definition.
        lower: End of its 95 % interval, for the number of samples.
        upper: The other end.
        samples: How many.
    """

    share: float
    lower: float
    upper: float
    samples: int

    def __str__(self) -> str:
        """The share, and what it means for new observations."""
        said = (
            f"{self.share:.0%} ({self.lower:.0%} to {self.upper:.0%}) of {self.samples:,} samples from the prior are "
            f"supported by data; of real observations {1 - LEVEL:.0%} are, by definition."
        )
        if self.share >= 0.5:
            return said
        return (
            f"{said} Most of what the prior generates is like nothing that was observed: sample around observations, "
            "or fit with a mixture, VampPrior or flow prior."
        )


def prior_support(q: Density, samples: Float[np.ndarray, "samples latent"]) -> PriorSupport:
    """The share of samples whose support is at least 0.05, with Wilson's interval.

    Args:
        q: The density of the data.
        samples: Of the prior, or of anything else that generates.

    Source: Wilson 1927, doi:10.1080/01621459.1927.10502953.
    """
    count = len(samples)
    share = float((q.support(samples) >= LEVEL).mean())
    z2 = TWO_SIDED_95**2
    middle = (share + z2 / (2 * count)) / (1 + z2 / count)
    half = np.sqrt(z2 * (share * (1 - share) / count + z2 / (4 * count**2))) / (1 + z2 / count)
    return PriorSupport(share, float(middle - half), float(middle + half), count)


def tail(value: Float[np.ndarray, "points"], reference: Float[np.ndarray, "real"]) -> Float[np.ndarray, "points"]:
    """(1 + number of the reference at least as high as the value) / (1 + number of the reference).

    >>> tail(np.array([0.5, 9.0]), np.array([0.0, 1.0, 2.0])).tolist()
    [0.75, 0.25]
    """
    reference = np.sort(reference)
    above = len(reference) - np.searchsorted(reference, value, side="left")
    return (1 + above) / (1 + len(reference))


def _powers(z: Float[np.ndarray, "points latent"]) -> Float[np.ndarray, "points powers"]:
    return np.concatenate([z, z**2, np.ones((len(z), 1))], axis=1)


def _total(terms: Float[np.ndarray, "points components"]) -> Float[np.ndarray, "points"]:
    """Log of the sum of exponentials, in place."""
    if not terms.shape[1]:
        return np.full(len(terms), -np.inf)
    top = terms.max(1, keepdims=True)
    terms -= top
    return top[:, 0] + np.log(np.exp(terms, out=terms).sum(1))
