"""How plausible is what a point of the latent space decodes to? Several answers, each measured by real observations.

    z          points, (points, latent)
    rho        decoded profiles that sum to 1, (points, features)

    rarity      -log q(z)                                      nothing like it is in the data
    doubt       what the caller's `doubt(z)` says              decoders that were fitted apart disagree
    drift       |encode(x) - z|^2 / (latent variance), x decoded from z    the model does not recognise what it says
    misfit      nats per 1,000 counts by which rho explains the nearest real observations worse than their own profiles
    clash       log of the mean chance to see both features of a pair that exclude each other in the data

All rise as plausibility falls. Each is turned into the share of real observations at which it is as high or higher, p;
the parts are combined as normal scores, T = sum_j Phi^-1(1 - p_j), and `plausibility` is the share of real observations
whose T is as high or higher, whatever the parts have in common. So every number reads alike: at 0.05, one real
observation in twenty looks as odd. Rarity alone is `support`. A point can be unsupported and otherwise unremarkable
(`coherence`, the same combination without rarity): nothing like it was observed, and nothing but that speaks against
it.

None of this proves that a state can or cannot exist.

Source: Stouffer et al. 1949, The American Soldier (combination by normal scores); Vovk, Gammerman and Shafer 2005,
doi:10.1007/b106715 (tail shares of real observations as p-values).
"""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import pandas as pd
import scipy.sparse
from jaxtyping import Float, Int
from scipy.special import ndtri

from biovae.analysis.neighbourhoods.search import Search
from biovae.analysis.space.density import Density, tail
from biovae.analysis.space.exclusion import exclusive_pairs, joint_detection
from biovae.errors import InputError

Decode = Callable[[Float[np.ndarray, "points latent"]], Float[np.ndarray, "points features"]]
Again = Callable[[Float[np.ndarray, "points latent"]], Float[np.ndarray, "points latent"]]
Doubt = Callable[[Float[np.ndarray, "points latent"]], Float[np.ndarray, "points"]]

REAL = 1000  # observations that the parts are measured by
NEIGHBOURS = 20  # real observations that a profile is to explain
ROWS = 256  # profiles held at once
FLOOR = 1e-9  # of a profile, in logarithms


@dataclass(frozen=True)
class Judge:
    """Measures points of the latent space by real observations; call it with z.

    Attributes:
        q: The density.
        counts: (obs, features), of the observations of q.
        decode: z to means, on any scale; they are divided by their sum.
        again: z to encode(decode(z)); None leaves drift out.
        doubt: z to the decoder's uncertainty; None leaves it out.
        pairs: Features that exclude each other, (pairs, 2).
        exposure: Total counts at which they would be seen.
        real: The parts at real observations, a row each.
    """

    q: Density
    counts: scipy.sparse.csr_array
    decode: Decode
    again: Again | None
    doubt: Doubt | None
    pairs: Int[np.ndarray, "pairs 2"]
    exposure: float
    real: pd.DataFrame

    def __call__(self, z: Float[np.ndarray, "points latent"]) -> pd.DataFrame:
        """A row per point: every part, its share of real observations (`p_...`), and the combinations.

        Returns:
            Columns `rarity`, `drift`, ... as far as they could be had; `support` (the share for rarity), `p_drift`,
            ...; `coherence`, of all but rarity; `plausibility`, of all.
        """
        parts = self.parts(z)
        shares = pd.DataFrame({name: tail(parts[name].to_numpy(), self.real[name].to_numpy()) for name in parts})
        shares["rarity"] = self.q.support(z)  # by held-out observations, where the density has some
        named = {name: "support" if name == "rarity" else f"p_{name}" for name in shares}
        frame = pd.concat([parts, shares.rename(columns=named)], axis=1)
        others = [name for name in shares if name != "rarity"]
        frame["coherence"] = self._combined(shares[others])
        frame["plausibility"] = self._combined(shares)
        return frame

    def parts(self, z: np.ndarray, own: Int[np.ndarray, "points"] | None = None) -> pd.DataFrame:
        """The parts as they are, a column each; `own` names for each point an observation to look away from."""
        z = np.atleast_2d(np.asarray(z, dtype=np.float64))
        found = {"rarity": -self.q.log_density(z, own)}
        if self.doubt is not None:
            found["doubt"] = np.asarray(self.doubt(z), dtype=np.float64)
        if self.again is not None:
            found["drift"] = ((self.again(z) - z) ** 2 / self.q.variance.mean(0)).sum(1)
        misfit, clash = self._profiles(z, own)
        found["misfit"] = misfit
        if len(self.pairs):
            found["clash"] = clash
        return pd.DataFrame(found)

    def _profiles(self, z: np.ndarray, own: np.ndarray | None) -> tuple[np.ndarray, np.ndarray]:
        near = self._near(z, own)
        misfit, clash = [], []
        for start in range(0, len(z), ROWS):
            rho = profiles(self.decode, z[start : start + ROWS])
            misfit.append(_misfit(rho, near[start : start + ROWS], self))
            if len(self.pairs):
                clash.append(np.log(joint_detection(rho, self.pairs, self.exposure) + FLOOR))
        return np.concatenate(misfit), np.concatenate(clash) if clash else np.empty(0)

    def _near(self, z: np.ndarray, own: np.ndarray | None) -> Int[np.ndarray, "points near"]:
        scale = np.sqrt(self.q.variance.mean(0))
        most = min(NEIGHBOURS + (own is not None), len(self.q.mean))
        index, _ = Search(self.q.mean / scale).at(z / scale, most)
        if own is None:
            return index
        late = np.argsort(index == own[:, None], axis=1, kind="stable")  # oneself goes last, and is cut off
        return np.take_along_axis(index, late, axis=1)[:, : most - 1]

    def _combined(self, shares: pd.DataFrame) -> np.ndarray:
        """Share of real observations whose sum of normal scores is as high."""
        if shares.empty:
            return np.full(len(shares), np.nan)
        among = {name: tail(self.real[name].to_numpy(), self.real[name].to_numpy()) for name in shares}
        return tail(scores(shares.to_numpy()), scores(np.column_stack([*among.values()])))


def judge(  # noqa: PLR0913 - each callable is one more answer
    q: Density,
    counts: scipy.sparse.sparray | scipy.sparse.spmatrix | np.ndarray,
    decode: Decode,
    *,
    again: Again | None = None,
    doubt: Doubt | None = None,
    size: int = REAL,
    seed: int = 0,
) -> Judge:
    """Make a judge: find the pairs that exclude each other, and look at real observations as at any other point.

    Args:
        q: The density of the observations.
        counts: Their counts, in the same order.
        decode: z to mean counts, or shares of them.
        again: z to the posterior mean of what was decoded from z: encode(decode(z)).
        doubt: z to the decoder's uncertainty, for example the spread of an ensemble.
        size: Real observations to measure by.
        seed: Which.

    Raises:
        InputError: Counts and density differ in their number of observations, or a count is negative.
    """
    counts = scipy.sparse.csr_array(counts)
    if counts.shape[0] != len(q.mean):
        raise InputError(
            f"expected counts of the {len(q.mean)} observations of the density, found {counts.shape[0]} rows: "
            "use one set."
        )
    if counts.nnz and counts.data.min() < 0:
        raise InputError(f"expected counts of at least 0, found {counts.data.min():g}: plausibility judges counts.")
    exposure = float(np.median(counts.sum(1)))
    blank = Judge(q, counts, decode, again, doubt, exclusive_pairs(counts), exposure, pd.DataFrame())
    rows = np.sort(np.random.default_rng(seed).permutation(len(q.mean))[:size])
    return Judge(q, counts, decode, again, doubt, blank.pairs, exposure, blank.parts(q.mean[rows], rows))


def scores(shares: Float[np.ndarray, "points parts"]) -> Float[np.ndarray, "points"]:
    """T = sum_j Phi^-1(1 - p_j), up to a factor that is the same everywhere."""
    return ndtri(1 - np.clip(shares, 1e-12, 1 - 1e-12)).sum(1)


def profiles(decode: Decode, z: Float[np.ndarray, "points latent"]) -> Float[np.ndarray, "points features"]:
    """Decoded means divided by their sum."""
    mean = np.maximum(np.asarray(decode(z), dtype=np.float64), 0)
    return mean / np.maximum(mean.sum(1, keepdims=True), np.finfo(np.float64).tiny)


def _misfit(rho: np.ndarray, near: np.ndarray, judge: Judge) -> Float[np.ndarray, "points"]:
    """sum_n sum_g x_ng (log rho_g(z_n) - log rho_g(z)) / sum_n sum_g x_ng, times 1,000; n the nearest observations."""
    own, back = np.unique(near, return_inverse=True)
    back = back.reshape(near.shape)
    log_own = np.empty(len(own))
    for start in range(0, len(own), ROWS):
        part = own[start : start + ROWS]
        theirs = np.log(profiles(judge.decode, judge.q.mean[part]) + FLOOR)
        log_own[start : start + ROWS] = np.asarray(judge.counts[part].multiply(theirs).sum(1)).ravel()
    out = np.empty(len(rho))
    for i, rows in enumerate(near):
        x = np.asarray(judge.counts[rows].sum(0)).ravel()
        out[i] = (log_own[back[i]].sum() - x @ np.log(rho[i] + FLOOR)) / max(x.sum(), 1)
    return 1000 * out
