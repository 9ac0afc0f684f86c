"""Posterior predictive checks: data replicated from the posterior of each observation, beside the observed ones.

What is wrong with a likelihood shows here before it shows anywhere else. Zeros, variances and PIT are those of the
diagnosis; what features have in common, how many are detected, and totals need replicates.
"""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import pandas as pd
import scipy.sparse
import torch
from anndata import AnnData
from jaxtyping import Float
from mudata import MuData
from scipy import stats
from torch import Tensor

from biovae import diagnostics as d
from biovae.analysis import limits, log_normalise
from biovae.batch import plain
from biovae.errors import InputError
from biovae.model import VAE
from biovae.model.evidence import LEVELS, RARE, Calibration, Evidence, calibrate, calibrated_rows
from biovae.model.inference import rows_at_once
from biovae.model.replicate import blocks, replicates
from biovae.noise import Noise
from biovae.schema import Support
from biovae.tools.arguments import model_and_data, whole
from biovae.tools.labels import named, quantities
from biovae.training.progress import passing
from biovae.training.working import working

PER = 1e4


@dataclass(frozen=True)
class PredictiveChecks:
    """What the data and their replicates have in common.

    Attributes:
        verdict: A line per check: value, what is normal, one sentence of advice.
        features: A row per feature: `mean`, `coverage_50`, `coverage_90`, `p_value` and `fdr` of the latter (NaN for
            features that are nearly always zero), `zeros` and `zeros_expected`, `variance` and `variance_expected`.
        observations: For counts a row per observation that was replicated: `total`, `total_expected`, `detected`,
            `detected_expected`, `detected_lower`, `detected_upper` (90 % of replicates), `detected_rank`.
        statistics: Numbers that describe the data set, beside the same of its replicates: see
            `diagnostics.against_replicates`.
        correlated: Names of the most variable features, whose correlations were compared.
        correlation: Of the observed data, (features, features).
        correlation_expected: Mean over replicates.
        draws: Replicates of the data set.
        held_out: Whether observations were named that training had not seen.
    """

    verdict: d.Verdict
    features: pd.DataFrame
    observations: pd.DataFrame
    statistics: pd.DataFrame
    correlated: pd.Index
    correlation: Float[np.ndarray, "features features"]
    correlation_expected: Float[np.ndarray, "features features"]
    draws: int
    held_out: bool

    def __str__(self) -> str:
        """The lines, and what the numbers of the data set are among replicates."""
        seen = "" if self.held_out else " Training may have seen these observations: name held-out ones to be sure."
        checked = int(self.features["p_value"].notna().sum())
        off = int((self.features["fdr"] <= 0.05).sum())
        table = self.statistics.to_string(index=False, float_format=lambda value: f"{value:.3g}")
        return (
            f"{self.verdict}\n\n{table}\n\n{self.draws} replicates. {off:,} of {checked:,} features have a coverage of "
            f"90 % intervals that chance does not explain (5 % expected false); with many observations that may be "
            f"little: look at how far off it is.{seen}"
        )


def predictive_checks(  # noqa: PLR0913 - a user's door
    vae: VAE,
    data: AnnData | MuData,
    *,
    held_out: str | np.ndarray | None = None,
    modality: str | None = None,
    features: int = 300,
    draws: int = 20,
    seed: int = 0,
    progress: bool = True,
) -> PredictiveChecks:
    """Replicate observations from their posteriors, z ~ q(z | x), x' ~ p(x | z), and compare.

    Each replicate has the exposure and covariates of its observation. At most 1,000 observations are drawn to be seen.

    Args:
        vae: A fitted model.
        data: The observations; not changed.
        held_out: Boolean column of `obs`, or array: observations that training has not seen, which alone are checked.
            None checks all.
        modality: Which one; None takes the first.
        features: How many of the most variable features to correlate.
        draws: Replicates of the data set, at least 3.
        seed: Of every draw.
        progress: Show a bar on a terminal.

    Raises:
        InputError: Fewer than 3 draws or 2 features, fewer than 10 observations, or a modality of categories.

    Source: Gelman, Meng and Stern 1996, Statistica Sinica 6:733; Czado, Gneiting and Held 2009,
    doi:10.1111/j.1541-0420.2009.01191.x (coverage of counts, which jump).
    """
    model_and_data(vae, data, seed=seed)
    whole(3, draws=draws)
    whole(2, features=features)
    m = vae.index(modality)
    quantities(vae, modality)
    chosen = None if held_out is None else np.flatnonzero(named(data, held_out))
    evidence = Evidence(vae, vae.fitted, vae.observe(data, indices=chosen), seed=seed)
    rows = calibrated_rows(evidence, m)
    if len(rows) < 10:
        raise InputError(f"expected at least 10 observations to check, found {len(rows)}: name more of them.")
    with working("comparing with quantiles", show=progress):
        found = calibrate(evidence, m)
    replicated = _replicated(evidence, m, (features, draws), show=progress)
    names, recipe = vae.features(modality), vae.modalities[m]
    given = recipe.library == "observed" and recipe.size_factor is None
    lines = [*_calibrated(found, seed), *_compared(replicated, given=given, seed=seed)]
    return PredictiveChecks(
        verdict=d.Verdict(tuple(lines)),
        features=_features(found, names),
        observations=_observations(replicated, evidence.prepared.obs_names[rows.numpy()], seed),
        statistics=d.against_replicates(_statistics(replicated)),
        correlated=names[replicated.columns],
        correlation=replicated.correlation[0],
        correlation_expected=replicated.correlation[1:].mean(0),
        draws=draws,
        held_out=held_out is not None,
    )


@dataclass(frozen=True)
class _Replicated:
    """The observed data set first, its replicates after it; totals and detection of counts and zeros and ones alone."""

    total: Float[np.ndarray, "sets obs"] | None
    detected: Float[np.ndarray, "sets obs"] | None
    columns: np.ndarray
    correlation: Float[np.ndarray, "sets features features"]


def _replicated(evidence: Evidence, m: int, size: tuple[int, int], *, show: bool) -> _Replicated:
    """One pass over blocks: what is kept of a block are two numbers per observation, and sums of products."""
    observations, network = evidence.observations, evidence.fitted.network
    support = evidence.fitted.schema.modalities[m].support
    rows, (most, draws) = calibrated_rows(evidence, m), size
    scaled = _log_normalised if support is Support.COUNTS else _as_it_is
    columns = _variable(plain(observations.x[m])[rows.numpy()], most, support)
    sums, products = np.zeros((draws + 1, len(columns))), np.zeros((draws + 1, len(columns), len(columns)))
    total, detected = [], []
    parts = replicates(network, (observations, rows), m, Noise(evidence.seed), draws)
    count = blocks(rows, rows_at_once(network, observations, draws))
    for x, drawn in passing(parts, count, "replicating", show=show):
        sets = torch.cat([x.unsqueeze(0).to(drawn), drawn]).cpu()
        values = scaled(sets)[..., columns].double().numpy()
        sums += values.sum(1)
        products += np.einsum("drf,drg->dfg", values, values, optimize=True)
        total.append(sets.sum(-1).double().numpy())
        detected.append((sets != 0).sum(-1).double().numpy())
    correlation = _correlation(sums, products, len(rows))
    if support is Support.REALS:
        return _Replicated(None, None, columns, correlation)
    return _Replicated(np.concatenate(total, 1), np.concatenate(detected, 1), columns, correlation)


def _log_normalised(x: Float[Tensor, "sets rows features"]) -> Float[Tensor, "sets rows features"]:
    return torch.log1p(x * (PER / x.sum(-1, keepdim=True).clamp(min=1)))


def _as_it_is(x: Float[Tensor, "sets rows features"]) -> Float[Tensor, "sets rows features"]:
    return x


def _variable(x: scipy.sparse.csr_array | np.ndarray, most: int, support: Support) -> np.ndarray:
    """The features with the largest variance of log-normalised counts, or of values; in order of the features."""
    y = log_normalise(x) if support is Support.COUNTS else x
    if isinstance(y, scipy.sparse.csr_array):
        variance = np.asarray(y.power(2).mean(0)).ravel() - np.asarray(y.mean(0)).ravel() ** 2
    else:
        variance = np.nanvar(np.asarray(y, dtype=np.float64), axis=0)
    return np.sort(np.argsort(-variance, kind="stable")[:most])


def _correlation(sums: np.ndarray, products: np.ndarray, count: int) -> Float[np.ndarray, "sets features features"]:
    """From sums over observations; 0 where a feature does not vary."""
    covariance = products / count - sums[:, :, None] * sums[:, None] / count**2
    deviation = np.sqrt(np.maximum(np.einsum("dff->df", covariance), 0))
    scale = deviation[:, :, None] * deviation[:, None]
    return np.where(scale > 1e-12, covariance / np.where(scale > 1e-12, scale, 1), 0)


def _informative(found: Calibration) -> np.ndarray:
    """Features that are not nearly always zero: of the others the first interval holds nearly everything."""
    if found.zero_expected is None:
        return np.ones(len(found.mean), dtype=bool)
    often = found.zero_expected < RARE
    return often if often.any() else np.ones(len(often), dtype=bool)


def _calibrated(found: Calibration, seed: int) -> list[d.Line]:
    lines = [d.coverage(of[_informative(found)], level) for of, level in zip(found.coverage, LEVELS, strict=True)]
    lines.append(d.uniformity(d.pit(found.lower, found.upper, seed)))
    if found.zero_observed is not None and found.zero_expected is not None:
        lines.append(d.zero_fraction(found.zero_observed, found.zero_expected))
    return [*lines, d.mean_variance(found.mean, found.variance_observed, found.variance_expected)]


def _compared(of: _Replicated, *, given: bool, seed: int) -> list[d.Line]:
    lines = [d.correlations(of.correlation[0], of.correlation[1:])]
    if of.total is not None and of.detected is not None:
        lines.append(d.detection(of.detected[0], of.detected[1:], seed))
        lines.append(d.totals(of.total[0], of.total[1:], given=given, seed=seed))
    return lines


def _features(found: Calibration, names: pd.Index) -> pd.DataFrame:
    often = _informative(found)
    error = np.maximum(found.coverage_error[1], 1e-6)
    p = np.where(often, 2 * stats.norm.sf(np.abs(found.coverage[1] - LEVELS[1]) / error), np.nan)
    fdr = np.full(len(p), np.nan)
    fdr[often] = stats.false_discovery_control(p[often])
    columns = {
        "feature": names,
        "mean": found.mean,
        **{f"coverage_{100 * level:.0f}": of for level, of in zip(LEVELS, found.coverage, strict=True)},
        "p_value": p,
        "fdr": fdr,
        "zeros": np.nan if found.zero_observed is None else found.zero_observed,
        "zeros_expected": np.nan if found.zero_expected is None else found.zero_expected,
        "variance": found.variance_observed,
        "variance_expected": found.variance_expected,
    }
    return pd.DataFrame(columns)


def _observations(of: _Replicated, names: np.ndarray, seed: int) -> pd.DataFrame:
    frame = pd.DataFrame(index=pd.Index(names))
    if of.total is None or of.detected is None:
        return frame
    lower, upper = limits(of.detected[1:])
    frame["total"], frame["total_expected"] = of.total[0], of.total[1:].mean(0)
    frame["detected"], frame["detected_expected"] = of.detected[0], of.detected[1:].mean(0)
    frame["detected_lower"], frame["detected_upper"] = lower, upper
    frame["detected_rank"] = d.ranks(of.detected[0], of.detected[1:], seed)
    return frame


def _statistics(of: _Replicated) -> dict[str, tuple[float, np.ndarray]]:
    """Numbers that describe a whole data set."""
    above = np.triu_indices(of.correlation.shape[1], k=1)
    described: dict[str, tuple[np.ndarray, Callable[[np.ndarray], np.ndarray]]] = {
        "correlation of features, root mean square": (of.correlation[:, above[0], above[1]], _root_mean_square)
    }
    if of.total is not None and of.detected is not None:
        described |= {
            "features detected, mean": (of.detected, lambda sets: sets.mean(1)),
            "features detected, standard deviation": (of.detected, lambda sets: sets.std(1)),
            "total, mean": (of.total, lambda sets: sets.mean(1)),
            "log total, standard deviation": (of.total, lambda sets: np.log(np.maximum(sets, 1)).std(1)),
        }
    found = {name: describe(sets) for name, (sets, describe) in described.items()}
    return {name: (float(values[0]), values[1:]) for name, values in found.items()}


def _root_mean_square(sets: np.ndarray) -> np.ndarray:
    return np.sqrt(np.mean(np.square(sets), axis=1))
