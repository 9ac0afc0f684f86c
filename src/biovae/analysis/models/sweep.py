"""A sweep over beta: what each weight of the KL costs and buys, and which to take for what.

    rate        mean KL(q(z | x) || p(z)), nats per observation
    distortion  -E log p(x | z), nats per observation

Along the curve one is traded for the other; beta is its slope. Low rate is a coarse map, high rate a faithful one, and
neither is better before it is said for what.

Source: Alemi et al. 2018, ICML, arXiv:1711.00464.
"""

from dataclasses import dataclass

import numpy as np
import pandas as pd

from biovae.analysis.models.rivals import MEASURES, against, told
from biovae.errors import InputError

KEPT = 0.9  # of the best gain that a beta for discovery keeps
LOST = 0.5  # of the best gain, below which z has collapsed
SLACK = 0.02  # of label accuracy that a beta for discovery may cost
SILENT = 0.1  # nats: a rate below it tells nothing apart
NEEDED = ("method", "beta", "seed", "rate", "distortion", "score", "gain", "active")


@dataclass(frozen=True)
class Sweep:
    """What a sweep found.

    Attributes:
        frame: A row per beta and seed, then a row for PCA and one for ICA of the same data and dimension.
        imputation: The beta that predicts held-out data best.
        alike: Other betas whose prediction is within two standard errors of it, where those are known.
        discovery: The highest beta that keeps 90 % of the best gain over no z, and label accuracy within 0.02.
        pruned: The lowest beta with fewer active units than a lower one; None if there is none.
        collapsed: The lowest beta from which on less than half of the best gain is left; None if there is none.
        scored: What `score` is.
        said: Sentences on what was left out.
    """

    frame: pd.DataFrame
    imputation: float
    alike: tuple[float, ...]
    discovery: float
    pruned: float | None
    collapsed: float | None
    scored: str
    said: tuple[str, ...] = ()

    @property
    def curve(self) -> pd.DataFrame:
        """The numbers of the VAE, averaged over seeds, a row per beta."""
        return _by_beta(self.frame)

    @property
    def rivals(self) -> pd.DataFrame:
        """The VAE beside PCA and ICA: reconstruction at the beta for imputation, all else at that for discovery.

        See `biovae.analysis.models.rivals.against` for the columns.
        """
        at = {name: self.imputation if name == "reconstruction" else self.discovery for name in MEASURES}
        return against(self.frame, at)

    def __str__(self) -> str:
        """The recommendations, and whether PCA or ICA does as well."""
        curve = self.curve
        at, low, high = curve.loc[self.imputation], curve.index[0], curve.index[-1]
        if at["gain"] <= 0:
            nothing = (
                f"No beta predicts better than the same likelihood without z ({at['gain']:,.1f} nats at best): train "
                "longer, or on more data, before choosing one."
            )
            return "\n".join([nothing, *told(self.rivals, len(curve)), *self.said])
        edge = self.imputation in (low, high) and low != high
        beyond = "; it lies at the edge of the sweep, so that the best may lie beyond" if edge else ""
        lines = [
            f"Imputation: beta {self.imputation:g} ({self.scored} {at['score']:,.1f} nats per observation, "
            f"{at['gain']:,.1f} more than without z{beyond})." + _even(self.alike),
            f"Discovery: beta {self.discovery:g} ({curve.loc[self.discovery, 'gain'] / at['gain']:.0%} of that gain, "
            f"{curve.loc[self.discovery, 'active']:.3g} active units, "
            f"{curve.loc[self.discovery, 'rate']:.1f} nats).",
            _onset("Dimensions fall silent from", self.pruned, "No dimension falls silent up to", high),
            _onset("Less than half of the gain is left from", self.collapsed, "No collapse up to", high),
        ]
        return "\n".join([*lines, *told(self.rivals, len(curve)), *self.said])


def recommend(frame: pd.DataFrame, scored: str) -> Sweep:
    """Read a sweep: see `Sweep` for the rules.

    Args:
        frame: Columns `method` ("VAE" for the rows that are judged), `beta`, `seed`, `rate`, `distortion`, `score`
            (held-out log-probability), `gain` (score less that without z), `active`; where known `accuracy`, and
            `behind_se`, the paired standard error of the distance to the best score; for the rows of PCA and ICA, and
            what is compared with them, see `biovae.analysis.models.rivals.against`.
        scored: What `score` is, for the reader.

    Raises:
        InputError: A column is missing, or there is no row of the VAE.
    """
    missing = [name for name in NEEDED if name not in frame]
    if missing or not (frame["method"] == "VAE").any():
        raise InputError(f"expected a sweep with the columns {', '.join(NEEDED)}, found none of {missing or 'VAE'}.")
    curve = _by_beta(frame)
    gain = curve["gain"]
    imputation = float(curve["score"].idxmax())
    behind = curve["score"].max() - curve["score"]
    near = behind <= 2 * curve["behind_se"] if "behind_se" in curve else behind < 0
    alike = tuple(float(beta) for beta in curve.index[near] if beta != imputation)
    kept = gain >= KEPT * gain[imputation]
    if "accuracy" in curve and curve["accuracy"].notna().all():
        kept &= curve["accuracy"] >= curve.loc[kept, "accuracy"].max() - SLACK
    discovery = float(curve.index[kept | (curve.index == imputation)].max())
    fewer = curve["active"] < curve["active"].cummax()
    gone = (gain <= max(LOST * gain[imputation], 0)) | (curve["rate"] < SILENT)
    lasting = gone[::-1].cummin()[::-1].astype(bool)
    return Sweep(frame, imputation, alike, discovery, _lowest(fewer), _lowest(lasting), scored)


def _by_beta(frame: pd.DataFrame) -> pd.DataFrame:
    rows = frame[frame["method"] == "VAE"].drop(columns=["method", "seed"])
    return rows.groupby("beta").mean().sort_index()


def _lowest(where: pd.Series) -> float | None:
    return float(where.index[where.to_numpy()].min()) if where.any() else None


def _even(betas: tuple[float, ...]) -> str:
    if not betas:
        return ""
    return f" Not to be told from it, within two standard errors: beta {', '.join(f'{beta:g}' for beta in betas)}."


def _onset(found: str, beta: float | None, none: str, high: float) -> str:
    return f"{none} beta {high:g}." if beta is None or not np.isfinite(beta) else f"{found} beta {beta:g}."
