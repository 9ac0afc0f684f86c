"""Observations that are not like the others, and how sure that is.

    t    score of an observation, higher for odder            (obs,)
    t'   scores of what is known, or taken, to be ordinary    (ordinary,)
    p    (1 + number of t' of at least t) / (1 + number of t')

Where the ordinary observations are real ones that nothing was fitted to, p is uniform on further ordinary ones,
whatever the score (a conformal p-value). Where there are none, replicates that the model drew stand for them: they know
the shape of the tail, while place and width are taken from the lower half of the data themselves, because real
observations are less regular than replicates, and few of them are odd.

Source: Vovk, Gammerman and Shafer 2005, doi:10.1007/b106715 (conformal p-values); Bates et al. 2023,
doi:10.1214/22-AOS2244 (for outliers, with false discovery control); Efron 2004, doi:10.1198/016214504000000089 (the
null taken from the bulk of the data).
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import pandas as pd
from jaxtyping import Bool, Float
from scipy.ndimage import uniform_filter1d
from scipy.stats import false_discovery_control

from biovae.analysis.neighbourhoods.positions import finite
from biovae.analysis.neighbourhoods.search import Search
from biovae.analysis.space.density import tail
from biovae.errors import InputError, closest

SMOOTH = 101  # observations of like surprise that share a variance
TRUST = 20.0  # draws' worth of trust in the variance that they share
AROUND = 30  # neighbours that say what is ordinary
LEAST = 0.1  # standard deviation of a value among neighbours, at least: of log totals, a tenth of the counts
LOW, MIDDLE = 0.16, 0.5  # quantiles of the lower half by which a null is placed
USUAL = 0.1  # expected share of false calls
ASKED = {
    "surprise": "counts are unlikely under the model at the observation's own z and depth",
    "misfit": "counts lie on other features than the model expects there",
    "depth": "more or fewer counts than ordinary neighbours in z have",
    "support": "z lies where no ordinary observation lies",
    "doublet": "explained by two states together",
}


@dataclass(frozen=True)
class Anomalies:
    """Odd observations.

    Attributes:
        frame: A row per observation. Scores: `surprise` and, of counts, `misfit` (standard deviations above what
            replicates show), `depth` (of the log total, in standard deviations of neighbours), `rarity` (-log density
            of z, nats), `doublet` (log odds of a simulated doublet), for which `gain` (nats), `partner` and `part` say
            which state would explain what part of it. For each kind `p_...`, and `fdr_...`, the expected share of false
            calls among this observation and all that are odder; `p_value` and `fdr` of all kinds together, `kind` the
            one that is oddest; `oddity`, -sum of log p of all kinds but doublets, ranks states that training never saw;
            of an ensemble `agree`, the share of its fits that call an observation at an `fdr` of 0.1.
        kinds: Those that were looked for.
        calibrated: Whether ordinary observations were given to measure by.
        trials: AUROC of scores for simulated doublets that no score was fitted to, `heterotypic` and `homotypic`; empty
            where no doublets were looked for.
        contamination: Estimated share of heterotypic doublets, at most; NaN where none were looked for.
        said: Sentences on what was left out.
    """

    frame: pd.DataFrame
    kinds: tuple[str, ...]
    calibrated: bool
    trials: pd.DataFrame
    contamination: float = float("nan")
    said: tuple[str, ...] = ()

    def called(self, fdr: float = USUAL, kind: str | None = None) -> pd.DataFrame:
        """Rows of the largest set whose expected share of false calls is at most `fdr`, oddest first.

        Args:
            fdr: Between 0 and 1.
            kind: One of `kinds`; None takes all together.

        Raises:
            InputError: The kind is not one that was looked for, or `fdr` is out of range.
        """
        if kind is not None and kind not in self.kinds:
            raise InputError(f"expected a kind that was looked for, found {kind!r}: {closest(kind, self.kinds)}")
        if not 0 < fdr < 1:
            raise InputError(f"expected an FDR between 0 and 1, found {fdr:g}: 0.1 is usual.")
        by = "" if kind is None else f"_{kind}"
        found = self.frame[self.frame[f"fdr{by}"] <= fdr]
        return found.sort_values(f"p{by}" if kind else "p_value", kind="stable")

    def __str__(self) -> str:
        """How many of each kind, by what they were measured, and whether simpler scores do as well."""
        lines = [f"{len(self.frame):,} observations, called at 10 % expected false:"]
        for kind in self.kinds:
            lines.append(f"  {kind}: {len(self.called(kind=kind)):,} ({ASKED[kind]})")
        if self.calibrated:
            lines.append("p-values are measured by the ordinary observations given: uniform on others like them.")
        else:
            lines.append(
                "No ordinary observations were given (normal=): surprise and misfit are measured by replicates, "
                "doublets by simulated ones, all assuming that most observations are ordinary; p_support and p_depth "
                "are ranks among these same observations, so that one in twenty is below 0.05 whatever they are."
            )
        if np.isfinite(self.contamination):
            lines.append(f"Heterotypic doublets among them, at most: {self.contamination:.1%}.")
        if not self.trials.empty:
            lines.append(self.trials.round(3).to_string())
            lines.append(winner(self.trials))
            lines.append(
                "Doublets that the model was fitted to have become ordinary to it: among those, gain and surprise are "
                "worth less than this table says, and simple scores may win. Fit without them where that is possible."
            )
        if "agree" in self.frame:
            often = self.frame["agree"][self.frame["fdr"] <= USUAL]
            lines.append(f"Of {len(often):,} called by any kind, {int((often == 1).sum()):,} are called by every fit.")
        return "\n".join([*lines, *self.said])


def among_fits(found: Sequence[Anomalies]) -> Anomalies:
    """The first, with the share of fits that call each observation; one alone stays as it is."""
    if len(found) == 1:
        return found[0]
    called = np.mean([each.frame["fdr"].to_numpy() <= USUAL for each in found], axis=0)
    return replace(found[0], frame=found[0].frame.assign(agree=called))


def winner(trials: pd.DataFrame) -> str:
    """Who finds simulated doublets best, in one sentence."""
    own = trials["heterotypic"][trials["score"] == "doublet"].max()
    simple = trials[trials["simple"]].sort_values("heterotypic", ascending=False)
    if simple.empty:
        return "No simple score was compared."
    name, best = simple["score"].iloc[0], simple["heterotypic"].iloc[0]
    if own - best > 0.005:
        return f"Doublets made from these data are found best by this model; the best simple score is {name}."
    if best - own > 0.005:
        return f"A SIMPLE SCORE FINDS DOUBLETS BETTER THAN THIS MODEL: {name}. Use it."
    return f"No better than a simple score at doublets made from these data: {name} finds them as well."


def standardised(
    observed: Float[np.ndarray, "obs draws"], replicated: Float[np.ndarray, "obs draws"]
) -> tuple[Float[np.ndarray, "obs"], Float[np.ndarray, "obs draws"]]:
    """A discrepancy in standard deviations of the replicates of each observation, and the same of the replicates.

    The variance of the few replicates of an observation is moderated by that of its neighbours in mean discrepancy.
    Each replicate is measured by the others.

    Args:
        observed: T(x, z) at draws of z, for example -log p(x | z).
        replicated: T(x', z), x' drawn at the same z.

    Source: Smyth 2004, doi:10.2202/1544-6115.1027 (moderated variances).
    """
    draws = replicated.shape[1]
    if draws < 3:
        raise InputError(f"expected at least 3 draws, found {draws}: a variance needs several.")
    mean = replicated.mean(1)
    own = replicated.var(1, ddof=1)
    order = np.argsort(mean, kind="stable")
    shared = np.empty(len(mean))
    shared[order] = uniform_filter1d(own[order], min(SMOOTH, len(mean)), mode="nearest")
    deviation = np.sqrt((TRUST * shared + (draws - 1) * own) / (TRUST + draws - 1) + 1e-12)
    others = (mean[:, None] * draws - replicated) / (draws - 1)
    t = (observed.mean(1) - mean) / (deviation * np.sqrt(1 + 1 / draws))
    among = (replicated - others) / (deviation[:, None] * np.sqrt(1 + 1 / (draws - 1)))
    return t, among


def unlike_neighbours(
    z: Float[np.ndarray, "obs latent"], value: Float[np.ndarray, "obs"], ordinary: Bool[np.ndarray, "obs"]
) -> Float[np.ndarray, "obs"]:
    """|value - mean of the ordinary neighbours'| in standard deviations of theirs; no observation is its own neighbour.

    Args:
        z: Positions.
        value: Of each observation, for example its log total.
        ordinary: Those among which neighbours are sought.
    """
    z, found = finite(z), np.zeros(len(z))
    k = min(AROUND, int(ordinary.sum()) - 1)
    if k < 1:
        return found
    among = Search(z[ordinary])
    for rows in (ordinary, ~ordinary):
        if rows.any():
            index, _ = among.others(k) if rows is ordinary else among.at(z[rows], k)
            theirs = value[ordinary][index]
            found[rows] = np.abs(value[rows] - theirs.mean(1)) / np.sqrt(theirs.var(1) + LEAST**2)
    return found


def placed(null: Float[np.ndarray, "draws"], observed: Float[np.ndarray, "obs"]) -> Float[np.ndarray, "draws"]:
    """A null moved and stretched so that its median and lower half are those of the data; never made narrower."""
    at, low = np.quantile(observed, MIDDLE), np.quantile(observed, LOW)
    centre, bottom = np.quantile(null, MIDDLE), np.quantile(null, LOW)
    stretch = max((at - low) / max(centre - bottom, 1e-12), 1.0)
    return at + stretch * (null - centre)


def conformal(score: Float[np.ndarray, "obs"], normal: Bool[np.ndarray, "obs"]) -> Float[np.ndarray, "obs"]:
    """p of every observation among the ordinary ones; an ordinary one among the others."""
    p = tail(score, score[normal])
    count = int(normal.sum())
    p[normal] = (p[normal] * (1 + count) - 1) / count  # itself counts once, as the observation that is asked about
    return p


def together(p: pd.DataFrame, normal: Bool[np.ndarray, "obs"] | None) -> Float[np.ndarray, "obs"]:
    """p of the smallest of several p-values: measured by ordinary observations, else by Bonferroni's bound."""
    least = p.min(axis=1).to_numpy()
    return np.minimum(1, p.shape[1] * least) if normal is None else conformal(-least, normal)


def oddity(p: pd.DataFrame) -> Float[np.ndarray, "obs"]:
    """-sum of log p: odd in several ways at once. For ranking: it calls fewer than `together` does (LOG.md).

    Source: Fisher 1932, Statistical Methods for Research Workers, section 21.1.
    """
    return -np.log(p.to_numpy()).sum(axis=1)


def adjusted(p: Float[np.ndarray, "obs"]) -> Float[np.ndarray, "obs"]:
    """Benjamini and Hochberg's: the expected share of false calls among all p-values up to each.

    Source: Benjamini and Hochberg 1995, doi:10.1111/j.2517-6161.1995.tb02031.x.
    """
    return false_discovery_control(p)
