"""How plausible is what a point of the latent space decodes to? Several answers, each measured by real observations.

    z          points, (points, latent)
    f(z)       what is decoded, in standard deviations of the measurement, see `observed.py`

    rarity      -log q(z)                                      nothing like it is in the data
    doubt       log of sum_g Var f_g(z) over decoders that the training set cannot tell apart, less what it is at the
                nearest real observations                      the decoder is not known here
    drift       |encode(x) - z|^2 / (latent variance), x decoded from z    the model does not recognise what it says
    misfit      nats by which it explains the nearest real observations worse than their own z do, per 1,000 counts
                (for values that are no counts, per observation)
    clash       log of the mean chance to see both features of a pair that exclude each other in the data

All rise as plausibility falls. Each is turned into the share of real observations at which it is as high or higher, p;
they are combined as T = -sum_j log p_j, and `plausibility` is the share of real observations whose T is as high or
higher, whatever the parts have in common. So every number reads alike: at 0.05, one real observation in twenty looks
as odd. Rarity alone is `support`. A point can be unsupported and otherwise unremarkable (`coherence`, the same
combination without rarity): nothing like it was observed, and nothing but that speaks against it.

T lets what is ordinary in one respect be odd in another: with normal scores in its place, a doubt or a clash that is
lower than usual pays for a misfit, and points beyond the data were missed (LOG.md). Doubt grows beyond the data and
falls between them, where it says nothing.

The limits of plausibility are those of another sample of observations (Bayesian bootstrap of q) and of decoders that
the training set cannot tell from this one, both at once.

None of this proves that a state can or cannot exist.

Source: Fisher 1925, Statistical Methods for Research Workers, section 21.1 (combination of p-values); Vovk, Gammerman
and Shafer 2005, doi:10.1007/b106715 (tail shares of real observations as p-values).
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import NamedTuple

import numpy as np
import pandas as pd
import scipy.sparse
from jaxtyping import Float, Int

from biovae.analysis.limits import limits
from biovae.analysis.neighbourhoods.search import Search
from biovae.analysis.space.density import Density, tail
from biovae.analysis.space.exclusion import exclusive_pairs, together
from biovae.analysis.space.observed import FLOOR, Observed
from biovae.errors import InputError

Decode = Callable[[Float[np.ndarray, "points latent"]], Float[np.ndarray, "points features"]]
Again = Callable[[Float[np.ndarray, "points latent"]], Float[np.ndarray, "points latent"]]
Doubt = Callable[[Float[np.ndarray, "points latent"]], Float[np.ndarray, "points"]]

REAL = 1000  # observations that the parts are measured by
NEIGHBOURS = 20  # real observations that a point is to explain
FEW = 5  # of them, whose doubt is compared
ROWS = 256  # points decoded at once
TINY = np.finfo(np.float64).tiny


class Decoder(NamedTuple):
    """A way from z to means, and one from z to encode(decode(z)); None leaves drift out."""

    decode: Decode
    again: Again | None = None


@dataclass(frozen=True)
class Judge:
    """Measures points of the latent space by real observations; call it with z.

    Attributes:
        q: The density.
        observed: The observations of q.
        decoder: Whose answers are judged.
        pairs: Features that exclude each other, (pairs, 2).
        others: Decoders that the training set cannot tell from it.
        doubt: z to the decoder's uncertainty; None takes that over `others`, if there are any.
        real: The parts at real observations, a row each.
        seed: Of the bootstrap.
    """

    q: Density
    observed: Observed
    decoder: Decoder
    pairs: Int[np.ndarray, "pairs 2"]
    others: Sequence[Decoder]
    doubt: Doubt | None
    real: pd.DataFrame
    seed: int

    def __call__(self, z: Float[np.ndarray, "points latent"]) -> pd.DataFrame:
        """A row per point: every part, its share of real observations (`p_...`), and the combinations.

        Returns:
            Columns `rarity`, `doubt`, `drift`, ... as far as they could be had; `support` (the share for rarity),
            `p_doubt`, ...; `coherence`, of all but rarity; `plausibility`, of all; with other decoders `lower` and
            `upper`, its 90 % interval.
        """
        z = np.atleast_2d(np.asarray(z, dtype=np.float64))
        parts = self.parts(z)
        shares = self._shares(parts)
        named = {name: "support" if name == "rarity" else f"p_{name}" for name in shares}
        frame = pd.concat([parts, shares.rename(columns=named)], axis=1)
        frame["coherence"] = self._combined(shares.drop(columns="rarity"))
        frame["plausibility"] = self._combined(shares)
        if len(self.others) > 1:
            frame["lower"], frame["upper"] = limits(self._drawn(z, parts))
        return frame

    def parts(
        self, z: Float[np.ndarray, "points latent"], own: Int[np.ndarray, "points"] | None = None
    ) -> pd.DataFrame:
        """The parts as they are, a column each; `own` names for each point an observation to look away from."""
        found = {"rarity": -self.q.log_density(z, own)}
        near = self._near(z, own)
        if self.doubt is not None:
            found["doubt"] = np.asarray(self.doubt(z), dtype=np.float64)
        elif len(self.others) > 1:
            found["doubt"] = self._compared(z, near[:, :FEW])
        return pd.DataFrame(found | self._decoded(self.decoder, z, near))

    def _compared(self, z: np.ndarray, near: Int[np.ndarray, "points few"]) -> Float[np.ndarray, "points"]:
        """Log doubt, less its mean at the nearest observations."""
        rows, back = np.unique(near, return_inverse=True)
        there = np.log(self._spread(self.q.mean[rows]) + TINY)[back.reshape(near.shape)]
        return np.log(self._spread(z) + TINY) - there.mean(1)

    def _spread(self, z: np.ndarray) -> Float[np.ndarray, "points"]:
        """sum_g Var f_g(z) over the other decoders."""
        found = []
        for start in range(0, len(z), ROWS):
            part = z[start : start + ROWS]
            first = self.observed.scaled(self.others[0].decode(part))
            total, square = np.zeros_like(first), np.zeros_like(first)
            for other in self.others[1:]:
                apart = self.observed.scaled(other.decode(part)) - first  # so that no large squares cancel
                total += apart
                square += apart**2
            many = len(self.others)
            found.append(((square - total**2 / many) / (many - 1)).sum(1))
        return np.concatenate(found)

    def _drawn(self, z: np.ndarray, parts: pd.DataFrame) -> Float[np.ndarray, "draws points"]:
        """Plausibility by each of the other decoders, and by a density of observations drawn anew."""
        near, log_q = self._near(z), self.q.resampled(z, draws=len(self.others), seed=self.seed)
        found = []
        for other, level in zip(self.others, log_q, strict=True):
            again = parts.assign(rarity=-level, **self._decoded(other, z, near))
            found.append(self._combined(self._shares(again)))
        return np.stack(found)

    def _decoded(self, decoder: Decoder, z: np.ndarray, index: np.ndarray) -> dict[str, np.ndarray]:
        """The parts that a decoder has a word in."""
        found = {}
        if decoder.again is not None:
            found["drift"] = ((decoder.again(z) - z) ** 2 / self.q.variance.mean(0)).sum(1)
        near = _chosen(index, len(self.q.mean))
        gain, clash = -near @ self._own(decoder, near), np.empty(len(z))
        for start in range(0, len(z), ROWS):
            rows = slice(start, start + ROWS)
            mean = np.asarray(decoder.decode(z[rows]), dtype=np.float64)
            gain[rows] += self.observed.nats(near[rows], mean)
            if len(self.pairs):
                clash[rows] = np.log(together(self.observed.chance(mean), self.pairs) + FLOOR)
        found["misfit"] = -gain / self.observed.units(near)
        return found | ({"clash": clash} if len(self.pairs) else {})

    def _own(self, decoder: Decoder, near: scipy.sparse.csr_array) -> Float[np.ndarray, "obs"]:
        """Nats of each observation that is near to some point, by what its own z decodes to."""
        found = np.zeros(near.shape[1])
        rows = np.unique(near.indices)
        for start in range(0, len(rows), ROWS):
            part = rows[start : start + ROWS]
            mean = np.asarray(decoder.decode(self.q.mean[part]), dtype=np.float64)
            found[part] = self.observed.nats(_chosen(part[:, None], near.shape[1]), mean)
        return found

    def _near(self, z: np.ndarray, own: np.ndarray | None = None) -> Int[np.ndarray, "points near"]:
        """Which observations a point is to explain, nearest first."""
        scale = np.sqrt(self.q.variance.mean(0))
        most = min(NEIGHBOURS + (own is not None), len(self.q.mean))
        index, _ = Search(self.q.mean / scale).at(z / scale, most)
        if own is not None:
            late = np.argsort(index == own[:, None], axis=1, kind="stable")  # oneself goes last, and is cut off
            index = np.take_along_axis(index, late, axis=1)[:, : most - 1]
        return index

    def _shares(self, parts: pd.DataFrame) -> pd.DataFrame:
        """Share of real observations at which each part is as high; rarity by held-out ones, where q has some."""
        real = {name: self.real[name].to_numpy() for name in parts} | {"rarity": -self.q.reference}
        return pd.DataFrame({name: tail(parts[name].to_numpy(), real[name]) for name in parts})

    def _combined(self, shares: pd.DataFrame) -> Float[np.ndarray, "points"]:
        """Share of real observations whose T is as high."""
        among = [tail(self.real[name].to_numpy(), self.real[name].to_numpy()) for name in shares]
        return tail(-np.log(shares.to_numpy()).sum(1), -np.log(np.column_stack(among)).sum(1))


def judge(  # noqa: PLR0913 - each callable is one more answer
    q: Density,
    observed: Observed,
    decode: Decode,
    *,
    again: Again | None = None,
    others: Sequence[Decoder] = (),
    doubt: Doubt | None = None,
    size: int = REAL,
    seed: int = 0,
) -> Judge:
    """Make a judge: find the pairs that exclude each other, and look at real observations as at any other point.

    Args:
        q: The density of the observations.
        observed: Their values, in the same order: `Counts(x)`, `Binary(x)` or `Reals(x, noise)`.
        decode: z to means; for counts on any scale.
        again: z to the posterior mean of what was decoded from z: encode(decode(z)).
        others: Decoders that the data cannot tell from this one; two or more give doubt, and limits.
        doubt: z to the decoder's uncertainty, in place of the spread of the others.
        size: Real observations to measure by.
        seed: Which, and of the bootstrap.

    Raises:
        InputError: Values and density differ in their number of observations.
    """
    count = observed.x.shape[0]
    if count != len(q.mean):
        raise InputError(
            f"expected values of the {len(q.mean)} observations of the density, found {count} rows: use one set."
        )
    pairs = exclusive_pairs(observed.x) if observed.detected else np.empty((0, 2), dtype=np.int64)
    blank = Judge(q, observed, Decoder(decode, again), pairs, others, doubt, pd.DataFrame(), seed)
    rows = np.sort(np.random.default_rng(seed).permutation(len(q.mean))[:size])
    return replace(blank, real=blank.parts(q.mean[rows], rows))


def _chosen(index: Int[np.ndarray, "points near"], count: int) -> scipy.sparse.csr_array:
    """(points, count), 1 where an observation is near."""
    points, near = index.shape
    start = np.arange(0, points * near + 1, near)
    return scipy.sparse.csr_array((np.ones(points * near), index.ravel(), start), shape=(points, count))
